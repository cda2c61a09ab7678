/* Plans of products and what runs them.
 *
 * Row-major C[m, n] = op(A) op(B) is column-major C^T[n, m] = op(B)^T op(A)^T: cuBLASLt's first operand is B, its second A,
 * and its bias, one value for each row of C^T, one for each column of C.
 *
 * GELU is fused from compute capability 9.0 on: before, the fused kernels are slower than a kernel of our own behind the
 * product (karpathy/llm.c pull request 338). Its slope is not: on an H200 cuBLASLt takes 0.36 ms with it where the product takes
 * 0.15 ms, and the sums of columns are not fused on Hopper at all. --autotune measures either. float32 is the reference type:
 * never TF32, and GELU never fused, because cuBLASLt's is the tanh form. */
#include "model/cuda/products.h"

#include <cublasLt.h>
#include <stdio.h>
#include <string.h>

#include <map>
#include <string>

#include "base/log.h"
#include "base/memory.h"
#include "model/cuda/backend.cuh"

/* epilogues.cu */
void lam_cuda_fill_rows(const void *bias, const void *addend, void *c, int64_t rows, int64_t columns, int64_t ldc,
                        lam_dtype type);

namespace {

/* All that cuBLASLt chooses by. Alignments are powers of two, 256 at most; of what the epilogue does not use 256. */
struct key {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t type, result, turns, accumulate, epilogue, align_a, align_b, align_c, align_more;
    bool operator<(const key &other) const { return memcmp(this, &other, sizeof *this) < 0; }
};
static_assert(sizeof(key) == 6 * 8 + 9 * 4 + 4, "keys are compared as bytes");

struct plan {
    bool runs; /* false: not fused here */
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
};

struct choice { /* what another run has chosen */
    bool runs;
    cublasLtMatmulAlgo_t algorithm;
};

cublasLtHandle_t handle;
std::map<key, plan> plans;
std::map<key, choice> recorded;
bool autotune, never_fuse;

/* ---- errors ---- */

const char *type_name(lam_dtype type) { return type == LAM_BF16 ? "bfloat16" : "float32"; }

const char *epilogue_name(int epilogue) {
    static const char *const names[] = {"plain", "bias", "gelu", "gelu slope"};
    return names[epilogue];
}

lam_status failed(const lam_cuda_product *p, const char *what, cublasStatus_t status) {
    LAM_FAIL(LAM_ERROR_EXTERNAL, "cuBLASLt: %s: %s; a product of %s [%lld, %lld] x [%lld, %lld] to %s (%s)",
             what, cublasLtGetStatusString(status), type_name(p->type), (long long)p->m, (long long)p->k,
             (long long)p->k, (long long)p->n, type_name(p->result), epilogue_name(p->epilogue));
}

#define TRY_LT(product, what, call)                                                                          \
    do {                                                                                                     \
        cublasStatus_t lt_status_ = (call);                                                                  \
        if (lt_status_ != CUBLAS_STATUS_SUCCESS) return failed((product), (what), lt_status_);               \
    } while (0)

/* ---- descriptors ---- */

int32_t alignment_of(const void *p) {
    int32_t alignment = 256;
    while ((uintptr_t)p % (uintptr_t)alignment) alignment /= 2;
    return alignment;
}

bool reads_bias(lam_cuda_epilogue e) { return e == LAM_CUDA_BIAS || e == LAM_CUDA_GELU; }
bool has_h(lam_cuda_epilogue e) { return e == LAM_CUDA_GELU || e == LAM_CUDA_GELU_SLOPE; }

const void *bias_pointer(const lam_cuda_product *p) { return reads_bias(p->epilogue) ? p->bias : NULL; }

key key_of(const lam_cuda_product *p) {
    key k;
    memset(&k, 0, sizeof k);
    k.m = p->m, k.n = p->n, k.k = p->k, k.lda = p->lda, k.ldb = p->ldb, k.ldc = p->ldc;
    k.type = p->type, k.result = p->result, k.turns = p->turn_a + 2 * p->turn_b;
    k.accumulate = p->addend ? 2 : p->accumulate;
    k.epilogue = p->epilogue;
    k.align_a = alignment_of(p->a), k.align_b = alignment_of(p->b), k.align_c = alignment_of(p->c);
    if (p->addend && alignment_of(p->addend) < k.align_c) k.align_c = alignment_of(p->addend);
    int32_t bias = alignment_of(bias_pointer(p)), h = alignment_of(has_h(p->epilogue) ? p->h : NULL);
    k.align_more = bias < h ? bias : h;
    return k;
}

cudaDataType_t data_type(lam_dtype type) { return type == LAM_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

cublasLtEpilogue_t fused(lam_cuda_epilogue epilogue) {
    switch (epilogue) {
    case LAM_CUDA_BIAS: return CUBLASLT_EPILOGUE_BIAS;
    case LAM_CUDA_GELU: return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    case LAM_CUDA_GELU_SLOPE: return CUBLASLT_EPILOGUE_DGELU;
    default: return CUBLASLT_EPILOGUE_DEFAULT;
    }
}

template <typename T> cublasStatus_t set(plan *plan, cublasLtMatmulDescAttributes_t attribute, T value) {
    return cublasLtMatmulDescSetAttribute(&plan->operation, attribute, &value, sizeof value);
}

/* The pointers of the epilogue, which differ from call to call. */
lam_status set_pointers(plan *plan, const lam_cuda_product *p) {
    const void *bias = bias_pointer(p);
    if (bias) TRY_LT(p, "bias", set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias));
    if (has_h(p->epilogue)) TRY_LT(p, "GELU", set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p->h));
    return LAM_OK;
}

