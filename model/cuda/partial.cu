/* The decoder's tokens in the order of ranks, where not all of them are decoded; gradients of learned positions: the CUDA
 * versions of model/cpu/partial.inc.h.
 *
 * Bound by bytes, each read or written once: 2 an element and storage byte. A warp a row, 8 rows a block of 256 threads, 16
 * bytes a lane. Gradients that several rows share are summed by 8 warps, each every eighth row, and then the warps in order (8
 * KiB of shared memory); those of positions by a block a place and 256 columns, which looks for the rows of its place 256 at a
 * time and adds them in order. At most 64 registers. */
#include "model/cuda/vector.cuh"

namespace {

enum { SHARED_WARPS = 8, PLACE_THREADS = 256 };

template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    append_rows(const T *x, const float *mask_token, const float *position, const int32_t *ids, T *y,
                int64_t rows, int64_t kept, int64_t decoded, int64_t places, int64_t width) {
    int64_t at = lam_row_of_warp();
    if (at >= rows) return;
    int64_t b = lam_quotient(at, decoded + 1), row = at - b * (decoded + 1);
    const T *value = x + (b * (kept + 1) + row) * width;
    const float *place = position + (row ? 1 + lam_remainder(ids[b * decoded + row - 1], places) : 0) * width;
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        float sum[V], more[V];
        if (row <= kept)
            lam_read<T, V>(value + i).unpack(sum);
        else
            lam_read_floats<V>(mask_token + i, sum);
        lam_read_floats<V>(place + i, more);
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += more[k];
        lam_pack<T, V>(sum).write(y + at * width + i);
    }
}

/* Sample blockIdx.x, 32 vectors of its rows: passed on, or added up into a row of `partial`. */
template <typename T, int V>
__global__ void __launch_bounds__(32 * SHARED_WARPS, 3)
    append_rows_backward(const T *dy, T *dx, bool add, float *partial, int64_t kept, int64_t decoded,
                         int64_t width) {
    LAM_SHARED(float, sums, [SHARED_WARPS][32 * V]);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int64_t b = blockIdx.x, i = ((int64_t)blockIdx.y * 32 + lane) * V;
    float sum[V] = {0};
    if (i < width) {
#pragma unroll 4
        for (int64_t row = warp; row <= decoded; row += SHARED_WARPS) {
            if (row <= kept && !dx) continue;
            float value[V];
            lam_read<T, V>(dy + (b * (decoded + 1) + row) * width + i).unpack(value);
            if (row <= kept) {
                lam_write_or_add<T, V>(dx + (b * (kept + 1) + row) * width + i, value, add);
            } else {
#pragma unroll
                for (int k = 0; k < V; k++) sum[k] += value[k];
            }
        }
    }
#pragma unroll
    for (int k = 0; k < V; k++) sums[warp][k * 32 + lane] = sum[k];
    __syncthreads();
    if (warp || i >= width) return;
    for (int other = 1; other < SHARED_WARPS; other++)
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += sums[other][k * 32 + lane];
    lam_write_floats<V>(partial + b * width + i, sum);
}

template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    place_rows(const T *x, const lam_ranks ranks, T *y, bool add, int64_t batch, int64_t width) {
    int64_t row = lam_row_of_warp(), rows = ranks.skipped + ranks.tokens;
    if (row >= batch * rows) return;
    int64_t b = lam_quotient(row, rows), n = row - b * rows - ranks.skipped,
            at = n < 0 ? -1 : ranks.ids_restore[b * ranks.tokens + n] - ranks.first;
    if (at >= 0 && at < ranks.count)
        lam_row_pass<T, V>(x + (b * ranks.count + at) * width, y + row * width, width, add);
    else if (!add)
        lam_row_zero<T, V>(y + row * width, width);
}

template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    take_rows(const T *x, const lam_ranks ranks, T *y, bool add, int64_t batch, int64_t width) {
    int64_t row = lam_row_of_warp();
    if (row >= batch * ranks.tokens) return;
    int64_t b = lam_quotient(row, ranks.tokens), at = ranks.ids_restore[row] - ranks.first;
    if (at < 0 || at >= ranks.count) return;
    int64_t from = b * (ranks.skipped + ranks.tokens) + ranks.skipped + row - b * ranks.tokens;
    lam_row_pass<T, V>(x + from * width, y + (b * ranks.count + at) * width, width, add);
}

