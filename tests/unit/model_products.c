/* Products on the device (model/cuda/products.h): each epilogue, fused and not, against float64 at sizes that 16 bytes divide
 * and at others; plans as text. Nothing to do on the CPU. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bf16.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/cuda/products.h"
#include "model/ops.h"
#include "tests/unit/activation.h"
#include "tests/unit/device.h"

static const lam_backend *device;
static const lam_cuda_products *products;

static int open_device(void **state) {
    (void)state;
    if (!on_cuda()) return 0;
    device = test_backend();
    products =
        ((lam_cuda_products_function *)(uintptr_t)lam_backend_function(device, "lam_cuda_products_get"))();
    return 0;
}

/* ---- memory ---- */

/* A matrix of `rows` rows, `ld` apart, of which `columns` count; the others must not change. */
typedef struct matrix {
    lam_dtype type;
    int64_t rows, columns, ld;
    double *values;
    void *memory, *at; /* at: `off` bytes into it */
} matrix;

static size_t bytes_of(const matrix *x) { return (size_t)(x->rows * x->ld) * lam_dtype_bytes(x->type); }

static void send(matrix *x) {
    int64_t count = x->rows * x->ld;
    float *f = malloc((size_t)count * sizeof *f);
    uint16_t *b = malloc((size_t)count * sizeof *b);
    for (int64_t i = 0; i < count; i++) b[i] = lam_bf16_from_float(f[i] = (float)x->values[i]);
    assert_int_equal(device->write(x->at, x->type == LAM_BF16 ? (void *)b : f, bytes_of(x)), LAM_OK);
    free(f);
    free(b);
}

static void fetch(matrix *x) {
    int64_t count = x->rows * x->ld;
    float *f = malloc((size_t)count * sizeof *f);
    uint16_t *b = malloc((size_t)count * sizeof *b);
    assert_int_equal(device->read(x->type == LAM_BF16 ? (void *)b : f, x->at, bytes_of(x)), LAM_OK);
    for (int64_t i = 0; i < count; i++)
        x->values[i] = (double)(x->type == LAM_BF16 ? lam_bf16_to_float(b[i]) : f[i]);
    free(f);
    free(b);
}

static matrix make(lam_dtype type, int64_t rows, int64_t columns, int64_t ld, size_t off, uint64_t seed) {
    matrix x = {type, rows, columns, ld, malloc((size_t)(rows * ld) * sizeof(double)), NULL, NULL};
    lam_rng stream = lam_rng_stream(seed, LAM_RNG_TEST, 0);
    for (int64_t i = 0; i < rows * ld; i++) {
        float value = (float)(2 * lam_rng_uniform(&stream) - 1);
        x.values[i] = (double)(type == LAM_BF16 ? lam_bf16_to_float(lam_bf16_from_float(value)) : value);
    }
    assert_int_equal(device->allocate(&x.memory, bytes_of(&x) + off), LAM_OK);
    x.at = (char *)x.memory + off;
    send(&x);
    return x;
}

static void release(matrix *x) {
    device->release(x->memory);
    free(x->values);
}

static matrix copy_of(const matrix *x) {
    matrix copy = *x;
    copy.values = malloc((size_t)(x->rows * x->ld) * sizeof(double));
    memcpy(copy.values, x->values, (size_t)(x->rows * x->ld) * sizeof(double));
    return copy;
}

static double distance(const matrix *got, const matrix *wanted) {
    double off = 0, norm = 1e-30;
    for (int64_t i = 0; i < got->rows * got->ld; i++) {
        off += pow(got->values[i] - wanted->values[i], 2);
        norm += pow(wanted->values[i], 2);
    }
    return sqrt(off / norm);
}

/* ---- one product ---- */

typedef struct sizes {
    int64_t m, n, k, pad; /* pad: elements between the rows that count */
} sizes;
static const sizes aligned = {24, 40, 136, 8}, odd = {19, 37, 133, 1};

typedef struct operands {
    matrix a, b, c, h, bias, sums;
    lam_cuda_product p;
} operands;

