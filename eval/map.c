/* `lamella map`: filter, align, aggregate. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/provenance.h"
#include "base/safetensors.h"
#include "eval/aggregate.h"
#include "eval/align.h"
#include "eval/commands.h"
#include "eval/where.h"

/* ---- filter ---- */

static lam_status keep_rows(lam_embeddings *e, const bool *keep) {
    int64_t *rows = NULL, kept = 0;
    lam_table *obs = NULL;
    LAM_TRY(lam_alloc_array((void **)&rows, e->rows, sizeof *rows));
    for (int64_t i = 0; i < e->rows; i++)
        if (keep[i]) rows[kept++] = i;
    lam_status status = lam_table_select(e->obs, rows, kept, &obs);
    if (status == LAM_OK) {
        for (int64_t k = 0; k < kept; k++) {
            memmove(e->values + k * e->columns, e->values + rows[k] * e->columns,
                    (size_t)e->columns * sizeof(double));
            e->index[k] = e->index[rows[k]]; /* the texts lie in the array's own block */
        }
        e->rows = kept;
        lam_table_free(e->obs);
        e->obs = obs;
    }
    lam_free(rows);
    return status;
}

static lam_status filter(lam_embeddings *e, const char *expression, const char *path) {
    bool *keep = NULL;
    lam_status status = LAM_OK;
    if (expression) {
        LAM_TRY(lam_where(e->obs, expression, &keep));
        status = keep_rows(e, keep);
        lam_free(keep);
        LAM_TRY(status);
        LAM_REQUIRE(e->rows > 0, LAM_ERROR_INPUT, "%s: no row is left after --where '%s'", path, expression);
    }
    LAM_REQUIRE(e->rows > 0, LAM_ERROR_INPUT, "%s: has no rows", path);
    LAM_TRY(lam_alloc_array((void **)&keep, e->rows, sizeof *keep));
    int64_t bad = 0;
    for (int64_t i = 0; i < e->rows; i++) {
        keep[i] = true;
        for (int64_t j = 0; j < e->columns; j++) keep[i] &= isfinite(e->values[i * e->columns + j]) != 0;
        bad += !keep[i];
    }
    if (bad == e->rows)
        status = lam_fail(LAM_ERROR_INPUT, __FILE__, __LINE__,
                          "%s: every row holds a value that is not finite", path);
    else if (bad) {
        lam_log_warning("%s: %lld of %lld rows hold values that are not finite; they are left out", path,
                        (long long)bad, (long long)e->rows);
        status = keep_rows(e, keep);
    }
    lam_free(keep);
    return status;
}

/* ---- align ---- */

static lam_status find_controls(const lam_embeddings *e, const char *text, bool **controls, int *column) {
    const char *equals = strchr(text, '=');
    LAM_REQUIRE(equals && equals != text, LAM_ERROR_USAGE, "map: --controls is '%s', column=value is needed",
                text);
    char *name;
    LAM_TRY(lam_text_copy_n(&name, text, (size_t)(equals - text)));
    lam_status status = lam_table_require(e->obs, name, column);
    lam_free(name);
    LAM_TRY(status);
    LAM_TRY(lam_alloc_array((void **)controls, e->rows, sizeof **controls));
    int64_t count = 0;
    for (int64_t i = 0; i < e->rows; i++)
        count += (*controls)[i] = !strcmp(lam_table_cell(e->obs, i, *column), equals + 1);
    LAM_REQUIRE(count > 0, LAM_ERROR_INPUT, "there are no controls: no row has %s", text);
    return LAM_OK;
}

static lam_status save_fit(const lam_transform_fit *f, const char *path, const char *method) {
    const struct {
        const char *name;
        const double *values;
        int rank;
        int64_t shape[3];
    } parts[] = {{"mean", f->mean, 1, {f->columns}},
                 {"scale", f->scale, 1, {f->columns}},
                 {"rotation_mean", f->rotation_mean, 1, {f->columns}},
                 {"rotation", f->rotation, 2, {f->components, f->columns}},
                 {"batch_mean", f->batch_mean, 2, {f->batches, f->components}},
                 {"batch_scale", f->batch_scale, 2, {f->batches, f->components}},
                 {"batch_matrix", f->batch_matrix, 3, {f->batches, f->components, f->components}}};
    enum { PARTS = sizeof parts / sizeof *parts };
    lam_safetensors_writer *writer;
    LAM_TRY(lam_safetensors_writer_open(&writer, path));
    lam_status status = lam_safetensors_writer_metadata(writer, "align", method);
    for (int i = 0; i < PARTS && status == LAM_OK; i++)
        if (parts[i].values)
            status =
                lam_safetensors_writer_declare(writer, parts[i].name, "F64", parts[i].rank, parts[i].shape);
    for (int i = 0; i < PARTS && status == LAM_OK; i++) {
        size_t bytes = sizeof(double);
        for (int k = 0; k < parts[i].rank; k++) bytes *= (size_t)parts[i].shape[k];
        if (parts[i].values) status = lam_safetensors_writer_data(writer, parts[i].values, bytes);
    }
    if (status == LAM_OK) return lam_safetensors_writer_commit(&writer);
    lam_safetensors_writer_abort(&writer);
    return status;
}

