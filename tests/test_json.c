/* json.h: the reading rules that cJSON does not keep, and the writer. Expected values: RFC 8259
 * (grammar), Unicode 15 table 3-7 (UTF-8), IEEE 754 constants of <float.h>, or the rule in json.h.
 */
#include "format/json.h"

#include "tests/support.h"

#include <errno.h>
#include <float.h>
#include <locale.h>
#include <math.h>

static cJSON *parse_ok(const char *p, size_t len)
{
    cJSON *v = NULL;
    struct err e = {0};
    int rc = json_parse(&v, p, len, &e);
    if (rc < 0)
        fail_msg("%.60s: %s", p, e.msg);
    return v;
}

#define PARSE(s) parse_ok("" s, sizeof s - 1)

static void json_parse_reads_values(void **state)
{
    (void)state;
    cJSON *v =
        PARSE(" {\"a\" : [1, -2.5e1, true,false, null, {}, []],\t\"b\":\"x\\u00e9\\n\\\"\"}\r\n");
    const cJSON *a = json_get(v, "a");
    int64_t i;
    double d;
    bool b;
    assert_int_equal(cJSON_GetArraySize(a), 7);
    assert_true(json_int(cJSON_GetArrayItem(a, 0), &i) && i == 1);
    assert_true(json_num(cJSON_GetArrayItem(a, 1), &d) && d == -25.0);
    assert_true(json_bool(cJSON_GetArrayItem(a, 2), &b) && b);
    assert_true(json_bool(cJSON_GetArrayItem(a, 3), &b) && !b);
    assert_string_equal(json_text(json_get(v, "b")), "x\xc3\xa9\n\"");
    assert_null(json_get(v, "B")); /* case matters */
    assert_null(json_get(a, "a"));
    assert_null(json_get(NULL, "a"));
    assert_null(json_text(a));
    cJSON_Delete(v);
}

static void json_parse_takes_surrogate_pairs(void **state)
{
    (void)state;
    cJSON *v = PARSE("\"\\ud83d\\uDE00\""); /* U+1F600 */
    assert_string_equal(json_text(v), "\xf0\x9f\x98\x80");
    cJSON_Delete(v);
}

/* Every text is malformed by RFC 8259 or by the rules of json.h; at is the byte the message names.
 */
static void json_parse_refuses_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t at;
        const char *says;
    } bad[] = {
        {"", 0, "ended"},
        {"  ", 2, "ended"},
        {"{", 1, "no key"},
        {"[", 1, "ended"},
        {"[1", 2, "no ','"},
        {"[1,]", 3, "no value"},
        {"{\"a\":1,}", 7, "no key"},
        {"{\"a\" 1}", 5, "no colon"},
        {"{\"a\":1", 6, "no ','"}, /* cJSON 1.7.15 reads past this one */
        {"{a:1}", 1, "no key"},
        {"[1}", 2, "']'"},
        {"{\"a\":1]", 6, "'}'"},
        {"1 2", 2, "after"},
        {"{}x", 2, "after"},
        {"[01]", 2, "no ','"},
        {"[+1]", 1, "no value"},
        {"[1.]", 1, "point"},
        {"[.5]", 1, "no value"},
        {"[1e]", 1, "exponent"},
        {"[1e+]", 1, "exponent"},
        {"[1e999]", 1, "too large"},
        {"[-]", 1, "no value"},
        {"[NaN]", 1, "no value"},
        {"[nul]", 1, "no value"},
        {"[tru", 1, "no value"},
        {"\xef\xbb\xbf{}", 0, "no value"}, /* byte order mark */
        {"[1\v]", 2, "no ','"},
        {"\"a", 0, "without an end"},
        {"\"a\\", 0, "without an end"},
        {"\"\\x41\"", 1, "escape"},
        {"\"\\u12g4\"", 1, "hexadecimal"},
        {"\"\\u12", 1, "hexadecimal"},
        {"\"\\u0000\"", 1, "u0000"},
        {"\"\\ud83d\"", 1, "surrogate"},
        {"\"\\ud83d\\u0041\"", 1, "surrogate"},
        {"\"\\ude00\"", 1, "surrogate"},
        {"\"a\tb\"", 2, "control"},
        {"\"\x80\"", 1, "UTF-8"},
        {"\"\xc0\xaf\"", 1, "UTF-8"},         /* overlong */
        {"\"\xe0\x80\xaf\"", 1, "UTF-8"},     /* overlong */
        {"\"\xed\xa0\x80\"", 1, "UTF-8"},     /* surrogate */
        {"\"\xf4\x90\x80\x80\"", 1, "UTF-8"}, /* past U+10FFFF */
        {"\"\xf0\x9f\x98\"", 1, "UTF-8"},     /* cut short by the quote */
        {"{\"a\":1,\"b\":2,\"a\":3}", 13, "twice"},
        {"{\"k\":[{\"x\":0},{\"y\":{\"z\":1,\"\\u007a\":2}}]}", 26, "twice"}, /* z by escape */
        {"[1111111111222222222233333333334444444444555555555566666666667777]", 1, "63"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cJSON *v = NULL;
        struct err e = {0};
        char at[32];
        snprintf(at, sizeof at, "byte %zu:", bad[i].at);
        assert_int_equal(json_parse(&v, bad[i].text, strlen(bad[i].text), &e), -EUCLEAN);
        if (v || !strstr(e.msg, at) || !strstr(e.msg, bad[i].says))
            fail_msg("%s: got '%s', expected '%s ... %s'", bad[i].text, e.msg, at, bad[i].says);
    }
}