static operands make_operands(lam_dtype type, lam_dtype result, bool turn_a, bool turn_b,
                              lam_cuda_epilogue epilogue, sizes s, size_t bias_off) {
    bool packed = epilogue == LAM_CUDA_GELU || epilogue == LAM_CUDA_GELU_SLOPE;
    int64_t a_columns = turn_a ? s.m : s.k, b_columns = turn_b ? s.k : s.n, ldc = s.n + (packed ? 0 : s.pad);
    operands o = {.a = make(type, turn_a ? s.k : s.m, a_columns, a_columns + s.pad, 0, 1),
                  .b = make(type, turn_b ? s.n : s.k, b_columns, b_columns + s.pad, 0, 2),
                  .c = make(result, s.m, s.n, ldc, 0, 3),
                  .h = make(result, s.m, s.n, ldc, 0, 4),
                  .bias = make(result, 1, s.n, s.n, bias_off, 5),
                  .sums = make(LAM_F32, 1, s.n, s.n, 0, 6),
                  .p = lam_cuda_product_of(type, result, s.m, s.n, s.k)};
    o.p.turn_a = turn_a, o.p.turn_b = turn_b, o.p.epilogue = epilogue;
    o.p.a = o.a.at, o.p.lda = o.a.ld, o.p.b = o.b.at, o.p.ldb = o.b.ld, o.p.c = o.c.at, o.p.ldc = ldc;
    o.p.bias = o.bias.at, o.p.h = o.h.at;
    /* Of three parts, of which the second is not wanted. */
    o.p.sums = (lam_cuda_sums){{o.sums.at, NULL, (float *)o.sums.at + 12}, {5, 7, s.n - 12}, {false}};
    return o;
}

static void release_operands(operands *o) {
    matrix *all[] = {&o->a, &o->b, &o->c, &o->h, &o->bias, &o->sums};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) release(all[i]);
}

static double gelu(double h, bool tanh_form) {
    return 0.5 * h *
           (1 + (tanh_form ? tanh(0.7978845608028654 * (h + 0.044715 * h * h * h)) : erf(h / sqrt(2.0))));
}

/* What c, h and the sums become. */
static void oracle(const operands *o, matrix *c, matrix *h, matrix *sums) {
    const lam_cuda_product *p = &o->p;
    bool tanh_form = p->result == LAM_BF16;
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double sum = 0, *to = &c->values[i * p->ldc + j];
            for (int64_t k = 0; k < p->k; k++)
                sum += o->a.values[p->turn_a ? k * p->lda + i : i * p->lda + k] *
                       o->b.values[p->turn_b ? j * p->ldb + k : k * p->ldb + j];
            if (p->epilogue == LAM_CUDA_BIAS || p->epilogue == LAM_CUDA_GELU) sum += o->bias.values[j];
            double *kept = &h->values[i * p->ldc + j], step = 1e-5;
            if (p->epilogue == LAM_CUDA_GELU) *kept = sum, sum = gelu(sum, tanh_form);
            if (p->epilogue == LAM_CUDA_GELU_SLOPE)
                sum *= (gelu(*kept + step, tanh_form) - gelu(*kept - step, tanh_form)) / (2 * step);
            *to = (double)p->scale * sum + (p->accumulate ? *to : 0) +
                  (p->addend ? (double)p->addend_scale * o->h.values[i * p->ldc + j] : 0);
        }
    for (int64_t j = 0; j < p->n && p->epilogue == LAM_CUDA_GELU_SLOPE; j++) {
        double sum = 0;
        for (int64_t i = 0; i < p->m; i++) sum += c->values[i * p->ldc + j];
        if (j < 5 || j >= 12) sums->values[j] = sum + (p->sums.add[j < 5 ? 0 : 2] ? sums->values[j] : 0);
    }
}

