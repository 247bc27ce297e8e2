/* Tokenizers by hand: rules of merging, added tokens, decoding, hostile texts and metadata. The
 * vocabularies are small enough to follow with a pencil; agreement with llama.cpp on real ones is
 * test_tokenizer_vectors.c's. */
#include "infer/text/bpe.h"
#include "infer/text/split.h"
#include "infer/text/tokenizer.h"
#include "tests/support.h"
#include "tests/token_fixture.h"

#include <errno.h>
#include <pthread.h>

static struct tokenizer *make(const char *json)
{
    cJSON *meta = quick_json(json);
    struct tokenizer *t = NULL;
    struct err e = {0};
    if (tokenizer_new(&t, meta, NULL, &e) < 0)
        fail_msg("%s: %s", json, e.msg);
    cJSON_Delete(meta);
    return t;
}

static void expect(const struct tokenizer *t, const char *text, unsigned flags, const char *want)
{
    int32_t *ids;
    size_t n;
    struct err e = {0};
    if (tokenizer_encode(t, text, strlen(text), flags, &ids, &n, &e) < 0)
        fail_msg("'%s': %s", text, e.msg);
    char got[512] = "";
    for (size_t i = 0; i < n; i++)
        sprintf(got + strlen(got), "%s%d", i ? " " : "", ids[i]);
    if (strcmp(got, want) != 0)
        fail_msg("'%s': got %s, want %s", text, got, want);
    free(ids);
}

static char *decode(const struct tokenizer *t, const int32_t *ids, size_t n, size_t *len)
{
    char *out = NULL;
    for (int pass = 0; pass < 2; pass++) { /* measure, then copy */
        *len = 0;
        for (size_t i = 0; i < n; i++) {
            size_t k;
            const char *p = tokenizer_piece(t, ids[i], true, i == 0, &k);
            assert_non_null(p);
            if (pass)
                memcpy(out + *len, p, k);
            *len += k;
        }
        if (!pass)
            out = malloc(*len + 1);
    }
    return out;
}

/* b-c joins before a-b (rank 0 before 1), so "abc" is a + bc; of "aaa" the left pair joins. */
static void tokenizer_encode_bpe_rank_then_left(void **state)
{
    (void)state;
    struct tokenizer *t = make("{'tokenizer.model_type':'gpt2','tokenizer.pre_type':'gpt-2',"
                               "'tokenizer.vocabulary':['a','b','c','bc','ab','aa','aab','abbc'],"
                               "'tokenizer.merges':['b c','a b','a a','aa b']}");
    expect(t, "abc", 0, "0 3");
    expect(t, "aaa", 0, "5 0");
    expect(t, "aab", 0, "0 4"); /* a b (rank 1) goes before a a */
    expect(t, "aaaab", 0, "5 0 4");
    expect(t, "", 0, "");
    tokenizer_free(t);
}

/* The same ties in a piece too long to be scanned (merge.c takes a heap from 49 symbols on): 101 a's
 * are 50 pairs from the left, then one a. */
static void tokenizer_encode_bpe_left_in_long_pieces(void **state)
{
    (void)state;
    struct tokenizer *t = make("{'tokenizer.model_type':'gpt2','tokenizer.pre_type':'gpt-2',"
                               "'tokenizer.vocabulary':['a','b','c','aa'],"
                               "'tokenizer.merges':['a a']}");
    char text[102], want[256] = "";
    memset(text, 'a', 101);
    text[101] = 0;
    for (int i = 0; i < 50; i++)
        strcat(want, "3 ");
    strcat(want, "0");
    expect(t, text, 0, want);
    tokenizer_free(t);
}

/* A string that only merges know ("xy") is spelt again by its bytes. */
static void tokenizer_encode_bpe_merge_without_token(void **state)
{
    (void)state;
    struct tokenizer *t = make("{'tokenizer.model_type':'gpt2','tokenizer.pre_type':'gpt-2',"
                               "'tokenizer.vocabulary':['x','y','z','xyz'],"
                               "'tokenizer.merges':['x y','xy z']}");
    expect(t, "xyz", 0, "3");
    expect(t, "xy", 0, "0 1");
    tokenizer_free(t);
}

