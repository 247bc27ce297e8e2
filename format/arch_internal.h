/* What arch.c, arch_table.c, arch_compat.c, arch_fields.c and apr_meta.c share: rows, fields, and
 * the facts one pass over the tensors gives. */
#ifndef APRFS_FORMAT_ARCH_INTERNAL_H
#define APRFS_FORMAT_ARCH_INTERNAL_H

#include "format/arch.h"

/* Our limits: whatever sizes an allocation is checked against these. */
#define ARCH_MAX_LAYER UINT32_C(4096)
#define ARCH_MAX_DIM   UINT32_C(16777216) /* n_embd, n_ff, n_vocab */
#define ARCH_MAX_HEAD  UINT32_C(65536)    /* heads, and dimensions of one head */
#define ARCH_MAX_CTX   UINT32_C(0x7fffffff)

/* The head matrix, as llama.cpp looks for it. Presence in the file decides; this only checks. */
enum arch_head {
    ARCH_HEAD_OPT,  /* output.weight, else the embedding */
    ARCH_HEAD_OWN,  /* output.weight must be there */
    ARCH_HEAD_EMB,  /* always the embedding */
    ARCH_HEAD_NONE, /* encoders: no token logits */
};

enum arch_eps_rule {
    ARCH_EPS_BY_NORM,     /* the key of the row's norm */
    ARCH_EPS_RMS_ELSE_LN, /* nemotron_h: the RMS key, else the LayerNorm key */
    ARCH_EPS_RMS_IF_SET,  /* cohere2moe: RMSNorm if its key is there and not 0, else LayerNorm */
    ARCH_EPS_EITHER,      /* no row: RMS key, else LayerNorm key, and the norm with it */
};

enum arch_swa_rule {
    ARCH_SWA_NONE,    /* a window key would not be read */
    ARCH_SWA_KEY,     /* local layers if the key is there and not 0 */
    ARCH_SWA_REQ,     /* the key must be there */
    ARCH_SWA_DEFAULT, /* always local layers; the row's window unless the key says otherwise */
    ARCH_SWA_LLAMA4,  /* chunks of 8192 unless the key is there and 0 */
    ARCH_SWA_EXAONE4, /* the 64-layer model only */
    ARCH_SWA_FIXED,   /* smallthinker: the key turns it on, the window is the row's */
    ARCH_SWA_DFLASH,  /* as KEY, and every layer when hyper connections are counted */
};

enum arch_swa_layers {
    ARCH_LOCAL_PERIOD,    /* the pattern key (array or period), else swa_period */
    ARCH_LOCAL_ARRAY,     /* the pattern key as an array, which must be there */
    ARCH_LOCAL_ALL,       /* every layer */
    ARCH_LOCAL_ATTENDING, /* lfm2: every layer that is not recurrent (n_head_kv > 0) */
};

enum arch_rope_layers {
    ARCH_ROPE_ALL_LAYERS,
    ARCH_ROPE_NOT_EACH_4TH,     /* (il + 1) % 4 != 0 */
    ARCH_ROPE_NOT_EACH_4TH_SWA, /* llama4: the same while there are local layers */
    ARCH_ROPE_NOT_FIRST_OF_4,   /* smallthinker: il % 4 != 0 while there are local layers */
    ARCH_ROPE_LOCAL,            /* local layers only */
    ARCH_ROPE_LOCAL_IF_SWA,     /* local layers only, all if there are none */
    ARCH_ROPE_LOCAL_OR_LEAD,    /* local layers, and the leading dense blocks */
    ARCH_ROPE_FINETUNED,        /* granite: rope.scaling.finetuned false turns rotation off */
    ARCH_ROPE_BY_PATTERN,       /* granite_swa: attention.rope_pattern */
};

enum arch_attn_rule {
    ARCH_ATTN_HEAD, /* 1/sqrt(head_dim_k), or attention.scale where the row reads it */
    ARCH_ATTN_ONE,
    ARCH_ATTN_WIDE, /* gemma2, gemma3: 1/sqrt(n_embd/n_head) for the model of attn_wide_layers */
    ARCH_ATTN_MLA,  /* 1/sqrt(attention.key_length_mla), where that is not 0 */
    ARCH_ATTN_MLA_YARN, /* the same times the square of YaRN's magnitude (deepseek2) */
    ARCH_ATTN_GROK,     /* attention.output_scale, default 0.0883883... */
};

