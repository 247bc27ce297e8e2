/* Binding a model: what is refused and by which name, hostile metadata, every profile and form of a
 * file, rope tables. */
#include "infer/model.h"

#include "format/apr_write.h"
#include "format/model_file.h"
#include "format/quant.h"
#include "infer/rope.h"
#include "infer/session.h"
#include "tests/support.h"
#include "tests/tiny_model.h"

#include <errno.h>
#include <math.h>

static char *dir;

/* Opens a model file; on success evaluates 12 of the tiny ids and keeps the last row. */
static int try_path(const char *path, uint32_t n_ctx, float **row, size_t *n_vocab, struct err *e)
{
    const struct backend_options bo = {.n_thread = 1};
    const struct model_options mo = {.n_ctx = n_ctx};
    struct model_file *file = NULL;
    struct backend *b = NULL;
    struct model *m = NULL;
    struct session *s = NULL;
    int32_t id[TINY_N_TOK];
    tiny_ids(id);
    int rc = model_file_open(&file, path, e);
    if (rc == 0)
        rc = backend_open(&b, "cpu", &bo, e);
    if (rc == 0)
        rc = model_open(&m, model_file_apr(file), b, &mo, e);
    if (rc == 0)
        rc = session_new(&s, m, NULL, e);
    if (rc == 0)
        rc = session_eval(s, id, 12, e);
    if (rc == 0 && row) {
        *n_vocab = m->c.n_vocab;
        const float *last;
        *row = malloc(*n_vocab * sizeof **row);
        rc = session_logits(s, &last, e);
        if (rc == 0)
            memcpy(*row, last, *n_vocab * sizeof **row);
    }
    session_free(s);
    model_close(m);
    backend_close(b);
    model_file_close(file);
    return rc;
}

static int try_build(struct gguf_build *b, uint32_t n_ctx, struct err *e)
{
    char *path = path_join(dir, "try.gguf");
    gguf_build_file(b, path);
    gguf_build_free(b);
    int rc = try_path(path, n_ctx, NULL, NULL, e);
    free(path);
    return rc;
}

/* --- refusals ------------------------------------------------------------------------------ */

static void extra_tensor(struct gguf_build *b)
{
    gguf_build_tensor_1d(b, "blk.1.attn_sinks.weight", 0, 4);
}
static void missing_ffn(struct gguf_build *b)
{
    gguf_build_tensor_remove(b, "blk.1.ffn_up.weight");
}
static void wrong_shape(struct gguf_build *b)
{
    gguf_build_tensor_remove(b, "blk.1.attn_output.weight");
    gguf_build_tensor_2d(b, "blk.1.attn_output.weight", 0, 256, 128);
}
static void wrong_bias(struct gguf_build *b)
{
    gguf_build_tensor_remove(b, "blk.0.attn_q.bias");
    gguf_build_tensor_1d(b, "blk.0.attn_q.bias", 0, 255);
}
static void experts(struct gguf_build *b)
{
    gguf_build_u32(b, "llama.expert_count", 8);
    gguf_build_u32(b, "llama.expert_used_count", 2);
}
static void scaling_unknown(struct gguf_build *b)
{
    gguf_build_str(b, "qwen2.rope.scaling.type", "dynamic");
}
static void foreign_q_norm(struct gguf_build *b)
{
    gguf_build_tensor_1d(b, "blk.0.attn_q_norm.weight", 0, 64);
}
static void no_q_norm(struct gguf_build *b)
{
    gguf_build_tensor_remove(b, "blk.1.attn_q_norm.weight");
}
static void no_post_norm(struct gguf_build *b)
{
    gguf_build_tensor_remove(b, "blk.0.post_ffw_norm.weight");
}
static void norm_bias(struct gguf_build *b)
{
    gguf_build_tensor_1d(b, "blk.0.attn_norm.bias", 0, 256);
}
static void integer_weights(struct gguf_build *b)
{
    gguf_build_tensor_retype(b, "blk.1.ffn_gate.weight", 24);
}
static void foreign_rope_freqs(struct gguf_build *b)
{
    gguf_build_tensor_1d(b, "rope_freqs.weight", 0, 32);
}
static void bad_rope_freqs(struct gguf_build *b)
{
    float zero[32] = {1, 1, 0};
    uint64_t ne = 32;
    gguf_build_tensor_remove(b, "rope_freqs.weight");
    gguf_build_tensor(b, "rope_freqs.weight", 0, 1, &ne, zero);
}
static void moe_tensors(struct gguf_build *b)
{
    gguf_build_tensor_2d(b, "blk.0.ffn_gate_inp.weight", 0, 256, 8);
}
static void lora_like(struct gguf_build *b)
{
    gguf_build_tensor_1d(b, "output.scale", 0, 1);
}
static void nextn(struct gguf_build *b)
{
    gguf_build_tensor_2d(b, "blk.1.nextn.eh_proj.weight", 0, 512, 256);
}

