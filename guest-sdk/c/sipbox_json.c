/* A reader of JSON (RFC 8259) that looks at each byte once and trusts none. */
#include "sipbox_json.h"

#include <stdlib.h>
#include <string.h>

/* Deeper nesting is refused: the reader calls itself, and its stack is small. */
#define DEEPEST 32

typedef struct {
    sipbox_text text;
    size_t at;
    const char *error;
} reader;

static sipbox_json *value(reader *in, unsigned depth);

/* The byte at hand; 0 at the end, and no JSON has a zero outside of what is wrong with it. */
static char peek(const reader *in)
{
    return in->at < in->text.length ? in->text.at[in->at] : 0;
}

static void skip_space(reader *in)
{
    while (peek(in) == ' ' || peek(in) == '\t' || peek(in) == '\n' || peek(in) == '\r')
        in->at++;
}

static bool take(reader *in, char byte, const char *error)
{
    if (peek(in) == byte) {
        in->at++;
        return true;
    }
    in->error = error;
    return false;
}

static sipbox_json *fresh(sipbox_json_kind kind)
{
    sipbox_json *node = calloc(1, sizeof *node);
    if (node == NULL)
        sipbox_fail("out of memory");
    node->kind = kind;
    return node;
}

static sipbox_json *word(reader *in, const char *letters, sipbox_json_kind kind)
{
    sipbox_text rest = {in->text.at + in->at, in->text.length - in->at};
    if (!sipbox_begins(rest, sipbox_text_of(letters))) {
        in->error = "expected a value";
        return NULL;
    }
    in->at += strlen(letters);
    return fresh(kind);
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static bool digits(reader *in)
{
    if (!is_digit(peek(in))) {
        in->error = "expected a digit";
        return false;
    }
    while (is_digit(peek(in)))
        in->at++;
    return true;
}

static sipbox_json *number(reader *in)
{
    size_t begin = in->at;
    if (peek(in) == '-')
        in->at++;
    bool zero = peek(in) == '0';
    size_t integer = in->at;
    if (!digits(in))
        return NULL;
    if (zero && in->at > integer + 1) {
        in->error = "a number does not begin with 0";
        return NULL;
    }
    if (peek(in) == '.') {
        in->at++;
        if (!digits(in))
            return NULL;
    }
    if (peek(in) == 'e' || peek(in) == 'E') {
        in->at++;
        if (peek(in) == '+' || peek(in) == '-')
            in->at++;
        if (!digits(in))
            return NULL;
    }
    sipbox_json *node = fresh(SIPBOX_JSON_NUMBER);
    sipbox_text written = {in->text.at + begin, in->at - begin};
    node->text = sipbox_text_of(sipbox_copy(written));
    return node;
}

static int hex(char byte)
{
    if (is_digit(byte))
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    if (byte >= 'A' && byte <= 'F')
        return byte - 'A' + 10;
    return -1;
}

/* Four digits of an escape, or -1. */
static long unit(reader *in)
{
    long found = 0;
    for (int n = 0; n < 4; n++) {
        int digit = hex(peek(in));
        if (digit < 0)
            return -1;
        found = found * 16 + digit;
        in->at++;
    }
    return found;
}

static size_t put_utf8(char *out, long point)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xc0 | (point >> 6));
        out[1] = (char)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xe0 | (point >> 12));
        out[1] = (char)(0x80 | ((point >> 6) & 0x3f));
        out[2] = (char)(0x80 | (point & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | (point >> 18));
    out[1] = (char)(0x80 | ((point >> 12) & 0x3f));
    out[2] = (char)(0x80 | ((point >> 6) & 0x3f));
    out[3] = (char)(0x80 | (point & 0x3f));
    return 4;
}

/* What follows `\u`: one character, by one unit or by a pair of them. */
static bool escaped_point(reader *in, char *out, size_t *length)
{
    long point = unit(in);
    if (point >= 0xd800 && point < 0xdc00 && peek(in) == '\\') {
        in->at++;
        long low = peek(in) == 'u' ? (in->at++, unit(in)) : -1;
        point = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00) : -1;
    } else if (point >= 0xd800 && point < 0xe000) {
        point = -1;
    }
    if (point < 0) {
        in->error = "a character behind `\\u` that there is not";
        return false;
    }
    *length += put_utf8(out + *length, point);
    return true;
}

