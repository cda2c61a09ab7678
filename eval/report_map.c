/* Maps: pictures in two dimensions, and the cosines of chosen rows in the order of their hierarchy. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "eval/hierarchy.h"
#include "eval/report_parts.h"

#define TSNE_ROWS 5000 /* drawn without being asked for: under half a minute */
#define HEAT_ROWS 60   /* chosen from the pathways */
#define HEAT_MOST 150

/* ---- chosen genes ---- */

static lam_status add_gene(char ***genes, int64_t *count, const char *text, size_t length) {
    while (length && (text[0] == ' ' || text[0] == '\t')) text++, length--;
    while (length && strchr(" \t\r", text[length - 1])) length--;
    if (!length) return LAM_OK;
    for (int64_t i = 0; i < *count; i++)
        if (strlen((*genes)[i]) == length && !strncmp((*genes)[i], text, length)) return LAM_OK;
    LAM_TRY(lam_grow((void **)genes, (size_t)*count * sizeof **genes, (size_t)(*count + 1) * sizeof **genes));
    LAM_TRY(lam_text_copy_n(&(*genes)[*count], text, length));
    ++*count;
    return LAM_OK;
}

lam_status lam_report_genes(const char *list, const char *file, char ***genes, int64_t *count) {
    char *bytes = NULL;
    size_t size;
    *genes = NULL;
    *count = 0;
    if (!list && !file) return LAM_OK;
    if (file) LAM_TRY(lam_file_read(file, &bytes, &size));
    lam_status status = LAM_OK;
    const char *text = file ? bytes : list, *between = file ? "\n" : ",";
    while (*text && status == LAM_OK) {
        size_t length = strcspn(text, between);
        status = add_gene(genes, count, text, length);
        text += length + (text[length] != 0);
    }
    lam_free(bytes);
    LAM_TRY(status);
    LAM_REQUIRE(*count >= 2 && *count <= HEAT_MOST, file ? LAM_ERROR_INPUT : LAM_ERROR_USAGE,
                "%s: names %lld genes: 2 to %d are possible", file ? file : "report: --genes",
                (long long)*count, HEAT_MOST);
    return LAM_OK;
}

/* Rows of the genes asked for; those that the map lacks are told. */
static lam_status rows_of_genes(const lam_embeddings *e, const char *path, const lam_report_maps *maps,
                                int64_t *rows, int64_t *count) {
    *count = 0;
    for (int64_t g = 0; g < maps->gene_count; g++) {
        int64_t found = -1;
        for (int64_t i = 0; i < e->rows; i++) {
            if (strcmp(e->index[i], maps->genes[g]) != 0) continue;
            LAM_REQUIRE(
                found < 0, LAM_ERROR_INPUT,
                "%s: '%s' stands in rows %lld and %lld: one row a gene is needed, aggregate first with lamella map --by",
                path, maps->genes[g], (long long)found + 1, (long long)i + 1);
            found = i;
        }
        if (found >= 0)
            rows[(*count)++] = found;
        else
            lam_log_warning("report: '%s' is not in %s; left out of the heat map", maps->genes[g], path);
    }
    LAM_REQUIRE(
        *count >= 2, LAM_ERROR_INPUT,
        "%s: holds %lld of the %lld genes asked for, at least 2 are needed: do the names agree (symbols, upper case)?",
        path, (long long)*count, (long long)maps->gene_count);
    return LAM_OK;
}

typedef struct pathway {
    const char *name;
    int64_t genes;
} pathway;

static int largest_first(const void *a, const void *b) {
    const pathway *p = a, *q = b;
    if (p->genes != q->genes) return p->genes > q->genes ? -1 : 1;
    return strcmp(p->name, q->name);
}

