/* What the tests of operations share: an operation against its formula in float64, its gradients against central differences of
 * that formula, at sizes that divide no vector and no block, on every instruction set of this CPU, for activations in float32
 * and in bfloat16. The bound in bfloat16 is 2.5 times the error of rounding the exact result, for every time that the value is
 * stored on its way.
 *
 * The file of a family has a table `static const op_case cases[]` and runs OP_TESTS. Include after cmocka.h. */
#ifndef LAMELLA_TESTS_OP_CHECK_H
#define LAMELLA_TESTS_OP_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/gemm.h"
#include "base/rng.h"
#include "model/graph.h"
#include "model/ops.h"
#include "tests/unit/activation.h"
#include "tests/unit/device.h"

#define MAX_ARGUMENTS 8
#define SAMPLES 60 /* elements of an argument that are differenced */
#define EPS 1e-6

typedef struct argument {
    const char *name;
    int64_t shape[3];
    double scale, shift; /* values: shift + scale * U(-1, 1) */
} argument;

typedef struct op_case {
    const char *name;
    argument arguments[MAX_ARGUMENTS];
    int count;
    int64_t result[3];
    lam_tensor *(*build)(lam_graph *g, lam_tensor **a, lam_tensor *ids);
    void (*oracle)(double **a, const int64_t *shape, double *y); /* shape: of argument 0 */
    int64_t id_shape[2];
    const int32_t *ids;
    bool norm_pix;
    int more_activations; /* arguments that are activations, beside the first */
    int more_stores;      /* of values on the way to the result, beside the result itself */
} op_case;

/* ---- the loss over the result: a random target, half of the rows masked, unequal weights ---- */

static inline float target_of(int64_t i) { return (float)sin(12.9898 * (double)(i + 1)); }
static inline float mask_of(int64_t row) { return row % 3 == 1 ? 0.0f : 1.0f; }
static inline float weight_of(int64_t b) { return 0.25f + 0.5f * (float)b; }

static inline double reference_loss(const op_case *c, double **a, double *y) {
    const int64_t *s = c->result;
    c->oracle(a, c->arguments[0].shape, y);
    double loss = 0;
    for (int64_t b = 0; b < s[0]; b++) {
        double sum = 0, count = 0;
        for (int64_t n = 0; n < s[1]; n++) {
            int64_t row = b * s[1] + n;
            if (mask_of(row) == 0) continue;
            count++;
            double mean = 0, squares = 0, rstd = 1, error = 0;
            if (c->norm_pix) {
                for (int64_t i = 0; i < s[2]; i++) mean += (double)target_of(row * s[2] + i) / (double)s[2];
                for (int64_t i = 0; i < s[2]; i++)
                    squares += pow((double)target_of(row * s[2] + i) - mean, 2);
                rstd = 1 / sqrt(squares / (double)(s[2] - 1) + 1e-6);
            }
            for (int64_t i = 0; i < s[2]; i++)
                error += pow(y[row * s[2] + i] - ((double)target_of(row * s[2] + i) - mean) * rstd, 2);
            sum += error / (double)s[2];
        }
        loss += (double)weight_of(b) * sum / count;
    }
    return loss;
}

static inline int64_t argument_count(const argument *a) { return a->shape[0] * a->shape[1] * a->shape[2]; }

static inline double distance(const double *a, const double *b, int64_t count) {
    double d = 0, n = 0;
    for (int64_t i = 0; i < count; i++) {
        d += (a[i] - b[i]) * (a[i] - b[i]);
        n += b[i] * b[i];
    }
    return n > 0 ? sqrt(d / n) : sqrt(d);
}

/* A second step adds the same gradients to those that are there. */
static inline void check_accumulation(const op_case *c, lam_parameters *p, lam_graph *g) {
    float *once = malloc((size_t)p->trainable * sizeof *once), largest = 0;
    memcpy(once, p->gradients, (size_t)p->trainable * sizeof *once);
    assert_int_equal(lam_graph_forward(g), LAM_OK);
    assert_int_equal(lam_graph_backward(g), LAM_OK);
    for (int64_t i = 0; i < p->trainable; i++) largest = fmaxf(largest, fabsf(once[i]));
    for (int64_t i = 0; i < p->trainable; i++)
        if (!(fabsf(p->gradients[i] - 2 * once[i]) <= 1e-6f * largest))
            fail_msg("%s: gradients are not added up", c->name);
    free(once);
}

