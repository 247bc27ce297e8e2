/* tool_erofs FILE LINK DIR: tries every system call that would change something below DIR, a mount,
 * and expects EROFS from each; FILE and LINK lie in DIR. Where the kernel looks at the descriptor first,
 * which can only be open for reading, its own answer. Prints what answered otherwise; exit 1 if any
 * did. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

static int n_tried, n_bad;

static void expect(const char *what, long rc, int err, int want)
{
    n_tried++;
    if (rc >= 0 || err != want) {
        printf("%s: %s, expected %s\n", what, rc >= 0 ? "done" : strerror(err), strerror(want));
        n_bad++;
    }
}

#define TRY_FOR(want, call)                                                                        \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long rc_ = (long)(call);                                                                   \
        expect(#call, rc_, errno, want);                                                           \
    } while (0)
#define TRY(call) TRY_FOR(EROFS, call)

static void try_descriptor(const char *file)
{
    struct timespec ts[2] = {{0, 0}, {0, 0}};
    int fd = open(file, O_RDONLY), other = open(file, O_RDONLY), flags = FS_NODUMP_FL;
    struct fsxattr fsx = {.fsx_xflags = FS_XFLAG_NODUMP};
    struct iovec v = {"x", 1};
    off_t at = 0;
    if (fd < 0 || other < 0) {
        perror(file);
        n_bad++;
        return;
    }
    TRY(fchmod(fd, 0600));
    TRY(fchown(fd, 1, 1));
    TRY(futimens(fd, ts));
    TRY(fsetxattr(fd, "user.mine", "x", 1, 0));
    TRY(fremovexattr(fd, "user.aprfs.arch"));
    TRY(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    TRY(ioctl(fd, FS_IOC_FSSETXATTR, &fsx));
    TRY_FOR(EINVAL, ftruncate(fd, 0)); /* as ftruncate(2) has it for such a descriptor */
    TRY_FOR(EBADF, fallocate(fd, 0, 0, 4096));
    TRY_FOR(EBADF, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    TRY_FOR(EBADF, write(fd, "x", 1));
    TRY_FOR(EBADF, pwrite(fd, "x", 1, 0));
    TRY_FOR(EBADF, pwritev2(fd, &v, 1, 0, RWF_APPEND));
    TRY_FOR(EBADF, copy_file_range(other, &at, fd, NULL, 4096, 0));
    TRY_FOR(EBADF, ioctl(fd, FICLONE, other));
    TRY_FOR(EACCES, (intptr_t)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
    close(other);
}

static void try_socket(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || strlen(path) >= sizeof a.sun_path)
        return;
    strcpy(a.sun_path, path);
    TRY(bind(fd, (struct sockaddr *)&a, sizeof a));
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: tool_erofs FILE LINK DIR\n", stderr);
        return 2;
    }
    const char *file = argv[1], *ln = argv[2], *dir = argv[3];
    char fresh[4096], other[4096];
    snprintf(fresh, sizeof fresh, "%s/new", dir);
    snprintf(other, sizeof other, "%s.other", file);
    struct timespec ts[2] = {{0, 0}, {0, 0}};

    TRY(open(file, O_WRONLY));
    TRY(open(file, O_RDWR));
    TRY(open(file, O_RDONLY | O_TRUNC));
    TRY(open(file, O_WRONLY | O_APPEND));
    TRY(open(fresh, O_WRONLY | O_CREAT, 0644));
    TRY(open(fresh, O_RDONLY | O_CREAT | O_EXCL, 0644));
    TRY(open(dir, O_TMPFILE | O_RDWR, 0600));
    TRY(creat(fresh, 0644));
    TRY(truncate(file, 0));
    TRY(truncate(file, 1 << 20));
    TRY(mkdir(fresh, 0755));
    TRY(mknod(fresh, S_IFREG | 0644, 0));
    TRY(mkfifo(fresh, 0644));
    TRY(symlink("x", fresh));
    TRY(link(file, fresh));
    TRY(linkat(AT_FDCWD, ln, AT_FDCWD, fresh, 0));
    TRY(unlink(file));
    TRY(unlink(ln));
    TRY(rmdir(dir));
    TRY(rename(file, other));
    TRY(rename(file, fresh));
    TRY(syscall(SYS_renameat2, AT_FDCWD, file, AT_FDCWD, ln, 2 /* RENAME_EXCHANGE */));
    TRY(chmod(file, 0600));
    TRY(chmod(dir, 0700));
    TRY(chown(file, 1, 1));
    TRY(lchown(ln, 1, 1));
    TRY(utimensat(AT_FDCWD, file, ts, 0));
    TRY(utimensat(AT_FDCWD, file, NULL, 0));
    TRY(utimensat(AT_FDCWD, ln, ts, AT_SYMLINK_NOFOLLOW));
    TRY(utime(file, NULL));
    TRY(setxattr(file, "user.aprfs.arch", "x", 1, 0));
    TRY(setxattr(file, "user.mine", "x", 1, 0));
    TRY(removexattr(file, "user.aprfs.arch"));
    TRY(setxattr(dir, "user.mine", "x", 1, 0));

    TRY(setxattr(file, "trusted.mine", "x", 1, 0));
    TRY(syscall(SYS_renameat2, AT_FDCWD, file, AT_FDCWD, fresh, 1 /* RENAME_NOREPLACE */));
    TRY(rename(dir, other));
    TRY(mknod(fresh, S_IFCHR | 0644, 0));
    TRY(open(dir, O_TMPFILE | O_WRONLY, 0600));
    try_descriptor(file);
    try_socket(fresh);
    printf("# %d calls tried\n", n_tried);
    return n_bad > 0;
}