/* The largest pathways that fit, whole: rows [HEAT_ROWS]. Pairs tell nothing of a pathway, so those of two genes are left out. */
static lam_status rows_of_pathways(const lam_embeddings *e, const char *const *categories, int64_t *rows,
                                   int64_t *count) {
    pathway *known;
    int64_t total = 0;
    *count = 0;
    LAM_TRY(lam_alloc_array((void **)&known, e->rows, sizeof *known));
    for (int64_t i = 0; i < e->rows; i++) {
        if (!*categories[i]) continue;
        int64_t k = 0;
        while (k < total && strcmp(known[k].name, categories[i]) != 0) k++;
        if (k == total) known[total++].name = categories[i];
        known[k].genes++;
    }
    if (total) qsort(known, (size_t)total, sizeof *known, largest_first);
    for (int64_t k = 0; k < total; k++) {
        if (known[k].genes < 3 || *count + known[k].genes > HEAT_ROWS) continue;
        for (int64_t i = 0; i < e->rows; i++)
            if (!strcmp(categories[i], known[k].name)) rows[(*count)++] = i;
    }
    lam_free(known);
    return LAM_OK;
}

/* ---- the heat map ---- */

/* cosines [n, n] in the order of the leaves, names [n] too. */
static lam_status order_cosines(const lam_embeddings *e, const char *path, const int64_t *rows, int64_t n,
                                double *cosines, const char **names) {
    double *distance = NULL, *plain = NULL, *length = NULL;
    lam_merge *merges = NULL;
    int64_t *order = NULL, at = 0, d = e->columns;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&distance, n * (n - 1) / 2, sizeof *distance), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&plain, n * n, sizeof *plain), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&length, n, sizeof *length), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&merges, n, sizeof *merges), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&order, n, sizeof *order), done);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < d; k++) length[i] += e->values[rows[i] * d + k] * e->values[rows[i] * d + k];
        length[i] = sqrt(length[i]);
        LAM_REQUIRE_GOTO(length[i] > 0 && isfinite(length[i]), done, LAM_ERROR_INPUT,
                         "%s: row '%s' is zero or too large: it has no direction to compare", path,
                         e->index[rows[i]]);
    }
    for (int64_t i = 0; i < n; i++) {
        plain[i * n + i] = 1;
        for (int64_t j = i + 1; j < n; j++) {
            double sum = 0;
            for (int64_t k = 0; k < d; k++) sum += e->values[rows[i] * d + k] * e->values[rows[j] * d + k];
            plain[i * n + j] = plain[j * n + i] = fmax(-1, fmin(1, sum / length[i] / length[j]));
            distance[at++] = 1 - plain[i * n + j];
        }
    }
    LAM_TRY_GOTO(lam_hierarchy_average(distance, n, merges), done);
    LAM_TRY_GOTO(lam_hierarchy_leaves(merges, n, order), done);
    for (int64_t i = 0; i < n; i++) {
        names[i] = e->index[rows[order[i]]];
        for (int64_t j = 0; j < n; j++) cosines[i * n + j] = plain[order[i] * n + order[j]];
    }
done:
    lam_free(distance);
    lam_free(plain);
    lam_free(length);
    lam_free(merges);
    lam_free(order);
    return status;
}

/* rows [HEAT_MOST] of the heat map; *count 0: none. */
static lam_status choose_rows(const lam_embeddings *e, const char *path, const lam_report_maps *maps,
                              const char *const *categories, int64_t *rows, int64_t *count) {
    *count = 0;
    if (maps->genes) return rows_of_genes(e, path, maps, rows, count);
    return maps->pathways && !maps->colour ? rows_of_pathways(e, categories, rows, count) : LAM_OK;
}

static lam_status heat_section(lam_page *page, const lam_report_input *input, const lam_embeddings *e,
                               const lam_report_maps *maps, const int64_t *rows, int64_t n) {
    const char *names[HEAT_MOST];
    double *cosines;
    if (!n) return LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&cosines, n * n, sizeof *cosines));
    lam_status status = order_cosines(e, input->path, rows, n, cosines, names);
    if (status == LAM_OK) {
        char title[300];
        snprintf(title, sizeof title, "Cosines of chosen rows: %s", input->label);
        lam_page_paragraph(
            page,
            "Cosines between %lld rows, %s, in the order of an average-linkage hierarchy of the cosine distance: like "
            "stands beside like. Darker cells are further from 0; negative ones have a black corner.",
            (long long)n, maps->genes ? "those asked for" : "those of the largest pathways");
        lam_page_heat_signed(page, title, n, names, cosines);
    }
    lam_free(cosines);
    return status;
}

