/* The reverse view: a .apr made of a GGUF gives that GGUF back, byte for byte; those of the original
 * writers become one that holds their bytes; what cannot is refused by name. The layout's rule is
 * llama.cpp's (ggml/src/gguf.cpp): a tensor's offset is the sum of the padded sizes before it. */
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

static int turn(struct turned *t, uint8_t *apr, size_t len, struct err *e)
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

static void turned_free(struct turned *t)
{
    vgguf_free(t->v);
    apr_close(t->a);
    source_close(t->s);
    free(t->apr);
    free(t->p);
}

/* Offsets contiguous but for padding; segments cover the file; small reads at every seam. */
static void check_plan(const struct turned *t)
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

static void turn_made(struct turned *t, const struct gguf_build *b, int n_part,
                      enum vapr_profile profile)
{
    struct made m;
    struct err e = {0};
    if (made_open(&m, b, n_part, &e) < 0)
        fail_msg("%s", e.msg);
    struct vapr *v = vapr_ok(m.g, profile);
    uint8_t *apr = vapr_bytes(v);
    if (turn(t, apr, (size_t)vapr_size(v), &e) < 0)
        fail_msg("%s", e.msg);
    vapr_free(v);
    made_close(&m);
    check_plan(t);
}

static void same_as_made(const struct gguf_build *b, enum vapr_profile profile, const char *layout)
{
    struct turned t;
    size_t len;
    uint8_t *want = gguf_build_bytes(b, &len);
    turn_made(&t, b, 1, profile);
    assert_true(vgguf_same_head(t.v));
    assert_int_equal(t.len, len);
    assert_memory_equal(t.p, want, len);
    assert_int_equal(vgguf_n_note(t.v), 0);
    if (layout)
        assert_string_equal(vgguf_plan(t.v)->layout, layout);
    turned_free(&t);
    free(want);
}

/* --- our own files --- */

static void vgguf_gives_the_gguf_back(void **state)
{
    (void)state;
    static const char *const arch[] = {"llama", "qwen2", "qwen3", "gemma3", "phi3", "gemma2"};
    static const uint32_t align[] = {0, 8, 64, 4096};
    for (size_t i = 0; i < sizeof arch / sizeof arch[0]; i++)
        for (size_t k = 0; k < sizeof align / sizeof align[0]; k++)
            for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++) {
                struct gguf_build_opt o = gguf_build_defaults(arch[i]);
                o.version = k == 1 ? 2 : 3;
                o.alignment = align[k];
                o.type = k % 2 ? 8 : 2; /* Q8_0 and Q4_0: widened by engine or strict */
                o.norm_type = k == 2 ? 1 : 0;
                o.untied = k == 3;
                o.per_layer_arrays = k == 2;
                o.eps_f64 = k == 1;
                o.unread_keys = true;
                struct gguf_build *b = gguf_build_llama_like(arch[i], &o);
                same_as_made(b, (enum vapr_profile)p, p == VAPR_STRICT ? NULL : "congruent");
                gguf_build_free(b);
            }
}

