/* The index of a store from any bytes, as they are and with the numbers made right that only chance
 * would hit: no crash, and what is taken holds what a scan relies on. */
#include "format/store_index.h"

#include "format/bytes.h"
#include "format/crc32.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct store_options planned = {.plan = true};

static void check(const struct store *s)
{
    for (size_t i = 0; i < s->n_entry; i++) {
        const struct store_entry *en = &s->entry[i];
        if (en->n_part < 1 || en->part[en->n_part - 1].path[0] != '/' || en->rc > 0 ||
            !name_part_ok(en->wish, strlen(en->wish)) || !en->called || !en->tokenizer_why ||
            !en->learnt || !en->learnt->crc != !en->learnt->n_crc || en->head_len > en->size ||
            (en->n_alias && !en->alias[en->n_alias - 1]))
            abort();
    }
}

/* What was taken is written and read again as the same bytes. */
static void check_again(const struct store_index *ix)
{
    uint8_t *a = NULL, *b = NULL;
    size_t n_a, n_b;
    struct store_index again;
    struct err e;
    if (store_index_write(&a, &n_a, ix->store, NULL, 1, &e) < 0 ||
        store_index_read(&again, a, n_a, &planned, &e) < 0 ||
        store_index_write(&b, &n_b, again.store, NULL, 1, &e) < 0 || n_a != n_b ||
        memcmp(a, b, n_a) != 0)
        abort();
    store_index_release(&again);
    free(a);
    free(b);
}

static void try_bytes(const uint8_t *p, size_t n)
{
    struct store_index ix = {0};
    struct err e = {0};
    if (store_index_read(&ix, p, n, &planned, &e) == 0) {
        check(ix.store);
        check_again(&ix);
        store_index_release(&ix);
    } else if (ix.store || !*e.msg) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t head[28]; /* magic, versions, digest: what this build writes */
    if (!head[0]) {
        struct store none = {.root = (char *)(uintptr_t) "/m", .opt = planned};
        uint8_t *p;
        size_t n;
        struct err e;
        if (store_index_write(&p, &n, &none, NULL, 1, &e) < 0)
            abort();
        memcpy(head, p, sizeof head);
        free(p);
    }
    try_bytes(data, size);
    if (size < 64)
        return 0;
    uint8_t *p = malloc(size);
    if (!p)
        return 0;
    memcpy(p, data, size);
    memcpy(p, head, 24);
    uint64_t rec = load_u32(p + 24) % 8, part = load_u32(p + 32) % 16; /* small, so that they fit */
    uint64_t sum = load_u32(p + 48) % 32, used = 64 + 152 * rec + 48 * part + 4 * sum;
    store_u32(p + 24, (uint32_t)rec);
    store_u32(p + 32, (uint32_t)part);
    store_u32(p + 36, used < size ? (uint32_t)(size - used) : 0);
    store_u32(p + 48, (uint32_t)sum);
    memset(p + 52, 0, 12);
    store_u32(p + 28, crc32_update(0, p + 32, size - 32));
    try_bytes(p, size);
    free(p);
    return 0;
}
