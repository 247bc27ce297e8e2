#include "infer/probe_internal.h"

#include "infer/session.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The limits of a device that computes in f32 as the reference does. Measured through the
 * emulation: all 0, every bit equal. On a GPU exp, tanh, sin and cos may differ in the last bits:
 * about 1e-14 of NMSE an operation.
 *
 * KL: llama.cpp's own f32 pass, another program with other orders of sums, is 1.2e-10 nats from the
 *   reference at worst (Qwen2.5-Coder-0.5B, SmolLM2; scripts/parity); a hundred times that. (A GELU
 *   from an f16 table, which is no f32 route any more, is 5e-5: engine.md, section 8.)
 * NMSE: the same number; of the order of KL where logits spread over a few nats. At the 1e-6 that
 *   first light was asked for, two rows of a tensor of Qwen2.5-Coder that changed places were refused
 *   by a hair (1.2e-6, measured through the emulation).
 * Cosine: what that NMSE leaves of it: |a - r|^2 <= eps |r|^2 has sin^2(angle) <= eps, so
 *   cos >= sqrt(1 - 1e-8), and 1 - cos <= 5.0e-9.
 * Greedy: the NMSE limit lets each logit err by sqrt(1e-8) of their spread, and two of them stand
 *   in a comparison. A different token is refused where the reference holds it for worse by more. */
static const struct {
    const char *name;
    double limit;
    enum probe_gate gate;
} metrics[PROBE_N_METRIC] = {
    [PROBE_FINITE] = {"logits that are no numbers", 0, PROBE_PARITY},
    [PROBE_NMSE] = {"NMSE", 1e-8, PROBE_PARITY},
    [PROBE_COSINE] = {"1 - cosine", 5e-9, PROBE_PARITY},
    [PROBE_KL] = {"KL", 1e-8, PROBE_PARITY},
    [PROBE_GREEDY] = {"greedy token's lag", 2e-4, PROBE_F2},
};

double probe_limit(enum probe_metric m)
{
    return metrics[m].limit;
}

const char *probe_metric_name(enum probe_metric m)
{
    return metrics[m].name;
}

enum probe_metric probe_refused(const struct probe_result *r)
{
    enum probe_metric m = 0;
    while (m < PROBE_N_METRIC && r->metric[m].n_bad == 0)
        m++;
    return m;
}

bool probe_gate_passed(const struct probe_result *r, enum probe_gate g)
{
    bool ok = r->n > 0 && r->n_done == r->n;
    for (int m = 0; m < PROBE_N_METRIC; m++)
        ok = ok && (metrics[m].gate != g || r->metric[m].n_bad == 0);
    return ok;
}

/* --- one position -------------------------------------------------------------------------- */

static void note(struct probe_result *r, enum probe_metric m, uint32_t pos, double value)
{
    struct probe_value *v = &r->metric[m];
    if (!(value <= v->worst)) {
        v->worst = value;
        v->pos = pos;
    }
    if (!(value <= metrics[m].limit) && v->n_bad++ == 0)
        v->first_bad = pos;
}

double probe_nmse(const float *a, const float *r, size_t n)
{
    double num = 0, den = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)r[i];
        num += d * d;
        den += (double)r[i] * (double)r[i];
    }
    if (num == 0)
        return 0;
    double v = num / den;
    return isnan(v) ? HUGE_VAL : v;
}

static double cosine_distance(const float *a, const float *r, uint32_t n)
{
    double ar = 0, aa = 0, rr = 0;
    for (uint32_t i = 0; i < n; i++) {
        ar += (double)a[i] * (double)r[i];
        aa += (double)a[i] * (double)a[i];
        rr += (double)r[i] * (double)r[i];
    }
    if (aa == 0 && rr == 0)
        return 0;
    double d = aa == 0 || rr == 0 ? 1 : 1 - ar / (sqrt(aa) * sqrt(rr));
    return d > 0 ? d : 0; /* rounding of the roots may pass 1 */
}

/* KL(p || q), p = softmax r and q = softmax a: with d = r - a that is E_p[d] + log E_p[exp(-d)],
 * which loses nothing where a and r are almost the same. */
