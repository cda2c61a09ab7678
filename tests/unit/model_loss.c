/* The Fourier loss in its three forms and both layouts of tokens: against golden numbers of the published code on closed-form
 * input, against a direct DFT in float64, its gradients against central differences of that; mixed with the masked mean
 * square; in float32 and bfloat16; on every instruction set of this CPU. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/rng.h"
#include "model/graph.h"
#include "model/ops.h"
#include "tests/unit/activation.h"
#include "tests/unit/device.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static void on_every_isa(void (*test)(void)) {
    static const char *const names[] = {"baseline", "avx2", "avx512"};
    int ran = 0;
    for (int i = 0; i < 3; i++) {
        setenv("LAMELLA_ISA", names[i], 1);
        if (lam_isa_select() != LAM_OK) continue;
        test();
        ran++;
    }
    unsetenv("LAMELLA_ISA");
    ok(lam_isa_select());
    assert_true(ran >= 1);
}

/* A prediction that is a parameter as an activation, so that its gradient is written by one loss and added to by the other. */
typedef struct setting {
    int64_t batch, tokens, length;
    lam_fourier how;
    double alpha;
    bool fourier_first, bf16;
    lam_parameters *parameters;
    lam_graph *graph;
    lam_tensor *target, *mask, *weight, *loss, *squares, *fourier, *sample_loss, *sample_fourier;
    float *prediction, *gradient;
} setting;

static void open_setting(setting *s) {
    int64_t shape[] = {s->batch, s->tokens, s->length};
    ok(lam_parameters_create(&s->parameters));
    ok(lam_parameters_add(s->parameters, "prediction", 3, shape, LAM_INIT_ZERO, 0, false));
    ok(lam_parameters_layout(s->parameters, 1));
    ok(lam_graph_create(&s->graph, s->parameters, test_backend()));
    lam_graph *g = s->graph;
    if (s->bf16) lam_graph_set_activation(g, LAM_BF16);
    lam_tensor *x = cast(g, lam_parameter(g, "prediction")), *sample_squares;
    s->target = lam_input(g, "target", LAM_F32, 3, shape);
    s->mask = lam_input(g, "mask", LAM_F32, 2, shape);
    s->weight = lam_input(g, "weight", LAM_F32, 1, shape);
    if (s->fourier_first)
        s->fourier = lam_fourier_loss(g, x, s->target, s->mask, s->weight, &s->how, &s->sample_fourier);
    s->squares = lam_masked_loss(g, x, s->target, s->mask, s->weight, s->how.norm_pix, &sample_squares);
    if (!s->fourier_first)
        s->fourier = lam_fourier_loss(g, x, s->target, s->mask, s->weight, &s->how, &s->sample_fourier);
    s->loss = lam_mix(g, s->squares, 1 - s->alpha, s->fourier, s->alpha);
    s->sample_loss = lam_mix(g, sample_squares, 1 - s->alpha, s->sample_fourier, s->alpha);
    lam_keep(g, s->squares, "squares");
    lam_keep(g, s->fourier, "fourier");
    lam_keep(g, s->sample_loss, "sample_loss");
    lam_keep(g, s->sample_fourier, "sample_fourier");
    ok(lam_graph_differentiate(g, s->loss));
    ok(lam_graph_plan(g));
    const lam_parameter_entry *entry = lam_parameters_find(s->parameters, "prediction");
    s->prediction = s->parameters->weights + entry->offset;
    s->gradient = s->parameters->gradients + entry->offset;
}

static void close_setting(setting *s) {
    lam_graph_free(s->graph);
    lam_parameters_free(s->parameters);
}

static void run(setting *s) {
    lam_parameters_zero_gradients(s->parameters);
    ok(lam_graph_forward(s->graph));
    ok(lam_graph_backward(s->graph));
}

static double number(const lam_tensor *tensor) { return (double)*(const float *)lam_tensor_data(tensor); }
static void near(double value, double golden, double bound) {
    if (!(fabs(value - golden) <= bound * fabs(golden))) fail_msg("%.12g, not %.12g", value, golden);
}

/* ---- golden: two channels of 16 x 16 in patches of 4, tests/golden/mae_golden.json, mae_loss_ca_p4_c2 ---- */

static double lcg(uint32_t *state) {
    *state = 1664525u * *state + 1013904223u;
    return (double)*state / 4294967296.0 - 0.5;
}

/* [C, S, S] to [C*N, P*P] or [N, P*P*C]. */
static void cut(const double *image, float *tokens, bool by_channel) {
    for (int c = 0; c < 2; c++)
        for (int y = 0; y < 16; y++)
            for (int x = 0; x < 16; x++) {
                int n = y / 4 * 4 + x / 4, p = y % 4 * 4 + x % 4;
                tokens[by_channel ? (c * 16 + n) * 16 + p : (n * 16 + p) * 2 + c] =
                    (float)image[(c * 16 + y) * 16 + x];
            }
}

