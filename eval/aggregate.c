#include "eval/aggregate.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"

#define TILE 16 /* columns of one piece of work */

/* The k-th smallest moves to v[k], nothing larger before it, nothing smaller after it (Hoare's selection). */
static void select_rank(double *v, int64_t n, int64_t k) {
    for (int64_t low = 0, high = n - 1; low < high;) {
        double pivot = v[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (v[i] < pivot) i++;
            while (v[j] > pivot) j--;
            if (i > j) break;
            double swap = v[i];
            v[i++] = v[j], v[j--] = swap;
        }
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            return;
    }
}

static double median(double *v, int64_t n) {
    select_rank(v, n, n / 2);
    if (n % 2) return v[n / 2];
    double below = v[0];
    for (int64_t i = 1; i < n / 2; i++) below = fmax(below, v[i]);
    return 0.5 * (below + v[n / 2]);
}

/* work [n] */
static double biweight(const double *v, int64_t n, double *work) {
    memcpy(work, v, (size_t)n * sizeof *v);
    double center = median(work, n), sum = 0, weights = 0;
    for (int64_t i = 0; i < n; i++) work[i] = fabs(v[i] - center);
    double spread = 6 * median(work, n);
    if (!(spread > 0)) return center;
    for (int64_t i = 0; i < n; i++) {
        double u = (v[i] - center) / spread, w = fabs(u) < 1 ? (1 - u * u) * (1 - u * u) : 0;
        weights += w;
        sum += w * (v[i] - center);
    }
    return center + sum / weights;
}

/* Columns from..from+width of one group; work: two columns of its rows. */
static void aggregate_tile(const double *x, int64_t columns, const int64_t *members, int64_t n, int64_t from,
                           int64_t width, lam_aggregate_method method, double *out, double *work) {
    if (method == LAM_AGGREGATE_MEAN) {
        for (int64_t j = 0; j < width; j++) out[j] = 0;
        for (int64_t k = 0; k < n; k++)
            for (int64_t j = 0; j < width; j++) out[j] += x[members[k] * columns + from + j];
        for (int64_t j = 0; j < width; j++) out[j] /= (double)n;
        return;
    }
    for (int64_t j = 0; j < width; j++) {
        for (int64_t k = 0; k < n; k++) work[k] = x[members[k] * columns + from + j];
        out[j] = method == LAM_AGGREGATE_MEDIAN ? median(work, n) : biweight(work, n, work + n);
    }
}

lam_status lam_aggregate(const double *x, int64_t rows, int64_t columns, const int64_t *codes, int64_t groups,
                         lam_aggregate_method method, double *out, int64_t *counts) {
    int64_t *start = NULL, *order = NULL, largest = 0, tiles = (columns + TILE - 1) / TILE;
    double *work = NULL;
    int threads = lam_threads();
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&start, groups + 1, sizeof *start), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&order, rows, sizeof *order), done);
    for (int64_t i = 0; i < rows; i++) start[codes[i] + 1]++;
    for (int64_t g = 0; g < groups; g++) {
        counts[g] = start[g + 1];
        if (counts[g] > largest) largest = counts[g];
        start[g + 1] += start[g];
    }
    for (int64_t i = 0; i < rows; i++) order[start[codes[i]]++] = i; /* start[g] becomes the end of g */
    LAM_TRY_GOTO(lam_alloc_array((void **)&work, threads * 2 * largest, sizeof *work), done);
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (int64_t piece = 0; piece < groups * tiles; piece++) {
        int64_t g = piece / tiles, from = piece % tiles * TILE;
        aggregate_tile(x, columns, order + start[g] - counts[g], counts[g], from,
                       columns - from < TILE ? columns - from : TILE, method, out + g * columns + from,
                       work + omp_get_thread_num() * 2 * largest);
    }
done:
    lam_free(start);
    lam_free(order);
    lam_free(work);
    return status;
}

/* ---- tables ---- */

lam_status lam_keep_rows(lam_embeddings *e, const bool *keep) {
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

typedef struct keyed {
    int64_t key, row;
} keyed;

static int by_key(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    return (x->key > y->key) - (x->key < y->key);
}

/* codes [rows] of the rows' texts in several columns, 0..groups-1 in the order of the texts, the first column first. */
static lam_status joint_codes(const lam_embeddings *e, const int *column, int levels, int64_t **codes,
                              int64_t *groups) {
    int64_t *next = NULL, n = 0;
    const char **names = NULL;
    keyed *keys = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_table_codes(e->obs, column[0], codes, &names, groups));
    lam_free(names);
    LAM_TRY_GOTO(lam_alloc_array((void **)&keys, e->rows, sizeof *keys), done);
    for (int k = 1; k < levels; k++) {
        lam_free(next);
        next = NULL, names = NULL;
        LAM_TRY_GOTO(lam_table_codes(e->obs, column[k], &next, &names, &n), done);
        lam_free(names);
        /* Both codes are below the number of rows: their product fits. */
        for (int64_t i = 0; i < e->rows; i++) keys[i] = (keyed){(*codes)[i] * n + next[i], i};
        qsort(keys, (size_t)e->rows, sizeof *keys, by_key);
        *groups = 0;
        for (int64_t i = 0; i < e->rows; i++) {
            *groups += i > 0 && keys[i].key != keys[i - 1].key;
            (*codes)[keys[i].row] = *groups;
        }
        ++*groups;
    }
done:
    lam_free(next);
    lam_free(keys);
    return status;
}

