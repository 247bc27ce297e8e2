/* Names: every row of the table in the design of stores, section 5, and what must hold of any
 * input. Expected names are worked out by hand from the rules in format/name.h; SHA-256 values come
 * from coreutils' sha256sum, named beside them. */
#include "format/name.h"
#include "tests/support.h"

#include <string.h>
#include <strings.h>

static const uint8_t id_a[NAME_ID_SIZE] = {0xa1, 0xb2, 0xc3, 0xd4, 0xe5};
static const uint8_t id_b[NAME_ID_SIZE] = {0x0b, 0x0b, 0x0b, 0x0b, 0x0b};

static void name_clean_rows(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } row[] = {
        {"Qwen2.5-0.5B-Instruct-Q4_K_M", "Qwen2.5-0.5B-Instruct-Q4_K_M"}, /* nothing to do */
        {"a b", "a_b"},
        {"a  b", "a_b"}, /* runs are one */
        {"a_ _b", "a_b"},
        {"a__b", "a_b"},
        {"a/b", "a_b"},
        {"a\nb\x7f", "a_b_"},
        {"\xc3\xa9t\xc3\xa9", "_t_"}, /* two bytes outside: one run */
        {".hidden", "_.hidden"},
        {"-rf", "_-rf"},
        {"name..", "name"},
        {"name._.", "name._"},
        {"", "_"},
        {".", "_"},
        {"..", "_"},
        {"...", "_"},
        {"/", "_"},
        {"a+b.c", "a+b.c"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char out[NAME_SIZE];
        name_clean(out, row[i].in, strlen(row[i].in), NULL);
        assert_string_equal(out, row[i].out);
    }
    char out[NAME_SIZE];
    name_clean(out, "a\0b", 3, NULL);
    assert_string_equal(out, "a_b");
}

static void name_clean_cuts_at_200(void **state)
{
    (void)state;
    char in[400], out[NAME_SIZE], expect[NAME_SIZE];
    memset(in, 'x', sizeof in);
    name_clean(out, in, 200, id_a);
    assert_int_equal(strlen(out), 200); /* the longest that stays */
    assert_int_equal(strspn(out, "x"), 200);
    name_clean(out, in, 201, id_a);
    memset(expect, 'x', 190);
    strcpy(expect + 190, "-a1b2c3d4");
    assert_string_equal(out, expect);
    /* Without an identity, that of the text: 201 times 'x'. Source: python3 -c
     * "print('x'*201,end='')" | sha256sum */
    name_clean(out, in, 201, NULL);
    strcpy(expect + 190, "-84a0678c");
    assert_string_equal(out, expect);
    /* Trailing dots do not count. */
    memset(in + 200, '.', 100);
    name_clean(out, in, 300, id_a);
    assert_int_equal(strlen(out), 200);
}

static void name_part_refuses(void **state)
{
    (void)state;
    assert_true(name_part_ok("library", 7));
    assert_true(name_part_ok("...", 3));
    assert_true(name_part_ok("\xc3\xa9", 2));
    assert_false(name_part_ok("", 0));
    assert_false(name_part_ok(".", 1));
    assert_false(name_part_ok("..", 2));
    assert_false(name_part_ok("a/b", 3));
    assert_false(name_part_ok("a\0b", 3));
    assert_false(name_part_ok("a\nb", 3));
    assert_false(name_part_ok("a\x7f", 2));
}

