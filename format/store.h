/* Stores: a folder of models on disk -> a sorted list of entries, one per model or per thing that
 * is no model, with the reason. A store is read, never written.
 *
 * A scan is a pure function of the directory's state and the options: no watching, no order of readdir, no
 * threads but those that a crew lends it, whose order decides nothing. Every file is opened O_RDONLY|O_NONBLOCK|O_NOCTTY|O_CLOEXEC and must be regular
 * with the magic "GGUF" (options.view: of .apr). What cannot be served is an entry or a problem with an errno and a
 * sentence. One layout = one file store_<layout>.c and one row in store.c's table. */
#ifndef APRFS_FORMAT_STORE_H
#define APRFS_FORMAT_STORE_H

#include "format/err.h"
#include "format/gguf.h"
#include "format/name.h"
#include "format/source.h"
#include "format/vapr.h"
#include "format/vgguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_MAX_DEPTH 16 /* directories below the root */

enum store_kind {
    STORE_AUTO, /* as an option only: detect */
    STORE_HF,   /* Hugging Face hub cache */
    STORE_OLLAMA,
    STORE_LMSTUDIO,
    STORE_LLAMACPP, /* llama.cpp's cache before it moved into the hub's */
    STORE_PLAIN,
};

enum store_role {
    STORE_MODEL,
    STORE_PROJECTOR, /* shown as a link <stem>.gguf; stem begins with "mmproj-" */
    STORE_ADAPTER,
    STORE_VOCAB,
    STORE_IMATRIX,
    STORE_UNSUPPORTED, /* a model file, but refused or unreadable: see rc and why */
};

enum store_resolve {
    STORE_RESOLVE_ANY,     /* links to files are followed wherever they lead */
    STORE_RESOLVE_BENEATH, /* a link that leaves the root is a problem (EXDEV) */
};

/* What the tree shows of a store. */
enum store_view {
    STORE_VIEW_APR,  /* each GGUF as a .apr */
    STORE_VIEW_GGUF, /* each .apr of a plain folder as a .gguf: vgguf.h */
};

/* How a file of a store is opened; a part keeps the rule it was found by. */
enum store_how {
    STORE_HOW_ANY,     /* links are followed wherever they lead */
    STORE_HOW_BENEATH, /* a link that leaves the root: -EXDEV */
    STORE_HOW_STRICT,  /* no link at all below the root: -ELOOP */
    STORE_HOW_HUB, /* strict, but the last component may be a link to its repository's blobs/, and
                        * that blob one into the cache's own */
};

/* Threads for a scan to read headers with, by whoever may make some. */
struct store_crew {
    /* job(arg, i) for every i < n, in any order and several at once; returns when all are done. */
    void (*each)(size_t n, void (*job)(void *arg, size_t i), void *arg);
    /* A job read STORE_LARGE_HEAD bytes and wants more: waits until one more of those may be in memory;
     * end tells that it is not any more. */
    void (*large_begin)(void);
    void (*large_end)(void);
};

#define STORE_LARGE_HEAD ((size_t)1 << 20)

struct store_options {
    enum store_kind kind;
    enum store_resolve resolve;
    enum store_view view;
    struct vapr_options vapr; /* decides sizes, and what a profile refuses */
    bool plan;          /* true (the mount): plan every model once, so that size is known and a
                     * refusal is an entry's rc; false (listing): headers only, size 0 */
    bool all_revisions; /* hub cache: the other snapshots too, as "<repo>@<commit8>" */
    bool chat_hint;     /* append -Instruct where a chat template exists and the stem has no hint */
    /* What would help against EACCES, for the problem's line; NULL: nothing is known. Lent; decides nothing. */
    const char *denied_hint;
    const struct store_crew *crew; /* NULL: one file after the other */
    /* The device of the mount that this scan is for, which would show itself and wait for itself where a
     * store leads into it; 0: none yet. Decides nothing of a header either. */
    uint64_t own_dev;
};

struct store_part {
    char *path;          /* absolute: the root's real path and the way below it, links unresolved */
    struct source_id id; /* of the file behind it */
    char sha256[65];     /* lower-case hex where the store says it, else "" */
    enum store_how how;
};

/* What whoever shows an entry learns while it does, for the next scan, which takes it over with the
 * facts. Empty after the scan that read the header. */
struct store_learnt {
    uint64_t ino; /* of its node, where that is not the number that path and content give; else 0 */
    uint32_t
        *crc; /* CRC-32s, n_crc of them: the footer's, then of every tensor's bytes in the order of
                    * the .apr's index; NULL: not computed, or no footer */
    size_t n_crc;
    bool doubt; /* planned again it was another file: the next scan reads the header again */
};

struct store_entry {
    /* Clean, collision-free; the file is publisher/model/stem.apr. */
    char *publisher, *model, *stem;
    char *wish;  /* the stem before collisions were settled */
    char *order; /* way of the first part below the root: who is first in a collision */
    char *
        called; /* all that the layout told of names: equal, and the same bytes give the same wish */
    char **alias; /* other names: as users type them ("qwen2.5:0.5b", "org/repo"), then order; of
                   * several entries that were one model, one list after the other, each name once */
    size_t n_alias;
    char *revision; /* hub: commit; Ollama: manifest digest; "" = the store knows none */
    char *params;   /* Ollama's params layer, JSON as it stands; "" = none */
    enum store_kind kind;
    enum store_role role;
    struct store_part *part; /* in shard order; those that were found */
    int n_part;
    int rc; /* 0: served. -ENOENT (a shard or target is missing), -EUCLEAN, -ENOTSUP, -EAGAIN (still
             * arriving), -EACCES, -EXDEV, -EIO */
    char *why;     /* "" if rc is 0 */
    char *warning; /* "" or what is odd about an entry that is served: a hole in tensor data */

