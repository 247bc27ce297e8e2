#include "infer/digest.h"

#include "format/quant.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct digest {
    EVP_MD_CTX *c;
    bool failed; /* only for lack of memory */
};

static void put_text(struct digest *d, const char *s)
{
    d->failed = d->failed || !EVP_DigestUpdate(d->c, s, strlen(s));
}

static void put(struct digest *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct digest *d, const char *fmt, ...)
{
    char text[512]; /* names are ours, of 256 bytes at most */
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->failed = d->failed || n < 0 || (size_t)n >= sizeof text;
    put_text(d, text);
}

/* Values may be long: a number per layer. */
static void put_field(void *ctx, const char *field, const char *value, const char *zero)
{
    struct digest *d = ctx;
    (void)zero;
    d->failed = d->failed || strcmp(value, "?") == 0; /* no memory for the text */
    put(d, "hparam %s ", field);
    put_text(d, value);
    put_text(d, "\n");
}

static void put_tensor(struct digest *d, const struct bind_item *it)
{
    bool matrix = it->kind == BIND_MATRIX;
    const struct quant_type *qt = quant_type(matrix ? it->w->type : QUANT_F32);
    put(d, "tensor %s %s ", it->name, qt->name);
    if (matrix)
        put(d, "%" PRIu32 "x%" PRIu32, it->w->n_out, it->w->n_in);
    else
        put(d, "%" PRIu64, it->n);
    put(d, " %08" PRIx32 "\n", matrix ? it->crc : it->crc_f32);
}

static int by_name(const void *pa, const void *pb)
{
    const struct bind_item *const *a = pa, *const *b = pb;
    return strcmp((*a)->name, (*b)->name);
}

int digest_model(uint8_t out[DIGEST_SIZE], const struct arch_config *c,
                 const struct bind_item *item, size_t n_item, struct err *e)
{
    static const struct arch_config zero;
    const struct bind_item **sorted = calloc(n_item + 1, sizeof *sorted);
    struct digest d = {.c = EVP_MD_CTX_new()};
    size_t n = 0;
    d.failed = !sorted || !d.c || !EVP_DigestInit_ex(d.c, EVP_sha256(), NULL);
    for (size_t i = 0; sorted && i < n_item; i++)
        if (item[i].kind != BIND_TABLE) /* made of what counts already */
            sorted[n++] = &item[i];
    if (!d.failed) {
        qsort(sorted, n, sizeof(struct bind_item *), by_name);
        put_text(&d, "aprfs-model-digest 1\n");
        arch_config_diff(c, &zero, put_field, &d);
        for (size_t i = 0; i < n; i++)
            put_tensor(&d, sorted[i]);
        d.failed = d.failed || !EVP_DigestFinal_ex(d.c, out, NULL);
    }
    EVP_MD_CTX_free(d.c);
    free(sorted);
    return d.failed ? err_set(e, -ENOMEM, "no memory for the model's digest") : 0;
}
