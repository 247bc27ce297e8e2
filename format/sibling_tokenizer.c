/* tokenizer.json from a GGUF's byte-level BPE. Everything that Hugging Face's loader would refuse,
 * or would read in another way than llama.cpp does, is found first: then there is no file. */
#include "format/sibling.h"

#include "format/sibling_internal.h"

#include "format/json.h"
#include "format/pretok.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define GPT2_DEFAULT_BOS_EOS 11 /* llama.cpp's ids for tokenizer.ggml.model "gpt2" without keys */
#define SPM_DEFAULT_BOS      1  /* and for "llama" */
#define SPM_DEFAULT_EOS      2
#define MAX_TOKENS           (UINT64_C(1) << 22) /* 16 times the largest vocabulary there is */

/* Multiply and rotate, the state mixed with the seed at both ends. */
static uint64_t hash_bytes(uint64_t seed, const char *p, size_t len)
{
    uint64_t h = seed ^ len;
    for (size_t i = 0; i < len; i++) {
        h = (h ^ (uint8_t)p[i]) * UINT64_C(0x9e3779b97f4a7c15);
        h = h << 31 | h >> 33;
    }
    h = (h ^ seed) * UINT64_C(0xbf58476d1ce4e5b9);
    return h ^ h >> 29;
}

static int table_init(struct table *t, uint64_t n)
{
    size_t cap = 16;
    while (cap < 2 * n)
        cap *= 2;
    t->slot = calloc(cap, sizeof *t->slot);
    t->mask = cap - 1;
    if (getrandom(&t->seed, sizeof t->seed, GRND_NONBLOCK) < 0)
        t->seed = (uintptr_t)t->slot;
    return t->slot ? 0 : -ENOMEM;
}

static bool same(struct gguf_str a, struct gguf_str b)
{
    return a.len == b.len && !memcmp(a.p, b.p, a.len);
}

int64_t sibling_find_text(const struct bpe *b, struct gguf_str s, size_t *free_at)
{
    size_t i = hash_bytes(b->by_text.seed, s.p, s.len) & b->by_text.mask;
    for (; b->by_text.slot[i]; i = (i + 1) & b->by_text.mask)
        if (same(b->text[b->by_text.slot[i] - 1], s))
            return b->by_text.slot[i] - 1;
    if (free_at)
        *free_at = i;
    return -1;
}

static void bpe_release(struct bpe *b)
{
    free(b->text);
    free(b->pair);
    free(b->joined);
    free(b->by_text.slot);
    free(b->by_pair.slot);
}

int sibling_no_file(struct err *e, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(e, -ENOENT, "no tokenizer.json: %s", text);
}

static int load_tokens(struct bpe *b, struct err *e)
{
    b->n_token = b->tokens->n;
    b->text = calloc(b->n_token + 1, sizeof *b->text);
    if (!b->text || table_init(&b->by_text, b->n_token) < 0)
        return err_set(e, -ENOMEM, "no memory for %" PRIu64 " tokens", b->n_token);
    size_t pos = 0, free_at;
    struct gguf_key el;
    for (uint64_t i = 0; i < b->n_token && gguf_next_elem(b->tokens, &pos, &el); i++) {
        gguf_as_str(&el, &b->text[i]);
        if (!json_utf8_valid(b->text[i].p, b->text[i].len) ||
            memchr(b->text[i].p, '\0', b->text[i].len))
            return sibling_no_file(e, "token %" PRIu64 " is not UTF-8, or holds a NUL", i);
        if (b->text[i].len == 0)
            continue; /* several may be empty: they get names of their own */
        int64_t other = sibling_find_text(b, b->text[i], &free_at);
        if (other >= 0)
            return sibling_no_file(e, "tokens %" PRId64 " and %" PRIu64 " have the same text",
                                   other, i);
        b->by_text.slot[free_at] = (uint32_t)(i + 1);
    }
    return 0;
}

/* "left right": the first blank that is not the first byte parts them. */
static bool split_merge(struct gguf_str m, struct gguf_str *left, struct gguf_str *right)
{
    const char *sp = m.len > 1 ? memchr(m.p + 1, ' ', m.len - 1) : NULL;
    if (!sp || sp + 1 == m.p + m.len)
        return false;
    *left = (struct gguf_str){m.p, (size_t)(sp - m.p)};
    *right = (struct gguf_str){sp + 1, m.len - left->len - 1};
    return true;
}