static void not_causal(struct gguf_build *b)
{
    gguf_build_bool(b, "qwen3.attention.causal", false);
}
/* Trained for 128, stretched to the 256 of context_length, which takes the long factors. */
static void half_a_longrope(struct gguf_build *b)
{
    gguf_build_str(b, "llama.rope.scaling.type", "longrope");
    gguf_build_u32(b, "llama.rope.scaling.original_context_length", 128);
    gguf_build_tensor_remove(b, "rope_freqs.weight");
    gguf_build_tensor_1d(b, "rope_factors_short.weight", 0, 32);
}

static void model_refuses_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *family;
        void (*change)(struct gguf_build *b);
        const char *says;
    } cases[] = {
        {"llama", extra_tensor, "attn_sinks"},
        {"llama", missing_ffn, "blk.1.ffn_up.weight"},
        {"llama", wrong_shape, "attn_output.weight"},
        {"llama", wrong_bias, "blk.0.attn_q.bias"},
        {"llama", experts, "expert"},
        {"llama", norm_bias, "blk.0.attn_norm.bias"},
        {"llama", integer_weights, "blk.1.ffn_gate.weight"},
        {"llama", bad_rope_freqs, "rope_freqs.weight"},
        {"llama", moe_tensors, "ffn_gate_inp"},
        {"llama", lora_like, "output.scale"},
        {"llama", foreign_q_norm, "attn_q_norm"},
        {"qwen2", scaling_unknown, "rope.scaling.type"},
        {"qwen2", foreign_q_norm, "attn_q_norm"},
        {"qwen2", foreign_rope_freqs, "rope_freqs"},
        {"qwen3", no_q_norm, "blk.1.attn_q_norm.weight"},
        {"qwen3", nextn, "nextn"},
        {"gemma3", no_post_norm, "blk.0.post_ffw_norm.weight"},
        {"qwen3", not_causal, "qwen3.attention.causal"},
        {"llama", half_a_longrope, "rope_factors_long.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct gguf_build *b = tiny_model(cases[i].family);
        struct err e = {0};
        if (cases[i].change == wrong_bias) /* llama: where present */
            gguf_build_tensor_1d(b, "blk.0.attn_q.bias", 0, 256);
        cases[i].change(b);
        int rc = try_build(b, 0, &e);
        if (rc >= 0 || !strstr(e.msg, cases[i].says))
            fail_msg("%s, %s: rc %d, '%s'", cases[i].family, cases[i].says, rc, e.msg);
    }
}

static void model_refuses_families_it_has_not_proven(void **state)
{
    (void)state;
    static const char *const arch[] = {"gemma",  "gemma2", "phi3",    "qwen",   "gpt2",
                                       "falcon", "phi2",   "gptneox", "mistral"};
    for (size_t i = 0; i < sizeof arch / sizeof arch[0]; i++) {
        struct gguf_build_opt o = gguf_build_defaults(arch[i]);
        struct err e = {0};
        int rc = try_build(gguf_build_llama_like(arch[i], &o), 0, &e);
        if (rc >= 0 || !strstr(e.msg, arch[i]))
            fail_msg("%s: rc %d, '%s'", arch[i], rc, e.msg);
    }
}

static void model_refuses_a_context_beyond_training(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(try_build(tiny_model("llama"), 257, &e), -ERANGE);
    assert_non_null(strstr(e.msg, "257"));
    assert_non_null(strstr(e.msg, "256"));
    assert_int_equal(try_build(tiny_model("llama"), 256, &e), 0);
}

