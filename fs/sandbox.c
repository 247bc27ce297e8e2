/* Capabilities and Landlock: see sandbox.h. Landlock's numbers are the kernel's (include/uapi/linux/
 * landlock.h, ABI 7): Debian 12's header ends at ABI 2, and the kernel says what it knows. */
#include "fs/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- capabilities -------------------------------------------------------------------------- */

static int caps_get(struct __user_cap_data_struct d[2])
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    return syscall(SYS_capget, &h, d) < 0 ? -errno : 0;
}

bool sandbox_has_cap(int cap)
{
    struct __user_cap_data_struct d[2];
    return caps_get(d) == 0 && d[cap / 32].effective >> (cap % 32) & 1;
}

int sandbox_keep_caps(unsigned long long keep, bool for_good, struct err *e)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2];
    int rc = caps_get(d);
    for (int i = 0; rc == 0 && i < 2; i++) {
        uint32_t mask = (uint32_t)(keep >> (32 * i));
        d[i].effective = d[i].permitted & mask;
        d[i].inheritable = 0;
        if (for_good)
            d[i].permitted = d[i].effective;
    }
    if (rc == 0 && syscall(SYS_capset, &h, d) < 0)
        rc = -errno;
    return rc < 0 ? err_set(e, rc, "capabilities: %s", strerror(-rc)) : 0;
}

/* --- folders ------------------------------------------------------------------------------- */

int sandbox_allow(struct sandbox *s, enum sandbox_use use, const char *dir)
{
    struct sandbox_dir *more = reallocarray(s->dir, s->n_dir + 1, sizeof *more);
    if (!more)
        return -ENOMEM;
    s->dir = more;
    s->dir[s->n_dir] = (struct sandbox_dir){strdup(dir), use};
    return s->dir[s->n_dir].path ? (s->n_dir++, 0) : -ENOMEM;
}

void sandbox_release(struct sandbox *s)
{
    while (s->n_dir > 0)
        free(s->dir[--s->n_dir].path);
    free(s->dir);
    s->dir = NULL;
}

/* --- Landlock ------------------------------------------------------------------------------ */

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule       445
#define SYS_landlock_restrict_self  446
#endif

enum { /* bits of access to files, with the ABI that brought them */
       LL_EXECUTE = 1 << 0,
       LL_WRITE_FILE = 1 << 1,
       LL_READ_FILE = 1 << 2,
       LL_READ_DIR = 1 << 3,
       LL_REMOVE_DIR = 1 << 4,
       LL_REMOVE_FILE = 1 << 5,
       LL_MAKE_CHAR = 1 << 6,
       LL_MAKE_DIR = 1 << 7,
       LL_MAKE_REG = 1 << 8,
       LL_MAKE_SOCK = 1 << 9,
       LL_MAKE_FIFO = 1 << 10,
       LL_MAKE_BLOCK = 1 << 11,
       LL_MAKE_SYM = 1 << 12,
       LL_REFER = 1 << 13,     /* 2 */
       LL_TRUNCATE = 1 << 14,  /* 3 */
       LL_IOCTL_DEV = 1 << 15, /* 5 */
};
#define LL_READ      (LL_READ_FILE | LL_READ_DIR)
#define LL_TEMP      (LL_READ | LL_WRITE_FILE | LL_TRUNCATE)
#define LL_WRITE     (LL_TEMP | LL_REMOVE_FILE | LL_REMOVE_DIR | LL_MAKE_DIR | LL_MAKE_REG)
#define LL_FILE_ONLY (LL_EXECUTE | LL_WRITE_FILE | LL_READ_FILE | LL_TRUNCATE | LL_IOCTL_DEV)

struct ll_ruleset {
    uint64_t fs;
    uint64_t net;    /* ABI 4: bind and connect TCP */
    uint64_t scoped; /* ABI 6: abstract unix sockets, signals */
};
#define LL_NET_TCP              3
#define LL_SCOPE_ABSTRACT_SOCKS 1
#define LL_RULE_PATH_BENEATH    1

struct ll_path {
    uint64_t access;
    int32_t fd;
} __attribute__((packed));

/* Asks nothing of the file system: path may be our own mount, which nobody serves yet. */
static int ll_allow(int ruleset, const char *path, uint64_t access)
{
    int fd = open(path, O_PATH | O_CLOEXEC), rc = 0;
    if (fd < 0)
        return errno == ENOENT || errno == EACCES || errno == ENOTDIR ? 0 : -errno;
    struct ll_path p = {access, fd};
    if (access && syscall(SYS_landlock_add_rule, ruleset, LL_RULE_PATH_BENEATH, &p, 0) < 0) {
        p.access &= LL_FILE_ONLY; /* EINVAL: a file, which has no rights of folders */
        if (errno != EINVAL || !p.access ||
            syscall(SYS_landlock_add_rule, ruleset, LL_RULE_PATH_BENEATH, &p, 0) < 0)
            rc = -errno;
    }
    close(fd);
    return rc;
}

