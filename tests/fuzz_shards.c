/* Shard grouping from any names of one folder: every file in exactly one candidate, shards in order,
 * whole or refused, and the same whatever order the names came in. */
#include "format/store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_NAME 64

/* The lines of data, each once; names as a folder can hold them. */
static size_t names_of(char *text, char *name[MAX_NAME])
{
    size_t n = 0;
    char *save = NULL;
    for (char *s = strtok_r(text, "\n", &save); s && n < MAX_NAME;
         s = strtok_r(NULL, "\n", &save)) {
        size_t k = 0;
        while (k < n && strcmp(name[k], s))
            k++;
        if (k == n && strlen(s) < 256 && !strchr(s, '/'))
            name[n++] = s;
    }
    return n;
}

static void check_cand(const struct store_cand *c)
{
    uint32_t no, count;
    size_t len;
    if (c->n_part < 1 || !c->order || !c->file || (c->rc < 0 && !c->why))
        abort();
    bool shard = gguf_shard_name(c->file, &no, &count, &len);
    if (!shard && c->n_part > 1)
        abort();
    if (shard && c->rc == 0 && (uint32_t)c->n_part != count)
        abort();
    for (int i = 0; shard && i < c->n_part; i++) {
        uint32_t k, n;
        const char *base = strrchr(c->part[i].path, '/') + 1;
        if (!gguf_shard_name(base, &k, &n, &len) || n != count ||
            (c->rc == 0 && k != (uint32_t)i) || strncmp(base, c->file, len))
            abort();
    }
}

/* All candidates as a text, one line each; malloc'ed. */
static char *group(char *const *name, size_t n, bool back)
{
    struct store_options opt = {.kind = STORE_PLAIN};
    struct store_build b = {.opt = &opt, .root = "/r", .root_fd = -1};
    struct store_folder d = {.b = &b, .rel = "m", .fd = -1};
    char *text = NULL;
    size_t len = 0, n_part = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        abort();
    for (size_t i = 0; i < n; i++) {
        const char *s = name[back ? n - 1 - i : i];
        struct source_id id = {.ino = strlen(s)};
        if (store_folder_add(&d, s, &id, 0, "") < 0)
            abort();
    }
    if (store_folder_group(&d, NULL, NULL) < 0)
        abort();
    for (size_t i = 0; i < b.n_cand; i++) {
        check_cand(&b.cand[i]);
        n_part += (size_t)b.cand[i].n_part;
        fprintf(f, "%s %d %d %s\n", b.cand[i].order, b.cand[i].n_part, b.cand[i].rc,
                b.cand[i].why ? b.cand[i].why : "");
    }
    if (n_part != n || fclose(f) != 0)
        abort();
    store_folder_close(&d);
    store_build_release(&b);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = strndup((const char *)data, size), *name[MAX_NAME];
    if (!text)
        return 0;
    size_t n = names_of(text, name);
    char *a = group(name, n, false), *b = group(name, n, true);
    if (strcmp(a, b))
        abort();
    free(a);
    free(b);
    free(text);
    return 0;
}
