/* libFuzzer target: gguf_open over memory, every accessor over what opens, and what must hold of it.
 * Input: a GGUF; or, where the first byte is 2..4 and so no magic, that many parts: a u16 length
 * each but for the last, then their bytes. Seeds: tests/tool_seeds.c. */
#include "format/bytes.h"
#include "format/gguf.h"
#include "format/quant.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_PART 4

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void check_scalar(const struct gguf_key *k)
{
    uint64_t u = 0;
    int64_t i = 0;
    double d;
    bool b;
    struct gguf_str s;
    bool is_u = gguf_as_u64(k, &u), is_i = gguf_as_i64(k, &i), is_d = gguf_as_f64(k, &d);
    bool is_b = gguf_as_bool(k, &b), is_s = gguf_as_str(k, &s);
    if (is_u && is_i)
        MUST(i >= 0 && (uint64_t)i == u);
    MUST(is_u + is_b + is_s <= 1);
    MUST(!(is_u || is_i) || is_d);
    if (is_s)
        MUST(s.p && s.len == k->data_len);
}

static void check_array(const struct gguf_key *a, const uint8_t *head, size_t head_len)
{
    struct gguf_key el;
    uint64_t n = 0;
    size_t pos = 0;
    while (gguf_next_elem(a, &pos, &el)) {
        MUST(el.data >= head && el.data_len <= head_len - (size_t)(el.data - head));
        MUST(el.type == a->elem);
        double x = 0, y = 0;
        if (gguf_as_f64(&el, &x)) {
            MUST(gguf_elem_f64(a, n, &y));
            MUST(memcmp(&x, &y, sizeof x) == 0);
        }
        if (el.type == GGUF_ARRAY)
            check_array(&el, head, head_len);
        else
            check_scalar(&el);
        n++;
    }
    MUST(n == a->n && pos == a->data_len);
}

static void check_keys(const struct gguf *g)
{
    size_t head_len;
    const uint8_t *head = gguf_head(g, 0, &head_len);
    char name[256];
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        const struct gguf_key *k = gguf_key(g, i);
        MUST(k->data >= head && k->data_len <= head_len - (size_t)(k->data - head));
        if (k->name.len < sizeof name) {
            memcpy(name, k->name.p, k->name.len);
            name[k->name.len] = 0;
            MUST(gguf_find(g, name) == k);
        }
        if (k->type == GGUF_ARRAY)
            check_array(k, head, head_len);
        else
            check_scalar(k);
    }
}

static void check_tensors(const struct gguf *g)
{
    char name[256];
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        const struct quant_type *q = quant_type(t->type);
        uint64_t row;
        MUST(q && t->part >= 0 && t->part < gguf_n_part(g));
        MUST(t->n_dim >= 1 && t->n_dim <= GGUF_MAX_DIMS);
        MUST(quant_row_bytes(q, t->ne[0], &row));
        MUST(row * t->ne[1] * t->ne[2] * t->ne[3] == t->size && t->size > 0);
        MUST(t->off >= gguf_data_start(g, t->part));
        MUST(t->off + t->size <= gguf_data_end(g, t->part));
        MUST(t->off + t->size <= source_size(gguf_part(g, t->part)));
        if (t->part == 0)
            MUST((t->off - gguf_data_start(g, 0)) % gguf_alignment(g) == 0);
        if (t->name.len < sizeof name) {
            memcpy(name, t->name.p, t->name.len);
            name[t->name.len] = 0;
            MUST(gguf_find_tensor(g, name) == t);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct source *s[MAX_PART];
    struct cursor c = cursor_over(data, size);
    int n = size > 0 && data[0] >= 2 && data[0] <= MAX_PART ? data[0] : 1;
    if (n > 1)
        cursor_u8(&c);
    for (int i = 0; i < n; i++) {
        size_t len = i < n - 1 ? cursor_u16(&c) : cursor_left(&c);
        const uint8_t *p = cursor_take(&c, len > cursor_left(&c) ? cursor_left(&c) : len);
        len = p ? (size_t)(c.p + c.pos - p) : 0;
        if (source_from_mem(&s[i], p ? p : data, len, "part", NULL) < 0)
            abort();
    }
    struct gguf *g = NULL;
    struct err e = {0};
    int rc = gguf_open(&g, s, n, &e);
    if (rc < 0) {
        MUST(g == NULL && e.code == rc && e.msg[0]);
        MUST(rc == -EUCLEAN || rc == -ENOTSUP || rc == -ERANGE || rc == -EAGAIN || rc == -ENOENT);
    } else {
        MUST(rc == 0 && gguf_n_part(g) == n);
        check_keys(g);
        check_tensors(g);
    }
    gguf_close(g);
    for (int i = 0; i < n; i++)
        source_close(s[i]);
    return 0;
}
