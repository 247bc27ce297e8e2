/* aprd: options, verbs, wiring. The one place of this program that prints. */
#include "infer/engine.h"
#include "infer/session.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum verb {
    VERB_RUN = 1,
    VERB_LOGITS = 2,
    VERB_TOKENIZE = 4,
    VERB_DETOKENIZE = 8,
};

struct args {
    enum verb verb;
    const char *path, *prompt;
    int64_t n_predict;
    int n_thread;
    uint32_t n_ctx;
    struct sampler_params given; /* values; which of them were given: */
    uint32_t is_given;           /* bit = index into option_table */
    bool random_seed, ids, no_bos, no_parse_special, special, verbose;
};

/* The one option table: parsing, help and the refusal of options a verb does not take. */
struct option_row {
    const char *name;
    char letter;     /* 0: none */
    const char *arg; /* NULL: a switch */
    unsigned verbs;
    const char *help;
};

enum {
    OPT_PREDICT,
    OPT_TEMP,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_MIN_P,
    OPT_REPEAT,
    OPT_REPEAT_N,
    OPT_PRESENCE,
    OPT_FREQUENCY,
    OPT_SEED,
    OPT_THREADS,
    OPT_CTX,
    OPT_SPECIAL,
    OPT_IDS,
    OPT_NO_BOS,
    OPT_NO_PARSE,
    OPT_VERBOSE,
    OPT_HELP,
    OPT_VERSION,
    OPT_COUNT,
};

#define VERB_ALL (VERB_RUN | VERB_LOGITS | VERB_TOKENIZE | VERB_DETOKENIZE)

static const struct option_row option_table[OPT_COUNT] = {
    [OPT_PREDICT] = {"predict", 'n', "TOKENS", VERB_RUN,
                     "tokens to write (default: to an end token or a full context)"},
    [OPT_TEMP] = {"temp", 0, "T", VERB_RUN, "temperature, 0 to 100; 0 = greedy (default 1)"},
    [OPT_TOP_K] = {"top-k", 0, "K", VERB_RUN, "only the K likeliest; 0 or -1 = off (default 0)"},
    [OPT_TOP_P] = {"top-p", 0, "P", VERB_RUN, "only the likeliest that sum to P (default 1 = off)"},
    [OPT_MIN_P] = {"min-p", 0, "P", VERB_RUN,
                   "only those with P times the highest probability (default 0 = off)"},
    [OPT_REPEAT] = {"repeat-penalty", 0, "X", VERB_RUN, "above 0 to 2 (default 1 = off)"},
    [OPT_REPEAT_N] = {"repeat-last-n", 0, "N", VERB_RUN,
                      "its window in tokens; -1 = all (default 64)"},
    [OPT_PRESENCE] = {"presence-penalty", 0, "X", VERB_RUN, "-2 to 2 (default 0)"},
    [OPT_FREQUENCY] = {"frequency-penalty", 0, "X", VERB_RUN, "-2 to 2 (default 0)"},
    [OPT_SEED] = {"seed", 's', "S", VERB_RUN, "0 to 2^53; -1 = random (default -1)"},
    [OPT_THREADS] = {"threads", 't', "N", VERB_RUN | VERB_LOGITS,
                     "CPU threads (default: the CPUs allowed); changes no result"},
    [OPT_CTX] = {"ctx-size", 'c', "N", VERB_RUN | VERB_LOGITS,
                 "context in tokens (default: the model's)"},
    [OPT_SPECIAL] = {"special", 0, NULL, VERB_RUN | VERB_DETOKENIZE,
                     "write control tokens as text (default: they are dropped)"},
    [OPT_IDS] = {"ids", 0, NULL, VERB_TOKENIZE, "the ids alone, on one line"},
    [OPT_NO_BOS] = {"no-bos", 0, NULL, VERB_TOKENIZE,
                    "without the tokens the model puts around a text"},
    [OPT_NO_PARSE] = {"no-parse-special", 0, NULL, VERB_TOKENIZE,
                      "control tokens' spelling is plain text"},
    [OPT_VERBOSE] = {"verbose", 'v', NULL, VERB_RUN, "seed, counts and speed on stderr"},
    [OPT_HELP] = {"help", 'h', NULL, VERB_ALL, "this text"},
    [OPT_VERSION] = {"version", 0, NULL, VERB_ALL, "the version"},
};

