/* What a candidate is: opened, parsed, its role, its facts, its stem, its size. */
#include "format/sibling.h"
#include "format/store_internal.h"

#include "format/bytes.h"
#include "format/quant.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define CHANGED   "changed while it was read: still being written"
#define MAX_AGAIN 12 /* times that a file replaced meanwhile is read anew */

/* A refusal of the file: kept in the entry, which stays in the list. */
static int refuse(struct store_entry *en, int rc, const char *why)
{
    size_t n = en->n_part ? strlen(en->part[0].path) : 0;
    /* The path has its own column in every listing. */
    if (n && !strncmp(why, en->part[0].path, n) && !strncmp(why + n, ": ", 2))
        why += n + 2;
    free(en->why);
    en->why = strdup(why);
    en->rc = rc;
    if (rc == -ENOTSUP || rc == -EUCLEAN)
        en->role = STORE_UNSUPPORTED;
    return en->why ? 0 : -ENOMEM;
}

static int set_text(char **dst, const char *text)
{
    free(*dst);
    *dst = strdup(text);
    return *dst ? 0 : -ENOMEM;
}

static char *key_text(const struct gguf *g, const char *name)
{
    struct gguf_str s = {"", 0};
    const struct gguf_key *k = gguf_find(g, name);
    if (k)
        gguf_as_str(k, &s);
    return strndup(s.p, s.len);
}

static bool key_is(const struct gguf *g, const char *name, const char *lit)
{
    struct gguf_str s;
    const struct gguf_key *k = gguf_find(g, name);
    return k && gguf_as_str(k, &s) && gguf_str_eq(s, lit);
}

static bool has_prefix_key(const struct gguf *g, const char *prefix)
{
    size_t n = strlen(prefix);
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        const struct gguf_key *k = gguf_key(g, i);
        if (k->name.len >= n && !memcmp(k->name.p, prefix, n))
            return true;
    }
    return false;
}

/* By what the file says about itself, never by its name. */
static enum store_role role_of(const struct gguf *g)
{
    if (key_is(g, "general.architecture", "clip") || key_is(g, "general.type", "mmproj"))
        return STORE_PROJECTOR;
    if (key_is(g, "general.type", "adapter") || gguf_find(g, "adapter.type"))
        return STORE_ADAPTER;
    if (key_is(g, "general.type", "imatrix") || has_prefix_key(g, "imatrix."))
        return STORE_IMATRIX;
    if (gguf_n_tensor(g) == 0)
        return gguf_find(g, "tokenizer.ggml.model") ? STORE_VOCAB : STORE_UNSUPPORTED;
    return STORE_MODEL;
}

static uint64_t n_weights(const struct gguf_tensor *t)
{
    uint64_t n = 1;
    for (int i = 0; i < GGUF_MAX_DIMS; i++)
        n *= t->ne[i]; /* the reader checked that the product fits */
    return n;
}

/* llama.cpp's word for the file's type; without the key, the type that most weights have. */
static char *quant_text(const struct gguf *g)
{
    uint64_t ftype, n[QUANT_ID_MAX + 1] = {0};
    const struct gguf_key *k = gguf_find(g, "general.file_type");
    if (k && gguf_as_u64(k, &ftype) && name_file_type(ftype))
        return strdup(name_file_type(ftype));
    uint32_t best = 0;
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        if (t->type > QUANT_ID_MAX)
            continue;
        n[t->type] += n_weights(t);
        if (n[t->type] > n[best])
            best = t->type;
    }
    const struct quant_type *type = quant_type(best);
    return strdup(n[best] && type ? type->name : "");
}

static int head_digest(const struct gguf *g, uint8_t out[NAME_ID_SIZE])
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = c && EVP_DigestInit_ex(c, EVP_sha256(), NULL);
    for (int i = 0; ok && i < gguf_n_part(g); i++) {
        size_t len;
        const uint8_t *head = gguf_head(g, i, &len);
        uint8_t num[16];
        store_u64(num, source_size(gguf_part(g, i)));
        store_u64(num + 8, len);
        ok = EVP_DigestUpdate(c, num, sizeof num) && EVP_DigestUpdate(c, head, len);
    }
    ok = ok && EVP_DigestFinal_ex(c, out, NULL);
    EVP_MD_CTX_free(c);
    return ok ? 0 : -ENOMEM;
}

