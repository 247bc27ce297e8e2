/* A .apr of the original writers as a .gguf: its tensors under the names that GGUF readers know, and
 * keys from what its metadata says. Where it is silent, a value comes from the architecture's row
 * (arch.h), as for every .apr that we read, and the key "aprfs.derived" says so.
 *
 * Hugging Face's names are translated for llama, qwen2 and qwen3 only: elsewhere the same name may
 * mean another tensor (gemma's post_attention_layernorm) or other weights (gemma's norms lack the 1
 * that GGUF's hold). Where llama's rotation works on neighbouring pairs, a file under Hugging Face's
 * names must say rope_type 0: only then do its Q and K rows stand in GGUF's order. */
#include "format/apr_meta.h"
#include "format/arch_internal.h"
#include "format/vgguf_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- names --- */

static const struct {
    const char *hf, *gguf;
} whole[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};

/* Behind "model.layers.N." and "blk.N.", before ".weight" or ".bias". (Source: apr-v2.md §7.) */
static const struct {
    const char *hf, *gguf;
} layered[] = {
    {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"}, {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"}, {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

static bool is_gguf_name(const char *s)
{
    return strncmp(s, "blk.", 4) == 0 || strncmp(s, "token_embd", 10) == 0 ||
           strncmp(s, "output", 6) == 0 || strncmp(s, "rope_", 5) == 0;
}

/* The GGUF's name for a Hugging Face one, malloc'ed; NULL with *known: no memory. */
static char *translate(const char *s, bool *known)
{
    char *out = NULL;
    *known = true;
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        if (strcmp(s, whole[i].hf) == 0)
            return strdup(whole[i].gguf);
    uint32_t il;
    int n = 0;
    if (sscanf(s, "model.layers.%" SCNu32 ".%n", &il, &n) == 1 && n > 0) {
        const char *rest = s + n, *dot = strrchr(rest, '.');
        for (size_t i = 0; dot && i < sizeof layered / sizeof layered[0]; i++)
            if ((size_t)(dot - rest) == strlen(layered[i].hf) &&
                strncmp(rest, layered[i].hf, strlen(layered[i].hf)) == 0)
                return asprintf(&out, "blk.%" PRIu32 ".%s%s", il, layered[i].gguf, dot) < 0 ? NULL
                                                                                            : out;
    }
    *known = false;
    return NULL;
}

static int check_order(const struct vgguf *v, const struct arch_row *row, struct err *e)
{
    if (strcmp(row->name, "llama") != 0 && strcmp(row->name, "qwen2") != 0 &&
        strcmp(row->name, "qwen3") != 0)
        return err_set(e, -ENOTSUP,
                       "architecture '%s' under Hugging Face's tensor names: only those of llama, "
                       "qwen2 and qwen3 are known to mean the same",
                       row->name);
    uint64_t type;
    if (row->rope != ARCH_ROPE_NORM ||
        (json_uint(json_get(apr_meta(v->a), "rope_type"), &type) && type == 0))
        return 0;
    return err_set(e, -ENOTSUP,
                   "rope_type is not 0: its Q and K rows may stand in Hugging Face's order, which "
                   "llama.cpp's %s does not compute with",
                   row->name);
}

static int name_tensors(struct vgguf *v, const struct arch_row *row, struct err *e)
{
    bool checked = false;
    for (size_t i = 0; i < v->n_tensor; i++) {
        struct vgguf_tensor *t = &v->tensor[i];
        bool known;
        if (is_gguf_name(t->name))
            continue;
        t->own = translate(t->name, &known);
        if (!t->own)
            return known ? err_set(e, -ENOMEM, "no memory for a name")
                         : err_set(e, -ENOTSUP, "tensor '%s': no name of a GGUF's is known for it",
                                   t->name);
        int rc = checked ? 0 : check_order(v, row, e);
        if (rc < 0)
            return rc;
        checked = true;
        t->name = t->own;
    }
    return checked ? vgguf_note_add(v, e, "tensor names: translated from Hugging Face's") : 0;
}

/* --- what the tensors say --- */

static const struct vgguf_tensor *find(const struct vgguf *v, const char *name)
{
    for (size_t i = 0; i < v->n_tensor; i++)
        if (strcmp(v->tensor[i].name, name) == 0)
            return &v->tensor[i];
    return NULL;
}

static int check_tensors(const struct vgguf *v, const struct arch_config *c, struct err *e)
{
    uint32_t il;
    bool *has = calloc((size_t)c->n_layer + 1, sizeof *has);
    int rc = has ? 0 : err_set(e, -ENOMEM, "no memory for %u layers", c->n_layer);
    for (size_t i = 0; i < v->n_tensor && rc == 0; i++)
        if (sscanf(v->tensor[i].name, "blk.%" SCNu32 ".", &il) == 1 && il < c->n_layer)
            has[il] = true;
    for (il = 0; rc == 0 && il < c->n_layer; il++)
        if (!has[il])
            rc = err_set(e, -ENOENT, "layer %" PRIu32 " of %" PRIu32 " has no tensors", il,
                         c->n_layer);
    free(has);
    if (rc == 0 && !find(v, "token_embd.weight"))
        rc = err_set(e, -ENOENT, "no embedding: tensor 'token_embd.weight' is missing");
    return rc;
}

/* Writers pad tensors to 64; with that alignment their data is one extent. */
static void choose_alignment(struct vgguf *v)
{
    for (size_t i = 0; i + 1 < v->n_tensor; i++) {
        const struct vgguf_tensor *t = &v->tensor[i];
        uint64_t end = t->src_off + t->src_size, next = v->tensor[i + 1].src_off;
        if (t->conv || (next - t->src_off) == ((t->src_size + 31) & ~UINT64_C(31)))
            continue;
        if (next % 64 == 0 && next >= end && next - end < 64)
            v->alignment = 64;
        return;
    }
}

/* --- keys --- */

struct text {
    struct vgguf *v;
    const struct arch_config *c;
    char name[ARCH_NAME_MAX + 64];
};

static const char *arch_name(struct text *x, const char *key)
{
    snprintf(x->name, sizeof x->name, "%s.%s", x->c->arch, key);
    return x->name;
}

static void layers_u32(struct text *x, const char *key, const uint32_t *a)
{
    bool same = true;
    for (uint32_t i = 1; i < x->c->n_layer; i++)
        same = same && a[i] == a[0];
    if (x->c->n_layer == 0)
        return;
    if (same) {
        vgguf_key_u32(x->v, arch_name(x, key), a[0]);
        return;
    }
    vgguf_key_array(x->v, arch_name(x, key), GGUF_U32, x->c->n_layer);
    for (uint32_t i = 0; i < x->c->n_layer; i++)
        vgguf_put_u32(&x->v->keys, a[i]);
}

static void put_text(struct vgguf *v, const char *member, const char *key)
{
    const char *s = json_text(json_get(apr_meta(v->a), member));
    if (s && *s)
        vgguf_key_str(v, key, s, strlen(s));
}

static void put_general(struct vgguf *v, const struct arch_config *c)
{
    static const char *const pair[][2] = {{"name", "general.name"},
                                          {"description", "general.description"},
                                          {"author", "general.author"},
                                          {"license", "general.license"},
                                          {"version", "general.version"}};
    bool quantized = false;
    vgguf_key_str(v, "general.architecture", c->arch, strlen(c->arch));
    for (size_t i = 0; i < sizeof pair / sizeof pair[0]; i++)
        put_text(v, pair[i][0], pair[i][1]);
    for (size_t i = 0; i < v->n_tensor; i++)
        quantized = quantized || quant_type(v->tensor[i].type)->block_len > 1;
    if (quantized)
        vgguf_key_u32(v, "general.quantization_version", 2);
    if (v->alignment != 32)
        vgguf_key_u32(v, "general.alignment", v->alignment);
}

static void put_dimensions(struct vgguf *v, const struct arch_config *c, uint32_t n_vocab)
{
    struct text x = {v, c, ""};
    uint64_t moe;
    vgguf_key_u32(v, arch_name(&x, "block_count"), c->n_layer);
    if (c->n_ctx_train)
        vgguf_key_u32(v, arch_name(&x, "context_length"), c->n_ctx_train);
    vgguf_key_u32(v, arch_name(&x, "embedding_length"), c->n_embd);
    layers_u32(&x, "feed_forward_length", c->n_ff);
    layers_u32(&x, "attention.head_count", c->n_head);
    layers_u32(&x, "attention.head_count_kv", c->n_head_kv);
    vgguf_key_u32(v, arch_name(&x, "attention.key_length"), c->head_dim_k);
    vgguf_key_u32(v, arch_name(&x, "attention.value_length"), c->head_dim_v);
    vgguf_key_u32(v, arch_name(&x, "rope.dimension_count"), c->n_rot);
    vgguf_key_f32(v, arch_name(&x, "rope.freq_base"), c->rope_theta);
    vgguf_key_f32(v,
                  arch_name(&x, c->norm == ARCH_NORM_LAYER ? "attention.layer_norm_epsilon"
                                                           : "attention.layer_norm_rms_epsilon"),
                  c->norm_eps);
    vgguf_key_u32(v, arch_name(&x, "vocab_size"), n_vocab);
    if (c->n_expert) {
        vgguf_key_u32(v, arch_name(&x, "expert_count"), c->n_expert);
        vgguf_key_u32(v, arch_name(&x, "expert_used_count"), c->n_expert_used);
        if (json_uint(json_get(apr_meta(v->a), "moe_intermediate_size"), &moe) && moe <= UINT32_MAX)
            vgguf_key_u32(v, arch_name(&x, "expert_feed_forward_length"), (uint32_t)moe);
    }
}

static bool says(const struct vgguf *v, const char *const *name)
{
    for (; *name; name++) {
        const cJSON *m = json_get(apr_meta(v->a), *name);
        if (m && !cJSON_IsNull(m))
            return true;
    }
    return false;
}

/* What the file does not say, and who says it instead. */
static int note_dimensions(struct vgguf *v, const struct arch_config *c, struct err *e)
{
    static const char *const theta[] = {"rope_theta", NULL};
    static const char *const eps[] = {"rms_norm_eps", "layer_norm_eps", "norm_eps", NULL};
    int rc = 0;
    if (!says(v, theta))
        rc = vgguf_note_add(v, e, "rope.freq_base: %g, the Rust readers' default for '%s'",
                            (double)c->rope_theta, c->arch);
    if (rc == 0 && !says(v, eps))
        rc = vgguf_note_add(v, e, "norm epsilon: %g, the default of architecture '%s'",
                            (double)c->norm_eps, c->arch);
    return rc;
}

/* --- tokenizer --- */

enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_BYTE = 6,
};

/* The readers of a .apr find tokens that must not be split by how they are spelled. (apr-v2.md §3.3:
 * "<|...|>", or "<word>" and "</word>" of at most 20 characters, lower-case letters and "_".) */
static uint32_t type_by_spelling(const char *s, bool spm)
{
    size_t n = strlen(s);
    if (strcmp(s, "<unk>") == 0)
        return TOKEN_UNKNOWN;
    if (spm && n == 6 && strncmp(s, "<0x", 3) == 0 && s[5] == '>')
        return TOKEN_BYTE;
    if (n >= 4 && strncmp(s, "<|", 2) == 0 && strcmp(s + n - 2, "|>") == 0)
        return TOKEN_CONTROL;
    if (n < 3 || n > 20 || s[0] != '<' || s[n - 1] != '>')
        return TOKEN_NORMAL;
    size_t at = s[1] == '/' ? 2 : 1;
    if (at == n - 1)
        return TOKEN_NORMAL;
    for (; at < n - 1; at++)
        if (!((s[at] >= 'a' && s[at] <= 'z') || s[at] == '_'))
            return TOKEN_NORMAL;
    return TOKEN_CONTROL;
}

static int put_types(struct vgguf *v, const cJSON *vocab, uint64_t n, bool spm, struct err *e)
{
    const cJSON *types = json_get(apr_meta(v->a), "tokenizer.token_type"), *item;
    static const char name[] = "tokenizer.ggml.token_type";
    if (cJSON_IsArray(types)) {
        if ((uint64_t)cJSON_GetArraySize(types) != n)
            return err_set(e, -EUCLEAN,
                           "metadata: tokenizer.token_type and the vocabulary differ "
                           "in length");
        return vgguf_key_json(v, name, strlen(name), GGUF_ARRAY, GGUF_I32, types, false, e);
    }
    vgguf_key_array(v, name, GGUF_I32, n);
    cJSON_ArrayForEach(item, vocab) vgguf_put_u32(&v->keys, type_by_spelling(json_text(item), spm));
    return vgguf_note_add(v, e,
                          "tokenizer.ggml.token_type: by the tokens' spelling, as the readers of "
                          ".apr find special tokens");
}

static const char *tokenizer_model(const cJSON *meta)
{
    const char *s = json_text(json_get(meta, "tokenizer.model"));
    if (!s || !*s)
        s = json_text(json_get(meta, "tokenizer.model_type"));
    return s && *s ? s : NULL;
}

static int put_pieces(struct vgguf *v, bool bpe, uint64_t n, struct err *e)
{
    static const char merges[] = "tokenizer.ggml.merges", scores[] = "tokenizer.ggml.scores";
    const cJSON *m = json_get(apr_meta(v->a), "tokenizer.merges");
    const cJSON *s = json_get(apr_meta(v->a), "tokenizer.scores");
    int rc = 0;
    if (bpe && !cJSON_IsArray(m))
        return err_set(e, -ENOENT, "tokenizer.merges is missing: its vocabulary cannot be used");
    if (!bpe && !cJSON_IsArray(s))
        return err_set(e, -ENOENT, "tokenizer.scores is missing: its vocabulary cannot be used");
    if (cJSON_IsArray(s) && (uint64_t)cJSON_GetArraySize(s) != n)
        return err_set(e, -EUCLEAN,
                       "metadata: tokenizer.scores and the vocabulary differ in length");
    if (cJSON_IsArray(m))
        rc = vgguf_key_json(v, merges, strlen(merges), GGUF_ARRAY, GGUF_STRING, m, false, e);
    if (rc == 0 && cJSON_IsArray(s))
        rc = vgguf_key_json(v, scores, strlen(scores), GGUF_ARRAY, GGUF_F32, s, false, e);
    return rc;
}

static int put_special(struct vgguf *v, const struct arch_config *c, struct err *e)
{
    const cJSON *meta = apr_meta(v->a);
    const char *pre = json_text(json_get(meta, "tokenizer.pre_type"));
    int rc = 0;
    if (pre && *pre) {
        vgguf_key_str(v, "tokenizer.ggml.pre", pre, strlen(pre));
    } else if (strncmp(c->arch, "qwen", 4) == 0) {
        vgguf_key_str(v, "tokenizer.ggml.pre", "qwen2", 5);
        rc = vgguf_note_add(v, e, "tokenizer.ggml.pre: qwen2, by the architecture '%s'", c->arch);
    }
    if (c->bos != ARCH_NO_TOKEN)
        vgguf_key_u32(v, "tokenizer.ggml.bos_token_id", (uint32_t)c->bos);
    if (c->eos != ARCH_NO_TOKEN)
        vgguf_key_u32(v, "tokenizer.ggml.eos_token_id", (uint32_t)c->eos);
    if (c->pad != ARCH_NO_TOKEN)
        vgguf_key_u32(v, "tokenizer.ggml.padding_token_id", (uint32_t)c->pad);
    const cJSON *add = json_get(meta, "tokenizer.add_bos_token");
    if (cJSON_IsBool(add))
        vgguf_key_bool(v, "tokenizer.ggml.add_bos_token", cJSON_IsTrue(add));
    put_text(v, "chat_template", "tokenizer.chat_template");
    return rc;
}

/* The vocabulary must have one token per row of the embedding, or a reader of GGUFs refuses the
 * file; without any, "no_vocab" is what such a reader calls a model that takes token ids only. */
static int put_tokenizer(struct vgguf *v, const struct arch_config *c, uint64_t rows, struct err *e)
{
    static const char tokens[] = "tokenizer.ggml.tokens";
    const cJSON *meta = apr_meta(v->a), *vocab = json_get(meta, "tokenizer.vocabulary");
    if (!cJSON_IsArray(vocab) || !vocab->child) {
        vgguf_key_str(v, "tokenizer.ggml.model", "no_vocab", 8);
        return vgguf_note_add(v, e, "tokenizer: the file has none; token ids only");
    }
    uint64_t n = (uint64_t)cJSON_GetArraySize(vocab);
    if (n != rows)
        return err_set(e, -ENOTSUP,
                       "a vocabulary of %" PRIu64 " tokens over an embedding of %" PRIu64 " rows",
                       n, rows);
    const char *model = tokenizer_model(meta);
    bool derived = !model;
    if (!model)
        model = cJSON_IsArray(json_get(meta, "tokenizer.merges")) ? "gpt2" : "llama";
    bool spm = strcmp(model, "llama") == 0;
    vgguf_key_str(v, "tokenizer.ggml.model", model, strlen(model));
    int rc = derived ? vgguf_note_add(v, e,
                                      "tokenizer.ggml.model: %s, since the file has %s, as the "
                                      "readers of .apr choose",
                                      model, spm ? "scores and no merges" : "merges")
                     : 0;
    if (rc == 0)
        rc = vgguf_key_json(v, tokens, strlen(tokens), GGUF_ARRAY, GGUF_STRING, vocab, false, e);
    if (rc == 0)
        rc = put_pieces(v, strcmp(model, "gpt2") == 0, n, e);
    if (rc == 0)
        rc = put_types(v, vocab, n, spm, e);
    return rc == 0 ? put_special(v, c, e) : rc;
}

static void put_notes(struct vgguf *v)
{
    if (!v->n_note)
        return;
    vgguf_key_array(v, "aprfs.derived", GGUF_STRING, v->n_note);
    for (size_t i = 0; i < v->n_note; i++)
        vgguf_put_str(&v->keys, v->note[i], strlen(v->note[i]));
}

static int keys(struct vgguf *v, struct arch_config *c, struct err *e)
{
    const struct arch_row *row = arch_row_find(c->arch);
    if (!row)
        return err_set(e, -ENOTSUP, "architecture '%s' has no counterpart among GGUFs", c->arch);
    snprintf(c->arch, sizeof c->arch, "%s", row->name); /* "mistral" is llama there */
    int rc = name_tensors(v, row, e);
    if (rc == 0)
        rc = check_tensors(v, c, e);
    if (rc < 0)
        return rc;
    const struct vgguf_tensor *embd = find(v, "token_embd.weight");
    uint64_t rows = embd->n_dim == 2 ? embd->ne[1] : 0;
    if (rows == 0 || rows > ARCH_MAX_DIM || embd->ne[0] != c->n_embd)
        return err_set(e, -EUCLEAN, "the embedding's shape contradicts hidden_size %" PRIu32,
                       c->n_embd);
    choose_alignment(v);
    put_general(v, c);
    put_dimensions(v, c, (uint32_t)rows);
    rc = note_dimensions(v, c, e);
    if (rc == 0)
        rc = put_tokenizer(v, c, rows, e);
    if (rc == 0)
        put_notes(v);
    return rc;
}

int vgguf_keys_foreign(struct vgguf *v, struct err *e)
{
    struct arch_config c = {0};
    int rc = apr_meta_read(apr_meta(v->a), &c, e);
    if (rc < 0)
        return rc;
    rc = keys(v, &c, e);
    arch_config_release(&c);
    return rc;
}
