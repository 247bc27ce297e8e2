/* The Rust stack's values (paiml/realizar, aprender-serve), after arch-resolver.md §1 and §2: what
 * GGUFConfig::from_gguf would make of the same file. Its narrow types are kept: integers only as
 * u32, floats only as f32, no arrays; anything else is as if it were not there. */
#include "format/arch_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define RMS  ARCH_NORM_RMS
#define LN   ARCH_NORM_LAYER
#define SILU ARCH_ACT_SILU
#define GELU ARCH_ACT_GELU
#define NONE ARCH_NO_TOKEN

/* Order of columns: eps, norm, act, gated, bias, q/k norm, tied, BOS, EOS. The newest published
 * table (YAML) where the generations differ; token ids and theta have their own, narrower matches,
 * already folded in here ("qwen" and "qwen2.5" have no ids). */
static const struct arch_compat_row rows[] = {
    {"llama", 1e-5F, RMS, SILU, true, false, false, false, 128000, 128001},
    {"llama3", 1e-5F, RMS, SILU, true, false, false, false, NONE, NONE},
    {"mistral", 1e-5F, RMS, SILU, true, false, false, false, 1, 2},
    {"qwen2", 1e-6F, RMS, SILU, true, true, false, false, 151643, 151645},
    {"qwen2.5", 1e-6F, RMS, SILU, true, true, false, false, NONE, NONE},
    {"qwen", 1e-6F, RMS, SILU, true, true, false, false, NONE, NONE},
    {"qwen3", 1e-6F, RMS, SILU, true, false, true, false, 151643, 151645},
    {"qwen3moe", 1e-6F, RMS, SILU, true, false, true, false, 151643, 151645},
    {"qwen3_moe", 1e-6F, RMS, SILU, true, false, true, false, NONE, NONE},
    {"qwen3_5_moe", 1e-6F, RMS, SILU, true, false, true, false, NONE, NONE},
    {"qwen3_5", 1e-6F, RMS, SILU, true, false, false, false, NONE, 248044},
    {"qwen3.5", 1e-6F, RMS, SILU, true, false, false, false, NONE, 248044},
    {"qwen35", 1e-6F, RMS, SILU, true, false, false, false, NONE, 248044},
    {"phi2", 1e-5F, LN, GELU, false, true, false, false, NONE, 50256},
    {"phi3", 1e-5F, LN, SILU, true, true, false, false, 1, 32000},
    {"phi", 1e-5F, LN, SILU, true, true, false, false, NONE, 50256},
    {"phi4", 1e-5F, LN, SILU, true, true, false, false, NONE, NONE},
    {"gemma", 1e-6F, RMS, GELU, true, false, false, true, 2, 1},
    {"gemma2", 1e-6F, RMS, GELU, true, false, false, true, 2, 1},
    {"gemma3", 1e-6F, RMS, GELU, true, false, false, true, 2, 1},
    {"deepseek", 1e-6F, RMS, SILU, true, false, false, false, 0, 1},
    {"deepseek2", 1e-6F, RMS, SILU, true, false, false, false, 0, 1},
    {"gpt2", 1e-5F, LN, GELU, false, true, false, true, NONE, 50256},
    {"bert", 1e-12F, LN, GELU, false, true, false, true, NONE, NONE},
    {"whisper", 1e-5F, LN, GELU, false, true, false, false, NONE, NONE},
    {"t5", 1e-6F, LN, GELU, false, false, false, true, NONE, NONE},
    {"mamba", 1e-5F, RMS, SILU, true, false, false, true, NONE, NONE},
    {"rwkv7", 1e-5F, LN, GELU, false, false, false, false, NONE, NONE},
    {"rwkv", 1e-5F, LN, GELU, false, false, false, false, NONE, NONE},
    {"falcon_h1", 1e-6F, RMS, SILU, true, false, false, false, NONE, NONE},
    {"falcon-h1", 1e-6F, RMS, SILU, true, false, false, false, NONE, NONE},
    {"openelm", 1e-6F, RMS, SILU, true, false, false, false, NONE, NONE},
    {"moonshine", 1e-5F, LN, SILU, true, false, false, true, NONE, NONE},
    {"falcon_7b", 1e-5F, LN, GELU, false, true, false, false, NONE, NONE},
    {"falcon_40b", 1e-5F, LN, GELU, false, true, false, false, NONE, NONE},
    {"falcon", 1e-5F, LN, GELU, false, true, false, false, NONE, NONE},
    {"stablelm", 1e-5F, LN, SILU, true, true, false, false, NONE, NONE},
    {"starcoder", 1e-5F, LN, GELU, false, true, false, false, NONE, NONE},
    {"internlm2", 1e-5F, RMS, SILU, true, true, false, false, NONE, NONE},
    {"internlm", 1e-5F, RMS, SILU, true, true, false, false, NONE, NONE},
    /* The default row, for every other name (yi, smollm, olmo, granite say the same). */
    {NULL, 1e-5F, RMS, SILU, true, false, false, false, NONE, NONE},
};

