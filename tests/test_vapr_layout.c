/* The layout of vapr.h on random GGUFs, against a model of the file assembled here: zeros, the
 * head, and at the place that the head's own index gives (parsed by hand) the bytes that the GGUF
 * builder holds for that tensor, or their dequantisation. The builder pads with zeros, so no other
 * byte of the file may differ from zero; bytes behind the last tensor are 0xee and must not show.
 * Counts: APRFS_CASES layouts (300; LONG=1: 20,000), 60 reads each. */
#include <errno.h>
#include <inttypes.h>

#include "format/bytes.h"
#include "format/crc32.h"
#include "tests/vapr_support.h"

/* --- random files --- */

static const uint32_t types_any[] = {0,  1,  2,  3,  6,  7,  8,  10, 11, 12,
                                     13, 14, 20, 23, 30, 34, 35, 39, 41, 42};

static void add_random_tensors(struct gguf_build *b, struct rng *r)
{
    static const char *const stems[] = {"extra.%d.weight", "extra.%d_norm.weight", "extra.%d.bias",
                                        "a.%d", "zz.%d.weight"};
    int n = (int)rng_below(r, 12);
    for (int i = 0; i < n; i++) {
        char name[64];
        uint32_t type = types_any[rng_below(r, sizeof types_any / sizeof types_any[0])], len, bytes;
        const char *tn;
        snprintf(name, sizeof name, stems[rng_below(r, 5)], i);
        gguf_build_type(type, &tn, &len, &bytes);
        uint64_t ne[4] = {len * (1 + rng_below(r, 3)), 1 + rng_below(r, 9), 1 + rng_below(r, 3), 1};
        gguf_build_tensor(b, name, type, 1 + (uint32_t)rng_below(r, 4), ne, NULL);
    }
}

static struct gguf_build *random_build(struct rng *r, int *n_part)
{
    static const char *const archs[] = {"llama", "qwen2", "qwen3", "gemma3", "phi3"};
    static const uint32_t types[] = {0, 1, 30, 2, 3, 6, 7, 8};
    static const uint32_t aligns[] = {0, 8, 16, 32, 64, 128, 4096};
    const char *arch = archs[rng_below(r, 5)];
    struct gguf_build_opt o = gguf_build_defaults(arch);
    o.version = 2 + (uint32_t)rng_below(r, 2);
    o.seed = rng_u64(r);
    o.n_layer = 1 + (uint32_t)rng_below(r, 2);
    o.type = types[rng_below(r, 8)];
    o.type_embd = types[rng_below(r, 8)];
    o.norm_type = (uint32_t[]){0, 1, 30}[rng_below(r, 3)];
    o.untied = rng_below(r, 2);
    struct gguf_build *b = gguf_build_llama_like(arch, &o);
    add_random_tensors(b, r);
    uint32_t align = aligns[rng_below(r, 7)];
    if (align)
        gguf_build_align(b, align);
    uint64_t unit = align ? align : 32;
    gguf_build_gap(b, unit * rng_below(r, 4), rng_below(r, 100));
    *n_part = rng_below(r, 2) ? 1 : 2 + (int)rng_below(r, 4);
    return b;
}

/* --- the model of the file --- */

/* What the index may say about a tensor of the GGUF, by what vapr.h promises. */
struct want {
    const uint8_t *raw; /* the rows meant */
    size_t raw_len;
    const struct quant_type *type;
    uint64_t count;
};

/* Rows of a fused tensor that an alias names; the whole of name otherwise. */
static struct want want_of(const struct gguf_build *b, const struct gguf *g,
                           const struct vapr_tensor *t)
{
    struct want w = {0};
    const struct gguf_tensor *gt = gguf_find_tensor(g, t->name);
    char base[80], *cut;
    uint64_t row = 0;
    snprintf(base, sizeof base, "%s", t->name);
    if (!gt) {
        int il;
        uint32_t q = 64, k = 32; /* 4 heads and 2 of 16, as the builder's defaults */
        char rest[64];
        assert_true(t->alias);
        if (strcmp(base, "output.weight") == 0) {
            snprintf(base, sizeof base, "token_embd.weight");
        } else if (sscanf(base, "blk.%d.attn_%63s", &il, rest) == 2) {
            row = rest[0] == 'q' ? 0 : rest[0] == 'k' ? q : q + k;
            snprintf(base, sizeof base, "blk.%d.attn_qkv.%s", il, strchr(rest, '.') + 1);
        } else if (sscanf(base, "model.layers.%d.mlp.%63s", &il, rest) == 2) {
            row = rest[0] == 'g' ? 0 : 128; /* n_ff */
            snprintf(base, sizeof base, "blk.%d.ffn_up.weight", il);
        }
        gt = gguf_find_tensor(g, base);
    }
    cut = base;
    w.raw = gguf_build_tensor_data(b, cut, &w.raw_len);
    assert_non_null(gt);
    assert_non_null(w.raw);
    w.type = quant_type(gt->type);
    w.count = 1;
    for (uint32_t i = 0; i < t->n_dim; i++)
        w.count *= t->dim[i];
    uint64_t cols = t->n_dim > 1 ? t->dim[t->n_dim - 1] : 1;
    uint64_t from = row * cols / w.type->block_len * w.type->block_bytes;
    w.raw += from;
    w.raw_len = (size_t)(w.count / w.type->block_len * w.type->block_bytes);
    return w;
}

