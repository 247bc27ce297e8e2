/* The index of a store: see store_index.h. */
#include "format/store_index.h"

#include "format/bytes.h"
#include "format/crc32.h"
#include "format/store_internal.h"

#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC        "APRFSIX1"
#define HEAD_LEN     64
#define REC_LEN      152
#define PART_LEN     48
#define SUM_LEN      4
#define CRC_FROM     32

#define NODE_OF_ROOT 1 /* a file system's root has that number */

/* An entry's texts, in their order. */
static const size_t text_at[] = {
    offsetof(struct store_entry, publisher),     offsetof(struct store_entry, model),
    offsetof(struct store_entry, stem),          offsetof(struct store_entry, wish),
    offsetof(struct store_entry, order),         offsetof(struct store_entry, called),
    offsetof(struct store_entry, revision),      offsetof(struct store_entry, params),
    offsetof(struct store_entry, why),           offsetof(struct store_entry, warning),
    offsetof(struct store_entry, arch),          offsetof(struct store_entry, quant),
    offsetof(struct store_entry, tokenizer_why), offsetof(struct store_entry, generation_why),
};
#define N_TEXT (sizeof text_at / sizeof *text_at)

static char **text_of(struct store_entry *en, size_t i)
{
    return (char **)(void *)((char *)en + text_at[i]);
}

static const char *text_get(const struct store_entry *en, size_t i)
{
    return *(char *const *)(const void *)((const char *)en + text_at[i]);
}

/* All that decides what a header's facts are, besides the header; who builds the .apr has a field of its
 * own. */
static int options_digest(uint64_t *out, const struct store_options *o)
{
    const uint32_t word[] = {o->kind,          o->view,      o->resolve,      o->plan,
                             o->all_revisions, o->chat_hint, o->vapr.profile, o->vapr.footer,
                             o->vapr.values,   VGGUF_BUILDER};
    uint8_t in[sizeof word], md[EVP_MAX_MD_SIZE];
    for (size_t i = 0; i < sizeof word / sizeof *word; i++)
        store_u32(in + 4 * i, word[i]);
    if (!EVP_Digest(in, sizeof in, md, NULL, EVP_sha256(), NULL))
        return -ENOMEM;
    *out = load_u64(md);
    return 0;
}

/* ---- writing ---- */

struct record {
    const struct store_entry *en;
    int64_t seen_s;
};

/* s's entries, then what only old has; *n of them. NULL: no memory. An entry without a part is of a
 * model that is not there: the next scan says so by itself. One in doubt is not written, and takes
 * what old says of the same file with it. */
static struct record *gather(size_t *n, const struct store *s, const struct store_index *old,
                             int64_t now_s)
{
    size_t n_own = s->n_entry + s->n_merged, n_old = old ? old->store->n_entry : 0, n_key = 0;
    struct record *r = calloc(n_own + n_old + 1, sizeof *r);
    const struct store_entry **key = calloc(n_own + 1, sizeof *key);
    *n = 0;
    for (size_t i = 0; r && key && i < n_own; i++) {
        const struct store_entry *en = i < s->n_entry ? &s->entry[i] : &s->merged[i - s->n_entry];
        if (en->n_part > 0)
            key[n_key++] = en;
        if (en->n_part > 0 && !en->learnt->doubt)
            r[(*n)++] = (struct record){en, now_s};
    }
    if (r && key && n_key)
        qsort(key, n_key, sizeof *key, store_cmp_first_path);
    for (size_t i = 0; r && key && i < n_old; i++) {
        const struct store_entry *en = &old->store->entry[i];
        int64_t seen = old->seen_s[i];
        if (seen > now_s || seen <= now_s - STORE_INDEX_KEEP_S)
            continue;
        if (!n_key || !bsearch(&en, key, n_key, sizeof *key, store_cmp_first_path))
            r[(*n)++] = (struct record){en, seen};
    }
    if (!key) {
        free(r);
        r = NULL;
    }
    free(key);
    return r;
}

static uint8_t *put_text(uint8_t *p, const char *s)
{
    size_t n = strlen(s) + 1;
    memcpy(p, s, n);
    return p + n;
}

