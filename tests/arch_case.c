/* See arch_case.h. */
#include "tests/arch_case.h"

#include "tests/support.h"

static char *cut(char **p, char end)
{
    char *s = *p, *q = strchr(s, end);
    if (q) {
        *q = 0;
        *p = q + 1;
    } else {
        *p = s + strlen(s);
    }
    return strdup(s);
}

struct arch_line *arch_lines(size_t *n)
{
    size_t len;
    uint8_t *raw = file_read("tests/data/arch-table.tsv", &len);
    assert_non_null(raw);
    char *text = strndup((char *)raw, len), *p = text;
    struct arch_line *l = calloc(512, sizeof *l);
    free(raw);
    *n = 0;
    while (*p && *n < 512) {
        char *line = cut(&p, '\n'), *q = line;
        if (*line != '#' && strncmp(line, "arch\t", 5) != 0) {
            struct arch_line *a = &l[(*n)++];
            a->name = cut(&q, '\t');
            a->rope = cut(&q, '\t');
            a->eps = cut(&q, '\t');
            a->required = cut(&q, '\t');
            a->optional = cut(&q, '\t');
        }
        free(line);
    }
    free(text);
    return l;
}

void arch_lines_free(struct arch_line *l, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(l[i].name);
        free(l[i].rope);
        free(l[i].eps);
        free(l[i].required);
        free(l[i].optional);
    }
    free(l);
}

bool arch_list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; (p = strstr(p, word)); p++)
        if ((p == list || strchr(",|", p[-1])) && (!p[n] || strchr(",|", p[n])))
            return true;
    return false;
}

const char *arch_name(const char *arch, const char *key)
{
    static char ring[8][192];
    static int at;
    char *s = ring[at++ % 8];
    snprintf(s, sizeof ring[0], "%s.%s", arch, key);
    return s;
}

static void put_required(struct gguf_build *b, const char *arch, const char *key)
{
    static const uint8_t local[2] = {1, 0};
    static const int32_t sections[4] = {4, 4, 0, 0};
    static const float floats[2] = {2, 2};
    const char *name = arch_name(arch, key);
    if (strncmp(key, "xielu.", 6) == 0) /* llama.cpp reads these without the prefix */
        gguf_build_array(b, key, 6, floats, 2);
    else if (strcmp(key, "attention.sliding_window_pattern") == 0)
        gguf_build_array(b, name, 7, local, 2);
    else if (strcmp(key, "rope.dimension_sections") == 0)
        gguf_build_array(b, name, 5, sections, 4);
    else if (strstr(key, "scale") || strstr(key, "freq_base") || strstr(key, "clamp") ||
             strstr(key, "magnitude") || strstr(key, "lower_bound"))
        gguf_build_f32(b, name, 2);
    else if (strcmp(key, "hidden_activation") == 0)
        gguf_build_str(b, name, "gelu");
    else
        gguf_build_u32(b, name, 8);
}

struct gguf_build *arch_case(const struct arch_line *l)
{
    struct gguf_build_opt o = gguf_build_defaults(l->name);
    if (strcmp(l->eps, "layer_norm_epsilon") == 0)
        o.eps_key = GGUF_BUILD_EPS_LN;
    struct gguf_build *b = gguf_build_llama_like(l->name, &o);
    char *list = strdup(l->required), *p = list;
    while (*p && strcmp(list, "-") != 0) {
        char *key = cut(&p, ',');
        put_required(b, l->name, key);
        free(key);
    }
    free(list);
    gguf_build_u32(b, arch_name(l->name, "features_length"), 64); /* wavtokenizer's width */
    return b;
}

static void resolve(struct arch_open *a, enum arch_values values)
{
    if (!a->rc)
        a->rc = arch_resolve(a->g, values, &a->c, &a->r, &a->e);
}

void arch_open_build(struct arch_open *a, const struct gguf_build *b, enum arch_values values)
{
    size_t len;
    *a = (struct arch_open){0};
    a->bytes = gguf_build_bytes(b, &len);
    a->src = mem_source(a->bytes, len, "built");
    a->rc = gguf_open(&a->g, &a->src, 1, &a->e);
    if (a->rc < 0)
        fail_msg("the built file does not open: %s", a->e.msg);
    resolve(a, values);
}

void arch_open_path(struct arch_open *a, const char *path)
{
    *a = (struct arch_open){0};
    a->rc = gguf_open_path(&a->g, path, &a->e);
    resolve(a, ARCH_VALUES_REFERENCE);
}

void arch_open_release(struct arch_open *a)
{
    arch_report_release(&a->r);
    arch_config_release(&a->c);
    gguf_close(a->g);
    source_close(a->src);
    free(a->bytes);
}

const struct arch_field *arch_open_field(const struct arch_open *a, const char *name)
{
    for (size_t i = 0; i < a->r.n_field; i++)
        if (strcmp(a->r.field[i].name, name) == 0)
            return &a->r.field[i];
    fail_msg("the report has no field %s", name);
    return NULL;
}

bool arch_open_noted(const struct arch_open *a, const char *text)
{
    for (size_t i = 0; i < a->r.n_note; i++)
        if (strstr(a->r.note[i], text))
            return true;
    return false;
}

struct arch_open arch_open_good(const struct gguf_build *b)
{
    struct arch_open a;
    arch_open_build(&a, b, ARCH_VALUES_REFERENCE);
    if (a.rc < 0)
        fail_msg("refused: %s", a.e.msg);
    return a;
}

void arch_refused(struct gguf_build *b, int rc, const char *says)
{
    struct arch_open a;
    arch_open_build(&a, b, ARCH_VALUES_REFERENCE);
    if (a.rc != rc || !strstr(a.e.msg, says))
        fail_msg("expected %s with \"%s\", got %d: %s", err_name(rc), says, a.rc, a.e.msg);
    arch_open_release(&a);
    gguf_build_free(b);
}

struct gguf_build *arch_model(const char *arch)
{
    return gguf_build_llama_like(arch, NULL);
}
