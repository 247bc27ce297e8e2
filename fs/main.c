/* aprfs: mounts a folder of GGUF models as .apr files. Options, the way into the background, the
 * threads beside the workers, the end. Messages go to stderr until the mount works. */
#define FUSE_USE_VERSION 312
#include "fs/broker.h"
#include "fs/cache_dir.h"
#include "fs/compat.h"
#include "fs/crew.h"
#include "fs/fs.h"
#include "fs/index.h"
#include "fs/log.h"
#include "fs/mount.h"
#include "fs/ops.h"
#include "fs/pinned.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/capability.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MEM    ((size_t)16 << 20) /* heads and texts in memory */
#define TEXT_SPILL  ((size_t)1 << 20)  /* from this size in an unlinked file */
#define TEXT_FILES  ((size_t)1 << 30)
#define UNIT_MEM    ((size_t)16 << 20) /* converted units */
#define HARD_END_MS 300
/* Of the mount itself. Twice the largest request, so that two are on their way while a third is copied: of a
 * cold file 0.6 of the raw file's speed with 1024, 0.73 with this, 0.79 with 4096, which a reader of
 * scattered pages pays for. */
#define READAHEAD_KB 2048
#define SCAN_END_MS  3000
#define TOLD_END_S   3

struct daemon {
    struct fs fs;
    int exit_failed; /* what a failure exits with */
    char dir[PATH_MAX];
    dev_t dev;     /* of the mount, once it is there */
    int report_fd; /* to the waiting parent; -1: none, or told */
    int signal_fd, end_fd;
    int root_fd, readahead_fd, null_fd; /* opened for the herald while that is allowed */
    pthread_t keeper, herald;           /* the herald is detached: told is its end */
    bool keeper_runs, herald_runs;
    sem_t told;
};

/* What the child tells the parent. */
struct report {
    int code; /* exit code */
    char msg[ERR_MSG_MAX];
};

/* False: nobody waits any more. */
static bool report(struct daemon *d, int code, const char *msg)
{
    struct report r = {.code = code};
    if (d->report_fd < 0) {
        if (code)
            log_line(LOG_ERROR, "%s", msg);
        return true;
    }
    snprintf(r.msg, sizeof r.msg, "%s", msg);
    bool told = write(d->report_fd, &r, sizeof r) == (ssize_t)sizeof r;
    if (!told && code)
        log_line(LOG_ERROR, "%s", msg);
    close(d->report_fd);
    d->report_fd = -1;
    return told;
}

/* Has whoever waits in the foreground for the mount been killed? */
static bool is_deserted(const struct daemon *d)
{
    struct pollfd p = {.fd = d->report_fd};
    return d->report_fd >= 0 && poll(&p, 1, 0) > 0 && p.revents & POLLERR;
}

/* The parent's half of going to the background. */
static int wait_for_report(int fd, int code_if_dead)
{
    struct report r;
    ssize_t n;
    do
        n = read(fd, &r, sizeof r);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof r) {
        fprintf(stderr, "aprfs: died before the mount was ready\n");
        return code_if_dead;
    }
    if (r.code)
        fprintf(stderr, "aprfs: %.*s\n", (int)sizeof r.msg, r.msg);
    return r.code;
}

/* Out of the tree, if it still is in it; open files go on. */
static int detach(struct daemon *d)
{
    int rc = d->fs.broker ? broker_detach(d->fs.broker)
                          : mount_detach(d->dir, d->dev, fuse_session_fd(d->fs.se), NULL);
    if (rc < 0)
        log_line(LOG_ERROR, "%s: cannot be unmounted: %s; run fusermount3 -uz %s", d->dir,
                 rc == -EBUSY ? "something else is mounted over it" : strerror(-rc), d->dir);
    return rc;
}

/* --- beside the workers ------------------------------------------------------------------- */

