/* Known roots: see store_roots.h. */
#include "format/store_roots.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SERVICE_ROOT "/usr/share/ollama/.ollama/models"

/* One place to look at. */
struct place {
    enum store_kind kind;
    char *path; /* NULL: no home to look in */
};

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

static char *format_path(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *format_path(const char *fmt, ...)
{
    va_list ap;
    char *s;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return n < 0 ? NULL : s;
}

/* malloc'ed; NULL: none. */
static char *home_dir(void)
{
    struct passwd pw, *user = NULL;
    char buf[4096];
    if (env("HOME"))
        return strdup(env("HOME"));
    if (getpwuid_r(getuid(), &pw, buf, sizeof buf, &user) != 0 || !user || !*user->pw_dir)
        return NULL;
    return strdup(user->pw_dir);
}

/* $XDG_CACHE_HOME/<below>, else <home>/.cache/<below>. */
static char *cache_path(const char *home, const char *below)
{
    const char *xdg = env("XDG_CACHE_HOME");
    if (xdg)
        return format_path("%s/%s", xdg, below);
    return home ? format_path("%s/.cache/%s", home, below) : NULL;
}

/* Its programs take "~" in these variables as the shell does. */
static char *expand(const char *path, const char *home)
{
    bool tilde = path[0] == '~' && (path[1] == '/' || !path[1]);
    return tilde && home ? format_path("%s%s", home, path + 1) : strdup(path);
}

static char *hub_path(const char *home)
{
    const char *cache = env("HF_HUB_CACHE");
    cache = cache ? cache : env("HUGGINGFACE_HUB_CACHE");
    if (cache)
        return expand(cache, home);
    if (!env("HF_HOME"))
        return cache_path(home, "huggingface/hub");
    char *base = expand(env("HF_HOME"), home), *path = base ? format_path("%s/hub", base) : NULL;
    free(base);
    return path;
}

static char *below_home(const char *home, const char *below)
{
    return home ? format_path("%s/%s", home, below) : NULL;
}

/* Appends p's directory to r[0..*n) if it is there and not among them; 0 or -ENOMEM. */
static int add_root(struct store_root *r, size_t *n, const struct place *p)
{
    struct stat st, other;
    int rc = stat(p->path, &st) < 0 ? -errno : S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
    if (rc < 0 && rc != -EACCES)
        return 0;
    for (size_t i = 0; rc == 0 && i < *n; i++)
        if (r[i].rc == 0 && stat(r[i].path, &other) == 0 && st.st_dev == other.st_dev &&
            st.st_ino == other.st_ino)
            return 0;
    struct store_root root = {.path = strdup(p->path), .kind = p->kind, .rc = rc};
    root.why = rc == 0 ? strdup("")
                       : format_path("cannot look into %s: %s; is it another user's?", p->path,
                                     strerror(-rc));
    if (!root.path || !root.why) {
        free(root.path);
        free(root.why);
        return -ENOMEM;
    }
    r[(*n)++] = root;
    return 0;
}

int store_roots(struct store_root **out, size_t *n, struct err *e)
{
    char *home = home_dir();
    const char *ollama = env("OLLAMA_MODELS"), *llama = env("LLAMA_CACHE");
    struct place place[] = {
        {STORE_HF, hub_path(home)},
        {STORE_OLLAMA, ollama ? expand(ollama, home) : below_home(home, ".ollama/models")},
        {STORE_OLLAMA, strdup(SERVICE_ROOT)},
        {STORE_LMSTUDIO, below_home(home, ".lmstudio/models")},
        {STORE_LMSTUDIO, below_home(home, ".cache/lm-studio/models")},
        {STORE_LLAMACPP, llama ? expand(llama, home) : cache_path(home, "llama.cpp")},
    };
    enum { N = sizeof place / sizeof *place };
    struct store_root *r = calloc(N, sizeof *r);
    size_t found = 0;
    int rc = r ? 0 : -ENOMEM;
    for (size_t i = 0; i < N; i++) {
        if (rc == 0 && place[i].path)
            rc = add_root(r, &found, &place[i]);
        free(place[i].path);
    }
    free(home);
    if (rc < 0) {
        store_roots_free(r, found);
        return err_set(e, rc, "no memory to list the known stores");
    }
    *out = r;
    *n = found;
    return 0;
}

void store_roots_free(struct store_root *r, size_t n)
{
    for (size_t i = 0; r && i < n; i++) {
        free(r[i].path);
        free(r[i].why);
    }
    free(r);
}
