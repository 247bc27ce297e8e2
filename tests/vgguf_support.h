/* What the tests of the reverse view share: a .apr in memory, turned into a .gguf, and .apr files made
 * by the byte table of apr-v2.md. */
#ifndef APRFS_TESTS_VGGUF_SUPPORT_H
#define APRFS_TESTS_VGGUF_SUPPORT_H

#include "format/vgguf.h"

#include "format/bytes.h"
#include "format/crc32.h"
#include "tests/vapr_support.h"

/* A .apr in memory as the mount shows it, and its reverse. */
struct turned {
    uint8_t *apr;
    size_t apr_len;
    struct source *s;
    struct apr *a;
    struct vgguf *v;
    uint8_t *p; /* the .gguf */
    size_t len;
};

static inline int turn(struct turned *t, uint8_t *apr, size_t len, struct err *e)
{
    *t = (struct turned){.apr = apr, .apr_len = len};
    int rc = source_from_mem(&t->s, apr, len, "x.apr", e);
    if (rc == 0)
        rc = apr_open(&t->a, t->s, e);
    if (rc == 0)
        rc = vgguf_new(&t->v, t->a, e);
    if (rc < 0)
        return rc;
    t->len = (size_t)vgguf_plan(t->v)->size;
    t->p = malloc(t->len);
    size_t got;
    rc = t->p ? vplan_read(vgguf_plan(t->v), t->p, 0, t->len, &got, e) : -ENOMEM;
    assert_true(rc < 0 || got == t->len);
    return rc;
}

static inline void turned_free(struct turned *t)
{
    vgguf_free(t->v);
    apr_close(t->a);
    source_close(t->s);
    free(t->apr);
    free(t->p);
}

/* Offsets contiguous but for padding; segments cover the file; small reads at every seam. */
static inline void check_plan(const struct turned *t)
{
    const struct gguf *g = vgguf_gguf(t->v);
    const struct vplan *p = vgguf_plan(t->v);
    uint64_t want = gguf_data_start(g, 0), at = 0, align = gguf_alignment(g);
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        assert_int_equal(gguf_tensor(g, i)->off, want);
        want += (gguf_tensor(g, i)->size + align - 1) / align * align;
    }
    for (size_t i = 0; i < p->n_seg; i++) {
        uint8_t buf[9];
        size_t got;
        assert_int_equal(p->seg[i].off, at);
        assert_int_equal(vplan_find_seg(p, at), i);
        uint64_t from = at > 4 ? at - 4 : 0;
        assert_int_equal(vplan_read(p, buf, from, sizeof buf, &got, NULL), 0);
        assert_memory_equal(buf, t->p + from, got);
        at += p->seg[i].len;
    }
    assert_int_equal(at, p->size);
}

static inline uint8_t *slurp(const char *path, size_t *len)
{
    struct source *s;
    struct err e = {0};
    if (source_open(&s, path, &e) < 0)
        fail_msg("%s", e.msg);
    *len = (size_t)source_size(s);
    uint8_t *p = malloc(*len);
    assert_int_equal(source_read(s, p, 0, *len, NULL), 0);
    source_close(s);
    return p;
}

static inline void turn_file(struct turned *t, const char *path)
{
    struct err e = {0};
    size_t len;
    uint8_t *p = slurp(path, &len);
    if (turn(t, p, len, &e) < 0)
        fail_msg("%s", e.msg);
    check_plan(t);
}

static inline const struct gguf_tensor *named(const struct turned *t, const char *name)
{
    const struct gguf_tensor *g = gguf_find_tensor(vgguf_gguf(t->v), name);
    if (!g)
        fail_msg("no tensor '%s'", name);
    return g;
}

static inline bool key_says(const struct turned *t, const char *key, const char *text)
{
    struct gguf_str s;
    return gguf_as_str(gguf_find(vgguf_gguf(t->v), key), &s) && gguf_str_eq(s, text);
}

struct spec {
    const char *name;
    uint8_t dtype;
    uint64_t rows, cols; /* cols 0: a vector of rows */
    uint64_t size;
};

/* By the byte table of apr-v2.md §1-§4; tensors 64 apart, byte i of the data is i * 7. */
static inline uint8_t *build_apr(const char *meta, const struct spec *s, size_t n, size_t *len)
{
    struct buf b = {0}, index = {0};
    uint64_t at = 0, data;
    buf_put(&b, "APR\0\2\0\0\4", 8);
    buf_u32(&b, (uint32_t)n);
    buf_u64(&b, 64);
    buf_u32(&b, (uint32_t)strlen(meta));
    buf_u64(&b, 64 + (strlen(meta) + 63) / 64 * 64);
    for (size_t i = 0; i < n; i++) {
        buf_u16(&index, (uint16_t)strlen(s[i].name));
        buf_put(&index, s[i].name, strlen(s[i].name));
        buf_u8(&index, s[i].dtype);
        buf_u8(&index, s[i].cols ? 2 : 1);
        buf_u64(&index, s[i].rows);
        if (s[i].cols)
            buf_u64(&index, s[i].cols);
        buf_u64(&index, at);
        buf_u64(&index, s[i].size);
        at = (at + s[i].size + 63) / 64 * 64;
    }
    buf_pad(&index, 64);
    data = 64 + (strlen(meta) + 63) / 64 * 64 + index.len;
    buf_u64(&b, data);
    buf_u32(&b, 0);
    buf_pad(&b, 64);
    store_u32(b.p + 40, crc32_apr_header(b.p));
    buf_put(&b, meta, strlen(meta));
    buf_pad(&b, 64);
    buf_put(&b, index.p, index.len);
    for (uint64_t i = 0; i < at; i++)
        buf_u8(&b, (uint8_t)(i * 7));
    buf_free(&index);
    *len = b.len;
    return b.p;
}

#define DIMS_BARE                                                                                  \
    "\"hidden_size\":32,\"num_layers\":1,\"num_heads\":2,\"intermediate_size\":32,"                \
    "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"vocab_size\":2"
#define DIMS  DIMS_BARE ",\"max_position_embeddings\":64"
#define LLAMA "{\"architecture\":\"llama\"," DIMS

#endif