/* Once the root can be listed, and only then, everybody who waits is told. */
static void *herald_main(void *ctx)
{
    struct daemon *d = ctx;
    struct fs *fs = &d->fs;
    struct err e = {0};
    int fd = openat(d->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* waits for INIT */
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    int why = dir ? 0 : errno;
    close(d->root_fd);
    errno = why;
    struct dirent *de = dir ? readdir(dir) : NULL;
    /* EACCES is the kernel's answer from the root's mode, which we gave it: uid=, umask= shut us out. */
    if (!de && why != EACCES) {
        err_set(&e, -EIO, "%s: mounted, but cannot be listed: %s", d->dir, strerror(errno));
        report(d, d->exit_failed, e.msg);
        if (dir)
            closedir(dir);
        detach(d);
        sem_post(&d->told);
        return NULL;
    }
    if (dir)
        closedir(dir);
    if (d->readahead_fd >= 0 && !compat_set_readahead(d->readahead_fd, READAHEAD_KB))
        log_line(LOG_NOTE, "readahead stays at the kernel's default: %s", strerror(errno));
    if (d->readahead_fd >= 0)
        close(d->readahead_fd);
    struct tree *t = nodes_tree(fs->nodes);
    char text[64];
    snprintf(text, sizeof text, "READY=1\nMAINPID=%ld\n", (long)getpid());
    if (t->n_model == 0)
        log_line(LOG_WARN, "%s: no model to show; see .aprfs/problems.txt", fs->sources.text);
    tree_put(fs->nodes, t);
    mount_notify_models(fs, text);
    if (fs->opt.ready_fd >= 0) {
        if (write(fs->opt.ready_fd, "READY\n", 6) < 0)
            log_line(LOG_WARN, "ready-fd %d: %s", fs->opt.ready_fd, strerror(errno));
        if (fs->opt.ready_fd > 2) /* else the next file that is opened would be what we log to */
            close(fs->opt.ready_fd);
    }
    if (!fs->opt.foreground) {
        /* Not earlier: until the mount is reported, an automounter's mount point lets pass whoever is in
         * its process group, and makes all others wait. From here on nobody of us goes there by path. */
        setsid();
        log_to_syslog(true);
        for (int i = 0; i < 3; i++)
            dup2(d->null_fd, i);
        close(d->null_fd);
    }
    if (!report(d, 0, ""))
        detach(d);
    sem_post(&d->told);
    return NULL;
}

/* Ends in any case: those who still read get ENOTCONN. */
static void end_hard(struct daemon *d)
{
    struct pollfd p = {.fd = d->end_fd, .events = POLLIN};
    if (poll(&p, 1, HARD_END_MS) > 0)
        return; /* nobody had a file open: the ordinary end is under way */
    log_line(LOG_WARN, "ended with files open: their readers get ENOTCONN");
    _exit(0);
}

/* Signals, lease breaks among them, which must not wait for a scan. */
static void *keeper_main(void *ctx)
{
    struct daemon *d = ctx;
    int n_term = 0;
    for (;;) {
        struct pollfd p[2] = {{.fd = d->signal_fd, .events = POLLIN},
                              {.fd = d->end_fd, .events = POLLIN}};
        struct signalfd_siginfo si;
        poll(p, 2, -1);
        if (p[1].revents)
            return NULL;
        if (read(d->signal_fd, &si, sizeof si) != (ssize_t)sizeof si)
            continue;
        if ((int)si.ssi_signo == pinned_lease_signal()) {
            pinned_lease_broken(si.ssi_fd);
        } else if (si.ssi_signo == SIGIO) {
            pinned_lease_broken(-1);
        } else if (si.ssi_signo == SIGHUP) {
            tiers_rearm(d->fs.tiers);
            watch_kick(d->fs.watch);
        } else {
            watch_disarm(d->fs.watch);
            mount_notify("STOPPING=1\n");
            if (detach(d) < 0) {
                fuse_session_exit(d->fs.se);
                n_term++;
            }
            if (si.ssi_signo == SIGINT || n_term++ > 0)
                end_hard(d);
        }
    }
}

static int start_thread(pthread_t *t, bool *runs, void *(*main_fn)(void *), void *ctx,
                        struct err *e)
{
    int rc = pthread_create(t, NULL, main_fn, ctx);
    *runs = rc == 0;
    return rc ? err_set(e, -rc, "thread: %s", strerror(rc)) : 0;
}

/* --- set-up ------------------------------------------------------------------------------- */

static void on_stale(void *ctx, struct vfile *vf, const char *why)
{
    struct fs *fs = ctx;
    atomic_fetch_add(&fs->n_stale, 1);
    char *path = vfile_path(vf);
    log_line(LOG_WARN, "%s: %s; %s", path ? path : "a file", why,
             tiers_is_1a(fs->tiers, vfile_ino(vf)) ? "open handles keep what they had"
                                                   : "open handles get EIO");
    free(path);
    watch_stale(fs->watch, vfile_ino(vf));
}

static void on_learnt(void *ctx)
{
    struct fs *fs = ctx;
    watch_learnt(fs->watch);
}

static void fuse_says(enum fuse_log_level level, const char *fmt, va_list ap)
{
    char line[512];
    vsnprintf(line, sizeof line, fmt, ap);
    line[strcspn(line, "\n")] = '\0';
    log_line(level <= FUSE_LOG_ERR ? LOG_ERROR : LOG_NOTE, "%s", line);
}

/* Why no file can be tier 1a on this mount; NULL: some may. */
static const char *why_no_1a(const struct options *o)
{
    const char *why = sandbox_has_cap(CAP_SYS_ADMIN) ? NULL : "passthrough needs CAP_SYS_ADMIN";
    if (why && o->compose_asked)
        log_line(LOG_WARN, "compose=reflink: %s", why);
    return o->compose_never ? NULL : why;
}

static int setup_tiers(struct fs *fs, struct err *e)
{
    const struct options *o = &fs->opt;
    struct tiers_options to = {.cache = o->cache,
                               .direct_comms = o->direct_comms,
                               .compose = !o->compose_never,
                               .keep_s = o->compose_keep_s,
                               .why_not = why_no_1a(o)};
    if (to.compose && !to.why_not)
        fs->compose_dir = to.dir = o->compose_dir ? o->compose_dir : fs->cache_dir;
    return tiers_new(&fs->tiers, &to, e);
}

/* A help and no condition, as the index is. */
static void setup_cache_dir(struct fs *fs)
{
    struct err e = {0};
    fs->cache_dir = cache_dir_path();
    int fd = fs->cache_dir ? cache_dir_open(fs->cache_dir, &e) : -1;
    if (fd >= 0) {
        vcache_spill_to(fs->env.texts, fd);
        return;
    }
    log_line(LOG_NOTE, "cache folder: %s; large heads and tokenizer texts stay in memory",
             fs->cache_dir ? e.msg : "none is known (no HOME)");
    free(fs->cache_dir);
    fs->cache_dir = NULL;
}

static int fs_setup(struct daemon *d, struct err *e)
{
    struct fs *fs = &d->fs;
    const struct options *o = &fs->opt;
    fs->tree_opt = (struct tree_options){
        .uid = o->uid,
        .gid = o->gid,
        .umask = o->umask,
        .gguf = o->gguf,
        .narrow =
            geteuid() == 0 && o->allow_other && !o->uid_given && !o->gid_given && !o->umask_given,
    };
    pthread_mutex_init(&fs->handles_mu, NULL);
    if (geteuid() == 0 && !sandbox_has_cap(CAP_DAC_READ_SEARCH) && !(o->caps & OPTION_CAP_READ))
        fs->opt.store.denied_hint = "root without CAP_DAC_READ_SEARCH: -o caps=read keeps it";
    fs->env.lease = true;
    fs->env.stale = on_stale;
    fs->env.learnt = on_learnt;
    fs->env.ctx = fs;
    fs->opt.store.crew = &crew_threads;
    int rc = vcache_new(&fs->env.texts, TEXT_MEM, TEXT_SPILL, TEXT_FILES, e);
    if (rc == 0)
        rc = vcache_new(&fs->env.units, UNIT_MEM, 0, 0, e);
    if (rc == 0)
        rc = nodes_new(&fs->nodes, e);
    if (rc == 0) {
        setup_cache_dir(fs);
        fs->index = index_new(o->index, &fs->sources);
        rc = watch_new(&fs->watch, fs, e);
    }
    if (rc == 0)
        rc = setup_tiers(fs, e);
    return rc;
}

static int session_new(struct daemon *d, struct err *e)
{
    const struct options *o = &d->fs.opt;
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    char *opts = NULL, *name = NULL, *type = NULL;
    if (asprintf(&name, "fsname=%s", o->fsname ? o->fsname : d->fs.sources.text) < 0 ||
        asprintf(&type, "subtype=%s", o->subtype) < 0) {
        free(name);
        return err_set(e, -ENOMEM, "no memory for the options");
    }
    int bad = fuse_opt_add_opt(&opts, "ro,nosuid,nodev,default_permissions") |
              fuse_opt_add_opt_escaped(&opts, name) | fuse_opt_add_opt_escaped(&opts, type);
    if (o->allow_other)
        bad |= fuse_opt_add_opt(&opts, "allow_other");
    if (o->allow_root)
        bad |= fuse_opt_add_opt(&opts, "allow_root");
    bad |= fuse_opt_add_arg(&args, "aprfs") | fuse_opt_add_arg(&args, "-o") |
           fuse_opt_add_arg(&args, opts);
    if (o->debug)
        bad |= fuse_opt_add_arg(&args, "-d");
    if (!bad)
        d->fs.se = fuse_session_new(&args, &ops_table, sizeof ops_table, &d->fs);
    fuse_opt_free_args(&args);
    free(opts);
    free(name);
    free(type);
    return d->fs.se ? 0 : err_set(e, -EINVAL, "no FUSE session");
}

/* Before the first scan: those that it may cause itself. */
static void block_lease_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGIO);
    sigaddset(set, pinned_lease_signal());
    pthread_sigmask(SIG_BLOCK, set, NULL);
}

