/* The reverse view of files of the original writers: what becomes of them holds their bytes under the
 * names and keys that readers of GGUFs want; what was derived is said, what cannot be is refused by
 * name. */
#include "tests/vgguf_support.h"

/* Against the GGUF that realizar's converter was given. */
static void vgguf_undoes_the_original_converter(void **state)
{
    (void)state;
    struct turned t;
    struct gguf *g;
    turn_file(&t, "tests/data/q4k-converter-output.apr");
    assert_int_equal(gguf_open_path(&g, "tests/data/q4k-converter-input.gguf", NULL), 0);
    assert_int_equal(gguf_n_tensor(g), gguf_n_tensor(vgguf_gguf(t.v)));
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const struct gguf_tensor *x = gguf_tensor(g, i);
        char *name = strndup(x->name.p, x->name.len);
        uint8_t *bytes = malloc(x->size);
        const struct gguf_tensor *y = named(&t, name);
        assert_int_equal(x->type, y->type);
        assert_memory_equal(x->ne, y->ne, sizeof x->ne);
        assert_int_equal(source_read(gguf_part(g, 0), bytes, x->off, x->size, NULL), 0);
        assert_memory_equal(bytes, t.p + y->off, x->size);
        free(bytes);
        free(name);
    }
    static const char *const same[] = {"general.architecture",
                                       "llama.block_count",
                                       "llama.embedding_length",
                                       "llama.feed_forward_length",
                                       "llama.attention.head_count",
                                       "llama.attention.head_count_kv",
                                       "llama.context_length",
                                       "llama.rope.freq_base",
                                       "tokenizer.ggml.model",
                                       "tokenizer.ggml.tokens",
                                       "tokenizer.ggml.merges",
                                       "tokenizer.ggml.bos_token_id",
                                       "tokenizer.ggml.eos_token_id",
                                       "tokenizer.chat_template",
                                       "llama.attention.layer_norm_rms_epsilon"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        const struct gguf_key *x = gguf_find(g, same[i]);
        const struct gguf_key *y = gguf_find(vgguf_gguf(t.v), same[i]);
        if (!x)
            continue;
        if (!y || x->type != y->type || x->data_len != y->data_len ||
            memcmp(x->data, y->data, x->data_len) != 0)
            fail_msg("%s differs", same[i]);
    }
    assert_string_equal(vgguf_plan(t.v)->layout, "congruent");
    gguf_close(g);
    turned_free(&t);
}