static void json_parse_refuses_nul_byte(void **state)
{
    (void)state;
    cJSON *v = NULL;
    struct err e = {0};
    assert_int_equal(json_parse(&v, "[1]\0", 4, &e), -EUCLEAN);
    assert_int_equal(json_parse(&v, "\"a\0b\"", 5, &e), -EUCLEAN);
    assert_null(v);
}

/* The text ends where an allocation of its exact size ends: ASan sees every byte read beyond. */
static void json_parse_never_reads_past_any_cut(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\":[1.5e3,true,null,\"\\ud83d\\ude00\xc3\xa9\"],\"b\":{\"c\":-0}}";
    for (size_t n = 0; n < sizeof text - 1; n++) {
        char *p = malloc(n ? n : 1);
        cJSON *v = NULL;
        memcpy(p, text, n);
        assert_int_equal(json_parse(&v, p, n, NULL), -EUCLEAN);
        free(p);
    }
    char *p = malloc(sizeof text - 1);
    memcpy(p, text, sizeof text - 1);
    cJSON_Delete(parse_ok(p, sizeof text - 1));
    free(p);
}

static void json_parse_limits_depth_to_64(void **state)
{
    (void)state;
    char text[2 * 65 + 1];
    for (size_t depth = 64; depth <= 65; depth++) {
        cJSON *v = NULL;
        struct err e = {0};
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_int_equal(json_parse(&v, text, 2 * depth, &e), depth == 64 ? 0 : -EUCLEAN);
        if (depth == 65)
            assert_non_null(strstr(e.msg, "byte 64: nested"));
        cJSON_Delete(v);
    }
}

/* 150,000 members, the last two equal: quadratic comparison would take minutes of CPU (1e10
 * strcmp), so that a fall back to it shows as a hang of the suite, not as a number. */
static void json_parse_finds_duplicate_among_many(void **state)
{
    (void)state;
    struct json_out o;
    json_out_init(&o);
    json_open(&o, '{');
    char key[32];
    for (int i = 0; i < 150000; i++) {
        snprintf(key, sizeof key, "<extra_id_%d>", i);
        json_key(&o, key);
        json_put_u64(&o, (uint64_t)i);
    }
    json_key(&o, "<extra_id_7>");
    json_put_null(&o);
    json_close(&o, '}');
    assert_int_equal(o.rc, 0);
    cJSON *v = NULL;
    struct err e = {0};
    assert_int_equal(json_parse(&v, o.p, o.len, &e), -EUCLEAN);
    assert_non_null(strstr(e.msg, "'<extra_id_7>' stands twice"));
    json_out_release(&o);
}

/* A value takes two bytes of text and 80 of memory: their number is bounded, not only the text. */
static void json_parse_bounds_the_number_of_values(void **state)
{
    (void)state;
    size_t n = JSON_MAX_VALUES, len = 2 * n + 1; /* the array itself is a value, too */
    char *p = malloc(len);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        memcpy(p + 2 * i, ",0", 2);
    p[0] = '[';
    p[len - 1] = ']';
    cJSON *v = NULL;
    struct err e = {0};
    assert_int_equal(json_parse(&v, p, len, &e), -ERANGE);
    assert_non_null(strstr(e.msg, "more than 16777216 values"));
    assert_null(v);
    free(p);
}

