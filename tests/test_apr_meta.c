/* APR metadata: what is written, under which name, and that the configuration comes back field for
 * field. Rules: apr-v2.md §3 and §12, arch-resolver.md §8. The original writers' files are in
 * tests/data. */
#include "format/apr_meta.h"
#include "format/apr_meta_internal.h"
#include "format/apr_read.h"
#include "format/vapr.h"
#include "tests/arch_case.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>

struct written {
    char *text;
    size_t len;
    cJSON *json;
};

/* The metadata of a resolved file; must parse by our own strict rules (no key twice). */
static struct written write_meta(const struct arch_open *a)
{
    struct written w = {0};
    struct json_out o;
    struct err e = {0};
    json_out_init(&o);
    json_open(&o, '{');
    if (apr_meta_write(&o, a->g, &a->c, &e) < 0)
        fail_msg("writing: %s", e.msg);
    json_close(&o, '}');
    assert_int_equal(o.rc, 0);
    w.text = strndup(o.p, o.len);
    w.len = o.len;
    json_out_release(&o);
    if (json_parse(&w.json, w.text, w.len, &e) < 0)
        fail_msg("parsing what was written: %s", e.msg);
    return w;
}

static void written_free(struct written *w)
{
    cJSON_Delete(w->json);
    free(w->text);
}

static void open_write(struct arch_open *a, struct written *w, const struct gguf_build *b)
{
    arch_open_build(a, b, ARCH_VALUES_REFERENCE);
    if (a->rc < 0)
        fail_msg("resolving: %s", a->e.msg);
    *w = write_meta(a);
}

static void tell(void *ctx, const char *field, const char *va, const char *vb)
{
    print_error("%s: %s: %s from the GGUF, %s from the .apr\n", (const char *)ctx, field, va, vb);
}

static void same_config(const struct arch_config *c, const cJSON *meta, const char *what)
{
    struct arch_config back;
    struct err e = {0};
    if (apr_meta_read(meta, &back, &e) < 0)
        fail_msg("%s: %s", what, e.msg);
    if (arch_config_diff(c, &back, tell, (void *)(uintptr_t)what))
        fail_msg("%s does not come back", what);
    arch_config_release(&back);
}

/* Through a whole virtual .apr: planned, opened by the APR reader, read back. */
static void same_through_vapr(const struct arch_open *a, enum vapr_profile profile,
                              enum vapr_values values, const char *what)
{
    struct vapr_options opt = {.profile = profile, .values = values};
    struct vapr *v;
    struct source *src;
    struct apr *apr;
    struct err e = {0};
    int rc = vapr_new(&v, a->g, &opt, &e);
    if (rc == -ENOTSUP && profile != VAPR_NATIVE)
        return; /* a type that this profile cannot carry: not this test's subject */
    if (rc < 0 || vapr_source(&src, v, &e) < 0 || apr_open(&apr, src, &e) < 0)
        fail_msg("%s: %s", what, e.msg);
    same_config(&a->c, apr_meta(apr), what);
    apr_close(apr);
    source_close(src);
    vapr_free(v);
}

/* --- fidelity -------------------------------------------------------------------------------- */

static void apr_meta_rebuilds_every_architecture(void **state)
{
    (void)state;
    size_t n;
    struct arch_line *l = arch_lines(&n);
    assert_int_equal(n, 153);
    for (size_t i = 0; i < n; i++) {
        struct gguf_build *b = arch_case(&l[i]);
        struct arch_open a;
        struct written w;
        open_write(&a, &w, b);
        same_config(&a.c, w.json, l[i].name);
        same_through_vapr(&a, VAPR_NATIVE, VAPR_VALUES_REFERENCE, l[i].name);
        written_free(&w);
        arch_open_release(&a);
        arch_open_build(&a, b, ARCH_VALUES_COMPAT);
        if (a.rc < 0)
            fail_msg("%s, compat: %s", l[i].name, a.e.msg);
        same_through_vapr(&a, VAPR_NATIVE, VAPR_VALUES_COMPAT, l[i].name);
        arch_open_release(&a);
        gguf_build_free(b);
    }
    arch_lines_free(l, n);
}

