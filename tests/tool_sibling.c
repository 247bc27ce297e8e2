/* Writes what the mount shows beside a model: sibling tokenizer|config|generation FILE.gguf > out.json */
#include "format/sibling.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct gguf *g = NULL;
    struct err e = {0};
    char *text = NULL;
    size_t len = 0;
    const char *what = argc > 1 ? argv[1] : "";
    bool tokenizer = !strcmp(what, "tokenizer"), config = !strcmp(what, "config"),
         generation = !strcmp(what, "generation");
    if (argc < 3 || argc > 3 + generation || !(tokenizer || config || generation)) {
        fprintf(stderr,
                "usage: %s tokenizer|config FILE.gguf\n"
                "       %s generation FILE.gguf [PARAMS]\n",
                argv[0], argv[0]);
        return 2;
    }
    int rc = gguf_open_path(&g, argv[2], &e);
    if (rc == 0)
        rc = config       ? sibling_config(g, ARCH_VALUES_REFERENCE, &text, &len, &e)
             : generation ? sibling_generation(g, ARCH_VALUES_REFERENCE, argv[3], &text, &len, &e)
                          : sibling_tokenizer(g, &text, &len, &e);
    if (rc == 0 && fwrite(text, 1, len, stdout) != len) {
        perror("write");
        rc = -1;
    } else if (rc < 0) {
        fprintf(stderr, "%s\n", e.msg);
    }
    free(text);
    gguf_close(g);
    return rc < 0;
}
