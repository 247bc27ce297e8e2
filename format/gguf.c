/* Files and shards into one model, and look-up in it: see gguf.h. A head is parsed by gguf_parse.c,
 * values are read by gguf_value.c. */
#include "format/gguf_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gguf {
    int n_part;
    struct source **source; /* [n_part]; the sources are ours only if own */
    bool own;
    struct gguf_file *file; /* [n_part]; part 0 keeps its keys; tensors are joined below */
    struct gguf_tensor *tensor;
    size_t n_tensor;
    const struct gguf_str **key_index, **tensor_index;
};

/* Names must be what an index of keys or tensors points at. */
static_assert(offsetof(struct gguf_key, name) == 0, "a key begins with its name");
static_assert(offsetof(struct gguf_tensor, name) == 0, "a tensor begins with its name");

/* --- shards ------------------------------------------------------------------------------ */

static bool five_digits(const char *s, uint32_t *v)
{
    *v = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *v = *v * 10 + (uint32_t)(s[i] - '0');
    }
    return true;
}

bool gguf_shard_name(const char *name, uint32_t *no, uint32_t *count, size_t *prefix_len)
{
    static const size_t tail = sizeof "-00001-of-00002.gguf" - 1;
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    size_t len = strlen(base);
    if (len <= tail)
        return false;
    const char *t = base + len - tail;
    uint32_t k, n;
    if (t[0] != '-' || !five_digits(t + 1, &k) || memcmp(t + 6, "-of-", 4) != 0 ||
        !five_digits(t + 10, &n) || strcmp(t + 15, ".gguf") != 0 || k < 1 || k > n)
        return false;
    *no = k - 1;
    *count = n;
    *prefix_len = (size_t)(t - name);
    return true;
}

static const struct gguf_key *find_split_key(const struct gguf_file *f, const char *name)
{
    for (size_t i = 0; i < f->n_key; i++)
        if (gguf_str_eq(f->key[i].name, name))
            return &f->key[i];
    return NULL;
}

int gguf_read_split(const struct source *src, uint64_t *no, uint64_t *count, struct err *e)
{
    struct gguf_file f;
    int rc = gguf_file_parse(&f, src, e);
    *no = *count = 0;
    if (rc < 0)
        return rc;
    const struct gguf_key *a = find_split_key(&f, "split.no"),
                          *b = find_split_key(&f, "split.count");
    if (!a || !b || !gguf_as_u64(a, no) || !gguf_as_u64(b, count))
        *no = *count = 0;
    gguf_file_release(&f);
    return 0;
}

/* Where the key stands it must be a whole number; where it must stand, it must be there. */
static int split_value(const struct gguf *g, int part, const char *name, bool required, uint64_t *v,
                       struct err *e)
{
    const char *src = source_name(g->source[part]);
    const struct gguf_key *k = find_split_key(&g->file[part], name);
    if (!k && required)
        return err_set(e, -EUCLEAN, "%s: no key '%s', though %d parts are given", src, name,
                       g->n_part);
    if (k && !gguf_as_u64(k, v))
        return err_set(e, -EUCLEAN, "%s: key '%s' is no whole number", src, name);
    return 0;
}

/* Part no (0, 1, ...) of the model is what stands at that place, and says the same of the whole. */
static int check_split(const struct gguf *g, int part, uint64_t n_tensor, struct err *e)
{
    const char *src = source_name(g->source[part]);
    uint64_t no = 0, count = 1, total = n_tensor;
    bool many = g->n_part > 1;
    int rc = split_value(g, part, "split.count", many, &count, e);
    if (rc == 0)
        rc = split_value(g, part, "split.no", many || count > 1, &no, e);
    if (rc == 0)
        rc = split_value(g, part, "split.tensors.count", false, &total, e);
    if (rc < 0)
        return rc;
    if (count > (uint64_t)g->n_part) {
        uint64_t missing = no == (uint64_t)part ? (uint64_t)g->n_part : (uint64_t)part;
        return err_set(e, -ENOENT,
                       "%s: split.count is %" PRIu64 ", %d given: shard %05" PRIu64 "-of-%05" PRIu64
                       " is missing",
                       src, count, g->n_part, missing + 1, count);
    }
    if (count < (uint64_t)g->n_part && !(count == 0 && g->n_part == 1))
        return err_set(e, -EUCLEAN, "%s: split.count is %" PRIu64 ", %d parts are given", src,
                       count, g->n_part);
    if (no != (uint64_t)part)
        return err_set(e, -EUCLEAN, "%s: split.no is %" PRIu64 ", expected %d", src, no, part);
    if (total != n_tensor)
        return err_set(e, -EUCLEAN,
                       "%s: split.tensors.count is %" PRIu64 ", the parts have %" PRIu64, src,
                       total, n_tensor);
    return 0;
}

