/* The SDK for policies in C; sipbox.h tells what each function does. */
#include "sipbox.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* --- Texts. */

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (memory == NULL)
        sipbox_fail("out of memory: %zu bytes", size);
    return memory;
}

sipbox_text sipbox_text_of(const char *text)
{
    return (sipbox_text){text, text == NULL ? 0 : strlen(text)};
}

bool sipbox_equal(sipbox_text one, sipbox_text other)
{
    return one.length == other.length && sipbox_begins(one, other);
}

bool sipbox_begins(sipbox_text text, sipbox_text with)
{
    return text.length >= with.length
        && (with.length == 0 || memcmp(text.at, with.at, with.length) == 0);
}

char *sipbox_copy(sipbox_text text)
{
    char *copy = allocate(text.length + 1);
    if (text.length > 0)
        memcpy(copy, text.at, text.length);
    copy[text.length] = 0;
    return copy;
}

/* What a host call is lent. */
static policy_string_t lent(sipbox_text text)
{
    return (policy_string_t){(uint8_t *)text.at, text.length};
}

/* What an answer gives away: the bindings free it. */
static policy_string_t given(sipbox_text text)
{
    policy_string_t copy = {NULL, text.length};
    if (text.length > 0) {
        copy.ptr = allocate(text.length);
        memcpy(copy.ptr, text.at, text.length);
    }
    return copy;
}

/* What a host call gave, with a zero at its end. */
static char *taken(policy_string_t *text)
{
    char *copy = sipbox_copy((sipbox_text){(const char *)text->ptr, text->len});
    policy_string_free(text);
    return copy;
}

/* --- Formatting. */

typedef struct {
    char *at;
    size_t length;
    size_t room;
} buffer;

static void append(buffer *out, const char *text, size_t length)
{
    if (length == 0)
        return;
    if (out->length + length + 1 > out->room) {
        out->room = (out->length + length + 1) * 2;
        out->at = realloc(out->at, out->room);
        /* Saying so would need memory as well. */
        if (out->at == NULL)
            __builtin_trap();
    }
    memcpy(out->at + out->length, text, length);
    out->length += length;
}

static void append_number(buffer *out, unsigned long number, unsigned base)
{
    char digits[24];
    size_t at = sizeof digits;
    do {
        digits[--at] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number > 0);
    append(out, digits + at, sizeof digits - at);
}

/* One conversion, whose letters begin at `format`; where it ends. */
static const char *convert(buffer *out, const char *format, va_list *arguments)
{
    int precision = -1;
    bool is_long = false;
    if (format[0] == '.' && format[1] == '*') {
        precision = va_arg(*arguments, int);
        format += 2;
    }
    while (*format == 'l' || *format == 'z') {
        is_long = true;
        format++;
    }
    switch (*format) {
    case 's': {
        const char *text = va_arg(*arguments, const char *);
        if (text == NULL)
            text = "";
        append(out, text, precision >= 0 ? strnlen(text, (size_t)precision) : strlen(text));
        break;
    }
    case 'c': {
        char letter = (char)va_arg(*arguments, int);
        append(out, &letter, 1);
        break;
    }
    case 'd':
    case 'i': {
        long number = is_long ? va_arg(*arguments, long) : va_arg(*arguments, int);
        if (number < 0)
            append(out, "-", 1);
        append_number(out, number < 0 ? 0UL - (unsigned long)number : (unsigned long)number, 10);
        break;
    }
    case 'u':
    case 'x': {
        unsigned long number =
            is_long ? va_arg(*arguments, unsigned long) : va_arg(*arguments, unsigned);
        append_number(out, number, *format == 'x' ? 16 : 10);
        break;
    }
    case '%':
        append(out, "%", 1);
        break;
    default:
        /* What is not known is shown, and takes no argument. */
        append(out, "%?", 2);
        return format;
    }
    return format + 1;
}

static void format_into(buffer *out, const char *format, va_list *arguments)
{
    while (*format != 0) {
        const char *percent = strchr(format, '%');
        size_t plain = percent == NULL ? strlen(format) : (size_t)(percent - format);
        append(out, format, plain);
        format += plain;
        if (*format == '%')
            format = convert(out, format + 1, arguments);
    }
}

static char *finished(buffer *out)
{
    if (out->at == NULL)
        return sipbox_copy(sipbox_text_of(""));
    out->at[out->length] = 0;
    return out->at;
}

