/* What a mount says about a store: the texts of the design of stores, sections 4 and 9. */
#include "format/store_text.h"

#include "format/json.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const struct store_options plain = {.plan = true};

struct fixture {
    char *root;
    struct store *s;
    struct store_plan *plan; /* of entry 0 */
};

static struct fixture open_fixture(char *root, const struct store_options *opt)
{
    struct fixture f = {.root = root};
    struct err e;
    if (store_scan(&f.s, root, opt, NULL, &e) < 0 || f.s->n_entry < 1 ||
        store_plan_open(&f.plan, f.s, &f.s->entry[0], &e) < 0)
        fail_msg("%s", e.msg);
    return f;
}

static void close_fixture(struct fixture *f)
{
    store_plan_close(f->plan);
    store_free(f->s);
    free(f->root);
}

/* The value, "" for -ENODATA. Checks length and NUL. */
static char *xattr(const struct fixture *f, const char *name)
{
    char *text = NULL;
    size_t len = 0;
    struct err e;
    int rc = store_text_xattr(f->s, &f->s->entry[0], f->plan, name, &text, &len, &e);
    if (rc == -ENODATA)
        return strdup("");
    if (rc < 0)
        fail_msg("%s: %s", name, e.msg);
    assert_int_equal(strlen(text), len);
    assert_true(len > 0 && text[len - 1] != '\n');
    return text;
}

static void expect_xattr(const struct fixture *f, const char *name, const char *want)
{
    char *got = xattr(f, name);
    assert_string_equal(got, want);
    free(got);
}

static void store_text_simple_values(void **state)
{
    (void)state;
    char *root = temp_dir(), want[4200], hex[NAME_HEX];
    tree_model(root, "a/b/m.gguf", 1);
    struct fixture f = open_fixture(root, &plain);
    const struct store_entry *en = &f.s->entry[0];
    snprintf(want, sizeof want, "%s/a/b/m.gguf", f.s->root);
    expect_xattr(&f, "user.aprfs.source", want);
    name_hex(hex, en->head_sha256);
    expect_xattr(&f, "user.aprfs.head_sha256", hex);
    expect_xattr(&f, "user.aprfs.store", "plain");
    expect_xattr(&f, "user.aprfs.alias", "a/b/m.gguf");
    expect_xattr(&f, "user.aprfs.arch", "qwen2");
    expect_xattr(&f, "user.aprfs.quant", "F32");
    expect_xattr(&f, "user.aprfs.n_ctx_train", "256");
    expect_xattr(&f, "user.aprfs.profile", "engine");
    expect_xattr(&f, "user.aprfs.layout", "congruent");
    snprintf(want, sizeof want, "%" PRIu64, en->n_params);
    expect_xattr(&f, "user.aprfs.n_params", want);
    const struct source_id *id = &en->part[0].id;
    snprintf(want, sizeof want, "%" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%" PRId64 ":%" PRId64, id->dev,
             id->ino, id->size, id->mtime_ns, id->ctime_ns);
    expect_xattr(&f, "user.aprfs.part_generation", want);
    expect_xattr(&f, "user.aprfs.sha256",
                 ""); /* a plain folder does not say, and nobody computes */
    expect_xattr(&f, "user.aprfs.revision", ""); /* a plain folder has none */
    expect_xattr(&f, "user.aprfs.nonsense", "");
    expect_xattr(&f, "user.aprfs.", "");
    expect_xattr(&f, "security.selinux", "");
    close_fixture(&f);
}

static void store_text_sha256_only_if_all_parts_have_one(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "m/w", 2);
    struct fixture f = open_fixture(root, &plain);
    strcpy(f.s->entry[0].part[0].sha256, "aa");
    expect_xattr(&f, "user.aprfs.sha256", "");
    strcpy(f.s->entry[0].part[1].sha256, "bb");
    expect_xattr(&f, "user.aprfs.sha256", "aa\nbb");
    close_fixture(&f);
}

