/* What probe.c (runs and compares) shares with probe_layer.c (finds the layer) and probe_line.c. */
#ifndef APRFS_INFER_PROBE_INTERNAL_H
#define APRFS_INFER_PROBE_INTERNAL_H

#include "infer/probe.h"

/* f32 noise stays below this, faults stand above it: see probe_layer.c. */
#define PROBE_RESIDUAL_LIMIT 1e-9

enum {
    PROBE_LAYER_NONE = -1,    /* all layers agree */
    PROBE_LAYER_UNKNOWN = -2, /* the second run failed */
};

/* sum (a - r)^2 / sum r^2: infinite where anything is no number, or r is zero and a is not. */
double probe_nmse(const float *a, const float *r, size_t n);

/* The first bad layer by its residuals' NMSE, or PROBE_LAYER_NONE. */
int32_t probe_first_bad(const double *nmse, uint32_t n_layer);

/* Runs both again, up to position pos, and compares the residuals after each layer, there and at
 * the other positions of the same step: fills r->bad_layer and r->bad_residual. */
void probe_find_layer(struct probe_result *r, const struct model *dut, const struct model *ref,
                      const int32_t *id, uint32_t pos);

#endif
