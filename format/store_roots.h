/* Where programs keep their models on this machine: the stores of SOURCE "auto" and of aprtool ls
 * without a path. Looks at the environment and at directories; opens nothing.
 *
 *   hub cache   $HF_HUB_CACHE, else $HUGGINGFACE_HUB_CACHE (its older name), else $HF_HOME/hub, else
 *               ${XDG_CACHE_HOME:-~/.cache}/huggingface/hub
 *   Ollama      $OLLAMA_MODELS, else ~/.ollama/models; and /usr/share/ollama/.ollama/models
 *   LM Studio   ~/.lmstudio/models, ~/.cache/lm-studio/models
 *   llama.cpp   $LLAMA_CACHE, else ${XDG_CACHE_HOME:-~/.cache}/llama.cpp
 * ~ is $HOME, else the user's home in the password file. A variable that is set and empty counts as
 * unset, as in these programs. */
#ifndef APRFS_FORMAT_STORE_ROOTS_H
#define APRFS_FORMAT_STORE_ROOTS_H

#include "format/err.h"
#include "format/store.h"

#include <stddef.h>

struct store_root {
    char *path; /* as the environment says it, ~ resolved */
    enum store_kind kind;
    int rc;    /* 0; -EACCES: whether it is there cannot be seen */
    char *why; /* "" or a sentence with the path */
};

/* *out is a malloc'ed array of the roots that exist, in the order above, each directory once; *n
 * may be 0. Fails without memory only. store_roots_free frees it. */
int store_roots(struct store_root **out, size_t *n, struct err *e);
void store_roots_free(struct store_root *r, size_t n);

#endif
