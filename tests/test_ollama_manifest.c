/* Ollama's manifests. The good ones have the shape that Ollama writes (Go's encoding/json of its
 * type Manifest, a newline behind); the bad ones break one field each. */
#include "format/ollama_manifest.h"
#include "tests/support.h"

#include <errno.h>
#include <limits.h>

#define H(c)   c c c c c c c c
#define HEX(c) H(c) H(c) H(c) H(c) H(c) H(c) H(c) H(c) /* 64 times one digit */
#define DOCKER "\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\""
#define HEAD   "{\"schemaVersion\":2," DOCKER ","
#define CONFIG                                                                                     \
    "\"config\":{\"mediaType\":\"application/vnd.docker.container.image.v1+json\","                \
    "\"digest\":\"sha256:" HEX("a") "\",\"size\":487}"
#define LAYER(type, hex, size)                                                                     \
    "{\"mediaType\":\"application/vnd.ollama.image." type "\",\"digest\":\"sha256:" hex            \
    "\",\"size\":" size "}"

static int parse(struct ollama_manifest **m, const char *text, struct err *e)
{
    /* Ends at an unmapped page: a byte too far is a signal. */
    uint8_t *p = guard_new(text, strlen(text));
    *m = NULL;
    int rc = ollama_manifest_parse(m, (const char *)p, strlen(text), e);
    guard_free(p, strlen(text));
    return rc;
}

static void ollama_manifest_reads_what_ollama_writes(void **state)
{
    (void)state;
    struct ollama_manifest *m;
    struct err e = {0};
    assert_int_equal(
        parse(&m,
              HEAD
                  CONFIG ",\"layers\":[" LAYER(
                      "model", HEX("b"),
                      "4661211808") ","
                                    "{\"mediaType\":\"application/"
                                    "vnd.ollama.image.projector\",\"digest\":\"sha256-" HEX("C") "\",\"size\":1,\"from\":\"/root/.ollama/models/blobs/sha256-" HEX(
                                        "c") "\"}," LAYER("adapter", HEX("d"),
                                                          "2") "," LAYER("template", HEX("e"),
                                                                         "3") "," LAYER("license",
                                                                                        HEX("e"),
                                                                                        "4") "," LAYER("params",
                                                                                                       HEX("f"),
                                                                                                       "5") "]}\n",
              &e),
        0);
    assert_true(m->has_config);
    assert_string_equal(m->config.sha256, HEX("a"));
    assert_int_equal(m->config.size, 487);
    static const enum ollama_layer_kind want[] = {
        OLLAMA_LAYER_MODEL, OLLAMA_LAYER_PROJECTOR, OLLAMA_LAYER_ADAPTER,
        OLLAMA_LAYER_OTHER, OLLAMA_LAYER_OTHER,     OLLAMA_LAYER_PARAMS,
    };
    assert_int_equal(m->n_layer, sizeof want / sizeof *want);
    for (size_t i = 0; i < m->n_layer; i++)
        assert_int_equal(m->layer[i].kind, want[i]);
    assert_int_equal(m->layer[0].size, 4661211808);
    assert_string_equal(m->layer[1].sha256, HEX("c")); /* lower case */
    assert_false(m->safetensors || m->is_list || m->mlx);
    ollama_manifest_free(m);
}

static void ollama_manifest_tells_safetensors(void **state)
{
    (void)state;
    static const char *const text[] = {
        HEAD CONFIG ",\"layers\":[" LAYER("tensor", HEX("b"), "7") "]}",
        HEAD CONFIG ",\"layers\":[" LAYER("tensor; dtype=BF16", HEX("b"), "7") "]}",
        HEAD CONFIG ",\"layers\":[],\"runner\":\"mlx\",\"format\":\"safetensors\"}",
    };
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        struct ollama_manifest *m;
        struct err e = {0};
        assert_int_equal(parse(&m, text[i], &e), 0);
        assert_true(m->safetensors);
        ollama_manifest_free(m);
    }
}

