/* The stand-in for cuBLASLt: every epilogue, type and turn against float64 at sizes that divide nothing and at such that do,
 * and what it refuses. */
#include "emulation.h"

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

void lam_cuda_launched(cudaError_t, const char *) {}

static int failures;
#define CHECK(condition, ...)                                                                                \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            printf("%s:%d: not so: %s: ", __FILE__, __LINE__, #condition);                                   \
            printf(__VA_ARGS__);                                                                             \
            printf("\n");                                                                                    \
            failures++;                                                                                      \
        }                                                                                                    \
    } while (0)

enum { PADDING = 8 }; /* elements between the columns of every matrix */

struct matrix {
    cudaDataType type;
    uint64_t rows, columns;
    int64_t ld;
    std::vector<double> values; /* as they are stored, with the padding */
    void *device;
    cublasLtMatrixLayoutOpaque_t layout;
};

static double rounded(double value, cudaDataType type) {
    float f = static_cast<float>(value);
    return static_cast<double>(type == CUDA_R_16BF ? __bfloat162float(__float2bfloat16_rn(f)) : f);
}

static size_t bytes_of(const matrix &x) { return x.values.size() * (x.type == CUDA_R_16BF ? 2 : 4); }

static void to_device(matrix *x) {
    std::vector<float> f(x->values.begin(), x->values.end());
    std::vector<__nv_bfloat16> b(f.begin(), f.end());
    cudaMemcpy(x->device, x->type == CUDA_R_16BF ? static_cast<void *>(b.data()) : f.data(), bytes_of(*x),
               cudaMemcpyHostToDevice);
}
static void from_device(matrix *x) {
    std::vector<float> f(x->values.size());
    std::vector<__nv_bfloat16> b(f.size());
    bool bf16 = x->type == CUDA_R_16BF;
    cudaMemcpy(bf16 ? static_cast<void *>(b.data()) : f.data(), x->device, bytes_of(*x),
               cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < f.size(); i++)
        x->values[i] = static_cast<double>(bf16 ? __bfloat162float(b[i]) : f[i]);
}

static matrix made(cudaDataType type, int64_t rows, int64_t columns, int seed) {
    matrix x = {
        type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), rows + PADDING, {}, nullptr, {}};
    x.values.resize(static_cast<size_t>(x.ld * columns));
    uint64_t state = static_cast<uint64_t>(seed) * 1442695040888963407u + 1;
    for (double &value : x.values) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        value = rounded(static_cast<double>(state >> 40) / 8388608.0 - 1.0, type);
    }
    cudaMalloc(&x.device, bytes_of(x));
    to_device(&x);
    cublasLtMatrixLayoutInit(&x.layout, type, x.rows, x.columns, x.ld);
    return x;
}

template <typename T>
static void set(cublasLtMatmulDesc_t to, cublasLtMatmulDescAttributes_t attribute, T value) {
    CHECK(cublasLtMatmulDescSetAttribute(to, attribute, &value, sizeof value) == CUBLAS_STATUS_SUCCESS, "%d",
          attribute);
}

static cublasLtHandle_t handle;
static void *workspace;
static const size_t workspace_bytes = 4 << 20;

static int heuristics(cublasLtMatmulDesc_t operation, matrix *a, matrix *b, matrix *d, uint32_t alignment,
                      cublasLtMatmulHeuristicResult_t *results) {
    cublasLtMatmulPreferenceOpaque_t wish;
    int count = 0;
    uint64_t bytes = workspace_bytes;
    cublasLtMatmulPreferenceInit(&wish);
    cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                         sizeof bytes);
    for (auto which :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
        cublasLtMatmulPreferenceSetAttribute(&wish, which, &alignment, sizeof alignment);
    cublasLtMatmulAlgoGetHeuristic(handle, operation, &a->layout, &b->layout, &d->layout, &d->layout, &wish,
                                   8, results, &count);
    return count;
}

