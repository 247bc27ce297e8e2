/* One pass over the tensor directory: what shapes and presence say about the model. */
#include "format/arch_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* "blk.17.attn_q.weight": *il = 17 and the rest "attn_q.weight"; false for other names. */
static bool block_name(struct gguf_str name, uint32_t *il, struct gguf_str *rest)
{
    if (name.len < 6 || memcmp(name.p, "blk.", 4) != 0)
        return false;
    uint32_t n = 0;
    size_t i = 4;
    for (; i < name.len && name.p[i] >= '0' && name.p[i] <= '9'; i++) {
        n = n * 10 + (uint32_t)(name.p[i] - '0');
        if (n > ARCH_MAX_LAYER)
            return false;
    }
    if (i == 4 || i >= name.len || name.p[i] != '.')
        return false;
    *il = n;
    *rest = (struct gguf_str){name.p + i + 1, name.len - i - 1};
    return true;
}

static uint32_t dim32(uint64_t v)
{
    return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

static void block_fact(struct arch_layer_facts *l, struct gguf_str s, const struct gguf_tensor *t)
{
    if (gguf_str_eq(s, "attn_q.weight"))
        l->q_rows = dim32(t->ne[1]);
    else if (gguf_str_eq(s, "attn_k.weight"))
        l->k_rows = dim32(t->ne[1]);
    else if (gguf_str_eq(s, "attn_v.weight"))
        l->v_rows = dim32(t->ne[1]);
    else if (gguf_str_eq(s, "attn_qkv.weight"))
        l->qkv_rows = dim32(t->ne[1]);
    else if (gguf_str_eq(s, "ffn_down.weight"))
        l->down_in = dim32(t->ne[0]);
    else if (gguf_str_eq(s, "ffn_up.weight"))
        l->up_out = dim32(t->ne[1]);
    else if (gguf_str_eq(s, "ffn_gate.weight"))
        l->gate = true;
    else if (gguf_str_eq(s, "ffn_gate_exps.weight") || gguf_str_eq(s, "ffn_gate_up_exps.weight"))
        l->gate_exps = true;
    else if (gguf_str_eq(s, "ffn_up_exps.weight"))
        l->up_exps = true;
    else if (gguf_str_eq(s, "attn_output.weight"))
        l->attn = true;
}

static void model_fact(struct arch_tensor_facts *f, struct gguf_str name,
                       const struct gguf_tensor *t)
{
    if (gguf_str_eq(name, "token_embd.weight")) {
        f->has_embd = true;
        f->embd_width = t->ne[0];
        f->embd_rows = t->ne[1];
    } else if (gguf_str_eq(name, "output.weight")) {
        f->has_output = true;
    } else if (gguf_str_eq(name, "rope_freqs.weight")) {
        f->rope_freqs = true;
    } else if (gguf_str_eq(name, "rope_factors_long.weight") ||
               gguf_str_eq(name, "rope_factors_short.weight")) {
        f->rope_long = true;
    }
}

int arch_facts_read(struct arch_tensor_facts *f, const struct gguf *g, uint32_t n_layer,
                    struct err *e)
{
    *f = (struct arch_tensor_facts){.n_alloc = n_layer};
    f->layer = calloc(n_layer ? n_layer : 1, sizeof *f->layer);
    if (!f->layer)
        return err_set(e, -ENOMEM, "no memory for the facts of %u layers", n_layer);
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        uint32_t il;
        struct gguf_str s, name = t->name;
        f->any = true;
        bool half =
            name.len > 4 && (memcmp(name.p, "enc.", 4) == 0 || memcmp(name.p, "dec.", 4) == 0);
        if (half) /* T5: both halves have blocks of the same kind, the decoder its own count */
            name = (struct gguf_str){name.p + 4, name.len - 4};
        if (!block_name(name, &il, &s)) {
            model_fact(f, t->name, t);
            continue;
        }
        if (il >= f->n_layer && !half)
            f->n_layer = il + 1;
        if (gguf_str_eq(s, "attn_q.bias") || gguf_str_eq(s, "attn_qkv.bias"))
            f->qkv_bias = true;
        else if (gguf_str_eq(s, "attn_q_norm.weight"))
            f->qk_norm = true;
        else if (gguf_str_eq(s, "post_ffw_norm.weight"))
            f->post_norms = true;
        else if (il < n_layer)
            block_fact(&f->layer[il], s, t);
    }
    return 0;
}

void arch_facts_release(struct arch_tensor_facts *f)
{
    free(f->layer);
    f->layer = NULL;
}
