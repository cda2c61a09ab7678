/* The command line: what a command gets, what is refused and with which words, help with its example. */
#include "base/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"

/* What the command saw, as text; "" where it did not run. */
static char seen[1024];
static lam_status result;

static lam_status run_map(const lam_arguments *a) {
    int count = 0;
    const char *const *list = lam_option_list(a, "by", &count);
    const char *out = lam_option_text(a, "out");
    int n =
        snprintf(seen, sizeof seen,
                 "out=%s align=%s seed=%d/%d rate=%g dry=%d json=%d force=%d threads=%d by=", out ? out : "-",
                 lam_option_text(a, "align"), (int)lam_option_int(a, "seed"), lam_option_given(a, "seed"),
                 lam_option_float(a, "rate"), lam_option_flag(a, "dry"), lam_option_json(a),
                 lam_option_force(a), (int)lam_option_int(a, "threads"));
    for (int i = 0; i < count; i++) n += snprintf(seen + n, sizeof seen - (size_t)n, "[%s]", list[i]);
    for (int i = 0; i < lam_positional_count(a); i++)
        n += snprintf(seen + n, sizeof seen - (size_t)n, " %s", lam_positional(a, i));
    if (result != LAM_OK) return lam_fail(result, __FILE__, __LINE__, "e.csv: is bad");
    printf("%s\n", lam_command_line(a));
    return LAM_OK;
}

static const lam_option options[] = {
    {"out", LAM_OPTION_TEXT, "FILE", NULL, "where it goes", 0, 0, true},
    {"align", LAM_OPTION_CHOICE, "none|center|tvn", "none", "how it is aligned", 0, 0, false},
    {"seed", LAM_OPTION_INT, "N", "7", "of the split", 0, 100, false},
    {"rate", LAM_OPTION_FLOAT, "R", "0.5", "any number", 0, 0, false},
    {"dry", LAM_OPTION_FLAG, NULL, NULL, "only look", 0, 0, false},
    {"by", LAM_OPTION_LIST, "NAME", "plate,well", "columns", 0, 0, false},
    {0}};
static const lam_command map = {"map",
                                "aggregate embeddings",
                                "EMB [MORE]",
                                1,
                                2,
                                options,
                                "lamella map e.h5ad --out m.h5ad\nlamella map e.h5ad --out n.h5ad",
                                run_map};
static const lam_command pack = {"pack", "pack images", "CSV", 1, 1, NULL, "lamella pack i.csv", run_map};
static const lam_option step_options[] = {{"batch", LAM_OPTION_INT, "N", "8", "crops", 1, 64, false}, {0}};
static lam_status run_step(const lam_arguments *a) {
    snprintf(seen, sizeof seen, "batch=%d", (int)lam_option_int(a, "batch"));
    return LAM_OK;
}
static const lam_command step = {"bench step", "time a step",        "",      0, 0,
                                 step_options, "lamella bench step", run_step};
static const lam_command loader = {"bench loader", "time the loader",        "SHARDS", 1, 1,
                                   NULL,           "lamella bench loader s", run_map};
static const lam_command *const commands[] = {&map, &pack, &step, &loader, NULL};

static char out_text[8192], error_text[8192];

static int divert(FILE *stream, FILE *file) {
    fflush(stream);
    int saved = dup(fileno(stream));
    dup2(fileno(file), fileno(stream));
    return saved;
}

static void restore(FILE *stream, FILE *file, int saved, char *text, size_t size) {
    fflush(stream);
    dup2(saved, fileno(stream));
    close(saved);
    rewind(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

/* Runs "lamella" with these words, parted by one space; "''" is an empty word. */
static int lamella(const char *line) {
    char copy[512], *argv[32] = {"lamella"}, *rest = copy;
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word; (word = strsep(&rest, " ")) != NULL && *line != '\0';)
        argv[argc++] = strcmp(word, "''") == 0 ? word + 2 : word;
    FILE *out = tmpfile(), *error = tmpfile();
    assert_true(out != NULL && error != NULL);
    seen[0] = '\0';
    int saved_out = divert(stdout, out), saved_error = divert(stderr, error);
    int code = lam_cli_main(commands, argc, argv);
    restore(stdout, out, saved_out, out_text, sizeof out_text);
    restore(stderr, error, saved_error, error_text, sizeof error_text);
    lam_log_set_quiet(false);
    return code;
}

static void accepted(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"map e --out o",
         "out=o align=none seed=7/0 rate=0.5 dry=0 json=0 force=0 threads=0 by=[plate][well] e"},
        {"map --out=o=p e --align tvn --seed 0 --rate -2.5 --dry f",
         "out=o=p align=tvn seed=0/1 rate=-2.5 dry=1 json=0 force=0 threads=0 by=[plate][well] e f"},
        {"map e --by a b --out o --by=c --threads 2 --json --force --quiet",
         "out=o align=none seed=7/0 rate=0.5 dry=0 json=1 force=1 threads=2 by=[a][b][c] e"},
        {"map --out o --dry --dry -- --out -x",
         "out=o align=none seed=7/0 rate=0.5 dry=1 json=0 force=0 threads=0 by=[plate][well] --out -x"},
        {"map - -5 --out -o",
         "out=-o align=none seed=7/0 rate=0.5 dry=0 json=0 force=0 threads=0 by=[plate][well] - -5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (lamella(cases[i][0]) != 0) fail_msg("%s: %s", cases[i][0], error_text);
        assert_string_equal(seen, cases[i][1]);
        assert_string_equal(error_text, "");
    }
    assert_string_equal(out_text, "lamella map - -5 --out -o\n");
}