/* Error of storing these values in bfloat16 once. */
static inline double rounding(const double *values, int64_t count) {
    double off = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        double stored = (double)lam_bf16_to_float(lam_bf16_from_float((float)values[i]));
        off += (stored - values[i]) * (stored - values[i]);
        norm += values[i] * values[i];
    }
    return norm > 0 ? sqrt(off / norm) : 0;
}

static inline void check_case(const op_case *c, const char *isa, bool bf16) {
    if (!is_chosen_case(c->name)) return;
    lam_parameters *p;
    lam_graph *g;
    assert_int_equal(lam_parameters_create(&p), LAM_OK);
    for (int k = c->count - 1; k >= 0; k--)
        assert_int_equal(
            lam_parameters_add(p, c->arguments[k].name,
                               c->arguments[k].shape[2] == 1 ? (c->arguments[k].shape[1] == 1 ? 1 : 2) : 3,
                               c->arguments[k].shape,
                               strcmp(c->arguments[k].name, "position") ? LAM_INIT_ZERO : LAM_INIT_FROZEN, 0,
                               true),
            LAM_OK);
    assert_int_equal(lam_parameters_layout(p, 1), LAM_OK);
    double *values[MAX_ARGUMENTS];
    lam_rng stream = lam_rng_stream(5, LAM_RNG_TEST, 0);
    for (int k = 0; k < c->count; k++) {
        const argument *a = &c->arguments[k];
        float *w = p->weights + lam_parameters_find(p, a->name)->offset;
        values[k] = malloc((size_t)argument_count(a) * sizeof(double));
        for (int64_t i = 0; i < argument_count(a); i++) {
            w[i] = (float)(a->shift + a->scale * (2 * lam_rng_uniform(&stream) - 1));
            if (bf16) w[i] = lam_bf16_to_float(lam_bf16_from_float(w[i]));
            values[k][i] = (double)w[i];
        }
    }
    assert_int_equal(lam_graph_create(&g, p, test_backend()), LAM_OK);
    if (bf16) lam_graph_set_activation(g, LAM_BF16);
    lam_tensor *arguments[MAX_ARGUMENTS], *ids = c->ids ? lam_input(g, "ids", LAM_I32, 2, c->id_shape) : NULL;
    for (int k = 0; k < c->count; k++) arguments[k] = lam_parameter(g, c->arguments[k].name);
    for (int k = 0; k <= c->more_activations; k++) arguments[k] = cast(g, arguments[k]);
    lam_tensor *y = c->build(g, arguments, ids), *sample_loss;
    lam_keep(g, y, "y");
    lam_tensor *target = lam_input(g, "target", LAM_F32, 3, c->result),
               *mask = lam_input(g, "mask", LAM_F32, 2, c->result),
               *weight = lam_input(g, "weight", LAM_F32, 1, c->result);
    lam_tensor *loss = lam_masked_loss(g, y, target, mask, weight, c->norm_pix, &sample_loss);
    if (lam_graph_differentiate(g, loss) != LAM_OK) fail_msg("%s: %s", c->name, lam_last_error());
    if (lam_graph_plan(g) != LAM_OK) fail_msg("%s: %s", c->name, lam_last_error());
    int64_t count = c->result[0] * c->result[1] * c->result[2];
    assert_int_equal(lam_tensor_count(y), count);
    for (int64_t i = 0; i < count; i++) ((float *)lam_tensor_data(target))[i] = target_of(i);
    for (int64_t i = 0; i < c->result[0] * c->result[1]; i++)
        ((float *)lam_tensor_data(mask))[i] = mask_of(i);
    for (int64_t i = 0; i < c->result[0]; i++) ((float *)lam_tensor_data(weight))[i] = weight_of(i);
    if (ids) memcpy(lam_tensor_data(ids), c->ids, (size_t)lam_tensor_count(ids) * sizeof(int32_t));

    double *expected = malloc((size_t)count * sizeof(double)), *got = malloc((size_t)count * sizeof(double));
    assert_int_equal(lam_graph_forward(g), LAM_OK);
    float *read = malloc((size_t)count * sizeof *read);
    lam_tensor_read(y, read);
    for (int64_t i = 0; i < count; i++) got[i] = (double)read[i];
    free(read);
    double reference = reference_loss(c, values, expected), error = distance(got, expected, count);
    int stored = 1 + c->more_stores;
    double allowed = bf16 ? 2.5 * stored * rounding(expected, count) : 1e-6;
    if (!(error <= allowed))
        fail_msg("%s on %s: result is off by %g, bound %g", c->name, isa, error, allowed);
    double loss_error = fabs((double)*(float *)lam_tensor_data(loss) - reference) / reference;
    if (!(loss_error < fmax(allowed, 1e-6)))
        fail_msg("%s on %s: loss is off by %g", c->name, isa, loss_error);

    lam_parameters_zero_gradients(p);
    if (lam_graph_backward(g) != LAM_OK) fail_msg("%s: %s", c->name, lam_last_error());
    for (int k = 0; k < c->count; k++) {
        const lam_parameter_entry *entry = lam_parameters_find(p, c->arguments[k].name);
        if (entry->init == LAM_INIT_FROZEN) continue;
        double numeric[SAMPLES], analytic[SAMPLES], largest = 0;
        int64_t samples = entry->count < SAMPLES ? entry->count : SAMPLES;
        for (int64_t s = 0; s < samples; s++) {
            int64_t i = s * entry->count / samples;
            double old = values[k][i], step = 1e-4;
            values[k][i] = old + step;
            double above = reference_loss(c, values, expected);
            values[k][i] = old - step;
            numeric[s] = (above - reference_loss(c, values, expected)) / (2 * step);
            values[k][i] = old;
            analytic[s] = (double)p->gradients[entry->offset + i];
            largest = fmax(largest, fabs(numeric[s]));
        }
        const bool none = largest < 1e-9; /* the difference of two losses says no more */
        if (none) memset(numeric, 0, sizeof numeric);
        double off = distance(analytic, numeric, samples);
        allowed = none ? (bf16 ? 1e-3 : 1e-6) : bf16 ? 2.5 * (stored + 1) * rounding(numeric, samples) : 3e-6;
        if (!(off <= allowed))
            fail_msg("%s on %s: gradient of %s is off by %g, bound %g", c->name, isa, entry->name, off,
                     allowed);
    }
    check_accumulation(c, p, g);
    free(expected);
    free(got);
    for (int k = 0; k < c->count; k++) free(values[k]);
    lam_graph_free(g);
    lam_parameters_free(p);
}