enum arch_embed_rule {
    ARCH_EMBED_KEY, /* embedding_scale where the row reads it, else 1 */
    ARCH_EMBED_SQRT /* sqrt(n_embd) */
};

/* One architecture. All zero = a plain pre-norm RMS, SiLU-gated decoder; a row names what differs.
 */
struct arch_row {
    const char *name;
    enum arch_rope rope;
    bool rope_sections; /* MROPE instead, if rope.dimension_sections[0] and [1] are > 0 */
    bool rope_dflash;   /* MROPE if any section is not 0; NORM with hyper connections */
    enum arch_rope_layers rope_layers;
    enum arch_norm norm;
    enum arch_eps_rule eps;
    float eps_default; /* arch-resolver.md §8.3; 0: 1e-5. llama.cpp has none */
    enum arch_act act;
    bool ungated; /* presence of a gate in the file decides; this is for files without dense FFN */
    bool hidden_act;        /* reads hidden_activation */
    bool gated_gelu;        /* t5: with a gate the function is GELU */
    bool recurrent;         /* head counts may be missing or 0 */
    bool linear_qkv;        /* attn_qkv belongs to linear attention: no fused QKV of attention */
    bool rot_is_head;       /* rope.dimension_count must be the head size */
    bool head_v_lora;       /* V's head size is attention.kv_lora_rank */
    bool rope_alpha;        /* hunyuan: rope.scaling.alpha stretches the base */
    bool nextn_probe;       /* deepseek4: nextn blocks count only if their tensors are there */
    bool no_experts_if_one; /* hunyuan: an expert_count of 1 means none */
    bool rot_halved;        /* step35: global layers rotate half of rope.dimension_count */
    bool features;          /* wavtokenizer: the embedding's width is features_length */
    enum arch_head head;

    enum arch_swa_rule swa;
    uint32_t swa_window, swa_period;
    enum arch_swa_layers swa_layers;
    bool swa_dense_first;
    bool swa_base_same;  /* local base defaults to the global one, else to 1e4 */
    bool swa_scale_same; /* local layers are stretched like the global ones, else not */

    enum arch_attn_rule attn;
    uint32_t attn_wide_layers;
    bool attn_cap; /* attention logits are capped: the key, else attn_cap_default */
    float attn_cap_default;
    bool final_cap; /* final logits likewise */
    float final_cap_default;
    enum arch_embed_rule embed;
    float embed_default, residual_default, logit_default; /* 0: none */
    bool logit_divides;                                   /* logits are divided by logit_scale */
    bool minicpm;         /* residual and logit defaults follow from n_layer and n_embd */
    bool yarn_log_tenth;  /* rope.scaling.yarn_log_multiplier is stored times 0.1 */
    float yarn_beta_fast; /* 0: 32 */

    /* Keys under "<arch>." that it reads beyond the general ones, space separated; "!" before those
     * without which llama.cpp refuses the file, "/" before names that stand alone. */
    const char *keys;
};

extern const struct arch_row arch_rows[];
extern const size_t arch_n_row;

/* The row of an architecture string, exact; or of one of the names that other writers use for it
 * (arch-resolver.md §1: "mistral" is llama). NULL: none. */
const struct arch_row *arch_row_find(const char *arch);

/* True if the row reads "<arch>.<key>" beyond the general keys; *required if not NULL. */
bool arch_row_reads(const struct arch_row *row, const char *key, size_t len, bool *required);

/* True for keys read for every architecture. */
bool arch_general_key(const char *key, size_t len);

/* Fields of struct arch_config, in the order of reports and of "aprfs.config". */
enum arch_kind {
    ARCH_KIND_U32,
    ARCH_KIND_I32,
    ARCH_KIND_F32,
    ARCH_KIND_BOOL,
    ARCH_KIND_U32S, /* uint32_t *[n_layer] */
    ARCH_KIND_U8S,  /* uint8_t *[n_layer], 0 or 1 */
    ARCH_KIND_NORM,
    ARCH_KIND_ACT,
    ARCH_KIND_ROPE,
    ARCH_KIND_SCALING,
};