static void tokenizer_encode_bpe_ignore_merges(void **state)
{
    (void)state;
    struct tokenizer *t = make("{'tokenizer.model_type':'gpt2','tokenizer.pre_type':'llama-bpe',"
                               "'tokenizer.add_bos_token':false,"
                               "'tokenizer.vocabulary':['a','b','ab','\xC4\xA0','\xC4\xA0x'],"
                               "'tokenizer.merges':[]}");
    expect(t, "ab", 0, "2"); /* no merge makes it: the piece as a whole is a token */
    expect(t, "a b", 0, "0 3 1");
    tokenizer_free(t);
    t = make("{'tokenizer.model_type':'gpt2','tokenizer.pre_type':'qwen2',"
             "'tokenizer.vocabulary':['a','b','ab'],'tokenizer.merges':[]}");
    expect(t, "ab", 0, "0 1");
    tokenizer_free(t);
}

static void tokenizer_encode_bpe_byte_without_token(void **state)
{
    (void)state;
    struct tokenizer *t = make("{'tokenizer.model_type':'gpt2','tokenizer.pre_type':'gpt-2',"
                               "'tokenizer.vocabulary':['a'],'tokenizer.merges':[]}");
    int32_t *ids;
    size_t n;
    struct err e = {0};
    assert_int_equal(tokenizer_encode(t, "ab", 2, 0, &ids, &n, &e), -ENOTSUP);
    assert_non_null(strstr(e.msg, "0x62"));
    tokenizer_free(t);
}

#define SPM_HEAD "{'tokenizer.model_type':'llama','tokenizer.add_space_prefix':true,"

/* Highest score first: bc (-1) before ab (-2); equal scores: the left pair. */
static void tokenizer_encode_spm_score_then_left(void **state)
{
    (void)state;
    struct tokenizer *t =
        make("{'tokenizer.model_type':'llama','tokenizer.add_space_prefix':false,"
             "'tokenizer.add_bos_token':false,"
             "'tokenizer.vocabulary':['<unk>','a','b','c','ab','bc','aa','<0x64>'],"
             "'tokenizer.scores':[0,0,0,0,-2,-1,-3,0],'tokenizer.token_type':[2,1,1,1,1,1,1,6]}");
    expect(t, "abc", 0, "1 5");
    expect(t, "aaa", 0, "6 1");
    expect(t, "abab", 0, "4 4");
    expect(t, "ad", 0, "1 7");       /* d as its byte token */
    expect(t, "\xC3\xA9", 0, "0 0"); /* no token, no byte token: unknown, once a byte */
    tokenizer_free(t);
}

/* A space in front of the text and behind every token that was cut out (llama.cpp's
 * is_prev_special); BOS does not count twice. */
static void tokenizer_encode_spm_space_prefix(void **state)
{
    (void)state;
    struct tokenizer *t =
        make(SPM_HEAD "'tokenizer.bos_token_id':1,"
                      "'tokenizer.vocabulary':['<unk>','<s>','\xE2\x96\x81','a','<x>','<0x20>'],"
                      "'tokenizer.scores':[0,0,-5,-5,0,0],'tokenizer.token_type':[2,3,1,1,4,6]}");
    expect(t, "a", TOKENIZER_ADD_SPECIAL, "1 2 3");
    expect(t, "a", 0, "2 3");
    expect(t, "a<x>a a", 0, "2 3 4 2 3 2 3");
    expect(t, "<x>", 0, "4");
    expect(t, "<s>a", TOKENIZER_PARSE_SPECIAL, "1 2 3");
    expect(t, "", TOKENIZER_ADD_SPECIAL, "1");
    size_t len;
    assert_int_equal(tokenizer_piece(t, 2, false, false, &len)[0], ' ');
    assert_int_equal(len, 1);
    tokenizer_piece(t, 2, false, true, &len);
    assert_int_equal(len, 0); /* the text's first space was ours */
    tokenizer_piece(t, 1, false, false, &len);
    assert_int_equal(len, 0);
    assert_memory_equal(tokenizer_piece(t, 1, true, false, &len), "<s>", 3);
    assert_int_equal(len, 3);
    tokenizer_free(t);
}