lam_status describe(plan *plan, const lam_cuda_product *p) {
    cudaDataType_t type = data_type(p->type), result = data_type(p->result);
    TRY_LT(p, "operation", cublasLtMatmulDescInit(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    cublasOperation_t first = p->turn_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                      second = p->turn_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    TRY_LT(p, "operation", set(plan, CUBLASLT_MATMUL_DESC_TRANSA, first));
    TRY_LT(p, "operation", set(plan, CUBLASLT_MATMUL_DESC_TRANSB, second));
    TRY_LT(p, "epilogue", set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, fused(p->epilogue)));
    if (has_h(p->epilogue)) {
        TRY_LT(p, "GELU", set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p->ldc));
        TRY_LT(p, "GELU", set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, (int32_t)result));
    }
    if (bias_pointer(p)) TRY_LT(p, "bias", set(plan, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, (int32_t)result));
    LAM_TRY(set_pointers(plan, p));
    uint64_t m = (uint64_t)p->m, n = (uint64_t)p->n, k = (uint64_t)p->k;
    TRY_LT(p, "operand",
           cublasLtMatrixLayoutInit(&plan->a, type, p->turn_b ? k : n, p->turn_b ? n : k, p->ldb));
    TRY_LT(p, "operand",
           cublasLtMatrixLayoutInit(&plan->b, type, p->turn_a ? m : k, p->turn_a ? k : m, p->lda));
    TRY_LT(p, "result", cublasLtMatrixLayoutInit(&plan->c, result, n, m, p->ldc));
    return LAM_OK;
}

cublasStatus_t run(plan *plan, const cublasLtMatmulAlgo_t *algorithm, const lam_cuda_product *p) {
    size_t bytes;
    void *workspace = lam_cuda_workspace(&bytes);
    float beta = p->addend ? p->addend_scale : p->accumulate ? 1.0f : 0.0f;
    return cublasLtMatmul(handle, &plan->operation, &p->scale, p->b, &plan->a, p->a, &plan->b, &beta,
                          p->addend ? p->addend : p->c, &plan->c, p->c, &plan->c, algorithm, workspace, bytes,
                          lam_cuda_stream());
}

