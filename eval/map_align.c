#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/provenance.h"
#include "eval/aggregate.h"
#include "eval/align.h"
#include "eval/batch_left.h"
#include "eval/map_parts.h"
#include "eval/where.h"

/* In the order of lam_align_method. */
static const char *const methods[] = {"none", "center", "centerscale", "pca-cs", "tvn", "spherize"};
enum { METHODS = sizeof methods / sizeof *methods };

static lam_align_method method_of(const lam_arguments *arguments) {
    int found = 0;
    for (int i = 0; i < METHODS; i++)
        if (!strcmp(methods[i], lam_option_text(arguments, "align"))) found = i;
    return (lam_align_method)found;
}

/* ---- options ---- */

static lam_status read_shrinkage(const char *text, lam_alignment *how) {
    char *end = NULL;
    how->shrinkage = strcmp(text, "none") != 0;
    if (!how->shrinkage || !strcmp(text, "ledoit-wolf")) return LAM_OK;
    how->share = strtod(text, &end);
    LAM_REQUIRE(*text && !*end && how->share > 0 && how->share <= 1, LAM_ERROR_USAGE,
                "map: --shrinkage is '%s', none, ledoit-wolf or a number above 0 up to 1 is needed", text);
    return LAM_OK;
}

static lam_status read_components(const char *text, lam_alignment *how) {
    char *end = NULL;
    bool count = text[strspn(text, "0123456789")] == 0;
    double value = strtod(text, &end);
    LAM_REQUIRE(*text && !*end && (count ? value <= 1e6 : value > 0 && value < 1), LAM_ERROR_USAGE,
                "map: --components is '%s', a count or a share of the variance between 0 and 1 is needed",
                text);
    if (count)
        how->components = (int64_t)value;
    else
        how->variance = value;
    return LAM_OK;
}

static lam_status read_how(const lam_arguments *arguments, lam_alignment *how) {
    *how = (lam_alignment){.method = method_of(arguments),
                           .batch_center = lam_option_flag(arguments, "batch-center"),
                           .regularization = lam_option_float(arguments, "regularization")};
    LAM_TRY(read_components(lam_option_text(arguments, "components"), how));
    return read_shrinkage(lam_option_text(arguments, "shrinkage"), how);
}

lam_status lam_map_check_align(const lam_arguments *arguments) {
    static const struct {
        const char *option, *belongs;
        unsigned methods; /* bit of lam_align_method */
    } belong[] = {{"components", "pca-cs and tvn", 1 << LAM_ALIGN_PCA_CS | 1 << LAM_ALIGN_TVN},
                  {"shrinkage", "tvn", 1 << LAM_ALIGN_TVN},
                  {"within", "tvn", 1 << LAM_ALIGN_TVN},
                  {"regularization", "spherize", 1 << LAM_ALIGN_SPHERIZE},
                  {"batch-center", "pca-cs, tvn and spherize",
                   1 << LAM_ALIGN_PCA_CS | 1 << LAM_ALIGN_TVN | 1 << LAM_ALIGN_SPHERIZE},
                  {"save-transform", "an alignment", ~(1u << LAM_ALIGN_NONE)}};
    static const char *const of_fit[] = {"align",          "components",   "shrinkage",    "within",
                                         "regularization", "batch-center", "min-controls", "save-transform"};
    lam_alignment how;
    const char *controls = lam_option_text(arguments, "controls");
    if (lam_option_text(arguments, "transform")) {
        for (size_t i = 0; i < sizeof of_fit / sizeof *of_fit; i++)
            LAM_REQUIRE(!lam_option_given(arguments, of_fit[i]), LAM_ERROR_USAGE,
                        "map: --transform brings a fitted alignment: leave out --%s", of_fit[i]);
    }
    LAM_REQUIRE(
        strcmp(lam_option_text(arguments, "not-finite"), "columns") != 0 ||
            (!lam_option_text(arguments, "transform") && !lam_option_text(arguments, "save-transform")),
        LAM_ERROR_USAGE,
        "map: a transform is of the same columns every time: choose them with --features, not with --not-finite columns");
    LAM_TRY(read_how(arguments, &how));
    for (size_t i = 0; i < sizeof belong / sizeof *belong; i++)
        LAM_REQUIRE(!lam_option_given(arguments, belong[i].option) || belong[i].methods >> how.method & 1,
                    LAM_ERROR_USAGE, "map: --%s belongs to --align %s, not to %s", belong[i].option,
                    belong[i].belongs, methods[how.method]);
    LAM_REQUIRE(
        controls || lam_option_text(arguments, "within") || how.method < LAM_ALIGN_PCA_CS, LAM_ERROR_USAGE,
        "map: --align %s is fitted on controls: name them with --controls 'column=value', or give --controls all to fit it on every row",
        methods[how.method]);
    LAM_REQUIRE(!lam_option_text(arguments, "within") || !lam_option_text(arguments, "batch"),
                LAM_ERROR_USAGE, "map: --within belongs to --align tvn without --batch");
    static const char *const of_batch[] = {"batch-center", "min-controls"};
    for (size_t i = 0; i < 2; i++)
        LAM_REQUIRE(!lam_option_given(arguments, of_batch[i]) || lam_option_text(arguments, "batch"),
                    LAM_ERROR_USAGE, "map: --%s needs --batch COLUMN", of_batch[i]);
    LAM_REQUIRE(!controls || !strcmp(controls, "all") || (strchr(controls, '=') && *controls != '='),
                LAM_ERROR_USAGE, "map: --controls is '%s', column=value or all is needed", controls);
    return LAM_OK;
}

