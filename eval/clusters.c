#include "eval/clusters.h"

#include <stdbool.h>

#include "base/memory.h"

static double mean(const double *values, int64_t count) {
    double sum = 0;
    for (int64_t k = 0; k < count; k++) sum += values[k];
    return sum / (double)count;
}

lam_status lam_cluster_compare(const lam_directions *u, const int32_t *rows, int64_t count,
                               lam_cluster_test *out) {
    LAM_REQUIRE(count >= 2 && count < u->rows, LAM_ERROR_INPUT,
                "a cluster of %lld of %lld rows: two or more in it and one outside are needed",
                (long long)count, (long long)u->rows);
    double *within = NULL, *between = NULL;
    int64_t inside = 0, outside = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&within, count * (count - 1) / 2, sizeof *within), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&between, count * (u->rows - count), sizeof *between), done);
    for (int64_t a = 0; a < count; a++) {
        for (int64_t b = a + 1; b < count; b++) within[inside++] = lam_directions_cosine(u, rows[a], rows[b]);
        for (int64_t row = 0, next = 0; row < u->rows; row++) {
            if (next < count && rows[next] == row)
                next++;
            else
                between[outside++] = lam_directions_cosine(u, rows[a], row);
        }
    }
    out->within_mean = mean(within, inside);
    out->between_mean = mean(between, outside);
    LAM_TRY_GOTO(lam_ks_two_sample(within, inside, between, outside, LAM_P_AUTO, &out->ks), done);
    status = lam_cvm_two_sample(within, inside, between, outside, LAM_P_AUTO, &out->cvm);
done:
    lam_free(within);
    lam_free(between);
    return status;
}

lam_enrichment lam_cluster_enrichment(const int32_t *rows, int64_t count, const int32_t *drawn,
                                      int64_t count_drawn, int64_t population) {
    lam_enrichment e = {0};
    for (int64_t k = 0; k < count_drawn; k++) {
        int64_t low = 0, high = count;
        while (low < high) {
            int64_t middle = low + (high - low) / 2;
            if (rows[middle] < drawn[k])
                low = middle + 1;
            else
                high = middle;
        }
        e.hits += low < count && rows[low] == drawn[k];
    }
    e.p = lam_hypergeometric_upper(e.hits, population, count, count_drawn);
    e.jaccard = (double)e.hits / (double)(count + count_drawn - e.hits);
    return e;
}
