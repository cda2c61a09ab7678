/* Muon: the polynomial on singular values, its steps against float64, which parameters it takes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/rng.h"
#include "model/graph.h"
#include "model/optimizers/rules.h"
#include "tests/unit/newton_schulz.h"

enum { STEPS = 10 };

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static void spectrum(void **state) {
    (void)state;
    static const int64_t shapes[4][2] = {{24, 64}, {64, 24}, {33, 41}, {SIDE, SIDE}};
    for (int k = 0; k < 4; k++) {
        int64_t rows = shapes[k][0], columns = shapes[k][1], n = rows * columns,
                side = rows < columns ? rows : columns;
        float *x, *workspace;
        double before[SIDE], after[SIDE], norm = 0;
        ok(lam_alloc_array((void **)&x, n, sizeof *x));
        ok(lam_alloc_array((void **)&workspace, lam_newton_schulz_workspace(rows, columns),
                           sizeof *workspace));
        lam_rng rng = lam_rng_stream(7, LAM_RNG_TEST, (uint64_t)k);
        for (int64_t i = 0; i < n; i++) x[i] = (float)(100 * lam_rng_normal(&rng));
        singular_values(x, rows, columns, before);
        for (int64_t i = 0; i < side; i++) norm += before[i] * before[i];
        ok(lam_newton_schulz(x, rows, columns, workspace));
        singular_values(x, rows, columns, after);
        int inside = 0;
        for (int64_t i = 0; i < side; i++) { /* by rising size: both lists lie in no order */
            double s = before[i] / sqrt(norm), nearest = 1e9;
            for (int step = 0; step < 5; step++) s = 3.4445 * s - 4.7750 * pow(s, 3) + 2.0315 * pow(s, 5);
            for (int64_t j = 0; j < side; j++) nearest = fmin(nearest, fabs(after[j] - s));
            if (nearest > 2e-4) fail_msg("%d: no singular value near %g, off by %g", k, s, nearest);
            if (before[i] > 0.0016 * sqrt(norm)) {
                inside++;
                if (!(s > 0.68 && s < 1.21)) fail_msg("%d: %g of %g lies outside", k, s, before[i]);
            }
            if (!(after[i] < 1.21 && (k == 3 || after[i] > 0.68)))
                fail_msg("%d: singular value %g", k, after[i]);
        }
        assert_true(inside >= side - 2);
        for (int64_t i = 0; i < n; i++) x[i] = 0;
        ok(lam_newton_schulz(x, rows, columns, workspace));
        for (int64_t i = 0; i < n; i++) assert_true(x[i] == 0);
        lam_free(x);
        lam_free(workspace);
    }
}

/* name, shape, the heights of its matrices (none: adamw), and the decay flag. */
static const struct {
    const char *name;
    int64_t rows, columns, parts[4];
    int count;
    bool decay;
} expected[] = {{"encoder.blocks.0.in_proj.weight", 77, 11, {44, 11, 11, 11}, 4, true},
                {"encoder.blocks.0.attn.qkv.weight", 33, 11, {11, 11, 11}, 3, true},
                {"encoder.blocks.0.mlp.weight", 5, 11, {5}, 1, false},
                {"decoder.decoder_pred.weight", 6, 5, {0}, 0, true},
                {"encoder.table", 7, 3, {0}, 0, true}};
enum { ENTRIES = sizeof expected / sizeof expected[0], N = 2048 };

static void oracle(int e, const lam_update *u, double *w, const float *gradients, double *m, double *v) {
    int64_t columns = expected[e].columns, n = expected[e].rows * columns;
    double direction[N], decay = expected[e].decay ? u->weight_decay : 0, t = (double)u->t;
    for (int64_t i = 0; i < n; i++) {
        double g = u->gradient_scale * (double)gradients[i], b = expected[e].count ? u->momentum : u->beta1;
        m[i] = b * m[i] + (1 - b) * g;
        v[i] = u->beta2 * v[i] + (1 - u->beta2) * g * g;
        direction[i] = expected[e].count
                           ? b * m[i] + (1 - b) * g
                           : (m[i] / (1 - pow(u->beta1, t))) / (sqrt(v[i] / (1 - pow(u->beta2, t))) + u->eps);
    }
    double *part = direction;
    for (int k = 0; k < expected[e].count; k++) {
        int64_t rows = expected[e].parts[k];
        orthogonalise(part, rows, columns);
        for (int64_t i = 0; i < rows * columns; i++)
            part[i] *= 0.2 * sqrt((double)(rows > columns ? rows : columns));
        part += rows * columns;
    }
    for (int64_t i = 0; i < n; i++) w[i] = (1 - u->lr * decay) * w[i] - u->lr * direction[i];
}

static void steps_once(void) {
    static double w[ENTRIES][N], m[ENTRIES][N], v[ENTRIES][N];
    memset(m, 0, sizeof m);
    memset(v, 0, sizeof v);
    lam_parameters *p;
    lam_optimizer_state state;
    ok(lam_parameters_create(&p));
    for (int e = 0; e < ENTRIES; e++)
        ok(lam_parameters_add(p, expected[e].name, 2, (int64_t[]){expected[e].rows, expected[e].columns},
                              LAM_INIT_NORMAL, 0.1, expected[e].decay));
    ok(lam_parameters_layout(p, 3));
    ok(lam_optimizer_open(&state, lam_optimizer_find("muon"), p));
    for (int e = 0; e < ENTRIES; e++)
        for (int64_t i = 0; i < p->entry[e].count; i++) w[e][i] = (double)p->weights[p->entry[e].offset + i];
    for (int64_t t = 1; t <= STEPS; t++) {
        lam_update u = {.lr = 1e-2,
                        .beta1 = 0.9,
                        .beta2 = 0.95,
                        .eps = 1e-8,
                        .weight_decay = 0.05,
                        .momentum = 0.95,
                        .gradient_scale = 0.25,
                        .t = t};
        lam_rng rng = lam_rng_stream(9, LAM_RNG_TEST, (uint64_t)t);
        for (int64_t i = 0; i < p->trainable; i++) p->gradients[i] = (float)lam_rng_normal(&rng);
        int64_t cut = p->entry[2].offset; /* a range may end between parameters */
        ok(lam_optimizer_step(&state, p, &u, 0, cut));
        ok(lam_optimizer_step(&state, p, &u, cut, p->trainable));
        for (int e = 0; e < ENTRIES; e++) {
            int64_t at = p->entry[e].offset;
            oracle(e, &u, w[e], p->gradients + at, m[e], v[e]);
            for (int64_t i = 0; i < p->entry[e].count; i++)
                if (!(fabs((double)p->weights[at + i] - w[e][i]) < 2e-6))
                    fail_msg("%s, step %lld, element %lld: %.9g, not %.9g", expected[e].name, (long long)t,
                             (long long)i, (double)p->weights[at + i], w[e][i]);
        }
    }
    for (int e = 0; e < ENTRIES; e++)
        assert_int_equal(state.optimizer->uses(&p->entry[e], 1), expected[e].count == 0);
    lam_optimizer_close(&state);
    lam_parameters_free(p);
}

static void steps(void **state) {
    (void)state;
    static const char *const names[] = {"baseline", "avx2", "avx512"};
    for (int i = 0; i < 3; i++) {
        setenv("LAMELLA_ISA", names[i], 1);
        if (lam_isa_select() == LAM_OK) steps_once();
    }
    unsetenv("LAMELLA_ISA");
    ok(lam_isa_select());
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(spectrum), cmocka_unit_test(steps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