/* Whether it was fused. */
static bool check(operands *o) {
    matrix c = copy_of(&o->c), h = copy_of(&o->h), sums = copy_of(&o->sums);
    bool fused = products->is_fused(&o->p);
    oracle(o, &c, &h, &sums);
    if (products->multiply(&o->p) != LAM_OK) fail_msg("%s", lam_last_error());
    assert_int_equal(device->error(), LAM_OK);
    fetch(&o->c);
    fetch(&o->h);
    fetch(&o->sums);
    /* Each of two roundings of 2^-9; float32 sums of 136. */
    double bound = o->p.result == LAM_BF16 ? 4e-3 : 2e-6;
    const matrix *got[] = {&o->c, &o->h, &o->sums}, *wanted[] = {&c, &h, &sums};
    for (int i = 0; i < 3; i++) {
        double off = distance(got[i], wanted[i]);
        if (!(off <= bound))
            fail_msg("epilogue %d, %s: %s is off by %g", (int)o->p.epilogue, fused ? "fused" : "not fused",
                     (const char *[]){"c", "h", "the sum of columns"}[i], off);
        free(wanted[i]->values);
    }
    return fused;
}

/* `certain`: what is fused is known, on the emulator. */
static void check_all(bool never_fused, bool certain) {
    static const lam_dtype types[][2] = {{LAM_F32, LAM_F32}, {LAM_BF16, LAM_BF16}, {LAM_BF16, LAM_F32}};
    products->never_fuse(never_fused);
    for (int t = 0; t < 3; t++)
        for (int e = LAM_CUDA_PLAIN; e <= LAM_CUDA_GELU_SLOPE; e++)
            for (int turns = 0; turns < 4; turns++)
                for (int more = 0; more < 4; more++) /* 1: to what is there, 2: to an addend, 3: scaled */
                    for (int is_odd = 0; is_odd < 2; is_odd++) {
                        bool slope = e == LAM_CUDA_GELU_SLOPE, of_gelu = e == LAM_CUDA_GELU || slope;
                        if (more == 1   ? e != LAM_CUDA_PLAIN && !slope
                            : more == 2 ? of_gelu
                                        : more && e != LAM_CUDA_PLAIN)
                            continue;
                        operands o = make_operands(types[t][0], types[t][1], turns & 1, turns & 2,
                                                   (lam_cuda_epilogue)e, is_odd ? odd : aligned, 0);
                        o.p.accumulate = more == 1 && !slope;
                        if (more >= 2) o.p.addend = o.h.at;
                        if (more == 3) o.p.scale = 2.0315f, o.p.addend_scale = -4.775f;
                        o.p.sums.add[0] = o.p.sums.add[2] = more == 1;
                        bool fused = check(&o), may = !never_fused && !(of_gelu && types[t][1] == LAM_F32);
                        if (e == LAM_CUDA_PLAIN) assert_true(fused);
                        if (e != LAM_CUDA_PLAIN && !may) assert_false(fused);
                        if (certain && may && is_emulated(device))
                            assert_int_equal(fused, (!is_odd && !slope) || e <= LAM_CUDA_BIAS);
                        release_operands(&o);
                    }
    products->never_fuse(false);
}

static void test_epilogues(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    check_all(false, true);
}

static void test_epilogues_unfused(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    check_all(true, true);
}

/* Sums of columns in several parts and tiles, the last of either not whole. */
static void test_sums_of_many_rows(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const sizes many[] = {{301, 264, 16, 8}, {301, 133, 16, 1}};
    for (int i = 0; i < 4; i++) {
        lam_dtype type = i % 2 ? LAM_BF16 : LAM_F32;
        operands o = make_operands(type, type, false, false, LAM_CUDA_GELU_SLOPE, many[i / 2], 0);
        o.p.sums.add[2] = true;
        check(&o);
        release_operands(&o);
    }
}

/* Biases of a part of a parameter begin anywhere. */
static void test_bias_at_an_odd_address(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    for (int epilogue = LAM_CUDA_BIAS; epilogue <= LAM_CUDA_GELU; epilogue++) {
        operands o = make_operands(LAM_F32, LAM_F32, false, true, (lam_cuda_epilogue)epilogue, aligned, 4);
        check(&o);
        release_operands(&o);
    }
}

