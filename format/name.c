/* Names: see name.h. Cleaning, stems, inode numbers; collisions are name_settle.c's. */
#include "format/name.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NAME_CUT     190 /* what is left of a long name before its digest */
#define DIGEST8_LEN  8
#define SHARD_SUFFIX 15 /* "-00001-of-00003" */

/* Looked up once, not for each of the thousands of names of a scan. NULL: there is none. */
static const EVP_MD *sha256_md(void)
{
    static _Atomic(EVP_MD *) md;
    EVP_MD *had = NULL, *found = atomic_load(&md);
    if (!found && (found = EVP_MD_fetch(NULL, "SHA256", NULL)) &&
        !atomic_compare_exchange_strong(&md, &had, found)) {
        EVP_MD_free(found);
        found = had;
    }
    return found;
}

static void sha256(uint8_t out[NAME_ID_SIZE], const void *p, size_t len)
{
    /* EVP_Digest fails only without memory for its context; a zero digest still is a valid name. */
    if (!EVP_Digest(p, len, out, NULL, sha256_md(), NULL))
        memset(out, 0, NAME_ID_SIZE);
}

void name_hex(char dst[NAME_HEX], const uint8_t id[NAME_ID_SIZE])
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < NAME_ID_SIZE; i++) {
        dst[2 * i] = digit[id[i] >> 4];
        dst[2 * i + 1] = digit[id[i] & 15];
    }
    dst[NAME_HEX - 1] = '\0';
}

/* ASCII only: isalnum() would ask the locale. */
static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static char clean_byte(char c, char slash, char space)
{
    if (c == '/')
        return slash;
    if (c == ' ')
        return space;
    return is_alnum(c) || c == '.' || c == '+' || c == '-' ? c : '_';
}

/* The cleaner, with what '/' and ' ' become. The text may be of any length: only the first
 * NAME_MAX_LEN bytes of the result are kept, the rest is counted. */
static void clean_map(char dst[NAME_SIZE], const char *src, size_t len, const uint8_t *id,
                      char slash, char space)
{
    size_t n = 0, n_solid = 0; /* bytes of the result; up to the last that is no dot */
    char prev = '\0';
    for (size_t i = 0; i < len; i++) {
        char c = clean_byte(src[i], slash, space);
        if (i == 0 && (c == '.' || c == '-')) {
            dst[n++] = '_';
            n_solid = n;
        }
        if (c == '_' && prev == '_')
            continue;
        if (n < NAME_MAX_LEN)
            dst[n] = c;
        n++;
        if (c != '.')
            n_solid = n;
        prev = c;
    }
    if (n_solid == 0) {
        strcpy(dst, "_");
    } else if (n_solid <= NAME_MAX_LEN) {
        dst[n_solid] = '\0';
    } else {
        uint8_t own[NAME_ID_SIZE];
        if (!id)
            sha256(own, src, len);
        dst[NAME_MAX_LEN] = '\0';
        name_add_digest(dst, id ? id : own, 1);
    }
}

void name_clean(char dst[NAME_SIZE], const void *src, size_t len, const uint8_t id[NAME_ID_SIZE])
{
    clean_map(dst, src, len, id, '_', '_');
}

void name_add_digest(char name[NAME_SIZE], const uint8_t id[NAME_ID_SIZE], unsigned n)
{
    char hex[NAME_HEX], suffix[32];
    name_hex(hex, id);
    int m = n > 1 ? snprintf(suffix, sizeof suffix, "-%.*s-%u", DIGEST8_LEN, hex, n)
                  : snprintf(suffix, sizeof suffix, "-%.*s", DIGEST8_LEN, hex);
    size_t keep = NAME_MAX_LEN - (size_t)m < NAME_CUT ? NAME_MAX_LEN - (size_t)m : NAME_CUT;
    size_t len = strlen(name);
    memcpy(name + (len < keep ? len : keep), suffix, (size_t)m + 1);
}

