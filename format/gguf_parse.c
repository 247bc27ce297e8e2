/* One GGUF head: bytes -> keys and tensor directory. Owns the window that is read and every check
 * that needs no other file; gguf.c joins the parts.
 *
 * The head's length stands nowhere in the file, so it is read in a window that doubles: the parse
 * runs over what is there and starts again when it needs more. All parses together cost less than
 * twice the last one, and the window never passes the file's size or GGUF_MAX_HEAD. */
#include "format/gguf_internal.h"

#include "format/bytes.h"
#include "format/quant.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW     (UINT64_C(1) << 20)

#define MIN_KEY    14 /* u64 length, one byte of name, u32 type, one byte of value */
#define MIN_TENSOR 33 /* u64 length, one byte of name, u32 n_dims, one u64, u32 type, u64 offset */

#define NEED_MORE  1 /* the cursor ran into the window's end */

struct parse {
    struct cursor c;
    struct gguf_file *f;
    const char *what; /* "key" or "tensor"; NULL in the header */
    size_t no;
    struct gguf_str name; /* of it, once read */
    struct err *e;
};

/* Marks the cursor bad unless n more bytes are there. */
static bool want(struct cursor *c, uint64_t n)
{
    size_t pos = c->pos;
    bool ok = cursor_take(c, n) != NULL;
    if (ok)
        c->pos = pos;
    return ok;
}

static struct gguf_str take_str(struct cursor *c)
{
    uint64_t n = cursor_u64(c);
    const uint8_t *p = cursor_take(c, n);
    return p ? (struct gguf_str){(const char *)p, (size_t)n} : (struct gguf_str){"", 0};
}

/* A key's or tensor's name into p->name. */
static int parse_name(struct parse *p)
{
    p->name = (struct gguf_str){"", 0};
    size_t at = p->c.pos;
    uint64_t n = cursor_u64(&p->c);
    if (!p->c.bad && n > GGUF_MAX_NAME)
        return err_set(p->e, -ERANGE, "%s %zu at byte %zu: name of %" PRIu64 " bytes, limit is %d",
                       p->what, p->no, at, n, GGUF_MAX_NAME);
    const uint8_t *s = cursor_take(&p->c, n);
    if (!s)
        return NEED_MORE;
    if (n == 0)
        return err_set(p->e, -EUCLEAN, "%s %zu at byte %zu: empty name", p->what, p->no, at);
    p->name = (struct gguf_str){(const char *)s, (size_t)n};
    if (memchr(s, 0, (size_t)n))
        return err_set(p->e, -EUCLEAN, "%s %zu at byte %zu: name '%.*s' holds a NUL byte", p->what,
                       p->no, at, GGUF_NAME(p->name));
    return 0;
}

/* --- values ------------------------------------------------------------------------------ */

size_t gguf_scalar_size(uint32_t type)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL:
        return 1;
    case GGUF_U16:
    case GGUF_I16:
        return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32:
        return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64:
        return 8;
    default:
        return 0;
    }
}

static int check_bools(struct parse *p, const uint8_t *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (v[i] > 1)
            return err_set(p->e, -EUCLEAN, "key '%.*s': boolean is %u, expected 0 or 1",
                           GGUF_NAME(p->name), v[i]);
    return 0;
}

/* Steps over an array, checking all of it; *elem and *n are what it says of itself. Each level of
 * nesting takes 12 bytes, so the walk is linear in the array's bytes. */
static int parse_array(struct parse *p, int depth, uint32_t *elem, uint64_t *n)
{
    struct cursor *c = &p->c;
    *elem = cursor_u32(c);
    *n = cursor_u64(c);
    if (c->bad)
        return NEED_MORE;
    if (depth > GGUF_MAX_NESTING)
        return err_set(p->e, -ERANGE, "key '%.*s': arrays nested deeper than %d",
                       GGUF_NAME(p->name), GGUF_MAX_NESTING);
    size_t size = gguf_scalar_size(*elem);
    if (size == 0 && *elem != GGUF_STRING && *elem != GGUF_ARRAY)
        return err_set(p->e, -EUCLEAN, "key '%.*s': array of unknown value type %" PRIu32,
                       GGUF_NAME(p->name), *elem);
    uint64_t least; /* bytes that n elements take at the least */
    if (!mul_u64(*n, size ? size : *elem == GGUF_STRING ? 8 : 12, &least) || least > GGUF_MAX_HEAD)
        return err_set(p->e, -ERANGE,
                       "key '%.*s': array of %" PRIu64 " elements, a head has at most %" PRIu64
                       " bytes",
                       GGUF_NAME(p->name), *n, GGUF_MAX_HEAD);
    if (!want(c, least))
        return NEED_MORE;
    if (size > 0) {
        const uint8_t *v = cursor_take(c, least);
        return *elem == GGUF_BOOL ? check_bools(p, v, (size_t)least) : 0;
    }
    for (uint64_t i = 0; i < *n; i++) {
        if (*elem == GGUF_STRING) {
            cursor_take(c, cursor_u64(c));
        } else {
            uint32_t sub_elem;
            uint64_t sub_n;
            int rc = parse_array(p, depth + 1, &sub_elem, &sub_n);
            if (rc != 0)
                return rc;
        }
        if (c->bad)
            return NEED_MORE;
    }
    return 0;
}