static void apr_meta_rebuilds_odd_values(void **state)
{
    (void)state;
    /* Per-layer counts, a window pattern, floats that need nine digits, all token ids. */
    struct gguf_build_opt o = gguf_build_defaults("gemma3");
    o.n_layer = 7;
    o.sliding_window = 9;
    o.per_layer_arrays = true;
    o.eps = 7.6543212e-6;
    struct gguf_build *b = gguf_build_llama_like("gemma3", &o);
    gguf_build_f32(b, "gemma3.rope.freq_base", 1000000.06F);
    gguf_build_f32(b, "gemma3.rope.freq_base_swa", 10000.001F);
    gguf_build_f32(b, "gemma3.rope.scaling.factor", 8.000001F);
    gguf_build_f32(b, "gemma3.rope.scaling.attn_factor", 0.3333333F);
    gguf_build_str(b, "gemma3.rope.scaling.type", "yarn");
    gguf_build_f32(b, "gemma3.final_logit_softcapping", 29.999998F);
    gguf_build_u32(b, "gemma3.attention.value_length", 16);
    gguf_build_u32(b, "tokenizer.ggml.eot_token_id", 7);
    gguf_build_u32(b, "tokenizer.ggml.eom_token_id", 8);
    gguf_build_u32(b, "tokenizer.ggml.padding_token_id", 9);
    gguf_build_bool(b, "tokenizer.ggml.add_eos_token", true);
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b);
    assert_int_equal(a.c.eom, 8);
    same_config(&a.c, w.json, "gemma3 with odd values");
    for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++)
        same_through_vapr(&a, (enum vapr_profile)p, VAPR_VALUES_REFERENCE, "odd values, vapr");
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

/* Every field alone, with a value of its own: none may hide behind another's default. */
static void apr_meta_rebuilds_every_field(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    struct arch_open a;
    arch_open_build(&a, b, ARCH_VALUES_REFERENCE);
    for (int f = 0; f < ARCH_N_FIELD; f++) {
        struct arch_config good;
        assert_int_equal(arch_config_copy(&good, &a.c), 0);
        void *p = arch_field_at(&a.c, f);
        switch (arch_fields[f].kind) {
        case ARCH_KIND_U32:
            *(uint32_t *)p += f == ARCH_F_N_LAYER || f == ARCH_F_N_ROT || f == ARCH_F_HEAD_DIM_K ||
                                      f == ARCH_F_N_EXPERT_USED
                                  ? 0 /* checked against another field */
                                  : 1;
            break;
        case ARCH_KIND_I32:
            *(int32_t *)p = *(int32_t *)p == 11 ? 12 : 11;
            break;
        case ARCH_KIND_F32:
            *(float *)p = f == ARCH_F_NORM_EPS ? 3.3e-4F : *(float *)p + 0.7F;
            break;
        case ARCH_KIND_BOOL:
            *(bool *)p = !*(bool *)p;
            break;
        case ARCH_KIND_U32S:
            (*(uint32_t **)p)[1] *= f == ARCH_F_N_HEAD_KV ? 1 : 2;
            break;
        case ARCH_KIND_U8S:
            (*(uint8_t **)p)[0] ^= 1;
            break;
        case ARCH_KIND_NORM:
            a.c.norm = ARCH_NORM_LAYER;
            break;
        case ARCH_KIND_ACT:
            a.c.act = ARCH_ACT_RELU_SQR;
            break;
        case ARCH_KIND_ROPE:
            a.c.rope = ARCH_ROPE_IMROPE;
            break;
        case ARCH_KIND_SCALING:
            a.c.scaling = ARCH_SCALING_UNKNOWN;
            break;
        }
        struct written w = write_meta(&a);
        same_config(&a.c, w.json, arch_fields[f].name);
        written_free(&w);
        arch_config_release(&a.c);
        a.c = good;
    }
    arch_open_release(&a);
    gguf_build_free(b);
}

static void check_real(const char *test, const char *file)
{
    char *path = real_model(file);
    if (!path)
        skip_because_in(test, "%s is not there", file);
    struct arch_open a;
    arch_open_path(&a, path);
    if (a.rc < 0)
        fail_msg("%s: %s", path, a.e.msg);
    double t0 = now_ms();
    struct written w = write_meta(&a);
    print_message("# %s: %zu bytes of metadata, written and parsed in %.0f ms\n", file, w.len,
                  now_ms() - t0);
    same_config(&a.c, w.json, file);
    uint64_t n;
    assert_true(json_uint(json_get(w.json, "tokenizer.vocab_size"), &n) && n == a.c.n_vocab);
    assert_int_equal(cJSON_GetArraySize(json_get(w.json, "tokenizer.vocabulary")), (int)n);
    for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++)
        same_through_vapr(&a, (enum vapr_profile)p, VAPR_VALUES_REFERENCE, file);
    written_free(&w);
    arch_open_release(&a);
    free(path);
}

