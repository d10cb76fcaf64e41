/* Reads JSON, as far as settings need it: a tree of values on the heap. */
#ifndef SIPBOX_JSON_H
#define SIPBOX_JSON_H

#include "sipbox.h"

typedef enum {
    SIPBOX_JSON_NULL,
    SIPBOX_JSON_FALSE,
    SIPBOX_JSON_TRUE,
    SIPBOX_JSON_NUMBER,
    SIPBOX_JSON_STRING,
    SIPBOX_JSON_ARRAY,
    SIPBOX_JSON_OBJECT,
} sipbox_json_kind;

typedef struct sipbox_json {
    sipbox_json_kind kind;
    /* A string with its escapes resolved, or a number as written. */
    sipbox_text text;
    /* The name of a member of an object. */
    sipbox_text key;
    /* The first value in an array or object, and the next one in the same. */
    struct sipbox_json *child;
    struct sipbox_json *next;
} sipbox_json;

/* Null when the text is no JSON: then `error` is a text on the heap that says where and why. */
sipbox_json *sipbox_json_read(sipbox_text text, char **error);
void sipbox_json_free(sipbox_json *value);

/* The member of an object, or null. */
const sipbox_json *sipbox_json_member(const sipbox_json *object, const char *key);

/* What a value is, for texts that say what was found. */
const char *sipbox_json_kind_name(const sipbox_json *value);

#endif