static void refused(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"mapp e", "unknown command 'mapp'; did you mean 'map'?"},
        {"transmogrify", "unknown command 'transmogrify': lamella --help lists them"},
        {"help pac", "did you mean 'pack'?"},
        {"map e --out o --aling tvn", "map: unknown option --aling; did you mean --align?"},
        {"map e --out o --al tvn", "map: unknown option --al; did you mean --align?"},
        {"map e --out o --thread=3", "did you mean --threads?"},
        {"map e --out o --zzzzzzzzzz", "map: unknown option --zzzzzzzzzz: see lamella map --help"},
        {"map e --out o -x", "map: unknown option -x: options are long"},
        {"map e", "map: --out is missing: where it goes"},
        {"map --out o", "map: EMB [MORE] is missing"},
        {"map a b c --out o", "map: unexpected argument 'c'"},
        {"map e --out", "map: --out needs a value (FILE)"},
        {"map e --out ''", "map: --out is empty: where it goes"},
        {"map '' --out o", "map: an empty word where EMB [MORE] is due"},
        {"map e --out --dry", "map: --out needs a value (FILE)"},
        {"map e --out o --by", "map: --by needs a value (NAME)"},
        {"map e --out o --by a --by --dry", "map: --by needs a value (NAME)"},
        {"map e --out o --out p", "map: --out is given twice"},
        {"map e --out o --dry=1", "map: --dry takes no value"},
        {"map e --out o --align Tvn", "map: --align is 'Tvn', allowed are none|center|tvn"},
        {"map e --out o --seed 3.5", "map: --seed is '3.5', an integer is needed"},
        {"map e --out o --seed=3abc", "map: --seed is '3abc', an integer is needed"},
        {"map e --out o --seed=", "map: --seed is '', an integer is needed"},
        {"map e --out o --seed 99999999999999999999", "an integer is needed"},
        {"map e --out o --seed -1", "map: --seed is -1, allowed is 0 to 100"},
        {"map e --out o --rate nan", "map: --rate is 'nan', a number is needed"},
        {"map e --out o --threads 0", "map: --threads is 0, allowed is 1 to 4096"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int code = lamella(cases[i][0]);
        if (code != 2) fail_msg("%s: exit code %d", cases[i][0], code);
        assert_string_equal(seen, "");
        if (strstr(error_text, cases[i][1]) == NULL) fail_msg("'%s' lacks '%s'", error_text, cases[i][1]);
        assert_string_equal(out_text, "");
        assert_ptr_equal(strchr(error_text, '\n'), error_text + strlen(error_text) - 1); /* one line */
    }
}

static void numbers(void **state) {
    (void)state;
    static const struct {
        double number;
        const char *text;
    } cases[] = {
        {0, "0"},       {1e6, "1000000"},  {9007199254740992.0, "9007199254740992"}, {0.9999999, "0.9999999"},
        {-2.5, "-2.5"}, {1e300, "1e+300"}, {1.0 / 3, "0.3333333333333333"},          {1e-8, "1e-08"}};
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(lam_number_text(text, cases[i].number), cases[i].text);
}

static void exit_codes(void **state) {
    (void)state;
    static const int codes[][2] = {{LAM_ERROR_CONFIG, 2}, {LAM_ERROR_FORMAT, 1}, {LAM_STOPPED, 75}};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        result = (lam_status)codes[i][0];
        assert_int_equal(lamella("map e --out o"), codes[i][1]);
        assert_non_null(strstr(error_text, "e.csv: is bad"));
        assert_string_equal(out_text, "");
    }
    result = LAM_OK;
}

