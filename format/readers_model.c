/* Rules about the model in the file: what realizar's loaders need and what they leave out. */
#include "format/readers_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The dimensions as OwnedQuantizedModel::from_apr takes them; 0 where there is none. */
struct dims {
    uint64_t hidden, layers, heads, kv, ffn, vocab, context;
};

static uint64_t value(const struct raw_apr *r, const char *key)
{
    uint64_t u = 0;
    raw_uint(r, metadata_value(r, key), &u);
    return u;
}

static const struct raw_tensor *embedding(const struct raw_apr *r)
{
    static const char *const part[] = {"embed_tokens", "tok_embeddings", "token_embd"};
    for (size_t i = 0; i < r->n_read; i++)
        for (size_t k = 0; k < sizeof part / sizeof part[0]; k++)
            if (memmem(r->t[i].name, r->t[i].name_len, part[k], strlen(part[k])))
                return &r->t[i];
    return NULL;
}

static struct dims dims_of(const struct raw_apr *r)
{
    struct dims d = {.hidden = value(r, "hidden_size"),
                     .layers = value(r, "num_layers"),
                     .heads = value(r, "num_heads"),
                     .kv = value(r, "num_kv_heads"),
                     .ffn = value(r, "intermediate_size"),
                     .vocab = value(r, "vocab_size"),
                     .context = value(r, "max_position_embeddings")};
    if (!metadata_value(r, "num_kv_heads"))
        d.kv = d.heads;
    const struct raw_tensor *t = d.vocab ? NULL : embedding(r);
    if (t && t->n_dim > 0)
        d.vocab = t->dim[0];
    return d;
}

/* Nothing more can be said of a model whose metadata is taken for empty. */
static bool has_config(const struct judge *j)
{
    char why[160];
    return j->r->size >= APR_HEADER_SIZE && !metadata_is_empty(j->r, j->reader, why);
}

void check_required(struct judge *j)
{
    static const char *const key[] = {"architecture", "hidden_size", "num_layers", "num_heads",
                                      "intermediate_size"};
    for (size_t i = 0; has_config(j) && i < sizeof key / sizeof key[0]; i++) {
        const cJSON *m = metadata_value(j->r, key[i]);
        if (!m || cJSON_IsNull(m)) {
            judge_found(j, "metadata has no '%s'", key[i]);
            return;
        }
    }
}

void check_dimensions(struct judge *j)
{
    struct dims d = dims_of(j->r);
    if (!has_config(j))
        return;
    /* The CUDA loader asks only where it has all of them, and takes defaults for the rest. */
    if (j->reader == READER_CUDA) {
        if (!d.hidden || !d.layers || !d.heads || !value(j->r, "vocab_size"))
            return;
        d.ffn = d.ffn ? d.ffn : 4 * d.hidden;
    }
    if (!d.hidden || !d.layers || !d.heads || !d.kv || !d.ffn || !d.vocab)
        judge_found(j,
                    "a dimension is 0: hidden %" PRIu64 ", layers %" PRIu64 ", heads %" PRIu64
                    "/%" PRIu64 ", ffn %" PRIu64 ", vocab %" PRIu64,
                    d.hidden, d.layers, d.heads, d.kv, d.ffn, d.vocab);
    else if (d.hidden % d.heads != 0)
        judge_found(j, "hidden size %" PRIu64 " is no multiple of %" PRIu64 " heads", d.hidden,
                    d.heads);
    else if (d.kv > d.heads || (j->reader != READER_CUDA && d.heads % d.kv != 0))
        judge_found(j, "%" PRIu64 " heads over %" PRIu64 " key-value heads", d.heads, d.kv);
}

void check_limits(struct judge *j)
{
    struct dims d = dims_of(j->r);
    const struct {
        const char *what;
        uint64_t has, most;
    } limit[] = {
        {"hidden size", d.hidden, 65536}, {"layers", d.layers, 256},
        {"heads", d.heads, 256},          {"key-value heads", d.kv, 256},
        {"vocabulary", d.vocab, 1000000}, {"feed-forward size", d.ffn, 262144},
        {"context", d.context, 2097152},
    };
    if (!has_config(j))
        return;
    for (size_t i = 0; i < sizeof limit / sizeof limit[0]; i++)
        if (limit[i].has > limit[i].most) {
            judge_found(j, "%s %" PRIu64 ", at most %" PRIu64, limit[i].what, limit[i].has,
                        limit[i].most);
            return;
        }
    double theta, eps;
    if (json_num(metadata_value(j->r, "rope_theta"), &theta) &&
        ((float)theta > 1e8F || ((float)theta > 0 && (float)theta < 1)))
        judge_found(j, "rope_theta %g, allowed are 1 to 1e8", theta);
    else if (json_num(metadata_value(j->r, "rms_norm_eps"), &eps) &&
             ((float)eps > 0.01F || ((float)eps > 0 && (float)eps < 1e-10F)))
        judge_found(j, "rms_norm_eps %g, allowed are 1e-10 to 0.01", eps);
}