static const struct verb_row {
    const char *name, *operands, *help;
    enum verb verb;
    int n_operand;
} verb_table[] = {
    {"run", "PATH PROMPT", "writes the continuation of PROMPT to stdout", VERB_RUN, 2},
    {"logits", "PATH", "token ids on stdin; a row of f32 logits per token on stdout", VERB_LOGITS,
     1},
    {"tokenize", "PATH", "text on stdin; a token per line: id, tab, text", VERB_TOKENIZE, 1},
    {"detokenize", "PATH", "token ids on stdin; their text on stdout", VERB_DETOKENIZE, 1},
};
#define N_VERB (sizeof verb_table / sizeof verb_table[0])

static void usage(FILE *f)
{
    fprintf(f, "usage: aprd VERB [OPTION]... PATH ...\n"
               "Runs a model from a mounted or copied .apr file, or from a .gguf.\n\n");
    for (size_t i = 0; i < N_VERB; i++)
        fprintf(f, "  aprd %-10s %-12s %s\n", verb_table[i].name, verb_table[i].operands,
                verb_table[i].help);
    for (size_t v = 0; v < N_VERB; v++) {
        fprintf(f, "\nOptions of %s:\n", verb_table[v].name);
        for (int i = 0; i < OPT_COUNT; i++) {
            const struct option_row *o = &option_table[i];
            char left[64], letter[5] = "";
            if (!(o->verbs & verb_table[v].verb))
                continue;
            if (o->letter)
                snprintf(letter, sizeof letter, "-%c, ", o->letter);
            snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->arg ? " " : "",
                     o->arg ? o->arg : "");
            fprintf(f, "  %-26s %s\n", left, o->help);
        }
    }
    fprintf(f,
            "\nSampling options not given come from the model (general.sampling.*), then from the\n"
            "defaults above. Exit: 0 done, 1 failed, 2 usage.\n");
}

static int complain(const struct err *e)
{
    fprintf(stderr, "aprd: %s\n", e->msg);
    return 1;
}

static int bad_usage(const char *fmt, const char *a, const char *b)
{
    fprintf(stderr, "aprd: ");
    fprintf(stderr, fmt, a, b);
    fprintf(stderr, "\nTry 'aprd --help'.\n");
    return 2;
}

static bool parse_int(const char *s, int64_t lo, int64_t hi, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || end == s || *end || v < lo || v > hi)
        return false;
    *out = v;
    return true;
}

static bool parse_num(const char *s, double *out)
{
    char *end;
    errno = 0;
    double v = strtod(s, &end);
    if (errno || end == s || *end || !isfinite(v))
        return false;
    *out = v;
    return true;
}

/* Stores one option; false: its value makes no sense. Ranges of sampling values are checked once,
 * by the sampler. */
static bool take_option(struct args *a, int i, const char *v)
{
    int64_t n = 0;
    bool ok = true;
    switch (i) {
    case OPT_PREDICT:
        ok = parse_int(v, -1, INT64_MAX, &a->n_predict);
        break;
    case OPT_TEMP:
        ok = parse_num(v, &a->given.temp);
        break;
    case OPT_TOP_K:
        ok = parse_int(v, INT64_MIN, INT64_MAX, &a->given.top_k);
        break;
    case OPT_TOP_P:
        ok = parse_num(v, &a->given.top_p);
        break;
    case OPT_MIN_P:
        ok = parse_num(v, &a->given.min_p);
        break;
    case OPT_REPEAT:
        ok = parse_num(v, &a->given.repeat_penalty);
        break;
    case OPT_REPEAT_N:
        ok = parse_int(v, INT64_MIN, INT64_MAX, &a->given.repeat_last_n);
        break;
    case OPT_PRESENCE:
        ok = parse_num(v, &a->given.presence_penalty);
        break;
    case OPT_FREQUENCY:
        ok = parse_num(v, &a->given.frequency_penalty);
        break;
    case OPT_SEED:
        ok = parse_int(v, -1, INT64_C(1) << 53, &n);
        a->random_seed = n < 0;
        a->given.seed = (uint64_t)n;
        break;
    case OPT_THREADS:
        ok = parse_int(v, 1, 64, &n);
        a->n_thread = (int)n;
        break;
    case OPT_CTX:
        ok = parse_int(v, 1, INT32_MAX, &n);
        a->n_ctx = (uint32_t)n;
        break;
    case OPT_SPECIAL:
        a->special = true;
        break;
    case OPT_IDS:
        a->ids = true;
        break;
    case OPT_NO_BOS:
        a->no_bos = true;
        break;
    case OPT_NO_PARSE:
        a->no_parse_special = true;
        break;
    case OPT_VERBOSE:
        a->verbose = true;
        break;
    default:
        break;
    }
    a->is_given |= UINT32_C(1) << i;
    return ok;
}