/* --- one model, many files ----------------------------------------------------------------- */

static char *convert(const char *gguf_path, enum vapr_profile profile)
{
    const struct vapr_options vo = {.profile = profile};
    const struct apr_write_options wo = {.force = true};
    struct gguf *g;
    struct vapr *v;
    struct err e = {0};
    char *path = path_join(dir, "copy.apr");
    if (gguf_open_path(&g, gguf_path, &e) < 0 || vapr_new(&v, g, &vo, &e) < 0 ||
        apr_write_file(v, path, &wo, &e) < 0)
        fail_msg("%s: %s", gguf_path, e.msg);
    vapr_free(v);
    gguf_close(g);
    return path;
}

static void model_is_bit_identical_in_every_profile(void **state)
{
    (void)state;
    for (size_t f = 0; f < 5; f++) {
        struct err e = {0};
        float *want, *got;
        size_t n, n2;
        struct gguf_build *b;
        if (f < 4) {
            b = tiny_model(tiny_families[f]);
        } else { /* tied head, F16 norms (widened in some profiles), Q8_0 embedding (transcoded) */
            struct gguf_build_opt o = gguf_build_defaults("llama");
            o.norm_type = 1;
            o.type = o.type_embd = 8;
            b = gguf_build_llama_like("llama", &o);
            gguf_build_tensor_remove(b, "output.weight");
        }
        char *gguf_path = path_join(dir, "form.gguf");
        gguf_build_file(b, gguf_path);
        gguf_build_free(b);
        if (try_path(gguf_path, 0, &want, &n, &e) < 0)
            fail_msg("%s", e.msg);
        for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++) {
            char *apr_path = convert(gguf_path, (enum vapr_profile)p);
            if (try_path(apr_path, 0, &got, &n2, &e) < 0)
                fail_msg("%s: %s", vapr_profile_name((enum vapr_profile)p), e.msg);
            assert_int_equal(n, n2);
            assert_memory_equal(got, want, n * sizeof *got);
            free(got);
            free(apr_path);
        }
        free(want);
        free(gguf_path);
    }
}

/* A Q8_0 model in profile strict is stored as F32 beside the original bytes: those are bound. */
static void model_shares_the_bytes_of_transcoded_tensors(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.type = o.type_embd = QUANT_Q8_0;
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    char *gguf_path = path_join(dir, "q8.gguf");
    gguf_build_file(b, gguf_path);
    gguf_build_free(b);
    uint64_t bytes[2];
    for (int form = 0; form < 2; form++) {
        char *path = form ? convert(gguf_path, VAPR_STRICT) : strdup(gguf_path);
        struct model_file *file;
        struct backend *be;
        struct model *m;
        struct err e;
        assert_int_equal(model_file_open(&file, path, &e), 0);
        assert_int_equal(backend_open(&be, "cpu", NULL, &e), 0);
        assert_int_equal(model_open(&m, model_file_apr(file), be, NULL, &e), 0);
        assert_int_equal(m->embd->type, QUANT_Q8_0);
        assert_int_equal(m->layer[1].down.w->type, QUANT_Q8_0);
        bytes[form] = m->weight_bytes;
        model_close(m);
        backend_close(be);
        model_file_close(file);
        free(path);
    }
    assert_int_equal(bytes[0], bytes[1]);
    free(gguf_path);
}

static void model_shares_a_tied_head(void **state)
{
    (void)state;
    struct gguf_build *b = tiny_model("gemma3"); /* has no output.weight */
    char *path = path_join(dir, "tied.gguf");
    gguf_build_file(b, path);
    gguf_build_free(b);
    struct model_file *file;
    struct backend *be;
    struct model *m;
    struct err e;
    assert_int_equal(model_file_open(&file, path, &e), 0);
    assert_int_equal(backend_open(&be, "cpu", NULL, &e), 0);
    assert_int_equal(model_open(&m, model_file_apr(file), be, NULL, &e), 0);
    assert_ptr_equal(m->head.w, m->embd);
    assert_int_equal(m->n_matrix, 1 + 2 * 7); /* embedding, 7 a layer */
    model_close(m);
    backend_close(be);
    model_file_close(file);
    free(path);
}

