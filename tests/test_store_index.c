/* The index of a store: what is written comes back whole, and nothing else is believed. */
#include "format/bytes.h"
#include "format/crc32.h"
#include "format/store_index.h"
#include "tests/ollama_build.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <openssl/sha.h>

static const struct store_options planned = {.kind = STORE_AUTO, .plan = true};
enum { NOW = 1700000000 }; /* any second */
static const int64_t month = 30 * 24 * 60 * 60;

static struct store *scan(const char *root, const struct store *prev)
{
    return tree_scan_after(root, &planned, prev);
}

static uint8_t *write_index(size_t *n, const struct store *s, const struct store_index *old,
                            int64_t now_s)
{
    uint8_t *p = NULL;
    struct err e = {0};
    if (store_index_write(&p, n, s, old, now_s, &e) < 0)
        fail_msg("%s", e.msg);
    return p;
}

static struct store_index read_index(const uint8_t *p, size_t n, const struct store *s)
{
    struct store_index ix = {0};
    struct err e = {0};
    if (store_index_read(&ix, p, n, &s->opt, &e) < 0)
        fail_msg("%s", e.msg);
    return ix;
}

static void reseal(uint8_t *p, size_t n)
{
    store_u32(p + 28, crc32_update(0, p + 32, n - 32));
}

/* Every kind of thing that a plain folder can hold. */
static char *mixed_root(void)
{
    char *root = temp_dir();
    tree_model(root, "a/b/one.gguf", 1);
    tree_model(root, "two.gguf", 2);
    tree_shards(root, "c/parts", 3);
    tree_projector(root, "c/mmproj-x.gguf");
    tree_adapter(root, "c/lora.gguf");
    tree_vocab(root, "c/vocab.gguf");
    tree_imatrix(root, "c/imatrix.gguf");
    tree_text(root, "c/broken.gguf", "GGUF and no more");
    return root;
}

static void assert_part_equal(const struct store_part *a, const struct store_part *b)
{
    assert_string_equal(a->path, b->path);
    assert_true(source_id_equal(&a->id, &b->id));
    assert_string_equal(a->sha256, b->sha256);
    assert_int_equal(a->how, b->how);
}

/* Every field: who adds one adds it here and in store_index.c. */
static void assert_entry_equal(const struct store_entry *a, const struct store_entry *b)
{
    assert_string_equal(a->publisher, b->publisher);
    assert_string_equal(a->model, b->model);
    assert_string_equal(a->stem, b->stem);
    assert_string_equal(a->wish, b->wish);
    assert_string_equal(a->order, b->order);
    assert_string_equal(a->called, b->called);
    assert_string_equal(a->revision, b->revision);
    assert_string_equal(a->params, b->params);
    assert_string_equal(a->why, b->why);
    assert_string_equal(a->warning, b->warning);
    assert_string_equal(a->arch, b->arch);
    assert_string_equal(a->quant, b->quant);
    assert_string_equal(a->tokenizer_why, b->tokenizer_why);
    assert_string_equal(a->generation_why, b->generation_why);
    assert_int_equal(a->n_alias, b->n_alias);
    for (size_t i = 0; i < a->n_alias; i++)
        assert_string_equal(a->alias[i], b->alias[i]);
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->role, b->role);
    assert_int_equal(a->rc, b->rc);
    assert_int_equal(a->tokenizer_rc, b->tokenizer_rc);
    assert_int_equal(a->generation_rc, b->generation_rc);
    assert_int_equal(a->n_params, b->n_params);
    assert_int_equal(a->n_ctx_train, b->n_ctx_train);
    assert_int_equal(a->src_size, b->src_size);
    assert_int_equal(a->size, b->size);
    assert_int_equal(a->head_len, b->head_len);
    assert_int_equal(a->learnt->ino, b->learnt->ino);
    assert_int_equal(a->learnt->n_crc, b->learnt->n_crc);
    if (a->learnt->n_crc)
        assert_memory_equal(a->learnt->crc, b->learnt->crc, a->learnt->n_crc * sizeof(uint32_t));
    assert_false(b->learnt->doubt);
    assert_memory_equal(a->head_sha256, b->head_sha256, NAME_ID_SIZE);
    assert_memory_equal(a->sibling_sha256, b->sibling_sha256, NAME_ID_SIZE);
    assert_int_equal(a->n_part, b->n_part);
    for (int i = 0; i < a->n_part; i++)
        assert_part_equal(&a->part[i], &b->part[i]);
}

