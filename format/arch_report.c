/* Provenance, both value sets side by side, and notes on keys that change nothing. */
#include "format/arch_internal.h"
#include "format/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTES_MAX 256 /* a hostile file must not make us list a million keys */

void arch_note(struct arch_ctx *x, const char *fmt, ...)
{
    struct arch_report *r = x->report;
    if (!r || x->rc < 0 || r->n_note >= NOTES_MAX)
        return;
    if (r->n_note == r->cap_note) {
        size_t cap = r->cap_note ? 2 * r->cap_note : 8;
        char **p = realloc(r->note, cap * sizeof *p);
        if (!p) {
            x->rc = -ENOMEM;
            return;
        }
        r->note = p;
        r->cap_note = cap;
    }
    va_list ap;
    va_start(ap, fmt);
    char *s = NULL;
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0) {
        x->rc = -ENOMEM;
        return;
    }
    for (char *p = s; *p; p++) /* names come from files */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    r->note[r->n_note++] = s;
}

void arch_prov_set(struct arch_ctx *x, enum arch_fid f, enum arch_origin o, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(x->prov[f].source, sizeof x->prov[f].source, fmt, ap);
    va_end(ap);
    x->prov[f].origin = o;
}

void arch_prov_key(struct arch_ctx *x, enum arch_fid f, const char *key)
{
    arch_prov_set(x, f, ARCH_FROM_KEY, "%s.%s", x->c.arch, key);
}

/* Keys under the architecture's name that its code never looks at, and needed keys that are not
 * there. */
void arch_notes_keys(struct arch_ctx *x)
{
    size_t n = strlen(x->c.arch);
    const char *eps = x->c.norm == ARCH_NORM_LAYER ? "attention.layer_norm_epsilon"
                                                   : "attention.layer_norm_rms_epsilon";
    bool both = !x->row || x->row->eps != ARCH_EPS_BY_NORM;
    for (size_t i = 0; i < gguf_n_key(x->g); i++) {
        struct gguf_str s = gguf_key(x->g, i)->name;
        if (s.len <= n + 1 || memcmp(s.p, x->c.arch, n) != 0 || s.p[n] != '.')
            continue;
        const char *k = s.p + n + 1;
        size_t len = s.len - n - 1;
        if (arch_general_key(k, len) || arch_row_reads(x->row, k, len, NULL))
            continue;
        if ((len == strlen(eps) && memcmp(k, eps, len) == 0) ||
            (both && len > 8 && memcmp(k + len - 8, "_epsilon", 8) == 0))
            continue;
        arch_note(x, "key %.*s is not read by this architecture", (int)(s.len < 96 ? s.len : 96),
                  s.p);
    }
    const char *p = x->row && x->facts.any ? x->row->keys : NULL;
    while (p && *p) {
        const char *end = strchrnul(p, ' ');
        char key[96];
        bool req = *p == '!';
        p += req;
        bool bare = *p == '/';
        p += bare;
        snprintf(key, sizeof key, "%.*s", (int)(end - p), p);
        if (req && !(bare ? gguf_find(x->g, key) : arch_key(x, key)))
            arch_note(x, "key %s%s%s is missing: llama.cpp refuses this file",
                      bare ? "" : x->c.arch, bare ? "" : ".", key);
        p = *end ? end + 1 : end;
    }
}

/* What the Rust readers refuse at load although it is well-formed (arch-resolver.md §4, gates 2 and
 * 3): a note, since other readers take it. */
