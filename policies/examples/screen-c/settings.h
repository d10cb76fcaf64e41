/* The settings of the policy, read from JSON. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <sipbox.h>

typedef struct {
    sipbox_text *items;
    size_t count;
} texts;

typedef struct {
    sipbox_text name;
    sipbox_text value;
} field;

typedef struct {
    sipbox_text country_code;
    texts international_prefixes;
    sipbox_text trunk_prefix;
    texts remove_headers;
    field *set_headers;
    size_t set_header_count;
    texts blocked_callers;
    texts blocked_callees;
    sipbox_text reason;
    /* Its `at` is null where nothing is to be counted. */
    sipbox_text count_header;
} settings;

/* Reads the settings into `out`, which points to the heap for as long as the instance lives; or
 * gives the text that refuses them. */
bool settings_read(sipbox_text json, settings *out, policy_string_t *refusal);

#endif