/* Before the mount: those that end it. Until then they end the program, for a scan may take long. */
static int block_signals(struct daemon *d, sigset_t *set, struct err *e)
{
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    d->signal_fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    d->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->signal_fd < 0 || d->end_fd < 0)
        return err_set(e, -errno, "signalfd: %s", strerror(errno));
    return 0;
}

/* False: the herald waits for an answer of the mount that nobody will give. */
static bool stop_threads(struct daemon *d)
{
    uint64_t one = 1;
    struct timespec until;
    bool told = !d->herald_runs;
    if (d->end_fd >= 0 && write(d->end_fd, &one, sizeof one) < 0)
        abort(); /* an eventfd of ours takes a one */
    if (d->keeper_runs)
        pthread_join(d->keeper, NULL);
    clock_gettime(CLOCK_REALTIME, &until); /* what sem_timedwait takes */
    until.tv_sec += TOLD_END_S;
    while (!told && ((told = sem_timedwait(&d->told, &until) == 0) || errno == EINTR))
        ;
    return told;
}

static unsigned long long kept_caps(const struct options *o)
{
    return (o->caps & OPTION_CAP_READ ? 1ULL << CAP_DAC_READ_SEARCH : 0) |
           (o->caps & OPTION_CAP_LEASE ? 1ULL << CAP_LEASE : 0);
}

