/* The plan of a virtual APR: which tensors stand raw, which are converted, and where everything
 * lies. Names beside the file's own are vapr_alias.c's, the head's bytes vapr_head.c's.
 *
 * Offsets are planned in a frame where data_off is smaller than 64 KiB and has the residue it will
 * have; when the head's length is known everything moves by a multiple of 64 KiB. So offsets
 * relative to data_off, which the head holds, never depend on the head. */
#include "format/json.h"
#include "format/vapr_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- profiles --- */

static bool name_has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

/* Every reader takes a norm's bytes for F32 without looking at its type; of other vectors they take
 * F32 and F16. Otherwise the profile's set decides. The Rust engine decodes the embedding with
 * another table than matrices, one without Q3_K. (Source: specification of APR v2, sections 5, 7,
 * 8.3, 12.) */
static bool stands_raw(enum vapr_profile p, const char *name, uint32_t n_dim, uint32_t type)
{
    static const uint64_t engine = 1ull << QUANT_F32 | 1ull << QUANT_F16 | 1ull << QUANT_Q4_0 |
                                   1ull << QUANT_Q4_1 | 1ull << QUANT_Q5_0 | 1ull << QUANT_Q5_1 |
                                   1ull << QUANT_Q2_K | 1ull << QUANT_Q3_K | 1ull << QUANT_Q4_K |
                                   1ull << QUANT_Q5_K | 1ull << QUANT_Q6_K | 1ull << QUANT_BF16;
    static const uint64_t strict =
        1ull << QUANT_F32 | 1ull << QUANT_F16 | 1ull << QUANT_Q4_K | 1ull << QUANT_Q6_K;
    if (p == VAPR_NATIVE || type == QUANT_F32)
        return true;
    if (name_has(name, "norm"))
        return false;
    if (n_dim <= 1)
        return type == QUANT_F16;
    if (p == VAPR_ENGINE && type == QUANT_Q3_K &&
        (name_has(name, "token_embd") || name_has(name, "embed_tokens") ||
         name_has(name, "tok_embeddings")))
        return false;
    return (p == VAPR_ENGINE ? engine : strict) >> type & 1;
}

/* Values survive in F32: there is a dequantiser, and it rounds nothing away that the type can say.
 */
static bool converts_exactly(const struct quant_type *q)
{
    return q->f32 && q->id != QUANT_F64;
}

/* The GGUF reader has refused empty names and NUL. */
static int check_name(const struct gguf_tensor *t, struct err *e)
{
    const char *what = NULL;
    if (t->name.len > APR_MAX_NAME)
        what = "is longer than the 256 bytes an APR name may have";
    else if (!json_utf8_valid(t->name.p, t->name.len))
        what = "is not UTF-8";
    if (!what)
        return 0;
    int n = t->name.len < 80 ? (int)t->name.len : 80;
    return err_set(e, -ENOTSUP, "tensor '%.*s': its name %s", n, t->name.p, what);
}

struct vapr_entry *vapr_entry_add(struct vapr *v, const char *name, size_t len, struct err *e)
{
    if (v->n_entry == v->cap_entry) {
        size_t cap = v->cap_entry ? 2 * v->cap_entry : gguf_n_tensor(v->g) + 8;
        struct vapr_entry *p = realloc(v->entry, cap * sizeof *p);
        if (!p)
            goto no_memory;
        v->entry = p;
        v->cap_entry = cap;
    }
    struct vapr_entry *n = &v->entry[v->n_entry];
    memset(n, 0, sizeof *n);
    n->t.name = strndup(name, len);
    if (!n->t.name)
        goto no_memory;
    v->n_entry++;
    return n;
no_memory:
    err_set(e, -ENOMEM, "no memory for a plan of %zu tensors", gguf_n_tensor(v->g));
    return NULL;
}

static int plan_entry(struct vapr *v, const struct gguf_tensor *g, struct err *e)
{
    int rc = check_name(g, e);
    if (rc < 0)
        return rc;
    struct vapr_entry *n = vapr_entry_add(v, g->name.p, g->name.len, e);
    if (!n)
        return -ENOMEM;
    struct vapr_tensor *t = &n->t;
    t->type = quant_type(g->type);
    t->n_dim = g->n_dim;
    for (uint32_t i = 0; i < g->n_dim; i++)
        t->dim[i] = g->ne[g->n_dim - 1 - i];
    t->part = g->part;
    t->src_off = g->off;
    t->src_size = t->size = g->size;
    t->dtype = (uint8_t)g->type;
    if (stands_raw(v->opt.profile, t->name, t->n_dim, g->type))
        return 0;
    if (!converts_exactly(t->type))
        return err_set(e, -ENOTSUP,
                       "tensor '%s': type %s can stand in profile %s neither as it is nor as F32",
                       t->name, t->type->name, vapr_profile_name(v->opt.profile));
    uint64_t count = g->size / t->type->block_bytes * t->type->block_len;
    if (count > VAPR_MAX_SIZE / sizeof(float))
        return err_set(e, -ERANGE, "tensor '%s': too large as F32", t->name);
    t->conv = true;
    t->dtype = QUANT_F32;
    t->size = count * sizeof(float);
    return 0;
}