static float *dequantised(const struct want *w)
{
    float *f = malloc((size_t)w->count * sizeof *f);
    w->type->f32(f, w->raw, (size_t)w->count / w->type->block_len);
    return f;
}

/* Zeros, the head, every index entry's bytes, every twin's. */
static uint8_t *model_of(const struct vapr *v, const struct gguf_build *b, const cJSON *meta)
{
    size_t head_len, size = (size_t)vapr_size(v);
    const uint8_t *head = vapr_head(v, &head_len);
    uint8_t *m = calloc(1, size);
    memcpy(m, head, head_len);
    uint64_t data_off = load_u64(head + 32);
    const uint8_t *p = head + load_u64(head + 24);
    for (uint32_t i = 0; i < load_u32(head + 8); i++) {
        const struct vapr_tensor *t = vapr_tensor(v, i);
        uint16_t n = load_u16(p);
        assert_int_equal(n, strlen(t->name));
        assert_memory_equal(p + 2, t->name, n);
        uint8_t dtype = p[2 + n], n_dim = p[3 + n];
        uint64_t off = data_off + load_u64(p + 4 + n + 8 * n_dim);
        uint64_t len = load_u64(p + 12 + n + 8 * n_dim);
        struct want w = want_of(b, vapr_gguf(v), t);
        assert_true(off <= size && len <= size - off);
        if (dtype == w.type->id) {
            assert_int_equal(len, w.raw_len);
            memcpy(m + off, w.raw, len);
        } else {
            assert_int_equal(dtype, 0);
            assert_int_equal(len, w.count * 4);
            float *f = dequantised(&w);
            memcpy(m + off, f, len);
            free(f);
        }
        p += 20 + n + 8 * n_dim;
    }
    const cJSON *twin;
    cJSON_ArrayForEach(twin, json_get(meta, "aprfs.raw"))
    {
        uint64_t off = 0, len = 0, type = 0;
        const struct vapr_tensor *t = vapr_named(v, json_text(json_get(twin, "name")));
        assert_true(json_uint(json_get(twin, "offset"), &off));
        assert_true(json_uint(json_get(twin, "size"), &len));
        assert_true(json_uint(json_get(twin, "type"), &type));
        struct want w = want_of(b, vapr_gguf(v), t);
        assert_int_equal(type, w.type->id);
        assert_int_equal(len, w.raw_len);
        memcpy(m + data_off + off, w.raw, len);
    }
    return m;
}

/* --- what must hold --- */

static void check_segments(const struct vapr *v)
{
    uint64_t at = 0;
    for (size_t i = 0; i < vapr_n_seg(v); i++) {
        const struct vseg *s = vapr_seg(v, i);
        assert_int_equal(s->off, at);
        assert_true(s->len > 0);
        at += s->len;
        assert_int_equal(vapr_find_seg(v, s->off), i);
        assert_int_equal(vapr_find_seg(v, at - 1), i);
        if (s->kind == VSEG_FILE)
            assert_true(s->src_off + s->len <= source_size(gguf_part(vapr_gguf(v), s->part)));
    }
    assert_int_equal(at, vapr_size(v));
    assert_int_equal(at % 64, 0);
}

/* One extent per part that has tensors, whole, at a shift that is a multiple of 64 KiB (32 more
 * where the layout says so), each as early as that allows. */
static void check_extents(const struct vapr *v, uint64_t extra)
{
    const struct gguf *g = vapr_gguf(v);
    size_t head_len, k = 0;
    vapr_head(v, &head_len);
    uint64_t after = head_len;
    for (int part = 0; part < gguf_n_part(g); part++) {
        uint64_t start = gguf_data_start(g, part), end = gguf_data_end(g, part);
        if (start == end)
            continue;
        while (vapr_seg(v, k)->kind != VSEG_FILE)
            k++;
        const struct vseg *s = vapr_seg(v, k++);
        assert_int_equal(s->part, part);
        assert_int_equal(s->src_off, start);
        assert_int_equal(s->len, end - start);
        assert_int_equal((s->off - start - extra) % 65536, 0);
        assert_true(s->off >= after);
        if (part > 0 || extra == 0)
            assert_true(s->off - after < 65536 + 64);
        after = s->off + s->len;
    }
    for (size_t i = 0; i < vapr_n_tensor(v); i++) {
        const struct vapr_tensor *t = vapr_tensor(v, i);
        if (t->conv)
            assert_true(t->off >= (after + 65535) / 65536 * 65536);
    }
}

