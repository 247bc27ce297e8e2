/* libFuzzer: any bytes as an .apr, turned into a .gguf. What turns must be covered by its segments,
 * read at any place, and hold its tensors contiguous but for padding, with the .apr's bytes; what is
 * refused must say why. The header's checksum is made right first, or it would hide all that lies
 * behind it. */
#include "format/apr_read.h"
#include "format/bytes.h"
#include "format/crc32.h"
#include "format/vgguf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok)
        abort();
}

/* Both ends of a tensor that stands as it is are the .apr's bytes. */
static void same_bytes(const struct apr *a, const struct vgguf *v, const struct gguf_tensor *g)
{
    char name[APR_MAX_NAME + 1];
    struct apr_tensor raw;
    uint8_t x[16], y[16];
    size_t n = g->size < sizeof x ? (size_t)g->size : sizeof x, got;
    if (g->name.len >= sizeof name)
        return;
    memcpy(name, g->name.p, g->name.len);
    name[g->name.len] = 0;
    const struct apr_tensor *t = apr_find(a, name);
    if (!t || t->type != g->type || apr_raw_twin(a, t, &raw))
        return;
    check(t->size == g->size);
    for (int end = 0; end < 2; end++) {
        uint64_t at = end ? g->size - n : 0;
        check(source_read(apr_source(a), x, t->off + at, n, NULL) == 0);
        check(vplan_read(vgguf_plan(v), y, g->off + at, n, &got, NULL) == 0 && got == n);
        check(memcmp(x, y, n) == 0);
    }
}

static void use(const struct apr *a, const struct vgguf *v)
{
    const struct vplan *p = vgguf_plan(v);
    const struct gguf *g = vgguf_gguf(v);
    uint64_t at = 0, off = gguf_data_start(g, 0), align = gguf_alignment(g);
    uint8_t buf[300];
    size_t got;
    for (size_t i = 0; i < p->n_seg; i++) {
        check(p->seg[i].off == at && p->seg[i].len > 0 && vplan_find_seg(p, at) == i);
        check(vplan_read(p, buf, at > 100 ? at - 100 : 0, sizeof buf, &got, NULL) == 0 && got > 0);
        at += p->seg[i].len;
    }
    check(at == p->size);
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        check(gguf_tensor(g, i)->off == off);
        same_bytes(a, v, gguf_tensor(g, i));
        off += (gguf_tensor(g, i)->size + align - 1) / align * align;
    }
    check(off == p->size || off - p->size < align);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *p = malloc(size ? size : 1);
    struct source *s = NULL;
    struct apr *a = NULL;
    struct vgguf *v = NULL;
    struct err e = {0};
    if (!p)
        return 0;
    memcpy(p, data, size);
    if (size >= 64)
        store_u32(p + 40, crc32_apr_header(p));
    if (source_from_mem(&s, p, size, "fuzz", NULL) == 0 && apr_open(&a, s, &e) == 0) {
        e = (struct err){0};
        int rc = vgguf_new(&v, a, &e);
        check(rc == 0 ? v != NULL : rc < 0 && e.code == rc && e.msg[0] && !v);
        check(rc != -EAGAIN && rc != -EINVAL);
        if (rc == 0)
            use(a, v);
    }
    vgguf_free(v);
    apr_close(a);
    source_close(s);
    free(p);
    return 0;
}
