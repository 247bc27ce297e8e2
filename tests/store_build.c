/* See store_build.h. */
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    abort();
}

/* Static: one path at a time is enough for these writers. */
static const char *at(const char *root, const char *rel)
{
    static char path[8192];
    snprintf(path, sizeof path, "%s/%s", root, rel);
    return path;
}

static void make_parents(char *path, size_t from)
{
    for (char *p = path + from; (p = strchr(p, '/')); p++) {
        *p = '\0';
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            die(path);
        *p = '/';
    }
}

void tree_dir(const char *root, const char *rel)
{
    char path[8192];
    snprintf(path, sizeof path, "%s/%s/", root, rel);
    make_parents(path, strlen(root) + 1);
}

static const char *ready(const char *root, const char *rel)
{
    char path[8192];
    snprintf(path, sizeof path, "%s/%s", root, rel);
    make_parents(path, strlen(root) + 1);
    return at(root, rel);
}

void tree_bytes(const char *root, const char *rel, const void *p, size_t len)
{
    const char *path = ready(root, rel);
    FILE *f = fopen(path, "wb");
    if (!f || (len && fwrite(p, 1, len, f) != len) || fclose(f) != 0)
        die(path);
}

void tree_text(const char *root, const char *rel, const char *text)
{
    tree_bytes(root, rel, text, strlen(text));
}

void tree_link(const char *root, const char *rel, const char *target)
{
    if (symlink(target, ready(root, rel)) < 0)
        die(rel);
}

void tree_build(const char *root, const char *rel, const struct gguf_build *b)
{
    gguf_build_file(b, ready(root, rel));
}

void tree_cut(const char *root, const char *rel, uint64_t size)
{
    if (truncate(at(root, rel), (off_t)size) < 0)
        die(rel);
}

void tree_mode(const char *root, const char *rel, unsigned mode)
{
    if (chmod(at(root, rel), mode) < 0)
        die(rel);
}

void tree_remove(const char *root, const char *rel)
{
    if (unlink(at(root, rel)) < 0)
        die(rel);
}

struct gguf_build *tree_model_new(uint64_t seed)
{
    struct gguf_build_opt o = gguf_build_defaults("qwen2");
    o.seed = seed;
    o.n_layer = 1;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &o);
    gguf_build_str(b, "tokenizer.ggml.pre", "qwen2");
    gguf_build_u32(b, "general.file_type", 0);
    return b;
}

void tree_model(const char *root, const char *rel, uint64_t seed)
{
    struct gguf_build *b = tree_model_new(seed);
    tree_build(root, rel, b);
    gguf_build_free(b);
}

void tree_shards(const char *root, const char *rel, int n)
{
    struct gguf_build *b = tree_model_new(1);
    for (int i = 0; i < n; i++) {
        char name[4096];
        size_t len;
        uint8_t *p = gguf_build_shard(b, i, n, &len);
        snprintf(name, sizeof name, "%s-%05d-of-%05d.gguf", rel, i + 1, n);
        tree_bytes(root, name, p, len);
        free(p);
    }
    gguf_build_free(b);
}

static void small(const char *root, const char *rel, const char *arch, const char *type,
                  const char *tensor)
{
    struct gguf_build *b = gguf_build_new(3, 1);
    if (arch)
        gguf_build_str(b, "general.architecture", arch);
    if (type)
        gguf_build_str(b, "general.type", type);
    if (tensor)
        gguf_build_tensor_2d(b, tensor, 0, 32, 2);
    else
        gguf_build_str(b, "tokenizer.ggml.model", "gpt2");
    tree_build(root, rel, b);
    gguf_build_free(b);
}

void tree_projector(const char *root, const char *rel)
{
    small(root, rel, "clip", "mmproj", "v.patch_embd.weight");
}

void tree_adapter(const char *root, const char *rel)
{
    small(root, rel, "llama", "adapter", "blk.0.attn_q.weight.lora_a");
}

