/* Between readers.c (the table), readers_raw.c (the file as it lies there), readers_container.c (rules
 * about the file) and readers_model.c (rules about the model in it). */
#ifndef APRFS_FORMAT_READERS_INTERNAL_H
#define APRFS_FORMAT_READERS_INTERNAL_H

#include "format/apr.h"
#include "format/json.h"
#include "format/quant.h"
#include "format/readers.h"

#include <stdint.h>

struct raw_tensor {
    const char *name; /* in raw_apr.index, not terminated */
    size_t name_len;
    uint8_t dtype;
    unsigned n_dim;
    uint64_t dim[APR_MAX_DIMS]; /* the first of them */
    uint64_t n;                 /* weights; UINT64_MAX: too many to count */
    uint64_t off, size;
};

/* The file by a laxer hand than apr_open's. */
struct raw_apr {
    uint64_t size;
    uint8_t head[APR_HEADER_SIZE];
    uint32_t n_tensor;
    uint16_t flags;
    uint64_t meta_off, index_off, data_off;
    uint32_t meta_size;
    bool meta_past_end, unsorted;
    bool not_json; /* to serde_json, or not an object */
    cJSON *meta;   /* the object, keys perhaps twice; NULL: not_json */
    const cJSON *
        *real; /* members of objects that are whole numbers but written as none: 256.0, 1e2 */
    size_t n_real, cap_real;
    uint8_t *index;
    struct raw_tensor *t;              /* the entries that could be read */
    const struct raw_tensor **by_name; /* t[0..n_read), equal names in the file's order */
    size_t n_all;  /* of them: by a reader that goes on to the end of the file (aprender) */
    size_t n_read; /* before data_off, where realizar's stop */
    bool clipped;  /* there may be more, further in than is read here */
};

/* What is wrong in the file is marked as such; fails only where the file cannot be read, holds more
 * than is judged (-ERANGE), or memory is short. Release it in any case. */
int raw_read(struct raw_apr *r, struct source *src, struct err *e);
void raw_release(struct raw_apr *r);
/* serde's unsigned integers: a number written as one. */
bool raw_uint(const struct raw_apr *r, const cJSON *m, uint64_t *out);
/* obj has the member more than once. */
bool raw_twice(const cJSON *obj, const char *key);
/* The first of that name. */
const struct raw_tensor *raw_find(const struct raw_apr *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
bool raw_is(const struct raw_tensor *t, const char *name);

/* One rule applied to one reader. */
struct judge {
    struct reader_verdict *v;
    enum reader reader;
    const struct reader_rule *rule;
    const struct raw_apr *r;
    const struct apr *a; /* NULL: ours refuses it */
    const char *refused; /* then: why */
    bool *wrong;         /* per entry of r: is among v->wrong already */
};

/* The rule is broken: told once per rule. */
void judge_found(struct judge *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same about one tensor, which goes among the wrong ones if the rule says MISREADS. %s in fmt is
 * its name. */
void judge_tensor(struct judge *j, const struct raw_tensor *t, const char *fmt);

/* Its metadata is an empty one to that reader of realizar's (whatever it says). */
bool metadata_is_empty(const struct raw_apr *r, enum reader reader, char why[160]);
/* A metadata value under the name or an alias that realizar's AprMetadata takes; NULL: none. */
const cJSON *metadata_value(const struct raw_apr *r, const char *key);
/* What the reader takes a dtype for: a GGML id, APR_TYPE_OWN_*, or one of these. */
#define READING_OTHER   0x2001 /* something that GGML has not */
#define READING_REFUSES 0x2002
uint32_t reading(enum reader reader, const struct raw_tensor *t);

typedef void rule_check(struct judge *j);
rule_check check_size, check_magic, check_header_crc, check_column_major, check_encrypted,
    check_compressed, check_metadata_bounds, check_metadata_json, check_metadata_type,
    check_metadata_empty, check_tensor_count, check_index_bounds, check_index_place,
    check_index_sorted, check_dtype_known, check_dtype_meaning, check_tensor_bounds;
rule_check check_required, check_dimensions, check_limits, check_names, check_roles,
    check_embedding_type, check_norm_f32, check_bias_type, check_qkv_bias, check_unbound,
    check_shapes, check_gemma3, check_cuda_arch, check_eps_given, check_head_size, check_f32_keys,
    check_f32_rope, check_f32_dimensions, check_f32_embedding, check_f32_missing, check_f32_qk_norm,
    check_ours;

#endif
