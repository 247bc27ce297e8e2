/* The model digest: one for every form of a file, another for any change that the pass can see. */
#include "infer/digest.h"

#include "format/apr_write.h"
#include "format/model_file.h"
#include "format/quant.h"
#include "tests/support.h"
#include "tests/tiny_model.h"

#include <errno.h>

static char *dir;

static int path_digest_ctx(const char *path, uint32_t n_ctx, uint8_t out[DIGEST_SIZE],
                           struct err *e)
{
    const struct backend_options bo = {.n_thread = 1};
    const struct model_options mo = {.n_ctx = n_ctx};
    struct model_file *file = NULL;
    struct backend *b = NULL;
    struct model *m = NULL;
    int rc = model_file_open(&file, path, e);
    if (rc == 0)
        rc = backend_open(&b, "cpu", &bo, e);
    if (rc == 0)
        rc = model_open(&m, model_file_apr(file), b, &mo, e);
    if (rc == 0)
        memcpy(out, m->digest, DIGEST_SIZE);
    model_close(m);
    backend_close(b);
    model_file_close(file);
    return rc;
}

static int path_digest(const char *path, uint8_t out[DIGEST_SIZE], struct err *e)
{
    return path_digest_ctx(path, 0, out, e);
}

static void build_digest(struct gguf_build *b, uint8_t out[DIGEST_SIZE])
{
    char *path = path_join(dir, "built.gguf");
    struct err e = {0};
    gguf_build_file(b, path);
    gguf_build_free(b);
    if (path_digest(path, out, &e) < 0)
        fail_msg("%s", e.msg);
    free(path);
}

/* SHA-256 of the text, by sha256sum(1):
 *   printf 'aprfs-model-digest 1\nhparam arch x\nhparam n_embd 64\ntensor a.weight F32 3 00000007\n
 *   tensor b.weight Q8_0 2x32 0000abcd\n' (one line) | sha256sum */
static void digest_is_sha256_of_the_text(void **state)
{
    (void)state;
    static const uint8_t want[DIGEST_SIZE] = {
        0x83, 0xef, 0x87, 0xee, 0x6d, 0x33, 0x12, 0x00, 0x5c, 0x5c, 0x94,
        0x10, 0x10, 0x1f, 0x0f, 0x6a, 0x77, 0x97, 0x6e, 0xde, 0xc0, 0x83,
        0x33, 0x0b, 0xa7, 0xf7, 0xfc, 0x4a, 0x39, 0x35, 0x46, 0xfa,
    };
    struct backend_matrix w = {.type = QUANT_Q8_0, .n_out = 2, .n_in = 32};
    const struct bind_item item[] = {
        {.kind = BIND_MATRIX, .name = "b.weight", .w = &w, .crc = 0xabcd},
        {.kind = BIND_TABLE, .name = "table"},
        {.kind = BIND_VECTOR, .name = "a.weight", .n = 3, .crc = 1, .crc_f32 = 7},
    };
    const struct arch_config c = {.arch = "x", .n_embd = 64};
    uint8_t got[DIGEST_SIZE];
    struct err e;
    assert_int_equal(digest_model(got, &c, item, 3, &e), 0);
    assert_memory_equal(got, want, sizeof got);
}

static char *convert_with(const char *gguf_path, enum vapr_profile profile, enum vapr_footer footer)
{
    const struct vapr_options vo = {.profile = profile, .footer = footer};
    const struct apr_write_options wo = {.force = true, .footer = footer};
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

static char *convert(const char *gguf_path, enum vapr_profile profile)
{
    return convert_with(gguf_path, profile, VAPR_FOOTER_NONE);
}

/* The tiny families, and a model whose head is tied, whose norms are F16 (widened in some profiles)
 * and whose matrices are Q8_0 (transcoded in some). */
static struct gguf_build *form(size_t f)
{
    if (f < 4)
        return tiny_model(tiny_families[f]);
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.norm_type = 1;
    o.type = o.type_embd = QUANT_Q8_0;
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    gguf_build_tensor_remove(b, "output.weight");
    return b;
}

static void digest_is_the_same_in_every_form(void **state)
{
    (void)state;
    uint8_t seen[5][DIGEST_SIZE];
    for (size_t f = 0; f < 5; f++) {
        char *path = path_join(dir, "form.gguf");
        struct gguf_build *b = form(f);
        struct err e = {0};
        gguf_build_file(b, path);
        gguf_build_free(b);
        if (path_digest(path, seen[f], &e) < 0)
            fail_msg("%s", e.msg);
        for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++) {
            uint8_t got[DIGEST_SIZE];
            char *copy = convert(path, (enum vapr_profile)p);
            if (path_digest(copy, got, &e) < 0)
                fail_msg("%s: %s", vapr_profile_name((enum vapr_profile)p), e.msg);
            if (memcmp(got, seen[f], sizeof got) != 0)
                fail_msg("form %zu, profile %s: another digest", f,
                         vapr_profile_name((enum vapr_profile)p));
            free(copy);
        }
        for (size_t g = 0; g < f; g++)
            assert_memory_not_equal(seen[f], seen[g], DIGEST_SIZE);
        free(path);
    }
}

