/* The model of the original readers, against the specification's table of what each checks (apr-v2.md
 * 9.1), rule by rule: one file of aprender's own writer, broken in one place at a time. */
#include "format/readers.h"

#include "format/apr.h"
#include "format/bytes.h"
#include "format/crc32.h"
#include "tests/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct file {
    uint8_t *p;
    size_t len;
};

static struct file load(const char *path)
{
    struct file f = {0};
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    fseek(in, 0, SEEK_END);
    f.len = (size_t)ftell(in);
    rewind(in);
    f.p = malloc(f.len + 4096);
    assert_non_null(f.p);
    assert_int_equal(fread(f.p, 1, f.len, in), f.len);
    fclose(in);
    return f;
}

static void seal(struct file *f)
{
    store_u32(f->p + 40, crc32_apr_header(f->p));
}

static uint8_t *entry(struct file *f)
{
    return f->p + load_u64(f->p + 24);
}

/* Each breaks one thing. */
static void as_it_is(struct file *f)
{
    (void)f;
}
static void cut_short(struct file *f)
{
    f->len = 63;
}
static void magic_apr2(struct file *f)
{
    f->p[3] = '2';
    seal(f);
}
static void version_9_9(struct file *f)
{
    f->p[4] = f->p[5] = 9;
    seal(f);
}
static void wrong_crc(struct file *f)
{
    f->p[50] ^= 1;
}
static void set_flag(struct file *f, unsigned flag)
{
    store_u16(f->p + 6, (uint16_t)(load_u16(f->p + 6) | flag));
    seal(f);
}
static void column_major(struct file *f)
{
    set_flag(f, APR_FLAG_COLUMN_MAJOR);
}
static void encrypted(struct file *f)
{
    set_flag(f, APR_FLAG_ENCRYPTED);
}
static void compressed(struct file *f)
{
    set_flag(f, APR_FLAG_LZ4);
}
static void metadata_past_end(struct file *f)
{
    store_u32(f->p + 20, (uint32_t)f->len);
    seal(f);
}
static void no_json(struct file *f)
{
    f->p[64] = '[';
}
static void architecture_as_number(struct file *f)
{
    char *at = memmem(f->p, f->len, "\"architecture\":\"", 16);
    assert_non_null(at);
    char *from = at + 15, *end = strchr(from + 1, '"');
    memset(from, ' ', (size_t)(end - from));
    *end = '7';
}
static void two_spellings(struct file *f) /* "total_size" is nobody's need: same length, an alias */
{
    char *at = memmem(f->p, f->len, "\"total_size\":", 13);
    assert_non_null(at);
    memcpy(at, "\"hidden_dim\":", 13);
}
static void more_tensors_than_entries(struct file *f)
{
    store_u32(f->p + 8, 1000000);
    seal(f);
}
static void unknown_dtype(struct file *f)
{
    uint8_t *e = entry(f);
    e[2 + load_u16(e)] = 99;
}
static void unsorted(struct file *f)
{
    entry(f)[2] = '~';
}
static void data_past_end(struct file *f)
{
    store_u64(f->p + 32, f->len + 64);
    seal(f);
}
static void tensor_past_end(struct file *f)
{
    uint8_t *e = entry(f), *shape = e + 2 + load_u16(e) + 1;
    store_u64(shape + 1 + 8 * shape[0], UINT64_C(1) << 40);
}

static const struct {
    const char *name;
    void (*breaks)(struct file *f);
    /* Per reader in the order of enum reader, ours left out: y accepts, n refuses; tensors wrong. */
    const char *want;
    size_t n_wrong;
    const char *rule; /* that the first who refuses, or misreads, names */
} broken[] = {
    {"as_it_is", as_it_is, "yyyyyyyy", 0, NULL},
    {"cut_short", cut_short, "nnnnnnnn", 0, "size"},
    {"magic_apr2", magic_apr2, "nnynnnyn", 0, "magic"},
    {"version_9_9", version_9_9, "yyyyyyyy", 0, NULL},
    {"wrong_crc", wrong_crc, "nnyyyyyy", 0, "header-crc"},
    {"column_major", column_major, "nnyyyyyy", 0, "column-major"},
    {"encrypted", encrypted, "yynyyyny", 0, "encrypted"},
    {"compressed", compressed, "yynyyyny", 0, "compressed"},
    {"metadata_past_end", metadata_past_end, "nnnnnnnn", 0, "metadata-bounds"},
    {"no_json", no_json, "nnyynnyy", 0, "metadata-json"},
    {"architecture_as_number", architecture_as_number, "nnyynnyy", 0, "metadata-type"},
    {"two_spellings", two_spellings, "yyyynnyy", 0, "metadata-empty-model"},
    {"more_tensors", more_tensors_than_entries, "nnyyyyyy", 0, "index-bounds"},
    {"unknown_dtype", unknown_dtype, "nnyyyyyy", 0, "dtype-known"},
    {"unsorted", unsorted, "nnyynnyy", 0, "index-sorted"},
    {"data_past_end", data_past_end, "yynnnnny", SIZE_MAX, NULL},
    {"tensor_past_end", tensor_past_end, "yyyyyyyy", 1, "tensor-bounds"},
};

