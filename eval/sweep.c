/* `lamella sweep`: lists of settings of other commands -> every combination run once, one table, one page. */
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_lists.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/records.h"
#include "base/threads.h"
#include "eval/commands.h"
#include "eval/processes.h"
#include "eval/sweep_parts.h"

#define MAXIMUM_RUNS 100000
#define MAXIMUM_KEYS 64

typedef enum input_kind { EMBEDDINGS, ALIGNED, MAPS } input_kind;

static const struct section {
    const char *name;
    const lam_command *command;
    input_kind input;
    bool is_file; /* it leaves an embedding file that others read; else a folder of results */
} sections[] = {{"align", &lam_command_map, EMBEDDINGS, true},
                {"map", &lam_command_map, EMBEDDINGS, true},
                {"relate", &lam_command_relate, MAPS, false},
                {"probe", &lam_command_probe, ALIGNED, false},
                {"consistency", &lam_command_consistency, ALIGNED, false},
                {"retrieve", &lam_command_retrieve, ALIGNED, false}};
enum { SECTIONS = sizeof sections / sizeof *sections };

/* What a run adds to those before it: a key of the file and which of its values. */
typedef struct choice {
    const lam_config_list *list;
    int value;
} choice;

typedef struct planned {
    int section, after;          /* after: run whose output is read; -1: an embedding file */
    const lam_config_list *list; /* after -1: the embeddings, and which */
    int embedding;
    choice choices[MAXIMUM_KEYS]; /* of its own section */
    int choice_count;
    char *name, *output;
    const char **arguments;
} planned;

typedef struct sweep {
    lam_config_lists *lists;
    const lam_config_list *embeddings;
    const char *path, *out;
    planned *runs;
    int count, room;
    lam_arena arena;
} sweep;

/* ---- the file ---- */

static int section_of(const char *name) {
    for (int s = 0; s < SECTIONS; s++)
        if (!strcmp(sections[s].name, name)) return s;
    return -1;
}

static lam_status unknown_section(const sweep *w, const lam_config_list *list) {
    const char *names[SECTIONS + 1] = {"embeddings"}, *asked = *list->section ? list->section : list->key;
    for (int s = 0; s < SECTIONS; s++) names[s + 1] = sections[s].name;
    const char *nearest = lam_nearest_name(asked, names, SECTIONS + 1);
    LAM_REQUIRE(!nearest, LAM_ERROR_CONFIG, "%s:%zu: unknown section '%s'; did you mean '%s'?", w->path,
                list->line, asked, nearest);
    LAM_FAIL(
        LAM_ERROR_CONFIG,
        "%s:%zu: unknown section '%s', allowed are embeddings, align, map, relate, probe, consistency, retrieve",
        w->path, list->line, asked);
}

static lam_status check_value(const sweep *w, const lam_config_list *list, const lam_command *command,
                              const lam_option *option, const lam_config_value *value) {
    LAM_REQUIRE(value->count == 1 || option->kind == LAM_OPTION_LIST, LAM_ERROR_CONFIG,
                "%s:%zu: %s.%s takes one value, not a list in a list", w->path, list->line, list->section,
                list->key);
    for (int k = 0; k < value->count; k++) {
        const char *text = value->texts[k];
        LAM_REQUIRE(strncmp(text, "--", 2) != 0, LAM_ERROR_CONFIG,
                    "%s:%zu: %s.%s: the value '%s' would be read as an option", w->path, list->line,
                    list->section, list->key, text);
        bool truth = !strcmp(text, "true") || !strcmp(text, "false");
        LAM_REQUIRE(option->kind != LAM_OPTION_FLAG || truth, LAM_ERROR_CONFIG,
                    "%s:%zu: %s.%s is '%s', allowed are true and false", w->path, list->line, list->section,
                    list->key, text);
        if (option->kind != LAM_OPTION_FLAG && lam_option_check(command, option, text) != LAM_OK)
            return lam_fail_context(LAM_ERROR_CONFIG, "%s:%zu", w->path, list->line);
    }
    return LAM_OK;
}

