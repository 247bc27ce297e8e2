/* Trees of model files in temporary folders, and scans of them as text. Paths are below root. Out
 * of memory or space aborts. */
#ifndef APRFS_TESTS_STORE_BUILD_H
#define APRFS_TESTS_STORE_BUILD_H

#include "format/store.h"
#include "tests/gguf_build.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void tree_dir(const char *root, const char *rel); /* with its parents */
void tree_bytes(const char *root, const char *rel, const void *p, size_t len);
void tree_text(const char *root, const char *rel, const char *text);
void tree_link(const char *root, const char *rel, const char *target);
void tree_build(const char *root, const char *rel, const struct gguf_build *b);
void tree_cut(const char *root, const char *rel, uint64_t size);
void tree_mode(const char *root, const char *rel, unsigned mode);
void tree_remove(const char *root, const char *rel);

/* A small qwen2 with gpt2 tokenizer (about 170 KB); seed changes weights and nothing in the head. */
struct gguf_build *tree_model_new(uint64_t seed);
void tree_model(const char *root, const char *rel, uint64_t seed);
/* The same model in n shards "<rel>-0000K-of-0000N.gguf". */
void tree_shards(const char *root, const char *rel, int n);
/* What is no model: mmproj, LoRA, vocabulary alone, importance matrix. */
void tree_projector(const char *root, const char *rel);
void tree_adapter(const char *root, const char *rel);
void tree_vocab(const char *root, const char *rel);
void tree_imatrix(const char *root, const char *rel);

/* A hub cache's repository "models--org--repo" below root. The blob's name is its SHA-256, or, with
 * git = true, 40 digits; way: the file's in the snapshot, "sub/m.gguf". Returns the blob's name, static. */
#define TREE_COMMIT_A "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334"
#define TREE_COMMIT_B "b2c3d4e5f60718293a4b5c6d7e8f900112233445"
const char *tree_hub_file(const char *root, const char *repo, const char *commit, const char *way,
                          const void *p, size_t len, bool git);
const char *tree_hub_model(const char *root, const char *repo, const char *commit, const char *way,
                           uint64_t seed);
void tree_hub_ref(const char *root, const char *repo, const char *ref, const char *commit);

/* One line per entry, in order:
 *   "model 0 pub/model/stem <- alias|alias" or "unsupported EAGAIN - <- alias" */
char *tree_show(const struct store *s);
/* One line per problem, in order: "EAGAIN path: why". */
char *tree_problems(const struct store *s);

/* Scans, knowing what prev knows (NULL: nothing); a failure fails the test. */
struct store *tree_scan_after(const char *root, const struct store_options *opt,
                              const struct store *prev);
struct store *tree_scan(const char *root, const struct store_options *opt);
/* Scans and compares with what tree_show() and tree_problems() should give. NULL: not compared. */
void tree_expect(const char *root, const struct store_options *opt, const char *entries,
                 const char *problems);

#endif