/* The struct as this test knows it: another size means a field that nobody compares. */
_Static_assert(sizeof(struct store_part) == 120, "struct store_part: compare the new field too");
_Static_assert(sizeof(struct store_entry) == 280, "struct store_entry: compare the new field too");
_Static_assert(sizeof(struct store_learnt) == 32, "struct store_learnt: compare the new field too");

static void check_round_trip(const char *root, size_t n_entry, int n_parsed)
{
    struct store *first = scan(root, NULL);
    assert_int_equal(first->n_entry, n_entry);
    assert_int_equal(first->n_parsed, n_parsed);
    size_t n;
    uint8_t *p = write_index(&n, first, NULL, NOW), *guarded = guard_new(p, n);
    struct store_index ix = read_index(guarded, n, first);
    assert_int_equal(ix.store->n_entry, n_entry + first->n_merged);
    assert_string_equal(ix.store->root, first->root);
    for (size_t i = 0; i < n_entry; i++) {
        assert_entry_equal(&first->entry[i], &ix.store->entry[i]);
        assert_int_equal(ix.seen_s[i], NOW);
    }
    struct store *second = scan(root, ix.store);
    assert_int_equal(second->n_parsed, 0);
    assert_true(store_equal(first, second));
    for (size_t i = 0; i < n_entry; i++)
        assert_entry_equal(&first->entry[i], &second->entry[i]);
    store_free(second);
    store_index_release(&ix);
    guard_free(guarded, n);
    free(p);
    store_free(first);
}

static void store_index_brings_every_field_back(void **state)
{
    (void)state;
    char *root = mixed_root();
    check_round_trip(root, 8, 8); /* mixed_root(): 8 files or groups of shards */
    free(root);
}

static void store_index_brings_a_hub_back(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_hub_model(root, "models--org--repo", TREE_COMMIT_A, "m.gguf", 1);
    tree_hub_model(root, "models--org--repo", TREE_COMMIT_A, "M.gguf", 1); /* one blob, merged */
    tree_hub_ref(root, "models--org--repo", "main", TREE_COMMIT_A);
    check_round_trip(root, 1, 2);
    free(root);
}

/* What a mount learnt goes with the record, also through a scan that does not parse; a record in doubt
 * is not kept, and its file is parsed. */
static void store_index_keeps_what_was_learnt(void **state)
{
    (void)state;
    char *root = mixed_root();
    struct store *s = scan(root, NULL);
    static const uint32_t crc[] = {0xcafe, 0, UINT32_MAX};
    for (size_t i = 0; i < s->n_entry; i += 2) {
        assert_int_equal(store_learnt_set_crc(s->entry[i].learnt, crc, 1 + i % 3), 0);
        s->entry[i].learnt->ino = INT64_MAX - i;
    }
    size_t n;
    uint8_t *p = write_index(&n, s, NULL, NOW), *guarded = guard_new(p, n);
    struct store_index ix = read_index(guarded, n, s);
    struct store *again = scan(root, ix.store);
    assert_int_equal(again->n_parsed, 0);
    for (size_t i = 0; i < s->n_entry; i++) {
        assert_entry_equal(&s->entry[i], &ix.store->entry[i]);
        assert_entry_equal(&s->entry[i], &again->entry[i]);
    }
    again->entry[0].learnt->doubt = true;
    size_t n_less;
    uint8_t *less = write_index(&n_less, again, &ix, NOW);
    struct store_index rest = read_index(less, n_less, s);
    assert_int_equal(rest.store->n_entry, s->n_entry - 1);
    struct store *third = scan(root, again);
    assert_int_equal(third->n_parsed, 1);
    assert_int_equal(third->entry[0].learnt->n_crc, 0);
    assert_false(third->entry[0].learnt->doubt);
    store_free(third);
    store_index_release(&rest);
    free(less);
    store_free(again);
    store_index_release(&ix);
    guard_free(guarded, n);
    free(p);
    store_free(s);
    free(root);
}

