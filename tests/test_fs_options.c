/* aprfs' options: both spellings, mount(8)'s words, and refusals by name. */
#include "fs/options.h"
#include "tests/support.h"

#include <errno.h>

#define MAX_ARG 12

/* Parses a command line given as words; argv must be writable, as main's is. */
static int parse(struct options *o, struct err *e, const char *const *word)
{
    static char store[MAX_ARG][256];
    static char *argv[MAX_ARG + 2];
    int n = 0;
    argv[n++] = (char *)"aprfs";
    for (; *word; word++, n++) {
        snprintf(store[n], sizeof store[n], "%s", *word);
        argv[n] = store[n];
    }
    argv[n] = NULL;
    return options_parse(o, n, argv, e);
}

#define PARSE(...) parse(&o, &e, (const char *const[]){__VA_ARGS__, NULL})

static void options_have_defaults(void **state)
{
    (void)state;
    struct options o;
    struct err e;
    assert_int_equal(PARSE("S", "D"), 0);
    assert_int_equal(o.n_source, 1);
    assert_string_equal(o.source[0], "S");
    assert_string_equal(o.mountpoint, "D");
    assert_int_equal(o.store.vapr.profile, VAPR_ENGINE);
    assert_int_equal(o.store.vapr.footer, VAPR_FOOTER_NONE);
    assert_int_equal(o.store.vapr.values, VAPR_VALUES_REFERENCE);
    assert_true(o.store.plan);
    assert_int_equal(o.gguf, GGUF_LINK);
    assert_int_equal(o.ttl_s, 30);
    assert_int_equal(o.umask, 0222);
    assert_int_equal(o.ready_fd, -1);
    assert_true(o.sandbox);
    assert_int_equal(o.caps, 0);
    assert_false(o.clean_stale || o.helper || o.fake);
    assert_false(o.foreground || o.single || o.debug || o.allow_other || o.uid_given);
}

static void options_take_both_spellings(void **state)
{
    (void)state;
    struct options o;
    struct err e;
    assert_int_equal(PARSE("--profile", "native", "--ttl=5", "S", "D", "-o", "gguf=none,uid=7"), 0);
    assert_int_equal(o.store.vapr.profile, VAPR_NATIVE);
    assert_int_equal(o.ttl_s, 5);
    assert_int_equal(o.gguf, GGUF_NONE);
    assert_true(o.uid_given && o.uid == 7);
    assert_int_equal(PARSE("-fs", "-o", "profile=strict,values=compat,resolve=beneath", "S", "D"),
                     0);
    assert_true(o.foreground && o.single);
    assert_int_equal(o.store.vapr.profile, VAPR_STRICT);
    assert_int_equal(o.store.vapr.values, VAPR_VALUES_COMPAT);
    assert_int_equal(o.store.resolve, STORE_RESOLVE_BENEATH);
    assert_int_equal(PARSE("-o", "umask=077", "-o", "cache=never,allow_other", "S", "D"), 0);
    assert_int_equal(o.umask, 077);
    assert_int_equal(o.cache, CACHE_NEVER);
    assert_true(o.allow_other);
    assert_int_equal(PARSE("-o", "fsname=a\\,b", "S", "D"), 0);
    assert_string_equal(o.fsname, "a,b");
}

static void options_tolerate_the_words_of_mount(void **state)
{
    (void)state;
    struct options o;
    struct err e;
    assert_int_equal(PARSE("S", "D", "-o",
                           "rw,dev,suid,noexec,noatime,relatime,auto,noauto,user,"
                           "users,nouser,owner,group,nofail,_netdev,comment=x,"
                           "x-systemd.automount,defaults,async,,ro"),
                     0);
}

