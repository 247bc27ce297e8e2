/* The real models of scripts/fetch_models. Expected values: printed by GGUFReader of the PyPI
 * package gguf on the files of the SHA-256 sums in that script (keys without its three GGUF.*
 * pseudo-fields, t.data_offset, t.n_bytes, t.data's first bytes). */
#include "format/gguf.h"
#include "tests/support.h"

#include <inttypes.h>

struct want_tensor {
    size_t i;
    const char *name;
    uint32_t type, n_dim;
    uint64_t ne0, ne1, off, size;
    uint8_t first[4];
};

struct want_model {
    const char *file, *arch;
    uint64_t size; /* of the file: the last tensor ends there */
    size_t n_key, n_tensor;
    uint64_t data_start;
    const char *eps_key;
    double eps;
    uint64_t n_vocab;
    const char *tok_1000, *tok_last;
    int32_t type_last;
    struct want_tensor tensor[5];
};

static const struct want_model models[] = {
    {
        REAL_SMOLLM2,
        "llama",
        98362432,
        33,
        272,
        1785664,
        "llama.attention.layer_norm_rms_epsilon",
        9.999999747378752e-06,
        49152,
        "()",
        "ectable",
        1,
        {
            {0, "token_embd.weight", 8, 2, 576, 49152, 1785664, 30081024, {0x32, 0x19, 0xd6, 0x0d}},
            {1, "blk.0.attn_norm.weight", 0, 1, 576, 1, 31866688, 2304, {0, 0, 0x65, 0x3c}},
            {5, "blk.0.ffn_norm.weight", 0, 1, 576, 1, 33527872, 2304, {0, 0, 0xc0, 0x3d}},
            {100, "blk.19.attn_norm.weight", 0, 1, 576, 1, 56247616, 2304, {0, 0, 0xe5, 0x3d}},
            {271, "output_norm.weight", 0, 1, 576, 1, 98360128, 2304, {0, 0, 0xe1, 0x3f}},
        },
    },
    {
        REAL_QWEN25,
        "qwen2",
        491400064,
        26,
        291,
        5947776,
        "qwen2.attention.layer_norm_rms_epsilon",
        9.999999974752427e-07,
        151936,
        "atus",
        "[PAD151935]",
        5,
        {
            {0, "output.weight", 8, 2, 896, 151936, 5947776, 144643072, {0xd8, 0x0b, 0xbb, 0x69}},
            {1,
             "token_embd.weight",
             6,
             2,
             896,
             151936,
             150590848,
             93592576,
             {0xc8, 0x97, 0xf1, 0x6e}},
            {5,
             "blk.0.ffn_up.weight",
             6,
             2,
             896,
             4864,
             250758272,
             2996224,
             {0x95, 0x16, 0x96, 0x26}},
            {100,
             "blk.16.ffn_gate.weight",
             6,
             2,
             896,
             4864,
             330166400,
             2996224,
             {0x33, 0x96, 0xf9, 0x95}},
            {290, "output_norm.weight", 0, 1, 896, 1, 491396480, 3584, {0, 0, 0xe2, 0x40}},
        },
    },
    {
        REAL_GEMMA3,
        "gemma3",
        253113024,
        33,
        236,
        6525120,
        "gemma3.attention.layer_norm_rms_epsilon",
        9.999999974752427e-07,
        262144,
        "put",
        "<unused6241>",
        3,
        {
            {0, "output_norm.weight", 0, 1, 640, 1, 6525120, 2560, {0, 0, 0xe4, 0x40}},
            {1,
             "token_embd.weight",
             8,
             2,
             640,
             262144,
             6527680,
             178257920,
             {0xf2, 0x10, 0xf4, 0x47}},
            {5,
             "blk.0.attn_output.weight",
             12,
             2,
             1024,
             640,
             184901824,
             368640,
             {0x24, 0x0b, 0x64, 0x16}},
            {100,
             "blk.7.ffn_down.weight",
             14,
             2,
             2048,
             640,
             212268224,
             1075200,
             {0x4f, 0x9e, 0x0d, 0x13}},
            {235,
             "blk.17.post_ffw_norm.weight",
             0,
             1,
             640,
             1,
             253110464,
             2560,
             {0, 0x80, 0xbc, 0x43}},
        },
    },
};

