/* Chooses a backend by name. The tables themselves are in cpu/cpu_backend.c and gpu_backend.c. */
#include "infer/backend.h"

#include "infer/cpu/cpu_backend.h"
#include "infer/gpu_backend.h"

#include <errno.h>
#include <string.h>

int backend_open(struct backend **out, const char *name, const struct backend_options *opt,
                 struct err *e)
{
    if (strcmp(name, "cpu") == 0)
        return cpu_backend_open(out, opt, e);
    if (strcmp(name, "gpu") == 0)
        return gpu_backend_open(out, opt, e);
    return err_set(e, -EINVAL, "no backend is called '%s' (there are: cpu, gpu)", name);
}

void backend_close(struct backend *b)
{
    if (b)
        b->ops->close(b);
}

int backend_fail(const struct backend *b, int rc, struct err *e)
{
    return err_set(e, rc, "%s: %s", b->ops->name, b->e.msg[0] ? b->e.msg : err_name(rc));
}