/* The same header makes another .gguf with another builder: its number is in the digest, the first 8
 * bytes of the SHA-256 of all options as u32 (store_index.c's list, in words of its own here). */
static void store_index_is_of_one_builder(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a/one.gguf", 1);
    struct store *s = scan(root, NULL);
    const uint32_t word[] = {
        STORE_AUTO,       STORE_VIEW_APR,        STORE_RESOLVE_ANY, 1, 0, 0, VAPR_ENGINE,
        VAPR_FOOTER_NONE, VAPR_VALUES_REFERENCE, VGGUF_BUILDER};
    uint8_t in[sizeof word], md[32];
    for (size_t i = 0; i < sizeof word / sizeof *word; i++)
        store_u32(in + 4 * i, word[i]);
    SHA256(in, sizeof in, md);
    size_t n;
    uint8_t *p = write_index(&n, s, NULL, NOW);
    assert_memory_equal(p + 16, md, 8);
    assert_int_equal(load_u32(p + 12), VAPR_BUILDER);
    free(p);
    store_free(s);
    free(root);
}

/* Parameters, aliases of two kinds, and a reason against generation_config.json. */
static void store_index_brings_an_ollama_store_back(void **state)
{
    (void)state;
    static const char *const params[] = {"{\"top_k\":5}", "{\"top_k\":6}", "{\"top_k\":\"7\"}"};
    char *root = temp_dir();
    for (int i = 0; i < 3; i++) {
        struct ollama_build o = {.root = root};
        char way[80];
        ollama_model(&o, "model", 1);
        ollama_layer(&o, "params", params[i], strlen(params[i]));
        snprintf(way, sizeof way, "manifests/registry.ollama.ai/library/m/%d", i);
        ollama_manifest(&o, way, NULL);
    }
    check_round_trip(root, 3, 3);
    free(root);
}

static void store_index_of_an_empty_store_is_no_error(void **state)
{
    (void)state;
    char *root = temp_dir();
    check_round_trip(root, 0, 0);
    free(root);
}

/* A reason that names a file has that name's control bytes no more than a line of problems.txt may: the
 * index would be refused whole, at each start. */
static void store_index_takes_reasons_about_odd_names(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "c/a\n\x1b[2J\xc2\x9b-00001-of-00002.gguf", 1);
    struct store *s = scan(root, NULL);
    assert_int_equal(s->n_entry, 1);
    assert_int_equal(s->entry[0].rc, -ENOENT);
    assert_string_equal(s->entry[0].why, "shard 2 of 2 is missing: a?\?[2J?\?-00002-of-00002.gguf");
    assert_int_equal(s->n_problem, 1);
    assert_string_equal(s->problem[0].why, s->entry[0].why);
    store_free(s);
    check_round_trip(root, 1, 0);
    free(root);
}

static void store_index_believes_no_changed_file(void **state)
{
    (void)state;
    char *root = mixed_root();
    struct store *first = scan(root, NULL);
    size_t n;
    uint8_t *p = write_index(&n, first, NULL, NOW);
    tree_model(root, "a/b/new", 3);
    char *from = path_join(root, "a/b/new"), *to = path_join(root, "a/b/one.gguf");
    assert_int_equal(rename(from, to), 0);
    struct store_index ix = read_index(p, n, first);
    struct store *second = scan(root, ix.store), *fresh = scan(root, NULL);
    assert_int_equal(second->n_parsed, 1);
    assert_true(store_equal(second, fresh));
    store_free(fresh);
    store_free(second);
    store_index_release(&ix);
    free(p);
    free(from);
    free(to);
    store_free(first);
    free(root);
}