int vapr_plan_entries(struct vapr *v, struct err *e)
{
    size_t n = gguf_n_tensor(v->g);
    if (n > VAPR_MAX_TENSOR)
        return err_set(e, -ERANGE, "%zu tensors, at most %u go into an APR", n, VAPR_MAX_TENSOR);
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = plan_entry(v, gguf_tensor(v->g, i), e);
    return rc;
}

bool vapr_row_sizes(const struct vapr_tensor *t, uint64_t *src, uint64_t *shown)
{
    uint64_t cols = t->n_dim == 2 ? t->dim[1] : 1;
    if (t->n_dim < 1 || t->n_dim > 2 || !quant_row_bytes(t->type, cols, src))
        return false;
    *shown = t->conv ? cols * sizeof(float) : *src;
    return true;
}

/* --- layout --- */

static uint64_t round_up(uint64_t x, uint64_t to)
{
    return (x + to - 1) & ~(to - 1); /* callers stay below VAPR_MAX_SIZE */
}

enum layout {
    LAYOUT_CONGRUENT,
    LAYOUT_SHIFTED32,
    LAYOUT_PLACED,
};

/* Profile strict wants raw tensors at multiples of 64; shifts are multiples of that, so the
 * source's own residues decide. */
static enum layout choose_layout(const struct vapr *v)
{
    bool at0 = false, at32 = false, other = false;
    if (v->opt.profile != VAPR_STRICT)
        return LAYOUT_CONGRUENT;
    for (size_t i = 0; i < v->n_entry; i++) {
        const struct vapr_tensor *t = &v->entry[i].t;
        if (t->alias || t->conv || t->size == 0)
            continue;
        at0 |= t->src_off % 64 == 0;
        at32 |= t->src_off % 64 == 32;
        other |= t->src_off % 32 != 0;
    }
    if (other || (at0 && at32))
        return LAYOUT_PLACED;
    return at32 ? LAYOUT_SHIFTED32 : LAYOUT_CONGRUENT;
}

/* Every part whole, at a shift that is a multiple of 64 KiB (plus extra). */
static int lay_extents(struct vapr *v, uint64_t extra, struct err *e)
{
    int n_part = gguf_n_part(v->g);
    uint64_t *at = calloc((size_t)n_part, sizeof *at);
    if (!at)
        return err_set(e, -ENOMEM, "no memory for %d parts", n_part);
    v->plan.size = gguf_data_start(v->g, 0) % VAPR_SHIFT + extra;
    v->data_off = v->opt.profile == VAPR_STRICT ? v->plan.size & ~UINT64_C(63) : v->plan.size;
    int rc = 0;
    for (int k = 0; k < n_part && rc == 0; k++) {
        uint64_t start = gguf_data_start(v->g, k), stop = gguf_data_end(v->g, k);
        if (stop <= start)
            continue;
        at[k] = v->plan.size +
                (start + extra - v->plan.size) % VAPR_SHIFT; /* unsigned: wraps as it should */
        struct vseg s = {VSEG_FILE, at[k], stop - start, .part = k, .src_off = start};
        rc = vplan_add(&v->plan, s, e);
    }
    for (size_t i = 0; i < v->n_entry; i++) {
        struct vapr_entry *n = &v->entry[i];
        if (!n->t.alias && n->t.src_size > 0)
            n->raw_off = at[n->t.part] + (n->t.src_off - gguf_data_start(v->g, n->t.part));
        else
            n->raw_off = v->data_off;
    }
    free(at);
    return rc;
}

static int cmp_place(const void *a, const void *b)
{
    const struct vapr_entry *x = *(struct vapr_entry *const *)a,
                            *y = *(struct vapr_entry *const *)b;
    if (x->t.part != y->t.part)
        return x->t.part < y->t.part ? -1 : 1;
    return x->t.src_off < y->t.src_off ? -1 : x->t.src_off > y->t.src_off;
}

/* Runs of tensors that keep their distances; a raw tensor that would stand askew starts a new run
 * at the next multiple of 64. Bytes between runs are padding and stay behind. */
static int lay_runs(struct vapr *v, struct vapr_entry **sorted, size_t n, struct err *e)
{
    struct vseg run = {.kind = VSEG_FILE, .part = -1};
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct vapr_entry *x = sorted[i];
        const struct vapr_tensor *t = &x->t;
        uint64_t off = run.off + (t->src_off - run.src_off);
        if (run.part != t->part || (!t->conv && off % 64 != 0)) {
            rc = run.part >= 0 ? vplan_add(&v->plan, run, e) : 0;
            off = round_up(v->plan.size, 64);
            run = (struct vseg){VSEG_FILE, off, 0, .part = t->part, .src_off = t->src_off};
        }
        uint64_t need = t->src_off + t->src_size - run.src_off;
        run.len = need > run.len ? need : run.len;
        x->raw_off = off;
    }
    if (rc == 0 && run.part >= 0)
        rc = vplan_add(&v->plan, run, e);
    return rc;
}