/* The candidate's file name as that of a GGUF, malloc'ed: names are cleaned by its rules. */
static char *gguf_name(const char *file, const struct store_options *opt)
{
    size_t n = strlen(file);
    char *s = NULL;
    bool apr = n > 4 && strcasecmp(file + n - 4, ".apr") == 0;
    if (opt->view == STORE_VIEW_APR || !apr)
        return strdup(file);
    return asprintf(&s, "%.*s.gguf", (int)(n - 4), file) < 0 ? NULL : s;
}

/* The stem it wishes for. */
static int wish(struct store_entry *en, const struct store_cand *c, const struct gguf *g,
                const struct store_options *opt)
{
    static const char *const key[] = {"general.basename", "general.size_label", "general.finetune",
                                      "general.version", "general.name"};
    enum { N = sizeof key / sizeof *key };
    char *t[N] = {0};
    int rc = 0;
    for (int i = 0; i < N; i++)
        if (!(t[i] = key_text(g, key[i])))
            rc = -ENOMEM;
    const char *slash = strrchr(c->dir, '/');
    char *file = c->file ? gguf_name(c->file, opt) : NULL;
    if (c->file && !file)
        rc = -ENOMEM;
    struct name_facts f = {
        .file = file,
        .basename = t[0],
        .size_label = t[1],
        .finetune = t[2],
        .version = t[3],
        .name = t[4],
        .model_dir = c->model ? c->model
                     : slash  ? slash + 1
                              : c->dir,
        .tag = c->tag,
        .quant = en->quant,
        .chat_hint = opt->chat_hint && en->role == STORE_MODEL,
        .has_chat_template = gguf_find(g, "tokenizer.chat_template") != NULL,
        .id = en->head_sha256,
    };
    char stem[NAME_SIZE], full[NAME_SIZE + 8];
    if (rc == 0) {
        name_stem(stem, &f);
        bool add = en->role == STORE_PROJECTOR && strncmp(stem, "mmproj-", 7) != 0;
        snprintf(full, sizeof full, "%s%s", add ? "mmproj-" : "", stem);
        name_clean(stem, full, strlen(full), en->head_sha256);
        free(en->wish);
        en->wish = strdup(stem);
        rc = en->wish ? 0 : -ENOMEM;
    }
    for (int i = 0; i < N; i++)
        free(t[i]);
    free(file);
    return rc;
}

static int facts(struct store_entry *en, const struct store_cand *c, const struct gguf *g,
                 const struct store_options *opt)
{
    free(en->arch);
    free(en->quant);
    en->arch = key_text(g, "general.architecture");
    if (en->arch && strlen(en->arch) >= ARCH_NAME_MAX)
        en->arch[ARCH_NAME_MAX - 1] = '\0';
    for (char *p = en->arch; p && *p; p++) /* a word for tables: nothing that moves a cursor */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    en->quant = quant_text(g);
    if (!en->arch || !en->quant)
        return -ENOMEM;
    for (size_t i = 0; i < gguf_n_tensor(g); i++)
        en->n_params += n_weights(gguf_tensor(g, i));
    char name[256];
    snprintf(name, sizeof name, "%s.context_length", en->arch);
    const struct gguf_key *k = gguf_find(g, name);
    if (k)
        gguf_as_u64(k, &en->n_ctx_train);
    int rc = head_digest(g, en->head_sha256);
    return rc < 0 ? rc : wish(en, c, g, opt);
}

/* A hole in the data may be a download that was allocated and not filled, or honest zeros. */
static int warn_holes(struct store_entry *en, const struct gguf *g)
{
    for (int i = 0; i < gguf_n_part(g); i++) {
        int fd = source_fd(gguf_part(g, i));
        uint64_t from = gguf_data_start(g, i), end = gguf_data_end(g, i);
        off_t hole = fd >= 0 && from < end ? lseek(fd, (off_t)from, SEEK_HOLE) : -1;
        if (hole < 0 || (uint64_t)hole >= end)
            continue;
        free(en->warning);
        if (asprintf(&en->warning,
                     "%s%d of %d: a hole at byte %" PRIu64
                     ", inside tensor data: zeros, or not filled yet",
                     "part ", i + 1, gguf_n_part(g), (uint64_t)hole) < 0) {
            en->warning = NULL;
            return -ENOMEM;
        }
        return 0;
    }
    return 0;
}