#define PLAIN "'tokenizer.model_type':'gpt2','tokenizer.pre_type':'gpt-2','tokenizer.merges':[],"

/* The longest occurrence first, then the leftmost: "ab" gives way to "bcd". */
static void tokenizer_encode_added_tokens_overlap(void **state)
{
    (void)state;
    struct tokenizer *t =
        make("{" PLAIN "'tokenizer.vocabulary':['a','b','c','d','ab','bcd','<e>','cc','ccc'],"
             "'tokenizer.token_type':[1,1,1,1,4,4,3,4,4]}");
    expect(t, "abcd", 0, "0 5");
    expect(t, "abcab", 0, "4 2 4");
    expect(t, "cccc", 0, "8 2");
    expect(t, "ccccc", 0, "8 7");
    expect(t, "a<e>b", TOKENIZER_PARSE_SPECIAL, "0 6 1");
    int32_t *ids;
    size_t n;
    struct err e = {0}; /* as text "<e>" has bytes without tokens */
    assert_int_equal(tokenizer_encode(t, "<e>", 3, 0, &ids, &n, &e), -ENOTSUP);
    tokenizer_free(t);
}

/* Phi-3 by the model's name: control tokens take the blanks behind them, <s> does not. */
static void tokenizer_encode_rstrip(void **state)
{
    (void)state;
    const char *json = "{'general.name':'Phi-3 mini'," PLAIN
                       "'tokenizer.vocabulary':['a','\xC4\xA0','<s>','<|end|>'],"
                       "'tokenizer.token_type':[1,1,3,3]}";
    struct tokenizer *t = make(json);
    expect(t, "a<|end|>  \n a", TOKENIZER_PARSE_SPECIAL, "0 3 0");
    expect(t, "a<s> a", TOKENIZER_PARSE_SPECIAL, "0 2 1 0");
    expect(t, "<|end|> ", TOKENIZER_PARSE_SPECIAL, "3");
    tokenizer_free(t);
}

