/* `lamella map`: filter, align, aggregate, correct for chromosome arms. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/provenance.h"
#include "eval/aggregate.h"
#include "eval/commands.h"
#include "eval/map_parts.h"
#include "eval/where.h"

/* ---- rows ---- */

/* --not-finite columns: columns with a NaN or an infinity leave. */
static lam_status drop_columns(lam_embeddings *e, const char *path) {
    bool *keep;
    int64_t kept = 0;
    LAM_TRY(lam_alloc_array((void **)&keep, e->columns, sizeof *keep));
    for (int64_t j = 0; j < e->columns; j++) keep[j] = true;
    for (int64_t i = 0; i < e->rows; i++)
        for (int64_t j = 0; j < e->columns; j++) keep[j] &= isfinite(e->values[i * e->columns + j]) != 0;
    for (int64_t j = 0; j < e->columns; j++) kept += keep[j];
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(
        kept > 0, done, LAM_ERROR_INPUT,
        "%s: every column holds a value that is not finite; leave out rows with --not-finite rows", path);
    if (kept == e->columns) goto done;
    lam_log_warning("%s: %lld of %lld columns hold values that are not finite; they are left out", path,
                    (long long)(e->columns - kept), (long long)e->columns);
    double *to = e->values; /* never ahead of what is read */
    for (int64_t i = 0; i < e->rows; i++)
        for (int64_t j = 0; j < e->columns; j++)
            if (keep[j]) *to++ = e->values[i * e->columns + j];
    e->columns = kept;
done:
    lam_free(keep);
    return status;
}

static lam_status drop_rows(lam_embeddings *e, const char *path) {
    bool *keep;
    LAM_TRY(lam_alloc_array((void **)&keep, e->rows, sizeof *keep));
    int64_t bad = 0;
    for (int64_t i = 0; i < e->rows; i++) {
        keep[i] = true;
        for (int64_t j = 0; j < e->columns; j++) keep[i] &= isfinite(e->values[i * e->columns + j]) != 0;
        bad += !keep[i];
    }
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(
        bad < e->rows, done, LAM_ERROR_INPUT,
        "%s: every row holds a value that is not finite; leave out columns with --not-finite columns", path);
    if (!bad) goto done;
    lam_log_warning("%s: %lld of %lld rows hold values that are not finite; they are left out", path,
                    (long long)bad, (long long)e->rows);
    status = lam_keep_rows(e, keep);
done:
    lam_free(keep);
    return status;
}

static lam_status filter(lam_embeddings *e, const lam_arguments *arguments, const char *path) {
    const char *expression = lam_option_text(arguments, "where");
    if (expression) {
        bool *keep;
        LAM_TRY(lam_where(e->obs, expression, &keep));
        lam_status status = lam_keep_rows(e, keep);
        lam_free(keep);
        LAM_TRY(status);
        LAM_REQUIRE(e->rows > 0, LAM_ERROR_INPUT, "%s: no row is left after --where '%s'", path, expression);
    }
    LAM_REQUIRE(e->rows > 0, LAM_ERROR_INPUT, "%s: has no rows", path);
    bool columns = !strcmp(lam_option_text(arguments, "not-finite"), "columns");
    return columns ? drop_columns(e, path) : drop_rows(e, path);
}

#define METHODS "mean|median|robust" /* in the order of lam_aggregate_method */

/* `guide,gene`: first by (guide, gene), then by gene alone. */
static lam_status aggregate(lam_embeddings *e, const char *text, const char *method_name) {
    int method = lam_text_place(METHODS, '|', method_name);
    char *by[LAM_AGGREGATE_MAX + 1] = {0};
    int count = 0;
    lam_status status = LAM_OK;
    for (const char *p = text; *p && count <= LAM_AGGREGATE_MAX;) {
        size_t n = strcspn(p, ",");
        LAM_TRY_GOTO(lam_text_copy_n(&by[count++], p, n), done);
        p += n + (p[n] == ',');
    }
    status = lam_aggregate_by(e, (const char *const *)by, count, (lam_aggregate_method)method);
done:
    for (int i = 0; i < count; i++) lam_free(by[i]);
    return status;
}

/* ---- the command ---- */