static double gelu(double h) { return 0.5 * h * (1 + tanh(0.7978845608028654 * (h + 0.044715 * h * h * h))); }
static double gelu_slope(double h) { return (gelu(h + 1e-5) - gelu(h - 1e-5)) / 2e-5; }

static double distance(const std::vector<double> &got, const std::vector<double> &wanted) {
    double off = 0, norm = 1e-30;
    for (size_t i = 0; i < got.size(); i++) {
        off += (got[i] - wanted[i]) * (got[i] - wanted[i]);
        norm += wanted[i] * wanted[i];
    }
    return sqrt(off / norm);
}

struct sizes {
    int64_t m, n, k;
};

/* How many algorithms there were. */
static int check(cudaDataType type, cudaDataType result, bool turn_a, bool turn_b,
                 cublasLtEpilogue_t epilogue, float beta, sizes s) {
    matrix a = turn_a ? made(type, s.k, s.m, 1) : made(type, s.m, s.k, 1),
           b = turn_b ? made(type, s.n, s.k, 2) : made(type, s.k, s.n, 2), d = made(result, s.m, s.n, 3),
           h = made(result, s.m, s.n, 4), bias = made(result, s.m, 1, 5);
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    set(&operation, CUBLASLT_MATMUL_DESC_TRANSA, turn_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(&operation, CUBLASLT_MATMUL_DESC_TRANSB, turn_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(&operation, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    set(&operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.device);
    set(&operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, h.device);
    set(&operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, h.ld);
    cublasLtMatmulHeuristicResult_t results[8];
    int count = heuristics(&operation, &a, &b, &d, 256, results);
    std::vector<double> before = d.values, aux = h.values;
    for (int algorithm = 0; algorithm < count; algorithm++) {
        d.values = before, h.values = aux;
        to_device(&d), to_device(&h);
        const float alpha = 0.5f;
        cublasStatus_t status = cublasLtMatmul(handle, &operation, &alpha, a.device, &a.layout, b.device,
                                               &b.layout, &beta, d.device, &d.layout, d.device, &d.layout,
                                               &results[algorithm].algo, workspace, workspace_bytes, nullptr);
        CHECK(status == CUBLAS_STATUS_SUCCESS, "%s", cublasLtGetStatusName(status));
        from_device(&d), from_device(&h);
        std::vector<double> wanted = before, wanted_h = aux;
        for (int64_t j = 0; j < s.n; j++)
            for (int64_t i = 0; i < s.m; i++) {
                double sum = 0;
                for (int64_t l = 0; l < s.k; l++)
                    sum += a.values[static_cast<size_t>(turn_a ? i * a.ld + l : l * a.ld + i)] *
                           b.values[static_cast<size_t>(turn_b ? l * b.ld + j : j * b.ld + l)];
                size_t at = static_cast<size_t>(j * d.ld + i);
                double value = 0.5 * sum + static_cast<double>(beta) * before[at];
                if (epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS)
                    value += bias.values[static_cast<size_t>(i)];
                if (epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS) wanted_h[at] = value, value = gelu(value);
                if (epilogue == CUBLASLT_EPILOGUE_DGELU) value *= gelu_slope(aux[at]);
                wanted[at] = value;
            }
        double bound = result == CUDA_R_16BF ? 3e-3 : 3e-6;
        CHECK(distance(d.values, wanted) < bound, "%g, epilogue %d", distance(d.values, wanted), epilogue);
        CHECK(distance(h.values, wanted_h) < bound, "%g, epilogue %d", distance(h.values, wanted_h),
              epilogue);
    }
    for (matrix *x : {&a, &b, &d, &h, &bias}) cudaFree(x->device);
    return count;
}

static void check_products() {
    const sizes aligned = {32, 24, 200}, odd = {37, 11, 133};
    const struct {
        cudaDataType type, result;
    } types[] = {{CUDA_R_16BF, CUDA_R_16BF}, {CUDA_R_16BF, CUDA_R_32F}, {CUDA_R_32F, CUDA_R_32F}};
    const cublasLtEpilogue_t epilogues[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS,
                                            CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DGELU};
    for (auto type : types)
        for (int turns = 0; turns < 4; turns++)
            for (cublasLtEpilogue_t epilogue : epilogues) {
                bool plain = epilogue == CUBLASLT_EPILOGUE_DEFAULT || epilogue == CUBLASLT_EPILOGUE_BIAS;
                float beta = epilogue == CUBLASLT_EPILOGUE_DEFAULT ? 1.0f : 0.0f;
                int many = check(type.type, type.result, turns & 1, turns & 2, epilogue, beta, aligned),
                    few = check(type.type, type.result, turns & 1, turns & 2, epilogue, 0.0f, odd);
                CHECK(many == (plain ? 3 : 2), "%d algorithms, epilogue %d", many, epilogue);
                CHECK(few == (plain ? 1 : 0), "%d algorithms, epilogue %d", few, epilogue);
            }
}

/* A product that works, and what makes it wrong. */
struct product {
    cublasLtMatmulDescOpaque_t operation;
    matrix a, b, d, h, bias;
    cublasLtMatmulAlgo_t algorithm; /* which wants a workspace */
    void *room;
    size_t bytes;
    void *c, *to; /* what is added and the result, d but for what is wrong */
};

template <typename T> static void relay(matrix *x, cublasLtMatrixLayoutAttribute_t attribute, T value) {
    CHECK(cublasLtMatrixLayoutSetAttribute(&x->layout, attribute, &value, sizeof value) ==
              CUBLAS_STATUS_SUCCESS,
          "%d", attribute);
}
template <typename T> static void describe(product *p, cublasLtMatmulDescAttributes_t attribute, T value) {
    set(&p->operation, attribute, value);
}
static void *odd(const matrix &x) { return static_cast<char *>(x.device) + 2; }

static const struct wrong {
    const char *what;
    cublasStatus_t status;
    void (*spoil)(product *p);
} wrongs[] = {
    {"nothing", CUBLAS_STATUS_SUCCESS, [](product *) {}},
    {"rows that do not match", CUBLAS_STATUS_INVALID_VALUE,
     [](product *p) { relay(&p->a, CUBLASLT_MATRIX_LAYOUT_ROWS, static_cast<uint64_t>(40)); }},
    {"columns that overlap", CUBLAS_STATUS_INVALID_VALUE,
     [](product *p) { relay(&p->d, CUBLASLT_MATRIX_LAYOUT_LD, static_cast<int64_t>(16)); }},
    {"row-major", CUBLAS_STATUS_NOT_SUPPORTED,
     [](product *p) { relay(&p->d, CUBLASLT_MATRIX_LAYOUT_ORDER, CUBLASLT_ORDER_ROW); }},
    {"types that do not go together", CUBLAS_STATUS_NOT_SUPPORTED,
     [](product *p) { relay(&p->a, CUBLASLT_MATRIX_LAYOUT_TYPE, CUDA_R_32F); }},
    {"columns that 16 bytes do not divide", CUBLAS_STATUS_NOT_SUPPORTED,
     [](product *p) { relay(&p->d, CUBLASLT_MATRIX_LAYOUT_LD, static_cast<int64_t>(41)); }},
    {"TF32", CUBLAS_STATUS_NOT_SUPPORTED,
     [](product *p) { describe(p, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, CUBLAS_COMPUTE_32F_FAST_TF32); }},
    {"a float32 bias for a bfloat16 result", CUBLAS_STATUS_NOT_SUPPORTED,
     [](product *p) { describe(p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F); }},
    {"no bias", CUBLAS_STATUS_NOT_SUPPORTED,
     [](product *p) { describe(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void *>(nullptr)); }},
    {"a bias at an odd address", CUBLAS_STATUS_NOT_SUPPORTED,
     [](product *p) { describe(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, odd(p->bias)); }},
    {"rows of h that 8 does not divide", CUBLAS_STATUS_NOT_SUPPORTED,
     [](product *p) { describe(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, static_cast<int64_t>(36)); }},
    {"h shorter than a column", CUBLAS_STATUS_INVALID_VALUE,
     [](product *p) { describe(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, static_cast<int64_t>(24)); }},
    {"h at an odd address", CUBLAS_STATUS_NOT_SUPPORTED,
     [](product *p) { describe(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, odd(p->h)); }},
    {"an unknown epilogue", CUBLAS_STATUS_NOT_SUPPORTED,
     [](product *p) { describe(p, CUBLASLT_MATMUL_DESC_EPILOGUE, 7u); }},
    {"an algorithm of another epilogue", CUBLAS_STATUS_INVALID_VALUE,
     [](product *p) { describe(p, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS); }},
    {"an algorithm that is none", CUBLAS_STATUS_INVALID_VALUE,
     [](product *p) { memset(&p->algorithm, 0, sizeof p->algorithm); }},
    {"a result over an operand", CUBLAS_STATUS_INVALID_VALUE, [](product *p) { p->to = p->b.device; }},
    {"a result over the end of what is added", CUBLAS_STATUS_INVALID_VALUE,
     [](product *p) { p->c = static_cast<char *>(p->d.device) + 32; }},
    {"too small a workspace", CUBLAS_STATUS_INVALID_VALUE, [](product *p) { p->bytes = 4096; }},
    {"a workspace at an odd address", CUBLAS_STATUS_INVALID_VALUE,
     [](product *p) { p->room = static_cast<char *>(p->room) + 16; }},
};

static void check_wrongs() {
    for (const wrong &one : wrongs) {
        product p = {{},
                     made(CUDA_R_16BF, 32, 40, 1),
                     made(CUDA_R_16BF, 40, 24, 2),
                     made(CUDA_R_16BF, 32, 24, 3),
                     made(CUDA_R_16BF, 32, 24, 4),
                     made(CUDA_R_16BF, 32, 1, 5),
                     {},
                     workspace,
                     workspace_bytes,
                     nullptr,
                     nullptr};
        p.c = p.to = p.d.device;
        cublasLtMatmulDescInit(&p.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
        describe(&p, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_GELU_AUX_BIAS);
        describe(&p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias.device);
        describe(&p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.h.device);
        describe(&p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.h.ld);
        cublasLtMatmulHeuristicResult_t results[8];
        CHECK(heuristics(&p.operation, &p.a, &p.b, &p.d, 16, results) == 2, "%s", one.what);
        p.algorithm = results[1].algo;
        one.spoil(&p);
        const float alpha = 1, beta = 1;
        cublasStatus_t status = cublasLtMatmul(handle, &p.operation, &alpha, p.a.device, &p.a.layout,
                                               p.b.device, &p.b.layout, &beta, p.c, &p.d.layout, p.to,
                                               &p.d.layout, &p.algorithm, p.room, p.bytes, nullptr);
        CHECK(status == one.status, "%s: %s", one.what, cublasLtGetStatusName(status));
        cudaDeviceSynchronize();
        for (matrix *x : {&p.a, &p.b, &p.d, &p.h, &p.bias}) cudaFree(x->device);
    }
    cublasLtMatmulDescOpaque_t operation;
    char byte = 0;
    cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    CHECK(cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_TRANSA, &byte, 1) ==
              CUBLAS_STATUS_INVALID_VALUE,
          "a value of the wrong size");
    const float one = 1;
    CHECK(cublasLtMatmul(nullptr, nullptr, &one, nullptr, nullptr, nullptr, nullptr, &one, nullptr, nullptr,
                         nullptr, nullptr, nullptr, nullptr, 0, nullptr) == CUBLAS_STATUS_NOT_INITIALIZED,
          "no handle");
}

int main() {
    cublasLtCreate(&handle);
    cudaMalloc(&workspace, workspace_bytes);
    check_products();
    check_wrongs();
    cublasLtDestroy(handle);
    printf("cuBLASLt's stand-in: %d failures\n", failures);
    return failures != 0;
}
