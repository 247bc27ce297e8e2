/* What a probe found, in words. */
#include "infer/probe_internal.h"

#include <inttypes.h>
#include <stdio.h>

static void layer_text(const struct probe_result *r, char *buf, size_t n)
{
    if (r->bad_layer >= 0)
        snprintf(buf, n, "first bad layer %" PRId32 " (residual NMSE %.3g)", r->bad_layer,
                 r->bad_residual);
    else if (r->bad_layer == PROBE_LAYER_NONE)
        snprintf(buf, n, "no layer differs when run op by op: the head, or the graph");
    else
        snprintf(buf, n, "first bad layer unknown: the second run failed");
}

static void passed_line(const struct probe_result *r, enum probe_gate g, char *buf, size_t n)
{
    const struct probe_value *v = r->metric;
    if (g == PROBE_PARITY) {
        snprintf(buf, n,
                 "PARITY-GATE: passed: %" PRIu32 " positions, worst NMSE %.3g at %" PRIu32
                 ", cosine %.9f at %" PRIu32 ", KL %.3g at %" PRIu32,
                 r->n, v[PROBE_NMSE].worst, v[PROBE_NMSE].pos, 1 - v[PROBE_COSINE].worst,
                 v[PROBE_COSINE].pos, v[PROBE_KL].worst, v[PROBE_KL].pos);
        return;
    }
    int len = snprintf(buf, n, "F2: passed: %" PRIu32 " of %" PRIu32 " greedy tokens equal",
                       r->n_equal, r->n);
    if (r->n_equal < r->n && len > 0 && (size_t)len < n)
        snprintf(buf + len, n - (size_t)len, ", %" PRIu32 " ties within rounding",
                 r->n - r->n_equal);
}

/* The gate's first metric beyond its limit; PROBE_N_METRIC: none, it did not come to the end. */
static enum probe_metric first_bad(const struct probe_result *r, enum probe_gate g)
{
    enum probe_metric m = g == PROBE_PARITY ? PROBE_FINITE : PROBE_GREEDY;
    enum probe_metric end = g == PROBE_PARITY ? PROBE_GREEDY : PROBE_N_METRIC;
    while (m < end && r->metric[m].n_bad == 0)
        m++;
    return m < end ? m : PROBE_N_METRIC;
}

void probe_line(const struct probe_result *r, enum probe_gate g, char *buf, size_t n)
{
    const char *name = g == PROBE_PARITY ? "PARITY-GATE" : "F2";
    enum probe_metric m = first_bad(r, g);
    char layer[96];
    if (probe_gate_passed(r, g)) {
        passed_line(r, g, buf, n);
        return;
    }
    if (m == PROBE_N_METRIC) {
        snprintf(buf, n, "%s: not finished: %" PRIu32 " of %" PRIu32 " positions compared", name,
                 r->n_done, r->n);
        return;
    }
    const struct probe_value *v = &r->metric[m];
    layer_text(r, layer, sizeof layer);
    if (m == PROBE_FINITE)
        snprintf(buf, n, "%s: refused: a logit at position %" PRIu32 " is no number; %s", name,
                 v->pos, layer);
    else if (m == PROBE_GREEDY)
        snprintf(buf, n,
                 "%s: refused: %" PRIu32 " of %" PRIu32 " greedy tokens equal; at position %" PRIu32
                 " the device's is %.3g deviations below the reference's (limit %.3g; beyond it at "
                 "%" PRIu32 " of %" PRIu32 " positions, first %" PRIu32 "); %s",
                 name, r->n_equal, r->n_done, v->pos, v->worst, probe_limit(m), v->n_bad, r->n_done,
                 v->first_bad, layer);
    else
        snprintf(buf, n,
                 "%s: refused: %s %.3g at position %" PRIu32 " (limit %.3g; beyond it at %" PRIu32
                 " of %" PRIu32 " positions, first %" PRIu32 "); %s",
                 name, probe_metric_name(m), v->worst, v->pos, probe_limit(m), v->n_bad, r->n_done,
                 v->first_bad, layer);
}
