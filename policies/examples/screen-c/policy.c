/* Example: numbers become E.164, header fields are set and removed as the settings say, and who is
 * on the block list gets 403. The same policy stands beside this one in Rust and in TypeScript. */
#include <stdlib.h>
#include <string.h>

#include <sipbox.h>

#include "settings.h"

#define COUNT "screen.provisional"
/* E.164 numbers have 15 digits at most. */
#define LONGEST 15

/* What `configure` worked out: nothing else may outlive a call. */
static settings chosen;

/* --- Numbers. */

/* The digits that were dialled, without the `+` and what is only there to be read; 0 and false if
 * there is anything else. */
typedef struct {
    char digits[64];
    size_t count;
    bool international;
} dialled;

static bool read_number(sipbox_text user, dialled *out)
{
    *out = (dialled){.count = 0};
    bool first = true;
    for (size_t at = 0; at < user.length; at++) {
        char letter = user.at[at];
        if (letter == '-' || letter == '.' || letter == '(' || letter == ')')
            continue;
        if (letter == '+' && first)
            out->international = true;
        else if (letter >= '0' && letter <= '9' && out->count < sizeof out->digits)
            out->digits[out->count++] = letter;
        else
            return false;
        first = false;
    }
    return out->count > 0;
}

static size_t international_prefix(sipbox_text digits)
{
    size_t longest = 0;
    for (size_t at = 0; at < chosen.international_prefixes.count; at++) {
        sipbox_text prefix = chosen.international_prefixes.items[at];
        if (prefix.length > longest && sipbox_begins(digits, prefix))
            longest = prefix.length;
    }
    return longest;
}

/* The number in its international form on the heap, or null if it is none that was dialled in
 * full. */
static char *normalised(sipbox_text user)
{
    dialled number;
    if (!read_number(user, &number))
        return NULL;
    sipbox_text digits = {number.digits, number.count};
    sipbox_text country = {"", 0};
    if (!number.international) {
        size_t skipped = international_prefix(digits);
        if (skipped == 0) {
            sipbox_text trunk = chosen.trunk_prefix;
            if (trunk.length == 0 || sipbox_equal(digits, trunk) || !sipbox_begins(digits, trunk))
                return NULL;
            skipped = trunk.length;
            country = chosen.country_code;
        }
        digits = (sipbox_text){digits.at + skipped, digits.length - skipped};
    }
    size_t length = country.length + digits.length;
    char first = country.length > 0 ? country.at[0] : digits.length > 0 ? digits.at[0] : '0';
    if (length > LONGEST || first == '0')
        return NULL;
    return sipbox_format("+%.*s%.*s", SIPBOX_TEXT(country), SIPBOX_TEXT(digits));
}

static bool blocked(sipbox_text number, texts list)
{
    for (size_t at = 0; at < list.count; at++) {
        sipbox_text entry = list.items[at];
        bool beginning = entry.at[entry.length - 1] == '*';
        sipbox_text with = {entry.at, entry.length - 1};
        if (beginning ? sipbox_begins(number, with) : sipbox_equal(number, entry))
            return true;
    }
    return false;
}

/* --- Hooks. */

bool exports_sipbox_policy_lifecycle_configure(
    policy_string_t *json, exports_sipbox_policy_lifecycle_description_t *description,
    policy_string_t *refusal)
{
    bool good = settings_read(
        (sipbox_text){(const char *)json->ptr, json->len}, &chosen, refusal);
    policy_string_free(json);
    return good
        && sipbox_configured(
            description, "policy-screen-c", "0.1.0",
            "Example in C: numbers to E.164, header fields from settings, a block list.");
}

/* Puts the number into the Request-URI, whose other parts stay. */
static void set_user(const sipbox_view *view, sipbox_text user, sipbox_text number)
{
    sipbox_text uri = sipbox_view_text(view, SIPBOX_REQUEST_URI);
    sipbox_text before = {uri.at, (size_t)(user.at - uri.at)};
    sipbox_text after = {user.at + user.length, uri.length - before.length - user.length};
    char *changed = sipbox_format(
        "%.*s%.*s%.*s", SIPBOX_TEXT(before), SIPBOX_TEXT(number), SIPBOX_TEXT(after));
    sipbox_set_request_uri(sipbox_text_of(changed));
    free(changed);
}

static void decide(const sipbox_view *view, sipbox_verdict *verdict)
{
    sipbox_text user = sipbox_view_text(view, SIPBOX_URI_USER);
    sipbox_text from = sipbox_view_text(view, SIPBOX_FROM_USER);
    char *to_number = normalised(user), *from_number = normalised(from);
    sipbox_text callee = to_number == NULL ? user : sipbox_text_of(to_number);
    sipbox_text caller = from_number == NULL ? from : sipbox_text_of(from_number);
    if (blocked(caller, chosen.blocked_callers) || blocked(callee, chosen.blocked_callees)) {
        sipbox_info("blocked: %.*s calls %.*s", SIPBOX_TEXT(caller), SIPBOX_TEXT(callee));
        sipbox_reply(verdict, 403, chosen.reason);
    } else {
        if (!sipbox_equal(callee, user))
            set_user(view, user, callee);
        for (size_t at = 0; at < chosen.remove_headers.count; at++)
            sipbox_remove_header(chosen.remove_headers.items[at]);
        for (size_t at = 0; at < chosen.set_header_count; at++)
            sipbox_set_header(chosen.set_headers[at].name, chosen.set_headers[at].value);
        if (chosen.count_header.at != NULL)
            sipbox_arm(SIPBOX_POLICY_CALL_HOOKS_REPLY);
        sipbox_next(verdict);
    }
    free(to_number);
    free(from_number);
}

void exports_sipbox_policy_request_hook_on_request(sipbox_verdict *verdict)
{
    sipbox_view view = sipbox_view_read();
    if (sipbox_view_in_dialog(&view))
        sipbox_next(verdict);
    else
        decide(&view, verdict);
    sipbox_view_free(&view);
}

exports_sipbox_policy_reply_hook_reply_verdict_t exports_sipbox_policy_reply_hook_on_reply(void)
{
    char *known = sipbox_var(COUNT);
    long count = known == NULL ? 0 : strtol(known, NULL, 10);
    free(known);
    bool provisional = sipbox_policy_message_status() < 200;
    char *text = sipbox_format("%ld", provisional ? count + 1 : count);
    if (provisional)
        sipbox_set_var(COUNT, sipbox_text_of(text));
    if (chosen.count_header.at != NULL)
        sipbox_set_header(chosen.count_header, sipbox_text_of(text));
    free(text);
    return EXPORTS_SIPBOX_POLICY_REPLY_HOOK_REPLY_VERDICT_FORWARD;
}