/* A model that is gone for a while, as on a disk that is not plugged in, is known when it returns. */
static void store_index_keeps_what_is_gone_for_thirty_days(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a/one.gguf", 1);
    tree_model(root, "a/two.gguf", 2);
    char *one = path_join(root, "a/one.gguf"), *out = temp_dir();
    char *away = path_join(out, "away");
    struct store *both = scan(root, NULL);
    size_t n;
    uint8_t *p = write_index(&n, both, NULL, NOW);
    struct store_index ix = read_index(p, n, both);
    assert_int_equal(rename(one, away), 0);
    struct store *rest = scan(root, ix.store);
    assert_int_equal(rest->n_entry, 1);
    static const struct {
        int64_t after_s;
        size_t n;
    } row[] = {{month - 1, 2}, {month, 1}, {-1, 1}}; /* -1: seen in the future is not believed */
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        size_t n_later;
        uint8_t *later = write_index(&n_later, rest, &ix, NOW + row[i].after_s);
        struct store_index got = read_index(later, n_later, rest);
        assert_int_equal(got.store->n_entry, row[i].n);
        assert_int_equal(got.seen_s[0], NOW + row[i].after_s);
        if (row[i].n == 2)
            assert_int_equal(got.seen_s[1], NOW);
        store_index_release(&got);
        free(later);
    }
    store_free(rest);
    store_index_release(&ix);
    free(p);
    store_free(both);
    free(one);
    free(away);
    free(out);
    free(root);
}

static int read_rc(const uint8_t *p, size_t n, const struct store *s, struct err *e)
{
    struct store_index ix = {0};
    uint8_t *guarded = guard_new(p, n);
    int rc = store_index_read(&ix, guarded, n, &s->opt, e);
    guard_free(guarded, n);
    if (rc == 0)
        store_index_release(&ix);
    else
        assert_true(!ix.store && *e->msg);
    return rc;
}

static void store_index_refuses_every_cut_and_every_flip(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a/one.gguf", 1);
    tree_shards(root, "a/parts", 2);
    struct store *s = scan(root, NULL);
    size_t n;
    uint8_t *p = write_index(&n, s, NULL, NOW);
    struct err e;
    for (size_t i = 0; i < n; i++)
        assert_int_equal(read_rc(p, i, s, &e), -EUCLEAN);
    for (size_t i = 0; i < n; i++) {
        p[i] ^= 1 << (i % 8);
        int rc = read_rc(p, n, s, &e);
        /* Bytes 8 to 23: version and options. */
        assert_int_equal(rc, i >= 8 && i < 24 ? -ESTALE : -EUCLEAN);
        p[i] ^= 1 << (i % 8);
    }
    assert_int_equal(read_rc(p, n, s, &e), 0);
    free(p);
    store_free(s);
    free(root);
}

