/* aprtool cat-tensor: one tensor's bytes, its weights as f32, or as text. */
#include "format/aprtool.h"

#include "format/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEP ((size_t)1 << 20)

static int put(const void *p, size_t len, struct err *e)
{
    if (tool_stop)
        return err_set(e, -EINTR, "interrupted");
    if (fwrite(p, 1, len, stdout) != len)
        return err_set(e, -errno, "stdout: %s", strerror(errno));
    return 0;
}

static int cat_raw(const struct tool_tensor *t, struct err *e)
{
    uint8_t *buf = malloc(STEP);
    int rc = buf ? 0 : err_set(e, -ENOMEM, "no memory for a buffer");
    for (uint64_t at = 0; rc == 0 && at < t->size;) {
        size_t n = t->size - at < STEP ? (size_t)(t->size - at) : STEP;
        rc = source_read(t->src, buf, t->off + at, n, e);
        if (rc == 0)
            rc = put(buf, n, e);
        at += n;
    }
    free(buf);
    return rc;
}

/* Integers and F64 have no f32 form that holds them all: as text they are printed as they are. */
static int cat_plain_text(const struct tool_tensor *t, const struct quant_type *q, struct err *e)
{
    uint8_t buf[8 * 512];
    for (uint64_t at = 0; at < t->size;) {
        size_t n = t->size - at < sizeof buf ? (size_t)(t->size - at) : sizeof buf;
        int rc = source_read(t->src, buf, t->off + at, n, e);
        if (rc < 0)
            return rc;
        for (size_t i = 0; i < n; i += q->block_bytes) {
            char line[40];
            int len;
            if (q->id == QUANT_F64)
                len = snprintf(line, sizeof line, "%.17g\n", load_f64(buf + i));
            else if (q->id == QUANT_I8)
                len = snprintf(line, sizeof line, "%d\n", (int8_t)buf[i]);
            else if (q->id == QUANT_I16)
                len = snprintf(line, sizeof line, "%d\n", (int16_t)load_u16(buf + i));
            else if (q->id == QUANT_I32)
                len = snprintf(line, sizeof line, "%" PRId32 "\n", (int32_t)load_u32(buf + i));
            else
                len = snprintf(line, sizeof line, "%" PRId64 "\n", (int64_t)load_u64(buf + i));
            rc = put(line, (size_t)len, e);
            if (rc < 0)
                return rc;
        }
        at += n;
    }
    return 0;
}

static int cat_f32(const struct tool_tensor *t, bool text, struct err *e)
{
    struct tool_reader r;
    size_t cap = STEP / 4, n = 1;
    float *v = malloc(cap * sizeof *v);
    int rc = tool_reader_init(&r, t, e);
    if (rc == 0 && !v)
        rc = err_set(e, -ENOMEM, "no memory for a buffer");
    while (rc == 0 && n > 0) {
        rc = tool_reader_f32(&r, v, cap, &n, e);
        for (size_t i = 0; rc == 0 && i < n; i++) {
            if (text) { /* nine digits read back as the same f32 */
                char line[32];
                rc = put(line, (size_t)snprintf(line, sizeof line, "%.9g\n", (double)v[i]), e);
            } else {
                uint32_t u;
                memcpy(&u, &v[i], 4);
                store_u32(&v[i], u);
            }
        }
        if (rc == 0 && !text)
            rc = put(v, n * 4, e);
    }
    tool_reader_release(&r);
    free(v);
    return rc;
}

int tool_cat_tensor(const struct tool_options *opt, int n_arg, char **arg)
{
    struct err e = {0};
    struct tool_file f;
    struct tool_tensor t;
    (void)n_arg;
    if (opt->as != TOOL_AS_TEXT && isatty(STDOUT_FILENO))
        return tool_usage("stdout is a terminal: binary goes to a file or a pipe; or --as text");
    int rc = tool_file_open(&f, arg[0], NULL, &e);
    if (rc == 0 && !tool_find_tensor(&f, arg[1], &t))
        rc = err_set(&e, -ENOENT, "%s: no tensor '%s'", arg[0], arg[1]);
    if (rc == 0) {
        const struct quant_type *q = quant_type(t.type);
        bool plain = q && (q->id == QUANT_F64 || (q->id >= QUANT_I8 && q->id <= QUANT_I64));
        if (opt->as == TOOL_AS_RAW)
            rc = cat_raw(&t, &e);
        else if (opt->as == TOOL_AS_TEXT && plain)
            rc = cat_plain_text(&t, q, &e);
        else
            rc = cat_f32(&t, opt->as == TOOL_AS_TEXT, &e);
        if (rc < 0)
            err_wrap(&e, "%s: tensor '%s'", arg[0], arg[1]);
    }
    tool_file_close(&f);
    if (rc == -EPIPE)
        return TOOL_FAILED;
    return rc < 0 ? tool_fail(&e) : TOOL_OK;
}