/* What JSON cannot say, or says otherwise: every value must come back bit by bit. */
static void vgguf_gives_odd_keys_back(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    struct buf nested = {0};
    const float odd_f[] = {0.0F, -0.0F, 1e-45F, 3.4028235e38F, 0.1F, 16777217.0F};
    const float nan_f[] = {1.0F, __builtin_nanf("0x123"), -__builtin_inff()};
    const uint64_t odd_u[] = {0, 1, (UINT64_C(1) << 53) - 1, UINT64_C(1) << 53, UINT64_MAX};
    const int64_t odd_i[] = {INT64_MIN, -1, INT64_MAX};
    const double odd_d[] = {0.1, 1e308, 4.9e-324, -0.0};
    const char *const text[] = {"", "\xc3\xa9", "a\"b\\c\n\t\x01\x7f", "\xf0\x9f\x98\x80"};
    const char *const bad_text[] = {"ok", "\xff\xfe"};
    gguf_build_array(b, "x.f32", 6, odd_f, 6);
    gguf_build_array(b, "x.nan", 6, nan_f, 3);
    gguf_build_array(b, "x.u64", 10, odd_u, 5);
    gguf_build_array(b, "x.u64small", 10, odd_u, 3);
    gguf_build_array(b, "x.i64", 11, odd_i, 3);
    gguf_build_array(b, "x.f64", 12, odd_d, 4);
    gguf_build_array(b, "x.empty", 5, odd_i, 0);
    gguf_build_array(b, "x.bools", 7, "\0\1\1", 3);
    gguf_build_array_str(b, "x.text", text, 4);
    gguf_build_array_str(b, "x.bad_text", bad_text, 2);
    gguf_build_strn(b, "x.nul", "a\0b", 3);
    gguf_build_u8(b, "x.u8", 255);
    gguf_build_i8(b, "x.i8", -128);
    gguf_build_u16(b, "x.u16", 65535);
    gguf_build_i16(b, "x.i16", -32768);
    gguf_build_i32(b, "x.i32", INT32_MIN);
    gguf_build_u64(b, "x.max", UINT64_MAX);
    gguf_build_f64(b, "llama.rope.freq_base", 1000000.5); /* an f32 can hold it, its text cannot */
    gguf_build_str(b, "no_dot", "reserved among the .apr's own names");
    gguf_build_str(b, "aprfs.profile", "not ours");
    gguf_build_str(b, "bad\xffname", "v");
    gguf_build_f32(b, "bad\xffnumber", 0.3F);
    gguf_build_f64(b, "also_reserved", 0.1);
    buf_u32(&nested, 9); /* an array of two arrays of u8 */
    buf_u64(&nested, 2);
    for (int i = 0; i < 2; i++) {
        buf_u32(&nested, 0);
        buf_u64(&nested, 1);
        buf_u8(&nested, (uint8_t)(7 + i));
    }
    gguf_build_raw(b, "x.nested", 9, nested.p, nested.len);
    buf_free(&nested);
    for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++)
        same_as_made(b, (enum vapr_profile)p, NULL);
    gguf_build_free(b);
}

/* Of several parts one file: split.* gone, all else in order, every tensor's bytes. */
static void vgguf_joins_parts(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("qwen2");
    o.type = 12;
    o.n_embd = o.n_ff = 256;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &o);
    size_t len;
    uint8_t *whole = gguf_build_bytes(b, &len);
    struct source *s;
    struct gguf *g;
    assert_int_equal(source_from_mem(&s, whole, len, "whole.gguf", NULL), 0);
    assert_int_equal(gguf_open(&g, &s, 1, NULL), 0);
    for (int n_part = 2; n_part <= 5; n_part++) {
        struct turned t;
        turn_made(&t, b, n_part, VAPR_NATIVE);
        const struct gguf *r = vgguf_gguf(t.v);
        assert_false(vgguf_same_head(t.v));
        assert_null(gguf_find(r, "split.count"));
        assert_int_equal(gguf_n_tensor(r), gguf_n_tensor(g));
        for (size_t i = 0; i < gguf_n_tensor(g); i++) {
            const struct gguf_tensor *x = gguf_tensor(g, i), *y = gguf_tensor(r, i);
            assert_int_equal(x->name.len, y->name.len);
            assert_memory_equal(x->name.p, y->name.p, x->name.len);
            assert_int_equal(x->type, y->type);
            assert_int_equal(x->n_dim, y->n_dim);
            assert_memory_equal(x->ne, y->ne, sizeof x->ne);
            assert_memory_equal(whole + x->off, t.p + y->off, x->size);
        }
        for (size_t i = 0; i < gguf_n_key(g); i++) {
            const struct gguf_key *x = gguf_key(g, i), *y = gguf_key(r, i);
            assert_memory_equal(x->name.p, y->name.p, x->name.len);
            assert_int_equal(x->type, y->type);
            assert_int_equal(x->data_len, y->data_len);
            assert_memory_equal(x->data, y->data, x->data_len);
        }
        /* The first extent at a shift of 64 KiB: what the padding key is for. */
        const struct vplan *p = vgguf_plan(t.v);
        const struct vseg *first = &p->seg[vplan_find_seg(p, gguf_data_start(r, 0))];
        assert_int_equal(first->kind, VSEG_FILE);
        assert_int_equal((first->off - first->src_off) % 65536, 0);
        turned_free(&t);
    }
    gguf_close(g);
    source_close(s);
    free(whole);
    gguf_build_free(b);
}

/* --- the original writers' --- */

static uint8_t *slurp(const char *path, size_t *len)
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

static void turn_file(struct turned *t, const char *path)
{
    struct err e = {0};
    size_t len;
    uint8_t *p = slurp(path, &len);
    if (turn(t, p, len, &e) < 0)
        fail_msg("%s", e.msg);
    check_plan(t);
}

static const struct gguf_tensor *named(const struct turned *t, const char *name)
{
    const struct gguf_tensor *g = gguf_find_tensor(vgguf_gguf(t->v), name);
    if (!g)
        fail_msg("no tensor '%s'", name);
    return g;
}

