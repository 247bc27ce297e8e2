/* The model of the original readers, against the specification's table of what each checks (apr-v2.md
 * 9.1), rule by rule: one file of aprender's own writer, broken in one place at a time. */
#include "format/readers_internal.h"

#include "format/apr.h"
#include "format/bytes.h"
#include "format/crc32.h"
#include "tests/arch_case.h"
#include "tests/support.h"
#include "tests/vapr_support.h"

#include <errno.h>
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
static void embedding_renamed(struct file *f) /* into a name that no one looks for */
{
    char *at = memmem(f->p, f->len, "model.embed_tokens", 18);
    assert_non_null(at);
    at[17] = 'z';
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
    {"no_json", no_json, "nnyynnyn", 0, "metadata-json"},
    {"architecture_as_number", architecture_as_number, "nnyynnyy", 0, "metadata-type"},
    {"two_spellings", two_spellings, "yyyynnyy", 0, "metadata-empty-model"},
    {"more_tensors", more_tensors_than_entries, "nnyyyyyy", 0, "index-bounds"},
    {"unknown_dtype", unknown_dtype, "nnyyyyyy", 0, "dtype-known"},
    {"unsorted", unsorted, "nnyynnyy", 0, "index-sorted"},
    {"embedding_renamed", embedding_renamed, "yyyynnyn", 0, "names"},
    {"data_past_end", data_past_end, "yynnnnny", SIZE_MAX, NULL},
    {"tensor_past_end", tensor_past_end, "yyyyyyyy", 1, "tensor-bounds"},
};

static void judge(struct file *f, struct reader_verdict v[N_READER])
{
    struct source *src;
    struct apr *a = NULL;
    struct err e = {0}, why = {0};
    assert_int_equal(source_from_mem(&src, f->p, f->len, "x.apr", NULL), 0);
    (void)apr_open(&a, src, &e);
    if (readers_judge(v, src, a, e.msg, &why) < 0)
        fail_msg("%s", why.msg);
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

/* What serde_json makes of texts that ours reads otherwise. Checked against the originals themselves by
 * scripts/check_readers, whose list holds these. */
static const struct {
    const char *member; /* added to the fixture's metadata, in place of its own of that name */
    const char *want;   /* as above */
    const char *rule;
} members[] = {
    {"\"vocab_size\":4e0", "nnyynnyn", "metadata-type"}, /* an integer is one by its spelling */
    {"\"vocab_size\":4.0", "nnyynnyn", "metadata-type"},
    {"\"vocab_size\":-0", "nnyynnyn", "metadata-type"},
    {"\"vocab_size\":4", "yyyyyyyy", NULL},
    {"\"num_heads\":3", "yyyynnnn", "dimensions"},             /* of 256 */
    {"\"rope_theta\":10000", "yyyyyyyy", NULL},                /* and a float is any number */
    {"\"rope_type\":4294967296", "nnyynnyy", "metadata-type"}, /* u32 */
    {"\"total_size\":null", "nnyyyyyy", "metadata-type"}, /* no option; nor typed by realizar */
    {"\"total_size\":1152921504606846976", "yyyyyyyy", NULL},
    {"\"name\":null", "yyyyyyyy", NULL},
    {"\"hidden_size\":64,\"hidden_size\":64", "nyyynnyy", "metadata-type"},
    {"\"own\":1,\"own\":2", "yyyyyyyy", NULL},
    {"\"own\":{\"a\":1,\"a\":2}", "yyyyyyyy", NULL},
    {"\"own\":\"\\u0000\"", "yyyyyyyy", NULL},
    {"\"own\":\"\\ud800\"", "nnyynnyn", "metadata-json"},
    {"\"num_experts\":\"4\"", "ynyyynyy", "metadata-type"},
    {"\"norm_topk_prob\":1", "yyyyynyy", "metadata-empty-model"},
    {"\"quantization\":{\"quant_type\":\"x\",\"bits\":256,\"symmetric\":true}", "nnyyyyyy",
     "metadata-type"},
    {"\"quantization\":{\"quant_type\":\"x\",\"bits\":4,\"bits\":4,\"symmetric\":true}", "nyyyyyyy",
     "metadata-type"},
};

/* The fixture with that text as its metadata, behind all else. */
static void set_metadata(struct file *f, const char *text)
{
    size_t n = strlen(text);
    assert_true(n < 4096);
    memcpy(f->p + f->len, text, n);
    store_u64(f->p + 12, f->len);
    store_u32(f->p + 20, (uint32_t)n);
    f->len += n;
    seal(f);
}

/* The metadata of f with member instead of what has its name. */
static void replace_member(struct file *f, const char *member)
{
    char text[4096], name[64];
    size_t n = load_u32(f->p + 20), n_name = (size_t)(strchr(member, ':') - member);
    snprintf(name, sizeof name, ",%.*s:", (int)n_name, member);
    int len = snprintf(text, sizeof text, "{%s,%.*s", member, (int)n - 1, (char *)f->p + 65);
    assert_in_range(len, 1, (int)sizeof text - 1);
    char *old = strstr(text + 1, name), *end = old ? old + 1 + strcspn(old + 1, ",}") : NULL;
    if (old)
        memmove(old, end, strlen(end) + 1);
    set_metadata(f, text);
}

static void check_verdicts(struct file *f, const char *what, const char *want, const char *rule)
{
    struct reader_verdict v[N_READER];
    char got[N_READER] = {0};
    const char *first = NULL;
    judge(f, v);
    for (int k = 0; k < N_READER - 1; k++) {
        const struct reader_finding *no = reader_find(&v[k], READER_REFUSES);
        got[k] = no ? 'n' : 'y';
        first = first || !no ? first : no->rule->id;
    }
    if (strcmp(got, want) != 0 || (rule && strcmp(first, rule) != 0))
        fail_msg("%s: %s by %s, expected %s by %s", what, got, first, want, rule);
    readers_release(v);
}

static void readers_take_json_as_serde_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        struct file f = load("tests/data/aprender-writer.apr");
        replace_member(&f, members[i].member);
        check_verdicts(&f, members[i].member, members[i].want, members[i].rule);
        free(f.p);
    }
}