/* What only a model has: siblings, and a size. */
static int model_facts(struct store *s, struct store_entry *en, const struct gguf *g)
{
    struct err why = {0};
    enum arch_values values =
        s->opt.vapr.values == VAPR_VALUES_COMPAT ? ARCH_VALUES_COMPAT : ARCH_VALUES_REFERENCE;
    int rc = sibling_digest(g, values, en->params, en->sibling_sha256, &why);
    if (rc < 0)
        return rc == -ENOMEM ? rc : refuse(en, rc, why.msg);
    en->tokenizer_rc = sibling_has_tokenizer(g, &why);
    if (store_starved(en->tokenizer_rc)) /* no fact of the file's, which would stay with it */
        return en->tokenizer_rc;
    if (en->tokenizer_rc < 0 && set_text(&en->tokenizer_why, why.msg) < 0)
        return -ENOMEM;
    en->generation_rc = sibling_has_generation(g, en->params, &why);
    if (store_starved(en->generation_rc))
        return en->generation_rc;
    if (en->generation_rc < 0 && en->generation_rc != -ENODATA &&
        set_text(&en->generation_why, why.msg) < 0)
        return -ENOMEM;
    if (s->opt.plan) {
        struct vapr *v = NULL;
        rc = vapr_new(&v, g, &s->opt.vapr, &why);
        if (rc < 0)
            return rc == -ENOMEM ? rc : refuse(en, rc, why.msg);
        en->size = vapr_size(v);
        en->head_len = store_head_len(vapr_plan(v));
        vapr_free(v);
    }
    return warn_holes(en, g);
}

static int examine_gguf(struct store *s, struct store_entry *en, const struct store_cand *c,
                        const struct gguf *g)
{
    en->role = role_of(g);
    if (en->role == STORE_MODEL)
        en->role = c->role_hint;
    int rc = facts(en, c, g, &s->opt);
    if (rc < 0)
        return rc;
    if (en->role == STORE_UNSUPPORTED)
        return refuse(en, -ENOTSUP, "no tensors and no tokenizer");
    return en->role == STORE_MODEL ? model_facts(s, en, g) : 0;
}

/* A .apr that is shown as a .gguf: whatever it holds, it is a file of its own there, without siblings.
 * What had to be derived is said where people look for problems. */
static int examine_apr(struct store *s, struct store_entry *en, const struct store_cand *c,
                       const struct vgguf *v)
{
    en->role = STORE_MODEL;
    en->size = s->opt.plan ? vgguf_plan(v)->size : 0;
    en->head_len = s->opt.plan ? store_head_len(vgguf_plan(v)) : 0;
    for (size_t i = 0; i < vgguf_n_note(v); i++) {
        char *text = NULL;
        if (asprintf(&text, "%s%s%s", i ? en->warning : "derived: ", i ? "; " : "",
                     vgguf_note(v, i)) < 0)
            return -ENOMEM;
        free(en->warning);
        en->warning = text;
    }
    return facts(en, c, vgguf_gguf(v), &s->opt);
}

/* Something failed or not: if a part changed meanwhile, that is the reason, and it is no verdict.
 */
static int check_parts(struct store_entry *en, struct source *const *part, int n, bool *changed)
{
    for (int i = 0; i < n; i++)
        if (source_check(part[i], NULL) < 0) {
            *changed = true;
            en->role = STORE_UNSUPPORTED;
            return refuse(en, -EAGAIN, CHANGED);
        }
    return 0;
}

/* What one file's header takes of memory, counted, so that few large ones are there at once. */
struct large {
    const struct store_crew *crew;
    size_t n_read;
    bool begun;
};

static void before_read(void *ctx, size_t len)
{
    struct large *l = ctx;
    l->n_read += len;
    if (l->begun || l->n_read <= STORE_LARGE_HEAD)
        return;
    l->crew->large_begin();
    l->begun = true;
}

