/* One generation of one model: see vfile.h. */
#include "fs/vfile_internal.h"

#include "format/sibling.h"
#include "format/store_text.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_SEGS       64 /* of a file that is not open; a placed layout has two per tensor */
#define N_PLANS_AT_ONCE 2  /* a plan of a big vocabulary takes tens of MiB while it is made */

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

/* What an earlier mount computed. Without memory for it, it is computed again. */
static void take_sums(struct vfile *vf, const struct store_learnt *l)
{
    vf->crc = l->n_crc ? malloc(l->n_crc * sizeof *vf->crc) : NULL;
    if (!vf->crc)
        return;
    memcpy(vf->crc, l->crc, l->n_crc * sizeof *vf->crc);
    vf->n_crc = l->n_crc;
    vf->crc_state = CRC_KNOWN;
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
    vf->head_len = en->head_len;
    vf->only = -1;
    vfile_generation(vf->gen, st, en);
    pthread_mutex_init(&vf->mu, NULL);
    pthread_cond_init(&vf->opened, NULL);
    vf->scan = scan_get(s);
    vf->store = store;
    vf->entry = entry;
    take_sums(vf, en->learnt);
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
    free(vf->crc);
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

void vfile_doubt(struct vfile *vf, const char *why)
{
    atomic_store(&vf->doubt, true); /* before anybody is told to scan */
    went_stale(vf, why);
}

/* --- plans -------------------------------------------------------------------------------- */

static pthread_mutex_t gate_mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_free = PTHREAD_COND_INITIALIZER;
static int gate_used;

void vfile_gate_enter(void)
{
    pthread_mutex_lock(&gate_mu);
    while (gate_used == N_PLANS_AT_ONCE)
        pthread_cond_wait(&gate_free, &gate_mu);
    gate_used++;
    pthread_mutex_unlock(&gate_mu);
}

void vfile_gate_leave(void)
{
    malloc_trim(0); /* what a plan took goes back to the system, not into the arena */
    pthread_mutex_lock(&gate_mu);
    gate_used--;
    pthread_cond_signal(&gate_free);
    pthread_mutex_unlock(&gate_mu);
}

/* The same bytes and the same options make the same plan: if not, what was recorded of them is wrong,
 * and so is what stat() said. */
static int check_plan(struct vfile *vf, const struct vplan *p, struct err *e)
{
    uint64_t head = store_head_len(p);
    if (p->size == vf->size && (!vf->head_len || head == vf->head_len))
        return 0;
    err_set(e, -EIO,
            "planned again it has %" PRIu64 " bytes, %" PRIu64
            " of them its head; recorded were %" PRIu64 " and %" PRIu64,
            p->size, head, vf->size, vf->head_len);
    vfile_doubt(vf, e->msg);
    return -EIO;
}

/* A plan made from the path as it is now, which must be this generation. */
static int plan_open(struct vfile *vf, struct store_plan **out, struct err *e)
{
    const struct store *st;
    const struct store_entry *en;
    struct scan *s = vfile_entry(vf, &st, &en);
    struct store_entry unsized = *en;
    unsized.size = 0; /* compared here, where it has consequences */
    int rc = store_plan_open(out, st, &unsized, e);
    if (rc == 0 && (rc = check_plan(vf, (*out)->plan, e)) < 0)
        store_plan_close(*out);
    scan_put(s);
    return rc;
}

/* All VSEG_MEM bytes in order. */
static int gather_mem(const struct vplan *v, uint8_t **p, size_t *len, struct err *e)
{
    uint64_t n = store_head_len(v);
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
    if (!same)
        vfile_doubt(vf, "its head was built again and differs");
    return same ? 0 : err_set(e, -EIO, "the head was built again and differs");
}

struct text_job {
    struct vfile *vf;
    enum vfile_text which;
    const struct store_plan *plan; /* NULL: to be opened */
    /* What it stands for when the text is asked for: the text and its key are of one scan. */
    const struct store *store;
    const struct store_entry *en;
    bool past; /* asked for with the identity of an earlier scan */
};

static int text_from_plan(const struct text_job *j, const struct store_plan *plan, uint8_t **p,
                          size_t *len, struct err *e)
{
    char *text = NULL;
    int rc = 0;
    enum arch_values values = j->store->opt.vapr.values == VAPR_VALUES_COMPAT
                                  ? ARCH_VALUES_COMPAT
                                  : ARCH_VALUES_REFERENCE;
    switch (j->which) {
    case VFILE_HEAD:
        rc = gather_mem(plan->plan, p, len, e);
        if (rc == 0 && (rc = check_head(j->vf, *p, *len, e)) < 0)
            free(*p);
        return rc;
    case VFILE_EXTENTS:
        rc = store_text_extents(j->en, plan, &text, len, e);
        break;
    case VFILE_LAYOUT:
        text = strdup(plan->plan->layout);
        rc = text ? 0 : err_set(e, -ENOMEM, "no memory for a word");
        *len = text ? strlen(text) : 0;
        break;
    case VFILE_CRC32:
        rc = vfile_crc_text(j->vf, plan, &text, len, e);
        break;
    case VFILE_TOKENIZER:
        rc = sibling_tokenizer(plan->gguf, &text, len, e);
        break;
    case VFILE_CONFIG:
        rc = sibling_config(plan->gguf, values, &text, len, e);
        break;
    case VFILE_GENERATION:
        rc = sibling_generation(plan->gguf, values, j->en->params, &text, len, e);
        break;
    }
    *p = (uint8_t *)text;
    return rc;
}

static int text_build(void *ctx, uint8_t **p, size_t *len, struct err *e)
{
    const struct text_job *j = ctx;
    if (j->past)
        return err_set(e, -ESTALE, "its store says something else by now");
    if (j->plan)
        return text_from_plan(j, j->plan, p, len, e);
    if (vfile_stale(j->vf))
        return err_set(e, -ESTALE, "its source changed");
    struct store_plan *plan;
    vfile_gate_enter();
    int rc = plan_open(j->vf, &plan, e);
    if (rc == 0) {
        rc = text_from_plan(j, plan, p, len, e);
        store_plan_close(plan);
    }
    vfile_gate_leave();
    return rc;
}

static int text_get(struct vfile *vf, enum vfile_text which, const uint8_t *id,
                    const struct store_plan *plan, struct vcache_item **out, struct err *e)
{
    struct text_job j = {.vf = vf, .which = which, .plan = plan};
    struct vcache_key k = {.unit = which};
    struct scan *s = vfile_entry(vf, &j.store, &j.en);
    if (which == VFILE_TOKENIZER || which == VFILE_CONFIG || which == VFILE_GENERATION)
        memcpy(k.id, j.en->sibling_sha256, sizeof k.id);
    else
        vfile_place(k.id, vf->gen, j.en);
    /* Who makes a head may wait at the gate, so nobody inside may wait for it: each file makes its own.
     * (Two stores may show one place, if one root is below the other.) */
    k.unit |= which == VFILE_HEAD ? vfile_ino(vf) << 8 : 0;
    if (id && memcmp(id, k.id, sizeof k.id) != 0) {
        j.past = true;
        memcpy(k.id, id, sizeof k.id); /* what was made before may still be there */
    }
    int rc = vcache_get(vf->env->texts, &k, text_build, &j, out, e);
    scan_put(s);
    return rc;
}

int vfile_text(struct vfile *vf, enum vfile_text which, const uint8_t *id, struct vcache_item **out,
               struct err *e)
{
    if (which == VFILE_CRC32 && !vfile_crc_known(vf)) /* says so without a plan */
        return err_set(e, -ENODATA, "the checksums were not computed yet");
    return text_get(vf, which, id, NULL, out, e);
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
    vfile_gate_enter();
    int rc = plan_open(vf, &plan, e);
    if (rc == 0) {
        rc = take_segments(vf, plan->plan, e);
        if (rc == 0)
            rc = text_get(vf, VFILE_HEAD, NULL, plan, &vf->head, e);
        vf->part = plan->part;
        vf->n_part = plan->n_part;
        plan->part = NULL;
        plan->n_part = 0;
        store_plan_close(plan);
    }
    vfile_gate_leave();
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
    return rc < 0 || vf->only >= 0 ? rc : text_get(vf, VFILE_HEAD, NULL, NULL, &vf->head, e);
}

int vfile_renew(struct vfile *vf, struct err *e)
{
    const struct store *st;
    const struct store_entry *en;
    struct scan *s = vfile_entry(vf, &st, &en);
    int rc = 0;
    for (int i = 0; i < vf->n_part && rc == 0; i++) {
        struct source *part = NULL;
        rc = store_part_open(&part, st, &en->part[vf->only < 0 ? i : vf->only], e);
        if (rc == 0)
            rc = pinned_renew(vf->pins, i, source_fd(part), e);
        source_close(part);
    }
    scan_put(s);
    if (rc == 0)
        atomic_fetch_add(&vf->env->n_renewed, 1);
    return rc;
}

/* All that reading needs. The head stays in use while the file is open (large ones in their file). */
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
    bool was_open = vf->state == VFILE_OPEN;
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
    /* What others opened was compared then. (Or its server has forgotten the descriptor since.) */
    if (rc == 0 && was_open && pinned_check(vf->pins, e) < 0 &&
        (vfile_stale(vf) || vfile_renew(vf, e) < 0)) {
        rc = vfile_stale(vf) ? -ESTALE : -EIO;
        vfile_close(vf);
    }
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