/* A model that runs elsewhere, and a manifest without anything. */
static void ollama_manifest_may_have_no_layers(void **state)
{
    (void)state;
    struct ollama_manifest *m;
    struct err e = {0};
    assert_int_equal(parse(&m, HEAD CONFIG ",\"layers\":null}", &e), 0);
    assert_int_equal(m->n_layer, 0);
    ollama_manifest_free(m);
    assert_int_equal(parse(&m,
                           HEAD "\"config\":{\"mediaType\":\"\",\"digest\":\"\",\"size\":0},"
                                "\"layers\":[]}",
                           &e),
                     0);
    assert_false(m->has_config);
    ollama_manifest_free(m);
}

#define CHILD(runner, format, hex)                                                                 \
    "{" DOCKER ",\"digest\":\"sha256:" hex "\",\"runner\":\"" runner "\",\"format\":\"" format "\"}"
#define LIST                                                                                       \
    "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.ollama.manifest.list.v2+json\","         \
    "\"manifests\":["

static void ollama_manifest_picks_of_a_list_what_ollama_would_run(void **state)
{
    (void)state;
    struct ollama_manifest *m;
    struct err e = {0};
    assert_int_equal(
        parse(&m,
              LIST CHILD("mlx", "safetensors", HEX("1")) "," CHILD(
                  "llamacpp", "gguf", HEX("2")) "," CHILD("Ollama", "gguf", HEX("3")) "]}",
              &e),
        0);
    assert_true(m->is_list);
    assert_int_equal(m->n_child, 3);
    assert_string_equal(ollama_manifest_pick(m)->ref, HEX("3"));
    ollama_manifest_free(m);
    assert_int_equal(parse(&m, LIST CHILD("vllm", "gguf", HEX("1")) "]}", &e), 0);
    assert_null(ollama_manifest_pick(m));
    assert_int_equal(m->child[0].rank, INT_MAX);
    ollama_manifest_free(m);
    /* A child that is the manifest itself. */
    assert_int_equal(parse(&m,
                           LIST HEAD "\"runner\":\"llamacpp\"," CONFIG
                                     ",\"layers\":[" LAYER("model", HEX("b"), "9") "]}]}",
                           &e),
                     0);
    assert_string_equal(ollama_manifest_pick(m)->ref, "");
    assert_int_equal(ollama_manifest_pick(m)->layer[0].size, 9);
    ollama_manifest_free(m);
}