static void apr_meta_rebuilds_real_smollm2(void **state)
{
    (void)state;
    check_real(__func__, REAL_SMOLLM2);
}

static void apr_meta_rebuilds_real_qwen25(void **state)
{
    (void)state;
    check_real(__func__, REAL_QWEN25);
}

static void apr_meta_rebuilds_real_gemma3(void **state)
{
    (void)state;
    check_real(__func__, REAL_GEMMA3);
}

static void apr_meta_rebuilds_a_vocabulary_alone(void **state)
{
    (void)state;
    static const char *const words[] = {"<unk>", "<s>", "</s>"};
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "falcon");
    gguf_build_str(b, "tokenizer.ggml.model", "llama");
    gguf_build_array_str(b, "tokenizer.ggml.tokens", words, 3);
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b);
    same_config(&a.c, w.json, "a vocabulary");
    assert_null(json_get(w.json, "hidden_size")); /* unknown is not 0 */
    written_free(&w);
    arch_open_release(&a);
    gguf_build_u32(b, "falcon.block_count", 3); /* layers of no width are none */
    open_write(&a, &w, b);
    assert_int_equal(a.c.n_layer, 0);
    same_config(&a.c, w.json, "a vocabulary with a block count");
    written_free(&w);
    arch_open_release(&a);
    gguf_build_u32(b, "falcon.embedding_length", 64); /* all dimensions, no tensor */
    gguf_build_u32(b, "falcon.attention.head_count", 4);
    open_write(&a, &w, b);
    assert_int_equal(a.c.n_layer, 3);
    same_config(&a.c, w.json, "dimensions without tensors");
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- names ----------------------------------------------------------------------------------- */

static double num(const cJSON *obj, const char *key)
{
    double d;
    if (!json_num(json_get(obj, key), &d))
        fail_msg("%s is no number", key);
    return d;
}

static void text_is(const cJSON *obj, const char *key, const char *want)
{
    const char *s = json_text(json_get(obj, key));
    if (!s || strcmp(s, want) != 0)
        fail_msg("%s is %s, expected %s", key, s ? s : "absent", want);
}