static bool add_pair(struct bpe *b, uint64_t i)
{
    uint64_t key = b->pair[i];
    size_t k = hash_bytes(b->by_pair.seed, (const char *)&key, sizeof key) & b->by_pair.mask;
    for (; b->by_pair.slot[k]; k = (k + 1) & b->by_pair.mask)
        if (b->pair[b->by_pair.slot[k] - 1] == key)
            return false;
    b->by_pair.slot[k] = (uint32_t)(i + 1);
    return true;
}

/* left and right without the blank, in b->joined: merges have been seen of over 512 bytes. */
static bool join_merge(struct bpe *b, struct gguf_str l, struct gguf_str r)
{
    size_t n = l.len + r.len;
    if (n > b->cap_joined) {
        char *p = realloc(b->joined, 2 * n);
        if (!p)
            return false;
        b->joined = p;
        b->cap_joined = 2 * n;
    }
    memcpy(b->joined, l.p, l.len);
    memcpy(b->joined + l.len, r.p, r.len);
    return true;
}

static int load_merges(struct bpe *b, struct err *e)
{
    b->n_merge = b->merges->n;
    b->pair = calloc(b->n_merge + 1, sizeof *b->pair);
    if (!b->pair || table_init(&b->by_pair, b->n_merge) < 0)
        return err_set(e, -ENOMEM, "no memory for %" PRIu64 " merges", b->n_merge);
    size_t pos = 0;
    struct gguf_key el;
    for (uint64_t i = 0; i < b->n_merge && gguf_next_elem(b->merges, &pos, &el); i++) {
        struct gguf_str m, l, r;
        if (!gguf_as_str(&el, &m) || !split_merge(m, &l, &r))
            return sibling_no_file(e, "merge %" PRIu64 " is not two texts with a blank between", i);
        if (!join_merge(b, l, r))
            return err_set(e, -ENOMEM, "no memory for a merge");
        int64_t a = sibling_find_text(b, l, NULL), c = sibling_find_text(b, r, NULL);
        if (a < 0 || c < 0 ||
            sibling_find_text(b, (struct gguf_str){b->joined, l.len + r.len}, NULL) < 0)
            return sibling_no_file(e, "merge %" PRIu64 " names a text that is no token", i);
        b->pair[i] = (uint64_t)a << 32 | (uint64_t)c;
        if (!add_pair(b, i))
            return sibling_no_file(e, "merge %" PRIu64 " stands twice", i);
    }
    return 0;
}

static bool array_of(const struct gguf_key *k, enum gguf_type elem)
{
    return k && k->type == GGUF_ARRAY && k->elem == elem && k->n < MAX_TOKENS;
}

static int find_pretok(struct bpe *b, const struct gguf *g, struct err *e)
{
    struct gguf_str s = {"default", 7};
    const struct gguf_key *k = gguf_find(g, "tokenizer.ggml.pre");
    char name[64];
    if (k && !gguf_as_str(k, &s))
        return sibling_no_file(e, "tokenizer.ggml.pre is no string");
    if (s.len >= sizeof name)
        return sibling_no_file(e, "the pre-tokenizer's name is %zu bytes long", s.len);
    memcpy(name, s.p, s.len);
    name[s.len] = '\0';
    b->pre = pretok_find(name);
    return b->pre ? 0 : sibling_no_file(e, "pre-tokenizer '%s' is not known", name);
}

/* A flag and its token, as llama.cpp takes them. */
static int find_edge(const struct gguf *g, const struct bpe *b, const char *flag_key,
                     const char *id_key, int64_t def, bool *flag, uint64_t *id, struct err *e)
{
    const struct gguf_key *k = gguf_find(g, flag_key);
    if (k)
        gguf_as_bool(k, flag);
    k = gguf_find(g, id_key);
    bool known = def >= 0;
    *id = (uint64_t)def;
    if (k)
        known = gguf_as_u64(k, id);
    if (*flag && (!known || *id >= b->n_token))
        return sibling_no_file(e, "%s is set, but there is no such token", flag_key);
    return 0;
}

