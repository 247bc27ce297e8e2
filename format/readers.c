/* The table of rules and how it is applied: see readers.h. */
#include "format/readers_internal.h"

#include "format/name.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define R(x)        (1U << READER_##x)
#define APRENDER    (R(FEB) | R(MID))
#define QUANT       (R(QUANTIZED) | R(SERVE_MID))
#define MAPPED      (R(MAPPED) | QUANT)
#define CONTAINER   (R(V2MODEL) | R(CUDA) | MAPPED)
#define ORIGINAL    (APRENDER | CONTAINER | R(F32))

#define FEB_READER  "vvylym/aprender:src/format/v2/reader_impl.rs"
#define FEB_HEADER  "vvylym/aprender:src/format/v2/header_impl.rs"
#define FEB_INDEX   "vvylym/aprender:src/format/v2/tensor_index_impl.rs"
#define APR_MOD     "paiml/realizar:src/apr/mod.rs"
#define APR_META    "paiml/realizar:src/apr/metadata.rs"
#define APR_MAPPED  "paiml/realizar:src/apr/mapped_apr_model.rs"
#define APR_V2      "paiml/realizar:src/apr/loading_mmap.rs"
#define GGUF_CONFIG "paiml/realizar:src/gguf/config.rs"
#define FROM_APR    "paiml/realizar:src/gguf/loader_apr_quantized.rs"
#define CUDA_INIT   "paiml/realizar:src/apr/cuda_model_init.rs"
#define EMBEDDING   "paiml/realizar:src/apr_transformer/embedding.rs"
#define SERVE_MOD   "paiml/aprender:crates/aprender-serve/src/apr/mod.rs"

/* One line a rule; the order is that of loading, so that the first that refuses is the one whose
 * message a user of that program would see. */
