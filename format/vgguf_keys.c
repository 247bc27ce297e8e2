/* Keys of a virtual .gguf: how each is encoded, and those that a .apr of ours carries ("aprfs.gguf",
 * apr_meta.h). */
#include "format/bytes.h"
#include "format/vgguf_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- encoding --- */

void vgguf_put(struct vgguf_out *o, const void *p, size_t len)
{
    if (o->rc < 0 || len == 0)
        return;
    if (len > GGUF_MAX_HEAD - o->len) {
        o->rc = -ERANGE;
        return;
    }
    if (len > o->cap - o->len) {
        size_t cap = 2 * (o->len + len) + 256;
        uint8_t *n = realloc(o->p, cap);
        if (!n) {
            o->rc = -ENOMEM;
            return;
        }
        o->p = n;
        o->cap = cap;
    }
    memcpy(o->p + o->len, p, len);
    o->len += len;
}

void vgguf_put_u32(struct vgguf_out *o, uint32_t v)
{
    uint8_t b[4];
    store_u32(b, v);
    vgguf_put(o, b, sizeof b);
}

void vgguf_put_u64(struct vgguf_out *o, uint64_t v)
{
    uint8_t b[8];
    store_u64(b, v);
    vgguf_put(o, b, sizeof b);
}

void vgguf_put_str(struct vgguf_out *o, const char *p, size_t len)
{
    vgguf_put_u64(o, len);
    vgguf_put(o, p, len);
}

static void key_begin(struct vgguf *v, const char *name, size_t len, enum gguf_type type)
{
    vgguf_put_str(&v->keys, name, len);
    vgguf_put_u32(&v->keys, type);
    v->n_key++;
}

void vgguf_key_u32(struct vgguf *v, const char *name, uint32_t value)
{
    key_begin(v, name, strlen(name), GGUF_U32);
    vgguf_put_u32(&v->keys, value);
}

static uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

void vgguf_put_f32(struct vgguf_out *o, float v)
{
    vgguf_put_u32(o, f32_bits(v));
}

void vgguf_key_f32(struct vgguf *v, const char *name, float value)
{
    key_begin(v, name, strlen(name), GGUF_F32);
    vgguf_put_f32(&v->keys, value);
}

void vgguf_key_bool(struct vgguf *v, const char *name, bool value)
{
    key_begin(v, name, strlen(name), GGUF_BOOL);
    vgguf_put(&v->keys, value ? "\1" : "\0", 1);
}

void vgguf_key_str(struct vgguf *v, const char *name, const char *p, size_t len)
{
    key_begin(v, name, strlen(name), GGUF_STRING);
    vgguf_put_str(&v->keys, p, len);
}

void vgguf_key_array(struct vgguf *v, const char *name, enum gguf_type elem, uint64_t n)
{
    key_begin(v, name, strlen(name), GGUF_ARRAY);
    vgguf_put_u32(&v->keys, elem);
    vgguf_put_u64(&v->keys, n);
}

/* Bytes and range of the integer types; 0 bytes: not one of them. */
static size_t int_range(enum gguf_type t, int64_t *lo, int64_t *hi)
{
    static const struct {
        size_t size;
        bool sign;
    } row[GGUF_F64 + 1] = {
        [GGUF_U8] = {1, false},  [GGUF_I8] = {1, true},   [GGUF_U16] = {2, false},
        [GGUF_I16] = {2, true},  [GGUF_U32] = {4, false}, [GGUF_I32] = {4, true},
        [GGUF_U64] = {8, false}, [GGUF_I64] = {8, true},
    };
    size_t n = row[t].size;
    int64_t span = n == 8 ? INT64_MAX : n ? (INT64_C(1) << (8 * n - row[t].sign)) - 1 : 0;
    *hi = span;
    *lo = row[t].sign ? -span - 1 : 0;
    return n;
}

/* One value that is no array; false: the JSON is none of that type. */
static bool put_scalar(struct vgguf_out *o, enum gguf_type type, const cJSON *j, bool as_f32)
{
    int64_t i, lo, hi;
    double d;
    bool b;
    uint8_t le[8];
    size_t n = int_range(type, &lo, &hi);
    if (n) {
        if (!json_int(j, &i) || i < lo || i > hi)
            return false;
        store_u64(le, (uint64_t)i);
        vgguf_put(o, le, n);
        return true;
    }
    switch (type) {
    case GGUF_F32:
    case GGUF_F64:
        if (!json_num(j, &d) || !isfinite(d) || (type == GGUF_F32 && !isfinite((float)d)))
            return false;
        if (type == GGUF_F32) {
            vgguf_put_u32(o, f32_bits((float)d));
        } else {
            uint64_t u;
            d = as_f32 ? (double)(float)d : d;
            memcpy(&u, &d, sizeof u);
            vgguf_put_u64(o, u);
        }
        return true;
    case GGUF_BOOL:
        if (!json_bool(j, &b))
            return false;
        vgguf_put(o, b ? "\1" : "\0", 1);
        return true;
    case GGUF_STRING:
        if (!json_text(j))
            return false;
        vgguf_put_str(o, json_text(j), strlen(json_text(j)));
        return true;
    default:
        return false;
    }
}

