/* generation_config.json: how to sample, by Hugging Face's keys, as far as the file (general.sampling.*)
 * and its store (Ollama's parameters) say it. What neither says has no key there: a default of ours
 * would look like the model's. What cannot be said in Hugging Face's words is no file at all. */
#include "format/sibling.h"

#include "format/sibling_internal.h"

#include "format/json.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PREFIX "general.sampling."

enum {
    TEMP,
    TOP_K,
    TOP_P,
    MIN_P,
    TYPICAL_P,
    PENALTY,
    PENALTY_LAST_N,
    N_PREDICT,
    MIROSTAT,
    N_SETTING
};

/* A setting's names in a GGUF and in Ollama's parameters (NULL: none); llama.cpp's sampler that obeys
 * it; what may stand there, lo itself only where it is closed: what the samplers of transformers 5
 * take (generation/logits_process.py). */
static const struct {
    const char *gguf, *ollama, *sampler;
    bool integer, closed;
    double lo, hi;
} settings[N_SETTING] = {
    [TEMP] = {"temp", "temperature", "temperature", false, true, -DBL_MAX, DBL_MAX},
    [TOP_K] = {"top_k", "top_k", "top_k", true, true, INT32_MIN, INT32_MAX},
    [TOP_P] = {"top_p", "top_p", "top_p", false, true, 0, 1},
    [MIN_P] = {"min_p", "min_p", "min_p", false, true, 0, 1},
    [TYPICAL_P] = {NULL, "typical_p", NULL, false, false, 0, 1},
    [PENALTY] = {"penalty_repeat", "repeat_penalty", "penalties", false, false, 0, DBL_MAX},
    [PENALTY_LAST_N] = {"penalty_last_n", "repeat_last_n", "penalties", true, true, INT32_MIN,
                        INT32_MAX},
    [N_PREDICT] = {NULL, "num_predict", NULL, true, true, INT32_MIN, INT32_MAX},
    [MIROSTAT] = {"mirostat", "mirostat", NULL, true, true, INT32_MIN, INT32_MAX},
};

/* What is said, by whom. */
struct said {
    bool is[N_SETTING], f32[N_SETTING]; /* f32: to be written with a float's digits */
    double v[N_SETTING];
    cJSON *params;     /* owned; NULL: none */
    const cJSON *stop; /* in params: a text, or texts */
};

