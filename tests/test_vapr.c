/* vapr.h case by case: head, aliases, profiles, refusals; reading is test_vapr_read.c's, random layouts
 * are test_vapr_layout.c's. Sources of expectations stand beside them; "APR v2" is the
 * specification of the container (what each Rust reader does with it). */
#include "tests/vapr_support.h"

#include "format/bytes.h"
#include "format/crc32.h"
#include "format/json.h"

#include <errno.h>
#include <inttypes.h>

/* The metadata of the head, parsed. */
static cJSON *meta_of(const struct vapr *v)
{
    size_t len;
    const uint8_t *h = vapr_head(v, &len);
    cJSON *meta = NULL;
    struct err e = {0};
    if (json_parse(&meta, (const char *)h + 64, load_u32(h + 20), &e) < 0)
        fail_msg("%s", e.msg);
    return meta;
}

/* --- the converter's file as a witness --- */

/* Names, shapes, types and bytes of every tensor equal those of the APR that realizar's own
 * converter made of the same GGUF. */
static void vapr_new_agrees_with_original_converter(void **state)
{
    (void)state;
    struct gguf *g = NULL;
    struct source *s = NULL;
    struct apr *a = NULL;
    struct err e = {0};
    if (gguf_open_path(&g, "tests/data/q4k-converter-input.gguf", &e) < 0 ||
        source_open(&s, "tests/data/q4k-converter-output.apr", &e) < 0 || apr_open(&a, s, &e) < 0)
        fail_msg("%s", e.msg);
    for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++) {
        struct vapr *v = vapr_ok(g, (enum vapr_profile)p);
        uint8_t *whole = vapr_bytes(v);
        assert_int_equal(vapr_n_tensor(v), apr_n_tensor(a));
        for (size_t i = 0; i < apr_n_tensor(a); i++) {
            const struct apr_tensor *t = apr_tensor(a, i);
            const struct vapr_tensor *w = vapr_tensor(v, i);
            assert_string_equal(t->name, w->name);
            assert_int_equal(t->dtype, w->dtype);
            assert_int_equal(t->n_dim, w->n_dim);
            assert_memory_equal(t->dim, w->dim, sizeof w->dim);
            assert_int_equal(t->size, w->size);
            uint8_t *bytes = malloc(t->size);
            assert_int_equal(source_read(s, bytes, t->off, t->size, NULL), 0);
            assert_memory_equal(bytes, whole + w->off, t->size);
            free(bytes);
        }
        free(whole);
        vapr_free(v);
    }
    apr_close(a);
    source_close(s);
    gguf_close(g);
}

/* --- head --- */

static void vapr_head_follows_byte_table(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.type = 8;
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_NATIVE);
    size_t len;
    const uint8_t *h = vapr_head(v, &len);
    assert_memory_equal(h, "APR\0\2\0", 6);
    assert_int_equal(load_u16(h + 6), 0x0620); /* row-major, quantised, vocabulary: APR v2, 2.1 */
    assert_int_equal(load_u32(h + 8), vapr_n_tensor(v));
    assert_int_equal(load_u64(h + 12), 64);
    uint64_t index = 64 + (load_u32(h + 20) + 63) / 64 * 64;
    assert_int_equal(load_u64(h + 24), index);
    assert_int_equal(load_u64(h + 32), vapr_data_offset(v));
    assert_int_equal(load_u32(h + 40), crc32_apr_header(h));
    for (int i = 44; i < 64; i++)
        assert_int_equal(h[i], 0);
    assert_int_equal(len % 64, 0);
    assert_true(index < len && len <= vapr_data_offset(v));
    assert_true(vapr_data_offset(v) - len < 65536);
    cJSON *meta = meta_of(v);
    uint64_t builder;
    assert_string_equal(json_text(json_get(meta, "aprfs.profile")), "native");
    assert_string_equal(json_text(json_get(meta, "aprfs.values")), "reference");
    assert_true(json_uint(json_get(meta, "aprfs.builder"), &builder) && builder == VAPR_BUILDER);
    assert_null(json_get(meta, "aprfs.raw"));
    assert_null(json_get(meta, "aprfs.alias"));
    cJSON_Delete(meta);
    vapr_free(v);
    made_close(&m);
    /* All F32 and without a vocabulary: neither bit. */
    gguf_build_free(b);
    o.type = 0;
    o.tok = GGUF_BUILD_TOK_NONE;
    o.n_vocab = 40;
    b = gguf_build_llama_like("llama", &o);
    made_open_ok(&m, b);
    v = vapr_ok(m.g, VAPR_NATIVE);
    assert_int_equal(load_u16(vapr_head(v, &len) + 6), 0x0400);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* A vocabulary: keys, no tensors. Found by the fuzzer: sorting nothing must not pass NULL on. */