static const struct {
    struct reader_rule rule;
    rule_check *check;
} table[] = {
    {{"size", ORIGINAL, READER_REFUSES, "a file has at least the 64 bytes of a header", APR_MOD},
     check_size},
    {{"magic", ORIGINAL, READER_REFUSES,
      "the file begins with APR and NUL (to AprV2Model, and so cuda, also with APR2)", APR_MOD},
     check_magic},
    {{"header-crc", APRENDER, READER_REFUSES, "the header's CRC-32 is right", FEB_READER},
     check_header_crc},
    {{"column-major", APRENDER, READER_REFUSES, "the flag 0x0800 is not set", FEB_READER},
     check_column_major},
    {{"encrypted", R(V2MODEL) | R(CUDA), READER_REFUSES, "the flag 0x0004 is not set", APR_V2},
     check_encrypted},
    {{"compressed", R(V2MODEL) | R(CUDA), READER_REFUSES,
      "neither flag 0x0001 nor 0x0002 is set: all behind the header would be one compressed stream",
      APR_V2},
     check_compressed},
    {{"compressed-ignored", APRENDER | MAPPED | R(F32), READER_DIFFERS,
      "neither flag 0x0001 nor 0x0002 is set: the bytes are read as they are", FEB_READER},
     check_compressed},
    {{"metadata-bounds", ORIGINAL, READER_REFUSES, "the metadata lies inside the file", APR_MAPPED},
     check_metadata_bounds},
    {{"metadata-json", APRENDER, READER_REFUSES,
      "the metadata is one JSON object (aprender-feb: no key twice)", FEB_READER},
     check_metadata_json},
    {{"metadata-type", APRENDER, READER_REFUSES,
      "keys that are declared with a type have it; objects have the members they must", FEB_HEADER},
     check_metadata_type},
    {{"metadata-empty", R(V2MODEL) | R(MAPPED) | R(CUDA), READER_DIFFERS,
      "the metadata is JSON, its keys have their types, one spelling each: else it is taken for "
      "empty",
      APR_META},
     check_metadata_empty},
    {{"metadata-empty-model", QUANT, READER_REFUSES,
      "the same; a model without metadata is refused (C-01)", APR_META},
     check_metadata_empty},
    {{"tensor-count", CONTAINER, READER_DIFFERS,
      "room for as many entries as the header says, 88 bytes each, fits into 16 GiB: else it dies "
      "on machines with less",
      APR_MAPPED},
     check_tensor_count},
    {{"index-bounds", APRENDER, READER_REFUSES, "every entry of the index can be read", FEB_READER},
     check_index_bounds},
    {{"index-short", CONTAINER | R(F32), READER_DIFFERS,
      "every entry of the index can be read: else what was read is kept", APR_MAPPED},
     check_index_bounds},
    {{"index-place", CONTAINER, READER_REFUSES,
      "the index ends where the data begins, inside the file: else there are no tensors",
      APR_MAPPED},
     check_index_place},
    {{"index-sorted", APRENDER, READER_REFUSES, "the index is in byte order of names", FEB_READER},
     check_index_sorted},
    {{"dtype-known", APRENDER, READER_REFUSES, "every dtype byte is one that it knows", FEB_INDEX},
     check_dtype_known},
    {{"dtype-meaning", ORIGINAL, READER_MISREADS, "every dtype byte means to it what the bytes are",
      APR_MOD},
     check_dtype_meaning},
    {{"tensor-bounds", ORIGINAL, READER_MISREADS, "every tensor lies inside the file", APR_MAPPED},
     check_tensor_bounds},
    {{"required", QUANT, READER_REFUSES,
      "there are architecture, hidden_size, num_layers, num_heads, intermediate_size (C-01, C-03)",
      GGUF_CONFIG},
     check_required},
    {{"dimensions", QUANT | R(CUDA), READER_REFUSES,
      "no dimension is 0, the hidden size is a multiple of the heads, those of the key-value heads",
      GGUF_CONFIG},
     check_dimensions},
    {{"limits", QUANT, READER_REFUSES, "dimensions, rope_theta and epsilon are within its bounds",
      GGUF_CONFIG},
     check_limits},
    {{"shapes", R(SERVE_MID), READER_REFUSES,
      "vocab_size and hidden_size are dimensions of the embedding and of lm_head.weight (PMAT-906)",
      SERVE_MOD},
     check_shapes},
    {{"architecture", R(SERVE_MID), READER_WONT_RUN, "the architecture is not of the gemma3 family",
      "paiml/aprender:crates/aprender-serve/src/contract_gate.rs"},
     check_gemma3},
    {{"names", QUANT, READER_REFUSES,
      "embedding, output norm, head, and per layer norm, q, k, v, output, up and down have names "
      "it looks for",
      FROM_APR},
     check_names},
    {{"roles", QUANT, READER_WONT_RUN,
      "the model has these tensors: no experts in their place, no latent attention, recurrent "
      "layers "
      "or norms elsewhere (told of files of ours, which name all that there is)",
      FROM_APR},
     check_roles},
    {{"embedding-type", QUANT, READER_REFUSES, "the embedding is of a type that it can decode",
      "paiml/realizar:src/gguf/embedding.rs"},
     check_embedding_type},
    {{"norm-f32", QUANT, READER_MISREADS, "attn_norm, ffn_norm and output_norm are F32", FROM_APR},
     check_norm_f32},
    {{"bias-type", QUANT, READER_MISREADS, "biases and the norms of q and k are F32 or F16",
      FROM_APR},
     check_bias_type},
    {{"qkv-bias", QUANT, READER_DIFFERS, "a layer has all of the biases of q, k, v or none",
      FROM_APR},
     check_qkv_bias},
    {{"unbound", QUANT, READER_DIFFERS, "every tensor is one that it binds", FROM_APR},
     check_unbound},
    {{"cuda-architecture", R(CUDA), READER_DIFFERS, "model_type is the architecture",
      "paiml/realizar:src/apr/cuda.rs"},
     check_cuda_arch},
    {{"epsilon", R(CUDA) | R(F32), READER_DIFFERS, "rms_norm_eps is given", EMBEDDING},
     check_eps_given},
    {{"head-size", R(CUDA) | R(F32), READER_DIFFERS, "a head is hidden_size / num_heads wide",
      CUDA_INIT},
     check_head_size},
    {{"f32-dimensions", R(F32), READER_REFUSES,
      "no dimension is 0, heads divide the hidden size, key-value heads are no more than heads",
      "paiml/realizar:src/contract_gate.rs"},
     check_f32_dimensions},
    {{"f32-embedding", R(F32), READER_REFUSES,
      "the embedding is model.embed_tokens.weight, token_embd.weight or tok_embeddings.weight",
      EMBEDDING},
     check_f32_embedding},
    {{"f32-missing", R(F32), READER_DIFFERS,
      "no tensor is missing: zeros stand for weights, ones for norms, the embedding for the head",
      EMBEDDING},
     check_f32_missing},
    {{"f32-keys", R(F32), READER_DIFFERS, "the dimensions stand under the names it looks for",
      EMBEDDING},
     check_f32_keys},
    {{"f32-rope", R(F32), READER_DIFFERS, "RoPE pairs are split halves (rope_type 2)",
      "paiml/realizar:src/apr_transformer"},
     check_f32_rope},
    {{"f32-qk-norm", R(F32), READER_DIFFERS, "q and k have no norms of their own",
      "paiml/realizar:src/apr_transformer"},
     check_f32_qk_norm},
    {{"ours", R(APRD), READER_REFUSES, "what format/apr_read.h says", "format/apr_read.c"},
     check_ours},
};
#define N_RULE (sizeof table / sizeof table[0])

