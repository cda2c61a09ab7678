/* Configurations: messages have file, line, key and what is allowed; what is resolved reads back the same. */
#include "base/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"

static const lam_config_key keys[] = {
    {"model.depth", LAM_CONFIG_INT, "12", "blocks of the encoder", 1, 1000, NULL},
    {"model.seed", LAM_CONFIG_INT, "0", "any integer", 0, 0, NULL},
    {"model.name", LAM_CONFIG_TEXT, "", "a name", 0, 0, NULL},
    {"data.path", LAM_CONFIG_TEXT, NULL, "a folder of shards", 0, 0, NULL},
    {"data.channels", LAM_CONFIG_NAMES, "", "channels by name", 0, 0, NULL},
    {"optim.rate", LAM_CONFIG_FLOAT, "1e-3", "step size", 0, 1, NULL},
    {"optim.rule", LAM_CONFIG_CHOICE, "adamw", "update rule", 0, 0, "adamw|lion"},
    {"optim.clip", LAM_CONFIG_BOOL, "true", "clip gradients", 0, 0, NULL},
    {NULL, 0, NULL, NULL, 0, 0, NULL}};

static lam_config *parse(const char *text) {
    lam_config *config = NULL;
    if (lam_config_parse(&config, keys, text, strlen(text), "c.yaml") != LAM_OK)
        fail_msg("%s", lam_last_error());
    return config;
}

static void accepted(void **state) {
    (void)state;
    lam_config *config = parse("# a run\nmodel: {depth: 1000, seed: -9223372036854775808}\n"
                               "optim:\n  rate: 5.e-1\n  rule: lion\n  clip: false\ndata.path: 'a: b # c'\n");
    assert_int_equal(lam_config_int(config, "model.depth"), 1000);
    assert_true(lam_config_int(config, "model.seed") == INT64_MIN);
    assert_true(lam_config_float(config, "optim.rate") == 0.5);
    assert_string_equal(lam_config_text(config, "optim.rule"), "lion");
    assert_int_equal(lam_config_choice(config, "optim.rule"), 1);
    assert_string_equal(lam_config_text(config, "data.path"), "a: b # c");
    assert_false(lam_config_bool(config, "optim.clip"));
    assert_string_equal(lam_config_text(config, "model.name"), "");
    assert_false(lam_config_given(config, "model.name"));
    assert_true(lam_config_given(config, "model.depth"));
    assert_int_equal(lam_config_check(config), LAM_OK);
    lam_config_free(config);
    config = parse("model: {}");
    assert_true(lam_config_bool(config, "optim.clip"));
    assert_int_equal(lam_config_choice(config, "optim.rule"), 0);
    assert_int_equal(lam_config_check(config), LAM_ERROR_CONFIG);
    assert_string_equal(lam_last_error(), "c.yaml: data.path is missing: a folder of shards (a text)");
    assert_int_equal(lam_config_set(config, "data.path=x"), LAM_OK);
    assert_int_equal(lam_config_check(config), LAM_OK);
    lam_config_free(config);
}

