/* GGUFs in memory, opened; what the tests of vapr and of the siblings share. */
#ifndef APRFS_TESTS_VAPR_SUPPORT_H
#define APRFS_TESTS_VAPR_SUPPORT_H

#include "format/apr_read.h"
#include "format/gguf.h"
#include "format/vapr.h"
#include "tests/gguf_build.h"
#include "tests/support.h"

#include <errno.h>

#define MADE_MAX_PART 8

struct made {
    int n_part;
    uint8_t *p[MADE_MAX_PART];
    size_t len[MADE_MAX_PART];
    struct faulty faulty[MADE_MAX_PART]; /* each part's source; set fail_at to break it */
    struct source *src[MADE_MAX_PART];
    struct gguf *g;
};

static inline int made_open(struct made *m, const struct gguf_build *b, int n_part, struct err *e)
{
    *m = (struct made){.n_part = n_part};
    for (int i = 0; i < n_part; i++) {
        m->p[i] = n_part == 1 ? gguf_build_bytes(b, &m->len[i])
                              : gguf_build_shard(b, i, n_part, &m->len[i]);
        m->faulty[i] = (struct faulty){.p = m->p[i], .len = m->len[i], .fail_at = -1, .rc = -EIO};
        m->src[i] = faulty_source(&m->faulty[i], m->len[i], "made.gguf");
    }
    return gguf_open(&m->g, m->src, n_part, e);
}

static inline void made_open_ok(struct made *m, const struct gguf_build *b)
{
    struct err e = {0};
    if (made_open(m, b, 1, &e) < 0)
        fail_msg("%s", e.msg);
}

static inline void made_close(struct made *m)
{
    gguf_close(m->g);
    for (int i = 0; i < m->n_part; i++) {
        source_close(m->src[i]);
        free(m->p[i]);
    }
}

static inline struct vapr *vapr_ok(const struct gguf *g, enum vapr_profile profile)
{
    struct vapr_options opt = {.profile = profile};
    struct vapr *v = NULL;
    struct err e = {0};
    if (vapr_new(&v, g, &opt, &e) < 0)
        fail_msg("%s", e.msg);
    return v;
}

static inline const struct vapr_tensor *vapr_named(const struct vapr *v, const char *name)
{
    for (size_t i = 0; i < vapr_n_tensor(v); i++)
        if (strcmp(vapr_tensor(v, i)->name, name) == 0)
            return vapr_tensor(v, i);
    return NULL;
}

/* All of the file, malloc'ed. */
static inline uint8_t *vapr_bytes(const struct vapr *v)
{
    size_t got, size = (size_t)vapr_size(v);
    uint8_t *p = malloc(size);
    struct err e = {0};
    if (!p || vapr_read(v, p, 0, size, &got, &e) < 0 || got != size)
        fail_msg("%s", e.msg);
    return p;
}

#endif