/* The ranges must tile the file, and every file range must show the part's own bytes. */
static void check_extents(const struct fixture *f, const char *text)
{
    const struct store_entry *en = &f->s->entry[0];
    char *copy = strdup(text), *save = NULL;
    uint64_t at = 0;
    int n_part = 0, n_map = 0, n_mem = 0;
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        uint64_t off, len, src, dev, ino, size;
        int64_t mtime;
        char kind[16];
        int i, end = 0;
        if (n_part == 0 && n_map == 0 && !strcmp(line, "aprfs-extents 1"))
            continue;
        if (sscanf(line, "part %d %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNd64 " %n", &i, &dev,
                   &ino, &size, &mtime, &end) == 5) {
            assert_int_equal(i, n_part);
            assert_int_equal(dev, en->part[i].id.dev);
            assert_int_equal(ino, en->part[i].id.ino);
            assert_int_equal(size, en->part[i].id.size);
            assert_int_equal(mtime, en->part[i].id.mtime_ns);
            assert_string_equal(line + end, en->part[i].path);
            n_part++;
            continue;
        }
        assert_int_equal(
            sscanf(line, "map %" SCNu64 " %" SCNu64 " %15s %" SCNu64, &off, &len, kind, &src), 4);
        assert_int_equal(off, at);
        assert_true(len > 0);
        uint8_t *got = malloc(len), *want = calloc(1, len);
        size_t n = 0;
        assert_int_equal(vapr_read(f->plan->vapr, got, off, len, &n, NULL), 0);
        assert_int_equal(n, len);
        if (kind[0] >= '0' && kind[0] <= '9') {
            assert_int_equal(source_read(f->plan->part[atoi(kind)], want, src, len, NULL), 0);
            assert_memory_equal(got, want, len);
        } else if (!strcmp(kind, "zero")) {
            assert_memory_equal(got, want, len);
            assert_int_equal(src, 0);
        } else {
            assert_string_equal(kind, "mem");
            assert_int_equal(src, 0);
            n_mem++;
        }
        free(got);
        free(want);
        at += len;
        n_map++;
    }
    assert_int_equal(at, vapr_size(f->plan->vapr));
    assert_int_equal(n_part, en->n_part);
    assert_true(n_map >= 2 && n_mem >= 1);
    free(copy);
}

static void store_text_extents_tile_the_file(void **state)
{
    (void)state;
    static const enum vapr_profile profile[] = {VAPR_ENGINE, VAPR_NATIVE, VAPR_STRICT};
    for (size_t i = 0; i < 3; i++) {
        struct store_options opt = plain;
        opt.vapr.profile = profile[i];
        char *root = temp_dir();
        struct gguf_build *b = tree_model_new(1);
        gguf_build_tensor_retype(b, "blk.0.ffn_gate.weight", 8);  /* Q8_0: converted */
        gguf_build_tensor_retype(b, "blk.0.attn_norm.weight", 1); /* F16 norm: widened */
        for (int k = 0; k < 2; k++) {
            size_t len;
            char name[40];
            uint8_t *p = gguf_build_shard(b, k, 2, &len);
            snprintf(name, sizeof name, "m/w-%05d-of-00002.gguf", k + 1);
            tree_bytes(root, name, p, len);
            free(p);
        }
        gguf_build_free(b);
        struct fixture f = open_fixture(root, &opt);
        char *text = xattr(&f, "user.aprfs.extents"), *tsv = NULL;
        size_t len;
        check_extents(&f, text);
        assert_int_equal(store_text_extents(&f.s->entry[0], f.plan, &tsv, &len, NULL), 0);
        assert_int_equal(strncmp(tsv, text, strlen(text)), 0);
        assert_string_equal(tsv + strlen(text), "\n");
        free(text);
        free(tsv);
        close_fixture(&f);
    }
}