static uint64_t texts_len(const struct store_entry *en)
{
    uint64_t n = 0;
    for (size_t i = 0; i < N_TEXT; i++)
        n += strlen(text_get(en, i)) + 1;
    for (size_t i = 0; i < en->n_alias; i++)
        n += strlen(en->alias[i]) + 1;
    for (int i = 0; i < en->n_part; i++)
        n += strlen(en->part[i].path) + strlen(en->part[i].sha256) + 2;
    return n;
}

static uint8_t *put_texts(uint8_t *p, const struct store_entry *en)
{
    for (size_t i = 0; i < N_TEXT; i++)
        p = put_text(p, text_get(en, i));
    for (size_t i = 0; i < en->n_alias; i++)
        p = put_text(p, en->alias[i]);
    for (int i = 0; i < en->n_part; i++) {
        p = put_text(p, en->part[i].path);
        p = put_text(p, en->part[i].sha256);
    }
    return p;
}

static void put_record(uint8_t *p, const struct record *r)
{
    const struct store_entry *en = r->en;
    store_u32(p, (uint32_t)en->n_part);
    store_u32(p + 4, (uint32_t)en->n_alias);
    store_u32(p + 8, en->kind);
    store_u32(p + 12, en->role);
    store_u32(p + 16, (uint32_t)en->rc);
    store_u32(p + 20, (uint32_t)en->tokenizer_rc);
    store_u64(p + 24, en->n_params);
    store_u64(p + 32, en->n_ctx_train);
    store_u64(p + 40, en->src_size);
    store_u64(p + 48, en->size);
    store_u64(p + 56, (uint64_t)r->seen_s);
    memcpy(p + 64, en->head_sha256, NAME_ID_SIZE);
    memcpy(p + 96, en->sibling_sha256, NAME_ID_SIZE);
    store_u64(p + 128, en->head_len);
    store_u64(p + 136, en->learnt->ino);
    store_u32(p + 144, (uint32_t)en->learnt->n_crc);
    store_u32(p + 148, (uint32_t)en->generation_rc);
}

static void put_part(uint8_t *p, const struct store_part *part)
{
    store_u64(p, part->id.dev);
    store_u64(p + 8, part->id.ino);
    store_u64(p + 16, part->id.size);
    store_u64(p + 24, (uint64_t)part->id.mtime_ns);
    store_u64(p + 32, (uint64_t)part->id.ctime_ns);
    store_u32(p + 40, part->how);
    store_u32(p + 44, 0);
}

struct counts {
    uint64_t rec, part, sum, text; /* text: bytes */
};

static uint64_t counts_len(const struct counts *n)
{
    return HEAD_LEN + REC_LEN * n->rec + PART_LEN * n->part + SUM_LEN * n->sum + n->text;
}

static void put_header(uint8_t *p, uint64_t digest, const struct counts *n, int64_t now_s)
{
    memset(p, 0, HEAD_LEN);
    memcpy(p, MAGIC, 8);
    store_u32(p + 8, STORE_INDEX_SCHEMA);
    store_u32(p + 12, VAPR_BUILDER);
    store_u64(p + 16, digest);
    store_u32(p + 24, (uint32_t)n->rec);
    store_u32(p + 32, (uint32_t)n->part);
    store_u32(p + 36, (uint32_t)n->text);
    store_u64(p + 40, (uint64_t)now_s);
    store_u32(p + 48, (uint32_t)n->sum);
}

/* All areas behind the header. */
static void put_records(uint8_t *p, const struct record *rec, const struct counts *n,
                        const char *root)
{
    uint8_t *part = p + REC_LEN * n->rec, *sum = part + PART_LEN * n->part;
    uint8_t *text = put_text(sum + SUM_LEN * n->sum, root);
    for (size_t i = 0; i < n->rec; i++, p += REC_LEN) {
        const struct store_entry *en = rec[i].en;
        put_record(p, &rec[i]);
        for (int k = 0; k < en->n_part; k++, part += PART_LEN)
            put_part(part, &en->part[k]);
        for (size_t k = 0; k < en->learnt->n_crc; k++, sum += SUM_LEN)
            store_u32(sum, en->learnt->crc[k]);
        text = put_texts(text, en);
    }
}