static void apr_meta_writes_canonical_names_once(void **state)
{
    (void)state;
    struct gguf_build_opt opt = gguf_build_defaults("qwen2");
    opt.eps = 2e-6;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &opt);
    gguf_build_str(b, "general.name", "A \"model\"");
    gguf_build_str(b, "general.license", "mit");
    gguf_build_str(b, "tokenizer.chat_template", "{{ x }}");
    gguf_build_u32(b, "general.file_type", 15);
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b);
    const cJSON *m = w.json;
    /* apr-v2.md §3.1, §3.3, §9.3, §12.2 */
    text_is(m, "architecture", "qwen2");
    text_is(m, "model_type", "qwen2");
    text_is(m, "original_format", "gguf");
    text_is(m, "name", "A \"model\"");
    text_is(m, "description", "A \"model\"");
    text_is(m, "license", "mit");
    text_is(m, "chat_template", "{{ x }}");
    text_is(m, "tokenizer.model", "gpt2");
    text_is(m, "tokenizer.model_type", "gpt2");
    assert_true(num(m, "hidden_size") == 64);
    assert_true(num(m, "num_layers") == 2);
    assert_true(num(m, "num_heads") == 4);
    assert_true(num(m, "num_kv_heads") == 2);
    assert_true(num(m, "intermediate_size") == 128);
    assert_true(num(m, "max_position_embeddings") == 256);
    assert_true(num(m, "head_dim") == 16);
    assert_true(num(m, "rope_type") == 2);
    assert_true(num(m, "rope_theta") == 10000);
    assert_true((float)num(m, "rms_norm_eps") == 2e-6F);
    assert_true(num(m, "general.file_type") == 15);
    assert_true(num(m, "tokenizer.vocab_size") ==
                cJSON_GetArraySize(json_get(m, "tokenizer.vocabulary")));
    assert_true(cJSON_IsArray(json_get(m, "tokenizer.merges")));
    assert_true(cJSON_IsArray(json_get(m, "tokenizer.token_type")));
    assert_true(cJSON_IsArray(json_get(m, "aprfs.unsupported")));
    assert_true(cJSON_IsBool(json_get(m, "tokenizer.add_bos_token")));
    /* Other spellings of the same (§3.1: an alias beside a key empties the metadata), and GGUF
     * names of what has a canonical one. */
    static const char *const never[] = {"hidden_dim",
                                        "d_model",
                                        "n_embd",
                                        "n_layers",
                                        "num_hidden_layers",
                                        "n_layer",
                                        "n_heads",
                                        "num_attention_heads",
                                        "n_head",
                                        "n_kv_heads",
                                        "num_key_value_heads",
                                        "n_vocab",
                                        "ffn_dim",
                                        "intermediate_dim",
                                        "n_inner",
                                        "max_seq_len",
                                        "context_length",
                                        "n_ctx",
                                        "layer_norm_eps",
                                        "norm_eps",
                                        "tensor_shapes",
                                        "model.architecture",
                                        "tied_embeddings",
                                        "quantization",
                                        "qwen2.embedding_length",
                                        "qwen2.block_count",
                                        "qwen2.attention.head_count",
                                        "tokenizer.ggml.tokens",
                                        "tokenizer.ggml.merges",
                                        "tokenizer.ggml.model",
                                        "num_experts",
                                        "aprfs.profile",
                                        "aprfs.raw",
                                        "aprfs.builder",
                                        "aprfs.values",
                                        "aprfs.notes"};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        if (json_get(m, never[i]))
            fail_msg("%s is there", never[i]);
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void apr_meta_passes_keys_through_with_their_type(void **state)
{
    (void)state;
    static const float fs[3] = {1.5F, -0.1F, 3e38F};
    static const int64_t is[2] = {INT64_MIN, INT64_MAX};
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    gguf_build_u64(b, "x.u64", UINT64_MAX);
    gguf_build_i64(b, "x.i64", INT64_MIN);
    gguf_build_i8(b, "x.i8", -128);
    gguf_build_bool(b, "x.bool", true);
    gguf_build_f64(b, "x.f64", 0.1);
    gguf_build_f32(b, "x.f32", 0.1F);
    gguf_build_str(b, "x.str", "\xc3\xa9\t\"\\");
    gguf_build_array(b, "x.floats", 6, fs, 3);
    gguf_build_array(b, "x.ints", 11, is, 2);
    gguf_build_array(b, "x.empty", 4, is, 0);
    gguf_build_f32(b, "llama.attention.layer_norm_epsilon", 1e-5F); /* equal to the RMS one */
    gguf_build_u32(b, "llama.attention.sliding_window", 7);
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b);
    static const char *const want[] = {"\"x.u64\":18446744073709551615",
                                       "\"x.i64\":-9223372036854775808",
                                       "\"x.i8\":-128",
                                       "\"x.bool\":true",
                                       "\"x.f64\":0.1",
                                       "\"x.f32\":0.1",
                                       "\"x.str\":\"\xc3\xa9\\t\\\"\\\\\"",
                                       "\"x.floats\":[1.5,-0.1,3e+38]",
                                       "\"x.ints\":[-9223372036854775808,9223372036854775807]",
                                       "\"x.empty\":[]",
                                       "\"llama.attention.layer_norm_epsilon\":1e-05",
                                       "\"llama.attention.sliding_window\":7"};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        if (!strstr(w.text, want[i]))
            fail_msg("no %s", want[i]);
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void apr_meta_keeps_hostile_names_apart(void **state)
{
    (void)state;
    /* Names that a reader would take for something else, that collide, or that are no text. */
    static const char *const bad[] = {"hidden_size",
                                      "num_hidden_layers",
                                      "n_embd",
                                      "architecture",
                                      "aprfs.profile",
                                      "aprfs.config",
                                      "aprfs.raw",
                                      "quantization",
                                      "tokenizer.vocabulary",
                                      "tokenizer.bos_token_id",
                                      "gguf.key.3",
                                      "model.architecture",
                                      "special_tokens",
                                      "sharding",
                                      "tied_embeddings",
                                      "model_config"};
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        gguf_build_u32(b, bad[i], 424242);
    gguf_build_u32(b, "a.\xff", 424242); /* two names that both become "a.U+FFFD" */
    gguf_build_u32(b, "a.\xfe", 424242);
    gguf_build_u32(b, "a.\xef\xbf\xbd", 424243);
    gguf_build_u32(b, "a.\"quoted\\\x01", 424244);
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b); /* parses: no name twice */
    same_config(&a.c, w.json, "hostile names");
    size_t renamed = 0;
    for (const cJSON *m = w.json->child; m; m = m->next) {
        double d;
        if (!json_num(m, &d) || d != 424242)
            continue;
        renamed++;
        assert_memory_equal(m->string, "gguf.key.", 9);
    }
    assert_int_equal(renamed, sizeof bad / sizeof bad[0] + 2);
    assert_true(num(w.json, "a.\xef\xbf\xbd") == 424243);
    assert_true(num(w.json, "a.\"quoted\\\x01") == 424244);
    assert_true(num(w.json, "hidden_size") == 64);
    assert_int_equal(cJSON_GetArraySize(json_get(w.json, "aprfs.notes")), renamed);
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