static setting golden_setting(lam_fourier_form form, bool by_channel, bool masked) {
    setting s = {.batch = 1,
                 .tokens = by_channel ? 32 : 16,
                 .length = by_channel ? 16 : 32,
                 .how = {form, false, false, 4, 2},
                 .alpha = 0.01};
    double images[2][512];
    uint32_t state = 11;
    for (int i = 0; i < 1024; i++) images[i / 512][i % 512] = lcg(&state);
    open_setting(&s);
    cut(images[0], s.prediction, by_channel);
    cut(images[1], lam_tensor_data(s.target), by_channel);
    for (int64_t t = 0; t < s.tokens; t++)
        ((float *)lam_tensor_data(s.mask))[t] = t % 4 || !masked ? 1.0f : 0.0f;
    *(float *)lam_tensor_data(s.weight) = 1;
    run(&s);
    return s;
}

static void golden_once(void) {
    const lam_fourier_form forms[] = {LAM_FOURIER_RECURSION, LAM_FOURIER_PATCH};
    for (int k = 0; k < 2;
         k++) { /* patch side = grid side: what the released code does is a transform of each patch */
        setting s = golden_setting(forms[k], true, true);
        near(number(s.squares), .18491957906151413, 2e-7);
        near(number(s.fourier), .6202438679540827, 1e-6);
        near(number(s.loss), .1892728219504398, 1e-6);
        near(number(s.sample_loss), .1892728219504398, 1e-6);
        close_setting(&s);
        s = golden_setting(forms[k], true, false);
        near(number(s.fourier), .6192150561930738, 1e-6);
        close_setting(&s);
    }
    for (int by_channel = 0; by_channel < 2; by_channel++) {
        setting s = golden_setting(LAM_FOURIER_IMAGE, by_channel, false);
        near(number(s.fourier), 2.3736778366944002, 1e-6);
        close_setting(&s);
        s = golden_setting(LAM_FOURIER_PATCH, by_channel, false);
        near(number(s.fourier), .6192150561930738, 1e-6);
        close_setting(&s);
    }
}
static void golden(void **state) { (void)state, on_every_isa(golden_once); }

/* ---- a direct DFT ---- */

/* Amplitudes of a size x size plane: each coefficient a sum over all pixels. */
static void amplitudes(const double *plane, int64_t size, double *to) {
    double cosine[64], sine[64];
    assert_true(size <= 64);
    for (int64_t k = 0; k < size; k++) {
        cosine[k] = cos(2 * acos(-1.0) * (double)k / (double)size);
        sine[k] = sin(2 * acos(-1.0) * (double)k / (double)size);
    }
    for (int64_t u = 0; u < size; u++)
        for (int64_t v = 0; v < size; v++) {
            double re = 0, im = 0;
            for (int64_t y = 0; y < size; y++)
                for (int64_t x = 0; x < size; x++) {
                    re += plane[y * size + x] * cosine[(u * y + v * x) % size];
                    im -= plane[y * size + x] * sine[(u * y + v * x) % size];
                }
            to[u * size + v] = sqrt(re * re + im * im);
        }
}

typedef struct oracle {
    const setting *s;
    int64_t grid;
    bool by_channel;
    const double *target, *mask; /* of one sample; the target is standardised already */
} oracle;

/* Where value i of the sample's tokens lies in the planes of the form. */
static int64_t plane_index(const oracle *o, int64_t i) {
    int64_t p = o->s->how.patch_size, c_count = o->s->how.channels, length = o->s->length, g = o->grid,
            token = i / length, inside = i % length, pixel = o->by_channel ? inside : inside / c_count;
    int64_t c = o->by_channel ? token / (g * g) : inside % c_count, n = token % (g * g);
    switch (o->s->how.form) {
    case LAM_FOURIER_IMAGE: return (c * g * p + n / g * p + pixel / p) * g * p + n % g * p + pixel % p;
    case LAM_FOURIER_PATCH:
        return (token * (o->by_channel ? 1 : c_count) + (o->by_channel ? 0 : c)) * p * p + pixel;
    default: return i;
    }
}