enum arch_fid {
    ARCH_F_N_LAYER,
    ARCH_F_N_LAYER_NEXTN,
    ARCH_F_N_EMBD,
    ARCH_F_N_VOCAB,
    ARCH_F_N_CTX,
    ARCH_F_N_HEAD,
    ARCH_F_N_HEAD_KV,
    ARCH_F_N_FF,
    ARCH_F_HEAD_DIM_K,
    ARCH_F_HEAD_DIM_V,
    ARCH_F_N_ROT,
    ARCH_F_HEAD_DIM_K_SWA,
    ARCH_F_HEAD_DIM_V_SWA,
    ARCH_F_N_ROT_SWA,
    ARCH_F_NORM,
    ARCH_F_NORM_EPS,
    ARCH_F_ACT,
    ARCH_F_FFN_GATED,
    ARCH_F_ROPE,
    ARCH_F_ROPE_THETA,
    ARCH_F_ROPE_THETA_SWA,
    ARCH_F_SCALING,
    ARCH_F_SCALING_FACTOR,
    ARCH_F_SCALING_FACTOR_SWA,
    ARCH_F_SCALING_ORIG_CTX,
    ARCH_F_SCALING_ATTN_FACTOR,
    ARCH_F_YARN_BETA_FAST,
    ARCH_F_YARN_BETA_SLOW,
    ARCH_F_YARN_LOG_MUL,
    ARCH_F_YARN_EXT_FACTOR,
    ARCH_F_SLIDING_WINDOW,
    ARCH_F_LAYER_LOCAL,
    ARCH_F_LAYER_ROPE,
    ARCH_F_ATTN_SCALE,
    ARCH_F_ATTN_SOFTCAP,
    ARCH_F_FINAL_SOFTCAP,
    ARCH_F_EMBED_SCALE,
    ARCH_F_RESIDUAL_SCALE,
    ARCH_F_LOGIT_SCALE,
    ARCH_F_N_EXPERT,
    ARCH_F_N_EXPERT_USED,
    ARCH_F_TIED_HEAD,
    ARCH_F_QKV_BIAS,
    ARCH_F_QK_NORM,
    ARCH_F_POST_NORMS,
    ARCH_F_FUSED_QKV,
    ARCH_F_FUSED_GATE_UP,
    ARCH_F_BOS,
    ARCH_F_EOS,
    ARCH_F_EOT,
    ARCH_F_EOM,
    ARCH_F_UNK,
    ARCH_F_PAD,
    ARCH_F_ADD_BOS,
    ARCH_F_ADD_EOS,
    ARCH_F_ADD_SPACE_PREFIX,
    ARCH_N_FIELD,
};

struct arch_field_desc {
    const char *name; /* in aprfs.config */
    const char *key;  /* the APR's canonical key, NULL: none */
    enum arch_kind kind;
    size_t off; /* in struct arch_config */
};

extern const struct arch_field_desc arch_fields[ARCH_N_FIELD];

static inline void *arch_field_at(const struct arch_config *c, enum arch_fid f)
{
    return (char *)(uintptr_t)c + arch_fields[f].off;
}

/* The value as text in JSON syntax, malloc'ed; NULL: no memory. */
struct json_out;
void arch_field_put(struct json_out *o, const struct arch_config *c, enum arch_fid f);
char *arch_field_text(const struct arch_config *c, enum arch_fid f);
bool arch_field_equal(const struct arch_config *a, const struct arch_config *b, enum arch_fid f);
/* Copies one field; arrays are duplicated. dst's n_layer must be src's. -ENOMEM. */
int arch_field_copy(struct arch_config *dst, const struct arch_config *src, enum arch_fid f);
int arch_config_copy(struct arch_config *dst,
                     const struct arch_config *src); /* dst uninitialised */
/* Allocates the per-layer arrays for c->n_layer, zeroed, layer_rope 1. -ENOMEM. */
int arch_config_alloc(struct arch_config *c);
/* Everything a config has where nothing says otherwise; arrays NULL. */
void arch_config_defaults(struct arch_config *c);

/* Names of enum values in JSON metadata: "rms", "silu", "neox", "yarn"; parse: -1 if unknown. */
const char *arch_enum_name(enum arch_kind kind, int v);
int arch_enum_parse(enum arch_kind kind, const char *s);

