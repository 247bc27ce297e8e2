/* aprtool verify: is a file what it claims to be, as far as its bytes can tell? */
#include "format/aprtool.h"
#include "format/readers.h"

#include "format/bytes.h"
#include "format/crc32.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP    ((size_t)1 << 20)
#define MAX_SAY 64 /* problems or warnings of one file that are printed; the rest is counted */

struct say {
    char *text[MAX_SAY];
    size_t n;
};

struct verdict {
    struct say problem, warning;
    bool has_footer, has_crc;
    uint32_t *crc; /* per part, owned */
    int n_crc;
    uint64_t n_tensor;
    struct reader_verdict reader[N_READER];
    bool judged;
};

struct work {
    const struct tool_options *opt;
    struct verdict *v;
    struct progress bar;
    uint64_t done, total;
};

static void say(struct say *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct say *s, const char *fmt, ...)
{
    if (s->n < MAX_SAY) {
        va_list ap;
        va_start(ap, fmt);
        if (vasprintf(&s->text[s->n], fmt, ap) < 0)
            s->text[s->n] = NULL;
        va_end(ap);
    }
    s->n++;
}

static void verdict_release(struct verdict *v)
{
    for (size_t i = 0; i < MAX_SAY; i++) {
        free(v->problem.text[i]);
        free(v->warning.text[i]);
    }
    free(v->crc);
    readers_release(v->reader);
}

static int step(struct work *w, uint64_t n, struct err *e)
{
    w->done += n;
    progress_update(&w->bar, w->done, w->total);
    return tool_stop ? err_set(e, -EINTR, "interrupted") : 0;
}

/* Names that any reader can hold: UTF-8, no control bytes, not empty, at most 256 bytes; none twice
 * (tensors come by name). */
static void check_names(struct tool_file *f, struct verdict *v)
{
    const size_t *order = tool_file_sort(f);
    struct gguf_str last = {NULL, 0};
    for (size_t i = 0; order && i < tool_n_tensor(f); i++) {
        struct gguf_str s = tool_tensor(f, order[i]).name;
        char *shown = tool_escape(s);
        bool control = false;
        for (size_t k = 0; k < s.len; k++)
            control |= (unsigned char)s.p[k] < 0x20 || s.p[k] == 0x7f;
        if (s.len == 0 || s.len > APR_MAX_NAME)
            say(&v->problem, "tensor '%.80s': name of %zu bytes, expected 1 to %d", shown, s.len,
                APR_MAX_NAME);
        if (control || !json_utf8_valid(s.p, s.len))
            say(&v->problem, "tensor '%.80s': name is not printable UTF-8", shown);
        if (i > 0 && tool_name_cmp(last, s) == 0)
            say(&v->problem, "tensor '%.80s': twice", shown);
        free(shown);
        last = s;
    }
    if (!order)
        say(&v->problem, "no memory to sort names");
}

struct range {
    int part;
    uint64_t off, end;
    size_t i;
};

static int range_cmp(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    if (x->off != y->off)
        return x->off < y->off ? -1 : 1;
    return x->end > y->end ? -1 : x->end < y->end; /* the one that holds the other comes first */
}

/* Two entries may name the same bytes, or one a part of the other's (tied heads, split QKV); bytes
 * half in one and half in another tensor are nobody's intention. */
static void check_overlap(const struct tool_file *f, struct verdict *v)
{
    size_t n = tool_n_tensor(f), top = 0;
    struct range *r = calloc(n + 1, sizeof *r);
    if (!r) {
        say(&v->problem, "no memory to sort ranges");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct tool_tensor t = tool_tensor(f, i);
        r[i] = (struct range){t.part, t.off, t.off + t.size, i};
    }
    qsort(r, n, sizeof *r, range_cmp);
    for (size_t i = 1; i < n; i++) {
        if (r[i].part == r[top].part && r[i].off < r[top].end && r[i].end > r[top].end) {
            char *a = tool_escape(tool_tensor(f, r[top].i).name);
            char *b = tool_escape(tool_tensor(f, r[i].i).name);
            say(&v->problem, "tensors '%.80s' and '%.80s' overlap in part", a, b);
            free(a);
            free(b);
        }
        if (r[i].part != r[top].part || r[i].end > r[top].end)
            top = i;
    }
    free(r);
}