/* 3 to 5 ranges when page-congruent: neighbours are joined. */
static void store_text_extents_are_few(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "m/w.gguf", 1);
    struct fixture f = open_fixture(root, &plain);
    char *text = xattr(&f, "user.aprfs.extents");
    int n = 0;
    for (char *p = text; (p = strstr(p, "\nmap ")); p++)
        n++;
    assert_in_range(n, 3, 5);
    free(text);
    close_fixture(&f);
}

static void store_text_over_64k_is_e2big(void **state)
{
    (void)state;
    char *root = temp_dir(), *text = NULL;
    size_t len = 0;
    tree_model(root, "m/w.gguf", 1);
    struct fixture f = open_fixture(root, &plain);
    struct store_entry *en = &f.s->entry[0];
    char *old = en->arch;
    en->arch = calloc(1, STORE_TEXT_XATTR_MAX + 2);
    memset(en->arch, 'x', STORE_TEXT_XATTR_MAX);
    assert_int_equal(store_text_xattr(f.s, en, NULL, "user.aprfs.arch", &text, &len, NULL), 0);
    free(text);
    en->arch[STORE_TEXT_XATTR_MAX] = 'x';
    assert_int_equal(store_text_xattr(f.s, en, NULL, "user.aprfs.arch", &text, &len, NULL), -E2BIG);
    free(en->arch);
    en->arch = old;
    close_fixture(&f);
}

static void store_text_list_names_what_is_answered(void **state)
{
    (void)state;
    char *root = temp_dir(), *list = NULL;
    size_t len = 0;
    tree_model(root, "m/w.gguf", 1);
    struct fixture f = open_fixture(root, &plain);
    for (int with_plan = 0; with_plan < 2; with_plan++) {
        struct store_plan *plan = with_plan ? f.plan : NULL;
        assert_int_equal(store_text_xattr_list(f.s, &f.s->entry[0], plan, &list, &len, NULL), 0);
        int n = 0;
        bool extents = false;
        for (char *p = list; p < list + len; p += strlen(p) + 1, n++) {
            char *text = NULL;
            size_t text_len;
            assert_int_equal(store_text_xattr(f.s, &f.s->entry[0], plan, p, &text, &text_len, NULL),
                             0);
            free(text);
            extents |= !strcmp(p, "user.aprfs.extents");
        }
        assert_int_equal(n, with_plan ? 12 : 10); /* 13 names; no sha256; no extents, layout */
        assert_int_equal(extents, with_plan);
        free(list);
    }
    close_fixture(&f);
}

/* A path is one line, whatever its bytes. */
static void store_text_escapes_paths(void **state)
{
    (void)state;
    char *root = temp_dir(), want[4200];
    tree_model(root, "a\nmap 0 0/m\\.gguf", 1);
    struct fixture f = open_fixture(root, &plain);
    snprintf(want, sizeof want, "%s/a\\012map 0 0/m\\134.gguf", f.s->root);
    expect_xattr(&f, "user.aprfs.source", want);
    expect_xattr(&f, "user.aprfs.alias", "a\\012map 0 0/m\\134.gguf");
    close_fixture(&f);
}

static void store_text_problems_are_lines(void **state)
{
    (void)state;
    char *root = temp_dir(), *text = NULL;
    size_t len = 0;
    struct err e;
    tree_model(root, "m/good.gguf", 1);
    tree_text(root, "m/bad\t.gguf", "<html>");
    tree_model(root, "n/x.gguf.part", 1);
    struct store *s = NULL;
    assert_int_equal(store_scan(&s, root, &plain, NULL, &e), 0);
    struct store_set *set = store_set_of(s);
    assert_int_equal(store_text_problems(set, NULL, &text, &len, &e), 0);
    assert_string_equal(text,
                        "EUCLEAN\tm/bad\\011.gguf\tno GGUF file: begins with bytes 3c 68 74 6d, "
                        "expected \"GGUF\"\n"
                        "EAGAIN\tn/x.gguf.part\tdownload in progress\n");
    assert_int_equal(strlen(text), len);
    free(text);
    assert_int_equal(store_text_problems(set, "local/n", &text, &len, &e), 0);
    assert_string_equal(text, "EAGAIN\tn/x.gguf.part\tdownload in progress\n");
    free(text);
    assert_int_equal(store_text_problems(set, "local/none", &text, &len, &e), 0);
    assert_string_equal(text, "");
    free(text);
    store_set_free(set);
    free(root);
}