/* What is asked for by caps= must be there to be kept. */
static int check_caps(const struct options *o, struct err *e)
{
    const char *missing = o->caps & OPTION_CAP_READ && !sandbox_has_cap(CAP_DAC_READ_SEARCH)
                              ? "CAP_DAC_READ_SEARCH"
                          : o->caps & OPTION_CAP_LEASE && !sandbox_has_cap(CAP_LEASE) ? "CAP_LEASE"
                                                                                      : NULL;
    return missing ? err_set(e, -EPERM, "caps=: this process has no %s to keep", missing) : 0;
}

/* The log's first line: what this process may not do, and what that means for readers. */
static void say_what_is_missing(const struct options *o)
{
    if (!sandbox_has_cap(CAP_SYS_ADMIN))
        log_line(
            LOG_NOTE,
            "uid %u without CAP_SYS_ADMIN: no passthrough, every read goes through aprfs; "
            "readahead "
            "stays at 128 KiB; no leases on files of other users (CAP_LEASE): changes to them are "
            "seen by comparison alone; allow_other only by user_allow_other in /etc/fuse.conf",
            (unsigned)geteuid());
    else if (geteuid() == 0 && o->caps != (OPTION_CAP_READ | OPTION_CAP_LEASE))
        log_line(LOG_NOTE, "root, without%s%s%s from now on (caps=):%s%s",
                 o->caps & OPTION_CAP_READ ? "" : " CAP_DAC_READ_SEARCH", o->caps ? "" : ",",
                 o->caps & OPTION_CAP_LEASE ? "" : " CAP_LEASE",
                 o->caps & OPTION_CAP_READ ? ""
                                           : " what is closed to root's own user is not shown;",
                 o->caps & OPTION_CAP_LEASE ? "" : " no leases on files of other users");
}