void arch_notes_gate(struct arch_ctx *x, const struct arch_config *c)
{
    uint64_t head = 0, ff = 0;
    for (uint32_t i = 0; i < c->n_layer; i++) {
        head = c->n_head[i] > head ? c->n_head[i] : head;
        ff = c->n_ff[i] > ff ? c->n_ff[i] : ff;
    }
    const struct {
        const char *name;
        uint64_t v, max;
    } t[] = {
        {"hidden_size", c->n_embd, 65536}, {"num_layers", c->n_layer, 256},
        {"num_heads", head, 256},          {"vocab_size", c->n_vocab, 1000000},
        {"intermediate_size", ff, 262144}, {"max_position_embeddings", c->n_ctx_train, 2097152}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        if (t[i].v > t[i].max)
            arch_note(x, "the Rust readers refuse %s %" PRIu64 ", over %" PRIu64, t[i].name, t[i].v,
                      t[i].max);
    if (c->rope_theta < 1 || c->rope_theta > 1e8F)
        arch_note(x, "the Rust readers refuse rope_theta %.9g, outside 1 to 1e8",
                  (double)c->rope_theta);
    if (head && c->n_embd % head)
        arch_note(
            x, "the Rust readers refuse hidden_size %" PRIu32 ", no multiple of %" PRIu64 " heads",
            c->n_embd, head);
    if (x->facts.any && (!head || !ff || !c->n_vocab))
        arch_note(x, "the Rust readers refuse %s 0",
                  !head ? "num_heads"
                  : !ff ? "intermediate_size"
                        : "vocab_size");
}

static struct arch_field *field_new(struct arch_report *r)
{
    if (r->n_field == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 64;
        struct arch_field *p = realloc(r->field, cap * sizeof *p);
        if (!p)
            return NULL;
        r->field = p;
        r->cap = cap;
    }
    struct arch_field *f = &r->field[r->n_field++];
    *f = (struct arch_field){0};
    return f;
}

/* Takes the four texts; -ENOMEM if one of them is NULL. */
static int field_add(struct arch_report *r, const char *name, char *ref, char *compat,
                     char *stamped, char *source)
{
    struct arch_field *f = field_new(r);
    if (!f || !ref || !compat || !stamped || !source) {
        if (f)
            r->n_field--;
        free(ref);
        free(compat);
        free(stamped);
        free(source);
        return -ENOMEM;
    }
    f->name = name;
    f->reference = ref;
    f->compat = compat;
    f->stamped = stamped;
    f->source = source;
    f->differs = *compat && strcmp(ref, compat) != 0;
    return 0;
}

static char *rope_text(enum arch_rope r)
{
    return strdup(arch_rope_type(r) ? "2" : "0");
}

int arch_report_build(struct arch_ctx *x, const struct arch_config *compat, const bool *has,
                      const struct arch_config *stamped)
{
    struct arch_report *r = x->report;
    int rc = x->rc;
    for (int f = 0; rc >= 0 && f < ARCH_N_FIELD; f++) {
        const struct arch_field_desc *d = &arch_fields[f];
        const struct arch_prov *p = &x->prov[f];
        bool unknown = p->origin == ARCH_UNKNOWN && d->kind != ARCH_KIND_I32;
        char *ref = unknown ? strdup("null") : arch_field_text(&x->c, f);
        char *com = has[f] ? arch_field_text(compat, f) : strdup("");
        char *st = unknown && !has[f] ? strdup("null") : arch_field_text(stamped, f);
        if (d->kind == ARCH_KIND_ROPE) { /* twice: what the APR can say, and what it is */
            rc = field_add(r, d->key, rope_text(x->c.rope), rope_text(compat->rope),
                           rope_text(stamped->rope), strdup(p->source));
            if (rc < 0) {
                free(ref);
                free(com);
                free(st);
                return rc;
            }
            r->field[r->n_field - 1].origin = p->origin;
            r->field[r->n_field - 1].mapped = true;
            free(com);
            com = strdup("");
        }
        rc = field_add(r, d->key && d->kind != ARCH_KIND_ROPE ? d->key : d->name, ref, com, st,
                       strdup(p->source));
        if (rc < 0)
            return rc;
        struct arch_field *field = &r->field[r->n_field - 1];
        field->origin = p->origin;
        field->mapped = d->key && d->kind != ARCH_KIND_ROPE;
    }
    return rc;
}

void arch_report_release(struct arch_report *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n_field; i++) {
        free(r->field[i].reference);
        free(r->field[i].compat);
        free(r->field[i].stamped);
        free(r->field[i].source);
    }
    for (size_t i = 0; i < r->n_note; i++)
        free(r->note[i]);
    free(r->field);
    free(r->note);
    *r = (struct arch_report){0};
}