const struct arch_compat_row *arch_compat_find(const char *arch)
{
    const struct arch_compat_row *r = rows;
    while (r->name && strcmp(r->name, arch) != 0)
        r++;
    return r;
}

/* Pairing by substring of the lower-cased name (§1.1). */
uint32_t arch_compat_rope_type(const char *arch)
{
    static const char *const neox[] = {
        "qwen",     "stablelm", "phi",       "gemma",   "starcoder2", "gptneox",
        "gpt_neox", "falcon",   "codeshell", "orion",   "bert",       "nomic-bert",
        "dbrx",     "olmo2",    "olmoe",     "plamo",   "openelm",    "exaone",
        "minicpm3", "nemotron", "internlm2", "deepseek"};
    char low[ARCH_NAME_MAX];
    size_t n = 0;
    for (; arch[n] && n + 1 < sizeof low; n++)
        low[n] = (char)tolower((unsigned char)arch[n]);
    low[n] = 0;
    for (size_t i = 0; i < sizeof neox / sizeof neox[0]; i++)
        if (strstr(low, neox[i]))
            return 2;
    return 0;
}

float arch_compat_theta(const char *arch)
{
    static const char *const million[] = {"qwen2", "qwen3", "qwen3_moe"};
    for (size_t i = 0; i < sizeof million / sizeof million[0]; i++)
        if (strcmp(arch, million[i]) == 0)
            return 1e6F;
    return 1e4F;
}

static const struct gguf_key *find(const struct gguf *g, const char *arch, const char *key)
{
    char name[2 * ARCH_NAME_MAX + 64];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    return gguf_find(g, name);
}

static bool u32_key(const struct gguf *g, const char *arch, const char *key, uint32_t *v)
{
    const struct gguf_key *k = find(g, arch, key);
    uint64_t u;
    if (!k || k->type != GGUF_U32 || !gguf_as_u64(k, &u))
        return false;
    *v = (uint32_t)u;
    return true;
}

static bool f32_key(const struct gguf *g, const char *arch, const char *key, float *v)
{
    const struct gguf_key *k = find(g, arch, key);
    double d;
    if (!k || k->type != GGUF_F32 || !gguf_as_f64(k, &d))
        return false;
    *v = (float)d;
    return true;
}

static void fill(uint32_t *a, uint32_t n, uint32_t v)
{
    for (uint32_t i = 0; i < n; i++)
        a[i] = v;
}

/* blk.0.ffn_down's dimension that is not the hidden one, else ffn_up's, else 4 times hidden. */
static uint32_t ffn(const struct arch_tensor_facts *f, uint32_t hidden)
{
    const struct arch_layer_facts *l = f->n_alloc ? &f->layer[0] : NULL;
    if (l && l->down_in)
        return l->down_in;
    if (l && l->up_out)
        return l->up_out;
    return hidden * 4;
}

