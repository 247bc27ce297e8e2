/* aprd verify: the gate's probe once more, and all that it measured. */
#include "format/json.h"
#include "infer/aprd.h"

#include <errno.h>
#include <stdio.h>

/* Names for programs; probe_metric_name() is for people. */
static const char *const metric_key[PROBE_N_METRIC] = {
    [PROBE_FINITE] = "n_not_finite", [PROBE_NMSE] = "nmse",         [PROBE_COSINE] = "1-cosine",
    [PROBE_KL] = "kl_nats",          [PROBE_GREEDY] = "greedy_lag",
};

static void put_metric(struct json_out *o, const struct probe_result *r, enum probe_metric m)
{
    const struct probe_value *v = &r->metric[m];
    json_open(o, '{');
    json_add_cstr(o, "name", metric_key[m]);
    json_key(o, "worst");
    json_put_f64(o, v->worst);
    json_key(o, "limit");
    json_put_f64(o, probe_limit(m));
    json_add_u64(o, "position", v->pos);
    json_add_u64(o, "n_beyond", v->n_bad);
    json_key(o, "first_beyond");
    v->n_bad ? json_put_u64(o, v->first_bad) : json_put_null(o);
    json_close(o, '}');
}

static void put_gate(struct json_out *o, const struct probe_result *r, enum probe_gate which,
                     const char *name)
{
    char line[ERR_MSG_MAX];
    probe_line(r, which, line, sizeof line);
    json_open(o, '{');
    json_add_cstr(o, "name", name);
    json_add_bool(o, "passed", probe_gate_passed(r, which));
    json_add_cstr(o, "text", line);
    json_close(o, '}');
}

static int put_json(const struct engine *g, struct err *e)
{
    const struct probe_result *r = &g->gate.probe;
    struct json_out o;
    json_out_init(&o);
    json_open(&o, '{');
    json_add_u64(&o, "schema", 1);
    json_add_cstr(&o, "path", g->path);
    json_add_cstr(&o, "device", g->gate.device);
    json_add_cstr(&o, "verdict", g->gate.state == GATE_PASSED ? "passed" : "refused");
    json_add_cstr(&o, "probe", g->gate.from_text ? "text" : "ids");
    json_add_u64(&o, "n_position", r->n);
    json_add_u64(&o, "n_compared", r->n_done);
    json_add_u64(&o, "n_greedy_equal", r->n_equal);
    json_key(&o, "gates");
    json_open(&o, '[');
    put_gate(&o, r, PROBE_PARITY, "PARITY-GATE");
    put_gate(&o, r, PROBE_F2, "F2");
    json_close(&o, ']');
    json_key(&o, "metrics");
    json_open(&o, '[');
    for (int m = 0; m < PROBE_N_METRIC; m++)
        put_metric(&o, r, (enum probe_metric)m);
    json_close(&o, ']');
    json_key(&o, "first_bad_layer");
    r->bad_layer >= 0 && g->gate.state == GATE_REFUSED ? json_put_i64(&o, r->bad_layer)
                                                       : json_put_null(&o);
    json_close(&o, '}');
    int rc = o.rc < 0 ? err_set(e, o.rc, "no memory for the report") : 0;
    if (rc == 0)
        printf("%.*s\n", (int)o.len, o.p);
    json_out_release(&o);
    return rc;
}

int aprd_verify(const struct aprd_args *a)
{
    struct err err = {0}, *e = &err, failed = {0};
    struct engine_options eo = {.force_gate = true};
    struct aprd_args with = *a;
    struct engine g;
    with.device = ENGINE_GPU; /* auto has nothing else to choose from: the CPU is the reference */
    int rc = engine_open(&g, a->path, &eo, e);
    if (rc < 0)
        return aprd_fail(e);
    /* as many positions as the probe takes, whatever the context */
    eo.n_pos = PROBE_N_TOK;
    rc = aprd_load(&g, &eo, &with, e);
    if (rc == 0 || g.gate.state == GATE_REFUSED) {
        if (!aprd_given(a, OPT_JSON))
            aprd_print_probe(stdout, "", &g.gate.probe);
        else if (put_json(&g, &failed) < 0)
            aprd_fail(&failed);
    }
    int status = aprd_flushed();
    if (rc < 0)
        status = aprd_fail(e);
    engine_close(&g);
    return failed.msg[0] ? 1 : status;
}
