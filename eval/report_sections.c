/* A training run: curves, pictures, means. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "eval/report_parts.h"

/* ---- a training run ---- */

typedef struct column {
    const char *key, *title, *axis;
    double *x, *y;
    int64_t count;
} column;

static lam_status push(column *c, int64_t *capacity, double x, double y) {
    if (c->count == *capacity) {
        int64_t grown = *capacity ? *capacity * 2 : 1024;
        LAM_TRY(lam_grow((void **)&c->x, (size_t)*capacity * sizeof(double), (size_t)grown * sizeof(double)));
        LAM_TRY(lam_grow((void **)&c->y, (size_t)*capacity * sizeof(double), (size_t)grown * sizeof(double)));
        *capacity = grown;
    }
    c->x[c->count] = x;
    c->y[c->count++] = y;
    return LAM_OK;
}

/* The lines of `run` and of `op_times` (a resumed run has several: the last holds), and the steps that the latter covers: those of
 * its process, since the line of `run` before it. */
typedef struct run_records {
    char *texts[2];
    int64_t first, last;
} run_records;

static lam_status keep_record(run_records *kept, int which, const char *line, size_t n) {
    lam_free(kept->texts[which]);
    kept->texts[which] = NULL;
    return lam_text_copy_n(&kept->texts[which], line, n);
}

static lam_status read_metrics(const char *path, column *columns, int count, bool *cut, run_records *kept) {
    char *text;
    size_t size;
    LAM_TRY(lam_file_read(path, &text, &size));
    lam_status status = LAM_OK;
    int64_t capacity[16] = {0}, line = 0, first = 0, last = 0; /* steps of the process of this line */
    for (char *p = text; *p;) {
        size_t n = strcspn(p, "\n");
        bool torn = !p[n];
        line++;
        lam_json *record = NULL;
        if (n && lam_json_parse(&record, p, n, path) != LAM_OK) {
            /* The last line of a run that is still going on may be half written. */
            LAM_REQUIRE_GOTO(torn, done, LAM_ERROR_FORMAT, "%s:%lld: the line is no JSON record", path,
                             (long long)line);
            *cut = true;
            break;
        }
        if (record && lam_json_get(record, "step"))
            for (int c = 0; c < count && status == LAM_OK; c++) {
                const lam_json *value = lam_json_get(record, columns[c].key);
                if (lam_json_is_number(value))
                    status = push(&columns[c], &capacity[c], lam_json_float(lam_json_get(record, "step"), 0),
                                  lam_json_float(value, 0));
            }
        if (record && lam_json_get(record, "lr")) {
            last = lam_json_int(lam_json_get(record, "step"), 0);
            if (!first) first = last;
        }
        if (record && status == LAM_OK && lam_json_get(record, "run")) {
            first = last = 0;
            status = keep_record(kept, 0, p, n);
        }
        if (record && status == LAM_OK && lam_json_get(record, "op_times")) {
            kept->first = first, kept->last = last;
            status = keep_record(kept, 1, p, n);
        }
        if (record) lam_json_free(record);
        if (status != LAM_OK) goto done;
        p += n + !torn;
    }
done:
    lam_free(text);
    return status;
}

static lam_status reconstructions(lam_page *page, const char *run) {
    char *folder, **names = NULL;
    int64_t count = 0;
    LAM_TRY(lam_path_join(&folder, run, "reconstructions"));
    lam_status status = lam_path_is_folder(folder) ? lam_list_folder(folder, ".png", &names, &count) : LAM_OK;
    for (int64_t i = count > 3 ? count - 3 : 0; status == LAM_OK && i < count;
         i++) { /* the last ones tell most */
        char *path, *bytes, caption[320];
        size_t size;
        LAM_TRY_GOTO(lam_path_join(&path, folder, names[i]), done);
        status = lam_file_read(path, &bytes, &size);
        lam_free(path);
        if (status != LAM_OK) break;
        snprintf(caption, sizeof caption, "Input, masked input, reconstruction: %s", names[i]);
        lam_page_png(page, caption, bytes, size);
        lam_free(bytes);
    }
done:
    lam_free_texts(names, count);
    lam_free(folder);
    return status;
}

