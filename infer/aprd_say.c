/* What aprd says on stderr. */
#include "infer/aprd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

/* --- loading ------------------------------------------------------------------------------- */

struct bar {
    bool on, drawn; /* stderr is a terminal; something stands in its line */
    double last;    /* when it was drawn */
    char phase[32];
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void bar_clear(struct bar *b)
{
    if (b->drawn)
        fputs("\r\033[K", stderr);
    b->drawn = false;
}

static void bar_draw(const struct engine_progress *p)
{
    enum { WIDTH = 24 };
    char cells[WIDTH + 1];
    double part = p->total ? (double)p->done / (double)p->total : 0;
    int full = (int)(part * WIDTH);
    memset(cells, '.', WIDTH);
    memset(cells, '#', (size_t)(full < WIDTH ? full : WIDTH));
    cells[WIDTH] = 0;
    fprintf(stderr, "\r\033[K%s", p->phase);
    if (p->total && strcmp(p->unit, "bytes") == 0)
        fprintf(stderr, " [%s] %.1f of %.1f MB", cells, (double)p->done * 1e-6,
                (double)p->total * 1e-6);
    else if (p->total)
        fprintf(stderr, " [%s] %" PRIu64 " of %" PRIu64 " %s", cells, p->done, p->total, p->unit);
    if (p->seconds > 0 && strcmp(p->unit, "bytes") == 0)
        fprintf(stderr, ", %.2f GB/s", (double)p->done * 1e-9 / p->seconds);
    if (p->source)
        fprintf(stderr, ", %s", p->source);
    fflush(stderr);
}

/* Ten times a second, and at the start of each phase. */
static void bar_progress(void *ctx, const struct engine_progress *p)
{
    struct bar *b = ctx;
    bool fresh = strcmp(b->phase, p->phase) != 0;
    snprintf(b->phase, sizeof b->phase, "%s", p->phase);
    double t = now();
    if (!b->on || (!fresh && t - b->last < 0.1))
        return;
    bar_draw(p);
    b->drawn = true;
    b->last = t;
}

static void say_device(const struct engine *g)
{
    if (g->device == ENGINE_GPU)
        fprintf(stderr, "aprd: device gpu: %s; gate %s\n", g->gate.device,
                gate_state_text(g->gate.state));
    else if (g->no_gpu.msg[0])
        fprintf(stderr, "aprd: device cpu (%s)\n", g->no_gpu.msg);
    else
        fprintf(stderr, "aprd: device cpu\n");
}

/* How much was read, from where, and why not from the files behind a mount. */
static void say_loaded(const struct engine *g)
{
    const struct model_progress *p = &g->m->loaded;
    fprintf(stderr, "aprd: loaded %" PRIu64 " bytes in %.3f s, source: %s%s%s\n", p->bytes,
            p->seconds, p->source, g->m->not_extents[0] ? ": " : "", g->m->not_extents);
}

void aprd_print_probe(FILE *f, const char *lead, const struct probe_result *r)
{
    static const enum probe_gate which[] = {PROBE_PARITY, PROBE_F2};
    for (size_t i = 0; i < sizeof which / sizeof which[0]; i++) {
        char line[ERR_MSG_MAX];
        probe_line(r, which[i], line, sizeof line);
        fprintf(f, "%s%s\n", lead, line);
    }
}

int aprd_load(struct engine *g, struct engine_options *eo, const struct aprd_args *a, struct err *e)
{
    struct bar bar = {.on = isatty(STDERR_FILENO) == 1};
    eo->n_thread = a->n_thread;
    eo->n_ctx = a->n_ctx;
    eo->device = a->device;
    eo->no_graph = aprd_given(a, OPT_NO_GRAPH);
    eo->progress = bar_progress;
    eo->ctx = &bar;
    int rc = engine_load(g, eo, e);
    bar_clear(&bar);
    if (rc < 0 && g->gate.state == GATE_REFUSED && g->gate.note.msg[0])
        fprintf(stderr, "aprd: %s\n", g->gate.note.msg);
    if (rc < 0)
        return rc;
    say_device(g);
    bool verbose = aprd_given(a, 'v');
    if (verbose)
        say_loaded(g);
    if (!eo->force_gate &&
        (g->gate.state == GATE_PASSED || (verbose && g->gate.state == GATE_CACHED)))
        aprd_print_probe(stderr, "aprd: ", &g->gate.probe);
    if (verbose && g->gate.note.msg[0])
        fprintf(stderr, "aprd: %s\n", g->gate.note.msg);
    return 0;
}

void aprd_say_unverified(const struct engine *g)
{
    if (g->gate.state == GATE_UNVERIFIED)
        fprintf(stderr,
                "aprd: unverified: computed on %s, which no gate has compared with the CPU "
                "(SKIP_PARITY_GATE=1)\n",
                g->gate.device);
}