/* The verb of argv[1], or 0. */
static const struct verb_row *find_verb(const char *s)
{
    for (size_t i = 0; i < N_VERB; i++)
        if (strcmp(s, verb_table[i].name) == 0)
            return &verb_table[i];
    return NULL;
}

#define PARSE_RUN (-1) /* go on; else the exit code */

static int parse(struct args *a, int argc, char **argv)
{
    struct option lo[OPT_COUNT + 1] = {0};
    char letters[2 * OPT_COUNT + 2] = ":";
    for (int i = 0, at = 1; i < OPT_COUNT; i++) {
        const struct option_row *o = &option_table[i];
        lo[i] = (struct option){o->name, o->arg ? required_argument : no_argument, NULL, 256 + i};
        if (o->letter)
            letters[at++] = o->letter;
        if (o->letter && o->arg)
            letters[at++] = ':';
    }
    *a = (struct args){.n_predict = -1, .given = sampler_defaults(), .random_seed = true};
    const struct verb_row *verb = argc > 1 ? find_verb(argv[1]) : NULL;
    if (argc > 1 && !verb && argv[1][0] != '-')
        return bad_usage("no verb '%s' (run, logits, tokenize, detokenize)%s", argv[1], "");
    if (verb) {
        a->verb = verb->verb;
        argc--;
        argv++;
    }
    opterr = 0;
    int c;
    while ((c = getopt_long(argc, argv, letters, lo, NULL)) != -1) {
        if (c == '?')
            return bad_usage("unknown option '%s'%s", argv[optind - 1], "");
        if (c == ':')
            return bad_usage("option '%s' needs a value%s", argv[optind - 1], "");
        int i = c - 256;
        for (int k = 0; c < 256 && k < OPT_COUNT; k++)
            if (option_table[k].letter == c)
                i = k;
        if (i == OPT_HELP) {
            usage(stdout);
            return fflush(stdout) == 0 ? 0 : 1;
        }
        if (i == OPT_VERSION) {
            printf("aprd %s\n", APRFS_VERSION);
            return fflush(stdout) == 0 ? 0 : 1;
        }
        if (verb && !(option_table[i].verbs & verb->verb))
            return bad_usage("'%s' takes no --%s", verb->name, option_table[i].name);
        if (!take_option(a, i, optarg))
            return bad_usage("--%s: '%s' is not a value it takes", option_table[i].name, optarg);
    }
    if (!verb)
        return bad_usage("%s%s", "a verb is missing: run, logits, tokenize or detokenize", "");
    if (argc - optind != verb->n_operand)
        return bad_usage("'%s' takes exactly: %s", verb->name, verb->operands);
    a->path = argv[optind];
    a->prompt = verb->n_operand > 1 ? argv[optind + 1] : NULL;
    return PARSE_RUN;
}