/* ---- pictures in two dimensions ---- */

static lam_status categories_of(const lam_embeddings *e, const char *pathways, const char *colour,
                                lam_table **table, const char **categories) {
    for (int64_t i = 0; i < e->rows; i++) categories[i] = "";
    if (colour) {
        int at;
        LAM_TRY(lam_table_require(e->obs, colour, &at));
        for (int64_t i = 0; i < e->rows; i++) categories[i] = lam_table_cell(e->obs, i, at);
        return LAM_OK;
    }
    if (!pathways) return LAM_OK;
    LAM_TRY(lam_table_read(table, pathways));
    int at;
    LAM_TRY(lam_table_require(*table, "pathway", &at));
    for (int64_t i = 0; i < e->rows; i++)
        for (int64_t r = 0; r < lam_table_rows(*table); r++)
            if (!strcmp(lam_table_cell(*table, r, 0), e->index[i]))
                categories[i] = lam_table_cell(*table, r, at);
    return LAM_OK;
}

static void draw(lam_page *page, const char *title, const char *x_axis, const char *y_axis,
                 const lam_embeddings *e, const double *xy, double *split, const char *const *categories) {
    for (int64_t i = 0; i < e->rows; i++) {
        split[i] = xy[2 * i];
        split[e->rows + i] = xy[2 * i + 1];
    }
    lam_scatter scatter = {
        title,      x_axis, y_axis, e->rows, split, split + e->rows, (const char *const *)e->index,
        categories, false,  0,      NULL};
    lam_page_scatter(page, &scatter);
}

/* Rows of length 1, so that the distances of t-SNE are those of the cosine, which the map is compared by. */
static lam_status unit_rows(const lam_embeddings *e, double **out) {
    LAM_TRY(lam_alloc_array((void **)out, e->rows * e->columns, sizeof **out));
    for (int64_t i = 0; i < e->rows; i++) {
        const double *row = e->values + i * e->columns;
        double largest = 0, squares = 0;
        for (int64_t j = 0; j < e->columns; j++) largest = fmax(largest, fabs(row[j]));
        if (!(largest > 0)) continue; /* a row of zeros stays one */
        for (int64_t j = 0; j < e->columns; j++) squares += row[j] / largest * (row[j] / largest);
        for (int64_t j = 0; j < e->columns; j++)
            (*out)[i * e->columns + j] = row[j] / largest / sqrt(squares);
    }
    return LAM_OK;
}

static lam_status tsne_section(lam_page *page, const lam_report_input *input, const lam_embeddings *e,
                               const lam_report_maps *maps, double *xy, double *split,
                               const char *const *categories) {
    if (!maps->asked && e->rows > TSNE_ROWS) {
        lam_page_paragraph(
            page,
            "t-SNE is left out: the map has more than %d rows (--embedding tsne draws it all the same).",
            TSNE_ROWS);
        return LAM_OK;
    }
    if (e->rows < LAM_TSNE_MINIMUM_ROWS && !maps->asked) return LAM_OK;
    double *units, divergence;
    LAM_TRY(unit_rows(e, &units));
    lam_status status = lam_tsne(units, e->rows, e->columns, &maps->how, xy, &divergence);
    lam_free(units);
    if (status != LAM_OK) return lam_fail_context(status, "%s", input->path);
    char title[300];
    snprintf(title, sizeof title, "t-SNE: %s", input->label);
    lam_page_paragraph(
        page,
        "Exact t-SNE of the rows scaled to length 1, perplexity %g, started from %s; Kullback-Leibler divergence %.3f. "
        "Neighbours mean something in it, distances between groups and sizes of groups do not.",
        maps->how.perplexity > 0 ? maps->how.perplexity : lam_tsne_perplexity(e->rows),
        maps->how.random_start ? "random positions" : "the principal components", divergence);
    draw(page, title, "t-SNE 1", "t-SNE 2", e, xy, split, categories);
    return LAM_OK;
}