static const struct {
    const char *const word[MAX_ARG];
    const char *says;
} refused[] = {
    {{"S"}, "STORE and DIR"},
    {{"S", "D", "-o", "sync"}, "unknown option 'sync'"},
    {{"S", "D", "-o", "profil=native"}, "unknown option 'profil=native'"},
    {{"S", "D", "-o", "foreground"}, "unknown option 'foreground'"},
    {{"S", "D", "--nothing"}, "unknown option '--nothing'"},
    {{"S", "D", "-x"}, "unknown option '-x'"},
    {{"S", "D", "-o", "profile=gguf"}, "profile=gguf: expected engine|native|strict"},
    {{"S", "D", "-o", "footer=sum"}, "footer=sum: expected none|crc"},
    {{"S", "D", "-o", "values="}, "values="},
    {{"S", "D", "-o", "uid=-1"}, "uid=-1"},
    {{"S", "D", "-o", "uid=4294967295"}, "uid=4294967295"}, /* (uid_t)-1 means "nobody said" */
    {{"S", "D", "-o", "umask=9"}, "umask=9: expected an octal number up to 0777"},
    {{"S", "D", "-o", "ttl=1e3"}, "ttl=1e3"},
    {{"S", "D", "-o", "ttl=-18446744073709551615"}, "ttl=-1844"}, /* strtoul(3) makes 1 of it */
    {{"S", "D", "-o", "ttl"}, "option 'ttl' needs a value"},
    {{"S", "D", "-o", "allow_other=1"}, "option 'allow_other' takes no value"},
    {{"S", "D", "-o"}, "option '-o' needs a value"},
    {{"S", "D", "-o", "sandbox=yes"}, "sandbox=yes: expected on|off"},
    {{"S", "D", "-o", "caps=all"}, "caps=all: expected none|read|lease|read+lease"},
    {{"S", "D", "-o", "allow_other,allow_root"}, "exclude each other"},
    {{"S", "D", "-o", "as=gguf,profile=strict"}, "profile= is about .apr files"},
    {{"S", "D", "-o", "footer=crc,as=gguf"}, "footer= is about .apr files"},
    {{"S", "D", "-o", "as=gguf,values=compat"}, "values= is about .apr files"},
    {{"S", "D", "-o", "as=gguf,gguf=file"}, "gguf= is about .apr files"},
};

static void options_refuse_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct options o;
        struct err e = {0};
        int rc = parse(&o, &e, refused[i].word);
        if (rc != -EINVAL || !strstr(e.msg, refused[i].says))
            fail_msg("case %zu: %d '%s', expected '%s'", i, rc, e.msg, refused[i].says);
    }
}

/* mount(8): mount.TYPE SOURCE DIR [-sfnv] [-N namespace] [-o options] [-t type]. */
static void options_as_a_helper_are_those_of_mount(void **state)
{
    (void)state;
    struct options o;
    struct err e = {0};
    char list[] = "rw,bogus,ttl=5,sandbox=off,caps=read+lease,clean_stale";
    char *argv[] = {(char *)"/sbin/mount.aprfs",
                    (char *)"S",
                    (char *)"D",
                    (char *)"-o",
                    list,
                    (char *)"-fns",
                    (char *)"-v",
                    (char *)"-t",
                    (char *)"aprfs",
                    NULL};
    assert_int_equal(options_parse(&o, 9, argv, &e), 0);
    assert_true(o.helper && o.fake && !o.foreground && !o.single);
    assert_int_equal(o.ttl_s, 5);
    assert_false(o.sandbox);
    assert_int_equal(o.caps, OPTION_CAP_READ | OPTION_CAP_LEASE);
    assert_true(o.clean_stale);
    /* Without -s the same word is refused; -N always is. */
    char again[] = "bogus";
    char *strict[] = {(char *)"mount.aprfs", (char *)"S", (char *)"D", (char *)"-o", again, NULL};
    assert_int_equal(options_parse(&o, 5, strict, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "unknown option 'bogus'"));
    char *space[] = {(char *)"mount.aprfs", (char *)"S", (char *)"D",
                     (char *)"-N",          (char *)"7", NULL};
    assert_int_equal(options_parse(&o, 5, space, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "-N 7"));
    /* Only under that name: as aprfs, -f stays in the foreground. */
    assert_int_equal(PARSE("-f", "S", "D"), 0);
    assert_true(o.foreground && !o.fake && !o.helper);
}

/* In the environment of a shell that keeps to POSIX; options come last from mount(8) and mount.fuse3. */
static void options_may_come_last_whatever_the_environment(void **state)
{
    (void)state;
    struct options o;
    struct err e = {0};
    char list[] = "ttl=5";
    char *argv[] = {(char *)"mount.aprfs", (char *)"S", (char *)"D", (char *)"-o", list, NULL};
    setenv("POSIXLY_CORRECT", "1", 1);
    assert_int_equal(options_parse(&o, 5, argv, &e), 0);
    assert_int_equal(o.ttl_s, 5);
    setenv("POSIXLY_CORRECT", "1", 1);
    assert_int_equal(PARSE("S", "D", "-f", "-o", "ttl=6"), 0);
    assert_true(o.foreground && o.ttl_s == 6 && o.n_source == 1);
}

static void options_help_needs_no_store(void **state)
{
    (void)state;
    struct options o;
    struct err e;
    assert_int_equal(PARSE("-h"), 0);
    assert_true(o.help);
    assert_int_equal(PARSE("--version"), 0);
    assert_true(o.version);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_have_defaults),
        cmocka_unit_test(options_take_both_spellings),
        cmocka_unit_test(options_tolerate_the_words_of_mount),
        cmocka_unit_test(options_refuse_by_name),
        cmocka_unit_test(options_as_a_helper_are_those_of_mount),
        cmocka_unit_test(options_may_come_last_whatever_the_environment),
        cmocka_unit_test(options_help_needs_no_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
