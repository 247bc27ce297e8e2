/* aprtool convert: the bytes the mount would show, to a file, in either direction (apr_write.h). */
#include "format/aprtool.h"

#include "format/apr_write.h"
#include "format/vgguf.h"

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

static int write_out(const struct tool_options *opt, const struct vapr *v, const struct vgguf *g,
                     const char *dst, struct err *e)
{
    struct progress bar;
    progress_init(&bar, "convert");
    struct apr_write_options w = {.force = opt->force,
                                  .footer = v ? opt->vapr.footer : VAPR_FOOTER_NONE,
                                  .stop = &tool_stop,
                                  .progress = progress_update,
                                  .ctx = &bar};
    int rc = v ? apr_write_file(v, dst, &w, e) : vplan_write_file(vgguf_plan(g), dst, &w, e);
    progress_end(&bar);
    if (rc == -EEXIST && !opt->force && access(dst, F_OK) == 0)
        err_set(e, rc, "%s exists; --force replaces it", dst);
    return rc;
}

static void json_begin(struct json_out *o, const char *dst, const struct vplan *plan)
{
    tool_json_begin(o);
    json_add_cstr(o, "path", dst);
    json_add_u64(o, "size", plan->size);
    json_add_cstr(o, "layout", plan->layout);
}

static int to_apr(const struct tool_options *opt, struct tool_file *f, const char *dst,
                  struct err *e)
{
    struct vapr *v;
    struct json_out o;
    int rc = vapr_new(&v, f->gguf, &opt->vapr, e);
    if (rc < 0) {
        if (!strstr(e->msg, f->path))
            err_wrap(e, "%s", f->path);
        return rc;
    }
    rc = write_out(opt, v, NULL, dst, e);
    if (rc == 0 && opt->json) {
        json_begin(&o, dst, vapr_plan(v));
        json_add_cstr(&o, "profile", vapr_profile_name(opt->vapr.profile));
        json_add_u64(&o, "n_tensor", vapr_n_tensor(v));
        rc = tool_json_end(&o, e);
    }
    vapr_free(v);
    return rc;
}

/* What was derived goes to stderr too: nobody should find out from the answers. */
static int to_gguf(const struct tool_options *opt, struct tool_file *f, const char *dst,
                   struct err *e)
{
    struct vgguf *v;
    struct json_out o;
    int rc = vgguf_new(&v, f->apr, e);
    if (rc < 0)
        return rc;
    rc = write_out(opt, NULL, v, dst, e);
    for (size_t i = 0; rc == 0 && !opt->json && i < vgguf_n_note(v); i++)
        fprintf(stderr, "aprtool: %s: derived: %s\n", dst, vgguf_note(v, i));
    if (rc == 0 && opt->json) {
        json_begin(&o, dst, vgguf_plan(v));
        json_add_bool(&o, "same_head", vgguf_same_head(v));
        json_add_u64(&o, "n_tensor", gguf_n_tensor(vgguf_gguf(v)));
        json_key(&o, "derived");
        json_open(&o, '[');
        for (size_t i = 0; i < vgguf_n_note(v); i++)
            json_put_cstr(&o, vgguf_note(v, i));
        json_close(&o, ']');
        rc = tool_json_end(&o, e);
    }
    vgguf_free(v);
    return rc;
}

int tool_convert(const struct tool_options *opt, int n_arg, char **arg)
{
    struct err e = {0};
    struct tool_file f;
    (void)n_arg;
    bool reverse = ends_with(arg[1], ".gguf");
    if (!reverse && !ends_with(arg[1], ".apr"))
        return tool_usage("'%s' must end in .apr or .gguf: readers go by the name", arg[1]);
    int rc = tool_file_open(&f, arg[0], NULL, &e);
    if (rc == 0 && (f.apr != NULL) != reverse)
        rc = err_set(&e, -EINVAL, "%s is a .%s already: a .gguf becomes a .apr, a .apr a .gguf",
                     arg[0], reverse ? "gguf" : "apr");
    if (rc == 0)
        rc = reverse ? to_gguf(opt, &f, arg[1], &e) : to_apr(opt, &f, arg[1], &e);
    tool_file_close(&f);
    return rc < 0 ? tool_fail(&e) : TOOL_OK;
}
