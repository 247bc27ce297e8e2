/* Threads that read headers for a scan: several at once, few large ones, and what comes out is what one
 * thread gives. */
#include "format/store_index.h"
#include "format/store_text.h"
#include "fs/crew.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

/* Every kind of thing, often enough that threads meet. */
static char *crowd(void)
{
    char *root = temp_dir(), rel[64];
    for (int i = 0; i < 24; i++) {
        snprintf(rel, sizeof rel, "a%d/b/m%d.gguf", i % 5, i);
        tree_model(root, rel, (uint64_t)i);
        snprintf(rel, sizeof rel, "a%d/b/bad%d.gguf", i % 3, i);
        tree_text(root, rel, "GGUF and no more");
    }
    for (int i = 0; i < 4; i++) {
        snprintf(rel, sizeof rel, "c/parts%d", i);
        tree_shards(root, rel, 3);
        snprintf(rel, sizeof rel, "c/mmproj-%d.gguf", i);
        tree_projector(root, rel);
        snprintf(rel, sizeof rel, "a%d/b/Same.gguf", i);
        tree_model(root, rel, 7);
    }
    tree_vocab(root, "c/vocab.gguf");
    tree_imatrix(root, "c/imatrix.gguf");
    return root;
}

/* Facts, names and problems of a scan. */
struct told {
    uint8_t *index;
    size_t n_index;
    char *problems;
};

static struct told tell(const char *root, const struct store_crew *crew, size_t n_parsed)
{
    const struct store_options opt = {.kind = STORE_PLAIN, .plan = true, .crew = crew};
    struct told t;
    struct err e;
    size_t n;
    struct store_set *set = store_set_of(tree_scan(root, &opt));
    assert_int_equal(set->store[0]->n_parsed, n_parsed);
    assert_int_equal(store_index_write(&t.index, &t.n_index, set->store[0], NULL, 1, &e), 0);
    assert_int_equal(store_text_problems(set, NULL, &t.problems, &n, &e), 0);
    store_set_free(set);
    return t;
}

static void assert_told_equal(const struct told *a, const struct told *b)
{
    assert_int_equal(a->n_index, b->n_index);
    assert_memory_equal(a->index, b->index, a->n_index);
    assert_string_equal(a->problems, b->problems);
}

static void told_free(struct told *t)
{
    free(t->index);
    free(t->problems);
}

static void crew_scans_as_one_thread_does(void **state)
{
    (void)state;
    char *root = crowd();
    const size_t n = 24 + 24 + 4 + 4 + 4 + 2; /* crowd() */
    struct told one = tell(root, NULL, n);
    for (int i = 0; i < 5; i++) {
        struct told many = tell(root, &crew_threads, n);
        assert_told_equal(&one, &many);
        told_free(&many);
    }
    told_free(&one);
    free(root);
}

/* Jobs that wait for each other. */
struct meeting {
    pthread_mutex_t mu;
    pthread_cond_t all;
    int n_in, most, n_done[64];
};

static void meet(void *arg, size_t i)
{
    struct meeting *m = arg;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60; /* a machine that is very busy */
    pthread_mutex_lock(&m->mu);
    m->n_done[i]++;
    if (++m->n_in > m->most)
        m->most = m->n_in;
    pthread_cond_broadcast(&m->all);
    while (i < 8 && m->most < 8)
        if (pthread_cond_timedwait(&m->all, &m->mu, &until) == ETIMEDOUT)
            break;
    m->n_in--;
    pthread_mutex_unlock(&m->mu);
}

/* Source: stores.md 6, "up to 8 headers at once". */
static void crew_does_each_job_once_eight_together(void **state)
{
    (void)state;
    struct meeting m = {.mu = PTHREAD_MUTEX_INITIALIZER, .all = PTHREAD_COND_INITIALIZER};
    crew_threads.each(64, meet, &m);
    assert_int_equal(m.most, 8);
    assert_int_equal(m.n_in, 0);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(m.n_done[i], 1);
    crew_threads.each(0, meet, &m);
    assert_int_equal(m.most, 8);
}

static atomic_int n_large, n_large_most, n_large_all;

static void counted_begin(void)
{
    crew_threads.large_begin();
    int n = atomic_fetch_add(&n_large, 1) + 1;
    for (int most = atomic_load(&n_large_most); n > most;)
        if (atomic_compare_exchange_weak(&n_large_most, &most, n))
            break;
    atomic_fetch_add(&n_large_all, 1);
}

static void counted_end(void)
{
    atomic_fetch_sub(&n_large, 1);
    crew_threads.large_end();
}

/* A plan of a large header takes a few times its size: the daemon's memory is bounded by their number. */
static void crew_has_two_large_headers_at_most(void **state)
{
    (void)state;
    char *root = temp_dir(), rel[64], *text = malloc(3 << 20);
    assert_non_null(text);
    memset(text, 'x', (3 << 20) - 1);
    text[(3 << 20) - 1] = '\0';
    for (int i = 0; i < 10; i++) {
        struct gguf_build *b = tree_model_new((uint64_t)i);
        gguf_build_str(b, "general.description", text);
        snprintf(rel, sizeof rel, "large%d.gguf", i);
        tree_build(root, rel, b);
        gguf_build_free(b);
        snprintf(rel, sizeof rel, "small%d.gguf", i);
        tree_model(root, rel, (uint64_t)i);
    }
    const struct store_crew counted = {
        .each = crew_threads.each, .large_begin = counted_begin, .large_end = counted_end};
    struct told one = tell(root, NULL, 20), many = tell(root, &counted, 20);
    assert_told_equal(&one, &many);
    assert_int_equal(atomic_load(&n_large), 0);
    assert_int_equal(atomic_load(&n_large_all), 10);
    assert_in_range(atomic_load(&n_large_most), 1, 2);
    told_free(&one);
    told_free(&many);
    free(text);
    free(root);
}

/* All at once without a descriptor to be had. */
static void starved_each(size_t n, void (*job)(void *arg, size_t i), void *arg)
{
    struct rlimit was, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = was;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (size_t i = 0; i < n; i++)
        job(arg, i);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
}

static void crew_that_starves_is_helped_by_one(void **state)
{
    (void)state;
    char *root = crowd();
    const struct store_crew starved = {.each = starved_each,
                                       .large_begin = crew_threads.large_begin,
                                       .large_end = crew_threads.large_end};
    const size_t n = 24 + 24 + 4 + 4 + 4 + 2;
    struct told one = tell(root, NULL, n), many = tell(root, &starved, n);
    assert_told_equal(&one, &many);
    told_free(&one);
    told_free(&many);
    free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crew_scans_as_one_thread_does),
        cmocka_unit_test(crew_does_each_job_once_eight_together),
        cmocka_unit_test(crew_has_two_large_headers_at_most),
        cmocka_unit_test(crew_that_starves_is_helped_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