int store_index_write(uint8_t **out, size_t *n, const struct store *s,
                      const struct store_index *old, int64_t now_s, struct err *e)
{
    size_t n_rec;
    uint64_t digest;
    struct counts c = {.text = strlen(s->root) + 1};
    struct record *rec = gather(&n_rec, s, old, now_s);
    if (!rec || options_digest(&digest, &s->opt) < 0) {
        free(rec);
        return err_set(e, -ENOMEM, "no memory for the index of %s", s->root);
    }
    for (c.rec = 0; c.rec < n_rec; c.rec++) {
        c.part += (uint64_t)rec[c.rec].en->n_part;
        c.sum += rec[c.rec].en->learnt->n_crc;
        c.text += texts_len(rec[c.rec].en);
    }
    uint64_t size = counts_len(&c);
    uint8_t *buf = size <= STORE_INDEX_MAX ? malloc(size) : NULL;
    if (!buf) {
        free(rec);
        return size > STORE_INDEX_MAX
                   ? err_set(e, -EFBIG,
                             "the index of %s: %" PRIu64 " bytes, no more than %u are kept",
                             s->root, size, STORE_INDEX_MAX)
                   : err_set(e, -ENOMEM, "no memory for the index of %s", s->root);
    }
    put_records(buf + HEAD_LEN, rec, &c, s->root);
    put_header(buf, digest, &c, now_s);
    store_u32(buf + 28, crc32_update(0, buf + CRC_FROM, size - CRC_FROM));
    free(rec);
    *out = buf;
    *n = size;
    return 0;
}

/* ---- reading ---- */

struct reader {
    struct cursor rec, part, sum, text;
    struct err *e;
    size_t no; /* of the record, for messages */
};

static int broken(struct reader *r, const char *what)
{
    return err_set(r->e, -EUCLEAN, "record %zu: %s", r->no, what);
}

/* The next text, in place. NULL: it does not end. */
static const char *text_next(struct reader *r)
{
    const uint8_t *p = r->text.p + r->text.pos;
    const uint8_t *nul = cursor_left(&r->text) ? memchr(p, 0, cursor_left(&r->text)) : NULL;
    return nul ? (const char *)cursor_take(&r->text, (size_t)(nul - p) + 1) : NULL;
}

static int text_take(struct reader *r, char **dst)
{
    const char *s = text_next(r);
    if (!s)
        return broken(r, "a text ends behind the file");
    *dst = strdup(s);
    return *dst ? 0 : err_set(r->e, -ENOMEM, "no memory for the index");
}

/* What becomes a name in the tree. */
static bool name_ok(const char *s)
{
    return strlen(s) <= NAME_MAX_LEN && name_part_ok(s, strlen(s));
}

/* What becomes a line in problems.txt. */
static bool sentence_ok(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return false;
    return true;
}

static int read_part(struct reader *r, struct store_part *p)
{
    p->id = (struct source_id){.dev = cursor_u64(&r->part),
                               .ino = cursor_u64(&r->part),
                               .size = cursor_u64(&r->part),
                               .mtime_ns = (int64_t)cursor_u64(&r->part),
                               .ctime_ns = (int64_t)cursor_u64(&r->part)};
    uint32_t how = cursor_u32(&r->part), zero = cursor_u32(&r->part);
    if (r->part.bad)
        return broken(r, "more parts than the file has");
    if (how > STORE_HOW_HUB || zero)
        return broken(r, "a part is opened in no known way");
    p->how = (enum store_how)how;
    int rc = text_take(r, &p->path);
    if (rc < 0)
        return rc;
    const char *sha = text_next(r);
    if (*p->path != '/' || !sha || (*sha && strlen(sha) != 64) ||
        strspn(sha, "0123456789abcdef") != strlen(sha))
        return broken(r, "a part has no absolute path or no checksum");
    memcpy(p->sha256, sha, strlen(sha) + 1);
    return 0;
}

static int read_texts(struct reader *r, struct store_entry *en, uint32_t n_alias)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < N_TEXT; i++)
        rc = text_take(r, text_of(en, i));
    if (rc < 0)
        return rc;
    if (n_alias > cursor_left(&r->text))
        return broken(r, "more aliases than the file has bytes");
    en->alias = calloc(n_alias + 1, sizeof *en->alias);
    if (!en->alias)
        return err_set(r->e, -ENOMEM, "no memory for the index");
    while (rc == 0 && en->n_alias < n_alias) {
        rc = text_take(r, &en->alias[en->n_alias]);
        en->n_alias += rc == 0;
    }
    return rc;
}

