/* tool_parse [--runs N] FILE...: how long gguf_open takes, as CSV on stdout: file, bytes of head, keys,
 * tensors, status, median and largest of N runs in ms (wall) and the median in CPU time. A file that is
 * refused is timed too: status is the errno's name. */
#include "format/gguf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_RUNS 101

static double now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *path, int runs)
{
    double wall[MAX_RUNS], cpu[MAX_RUNS];
    size_t head = 0, n_key = 0, n_tensor = 0;
    int rc = 0;
    for (int i = 0; i < runs; i++) {
        struct gguf *g = NULL;
        double w = now_ms(CLOCK_MONOTONIC), c = now_ms(CLOCK_PROCESS_CPUTIME_ID);
        rc = gguf_open_path(&g, path, NULL);
        wall[i] = now_ms(CLOCK_MONOTONIC) - w;
        cpu[i] = now_ms(CLOCK_PROCESS_CPUTIME_ID) - c;
        if (rc == 0) {
            gguf_head(g, 0, &head);
            n_key = gguf_n_key(g);
            n_tensor = gguf_n_tensor(g);
        }
        gguf_close(g);
    }
    qsort(wall, (size_t)runs, sizeof *wall, by_size);
    qsort(cpu, (size_t)runs, sizeof *cpu, by_size);
    const char *base = strrchr(path, '/');
    printf("%s,%zu,%zu,%zu,%s,%.3f,%.3f,%.3f\n", base ? base + 1 : path, head, n_key, n_tensor,
           rc < 0 ? err_name(rc) : "ok", wall[runs / 2], wall[runs - 1], cpu[runs / 2]);
}

int main(int argc, char **argv)
{
    int runs = 11, at = 1;
    if (argc > 2 && strcmp(argv[1], "--runs") == 0) {
        runs = atoi(argv[2]);
        at = 3;
    }
    if (at >= argc || runs < 1 || runs > MAX_RUNS) {
        fprintf(stderr, "usage: tool_parse [--runs 1..%d] FILE...\n", MAX_RUNS);
        return 2;
    }
    printf("file,head_bytes,keys,tensors,status,wall_ms_median,wall_ms_max,cpu_ms_median\n");
    for (; at < argc; at++)
        measure(argv[at], runs);
    return 0;
}
