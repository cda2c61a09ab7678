/* Nearest neighbours against scikit-learn's KNeighborsClassifier(metric="cosine"), and against a plain sort where its order
 * of equal ones is not defined. */
#include "eval/knn.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/threads.h"

static uint32_t generator;
static double u(void) {
    generator = 1664525u * generator + 1013904223u;
    return (double)generator / 4294967296.0;
}

/* Three folds of thirty. The last: votes tie in eight rows, and there the summed distance decides (scikit-learn takes the
 * lowest class), with four neighbours in 25. */
static void scikit_learn(void **state) {
    (void)state;
    enum { N = 90, D = 5, K = 3 };
    static const struct {
        int64_t k;
        const char *predicted;
    } golden[] = {
        {1, "002202020211021010012111000012121212201020012012021022111001122221210020012220201121122112"},
        {4, "002202000211021010012111000012101210001221010002021012121001122221212022012222221121122112"},
        {15, "000102002222021022011110012012011222001011012011012012111011122021122022020222012121122122"},
    };
    double x[N * D];
    int64_t label[N], fold[N], predicted[N];
    generator = 99;
    for (int i = 0; i < N; i++) {
        label[i] = i % K, fold[i] = i / 30;
        for (int j = 0; j < D; j++) {
            double v = u() * 2 - 1;
            x[i * D + j] = v + (j == label[i] ? 0.6 : 0);
        }
    }
    lam_directions directions;
    assert_int_equal(lam_directions_make(&directions, x, N, D), LAM_OK);
    for (int g = 0; g < 3; g++) {
        assert_int_equal(lam_knn_classify(&directions, label, K, fold, 3, NULL, golden[g].k, predicted),
                         LAM_OK);
        for (int i = 0; i < N; i++) assert_int_equal(predicted[i], golden[g].predicted[i] - '0');
    }
    assert_int_equal(lam_knn_classify(&directions, label, K, fold, 3, NULL, 61, predicted), LAM_ERROR_INPUT);
    lam_directions_free(&directions);
}

typedef struct other {
    double cosine;
    int64_t row;
} other;

static int nearer(const void *a, const void *b) {
    const other *x = a, *y = b;
    if (x->cosine > y->cosine || x->cosine < y->cosine) return x->cosine > y->cosine ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* Rows over several tiles, many of them equal, a share of the training rows: as a sort of all float64 cosines says. */
static void ties_and_tiles(void **state) {
    (void)state;
    enum { N = 1100, D = 3, K = 4, FOLDS = 3, NEAREST = 9 };
    static double x[N * D];
    static int64_t label[N], fold[N], predicted[N], again[N];
    static bool taken[FOLDS * N];
    static other list[N];
    lam_directions directions;
    generator = 5;
    for (int i = 0; i < N; i++) {
        label[i] = (int64_t)(u() * K), fold[i] = (int64_t)(u() * FOLDS);
        for (int j = 0; j < D; j++) x[i * D + j] = floor(u() * 4) - 1.5; /* 64 different rows */
    }
    for (int i = 0; i < FOLDS * N; i++) taken[i] = u() < 0.4;
    assert_int_equal(lam_directions_make(&directions, x, N, D), LAM_OK);
    for (int t = 1; t <= 2; t++) {
        lam_threads_set(t);
        assert_int_equal(
            lam_knn_classify(&directions, label, K, fold, FOLDS, taken, NEAREST, t == 1 ? predicted : again),
            LAM_OK);
    }
    assert_memory_equal(predicted, again, sizeof again);
    for (int64_t i = 0; i < N; i++) {
        int64_t n = 0, votes[K] = {0}, best = 0;
        double distance[K] = {0};
        for (int64_t j = 0; j < N; j++)
            if (fold[j] != fold[i] && taken[fold[i] * N + j])
                list[n++] = (other){lam_directions_cosine(&directions, i, j), j};
        qsort(list, (size_t)n, sizeof *list, nearer);
        for (int k = 0; k < NEAREST; k++) {
            votes[label[list[k].row]]++;
            distance[label[list[k].row]] += 1 - list[k].cosine;
        }
        for (int64_t c = 1; c < K; c++)
            if (votes[c] > votes[best] || (votes[c] == votes[best] && distance[c] < distance[best])) best = c;
        assert_int_equal(predicted[i], best);
    }
    memset(taken, false, sizeof taken);
    assert_int_equal(lam_knn_classify(&directions, label, K, fold, FOLDS, taken, 1, predicted),
                     LAM_ERROR_INPUT);
    lam_directions_free(&directions);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(scikit_learn), cmocka_unit_test(ties_and_tiles)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
