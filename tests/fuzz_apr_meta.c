/* libFuzzer: any bytes as the metadata's JSON. What parses is read as a configuration, and goes
 * through our writer and back: the same value must come out. */
#include "format/apr_meta.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok)
        abort();
}

static void put(struct json_out *o, const cJSON *v)
{
    const cJSON *m;
    double num;
    bool b;
    if (cJSON_IsObject(v) || cJSON_IsArray(v)) {
        bool object = cJSON_IsObject(v);
        json_open(o, object ? '{' : '[');
        cJSON_ArrayForEach(m, v)
        {
            if (object)
                json_key(o, m->string);
            put(o, m);
        }
        json_close(o, object ? '}' : ']');
    } else if (json_num(v, &num)) {
        json_put_f64(o, num);
    } else if (json_bool(v, &b)) {
        json_put_bool(o, b);
    } else if (json_text(v)) {
        json_put_cstr(o, json_text(v));
    } else {
        json_put_null(o);
    }
}

/* As cJSON_Compare, but exact in numbers, in the order of members, and not quadratic. */
static bool same(const cJSON *a, const cJSON *b)
{
    if ((a->type & 0xff) != (b->type & 0xff) || !a->string != !b->string ||
        (a->string && strcmp(a->string, b->string) != 0))
        return false;
    if (cJSON_IsNumber(a))
        return memcmp(&a->valuedouble, &b->valuedouble, sizeof a->valuedouble) == 0;
    if (cJSON_IsString(a))
        return strcmp(a->valuestring, b->valuestring) == 0;
    const cJSON *x = a->child, *y = b->child;
    for (; x && y; x = x->next, y = y->next)
        if (!same(x, y))
            return false;
    return !x && !y;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size ? size : 1); /* its end is the end of the allocation */
    cJSON *v = NULL, *again = NULL;
    struct err e = {0};
    if (!text)
        return 0;
    memcpy(text, data, size);
    int rc = json_parse(&v, text, size, &e);
    check(rc == 0 ? v != NULL : rc < 0 && e.code == rc && e.msg[0] && !v);
    if (rc == 0) {
        struct arch_config c;
        struct json_out o;
        check(json_utf8_valid(text, size));
        json_out_init(&o);
        put(&o, v);
        check(o.rc == 0 && json_parse(&again, o.p, o.len, NULL) == 0 && same(v, again));
        json_out_release(&o);
        if (apr_meta_read(v, &c, &e) == 0)
            arch_config_release(&c);
    }
    cJSON_Delete(again);
    cJSON_Delete(v);
    free(text);
    return 0;
}
