/* Ollama's manifests: see ollama_manifest.h. */
#include "format/ollama_manifest.h"

#include "format/json.h"
#include "format/name.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MEDIA_LIST  "application/vnd.ollama.manifest.list.v2+json"
#define MEDIA_IMAGE "application/vnd.ollama.image."
#define QUOTE_MAX   80 /* bytes of a foreign text that a message repeats */

bool ollama_digest(char dst[OLLAMA_HEX_SIZE], const char *s)
{
    if (strncmp(s, "sha256", 6) || (s[6] != ':' && s[6] != '-') ||
        strlen(s + 7) != OLLAMA_HEX_SIZE - 1)
        return false;
    for (int i = 0; i < OLLAMA_HEX_SIZE - 1; i++) {
        char c = s[7 + i];
        if (c >= 'A' && c <= 'F')
            c = (char)(c - 'A' + 'a');
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        dst[i] = c;
    }
    dst[OLLAMA_HEX_SIZE - 1] = '\0';
    return true;
}

bool ollama_part_ok(enum ollama_part kind, const char *s)
{
    size_t len = strlen(s), max = kind == OLLAMA_HOST ? 350 : 80;
    if (len == 0 || len > max)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        bool word =
            (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
        bool later =
            c == '-' || (c == '.' && kind != OLLAMA_NAMESPACE) || (c == ':' && kind == OLLAMA_HOST);
        if (!word && (i == 0 || !later))
            return false;
    }
    return true;
}

bool ollama_public_host(const char *host)
{
    return !strcasecmp(host, "registry.ollama.ai") || !strcasecmp(host, "ollama.com");
}

/* A foreign text as a message may repeat it: escaped, cut. */
static const char *quoted(char dst[QUOTE_MAX + 4], const char *s)
{
    char *esc = name_escape(s);
    snprintf(dst, QUOTE_MAX + 4, "%.*s%s", QUOTE_MAX, esc ? esc : "",
             esc && strlen(esc) > QUOTE_MAX ? "..." : "");
    free(esc);
    return dst;
}

/* An optional text: "" if absent. NULL if it is something else. */
static const char *text_of(const cJSON *obj, const char *key)
{
    const cJSON *v = json_get(obj, key);
    return !v || cJSON_IsNull(v) ? "" : json_text(v);
}

static int get_text(const cJSON *obj, const char *what, const char *key, const char **out,
                    struct err *e)
{
    *out = text_of(obj, key);
    return *out ? 0 : err_set(e, -EUCLEAN, "%s%s%s is no text", what, *what ? "." : "", key);
}

static enum ollama_layer_kind kind_of(const char *media)
{
    static const struct {
        const char *name;
        enum ollama_layer_kind kind;
    } kinds[] = {
        {"model", OLLAMA_LAYER_MODEL},     {"projector", OLLAMA_LAYER_PROJECTOR},
        {"adapter", OLLAMA_LAYER_ADAPTER}, {"params", OLLAMA_LAYER_PARAMS},
        {"tensor", OLLAMA_LAYER_TENSOR},   {"draft", OLLAMA_LAYER_DRAFT},
    };
    size_t n = strlen(MEDIA_IMAGE);
    if (strncmp(media, MEDIA_IMAGE, n))
        return OLLAMA_LAYER_OTHER;
    media += n;
    n = strcspn(media, "; "); /* parameters of a media type */
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strlen(kinds[i].name) == n && !memcmp(kinds[i].name, media, n))
            return kinds[i].kind;
    return OLLAMA_LAYER_OTHER;
}

static int parse_digest(char dst[OLLAMA_HEX_SIZE], const char *what, const char *s, struct err *e)
{
    char q[QUOTE_MAX + 4];
    return ollama_digest(dst, s)
               ? 0
               : err_set(e, -EINVAL, "%s.digest is '%s', expected sha256: and 64 hex digits", what,
                         quoted(q, s));
}

static int parse_layer(struct ollama_layer *l, const cJSON *v, const char *what, struct err *e)
{
    const char *media, *digest, *ignored;
    if (!cJSON_IsObject(v))
        return err_set(e, -EUCLEAN, "%s is no object", what);
    int rc = get_text(v, what, "mediaType", &media, e);
    if (rc == 0)
        rc = get_text(v, what, "digest", &digest, e);
    if (rc == 0)
        rc = get_text(v, what, "from", &ignored, e);
    if (rc == 0)
        rc = get_text(v, what, "name", &ignored, e);
    if (rc == 0 && !json_uint(json_get(v, "size"), &l->size))
        rc = err_set(e, -EUCLEAN, "%s.size is no number of bytes", what);
    if (rc == 0)
        rc = parse_digest(l->sha256, what, digest, e);
    if (rc == 0)
        l->kind = kind_of(media);
    return rc;
}