static int bpe_load(struct bpe *b, const struct gguf *g, struct err *e)
{
    struct gguf_str model = {"", 0};
    const struct gguf_key *k = gguf_find(g, "tokenizer.ggml.model");
    if (!k || !gguf_as_str(k, &model))
        return sibling_no_file(e, "the file has no tokenizer");
    b->spm = gguf_str_eq(model, "llama");
    if (!b->spm && !gguf_str_eq(model, "gpt2"))
        return sibling_no_file(
            e, "not written for tokenizers of type '%.*s', only for 'gpt2', 'llama'",
            (int)(model.len < 64 ? model.len : 64), model.p);
    b->tokens = gguf_find(g, "tokenizer.ggml.tokens");
    b->merges = gguf_find(g, "tokenizer.ggml.merges");
    b->types = gguf_find(g, "tokenizer.ggml.token_type");
    if (!array_of(b->tokens, GGUF_STRING) || (!b->spm && !array_of(b->merges, GGUF_STRING)))
        return sibling_no_file(e,
                               "tokenizer.ggml.tokens or .merges is absent or no array of strings");
    if (b->types && (b->types->type != GGUF_ARRAY || b->types->n != b->tokens->n))
        return sibling_no_file(e,
                               "token_type has %" PRIu64 " elements, there are %" PRIu64 " tokens",
                               b->types->n, b->tokens->n);
    int rc = b->spm ? 0 : find_pretok(b, g, e);
    if (rc == 0)
        rc = load_tokens(b, e);
    if (rc == 0)
        rc = b->spm ? sibling_spm_merges(b, g, e) : load_merges(b, e);
    if (rc < 0)
        return rc;
    b->add_bos = b->spm || b->pre->flags & PRETOK_ADD_BOS;
    int64_t bos = b->spm                          ? SPM_DEFAULT_BOS
                  : b->pre->flags & PRETOK_NO_BOS ? -1
                                                  : GPT2_DEFAULT_BOS_EOS;
    rc = find_edge(g, b, "tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", bos,
                   &b->add_bos, &b->bos, e);
    if (rc == 0)
        rc = find_edge(g, b, "tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id",
                       b->spm ? SPM_DEFAULT_EOS : GPT2_DEFAULT_BOS_EOS, &b->add_eos, &b->eos, e);
    return rc;
}

/* A token's text as a JSON string; an empty one as llama.cpp names it. */
static void put_token(struct json_out *o, const struct bpe *b, uint64_t i, bool key)
{
    char own[40];
    const char *p = b->text[i].p;
    size_t len = b->text[i].len;
    if (len == 0) {
        len = (size_t)snprintf(own, sizeof own, "[EMPTY_%" PRIu64 "]", i);
        p = own;
    }
    if (!key) {
        json_put_str(o, p, len);
        return;
    }
    char *z = strndup(p, len); /* load_tokens() refused those with a NUL inside */
    if (z)
        json_key(o, z);
    else
        o->rc = -ENOMEM;
    free(z);
}

static void put_added_tokens(struct json_out *o, const struct bpe *b)
{
    json_key(o, "added_tokens");
    json_open(o, '[');
    for (uint64_t i = 0; b->types && i < b->n_token; i++) {
        int64_t type;
        if (!gguf_elem_i64(b->types, i, &type) ||
            (type != TYPE_CONTROL && type != TYPE_USER_DEFINED && type != TYPE_UNKNOWN))
            continue;
        json_open(o, '{');
        json_add_u64(o, "id", i);
        json_key(o, "content");
        put_token(o, b, i, false);
        json_add_bool(o, "single_word", false);
        json_add_bool(o, "lstrip", false);
        json_add_bool(o, "rstrip", false);
        json_add_bool(o, "normalized", false);
        json_add_bool(o, "special", type != TYPE_USER_DEFINED);
        json_close(o, '}');
    }
    json_close(o, ']');
}

static void put_byte_level(struct json_out *o)
{
    json_open(o, '{');
    json_add_cstr(o, "type", "ByteLevel");
    json_add_bool(o, "add_prefix_space", false);
    json_add_bool(o, "trim_offsets", true);
    json_add_bool(o, "use_regex", false);
    json_close(o, '}');
}

static void put_replace(struct json_out *o, const char *from, const char *to)
{
    json_open(o, '{');
    json_add_cstr(o, "type", "Replace");
    json_key(o, "pattern");
    json_open(o, '{');
    json_add_cstr(o, "String", from);
    json_close(o, '}');
    json_add_cstr(o, "content", to);
    json_close(o, '}');
}