/* --- joining ----------------------------------------------------------------------------- */

static int join_tensors(struct gguf *g, struct err *e)
{
    uint64_t n = 0;
    for (int i = 0; i < g->n_part; i++)
        n += g->file[i].n_tensor;
    for (int i = 0; i < g->n_part; i++) {
        int rc = check_split(g, i, n, e);
        if (rc < 0)
            return rc;
    }
    if (n > GGUF_MAX_TENSORS)
        return err_set(e, -ERANGE, "%s: %" PRIu64 " tensors in %d parts, limit is %d",
                       source_name(g->source[0]), n, g->n_part, GGUF_MAX_TENSORS);
    g->tensor = calloc(n ? (size_t)n : 1, sizeof *g->tensor);
    if (!g->tensor)
        return err_set(e, -ENOMEM, "%s: no memory for %" PRIu64 " tensors",
                       source_name(g->source[0]), n);
    for (int i = 0; i < g->n_part; i++) {
        struct gguf_file *f = &g->file[i];
        for (size_t j = 0; j < f->n_tensor; j++) {
            g->tensor[g->n_tensor] = f->tensor[j];
            g->tensor[g->n_tensor++].part = i;
        }
        free(f->tensor);
        f->tensor = NULL;
        if (i > 0) {
            free(f->key);
            f->key = NULL;
            f->n_key = 0;
        }
    }
    return 0;
}

static int index_names(struct gguf *g, struct err *e)
{
    const char *src = source_name(g->source[0]);
    g->key_index = gguf_index_new(g->file[0].key, g->file[0].n_key, sizeof(struct gguf_key));
    g->tensor_index = gguf_index_new(g->tensor, g->n_tensor, sizeof(struct gguf_tensor));
    if (!g->key_index || !g->tensor_index)
        return err_set(e, -ENOMEM, "%s: no memory for an index of names", src);
    const struct gguf_str *twice = gguf_index_twice(g->tensor_index, g->n_tensor);
    if (twice) {
        const struct gguf_tensor *t = (const struct gguf_tensor *)(const void *)twice;
        return err_set(e, -EUCLEAN, "%s: tensor '%.*s' comes twice",
                       source_name(g->source[t->part]), GGUF_NAME(*twice));
    }
    return 0;
}

static struct gguf *gguf_alloc(int n_part)
{
    struct gguf *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->source = calloc((size_t)n_part, sizeof(struct source *));
    g->file = calloc((size_t)n_part, sizeof *g->file);
    g->n_part = n_part;
    if (g->source && g->file)
        return g;
    gguf_close(g);
    return NULL;
}

/* g->source is filled; takes g. */
static int gguf_load(struct gguf **out, struct gguf *g, struct err *e)
{
    int rc = 0;
    uint64_t heads = 0;
    for (int i = 0; rc == 0 && i < g->n_part; i++) {
        rc = gguf_file_parse(&g->file[i], g->source[i], e);
        heads += g->file[i].head_len;
        if (heads > GGUF_MAX_HEAD)
            rc = err_set(e, -ERANGE,
                         "%s: the heads of %d parts take %" PRIu64 " bytes, limit is %" PRIu64,
                         source_name(g->source[i]), i + 1, heads, GGUF_MAX_HEAD);
    }
    if (rc == 0)
        rc = join_tensors(g, e);
    if (rc == 0)
        rc = index_names(g, e);
    if (rc < 0)
        gguf_close(g);
    else
        *out = g;
    return rc;
}