static lam_status read_shrinkage(const char *text, lam_alignment *how) {
    char *end = NULL;
    how->shrinkage = strcmp(text, "none") != 0;
    if (!how->shrinkage || !strcmp(text, "ledoit-wolf")) return LAM_OK;
    how->share = strtod(text, &end);
    LAM_REQUIRE(*text && !*end && how->share > 0 && how->share <= 1, LAM_ERROR_USAGE,
                "map: --shrinkage is '%s', none, ledoit-wolf or a number above 0 up to 1 is needed", text);
    return LAM_OK;
}

static lam_status align(lam_embeddings *e, const lam_arguments *arguments, const bool *controls) {
    static const char *const names[] = {"none", "center", "centerscale", "pca-cs", "tvn"};
    const char *asked = lam_option_text(arguments, "align"),
               *batch_column = lam_option_text(arguments, "batch"),
               *save = lam_option_text(arguments, "save-transform"),
               *within = lam_option_text(arguments, "within");
    lam_alignment how = {.controls = controls, .components = lam_option_int(arguments, "components")};
    LAM_TRY(read_shrinkage(lam_option_text(arguments, "shrinkage"), &how));
    for (int i = 0; i < 5; i++)
        if (!strcmp(names[i], asked)) how.method = (lam_align_method)i;
    LAM_REQUIRE(
        lam_option_text(arguments, "controls") || within ||
            (how.method != LAM_ALIGN_TVN && how.method != LAM_ALIGN_PCA_CS),
        LAM_ERROR_USAGE,
        "map: --align %s is fitted on controls: name them with --controls 'column=value', or give --controls all to fit it on every row",
        asked);
    LAM_REQUIRE(!how.shrinkage || how.method == LAM_ALIGN_TVN, LAM_ERROR_USAGE,
                "map: --shrinkage belongs to --align tvn, not to %s", asked);
    LAM_REQUIRE(!within || (how.method == LAM_ALIGN_TVN && !batch_column), LAM_ERROR_USAGE,
                "map: --within belongs to --align tvn without --batch");
    int64_t *batch = NULL, *group = NULL;
    const char **batch_names = NULL, **group_names = NULL;
    lam_transform_fit fit = {0};
    lam_status status = LAM_OK;
    if (batch_column) {
        int column;
        LAM_TRY_GOTO(lam_table_require(e->obs, batch_column, &column), done);
        LAM_TRY_GOTO(lam_table_codes(e->obs, column, &batch, &batch_names, &how.batches), done);
        how.batch = batch;
        how.batch_names = batch_names;
    }
    if (within) {
        int column;
        LAM_TRY_GOTO(lam_table_require(e->obs, within, &column), done);
        LAM_TRY_GOTO(lam_table_codes(e->obs, column, &group, &group_names, &how.groups), done);
        how.group = group;
    }
    LAM_TRY_GOTO(lam_align(&how, e->values, e->rows, &e->columns, &fit), done);
    if (save) LAM_TRY_GOTO(save_fit(&fit, save, asked), done);
done:
    lam_transform_fit_free(&fit);
    lam_free(batch);
    lam_free(batch_names);
    lam_free(group);
    lam_free(group_names);
    return status;
}

/* ---- aggregate ---- */

