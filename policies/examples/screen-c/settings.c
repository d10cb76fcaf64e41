/* The settings, read by hand: what is wrong is said by its name. */
#include "settings.h"

#include <stdlib.h>
#include <string.h>

#include <sipbox_json.h>

typedef bool check(sipbox_text text);

static bool all(sipbox_text text, const char *letters)
{
    for (size_t at = 0; at < text.length; at++)
        if (text.at[at] == 0 || strchr(letters, text.at[at]) == NULL)
            return false;
    return true;
}

static bool digits_or_empty(sipbox_text text)
{
    return all(text, "0123456789");
}

static bool digits(sipbox_text text)
{
    return text.length > 0 && digits_or_empty(text);
}

static bool country(sipbox_text text)
{
    return digits(text) && text.length <= 3 && text.at[0] != '0';
}

static bool token(sipbox_text text)
{
    return text.length > 0
        && all(text,
               "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.!%*_+`'~-");
}

static bool plain(sipbox_text text)
{
    for (size_t at = 0; at < text.length; at++)
        if ((unsigned char)text.at[at] < 0x20 || text.at[at] == 0x7f)
            return false;
    return true;
}

/* A number, or its beginning and `*`. */
static bool number(sipbox_text text)
{
    if (text.length == 0)
        return false;
    if (text.at[0] == '+')
        text = (sipbox_text){text.at + 1, text.length - 1};
    if (text.length > 0 && text.at[text.length - 1] == '*')
        text.length--;
    return digits_or_empty(text);
}

static const char *const names[] = {
    "country_code",    "international_prefixes", "trunk_prefix", "remove_headers", "set_headers",
    "blocked_callers", "blocked_callees",        "reason",       "count_header",
};

static bool known(sipbox_text key)
{
    for (size_t at = 0; at < sizeof names / sizeof *names; at++)
        if (sipbox_equal(key, sipbox_text_of(names[at])))
            return true;
    return false;
}

/* A copy that outlives the tree. */
static sipbox_text kept(sipbox_text text)
{
    return (sipbox_text){sipbox_copy(text), text.length};
}

static void *list_of(size_t count, size_t size)
{
    void *list = calloc(count == 0 ? 1 : count, size);
    if (list == NULL)
        sipbox_fail("out of memory");
    return list;
}

static size_t length_of(const sipbox_json *list)
{
    size_t count = 0;
    for (const sipbox_json *item = list->child; item != NULL; item = item->next)
        count++;
    return count;
}

/* What the readers below share: the table, and where a refusal goes. */
typedef struct {
    const sipbox_json *table;
    policy_string_t *refusal;
} source;

static bool is_text(const sipbox_json *value, check good)
{
    return value != NULL && value->kind == SIPBOX_JSON_STRING && good(value->text);
}

/* A text of the table; `out` stays as it is where the table has none and needs none. */
static bool text(
    const source *in, const char *name, bool required, const char *expected, check good,
    sipbox_text *out)
{
    const sipbox_json *value = sipbox_json_member(in->table, name);
    if (value == NULL && !required)
        return true;
    if (!is_text(value, good))
        return sipbox_refused(in->refusal, "%s: expected %s", name, expected);
    *out = kept(value->text);
    return true;
}

/* A list of texts; `out` stays as it is where the table has none. */
static bool list(
    const source *in, const char *name, const char *expected, check good, texts *out)
{
    const sipbox_json *value = sipbox_json_member(in->table, name);
    if (value == NULL)
        return true;
    if (value->kind != SIPBOX_JSON_ARRAY)
        return sipbox_refused(in->refusal, "%s: expected a list", name);
    *out = (texts){list_of(length_of(value), sizeof *out->items), 0};
    for (const sipbox_json *item = value->child; item != NULL; item = item->next) {
        if (!is_text(item, good))
            return sipbox_refused(
                in->refusal, "%s[%zu]: expected %s", name, out->count, expected);
        out->items[out->count++] = kept(item->text);
    }
    return true;
}

/* One of `set_headers`. */
static bool header(const source *in, const sipbox_json *item, size_t at, field *out)
{
    if (item->kind != SIPBOX_JSON_OBJECT)
        return sipbox_refused(
            in->refusal, "set_headers[%zu]: expected a table with `name` and `value`", at);
    for (const sipbox_json *part = item->child; part != NULL; part = part->next)
        if (!sipbox_equal(part->key, sipbox_text_of("name"))
            && !sipbox_equal(part->key, sipbox_text_of("value")))
            return sipbox_refused(
                in->refusal, "set_headers[%zu]: unknown setting `%s`", at, part->key.at);
    const sipbox_json *name = sipbox_json_member(item, "name");
    const sipbox_json *value = sipbox_json_member(item, "value");
    if (!is_text(name, token))
        return sipbox_refused(
            in->refusal, "set_headers[%zu].name: expected the name of a header field", at);
    if (!is_text(value, plain))
        return sipbox_refused(
            in->refusal, "set_headers[%zu].value: expected a text of one line", at);
    *out = (field){kept(name->text), kept(value->text)};
    return true;
}

static bool headers(const source *in, settings *out)
{
    const sipbox_json *value = sipbox_json_member(in->table, "set_headers");
    if (value == NULL)
        return true;
    if (value->kind != SIPBOX_JSON_ARRAY)
        return sipbox_refused(in->refusal, "set_headers: expected a list");
    out->set_headers = list_of(length_of(value), sizeof *out->set_headers);
    for (const sipbox_json *item = value->child; item != NULL; item = item->next) {
        size_t at = out->set_header_count;
        if (!header(in, item, at, &out->set_headers[at]))
            return false;
        out->set_header_count++;
    }
    return true;
}

static bool table(const source *in, settings *out)
{
    static const char a_name[] = "the name of a header field";
    static const char a_number[] = "a number, or its beginning and `*`";
    if (in->table->kind != SIPBOX_JSON_OBJECT)
        return sipbox_refused(in->refusal, "expected a table");
    for (const sipbox_json *member = in->table->child; member != NULL; member = member->next)
        if (!known(member->key))
            return sipbox_refused(in->refusal, "unknown setting `%s`", member->key.at);
    return text(in, "country_code", true, "1 to 3 digits that do not begin with 0", country,
                &out->country_code)
        && list(in, "international_prefixes", "digits", digits, &out->international_prefixes)
        && text(in, "trunk_prefix", false, "digits or an empty text", digits_or_empty,
                &out->trunk_prefix)
        && list(in, "remove_headers", a_name, token, &out->remove_headers)
        && headers(in, out)
        && list(in, "blocked_callers", a_number, number, &out->blocked_callers)
        && list(in, "blocked_callees", a_number, number, &out->blocked_callees)
        && text(in, "reason", false, "a text of one line", plain, &out->reason)
        && text(in, "count_header", false, a_name, token, &out->count_header);
}

bool settings_read(sipbox_text json, settings *out, policy_string_t *refusal)
{
    static sipbox_text prefixes[] = {{"00", 2}};
    *out = (settings){
        .international_prefixes = {prefixes, 1},
        .trunk_prefix = sipbox_text_of("0"),
        .reason = sipbox_text_of("Blocked"),
    };
    char *error = NULL;
    sipbox_json *tree = sipbox_json_read(json, &error);
    if (tree == NULL) {
        sipbox_refused(refusal, "the settings are no JSON: %s", error);
        free(error);
        return false;
    }
    source in = {tree, refusal};
    bool good = table(&in, out);
    sipbox_json_free(tree);
    return good;
}