/* Mounts; from then on the broker is what can unmount. */
static int mount_now(struct daemon *d, bool *mounted, struct err *e)
{
    struct fs *fs = &d->fs;
    char type[64];
    unsigned long long more = 1ULL << CAP_SYS_ADMIN | 1ULL << CAP_DAC_READ_SEARCH;
    int rc = sandbox_keep_caps(kept_caps(&fs->opt) | more, false, e);
    if (rc == 0 && is_deserted(d))
        rc = err_set(e, -EINTR, "ended before the mount was there");
    if (rc == 0 && fuse_session_mount(fs->se, d->dir) != 0)
        rc = err_set(e, -EIO, "%s: cannot be mounted (see above)", d->dir);
    if (rc < 0)
        return rc;
    *mounted = true;
    if (!mount_at(d->dir, &d->dev, type))
        return err_set(e, -EIO, "%s: mounted, but not in /proc/self/mountinfo", d->dir);
    fs->opt.store.own_dev = d->dev;
    if (getenv("NOTIFY_SOCKET") && !mount_is_seen(d->dir))
        log_line(
            LOG_WARN,
            "%s: mounted in a name space of mounts that others do not see (of a unit: PrivateTmp=, "
            "ProtectSystem= and the like make one)",
            d->dir);
    /* Before there are threads: it is a fork. And before the mount is opened: the child's copy of that
     * descriptor would keep it busy until the child comes to close it, READY or not. */
    rc =
        broker_start(&fs->broker, fuse_session_fd(fs->se), d->dir, d->dev, fs->opt.auto_unmount, e);
    if (rc < 0)
        return rc;
    tiers_set_broker(fs->tiers, fs->broker);
    unsigned want = fs->opt.compose_never ? 0 : COMPAT_PASSTHROUGH;
    rc = compat_attach(fs->se, COMPAT_MMAP_DIRECT | want);
    if (rc < 0)
        return err_set(e, rc, "session: %s", strerror(-rc));
    d->root_fd = open(d->dir, O_PATH | O_DIRECTORY | O_CLOEXEC); /* asks nothing of us */
    return d->root_fd >= 0 ? 0
                           : err_set(e, -errno, "%s: mounted, but cannot be opened: %s", d->dir,
                                     strerror(errno));
}

/* Opens what could not be opened later, then gives up what is not needed any more. */
static int harden(struct daemon *d, struct err *e)
{
    struct fs *fs = &d->fs;
    struct sandbox *s = &fs->sandbox;
    d->readahead_fd = compat_open_readahead(d->dev);
    if (d->readahead_fd < 0 && sandbox_has_cap(CAP_SYS_ADMIN))
        log_line(LOG_NOTE, "readahead stays at the kernel's default: %s", strerror(errno));
    d->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (!fs->opt.foreground)
        log_connect();
    mount_notify_open();
    int rc = sandbox_allow(s, SANDBOX_READ, d->dir);
    for (size_t i = 0; rc == 0 && i < fs->sources.n; i++)
        rc = sandbox_allow(s, SANDBOX_READ, fs->sources.src[i].path);
    if (rc == 0 && fs->cache_dir)
        rc = sandbox_allow(s, SANDBOX_WRITE, fs->cache_dir);
    if (rc == 0 && index_dir(fs->index))
        rc = sandbox_allow(s, SANDBOX_WRITE, index_dir(fs->index));
    bool in_store = fs->compose_dir && strcmp(fs->compose_dir, TIERS_DIR_STORE) == 0;
    if (rc == 0 && fs->compose_dir && !in_store)
        rc = sandbox_allow(s, SANDBOX_TEMP, fs->compose_dir);
    for (size_t i = 0; rc == 0 && in_store && i < fs->sources.n; i++)
        rc = sandbox_allow(s, SANDBOX_TEMP, fs->sources.src[i].path);
    if (rc < 0)
        return err_set(e, rc, "sandbox: %s", strerror(-rc));
    s->on = fs->opt.sandbox;
    s->read_anywhere = fs->opt.store.resolve != STORE_RESOLVE_BENEATH;
    s->keep = kept_caps(&fs->opt);
    rc = sandbox_enter(s, e);
    if (rc == 0)
        log_line(LOG_NOTE, "%s", s->text);
    return rc;
}

