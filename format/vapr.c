/* The virtual APR: see vapr.h. This file owns the handle; vapr_plan.c decides what stands
 * where, vapr_head.c writes the head, vplan.c reads. */
#include "format/vapr.h"

#include "format/vapr_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const profile_names[] = {
    [VAPR_ENGINE] = "engine", [VAPR_NATIVE] = "native", [VAPR_STRICT] = "strict"};

const char *vapr_profile_name(enum vapr_profile p)
{
    return profile_names[p];
}

bool vapr_profile_parse(const char *s, enum vapr_profile *p)
{
    for (int i = VAPR_ENGINE; i <= VAPR_STRICT; i++)
        if (strcmp(s, profile_names[i]) == 0) {
            *p = (enum vapr_profile)i;
            return true;
        }
    return false;
}

/* Rows of fused tensors go by what the file's forward pass uses, whatever values are stamped. */
static int plan_head(struct vapr *v, struct err *e)
{
    struct arch_config ref = {0}, compat = {0};
    bool use_compat = v->opt.values == VAPR_VALUES_COMPAT;
    int rc = arch_resolve(v->g, ARCH_VALUES_REFERENCE, &ref, NULL, e);
    if (rc < 0)
        return rc;
    if (use_compat)
        rc = arch_resolve(v->g, ARCH_VALUES_COMPAT, &compat, NULL, e);
    bool both = use_compat && rc == 0;
    if (rc == 0)
        rc = vapr_plan_aliases(v, &ref, e);
    if (rc == 0)
        rc = vapr_plan_layout(v, e);
    if (rc == 0)
        rc = vapr_head_build(v, use_compat ? &compat : &ref, e);
    arch_config_release(&ref);
    if (both)
        arch_config_release(&compat);
    return rc;
}

int vapr_new(struct vapr **out, const struct gguf *g, const struct vapr_options *opt, struct err *e)
{
    struct vapr *v = calloc(1, sizeof *v);
    int rc = v ? 0 : err_set(e, -ENOMEM, "no memory for a plan");
    if (rc < 0)
        goto out;
    v->g = g;
    v->opt = *opt;
    if ((rc = vplan_init(&v->plan, gguf_n_part(g), e)) < 0)
        goto out;
    for (int k = 0; k < gguf_n_part(g); k++)
        v->plan.part[k] = gguf_part(g, k);
    if ((rc = vapr_plan_entries(v, e)) < 0 || (rc = plan_head(v, e)) < 0 ||
        (rc = vapr_plan_move(v, e)) < 0)
        goto out;
    vapr_head_seal(v);
    *out = v;
    v = NULL;
out:
    if (rc < 0 && v)
        err_wrap(e, "%s", source_name(gguf_part(g, 0)));
    vapr_free(v);
    return rc;
}

void vapr_free(struct vapr *v)
{
    if (!v)
        return;
    for (size_t i = 0; i < v->n_entry; i++)
        free((char *)(uintptr_t)v->entry[i].t.name);
    free(v->entry);
    vplan_release(&v->plan);
    free(v->head);
    free(v);
}

uint64_t vapr_size(const struct vapr *v)
{
    return v->plan.size;
}

const uint8_t *vapr_head(const struct vapr *v, size_t *len)
{
    *len = v->head_len;
    return v->head;
}

uint64_t vapr_data_offset(const struct vapr *v)
{
    return v->data_off;
}

const char *vapr_layout(const struct vapr *v)
{
    return v->plan.layout;
}

size_t vapr_n_seg(const struct vapr *v)
{
    return v->plan.n_seg;
}

const struct vseg *vapr_seg(const struct vapr *v, size_t i)
{
    return &v->plan.seg[i];
}

size_t vapr_find_seg(const struct vapr *v, uint64_t off)
{
    return vplan_find_seg(&v->plan, off);
}

size_t vapr_n_tensor(const struct vapr *v)
{
    return v->n_entry;
}

const struct vapr_tensor *vapr_tensor(const struct vapr *v, size_t i)
{
    return &v->entry[i].t;
}

const struct gguf *vapr_gguf(const struct vapr *v)
{
    return v->g;
}

const struct vplan *vapr_plan(const struct vapr *v)
{
    return &v->plan;
}

int vapr_convert(const struct vapr *v, const struct vseg *s, uint64_t block_no, size_t n_block,
                 float *dst, struct err *e)
{
    return vplan_convert(&v->plan, s, block_no, n_block, dst, e);
}

int vapr_read(const struct vapr *v, void *dst, uint64_t off, size_t len, size_t *got, struct err *e)
{
    return vplan_read(&v->plan, dst, off, len, got, e);
}

int vapr_source(struct source **out, const struct vapr *v, struct err *e)
{
    return vplan_source(out, &v->plan, e);
}
