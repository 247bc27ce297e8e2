/* libFuzzer: any bytes as a GGUF, planned in every profile. What plans must be covered by its
 * segments, read at any place, and open as an .apr whose tensors are those of the plan and whose
 * configuration is the GGUF's, field for field. */
#include "format/apr_meta.h"
#include "format/apr_read.h"
#include "format/vapr.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok)
        abort();
}

static void read_seams(const struct vapr *v)
{
    uint64_t at = 0;
    uint8_t buf[700];
    size_t got;
    for (size_t i = 0; i < vapr_n_seg(v); i++) {
        const struct vseg *s = vapr_seg(v, i);
        check(s->off == at && s->len > 0 && vapr_find_seg(v, at) == i);
        check(vapr_read(v, buf, at > 300 ? at - 300 : 0, sizeof buf, &got, NULL) == 0);
        at += s->len;
    }
    check(at == vapr_size(v) && at % 64 == 0);
    check(vapr_read(v, buf, at - 1, sizeof buf, &got, NULL) == 0 && got == 1);
}

static void open_view(const struct vapr *v, enum arch_values values)
{
    struct source *s = NULL;
    struct apr *a = NULL;
    struct err e = {0};
    check(vapr_source(&s, v, &e) == 0);
    int rc = apr_open(&a, s, &e);
    check(rc == 0 && apr_n_tensor(a) == vapr_n_tensor(v));
    for (size_t i = 0; i < apr_n_tensor(a); i++) {
        const struct apr_tensor *t = apr_tensor(a, i);
        const struct vapr_tensor *w = vapr_tensor(v, i);
        struct apr_tensor raw;
        check(strcmp(t->name, w->name) == 0 && t->off == w->off && t->size == w->size);
        check(apr_raw_twin(a, t, &raw) == w->conv && t->type == w->dtype);
        check(!w->conv || (raw.type == w->type->id && raw.size == w->src_size));
    }
    struct arch_config want, c;
    check(arch_resolve(vapr_gguf(v), values, &want, NULL, &e) == 0);
    check(apr_meta_read(apr_meta(a), &c, &e) == 0 && arch_config_diff(&want, &c, NULL, NULL) == 0);
    arch_config_release(&want);
    arch_config_release(&c);
    apr_close(a);
    source_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct source *s = NULL;
    struct gguf *g = NULL;
    struct err e = {0};
    if (source_from_mem(&s, data, size, "fuzz", NULL) == 0 && gguf_open(&g, &s, 1, &e) == 0) {
        for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++) {
            struct vapr_options opt = {.profile = (enum vapr_profile)p,
                                       .values =
                                           size % 2 ? VAPR_VALUES_COMPAT : VAPR_VALUES_REFERENCE};
            struct vapr *v = NULL;
            int rc = vapr_new(&v, g, &opt, &e);
            check(rc == 0 ? v != NULL : rc < 0 && e.code == rc && e.msg[0] && !v);
            if (rc == 0) {
                read_seams(v);
                open_view(v, size % 2 ? ARCH_VALUES_COMPAT : ARCH_VALUES_REFERENCE);
            }
            vapr_free(v);
        }
    }
    gguf_close(g);
    source_close(s);
    return 0;
}
