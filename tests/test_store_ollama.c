/* Ollama's store: each case of the design of stores, sections 2.2, 3, 5 and 6. The layout is the one
 * that Ollama's package manifest writes (October 2026) and its older one. */
#include "format/json.h"
#include "format/store.h"
#include "tests/ollama_build.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define PUBLIC "manifests/registry.ollama.ai/library/"
#define STEM   "built-for-a-test-F32" /* gguf_build's general.name and its type */
#define ZERO8  "00000000"
#define ZEROS  ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8

static const struct store_options automatic = {.kind = STORE_AUTO, .plan = true};

static void expect(const char *root, const char *entries, const char *problems)
{
    tree_expect(root, &automatic, entries, problems);
}

/* A name with one model of that seed and nothing else. */
static void simple(const char *root, const char *way, uint64_t seed)
{
    struct ollama_build o = {.root = root};
    ollama_model(&o, "model", seed);
    ollama_manifest(&o, way, NULL);
}

/* Fixture -> the whole tree: stems by general.name, for files are called by hashes. */
static void store_ollama_tree_is_exact(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root};
    ollama_model(&o, "model", 1);
    ollama_layer(&o, "template", "{{ .Prompt }}", 13);
    ollama_layer(&o, "license", "MIT", 3);
    ollama_layer(&o, "params", "{\"stop\":[\"<|im_end|>\"]}", 23);
    const char *text = ollama_manifest(&o, PUBLIC "qwen2.5/0.5b", NULL);
    char revision[65];
    snprintf(revision, sizeof revision, "%s", tree_blob(root, text, strlen(text)));
    ollama_manifest(&o, PUBLIC "qwen2.5/latest", NULL);
    simple(root, "manifests/registry.ollama.ai/someone/tiny/v1", 2);
    simple(root, "manifests/hf.co/bartowski/Qwen-GGUF/Q4_K_M", 3);
    simple(root, "manifests/localhost:5000/me/x/latest", 4);
    tree_text(root, "manifests/.DS_Store", "Bud1");
    tree_text(root, "blobs/sha256-" ZEROS "-partial", "GGUF half");
    tree_text(root, "blobs/sha256-" ZEROS "-partial-0", "{}");
    tree_text(root, "blobs/sha256-123456", "a file being made");
    expect(root,
           "model 0 hf.co+bartowski/Qwen-GGUF/" STEM " <- "
           "hf.co/bartowski/Qwen-GGUF:Q4_K_M|manifests/hf.co/bartowski/Qwen-GGUF/Q4_K_M\n"
           "model 0 library/qwen2.5/" STEM " <- qwen2.5:0.5b|" PUBLIC
           "qwen2.5/0.5b|qwen2.5:latest|qwen2.5|" PUBLIC "qwen2.5/latest\n"
           "model 0 localhost_5000+me/x/" STEM " <- "
           "localhost:5000/me/x:latest|localhost:5000/me/x|manifests/localhost:5000/me/x/latest\n"
           "model 0 someone/tiny/" STEM " <- "
           "someone/tiny:v1|manifests/registry.ollama.ai/someone/tiny/v1\n",
           "EAGAIN blobs/sha256-" ZEROS "-partial: download in progress\n");
    struct store *s = tree_scan(root, &automatic);
    const struct store_entry *en = &s->entry[1];
    assert_int_equal(s->kind, STORE_OLLAMA);
    assert_string_equal(en->revision, revision);
    assert_string_equal(en->part[0].sha256, o.first);
    assert_int_equal(en->part[0].how, STORE_HOW_STRICT);
    assert_string_equal(en->params, "{\"stop\":[\"<|im_end|>\"]}");
    struct store_plan *p = NULL;
    assert_int_equal(store_plan_open(&p, s, en, NULL), 0);
    store_plan_close(p);
    store_free(s);
    free(root);
}

/* Metadata gives the stem before the tag does, so that two tags have one wish: one entry. */
static void named_model(struct ollama_build *o)
{
    size_t len;
    struct gguf_build *b = tree_model_new(1);
    gguf_build_str(b, "general.basename", "Qwen2.5");
    gguf_build_str(b, "general.size_label", "0.5B");
    gguf_build_str(b, "general.finetune", "Instruct");
    uint8_t *p = gguf_build_bytes(b, &len);
    ollama_layer(o, "model", p, len);
    free(p);
    gguf_build_free(b);
}