/* How much batch `map` found, where it measured it. */
static lam_status batch_sentence(lam_page *page, const lam_embeddings *e, const char *path) {
    if (!e->provenance) return LAM_OK;
    lam_json *all;
    LAM_TRY(lam_json_parse(&all, e->provenance, strlen(e->provenance), path));
    const lam_json *results = lam_json_get(all, "results"), *left = lam_json_get(results, "batch_left");
    double before = lam_json_float(lam_json_get(left, "before"), (double)NAN),
           after = lam_json_float(lam_json_get(left, "after"), (double)NAN),
           chance = lam_json_float(lam_json_get(left, "chance"), (double)NAN);
    if (isfinite(before) && isfinite(after)) {
        char text[120];
        if (!strcmp(lam_json_text(lam_json_get(results, "align"), "none"), "none"))
            snprintf(text, sizeof text, "%.3f; nothing was aligned", after);
        else
            snprintf(text, sizeof text, "%.3f before aligning and %.3f after", before, after);
        lam_page_paragraph(
            page,
            "Batch left: a linear classifier tells %s of %lld rows with balanced accuracy %s; none is left at chance, %.3f "
            "(%lld batches).%s",
            lam_json_text(lam_json_get(left, "column"), "batch"),
            (long long)lam_json_int(lam_json_get(left, "rows"), 0), text, chance,
            (long long)lam_json_int(lam_json_get(left, "batches"), 0),
            after < chance
                ? " Below chance is what centring by batch leaves: where a batch has mean zero, its rows "
                  "held out lie opposite to its others."
                : "");
    }
    lam_json_free(all);
    return LAM_OK;
}

lam_status lam_report_map(lam_page *page, const lam_report_input *input, const lam_report_maps *maps) {
    lam_embeddings *e;
    LAM_TRY(lam_embeddings_read(&e, input->path, NULL, NULL));
    double *xy = NULL, *split = NULL;
    const char **categories = NULL;
    lam_table *table = NULL;
    int64_t rows[HEAT_MOST], chosen;
    char text[300];
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&xy, 2 * e->rows, sizeof *xy), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&split, 2 * e->rows, sizeof *split), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&categories, e->rows, sizeof *categories), done);
    for (int64_t i = 0; i < e->rows * e->columns; i++)
        LAM_REQUIRE_GOTO(isfinite(e->values[i]), done, LAM_ERROR_INPUT,
                         "%s: row %lld holds a value that is not finite: it cannot be drawn", input->path,
                         (long long)(i / e->columns + 1));
    LAM_TRY_GOTO(categories_of(e, maps->pathways, maps->colour, &table, categories), done);
    LAM_TRY_GOTO(choose_rows(e, input->path, maps, categories, rows, &chosen), done); /* before the work */
    const char *const *marks = maps->pathways || maps->colour ? categories : NULL;
    snprintf(text, sizeof text, "The map: %s", input->label);
    lam_page_heading(page, text);
    lam_page_paragraph(page, "%lld rows of %lld dimensions.%s", (long long)e->rows, (long long)e->columns,
                       !marks         ? ""
                       : maps->colour ? " Rows of one category share a mark; small grey ones have none."
                                      : " Rows of one pathway share a mark; small grey ones have none.");
    LAM_TRY_GOTO(batch_sentence(page, e, input->path), done);
    if (maps->plane) {
        LAM_TRY_GOTO(lam_principal_plane(e->values, e->rows, e->columns, xy), done);
        snprintf(text, sizeof text, "Map: %s", input->label);
        draw(page, text, "first principal component", "second principal component", e, xy, split, marks);
    }
    if (maps->tsne) LAM_TRY_GOTO(tsne_section(page, input, e, maps, xy, split, marks), done);
    LAM_TRY_GOTO(heat_section(page, input, e, maps, rows, chosen), done);
done:
    lam_free(xy);
    lam_free(split);
    lam_free(categories);
    lam_table_free(table);
    lam_embeddings_free(e);
    return status;
}