/* One step: rows that agree in columns by[0..levels) become one. The new metadata: those columns and `count`. */
static lam_status aggregate_level(lam_embeddings *e, const char *const *by, int levels,
                                  lam_aggregate_method method) {
    lam_table *obs = NULL;
    int64_t *codes = NULL, *counts = NULL, *first = NULL, groups = 0;
    const char **labels = NULL;
    double *values = NULL;
    char **index = NULL;
    int column[LAM_AGGREGATE_MAX];
    lam_status status = LAM_OK;
    for (int k = 0; k < levels; k++) LAM_TRY_GOTO(lam_table_require(e->obs, by[k], &column[k]), done);
    LAM_TRY_GOTO(joint_codes(e, column, levels, &codes, &groups), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, groups * e->columns, sizeof *values), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&counts, groups, sizeof *counts), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&first, groups, sizeof *first), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&labels, groups, sizeof *labels), done);
    LAM_TRY_GOTO(lam_aggregate(e->values, e->rows, e->columns, codes, groups, method, values, counts), done);
    for (int64_t i = e->rows - 1; i >= 0; i--) first[codes[i]] = i;
    LAM_TRY_GOTO(lam_table_create(&obs, groups), done);
    for (int k = 0; k < levels; k++) {
        for (int64_t g = 0; g < groups; g++) labels[g] = lam_table_cell(e->obs, first[g], column[k]);
        LAM_TRY_GOTO(lam_table_add(obs, by[k], labels), done);
    }
    LAM_TRY_GOTO(lam_table_add(obs, "count", NULL), done);
    for (int64_t g = 0; g < groups; g++) {
        char text[32];
        snprintf(text, sizeof text, "%lld", (long long)counts[g]);
        LAM_TRY_GOTO(lam_table_set(obs, g, levels, text), done);
        labels[g] = lam_table_cell(obs, g, 0);
    }
    LAM_TRY_GOTO(lam_texts_pack(&index, labels, groups), done);
    lam_free(e->index);
    lam_free(e->values);
    lam_table_free(e->obs);
    e->index = index;
    e->values = values;
    e->obs = obs;
    e->rows = groups;
    values = NULL;
    obs = NULL;
done:
    lam_table_free(obs);
    lam_free(codes);
    lam_free(labels);
    lam_free(counts);
    lam_free(first);
    lam_free(values);
    return status;
}

static lam_status leave_out_unlabelled(lam_embeddings *e, const char *name, int column) {
    bool *keep;
    int64_t empty = 0;
    LAM_TRY(lam_alloc_array((void **)&keep, e->rows, sizeof *keep));
    for (int64_t i = 0; i < e->rows; i++) empty += !(keep[i] = *lam_table_cell(e->obs, i, column) != 0);
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(empty < e->rows, done, LAM_ERROR_INPUT,
                     "column '%s' is empty in every row: nothing to aggregate by", name);
    if (!empty) goto done;
    lam_log_warning("map: column '%s' is empty in %lld of %lld rows; they are left out", name,
                    (long long)empty, (long long)e->rows);
    status = lam_keep_rows(e, keep);
done:
    lam_free(keep);
    return status;
}

lam_status lam_aggregate_by(lam_embeddings *e, const char *const *by, int count,
                            lam_aggregate_method method) {
    const char *levels[LAM_AGGREGATE_MAX];
    int column = 0;
    LAM_REQUIRE(count > 0 && count <= LAM_AGGREGATE_MAX, LAM_ERROR_USAGE,
                "map: --by names %d columns, 1 to %d are taken", count, LAM_AGGREGATE_MAX);
    for (int k = 0; k < count; k++) {
        LAM_TRY(lam_table_require(e->obs, by[k], &column));
        LAM_REQUIRE(strcmp(by[k], "count") != 0, LAM_ERROR_USAGE,
                    "map: --by count: a map has a column of this name of its own; rename it");
        for (int i = 0; i < k; i++)
            LAM_REQUIRE(strcmp(by[i], by[k]) != 0, LAM_ERROR_USAGE, "map: --by names '%s' twice", by[k]);
        levels[count - 1 - k] = by[k];
    }
    LAM_TRY(leave_out_unlabelled(e, by[count - 1], column));
    for (int left = count; left > 0; left--) LAM_TRY(aggregate_level(e, levels, left, method));
    return LAM_OK;
}
