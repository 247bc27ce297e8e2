/* What the verbs call: a path becomes a model with its tokenizer; a prompt becomes a continuation. */
#ifndef APRFS_INFER_ENGINE_H
#define APRFS_INFER_ENGINE_H

#include "format/model_file.h"
#include "infer/gate.h"
#include "infer/model.h"
#include "infer/text/sampler.h"
#include "infer/text/tokenizer.h"

enum engine_part {
    ENGINE_WEIGHTS = 1,
    ENGINE_TOKENIZER = 2,
};

/* What computes. */
enum engine_device {
    ENGINE_AUTO, /* a GPU if there is one, else the CPU */
    ENGINE_CPU,  /* the f32 reference */
    ENGINE_GPU,  /* -ENODEV without one */
};

/* What takes time before the first token. */
struct engine_progress {
    const char *phase;    /* "loading", "reference", "gate" */
    const char *unit;     /* of done and total: "bytes", "positions" */
    const char *source;   /* where bytes come from; NULL: not told */
    uint64_t done, total; /* total 0: not known */
    double seconds;       /* since the phase began; 0: not told */
};

struct engine_options {
    unsigned parts; /* enum engine_part, or-ed; what is not asked for is not opened */
    enum engine_device device;
    int n_thread;       /* 0: the CPUs this process may run on */
    uint32_t n_ctx;     /* 0: as the model was trained */
    uint32_t n_pos;     /* positions that will be used, for the memory check; 0: all of n_ctx */
    uint64_t mem_limit; /* struct backend_options */
    bool no_graph;      /* struct session_options; kept in struct engine */
    bool force_gate;    /* measure, whatever verdict is kept (aprd verify) */
    void (*progress)(void *ctx, const struct engine_progress *p); /* NULL: nobody asks */
    void *ctx;
};

struct engine {
    const char *path; /* lent, for messages */
    struct model_file *file;
    enum engine_device device; /* what was taken: ENGINE_CPU or ENGINE_GPU once b is there */
    struct err no_gpu;         /* why ENGINE_AUTO took the CPU; "" otherwise */
    struct gate gate;          /* what results may be taken for; GATE_NONE without weights */
    struct backend *b;         /* NULL without weights */
    struct model *m;           /* NULL without weights */
    struct tokenizer *tok;     /* NULL without tokenizer */
    bool no_graph;
};

int engine_open(struct engine *g, const char *path, const struct engine_options *opt,
                struct err *e);
/* Takes the device and loads the weights of a g that was opened without them: between the two the
 * tokenizer can tell how long a prompt is. On failure g is still open.
 * ENGINE_AUTO takes the CPU only where there is no GPU (-ENODEV). One that fails or is too small is an
 * error that names its numbers: nothing turns to the CPU unasked. Last, gate_check() judges what was
 * loaded; its codes come back from here, and after -EDOM g->gate holds what was measured. */
int engine_load(struct engine *g, const struct engine_options *opt, struct err *e);
/* Positions that a run takes at most, for n_pos: those of the prompt and n_predict more; 0: all. */
int engine_positions(const struct engine *g, const char *prompt, size_t len, int64_t n_predict,
                     uint32_t *n_pos, struct err *e);
void engine_close(struct engine *g);

enum engine_end {
    ENGINE_END_LENGTH = 1, /* n_predict tokens were written */
    ENGINE_END_TOKEN,      /* the model ended its text */
    ENGINE_END_CONTEXT,    /* the context is full */
};

struct engine_request {
    const char *prompt; /* spellings of control tokens in it become the tokens */
    size_t prompt_len;
    int64_t n_predict; /* < 0: to an end token or a full context; 0: the prompt is only read */
    struct sampler_params sampling;
    bool special; /* control tokens are put out as text, not dropped */
    /* Whole characters of the continuation as they come (an unfinished one at the very end too).
     * A negative errno from it ends the run with that code. */
    int (*put)(void *ctx, const char *p, size_t n);
    void *ctx;
};

struct engine_result {
    size_t n_prompt, n_gen;
    /* Tokens evaluated after the prompt: what gen_ms was spent on. The first that is written comes from
     * the prompt's own pass, and the last of a run that is long enough is written and not evaluated. */
    size_t n_step;
    enum engine_end end;
    double prompt_ms, gen_ms;
};

/* -ERANGE, with both numbers, if the prompt is longer than the context: it is never cut. res is
 * filled as far as the run came. */
int engine_generate(struct engine *g, const struct engine_request *req, struct engine_result *res,
                    struct err *e);

#endif
