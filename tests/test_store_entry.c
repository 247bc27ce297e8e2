/* What a file of a store is shown as: each case of the design of stores, sections 2.4, 2.5 and 5, in
 * plain folders. Expected trees follow from the rules there; sizes from the files the test wrote. */
#include "format/store.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct store_options plain = {.kind = STORE_AUTO, .plan = true};

static struct store *scan(const char *root)
{
    return tree_scan(root, &plain);
}

static void expect(const char *root, const char *entries, const char *problems)
{
    tree_expect(root, &plain, entries, problems);
}

/* ---- 2.4: shards ---- */

static void store_joins_shards(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "a/b/m", 3);
    tree_model(root, "a/b/single-00001-of-00001.gguf", 1);
    struct store *s = scan(root);
    char *show = tree_show(s);
    assert_string_equal(show, "model 0 a/b/m <- a/b/m-00001-of-00003.gguf\n"
                              "model 0 a/b/single <- a/b/single-00001-of-00001.gguf\n");
    free(show);
    assert_int_equal(s->entry[0].n_part, 3);
    for (int i = 0; i < 3; i++) {
        char suffix[40];
        snprintf(suffix, sizeof suffix, "/a/b/m-%05d-of-00003.gguf", i + 1);
        assert_non_null(strstr(s->entry[0].part[i].path, suffix));
    }
    uint64_t sum = 0;
    for (int i = 0; i < 3; i++)
        sum += s->entry[0].part[i].id.size;
    assert_int_equal(s->entry[0].src_size, sum);
    assert_int_equal(s->entry[0].n_params, s->entry[1].n_params);
    store_free(s);
    free(root);
}

static void store_names_missing_shard(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "x/m", 3);
    tree_shards(root, "y/m", 3);
    tree_shards(root, "z/m", 3);
    tree_remove(root, "x/m-00002-of-00003.gguf");
    tree_remove(root, "y/m-00001-of-00003.gguf");
    tree_remove(root, "z/m-00003-of-00003.gguf");
    expect(root,
           "unsupported ENOENT - <- x/m-00001-of-00003.gguf\n"
           "unsupported ENOENT - <- y/m-00002-of-00003.gguf\n"
           "unsupported ENOENT - <- z/m-00001-of-00003.gguf\n",
           "ENOENT x/m-00001-of-00003.gguf: shard 2 of 3 is missing: m-00002-of-00003.gguf\n"
           "ENOENT y/m-00002-of-00003.gguf: shard 1 of 3 is missing: m-00001-of-00003.gguf\n"
           "ENOENT z/m-00001-of-00003.gguf: shard 3 of 3 is missing: m-00003-of-00003.gguf\n");
    free(root);
}

static void store_keeps_sets_of_other_counts_apart(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "a/m", 2);
    tree_shards(root, "a/m", 3);
    tree_shards(root, "a/mm", 2);
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 3);
    assert_string_equal(s->entry[0].stem, "m");
    assert_int_equal(s->entry[0].n_part, 2);
    /* The other gets its digest: the same stem in one directory, and it is another file. */
    assert_int_equal(strncmp(s->entry[1].stem, "m-", 2), 0);
    assert_int_equal(strlen(s->entry[1].stem), 10);
    assert_int_equal(s->entry[1].n_part, 3);
    assert_string_equal(s->entry[2].stem, "mm");
    assert_int_equal(s->entry[0].rc | s->entry[1].rc | s->entry[2].rc, 0);
    store_free(s);
    free(root);
}

