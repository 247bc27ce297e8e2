/* llama.cpp's old cache, LM Studio's folder, and how a layout is told without being told: the design
 * of stores, sections 2.3 and 3. llama.cpp's names are those of common/download.cpp and common/arg.cpp
 * before March 2026: '/' of the repository and of the file's way as '_'. */
#include "format/store.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define A TREE_COMMIT_A

static struct store *scan_as(const char *root, enum store_kind kind)
{
    struct store_options opt = {.kind = kind, .plan = true};
    return tree_scan(root, &opt);
}

static void expect(const char *root, enum store_kind kind, const char *entries,
                   const char *problems)
{
    struct store *s = scan_as(root, STORE_AUTO);
    char *show = tree_show(s), *told = tree_problems(s);
    assert_string_equal(store_kind_name(s->kind), store_kind_name(kind));
    assert_string_equal(show, entries);
    assert_string_equal(told, problems);
    free(show);
    free(told);
    store_free(s);
}

/* ---- llama.cpp ---- */

#define GGML "ggml-org_gemma-3-1b-it-GGUF_"

static void store_llamacpp_names_by_manifest(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, GGML "gemma-3-1b-it-Q4_K_M.gguf", 1);
    tree_text(root, GGML "gemma-3-1b-it-Q4_K_M.gguf.etag", "\"abc\"");
    tree_model(root, GGML "gemma-3-1b-it-Q8_0.gguf", 2);
    tree_projector(root, GGML "mmproj-model-f16.gguf");
    tree_text(root, "manifest=ggml-org=gemma-3-1b-it-GGUF=latest.json",
              "{\"ggufFile\":{\"rfilename\":\"gemma-3-1b-it-Q4_K_M.gguf\"},"
              "\"mmprojFile\":{\"rfilename\":\"mmproj-model-f16.gguf\"}}");
    expect(root, STORE_LLAMACPP,
           "model 0 ggml-org/gemma-3-1b-it-GGUF/gemma-3-1b-it-Q4_K_M <- "
           "ggml-org/gemma-3-1b-it-GGUF|ggml-org/gemma-3-1b-it-GGUF:latest|" GGML
           "gemma-3-1b-it-Q4_K_M.gguf\n"
           "model 0 ggml-org/gemma-3-1b-it-GGUF/gemma-3-1b-it-Q8_0 <- "
           "ggml-org/gemma-3-1b-it-GGUF|" GGML "gemma-3-1b-it-Q8_0.gguf\n"
           "projector 0 ggml-org/gemma-3-1b-it-GGUF/mmproj-model-f16 <- "
           "ggml-org/gemma-3-1b-it-GGUF|" GGML "mmproj-model-f16.gguf\n",
           "");
    free(root);
}

static void store_llamacpp_without_manifest_guesses_nothing(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "org_repo_m-Q8_0.gguf", 1);
    tree_text(root, "org_repo_m-Q8_0.gguf.etag", "x");
    expect(root, STORE_LLAMACPP,
           "model 0 llama.cpp/org_repo_m-Q8_0/org_repo_m-Q8_0 <- org_repo_m-Q8_0.gguf\n", "");
    free(root);
}

/* Older builds left {"etag", "lastModified", "url"} beside each file. */
static void store_llamacpp_names_by_url(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "org_re_po_Q4_m.gguf", 1);
    tree_text(root, "org_re_po_Q4_m.gguf.json",
              "{\"etag\":\"x\",\"url\":\"https://huggingface.co/org/re_po/resolve/main/Q4/m.gguf"
              "?download=true\"}");
    tree_model(root, "lie_m.gguf", 2); /* a url that gives another name says nothing of this file */
    tree_text(root, "lie_m.gguf.json",
              "{\"url\":\"https://huggingface.co/org/re_po/resolve/main/Q4/m.gguf\"}");
    tree_model(root, "bad_m.gguf", 3);
    tree_text(root, "bad_m.gguf.json", "{\"url\":");
    tree_text(root, "x.gguf.etag", "");
    expect(root, STORE_LLAMACPP,
           "model 0 llama.cpp/bad_m/bad_m <- bad_m.gguf\n"
           "model 0 llama.cpp/lie_m/lie_m <- lie_m.gguf\n"
           "model 0 org/re_po/Q4_m <- org/re_po|org_re_po_Q4_m.gguf\n",
           "");
    free(root);
}

