/* The reverse view: see vgguf.h. This file takes the tensors, lays them out and writes the head;
 * keys are vgguf_keys.c's and vgguf_foreign.c's, reading is vplan.c's. */
#include "format/vgguf.h"

#include "format/bytes.h"
#include "format/vgguf_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAD_KEY  "aprfs.pad"
#define PAD_COST (8 + sizeof PAD_KEY - 1 + 4 + 8) /* of an empty one */

int vgguf_note_add(struct vgguf *v, struct err *e, const char *fmt, ...)
{
    char *s = NULL, **p = realloc(v->note, (v->n_note + 1) * sizeof *p);
    va_list ap;
    if (p)
        v->note = p;
    va_start(ap, fmt);
    int n = p ? vasprintf(&s, fmt, ap) : -1;
    va_end(ap);
    if (n < 0)
        return err_set(e, -ENOMEM, "no memory for a note");
    v->note[v->n_note++] = s;
    return 0;
}

/* --- tensors --- */

/* APR's own Q4: per 32 weights one f16 scale and 16 bytes, the low nibble first. GGML's Q4_0 has the
 * same values in another order, so the bytes cannot stand; as F32 the values can. */
static void own_q4_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *p = src;
    for (size_t b = 0; b < n_block; b++, p += 18, dst += 32) {
        float d = f16_to_f32(load_u16(p));
        for (int i = 0; i < 32; i++) {
            int q = p[2 + i / 2] >> (i % 2 ? 4 : 0) & 15;
            dst[i] = (float)(q - 8) * d;
        }
    }
}

static const struct quant_type own_q4 = {.id = APR_TYPE_OWN_Q4,
                                         .name = "APR Q4",
                                         .block_len = 32,
                                         .block_bytes = 18,
                                         .quantized = true,
                                         .f32 = own_q4_f32};

static int take_type(struct vgguf_tensor *t, const struct apr_tensor *a, struct err *e)
{
    t->type = a->type;
    t->size = a->size;
    if (a->type < APR_TYPE_OWN_Q4)
        return 0;
    if (a->type != APR_TYPE_OWN_Q4)
        return err_set(e, -ENOTSUP, "tensor '%s': %s, which no GGML type can say", a->name,
                       a->type == APR_TYPE_OWN_Q8 ? "APR's own Q8 (one scale for the whole tensor)"
                                                  : "unsigned bytes");
    uint64_t n_block = a->size / 18;
    uint64_t n = 1;
    for (uint32_t i = 0; i < a->n_dim; i++)
        n *= a->dim[i]; /* apr_open checked that it fits */
    if (n != n_block * 32 || n > VPLAN_MAX_SIZE / 4)
        return err_set(e, -ENOTSUP,
                       "tensor '%s': APR's own Q4 with %" PRIu64
                       " weights, no whole number of blocks of 32: cannot be widened",
                       a->name, n);
    t->conv = &own_q4;
    t->type = QUANT_F32;
    t->size = n * sizeof(float);
    return 0;
}

static int take_tensor(struct vgguf *v, const struct apr_tensor *shown, struct err *e)
{
    struct vgguf_tensor *t = &v->tensor[v->n_tensor++];
    struct apr_tensor raw, *a = &raw;
    if (!apr_raw_twin(v->a, shown, &raw))
        raw = *shown;
    if (a->n_dim > GGUF_MAX_DIMS)
        return err_set(e, -ENOTSUP, "tensor '%s': %u dimensions, a GGUF takes 4", a->name,
                       a->n_dim);
    t->name = a->name;
    t->n_dim = a->n_dim;
    for (uint32_t i = 0; i < a->n_dim; i++)
        t->ne[i] = a->dim[a->n_dim - 1 - i];
    t->src_off = a->off;
    t->src_size = a->size;
    if (a->size == 0)
        return err_set(e, -ENOTSUP, "tensor '%s' is empty, which a GGUF's may not be", a->name);
    return take_type(t, a, e);
}