static int write_all(void *ctx, const char *p, size_t n)
{
    (void)ctx;
    while (n) {
        ssize_t w = write(STDOUT_FILENO, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -errno;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

static int put_out(const void *p, size_t n, struct err *e)
{
    int rc = write_all(NULL, p, n);
    return rc < 0 ? err_set(e, rc, "stdout: %s", strerror(-rc)) : 0;
}

/* All of stdin, malloc'ed. */
static int read_stdin(char **out, size_t *len, struct err *e)
{
    char *p = NULL;
    size_t n = 0, cap = 0;
    for (;;) {
        if (n == cap) {
            cap = cap ? cap * 2 : 65536;
            char *q = realloc(p, cap);
            if (!q) {
                free(p);
                return err_set(e, -ENOMEM, "stdin: no memory for %zu bytes", cap);
            }
            p = q;
        }
        ssize_t r = read(STDIN_FILENO, p + n, cap - n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0) {
            int rc = -errno;
            free(p);
            return err_set(e, rc, "stdin: %s", strerror(-rc));
        }
        if (r == 0)
            break;
        n += (size_t)r;
    }
    *out = p;
    *len = n;
    return 0;
}

/* Ids separated by white space; anything else is an error with its place. */
static int parse_ids(const char *p, size_t len, int32_t **out, size_t *n_out, struct err *e)
{
    int32_t *id = malloc((len / 2 + 1) * sizeof *id);
    size_t n = 0, at = 0;
    if (!id)
        return err_set(e, -ENOMEM, "no memory for token ids");
    while (at < len) {
        char word[16];
        size_t k = 0;
        if (strchr(" \t\r\n", p[at]) && p[at]) {
            at++;
            continue;
        }
        size_t start = at;
        while (at < len && !(p[at] && strchr(" \t\r\n", p[at]))) {
            if (k < sizeof word - 1)
                word[k++] = p[at];
            at++;
        }
        word[k] = 0;
        int64_t v;
        if (at - start != strlen(word) || !parse_int(word, 0, INT32_MAX, &v)) {
            free(id);
            return err_set(e, -EINVAL, "stdin, byte %zu: '%s' is no token id", start, word);
        }
        id[n++] = (int32_t)v;
    }
    *out = id;
    *n_out = n;
    return 0;
}

static int random_seed(uint64_t *seed, struct err *e)
{
    uint64_t v;
    if (getrandom(&v, sizeof v, 0) != sizeof v)
        return err_set(e, -EIO, "no random seed: %s", strerror(errno));
    *seed = v >> 11; /* 53 bits: exact in any JSON reader */
    return 0;
}

/* Flag, then the model's metadata, then the table of defaults. */
static int sampling_of(const struct args *a, const struct engine *g, struct sampler_params *out,
                       struct err *e)
{
    struct sampler_params p = sampler_defaults();
    int rc = sampler_params_from_meta(&p, apr_meta(model_file_apr(g->file)), e);
    if (rc < 0)
        return rc;
    const struct sampler_params *v = &a->given;
#define GIVEN(opt) (a->is_given & UINT32_C(1) << (opt))
    p.temp = GIVEN(OPT_TEMP) ? v->temp : p.temp;
    p.top_k = GIVEN(OPT_TOP_K) ? v->top_k : p.top_k;
    p.top_p = GIVEN(OPT_TOP_P) ? v->top_p : p.top_p;
    p.min_p = GIVEN(OPT_MIN_P) ? v->min_p : p.min_p;
    p.repeat_penalty = GIVEN(OPT_REPEAT) ? v->repeat_penalty : p.repeat_penalty;
    p.repeat_last_n = GIVEN(OPT_REPEAT_N) ? v->repeat_last_n : p.repeat_last_n;
    p.presence_penalty = v->presence_penalty;
    p.frequency_penalty = v->frequency_penalty;
    p.seed = v->seed;
    if (a->random_seed)
        rc = random_seed(&p.seed, e);
    *out = p;
    return rc;
}

static int verb_run(const struct args *a, struct err *e)
{
    const struct engine_options eo = {
        .parts = ENGINE_WEIGHTS | ENGINE_TOKENIZER, .n_thread = a->n_thread, .n_ctx = a->n_ctx};
    struct engine g;
    int rc = engine_open(&g, a->path, &eo, e);
    if (rc < 0)
        return complain(e);
    struct engine_request req = {.prompt = a->prompt,
                                 .prompt_len = strlen(a->prompt),
                                 .n_predict = a->n_predict,
                                 .special = a->special,
                                 .put = write_all};
    struct engine_result res = {0};
    rc = sampling_of(a, &g, &req.sampling, e);
    if (rc == 0 && a->verbose)
        fprintf(stderr, "aprd: seed %" PRIu64 ", temperature %g\n", req.sampling.seed,
                req.sampling.temp);
    if (rc == 0)
        rc = engine_generate(&g, &req, &res, e);
    if (rc == 0 && a->verbose)
        fprintf(stderr, "aprd: prompt %zu tokens, %.1f tokens/s; %zu written, %.1f tokens/s; %s\n",
                res.n_prompt, (double)res.n_prompt / res.prompt_ms * 1e3, res.n_gen,
                res.gen_ms > 0 ? (double)res.n_gen / res.gen_ms * 1e3 : 0,
                res.end == ENGINE_END_TOKEN ? "end token" : "length");
    if (rc == 0 && res.end == ENGINE_END_CONTEXT)
        fprintf(stderr, "aprd: stopped: the context of %" PRIu32 " tokens is full\n", g.m->n_ctx);
    engine_close(&g);
    return rc < 0 ? complain(e) : 0;
}

static int put_row(void *ctx, const float *logits, uint32_t n_vocab, struct err *e)
{
    (void)ctx;
    return put_out(logits, n_vocab * sizeof *logits, e);
}

static int stdin_ids(int32_t **id, size_t *n, struct err *e)
{
    char *text;
    size_t len;
    int rc = read_stdin(&text, &len, e);
    if (rc < 0)
        return rc;
    rc = parse_ids(text, len, id, n, e);
    free(text);
    return rc;
}

static int verb_logits(const struct args *a, struct err *e)
{
    const struct engine_options eo = {
        .parts = ENGINE_WEIGHTS, .n_thread = a->n_thread, .n_ctx = a->n_ctx};
    struct engine g = {0};
    struct session *s = NULL;
    int32_t *id = NULL;
    size_t n;
    int rc = stdin_ids(&id, &n, e);
    if (rc == 0)
        rc = engine_open(&g, a->path, &eo, e);
    if (rc == 0)
        rc = session_new(&s, g.m, e);
    if (rc == 0)
        rc = session_eval_rows(s, id, n, put_row, NULL, e);
    session_free(s);
    engine_close(&g);
    free(id);
    return rc < 0 ? complain(e) : 0;
}

/* Printable on one line, and exact: backslash escapes, bytes that are no UTF-8 as \xNN. */
static void print_piece(const char *p, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)p[i];
        size_t n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        if (c >= 0x80 && n <= len - i && json_utf8_valid(p + i, n)) {
            fwrite(p + i, 1, n, stdout);
            i += n;
            continue;
        }
        if (c == '\\')
            fputs("\\\\", stdout);
        else if (c == '\n')
            fputs("\\n", stdout);
        else if (c == '\t')
            fputs("\\t", stdout);
        else if (c == '\r')
            fputs("\\r", stdout);
        else if (c < 0x20 || c >= 0x7F)
            printf("\\x%02X", c);
        else
            putchar(c);
        i++;
    }
}

static int flush_out(struct err *e)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    return err_set(e, -EIO, "stdout: %s", strerror(errno));
}

