/* The one place of aprfs that speaks: stderr while in the foreground, syslog once in the
 * background. */
#ifndef APRFS_FS_LOG_H
#define APRFS_FS_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level {
    LOG_ERROR,
    LOG_WARN,
    LOG_NOTE,
};

/* Connects to syslog now, for a daemon that may open no socket later. A syslogd that is started anew
 * under another socket does not get our lines any more; what is lost is counted. */
void log_connect(void);
uint64_t log_n_lost(void);

/* From now on to syslog (true) or to stderr (false, the start). */
void log_to_syslog(bool on);

/* One line, without the newline; control bytes are shown as '?'. */
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The same from a signal handler: a plain warning. */
void log_line_in_signal(const char *line);

#endif