static void tokenizer_encode_bos_and_eos(void **state)
{
    (void)state;
    static const struct {
        const char *keys, *want;
    } t[] = {
        {"'tokenizer.bos_token_id':1,'tokenizer.eos_token_id':2,", "0"},
        {"'tokenizer.bos_token_id':1,'tokenizer.add_bos_token':true,", "1 0"},
        {"'tokenizer.eos_token_id':2,'tokenizer.ggml.add_eos_token':true,", "0 2"},
        {"'tokenizer.bos_token_id':1,'tokenizer.eos_token_id':2,'tokenizer.add_bos_token':true,"
         "'tokenizer.add_eos_token':true,",
         "1 0 2"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char json[512];
        snprintf(json, sizeof json,
                 "{%s" PLAIN "'tokenizer.vocabulary':['a','<s>','</s>'],"
                 "'tokenizer.token_type':[1,3,3]}",
                 t[i].keys);
        struct tokenizer *k = make(json);
        expect(k, "a", TOKENIZER_ADD_SPECIAL, t[i].want);
        expect(k, "a", 0, "0");
        /* A text that begins with BOS gets no second one (server.md section 11). */
        if (i & 1)
            expect(k, "<s>a", TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, t[i].want);
        tokenizer_free(k);
    }
}

/* llama.cpp's list of spellings, and its exceptions for Harmony (<|end|> with <|return|> and
 * <|call|>) and Gemma 4 (</s> beside <|tool_response>). */
static void tokenizer_is_end_by_spelling(void **state)
{
    (void)state;
    static const struct {
        const char *vocabulary, *ends;
    } t[] = {
        {"['a','<|im_end|>','<|end|>','</s>','<|file_sep|>','<fim_prefix>']", ".++++."},
        {"['a','<|end|>','<|return|>','<|call|>']", "..++"},
        {"['a','</s>','<|tool_response>']", "..+"},
        {"['a','<|eom_id|>','<EOT>','[EOS]','x']", ".+++."},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char json[512];
        snprintf(json, sizeof json, "{" PLAIN "'tokenizer.vocabulary':%s}", t[i].vocabulary);
        struct tokenizer *k = make(json);
        for (uint32_t id = 0; id < tokenizer_n_vocab(k); id++)
            if (tokenizer_is_end(k, (int32_t)id) != (t[i].ends[id] == '+'))
                fail_msg("%s: token %u", t[i].vocabulary, id);
        assert_false(tokenizer_is_end(k, -1));
        assert_false(tokenizer_is_end(k, 1000));
        tokenizer_free(k);
    }
}

static void tokenizer_piece_out_of_range(void **state)
{
    (void)state;
    struct tokenizer *t = make("{" PLAIN "'tokenizer.vocabulary':['a']}");
    size_t len = 9;
    assert_null(tokenizer_piece(t, -1, true, true, &len));
    assert_int_equal(len, 0);
    assert_null(tokenizer_piece(t, 1, true, true, &len));
    assert_null(tokenizer_piece(t, INT32_MAX, true, true, &len));
    assert_non_null(tokenizer_piece(t, 0, true, true, &len));
    tokenizer_free(t);
}

static void tokenizer_new_refuses_by_name(void **state)
{
    (void)state;
#define GPT2 "'tokenizer.model_type':'gpt2','tokenizer.pre_type':'gpt-2'"
    static const struct {
        const char *json, *message;
        int rc;
    } t[] = {
        {"{}", "tokenizer.model_type is missing", -ENOENT},
        {"{'tokenizer.model_type':'bert'}", "tokenizer model 'bert'", -ENOTSUP},
        {"{'tokenizer.model_type':'t5'}", "tokenizer model 't5'", -ENOTSUP},
        {"{'tokenizer.model_type':'rwkv'}", "tokenizer model 'rwkv'", -ENOTSUP},
        {"{'tokenizer.model_type':'gpt2'}", "tokenizer.pre_type is missing", -ENOTSUP},
        {"{'tokenizer.model_type':'gpt2','tokenizer.pre_type':'xyz'}",
         "pre-tokenizer 'xyz' is not known", -ENOTSUP},
        {"{" GPT2 "}", "tokenizer.vocabulary is missing", -ENOENT},
        {"{" GPT2 ",'tokenizer.vocabulary':{}}", "tokenizer.vocabulary is no array", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':[]}", "tokenizer.vocabulary is empty", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a',7]}", "item 1 is no string", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a','b','a']}", "token 2 'a' is token 0 again",
         -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a']}", "tokenizer.merges is missing", -ENOENT},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.merges':'a b'}",
         "tokenizer.merges is no array", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.merges':['ab']}",
         "item 0 'ab' is no pair", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.merges':['a b',' b','']}",
         "item 1 ' b' is no pair", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.merges':['b ']}", "item 0 'b '",
         -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.merges':['a b',3]}",
         "item 1 is no string", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a','b'],'tokenizer.scores':[1],"
         "'tokenizer.merges':[]}",
         "tokenizer.scores has 1 items, the vocabulary 2", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.token_type':['x'],"
         "'tokenizer.merges':[]}",
         "tokenizer.token_type: item 0", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.token_type':[],"
         "'tokenizer.merges':[]}",
         "tokenizer.token_type has 0 items", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.merges':[],"
         "'tokenizer.bos_token_id':1}",
         "tokenizer.bos_token_id is 1, the vocabulary has 1 tokens", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.merges':[],"
         "'tokenizer.eos_token_id':'x'}",
         "tokenizer.eos_token_id is no integer", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.merges':[],"
         "'tokenizer.add_bos_token':1}",
         "tokenizer.add_bos_token is neither", -EUCLEAN},
        {"{" GPT2 ",'tokenizer.vocabulary':['a'],'tokenizer.merges':[],"
         "'tokenizer.add_bos_token':true}",
         "tokenizer.bos_token_id not", -EUCLEAN},
        {"{'tokenizer.model_type':'llama','tokenizer.vocabulary':['a']}",
         "tokenizer.scores is missing", -EUCLEAN},
        {"{'tokenizer.model_type':'llama','tokenizer.vocabulary':['a'],'tokenizer.scores':[null]}",
         "tokenizer.scores: item 0 is no number", -EUCLEAN},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        cJSON *meta = quick_json(t[i].json);
        struct tokenizer *k = NULL;
        struct err e = {0};
        int rc = tokenizer_new(&k, meta, NULL, &e);
        if (rc != t[i].rc || k || !strstr(e.msg, t[i].message))
            fail_msg("%s: %d '%s', want %d '%s'", t[i].json, rc, e.msg, t[i].rc, t[i].message);
        cJSON_Delete(meta);
    }
}