static lam_status check_list(sweep *w, const lam_config_list *list) {
    if (!*list->section && !strcmp(list->key, "embeddings")) {
        w->embeddings = list;
        return LAM_OK;
    }
    int s = section_of(list->section);
    if (s < 0) return unknown_section(w, list);
    const lam_command *command = sections[s].command;
    bool own = !strcmp(list->key, "out") ||
               !strcmp(list->key, "save-transform"); /* runs would write over each other's */
    const lam_option *option = own ? NULL : lam_option_find(command, list->key);
    if (!option) {
        const char *names[MAXIMUM_KEYS];
        int count = 0;
        for (const lam_option *o = command->options; o->name && count < MAXIMUM_KEYS; o++)
            if (strcmp(o->name, "out") != 0 && strcmp(o->name, "save-transform") != 0)
                names[count++] = o->name;
        const char *nearest = lam_nearest_name(list->key, names, count);
        LAM_REQUIRE(!nearest, LAM_ERROR_CONFIG, "%s:%zu: unknown key %s.%s; did you mean %s?", w->path,
                    list->line, list->section, list->key, nearest);
        LAM_FAIL(LAM_ERROR_CONFIG, "%s:%zu: unknown key %s.%s: see lamella %s --help", w->path, list->line,
                 list->section, list->key, command->name);
    }
    for (int v = 0; v < list->count; v++) LAM_TRY(check_value(w, list, command, option, &list->values[v]));
    return LAM_OK;
}

static bool has_section(const sweep *w, int s) {
    for (int k = 0; k < w->lists->count; k++)
        if (!strcmp(w->lists->items[k].section, sections[s].name)) return true;
    return false;
}

static lam_status check_file(sweep *w) {
    bool results = false;
    for (int k = 0; k < w->lists->count; k++) LAM_TRY(check_list(w, &w->lists->items[k]));
    LAM_REQUIRE(w->embeddings, LAM_ERROR_CONFIG, "%s: the key embeddings is missing: the files to start from",
                w->path);
    for (int v = 0; v < w->embeddings->count; v++)
        for (int k = 0; k < w->embeddings->values[v].count; k++)
            LAM_REQUIRE(lam_path_exists(w->embeddings->values[v].texts[k]), LAM_ERROR_IO,
                        "%s:%zu: %s: there is no such file", w->path, w->embeddings->line,
                        w->embeddings->values[v].texts[k]);
    for (int s = 0; s < SECTIONS; s++) {
        results = results || (!sections[s].is_file && has_section(w, s));
        LAM_REQUIRE(sections[s].input != MAPS || !has_section(w, s) || has_section(w, section_of("map")),
                    LAM_ERROR_CONFIG, "%s: %s needs a section map, whose maps it reads", w->path,
                    sections[s].name);
    }
    LAM_REQUIRE(results, LAM_ERROR_CONFIG,
                "%s: no section gives results: add relate, probe, consistency or retrieve", w->path);
    return LAM_OK;
}

/* ---- the runs ---- */

/* printf into the arena. */
__attribute__((format(printf, 3, 4))) static lam_status keep_text(sweep *w, char **out, const char *format,
                                                                  ...) {
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    LAM_REQUIRE(length >= 0 && (size_t)length < sizeof text, LAM_ERROR_INPUT, "%s: the path is too long",
                w->out);
    return lam_arena_text(&w->arena, out, text, (size_t)length);
}

static lam_status give_arguments(sweep *w, planned *run) {
    int words = 16;
    char *word;
    for (int k = 0; k < run->choice_count; k++)
        words += 1 + run->choices[k].list->values[run->choices[k].value].count;
    LAM_TRY(lam_arena_alloc(&w->arena, (void **)&run->arguments, (size_t)words * sizeof *run->arguments));
    int n = 0;
    run->arguments[n++] = sections[run->section].command->name;
    run->arguments[n++] =
        run->after >= 0 ? w->runs[run->after].output : run->list->values[run->embedding].texts[0];
    for (int k = 0; k < run->choice_count; k++) {
        const lam_config_list *list = run->choices[k].list;
        const lam_config_value *value = &list->values[run->choices[k].value];
        bool flag = lam_option_find(sections[run->section].command, list->key)->kind == LAM_OPTION_FLAG;
        if (flag && !strcmp(value->texts[0], "false")) continue;
        LAM_TRY(keep_text(w, &word, "--%s", list->key));
        run->arguments[n++] = word;
        for (int t = 0; t < value->count && !flag; t++) run->arguments[n++] = value->texts[t];
    }
    run->arguments[n++] = "--out";
    run->arguments[n++] = run->output;
    run->arguments[n++] = "--threads"; /* the runs themselves are what is parallel */
    run->arguments[n++] = "1";
    run->arguments[n++] = "--force";
    run->arguments[n++] = "--json";
    run->arguments[n] = NULL;
    return LAM_OK;
}