static int parse_key(struct parse *p, struct gguf_key *k)
{
    struct cursor *c = &p->c;
    int rc = parse_name(p);
    if (rc != 0)
        return rc;
    uint32_t type = cursor_u32(c);
    *k = (struct gguf_key){.name = p->name, .type = (enum gguf_type)type, .n = 1};
    if (c->bad)
        return NEED_MORE;
    size_t size = gguf_scalar_size(type);
    if (size > 0) {
        k->data = cursor_take(c, size);
        k->data_len = size;
        if (k->data && type == GGUF_BOOL)
            rc = check_bools(p, k->data, 1);
    } else if (type == GGUF_STRING) {
        struct gguf_str s = take_str(c);
        k->data = (const uint8_t *)s.p;
        k->data_len = s.len;
    } else if (type == GGUF_ARRAY) {
        size_t first = c->pos + 12; /* past element type and count */
        uint32_t elem;
        rc = parse_array(p, 1, &elem, &k->n);
        if (rc != 0)
            return rc;
        k->elem = (enum gguf_type)elem;
        k->data = c->p + first;
        k->data_len = c->pos - first;
    } else {
        rc = err_set(p->e, -EUCLEAN, "key '%.*s': unknown value type %" PRIu32, GGUF_NAME(p->name),
                     type);
    }
    return rc != 0 ? rc : c->bad ? NEED_MORE : 0;
}

/* --- tensors ----------------------------------------------------------------------------- */