/* Hugging Face's names, tensors 64 apart: names translated, shapes reversed, one extent. */
static void vgguf_translates_aprenders_own(void **state)
{
    (void)state;
    struct turned t;
    turn_file(&t, "tests/data/aprender-writer.apr");
    static const char *const pair[][2] = {
        {"lm_head.weight", "output.weight"},
        {"model.embed_tokens.weight", "token_embd.weight"},
        {"model.norm.weight", "output_norm.weight"},
        {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"},
        {"model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight"},
        {"model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight"},
        {"model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"},
        {"model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"}};
    for (size_t i = 0; i < sizeof pair / sizeof pair[0]; i++) {
        const struct apr_tensor *a = apr_find(t.a, pair[i][0]);
        const struct gguf_tensor *g = named(&t, pair[i][1]);
        assert_int_equal(g->type, a->type);
        assert_int_equal(g->ne[0], a->dim[a->n_dim - 1]);
        assert_memory_equal(t.p + g->off, t.apr + a->off, a->size);
    }
    const struct vplan *p = vgguf_plan(t.v);
    size_t n_file = 0;
    for (size_t i = 0; i < p->n_seg; i++)
        n_file += p->seg[i].kind == VSEG_FILE;
    assert_int_equal(n_file, 1);
    assert_string_equal(p->layout, "congruent");
    assert_int_equal(gguf_alignment(vgguf_gguf(t.v)), 64);
    assert_true(key_says(&t, "tokenizer.ggml.model", "gpt2"));
    /* Names; the tokenizer's model, types, and its missing rule of splitting. */
    assert_int_equal(vgguf_n_note(t.v), 4);
    assert_int_equal(gguf_find(vgguf_gguf(t.v), "aprfs.derived")->n, 4);
    assert_non_null(strstr(vgguf_note(t.v, 3), "tokenizer.ggml.pre: the file does not say it"));
    turned_free(&t);
}

static void vgguf_widens_own_q4(void **state)
{
    (void)state;
    static const struct spec s[] = {{"blk.0.attn_q.weight", 128, 32, 32, 576},
                                    {"token_embd.weight", 0, 2, 32, 256}};
    struct turned t;
    struct err e = {0};
    size_t len;
    uint8_t *p = build_apr(LLAMA ",\"rope_type\":0}", s, 2, &len);
    const struct apr_tensor *a;
    if (turn(&t, p, len, &e) < 0)
        fail_msg("%s", e.msg);
    check_plan(&t);
    const struct gguf_tensor *g = named(&t, "blk.0.attn_q.weight");
    a = apr_find(t.a, "blk.0.attn_q.weight");
    assert_int_equal(g->type, 0);
    assert_int_equal(g->size, 32 * 32 * 4);
    /* apr-v2.md §5: low nibble = even index, value = (nibble - 8) * scale. */
    for (uint64_t i = 0; i < 1024; i++) {
        const uint8_t *block = t.apr + a->off + i / 32 * 18;
        int q = block[2 + i % 32 / 2] >> (i % 2 ? 4 : 0) & 15;
        float want = (float)(q - 8) * f16_to_f32(load_u16(block));
        assert_memory_equal(t.p + g->off + 4 * i, &want, 4);
    }
    assert_true(key_says(&t, "tokenizer.ggml.model", "no_vocab"));
    turned_free(&t);
}

/* What is refused, and in which words. */
#define EMBD                                                                                       \
    {                                                                                              \
        "token_embd.weight", 0, 2, 32, 256                                                         \
    }
#define Q(code, bytes)                                                                             \
    {                                                                                              \
        {"blk.0.attn_q.weight", code, 32, 32, bytes}, EMBD                                         \
    }
static const struct spec good[] = Q(0, 4096);
static const struct spec q8[] = Q(129, 1028), u8[] = Q(7, 1024);
static const struct spec odd[] = {{"blk.0.attn_norm.weight", 128, 33, 0, 36}, EMBD};
static const struct spec unknown[] = {{"encoder.w", 0, 2, 2, 16}, EMBD};
static const struct spec twice[] = {{"blk.0.a", 0, 2, 0, 8}, {"blk.0.a", 0, 2, 0, 8}, EMBD};
static const struct spec hf[] = {{"model.embed_tokens.weight", 0, 2, 32, 256},
                                 {"model.layers.0.self_attn.q_proj.weight", 0, 32, 32, 4096}};
static const struct spec plus[] = {{"model.embed_tokens.weight", 0, 2, 32, 256},
                                   {"model.layers.+0.self_attn.q_proj.weight", 0, 32, 32, 4096}};
static const struct spec scales[] = {{"model.embed_tokens.weight", 0, 2, 32, 256},
                                     {"model.layers.0.self_attn.q_proj.scales", 0, 32, 0, 128}};
static const struct spec rows48[] = {{"blk.0.attn_k.weight", 0, 48, 32, 6144}, EMBD};
static const struct spec exps[] = {{"blk.0.ffn_up_exps.weight", 0, 32, 32, 4096}, EMBD};
static const struct spec bare[] = {{"blk.0.attn_q.weight", 0, 32, 32, 4096}};
static const struct {
    const char *meta;
    const struct spec *s;
    size_t n;
    int rc;
    const char *says;
} refused[] = {
    {LLAMA "}", q8, 2, -ENOTSUP, "one scale for the whole tensor"},
    {LLAMA "}", u8, 2, -ENOTSUP, "unsigned bytes"},
    {LLAMA "}", odd, 2, -ENOTSUP, "no whole number of blocks"},
    {LLAMA "}", unknown, 2, -ENOTSUP, "tensor 'encoder.w': no name"},
    {LLAMA "}", twice, 3, -EUCLEAN, "blk.0.a"},
    {LLAMA "}", hf, 2, -ENOTSUP, "rope_type is not 0"},
    {LLAMA ",\"rope_type\":2}", hf, 2, -ENOTSUP, "rope_type is not 0"},
    {"{\"architecture\":\"gemma3\"," DIMS "}", hf, 2, -ENOTSUP, "Hugging Face's tensor names"},
    {LLAMA "}", bare, 1, -ENOENT, "'token_embd.weight' is missing"},
    {LLAMA "}", good + 1, 1, -ENOENT, "layer 0 of 1 has no tensors"},
    {LLAMA "}", good, 0, -ENOENT, "no tensors"},
    {"{\"architecture\":\"nothing\"," DIMS "}", good, 2, -ENOTSUP, "no counterpart"},
    {"{\"hidden_size\":32}", good, 2, -ENOENT, "architecture is missing"},
    {LLAMA ",\"tokenizer.vocabulary\":[\"a\",\"b\"],\"tokenizer.model\":\"llama\"}", good, 2,
     -ENOENT, "tokenizer.scores is missing"},
    {LLAMA ",\"tokenizer.vocabulary\":[\"a\",\"b\",\"c\"]}", good, 2, -ENOTSUP,
     "3 tokens over an embedding of 2 rows"},
    {LLAMA ",\"rope_type\":0}", plus, 2, -ENOTSUP, "layers.+0.self_attn.q_proj.weight': no name"},
    {LLAMA ",\"rope_type\":0}", scales, 2, -ENOTSUP, "q_proj.scales': no name"},
    {"{\"architecture\":\"llama\"," DIMS_BARE "}", good, 2, -ENOENT, "max_position_embeddings"},
    {LLAMA ",\"head_dim\":16}", rows48, 2, -EUCLEAN, "attn_k.weight has 48 rows"},
    {LLAMA "}", exps, 2, -ENOENT, "num_experts is missing"},
    {LLAMA ",\"num_experts\":4}", exps, 2, -ENOENT, "num_experts_per_tok is missing"},
    {"{\"architecture\":\"granite\"," DIMS "}", good, 2, -ENOTSUP, "granite.logit_scale"},
    {"{\"architecture\":\"qwen2vl\"," DIMS "}", good, 2, -ENOTSUP,
     "qwen2vl.rope.dimension_sections"},
    /* llama.cpp reads it if it is there, and aborts where it is not (ggml_mrope: sections > 0). */
    {"{\"architecture\":\"paddleocr\"," DIMS "}", good, 2, -ENOTSUP,
     "paddleocr.rope.dimension_sections"},
    /* Loaded without the key, and another model: microsoft/phi-2 rotates 0.4 of a head, mpt adds ALiBi. */
    {"{\"architecture\":\"phi2\"," DIMS "}", good, 2, -ENOTSUP, "phi2.rope.dimension_count"},
    {"{\"architecture\":\"glm4\"," DIMS "}", good, 2, -ENOTSUP, "glm4.rope.dimension_count"},
    {"{\"architecture\":\"mpt\"," DIMS "}", good, 2, -ENOTSUP, "mpt.attention.max_alibi_bias"},
    {LLAMA ",\"tokenizer.vocabulary\":[\"a\",3],\"tokenizer.merges\":[]}", good, 2, -EUCLEAN,
     "element 1 of 'tokenizer.ggml.tokens' is no str"},
    {LLAMA ",\"aprfs.profile\":\"native\"}", good, 2, -ENOTSUP, "earlier aprfs"},
    {LLAMA ",\"aprfs.profile\":\"native\",\"aprfs.gguf\":{\"version\":3}}", good, 2, -EUCLEAN,
     "no list of keys"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":9,\"keys\":[]}}", good, 2, -EUCLEAN, "version"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u32\",\"gone\"]]}}", good, 2,
     -EUCLEAN, "the value of 'a' is not there"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u99\"]]}}", good, 2, -EUCLEAN,
     "the type of 'a'"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u8\",\"hidden_siz\"]]}}", good, 2,
     -EUCLEAN, "'a'"},
    {LLAMA ",\"x\":256,\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u8\",\"x\"]]}}", good, 2,
     -EUCLEAN, "the value of 'a' is no u8"},
    {LLAMA ",\"x\":\"s\",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"[u8\",\"x\"]]}}", good, 2,
     -EUCLEAN, "is no array"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u8\",null,\"0g\"]]}}", good, 2,
     -EUCLEAN, "no hex"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u32\",null,\"01\"]]}}", good, 2,
     -EUCLEAN, "that its metadata describes"}, /* hex that is no u32: our own reader finds it */
    {LLAMA ",\"x\":7,\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"general.alignment\",\"u32\","
           "\"x\"]]}}",
     good, 2, -EUCLEAN, "no power of two"},
    /* The alignment where only the finished head shows it: all would stand 24 bytes off. */
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"general.alignment\",\"u32\",null,"
           "\"08000000\"]]}}",
     good, 2, -EUCLEAN, "general.alignment 8 stands in bytes"},
    {LLAMA ",\"x\":7,\"aprfs.gguf\":{\"version\":3,\"keys\":[[\"a\",\"u8\",\"x\"],[\"b\",\"u8\","
           "\"x\"]]}}",
     good, 2, -EUCLEAN, "'x' is the value of two keys"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[5]}}", good, 2, -EUCLEAN,
     "a key without a name"},
    {LLAMA ",\"aprfs.gguf\":{\"version\":3,\"keys\":[],\"head_sha256\":\"00\"}}", good, 2, -EUCLEAN,
     "head_sha256"},
    {LLAMA ",\"aprfs.profile\":\"native\",\"aprfs.alias\":3,\"aprfs.gguf\":{}}", good, 2, -EUCLEAN,
     "aprfs.alias"},
};