/* --- hostile metadata ---------------------------------------------------------------------- */

/* The native .apr of a tiny model, its metadata's place, and a writer of changed copies. */
struct image {
    uint8_t *p;
    size_t len, meta, meta_len;
    char *path;
};

static void image_open(struct image *im, const char *family)
{
    struct gguf_build *b = tiny_model(family);
    char *gguf_path = path_join(dir, "hostile.gguf");
    gguf_build_file(b, gguf_path);
    gguf_build_free(b);
    im->path = convert(gguf_path, VAPR_NATIVE);
    im->p = file_read(im->path, &im->len);
    im->meta = 64;
    im->meta_len = im->p[20] | (size_t)im->p[21] << 8 | (size_t)im->p[22] << 16;
    free(gguf_path);
}

static void image_close(struct image *im)
{
    free(im->p);
    free(im->path);
}

/* Where the JSON text `"key":` stands, or 0. */
static size_t image_find(const struct image *im, const char *key)
{
    char want[128];
    size_t n = (size_t)snprintf(want, sizeof want, "\"%s\":", key);
    for (size_t i = im->meta; i + n <= im->meta + im->meta_len; i++)
        if (memcmp(im->p + i, want, n) == 0)
            return i;
    return 0;
}

static int image_try(const struct image *im, struct err *e)
{
    file_write(im->path, im->p, im->len);
    return try_path(im->path, 0, NULL, NULL, e);
}

static void model_refuses_metadata_without_a_needed_key(void **state)
{
    (void)state;
    /* architecture too, but for a second key that says the same: model_type */
    static const char *const key[] = {"hidden_size", "num_layers", "num_heads", "intermediate_size",
                                      "vocab_size"};
    struct image im;
    image_open(&im, "qwen3");
    for (size_t i = 0; i < sizeof key / sizeof key[0]; i++) {
        struct err e = {0};
        size_t at = image_find(&im, key[i]);
        if (!at)
            fail_msg("no key %s", key[i]);
        uint8_t keep = im.p[at + 1];
        im.p[at + 1] = 'X';
        int rc = image_try(&im, &e);
        im.p[at + 1] = keep;
        if (rc >= 0 || !strstr(e.msg, key[i]))
            fail_msg("without %s: rc %d, '%s'", key[i], rc, e.msg);
    }
    image_close(&im);
}

/* Every digit of the metadata before the tokenizer's arrays, replaced by another character: refused or run,
 * never a crash (ASan and UBSan watch). Dimensions that contradict the tensors are refused. */
static void model_survives_any_number_in_metadata(void **state)
{
    (void)state;
    skip_under_tsan("one thread");
    for (size_t f = 0; f < 4; f++) {
        struct image im;
        image_open(&im, tiny_families[f]);
        int n_run = 0, n_refused = 0;
        bool in_vocab = false;
        for (size_t i = im.meta; i < im.meta + im.meta_len; i++) {
            if (im.p[i] == '[' && i + 4 < im.meta + im.meta_len)
                in_vocab = memchr(im.p + i, ']', 80) == NULL; /* a long array: the vocabulary */
            if (im.p[i] == ']')
                in_vocab = false;
            if (in_vocab || im.p[i] < '0' || im.p[i] > '9')
                continue;
            uint8_t keep = im.p[i];
            struct err e = {0};
            im.p[i] = (uint8_t) "09e-"[(n_run + n_refused) % 4]; /* each digit gets one of them */
            if (image_try(&im, &e) < 0)
                n_refused++;
            else
                n_run++;
            assert_true(e.code == 0 || e.msg[0]);
            im.p[i] = keep;
        }
        print_message("# %s: %d refused, %d run\n", tiny_families[f], n_refused, n_run);
        assert_true(n_refused > 10);
        image_close(&im);
    }
}

