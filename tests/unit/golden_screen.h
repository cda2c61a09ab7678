/* The closed-form screen of efaar_golden.json (a linear congruential generator, seed 1): 40 genes of 5 groups, 3 batches of 30 controls
 * and 2 rows a gene. */
#ifndef LAMELLA_TESTS_GOLDEN_SCREEN_H
#define LAMELLA_TESTS_GOLDEN_SCREEN_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

enum {
    D = 8,
    GENES = 40,
    BATCHES = 3,
    CONTROLS = 30,
    REPLICATES = 2,
    ROWS = BATCHES * (CONTROLS + REPLICATES * GENES)
};

static inline void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static inline lam_json *read_json(const char *name) {
    char path[1024], *text;
    size_t size;
    lam_json *json;
    snprintf(path, sizeof path, "%s/%s", LAM_TEST_GOLDEN, name);
    ok(lam_file_read(path, &text, &size));
    ok(lam_json_parse(&json, text, size, name));
    lam_free(text);
    return json;
}

static uint32_t state;
static inline double u(void) {
    state = 1664525u * state + 1013904223u;
    return (double)state / 4294967296.0;
}
static inline double n(void) {
    double a = u(), b = u(), c = u(), d = u();
    return a + b + c + d - 2;
}

typedef struct screen {
    double x[ROWS * D];
    bool controls[ROWS];
    int64_t batch[ROWS], gene[ROWS]; /* gene -1: control */
} screen;

static inline void make_screen(screen *s, const lam_json *golden) {
    double group_effect[5][D], effect[GENES][D], shift[BATCHES][D], scale[BATCHES][D];
    state = 1;
    for (int g = 0; g < 5; g++)
        for (int j = 0; j < D; j++) group_effect[g][j] = n();
    for (int g = 0; g < GENES; g++) {
        int64_t group = lam_json_int(lam_json_at(lam_json_get(golden, "group_of_gene"), (size_t)g), -1);
        for (int j = 0; j < D; j++) effect[g][j] = group_effect[group][j] + 0.7 * n();
    }
    for (int b = 0; b < BATCHES; b++)
        for (int j = 0; j < D; j++) shift[b][j] = 0.5 * n();
    for (int b = 0; b < BATCHES; b++)
        for (int j = 0; j < D; j++) scale[b][j] = 1 + 0.5 * u();
    int64_t row = 0;
    for (int b = 0; b < BATCHES; b++)
        for (int k = 0; k < CONTROLS + REPLICATES * GENES; k++, row++) {
            int gene = k < CONTROLS ? -1 : (k - CONTROLS) / REPLICATES;
            s->controls[row] = gene < 0;
            s->batch[row] = b;
            s->gene[row] = gene;
            for (int j = 0; j < D; j++)
                s->x[row * D + j] = shift[b][j] + scale[b][j] * (n() + (gene < 0 ? 0 : effect[gene][j]));
        }
    double sum = 0;
    for (int64_t i = 0; i < ROWS * D; i++) sum += s->x[i];
    assert_true(fabs(sum - lam_json_float(lam_json_get(golden, "X_sum"), 0)) < 1e-9);
}

#endif
