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
    static const char *const begin[] = {"blk.",           "cls.",  "output",     "per_layer_",
                                        "position_embd.", "rope_", "token_embd", "token_types."};
    for (size_t i = 0; i < sizeof begin / sizeof begin[0]; i++)
        if (strncmp(s, begin[i], strlen(begin[i])) == 0)
            return true;
    return false;
}

/* What stands behind "<prefix>N.", N a number as GGUFs write it ("7", not "07" or "+7"); NULL: s is
 * none of these. */
static const char *behind_layer(const char *s, const char *prefix, uint32_t *il)
{
    size_t len = strlen(prefix);
    if (strncmp(s, prefix, len) != 0)
        return NULL;
    const char *p = s + len, *first = p;
    uint64_t n = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        if ((n = n * 10 + (uint64_t)(*p - '0')) > UINT32_MAX)
            return NULL;
    if (p == first || *p != '.' || (*first == '0' && p - first > 1))
        return NULL;
    *il = (uint32_t)n;
    return p + 1;
}

/* The GGUF's name for a Hugging Face one, malloc'ed; NULL with *known: no memory. */
static char *translate(const char *s, bool *known)
{
    char *out = NULL;
    uint32_t il;
    *known = true;
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        if (strcmp(s, whole[i].hf) == 0)
            return strdup(whole[i].gguf);
    const char *rest = behind_layer(s, "model.layers.", &il),
               *dot = rest ? strrchr(rest, '.') : NULL;
    bool usual = dot && (strcmp(dot, ".weight") == 0 || strcmp(dot, ".bias") == 0);
    for (size_t i = 0; usual && i < sizeof layered / sizeof layered[0]; i++)
        if ((size_t)(dot - rest) == strlen(layered[i].hf) &&
            strncmp(rest, layered[i].hf, strlen(layered[i].hf)) == 0)
            return asprintf(&out, "blk.%" PRIu32 ".%s%s", il, layered[i].gguf, dot) < 0 ? NULL
                                                                                        : out;
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
        if (behind_layer(v->tensor[i].name, "blk.", &il) && il < c->n_layer)
            has[il] = true;
    for (il = 0; rc == 0 && il < c->n_layer; il++)
        if (!has[il])
            rc = err_set(e, -ENOENT, "layer %" PRIu32 " of %" PRIu32 " has no tensors", il,
                         c->n_layer);
    free(has);
    for (size_t i = 0; i < v->n_tensor && rc == 0; i++)
        if (strstr(v->tensor[i].name, "_exps.") && (!c->n_expert || !c->n_expert_used))
            rc = err_set(e, -ENOENT, "tensor '%s': experts, but metadata %s is missing",
                         v->tensor[i].name, c->n_expert ? "num_experts_per_tok" : "num_experts");
    if (rc == 0 && !find(v, "token_embd.weight"))
        rc = err_set(e, -ENOENT, "no embedding: tensor 'token_embd.weight' is missing");
    return rc;
}

/* Vectors: llama.cpp's graphs multiply and add those as F32 only, as its own converter writes them. */
static int widen_vectors(struct vgguf *v, struct err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < v->n_tensor; i++) {
        struct vgguf_tensor *t = &v->tensor[i];
        if (t->n_dim != 1 || (t->type != QUANT_F16 && t->type != QUANT_BF16))
            continue;
        t->conv = quant_type(t->type);
        t->type = QUANT_F32;
        t->size = 2 * t->src_size; /* at most a file's size: below 2^64 */
        n++;
    }
    return n ? vgguf_note_add(v, e, "%zu vectors of 16-bit floats: widened to F32", n) : 0;
}

/* Rows per head of a projection, of the layers that have it, where they agree; else 0. */
static uint32_t rows_per_head(const struct vgguf *v, const struct arch_config *c, const char *name)
{
    uint64_t dim = 0;
    for (size_t i = 0; i < v->n_tensor; i++) {
        const struct vgguf_tensor *t = &v->tensor[i];
        uint32_t il;
        const char *rest = behind_layer(t->name, "blk.", &il);
        if (!rest || strcmp(rest, name) != 0 || t->n_dim != 2 || il >= c->n_layer ||
            !c->n_head_kv[il])
            continue;
        uint64_t d = t->ne[1] / c->n_head_kv[il];
        if (t->ne[1] % c->n_head_kv[il] != 0 || d > ARCH_MAX_HEAD || (dim && d != dim))
            return 0;
        dim = d;
    }
    return (uint32_t)dim;
}

/* Where the file does not say how large a head is, the tensors do: n_embd / n_head, which is what its
 * own readers begin with, is another number in qwen3 and gemma3. */