static int parse_layers(struct ollama_manifest *m, const cJSON *v, const char *what, struct err *e)
{
    const cJSON *layers = json_get(v, "layers"), *l;
    const char *dot = *what ? "." : "";
    if (!layers || cJSON_IsNull(layers))
        return 0;
    if (!cJSON_IsArray(layers))
        return err_set(e, -EUCLEAN, "%s%slayers is no list", what, dot);
    m->layer = calloc((size_t)cJSON_GetArraySize(layers) + 1, sizeof *m->layer);
    if (!m->layer)
        return err_set(e, -ENOMEM, "no memory for a manifest's layers");
    cJSON_ArrayForEach(l, layers)
    {
        char name[64];
        snprintf(name, sizeof name, "%s%slayers[%zu]", what, dot, m->n_layer);
        int rc = parse_layer(&m->layer[m->n_layer], l, name, e);
        if (rc < 0)
            return rc;
        m->safetensors |= m->layer[m->n_layer++].kind == OLLAMA_LAYER_TENSOR;
    }
    return 0;
}

/* Where Ollama puts a runner on a machine that is no Mac. */
static int runner_rank(const char *runner)
{
    static const char *const order[] = {"ollama", "llamacpp", "mlx"};
    for (int i = 0; i < 3; i++)
        if (!strcasecmp(runner, order[i]))
            return i;
    return INT_MAX;
}

static int parse_body(struct ollama_manifest *m, const cJSON *v, const char *what, struct err *e)
{
    const char *runner, *format;
    int rc = get_text(v, what, "runner", &runner, e);
    if (rc == 0)
        rc = get_text(v, what, "format", &format, e);
    if (rc < 0)
        return rc;
    m->rank = runner_rank(runner);
    m->mlx = !strcasecmp(runner, "mlx");
    m->safetensors = !strcasecmp(format, "safetensors");
    const cJSON *config = json_get(v, "config");
    /* An unset config is written as one without a digest. */
    const char *digest = cJSON_IsObject(config) ? text_of(config, "digest") : NULL;
    if (config && !cJSON_IsNull(config) && !(digest && !*digest)) {
        char name[64];
        snprintf(name, sizeof name, "%s%sconfig", what, *what ? "." : "");
        rc = parse_layer(&m->config, config, name, e);
        m->has_config = rc == 0;
    }
    return rc < 0 ? rc : parse_layers(m, v, what, e);
}

static int check_version(const cJSON *v, const char *what, struct err *e)
{
    uint64_t version;
    const char *dot = *what ? "." : "";
    if (!json_uint(json_get(v, "schemaVersion"), &version))
        return err_set(e, -EUCLEAN, "%s%sschemaVersion is no number", what, dot);
    return version == 2 ? 0
                        : err_set(e, -ENOTSUP, "%s%sschemaVersion is %llu, only 2 is known", what,
                                  dot, (unsigned long long)version);
}

static int parse_child(struct ollama_manifest *m, const cJSON *v, const char *what, struct err *e)
{
    const char *media, *digest;
    if (!cJSON_IsObject(v))
        return err_set(e, -EUCLEAN, "%s is no object", what);
    int rc = get_text(v, what, "mediaType", &media, e);
    if (rc == 0)
        rc = get_text(v, what, "digest", &digest, e);
    if (rc < 0)
        return rc;
    if (!strcmp(media, MEDIA_LIST))
        return err_set(e, -EUCLEAN, "%s is a list inside a list", what);
    rc = parse_body(m, v, what, e);
    /* Either it names its blob or it is the manifest itself. */
    if (rc == 0 && *digest && !m->has_config && m->n_layer == 0)
        return parse_digest(m->ref, what, digest, e);
    return rc < 0 ? rc : check_version(v, what, e);
}