/* "a_b/c" and "a/b_c" give one prefix. Only the manifest that names the file decides. */
static void store_llamacpp_tells_equal_prefixes_by_file(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a_b_c_one.gguf", 1);
    tree_model(root, "a_b_c_two.gguf", 2);
    tree_model(root, "a_b_c_d_three.gguf", 3);
    tree_model(root, "x_y_z_both.gguf", 4);
    tree_text(root, "manifest=x_y=z=latest.json", "{\"ggufFile\":{\"rfilename\":\"both.gguf\"}}");
    tree_text(root, "manifest=x=y_z=latest.json", "{\"ggufFile\":{\"rfilename\":\"both.gguf\"}}");
    tree_text(root, "manifest=a_b=c=latest.json", "{\"ggufFile\":{\"rfilename\":\"one.gguf\"}}");
    tree_text(root, "manifest=a=b_c=latest.json", "no JSON");
    tree_text(root, "manifest=a=b_c_d=latest.json", "{}"); /* the longest prefix */
    tree_text(root, "manifest=x=y.json", "{}");
    tree_text(root, "manifest=x==z.json", "{}");
    expect(root, STORE_LLAMACPP,
           "model 0 a/b_c_d/three <- a/b_c_d|a_b_c_d_three.gguf\n"
           "model 0 a_b/c/one <- a_b/c|a_b/c:latest|a_b_c_one.gguf\n"
           "model 0 llama.cpp/a_b_c_two/a_b_c_two <- a_b_c_two.gguf\n"
           "model 0 llama.cpp/x_y_z_both/x_y_z_both <- x_y_z_both.gguf\n",
           "");
    free(root);
}

static void store_llamacpp_keeps_shards_and_downloads(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "o_r_m", 2);
    tree_model(root, "o_r_n.gguf.downloadInProgress", 1);
    tree_text(root, "manifest=o=r=Q4_K_M.json", "{\"ggufFile\":{\"rfilename\":\"q/n.gguf\"}}");
    expect(root, STORE_LLAMACPP,
           "model 0 o/r/m <- o/r|o_r_m-00001-of-00002.gguf\n"
           "unsupported EAGAIN - <- o/r|o_r_n.gguf.downloadInProgress\n",
           "EAGAIN o_r_n.gguf.downloadInProgress: download in progress\n");
    free(root);
}

/* A folder that people use for more than the cache loses none of its models. */
static void store_llamacpp_folders_are_plain(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_text(root, "x.gguf.etag", "");
    tree_model(root, "mine/deep/m.gguf", 1);
    expect(root, STORE_LLAMACPP, "model 0 mine/deep/m <- mine/deep/m.gguf\n", "");
    free(root);
}

/* New builds move what they find into the hub's layout, in the same folder if LLAMA_CACHE says so:
 * whichever of the two is found, names are the same before, while and after. */
static void store_llamacpp_then_hub_same_stem(void **state)
{
    (void)state;
    static const char want[] = "model 0 o/r/m-Q4_0 <- o/r|";
    char *root = temp_dir(), *flat = path_join(root, "o_r_m-Q4_0.gguf"), entries[512];
    tree_model(root, "o_r_m-Q4_0.gguf", 1);
    tree_model(root, "o_r_n.gguf", 2);
    tree_text(root, "manifest=o=r=latest.json", "{\"ggufFile\":{\"rfilename\":\"m-Q4_0.gguf\"}}");
    struct store *before = scan_as(root, STORE_AUTO);
    assert_int_equal(before->kind, STORE_LLAMACPP);
    assert_int_equal(before->n_entry, 2);
    tree_dir(root, "models--o--r/blobs");
    tree_dir(root, "models--o--r/snapshots/" A);
    char *blob = path_join(root, "models--o--r/blobs/c0ffee");
    assert_int_equal(rename(flat, blob), 0);
    tree_link(root, "models--o--r/snapshots/" A "/m-Q4_0.gguf", "../../blobs/c0ffee");
    snprintf(entries, sizeof entries,
             "%smodels--o--r/snapshots/" A "/m-Q4_0.gguf\n"
             "model 0 o/r/n <- o/r|o_r_n.gguf\n",
             want);
    expect(root, STORE_HF, entries, ""); /* n has not moved yet, and is there */
    struct store *after = scan_as(root, STORE_AUTO), *told = scan_as(root, STORE_LLAMACPP);
    assert_int_equal(after->entry[0].kind, STORE_HF);
    assert_int_equal(after->entry[1].kind, STORE_LLAMACPP);
    assert_int_equal(told->n_entry, 2);
    assert_string_equal(told->entry[0].stem, "m-Q4_0");
    for (int i = 0; i < 2; i++)
        assert_string_equal(before->entry[i].stem, after->entry[i].stem);
    store_free(before);
    store_free(after);
    store_free(told);
    free(blob);
    free(flat);
    free(root);
}

/* ---- LM Studio ---- */