static void check_profile(const struct vapr *v, enum vapr_profile profile)
{
    bool aligned = true;
    for (size_t i = 0; i < vapr_n_tensor(v); i++) {
        const struct vapr_tensor *t = vapr_tensor(v, i);
        bool norm = strstr(t->name, "norm") != NULL;
        aligned = aligned && (t->off - vapr_data_offset(v)) % 64 == 0;
        if (i > 0)
            assert_true(strcmp(vapr_tensor(v, i - 1)->name, t->name) < 0);
        if (profile == VAPR_NATIVE)
            assert_true(!t->conv && t->dtype == t->type->id);
        else
            assert_true(t->dtype != 8 && (!norm || t->dtype == 0));
        if (profile == VAPR_STRICT)
            assert_true(t->dtype == 0 || t->dtype == 1 || t->dtype == 12 || t->dtype == 14);
        if (t->conv)
            assert_int_equal(t->off % 64, 0);
    }
    if (profile == VAPR_STRICT)
        assert_true(aligned && vapr_data_offset(v) % 64 == 0);
    else
        assert_int_equal((vapr_data_offset(v) - gguf_data_start(vapr_gguf(v), 0)) % 65536, 0);
}

static void check_reads(const struct vapr *v, const uint8_t *model, struct rng *r)
{
    size_t size = (size_t)vapr_size(v), got;
    uint8_t *buf = malloc(size + 8);
    struct err e = {0};
    for (int i = 0; i < 60; i++) {
        /* Half of them near a seam. */
        uint64_t off = rng_below(r, size);
        if (i & 1) {
            const struct vseg *s = vapr_seg(v, rng_below(r, vapr_n_seg(v)));
            off = s->off - (s->off ? rng_below(r, s->off < 70 ? s->off : 70) : 0);
        }
        size_t len = rng_below(r, i % 4 == 0 ? size + 100 : 700), skew = rng_below(r, 8);
        memset(buf, 0xaa, size + 8);
        assert_int_equal(vapr_read(v, buf + skew, off, len, &got, &e), 0);
        size_t want = len < size - off ? len : (size_t)(size - off);
        assert_int_equal(got, want);
        if (memcmp(buf + skew, model + off, want) != 0)
            fail_msg("%zu bytes at %" PRIu64 " differ", want, off);
    }
    free(buf);
}

/* Every tensor through the reader: its bytes, or its twin's, are the GGUF's. */
static void check_through_reader(const struct vapr *v, struct apr *a, const struct gguf_build *b)
{
    for (size_t i = 0; i < apr_n_tensor(a); i++) {
        const struct apr_tensor *t = apr_tensor(a, i);
        const struct vapr_tensor *vt = vapr_tensor(v, i);
        struct want w = want_of(b, vapr_gguf(v), vt);
        struct apr_tensor raw = *t;
        assert_string_equal(t->name, vt->name);
        assert_int_equal(apr_raw_twin(a, t, &raw), vt->conv);
        assert_int_equal(raw.type, w.type->id);
        assert_int_equal(raw.size, w.raw_len);
        uint8_t *p = malloc(raw.size);
        assert_int_equal(source_read(apr_source(a), p, raw.off, raw.size, NULL), 0);
        assert_memory_equal(p, w.raw, raw.size);
        free(p);
    }
}

static void check_case(const struct gguf_build *b, int n_part, enum vapr_profile profile,
                       struct rng *r, int layouts[3])
{
    static const char *const names[] = {"congruent", "shifted32", "placed"};
    struct made m;
    struct err e = {0};
    if (made_open(&m, b, n_part, &e) < 0)
        fail_msg("%s", e.msg);
    struct vapr *v = vapr_ok(m.g, profile), *again = vapr_ok(m.g, profile);
    size_t n, n_again;
    const uint8_t *h = vapr_head(v, &n), *h_again = vapr_head(again, &n_again);
    assert_int_equal(n, n_again);
    assert_memory_equal(h, h_again, n);
    assert_int_equal(vapr_size(v), vapr_size(again));
    int l = 0;
    while (strcmp(vapr_layout(v), names[l]) != 0)
        l++;
    layouts[l]++;
    assert_true(profile == VAPR_STRICT || l == 0);
    check_segments(v);
    check_profile(v, profile);
    if (l < 2)
        check_extents(v, l == 1 ? 32 : 0);
    struct source *s = NULL;
    struct apr *a = NULL;
    assert_int_equal(vapr_source(&s, v, &e), 0);
    if (apr_open(&a, s, &e) < 0)
        fail_msg("%s", e.msg);
    uint8_t *model = model_of(v, b, apr_meta(a)), *whole = vapr_bytes(v);
    for (uint64_t i = 0; i < vapr_size(v); i++)
        if (model[i] != whole[i])
            fail_msg("byte %" PRIu64 " of %" PRIu64 " (%s, %s, segment kind %d)", i, vapr_size(v),
                     vapr_profile_name(profile), vapr_layout(v),
                     vapr_seg(v, vapr_find_seg(v, i))->kind);
    check_reads(v, model, r);
    check_through_reader(v, a, b);
    free(model);
    free(whole);
    apr_close(a);
    source_close(s);
    vapr_free(again);
    vapr_free(v);
    made_close(&m);
}