static int cmp_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names that "aprfs.alias" lists, sorted; *n of them, lent from the metadata. */
static int alias_names(const struct apr *a, const char ***out, size_t *n, struct err *e)
{
    const cJSON *list = json_get(apr_meta(a), "aprfs.alias"), *v;
    *n = 0;
    if (list && !cJSON_IsArray(list))
        return err_set(e, -EUCLEAN, "metadata 'aprfs.alias': no array");
    size_t cap = 1;
    cJSON_ArrayForEach(v, list) cap++;
    *out = calloc(cap, sizeof **out);
    if (!*out)
        return err_set(e, -ENOMEM, "no memory for %zu names", cap);
    cJSON_ArrayForEach(v, list)
    {
        (*out)[*n] = json_text(json_get(v, "name"));
        if (!(*out)[*n])
            return err_set(e, -EUCLEAN, "metadata 'aprfs.alias': entry %zu has no name", *n);
        ++*n;
    }
    qsort(*out, *n, sizeof **out, cmp_text);
    return 0;
}

static int cmp_source(const void *a, const void *b)
{
    const struct vgguf_tensor *x = a, *y = b;
    if (x->src_off != y->src_off)
        return x->src_off < y->src_off ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int take_tensors(struct vgguf *v, struct err *e)
{
    const char **alias = NULL;
    size_t n_alias = 0, n = apr_n_tensor(v->a);
    bool ours = json_get(apr_meta(v->a), "aprfs.profile") != NULL;
    int rc = 0;
    v->tensor = calloc(n + 1, sizeof *v->tensor);
    if (!v->tensor)
        return err_set(e, -ENOMEM, "no memory for %zu tensors", n);
    if (ours)
        rc = alias_names(v->a, &alias, &n_alias, e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        const struct apr_tensor *t = apr_tensor(v->a, i);
        if (n_alias && bsearch(&t->name, alias, n_alias, sizeof *alias, cmp_text))
            continue;
        rc = take_tensor(v, t, e);
    }
    free(alias);
    if (rc == 0 && v->n_tensor == 0)
        rc = err_set(e, -ENOENT, "no tensors: nothing that a GGUF could show");
    if (rc == 0)
        qsort(v->tensor, v->n_tensor, sizeof *v->tensor, cmp_source);
    return rc;
}

/* --- layout and head --- */

static uint64_t round_up(uint64_t x, uint64_t to)
{
    return (x + to - 1) & ~(to - 1); /* callers stay below 2^54 */
}

static int place_tensors(struct vgguf *v, struct err *e)
{
    uint64_t at = 0;
    for (size_t i = 0; i < v->n_tensor; i++) {
        v->tensor[i].off = at;
        if (v->tensor[i].size > VPLAN_MAX_SIZE - at)
            return err_set(e, -ERANGE, "the file would be larger than 2^53 bytes");
        at = round_up(at + v->tensor[i].size, v->alignment);
    }
    return 0;
}

static void put_info(struct vgguf_out *o, const struct vgguf_tensor *t)
{
    vgguf_put_str(o, t->name, strlen(t->name));
    vgguf_put_u32(o, t->n_dim);
    for (uint32_t i = 0; i < t->n_dim; i++)
        vgguf_put_u64(o, t->ne[i]);
    vgguf_put_u32(o, t->type);
    vgguf_put_u64(o, t->off);
}

/* The head with the keys as they are by now. */
static int build_head(struct vgguf *v, struct err *e)
{
    struct vgguf_out o = {0};
    vgguf_put(&o, "GGUF", 4);
    vgguf_put_u32(&o, v->version);
    vgguf_put_u64(&o, v->n_tensor);
    vgguf_put_u64(&o, v->n_key);
    vgguf_put(&o, v->keys.p, v->keys.len);
    for (size_t i = 0; i < v->n_tensor; i++)
        put_info(&o, &v->tensor[i]);
    int rc = v->keys.rc < 0 ? v->keys.rc : o.rc;
    free(v->head);
    v->head = o.p;
    v->head_len = o.len;
    return rc < 0 ? err_set(e, rc, "a head of %zu bytes: %s", o.len, strerror(-rc)) : 0;
}

static bool is_original(const struct vgguf *v)
{
    uint8_t sha[32];
    return v->has_sha && EVP_Digest(v->head, v->head_len, sha, NULL, EVP_sha256(), NULL) == 1 &&
           memcmp(sha, v->sha, sizeof sha) == 0;
}

/* The head, and where it is not the original's, padded so that data and source stand alike within 64
 * KiB, if the alignment allows. */
static int make_head(struct vgguf *v, struct err *e)
{
    int rc = build_head(v, e);
    v->same_head = rc == 0 && is_original(v);
    uint64_t want = v->tensor[0].src_off % VPLAN_SHIFT;
    uint64_t start = round_up(v->head_len, v->alignment);
    if (rc < 0 || v->same_head || start % VPLAN_SHIFT == want || want % v->alignment != 0)
        return rc;
    uint64_t least = v->head_len + PAD_COST;
    uint64_t to = least + (want - least) % VPLAN_SHIFT; /* unsigned: wraps as it should */
    size_t n = (size_t)(to - least);
    char *blank = malloc(n + 1);
    if (!blank)
        return err_set(e, -ENOMEM, "no memory for %zu bytes of padding", n);
    memset(blank, ' ', n);
    vgguf_key_str(v, PAD_KEY, blank, n);
    free(blank);
    return build_head(v, e);
}

static int add_data(struct vgguf *v, uint64_t start, struct err *e)
{
    struct vseg run = {.kind = VSEG_FILE};
    bool congruent = true;
    int rc = 0;
    for (size_t i = 0; i < v->n_tensor && rc == 0; i++) {
        const struct vgguf_tensor *t = &v->tensor[i];
        uint64_t off = start + t->off;
        if (t->conv) {
            rc = vplan_add(&v->plan, run, e);
            run.len = 0;
            if (rc == 0)
                rc = vplan_add(
                    &v->plan,
                    (struct vseg){VSEG_CONV, off, t->size, .src_off = t->src_off, .type = t->conv},
                    e);
            continue;
        }
        if (run.len == 0 || off - run.off != t->src_off - run.src_off) {
            rc = vplan_add(&v->plan, run, e);
            run = (struct vseg){VSEG_FILE, off, 0, .src_off = t->src_off};
            congruent = congruent && (off - t->src_off) % VPLAN_SHIFT == 0;
        }
        run.len = t->src_off + t->size - run.src_off;
    }
    if (rc == 0)
        rc = vplan_add(&v->plan, run, e);
    v->plan.layout = congruent ? "congruent" : "shifted";
    return rc;
}

static int make_plan(struct vgguf *v, struct err *e)
{
    int rc = vplan_init(&v->plan, 1, e);
    if (rc < 0)
        return rc;
    v->plan.part[0] = apr_source(v->a);
    rc = vplan_add(&v->plan, (struct vseg){VSEG_MEM, 0, v->head_len, v->head, .part = -1}, e);
    if (rc == 0)
        rc = add_data(v, round_up(v->head_len, v->alignment), e);
    /* Writers pad the last tensor too; one that did not said so by its size. */
    uint64_t end = round_up(v->plan.size, v->alignment);
    if (rc == 0 && end > v->plan.size && !(v->same_head && v->size == v->plan.size))
        rc = vplan_add(&v->plan,
                       (struct vseg){VSEG_ZERO, v->plan.size, end - v->plan.size, .part = -1}, e);
    return rc;
}

/* A GGUF of one part that does not come back byte for byte: why. */
static int note_difference(struct vgguf *v, struct err *e)
{
    if (!v->has_sha)
        return 0;
    if (!v->same_head)
        return vgguf_note_add(
            v, e,
            "the order of the tensors, or their places: in the GGUF that the .apr "
            "was made of they stood otherwise");
    if (v->size > v->plan.size)
        return vgguf_note_add(v, e,
                              "the file's end: the GGUF that the .apr was made of had %" PRIu64
                              " bytes more behind its last tensor",
                              v->size - v->plan.size);
    return 0;
}

/* What was built is what a reader of GGUFs takes, by our own reader's rules. */
static int check(struct vgguf *v, struct err *e)
{
    int rc = vplan_source(&v->src, &v->plan, e);
    if (rc < 0)
        return rc;
    struct err why = {0};
    rc = gguf_open(&v->g, &v->src, 1, &why);
    /* Nothing of it is still arriving, and no limit but the .apr's own was in the way. */
    if (rc == -EAGAIN || rc == -ERANGE || rc == -EUCLEAN)
        return err_set(e, -EUCLEAN, "the GGUF that its metadata describes: %s", why.msg);
    if (rc < 0)
        return err_set(e, rc, "%s", why.msg);
    /* Where the data begins follows from it, and that is where the tensors were put. */
    if (gguf_alignment(v->g) != v->alignment)
        return err_set(e, -EUCLEAN,
                       "metadata 'aprfs.gguf': general.alignment %" PRIu32
                       " stands in bytes, its tensors at %" PRIu32,
                       gguf_alignment(v->g), v->alignment);
    return 0;
}

/* Of a file that was no GGUF: do its keys and its tensors fit each other? llama.cpp would ask. */
static int check_sense(const struct vgguf *v, struct err *e)
{
    struct arch_config c = {0};
    int rc = arch_resolve(v->g, ARCH_VALUES_REFERENCE, &c, NULL, e);
    if (rc == 0)
        arch_config_release(&c);
    return rc;
}

/* --- the handle --- */

int vgguf_new(struct vgguf **out, const struct apr *a, struct err *e)
{
    struct vgguf *v = calloc(1, sizeof *v);
    const cJSON *own = json_get(apr_meta(a), "aprfs.gguf");
    bool foreign = false;
    int rc = v ? 0 : err_set(e, -ENOMEM, "no memory for a plan");
    if (rc < 0)
        return rc;
    v->a = a;
    v->version = 3;
    v->alignment = 32;
    rc = take_tensors(v, e);
    if (rc == 0 && own)
        rc = vgguf_keys_own(v, own, e);
    else if (rc == 0 && json_get(apr_meta(a), "aprfs.profile"))
        rc = err_set(e, -ENOTSUP,
                     "made by an earlier aprfs, which kept no types of the GGUF's keys: make it "
                     "again from the GGUF");
    else if (rc == 0) {
        foreign = true;
        rc = vgguf_keys_foreign(v, e);
    }
    if (rc == 0)
        rc = place_tensors(v, e);
    if (rc == 0)
        rc = make_head(v, e);
    if (rc == 0)
        rc = make_plan(v, e);
    if (rc == 0)
        rc = note_difference(v, e);
    if (rc == 0)
        rc = check(v, e);
    if (rc == 0 && foreign)
        rc = check_sense(v, e);
    free(v->keys.p); /* the head has them */
    v->keys.p = NULL;
    if (rc < 0) {
        if (!strstr(e ? e->msg : "", source_name(apr_source(a))))
            err_wrap(e, "%s", source_name(apr_source(a)));
        vgguf_free(v);
        return rc;
    }
    *out = v;
    return 0;
}

void vgguf_free(struct vgguf *v)
{
    if (!v)
        return;
    gguf_close(v->g);
    source_close(v->src);
    vplan_release(&v->plan);
    for (size_t i = 0; i < v->n_tensor; i++)
        free(v->tensor[i].own);
    free(v->tensor);
    free(v->keys.p);
    free(v->head);
    for (size_t i = 0; i < v->n_note; i++)
        free(v->note[i]);
    free(v->note);
    free(v);
}

const struct vplan *vgguf_plan(const struct vgguf *v)
{
    return &v->plan;
}

const uint8_t *vgguf_head(const struct vgguf *v, size_t *len)
{
    *len = v->head_len;
    return v->head;
}

const struct gguf *vgguf_gguf(const struct vgguf *v)
{
    return v->g;
}

bool vgguf_same_head(const struct vgguf *v)
{
    return v->same_head;
}

size_t vgguf_n_note(const struct vgguf *v)
{
    return v->n_note;
}

const char *vgguf_note(const struct vgguf *v, size_t i)
{
    return v->note[i];
}
