#include "tests/token_fixture.h"

#include "tests/token_meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

char *gunzip_file(const char *path, size_t *len)
{
    gzFile f = gzopen(path, "rb");
    size_t cap = 1 << 16, n = 0;
    char *p = malloc(cap);
    if (!f || !p) {
        fprintf(stderr, "cannot read %s\n", path);
        abort();
    }
    for (int got; (got = gzread(f, p + n, (unsigned)(cap - 1 - n))) > 0;) {
        n += (size_t)got;
        if (n + 1 == cap && !(p = realloc(p, cap *= 2)))
            abort();
    }
    gzclose(f);
    p[n] = 0;
    *len = n;
    return p;
}

cJSON *fixture_meta(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "tests/data/%s.gz", name);
    size_t len;
    char *p = gunzip_file(path, &len);
    struct source *src = NULL;
    struct gguf *g = NULL;
    struct err e = {0};
    if (source_from_mem(&src, p, len, name, &e) < 0 || gguf_open(&g, &src, 1, &e) < 0) {
        fprintf(stderr, "%s: %s\n", name, e.msg);
        abort();
    }
    cJSON *meta = token_meta(g);
    gguf_close(g);
    source_close(src);
    free(p);
    return meta;
}

cJSON *quick_json(const char *text)
{
    char *p = strdup(text);
    for (char *c = p; c && *c; c++)
        *c = *c == '\'' ? '"' : *c;
    cJSON *v = p ? cJSON_Parse(p) : NULL;
    if (!v) {
        fprintf(stderr, "no JSON: %s\n", text);
        abort();
    }
    free(p);
    return v;
}