static void model_refuses_numbers_that_contradict_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value;
    } cases[] = {{"hidden_size", "999"}, {"num_layers", "3"},          {"num_heads", "8"},
                 {"num_heads", "0"},     {"num_kv_heads", "3"},        {"vocab_size", "999"},
                 {"head_dim", "126"},    {"intermediate_size", "511"}, {"rope_type", "7"}};
    struct image im;
    image_open(&im, "qwen3");
    uint8_t *good = malloc(im.len);
    memcpy(good, im.p, im.len);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = {0};
        size_t at = image_find(&im, cases[i].key) + strlen(cases[i].key) + 3;
        size_t n = strlen(cases[i].value);
        memcpy(im.p + at, cases[i].value, n);
        if (im.p[at + n] != ',' && im.p[at + n] != '}')
            fail_msg("%s: a number of another length stands there", cases[i].key);
        int rc = image_try(&im, &e);
        if (rc >= 0)
            fail_msg("%s = %s is taken", cases[i].key, cases[i].value);
        memcpy(im.p, good, im.len);
    }
    free(good);
    image_close(&im);
}

/* --- rope tables --------------------------------------------------------------------------- */

static void rope_table_of_plain_linear_and_divided(void **state)
{
    (void)state;
    /* n_rot 4, base 10000: frequencies 1 and 10000^(-1/2) = 0.01. */
    struct rope_params p = {.n_rot = 4, .base = 10000, .scale = 1, .attn_factor = 1};
    float w[2], mu;
    rope_table(&p, w, &mu);
    assert_true(w[0] == 1 && w[1] == 0.01f && mu == 1);
    p.scale = 0.125;
    p.attn_factor = 1.5;
    rope_table(&p, w, &mu);
    assert_true(w[0] == 0.125f && w[1] == 0.00125f && mu == 1.5f);
    const float factor[2] = {2, 8}; /* rope_freqs: f / factor */
    p.scale = 1;
    p.factor = factor;
    rope_table(&p, w, &mu);
    assert_true(w[0] == 0.5f && w[1] == 0.00125f);
}

static void rope_table_of_yarn(void **state)
{
    (void)state;
    /* n_rot 8, base 10000, original context 64, factor 4, betas 32 and 1. D(b) = 8 ln(64 / (2 pi
     * b)) / (2 ln 10000): D(32) = -0.4969, D(1) = 1.0081; lo = max(0, floor) = 0, hi = min(7, ceil)
     * = 2. r = 1 - clamp(i / 2) = 1, 0.5, 0, 0. f = 1, 0.1, 0.01, 0.001; omega = f (r + (1 - r) / 4).
     * mu = 1 + 0.1 ln 4 = 1.138629436. By hand. */
    struct rope_params p = {.n_rot = 8,
                            .base = 10000,
                            .scale = 0.25,
                            .ext_factor = 1,
                            .attn_factor = 1,
                            .beta_fast = 32,
                            .beta_slow = 1,
                            .n_ctx_orig = 64};
    const float want[4] = {1, 0.0625f, 0.0025f, 0.00025f};
    float w[4], mu;
    rope_table(&p, w, &mu);
    for (int i = 0; i < 4; i++)
        assert_true(fabsf(w[i] - want[i]) <= 1e-7f * want[i]);
    assert_true(fabsf(mu - 1.138629436f) < 1e-6f);
    p.log_mul = 0.5; /* divided by 1 + 0.1 x 0.5 x ln 4 = 1.069314718 */
    rope_table(&p, w, &mu);
    assert_true(fabsf(mu - 1.138629436f / 1.069314718f) < 1e-6f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_refuses_by_name),
        cmocka_unit_test(model_refuses_families_it_has_not_proven),
        cmocka_unit_test(model_refuses_a_context_beyond_training),
        cmocka_unit_test(model_is_bit_identical_in_every_profile),
        cmocka_unit_test(model_shares_the_bytes_of_transcoded_tensors),
        cmocka_unit_test(model_shares_a_tied_head),
        cmocka_unit_test(model_refuses_metadata_without_a_needed_key),
        cmocka_unit_test(model_survives_any_number_in_metadata),
        cmocka_unit_test(model_refuses_numbers_that_contradict_tensors),
        cmocka_unit_test(rope_table_of_plain_linear_and_divided),
        cmocka_unit_test(rope_table_of_yarn),
    };
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("model", tests, NULL, NULL);
    free(dir);
    return rc;
}
