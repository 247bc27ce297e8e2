/* Scans: see store.h. A layout finds candidates (store_<layout>.c), store_examine.c reads what they
 * are, and here they get their names, their order and their problem lines. */
#include "format/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One row per layout. detect: does a directory look like it? The first that fits is taken. */
static const struct layout {
    enum store_kind kind;
    const char *name;
    bool (*detect)(int root_fd, const char *root);
    const char *below; /* people name the folder above the root: the root's name in it */
    int (*scan)(struct store_build *b, struct err *e);
} layouts[] = {
    {STORE_OLLAMA, "ollama", store_detect_ollama, "models", store_scan_ollama},
    {STORE_HF, "hf", store_detect_hf, "hub", store_scan_hf},
    {STORE_LLAMACPP, "llamacpp", store_detect_llamacpp, NULL, store_scan_llamacpp},
    {STORE_LMSTUDIO, "lmstudio", store_detect_lmstudio, "models", store_scan_lmstudio},
    {STORE_PLAIN, "plain", NULL, NULL, store_scan_plain}, /* last: fits anything */
};
#define N_LAYOUT (sizeof layouts / sizeof *layouts)

static const struct layout *layout_row(enum store_kind kind)
{
    for (size_t i = 0; i < N_LAYOUT; i++)
        if (layouts[i].kind == kind)
            return &layouts[i];
    return NULL;
}

const char *store_suffix(const struct store_options *opt)
{
    return opt->view == STORE_VIEW_GGUF ? ".gguf" : ".apr";
}

const char *store_kind_name(enum store_kind k)
{
    for (size_t i = 0; i < N_LAYOUT; i++)
        if (layouts[i].kind == k)
            return layouts[i].name;
    return "auto";
}

bool store_kind_parse(const char *s, enum store_kind *k)
{
    for (size_t i = 0; i < N_LAYOUT; i++)
        if (!strcmp(s, layouts[i].name)) {
            *k = layouts[i].kind;
            return true;
        }
    *k = STORE_AUTO;
    return !strcmp(s, "auto");
}

/* ---- what an earlier scan knows ---- */

int store_cmp_first_path(const void *pa, const void *pb)
{
    const struct store_entry *a = *(struct store_entry *const *)pa;
    const struct store_entry *b = *(struct store_entry *const *)pb;
    int r = strcmp(a->part[0].path, b->part[0].path);
    return r ? r : strcmp(a->called, b->called);
}

/* prev's entries by first part and by what they were called, for bsearch; *n of them. NULL if there are none (or no memory: then
 * everything is parsed again, which is slow and right). */
static const struct store_entry **index_prev(const struct store *prev, size_t *n)
{
    *n = 0;
    const struct store_entry **idx =
        prev ? calloc(prev->n_entry + prev->n_merged + 1, sizeof *idx) : NULL;
    for (size_t i = 0; idx && i < prev->n_entry; i++)
        if (prev->entry[i].n_part > 0)
            idx[(*n)++] = &prev->entry[i];
    for (size_t i = 0; idx && i < prev->n_merged; i++)
        idx[(*n)++] = &prev->merged[i]; /* only what is shown, so has parts, is merged */
    if (*n)
        qsort(idx, *n, sizeof *idx, store_cmp_first_path);
    return idx;
}

/* Only what the bytes alone decided may be taken over; EACCES or EIO may have passed. */
static bool settled_by_bytes(int rc)
{
    return rc == 0 || rc == -EUCLEAN || rc == -ENOTSUP || rc == -EAGAIN || rc == -ERANGE;
}

static const struct store_entry *find_prev(const struct store_entry **idx, size_t n,
                                           const struct store_cand *c, char *called)
{
    struct store_entry key = {.part = c->part, .n_part = c->n_part, .called = called}, *kp = &key;
    if (!n || !c->n_part)
        return NULL;
    const struct store_entry **hit = bsearch(&kp, idx, n, sizeof *idx, store_cmp_first_path);
    if (!hit || (*hit)->n_part != c->n_part || !settled_by_bytes((*hit)->rc) ||
        (*hit)->learnt->doubt)
        return NULL;
    for (int i = 0; i < c->n_part; i++)
        if (strcmp((*hit)->part[i].path, c->part[i].path) ||
            !source_id_equal(&(*hit)->part[i].id, &c->part[i].id))
            return NULL;
    return *hit;
}

static int copy_str(char **dst, const char *src)
{
    free(*dst);
    *dst = strdup(src);
    return *dst ? 0 : -ENOMEM;
}