static void store_ollama_two_tags_are_one_entry(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root}, other = {.root = root};
    named_model(&o);
    ollama_manifest(&o, PUBLIC "qwen2.5/0.5b", NULL);
    ollama_manifest(&o, PUBLIC "qwen2.5/latest", NULL);
    expect(root,
           "model 0 library/qwen2.5/Qwen2.5-0.5B-Instruct-F32 <- qwen2.5:0.5b|" PUBLIC
           "qwen2.5/0.5b|qwen2.5:latest|qwen2.5|" PUBLIC "qwen2.5/latest\n",
           "");
    /* Another tag of the same blob with its own parameters is another model. */
    named_model(&other);
    ollama_layer(&other, "params", "{\"temperature\":2}", 17);
    ollama_manifest(&other, PUBLIC "qwen2.5/wild", NULL);
    struct store *s = tree_scan(root, &automatic);
    assert_int_equal(s->n_entry, 2);
    store_free(s);
    free(root);
}

static void store_ollama_last_model_layer_wins(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root}, last = {.root = root};
    ollama_model(&o, "model", 1);
    ollama_model(&o, "model", 2);
    ollama_model(&last, "model", 2);
    ollama_manifest(&o, PUBLIC "m/1", NULL);
    struct store *s = tree_scan(root, &automatic);
    assert_int_equal(s->n_entry, 1);
    assert_int_equal(s->entry[0].n_part, 1);
    assert_string_equal(s->entry[0].part[0].sha256, last.first);
    store_free(s);
    free(root);
}

/* In whatever order the manifest has them. */
static void store_ollama_joins_shards(void **state)
{
    (void)state;
    static const int order[] = {2, 0, 1};
    for (int n_given = 3; n_given >= 2; n_given--) {
        char *root = temp_dir();
        struct ollama_build o = {.root = root};
        struct gguf_build *b = tree_model_new(1);
        for (int i = 0; i < n_given; i++) {
            size_t len;
            uint8_t *p = gguf_build_shard(b, order[i], 3, &len);
            ollama_layer(&o, "model", p, len);
            free(p);
        }
        gguf_build_free(b);
        ollama_manifest(&o, PUBLIC "m/1", NULL);
        struct store *s = tree_scan(root, &automatic);
        assert_int_equal(s->n_entry, 1);
        assert_int_equal(s->entry[0].n_part, n_given);
        assert_int_equal(s->entry[0].rc, n_given == 3 ? 0 : -ENOENT);
        if (n_given == 2) /* shards 1 and 3 are there */
            assert_non_null(strstr(s->entry[0].why, "shard 2 of 3 is missing"));
        store_free(s);
        free(root);
    }
}

static void store_ollama_tells_roles(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root};
    size_t len;
    ollama_model(&o, "model", 1);
    tree_projector(root, "p.gguf");
    tree_adapter(root, "a.gguf");
    char *path[] = {path_join(root, "p.gguf"), path_join(root, "a.gguf")};
    uint8_t *p = file_read(path[0], &len);
    ollama_layer(&o, "projector", p, len);
    free(p);
    p = file_read(path[1], &len);
    ollama_layer(&o, "adapter", p, len);
    free(p);
    ollama_manifest(&o, PUBLIC "llava/7b", NULL);
    expect(root,
           "model 0 library/llava/" STEM " <- llava:7b|" PUBLIC "llava/7b\n"
           "adapter 0 library/llava/llava-7b-F32 <- " PUBLIC "llava/7b#layer2\n"
           "projector 0 library/llava/mmproj-llava-7b-F32 <- " PUBLIC "llava/7b#layer1\n",
           "");
    free(path[0]);
    free(path[1]);
    free(root);
}

