/* generation_config.json: what is said and no more. That transformers reads it as meant is
 * scripts/check_sibling's. The meanings are llama.cpp's (src/llama-sampler.cpp: temperature 0 is greedy,
 * top_k 0 is all, penalty_last_n 0 is none; common/common.cpp reads the keys) and Ollama's (api.Options). */
#include "format/sibling.h"

#include "tests/vapr_support.h"

#include <errno.h>
#include <string.h>

/* The text for that file and those parameters, or the reason against it; malloc'ed. */
static char *text_of(const struct gguf_build *b, const char *params, int *rc)
{
    struct made m;
    struct err e = {0};
    char *text = NULL;
    size_t n = 0;
    made_open_ok(&m, b);
    *rc = sibling_generation(m.g, ARCH_VALUES_REFERENCE, params, &text, &n, &e);
    assert_int_equal(sibling_has_generation(m.g, params, NULL), *rc);
    char *out = *rc == 0 ? strndup(text, n) : strdup(e.msg);
    free(text);
    made_close(&m);
    return out;
}

static void expect(const struct gguf_build *b, const char *params, int rc, const char *want)
{
    int got;
    char *text = text_of(b, params, &got);
    if (got != rc || strcmp(text, want))
        fail_msg("%s: %d, '%s'; expected %d, '%s'", params ? params : "", got, text, rc, want);
    free(text);
}

/* A llama whose keys say <s> 1, </s> 2 (gguf_build's SentencePiece), and nothing of sampling. */
static struct gguf_build *silent(void)
{
    return gguf_build_llama_like("llama", NULL);
}

#define IDS    "\"bos_token_id\":1,"
#define END    "\"eos_token_id\":2"
#define NO     "no generation_config.json: "
#define SILENT NO "nothing is said of sampling"

static void generation_says_nothing_by_itself(void **state)
{
    (void)state;
    struct gguf_build *b = silent();
    expect(b, NULL, -ENODATA, SILENT);
    expect(b, "", -ENODATA, SILENT);
    expect(b, "{}", -ENODATA, SILENT);
    /* What has no key there, alone: the context's length, a seed, a number for "without end". */
    expect(b, "{\"num_ctx\":4096,\"seed\":7,\"num_predict\":-1,\"repeat_last_n\":64,\"stop\":[]}",
           -ENODATA, SILENT);
    expect(b, "{\"temperature\":null,\"presence_penalty\":1}", -ENODATA, SILENT);
    gguf_build_f32(b, "general.sampling.xtc_probability", 0.5f);
    expect(b, NULL, -ENODATA, SILENT);
    gguf_build_free(b);
}

static void generation_takes_the_files_keys(void **state)
{
    (void)state;
    struct gguf_build *b = silent();
    /* As llama.cpp's converter writes them (gguf-py, add_sampling_*): i32 and f32. */
    gguf_build_i32(b, "general.sampling.top_k", 20);
    gguf_build_f32(b, "general.sampling.top_p", 0.95f);
    gguf_build_f32(b, "general.sampling.min_p", 0);
    gguf_build_f32(b, "general.sampling.temp", 0.6f);
    gguf_build_f32(b, "general.sampling.penalty_repeat", 1.05f);
    expect(b, NULL, 0,
           "{" IDS "\"do_sample\":true," END
           ",\"min_p\":0.0,\"repetition_penalty\":1.05,\"temperature\":0.6,"
           "\"top_k\":20,\"top_p\":0.95}");
    gguf_build_i32(b, "general.sampling.penalty_last_n", 0); /* then nothing is punished */
    gguf_build_i32(b, "general.sampling.top_k", -1);         /* and all tokens take part */
    gguf_build_f32(b, "general.sampling.temp", 1); /* a float where floats are asked for */
    expect(b, NULL, 0,
           "{" IDS "\"do_sample\":true," END
           ",\"min_p\":0.0,\"temperature\":1.0,\"top_k\":0,\"top_p\":0.95}");
    gguf_build_free(b);
}

static void generation_takes_the_stores_parameters(void **state)
{
    (void)state;
    struct gguf_build *b = silent();
    expect(b, "{\"stop\":[\"<|im_end|>\",\"\\\"\"]}", 0,
           "{" IDS END ",\"stop_strings\":[\"<|im_end|>\",\"\\\"\"]}");
    expect(b, "{\"stop\":\"###\",\"num_predict\":128}", 0,
           "{" IDS END ",\"max_new_tokens\":128,\"stop_strings\":[\"###\"]}");
    expect(b, "{\"temperature\":0.7,\"typical_p\":0.5,\"repeat_penalty\":1}", 0,
           "{" IDS "\"do_sample\":true," END
           ",\"repetition_penalty\":1.0,\"temperature\":0.7,\"typical_p\":0.5}");
    /* Greedy: the others have nothing left to choose from, and transformers warns of them. */
    expect(b, "{\"temperature\":0,\"top_k\":40,\"top_p\":0.9,\"repeat_penalty\":1.1}", 0,
           "{" IDS "\"do_sample\":false," END ",\"repetition_penalty\":1.1}");
    /* Setting by setting the store counts before the file. */
    gguf_build_f32(b, "general.sampling.temp", 0.6f);
    gguf_build_i32(b, "general.sampling.top_k", 20);
    expect(b, "{\"temperature\":0.2}", 0,
           "{" IDS "\"do_sample\":true," END ",\"temperature\":0.2,\"top_k\":20}");
    gguf_build_free(b);
}

