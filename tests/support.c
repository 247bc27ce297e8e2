/* Test helpers: see support.h. */
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    abort();
}

static size_t guard_map_len(size_t len, size_t page)
{
    return (len + page - 1) / page * page + page;
}

uint8_t *guard_new(const void *src, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), total = guard_map_len(len, page);
    uint8_t *m = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        die("guard_new");
    uint8_t *p = m + total - page - len;
    if (src && len > 0)
        memcpy(p, src, len);
    if (mprotect(m, total - page, PROT_READ) < 0 || mprotect(m + total - page, page, PROT_NONE) < 0)
        die("guard_new");
    return p;
}

void guard_free(uint8_t *p, size_t len)
{
    if (!p)
        return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), total = guard_map_len(len, page);
    munmap(p + len + page - total, total);
}

static int faulty_read(void *ctx, void *dst, uint64_t off, size_t len, struct err *e)
{
    struct faulty *f = ctx;
    f->bytes_read += len;
    if (f->n_read++ == f->fail_at)
        return err_set(e, f->rc, "injected fault at read %d", f->fail_at);
    size_t n = off >= f->len ? 0 : f->len - off < len ? (size_t)(f->len - off) : len;
    if (n > 0)
        memcpy(dst, f->p + off, n);
    memset((uint8_t *)dst + n, 0, len - n);
    return 0;
}

struct source *faulty_source(struct faulty *f, uint64_t size, const char *name)
{
    static const struct source_ops ops = {.read = faulty_read};
    struct source *s = NULL;
    if (source_from_ops(&s, &ops, f, size, name, NULL) < 0)
        die("faulty_source");
    return s;
}

struct source *mem_source(const void *p, size_t len, const char *name)
{
    struct source *s = NULL;
    if (source_from_mem(&s, p, len, name, NULL) < 0)
        die("mem_source");
    return s;
}

double nmse(const float *a, const float *ref, size_t n)
{
    double num = 0, den = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)ref[i];
        num += d * d;
        den += (double)ref[i] * (double)ref[i];
    }
    if (isnan(num) || isnan(den))
        return HUGE_VAL;
    if (den == 0)
        return num == 0 ? 0 : HUGE_VAL;
    return num / den;
}

struct temp {
    struct temp *next;
    pid_t owner; /* a forked child must not remove its parent's folders */
    char path[];
};
static struct temp *temps;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st;
    (void)flag;
    (void)f;
    return remove(path);
}

static void remove_temps(void)
{
    for (struct temp *t = temps; t; t = temps) {
        temps = t->next;
        if (t->owner == getpid())
            nftw(t->path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
        free(t);
    }
}

char *temp_dir(void)
{
    const char *base = getenv("TMPDIR");
    if (!base || !*base)
        base = "/tmp";
    char *path = path_join(base, "aprfs-test-XXXXXX");
    if (!mkdtemp(path))
        die(path);
    struct temp *t = malloc(sizeof *t + strlen(path) + 1);
    if (!t)
        die("temp_dir");
    if (!temps && atexit(remove_temps) != 0)
        die("atexit");
    strcpy(t->path, path);
    t->owner = getpid();
    t->next = temps;
    temps = t;
    return path;
}

char *path_join(const char *dir, const char *name)
{
    char *out = NULL;
    if (asprintf(&out, "%s/%s", dir, name) < 0)
        die("path_join");
    return out;
}

void file_write(const char *path, const void *p, size_t len)
{
    FILE *f = fopen(path, "wb");
    if (!f || (len > 0 && fwrite(p, 1, len, f) != len) || fclose(f) != 0)
        die(path);
}

uint8_t *file_read(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    if (fseeko(f, 0, SEEK_END) < 0)
        die(path);
    off_t n = ftello(f);
    rewind(f);
    uint8_t *p = malloc(n > 0 ? (size_t)n : 1);
    if (n < 0 || !p || fread(p, 1, (size_t)n, f) != (size_t)n)
        die(path);
    fclose(f);
    *len = (size_t)n;
    return p;
}

void skip_because_in(const char *test, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("# skip %s: ", test);
    vprintf(fmt, ap);
    printf("\n");
    fflush(stdout);
    va_end(ap);
    skip();
}

char *real_model(const char *file)
{
    const char *dir = getenv("APRFS_MODELS");
    char *path = path_join(dir && *dir ? dir : ".cache/models", file);
    if (access(path, R_OK) == 0)
        return path;
    free(path);
    return NULL;
}

uint64_t test_seed(void)
{
    static uint64_t seed;
    static bool done;
    if (!done) {
        const char *s = getenv("APRFS_SEED");
        seed = s && *s ? strtoull(s, NULL, 0) : 1;
        printf("# seed %" PRIu64 "\n", seed);
        fflush(stdout);
        done = true;
    }
    return seed;
}

double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

bool long_run(void)
{
    const char *v = getenv("LONG");
    return v && *v && strcmp(v, "0") != 0;
}

size_t pages_cached(int fd, uint64_t off, size_t len)
{
    size_t n = 0, n_page = (len + 4095) / 4096;
    unsigned char *there = malloc(n_page + 1);
    void *map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (off_t)off);
    assert_non_null(there);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(mincore(map, len, there), 0);
    for (size_t i = 0; i < n_page; i++)
        n += there[i] & 1;
    munmap(map, len);
    free(there);
    return n;
}

bool pages_dropped(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(fdatasync(fd), 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    return pages_cached(fd, 0, (size_t)st.st_size) == 0;
}
