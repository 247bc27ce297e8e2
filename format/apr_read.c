/* APR v2 reader: see apr_read.h. Header, metadata and index are read once and held; tensor bytes
 * are never touched. Two things are read more strictly than the original readers do, because no
 * writer ever did otherwise and both bound what is read into memory: the index ends before the
 * data, and a name has 1 to 256 bytes. */
#include "format/apr_read.h"

#include "format/bytes.h"
#include "format/crc32.h"
#include "format/quant.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define APR_MAX_META   (UINT64_C(256) << 20) /* as GGUF_MAX_HEAD */
#define APR_MAX_TENSOR (1u << 20)            /* ten times what any GGUF reader takes */
#define APR_ENTRY_MIN  (20 + 1)              /* name of one byte, no dimensions */
#define APR_ENTRY_MAX  (20 + APR_MAX_NAME + 8 * APR_MAX_DIMS)

struct twin {
    const struct quant_type *type; /* NULL: none */
    uint64_t off, size;            /* absolute */
};

struct apr {
    struct source *src;
    struct apr_header h;
    char *meta_text;
    cJSON *meta;
    struct apr_tensor *tensor; /* h.n_tensor, in index order */
    struct twin *twin;         /* one per tensor; NULL if the file has none */
    char *names;               /* what tensor[].name points into */
    bool ours;                 /* aprfs.profile: codes are GGML ids */
};

/* --- header --- */

static int check_magic(const uint8_t *p, struct err *e)
{
    if (memcmp(p, APR_MAGIC, 4) == 0)
        return 0;
    if (memcmp(p, "APR", 3) == 0 && (p[3] == 'N' || p[3] == '1' || p[3] == '2'))
        return err_set(e, -ENOTSUP, "magic 'APR%c': an APR of another version, expected 'APR' NUL",
                       p[3]);
    return err_set(e, -EUCLEAN, "magic %02x %02x %02x %02x, expected 41 50 52 00 ('APR' NUL)", p[0],
                   p[1], p[2], p[3]);
}

