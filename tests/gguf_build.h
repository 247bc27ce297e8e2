/* Builds small GGUFs in memory or on disk: a good one of any shape, and every bad one by name.
 * Shares nothing with the reader under test (its own type table, its own writer), and needs no
 * cmocka. Out of memory aborts. */
#ifndef APRFS_TESTS_GGUF_BUILD_H
#define APRFS_TESTS_GGUF_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- bytes ------------------------------------------------------------------------------- */

struct buf {
    uint8_t *p; /* owned; NULL while empty */
    size_t len, cap;
};

void buf_put(struct buf *b, const void *p, size_t n);
void buf_u8(struct buf *b, uint8_t v);
void buf_u16(struct buf *b, uint16_t v);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);
void buf_f32(struct buf *b, float v);
void buf_f64(struct buf *b, double v);
void buf_str(struct buf *b, const char *s); /* u64 length, bytes */
void buf_pad(struct buf *b, size_t align);  /* zeros up to a multiple */
void buf_free(struct buf *b);

/* --- a GGUF ------------------------------------------------------------------------------ */

struct gguf_build;

struct gguf_build *gguf_build_new(uint32_t version, uint64_t seed); /* 2 or 3 */
void gguf_build_free(struct gguf_build *b);

/* Keys, in the order of first setting; setting again replaces. Types as in format/gguf.h. */
void gguf_build_u8(struct gguf_build *b, const char *key, uint8_t v);
void gguf_build_i8(struct gguf_build *b, const char *key, int8_t v);
void gguf_build_u16(struct gguf_build *b, const char *key, uint16_t v);
void gguf_build_i16(struct gguf_build *b, const char *key, int16_t v);
void gguf_build_u32(struct gguf_build *b, const char *key, uint32_t v);
void gguf_build_i32(struct gguf_build *b, const char *key, int32_t v);
void gguf_build_u64(struct gguf_build *b, const char *key, uint64_t v);
void gguf_build_i64(struct gguf_build *b, const char *key, int64_t v);
void gguf_build_f32(struct gguf_build *b, const char *key, float v);
void gguf_build_f64(struct gguf_build *b, const char *key, double v);
void gguf_build_bool(struct gguf_build *b, const char *key, bool v);
void gguf_build_str(struct gguf_build *b, const char *key, const char *v);
void gguf_build_strn(struct gguf_build *b, const char *key, const void *p, size_t len);
/* Arrays of n scalars of the given element type, from v as C holds them (bool: bytes). */
void gguf_build_array(struct gguf_build *b, const char *key, uint32_t elem, const void *v,
                      size_t n);
void gguf_build_array_str(struct gguf_build *b, const char *key, const char *const *v, size_t n);
/* Any type with its bytes as they go into the file (an array's: element type, count, elements). */
void gguf_build_raw(struct gguf_build *b, const char *key, uint32_t type, const void *p,
                    size_t len);
void gguf_build_remove(struct gguf_build *b, const char *key);

/* Tensors, in file order; ne[0] innermost. data NULL: random weights scaled by 1/sqrt(ne[0]); names
 * holding "norm" about 1, ".bias" small. data is exactly the tensor's bytes, copied. */
void gguf_build_tensor(struct gguf_build *b, const char *name, uint32_t type, uint32_t n_dim,
                       const uint64_t *ne, const void *data);
void gguf_build_tensor_1d(struct gguf_build *b, const char *name, uint32_t type, uint64_t ne0);
void gguf_build_tensor_2d(struct gguf_build *b, const char *name, uint32_t type, uint64_t ne0,
                          uint64_t ne1);
void gguf_build_tensor_remove(struct gguf_build *b, const char *name);
/* Replaces a tensor's type (and its bytes by random ones) in place. */
void gguf_build_tensor_retype(struct gguf_build *b, const char *name, uint32_t type);
size_t gguf_build_n_tensor(const struct gguf_build *b);
const char *gguf_build_tensor_name(const struct gguf_build *b, size_t i);
/* The tensor's bytes, lent; NULL if there is none of that name. */
const uint8_t *gguf_build_tensor_data(const struct gguf_build *b, const char *name, size_t *len);

/* Power of two; padding before the data and between tensors. Writes general.alignment (u32). */
void gguf_build_align(struct gguf_build *b, uint32_t align);
/* Extra unused bytes before the first tensor (a multiple of the alignment), and at the end. */
void gguf_build_gap(struct gguf_build *b, uint64_t first, uint64_t tail);

/* The whole file, malloc'ed. */
uint8_t *gguf_build_bytes(const struct gguf_build *b, size_t *len);
/* Shard part of n_part with split.* keys: tensors dealt in equal runs; keys only in shard 0, other
 * shards hold split.* (and general.alignment) alone, as llama.cpp's gguf-split writes them. */
