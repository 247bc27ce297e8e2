/* One made model in a plain folder, scanned, as a virtual file; what test_fs_vfile.c and test_fs_tier.c
 * share. */
#ifndef APRFS_TESTS_VFILE_RIG_H
#define APRFS_TESTS_VFILE_RIG_H

#include "fs/vfile.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <fcntl.h>

struct rig {
    char *root;
    struct vfile_env env; /* to be filled before rig_scan() but for its caches */
    struct store_options opt;
    struct scan *scan;
    struct vfile *vf;
    struct store_plan *plan; /* test_fs_vfile.c's: the other way to the same bytes */
    int n_stale;             /* and what its env.stale counts */
    struct tiers *t;         /* test_fs_tier.c's */
};

/* Takes b; n_shard 0: one file. */
static inline struct rig *rig_build(struct gguf_build *b, int n_shard, enum vapr_profile profile)
{
    struct rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->root = temp_dir();
    gguf_build_files(b, r->root, "m", n_shard);
    gguf_build_free(b);
    r->opt = (struct store_options){.kind = STORE_PLAIN, .plan = true, .vapr.profile = profile};
    assert_int_equal(vcache_new(&r->env.texts, 16 << 20, 4096, 64 << 20, NULL), 0);
    vcache_spill_to(r->env.texts, open(r->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    assert_int_equal(vcache_new(&r->env.units, 3 << 20, 0, 0, NULL), 0);
    return r;
}

/* The store lives as long as r->scan. */
static inline struct store *rig_scan(struct rig *r)
{
    struct store *s = tree_scan(r->root, &r->opt);
    struct err e = {0};
    assert_int_equal(s->n_entry, 1);
    if (s->entry[0].rc < 0)
        fail_msg("%s", s->entry[0].why);
    r->scan = scan_new(store_set_of(s));
    assert_int_equal(vfile_new(&r->vf, &r->env, r->scan, 0, 0, &e), 0);
    return s;
}

/* The scan and its file; rig_scan() makes others. */
static inline void rig_forget(struct rig *r)
{
    vfile_put(r->vf);
    scan_put(r->scan);
}

static inline void rig_release(struct rig *r)
{
    rig_forget(r);
    vcache_free(r->env.texts);
    vcache_free(r->env.units);
    free(r->root);
    free(r);
}

#endif