static bool key_says(const struct turned *t, const char *key, const char *text)
{
    struct gguf_str s;
    return gguf_as_str(gguf_find(vgguf_gguf(t->v), key), &s) && gguf_str_eq(s, text);
}

/* Against the GGUF that realizar's converter was given. */
static void vgguf_undoes_the_original_converter(void **state)
{
    (void)state;
    struct turned t;
    struct gguf *g;
    turn_file(&t, "tests/data/q4k-converter-output.apr");
    assert_int_equal(gguf_open_path(&g, "tests/data/q4k-converter-input.gguf", NULL), 0);
    assert_int_equal(gguf_n_tensor(g), gguf_n_tensor(vgguf_gguf(t.v)));
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const struct gguf_tensor *x = gguf_tensor(g, i);
        char *name = strndup(x->name.p, x->name.len);
        uint8_t *bytes = malloc(x->size);
        const struct gguf_tensor *y = named(&t, name);
        assert_int_equal(x->type, y->type);
        assert_memory_equal(x->ne, y->ne, sizeof x->ne);
        assert_int_equal(source_read(gguf_part(g, 0), bytes, x->off, x->size, NULL), 0);
        assert_memory_equal(bytes, t.p + y->off, x->size);
        free(bytes);
        free(name);
    }
    static const char *const same[] = {"general.architecture",
                                       "llama.block_count",
                                       "llama.embedding_length",
                                       "llama.feed_forward_length",
                                       "llama.attention.head_count",
                                       "llama.attention.head_count_kv",
                                       "llama.context_length",
                                       "llama.rope.freq_base",
                                       "tokenizer.ggml.model",
                                       "tokenizer.ggml.tokens",
                                       "tokenizer.ggml.merges",
                                       "tokenizer.ggml.bos_token_id",
                                       "tokenizer.ggml.eos_token_id",
                                       "tokenizer.chat_template",
                                       "llama.attention.layer_norm_rms_epsilon"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        const struct gguf_key *x = gguf_find(g, same[i]);
        const struct gguf_key *y = gguf_find(vgguf_gguf(t.v), same[i]);
        if (!x)
            continue;
        if (!y || x->type != y->type || x->data_len != y->data_len ||
            memcmp(x->data, y->data, x->data_len) != 0)
            fail_msg("%s differs", same[i]);
    }
    assert_string_equal(vgguf_plan(t.v)->layout, "congruent");
    gguf_close(g);
    turned_free(&t);
}