uint8_t *gguf_build_shard(const struct gguf_build *b, int part, int n_part, size_t *len);
void gguf_build_file(const struct gguf_build *b, const char *path);
/* dir/prefix-0000K-of-0000N.gguf, K = 1..n_part; dir/prefix.gguf when n_part is 0. */
void gguf_build_files(const struct gguf_build *b, const char *dir, const char *prefix, int n_part);

/* --- bytes of a type --------------------------------------------------------------------- */

/* False for ids without a type. Source: ggml-types.tsv's columns, copied here on purpose. */
bool gguf_build_type(uint32_t id, const char **name, uint32_t *block_len, uint32_t *block_bytes);
/* n_block blocks whose scales are finite and small and whose other bits are random: no NaN, no Inf,
 * the weights' size about sigma. Deterministic in seed. */
void gguf_build_random_blocks(void *dst, uint32_t type, size_t n_block, float sigma, uint64_t seed);

/* --- a model ----------------------------------------------------------------------------- */

enum gguf_build_norm {
    GGUF_BUILD_EPS_RMS,  /* attention.layer_norm_rms_epsilon */
    GGUF_BUILD_EPS_LN,   /* attention.layer_norm_epsilon */
    GGUF_BUILD_EPS_NONE, /* neither */
};

enum gguf_build_tok {
    GGUF_BUILD_TOK_ARCH, /* by architecture: gpt2 for qwen*, llama for the rest */
    GGUF_BUILD_TOK_GPT2, /* byte-level BPE: 256 byte tokens, some merges, <|endoftext|> */
    GGUF_BUILD_TOK_SPM,  /* <unk> <s> </s>, 256 byte tokens <0xNN>, pieces with scores */
    GGUF_BUILD_TOK_NONE, /* no tokenizer.* keys */
};

/* Zero everywhere = the default in brackets. Start from gguf_build_defaults(arch), which sets what
 * the architecture has (qwen2: biases; qwen3, gemma3: q/k norms; gemma: no head, post norms; phi3:
 * fused), then change. Needs n_embd, n_ff, head_dim * n_head to be whole blocks of the types. */
struct gguf_build_opt {
    uint32_t version;                                  /* [3] */
    uint32_t alignment;                                /* [32, without the key] */
    uint64_t seed;                                     /* [1] */
    uint32_t n_layer, n_embd, n_head, n_head_kv, n_ff; /* [2, 64, 4, 2, 128] */
    uint32_t head_dim;                                 /* [n_embd / n_head, without the key] */
    uint32_t n_ctx;                                    /* [256] */
    uint32_t n_vocab;              /* [as the tokenizer has]; more: padded with unused tokens */
    enum gguf_build_norm eps_key;  /* [RMS] */
    double eps;                    /* [1e-5] */
    bool eps_f64;                  /* written as F64 instead of F32 */
    bool both_eps;                 /* the other key too, with 10 times the value */
    float rope_theta;              /* [10000; < 0: no key] */
    enum gguf_build_tok tok;       /* [by architecture] */
    bool untied;                   /* with output.weight */
    bool fused_qkv, fused_gate_up; /* attn_qkv; ffn_up holding gate and up */
    bool qkv_bias, qk_norm;        /* */
    bool out_bias, ffn_bias;       /* attn_output.bias; ffn_*.bias */
    bool post_norms;               /* post_attention_norm, post_ffw_norm */
    bool no_gate;                  /* no ffn_gate */
    bool norm_bias;                /* *_norm.bias (LayerNorm families) */
    bool no_ffn_norm, head_bias, position_embd; /* falcon, phi2; phi2; gpt2 */
    bool rope_freqs;                            /* rope_freqs.weight, F32 (n_rot / 2) */
    uint32_t norm_type;                         /* [0 = F32]; 1 = F16, 30 = BF16 */
    uint32_t type;                              /* weights [0 = F32] */
    uint32_t type_embd, type_down; /* token_embd and output; ffn_down and attn_v [type] */
    bool per_layer_arrays;         /* head_count, head_count_kv, feed_forward_length as arrays */
    uint32_t sliding_window;       /* [no key] */
    bool unread_keys;              /* keys that no llama-like architecture reads */
};

struct gguf_build_opt gguf_build_defaults(const char *arch);
/* A complete small model: all hparam keys under "<arch>.", tokenizer, token_embd, blk.N.*,
 * output_norm and, as asked, output. llama.cpp loads and runs those of llama, qwen2, qwen3, gemma3.
 * o NULL: the defaults. Keys and tensors may be changed afterwards. */
struct gguf_build *gguf_build_llama_like(const char *arch, const struct gguf_build_opt *o);

/* --- the malformed ----------------------------------------------------------------------- */

struct gguf_bad {
    const char *name;
    int rc;           /* what the reader must answer: a negative errno */
    const char *says; /* the message must hold this text */
    int n_part;       /* 0: one file */
    /* Appends part no's bytes. *size is 0, or becomes the file's size: zeros follow the bytes. */
    void (*build)(struct buf *out, int part, uint64_t *size);
};

extern const struct gguf_bad gguf_bad_cases[];
extern const size_t gguf_n_bad_cases;

#endif
