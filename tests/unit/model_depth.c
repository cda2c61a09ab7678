/* Stochastic depth: who drops a branch, and what the operations that skip compute. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <omp.h>

#include "base/memory.h"
#include "base/rng.h"
#include "base/threads.h"
#include "model/ops.h"
#include "tests/unit/device.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* ---- who drops ---- */

enum { PLANNED_BRANCHES = 6, SAMPLES = 64, STEPS = 100, PATTERNS = 1 << PLANNED_BRANCHES };

typedef struct planner {
    lam_parameters *p;
    lam_graph *g;
    lam_tensor *step, *ids, *drop_scale;
    lam_depth depth[PLANNED_BRANCHES];
} planner;

static planner make_planner(int64_t batch, double rate, uint64_t seed) {
    planner n = {0};
    ok(lam_parameters_create(&n.p));
    ok(lam_graph_create(&n.g, n.p, test_backend()));
    n.step = lam_input(n.g, "step", LAM_I64, 1, (int64_t[]){1});
    n.ids = lam_input(n.g, "ids", LAM_I64, 1, &batch);
    n.drop_scale = lam_input(n.g, "drop_scale", LAM_F32, 1, (int64_t[]){1});
    for (int k = 0; k < PLANNED_BRANCHES; k++) {
        n.depth[k] = lam_depth_plan(n.g, n.step, n.ids, n.drop_scale, k, rate, seed);
        lam_keep(n.g, n.depth[k].place, "place");
        lam_keep(n.g, n.depth[k].count, "count");
        lam_keep(n.g, n.depth[k].scale, "scale");
    }
    ok(lam_graph_plan(n.g));
    *(float *)lam_tensor_data(n.drop_scale) = 1;
    return n;
}

static void free_planner(planner *n) {
    lam_graph_free(n->g);
    lam_parameters_free(n->p);
}

static void plan(planner *n, int64_t step, const int64_t *ids) {
    *(int64_t *)lam_tensor_data(n->step) = step;
    memcpy(lam_tensor_data(n->ids), ids, (size_t)lam_tensor_count(n->ids) * sizeof *ids);
    ok(lam_graph_forward(n->g));
}

static const int32_t *places(const planner *n, int branch) { return lam_tensor_data(n->depth[branch].place); }

/* P(chi-square of `freedom` >= x): the upper incomplete gamma function, by its series below and its continued fraction
 * above (Press et al., Numerical recipes, section 6.2). */
static double chi_square_tail(double x, int freedom) {
    double a = 0.5 * freedom, z = 0.5 * x, front = exp(-z + a * log(z) - lgamma(a));
    if (z < a + 1) {
        double term = 1 / a, sum = term;
        for (int n = 1; n < 1000; n++) sum += term *= z / (a + n);
        return 1 - sum * front;
    }
    double b = z + 1 - a, c = 1e300, d = 1 / b, h = d;
    for (int n = 1; n < 1000; n++) {
        double an = -n * (n - a);
        b += 2;
        d = 1 / (an * d + b);
        c = b + an / c;
        h *= d * c;
    }
    return front * h;
}

static void chance(const char *what, const double *seen, const double *expected, int cells) {
    double sum = 0;
    for (int i = 0; i < cells; i++) sum += (seen[i] - expected[i]) * (seen[i] - expected[i]) / expected[i];
    double p = chi_square_tail(sum, cells - 1);
    if (!(p >= 0.001 && p <= 0.999)) fail_msg("%s: chi-square %g of %d cells, p = %g", what, sum, cells, p);
}

/* Pairs of draws against independence at the known rate: cells (kept, kept), (dropped, kept), ... */
static void pairs_by_chance(const char *what, const unsigned char (*drops)[SAMPLES][PLANNED_BRANCHES],
                            double rate, int steps_on, int samples_on, int branch_a, int branch_b) {
    double seen[4] = {0}, expected[4], total = 0;
    for (int t = 0; t + steps_on < STEPS; t++)
        for (int s = 0; s + samples_on < SAMPLES; s++, total++)
            seen[drops[t][s][branch_a] + 2 * drops[t + steps_on][s + samples_on][branch_b]]++;
    for (int k = 0; k < 4; k++) expected[k] = total * (k & 1 ? rate : 1 - rate) * (k & 2 ? rate : 1 - rate);
    chance(what, seen, expected, 4);
}