#define BLANK "\xe2\x96\x81" /* U+2581, SentencePiece's blank */

static void put_normalizer(struct json_out *o, const struct bpe *b)
{
    if (!b->spm) {
        json_add_null(o, "normalizer");
        return;
    }
    json_key(o, "normalizer");
    json_open(o, '{');
    json_add_cstr(o, "type", "Sequence");
    json_key(o, "normalizers");
    json_open(o, '[');
    if (b->space_prefix) {
        json_open(o, '{');
        json_add_cstr(o, "type", "Prepend");
        json_add_cstr(o, "prepend", BLANK);
        json_close(o, '}');
    }
    put_replace(o, " ", BLANK);
    json_close(o, ']');
    json_close(o, '}');
}

static void put_decoder(struct json_out *o, const struct bpe *b)
{
    json_key(o, "decoder");
    if (!b->spm) {
        put_byte_level(o);
        return;
    }
    json_open(o, '{');
    json_add_cstr(o, "type", "Sequence");
    json_key(o, "decoders");
    json_open(o, '[');
    put_replace(o, BLANK, " ");
    json_open(o, '{');
    json_add_cstr(o, "type", "ByteFallback");
    json_close(o, '}');
    json_open(o, '{');
    json_add_cstr(o, "type", "Fuse");
    json_close(o, '}');
    if (b->space_prefix) {
        json_open(o, '{');
        json_add_cstr(o, "type", "Strip");
        json_add_cstr(o, "content", " ");
        json_add_u64(o, "start", 1);
        json_add_u64(o, "stop", 0);
        json_close(o, '}');
    }
    json_close(o, ']');
    json_close(o, '}');
}

static void put_pre_tokenizer(struct json_out *o, const struct bpe *b)
{
    if (b->spm) {
        json_add_null(o, "pre_tokenizer");
        return;
    }
    json_key(o, "pre_tokenizer");
    json_open(o, '{');
    json_add_cstr(o, "type", "Sequence");
    json_key(o, "pretokenizers");
    json_open(o, '[');
    for (const struct pretok_split *s = b->pre->split; s->regex; s++) {
        json_open(o, '{');
        json_add_cstr(o, "type", "Split");
        json_key(o, "pattern");
        json_open(o, '{');
        json_add_cstr(o, "Regex", s->regex);
        json_close(o, '}');
        json_add_cstr(o, "behavior", "Isolated");
        json_add_bool(o, "invert", false);
        json_close(o, '}');
    }
    put_byte_level(o);
    json_close(o, ']');
    json_close(o, '}');
}

static void put_piece(struct json_out *o, const char *kind, const struct bpe *b, uint64_t id,
                      const char *sequence, int type_id)
{
    json_open(o, '{');
    json_key(o, kind);
    json_open(o, '{');
    json_key(o, "id");
    if (sequence)
        json_put_cstr(o, sequence);
    else
        put_token(o, b, id, false);
    json_key(o, "type_id");
    json_put_i64(o, type_id);
    json_close(o, '}');
    json_close(o, '}');
}

/* One text (BOS A EOS) or two (BOS A EOS BOS B EOS). */
static void put_template(struct json_out *o, const char *key, const struct bpe *b, int n)
{
    static const char *const name[] = {"A", "B"};
    json_key(o, key);
    json_open(o, '[');
    for (int i = 0; i < n; i++) {
        if (b->add_bos)
            put_piece(o, "SpecialToken", b, b->bos, NULL, i);
        put_piece(o, "Sequence", b, 0, name[i], i);
        if (b->add_eos)
            put_piece(o, "SpecialToken", b, b->eos, NULL, i);
    }
    json_close(o, ']');
}

static void put_special(struct json_out *o, const struct bpe *b, uint64_t id)
{
    put_token(o, b, id, true);
    json_open(o, '{');
    json_key(o, "id");
    put_token(o, b, id, false);
    json_key(o, "ids");
    json_open(o, '[');
    json_put_u64(o, id);
    json_close(o, ']');
    json_key(o, "tokens");
    json_open(o, '[');
    put_token(o, b, id, false);
    json_close(o, ']');
    json_close(o, '}');
}