static double oracle_sample(const oracle *o, const double *prediction) {
    const setting *s = o->s;
    bool image = s->how.form == LAM_FOURIER_IMAGE;
    int64_t count = s->tokens * s->length, p = s->how.patch_size;
    int64_t size = image ? o->grid * p : s->how.form == LAM_FOURIER_PATCH ? p : o->grid;
    double *guess = calloc((size_t)count, sizeof(double)), *truth = calloc((size_t)count, sizeof(double)),
           *a = calloc((size_t)count, sizeof(double)), *t = calloc((size_t)count, sizeof(double)), sum = 0,
           masked = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = plane_index(o, i);
        truth[at] = o->target[i];
        guess[at] = image && o->mask[i / s->length] == 0 ? o->target[i] : prediction[i];
    }
    for (int64_t first = 0; first < count; first += size * size) {
        amplitudes(guess + first, size, a + first);
        amplitudes(truth + first, size, t + first);
    }
    for (int64_t n = 0; n < s->tokens; n++) masked += o->mask[n];
    for (int64_t i = 0; i < count; i++) {
        double e = s->how.squared ? pow(a[i] - t[i], 2) : fabs(a[i] - t[i]);
        sum += image ? e / (double)count : e * o->mask[i / s->length] / (double)s->length / masked;
    }
    free(guess);
    free(truth);
    free(a);
    free(t);
    return sum;
}

static double squares_sample(const oracle *o, const double *prediction) {
    double sum = 0, masked = 0;
    for (int64_t n = 0; n < o->s->tokens; n++) masked += o->mask[n];
    for (int64_t i = 0; i < o->s->tokens * o->s->length; i++)
        sum +=
            o->mask[i / o->s->length] * pow(prediction[i] - o->target[i], 2) / (double)o->s->length / masked;
    return sum;
}

static void standardise(double *token, int64_t length) {
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < length; i++) mean += token[i] / (double)length;
    for (int64_t i = 0; i < length; i++) squares += (token[i] - mean) * (token[i] - mean);
    for (int64_t i = 0; i < length; i++)
        token[i] = (token[i] - mean) / sqrt(squares / (double)(length - 1) + 1e-6);
}

static void check_as(lam_fourier how, int64_t grid, bool by_channel, bool fourier_first, bool bf16) {
    int64_t area = how.patch_size * how.patch_size, tokens = grid * grid * (by_channel ? how.channels : 1),
            length = area * (by_channel ? 1 : how.channels), count = tokens * length;
    setting s = {.batch = 3,
                 .tokens = tokens,
                 .length = length,
                 .how = how,
                 .alpha = 0.3,
                 .fourier_first = fourier_first,
                 .bf16 = bf16};
    open_setting(&s);
    lam_rng r = lam_rng_stream(3, LAM_RNG_TEST, (uint64_t)(100 * grid + how.patch_size));
    float *target = lam_tensor_data(s.target), *mask = lam_tensor_data(s.mask),
          *weight = lam_tensor_data(s.weight);
    for (int64_t i = 0; i < 3 * count; i++) {
        s.prediction[i] = (float)lam_rng_normal(&r);
        if (bf16) s.prediction[i] = lam_bf16_to_float(lam_bf16_from_float(s.prediction[i]));
        target[i] = (float)lam_rng_normal(&r);
    }
    for (int64_t i = 0; i < 3 * tokens; i++) mask[i] = i % 3 == 1 ? 0.0f : 1.0f;
    weight[0] = 0.7f, weight[1] = 0, weight[2] = 1.3f;
    s.prediction[count + 1] = NAN; /* in a row that holds no sample */
    run(&s);
    double expected = 0, *values = calloc((size_t)count, sizeof(double)),
           *wanted = calloc((size_t)count, sizeof(double)), *hidden = calloc((size_t)tokens, sizeof(double));
    for (int64_t b = 0; b < 3; b += 2) {
        for (int64_t i = 0; i < count; i++) {
            values[i] = (double)s.prediction[b * count + i];
            wanted[i] = (double)target[b * count + i];
        }
        for (int64_t t = 0; t < tokens; t++) {
            hidden[t] = (double)mask[b * tokens + t];
            if (how.norm_pix) standardise(wanted + t * length, length);
        }
        oracle o = {&s, grid, by_channel, wanted, hidden};
        double sample = oracle_sample(&o, values), error = 0, norm = 0;
        near((double)((float *)lam_tensor_data(s.sample_fourier))[b], sample, 1e-6);
        expected += (double)weight[b] * (0.7 * squares_sample(&o, values) + 0.3 * sample);
        for (int64_t k = 0; k < 40; k++) {
            int64_t i = k * count / 40;
            const double step = 1e-6;
            double old = values[i], change[2];
            for (int side = 0; side < 2; side++) {
                values[i] = old + (side ? step : -step);
                change[side] = 0.7 * squares_sample(&o, values) + 0.3 * oracle_sample(&o, values);
            }
            values[i] = old;
            double numeric = (double)weight[b] * (change[1] - change[0]) / (2 * step),
                   analytic = (double)s.gradient[b * count + i];
            error += (numeric - analytic) * (numeric - analytic);
            norm += numeric * numeric;
        }
        /* In bfloat16 the gradient is stored twice, each time off by 2^-9 at most. */
        if (!(sqrt(error / norm) < (bf16 ? 2 * 0.002 : 3e-6)))
            fail_msg("form %d, by channel %d, squared %d: gradient is off by %g", how.form, by_channel,
                     how.squared, sqrt(error / norm));
    }
    near(number(s.loss), expected, 1e-6);
    for (int64_t i = count; i < 2 * count; i++) assert_true(s.gradient[i] == 0.0f);
    free(values);
    free(wanted);
    free(hidden);
    close_setting(&s);
}

