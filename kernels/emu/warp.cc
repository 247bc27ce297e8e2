/* Warp operations: every lane of the mask arrives at the same operation and the same line; the last
 * one to come computes all results. */
#include "kernels/emu/sched.h"

static const char *const op_name[] = {"barrier", "yield",      "__syncwarp", "shuffle",
                                      "ballot",  "reduce add", "reduce max", "collective"};

/* Two that do not fit: a lane of the mask waits at another place, operation or mask. */
static void check_same(const emu_meeting &mine, const emu_meeting &other, int lane)
{
    if (other.at.line != mine.at.line || other.at.file != mine.at.file || other.op != mine.op)
        emu_fail("warp", "%s at %s:%d: lane %d is at %s at %s:%d", op_name[mine.op], mine.at.file,
                 mine.at.line, lane, op_name[other.op], other.at.file, other.at.line);
    if (other.mask != mine.mask)
        emu_fail("warp", "%s at %s:%d: lane %d brings mask %08x, another %08x", op_name[mine.op],
                 mine.at.file, mine.at.line, lane, mine.mask, other.mask);
}

/* What can never become a meeting is an error at once. */
static void check_mask(const emu_warp_state &w, const emu_meeting &mine, unsigned lane)
{
    const char *what = op_name[mine.op], *file = mine.at.file;
    unsigned absent = mine.mask & ~w.lanes, gone = mine.mask & w.done;
    if (!(mine.mask >> lane & 1))
        emu_fail("warp", "%s at %s:%d: lane %u calls it, mask %08x does not name it", what, file,
                 mine.at.line, lane, mine.mask);
    if (absent)
        emu_fail("warp", "%s at %s:%d: lane %d of mask %08x is outside the block", what, file,
                 mine.at.line, __builtin_ctz(absent), mine.mask);
    if (gone)
        emu_fail("warp", "%s at %s:%d: lane %d of mask %08x has exited", what, file, mine.at.line,
                 __builtin_ctz(gone), mine.mask);
}

/* A lane that is the first to wait, or that says otherwise than those that wait. */
static void join(emu_warp_state &w, const emu_meeting &mine, unsigned lane)
{
    check_mask(w, mine, lane);
    if (!w.waiting) {
        w.all = mine;
        w.mixed = false;
        return;
    }
    if (!w.mixed) {
        w.mixed = true;
        for (emu_meeting &own : w.own)
            own = w.all;
    }
    /* Lanes of other masks may wait elsewhere. */
    for (unsigned left = w.waiting & mine.mask; left; left &= left - 1)
        check_same(mine, w.own[__builtin_ctz(left)], __builtin_ctz(left));
    w.own[lane] = mine;
}

emu_where emu_lane_where(const emu_warp_state &w, unsigned lane)
{
    return w.mixed ? w.own[lane].at : w.all.at;
}

static uint64_t reduce(int op, uint64_t acc, uint64_t v)
{
    switch (op) {
    case EMU_REDUCE_ADD:
        return acc + v;
    case EMU_REDUCE_MAX:
        return (int64_t)v > (int64_t)acc ? v : acc;
    default:
        return acc;
    }
}

static void shuffle(emu_warp_state &w, unsigned mask)
{
    uint64_t brought[32];
    memcpy(brought, w.value, sizeof brought);
    for (int l = 0; l < 32; l++) {
        unsigned src = w.src[l] & 31;
        if (mask >> l & 1) /* an inactive source: undefined on the device; all ones here */
            w.value[l] = mask >> src & 1 ? brought[src] : ~UINT64_C(0);
    }
}

static void combine(emu_warp_state &w, int op, unsigned mask)
{
    uint64_t all = 0;
    for (unsigned left = mask; left; left &= left - 1) {
        int l = __builtin_ctz(left);
        if (op == EMU_BALLOT)
            all |= (uint64_t)(w.value[l] != 0) << l;
        else
            all = left == mask ? w.value[l] : reduce(op, all, w.value[l]);
    }
    for (unsigned left = mask; left; left &= left - 1)
        w.value[__builtin_ctz(left)] = all;
}

/* The last lane has come. */
static void all_here(emu_warp_state &w, int op, unsigned mask)
{
    if (op == EMU_SHFL) {
        shuffle(w, mask);
    } else if (op == EMU_COLLECTIVE) {
        void *arg[32];
        for (int l = 0; l < 32; l++)
            arg[l] = (void *)(uintptr_t)w.value[l];
        w.collective(arg);
    } else if (op != EMU_SYNCWARP) {
        combine(w, op, mask);
    }
    w.waiting &= ~mask;
    w.runs |= mask;
    /* Shuffles, votes and reductions order no memory (CUDA C++ Programming Guide, "Warp Shuffle
     * Functions", "Warp Vote Functions"). */
    w.epoch += op == EMU_SYNCWARP && mask == 0xffffffffu;
}

emu_fiber *emu_warp_arrive(emu_block *b, emu_fiber *f, int op, unsigned mask, const char *file,
                           int line)
{
    emu_warp_state &w = *f->warp;
    unsigned bit = 1u << f->lane;
    /* While all who wait agree, what holds for one of them holds for all, but for the caller's bit and
     * for lanes that have ended since. */
    bool agrees = w.waiting && !w.mixed && w.all.mask == mask && w.all.at.line == line &&
                  w.all.at.file == file && w.all.op == op && mask & bit && !(mask & w.done);
    if (__builtin_expect(!agrees, 0))
        join(w, {op, mask, {file, line}}, f->lane);
    w.waiting |= bit;
    if ((w.waiting & mask) == mask) {
        all_here(w, op, mask);
        return f;
    }
    w.runs &= ~bit;
    return emu_next_lane(b, f);
}

void emu_bring(uint64_t value, int src)
{
    emu_fiber *f = emu_now->cur;
    f->warp->src[f->lane] = (uint8_t)src;
    f->warp->value[f->lane] = value;
}

uint64_t emu_got()
{
    const emu_fiber *f = emu_now->cur;
    return f->warp->value[f->lane];
}

void emu_bring_call(void (*run)(void *const *arg), void *arg)
{
    emu_fiber *f = emu_now->cur;
    f->warp->value[f->lane] = (uintptr_t)arg;
    f->warp->collective = run;
}