char *sipbox_format(const char *format, ...)
{
    buffer out = {0};
    va_list arguments;
    va_start(arguments, format);
    format_into(&out, format, &arguments);
    va_end(arguments);
    return finished(&out);
}

/* --- Log lines. */

static void log_buffer(sipbox_policy_log_level_t level, buffer *out)
{
    policy_string_t line = {(uint8_t *)out->at, out->length};
    sipbox_policy_log_log(level, &line);
    free(out->at);
}

void sipbox_log(sipbox_policy_log_level_t level, const char *format, ...)
{
    buffer out = {0};
    va_list arguments;
    va_start(arguments, format);
    format_into(&out, format, &arguments);
    va_end(arguments);
    log_buffer(level, &out);
}

_Noreturn void sipbox_fail_at(const char *file, int line, const char *format, ...)
{
    buffer out = {0};
    append(&out, file, strlen(file));
    append(&out, ":", 1);
    append_number(&out, (unsigned long)line, 10);
    append(&out, ": ", 2);
    va_list arguments;
    va_start(arguments, format);
    format_into(&out, format, &arguments);
    va_end(arguments);
    log_buffer(SIPBOX_POLICY_LOG_LEVEL_ERROR, &out);
    __builtin_trap();
}

/* Where `assert` goes; the C library's would write to a file. */
_Noreturn void __assert_fail(const char *expression, const char *file, int line, const char *function)
{
    sipbox_fail_at(file, line, "%s: assertion `%s` failed", function, expression);
}

/* The C library's traps without a word. Weak, for a library that has something else in the same file
 * of its archive. */
__attribute__((weak)) _Noreturn void abort(void)
{
    sipbox_error("abort() was called");
    __builtin_trap();
}

/* --- The message of this call. */

sipbox_view sipbox_view_read(void)
{
    sipbox_view view;
    sipbox_policy_message_view(&view);
    return view;
}

void sipbox_view_free(sipbox_view *view)
{
    sipbox_policy_message_message_view_free(view);
}

/* The first triple of that id, or null. */
static const uint32_t *triple(const sipbox_view *view, uint32_t id)
{
    for (size_t at = 0; at + 2 < view->index.len; at += 3)
        if (view->index.ptr[at] == id)
            return &view->index.ptr[at];
    return NULL;
}

sipbox_text sipbox_view_text(const sipbox_view *view, uint32_t id)
{
    const uint32_t *found = triple(view, id);
    if (found == NULL || (found[2] == 0 && id < SIPBOX_OTHER_NAME))
        return (sipbox_text){NULL, 0};
    return (sipbox_text){(const char *)view->text.ptr + found[1], found[2]};
}

uint32_t sipbox_view_number(const sipbox_view *view, uint32_t id, unsigned which)
{
    const uint32_t *found = triple(view, id);
    return found == NULL || which > 1 ? 0 : found[1 + which];
}

bool sipbox_view_in_dialog(const sipbox_view *view)
{
    return (sipbox_view_number(view, SIPBOX_FLAGS, 0) & 1) != 0;
}

unsigned sipbox_view_status(const sipbox_view *view)
{
    sipbox_text digits = sipbox_view_text(view, SIPBOX_STATUS);
    unsigned status = 0;
    for (size_t at = 0; at < digits.length && at < 3; at++)
        status = status * 10 + (unsigned)(digits.at[at] - '0');
    return status;
}

char *sipbox_header(const char *name)
{
    policy_string_t asked = lent(sipbox_text_of(name)), found;
    return sipbox_policy_message_header(&asked, &found) ? taken(&found) : NULL;
}

/* --- Edits. */

/* Logs why a host call was refused, and frees it. */
static bool accepted(bool accepted, const char *what, sipbox_policy_types_error_t *error)
{
    static const char *const kinds[] = {
        "out of place", "malformed", "protected", "unknown option", "limit", "unavailable",
    };
    if (accepted)
        return true;
    const char *kind = error->tag < sizeof kinds / sizeof *kinds ? kinds[error->tag] : "refused";
    /* All cases hold one text. */
    policy_string_t *text = &error->val.malformed;
    sipbox_warn("%s: %s: %.*s", what, kind, (int)text->len, (const char *)text->ptr);
    sipbox_policy_types_error_free(error);
    return false;
}