    /* Facts, valid as far as the header could be read ("" or 0 = unknown). */
    char *arch;  /* general.architecture */
    char *quant; /* llama.cpp's name of general.file_type, else the type most weights have */
    uint64_t n_params, n_ctx_train;
    uint64_t src_size;                 /* bytes of all parts together */
    uint8_t head_sha256[NAME_ID_SIZE]; /* identity: SHA-256 over, per part, u64 LE file size, u64 LE
                                        * head length, head bytes. Says that two heads (so plans and
                                        * siblings) are equal, not that the weights are. */
    uint8_t sibling_sha256[NAME_ID_SIZE]; /* equal: the siblings' texts are equal too */
    int tokenizer_rc;                     /* 0: sibling_tokenizer() will write one; else why not */
    char *tokenizer_why;
    int generation_rc; /* the same of sibling_generation(); -ENODATA with "": nothing is said */
    char *generation_why;

    /* Bytes of the .apr: exact, final; 0 unless options.plan, role STORE_MODEL and rc 0. */
    uint64_t size;
    uint64_t head_len; /* those of them that are made and stand in no part (VSEG_MEM); 0 likewise */
    struct store_learnt *learnt; /* never NULL once it is in a scan */
};

/* One line of problems.txt. */
struct store_problem {
    int rc;     /* negative errno; 0: a warning about something that is served all the same */
    char *path; /* below the root, "" = the root; raw bytes: name_escape() before printing */
    char *dir;  /* the tree's directory that it concerns ("publisher/model"), or "" */
    char *why;  /* one sentence, no control bytes */
};

struct store {
    enum store_kind kind; /* detected */
    char *root;           /* real path */
    struct store_options opt;
    struct store_entry *entry; /* sorted by publisher, model, stem (bytes); ones with rc < 0 too */
    size_t n_entry;
    struct store_entry *merged; /* what became another name of an entry: known to the next scan, so
                                 * that it is not parsed again */
    size_t n_merged;
    struct store_problem *problem; /* sorted by path; entries with rc < 0 are here too */
    size_t n_problem;
    char **dir; /* folders whose change may change the scan, below the root, "" = the root; sorted,
                 * each once */
    size_t n_dir;
    size_t n_parsed; /* headers read by this scan; the rest came from prev */
    int root_rc;     /* != 0: the root itself could not be read by this scan (store_set_rescan) */
    size_t n_kept;   /* entries that the scan before knew, of places that cannot be read now */
};

/* Scans root. prev (may be NULL) is an earlier scan with the same options: files whose (path, dev,
 * ino, size, mtime, ctime) have not changed are not parsed again. It is only read. *out is the
 * caller's, store_free's to free. Fails only where nothing at all can be said: root absent
 * (-ENOENT), no directory (-ENOTDIR), not readable (-EACCES, naming its owner), no memory, no
 * descriptors left (-EMFILE, -ENFILE: what is there must not look gone). An empty store is no error. */
int store_scan(struct store **out, const char *root, const struct store_options *opt,
               const struct store *prev, struct err *e);
/* Is there something below the root that this scan could not read for a reason that passes (EIO, ENOTCONN
 * ...)? Nothing tells when it has passed. */
bool store_unread(const struct store *s);

void store_free(struct store *s);

/* Two scans show the same tree: same names, identities, sizes, problems. What is to be watched may
 * differ: dir. */
bool store_equal(const struct store *a, const struct store *b);

const char *store_suffix(const struct store_options *opt); /* of a model's file: ".apr", ".gguf" */
const char *store_kind_name(enum store_kind k);            /* "plain" */
bool store_kind_parse(const char *s, enum store_kind *k);
const char *store_role_name(enum store_role r); /* "model", "projector", ... */

/* Opens one part as the scan saw it: by the way below the root (resolve=beneath holds here too),
 * and -ESTALE if it is another file or generation now. */
int store_part_open(struct source **out, const struct store *s, const struct store_part *p,
                    struct err *e);

/* An opened model: pinned descriptors, parsed header, planned file. */
struct store_plan {
    struct source **part;
    int n_part;
    struct gguf *gguf; /* with apr: vgguf's */
    struct vapr *vapr; /* NULL in the view of .apr files as .gguf, which has these: */
    struct apr *apr;
    struct vgguf *vgguf;
    const struct vplan *plan; /* of the file that is shown: vapr's or vgguf's */
};

/* Opens every part, parses, plans with s->opt.vapr, and checks that no part changed meanwhile
 * (-ESTALE). If the entry has a size, the plan's must equal it, else -EIO. Any entry whose role is
 * STORE_MODEL; the plan does not refer to s or en afterwards. */
int store_plan_open(struct store_plan **out, const struct store *s, const struct store_entry *en,
                    struct err *e);
void store_plan_close(struct store_plan *p);

/* Gives l a copy of n > 0 checksums. 0 or -ENOMEM. */
int store_learnt_set_crc(struct store_learnt *l, const uint32_t *crc, size_t n);

/* Bytes of a plan that are made and stand in no part: what an entry's head_len counts. */
uint64_t store_head_len(const struct vplan *p);

/* The newest mtime of the parts, in ns. */
int64_t store_entry_mtime_ns(const struct store_entry *en);

#endif
