/* The resolver: what a model is, from its GGUF keys and tensors, by rules per architecture.
 *
 * One row per GGUF architecture string (arch_table.c; source: llama.cpp 0c1e570 of 1 October 2026).
 * Two value sets stand side by side: reference = what llama.cpp computes with, compat = what the
 * Rust stack (paiml/realizar, aprender-serve) would take. The reference value is stamped into the
 * .apr (the compat one on request); every difference can be reported. A key that the architecture
 * does not read never changes a value. */
#ifndef APRFS_FORMAT_ARCH_H
#define APRFS_FORMAT_ARCH_H

#include "format/err.h"
#include "format/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARCH_NAME_MAX 64
#define ARCH_NO_TOKEN (-1)

enum arch_rope {
    ARCH_ROPE_NONE,
    ARCH_ROPE_NORM,   /* pairs (2i, 2i+1): APR rope_type 0 */
    ARCH_ROPE_NEOX,   /* pairs (i, i + n_rot/2): APR rope_type 2 */
    ARCH_ROPE_MROPE,  /* for text as NEOX; stamped 2, and marked */
    ARCH_ROPE_IMROPE, /* the same */
};

enum arch_norm {
    ARCH_NORM_RMS,
    ARCH_NORM_LAYER,
};

enum arch_act {
    ARCH_ACT_SILU,
    ARCH_ACT_GELU, /* the tanh form */
    ARCH_ACT_RELU,
    ARCH_ACT_RELU_SQR,
    ARCH_ACT_OTHER, /* no plain function of one argument: xIELU, clamped SwiGLU, ... */
};

enum arch_scaling {
    ARCH_SCALING_NONE,
    ARCH_SCALING_LINEAR, /* llama.cpp's default, with factor 1 */
    ARCH_SCALING_YARN,
    ARCH_SCALING_LONGROPE,
    ARCH_SCALING_UNKNOWN, /* a string we do not know: infer/ refuses it */
};

/* The configuration that drives a forward pass, as resolved. Two of them, one built from a GGUF and
 * one from the .apr made of it, are compared field by field (arch_config_diff). Counts that may
 * differ by layer are arrays of n_layer. */
struct arch_config {
    char arch[ARCH_NAME_MAX]; /* general.architecture, as it stands in the file */
    bool known;               /* there is a row for it */

    uint32_t n_layer;       /* block_count: every block the file holds */
    uint32_t n_layer_nextn; /* of these, the last ones that only predict further tokens */
    uint32_t n_embd, n_vocab, n_ctx_train;
    uint32_t *n_head, *n_head_kv, *n_ff; /* [n_layer], owned; NULL if n_layer is 0 */
    uint32_t head_dim_k, head_dim_v, n_rot;
    uint32_t head_dim_k_swa, head_dim_v_swa, n_rot_swa; /* local layers; = the above if not said */

    enum arch_norm norm;
    float norm_eps;
    enum arch_act act;
    bool ffn_gated;

    enum arch_rope rope;
    float rope_theta, rope_theta_swa;
    enum arch_scaling scaling;
    float scaling_factor;      /* the file's factor, >= 1 stretches the context; default 1 */
    float scaling_factor_swa;  /* the same for local layers: scaling_factor, or 1 (gemma3) */
    uint32_t scaling_orig_ctx; /* rope.scaling.original_context_length, default n_ctx_train */
    float scaling_attn_factor; /* default 1 */
    float yarn_beta_fast, yarn_beta_slow, yarn_log_mul; /* 32, 1, 0 */
    float yarn_ext_factor;                              /* 1 for yarn, else 0 */

    uint32_t sliding_window; /* 0: none */
    uint8_t *layer_local;    /* [n_layer], owned: 1 = attends within sliding_window only */
    uint8_t *layer_rope;     /* [n_layer], owned: 1 = its queries and keys are rotated */

    float attn_scale;                  /* factor on q.k */
    float attn_softcap, final_softcap; /* 0: none */
    float embed_scale, residual_scale; /* factors, 1: none */
    float logit_scale; /* the factor on logits (granite's key is its inverse), 1: none */

    uint32_t n_expert, n_expert_used; /* 0: dense; n_expert_used: the largest of all layers */

    bool tied_head, qkv_bias, qk_norm, post_norms, fused_qkv,
        fused_gate_up; /* by presence in the file */

    int32_t bos, eos, eot, eom, unk, pad;    /* ARCH_NO_TOKEN: none */
    bool add_bos, add_eos, add_space_prefix; /* tokenizer keys; defaults of the tokenizer type */
};

void arch_config_release(struct arch_config *c);

/* Calls back for every field that differs (field name, both values as text); returns the number. */
int arch_config_diff(const struct arch_config *a, const struct arch_config *b,
                     void (*differs)(void *ctx, const char *field, const char *va, const char *vb),
                     void *ctx);

enum arch_origin {
    ARCH_FROM_KEY,
    ARCH_FROM_SHAPE,   /* a tensor's dimensions, or its presence */
    ARCH_FROM_DEFAULT, /* the architecture's row, or llama.cpp's general default */
    ARCH_UNKNOWN,
};

/* One resolved field for people and tests: explain prints these. Values as text in JSON syntax;
 * "null" where a file without tensors leaves a dimension unknown. All four texts are owned, never
 * NULL. */
struct arch_field {
    const char *name; /* the .apr's metadata key where there is one ("rms_norm_eps"), else ours */
    char *reference;
    char *compat; /* "" where the Rust stack has no such value */
    char *stamped;
    enum arch_origin origin; /* of the reference value */
    char *source; /* "qwen2.attention.layer_norm_rms_epsilon", "token_embd.weight ne[1]", ... */
    bool differs; /* reference != compat */
    bool mapped;  /* the APR has a canonical name for it */
};

struct arch_report {
    struct arch_field *field;
    size_t n_field, cap;
    char *
        *note; /* "key qwen2.attention.layer_norm_epsilon is not read by this architecture", ... */
    size_t n_note, cap_note;
};

void arch_report_release(struct arch_report *r);
const char *arch_origin_name(enum arch_origin o); /* "key", "shape", "default", "unknown" */

enum arch_values {
    ARCH_VALUES_REFERENCE,
    ARCH_VALUES_COMPAT,
};

/* Resolves g. *c is the stamped set; report may be NULL. -ENOTSUP / -EUCLEAN by name where a value
 * cannot be (epsilon outside 1e-10..0.01, zero heads, dimensions that contradict the tensors),
 * -ERANGE where a count is over our limits. An architecture without a row resolves by llama.cpp's
 * general rules, known = false. A file without any tensor (a vocabulary) resolves too: dimensions
 * it does not say are 0, the arrays then NULL. ARCH_VALUES_COMPAT replaces only what the APR has a
 * canonical key for. On failure *c is released; report keeps what was found so far and is the
 * caller's to release in either case. */
int arch_resolve(const struct gguf *g, enum arch_values values, struct arch_config *c,
                 struct arch_report *report, struct err *e);

#endif
