/* Matrix products against float64 in every layout, with operands copied and not, odd sizes and strides; packed operands and
 * weights' gradients in processes of their own, as oneDNN heeds a limit of its instruction set once. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bf16.h"
#include "base/gemm.h"

static float value(int64_t i) { return (float)sin(1.7 * (double)i); }

typedef lam_status (*library)(bool, bool, int64_t, int64_t, int64_t, const float *, int64_t, const float *,
                              int64_t, float, float *, int64_t);

static void check(library multiply, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float beta) {
    int64_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 5, ldc = n + 2;
    int64_t count_a = (ta ? k : m) * lda, count_b = (tb ? n : k) * ldb, count_c = m * ldc;
    float *a = calloc((size_t)count_a + 1, sizeof *a), *b = calloc((size_t)count_b + 1, sizeof *b),
          *c = calloc((size_t)count_c + 1, sizeof *c);
    for (int64_t i = 0; i < count_a; i++) a[i] = value(i);
    for (int64_t i = 0; i < count_b; i++) b[i] = value(i + 100000);
    for (int64_t i = 0; i < count_c; i++)
        c[i] = beta == 0.0f ? NAN : value(i + 7); /* beta 0 does not read C */
    assert_int_equal(multiply(ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc), LAM_OK);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = beta == 0.0f ? 0 : (double)beta * (double)value(i * ldc + j + 7), size = 1;
            for (int64_t l = 0; l < k; l++) {
                double term =
                    (double)a[ta ? l * lda + i : i * lda + l] * (double)b[tb ? j * ldb + l : l * ldb + j];
                sum += term;
                size += fabs(term);
            }
            if (!(fabs((double)c[i * ldc + j] - sum) <= 1e-6 * size))
                fail_msg("%c%c %lldx%lldx%lld at (%lld, %lld): %g, not %g", ta ? 'T' : 'N', tb ? 'T' : 'N',
                         (long long)m, (long long)n, (long long)k, (long long)i, (long long)j,
                         (double)c[i * ldc + j], sum);
        }
    free(a);
    free(b);
    free(c);
}

static void products(void **state) {
    lam_gemm_turn_operands(*(lam_gemm_turning *)*state);
    static const int64_t sizes[][3] = {{1, 1, 1},     {5, 7, 3},   {33, 65, 17}, {64, 32, 100},
                                       {131, 70, 45}, {3, 200, 0}, {40, 0, 3},   {35, 1, 90}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int layout = 0; layout < 4; layout++)
            for (int beta = 0; beta < 3; beta++)
                check(lam_gemm_f32, layout & 1, layout & 2, sizes[i][0], sizes[i][1], sizes[i][2],
                      0.5f * (float)beta);
    lam_gemm_release();
    lam_gemm_turn_operands(LAM_GEMM_TURN_AUTO);
}

/* Where sgemm turns operands by copies, packing is what it would do anyway. */
static void packing(void **state) {
    (void)state;
    static const struct {
        int64_t rows, in;
        bool by_copies, pays;
    } known[] = {{256, 384, true, true},   {255, 384, true, false},   {520, 768, false, false},
                 {1024, 768, false, true}, {520, 2048, false, false}, {771, 512, false, true}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        lam_gemm_turn_operands(known[i].by_copies ? LAM_GEMM_TURN_ALWAYS : LAM_GEMM_TURN_NEVER);
        assert_int_equal(lam_gemm_packing_pays(LAM_GEMM_F32, known[i].rows, known[i].in), known[i].pays);
        assert_true(lam_gemm_packing_pays(LAM_GEMM_BF16, known[i].rows, known[i].in));
    }
    lam_gemm_turn_operands(LAM_GEMM_TURN_AUTO);
}

static void openblas(void **state) {
    (void)state;
    static const int64_t sizes[][3] = {{1, 1, 1}, {5, 7, 3}, {131, 70, 45}, {3, 0, 2}, {35, 1, 90}};
    for (int threads = 2; threads > 0; threads--) {
        int ours = omp_get_max_threads();
        lam_gemm_openblas_threads(threads);
        assert_int_equal(omp_get_max_threads(), ours); /* OpenBLAS would take its own count for OpenMP's */
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int layout = 0; layout < 4; layout++)
                check(lam_gemm_f32_openblas, layout & 1, layout & 2, sizes[i][0], sizes[i][1], sizes[i][2],
                      0.5f * (float)(layout % 3));
    }
    float x = 0;
    assert_int_equal(lam_gemm_f32_openblas(false, false, 1, 1, 1, &x, (int64_t)1 << 31, &x, 1, 0, &x, 1),
                     LAM_ERROR_EXTERNAL);
}

/* ---- packed operands and gradients ---- */

/* A matrix of odd stride in the type, and what its elements are worth. */
typedef struct matrix {
    int64_t rows, columns, stride;
    void *data;
    double *worth;
} matrix;