static void name_two_levels_rows(void **state)
{
    (void)state;
    static const struct {
        const char *dir, *publisher, *model;
    } row[] = {
        {"", "local", "Stem"}, {"a", "local", "a"},       {"a/b", "a", "b"},
        {"a/b/c", "a", "b+c"}, {"a/b/c/d", "a", "b+c+d"}, {"x y/.b", "x_y", "_.b"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char p[NAME_SIZE], m[NAME_SIZE];
        name_two_levels(p, m, row[i].dir, "Stem");
        assert_string_equal(p, row[i].publisher);
        assert_string_equal(m, row[i].model);
    }
}

static void name_bare_strips_suffixes(void **state)
{
    (void)state;
    static const struct {
        const char *file, *bare;
    } row[] = {
        {"a.gguf", "a"},
        {"a.GGUF", "a"},
        {"a", "a"},
        {"a.bin", "a.bin"},
        {"m-00001-of-00003.gguf", "m"},
        {"m-0001-of-00003.gguf", "m-0001-of-00003"},
        {"m-00001-of-00003", "m-00001-of-00003"}, /* no shard without its suffix */
        {"-00001-of-00003.gguf", "-00001-of-00003"},
        {".gguf", ""},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        assert_int_equal(name_bare_len(row[i].file), strlen(row[i].bare));
}

/* Source: llama_ftype of llama.h, 1 October 2026. */
static void name_file_type_is_llama_cpps(void **state)
{
    (void)state;
    assert_string_equal(name_file_type(0), "F32");
    assert_string_equal(name_file_type(3), "Q4_1");
    assert_string_equal(name_file_type(7), "Q8_0");
    assert_string_equal(name_file_type(15), "Q4_K_M");
    assert_string_equal(name_file_type(31), "IQ1_M");
    assert_string_equal(name_file_type(32), "BF16");
    assert_string_equal(name_file_type(38), "MXFP4_MOE");
    assert_string_equal(name_file_type(41), "Q2_0");
    assert_null(name_file_type(4));
    assert_null(name_file_type(33));
    assert_null(name_file_type(42));
    assert_null(name_file_type(UINT64_MAX));
}

static void name_stem_rules(void **state)
{
    (void)state;
    static const char hex64[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    static const struct {
        struct name_facts f;
        int rule;
        const char *stem;
    } row[] = {
        /* 1: a name that a person can read is left alone, whatever the metadata say */
        {{.file = "Qwen2.5-0.5B.Q4_K_M.gguf", .basename = "X", .quant = "Q8_0"},
         1,
         "Qwen2.5-0.5B.Q4_K_M"},
        {{.file = "m-00001-of-00003.gguf"}, 1, "m"},
        {{.file = "7b.gguf", .basename = "X"}, 1, "7b"},
        {{.file = "deadbee.gguf", .basename = "X"}, 1, "deadbee"}, /* seven digits: a name */
        {{.file = "my model (1).gguf"}, 1, "my_model_1_"},
        /* 2: not readable: hash, sha256-, generic */
        {{.file = hex64,
          .basename = "Qwen2.5",
          .size_label = "0.5B",
          .finetune = "Instruct",
          .quant = "Q4_K_M"},
         2,
         "Qwen2.5-0.5B-Instruct-Q4_K_M"},
        {{.file = "sha256-12.gguf", .basename = "B", .version = "v1"}, 2, "B-v1"},
        {{.file = "deadbeef.gguf", .basename = "X"}, 2, "X"},
        {{.file = "model.gguf", .basename = "X"}, 2, "X"},
        {{.file = "MODEL.gguf", .basename = "X"}, 2, "X"},
        {{.file = "gguf", .basename = "X"}, 2, "X"},
        {{.file = "ggml-model-q4_0.gguf", .basename = "X", .quant = "Q4_0"}, 2, "X-Q4_0"},
        {{.file = "unsloth.Q4_K_M.gguf", .basename = "X", .quant = "Q4_K_M"}, 2, "X-Q4_K_M"},
        {{.file = "unsloth.UD-IQ1_S.gguf", .basename = "X"}, 2, "X"},
        {{.file = "unsloth.llama.gguf", .basename = "X"}, 1, "unsloth.llama"},
        {{.file = NULL, .basename = "X"}, 2, "X"},
        /* the name for a missing basename; no part twice; words, not parts of words */
        {{.file = "model.gguf",
          .name = "Qwen2.5 0.5B Instruct",
          .size_label = "0.5B",
          .finetune = "Instruct",
          .quant = "Q8_0"},
         2,
         "Qwen2.5-0.5B-Instruct-Q8_0"},
        {{.file = "model.gguf", .basename = "M-10.5B", .size_label = "5B"}, 2, "M-10.5B-5B"},
        {{.file = "model.gguf", .name = "Org/Model"}, 2, "Org-Model"},
        {{.file = "model.gguf", .basename = "X-q4_k_m", .quant = "Q4_K_M"}, 2, "X-q4_k_m"},
        /* 3: directory, then tag */
        {{.file = hex64, .model_dir = "qwen2.5", .tag = "0.5b"}, 3, "qwen2.5-0.5b"},
        {{.file = "model.gguf", .model_dir = "Phi", .quant = "F16"}, 3, "Phi-F16"},
        {{.file = "model.gguf", .basename = "\xe6\x97\xa5", .model_dir = "Phi"}, 3, "Phi"},
        /* 4: nothing else says anything */
        {{.file = "model.gguf", .quant = "F16"}, 4, "model"},
        {{.file = "\xe6\x97\xa5.gguf"}, 4, "_"},
        {{.file = NULL}, 4, "_"},
        /* a stem must not look like a shard's */
        {{.file = "model.gguf", .basename = "x-00001-of-00002"}, 2, "x-00001-of-00002_"},
        /* chat_hint */
        {{.file = "m.gguf", .chat_hint = true, .has_chat_template = true}, 1, "m-Instruct"},
        {{.file = "m.gguf", .has_chat_template = true}, 1, "m"},
        {{.file = "m.gguf", .chat_hint = true}, 1, "m"},
        {{.file = "m-chat.gguf", .chat_hint = true, .has_chat_template = true}, 1, "m-chat"},
        {{.file = "mInstruct.gguf", .chat_hint = true, .has_chat_template = true}, 1, "mInstruct"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct name_facts f = row[i].f;
        char stem[NAME_SIZE];
        f.id = id_a;
        int rule = name_stem(stem, &f);
        assert_string_equal(stem, row[i].stem);
        assert_int_equal(rule, row[i].rule);
    }
}

static void name_stem_of_long_parts_stays_short(void **state)
{
    (void)state;
    char huge[5000], stem[NAME_SIZE];
    memset(huge, 'h', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    struct name_facts f = {.basename = huge,
                           .size_label = huge + 1,
                           .finetune = huge + 2,
                           .version = huge + 3,
                           .quant = "Q4_K_M",
                           .id = id_a};
    assert_int_equal(name_stem(stem, &f), 2);
    assert_int_equal(strlen(stem), 199);
    assert_string_equal(stem + 190, "-a1b2c3d4");
}

static struct name_claim claim(const char *pub, const char *model, const char *stem,
                               const char *order, const uint8_t *id, const uint8_t *sibling)
{
    struct name_claim c = {.order = order, .id = id, .sibling = sibling};
    strcpy(c.publisher, pub);
    strcpy(c.model, model);
    strcpy(c.stem, stem);
    return c;
}

static void name_collision_ignores_case(void **state)
{
    (void)state;
    struct name_claim c[] = {
        claim("p", "m", "model", "p/m/model.gguf", id_b, NULL),
        claim("p", "m", "Model", "p/m/Model.gguf", id_a, NULL),
        claim("p", "n", "model", "p/n/model.gguf", id_b, NULL),
    };
    assert_int_equal(name_settle(c, 3, NULL), 0);
    assert_string_equal(c[1].stem, "Model"); /* 'M' sorts before 'm' */
    assert_string_equal(c[0].stem, "model-0b0b0b0b");
    assert_string_equal(c[2].stem, "model"); /* another directory */
}

static void name_collision_with_a_digest_counts_on(void **state)
{
    (void)state;
    struct name_claim c[] = {
        claim("p", "m", "x", "1", id_a, NULL), claim("p", "m", "X", "2", id_b, NULL),
        claim("p", "m", "x", "3", id_b, NULL),          /* same header, other file */
        claim("p", "m", "X-0B0B0B0B", "4", id_a, NULL), /* a name that somebody really chose */
    };
    assert_int_equal(name_settle(c, 4, NULL), 0);
    assert_string_equal(c[0].stem, "x");
    assert_string_equal(c[3].stem, "X-0B0B0B0B");
    assert_string_equal(c[1].stem, "X-0b0b0b0b-2");
    assert_string_equal(c[2].stem, "x-0b0b0b0b-3");
}

static void name_directories_fold_case(void **state)
{
    (void)state;
    struct name_claim c[] = {
        claim("Org", "Model", "a", "1", id_a, NULL),
        claim("org", "model", "b", "2", id_a, NULL),
        claim("org", "Model", "A", "3", id_b, NULL),
    };
    assert_int_equal(name_settle(c, 3, NULL), 0);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(c[i].publisher, "Org");
        assert_string_equal(c[i].model, "Model");
    }
    assert_string_equal(c[0].stem, "a");
    assert_string_equal(c[1].stem, "b");
    assert_string_equal(c[2].stem, "A-0b0b0b0b");
}

static void name_siblings_that_differ_part(void **state)
{
    (void)state;
    static const uint8_t s1[NAME_ID_SIZE] = {0x11, 0x11, 0x11, 0x11};
    static const uint8_t s2[NAME_ID_SIZE] = {0x22, 0x22, 0x22, 0x22};
    struct name_claim c[] = {
        claim("p", "m", "b-Q4", "1", id_a, s2),
        claim("p", "m", "b-Q8", "2", id_b, s2), /* shares with the one before */
        claim("p", "m", "a-Q4", "3", id_a, s1), /* first in byte order of stems: stays */
        claim("p", "m", "mmproj-a", "4", id_b, NULL),
    };
    assert_int_equal(name_settle(c, 4, NULL), 0);
    assert_string_equal(c[2].model, "m");
    assert_string_equal(c[0].model, "m-22222222");
    assert_string_equal(c[1].model, "m-22222222");
    assert_string_equal(c[3].model, "m");
}

static void name_moved_directory_meets_another(void **state)
{
    (void)state;
    static const uint8_t s1[NAME_ID_SIZE] = {0x11, 0x11, 0x11, 0x11};
    static const uint8_t s2[NAME_ID_SIZE] = {0x22, 0x22, 0x22, 0x22};
    struct name_claim c[] = {
        claim("p", "m", "a", "1", id_a, s1),
        claim("p", "m", "b", "2", id_a, s2),          /* wants m-22222222 */
        claim("p", "M-22222222", "c", "3", id_a, s1), /* which is taken, by other siblings */
    };
    assert_int_equal(name_settle(c, 3, NULL), 0);
    assert_string_equal(c[0].model, "m");
    assert_string_equal(c[2].model, "M-22222222");
    assert_string_equal(c[1].model, "m-22222222-2");
}

/* Whatever order the claims come in, each gets the same name; and all are unique without case. */
static void name_settle_ignores_order(void **state)
{
    (void)state;
    enum { N = 60 };
    static char order[N][12];
    static uint8_t id[4][NAME_ID_SIZE];
    struct rng r;
    rng_init(&r, test_seed());
    struct name_claim first[N], again[N];
    for (int i = 0; i < 4; i++)
        memset(id[i], 17 * i + 1, NAME_ID_SIZE);
    for (int i = 0; i < N; i++) {
        static const char *const word[] = {"a", "A", "b", "a-01010101", "A-12121212-2"};
        snprintf(order[i], sizeof order[i], "%d", i);
        first[i] = claim(word[rng_below(&r, 2)], word[rng_below(&r, 5)], word[rng_below(&r, 5)],
                         order[i], id[rng_below(&r, 4)], id[rng_below(&r, 4)]);
    }
    int perm[N];
    for (int i = 0; i < N; i++)
        perm[i] = i;
    for (int i = N - 1; i > 0; i--) {
        int k = (int)rng_below(&r, (uint64_t)i + 1), t = perm[i];
        perm[i] = perm[k];
        perm[k] = t;
    }
    for (int i = 0; i < N; i++)
        again[i] = first[perm[i]];
    assert_int_equal(name_settle(first, N, NULL), 0);
    assert_int_equal(name_settle(again, N, NULL), 0);
    for (int i = 0; i < N; i++) {
        assert_string_equal(again[i].publisher, first[perm[i]].publisher);
        assert_string_equal(again[i].model, first[perm[i]].model);
        assert_string_equal(again[i].stem, first[perm[i]].stem);
        for (int k = 0; k < i; k++) {
            bool dir = !strcasecmp(first[i].publisher, first[k].publisher) &&
                       !strcasecmp(first[i].model, first[k].model);
            assert_false(dir && !strcasecmp(first[i].stem, first[k].stem));
            assert_false(dir && memcmp(first[i].sibling, first[k].sibling, NAME_ID_SIZE));
        }
    }
}

static void name_inode_is_stable(void **state)
{
    (void)state;
    /* Source: printf 'a/b/c.apr\0' | cat - <(head -c 32 /dev/zero) | sha256sum, first eight bytes
     * little-endian, without the top bit. */
    static const uint8_t zero[NAME_ID_SIZE];
    assert_int_equal(name_inode("a/b/c.apr", zero), UINT64_C(0x235908312fc9ecc9));
    assert_int_equal(name_inode("a/b", NULL), UINT64_C(0x4a3a0fbf17ed5bc8));
    assert_int_not_equal(name_inode("a/b/c.apr", id_a), name_inode("a/b/c.apr", id_b));
    assert_true(name_inode("x", NULL) < UINT64_C(1) << 63);
}

static void name_escape_keeps_one_line(void **state)
{
    (void)state;
    /* U+009B begins a terminal's command as ESC [ does; U+00A0 is no control. */
    char *s = name_escape("/a b\n\\\x7f\xc3\xa9\xc2\x9bJ\xc2\xa0\xc2");
    assert_string_equal(s, "/a b\\012\\134\\177\xc3\xa9\\302\\233J\xc2\xa0\xc2");
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(name_clean_rows),
        cmocka_unit_test(name_clean_cuts_at_200),
        cmocka_unit_test(name_part_refuses),
        cmocka_unit_test(name_two_levels_rows),
        cmocka_unit_test(name_bare_strips_suffixes),
        cmocka_unit_test(name_file_type_is_llama_cpps),
        cmocka_unit_test(name_stem_rules),
        cmocka_unit_test(name_stem_of_long_parts_stays_short),
        cmocka_unit_test(name_collision_ignores_case),
        cmocka_unit_test(name_collision_with_a_digest_counts_on),
        cmocka_unit_test(name_directories_fold_case),
        cmocka_unit_test(name_siblings_that_differ_part),
        cmocka_unit_test(name_moved_directory_meets_another),
        cmocka_unit_test(name_settle_ignores_order),
        cmocka_unit_test(name_inode_is_stable),
        cmocka_unit_test(name_escape_keeps_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
