#include "infer/text/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SHORT 48 /* symbols up to which scanning beats the heap (measured on English and code) */
#define NEVER UINT32_MAX

struct merge_pair { /* a possible join; stale once either side has changed */
    uint32_t prio, left, right, len, id;
};

struct merge_link {
    uint32_t prev, next; /* NEVER: none */
};

static int grow(void **p, size_t *cap, size_t need, size_t item, struct err *e)
{
    if (need <= *cap)
        return 0;
    size_t n = need + need / 2 + 64;
    void *q = realloc(*p, n * item);
    if (!q)
        return err_set(e, -ENOMEM, "no memory to tokenize (%zu bytes)", n * item);
    *p = q;
    *cap = n;
    return 0;
}

int merge_reserve(struct merge *m, size_t n, struct err *e)
{
    return grow((void **)&m->sym, &m->cap, n, sizeof *m->sym, e);
}

void merge_release(struct merge *m)
{
    free(m->sym);
    free(m->pair);
    free(m->link);
    *m = (struct merge){0};
}

static void run_short(struct merge *m, merge_find *find, const void *ctx)
{
    uint32_t prio[SHORT], id[SHORT]; /* of the pair (i, i + 1) */
    struct merge_sym *s = m->sym;
    size_t n = m->n;
    for (size_t i = 0; i + 1 < n; i++)
        if (!find(ctx, &s[i], &s[i + 1], &prio[i], &id[i]))
            prio[i] = NEVER;
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (prio[i] < prio[best])
                best = i;
        if (prio[best] == NEVER)
            break;
        s[best].id = id[best];
        s[best].len += s[best + 1].len;
        size_t tail = n - best - 2;
        memmove(&s[best + 1], &s[best + 2], tail * sizeof *s);
        if (tail > 0) {
            memmove(&prio[best + 1], &prio[best + 2], (tail - 1) * sizeof *prio);
            memmove(&id[best + 1], &id[best + 2], (tail - 1) * sizeof *id);
        }
        n--;
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++)
            if (!find(ctx, &s[i], &s[i + 1], &prio[i], &id[i]))
                prio[i] = NEVER;
    }
    m->n = n;
}

static bool before(const struct merge_pair *a, const struct merge_pair *b)
{
    return a->prio < b->prio || (a->prio == b->prio && a->left < b->left);
}

static void sift_down(struct merge_pair *h, size_t n, size_t i)
{
    struct merge_pair x = h[i];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && before(&h[c + 1], &h[c]))
            c++;
        if (!before(&h[c], &x))
            break;
        h[i] = h[c];
    }
    h[i] = x;
}

static void push(struct merge_pair *h, size_t n, struct merge_pair x)
{
    size_t i = n;
    for (; i > 0 && before(&x, &h[(i - 1) / 2]); i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = x;
}

/* The pair that starts at left, if it joins: into *p. */
static bool look(const struct merge *m, uint32_t left, uint32_t right, merge_find *find,
                 const void *ctx, struct merge_pair *p)
{
    if (left == NEVER || right == NEVER)
        return false;
    *p = (struct merge_pair){
        .left = left, .right = right, .len = m->sym[left].len + m->sym[right].len};
    return find(ctx, &m->sym[left], &m->sym[right], &p->prio, &p->id);
}

static int run_long(struct merge *m, merge_find *find, const void *ctx, struct err *e)
{
    struct merge_sym *s = m->sym;
    uint32_t n = (uint32_t)m->n;
    int rc = grow((void **)&m->link, &m->cap_link, n, sizeof *m->link, e);
    if (rc == 0) /* a join removes one pair and adds two at most: never more than 2n wait */
        rc = grow((void **)&m->pair, &m->cap_pair, 2 * (size_t)n, sizeof *m->pair, e);
    if (rc < 0)
        return rc;
    struct merge_link *l = m->link;
    struct merge_pair *h = m->pair, p;
    size_t n_pair = 0;
    for (uint32_t i = 0; i < n; i++) {
        l[i] = (struct merge_link){i ? i - 1 : NEVER, i + 1 < n ? i + 1 : NEVER};
        if (look(m, i, i + 1 < n ? i + 1 : NEVER, find, ctx, &p))
            h[n_pair++] = p;
    }
    for (size_t i = n_pair / 2; i-- > 0;)
        sift_down(h, n_pair, i);
    while (n_pair > 0) {
        struct merge_pair best = h[0];
        h[0] = h[--n_pair];
        if (n_pair > 0)
            sift_down(h, n_pair, 0);
        uint32_t a = best.left, b = best.right;
        if (s[a].len == 0 || s[b].len == 0 || s[a].len + s[b].len != best.len)
            continue;
        s[a].id = best.id;
        s[a].len = best.len;
        s[b].len = 0;
        l[a].next = l[b].next;
        if (l[b].next != NEVER)
            l[l[b].next].prev = a;
        if (look(m, l[a].prev, a, find, ctx, &p))
            push(h, n_pair++, p);
        if (look(m, a, l[a].next, find, ctx, &p))
            push(h, n_pair++, p);
    }
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++)
        if (s[i].len > 0)
            s[at++] = s[i];
    m->n = at;
    return 0;
}

int merge_run(struct merge *m, merge_find *find, const void *ctx, struct err *e)
{
    if (m->n <= SHORT) {
        run_short(m, find, ctx);
        return 0;
    }
    return run_long(m, find, ctx, e);
}