static void judge(struct file *f, struct reader_verdict v[N_READER])
{
    struct source *src;
    struct apr *a = NULL;
    struct err e = {0};
    assert_int_equal(source_from_mem(&src, f->p, f->len, "x.apr", NULL), 0);
    (void)apr_open(&a, src, &e);
    readers_judge(v, src, a, e.msg);
    apr_close(a);
    source_close(src);
}

static void readers_check_what_the_table_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        struct file f = load("tests/data/aprender-writer.apr");
        struct reader_verdict v[N_READER];
        char got[N_READER] = {0};
        const char *rule = NULL;
        broken[i].breaks(&f);
        judge(&f, v);
        for (int k = 0; k < N_READER - 1; k++) {
            const struct reader_finding *no = reader_find(&v[k], READER_REFUSES),
                                        *bad = reader_find(&v[k], READER_MISREADS);
            got[k] = no ? 'n' : 'y';
            rule = rule ? rule : no ? no->rule->id : bad ? bad->rule->id : NULL;
            assert_false(v[k].no_memory);
            if (broken[i].n_wrong != SIZE_MAX)
                assert_int_equal(v[k].n_wrong, broken[i].n_wrong);
        }
        if (strcmp(got, broken[i].want) != 0)
            fail_msg("%s: %s, expected %s", broken[i].name, got, broken[i].want);
        if (broken[i].rule)
            assert_string_equal(rule, broken[i].rule);
        readers_release(v);
        free(f.p);
    }
}

/* Each dtype byte, as the specification's section 5 has it: what apr_open takes for type T is wrong to
 * the readers that take the byte for something else. F32 of 8 weights as code 0 is right to all. */
static void readers_tell_dtypes_apart(void **state)
{
    (void)state;
    static const struct {
        uint8_t dtype;
        const char *refuses; /* by reader, ours left out: r refuses the file, . does not */
    } code[] = {
        {0, "........"},  {1, "........"},  {2, ".r......"},   {3, "........"},   {10, "rr......"},
        {13, "rr......"}, {30, "r......."}, {128, "r......."}, {129, "r......."}, {200, "rr......"},
    };
    for (size_t i = 0; i < sizeof code / sizeof code[0]; i++) {
        struct file f = load("tests/data/aprender-writer.apr");
        struct reader_verdict v[N_READER];
        uint8_t *e = entry(&f);
        e[2 + load_u16(e)] = code[i].dtype;
        judge(&f, v);
        for (int k = 0; k < N_READER - 1; k++)
            if ((code[i].refuses[k] == 'r') != (reader_find(&v[k], READER_REFUSES) != NULL))
                fail_msg("dtype %u: %s", code[i].dtype, v[k].name);
        readers_release(v);
        free(f.p);
    }
}

/* Buffers of any length, and the fixture cut at every byte of its head: no crash, all told. */
static void readers_judge_every_cut(void **state)
{
    (void)state;
    struct file f = load("tests/data/aprender-writer.apr");
    size_t whole = f.len, head = (size_t)load_u64(f.p + 32);
    for (size_t len = 0; len < head; len++) {
        struct reader_verdict v[N_READER];
        f.len = len;
        judge(&f, v);
        assert_non_null(reader_find(&v[READER_APRD], READER_REFUSES));
        if (len < 64)
            for (int k = 0; k < N_READER; k++)
                assert_non_null(reader_find(&v[k], READER_REFUSES));
        readers_release(v);
    }
    assert_true(head > 64 && head < whole);
    free(f.p);
}

static void readers_rules_are_all_in_the_docs(void **state)
{
    (void)state;
    struct file f = load("docs/readers.md");
    f.p[f.len] = 0;
    size_t n;
    const struct reader_rule *r = readers_rules(&n);
    for (size_t i = 0; i < n; i++) {
        char row[80];
        snprintf(row, sizeof row, "\n| %s |", r[i].id);
        const char *at = strstr((const char *)f.p, row);
        if (!at)
            fail_msg("docs/readers.md has no row for %s", r[i].id);
        const char *end = strchr(at + 1, '\n');
        assert_non_null(end);
        char *line = strndup(at + 1, (size_t)(end - at - 1));
        assert_non_null(strstr(line, r[i].what));
        assert_non_null(strstr(line, r[i].source));
        assert_non_null(strstr(line, reader_effect_name(r[i].effect)));
        for (int k = 0; k < N_READER; k++)
            if (r[i].readers & 1U << k && !strstr(line, reader_name((enum reader)k)))
                fail_msg("%s: docs/readers.md does not name %s", r[i].id,
                         reader_name((enum reader)k));
        free(line);
    }
    free(f.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_check_what_the_table_says),
        cmocka_unit_test(readers_tell_dtypes_apart),
        cmocka_unit_test(readers_judge_every_cut),
        cmocka_unit_test(readers_rules_are_all_in_the_docs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
