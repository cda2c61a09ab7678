/* Muon's directions on a device, in float32 and in bfloat16, against float64: tall, wide, square and odd matrices, parts of a
 * parameter, zeros; the plans of its products. Runs where LAMELLA_TEST_DEVICE names a device. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "model/cuda/products.h"
#include "model/cuda/update.h"
#include "model/internal.h"
#include "tests/unit/device.h"
#include "tests/unit/newton_schulz.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* The heights of its matrices and the size of its gradients. */
static const struct {
    const char *name;
    int64_t rows, columns, parts[4];
    double size;
} matrices[] = {{"vit.layer.0.wide.weight", 24, 64, {24}, 1},
                {"vit.layer.0.tall.weight", 64, 24, {64}, 1e-18},
                {"vit.layer.0.square.weight", SIDE, SIDE, {SIDE}, 1e12},
                {"vit.layer.0.odd.weight", 33, 41, {33}, 1},
                {"vit.layer.0.odd_and_tall.weight", 41, 17, {41}, 1},
                {"vit.layer.0.two.weight", 2, 40, {2}, 1},
                {"vit.layer.0.in_proj.weight", 35, 9, {8, 9, 9, 9}, 1},
                {"vit.layer.0.attn.qkv.weight", 33, 11, {11, 11, 11}, 1},
                {"vit.layer.0.zero.weight", 24, 24, {24}, 0},
                {"vit.layer.0.large.weight", 130, 261, {130}, 1}}; /* several blocks of every pass */
enum { MATRICES = sizeof matrices / sizeof *matrices };

typedef struct bench {
    const lam_backend *device;
    const lam_cuda_updates *f;
    lam_parameters *p;
    lam_cuda_update *update;
} bench;

static bench open_bench(bool bf16) {
    bench b = {.device = test_backend()};
    b.f = ((lam_cuda_updates_function *)lam_backend_function(b.device, "lam_cuda_updates_get"))();
    ok(lam_parameters_create(&b.p));
    for (int i = 0; i < MATRICES; i++)
        ok(lam_parameters_add(b.p, matrices[i].name, 2, (int64_t[]){matrices[i].rows, matrices[i].columns},
                              LAM_INIT_ZERO, 0, true));
    ok(lam_parameters_layout(b.p, 1));
    ok(lam_parameters_place(b.p, b.device));
    lam_rng rng = lam_rng_stream(3, LAM_RNG_TEST, 0);
    for (int i = 0; i < MATRICES; i++)
        for (int64_t k = 0; k < b.p->entry[i].count; k++)
            b.p->gradients[b.p->entry[i].offset + k] = (float)(matrices[i].size * lam_rng_normal(&rng));
    ok(b.device->write(b.p->device_gradients, b.p->gradients, (size_t)b.p->trainable * sizeof(float)));
    lam_cuda_update_options options = {
        .parameters = b.p, .optimizer = lam_optimizer_find("muon"), .bf16 = bf16};
    ok(b.f->open(&b.update, &options));
    return b;
}

static void close_bench(bench *b) {
    b->f->close(&b->update);
    lam_parameters_free(b->p);
}

/* From weights of 0, at a rate of 1 and without momentum: the weights become directions, but for the factor of the rule. */
static void step(bench *b) {
    lam_cuda_update_input in = {.lr = 1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .rows = 1};
    b->f->set(b->update, &in);
    ok(b->f->enqueue(b->update));
    ok(b->device->synchronise());
    ok(b->device->error());
    ok(lam_parameters_pull(b->p));
}

/* The singular values of an iterate lie where the polynomial leads, whatever was rounded before it: off are those of the result by
 * the roundings of the last step, each at most 2^-9 of the norm, which is sqrt(side). Judged are those that rounding the first x,
 * of norm 1, cannot have made. */
static void check_spectrum(const char *name, const float *gradients, const float *direction, int64_t rows,
                           int64_t columns, double rounding) {
    double before[SIDE], after[SIDE], norm = 0;
    int64_t side = rows < columns ? rows : columns, small = 0, low = 0;
    singular_values(gradients, rows, columns, before);
    singular_values(direction, rows, columns, after);
    for (int64_t i = 0; i < side; i++) norm += before[i] * before[i];
    for (int64_t i = 0; i < side; i++) {
        double off = 1e-4 + 2 * rounding * sqrt((double)side);
        small += before[i] < (0.0016 + 8 * rounding) * sqrt(norm);
        low += after[i] < 0.68 - off;
        if (!(after[i] < 1.21 + off)) fail_msg("%s: singular value %g", name, after[i]);
    }
    if (low > small) fail_msg("%s: %d singular values are small, not %d", name, (int)low, (int)small);
}

