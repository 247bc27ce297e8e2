/* Names: from what a store says (bytes anyone may have written) to path components that every file
 * system takes. Pure functions; no allocation but where said.
 *
 *   clean      bytes outside [A-Za-z0-9._+-] become '_', runs of '_' one; a leading '.' or '-' gets
 *              '_' before it; trailing dots go; empty -> "_"
 *   length     <= 200 bytes; longer: the first 190, '-', digest8, so that every name made of a stem
 *              (".tokenizer.json", "-00001-of-00002.gguf") stays within 255
 *   identity   32 bytes; digest8 = its first 8 hex digits
 *   collision  two stems equal without case in one directory: the later keeps "-<digest8>"
 * A cleaned name is never empty, "." or "..", and holds no '/', NUL or control byte. */
#ifndef APRFS_FORMAT_NAME_H
#define APRFS_FORMAT_NAME_H

#include "format/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_MAX_LEN 200                /* bytes of a stem or a directory */
#define NAME_SIZE    (NAME_MAX_LEN + 1) /* with its NUL */
#define NAME_ID_SIZE 32                 /* an identity: SHA-256 */
#define NAME_HEX     (2 * NAME_ID_SIZE + 1)

/* Cleans src[0..len) into dst. A longer result is cut and gets the digest8 of id, or, where id is
 * NULL, of the SHA-256 of src itself. */
void name_clean(char dst[NAME_SIZE], const void *src, size_t len, const uint8_t id[NAME_ID_SIZE]);

/* "-<digest8>" behind name, which is cut to 190 first if it is longer. n > 1 appends "-<n>" too. */
void name_add_digest(char name[NAME_SIZE], const uint8_t id[NAME_ID_SIZE], unsigned n);

/* A component that a manifest gave: false for "", ".", "..", or any '/', NUL or control byte. */
bool name_part_ok(const char *p, size_t len);

/* Lower-case hex of id; digest8 is its first 8 characters. */
void name_hex(char dst[NAME_HEX], const uint8_t id[NAME_ID_SIZE]);

/* A plain folder's path to two levels: dir is the file's directory below the root ("" = root
 * itself, "a", "a/b", "a/b/c"), stem names the model of a file at the root.
 *   "" -> local/<stem>   a -> local/a   a/b -> a/b   a/b/c -> a/b+c */
void name_two_levels(char publisher[NAME_SIZE], char model[NAME_SIZE], const char *dir,
                     const char *stem);

/* llama.cpp's spelling of general.file_type ("Q4_K_M"); NULL for numbers that it does not have. */
const char *name_file_type(uint64_t ftype);

/* What a stem may be made of; NULL or "" = absent. Texts are raw bytes of the file or the store. */
struct name_facts {
    const char *file; /* last path component; may be NULL (hash-named stores without a name) */
    const char *basename, *size_label, *finetune, *version; /* general.* */
    const char *name;                                       /* general.name */
    const char *model_dir, *tag;                            /* repository or directory; tag */
    const char *quant;                                      /* "Q4_K_M" */
    bool chat_hint, has_chat_template;
    const uint8_t *id; /* NAME_ID_SIZE bytes */
};

/* The stem, by the first rule that gives one:
 *   1 the file's own name without .gguf and shard suffix, if a person can read it: not
 *     "sha256-...", not eight or more hex digits and nothing else, not generic ("model",
 *     "ggml-model*", "unsloth.<quant>", "gguf")
 *   2 basename (or name), size_label, finetune, version, joined by '-', each once
 *   3 model_dir, then tag
 *   4 the file's own name, whatever it is
 * The quantisation is appended to a stem of rules 2 and 3 that lacks it. Returns
 * the rule's number. */
int name_stem(char dst[NAME_SIZE], const struct name_facts *f);

/* The file name without ".gguf" (any case) and without a shard suffix, uncleaned: its length. */
size_t name_bare_len(const char *file);

/* One name that wants its place. name_settle makes (publisher, model, stem) unique without case:
 * directories that differ only in case become one (the spelling of the first in byte order), and of
 * equal stems all but the first by order get "-<digest8>". Independent of the order of the array,
 * which stays as it is. */
struct name_claim {
    char publisher[NAME_SIZE], model[NAME_SIZE], stem[NAME_SIZE];
    const char *order;        /* unique in the array; byte order decides who is first */
    const uint8_t *id;        /* NAME_ID_SIZE bytes */
    const uint8_t *sibling;   /* NAME_ID_SIZE bytes or NULL: claims with different ones may not
                               * share a directory; the later group by byte order of stems moves to
                               * "<model>-<digest8 of sibling>" */
    unsigned n_suffix, moved; /* scratch of name_settle */
};
int name_settle(struct name_claim *c, size_t n, struct err *e);

/* 63 bits of SHA-256 over path, a NUL and the identity (NULL for directories): never 0 or 1. */
uint64_t name_inode(const char *path, const uint8_t id[NAME_ID_SIZE]);

/* Bytes below 0x20, 0x7f, '\' and both of U+0080..9F (controls to a terminal, too) as "\ooo" (octal),
 * so that a path fits one line of a text. malloc'ed; NULL if there is no memory. */
char *name_escape(const char *s);
char *name_escape_bytes(const void *p, size_t len);

#endif