/* The cases of a file on one instruction set. */
typedef struct op_run {
    const char *isa;
    const op_case *cases;
    size_t count;
} op_run;

static inline void select_isa(const char *isa) {
    if (on_cuda() && strcmp(isa, "baseline") != 0) skip(); /* once is enough */
    setenv("LAMELLA_ISA", isa, 1);
    lam_status status = lam_isa_select();
    unsetenv("LAMELLA_ISA");
    if (status != LAM_OK) skip();
    assert_string_equal(lam_isa_name(), isa);
}

static inline void test_f32(void **state) {
    const op_run *run = *state;
    select_isa(run->isa);
    for (size_t i = 0; i < run->count; i++) check_case(&run->cases[i], run->isa, false);
}

static inline void test_bf16(void **state) {
    const op_run *run = *state;
    select_isa(run->isa);
    for (size_t i = 0; i < run->count; i++) check_case(&run->cases[i], run->isa, true);
}

/* Products through the CPU's bfloat16 instructions where it has them, and through float32 everywhere. */
static inline void test_bf16_converted(void **state) {
    const op_run *run = *state;
    select_isa(run->isa);
    lam_gemm_bf16_route(LAM_GEMM_CONVERT);
    for (size_t i = 0; i < run->count; i++) check_case(&run->cases[i], run->isa, true);
    lam_gemm_bf16_route(LAM_GEMM_AUTO);
}

/* oneDNN heeds the first instruction set that it is told: the best one comes first. */
#define OP_RUN(name, test, isa)                                                                              \
    {                                                                                                        \
        name, test, NULL, NULL, &(op_run) { isa, cases, sizeof cases / sizeof *cases }                       \
    }
#define OP_RUNS(isa) OP_RUN("float32 on " isa, test_f32, isa), OP_RUN("bfloat16 on " isa, test_bf16, isa)
#define OP_TESTS                                                                                             \
    OP_RUNS("amx"), OP_RUN("bfloat16 converted", test_bf16_converted, "baseline"), OP_RUNS("avx512_bf16"),   \
        OP_RUNS("avx512"), OP_RUNS("avx2"), OP_RUNS("baseline")

#endif