static void vgguf_refuses_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct turned t;
        struct err e = {0};
        size_t len;
        uint8_t *p = build_apr(refused[i].meta, refused[i].s, refused[i].n, &len);
        int rc = turn(&t, p, len, &e);
        if (rc != refused[i].rc || !strstr(e.msg, refused[i].says))
            fail_msg("case %zu: %d '%s', expected %d '%s'", i, rc, e.msg, refused[i].rc,
                     refused[i].says);
        turned_free(&t);
    }
}

static void turn_spec(struct turned *t, const char *meta, const struct spec *s, size_t n)
{
    struct err e = {0};
    size_t len;
    uint8_t *p = build_apr(meta, s, n, &len);
    if (turn(t, p, len, &e) < 0)
        fail_msg("%s", e.msg);
    check_plan(t);
}

static bool has_note(const struct turned *t, const char *part)
{
    for (size_t i = 0; i < vgguf_n_note(t->v); i++)
        if (strstr(vgguf_note(t->v, i), part))
            return true;
    return false;
}

static uint64_t key_number(const struct turned *t, const char *key)
{
    uint64_t v = UINT64_MAX;
    if (!gguf_as_u64(gguf_find(vgguf_gguf(t->v), key), &v))
        fail_msg("no number '%s'", key);
    return v;
}

