/* APR metadata: what is written, under which name, and that the configuration comes back field for
 * field. Rules: apr-v2.md §3 and §12, arch-resolver.md §8. Refusals are test_apr_meta_read.c's. */
#include "format/apr_meta.h"
#include "format/apr_meta_internal.h"
#include "format/apr_read.h"
#include "format/vapr.h"
#include "tests/apr_meta_support.h"
#include "tests/arch_case.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