static lam_status provenance(const lam_map_work *work, char **text) {
    lam_json *object = lam_provenance(lam_command_line(work->arguments)), *input = NULL, *results = NULL;
    char *copy = NULL;
    const char *given = work->e->provenance;
    lam_status status = LAM_OK;
    lam_json_set_text(object, "align", lam_json_text(lam_json_get(work->results, "align"), "none"));
    lam_json_set_text(object, "by", lam_option_text(work->arguments, "by"));
    lam_json_set_text(object, "aggregate", lam_option_text(work->arguments, "aggregate"));
    LAM_TRY_GOTO(lam_json_dump(work->results, false, &copy), done);
    LAM_TRY_GOTO(lam_json_parse(&results, copy, strlen(copy), "results"), done);
    lam_json_set(object, "results", results);
    if (given && lam_json_parse(&input, given, strlen(given), "provenance") == LAM_OK)
        lam_json_set(object, "input", input);
    status = lam_json_dump(object, false, text);
done:
    lam_json_free(object);
    lam_free(copy);
    return status;
}

static lam_status drop_controls(lam_embeddings *e, const char *text, const char *by) {
    const char *equals = strchr(text, '='), *last = strrchr(by, ',') ? strrchr(by, ',') + 1 : by;
    if (strlen(last) != (size_t)(equals - text) || strncmp(last, text, strlen(last)) != 0) return LAM_OK;
    bool *keep;
    LAM_TRY(lam_alloc_array((void **)&keep, e->rows, sizeof *keep));
    int64_t left = 0;
    for (int64_t i = 0; i < e->rows; i++) left += keep[i] = strcmp(e->index[i], equals + 1) != 0;
    lam_status status = left ? lam_keep_rows(e, keep)
                             : lam_fail(LAM_ERROR_INPUT, __FILE__, __LINE__,
                                        "every row is a control: nothing is left to map");
    lam_free(keep);
    return status;
}

static lam_status make_map(lam_map_work *work) {
    const lam_arguments *arguments = work->arguments;
    const char *path = lam_positional(arguments, 0), *by = lam_option_text(arguments, "by");
    LAM_TRY(lam_embeddings_read(&work->e, path, lam_option_text(arguments, "key"),
                                lam_option_text(arguments, "features")));
    LAM_TRY(filter(work->e, arguments, path));
    if (strcmp(lam_option_text(arguments, "align"), "none") != 0 || lam_option_text(arguments, "transform"))
        LAM_TRY(lam_embeddings_require_range(work->e, path));
    LAM_TRY(lam_map_find_controls(work));
    LAM_TRY(lam_map_align(work));
    if (by) {
        LAM_TRY(aggregate(work->e, by, lam_option_text(arguments, "aggregate")));
        if (work->controls) LAM_TRY(drop_controls(work->e, lam_option_text(arguments, "controls"), by));
        lam_free(work->controls); /* its rows are gone */
        work->controls = NULL;
    }
    return lam_map_genes(work);
}

static lam_status run(const lam_arguments *arguments) {
    const char *out = lam_option_text(arguments, "out"), *save = lam_option_text(arguments, "save-transform");
    LAM_TRY(lam_map_check_align(arguments));
    LAM_TRY(lam_map_check_genes(arguments));
    LAM_REQUIRE(!lam_path_same(out, lam_positional(arguments, 0)), LAM_ERROR_USAGE,
                "map: --out %s is the file that is read: choose another name", out);
    LAM_REQUIRE(!save || (strcmp(save, out) != 0 && !lam_path_same(save, out) &&
                          !lam_path_same(save, lam_positional(arguments, 0))),
                LAM_ERROR_USAGE,
                "map: --save-transform %s is the file of --out or the one that is read: choose another name",
                save);
    LAM_REQUIRE(lam_path_exists(lam_positional(arguments, 0)), LAM_ERROR_IO,
                "%s: no such file; name embeddings (.h5ad, .npy with .csv, .csv, .tsv)",
                lam_positional(arguments, 0));
    LAM_TRY(lam_embeddings_require_new(out, lam_option_force(arguments)));
    if (save) LAM_TRY(lam_require_new_file(save, lam_option_force(arguments)));
    lam_map_work work = {.arguments = arguments, .results = lam_json_object()};
    char *text = NULL, *json = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(make_map(&work), done);
    lam_json_set_int(work.results, "rows", work.e->rows);
    lam_json_set_int(work.results, "columns", work.e->columns);
    LAM_TRY_GOTO(provenance(&work, &text), done);
    LAM_TRY_GOTO(lam_embeddings_write(out, work.e->rows, work.e->columns, work.e->values, false, work.e->obs,
                                      (const char *const *)work.e->index, NULL, text),
                 done);
    lam_log_info("map: %lld rows of %lld dimensions in %s", (long long)work.e->rows,
                 (long long)work.e->columns, out);
    if (lam_option_json(arguments)) {
        LAM_TRY_GOTO(lam_json_dump(work.results, false, &json), done);
        puts(json);
    }
done:
    lam_free(text);
    lam_free(json);
    lam_free(work.controls);
    lam_json_free(work.results);
    lam_embeddings_free(work.e);
    return status;
}