int vgguf_put_items(struct vgguf *v, const char *name, size_t len, enum gguf_type elem,
                    const cJSON *array, bool as_f32, struct err *e)
{
    int n = len < 80 ? (int)len : 80;
    uint64_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, array)
    {
        if (!put_scalar(&v->keys, elem, item, as_f32))
            return err_set(e, -EUCLEAN, "metadata: element %" PRIu64 " of '%.*s' is no %s", count,
                           n, name, gguf_type_name(elem));
        count++;
    }
    return 0;
}

int vgguf_key_json(struct vgguf *v, const char *name, size_t len, enum gguf_type type,
                   enum gguf_type elem, const cJSON *value, bool as_f32, struct err *e)
{
    int n = len < 80 ? (int)len : 80;
    key_begin(v, name, len, type);
    if (type != GGUF_ARRAY) {
        if (!put_scalar(&v->keys, type, value, as_f32))
            return err_set(e, -EUCLEAN, "metadata: the value of '%.*s' is no %s", n, name,
                           gguf_type_name(type));
        return 0;
    }
    if (!cJSON_IsArray(value))
        return err_set(e, -EUCLEAN, "metadata: the value of '%.*s' is no array", n, name);
    vgguf_put_u32(&v->keys, elem);
    vgguf_put_u64(&v->keys, (uint64_t)cJSON_GetArraySize(value));
    return vgguf_put_items(v, name, len, elem, value, as_f32, e);
}

/* --- the keys of our files --- */

/* Members of the metadata by name: a file may have as many of both as it likes. */
struct members {
    const cJSON **v;
    bool *used; /* by a key: one value is one key's, or a small file could ask for a large head */
    size_t n;
};

static int cmp_member(const void *a, const void *b)
{
    return strcmp((*(const cJSON *const *)a)->string, (*(const cJSON *const *)b)->string);
}

static int cmp_key(const void *name, const void *b)
{
    return strcmp(name, (*(const cJSON *const *)b)->string);
}

static int members_sort(struct members *m, const cJSON *meta, struct err *e)
{
    size_t n = 0;
    for (const cJSON *v = meta->child; v; v = v->next)
        n++;
    m->v = calloc(n + 1, sizeof(const cJSON *));
    m->used = calloc(n + 1, sizeof *m->used);
    if (!m->v || !m->used)
        return err_set(e, -ENOMEM, "no memory for %zu names", n);
    for (const cJSON *v = meta->child; v; v = v->next)
        m->v[m->n++] = v;
    qsort(m->v, m->n, sizeof(const cJSON *), cmp_member);
    return 0;
}

