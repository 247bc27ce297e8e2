/* One generation of one model: see vfile.h. */
#include "fs/vfile.h"

#include "format/bytes.h"
#include "format/crc32.h"
#include "format/sibling.h"
#include "format/store_text.h"
#include "fs/compat.h"
#include "fs/pinned.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define UNIT_BYTES      ((uint64_t)1 << 20) /* of converted output, rounded to blocks */
#define MAX_SEG_UNITS   40                  /* bits of a unit number below the segment's */
#define KEEP_SEGS       64 /* of a file that is not open; a placed layout has two per tensor */
#define CRC_PIECE       ((size_t)1 << 20)
#define N_PLANS_AT_ONCE 2 /* a plan of a big vocabulary takes tens of MiB while it is made */

enum vfile_state {
    VFILE_CLOSED,
    VFILE_OPENING,
    VFILE_OPEN,
};

enum crc_state {
    CRC_UNKNOWN,
    CRC_COMPUTING,
    CRC_KNOWN,
};

struct vfile {
    atomic_int refs;
    struct vfile_env *env;
    uint8_t gen[32], sibling[32];
    uint64_t size;
    atomic_uint_least64_t ino;
    atomic_bool stale;
    pthread_mutex_t mu;
    pthread_cond_t opened;
    struct scan *scan; /* under mu, with store and entry */
    size_t store, entry;
    int only;               /* the part that it shows as it stands; -1: the model */
    enum vfile_state state; /* under mu */
    int n_open;
    bool head_known; /* head_sha: of the head when it was first built */
    uint8_t head_sha[32];
    enum crc_state crc_state; /* under mu; opened tells of a change */
    uint32_t crc;             /* the footer's, once known */
    /* Made by the first open and kept (if few): the same generation has the same ones. */
    struct vseg *seg; /* VSEG_MEM: p is NULL, src_off counts in the head text, which holds the bytes
                       * of all such segments in order */
    size_t n_seg;
    /* Fixed while it is open. */
    struct source **part;
    int n_part;
    struct pinned *pins;
    struct vcache_item *head;
};

/* --- scans -------------------------------------------------------------------------------- */

struct scan *scan_new(struct store_set *takes)
{
    struct scan *s = calloc(1, sizeof *s);
    if (!s) {
        store_set_free(takes);
        return NULL;
    }
    s->set = takes;
    atomic_init(&s->refs, 1);
    return s;
}

struct scan *scan_get(struct scan *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void scan_put(struct scan *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    store_set_free(s->set);
    free(s);
}

/* --- life --------------------------------------------------------------------------------- */

static void sha256(uint8_t out[32], const void *p, size_t len)
{
    if (EVP_Digest(p, len, out, NULL, EVP_sha256(), NULL) != 1)
        abort(); /* libcrypto without SHA-256: nothing here can go on */
}

void vfile_generation(uint8_t gen[32], const struct store *s, const struct store_entry *en)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (!c || EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1)
        abort();
    const uint64_t opt[6] = {VAPR_BUILDER,        VGGUF_BUILDER,      s->opt.view,
                             s->opt.vapr.profile, s->opt.vapr.footer, s->opt.vapr.values};
    EVP_DigestUpdate(c, opt, sizeof opt);
    EVP_DigestUpdate(c, en->head_sha256, sizeof en->head_sha256);
    for (int i = 0; i < en->n_part; i++) {
        const struct source_id *id = &en->part[i].id;
        const uint64_t v[5] = {id->dev, id->ino, id->size, (uint64_t)id->mtime_ns,
                               (uint64_t)id->ctime_ns};
        EVP_DigestUpdate(c, v, sizeof v);
    }
    EVP_DigestFinal_ex(c, gen, NULL);
    EVP_MD_CTX_free(c);
}

void vfile_part_generation(uint8_t gen[32], const struct store *s, const struct store_entry *en,
                           int part)
{
    struct {
        uint8_t gen[32];
        uint64_t part;
    } v = {.part = (uint64_t)part};
    vfile_generation(v.gen, s, en);
    sha256(gen, &v, sizeof v);
}