/* ---- rows ---- */

lam_status lam_map_find_controls(lam_map_work *work) {
    const char *text = lam_option_text(work->arguments, "controls");
    int64_t count;
    if (!text || !strcmp(text, "all")) return LAM_OK;
    lam_free(work->controls);
    work->controls = NULL;
    LAM_TRY(lam_alloc_array((void **)&work->controls, work->e->rows, sizeof *work->controls));
    return lam_where_controls(work->e->obs, text, work->controls, &count);
}

/* Dense codes of a column; freed by batches_free. */
typedef struct batches {
    int64_t *code, count;
    const char **names;
} batches;

static void batches_free(batches *b) {
    lam_free(b->code);
    lam_free(b->names);
    *b = (batches){0};
}

static lam_status find_batches(const lam_embeddings *e, const char *name, batches *out) {
    int column;
    *out = (batches){0};
    if (!name) return LAM_OK;
    LAM_TRY(lam_table_require(e->obs, name, &column));
    return lam_table_codes(e->obs, column, &out->code, &out->names, &out->count);
}

/* --min-controls: batches with fewer leave, and are named. */
static lam_status leave_out_batches(lam_map_work *work, const char *column, int64_t minimum) {
    lam_embeddings *e = work->e;
    batches b;
    int64_t *controls = NULL, *rows = NULL, poor = 0, lost = 0;
    bool *keep = NULL;
    char *list = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(find_batches(e, column, &b), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&controls, b.count, sizeof *controls), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&rows, b.count, sizeof *rows), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&keep, e->rows, sizeof *keep), done);
    LAM_TRY_GOTO(lam_text_copy(&list, ""), done);
    for (int64_t i = 0; i < e->rows; i++) {
        rows[b.code[i]]++;
        controls[b.code[i]] += !work->controls || work->controls[i];
    }
    lam_json *names = lam_json_array();
    lam_json_set(work->results, "batches_left_out", names);
    for (int64_t k = 0; k < b.count; k++) {
        if (controls[k] >= minimum) continue;
        char *longer;
        LAM_TRY_GOTO(lam_text_format(&longer, "%s%s'%s' (%lld)", list, poor ? ", " : "", b.names[k],
                                     (long long)controls[k]),
                     done);
        lam_free(list);
        list = longer;
        lam_json_append_text(names, b.names[k]);
        poor++;
        lost += rows[k];
    }
    LAM_REQUIRE_GOTO(poor < b.count, done, LAM_ERROR_INPUT,
                     "no batch has %lld %s: nothing is left after --min-controls", (long long)minimum,
                     work->controls ? "controls" : "rows");
    if (!poor) goto done;
    lam_log_warning(
        "map: %lld of %lld batches have fewer than %lld %s and are left out with their %lld rows: %s",
        (long long)poor, (long long)b.count, (long long)minimum, work->controls ? "controls" : "rows",
        (long long)lost, list);
    for (int64_t i = 0; i < e->rows; i++) keep[i] = controls[b.code[i]] >= minimum;
    LAM_TRY_GOTO(lam_keep_rows(e, keep), done);
    status = lam_map_find_controls(work);
done:
    batches_free(&b);
    lam_free(controls);
    lam_free(rows);
    lam_free(keep);
    lam_free(list);
    return status;
}

/* ---- transforms ---- */

