/* Tokens moved, positions added, patches gathered: the CUDA versions of model/cpu/tokens.inc.h.
 *
 * Bound by bytes, each read or written once: 2 an element and storage byte, rows of positions and of shared tokens from the
 * caches. A warp a row, 8 rows a block of 256 threads, 16 bytes a lane; gradients that all samples share: a block of 8 warps a
 * row and 32 vectors of it, each warp every eighth sample, then the warps in order (8 KiB of shared memory). At most 80
 * registers. */
#include "model/cuda/vector.cuh"

namespace {

/* to = value + place, where value is of the storage type or float32. */
template <typename T, int V, typename From>
__device__ __forceinline__ void row_plus(const From *value, const float *place, T *to, int64_t width) {
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        float sum[V], more[V];
        if constexpr (sizeof(From) == sizeof(float))
            lam_read_floats<V>(value + i, sum);
        else
            lam_read<From, V>(value + i).unpack(sum);
        lam_read_floats<V>(place + i, more);
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += more[k];
        lam_pack<T, V>(sum).write(to + i);
    }
}

template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    embed_rows(const T *x, const float *cls, const float *position, const int32_t *ids, T *y, int64_t rows,
               int64_t kept, int64_t places, int64_t width) {
    int64_t row = lam_row_of_warp();
    if (row >= rows) return;
    int64_t b = lam_quotient(row, kept + 1), k = row - b * (kept + 1) - 1;
    if (k < 0)
        row_plus<T, V>(cls, position, y + row * width, width);
    else
        row_plus<T, V>(x + (b * kept + k) * width,
                       position + (1 + lam_remainder(ids ? ids[b * kept + k] : k, places)) * width,
                       y + row * width, width);
}

/* Where row `row` > 0 of sample b lies among the visible rows; -1: it is masked. */
__device__ __forceinline__ int64_t visible_row(const lam_ranks &ranks, int64_t b, int64_t row) {
    int64_t rank = row ? ranks.ids_restore[b * ranks.tokens + row - 1] : -1;
    return rank < ranks.count ? b * (ranks.count + 1) + 1 + rank : -1;
}

template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    merge_rows(const T *visible, const T *masked, const lam_ranks ranks, T *y, int64_t batch, int64_t width) {
    int64_t row = lam_row_of_warp(), rows = ranks.tokens + 1;
    if (row >= batch * rows) return;
    int64_t b = lam_quotient(row, rows), n = row - b * rows, at = visible_row(ranks, b, n);
    lam_row_pass<T, V>(at < 0 ? masked + (n - 1) * width : visible + at * width, y + row * width, width,
                       false);
}

/* Row blockIdx.x of every sample, 32 vectors of it: either passed on to its visible row or added up. */
enum { SHARED_WARPS = 8 };

template <typename T, int V>
__global__ void __launch_bounds__(32 * SHARED_WARPS, 3)
    merge_rows_backward(const T *dy, const lam_ranks ranks, T *d_visible, bool add_visible, T *d_masked,
                        bool add_masked, int64_t batch, int64_t width) {
    LAM_SHARED(float, partial, [SHARED_WARPS][32 * V]);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int64_t row = blockIdx.x, rows = ranks.tokens + 1, i = ((int64_t)blockIdx.y * 32 + lane) * V;
    float sum[V] = {0};
    if (i < width) {
#pragma unroll 4
        for (int64_t b = warp; b < batch; b += SHARED_WARPS) {
            int64_t at = visible_row(ranks, b, row);
            if (at < 0 ? !d_masked : !d_visible) continue;
            float value[V];
            lam_read<T, V>(dy + (b * rows + row) * width + i).unpack(value);
            if (at >= 0) {
                lam_write_or_add<T, V>(d_visible + at * width + i, value, add_visible);
            } else {
#pragma unroll
                for (int k = 0; k < V; k++) sum[k] += value[k];
            }
        }
    }
#pragma unroll
    for (int k = 0; k < V; k++) partial[warp][k * 32 + lane] = sum[k];
    __syncthreads();
    if (warp || i >= width || !row || !d_masked) return;
    for (int other = 1; other < SHARED_WARPS; other++)
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += partial[other][k * 32 + lane];
    lam_write_or_add<T, V>(d_masked + (row - 1) * width + i, sum, add_masked);
}

template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    mask_rows(const float *mask_token, const float *position, T *y, int64_t tokens, int64_t width) {
    int64_t n = lam_row_of_warp();
    if (n < tokens) row_plus<T, V>(mask_token, position + (1 + n) * width, y + n * width, width);
}

/* to += from, where only `to` is float32. */
template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4) add_rows(const T *from, float *to, int64_t count) {
    int64_t i = ((int64_t)blockIdx.x * LAM_ROW_THREADS + threadIdx.x) * V;
    if (i >= count) return;
    float value[V], sum[V];
    lam_read<T, V>(from + i).unpack(value);
    lam_read_floats<V>(to + i, sum);
#pragma unroll
    for (int k = 0; k < V; k++) sum[k] += value[k];
    lam_write_floats<V>(to + i, sum);
}

