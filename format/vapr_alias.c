/* Second names for bytes that a GGUF stores once or fused, so that readers which know only separate
 * tensors find them. A name that the file itself uses is never taken.
 *
 * - Tied head: "output.weight" over token_embd.weight.
 * - Fused QKV: rows of blk.N.attn_qkv stand in the order Q, K, V, so each is a row range and gets
 *   its GGUF name. Only where head counts and head sizes add up to exactly its rows, and not where
 *   the tensor is something else under the same name: recurrent layers (ssm_* beside it) and
 *   minimax-01, which interleaves the three by head.
 * - Fused gate and up: the first half of blk.N.ffn_up is the gate, the second is up. The GGUF name
 *   of the second is taken by the whole, and "blk.N.ffn_gate.weight" alone would be a trap: a
 *   reader that finds it would multiply with the whole of ffn_up. So both halves get Hugging Face's
 *   names, which every Rust reader asks for first; a reader of GGUF names keeps seeing a fused
 *   layer without a gate. (Source: specification of APR v2, section 7.) */
#include "format/vapr_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Encoders: token_embd is no head there. Source: the tensors that llama.cpp 0c1e570 loads. */
static const char *const headless[] = {
    "bert",     "nomic-bert",       "nomic-bert-moe",   "jina-bert-v2", "jina-bert-v3",
    "neo-bert", "modern-bert",      "eurobert",         "t5encoder",    "gemma-embedding",
    "clip",     "wavtokenizer-dec", "gemma4-assistant", "llama-embed",
};

static bool has_head(const struct vapr *v, const struct arch_config *c)
{
    for (size_t i = 0; i < sizeof headless / sizeof headless[0]; i++)
        if (strcmp(c->arch, headless[i]) == 0)
            return false;
    char key[ARCH_NAME_MAX + 32];
    bool causal = true;
    snprintf(key, sizeof key, "%s.attention.causal", c->arch);
    gguf_as_bool(gguf_find(v->g, key), &causal);
    /* What we have no row for is taken for a decoder if it ends as one. */
    return causal && (c->known || gguf_find_tensor(v->g, "output_norm.weight"));
}

/* A name for n_row rows of entry number target from row on; n_row 0: all of it. */
static int alias_add(struct vapr *v, size_t target, const char *name, uint64_t row, uint64_t n_row,
                     struct err *e)
{
    if (gguf_find_tensor(v->g, name))
        return 0;
    struct vapr_entry *n = vapr_entry_add(v, name, strlen(name), e);
    if (!n)
        return -ENOMEM;
    const struct vapr_entry *of = &v->entry[target];
    const char *own = n->t.name;
    n->t = of->t;
    n->t.name = own;
    n->t.alias = true;
    n->target = target;
    n->of = of->t.name;
    n->row = row;
    uint64_t src, shown;
    if (n_row > 0 && vapr_row_sizes(&of->t, &src, &shown)) {
        n->t.dim[0] = n_row;
        n->t.src_off += row * src;
        n->t.src_size = n_row * src;
        n->t.size = n_row * shown;
    }
    return 0;
}

/* Q, K and V rows of layer il; false unless all are there and fit into 32 bits each. */
static bool qkv_rows(const struct arch_config *c, uint32_t il, uint64_t rows[3])
{
    bool local = c->layer_local && c->layer_local[il];
    uint64_t k = local ? c->head_dim_k_swa : c->head_dim_k;
    uint64_t w = local ? c->head_dim_v_swa : c->head_dim_v;
    rows[0] = c->n_head[il] * k;
    rows[1] = c->n_head_kv[il] * k;
    rows[2] = c->n_head_kv[il] * w;
    return rows[0] > 0 && rows[1] > 0 && rows[2] > 0 && rows[0] <= UINT32_MAX &&
           rows[1] <= UINT32_MAX && rows[2] <= UINT32_MAX;
}

