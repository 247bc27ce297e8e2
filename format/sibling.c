/* config.json, and the digest that says when two models' siblings are the same. */
#include "format/sibling.h"

#include "format/sibling_internal.h"

#include "format/json.h"

#include <errno.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Hugging Face's words for an architecture, where a class of transformers takes the keys below as
 * they are. The others get their GGUF name as model_type, and no class. */
static const struct hf_class {
    const char *arch, *model_type, *class_name;
} hf_classes[] = {
    {"llama", "llama", "LlamaForCausalLM"},
    {"qwen2", "qwen2", "Qwen2ForCausalLM"},
    {"qwen2moe", "qwen2_moe", "Qwen2MoeForCausalLM"},
    {"qwen3", "qwen3", "Qwen3ForCausalLM"},
    {"qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM"},
    {"gemma", "gemma", "GemmaForCausalLM"},
    {"gemma2", "gemma2", "Gemma2ForCausalLM"},
    {"gemma3", "gemma3_text", "Gemma3ForCausalLM"},
    {"phi2", "phi", "PhiForCausalLM"},
    {"phi3", "phi3", "Phi3ForCausalLM"},
    {"stablelm", "stablelm", "StableLmForCausalLM"},
    {"starcoder2", "starcoder2", "Starcoder2ForCausalLM"},
    {"olmo", "olmo", "OlmoForCausalLM"},
    {"olmo2", "olmo2", "Olmo2ForCausalLM"},
    {"command-r", "cohere", "CohereForCausalLM"},
    {"cohere2", "cohere2", "Cohere2ForCausalLM"},
    {"granite", "granite", "GraniteForCausalLM"},
    {"smollm3", "smollm3", "SmolLM3ForCausalLM"},
    {"gptneox", "gpt_neox", "GPTNeoXForCausalLM"},
};

static const struct hf_class mixtral = {"llama", "mixtral", "MixtralForCausalLM"};

static const struct hf_class *hf_class_of(const struct arch_config *c)
{
    if (c->n_expert > 0 && !strcmp(c->arch, "llama"))
        return &mixtral;
    for (size_t i = 0; i < sizeof hf_classes / sizeof *hf_classes; i++)
        if (!strcmp(hf_classes[i].arch, c->arch))
            return &hf_classes[i];
    return NULL;
}

void sibling_put_real(struct json_out *o, const char *key, double v, bool f32)
{
    json_key(o, key);
    f32 ? json_put_f32(o, (float)v) : json_put_f64(o, v);
    /* "30" is an integer to readers that check types: say "30.0". */
    size_t i = o->len;
    while (i > 0 && ((o->p[i - 1] >= '0' && o->p[i - 1] <= '9') || o->p[i - 1] == '-'))
        i--;
    if (o->rc < 0 || i == 0 || o->p[i - 1] != ':')
        return;
    if (o->cap - o->len < 2) {
        char *p = realloc(o->p, o->cap + 64);
        if (!p) {
            o->rc = -ENOMEM;
            return;
        }
        o->p = p;
        o->cap += 64;
    }
    memcpy(o->p + o->len, ".0", 2);
    o->len += 2;
}

static void put_f(struct json_out *o, const char *key, float v)
{
    sibling_put_real(o, key, v, true);
}

/* Counts that differ by layer are written as a list: a reader that wants one number then stops,
 * and does not compute with a wrong one. */
static void put_per_layer(struct json_out *o, const char *key, const uint32_t *v, uint32_t n)
{
    bool one = true;
    for (uint32_t i = 1; i < n; i++)
        one &= v[i] == v[0];
    json_key(o, key);
    if (n > 0 && one) {
        json_put_u64(o, v[0]);
        return;
    }
    json_open(o, '[');
    for (uint32_t i = 0; i < n; i++)
        json_put_u64(o, v[i]);
    json_close(o, ']');
}

static void put_token(struct json_out *o, const char *key, int32_t id)
{
    json_key(o, key);
    if (id == ARCH_NO_TOKEN)
        json_put_null(o);
    else
        json_put_i64(o, id);
}

