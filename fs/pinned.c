/* Pinned parts: see pinned.h. A registry maps a leased descriptor to its set; the set stays in it
 * until pinned_free, which waits for a break in progress. */
#include "fs/pinned.h"

#include "fs/compat.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_MS 500
/* What the kernel gives a holder before it lets the writer in anyway: this file's seconds, or its
 * default where that cannot be read or is 0 (for ever). */
#define BREAK_FILE "/proc/sys/fs/lease-break-time"
#define BREAK_S    45
/* Page tables of a mapping take 1.75 MiB per GiB that went through it. */
#define TRIM_BYTES (UINT64_C(8) << 30)
/* A link count and its ctime are not read in one piece: a look between the two is repeated. */
#define RECHECK_TRIES 5

struct pin {
    int fd;
    const char *name;
    struct source_id id; /* as opened; ctime_ns here stays the first one */
    _Atomic int64_t ctime_ns;
    uint64_t nlink; /* under mu */
    bool leased;    /* under mu */
    uint8_t *_Atomic map;
};

struct pinned {
    pthread_mutex_t mu;
    pthread_cond_t drained;
    int n_reading; /* under mu */
    int n_sending; /* those of them that are replies from mappings; under mu */
    bool cut;      /* the mappings are; under mu */
    atomic_uint_least64_t sent;
    atomic_bool stale;
    atomic_bool leased; /* every part is */
    pinned_stale_fn *hook;
    void *ctx;
    struct pinned *prev, *next; /* registry */
    int n_break;                /* breaks being worked on, under registry_mu */
    int n;
    struct pin pin[];
};

static pthread_mutex_t registry_mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t registry_idle = PTHREAD_COND_INITIALIZER;
static struct pinned *registry;
static atomic_uint_least64_t n_breaks;
static atomic_uint break_s; /* 0: BREAK_FILE's */

int pinned_lease_signal(void)
{
    return SIGRTMIN + 3;
}

uint64_t pinned_n_breaks(void)
{
    return atomic_load(&n_breaks);
}

static void mark_stale(struct pinned *p, const char *why)
{
    bool was = atomic_exchange(&p->stale, true);
    if (!was && p->hook)
        p->hook(p->ctx, why);
}

