/* The second phase of opening a model: what has been bound (bind.h) and fits (budget.h) is allocated,
 * read, checked and folded into the model's digest. */
#ifndef APRFS_INFER_MODEL_LOAD_H
#define APRFS_INFER_MODEL_LOAD_H

#include "infer/bind.h"

int model_load(struct model *m, struct bind *x, const struct model_options *opt, struct err *e);

#endif