/* No note is lost without a word, however many a file asks for. */
static void apr_meta_counts_the_notes_it_leaves_out(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    char name[32];
    for (int i = 0; i < 70; i++) {
        snprintf(name, sizeof name, "nodot%d", i);
        gguf_build_u32(b, name, 1);
    }
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b);
    const cJSON *v = json_get(w.json, "aprfs.notes");
    assert_int_equal(cJSON_GetArraySize(v), 65);
    assert_string_equal(cJSON_GetArrayItem(v, 64)->valuestring, "and 6 more notes");
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void apr_meta_replaces_what_json_cannot_say(void **state)
{
    (void)state;
    static const float odd[3] = {INFINITY, -INFINITY, NAN};
    /* Array of strings as it stands in the file: u32 type, u64 count, strings. */
    static const char raw[] = "\x08\0\0\0\x03\0\0\0\0\0\0\0"
                              "\x02\0\0\0\0\0\0\0\xff"
                              "a"
                              "\x03\0\0\0\0\0\0\0b\0c"
                              "\x01\0\0\0\0\0\0\0d";
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_str(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_raw(b, "tokenizer.ggml.tokens", 9, raw, sizeof raw - 1);
    gguf_build_array(b, "x.odd", 6, odd, 3);
    gguf_build_f32(b, "x.minus", -INFINITY);
    gguf_build_strn(b, "x.nul", "a\0b", 3);
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b);
    const cJSON *v = json_get(w.json, "tokenizer.vocabulary");
    assert_int_equal(cJSON_GetArraySize(v), 3);
    assert_string_equal(cJSON_GetArrayItem(v, 0)->valuestring, "\xef\xbf\xbd"
                                                               "a");
    assert_string_equal(cJSON_GetArrayItem(v, 1)->valuestring, "b\xef\xbf\xbd"
                                                               "c");
    assert_string_equal(cJSON_GetArrayItem(v, 2)->valuestring, "d");
    text_is(w.json, "x.minus", "-inf");
    text_is(w.json, "x.nul",
            "a\xef\xbf\xbd"
            "b");
    assert_non_null(strstr(w.text, "\"x.odd\":[\"inf\",\"-inf\",\"nan\"]"));
    assert_int_equal(cJSON_GetArraySize(json_get(w.json, "aprfs.notes")), 4);
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void apr_meta_says_quantization_only_if_true(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.n_embd = 256;
    o.n_ff = 256;
    o.type = 12;
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b);
    const cJSON *q = json_get(w.json, "quantization");
    text_is(q, "quant_type", "Q4_K");
    assert_true(num(q, "bits") == 4);
    assert_true(cJSON_IsFalse(json_get(q, "symmetric"))); /* it has minima */
    assert_int_equal(cJSON_GetArraySize(q), 3);
    written_free(&w);
    arch_open_release(&a);
    gguf_build_tensor_retype(b, "blk.0.ffn_down.weight", 14); /* a mix: no one word is true */
    open_write(&a, &w, b);
    assert_null(json_get(w.json, "quantization"));
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

static bool lists(const cJSON *array, const char *word)
{
    for (const cJSON *i = array ? array->child : NULL; i; i = i->next)
        if (json_text(i) && strcmp(json_text(i), word) == 0)
            return true;
    return false;
}

static void apr_meta_lists_what_original_readers_ignore(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b);
    assert_int_equal(cJSON_GetArraySize(json_get(w.json, "aprfs.unsupported")), 0);
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);

    struct gguf_build_opt o = gguf_build_defaults("gemma3");
    o.sliding_window = 8;
    b = gguf_build_llama_like("gemma3", &o);
    gguf_build_f32(b, "gemma3.rope.scaling.factor", 8);
    open_write(&a, &w, b);
    const cJSON *u = json_get(w.json, "aprfs.unsupported");
    /* arch-resolver.md §7, "not represented at all" and points 8 and 11 */
    static const char *const want[] = {"sliding_window", "rope:scaling",
                                       "embed_scale",    "post_norms",
                                       "qk_norm",        "gemma3.attention.sliding_window"};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        if (!lists(u, want[i]))
            fail_msg("%s is not listed", want[i]);
    assert_false(lists(u, "final_softcap"));
    assert_false(lists(u, "rope:partial"));
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- reading --------------------------------------------------------------------------------- */