static void store_ollama_names_what_is_no_gguf(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build tensors = {.root = root}, st = {.root = root}, cloud = {.root = root},
                        none = {.root = root};
    ollama_layer(&tensors, "tensor", "x", 1);
    ollama_manifest(&tensors, PUBLIC "a/tensors", NULL);
    ollama_layer(&st, "model", "y", 1);
    ollama_manifest(&st, PUBLIC "b/config", "{\"model_format\":\"safetensors\"}");
    ollama_manifest(&cloud, PUBLIC "c/cloud",
                    "{\"remote_host\":\"https://ollama.com:443\",\"remote_model\":\"c\"}");
    ollama_layer(&none, "license", "MIT", 3);
    ollama_manifest(&none, PUBLIC "d/none", NULL);
    expect(root,
           "unsupported EOPNOTSUPP - <- a:tensors|" PUBLIC "a/tensors\n"
           "unsupported EOPNOTSUPP - <- b:config|" PUBLIC "b/config\n"
           "unsupported EOPNOTSUPP - <- c:cloud|" PUBLIC "c/cloud\n"
           "unsupported EOPNOTSUPP - <- d:none|" PUBLIC "d/none\n",
           "EOPNOTSUPP " PUBLIC "a/tensors: safetensors model, not GGUF\n"
           "EOPNOTSUPP " PUBLIC "b/config: safetensors model, not GGUF\n"
           "EOPNOTSUPP " PUBLIC "c/cloud: runs on another machine: its weights are not here\n"
           "EOPNOTSUPP " PUBLIC "d/none: no layer of the manifest is a model\n");
    free(root);
}

static void store_ollama_says_how_much_has_arrived(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build short_one = {.root = root}, gone = {.root = root};
    char digest[80];
    snprintf(digest, sizeof digest, "sha256:%s", tree_blob(root, "GGUF", 4));
    ollama_layer_raw(&short_one, "model", digest, 1073741824);
    ollama_manifest(&short_one, PUBLIC "a/1", NULL);
    ollama_layer_raw(&gone, "model", "sha256:" ZEROS, 5);
    ollama_manifest(&gone, PUBLIC "b/1", NULL);
    expect(root, NULL,
           "EAGAIN " PUBLIC "a/1: blob has 4 bytes, manifest says 1073741824\n"
           "ENOENT " PUBLIC "b/1: blob sha256-" ZEROS " is gone\n");
    tree_text(root, "blobs/sha256-" ZEROS "-partial", "GG");
    expect(root, NULL,
           "EAGAIN blobs/sha256-" ZEROS "-partial: download in progress\n"
           "EAGAIN " PUBLIC "a/1: blob has 4 bytes, manifest says 1073741824\n"
           "EAGAIN " PUBLIC "b/1: blob sha256-" ZEROS ": download in progress\n");
    free(root);
}

static void store_refuses_dotdot_in_manifest(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root};
    tree_model(root, "outside.gguf", 1);
    ollama_layer_raw(&o, "model", "sha256:../../outside.gguf", 5);
    ollama_manifest(&o, PUBLIC "a/1", NULL);
    struct ollama_build c = {.root = root};
    ollama_layer_raw(&c, "model", "sha256-\\u0009" ZEROS, 5);
    ollama_manifest(&c, PUBLIC "b/1", NULL);
    expect(root,
           "unsupported EINVAL - <- a:1|" PUBLIC "a/1\n"
           "unsupported EINVAL - <- b:1|" PUBLIC "b/1\n",
           "EINVAL " PUBLIC
           "a/1: layers[0].digest is 'sha256:../../outside.gguf', expected sha256: "
           "and 64 hex digits\n"
           "EINVAL " PUBLIC "b/1: layers[0].digest is 'sha256-\\011" ZEROS
           "', expected sha256: and 64 hex digits\n");
    free(root);
}