static int copy_facts(struct store_entry *en, const struct store_entry *from)
{
    en->role = from->role;
    en->rc = from->rc;
    en->n_params = from->n_params;
    en->n_ctx_train = from->n_ctx_train;
    memcpy(en->head_sha256, from->head_sha256, sizeof en->head_sha256);
    memcpy(en->sibling_sha256, from->sibling_sha256, sizeof en->sibling_sha256);
    en->tokenizer_rc = from->tokenizer_rc;
    en->generation_rc = from->generation_rc;
    en->size = from->size;
    en->head_len = from->head_len;
    const struct store_learnt *l = from->learnt;
    en->learnt->ino = l->ino;
    if (l->n_crc && store_learnt_set_crc(en->learnt, l->crc, l->n_crc) < 0)
        return -ENOMEM;
    if (copy_str(&en->wish, from->wish) || copy_str(&en->why, from->why) ||
        copy_str(&en->warning, from->warning) || copy_str(&en->arch, from->arch) ||
        copy_str(&en->quant, from->quant) || copy_str(&en->tokenizer_why, from->tokenizer_why) ||
        copy_str(&en->generation_why, from->generation_why))
        return -ENOMEM;
    return 0;
}

/* ---- entries ---- */

/* All of c that decides facts: what it tells name_stem(), what a file may be taken for, and the digest
 * of what the store sets besides. NULL: no memory. */
static char *called_text(const struct store_cand *c)
{
    const char *slash = strrchr(c->dir, '/');
    char *s, params[NAME_HEX] = "";
    uint8_t id[NAME_ID_SIZE];
    if (c->params && *c->params) {
        if (!EVP_Digest(c->params, strlen(c->params), id, NULL, EVP_sha256(), NULL))
            return NULL;
        name_hex(params, id);
    }
    return asprintf(&s, "%s/%s/%s/%d/%s", c->file ? c->file : "",
                    c->model ? c->model
                    : slash  ? slash + 1
                             : c->dir,
                    c->tag ? c->tag : "", (int)c->role_hint, params) < 0
               ? NULL
               : s;
}

/* Publisher and model of c, whose stem is wish. */
static void place(char publisher[NAME_SIZE], char model[NAME_SIZE], const struct store_cand *c,
                  const char *wish)
{
    if (!c->publisher) {
        name_two_levels(publisher, model, c->dir, wish);
        return;
    }
    const char *m = c->model ? c->model : wish;
    name_clean(publisher, c->publisher, strlen(c->publisher), NULL);
    name_clean(model, m, strlen(m), NULL);
    if (*c->at)
        snprintf(model + (strlen(model) < 190 ? strlen(model) : 190), 11, "@%s", c->at);
}

/* The names that users type, then the way of the first part. */
static int take_aliases(struct store_entry *en, struct store_cand *c)
{
    int rc = store_cand_add_alias(c, c->order);
    en->alias = c->alias;
    en->n_alias = c->n_alias;
    c->alias = NULL;
    c->n_alias = 0;
    return rc;
}

/* An entry that says nothing yet; takes the parts, names and texts of c. */
static int entry_init(struct store_entry *en, struct store_cand *c, char *called)
{
    memset(en, 0, sizeof *en);
    en->kind = c->kind;
    en->role = STORE_UNSUPPORTED;
    en->part = c->part;
    en->n_part = c->n_part;
    c->part = NULL;
    c->n_part = 0;
    for (int i = 0; i < en->n_part; i++)
        en->src_size += en->part[i].id.size;
    en->called = called;
    en->revision = c->revision;
    en->params = c->params;
    c->revision = c->params = NULL;
    en->learnt = calloc(1, sizeof *en->learnt);
    if (!en->learnt || !called || take_aliases(en, c) < 0 || copy_str(&en->order, c->order))
        return -ENOMEM;
    char wish[NAME_SIZE], pub[NAME_SIZE], model[NAME_SIZE];
    const char *file = c->file ? c->file : c->tag ? c->tag : "";
    name_clean(wish, file, name_bare_len(file), NULL);
    place(pub, model, c, wish);
    if ((!en->revision && copy_str(&en->revision, "")) ||
        (!en->params && copy_str(&en->params, "")))
        return -ENOMEM;
    char **text[] = {&en->why,   &en->warning,       &en->arch,
                     &en->quant, &en->tokenizer_why, &en->generation_why};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        if (copy_str(text[i], ""))
            return -ENOMEM;
    return copy_str(&en->wish, wish) || copy_str(&en->stem, wish) ||
                   copy_str(&en->publisher, pub) || copy_str(&en->model, model)
               ? -ENOMEM
               : 0;
}