/* Hugging Face's names, tensors 64 apart: names translated, shapes reversed, one extent. */
static void vgguf_translates_aprenders_own(void **state)
{
    (void)state;
    struct turned t;
    turn_file(&t, "tests/data/aprender-writer.apr");
    static const char *const pair[][2] = {
        {"lm_head.weight", "output.weight"},
        {"model.embed_tokens.weight", "token_embd.weight"},
        {"model.norm.weight", "output_norm.weight"},
        {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"},
        {"model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight"},
        {"model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight"},
        {"model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"},
        {"model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"}};
    for (size_t i = 0; i < sizeof pair / sizeof pair[0]; i++) {
        const struct apr_tensor *a = apr_find(t.a, pair[i][0]);
        const struct gguf_tensor *g = named(&t, pair[i][1]);
        assert_int_equal(g->type, a->type);
        assert_int_equal(g->ne[0], a->dim[a->n_dim - 1]);
        assert_memory_equal(t.p + g->off, t.apr + a->off, a->size);
    }
    const struct vplan *p = vgguf_plan(t.v);
    size_t n_file = 0;
    for (size_t i = 0; i < p->n_seg; i++)
        n_file += p->seg[i].kind == VSEG_FILE;
    assert_int_equal(n_file, 1);
    assert_string_equal(p->layout, "congruent");
    assert_int_equal(gguf_alignment(vgguf_gguf(t.v)), 64);
    assert_true(key_says(&t, "tokenizer.ggml.model", "gpt2"));
    assert_int_equal(vgguf_n_note(t.v), 3); /* names, model and types of the tokenizer */
    assert_int_equal(gguf_find(vgguf_gguf(t.v), "aprfs.derived")->n, 3);
    turned_free(&t);
}

/* --- files made here --- */

struct spec {
    const char *name;
    uint8_t dtype;
    uint64_t rows, cols; /* cols 0: a vector of rows */
    uint64_t size;
};

/* By the byte table of apr-v2.md §1-§4; tensors 64 apart, byte i of the data is i * 7. */
static uint8_t *build_apr(const char *meta, const struct spec *s, size_t n, size_t *len)
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

#define DIMS                                                                                       \
    "\"hidden_size\":32,\"num_layers\":1,\"num_heads\":2,\"intermediate_size\":32,"                \
    "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"vocab_size\":2"
#define LLAMA "{\"architecture\":\"llama\"," DIMS

static void vgguf_widens_own_q4(void **state)
{
    (void)state;
    static const struct spec s[] = {{"blk.0.attn_q.weight", 128, 32, 32, 576},
                                    {"token_embd.weight", 0, 2, 32, 256}};
    struct turned t;
    struct err e = {0};
    size_t len;
    uint8_t *p = build_apr(LLAMA ",\"rope_type\":0}", s, 2, &len);
    const struct apr_tensor *a;
    if (turn(&t, p, len, &e) < 0)
        fail_msg("%s", e.msg);
    check_plan(&t);
    const struct gguf_tensor *g = named(&t, "blk.0.attn_q.weight");
    a = apr_find(t.a, "blk.0.attn_q.weight");
    assert_int_equal(g->type, 0);
    assert_int_equal(g->size, 32 * 32 * 4);
    /* apr-v2.md §5: low nibble = even index, value = (nibble - 8) * scale. */
    for (uint64_t i = 0; i < 1024; i++) {
        const uint8_t *block = t.apr + a->off + i / 32 * 18;
        int q = block[2 + i % 32 / 2] >> (i % 2 ? 4 : 0) & 15;
        float want = (float)(q - 8) * f16_to_f32(load_u16(block));
        assert_memory_equal(t.p + g->off + 4 * i, &want, 4);
    }
    assert_true(key_says(&t, "tokenizer.ggml.model", "no_vocab"));
    turned_free(&t);
}

/* What is refused, and in which words. */
#define EMBD                                                                                       \
    {                                                                                              \
        "token_embd.weight", 0, 2, 32, 256                                                         \
    }
#define Q(code, bytes)                                                                             \
    {                                                                                              \
        {"blk.0.attn_q.weight", code, 32, 32, bytes}, EMBD                                         \
    }
static const struct spec good[] = Q(0, 4096);
static const struct spec q8[] = Q(129, 1028), u8[] = Q(7, 1024);
static const struct spec odd[] = {{"blk.0.attn_norm.weight", 128, 33, 0, 36}, EMBD};
static const struct spec unknown[] = {{"encoder.w", 0, 2, 2, 16}, EMBD};
static const struct spec twice[] = {{"blk.0.a", 0, 2, 0, 8}, {"blk.0.a", 0, 2, 0, 8}, EMBD};
static const struct spec hf[] = {{"model.embed_tokens.weight", 0, 2, 32, 256},
                                 {"model.layers.0.self_attn.q_proj.weight", 0, 32, 32, 4096}};
static const struct spec bare[] = {{"blk.0.attn_q.weight", 0, 32, 32, 4096}};
static const struct {
    const char *meta;
    const struct spec *s;
    size_t n;
    int rc;
    const char *says;
} refused[] = {
    {LLAMA "}", q8, 2, -ENOTSUP, "one scale for the whole tensor"},
    {LLAMA "}", u8, 2, -ENOTSUP, "unsigned bytes"},
    {LLAMA "}", odd, 2, -ENOTSUP, "no whole number of blocks"},
    {LLAMA "}", unknown, 2, -ENOTSUP, "tensor 'encoder.w': no name"},
    {LLAMA "}", twice, 3, -EUCLEAN, "blk.0.a"},
    {LLAMA "}", hf, 2, -ENOTSUP, "rope_type is not 0"},
    {LLAMA ",\"rope_type\":2}", hf, 2, -ENOTSUP, "rope_type is not 0"},
    {"{\"architecture\":\"gemma3\"," DIMS "}", hf, 2, -ENOTSUP, "Hugging Face's tensor names"},
    {LLAMA "}", bare, 1, -ENOENT, "'token_embd.weight' is missing"},
    {LLAMA "}", good + 1, 1, -ENOENT, "layer 0 of 1 has no tensors"},
    {LLAMA "}", good, 0, -ENOENT, "no tensors"},
    {"{\"architecture\":\"nothing\"," DIMS "}", good, 2, -ENOTSUP, "no counterpart"},
    {"{\"hidden_size\":32}", good, 2, -ENOENT, "architecture is missing"},
    {LLAMA ",\"tokenizer.vocabulary\":[\"a\",\"b\"],\"tokenizer.model\":\"llama\"}", good, 2,
     -ENOENT, "tokenizer.scores is missing"},
    {LLAMA ",\"tokenizer.vocabulary\":[\"a\"]}", good, 2, -ENOTSUP,
     "1 tokens over an embedding of 2 rows"},
    {LLAMA ",\"tokenizer.vocabulary\":[\"a\",3],\"tokenizer.merges\":[]}", good, 2, -EUCLEAN,
     "element 1 of 'tokenizer.ggml.tokens' is no str"},
    {LLAMA ",\"aprfs.profile\":\"native\"}", good, 2, -ENOTSUP, "earlier aprfs"},
    {LLAMA ",\"aprfs.profile\":\"native\",\"aprfs.gguf\":{\"version\":3}}", good, 2, -EUCLEAN,
     "no list of keys"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":9,\"keys\":[]}}", good, 2, -EUCLEAN, "version"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u32\",\"gone\"]]}}", good, 2,
     -EUCLEAN, "the value of 'a' is not there"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u99\"]]}}", good, 2, -EUCLEAN,
     "the type of 'a'"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u8\",\"hidden_siz\"]]}}", good, 2,
     -EUCLEAN, "'a'"},
    {LLAMA ",\"x\":256,\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u8\",\"x\"]]}}", good, 2,
     -EUCLEAN, "the value of 'a' is no u8"},
    {LLAMA ",\"x\":\"s\",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"[u8\",\"x\"]]}}", good, 2,
     -EUCLEAN, "is no array"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u8\",null,\"0g\"]]}}", good, 2,
     -EUCLEAN, "no hex"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u32\",null,\"01\"]]}}", good, 2,
     -EUCLEAN, "that its metadata describes"}, /* hex that is no u32: our own reader finds it */
    {LLAMA ",\"x\":7,\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"general.alignment\",\"u32\","
           "\"x\"]]}}",
     good, 2, -EUCLEAN, "no power of two"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[5]}}", good, 2, -EUCLEAN,
     "a key without a name"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[],\"head_sha256\":\"00\"}}", good, 2, -EUCLEAN,
     "head_sha256"},
    {LLAMA ",\"aprfs.profile\":\"native\",\"aprfs.alias\":3,\"aprfs.gguf\":{}}", good, 2, -EUCLEAN,
     "aprfs.alias"},
};