static void drops_by_chance(void **state) {
    (void)state;
    /* Known values: P(chi2_1 > 3.841) and P(chi2_63 > 103.4). */
    assert_true(fabs(chi_square_tail(3.841459, 1) - 0.05) < 1e-6);
    assert_true(fabs(chi_square_tail(103.4424, 63) - 0.001) < 1e-5);
    const double rate = 0.3;
    static unsigned char drops[STEPS][SAMPLES][PLANNED_BRANCHES];
    planner n = make_planner(SAMPLES, rate, 21);
    int64_t ids[SAMPLES];
    double patterns[PATTERNS] = {0}, expected[PATTERNS], biased = 0;
    for (int s = 0; s < SAMPLES; s++) ids[s] = 1000 + s;
    for (int t = 0; t < STEPS; t++) {
        plan(&n, t, ids);
        for (int s = 0; s < SAMPLES; s++) {
            int pattern = 0;
            for (int k = 0; k < PLANNED_BRANCHES; k++) {
                drops[t][s][k] = places(&n, k)[s] < 0;
                pattern |= drops[t][s][k] << k;
            }
            patterns[pattern]++;
        }
    }
    for (int i = 0; i < PATTERNS; i++) {
        expected[i] = STEPS * SAMPLES;
        double other = STEPS * SAMPLES;
        for (int k = 0; k < PLANNED_BRANCHES; k++) {
            expected[i] *= i >> k & 1 ? rate : 1 - rate;
            other *= i >> k & 1 ? rate + 0.03 : 0.97 - rate;
        }
        biased += (patterns[i] - other) * (patterns[i] - other) / other;
    }
    chance("patterns of branches", patterns, expected, PATTERNS);
    assert_true(chi_square_tail(biased, PATTERNS - 1) < 0.001); /* 0.33 instead of 0.3 would be seen */
    for (int a = 0; a < PLANNED_BRANCHES; a++)
        for (int b = 0; b < a; b++) pairs_by_chance("two branches", drops, rate, 0, 0, a, b);
    for (int k = 0; k < PLANNED_BRANCHES; k++) {
        pairs_by_chance("neighbouring samples", drops, rate, 0, 1, k, k);
        pairs_by_chance("steps in a row", drops, rate, 1, 0, k, k);
        pairs_by_chance("the next sample in the next step", drops, rate, 1, 1, k, (k + 1) % PLANNED_BRANCHES);
    }
    free_planner(&n);
}

/* A sample's draw depends on (seed, step, its id, branch): not on its row, its batch, or how many ranks share it. */
static void draws_depend_on_the_sample(void **state) {
    (void)state;
    enum { BATCH = 8 };
    int64_t ids[BATCH] = {5, 1LL << 40, 9, 2, 700, 3, 0, 12}, turned[BATCH];
    for (int i = 0; i < BATCH; i++) turned[i] = ids[BATCH - 1 - i];
    planner whole = make_planner(BATCH, 0.5, 4), half = make_planner(BATCH / 2, 0.5, 4),
            other = make_planner(BATCH, 0.5, 5);
    int seed_matters = 0, step_matters = 0;
    for (int64_t step = 0; step < 20; step++) {
        int32_t first[PLANNED_BRANCHES][BATCH];
        plan(&whole, step, ids);
        plan(&other, step, ids);
        for (int k = 0; k < PLANNED_BRANCHES; k++) {
            memcpy(first[k], places(&whole, k), sizeof first[k]);
            int32_t kept = 0;
            for (int i = 0; i < BATCH; i++) {
                if (first[k][i] >= 0) assert_int_equal(first[k][i], kept++);
                seed_matters += (first[k][i] < 0) != (places(&other, k)[i] < 0);
            }
            assert_int_equal(*(int64_t *)lam_tensor_data(whole.depth[k].count), kept);
            assert_true(*(float *)lam_tensor_data(whole.depth[k].scale) == 2);
        }
        plan(&whole, step, turned);
        for (int k = 0; k < PLANNED_BRANCHES; k++)
            for (int i = 0; i < BATCH; i++)
                assert_int_equal(first[k][i] < 0, places(&whole, k)[BATCH - 1 - i] < 0);
        for (int rank = 0; rank < 2; rank++) {
            plan(&half, step, ids + rank * BATCH / 2);
            for (int k = 0; k < PLANNED_BRANCHES; k++)
                for (int i = 0; i < BATCH / 2; i++)
                    assert_int_equal(first[k][rank * BATCH / 2 + i] < 0, places(&half, k)[i] < 0);
        }
        plan(&whole, step + 1, ids);
        for (int k = 0; k < PLANNED_BRANCHES; k++)
            for (int i = 0; i < BATCH; i++) step_matters += (first[k][i] < 0) != (places(&whole, k)[i] < 0);
    }
    assert_true(seed_matters > 100 && step_matters > 100);
    *(float *)lam_tensor_data(whole.drop_scale) = 0;
    plan(&whole, 3, ids);
    for (int k = 0; k < PLANNED_BRANCHES; k++) {
        for (int i = 0; i < BATCH; i++) assert_int_equal(places(&whole, k)[i], i);
        assert_int_equal(*(int64_t *)lam_tensor_data(whole.depth[k].count), BATCH);
        assert_true(*(float *)lam_tensor_data(whole.depth[k].scale) == 1);
    }
    free_planner(&whole);
    free_planner(&half);
    free_planner(&other);
}