bool name_part_ok(const char *p, size_t len)
{
    if (len == 0 || (len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
        return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f || p[i] == '/')
            return false;
    return true;
}

void name_two_levels(char publisher[NAME_SIZE], char model[NAME_SIZE], const char *dir,
                     const char *stem)
{
    size_t first = strcspn(dir, "/");
    if (dir[first] == '/') {
        name_clean(publisher, dir, first, NULL);
        clean_map(model, dir + first + 1, strlen(dir + first + 1), NULL, '+', '_');
        return;
    }
    strcpy(publisher, "local");
    name_clean(model, first ? dir : stem, strlen(first ? dir : stem), NULL);
}

/* Source: enum llama_ftype of llama.h; the numbers 4, 5, 6, 33, 34, 35 were withdrawn. */
static const char *const file_types[] = {
    [0] = "F32",      [1] = "F16",      [2] = "Q4_0",       [3] = "Q4_1",    [7] = "Q8_0",
    [8] = "Q5_0",     [9] = "Q5_1",     [10] = "Q2_K",      [11] = "Q3_K_S", [12] = "Q3_K_M",
    [13] = "Q3_K_L",  [14] = "Q4_K_S",  [15] = "Q4_K_M",    [16] = "Q5_K_S", [17] = "Q5_K_M",
    [18] = "Q6_K",    [19] = "IQ2_XXS", [20] = "IQ2_XS",    [21] = "Q2_K_S", [22] = "IQ3_XS",
    [23] = "IQ3_XXS", [24] = "IQ1_S",   [25] = "IQ4_NL",    [26] = "IQ3_S",  [27] = "IQ3_M",
    [28] = "IQ2_S",   [29] = "IQ2_M",   [30] = "IQ4_XS",    [31] = "IQ1_M",  [32] = "BF16",
    [36] = "TQ1_0",   [37] = "TQ2_0",   [38] = "MXFP4_MOE", [39] = "NVFP4",  [40] = "Q1_0",
    [41] = "Q2_0",
};
#define N_FILE_TYPE (sizeof file_types / sizeof *file_types)

const char *name_file_type(uint64_t ftype)
{
    return ftype < N_FILE_TYPE ? file_types[ftype] : NULL;
}

static bool is_shard_tail(const char *p)
{
    static const char shape[] = "-ddddd-of-ddddd";
    for (size_t i = 0; i < SHARD_SUFFIX; i++)
        if (shape[i] == 'd' ? p[i] < '0' || p[i] > '9' : p[i] != shape[i])
            return false;
    return true;
}

size_t name_bare_len(const char *file)
{
    size_t n = strlen(file);
    if (n < 5 || strcasecmp(file + n - 5, ".gguf") != 0)
        return n;
    n -= 5;
    return n > SHARD_SUFFIX && is_shard_tail(file + n - SHARD_SUFFIX) ? n - SHARD_SUFFIX : n;
}

static bool is_quant_name(const char *p, size_t len)
{
    if (len > 3 && strncasecmp(p, "UD-", 3) == 0) {
        p += 3;
        len -= 3;
    }
    for (size_t i = 0; i < N_FILE_TYPE; i++)
        if (file_types[i] && strlen(file_types[i]) == len &&
            strncasecmp(p, file_types[i], len) == 0)
            return true;
    return false;
}

static bool starts(const char *p, size_t len, const char *lit)
{
    size_t n = strlen(lit);
    return len >= n && strncasecmp(p, lit, n) == 0;
}

/* Would a person recognise a model by it? Eight digits is the shortest hash people abbreviate to,
 * and shorter ones are names: "7b". */
static bool readable(const char *p, size_t len)
{
    bool any = false, all_hex = true;
    for (size_t i = 0; i < len; i++) {
        any |= is_alnum(p[i]);
        all_hex &= isxdigit((unsigned char)p[i]) != 0;
    }
    if (!any || (all_hex && len >= DIGEST8_LEN))
        return false;
    if (starts(p, len, "sha256-") || starts(p, len, "sha256:") || starts(p, len, "ggml-model"))
        return false;
    if ((len == 5 && starts(p, len, "model")) || (len == 4 && starts(p, len, "gguf")))
        return false;
    return !(starts(p, len, "unsloth.") && is_quant_name(p + 8, len - 8));
}

/* Is word in text, without case, not as a part of a longer word ("5B" is not in "0.5B")? */
static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = text; n && (p = strcasestr(p, word)); p++) {
        bool left = p == text || !(is_alnum(p[-1]) || p[-1] == '.');
        bool right = !(is_alnum(p[n]) || p[n] == '.');
        if (left && right)
            return true;
    }
    return false;
}