/* Per layer: what is needed and what else is bound, without ".weight" or ".bias". */
static const struct role {
    const char *hf, *gguf;
    bool needed, bias;
} role[] = {
    {"input_layernorm", "attn_norm", true, true},
    {"self_attn.q_proj", "attn_q", true, true},
    {"self_attn.k_proj", "attn_k", true, true},
    {"self_attn.v_proj", "attn_v", true, true},
    {"self_attn.o_proj", "attn_output", true, true},
    {"mlp.up_proj", "ffn_up", true, true},
    {"mlp.down_proj", "ffn_down", true, true},
    {"mlp.gate_proj", "ffn_gate", false, false},
    {"post_attention_layernorm", "ffn_norm", false, true},
    {"self_attn.q_norm", "attn_q_norm", false, false},
    {"self_attn.k_norm", "attn_k_norm", false, false},
};
#define N_ROLE (sizeof role / sizeof role[0])

static const struct raw_tensor *layer_tensor(const struct raw_apr *r, uint64_t layer,
                                             const struct role *o, const char *end)
{
    const struct raw_tensor *t = raw_find(r, "model.layers.%" PRIu64 ".%s.%s", layer, o->hf, end);
    return t ? t : raw_find(r, "blk.%" PRIu64 ".%s.%s", layer, o->gguf, end);
}

/* What from_apr does not find, in the order in which it looks. */
static bool missing_name(const struct raw_apr *r, char name[80])
{
    snprintf(name, 80, "token_embd.weight");
    if (!embedding(r))
        return true;
    snprintf(name, 80, "output_norm.weight");
    if (!raw_find(r, "model.norm.weight") && !raw_find(r, "%s", name))
        return true;
    snprintf(name, 80, "output.weight");
    if (!raw_find(r, "lm_head.weight") && !raw_find(r, "%s", name))
        return true;
    uint64_t n_layer = value(r, "num_layers");
    for (uint64_t l = 0; l < n_layer && l <= r->n_read; l++)
        for (size_t i = 0; i < N_ROLE; i++) {
            snprintf(name, 80, "blk.%" PRIu64 ".%s.weight", l, role[i].gguf);
            if (role[i].needed && !layer_tensor(r, l, &role[i], "weight"))
                return true;
        }
    return false;
}

/* Ours name every tensor as the readers know it, if the model has it: then it is the architecture. */
static bool is_ours(const struct judge *j)
{
    return j->a && json_get(apr_meta(j->a), "aprfs.profile");
}

void check_names(struct judge *j)
{
    char name[80];
    if (!is_ours(j) && missing_name(j->r, name))
        judge_found(j, "there is no tensor %s, nor under another name it looks for", name);
}

void check_roles(struct judge *j)
{
    char name[80];
    if (is_ours(j) && missing_name(j->r, name))
        judge_found(j, "the model has no tensor %s of its own", name);
}

void check_embedding_type(struct judge *j)
{
    const struct raw_tensor *t = embedding(j->r);
    uint32_t type = t ? reading(j->reader, t) : QUANT_F32;
    static const uint32_t known[] = {
        QUANT_F32,  QUANT_F16,  QUANT_BF16,      QUANT_Q4_0,      QUANT_Q4_1,
        QUANT_Q5_0, QUANT_Q5_1, QUANT_Q8_0,      QUANT_Q2_K,      QUANT_Q4_K,
        QUANT_Q5_K, QUANT_Q6_K, APR_TYPE_OWN_Q4, APR_TYPE_OWN_Q8,
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i] == type)
            return;
    judge_tensor(j, t, "cannot decode the embedding '%.80s'");
}

/* Which part of a layer a tensor is: its name behind "blk.N." or "model.layers.N."; else NULL. */
static const char *in_layer(const struct raw_tensor *t, size_t *len, bool *gguf)
{
    static const char *const start[] = {"model.layers.", "blk."};
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(start[i]), d = n;
        if (t->name_len <= n || memcmp(t->name, start[i], n) != 0)
            continue;
        while (d < t->name_len && t->name[d] >= '0' && t->name[d] <= '9')
            d++;
        if (d == n || d >= t->name_len || t->name[d] != '.')
            return NULL;
        *len = t->name_len - d - 1;
        *gguf = i == 1;
        return t->name + d + 1;
    }
    return NULL;
}