void vfile_place(uint8_t id[32], const uint8_t gen[32], const struct store_entry *en)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (!c || EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1)
        abort();
    EVP_DigestUpdate(c, gen, 32);
    for (int i = 0; i < en->n_part; i++)
        EVP_DigestUpdate(c, en->part[i].path, strlen(en->part[i].path) + 1);
    EVP_DigestFinal_ex(c, id, NULL);
    EVP_MD_CTX_free(c);
}

int vfile_new(struct vfile **out, struct vfile_env *env, struct scan *s, size_t store, size_t entry,
              struct err *e)
{
    struct vfile *vf = calloc(1, sizeof *vf);
    if (!vf)
        return err_set(e, -ENOMEM, "no memory for a file");
    const struct store *st = s->set->store[store];
    const struct store_entry *en = &st->entry[entry];
    atomic_init(&vf->refs, 1);
    vf->env = env;
    vf->size = en->size;
    vf->only = -1;
    vfile_generation(vf->gen, st, en);
    memcpy(vf->sibling, en->sibling_sha256, sizeof vf->sibling);
    pthread_mutex_init(&vf->mu, NULL);
    pthread_cond_init(&vf->opened, NULL);
    vf->scan = scan_get(s);
    vf->store = store;
    vf->entry = entry;
    *out = vf;
    return 0;
}

int vfile_new_part(struct vfile **out, struct vfile_env *env, struct scan *s, size_t store,
                   size_t entry, int part, struct err *e)
{
    const struct store *st = s->set->store[store];
    struct vfile *vf;
    int rc = vfile_new(&vf, env, s, store, entry, e);
    if (rc < 0)
        return rc;
    vf->only = part;
    vf->size = st->entry[entry].part[part].id.size;
    vfile_part_generation(vf->gen, st, &st->entry[entry], part);
    vf->seg = calloc(1, sizeof *vf->seg);
    if (!vf->seg) {
        vfile_put(vf);
        return err_set(e, -ENOMEM, "no memory for a file");
    }
    vf->n_seg = 1;
    vf->seg[0] = (struct vseg){.kind = VSEG_FILE, .len = vf->size};
    *out = vf;
    return 0;
}

bool vfile_is_part(const struct vfile *vf)
{
    return vf->only >= 0;
}

struct vfile *vfile_get(struct vfile *vf)
{
    atomic_fetch_add(&vf->refs, 1);
    return vf;
}

void vfile_put(struct vfile *vf)
{
    if (!vf || atomic_fetch_sub(&vf->refs, 1) > 1)
        return;
    scan_put(vf->scan);
    free(vf->seg);
    pthread_cond_destroy(&vf->opened);
    pthread_mutex_destroy(&vf->mu);
    free(vf);
}

const uint8_t *vfile_gen(const struct vfile *vf)
{
    return vf->gen;
}

uint64_t vfile_size(const struct vfile *vf)
{
    return vf->size;
}

bool vfile_stale(const struct vfile *vf)
{
    return atomic_load(&vf->stale);
}

uint64_t vfile_ino(const struct vfile *vf)
{
    return atomic_load(&vf->ino);
}

void vfile_set_ino(struct vfile *vf, uint64_t ino)
{
    atomic_store(&vf->ino, ino);
}

void vfile_rebind(struct vfile *vf, struct scan *s, size_t store, size_t entry)
{
    scan_get(s);
    pthread_mutex_lock(&vf->mu);
    struct scan *old = vf->scan;
    vf->scan = s;
    vf->store = store;
    vf->entry = entry;
    pthread_mutex_unlock(&vf->mu);
    scan_put(old);
}

struct scan *vfile_entry(struct vfile *vf, const struct store **store,
                         const struct store_entry **en)
{
    pthread_mutex_lock(&vf->mu);
    struct scan *s = scan_get(vf->scan);
    const struct store *st = s->set->store[vf->store];
    if (store)
        *store = st;
    *en = &st->entry[vf->entry];
    pthread_mutex_unlock(&vf->mu);
    return s;
}