int gguf_open(struct gguf **out, struct source *const *parts, int n_part, struct err *e)
{
    if (n_part < 1)
        return err_set(e, -EINVAL, "gguf_open: %d parts", n_part);
    if (n_part > GGUF_MAX_PARTS)
        return err_set(e, -ERANGE, "%s: %d parts, limit is %d", source_name(parts[0]), n_part,
                       GGUF_MAX_PARTS);
    struct gguf *g = gguf_alloc(n_part);
    if (!g)
        return err_set(e, -ENOMEM, "%s: no memory for a GGUF handle", source_name(parts[0]));
    memcpy(g->source, parts, (size_t)n_part * sizeof *parts);
    return gguf_load(out, g, e);
}

int gguf_open_path(struct gguf **out, const char *path, struct err *e)
{
    uint32_t no, count = 1;
    size_t prefix_len = 0;
    bool shard = gguf_shard_name(path, &no, &count, &prefix_len);
    if (count > GGUF_MAX_PARTS)
        return err_set(e, -ERANGE, "%s: named one of %" PRIu32 " parts, limit is %d", path, count,
                       GGUF_MAX_PARTS);
    struct gguf *g = gguf_alloc((int)count);
    size_t room = strlen(path) + 1;
    char *name = malloc(room);
    int rc = g && name ? 0 : err_set(e, -ENOMEM, "%s: no memory for a GGUF handle", path);
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        if (shard)
            snprintf(name, room, "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf", (int)prefix_len, path,
                     i + 1, count);
        g->own = true;
        rc = source_open(&g->source[i], shard ? name : path, e);
    }
    free(name);
    if (rc < 0) {
        gguf_close(g);
        return rc;
    }
    return gguf_load(out, g, e);
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_part; i++) {
        if (g->own && g->source)
            source_close(g->source[i]);
        if (g->file)
            gguf_file_release(&g->file[i]);
    }
    free(g->source);
    free(g->file);
    free(g->tensor);
    free(g->key_index);
    free(g->tensor_index);
    free(g);
}

/* --- look-up ----------------------------------------------------------------------------- */

uint32_t gguf_version(const struct gguf *g)
{
    return g->file[0].version;
}

int gguf_n_part(const struct gguf *g)
{
    return g->n_part;
}

struct source *gguf_part(const struct gguf *g, int part)
{
    return g->source[part];
}

uint64_t gguf_data_start(const struct gguf *g, int part)
{
    return g->file[part].data_start;
}

uint64_t gguf_data_end(const struct gguf *g, int part)
{
    return g->file[part].data_end;
}

uint32_t gguf_alignment(const struct gguf *g)
{
    return g->file[0].align;
}

const uint8_t *gguf_head(const struct gguf *g, int part, size_t *len)
{
    *len = g->file[part].head_len;
    return g->file[part].head;
}

size_t gguf_n_key(const struct gguf *g)
{
    return g->file[0].n_key;
}

const struct gguf_key *gguf_key(const struct gguf *g, size_t i)
{
    return i < g->file[0].n_key ? &g->file[0].key[i] : NULL;
}

const struct gguf_key *gguf_find(const struct gguf *g, const char *name)
{
    return (const struct gguf_key *)(const void *)gguf_index_find(g->key_index, g->file[0].n_key,
                                                                  name);
}

size_t gguf_n_tensor(const struct gguf *g)
{
    return g->n_tensor;
}

const struct gguf_tensor *gguf_tensor(const struct gguf *g, size_t i)
{
    return i < g->n_tensor ? &g->tensor[i] : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    return (const struct gguf_tensor *)(const void *)gguf_index_find(g->tensor_index, g->n_tensor,
                                                                     name);
}
