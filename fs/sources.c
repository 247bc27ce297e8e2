/* SOURCEs: see sources.h. */
#include "fs/sources.h"

#include "format/store_roots.h"
#include "fs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int add(struct sources *s, const char *path, enum store_kind kind, struct err *e)
{
    struct store_source *more = realloc(s->src, (s->n + 1) * sizeof *more);
    if (more)
        s->src = more;
    char *copy = more ? strdup(path) : NULL;
    if (!copy)
        return err_set(e, -ENOMEM, "no memory for the sources");
    s->src[s->n++] = (struct store_source){.path = copy, .kind = kind};
    return 0;
}

static bool is_readable(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* One that cannot be read, as a service's store often is for others, does not keep the rest away. */
static int add_known(struct sources *s, struct err *e)
{
    struct store_root *root;
    size_t n, found = 0, shut = 0;
    int rc = store_roots(&root, &n, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (root[i].rc < 0) {
            log_line(LOG_WARN, "auto: %s", root[i].why);
            continue;
        }
        if (!is_readable(root[i].path)) {
            log_line(LOG_WARN, "auto: %s: passed over: %s%s", root[i].path, strerror(errno),
                     errno == EACCES && geteuid() == 0 ? " (-o caps=read lets root read it)" : "");
            shut++;
            continue;
        }
        log_line(LOG_NOTE, "auto: %s (%s)", root[i].path, store_kind_name(root[i].kind));
        rc = add(s, root[i].path, root[i].kind, e);
        found++;
    }
    store_roots_free(root, n);
    const char *home = getenv("HOME");
    if (rc == 0 && found == 0 && shut > 0)
        return err_set(e, -EACCES, "auto: none of the known stores can be read (see above)");
    if (rc == 0 && found == 0)
        rc =
            err_set(e, -ENOENT,
                    "auto: none of the known stores is there (hub cache, Ollama, LM Studio, "
                    "llama.cpp's cache) for HOME=%s; name a folder, or ./auto for one of that name",
                    home ? home : "");
    return rc;
}

int sources_init(struct sources *s, const char *const *word, size_t n, struct err *e)
{
    int rc = 0;
    *s = (struct sources){0};
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = strcmp(word[i], "auto") == 0 ? add_known(s, e) : add(s, word[i], STORE_AUTO, e);
    if (rc == 0)
        rc = sources_describe(s, e);
    if (rc < 0)
        sources_release(s);
    return rc;
}

int sources_describe(struct sources *s, struct err *e)
{
    size_t len = 1;
    for (size_t i = 0; i < s->n; i++)
        len += strlen(s->src[i].path) + 1;
    char *text = malloc(len), *p = text;
    if (!text)
        return err_set(e, -ENOMEM, "no memory for the sources");
    *p = '\0';
    for (size_t i = 0; i < s->n; i++) {
        if (i > 0)
            *p++ = ',';
        p = stpcpy(p, s->src[i].path);
    }
    free(s->text);
    s->text = text;
    return 0;
}

void sources_release(struct sources *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->src[i].path);
    free(s->src);
    free(s->text);
    *s = (struct sources){0};
}