/* The member of that name; *again: a key before has it already. */
static const cJSON *members_take(const struct members *m, const char *name, bool *again)
{
    const cJSON *const *p = name ? bsearch(name, m->v, m->n, sizeof(const cJSON *), cmp_key) : NULL;
    *again = p && m->used[p - m->v];
    if (p)
        m->used[p - m->v] = true;
    return p ? *p : NULL;
}

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes from hex, in place of nothing: appended to o; false: no hex. */
static bool put_hex(struct vgguf_out *o, const char *s)
{
    size_t n = strlen(s);
    if (n % 2)
        return false;
    for (size_t i = 0; i < n; i += 2) {
        int hi = nibble(s[i]), lo = nibble(s[i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        uint8_t b = (uint8_t)(hi << 4 | lo);
        vgguf_put(o, &b, 1);
    }
    return true;
}

/* "u32" or "[f32". */
static bool parse_type(const char *s, enum gguf_type *type, enum gguf_type *elem)
{
    bool array = s && *s == '[';
    int t = s ? gguf_type_parse(s + array) : -1;
    if (t < 0 || (!array && t == GGUF_ARRAY))
        return false;
    *type = array ? GGUF_ARRAY : (enum gguf_type)t;
    *elem = (enum gguf_type)t;
    return true;
}

static int own_key(struct vgguf *v, const struct members *m, const char *name, size_t len,
                   const cJSON *type_text, bool named, struct err *e)
{
    enum gguf_type type, elem;
    const cJSON *at = type_text ? type_text->next : NULL, *hex = at ? at->next : NULL;
    int n = len < 80 ? (int)len : 80;
    if (!parse_type(json_text(type_text), &type, &elem))
        return err_set(e, -EUCLEAN, "metadata 'aprfs.gguf': the type of '%.*s' is not known", n,
                       name);
    if (hex) {
        key_begin(v, name, len, type);
        if (!json_text(hex) || !put_hex(&v->keys, json_text(hex)))
            return err_set(e, -EUCLEAN, "metadata 'aprfs.gguf': the bytes of '%.*s' are no hex", n,
                           name);
        return 0;
    }
    const char *member = at && !cJSON_IsNull(at) ? json_text(at) : named ? name : NULL;
    bool again;
    const cJSON *value = members_take(m, member, &again);
    if (again)
        return err_set(e, -EUCLEAN, "metadata 'aprfs.gguf': '%.80s' is the value of two keys",
                       member);
    if (!value)
        return err_set(e, -EUCLEAN, "metadata: the value of '%.*s' is not there", n, name);
    bool as_f32 = member != name && strncmp(member, "gguf.key.", 9) != 0;
    if (type == GGUF_U32 && strcmp(name, "general.alignment") == 0) {
        uint64_t a;
        if (!json_uint(value, &a) || a < 8 || a > GGUF_MAX_ALIGN || (a & (a - 1)) != 0)
            return err_set(e, -EUCLEAN, "metadata: general.alignment is no power of two from 8 on");
        v->alignment = (uint32_t)a;
    }
    return vgguf_key_json(v, name, len, type, elem, value, as_f32, e);
}

static bool is_split(const char *name)
{
    return strcmp(name, "split.no") == 0 || strcmp(name, "split.count") == 0 ||
           strcmp(name, "split.tensors.count") == 0;
}

/* [name or [hex], type, member or null, hex] */
static int own_item(struct vgguf *v, const struct members *m, const cJSON *item, struct err *e)
{
    const cJSON *head = cJSON_IsArray(item) ? item->child : NULL;
    const char *name = json_text(head);
    struct vgguf_out bytes = {0};
    if (name && !v->has_sha && is_split(name))
        return 0; /* of several parts, which now are one */
    if (name)
        return own_key(v, m, name, strlen(name), head->next, true, e);
    const char *hex = cJSON_IsArray(head) ? json_text(head->child) : NULL;
    int rc = 0;
    if (!hex || !put_hex(&bytes, hex))
        rc = err_set(e, -EUCLEAN, "metadata 'aprfs.gguf': a key without a name");
    vgguf_put(&bytes, "", 1);
    if (rc == 0 && bytes.rc < 0)
        rc = err_set(e, bytes.rc, "no memory for a name");
    if (rc == 0)
        rc = own_key(v, m, (const char *)bytes.p, bytes.len - 1, head->next, false, e);
    free(bytes.p);
    return rc;
}

static int take_identity(struct vgguf *v, const cJSON *own, struct err *e)
{
    const cJSON *version = json_get(own, "version"), *sha = json_get(own, "head_sha256");
    uint64_t u;
    if (!json_uint(version, &u) || (u != 2 && u != 3))
        return err_set(e, -EUCLEAN, "metadata 'aprfs.gguf': its version is neither 2 nor 3");
    v->version = (uint32_t)u;
    if (!sha)
        return 0;
    struct vgguf_out b = {0};
    bool ok = json_text(sha) && put_hex(&b, json_text(sha)) && b.rc == 0 &&
              b.len == sizeof v->sha && json_uint(json_get(own, "size"), &v->size);
    if (ok)
        memcpy(v->sha, b.p, sizeof v->sha);
    free(b.p);
    v->has_sha = ok;
    return ok ? 0
              : err_set(e, -EUCLEAN, "metadata 'aprfs.gguf': head_sha256 without size, or no hex");
}

int vgguf_keys_own(struct vgguf *v, const cJSON *own, struct err *e)
{
    struct members m = {0};
    const cJSON *keys = json_get(own, "keys"), *item;
    int rc = take_identity(v, own, e);
    if (rc == 0 && !cJSON_IsArray(keys))
        rc = err_set(e, -EUCLEAN, "metadata 'aprfs.gguf': no list of keys");
    if (rc == 0)
        rc = members_sort(&m, apr_meta(v->a), e);
    if (rc == 0)
        cJSON_ArrayForEach(item, keys)
        {
            rc = own_item(v, &m, item, e);
            if (rc == 0 && v->keys.rc < 0)
                rc = err_set(e, v->keys.rc, "keys of more than %" PRIu64 " bytes", GGUF_MAX_HEAD);
            if (rc < 0)
                break;
        }
    free(m.v);
    free(m.used);
    return rc;
}