static void json_int_refuses_what_is_not_one(void **state)
{
    (void)state;
    cJSON *v = PARSE("[1.5, 9007199254740991, 9007199254740993, -9007199254740991, -1, \"1\", 1e3, "
                     "9007199254740992, -9007199254740993]");
    int64_t i;
    uint64_t u;
    assert_false(json_int(cJSON_GetArrayItem(v, 0), &i));
    assert_true(json_int(cJSON_GetArrayItem(v, 1), &i) && i == INT64_C(9007199254740991));
    assert_false(json_int(cJSON_GetArrayItem(v, 2), &i)); /* reads as ...992, as does ...992 */
    assert_true(json_int(cJSON_GetArrayItem(v, 3), &i) && i == -INT64_C(9007199254740991));
    assert_false(json_int(cJSON_GetArrayItem(v, 7), &i));
    assert_false(json_int(cJSON_GetArrayItem(v, 8), &i));
    assert_false(json_uint(cJSON_GetArrayItem(v, 4), &u));
    assert_false(json_int(cJSON_GetArrayItem(v, 5), &i));
    assert_true(json_uint(cJSON_GetArrayItem(v, 6), &u) && u == 1000);
    assert_false(json_int(NULL, &i));
    cJSON_Delete(v);
}

static void expect_text(struct json_out *o, const char *want)
{
    assert_int_equal(o->rc, 0);
    assert_int_equal(o->len, strlen(want));
    assert_memory_equal(o->p, want, o->len);
    json_out_release(o);
}

static void json_out_places_commas(void **state)
{
    (void)state;
    struct json_out o;
    json_out_init(&o);
    json_open(&o, '{');
    json_key(&o, "a");
    json_put_u64(&o, UINT64_MAX);
    json_key(&o, "b");
    json_open(&o, '[');
    json_put_i64(&o, INT64_MIN);
    json_open(&o, '[');
    json_close(&o, ']');
    json_put_bool(&o, true);
    json_open(&o, '{');
    json_close(&o, '}');
    json_put_null(&o);
    json_put_raw(&o, "[1,\"y\"]");
    json_close(&o, ']');
    json_key(&o, "c");
    json_put_cstr(&o, "x");
    json_close(&o, '}');
    expect_text(
        &o, "{\"a\":18446744073709551615,\"b\":[-9223372036854775808,[],true,{},null,[1,\"y\"]],"
            "\"c\":\"x\"}");
}

static void json_out_refuses_misuse(void **state)
{
    (void)state;
    for (int kind = 0; kind < 7; kind++) {
        struct json_out o;
        json_out_init(&o);
        json_open(&o, kind < 4 ? '{' : '[');
        switch (kind) {
        case 0: /* a value where a key must stand */
            json_put_u64(&o, 1);
            break;
        case 1: /* a key without a value */
            json_key(&o, "a");
            json_close(&o, '}');
            break;
        case 2: /* two keys */
            json_key(&o, "a");
            json_key(&o, "b");
            break;
        case 3: /* the wrong bracket */
            json_close(&o, ']');
            break;
        case 4: /* a key in an array */
            json_key(&o, "a");
            break;
        case 5: /* a second outermost value */
            json_close(&o, ']');
            json_put_null(&o);
            break;
        case 6: /* too deep */
            for (int i = 0; i < JSON_MAX_DEPTH; i++)
                json_open(&o, '[');
            break;
        }
        assert_int_equal(o.rc, -EINVAL);
        size_t len = o.len;
        json_put_cstr(&o, "later");
        assert_int_equal(o.len, len);
        json_out_release(&o);
    }
}

static void json_out_stops_at_max(void **state)
{
    (void)state;
    for (size_t max = 9; max <= 10; max++) { /* ["abcdef"] takes 10 */
        struct json_out o;
        json_out_init(&o);
        o.max = max;
        json_open(&o, '[');
        json_put_cstr(&o, "abcdef");
        json_close(&o, ']');
        assert_int_equal(o.rc, max == 10 ? 0 : -ERANGE);
        assert_true(o.len <= max);
        json_out_release(&o);
    }
}

