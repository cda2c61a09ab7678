/* `lamella bench scaling`: measured time of a step against tokens and width, beside the work that the formula counts. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/page.h"
#include "base/records.h"
#include "train/bench_network.h"
#include "train/bench_record.h"
#include "train/commands.h"

enum { MOST_MODELS = 64 };

typedef struct point {
    const char *model;
    char kind[24]; /* the name without its patch: "s", "ca-s" */
    char patch[24];
    double tokens, width, ms, work_ms, share; /* a crop; at the limit of products */
} point;

typedef struct scaling {
    point points[MOST_MODELS];
    int count;
    lam_json *records;
} scaling;

/* ---- measuring ---- */

static void set_point(point *p, const char *model, const lam_mae_config *config, const lam_json *record) {
    size_t letters = strcspn(model, "0123456789");
    double crops = lam_json_float(lam_json_get(record, "crops_per_s"), 0),
           work = lam_json_float(lam_json_get(record, "gflops_per_crop"), 0) *
                  lam_json_float(lam_json_get(record, "kept_share"), 0),
           limit = lam_json_float(lam_json_get(record, "limit_gflops_per_s"), 0);
    *p = (point){.model = model,
                 .tokens = lam_json_float(lam_json_get(record, "tokens"), 0),
                 .width = (double)config->embed_dim,
                 .ms = 1e3 / crops,
                 .work_ms = 1e3 * work / limit,
                 .share = 100 * lam_json_float(lam_json_get(record, "share_of_limit"), 0)};
    snprintf(p->kind, sizeof p->kind, "%.*s", (int)letters, model);
    snprintf(p->patch, sizeof p->patch, "patch %s", model + letters);
}

static lam_status measure(scaling *s, const lam_arguments *a) {
    int count;
    const char *const *models = lam_option_list(a, "models", &count);
    LAM_REQUIRE(count <= MOST_MODELS, LAM_ERROR_USAGE, "bench scaling: %d models, at most %d are possible",
                count, MOST_MODELS);
    lam_mae_config config;
    for (int i = 0; i < count; i++) LAM_TRY(lam_bench_model(models[i], &config)); /* before time is spent */
    for (int i = 0; i < count; i++) {
        lam_bench_settings settings = {.start = lam_now(),
                                       .backend = lam_backend_cpu(),
                                       .model = models[i],
                                       .batch = lam_option_int(a, "batch"),
                                       .steps = lam_option_int(a, "steps"),
                                       .bf16 = !strcmp(lam_option_text(a, "precision"), "bf16"),
                                       .recompute = "none",
                                       .limit_seconds = lam_option_float(a, "limit-seconds")};
        lam_json *record;
        LAM_TRY(lam_bench_model(models[i], &config));
        LAM_TRY(lam_bench_measure(&settings, &record));
        lam_json_append(s->records, record);
        set_point(&s->points[s->count], models[i], &config, record);
        const point *p = &s->points[s->count++];
        lam_log_info("%s: %.0f tokens, %.1f ms a crop, %.0f %% of the limit", p->model, p->tokens, p->ms,
                     p->share);
    }
    return LAM_OK;
}

/* ---- drawing ---- */

typedef struct curves {
    char names[2 * MOST_MODELS][48];
    double x[2 * MOST_MODELS][MOST_MODELS], y[2 * MOST_MODELS][MOST_MODELS];
    lam_series series[2 * MOST_MODELS];
    int count;
} curves;

static void add_curve(curves *c, const scaling *s, const char *group, bool by_tokens, bool work) {
    double *x = c->x[c->count], *y = c->y[c->count];
    int64_t points = 0;
    for (int i = 0; i < s->count; i++) {
        const point *p = &s->points[i];
        if (strcmp(by_tokens ? p->kind : p->patch, group) != 0) continue;
        int64_t at = points++;
        double place = by_tokens ? p->tokens : p->width;
        for (; at > 0 && x[at - 1] > place; at--) x[at] = x[at - 1], y[at] = y[at - 1];
        x[at] = place;
        y[at] = work ? p->work_ms : p->ms;
    }
    snprintf(c->names[c->count], sizeof c->names[0], work ? "%s, work at the limit" : "%s, measured", group);
    c->series[c->count] = (lam_series){c->names[c->count], points, x, y};
    c->count++;
}

/* One curve of measured times and one of work for each group of points. */
static void draw_times(lam_page *page, curves *c, const scaling *s, bool by_tokens, const char *title,
                       const char *axis) {
    c->count = 0;
    for (int i = 0; i < s->count; i++) {
        const char *group = by_tokens ? s->points[i].kind : s->points[i].patch;
        bool drawn = false;
        for (int k = 0; k < i; k++)
            drawn |= !strcmp(by_tokens ? s->points[k].kind : s->points[k].patch, group);
        if (drawn) continue;
        add_curve(c, s, group, by_tokens, false);
        add_curve(c, s, group, by_tokens, true);
    }
    lam_page_lines(page, title, axis, "milliseconds a crop", c->count, c->series);
}