static int check_flags(uint16_t flags, struct err *e)
{
    static const struct {
        uint16_t bit;
        const char *what;
    } refused[] = {
        {APR_FLAG_LZ4, "compressed with LZ4"},
        {APR_FLAG_ZSTD, "compressed with zstd"},
        {APR_FLAG_ENCRYPTED, "encrypted"},
        {APR_FLAG_COLUMN_MAJOR, "column-major"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (flags & refused[i].bit)
            return err_set(e, -ENOTSUP, "flags 0x%04x: the file is %s, which is not read", flags,
                           refused[i].what);
    return 0;
}

static int read_header(struct apr *a, struct err *e)
{
    uint64_t size = source_size(a->src);
    uint8_t p[APR_HEADER_SIZE];
    if (size < sizeof p)
        return err_set(e, -EUCLEAN, "header: file has %" PRIu64 " bytes, a header takes 64", size);
    int rc = source_read(a->src, p, 0, sizeof p, e);
    if (rc < 0 || (rc = check_magic(p, e)) < 0)
        return rc;
    struct apr_header *h = &a->h;
    h->major = p[4];
    h->minor = p[5];
    h->flags = load_u16(p + 6);
    h->n_tensor = load_u32(p + 8);
    h->meta_off = load_u64(p + 12);
    h->meta_size = load_u32(p + 20);
    h->index_off = load_u64(p + 24);
    h->data_off = load_u64(p + 32);
    h->crc = load_u32(p + 40);
    h->crc_computed = crc32_apr_header(p);
    if (h->major != 2)
        return err_set(e, -ENOTSUP, "header: version %u.%u, expected 2", h->major, h->minor);
    if (h->crc != h->crc_computed && h->crc != 0)
        return err_set(e, -EUCLEAN, "header: checksum 0x%08x, its bytes give 0x%08x", h->crc,
                       h->crc_computed);
    return check_flags(h->flags, e);
}

/* Where the parts lie, before any of them is read. */
static int check_places(const struct apr_header *h, uint64_t size, struct err *e)
{
    if (h->meta_off < APR_HEADER_SIZE || h->meta_off > size || h->meta_size > size - h->meta_off)
        return err_set(e, -EUCLEAN, "metadata: %u bytes at byte %" PRIu64 ", file has %" PRIu64,
                       h->meta_size, h->meta_off, size);
    if (h->meta_size > APR_MAX_META)
        return err_set(e, -ERANGE, "metadata: %u bytes, at most %" PRIu64 " are read", h->meta_size,
                       APR_MAX_META);
    if (h->data_off > size)
        return err_set(e, -EUCLEAN, "data at byte %" PRIu64 ", file has %" PRIu64, h->data_off,
                       size);
    if (h->n_tensor == 0)
        return 0;
    if (h->index_off < APR_HEADER_SIZE || h->index_off > h->data_off ||
        h->n_tensor > (h->data_off - h->index_off) / APR_ENTRY_MIN)
        return err_set(e, -EUCLEAN,
                       "tensor index: %u entries between byte %" PRIu64
                       " and the data at byte %" PRIu64 " have no room",
                       h->n_tensor, h->index_off, h->data_off);
    return 0;
}

static int read_meta(struct apr *a, struct err *e)
{
    a->meta_text = malloc((size_t)a->h.meta_size + 1);
    if (!a->meta_text)
        return err_set(e, -ENOMEM, "no memory for %u bytes of metadata", a->h.meta_size);
    int rc = source_read(a->src, a->meta_text, a->h.meta_off, a->h.meta_size, e);
    if (rc < 0)
        return rc;
    a->meta_text[a->h.meta_size] = 0;
    rc = json_parse(&a->meta, a->meta_text, a->h.meta_size, e);
    if (rc == 0 && !cJSON_IsObject(a->meta))
        rc = err_set(e, -EUCLEAN, "JSON: the outermost value is no object");
    if (rc < 0) {
        err_wrap(e, "metadata");
        return rc;
    }
    const cJSON *p = json_get(a->meta, "aprfs.profile");
    const char *s = json_text(p);
    if (p && !s)
        return err_set(e, -EUCLEAN, "metadata: 'aprfs.profile' is no string");
    if (s && strcmp(s, "native") != 0 && strcmp(s, "engine") != 0 && strcmp(s, "strict") != 0)
        return err_set(e, -ENOTSUP,
                       "metadata: aprfs.profile '%s', expected native, engine or strict", s);
    a->ours = s != NULL;
    return 0;
}

/* --- what a tensor's bytes are --- */

static bool count_elements(const struct apr_tensor *t, uint64_t *n)
{
    *n = 1;
    for (uint32_t i = 0; i < t->n_dim; i++)
        if (!mul_u64(*n, t->dim[i], n))
            return false;
    return true;
}

/* The bytes t's shape takes in one of GGML's types; false: not whole blocks, or too many. */
static bool size_as_ggml(const struct apr_tensor *t, const struct quant_type *q, uint64_t *size)
{
    uint64_t cols = t->n_dim ? t->dim[t->n_dim - 1] : 1;
    if (!quant_row_bytes(q, cols, size))
        return false;
    for (uint32_t i = 0; i + 1 < t->n_dim; i++)
        if (!mul_u64(*size, t->dim[i], size))
            return false;
    return true;
}

/* The same for APR's own: blocks run over the whole tensor, not over rows. */
static bool size_as_own(uint64_t n, uint32_t type, uint64_t *size)
{
    switch (type) {
    case APR_TYPE_OWN_Q4:
        return mul_u64(n / 32 + (n % 32 != 0), 18, size);
    case APR_TYPE_OWN_Q8:
        return add_u64(n, 4, size);
    default:
        *size = n;
        return true;
    }
}

/* The second reading of a code that has two, in files that are not ours. Sizes never agree by
 * chance: 18/32 against 2, 20/32 against 8, 22/32 and 24/32 against 1 byte per weight, 34/32
 * against 18/32. The one exception is 9 with 32 weights (36 bytes either way): no writer ever put
 * Q8_1 into a file, so APR's own Q8 is asked first there. */
uint32_t apr_own_type(uint8_t dtype)
{
    switch (dtype) {
    case 2:
        return QUANT_BF16;
    case 3:
        return QUANT_F64;
    case 4:
        return QUANT_I32;
    case 5:
        return QUANT_I64;
    case 6:
        return QUANT_I8;
    case 7:
        return APR_TYPE_OWN_U8;
    case APR_DTYPE_Q4_LEGACY:
    case APR_DTYPE_Q4:
        return APR_TYPE_OWN_Q4;
    case APR_DTYPE_Q8_LEGACY:
    case APR_DTYPE_Q8:
        return APR_TYPE_OWN_Q8;
    default:
        return UINT32_MAX;
    }
}

static bool fits(const struct apr_tensor *t, uint64_t n, uint32_t type)
{
    uint64_t size;
    const struct quant_type *q = quant_type(type);
    bool known = q ? size_as_ggml(t, q, &size) : size_as_own(n, type, &size);
    return known && size == t->size;
}

static int resolve_type(const struct apr *a, struct apr_tensor *t, struct err *e)
{
    uint64_t n;
    if (!count_elements(t, &n))
        return err_set(e, -EUCLEAN, "tensor '%s': its shape overflows 64 bits", t->name);
    const struct quant_type *q = quant_type(t->dtype);
    uint32_t other = a->ours ? UINT32_MAX : apr_own_type(t->dtype);
    if (!q && other == UINT32_MAX)
        return err_set(e, -ENOTSUP, "tensor '%s': dtype %u is not known", t->name, t->dtype);
    t->type = t->dtype;
    if (t->dtype == APR_DTYPE_Q8_LEGACY && other != UINT32_MAX && fits(t, n, other))
        t->type = other;
    else if (q && fits(t, n, t->dtype))
        t->type = t->dtype;
    else if (other != UINT32_MAX && fits(t, n, other))
        t->type = other;
    else
        return err_set(e, -EUCLEAN,
                       "tensor '%s': %" PRIu64 " bytes for %" PRIu64
                       " elements fit no reading of dtype %u",
                       t->name, t->size, n, t->dtype);
    return 0;
}

/* --- index --- */

static int read_entry(struct apr *a, struct cursor *c, struct apr_tensor *t, char **name,
                      struct err *e)
{
    size_t at = c->pos;
    uint16_t len = cursor_u16(c);
    const uint8_t *s = cursor_take(c, len);
    if (s && (len == 0 || len > APR_MAX_NAME))
        return err_set(e, -EUCLEAN, "entry at byte %" PRIu64 ": name of %u bytes, expected 1 to %d",
                       a->h.index_off + at, len, APR_MAX_NAME);
    t->dtype = cursor_u8(c);
    t->n_dim = cursor_u8(c);
    if (!c->bad && t->n_dim > APR_MAX_DIMS)
        return err_set(e, -EUCLEAN, "entry at byte %" PRIu64 ": %u dimensions, at most %d",
                       a->h.index_off + at, t->n_dim, APR_MAX_DIMS);
    for (uint32_t i = 0; i < t->n_dim && !c->bad; i++)
        t->dim[i] = cursor_u64(c);
    uint64_t rel = cursor_u64(c);
    t->size = cursor_u64(c);
    if (c->bad || !s)
        return err_set(e, -EUCLEAN, "entry at byte %" PRIu64 " runs past the end of the index",
                       a->h.index_off + at);
    if (memchr(s, 0, len) || !json_utf8_valid((const char *)s, len))
        return err_set(e, -EUCLEAN, "entry at byte %" PRIu64 ": name holds a NUL or is not UTF-8",
                       a->h.index_off + at);
    memcpy(*name, s, len);
    (*name)[len] = 0;
    t->name = *name;
    *name += (size_t)len + 1;

    uint64_t end, size = source_size(a->src);
    if (!add_u64(a->h.data_off, rel, &t->off) || !add_u64(t->off, t->size, &end) || end > size)
        return err_set(e, -EUCLEAN,
                       "tensor '%s': %" PRIu64 " bytes at offset %" PRIu64
                       " end past the file's %" PRIu64,
                       t->name, t->size, rel, size);
    return resolve_type(a, t, e);
}

static int parse_index(struct apr *a, const uint8_t *p, size_t len, struct err *e)
{
    struct cursor c = cursor_over(p, len);
    char *name = a->names;
    for (uint32_t i = 0; i < a->h.n_tensor; i++) {
        int rc = read_entry(a, &c, &a->tensor[i], &name, e);
        if (rc == 0 && i > 0 && strcmp(a->tensor[i - 1].name, a->tensor[i].name) > 0)
            rc = err_set(e, -EUCLEAN, "'%s' stands after '%s': not sorted", a->tensor[i].name,
                         a->tensor[i - 1].name);
        if (rc < 0) {
            err_wrap(e, "tensor index, entry %u of %u", i, a->h.n_tensor);
            return rc;
        }
    }
    return 0;
}

static int read_index(struct apr *a, struct err *e)
{
    if (a->h.n_tensor == 0)
        return 0;
    uint64_t room = a->h.data_off - a->h.index_off;
    uint64_t most = (uint64_t)a->h.n_tensor * APR_ENTRY_MAX;
    uint64_t len = room < most ? room : most; /* the gap before the data may be large */
    if (a->h.n_tensor > APR_MAX_TENSOR)
        return err_set(e, -ERANGE, "tensor index: %u entries, at most %u are read", a->h.n_tensor,
                       APR_MAX_TENSOR);
    uint8_t *p = malloc((size_t)len);
    a->tensor = calloc(a->h.n_tensor, sizeof *a->tensor);
    a->names = malloc((size_t)len); /* an entry takes at least 20 bytes beside its name */
    int rc = 0;
    if (!p || !a->tensor || !a->names)
        rc = err_set(e, -ENOMEM, "no memory for %u tensors", a->h.n_tensor);
    if (rc == 0)
        rc = source_read(a->src, p, a->h.index_off, (size_t)len, e);
    if (rc == 0)
        rc = parse_index(a, p, (size_t)len, e);
    free(p);
    return rc;
}

/* --- raw twins --- */

static int read_twin(struct apr *a, const cJSON *v, struct err *e)
{
    const char *name = json_text(json_get(v, "name"));
    const struct apr_tensor *t = name ? apr_find(a, name) : NULL;
    if (!t)
        return err_set(e, -EUCLEAN, "'%s' is no tensor of this file", name ? name : "?");
    struct twin *w = &a->twin[t - a->tensor];
    uint64_t type, rel, end, want;
    if (!json_uint(json_get(v, "type"), &type) || !json_uint(json_get(v, "offset"), &rel) ||
        !json_uint(json_get(v, "size"), &w->size))
        return err_set(e, -EUCLEAN, "tensor '%s': type, offset or size is no whole number", name);
    if (w->type)
        return err_set(e, -EUCLEAN, "tensor '%s' stands twice", name);
    const struct quant_type *q = type <= QUANT_ID_MAX ? quant_type((uint32_t)type) : NULL;
    if (!q)
        return err_set(e, -ENOTSUP, "tensor '%s': type %" PRIu64 " is not known", name, type);
    if (!size_as_ggml(t, q, &want) || want != w->size)
        return err_set(e, -EUCLEAN, "tensor '%s': %" PRIu64 " bytes do not fit its shape as %s",
                       name, w->size, q->name);
    if (!add_u64(a->h.data_off, rel, &w->off) || !add_u64(w->off, w->size, &end) ||
        end > source_size(a->src))
        return err_set(e, -EUCLEAN, "tensor '%s': its raw bytes end past the file's %" PRIu64, name,
                       source_size(a->src));
    w->type = q;
    return 0;
}

static int read_twins(struct apr *a, struct err *e)
{
    const cJSON *list = json_get(a->meta, "aprfs.raw"), *v;
    if (!list)
        return 0;
    int rc = 0;
    if (!cJSON_IsArray(list))
        rc = err_set(e, -EUCLEAN, "no array");
    a->twin = calloc((size_t)a->h.n_tensor + 1, sizeof *a->twin);
    if (!a->twin)
        return err_set(e, -ENOMEM, "no memory for %u tensors", a->h.n_tensor);
    if (rc == 0)
        cJSON_ArrayForEach(v, list)
        {
            rc = read_twin(a, v, e);
            if (rc < 0)
                break;
        }
    if (rc < 0)
        err_wrap(e, "metadata 'aprfs.raw'");
    return rc;
}

/* --- the face --- */

int apr_open(struct apr **out, struct source *src, struct err *e)
{
    struct apr *a = calloc(1, sizeof *a);
    int rc = a ? 0 : err_set(e, -ENOMEM, "no memory for an APR handle");
    if (rc < 0)
        goto out;
    a->src = src;
    if ((rc = read_header(a, e)) < 0 || (rc = check_places(&a->h, source_size(src), e)) < 0 ||
        (rc = read_meta(a, e)) < 0 || (rc = read_index(a, e)) < 0 || (rc = read_twins(a, e)) < 0)
        goto out;
    *out = a;
    a = NULL;
out:
    if (rc < 0)
        err_wrap(e, "%s", source_name(src));
    apr_close(a);
    return rc;
}

void apr_close(struct apr *a)
{
    if (!a)
        return;
    cJSON_Delete(a->meta);
    free(a->meta_text);
    free(a->tensor);
    free(a->twin);
    free(a->names);
    free(a);
}

const struct apr_header *apr_header(const struct apr *a)
{
    return &a->h;
}

const cJSON *apr_meta(const struct apr *a)
{
    return a->meta;
}

const char *apr_meta_text(const struct apr *a)
{
    return a->meta_text;
}

size_t apr_n_tensor(const struct apr *a)
{
    return a->h.n_tensor;
}

const struct apr_tensor *apr_tensor(const struct apr *a, size_t i)
{
    return &a->tensor[i];
}

const struct apr_tensor *apr_find(const struct apr *a, const char *name)
{
    size_t lo = 0, hi = a->h.n_tensor; /* the first of equal names, as the original readers do */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(a->tensor[mid].name, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < a->h.n_tensor && strcmp(a->tensor[lo].name, name) == 0 ? &a->tensor[lo] : NULL;
}

bool apr_raw_twin(const struct apr *a, const struct apr_tensor *t, struct apr_tensor *out)
{
    const struct apr_tensor *own = a->twin ? apr_find(a, t->name) : NULL;
    const struct twin *w = own ? &a->twin[own - a->tensor] : NULL;
    if (!w || !w->type)
        return false;
    *out = *own;
    out->type = w->type->id;
    out->dtype = (uint8_t)w->type->id;
    out->off = w->off;
    out->size = w->size;
    return true;
}

struct source *apr_source(const struct apr *a)
{
    return a->src;
}