static int ll_rules(const struct sandbox *s, int ruleset, uint64_t handled)
{
    /* What the program itself looks at: who reads (/proc), what it runs on, the time zone of its log,
     * libraries that libc may load late. */
    static const char *const own[] = {"/proc", "/sys",   "/etc",     "/usr",
                                      "/lib",  "/lib64", "/dev/null"};
    int rc =
        ll_allow(ruleset, "/dev/fuse", handled & (LL_READ_FILE | LL_WRITE_FILE | LL_IOCTL_DEV));
    static const uint64_t access[] = {
        [SANDBOX_READ] = LL_READ, [SANDBOX_TEMP] = LL_TEMP, [SANDBOX_WRITE] = LL_WRITE};
    for (size_t i = 0; rc == 0 && i < s->n_dir; i++)
        rc = ll_allow(ruleset, s->dir[i].path, handled & access[s->dir[i].use]);
    for (size_t i = 0; rc == 0 && handled & LL_READ && i < sizeof own / sizeof *own; i++)
        rc = ll_allow(ruleset, own[i], handled & LL_READ);
    return rc;
}

/* The ABI, or a negative errno: -ENOSYS, -EOPNOTSUPP (not built into, or not enabled in the kernel). */
static int landlock_enter(const struct sandbox *s)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
    if (abi < 0)
        return -errno;
    struct ll_ruleset r = {.fs = LL_EXECUTE | LL_WRITE | LL_MAKE_CHAR | LL_MAKE_SOCK |
                                 LL_MAKE_FIFO | LL_MAKE_BLOCK | LL_MAKE_SYM};
    size_t size = sizeof r.fs;
    r.fs |= abi >= 2 ? LL_REFER : 0;
    r.fs &= abi >= 3 ? ~UINT64_C(0) : ~(uint64_t)LL_TRUNCATE;
    r.fs |= abi >= 5 ? LL_IOCTL_DEV : 0;
    r.fs &= s->read_anywhere ? ~(uint64_t)LL_READ : ~UINT64_C(0);
    if (abi >= 4) {
        r.net = LL_NET_TCP;
        size = offsetof(struct ll_ruleset, scoped);
    }
    if (abi >= 6) {
        r.scoped = LL_SCOPE_ABSTRACT_SOCKS;
        size = sizeof r;
    }
    int fd = (int)syscall(SYS_landlock_create_ruleset, &r, size, 0);
    if (fd < 0)
        return -errno;
    int rc = ll_rules(s, fd, r.fs);
    if (rc == 0 && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
        rc = -errno;
    close(fd);
    return rc < 0 ? rc : (int)abi;
}

/* --- all of it ----------------------------------------------------------------------------- */

static void say(struct sandbox *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct sandbox *s, const char *fmt, ...)
{
    size_t n = strlen(s->text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->text + n, sizeof s->text - n, fmt, ap);
    va_end(ap);
}

int sandbox_enter(struct sandbox *s, struct err *e)
{
    static const struct {
        int cap;
        const char *name;
    } names[] = {{CAP_DAC_READ_SEARCH, " CAP_DAC_READ_SEARCH"}, {CAP_LEASE, " CAP_LEASE"}};
    int rc = sandbox_keep_caps(s->keep, true, e);
    if (rc < 0)
        return rc;
    s->text[0] = '\0';
    say(s, "capabilities:");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (sandbox_has_cap(names[i].cap))
            say(s, "%s", names[i].name);
    say(s, "%s; ", s->text[strlen(s->text) - 1] == ':' ? " none" : "");
    if (!s->on) {
        say(s, "no sandbox: switched off");
        return 0;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_set(e, -errno, "no_new_privs: %s", strerror(errno));
    int abi = landlock_enter(s);
    if (abi >= 0)
        say(s, "Landlock ABI %d%s%s", abi, s->read_anywhere ? "" : ", reading bounded too",
            abi < 3 ? " (too old to refuse truncate)" : "");
    else if (abi == -ENOSYS || abi == -EOPNOTSUPP)
        say(s, "no Landlock in this kernel: writing is not bounded");
    else
        return err_set(e, abi, "Landlock: %s", strerror(-abi));
    int n = 0;
    rc = seccomp_enter(&n);
    if (rc == 0)
        say(s, "; seccomp, %d system calls", n);
    else if (!seccomp_built_in())
        say(s, "; no seccomp: built without libseccomp");
    else if (rc == -ENOTSUP || rc == -EINVAL || rc == -ENOSYS)
        say(s, "; no seccomp in this kernel");
    else
        return err_set(e, rc, "seccomp: %s", strerror(-rc));
    say(s, "; no_new_privs");
    return 0;
}

void sandbox_enter_broker(void)
{
    if (!sandbox_has_cap(CAP_SYS_ADMIN))
        return;
    /* The way to the mount point may lead through folders that root's own user may not enter. */
    sandbox_keep_caps(1ULL << CAP_SYS_ADMIN | 1ULL << CAP_DAC_READ_SEARCH, true, NULL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    seccomp_enter_broker();
}