static void check(lam_fourier how, int64_t grid, bool by_channel, bool fourier_first) {
    for (int bf16 = 0; bf16 < 2; bf16++) check_as(how, grid, by_channel, fourier_first, bf16);
}

static void oracle_once(void) {
    for (int form = LAM_FOURIER_IMAGE; form <= LAM_FOURIER_RECURSION; form++)
        for (int by_channel = 0; by_channel < 2; by_channel++)
            for (int squared = 0; squared < 2; squared++) {
                lam_fourier odd = {(lam_fourier_form)form, squared, false, 3, 2},
                            even = {(lam_fourier_form)form, squared, true, 4, 3};
                check(odd, 3, by_channel, squared);
                check(even, 2, by_channel, !squared);
            }
    check((lam_fourier){LAM_FOURIER_PATCH, false, false, 1, 5}, 3, false, false); /* patches of one pixel */
    check((lam_fourier){LAM_FOURIER_RECURSION, false, false, 2, 3}, 5, false, true);
}
static void against_oracle(void **state) { (void)state, on_every_isa(oracle_once); }

/* Amplitudes of 0 in prediction, target or both: no NaN, and the sub-gradient 0. */
static void zero_amplitudes(void **state) {
    (void)state;
    for (int squared = 0; squared < 2; squared++) {
        setting s = {.batch = 1,
                     .tokens = 4,
                     .length = 4,
                     .how = {LAM_FOURIER_PATCH, squared, false, 2, 1},
                     .alpha = 0.5};
        open_setting(&s);
        for (int i = 0; i < 4; i++) ((float *)lam_tensor_data(s.mask))[i] = 1;
        *(float *)lam_tensor_data(s.weight) = 1;
        for (int i = 0; i < 8; i++)
            s.prediction[4 + i] = i < 4 ? 0 : 1; /* zeros; then ones: all amplitudes but one are 0 */
        for (int i = 0; i < 4; i++) ((float *)lam_tensor_data(s.target))[4 + i] = 1;
        run(&s);
        assert_true(isfinite(number(s.loss)));
        for (int i = 0; i < 16; i++) assert_true(isfinite(s.gradient[i]));
        for (int i = 0; i < 4; i++) assert_true(s.gradient[i] == 0.0f);
        /* 0 where the target is 1: the mean square alone pulls. */
        for (int i = 4; i < 8; i++) near((double)s.gradient[i], -0.5 * 2 / 16, 1e-6);
        /* 1 where the target is 0: of the amplitude 4, (4 - 0) * 4 / 16 a pixel or its slope; and the mean square. */
        for (int i = 8; i < 12; i++)
            near((double)s.gradient[i], 0.5 * 2 / 16 + 0.5 * (squared ? 8.0 : 1.0) / 16, 1e-6);
        close_setting(&s);
    }
}

static void refusals(void **state) {
    (void)state;
    const struct {
        int64_t tokens, length, patch, channels;
    } bad[] = {{8, 12, 2, 3}, {9, 13, 2, 3}, {12, 4, 2, 5}, {18, 4, 3, 2}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        lam_parameters *p;
        lam_graph *g;
        int64_t shape[] = {1, bad[i].tokens, bad[i].length};
        ok(lam_parameters_create(&p));
        ok(lam_parameters_add(p, "x", 3, shape, LAM_INIT_ZERO, 0, false));
        ok(lam_parameters_layout(p, 1));
        ok(lam_graph_create(&g, p, test_backend()));
        lam_fourier how = {LAM_FOURIER_PATCH, false, false, bad[i].patch, bad[i].channels};
        lam_tensor *sample_loss;
        assert_null(lam_fourier_loss(g, lam_parameter(g, "x"), lam_input(g, "t", LAM_F32, 3, shape),
                                     lam_input(g, "m", LAM_F32, 2, shape),
                                     lam_input(g, "w", LAM_F32, 1, shape), &how, &sample_loss));
        assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
        assert_non_null(strstr(lam_last_error(), "fourier_loss"));
        lam_graph_free(g);
        lam_parameters_free(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden), cmocka_unit_test(against_oracle),
                                       cmocka_unit_test(zero_amplitudes), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
