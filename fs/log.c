/* Log lines: see log.h. */
#include "fs/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <syslog.h>

static atomic_bool log_syslog;

void log_to_syslog(bool on)
{
    if (on)
        openlog("aprfs", LOG_PID, LOG_DAEMON);
    atomic_store(&log_syslog, on);
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
        syslog(prio[level], "%s", line);
    else
        fprintf(stderr, "aprfs: %s\n", line);
}
