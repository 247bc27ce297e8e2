/* Stores from any tree: hub caches, Ollama's, llama.cpp's. The first byte is the kind (h, o, l, p;
 * other: told by itself), then one line for each thing in it:
 *   d WAY          a folder            g WAY          a small GGUF, a projector
 *   f WAY TEXT     a file              l WAY TARGET   a link
 * No crash; two scans are equal, with and without the first as what is known; what comes out is beneath
 * the root, and a model outside is not reached through any link of the kinds that follow none. */
#include "format/bytes.h"
#include "format/store.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char top[64], root[80];
static ino_t outside; /* the inode of a model beside the root */

static void put_str(FILE *f, const char *s)
{
    uint8_t n[8];
    store_u64(n, strlen(s));
    fwrite(n, 1, 8, f);
    fwrite(s, 1, strlen(s), f);
}

/* GGUF 3: one key, one tensor of one F32. */
static void put_gguf(FILE *f)
{
    static const uint8_t head[] = {'G', 'G', 'U', 'F', 3, 0, 0, 0, 1, 0, 0, 0,
                                   0,   0,   0,   0,   1, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t string[4] = {8}, dims[4] = {1}, ne[8] = {1}, rest[12 + 64] = {0};
    fwrite(head, 1, sizeof head, f);
    put_str(f, "general.architecture");
    fwrite(string, 1, 4, f);
    put_str(f, "clip");
    put_str(f, "v");
    fwrite(dims, 1, 4, f);
    fwrite(ne, 1, 8, f);
    fwrite(rest, 1, sizeof rest, f); /* type, offset, padding, data */
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    return ftw->level == 0 ? 0 : remove(path);
}

static void empty_root(void)
{
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void leave(void)
{
    empty_root();
    rmdir(root);
    char path[96];
    snprintf(path, sizeof path, "%s/out.gguf", top);
    unlink(path);
    rmdir(top);
}

static void enter(void)
{
    struct stat st;
    snprintf(top, sizeof top, "%s/aprfs-fuzz.XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(top))
        abort();
    snprintf(root, sizeof root, "%s/root", top);
    char path[96];
    snprintf(path, sizeof path, "%s/out.gguf", top);
    FILE *f = fopen(path, "wb");
    if (!f || mkdir(root, 0700) < 0)
        abort();
    put_gguf(f);
    if (fclose(f) != 0 || stat(path, &st) < 0)
        abort();
    outside = st.st_ino;
    atexit(leave);
}

/* Ways stay in the root: no "..", not absolute. Folders above are made. False: not that one. */
static bool make_way(char path[1024], const char *way)
{
    if (!*way || *way == '/' || strlen(way) > 700 || strstr(way, "..") || strstr(way, "//"))
        return false;
    snprintf(path, 1024, "%s/%s", root, way);
    struct stat st;
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        mkdir(path, 0700);
        /* Through a link of an earlier line the next one would leave the root. */
        bool dir = lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
        *p = '/';
        if (!dir)
            return false;
    }
    return true;
}

static void make_one(char *line)
{
    char path[1024], kind = line[0];
    if (!kind || line[1] != ' ')
        return;
    char *way = line + 2, *rest = strchr(way, ' ');
    if (rest)
        *rest++ = '\0';
    if (!make_way(path, way))
        return;
    if (kind == 'd')
        mkdir(path, 0700);
    if (kind == 'l' && rest && symlink(rest, path) < 0)
        return;
    int fd = kind == 'f' || kind == 'g' ? open(path, O_WRONLY | O_CREAT | O_EXCL, 0600) : -1;
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!f)
        return;
    if (kind == 'g')
        put_gguf(f);
    else if (rest)
        fwrite(rest, 1, strlen(rest), f);
    fclose(f);
}

static void check(const struct store *s)
{
    size_t n = strlen(s->root);
    for (size_t i = 0; i < s->n_entry; i++) {
        const struct store_entry *en = &s->entry[i];
        if (!name_part_ok(en->publisher, strlen(en->publisher)) ||
            !name_part_ok(en->model, strlen(en->model)) ||
            !name_part_ok(en->stem, strlen(en->stem)))
            abort();
        for (int k = 0; k < en->n_part; k++) {
            if (strncmp(en->part[k].path, s->root, n) || en->part[k].path[n] != '/')
                abort();
            if (en->part[k].id.ino == outside && en->part[k].how != STORE_HOW_ANY)
                abort();
        }
    }
}

static void scan(const struct store_options *opt)
{
    struct store *a = NULL, *b = NULL;
    struct err e = {0};
    int rc = store_scan(&a, root, opt, NULL, &e);
    if (rc < 0 && !*e.msg)
        abort();
    if (rc == 0) {
        check(a);
        if (store_scan(&b, root, opt, a, &e) < 0 || !store_equal(a, b) || b->kind != a->kind)
            abort();
    }
    store_free(a);
    store_free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store_options opt = {.resolve = STORE_RESOLVE_BENEATH};
    if (!outside)
        enter();
    if (size == 0 || size > 8192)
        return 0;
    opt.kind = data[0] == 'h'   ? STORE_HF
               : data[0] == 'o' ? STORE_OLLAMA
               : data[0] == 'l' ? STORE_LLAMACPP
               : data[0] == 'p' ? STORE_PLAIN
                                : STORE_AUTO;
    opt.all_revisions = size % 2;
    char *text = strndup((const char *)data + 1, size - 1), *save = NULL;
    int n = 0;
    for (char *s = text ? strtok_r(text, "\n", &save) : NULL; s && n < 40;
         s = strtok_r(NULL, "\n", &save), n++)
        make_one(s);
    free(text);
    scan(&opt);
    empty_root();
    return 0;
}