/* ---- depth_layernorm against its formula in float64 ---- */

enum { B = 3, N = 47, D = 19, ROWS = B * N, ARGUMENTS = 10, DIFFERENCES = 3 };
static const char *const names[ARGUMENTS] = {"x", "xx", "r", "rr", "w1", "b1", "w", "b", "w2", "b2"};
static const int64_t shapes[ARGUMENTS][3] = {{B, N, D}, {B, N, D}, {B, N, D}, {B, N, D}, {D},
                                             {D},       {D, D},    {D},       {D},       {D}};
static const int ranks[ARGUMENTS] = {3, 3, 3, 3, 1, 1, 2, 1, 1, 1};

/* h = depth_layernorm of x + xx and r + rr (samples `first`), for the samples `second`; r' = h w^T + b; the result is
 * layernorm(s') + s' of s' = sum + r'. */
typedef struct chain {
    lam_parameters *p;
    lam_graph *g;
    lam_depth first, second;
    lam_tensor *result, *loss, *target;
} chain;

static lam_depth depth_input(lam_graph *g) {
    return (lam_depth){lam_input(g, "place", LAM_I32, 1, (int64_t[]){B}),
                       lam_input(g, "count", LAM_I64, 1, (int64_t[]){1}),
                       lam_input(g, "scale", LAM_F32, 1, (int64_t[]){1})};
}

static float target_of(int i) { return (float)(i * 7919 % 1009) / 500 - 1; }

static chain make_chain(bool with_linear) {
    chain n = {0};
    lam_tensor *a[ARGUMENTS], *sum, *sample_loss;
    ok(lam_parameters_create(&n.p));
    for (int k = 0; k < ARGUMENTS; k++)
        ok(lam_parameters_add(n.p, names[k], ranks[k], shapes[k], LAM_INIT_NORMAL, 0.7, true));
    ok(lam_parameters_layout(n.p, 6));
    ok(lam_graph_create(&n.g, n.p, test_backend()));
    n.first = depth_input(n.g);
    n.second = depth_input(n.g);
    for (int k = 0; k < ARGUMENTS; k++) a[k] = lam_parameter(n.g, names[k]);
    lam_graph_bound_rows(n.g, a[2], n.first.count);
    lam_tensor *h = lam_depth_layernorm(n.g, lam_add(n.g, a[0], a[1]), lam_add(n.g, a[2], a[3]), n.first,
                                        n.second, a[4], a[5], 1e-6, &sum);
    if (with_linear) h = lam_linear(n.g, h, a[6], a[7]);
    h = lam_depth_layernorm(n.g, sum, h, n.second, (lam_depth){0}, a[8], a[9], 1e-6, &sum);
    n.result = lam_keep(n.g, lam_add(n.g, h, sum), "result");
    n.target = lam_input(n.g, "target", LAM_F32, 3, shapes[0]);
    lam_tensor *mask = lam_input(n.g, "mask", LAM_F32, 2, shapes[0]),
               *weight = lam_input(n.g, "weight", LAM_F32, 1, shapes[0]);
    n.loss = lam_masked_loss(n.g, n.result, n.target, mask, weight, false, &sample_loss);
    ok(lam_graph_differentiate(n.g, n.loss));
    ok(lam_graph_plan(n.g));
    for (int i = 0; i < ROWS; i++) ((float *)lam_tensor_data(mask))[i] = 1;
    for (int i = 0; i < B; i++) ((float *)lam_tensor_data(weight))[i] = 0.25f + 0.5f * (float)i;
    for (int i = 0; i < ROWS * D; i++) ((float *)lam_tensor_data(n.target))[i] = target_of(i);
    return n;
}