char *vfile_path(struct vfile *vf)
{
    char *path;
    pthread_mutex_lock(&vf->mu);
    struct scan *s = scan_get(vf->scan);
    const struct store_entry *en = &s->set->store[vf->store]->entry[vf->entry];
    const char *top = store_set_top(s->set, vf->store);
    const char *suffix = store_suffix(&s->set->store[vf->store]->opt);
    pthread_mutex_unlock(&vf->mu);
    int n = vf->only >= 0 ? asprintf(&path, "%s", en->part[vf->only].path)
                          : asprintf(&path, "%s%s%s/%s/%s%s", top, *top ? "/" : "", en->publisher,
                                     en->model, en->stem, suffix);
    scan_put(s);
    return n < 0 ? NULL : path;
}

static void went_stale(void *ctx, const char *why)
{
    struct vfile *vf = ctx;
    if (atomic_exchange(&vf->stale, true))
        return;
    vcache_drop(vf->env->units, vf->gen);
    const struct store_entry *en;
    struct scan *s = vfile_entry(vf, NULL, &en);
    uint8_t place[32];
    vfile_place(place, vf->gen, en);
    scan_put(s);
    vcache_drop(vf->env->texts, place);
    if (vf->env->stale)
        vf->env->stale(vf->env->ctx, vf, why);
}

/* --- plans -------------------------------------------------------------------------------- */

static pthread_mutex_t gate_mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_free = PTHREAD_COND_INITIALIZER;
static int gate_used;

static void gate_enter(void)
{
    pthread_mutex_lock(&gate_mu);
    while (gate_used == N_PLANS_AT_ONCE)
        pthread_cond_wait(&gate_free, &gate_mu);
    gate_used++;
    pthread_mutex_unlock(&gate_mu);
}

static void gate_leave(void)
{
    malloc_trim(0); /* what a plan took goes back to the system, not into the arena */
    pthread_mutex_lock(&gate_mu);
    gate_used--;
    pthread_cond_signal(&gate_free);
    pthread_mutex_unlock(&gate_mu);
}

/* A plan made from the path as it is now, which must be this generation. */
static int plan_open(struct vfile *vf, struct store_plan **out, struct err *e)
{
    const struct store *st;
    const struct store_entry *en;
    struct scan *s = vfile_entry(vf, &st, &en);
    int rc = store_plan_open(out, st, en, e);
    if (rc == 0 && (*out)->plan->size != vf->size) {
        rc = err_set(e, -EIO, "%s: planned again it has %" PRIu64 " bytes, had %" PRIu64, en->stem,
                     (*out)->plan->size, vf->size);
        store_plan_close(*out);
    }
    scan_put(s);
    return rc;
}

/* All VSEG_MEM bytes in order. */
static int gather_mem(const struct vplan *v, uint8_t **p, size_t *len, struct err *e)
{
    uint64_t n = 0;
    for (size_t i = 0; i < v->n_seg; i++)
        if (v->seg[i].kind == VSEG_MEM)
            n += v->seg[i].len;
    uint8_t *b = malloc(n ? n : 1);
    if (!b)
        return err_set(e, -ENOMEM, "no memory for a head of %" PRIu64 " bytes", n);
    uint8_t *d = b;
    for (size_t i = 0; i < v->n_seg; i++) {
        const struct vseg *s = &v->seg[i];
        if (s->kind != VSEG_MEM)
            continue;
        memcpy(d, s->p, s->len);
        d += s->len;
    }
    *p = b;
    *len = n;
    return 0;
}

static int take_segments(struct vfile *vf, const struct vplan *v, struct err *e)
{
    size_t n = v->n_seg;
    struct vseg *seg = calloc(n ? n : 1, sizeof *seg);
    if (!seg)
        return err_set(e, -ENOMEM, "no memory for %zu segments", n);
    uint64_t mem = 0;
    for (size_t i = 0; i < n; i++) {
        seg[i] = v->seg[i];
        if (seg[i].kind != VSEG_MEM)
            continue;
        seg[i].p = NULL; /* the plan's, which is closed */
        seg[i].src_off = mem;
        mem += seg[i].len;
    }
    vf->seg = seg;
    vf->n_seg = n;
    return 0;
}