/* What llama.cpp's sequence of samplers leaves out is not obeyed, whatever its key says. */
static void generation_obeys_the_sequence(void **state)
{
    (void)state;
    struct gguf_build *b = silent();
    gguf_build_i32(b, "general.sampling.top_k", 20);
    gguf_build_f32(b, "general.sampling.top_p", 0.9f);
    gguf_build_f32(b, "general.sampling.min_p", 0.1f);
    gguf_build_f32(b, "general.sampling.temp", 0.6f);
    gguf_build_f32(b, "general.sampling.penalty_repeat", 1.1f);
    static const struct {
        const char *sequence, *said;
    } cases[] = {
        {"penalties;top_k;top_p;min_p;temperature",
         ",\"min_p\":0.1,\"repetition_penalty\":1.1,\"temperature\":0.6,\"top_k\":20,\"top_p\":0."
         "9"},
        {"top-k;temp", ",\"temperature\":0.6,\"top_k\":20"},
        {"NUCLEUS;minp", ",\"min_p\":0.1,\"top_p\":0.9"},
        {"dry;topk", ",\"top_k\":20"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char want[256];
        gguf_build_str(b, "general.sampling.sequence", cases[i].sequence);
        snprintf(want, sizeof want, "{" IDS "\"do_sample\":true," END "%s}", cases[i].said);
        expect(b, NULL, 0, want);
    }
    gguf_build_str(b, "general.sampling.sequence", "penalties");
    expect(b, NULL, 0, "{" IDS END ",\"repetition_penalty\":1.1}");
    gguf_build_str(b, "general.sampling.sequence", "top_kk;;temperatur");
    expect(b, NULL, -ENODATA, SILENT);
    gguf_build_u32(b, "general.sampling.sequence", 1);
    expect(b, NULL, -EUCLEAN, NO "general.sampling.sequence is no text");
    gguf_build_free(b);
}

static void generation_names_all_ends(void **state)
{
    (void)state;
    static const char params[] = "{\"top_k\":1}";
    struct gguf_build *b = silent();
    gguf_build_u32(b, "tokenizer.ggml.eot_token_id", 5);
    gguf_build_u32(b, "tokenizer.ggml.eom_token_id", 5);
    gguf_build_u32(b, "tokenizer.ggml.padding_token_id", 0);
    expect(b, params, 0,
           "{" IDS "\"do_sample\":true,\"eos_token_id\":[2,5],\"pad_token_id\":0,\"top_k\":1}");
    gguf_build_u32(b, "tokenizer.ggml.eom_token_id", 2);
    gguf_build_u32(b, "tokenizer.ggml.eot_token_id", 2);
    expect(b, params, 0, "{" IDS "\"do_sample\":true," END ",\"pad_token_id\":0,\"top_k\":1}");
    gguf_build_free(b);
}

static void generation_refuses_what_no_key_can_say(void **state)
{
    (void)state;
    static const struct {
        const char *params;
        int rc;
        const char *why;
    } bad[] = {
        {"{\"temperature\":\"hot\"}", -EUCLEAN, "params: temperature is no number"},
        {"{\"temperature\":[0.5]}", -EUCLEAN, "params: temperature is no number"},
        {"{\"top_p\":1.5}", -EUCLEAN, "params: top_p is 1.5, no value that the setting can have"},
        {"{\"top_k\":1.5}", -EUCLEAN, "params: top_k is 1.5, expected a whole number"},
        {"{\"top_k\":1e12}", -EUCLEAN,
         "params: top_k is 1e+12, no value that the setting can have"},
        {"{\"typical_p\":0}", -EUCLEAN,
         "params: typical_p is 0, no value that the setting can have"},
        {"{\"repeat_penalty\":0}", -EUCLEAN,
         "params: repeat_penalty is 0, no value that the setting can have"},
        {"{\"stop\":7}", -EUCLEAN, "params: stop is no text and no list of texts"},
        {"{\"stop\":[\"a\",7]}", -EUCLEAN, "params: stop is no text and no list of texts"},
        {"{\"stop\":[\"\"]}", -EUCLEAN, "params: stop is no text and no list of texts"},
        {"{\"mirostat\":2,\"top_k\":5}", -ENOTSUP,
         "it asks for mirostat, which Hugging Face's keys do not have"},
    };
    struct gguf_build *b = silent();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char want[256];
        snprintf(want, sizeof want, NO "%s", bad[i].why);
        expect(b, bad[i].params, bad[i].rc, want);
    }
    gguf_build_str(b, "general.sampling.temp", "0.6");
    expect(b, NULL, -EUCLEAN, NO "general.sampling.temp is no number");
    gguf_build_f32(b, "general.sampling.temp", -1); /* greedy, as 0 */
    expect(b, NULL, 0, "{" IDS "\"do_sample\":false," END "}");
    gguf_build_f32(b, "general.sampling.temp", __builtin_nanf(""));
    int rc;
    char *text = text_of(b, NULL, &rc);
    assert_int_equal(rc, -EUCLEAN);
    free(text);
    gguf_build_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generation_says_nothing_by_itself),
        cmocka_unit_test(generation_takes_the_files_keys),
        cmocka_unit_test(generation_takes_the_stores_parameters),
        cmocka_unit_test(generation_obeys_the_sequence),
        cmocka_unit_test(generation_names_all_ends),
        cmocka_unit_test(generation_refuses_what_no_key_can_say),
    };
    return cmocka_run_group_tests_name("sibling_generation", tests, NULL, NULL);
}