/* A block a patch, which it reads channel by channel: the patch stays in the first cache. */
template <typename T>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    gather_rows(const float *patches, const int32_t *ids, T *y, int64_t tokens, int64_t kept, int length,
                int channels) {
    int64_t row = blockIdx.x, b = lam_quotient(row, kept), n = ids ? ids[row] : row - b * kept;
    const float *from = patches + (b * tokens + n) * length;
    T *to = y + row * length;
    int area = length / channels;
    for (int i = (int)threadIdx.x; i < length; i += LAM_ROW_THREADS) {
        int c = i / area, p = i - c * area;
        lam_store(to + i, from[p * channels + c]);
    }
}

/* ---- on the host ---- */

template <typename T>
void embed_tokens(const void *x, const float *cls, const float *position, const int32_t *ids, void *y,
                  int64_t batch, int64_t kept, int64_t places, int64_t width) {
    int64_t rows = batch * (kept + 1);
    if (rows < 1) return;
    lam_with_vectors<T>(lam_fits<T>(width, x, cls, position, y), [&](auto V) {
        LAM_LAUNCH((embed_rows<T, V>), lam_row_blocks(rows), LAM_ROW_THREADS, 0, lam_cuda_stream(),
                   (const T *)x, cls, position, ids, (T *)y, rows, kept, places, width);
    });
}

template <typename T>
void batch_sums(const void *x, int64_t batch, int64_t stride, int64_t width, float *out) {
    lam_sum_rows((const T *)x, batch, stride, width, out);
}

template <typename T>
void merge_tokens(const void *visible, const void *masked, const lam_ranks *ranks, void *y, int64_t batch,
                  int64_t width) {
    unsigned blocks = lam_row_blocks(batch * (ranks->tokens + 1));
    lam_with_vectors<T>(lam_fits<T>(width, visible, masked, y), [&](auto V) {
        LAM_LAUNCH((merge_rows<T, V>), blocks, LAM_ROW_THREADS, 0, lam_cuda_stream(), (const T *)visible,
                   (const T *)masked, *ranks, (T *)y, batch, width);
    });
}

template <typename T>
void merge_tokens_backward(const void *dy, const lam_ranks *ranks, void *d_visible, bool add_visible,
                           void *d_masked, bool add_masked, int64_t batch, int64_t width) {
    unsigned rows = (unsigned)(ranks->tokens + 1);
    lam_with_vectors<T>(lam_fits<T>(width, dy, d_visible, d_masked), [&](auto V) {
        LAM_LAUNCH((merge_rows_backward<T, V>), dim3(rows, (unsigned)lam_blocks(width, 32 * V)),
                   32 * SHARED_WARPS, 0, lam_cuda_stream(), (const T *)dy, *ranks, (T *)d_visible,
                   add_visible, (T *)d_masked, add_masked, batch, width);
    });
}

template <typename T>
void masked_tokens(const float *mask_token, const float *position, void *y, int64_t tokens, int64_t width) {
    lam_with_vectors<T>(lam_fits<T>(width, mask_token, position, y), [&](auto V) {
        LAM_LAUNCH((mask_rows<T, V>), lam_row_blocks(tokens), LAM_ROW_THREADS, 0, lam_cuda_stream(),
                   mask_token, position, (T *)y, tokens, width);
    });
}

template <typename T>
void masked_tokens_backward(const void *dy, float *d_mask_token, float *d_position, int64_t tokens,
                            int64_t width) {
    const T *d = (const T *)dy;
    if (d_mask_token) lam_sum_rows(d, tokens, width, width, d_mask_token);
    if (!d_position) return;
    float *to = d_position + width;
    int64_t count = tokens * width;
    lam_with_vectors<T>(lam_fits<T>(count, dy, to), [&](auto V) {
        LAM_LAUNCH((add_rows<T, V>), (unsigned)lam_blocks(count, LAM_ROW_THREADS * V), LAM_ROW_THREADS, 0,
                   lam_cuda_stream(), d, to, count);
    });
}

template <typename T>
void gather_patches(const float *patches, const int32_t *ids, void *y, int64_t batch, int64_t tokens,
                    int64_t kept, int64_t length, int64_t channels) {
    if (batch * kept < 1) return;
    LAM_LAUNCH((gather_rows<T>), (unsigned)(batch * kept), LAM_ROW_THREADS, 0, lam_cuda_stream(), patches,
               ids, (T *)y, tokens, kept, (int)length, (int)channels);
}

template <typename T> void fill(lam_kernels *table) {
    table->embed_tokens = embed_tokens<T>;
    table->batch_sums = batch_sums<T>;
    table->merge_tokens = merge_tokens<T>;
    table->merge_tokens_backward = merge_tokens_backward<T>;
    table->masked_tokens = masked_tokens<T>;
    table->masked_tokens_backward = masked_tokens_backward<T>;
    table->gather_patches = gather_patches<T>;
}

} // namespace

void lam_cuda_fill_tokens(lam_kernels *f32, lam_kernels *bf16) {
    fill<float>(f32);
    fill<__nv_bfloat16>(bf16);
}