static void ollama_manifest_names_each_bad_field(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int rc;
        const char *msg; /* what it must hold */
    } bad[] = {
        {"", -EUCLEAN, "ended where a value"},
        {"[]", -EUCLEAN, "not a JSON object"},
        {"{\"schemaVersion\":2", -EUCLEAN, "JSON, byte 18"},
        {"{\"schemaVersion\":2,\"schemaVersion\":2}", -EUCLEAN, "stands twice"},
        {"{}", -EUCLEAN, "schemaVersion is no number"},
        {"{\"schemaVersion\":1}", -ENOTSUP, "schemaVersion is 1, only 2 is known"},
        {"{\"schemaVersion\":2,\"mediaType\":7}", -EUCLEAN, "mediaType is no text"},
        {HEAD "\"config\":[]}", -EUCLEAN, "config is no object"},
        {HEAD "\"config\":{\"digest\":7}}", -EUCLEAN, "config.digest is no text"},
        {HEAD "\"layers\":{}}", -EUCLEAN, "layers is no list"},
        {HEAD "\"layers\":[7]}", -EUCLEAN, "layers[0] is no object"},
        {HEAD "\"layers\":[{\"mediaType\":7}]}", -EUCLEAN, "layers[0].mediaType is no text"},
        {HEAD "\"layers\":[" LAYER("model", HEX("a"), "-1") "]}", -EUCLEAN,
         "layers[0].size is no number of bytes"},
        {HEAD "\"layers\":[" LAYER("model", HEX("a"), "1.5") "]}", -EUCLEAN, "layers[0].size"},
        {HEAD "\"layers\":[" LAYER("model", HEX("a"), "9007199254740992") "]}", -EUCLEAN,
         "layers[0].size"},
        {HEAD
         "\"layers\":[" LAYER("model", HEX("a"), "1") "," LAYER("model", "a/../../x", "1") "]}",
         -EINVAL, "layers[1].digest is 'sha256:a/../../x'"},
        {HEAD "\"layers\":[" LAYER("model", HEX("g"), "1") "]}", -EINVAL, "layers[0].digest"},
        {HEAD "\"layers\":[" LAYER("model", HEX("a") "0", "1") "]}", -EINVAL, "layers[0].digest"},
        {HEAD "\"layers\":[{\"mediaType\":\"\",\"size\":1}]}", -EINVAL, "layers[0].digest is ''"},
        {HEAD "\"layers\":[{\"mediaType\":\"\",\"digest\":\"sha256:\\u001b[2J\",\"size\":1}]}",
         -EINVAL, "'sha256:\\033[2J'"},
        {HEAD "\"layers\":[{\"name\":[],\"mediaType\":\"\"}]}", -EUCLEAN, "layers[0].name"},
        {HEAD "\"runner\":{}}", -EUCLEAN, "runner is no text"},
        {LIST "7]}", -EUCLEAN, "manifests[0] is no object"},
        {LIST LIST "]}]}", -EUCLEAN, "manifests[0] is a list inside a list"},
        {LIST "{\"digest\":\"sha512:00\"}]}", -EINVAL, "manifests[0].digest is 'sha512:00'"},
        {LIST "{}]}", -EUCLEAN, "manifests[0].schemaVersion is no number"},
        {LIST "{\"layers\":[{\"digest\":7}]}]}", -EUCLEAN, "manifests[0].layers[0].digest"},
        {"{\"schemaVersion\":2,\"mediaType\":\"application/vnd.ollama.manifest.list.v2+json\"}",
         -EUCLEAN, "manifests is no list"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct ollama_manifest *m;
        struct err e = {0};
        int rc = parse(&m, bad[i].text, &e);
        if (rc != bad[i].rc || !strstr(e.msg, bad[i].msg))
            fail_msg("%s: %d \"%s\", expected %d \"%s\"", bad[i].text, rc, e.msg, bad[i].rc,
                     bad[i].msg);
        assert_null(m);
    }
}

static void ollama_manifest_has_a_limit(void **state)
{
    (void)state;
    struct ollama_manifest *m = NULL;
    struct err e = {0};
    char *p = malloc(OLLAMA_MANIFEST_MAX + 1);
    assert_non_null(p);
    memset(p, ' ', OLLAMA_MANIFEST_MAX + 1);
    memcpy(p, HEAD "\"layers\":[]}", strlen(HEAD "\"layers\":[]}"));
    assert_int_equal(ollama_manifest_parse(&m, p, OLLAMA_MANIFEST_MAX, &e), 0);
    ollama_manifest_free(m);
    m = NULL;
    assert_int_equal(ollama_manifest_parse(&m, p, OLLAMA_MANIFEST_MAX + 1, &e), -ERANGE);
    assert_null(m);
    free(p);
}