static int lay_placed(struct vapr *v, struct err *e)
{
    struct vapr_entry **sorted = malloc((v->n_entry + 1) * sizeof *sorted);
    if (!sorted)
        return err_set(e, -ENOMEM, "no memory to place %zu tensors", v->n_entry);
    size_t n = 0;
    for (size_t i = 0; i < v->n_entry; i++)
        if (!v->entry[i].t.alias && v->entry[i].t.src_size > 0)
            sorted[n++] = &v->entry[i];
    qsort(sorted, n, sizeof *sorted, cmp_place);
    v->plan.size = v->data_off = 0;
    int rc = lay_runs(v, sorted, n, e);
    free(sorted);
    return rc;
}

/* Bytes of its own for x behind all extents: converted ones, or a second view of the same source
 * range where the first stands askew. */
static int lay_aside(struct vapr *v, struct vapr_entry *x, bool *first, struct err *e)
{
    struct vapr_tensor *t = &x->t;
    t->off = round_up(v->plan.size, *first ? VAPR_SHIFT : 64);
    *first = false;
    struct vseg s = {
        t->conv ? VSEG_CONV : VSEG_FILE, t->off, t->size, .part = t->part, .src_off = t->src_off,
        .type = t->conv ? t->type : NULL};
    return vplan_add(&v->plan, s, e);
}

static int lay_tensors(struct vapr *v, struct err *e)
{
    bool first = true;
    int rc = 0;
    for (size_t i = 0; i < v->n_entry && rc == 0; i++) {
        struct vapr_entry *x = &v->entry[i];
        struct vapr_tensor *t = &x->t;
        t->off = x->raw_off;
        bool aside = t->conv;
        if (t->alias) {
            const struct vapr_entry *of = &v->entry[x->target];
            uint64_t src = 0, shown = 0;
            vapr_row_sizes(&of->t, &src, &shown);
            x->raw_off = of->raw_off + x->row * src;
            t->off = of->t.off + x->row * shown;
            aside = v->opt.profile == VAPR_STRICT && (t->off - v->data_off) % 64 != 0;
        }
        if (t->size > 0 && aside)
            rc = lay_aside(v, x, &first, e);
    }
    return rc;
}

static int cmp_name(const void *a, const void *b)
{
    return strcmp(((const struct vapr_entry *)a)->t.name, ((const struct vapr_entry *)b)->t.name);
}

int vapr_plan_layout(struct vapr *v, struct err *e)
{
    static const char *const names[] = {"congruent", "shifted32", "placed"};
    enum layout l = choose_layout(v);
    v->plan.layout = names[l];
    int rc =
        l == LAYOUT_PLACED ? lay_placed(v, e) : lay_extents(v, l == LAYOUT_CONGRUENT ? 0 : 32, e);
    if (rc == 0)
        rc = lay_tensors(v, e);
    if (rc == 0 && v->n_entry > 0)
        qsort(v->entry, v->n_entry, sizeof *v->entry, cmp_name);
    return rc;
}

int vapr_plan_move(struct vapr *v, struct err *e)
{
    uint64_t by = 0;
    if (v->head_len > v->data_off)
        by = round_up(v->head_len - v->data_off, VAPR_SHIFT);
    v->data_off += by;
    for (size_t i = 0; i < v->n_entry; i++) {
        v->entry[i].t.off += by;
        v->entry[i].raw_off += by;
    }
    /* The tensors' segments behind the head's two. */
    struct vseg *old = v->plan.seg;
    size_t n = v->plan.n_seg;
    v->plan.seg = NULL;
    v->plan.n_seg = v->plan.cap_seg = 0;
    int rc = vplan_add(&v->plan, (struct vseg){VSEG_MEM, 0, v->head_len, v->head, .part = -1}, e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        old[i].off += by;
        rc = vplan_add(&v->plan, old[i], e);
    }
    free(old);
    /* Up to data_off at least, also without a tensor; then to a multiple of 64. */
    uint64_t end = round_up(v->plan.size > v->data_off ? v->plan.size : v->data_off, 64);
    if (rc == 0 && end > v->plan.size)
        rc = vplan_add(&v->plan,
                       (struct vseg){VSEG_ZERO, v->plan.size, end - v->plan.size, .part = -1}, e);
    if (rc == 0 && v->opt.footer == VAPR_FOOTER_CRC)
        rc = vplan_add(&v->plan, (struct vseg){VSEG_CRC, v->plan.size, 4, .part = -1}, e);
    return rc;
}
