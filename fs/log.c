/* Log lines: see log.h. syslog(3) would connect again by itself, which the sandbox refuses; so this
 * speaks its protocol (RFC 3164, as libc does) over a socket connected once. */
#include "fs/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

static atomic_bool log_syslog;
static atomic_int log_fd = -1;
static atomic_uint_least64_t n_lost;

void log_connect(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = _PATH_LOG};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    tzset();
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        close(fd);
        fd = -1;
    }
    atomic_store(&log_fd, fd);
}

uint64_t log_n_lost(void)
{
    return atomic_load(&n_lost);
}

void log_to_syslog(bool on)
{
    atomic_store(&log_syslog, on);
}

static void send_to_syslog(int prio, const char *line)
{
    char text[1200], when[32];
    struct tm tm;
    time_t now = time(NULL);
    strftime(when, sizeof when, "%b %e %T", localtime_r(&now, &tm));
    int n = snprintf(text, sizeof text, "<%d>%s aprfs[%d]: %s", LOG_DAEMON | prio, when,
                     (int)getpid(), line);
    int fd = atomic_load(&log_fd);
    if (fd < 0 || send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
        atomic_fetch_add(&n_lost, 1);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    static const int prio[] = {
        [LOG_ERROR] = LOG_ERR, [LOG_WARN] = LOG_WARNING, [LOG_NOTE] = LOG_INFO};
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    if (atomic_load(&log_syslog))
        send_to_syslog(prio[level], line);
    else
        fprintf(stderr, "aprfs: %s\n", line);
}

void log_line_in_signal(const char *line)
{
    char text[256] = "<28>aprfs: "; /* daemon.warning */
    size_t n = strlen(line), head = 4, at = strlen(text);
    if (n > sizeof text - at - 1)
        n = sizeof text - at - 1;
    memcpy(text + at, line, n);
    at += n;
    if (atomic_load(&log_syslog)) {
        if (send(atomic_load(&log_fd), text, at, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            atomic_fetch_add(&n_lost, 1);
        return;
    }
    text[at++] = '\n';
    if (write(STDERR_FILENO, text + head, at - head) < 0)
        atomic_fetch_add(&n_lost, 1);
}
