/* The resolver: the table of architectures, dimensions, refusals, what decides by being there.
 * Expectations come from tests/data/arch-table.tsv (facts of llama.cpp 0c1e570), from arch-resolver.md
 * by section, or are computed by hand beside the number. */
#include "format/arch_internal.h"
#include "tests/arch_case.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>

/* --- the table ---------------------------------------------------------------------------- */

static void arch_table_has_every_architecture(void **state)
{
    (void)state;
    size_t n;
    struct arch_line *l = arch_lines(&n);
    assert_int_equal(n, 153);
    assert_int_equal(arch_n_row, 153);
    for (size_t i = 0; i < n; i++) {
        const struct arch_row *row = arch_row_find(l[i].name);
        if (!row || strcmp(row->name, l[i].name) != 0)
            fail_msg("no row %s", l[i].name);
    }
    for (size_t i = 1; i < arch_n_row; i++) /* the lookup bisects */
        assert_true(strcmp(arch_rows[i - 1].name, arch_rows[i].name) < 0);
    arch_lines_free(l, n);
}

static void arch_table_lists_the_keys_of_every_architecture(void **state)
{
    (void)state;
    size_t n;
    struct arch_line *l = arch_lines(&n);
    for (size_t i = 0; i < n; i++) {
        const struct arch_row *row = arch_row_find(l[i].name);
        char *list;
        assert_true(asprintf(&list, "%s,%s", l[i].required, l[i].optional) > 0);
        for (char *save, *k = strtok_r(list, ",", &save); k; k = strtok_r(NULL, ",", &save)) {
            bool phi3 = strcmp(l[i].name, "phi3") == 0; /* reads the window, then switches it off */
            if (strcmp(k, "-") != 0 && !phi3 && !arch_general_key(k, strlen(k)) &&
                !arch_row_reads(row, k, strlen(k), NULL) && strcmp(l[i].name, "ernie4_5") != 0 &&
                strcmp(l[i].name, "paddleocr") != 0)
                fail_msg("row %s does not know key %s", l[i].name, k);
        }
        free(list);
    }
    arch_lines_free(l, n);
}

/* A name of this pairing in the table's words, by what decides it in the file (sections: "4,4"). */
static const char *expected_rope(const struct arch_line *l, bool sections)
{
    if (!strchr(l->rope, '|'))
        return l->rope;
    if (sections)
        return "MROPE";
    return arch_list_has(l->rope, "NEOX") ? "NEOX" : "NORM"; /* dflash: NEOX without hc */
}

static const char *rope_word(enum arch_rope r)
{
    static const char *const words[] = {"NONE", "NORM", "NEOX", "MROPE", "IMROPE"};
    return words[r];
}

static void arch_pairs_as_reference_for_every_architecture(void **state)
{
    (void)state;
    static const int32_t sections[4] = {4, 4, 0, 0};
    static const char *const scalings[] = {"linear", "yarn", "none", "neox"};
    size_t n;
    struct arch_line *l = arch_lines(&n);
    for (size_t i = 0; i < n; i++)
        for (int with = 0; with < 2; with++) {
            struct gguf_build *b = arch_case(&l[i]);
            if (with)
                gguf_build_array(b, arch_name(l[i].name, "rope.dimension_sections"), 5, sections,
                                 4);
            else if (strchr(l[i].rope, '|'))
                gguf_build_remove(b, arch_name(l[i].name, "rope.dimension_sections"));
            if (strcmp(l[i].name, "dflash") == 0)
                gguf_build_remove(b, arch_name(l[i].name, "hyper_connection.count"));
            gguf_build_str(b, arch_name(l[i].name, "rope.scaling.type"), scalings[i % 4]);
            struct arch_open a = arch_open_good(b);
            if (strcmp(rope_word(a.c.rope), expected_rope(&l[i], with)) != 0)
                fail_msg("%s pairs %s, expected %s", l[i].name, rope_word(a.c.rope),
                         expected_rope(&l[i], with));
            assert_true(a.c.known);
            bool split = a.c.rope != ARCH_ROPE_NORM && a.c.rope != ARCH_ROPE_NONE;
            assert_string_equal(arch_open_field(&a, "rope_type")->stamped, split ? "2" : "0");
            arch_open_release(&a);
            gguf_build_free(b);
        }
    arch_lines_free(l, n);
}