/* One step: rows that agree in columns by[0..levels) become one. The new metadata: those columns and `count`. */
static lam_status aggregate_level(lam_embeddings *e, char **by, int levels, bool median, bool last) {
    lam_table *keys = NULL, *obs = NULL;
    int64_t *codes = NULL, *counts = NULL, *first = NULL, groups = 0;
    const char **names = NULL, **labels = NULL;
    double *values = NULL;
    lam_status status = LAM_OK;
    /* A key of several columns is their cells joined by a character that no cell holds. */
    LAM_TRY_GOTO(lam_table_create(&keys, e->rows), done);
    LAM_TRY_GOTO(lam_table_add(keys, "key", NULL), done);
    for (int64_t i = 0; i < e->rows; i++) {
        char *key;
        LAM_TRY_GOTO(lam_text_copy(&key, ""), done);
        for (int k = 0; k < levels && status == LAM_OK; k++) {
            char *longer = NULL;
            status = lam_text_format(&longer, "%s%s%s", key, k ? "\x1f" : "",
                                     lam_table_cell(e->obs, i, lam_table_column(e->obs, by[k])));
            lam_free(key);
            key = longer;
        }
        if (status == LAM_OK) status = lam_table_set(keys, i, 0, key);
        lam_free(key);
        if (status != LAM_OK) goto done;
    }
    LAM_TRY_GOTO(lam_table_codes(keys, 0, &codes, &names, &groups), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, groups * e->columns, sizeof *values), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&counts, groups, sizeof *counts), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&first, groups, sizeof *first), done);
    LAM_TRY_GOTO(lam_aggregate(e->values, e->rows, e->columns, codes, groups, median, values, counts), done);
    for (int64_t i = e->rows - 1; i >= 0; i--) first[codes[i]] = i;
    LAM_TRY_GOTO(lam_table_create(&obs, groups), done);
    for (int k = 0; k < levels; k++) {
        LAM_TRY_GOTO(lam_table_add(obs, by[k], NULL), done);
        for (int64_t g = 0; g < groups; g++)
            LAM_TRY_GOTO(
                lam_table_set(obs, g, k, lam_table_cell(e->obs, first[g], lam_table_column(e->obs, by[k]))),
                done);
    }
    if (last) {
        LAM_TRY_GOTO(lam_table_add(obs, "count", NULL), done);
        for (int64_t g = 0; g < groups; g++) {
            char text[32];
            snprintf(text, sizeof text, "%lld", (long long)counts[g]);
            LAM_TRY_GOTO(lam_table_set(obs, g, levels, text), done);
        }
    }
    LAM_TRY_GOTO(lam_alloc_array((void **)&labels, groups, sizeof *labels), done);
    for (int64_t g = 0; g < groups; g++) labels[g] = lam_table_cell(obs, g, 0);
    char **index;
    LAM_TRY_GOTO(lam_texts_pack(&index, labels, groups), done);
    lam_free(e->index);
    e->index = index;
    e->rows = groups;
    lam_free(e->values);
    e->values = values;
    values = NULL;
    lam_table_free(e->obs);
    e->obs = obs;
    obs = NULL;
done:
    lam_table_free(keys);
    lam_table_free(obs);
    lam_free(codes);
    lam_free(names);
    lam_free(labels);
    lam_free(counts);
    lam_free(first);
    lam_free(values);
    return status;
}

/* `guide,gene`: first by (guide, gene), then by gene alone. */
static lam_status aggregate(lam_embeddings *e, const char *text, bool median) {
    char *by[16] = {0};
    int count = 0;
    lam_status status = LAM_OK;
    for (const char *p = text; *p && count < 16;) {
        size_t n = strcspn(p, ",");
        LAM_TRY_GOTO(lam_text_copy_n(&by[count++], p, n), done);
        int column;
        LAM_TRY_GOTO(lam_table_require(e->obs, by[count - 1], &column), done);
        p += n + (p[n] == ',');
    }
    LAM_REQUIRE_GOTO(count > 0, done, LAM_ERROR_USAGE, "map: --by is empty: name a column");
    for (int k = 0; k < count; k++) {
        char *levels[16];
        for (int i = k; i < count; i++) levels[i - k] = by[count - 1 - (i - k)];
        LAM_TRY_GOTO(aggregate_level(e, levels, count - k, median, k + 1 == count), done);
    }
done:
    for (int i = 0; i < count; i++) lam_free(by[i]);
    return status;
}

/* ---- the command ---- */

static lam_status provenance(const lam_arguments *arguments, const lam_embeddings *e, char **text) {
    lam_json *object = lam_provenance(lam_command_line(arguments)), *input = NULL;
    lam_json_set_text(object, "align", lam_option_text(arguments, "align"));
    lam_json_set_text(object, "by", lam_option_text(arguments, "by"));
    lam_json_set_text(object, "aggregate", lam_option_text(arguments, "aggregate"));
    if (e->provenance && lam_json_parse(&input, e->provenance, strlen(e->provenance), "provenance") == LAM_OK)
        lam_json_set(object, "input", input);
    lam_status status = lam_json_dump(object, false, text);
    lam_json_free(object);
    return status;
}

static lam_status drop_controls(lam_embeddings *e, const char *text, const char *by) {
    const char *equals = strchr(text, '='), *last = strrchr(by, ',') ? strrchr(by, ',') + 1 : by;
    if (strlen(last) != (size_t)(equals - text) || strncmp(last, text, strlen(last)) != 0) return LAM_OK;
    bool *keep;
    LAM_TRY(lam_alloc_array((void **)&keep, e->rows, sizeof *keep));
    int64_t left = 0;
    for (int64_t i = 0; i < e->rows; i++) left += keep[i] = strcmp(e->index[i], equals + 1) != 0;
    lam_status status = left ? keep_rows(e, keep)
                             : lam_fail(LAM_ERROR_INPUT, __FILE__, __LINE__,
                                        "every row is a control: nothing is left to map");
    lam_free(keep);
    return status;
}

