/* tool_pattern fill SRC FROM LEN AT BS
 *     writes the pattern into SRC, LEN bytes from FROM on, as if they stood at AT of another file: each
 *     8 bytes are the offset of their block of BS bytes in that file (fio's verify_pattern=%o).
 * tool_pattern storm FILE FROM LEN BS PROCS SECONDS SEED
 *     PROCS processes map FILE with MADV_RANDOM and touch pages of [FROM, FROM + LEN) at random until
 *     LEN / 4 bytes were looked at by each or SECONDS are over; every word is compared.
 * tool_pattern read FILE FROM LEN BS BUFFER [direct]
 *     reads all of it in order with buffers of BUFFER bytes and compares every word.
 * A wrong word is named, and the exit status 1. */
#include "tests/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

static uint64_t block; /* bytes, a multiple of 8 */

static int die(const char *what)
{
    fprintf(stderr, "tool_pattern: %s: %s\n", what, strerror(errno));
    return 1;
}

/* Words of p, which stands at off (a multiple of 8). */
static bool right(const uint8_t *p, size_t len, uint64_t off)
{
    for (size_t i = 0; i + 8 <= len; i += 8) {
        uint64_t word, want = (off + i) / block * block;
        memcpy(&word, p + i, 8);
        if (word != want) {
            fprintf(stderr, "at %" PRIu64 ": %016" PRIx64 ", expected %016" PRIx64 "\n", off + i,
                    word, want);
            return false;
        }
    }
    return true;
}

static int fill(const char *path, uint64_t from, uint64_t len, uint64_t at)
{
    static uint8_t buf[1 << 20];
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return die(path);
    for (uint64_t done = 0; done < len;) {
        size_t n = len - done < sizeof buf ? (size_t)(len - done) : sizeof buf;
        for (size_t i = 0; i + 8 <= n; i += 8) {
            uint64_t word = (at + done + i) / block * block;
            memcpy(buf + i, &word, 8);
        }
        if (pwrite(fd, buf, n, (off_t)(from + done)) != (ssize_t)n)
            return die(path);
        done += n;
    }
    return close(fd) < 0 ? die(path) : 0;
}

static int touch(const uint8_t *map, uint64_t from, uint64_t len, uint64_t n, time_t end,
                 uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed);
    for (uint64_t i = 0; i < n && (i % 64 || time(NULL) < end); i++) {
        uint64_t at = (from + rng_below(&r, len)) / PAGE * PAGE;
        at = at < from ? from : at;
        uint64_t stop = at / PAGE * PAGE + PAGE;
        if (!right(map + at, (size_t)((stop < from + len ? stop : from + len) - at), at))
            return 1;
    }
    return 0;
}

static int storm(const char *path, uint64_t from, uint64_t len, int procs, time_t seconds,
                 uint64_t seed)
{
    time_t begun = time(NULL);
    int bad = 0, status;
    for (int k = 0; k < procs; k++) {
        pid_t pid = fork();
        if (pid < 0)
            return die("fork");
        if (pid > 0)
            continue;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            _exit(die(path));
        uint8_t *map = mmap(NULL, from + len, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED || madvise(map, from + len, MADV_RANDOM) < 0)
            _exit(die(path));
        _exit(touch(map, from, len, len / PAGE / 4, begun + seconds, seed * 1000 + (uint64_t)k));
    }
    while (wait(&status) > 0)
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            if (WIFSIGNALED(status))
                fprintf(stderr, "a reader died of signal %d\n", WTERMSIG(status));
            bad = 1;
        }
    printf("# %d processes, %" PRIu64 " pages each, seed %" PRIu64 ", %ld s\n", procs,
           len / PAGE / 4, seed, (long)(time(NULL) - begun));
    return bad;
}

static int read_all(const char *path, uint64_t from, uint64_t len, size_t n_buf, bool direct)
{
    void *buf;
    int fd = open(path, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (fd < 0 || posix_memalign(&buf, PAGE, n_buf) != 0)
        return die(path);
    for (uint64_t done = 0; done < len;) {
        size_t want = len - done < n_buf ? (size_t)(len - done) : n_buf;
        ssize_t n = pread(fd, buf, want, (off_t)(from + done));
        if (n <= 0)
            return die(path);
        if ((size_t)n != want) { /* FROM + LEN lies inside the file */
            fprintf(stderr, "at %" PRIu64 ": %zd bytes, expected %zu\n", from + done, n, want);
            return 1;
        }
        if (!right(buf, (size_t)n, from + done))
            return 1;
        done += (uint64_t)n;
    }
    free(buf);
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t v[9] = {0};
    for (int i = 3; i < argc && i < 9; i++)
        v[i] = strtoull(argv[i], NULL, 10);
    const char *verb = argc > 2 ? argv[1] : "";
    if (strcmp(verb, "fill") == 0 && argc == 7 && v[6] >= 8) {
        block = v[6];
        return fill(argv[2], v[3], v[4], v[5]);
    }
    if (argc >= 7 && v[5] >= 8)
        block = v[5];
    if (block && strcmp(verb, "storm") == 0 && argc == 9)
        return storm(argv[2], v[3], v[4], (int)v[6], (time_t)v[7], v[8]);
    if (block && strcmp(verb, "read") == 0 && argc <= 8 && v[6] > 0)
        return read_all(argv[2], v[3], v[4], (size_t)v[6], argc == 8);
    fputs("usage: tool_pattern fill SRC FROM LEN AT BS | storm FILE FROM LEN BS PROCS SECONDS SEED "
          "| read FILE FROM LEN BS BUFFER [direct]\n",
          stderr);
    return 2;
}