static void store_ollama_follows_no_link(void **state)
{
    (void)state;
    char *root = temp_dir(), *other = temp_dir();
    simple(other, "manifests/h/n/m/t", 1);
    simple(root, "manifests/h/n/m/t", 2);
    char *folder = path_join(other, "manifests/h/n"), *file = path_join(other, "manifests/h/n/m/t");
    tree_link(root, "manifests/h/linked", folder);
    tree_link(root, "manifests/h/n/m/link", file);
    tree_link(root, "manifests/h/n/m/up", "../../../../blobs/../../x");
    /* A blob that is a link, and a pipe in its place. */
    struct ollama_build l = {.root = root}, q = {.root = root};
    ollama_layer_raw(&l, "model", "sha256:" ZEROS, 5);
    tree_link(root, "blobs/sha256-" ZEROS, file);
    ollama_manifest(&l, "manifests/h/n/x/blob", NULL);
    char *pipe =
        path_join(root, "blobs/sha256-" ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 "00000001");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    ollama_layer_raw(&q, "model", "sha256:" ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 ZERO8 "00000001",
                     5);
    ollama_manifest(&q, "manifests/h/n/y/pipe", NULL);
    struct store *s = tree_scan(root, &automatic);
    char *told = tree_problems(s);
    int served = 0;
    for (size_t i = 0; i < s->n_entry; i++)
        served += s->entry[i].rc == 0;
    assert_int_equal(served, 1);
    assert_non_null(
        strstr(told, "ELOOP manifests/h/linked: a namespace is expected to be a folder"));
    assert_non_null(strstr(told, "EXDEV manifests/h/n/m/link: a link to '"));
    assert_non_null(
        strstr(told, "EXDEV manifests/h/n/m/up: a link to '../../../../blobs/../../x'"));
    assert_non_null(strstr(told, "ELOOP manifests/h/n/x/blob: "));
    assert_non_null(strstr(told, "EINVAL manifests/h/n/y/pipe: not a regular file"));
    free(told);
    store_free(s);
    free(pipe);
    free(folder);
    free(file);
    free(other);
    free(root);
}

static void store_ollama_names_are_of_its_grammar(void **state)
{
    (void)state;
    char *root = temp_dir();
    simple(root, "manifests/h/n.x/m/t", 1);
    simple(root, "manifests/h/n/m\033/t", 1);
    simple(root, "manifests/h/n/m/-t", 1);
    simple(root, "manifests/h/n/m/deep/t", 1);
    tree_text(root, "manifests/h/n/file", "{}");
    expect(root, "",
           "EINVAL manifests/h/n.x: not a namespace's name as Ollama has them: skipped\n"
           "EINVAL manifests/h/n/file: a model is expected to be a folder: skipped\n"
           "EINVAL manifests/h/n/m\033: not a model's name as Ollama has them: skipped\n"
           "EINVAL manifests/h/n/m/-t: not a tag's name as Ollama has them: skipped\n"
           "EINVAL manifests/h/n/m/deep: a tag is expected to be a file: skipped\n");
    free(root);
}

static void store_ollama_reads_old_blob_names(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root};
    ollama_model(&o, "model", 1);
    ollama_manifest(&o, PUBLIC "m/1", NULL);
    char from[128], to[128];
    snprintf(from, sizeof from, "blobs/sha256-%s", o.first);
    snprintf(to, sizeof to, "blobs/sha256:%s", o.first);
    char *a = path_join(root, from), *b = path_join(root, to);
    assert_int_equal(rename(a, b), 0);
    expect(root, "model 0 library/m/" STEM " <- m:1|" PUBLIC "m/1\n", "");
    free(a);
    free(b);
    free(root);
}