static int read_parts(struct reader *r, struct store_entry *en, uint32_t n_part)
{
    if (n_part == 0 || n_part > cursor_left(&r->part) / PART_LEN)
        return broken(r, "no parts, or more than the file has");
    en->part = calloc(n_part, sizeof *en->part);
    if (!en->part)
        return err_set(r->e, -ENOMEM, "no memory for the index");
    int rc = 0;
    while (rc == 0 && en->n_part < (int)n_part)
        rc = read_part(r, &en->part[en->n_part++]);
    return rc;
}

static int read_sums(struct reader *r, struct store_learnt *l, uint32_t n)
{
    if (n > cursor_left(&r->sum) / SUM_LEN)
        return broken(r, "more checksums than the file has");
    if (!n)
        return 0;
    l->crc = malloc(n * sizeof *l->crc);
    if (!l->crc)
        return err_set(r->e, -ENOMEM, "no memory for the index");
    while (l->n_crc < n)
        l->crc[l->n_crc++] = cursor_u32(&r->sum);
    return 0;
}

static bool rc_ok(int rc)
{
    return rc <= 0 && rc >= -4095; /* the kernel's range */
}

static int check_entry(struct reader *r, const struct store_entry *en, bool planned)
{
    if (planned && en->rc == 0 && en->role == STORE_MODEL && en->size == 0)
        return broken(r, "a model without a size");
    if (en->head_len > en->size)
        return broken(r, "a head longer than its file");
    if (en->learnt->ino == NODE_OF_ROOT || en->learnt->ino > INT64_MAX)
        return broken(r, "a number that no node has");
    if (!name_ok(en->publisher) || !name_ok(en->model) || !name_ok(en->stem) || !name_ok(en->wish))
        return broken(r, "a name that no file can have");
    if (!sentence_ok(en->why) || !sentence_ok(en->warning) || !sentence_ok(en->tokenizer_why) ||
        !sentence_ok(en->generation_why))
        return broken(r, "a reason with control bytes");
    return 0;
}

static int read_record(struct reader *r, struct store_entry *en, int64_t *seen_s, bool planned)
{
    struct cursor *c = &r->rec;
    uint32_t n_part = cursor_u32(c), n_alias = cursor_u32(c);
    uint32_t kind = cursor_u32(c), role = cursor_u32(c);
    en->rc = (int)cursor_u32(c);
    en->tokenizer_rc = (int)cursor_u32(c);
    en->n_params = cursor_u64(c);
    en->n_ctx_train = cursor_u64(c);
    en->src_size = cursor_u64(c);
    en->size = cursor_u64(c);
    *seen_s = (int64_t)cursor_u64(c);
    memcpy(en->head_sha256, cursor_take(c, NAME_ID_SIZE), NAME_ID_SIZE);
    memcpy(en->sibling_sha256, cursor_take(c, NAME_ID_SIZE), NAME_ID_SIZE);
    en->head_len = cursor_u64(c);
    en->learnt = calloc(1, sizeof *en->learnt);
    if (!en->learnt)
        return err_set(r->e, -ENOMEM, "no memory for the index");
    en->learnt->ino = cursor_u64(c);
    uint32_t n_sum = cursor_u32(c);
    en->generation_rc = (int)cursor_u32(c);
    if (!strcmp(store_kind_name((enum store_kind)kind), "auto") || role > STORE_UNSUPPORTED ||
        !rc_ok(en->rc) || !rc_ok(en->tokenizer_rc) || !rc_ok(en->generation_rc))
        return broken(r, "no such layout, role or error");
    en->kind = (enum store_kind)kind;
    en->role = (enum store_role)role;
    int rc = read_texts(r, en, n_alias);
    if (rc == 0)
        rc = read_parts(r, en, n_part);
    if (rc == 0)
        rc = read_sums(r, en->learnt, n_sum);
    return rc == 0 ? check_entry(r, en, planned) : rc;
}

