#include "tests/tiny_model.h"

#include "format/quant.h"

#include <stdlib.h>
#include <string.h>

const char *const tiny_families[4] = {"llama", "qwen2", "qwen3", "gemma3"};

void tiny_ids(int32_t id[TINY_N_TOK])
{
    for (int i = 0; i < TINY_N_TOK; i++)
        id[i] = (7 + 31 * i) % 251 + 3;
}

struct gguf_build *tiny_model(const char *family)
{
    struct gguf_build_opt o = gguf_build_defaults(family);
    bool llama = strcmp(family, "llama") == 0, gemma3 = strcmp(family, "gemma3") == 0;
    o.seed = 20261123;
    o.n_embd = 256;
    o.n_head = 4;
    o.n_head_kv = 2;
    o.n_ff = 512;
    o.type = QUANT_F32;
    o.type_embd = QUANT_Q5_1;
    if (llama)
        o.out_bias = o.ffn_bias = o.rope_freqs = true;
    if (strcmp(family, "qwen3") == 0)
        o.head_dim = 128; /* not n_embd / n_head */
    if (gemma3)
        o.sliding_window = 8;
    struct gguf_build *b = gguf_build_llama_like(family, &o);
    if (strcmp(family, "qwen2") == 0) {
        gguf_build_str(b, "qwen2.rope.scaling.type", "yarn");
        gguf_build_f32(b, "qwen2.rope.scaling.factor", 4);
        gguf_build_u32(b, "qwen2.rope.scaling.original_context_length", 64);
    }
    if (gemma3) {
        const uint8_t pattern[2] = {1, 0};
        gguf_build_array(b, "gemma3.attention.sliding_window_pattern", 7, pattern, 2);
        gguf_build_str(b, "gemma3.rope.scaling.type", "linear");
        gguf_build_f32(b, "gemma3.rope.scaling.factor", 8);
        gguf_build_f32(b, "gemma3.final_logit_softcapping", 3);
    }
    static const struct {
        const char *name;
        uint32_t type;
    } types[] = {
        {"blk.0.attn_q.weight", QUANT_Q4_K},   {"blk.0.attn_k.weight", QUANT_Q5_K},
        {"blk.0.attn_v.weight", QUANT_Q6_K},   {"blk.0.attn_output.weight", QUANT_Q4_0},
        {"blk.0.ffn_gate.weight", QUANT_Q5_0}, {"blk.0.ffn_up.weight", QUANT_Q4_1},
        {"blk.0.ffn_down.weight", QUANT_Q8_0}, {"blk.1.attn_q.weight", QUANT_F16},
        {"blk.1.attn_v.weight", QUANT_BF16},   {"blk.1.attn_output.weight", QUANT_Q8_0},
        {"blk.1.ffn_down.weight", QUANT_Q6_K},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        gguf_build_tensor_retype(b, types[i].name, types[i].type);
    return b;
}
