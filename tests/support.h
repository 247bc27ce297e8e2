/* What every test needs: guard pages, faulty sources, temporary folders, real models, numbers.
 * Including this is including cmocka. Helpers that run out of memory or space abort: that is the
 * test machine's failure, not the code's under test. */
#ifndef APRFS_TESTS_SUPPORT_H
#define APRFS_TESTS_SUPPORT_H

#include "format/source.h"
#include "tests/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A read-only copy of src[0..len) whose last byte is the last of a page, with an unmapped page
 * behind it: reading one byte too far is a SIGSEGV. src NULL: zeros. len may be 0. */
uint8_t *guard_new(const void *src, size_t len);
void guard_free(uint8_t *p, size_t len);

/* A source over p[0..len), then zeros up to size, that counts its reads and fails one of them. */
struct faulty {
    const uint8_t *p;
    uint64_t len;
    int fail_at;         /* the read, counted from 0, that fails; < 0: none */
    int rc;              /* with this negative errno */
    int n_read;          /* reads so far */
    uint64_t bytes_read; /* asked for so far */
};
struct source *faulty_source(struct faulty *f, uint64_t size, const char *name);

/* A source over memory; both are lent until source_close. */
struct source *mem_source(const void *p, size_t len, const char *name);

/* sum (a-ref)^2 / sum ref^2, in f64; ref all zero: 0 if a is too, else HUGE_VAL; NaN counts as
 * HUGE_VAL. */
double nmse(const float *a, const float *ref, size_t n);

/* A fresh folder, removed with all it holds when the program ends. The caller frees the string. */
char *temp_dir(void);
/* "dir/name", to be freed. */
char *path_join(const char *dir, const char *name);
void file_write(const char *path, const void *p, size_t len);
/* The whole file, to be freed; NULL if it cannot be opened. */
uint8_t *file_read(const char *path, size_t *len);

/* Prints "# skip <test>: <reason>" to stdout and ends the test as skipped. */
#define skip_because(...) skip_because_in(__func__, __VA_ARGS__)
void skip_because_in(const char *test, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Ends the test as skipped under ThreadSanitizer, which makes it many times slower and has nothing to
 * say about it, for the reason given: "starts no thread" or "threads: <the test that has the same>".
 * LONG=1 runs it all the same. */
#ifdef __SANITIZE_THREAD__
#define skip_under_tsan(why)                                                                       \
    do {                                                                                           \
        if (!long_run())                                                                           \
            skip_because("under TSan: %s (LONG=1 runs it)", why);                                  \
    } while (0)
#define UNDER_TSAN true
#else
#define skip_under_tsan(why) (void)(why)
#define UNDER_TSAN           false
#endif

/* The path of a real model in the folder of env APRFS_MODELS (default .cache/models), or NULL if it
 * is not there. To be freed. */
char *real_model(const char *file);
#define REAL_SMOLLM2 "SmolLM2-135M-Instruct.Q4_1.gguf"
#define REAL_QWEN25  "Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf"
#define REAL_GEMMA3  "gemma-3-270m-Q4_K_M.gguf"

/* The seed of random tests: env APRFS_SEED, default 1. Printed once as "# seed N". */
uint64_t test_seed(void);

/* Milliseconds on the monotonic clock, for reports; no test asserts a time. */
double now_ms(void);

/* LONG=1 in the environment: the full counts. Unset, empty or 0: the short ones. */
bool long_run(void);

/* Of [off, off+len) of a file, off a multiple of 4096: how many pages of 4096 bytes the kernel has. */
size_t pages_cached(int fd, uint64_t off, size_t len);
/* Has the kernel drop all pages of a file; false: its file system keeps them (tmpfs). */
bool pages_dropped(int fd);

#endif