/* The head as built again must be the head as built before: a reader may hold half of it. */
static int check_head(struct vfile *vf, const uint8_t *p, size_t len, struct err *e)
{
    uint8_t sha[32];
    sha256(sha, p, len);
    pthread_mutex_lock(&vf->mu);
    bool same = !vf->head_known || memcmp(sha, vf->head_sha, sizeof sha) == 0;
    vf->head_known = true;
    if (same)
        memcpy(vf->head_sha, sha, sizeof sha);
    pthread_mutex_unlock(&vf->mu);
    return same ? 0 : err_set(e, -EIO, "the head was built again and differs");
}

struct text_job {
    struct vfile *vf;
    enum vfile_text which;
    const struct store_plan *plan; /* NULL: to be opened */
};

static int text_from_plan(const struct text_job *j, const struct store_plan *plan, uint8_t **p,
                          size_t *len, struct err *e)
{
    struct vfile *vf = j->vf;
    char *text = NULL;
    int rc = 0;
    const struct store *st;
    const struct store_entry *en;
    struct scan *s = vfile_entry(vf, &st, &en);
    enum arch_values values =
        st->opt.vapr.values == VAPR_VALUES_COMPAT ? ARCH_VALUES_COMPAT : ARCH_VALUES_REFERENCE;
    switch (j->which) {
    case VFILE_HEAD:
        rc = gather_mem(plan->plan, p, len, e);
        if (rc == 0 && (rc = check_head(vf, *p, *len, e)) < 0)
            free(*p);
        goto out;
    case VFILE_EXTENTS:
        rc = store_text_extents(en, plan, &text, len, e);
        break;
    case VFILE_LAYOUT:
        text = strdup(plan->plan->layout);
        rc = text ? 0 : err_set(e, -ENOMEM, "no memory for a word");
        *len = text ? strlen(text) : 0;
        break;
    case VFILE_TOKENIZER:
        rc = sibling_tokenizer(plan->gguf, &text, len, e);
        break;
    case VFILE_CONFIG:
        rc = sibling_config(plan->gguf, values, &text, len, e);
        break;
    }
    *p = (uint8_t *)text;
out:
    scan_put(s);
    return rc;
}

static int text_build(void *ctx, uint8_t **p, size_t *len, struct err *e)
{
    const struct text_job *j = ctx;
    if (j->plan)
        return text_from_plan(j, j->plan, p, len, e);
    if (vfile_stale(j->vf))
        return err_set(e, -ESTALE, "its source changed");
    struct store_plan *plan;
    gate_enter();
    int rc = plan_open(j->vf, &plan, e);
    if (rc == 0) {
        rc = text_from_plan(j, plan, p, len, e);
        store_plan_close(plan);
    }
    gate_leave();
    return rc;
}

static int text_get(struct vfile *vf, enum vfile_text which, const struct store_plan *plan,
                    struct vcache_item **out, struct err *e)
{
    struct text_job j = {.vf = vf, .which = which, .plan = plan};
    struct vcache_key k = {.unit = which};
    if (which == VFILE_TOKENIZER || which == VFILE_CONFIG) {
        memcpy(k.id, vf->sibling, sizeof k.id);
    } else {
        /* Heads, too: who makes one may wait at the gate, so nobody inside may wait for it, and by
         * its place each file makes its own. */
        const struct store_entry *en;
        struct scan *s = vfile_entry(vf, NULL, &en);
        vfile_place(k.id, vf->gen, en);
        scan_put(s);
    }
    return vcache_get(vf->env->texts, &k, text_build, &j, out, e);
}

int vfile_text(struct vfile *vf, enum vfile_text which, struct vcache_item **out, struct err *e)
{
    return text_get(vf, which, NULL, out, e);
}

/* --- open and close ----------------------------------------------------------------------- */

static void let_go(struct vfile *vf)
{
    pinned_free(vf->pins); /* before the descriptors it refers to */
    for (int i = 0; i < vf->n_part; i++)
        source_close(vf->part[i]);
    free(vf->part);
    vcache_put(vf->env->texts, vf->head);
    vf->pins = NULL;
    vf->part = NULL;
    vf->n_part = 0;
    vf->head = NULL;
    if (vf->n_seg > KEEP_SEGS) {
        free(vf->seg);
        vf->seg = NULL;
        vf->n_seg = 0;
    }
}

