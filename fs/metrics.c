/* Prometheus text: see metrics.h. Names and labels are those of the design of the mount, section 5.3; a
 * series that has not happened yet is left out where its label is open (errno), and 0 where the labels
 * are a closed list, so that a rate has a beginning. */
#include "fs/metrics.h"

#include "format/err.h"
#include "fs/fs.h"
#include "fs/pinned.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

unsigned long long metrics_proc_kib(const char *name)
{
    char line[128];
    unsigned long long v = 0;
    size_t n = strlen(name);
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, n) == 0 && line[n] == ':')
            v = strtoull(line + n + 1, NULL, 10);
    if (f)
        fclose(f);
    return v;
}

static void family(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(FILE *f, const char *name, const char *type, const char *help, uint64_t v)
{
    family(f, name, type, help);
    fprintf(f, "%s %" PRIu64 "\n", name, v);
}

/* An errno as a label: its name, or its number, for two series must not be called alike. */
static const char *errno_label(char dst[16], int error)
{
    const char *name = err_name(-error);
    if (strcmp(name, "E?") != 0)
        return name;
    snprintf(dst, 16, "%d", error);
    return dst;
}

static void requests(FILE *f, struct fs *fs)
{
    static const char *const op[N_COUNT_OP] = {
#define X(name) #name,
        COUNTERS_OPS(X)
#undef X
    };
    family(f, "aprfs_requests_total", "counter", "Requests of the kernel by kind.");
    for (int i = 0; i < N_COUNT_OP; i++)
        fprintf(f, "aprfs_requests_total{op=\"%s\"} %" PRIu64 "\n", op[i],
                atomic_load_explicit(&fs->count.op[i], memory_order_relaxed));
    family(f, "aprfs_errors_total", "counter", "Requests answered with an error, by errno.");
    for (int i = 0; i < COUNTERS_MAX_ERRNO; i++) {
        uint64_t n = atomic_load_explicit(&fs->count.error[i], memory_order_relaxed);
        char label[16];
        if (n)
            fprintf(f, "aprfs_errors_total{errno=\"%s\"} %" PRIu64 "\n", errno_label(label, i), n);
    }
}

static void reads(FILE *f, struct fs *fs)
{
    static const char *const mode[N_COUNT_READ] = {
        [COUNT_READ_CACHED] = "cached", [COUNT_READ_DIRECT] = "direct", [COUNT_READ_TEXT] = "text"};
    family(
        f, "aprfs_read_bytes_total", "counter",
        "Bytes of files handed to the kernel, by the mode of the open (text: siblings and .aprfs). "
        "Reads of tier 1a never reach aprfs and are not counted.");
    for (int i = 0; i < N_COUNT_READ; i++)
        fprintf(f, "aprfs_read_bytes_total{mode=\"%s\"} %" PRIu64 "\n", mode[i],
                atomic_load_explicit(&fs->count.read_bytes[i], memory_order_relaxed));
}

static void tier_figures(FILE *f, struct fs *fs)
{
    static const char *const name[N_TIER_MODE] = {
        [TIER_CACHED] = "2c", [TIER_DIRECT] = "2d", [TIER_1A] = "1a"};
    struct tiers_stats st;
    tiers_get_stats(fs->tiers, &st);
    family(f, "aprfs_open_files", "gauge", "Open handles of model files, by tier.");
    for (int i = 0; i < N_TIER_MODE; i++)
        fprintf(f, "aprfs_open_files{tier=\"%s\"} %" PRIu64 "\n", name[i], st.open[i]);
    family(f, "aprfs_opens_total", "counter", "Opens of model files, by tier.");
    for (int i = 0; i < N_TIER_MODE; i++)
        fprintf(f, "aprfs_opens_total{tier=\"%s\"} %" PRIu64 "\n", name[i], st.opened[i]);
    family(f, "aprfs_fallback_total", "counter",
           "First opens that a tier could not serve, by errno or layout; tier 2 did.");
    fprintf(f, "aprfs_fallback_total{from=\"1a\",reason=\"layout\"} %" PRIu64 "\n", st.fallback[0]);
    for (int i = 1; i < (int)(sizeof st.fallback / sizeof st.fallback[0]); i++)
        if (st.fallback[i]) {
            char label[16];
            fprintf(f, "aprfs_fallback_total{from=\"1a\",reason=\"%s\"} %" PRIu64 "\n",
                    errno_label(label, i), st.fallback[i]);
        }
}

static void figures(FILE *f, struct fs *fs)
{
    struct watch_stats w;
    watch_get_stats(fs->watch, &w);
    struct tree *t = nodes_tree(fs->nodes);
    uint64_t n_model = t->n_model;
    tree_put(fs->nodes, t);
    family(f, "aprfs_info", "gauge", "The program's version.");
    fprintf(f, "aprfs_info{version=\"%s\"} 1\n", APRFS_VERSION);
    reads(f, fs);
    requests(f, fs);
    tier_figures(f, fs);
    single(f, "aprfs_stale_total", "counter",
           "Open files whose source changed: their reads are EIO.", atomic_load(&fs->n_stale));
    single(f, "aprfs_lease_breaks_total", "counter", "Leases that a writer of a source broke.",
           pinned_n_breaks());
    single(f, "aprfs_head_bytes", "gauge", "Bytes of heads and sibling texts held in memory.",
           vcache_mem(fs->env.texts));
    single(f, "aprfs_conv_bytes", "gauge", "Bytes of converted tensors held in memory.",
           vcache_mem(fs->env.units));
    single(f, "aprfs_head_read_bytes_total", "counter",
           "Bytes read out of heads, which aprfs makes itself.", atomic_load(&fs->env.mem_bytes));
    single(f, "aprfs_converted_bytes_total", "counter", "Bytes of tensors that were converted.",
           atomic_load(&fs->env.conv_bytes));
    single(f, "aprfs_sources_reopened_total", "counter",
           "Reads that failed and were made again through new descriptors.",
           atomic_load(&fs->env.n_renewed));
    single(f, "aprfs_rss_anon_bytes", "gauge", "Anonymous memory of this process.",
           metrics_proc_kib("RssAnon") * UINT64_C(1024));
    family(f, "aprfs_scan_seconds", "gauge", "Duration of the last scan of the stores.");
    fprintf(f, "aprfs_scan_seconds %.3f\n", w.last_scan_ms / 1000);
    single(f, "aprfs_scans_total", "counter", "Scans of the stores.", w.n_scan);
    single(f, "aprfs_headers_parsed_total", "counter", "Headers that scans had to read.",
           w.n_parsed);
    single(f, "aprfs_models", "gauge", "Models shown.", n_model);
    single(f, "aprfs_generation", "gauge", "Trees so far that differed from the one before.",
           atomic_load(&fs->generation));
}

int metrics_text(struct fs *fs, char **out, size_t *len, struct err *e)
{
    FILE *f = open_memstream(out, len);
    if (!f)
        return err_set(e, -ENOMEM, "no memory for metrics");
    figures(f, fs);
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad) {
        free(*out);
        return err_set(e, -ENOMEM, "no memory for metrics");
    }
    return 0;
}
