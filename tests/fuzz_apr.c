/* libFuzzer: any bytes as an .apr. The header's checksum is made right first, or it would hide all
 * that lies behind it. What opens must hold what apr_read.h promises. */
#include "format/apr_meta.h"
#include "format/apr_read.h"
#include "format/bytes.h"
#include "format/crc32.h"
#include "format/readers.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok)
        abort();
}

static void use_tensors(struct apr *a, uint64_t size)
{
    uint8_t byte;
    for (size_t i = 0; i < apr_n_tensor(a); i++) {
        const struct apr_tensor *t = apr_tensor(a, i);
        struct apr_tensor raw;
        check(t->off <= size && t->size <= size - t->off);
        check(i == 0 || strcmp(apr_tensor(a, i - 1)->name, t->name) <= 0);
        check(strcmp(apr_find(a, t->name)->name, t->name) == 0);
        if (t->size > 0)
            check(source_read(apr_source(a), &byte, t->off + t->size - 1, 1, NULL) == 0);
        if (apr_raw_twin(a, t, &raw))
            check(raw.off <= size && raw.size <= size - raw.off);
    }
    check(!apr_find(a, "no such name"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *p = malloc(size ? size : 1);
    struct source *s = NULL;
    struct apr *a = NULL;
    struct err e = {0};
    if (!p)
        return 0;
    memcpy(p, data, size);
    if (size >= 64)
        store_u32(p + 40, crc32_apr_header(p));
    if (source_from_mem(&s, p, size, "fuzz", NULL) == 0) {
        int rc = apr_open(&a, s, &e);
        check(rc == 0 ? a != NULL : rc < 0 && e.code == rc && e.msg[0] && !a);
        if (rc == 0) {
            struct arch_config c;
            use_tensors(a, size);
            if (apr_meta_read(apr_meta(a), &c, &e) == 0)
                arch_config_release(&c);
        }
        struct reader_verdict v[N_READER];
        check(readers_judge(v, s, a, e.msg, NULL) == 0); /* memory can be read */
        check((reader_find(&v[READER_APRD], READER_REFUSES) == NULL) == (rc == 0));
        readers_release(v);
    }
    apr_close(a);
    source_close(s);
    free(p);
    return 0;
}