const char *reader_name(enum reader r)
{
    static const char *const name[N_READER] = {"aprender-feb",   "aprender-mid", "AprV2Model",
                                               "MappedAprModel", "quantized",    "serve-mid",
                                               "cuda",           "f32-loader",   "aprd"};
    return name[r];
}

const char *reader_effect_name(enum reader_effect e)
{
    static const char *const name[] = {"refuses", "misreads", "differs", "won't run"};
    return name[e];
}

const struct reader_rule *readers_rules(size_t *n)
{
    static struct reader_rule rule[N_RULE];
    for (size_t i = 0; i < N_RULE; i++)
        rule[i] = table[i].rule;
    *n = N_RULE;
    return rule;
}

void judge_found(struct judge *j, const char *fmt, ...)
{
    struct reader_verdict *v = j->v;
    if (v->n_found > 0 && v->found[v->n_found - 1].rule == j->rule)
        return;
    if (v->n_found == v->cap_found) {
        size_t cap = v->cap_found ? 2 * v->cap_found : 4;
        struct reader_finding *p = realloc(v->found, cap * sizeof *p);
        if (!p) {
            v->no_memory = true;
            return;
        }
        v->found = p;
        v->cap_found = cap;
    }
    struct reader_finding *f = &v->found[v->n_found++];
    f->rule = j->rule;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->why, sizeof f->why, fmt, ap);
    va_end(ap);
    err_clean(f->why);
}

static void add_wrong(struct reader_verdict *v, const char *name)
{
    if (v->n_wrong == v->cap_wrong) {
        size_t cap = v->cap_wrong ? 2 * v->cap_wrong : 16;
        char **p = realloc(v->wrong, cap * sizeof *p);
        if (!p) {
            v->no_memory = true;
            return;
        }
        v->wrong = p;
        v->cap_wrong = cap;
    }
    v->wrong[v->n_wrong] = strdup(name);
    v->no_memory |= !v->wrong[v->n_wrong];
    v->n_wrong += v->wrong[v->n_wrong] != NULL;
}

void judge_tensor(struct judge *j, const struct raw_tensor *t, const char *fmt)
{
    char *name = name_escape_bytes(t->name, t->name_len);
    if (!name) {
        j->v->no_memory = true;
        return;
    }
    judge_found(j, fmt, name);
    if (j->rule->effect == READER_MISREADS && !j->wrong[t - j->r->t]) {
        j->wrong[t - j->r->t] = true;
        add_wrong(j->v, name);
    }
    free(name);
}

const struct reader_finding *reader_find(const struct reader_verdict *v, enum reader_effect effect)
{
    for (size_t i = 0; i < v->n_found; i++)
        if (v->found[i].rule->effect == effect)
            return &v->found[i];
    return NULL;
}

/* Every rule about reader i. */
static void judge_by_table(struct reader_verdict *v, enum reader i, const struct raw_apr *r,
                           const struct apr *a, const char *refused)
{
    struct judge j = {.v = v,
                      .reader = i,
                      .r = r,
                      .a = a,
                      .refused = refused,
                      .wrong = calloc(r->n_all + 1, sizeof(bool))};
    v->name = reader_name(i);
    v->no_memory = !j.wrong;
    for (size_t k = 0; k < N_RULE && j.wrong; k++)
        if (table[k].rule.readers & 1U << i) {
            j.rule = &table[k].rule;
            table[k].check(&j);
        }
    free(j.wrong);
}

int readers_judge(struct reader_verdict v[N_READER], struct source *src, const struct apr *a,
                  const char *refused, struct err *e)
{
    struct raw_apr r;
    memset(v, 0, N_READER * sizeof *v);
    int rc = raw_read(&r, src, e);
    for (int i = 0; rc == 0 && i < N_READER; i++) {
        judge_by_table(&v[i], (enum reader)i, &r, a, refused);
        if (v[i].no_memory)
            rc = err_set(e, -ENOMEM, "no memory for what readers make of the file");
    }
    raw_release(&r);
    if (rc < 0)
        readers_release(v);
    return rc;
}

void readers_release(struct reader_verdict v[N_READER])
{
    for (int i = 0; i < N_READER; i++) {
        for (size_t k = 0; k < v[i].n_wrong; k++)
            free(v[i].wrong[k]);
        free(v[i].wrong);
        free(v[i].found);
        v[i] = (struct reader_verdict){0};
    }
}
