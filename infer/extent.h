/* Where the bytes of a mounted .apr really are. A mount offers it as an extended attribute,
 * "user.aprfs.extents" (fs/, format/store_text.h):
 *
 *   aprfs-extents 1
 *   part 0 DEV INO SIZE MTIME_NS PATH     per file, numbered from 0; PATH escaped as "\ooo"
 *   map OFF LEN 0|mem|zero SRC_OFF        in order of OFF, touching, from 0 to the file's end
 *
 * If every part opens and still is the file that is meant (all four), what lies in parts is read from
 * them, without FUSE in between, and the rest through the mount; else all is read through the mount.
 * The text comes from whoever runs the mount: nothing in it is believed without a look. */
#ifndef APRFS_INFER_EXTENT_H
#define APRFS_INFER_EXTENT_H

#include "format/source.h"

struct extent_part {
    uint64_t dev, ino, size;
    int64_t mtime_ns;
    char *path;
    struct source *src; /* NULL until opened */
};

struct extent_range {
    uint64_t off, len;
    int32_t part; /* -1: only the mount has these bytes */
    uint64_t src_off;
};

struct extent_map {
    struct extent_part *part;
    struct extent_range *range;
    size_t n_part, n_range;
};

/* text[0..len) about a file of size bytes. -EUCLEAN with the line. */
int extent_parse(struct extent_map *out, const char *text, size_t len, uint64_t size,
                 struct err *e);
void extent_release(struct extent_map *m);

/* Opens every part and compares it with what is said of it. -ESTALE, by name, where it is not that
 * file; or what opening answers. */
int extent_open_parts(struct extent_map *m, struct err *e);

/* A source over file, reading from parts what lies in them; takes m, also on failure; file is lent.
 * Its check asks file and every part. */
int extent_source(struct source **out, const struct source *file, struct extent_map *m,
                  struct err *e);

enum extent_from {
    EXTENT_FILE,  /* file is no mount's: read it */
    EXTENT_MOUNT, /* a mount's, and *why it is read through it */
    EXTENT_PARTS, /* *out reads the parts */
};

#define EXTENT_WHY 512

/* All of the above for an open file. *out is NULL unless EXTENT_PARTS is returned; why says in words
 * why a mount is not read by its parts, else "". A copy of a mounted file may have kept the
 * attribute: only a file that lies on a mount of type fuse.aprfs is asked. */
enum extent_from extent_find(struct source **out, const struct source *file, char why[EXTENT_WHY]);

/* Whether device dev is mounted as fuse.aprfs; root stands before /proc, "" but for tests. */
bool extent_is_mount(const char *root, uint64_t dev);

#endif
