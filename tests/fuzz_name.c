/* Names from any bytes: what name.h promises of a component holds, whatever comes in. */
#include "format/name.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NEED(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

static void check_component(const char *s)
{
    size_t n = strlen(s);
    NEED(n >= 1 && n <= NAME_MAX_LEN);
    NEED(strcmp(s, ".") && strcmp(s, "..") && s[0] != '.' && s[0] != '-');
    for (size_t i = 0; i < n; i++)
        NEED((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'A' && s[i] <= 'Z') ||
             (s[i] >= 'a' && s[i] <= 'z') || strchr("._+-", s[i]));
    NEED(s[n - 1] != '.');
    char again[NAME_SIZE];
    name_clean(again, s, n, NULL);
    NEED(!strcmp(again, s)); /* clean is clean */
}

/* Up to 8 texts, parted by newlines, NUL-terminated in place. */
static int cut(char *p, char *part[8])
{
    int n = 0;
    for (char *s = p; s && n < 8;) {
        char *nl = strchr(s, '\n');
        if (nl)
            *nl++ = '\0';
        part[n++] = s;
        s = nl;
    }
    return n;
}

static void check_settled(char *part[8], int n)
{
    static const uint8_t id[2][NAME_ID_SIZE] = {{1}, {2}};
    struct name_claim c[8];
    char order[8][2];
    memset(c, 0, sizeof c);
    for (int i = 0; i < n; i++) {
        name_clean(c[i].stem, part[i], strlen(part[i]), id[0]);
        name_two_levels(c[i].publisher, c[i].model, part[(i + 1) % n], c[i].stem);
        order[i][0] = (char)('a' + i);
        order[i][1] = '\0';
        c[i].order = order[i];
        c[i].id = id[strlen(part[i]) & 1];
        c[i].sibling = id[strlen(part[i]) >> 1 & 1];
    }
    NEED(name_settle(c, (size_t)n, NULL) == 0);
    for (int i = 0; i < n; i++) {
        check_component(c[i].publisher);
        check_component(c[i].model);
        check_component(c[i].stem);
        for (int k = 0; k < i; k++)
            NEED(strcasecmp(c[i].publisher, c[k].publisher) || strcasecmp(c[i].model, c[k].model) ||
                 strcasecmp(c[i].stem, c[k].stem));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t id[NAME_ID_SIZE] = {7};
    char name[NAME_SIZE];
    name_clean(name, data, size, NULL);
    check_component(name);
    name_clean(name, data, size, id);
    check_component(name);
    name_add_digest(name, id, 1 + (unsigned)size);
    check_component(name);
    if (name_part_ok((const char *)data, size))
        NEED(size > 0 && !memchr(data, '/', size) && !memchr(data, '\0', size));

    char *p = malloc(size + 1), *part[8] = {0};
    if (!p)
        return 0;
    memcpy(p, data, size);
    p[size] = '\0';
    int n = cut(p, part);
    struct name_facts f = {
        .file = part[0],
        .basename = part[1],
        .size_label = part[2],
        .finetune = part[3],
        .version = part[4],
        .name = part[5],
        .model_dir = part[6],
        .tag = part[7],
        .quant = "Q4_K_M",
        .chat_hint = size & 1,
        .has_chat_template = size & 2,
        .id = id,
    };
    int rule = name_stem(name, &f);
    NEED(rule >= 1 && rule <= 4);
    check_component(name);
    NEED(name_bare_len(part[0]) <= strlen(part[0]));
    char *line = name_escape(p);
    NEED(!line || !strpbrk(line, "\n\r\t"));
    free(line);
    check_settled(part, n);
    free(p);
    return 0;
}
