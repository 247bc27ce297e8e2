/* Tokenizes for scripts/check_tokens.
 *
 *   tool_tokens MODEL [PRE]          frames on stdin: u32 flags, u32 length, text; for each on
 *                                    stdout: u32 n, n ids (n = 0xFFFFFFFF: refused, on stderr why)
 *   tool_tokens --pieces MODEL       per id: u8 is_end, then for special off and on, and for the
 *                                    first position: u32 length, bytes
 *   tool_tokens --bench MODEL FILE   time to make the tokenizer, MB/s on FILE (CPU time)
 *   tool_tokens --split PRE FILE     MB/s of cutting alone
 *
 * MODEL: a .gguf (its own keys) or a .apr. Integers little-endian. */
#include "format/gguf.h"
#include "format/model_file.h"
#include "infer/text/split.h"
#include "infer/text/tokenizer.h"
#include "tests/token_meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* neighbours do not count */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int open_model(const char *path, const char *pre, struct tokenizer **t, struct err *e)
{
    size_t n = strlen(path);
    if (n > 4 && strcmp(path + n - 4, ".apr") == 0) {
        struct model_file *m = NULL;
        int rc = model_file_open(&m, path, e);
        if (rc == 0)
            rc = tokenizer_new(t, apr_meta(model_file_apr(m)), pre, e);
        model_file_close(m);
        return rc;
    }
    struct gguf *g = NULL;
    int rc = gguf_open_path(&g, path, e);
    if (rc < 0)
        return rc;
    cJSON *meta = token_meta(g);
    double start = now();
    rc = tokenizer_new(t, meta, pre, e);
    fprintf(stderr, "# tokenizer_new %.1f ms\n", 1e3 * (now() - start));
    cJSON_Delete(meta);
    gguf_close(g);
    return rc;
}

static void encode_frames(const struct tokenizer *t)
{
    uint32_t head[2];
    char *text = NULL;
    while (fread(head, sizeof head, 1, stdin) == 1) {
        text = realloc(text, head[1] + 1);
        if (!text || fread(text, 1, head[1], stdin) != head[1])
            exit(1);
        struct err e = {0};
        int32_t *ids = NULL;
        size_t n = 0;
        uint32_t n_out = UINT32_MAX;
        if (tokenizer_encode(t, text, head[1], head[0], &ids, &n, &e) < 0)
            fprintf(stderr, "refused: %s\n", e.msg);
        else
            n_out = (uint32_t)n;
        fwrite(&n_out, sizeof n_out, 1, stdout);
        fwrite(ids, sizeof *ids, n, stdout);
        fflush(stdout);
        free(ids);
    }
    free(text);
}

static void print_pieces(const struct tokenizer *t)
{
    for (uint32_t id = 0; id < tokenizer_n_vocab(t); id++) {
        putchar(tokenizer_is_end(t, (int32_t)id));
        for (int mode = 0; mode < 3; mode++) {
            size_t len;
            const char *p = tokenizer_piece(t, (int32_t)id, mode > 0, mode > 1, &len);
            uint32_t n = (uint32_t)len;
            fwrite(&n, sizeof n, 1, stdout);
            fwrite(p, 1, len, stdout);
        }
    }
}

static char *read_text(const char *path, size_t *len)
{
    size_t cap = (size_t)64 << 20;
    char *text = malloc(cap);
    FILE *f = fopen(path, "rb");
    if (!f || !text)
        exit(1);
    *len = fread(text, 1, cap, f);
    fclose(f);
    return text;
}

static void bench(const struct tokenizer *t, const struct split *s, const char *path)
{
    size_t len, n = 0;
    char *text = read_text(path, &len);
    struct split_run r = {0};
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        int32_t *ids = NULL;
        struct err e = {0};
        double start = now();
        int rc =
            t ? tokenizer_encode(t, text, len, 0, &ids, &n, &e) : split_text(s, &r, text, len, &e);
        double seconds = now() - start;
        if (rc < 0)
            printf("refused: %s\n", e.msg);
        free(ids);
        best = seconds < best ? seconds : best;
    }
    printf("%zu bytes, %zu %s, best of 5: %.1f MB/s\n", len, t ? n : r.n_piece,
           t ? "tokens" : "pieces", (double)len / best / 1e6);
    split_run_release(&r);
    free(text);
}

static int bench_split(const char *pre, const char *path)
{
    struct split *s = NULL;
    struct err e = {0};
    const struct pretok *rule = pretok_find(pre);
    if (!rule || split_new(&s, rule, &e) < 0) {
        fprintf(stderr, "tool_tokens: %s %s\n", pre, e.msg);
        return 1;
    }
    bench(NULL, s, path);
    split_free(s);
    return 0;
}

int main(int argc, char **argv)
{
    bool pieces = argc == 3 && strcmp(argv[1], "--pieces") == 0;
    bool speed = argc == 4 && strcmp(argv[1], "--bench") == 0;
    struct tokenizer *t = NULL;
    struct err e = {0};
    int at = pieces || speed ? 2 : 1;
    if (argc == 4 && strcmp(argv[1], "--split") == 0)
        return bench_split(argv[2], argv[3]);
    if (argc <= at)
        return 2;
    if (open_model(argv[at], !pieces && !speed && argc > 2 ? argv[2] : NULL, &t, &e) < 0) {
        fprintf(stderr, "tool_tokens: %s\n", e.msg);
        return 1;
    }
    if (pieces)
        print_pieces(t);
    else if (speed)
        bench(t, NULL, argv[3]);
    else
        encode_frames(t);
    tokenizer_free(t);
    return 0;
}