/* A footer stands right after the padding of the last tensor: four bytes past a multiple of 64. */
static bool footer_find(const struct tool_file *f)
{
    uint64_t end = apr_header(f->apr)->data_off, size = source_size(f->src);
    for (size_t i = 0; i < tool_n_tensor(f); i++) {
        struct tool_tensor t = tool_tensor(f, i);
        end = t.off + t.size > end ? t.off + t.size : end;
    }
    return size % APR_ALIGN == 4 && size - 4 >= end;
}

/* CRC-32 of a source's first n bytes. Of a file with a footer these are the bytes before it: over
 * bytes that end in their own CRC-32 it comes to 2144df1c whatever they are. */
static int crc_of(struct work *w, struct source *s, uint64_t n, uint32_t *crc, struct err *e)
{
    int rc = 0;
    *crc = 0;
    for (uint64_t at = 0; rc == 0 && at < n;) {
        uint64_t take = n - at < 8 * STEP ? n - at : 8 * STEP;
        rc = crc32_source(crc, s, at, take, e);
        if (rc == 0)
            rc = step(w, take, e);
        at += take;
    }
    return rc;
}

static int check_footer_and_crc(struct work *w, const struct tool_file *f, struct err *e)
{
    struct verdict *v = w->v;
    v->crc = calloc(f->gguf ? (size_t)gguf_n_part(f->gguf) : 1, sizeof *v->crc);
    if (!v->crc)
        return err_set(e, -ENOMEM, "no memory for checksums");
    if (f->gguf) {
        for (int k = 0; w->opt->deep && k < gguf_n_part(f->gguf); k++) {
            struct source *s = gguf_part(f->gguf, k);
            int rc = crc_of(w, s, source_size(s), &v->crc[k], e);
            if (rc < 0)
                return rc;
            v->n_crc = k + 1;
        }
        return 0;
    }
    v->has_footer = footer_find(f);
    if (!v->has_footer && !w->opt->deep)
        return 0;
    int rc = crc_of(w, f->src, source_size(f->src) - (v->has_footer ? 4 : 0), &v->crc[0], e);
    if (rc < 0)
        return rc;
    if (v->has_footer) {
        uint8_t foot[4];
        rc = source_read(f->src, foot, source_size(f->src) - 4, 4, e);
        if (rc == 0 && load_u32(foot) != v->crc[0])
            say(&v->problem, "footer CRC is %08x, the bytes before it have %08x", load_u32(foot),
                v->crc[0]);
    }
    v->n_crc = 1;
    return rc;
}

static void judge_weights(struct verdict *v, const struct tool_tensor *t, uint64_t n_nan,
                          uint64_t n_inf, bool zero)
{
    char *name = tool_escape(t->name);
    if (n_nan)
        say(&v->problem, "tensor '%.80s': %" PRIu64 " NaN", name, n_nan);
    if (n_inf)
        say(&v->problem, "tensor '%.80s': %" PRIu64 " infinite", name, n_inf);
    if (zero && t->size > 0)
        say(&v->warning, "tensor '%.80s': all zero", name);
    free(name);
}

/* Types without a dequantiser here: whether all bytes are zero is all that can be said. */
static int scan_raw(struct work *w, const struct tool_tensor *t, uint8_t *buf, struct err *e)
{
    bool zero = true;
    for (uint64_t at = 0; at < t->size;) {
        size_t n = t->size - at < STEP ? (size_t)(t->size - at) : STEP;
        int rc = source_read(t->src, buf, t->off + at, n, e);
        if (rc == 0)
            rc = step(w, n, e);
        if (rc < 0)
            return rc;
        for (size_t i = 0; i < n && zero; i++)
            zero = buf[i] == 0;
        at += n;
    }
    judge_weights(w->v, t, 0, 0, zero);
    return 0;
}

static int scan_tensor(struct work *w, const struct tool_tensor *t, float *buf, struct err *e)
{
    struct tool_reader r;
    uint64_t n_nan = 0, n_inf = 0;
    bool zero = true;
    size_t n = 1;
    int rc = tool_reader_init(&r, t, e);
    if (rc == 0 && !r.f32) {
        tool_reader_release(&r);
        return scan_raw(w, t, (uint8_t *)buf, e);
    }
    while (rc == 0 && n > 0) {
        rc = tool_reader_f32(&r, buf, STEP / 4, &n, e);
        for (size_t i = 0; rc == 0 && i < n; i++) {
            n_nan += isnan(buf[i]) != 0;
            n_inf += isinf(buf[i]) != 0;
            zero &= buf[i] == 0;
        }
        if (rc == 0)
            rc = step(w, n * r.block_bytes / r.block_len, e);
    }
    tool_reader_release(&r);
    if (rc == 0)
        judge_weights(w->v, t, n_nan, n_inf, zero);
    return rc;
}