static void store_ollama_reads_the_second_tree(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root}, mlx = {.root = root};
    ollama_model(&o, "model", 1);
    const char *text = ollama_manifest(&o, NULL, NULL);
    ollama_link(root, "manifests-v2/ollama.com/library/m/1", text);
    simple(root, PUBLIC "m/1", 2); /* the same name in the older tree */
    simple(root, PUBLIC "n/2", 3); /* only there */
    tree_link(root, "manifests-v2/ollama.com/library/n/2",
              "../../../../blobs/sha256-" ZEROS); /* its blob is gone */
    tree_link(root, "manifests-v2/ollama.com/library/m/3", "../../../../blobs/sha256-" ZEROS);
    /* A list: of its children the one for "ollama". */
    char list[1024], child[65], other[65];
    snprintf(child, sizeof child, "%s", tree_blob(root, text, strlen(text)));
    ollama_layer(&mlx, "tensor", "x", 1);
    text = ollama_manifest(&mlx, NULL, "{\"model_format\":\"safetensors\"}");
    snprintf(other, sizeof other, "%s", tree_blob(root, text, strlen(text)));
    snprintf(list, sizeof list,
             "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.ollama.manifest.list.v2+json\","
             "\"manifests\":[{\"mediaType\":\"\",\"digest\":\"sha256:%s\",\"runner\":\"mlx\"},"
             "{\"mediaType\":\"\",\"digest\":\"sha256:%s\",\"runner\":\"ollama\"}]}",
             other, child);
    ollama_link(root, "manifests-v2/ollama.com/library/list/1", list);
    expect(root,
           "model 0 library/list/" STEM " <- list:1|manifests-v2/ollama.com/library/list/1\n"
           "unsupported ENOENT - <- m:3|manifests-v2/ollama.com/library/m/3\n"
           "model 0 library/m/" STEM " <- m:1|manifests-v2/ollama.com/library/m/1\n"
           "model 0 library/n/" STEM " <- n:2|" PUBLIC "n/2\n",
           "ENOENT manifests-v2/ollama.com/library/m/3: blob sha256-" ZEROS " is gone\n");
    struct store *s = tree_scan(root, &automatic);
    assert_string_equal(s->entry[2].part[0].sha256, o.first);
    store_free(s);
    free(root);
}

/* A manifest's blob whose bytes are not what its name says is not believed. */
static void store_ollama_checks_small_blobs(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root};
    ollama_model(&o, "model", 1);
    tree_text(root, "blobs/sha256-" ZEROS, ollama_manifest(&o, NULL, NULL));
    tree_link(root, "manifests-v2/h/n/m/t", "../../../../blobs/sha256-" ZEROS);
    struct store *s = tree_scan(root, &automatic);
    assert_int_equal(s->n_entry, 1);
    assert_int_equal(s->entry[0].rc, -EUCLEAN);
    assert_non_null(strstr(s->entry[0].why, "holds other bytes"));
    store_free(s);
    free(root);
}

static void store_ollama_bad_extras_do_not_hide_a_model(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root};
    ollama_model(&o, "model", 1);
    ollama_layer(&o, "params", "[1]", 3);
    ollama_manifest(&o, PUBLIC "m/1", "no JSON");
    expect(root, "model 0 library/m/" STEM " <- m:1|" PUBLIC "m/1\n",
           "EUCLEAN " PUBLIC "m/1: config: JSON, byte 0: no value here\n"
           "EUCLEAN " PUBLIC "m/1: params: parameters is not a JSON object\n");
    free(root);
}

/* What the config sets by default is there unless the params layer says otherwise. */
static void store_ollama_params_have_defaults(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root};
    ollama_model(&o, "model", 1);
    ollama_layer(&o, "params", "{\"top_k\":5}", 11);
    ollama_manifest(&o, PUBLIC "m/1", "{\"generation_defaults\":{\"top_k\":20,\"top_p\":0.5}}");
    struct store *s = tree_scan(root, &automatic);
    assert_string_equal(s->entry[0].params, "{\"top_k\":5,\"top_p\":0.5}");
    store_free(s);
    free(root);
}

/* Ollama reads every params layer into one map: what a later one does not set stays. */
static void store_ollama_params_of_several_layers_are_one(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct ollama_build o = {.root = root};
    ollama_layer(&o, "params", "{\"top_k\":5,\"stop\":[\"a\"]}", 24);
    ollama_model(&o, "model", 1);
    ollama_layer(&o, "params", "{\"top_k\":6,\"seed\":1}", 20);
    ollama_manifest(&o, PUBLIC "m/1", "{\"generation_defaults\":{\"seed\":9,\"top_p\":0.5}}");
    struct store *s = tree_scan(root, &automatic);
    assert_string_equal(s->entry[0].params,
                        "{\"top_k\":6,\"seed\":1,\"stop\":[\"a\"],\"top_p\":0.5}");
    store_free(s);
    ollama_layer(&o, "params", "[]", 2);
    ollama_manifest(&o, PUBLIC "m/1", NULL);
    expect(root, NULL, "EUCLEAN " PUBLIC "m/1: params: parameters is not a JSON object\n");
    free(root);
}