/* Threads, until the session ends. */
static int serve_session(struct daemon *d, struct err *e)
{
    int rc = watch_start(d->fs.watch, e);
    if (rc == 0)
        rc = start_thread(&d->keeper, &d->keeper_runs, keeper_main, d, e);
    if (rc == 0)
        rc = start_thread(&d->herald, &d->herald_runs, herald_main, d, e);
    if (d->herald_runs)
        pthread_detach(d->herald);
    if (rc == 0) {
        rc = compat_loop(d->fs.se, d->fs.opt.single);
        if (rc < 0)
            err_set(e, rc, "session: %s", strerror(-rc));
    }
    return rc;
}

/* mount(8)'s bits, where it is who asks: 1 usage or permission, 2 system, 8 interrupted, 32 the mount
 * failed; else 2 for usage, 1 for the rest. */
static int exit_code(const struct options *o, int rc, bool usage)
{
    if (!o->helper)
        return rc == 0 ? 0 : usage ? 2 : 1;
    switch (rc) {
    case 0:
        return 0;
    case -EPERM:
    case -EACCES:
        return 1;
    case -ENOMEM:
    case -EMFILE:
    case -ENFILE:
    case -EAGAIN:
        return 2;
    case -EINTR:
        return 8;
    default:
        return usage ? 1 : 32;
    }
}

/* Ends beside a thread that does not: what it uses cannot be freed. */
static _Noreturn void end_beside(struct daemon *d, int rc, const struct err *e)
{
    int code = exit_code(&d->fs.opt, rc, false);
    if (rc < 0)
        report(d, code, e->msg);
    _exit(code);
}

/* From the first scan to the end of the mount. */
static int serve(struct daemon *d, struct err *e)
{
    struct fs *fs = &d->fs;
    bool mounted = false;
    sigset_t set;
    sem_init(&d->told, 0, 0);
    block_lease_signals(&set);
    say_what_is_missing(&fs->opt);
    /* What is scanned is what can be read later: with the rights that stay. */
    int rc = sandbox_keep_caps(kept_caps(&fs->opt) | 1ULL << CAP_SYS_ADMIN, false, e);
    if (rc == 0)
        rc = fs_setup(d, e);
    if (rc == -EACCES && fs->opt.store.denied_hint)
        err_wrap(e, "%s", fs->opt.store.denied_hint);
    if (rc == 0)
        rc = block_signals(d, &set, e);
    if (rc == 0)
        rc = session_new(d, e);
    if (rc == 0)
        rc = mount_now(d, &mounted, e);
    if (rc == 0)
        rc = harden(d, e);
    if (rc == 0)
        rc = serve_session(d, e);
    if (fs->watch)
        watch_disarm(fs->watch);
    /* libfuse's own unmount is what the sandbox refuses: it only closes what is unmounted already. */
    bool away = !mounted || detach(d) == 0;
    if (mounted && away)
        fuse_session_unmount(fs->se);
    bool told = stop_threads(d);
    tiers_stop(fs->tiers);
    /* A long scan, or one that a dead server holds: nothing depends on its end. */
    bool scanned = !fs->watch || watch_stop(fs->watch, SCAN_END_MS);
    /* Again: fusermount3 is a process, for which there was no room beside the threads (RLIMIT_NPROC). */
    away = away || detach(d) == 0;
    broker_stop(fs->broker);
    if (!told || !scanned)
        end_beside(d, rc, e);
    watch_free(fs->watch);
    index_free(fs->index);
    if (fs->se && away)
        fuse_session_destroy(fs->se);
    ops_close_all(fs);
    tiers_free(fs->tiers);
    nodes_free(fs->nodes);
    vcache_free(fs->env.units);
    vcache_free(fs->env.texts);
    sandbox_release(&fs->sandbox);
    free(fs->cache_dir);
    return rc;
}

