/* The one place of aprfs that speaks: stderr while in the foreground, syslog once in the
 * background. */
#ifndef APRFS_FS_LOG_H
#define APRFS_FS_LOG_H

#include <stdbool.h>

enum log_level {
    LOG_ERROR,
    LOG_WARN,
    LOG_NOTE,
};

/* From now on to syslog (true) or to stderr (false, the start). */
void log_to_syslog(bool on);

/* One line, without the newline; control bytes are shown as '?'. */
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
