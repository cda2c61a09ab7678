/* A stand-in for cuBLASLt on the emulator's streams.
 *
 * Products are float32 sums in blocks along k, which an algorithm's number decides, so that another algorithm gives other
 * bits; LAMELLA_EMULATION_SUMS says in which direction, or for bfloat16 that every addition is cut off instead of rounded, as
 * tensor cores may do. Refused is what the documentation of cuBLASLt 13 rules out (cublasLt.h, cuBLAS manual, section
 * 3.4.17), and what it leaves open in favour of the caller who relies on less: fused GELU and its slope want every pointer at
 * a multiple of 16 bytes and every row of that length, biases start at a multiple of 16 bytes, and D lies over no operand but over
 * all of C. */
#include "emulator.h"

#include <algorithm>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <fenv.h>
#include <vector>

namespace {

/* ---- what the opaque structures hold ---- */

struct layout_data {
    uint32_t type;
    int32_t order;
    uint64_t rows, columns;
    int64_t ld, stride;
    int32_t batch;
};
struct operation_data {
    int32_t compute, scale, pointer_mode, turn_a, turn_b;
    uint32_t epilogue;
    const void *bias;
    void *aux;
    int64_t bias_stride, aux_ld, aux_stride;
    int32_t bias_type, aux_type;
};
struct preference_data {
    uint64_t workspace;
    uint32_t search, reductions, alignments[4];
};
struct algorithm_data {
    uint32_t magic, number, epilogue, types, turns, alignment;
    uint64_t workspace;
};
static_assert(sizeof(layout_data) <= sizeof(cublasLtMatrixLayoutOpaque_t) &&
                  sizeof(operation_data) <= sizeof(cublasLtMatmulDescOpaque_t) &&
                  sizeof(preference_data) <= sizeof(cublasLtMatmulPreferenceOpaque_t) &&
                  sizeof(algorithm_data) <= sizeof(cublasLtMatmulAlgo_t),
              "the stand-in's structures fit into cuBLASLt's");
constexpr uint32_t MAGIC = 0x6c616d65;

/* The first wants 16 bytes, splits k in blocks of 64; the second the same in blocks of 256 with a workspace; the third takes
 * any alignment, without epilogues of GELU. */
constexpr struct {
    uint32_t alignment;
    int64_t block;
    uint64_t workspace;
} algorithms[] = {{16, 64, 0}, {16, 256, 1 << 20}, {1, 128, 0}};
constexpr uint32_t ALGORITHMS = sizeof algorithms / sizeof *algorithms;

template <typename Data, typename Opaque> Data data_of(const Opaque *opaque) {
    Data data;
    memcpy(&data, opaque, sizeof data);
    return data;
}
template <typename Opaque, typename Data> void put(Opaque *opaque, const Data &data) {
    memcpy(opaque, &data, sizeof data);
}
template <typename T> cublasStatus_t take(T *to, const void *value, size_t bytes) {
    if (!value || bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

size_t bytes_of(uint32_t type) { return type == CUDA_R_16BF ? 2 : 4; }

/* ---- what is refused ---- */

bool reads_bias(uint32_t e) { return e == CUBLASLT_EPILOGUE_BIAS || e == CUBLASLT_EPILOGUE_GELU_AUX_BIAS; }
bool has_aux(uint32_t e) { return e == CUBLASLT_EPILOGUE_GELU_AUX_BIAS || e == CUBLASLT_EPILOGUE_DGELU; }

struct problem {
    operation_data operation;
    layout_data a, b, c, d;
    int64_t m, n, k;
};

cublasStatus_t check_types(const problem &p) {
    bool bf16 = p.a.type == CUDA_R_16BF, f32 = p.a.type == CUDA_R_32F;
    if (p.operation.compute != CUBLAS_COMPUTE_32F && p.operation.compute != CUBLAS_COMPUTE_32F_PEDANTIC)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.operation.scale != CUDA_R_32F || p.a.type != p.b.type || p.c.type != p.d.type || (!bf16 && !f32) ||
        !(p.d.type == CUDA_R_32F || (bf16 && p.d.type == CUDA_R_16BF)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    int32_t result = static_cast<int32_t>(p.d.type);
    if (p.operation.bias_type != -1 && p.operation.bias_type != result) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.operation.aux_type != -1 && p.operation.aux_type != result) return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_layout(const layout_data &l, const layout_data &d) {
    if (l.rows < 1 || l.columns < 1 || l.rows > INT32_MAX || l.columns > INT32_MAX || l.batch != d.batch)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (l.order != CUBLASLT_ORDER_COL) return CUBLAS_STATUS_NOT_SUPPORTED;
    return l.ld < static_cast<int64_t>(l.rows) ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_epilogue(const problem &p) {
    const operation_data &o = p.operation;
    uint32_t e = o.epilogue;
    if (e != CUBLASLT_EPILOGUE_DEFAULT && !reads_bias(e) && !has_aux(e)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (reads_bias(e) && (!o.bias || reinterpret_cast<uintptr_t>(o.bias) % 16))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (has_aux(e) && (!o.aux || o.aux_ld < p.m)) return CUBLAS_STATUS_INVALID_VALUE;
    if (has_aux(e) && (o.aux_ld % 8 || reinterpret_cast<uintptr_t>(o.aux) % 16))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t describe(problem *p, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                        cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
    if (!operation || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
    *p = {data_of<operation_data>(operation),
          data_of<layout_data>(a),
          data_of<layout_data>(b),
          data_of<layout_data>(c),
          data_of<layout_data>(d),
          0,
          0,
          0};
    const operation_data &o = p->operation;
    if (o.pointer_mode != CUBLASLT_POINTER_MODE_HOST) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (const layout_data *l : {&p->a, &p->b, &p->c, &p->d}) {
        cublasStatus_t status = check_layout(*l, p->d);
        if (status != CUBLAS_STATUS_SUCCESS) return status;
    }
    p->m = static_cast<int64_t>(p->d.rows), p->n = static_cast<int64_t>(p->d.columns);
    p->k = static_cast<int64_t>(o.turn_a ? p->a.rows : p->a.columns);
    uint64_t m = o.turn_a ? p->a.columns : p->a.rows, n = o.turn_b ? p->b.rows : p->b.columns,
             k = o.turn_b ? p->b.columns : p->b.rows;
    if (m != p->d.rows || n != p->d.columns || k != static_cast<uint64_t>(p->k) || p->c.rows != p->d.rows ||
        p->c.columns != p->d.columns)
        return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = check_types(*p);
    return status == CUBLAS_STATUS_SUCCESS ? check_epilogue(*p) : status;
}

bool is_aligned(const layout_data &l, uint64_t pointer, uint32_t alignment) {
    uint64_t size = bytes_of(l.type), wanted = alignment < size ? size : alignment;
    return pointer % wanted == 0 && static_cast<uint64_t>(l.ld) * size % wanted == 0 &&
           (l.batch == 1 || static_cast<uint64_t>(l.stride) * size % wanted == 0);
}

/* pointers: of a, b, c, d, or alignments that they are known to have. */
bool serves(uint32_t number, const problem &p, const uint64_t pointers[4]) {
    uint32_t e = p.operation.epilogue, alignment = algorithms[number].alignment;
    if (alignment == 1 && has_aux(e)) return false;
    return is_aligned(p.a, pointers[0], alignment) && is_aligned(p.b, pointers[1], alignment) &&
           is_aligned(p.c, pointers[2], alignment) && is_aligned(p.d, pointers[3], alignment);
}

algorithm_data algorithm_of(uint32_t number, const problem &p) {
    return {MAGIC,
            number,
            p.operation.epilogue,
            p.a.type | p.d.type << 8,
            static_cast<uint32_t>(p.operation.turn_a | p.operation.turn_b << 1),
            algorithms[number].alignment,
            algorithms[number].workspace};
}

bool belongs(const algorithm_data &algorithm, const problem &p) {
    if (algorithm.magic != MAGIC || algorithm.number >= ALGORITHMS) return false;
    algorithm_data wanted = algorithm_of(algorithm.number, p);
    return algorithm.epilogue == wanted.epilogue && algorithm.types == wanted.types &&
           algorithm.turns == wanted.turns;
}

/* ---- products ---- */

struct work {
    problem p;
    float alpha, beta;
    const void *a, *b, *c;
    void *d;
    uint32_t number;
};

float read(const void *base, uint32_t type, int64_t i) {
    if (type == CUDA_R_32F) return static_cast<const float *>(base)[i];
    return __bfloat162float(static_cast<const __nv_bfloat16 *>(base)[i]);
}
void write(void *base, uint32_t type, int64_t i, float value) {
    if (type == CUDA_R_32F)
        static_cast<float *>(base)[i] = value;
    else
        static_cast<__nv_bfloat16 *>(base)[i] = __float2bfloat16_rn(value);
}

constexpr int64_t TILE_ROWS = 4, TILE_COLUMNS = 32;

/* Columns of D are rows here, and its rows, side by side in memory, are columns: sum[4][32] += left[4][k] right[k][32], k in
 * panels of left [k][4] and right [k][32]. No other order of additions for any vector length. */
__attribute__((target_clones("avx2", "default"), optimize("O3"))) void
add_tile(const float *left, const float *right, int64_t count, bool reversed, float *sum) {
    float own[TILE_ROWS][TILE_COLUMNS];
    memcpy(own, sum, sizeof own);
    for (int64_t step = 0; step < count; step++) {
        int64_t k = reversed ? count - 1 - step : step;
        for (int64_t i = 0; i < TILE_ROWS; i++)
            for (int64_t j = 0; j < TILE_COLUMNS; j++)
                own[i][j] += left[k * TILE_ROWS + i] * right[k * TILE_COLUMNS + j];
    }
    memcpy(sum, own, sizeof own);
}

/* Panels of `width` rows of a matrix [rows, k], row r at base + r * row_step, element k of it k * k_step further. */
std::vector<float> panels(const void *base, uint32_t type, int64_t rows, int64_t k, int64_t row_step,
                          int64_t k_step, int64_t width) {
    int64_t count = (rows + width - 1) / width;
    std::vector<float> packed(static_cast<size_t>(count * k * width), 0.0f);
    for (int64_t panel = 0; panel < count; panel++) {
        float *to = packed.data() + panel * k * width;
        int64_t end = std::min(width, rows - panel * width);
        if (row_step == 1) {
            for (int64_t i = 0; i < k; i++)
                for (int64_t r = 0; r < end; r++)
                    to[i * width + r] = read(base, type, panel * width + r + i * k_step);
        } else {
            for (int64_t r = 0; r < end; r++)
                for (int64_t i = 0; i < k; i++)
                    to[i * width + r] = read(base, type, (panel * width + r) * row_step + i * k_step);
        }
    }
    return packed;
}

/* 0.5 h (1 + tanh u), u = sqrt(2 / pi) (h + 0.044715 h^3), and its derivative. */
float gelu(float h) {
    float u = 0.79788456080286536f * (h + 0.044715f * h * h * h);
    return 0.5f * h * (1.0f + tanhf(u));
}
float gelu_slope(float h) {
    float u = 0.79788456080286536f * (h + 0.044715f * h * h * h), t = tanhf(u);
    return 0.5f * (1.0f + t) +
           0.5f * h * (1.0f - t * t) * 0.79788456080286536f * (1.0f + 3.0f * 0.044715f * h * h);
}

struct instance { /* of a batch */
    const void *a, *b, *c, *bias;
    void *d, *aux;
};

/* Element (row, column) of D, column-major. */
void finish(const work &w, const instance &at, int64_t row, int64_t column, float sum) {
    const operation_data &o = w.p.operation;
    float value = w.alpha * sum;
    if (w.beta != 0) value += w.beta * read(at.c, w.p.c.type, column * w.p.c.ld + row);
    if (reads_bias(o.epilogue)) value += read(at.bias, w.p.d.type, row);
    if (o.epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS) {
        write(at.aux, w.p.d.type, column * o.aux_ld + row, value);
        value = gelu(value);
    }
    if (o.epilogue == CUBLASLT_EPILOGUE_DGELU)
        value *= gelu_slope(read(at.aux, w.p.d.type, column * o.aux_ld + row));
    write(at.d, w.p.d.type, column * w.p.d.ld + row, value);
}

void multiply(const work &w, const instance &at) {
    const problem &p = w.p;
    bool turn_a = p.operation.turn_a, turn_b = p.operation.turn_b, bf16 = p.a.type == CUDA_R_16BF,
         reversed = lam_emulated_sum_order() == 1;
    int rounding = fegetround();
    std::vector<float> left = panels(at.b, p.b.type, p.n, p.k, turn_b ? 1 : p.b.ld, turn_b ? p.b.ld : 1,
                                     TILE_ROWS),
                       right = panels(at.a, p.a.type, p.m, p.k, turn_a ? p.a.ld : 1, turn_a ? 1 : p.a.ld,
                                      TILE_COLUMNS);
    int64_t block = algorithms[w.number].block;
    for (int64_t column = 0; column < p.n; column += TILE_ROWS)
        for (int64_t row = 0; row < p.m; row += TILE_COLUMNS) {
            float sum[TILE_ROWS * TILE_COLUMNS] = {0};
            if (bf16 && lam_emulated_sum_order() == 2) fesetround(FE_TOWARDZERO);
            for (int64_t first = 0; first < p.k; first += block) {
                float part[TILE_ROWS * TILE_COLUMNS] = {0};
                add_tile(left.data() + (column * p.k + first * TILE_ROWS),
                         right.data() + (row * p.k + first * TILE_COLUMNS), std::min(block, p.k - first),
                         reversed, part);
                for (int64_t i = 0; i < TILE_ROWS * TILE_COLUMNS; i++) sum[i] += part[i];
            }
            fesetround(rounding);
            for (int64_t j = column; j < std::min(column + TILE_ROWS, p.n); j++)
                for (int64_t i = row; i < std::min(row + TILE_COLUMNS, p.m); i++)
                    finish(w, at, i, j, sum[(j - column) * TILE_COLUMNS + i - row]);
        }
}

const void *moved(const void *base, int64_t elements, uint32_t type) {
    return static_cast<const char *>(base) + elements * static_cast<int64_t>(bytes_of(type));
}

/* Of one of a batch. */
size_t extent(const layout_data &l) {
    return ((l.columns - 1) * static_cast<uint64_t>(l.ld) + l.rows) * bytes_of(l.type);
}

void declare(const void *base, const layout_data &l, bool written) {
    lam_emulated_range(base, extent(l), written);
}

bool overlap(const void *a, const layout_data &a_layout, const void *b, const layout_data &b_layout) {
    const void *a_end = static_cast<const char *>(
                            moved(a, (a_layout.batch - 1) * a_layout.stride, a_layout.type)) +
                        extent(a_layout),
               *b_end = static_cast<const char *>(
                            moved(b, (b_layout.batch - 1) * b_layout.stride, b_layout.type)) +
                        extent(b_layout);
    return a < b_end && b < a_end;
}

void run(void *argument) {
    const work &w = *static_cast<const work *>(argument);
    const problem &p = w.p;
    const operation_data &o = p.operation;
    for (int32_t i = 0; i < p.d.batch; i++) {
        instance at = {moved(w.a, i * p.a.stride, p.a.type),
                       moved(w.b, i * p.b.stride, p.b.type),
                       moved(w.c, i * p.c.stride, p.c.type),
                       moved(o.bias, i * o.bias_stride, p.d.type),
                       const_cast<void *>(moved(w.d, i * p.d.stride, p.d.type)),
                       const_cast<void *>(moved(o.aux, i * o.aux_stride, p.d.type))};
        declare(at.a, p.a, false);
        declare(at.b, p.b, false);
        if (w.beta != 0) declare(at.c, p.c, false);
        declare(at.d, p.d, true);
        if (reads_bias(o.epilogue))
            lam_emulated_range(at.bias, static_cast<size_t>(p.m) * bytes_of(p.d.type), false);
        layout_data aux = p.d;
        aux.ld = o.aux_ld;
        if (has_aux(o.epilogue)) declare(at.aux, aux, o.epilogue != CUBLASLT_EPILOGUE_DGELU);
        multiply(w, at);
    }
}

} // namespace

struct cublasLtContext {
    uint32_t magic;
};

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
    *handle = new cublasLtContext{MAGIC};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    if (!handle || handle->magic != MAGIC) return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->magic = 0;
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}
const char *cublasLtGetStatusString(cublasStatus_t status) { return cublasLtGetStatusName(status); }
size_t cublasLtGetVersion(void) { return 130100; }

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t size,
                                                 cudaDataType type, uint64_t rows, uint64_t columns,
                                                 int64_t ld) {
    if (!layout) return CUBLAS_STATUS_INVALID_VALUE;
    if (size < sizeof *layout) return CUBLAS_STATUS_ALLOC_FAILED;
    memset(layout, 0, sizeof *layout);
    put(layout, layout_data{static_cast<uint32_t>(type), CUBLASLT_ORDER_COL, rows, columns, ld, 0, 1});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                size_t bytes) {
    if (!layout) return CUBLAS_STATUS_INVALID_VALUE;
    layout_data l = data_of<layout_data>(layout);
    cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE;
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE: status = take(&l.type, value, bytes); break;
    case CUBLASLT_MATRIX_LAYOUT_ORDER: status = take(&l.order, value, bytes); break;
    case CUBLASLT_MATRIX_LAYOUT_ROWS: status = take(&l.rows, value, bytes); break;
    case CUBLASLT_MATRIX_LAYOUT_COLS: status = take(&l.columns, value, bytes); break;
    case CUBLASLT_MATRIX_LAYOUT_LD: status = take(&l.ld, value, bytes); break;
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: status = take(&l.batch, value, bytes); break;
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: status = take(&l.stride, value, bytes); break;
    }
    put(layout, l);
    return status;
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t operation, size_t size,
                                               cublasComputeType_t compute, cudaDataType_t scale) {
    if (!operation) return CUBLAS_STATUS_INVALID_VALUE;
    if (size < sizeof *operation) return CUBLAS_STATUS_ALLOC_FAILED;
    operation_data o = {};
    o.compute = compute;
    o.scale = scale;
    o.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    o.bias_type = o.aux_type = -1;
    memset(operation, 0, sizeof *operation);
    put(operation, o);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute, const void *value,
                                              size_t bytes) {
    if (!operation) return CUBLAS_STATUS_INVALID_VALUE;
    operation_data o = data_of<operation_data>(operation);
    cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE;
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: status = take(&o.compute, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE: status = take(&o.scale, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: status = take(&o.pointer_mode, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_TRANSA: status = take(&o.turn_a, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_TRANSB: status = take(&o.turn_b, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: status = take(&o.epilogue, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: status = take(&o.bias, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE: status = take(&o.bias_stride, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: status = take(&o.aux, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: status = take(&o.aux_ld, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE: status = take(&o.aux_stride, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE: status = take(&o.aux_type, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: status = take(&o.bias_type, value, bytes); break;
    }
    put(operation, o);
    return status;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference, size_t size) {
    if (!preference) return CUBLAS_STATUS_INVALID_VALUE;
    if (size < sizeof *preference) return CUBLAS_STATUS_ALLOC_FAILED;
    memset(preference, 0, sizeof *preference);
    put(preference, preference_data{0, 0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes) {
    if (!preference) return CUBLAS_STATUS_INVALID_VALUE;
    preference_data p = data_of<preference_data>(preference);
    cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE;
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE: status = take(&p.search, value, bytes); break;
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: status = take(&p.workspace, value, bytes); break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: status = take(&p.reductions, value, bytes); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: status = take(&p.alignments[0], value, bytes); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: status = take(&p.alignments[1], value, bytes); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: status = take(&p.alignments[2], value, bytes); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: status = take(&p.alignments[3], value, bytes); break;
    }
    put(preference, p);
    return status;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *count) {
    problem p;
    *count = 0;
    if (!handle || handle->magic != MAGIC) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!preference || wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = describe(&p, operation, a, b, c, d);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    preference_data wish = data_of<preference_data>(preference);
    const uint64_t alignments[4] = {wish.alignments[0], wish.alignments[1], wish.alignments[2],
                                    wish.alignments[3]};
    for (uint32_t number = 0; number < ALGORITHMS && *count < wanted; number++) {
        if (!serves(number, p, alignments) || algorithms[number].workspace > wish.workspace) continue;
        cublasLtMatmulHeuristicResult_t *result = &results[(*count)++];
        memset(result, 0, sizeof *result);
        put(&result->algo, algorithm_of(number, p));
        result->workspaceSize = algorithms[number].workspace;
        result->wavesCount = 1;
    }
    return *count ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algorithm,
                                       cublasLtMatmulHeuristicResult_t *result) {
    problem p;
    if (!handle || handle->magic != MAGIC) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!algorithm || !result) return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = describe(&p, operation, a, b, c, d);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    algorithm_data chosen = data_of<algorithm_data>(algorithm);
    const uint64_t aligned[4] = {256, 256, 256, 256};
    if (!belongs(chosen, p)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!serves(chosen.number, p, aligned)) return CUBLAS_STATUS_NOT_SUPPORTED;
    result->workspaceSize = chosen.workspace;
    result->state = CUBLAS_STATUS_SUCCESS;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    work w = {};
    if (!handle || handle->magic != MAGIC) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!alpha || !beta || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = describe(&w.p, operation, a_layout, b_layout, c_layout, d_layout);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    w.alpha = *static_cast<const float *>(alpha), w.beta = *static_cast<const float *>(beta);
    w.a = a, w.b = b, w.c = c, w.d = d;
    if (c == d ? w.p.c.ld != w.p.d.ld || w.p.c.stride != w.p.d.stride
               : w.beta != 0 && overlap(c, w.p.c, d, w.p.d))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (overlap(a, w.p.a, d, w.p.d) || overlap(b, w.p.b, d, w.p.d)) return CUBLAS_STATUS_INVALID_VALUE;
    const uint64_t pointers[4] = {reinterpret_cast<uint64_t>(a), reinterpret_cast<uint64_t>(b),
                                  reinterpret_cast<uint64_t>(c), reinterpret_cast<uint64_t>(d)};
    algorithm_data chosen = {};
    if (algorithm) chosen = data_of<algorithm_data>(algorithm);
    for (uint32_t number = ALGORITHMS; !algorithm && number-- > 0;)
        if (serves(number, w.p, pointers)) chosen = algorithm_of(number, w.p);
    if (!belongs(chosen, w.p) || chosen.workspace > workspace_bytes ||
        (chosen.workspace && (!workspace || reinterpret_cast<uintptr_t>(workspace) % 256)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!serves(chosen.number, w.p, pointers)) return CUBLAS_STATUS_NOT_SUPPORTED;
    w.number = chosen.number;
    cudaError_t error = lam_emulated_enqueue(stream, "cublasLtMatmul", run, &w, sizeof w);
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
}