/* Names of the ids that were withdrawn (source: the comments of ggml.h's enum ggml_type). */
static const char *withdrawn(uint32_t id)
{
    static const char *const name[] = {
        [4] = "Q4_2",      [5] = "Q4_3",        [31] = "Q4_0_4_4",   [32] = "Q4_0_4_8",
        [33] = "Q4_0_8_8", [36] = "IQ4_NL_4_4", [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8"};
    return id < sizeof name / sizeof *name ? name[id] : NULL;
}

/* t->size from ne and type. */
static int size_tensor(struct parse *p, struct gguf_tensor *t)
{
    const struct quant_type *q = quant_type(t->type);
    if (!q && withdrawn(t->type))
        return err_set(p->e, -ENOTSUP, "tensor '%.*s': type %" PRIu32 " (%s) was withdrawn",
                       GGUF_NAME(t->name), t->type, withdrawn(t->type));
    if (!q)
        return err_set(p->e, -ENOTSUP, "tensor '%.*s': unknown type %" PRIu32, GGUF_NAME(t->name),
                       t->type);
    uint64_t n = 1;
    for (int d = 0; d < GGUF_MAX_DIMS; d++)
        if (!mul_u64(n, t->ne[d], &n) || n > INT64_MAX)
            return err_set(p->e, -EUCLEAN,
                           "tensor '%.*s': dimensions %" PRIu64 " x %" PRIu64 " x %" PRIu64
                           " x %" PRIu64 " overflow",
                           GGUF_NAME(t->name), t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
    if (t->ne[0] % q->block_len != 0)
        return err_set(p->e, -EUCLEAN,
                       "tensor '%.*s': row of %" PRIu64 " weights, %s wants a multiple of %" PRIu32,
                       GGUF_NAME(t->name), t->ne[0], q->name, q->block_len);
    if (!mul_u64(n / q->block_len, q->block_bytes, &t->size) || t->size > INT64_MAX)
        return err_set(p->e, -EUCLEAN, "tensor '%.*s': size in bytes overflows",
                       GGUF_NAME(t->name));
    return 0;
}

static int parse_tensor(struct parse *p, struct gguf_tensor *t)
{
    struct cursor *c = &p->c;
    int rc = parse_name(p);
    if (rc != 0)
        return rc;
    *t = (struct gguf_tensor){.name = p->name, .ne = {1, 1, 1, 1}};
    t->n_dim = cursor_u32(c);
    if (!c->bad && (t->n_dim < 1 || t->n_dim > GGUF_MAX_DIMS))
        return err_set(p->e, -EUCLEAN, "tensor '%.*s': %" PRIu32 " dimensions, expected 1 to %d",
                       GGUF_NAME(t->name), t->n_dim, GGUF_MAX_DIMS);
    for (uint32_t d = 0; !c->bad && d < t->n_dim; d++) {
        t->ne[d] = cursor_u64(c);
        if (!c->bad && t->ne[d] == 0)
            return err_set(p->e, -EUCLEAN, "tensor '%.*s': dimension %" PRIu32 " is 0",
                           GGUF_NAME(t->name), d);
    }
    t->type = cursor_u32(c);
    t->off = cursor_u64(c); /* from the data's start; made absolute when that is known */
    return c->bad ? NEED_MORE : size_tensor(p, t);
}

/* --- the head ---------------------------------------------------------------------------- */

static int parse_version(struct parse *p)
{
    uint32_t v = cursor_u32(&p->c);
    if (p->c.bad)
        return NEED_MORE;
    p->f->version = v;
    if (v == 2 || v == 3)
        return 0;
    if (v != 0 && (v & 0xffff) == 0)
        return err_set(p->e, -ENOTSUP, "big-endian GGUF (version field 0x%08" PRIx32 ")", v);
    return err_set(p->e, -ENOTSUP, "GGUF version %" PRIu32 ", expected 2 or 3", v);
}

static int check_counts(struct parse *p, uint64_t n_tensor, uint64_t n_key)
{
    if (n_key > GGUF_MAX_KEYS)
        return err_set(p->e, -ERANGE, "header says %" PRIu64 " keys, limit is %d", n_key,
                       GGUF_MAX_KEYS);
    if (n_tensor > GGUF_MAX_TENSORS)
        return err_set(p->e, -ERANGE, "header says %" PRIu64 " tensors, limit is %d", n_tensor,
                       GGUF_MAX_TENSORS);
    return want(&p->c, n_key * MIN_KEY + n_tensor * MIN_TENSOR) ? 0 : NEED_MORE;
}

/* The arrays fit the counts, which by now are known to fit the file. */
static int alloc_counts(struct gguf_file *f, size_t n_tensor, size_t n_key, struct err *e)
{
    free(f->key);
    free(f->tensor);
    f->key = calloc(n_key ? n_key : 1, sizeof *f->key);
    f->tensor = calloc(n_tensor ? n_tensor : 1, sizeof *f->tensor);
    if (!f->key || !f->tensor)
        return err_set(e, -ENOMEM, "no memory for %zu keys and %zu tensors", n_key, n_tensor);
    f->n_key = n_key;
    f->n_tensor = n_tensor;
    return 0;
}

/* One pass over the window: 0, NEED_MORE, or an error. */
static int parse_window(struct parse *p)
{
    struct cursor *c = &p->c;
    struct gguf_file *f = p->f;
    p->what = NULL;
    size_t n_magic = c->size < 4 ? c->size : 4;
    if (memcmp(c->p, "GGUF", n_magic) != 0)
        return err_set(p->e, -EUCLEAN, "magic is %02x %02x %02x %02x, expected 'GGUF'", c->p[0],
                       n_magic > 1 ? c->p[1] : 0, n_magic > 2 ? c->p[2] : 0,
                       n_magic > 3 ? c->p[3] : 0);
    cursor_take(c, 4);
    int rc = parse_version(p);
    if (rc != 0)
        return rc;
    uint64_t n_tensor = cursor_u64(c), n_key = cursor_u64(c);
    if (c->bad)
        return NEED_MORE;
    rc = check_counts(p, n_tensor, n_key);
    if (rc == 0)
        rc = alloc_counts(f, (size_t)n_tensor, (size_t)n_key, p->e);
    if (rc != 0)
        return rc;
    p->what = "key";
    for (p->no = 0; rc == 0 && p->no < f->n_key; p->no += rc == 0)
        rc = parse_key(p, &f->key[p->no]);
    if (rc != 0)
        return rc;
    p->what = "tensor";
    for (p->no = 0; rc == 0 && p->no < f->n_tensor; p->no += rc == 0)
        rc = parse_tensor(p, &f->tensor[p->no]);
    return rc;
}

/* The pass ran short: how far the window must reach now, or why it cannot. */
static int next_window(const struct parse *p, uint64_t file_size, uint64_t *window)
{
    uint64_t need;
    if (!add_u64(p->c.bad_pos, p->c.bad_need, &need) || need > GGUF_MAX_HEAD) {
        if (!p->what)
            return err_set(p->e, -ERANGE, "head passes the limit of %" PRIu64 " bytes",
                           GGUF_MAX_HEAD);
        return err_set(
            p->e, -ERANGE,
            "%s %zu '%.*s': %zu bytes at byte %zu pass the limit of %" PRIu64 " for a head",
            p->what, p->no, GGUF_NAME(p->name), p->c.bad_need, p->c.bad_pos, GGUF_MAX_HEAD);
    }
    if (need > file_size) {
        if (!p->what)
            return err_set(p->e, -EAGAIN,
                           "needs %" PRIu64 " bytes at the least, has %" PRIu64
                           ": cut in the header",
                           need, file_size);
        return err_set(p->e, -EAGAIN,
                       "needs %" PRIu64 " bytes at the least, has %" PRIu64
                       ": cut in %s %zu '%.*s'",
                       need, file_size, p->what, p->no, GGUF_NAME(p->name));
    }
    *window *= 2;
    if (*window < need)
        *window = need;
    if (*window > GGUF_MAX_HEAD)
        *window = GGUF_MAX_HEAD;
    if (*window > file_size)
        *window = file_size;
    return 0;
}

/* Moves the head into a block of its own size, and all that points into it along: a window may be
 * twice the head, and handles live long. */
static int trim_head(struct gguf_file *f, size_t len, struct err *e)
{
    uint8_t *to = malloc(len);
    if (!to)
        return err_set(e, -ENOMEM, "no memory for a head of %zu bytes", len);
    memcpy(to, f->head, len);
    for (size_t i = 0; i < f->n_key; i++) {
        struct gguf_key *k = &f->key[i];
        k->name.p = (const char *)to + ((const uint8_t *)k->name.p - f->head);
        k->data = to + (k->data - f->head);
    }
    for (size_t i = 0; i < f->n_tensor; i++) {
        struct gguf_str *s = &f->tensor[i].name;
        s->p = (const char *)to + ((const uint8_t *)s->p - f->head);
    }
    free(f->head);
    f->head = to;
    f->head_len = len;
    return 0;
}

static int read_head(struct gguf_file *f, const struct source *src, struct err *e)
{
    uint64_t file_size = source_size(src), window = file_size < WINDOW ? file_size : WINDOW;
    if (file_size == 0)
        return err_set(e, -EAGAIN, "%s: needs 24 bytes at the least, has 0: cut in the header",
                       source_name(src));
    size_t have = 0;
    for (;;) {
        uint8_t *p = realloc(f->head, (size_t)window);
        if (!p)
            return err_set(e, -ENOMEM, "%s: no memory for a head of %" PRIu64 " bytes",
                           source_name(src), window);
        f->head = p;
        int rc = source_read(src, f->head + have, have, (size_t)window - have, e);
        if (rc < 0)
            return rc; /* names the source itself */
        have = (size_t)window;
        struct parse parse = {.c = cursor_over(f->head, have), .f = f, .e = e};
        rc = parse_window(&parse);
        if (rc == NEED_MORE)
            rc = next_window(&parse, file_size, &window);
        else if (rc == 0)
            rc = trim_head(f, parse.c.pos, e);
        if (rc < 0) {
            err_wrap(e, "%s", source_name(src));
            return rc;
        }
        if (!parse.c.bad)
            return 0;
    }
}

/* --- what the head says of the data ------------------------------------------------------ */

static int find_alignment(struct gguf_file *f, struct err *e)
{
    f->align = 32;
    for (size_t i = 0; i < f->n_key; i++) {
        const struct gguf_key *k = &f->key[i];
        if (!gguf_str_eq(k->name, "general.alignment"))
            continue;
        if (k->type != GGUF_U32)
            return err_set(e, -EUCLEAN, "general.alignment has value type %d, expected 4 (u32)",
                           (int)k->type);
        f->align = load_u32(k->data);
        if (f->align < 8 || (f->align & (f->align - 1)) != 0)
            return err_set(e, -EUCLEAN,
                           "general.alignment is %" PRIu32 ", expected a power of two from 8 on",
                           f->align);
        if (f->align > GGUF_MAX_ALIGN)
            return err_set(e, -ERANGE, "general.alignment is %" PRIu32 ", limit is %d", f->align,
                           GGUF_MAX_ALIGN);
    }
    return 0;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a;
    const struct gguf_tensor *y = *(const struct gguf_tensor *const *)b;
    if (x->off != y->off)
        return x->off < y->off ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* Two tensors never share a byte, as no writer makes such files and llama.cpp refuses them. No tensor
 * is empty, so of sorted ones only neighbours need a look. */
static int check_apart(const struct gguf_file *f, struct err *e)
{
    const struct gguf_tensor **by_off = calloc(f->n_tensor ? f->n_tensor : 1, sizeof *by_off);
    if (!by_off)
        return err_set(e, -ENOMEM, "no memory to order %zu tensors", f->n_tensor);
    for (size_t i = 0; i < f->n_tensor; i++)
        by_off[i] = &f->tensor[i];
    qsort(by_off, f->n_tensor, sizeof *by_off, compare_offsets);
    int rc = 0;
    for (size_t i = 1; i < f->n_tensor && rc == 0; i++) {
        const struct gguf_tensor *t = by_off[i - 1], *next = by_off[i];
        if (next->off - t->off < t->size)
            rc = err_set(e, -EUCLEAN,
                         "tensors '%.*s' and '%.*s' overlap: %" PRIu64 " bytes from byte %" PRIu64
                         ", the next from byte %" PRIu64,
                         GGUF_NAME(t->name), GGUF_NAME(next->name), t->size, t->off, next->off);
    }
    free(by_off);
    return rc;
}

/* Makes offsets absolute; finds where the data ends and whether the file holds it. */
static int place_tensors(struct gguf_file *f, uint64_t file_size, struct err *e)
{
    round_up_u64(f->head_len, f->align, &f->data_start); /* both small: cannot overflow */
    f->data_end = f->data_start;
    const struct gguf_tensor *last = NULL;
    for (size_t i = 0; i < f->n_tensor; i++) {
        struct gguf_tensor *t = &f->tensor[i];
        uint64_t end;
        if (t->off % f->align != 0)
            return err_set(e, -EUCLEAN,
                           "tensor '%.*s': offset %" PRIu64
                           " is no multiple of the alignment %" PRIu32,
                           GGUF_NAME(t->name), t->off, f->align);
        if (!add_u64(t->off, f->data_start, &t->off) || !add_u64(t->off, t->size, &end) ||
            end > INT64_MAX)
            return err_set(e, -EUCLEAN, "tensor '%.*s': its end overflows a file's size",
                           GGUF_NAME(t->name));
        if (end > f->data_end) {
            f->data_end = end;
            last = t;
        }
    }
    int rc = check_apart(f, e);
    if (rc < 0)
        return rc;
    if (f->n_tensor > 0 && f->data_end > file_size)
        return err_set(e, -EAGAIN,
                       "needs %" PRIu64 " bytes, has %" PRIu64 ": tensor '%.*s' ends past the file",
                       f->data_end, file_size, GGUF_NAME(last->name));
    return 0;
}

static int check_keys_once(const struct gguf_file *f, struct err *e)
{
    const struct gguf_str **index = gguf_index_new(f->key, f->n_key, sizeof *f->key);
    if (!index)
        return err_set(e, -ENOMEM, "no memory for an index of %zu keys", f->n_key);
    const struct gguf_str *twice = gguf_index_twice(index, f->n_key);
    int rc = twice ? err_set(e, -EUCLEAN, "key '%.*s' comes twice", GGUF_NAME(*twice)) : 0;
    free(index);
    return rc;
}

int gguf_file_parse(struct gguf_file *f, const struct source *src, struct err *e)
{
    *f = (struct gguf_file){0};
    int rc = read_head(f, src, e);
    if (rc < 0)
        goto out;
    rc = check_keys_once(f, e);
    if (rc == 0)
        rc = find_alignment(f, e);
    if (rc == 0)
        rc = place_tensors(f, source_size(src), e);
    if (rc < 0)
        err_wrap(e, "%s", source_name(src));
out:
    if (rc < 0)
        gguf_file_release(f);
    return rc;
}

void gguf_file_release(struct gguf_file *f)
{
    free(f->head);
    free(f->key);
    free(f->tensor);
    *f = (struct gguf_file){0};
}