/* A string, on the heap. Resolving its escapes makes it no longer. */
static bool string(reader *in, sipbox_text *found)
{
    if (!take(in, '"', "expected a string"))
        return false;
    char *out = malloc(in->text.length - in->at + 1);
    if (out == NULL)
        sipbox_fail("out of memory");
    size_t length = 0;
    while (peek(in) != '"') {
        unsigned char byte = (unsigned char)peek(in);
        if (byte < 0x20) {
            in->error = in->at < in->text.length ? "a control character in a string"
                                                 : "a string without its end";
            free(out);
            return false;
        }
        in->at++;
        if (byte != '\\') {
            out[length++] = (char)byte;
            continue;
        }
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        char letter = peek(in);
        const char *known = letter == 0 ? NULL : strchr(from, letter);
        if (known == NULL && letter != 'u') {
            in->error = "an unknown escape in a string";
            free(out);
            return false;
        }
        in->at++;
        if (known != NULL) {
            out[length++] = to[known - from];
        } else if (!escaped_point(in, out, &length)) {
            free(out);
            return false;
        }
    }
    in->at++;
    out[length] = 0;
    *found = (sipbox_text){out, length};
    return true;
}

/* The values of an array or object up to `end`. */
static sipbox_json *list(reader *in, sipbox_json_kind kind, char end, unsigned depth)
{
    in->at++;
    sipbox_json *node = fresh(kind);
    sipbox_json **last = &node->child;
    skip_space(in);
    if (peek(in) == end) {
        in->at++;
        return node;
    }
    for (;;) {
        sipbox_text key = {NULL, 0};
        skip_space(in);
        if (kind == SIPBOX_JSON_OBJECT) {
            if (!string(in, &key))
                break;
            skip_space(in);
            if (!take(in, ':', "expected `:` behind a name")) {
                free((char *)key.at);
                break;
            }
        }
        sipbox_json *child = value(in, depth + 1);
        if (child == NULL) {
            free((char *)key.at);
            break;
        }
        child->key = key;
        *last = child;
        last = &child->next;
        skip_space(in);
        if (peek(in) == end) {
            in->at++;
            return node;
        }
        if (!take(in, ',', "expected `,` or the end of a list"))
            break;
    }
    sipbox_json_free(node);
    return NULL;
}

static sipbox_json *value(reader *in, unsigned depth)
{
    if (depth > DEEPEST) {
        in->error = "nested too deep";
        return NULL;
    }
    skip_space(in);
    switch (peek(in)) {
    case '{':
        return list(in, SIPBOX_JSON_OBJECT, '}', depth);
    case '[':
        return list(in, SIPBOX_JSON_ARRAY, ']', depth);
    case '"': {
        sipbox_text text;
        if (!string(in, &text))
            return NULL;
        sipbox_json *node = fresh(SIPBOX_JSON_STRING);
        node->text = text;
        return node;
    }
    case 't':
        return word(in, "true", SIPBOX_JSON_TRUE);
    case 'f':
        return word(in, "false", SIPBOX_JSON_FALSE);
    case 'n':
        return word(in, "null", SIPBOX_JSON_NULL);
    default:
        if (peek(in) == '-' || is_digit(peek(in)))
            return number(in);
        in->error = "expected a value";
        return NULL;
    }
}

sipbox_json *sipbox_json_read(sipbox_text text, char **error)
{
    reader in = {text, 0, NULL};
    sipbox_json *found = value(&in, 0);
    if (found != NULL) {
        skip_space(&in);
        if (in.at == text.length)
            return found;
        in.error = "something behind the value";
        sipbox_json_free(found);
    }
    *error = sipbox_format("byte %zu: %s", in.at, in.error);
    return NULL;
}

void sipbox_json_free(sipbox_json *node)
{
    while (node != NULL) {
        sipbox_json *next = node->next;
        sipbox_json_free(node->child);
        free((char *)node->text.at);
        free((char *)node->key.at);
        free(node);
        node = next;
    }
}

const sipbox_json *sipbox_json_member(const sipbox_json *object, const char *key)
{
    for (const sipbox_json *member = object->child; member != NULL; member = member->next)
        if (sipbox_equal(member->key, sipbox_text_of(key)))
            return member;
    return NULL;
}

const char *sipbox_json_kind_name(const sipbox_json *node)
{
    static const char *const names[] = {
        "null", "false", "true", "a number", "a string", "a list", "a table",
    };
    return names[node->kind];
}
