/* A launch: its blocks, dealt to one or several OS threads. */
#include "kernels/emu/sched.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

/* A launch while it runs. Blocks are taken a few at a time, in order or as order says. */
struct deal {
    const emu_grid *g;
    const std::vector<uint64_t> *order; /* NULL: in order */
    uint64_t n, step;
    std::atomic<uint64_t> next{0};
};

static void run_blocks(deal *d)
{
    /* A block's memory is kept between launches: to map it anew costs more than most blocks. */
    static thread_local std::unique_ptr<emu_block> mine;
    if (!mine)
        mine.reset(new emu_block);
    emu_block_shape(mine.get(), d->g);
    emu_now = mine.get();
    for (uint64_t i; (i = d->next.fetch_add(d->step)) < d->n;)
        for (uint64_t j = i; j < std::min(i + d->step, d->n); j++)
            emu_block_run(emu_now, d->order ? (*d->order)[j] : j);
    emu_now = nullptr;
}

/* --- several OS threads ------------------------------------------------------------------ */

static int os_threads()
{
    static const int n = [] {
        const char *s = getenv("EMU_THREADS");
        return s ? std::min(std::max(1, atoi(s)), 256) : 1;
    }();
    return EMU_ASAN || emu_hooked() || emu_seed() ? 1 : n;
}

/* Helpers that wait for launches until the process ends; never torn down. */
struct helpers {
    std::mutex lock;
    std::condition_variable work, idle;
    deal *now = nullptr;
    uint64_t serial = 0; /* of now */
    int n = 0, left = 0; /* helpers; those that have yet to finish now */
    pid_t pid = getpid();
};

static void help(helpers *h)
{
    std::unique_lock<std::mutex> hold(h->lock);
    for (uint64_t seen = 0;;) {
        h->work.wait(hold, [&] { return h->serial != seen; });
        seen = h->serial;
        deal *d = h->now;
        hold.unlock();
        run_blocks(d);
        hold.lock();
        if (--h->left == 0)
            h->idle.notify_one();
    }
}

/* A forked child has none of its parent's threads: it gets helpers of its own. */
static helpers *the_helpers()
{
    static helpers *h;
    if (!h || h->pid != getpid()) {
        h = new helpers;
        for (h->n = 0; h->n < os_threads() - 1; h->n++)
            std::thread(help, h).detach();
    }
    return h;
}

static void run_together(deal *d)
{
    helpers *h = the_helpers();
    {
        std::lock_guard<std::mutex> hold(h->lock);
        h->now = d;
        h->serial++;
        h->left = h->n;
    }
    h->work.notify_all();
    run_blocks(d);
    std::unique_lock<std::mutex> hold(h->lock);
    h->idle.wait(hold, [&] { return h->left == 0; });
}

void emu_run_grid(const emu_grid &g)
{
    /* Less than this is done before a helper wakes up. */
    const uint64_t worth_help = 4096;
    uint64_t n = (uint64_t)g.grid.x * g.grid.y * g.grid.z;
    std::vector<uint64_t> order;
    if (emu_seed()) {
        emu_rng rng(emu_seed() ^ g.launch * 104729);
        order.resize(n);
        for (uint64_t i = 0; i < n; i++)
            order[i] = i;
        for (uint64_t i = n - 1; i > 0; i--)
            std::swap(order[i], order[rng.next() % (i + 1)]);
    }
    deal d;
    d.g = &g;
    d.order = order.empty() ? nullptr : &order;
    d.n = n;
    d.step = std::max<uint64_t>(1, std::min<uint64_t>(16, n / (8 * (uint64_t)os_threads())));
    emu_hook_grid_begin(g);
    uint64_t threads = n * g.block.x * g.block.y * g.block.z;
    if (os_threads() > 1 && n > 1 && threads >= worth_help)
        run_together(&d);
    else
        run_blocks(&d);
    emu_hook_grid_end();
}