/* A right checksum over wrong content: who writes that is not us. Offsets: store_index.h. */
static void store_index_refuses_what_only_its_checksum_makes_right(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a/one.gguf", 1);
    struct store *s = scan(root, NULL);
    assert_int_equal(s->n_entry, 1);
    size_t n;
    uint8_t *p = write_index(&n, s, NULL, NOW);
    const size_t rec = 64, part = rec + 152, text = part + 48;
    const size_t pub = text + strlen(s->root) + 1, last = n - 1;
    const struct {
        const char *name;
        size_t at;
        uint32_t value;
        const char *says;
    } row[] = {
        {"more records", 24, 2, "its counts make"},
        {"as many records as fit", 24, UINT32_MAX, "its counts make"},
        {"more parts", 32, UINT32_MAX, "its counts make"},
        {"fewer texts", 36, 1, "its counts make"},
        {"more checksums", 48, 1, "its counts make"},
        {"reserved bytes", 60, 1, "not zero"},
        {"a head longer than its file", rec + 132, 1, "longer than its file"},
        {"the number of the root", rec + 136, 1, "no node has"},
        {"a number past what a node can have", rec + 140, 0x80000000, "no node has"},
        {"checksums that are not there", rec + 144, 1, "more checksums"},
        {"a reason that is no error", rec + 148, 1, "no such layout"},
        {"record without parts", rec, 0, "no parts"},
        {"record with others' parts", rec, 2, "more than the file has"},
        {"parts without end", rec, UINT32_MAX, "more than the file has"},
        {"one alias more", rec + 4, (uint32_t)s->entry[0].n_alias + 1, "record 0"},
        {"aliases without end", rec + 4, UINT32_MAX, "more aliases"},
        {"no such layout", rec + 8, 99, "no such layout"},
        {"auto is no layout", rec + 8, STORE_AUTO, "no such layout"},
        {"no such role", rec + 12, 99, "no such layout"},
        {"positive error", rec + 16, 1, "no such layout"},
        {"error out of range", rec + 20, 0x80000000, "no such layout"},
        {"no such way to open", part + 40, 99, "no known way"},
        {"reserved bytes of a part", part + 44, 1, "no known way"},
        {"root without an absolute path", text, 0x61616161, "no absolute path"},
        {"name with a slash", pub, 0x612f6f6c, "no file can have"},
        {"text without an end", last - 3, 0x61616161, "record 0"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        uint8_t *bad = malloc(n);
        struct err e = {0};
        assert_non_null(bad);
        memcpy(bad, p, n);
        store_u32(bad + row[i].at, row[i].value);
        reseal(bad, n);
        int rc = read_rc(bad, n, s, &e);
        if (rc != -EUCLEAN || !strstr(e.msg, row[i].says))
            fail_msg("%s: %d, '%s'", row[i].name, rc, rc < 0 ? e.msg : "");
        free(bad);
    }
    uint8_t *flat = malloc(n);
    struct err e;
    assert_non_null(flat);
    memcpy(flat, p, n);
    store_u64(flat + rec + 48, 0);
    reseal(flat, n);
    assert_int_equal(read_rc(flat, n, s, &e), -EUCLEAN);
    assert_non_null(strstr(e.msg, "without a size"));
    free(flat);
    free(p);
    store_free(s);
    free(root);
}

static void store_index_is_of_one_set_of_options(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a/one.gguf", 1);
    struct store *s = scan(root, NULL);
    size_t n;
    uint8_t *p = write_index(&n, s, NULL, NOW);
    struct store_index ix = {0};
    struct err e;
    struct store_options o[9];
    for (size_t i = 0; i < 9; i++)
        o[i] = planned;
    o[0].kind = STORE_PLAIN;
    o[1].resolve = STORE_RESOLVE_BENEATH;
    o[2].plan = false;
    o[3].all_revisions = true;
    o[4].chat_hint = true;
    o[5].vapr.profile = (enum vapr_profile)(planned.vapr.profile + 1);
    o[6].vapr.footer = (enum vapr_footer)(planned.vapr.footer + 1);
    o[8].view = STORE_VIEW_GGUF;
    o[7].vapr.values = (enum vapr_values)(planned.vapr.values + 1);
    for (size_t i = 0; i < 9; i++)
        assert_int_equal(store_index_read(&ix, p, n, &o[i], &e), -ESTALE);
    assert_null(ix.store);
    free(p);
    store_free(s);
    free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_index_brings_every_field_back),
        cmocka_unit_test(store_index_brings_a_hub_back),
        cmocka_unit_test(store_index_brings_an_ollama_store_back),
        cmocka_unit_test(store_index_keeps_what_was_learnt),
        cmocka_unit_test(store_index_is_of_one_builder),
        cmocka_unit_test(store_index_of_an_empty_store_is_no_error),
        cmocka_unit_test(store_index_takes_reasons_about_odd_names),
        cmocka_unit_test(store_index_believes_no_changed_file),
        cmocka_unit_test(store_index_keeps_what_is_gone_for_thirty_days),
        cmocka_unit_test(store_index_refuses_every_cut_and_every_flip),
        cmocka_unit_test(store_index_refuses_what_only_its_checksum_makes_right),
        cmocka_unit_test(store_index_is_of_one_set_of_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