/* Descriptors, segments and the head from a plan, of which only the descriptors stay. */
static int open_planned(struct vfile *vf, struct err *e)
{
    struct store_plan *plan;
    gate_enter();
    int rc = plan_open(vf, &plan, e);
    if (rc == 0) {
        rc = take_segments(vf, plan->plan, e);
        if (rc == 0)
            rc = text_get(vf, VFILE_HEAD, plan, &vf->head, e);
        vf->part = plan->part;
        vf->n_part = plan->n_part;
        plan->part = NULL;
        plan->n_part = 0;
        store_plan_close(plan);
    }
    gate_leave();
    return rc;
}

/* The same where the segments are known: the parts (or the only one) as they were scanned, or
 * -ESTALE. */
static int open_known(struct vfile *vf, struct err *e)
{
    const struct store *st;
    const struct store_entry *en;
    struct scan *s = vfile_entry(vf, &st, &en);
    int rc = 0;
    vf->part = calloc((size_t)en->n_part, sizeof *vf->part);
    if (!vf->part)
        rc = err_set(e, -ENOMEM, "no memory for %d parts", en->n_part);
    int first = vf->only < 0 ? 0 : vf->only, end = vf->only < 0 ? en->n_part : first + 1;
    for (int i = first; rc == 0 && i < end; i++) {
        rc = store_part_open(&vf->part[vf->n_part], st, &en->part[i], e);
        vf->n_part += rc == 0;
    }
    scan_put(s);
    return rc < 0 || vf->only >= 0 ? rc : text_get(vf, VFILE_HEAD, NULL, &vf->head, e);
}

/* All that reading needs. The head stays in use while the file is open (large ones in their
 * temporary file). */
static int open_now(struct vfile *vf, struct err *e)
{
    int rc = vf->seg ? open_known(vf, e) : open_planned(vf, e);
    if (rc == 0)
        rc = pinned_new(&vf->pins, vf->part, vf->n_part, vf->env->lease, went_stale, vf, e);
    if (rc < 0)
        let_go(vf);
    return rc;
}

int vfile_open(struct vfile *vf, struct err *e)
{
    pthread_mutex_lock(&vf->mu);
    while (vf->state == VFILE_OPENING)
        pthread_cond_wait(&vf->opened, &vf->mu);
    int rc = vfile_stale(vf) ? err_set(e, -ESTALE, "its source changed") : 0;
    if (rc == 0 && vf->state == VFILE_CLOSED) {
        vf->state = VFILE_OPENING;
        pthread_mutex_unlock(&vf->mu);
        rc = open_now(vf, e);
        pthread_mutex_lock(&vf->mu);
        vf->state = rc == 0 ? VFILE_OPEN : VFILE_CLOSED;
        pthread_cond_broadcast(&vf->opened);
    }
    if (rc == 0) {
        vf->n_open++;
        atomic_fetch_add(&vf->env->n_open, 1);
    }
    pthread_mutex_unlock(&vf->mu);
    return rc;
}

void vfile_close(struct vfile *vf)
{
    pthread_mutex_lock(&vf->mu);
    atomic_fetch_sub(&vf->env->n_open, 1);
    bool last = --vf->n_open == 0;
    if (last)
        vf->state = VFILE_OPENING; /* an open that comes now waits until the old pins are gone */
    pthread_mutex_unlock(&vf->mu);
    if (!last)
        return;
    let_go(vf);
    pthread_mutex_lock(&vf->mu);
    vf->state = VFILE_CLOSED;
    pthread_cond_broadcast(&vf->opened);
    pthread_mutex_unlock(&vf->mu);
}

void vfile_check(struct vfile *vf)
{
    pthread_mutex_lock(&vf->mu);
    bool open = vf->state == VFILE_OPEN;
    if (open)
        vf->n_open++;
    pthread_mutex_unlock(&vf->mu);
    if (!open)
        return;
    atomic_fetch_add(&vf->env->n_open, 1);
    struct err e;
    (void)pinned_check(vf->pins, &e);
    vfile_close(vf);
}

