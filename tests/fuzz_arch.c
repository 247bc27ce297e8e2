/* libFuzzer: any bytes as a GGUF. What resolves, in either value set, is written as metadata, must
 * parse by our rules, and comes back as the same configuration, field for field. */
#include "format/apr_meta.h"
#include "format/arch.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void differs(void *ctx, const char *field, const char *a, const char *b)
{
    (void)ctx;
    fprintf(stderr, "%s: %s became %s\n", field, a, b);
}

static void check(int ok, const struct err *e)
{
    if (ok)
        return;
    fprintf(stderr, "%s\n", e->msg);
    abort();
}

static void once(const struct gguf *g, enum arch_values values)
{
    struct arch_config c, back;
    struct arch_report r;
    struct json_out o;
    struct err e = {0};
    cJSON *v = NULL;
    json_out_init(&o);
    if (arch_resolve(g, values, &c, &r, &e) == 0) {
        json_open(&o, '{');
        int rc = apr_meta_write(&o, g, &c, &e);
        json_close(&o, '}');
        if (!rc) {
            check(json_parse(&v, o.p, o.len, &e) == 0, &e);
            check(apr_meta_read(v, &back, &e) == 0, &e);
            check(arch_config_diff(&c, &back, differs, NULL) == 0, &e);
            arch_config_release(&back);
        }
        arch_config_release(&c);
    }
    arch_report_release(&r);
    cJSON_Delete(v);
    json_out_release(&o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct source *src = NULL;
    struct gguf *g = NULL;
    if (source_from_mem(&src, data, size, "fuzz", NULL) == 0 && gguf_open(&g, &src, 1, NULL) == 0) {
        once(g, ARCH_VALUES_REFERENCE);
        once(g, ARCH_VALUES_COMPAT);
    }
    gguf_close(g);
    source_close(src);
    return 0;
}