/* How far the direction is from that in float64, by its norm. */
static double distance(const float *gradients, const float *direction, int64_t rows, int64_t columns) {
    double *wanted = malloc((size_t)(rows * columns) * sizeof *wanted), off = 0, norm = 0;
    for (int64_t i = 0; i < rows * columns; i++) wanted[i] = (double)gradients[i];
    orthogonalise(wanted, rows, columns);
    for (int64_t i = 0; i < rows * columns; i++) {
        off += pow((double)direction[i] - wanted[i], 2);
        norm += pow(wanted[i], 2);
    }
    free(wanted);
    return sqrt(off / norm);
}

static void check_matrix(const char *name, const float *gradients, float *weights, int64_t rows,
                         int64_t columns, bool bf16) {
    float longer = (float)(rows > columns ? rows : columns);
    double rounding = bf16 ? 0x1p-9 : 0x1p-24, off;
    for (int64_t i = 0; i < rows * columns; i++) weights[i] /= -0.2f * sqrtf(longer);
    off = distance(gradients, weights, rows, columns);
    /* The first x is rounded and three results in each of five steps; in float32 sums round more than results. What is not off by
     * half of one rounding was not computed in bfloat16. */
    if (!(off <= (bf16 ? 16 : 64) * rounding && off >= (bf16 ? rounding / 2 : 0)))
        fail_msg("%s in %s is off by %g roundings", name, bf16 ? "bfloat16" : "float32", off / rounding);
    if (rows <= SIDE || columns <= SIDE) check_spectrum(name, gradients, weights, rows, columns, rounding);
}

static void directions(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        bench b = open_bench(bf16);
        step(&b);
        for (int i = 0; i < MATRICES; i++) {
            int64_t at = b.p->entry[i].offset, columns = matrices[i].columns;
            for (int k = 0; k < 4 && matrices[i].parts[k] && matrices[i].size > 0; k++) {
                check_matrix(matrices[i].name, b.p->gradients + at, b.p->weights + at, matrices[i].parts[k],
                             columns, bf16);
                at += matrices[i].parts[k] * columns;
            }
            for (int64_t k = 0; k < b.p->entry[i].count && matrices[i].size == 0; k++)
                assert_true(b.p->weights[b.p->entry[i].offset + k] == 0);
        }
        close_bench(&b);
    }
}

/* What is planned ahead changes nothing, and an update finds all of its plans; those of one type serve no other. */
static void plans(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    const lam_cuda_products *products =
        ((lam_cuda_products_function *)lam_backend_function(test_backend(), "lam_cuda_products_get"))();
    int64_t counts[2];
    products->plans_release();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        char *text;
        bench plain = open_bench(bf16), planned = open_bench(bf16);
        products->autotune(true);
        ok(planned.f->plan_products(planned.update));
        counts[bf16] = products->plans_write(&text);
        free(text);
        ok(lam_parameters_pull(planned.p));
        for (int64_t i = 0; i < planned.p->trainable; i++) assert_true(planned.p->weights[i] == 0);
        step(&planned);
        step(&plain);
        assert_int_equal(products->plans_write(&text), counts[bf16]);
        free(text);
        assert_memory_equal(plain.p->weights, planned.p->weights, (size_t)plain.p->trainable * sizeof(float));
        products->autotune(false);
        close_bench(&plain);
        close_bench(&planned);
    }
    assert_int_equal(
        counts[0],
        11 + 9 + 7); /* shapes, sides, shapes that are not square: those take the second product twice */
    assert_int_equal(counts[1], 2 * counts[0]);
    products->plans_release();
}

/* Of a type of half the size all but the direction takes half. */
static void memory(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    bench b = open_bench(false);
    lam_cuda_update_options options = {.parameters = b.p, .optimizer = lam_optimizer_find("muon")};
    int64_t whole = b.f->bytes(&options);
    options.bf16 = true;
    int64_t rows = 130, columns = 261, saved = whole - b.f->bytes(&options);
    assert_in_range(saved, 2 * (rows * columns + 2 * rows * rows),
                    2 * (rows * columns + 2 * rows * rows) + 1024);
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(directions), cmocka_unit_test(plans),
                                       cmocka_unit_test(memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