/* Of real files, as a mount of either profile would show them. */
static void digest_of_real_smollm2_is_the_same_in_every_profile(void **state)
{
    (void)state;
    char *path = real_model(REAL_SMOLLM2);
    if (!path)
        skip_because("%s is not in APRFS_MODELS", REAL_SMOLLM2);
    const struct backend_options bo = {.n_thread = 1};
    uint8_t first[DIGEST_SIZE] = {0};
    struct err e = {0};
    struct gguf *g;
    assert_int_equal(gguf_open_path(&g, path, &e), 0);
    for (int p = VAPR_ENGINE; p <= VAPR_NATIVE; p++) {
        const struct vapr_options vo = {.profile = (enum vapr_profile)p};
        struct vapr *v;
        struct source *src;
        struct apr *apr;
        struct backend *b;
        struct model *m;
        if (vapr_new(&v, g, &vo, &e) < 0 || vapr_source(&src, v, &e) < 0 ||
            apr_open(&apr, src, &e) < 0 || backend_open(&b, "cpu", &bo, &e) < 0 ||
            model_open(&m, apr, b, NULL, &e) < 0)
            fail_msg("%s", e.msg);
        if (p == VAPR_ENGINE)
            memcpy(first, m->digest, sizeof first);
        assert_memory_equal(m->digest, first, sizeof first);
        model_close(m);
        backend_close(b);
        apr_close(apr);
        source_close(src);
        vapr_free(v);
    }
    gguf_close(g);
    free(path);
}

/* --- what changes it ------------------------------------------------------------------------ */

static void flip_last_byte(struct gguf_build *b, const char *name)
{
    size_t len;
    /* lent, and ours: the builder copied it from nobody */
    uint8_t *p = (uint8_t *)(uintptr_t)gguf_build_tensor_data(b, name, &len);
    p[len - 1] ^= 1;
}
static void one_weight(struct gguf_build *b)
{
    flip_last_byte(b, "blk.1.ffn_down.weight");
}
static void one_norm(struct gguf_build *b)
{
    flip_last_byte(b, "blk.0.attn_norm.weight");
}
static void one_bias(struct gguf_build *b)
{
    flip_last_byte(b, "blk.1.attn_output.bias");
}
static void one_rope_factor(struct gguf_build *b) /* read by the host alone */
{
    flip_last_byte(b, "rope_freqs.weight");
}
static void epsilon(struct gguf_build *b)
{
    gguf_build_f32(b, "llama.attention.layer_norm_rms_epsilon", 2e-5f);
}
static void rope_base(struct gguf_build *b)
{
    gguf_build_f32(b, "llama.rope.freq_base", 10001);
}
/* The bytes of two tensors of one shape exchanged: the same set of checksums under other names. */
static void two_exchanged(struct gguf_build *b)
{
    size_t len;
    uint8_t *p = (uint8_t *)(uintptr_t)gguf_build_tensor_data(b, "blk.0.attn_norm.weight", &len);
    uint8_t *q = (uint8_t *)(uintptr_t)gguf_build_tensor_data(b, "blk.0.ffn_norm.weight", &len);
    uint8_t *keep = malloc(len);
    memcpy(keep, p, len);
    memcpy(p, q, len);
    memcpy(q, keep, len);
    free(keep);
}
static void name_of_the_model(struct gguf_build *b)
{
    gguf_build_str(b, "general.name", "another name");
}
static void padding(struct gguf_build *b)
{
    gguf_build_gap(b, 4096, 4096);
}

static void digest_changes_with_what_the_pass_reads(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        void (*change)(struct gguf_build *b);
        bool counts;
    } cases[] = {
        {"one weight", one_weight, true},
        {"one norm", one_norm, true},
        {"one bias", one_bias, true},
        {"one rope factor", one_rope_factor, true},
        {"epsilon", epsilon, true},
        {"rope base", rope_base, true},
        {"two exchanged", two_exchanged, true},
        {"name", name_of_the_model, false},
        {"padding", padding, false},
    };
    uint8_t plain[DIGEST_SIZE], got[DIGEST_SIZE];
    build_digest(tiny_model("llama"), plain);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct gguf_build *b = tiny_model("llama");
        cases[i].change(b);
        build_digest(b, got);
        if ((memcmp(got, plain, sizeof got) != 0) != cases[i].counts)
            fail_msg("%s: %s", cases[i].what, cases[i].counts ? "unseen" : "counts");
    }
}

/* A longrope file holds two models: which factors are bound hangs on the context, and a verdict on one
 * must not be found for the other, were all their values the same. */