static void vapr_new_plans_file_without_tensors(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "llama");
    for (int footer = 0; footer < 2; footer++) {
        struct made m;
        made_open_ok(&m, b);
        for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++) {
            struct vapr_options opt = {.profile = (enum vapr_profile)p,
                                       .footer = footer ? VAPR_FOOTER_CRC : VAPR_FOOTER_NONE};
            struct vapr *v = NULL;
            struct source *s = NULL;
            struct apr *a = NULL;
            struct err e = {0};
            if (vapr_new(&v, m.g, &opt, &e) < 0 || vapr_source(&s, v, &e) < 0 ||
                apr_open(&a, s, &e) < 0)
                fail_msg("%s", e.msg);
            assert_int_equal(apr_n_tensor(a), 0);
            uint8_t *whole = vapr_bytes(v);
            if (footer)
                assert_int_equal(load_u32(whole + vapr_size(v) - 4),
                                 crc32_update(0, whole, vapr_size(v) - 4));
            free(whole);
            apr_close(a);
            source_close(s);
            vapr_free(v);
        }
        made_close(&m);
    }
    gguf_build_free(b);
}

static void vapr_head_says_which_values_are_stamped(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    struct made m;
    made_open_ok(&m, b);
    struct vapr_options opt = {.values = VAPR_VALUES_COMPAT};
    struct vapr *v = NULL;
    assert_int_equal(vapr_new(&v, m.g, &opt, NULL), 0);
    cJSON *meta = meta_of(v);
    assert_string_equal(json_text(json_get(meta, "aprfs.values")), "compat");
    cJSON_Delete(meta);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* --- aliases --- */

/* The alias names rows [row, row + rows) of the tensor, and the metadata says so. */
static void expect_alias(const struct vapr *v, const char *name, const char *of, uint64_t row,
                         uint64_t rows)
{
    const struct vapr_tensor *a = vapr_named(v, name), *t = vapr_named(v, of);
    if (!a || !t)
        fail_msg("%s of %s: no such entry", name, of);
    uint64_t row_size = t->size / t->dim[0];
    assert_true(a->alias);
    assert_false(t->alias);
    assert_int_equal(a->dtype, t->dtype);
    assert_int_equal(a->n_dim, t->n_dim);
    assert_int_equal(a->dim[0], rows);
    if (t->n_dim > 1)
        assert_int_equal(a->dim[1], t->dim[1]);
    assert_int_equal(a->off, t->off + row * row_size);
    assert_int_equal(a->size, rows * row_size);
    cJSON *meta = meta_of(v);
    const cJSON *list = json_get(meta, "aprfs.alias"), *x;
    int found = 0;
    cJSON_ArrayForEach(x, list)
    {
        uint64_t n;
        if (strcmp(json_text(json_get(x, "name")), name) != 0)
            continue;
        assert_string_equal(json_text(json_get(x, "of")), of);
        assert_true(json_uint(json_get(x, "row"), &n) && n == row);
        found++;
    }
    assert_int_equal(found, 1);
    cJSON_Delete(meta);
}

static size_t count_aliases(const struct vapr *v)
{
    size_t n = 0;
    for (size_t i = 0; i < vapr_n_tensor(v); i++)
        n += vapr_tensor(v, i)->alias;
    return n;
}

static void vapr_alias_names_tied_head(void **state)
{
    (void)state;
    for (int untied = 0; untied < 2; untied++) {
        struct gguf_build_opt o = gguf_build_defaults("llama");
        o.untied = untied;
        struct gguf_build *b = gguf_build_llama_like("llama", &o);
        struct made m;
        made_open_ok(&m, b);
        struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
        if (untied)
            assert_int_equal(count_aliases(v), 0);
        else
            expect_alias(v, "output.weight", "token_embd.weight", 0,
                         vapr_named(v, "token_embd.weight")->dim[0]);
        vapr_free(v);
        made_close(&m);
        gguf_build_free(b);
    }
}

/* A decoder that says it is not causal is an encoder, whose embedding is no head. */
static void vapr_alias_gives_encoders_no_head(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.untied = false;
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    gguf_build_bool(b, "llama.attention.causal", false);
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    assert_int_equal(count_aliases(v), 0);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* phi3: 4 query and 2 key/value heads of 16: rows 0-63, 64-95, 96-127 of attn_qkv; n_ff 128: rows
 * 0-127 of ffn_up are the gate (llama.cpp: phi3 uses the sequential SwiGLU). */
static void vapr_alias_splits_fused_tensors(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("phi3", NULL);
    struct made m;
    made_open_ok(&m, b);
    for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++) {
        struct vapr *v = vapr_ok(m.g, (enum vapr_profile)p);
        expect_alias(v, "blk.1.attn_q.weight", "blk.1.attn_qkv.weight", 0, 64);
        expect_alias(v, "blk.1.attn_k.weight", "blk.1.attn_qkv.weight", 64, 32);
        expect_alias(v, "blk.1.attn_v.weight", "blk.1.attn_qkv.weight", 96, 32);
        expect_alias(v, "model.layers.1.mlp.gate_proj.weight", "blk.1.ffn_up.weight", 0, 128);
        expect_alias(v, "model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight", 128, 128);
        assert_null(vapr_named(v, "blk.1.ffn_gate.weight"));
        assert_int_equal(count_aliases(v), 2 * 5);
        vapr_free(v);
    }
    made_close(&m);
    gguf_build_free(b);
}

static void vapr_alias_splits_fused_bias(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("phi2", NULL);
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    expect_alias(v, "blk.0.attn_q.bias", "blk.0.attn_qkv.bias", 0, 64);
    expect_alias(v, "blk.0.attn_k.bias", "blk.0.attn_qkv.bias", 64, 32);
    expect_alias(v, "blk.0.attn_v.bias", "blk.0.attn_qkv.bias", 96, 32);
    assert_null(vapr_named(v, "model.layers.0.mlp.up_proj.weight")); /* GELU MLP: nothing fused */
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* Converted fused tensors: the rows of the F32 bytes, and twins that are rows of the original. */
static void vapr_alias_splits_converted_tensors(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("phi3");
    o.type = 8;
    struct gguf_build *b = gguf_build_llama_like("phi3", &o);
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    expect_alias(v, "blk.0.attn_k.weight", "blk.0.attn_qkv.weight", 64, 32);
    const struct vapr_tensor *k = vapr_named(v, "blk.0.attn_k.weight");
    assert_true(k->conv && k->dtype == 0 && k->size == 32 * 64 * 4);
    assert_int_equal(k->src_size, 32 * 2 * 34); /* 32 rows of 64 weights: 2 blocks of 34 bytes */
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* Under a recurrent layer's attn_qkv something else stands (qwen3next and others): same sizes by
 * chance must not make it Q, K and V. */
static void vapr_alias_leaves_recurrent_layers_alone(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("phi3", NULL);
    gguf_build_tensor_1d(b, "blk.0.ssm_a", 0, 4);
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    assert_null(vapr_named(v, "blk.0.attn_q.weight"));
    assert_non_null(vapr_named(v, "blk.1.attn_q.weight"));
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* "blk.00" is no layer, though a number parser takes it for one: no name may come twice. */
static void vapr_alias_takes_layer_numbers_literally(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("phi3", NULL);
    gguf_build_tensor_2d(b, "blk.00.attn_qkv.weight", 0, 64, 128);
    gguf_build_tensor_2d(b, "blk.01.ffn_up.weight", 0, 64, 256);
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    expect_alias(v, "blk.0.attn_q.weight", "blk.0.attn_qkv.weight", 0, 64);
    for (size_t i = 1; i < vapr_n_tensor(v); i++)
        assert_true(strcmp(vapr_tensor(v, i - 1)->name, vapr_tensor(v, i)->name) < 0);
    assert_int_equal(count_aliases(v), 2 * 5);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* A name that the file uses is the file's. */
static void vapr_alias_never_takes_a_name(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("phi3", NULL);
    gguf_build_tensor_2d(b, "model.layers.0.mlp.gate_proj.weight", 0, 64, 3);
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    const struct vapr_tensor *t = vapr_named(v, "model.layers.0.mlp.gate_proj.weight");
    assert_false(t->alias);
    assert_int_equal(t->dim[0], 3);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* --- profiles --- */

/* What each profile does with a matrix, a norm and another vector of each type. r raw, c converted,
 * x refused; profiles native, engine, strict. APR v2, sections 5, 7, 8.3 and 12. */
static const struct {
    uint32_t type;
    const char *matrix, *norm, *bias;
} rules[] = {
    {0, "rrr", "rrr", "rrr"},  {1, "rrr", "rcc", "rrr"},  {2, "rrc", NULL, NULL},
    {3, "rrc", NULL, NULL},    {6, "rrc", NULL, NULL},    {7, "rrc", NULL, NULL},
    {8, "rcc", "rcc", "rcc"},  {10, "rrc", NULL, NULL},   {11, "rrc", NULL, NULL},
    {12, "rrr", NULL, NULL},   {13, "rrc", NULL, NULL},   {14, "rrr", NULL, NULL},
    {15, "rcc", NULL, NULL},   {16, "rxx", NULL, NULL},   {20, "rcc", NULL, NULL},
    {23, "rcc", NULL, NULL},   {24, "rxx", NULL, "rxx"},  {26, "rxx", NULL, "rxx"},
    {27, "rxx", NULL, "rxx"},  {28, "rxx", "rxx", "rxx"}, {29, "rxx", NULL, NULL},
    {30, "rrc", "rcc", "rcc"}, {34, "rcc", NULL, NULL},   {39, "rcc", NULL, NULL},
    {40, "rcc", NULL, NULL},   {41, "rcc", NULL, NULL},   {42, "rcc", NULL, NULL},
};

static void expect_rule(uint32_t type, const char *name, uint32_t n_dim, const char *want)
{
    static const enum vapr_profile profiles[] = {VAPR_NATIVE, VAPR_ENGINE, VAPR_STRICT};
    if (!want)
        return;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    uint64_t ne[2] = {256, 3};
    const char *type_name;
    uint32_t len, bytes;
    gguf_build_type(type, &type_name, &len, &bytes);
    gguf_build_tensor(b, name, type, n_dim, ne, NULL);
    struct made m;
    made_open_ok(&m, b);
    for (int i = 0; i < 3; i++) {
        struct vapr_options opt = {.profile = profiles[i]};
        struct vapr *v = NULL;
        struct err e = {0};
        int rc = vapr_new(&v, m.g, &opt, &e);
        if (rc != (want[i] == 'x' ? -ENOTSUP : 0))
            fail_msg("%s %s, %s: %d %s", type_name, name, vapr_profile_name(opt.profile), rc,
                     e.msg);
        if (rc < 0) {
            assert_null(v);
            assert_non_null(strstr(e.msg, name));
            assert_non_null(strstr(e.msg, type_name));
            assert_non_null(strstr(e.msg, vapr_profile_name(opt.profile)));
            continue;
        }
        const struct vapr_tensor *t = vapr_named(v, name);
        if (t->conv != (want[i] == 'c') || t->dtype != (want[i] == 'c' ? 0 : type))
            fail_msg("%s %s, %s: conv %d, dtype %u", type_name, name,
                     vapr_profile_name(opt.profile), t->conv, t->dtype);
        vapr_free(v);
    }
    made_close(&m);
    gguf_build_free(b);
}

static void vapr_profile_rules_hold_for_every_type(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        expect_rule(rules[i].type, "zz.some.weight", 2, rules[i].matrix);
        expect_rule(rules[i].type, "zz.some_norm.weight", 1, rules[i].norm);
        expect_rule(rules[i].type, "zz.some.bias", 1, rules[i].bias);
    }
}

/* The engine decodes embeddings with a table of its own, without Q3_K: APR v2, section 7. */
static void vapr_profile_engine_converts_q3_k_embedding(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.n_embd = 256;
    o.type_embd = 11;
    o.untied = false;
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    assert_true(vapr_named(v, "token_embd.weight")->conv);
    assert_true(vapr_named(v, "output.weight")->conv);
    assert_int_equal(vapr_named(v, "output.weight")->off, vapr_named(v, "token_embd.weight")->off);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

static void vapr_profile_names_parse(void **state)
{
    (void)state;
    enum vapr_profile p;
    assert_true(vapr_profile_parse("native", &p) && p == VAPR_NATIVE);
    assert_true(vapr_profile_parse("engine", &p) && p == VAPR_ENGINE);
    assert_true(vapr_profile_parse("strict", &p) && p == VAPR_STRICT);
    assert_false(vapr_profile_parse("Native", &p));
    assert_false(vapr_profile_parse("", &p));
    assert_string_equal(vapr_profile_name(VAPR_ENGINE), "engine");
}

static void vapr_new_refuses_names_apr_cannot_hold(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t len; /* of 'n's before it */
        const char *says;
    } t[] = {{"x", 256, "longer than the 256 bytes"}, {"a\xff", 0, "not UTF-8"}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        char name[300];
        memset(name, 'n', t[i].len);
        strcpy(name + t[i].len, t[i].name);
        struct gguf_build *b = gguf_build_llama_like("llama", NULL);
        gguf_build_tensor_1d(b, name, 0, 4);
        struct made m;
        struct err e = {0};
        int rc = made_open(&m, b, 1, &e);
        if (rc == 0) { /* the GGUF reader may be the one that refuses */
            struct vapr_options opt = {.profile = VAPR_NATIVE};
            struct vapr *v = NULL;
            rc = vapr_new(&v, m.g, &opt, &e);
            assert_int_equal(rc, -ENOTSUP);
            assert_non_null(strstr(e.msg, t[i].says));
        }
        assert_true(rc < 0);
        made_close(&m);
        gguf_build_free(b);
    }
    /* 256 bytes are allowed. */
    char name[257];
    memset(name, 'n', 256);
    name[256] = 0;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    gguf_build_tensor_1d(b, name, 0, 4);
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_NATIVE);
    assert_non_null(vapr_named(v, name));
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vapr_new_agrees_with_original_converter),
        cmocka_unit_test(vapr_head_follows_byte_table),
        cmocka_unit_test(vapr_new_plans_file_without_tensors),
        cmocka_unit_test(vapr_head_says_which_values_are_stamped),
        cmocka_unit_test(vapr_alias_names_tied_head),
        cmocka_unit_test(vapr_alias_gives_encoders_no_head),
        cmocka_unit_test(vapr_alias_splits_fused_tensors),
        cmocka_unit_test(vapr_alias_splits_fused_bias),
        cmocka_unit_test(vapr_alias_splits_converted_tensors),
        cmocka_unit_test(vapr_alias_leaves_recurrent_layers_alone),
        cmocka_unit_test(vapr_alias_takes_layer_numbers_literally),
        cmocka_unit_test(vapr_alias_never_takes_a_name),
        cmocka_unit_test(vapr_profile_rules_hold_for_every_type),
        cmocka_unit_test(vapr_profile_engine_converts_q3_k_embedding),
        cmocka_unit_test(vapr_profile_names_parse),
        cmocka_unit_test(vapr_new_refuses_names_apr_cannot_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