/* Every combination of the section's values, the last key fastest, on one input. */
static lam_status plan_input(sweep *w, int s, int after, int embedding) {
    const lam_config_list *keys[MAXIMUM_KEYS];
    int count = 0, at[MAXIMUM_KEYS] = {0};
    for (int k = 0; k < w->lists->count; k++)
        if (!strcmp(w->lists->items[k].section, sections[s].name)) keys[count++] = &w->lists->items[k];
    for (bool more = true; more;) {
        LAM_REQUIRE(w->count < MAXIMUM_RUNS, LAM_ERROR_CONFIG, "%s: more than %d runs", w->path,
                    MAXIMUM_RUNS);
        if (w->count == w->room) {
            int larger = w->room ? 2 * w->room : 64;
            LAM_TRY(lam_grow((void **)&w->runs, (size_t)w->room * sizeof *w->runs,
                             (size_t)larger * sizeof *w->runs));
            w->room = larger;
        }
        planned *run = &w->runs[w->count];
        *run = (planned){.section = s,
                         .after = after,
                         .list = w->embeddings,
                         .embedding = embedding,
                         .choice_count = count};
        for (int k = 0; k < count; k++) run->choices[k] = (choice){keys[k], at[k]};
        LAM_TRY(keep_text(w, &run->name, "%s-%d", sections[s].name, w->count + 1));
        LAM_TRY(keep_text(w, &run->output, "%s/%s%s", w->out, run->name, sections[s].is_file ? ".h5ad" : ""));
        w->count++;
        LAM_TRY(give_arguments(w, run));
        more = false;
        for (int k = count; k-- > 0 && !more;) {
            more = ++at[k] < keys[k]->count;
            if (!more) at[k] = 0;
        }
    }
    return LAM_OK;
}

static lam_status plan(sweep *w) {
    bool aligned = has_section(w, section_of("align"));
    for (int s = 0; s < SECTIONS; s++) {
        if (!has_section(w, s)) continue;
        const char *source = sections[s].input == MAPS                 ? "map"
                             : sections[s].input == ALIGNED && aligned ? "align"
                                                                       : NULL;
        if (!source)
            for (int e = 0; e < w->embeddings->count; e++) LAM_TRY(plan_input(w, s, -1, e));
        for (int k = 0, before = w->count; source && k < before; k++)
            if (!strcmp(sections[w->runs[k].section].name, source))
                LAM_TRY(plan_input(w, s, k, w->runs[k].embedding));
    }
    return LAM_OK;
}

/* ---- the table ---- */

static void value_text(const lam_config_value *value, char *text, size_t size) {
    size_t length = 0;
    text[0] = 0;
    for (int t = 0; t < value->count && length < size; t++)
        length += (size_t)snprintf(text + length, size - length, "%s%s", t ? " " : "", value->texts[t]);
}

/* The swept settings of a run and of those it reads: fields of the record. */
static void put_settings(const sweep *w, int run, lam_json *record) {
    const planned *p = &w->runs[run];
    char key[256], text[512];
    if (p->after >= 0) {
        put_settings(w, p->after, record);
    } else if (w->embeddings->count > 1) {
        value_text(&w->embeddings->values[p->embedding], text, sizeof text);
        lam_json_set_text(record, "embeddings", text);
    }
    for (int k = 0; k < p->choice_count; k++) {
        const lam_config_list *list = p->choices[k].list;
        if (list->count < 2) continue;
        snprintf(key, sizeof key, "%s.%s", list->section, list->key);
        value_text(&list->values[p->choices[k].value], text, sizeof text);
        lam_json_set_text(record, key, text);
    }
}