static const char *act_name(enum arch_act a)
{
    switch (a) {
    case ARCH_ACT_SILU:
        return "silu";
    case ARCH_ACT_GELU:
        return "gelu_pytorch_tanh";
    case ARCH_ACT_RELU:
        return "relu";
    case ARCH_ACT_RELU_SQR:
        return "relu2";
    case ARCH_ACT_OTHER:
        break;
    }
    return NULL;
}

static void put_rope(struct json_out *o, const struct arch_config *c, const struct sibling_rope *r)
{
    if (c->rope == ARCH_ROPE_NONE)
        return;
    put_f(o, "rope_theta", c->rope_theta);
    if (r->words != SIBLING_ROPE_PLAIN) {
        sibling_rope_put(o, r);
        return;
    }
    bool linear = c->scaling == ARCH_SCALING_LINEAR && c->scaling_factor != 1.0f;
    if (!linear && c->scaling != ARCH_SCALING_YARN)
        return;
    json_key(o, "rope_scaling");
    json_open(o, '{');
    json_add_cstr(o, "rope_type", linear ? "linear" : "yarn");
    put_f(o, "factor", c->scaling_factor);
    if (!linear) {
        json_add_u64(o, "original_max_position_embeddings", c->scaling_orig_ctx);
        put_f(o, "beta_fast", c->yarn_beta_fast);
        put_f(o, "beta_slow", c->yarn_beta_slow);
    }
    json_close(o, '}');
}

/* Windows, soft caps and scales: what Gemma and its like need besides. */
static void put_attention(struct json_out *o, const struct arch_config *c, uint32_t n_layer)
{
    if (c->sliding_window == 0) {
        json_key(o, "sliding_window"); /* said, for some classes have a window by default */
        json_put_null(o);
    } else {
        json_add_u64(o, "sliding_window", c->sliding_window);
        json_key(o, "layer_types");
        json_open(o, '[');
        for (uint32_t i = 0; i < n_layer; i++)
            json_put_cstr(o, c->layer_local[i] ? "sliding_attention" : "full_attention");
        json_close(o, ']');
        if (c->rope_theta_swa != c->rope_theta)
            put_f(o, "rope_local_base_freq", c->rope_theta_swa);
    }
    bool gemma = !strcmp(c->arch, "gemma2") || !strcmp(c->arch, "gemma3");
    if (gemma && c->attn_scale > 0.0f)
        json_add_u64(o, "query_pre_attn_scalar", (uint64_t)llround(1.0 / pow(c->attn_scale, 2)));
    if (c->attn_softcap > 0.0f)
        put_f(o, "attn_logit_softcapping", c->attn_softcap);
    if (c->final_softcap > 0.0f)
        put_f(o, "final_logit_softcapping", c->final_softcap);
}

static void put_config(struct json_out *o, const struct arch_config *c,
                       const struct sibling_rope *rope)
{
    const struct hf_class *hf = hf_class_of(c);
    uint32_t n_layer = c->n_layer - c->n_layer_nextn;
    const char *act = act_name(c->act);
    json_open(o, '{');
    if (hf && rope->words != SIBLING_ROPE_UNKNOWN) {
        json_key(o, "architectures");
        json_open(o, '[');
        json_put_cstr(o, hf->class_name);
        json_close(o, ']');
    }
    json_add_cstr(o, "model_type", hf ? hf->model_type : c->arch);
    json_add_u64(o, "hidden_size", c->n_embd);
    json_add_u64(o, "num_hidden_layers", n_layer);
    put_per_layer(o, "num_attention_heads", c->n_head, n_layer);
    put_per_layer(o, "num_key_value_heads", c->n_head_kv, n_layer);
    if (strcmp(c->arch, "falcon")) /* its class derives it, and refuses the key */
        json_add_u64(o, "head_dim", c->head_dim_k);
    put_per_layer(o, "intermediate_size", c->n_ff, n_layer);
    if (act)
        json_add_cstr(o, "hidden_act", act);
    json_add_u64(o, "vocab_size", c->n_vocab);
    json_add_u64(o, "max_position_embeddings", c->n_ctx_train);
    put_f(o, c->norm == ARCH_NORM_RMS ? "rms_norm_eps" : "layer_norm_eps", c->norm_eps);
    put_rope(o, c, rope);
    put_attention(o, c, n_layer);
    if (c->n_expert > 0) {
        json_add_u64(o, "num_experts", c->n_expert);
        json_add_u64(o, "num_local_experts", c->n_expert);
        json_add_u64(o, "num_experts_per_tok", c->n_expert_used);
    }
    json_add_bool(o, "attention_bias", c->qkv_bias);
    json_add_bool(o, "tie_word_embeddings", c->tied_head);
    put_token(o, "bos_token_id", c->bos);
    put_token(o, "eos_token_id", c->eos);
    json_close(o, '}');
}