/* Opens the parts of en: *n of them, the caller's to close even where one could not be opened. */
static int open_parts(struct store *s, const struct store_entry *en, struct source **part, int *n,
                      struct large *l, struct err *why)
{
    int rc = 0;
    for (*n = 0; *n < en->n_part && rc == 0; *n += rc == 0) {
        rc = store_part_open(&part[*n], s, &en->part[*n], why);
        if (rc == 0 && l->crew)
            source_set_before(part[*n], before_read, l);
    }
    return rc;
}

/* *changed: en is refused because a part is not what it was when the store was walked. */
static int examine_once(struct store *s, struct store_entry *en, const struct store_cand *c,
                        bool *changed, struct err *e)
{
    struct err why = {0};
    struct gguf *g = NULL;
    struct apr *a = NULL;
    struct vgguf *v = NULL;
    bool reverse = s->opt.view == STORE_VIEW_GGUF;
    struct source **part = calloc((size_t)en->n_part + 1, sizeof(struct source *));
    if (!part)
        return err_set(e, -ENOMEM, "no memory for %d parts", en->n_part);
    struct large large = {.crew = s->opt.crew};
    int n, rc, bad = open_parts(s, en, part, &n, &large, &why);
    if (bad == 0 && reverse)
        bad = apr_open(&a, part[0], &why);
    if (bad == 0)
        bad = reverse ? vgguf_new(&v, a, &why) : gguf_open(&g, part, n, &why);
    *changed = bad == -ESTALE;
    if (*changed)
        rc = refuse(en, -EAGAIN, CHANGED);
    else if (store_starved(bad))
        rc = bad;
    else if (bad < 0)
        rc = refuse(en, bad, why.msg);
    else
        rc = reverse ? examine_apr(s, en, c, v) : examine_gguf(s, en, c, g);
    if (rc == 0)
        rc = check_parts(en, part, n, changed);
    gguf_close(g);
    vgguf_free(v);
    apr_close(a);
    for (int i = 0; i < n; i++)
        source_close(part[i]);
    free(part);
    if (large.begun)
        large.crew->large_end();
    return rc < 0 ? err_set(e, rc, "%s, while a file was examined", strerror(-rc)) : 0;
}

/* Do the parts' paths lead to files that are not what they were, each of which may be whole? Then these
 * are en's now. A file that is being written may look so, too: it changes again under the next reading.
 * The inode number does not tell them apart: that of a replaced file is soon given to another. */
static bool were_replaced(struct store *s, struct store_entry *en)
{
    size_t n = strcmp(s->root, "/") ? strlen(s->root) : 0;
    int root = open(s->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool other = false, there = root >= 0;
    en->src_size = 0;
    for (int i = 0; i < en->n_part && there; i++) {
        struct store_part *p = &en->part[i];
        struct source_id now;
        char sha256[65];
        const char *rel = p->path + n + 1;
        int fd = p->how == STORE_HOW_HUB ? store_open_hub(root, rel, &now, sha256, NULL)
                                         : store_open_file(root, p->how, rel, -1, NULL, &now, NULL);
        if (fd >= 0)
            close(fd);
        there = fd >= 0;
        other = other || (there && !source_id_equal(&now, &p->id));
        if (there)
            p->id = now;
        if (there && p->how == STORE_HOW_HUB) /* by the name of the blob, which is another now */
            memcpy(p->sha256, sha256, sizeof sha256);
        en->src_size += p->id.size;
    }
    if (root >= 0)
        close(root);
    return other && there;
}

static int forget_facts(struct store_entry *en)
{
    char **text[] = {&en->why,   &en->warning,       &en->arch,
                     &en->quant, &en->tokenizer_why, &en->generation_why};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        if (set_text(text[i], "") < 0)
            return -ENOMEM;
    en->role = STORE_UNSUPPORTED;
    en->rc = en->tokenizer_rc = en->generation_rc = 0;
    en->n_params = en->n_ctx_train = en->size = en->head_len = 0;
    return 0;
}

int store_examine(struct store *s, struct store_entry *en, const struct store_cand *c,
                  struct err *e)
{
    /* A file replaced by another while it is read must not be missing until the next scan. */
    for (int i = 0;; i++) {
        bool changed;
        if (forget_facts(en) < 0)
            return err_set(e, -ENOMEM, "no memory for an entry");
        int rc = examine_once(s, en, c, &changed, e);
        if (rc < 0 || !changed || i == MAX_AGAIN || !were_replaced(s, en))
            return rc;
    }
}
