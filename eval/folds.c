#include "eval/folds.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"

typedef struct member {
    int64_t group, size;
    uint64_t key;
} member;

static int larger_first(const void *a, const void *b) {
    const member *x = a, *y = b;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    return (x->key > y->key) - (x->key < y->key);
}

/* How uneven the classes would lie over the folds if `counts` were added to fold f: sum over classes of the squared excess of that fold,
 * each class measured by its total. */
static double cost(const int64_t *held, const int64_t *counts, const int64_t *total, int64_t classes,
                   int64_t folds, int64_t f) {
    double sum = 0;
    for (int64_t k = 0; k < classes; k++) {
        if (!counts[k]) continue;
        double share = (double)(held[f * classes + k] + counts[k]) / (double)total[k] - 1.0 / (double)folds;
        double before = (double)held[f * classes + k] / (double)total[k] - 1.0 / (double)folds;
        sum += share * share - before * before;
    }
    return sum;
}

lam_status lam_folds_stratified(const int64_t *label, int64_t classes, const int64_t *group, int64_t groups,
                                int64_t n, int64_t folds, uint64_t seed, int64_t *fold) {
    LAM_REQUIRE(groups >= folds, LAM_ERROR_INPUT,
                "%lld groups cannot be dealt to %lld folds: ask for fewer with --folds", (long long)groups,
                (long long)folds);
    int64_t *counts = NULL, *total = NULL, *held = NULL, *rows = NULL, *place = NULL;
    member *order = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&counts, groups * classes, sizeof *counts), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&total, classes, sizeof *total), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&held, folds * classes, sizeof *held), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&rows, folds, sizeof *rows), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&place, groups, sizeof *place), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&order, groups, sizeof *order), done);
    for (int64_t g = 0; g < groups; g++) order[g] = (member){g, 0, lam_mix64(seed ^ lam_mix64((uint64_t)g))};
    for (int64_t i = 0; i < n; i++) {
        counts[group[i] * classes + label[i]]++;
        total[label[i]]++;
        order[group[i]].size++;
    }
    qsort(order, (size_t)groups, sizeof *order, larger_first);
    for (int64_t k = 0; k < groups; k++) {
        const int64_t *mine = counts + order[k].group * classes;
        int64_t best = 0;
        double lowest = INFINITY;
        for (int64_t f = 0; f < folds; f++) {
            double c = cost(held, mine, total, classes, folds, f);
            if (c < lowest - 1e-12 || (c < lowest + 1e-12 && rows[f] < rows[best]))
                lowest = fmin(c, lowest), best = f;
        }
        place[order[k].group] = best;
        rows[best] += order[k].size;
        for (int64_t c = 0; c < classes; c++) held[best * classes + c] += mine[c];
    }
    for (int64_t i = 0; i < n; i++) fold[i] = place[group[i]];
done:
    lam_free(counts);
    lam_free(total);
    lam_free(held);
    lam_free(rows);
    lam_free(place);
    lam_free(order);
    return status;
}