static void store_text_index_is_json(void **state)
{
    (void)state;
    char *root = temp_dir(), *text = NULL;
    size_t len = 0;
    struct err e;
    tree_model(root, "m/good.gguf", 1);
    tree_text(root, "m/bad.gguf", "<html>");
    tree_projector(root, "m/eye.gguf");
    struct store *s = NULL;
    assert_int_equal(store_scan(&s, root, &plain, NULL, &e), 0);
    struct store_set *set = store_set_of(s);
    assert_int_equal(store_text_index(set, 7, true, &text, &len, &e), 0);
    cJSON *v = NULL;
    assert_int_equal(json_parse(&v, text, len, &e), 0);
    assert_int_equal(text[len - 1], '\n');
    uint64_t n = 0;
    assert_true(json_uint(json_get(v, "schema"), &n) && n == 1);
    assert_true(json_uint(json_get(v, "generation"), &n) && n == 7);
    const cJSON *list = json_get(v, "entries");
    assert_int_equal(cJSON_GetArraySize(list), 3);
    const cJSON *bad = cJSON_GetArrayItem(list, 0), *good = cJSON_GetArrayItem(list, 1);
    const cJSON *eye = cJSON_GetArrayItem(list, 2);
    assert_true(cJSON_IsNull(json_get(bad, "path")));
    assert_string_equal(json_text(json_get(bad, "status")), "EUCLEAN");
    assert_string_equal(json_text(json_get(bad, "role")), "unsupported");
    assert_string_equal(json_text(json_get(good, "path")), "local/m/good.apr");
    assert_string_equal(json_text(json_get(good, "status")), "ok");
    assert_string_equal(json_text(json_get(good, "why")), "");
    assert_string_equal(json_text(json_get(good, "store")), "plain");
    assert_string_equal(json_text(json_get(good, "arch")), "qwen2");
    assert_true(json_uint(json_get(good, "size"), &n) && n == s->entry[1].size);
    const cJSON *part = cJSON_GetArrayItem(json_get(good, "parts"), 0);
    assert_string_equal(json_text(json_get(part, "path")), s->entry[1].part[0].path);
    assert_true(cJSON_IsNull(json_get(part, "sha256")));
    assert_string_equal(json_text(json_get(eye, "path")), "local/m/mmproj-eye.gguf");
    assert_true(cJSON_IsNull(json_get(eye, "size")));
    cJSON_Delete(v);
    free(text);
    /* gguf=none shows no projector: a path would lead nowhere. */
    assert_int_equal(store_text_index(set, 7, false, &text, &len, &e), 0);
    assert_int_equal(json_parse(&v, text, len, &e), 0);
    list = json_get(v, "entries");
    assert_string_equal(json_text(json_get(cJSON_GetArrayItem(list, 1), "path")),
                        "local/m/good.apr");
    assert_true(cJSON_IsNull(json_get(cJSON_GetArrayItem(list, 2), "path")));
    cJSON_Delete(v);
    free(text);
    store_set_free(set);
    free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_text_simple_values),
        cmocka_unit_test(store_text_sha256_only_if_all_parts_have_one),
        cmocka_unit_test(store_text_extents_tile_the_file),
        cmocka_unit_test(store_text_extents_are_few),
        cmocka_unit_test(store_text_over_64k_is_e2big),
        cmocka_unit_test(store_text_list_names_what_is_answered),
        cmocka_unit_test(store_text_escapes_paths),
        cmocka_unit_test(store_text_problems_are_lines),
        cmocka_unit_test(store_text_index_is_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
