#include "eval/folds.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"

enum { SHARES = 1, INNER = 2 }; /* seeds of their own */

typedef struct member {
    int64_t group, size;
    uint64_t key;
} member;

static int larger_first(const void *a, const void *b) {
    const member *x = a, *y = b;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    return (x->key > y->key) - (x->key < y->key);
}

/* The rows in the order of their group, and within a group of their class: two stable counting sorts. Rows of group g are
 * order[start[g]] .. order[start[g + 1] - 1]. */
static lam_status sort_rows(const int64_t *label, int64_t classes, const int64_t *group, int64_t groups,
                            int64_t n, int64_t **order, int64_t **start) {
    int64_t *by_class = NULL, *at = NULL;
    lam_status status = LAM_OK;
    *order = *start = NULL;
    LAM_TRY_GOTO(lam_alloc_array((void **)&by_class, n, sizeof *by_class), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&at, (classes > groups ? classes : groups) + 1, sizeof *at), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)order, n, sizeof **order), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)start, groups + 1, sizeof **start), done);
    for (int64_t i = 0; i < n; i++) at[label[i] + 1]++, (*start)[group[i] + 1]++;
    for (int64_t k = 0; k < classes; k++) at[k + 1] += at[k];
    for (int64_t g = 0; g < groups; g++) (*start)[g + 1] += (*start)[g];
    for (int64_t i = 0; i < n; i++) by_class[at[label[i]]++] = i;
    memcpy(at, *start, (size_t)groups * sizeof *at);
    for (int64_t i = 0; i < n; i++) (*order)[at[group[by_class[i]]]++] = by_class[i];
done:
    lam_free(by_class);
    lam_free(at);
    return status;
}

/* A group is a list of the classes it has, with counts; `used` says how long. */
typedef struct part {
    int64_t label, count;
} part;

static int64_t parts_of(const int64_t *label, const int64_t *rows, int64_t n, part *parts) {
    int64_t used = 0;
    for (int64_t i = 0; i < n; i++) {
        if (used == 0 || parts[used - 1].label != label[rows[i]]) parts[used++] = (part){label[rows[i]], 0};
        parts[used - 1].count++;
    }
    return used;
}

/* How uneven the classes would lie over the folds if the group were added to fold f: sum over classes of the squared excess
 * of that fold, each class measured by its total. */
static double cost(const int64_t *held, const part *parts, int64_t used, const int64_t *total,
                   int64_t classes, int64_t folds, int64_t f) {
    double sum = 0;
    for (int64_t i = 0; i < used; i++) {
        int64_t k = parts[i].label;
        double share =
            (double)(held[f * classes + k] + parts[i].count) / (double)total[k] - 1.0 / (double)folds;
        double before = (double)held[f * classes + k] / (double)total[k] - 1.0 / (double)folds;
        sum += share * share - before * before;
    }
    return sum;
}

lam_status lam_folds_stratified(const int64_t *label, int64_t classes, const int64_t *group, int64_t groups,
                                int64_t n, int64_t folds, uint64_t seed, int64_t *fold) {
    int64_t *sorted = NULL, *start = NULL, *total = NULL, *held = NULL, *rows = NULL, filled = 0;
    member *order = NULL;
    part *parts = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(sort_rows(label, classes, group, groups, n, &sorted, &start), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&total, classes, sizeof *total), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&held, folds * classes, sizeof *held), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&rows, folds, sizeof *rows), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&parts, classes, sizeof *parts), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&order, groups, sizeof *order), done);
    for (int64_t i = 0; i < n; i++) total[label[i]]++;
    for (int64_t g = 0; g < groups; g++)
        if (start[g + 1] > start[g])
            order[filled++] = (member){g, start[g + 1] - start[g], lam_mix64(seed ^ lam_mix64((uint64_t)g))};
    LAM_REQUIRE_GOTO(filled >= folds, done, LAM_ERROR_INPUT,
                     "%lld groups cannot be dealt to %lld folds: ask for fewer with --folds",
                     (long long)filled, (long long)folds);
    qsort(order, (size_t)filled, sizeof *order, larger_first);
    for (int64_t k = 0; k < filled; k++) {
        int64_t g = order[k].group, used = parts_of(label, sorted + start[g], order[k].size, parts), best = 0;
        double lowest = INFINITY;
        for (int64_t f = 0; f < folds; f++) {
            double c = cost(held, parts, used, total, classes, folds, f);
            if (c < lowest - 1e-12 || (c < lowest + 1e-12 && rows[f] < rows[best]))
                lowest = fmin(c, lowest), best = f;
        }
        rows[best] += order[k].size;
        for (int64_t i = 0; i < used; i++) held[best * classes + parts[i].label] += parts[i].count;
        for (int64_t i = start[g]; i < start[g + 1]; i++) fold[sorted[i]] = best;
    }
done:
    lam_free(sorted);
    lam_free(start);
    lam_free(total);
    lam_free(held);
    lam_free(rows);
    lam_free(parts);
    lam_free(order);
    return status;
}

/* ---- shares ---- */

typedef struct seat {
    int64_t group, class;
    double place; /* (rank within the class + 1/2) / groups of the class */
    uint64_t key;
} seat;