static void vgguf_refuses_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct turned t;
        struct err e = {0};
        size_t len;
        uint8_t *p = build_apr(refused[i].meta, refused[i].s, refused[i].n, &len);
        int rc = turn(&t, p, len, &e);
        if (rc != refused[i].rc || !strstr(e.msg, refused[i].says))
            fail_msg("case %zu: %d '%s', expected %d '%s'", i, rc, e.msg, refused[i].rc,
                     refused[i].says);
        turned_free(&t);
    }
}

/* No read of the .apr that fails may look like a shorter file or other bytes. */
static void vgguf_read_hands_on_errors(void **state)
{
    (void)state;
    size_t len, got;
    uint8_t *p = slurp("tests/data/q4k-converter-output.apr", &len), *dst = malloc(2 * len);
    struct faulty f = {.p = p, .len = len, .fail_at = -1, .rc = -EIO};
    struct source *s = faulty_source(&f, len, "faulty.apr");
    struct apr *a;
    struct vgguf *v;
    struct err e = {0};
    assert_int_equal(apr_open(&a, s, &e), 0);
    assert_int_equal(vgguf_new(&v, a, &e), 0);
    uint64_t size = vgguf_plan(v)->size;
    assert_true(size <= 2 * len);
    f.fail_at = f.n_read;
    assert_int_equal(vplan_read(vgguf_plan(v), dst, 0, (size_t)size, &got, &e), -EIO);
    assert_int_equal(got, 0);
    vgguf_free(v);
    apr_close(a);
    source_close(s);
    free(dst);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vgguf_gives_the_gguf_back),
        cmocka_unit_test(vgguf_gives_odd_keys_back),
        cmocka_unit_test(vgguf_joins_parts),
        cmocka_unit_test(vgguf_undoes_the_original_converter),
        cmocka_unit_test(vgguf_translates_aprenders_own),
        cmocka_unit_test(vgguf_widens_own_q4),
        cmocka_unit_test(vgguf_refuses_by_name),
        cmocka_unit_test(vgguf_read_hands_on_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
