/* What aprd says on stderr. */
#include "infer/aprd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int aprd_fail(const struct err *e)
{
    fprintf(stderr, "aprd: %s\n", e->msg);
    return 1;
}

int aprd_usage(const struct err *e)
{
    fprintf(stderr, "aprd: %s\nTry 'aprd --help'.\n", e->msg);
    return 2;
}

int aprd_flushed(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    fprintf(stderr, "aprd: stdout: %s\n", strerror(errno));
    return 1;
}

void aprd_say_device(const struct engine *g)
{
    if (g->device == ENGINE_GPU)
        fprintf(stderr, "aprd: device gpu\n");
    else if (g->no_gpu.msg[0])
        fprintf(stderr, "aprd: device cpu (%s)\n", g->no_gpu.msg);
    else
        fprintf(stderr, "aprd: device cpu\n");
}

void aprd_say_loaded(const struct engine *g)
{
    const struct model_progress *p = &g->m->loaded;
    fprintf(stderr, "aprd: loaded %" PRIu64 " bytes in %.3f s, source: %s%s%s\n", p->bytes,
            p->seconds, p->source, g->m->not_extents[0] ? ": " : "", g->m->not_extents);
}
