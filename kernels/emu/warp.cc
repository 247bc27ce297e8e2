/* Warp operations: every lane of the mask arrives at the same operation and the same line; the last
 * one to come computes all results. */
#include "kernels/emu/sched.h"

static const char *const op_name[] = {"__syncwarp", "shuffle",    "ballot",    "reduce add",
                                      "reduce min", "reduce max", "collective"};

static emu_fiber *lane_fiber(emu_block *b, int warp, int lane)
{
    size_t t = (size_t)warp * 32 + (size_t)lane;
    return t < b->fiber.size() ? &b->fiber[t] : nullptr;
}

/* Whether all lanes of the mask are here; what cannot become so is an error at once. */
static bool all_here(emu_block *b, int warp, const emu_lane_arg *mine, emu_where at)
{
    for (int l = 0; l < 32; l++) {
        if (!(mine->mask >> l & 1))
            continue;
        emu_fiber *f = lane_fiber(b, warp, l);
        if (!f)
            emu_fail("warp", "%s at %s:%d: lane %d of mask %08x is outside the block",
                     op_name[mine->op], at.file, at.line, l, mine->mask);
        if (f->state == EMU_DONE)
            emu_fail("warp", "%s at %s:%d: lane %d of mask %08x has exited", op_name[mine->op],
                     at.file, at.line, l, mine->mask);
        const emu_lane_arg *other = f->pending;
        if (!other)
            return false;
        if (f->at.line != at.line || f->at.file != at.file || other->op != mine->op)
            emu_fail("warp", "%s at %s:%d: lane %d is at %s at %s:%d", op_name[mine->op], at.file,
                     at.line, l, op_name[other->op], f->at.file, f->at.line);
        if (other->mask != mine->mask)
            emu_fail("warp", "%s at %s:%d: lane %d brings mask %08x, another %08x",
                     op_name[mine->op], at.file, at.line, l, other->mask, mine->mask);
    }
    return true;
}

static uint64_t reduce(int op, uint64_t acc, uint64_t v)
{
    switch (op) {
    case EMU_REDUCE_ADD:
        return acc + v;
    case EMU_REDUCE_MIN:
        return (int64_t)v < (int64_t)acc ? v : acc;
    case EMU_REDUCE_MAX:
        return (int64_t)v > (int64_t)acc ? v : acc;
    default:
        return acc;
    }
}

static void compute(emu_block *b, int warp, const emu_lane_arg *mine)
{
    emu_lane_arg *lane[32] = {};
    uint64_t all = 0;
    bool first = true;
    for (int l = 0; l < 32; l++) {
        if (!(mine->mask >> l & 1))
            continue;
        lane[l] = lane_fiber(b, warp, l)->pending;
        if (mine->op == EMU_BALLOT)
            all |= (uint64_t)(lane[l]->value != 0) << l;
        else
            all = first ? lane[l]->value : reduce(mine->op, all, lane[l]->value);
        first = false;
    }
    if (mine->op == EMU_COLLECTIVE) {
        void *arg[32];
        for (int l = 0; l < 32; l++)
            arg[l] = lane[l]->arg;
        mine->f(arg);
        return;
    }
    for (int l = 0; l < 32; l++) {
        if (!lane[l])
            continue;
        if (mine->op == EMU_SHFL) {
            int src = lane[l]->src & 31;
            /* Undefined on the device; all ones here, so that it shows. */
            lane[l]->result = lane[src] ? lane[src]->value : ~UINT64_C(0);
        } else {
            lane[l]->result = all;
        }
    }
}

static uint64_t meet(emu_lane_arg *mine, const char *file, int line)
{
    emu_block *b = emu_now;
    emu_fiber *f = b->cur;
    int warp = f->tid / 32, lane = f->tid % 32;
    f->at = {file, line};
    if (!(mine->mask >> lane & 1))
        emu_fail("warp", "%s at %s:%d: lane %d calls it, mask %08x does not name it",
                 op_name[mine->op], file, line, lane, mine->mask);
    f->pending = mine;
    if (!all_here(b, warp, mine, f->at)) {
        f->state = EMU_AT_WARP;
        emu_give_way(b);
        return mine->result; /* the last lane computed it and cleared pending */
    }
    compute(b, warp, mine);
    if (mine->mask == 0xffffffffu)
        b->warp[(size_t)warp].epoch++;
    for (int l = 0; l < 32; l++) {
        if (!(mine->mask >> l & 1))
            continue;
        emu_fiber *other = lane_fiber(b, warp, l);
        other->pending = nullptr;
        other->state = EMU_RUNS;
    }
    return mine->result;
}

uint64_t emu_warp(enum emu_warp_op op, unsigned mask, uint64_t value, int src, const char *file,
                  int line)
{
    emu_lane_arg mine = {op, mask, value, src, nullptr, nullptr, 0};
    return meet(&mine, file, line);
}

void emu_collective(void (*f)(void *const *arg), void *arg, const char *file, int line)
{
    emu_lane_arg mine = {EMU_COLLECTIVE, 0xffffffffu, 0, 0, f, arg, 0};
    meet(&mine, file, line);
}
