/* aprtool convert: the bytes the mount would show, to a file (apr_write.h). */
#include "format/aprtool.h"

#include "format/apr_write.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static int convert(const struct tool_options *opt, struct tool_file *f, const char *dst,
                   struct err *e)
{
    struct vapr *v;
    int rc = vapr_new(&v, f->gguf, &opt->vapr, e);
    if (rc < 0) {
        if (!strstr(e->msg, f->path))
            err_wrap(e, "%s", f->path);
        return rc;
    }
    struct progress bar;
    progress_init(&bar, "convert");
    struct apr_write_options w = {.force = opt->force,
                                  .footer = opt->vapr.footer,
                                  .stop = &tool_stop,
                                  .progress = progress_update,
                                  .ctx = &bar};
    rc = apr_write_file(v, dst, &w, e);
    progress_end(&bar);
    if (rc == -EEXIST && !opt->force && access(dst, F_OK) == 0)
        err_set(e, rc, "%s exists; --force replaces it", dst);
    if (rc == 0 && opt->json) {
        struct json_out o;
        tool_json_begin(&o);
        json_key(&o, "path");
        json_put_cstr(&o, dst);
        json_key(&o, "size");
        json_put_u64(&o, vapr_size(v));
        json_key(&o, "profile");
        json_put_cstr(&o, vapr_profile_name(opt->vapr.profile));
        json_key(&o, "layout");
        json_put_cstr(&o, vapr_layout(v));
        json_key(&o, "n_tensor");
        json_put_u64(&o, vapr_n_tensor(v));
        rc = tool_json_end(&o, e);
    }
    vapr_free(v);
    return rc;
}

int tool_convert(const struct tool_options *opt, int n_arg, char **arg)
{
    struct err e = {0};
    struct tool_file f;
    (void)n_arg;
    if (!ends_with(arg[1], ".apr"))
        return tool_usage("'%s' must end in .apr: the original readers refuse other names", arg[1]);
    int rc = tool_file_open(&f, arg[0], NULL, &e);
    if (rc == 0 && f.apr)
        rc = err_set(&e, -EINVAL, "%s is a .apr already: only .gguf can be converted", arg[0]);
    if (rc == 0)
        rc = convert(opt, &f, arg[1], &e);
    tool_file_close(&f);
    return rc < 0 ? tool_fail(&e) : TOOL_OK;
}
