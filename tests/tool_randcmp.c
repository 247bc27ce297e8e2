/* tool_randcmp [OPTION VALUE]... FILE WITNESS
 *   --ops N       reads in all (10,000); --seconds S: for so long instead
 *   --threads T   8
 *   --seed S      1
 *   --extents TSV the seams, as .aprfs/extents/ has them
 *   --comm NAME   be called so while opening: the mount opens some programs' files without cache
 *   --mmap 0      without mmap, which a file opened without cache refuses on Linux before 6.6
 *   --align N     O_DIRECT at multiples of N alone, as disks' file systems ask (tier 1a); 0: at any byte
 *   --quiet 1     figures of a failed run only
 * Reads FILE in random ways and compares every byte with WITNESS: pread, preadv, mmap (as it comes and
 * MADV_RANDOM), O_DIRECT, readahead, sendfile, splice, copy_file_range; 1 byte to 3 MiB, half of them
 * across a seam of the extents (or near an end of the file). Now and then the cached pages are dropped
 * first, so that the file system itself is read and not its cache alone, and the file is opened anew.
 * Prints the seed; on a difference offset, length and way, and exits 1. */
#include "tests/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_LEN  ((size_t)3 << 20)
#define MAX_SEAM 65536

static const char *path, *witness_path, *comm;
static const uint8_t *witness;
static uint64_t size, seed = 1;
static uint64_t seam[MAX_SEAM];
static size_t n_seam;
static uint64_t n_op = 10000;
static double seconds; /* 0: n_op counts */
static bool quiet, no_mmap;
static uint64_t align;
static atomic_int failed;
static atomic_uint_least64_t n_bytes, n_evict, n_reopen, n_no_copy_range;

enum way {
    WAY_PREAD,
    WAY_PREADV,
    WAY_MMAP,
    WAY_MMAP_RANDOM,
    WAY_DIRECT,
    WAY_READAHEAD,
    WAY_SENDFILE,
    WAY_SPLICE,
    WAY_COPY_RANGE,
    N_WAY,
};

static const char *const way_name[N_WAY] = {"pread",       "preadv",   "mmap",
                                            "mmap-random", "O_DIRECT", "readahead",
                                            "sendfile",    "splice",   "copy_file_range"};
static atomic_uint_least64_t way_count[N_WAY];

struct worker {
    struct rng r;
    int fd, direct_fd, out_fd, pipe_fd[2];
    uint8_t *buf; /* page-aligned */
    uint64_t n;
};