static int scan_weights(struct work *w, const struct tool_file *f, struct err *e)
{
    float *buf = malloc(STEP);
    int rc = buf ? 0 : err_set(e, -ENOMEM, "no memory for a buffer");
    for (size_t i = 0; rc == 0 && i < tool_n_tensor(f); i++) {
        struct tool_tensor t = tool_tensor(f, i);
        rc = scan_tensor(w, &t, buf, e);
        if (rc < 0)
            err_wrap(e, "tensor '%.*s'", (int)t.name.len, t.name.p);
    }
    free(buf);
    return rc;
}

static uint64_t work_total(const struct tool_options *opt, const struct tool_file *f)
{
    uint64_t n = 0;
    for (int k = 0; f->gguf && k < gguf_n_part(f->gguf); k++)
        n += opt->deep ? source_size(gguf_part(f->gguf, k)) : 0;
    if (f->apr)
        n = source_size(f->src);
    for (size_t i = 0; opt->deep && i < tool_n_tensor(f); i++)
        n += tool_tensor(f, i).size;
    return n;
}

static void verify_file(const struct tool_options *opt, const char *path, struct verdict *v)
{
    struct err e = {0};
    struct tool_file f;
    struct work w = {.opt = opt, .v = v};
    int rc = tool_file_open(&f, path, NULL, &e);
    if (opt->readers && !f.gguf) { /* after a failure f is empty: the file is opened anew */
        struct source *src = NULL;
        struct err why = {0};
        int told = rc == 0 ? 0 : source_open(&src, path, &why);
        if (told == 0)
            told = readers_judge(v->reader, rc == 0 ? f.src : src, f.apr, e.msg, &why);
        v->judged = told == 0;
        if (told < 0 && (rc == 0 || src))
            say(&v->problem, "--readers: %s", why.msg);
        source_close(src);
    }
    if (rc < 0) {
        size_t n = strlen(path); /* the line begins with the path already */
        bool twice = strncmp(e.msg, path, n) == 0 && strncmp(e.msg + n, ": ", 2) == 0;
        say(&v->problem, "%s", twice ? e.msg + n + 2 : e.msg);
        return;
    }
    if (opt->readers && f.gguf)
        say(&v->warning, "--readers is about .apr files; convert first");
    v->n_tensor = tool_n_tensor(&f);
    if (f.apr && apr_header(f.apr)->crc == 0 && apr_header(f.apr)->crc_computed != 0)
        say(&v->warning, "header CRC is 0: aprender's readers refuse the file");
    check_names(&f, v);
    check_overlap(&f, v);
    w.total = work_total(opt, &f);
    progress_init(&w.bar, "verify");
    rc = check_footer_and_crc(&w, &f, &e);
    if (rc == 0 && opt->deep)
        rc = scan_weights(&w, &f, &e);
    progress_end(&w.bar);
    if (rc < 0)
        say(&v->problem, "%s", e.msg);
    tool_file_close(&f);
}

/* What one reader makes of the file, most serious first. */
static const char *accepts(const struct reader_verdict *r)
{
    return reader_find(r, READER_REFUSES)    ? "no"
           : reader_find(r, READER_WONT_RUN) ? "not run"
                                             : "yes";
}

static int print_readers(const struct verdict *v, struct err *e)
{
    static const char *const head[] = {"READER", "ACCEPTS", "WRONG", "RULE", "WHY"};
    struct table t;
    table_init(&t, head, 5, 1 << 2);
    for (int i = 0; i < N_READER; i++) {
        const struct reader_verdict *r = &v->reader[i];
        for (size_t k = 0; k < r->n_found || k == 0; k++) {
            table_add(&t, "%s", k ? "" : r->name);
            table_add(&t, "%s", k ? "" : accepts(r));
            if (k)
                table_add(&t, "%s", "");
            else
                table_add(&t, "%zu", r->n_wrong);
            table_add(&t, "%s", r->n_found ? r->found[k].rule->id : "");
            table_add(&t, "%s", r->n_found ? r->found[k].why : "");
        }
    }
    return table_print(&t, e);
}

