#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "eval/aggregate.h"
#include "eval/arms.h"
#include "eval/map_parts.h"
#include "eval/where.h"

lam_status lam_map_check_genes(const lam_arguments *arguments) {
    static const char *const needs[][2] = {{"expressed-where", "expressed"},
                                           {"keep-unexpressed", "arm"},
                                           {"centromeres", "arm"},
                                           {"arm-genes", "arm"}};
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        LAM_REQUIRE(!lam_option_given(arguments, needs[i][0]) || lam_option_text(arguments, needs[i][1]),
                    LAM_ERROR_USAGE, "map: --%s needs --%s", needs[i][0], needs[i][1]);
    LAM_REQUIRE(
        !lam_option_text(arguments, "arm") || lam_option_text(arguments, "expressed"), LAM_ERROR_USAGE,
        "map: --arm takes means over unexpressed genes: name a table of expressed ones with --expressed");
    LAM_REQUIRE(!lam_option_given(arguments, "gene") || lam_option_text(arguments, "expressed"),
                LAM_ERROR_USAGE, "map: --gene belongs to --expressed and --arm");
    return LAM_OK;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static lam_status require_different(const char *const *genes, int64_t rows) {
    const char **sorted;
    const char *twice = NULL;
    LAM_TRY(lam_alloc_array((void **)&sorted, rows, sizeof *sorted));
    memcpy(sorted, genes, (size_t)rows * sizeof *sorted);
    qsort(sorted, (size_t)rows, sizeof *sorted, by_text);
    for (int64_t i = 1; i < rows && !twice; i++)
        if (*sorted[i] && !strcmp(sorted[i - 1], sorted[i])) twice = sorted[i];
    lam_free(sorted);
    LAM_REQUIRE(!twice, LAM_ERROR_INPUT,
                "--arm: gene '%s' stands in several rows: one row a gene is needed, aggregate with --by",
                twice);
    return LAM_OK;
}

static lam_status correct_arms(lam_map_work *work, const char *const *genes,
                               const lam_expression *expressed) {
    lam_embeddings *e = work->e;
    lam_arms *arms = NULL;
    bool *unexpressed = NULL;
    const char **names = NULL;
    int64_t minimum = lam_option_int(work->arguments, "arm-genes");
    lam_arms_result r;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_arms_read(&arms, lam_option_text(work->arguments, "arm"),
                               lam_option_text(work->arguments, "centromeres")),
                 done);
    LAM_TRY_GOTO(require_different(genes, e->rows), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&unexpressed, e->rows, sizeof *unexpressed), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, e->rows, sizeof *names), done);
    for (int64_t i = 0; i < e->rows; i++) {
        unexpressed[i] = expressed[i] == LAM_UNEXPRESSED;
        names[i] = lam_arms_of(arms, genes[i]);
    }
    LAM_TRY_GOTO(lam_arms_correct(arms, e->values, e->rows, e->columns, genes, unexpressed, minimum, &r),
                 done);
    lam_log_info(
        "map: %lld of %lld rows have an arm; %lld of %lld arms have more than %lld unexpressed genes and were corrected (%lld rows)",
        (long long)r.genes, (long long)e->rows, (long long)r.corrected, (long long)r.arms, (long long)minimum,
        (long long)r.rows);
    lam_log_info("map: mean cosine of genes on one arm %.4f before and %.4f after, on two arms %.4f and %.4f",
                 r.within[0], r.within[1], r.between[0], r.between[1]);
    if (!r.corrected)
        lam_log_warning("map: --arm changed nothing: no arm has more than %lld unexpressed genes",
                        (long long)minimum);
    lam_json *object = lam_json_object();
    lam_json_set(work->results, "arms", object);
    lam_json_set_int(object, "arms", r.arms);
    lam_json_set_int(object, "arms_corrected", r.corrected);
    lam_json_set_int(object, "rows_with_arm", r.genes);
    lam_json_set_int(object, "rows_corrected", r.rows);
    lam_json_set_float(object, "cosine_within_before", r.within[0]);
    lam_json_set_float(object, "cosine_within_after", r.within[1]);
    lam_json_set_float(object, "cosine_between_before", r.between[0]);
    lam_json_set_float(object, "cosine_between_after", r.between[1]);
    int column = lam_table_column(e->obs, "arm");
    if (column < 0) {
        LAM_TRY_GOTO(lam_table_add(e->obs, "arm", names), done);
    } else {
        for (int64_t i = 0; i < e->rows; i++) LAM_TRY_GOTO(lam_table_set(e->obs, i, column, names[i]), done);
    }
done:
    lam_free(unexpressed);
    lam_free(names);
    lam_arms_free(arms);
    return status;
}

static lam_status leave_out(lam_map_work *work, const lam_expression *expressed) {
    lam_embeddings *e = work->e;
    const char *path = lam_option_text(work->arguments, "expressed");
    bool *keep, drop = !lam_option_flag(work->arguments, "keep-unexpressed"), rows_are_wells = work->controls;
    int64_t count[3] = {0};
    LAM_TRY(lam_alloc_array((void **)&keep, e->rows, sizeof *keep));
    for (int64_t i = 0; i < e->rows; i++) {
        bool control = rows_are_wells && work->controls[i];
        keep[i] = control || expressed[i] == LAM_EXPRESSED;
        count[expressed[i]] += !control;
    }
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(count[LAM_EXPRESSED] > 0, done, LAM_ERROR_INPUT,
                     "no row of the map is an expressed gene of %s: are the genes named alike in both?",
                     path);
    lam_log_info("map: by %s %lld rows are expressed genes, %lld unexpressed, %lld not in the table: %s",
                 path, (long long)count[LAM_EXPRESSED], (long long)count[LAM_UNEXPRESSED],
                 (long long)count[LAM_EXPRESSION_UNKNOWN], drop ? "the expressed stay" : "all stay");
    lam_json *object = lam_json_object();
    lam_json_set(work->results, "expressed", object);
    lam_json_set_int(object, "expressed", count[LAM_EXPRESSED]);
    lam_json_set_int(object, "unexpressed", count[LAM_UNEXPRESSED]);
    lam_json_set_int(object, "unknown", count[LAM_EXPRESSION_UNKNOWN]);
    if (drop) status = lam_keep_rows(e, keep);
done:
    lam_free(keep);
    return status;
}

lam_status lam_map_genes(lam_map_work *work) {
    const lam_arguments *arguments = work->arguments;
    const char *path = lam_option_text(arguments, "expressed"), *by = lam_option_text(arguments, "by"),
               *name = lam_option_text(arguments, "gene");
    lam_embeddings *e = work->e;
    const char **genes = NULL;
    lam_expression *expressed = NULL;
    int column;
    lam_status status = LAM_OK;
    if (!path) return LAM_OK;
    if (!name) name = by ? strrchr(by, ',') ? strrchr(by, ',') + 1 : by : "gene";
    LAM_TRY(lam_table_require(e->obs, name, &column));
    LAM_TRY_GOTO(lam_alloc_array((void **)&genes, e->rows, sizeof *genes), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&expressed, e->rows, sizeof *expressed), done);
    for (int64_t i = 0; i < e->rows; i++) genes[i] = lam_table_cell(e->obs, i, column);
    LAM_TRY_GOTO(
        lam_expressed(path, lam_option_text(arguments, "expressed-where"), name, genes, e->rows, expressed),
        done);
    if (lam_option_text(arguments, "arm")) LAM_TRY_GOTO(correct_arms(work, genes, expressed), done);
    status = leave_out(work, expressed);
done:
    lam_free(genes);
    lam_free(expressed);
    return status;
}
