/* The backend "gpu": kernels/gpu_ops.h on one stream of one device. */
#ifndef APRFS_INFER_GPU_BACKEND_H
#define APRFS_INFER_GPU_BACKEND_H

#include "infer/backend.h"

/* -ENODEV where this build or machine has no GPU; "no GPU: " and the reason. Anything else, -EIO
 * mostly: there is a GPU or a driver, and it fails. */
int gpu_backend_open(struct backend **out, const struct backend_options *opt, struct err *e);

#endif