static void names(void **state) {
    (void)state;
    lam_config_free(parse("data.channels: 'a,aa,a a,[b],b[1]'"));
    static const char *const same[] = {"data: {channels: [DNA, 'ER 2', \"3\"]}",
                                       "data.channels: 'DNA,ER 2,3'",
                                       "data:\n  channels:\n  - DNA\n  - ER 2\n  - 3\n"};
    for (int i = 0; i < 3; i++) {
        lam_config *config = parse(same[i]), *again = NULL;
        assert_string_equal(lam_config_text(config, "data.channels"), "DNA,ER 2,3");
        char *text = NULL;
        assert_int_equal(lam_config_set(config, "data.path=x"), LAM_OK);
        assert_int_equal(lam_config_write(config, &text), LAM_OK);
        again = parse(text);
        assert_string_equal(lam_config_text(again, "data.channels"), "DNA,ER 2,3");
        lam_free(text);
        lam_config_free(again);
        lam_config_free(config);
    }
    static const char *const wrong[] = {
        "data: {channels: []}",        "data: {channels: [a, [b]]}", "data: {channels: ['a,b']}",
        "data: {channels: ['']}",      "data: {channels: 'a,,b'}",   "data: {channels: {a: b}}",
        "data: {channels: 'a,'}",      "data: {channels: ',a'}",     "data: {channels: [a, a]}",
        "data: {channels: 'aa,b,aa'}", "data: {channels: '[a,b]'}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        lam_config *config = NULL;
        assert_int_equal(lam_config_parse(&config, keys, wrong[i], strlen(wrong[i]), "c.yaml"),
                         LAM_ERROR_CONFIG);
        assert_non_null(strstr(lam_last_error(), "a list of names"));
    }
}

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"model:\n  dept: 3\n", "c.yaml:2: unknown key model.dept; did you mean model.depth?"},
        {"\nmodle: {depth: 3}\n", "c.yaml:2: unknown key modle.depth; did you mean model.depth?"},
        {"model:\n  dept: [1, 2]\n", "c.yaml:2: unknown key model.dept; did you mean model.depth?"},
        {"zzzzzzzzzzzzzzzzz: 1\n", "c.yaml:1: unknown key zzzzzzzzzzzzzzzzz: "},
        {"zzzzzzzzzzzzzzzzz: {}\n", "c.yaml:1: unknown key zzzzzzzzzzzzzzzzz: "},
        {"? ''\n: {model: {depth: 3}}\n", "c.yaml:1: unknown key "},
        {"model:\n  depth: 3\n  seed: 1\n  depth: 3\n",
         "c.yaml:4: duplicate key model.depth: it stands in line 2 already"},
        {"model.depth: 3\nmodel:\n  depth: 3\n", "c.yaml:3: duplicate key model.depth"},
        {"model: {depth: 3}\noptim: {}\nmodel: {seed: 3}\n", "c.yaml:3: duplicate key model: it stands in"},
        {"model:\n", "c.yaml:1: model is a section, allowed are keys below it"},
        {"model: [depth]\n", "c.yaml:1: model is a section"},
        {"model:\n  depth: 3.5\n", "c.yaml:2: model.depth is '3.5', allowed is an integer from 1 to 1000"},
        {"model:\n  depth: 3abc\n", "c.yaml:2: model.depth is '3abc', allowed is an integer from 1 to 1000"},
        {"model:\n  depth: 0x10\n", "allowed is an integer"},
        {"model:\n  depth:\n", "c.yaml:2: model.depth is '', allowed is an integer from 1 to 1000"},
        {"model:\n  depth: 0\n", "c.yaml:2: model.depth is '0', allowed is an integer from 1 to 1000"},
        {"model:\n  seed: 9223372036854775808\n", "c.yaml:2: model.seed is '92233"},
        {"model:\n  depth: [3]\n", "c.yaml:2: model.depth is no single value, allowed is an integer"},
        {"model:\n  depth: {a: 3}\n", "c.yaml:2: model.depth is no single value"},
        {"model:\n  name: \"a\\0b\"\n", "c.yaml:2: model.name is no single value"},
        {"optim: {rate: 1.5}\n", "c.yaml:1: optim.rate is '1.5', allowed is a number from 0 to 1"},
        {"optim: {rate: nan}\n", "allowed is a number from 0 to 1"},
        {"optim: {rule: adam}\n", "c.yaml:1: optim.rule is 'adam', allowed is adamw|lion"},
        {"optim: {rule: adamw|lion}\n", "allowed is adamw|lion"},
        {"optim: {clip: yes}\n", "c.yaml:1: optim.clip is 'yes', allowed is true|false"},
        {"model:\n\tdepth: 3\n",
         "c.yaml:2: not valid YAML: found character that cannot start any token (a tab: indent with spaces)"},
        {"model: &a {depth: 3}\n", "c.yaml:1: 'a' is an anchor or alias"},
        {"model:\n  name: *a\n", "c.yaml:2: 'a' is an anchor or alias"},
        {"model:\n  depth: !!int 3\n", "c.yaml:2: 'tag:yaml.org,2002:int' is a tag"},
        {"model: {}\n---\nmodel: {}\n", "c.yaml:2: a second document begins"},
        {"model:\n  name: ok\n  seed: \xff\n", "c.yaml:3: not valid YAML: "},
        {"model: {depth: 3\n", "not valid YAML"},
        {"- model\n", "c.yaml:1: the file is no section"},
        {"? [a]\n: b\n", "c.yaml:1: a key must be plain text"},
        {"", "c.yaml: the file is empty"},
        {"# only words\n", "c.yaml: the file is empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lam_config *config = NULL;
        lam_status status = lam_config_parse(&config, keys, cases[i].text, strlen(cases[i].text), "c.yaml");
        if (status != LAM_ERROR_CONFIG) fail_msg("accepted: %s", cases[i].text);
        assert_null(config);
        if (strstr(lam_last_error(), cases[i].message) == NULL)
            fail_msg("'%s' lacks '%s'", lam_last_error(), cases[i].message);
        assert_null(strchr(lam_last_error(), '\n'));
    }
}