/* No rows: gradients of weights and biases are nothing, or what they were. */
static void test_nothing(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    for (int more = 0; more < 2; more++) {
        operands o = make_operands(LAM_BF16, LAM_F32, true, false, LAM_CUDA_PLAIN, (sizes){24, 40, 8, 0}, 0);
        o.p.k = 0;
        o.p.accumulate = more;
        check(&o);
        release_operands(&o);
        o = make_operands(LAM_BF16, LAM_BF16, false, false, LAM_CUDA_GELU_SLOPE, (sizes){1, 40, 8, 0}, 0);
        o.p.m = 0;
        o.p.sums.add[0] = o.p.sums.add[2] = more;
        check(&o);
        release_operands(&o);
    }
}

static void test_wrong_use(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    operands o = make_operands(LAM_BF16, LAM_BF16, false, true, LAM_CUDA_GELU, aligned, 0);
    o.p.accumulate = true;
    assert_int_equal(products->multiply(&o.p), LAM_ERROR_INTERNAL);
    o.p.accumulate = false;
    o.p.addend = o.h.at;
    assert_int_equal(products->multiply(&o.p), LAM_ERROR_INTERNAL);
    o.p.addend = NULL;
    o.p.ldc++;
    assert_int_equal(products->multiply(&o.p), LAM_ERROR_INTERNAL);
    o.p.ldc--;
    o.p.scale = 2;
    assert_int_equal(products->multiply(&o.p), LAM_ERROR_INTERNAL);
    o.p.scale = 1;
    o.p.addend_scale = 2;
    o.p.epilogue = LAM_CUDA_BIAS;
    assert_int_equal(products->multiply(&o.p), LAM_ERROR_INTERNAL);
    o.p.addend_scale = 1;
    o.p.epilogue = LAM_CUDA_PLAIN;
    o.p.lda = 3; /* rows that overlap */
    assert_int_equal(products->multiply(&o.p), LAM_ERROR_EXTERNAL);
    assert_non_null(strstr(lam_last_error(), "bfloat16 [24, 136] x [136, 40]"));
    release_operands(&o);
}

/* ---- plans ---- */

static char *written(int64_t wanted) {
    char *text = NULL;
    int64_t count = products->plans_write(&text);
    assert_int_equal(count, wanted);
    return text;
}

static void multiply_each(const operands *o, int count) {
    for (int i = 0; i < count; i++) assert_int_equal(products->multiply(&o[i].p), LAM_OK);
    assert_int_equal(device->synchronise(), LAM_OK);
}

/* One plan a shape; the choice of an autotuned run is that of the run that reads it. */
static void test_plans(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    operands o[] = {make_operands(LAM_BF16, LAM_BF16, false, true, LAM_CUDA_PLAIN, aligned, 0),
                    make_operands(LAM_BF16, LAM_F32, true, false, LAM_CUDA_PLAIN, aligned, 0),
                    make_operands(LAM_F32, LAM_F32, false, false, LAM_CUDA_PLAIN, odd, 0)};
    products->plans_release();
    free(written(0));
    multiply_each(o, 3);
    multiply_each(o, 3);
    free(written(3));

    products->plans_release();
    products->autotune(true);
    fetch(&o[1].c);
    o[1].p.accumulate = true;
    check(&o[1]); /* measuring adds nothing */
    multiply_each(o, 3);
    products->autotune(false);
    char *tuned = written(3);
    products->plans_release();
    assert_int_equal(products->plans_read(tuned), 3);
    multiply_each(o, 3);
    char *again = written(3);
    assert_string_equal(again, tuned);
    free(again);

    /* Of another device: not used, no error. */
    size_t name = strcspn(tuned, "\n") + 1, last = strlen(tuned) - 2;
    tuned[name]++;
    assert_int_equal(products->plans_read(tuned), 0);
    tuned[name]--;
    tuned[last] = 'x';
    assert_int_equal(products->plans_read(tuned), -1);
    assert_non_null(strstr(lam_last_error(), "cannot be read"));
    assert_int_equal(products->plans_read("{}"), -1);
    free(tuned);
    for (int i = 0; i < 3; i++) release_operands(&o[i]);
    products->plans_release();
}

/* An epilogue is measured against the way without. */
static void test_autotuned_epilogues(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    products->plans_release();
    products->autotune(true);
    check_all(false, false);
    products->autotune(false);
    products->plans_release();
}