/* The columns of all settings first, so that every record has the same ones. */
static void put_columns(const sweep *w, lam_json *record) {
    lam_json_set_text(record, "command", "");
    lam_json_set_text(record, "run", "");
    if (w->embeddings->count > 1) lam_json_set_text(record, "embeddings", "");
    for (int k = 0; k < w->lists->count; k++) {
        const lam_config_list *list = &w->lists->items[k];
        char key[256];
        if (!*list->section || list->count < 2) continue;
        snprintf(key, sizeof key, "%s.%s", list->section, list->key);
        lam_json_set_text(record, key, "");
    }
    lam_json_set_text(record, "name", "");
}

/* Numbers, those of objects within as "object.number"; a text is the name of the row. */
static void put_fields(const lam_json *result, const char *prefix, lam_json *record) {
    for (const char *key = NULL; (key = lam_json_key_after(result, key));) {
        const lam_json *field = lam_json_get(result, key);
        char path[256];
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", key);
        if (lam_json_is_object(field))
            put_fields(field, path, record);
        else if (lam_json_is_text(field) && !*prefix)
            lam_json_set_text(record, "name", lam_json_text(field, ""));
        else if (lam_json_is_integer(field))
            lam_json_set_int(record, path, lam_json_int(field, 0));
        else if (lam_json_is_number(field))
            lam_json_set_float(record, path, lam_json_float(field, 0));
    }
}

static lam_status read_result(const sweep *w, int run, lam_json **out) {
    char *path, *text;
    size_t size;
    LAM_TRY(lam_text_format(&path, "%s/logs/%s.json", w->out, w->runs[run].name));
    lam_status status = lam_file_read(path, &text, &size);
    if (status == LAM_OK) {
        status = lam_json_parse(out, text, size, path);
        lam_free(text);
    }
    lam_free(path);
    return status;
}

/* Records of all results. */
static lam_status gather(sweep *w, const lam_process *jobs, lam_json *records) {
    for (int r = 0; r < w->count; r++) {
        if (sections[w->runs[r].section].is_file || !jobs[r].done) continue;
        lam_json *result;
        LAM_TRY(read_result(w, r, &result));
        size_t items = lam_json_is_array(result) ? lam_json_size(result) : 1;
        for (size_t k = 0; k < items; k++) {
            lam_json *record = lam_json_object();
            lam_json_append(records, record);
            put_columns(w, record);
            lam_json_set_text(record, "command", sections[w->runs[r].section].name);
            lam_json_set_text(record, "run", w->runs[r].name);
            put_settings(w, r, record);
            put_fields(lam_json_is_array(result) ? lam_json_at(result, k) : result, "", record);
        }
        lam_json_free(result);
    }
    return LAM_OK;
}

/* ---- the command ---- */

/* The fields of all records in the first, so that the table has every column. */
static void complete_first(lam_json *records) {
    lam_json *first = lam_json_at(records, 0);
    for (size_t r = 1; r < lam_json_size(records); r++) {
        const lam_json *record = lam_json_at(records, r);
        for (const char *key = NULL; (key = lam_json_key_after(record, key));)
            if (!lam_json_get(first, key)) lam_json_set_float(first, key, NAN);
    }
}

/* How many failed, and what the first of them said last. */
static lam_status tell_failures(const sweep *w, const lam_process *jobs, bool any) {
    int failed = 0, first = -1;
    for (int r = 0; r < w->count; r++) {
        if (jobs[r].done) continue;
        if (first < 0) first = r;
        failed++;
    }
    if (!failed) return LAM_OK;
    char *path, *text = NULL, last[512] = "";
    size_t size;
    LAM_TRY(lam_text_format(&path, "%s/logs/%s.log", w->out, w->runs[first].name));
    if (lam_file_read(path, &text, &size) == LAM_OK) {
        while (size && (text[size - 1] == '\n' || text[size - 1] == '\r')) text[--size] = 0;
        const char *line = strrchr(text, '\n');
        snprintf(last, sizeof last, "%s", line ? line + 1 : text);
        lam_free(text);
    }
    lam_free(path);
    LAM_FAIL(LAM_ERROR_INPUT, "sweep: %d of %d runs failed%s%s%s; %s: %s", failed, w->count,
             any ? ", the others are in " : "", any ? w->out : "", any ? "/sweep.csv" : "",
             w->runs[first].name, last);
}