static void tokenizer_new_takes_another_pretokenizer(void **state)
{
    (void)state;
    cJSON *meta = quick_json("{'tokenizer.model_type':'gpt2','tokenizer.vocabulary':['1','11'],"
                             "'tokenizer.merges':['1 1']}");
    struct tokenizer *t = NULL;
    struct err e = {0};
    assert_int_equal(tokenizer_new(&t, meta, "gpt-2", &e), 0);
    expect(t, "11", 0, "1");
    tokenizer_free(t);
    assert_int_equal(tokenizer_new(&t, meta, "smollm", &e), 0); /* numbers stand alone */
    expect(t, "11", 0, "0 0");
    tokenizer_free(t);
    cJSON_Delete(meta);
}

static struct tokenizer *fixture(const char *name)
{
    cJSON *meta = fixture_meta(name);
    struct tokenizer *t = NULL;
    struct err e = {0};
    if (tokenizer_new(&t, meta, NULL, &e) < 0)
        fail_msg("%s: %s", name, e.msg);
    cJSON_Delete(meta);
    return t;
}

/* Valid text comes back byte for byte; the bytes of the longer runs were cut nowhere. */
static void round_trip(const struct tokenizer *t, const char *text, size_t len)
{
    int32_t *ids;
    size_t n, n_back;
    struct err e = {0};
    if (tokenizer_encode(t, text, len, 0, &ids, &n, &e) < 0)
        fail_msg("%s", e.msg);
    char *back = decode(t, ids, n, &n_back);
    if (n_back != len || memcmp(back, text, len) != 0)
        fail_msg("%zu bytes, %zu came back, '%.40s'", len, n_back, text);
    free(back);
    free(ids);
}

static void tokenizer_round_trip(void **state)
{
    (void)state;
    skip_under_tsan("starts no thread");
    static const char *const fixtures[] = {"ggml-vocab-gpt-2.gguf", "ggml-vocab-llama-spm.gguf"};
    for (int f = 0; f < 2; f++) {
        struct tokenizer *t = fixture(fixtures[f]);
        uint64_t seed = test_seed();
        for (int i = 0; i < 300; i++) {
            char text[400];
            size_t len = 0, n = 1 + seed % 60;
            while (len < n) { /* xorshift64*; any scalar value of Unicode, ASCII most of all */
                seed ^= seed >> 12;
                seed ^= seed << 25;
                seed ^= seed >> 27;
                uint32_t r = (uint32_t)(seed * 0x2545F4914F6CDD1D >> 32);
                uint32_t cp = r % 4 ? r >> 8 & 0x7F : (r >> 8) % 0x110000;
                if (cp >= 0xD800 && cp < 0xE000)
                    cp = 0xFDD0;
                uint8_t b[4];
                size_t k = cp < 0x80 ? (b[0] = (uint8_t)cp, 1u) : 0;
                if (k == 0) { /* UTF-8 (RFC 3629) */
                    k = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
                    for (size_t q = k; q-- > 1; cp >>= 6)
                        b[q] = (uint8_t)(0x80 | (cp & 0x3F));
                    b[0] = (uint8_t)((0xF00u >> k & 0xFF) | cp);
                }
                memcpy(text + len, b, k);
                len += k;
            }
            round_trip(t, text, len);
        }
        tokenizer_free(t);
    }
}