static int parse_list(struct ollama_manifest *m, const cJSON *v, struct err *e)
{
    const cJSON *all = json_get(v, "manifests"), *c;
    m->is_list = true;
    if (!cJSON_IsArray(all))
        return err_set(e, -EUCLEAN, "manifests is no list");
    m->child = calloc((size_t)cJSON_GetArraySize(all) + 1, sizeof *m->child);
    if (!m->child)
        return err_set(e, -ENOMEM, "no memory for a list of manifests");
    cJSON_ArrayForEach(c, all)
    {
        char name[48];
        snprintf(name, sizeof name, "manifests[%zu]", m->n_child);
        int rc = parse_child(&m->child[m->n_child++], c, name, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int parse_text(cJSON **out, const char *p, size_t len, const char *what, struct err *e)
{
    if (len > OLLAMA_MANIFEST_MAX)
        return err_set(e, -ERANGE, "%s of more than 1 MiB", what);
    int rc = json_parse(out, p, len, e);
    if (rc < 0)
        return rc;
    if (cJSON_IsObject(*out))
        return 0;
    cJSON_Delete(*out);
    *out = NULL;
    return err_set(e, -EUCLEAN, "%s is not a JSON object", what);
}

int ollama_manifest_parse(struct ollama_manifest **out, const char *p, size_t len, struct err *e)
{
    cJSON *v = NULL;
    int rc = parse_text(&v, p, len, "a manifest", e);
    if (rc < 0)
        return rc;
    struct ollama_manifest *m = calloc(1, sizeof *m);
    const char *media = NULL;
    rc = m ? check_version(v, "", e) : err_set(e, -ENOMEM, "no memory for a manifest");
    if (rc == 0 && !(media = text_of(v, "mediaType")))
        rc = err_set(e, -EUCLEAN, "mediaType is no text");
    if (rc == 0)
        rc = !strcmp(media, MEDIA_LIST) ? parse_list(m, v, e) : parse_body(m, v, "", e);
    cJSON_Delete(v);
    if (rc < 0) {
        ollama_manifest_free(m);
        return rc;
    }
    *out = m;
    return 0;
}

void ollama_manifest_free(struct ollama_manifest *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_child; i++)
        free(m->child[i].layer); /* children have no children */
    free(m->child);
    free(m->layer);
    free(m);
}

const struct ollama_manifest *ollama_manifest_pick(const struct ollama_manifest *m)
{
    const struct ollama_manifest *best = NULL;
    for (size_t i = 0; i < m->n_child; i++)
        if (m->child[i].rank != INT_MAX && (!best || m->child[i].rank < best->rank))
            best = &m->child[i];
    return best;
}

int ollama_config_parse(struct ollama_config *c, const char *p, size_t len, struct err *e)
{
    cJSON *v = NULL;
    *c = (struct ollama_config){0};
    int rc = parse_text(&v, p, len, "a config", e);
    if (rc < 0)
        return rc;
    const char *format, *host, *model;
    rc = get_text(v, "config", "model_format", &format, e);
    if (rc == 0)
        rc = get_text(v, "config", "remote_host", &host, e);
    if (rc == 0)
        rc = get_text(v, "config", "remote_model", &model, e);
    const cJSON *defaults = json_get(v, "generation_defaults");
    if (rc == 0 && defaults && !cJSON_IsNull(defaults)) {
        if (!cJSON_IsObject(defaults))
            rc = err_set(e, -EUCLEAN, "config.generation_defaults is no object");
        else if (!(c->defaults = cJSON_PrintUnformatted(defaults)))
            rc = err_set(e, -ENOMEM, "no memory for a config");
    }
    if (rc == 0) {
        c->safetensors = !strcasecmp(format, "safetensors");
        c->remote = *host || *model;
    }
    cJSON_Delete(v);
    return rc;
}

void ollama_config_release(struct ollama_config *c)
{
    free(c->defaults);
    c->defaults = NULL;
}

/* to gets what it lacks of from. */
static int add_missing(cJSON *to, const cJSON *from, struct err *e)
{
    const cJSON *m;
    cJSON_ArrayForEach(m, from)
    {
        if (json_get(to, m->string))
            continue;
        cJSON *copy = cJSON_Duplicate(m, true);
        if (!copy || !cJSON_AddItemToObject(to, m->string, copy)) {
            cJSON_Delete(copy);
            return err_set(e, -ENOMEM, "no memory for parameters");
        }
    }
    return 0;
}

int ollama_params(char **p, size_t *len, const char *defaults, struct err *e)
{
    cJSON *v = NULL, *more = NULL;
    if (!*p && !defaults)
        return 0;
    int rc = *p ? parse_text(&v, *p, *len, "parameters", e) : 0;
    if (rc < 0 || !defaults)
        goto out;
    rc = parse_text(&more, defaults, strlen(defaults), "generation_defaults", e);
    if (rc == 0 && v)
        rc = add_missing(v, more, e);
    char *text = rc == 0 ? cJSON_PrintUnformatted(v ? v : more) : NULL;
    if (rc == 0 && !text)
        rc = err_set(e, -ENOMEM, "no memory for parameters");
    if (rc == 0) {
        free(*p);
        *p = text;
        *len = strlen(text);
    }
out:
    cJSON_Delete(v);
    cJSON_Delete(more);
    return rc;
}