/* Embeddings have more rows than tokenizers tokens (Qwen2.5: 151936 over 151665). llama.cpp wants one
 * token for each; its converter's are "[PAD<id>]" of type 5 (unused), score -1000. */
static void vgguf_fills_the_vocabulary(void **state)
{
    (void)state;
    static const struct spec s[] = {{"blk.0.attn_q.weight", 0, 32, 32, 4096},
                                    {"token_embd.weight", 0, 4, 32, 512}};
    struct turned t;
    for (int typed = 0; typed < 2; typed++) {
        turn_spec(&t,
                  typed ? LLAMA
                      ",\"tokenizer.vocabulary\":[\"<unk>\",\"b\"],\"tokenizer.scores\":[0,-1.5],"
                      "\"tokenizer.token_type\":[2,1]}"
                        : LLAMA
                      ",\"tokenizer.vocabulary\":[\"<unk>\",\"b\"],\"tokenizer.scores\":[0,-1.5]}",
                  s, 2);
        static const char *const tokens[] = {"<unk>", "b", "[PAD2]", "[PAD3]"};
        static const int64_t types[] = {2, 1, 5, 5};
        static const double scores[] = {0, -1.5, -1000, -1000};
        const struct gguf_key *k = gguf_find(vgguf_gguf(t.v), "tokenizer.ggml.tokens");
        struct gguf_key item;
        size_t pos = 0, n = 0;
        assert_int_equal(k->n, 4);
        while (gguf_next_elem(k, &pos, &item)) {
            struct gguf_str text;
            assert_true(gguf_as_str(&item, &text) && gguf_str_eq(text, tokens[n]));
            n++;
        }
        assert_int_equal(n, 4);
        for (uint64_t i = 0; i < 4; i++) {
            int64_t type;
            double score;
            k = gguf_find(vgguf_gguf(t.v), "tokenizer.ggml.token_type");
            assert_true(gguf_elem_i64(k, i, &type) && type == types[i]);
            k = gguf_find(vgguf_gguf(t.v), "tokenizer.ggml.scores");
            assert_true(gguf_elem_f64(k, i, &score) && score == scores[i]);
        }
        assert_true(has_note(&t, "2 rows more than the vocabulary has tokens: [PAD2]"));
        assert_int_equal(has_note(&t, "by the tokens' spelling"), !typed);
        turned_free(&t);
    }
}

