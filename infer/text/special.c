/* A trie finds at each byte the longest token that starts there; its shorter ones hang on it by
 * "up". Occurrences that touch one another form a cluster, which is settled by itself. */
#include "infer/text/special.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NO_NODE 0 /* the root is nobody's child and ends no token */

struct node {
    uint32_t child, sibling;
    uint32_t up;    /* the next shorter token on the way to the root */
    uint32_t depth; /* bytes of the token */
    int32_t id;     /* VOCAB_NONE: ends no token */
    uint8_t byte;
};

struct special {
    const struct vocab *v;
    struct node *node;
    uint32_t n, cap;
    bool first[256]; /* bytes that some token starts with */
    bool strips;     /* some token takes blanks with it */
};

static int node_add(struct special *s, uint32_t parent, uint8_t byte, uint32_t *out, struct err *e)
{
    if (s->n == s->cap) {
        uint32_t cap = s->cap * 2 + 256;
        struct node *p = realloc(s->node, cap * sizeof *p);
        if (!p)
            return err_set(e, -ENOMEM, "no memory for added tokens");
        s->node = p;
        s->cap = cap;
    }
    s->node[s->n] = (struct node){.id = VOCAB_NONE, .byte = byte};
    if (parent != s->n) {
        s->node[s->n].sibling = s->node[parent].child;
        s->node[parent].child = s->n;
    }
    *out = s->n++;
    return 0;
}

static uint32_t step(const struct special *s, uint32_t at, uint8_t byte)
{
    uint32_t c = s->node[at].child;
    while (c != NO_NODE && s->node[c].byte != byte)
        c = s->node[c].sibling;
    return c;
}

static int add_token(struct special *s, uint32_t id, struct err *e)
{
    size_t len;
    const char *p = vocab_text(s->v, id, &len);
    uint32_t at = 0;
    for (size_t i = 0; i < len; i++) {
        uint32_t next = step(s, at, (uint8_t)p[i]);
        if (next == NO_NODE) {
            int rc = node_add(s, at, (uint8_t)p[i], &next, e);
            if (rc < 0)
                return rc;
        }
        at = next;
    }
    s->node[at].id = (int32_t)id;
    s->node[at].depth = (uint32_t)len;
    s->first[(uint8_t)p[0]] = true;
    s->strips |= s->v->attr[id] & (VOCAB_LSTRIP | VOCAB_RSTRIP);
    return 0;
}

/* Children are made after their parents, so one pass in order hands the links down. */
static void link_up(struct special *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t up = s->node[i].id != VOCAB_NONE ? i : s->node[i].up;
        for (uint32_t c = s->node[i].child; c != NO_NODE; c = s->node[c].sibling)
            s->node[c].up = up;
    }
}

int special_new(struct special **out, const struct vocab *v, unsigned with, unsigned without,
                struct err *e)
{
    struct special *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, -ENOMEM, "no memory for added tokens");
    s->v = v;
    uint32_t root;
    int rc = node_add(s, 0, 0, &root, e);
    for (uint32_t id = 0; rc == 0 && id < v->n; id++)
        if (v->attr[id] & with && !(v->attr[id] & without))
            rc = add_token(s, id, e);
    if (rc < 0) {
        special_free(s);
        return rc;
    }
    link_up(s);
    *out = s;
    return 0;
}

void special_free(struct special *s)
{
    if (!s)
        return;
    free(s->node);
    free(s);
}

/* The longest token at p, as a node. */
static uint32_t longest(const struct special *s, const char *p, size_t left)
{
    uint32_t at = 0, best = NO_NODE;
    if (!s->first[(uint8_t)*p])
        return NO_NODE;
    for (size_t i = 0; i < left; i++) {
        at = step(s, at, (uint8_t)p[i]);
        if (at == NO_NODE)
            break;
        if (s->node[at].id != VOCAB_NONE)
            best = at;
    }
    return best;
}

struct cluster { /* scratch: one entry per byte of the cluster at hand */
    uint32_t *node;
    uint8_t *state; /* FREE, TAKEN (inside a token, or a blank that went with one), HEAD */
    size_t cap;
};

enum { FREE, TAKEN, HEAD };

static int cluster_grow(struct cluster *c, size_t need, struct err *e)
{
    if (need <= c->cap)
        return 0;
    size_t cap = need + need / 2 + 256;
    uint32_t *node = realloc(c->node, cap * sizeof *node);
    if (node)
        c->node = node;
    uint8_t *state = realloc(c->state, cap);
    if (state)
        c->state = state;
    if (!node || !state)
        return err_set(e, -ENOMEM, "no memory to look for added tokens");
    c->cap = cap;
    return 0;
}