/* What would be quadratic if any rule scanned a run twice per character would not end here. */
static void tokenizer_encode_long_runs(void **state)
{
    (void)state;
    skip_under_tsan("starts no thread");
    static const char *const units[] = {" ", "a", "1", "!", "\n", "\xE4\xB8\xAD", " a", "\xCC\x81"};
    static const char *const pres[] = {"gpt-2", "llama-bpe", "deepseek-llm", "gpt-4o",
                                       "afmoe", "superbpe",  "exaone-moe",   "jais-2"};
    size_t size = 1 << 18;
    char *text = malloc(size + 8);
    cJSON *meta = fixture_meta("ggml-vocab-gpt-2.gguf");
    for (size_t p = 0; p <= sizeof pres / sizeof *pres; p++) {
        struct tokenizer *t = NULL;
        struct err e = {0};
        if (p < sizeof pres / sizeof *pres)
            assert_int_equal(tokenizer_new(&t, meta, pres[p], &e), 0);
        else
            t = fixture("ggml-vocab-llama-spm.gguf");
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t k = strlen(units[u]), len = size / k * k;
            for (size_t i = 0; i < len; i += k)
                memcpy(text + i, units[u], k);
            round_trip(t, text, len);
            text[len] = 'x'; /* an end that fails what looks ahead */
            round_trip(t, text, len + 1);
        }
        tokenizer_free(t);
    }
    cJSON_Delete(meta);
    free(text);
}

/* Bytes that are no UTF-8: BPE gives U+FFFD for each (tokens as llama.cpp's), SentencePiece gives
 * the bytes back. NUL is a character like any other. */
static void tokenizer_encode_hostile_bytes(void **state)
{
    (void)state;
    skip_under_tsan("starts no thread");
    static const struct {
        const char *in, *out;
        size_t n_in, n_out;
    } t[] = {
        {"a\xFF"
         "b",
         "a\xEF\xBF\xBD"
         "b",
         3, 5},
        {"\xC3", "\xEF\xBF\xBD", 1, 3},
        {"\xE4\xB8", "\xEF\xBF\xBD\xEF\xBF\xBD", 2, 6},
        {"\xED\xA0\x80", "\xED\xA0\x80", 3, 3}, /* a surrogate stays */
        {"\xC0\x80x", "\0x", 3, 2},             /* an overlong form becomes what it spells */
        {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", 4, 12},
        {"a\0b", "a\0b", 3, 3},
        {"\xEF\xB7\x90", "\xEF\xB7\x90", 3, 3}, /* U+FDD0 */
    };
    struct tokenizer *bpe = fixture("ggml-vocab-gpt-2.gguf");
    struct tokenizer *spm = fixture("ggml-vocab-llama-spm.gguf");
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        uint8_t *in = guard_new(t[i].in, t[i].n_in);
        int32_t *ids;
        size_t n, len;
        struct err e = {0};
        assert_int_equal(tokenizer_encode(bpe, (char *)in, t[i].n_in, 0, &ids, &n, &e), 0);
        char *back = decode(bpe, ids, n, &len);
        assert_int_equal(len, t[i].n_out);
        assert_memory_equal(back, t[i].out, len);
        free(back);
        free(ids);
        round_trip(spm, (char *)in, t[i].n_in);
        guard_free(in, t[i].n_in);
    }
    tokenizer_free(bpe);
    tokenizer_free(spm);
}

struct job {
    const struct tokenizer *t;
    size_t n;
};