/* n files that look like a whole set, made from a set of real_n. */
static int rc_of_renamed_set(int real_n, int n, const char *says)
{
    char *root = temp_dir();
    tree_shards(root, "src/w", real_n);
    tree_dir(root, "m");
    for (int i = 0; i < n; i++) {
        char from[40], to[40];
        snprintf(from, sizeof from, "src/w-%05d-of-%05d.gguf", i % real_n + 1, real_n);
        snprintf(to, sizeof to, "m/w-%05d-of-%05d.gguf", i + 1, n);
        char *a = path_join(root, from), *b = path_join(root, to);
        assert_int_equal(link(a, b), 0);
        free(a);
        free(b);
    }
    char *m = path_join(root, "m");
    struct store *s = scan(m);
    assert_int_equal(s->n_entry, 1);
    assert_non_null(strstr(s->entry[0].why, says));
    int rc = s->entry[0].rc;
    store_free(s);
    free(m);
    free(root);
    return rc;
}

static void store_refuses_shard_keys_that_disagree(void **state)
{
    (void)state;
    assert_int_equal(rc_of_renamed_set(2, 3, "split.count"), -EUCLEAN);
    /* The keys say that there is more: then that is what is missing. */
    assert_int_equal(rc_of_renamed_set(4, 3, "split.count"), -ENOENT);
}

static void store_shard_renamed_to_a_single_file(void **state)
{
    (void)state;
    char *root = temp_dir(), *a, *b;
    tree_shards(root, "m/w", 2);
    a = path_join(root, "m/w-00001-of-00002.gguf");
    b = path_join(root, "m/alone.gguf");
    assert_int_equal(rename(a, b), 0);
    tree_remove(root, "m/w-00002-of-00002.gguf");
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 1);
    assert_int_equal(s->entry[0].rc, -ENOENT);
    free(a);
    free(b);
    store_free(s);
    free(root);
}

static void store_shard_arriving_holds_the_model_back(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "m/w", 3);
    tree_text(root, "m/w-00002-of-00003.gguf.aria2", "state");
    expect(root, "unsupported EAGAIN - <- m/w-00001-of-00003.gguf\n",
           "EAGAIN m/w-00001-of-00003.gguf: w-00002-of-00003.gguf: download in progress\n");
    free(root);
}

/* ---- 2.5: what is not a model ---- */

static void store_tells_roles_by_keys(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "o/r/model-name.gguf", 1);
    tree_projector(root, "o/r/vision.gguf");
    tree_projector(root, "o/r/mmproj-f16.gguf");
    tree_model(root, "o/r/mmproj-not.gguf", 1); /* never by the name alone */
    tree_adapter(root, "o/r/lora.gguf");
    tree_vocab(root, "o/r/vocab.gguf");
    tree_imatrix(root, "o/r/imatrix.gguf");
    expect(root,
           "imatrix 0 o/r/imatrix <- o/r/imatrix.gguf\n"
           "adapter 0 o/r/lora <- o/r/lora.gguf\n"
           "projector 0 o/r/mmproj-f16 <- o/r/mmproj-f16.gguf\n"
           "model 0 o/r/mmproj-not <- o/r/mmproj-not.gguf\n"
           "projector 0 o/r/mmproj-vision <- o/r/vision.gguf\n"
           "model 0 o/r/model-name <- o/r/model-name.gguf\n"
           "vocab 0 o/r/vocab <- o/r/vocab.gguf\n",
           "");
    free(root);
}

/* Either sign is enough for a projector: old files have no general.type. */
static void store_tells_projectors_by_either_key(void **state)
{
    (void)state;
    static const char *const arch[] = {"clip", "other"}, *const type[] = {"model", "mmproj"};
    char *root = temp_dir();
    for (int i = 0; i < 2; i++) {
        struct gguf_build *b = gguf_build_new(3, 1);
        gguf_build_str(b, "general.architecture", arch[i]);
        gguf_build_str(b, "general.type", type[i]);
        gguf_build_tensor_2d(b, "v.patch_embd.weight", 0, 32, 2);
        tree_build(root, i ? "m/type.gguf" : "m/arch.gguf", b);
        gguf_build_free(b);
    }
    expect(root,
           "projector 0 local/m/mmproj-arch <- m/arch.gguf\n"
           "projector 0 local/m/mmproj-type <- m/type.gguf\n",
           "");
    free(root);
}

