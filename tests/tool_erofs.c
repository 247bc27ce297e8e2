/* tool_erofs FILE LINK DIR: tries every system call that would change something below DIR, a mount,
 * and expects EROFS from each; FILE and LINK lie in DIR. Prints what answered otherwise; exit 1 if
 * any did. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

static int n_tried, n_bad;

static void expect(const char *what, long rc, int err)
{
    n_tried++;
    if (rc >= 0 || err != EROFS) {
        printf("%s: %s, expected %s\n", what, rc >= 0 ? "done" : strerror(err), strerror(EROFS));
        n_bad++;
    }
}

#define TRY(call)                                                                                  \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long rc_ = (long)(call);                                                                   \
        expect(#call, rc_, errno);                                                                 \
    } while (0)

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

    int fd = open(file, O_RDONLY);
    if (fd < 0) {
        perror(file);
        return 1;
    }
    TRY(fchmod(fd, 0600));
    TRY(fchown(fd, 1, 1));
    TRY(futimens(fd, ts));
    TRY(fsetxattr(fd, "user.mine", "x", 1, 0));
    TRY(fremovexattr(fd, "user.aprfs.arch"));
    close(fd);
    printf("# %d calls tried\n", n_tried);
    return n_bad > 0;
}