/* A stem under construction: up to seven cleaned parts and their hyphens. */
struct stem {
    char text[8 * NAME_SIZE];
    size_t len;
};

static void stem_add(struct stem *s, const char *part, const uint8_t *id)
{
    char clean[NAME_SIZE];
    if (!part || !*part)
        return;
    clean_map(clean, part, strlen(part), id, '-', '-');
    bool any = false;
    for (const char *p = clean; *p; p++)
        any |= is_alnum(*p);
    if (!any || has_word(s->text, clean))
        return;
    int n = snprintf(s->text + s->len, sizeof s->text - s->len, "%s%s", s->len ? "-" : "", clean);
    s->len += (size_t)n;
}

static int stem_by_rule(struct stem *s, const struct name_facts *f)
{
    size_t bare = f->file ? name_bare_len(f->file) : 0;
    if (f->file && readable(f->file, bare)) {
        char clean[NAME_SIZE];
        name_clean(clean, f->file, bare, f->id);
        s->len = (size_t)snprintf(s->text, sizeof s->text, "%s", clean);
        return 1;
    }
    stem_add(s, f->basename, f->id);
    if (!s->len)
        stem_add(s, f->name, f->id);
    if (s->len) {
        stem_add(s, f->size_label, f->id);
        stem_add(s, f->finetune, f->id);
        stem_add(s, f->version, f->id);
        return 2;
    }
    stem_add(s, f->model_dir, f->id);
    if (s->len) {
        stem_add(s, f->tag, f->id);
        return 3;
    }
    stem_add(s, f->tag, f->id);
    if (s->len)
        return 3;
    char clean[NAME_SIZE] = "_";
    if (f->file)
        name_clean(clean, f->file, bare, f->id);
    s->len = (size_t)snprintf(s->text, sizeof s->text, "%s", clean);
    return 4;
}

int name_stem(char dst[NAME_SIZE], const struct name_facts *f)
{
    struct stem s = {.len = 0};
    int rule = stem_by_rule(&s, f);
    if (rule == 2 || rule == 3)
        stem_add(&s, f->quant, f->id);
    if (f->chat_hint && f->has_chat_template && !strcasestr(s.text, "instruct") &&
        !strcasestr(s.text, "-chat"))
        stem_add(&s, "Instruct", f->id);
    /* A stem must not look like a shard of another: "<stem>.gguf" would be taken for one. */
    if (s.len > SHARD_SUFFIX && is_shard_tail(s.text + s.len - SHARD_SUFFIX))
        s.text[s.len++] = '_';
    name_clean(dst, s.text, s.len, f->id);
    return rule;
}

uint64_t name_inode(const char *path, const uint8_t id[NAME_ID_SIZE])
{
    uint8_t digest[NAME_ID_SIZE] = {0};
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (c && EVP_DigestInit_ex(c, sha256_md(), NULL) &&
        EVP_DigestUpdate(c, path, strlen(path) + 1) &&
        EVP_DigestUpdate(c, id ? id : digest, id ? NAME_ID_SIZE : 0))
        EVP_DigestFinal_ex(c, digest, NULL);
    EVP_MD_CTX_free(c);
    uint64_t ino = 0;
    for (int i = 0; i < 8; i++)
        ino |= (uint64_t)digest[i] << (8 * i);
    ino &= UINT64_MAX >> 1;
    return ino < 2 ? ino + 2 : ino; /* 0 is no inode, 1 is the mount's root */
}

char *name_escape_bytes(const void *p, size_t len)
{
    const unsigned char *s = p;
    char *out = malloc(4 * len + 1), *q = out;
    if (!out)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        bool c1 = s[i] == 0xc2 && i + 1 < len && s[i + 1] >= 0x80 && s[i + 1] < 0xa0;
        if (c1)
            q += sprintf(q, "\\%03o\\%03o", s[i], s[i + 1]);
        else if (s[i] < 0x20 || s[i] == 0x7f || s[i] == '\\')
            q += sprintf(q, "\\%03o", s[i]);
        else
            *q++ = (char)s[i];
        i += c1;
    }
    *q = '\0';
    return out;
}

char *name_escape(const char *s)
{
    return name_escape_bytes(s, strlen(s));
}