/* serde_json takes 127 brackets and not 128. */
static void readers_stop_where_serde_does(void **state)
{
    (void)state;
    for (int depth = 126; depth <= 127; depth++) { /* and the object around */
        struct file f = load("tests/data/aprender-writer.apr");
        char member[300] = "\"own\":";
        memset(member + 6, '[', (size_t)depth);
        memset(member + 6 + depth, ']', (size_t)depth);
        replace_member(&f, member);
        check_verdicts(&f, "depth", depth == 126 ? "yyyyyyyy" : "nnyynnyn",
                       depth == 126 ? NULL : "metadata-json");
        free(f.p);
    }
}

/* A tensor without a name they look for: a slip of the writer's, but in files of ours the model's own. */
static void readers_tell_names_from_architectures(void **state)
{
    (void)state;
    for (int ours = 0; ours < 2; ours++) {
        struct file f = load("tests/data/aprender-writer.apr");
        struct reader_verdict v[N_READER];
        char *at = memmem(f.p, f.len, "mlp.up_proj", 11);
        assert_non_null(at);
        at[5] = 'x'; /* the order stays */
        if (ours)
            replace_member(&f, "\"aprfs.profile\":\"native\"");
        judge(&f, v);
        for (int k = 0; k < N_READER; k++) {
            bool concerned = k == READER_QUANTIZED || k == READER_SERVE_MID;
            const struct reader_finding *no = reader_find(&v[k], READER_REFUSES),
                                        *not_run = reader_find(&v[k], READER_WONT_RUN),
                                        *said = ours ? not_run : no;
            assert_true(!concerned || (said && strstr(said->why, "blk.0.ffn_up.weight")));
            assert_true(!(ours ? no : not_run));
            assert_true(concerned || !said);
        }
        readers_release(v);
        free(f.p);
    }
}

/* A file that cannot be read is judged by nobody, whichever read fails. */
static void readers_judge_nothing_unread(void **state)
{
    (void)state;
    struct file f = load("tests/data/aprender-writer.apr");
    int n_fail = 0;
    for (int at = 0;; at++, n_fail++) {
        struct faulty fy = {.p = f.p, .len = f.len, .fail_at = at, .rc = -EIO};
        struct source *src = faulty_source(&fy, f.len, "x.apr");
        struct reader_verdict v[N_READER];
        struct err e = {0};
        int rc = readers_judge(v, src, NULL, "not opened", &e);
        source_close(src);
        if (fy.n_read <= at) {
            assert_int_equal(rc, 0);
            readers_release(v);
            break;
        }
        assert_int_equal(rc, -EIO);
        for (int k = 0; k < N_READER; k++)
            assert_true(v[k].n_found == 0 && v[k].n_wrong == 0 && !v[k].found && !v[k].wrong);
    }
    assert_int_equal(n_fail, 3); /* header, metadata, index */
    free(f.p);
}