static void dims(const struct gguf *g, const struct arch_tensor_facts *f, struct arch_config *c,
                 bool *has)
{
    uint32_t hidden, layers, heads, kv, v;
    const char *a = c->arch;
    if (!u32_key(g, a, "embedding_length", &hidden) || !u32_key(g, a, "block_count", &layers) ||
        layers != c->n_layer || !layers)
        return; /* from_gguf refuses the file, or reads another model */
    c->n_embd = hidden;
    has[ARCH_F_N_EMBD] = has[ARCH_F_N_LAYER] = true;
    if (!u32_key(g, a, "attention.head_count", &heads))
        heads = hidden / 64;
    if (!u32_key(g, a, "attention.head_count_kv", &kv))
        kv = heads;
    fill(c->n_head, layers, heads);
    fill(c->n_head_kv, layers, kv);
    has[ARCH_F_N_HEAD] = has[ARCH_F_N_HEAD_KV] = true;
    if (f->has_embd) {
        c->n_vocab = f->embd_rows > UINT32_MAX ? UINT32_MAX : (uint32_t)f->embd_rows;
        has[ARCH_F_N_VOCAB] = true;
    }
    if (f->any) {
        fill(c->n_ff, layers, ffn(f, hidden));
        has[ARCH_F_N_FF] = true;
    }
    c->n_ctx_train = u32_key(g, a, "context_length", &v) ? v : 0;
    has[ARCH_F_N_CTX] = true;
    if (u32_key(g, a, "attention.key_length", &v))
        c->head_dim_k = v;
    else if (f->n_alloc && f->layer[0].q_rows && heads)
        c->head_dim_k = f->layer[0].q_rows / heads;
    else
        c->head_dim_k = heads ? hidden / heads : 0;
    has[ARCH_F_HEAD_DIM_K] = true;
}

static uint32_t rope_type(const struct gguf *g, const char *arch)
{
    struct gguf_str s;
    if (gguf_as_str(find(g, arch, "rope.scaling.type"), &s)) {
        if (gguf_str_eq(s, "none") || gguf_str_eq(s, "linear"))
            return 0;
        if (gguf_str_eq(s, "yarn") || gguf_str_eq(s, "neox"))
            return 2;
    }
    return arch_compat_rope_type(arch);
}

int arch_compat_resolve(const struct gguf *g, const struct arch_tensor_facts *f,
                        struct arch_config *c, bool has[ARCH_N_FIELD])
{
    const struct arch_compat_row *row = arch_compat_find(c->arch);
    memset(has, 0, ARCH_N_FIELD * sizeof *has);
    dims(g, f, c, has);
    if (!f32_key(g, c->arch, "attention.layer_norm_rms_epsilon", &c->norm_eps) &&
        !f32_key(g, c->arch, "attention.layer_norm_epsilon", &c->norm_eps))
        c->norm_eps = row->eps;
    if (!f32_key(g, c->arch, "rope.freq_base", &c->rope_theta))
        c->rope_theta = arch_compat_theta(c->arch);
    c->rope = rope_type(g, c->arch) == 2 ? ARCH_ROPE_NEOX : ARCH_ROPE_NORM;
    c->norm = row->norm;
    c->act = row->act;
    c->ffn_gated = row->gated;
    c->qkv_bias = row->bias;
    c->qk_norm = row->qk_norm;
    c->tied_head = row->tied;
    static const struct {
        enum arch_fid f;
        const char *key;
    } ids[] = {{ARCH_F_BOS, "bos_token_id"}, {ARCH_F_EOS, "eos_token_id"}};
    for (int i = 0; i < 2; i++) {
        uint32_t v;
        int32_t *id = arch_field_at(c, ids[i].f);
        *id = i ? row->eos : row->bos;
        if (u32_key(g, "tokenizer.ggml", ids[i].key, &v) && v <= INT32_MAX)
            *id = (int32_t)v;
    }
    static const enum arch_fid always[] = {ARCH_F_NORM_EPS, ARCH_F_ROPE_THETA, ARCH_F_ROPE,
                                           ARCH_F_NORM,     ARCH_F_ACT,        ARCH_F_FFN_GATED,
                                           ARCH_F_QKV_BIAS, ARCH_F_QK_NORM,    ARCH_F_TIED_HEAD,
                                           ARCH_F_BOS,      ARCH_F_EOS};
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        has[always[i]] = true;
    return 0;
}
