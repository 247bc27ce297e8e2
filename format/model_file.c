/* "A model is a path": see model_file.h. */
#include "format/model_file.h"

#include "format/gguf.h"
#include "format/vapr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct model_file {
    struct source *src; /* what apr reads: the .apr itself, or the view of vapr */
    struct gguf *gguf;  /* these two only of a .gguf */
    struct vapr *vapr;
    struct apr *apr;
    char path[];
};

/* The layout that a mount in profile native would show, without the mount. */
static int open_gguf(struct model_file *m, struct err *e)
{
    static const struct vapr_options opt = {.profile = VAPR_NATIVE};
    int rc = gguf_open_path(&m->gguf, m->path, e);
    if (rc == 0)
        rc = vapr_new(&m->vapr, m->gguf, &opt, e);
    if (rc == 0)
        rc = vapr_source(&m->src, m->vapr, e);
    return rc;
}

static int open_by_magic(struct model_file *m, struct err *e)
{
    uint8_t magic[4] = {0};
    int rc = source_open(&m->src, m->path, e);
    if (rc < 0)
        return rc;
    if (source_size(m->src) < sizeof magic)
        return err_set(e, -EUCLEAN, "%s: %llu bytes are no model", m->path,
                       (unsigned long long)source_size(m->src));
    rc = source_read(m->src, magic, 0, sizeof magic, e);
    if (rc < 0)
        return rc;
    if (memcmp(magic, "APR", 3) == 0)
        return 0;
    if (memcmp(magic, "GGUF", 4) != 0)
        return err_set(e, -ENOTSUP,
                       "%s: starts with %02x %02x %02x %02x, neither an APR nor a GGUF", m->path,
                       magic[0], magic[1], magic[2], magic[3]);
    source_close(m->src);
    m->src = NULL;
    return open_gguf(m, e);
}

int model_file_open(struct model_file **out, const char *path, struct err *e)
{
    size_t n = strlen(path) + 1;
    struct model_file *m = calloc(1, sizeof *m + n);
    if (!m)
        return err_set(e, -ENOMEM, "%s: no memory for a model handle", path);
    memcpy(m->path, path, n);
    int rc = open_by_magic(m, e);
    if (rc == 0)
        rc = apr_open(&m->apr, m->src, e);
    if (rc < 0) {
        model_file_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

void model_file_close(struct model_file *m)
{
    if (!m)
        return;
    apr_close(m->apr);
    source_close(m->src);
    vapr_free(m->vapr);
    gguf_close(m->gguf);
    free(m);
}

struct apr *model_file_apr(const struct model_file *m)
{
    return m->apr;
}

const char *model_file_path(const struct model_file *m)
{
    return m->path;
}

bool model_file_is_gguf(const struct model_file *m)
{
    return m->gguf != NULL;
}