static void store_lmstudio_two_levels(void **state)
{
    (void)state;
    static const char *const home[] = {".lmstudio/models", ".cache/lm-studio/models",
                                       "lmstudio/models"};
    for (size_t i = 0; i < 3; i++) {
        char *top = temp_dir(), *root = path_join(top, home[i]);
        tree_dir(top, home[i]);
        tree_model(root, "lmstudio-community/Qwen2.5-GGUF/Qwen2.5-Q4_K_M.gguf", 1);
        tree_projector(root, "lmstudio-community/Qwen2.5-GGUF/mmproj-Qwen2.5-F16.gguf");
        tree_model(root, "lmstudio-community/Qwen2.5-GGUF/Qwen2.5-Q8_0.gguf.part", 2);
        tree_model(root, "p/m/deep/x.gguf", 3);
#define P "lmstudio-community/Qwen2.5-GGUF"
        expect(root, STORE_LMSTUDIO,
               "model 0 " P "/Qwen2.5-Q4_K_M <- " P "|" P "/Qwen2.5-Q4_K_M.gguf\n"
               "unsupported EAGAIN - <- " P "|" P "/Qwen2.5-Q8_0.gguf.part\n"
               "projector 0 " P "/mmproj-Qwen2.5-F16 <- " P "|" P "/mmproj-Qwen2.5-F16.gguf\n"
               "model 0 p/m+deep/x <- p/m/deep/x.gguf\n",
               "EAGAIN " P "/Qwen2.5-Q8_0.gguf.part: download in progress\n");
        free(root);
        free(top);
    }
}

static void store_lmstudio_by_its_home_and_by_link(void **state)
{
    (void)state;
    char *top = temp_dir(), *home = path_join(top, ".lmstudio"), *link = path_join(top, "a"),
         *data = path_join(top, "data"), *via = path_join(top, "lm-studio/models");
    tree_model(top, ".lmstudio/models/p/m/x.gguf", 1);
    tree_link(top, "a", ".lmstudio");
    tree_model(top, "data/p/m/x.gguf", 1);
    tree_link(top, "lm-studio/models", data); /* the name as given says what it is */
    const char *const root[] = {home, link, via};
    for (int i = 0; i < 3; i++)
        expect(root[i], STORE_LMSTUDIO, "model 0 p/m/x <- p/m|p/m/x.gguf\n", "");
    expect(data, STORE_PLAIN, "model 0 p/m/x <- p/m/x.gguf\n", "");
    free(via);
    free(data);
    free(link);
    free(home);
    free(top);
}

/* ---- detection ---- */

static void store_kinds_are_told_by_what_is_there(void **state)
{
    (void)state;
    static const struct {
        const char *rel; /* an empty file, or, with '/' at its end, a folder */
        enum store_kind kind;
    } cases[] = {
        {"models--a--b/refs/", STORE_HF},
        {"models--a--b/snapshots/", STORE_HF},
        {"models--a--b/blobs/", STORE_PLAIN},
        {"models--a--b", STORE_PLAIN},
        {"hub/models--a--b/refs/", STORE_HF},
        {"x/models--a--b/refs/", STORE_PLAIN},
        {"m.gguf.etag", STORE_LLAMACPP},
        {"manifest=a=b=c.json", STORE_LLAMACPP},
        {"m.gguf", STORE_PLAIN},
        {"m.etag", STORE_PLAIN},
        {"models/", STORE_PLAIN},
        {"hub/", STORE_PLAIN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *root = temp_dir();
        size_t n = strlen(cases[i].rel);
        if (cases[i].rel[n - 1] == '/')
            tree_dir(root, cases[i].rel);
        else
            tree_text(root, cases[i].rel, "");
        struct store *s = scan_as(root, STORE_AUTO);
        if (s->kind != cases[i].kind)
            fail_msg("%s: told as %s", cases[i].rel, store_kind_name(s->kind));
        store_free(s);
        free(root);
    }
}

static void store_kinds_have_names(void **state)
{
    (void)state;
    static const char *const name[] = {"auto", "hf", "ollama", "lmstudio", "llamacpp", "plain"};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        enum store_kind k;
        assert_true(store_kind_parse(name[i], &k));
        assert_string_equal(store_kind_name(k), name[i]);
    }
    enum store_kind k;
    assert_false(store_kind_parse("HF", &k));
    assert_false(store_kind_parse("", &k));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_llamacpp_names_by_manifest),
        cmocka_unit_test(store_llamacpp_without_manifest_guesses_nothing),
        cmocka_unit_test(store_llamacpp_names_by_url),
        cmocka_unit_test(store_llamacpp_tells_equal_prefixes_by_file),
        cmocka_unit_test(store_llamacpp_keeps_shards_and_downloads),
        cmocka_unit_test(store_llamacpp_folders_are_plain),
        cmocka_unit_test(store_llamacpp_then_hub_same_stem),
        cmocka_unit_test(store_lmstudio_two_levels),
        cmocka_unit_test(store_lmstudio_by_its_home_and_by_link),
        cmocka_unit_test(store_kinds_are_told_by_what_is_there),
        cmocka_unit_test(store_kinds_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