/* ---- the choice of algorithms ---- */

/* There is such a thing, if cuBLASLt has it. */
bool may_fuse(const lam_cuda_product *p) {
    return p->epilogue == LAM_CUDA_PLAIN || (!never_fuse && (!has_h(p->epilogue) || p->result == LAM_BF16));
}

/* What is done without having measured it. */
bool is_better_fused(const lam_cuda_product *p) {
    return p->epilogue == LAM_CUDA_GELU ? lam_cuda_properties()->major >= 9
                                        : p->epilogue != LAM_CUDA_GELU_SLOPE;
}

enum { CANDIDATES = 32 };

template <typename T>
cublasStatus_t prefer(cublasLtMatmulPreferenceOpaque_t *preference,
                      cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value);
}

/* *count: how many there are; an error of cuBLASLt's is told by its status, since an epilogue may just not be there. */
cublasStatus_t ask(plan *plan, const key &k, cublasLtMatmulHeuristicResult_t *results, int *count) {
    cublasLtMatmulPreferenceOpaque_t preference;
    size_t bytes;
    (void)lam_cuda_workspace(&bytes);
    *count = 0;
    /* Parts of a sum that was split are added up in float32, never in bfloat16. */
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (k.result == LAM_F32) reductions |= CUBLASLT_REDUCTION_SCHEME_INPLACE;
    cublasStatus_t status = cublasLtMatmulPreferenceInit(&preference);
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        int32_t alignment;
    } alignments[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, k.align_b},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, k.align_a},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, k.align_c},
                      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, k.align_c}};
    for (const auto &a : alignments)
        if (status == CUBLAS_STATUS_SUCCESS) status = prefer(&preference, a.attribute, (uint32_t)a.alignment);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = prefer(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (uint64_t)bytes);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = prefer(&preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    int found = 0;
    status = cublasLtMatmulAlgoGetHeuristic(handle, &plan->operation, &plan->a, &plan->b, &plan->c, &plan->c,
                                            &preference, autotune ? CANDIDATES : 1, results, &found);
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < found; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS) results[(*count)++] = results[i];
    return status;
}

lam_status unfused(const lam_cuda_product *p);

/* Outputs of a trial, so that it changes nothing. */
struct trial {
    lam_cuda_product p;
    cudaEvent_t begin, end;
    void *memory;
};

size_t padded(size_t bytes) { return (bytes + 255) & ~(size_t)255; }