static void put_post_processor(struct json_out *o, const struct bpe *b)
{
    json_key(o, "post_processor");
    if (!b->add_bos && !b->add_eos) {
        b->spm ? json_put_null(o) : put_byte_level(o);
        return;
    }
    json_open(o, '{');
    json_add_cstr(o, "type", "TemplateProcessing");
    put_template(o, "single", b, 1);
    put_template(o, "pair", b, 2);
    json_key(o, "special_tokens");
    json_open(o, '{');
    if (b->add_bos)
        put_special(o, b, b->bos);
    if (b->add_eos && !(b->add_bos && b->eos == b->bos))
        put_special(o, b, b->eos);
    json_close(o, '}');
    json_close(o, '}');
}

/* Merges as pairs: tokenizers reads them since 0.20, and they stand for any text. Older readers
 * know "left right" alone, so that is used, as long as no text holds a blank. */
static bool merges_as_text(const struct bpe *b)
{
    for (uint64_t i = 0; i < b->n_merge; i++) {
        struct gguf_str l = b->text[b->pair[i] >> 32], r = b->text[(uint32_t)b->pair[i]];
        if (memchr(l.p, ' ', l.len) || memchr(r.p, ' ', r.len))
            return false;
    }
    return true;
}

static void put_merges(struct json_out *o, const struct bpe *b)
{
    bool as_text = merges_as_text(b);
    json_key(o, "merges");
    json_open(o, '[');
    for (uint64_t i = 0; i < b->n_merge; i++) {
        struct gguf_str l = b->text[b->pair[i] >> 32], r = b->text[(uint32_t)b->pair[i]];
        if (as_text) {
            char own[1024], *p = l.len + r.len < sizeof own ? own : malloc(l.len + r.len + 1);
            if (!p) {
                o->rc = -ENOMEM;
                return;
            }
            memcpy(p, l.p, l.len);
            p[l.len] = ' ';
            memcpy(p + l.len + 1, r.p, r.len);
            json_put_str(o, p, l.len + r.len + 1);
            if (p != own)
                free(p);
            continue;
        }
        json_open(o, '[');
        json_put_str(o, l.p, l.len);
        json_put_str(o, r.p, r.len);
        json_close(o, ']');
    }
    json_close(o, ']');
}

static void put_model(struct json_out *o, const struct bpe *b)
{
    json_key(o, "model");
    json_open(o, '{');
    json_add_cstr(o, "type", "BPE");
    json_add_null(o, "dropout");
    json_add_null(o, "unk_token");
    json_add_null(o, "continuing_subword_prefix");
    json_add_null(o, "end_of_word_suffix");
    json_add_bool(o, "fuse_unk", false);
    json_add_bool(o, "byte_fallback", b->spm);
    json_add_bool(o, "ignore_merges", b->pre && b->pre->flags & PRETOK_IGNORE_MERGES);
    json_key(o, "vocab");
    json_open(o, '{');
    for (uint64_t i = 0; i < b->n_token; i++) {
        put_token(o, b, i, true);
        json_put_u64(o, i);
    }
    json_close(o, '}');
    put_merges(o, b);
    json_close(o, '}');
}

int sibling_has_tokenizer(const struct gguf *g, struct err *e)
{
    struct bpe b = {0};
    int rc = bpe_load(&b, g, e);
    bpe_release(&b);
    return rc;
}

int sibling_tokenizer(const struct gguf *g, char **out, size_t *len, struct err *e)
{
    struct bpe b = {0};
    struct json_out o;
    json_out_init(&o);
    int rc = bpe_load(&b, g, e);
    if (rc < 0)
        goto out;
    json_open(&o, '{');
    json_add_cstr(&o, "version", "1.0");
    json_add_null(&o, "truncation");
    json_add_null(&o, "padding");
    put_added_tokens(&o, &b);
    put_normalizer(&o, &b);
    put_pre_tokenizer(&o, &b);
    put_post_processor(&o, &b);
    put_decoder(&o, &b);
    put_model(&o, &b);
    json_close(&o, '}');
    rc = o.rc < 0 ? err_set(e, o.rc, "tokenizer.json could not be written") : 0;
    if (rc == 0) {
        *out = o.p;
        *len = o.len;
        o.p = NULL;
    }
out:
    json_out_release(&o);
    bpe_release(&b);
    return rc;
}