static cJSON *parse(const char *text)
{
    cJSON *v;
    struct err e = {0};
    if (json_parse(&v, text, strlen(text), &e) < 0)
        fail_msg("%s: %s", text, e.msg);
    return v;
}

static void read_refused(const char *text, int rc, const char *says)
{
    struct arch_config c;
    struct err e = {0};
    cJSON *v = parse(text);
    int got = apr_meta_read(v, &c, &e);
    if (got != rc || !strstr(e.msg, says))
        fail_msg("%s: expected %s \"%s\", got %d \"%s\"", text, err_name(rc), says, got, e.msg);
    assert_null(c.n_head);
    cJSON_Delete(v);
}

#define DIMS "\"hidden_size\":64,\"num_layers\":2,\"num_heads\":4,\"intermediate_size\":128"

static void apr_meta_read_names_what_is_missing(void **state)
{
    (void)state;
    read_refused("{}", -ENOENT, "architecture");
    read_refused("{\"architecture\":null," DIMS "}", -ENOENT, "architecture");
    read_refused("{\"architecture\":\"llama\"}", -ENOENT, "num_layers");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":2}", -ENOENT, "hidden_size");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":2,\"hidden_size\":64}", -ENOENT,
                 "num_heads");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":2,\"hidden_size\":64,\"num_heads\":4}",
                 -ENOENT, "intermediate_size");
}

static void apr_meta_read_refuses_wrong_types(void **state)
{
    (void)state;
    /* apr-v2.md §3.1: types are strict */
    read_refused("{\"architecture\":\"llama\",\"num_layers\":2.5}", -EUCLEAN, "num_layers");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":\"2\"}", -EUCLEAN, "num_layers");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":-2}", -EUCLEAN, "num_layers");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":5000}", -ERANGE, "num_layers");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"rms_norm_eps\":\"x\"}", -EUCLEAN,
                 "rms_norm_eps");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"rms_norm_eps\":1e-11}", -ENOTSUP,
                 "epsilon");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"rope_theta\":0}", -ENOTSUP, "rope_theta");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"rope_type\":1}", -EUCLEAN, "rope_type");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"num_kv_heads\":3}", -EUCLEAN, "heads");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"hidden_dim\":65}", -EUCLEAN, "disagree");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"aprfs.config\":[]}", -EUCLEAN,
                 "aprfs.config");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"tokenizer.bos_token_id\":-2}", -EUCLEAN,
                 "bos_token_id");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"vocab_size\":4294967296}", -EUCLEAN,
                 "vocab_size");
    read_refused("{\"architecture\":\"llama\",\"hidden_size\":0,\"num_layers\":2,\"num_heads\":4,"
                 "\"intermediate_size\":128}",
                 -EUCLEAN, "embedding_length");
}