/* The options that a fit hangs on, for its file. */
static lam_json *settings(const lam_arguments *arguments) {
    static const char *const texts[] = {"controls", "batch", "components", "shrinkage", "within"};
    lam_json *object = lam_json_object();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        lam_json_set_text(object, texts[i], lam_option_text(arguments, texts[i]));
    lam_json_set_bool(object, "batch-center", lam_option_flag(arguments, "batch-center"));
    lam_json_set_float(object, "regularization", lam_option_float(arguments, "regularization"));
    return object;
}

static lam_status save(const lam_map_work *work, const lam_transform *t, const batches *b, const char *path) {
    lam_transform_notes notes = {.batch_names = b->names};
    lam_json *options = settings(work->arguments),
             *origin = lam_provenance(lam_command_line(work->arguments));
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_text_copy(&notes.align, lam_option_text(work->arguments, "align")), done);
    LAM_TRY_GOTO(lam_json_dump(options, false, &notes.settings), done);
    LAM_TRY_GOTO(lam_json_dump(origin, false, &notes.provenance), done);
    status = lam_transform_save(t, path, &notes);
done:
    lam_json_free(options);
    lam_json_free(origin);
    notes.batch_names = NULL; /* borrowed */
    lam_transform_notes_free(&notes);
    return status;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The file's number of each row's batch. */
static lam_status known_batches(const lam_map_work *work, const lam_transform *t,
                                const lam_transform_notes *notes, const char *column, const char *path,
                                int64_t **out) {
    batches b;
    int64_t unknown = 0, first = 0, *known = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(find_batches(work->e, column, &b), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&known, b.count, sizeof *known), done);
    for (int64_t k = 0; k < b.count; k++) {
        const char *const *found =
            bsearch(&b.names[k], notes->batch_names, (size_t)t->batches, sizeof *notes->batch_names, by_text);
        if (!found && !unknown++) first = k;
        known[k] = found ? found - notes->batch_names : 0;
    }
    LAM_REQUIRE_GOTO(
        !unknown, done, LAM_ERROR_INPUT,
        "%s does not know %lld of %lld batches by column '%s', '%s' the first: leave them out with --where, or fit an alignment on them",
        path, (long long)unknown, (long long)b.count, column, b.names[first]);
    LAM_TRY_GOTO(lam_alloc_array((void **)out, work->e->rows, sizeof **out), done);
    for (int64_t i = 0; i < work->e->rows; i++) (*out)[i] = known[b.code[i]];
done:
    batches_free(&b);
    lam_free(known);
    return status;
}

/* An option of this run against the fit's: NULL where it was not given. */
static lam_status same_setting(const lam_map_work *work, const lam_json *fitted, const char *option,
                               const char *path) {
    const char *here = lam_option_text(work->arguments, option),
               *there = lam_json_text(lam_json_get(fitted, option), NULL);
    LAM_REQUIRE(!here || (there && !strcmp(here, there)), LAM_ERROR_INPUT,
                "%s was fitted %s%s%s%s, not with --%s %s: give what it was fitted with, or leave it out",
                path, there ? "with --" : "without --", option, there ? " " : "", there ? there : "", option,
                here);
    return LAM_OK;
}

static lam_status apply_file(lam_map_work *work, const char *path) {
    lam_embeddings *e = work->e;
    lam_transform t;
    lam_transform_notes notes;
    lam_json *fitted = NULL;
    int64_t *batch = NULL;
    LAM_TRY(lam_transform_read(&t, &notes, path));
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_json_parse(&fitted, notes.settings, strlen(notes.settings), path), done);
    LAM_REQUIRE_GOTO(t.columns == e->columns, done, LAM_ERROR_INPUT,
                     "%s takes %lld columns, the embeddings have %lld", path, (long long)t.columns,
                     (long long)e->columns);
    LAM_TRY_GOTO(same_setting(work, fitted, "controls", path), done);
    LAM_TRY_GOTO(same_setting(work, fitted, "batch", path), done);
    if (notes.batch_names && (t.center || t.batch_mean || t.batch_matrix)) {
        const char *column = lam_json_text(lam_json_get(fitted, "batch"), NULL);
        LAM_REQUIRE_GOTO(column, done, LAM_ERROR_FORMAT, "%s: which column its batches stand in is missing",
                         path);
        LAM_TRY_GOTO(known_batches(work, &t, &notes, column, path, &batch), done);
    }
    LAM_TRY_GOTO(lam_transform_apply(&t, e->values, e->rows, batch), done);
    e->columns = t.components;
    lam_json_set_text(work->results, "align", notes.align);
    lam_json_set_text(work->results, "transform", path);
    lam_log_info("map: aligned as '%s' fitted before: %s", path, notes.align);
done:
    lam_free(batch);
    lam_json_free(fitted);
    lam_transform_free(&t);
    lam_transform_notes_free(&notes);
    return status;
}