static void arch_rope_dflash_follows_hyper_connections(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("dflash");
    gguf_build_u32(b, "dflash.hyper_connection.count", 4);
    gguf_build_u32(b, "dflash.attention.sliding_window", 8);
    gguf_build_array(b, "dflash.attention.sliding_window_pattern", 7, "\1\0", 2);
    struct arch_open a = arch_open_good(b);
    assert_int_equal(a.c.rope, ARCH_ROPE_NORM); /* llama_model_rope_type(), case LLM_ARCH_DFLASH */
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- dimensions ---------------------------------------------------------------------------- */

static void arch_takes_every_integer_type(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("llama");
    gguf_build_u8(b, "llama.block_count", 2);
    gguf_build_i16(b, "llama.embedding_length", 64);
    gguf_build_u64(b, "llama.attention.head_count", 4);
    gguf_build_i64(b, "llama.attention.head_count_kv", 2);
    gguf_build_i8(b, "llama.context_length", 100);
    gguf_build_u16(b, "llama.feed_forward_length", 128);
    struct arch_open a = arch_open_good(b);
    assert_int_equal(a.c.n_layer, 2);
    assert_int_equal(a.c.n_embd, 64);
    assert_int_equal(a.c.n_head[1], 4);
    assert_int_equal(a.c.n_head_kv[1], 2);
    assert_int_equal(a.c.n_ctx_train, 100);
    arch_open_release(&a);
    gguf_build_i32(b, "llama.attention.head_count", -4);
    arch_refused(b, -EUCLEAN, "llama.attention.head_count");
    b = arch_model("llama");
    gguf_build_f32(b, "llama.block_count", 2);
    arch_refused(b, -EUCLEAN, "llama.block_count is no integer");
}

static void arch_takes_per_layer_arrays(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("openelm");
    static const uint32_t heads[2] = {4, 8}, kv[2] = {2, 4}, ff[2] = {128, 128};
    gguf_build_array(b, "openelm.attention.head_count", 4, heads, 2);
    gguf_build_array(b, "openelm.attention.head_count_kv", 4, kv, 2);
    gguf_build_array(b, "openelm.feed_forward_length", 4, ff, 2);
    gguf_build_u32(b, "openelm.attention.key_length", 16);
    gguf_build_u32(b, "openelm.attention.value_length", 16);
    gguf_build_tensor_remove(b, "blk.1.attn_k.weight");
    gguf_build_tensor_2d(b, "blk.1.attn_k.weight", 0, 64, 64);
    struct arch_open a = arch_open_good(b);
    assert_int_equal(a.c.n_head[0], 4);
    assert_int_equal(a.c.n_head[1], 8);
    assert_int_equal(a.c.n_head_kv[1], 4);
    assert_string_equal(arch_open_field(&a, "num_heads")->stamped, "[4,8]");
    arch_open_release(&a);
    gguf_build_array(b, "openelm.attention.head_count", 4, heads, 1);
    arch_refused(b, -EUCLEAN, "1 elements for 2 layers");
}

static void arch_dimensions_must_fit_the_tensors(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("llama");
    gguf_build_u32(b, "llama.embedding_length", 65);
    arch_refused(b, -EUCLEAN, "token_embd.weight");
    b = arch_model("llama");
    gguf_build_u32(b, "llama.attention.key_length", 17);
    arch_refused(b, -EUCLEAN, "attn_k.weight");
    b = arch_model("llama");
    gguf_build_u32(b, "llama.feed_forward_length", 100); /* the shape is taken, and said */
    struct arch_open a = arch_open_good(b);
    assert_int_equal(a.c.n_ff[0], 128);
    assert_true(arch_open_noted(&a, "feed_forward_length is 100"));
    arch_open_release(&a);
    gguf_build_u32(b, "llama.vocab_size", 7); /* the embedding's rows are authoritative (§8.9) */
    a = arch_open_good(b);
    assert_true(a.c.n_vocab > 7);
    assert_true(arch_open_noted(&a, "vocab_size is 7"));
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_refuses_missing_and_zero_dimensions(void **state)
{
    (void)state;
    static const char *const need[] = {"block_count", "embedding_length", "attention.head_count"};
    for (size_t i = 0; i < 3; i++) {
        struct gguf_build *b = arch_model("qwen3");
        gguf_build_remove(b, arch_name("qwen3", need[i]));
        arch_refused(b, -EUCLEAN, need[i]);
        b = arch_model("qwen3");
        gguf_build_u32(b, arch_name("qwen3", need[i]), 0);
        arch_refused(b, -EUCLEAN, i == 2 ? "no heads" : i == 1 ? "token_embd" : "block_count");
    }
    struct gguf_build *b = arch_model("llama");
    gguf_build_remove(b, "general.architecture");
    arch_refused(b, -EUCLEAN, "general.architecture is missing");
    b = arch_model("llama");
    gguf_build_u32(b, "general.architecture", 1);
    arch_refused(b, -EUCLEAN, "general.architecture");
    b = arch_model("llama");
    gguf_build_str(b, "general.architecture", "");
    arch_refused(b, -EUCLEAN, "general.architecture");
    b = arch_model("llama");
    gguf_build_str(b, "general.architecture", "lla\nma");
    arch_refused(b, -EUCLEAN, "general.architecture");
    b = arch_model("llama");
    gguf_build_str(b, "general.architecture",
                   "a-name-of-sixty-four-bytes-which-is-one-more-than-what-we-accept");
    arch_refused(b, -EUCLEAN, "general.architecture");
}

/* Files of other kinds, and architectures newer than the table. */
static void arch_without_a_row_is_taken_or_refused_by_name(void **state)
{
    (void)state;
    static const char *const other[] = {"flux", "clip"};
    for (size_t i = 0; i < 2; i++) {
        struct gguf_build *b = gguf_build_new(3, 1);
        gguf_build_str(b, "general.architecture", other[i]);
        gguf_build_tensor_1d(b, "some.weight", 0, 32);
        arch_refused(b, -ENOTSUP, "no language model we know");
    }
    struct gguf_build *b = arch_model("neverheard");
    gguf_build_u32(b, "neverheard.attention.key_length", 17); /* its own idea of a head */
    struct arch_open a = arch_open_good(b);
    assert_false(a.c.known);
    assert_int_equal(a.c.head_dim_k, 17);
    arch_open_release(&a);
    gguf_build_remove(b, "neverheard.attention.head_count");
    gguf_build_remove(b, "neverheard.attention.head_count_kv");
    arch_refused(b, -EUCLEAN, "no heads");
}

static void arch_refuses_what_is_over_the_limits(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint64_t v;
    } t[] = {{"block_count", 4097},
             {"block_count", UINT64_C(1) << 40},
             {"embedding_length", 16777217},
             {"attention.head_count", 65537},
             {"attention.head_count_kv", 65537},
             {"feed_forward_length", 16777217},
             {"attention.key_length", 65537},
             {"attention.value_length", 65537},
             {"rope.dimension_count", 65537},
             {"context_length", UINT64_C(1) << 31},
             {"expert_count", 65537},
             {"rope.scaling.original_context_length", UINT64_C(1) << 31}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct gguf_build *b = arch_model("llama");
        gguf_build_u64(b, arch_name("llama", t[i].key), t[i].v);
        arch_refused(b, -ERANGE, t[i].key);
    }
    struct gguf_build *b = arch_model("llama");
    gguf_build_u32(b, "llama.attention.head_count", 3); /* 3 heads over 2 */
    arch_refused(b, -EUCLEAN, "over 2 key/value heads");
    b = arch_model("llama");
    gguf_build_u32(b, "llama.expert_count", 4);
    gguf_build_u32(b, "llama.expert_used_count", 5);
    arch_refused(b, -EUCLEAN, "5 experts used of 4");
    b = arch_model("llama");
    gguf_build_u32(b, "llama.nextn_predict_layers", 3);
    arch_refused(b, -ERANGE, "nextn_predict_layers");
}

static void arch_notes_what_the_rust_gates_refuse(void **state)
{
    (void)state;
    /* arch-resolver.md §4: hidden 65536, layers 256, heads 256, vocab 1e6, ffn 262144, context
     * 2097152, theta 1..1e8; hidden divisible by heads. At the bound: no note. */
    static const struct {
        const char *key, *name;
        uint32_t at, over;
    } t[] = {{"embedding_length", "hidden_size 65537", 65536, 65537},
             {"block_count", "num_layers 257", 256, 257},
             {"attention.head_count", "num_heads 512", 256, 512},
             {"vocab_size", "vocab_size 1000001", 1000000, 1000001},
             {"feed_forward_length", "intermediate_size 262145", 262144, 262145},
             {"context_length", "max_position_embeddings 2097153", 2097152, 2097153},
             {"rope.freq_base", "rope_theta 200000000", 100000000, 200000000}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        for (int over = 0; over < 2; over++) {
            struct gguf_build *b = gguf_build_new(3, 1); /* no tensors: any numbers fit */
            gguf_build_str(b, "general.architecture", "llama");
            gguf_build_u32(b, "llama.embedding_length", 512);
            gguf_build_u32(b, "llama.block_count", 2);
            gguf_build_u32(b, "llama.attention.head_count", 4);
            gguf_build_u32(b, "llama.attention.key_length", 16);
            gguf_build_u32(b, "llama.attention.value_length", 16);
            gguf_build_u32(b, arch_name("llama", t[i].key), over ? t[i].over : t[i].at);
            struct arch_open a = arch_open_good(b);
            if (arch_open_noted(&a, t[i].name) != over)
                fail_msg("%s, %s the bound", t[i].name, over ? "over" : "at");
            arch_open_release(&a);
            gguf_build_free(b);
        }
    struct gguf_build_opt o = gguf_build_defaults("qwen3");
    o.n_head = 6;
    o.n_head_kv = 2;
    o.head_dim = 16;
    struct gguf_build *b = gguf_build_llama_like("qwen3", &o); /* 64 wide */
    struct arch_open a = arch_open_good(b);
    assert_true(arch_open_noted(&a, "no multiple of 6 heads"));
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- presence, tokens, unread keys ---------------------------------------------------------- */

static void arch_presence_decides(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("qwen2");
    o.untied = true;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &o);
    struct arch_open a = arch_open_good(b);
    assert_false(a.c.tied_head);
    assert_true(a.c.qkv_bias);
    assert_false(a.c.qk_norm || a.c.post_norms || a.c.fused_qkv || a.c.fused_gate_up);
    assert_true(a.c.ffn_gated);
    arch_open_release(&a);
    gguf_build_tensor_remove(b, "output.weight");
    a = arch_open_good(b);
    assert_true(a.c.tied_head);
    /* §7.9: the Rust table says untied for every qwen2. */
    assert_string_equal(arch_open_field(&a, "tied_head")->compat, "false");
    assert_true(arch_open_field(&a, "tied_head")->differs);
    arch_open_release(&a);
    gguf_build_free(b);

    b = arch_model("phi3");
    a = arch_open_good(b);
    assert_true(a.c.fused_qkv && a.c.fused_gate_up && a.c.ffn_gated);
    assert_int_equal(a.c.n_ff[0], 128);
    assert_int_equal(a.c.norm, ARCH_NORM_RMS); /* §7.5: Rust says LayerNorm */
    assert_string_equal(arch_open_field(&a, "norm")->compat, "\"layer\"");
    arch_open_release(&a);
    gguf_build_free(b);

    o = gguf_build_defaults("starcoder2");
    o.no_gate = true;
    b = gguf_build_llama_like("starcoder2", &o);
    a = arch_open_good(b);
    assert_false(a.c.ffn_gated);
    assert_int_equal(a.c.act, ARCH_ACT_GELU);
    arch_open_release(&a);
    gguf_build_free(b);
    o = gguf_build_defaults("t5"); /* ReLU; gated GELU if the gate is there (§6) */
    b = gguf_build_llama_like("t5", &o);
    a = arch_open_good(b);
    assert_int_equal(a.c.act, ARCH_ACT_GELU);
    assert_true(a.c.attn_scale == 1); /* T5 does not scale */
    arch_open_release(&a);
    gguf_build_free(b);
    b = gguf_build_new(3, 1); /* by the names T5 really has */
    gguf_build_str(b, "general.architecture", "t5");
    gguf_build_u32(b, "t5.embedding_length", 32);
    gguf_build_u32(b, "t5.block_count", 1);
    gguf_build_u32(b, "t5.attention.head_count", 2);
    gguf_build_u32(b, "t5.feed_forward_length", 64);
    gguf_build_tensor_2d(b, "enc.blk.0.ffn_up.weight", 0, 32, 64);
    gguf_build_tensor_2d(b, "dec.blk.1.ffn_up.weight", 0, 32, 64); /* a longer decoder */
    a = arch_open_good(b);
    assert_int_equal(a.c.act, ARCH_ACT_RELU);
    assert_false(a.c.ffn_gated);
    arch_open_release(&a);
    gguf_build_tensor_2d(b, "enc.blk.0.ffn_gate.weight", 0, 32, 64);
    a = arch_open_good(b);
    assert_int_equal(a.c.act, ARCH_ACT_GELU);
    assert_true(a.c.ffn_gated);
    assert_false(arch_open_noted(&a, "tensors name block"));
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_ignores_keys_it_does_not_read(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("llama");
    struct arch_open plain = arch_open_good(b), odd;
    /* Keys of other architectures, and of other norms, with values that would change everything. */
    static const uint8_t mask[2] = {1, 1};
    gguf_build_f32(b, "llama.attention.layer_norm_epsilon", 0.009F);
    gguf_build_u32(b, "llama.attention.sliding_window", 4);
    gguf_build_array(b, "llama.attention.sliding_window_pattern", 7, mask, 2);
    gguf_build_f32(b, "llama.rope.freq_base_swa", 77);
    gguf_build_f32(b, "llama.attention.scale", 77);
    gguf_build_f32(b, "llama.attention.output_scale", 77);
    gguf_build_u32(b, "llama.attention.key_length_mla", 77);
    gguf_build_str(b, "llama.hidden_activation", "relu");
    gguf_build_bool(b, "llama.use_parallel_residual", true);
    gguf_build_f32(b, "llama.rope.scaling.yarn_ext_factor", 1);
    gguf_build_f32(b, "llama.rope.scaling.alpha", 50);
    gguf_build_array(b, "llama.attention.rope_pattern", 7, "\0\0", 2);
    gguf_build_u32(b, "llama.rope.dimension_sections", 5);
    gguf_build_f32(b, "qwen2.attention.layer_norm_rms_epsilon", 0.009F);
    gguf_build_u32(b, "qwen2.block_count", 99);
    gguf_build_bool(b, "llama.rope.scaling.finetuned", false);
    odd = arch_open_good(b);
    assert_int_equal(arch_config_diff(&plain.c, &odd.c, NULL, NULL), 0);
    static const char *const noted[] = {
        "layer_norm_epsilon", "sliding_window",    "freq_base_swa",         "attention.scale",
        "key_length_mla",     "hidden_activation", "use_parallel_residual", "yarn_ext_factor"};
    for (size_t i = 0; i < sizeof noted / sizeof noted[0]; i++) {
        char text[96];
        snprintf(text, sizeof text, "%s is not read", noted[i]);
        if (!arch_open_noted(&odd, text))
            fail_msg("no note on %s", noted[i]);
    }
    assert_int_equal(plain.r.n_note, 0);
    arch_open_release(&plain);
    arch_open_release(&odd);
    gguf_build_free(b);
}

static void arch_tokens(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("qwen2");
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", 5);
    gguf_build_i32(b, "tokenizer.ggml.eos_token_id", 6);
    gguf_build_u64(b, "tokenizer.ggml.padding_token_id", 7);
    struct arch_open a = arch_open_good(b);
    assert_int_equal(a.c.bos, 5);
    assert_int_equal(a.c.eos, 6);
    assert_int_equal(a.c.pad, 7);
    arch_open_release(&a);
    /* Out of the vocabulary: not obeyed, said, and nothing out of range comes instead (§8.8). */
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", 4000000000U);
    gguf_build_i32(b, "tokenizer.ggml.padding_token_id", -1);
    a = arch_open_good(b);
    assert_int_equal(a.c.bos, ARCH_NO_TOKEN);
    assert_int_equal(a.c.pad, ARCH_NO_TOKEN);
    assert_true(arch_open_noted(&a, "bos_token_id names no token"));
    arch_open_release(&a);
    gguf_build_free(b);

    /* No ids: the spellings of the vocabulary. */
    static const char *const words[] = {"a", "<|im_end|>", "<s>", "</s>", "<|eom_id|>", "b"};
    b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_str(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_array_str(b, "tokenizer.ggml.tokens", words, 6);
    a = arch_open_good(b);
    assert_int_equal(a.c.bos, 2);
    assert_int_equal(a.c.eos, 3);
    assert_int_equal(a.c.eot, 1);
    assert_int_equal(a.c.eom, 4);
    assert_int_equal(a.c.n_vocab, 6);
    /* §7.10: the Rust table's 128000 for every "llama" is reported, never stamped here. */
    assert_string_equal(arch_open_field(&a, "tokenizer.bos_token_id")->compat, "128000");
    assert_string_equal(arch_open_field(&a, "tokenizer.bos_token_id")->stamped, "2");
    arch_open_release(&a);
    arch_open_build(&a, b, ARCH_VALUES_COMPAT);
    assert_int_equal(a.rc, 0);
    assert_int_equal(a.c.bos, 2);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_flags_follow_the_tokenizer_type(void **state)
{
    (void)state;
    /* llama.cpp's src/llama-vocab.cpp: SPM and WPM begin with BOS, T5 ends with EOS, BPE by
     * pre-tokenizer. */
    static const struct {
        const char *model, *pre;
        bool bos, eos, space;
    } t[] = {{"llama", NULL, true, false, true},     {"bert", NULL, true, false, false},
             {"t5", NULL, false, true, false},       {"gpt2", NULL, false, false, false},
             {"gpt2", "qwen2", false, false, false}, {"gpt2", "llama-bpe", true, false, false},
             {"gpt2", "tekken", true, false, false}, {"gpt2", "smollm", false, false, false},
             {"rwkv", NULL, false, false, false},    {"gemma4", NULL, true, false, false}};
    static const char *const words[] = {"a", "b", "c"};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct gguf_build *b = gguf_build_new(3, 1);
        gguf_build_str(b, "general.architecture", "llama");
        gguf_build_str(b, "tokenizer.ggml.model", t[i].model);
        if (t[i].pre)
            gguf_build_str(b, "tokenizer.ggml.pre", t[i].pre);
        gguf_build_array_str(b, "tokenizer.ggml.tokens", words, 3);
        struct arch_open a = arch_open_good(b);
        if (a.c.add_bos != t[i].bos || a.c.add_eos != t[i].eos ||
            a.c.add_space_prefix != t[i].space)
            fail_msg("%s %s: %d %d %d", t[i].model, t[i].pre ? t[i].pre : "", a.c.add_bos,
                     a.c.add_eos, a.c.add_space_prefix);
        arch_open_release(&a);
        gguf_build_bool(b, "tokenizer.ggml.add_bos_token", !t[i].bos);
        a = arch_open_good(b);
        assert_true(a.c.add_bos == (!t[i].bos || strcmp(t[i].model, "gemma4") == 0));
        arch_open_release(&a);
        gguf_build_free(b);
    }
}

static void arch_vocabulary_without_tensors_resolves(void **state)
{
    (void)state;
    static const char *const words[] = {"<unk>", "<s>", "</s>"};
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "falcon");
    gguf_build_str(b, "tokenizer.ggml.model", "llama");
    gguf_build_array_str(b, "tokenizer.ggml.tokens", words, 3);
    struct arch_open a = arch_open_good(b);
    assert_int_equal(a.c.n_layer, 0);
    assert_int_equal(a.c.n_vocab, 3);
    assert_null(a.c.n_head);
    assert_int_equal(a.c.bos, 1);
    assert_string_equal(arch_open_field(&a, "hidden_size")->reference, "null");
    assert_int_equal(arch_open_field(&a, "hidden_size")->origin, ARCH_UNKNOWN);
    arch_open_release(&a);
    gguf_build_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arch_table_has_every_architecture),
        cmocka_unit_test(arch_table_lists_the_keys_of_every_architecture),
        cmocka_unit_test(arch_pairs_as_reference_for_every_architecture),
        cmocka_unit_test(arch_rope_dflash_follows_hyper_connections),
        cmocka_unit_test(arch_takes_every_integer_type),
        cmocka_unit_test(arch_takes_per_layer_arrays),
        cmocka_unit_test(arch_dimensions_must_fit_the_tensors),
        cmocka_unit_test(arch_refuses_missing_and_zero_dimensions),
        cmocka_unit_test(arch_without_a_row_is_taken_or_refused_by_name),
        cmocka_unit_test(arch_refuses_what_is_over_the_limits),
        cmocka_unit_test(arch_notes_what_the_rust_gates_refuse),
        cmocka_unit_test(arch_presence_decides),
        cmocka_unit_test(arch_ignores_keys_it_does_not_read),
        cmocka_unit_test(arch_tokens),
        cmocka_unit_test(arch_flags_follow_the_tokenizer_type),
        cmocka_unit_test(arch_vocabulary_without_tensors_resolves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