/* Where --force writes over another sweep, nothing of that one may stay beside this: its table, its page, its runs. */
static lam_status clear(const sweep *w) {
    static const char *const names[] = {"sweep.csv", "report.html", "report_data", "logs"};
    char **entries;
    int64_t count;
    if (!lam_path_is_folder(w->out)) return LAM_OK;
    LAM_TRY(lam_remove_files(w->out, names, sizeof names / sizeof *names));
    LAM_TRY(lam_list_folder(w->out, "", &entries, &count));
    lam_status status = LAM_OK;
    for (int64_t k = 0; k < count && status == LAM_OK; k++)
        for (int s = 0; s < SECTIONS && status == LAM_OK; s++) {
            size_t n = strlen(sections[s].name), digits;
            if (strncmp(entries[k], sections[s].name, n) != 0 || entries[k][n] != '-') continue;
            digits = strspn(entries[k] + n + 1, "0123456789");
            const char *end = entries[k] + n + 1 + digits;
            if (digits && !strcmp(end, sections[s].is_file ? ".h5ad" : ""))
                status = lam_remove_files(w->out, (const char *const *)&entries[k], 1);
        }
    lam_free_texts(entries, count);
    return status;
}

static lam_status go(sweep *w, const lam_arguments *arguments) {
    lam_process *jobs = NULL;
    lam_json *records = lam_json_array();
    char *logs = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(clear(w), done);
    LAM_TRY_GOTO(lam_path_join(&logs, w->out, "logs"), done);
    LAM_TRY_GOTO(lam_make_folders(logs), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&jobs, w->count, sizeof *jobs), done);
    for (int r = 0; r < w->count; r++)
        jobs[r] = (lam_process){
            .arguments = w->runs[r].arguments, .name = w->runs[r].name, .after = w->runs[r].after};
    LAM_TRY_GOTO(lam_processes_run(jobs, w->count, lam_threads(), logs), done);
    LAM_TRY_GOTO(gather(w, jobs, records), done);
    if (lam_json_size(records)) {
        complete_first(records);
        LAM_TRY_GOTO(lam_records_write(records, w->out, "sweep.csv"), done);
        LAM_TRY_GOTO(lam_sweep_page_write(w->out, w->path, w->count, records), done);
        if (lam_option_json(arguments)) LAM_TRY_GOTO(lam_records_print(records, false), done);
    }
    status = tell_failures(w, jobs, lam_json_size(records) > 0);
done:
    lam_json_free(records);
    lam_free(jobs);
    lam_free(logs);
    return status;
}

static lam_status run(const lam_arguments *arguments) {
    sweep w = {.path = lam_positional(arguments, 0), .out = lam_option_text(arguments, "out")};
    LAM_TRY(lam_require_new_folder(w.out, lam_option_force(arguments)));
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_config_lists_read(&w.lists, w.path), done);
    LAM_TRY_GOTO(check_file(&w), done);
    LAM_TRY_GOTO(plan(&w), done);
    status = go(&w, arguments);
done:
    lam_config_lists_free(w.lists);
    lam_free(w.runs);
    lam_arena_free(&w.arena);
    return status;
}

static const lam_option options[] = {{"out", LAM_OPTION_TEXT, "DIR", NULL,
                                      "folder for sweep.csv, report.html, every map and result, and logs/", 0,
                                      0, true},
                                     {0}};

const lam_command lam_command_sweep = {
    "sweep",
    "run every combination of settings of map, relate and others: one table, one page",
    "SWEEP.yaml",
    1,
    1,
    options,
    "lamella sweep configs/sweep.yaml --out sweep",
    run};