static void raise_limits(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 256 << 10); /* fixed, so that what a plan took goes back */
    mallopt(M_TRIM_THRESHOLD, 256 << 10);
}

/* Whatever started us: descriptors 0 to 2 exist, how a child ended can be asked, and a write that meets
 * nobody or a limit (ulimit -f) is an error and not the end of the mount. */
static void start_clean(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd < 3);
    if (fd >= 3)
        close(fd);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

/* What else whoever starts a mount in the background has open (the lock of a script, the end of a pipe)
 * would stay so as long as the mount. All but *ready_fd goes, which may get another number. */
static void close_inherited(int *ready_fd)
{
    if (*ready_fd > 3 && dup3(*ready_fd, 3, O_CLOEXEC) == 3)
        *ready_fd = 3;
    closefrom(*ready_fd >= 3 ? *ready_fd + 1 : 3);
}

/* 0: we are the child (or stay in the foreground); > 0: the parent, with its exit code + 1. */
static int go_background(struct daemon *d, struct err *e)
{
    int fd[2];
    if (d->fs.opt.foreground)
        return 0;
    if (pipe2(fd, O_CLOEXEC) < 0)
        return err_set(e, -errno, "pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        return err_set(e, -errno, "fork: %s", strerror(errno));
    if (pid > 0) {
        close(fd[1]);
        return wait_for_report(fd[0], d->exit_failed) + 1;
    }
    close(fd[0]);
    d->report_fd = fd[1];
    return chdir("/") < 0 ? err_set(e, -errno, "chdir: %s", strerror(errno)) : 0;
}

/* In front of the mount; true: *code is what is left to do. */
static bool before_mount(struct daemon *d, int argc, char **argv, int *code)
{
    struct options *o = &d->fs.opt;
    struct err e = {0};
    int rc = options_parse(o, argc, argv, &e);
    bool usage = rc < 0;
    if (rc == 0 && (o->help || o->version)) {
        if (o->help)
            options_help(stdout);
        else
            printf("aprfs " APRFS_VERSION "\nlibfuse %s, %s\n", fuse_pkgversion(),
                   seccomp_built_in() ? "seccomp" : "no seccomp: built without libseccomp");
        *code = fflush(stdout) == 0 ? 0 : 1;
        return true;
    }
    if (rc == 0 && o->ready_fd >= 0 && fcntl(o->ready_fd, F_SETFD, FD_CLOEXEC) < 0) {
        rc = err_set(&e, -errno, "--ready-fd %d: %s", o->ready_fd, strerror(errno));
        usage = true;
    }
    if (rc == 0 && !o->foreground)
        close_inherited(&o->ready_fd);
    if (rc == 0)
        rc = check_caps(o, &e);
    /* Which known stores can be read is asked with the rights that stay. */
    if (rc == 0)
        rc = sandbox_keep_caps(kept_caps(o), false, &e);
    if (rc == 0)
        rc = sources_init(&d->fs.sources, o->source, o->n_source, &e);
    if (rc == 0)
        rc = sandbox_keep_caps(~0ULL, false, &e);
    if (rc == 0)
        rc = mount_check(o, &d->fs.sources, d->dir, &e);
    if (rc < 0)
        fprintf(stderr, "aprfs: %s\n%s", e.msg, usage ? "aprfs: -h lists the options\n" : "");
    *code = exit_code(o, rc, usage);
    return rc < 0 || o->fake;
}

int main(int argc, char **argv)
{
    static struct daemon d = {.report_fd = -1, .signal_fd = -1, .end_fd = -1};
    struct err e = {0};
    int code;
    start_clean();
    if (before_mount(&d, argc, argv, &code))
        return code;
    d.exit_failed = exit_code(&d.fs.opt, -EIO, false);
    fuse_set_log_func(fuse_says);
    raise_limits();
    int rc = go_background(&d, &e);
    if (rc > 0)
        return rc - 1;
    if (rc == 0)
        rc = serve(&d, &e);
    code = exit_code(&d.fs.opt, rc, false);
    if (rc < 0)
        report(&d, code, e.msg);
    return code;
}
