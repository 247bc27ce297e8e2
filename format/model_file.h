/* "A model is a path": opens a .apr (mounted or copied) or a .gguf (or the first shard of several)
 * and gives both as an APR. A .gguf goes through the same layout that a mount would show (vapr,
 * profile native), so that everything above this line sees one format. Told apart by magic, not by
 * name. */
#ifndef APRFS_FORMAT_MODEL_FILE_H
#define APRFS_FORMAT_MODEL_FILE_H

#include "format/apr_read.h"
#include "format/err.h"

struct model_file;

int model_file_open(struct model_file **out, const char *path, struct err *e);
void model_file_close(struct model_file *m);
struct apr *model_file_apr(const struct model_file *m); /* lent */
const char *model_file_path(const struct model_file *m);
bool model_file_is_gguf(const struct model_file *m);

#endif
