/* tool_store DIR          a plain store of small models: layouts, types, shards, tied and fused ones
 * tool_store --big FILE N SEED   one model with about N MiB of F32 weights, other bytes per SEED
 * For the mount's tests; the files' heads do not depend on SEED, their tensor bytes do. */
#include "format/quant.h"
#include "tests/gguf_build.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *root;

static void make_dir(const char *sub)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", root, sub);
    if (mkdir(path, 0777) < 0 && errno != EEXIST) {
        perror(path);
        exit(1);
    }
}

static struct gguf_build_opt small(const char *arch)
{
    struct gguf_build_opt o = gguf_build_defaults(arch);
    o.n_embd = 256;
    o.n_ff = 512;
    o.n_head = 4;
    o.n_head_kv = 2;
    o.n_vocab = 512;
    return o;
}

static void write_model(const char *name, const char *arch, const struct gguf_build_opt *o)
{
    char path[4096];
    struct gguf_build *b = gguf_build_llama_like(arch, o);
    snprintf(path, sizeof path, "%s/%s.gguf", root, name);
    gguf_build_file(b, path);
    gguf_build_free(b);
}

/* One model per type that GGUF knows; what a profile cannot carry is to be a problem, by name. */
static void write_types(void)
{
    make_dir("types");
    for (uint32_t id = 0; id <= QUANT_ID_MAX; id++) {
        const struct quant_type *t = quant_type(id);
        if (!t || (!t->quantized && id != QUANT_F32 && id != QUANT_F16 && id != QUANT_BF16))
            continue;
        struct gguf_build_opt o = small("llama");
        char name[64];
        o.type = id;
        o.seed = id + 1;
        snprintf(name, sizeof name, "types/llama-%s", t->name);
        write_model(name, "llama", &o);
    }
}

static void write_shapes(void)
{
    struct gguf_build_opt o = small("qwen2");
    o.type = QUANT_Q4_K;
    o.type_embd = QUANT_Q8_0; /* tied: the head is a second name of a converted tensor */
    write_model("tied-qwen2", "qwen2", &o);
    o = small("gemma3");
    o.type = QUANT_Q4_K;
    o.type_down = QUANT_Q6_K;
    o.sliding_window = 64;
    write_model("gemma3-mixed", "gemma3", &o);
    o = small("phi3");
    o.type = QUANT_Q4_0;
    write_model("phi3-fused", "phi3", &o);
    o = small("llama");
    o.norm_type = QUANT_F16;
    o.type = QUANT_F16;
    o.untied = true;
    o.alignment = 128;
    write_model("f16-norms", "llama", &o);
}

static void write_shards_to(const char *dir, int n)
{
    struct gguf_build_opt o = small("llama");
    o.type = QUANT_Q6_K;
    o.type_down = QUANT_Q5_0;
    o.n_layer = 4;
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    gguf_build_files(b, dir, "shard-model", n);
    gguf_build_free(b);
}

static void write_shards(void)
{
    char dir[4096];
    make_dir("acme");
    make_dir("acme/sharded");
    snprintf(dir, sizeof dir, "%s/acme/sharded", root);
    write_shards_to(dir, 3);
}

static int write_big(const char *path, unsigned long mib, uint64_t seed)
{
    struct gguf_build_opt o = small("llama");
    o.n_layer = 1;
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    uint64_t ne[2] = {1024, mib * 256};
    size_t n = ne[0] * ne[1];
    float *data = malloc(n * sizeof *data);
    if (!data)
        return 1;
    for (size_t i = 0; i < n; i++)
        data[i] = (float)seed + (float)(i % 4096) / 8192.0f; /* a page tells its generation */
    gguf_build_tensor(b, "extra.weight", QUANT_F32, 2, ne, data);
    gguf_build_file(b, path);
    gguf_build_free(b);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "--big") == 0)
        return write_big(argv[2], strtoul(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    if (argc == 4 && strcmp(argv[1], "--shards") == 0) {
        write_shards_to(argv[2], atoi(argv[3]));
        return 0;
    }
    if (argc != 2) {
        fputs("usage: tool_store DIR | --big FILE MIB SEED | --shards DIR N\n", stderr);
        return 2;
    }
    root = argv[1];
    write_types();
    write_shapes();
    write_shards();
    return 0;
}