static void overrides(void **state) {
    (void)state;
    lam_config *config = parse("model: {depth: 3}");
    assert_int_equal(lam_config_set(config, "model.depth=4"), LAM_OK);
    assert_int_equal(lam_config_set(config, "model.depth=5"), LAM_OK); /* the last one counts */
    assert_int_equal(lam_config_set(config, "model.name=a=b"), LAM_OK);
    assert_string_equal(lam_config_text(config, "model.name"), "a=b");
    assert_int_equal(lam_config_set(config, "model.name="), LAM_OK);
    assert_string_equal(lam_config_text(config, "model.name"), "");
    static const char *const bad[][2] = {
        {"model.depth", "'model.depth' is no key.path=value"},
        {"=4", "'=4' is no key.path=value"},
        {"model.dpth=4", "unknown key model.dpth; did you mean model.depth?"},
        {"optim.depth=4", "unknown key optim.depth; did you mean model.depth?"},
        {"rate.rule=lion", "unknown key rate.rule; did you mean optim.rule?"},
        {"model=4", "unknown key model"},
        {"model.depth=", "model.depth is '', allowed is an integer from 1 to 1000"},
        {"model.depth=4 ", "model.depth is '4 ', allowed"},
        {"model.depth=0", "model.depth is '0', allowed"},
        {"model.name=\xe4", "model.name is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(lam_config_set(config, bad[i][0]), LAM_ERROR_CONFIG);
        assert_non_null(strstr(lam_last_error(), bad[i][1]));
        assert_ptr_equal(strstr(lam_last_error(), "command line: "), lam_last_error());
    }
    assert_int_equal(lam_config_int(config, "model.depth"), 5); /* a refused one changes nothing */
    lam_config_free(config);
}

static void resolved(void **state) {
    (void)state;
    static const char *const names[] = {"",
                                        "yes",
                                        "1.0",
                                        " a ",
                                        "#",
                                        "a: b",
                                        "\"q\" \\n",
                                        "'",
                                        "\t\n\r\x1b\x7f",
                                        "\xc2\xb5m \xe2\x86\x92",
                                        "\xc2\x85 \xc2\x80",
                                        "\xe2\x80\xa8 \xe2\x80\xa9",
                                        "\xef\xbb\xbf",
                                        "\xef\xbf\xbf",
                                        "\xf0\x9f\x94\xac"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        lam_config *config = parse("optim: {rate: 0.1, clip: false}\nmodel: {seed: +7}"), *again = NULL;
        char assignment[64], *text = NULL;
        snprintf(assignment, sizeof assignment, "model.name=%s", names[i]);
        assert_int_equal(lam_config_set(config, assignment), LAM_OK);
        assert_int_equal(lam_config_write(config, &text), LAM_OK);
        assert_null(strstr(text, "path")); /* required, and not given */
        if (lam_config_parse(&again, keys, text, strlen(text), "r.yaml") != LAM_OK)
            fail_msg("%s\n%s", lam_last_error(), text);
        for (int k = 0; keys[k].path != NULL; k++) {
            if (keys[k].default_value == NULL) continue;
            assert_string_equal(lam_config_text(again, keys[k].path), lam_config_text(config, keys[k].path));
            assert_true(lam_config_given(again, keys[k].path));
        }
        lam_free(text);
        lam_config_free(again);
        lam_config_free(config);
    }
    char *help = NULL;
    assert_int_equal(lam_config_help(keys, &help), LAM_OK);
    for (int k = 0; keys[k].path != NULL; k++) assert_non_null(strstr(help, keys[k].path));
    assert_non_null(strstr(help, "(required)"));
    assert_non_null(strstr(help, "an integer from 1 to 1000"));
    lam_free(help);
}

static void files_and_memory(void **state) {
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "/tmp/lamella-config-%ld.yaml", (long)getpid());
    lam_config *config = NULL;
    assert_int_equal(lam_config_read(&config, keys, path), LAM_ERROR_IO);
    assert_non_null(strstr(lam_last_error(), path));
    static const char text[] = "model: {depth: 2, name: x}\ndata: {channels: [a, b]}\n";
    assert_int_equal(lam_file_write(path, text, sizeof text - 1), LAM_OK);
    int64_t n = 1;
    for (;; n++) {
        lam_fault_arm(LAM_FAULT_ALLOC, n);
        lam_status status = lam_config_read(&config, keys, path);
        lam_fault_arm(LAM_FAULT_ALLOC, 0);
        if (status == LAM_OK) break;
        assert_int_equal(status, LAM_ERROR_MEMORY);
        assert_null(config);
    }
    assert_true(n > 1);
    assert_int_equal(lam_config_int(config, "model.depth"), 2);
    lam_config_free(config);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted),  cmocka_unit_test(names),    cmocka_unit_test(refused),
        cmocka_unit_test(overrides), cmocka_unit_test(resolved), cmocka_unit_test(files_and_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
