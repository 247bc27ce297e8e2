/* aprd: options, verbs, wiring. The one place of this program that prints. */
#include "format/opts.h"
#include "infer/cli.h"
#include "infer/engine.h"
#include "infer/session.h"

#include <errno.h>
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
    const char *path, *prompt;
    int64_t n_predict;
    int n_thread;
    uint32_t n_ctx;
    struct sampler_params given;
    bool random_seed;
    uint32_t given_mask; /* bit = index into options */
};

/* Options that are no letters get numbers above 255. */
enum {
    OPT_TEMP = 256,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_MIN_P,
    OPT_REPEAT,
    OPT_REPEAT_N,
    OPT_PRESENCE,
    OPT_FREQUENCY,
    OPT_SPECIAL,
    OPT_IDS,
    OPT_NO_BOS,
    OPT_NO_PARSE,
    OPT_VERSION,
};

#define VERB_ALL (VERB_RUN | VERB_LOGITS | VERB_TOKENIZE | VERB_DETOKENIZE)

static const struct opts_item options[] = {
    {'n', "predict", "TOKENS", "tokens to write (default -1: to an end token or a full context)",
     VERB_RUN},
    {OPT_TEMP, "temp", "T", "temperature, 0 to 100; 0 = greedy (default 1)", VERB_RUN},
    {OPT_TOP_K, "top-k", "K", "only the K likeliest; 0 or -1 = off (default 0)", VERB_RUN},
    {OPT_TOP_P, "top-p", "P", "only the likeliest that sum to P (default 1 = off)", VERB_RUN},
    {OPT_MIN_P, "min-p", "P", "only those with P times the highest probability (default 0 = off)",
     VERB_RUN},
    {OPT_REPEAT, "repeat-penalty", "X", "above 0 to 2 (default 1 = off)", VERB_RUN},
    {OPT_REPEAT_N, "repeat-last-n", "N", "its window in tokens; -1 = all (default 64)", VERB_RUN},
    {OPT_PRESENCE, "presence-penalty", "X", "-2 to 2 (default 0)", VERB_RUN},
    {OPT_FREQUENCY, "frequency-penalty", "X", "-2 to 2 (default 0)", VERB_RUN},
    {'s', "seed", "S", "0 to 2^53; -1 = random (default -1)", VERB_RUN},
    {'t', "threads", "N", "CPU threads, 1 to 64 (default: the CPUs allowed); changes no result",
     VERB_RUN | VERB_LOGITS},
    {'c', "ctx-size", "N", "context in tokens (default: the model's)", VERB_RUN | VERB_LOGITS},
    {OPT_SPECIAL, "special", NULL, "write control tokens as text (default: they are dropped)",
     VERB_RUN | VERB_DETOKENIZE},
    {OPT_IDS, "ids", NULL, "the ids alone, on one line", VERB_TOKENIZE},
    {OPT_NO_BOS, "no-bos", NULL, "without the tokens the model puts around a text", VERB_TOKENIZE},
    {OPT_NO_PARSE, "no-parse-special", NULL, "control tokens' spelling is plain text",
     VERB_TOKENIZE},
    {'v', "verbose", NULL, "seed, counts and speed on stderr", VERB_RUN},
    {'h', "help", NULL, "this text", VERB_ALL},
    {OPT_VERSION, "version", NULL, "the version", VERB_ALL},
};
#define N_OPTION (sizeof options / sizeof options[0])

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

static void usage(const struct verb_row *only)
{
    printf("usage: aprd VERB [OPTION]... PATH ...\n"
           "Runs a model from a mounted or copied .apr file, or from a .gguf.\n\n");
    for (size_t i = 0; i < N_VERB; i++)
        if (!only || only == &verb_table[i])
            printf("  aprd %-10s %-12s %s\n", verb_table[i].name, verb_table[i].operands,
                   verb_table[i].help);
    for (size_t i = 0; i < N_VERB; i++) {
        if (only && only != &verb_table[i])
            continue;
        printf("\nOptions of %s:\n", verb_table[i].name);
        opts_print_help(stdout, options, N_OPTION, verb_table[i].verb);
    }
    printf("\nSampling options not given come from the model (general.sampling.*), then from the\n"
           "defaults above. Exit: 0 done, 1 failed, 2 usage.\n");
}

static int complain(const struct err *e)
{
    fprintf(stderr, "aprd: %s\n", e->msg);
    return 1;
}

static int bad_usage(const struct err *e)
{
    fprintf(stderr, "aprd: %s\nTry 'aprd --help'.\n", e->msg);
    return 2;
}