static bool blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void take(const struct special *s, struct cluster *c, const char *p, size_t n, size_t at,
                 uint32_t node)
{
    size_t len = s->node[node].depth;
    memset(c->state + at, TAKEN, len);
    c->state[at] = HEAD;
    unsigned attr = s->v->attr[s->node[node].id];
    if (attr & VOCAB_RSTRIP)
        for (size_t i = at + len; i < n && c->state[i] == FREE && blank(p[i]); i++)
            c->state[i] = TAKEN;
    if (attr & VOCAB_LSTRIP)
        for (size_t i = at; i > 0 && c->state[i - 1] == FREE && blank(p[i - 1]); i--)
            c->state[i - 1] = TAKEN;
}

/* Settles the n bytes at p, c->node[i] the longest token at each: from long to short, left to
 * right. A taken stretch is never shorter than the token tried, or borders on one that is not, so
 * the two ends tell whether all between is free. */
static void settle(const struct special *s, struct cluster *c, const char *p, size_t n)
{
    uint32_t len = 0;
    memset(c->state, FREE, n);
    for (size_t i = 0; i < n; i++)
        if (s->node[c->node[i]].depth > len)
            len = s->node[c->node[i]].depth;
    while (len > 0) {
        uint32_t next = 0;
        for (size_t i = 0; i < n; i++) {
            const struct node *t = &s->node[c->node[i]];
            if (c->state[i] != FREE)
                continue;
            if (t->depth == len) {
                if (c->state[i + len - 1] == FREE) {
                    take(s, c, p, n, i, c->node[i]);
                    continue;
                }
                c->node[i] = t->up;
                t = &s->node[t->up];
            }
            if (t->depth > next)
                next = t->depth;
        }
        len = next;
    }
}

struct parts {
    struct special_part *p;
    size_t n, cap;
};

static int add_part(struct parts *l, size_t off, size_t len, int32_t id, struct err *e)
{
    if (len == 0)
        return 0;
    if (l->n == l->cap) {
        size_t cap = l->cap * 2 + 16;
        struct special_part *p = realloc(l->p, cap * sizeof *p);
        if (!p)
            return err_set(e, -ENOMEM, "no memory for %zu parts of a text", cap);
        l->p = p;
        l->cap = cap;
    }
    l->p[l->n++] = (struct special_part){off, len, id};
    return 0;
}

/* From byte at: gathers the cluster that starts there (strips: all the rest, for blanks may tie
 * anything together) and returns its end. */
static int gather(const struct special *s, struct cluster *c, const char *p, size_t at, size_t len,
                  size_t *end, struct err *e)
{
    *end = s->strips ? len : at + 1;
    for (size_t i = at; i < *end; i++) {
        int rc = cluster_grow(c, i - at + 1, e);
        if (rc < 0)
            return rc;
        uint32_t n = longest(s, p + i, len - i);
        c->node[i - at] = n;
        if (n != NO_NODE && i + s->node[n].depth > *end)
            *end = i + s->node[n].depth;
    }
    return 0;
}

static int cut(const struct special *s, struct cluster *c, const char *p, size_t len,
               struct parts *l, struct err *e)
{
    size_t text = 0; /* where the text part at hand starts */
    for (size_t at = 0, end; at < len; at = end) {
        end = at + 1;
        if (!s->first[(uint8_t)p[at]] && !s->strips)
            continue;
        int rc = gather(s, c, p, at, len, &end, e);
        if (rc < 0)
            return rc;
        if (end == at + 1 && c->node[0] == NO_NODE)
            continue;
        settle(s, c, p + at, end - at);
        for (size_t i = at; rc == 0 && i < end;) {
            size_t n = 1;
            if (c->state[i - at] != FREE) {
                rc = add_part(l, text, i - text, VOCAB_NONE, e);
                const struct node *t = &s->node[c->node[i - at]];
                if (rc == 0 && c->state[i - at] == HEAD) {
                    n = t->depth;
                    rc = add_part(l, i, n, t->id, e);
                }
                text = i + n;
            }
            i += n;
        }
        if (rc < 0)
            return rc;
    }
    return add_part(l, text, len - text, VOCAB_NONE, e);
}

int special_cut(const struct special *s, const char *p, size_t len, struct special_part **out,
                size_t *n_out, struct err *e)
{
    struct cluster c = {0};
    struct parts l = {0};
    int rc = cut(s, &c, p, len, &l, e);
    free(c.node);
    free(c.state);
    if (rc < 0) {
        free(l.p);
        return rc;
    }
    *out = l.p;
    *n_out = l.n;
    return 0;
}