static void draw_table(lam_page *page, const scaling *s) {
    static const char *const names[] = {"model",     "tokens",         "width",
                                        "ms a crop", "ms of its work", "% of the limit"};
    enum { COLUMNS = sizeof names / sizeof *names };
    char texts[MOST_MODELS][COLUMNS][32];
    const char *cells[MOST_MODELS * COLUMNS];
    for (int i = 0; i < s->count; i++) {
        const point *p = &s->points[i];
        const double values[] = {p->tokens, p->width, p->ms, p->work_ms, p->share};
        cells[i * COLUMNS] = p->model;
        for (int k = 1; k < COLUMNS; k++) {
            snprintf(texts[i][k], sizeof texts[i][k], "%.6g", values[k - 1]);
            cells[i * COLUMNS + k] = texts[i][k];
        }
    }
    lam_page_table(page, "Steps", COLUMNS, names, s->count, cells);
}

static lam_status draw(const scaling *s, const lam_arguments *a, const char *path, const char *data) {
    lam_page *page = NULL;
    curves *c = NULL;
    const lam_json *first = lam_json_at(s->records, 0);
    LAM_TRY(lam_alloc((void **)&c, sizeof *c));
    lam_status status = lam_page_create(&page, "lamella: time of a training step", data);
    if (status == LAM_OK) {
        lam_page_paragraph(
            page,
            "%s, batch %" PRId64 ", cpu %s, %s, %" PRId64
            " threads. Work: floating-point operations of the formula (matrix products, three times the "
            "forward pass) at the speed of the fastest library on the products of that step alone.",
            lam_option_text(a, "precision"), lam_option_int(a, "batch"),
            lam_json_text(lam_json_get(first, "cpu"), ""), lam_json_text(lam_json_get(first, "isa"), ""),
            lam_json_int(lam_json_get(first, "threads"), 0));
        draw_times(page, c, s, true, "Time against tokens, by network", "patches of a crop");
        draw_times(page, c, s, false, "Time against width, by patch", "width of the encoder");
        draw_table(page, s);
        status = lam_page_write(&page, path);
    }
    lam_page_free(&page);
    lam_free(c);
    return status;
}

/* ---- the command ---- */

static lam_status write_records(const scaling *s, const char *path) {
    char *bytes = NULL;
    LAM_TRY(lam_json_dump(s->records, true, &bytes));
    lam_status status = lam_file_write(path, bytes, strlen(bytes));
    lam_free(bytes);
    return status;
}

static lam_status bench_scaling(const lam_arguments *a) {
    const char *out = lam_option_text(a, "out");
    scaling s = {.records = lam_json_array()};
    char *page = NULL, *data = NULL, *records = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_path_join(&page, out, "scaling.html"), done);
    LAM_TRY_GOTO(lam_path_join(&data, out, "scaling_data"), done);
    LAM_TRY_GOTO(lam_path_join(&records, out, "scaling.json"), done);
    LAM_TRY_GOTO(lam_require_new_in_folder(page, lam_option_force(a)), done);
    LAM_TRY_GOTO(measure(&s, a), done);
    LAM_TRY_GOTO(lam_make_folders(out), done);
    LAM_TRY_GOTO(write_records(&s, records), done);
    LAM_TRY_GOTO(draw(&s, a, page, data), done);
    if (lam_option_json(a))
        status = lam_records_print(s.records, false);
    else
        lam_log_info("bench scaling: %s, numbers in %s", page, records);
done:
    lam_json_free(s.records);
    lam_free(page);
    lam_free(data);
    lam_free(records);
    return status;
}

static const lam_option options[] = {
    {"out", LAM_OPTION_TEXT, "FOLDER", NULL, "gets scaling.html, scaling.json and scaling_data",
     .required = true},
    {"models", LAM_OPTION_LIST, "NAME", "t32,t16,t8,s32,s16,s8,b32,b16,b8", LAM_BENCH_MODELS,
     .required = false},
    {"batch", LAM_OPTION_INT, "N", "4", "crops at once", .minimum = 1, .maximum = 65536},
    {"precision", LAM_OPTION_CHOICE, "f32|bf16", "f32", "type of the activations", .required = false},
    {"steps", LAM_OPTION_INT, "N", "3", "that are timed for each; the median counts", .minimum = 1,
     .maximum = 100000},
    {"limit-seconds", LAM_OPTION_FLOAT, "S", "1", "spent on the limits of the machine for each, at least",
     .minimum = 0.001, .maximum = 3600},
    {.name = NULL}};

const lam_command lam_command_bench_scaling = {
    "bench scaling",
    "time of a training step against tokens and width, beside the work counted: a page and its numbers",
    "",
    0,
    0,
    options,
    "lamella bench scaling --out runs/scaling",
    bench_scaling};