bool sipbox_set_header(sipbox_text name, sipbox_text value)
{
    policy_string_t field = lent(name), text = lent(value);
    sipbox_policy_types_error_t error;
    return accepted(sipbox_policy_message_set_header(&field, &text, &error), "set-header", &error);
}

bool sipbox_add_header(sipbox_text name, sipbox_text value)
{
    policy_string_t field = lent(name), text = lent(value);
    sipbox_policy_types_error_t error;
    return accepted(sipbox_policy_message_add_header(&field, &text, &error), "add-header", &error);
}

bool sipbox_remove_header(sipbox_text name)
{
    policy_string_t field = lent(name);
    sipbox_policy_types_error_t error;
    return accepted(sipbox_policy_message_remove_header(&field, &error), "remove-header", &error);
}

bool sipbox_set_request_uri(sipbox_text uri)
{
    policy_string_t text = lent(uri);
    sipbox_policy_types_error_t error;
    return accepted(
        sipbox_policy_message_set_request_uri(&text, &error), "set-request-uri", &error);
}

bool sipbox_arm(sipbox_policy_call_hooks_t hooks)
{
    sipbox_policy_types_error_t error;
    return accepted(sipbox_policy_call_arm(hooks, &error), "arm", &error);
}

bool sipbox_set_var(const char *name, sipbox_text value)
{
    policy_string_t variable = lent(sipbox_text_of(name)), text = lent(value);
    sipbox_policy_types_error_t error;
    return accepted(sipbox_policy_call_set_var(&variable, &text, &error), "set-var", &error);
}

char *sipbox_var(const char *name)
{
    policy_string_t variable = lent(sipbox_text_of(name)), found;
    return sipbox_policy_call_var(&variable, &found) ? taken(&found) : NULL;
}

/* --- Answers. */

void sipbox_next(sipbox_verdict *verdict)
{
    memset(verdict, 0, sizeof *verdict);
    verdict->tag = SIPBOX_POLICY_TYPES_VERDICT_NEXT;
}

void sipbox_reply(sipbox_verdict *verdict, uint16_t status, sipbox_text reason)
{
    memset(verdict, 0, sizeof *verdict);
    verdict->tag = SIPBOX_POLICY_TYPES_VERDICT_REPLY;
    verdict->val.reply.status = status;
    verdict->val.reply.reason = given(reason);
}

void sipbox_relay(sipbox_verdict *verdict, bool record_route)
{
    memset(verdict, 0, sizeof *verdict);
    verdict->tag = SIPBOX_POLICY_TYPES_VERDICT_RELAY;
    verdict->val.relay.record_route.is_some = record_route;
}

void sipbox_relay_to(
    sipbox_verdict *verdict, sipbox_text uri, sipbox_text next_hop, bool record_route)
{
    sipbox_relay(verdict, record_route);
    sipbox_policy_types_list_target_t *group = allocate(sizeof *group);
    verdict->val.relay.groups.ptr = group;
    verdict->val.relay.groups.len = 1;
    group->ptr = allocate(sizeof *group->ptr);
    group->len = 1;
    memset(group->ptr, 0, sizeof *group->ptr);
    group->ptr->q = 1000;
    group->ptr->destination.tag = SIPBOX_POLICY_TYPES_DESTINATION_URI;
    group->ptr->destination.val.uri.uri = given(uri);
    group->ptr->destination.val.uri.next_hop = given(next_hop);
}

bool sipbox_configured(
    exports_sipbox_policy_lifecycle_description_t *description,
    const char *name, const char *version, const char *summary)
{
    description->name = given(sipbox_text_of(name));
    description->version = given(sipbox_text_of(version));
    description->summary = given(sipbox_text_of(summary));
    description->variables.ptr = NULL;
    description->variables.len = 0;
    return true;
}

void sipbox_shares(
    exports_sipbox_policy_lifecycle_description_t *description,
    const char *const *names, size_t count)
{
    description->variables.ptr = allocate(count * sizeof *description->variables.ptr);
    description->variables.len = count;
    for (size_t at = 0; at < count; at++)
        description->variables.ptr[at] = given(sipbox_text_of(names[at]));
}

bool sipbox_refused(policy_string_t *reason, const char *format, ...)
{
    buffer out = {0};
    va_list arguments;
    va_start(arguments, format);
    format_into(&out, format, &arguments);
    va_end(arguments);
    reason->ptr = (uint8_t *)out.at;
    reason->len = out.length;
    return false;
}