/* One name, its model and these parameters ("": no such layer). */
static void with_params(const char *root, const char *way, const char *params)
{
    struct ollama_build o = {.root = root};
    ollama_model(&o, "model", 1);
    if (*params)
        ollama_layer(&o, "params", params, strlen(params));
    ollama_manifest(&o, way, NULL);
}

/* generation_config.json comes from the parameters, too: a scan that knows the blob already must look at
 * them, and tags that set different ones must not share a folder. */
static void store_ollama_params_decide_siblings(void **state)
{
    (void)state;
    char *root = temp_dir();
    static const char way[] = PUBLIC "m/1";
    with_params(root, way, "");
    struct store *silent = tree_scan(root, &automatic), *s, *again;
    struct err e = {0};
    assert_int_equal(silent->entry[0].generation_rc, -ENODATA);
    assert_string_equal(silent->entry[0].generation_why, "");
    with_params(root, way, "{\"temperature\":0.5}");
    assert_int_equal(store_scan(&s, root, &automatic, silent, &e), 0);
    assert_int_equal(s->entry[0].generation_rc, 0);
    assert_memory_not_equal(s->entry[0].sibling_sha256, silent->entry[0].sibling_sha256,
                            NAME_ID_SIZE);
    assert_int_equal(store_scan(&again, root, &automatic, s, &e), 0);
    assert_int_equal(again->n_parsed, 0);
    assert_true(store_equal(s, again));
    store_free(again);
    store_free(s);
    store_free(silent);
    with_params(root, PUBLIC "m/2", "{\"temperature\":0.9}");
    with_params(root, PUBLIC "m/3",
                "{\"temperature\":0.5,\"num_ctx\":4096}"); /* says the same there */
    s = tree_scan(root, &automatic);
    assert_int_equal(s->n_entry, 3);
    char *shown = tree_show(s), moved[128], id[NAME_HEX];
    name_hex(id, s->entry[2].sibling_sha256);
    snprintf(moved, sizeof moved, "model 0 library/m-%.8s/" STEM " <- m:2|" PUBLIC "m/2\n", id);
    assert_non_null(strstr(shown, moved));
    assert_non_null(strstr(shown, "model 0 library/m/" STEM " <- m:1|"));
    assert_non_null(strstr(shown, "model 0 library/m/" STEM "-"));
    free(shown);
    store_free(s);
    free(root);
}

static void store_ollama_tells_params_that_no_file_can_say(void **state)
{
    (void)state;
    char *root = temp_dir();
    with_params(root, PUBLIC "m/1", "{\"temperature\":\"hot\"}");
    expect(root, "model 0 library/m/" STEM " <- m:1|" PUBLIC "m/1\n",
           "EUCLEAN " PUBLIC "m/1: no generation_config.json: params: temperature is no number\n");
    free(root);
}

static void store_ollama_is_told_by_its_folders(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct err e = {0};
    struct store *s = NULL;
    simple(root, ".ollama/models/" PUBLIC "m/1", 1);
    char *blobs = path_join(root, "blobs"), *home = path_join(root, ".ollama"),
         *to = path_join(root, ".ollama/models/blobs"), *models = path_join(root, ".ollama/models");
    assert_int_equal(rename(blobs, to), 0);
    /* One level of kindness. */
    assert_int_equal(store_scan(&s, home, &automatic, NULL, &e), 0);
    char *real = realpath(models, NULL);
    assert_int_equal(s->kind, STORE_OLLAMA);
    assert_string_equal(s->root, real);
    assert_int_equal(s->n_entry, 1);
    static const char *const dir[] = {"",
                                      "blobs",
                                      "manifests",
                                      "manifests/registry.ollama.ai",
                                      "manifests/registry.ollama.ai/library",
                                      "manifests/registry.ollama.ai/library/m"};
    assert_int_equal(s->n_dir, sizeof dir / sizeof *dir);
    for (size_t i = 0; i < s->n_dir; i++)
        assert_string_equal(s->dir[i], dir[i]);
    store_free(s);
    free(real);
    free(blobs);
    free(home);
    free(to);
    free(models);
    free(root);
}