static int by_class_and_key(const void *a, const void *b) {
    const seat *x = a, *y = b;
    if (x->class != y->class) return x->class < y->class ? -1 : 1;
    return (x->key > y->key) - (x->key < y->key);
}

static int by_place(const void *a, const void *b) {
    const seat *x = a, *y = b;
    if (x->place < y->place || x->place > y->place) return x->place < y->place ? -1 : 1;
    return (x->key > y->key) - (x->key < y->key);
}

lam_status lam_folds_share(const int64_t *label, int64_t classes, const int64_t *group, int64_t groups,
                           int64_t n, double share, uint64_t seed, bool *taken) {
    int64_t *sorted = NULL, *start = NULL, filled = 0;
    seat *seats = NULL;
    part *parts = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(sort_rows(label, classes, group, groups, n, &sorted, &start), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&seats, groups, sizeof *seats), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&parts, classes, sizeof *parts), done);
    for (int64_t g = 0; g < groups; g++) {
        if (start[g + 1] == start[g]) continue;
        int64_t used = parts_of(label, sorted + start[g], start[g + 1] - start[g], parts), most = 0;
        for (int64_t i = 1; i < used; i++)
            if (parts[i].count > parts[most].count) most = i;
        seats[filled++] = (seat){g, parts[most].label, 0, lam_mix64(seed ^ lam_mix64((uint64_t)g))};
    }
    qsort(seats, (size_t)filled, sizeof *seats, by_class_and_key);
    for (int64_t first = 0, end; first < filled; first = end) {
        for (end = first; end < filled && seats[end].class == seats[first].class;) end++;
        for (int64_t i = first; i < end; i++)
            seats[i].place = ((double)(i - first) + 0.5) / (double)(end - first);
    }
    qsort(seats, (size_t)filled, sizeof *seats, by_place);
    int64_t wanted = llround(share * (double)filled);
    if (wanted < 1) wanted = 1;
    memset(taken, 0, (size_t)n * sizeof *taken);
    for (int64_t s = 0; s < wanted && s < filled; s++)
        for (int64_t i = start[seats[s].group]; i < start[seats[s].group + 1]; i++) taken[sorted[i]] = true;
done:
    lam_free(sorted);
    lam_free(start);
    lam_free(seats);
    lam_free(parts);
    return status;
}

/* ---- a design ---- */

/* Label and group of the rows listed. */
static lam_status gather(const lam_design *design, const int64_t *rows, int64_t n, int64_t **label,
                         int64_t **group) {
    LAM_TRY(lam_alloc_array((void **)label, n, sizeof **label));
    LAM_TRY(lam_alloc_array((void **)group, n, sizeof **group));
    for (int64_t i = 0; i < n; i++) {
        (*label)[i] = design->label[rows[i]];
        (*group)[i] = design->group[rows[i]];
    }
    return LAM_OK;
}

static uint64_t seed_of(const lam_design *design, uint64_t purpose, int64_t f) {
    return lam_mix64(lam_mix64(design->seed + lam_mix64(purpose)) + (uint64_t)f);
}

lam_status lam_design_split(const lam_design *design, int64_t f, double share, int64_t *train,
                            int64_t *n_train, int64_t *test, int64_t *n_test) {
    *n_train = *n_test = 0;
    for (int64_t i = 0; i < design->n; i++) {
        if (design->used && !design->used[i]) continue;
        if (design->fold[i] == f)
            test[(*n_test)++] = i;
        else
            train[(*n_train)++] = i;
    }
    if (share >= 1) return LAM_OK;
    int64_t *label = NULL, *group = NULL, kept = 0;
    bool *taken = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(gather(design, train, *n_train, &label, &group), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&taken, *n_train, sizeof *taken), done);
    LAM_TRY_GOTO(lam_folds_share(label, design->classes, group, design->groups, *n_train, share,
                                 seed_of(design, SHARES, f), taken),
                 done);
    for (int64_t i = 0; i < *n_train; i++)
        if (taken[i]) train[kept++] = train[i];
    *n_train = kept;
    LAM_REQUIRE_GOTO(kept > 0, done, LAM_ERROR_INPUT,
                     "a share of %g leaves no row to train on: give a larger one", share);
done:
    lam_free(label);
    lam_free(group);
    lam_free(taken);
    return status;
}

lam_status lam_design_inner(const lam_design *design, int64_t f, const int64_t *train, int64_t n_train,
                            int64_t *inner, int64_t *folds) {
    int64_t *label = NULL, *group = NULL, groups = 0;
    bool *present = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&present, design->groups, sizeof *present), done);
    LAM_TRY_GOTO(gather(design, train, n_train, &label, &group), done);
    for (int64_t i = 0; i < n_train; i++) {
        groups += !present[group[i]];
        present[group[i]] = true;
    }
    LAM_REQUIRE_GOTO(
        groups >= 2, done, LAM_ERROR_INPUT,
        "fold %lld: %lld group to train on, so that no setting can be chosen in inner folds: give "
        "a single value",
        (long long)f, (long long)groups);
    *folds = groups < design->inner_folds ? groups : design->inner_folds;
    LAM_TRY_GOTO(lam_folds_stratified(label, design->classes, group, design->groups, n_train, *folds,
                                      seed_of(design, INNER, f), inner),
                 done);
done:
    lam_free(present);
    lam_free(label);
    lam_free(group);
    return status;
}
