/* The parallel block: weights with LayerScale in them: the CUDA versions of model/cpu/parallel.inc.h.
 *
 * Bound by bytes, each read or written once: scale_rows 8 bytes a weight, its gradient 16. At most 64 registers. */
#include "model/cuda/vector.cuh"

namespace {

template <int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    scale_rows_kernel(const float *w, const float *scale, float *scaled, int64_t rows, int64_t width) {
    int64_t row = lam_row_of_warp();
    if (row >= rows) return;
    float factor = scale[row];
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        float value[V];
        lam_read_floats<V>(w + row * width + i, value);
#pragma unroll
        for (int k = 0; k < V; k++) value[k] *= factor;
        lam_write_floats<V>(scaled + row * width + i, value);
    }
}

template <int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    scale_rows_backward_kernel(const float *w, const float *scale, const float *product, float *dw,
                               float *d_scale, int64_t rows, int64_t width) {
    int64_t row = lam_row_of_warp();
    if (row >= rows) return;
    float factor = scale[row], sum = 0;
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        float weight[V], from[V], to[V];
        lam_read_floats<V>(w + row * width + i, weight);
        lam_read_floats<V>(product + row * width + i, from);
        lam_read_floats<V>(dw + row * width + i, to);
#pragma unroll
        for (int k = 0; k < V; k++) {
            sum = fmaf(weight[k], from[k], sum);
            to[k] = fmaf(factor, from[k], to[k]);
        }
        lam_write_floats<V>(dw + row * width + i, to);
    }
    sum = lam_warp_sum(sum);
    if (threadIdx.x % 32 == 0) d_scale[row] += sum;
}

/* ---- on the host ---- */

void scale_rows(const float *w, const float *scale, float *scaled, int64_t rows, int64_t width) {
    if (lam_fits<float>(width, w, scaled))
        LAM_LAUNCH((scale_rows_kernel<4>), lam_row_blocks(rows), LAM_ROW_THREADS, 0, lam_cuda_stream(), w,
                   scale, scaled, rows, width);
    else
        LAM_LAUNCH((scale_rows_kernel<1>), lam_row_blocks(rows), LAM_ROW_THREADS, 0, lam_cuda_stream(), w,
                   scale, scaled, rows, width);
}

void scale_rows_backward(const float *w, const float *scale, const float *product, float *dw, float *d_scale,
                         int64_t rows, int64_t width) {
    if (lam_fits<float>(width, w, product, dw))
        LAM_LAUNCH((scale_rows_backward_kernel<4>), lam_row_blocks(rows), LAM_ROW_THREADS, 0,
                   lam_cuda_stream(), w, scale, product, dw, d_scale, rows, width);
    else
        LAM_LAUNCH((scale_rows_backward_kernel<1>), lam_row_blocks(rows), LAM_ROW_THREADS, 0,
                   lam_cuda_stream(), w, scale, product, dw, d_scale, rows, width);
}

} // namespace

void lam_cuda_fill_parallel(lam_kernels *f32, lam_kernels *bf16) {
    f32->scale_rows = bf16->scale_rows = scale_rows;
    f32->scale_rows_backward = bf16->scale_rows_backward = scale_rows_backward;
}