static void apr_meta_read_of_ours_needs_every_field(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b);
    cJSON *config = cJSON_GetObjectItemCaseSensitive(w.json, "aprfs.config");
    int n = cJSON_GetArraySize(config);
    assert_true(n > 30);
    for (int i = 0; i < n; i++) {
        cJSON *copy = cJSON_Duplicate(w.json, 1);
        cJSON *cc = cJSON_GetObjectItemCaseSensitive(copy, "aprfs.config");
        char name[64];
        struct arch_config c;
        struct err e = {0};
        snprintf(name, sizeof name, "%s", cJSON_GetArrayItem(config, i)->string);
        cJSON_DeleteItemFromArray(cc, i);
        int rc = apr_meta_read(copy, &c, &e); /* what has a canonical key may stand there */
        if (rc != -ENOENT)
            fail_msg("without %s: %d %s", name, rc, e.msg);
        cJSON_AddStringToObject(cc, name, "?");
        rc = apr_meta_read(copy, &c, &e);
        if (rc != -EUCLEAN || !strstr(e.msg, name))
            fail_msg("%s = \"?\": %d %s", name, rc, e.msg);
        cJSON_Delete(copy);
    }
    static const char *const need[] = {"hidden_size", "num_layers", "rope_type", "rms_norm_eps",
                                       "rope_theta",  "head_dim",   "vocab_size"};
    for (size_t i = 0; i < sizeof need / sizeof need[0]; i++) {
        cJSON *copy = cJSON_Duplicate(w.json, 1);
        struct arch_config c;
        struct err e = {0};
        cJSON_DeleteItemFromObjectCaseSensitive(copy, need[i]);
        assert_int_equal(apr_meta_read(copy, &c, &e), -ENOENT);
        assert_non_null(strstr(e.msg, need[i]));
        cJSON_Delete(copy);
    }
    static const char *const twice[] = {"n_layer", "n_embd", "norm_eps", "bos", "add_bos", "n_ff"};
    for (size_t i = 0; i < sizeof twice / sizeof twice[0]; i++) { /* beside the canonical key */
        cJSON *copy = cJSON_Duplicate(w.json, 1);
        struct arch_config c;
        struct err e = {0};
        cJSON *cc = cJSON_GetObjectItemCaseSensitive(copy, "aprfs.config");
        if (strcmp(twice[i], "add_bos") == 0)
            cJSON_AddBoolToObject(cc, twice[i], true);
        else
            cJSON_AddNumberToObject(cc, twice[i], 1);
        assert_int_equal(apr_meta_read(copy, &c, &e), -EUCLEAN);
        assert_non_null(strstr(e.msg, twice[i]));
        cJSON_Delete(copy);
    }
    cJSON *copy = cJSON_Duplicate(w.json, 1), *cc;
    cc = cJSON_GetObjectItemCaseSensitive(copy, "aprfs.config");
    cJSON_AddNumberToObject(cc, "attn_temperature", 3.5); /* what some later builder may write */
    struct err later = {0};
    assert_int_equal(apr_meta_read(copy, &(struct arch_config){0}, &later), -ENOTSUP);
    assert_non_null(strstr(later.msg, "aprfs.config.attn_temperature"));
    cJSON_Delete(copy);
    cJSON_AddStringToObject(config, "rope", "neox"); /* beside rope_type 0 */
    struct arch_config c;
    struct err e = {0};
    assert_int_equal(apr_meta_read(w.json, &c, &e), -EUCLEAN);
    assert_non_null(strstr(e.msg, "disagree"));
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

static struct apr *open_fixture(const char *name, struct source **src)
{
    char *path = path_join("tests/data", name);
    struct apr *a;
    struct err e = {0};
    if (source_open(src, path, &e) < 0 || apr_open(&a, *src, &e) < 0)
        fail_msg("%s: %s", path, e.msg);
    free(path);
    return a;
}

static void apr_meta_reads_the_original_writers(void **state)
{
    (void)state;
    struct source *src;
    struct arch_config c;
    struct err e = {0};
    struct apr *a = open_fixture("aprender-writer.apr", &src);
    assert_int_equal(apr_meta_read(apr_meta(a), &c, &e), 0);
    assert_string_equal(c.arch, "llama"); /* the numbers: its JSON, as it stands in the file */
    assert_int_equal(c.n_embd, 256);
    assert_int_equal(c.n_layer, 1);
    assert_int_equal(c.n_head[0], 4);
    assert_int_equal(c.n_head_kv[0], 2);
    assert_int_equal(c.n_vocab, 4);
    assert_int_equal(c.n_ff[0], 256);
    assert_int_equal(c.n_ctx_train, 64);
    assert_int_equal(c.head_dim_k, 64);
    assert_int_equal(c.rope, ARCH_ROPE_NORM);
    assert_true(c.rope_theta == 10000 && c.norm_eps == 1e-5F);
    assert_int_equal(c.bos, 1);
    assert_int_equal(c.eos, 2);
    arch_config_release(&c);
    apr_close(a);
    source_close(src);

    a = open_fixture("q4k-converter-output.apr", &src); /* Hugging Face's spellings */
    assert_int_equal(apr_meta_read(apr_meta(a), &c, &e), 0);
    assert_int_equal(c.n_layer, 1);
    assert_int_equal(c.n_head[0], 4);
    assert_int_equal(c.n_head_kv[0], 2);
    /* The same GGUF through our resolver: what both carry is equal (arch-resolver.md §3). */
    struct arch_open o;
    arch_open_path(&o, "tests/data/q4k-converter-input.gguf");
    assert_int_equal(o.rc, 0);
    static const enum arch_fid same[] = {
        ARCH_F_N_EMBD,     ARCH_F_N_LAYER,    ARCH_F_N_HEAD, ARCH_F_N_HEAD_KV,  ARCH_F_N_VOCAB,
        ARCH_F_N_FF,       ARCH_F_HEAD_DIM_K, ARCH_F_ROPE,   ARCH_F_ROPE_THETA, ARCH_F_NORM_EPS,
        ARCH_F_ATTN_SCALE, ARCH_F_N_CTX,      ARCH_F_BOS,    ARCH_F_EOS};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        if (!arch_field_equal(&c, &o.c, same[i]))
            fail_msg("%s differs", arch_fields[same[i]].name);
    arch_open_release(&o);
    arch_config_release(&c);
    apr_close(a);
    source_close(src);

    a = open_fixture("tiny.apr", &src); /* all dimensions null */
    assert_int_equal(apr_meta_read(apr_meta(a), &c, &e), -ENOENT);
    assert_non_null(strstr(e.msg, "num_layers"));
    apr_close(a);
    source_close(src);
}