/* The role of a layer's tensor, and whether it is its bias; NULL: bound by nobody. */
static const struct role *role_of(const struct raw_tensor *t, bool *bias)
{
    size_t len;
    bool gguf;
    const char *s = in_layer(t, &len, &gguf);
    for (size_t i = 0; s && i < N_ROLE; i++) {
        const char *name = gguf ? role[i].gguf : role[i].hf;
        size_t n = strlen(name);
        if (len <= n + 1 || memcmp(s, name, n) != 0 || s[n] != '.')
            continue;
        *bias = len == n + 5 && memcmp(s + n + 1, "bias", 4) == 0;
        bool weight = len == n + 7 && memcmp(s + n + 1, "weight", 6) == 0;
        return weight || (*bias && role[i].bias) ? &role[i] : NULL;
    }
    return NULL;
}

static bool is_main_norm(const struct raw_tensor *t, const struct role *o)
{
    return raw_is(t, "model.norm.weight") || raw_is(t, "output_norm.weight") ||
           (o && (!strcmp(o->gguf, "attn_norm") || !strcmp(o->gguf, "ffn_norm")));
}

void check_norm_f32(struct judge *j)
{
    for (size_t i = 0; i < j->r->n_read; i++) {
        const struct raw_tensor *t = &j->r->t[i];
        bool bias = false;
        const struct role *o = role_of(t, &bias);
        if (!bias && is_main_norm(t, o) && t->dtype != 0)
            judge_tensor(j, t, "takes the norm '%.80s' for F32 whatever its dtype");
    }
}

void check_bias_type(struct judge *j)
{
    for (size_t i = 0; i < j->r->n_read; i++) {
        const struct raw_tensor *t = &j->r->t[i];
        bool bias = false;
        const struct role *o = role_of(t, &bias);
        bool qk_norm = o && strstr(o->gguf, "_norm") && o->gguf[5] != 'n' && !is_main_norm(t, o);
        if (o && (bias || qk_norm) && t->dtype > 1)
            judge_tensor(j, t, "takes '%.80s' for F32: only F32 and F16 are told apart there");
    }
}

void check_qkv_bias(struct judge *j)
{
    uint64_t n_layer = value(j->r, "num_layers");
    for (uint64_t l = 0; l < n_layer && l <= j->r->n_read; l++) {
        int n = 0;
        for (int i = 1; i <= 3; i++) /* q, k, v */
            n += layer_tensor(j->r, l, &role[i], "bias") != NULL;
        if (n == 1 || n == 2) {
            judge_found(
                j, "leaves out the %d biases of layer %" PRIu64 ": q, k and v must all have one", n,
                l);
            return;
        }
    }
}

void check_unbound(struct judge *j)
{
    static const char *const top[] = {"output_norm.weight",
                                      "model.norm.weight",
                                      "model.norm.bias",
                                      "output.weight",
                                      "lm_head.weight",
                                      "lm_head.bias",
                                      "model.position_embedding.weight"};
    const struct raw_tensor *first = NULL, *embed = embedding(j->r);
    size_t n = 0;
    for (size_t i = 0; i < j->r->n_read; i++) {
        const struct raw_tensor *t = &j->r->t[i];
        bool bias, bound = t == embed || role_of(t, &bias);
        for (size_t k = 0; k < sizeof top / sizeof top[0] && !bound; k++)
            bound = raw_is(t, top[k]);
        first = bound || first ? first : t;
        n += !bound;
    }
    if (n > 0)
        judge_found(j, "leaves out %zu tensors, the first '%.*s'", n,
                    (int)(first->name_len < 64 ? first->name_len : 64), first->name);
}

static bool has_dim(const struct raw_tensor *t, uint64_t n)
{
    for (unsigned d = 0; t && d < t->n_dim && d < APR_MAX_DIMS; d++)
        if (t->dim[d] == n)
            return true;
    return !t;
}

void check_shapes(struct judge *j)
{
    static const char *const name[] = {
        "model.embed_tokens.weight",         "embed_tokens.weight",   "transformer.wte.weight",
        "embeddings.word_embeddings.weight", "tok_embeddings.weight", "token_embd.weight",
    };
    const struct raw_tensor *t = NULL, *head = raw_find(j->r, "lm_head.weight");
    for (size_t i = 0; i < sizeof name / sizeof name[0] && !t; i++)
        t = raw_find(j->r, "%s", name[i]);
    uint64_t vocab = value(j->r, "vocab_size"), hidden = value(j->r, "hidden_size");
    if (!has_config(j))
        return;
    if (vocab && (!has_dim(t, vocab) || !has_dim(head, vocab)))
        judge_found(j, "vocab_size %" PRIu64 " is no dimension of the embedding or the head",
                    vocab);
    else if (hidden && (!has_dim(t, hidden) || !has_dim(head, hidden)))
        judge_found(j, "hidden_size %" PRIu64 " is no dimension of the embedding or the head",
                    hidden);
}