/* An entry without its names: facts from prev if nothing changed. *examine: nobody knows them yet. */
static int begin_entry(struct store *s, struct store_cand *c, const struct store_entry **prev,
                       size_t n_prev, bool *examine)
{
    struct store_entry *en = &s->entry[s->n_entry++];
    char *called = called_text(c);
    const struct store_entry *before = called ? find_prev(prev, n_prev, c, called) : NULL;
    int rc = entry_init(en, c, called);
    *examine = rc == 0 && c->rc == 0 && !before;
    if (rc == 0 && c->rc < 0) {
        en->rc = c->rc;
        rc = copy_str(&en->why, c->why);
    } else if (rc == 0 && before) {
        rc = copy_facts(en, before);
    }
    return rc;
}

/* A model at the root has a directory of its own name, which is known only once it was examined. */
static int end_entry(struct store_entry *en, const struct store_cand *c)
{
    char pub[NAME_SIZE], model[NAME_SIZE];
    place(pub, model, c, en->wish);
    return copy_str(&en->stem, en->wish) || copy_str(&en->publisher, pub) ||
                   copy_str(&en->model, model)
               ? -ENOMEM
               : 0;
}

/* The entries whose headers are to be read, by number, and 0 or why (store_starved) one was not. */
struct todo {
    struct store *s;
    struct store_build *b;
    size_t *no, n;
    int *rc;
};

static void examine_job(void *arg, size_t i)
{
    struct todo *t = arg;
    struct err e;
    t->rc[i] = store_examine(t->s, &t->s->entry[t->no[i]], &t->b->cand[t->no[i]], &e);
}

static int examine_all(struct todo *t)
{
    const struct store_crew *crew = t->s->opt.crew;
    t->s->n_parsed = t->n;
    if (crew && t->n > 1)
        crew->each(t->n, examine_job, t);
    for (size_t i = 0; i < t->n; i++) {
        if (!crew || t->n == 1 || t->rc[i] < 0)
            examine_job(t, i); /* what several at once had no memory or descriptors for, alone */
        if (t->rc[i] < 0)
            return t->rc[i];
    }
    return 0;
}

/* An entry from each candidate, in their order. */
static int entries_from_cands(struct store *s, struct store_build *b)
{
    size_t n_prev;
    const struct store_entry **prev = index_prev(b->prev, &n_prev);
    struct todo t = {.s = s, .b = b};
    t.no = calloc(b->n_cand + 1, sizeof *t.no);
    t.rc = calloc(b->n_cand + 1, sizeof *t.rc);
    int rc = t.no && t.rc ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < b->n_cand; i++) {
        bool examine;
        rc = begin_entry(s, &b->cand[i], prev, n_prev, &examine);
        if (examine)
            t.no[t.n++] = i;
    }
    if (rc == 0)
        rc = examine_all(&t);
    for (size_t i = 0; rc == 0 && i < b->n_cand; i++)
        rc = end_entry(&s->entry[i], &b->cand[i]);
    free(prev);
    free(t.no);
    free(t.rc);
    return rc;
}

int store_entry_rename(struct store_entry *en, const struct name_claim *c)
{
    return copy_str(&en->publisher, c->publisher) || copy_str(&en->model, c->model) ||
                   copy_str(&en->stem, c->stem)
               ? -ENOMEM
               : 0;
}