/* Of equal names the first, in any order of the index: entries without dimensions, by hand. */
static void readers_find_the_first_of_equal_names(void **state)
{
    (void)state;
    static const char *const names[] = {"c", "b", "a", "b", "c", "b"};
    uint8_t p[512] = "APR";
    size_t at = 128;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++, at += 21) {
        store_u16(p + at, 1);
        p[at + 2] = (uint8_t)names[i][0];
        store_u64(p + at + 5, i); /* offset */
    }
    store_u32(p + 8, sizeof names / sizeof names[0]);
    store_u64(p + 12, 64);
    store_u64(p + 24, 128);
    store_u64(p + 32, at);
    struct raw_apr r;
    struct source *src = mem_source(p, sizeof p, "x.apr");
    assert_int_equal(raw_read(&r, src, NULL), 0);
    assert_true(r.unsorted);
    assert_int_equal(r.n_read, 6);
    assert_int_equal(raw_find(&r, "%s", "a")->off, 2);
    assert_int_equal(raw_find(&r, "%s", "b")->off, 1);
    assert_int_equal(raw_find(&r, "%s", "c")->off, 0);
    assert_null(raw_find(&r, "%s", "d"));
    raw_release(&r);
    source_close(src);
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

/* b as a .apr in profile strict: true if every reader accepts it and reads every tensor right; false:
 * strict does not carry it. */
static bool strict_is_read(const struct gguf_build *b, const char *what)
{
    struct made m;
    struct vapr_options opt = {.profile = VAPR_STRICT};
    struct vapr *v = NULL;
    struct source *src;
    struct apr *a;
    struct err e = {0};
    struct reader_verdict r[N_READER];
    made_open_ok(&m, b);
    int rc = vapr_new(&v, m.g, &opt, &e);
    if (rc == -ENOTSUP) {
        made_close(&m);
        return false;
    }
    if (rc < 0 || vapr_source(&src, v, &e) < 0 || apr_open(&a, src, &e) < 0 ||
        readers_judge(r, src, a, "", &e) < 0)
        fail_msg("%s: %s", what, e.msg);
    for (int k = 0; k < N_READER; k++) {
        const struct reader_finding *no = reader_find(&r[k], READER_REFUSES);
        if (no)
            fail_msg("%s: %s refuses: %s", what, r[k].name, no->why);
        if (r[k].n_wrong > 0)
            fail_msg("%s: %s misreads %s", what, r[k].name, r[k].wrong[0]);
    }
    readers_release(r);
    apr_close(a);
    source_close(src);
    vapr_free(v);
    made_close(&m);
    return true;
}

static void readers_accept_strict_files_of_every_architecture(void **state)
{
    (void)state;
    size_t n;
    struct arch_line *l = arch_lines(&n);
    assert_int_equal(n, 153);
    for (size_t i = 0; i < n; i++) {
        struct gguf_build *b = arch_case(&l[i]);
        if (!strict_is_read(b, l[i].name))
            fail_msg("%s: not carried", l[i].name);
        gguf_build_free(b);
    }
    arch_lines_free(l, n);
}

/* Weights, norms and embedding in each of GGUF's types: what strict carries is right everywhere. */
static void readers_accept_strict_files_of_every_type(void **state)
{
    (void)state;
    for (uint32_t id = 0; id <= QUANT_ID_MAX; id++) {
        const struct quant_type *q = quant_type(id);
        if (!q)
            continue;
        for (int norms = 0; norms < 2; norms++) {
            struct gguf_build_opt o = gguf_build_defaults(norms ? "qwen3" : "llama");
            o.n_embd = 256;
            o.n_ff = 512;
            o.type = id;
            o.norm_type = norms ? QUANT_F16 : QUANT_F32;
            o.qk_norm = norms;
            struct gguf_build *b = gguf_build_llama_like(norms ? "qwen3" : "llama", &o);
            /* vapr.h: what has a dequantiser is carried, but for F64, which F32 cannot hold */
            assert_int_equal(strict_is_read(b, q->name), q->f32 && id != QUANT_F64);
            gguf_build_free(b);
        }
    }
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
        cmocka_unit_test(readers_take_json_as_serde_does),
        cmocka_unit_test(readers_stop_where_serde_does),
        cmocka_unit_test(readers_tell_names_from_architectures),
        cmocka_unit_test(readers_judge_nothing_unread),
        cmocka_unit_test(readers_find_the_first_of_equal_names),
        cmocka_unit_test(readers_tell_dtypes_apart),
        cmocka_unit_test(readers_judge_every_cut),
        cmocka_unit_test(readers_accept_strict_files_of_every_architecture),
        cmocka_unit_test(readers_accept_strict_files_of_every_type),
        cmocka_unit_test(readers_rules_are_all_in_the_docs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
