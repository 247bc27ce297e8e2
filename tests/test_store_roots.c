/* Known roots: which directories the environment leads to. The names are those of the programs'
 * own manuals, as design of stores, section 2, lists them. */
#include "format/store_roots.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <stdlib.h>
#include <string.h>

static const char *const variables[] = {"HF_HUB_CACHE",   "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                        "XDG_CACHE_HOME", "OLLAMA_MODELS",         "LLAMA_CACHE"};

/* An empty home; nothing else in the environment speaks of stores. */
static char *fresh_home(void)
{
    char *home = temp_dir();
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    setenv("HOME", home, 1);
    return home;
}

/* One "kind path-below-home" per line; a service's store of this machine is left out. */
static void expect(const char *home, const char *want)
{
    struct store_root *r;
    size_t n, len = strlen(home);
    char got[4096] = "";
    assert_int_equal(store_roots(&r, &n, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        size_t at = strlen(got);
        if (strncmp(r[i].path, home, len) == 0 && r[i].rc == 0)
            snprintf(got + at, sizeof got - at, "%d %s\n", (int)r[i].kind, r[i].path + len + 1);
    }
    store_roots_free(r, n);
    assert_string_equal(got, want);
}

#define KIND(k, path) k " " path "\n"
/* enum store_kind */
#define HF       "1"
#define OLLAMA   "2"
#define LMSTUDIO "3"
#define LLAMACPP "4"

static void roots_none_exist(void **state)
{
    (void)state;
    assert_int_equal(STORE_HF, 1);
    assert_int_equal(STORE_LLAMACPP, 4);
    char *home = fresh_home();
    expect(home, "");
    tree_text(home, ".ollama/models", "a file is no store");
    expect(home, "");
    free(home);
}

static void roots_default_places(void **state)
{
    (void)state;
    char *home = fresh_home();
    tree_dir(home, ".cache/llama.cpp");
    tree_dir(home, ".cache/huggingface/hub");
    tree_dir(home, ".lmstudio/models");
    tree_dir(home, ".cache/lm-studio/models");
    tree_dir(home, ".ollama/models");
    expect(home, KIND(HF, ".cache/huggingface/hub") KIND(OLLAMA, ".ollama/models")
                     KIND(LMSTUDIO, ".lmstudio/models") KIND(LMSTUDIO, ".cache/lm-studio/models")
                         KIND(LLAMACPP, ".cache/llama.cpp"));
    free(home);
}

static void set_below(const char *name, const char *home, const char *below)
{
    char *p = path_join(home, below);
    setenv(name, p, 1);
    free(p);
}

static void roots_variables_come_first(void **state)
{
    (void)state;
    char *home = fresh_home();
    tree_dir(home, ".cache/huggingface/hub");
    tree_dir(home, ".ollama/models");
    tree_dir(home, "x/huggingface/hub");
    tree_dir(home, "x/llama.cpp");
    tree_dir(home, "h/hub");
    tree_dir(home, "old");
    tree_dir(home, "c");
    tree_dir(home, "o");
    tree_dir(home, "l");
    setenv("XDG_CACHE_HOME", "", 1); /* empty is unset */
    expect(home, KIND(HF, ".cache/huggingface/hub") KIND(OLLAMA, ".ollama/models"));
    set_below("XDG_CACHE_HOME", home, "x");
    expect(home, KIND(HF, "x/huggingface/hub") KIND(OLLAMA, ".ollama/models")
                     KIND(LLAMACPP, "x/llama.cpp"));
    set_below("HF_HOME", home, "h");
    setenv("LLAMA_CACHE", "~/l", 1);
    expect(home, KIND(HF, "h/hub") KIND(OLLAMA, ".ollama/models") KIND(LLAMACPP, "l"));
    set_below("HUGGINGFACE_HUB_CACHE", home, "old");
    set_below("OLLAMA_MODELS", home, "o");
    expect(home, KIND(HF, "old") KIND(OLLAMA, "o") KIND(LLAMACPP, "l"));
    set_below("HF_HUB_CACHE", home, "c");
    expect(home, KIND(HF, "c") KIND(OLLAMA, "o") KIND(LLAMACPP, "l"));
    free(home);
}

/* New builds of llama.cpp keep their files in the hub cache: one directory is one source. */
static void roots_one_directory_once(void **state)
{
    (void)state;
    char *home = fresh_home();
    tree_dir(home, ".cache/huggingface/hub");
    tree_link(home, "same", ".cache/huggingface/hub");
    set_below("LLAMA_CACHE", home, "same");
    expect(home, KIND(HF, ".cache/huggingface/hub"));
    free(home);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roots_none_exist),
        cmocka_unit_test(roots_default_places),
        cmocka_unit_test(roots_variables_come_first),
        cmocka_unit_test(roots_one_directory_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
