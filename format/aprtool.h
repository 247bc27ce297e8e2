/* What the verbs of aprtool share: options, output, and one view of .apr and .gguf files. Only
 * format/aprtool*.c include this; none of it goes into libformat. */
#ifndef APRFS_FORMAT_APRTOOL_H
#define APRFS_FORMAT_APRTOOL_H

#include "format/apr_read.h"
#include "format/arch.h"
#include "format/err.h"
#include "format/gguf.h"
#include "format/json.h"
#include "format/quant.h"
#include "format/source.h"
#include "format/vapr.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tool_exit {
    TOOL_OK = 0,
    TOOL_FAILED = 1, /* a bad file, a difference, a failure */
    TOOL_USAGE = 2,
};

enum tool_as {
    TOOL_AS_RAW,
    TOOL_AS_F32,
    TOOL_AS_TEXT,
};

struct tool_options {
    bool json, bytes, all, gguf_order, deep, readers, extents, force;
    enum tool_as as;
    bool as_given;
    struct vapr_options vapr;
    bool layout_given; /* --profile, --footer or --values */
};

/* Set by SIGINT, SIGTERM and SIGHUP; long work looks at it. */
extern volatile sig_atomic_t tool_stop;

/* The one place where aprtool complains: "aprtool: <message>" on stderr; returns TOOL_FAILED. */
int tool_fail(const struct err *e);
/* The same for a slip in how a verb was called, with a pointer to --help; TOOL_USAGE. */
int tool_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Verbs: arguments after options; each returns an enum tool_exit. */
int tool_ls(const struct tool_options *opt, int n_arg, char **arg);
int tool_show(const struct tool_options *opt, int n_arg, char **arg);
int tool_tensors(const struct tool_options *opt, int n_arg, char **arg);
int tool_explain(const struct tool_options *opt, int n_arg, char **arg);
int tool_verify(const struct tool_options *opt, int n_arg, char **arg);
int tool_convert(const struct tool_options *opt, int n_arg, char **arg);
int tool_diff(const struct tool_options *opt, int n_arg, char **arg);
int tool_cat_tensor(const struct tool_options *opt, int n_arg, char **arg);

/* --- aprtool_file.c: a .apr or a .gguf, told apart by magic ----------------------------------- */

struct tool_file {
    const char *path;
    struct source *src; /* .apr: the file itself; .gguf: NULL, the parts are gguf's */
    struct gguf *gguf;  /* exactly one of gguf and apr is set, but where vapr is: */
    struct vapr *vapr;  /* a .gguf seen through its layout: gguf, vapr and apr are set */
    struct apr *apr;
    size_t *order; /* .gguf: tensors by name; NULL before tool_file_sort */
};

struct tool_tensor {
    struct gguf_str name;
    uint32_t type; /* GGML id or APR_TYPE_OWN_* */
    uint32_t n_dim;
    uint64_t dim[APR_MAX_DIMS]; /* outermost first, for either kind of file */
    uint64_t off, size;         /* absolute in its source */
    int part;
    struct source *src; /* lent */
};

/* Opens by magic. gguf_as_apr: a .gguf is also laid out, by opt, and looks like a .apr. */
int tool_file_open(struct tool_file *f, const char *path, const struct vapr_options *gguf_as_apr,
                   struct err *e);
void tool_file_close(struct tool_file *f);
size_t tool_n_tensor(const struct tool_file *f);
struct tool_tensor tool_tensor(const struct tool_file *f, size_t i); /* file order */
/* The tensors' numbers in byte order of their names; the handle's. NULL: no memory. */
const size_t *tool_file_sort(struct tool_file *f);
bool tool_find_tensor(const struct tool_file *f, const char *name, struct tool_tensor *t);
int tool_name_cmp(struct gguf_str a, struct gguf_str b); /* byte order */

/* "Q4_K", "APR-Q4", ...; and how its bytes become numbers (false: they do not). */
const char *tool_type_name(uint32_t type);
uint64_t tool_n_weight(const struct tool_tensor *t);

/* Reads a tensor from its start in pieces of whole blocks. */
struct tool_reader {
    struct tool_tensor t;
    uint64_t n_weight, at; /* weights in all, and given so far */
    uint32_t block_len, block_bytes;
    quant_dequant_fn *f32; /* NULL: there is none */
    float scale;           /* APR's own Q8: one for the whole tensor */
    uint64_t data_off;     /* of its first block */
    uint8_t *buf;
};
int tool_reader_init(struct tool_reader *r, const struct tool_tensor *t, struct err *e);
void tool_reader_release(struct tool_reader *r);
/* Up to cap weights (cap >= 4096) as f32 into dst; *n = 0 at the end. -ENOTSUP without f32. */
int tool_reader_f32(struct tool_reader *r, float *dst, size_t cap, size_t *n, struct err *e);

/* --- aprtool_out.c: tables, numbers, progress -------------------------------------------------- */

/* Rows of text: aligned columns on a terminal, TAB-separated elsewhere. */
struct table {
    int n_col;
    const char *const *head; /* n_col titles; NULL: no title line */
    unsigned right;          /* bit i: column i is flushed right on a terminal */
    char **cell;             /* owned */
    size_t n_cell, cap;
    bool failed; /* out of memory: table_print says so */
};

void table_init(struct table *t, const char *const *head, int n_col, unsigned right);
void table_add(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_add_bytes(struct table *t, struct gguf_str s); /* escaped, so that it is one cell */
/* Writes all rows to stdout and releases them. */
int table_print(struct table *t, struct err *e);
void table_release(struct table *t); /* the rows, unprinted */

void tool_size_text(char dst[32], uint64_t n, bool exact);          /* "3.9G", or "4187593113" */
char *tool_dims_text(const struct tool_tensor *t, bool gguf_order); /* "896x4864"; malloc'ed */
/* The text of s with control bytes and backslash as \ooo; malloc'ed. */
char *tool_escape(struct gguf_str s);

/* Begins {"schema":1; the caller adds members; ends it, prints it with a newline. */
void tool_json_begin(struct json_out *o);
int tool_json_end(struct json_out *o, struct err *e); /* releases o */
/* A GGUF value or a cJSON one: scalars whole; arrays of more than max elements as {"n":N,"type":T}.
 */
void tool_json_gguf_value(struct json_out *o, const struct gguf_key *k, uint64_t max);
void tool_json_cjson(struct json_out *o, const cJSON *v, int max);
/* The same as one line of text for people; malloc'ed. */
char *tool_gguf_value_text(const struct gguf_key *k);
char *tool_cjson_text(const cJSON *v);

/* A bar on stderr, if that is a terminal and stdout's text is not in its way; else nothing. */
struct progress {
    const char *what;
    bool on;
    int last; /* permille last drawn */
};
void progress_init(struct progress *p, const char *what);
void progress_update(void *progress, uint64_t done, uint64_t total);
void progress_end(struct progress *p);

#endif