static matrix matrix_of(lam_gemm_type type, int64_t rows, int64_t columns, int64_t gap, int64_t from) {
    matrix m = {rows, columns, columns + gap, NULL, NULL};
    size_t count = (size_t)(rows * m.stride) + 1;
    float *floats = calloc(count, sizeof *floats);
    uint16_t *halves = calloc(count, sizeof *halves);
    m.worth = calloc(count, sizeof *m.worth);
    for (size_t i = 0; i < count; i++) {
        floats[i] = value(from + (int64_t)i);
        halves[i] = lam_bf16_from_float(floats[i]);
        m.worth[i] = type == LAM_GEMM_BF16 ? (double)lam_bf16_to_float(halves[i]) : (double)floats[i];
    }
    m.data = type == LAM_GEMM_BF16 ? (void *)halves : (void *)floats;
    free(type == LAM_GEMM_BF16 ? (void *)floats : (void *)halves);
    return m;
}

static void matrix_free(matrix *m) {
    free(m->data);
    free(m->worth);
}

static double element(lam_gemm_type type, const void *c, int64_t i) {
    return type == LAM_GEMM_BF16 ? (double)lam_bf16_to_float(((const uint16_t *)c)[i])
                                 : (double)((const float *)c)[i];
}

static void near(double found, double sum, double size, double half_ulp, const char *what, int64_t i,
                 int64_t j) {
    if (!(fabs(found - sum) <= 1e-6 * size + half_ulp * fabs(sum)))
        fail_msg("%s at (%lld, %lld): %.9g, not %.9g", what, (long long)i, (long long)j, found, sum);
}

/* Weights of `rows` rows in three parts or one; both forms, of which one is returned, or the one alone: the same bytes. */
static void *packed_weights(lam_gemm_type type, const matrix *w, bool forward, bool in_parts) {
    size_t bytes =
               lam_gemm_packed_bytes(type, forward ? w->columns : w->rows, forward ? w->rows : w->columns),
           others =
               lam_gemm_packed_bytes(type, forward ? w->rows : w->columns, forward ? w->columns : w->rows);
    assert_true(bytes > 0 && others > 0);
    lam_gemm_weights weights = {.in = w->columns, .parts = in_parts ? 3 : 1};
    for (int64_t i = 0, at = 0; i < weights.parts; at += weights.part[i++].out) {
        weights.part[i].data = (const float *)w->data + at * w->columns;
        weights.part[i].out = i + 1 == weights.parts ? w->rows - at : w->rows / 3;
    }
    char *packed = malloc(bytes), *alone = malloc(bytes), *other = malloc(others);
    memset(packed, 0xff, bytes); /* NaN where packing leaves something out */
    memset(alone, 0xff, bytes);
    assert_int_equal(lam_gemm_pack(type, &weights, forward ? packed : other, forward ? other : packed),
                     LAM_OK);
    assert_int_equal(lam_gemm_pack(type, &weights, forward ? alone : NULL, forward ? NULL : alone), LAM_OK);
    assert_memory_equal(packed, alone, bytes);
    free(alone);
    free(other);
    return packed;
}

static void check_packed(lam_gemm_type type, int64_t m, int64_t n, int64_t k, bool transposed, bool bias,
                         bool accumulate, bool in_parts) {
    matrix a = matrix_of(type, m, k, 0, 3),
           rounded = transposed ? matrix_of(type, n, k, 0, 70000) : matrix_of(type, k, n, 0, 70000),
           b = transposed ? matrix_of(LAM_GEMM_F32, n, k, 0, 70000) : matrix_of(LAM_GEMM_F32, k, n, 0, 70000),
           c = matrix_of(type, m, n, 0, 9), row = matrix_of(LAM_GEMM_F32, 1, n, 0, 30);
    void *packed = packed_weights(type, &b, transposed, in_parts);
    lam_gemm_operands o = {.m = m,
                           .n = n,
                           .k = k,
                           .a = a.data,
                           .lda = k,
                           .packed = packed,
                           .bias = bias ? row.data : NULL,
                           .accumulate = accumulate,
                           .c = c.data,
                           .ldc = n};
    assert_int_equal(lam_gemm_packed(type, &o), LAM_OK);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = (bias ? row.worth[j] : 0) + (accumulate ? c.worth[i * n + j] : 0), size = 1;
            for (int64_t l = 0; l < k; l++) {
                double term = a.worth[i * k + l] * rounded.worth[transposed ? j * k + l : l * n + j];
                sum += term;
                size += fabs(term);
            }
            near(element(type, c.data, i * n + j), sum, size, type == LAM_GEMM_BF16 ? 0x1p-8 : 0, "packed", i,
                 j);
        }
    matrix *all[] = {&a, &rounded, &b, &c, &row};
    for (int i = 0; i < 5; i++) matrix_free(all[i]);
    free(packed);
}

