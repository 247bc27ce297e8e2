/* Hugging Face's hub cache, as its own page describes it (huggingface.co/docs/hub/local-cache);
 * llama.cpp downloads into it too.
 *
 *   models--<org>--<repo>/refs/main                         text: a commit
 *   models--<org>--<repo>/snapshots/<commit>/[sub/]<file>   link to ../../blobs/<hash>, or a file
 *   models--<org>--<repo>/blobs/<hash>[.incomplete]         64 hex digits: the content's SHA-256; a
 *                                                           file, or a link to ../../blobs/<xx>/<xet>
 *   blobs/<xx>/<xet>                                        blobs that repositories share
 *
 * Names are the snapshot's, never the blobs'; sub-folders are flattened. Every file is opened by
 * STORE_HOW_HUB. */
#include "format/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX     "models--"
#define REF_MAX    256 /* bytes of refs/main looked at: a commit has 40 */
#define COMMIT_MAX 128

/* A repository's folder while it is scanned. */
struct repo {
    struct store_folder *root;
    const char *folder;           /* "models--org--repo" */
    char *org, *name;             /* raw; org "_" where there is none */
    char dir[2 * NAME_SIZE + 1];  /* of the tree */
    char main_commit[COMMIT_MAX]; /* what refs/main says; "" = it is not there */
    bool unsure;                  /* what it says may be known later: what was shown stays */
};

/* What the candidates of one snapshot have in common. */
struct snapshot_name {
    const struct repo *r;
    const char *commit;
    bool is_main;
};

struct snapshot {
    const char *name; /* lent by the folder's names */
    int64_t mtime_ns;
    int arrived;    /* enum arrived */
    bool other_ref; /* a tag or a pull request names it; asked only where main's cannot be shown */
};

static bool is_dir(int dir_fd, const char *name)
{
    struct stat st;
    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

bool store_hub_is_repo(int root_fd, const char *name)
{
    char below[300];
    if (strncmp(name, PREFIX, strlen(PREFIX)) || strlen(name) > 255)
        return false;
    static const char *const part[] = {"refs", "snapshots"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(below, sizeof below, "%s/%s", name, part[i]);
        if (is_dir(root_fd, below))
            return true;
    }
    return false;
}

bool store_hub_is_shared(int root_fd, const char *name)
{
    struct stat st;
    return !strcmp(name, "blobs") &&
           fstatat(root_fd, "blobs/.huggingface-shared-blobs", &st, AT_SYMLINK_NOFOLLOW) == 0;
}

bool store_detect_hf(int root_fd, const char *root)
{
    (void)root;
    return store_any_name(root_fd, store_hub_is_repo);
}

/* "org--repo" in exactly two parts, or "repo". False: neither. */
static bool split_repo(struct repo *r, bool *memory)
{
    const char *p = r->folder + strlen(PREFIX), *cut = strstr(p, "--");
    *memory = true;
    if (!*p || strstr(p, "..") || cut == p || (cut && (!cut[2] || strstr(cut + 2, "--"))))
        return false;
    r->org = cut ? strndup(p, (size_t)(cut - p)) : strdup("_");
    r->name = strdup(cut ? cut + 2 : p);
    *memory = r->org && r->name;
    if (!*memory)
        return false;
    char org[NAME_SIZE], name[NAME_SIZE];
    name_clean(org, r->org, strlen(r->org), NULL);
    name_clean(name, r->name, strlen(r->name), NULL);
    snprintf(r->dir, sizeof r->dir, "%s/%s", org, name);
    return true;
}

static int repo_problem(const struct repo *r, const char *below, int rc, const char *why)
{
    char *rel = store_join(r->folder, below);
    int bad = rel ? store_problem_add(r->root->b, rc, rel, r->dir, why) : -ENOMEM;
    free(rel);
    return bad;
}

static int name_candidate(struct store_cand *c, const void *arg)
{
    const struct snapshot_name *n = arg;
    bool org = strcmp(n->r->org, "_") != 0;
    char *alias;
    if (!n->is_main) {
        snprintf(c->at, sizeof c->at, "%s", n->commit);
    }
    if (asprintf(&alias, "%s%s%s%s%s", org ? n->r->org : "", org ? "/" : "", n->r->name,
                 *c->at ? "@" : "", c->at) < 0)
        return -ENOMEM;
    int rc = store_cand_add_alias(c, alias);
    free(alias);
    c->publisher = strdup(n->r->org);
    c->model = strdup(n->r->name);
    c->revision = strdup(n->commit);
    return rc < 0 || !c->publisher || !c->model || !c->revision ? -ENOMEM : 0;
}

/* Takes fd, a snapshot's folder or one below it. */
static int scan_folder(const struct snapshot_name *n, int fd, const char *rel, int depth)
{
    struct store_folder d;
    struct store_build *b = n->r->root->b;
    int rc = store_folder_open(&d, b, fd, rel, depth);
    for (size_t i = 0; rc == 0 && i < d.n_name; i++) {
        struct stat st;
        if (fstatat(d.fd, d.name[i], &st, AT_SYMLINK_NOFOLLOW) < 0) {
            rc = errno == ENOENT ? 0 : store_folder_problem(&d, d.name[i], -errno, strerror(errno));
        } else if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)) {
            rc = store_folder_look(&d, d.name[i]);
        } else if (!S_ISDIR(st.st_mode)) {
            if (store_named_gguf(d.name[i]))
                rc = store_folder_problem(&d, d.name[i], -EINVAL, "not a regular file");
        } else if (d.name[i][0] != '.') {
            int sub;
            char *below;
            rc = store_folder_enter(&d, d.name[i], &sub, &below);
            if (rc == 0 && sub >= 0)
                rc = scan_folder(n, sub, below, depth + 1);
            free(below);
        }
    }
    if (rc == 0)
        rc = store_folder_group(&d, name_candidate, n);
    store_folder_close(&d);
    return rc;
}