static void die(const char *what)
{
    fprintf(stderr, "tool_randcmp: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void read_seams(const char *tsv)
{
    FILE *f = fopen(tsv, "r");
    char line[4096];
    if (!f)
        die(tsv);
    while (fgets(line, sizeof line, f)) {
        uint64_t off;
        if (sscanf(line, "map %" SCNu64, &off) == 1 && n_seam < MAX_SEAM)
            seam[n_seam++] = off;
    }
    fclose(f);
}

/* Offset and length: half near a seam, lengths over all magnitudes. */
static void pick(struct worker *w, uint64_t *off, size_t *len)
{
    *len = 1 + rng_below(&w->r, (size_t)1 << rng_below(&w->r, 22));
    *len = *len > MAX_LEN ? MAX_LEN : *len;
    if (rng_below(&w->r, 64) == 0)
        *len = MAX_LEN;
    if (rng_below(&w->r, 2)) {
        uint64_t at = n_seam ? seam[rng_below(&w->r, n_seam)] : 0;
        if (rng_below(&w->r, 8) == 0)
            at = size;
        uint64_t back = rng_below(&w->r, *len + 1);
        *off = at > back ? at - back : 0;
    } else {
        *off = rng_below(&w->r, size);
    }
    if (*off >= size)
        *off = size - 1;
    if (rng_below(&w->r, 16) && *len > size - *off) /* now and then past the end: a short answer */
        *len = size - *off;
}

static ssize_t read_v(struct worker *w, uint64_t off, size_t len)
{
    size_t a = rng_below(&w->r, len + 1), b = rng_below(&w->r, len - a + 1);
    struct iovec v[3] = {{w->buf, a}, {w->buf + a, b}, {w->buf + a + b, len - a - b}};
    return preadv(w->fd, v, 3, (off_t)off);
}

static ssize_t read_map(struct worker *w, uint64_t off, size_t len, int advice)
{
    uint64_t page = off & ~UINT64_C(4095);
    size_t n = len > size - off ? size - off : len;
    uint8_t *p = mmap(NULL, n + (off - page), PROT_READ, MAP_SHARED, w->fd, (off_t)page);
    if (p == MAP_FAILED)
        return -1;
    madvise(p, n + (off - page), advice);
    memcpy(w->buf, p + (off - page), n);
    munmap(p, n + (off - page));
    return (ssize_t)n;
}

/* sendfile or copy_file_range into a temporary file, read back. */
static ssize_t read_through_file(struct worker *w, enum way way, uint64_t off, size_t len)
{
    size_t done = 0;
    if (ftruncate(w->out_fd, 0) < 0 || lseek(w->out_fd, 0, SEEK_SET) < 0)
        return -1;
    while (done < len) {
        off_t at = (off_t)(off + done);
        ssize_t n = way == WAY_SENDFILE
                        ? sendfile(w->out_fd, w->fd, &at, len - done)
                        : copy_file_range(w->fd, &at, w->out_fd, NULL, len - done, 0);
        if (n < 0 && done == 0 && way == WAY_COPY_RANGE &&
            (errno == EXDEV || errno == EOPNOTSUPP)) { /* within one file system only */
            atomic_fetch_add(&n_no_copy_range, 1);
            return pread(w->fd, w->buf, len, (off_t)off);
        }
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return pread(w->out_fd, w->buf, done, 0);
}

static ssize_t read_spliced(struct worker *w, uint64_t off, size_t len)
{
    size_t done = 0;
    while (done < len) {
        off_t at = (off_t)(off + done);
        ssize_t n =
            splice(w->fd, &at, w->pipe_fd[1], NULL, len - done > 65536 ? 65536 : len - done, 0);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        for (ssize_t got = 0; got < n;) {
            ssize_t k = read(w->pipe_fd[0], w->buf + done + got, (size_t)(n - got));
            if (k <= 0)
                return -1;
            got += k;
        }
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static ssize_t read_some(struct worker *w, enum way way, uint64_t *off, size_t *len)
{
    switch (way) {
    case WAY_PREADV:
        return read_v(w, *off, *len);
    case WAY_MMAP:
        return read_map(w, *off, *len, MADV_NORMAL);
    case WAY_MMAP_RANDOM:
        return read_map(w, *off, *len, MADV_RANDOM);
    case WAY_DIRECT:
        if (align) {
            *off = *off / align * align;
            *len = (*len + align - 1) / align * align;
        } else if (rng_below(&w->r, 2)) { /* as those do who align, and as those who do not */
            *off &= ~UINT64_C(511);
            *len = (*len + 511) & ~(size_t)511;
        }
        return pread(w->direct_fd, w->buf, *len, (off_t)*off);
    case WAY_READAHEAD:
        if (readahead(w->fd, (off_t)*off, *len) < 0)
            return -1;
        return pread(w->fd, w->buf, *len, (off_t)*off);
    case WAY_SENDFILE:
    case WAY_COPY_RANGE:
        return read_through_file(w, way, *off, *len);
    case WAY_SPLICE:
        return read_spliced(w, *off, *len);
    default:
        return pread(w->fd, w->buf, *len, (off_t)*off);
    }
}

static void compare(struct worker *w, enum way way, uint64_t off, size_t len, ssize_t n)
{
    size_t want = len > size - off ? size - off : len;
    if (n != (ssize_t)want) {
        fprintf(stderr, "%s at %" PRIu64 "+%zu: %zd bytes (%s), expected %zu\n", way_name[way], off,
                len, n, n < 0 ? strerror(errno) : "no error", want);
        atomic_store(&failed, 1);
    } else if (memcmp(w->buf, witness + off, want) != 0) {
        size_t k = 0;
        while (w->buf[k] == witness[off + k])
            k++;
        fprintf(stderr, "%s at %" PRIu64 "+%zu: byte %" PRIu64 " is %02x, expected %02x\n",
                way_name[way], off, len, off + k, w->buf[k], witness[off + k]);
        atomic_store(&failed, 1);
    }
    atomic_fetch_add(&way_count[way], 1);
    atomic_fetch_add(&n_bytes, want);
}

static void open_file(struct worker *w)
{
    w->fd = open(path, O_RDONLY | O_CLOEXEC);
    w->direct_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (w->fd < 0 || w->direct_fd < 0)
        die(path);
}

static void close_file(struct worker *w)
{
    close(w->fd);
    close(w->direct_fd);
}

/* The page cache would answer all but the first reads of a small file. */
static void unsettle(struct worker *w)
{
    if (rng_below(&w->r, 8) == 0) {
        uint64_t off = rng_below(&w->r, size);
        posix_fadvise(w->fd, (off_t)off, rng_below(&w->r, 4) ? (off_t)MAX_LEN : 0,
                      POSIX_FADV_DONTNEED);
        atomic_fetch_add(&n_evict, 1);
    }
    if (rng_below(&w->r, 512) == 0) {
        close_file(w);
        open_file(w);
        atomic_fetch_add(&n_reopen, 1);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *work(void *ctx)
{
    struct worker *w = ctx;
    const double end = now() + seconds;
    if (comm)
        prctl(PR_SET_NAME, comm);
    for (uint64_t i = 0; !atomic_load(&failed) && (seconds > 0 ? now() < end : i < w->n); i++) {
        uint64_t off;
        size_t len;
        pick(w, &off, &len);
        enum way way = (enum way)rng_below(&w->r, N_WAY);
        if (no_mmap && (way == WAY_MMAP || way == WAY_MMAP_RANDOM))
            way = WAY_PREAD;
        unsettle(w);
        memset(w->buf, 0xa5, len < 64 ? len : 64);
        ssize_t n = read_some(w, way, &off, &len);
        compare(w, way, off, len, n);
    }
    return NULL;
}

static void worker_open(struct worker *w, uint64_t no, uint64_t n)
{
    char tmp[] = "/tmp/randcmp.XXXXXX";
    rng_init(&w->r, seed * 1000003 + no);
    w->n = n;
    open_file(w);
    w->out_fd = mkstemp(tmp);
    unlink(tmp);
    void *p;
    if (w->out_fd < 0 || pipe2(w->pipe_fd, O_CLOEXEC) < 0 ||
        posix_memalign(&p, 4096, MAX_LEN + 4096) != 0)
        die(tmp);
    w->buf = p;
}

static void worker_close(struct worker *w)
{
    close_file(w);
    close(w->out_fd);
    close(w->pipe_fd[0]);
    close(w->pipe_fd[1]);
    free(w->buf);
}

/* One option and its value; false if there is none of that name. */
static bool option(const char *name, const char *value, int *n_thread)
{
    if (strcmp(name, "--ops") == 0)
        n_op = strtoull(value, NULL, 10);
    else if (strcmp(name, "--seconds") == 0)
        seconds = strtod(value, NULL);
    else if (strcmp(name, "--threads") == 0)
        *n_thread = atoi(value);
    else if (strcmp(name, "--seed") == 0)
        seed = strtoull(value, NULL, 10);
    else if (strcmp(name, "--comm") == 0)
        comm = value;
    else if (strcmp(name, "--mmap") == 0)
        no_mmap = atoi(value) == 0;
    else if (strcmp(name, "--align") == 0)
        align = strtoull(value, NULL, 10);
    else if (strcmp(name, "--quiet") == 0)
        quiet = atoi(value) != 0;
    else if (strcmp(name, "--extents") == 0)
        read_seams(value);
    else
        return false;
    return true;
}

/* FILE and WITNESS have one size, and WITNESS is mapped; false if not. */
static bool open_witness(void)
{
    struct stat a, b;
    int fd = open(witness_path, O_RDONLY | O_CLOEXEC);
    if (stat(path, &a) < 0 || fd < 0 || fstat(fd, &b) < 0)
        die(fd < 0 ? witness_path : path);
    if (a.st_size != b.st_size || a.st_size == 0) {
        fprintf(stderr, "sizes: %lld and %lld\n", (long long)a.st_size, (long long)b.st_size);
        return false;
    }
    size = (uint64_t)a.st_size;
    witness = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (witness == MAP_FAILED)
        die(witness_path);
    close(fd);
    return true;
}

static void report(int n_thread)
{
    uint64_t n = 0;
    for (int k = 0; k < N_WAY; k++)
        n += atomic_load(&way_count[k]);
    printf("# seed %" PRIu64 ", %" PRIu64 " operations, %d threads, %zu seams\n", seed, n, n_thread,
           n_seam);
    printf("# %" PRIu64 " bytes compared:", atomic_load(&n_bytes));
    for (int k = 0; k < N_WAY; k++)
        printf(" %s %" PRIu64, way_name[k], atomic_load(&way_count[k]));
    printf("; %" PRIu64 " evictions, %" PRIu64 " reopened", atomic_load(&n_evict),
           atomic_load(&n_reopen));
    if (atomic_load(&n_no_copy_range))
        printf(", %" PRIu64 " times pread for want of copy_file_range between file systems",
               atomic_load(&n_no_copy_range));
    printf("\n");
}

int main(int argc, char **argv)
{
    int n_thread = 8, i = 1;
    while (i + 1 < argc && strncmp(argv[i], "--", 2) == 0 &&
           option(argv[i], argv[i + 1], &n_thread))
        i += 2;
    if (argc - i != 2 || n_thread < 1 || n_thread > 64) {
        fputs(
            "usage: tool_randcmp [--ops N | --seconds S] [--threads T] [--seed S] [--extents TSV] "
            "[--comm NAME] [--align N] [--quiet 1] FILE WITNESS\n",
            stderr);
        return 2;
    }
    path = argv[i];
    witness_path = argv[i + 1];
    if (comm)
        prctl(PR_SET_NAME, comm);
    if (!open_witness())
        return 1;
    struct worker w[64];
    pthread_t t[64];
    for (int k = 0; k < n_thread; k++)
        worker_open(&w[k], (uint64_t)k, n_op / (uint64_t)n_thread + 1);
    for (int k = 0; k < n_thread; k++)
        if (pthread_create(&t[k], NULL, work, &w[k]) != 0)
            die("pthread_create");
    for (int k = 0; k < n_thread; k++) {
        pthread_join(t[k], NULL);
        worker_close(&w[k]);
    }
    if (!quiet || atomic_load(&failed))
        report(n_thread);
    return atomic_load(&failed);
}