void check_gemma3(struct judge *j)
{
    const char *arch = json_text(metadata_value(j->r, "architecture"));
    if (arch && strncmp(arch, "gemma3", 6) == 0)
        judge_found(j, "architecture '%.40s'", arch);
}

void check_cuda_arch(struct judge *j)
{
    const char *arch = json_text(metadata_value(j->r, "architecture")),
               *type = json_text(json_get(j->r->meta, "model_type"));
    if (has_config(j) && arch && (!type || strcmp(arch, type) != 0))
        judge_found(j, "takes model_type '%.40s' for the architecture, which is '%.40s'",
                    type ? type : "", arch);
}

void check_eps_given(struct judge *j)
{
    const cJSON *m = j->reader == READER_F32 ? json_get(j->r->meta, "rms_norm_eps")
                                             : metadata_value(j->r, "rms_norm_eps");
    if (j->r->meta && (!m || cJSON_IsNull(m)))
        judge_found(j, "metadata has no rms_norm_eps: takes 1e-6");
}

void check_head_size(struct judge *j)
{
    struct dims d = dims_of(j->r);
    uint64_t head = value(j->r, "head_dim");
    if (has_config(j) && head && d.heads && d.hidden / d.heads != head)
        judge_found(j, "takes a head of %" PRIu64 " (hidden_size / num_heads), it has %" PRIu64,
                    d.hidden / d.heads, head);
}

void check_f32_keys(struct judge *j)
{
    static const struct {
        const char *key, *other;
        unsigned takes;
    } want[] = {
        {"hidden_size", "hidden_dim", 64},
        {"num_hidden_layers", "num_layers", 1},
        {"num_attention_heads", "num_heads", 4},
    };
    for (size_t i = 0; j->r->meta && i < sizeof want / sizeof want[0]; i++) {
        const cJSON *m = json_get(j->r->meta, want[i].key);
        m = m ? m : json_get(j->r->meta, want[i].other);
        uint64_t u;
        if (!raw_uint(j->r, m, &u)) {
            judge_found(j, "metadata has no count %s or %s: takes %u", want[i].key, want[i].other,
                        want[i].takes);
            return;
        }
    }
}

void check_f32_rope(struct judge *j)
{
    uint64_t type = 0;
    if (j->r->meta && (!json_uint(json_get(j->r->meta, "rope_type"), &type) || type != 2))
        judge_found(j, "rotates split halves; rope_type is %" PRIu64, type);
}

/* A dimension under the first of two names that is there, as a tree of JSON gives it. */
static uint64_t f32_value(const struct raw_apr *r, const char *key, const char *other, uint64_t def)
{
    const cJSON *m = json_get(r->meta, key);
    uint64_t u = def;
    raw_uint(r, m ? m : json_get(r->meta, other), &u);
    return u;
}

/* Its gate on dimensions, with its own names and defaults; what is no JSON has no vocabulary. A nested
 * configuration ("model_config", of another writer) may fill in: then nothing is said. */
void check_f32_dimensions(struct judge *j)
{
    const struct raw_apr *r = j->r;
    if (r->size < APR_HEADER_SIZE || r->meta_past_end || json_get(r->meta, "model_config"))
        return;
    uint64_t hidden = f32_value(r, "hidden_size", "hidden_dim", 64),
             heads = f32_value(r, "num_attention_heads", "num_heads", 4),
             kv = f32_value(r, "num_key_value_heads", "num_kv_heads", heads),
             vocab = f32_value(r, "vocab_size", "", 0),
             layers = f32_value(r, "num_hidden_layers", "num_layers", 1),
             ffn = f32_value(r, "intermediate_size", "intermediate_dim", 4 * hidden);
    if (!hidden || !heads || !kv || !vocab || !layers || !ffn || hidden % heads != 0 || kv > heads)
        judge_found(j,
                    "refuses hidden size %" PRIu64 ", heads %" PRIu64 "/%" PRIu64
                    ", vocabulary %" PRIu64 ", layers %" PRIu64 ", ffn %" PRIu64,
                    hidden, heads, kv, vocab, layers, ffn);
}

void check_f32_embedding(struct judge *j)
{
    if (j->r->size >= APR_HEADER_SIZE && !raw_find(j->r, "model.embed_tokens.weight") &&
        !raw_find(j->r, "token_embd.weight") && !raw_find(j->r, "tok_embeddings.weight"))
        judge_found(j, "finds no embedding under the three names it knows");
}

void check_f32_missing(struct judge *j)
{
    char name[80];
    if (embedding(j->r) && missing_name(j->r, name))
        judge_found(j, "goes on without %s", name);
}

void check_f32_qk_norm(struct judge *j)
{
    if (layer_tensor(j->r, 0, &role[9], "weight"))
        judge_found(j, "never loads the norms of q and k");
}

void check_ours(struct judge *j)
{
    if (!j->a)
        judge_found(j, "%s", j->refused);
}
