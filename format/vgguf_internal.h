/* What vgguf.c, vgguf_keys.c, vgguf_foreign.c and vgguf_tokenizer.c share. */
#ifndef APRFS_FORMAT_VGGUF_INTERNAL_H
#define APRFS_FORMAT_VGGUF_INTERNAL_H

#include "format/arch.h"
#include "format/vgguf.h"

/* A growing byte string; the first failure sticks in rc (-ENOMEM, -ERANGE past GGUF_MAX_HEAD). */
struct vgguf_out {
    uint8_t *p;
    size_t len, cap;
    int rc;
};

void vgguf_put(struct vgguf_out *o, const void *p, size_t len);
void vgguf_put_u32(struct vgguf_out *o, uint32_t v);
void vgguf_put_u64(struct vgguf_out *o, uint64_t v);
void vgguf_put_f32(struct vgguf_out *o, float v);
void vgguf_put_str(struct vgguf_out *o, const char *p, size_t len);

/* One tensor of the GGUF and where its bytes are. */
struct vgguf_tensor {
    const char *name; /* lent from the .apr, or own */
    char *own;        /* a name that was changed, else NULL */
    uint32_t type;    /* GGML id */
    uint32_t n_dim;
    uint64_t ne[GGUF_MAX_DIMS];    /* innermost first */
    uint64_t size;                 /* bytes in the GGUF */
    uint64_t src_off, src_size;    /* in the .apr */
    const struct quant_type *conv; /* widened to F32 from this; NULL: the bytes as they are */
    uint64_t off;                  /* from the data start */
};

struct vgguf {
    const struct apr *a;
    struct vplan plan;
    struct source *src; /* over plan */
    struct gguf *g;     /* over src */
    struct vgguf_tensor *tensor;
    size_t n_tensor;
    uint32_t version, alignment;
    struct vgguf_out keys; /* encoded key/value pairs */
    uint64_t n_key;
    uint8_t *head;
    size_t head_len;
    bool has_sha, same_head;
    uint8_t sha[32]; /* has_sha: of the original's head */
    uint64_t size;   /* has_sha: of the original */
    char **note;
    size_t n_note;
};

/* A key with a scalar or a string. */
void vgguf_key_u32(struct vgguf *v, const char *name, uint32_t value);
void vgguf_key_f32(struct vgguf *v, const char *name, float value);
void vgguf_key_bool(struct vgguf *v, const char *name, bool value);
void vgguf_key_str(struct vgguf *v, const char *name, const char *p, size_t len);
/* The key's name and type, and an array's element type and length; the caller puts the elements. */
void vgguf_key_array(struct vgguf *v, const char *name, enum gguf_type elem, uint64_t n);
/* A JSON value as a key of a type (elem: of arrays). -EUCLEAN where it is none of that type; as_f32:
 * an f64 stands rounded to f32. */
int vgguf_key_json(struct vgguf *v, const char *name, size_t len, enum gguf_type type,
                   enum gguf_type elem, const cJSON *value, bool as_f32, struct err *e);
/* The elements alone of such an array; the messages call it name. */
int vgguf_put_items(struct vgguf *v, const char *name, size_t len, enum gguf_type elem,
                    const cJSON *array, bool as_f32, struct err *e);
/* A member of the metadata as a key of type string, if it is one and not empty. */
void vgguf_put_text(struct vgguf *v, const char *member, const char *key);

int vgguf_note_add(struct vgguf *v, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* vgguf_keys.c: keys of a file with "aprfs.gguf", and alignment, version, sha, size. */
int vgguf_keys_own(struct vgguf *v, const cJSON *own, struct err *e);
/* vgguf_foreign.c: names of the tensors, then keys, of a file of the original writers. */
int vgguf_keys_foreign(struct vgguf *v, struct err *e);
/* vgguf_tokenizer.c: the keys tokenizer.*; rows: of the embedding. */
int vgguf_put_tokenizer(struct vgguf *v, const struct arch_config *c, uint64_t rows, struct err *e);

#endif