static void apr_meta_fills_others_files_from_the_row(void **state)
{
    (void)state;
    struct arch_config c;
    struct err e = {0};
    cJSON *v = parse("{\"architecture\":\"gemma2\",\"num_hidden_layers\":2,\"d_model\":64,"
                     "\"n_head\":4,\"ffn_dim\":128,\"n_ctx\":100,\"head_dim\":32,\"n_vocab\":9}");
    assert_int_equal(apr_meta_read(v, &c, &e), 0);
    assert_true(c.norm_eps == 1e-6F);                        /* §8.3 */
    assert_int_equal(c.rope, ARCH_ROPE_NEOX);                /* the row */
    assert_true(c.embed_scale == 8 && c.attn_softcap == 50); /* the row */
    assert_int_equal(c.n_head_kv[0], 4);                     /* as many as heads */
    assert_int_equal(c.head_dim_k, 32);                      /* not n_embd / n_head */
    assert_int_equal(c.act, ARCH_ACT_GELU);
    assert_int_equal(c.sliding_window, 4096);
    assert_int_equal(c.n_vocab, 9);
    arch_config_release(&c);
    cJSON_Delete(v);
    v = parse("{\"architecture\":\"qwen2\"," DIMS "}"); /* their readers take 1e6 (§1) */
    assert_int_equal(apr_meta_read(v, &c, &e), 0);
    assert_true(c.rope_theta == 1e6F && c.rope_theta_swa == 1e6F && c.norm_eps == 1e-6F);
    arch_config_release(&c);
    cJSON_Delete(v);
    v = parse("{\"model_type\":\"llama\"," DIMS ",\"rope_type\":2}");
    assert_int_equal(apr_meta_read(v, &c, &e), 0);
    assert_int_equal(c.rope, ARCH_ROPE_NEOX); /* the key, not the row */
    arch_config_release(&c);
    cJSON_Delete(v);
    v = parse("{\"architecture\":\"neverheard\"," DIMS "}");
    assert_int_equal(apr_meta_read(v, &c, &e), 0);
    assert_false(c.known);
    arch_config_release(&c);
    cJSON_Delete(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apr_meta_rebuilds_every_architecture),
        cmocka_unit_test(apr_meta_rebuilds_odd_values),
        cmocka_unit_test(apr_meta_rebuilds_every_field),
        cmocka_unit_test(apr_meta_rebuilds_real_smollm2),
        cmocka_unit_test(apr_meta_rebuilds_real_qwen25),
        cmocka_unit_test(apr_meta_rebuilds_real_gemma3),
        cmocka_unit_test(apr_meta_rebuilds_a_vocabulary_alone),
        cmocka_unit_test(apr_meta_writes_canonical_names_once),
        cmocka_unit_test(apr_meta_passes_keys_through_with_their_type),
        cmocka_unit_test(apr_meta_keeps_hostile_names_apart),
        cmocka_unit_test(apr_meta_counts_the_notes_it_leaves_out),
        cmocka_unit_test(apr_meta_replaces_what_json_cannot_say),
        cmocka_unit_test(apr_meta_says_quantization_only_if_true),
        cmocka_unit_test(apr_meta_lists_what_original_readers_ignore),
        cmocka_unit_test(apr_meta_read_names_what_is_missing),
        cmocka_unit_test(apr_meta_read_refuses_wrong_types),
        cmocka_unit_test(apr_meta_read_of_ours_needs_every_field),
        cmocka_unit_test(apr_meta_reads_the_original_writers),
        cmocka_unit_test(apr_meta_fills_others_files_from_the_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