/* Where the time of a step goes: medians would hide the slow steps, so means; of rates the harmonic one, which is the work of all
 * steps, as each does the same, over the time of all. */
static void means(lam_page *page, const column *columns, int count) {
    enum { ROWS = 8 };
    char text[ROWS][32];
    const char *cells[3 * ROWS];
    int64_t rows = 0;
    for (int c = 2; c < count && rows < ROWS; c++) {
        if (!columns[c].count || !strcmp(columns[c].key, "lr") || !strcmp(columns[c].key, "grad_norm"))
            continue;
        bool rate = strstr(columns[c].key, "_per_s") != NULL;
        double sum = 0, steps = (double)columns[c].count;
        for (int64_t i = 0; i < columns[c].count; i++) sum += rate ? 1 / columns[c].y[i] : columns[c].y[i];
        snprintf(text[rows], sizeof text[rows], "%.4g", rate ? steps / sum : sum / steps);
        cells[3 * rows + 2] = columns[c].axis;
        cells[3 * rows] = columns[c].title;
        cells[3 * rows + 1] = text[rows];
        rows++;
    }
    if (rows)
        lam_page_table(page, "Time and speed, mean over all steps", 3,
                       (const char *[]){"quantity", "mean", "unit"}, rows, cells);
}

lam_status lam_report_run(lam_page *page, const lam_report_input *input) {
    column columns[] = {{"loss", "Training loss", "loss", NULL, NULL, 0},
                        {"validation_loss", "Validation loss", "loss", NULL, NULL, 0},
                        {"grad_norm", "Norm of the gradient", "norm", NULL, NULL, 0},
                        {"lr", "Learning rate", "learning rate per step", NULL, NULL, 0},
                        {"crops_per_s", "Speed", "crops / s", NULL, NULL, 0},
                        {"gflops_per_s", "Arithmetic speed", "GFLOP / s", NULL, NULL, 0},
                        {"step_ms", "Time of a step", "ms per step", NULL, NULL, 0},
                        {"data_wait_ms", "Waiting for data", "ms per step", NULL, NULL, 0}};
    enum { COLUMNS = sizeof columns / sizeof *columns };
    char *path;
    run_records kept = {0};
    bool cut = false;
    LAM_TRY(lam_path_join(&path, input->path, "metrics.jsonl"));
    lam_status status = read_metrics(path, columns, COLUMNS, &cut, &kept);
    if (status == LAM_OK && !columns[0].count)
        status =
            lam_fail(LAM_ERROR_INPUT, __FILE__, __LINE__, "%s: holds no step yet: nothing to draw", path);
    if (status == LAM_OK) {
        lam_report_heading(page, "Training", input);
        lam_page_paragraph(page, "%lld steps; last loss %.4g.", (long long)columns[0].count,
                           columns[0].y[columns[0].count - 1]);
        if (cut)
            lam_page_paragraph(
                page,
                "The last line of metrics.jsonl is incomplete (the run goes on, or was killed) and is left out.");
        lam_series losses[2] = {{"training", columns[0].count, columns[0].x, columns[0].y},
                                {"validation", columns[1].count, columns[1].x, columns[1].y}};
        lam_page_lines(page, "Loss", "step", "loss", columns[1].count ? 2 : 1, losses);
        for (int c = 2; c < COLUMNS; c++) {
            lam_series series = {columns[c].title, columns[c].count, columns[c].x, columns[c].y};
            if (columns[c].count) lam_page_lines(page, columns[c].title, "step", columns[c].axis, 1, &series);
        }
        status = reconstructions(page, input->path);
        means(page, columns, COLUMNS);
        for (int k = 0; status == LAM_OK && k < 2; k++)
            if (kept.texts[k]) status = lam_report_record(page, kept.texts[k], path, kept.first, kept.last);
    }
    for (int c = 0; c < COLUMNS; c++) {
        lam_free(columns[c].x);
        lam_free(columns[c].y);
    }
    lam_free(kept.texts[0]);
    lam_free(kept.texts[1]);
    lam_free(path);
    return status;
}