static bool is_commit(const char *s)
{
    static const char alnum[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t n = strlen(s);
    return n > 0 && n < COMMIT_MAX && strspn(s, alnum) == n;
}

/* A ref: one line, a commit. -ENOENT: absent. */
static int read_ref(const struct repo *r, const char *rel, char commit[COMMIT_MAX], struct err *why)
{
    struct source_id id;
    char text[REF_MAX + 1];
    int fd = store_open_file(r->root->b->root_fd, STORE_HOW_STRICT, rel, -1, NULL, &id, why);
    if (fd < 0)
        return fd;
    ssize_t n;
    do
        n = pread(fd, text, REF_MAX, 0);
    while (n < 0 && errno == EINTR);
    int rc = n < 0 ? -errno : 0;
    close(fd);
    if (rc < 0)
        return err_set(why, rc, "%s", strerror(-rc));
    while (n > 0 && strchr(" \t\r\n", text[n - 1]))
        n--;
    text[n] = '\0';
    if (strlen(text) != (size_t)n || !is_commit(text))
        return err_set(why, -EUCLEAN, "no commit's id: the newest snapshot is shown");
    memcpy(commit, text, (size_t)n + 1);
    return 0;
}

static int read_main(struct repo *r)
{
    struct err why;
    char *rel = store_join(r->folder, "refs/main");
    int rc = rel ? read_ref(r, rel, r->main_commit, &why) : -ENOMEM;
    free(rel);
    if (rc == 0 || rc == -ENOENT || store_starved(rc))
        return rc == -ENOENT ? 0 : rc;
    r->unsure = store_passing(rc);
    if (r->unsure) {
        char text[ERR_MSG_MAX + 40];
        snprintf(text, sizeof text, "refs/main cannot be read now: %s", why.msg);
        return store_problem_add(r->root->b, rc, r->folder, r->dir, text);
    }
    return repo_problem(r, "refs/main", rc, why.msg);
}

/* Marks what the refs other than main name: tags, refs/pr/N. A ref that cannot be read marks nothing. */
static int mark_refs(const struct repo *r, struct store_folder *parent, const char *name,
                     struct snapshot *s, size_t n)
{
    struct store_folder d;
    int fd;
    char *rel;
    int rc = store_folder_enter(parent, name, &fd, &rel);
    if (rc < 0 || fd < 0)
        return rc;
    rc = store_folder_open(&d, parent->b, fd, rel, parent->depth + 1);
    for (size_t i = 0; rc == 0 && i < d.n_name; i++) {
        char commit[COMMIT_MAX] = "", *way = store_join(rel, d.name[i]);
        if (!way)
            rc = -ENOMEM;
        else if (is_dir(d.fd, d.name[i]))
            rc = mark_refs(r, &d, d.name[i], s, n);
        else if (d.depth > r->root->depth + 2 || strcmp(d.name[i], "main"))
            rc = read_ref(r, way, commit, NULL);
        rc = store_starved(rc) ? rc : 0;
        for (size_t k = 0; k < n; k++)
            s[k].other_ref |= !strcmp(s[k].name, commit);
        free(way);
    }
    store_folder_close(&d);
    free(rel);
    return rc;
}

/* The snapshots of d; links and files among them are told and left out. */
static int list_snapshots(struct store_folder *d, struct snapshot *s, size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < d->n_name; i++) {
        struct stat st;
        int rc = 0;
        if (fstatat(d->fd, d->name[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
            rc = errno == ENOENT ? 0 : store_folder_problem(d, d->name[i], -errno, strerror(errno));
        else if (S_ISLNK(st.st_mode))
            rc = store_folder_problem(d, d->name[i], -ELOOP,
                                      "a link where a snapshot's folder is expected: not followed");
        else if (S_ISDIR(st.st_mode) && !is_commit(d->name[i]))
            rc = store_folder_problem(d, d->name[i], -EINVAL, "not the name of a commit: skipped");
        else if (S_ISDIR(st.st_mode))
            s[(*n)++] = (struct snapshot){.name = d->name[i],
                                          .mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 +
                                                      st.st_mtim.tv_nsec};
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* How far a client has come with a snapshot: it makes the folders, and points refs/main there, before it
 * fetches the first file, and a README or a projector is here long before the model. */
enum arrived { ARRIVED_NOTHING, ARRIVED_FILE, ARRIVED_MODEL };

/* Is the file a GGUF? What cannot be read counts as what it is called, and is told when it is scanned. */
static int is_gguf(const struct store_build *b, const char *rel, const char *name)
{
    struct source_id id;
    char sha256[65], magic[4];
    int fd = store_open_hub(b->root_fd, rel, &id, sha256, NULL);
    if (fd < 0)
        return store_starved(fd) ? fd : fd != -ENOENT && store_named_gguf(name);
    bool is = pread(fd, magic, sizeof magic, 0) == sizeof magic && !memcmp(magic, "GGUF", 4);
    close(fd);
    return is;
}

/* Are the others of a model's first shard here? */
static bool is_whole(int dir_fd, const char *name)
{
    uint32_t no, count;
    size_t prefix;
    struct stat st;
    char other[NAME_MAX + 1];
    if (!gguf_shard_name(name, &no, &count, &prefix) || no >= count)
        return true;
    for (uint32_t i = 0; no == 0 && i < count; i++) {
        snprintf(other, sizeof other, "%.*s-%05u-of-%05u.gguf", (int)prefix, name, i + 1, count);
        if (fstatat(dir_fd, other, &st, 0) < 0)
            return false;
    }
    return no == 0;
}

/* A file of a snapshot, or -errno of store_starved. Projectors and importance matrices go by their names
 * here, for it is only asked whether to wait for more. */
static int file_arrived(const struct store_build *b, int dir_fd, const char *rel, const char *name)
{
    char *path = store_join(rel, name);
    int rc = path ? is_gguf(b, path, name) : -ENOMEM;
    free(path);
    if (rc < 0)
        return rc;
    bool other = !strncasecmp(name, "mmproj", 6) || strcasestr(name, "imatrix");
    return rc && !other && is_whole(dir_fd, name) ? ARRIVED_MODEL : ARRIVED_FILE;
}

/* The enum arrived of parent's folder name and all below it, or -errno of store_starved; the folders that
 * were looked at are to be watched: more may come. One that cannot be read has a model: told later. */
static int arrived(struct store_build *b, int parent, const char *rel, const char *name, int depth)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    char *path = store_join(rel, name);
    int best = path ? !dir || depth >= STORE_MAX_DEPTH ? ARRIVED_MODEL : ARRIVED_NOTHING : -ENOMEM;
    if (best == ARRIVED_NOTHING && store_dir_add(b, path) < 0)
        best = -ENOMEM;
    for (struct dirent *de; best >= 0 && best < ARRIVED_MODEL && (de = readdir(dir));) {
        if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
            continue;
        int one = !is_dir(fd, de->d_name) ? file_arrived(b, fd, path, de->d_name)
                  : de->d_name[0] == '.'  ? ARRIVED_NOTHING /* not searched by a scan */
                                          : arrived(b, fd, path, de->d_name, depth + 1);
        best = one < 0 || one > best ? one : best;
    }
    free(path);
    if (dir)
        closedir(dir);
    else if (fd >= 0)
        close(fd);
    return best;
}

/* Is a the better guess for what main was until now? One with a model; what no other ref names was; then
 * the newer. */
static bool is_better(const struct snapshot *a, const struct snapshot *b)
{
    if (a->arrived != b->arrived)
        return a->arrived > b->arrived;
    if (a->other_ref != b->other_ref)
        return b->other_ref;
    return a->mtime_ns != b->mtime_ns ? a->mtime_ns > b->mtime_ns : strcmp(a->name, b->name) > 0;
}

/* The best of s but for main's (n: there is none) that has come further than main's; *best = n: none. All
 * are to be watched: a file that comes to another may make that the best. */
static int next_best(const struct store_folder *d, struct snapshot *s, size_t n, size_t main,
                     size_t *best)
{
    int least = main < n ? s[main].arrived : ARRIVED_NOTHING;
    *best = n;
    for (size_t i = 0; i < n; i++) {
        char *rel = store_join(d->rel, s[i].name);
        int rc = rel ? store_dir_add(d->b, rel) : -ENOMEM;
        free(rel);
        if (rc < 0)
            return rc;
        rc = i != main ? arrived(d->b, d->fd, d->rel, s[i].name, d->depth + 1) : s[i].arrived;
        if (rc < 0)
            return rc;
        s[i].arrived = rc;
        if (i != main && rc > least && (*best == n || is_better(&s[i], &s[*best])))
            *best = i;
    }
    return 0;
}

/* The snapshot that refs/main names; where it is missing, or has no model yet and another one has, the one
 * that seems to have been main's before, with a word; without refs/main the newest. *chosen = n: nothing to
 * show. */
static int choose(const struct repo *r, struct store_folder *repo, const struct store_folder *d,
                  struct snapshot *s, size_t n, size_t *chosen)
{
    size_t main = n, best = n;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(s[i].name, r->main_commit))
            main = i;
    *chosen = main;
    if (n == 1 && main == 0)
        return 0; /* there is no other to wait with */
    int rc = main < n ? arrived(d->b, d->fd, d->rel, s[main].name, d->depth + 1) : 0;
    if (rc < 0 || rc == ARRIVED_MODEL)
        return rc < 0 ? rc : 0;
    if (main < n)
        s[main].arrived = rc;
    rc = *r->main_commit && n > 0 ? mark_refs(r, repo, "refs", s, n) : 0;
    if (rc == 0)
        rc = next_best(d, s, n, main, &best);
    if (rc < 0 || best == n)
        return rc;
    *chosen = best;
    if (!*r->main_commit)
        return 0;
    char why[ERR_MSG_MAX];
    const char *what = main == n                            ? "is not here"
                       : s[main].arrived == ARRIVED_NOTHING ? "is empty yet"
                                                            : "has no whole model yet";
    snprintf(why, sizeof why, "names %s, which %s: %.64s is shown, the newest%s", r->main_commit,
             what, s[best].name, s[best].other_ref ? " here" : " that no other ref names");
    return repo_problem(r, "refs/main", 0, why);
}

static int scan_snapshot(const struct repo *r, struct store_folder *d, const char *commit,
                         bool is_main)
{
    char *rel;
    int fd, rc = store_folder_enter(d, commit, &fd, &rel);
    struct snapshot_name n = {r, commit, is_main};
    if (rc == 0 && fd >= 0)
        rc = scan_folder(&n, fd, rel, d->depth + 1);
    free(rel);
    return rc;
}

/* Takes fd, the folder snapshots/. */
static int scan_snapshots(const struct repo *r, struct store_folder *repo, int fd, const char *rel)
{
    struct store_folder d;
    size_t n = 0, chosen = 0;
    int rc = store_folder_open(&d, r->root->b, fd, rel, r->root->depth + 2);
    struct snapshot *s = rc == 0 ? calloc(d.n_name + 1, sizeof *s) : NULL;
    if (rc == 0)
        rc = s ? list_snapshots(&d, s, &n) : -ENOMEM;
    if (rc == 0)
        rc = choose(r, repo, &d, s, n, &chosen);
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (i == chosen || r->root->b->opt->all_revisions)
            rc = scan_snapshot(r, &d, s[i].name, i == chosen);
    free(s);
    store_folder_close(&d);
    return rc;
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n > m && !strcmp(s + n - m, suffix);
}

/* No snapshot leads to a download in progress yet: without these lines nobody would know of it. */
static int tell_downloads(const struct repo *r, struct store_folder *repo, int fd, const char *rel)
{
    (void)repo;
    struct store_folder d;
    int rc = store_folder_open(&d, r->root->b, fd, rel, r->root->depth + 2);
    for (size_t i = 0; rc == 0 && i < d.n_name; i++)
        if (ends_with(d.name[i], ".incomplete") || ends_with(d.name[i], ".downloadInProgress")) {
            char *path = store_join(rel, d.name[i]);
            rc = path ? store_problem_add(d.b, -EAGAIN, path, r->dir, "download in progress")
                      : -ENOMEM;
            free(path);
        }
    store_folder_close(&d);
    return rc;
}

static int scan_below(const struct repo *r, struct store_folder *d, const char *name,
                      int (*scan)(const struct repo *r, struct store_folder *repo, int fd,
                                  const char *rel))
{
    int fd;
    char *rel;
    struct stat st;
    if (fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if (!S_ISDIR(st.st_mode))
        return repo_problem(r, name, S_ISLNK(st.st_mode) ? -ELOOP : -ENOTDIR,
                            "not a folder of the repository's own: not followed");
    int rc = store_folder_enter(d, name, &fd, &rel);
    if (rc == 0 && fd >= 0)
        rc = scan(r, d, fd, rel);
    free(rel);
    return rc;
}

static int watch_refs(const struct repo *r)
{
    char *rel = store_join(r->folder, "refs");
    int rc = rel ? store_dir_add(r->root->b, rel) : -ENOMEM;
    free(rel);
    return rc;
}

static int scan_repo(struct repo *r)
{
    struct store_folder d;
    int fd;
    char *rel;
    int rc = store_folder_enter(r->root, r->folder, &fd, &rel);
    if (rc == 0 && fd >= 0) {
        rc = store_folder_open(&d, r->root->b, fd, rel, r->root->depth + 1);
        if (rc == 0 && is_dir(d.fd, "refs"))
            rc = watch_refs(r);
        if (rc == 0)
            rc = read_main(r);
        if (rc == 0 && !r->unsure)
            rc = scan_below(r, &d, "snapshots", scan_snapshots);
        if (rc == 0)
            rc = scan_below(r, &d, "blobs", tell_downloads);
        store_folder_close(&d);
    }
    free(rel);
    return rc;
}

int store_hub_repo(struct store_folder *root, const char *folder)
{
    struct repo r = {.root = root, .folder = folder};
    struct stat st;
    bool memory;
    int rc = 0;
    if (fstatat(root->fd, folder, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : store_folder_problem(root, folder, -errno, strerror(errno));
    if (S_ISLNK(st.st_mode))
        return store_folder_problem(root, folder, -ELOOP,
                                    "a link where a repository's folder is expected: not followed");
    if (!S_ISDIR(st.st_mode))
        return store_plain_visit(root, folder);
    enum store_how how = root->b->how;
    enum store_kind kind = root->b->kind;
    root->b->how = STORE_HOW_HUB;
    root->b->kind = STORE_HF;
    if (split_repo(&r, &memory))
        rc = scan_repo(&r);
    else
        rc = memory ? store_folder_problem(
                          root, folder, -EINVAL,
                          "not the name of a repository: expected models--<org>--<repo>")
                    : -ENOMEM;
    root->b->how = how;
    root->b->kind = kind;
    free(r.org);
    free(r.name);
    return rc;
}

/* Of the hub's root itself: repositories, and files that llama.cpp put there before it used this
 * layout. What belongs to others is passed over, folders that may hold models with a word. */
static int visit(struct store_folder *d, const char *name)
{
    struct stat st;
    if (!strncmp(name, PREFIX, strlen(PREFIX)))
        return store_hub_repo(d, name);
    if (fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : store_folder_problem(d, name, -errno, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return store_plain_visit(d, name);
    static const char *const other[] = {"datasets--", "spaces--", "kernels--"};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (!strncmp(name, other[i], strlen(other[i])))
            return 0;
    return name[0] == '.' || store_hub_is_shared(d->fd, name) /* .locks, .no_exist */
               ? 0
               : store_folder_problem(
                     d, name, -EINVAL,
                     "no folder of a hub cache: not searched; name it as a source");
}

int store_scan_hf(struct store_build *b, struct err *e)
{
    return store_scan_flat(b, visit, e);
}
