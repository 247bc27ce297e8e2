/* The model digest: what a model is for the forward pass, whichever file it came from. SHA-256 over
 * text, one fact a line:
 *
 *   aprfs-model-digest 1
 *   hparam <field> <value>              of struct arch_config, but for those that are zero
 *   tensor <name> <type> <shape> <crc>  every tensor the pass reads, sorted by name
 *
 * Matrices count by their quantised bytes (the raw twin's, where that is bound), small tensors by
 * the f32 values the pass has of them. So a .gguf and every .apr made of it, of any profile, mounted
 * or copied, have one digest; any other weight, shape, type or hyperparameter gives another, and so
 * does a context that binds the other factors of a longrope model. What the pass does not read (the
 * model's name, the vocabulary's texts, padding) does not count. */
#ifndef APRFS_INFER_DIGEST_H
#define APRFS_INFER_DIGEST_H

#include "infer/bind.h"

#define DIGEST_SIZE 32

/* All of item have been read. */
int digest_model(uint8_t out[DIGEST_SIZE], const struct arch_config *c,
                 const struct bind_item *item, size_t n_item, struct err *e);

#endif