static void help(void **state) {
    (void)state;
    static const char *const ways[] = {"map --help", "map -h", "help map", "map --out o --help"};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        assert_int_equal(lamella(ways[i]), 0);
        assert_string_equal(seen, "");
        for (const lam_option *o = options; o->name != NULL; o++) assert_non_null(strstr(out_text, o->name));
        assert_non_null(
            strstr(out_text, "Example:\n  lamella map e.h5ad --out m.h5ad\n  lamella map e.h5ad"));
        assert_non_null(strstr(out_text, "of the split; 0 to 100 [7]"));
        assert_non_null(strstr(out_text, "where it goes (required)"));
        assert_non_null(strstr(out_text, "--threads N"));
    }
    static const char *const overviews[] = {"--help", "-h", "help"};
    for (size_t i = 0; i < sizeof overviews / sizeof overviews[0]; i++) {
        assert_int_equal(lamella(overviews[i]), 0);
        assert_non_null(strstr(
            out_text, "  map           aggregate embeddings\n  pack          pack images\n  bench step    "));
    }
    assert_int_equal(lamella(""), 2);
    assert_string_equal(out_text, "");
    assert_non_null(strstr(error_text, "  map           aggregate embeddings\n"));
    assert_int_equal(lamella("--version"), 0);
    assert_memory_equal(out_text + strlen("lamella "), lam_version, strlen(lam_version));
    assert_int_equal(lamella("--man"), 0);
    assert_non_null(strstr(out_text, ".SS lamella map EMB [MORE]\n"));
    assert_non_null(strstr(out_text, "\\-\\-align\\fR \\fInone|center|tvn\\fR"));
    assert_int_equal(lamella("--completion"), 0);
    assert_non_null(strstr(out_text, "map) options=\"--out --align --seed --rate --dry --by \""));
}

static void family(void **state) {
    (void)state;
    assert_int_equal(lamella("bench step --batch 3"), 0);
    assert_string_equal(seen, "batch=3");
    static const char *const ways[] = {"bench --help", "bench -h", "help bench"};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        assert_int_equal(lamella(ways[i]), 0);
        assert_non_null(strstr(out_text, "lamella bench loader SHARDS\n      time the loader\n"));
    }
    assert_int_equal(lamella("help bench step"), 0);
    assert_non_null(strstr(out_text, "Usage: lamella bench step [options]"));
    static const char *const cases[][2] = {{"bench", "bench: say which one: step, loader"},
                                           {"bench --json", "bench: say which one: step, loader"},
                                           {"bench lodaer", "unknown bench 'lodaer'; did you mean 'loader'?"},
                                           {"bench zzzzzzz", "bench: say which one: step, loader"},
                                           {"bench step s", "bench step: unexpected argument 's'"},
                                           {"bench loader", "bench loader: SHARDS is missing"},
                                           {"benc", "unknown command 'benc'"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(lamella(cases[i][0]), 2);
        if (strstr(error_text, cases[i][1]) == NULL) fail_msg("'%s' lacks '%s'", error_text, cases[i][1]);
    }
    assert_int_equal(lamella("--completion"), 0);
    assert_non_null(strstr(out_text, "compgen -W \"map pack bench \""));
    assert_non_null(strstr(out_text, "compgen -W \"step loader \""));
}

static void nearest(void **state) {
    (void)state;
    static const char *const names[] = {"depth", "width", "weight_decay"};
    char longer[300];
    memset(longer, 'z', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_string_equal(lam_nearest_name("wdth", names, 3), "width");
    assert_string_equal(lam_nearest_name("weight-decay", names, 3), "weight_decay");
    assert_string_equal(lam_nearest_name("we", names, 3), "weight_decay"); /* cut short, far as letters go */
    static const char *const cut[] = {"by", "aligned", "align", "aggregate"};
    assert_string_equal(lam_nearest_name("al", cut, 4), "align");
    assert_null(lam_nearest_name("colour", names, 3));
    assert_null(lam_nearest_name("", names, 3));
    assert_null(lam_nearest_name(longer, names, 3));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(accepted), cmocka_unit_test(refused),
                                       cmocka_unit_test(numbers),  cmocka_unit_test(exit_codes),
                                       cmocka_unit_test(help),     cmocka_unit_test(family),
                                       cmocka_unit_test(nearest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