static void check_gradient(lam_gemm_type type, int parts, int64_t n, int64_t k) {
    static const int64_t widths[] = {5, 48, 67};
    int64_t m = 0;
    for (int p = 0; p < parts; p++) m += widths[p];
    matrix a = matrix_of(type, k, m, 3, 11), b = matrix_of(type, k, n, 5, 5000), c[3], sums[3];
    lam_gemm_gradients o = {
        .n = n, .k = k, .a = a.data, .lda = a.stride, .b = b.data, .ldb = b.stride, .parts = parts};
    for (int p = 0; p < parts; p++) {
        c[p] = matrix_of(LAM_GEMM_F32, widths[p], n, 0, 100 + p);
        o.part[p].m = widths[p];
        o.part[p].accumulate = p != 1;
        o.part[p].c = parts == 3 && p == 0 ? NULL : c[p].data; /* one that nobody wants */
        sums[p] = matrix_of(LAM_GEMM_F32, 1, widths[p], 0, 200 + p);
        o.part[p].sums = parts == 3 && p == 1 ? NULL : sums[p].data;
    }
    assert_int_equal(lam_gemm_gradient(type, &o), LAM_OK);
    for (int64_t p = 0, first = 0; p < parts; first += widths[p], p++)
        for (int64_t i = 0; i < widths[p]; i++) {
            double total = sums[p].worth[i], all = 1;
            for (int64_t l = 0; l < k && o.part[p].sums; l++) {
                total += a.worth[l * a.stride + first + i];
                all += fabs(a.worth[l * a.stride + first + i]);
            }
            near(element(LAM_GEMM_F32, sums[p].data, i), total, all, 0, "sum of a column", i, 0);
            for (int64_t j = 0; j < n; j++) {
                double sum = p == 1 ? 0 : c[p].worth[i * n + j], size = 1;
                for (int64_t l = 0; l < k && o.part[p].c; l++) {
                    double term = a.worth[l * a.stride + first + i] * b.worth[l * b.stride + j];
                    sum += term;
                    size += fabs(term);
                }
                near(element(LAM_GEMM_F32, c[p].data, i * n + j), sum, size, 0, "gradient", i, j);
            }
        }
    for (int p = 0; p < parts; p++) matrix_free(&c[p]), matrix_free(&sums[p]);
    matrix_free(&a);
    matrix_free(&b);
}

static const struct {
    lam_gemm_type type;
    lam_gemm_route route;
} ways[] = {{LAM_GEMM_F32, LAM_GEMM_AUTO},
            {LAM_GEMM_BF16, LAM_GEMM_AUTO},
            {LAM_GEMM_BF16, LAM_GEMM_CONVERT},
            {LAM_GEMM_BF16, LAM_GEMM_NATIVE}}; /* which oneDNN has from AVX-512 on */
static size_t way_count = sizeof ways / sizeof *ways;

static void packed(void **state) {
    (void)state;
    static const int64_t sizes[][3] = {{1, 1, 1},     {7, 64, 32},    {33, 65, 17},
                                       {70, 130, 45}, {19, 200, 161}, {5, 384, 192}};
    for (size_t w = 0; w < way_count; w++) {
        lam_gemm_bf16_route(ways[w].route);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int form = 0; form < 16; form++)
                check_packed(ways[w].type, sizes[i][0], sizes[i][1], sizes[i][2], form & 1, form & 2,
                             form & 4, form & 8);
        lam_gemm_release();
    }
}

static void gradients(void **state) {
    (void)state;
    static const int64_t rows[] = {0,   1,    2,    33,  255, 256,
                                   300, 1000, 1024, 2048}; /* the last two: a page of floats, of bfloat16 */
    for (size_t w = 0; w < way_count; w++) {
        lam_gemm_bf16_route(ways[w].route);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            for (int parts = 1; parts <= 3; parts++)
                check_gradient(ways[w].type, parts, i % 2 ? 64 : 35, rows[i]);
        lam_gemm_release();
    }
}

static int under_limit(const char *isa) {
    lam_gemm_limit_isa(isa);
    bool wide = strcmp(isa, "baseline") != 0 && strcmp(isa, "avx2") != 0;
    if (!wide || !__builtin_cpu_supports("avx512bw")) way_count--;
    const struct CMUnitTest tests[] = {cmocka_unit_test(packed), cmocka_unit_test(gradients)};
    return cmocka_run_group_tests_name(isa, tests, NULL, NULL);
}

static void in_a_process(void **state) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", "base_gemm", (char *)*state, (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv) {
    if (argc == 2) return under_limit(argv[1]);
    static lam_gemm_turning modes[] = {LAM_GEMM_TURN_AUTO, LAM_GEMM_TURN_NEVER, LAM_GEMM_TURN_ALWAYS};
    const struct CMUnitTest tests[] = {
        {"as the CPU likes it", products, NULL, NULL, &modes[0]},
        {"operands as they are", products, NULL, NULL, &modes[1]},
        {"operands copied", products, NULL, NULL, &modes[2]},
        {"when packing pays", packing, NULL, NULL, NULL},
        {"OpenBLAS", openblas, NULL, NULL, NULL},
        {"packed, baseline", in_a_process, NULL, NULL, "baseline"},
        {"packed, AVX2", in_a_process, NULL, NULL, "avx2"},
        {"packed, AVX-512", in_a_process, NULL, NULL, "avx512"},
        {"packed, AVX512-BF16", in_a_process, NULL, NULL, "avx512_bf16"},
        {"packed, AMX", in_a_process, NULL, NULL, "amx"},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
