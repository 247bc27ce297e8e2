/* What vapr.c, vapr_plan.c, vapr_alias.c and vapr_head.c share. */
#ifndef APRFS_FORMAT_VAPR_INTERNAL_H
#define APRFS_FORMAT_VAPR_INTERNAL_H

#include "format/apr.h"
#include "format/arch.h"
#include "format/vapr.h"

#define VAPR_MAX_TENSOR (1u << 20) /* apr_read's limit */
#define VAPR_MAX_SIZE   VPLAN_MAX_SIZE

struct vapr_entry {
    struct vapr_tensor t; /* t.name is owned */
    uint64_t raw_off;     /* where the original bytes stand in the virtual file */
    size_t target;        /* aliases: number of the entry whose rows they name, before sorting */
    uint64_t row;         /* the first of them */
    const char *of;       /* its name, lent from that entry */
};

struct vapr {
    const struct gguf *g;
    struct vapr_options opt;
    struct vapr_entry *entry;
    size_t n_entry, cap_entry;
    struct vplan plan; /* plan.size: while planning, the end so far */
    uint8_t *head;
    size_t head_len;
    uint64_t data_off;
};

/* vapr_plan.c: one entry per tensor of the GGUF in its order, each raw or to be converted. */
int vapr_plan_entries(struct vapr *v, struct err *e);
/* vapr_alias.c: second names behind them. c: the reference configuration. */
int vapr_plan_aliases(struct vapr *v, const struct arch_config *c, struct err *e);
/* vapr_plan.c: segments and offsets, as if the data began at the smallest possible data_off; then
 * sorts the entries by name. vapr_plan_move shifts everything by whole VAPR_SHIFTs behind a head of
 * head_len bytes and closes the file. */
int vapr_plan_layout(struct vapr *v, struct err *e);
int vapr_plan_move(struct vapr *v, struct err *e);
/* vapr_head.c: header, metadata, index. Offsets in them count from data_off, so that the head does
 * not depend on its own length; the header gets its data_off by vapr_head_seal. */
int vapr_head_build(struct vapr *v, const struct arch_config *c, struct err *e);
void vapr_head_seal(struct vapr *v);

/* A new entry at the end, its name copied; NULL and -ENOMEM in *e. */
struct vapr_entry *vapr_entry_add(struct vapr *v, const char *name, size_t len, struct err *e);
/* Bytes of one row as the original stores it and as the file shows it; a vector's rows are its
 * elements. False: rows of that type cannot be told apart (a vector of blocks). */
bool vapr_row_sizes(const struct vapr_tensor *t, uint64_t *src, uint64_t *shown);

#endif