/* --- reading ------------------------------------------------------------------------------ */

static int read_part(struct vfile *vf, int part, void *dst, uint64_t off, size_t len, struct err *e)
{
    int fd = pinned_fd(vf->pins, part);
    uint64_t dev = pinned_dev(vf->pins, part);
    const char *name = source_name(vf->part[part]);
    uint8_t *d = dst;
    while (len > 0) {
        ssize_t n = compat_pread_once(fd, dev, d, len, off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(e, errno == ENOMEM ? -ENOMEM : -EIO, "%s: read at byte %" PRIu64 ": %s",
                           name, off, strerror(errno));
        if (n == 0)
            return err_set(e, -EIO, "%s: ended at byte %" PRIu64, name, off);
        d += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

struct unit_job {
    struct vfile *vf;
    const struct vseg *seg;
    uint64_t first, n; /* blocks of the segment */
};

static int unit_build(void *ctx, uint8_t **p, size_t *len, struct err *e)
{
    const struct unit_job *j = ctx;
    const struct quant_type *t = j->seg->type;
    size_t n_src = j->n * t->block_bytes, n_out = j->n * t->block_len * sizeof(float);
    uint8_t *src = malloc(n_src);
    float *out = malloc(n_out);
    int rc = src && out ? 0 : err_set(e, -ENOMEM, "no memory for a converted unit");
    if (rc == 0)
        rc = read_part(j->vf, j->seg->part, src, j->seg->src_off + j->first * t->block_bytes, n_src,
                       e);
    if (rc == 0) {
        t->f32(out, src, j->n);
        atomic_fetch_add(&j->vf->env->conv_bytes, n_out);
        *p = (uint8_t *)out;
        *len = n_out;
        out = NULL;
    }
    free(src);
    free(out);
    return rc;
}

static int read_conv(struct vfile *vf, const struct vseg *s, uint8_t *dst, uint64_t off, size_t len,
                     struct err *e)
{
    uint64_t block = s->type->block_len * sizeof(float);
    uint64_t per_unit = UNIT_BYTES / block > 0 ? UNIT_BYTES / block : 1;
    uint64_t n_block = s->len / block;
    while (len > 0) {
        uint64_t unit = off / (per_unit * block), at = off % (per_unit * block);
        struct unit_job j = {.vf = vf, .seg = s, .first = unit * per_unit};
        j.n = n_block - j.first < per_unit ? n_block - j.first : per_unit;
        struct vcache_key k = {.unit = (uint64_t)(s - vf->seg) << MAX_SEG_UNITS | unit};
        memcpy(k.id, vf->gen, sizeof k.id);
        struct vcache_item *it;
        int rc = vcache_get(vf->env->units, &k, unit_build, &j, &it, e);
        if (rc < 0)
            return rc;
        size_t has = vcache_item_len(it), n = at < has && has - at < len ? has - at : len;
        rc = at < has ? vcache_item_read(it, dst, at, n, e)
                      : err_set(e, -EIO, "a converted unit has %zu bytes only", has);
        vcache_put(vf->env->units, it);
        if (rc < 0)
            return rc;
        dst += n;
        off += n;
        len -= n;
    }
    return 0;
}

/* The segment holding byte off < size. */
static size_t find_seg(const struct vfile *vf, uint64_t off)
{
    size_t lo = 0, hi = vf->n_seg - 1;
    while (lo < hi) {
        size_t mid = lo + (hi - lo + 1) / 2;
        if (vf->seg[mid].off <= off)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

static int read_footer(struct vfile *vf, uint8_t *dst, uint64_t at, size_t len, struct err *e);

static int read_seg(struct vfile *vf, const struct vseg *s, uint8_t *dst, uint64_t at, size_t len,
                    struct err *e)
{
    switch (s->kind) {
    case VSEG_MEM:
        atomic_fetch_add_explicit(&vf->env->mem_bytes, len, memory_order_relaxed);
        return vcache_item_read(vf->head, dst, s->src_off + at, len, e);
    case VSEG_FILE:
        atomic_fetch_add_explicit(&vf->env->file_bytes, len, memory_order_relaxed);
        return read_part(vf, s->part, dst, s->src_off + at, len, e);
    case VSEG_ZERO:
        memset(dst, 0, len);
        return 0;
    case VSEG_CONV:
        return read_conv(vf, s, dst, at, len, e);
    case VSEG_CRC:
        return read_footer(vf, dst, at, len, e);
    }
    return err_set(e, -EIO, "segment of kind %d", (int)s->kind);
}

/* The CRC-32 of all bytes before the footer. A generation that ends meanwhile ends it. */
static int crc_compute(struct vfile *vf, uint32_t *crc, struct err *e)
{
    uint8_t *buf = malloc(CRC_PIECE);
    int rc = buf ? 0 : err_set(e, -ENOMEM, "no memory for a checksum");
    *crc = 0;
    for (size_t i = 0; i < vf->n_seg && rc == 0; i++) {
        const struct vseg *s = &vf->seg[i];
        if (s->kind == VSEG_CRC)
            continue;
        if (s->kind == VSEG_ZERO) {
            *crc = crc32_zeros(*crc, s->len);
            continue;
        }
        for (uint64_t at = 0; at < s->len && rc == 0; at += CRC_PIECE) {
            size_t n = s->len - at < CRC_PIECE ? (size_t)(s->len - at) : CRC_PIECE;
            rc = vfile_stale(vf) ? err_set(e, -EIO, "its source changed")
                                 : read_seg(vf, s, buf, at, n, e);
            if (rc == 0)
                *crc = crc32_update(*crc, buf, n);
        }
    }
    free(buf);
    return rc;
}

/* The footer depends on every byte before it: whoever reads it first computes it, others wait. It is
 * kept only if the generation was certain to the end. */
static int read_footer(struct vfile *vf, uint8_t *dst, uint64_t at, size_t len, struct err *e)
{
    int rc = 0;
    pthread_mutex_lock(&vf->mu);
    while (vf->crc_state == CRC_COMPUTING)
        pthread_cond_wait(&vf->opened, &vf->mu);
    if (vf->crc_state == CRC_UNKNOWN) {
        uint32_t crc;
        vf->crc_state = CRC_COMPUTING;
        pthread_mutex_unlock(&vf->mu);
        rc = crc_compute(vf, &crc, e);
        if (rc == 0)
            rc = pinned_check(vf->pins, e);
        pthread_mutex_lock(&vf->mu);
        vf->crc = crc;
        vf->crc_state = rc == 0 ? CRC_KNOWN : CRC_UNKNOWN;
        pthread_cond_broadcast(&vf->opened);
    }
    uint8_t footer[4];
    store_u32(footer, vf->crc);
    pthread_mutex_unlock(&vf->mu);
    if (rc == 0)
        memcpy(dst, footer + at, len);
    return rc;
}

int vfile_read(struct vfile *vf, void *dst, uint64_t off, size_t len, size_t *got, struct err *e)
{
    *got = 0;
    int rc = pinned_enter(vf->pins, e);
    if (rc < 0)
        return rc;
    size_t want = off >= vf->size ? 0 : vf->size - off < len ? vf->size - off : len;
    uint8_t *d = dst;
    for (size_t i = want ? find_seg(vf, off) : 0, left = want; left > 0 && rc == 0; i++) {
        const struct vseg *s = &vf->seg[i];
        uint64_t at = off - s->off;
        size_t n = s->len - at < left ? s->len - at : left;
        rc = read_seg(vf, s, d, at, n, e);
        d += n;
        off += n;
        left -= n;
    }
    struct err late;
    int rc2 = pinned_leave(vf->pins, &late);
    if (rc == 0 && rc2 < 0)
        rc = err_set(e, rc2, "%s", late.msg);
    if (rc == 0)
        *got = want;
    return rc;
}

/* --- sending ------------------------------------------------------------------------------ */

static uint8_t zeros[64 << 10]; /* never written */

/* Appends [p, p+len); false: no room. */
static bool put_piece(struct iovec *iov, int max, int *n, const void *p, size_t len)
{
    if (*n == max)
        return false;
    iov[(*n)++] = (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = len};
    return true;
}

/* One segment's bytes [at, at+len); 0, 1: not to be had, or an error. */
static int put_seg(struct vfile *vf, const struct vseg *s, uint64_t at, size_t len,
                   struct iovec *iov, int max, int *n, uint8_t *scratch, struct err *e)
{
    const uint8_t *p;
    switch (s->kind) {
    case VSEG_MEM:
        p = vcache_item_mem(vf->head);
        if (p)
            return !put_piece(iov, max, n, p + s->src_off + at, len);
        int rc = vcache_item_read(vf->head, scratch, s->src_off + at, len, e);
        return rc < 0 ? rc : !put_piece(iov, max, n, scratch, len);
    case VSEG_FILE:
        p = pinned_map(vf->pins, s->part);
        return !p || !put_piece(iov, max, n, p + s->src_off + at, len);
    case VSEG_ZERO:
        for (size_t k; len > 0; len -= k) {
            k = len < sizeof zeros ? len : sizeof zeros;
            if (!put_piece(iov, max, n, zeros, k))
                return 1;
        }
        return 0;
    case VSEG_CONV:
    case VSEG_CRC:
        break;
    }
    return 1;
}

static void count_sent(struct vfile *vf, const struct iovec *iov, int n)
{
    size_t mem = 0, all = 0;
    const uint8_t *head = vcache_item_mem(vf->head);
    for (int i = 0; i < n; i++) {
        const uint8_t *p = iov[i].iov_base;
        bool from_head = head && p >= head && p < head + vcache_item_len(vf->head);
        mem += from_head ? iov[i].iov_len : 0;
        all += p == zeros ? 0 : iov[i].iov_len;
    }
    atomic_fetch_add_explicit(&vf->env->mem_bytes, mem, memory_order_relaxed);
    atomic_fetch_add_explicit(&vf->env->file_bytes, all - mem, memory_order_relaxed);
}

int vfile_send(struct vfile *vf, uint64_t off, size_t len, struct iovec *iov, int max, int *n,
               size_t *got, void *scratch, struct err *e)
{
    uint8_t *d = scratch;
    size_t want = off >= vf->size ? 0 : vf->size - off < len ? vf->size - off : len;
    *n = 0;
    *got = 0;
    if (want == 0)
        return 0;
    int rc = pinned_enter_sent(vf->pins, e);
    if (rc <= 0)
        return rc;
    rc = 0;
    for (size_t i = find_seg(vf, off), left = want; left > 0 && rc == 0; i++) {
        const struct vseg *s = &vf->seg[i];
        uint64_t at = off - s->off;
        size_t k = s->len - at < left ? s->len - at : left;
        rc = put_seg(vf, s, at, k, iov, max, n, d, e);
        d += k;
        off += k;
        left -= k;
    }
    if (rc != 0) {
        pinned_leave_sent(vf->pins, 0);
        return rc < 0 ? rc : 0;
    }
    count_sent(vf, iov, *n);
    *got = want;
    /* The reader may close the file as soon as it has the reply, before vfile_sent. */
    pthread_mutex_lock(&vf->mu);
    vf->n_open++;
    pthread_mutex_unlock(&vf->mu);
    atomic_fetch_add(&vf->env->n_open, 1);
    vfile_get(vf);
    return 1;
}

void vfile_sent(struct vfile *vf, size_t got)
{
    pinned_leave_sent(vf->pins, got);
    vfile_close(vf);
    vfile_put(vf);
}

/* --- what it is made of ------------------------------------------------------------------- */

const struct vseg *vfile_seg(const struct vfile *vf, size_t i)
{
    return i < vf->n_seg ? &vf->seg[i] : NULL;
}

bool vfile_converts(const struct vfile *vf)
{
    for (size_t i = 0; i < vf->n_seg; i++)
        if (vf->seg[i].kind == VSEG_CONV || vf->seg[i].kind == VSEG_CRC)
            return true;
    return false;
}

int vfile_n_part(const struct vfile *vf)
{
    return vf->n_part;
}

struct pinned *vfile_pins(const struct vfile *vf)
{
    return vf->pins;
}