static void vapr_layout_holds_on_random_files(void **state)
{
    (void)state;
    struct rng r;
    const char *env = getenv("APRFS_CASES");
    int n = env ? atoi(env) : long_run() ? 20000 : 300, layouts[3] = {0};
    rng_init(&r, test_seed());
    for (int i = 0; i < n; i++) {
        int n_part;
        struct gguf_build *b = random_build(&r, &n_part);
        check_case(b, n_part, (enum vapr_profile)(i % 3), &r, layouts);
        gguf_build_free(b);
    }
    print_message("# %d layouts: %d congruent, %d shifted32, %d placed\n", n, layouts[0],
                  layouts[1], layouts[2]);
    assert_true(layouts[0] > 0 && layouts[2] > 0);
}

/* --- the three cases of profile strict, by hand --- */

static struct gguf_build *only_aligned_sizes(uint64_t gap, uint64_t odd)
{
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    gguf_build_gap(b, gap, 0);
    /* F32 of 64 columns: all sizes are multiples of 64, so that all stand alike ... */
    if (odd) /* ... until one of 32 bytes stands between them */
        gguf_build_tensor_1d(b, "blk.0.odd", 0, odd);
    gguf_build_tensor_2d(b, "last.weight", 0, 64, 3);
    return b;
}

static void vapr_layout_of_strict_follows_residues(void **state)
{
    (void)state;
    /* The data's start is a multiple of 32: whether of 64 depends on the keys, so one key's length
     * is tried until it is. */
    static const struct {
        uint64_t gap, odd;
        const char *layout;
    } t[] = {{0, 0, "congruent"}, {32, 0, "shifted32"}, {0, 8, "placed"}, {32, 8, "placed"}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct gguf_build *b = only_aligned_sizes(t[i].gap, t[i].odd);
        struct made m;
        struct err e = {0};
        for (int pad = 0;; pad += 16) {
            char text[128];
            memset(text, 'x', sizeof text);
            assert_true(pad < (int)sizeof text);
            text[pad] = 0;
            gguf_build_str(b, "general.description", text);
            if (made_open(&m, b, 1, &e) < 0)
                fail_msg("%s", e.msg);
            if (gguf_data_start(m.g, 0) % 64 == 0)
                break;
            made_close(&m);
        }
        made_close(&m);
        struct rng r;
        int layouts[3] = {0};
        rng_init(&r, 7 + i);
        check_case(b, 1, VAPR_STRICT, &r, layouts);
        assert_int_equal(layouts[t[i].layout[0] == 'c' ? 0 : t[i].layout[0] == 's' ? 1 : 2], 1);
        gguf_build_free(b);
    }
}

static void vapr_layout_of_shards_shows_the_same_tensors(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("qwen2", NULL);
    struct made one, three;
    struct err e = {0};
    if (made_open(&one, b, 1, &e) < 0 || made_open(&three, b, 3, &e) < 0)
        fail_msg("%s", e.msg);
    struct vapr *v = vapr_ok(one.g, VAPR_ENGINE), *w = vapr_ok(three.g, VAPR_ENGINE);
    uint8_t *p = vapr_bytes(v), *q = vapr_bytes(w);
    assert_int_equal(vapr_n_tensor(v), vapr_n_tensor(w));
    for (size_t i = 0; i < vapr_n_tensor(v); i++) {
        const struct vapr_tensor *x = vapr_tensor(v, i), *y = vapr_tensor(w, i);
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->dtype, y->dtype);
        assert_int_equal(x->n_dim, y->n_dim);
        assert_memory_equal(x->dim, y->dim, sizeof x->dim);
        assert_int_equal(x->size, y->size);
        assert_memory_equal(p + x->off, q + y->off, x->size);
    }
    free(p);
    free(q);
    vapr_free(v);
    vapr_free(w);
    made_close(&one);
    made_close(&three);
    gguf_build_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vapr_layout_holds_on_random_files),
        cmocka_unit_test(vapr_layout_of_strict_follows_residues),
        cmocka_unit_test(vapr_layout_of_shards_shows_the_same_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
