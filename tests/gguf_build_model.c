/* Whole small models: see gguf_build_llama_like. Key and tensor names: llama.cpp's gguf-py
 * constants.py; which architecture has what: arch-table.tsv and llama.cpp's model files. */
#include "tests/gguf_build.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gguf_build_opt gguf_build_defaults(const char *arch)
{
    struct gguf_build_opt o = {0};
    bool gemma3 = strncmp(arch, "gemma3", 6) == 0, gemma2 = strcmp(arch, "gemma2") == 0;
    o.untied = strncmp(arch, "gemma", 5) != 0;
    o.qkv_bias = strncmp(arch, "qwen2", 5) == 0 || strcmp(arch, "qwen") == 0;
    o.qk_norm = strncmp(arch, "qwen3", 5) == 0 || gemma3;
    o.post_norms = gemma2 || gemma3;
    o.fused_qkv = o.fused_gate_up = strcmp(arch, "phi3") == 0;
    o.eps = strncmp(arch, "qwen", 4) == 0 || strncmp(arch, "gemma", 5) == 0 ? 1e-6 : 1e-5;
    if (gemma2 || gemma3)
        o.sliding_window = 64;
    if (strcmp(arch, "gpt2") == 0 || strcmp(arch, "phi2") == 0 || strcmp(arch, "gptneox") == 0 ||
        strcmp(arch, "falcon") == 0 || strcmp(arch, "starcoder2") == 0) {
        o.eps_key = GGUF_BUILD_EPS_LN;
        o.norm_bias = o.no_gate = true;
        o.fused_qkv = strcmp(arch, "starcoder2") != 0;
        o.qkv_bias = o.out_bias = o.ffn_bias = strcmp(arch, "falcon") != 0;
        o.head_bias = strcmp(arch, "phi2") == 0;
        o.no_ffn_norm = o.head_bias || strcmp(arch, "falcon") == 0;
        o.position_embd = strcmp(arch, "gpt2") == 0;
    }
    return o;
}

static struct gguf_build_opt filled(const char *arch, const struct gguf_build_opt *in)
{
    struct gguf_build_opt o = in ? *in : gguf_build_defaults(arch);
#define DEFAULT(field, value)                                                                      \
    do {                                                                                           \
        if (!o.field)                                                                              \
            o.field = (value);                                                                     \
    } while (0)
    DEFAULT(version, 3);
    DEFAULT(seed, 1);
    DEFAULT(n_layer, 2);
    DEFAULT(n_embd, 64);
    DEFAULT(n_head, 4);
    DEFAULT(n_head_kv, o.n_head >= 2 ? o.n_head / 2 : 1);
    DEFAULT(n_ff, 128);
    DEFAULT(n_ctx, 256);
    DEFAULT(type_embd, o.type);
    DEFAULT(type_down, o.type);
#undef DEFAULT
    if (o.eps == 0)
        o.eps = 1e-5;
    if (o.rope_theta == 0)
        o.rope_theta = 10000;
    if (o.tok == GGUF_BUILD_TOK_ARCH)
        o.tok = strncmp(arch, "qwen", 4) == 0 ? GGUF_BUILD_TOK_GPT2 : GGUF_BUILD_TOK_SPM;
    return o;
}

/* --- tokenizers -------------------------------------------------------------------------- */

#define MAX_TOKENS 4096

struct vocab {
    char *text[MAX_TOKENS];
    float score[MAX_TOKENS];
    int32_t type[MAX_TOKENS]; /* 1 normal, 2 unknown, 3 control, 5 unused, 6 byte */
    size_t n;
};

static size_t add_token(struct vocab *v, const char *text, float score, int32_t type)
{
    if (v->n == MAX_TOKENS)
        abort();
    v->text[v->n] = strdup(text);
    v->score[v->n] = score;
    v->type[v->n] = type;
    return v->n++;
}