bool open_trial(trial *t, const lam_cuda_product *p) {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    if (cudaStreamIsCapturing(lam_cuda_stream(), &capture) != cudaSuccess ||
        capture != cudaStreamCaptureStatusNone)
        return false;
    size_t matrix = padded((size_t)(p->m * p->ldc) * (p->result == LAM_BF16 ? 2 : 4)),
           bytes = 2 * matrix + (size_t)p->n * sizeof(float);
    *t = {*p, NULL, NULL, NULL};
    if (cudaMalloc(&t->memory, bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    cudaEventCreate(&t->begin);
    cudaEventCreate(&t->end);
    cudaMemsetAsync(t->memory, 0, bytes, lam_cuda_stream());
    char *at = (char *)t->memory;
    t->p.c = at;
    if (p->epilogue == LAM_CUDA_GELU) t->p.h = at + matrix;
    t->p.sums = {{(float *)(at + 2 * matrix)}, {p->n}, {false}};
    return true;
}

void close_trial(trial *t) {
    cudaStreamSynchronize(lam_cuda_stream());
    cudaEventDestroy(t->begin);
    cudaEventDestroy(t->end);
    cudaFree(t->memory);
}

lam_status execute(plan *plan, const cublasLtMatmulAlgo_t *algorithm, const lam_cuda_product *p) {
    TRY_LT(p, "the product", run(plan, algorithm, p));
    if (p->epilogue == LAM_CUDA_GELU_SLOPE)
        lam_cuda_column_sums(p->c, p->m, p->n, p->ldc, &p->sums, p->result);
    return LAM_OK;
}

enum { RUNS = 4 };

/* Milliseconds of that many runs, the least of three; the first of all is not counted. Negative: it fails. algorithm NULL:
 * unfused. */
float time_of(trial *t, plan *plan, const cublasLtMatmulAlgo_t *algorithm) {
    float least = -1.0f;
    for (int round = 0; round < 4; round++) {
        cudaEventRecord(t->begin, lam_cuda_stream());
        for (int i = 0; i < RUNS; i++)
            if ((algorithm ? execute(plan, algorithm, &t->p) : unfused(&t->p)) != LAM_OK) return -1.0f;
        cudaEventRecord(t->end, lam_cuda_stream());
        float took = 0;
        if (cudaEventSynchronize(t->end) != cudaSuccess ||
            cudaEventElapsedTime(&took, t->begin, t->end) != cudaSuccess)
            return -1.0f;
        if (round > 0 && (least < 0 || took < least)) least = took;
    }
    return least;
}

lam_status tune(plan *plan, const lam_cuda_product *p, const cublasLtMatmulHeuristicResult_t *results,
                int count) {
    trial t;
    if (!open_trial(&t, p)) return LAM_OK;
    lam_status status = set_pointers(plan, &t.p);
    float best = -1.0f;
    for (int i = 0; status == LAM_OK && i < count; i++) {
        float took = time_of(&t, plan, &results[i].algo);
        if (took < 0 || (best >= 0 && took >= best)) continue;
        best = took;
        plan->algorithm = results[i].algo;
    }
    if (status == LAM_OK && p->epilogue != LAM_CUDA_PLAIN) {
        float apart = time_of(&t, plan, NULL);
        plan->runs = apart < 0 || (best >= 0 && best <= apart);
        lam_log_info("product of %lld x %lld x %lld with %s: %.0f us fused, the best of %d, %.0f us apart",
                     (long long)p->m, (long long)p->n, (long long)p->k, epilogue_name(p->epilogue),
                     (double)best * 1e3 / RUNS, count, (double)apart * 1e3 / RUNS);
    }
    close_trial(&t);
    return status;
}

lam_status choose(plan *plan, const key &k, const lam_cuda_product *p) {
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    int count;
    LAM_TRY(describe(plan, p));
    if (!may_fuse(p)) return LAM_OK;
    auto before = recorded.find(k);
    if (before != recorded.end() && !before->second.runs) return LAM_OK;
    if (before != recorded.end() &&
        cublasLtMatmulAlgoCheck(handle, &plan->operation, &plan->a, &plan->b, &plan->c, &plan->c,
                                &before->second.algorithm, results) == CUBLAS_STATUS_SUCCESS) {
        plan->runs = true;
        plan->algorithm = before->second.algorithm;
        return LAM_OK;
    }
    if (!autotune && !is_better_fused(p)) return LAM_OK;
    cublasStatus_t status = ask(plan, k, results, &count);
    if (p->epilogue == LAM_CUDA_PLAIN) {
        TRY_LT(p, "no algorithm", status);
        if (count < 1) return failed(p, "no algorithm", CUBLAS_STATUS_NOT_SUPPORTED);
    }
    if (status != CUBLAS_STATUS_SUCCESS || count < 1) return LAM_OK;
    plan->runs = true;
    plan->algorithm = results[0].algo;
    return autotune ? tune(plan, p, results, count) : LAM_OK;
}

lam_status find(plan **out, const lam_cuda_product *p) {
    if (!handle) TRY_LT(p, "start", cublasLtCreate(&handle));
    key k = key_of(p);
    auto known = plans.find(k);
    if (known == plans.end()) {
        plan made;
        memset(&made, 0, sizeof made);
        LAM_TRY(choose(&made, k, p));
        known = plans.emplace(k, made).first;
    }
    *out = &known->second;
    return LAM_OK;
}

/* ---- products ---- */

lam_status unfused(const lam_cuda_product *p) {
    lam_cuda_product first = *p;
    first.epilogue = LAM_CUDA_PLAIN;
    switch (p->epilogue) {
    case LAM_CUDA_BIAS:
        lam_cuda_fill_rows(p->bias, p->addend, p->c, p->m, p->n, p->ldc, p->result);
        first.addend = NULL;
        first.accumulate = true;
        return lam_cuda_multiply(&first);
    case LAM_CUDA_GELU:
        first.epilogue = LAM_CUDA_BIAS;
        first.c = p->h;
        LAM_TRY(lam_cuda_multiply(&first));
        lam_cuda_gelu(p->h, p->c, p->m * p->n, p->result);
        return LAM_OK;
    default: /* the slope */
        LAM_TRY(lam_cuda_multiply(&first));
        lam_cuda_gelu_slope(p->h, p->c, p->m, p->n, &p->sums, p->result);
        return LAM_OK;
    }
}

} // namespace

lam_status lam_cuda_multiply(const lam_cuda_product *p) {
    lam_cuda_epilogue e = p->epilogue;
    bool scaled = p->scale != 1.0f || p->addend_scale != 1.0f;
    LAM_REQUIRE((e == LAM_CUDA_PLAIN || (!p->accumulate && !scaled)) &&
                    (!has_h(e) || (p->ldc == p->n && !p->addend)) && !(p->accumulate && p->addend),
                LAM_ERROR_INTERNAL, "a product of %s cannot be so", epilogue_name(e));
    if (p->m < 1 && e == LAM_CUDA_GELU_SLOPE)
        lam_cuda_column_sums(p->c, p->m, p->n, p->ldc, &p->sums, p->result); /* zeros */
    if (p->m < 1 || p->n < 1) return LAM_OK;
    if (p->k < 1) { /* no rows: gradients of weights */
        LAM_REQUIRE(e == LAM_CUDA_PLAIN && p->result == LAM_F32 && p->ldc == p->n && !p->addend, LAM_ERROR_INTERNAL,
                    "a sum of nothing cannot be so");
        lam_cuda_sums nothing = {{(float *)p->c}, {p->m * p->n}, {p->accumulate}};
        lam_cuda_fold_sums(NULL, 0, p->m * p->n, &nothing);
        return LAM_OK;
    }
    plan *plan;
    LAM_TRY(find(&plan, p));
    if (!plan->runs) return unfused(p);
    LAM_TRY(set_pointers(plan, p));
    return execute(plan, &plan->algorithm, p);
}

lam_status lam_cuda_product_f32(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                                const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                                float *c, int64_t ldc) {
    LAM_REQUIRE(beta == 0.0f || beta == 1.0f, LAM_ERROR_INTERNAL, "beta is 0 or 1");
    lam_cuda_product p = lam_cuda_product_of(LAM_F32, LAM_F32, m, n, k);
    p.turn_a = transpose_a, p.turn_b = transpose_b, p.accumulate = beta == 1.0f;
    p.a = a, p.lda = lda, p.b = b, p.ldb = ldb, p.c = c, p.ldc = ldc;
    return lam_cuda_multiply(&p);
}

bool lam_cuda_is_fused(const lam_cuda_product *p) {
    plan *plan;
    return find(&plan, p) == LAM_OK && plan->runs;
}

void lam_cuda_autotune(bool on) { autotune = on; }

void lam_cuda_never_fuse(bool never) {
    never_fuse = never;
    plans.clear();
}

void lam_cuda_plans_release(void) {
    plans.clear();
    recorded.clear();
    if (handle) cublasLtDestroy(handle);
    handle = NULL;
}

/* ---- as text ---- */

#define TEXT_BEGIN "lamella cuBLASLt plans 2\n"

namespace {

const char digits[] = "0123456789abcdef";

std::string device_line() {
    return std::string(lam_cuda_properties()->name) + ", cuBLASLt " + std::to_string(cublasLtGetVersion()) +
           "\n";
}

bool read_line(const char *line, key *k, choice *c) {
    long long sizes[6];
    int used = 0, runs;
    memset(k, 0, sizeof *k);
    if (sscanf(line, "%lld %lld %lld %lld %lld %lld %d %d %d %d %d %d %d %d %d %d %n", &sizes[0], &sizes[1],
               &sizes[2], &sizes[3], &sizes[4], &sizes[5], &k->type, &k->result, &k->turns, &k->accumulate,
               &k->epilogue, &k->align_a, &k->align_b, &k->align_c, &k->align_more, &runs, &used) != 16)
        return false;
    k->m = sizes[0], k->n = sizes[1], k->k = sizes[2], k->lda = sizes[3], k->ldb = sizes[4],
    k->ldc = sizes[5];
    c->runs = runs != 0;
    const char *at = line + used;
    for (size_t i = 0; i < sizeof c->algorithm; i++, at += 2) {
        const char *high = at[0] ? strchr(digits, at[0]) : NULL,
                   *low = high && at[1] ? strchr(digits, at[1]) : NULL;
        if (!low) return false;
        ((unsigned char *)&c->algorithm)[i] = (unsigned char)((high - digits) << 4 | (low - digits));
    }
    return *at == '\n';
}

} // namespace

int64_t lam_cuda_plans_write(char **text) {
    std::string all = TEXT_BEGIN + device_line();
    for (const auto &entry : plans) {
        const key &k = entry.first;
        char line[320];
        snprintf(line, sizeof line, "%lld %lld %lld %lld %lld %lld %d %d %d %d %d %d %d %d %d %d ",
                 (long long)k.m, (long long)k.n, (long long)k.k, (long long)k.lda, (long long)k.ldb,
                 (long long)k.ldc, k.type, k.result, k.turns, k.accumulate, k.epilogue, k.align_a, k.align_b,
                 k.align_c, k.align_more, entry.second.runs);
        all += line;
        const unsigned char *bytes = (const unsigned char *)&entry.second.algorithm;
        for (size_t i = 0; i < sizeof entry.second.algorithm; i++) {
            all += digits[bytes[i] >> 4];
            all += digits[bytes[i] & 15];
        }
        all += '\n';
    }
    return lam_text_copy(text, all.c_str()) == LAM_OK ? (int64_t)plans.size() : -1;
}

int64_t lam_cuda_plans_read(const char *text) {
    std::string device = device_line();
    std::map<key, choice> found;
    if (strncmp(text, TEXT_BEGIN, strlen(TEXT_BEGIN)) != 0) {
        lam_fail(LAM_ERROR_FORMAT, __FILE__, __LINE__, "the text does not hold plans of matrix products");
        return -1;
    }
    text += strlen(TEXT_BEGIN);
    if (strncmp(text, device.c_str(), device.size()) != 0) return 0;
    text += device.size();
    for (; *text; text = strchr(text, '\n') + 1) {
        key k;
        choice c;
        if (!read_line(text, &k, &c)) {
            lam_fail(LAM_ERROR_FORMAT, __FILE__, __LINE__, "a plan of a matrix product cannot be read: %.60s",
                     text);
            return -1;
        }
        found[k] = c;
    }
    recorded = found;
    return (int64_t)found.size();
}

extern "C" const lam_cuda_products *lam_cuda_products_get(void) {
    static const lam_cuda_products table = {lam_cuda_multiply,     lam_cuda_is_fused,    lam_cuda_autotune,
                                            lam_cuda_never_fuse,   lam_cuda_plans_write, lam_cuda_plans_read,
                                            lam_cuda_plans_release};
    return &table;
}