static int refuse(struct err *e, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int refuse(struct err *e, int rc, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(e, rc, "no generation_config.json: %s", text);
}

/* Takes a value in, under the name it has where it stands. */
static int say(struct said *s, int i, double v, bool f32, const char *where, const char *key,
               struct err *e)
{
    if (!isfinite(v) || v > settings[i].hi || v < settings[i].lo ||
        (v == settings[i].lo && !settings[i].closed))
        return refuse(e, -EUCLEAN, "%s%s is %g, no value that the setting can have", where, key, v);
    if (settings[i].integer && v != floor(v))
        return refuse(e, -EUCLEAN, "%s%s is %g, expected a whole number", where, key, v);
    s->is[i] = true;
    s->f32[i] = f32;
    s->v[i] = v;
    return 0;
}

/* Two names of a sampler, as llama.cpp takes them: "top_k", "top-k", "topk"; two have a short one. */
static bool is_sampler(const char *p, size_t len, const char *sampler)
{
    static const char *const other[][2] = {{"temperature", "temp"}, {"top_p", "nucleus"}};
    for (size_t i = 0; i < 2; i++)
        if (!strcmp(sampler, other[i][0]) && len == strlen(other[i][1]) &&
            !strncasecmp(p, other[i][1], len))
            return true;
    size_t n = 0;
    for (; *sampler; sampler++) {
        bool sep = *sampler == '_';
        if (n < len && (sep ? p[n] == '_' || p[n] == '-' : (p[n] | 0x20) == *sampler))
            n++;
        else if (!sep)
            return false;
    }
    return n == len;
}

/* Does general.sampling.sequence, "top_k;temperature", leave the sampler out? Then what it would obey
 * has no meaning in this file. */
static bool left_out(const struct gguf_str *sequence, const char *sampler)
{
    if (!sequence->len || !sampler)
        return false;
    for (size_t i = 0, n; i <= sequence->len; i += n + 1) {
        const char *p = sequence->p + i, *end = memchr(p, ';', sequence->len - i);
        n = end ? (size_t)(end - p) : sequence->len - i;
        if (is_sampler(p, n, sampler))
            return false;
    }
    return true;
}

static int said_by_file(struct said *s, const struct gguf *g, struct err *e)
{
    struct gguf_str sequence = {"", 0};
    const struct gguf_key *k = gguf_find(g, PREFIX "sequence");
    if (k && !gguf_as_str(k, &sequence))
        return refuse(e, -EUCLEAN, PREFIX "sequence is no text");
    for (int i = 0; i < N_SETTING; i++) {
        char name[64];
        double v;
        snprintf(name, sizeof name, PREFIX "%s", settings[i].gguf ? settings[i].gguf : "");
        k = settings[i].gguf ? gguf_find(g, name) : NULL;
        if (!k || left_out(&sequence, settings[i].sampler))
            continue;
        if (!gguf_as_f64(k, &v))
            return refuse(e, -EUCLEAN, "%s is no number", name);
        int rc = say(s, i, v, k->type == GGUF_F32, "", name, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool is_stop(const cJSON *v)
{
    return json_text(v) && *json_text(v);
}

static int said_by_params(struct said *s, const char *params, struct err *e)
{
    if (!params || !*params)
        return 0;
    int rc = json_parse(&s->params, params, strlen(params), e);
    if (rc < 0) {
        err_wrap(e, "no generation_config.json: params");
        return rc;
    }
    for (int i = 0; i < N_SETTING; i++) {
        const cJSON *m = json_get(s->params, settings[i].ollama);
        double v;
        if (!m || cJSON_IsNull(m))
            continue;
        if (!json_num(m, &v))
            return refuse(e, -EUCLEAN, "params: %s is no number", settings[i].ollama);
        rc = say(s, i, v, false, "params: ", settings[i].ollama, e);
        if (rc < 0)
            return rc;
    }
    const cJSON *stop = json_get(s->params, "stop"), *one;
    bool good = !stop || cJSON_IsNull(stop) || cJSON_IsArray(stop) || is_stop(stop);
    for (one = cJSON_IsArray(stop) ? stop->child : NULL; one; one = one->next)
        good = good && is_stop(one);
    if (!good)
        return refuse(e, -EUCLEAN, "params: stop is no text and no list of texts");
    s->stop = is_stop(stop) || (cJSON_IsArray(stop) && stop->child) ? stop : NULL;
    return 0;
}

/* From what was said to what it means there. *greedy: the most likely token, always. */
static int settle(struct said *s, bool *greedy, struct err *e)
{
    if (s->is[MIROSTAT] && s->v[MIROSTAT] != 0)
        return refuse(e, -ENOTSUP, "it asks for mirostat, which Hugging Face's keys do not have");
    *greedy = s->is[TEMP] && s->v[TEMP] <= 0;
    for (int i = TEMP; *greedy && i <= TYPICAL_P; i++)
        s->is[i] = false; /* no choice is left for them to make */
    if (s->v[TOP_K] < 0)
        s->v[TOP_K] = 0; /* all tokens, here and there */
    if (s->is[PENALTY_LAST_N] && s->v[PENALTY_LAST_N] == 0)
        s->is[PENALTY] = false;
    if (s->v[N_PREDICT] <= 0)
        s->is[N_PREDICT] = false; /* as long as there is room: it has no word for that */
    bool any = *greedy || s->stop;
    for (int i = 0; i < N_SETTING; i++)
        any |= s->is[i] && i != PENALTY_LAST_N && i != MIROSTAT;
    return any ? 0 : refuse(e, -ENODATA, "nothing is said of sampling");
}

static int collect(struct said *s, bool *greedy, const struct gguf *g, const char *params,
                   struct err *e)
{
    int rc = said_by_file(s, g, e);
    if (rc == 0)
        rc = said_by_params(s, params, e); /* after it: what a store sets is nearer to the user */
    return rc < 0 ? rc : settle(s, greedy, e);
}

static void put_id(struct json_out *o, const char *key, int32_t id)
{
    if (id == ARCH_NO_TOKEN)
        return;
    json_key(o, key);
    json_put_i64(o, id);
}

/* Where llama.cpp ends, so does who reads this: one id, or a list. */
static void put_ends(struct json_out *o, const struct arch_config *c)
{
    int32_t id[3] = {c->eos}, more[2] = {c->eot, c->eom};
    int n = c->eos != ARCH_NO_TOKEN;
    for (int i = 0; i < 2; i++)
        if (more[i] != ARCH_NO_TOKEN && (n < 1 || more[i] != id[0]) && (n < 2 || more[i] != id[1]))
            id[n++] = more[i];
    if (n < 2) {
        put_id(o, "eos_token_id", n ? id[0] : ARCH_NO_TOKEN);
        return;
    }
    json_key(o, "eos_token_id");
    json_open(o, '[');
    for (int i = 0; i < n; i++)
        json_put_i64(o, id[i]);
    json_close(o, ']');
}

static void put_whole(struct json_out *o, const char *key, const struct said *s, int i)
{
    if (!s->is[i])
        return;
    json_key(o, key);
    json_put_i64(o, (int64_t)s->v[i]);
}

static void put_real(struct json_out *o, const char *key, const struct said *s, int i)
{
    if (s->is[i])
        sibling_put_real(o, key, s->v[i], s->f32[i]);
}

static void put_stop(struct json_out *o, const cJSON *stop)
{
    const cJSON *one;
    if (!stop)
        return;
    json_key(o, "stop_strings");
    json_open(o, '[');
    if (!cJSON_IsArray(stop))
        json_put_cstr(o, json_text(stop));
    for (one = cJSON_IsArray(stop) ? stop->child : NULL; one; one = one->next)
        json_put_cstr(o, json_text(one));
    json_close(o, ']');
}

/* In the order of names, as transformers writes it. */
static void put_all(struct json_out *o, const struct said *s, bool greedy,
                    const struct arch_config *c)
{
    bool samples = false;
    for (int i = TEMP; i <= TYPICAL_P; i++)
        samples |= s->is[i];
    json_open(o, '{');
    put_id(o, "bos_token_id", c->bos);
    if (samples || greedy) { /* without it temperature and its like are not obeyed */
        json_add_bool(o, "do_sample", samples);
    }
    put_ends(o, c);
    put_whole(o, "max_new_tokens", s, N_PREDICT);
    put_real(o, "min_p", s, MIN_P);
    put_id(o, "pad_token_id", c->pad);
    put_real(o, "repetition_penalty", s, PENALTY);
    put_stop(o, s->stop);
    put_real(o, "temperature", s, TEMP);
    put_whole(o, "top_k", s, TOP_K);
    put_real(o, "top_p", s, TOP_P);
    put_real(o, "typical_p", s, TYPICAL_P);
    json_close(o, '}');
}

int sibling_has_generation(const struct gguf *g, const char *params, struct err *e)
{
    struct said s = {0};
    bool greedy;
    int rc = collect(&s, &greedy, g, params, e);
    cJSON_Delete(s.params);
    return rc;
}

int sibling_generation(const struct gguf *g, enum arch_values values, const char *params,
                       char **out, size_t *len, struct err *e)
{
    struct said s = {0};
    struct arch_config c = {0};
    struct json_out o;
    bool greedy;
    json_out_init(&o);
    int rc = collect(&s, &greedy, g, params, e);
    if (rc == 0)
        rc = arch_resolve(g, values, &c, NULL, e);
    if (rc == 0) {
        put_all(&o, &s, greedy, &c);
        rc = o.rc < 0 ? err_set(e, o.rc, "generation_config.json could not be written") : 0;
    }
    if (rc == 0) {
        *out = o.p;
        *len = o.len;
        o.p = NULL;
    }
    json_out_release(&o);
    arch_config_release(&c);
    cJSON_Delete(s.params);
    return rc;
}