/* GPT-2's spelling of a byte as a printable character, in UTF-8 (openai/gpt-2 encoder.py). */
static void byte_char(int byte, char out[3])
{
    int cp = byte;
    if (!((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)) {
        cp = 256;
        for (int i = 0; i < byte; i++)
            cp += !((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174);
    }
    if (cp < 0x80) {
        out[0] = (char)cp;
        out[1] = 0;
    } else {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        out[2] = 0;
    }
}

static void put_vocab(struct gguf_build *b, struct vocab *v, uint32_t n_vocab, bool scores)
{
    char text[32];
    while (v->n < n_vocab) {
        snprintf(text, sizeof text, "[PAD%zu]", v->n);
        add_token(v, text, -1000, 5);
    }
    gguf_build_array_str(b, "tokenizer.ggml.tokens", (const char *const *)v->text, v->n);
    if (scores)
        gguf_build_array(b, "tokenizer.ggml.scores", 6, v->score, v->n);
    gguf_build_array(b, "tokenizer.ggml.token_type", 5, v->type, v->n);
    for (size_t i = 0; i < v->n; i++)
        free(v->text[i]);
}

static uint32_t put_gpt2(struct gguf_build *b, const char *arch, uint32_t n_vocab)
{
    static const char *const merges[] = {"t h",  "th e", "i n",   "Ġ the", "e r",  "a n",
                                         "an d", "Ġ a",  "Ġ and", "o n",   "in g", "r e"};
    struct vocab v = {.n = 0};
    char text[32];
    for (int i = 0; i < 256; i++) {
        byte_char(i, text);
        add_token(&v, text, 0, 1);
    }
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        const char *sp = strchr(merges[i], ' ');
        snprintf(text, sizeof text, "%.*s%s", (int)(sp - merges[i]), merges[i], sp + 1);
        add_token(&v, text, 0, 1);
    }
    uint32_t eos = (uint32_t)add_token(&v, "<|endoftext|>", 0, 3);
    uint32_t eot = (uint32_t)add_token(&v, "<|im_end|>", 0, 3);
    gguf_build_str(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_str(b, "tokenizer.ggml.pre", strncmp(arch, "qwen", 4) == 0 ? "qwen2" : "default");
    put_vocab(b, &v, n_vocab, false);
    gguf_build_array_str(b, "tokenizer.ggml.merges", merges, sizeof merges / sizeof *merges);
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", eos);
    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", eot);
    gguf_build_u32(b, "tokenizer.ggml.padding_token_id", eos);
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", false);
    return (uint32_t)v.n;
}

static uint32_t put_spm(struct gguf_build *b, uint32_t n_vocab)
{
    static const char *const pieces[] = {
        "▁",  "t",   "h",  "e",    "a",  "n",   "d", "i",  "g", "th", "he", "the", "▁the",
        "an", "and", "▁a", "▁and", "in", "ing", "o", "on", "s", "▁s", "r",  "er",  "1"};
    struct vocab v = {.n = 0};
    char text[16];
    add_token(&v, "<unk>", 0, 2);
    add_token(&v, "<s>", 0, 3);
    add_token(&v, "</s>", 0, 3);
    for (int i = 0; i < 256; i++) {
        snprintf(text, sizeof text, "<0x%02X>", i);
        add_token(&v, text, 0, 6);
    }
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        add_token(&v, pieces[i], -(float)i, 1);
    gguf_build_str(b, "tokenizer.ggml.model", "llama");
    gguf_build_str(b, "tokenizer.ggml.pre", "default");
    put_vocab(b, &v, n_vocab, true);
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", 1);
    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", 2);
    gguf_build_u32(b, "tokenizer.ggml.unknown_token_id", 0);
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", true);
    gguf_build_bool(b, "tokenizer.ggml.add_eos_token", false);
    return (uint32_t)v.n;
}

/* --- keys -------------------------------------------------------------------------------- */

static const char *arch_key(const char *arch, const char *key)
{
    static char out[256];
    snprintf(out, sizeof out, "%s.%s", arch, key);
    return out;
}

static void put_per_layer(struct gguf_build *b, const char *key, uint32_t v,
                          const struct gguf_build_opt *o)
{
    if (!o->per_layer_arrays) {
        gguf_build_u32(b, key, v);
        return;
    }
    uint32_t *a = calloc(o->n_layer, sizeof *a);
    for (uint32_t i = 0; a && i < o->n_layer; i++)
        a[i] = v;
    gguf_build_array(b, key, 4, a, o->n_layer);
    free(a);
}

static void put_eps(struct gguf_build *b, const char *arch, const char *key, double v, bool f64)
{
    if (f64)
        gguf_build_f64(b, arch_key(arch, key), v);
    else
        gguf_build_f32(b, arch_key(arch, key), (float)v);
}

static void put_hparams(struct gguf_build *b, const char *arch, const struct gguf_build_opt *o)
{
    gguf_build_str(b, "general.architecture", arch);
    gguf_build_str(b, "general.name", "built for a test");
    if (o->alignment)
        gguf_build_align(b, o->alignment);
    gguf_build_u32(b, arch_key(arch, "block_count"), o->n_layer);
    gguf_build_u32(b, arch_key(arch, "context_length"), o->n_ctx);
    gguf_build_u32(b, arch_key(arch, "embedding_length"), o->n_embd);
    put_per_layer(b, arch_key(arch, "feed_forward_length"), o->n_ff, o);
    put_per_layer(b, arch_key(arch, "attention.head_count"), o->n_head, o);
    put_per_layer(b, arch_key(arch, "attention.head_count_kv"), o->n_head_kv, o);
    if (o->head_dim) {
        gguf_build_u32(b, arch_key(arch, "attention.key_length"), o->head_dim);
        gguf_build_u32(b, arch_key(arch, "attention.value_length"), o->head_dim);
    }
    if (o->rope_theta > 0)
        gguf_build_f32(b, arch_key(arch, "rope.freq_base"), o->rope_theta);
    static const char *const eps[] = {"attention.layer_norm_rms_epsilon",
                                      "attention.layer_norm_epsilon"};
    if (o->eps_key != GGUF_BUILD_EPS_NONE)
        put_eps(b, arch, eps[o->eps_key], o->eps, o->eps_f64);
    if (o->eps_key != GGUF_BUILD_EPS_NONE && o->both_eps)
        put_eps(b, arch, eps[!o->eps_key], 10 * o->eps, o->eps_f64);
    if (o->sliding_window)
        gguf_build_u32(b, arch_key(arch, "attention.sliding_window"), o->sliding_window);
    if (strcmp(arch, "gptneox") == 0)
        gguf_build_bool(b, arch_key(arch, "use_parallel_residual"), true);
    if (o->unread_keys) {
        gguf_build_f32(b, arch_key(arch, "attention.layer_norm_epsilon_"), 0.5f);
        gguf_build_u32(b, "other.embedding_length", 7);
        gguf_build_f32(b, "other.attention.layer_norm_rms_epsilon", 0.25f);
        gguf_build_str(b, arch_key(arch, "no.such.key"), "nobody reads this");
    }
}

/* --- tensors ----------------------------------------------------------------------------- */

struct layer {
    struct gguf_build *b;
    const struct gguf_build_opt *o;
    uint32_t no;
};

static void weight(const struct layer *l, const char *stem, uint32_t type, uint64_t n_in,
                   uint64_t n_out, bool bias)
{
    char name[128];
    snprintf(name, sizeof name, "blk.%u.%s.weight", l->no, stem);
    gguf_build_tensor_2d(l->b, name, type, n_in, n_out);
    if (bias) {
        snprintf(name, sizeof name, "blk.%u.%s.bias", l->no, stem);
        gguf_build_tensor_1d(l->b, name, 0, n_out);
    }
}

static void norm(const struct layer *l, const char *stem, uint64_t n)
{
    char name[128];
    snprintf(name, sizeof name, "blk.%u.%s.weight", l->no, stem);
    gguf_build_tensor_1d(l->b, name, l->o->norm_type, n);
    if (l->o->norm_bias) {
        snprintf(name, sizeof name, "blk.%u.%s.bias", l->no, stem);
        gguf_build_tensor_1d(l->b, name, 0, n);
    }
}

static void put_layer(const struct layer *l)
{
    const struct gguf_build_opt *o = l->o;
    uint64_t dim = o->head_dim ? o->head_dim : o->n_embd / o->n_head;
    uint64_t q = dim * o->n_head, kv = dim * o->n_head_kv;
    norm(l, "attn_norm", o->n_embd);
    if (o->fused_qkv) {
        weight(l, "attn_qkv", o->type, o->n_embd, q + 2 * kv, o->qkv_bias);
    } else {
        weight(l, "attn_q", o->type, o->n_embd, q, o->qkv_bias);
        weight(l, "attn_k", o->type, o->n_embd, kv, o->qkv_bias);
        weight(l, "attn_v", o->type_down, o->n_embd, kv, o->qkv_bias);
    }
    if (o->qk_norm) {
        norm(l, "attn_q_norm", dim);
        norm(l, "attn_k_norm", dim);
    }
    weight(l, "attn_output", o->type, q, o->n_embd, o->out_bias);
    if (o->post_norms)
        norm(l, "post_attention_norm", o->n_embd);
    if (!o->no_ffn_norm)
        norm(l, "ffn_norm", o->n_embd);
    if (!o->no_gate && !o->fused_gate_up)
        weight(l, "ffn_gate", o->type, o->n_embd, o->n_ff, o->ffn_bias);
    weight(l, "ffn_up", o->type, o->n_embd, o->fused_gate_up ? 2 * o->n_ff : o->n_ff, o->ffn_bias);
    weight(l, "ffn_down", o->type_down, o->n_ff, o->n_embd, o->ffn_bias);
    if (o->post_norms)
        norm(l, "post_ffw_norm", o->n_embd);
}

struct gguf_build *gguf_build_llama_like(const char *arch, const struct gguf_build_opt *in)
{
    struct gguf_build_opt o = filled(arch, in);
    struct gguf_build *b = gguf_build_new(o.version, o.seed);
    put_hparams(b, arch, &o);
    uint32_t n_vocab = o.n_vocab ? o.n_vocab : 320;
    if (o.tok == GGUF_BUILD_TOK_GPT2)
        n_vocab = put_gpt2(b, arch, o.n_vocab);
    else if (o.tok == GGUF_BUILD_TOK_SPM)
        n_vocab = put_spm(b, o.n_vocab);
    gguf_build_u32(b, arch_key(arch, "vocab_size"), n_vocab);

    struct layer l = {.b = b, .o = &o};
    gguf_build_tensor_2d(b, "token_embd.weight", o.type_embd, o.n_embd, n_vocab);
    if (o.position_embd)
        gguf_build_tensor_2d(b, "position_embd.weight", 0, o.n_embd, o.n_ctx);
    if (o.rope_freqs)
        gguf_build_tensor_1d(b, "rope_freqs.weight", 0,
                             (o.head_dim ? o.head_dim : o.n_embd / o.n_head) / 2);
    for (l.no = 0; l.no < o.n_layer; l.no++)
        put_layer(&l);
    gguf_build_tensor_1d(b, "output_norm.weight", o.norm_type, o.n_embd);
    if (o.norm_bias)
        gguf_build_tensor_1d(b, "output_norm.bias", 0, o.n_embd);
    if (o.untied && o.head_bias)
        gguf_build_tensor_1d(b, "output.bias", 0, n_vocab);
    if (o.untied)
        gguf_build_tensor_2d(b, "output.weight", o.type_embd, o.n_embd, n_vocab);
    return b;
}