/* file is shown escaped: a name may hold what a terminal obeys. */
static int print_text(const struct tool_options *opt, const char *file, const struct verdict *v,
                      struct err *e)
{
    char *path = tool_escape((struct gguf_str){file, strlen(file)});
    if (!path)
        return err_set(e, -ENOMEM, "no memory for a path");
    for (size_t i = 0; i < v->problem.n && i < MAX_SAY; i++)
        printf("%s: %s\n", path, v->problem.text[i] ? v->problem.text[i] : "(no memory)");
    if (v->problem.n > MAX_SAY)
        printf("%s: and %zu more\n", path, v->problem.n - MAX_SAY);
    for (size_t i = 0; i < v->warning.n && i < MAX_SAY; i++)
        fprintf(stderr, "%s: warning: %s\n", path, v->warning.text[i] ? v->warning.text[i] : "");
    if (v->warning.n > MAX_SAY)
        fprintf(stderr, "%s: warning: and %zu more\n", path, v->warning.n - MAX_SAY);
    if (!v->problem.n) {
        printf("%s: ok", path);
        for (int k = 0; opt->deep && k < v->n_crc; k++)
            printf("%s%08x", k ? " " : ", CRC-32 ", v->crc[k]);
        printf("\n");
    }
    free(path);
    return v->judged ? print_readers(v, e) : 0;
}

static void json_says(struct json_out *o, const char *key, const struct say *s)
{
    json_key(o, key);
    json_open(o, '[');
    for (size_t i = 0; i < s->n && i < MAX_SAY; i++)
        json_put_cstr(o, s->text[i] ? s->text[i] : "(no memory)");
    json_close(o, ']');
}

static void print_reader_json(struct json_out *o, const struct reader_verdict *r)
{
    json_open(o, '{');
    json_add_cstr(o, "reader", r->name);
    json_add_bool(o, "accepts", !reader_find(r, READER_REFUSES));
    json_add_bool(o, "runs", !reader_find(r, READER_REFUSES) && !reader_find(r, READER_WONT_RUN));
    json_key(o, "wrong");
    json_open(o, '[');
    for (size_t k = 0; k < r->n_wrong; k++)
        json_put_cstr(o, r->wrong[k]);
    json_close(o, ']');
    json_key(o, "findings");
    json_open(o, '[');
    for (size_t k = 0; k < r->n_found; k++) {
        const struct reader_finding *f = &r->found[k];
        json_open(o, '{');
        json_add_cstr(o, "rule", f->rule->id);
        json_add_cstr(o, "effect", reader_effect_name(f->rule->effect));
        json_add_cstr(o, "why", f->why);
        json_add_cstr(o, "source", f->rule->source);
        json_close(o, '}');
    }
    json_close(o, ']');
    json_close(o, '}');
}

static void print_json(struct json_out *o, const char *path, const struct verdict *v)
{
    json_open(o, '{');
    json_add_cstr(o, "path", path);
    json_add_bool(o, "ok", v->problem.n == 0);
    json_add_u64(o, "n_tensor", v->n_tensor);
    json_says(o, "problems", &v->problem);
    json_says(o, "warnings", &v->warning);
    json_add_bool(o, "footer", v->has_footer);
    if (v->n_crc) {
        json_key(o, "crc32");
        json_open(o, '[');
        for (int k = 0; k < v->n_crc; k++)
            json_put_u64(o, v->crc[k]);
        json_close(o, ']');
    }
    if (v->judged) {
        json_key(o, "readers");
        json_open(o, '[');
        for (int i = 0; i < N_READER; i++)
            print_reader_json(o, &v->reader[i]);
        json_close(o, ']');
    }
    json_close(o, '}');
}

int tool_verify(const struct tool_options *opt, int n_arg, char **arg)
{
    struct err e = {0};
    struct json_out o;
    int rc = 0, bad = 0;
    tool_json_begin(&o);
    json_key(&o, "files");
    json_open(&o, '[');
    for (int i = 0; rc == 0 && i < n_arg && !tool_stop; i++) {
        struct verdict v = {0};
        verify_file(opt, arg[i], &v);
        bad += v.problem.n > 0;
        if (opt->json)
            print_json(&o, arg[i], &v);
        else
            rc = print_text(opt, arg[i], &v, &e);
        verdict_release(&v);
    }
    json_close(&o, ']');
    if (opt->json)
        rc = rc < 0 ? rc : tool_json_end(&o, &e);
    json_out_release(&o);
    if (rc < 0)
        return tool_fail(&e);
    return bad || tool_stop ? TOOL_FAILED : TOOL_OK;
}
