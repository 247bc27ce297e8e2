/* tool_seeds DIR: writes every good and every malformed small GGUF, and the .apr of each good one,
 * and an index, as seeds for the fuzzers and files to try programs on. Several parts of one model also go into
 * one NAME.parts, as fuzz_gguf reads them. */
#include "format/bytes.h"
#include "format/crc32.h"
#include "format/store_index.h"
#include "format/vapr.h"
#include "tests/gguf_build.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_SEED 32768 /* larger bad files are cut: a fuzzer gains nothing from their length */

static const char *dir;

static void write_seed(const char *name, const char *suffix, const struct buf *b)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s%s", dir, name, suffix);
    FILE *f = fopen(path, "wb");
    if (!f || (b->len > 0 && fwrite(b->p, 1, b->len, f) != b->len) || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

/* The .apr that a mount would show of a GGUF in memory, without the zeros before its data and cut
 * like the rest, and its metadata alone. */
static void write_apr(const char *name, const struct buf *gguf, enum vapr_profile profile)
{
    struct source *s = NULL;
    struct gguf *g = NULL;
    struct vapr *v = NULL;
    struct vapr_options opt = {.profile = profile};
    char suffix[32];
    if (source_from_mem(&s, gguf->p, gguf->len, name, NULL) == 0 &&
        gguf_open(&g, &s, 1, NULL) == 0 && vapr_new(&v, g, &opt, NULL) == 0) {
        static uint8_t data[MAX_SEED];
        struct buf apr = {0}, meta = {0};
        size_t n, got;
        const uint8_t *head = vapr_head(v, &n);
        buf_put(&apr, head, n);
        store_u64(apr.p + 32, n);
        store_u32(apr.p + 40, crc32_apr_header(apr.p));
        if (vapr_read(v, data, vapr_data_offset(v), sizeof data, &got, NULL) < 0)
            abort();
        buf_put(&apr, data, got);
        snprintf(suffix, sizeof suffix, "-%s.apr", vapr_profile_name(profile));
        write_seed(name, suffix, &apr);
        buf_put(&meta, head + 64, load_u32(head + 20));
        snprintf(suffix, sizeof suffix, "-%s.json", vapr_profile_name(profile));
        write_seed(name, suffix, &meta);
        buf_free(&apr);
        buf_free(&meta);
    }
    vapr_free(v);
    gguf_close(g);
    source_close(s);
}

/* Takes b. */
static void write_build(const char *name, struct gguf_build *b)
{
    struct buf out = {0};
    out.p = gguf_build_bytes(b, &out.len);
    write_seed(name, ".gguf", &out);
    write_apr(name, &out, VAPR_NATIVE);
    write_apr(name, &out, VAPR_ENGINE);
    buf_free(&out);
    gguf_build_free(b);
}

static void write_models(void)
{
    static const char *const archs[] = {"llama",  "qwen2", "qwen3", "gemma2",  "gemma3",    "phi3",
                                        "falcon", "phi2",  "gpt2",  "gptneox", "starcoder2"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        struct gguf_build_opt o = gguf_build_defaults(archs[i]);
        o.n_layer = 1;
        o.n_embd = o.n_ff = o.n_vocab = 32;
        o.n_head = 2;
        o.n_head_kv = 1;
        o.tok = GGUF_BUILD_TOK_NONE;
        o.type = 8;
        o.unread_keys = i % 2;
        write_build(archs[i], gguf_build_llama_like(archs[i], &o));
    }
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.n_layer = 1;
    o.n_embd = o.n_ff = 32;
    o.type = 2;
    o.tok = GGUF_BUILD_TOK_GPT2;
    write_build("tok-gpt2", gguf_build_llama_like("llama", &o));
    o.tok = GGUF_BUILD_TOK_SPM;
    o.alignment = 64;
    o.version = 2;
    o.per_layer_arrays = true;
    write_build("tok-spm", gguf_build_llama_like("llama", &o));
}

static void write_types(void)
{
    const char *name;
    uint32_t len;
    struct gguf_build *b = gguf_build_new(3, 1);
    for (uint32_t id = 0; id < 64; id++)
        if (gguf_build_type(id, &name, &len, NULL))
            gguf_build_tensor_1d(b, name, id, len);
    gguf_build_u8(b, "u8", 1);
    gguf_build_i8(b, "i8", -1);
    gguf_build_i16(b, "i16", -1);
    gguf_build_i64(b, "i64", -1);
    gguf_build_f64(b, "f64", 0.5);
    gguf_build_bool(b, "bool", true);
    gguf_build_array(b, "bools", 7, (uint8_t[]){0, 1}, 2);
    gguf_build_array(b, "f32s", 6, (float[]){0, 1}, 2);
    struct buf v = {0};
    buf_u32(&v, 9);
    buf_u64(&v, 2);
    for (int i = 0; i < 2; i++) {
        buf_u32(&v, 8);
        buf_u64(&v, 1);
        buf_str(&v, "x");
    }
    gguf_build_raw(b, "nest", 9, v.p, v.len);
    buf_free(&v);
    write_build("types", b);
}

/* n files' bytes as NAME.parts; takes them. */
static void write_parts(const char *name, struct buf *part, int n)
{
    struct buf all = {0};
    buf_u8(&all, (uint8_t)n);
    for (int i = 0; i < n - 1; i++)
        buf_u16(&all, (uint16_t)part[i].len);
    for (int i = 0; i < n; i++)
        buf_put(&all, part[i].p, part[i].len);
    write_seed(name, ".parts", &all);
    buf_free(&all);
    for (int i = 0; i < n; i++)
        buf_free(&part[i]);
}

static void write_shards(void)
{
    struct gguf_build *b = gguf_build_new(3, 1);
    struct buf part[3] = {{0}};
    gguf_build_str(b, "general.architecture", "llama");
    for (int i = 0; i < 4; i++)
        gguf_build_tensor_1d(b, (const char *[]){"a", "b", "c", "d"}[i], 0, 8);
    for (int i = 0; i < 3; i++)
        part[i].p = gguf_build_shard(b, i, 3, &part[i].len);
    write_parts("shards", part, 3);
    gguf_build_free(b);
}

static void write_bad(void)
{
    for (size_t i = 0; i < gguf_n_bad_cases; i++) {
        const struct gguf_bad *bad = &gguf_bad_cases[i];
        struct buf part[4] = {{0}};
        char name[128];
        int n = bad->n_part ? bad->n_part : 1;
        for (int k = 0; k < n; k++) {
            uint64_t size = 0;
            bad->build(&part[k], k, &size);
        }
        snprintf(name, sizeof name, "bad-%s", bad->name);
        if (n > 1) {
            write_parts(name, part, n);
        } else {
            if (part[0].len > MAX_SEED)
                part[0].len = MAX_SEED;
            write_seed(name, ".gguf", &part[0]);
            buf_free(&part[0]);
        }
    }
}

/* The index of three of the files that are there by now. */
static void write_index(void)
{
    const struct store_options opt = {.plan = true};
    struct store *s = NULL;
    struct err e = {0};
    struct buf b = {0};
    if (store_scan(&s, dir, &opt, NULL, &e) < 0) {
        fprintf(stderr, "tool_seeds: %s\n", e.msg);
        exit(1);
    }
    size_t n = s->n_entry;
    s->n_entry = n < 3 ? n : 3;
    const uint32_t crc[] = {1, 2, 3};
    if (n > 0 && store_learnt_set_crc(s->entry[0].learnt, crc, 3) == 0)
        s->entry[0].learnt->ino = 7;
    if (store_index_write(&b.p, &b.len, s, NULL, 1, &e) < 0) {
        fprintf(stderr, "tool_seeds: %s\n", e.msg);
        exit(1);
    }
    write_seed("three", ".index", &b);
    free(b.p);
    s->n_entry = n;
    store_free(s);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: tool_seeds DIR\n");
        return 2;
    }
    dir = argv[1];
    mkdir(dir, 0777);
    write_models();
    write_types();
    write_shards();
    write_bad();
    write_index();
    return 0;
}
