/* JSON metadata <-> struct arch_config: what our .apr files say about a model, and how a reader
 * rebuilds the configuration from it without one default of its own.
 *
 * Canonical keys (hidden_size, num_layers, num_heads, num_kv_heads, vocab_size, intermediate_size,
 * max_position_embeddings, rope_theta, rope_type, rms_norm_eps, head_dim, architecture, model_type
 * = architecture, tokenizer.*) stand once each under their canonical spelling; every GGUF key that
 * APR has no name for passes through under its own ("gemma3.attention.sliding_window"); "aprfs.*"
 * are ours: aprfs.profile, aprfs.raw, aprfs.alias (an array of {"name", "of", "row"}: second
 * names for rows of another tensor), aprfs.values, aprfs.builder, aprfs.unsupported (the
 * passed-through features that the Rust readers ignore), aprfs.config (the resolved fields that no
 * canonical key carries), aprfs.gguf:
 *
 *   {"version": 3, "keys": [[name, type], [name, type, member], [name, type, member, hex], ...],
 *    "size": bytes of the GGUF, "head_sha256": of its bytes before the padding}
 *
 * the GGUF's keys in its order, each with its type ("u32", "str", "[f32" for an array of them; of
 * arrays of arrays "[arr") and the member of the metadata that holds its value (absent or null: the
 * one of its own name). Where JSON cannot say the value (bytes that are no UTF-8, a NUL, a number
 * that is not finite or from 2^53 on, nested arrays) the fourth holds it as the GGUF encodes it. A
 * name that is no text stands as [hex]. size and head_sha256: of a GGUF of one part only. */
#ifndef APRFS_FORMAT_APR_META_H
#define APRFS_FORMAT_APR_META_H

#include "format/arch.h"
#include "format/err.h"
#include "format/gguf.h"
#include "format/json.h"

/* Writes every member but those the planner adds itself (it opens and closes the object around this
 * call). Per-layer counts: the canonical key carries the first layer's (or the largest), the array
 * goes into aprfs.config. */
int apr_meta_write(struct json_out *o, const struct gguf *g, const struct arch_config *c,
                   struct err *e);

/* The configuration from a .apr's metadata, of our files and of the original writers' (canonical
 * keys or Hugging Face's aliases; then the architecture's row fills what they leave out). On
 * failure *c is released. -ENOENT names the key that is missing (architecture, hidden_size, ...).
 */
int apr_meta_read(const cJSON *meta, struct arch_config *c, struct err *e);

#endif