int sibling_config(const struct gguf *g, enum arch_values values, char **out, size_t *len,
                   struct err *e)
{
    struct arch_config c = {0};
    int rc = arch_resolve(g, values, &c, NULL, e);
    if (rc < 0)
        return rc;
    struct json_out o;
    struct sibling_rope rope;
    json_out_init(&o);
    rc = sibling_rope_find(&rope, g, &c, e);
    if (rc == 0)
        put_config(&o, &c, &rope);
    sibling_rope_release(&rope);
    arch_config_release(&c);
    if (rc < 0)
        return rc;
    if (o.rc < 0) {
        rc = err_set(e, o.rc, "config.json could not be written");
        json_out_release(&o);
        return rc;
    }
    *out = o.p;
    *len = o.len;
    return 0;
}

static int cmp_key(const void *pa, const void *pb)
{
    const struct gguf_key *a = *(const struct gguf_key *const *)pa;
    const struct gguf_key *b = *(const struct gguf_key *const *)pb;
    size_t n = a->name.len < b->name.len ? a->name.len : b->name.len;
    int r = memcmp(a->name.p, b->name.p, n);
    return r ? r : (a->name.len > b->name.len) - (a->name.len < b->name.len);
}

/* In the order of names: two converters may have written the same keys in another order. */
static bool digest_keys(EVP_MD_CTX *md, const struct gguf *g, const struct gguf_key **key)
{
    static const char prefix[] = "tokenizer.ggml.";
    size_t n = 0;
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        const struct gguf_key *k = gguf_key(g, i);
        if (k->name.len >= sizeof prefix - 1 && !memcmp(k->name.p, prefix, sizeof prefix - 1))
            key[n++] = k;
    }
    if (n)
        qsort(key, n, sizeof *key, cmp_key);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        uint64_t meta[5] = {key[i]->name.len, key[i]->type, key[i]->elem, key[i]->n,
                            key[i]->data_len};
        ok = ok && EVP_DigestUpdate(md, meta, sizeof meta) &&
             EVP_DigestUpdate(md, key[i]->name.p, key[i]->name.len) &&
             EVP_DigestUpdate(md, key[i]->data, key[i]->data_len);
    }
    return ok;
}

int sibling_digest(const struct gguf *g, enum arch_values values, const char *params,
                   uint8_t digest[32], struct err *e)
{
    char *config, *generation = NULL;
    size_t len, generation_len = 0;
    int rc = sibling_config(g, values, &config, &len, e);
    if (rc < 0)
        return rc;
    rc = sibling_generation(g, values, params, &generation, &generation_len, e);
    if (rc == -ENOMEM) {
        free(config);
        return rc;
    }
    const struct gguf_key **key = calloc(gguf_n_key(g) + 1, sizeof *key);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = key && md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
              EVP_DigestUpdate(md, config, len) && digest_keys(md, g, key) &&
              EVP_DigestUpdate(md, "phi3", sibling_is_phi3(g) ? 4 : 0) &&
              EVP_DigestUpdate(md, generation ? generation : "", generation_len) &&
              EVP_DigestFinal_ex(md, digest, NULL);
    EVP_MD_CTX_free(md);
    free(key);
    free(generation);
    free(config);
    return ok ? 0 : err_set(e, -ENOMEM, "no memory for a digest");
}
