/* The metadata of a GGUF as it would stand in a .apr; what test_apr_meta.c and test_apr_meta_read.c
 * share. */
#ifndef APRFS_TESTS_APR_META_SUPPORT_H
#define APRFS_TESTS_APR_META_SUPPORT_H

#include "format/apr_meta.h"
#include "format/json.h"
#include "tests/arch_case.h"
#include "tests/support.h"

#include <stdlib.h>
#include <string.h>

struct written {
    char *text;
    size_t len;
    cJSON *json;
};

/* The metadata of a resolved file; must parse by our own strict rules (no key twice). */
static inline struct written write_meta(const struct arch_open *a)
{
    struct written w = {0};
    struct json_out o;
    struct err e = {0};
    json_out_init(&o);
    json_open(&o, '{');
    if (apr_meta_write(&o, a->g, &a->c, &e) < 0)
        fail_msg("writing: %s", e.msg);
    json_close(&o, '}');
    assert_int_equal(o.rc, 0);
    w.text = strndup(o.p, o.len);
    w.len = o.len;
    json_out_release(&o);
    if (json_parse(&w.json, w.text, w.len, &e) < 0)
        fail_msg("parsing what was written: %s", e.msg);
    return w;
}

static inline void written_free(struct written *w)
{
    cJSON_Delete(w->json);
    free(w->text);
}

static inline void open_write(struct arch_open *a, struct written *w, const struct gguf_build *b)
{
    arch_open_build(a, b, ARCH_VALUES_REFERENCE);
    if (a->rc < 0)
        fail_msg("resolving: %s", a->e.msg);
    *w = write_meta(a);
}

#endif