/* Place blockIdx.x of the table, 256 columns. */
template <typename T>
__global__ void __launch_bounds__(PLACE_THREADS)
    position_rows(const T *dy, const int32_t *ids, float *d_position, int64_t batch, int64_t tokens,
                  int64_t places, int64_t width) {
    LAM_SHARED(int64_t, found, [PLACE_THREADS]); /* rows of this place, in order */
    LAM_SHARED(int, counts, [PLACE_THREADS / 32]);
    int64_t place = (int64_t)blockIdx.x - 1, column = (int64_t)blockIdx.y * PLACE_THREADS + threadIdx.x;
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    /* Place 0 is row 0 of each sample; without ids the others are rows 1 + place, 1 + place + places, ... */
    int64_t a_sample = place < 0 ? 1
                       : ids     ? tokens
                                 : (tokens - place + places - 1) / places,
            count = batch * a_sample;
    float sum = 0;
    for (int64_t first = 0; first < count; first += PLACE_THREADS) {
        int64_t at = first + threadIdx.x, b = lam_quotient(at, a_sample), t = at - b * a_sample,
                row = b * (tokens + 1);
        bool mine = at < count;
        if (place >= 0) {
            if (mine && ids) mine = lam_remainder(ids[at], places) == place;
            row += 1 + (ids ? t : place + t * places);
        }
        unsigned votes = __ballot_sync(LAM_WHOLE_WARP, mine);
        if (lane == 0) counts[warp] = __popc(votes);
        __syncthreads();
        int before = 0, total = 0;
        for (int k = 0; k < PLACE_THREADS / 32; k++) {
            if (k < warp) before += counts[k];
            total += counts[k];
        }
        if (mine) found[before + __popc(votes & ((1u << lane) - 1))] = row;
        __syncthreads();
        if (column >= width) continue;
#pragma unroll 4
        for (int k = 0; k < total; k++) sum += lam_load(dy + found[k] * width + column);
    }
    if (column < width) d_position[(place + 1) * width + column] += sum;
}

/* ---- on the host ---- */

template <typename T>
void append_masked(const void *x, const float *mask_token, const float *position, const int32_t *ids, void *y,
                   int64_t batch, int64_t kept, int64_t decoded, int64_t places, int64_t width) {
    int64_t rows = batch * (decoded + 1);
    lam_with_vectors<T>(lam_fits<T>(width, x, mask_token, position, y), [&](auto V) {
        LAM_LAUNCH((append_rows<T, V>), lam_row_blocks(rows), LAM_ROW_THREADS, 0, lam_cuda_stream(),
                   (const T *)x, mask_token, position, ids, (T *)y, rows, kept, decoded, places, width);
    });
}

template <typename T>
void append_masked_backward(const void *dy, void *dx, bool add, float *d_mask_token, float *partial,
                            int64_t batch, int64_t kept, int64_t decoded, int64_t width) {
    lam_with_vectors<T>(lam_fits<T>(width, dy, dx, partial), [&](auto V) {
        LAM_LAUNCH((append_rows_backward<T, V>), dim3((unsigned)batch, (unsigned)lam_blocks(width, 32 * V)),
                   32 * SHARED_WARPS, 0, lam_cuda_stream(), (const T *)dy, (T *)dx, add, partial, kept,
                   decoded, width);
    });
    if (d_mask_token) lam_sum_rows(partial, batch, width, width, d_mask_token);
}

template <typename T>
void place_ranks(const void *x, const lam_ranks *ranks, void *y, bool add, int64_t batch, int64_t width) {
    unsigned blocks = lam_row_blocks(batch * (ranks->skipped + ranks->tokens));
    lam_with_vectors<T>(lam_fits<T>(width, x, y), [&](auto V) {
        LAM_LAUNCH((place_rows<T, V>), blocks, LAM_ROW_THREADS, 0, lam_cuda_stream(), (const T *)x, *ranks,
                   (T *)y, add, batch, width);
    });
}

template <typename T>
void take_ranks(const void *x, const lam_ranks *ranks, void *y, bool add, int64_t batch, int64_t width) {
    unsigned blocks = lam_row_blocks(batch * ranks->tokens);
    lam_with_vectors<T>(lam_fits<T>(width, x, y), [&](auto V) {
        LAM_LAUNCH((take_rows<T, V>), blocks, LAM_ROW_THREADS, 0, lam_cuda_stream(), (const T *)x, *ranks,
                   (T *)y, add, batch, width);
    });
}

template <typename T>
void position_gradient(const void *dy, const int32_t *ids, float *d_position, int64_t batch, int64_t tokens,
                       int64_t places, int64_t width) {
    LAM_LAUNCH((position_rows<T>), dim3((unsigned)(1 + places), (unsigned)lam_blocks(width, PLACE_THREADS)),
               PLACE_THREADS, 0, lam_cuda_stream(), (const T *)dy, ids, d_position, batch, tokens, places,
               width);
}

template <typename T> void fill(lam_kernels *table) {
    table->append_masked = append_masked<T>;
    table->append_masked_backward = append_masked_backward<T>;
    table->place_ranks = place_ranks<T>;
    table->take_ranks = take_ranks<T>;
    table->position_gradient = position_gradient<T>;
}

} // namespace

void lam_cuda_fill_partial(lam_kernels *f32, lam_kernels *bf16) {
    fill<float>(f32);
    fill<__nv_bfloat16>(bf16);
}
