/* JSON: cJSON under our rules for reading, and a text writer for what cJSON cannot write well
 * (arrays of vocabulary size, exact 64-bit integers, floats as the shortest text that reads back).
 *
 * Rules for bytes from outside (cJSON is laxer): UTF-8 valid, no NUL and no \u0000, depth <= 64, no
 * duplicate keys in an object, nothing after the value. Numbers are doubles: json_int() refuses
 * what is not integral or not below 2^53, from where on two integers read as one; cJSON's valueint
 * is never read. */
#ifndef APRFS_FORMAT_JSON_H
#define APRFS_FORMAT_JSON_H

#include "format/err.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_MAX_DEPTH  64
#define JSON_MAX_VALUES (1 << 24) /* cJSON takes some 80 bytes for each */

/* Parses one value; *out is cJSON_Delete's to free. -EUCLEAN with the byte offset; -ERANGE over
 * JSON_MAX_VALUES. */
int json_parse(cJSON **out, const char *p, size_t len, struct err *e);

/* What Rust's serde_json reads, for judging what others make of a text: as above, but also \u0000 (the
 * string ends there), brackets 127 deep, and a key twice (json_get finds the first). */
int json_parse_serde(cJSON **out, const char *p, size_t len, struct err *e);

/* Case-sensitive member, NULL if absent or if obj is no object. */
const cJSON *json_get(const cJSON *obj, const char *key);

bool json_int(const cJSON *v, int64_t *out);   /* a number, integral, |v| < 2^53 */
bool json_uint(const cJSON *v, uint64_t *out); /* the same, >= 0 */
bool json_num(const cJSON *v, double *out);    /* a number */
bool json_bool(const cJSON *v, bool *out);     /* true or false */
const char *json_text(const cJSON *v);         /* a string's bytes, NULL if it is none */

/* True if p[0..len) is well-formed UTF-8 (no surrogates, no overlong forms, <= U+10FFFF). */
bool json_utf8_valid(const char *p, size_t len);

/* A growing text. Commas and colons come by themselves. The first failure (-ENOMEM; -EINVAL for a
 * value where a key must stand, the wrong bracket, a second top-level value, depth over
 * JSON_MAX_DEPTH; -ERANGE past max) sticks in rc; later calls do nothing. p[0..len) is the text, not
 * terminated. */
struct json_out {
    char *p;
    size_t len, cap;
    size_t max; /* the text's longest length; 0: any */
    int rc;
    int depth;
    bool comma;      /* the next item needs one before it */
    bool keyed;      /* a key stands, its value comes next */
    uint64_t object; /* bit d: the bracket opened at depth d is '{' */
};

void json_out_init(struct json_out *o);
void json_out_release(struct json_out *o);
void json_open(struct json_out *o, char bracket);  /* '{' or '[' */
void json_close(struct json_out *o, char bracket); /* '}' or ']' */
void json_key(struct json_out *o, const char *key);
/* Bytes that are not UTF-8 become U+FFFD; returns false if that happened. Escapes quote, backslash
 * and bytes below 0x20; the rest raw. */
bool json_put_str(struct json_out *o, const char *p, size_t len);
void json_put_cstr(struct json_out *o, const char *s);
void json_put_u64(struct json_out *o, uint64_t v);
void json_put_i64(struct json_out *o, int64_t v);
void json_put_f32(struct json_out *o,
                  float v); /* shortest decimal that reads back; null if not finite */
void json_put_f64(struct json_out *o, double v); /* the same for f64 */
void json_put_bool(struct json_out *o, bool v);
void json_put_null(struct json_out *o);
void json_put_raw(struct json_out *o, const char *json); /* text that is one JSON value already */

/* A key and its value. */
void json_add_cstr(struct json_out *o, const char *key, const char *s);
void json_add_u64(struct json_out *o, const char *key, uint64_t v);
void json_add_bool(struct json_out *o, const char *key, bool v);
void json_add_null(struct json_out *o, const char *key);

#endif