static int derive_heads(struct vgguf *v, struct arch_config *c, struct err *e)
{
    const cJSON *said = json_get(apr_meta(v->a), "head_dim");
    if (said && !cJSON_IsNull(said))
        return 0;
    uint32_t k = rows_per_head(v, c, "attn_k.weight"), w = rows_per_head(v, c, "attn_v.weight");
    bool other = (k && k != c->head_dim_k) || (w && w != c->head_dim_v);
    if (k)
        c->head_dim_k = c->n_rot = k;
    if (w)
        c->head_dim_v = w;
    return other ? vgguf_note_add(v, e,
                                  "attention.key_length, value_length: %" PRIu32 ", %" PRIu32
                                  ", by the rows of attn_k and attn_v",
                                  c->head_dim_k, c->head_dim_v)
                 : 0;
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

void vgguf_put_text(struct vgguf *v, const char *member, const char *key)
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
        vgguf_put_text(v, pair[i][0], pair[i][1]);
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

/* --- what no file of theirs can say --- */

/* Rotates whole heads, as every model of it does. */
static bool rotates_all(const struct arch_row *row)
{
    static const char *const name[] = {"gemma",    "gemma2", "gemma3",  "qwen2",
                                       "qwen2moe", "qwen3",  "qwen3moe"};
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
        if (strcmp(row->name, name[i]) == 0)
            return true;
    return row->rot_is_head || row->rope == ARCH_ROPE_NONE;
}

/* Keys of the row's list that put_dimensions() writes, or that only experts need. */
static bool is_told(const struct vgguf *v, const struct arch_config *c, const char *key, size_t len)
{
    static const char *const name[] = {"vocab_size", "attention.key_length",
                                       "attention.value_length"};
    static const char moe[] = "expert_feed_forward_length";
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
        if (len == strlen(name[i]) && memcmp(key, name[i], len) == 0)
            return true;
    if (len == strlen(moe) && memcmp(key, moe, len) == 0 &&
        json_get(apr_meta(v->a), "moe_intermediate_size"))
        return true;
    return !c->n_expert && len > 7 && memcmp(key, "expert_", 7) == 0;
}

/* What most published models of an architecture set, and otherwise than llama.cpp does where it is not said:
 * without it another model would be computed. Sources: config.json of microsoft/phi-2 (partial_rotary_factor
 * 0.4), stabilityai/stablelm-* (0.25), nvidia/Nemotron-4-* and THUDM/glm-4-* (0.5), MiniMaxAI/MiniMax-M2
 * (rotary_dim 64 of 128), ALiBi of core42/jais-* and mosaicml/mpt-*; src/models of llama.cpp for its
 * defaults (the whole head, no ALiBi). */
static bool always_set(const char *arch, const char *key, size_t len)
{
    static const char *const set[][2] = {
        {"chatglm", "rope.dimension_count"},  {"glm4", "rope.dimension_count"},
        {"glm4moe", "rope.dimension_count"},  {"minimax-m2", "rope.dimension_count"},
        {"nemotron", "rope.dimension_count"}, {"phi2", "rope.dimension_count"},
        {"stablelm", "rope.dimension_count"}, {"jais", "attention.max_alibi_bias"},
        {"mpt", "attention.max_alibi_bias"},
    };
    for (size_t i = 0; i < sizeof set / sizeof set[0]; i++)
        if (strcmp(set[i][0], arch) == 0 && strlen(set[i][1]) == len &&
            memcmp(set[i][1], key, len) == 0)
            return true;
    return false;
}

static int unsayable(const struct arch_row *row, const char *prefix, const char *key, size_t len,
                     struct err *e)
{
    return err_set(e, -ENOTSUP,
                   "architecture '%s': a GGUF of it must have the key %s%s%.*s, which this file "
                   "cannot say",
                   row->name, prefix, *prefix ? "." : "", (int)len, key);
}

/* Keys that llama.cpp reads for this architecture and that no .apr of theirs has a member for. Without
 * some it refuses the file, or computes another model; of the others it takes its default, which is not the
 * .apr's word. */
static int note_unsaid(struct vgguf *v, const struct arch_row *row, const struct arch_config *c,
                       struct err *e)
{
    static const char sections[] = "rope.dimension_sections", rot[] = "rope.dimension_count";
    char list[1024] = "";
    size_t n = 0;
    if (always_set(row->name, rot, strlen(rot)))
        return unsayable(row, row->name, rot, strlen(rot), e);
    if (!rotates_all(row))
        n = (size_t)snprintf(list, sizeof list, "%s", rot);
    for (const char *p = row->keys, *end; p && *p; p = *end ? end + 1 : end) {
        end = strchrnul(p, ' ');
        bool need = false, alone = false;
        for (; *p == '!' || *p == '/'; p++) {
            need = need || *p == '!';
            alone = alone || *p == '/';
        }
        size_t len = (size_t)(end - p);
        if (is_told(v, c, p, len))
            continue;
        /* Optional where it only chooses between rotations; where it is these, llama.cpp aborts. */
        need = need || ((row->rope == ARCH_ROPE_MROPE || row->rope == ARCH_ROPE_IMROPE) &&
                        len == strlen(sections) && memcmp(p, sections, len) == 0);
        if (need || always_set(row->name, p, len))
            return unsayable(row, alone ? "" : row->name, p, len, e);
        if (len + 3 < sizeof list - n)
            n += (size_t)sprintf(list + n, "%s%.*s", n ? ", " : "", (int)len, p);
    }
    return n ? vgguf_note_add(v, e, "llama.cpp's defaults, since a .apr has no word for them: %s",
                              list)
             : 0;
}

/* A GGUF has no key for it: llama.cpp goes by the architecture. */
static int note_rope_type(struct vgguf *v, const struct arch_row *row, struct err *e)
{
    uint64_t said;
    uint32_t does = arch_rope_type(row->rope);
    if (!json_uint(json_get(apr_meta(v->a), "rope_type"), &said) || said == does ||
        row->rope == ARCH_ROPE_NONE)
        return 0;
    return vgguf_note_add(v, e,
                          "rope_type %" PRIu64 " of the file: not obeyed, for llama.cpp computes "
                          "'%s' with %" PRIu32,
                          said, row->name, does);
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
    if (rc == 0 && !c->n_ctx_train)
        rc = err_set(e, -ENOENT,
                     "metadata: max_position_embeddings is missing or 0: llama.cpp "
                     "loads no file without a context length");
    if (rc == 0)
        rc = widen_vectors(v, e);
    if (rc == 0)
        rc = derive_heads(v, c, e);
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
        rc = note_rope_type(v, row, e);
    if (rc == 0)
        rc = note_unsaid(v, row, c, e);
    if (rc == 0)
        rc = vgguf_put_tokenizer(v, c, rows, e);
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
