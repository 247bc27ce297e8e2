/* The head of a virtual APR: header, metadata, index. A pure function of the plan, which is one of
 * the GGUF's bytes, the options and VAPR_BUILDER. */
#include "format/apr_meta.h"
#include "format/bytes.h"
#include "format/crc32.h"
#include "format/vapr_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_MAX (UINT64_C(256) << 20) /* as the readers' limit */

static uint64_t round64(uint64_t x)
{
    return (x + APR_ALIGN - 1) & ~(uint64_t)(APR_ALIGN - 1);
}

/* The original bytes of every tensor that is shown converted: what apr_raw_twin() reads. */
static void put_raw(struct json_out *o, const struct vapr *v)
{
    bool any = false;
    for (size_t i = 0; i < v->n_entry; i++) {
        const struct vapr_entry *n = &v->entry[i];
        if (!n->t.conv)
            continue;
        if (!any) {
            json_key(o, "aprfs.raw");
            json_open(o, '[');
            any = true;
        }
        json_open(o, '{');
        json_add_cstr(o, "name", n->t.name);
        json_add_u64(o, "type", n->t.type->id);
        json_add_u64(o, "offset", n->raw_off - v->data_off);
        json_add_u64(o, "size", n->t.src_size);
        json_close(o, '}');
    }
    if (any)
        json_close(o, ']');
}

static void put_aliases(struct json_out *o, const struct vapr *v)
{
    bool any = false;
    for (size_t i = 0; i < v->n_entry; i++) {
        const struct vapr_entry *n = &v->entry[i];
        if (!n->t.alias)
            continue;
        if (!any) {
            json_key(o, "aprfs.alias");
            json_open(o, '[');
            any = true;
        }
        json_open(o, '{');
        json_add_cstr(o, "name", n->t.name);
        json_add_cstr(o, "of", n->of);
        json_add_u64(o, "row", n->row);
        json_close(o, '}');
    }
    if (any)
        json_close(o, ']');
}

static int put_meta(struct json_out *o, const struct vapr *v, const struct arch_config *c,
                    struct err *e)
{
    o->max = HEAD_MAX; /* a number of one byte may take four in text */
    json_open(o, '{');
    int rc = apr_meta_write(o, v->g, c, e);
    if (rc < 0 && o->rc == 0)
        return rc;
    json_add_u64(o, "aprfs.builder", VAPR_BUILDER);
    json_add_cstr(o, "aprfs.profile", vapr_profile_name(v->opt.profile));
    json_add_cstr(o, "aprfs.values", v->opt.values == VAPR_VALUES_COMPAT ? "compat" : "reference");
    put_aliases(o, v);
    put_raw(o, v);
    json_close(o, '}');
    if (o->rc == -ERANGE)
        return err_set(e, o->rc, "metadata of more than %" PRIu64 " bytes", HEAD_MAX);
    if (o->rc < 0)
        return err_set(e, o->rc, "metadata: %s",
                       o->rc == -ENOMEM ? "no memory" : "a value without its key");
    return 0;
}

static uint64_t index_size(const struct vapr *v)
{
    uint64_t n = 0;
    for (size_t i = 0; i < v->n_entry; i++)
        n += 20 + strlen(v->entry[i].t.name) + 8 * (uint64_t)v->entry[i].t.n_dim;
    return n;
}

static void put_index(const struct vapr *v, uint8_t *p)
{
    for (size_t i = 0; i < v->n_entry; i++) {
        const struct vapr_tensor *t = &v->entry[i].t;
        size_t len = strlen(t->name);
        store_u16(p, (uint16_t)len);
        memcpy(p + 2, t->name, len);
        p += 2 + len;
        *p++ = t->dtype;
        *p++ = (uint8_t)t->n_dim;
        for (uint32_t d = 0; d < t->n_dim; d++, p += 8)
            store_u64(p, t->dim[d]);
        store_u64(p, t->off - v->data_off);
        store_u64(p + 8, t->size);
        p += 16;
    }
}

static uint16_t head_flags(const struct vapr *v)
{
    uint16_t flags = APR_FLAG_ROW_MAJOR;
    for (size_t i = 0; i < v->n_entry; i++)
        if (quant_type(v->entry[i].t.dtype)->quantized)
            flags |= APR_FLAG_QUANTIZED;
    const struct gguf_key *k = gguf_find(v->g, "tokenizer.ggml.tokens");
    if (k && k->type == GGUF_ARRAY && k->n > 0)
        flags |= APR_FLAG_HAS_VOCAB;
    return flags;
}

int vapr_head_build(struct vapr *v, const struct arch_config *c, struct err *e)
{
    struct json_out o;
    json_out_init(&o);
    int rc = put_meta(&o, v, c, e);
    uint64_t index = index_size(v), index_off = APR_HEADER_SIZE + round64(o.len);
    uint64_t len = index_off + round64(index);
    if (rc == 0 && len > HEAD_MAX)
        rc = err_set(e, -ERANGE, "head of %" PRIu64 " bytes, at most %" PRIu64 " are shown", len,
                     HEAD_MAX);
    if (rc == 0 && !(v->head = calloc(1, (size_t)len)))
        rc = err_set(e, -ENOMEM, "no memory for a head of %" PRIu64 " bytes", len);
    if (rc < 0)
        goto out;
    v->head_len = (size_t)len;
    memcpy(v->head, APR_MAGIC, 4);
    v->head[4] = 2;
    store_u16(v->head + 6, head_flags(v));
    store_u32(v->head + 8, (uint32_t)v->n_entry);
    store_u64(v->head + 12, APR_HEADER_SIZE);
    store_u32(v->head + 20, (uint32_t)o.len);
    store_u64(v->head + 24, index_off);
    memcpy(v->head + APR_HEADER_SIZE, o.p, o.len);
    put_index(v, v->head + index_off);
out:
    json_out_release(&o);
    return rc;
}

void vapr_head_seal(struct vapr *v)
{
    store_u64(v->head + 32, v->data_off);
    store_u32(v->head + 40, crc32_apr_header(v->head));
}