/* 0 for pairs side by side, 2 for split halves; NONE 0, MROPE and IMROPE 2 (arch-resolver §8.4). */
uint32_t arch_rope_type(enum arch_rope r);

/* Checks what both a GGUF and an APR may say wrong: limits, zeros, contradictions. no_tensors: the
 * dimensions may be 0. who names the source in messages. */
int arch_config_check(const struct arch_config *c, bool no_tensors, const char *who, struct err *e);

/* What the tensors say, from one pass over the directory. 0 / false: nothing. */
struct arch_layer_facts {
    uint32_t q_rows, k_rows, v_rows; /* ne[1] of attn_q, attn_k, attn_v .weight */
    uint32_t down_in, up_out;        /* ne[0] of ffn_down, ne[1] of ffn_up */
    uint32_t qkv_rows;
    bool attn, gate, gate_exps, up_exps;
};

struct arch_tensor_facts {
    bool any; /* there is a tensor at all */
    uint64_t embd_rows, embd_width;
    bool has_embd, has_output, qkv_bias, qk_norm, post_norms, rope_freqs, rope_long;
    uint32_t n_layer;               /* highest block number + 1 */
    struct arch_layer_facts *layer; /* [n_alloc] */
    uint32_t n_alloc;
};

int arch_facts_read(struct arch_tensor_facts *f, const struct gguf *g, uint32_t n_layer,
                    struct err *e);
void arch_facts_release(struct arch_tensor_facts *f);

/* The Rust stack's view (arch_compat.c): fills the fields of has[] in *c, which holds a copy of the
 * reference values. */
struct arch_compat_row {
    const char *name;
    float eps;
    enum arch_norm norm;
    enum arch_act act;
    bool gated, bias, qk_norm, tied;
    int32_t bos, eos;
};
const struct arch_compat_row *arch_compat_find(const char *arch); /* the default row if unknown */
uint32_t arch_compat_rope_type(const char *arch);
float arch_compat_theta(const char *arch);
int arch_compat_resolve(const struct gguf *g, const struct arch_tensor_facts *f,
                        struct arch_config *c, bool has[ARCH_N_FIELD]);

/* Token ids and flags (arch_token.c), with their provenance in *r's arrays. */
struct arch_prov {
    enum arch_origin origin;
    char source[160];
};
struct arch_ctx;
/* "<arch>.<key>", NULL if absent. */
const struct gguf_key *arch_key(const struct arch_ctx *x, const char *key);
/* Its value: 1, or 0 if absent, or -EUCLEAN / -ERANGE by name. *v is kept unless 1 is returned. */
int arch_key_u32(struct arch_ctx *x, const char *key, uint32_t max, uint32_t *v);
int arch_key_f32(struct arch_ctx *x, const char *key, float *v);
/* The same, and as if absent where the row does not read that key. */
int arch_row_u32(struct arch_ctx *x, const char *key, uint32_t max, uint32_t *v);
int arch_row_f32(struct arch_ctx *x, const char *key, float *v);
void arch_note(struct arch_ctx *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void arch_prov_set(struct arch_ctx *x, enum arch_fid f, enum arch_origin o, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void arch_prov_key(struct arch_ctx *x, enum arch_fid f, const char *key);
int arch_values_resolve(struct arch_ctx *x);
/* What the row says where a file has no key at all, for a config whose dimensions are set. */
int arch_values_from_row(struct arch_config *c, struct err *e);
int arch_tokens_resolve(struct arch_ctx *x);
void arch_notes_keys(struct arch_ctx *x);
void arch_notes_gate(struct arch_ctx *x, const struct arch_config *stamped);
int arch_report_build(struct arch_ctx *x, const struct arch_config *compat, const bool *has,
                      const struct arch_config *stamped);

/* The state of one resolution. */
struct arch_ctx {
    const struct gguf *g;
    const struct arch_row *row; /* NULL: none */
    struct arch_config c;       /* reference values */
    struct arch_tensor_facts facts;
    struct arch_prov prov[ARCH_N_FIELD];
    struct arch_report *report; /* NULL: nobody asks */
    struct err *e;
    int rc; /* first failure of note-taking (-ENOMEM) */
};

#endif
