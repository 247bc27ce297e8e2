/* aprd's options and verbs, in one table each: what is parsed and what --help prints. */
#include "format/opts.h"
#include "infer/aprd.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define APRD_VERBS "run, logits, verify, tokenize or detokenize"
#define APRD_EVAL  (APRD_RUN | APRD_LOGITS)
#define APRD_LOAD  (APRD_EVAL | APRD_VERIFY)
#define APRD_ALL   (APRD_LOAD | APRD_TOKENIZE | APRD_DETOKENIZE)

static const struct opts_item options[] = {
    {'n', "predict", "TOKENS", "tokens to write (default -1: to an end token or a full context)",
     APRD_RUN},
    {OPT_TEMP, "temp", "T", "temperature, 0 to 100; 0 = greedy (default 1)", APRD_RUN},
    {OPT_TOP_K, "top-k", "K", "only the K likeliest; 0 or -1 = off (default 0)", APRD_RUN},
    {OPT_TOP_P, "top-p", "P", "only the likeliest that sum to P (default 1 = off)", APRD_RUN},
    {OPT_MIN_P, "min-p", "P", "only those with P times the highest probability (default 0 = off)",
     APRD_RUN},
    {OPT_REPEAT, "repeat-penalty", "X", "above 0 to 2 (default 1 = off)", APRD_RUN},
    {OPT_REPEAT_N, "repeat-last-n", "N", "its window in tokens; -1 = all (default 64)", APRD_RUN},
    {OPT_PRESENCE, "presence-penalty", "X", "-2 to 2 (default 0)", APRD_RUN},
    {OPT_FREQUENCY, "frequency-penalty", "X", "-2 to 2 (default 0)", APRD_RUN},
    {'s', "seed", "S", "0 to 2^53; -1 = random (default -1)", APRD_RUN},
    {'t', "threads", "N", "CPU threads, 1 to 64 (default: the CPUs allowed); changes no result",
     APRD_LOAD},
    {'c', "ctx-size", "N", "context in tokens (default: the model's)", APRD_LOAD},
    {OPT_DEVICE, "device", "D",
     "auto, cpu or gpu (default auto: the GPU if there is one); stderr says which it is",
     APRD_LOAD},
    {OPT_NO_GRAPH, "no-graph", NULL, "give a GPU each step op by op (default: as a recorded graph)",
     APRD_LOAD},
    {OPT_JSON, "json", NULL, "one JSON document on stdout", APRD_VERIFY},
    {OPT_SPECIAL, "special", NULL, "write control tokens as text (default: they are dropped)",
     APRD_RUN | APRD_DETOKENIZE},
    {OPT_IDS, "ids", NULL, "the ids alone, on one line", APRD_TOKENIZE},
    {OPT_NO_BOS, "no-bos", NULL, "without the tokens the model puts around a text", APRD_TOKENIZE},
    {OPT_NO_PARSE, "no-parse-special", NULL, "control tokens' spelling is plain text",
     APRD_TOKENIZE},
    {'v', "verbose", NULL, "seed, counts, speeds and sources on stderr", APRD_LOAD},
    {'h', "help", NULL, "this text", APRD_ALL},
    {OPT_VERSION, "version", NULL, "the version", APRD_ALL},
};
#define N_OPTION (sizeof options / sizeof options[0])

static const struct aprd_verb_row verb_table[] = {
    {"run", "PATH PROMPT", "writes the continuation of PROMPT to stdout", APRD_RUN, 2},
    {"logits", "PATH", "token ids on stdin; a row of f32 logits per token on stdout", APRD_LOGITS,
     1},
    {"verify", "PATH",
     "compares a GPU with the CPU reference over 256 positions, whatever was found before",
     APRD_VERIFY, 1},
    {"tokenize", "PATH", "text on stdin; a token per line: id, tab, text", APRD_TOKENIZE, 1},
    {"detokenize", "PATH", "token ids on stdin; their text on stdout", APRD_DETOKENIZE, 1},
};
#define N_VERB (sizeof verb_table / sizeof verb_table[0])

void aprd_print_help(const struct aprd_verb_row *only)
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

static bool parse_device(const char *s, enum engine_device *out)
{
    static const char *const name[] = {
        [ENGINE_AUTO] = "auto", [ENGINE_CPU] = "cpu", [ENGINE_GPU] = "gpu"};
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
        if (strcmp(s, name[i]) == 0) {
            *out = (enum engine_device)i;
            return true;
        }
    return false;
}

bool aprd_given(const struct aprd_args *a, int id)
{
    for (size_t i = 0; i < N_OPTION; i++)
        if (options[i].id == id)
            return a->given_mask >> i & 1;
    return false;
}

/* Stores one option. Ranges of sampling values are checked once, by the sampler. */
static int take_option(void *ctx, const struct opts_item *item, const char *v, struct err *e)
{
    struct aprd_args *a = ctx;
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
    case OPT_DEVICE:
        ok = parse_device(v, &a->device);
        want = "auto, cpu or gpu";
        break;
    default: /* a switch: the mask below is all there is to keep */
        break;
    }
    a->given_mask |= UINT32_C(1) << (item - options);
    return ok ? 0 : err_set(e, -EINVAL, "--%s: '%s': expected %s", item->name, v, want);
}

int aprd_args_parse(struct aprd_args *a, int argc, char **argv, const struct aprd_verb_row **verb,
                    struct err *e)
{
    int first;
    *a = (struct aprd_args){.n_predict = -1, .given = sampler_defaults(), .random_seed = true};
    *verb = NULL;
    int rc = opts_parse(argc, argv, options, N_OPTION, take_option, a, &first, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; first < argc && i < N_VERB; i++)
        if (strcmp(argv[first], verb_table[i].name) == 0)
            *verb = &verb_table[i];
    if (first < argc && !*verb)
        return err_set(e, -EINVAL, "no verb '%s': " APRD_VERBS, argv[first]);
    if (aprd_given(a, 'h') || aprd_given(a, OPT_VERSION))
        return 0;
    if (!*verb)
        return err_set(e, -EINVAL, "a verb is missing: " APRD_VERBS);
    for (size_t i = 0; i < N_OPTION; i++)
        if (a->given_mask >> i & 1 && !(options[i].verbs & (*verb)->verb))
            return err_set(e, -EINVAL, "%s: takes no --%s", (*verb)->name, options[i].name);
    if (argc - first - 1 != (*verb)->n_operand)
        return err_set(e, -EINVAL, "%s: %d operands given; usage: aprd %s [OPTION]... %s",
                       (*verb)->name, argc - first - 1, (*verb)->name, (*verb)->operands);
    if ((*verb)->verb == APRD_VERIFY && a->device == ENGINE_CPU)
        return err_set(e, -EINVAL, "verify: --device cpu: that is what a GPU is compared with");
    if (sampler_params_check(&a->given, e) < 0)
        return -EINVAL;
    a->path = argv[first + 1];
    a->prompt = (*verb)->n_operand > 1 ? argv[first + 2] : NULL;
    return 0;
}