/* Each malformed file of the reader's corpus is an entry with the reader's code, and the good one
 * beside them is served. */
static void store_lists_every_malformed_file(void **state)
{
    (void)state;
    char *root = temp_dir(), rel[256];
    int n = 0;
    for (size_t i = 0; i < gguf_n_bad_cases; i++) {
        const struct gguf_bad *bad = &gguf_bad_cases[i];
        if (bad->n_part > 1)
            continue;
        struct buf bytes = {0};
        uint64_t size = 0;
        bad->build(&bytes, 0, &size);
        if (bytes.len >= 4 && !memcmp(bytes.p, "GGUF", 4) && size < UINT64_C(1) << 40) {
            snprintf(rel, sizeof rel, "m/bad-%s.gguf", bad->name);
            tree_bytes(root, rel, bytes.p, bytes.len);
            if (size)
                tree_cut(root, rel, size);
            n++;
        }
        buf_free(&bytes);
    }
    tree_model(root, "m/good.gguf", 1);
    struct store *s = scan(root);
    assert_true(n > 20);
    assert_int_equal(s->n_entry, n + 1);
    for (size_t i = 0; i < s->n_entry; i++) {
        const struct store_entry *en = &s->entry[i];
        const struct gguf_bad *bad = NULL;
        for (size_t k = 0; k < gguf_n_bad_cases; k++) {
            snprintf(rel, sizeof rel, "m/bad-%s.gguf", gguf_bad_cases[k].name);
            if (!strcmp(rel, en->alias[0]))
                bad = &gguf_bad_cases[k];
        }
        if (en->rc != (bad ? bad->rc : 0) || (bad && !strstr(en->why, bad->says)))
            fail_msg("%s: %s: %s", en->alias[0], err_name(en->rc), en->why);
    }
    store_free(s);
    free(root);
}

static void store_refuses_types_by_name(void **state)
{
    (void)state;
    char *root = temp_dir();
    size_t len;
    struct gguf_build *b = tree_model_new(1);
    uint8_t *p = gguf_build_bytes(b, &len);
    p[4] = 9; /* version 9 */
    tree_bytes(root, "m/v9.gguf", p, len);
    free(p);
    gguf_build_free(b);
    b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "llama");
    tree_build(root, "m/nothing.gguf", b);
    gguf_build_free(b);
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 2);
    assert_string_equal(s->entry[0].alias[0], "m/nothing.gguf");
    assert_int_equal(s->entry[0].rc, -ENOTSUP);
    assert_string_equal(s->entry[0].why, "no tensors and no tokenizer");
    assert_int_equal(s->entry[1].rc, -ENOTSUP);
    assert_int_equal(s->entry[1].role, STORE_UNSUPPORTED);
    assert_non_null(strstr(s->entry[1].why, "version 9"));
    assert_null(strstr(s->entry[1].why, root)); /* the path has its own column */
    store_free(s);
    free(root);
}

/* What the profile cannot carry is refused by the mount's scan, and listed without a plan. */
static void store_plan_decides_what_is_served(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct gguf_build *b = tree_model_new(1);
    gguf_build_tensor_retype(b, "blk.0.ffn_up.weight", 24); /* I8 */
    tree_build(root, "m/i8.gguf", b);
    gguf_build_free(b);
    struct store *s = scan(root);
    assert_int_equal(s->entry[0].rc, -ENOTSUP);
    assert_int_equal(s->entry[0].role, STORE_UNSUPPORTED);
    assert_non_null(strstr(s->entry[0].why, "blk.0.ffn_up.weight"));
    assert_int_equal(s->n_problem, 1);
    store_free(s);
    struct store_options list = plain;
    list.plan = false;
    s = tree_scan(root, &list);
    assert_int_equal(s->entry[0].rc, 0);
    assert_int_equal(s->entry[0].size, 0);
    struct store_plan *p = NULL;
    assert_int_equal(store_plan_open(&p, s, &s->entry[0], NULL), -ENOTSUP);
    store_free(s);
    free(root);
}