static void ollama_config_says_where_weights_are(void **state)
{
    (void)state;
    struct ollama_config c;
    struct err e = {0};
    static const char gguf[] =
        "{\"model_format\":\"gguf\",\"model_family\":\"qwen2\",\"model_families\":[\"qwen2\"],"
        "\"model_type\":\"494.03M\",\"file_type\":\"Q4_K_M\",\"generation_defaults\":{\"top_k\":20,"
        "\"temperature\":0.6},\"architecture\":\"amd64\",\"os\":\"linux\"}";
    assert_int_equal(ollama_config_parse(&c, gguf, strlen(gguf), &e), 0);
    assert_false(c.safetensors || c.remote);
    assert_string_equal(c.defaults, "{\"top_k\":20,\"temperature\":0.6}");
    ollama_config_release(&c);
    static const char other[] = "{\"model_format\":\"safetensors\"}";
    assert_int_equal(ollama_config_parse(&c, other, strlen(other), &e), 0);
    assert_true(c.safetensors && !c.remote && !c.defaults);
    static const char cloud[] =
        "{\"model_format\":\"\",\"remote_host\":\"https://ollama.com:443\",\"remote_model\":\"x\"}";
    assert_int_equal(ollama_config_parse(&c, cloud, strlen(cloud), &e), 0);
    assert_true(c.remote);
    assert_int_equal(ollama_config_parse(&c, "{\"model_format\":1}", 18, &e), -EUCLEAN);
    assert_int_equal(ollama_config_parse(&c, "{\"generation_defaults\":1}", 25, &e), -EUCLEAN);
    assert_int_equal(ollama_config_parse(&c, "7", 1, &e), -EUCLEAN);
}

/* The grammar of names, part by part. */
static void ollama_part_follows_the_grammar(void **state)
{
    (void)state;
    char host[352], tag[82];
    memset(host, 'a', sizeof host);
    memset(tag, 'a', sizeof tag);
    host[351] = tag[81] = '\0';
    assert_false(ollama_part_ok(OLLAMA_HOST, host));
    host[350] = '\0';
    assert_true(ollama_part_ok(OLLAMA_HOST, host));
    assert_false(ollama_part_ok(OLLAMA_TAG, tag));
    tag[80] = '\0';
    assert_true(ollama_part_ok(OLLAMA_TAG, tag));
    static const char *const all[] = {"library", "_x", "0", "a-b_c", "A-"};
    static const char *const none[] = {"",    ".",   "..",   "-a",       ".a",
                                       "a/b", "a b", "a\nb", "\xc3\xa9", "a+b"};
    for (int k = OLLAMA_HOST; k <= OLLAMA_TAG; k++) {
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            assert_true(ollama_part_ok((enum ollama_part)k, all[i]));
        for (size_t i = 0; i < sizeof none / sizeof *none; i++)
            assert_false(ollama_part_ok((enum ollama_part)k, none[i]));
        assert_int_equal(ollama_part_ok((enum ollama_part)k, "a.b"), k != OLLAMA_NAMESPACE);
        assert_int_equal(ollama_part_ok((enum ollama_part)k, "a:1"), k == OLLAMA_HOST);
    }
    assert_true(ollama_public_host("registry.ollama.ai") && ollama_public_host("Ollama.com"));
    assert_false(ollama_public_host("ollama.com.example.org"));
}

static void ollama_digest_is_sha256_alone(void **state)
{
    (void)state;
    char hex[OLLAMA_HEX_SIZE];
    assert_true(ollama_digest(hex, "sha256:" HEX("a")));
    assert_true(ollama_digest(hex, "sha256-" HEX("F")));
    assert_string_equal(hex, HEX("f"));
    static const char *const bad[] = {"",
                                      "sha256",
                                      "sha256:",
                                      "sha256_" HEX("a"),
                                      "SHA256:" HEX("a"),
                                      "sha512:" HEX("a"),
                                      "sha256:" HEX("a") "a",
                                      "sha256-" HEX("a") "-partial"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(ollama_digest(hex, bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ollama_manifest_reads_what_ollama_writes),
        cmocka_unit_test(ollama_manifest_tells_safetensors),
        cmocka_unit_test(ollama_manifest_may_have_no_layers),
        cmocka_unit_test(ollama_manifest_picks_of_a_list_what_ollama_would_run),
        cmocka_unit_test(ollama_manifest_names_each_bad_field),
        cmocka_unit_test(ollama_manifest_has_a_limit),
        cmocka_unit_test(ollama_config_says_where_weights_are),
        cmocka_unit_test(ollama_part_follows_the_grammar),
        cmocka_unit_test(ollama_digest_is_sha256_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