static void free_chain(chain *n) {
    lam_graph_free(n->g);
    lam_parameters_free(n->p);
}

static void set_depth(const lam_depth *depth, unsigned kept, float scale) {
    int32_t *place = lam_tensor_data(depth->place), next = 0;
    for (unsigned b = 0; b < B; b++) place[b] = kept >> b & 1 ? next++ : -1;
    *(int64_t *)lam_tensor_data(depth->count) = next;
    *(float *)lam_tensor_data(depth->scale) = scale;
}

static void step(chain *n, unsigned first, unsigned second) {
    set_depth(&n->first, first, 1.25f);
    set_depth(&n->second, second, 2.5f);
    lam_parameters_zero_gradients(n->p);
    ok(lam_graph_forward(n->g));
    ok(lam_graph_backward(n->g));
}

static void normalise(const double *x, const double *w, const double *b, double *y) {
    double mean = 0, variance = 0;
    for (int i = 0; i < D; i++) mean += x[i] / D;
    for (int i = 0; i < D; i++) variance += (x[i] - mean) * (x[i] - mean) / D;
    for (int i = 0; i < D; i++) y[i] = (x[i] - mean) / sqrt(variance + 1e-6) * w[i] + b[i];
}

/* Row by row: every sample computes its branch, those who dropped it do not add it. */
static double formula(double *const *a, unsigned first, unsigned second, double *result) {
    double loss = 0;
    int place = 0;
    for (int b = 0; b < B; b++) {
        bool has_r = first >> b & 1, has_h = second >> b & 1;
        for (int n = 0; n < N; n++) {
            const int at = (b * N + n) * D, r_at = (place * N + n) * D;
            double sum[D], h[D], y[D], error = 0;
            for (int i = 0; i < D; i++)
                sum[i] = a[0][at + i] + a[1][at + i] + (has_r ? 1.25 * (a[2][r_at + i] + a[3][r_at + i]) : 0);
            normalise(sum, a[4], a[5], h);
            for (int o = 0; o < D && has_h; o++) {
                double branch = a[7][o];
                for (int i = 0; i < D; i++) branch += h[i] * a[6][o * D + i];
                sum[o] += 2.5 * branch;
            }
            normalise(sum, a[8], a[9], y);
            for (int i = 0; i < D; i++) {
                double e = (result[at + i] = y[i] + sum[i]) - (double)target_of(at + i);
                error += e * e / D;
            }
            loss += (0.25 + 0.5 * b) * error / N;
        }
        place += has_r;
    }
    return loss;
}

static void check_chain(chain *n, double **a, unsigned first, unsigned second, double *result) {
    step(n, first, second);
    double expected = formula(a, first, second, result), off = 0, norm = 0;
    const float *got = lam_tensor_data(n->result);
    for (int i = 0; i < ROWS * D; i++) {
        off += pow((double)got[i] - result[i], 2);
        norm += result[i] * result[i];
    }
    if (!(sqrt(off / norm) < 1e-6)) fail_msg("%u, %u: result is off by %g", first, second, sqrt(off / norm));
    double loss = (double)*(float *)lam_tensor_data(n->loss);
    if (!(fabs(loss - expected) < 1e-6 * expected)) fail_msg("%u, %u: loss %g", first, second, loss);
    for (int k = 0; k < ARGUMENTS; k++) {
        const lam_parameter_entry *e = lam_parameters_find(n->p, names[k]);
        double error = 0, size = 0;
        for (int s = 0; s < DIFFERENCES; s++) {
            int64_t i = s * (e->count - 1) / (DIFFERENCES - 1);
            double old = a[k][i], h = 1e-4;
            a[k][i] = old + h;
            double numeric = formula(a, first, second, result);
            a[k][i] = old - h;
            numeric = (numeric - formula(a, first, second, result)) / (2 * h);
            a[k][i] = old;
            error += pow((double)n->p->gradients[e->offset + i] - numeric, 2);
            size += numeric * numeric;
        }
        if (!(sqrt(error) < 1e-5 * sqrt(size) + 1e-8))
            fail_msg("%u, %u: gradient of %s is off by %g of %g", first, second, names[k], sqrt(error),
                     sqrt(size));
    }
}