static double kl(const float *a, const float *r, uint32_t n, float r_max)
{
    double z = 0, mean = 0, grown = 0;
    for (uint32_t i = 0; i < n; i++) {
        double p = exp((double)r[i] - (double)r_max), d = (double)r[i] - (double)a[i];
        z += p;
        mean += p * d;
        if (d != 0) /* p * expm1(-d), but where p is too small for a number and exp(-d) too large */
            grown += fabs(d) < 1 ? p * expm1(-d) : exp((double)a[i] - (double)r_max) - p;
    }
    double v = mean / z + log1p(grown / z);
    return isnan(v) ? HUGE_VAL : v > 0 ? v : 0;
}

static uint32_t highest(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* Standard deviation: a constant added to all logits changes no choice. */
static double spread(const float *x, uint32_t n)
{
    double mean = 0, var = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += (double)x[i];
    mean /= n;
    for (uint32_t i = 0; i < n; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean);
    return sqrt(var / n);
}

static double greedy_lag(const float *r, uint32_t n, uint32_t best, uint32_t taken)
{
    double gap = (double)r[best] - (double)r[taken];
    return gap > 0 ? gap / spread(r, n) : 0;
}

/* a: the device's row of n finite logits; taken: the token it would go on with. */
static void compare(struct probe_result *res, const float *a, const float *r, uint32_t n,
                    uint32_t taken)
{
    uint32_t pos = res->n_done++, best = highest(r, n);
    bool same = memcmp(a, r, n * sizeof *a) == 0;
    note(res, PROBE_NMSE, pos, same ? 0 : probe_nmse(a, r, n));
    note(res, PROBE_COSINE, pos, same ? 0 : cosine_distance(a, r, n));
    note(res, PROBE_KL, pos, same ? 0 : kl(a, r, n, r[best]));
    note(res, PROBE_GREEDY, pos, greedy_lag(r, n, best, taken));
    res->n_equal += taken == best;
}

/* --- all positions ------------------------------------------------------------------------- */

struct run {
    struct probe_result *r;
    const struct probe_options *opt;
    struct session *dut, *ref;
    const int32_t *id;
    uint32_t n, n_vocab;
    float *row; /* the reference's (SESSION_STEP, n_vocab), positions row0 .. row0 + n_row - 1 */
    uint32_t row0, n_row;
    uint32_t last; /* position that ends the chunk under way */
    bool ref_failed;
};

static int keep_row(void *ctx, const float *logits, uint32_t n_vocab, struct err *e)
{
    (void)e;
    struct run *x = ctx;
    memcpy(x->row + (size_t)x->n_row++ * n_vocab, logits, n_vocab * sizeof *logits);
    return 0;
}

/* The reference's logits at pos, which is asked for in order. */
static int reference_row(struct run *x, uint32_t pos, const float **row, struct err *e)
{
    if (pos >= x->row0 + x->n_row) {
        uint32_t left = x->n - pos, n = left < SESSION_STEP ? left : SESSION_STEP;
        x->row0 = pos;
        x->n_row = 0;
        int rc = session_eval_rows(x->ref, x->id + pos, n, keep_row, x, e);
        if (rc < 0) {
            x->ref_failed = true;
            err_wrap(e, "the CPU reference");
            return rc;
        }
    }
    *row = x->row + (size_t)(pos - x->row0) * x->n_vocab;
    return 0;
}

static int judge(struct run *x, const float *logits, uint32_t taken, struct err *e)
{
    const float *row;
    int rc = reference_row(x, x->r->n_done, &row, e);
    if (rc < 0)
        return rc;
    compare(x->r, logits, row, x->n_vocab, taken);
    if (x->opt && x->opt->progress)
        x->opt->progress(x->opt->ctx, x->r->n_done, x->n);
    return 0;
}

static int judge_row(void *ctx, const float *logits, uint32_t n_vocab, struct err *e)
{
    struct run *x = ctx;
    if (x->r->n_done == x->last)
        return 0; /* judge_last's */
    return judge(x, logits, highest(logits, n_vocab), e);
}

/* The row that a user's generation goes on from: with the token that the device chose itself. */
static int judge_last(struct run *x, struct err *e)
{
    const float *logits;
    int rc = session_logits(x->dut, &logits, e);
    return rc < 0 ? rc : judge(x, logits, (uint32_t)session_best(x->dut), e);
}

static int feed(struct run *x, struct err *e)
{
    struct probe_split split = probe_split(x->n);
    uint32_t at = 0;
    int rc = 0;
    for (int i = 0; rc == 0 && i < 2; at += split.chunk[i++]) {
        if (split.chunk[i] == 0)
            continue;
        x->last = at + split.chunk[i] - 1;
        rc = session_eval_rows(x->dut, x->id + at, split.chunk[i], judge_row, x, e);
        if (rc == 0)
            rc = judge_last(x, e);
    }
    for (uint32_t i = 0; rc == 0 && i < split.n_step; i++) {
        rc = session_eval(x->dut, &x->id[at + i], 1, e);
        if (rc == 0)
            rc = judge_last(x, e);
    }
    return rc;
}

/* The rows to compare, or, when they are gone, residuals of a step of either side. */
uint64_t probe_bytes(const struct model *m)
{
    uint64_t rows = (uint64_t)SESSION_STEP * m->c.n_vocab * sizeof(float);
    uint64_t residuals = 2 * (uint64_t)SESSION_STEP * m->c.n_layer * m->c.n_embd * sizeof(float);
    return rows > residuals ? rows : residuals;
}

/* The device's next row holds what is no number. If the reference's does too, it is the model's doing,
 * and no finding. */
static int judge_no_number(struct run *x, struct err *e)
{
    const float *row;
    int rc = reference_row(x, x->r->n_done, &row, e);
    if (rc < 0 && x->n_row == 0) /* not even the first row of its step */
        return rc;
    note(x->r, PROBE_FINITE, x->r->n_done, 1);
    return 0;
}

static int run_both(struct run *x, const struct model *dut, const struct model *ref, struct err *e)
{
    const struct session_options dut_opt = {.n_pos = x->n, .no_graph = x->opt && x->opt->no_graph},
                                 ref_opt = {.n_pos = x->n};
    int rc = 0;
    x->row = malloc((size_t)SESSION_STEP * x->n_vocab * sizeof *x->row);
    if (!x->row)
        rc = err_set(e, -ENOMEM, "no memory for %d rows of %" PRIu32 " logits", SESSION_STEP,
                     x->n_vocab);
    if (rc == 0)
        rc = session_new(&x->dut, dut, &dut_opt, e);
    if (rc == 0)
        rc = session_new(&x->ref, ref, &ref_opt, e);
    if (rc == 0) {
        rc = feed(x, e);
        if (rc < 0 && !x->ref_failed && session_not_finite(x->dut))
            rc = judge_no_number(x, e);
    }
    session_free(x->ref);
    session_free(x->dut);
    free(x->row);
    return rc;
}

int probe_run(struct probe_result *r, const struct model *dut, const struct model *ref,
              const int32_t *id, uint32_t n, const struct probe_options *opt, struct err *e)
{
    struct run x = {.r = r, .opt = opt, .id = id, .n = n, .n_vocab = dut->c.n_vocab};
    *r = (struct probe_result){.n = n, .bad_layer = PROBE_LAYER_NONE};
    if (n == 0 || n > dut->n_ctx || n > ref->n_ctx || ref->c.n_vocab != x.n_vocab ||
        ref->c.n_layer != dut->c.n_layer || ref->c.n_embd != dut->c.n_embd)
        return err_set(e, -EINVAL,
                       "a probe of %" PRIu32 " positions over contexts of %" PRIu32 " and %" PRIu32
                       ", vocabularies of %" PRIu32 " and %" PRIu32,
                       n, dut->n_ctx, ref->n_ctx, x.n_vocab, ref->c.n_vocab);
    int rc = run_both(&x, dut, ref, e);
    enum probe_metric m = probe_refused(r);
    if (rc == 0 && m < PROBE_N_METRIC)
        probe_find_layer(r, dut, ref, id, r->metric[m].pos);
    return rc;
}