/* llama.cpp ends the process at a norm of 16-bit floats ("binary_op: unsupported types"). */
static void vgguf_widens_vectors(void **state)
{
    (void)state;
    static const struct spec s[] = {{"blk.0.attn_norm.weight", 30, 32, 0, 64},
                                    {"blk.0.attn_q.bias", 1, 32, 0, 64},
                                    {"blk.0.attn_q.weight", 1, 32, 32, 2048},
                                    {"token_embd.weight", 0, 2, 32, 256}};
    struct turned t;
    turn_spec(&t, LLAMA "}", s, 4);
    const struct gguf_tensor *norm = named(&t, "blk.0.attn_norm.weight");
    const struct gguf_tensor *bias = named(&t, "blk.0.attn_q.bias");
    const struct apr_tensor *a = apr_find(t.a, "blk.0.attn_norm.weight");
    const struct apr_tensor *b = apr_find(t.a, "blk.0.attn_q.bias");
    assert_int_equal(norm->type, 0);
    assert_int_equal(bias->type, 0);
    assert_int_equal(named(&t, "blk.0.attn_q.weight")->type,
                     1); /* llama.cpp multiplies with these */
    for (uint64_t i = 0; i < 32; i++) {
        uint8_t wide[4] = {0}; /* a BF16 is the upper half of an F32 */
        memcpy(wide + 2, t.apr + a->off + 2 * i, 2);
        assert_memory_equal(t.p + norm->off + 4 * i, wide, 4);
        float f = f16_to_f32(load_u16(t.apr + b->off + 2 * i));
        assert_memory_equal(t.p + bias->off + 4 * i, &f, 4);
    }
    assert_true(has_note(&t, "2 vectors of 16-bit floats"));
    turned_free(&t);
}

/* Qwen3 0.6B: 1024 wide, 16 heads of 128 each; realizar's converter writes no head_dim. */
static void vgguf_takes_heads_from_tensors(void **state)
{
    (void)state;
    static const struct spec s[] = {{"blk.0.attn_k.weight", 0, 64, 32, 8192},
                                    {"blk.0.attn_q.weight", 0, 64, 32, 8192},
                                    {"blk.0.attn_v.weight", 0, 64, 32, 8192},
                                    {"token_embd.weight", 0, 2, 32, 256}};
    struct turned t;
    turn_spec(&t, "{\"architecture\":\"qwen3\"," DIMS ",\"rope_type\":0}", s, 4);
    assert_int_equal(key_number(&t, "qwen3.attention.key_length"), 32);
    assert_int_equal(key_number(&t, "qwen3.attention.value_length"), 32);
    assert_int_equal(key_number(&t, "qwen3.rope.dimension_count"), 32);
    assert_true(has_note(&t, "32, 32, by the rows of attn_k and attn_v"));
    assert_true(has_note(&t, "rope_type 0 of the file: not obeyed"));
    turned_free(&t);
    /* What the file cannot say is said to be llama.cpp's. */
    turn_spec(&t, "{\"architecture\":\"gemma2\"," DIMS "}", s, 4);
    assert_true(has_note(&t, "attention.sliding_window"));
    assert_true(has_note(&t, "attn_logit_softcapping"));
    turned_free(&t);
}

/* No read of the .apr that fails may look like a shorter file or other bytes. */
static void vgguf_read_hands_on_errors(void **state)
{
    (void)state;
    size_t len, got;
    uint8_t *p = slurp("tests/data/q4k-converter-output.apr", &len), *dst = malloc(2 * len);
    struct faulty f = {.p = p, .len = len, .fail_at = -1, .rc = -EIO};
    struct source *s = faulty_source(&f, len, "faulty.apr");
    struct apr *a;
    struct vgguf *v;
    struct err e = {0};
    assert_int_equal(apr_open(&a, s, &e), 0);
    assert_int_equal(vgguf_new(&v, a, &e), 0);
    uint64_t size = vgguf_plan(v)->size;
    assert_true(size <= 2 * len);
    f.fail_at = f.n_read;
    assert_int_equal(vplan_read(vgguf_plan(v), dst, 0, (size_t)size, &got, &e), -EIO);
    assert_int_equal(got, 0);
    vgguf_free(v);
    apr_close(a);
    source_close(s);
    free(dst);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vgguf_undoes_the_original_converter),
        cmocka_unit_test(vgguf_translates_aprenders_own),
        cmocka_unit_test(vgguf_widens_own_q4),
        cmocka_unit_test(vgguf_fills_the_vocabulary),
        cmocka_unit_test(vgguf_widens_vectors),
        cmocka_unit_test(vgguf_takes_heads_from_tensors),
        cmocka_unit_test(vgguf_refuses_by_name),
        cmocka_unit_test(vgguf_read_hands_on_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