static void check_tokens(const struct gguf *g, const struct want_model *m)
{
    const struct gguf_key *k = gguf_find(g, "tokenizer.ggml.tokens");
    struct gguf_key el;
    struct gguf_str s = {"", 0};
    uint64_t n = 0;
    assert_int_equal(k->n, m->n_vocab);
    for (size_t pos = 0; gguf_next_elem(k, &pos, &el); n++) {
        assert_true(gguf_as_str(&el, &s));
        if (n == 1000)
            assert_true(gguf_str_eq(s, m->tok_1000));
    }
    assert_int_equal(n, m->n_vocab);
    assert_true(gguf_str_eq(s, m->tok_last));
    int64_t type;
    k = gguf_find(g, "tokenizer.ggml.token_type");
    assert_true(gguf_elem_i64(k, m->n_vocab - 1, &type) && type == m->type_last);
}

static void check_tensors(const struct gguf *g, const struct want_model *m)
{
    for (size_t i = 0; i < sizeof m->tensor / sizeof *m->tensor; i++) {
        const struct want_tensor *w = &m->tensor[i];
        const struct gguf_tensor *t = gguf_tensor(g, w->i);
        uint8_t first[4];
        assert_ptr_equal(gguf_find_tensor(g, w->name), t);
        assert_true(t->type == w->type && t->n_dim == w->n_dim && t->ne[0] == w->ne0 &&
                    t->ne[1] == w->ne1 && t->ne[2] == 1 && t->off == w->off && t->size == w->size);
        assert_int_equal(source_read(gguf_part(g, 0), first, t->off, 4, NULL), 0);
        assert_memory_equal(first, w->first, 4);
    }
}

static void check_model(const struct want_model *m, const char *path)
{
    struct gguf *g = NULL;
    struct err e = {0};
    double t = now_ms();
    if (gguf_open_path(&g, path, &e) < 0)
        fail_msg("%s", e.msg);
    printf("# %s: opened in %.1f ms\n", m->file, now_ms() - t);
    struct gguf_str arch;
    double eps;
    assert_true(gguf_as_str(gguf_find(g, "general.architecture"), &arch));
    assert_true(gguf_str_eq(arch, m->arch));
    assert_int_equal(gguf_version(g), 3);
    assert_int_equal(gguf_alignment(g), 32);
    assert_int_equal(gguf_n_key(g), m->n_key);
    assert_int_equal(gguf_n_tensor(g), m->n_tensor);
    assert_int_equal(gguf_data_start(g, 0), m->data_start);
    assert_int_equal(gguf_data_end(g, 0), m->size);
    assert_int_equal(source_size(gguf_part(g, 0)), m->size);
    assert_true(gguf_as_f64(gguf_find(g, m->eps_key), &eps) && eps == m->eps);
    check_tokens(g, m);
    check_tensors(g, m);
    gguf_close(g);
}

static void run_model(const char *test, const struct want_model *m)
{
    char *path = real_model(m->file);
    if (!path)
        skip_because_in(test, "%s is not in APRFS_MODELS or .cache/models", m->file);
    check_model(m, path);
    free(path);
}

static void gguf_opens_smollm2(void **state)
{
    (void)state;
    run_model(__func__, &models[0]);
}

static void gguf_opens_qwen25_coder(void **state)
{
    (void)state;
    run_model(__func__, &models[1]);
}

static void gguf_opens_gemma3_270m(void **state)
{
    (void)state;
    run_model(__func__, &models[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_opens_smollm2),
        cmocka_unit_test(gguf_opens_qwen25_coder),
        cmocka_unit_test(gguf_opens_gemma3_270m),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