static void digest_tells_which_longrope_factors_are_bound(void **state)
{
    (void)state;
    char *path = path_join(dir, "longrope.gguf");
    struct gguf_build *b = tiny_model("llama");
    const uint64_t n = 32; /* n_rot / 2 */
    float factor[32];
    uint8_t as_trained[DIGEST_SIZE], got[DIGEST_SIZE];
    struct err e = {0};
    for (int i = 0; i < 32; i++)
        factor[i] = 1 + (float)i / 8;
    gguf_build_str(b, "llama.rope.scaling.type", "longrope");
    gguf_build_u32(b, "llama.rope.scaling.original_context_length", 128);
    gguf_build_tensor_remove(b, "rope_freqs.weight");
    gguf_build_tensor(b, "rope_factors_short.weight", QUANT_F32, 1, &n, factor);
    gguf_build_tensor(b, "rope_factors_long.weight", QUANT_F32, 1, &n, factor);
    gguf_build_file(b, path);
    gguf_build_free(b);
    if (path_digest_ctx(path, 128, as_trained, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(path_digest_ctx(path, 64, got, &e), 0);
    assert_memory_equal(got, as_trained, sizeof got);
    assert_int_equal(path_digest_ctx(path, 129, got, &e), 0);
    assert_memory_not_equal(got, as_trained, sizeof got);
    free(path);
}

/* Where the index of an .apr has a tensor's offset: behind its name, type, rank and dimensions. */
static uint8_t *index_offset(uint8_t *file, size_t len, const char *name)
{
    size_t n = strlen(name);
    for (uint8_t *p = file + 64; (p = memmem(p, (size_t)(file + len - p), name, n)); p++)
        if (p[-2] == n && p[-1] == 0) /* the length before it: no mention in the metadata */
            return p + n + 2 + (size_t)8 * p[n + 1];
    fail_msg("'%s' is not in the index", name);
    return NULL;
}

/* An index may give one tensor the bytes of another. Whose bytes they are counts, although the list of
 * distinct bytes is the same. */
static void digest_tells_whose_bytes_a_tensor_has(void **state)
{
    (void)state;
    static const char *const whose[] = {"blk.0.ffn_up.weight", "blk.0.ffn_gate.weight"};
    uint8_t got[2][DIGEST_SIZE];
    struct gguf_build_opt o = gguf_build_defaults("llama");
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    char *gguf_path = path_join(dir, "whose.gguf");
    gguf_build_file(b, gguf_path);
    gguf_build_free(b);
    for (int i = 0; i < 2; i++) {
        char *path = convert(gguf_path, VAPR_NATIVE);
        size_t len;
        uint8_t *file = file_read(path, &len);
        memcpy(index_offset(file, len, "blk.1.ffn_up.weight"), index_offset(file, len, whose[i]),
               8);
        file_write(path, file, len);
        struct err e = {0};
        if (path_digest(path, got[i], &e) < 0)
            fail_msg("%s", e.msg);
        free(file);
        free(path);
    }
    assert_memory_not_equal(got[0], got[1], DIGEST_SIZE);
    free(gguf_path);
}

/* --- what comes with the file ----------------------------------------------------------------- */

/* A footer covers every byte: those of tensors, which are read anyway, and those that no pass reads
 * (a name in the metadata, padding, a converted copy beside the original). */
static void footer_must_agree_with_every_byte(void **state)
{
    (void)state;
    for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++) {
        char *gguf_path = path_join(dir, "foot.gguf");
        struct gguf_build *b = form(4);
        struct err e = {0};
        uint8_t digest[DIGEST_SIZE];
        gguf_build_str(b, "general.name", "Untouched");
        gguf_build_file(b, gguf_path);
        gguf_build_free(b);
        char *path = convert_with(gguf_path, (enum vapr_profile)p, VAPR_FOOTER_CRC);
        if (path_digest(path, digest, &e) < 0)
            fail_msg("%s: %s", vapr_profile_name((enum vapr_profile)p), e.msg);
        size_t len;
        uint8_t *file = file_read(path, &len);
        assert_int_equal(len % 64, 4);
        uint8_t *name = memmem(file, len, "Untouched", 9);
        assert_non_null(name);
        const size_t at[] = {(size_t)(name - file), len / 2, len - 5, len - 4, len - 1};
        for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
            file[at[i]] ^= 1;
            file_write(path, file, len);
            file[at[i]] ^= 1;
            int rc = path_digest(path, digest, &e);
            if (rc != -EUCLEAN || !strstr(e.msg, "footer CRC-32 is"))
                fail_msg("%s, byte %zu: rc %d, '%s'", vapr_profile_name((enum vapr_profile)p),
                         at[i], rc, e.msg);
        }
        free(file);
        free(path);
        free(gguf_path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digest_is_sha256_of_the_text),
        cmocka_unit_test(digest_is_the_same_in_every_form),
        cmocka_unit_test(digest_of_real_smollm2_is_the_same_in_every_profile),
        cmocka_unit_test(digest_changes_with_what_the_pass_reads),
        cmocka_unit_test(digest_tells_which_longrope_factors_are_bound),
        cmocka_unit_test(digest_tells_whose_bytes_a_tensor_has),
        cmocka_unit_test(footer_must_agree_with_every_byte),
    };
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("digest", tests, NULL, NULL);
    free(dir);
    return rc;
}