static lam_status fit_and_apply(lam_map_work *work) {
    const lam_arguments *arguments = work->arguments;
    const char *save_path = lam_option_text(arguments, "save-transform");
    lam_embeddings *e = work->e;
    lam_alignment how;
    batches b = {0}, group = {0};
    lam_transform t = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(read_how(arguments, &how), done);
    lam_json_set_text(work->results, "align", lam_option_text(arguments, "align"));
    if (how.method == LAM_ALIGN_NONE) return LAM_OK;
    LAM_TRY_GOTO(find_batches(e, lam_option_text(arguments, "batch"), &b), done);
    LAM_TRY_GOTO(find_batches(e, lam_option_text(arguments, "within"), &group), done);
    how.controls = work->controls;
    how.batch = b.code, how.batches = b.count, how.batch_names = b.names;
    how.group = group.code, how.groups = group.count;
    if (how.method == LAM_ALIGN_SPHERIZE && how.batch && !how.batch_center)
        lam_log_info(
            "align: spherize is fitted on all batches at once; --batch-center takes off their means");
    LAM_TRY_GOTO(lam_align(&how, e->values, e->rows, &e->columns, &t), done);
    if (save_path) status = save(work, &t, &b, save_path);
done:
    lam_transform_free(&t);
    batches_free(&b);
    batches_free(&group);
    return status;
}

/* ---- what batch is left ---- */

static lam_status measure(const lam_map_work *work, const batches *b, lam_batch_score *score) {
    return lam_batch_left(work->e->values, work->e->rows, work->e->columns, work->controls, b->code, b->count,
                          score);
}

static void report_left(lam_map_work *work, const char *column, const batches *b,
                        const lam_batch_score *before, const lam_batch_score *after, bool aligned) {
    lam_json *object = lam_json_object();
    const char *who = work->controls ? "controls" : "rows";
    lam_json_set(work->results, "batch_left", object);
    lam_json_set_text(object, "column", column);
    if (!column) {
        lam_log_info(
            "map: how much batch is left is not known: no column plate or batch; name one with --batch");
        return;
    }
    lam_json_set_int(object, "batches", before->batches);
    lam_json_set_int(object, "rows", before->rows);
    lam_json_set_float(object, "chance", before->batches ? 1 / (double)before->batches : (double)NAN);
    lam_json_set_float(object, "before", before->accuracy);
    lam_json_set_float(object, "after", after->accuracy);
    if (b->count == 1)
        lam_log_info("map: a single %s, '%s': no batch to be told from another", column, b->names[0]);
    else if (before->batches < 2)
        lam_log_info("map: how much batch is left is not known: no two values of %s have two %s each", column,
                     who);
    else if (aligned)
        lam_log_info(
            "map: batch left: %s is told from %lld %s with balanced accuracy %.3f before aligning and %.3f after (chance %.3f, %lld batches)",
            column, (long long)before->rows, who, before->accuracy, after->accuracy,
            1 / (double)before->batches, (long long)before->batches);
    else
        lam_log_info(
            "map: batch left: %s is told from %lld %s with balanced accuracy %.3f (chance %.3f, %lld batches)",
            column, (long long)before->rows, who, before->accuracy, 1 / (double)before->batches,
            (long long)before->batches);
}

lam_status lam_map_align(lam_map_work *work) {
    const lam_arguments *arguments = work->arguments;
    const char *column = lam_option_text(arguments, "batch"), *file = lam_option_text(arguments, "transform");
    int64_t minimum = lam_option_int(arguments, "min-controls");
    batches b = {0};
    lam_batch_score before = {.accuracy = (double)NAN}, after = before;
    bool aligned = file || method_of(arguments) != LAM_ALIGN_NONE;
    lam_status status = LAM_OK;
    if (minimum) LAM_TRY(leave_out_batches(work, column, minimum));
    if (!column && lam_table_column(work->e->obs, "batch") >= 0) column = "batch";
    if (!lam_option_text(arguments, "batch") && lam_table_column(work->e->obs, "plate") >= 0)
        column = "plate";
    LAM_TRY_GOTO(find_batches(work->e, column, &b), done);
    if (column) LAM_TRY_GOTO(measure(work, &b, &before), done);
    after = before;
    LAM_TRY_GOTO(file ? apply_file(work, file) : fit_and_apply(work), done);
    if (column && aligned) LAM_TRY_GOTO(measure(work, &b, &after), done);
    report_left(work, column, &b, &before, &after, aligned);
done:
    batches_free(&b);
    return status;
}