/* What was printed to stdout is there, or the reason is said: the exit status. */
static int flushed(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    fprintf(stderr, "aprd: stdout: %s\n", strerror(errno));
    return 1;
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

static bool is_given(const struct args *a, int id)
{
    for (size_t i = 0; i < N_OPTION; i++)
        if (options[i].id == id)
            return a->given_mask >> i & 1;
    return false;
}

/* Stores one option. Ranges of sampling values are checked once, by the sampler. */
static int take_option(void *ctx, const struct opts_item *item, const char *v, struct err *e)
{
    struct args *a = ctx;
    struct sampler_params *p = &a->given;
    const char *want = "a number";
    int64_t n = 0;
    bool ok = true;
    switch (item->id) {
    case 'n':
        ok = parse_int(v, -1, INT64_MAX, &a->n_predict);
        want = "-1, or a count up to 2^63 - 1";
        break;
    case OPT_TEMP:
        ok = parse_num(v, &p->temp);
        break;
    case OPT_TOP_K:
        ok = parse_int(v, INT64_MIN, INT64_MAX, &p->top_k);
        want = "an integer";
        break;
    case OPT_TOP_P:
        ok = parse_num(v, &p->top_p);
        break;
    case OPT_MIN_P:
        ok = parse_num(v, &p->min_p);
        break;
    case OPT_REPEAT:
        ok = parse_num(v, &p->repeat_penalty);
        break;
    case OPT_REPEAT_N:
        ok = parse_int(v, INT64_MIN, INT64_MAX, &p->repeat_last_n);
        want = "an integer";
        break;
    case OPT_PRESENCE:
        ok = parse_num(v, &p->presence_penalty);
        break;
    case OPT_FREQUENCY:
        ok = parse_num(v, &p->frequency_penalty);
        break;
    case 's':
        ok = parse_int(v, -1, INT64_C(1) << 53, &n);
        a->random_seed = n < 0;
        p->seed = n < 0 ? 0 : (uint64_t)n;
        want = "-1 to 2^53";
        break;
    case 't':
        ok = parse_int(v, 1, 64, &n);
        a->n_thread = (int)n;
        want = "1 to 64";
        break;
    case 'c':
        ok = parse_int(v, 1, INT32_MAX, &n);
        a->n_ctx = (uint32_t)n;
        want = "1 to 2147483647";
        break;
    default: /* a switch: the mask below is all there is to keep */
        break;
    }
    a->given_mask |= UINT32_C(1) << (item - options);
    return ok ? 0 : err_set(e, -EINVAL, "--%s: '%s': expected %s", item->name, v, want);
}

/* Fills a from the command line; 0, or -EINVAL (usage). *verb is NULL where none is named. */
static int parse(struct args *a, int argc, char **argv, const struct verb_row **verb, struct err *e)
{
    int first;
    *a = (struct args){.n_predict = -1, .given = sampler_defaults(), .random_seed = true};
    *verb = NULL;
    int rc = opts_parse(argc, argv, options, N_OPTION, take_option, a, &first, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; first < argc && i < N_VERB; i++)
        if (strcmp(argv[first], verb_table[i].name) == 0)
            *verb = &verb_table[i];
    if (first < argc && !*verb)
        return err_set(e, -EINVAL, "no verb '%s': run, logits, tokenize or detokenize",
                       argv[first]);
    if (is_given(a, 'h') || is_given(a, OPT_VERSION))
        return 0;
    if (!*verb)
        return err_set(e, -EINVAL, "a verb is missing: run, logits, tokenize or detokenize");
    for (size_t i = 0; i < N_OPTION; i++)
        if (a->given_mask >> i & 1 && !(options[i].verbs & (*verb)->verb))
            return err_set(e, -EINVAL, "%s: takes no --%s", (*verb)->name, options[i].name);
    if (argc - first - 1 != (*verb)->n_operand)
        return err_set(e, -EINVAL, "%s: %d operands given; usage: aprd %s [OPTION]... %s",
                       (*verb)->name, argc - first - 1, (*verb)->name, (*verb)->operands);
    if (sampler_params_check(&a->given, e) < 0)
        return -EINVAL;
    a->path = argv[first + 1];
    a->prompt = (*verb)->n_operand > 1 ? argv[first + 2] : NULL;
    return 0;
}

static int put_stdout(void *ctx, const char *p, size_t n)
{
    (void)ctx;
    return cli_write(STDOUT_FILENO, p, n);
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
    p.temp = is_given(a, OPT_TEMP) ? v->temp : p.temp;
    p.top_k = is_given(a, OPT_TOP_K) ? v->top_k : p.top_k;
    p.top_p = is_given(a, OPT_TOP_P) ? v->top_p : p.top_p;
    p.min_p = is_given(a, OPT_MIN_P) ? v->min_p : p.min_p;
    p.repeat_penalty = is_given(a, OPT_REPEAT) ? v->repeat_penalty : p.repeat_penalty;
    p.repeat_last_n = is_given(a, OPT_REPEAT_N) ? v->repeat_last_n : p.repeat_last_n;
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
    struct engine_options eo = {
        .parts = ENGINE_TOKENIZER, .n_thread = a->n_thread, .n_ctx = a->n_ctx};
    struct engine g;
    int rc = engine_open(&g, a->path, &eo, e);
    if (rc < 0)
        return complain(e);
    struct engine_request req = {.prompt = a->prompt,
                                 .prompt_len = strlen(a->prompt),
                                 .n_predict = a->n_predict,
                                 .special = is_given(a, OPT_SPECIAL),
                                 .put = put_stdout};
    struct engine_result res = {0};
    rc = engine_positions(&g, req.prompt, req.prompt_len, a->n_predict, &eo.n_pos, e);
    if (rc == 0)
        rc = engine_load(&g, &eo, e);
    if (rc == 0)
        rc = sampling_of(a, &g, &req.sampling, e);
    if (rc == 0 && is_given(a, 'v'))
        fprintf(stderr, "aprd: seed %" PRIu64 ", temperature %g\n", req.sampling.seed,
                req.sampling.temp);
    if (rc == 0)
        rc = engine_generate(&g, &req, &res, e);
    if (rc == 0 && is_given(a, 'v'))
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
    int rc = cli_write(STDOUT_FILENO, logits, n_vocab * sizeof *logits);
    return rc < 0 ? err_set(e, rc, "stdout: %s", strerror(-rc)) : 0;
}

static int stdin_ids(int32_t **id, size_t *n, struct err *e)
{
    char *text;
    size_t len;
    int rc = cli_read(STDIN_FILENO, &text, &len, e);
    if (rc < 0)
        return rc;
    rc = cli_parse_ids(text, len, id, n, e);
    free(text);
    return rc;
}

static int verb_logits(const struct args *a, struct err *e)
{
    struct engine_options eo = {
        .parts = ENGINE_WEIGHTS, .n_thread = a->n_thread, .n_ctx = a->n_ctx};
    struct engine g = {0};
    struct session *s = NULL;
    int32_t *id = NULL;
    size_t n;
    int rc = stdin_ids(&id, &n, e);
    if (rc == 0) {
        eo.n_pos = n == 0 ? 1 : n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
        rc = engine_open(&g, a->path, &eo, e);
    }
    if (rc == 0)
        rc = session_new(&s, g.m, e);
    if (rc == 0)
        rc = session_eval_rows(s, id, n, put_row, NULL, e);
    session_free(s);
    engine_close(&g);
    free(id);
    return rc < 0 ? complain(e) : 0;
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
    unsigned flags = (is_given(a, OPT_NO_BOS) ? 0 : TOKENIZER_ADD_SPECIAL) |
                     (is_given(a, OPT_NO_PARSE) ? 0 : TOKENIZER_PARSE_SPECIAL);
    int rc = cli_read(STDIN_FILENO, &text, &len, e);
    if (rc == 0)
        rc = engine_open(&g, a->path, &eo, e);
    if (rc == 0)
        rc = tokenizer_encode(g.tok, text, len, flags, &id, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        size_t plen = 0;
        if (is_given(a, OPT_IDS)) {
            printf("%s%" PRId32, i ? " " : "", id[i]);
            continue;
        }
        const char *p = tokenizer_piece(g.tok, id[i], true, false, &plen);
        printf("%" PRId32 "\t", id[i]);
        cli_put_escaped(stdout, p ? p : "", plen);
        putchar('\n');
    }
    if (rc == 0 && is_given(a, OPT_IDS))
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
        const char *p = tokenizer_piece(g.tok, id[i], is_given(a, OPT_SPECIAL), first, &len);
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
    const struct verb_row *verb;
    signal(SIGPIPE, SIG_IGN); /* a reader that left is a write error: said, and exit 1 */
    if (parse(&a, argc, argv, &verb, &e) < 0)
        return bad_usage(&e);
    if (is_given(&a, 'h')) {
        usage(verb);
        return flushed();
    }
    if (is_given(&a, OPT_VERSION)) {
        printf("aprd %s\n", APRFS_VERSION);
        return flushed();
    }
    switch (verb->verb) {
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