static int add_problems(struct store *s, struct store_build *b)
{
    for (size_t i = 0; i < s->n_entry; i++) {
        const struct store_entry *en = &s->entry[i];
        char dir[2 * NAME_SIZE + 1];
        snprintf(dir, sizeof dir, "%s/%s", en->publisher, en->model);
        int rc = 0;
        if (en->rc < 0)
            rc = store_problem_add(b, en->rc, en->order, dir, en->why);
        if (rc == 0 && *en->warning)
            rc = store_problem_add(b, 0, en->order, dir, en->warning);
        if (rc == 0 && store_entry_shown(en) && en->role == STORE_MODEL && en->tokenizer_rc < 0)
            rc = store_problem_add(b, en->tokenizer_rc, en->order, dir, en->tokenizer_why);
        if (rc == 0 && store_entry_shown(en) && *en->generation_why)
            rc = store_problem_add(b, en->generation_rc, en->order, dir, en->generation_why);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int cmp_entry(const void *pa, const void *pb)
{
    const struct store_entry *a = pa, *b = pb;
    int r = strcmp(a->publisher, b->publisher);
    r = r ? r : strcmp(a->model, b->model);
    r = r ? r : strcmp(a->stem, b->stem);
    return r ? r : strcmp(a->order, b->order);
}

void store_sort_entries(struct store *s)
{
    if (s->n_entry)
        qsort(s->entry, s->n_entry, sizeof *s->entry, cmp_entry);
}

static int cmp_problem(const void *pa, const void *pb)
{
    const struct store_problem *a = pa, *b = pb;
    int r = strcmp(a->path, b->path);
    r = r ? r : a->rc - b->rc;
    return r ? r : strcmp(a->why, b->why);
}

static bool same_options(const struct store_options *a, const struct store_options *b)
{
    return a->kind == b->kind && a->resolve == b->resolve && a->plan == b->plan &&
           a->view == b->view && a->chat_hint == b->chat_hint &&
           a->all_revisions == b->all_revisions && a->vapr.profile == b->vapr.profile &&
           a->vapr.footer == b->vapr.footer && a->vapr.values == b->vapr.values;
}

static int cmp_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void take_dirs(struct store *s, struct store_build *b)
{
    if (b->n_dir)
        qsort(b->dir, b->n_dir, sizeof *b->dir, cmp_text);
    s->dir = b->dir;
    for (size_t i = 0; i < b->n_dir; i++) {
        if (s->n_dir && !strcmp(s->dir[s->n_dir - 1], b->dir[i]))
            free(b->dir[i]);
        else
            s->dir[s->n_dir++] = b->dir[i];
    }
    b->dir = NULL;
    b->n_dir = 0;
}

/* keep: the scan before, whose entries stay where a place cannot be read; NULL: none does. */
static int make_entries(struct store *s, struct store_build *b, const struct store *keep,
                        struct err *e)
{
    s->entry =
        calloc(b->n_cand + (keep ? keep->n_entry + keep->n_merged : 0) + 1, sizeof *s->entry);
    if (!s->entry)
        return err_set(e, -ENOMEM, "no memory for %zu entries", b->n_cand);
    int rc = entries_from_cands(s, b);
    if (rc == 0 && keep)
        rc = store_keep(s, b, keep);
    if (rc == 0)
        rc = store_merge_same(s);
    if (rc == 0)
        rc = store_settle_names(s, e);
    if (rc == 0)
        rc = add_problems(s, b);
    if (rc < 0)
        return err_set(e, rc, "%s: %s", s->root, strerror(-rc));
    store_sort_entries(s);
    if (b->n_problem)
        qsort(b->problem, b->n_problem, sizeof *b->problem, cmp_problem);
    s->problem = b->problem;
    s->n_problem = b->n_problem;
    b->problem = NULL;
    b->n_problem = 0;
    take_dirs(s, b);
    return 0;
}

static int open_root(struct store *s, const char *root, int *fd, struct err *e)
{
    int rc = 0;
    s->root = realpath(root, NULL);
    *fd = s->root ? open(s->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (*fd >= 0)
        return 0;
    rc = -errno;
    if (rc != -EACCES)
        return err_set(e, rc, "%s: %s", root, strerror(-rc));
    char owner[256];
    store_owner_text(owner, sizeof owner, AT_FDCWD, s->root ? s->root : root);
    return err_set(e, rc, "cannot read %s: %s", root, *owner ? owner : strerror(-rc));
}

/* Does "<root>/<l->below>" look like l? Then that is the root. */
static int try_below(const struct layout *l, struct store *s, int *fd, bool *fits)
{
    char *path;
    *fits = false;
    int sub = openat(*fd, l->below, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (sub < 0)
        return store_starved(-errno) || store_passing(-errno) ? -errno : 0;
    int rc = asprintf(&path, "%s/%s", s->root, l->below) < 0 ? -ENOMEM : 0;
    if (rc == 0 && l->detect(sub, path)) {
        char *real = realpath(path, NULL);
        rc = real ? 0 : -errno;
        if (real) {
            *fits = true;
            free(s->root);
            s->root = real;
            close(*fd);
            *fd = sub;
            sub = -1;
        }
    }
    if (sub >= 0)
        close(sub);
    if (rc != -ENOMEM)
        free(path);
    return store_starved(rc) ? rc : 0;
}

static bool names_model(int root_fd, const char *name)
{
    (void)root_fd;
    return store_named_gguf(name);
}

/* Told by kind, or the first that fits: the root itself, then one folder below it, unless
 * the root has models of its own, which would be lost. given: the root's name as it was given,
 * which may say more than the real path. */
static int find_layout(const struct layout **out, struct store *s, int *fd, enum store_kind kind,
                       const char *given, struct err *e)
{
    if (s->opt.view == STORE_VIEW_GGUF) { /* no program keeps .apr files in a layout of its own */
        if (kind != STORE_AUTO && kind != STORE_PLAIN)
            return err_set(e, -EINVAL, "as=gguf shows .apr files of plain folders, not of store=%s",
                           store_kind_name(kind));
        kind = STORE_PLAIN;
    }
    const struct layout *l = kind == STORE_AUTO ? NULL : layout_row(kind);
    *out = NULL;
    if (kind != STORE_AUTO && !l)
        return err_set(e, -EINVAL, "unknown store kind %d", (int)kind);
    for (size_t i = 0; !*out && i < N_LAYOUT; i++)
        if ((!l || l == &layouts[i]) && layouts[i].detect &&
            (layouts[i].detect(*fd, s->root) || layouts[i].detect(*fd, given)))
            *out = &layouts[i];
    bool home = l || *out || !store_any_name(*fd, names_model);
    for (size_t i = 0; home && !*out && i < N_LAYOUT; i++) {
        bool fits = false;
        int rc =
            (!l || l == &layouts[i]) && layouts[i].below ? try_below(&layouts[i], s, fd, &fits) : 0;
        if (rc < 0)
            return err_set(e, rc, "%s: %s", s->root, strerror(-rc));
        if (fits)
            *out = &layouts[i];
    }
    if (!*out)
        *out = l ? l : layout_row(STORE_PLAIN);
    return 0;
}

bool store_any_name(int root_fd, bool (*fits)(int root_fd, const char *name))
{
    int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    bool found = false;
    if (!dir && fd >= 0)
        close(fd);
    for (struct dirent *de; dir && !found && (de = readdir(dir));)
        found = fits(root_fd, de->d_name);
    if (dir)
        closedir(dir);
    return found;
}

/* Opens the root, tells the layout, walks it. kind: AUTO, or what it is. */
static int walk_root(struct store *s, struct store_build *b, const char *root, enum store_kind kind,
                     const struct store *prev, struct err *e)
{
    const struct layout *l;
    int rc = open_root(s, root, &b->root_fd, e);
    if (rc == 0)
        rc = find_layout(&l, s, &b->root_fd, kind, root, e);
    if (rc < 0)
        return rc;
    b->root = s->root;
    b->prev =
        prev && !strcmp(prev->root, s->root) && same_options(&prev->opt, b->opt) ? prev : NULL;
    s->kind = b->kind = l->kind;
    b->how = b->opt->resolve == STORE_RESOLVE_BENEATH ? STORE_HOW_BENEATH : STORE_HOW_ANY;
    return l->scan(b, e);
}

/* In the place of a walk that failed with rc: nothing, but what was there where the failure may pass. */
static int stand_in(struct store *s, struct store_build *b, const struct store *was, int rc,
                    const struct err *why)
{
    const struct store_options *opt = b->opt;
    char text[ERR_MSG_MAX + 64];
    store_build_release(b);
    *b = (struct store_build){.opt = opt, .root_fd = -1};
    free(s->root);
    s->root = strdup(was->root);
    s->kind = was->kind;
    s->root_rc = rc;
    snprintf(text, sizeof text, "%s; %s, and looked at again", why->msg,
             store_passing(rc) ? "what was there is shown as it was" : "nothing of it is shown");
    return s->root ? store_problem_add(b, rc, "", "", text) : -ENOMEM;
}

int store_scan_again(struct store **out, const char *root, const struct store_options *opt,
                     const struct store *prev, const struct store *was, struct err *e)
{
    struct store_build b = {.opt = opt, .root_fd = -1};
    struct store *s = calloc(1, sizeof *s);
    struct err why = {0};
    if (!s)
        return err_set(e, -ENOMEM, "no memory for a store");
    s->opt = *opt;
    /* What was told once is not guessed anew, nor looked for elsewhere: an Ollama store whose last
     * manifest is gone is no plain folder of blobs, and what llama.cpp moved has the name it had. */
    enum store_kind kind = opt->kind;
    if (was && was->kind != STORE_PLAIN) {
        kind = was->kind;
        root = was->root;
    }
    int rc = walk_root(s, &b, root, kind, prev, &why);
    if (rc < 0 && was && !store_starved(rc))
        rc = stand_in(s, &b, was, rc, &why);
    if (rc == 0)
        rc = make_entries(s, &b, was, &why);
    if (rc < 0)
        err_set(e, rc, "%s", why.msg);
    else
        *out = s;
    store_build_release(&b);
    if (rc < 0)
        store_free(s);
    return rc;
}

int store_scan(struct store **out, const char *root, const struct store_options *opt,
               const struct store *prev, struct err *e)
{
    return store_scan_again(out, root, opt, prev, NULL, e);
}