static void store_entry_has_facts(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "m/a.gguf", 1);
    struct store *s = scan(root);
    const struct store_entry *en = &s->entry[0];
    struct stat st;
    assert_int_equal(stat(en->part[0].path, &st), 0);
    assert_string_equal(en->arch, "qwen2");
    assert_string_equal(en->quant, "F32"); /* general.file_type 0 */
    assert_int_equal(en->n_ctx_train, 256);
    assert_int_equal(en->src_size, st.st_size);
    assert_int_equal(en->part[0].id.ino, st.st_ino);
    assert_int_equal(store_entry_mtime_ns(en),
                     st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec);
    assert_int_equal(en->tokenizer_rc, 0);
    struct store_plan *p = NULL;
    assert_int_equal(store_plan_open(&p, s, en, NULL), 0);
    assert_int_equal(vapr_size(p->vapr), en->size);
    assert_true(en->size > en->src_size / 2);
    uint64_t n = 0;
    for (size_t i = 0; i < gguf_n_tensor(p->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor(p->gguf, i);
        n += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    assert_int_equal(en->n_params, n);
    store_plan_close(p);
    store_free(s);
    free(root);
}

static void store_tells_why_there_is_no_tokenizer_json(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    gguf_build_str(b, "tokenizer.ggml.model", "t5");
    tree_build(root, "m/t5.gguf", b);
    gguf_build_free(b);
    expect(root, "model 0 local/m/t5 <- m/t5.gguf\n",
           "ENOENT m/t5.gguf: no tokenizer.json: not written for tokenizers of type 't5', only "
           "for 'gpt2', 'llama'\n");
    free(root);
}

/* ---- 5: names ---- */

static void store_names_generic_files_by_metadata(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct gguf_build *b = tree_model_new(1);
    gguf_build_str(b, "general.basename", "Qwen2.5");
    gguf_build_str(b, "general.size_label", "0.5B");
    gguf_build_str(b, "general.finetune", "Instruct");
    gguf_build_u32(b, "general.file_type", 15);
    tree_build(root, "model.gguf", b);
    tree_build(root, "x/0123456789abcdef", b);
    gguf_build_remove(b, "general.basename");
    gguf_build_remove(b, "general.name");
    tree_build(root, "o/Repo/ggml-model-f32.gguf", b);
    gguf_build_free(b);
    expect(root,
           "model 0 local/Qwen2.5-0.5B-Instruct-Q4_K_M/Qwen2.5-0.5B-Instruct-Q4_K_M <- model.gguf\n"
           "model 0 local/x/Qwen2.5-0.5B-Instruct-Q4_K_M <- x/0123456789abcdef\n"
           "model 0 o/Repo/Repo-Q4_K_M <- o/Repo/ggml-model-f32.gguf\n",
           "");
    free(root);
}

static void store_one_file_twice_is_one_entry(void **state)
{
    (void)state;
    char *root = temp_dir(), *a, *b;
    tree_model(root, "m/Alpha.gguf", 1);
    a = path_join(root, "m/Alpha.gguf");
    b = path_join(root, "m/alpha.gguf");
    assert_int_equal(link(a, b), 0);
    tree_link(root, "m/ALPHA.bin.gguf", "Alpha.gguf"); /* another stem: its own entry */
    expect(root,
           "model 0 local/m/ALPHA.bin <- m/ALPHA.bin.gguf\n"
           "model 0 local/m/Alpha <- m/Alpha.gguf|m/alpha.gguf\n",
           "");
    free(a);
    free(b);
    free(root);
}

/* Equal headers, other weights: both must stay visible. */
static void store_equal_headers_are_two_entries(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "m/Alpha.gguf", 1);
    tree_model(root, "m/aLPHA.gguf", 2);
    struct store *s = scan(root);
    char hex[NAME_HEX], stem[NAME_SIZE];
    assert_int_equal(s->n_entry, 2);
    assert_memory_equal(s->entry[0].head_sha256, s->entry[1].head_sha256, NAME_ID_SIZE);
    name_hex(hex, s->entry[1].head_sha256);
    snprintf(stem, sizeof stem, "aLPHA-%.8s", hex);
    assert_string_equal(s->entry[0].stem, "Alpha");
    assert_string_equal(s->entry[1].stem, stem);
    store_free(s);
    free(root);
}