static int alias_qkv(struct vapr *v, const struct arch_config *c, uint32_t il, size_t target,
                     const char *suffix, struct err *e)
{
    const struct vapr_tensor *t = &v->entry[target].t;
    uint64_t rows[3], src, shown, row = 0;
    if (!qkv_rows(c, il, rows) || !vapr_row_sizes(t, &src, &shown) ||
        rows[0] + rows[1] + rows[2] != t->dim[0])
        return 0;
    char name[3][64];
    for (int i = 0; i < 3; i++) {
        snprintf(name[i], sizeof name[i], "blk.%" PRIu32 ".attn_%c.%s", il, "qkv"[i], suffix);
        if (gguf_find_tensor(v->g, name[i]))
            return 0; /* all three or none */
    }
    int rc = 0;
    for (int i = 0; i < 3 && rc == 0; i++) {
        rc = alias_add(v, target, name[i], row, rows[i], e);
        row += rows[i];
    }
    return rc;
}

static int alias_gate_up(struct vapr *v, const struct arch_config *c, uint32_t il, size_t target,
                         struct err *e)
{
    const struct vapr_tensor *t = &v->entry[target].t;
    uint64_t src, shown, half = c->n_ff[il];
    char name[80];
    snprintf(name, sizeof name, "blk.%" PRIu32 ".ffn_gate.weight", il);
    if (!c->ffn_gated || half == 0 || t->n_dim != 2 || t->dim[0] != 2 * half ||
        !vapr_row_sizes(t, &src, &shown) || gguf_find_tensor(v->g, name))
        return 0;
    snprintf(name, sizeof name, "model.layers.%" PRIu32 ".mlp.gate_proj.weight", il);
    int rc = alias_add(v, target, name, 0, half, e);
    snprintf(name, sizeof name, "model.layers.%" PRIu32 ".mlp.up_proj.weight", il);
    return rc < 0 ? rc : alias_add(v, target, name, half, half, e);
}

/* "blk.7.attn_q.weight": *il = 7 and the rest behind "blk.7."; NULL for other names, "blk.07."
 * among them. */
static const char *block_name(const char *name, uint32_t *il)
{
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9')
        return NULL;
    if (name[4] == '0' && name[5] != '.')
        return NULL;
    uint64_t n = 0;
    const char *p = name + 4;
    for (; *p >= '0' && *p <= '9'; p++)
        if ((n = n * 10 + (uint64_t)(*p - '0')) > UINT32_MAX)
            return NULL;
    *il = (uint32_t)n;
    return *p == '.' ? p + 1 : NULL;
}

static int alias_block(struct vapr *v, const struct arch_config *c, uint32_t il, size_t i,
                       const char *rest, bool recurrent, struct err *e)
{
    if (c->fused_gate_up && strcmp(rest, "ffn_up.weight") == 0)
        return alias_gate_up(v, c, il, i, e);
    if (!c->fused_qkv || recurrent || strcmp(c->arch, "minimax-01") == 0)
        return 0;
    if (strcmp(rest, "attn_qkv.weight") == 0)
        return v->entry[i].t.n_dim == 2 ? alias_qkv(v, c, il, i, "weight", e) : 0;
    if (strcmp(rest, "attn_qkv.bias") == 0)
        return v->entry[i].t.n_dim == 1 ? alias_qkv(v, c, il, i, "bias", e) : 0;
    return 0;
}

int vapr_plan_aliases(struct vapr *v, const struct arch_config *c, struct err *e)
{
    size_t n = v->n_entry;
    uint32_t il;
    if (n == 0)
        return 0;
    bool *recurrent = calloc((size_t)c->n_layer + 1, sizeof *recurrent);
    if (!recurrent)
        return err_set(e, -ENOMEM, "no memory for %u layers", c->n_layer);
    for (size_t i = 0; i < n; i++) {
        const char *rest = block_name(v->entry[i].t.name, &il);
        if (rest && il < c->n_layer && strncmp(rest, "ssm_", 4) == 0)
            recurrent[il] = true;
    }
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        const char *name = v->entry[i].t.name, *rest = block_name(name, &il);
        if (rest && il < c->n_layer && c->n_head && c->n_head_kv && c->n_ff)
            rc = alias_block(v, c, il, i, rest, recurrent[il], e);
        else if (strcmp(name, "token_embd.weight") == 0 && v->entry[i].t.n_dim == 2 &&
                 has_head(v, c))
            rc = alias_add(v, i, "output.weight", 0, 0, e);
    }
    free(recurrent);
    return rc;
}