static lam_status run(const lam_arguments *arguments) {
    const char *path = lam_positional(arguments, 0), *out = lam_option_text(arguments, "out"),
               *controls_text = lam_option_text(arguments, "controls"),
               *by = lam_option_text(arguments, "by"), *save = lam_option_text(arguments, "save-transform");
    LAM_TRY(lam_require_new_file(out, lam_option_force(arguments)));
    if (save) LAM_TRY(lam_require_new_file(save, lam_option_force(arguments)));
    lam_embeddings *e = NULL;
    bool *controls = NULL;
    char *text = NULL;
    int column;
    lam_status status = LAM_OK;
    if (controls_text && !strcmp(controls_text, "all")) controls_text = NULL;
    LAM_TRY_GOTO(lam_embeddings_read(&e, path, lam_option_text(arguments, "key"),
                                     lam_option_text(arguments, "features")),
                 done);
    LAM_TRY_GOTO(filter(e, lam_option_text(arguments, "where"), path), done);
    if (controls_text) LAM_TRY_GOTO(find_controls(e, controls_text, &controls, &column), done);
    LAM_TRY_GOTO(align(e, arguments, controls), done);
    if (by) {
        LAM_TRY_GOTO(aggregate(e, by, !strcmp(lam_option_text(arguments, "aggregate"), "median")), done);
        if (controls_text) LAM_TRY_GOTO(drop_controls(e, controls_text, by), done);
    }
    LAM_TRY_GOTO(provenance(arguments, e, &text), done);
    LAM_TRY_GOTO(lam_embeddings_write(out, e->rows, e->columns, e->values, false, e->obs,
                                      (const char *const *)e->index, NULL, text),
                 done);
    lam_log_info("map: %lld rows of %lld dimensions in %s", (long long)e->rows, (long long)e->columns, out);
    if (lam_option_json(arguments))
        printf("{\"rows\": %lld, \"columns\": %lld}\n", (long long)e->rows, (long long)e->columns);
done:
    lam_free(text);
    lam_free(controls);
    lam_embeddings_free(e);
    return status;
}

static const lam_option options[] = {
    {"out", LAM_OPTION_TEXT, "MAP.h5ad", NULL, "the map (.h5ad, or .npy with .csv beside it), float64", 0, 0,
     true},
    {"where", LAM_OPTION_TEXT, "EXPR", NULL,
     "rows that stay, e.g. 'plate != p3 and dose >= 0.5'; ==, !=, <, <=, >, >=, in (A|B), and, or, not", 0, 0,
     false},
    {"align", LAM_OPTION_CHOICE, "none|center|centerscale|pca-cs|tvn", "none",
     "how plates and batches are made comparable", 0, 0, false},
    {"controls", LAM_OPTION_TEXT, "COLUMN=VALUE|all", NULL,
     "rows that alignment is fitted on; with --by the same column they leave the map", 0, 0, false},
    {"batch", LAM_OPTION_TEXT, "COLUMN", NULL, "align each batch (tvn: CORAL by batch)", 0, 0, false},
    {"components", LAM_OPTION_INT, "K", "0",
     "components that pca-cs and tvn keep; 0: all that the controls span", 0, 1e6, false},
    {"shrinkage", LAM_OPTION_TEXT, "none|ledoit-wolf|SHARE", "none",
     "of the covariance that tvn whitens by; for few controls", 0, 0, false},
    {"within", LAM_OPTION_TEXT, "COLUMN", NULL,
     "tvn whitens by the variation among rows of one COLUMN (replicates of a gene), not among controls", 0, 0,
     false},
    {"by", LAM_OPTION_TEXT, "COLUMN[,COLUMN...]", NULL,
     "aggregate rows with this label; several: in this order, e.g. guide,gene", 0, 0, false},
    {"aggregate", LAM_OPTION_CHOICE, "mean|median", "mean", "of the rows of a label", 0, 0, false},
    {"save-transform", LAM_OPTION_TEXT, "FILE", NULL, "the fitted alignment as safetensors", 0, 0, false},
    {"key", LAM_OPTION_TEXT, "NAME", NULL, "matrix of the .h5ad: X (default), a layer or an obsm", 0, 0,
     false},
    {"features", LAM_OPTION_TEXT, "GLOB", NULL,
     "columns of a table that are features (default: d0, d1, ..., else every numeric one)", 0, 0, false},
    {0}};

const lam_command lam_command_map = {
    "map",
    "filter, align and aggregate embeddings",
    "EMB",
    1,
    1,
    options,
    "lamella map embeddings.h5ad --out map.h5ad --align tvn --controls gene=non-targeting --batch plate --by gene",
    run};