/* A blob that was replaced behind the scan's back is not served under its old name. */
static void store_ollama_opens_by_the_same_rule(void **state)
{
    (void)state;
    char *root = temp_dir();
    simple(root, PUBLIC "m/1", 1);
    struct store *s = tree_scan(root, &automatic);
    struct store_plan *p = NULL;
    char *moved = path_join(root, "moved");
    assert_int_equal(rename(s->entry[0].part[0].path, moved), 0);
    assert_int_equal(symlink(moved, s->entry[0].part[0].path), 0);
    assert_int_equal(store_plan_open(&p, s, &s->entry[0], NULL), -ELOOP);
    free(moved);
    store_free(s);
    free(root);
}

/* A crew whose reading meets one failure of cJSON's memory. */
static long fail_at, n_asked;

static void *short_malloc(size_t n)
{
    return n_asked++ == fail_at ? NULL : malloc(n);
}

static void short_of_memory(size_t n, void (*job)(void *arg, size_t i), void *arg)
{
    cJSON_InitHooks(&(cJSON_Hooks){short_malloc, free});
    n_asked = 0;
    for (size_t i = 0; i < n; i++)
        job(arg, i);
    cJSON_InitHooks(NULL);
}

static void no_wait(void)
{
}

/* That memory was short while a file was read is no fact of the file: it would stay with it, in the index
 * too, and its generation_config.json be missing for good. */
static void store_ollama_keeps_no_shortage_as_a_fact(void **state)
{
    (void)state;
    static const char *const params[] = {"{\"top_k\":5}", "{\"top_k\":6}"};
    const struct store_crew crew = {short_of_memory, no_wait, no_wait};
    struct store_options o = {.kind = STORE_AUTO, .plan = true, .crew = &crew};
    char *root = temp_dir();
    for (int i = 0; i < 2; i++) {
        struct ollama_build b = {.root = root};
        char way[80];
        ollama_model(&b, "model", 1);
        ollama_layer(&b, "params", params[i], strlen(params[i]));
        snprintf(way, sizeof way, "manifests/registry.ollama.ai/library/m/%d", i);
        ollama_manifest(&b, way, NULL);
    }
    bool met = true;
    for (fail_at = 0; met; fail_at++) {
        struct store *s = tree_scan(root, &o);
        met = n_asked > fail_at;
        assert_int_equal(s->n_entry, 2);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(s->entry[i].rc, 0);
            assert_int_equal(s->entry[i].generation_rc, 0);
            assert_string_equal(s->entry[i].generation_why, "");
        }
        store_free(s);
    }
    assert_true(fail_at > 4); /* two files, each asked of twice */
    free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_ollama_tree_is_exact),
        cmocka_unit_test(store_ollama_two_tags_are_one_entry),
        cmocka_unit_test(store_ollama_last_model_layer_wins),
        cmocka_unit_test(store_ollama_joins_shards),
        cmocka_unit_test(store_ollama_tells_roles),
        cmocka_unit_test(store_ollama_names_what_is_no_gguf),
        cmocka_unit_test(store_ollama_says_how_much_has_arrived),
        cmocka_unit_test(store_refuses_dotdot_in_manifest),
        cmocka_unit_test(store_ollama_follows_no_link),
        cmocka_unit_test(store_ollama_names_are_of_its_grammar),
        cmocka_unit_test(store_ollama_reads_old_blob_names),
        cmocka_unit_test(store_ollama_reads_the_second_tree),
        cmocka_unit_test(store_ollama_checks_small_blobs),
        cmocka_unit_test(store_ollama_bad_extras_do_not_hide_a_model),
        cmocka_unit_test(store_ollama_params_have_defaults),
        cmocka_unit_test(store_ollama_params_of_several_layers_are_one),
        cmocka_unit_test(store_ollama_params_decide_siblings),
        cmocka_unit_test(store_ollama_tells_params_that_no_file_can_say),
        cmocka_unit_test(store_ollama_is_told_by_its_folders),
        cmocka_unit_test(store_ollama_opens_by_the_same_rule),
        cmocka_unit_test(store_ollama_keeps_no_shortage_as_a_fact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