static void *run_job(void *p)
{
    struct job *j = p;
    char text[3000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "the quick <brown> fox, 123\n"[i * 7 % 27];
    int32_t *ids = NULL;
    tokenizer_encode(j->t, text, sizeof text, TOKENIZER_PARSE_SPECIAL, &ids, &j->n, NULL);
    free(ids);
    return NULL;
}

static void tokenizer_encode_from_threads(void **state)
{
    (void)state;
    struct tokenizer *t = fixture("ggml-vocab-gpt-2.gguf");
    pthread_t th[4];
    struct job j[4];
    for (int i = 0; i < 4; i++) {
        j[i] = (struct job){t, 0};
        assert_int_equal(pthread_create(&th[i], NULL, run_job, &j[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(th[i], NULL);
    for (int i = 0; i < 4; i++) {
        assert_true(j[i].n > 0);
        assert_int_equal(j[i].n, j[0].n);
    }
    tokenizer_free(t);
}

/* GPT-2's map of bytes: '!' is itself, ' ' is U+0120, 0x7F is U+0121, 0xAD is U+0143. */
static void bpe_glyph_is_gpt2s(void **state)
{
    (void)state;
    assert_int_equal(bpe_glyph('!'), '!');
    assert_int_equal(bpe_glyph(0), 0x100);
    assert_int_equal(bpe_glyph(' '), 0x120);
    assert_int_equal(bpe_glyph('\n'), 0x10A);
    assert_int_equal(bpe_glyph(0x7F), 0x121);
    assert_int_equal(bpe_glyph(0xA0), 0x142);
    assert_int_equal(bpe_glyph(0xA1), 0xA1);
    assert_int_equal(bpe_glyph(0xAD), 0x143);
    for (int b = 0; b < 256; b++)
        assert_int_equal(bpe_byte(bpe_glyph((uint8_t)b)), b);
    assert_int_equal(bpe_byte(' '), -1);
    assert_int_equal(bpe_byte(0x144), -1);
}

/* Pieces of every rule, put together, are the text; each rule compiles to machine code or runs. */
static void split_text_keeps_all(void **state)
{
    (void)state;
    skip_under_tsan("starts no thread");
    static const char text[] =
        "Don't  stop\xC2\xA0\xE3\x80\x80 x\r\n\r\n 12345 \xE4\xB8\xAD\xE6\x96"
        "\x87 ABCdef/ghi's\t\t<sentinel:3>IMGIMGABZ e\xCC\x81\xF0\x9F\x98\x80";
    for (unsigned i = 0; pretok_at(i); i++) {
        struct split *s = NULL;
        struct err e = {0};
        if (split_new(&s, pretok_at(i), &e) < 0)
            fail_msg("%s", e.msg);
        struct split_run r = {0};
        assert_int_equal(split_text(s, &r, text, sizeof text - 1, &e), 0);
        assert_true(r.n_piece > 5);
        assert_int_equal(r.end[r.n_piece - 1], sizeof text - 1);
        for (size_t k = 1; k < r.n_piece; k++)
            assert_true(r.end[k] > r.end[k - 1]);
        assert_int_equal(split_text(s, &r, "", 0, &e), 0);
        assert_int_equal(r.n_piece, 0);
        split_run_release(&r);
        split_free(s);
    }
    assert_null(pretok_find("xyz"));
    assert_null(pretok_find(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_encode_bpe_rank_then_left),
        cmocka_unit_test(tokenizer_encode_bpe_left_in_long_pieces),
        cmocka_unit_test(tokenizer_encode_bpe_merge_without_token),
        cmocka_unit_test(tokenizer_encode_bpe_ignore_merges),
        cmocka_unit_test(tokenizer_encode_bpe_byte_without_token),
        cmocka_unit_test(tokenizer_encode_spm_score_then_left),
        cmocka_unit_test(tokenizer_encode_spm_space_prefix),
        cmocka_unit_test(tokenizer_encode_added_tokens_overlap),
        cmocka_unit_test(tokenizer_encode_rstrip),
        cmocka_unit_test(tokenizer_encode_bos_and_eos),
        cmocka_unit_test(tokenizer_is_end_by_spelling),
        cmocka_unit_test(tokenizer_piece_out_of_range),
        cmocka_unit_test(tokenizer_new_refuses_by_name),
        cmocka_unit_test(tokenizer_new_takes_another_pretokenizer),
        cmocka_unit_test(tokenizer_round_trip),
        cmocka_unit_test(tokenizer_encode_long_runs),
        cmocka_unit_test(tokenizer_encode_hostile_bytes),
        cmocka_unit_test(tokenizer_encode_from_threads),
        cmocka_unit_test(bpe_glyph_is_gpt2s),
        cmocka_unit_test(split_text_keeps_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
