/* Files for the resolver's tests: one plausible GGUF per architecture, with the keys that
 * llama.cpp requires of it, and a resolved GGUF with everything it hangs on. */
#ifndef APRFS_TESTS_ARCH_CASE_H
#define APRFS_TESTS_ARCH_CASE_H

#include "format/arch.h"
#include "tests/gguf_build.h"

struct arch_line { /* one line of tests/data/arch-table.tsv */
    char *name, *rope, *eps, *required, *optional;
};

/* All lines, 153 of them; freed by arch_lines_free. Aborts the test if the file is not there. */
struct arch_line *arch_lines(size_t *n);
void arch_lines_free(struct arch_line *l, size_t n);

/* True if word stands in the comma-separated list. */
bool arch_list_has(const char *list, const char *word);

/* A file of that architecture with every required key of its line (numbers that are plausible, not
 * true of any model). To be freed. */
struct gguf_build *arch_case(const struct arch_line *l);

/* An opened and resolved file. open: bytes of b; b stays the caller's. rc and err tell failures. */
struct arch_open {
    uint8_t *bytes;
    struct source *src;
    struct gguf *g;
    struct arch_config c;
    struct arch_report r;
    struct err e;
    int rc;
};

void arch_open_build(struct arch_open *a, const struct gguf_build *b, enum arch_values values);
void arch_open_path(struct arch_open *a, const char *path);
void arch_open_release(struct arch_open *a);
/* b resolved by the reference's values; a refusal fails the test. */
struct arch_open arch_open_good(const struct gguf_build *b);
/* Takes b, and expects a refusal whose message holds the text. */
void arch_refused(struct gguf_build *b, int rc, const char *says);
struct gguf_build *arch_model(const char *arch); /* llama-like, of defaults */
/* The report's field by name; fails the test if there is none. */
const struct arch_field *arch_open_field(const struct arch_open *a, const char *name);
/* True if a note holds the text. */
bool arch_open_noted(const struct arch_open *a, const char *text);
/* "<arch>.<key>", in a ring of static buffers. */
const char *arch_name(const char *arch, const char *key);

#endif