static int verb_tokenize(const struct args *a, struct err *e)
{
    const struct engine_options eo = {.parts = ENGINE_TOKENIZER};
    struct engine g = {0};
    char *text = NULL;
    int32_t *id = NULL;
    size_t len, n = 0;
    unsigned flags = (a->no_bos ? 0 : TOKENIZER_ADD_SPECIAL) |
                     (a->no_parse_special ? 0 : TOKENIZER_PARSE_SPECIAL);
    int rc = read_stdin(&text, &len, e);
    if (rc == 0)
        rc = engine_open(&g, a->path, &eo, e);
    if (rc == 0)
        rc = tokenizer_encode(g.tok, text, len, flags, &id, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        size_t plen = 0;
        if (a->ids) {
            printf("%s%" PRId32, i ? " " : "", id[i]);
            continue;
        }
        const char *p = tokenizer_piece(g.tok, id[i], true, false, &plen);
        printf("%" PRId32 "\t", id[i]);
        print_piece(p ? p : "", plen);
        putchar('\n');
    }
    if (rc == 0 && a->ids)
        putchar('\n');
    if (rc == 0)
        rc = flush_out(e);
    free(id);
    free(text);
    engine_close(&g);
    return rc < 0 ? complain(e) : 0;
}

static int verb_detokenize(const struct args *a, struct err *e)
{
    const struct engine_options eo = {.parts = ENGINE_TOKENIZER};
    struct engine g = {0};
    int32_t *id = NULL;
    size_t n = 0;
    bool first = true;
    int rc = stdin_ids(&id, &n, e);
    if (rc == 0)
        rc = engine_open(&g, a->path, &eo, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        size_t len;
        const char *p = tokenizer_piece(g.tok, id[i], a->special, first, &len);
        if (!p)
            rc = err_set(e, -EINVAL, "token id %" PRId32 " is outside the vocabulary of %" PRIu32,
                         id[i], tokenizer_n_vocab(g.tok));
        else
            fwrite(p, 1, len, stdout);
        first = first && p && len == 0;
    }
    if (rc == 0)
        rc = flush_out(e);
    free(id);
    engine_close(&g);
    return rc < 0 ? complain(e) : 0;
}

int main(int argc, char **argv)
{
    struct args a;
    struct err e = {0};
    signal(SIGPIPE, SIG_IGN); /* a reader that left is a write error, said and exit 1 */
    int rc = parse(&a, argc, argv);
    if (rc != PARSE_RUN)
        return rc;
    switch (a.verb) {
    case VERB_RUN:
        return verb_run(&a, &e);
    case VERB_LOGITS:
        return verb_logits(&a, &e);
    case VERB_TOKENIZE:
        return verb_tokenize(&a, &e);
    case VERB_DETOKENIZE:
        return verb_detokenize(&a, &e);
    }
    return 2;
}