/* Every choice of samples of two branches, none and all among them; what is not written holds NaN. */
static void layernorm_of_kept_samples(void **state) {
    const char *isa = *state;
    setenv("LAMELLA_ISA", isa, 1);
    if (lam_isa_select() != LAM_OK) {
        unsetenv("LAMELLA_ISA");
        skip();
    }
    setenv("LAMELLA_POISON", "1", 1);
    chain n = make_chain(true);
    unsetenv("LAMELLA_POISON");
    double *a[ARGUMENTS], *result = malloc(ROWS * D * sizeof *result);
    for (int k = 0; k < ARGUMENTS; k++) {
        const lam_parameter_entry *e = lam_parameters_find(n.p, names[k]);
        a[k] = malloc((size_t)e->count * sizeof(double));
        for (int64_t i = 0; i < e->count; i++) a[k][i] = (double)n.p->weights[e->offset + i];
    }
    for (unsigned first = 0; first < 1u << B; first++)
        for (unsigned second = 0; second < 1u << B; second++) check_chain(&n, a, first, second, result);
    for (int k = 0; k < ARGUMENTS; k++) free(a[k]);
    free(result);
    free_chain(&n);
    unsetenv("LAMELLA_ISA");
    ok(lam_isa_select());
}

static void same_bits_for_any_threads(void **state) {
    (void)state;
    lam_threads_set(2);
    chain n = make_chain(false);
    float *results = malloc(ROWS * D * sizeof *results),
          *gradients = malloc((size_t)n.p->trainable * sizeof *gradients);
    for (unsigned kept = 0; kept < 1u << B; kept++) {
        omp_set_num_threads(2);
        step(&n, kept, kept ^ 5u);
        memcpy(results, lam_tensor_data(n.result), ROWS * D * sizeof *results);
        memcpy(gradients, n.p->gradients, (size_t)n.p->trainable * sizeof *gradients);
        omp_set_num_threads(1);
        step(&n, kept, kept ^ 5u);
        assert_memory_equal(results, lam_tensor_data(n.result), ROWS * D * sizeof *results);
        assert_memory_equal(gradients, n.p->gradients, (size_t)n.p->trainable * sizeof *gradients);
    }
    free(results);
    free(gradients);
    free_chain(&n);
    lam_threads_set(0);
}

static void gathered_samples(void **state) {
    (void)state;
    lam_parameters *p;
    lam_graph *g;
    ok(lam_parameters_create(&p));
    ok(lam_graph_create(&g, p, test_backend()));
    lam_depth depth = depth_input(g);
    lam_tensor *x = lam_input(g, "x", LAM_F32, 2, (int64_t[]){B, 2});
    assert_ptr_equal(lam_depth_gather(g, x, (lam_depth){0}), x);
    lam_tensor *y = lam_keep(g, lam_depth_gather(g, x, depth), "y");
    ok(lam_graph_plan(g));
    memcpy(lam_tensor_data(x), (float[]){1, 2, 3, 4, 5, 6}, 6 * sizeof(float));
    set_depth(&depth, 6, 1);
    ok(lam_graph_forward(g));
    assert_memory_equal(lam_tensor_data(y), ((float[]){3, 4, 5, 6}), 4 * sizeof(float));
    lam_graph_free(g);
    lam_parameters_free(p);
}

static void errors(void **state) {
    (void)state;
    lam_parameters *p;
    lam_graph *g;
    ok(lam_parameters_create(&p));
    ok(lam_graph_create(&g, p, test_backend()));
    lam_depth depth = depth_input(g);
    lam_tensor *sum, *x = lam_input(g, "x", LAM_F32, 3, (int64_t[]){B, N, D}),
                     *w = lam_input(g, "w", LAM_F32, 1, (int64_t[]){D});
    /* r is said to hold some samples, and has rows of all. */
    assert_null(lam_depth_layernorm(g, x, x, depth, depth, w, w, 1e-6, &sum));
    assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "depth_layernorm"));
    lam_graph_free(g);
    lam_parameters_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drops_by_chance),
        cmocka_unit_test(draws_depend_on_the_sample),
        {"layernorm of kept samples on baseline", layernorm_of_kept_samples, NULL, NULL,
         (void *)(uintptr_t) "baseline"},
        {"layernorm of kept samples on avx2", layernorm_of_kept_samples, NULL, NULL,
         (void *)(uintptr_t) "avx2"},
        {"layernorm of kept samples on avx512", layernorm_of_kept_samples, NULL, NULL,
         (void *)(uintptr_t) "avx512"},
        cmocka_unit_test(same_bits_for_any_threads),
        cmocka_unit_test(gathered_samples),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