static const lam_option options[] = {
    {"out", LAM_OPTION_TEXT, "MAP.h5ad", NULL, "the map (.h5ad, or .npy with .csv beside it), float64", 0, 0,
     true},
    {"where", LAM_OPTION_TEXT, "EXPR", NULL,
     "rows that stay, e.g. 'plate != p3 and dose >= 0.5'; ==, !=, <, <=, >, >=, in (A|B), and, or, not", 0, 0,
     false},
    {"not-finite", LAM_OPTION_CHOICE, "rows|columns", "rows",
     "what leaves where a value is NaN or infinite: its row or its column", 0, 0, false},
    {"align", LAM_OPTION_CHOICE, "none|center|centerscale|pca-cs|tvn|spherize", "none",
     "how plates and batches are made comparable", 0, 0, false},
    {"controls", LAM_OPTION_TEXT, "COLUMN=VALUE|all", NULL,
     "rows that alignment is fitted on; with --by the same column they leave the map", 0, 0, false},
    {"batch", LAM_OPTION_TEXT, "COLUMN", NULL,
     "align each batch (tvn: CORAL by batch); also what is told apart to say how much batch is left (default there: plate, else batch)",
     0, 0, false},
    {"batch-center", LAM_OPTION_FLAG, NULL, NULL,
     "pca-cs, tvn, spherize: first take off the mean of the controls of each batch", 0, 0, false},
    {"min-controls", LAM_OPTION_INT, "N", "0", "leave out batches with fewer controls, and name them", 1, 1e9,
     false},
    {"components", LAM_OPTION_TEXT, "K|SHARE", "0",
     "components that pca-cs and tvn keep: a count, or the share of the controls' variance that they must exceed (0.98); 0: all that the controls span",
     0, 0, false},
    {"shrinkage", LAM_OPTION_TEXT, "none|ledoit-wolf|SHARE", "none",
     "of the covariance that tvn whitens by; for few controls", 0, 0, false},
    {"within", LAM_OPTION_TEXT, "COLUMN", NULL,
     "tvn whitens by the variation among rows of one COLUMN (replicates of a gene), not among controls", 0, 0,
     false},
    {"regularization", LAM_OPTION_FLOAT, "R", "1e-6",
     "of spherize: added to the singular values of the controls, as pycytominer's spherize_epsilon", 0, 1e9,
     false},
    {"by", LAM_OPTION_TEXT, "COLUMN[,COLUMN...]", NULL,
     "aggregate rows with this label; several: in this order, e.g. guide,gene", 0, 0, false},
    {"aggregate", LAM_OPTION_CHOICE, METHODS, "mean",
     "of the rows of a label; robust: Tukey's biweight, one step from the median, 6 MAD", 0, 0, false},
    {"expressed", LAM_OPTION_TEXT, "TABLE", NULL,
     "expressed genes, by a column named as that of --gene, or gene; the others leave the map", 0, 0, false},
    {"expressed-where", LAM_OPTION_TEXT, "EXPR", NULL,
     "which rows of that table are expressed, e.g. 'zfpkm >= -3' (default: all)", 0, 0, false},
    {"gene", LAM_OPTION_TEXT, "COLUMN", NULL,
     "column of genes for --expressed and --arm (default: the last of --by, else gene)", 0, 0, false},
    {"arm", LAM_OPTION_TEXT, "TABLE", NULL,
     "take off each gene the mean of the unexpressed genes on its chromosome arm; positions as BED or a table with chromosome, start, end, gene, or gene and arm",
     0, 0, false},
    {"centromeres", LAM_OPTION_TEXT, "TABLE", NULL, "BED or table of centromeres, or UCSC's cytoBand", 0, 0,
     false},
    {"arm-genes", LAM_OPTION_INT, "N", "20", "arms with more unexpressed genes than this are corrected", 0,
     1e6, false},
    {"keep-unexpressed", LAM_OPTION_FLAG, NULL, NULL,
     "--expressed is for --arm alone: no gene leaves the map", 0, 0, false},
    {"save-transform", LAM_OPTION_TEXT, "FILE", NULL, "the fitted alignment as safetensors", 0, 0, false},
    {"transform", LAM_OPTION_TEXT, "FILE", NULL, "apply an alignment that was saved, fit none", 0, 0, false},
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
    "lamella map embeddings.h5ad --out map.h5ad --align tvn --controls gene=non-targeting --batch plate --by gene\n"
    "lamella map embeddings.h5ad --out plates.h5ad --align centerscale --controls all --batch plate\n"
    "lamella map plates.h5ad --out map.h5ad --align tvn --within gene --shrinkage 0.3 --where 'gene != non-targeting' --by gene",
    run};
