/* What a scan found, as values: its texts, its end, whether two say the same. How they come about is
 * store.c's. */
#include "format/store_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *store_role_name(enum store_role r)
{
    static const char *const name[] = {
        [STORE_MODEL] = "model",     [STORE_PROJECTOR] = "projector",
        [STORE_ADAPTER] = "adapter", [STORE_VOCAB] = "vocab",
        [STORE_IMATRIX] = "imatrix", [STORE_UNSUPPORTED] = "unsupported",
    };
    return name[r];
}

void store_entry_texts(struct store_entry *en, char **text[STORE_N_TEXT])
{
    char **const all[] = {&en->publisher,     &en->model,         &en->stem,     &en->wish,
                          &en->order,         &en->called,        &en->revision, &en->params,
                          &en->why,           &en->warning,       &en->arch,     &en->quant,
                          &en->tokenizer_why, &en->generation_why};
    static_assert(sizeof all / sizeof *all == STORE_N_TEXT, "each text once");
    memcpy(text, all, sizeof all);
}

void store_entry_release(struct store_entry *en)
{
    char **text[STORE_N_TEXT];
    store_entry_texts(en, text);
    for (int i = 0; i < STORE_N_TEXT; i++)
        free(*text[i]);
    for (size_t i = 0; i < en->n_alias; i++)
        free(en->alias[i]);
    free(en->alias);
    for (int i = 0; i < en->n_part; i++)
        store_part_release(&en->part[i]);
    free(en->part);
    if (en->learnt)
        free(en->learnt->crc);
    free(en->learnt);
    memset(en, 0, sizeof *en);
}

void store_free(struct store *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_entry; i++)
        store_entry_release(&s->entry[i]);
    free(s->entry);
    for (size_t i = 0; i < s->n_merged; i++)
        store_entry_release(&s->merged[i]);
    free(s->merged);
    for (size_t i = 0; i < s->n_problem; i++)
        store_problem_release(&s->problem[i]);
    free(s->problem);
    for (size_t i = 0; i < s->n_dir; i++)
        free(s->dir[i]);
    free(s->dir);
    free(s->root);
    free(s);
}

int store_learnt_set_crc(struct store_learnt *l, const uint32_t *crc, size_t n)
{
    uint32_t *p = malloc(n * sizeof *p);
    if (!p)
        return -ENOMEM;
    memcpy(p, crc, n * sizeof *p);
    free(l->crc);
    l->crc = p;
    l->n_crc = n;
    return 0;
}

static bool equal_entry(const struct store_entry *a, const struct store_entry *b)
{
    if (a->role != b->role || a->rc != b->rc || a->n_part != b->n_part || a->size != b->size ||
        a->n_alias != b->n_alias || a->tokenizer_rc != b->tokenizer_rc ||
        a->generation_rc != b->generation_rc || strcmp(a->publisher, b->publisher) ||
        strcmp(a->model, b->model) || strcmp(a->stem, b->stem) || strcmp(a->why, b->why) ||
        strcmp(a->revision, b->revision) || strcmp(a->params, b->params) ||
        memcmp(a->head_sha256, b->head_sha256, NAME_ID_SIZE) ||
        memcmp(a->sibling_sha256, b->sibling_sha256, NAME_ID_SIZE))
        return false;
    for (size_t i = 0; i < a->n_alias; i++)
        if (strcmp(a->alias[i], b->alias[i]))
            return false;
    for (int i = 0; i < a->n_part; i++)
        if (strcmp(a->part[i].path, b->part[i].path) ||
            !source_id_equal(&a->part[i].id, &b->part[i].id))
            return false;
    return true;
}

bool store_equal(const struct store *a, const struct store *b)
{
    if (a->n_entry != b->n_entry || a->n_problem != b->n_problem || strcmp(a->root, b->root))
        return false;
    for (size_t i = 0; i < a->n_entry; i++)
        if (!equal_entry(&a->entry[i], &b->entry[i]))
            return false;
    for (size_t i = 0; i < a->n_problem; i++)
        if (a->problem[i].rc != b->problem[i].rc ||
            strcmp(a->problem[i].path, b->problem[i].path) ||
            strcmp(a->problem[i].dir, b->problem[i].dir) ||
            strcmp(a->problem[i].why, b->problem[i].why))
            return false;
    return true;
}
