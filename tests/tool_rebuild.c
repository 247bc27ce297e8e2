/* For every GGUF named: resolves it, writes the metadata a .apr of it would have, reads that back, and
 * names each field that is not the same. Exit 1 if there is one. By hand, over folders of models.
 *   tool_rebuild FILE... */
#include "format/apr_meta.h"
#include "format/arch.h"

#include <stdio.h>

static void differs(void *ctx, const char *field, const char *a, const char *b)
{
    printf("%s: %s: %s from the GGUF, %s from the metadata\n", (const char *)ctx, field, a, b);
}

/* 0: comes back; 1: refused or lost something. */
static int rebuild(const char *path)
{
    struct gguf *g = NULL;
    struct arch_config c, back;
    struct json_out o;
    struct err e = {0};
    cJSON *v = NULL;
    json_out_init(&o);
    int rc = gguf_open_path(&g, path, &e);
    if (rc < 0 || (rc = arch_resolve(g, ARCH_VALUES_REFERENCE, &c, NULL, &e)) < 0)
        goto out;
    json_open(&o, '{');
    rc = apr_meta_write(&o, g, &c, &e);
    json_close(&o, '}');
    if (!rc)
        rc = json_parse(&v, o.p, o.len, &e);
    if (!rc)
        rc = apr_meta_read(v, &back, &e);
    if (!rc) {
        rc = arch_config_diff(&c, &back, differs, (void *)(uintptr_t)path) ? 1 : 0;
        arch_config_release(&back);
    }
    arch_config_release(&c);
out:
    if (rc < 0)
        printf("%s: %s\n", path, e.msg);
    cJSON_Delete(v);
    json_out_release(&o);
    gguf_close(g);
    return rc != 0;
}

int main(int argc, char **argv)
{
    int bad = 0;
    for (int i = 1; i < argc; i++)
        bad += rebuild(argv[i]);
    printf("%d files, %d not rebuilt\n", argc - 1, bad);
    return bad || argc < 2;
}