static void store_identity_has_the_size(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct gguf_build *b = tree_model_new(1);
    tree_build(root, "m/a.gguf", b);
    gguf_build_gap(b, 0, 32); /* bytes behind the last tensor: the same header, another size */
    tree_build(root, "m/b.gguf", b);
    gguf_build_free(b);
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 2);
    assert_int_equal(s->entry[1].src_size - s->entry[0].src_size, 32);
    assert_memory_not_equal(s->entry[0].head_sha256, s->entry[1].head_sha256, NAME_ID_SIZE);
    store_free(s);
    free(root);
}

static void store_parts_models_with_other_siblings(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "o/r/b-1.gguf", 1);
    tree_model(root, "o/r/b-2.gguf", 2);
    struct gguf_build *b = tree_model_new(3);
    gguf_build_u32(b, "qwen2.context_length", 512);
    tree_build(root, "o/r/c.gguf", b);
    gguf_build_free(b);
    struct store *s = scan(root);
    char hex[NAME_HEX], dir[NAME_SIZE];
    assert_int_equal(s->n_entry, 3);
    assert_string_equal(s->entry[0].model, "r");
    assert_string_equal(s->entry[1].model, "r");
    assert_memory_equal(s->entry[0].sibling_sha256, s->entry[1].sibling_sha256, NAME_ID_SIZE);
    name_hex(hex, s->entry[2].sibling_sha256);
    snprintf(dir, sizeof dir, "r-%.8s", hex);
    assert_string_equal(s->entry[2].model, dir);
    assert_string_equal(s->entry[2].stem, "c");
    store_free(s);
    free(root);
}

static void store_cleans_hostile_names(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a\nb/c\td/-x \xff.gguf", 1);
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 1);
    assert_string_equal(s->entry[0].publisher, "a_b");
    assert_string_equal(s->entry[0].model, "c_d");
    assert_string_equal(s->entry[0].stem, "_-x_");
    store_free(s);
    free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_joins_shards),
        cmocka_unit_test(store_names_missing_shard),
        cmocka_unit_test(store_keeps_sets_of_other_counts_apart),
        cmocka_unit_test(store_refuses_shard_keys_that_disagree),
        cmocka_unit_test(store_shard_renamed_to_a_single_file),
        cmocka_unit_test(store_shard_arriving_holds_the_model_back),
        cmocka_unit_test(store_tells_roles_by_keys),
        cmocka_unit_test(store_tells_projectors_by_either_key),
        cmocka_unit_test(store_lists_every_malformed_file),
        cmocka_unit_test(store_refuses_types_by_name),
        cmocka_unit_test(store_plan_decides_what_is_served),
        cmocka_unit_test(store_entry_has_facts),
        cmocka_unit_test(store_tells_why_there_is_no_tokenizer_json),
        cmocka_unit_test(store_names_generic_files_by_metadata),
        cmocka_unit_test(store_one_file_twice_is_one_entry),
        cmocka_unit_test(store_equal_headers_are_two_entries),
        cmocka_unit_test(store_identity_has_the_size),
        cmocka_unit_test(store_parts_models_with_other_siblings),
        cmocka_unit_test(store_cleans_hostile_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
