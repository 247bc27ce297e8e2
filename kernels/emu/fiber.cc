/* Fibers: stacks, switches from one to another, and the one place where a kernel's thread gives way. */
#include "kernels/emu/sched.h"

#if EMU_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

static void fiber_entry();

#if defined(__x86_64__)
/* A suspended context: six registers and the address where to go on, at sp. That address is jumped to
 * and not returned to: a return would be predicted to lead to where the fiber before stood, one
 * operation further on in the kernel. */
#define SAVE                                                                                       \
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n"                                             \
    "    pushq %r13\n    pushq %r14\n    pushq %r15\n"
#define TAKE                                                                                       \
    "    popq %r15\n    popq %r14\n    popq %r13\n"                                                \
    "    popq %r12\n    popq %rbx\n    popq %rbp\n"                                                \
    "    popq %rcx\n    jmp *%rcx\n"
#define FUNCTION(name) ".p2align 4\n.globl " name "\n.type " name ",@function\n" name ":\n"

/* Saves itself at *save, goes on with the context at load. */
extern "C" void emu_switch(void **save, void *load);
__asm__(".text\n" FUNCTION("emu_switch") SAVE "    movq %rsp, (%rdi)\n"
                                              "    movq %rsi, %rsp\n" TAKE
                                              ".size emu_switch,.-emu_switch\n"
                                              ".section .note.GNU-stack,\"\",@progbits\n"
                                              ".text\n");

static void ctx_prepare(emu_ctx *c, char *stack, size_t number)
{
    /* Hot frames of a warp's fibers would share cache sets if their stacks began alike. */
    uintptr_t top = ((uintptr_t)stack + EMU_STACK - number * 7 % 64 * 64) & ~(uintptr_t)15;
    void **sp = (void **)top;
    *--sp = nullptr;              /* as if called: rsp = 8 mod 16 at entry */
    *--sp = (void *)&fiber_entry; /* where to go on */
    for (int i = 0; i < 6; i++)
        *--sp = nullptr;
    c->sp = sp;
}

static void ctx_switch(emu_ctx *from, emu_ctx *to)
{
    emu_switch(&from->sp, to->sp);
}
#else
static void ctx_prepare(emu_ctx *c, char *stack, size_t)
{
    getcontext(&c->uc);
    c->uc.uc_stack.ss_sp = stack;
    c->uc.uc_stack.ss_size = EMU_STACK;
    c->uc.uc_link = nullptr;
    makecontext(&c->uc, fiber_entry, 0);
}

static void ctx_switch(emu_ctx *from, emu_ctx *to)
{
    swapcontext(&from->uc, &to->uc);
}
#endif

/* ASan wants to know of each switch where the stack lies that it goes to. */
static void switch_begin(void **fake, const emu_block *b, const emu_fiber *to)
{
#if EMU_ASAN
    __sanitizer_start_switch_fiber(fake, to ? to->stack : b->main_stack,
                                   to ? (size_t)EMU_STACK : b->main_size);
#else
    (void)fake, (void)b, (void)to;
#endif
}

static void switch_end(void *fake, emu_block *b)
{
#if EMU_ASAN
    if (b->from_main)
        __sanitizer_finish_switch_fiber(fake, &b->main_stack, &b->main_size);
    else
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    (void)fake, (void)b;
#endif
}

/* A thread that begins takes a stack. */
static void begin(emu_block *b, emu_fiber *f)
{
    f->stack = b->free_stack.back();
    b->free_stack.pop_back();
    ctx_prepare(&f->ctx, f->stack, (size_t)(f->stack - b->stacks) / EMU_STACK);
}

void emu_resume(emu_block *b, emu_fiber *f)
{
    void *fake = nullptr;
    if (!f->stack)
        begin(b, f);
    b->cur = f;
    b->from_main = true;
    switch_begin(&fake, b, f);
    ctx_switch(&b->main, &f->ctx);
#if EMU_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

/* From f to another fiber, or to the scheduler (NULL); back when somebody resumes f. */
static void leave(emu_block *b, emu_fiber *f, emu_fiber *to, bool for_good)
{
    void *fake = nullptr;
    if (to && !to->stack)
        begin(b, to);
    b->cur = to;
    b->from_main = false;
    switch_begin(for_good ? nullptr : &fake, b, to);
    ctx_switch(&f->ctx, to ? &to->ctx : &b->main);
    switch_end(fake, b);
}

/* One thread after the other, on the same stack, as long as the next has not begun yet. */
static void fiber_entry()
{
    emu_block *b = emu_now;
    switch_end(nullptr, b);
    for (;;) {
        emu_fiber *f = b->cur;
        b->grid->run(b->grid->args.get());
        emu_fiber *next = emu_thread_done(b, f);
        char *stack = f->stack;
        f->stack = nullptr;
        if (next && !next->stack) {
            next->stack = stack;
            b->cur = next;
            continue;
        }
        b->free_stack.push_back(stack); /* nobody begins on it before this one has left it */
        leave(b, f, next, true);        /* never resumed */
    }
}

#if defined(__x86_64__) && !EMU_ASAN
/* emu_meet() saves the caller as emu_switch() does, and goes on with the context that emu_meet_next()
 * names: the caller's own, another lane's, or the scheduler's. */
extern "C" void *emu_meet_next(int op, unsigned mask, const char *file, int line, void *sp)
{
    emu_block *b = emu_now;
    emu_fiber *f = b->cur;
    emu_fiber *to = emu_arrive(b, f, op, mask, file, line);
    if (to == f)
        return sp;
    f->ctx.sp = sp;
    b->cur = to;
    if (!to)
        return b->main.sp;
    if (!to->stack)
        begin(b, to);
    return to->ctx.sp;
}
__asm__(".text\n" FUNCTION("emu_meet") SAVE "    movq %rsp, %r8\n"
                                            "    subq $8, %rsp\n" /* aligned, as the ABI wants it */
                                            "    call emu_meet_next\n"
                                            "    movq %rax, %rsp\n" TAKE
                                            ".size emu_meet,.-emu_meet\n");
#else
extern "C" void emu_meet(int op, unsigned mask, const char *file, int line)
{
    emu_block *b = emu_now;
    emu_fiber *f = b->cur;
    emu_fiber *to = emu_arrive(b, f, op, mask, file, line);
    if (to != f)
        leave(b, f, to, false);
}
#endif