static int64_t ns(struct timespec t)
{
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static bool same_content(const struct pin *pin, const struct stat *st)
{
    return st->st_dev == pin->id.dev && st->st_ino == pin->id.ino &&
           (uint64_t)st->st_size == pin->id.size && ns(st->st_mtim) == pin->id.mtime_ns;
}

/* What the kernel says, whatever became of the signal that tells of a writer who waits: false from the
 * moment he does. */
static bool lease_stands(const struct pin *pin)
{
    return fcntl(pin->fd, F_GETLEASE) == F_RDLCK;
}

/* The slow half of a check: ctime moved. Under p->mu. 0: accepted and recorded. */
static int explain_ctime(struct pin *pin)
{
    for (int i = 0; i < RECHECK_TRIES; i++) {
        struct stat st;
        if (fstat(pin->fd, &st) < 0 || !same_content(pin, &st))
            return -EIO;
        if (ns(st.st_ctim) == atomic_load(&pin->ctime_ns))
            return 0;
        if ((pin->leased && lease_stands(pin)) || st.st_nlink != pin->nlink) {
            pin->nlink = st.st_nlink;
            atomic_store(&pin->ctime_ns, ns(st.st_ctim));
            return 0;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return -EIO;
}

static int check_pin(struct pinned *p, struct pin *pin, struct err *e)
{
    struct stat st;
    if (fstat(pin->fd, &st) < 0)
        return err_set(e, -EIO, "%s: fstat: %s", pin->name, strerror(errno));
    bool same = same_content(pin, &st);
    if (same && ns(st.st_ctim) == atomic_load_explicit(&pin->ctime_ns, memory_order_relaxed))
        return 0;
    int rc = -EIO;
    if (same) {
        pthread_mutex_lock(&p->mu);
        rc = explain_ctime(pin);
        pthread_mutex_unlock(&p->mu);
    }
    if (rc < 0) {
        err_set(e, -EIO,
                "%s: changed in place while it was served (was %" PRIu64 " bytes, is %" PRIu64 ")",
                pin->name, pin->id.size, (uint64_t)st.st_size);
        mark_stale(p, e ? e->msg : pin->name);
    }
    return rc;
}

int pinned_check(struct pinned *p, struct err *e)
{
    if (atomic_load(&p->stale))
        return err_set(e, -EIO, "%s: changed in place; this handle is stale", p->pin[0].name);
    for (int i = 0; i < p->n; i++) {
        int rc = check_pin(p, &p->pin[i], e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int pinned_renew(struct pinned *p, int part, int fd, struct err *e)
{
    struct pin *pin = &p->pin[part];
    struct stat st;
    int rc = 0;
    pthread_mutex_lock(&p->mu);
    for (int i = 0; i < p->n && rc == 0; i++)
        rc = p->pin[i].leased ? err_set(e, -EBUSY, "%s: under a lease", pin->name) : 0;
    if (rc == 0 && fstat(fd, &st) < 0)
        rc = err_set(e, -EIO, "%s: fstat: %s", pin->name, strerror(errno));
    else if (rc == 0 && (!same_content(pin, &st) || ns(st.st_ctim) != atomic_load(&pin->ctime_ns)))
        rc = err_set(e, -ESTALE, "%s: another generation by now", pin->name);
    else if (rc == 0 && dup3(fd, pin->fd, O_CLOEXEC) < 0)
        rc = err_set(e, -errno, "%s: %s", pin->name, strerror(errno));
    pthread_mutex_unlock(&p->mu);
    return rc;
}

static void reading(struct pinned *p, int by)
{
    pthread_mutex_lock(&p->mu);
    p->n_reading += by;
    if (p->n_reading == 0)
        pthread_cond_broadcast(&p->drained);
    pthread_mutex_unlock(&p->mu);
}

int pinned_enter(struct pinned *p, struct err *e)
{
    reading(p, 1);
    int rc = pinned_check(p, e);
    if (rc < 0)
        reading(p, -1);
    return rc;
}

int pinned_leave(struct pinned *p, struct err *e)
{
    int rc = pinned_check(p, e);
    reading(p, -1);
    return rc;
}

int pinned_enter_sent(struct pinned *p, struct err *e)
{
    pthread_mutex_lock(&p->mu);
    bool leased = atomic_load(&p->leased);
    p->n_reading += leased;
    p->n_sending += leased;
    pthread_mutex_unlock(&p->mu);
    if (!leased)
        return pinned_stale(p) ? pinned_check(p, e) : 0;
    /* A break that came before we were counted has marked it stale by now; one that comes later waits
     * for us. */
    int rc = pinned_check(p, e) < 0 ? -EIO : 1;
    for (int i = 0; rc == 1 && i < p->n; i++)
        rc = lease_stands(&p->pin[i]); /* else he waits already: copy and compare */
    if (rc <= 0)
        pinned_leave_sent(p, 0);
    return rc;
}

void pinned_leave_sent(struct pinned *p, uint64_t n)
{
    uint64_t before = atomic_fetch_add(&p->sent, n);
    if (before / TRIM_BYTES != (before + n) / TRIM_BYTES)
        for (int i = 0; i < p->n; i++)
            if (atomic_load(&p->pin[i].map))
                madvise(atomic_load(&p->pin[i].map), p->pin[i].id.size, MADV_DONTNEED);
    pthread_mutex_lock(&p->mu);
    p->n_sending--;
    p->n_reading--;
    if (p->n_reading == 0 || p->n_sending == 0)
        pthread_cond_broadcast(&p->drained);
    pthread_mutex_unlock(&p->mu);
}

const uint8_t *pinned_map(struct pinned *p, int part)
{
    struct pin *pin = &p->pin[part];
    uint8_t *m = atomic_load(&pin->map);
    if (m)
        return m;
    pthread_mutex_lock(&p->mu);
    m = atomic_load(&pin->map);
    if (!m && pin->id.size > 0 && !p->cut) {
        m = mmap(NULL, pin->id.size, PROT_READ, MAP_SHARED, pin->fd, 0);
        m = m == MAP_FAILED ? NULL : m;
        atomic_store(&pin->map, m);
    }
    pthread_mutex_unlock(&p->mu);
    return m;
}

bool pinned_stale(const struct pinned *p)
{
    return atomic_load(&p->stale);
}

bool pinned_leased(const struct pinned *p)
{
    return atomic_load(&p->leased);
}

int pinned_fd(const struct pinned *p, int part)
{
    return p->pin[part].fd;
}

uint64_t pinned_dev(const struct pinned *p, int part)
{
    return p->pin[part].id.dev;
}

static bool is_local(int fd)
{
    struct statfs s;
    return fstatfs(fd, &s) == 0 && !compat_remote_fs((unsigned)s.f_type);
}

bool pinned_has_writer(int fd)
{
    if (!is_local(fd))
        return false;
    if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
        fcntl(fd, F_SETLEASE, F_UNLCK);
        return false;
    }
    return errno == EAGAIN;
}

/* 1: granted, 0: this file system or owner gives none, -EAGAIN: a writer has it open. */
static int lease_take(int fd)
{
    if (!is_local(fd))
        return 0;
    /* The owner goes first: the kernel would else take the calling thread, which may end. */
    if (fcntl(fd, F_SETOWN, (long)getpid()) < 0 || fcntl(fd, F_SETSIG, pinned_lease_signal()) < 0)
        return 0;
    if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0)
        return 1;
    return errno == EAGAIN ? -EAGAIN : 0;
}

static void lease_drop(struct pin *pin)
{
    if (pin->leased)
        fcntl(pin->fd, F_SETLEASE, F_UNLCK);
    pin->leased = false;
}

static void registry_add(struct pinned *p)
{
    pthread_mutex_lock(&registry_mu);
    p->next = registry;
    if (registry)
        registry->prev = p;
    registry = p;
    pthread_mutex_unlock(&registry_mu);
}

static void registry_remove(struct pinned *p)
{
    pthread_mutex_lock(&registry_mu);
    while (p->n_break > 0)
        pthread_cond_wait(&registry_idle, &registry_mu);
    if (p->prev)
        p->prev->next = p->next;
    else if (registry == p)
        registry = p->next;
    if (p->next)
        p->next->prev = p->prev;
    p->prev = p->next = NULL;
    pthread_mutex_unlock(&registry_mu);
}

/* Under p->mu: a break of the lease just taken waits until it is recorded. */
static int pin_part(struct pin *pin, bool lease, struct err *e)
{
    if (lease) {
        int rc = lease_take(pin->fd);
        if (rc < 0)
            return err_set(e, rc, "%s: open for writing elsewhere", pin->name);
        pin->leased = rc > 0;
    }
    struct stat st;
    if (fstat(pin->fd, &st) < 0)
        return err_set(e, -EIO, "%s: fstat: %s", pin->name, strerror(errno));
    if (!same_content(pin, &st) || ns(st.st_ctim) != pin->id.ctime_ns)
        return err_set(e, -ESTALE, "%s: changed since it was opened", pin->name);
    atomic_init(&pin->ctime_ns, pin->id.ctime_ns);
    pin->nlink = st.st_nlink;
    return 0;
}

int pinned_new(struct pinned **out, struct source *const *part, int n, bool lease,
               pinned_stale_fn *stale, void *ctx, struct err *e)
{
    struct pinned *p = calloc(1, sizeof *p + (size_t)n * sizeof p->pin[0]);
    if (!p)
        return err_set(e, -ENOMEM, "no memory for %d pinned parts", n);
    pthread_mutex_init(&p->mu, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->drained, &attr);
    pthread_condattr_destroy(&attr);
    p->hook = stale;
    p->ctx = ctx;
    p->n = n;
    for (int i = 0; i < n; i++) {
        p->pin[i].fd = source_fd(part[i]);
        p->pin[i].name = source_name(part[i]);
        p->pin[i].id = source_id(part[i]);
    }
    /* Into the registry before the first lease: a break may come at once. */
    registry_add(p);
    bool all = lease;
    for (int i = 0; i < n; i++) {
        pthread_mutex_lock(&p->mu);
        int rc = pin_part(&p->pin[i], lease, e);
        all = all && p->pin[i].leased;
        pthread_mutex_unlock(&p->mu);
        if (rc < 0) {
            pinned_free(p);
            return rc;
        }
    }
    atomic_store(&p->leased, all && !pinned_stale(p));
    *out = p;
    return 0;
}

void pinned_free(struct pinned *p)
{
    if (!p)
        return;
    registry_remove(p);
    for (int i = 0; i < p->n; i++) {
        lease_drop(&p->pin[i]);
        if (atomic_load(&p->pin[i].map))
            munmap(atomic_load(&p->pin[i].map), p->pin[i].id.size);
    }
    pthread_cond_destroy(&p->drained);
    pthread_mutex_destroy(&p->mu);
    free(p);
}

static struct timespec after_ms(unsigned ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000L;
    t.tv_sec += t.tv_nsec / 1000000000L;
    t.tv_nsec %= 1000000000L;
    return t;
}

/* Nothing can be read through the mappings any more: replies under way get EFAULT. Under mu. */
static void cut_maps(struct pinned *p)
{
    p->cut = true;
    for (int i = 0; i < p->n; i++) {
        uint8_t *m = atomic_load(&p->pin[i].map);
        if (m)
            mmap(m, p->pin[i].id.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
}

void pinned_set_break_time(unsigned seconds)
{
    atomic_store(&break_s, seconds);
}

static unsigned break_ms(void)
{
    unsigned s = atomic_load(&break_s);
    FILE *f = s ? NULL : fopen(BREAK_FILE, "re");
    if (f) {
        if (fscanf(f, "%u", &s) != 1)
            s = 0;
        fclose(f);
    }
    return (s > 0 && s < UINT_MAX / 1000 ? s : BREAK_S) * 1000;
}

/* Until *n is 0, at most ms long. Under mu. */
static void drain(struct pinned *p, const int *n, unsigned ms)
{
    struct timespec until = after_ms(ms);
    while (*n > 0)
        if (pthread_cond_timedwait(&p->drained, &p->mu, &until) == ETIMEDOUT)
            break;
}

/* Lets the writers of p's files go, once the reads in flight are through; before the kernel does. */
static void release_leases(struct pinned *p)
{
    unsigned all = break_ms(), rest = all / 4 < DRAIN_MS ? all / 4 : DRAIN_MS;
    mark_stale(p, "a writer opened or truncated the file");
    pthread_mutex_lock(&p->mu);
    drain(p, &p->n_reading, rest);
    if (p->n_sending > 0) {
        cut_maps(p);
        drain(p, &p->n_sending, all - 3 * rest);
    }
    for (int i = 0; i < p->n; i++)
        lease_drop(&p->pin[i]);
    atomic_store(&p->leased, false);
    pthread_mutex_unlock(&p->mu);
    atomic_fetch_add(&n_breaks, 1);
}

/* F_GETLEASE says what a lease must become while it is being broken. A signal may come late, when
 * its number already is another file's: so the kernel is asked for that one too. fd < 0: any. */
static bool is_broken(struct pinned *p, int fd)
{
    bool broken = false;
    pthread_mutex_lock(&p->mu);
    for (int i = 0; i < p->n && !broken; i++)
        broken = p->pin[i].leased && (fd < 0 || p->pin[i].fd == fd) &&
                 fcntl(p->pin[i].fd, F_GETLEASE) == F_UNLCK;
    pthread_mutex_unlock(&p->mu);
    return broken;
}

void pinned_lease_broken(int fd)
{
    for (;;) {
        pthread_mutex_lock(&registry_mu);
        struct pinned *p = registry;
        while (p && !is_broken(p, fd))
            p = p->next;
        if (p)
            p->n_break++;
        pthread_mutex_unlock(&registry_mu);
        if (!p)
            return;
        release_leases(p);
        pthread_mutex_lock(&registry_mu);
        p->n_break--;
        pthread_cond_broadcast(&registry_idle);
        pthread_mutex_unlock(&registry_mu);
        if (fd >= 0)
            return;
    }
}
