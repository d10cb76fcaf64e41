/* The SDK for policies in C: reading the message, editing it, deciding, logging.
 *
 * What it stands on is `policy.h`, which the builder generates from the world of the
 * policy (`wit/world.wit`). The world has to import `message`, `call` and `log`; what the
 * SDK does not cover is called as `policy.h` names it. README.md shows a policy. */
#ifndef SIPBOX_H
#define SIPBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy.h"

/* --- Texts: bytes that belong to somebody else, without a zero at their end. */

/* `at` is null where there is no such text. */
typedef struct {
    const char *at;
    size_t length;
} sipbox_text;

/* The text of a C string, or none of a null pointer. */
sipbox_text sipbox_text_of(const char *text);

/* Whether two texts have the same bytes. */
bool sipbox_equal(sipbox_text one, sipbox_text other);

/* Whether a text begins with another one. */
bool sipbox_begins(sipbox_text text, sipbox_text with);

/* Copies a text to the heap, with a zero at its end. */
char *sipbox_copy(sipbox_text text);

/* For `%.*s`. */
#define SIPBOX_TEXT(text) (int)(text).length, (text).at

/* --- Formatting: `%s %.*s %c %d %i %u %x %zu %lu %%`, no widths and no fractions. The C
 * library's own would bring files along, and with them WASI. */

/* A text on the heap; free it. */
char *sipbox_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- Log lines. */

void sipbox_log(sipbox_policy_log_level_t level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define sipbox_debug(...) sipbox_log(SIPBOX_POLICY_LOG_LEVEL_DEBUG, __VA_ARGS__)
#define sipbox_info(...) sipbox_log(SIPBOX_POLICY_LOG_LEVEL_INFO, __VA_ARGS__)
#define sipbox_warn(...) sipbox_log(SIPBOX_POLICY_LOG_LEVEL_WARN, __VA_ARGS__)
#define sipbox_error(...) sipbox_log(SIPBOX_POLICY_LOG_LEVEL_ERROR, __VA_ARGS__)

/* Ends the call: the text is logged with file and line, the instance is thrown away and the
 * tenant's fallback decides. `assert` of <assert.h> and `abort` end here too. */
#define sipbox_fail(...) sipbox_fail_at(__FILE__, __LINE__, __VA_ARGS__)

_Noreturn void sipbox_fail_at(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- The message of this call, in one crossing. */

/* The ids of the index; wit/README.md tells what each is. */
enum {
    SIPBOX_METHOD = 1,
    SIPBOX_REQUEST_URI = 2,
    SIPBOX_STATUS = 3,
    SIPBOX_REASON = 4,
    SIPBOX_URI_SCHEME = 8,
    SIPBOX_URI_USER = 9,
    SIPBOX_URI_HOST = 10,
    SIPBOX_URI_PORT = 11,
    SIPBOX_URI_PARAMS = 12,
    SIPBOX_FROM_URI = 16,
    SIPBOX_FROM_USER = 17,
    SIPBOX_FROM_HOST = 18,
    SIPBOX_FROM_TAG = 19,
    SIPBOX_FROM_DISPLAY = 20,
    SIPBOX_FROM_PORT = 21,
    SIPBOX_TO_URI = 24,
    SIPBOX_TO_USER = 25,
    SIPBOX_TO_HOST = 26,
    SIPBOX_TO_TAG = 27,
    SIPBOX_TO_DISPLAY = 28,
    SIPBOX_TO_PORT = 29,
    SIPBOX_CALL_ID = 32,
    SIPBOX_CSEQ_NUMBER = 33,
    SIPBOX_CSEQ_METHOD = 34,
    SIPBOX_CONTACT_URI = 40,
    SIPBOX_CONTACT_USER = 41,
    SIPBOX_CONTACT_HOST = 42,
    SIPBOX_CONTACT_PORT = 43,
    SIPBOX_TENANT = 64,
    SIPBOX_LISTENER = 65,
    SIPBOX_SOURCE_ADDRESS = 66,
    SIPBOX_AUTHENTICATED_USER = 67,
    SIPBOX_ROUTE_PARAMS = 68,
    SIPBOX_NOW = 96,
    SIPBOX_SOURCE = 97,
    SIPBOX_ROUTING = 98,
    SIPBOX_FLAGS = 99,
    SIPBOX_OTHER_NAME = 128,
    SIPBOX_OTHER_VALUE = 129,
};

typedef sipbox_policy_message_message_view_t sipbox_view;

/* Fetches it; free it before the hook returns. Texts point into it, and are UTF-8: for bytes that are
 * not there is `?`. */
sipbox_view sipbox_view_read(void);
void sipbox_view_free(sipbox_view *view);

/* The first text of that id, or none. */
sipbox_text sipbox_view_text(const sipbox_view *view, uint32_t id);

/* One of the two numbers of an id of the block `immediate` (96 to 127), or 0. */
uint32_t sipbox_view_number(const sipbox_view *view, uint32_t id, unsigned which);

/* Whether the To header field has a tag. */
bool sipbox_view_in_dialog(const sipbox_view *view);

/* The status of a response, 0 of a request. */
unsigned sipbox_view_status(const sipbox_view *view);

/* The first header field of that name without folds, on the heap; null where there is none. */
char *sipbox_header(const char *name);

/* --- Edits and what belongs to the transaction. A refusal is logged with its reason, and is
 * `false`. */

bool sipbox_set_header(sipbox_text name, sipbox_text value);
bool sipbox_add_header(sipbox_text name, sipbox_text value);
bool sipbox_remove_header(sipbox_text name);
bool sipbox_set_request_uri(sipbox_text uri);
bool sipbox_arm(sipbox_policy_call_hooks_t hooks);
bool sipbox_set_var(const char *name, sipbox_text value);

/* A variable on the heap; null where there is none. */
char *sipbox_var(const char *name);

/* --- Answers of the hooks. What they point to is copied. */

typedef sipbox_policy_types_verdict_t sipbox_verdict;

/* The next policy of the chain decides. */
void sipbox_next(sipbox_verdict *verdict);

/* A response of this proxy; an empty reason is the usual one. */
void sipbox_reply(sipbox_verdict *verdict, uint16_t status, sipbox_text reason);

/* Relayed along the route set, or else to the Request-URI. */
void sipbox_relay(sipbox_verdict *verdict, bool record_route);

/* Relayed to a URI by way of `next_hop`, which may be none. */
void sipbox_relay_to(
    sipbox_verdict *verdict, sipbox_text uri, sipbox_text next_hop, bool record_route);

/* The end of `configure`: what the policy is. */
bool sipbox_configured(
    exports_sipbox_policy_lifecycle_description_t *description,
    const char *name, const char *version, const char *summary);

/* After `sipbox_configured`: names of variables that all policies of the chain see. Variables
   under other names are the policy's own. */
void sipbox_shares(
    exports_sipbox_policy_lifecycle_description_t *description,
    const char *const *names, size_t count);

/* The end of `configure`: a text that refuses the settings. */
bool sipbox_refused(policy_string_t *reason, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