/* Is it ours, of this version, whole? Then *r stands at its areas and *n_rec is counted. */
static int read_header(struct reader *r, size_t *n_rec, const uint8_t *p, size_t n,
                       const struct store_options *opt)
{
    uint64_t digest;
    if (n < HEAD_LEN || n > STORE_INDEX_MAX)
        return err_set(r->e, -EUCLEAN, "%zu bytes; an index has %d to %u", n, HEAD_LEN,
                       STORE_INDEX_MAX);
    if (memcmp(p, MAGIC, 8) != 0)
        return err_set(r->e, -EUCLEAN, "no index: it does not begin with " MAGIC);
    if (load_u32(p + 8) != STORE_INDEX_SCHEMA || load_u32(p + 12) != VAPR_BUILDER)
        return err_set(r->e, -ESTALE, "schema %u, builder %u; this version has %u and %u",
                       load_u32(p + 8), load_u32(p + 12), STORE_INDEX_SCHEMA, VAPR_BUILDER);
    if (options_digest(&digest, opt) < 0)
        return err_set(r->e, -ENOMEM, "no memory for the index");
    if (load_u64(p + 16) != digest)
        return err_set(r->e, -ESTALE, "made with other options");
    const struct counts c = {.rec = load_u32(p + 24),
                             .part = load_u32(p + 32),
                             .sum = load_u32(p + 48),
                             .text = load_u32(p + 36)};
    if (counts_len(&c) != n)
        return err_set(r->e, -EUCLEAN,
                       "%zu bytes; its counts make %" PRIu64 " (records %" PRIu64 ", parts %" PRIu64
                       ", checksums %" PRIu64 ", texts %" PRIu64 ")",
                       n, counts_len(&c), c.rec, c.part, c.sum, c.text);
    uint32_t crc = crc32_update(0, p + CRC_FROM, n - CRC_FROM);
    if (crc != load_u32(p + 28))
        return err_set(r->e, -EUCLEAN, "CRC-32 is %08x; its header says %08x", crc,
                       load_u32(p + 28));
    for (size_t i = 52; i < HEAD_LEN; i++)
        if (p[i])
            return err_set(r->e, -EUCLEAN, "byte %zu of the header is not zero", i);
    p += HEAD_LEN;
    r->rec = cursor_over(p, REC_LEN * c.rec);
    r->part = cursor_over(p += REC_LEN * c.rec, PART_LEN * c.part);
    r->sum = cursor_over(p += PART_LEN * c.part, SUM_LEN * c.sum);
    r->text = cursor_over(p + SUM_LEN * c.sum, c.text);
    *n_rec = c.rec;
    return 0;
}

static int read_records(struct reader *r, struct store_index *ix, size_t n_rec)
{
    struct store *s = ix->store;
    int rc = 0;
    while (rc == 0 && s->n_entry < n_rec) {
        r->no = s->n_entry++;
        rc = read_record(r, &s->entry[r->no], &ix->seen_s[r->no], s->opt.plan);
    }
    if (rc == 0 && (cursor_left(&r->part) || cursor_left(&r->sum) || cursor_left(&r->text)))
        rc = err_set(r->e, -EUCLEAN,
                     "%zu bytes of parts, %zu of checksums and %zu of texts belong to no record",
                     cursor_left(&r->part), cursor_left(&r->sum), cursor_left(&r->text));
    return rc;
}

int store_index_read(struct store_index *out, const void *p, size_t n,
                     const struct store_options *opt, struct err *e)
{
    struct reader r = {.e = e};
    struct store_index ix = {0};
    size_t n_rec = 0;
    int rc = read_header(&r, &n_rec, p, n, opt);
    if (rc < 0)
        return rc;
    const char *root = text_next(&r);
    if (!root || *root != '/')
        return err_set(e, -EUCLEAN, "the root has no absolute path");
    ix.store = calloc(1, sizeof *ix.store);
    ix.seen_s = calloc(n_rec + 1, sizeof *ix.seen_s);
    if (ix.store) {
        ix.store->opt = *opt;
        ix.store->root = strdup(root);
        ix.store->entry = calloc(n_rec + 1, sizeof *ix.store->entry);
    }
    if (!ix.store || !ix.seen_s || !ix.store->root || !ix.store->entry)
        rc = err_set(e, -ENOMEM, "no memory for the index");
    else
        rc = read_records(&r, &ix, n_rec);
    if (rc < 0) {
        store_index_release(&ix);
        return rc;
    }
    *out = ix;
    return 0;
}

size_t store_index_count(const uint8_t *p)
{
    return load_u32(p + 24);
}

void store_index_release(struct store_index *ix)
{
    store_free(ix->store);
    free(ix->seen_s);
    *ix = (struct store_index){0};
}