static void json_put_str_escapes(void **state)
{
    (void)state;
    struct json_out o;
    json_out_init(&o);
    assert_true(json_put_str(&o, "\"\\\b\f\n\r\t\x01\x1f\x7f/\xc4\xa0", 13));
    expect_text(&o, "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7f/\xc4\xa0\"");
    json_out_init(&o);
    assert_true(json_put_str(&o, "a\0b", 3));
    expect_text(&o, "\"a\\u0000b\"");
    json_out_init(&o);
    assert_false(json_put_str(&o,
                              "a\xff"
                              "b\xe2\x82",
                              5)); /* one U+FFFD per bad byte */
    expect_text(&o, "\"a\xef\xbf\xbd"
                    "b\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void expect_f32(float v, const char *want)
{
    struct json_out o;
    json_out_init(&o);
    json_put_f32(&o, v);
    expect_text(&o, want);
}

static void json_put_f32_is_shortest(void **state)
{
    (void)state;
    expect_f32(1e-5f, "1e-05");
    expect_f32(0.1f, "0.1");
    expect_f32(10000.0f, "10000");
    expect_f32(1e6f, "1e+06");
    expect_f32(-0.0f, "-0");
    expect_f32(0.0f, "0");
    expect_f32(-123.0f, "-123");
    expect_f32(16777216.0f, "16777216"); /* 2^24 */
    expect_f32(FLT_MAX, "3.4028235e+38");
    expect_f32(FLT_TRUE_MIN, "1.4013e-45");
    expect_f32(INFINITY, "null");
    expect_f32(NAN, "null");
}

/* Every readable text must give the same float, whether the reader knows f32 or only f64. */
static void json_put_f32_reads_back(void **state)
{
    (void)state;
    uint32_t x = 1;
    for (int i = 0; i < 200000; i++) {
        x = x * 1664525u + 1013904223u; /* Numerical Recipes' generator */
        float f;
        memcpy(&f, &x, sizeof f);
        if (!isfinite(f))
            continue;
        struct json_out o;
        json_out_init(&o);
        json_put_f32(&o, f);
        char buf[40];
        assert_true(o.rc == 0 && o.len < sizeof buf);
        memcpy(buf, o.p, o.len);
        buf[o.len] = 0;
        float a = strtof(buf, NULL), b = (float)strtod(buf, NULL);
        if (memcmp(&a, &f, sizeof f) != 0 || memcmp(&b, &f, sizeof f) != 0)
            fail_msg("%08x -> %s", x, buf);
        json_out_release(&o);
    }
}

static void json_put_f64_reads_back(void **state)
{
    (void)state;
    static const double v[] = {0.1,      1.0 / 3, DBL_MAX, DBL_TRUE_MIN, 1e-6, 9.999999747378752e-6,
                               1e15 + 1, 1e22,    -0.0};
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        struct json_out o;
        json_out_init(&o);
        json_put_f64(&o, v[i]);
        cJSON *j = parse_ok(o.p, o.len);
        double d;
        assert_true(json_num(j, &d));
        assert_memory_equal(&d, &v[i], sizeof d);
        cJSON_Delete(j);
        json_out_release(&o);
    }
}

/* A locale with a decimal comma must change neither side. */
static void json_ignores_locale(void **state)
{
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    const char *got = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !got; i++)
        got = setlocale(LC_ALL, names[i]);
    if (!got)
        skip_because("no locale with a decimal comma is installed");
    struct json_out o;
    json_out_init(&o);
    json_put_f32(&o, 2.5f);
    cJSON *v = parse_ok("2.5", 3);
    setlocale(LC_ALL, "C");
    double d;
    assert_true(json_num(v, &d) && d == 2.5);
    cJSON_Delete(v);
    expect_text(&o, "2.5");
}

static void json_utf8_valid_follows_table_3_7(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        bool ok;
    } t[] = {
        {"", true},
        {"a\xc2\x80\xdf\xbf", true},
        {"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf", true},
        {"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", true},
        {"\xc1\xbf", false},
        {"\xe0\x9f\xbf", false},
        {"\xf0\x8f\xbf\xbf", false},
        {"\xf5\x80\x80\x80", false},
        {"\xe2\x82", false},
        {"\xe2\x28\xa1", false},
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        assert_int_equal(json_utf8_valid(t[i].s, strlen(t[i].s)), t[i].ok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_parse_reads_values),
        cmocka_unit_test(json_parse_takes_surrogate_pairs),
        cmocka_unit_test(json_parse_refuses_by_name),
        cmocka_unit_test(json_parse_refuses_nul_byte),
        cmocka_unit_test(json_parse_never_reads_past_any_cut),
        cmocka_unit_test(json_parse_limits_depth_to_64),
        cmocka_unit_test(json_parse_finds_duplicate_among_many),
        cmocka_unit_test(json_parse_bounds_the_number_of_values),
        cmocka_unit_test(json_int_refuses_what_is_not_one),
        cmocka_unit_test(json_out_places_commas),
        cmocka_unit_test(json_out_refuses_misuse),
        cmocka_unit_test(json_out_stops_at_max),
        cmocka_unit_test(json_put_str_escapes),
        cmocka_unit_test(json_put_f32_is_shortest),
        cmocka_unit_test(json_put_f32_reads_back),
        cmocka_unit_test(json_put_f64_reads_back),
        cmocka_unit_test(json_ignores_locale),
        cmocka_unit_test(json_utf8_valid_follows_table_3_7),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
