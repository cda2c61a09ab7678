#include "base/cli.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli_text.h"
#include "base/fault.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/signals.h"
#include "base/threads.h"

const lam_option lam_common_options[] = {
    {"threads", LAM_OPTION_INT, "N", NULL,
     "threads of this process (default: OMP_NUM_THREADS, else its CPUs)", 1, 4096, false},
    {"quiet", LAM_OPTION_FLAG, NULL, NULL, "warnings and errors only", 0, 0, false},
    {"json", LAM_OPTION_FLAG, NULL, NULL, "the result as JSON on standard output", 0, 0, false},
    {"force", LAM_OPTION_FLAG, NULL, NULL, "overwrite an existing output", 0, 0, false},
    {"help", LAM_OPTION_FLAG, NULL, NULL, "this text", 0, 0, false},
    {0}};

typedef struct value {
    const lam_option *option;
    bool given;
    char **texts; /* values in order; FLAG: none */
    int count;
} value;

struct lam_arguments {
    const lam_command *command;
    value *values; /* command's options, then the common ones */
    int value_count;
    char **positionals;
    int positional_count;
    char *line;
};

/* ---- names ---- */

static int edit_distance(const char *a, const char *b) {
    enum { LIMIT = 64 };
    int n = (int)strlen(a), m = (int)strlen(b), row[LIMIT + 1];
    if (n > LIMIT || m > LIMIT) return n > m ? n : m; /* as if nothing matched: no suggestion */
    for (int j = 0; j <= m; j++) row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

/* The shortest of the names that begin with `name`: it was cut short, not misspelt. */
static const char *completed(const char *name, const char *const *names, int count) {
    const char *shortest = NULL;
    for (int i = 0; i < count && *name; i++)
        if (!strncmp(names[i], name, strlen(name)) && (!shortest || strlen(names[i]) < strlen(shortest)))
            shortest = names[i];
    return shortest;
}

const char *lam_nearest_name(const char *name, const char *const *names, int count) {
    const char *nearest = completed(name, names, count);
    if (nearest) return nearest;
    int best = (int)strlen(name) / 2 + 1; /* farther than that is no misspelling */
    for (int i = 0; i < count; i++) {
        int distance = edit_distance(name, names[i]);
        if (distance < best || (distance <= best && !nearest)) {
            best = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

const char *lam_number_text(char text[32], double number) {
    if (fabs(number) < 1e16 && number == floor(number)) {
        snprintf(text, 32, "%.0f", number);
        return text;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, number);
        if (!(strtod(text, NULL) < number || strtod(text, NULL) > number)) break;
    }
    return text;
}

/* ---- parsing ---- */

static value *find_value(const lam_arguments *a, const char *name, size_t length) {
    for (int i = 0; i < a->value_count; i++)
        if (strlen(a->values[i].option->name) == length && !strncmp(a->values[i].option->name, name, length))
            return &a->values[i];
    return NULL;
}

static lam_status unknown_option(const lam_arguments *a, const char *name) {
    const char *names[128];
    int count = 0;
    for (int i = 0; i < a->value_count && count < 128; i++) names[count++] = a->values[i].option->name;
    const char *nearest = lam_nearest_name(name, names, count);
    LAM_REQUIRE(!nearest, LAM_ERROR_USAGE, "%s: unknown option --%s; did you mean --%s?", a->command->name,
                name, nearest);
    LAM_FAIL(LAM_ERROR_USAGE, "%s: unknown option --%s: see lamella %s --help", a->command->name, name,
             a->command->name);
}

const lam_option *lam_option_find(const lam_command *command, const char *name) {
    for (const lam_option *o = command->options; o && o->name; o++)
        if (!strcmp(o->name, name)) return o;
    return NULL;
}

lam_status lam_option_check(const lam_command *command, const lam_option *option, const char *text) {
    char *end, low[32], high[32];
    double number = 0;
    errno = 0;
    LAM_REQUIRE(option->kind != LAM_OPTION_TEXT || text[0], LAM_ERROR_USAGE, "%s: --%s is empty: %s",
                command->name, option->name, option->help);
    if (option->kind == LAM_OPTION_CHOICE)
        LAM_REQUIRE(lam_text_place(option->value_name, '|', text) >= 0, LAM_ERROR_USAGE,
                    "%s: --%s is '%s', allowed are %s", command->name, option->name, text,
                    option->value_name);
    if (option->kind == LAM_OPTION_INT) {
        number = (double)strtoll(text, &end, 10);
        LAM_REQUIRE(end != text && !*end && !errno && !isspace((unsigned char)*text), LAM_ERROR_USAGE,
                    "%s: --%s is '%s', an integer is needed", command->name, option->name, text);
    }
    if (option->kind == LAM_OPTION_FLOAT) {
        number = strtod(text, &end);
        LAM_REQUIRE(end != text && !*end && isfinite(number) && !isspace((unsigned char)*text),
                    LAM_ERROR_USAGE, "%s: --%s is '%s', a number is needed", command->name, option->name,
                    text);
    }
    bool bounded = option->minimum < option->maximum || option->minimum > option->maximum;
    if ((option->kind == LAM_OPTION_INT || option->kind == LAM_OPTION_FLOAT) && bounded)
        LAM_REQUIRE(number >= option->minimum && number <= option->maximum, LAM_ERROR_USAGE,
                    "%s: --%s is %s, allowed is %s to %s", command->name, option->name, text,
                    lam_number_text(low, option->minimum), lam_number_text(high, option->maximum));
    return LAM_OK;
}

static lam_status append(char ***texts, int *count, const char *text, size_t length) {
    LAM_TRY(lam_grow((void **)texts, (size_t)*count * sizeof **texts, (size_t)(*count + 1) * sizeof **texts));
    LAM_TRY(lam_text_copy_n(&(*texts)[*count], text, length));
    ++*count;
    return LAM_OK;
}

static lam_status add_value(const lam_arguments *a, value *v, const char *text) {
    LAM_TRY(lam_option_check(a->command, v->option, text));
    LAM_REQUIRE(v->option->kind == LAM_OPTION_LIST || !v->count, LAM_ERROR_USAGE, "%s: --%s is given twice",
                a->command->name, v->option->name);
    v->given = true;
    return append(&v->texts, &v->count, text, strlen(text));
}

static lam_status parse(lam_arguments *a, int argc, char **argv) {
    bool options_over = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (options_over || word[0] != '-' || word[1] == 0 || isdigit((unsigned char)word[1])) {
            LAM_REQUIRE(word[0], LAM_ERROR_USAGE, "%s: an empty word where %s is due", a->command->name,
                        a->command->positionals[0] ? a->command->positionals : "an option");
            LAM_TRY(append(&a->positionals, &a->positional_count, word, strlen(word)));
            continue;
        }
        if (!strcmp(word, "--")) {
            options_over = true;
            continue;
        }
        if (!strcmp(word, "-h")) word = "--help";
        LAM_REQUIRE(word[1] == '-', LAM_ERROR_USAGE,
                    "%s: unknown option %s: options are long, see lamella %s --help", a->command->name, word,
                    a->command->name);
        const char *name = word + 2, *equals = strchr(name, '=');
        size_t length = equals ? (size_t)(equals - name) : strlen(name);
        value *v = find_value(a, name, length);
        if (!v) {
            char shown[128];
            snprintf(shown, sizeof shown, "%.*s", (int)(length < 100 ? length : 100), name);
            return unknown_option(a, shown);
        }
        if (v->option->kind == LAM_OPTION_FLAG) {
            LAM_REQUIRE(!equals, LAM_ERROR_USAGE, "%s: --%s takes no value", a->command->name,
                        v->option->name);
            v->given = true;
        } else if (equals) {
            LAM_TRY(add_value(a, v, equals + 1));
        } else {
            int before = v->count;
            while (i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0) {
                LAM_TRY(add_value(a, v, argv[++i]));
                if (v->option->kind != LAM_OPTION_LIST) break;
            }
            LAM_REQUIRE(v->count > before, LAM_ERROR_USAGE, "%s: --%s needs a value (%s)", a->command->name,
                        v->option->name, v->option->value_name);
        }
    }
    return LAM_OK;
}

static lam_status check_complete(const lam_arguments *a) {
    const lam_command *c = a->command;
    LAM_REQUIRE(a->positional_count >= c->minimum_positionals, LAM_ERROR_USAGE,
                "%s: %s is missing: see lamella %s --help", c->name, c->positionals, c->name);
    LAM_REQUIRE(c->maximum_positionals < 0 || a->positional_count <= c->maximum_positionals, LAM_ERROR_USAGE,
                "%s: unexpected argument '%s': see lamella %s --help", c->name,
                a->positionals[c->maximum_positionals], c->name);
    for (int i = 0; i < a->value_count; i++)
        LAM_REQUIRE(!a->values[i].option->required || a->values[i].given, LAM_ERROR_USAGE,
                    "%s: --%s is missing: %s", c->name, a->values[i].option->name, a->values[i].option->help);
    return LAM_OK;
}

static lam_status fill_defaults(lam_arguments *a) {
    for (int i = 0; i < a->value_count; i++) {
        value *v = &a->values[i];
        const char *text = v->option->default_value;
        if (v->given || !text) continue;
        if (v->option->kind != LAM_OPTION_LIST) {
            LAM_TRY(append(&v->texts, &v->count, text, strlen(text)));
            continue;
        }
        for (const char *p = text; *p;) {
            size_t n = strcspn(p, ",");
            LAM_TRY(append(&v->texts, &v->count, p, n));
            p += n + (p[n] == ',');
        }
    }
    return LAM_OK;
}

static lam_status start(lam_arguments *a, const lam_command *command, int argc, char **argv) {
    a->command = command;
    for (const lam_option *o = command->options; o && o->name; o++) a->value_count++;
    for (const lam_option *o = lam_common_options; o->name; o++) a->value_count++;
    LAM_TRY(lam_alloc_array((void **)&a->values, a->value_count, sizeof *a->values));
    int i = 0;
    for (const lam_option *o = command->options; o && o->name; o++) a->values[i++].option = o;
    for (const lam_option *o = lam_common_options; o->name; o++) a->values[i++].option = o;
    size_t bytes = 1;
    for (int k = 0; k < argc; k++) bytes += strlen(argv[k]) + 1;
    LAM_TRY(lam_alloc((void **)&a->line, bytes));
    for (int k = 0; k < argc; k++) {
        if (k) strcat(a->line, " ");
        strcat(a->line, k ? argv[k] : "lamella");
    }
    return LAM_OK;
}

static void finish(lam_arguments *a) {
    for (int i = 0; a->values && i < a->value_count; i++) {
        for (int k = 0; k < a->values[i].count; k++) lam_free(a->values[i].texts[k]);
        lam_free(a->values[i].texts);
    }
    for (int i = 0; i < a->positional_count; i++) lam_free(a->positionals[i]);
    lam_free(a->positionals);
    lam_free(a->values);
    lam_free(a->line);
}

/* ---- access ---- */

static const value *need(const lam_arguments *a, const char *name) {
    const value *v = find_value(a, name, strlen(name));
    assert(v && "option is not in the command's table");
    return v;
}

int lam_positional_count(const lam_arguments *a) { return a->positional_count; }
const char *lam_positional(const lam_arguments *a, int index) { return a->positionals[index]; }
bool lam_option_given(const lam_arguments *a, const char *name) { return need(a, name)->given; }
bool lam_option_flag(const lam_arguments *a, const char *name) { return need(a, name)->given; }
const char *lam_option_text(const lam_arguments *a, const char *name) {
    const value *v = need(a, name);
    return v->count ? v->texts[0] : NULL;
}
int64_t lam_option_int(const lam_arguments *a, const char *name) {
    const char *text = lam_option_text(a, name);
    return text ? strtoll(text, NULL, 10) : 0;
}
double lam_option_float(const lam_arguments *a, const char *name) {
    const char *text = lam_option_text(a, name);
    return text ? strtod(text, NULL) : 0;
}
const char *const *lam_option_list(const lam_arguments *a, const char *name, int *count) {
    const value *v = need(a, name);
    *count = v->count;
    return (const char *const *)v->texts;
}
bool lam_option_json(const lam_arguments *a) { return lam_option_flag(a, "json"); }
bool lam_option_force(const lam_arguments *a) { return lam_option_flag(a, "force"); }
const char *lam_command_line(const lam_arguments *a) { return a->line; }

/* ---- main ---- */

static int report(lam_status status) {
    if (status == LAM_STOPPED)
        lam_log_info("%s", lam_last_error());
    else if (status != LAM_OK)
        lam_log_error("%s", lam_last_error());
    return lam_exit_code(status);
}

/* Standard output may be a full disk or a closed pipe: what was printed counts only once it is out. */
static lam_status flush_output(void) {
    bool failed_before = ferror(stdout); /* of which errno knows no more */
    LAM_REQUIRE(fflush(stdout) == 0, LAM_ERROR_IO, "standard output cannot be written: %s", lam_why(errno));
    LAM_REQUIRE(!failed_before, LAM_ERROR_IO, "standard output cannot be written: it is full or closed");
    return LAM_OK;
}

/* A closed standard stream would be the next file that is opened, and text meant for people would go into it. The other
 * direction: what is read or written there fails as it did. */
static lam_status keep_standard_streams(bool *output_closed) {
    for (int stream = 0; stream < 3; stream++) {
        if (fcntl(stream, F_GETFD) >= 0) continue;
        *output_closed = *output_closed || stream == 1;
        LAM_REQUIRE(open("/dev/null", stream ? O_RDONLY : O_WRONLY) == stream, LAM_ERROR_IO,
                    "/dev/null: cannot be opened: %s", strerror(errno));
    }
    return LAM_OK;
}

static int run(const lam_command *command, int words, int argc, char **argv) {
    lam_arguments a = {0};
    bool output_closed = false;
    lam_status status = keep_standard_streams(&output_closed);
    if (status == LAM_OK) status = start(&a, command, argc, argv);
    if (status == LAM_OK) status = parse(&a, argc - 1 - words, argv + 1 + words);
    if (status == LAM_OK && lam_option_flag(&a, "help")) {
        lam_cli_print_help(command);
        status = flush_output();
    } else {
        if (status == LAM_OK) status = check_complete(&a);
        if (status == LAM_OK) status = fill_defaults(&a);
        if (status == LAM_OK && output_closed && lam_option_json(&a))
            status = lam_fail(LAM_ERROR_IO, __FILE__, __LINE__, "--json: standard output is closed");
        if (status == LAM_OK) {
            lam_threads_set((int)lam_option_int(&a, "threads"));
            lam_log_set_quiet(lam_option_flag(&a, "quiet"));
            status = find_value(&a, "resume", strlen("resume")) ? lam_signals_install()
                                                                : lam_signals_end_cleanly();
            if (status == LAM_OK) status = command->run(&a);
        }
        if (status == LAM_OK) status = flush_output();
    }
    int code = report(status);
    finish(&a);
    return code;
}

/* The first word of a command's name: a family where a second follows. */
static bool is_family(const lam_command *command, const char *word) {
    size_t n = strlen(word);
    return !strncmp(command->name, word, n) && command->name[n] == ' ';
}

/* *words: how many words of the command line name it. */
static const lam_command *find_command(const lam_command *const *commands, int argc, char **argv,
                                       int *words) {
    for (; *commands; commands++) {
        *words = 1;
        if (!strcmp((*commands)->name, argv[0])) return *commands;
        *words = 2;
        if (argc > 1 && is_family(*commands, argv[0]) &&
            !strcmp((*commands)->name + strlen(argv[0]) + 1, argv[1]))
            return *commands;
    }
    return NULL;
}

static lam_status unknown_command(const lam_command *const *commands, int argc, char **argv) {
    const char *names[64], *second = argc > 1 && argv[1][0] != '-' ? argv[1] : NULL;
    char list[512] = "";
    int count = 0;
    size_t length = 0;
    for (const lam_command *const *c = commands; *c && count < 64; c++)
        if (is_family(*c, argv[0])) {
            names[count++] = (*c)->name + strlen(argv[0]) + 1;
            length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", count > 1 ? ", " : "",
                                       names[count - 1]);
            if (length >= sizeof list) length = sizeof list - 1;
        }
    if (count) {
        const char *nearest = second ? lam_nearest_name(second, names, count) : NULL;
        LAM_REQUIRE(!nearest, LAM_ERROR_USAGE, "unknown %s '%s'; did you mean '%s'?", argv[0], second,
                    nearest);
        LAM_FAIL(LAM_ERROR_USAGE, "%s: say which one: %s", argv[0], list);
    }
    for (; commands[count] && count < 64; count++) names[count] = commands[count]->name;
    const char *nearest = lam_nearest_name(argv[0], names, count);
    LAM_REQUIRE(!nearest, LAM_ERROR_USAGE, "unknown command '%s'; did you mean '%s'?", argv[0], nearest);
    LAM_FAIL(LAM_ERROR_USAGE, "unknown command '%s': lamella --help lists them", argv[0]);
}

/* `lamella bench --help`: the commands of the family. False: there is none of that name. */
static bool print_family(const lam_command *const *commands, const char *word) {
    bool found = false;
    for (const lam_command *const *c = commands; *c; c++) {
        if (!is_family(*c, word)) continue;
        if (!found) printf("Usage: lamella %s ...\n\n", word);
        found = true;
        printf("  lamella %s %s\n      %s\n", (*c)->name, (*c)->positionals, (*c)->summary);
    }
    return found;
}

int lam_cli_main(const lam_command *const *commands, int argc, char **argv) {
    lam_fault_from_environment();
    if (argc < 2) {
        lam_cli_print_overview(stderr, commands);
        return lam_exit_code(LAM_ERROR_USAGE);
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || (!strcmp(name, "help") && argc == 2)) {
        lam_cli_print_overview(stdout, commands);
        return report(flush_output());
    }
    if (!strcmp(name, "--version")) {
        printf("lamella %s\n", lam_version);
        return report(flush_output());
    }
    if (!strcmp(name, "--man")) {
        lam_cli_print_man(commands);
        return report(flush_output());
    }
    if (!strcmp(name, "--completion")) {
        lam_cli_print_completion(commands);
        return report(flush_output());
    }
    bool help = !strcmp(name, "help");
    int first = help ? 2 : 1, words;
    const lam_command *command = find_command(commands, argc - first, argv + first, &words);
    const char *next = argc > first + 1 ? argv[first + 1] : "";
    if (!command && (help || !strcmp(next, "--help") || !strcmp(next, "-h")) &&
        print_family(commands, argv[first]))
        return report(flush_output());
    if (!command) return report(unknown_command(commands, argc - first, argv + first));
    if (help) {
        lam_cli_print_help(command);
        return report(flush_output());
    }
    return run(command, words, argc, argv);
}
