#include "eval/aggregate.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

lam_status lam_aggregate(const double *x, int64_t rows, int64_t columns, const int64_t *codes, int64_t groups,
                         bool median, double *out, int64_t *counts) {
    int64_t *start = NULL, *order = NULL;
    double *values = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&start, groups + 1, sizeof *start), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&order, rows, sizeof *order), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, rows, sizeof *values), done);
    for (int64_t i = 0; i < rows; i++) start[codes[i] + 1]++;
    for (int64_t g = 0; g < groups; g++) counts[g] = start[g + 1], start[g + 1] += start[g];
    for (int64_t i = 0; i < rows; i++) order[start[codes[i]]++] = i; /* start[g] becomes the end of g */
    for (int64_t g = 0; g < groups; g++) {
        const int64_t *members = order + start[g] - counts[g];
        for (int64_t j = 0; j < columns; j++) {
            double sum = 0;
            for (int64_t k = 0; k < counts[g]; k++) sum += values[k] = x[members[k] * columns + j];
            if (median) {
                qsort(values, (size_t)counts[g], sizeof *values, by_value);
                int64_t half = counts[g] / 2;
                out[g * columns + j] = counts[g] % 2 ? values[half] : 0.5 * (values[half - 1] + values[half]);
            } else {
                out[g * columns + j] = sum / (double)counts[g];
            }
        }
    }
done:
    lam_free(start);
    lam_free(order);
    lam_free(values);
    return status;
}
