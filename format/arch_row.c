/* Rows by name, and which keys a row reads: lookups over arch_table.c. */
#include "format/arch_internal.h"

#include <stdlib.h>
#include <string.h>

/* Names that other writers' files use for these (arch-resolver.md §1). */
static const struct {
    const char *alias, *name;
} aliases[] = {
    {"falcon_h1", "falcon-h1"},
    {"granite-code", "granite"},
    {"internlm", "internlm2"},
    {"llama3", "llama"},
    {"mistral", "llama"},
    {"phi", "phi3"},
    {"phi4", "phi3"},
    {"qwen2.5", "qwen2"},
    {"qwen3.5", "qwen35"},
    {"qwen3_5", "qwen35"},
    {"qwen3_5_moe", "qwen35moe"},
    {"qwen3_moe", "qwen3moe"},
    {"rwkv", "rwkv7"},
    {"smollm", "llama"},
    {"smollm2", "llama"},
    {"yi", "llama"},
};

static int row_cmp(const void *name, const void *row)
{
    return strcmp(name, ((const struct arch_row *)row)->name);
}

const struct arch_row *arch_row_find(const char *arch)
{
    const struct arch_row *row = bsearch(arch, arch_rows, arch_n_row, sizeof arch_rows[0], row_cmp);
    for (size_t i = 0; !row && i < sizeof aliases / sizeof aliases[0]; i++)
        if (strcmp(arch, aliases[i].alias) == 0)
            row = bsearch(aliases[i].name, arch_rows, arch_n_row, sizeof arch_rows[0], row_cmp);
    return row;
}

/* Keys llama.cpp reads under every architecture's prefix, whatever the model. */
static const char general_keys[] =
    "context_length embedding_length embedding_length_out block_count feed_forward_length "
    "attention.head_count attention.head_count_kv attention.key_length attention.value_length "
    "attention.key_length_swa attention.value_length_swa attention.causal pooling_type "
    "classifier.pooling_type classifier.output_labels nextn_predict_layers expert_count "
    "expert_used_count expert_group_count expert_group_used_count rope.dimension_count "
    "rope.dimension_count_swa rope.freq_base rope.scale_linear rope.scaling.type "
    "rope.scaling.factor rope.scaling.attn_factor rope.scaling.alpha rope.scaling.finetuned "
    "rope.scaling.original_context_length vocab_size";

/* Finds key in a list of words; *mark gets the character before it ('!' or 0). */
static bool list_has(const char *list, const char *key, size_t len, char *mark)
{
    for (const char *p = list; p && *p;) {
        const char *end = strchrnul(p, ' ');
        char m = 0;
        while (*p == '!' || *p == '/')
            m = *p++ == '!' ? '!' : m;
        if ((size_t)(end - p) == len && memcmp(p, key, len) == 0) {
            if (mark)
                *mark = m;
            return true;
        }
        p = *end ? end + 1 : end;
    }
    return false;
}

bool arch_row_reads(const struct arch_row *row, const char *key, size_t len, bool *required)
{
    char mark = 0;
    if (!row || !list_has(row->keys, key, len, &mark))
        return false;
    if (required)
        *required = mark == '!';
    return true;
}

bool arch_general_key(const char *key, size_t len)
{
    return list_has(general_keys, key, len, NULL);
}