void tree_vocab(const char *root, const char *rel)
{
    small(root, rel, "llama", NULL, NULL);
}

void tree_imatrix(const char *root, const char *rel)
{
    small(root, rel, NULL, "imatrix", "blk.0.attn_q.weight.in_sum2");
}

const char *tree_hub_file(const char *root, const char *repo, const char *commit, const char *way,
                          const void *p, size_t len, bool git)
{
    static char hash[NAME_HEX];
    uint8_t id[NAME_ID_SIZE];
    char rel[4096], target[4096] = "../../";
    if (!EVP_Digest(p, len, id, NULL, EVP_sha256(), NULL))
        die("sha256");
    name_hex(hash, id);
    if (git)
        hash[40] = '\0';
    snprintf(rel, sizeof rel, "%s/blobs/%s", repo, hash);
    tree_bytes(root, rel, p, len);
    for (const char *q = way; (q = strchr(q, '/')); q++)
        strcat(target, "../");
    strcat(strcat(target, "blobs/"), hash);
    snprintf(rel, sizeof rel, "%s/snapshots/%s/%s", repo, commit, way);
    tree_link(root, rel, target);
    return hash;
}

const char *tree_hub_model(const char *root, const char *repo, const char *commit, const char *way,
                           uint64_t seed)
{
    size_t len;
    struct gguf_build *b = tree_model_new(seed);
    uint8_t *p = gguf_build_bytes(b, &len);
    const char *hash = tree_hub_file(root, repo, commit, way, p, len, false);
    free(p);
    gguf_build_free(b);
    return hash;
}

void tree_hub_ref(const char *root, const char *repo, const char *ref, const char *commit)
{
    char rel[4096];
    snprintf(rel, sizeof rel, "%s/refs/%s", repo, ref);
    tree_text(root, rel, commit);
}

static char *lines(const struct store *s, void (*line)(FILE *f, const struct store *s, size_t i),
                   size_t n)
{
    char *p = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&p, &len);
    if (!f)
        die("open_memstream");
    for (size_t i = 0; i < n; i++)
        line(f, s, i);
    if (fclose(f) != 0)
        die("fclose");
    return p;
}

static void entry_line(FILE *f, const struct store *s, size_t i)
{
    const struct store_entry *en = &s->entry[i];
    if (en->rc < 0)
        fprintf(f, "%s %s -", store_role_name(en->role), err_name(en->rc));
    else
        fprintf(f, "%s 0 %s/%s/%s", store_role_name(en->role), en->publisher, en->model, en->stem);
    for (size_t k = 0; k < en->n_alias; k++)
        fprintf(f, "%s%s", k ? "|" : " <- ", en->alias[k]);
    fputc('\n', f);
}

static void problem_line(FILE *f, const struct store *s, size_t i)
{
    const struct store_problem *p = &s->problem[i];
    fprintf(f, "%s %s: %s\n", p->rc < 0 ? err_name(p->rc) : "WARN", p->path, p->why);
}

char *tree_show(const struct store *s)
{
    return lines(s, entry_line, s->n_entry);
}

char *tree_problems(const struct store *s)
{
    return lines(s, problem_line, s->n_problem);
}

struct store *tree_scan_after(const char *root, const struct store_options *opt,
                              const struct store *prev)
{
    struct store *s = NULL;
    struct err e = {0};
    if (store_scan(&s, root, opt, prev, &e) < 0)
        fail_msg("store_scan: %s", e.msg);
    return s;
}

struct store *tree_scan(const char *root, const struct store_options *opt)
{
    return tree_scan_after(root, opt, NULL);
}

void tree_expect(const char *root, const struct store_options *opt, const char *entries,
                 const char *problems)
{
    struct store *s = tree_scan(root, opt);
    char *show = tree_show(s), *told = tree_problems(s);
    if (entries)
        assert_string_equal(show, entries);
    if (problems)
        assert_string_equal(told, problems);
    free(show);
    free(told);
    store_free(s);
}
