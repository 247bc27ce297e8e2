/* Around the session: what is checked before mounting, who is told when it works, how it ends. */
#ifndef APRFS_FS_MOUNT_H
#define APRFS_FS_MOUNT_H

#include "format/err.h"
#include "fs/options.h"
#include "fs/sources.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Real paths of both sides (those of src replace the given ones), or why that mount is refused: no
 * /dev/fuse, no directory, one inside the other, an aprfs mount or a dead one there already, allow_other
 * without permission. -ENODEV, -ENOTDIR, -EINVAL, -EBUSY, -ENOTCONN, -EPERM, or what the path gave. */
int mount_check(const struct options *o, struct sources *src, char dir[PATH_MAX], struct err *e);

/* The file system mounted exactly at dir (a real path), by /proc/self/mountinfo: its device and
 * type; false: none. */
bool mount_at(const char *dir, dev_t *dev, char type[64]);

/* Another number when dir, or what is mounted at it or below it, is another: a disk that came or went. */
uint64_t mount_signature(const char *dir);

/* Does the mount at dir show outside of this name space of mounts? Not if the one below it is a private or
 * a slave one, as in a service with PrivateTmp= and the like. */
bool mount_is_seen(const char *dir);

/* Keeps /proc/self/mountinfo open for mount_at: one who calls this may open nothing later. */
void mount_keep_list(void);

/* Takes the mount of dev away from the tree; open files go on (lazy). It is at dir, or where a folder above
 * it was renamed to; gone already: 0. session_fd tells it from a later mount with its number: the
 * session's /dev/fuse, -1 once that is closed; where the session is over, only a dead one at dir is taken
 * for it. -EBUSY: something else is mounted over it. */
int mount_detach(const char *dir, dev_t dev, int session_fd, struct err *e);

/* Connects to $NOTIFY_SOCKET, if there is one; sends s ("READY=1\n...") there. */
void mount_notify_open(void);
void mount_notify(const char *s);
/* The same with s in front of STATUS=, which says how many models are shown now. From any thread: what is
 * told last is the latest. */
struct fs;
void mount_notify_models(struct fs *fs, const char *s);

#endif