/* ---- weights rounded at random ---- */

enum { IN = 13, OUT = 11 };

/* What a map makes of the identity without biases: the weights as its products see them, y [IN, 3 OUT]. A projection's have
 * gamma in them; else they are parts of one parameter, which begin anywhere. */
static void rounded_weights(const lam_backend *backend, bool projection, int64_t step, float *y) {
    static const int64_t square[] = {IN, IN}, wide[] = {3 * OUT, IN}, many[] = {3 * OUT};
    lam_parameters *p;
    lam_graph *g;
    assert_int_equal(lam_parameters_create(&p), LAM_OK);
    assert_int_equal(lam_parameters_add(p, "identity", 2, square, LAM_INIT_ZERO, 0, true), LAM_OK);
    assert_int_equal(lam_parameters_add(p, "zero", 2, square, LAM_INIT_ZERO, 0, true), LAM_OK);
    assert_int_equal(lam_parameters_add(p, "w", 2, wide, LAM_INIT_NORMAL, 1, true), LAM_OK);
    assert_int_equal(lam_parameters_add(p, "gamma", 1, many, LAM_INIT_NORMAL, 1, true), LAM_OK);
    assert_int_equal(lam_parameters_add(p, "b", 1, many, LAM_INIT_ZERO, 0, true), LAM_OK);
    assert_int_equal(lam_parameters_layout(p, 3), LAM_OK);
    for (int64_t i = 0; i < IN; i++)
        p->weights[lam_parameters_find(p, "identity")->offset + i * (IN + 1)] = 1;
    assert_int_equal(lam_graph_create(&g, p, backend), LAM_OK);
    lam_graph_set_activation(g, LAM_BF16);
    lam_graph_set_stochastic_rounding(g, 9);
    lam_tensor *x = cast(g, lam_parameter(g, "identity")), *w = lam_parameter(g, "w"),
               *b = lam_parameter(g, "b"), *part[6];
    for (int k = 0; k < 6; k++) part[k] = lam_parameter_rows(g, k % 2 ? "b" : "w", k / 2 * OUT, OUT);
    lam_tensor *made = projection
                           ? lam_parallel_projection(g, x, w, b, cast(g, lam_parameter(g, "zero")), w, b,
                                                     lam_parameter(g, "gamma"), NULL)
                           : lam_linear_qkv(g, x, part[0], part[1], part[2], part[3], part[4], part[5]);
    lam_keep(g, made, "y");
    if (lam_graph_plan(g) != LAM_OK) fail_msg("%s", lam_last_error());
    lam_graph_set_step(g, step);
    if (lam_graph_forward(g) != LAM_OK) fail_msg("%s", lam_last_error());
    lam_tensor_read(made, y);
    lam_graph_free(g);
    lam_parameters_free(p);
}

/* The same bits as on the CPU, others in another step. */
static void test_random_rounding(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    for (int projection = 0; projection < 2; projection++) {
        float here[3 * OUT * IN], there[3 * OUT * IN], later[3 * OUT * IN];
        rounded_weights(lam_backend_cpu(), projection, 5, here);
        rounded_weights(device, projection, 5, there);
        rounded_weights(device, projection, 6, later);
        for (int i = 0; i < 3 * OUT * IN; i++)
            if (here[i] != there[i])
                fail_msg("weight %d: %.9g, on the CPU %.9g", i, (double)there[i], (double)here[i]);
        assert_true(memcmp(there, later, sizeof there) != 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_epilogues),
                                       cmocka_unit_test(test_epilogues_unfused),
                                       cmocka_unit_test(test_sums_of_many_rows),
                                       cmocka_unit_test(test_bias_at_an_odd_address),
                                       cmocka_unit_test(test_nothing),
                                       cmocka_unit_test(test_wrong_use),
                                       cmocka_unit_test(test_plans),
                                       cmocka_unit_test(test_autotuned_epilogues),
                                       cmocka_unit_test(test_random_rounding)};
    return cmocka_run_group_tests(tests, open_device, NULL);
}
