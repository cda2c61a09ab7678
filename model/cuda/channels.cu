/* Tokens of several channels: put in place with what tells them apart, taken out and joined: the CUDA versions of
 * model/cpu/channels.inc.h.
 *
 * Bound by bytes, each read or written once: 2 an element and storage byte. Forward: a warp a row, 8 rows a block of 256
 * threads, 16 bytes a lane. Backward: a block of 16 warps a sample and 32 vectors of its rows, channel by channel, each warp
 * every sixteenth token, then the warps in order (16 KiB of shared memory); then lam_sum_rows over the samples. At most 96
 * registers. */
#include "model/cuda/vector.cuh"

namespace {

enum { BACKWARD_WARPS = 16, COPY_THREADS = 256 };

template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    unshuffle_rows(const lam_unshuffle_sizes s, const T *x, const float *mask_token, const float *position,
                   const float *channel_tokens, T *y) {
    int64_t row = lam_row_of_warp(), rows = s.cls + s.tokens, width = s.width;
    if (row >= s.batch * rows) return;
    int64_t b = lam_quotient(row, rows), n = row - b * rows - s.cls,
            rank = -1; /* cls lies before the tokens */
    const float *place = position, *channel = nullptr;
    if (n >= 0) {
        int64_t slot = lam_quotient(n, s.per_channel);
        rank = s.restore[b * s.tokens + n];
        place += (1 + n - slot * s.per_channel) * width;
        channel = channel_tokens + (s.channel_ids ? s.channel_ids[slot] : slot) * width;
    }
    const T *value = x + (b * (s.kept + 1) + 1 + rank) * width;
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        float sum[V], more[V], third[V] = {0};
        if (rank < s.kept)
            lam_read<T, V>(value + i).unpack(sum);
        else
            lam_read_floats<V>(mask_token + i, sum);
        lam_read_floats<V>(place + i, more);
        if (channel) lam_read_floats<V>(channel + i, third);
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += more[k] + third[k];
        lam_pack<T, V>(sum).write(y + row * width + i);
    }
}

/* Of the warps, in order, to the first of them. */
template <int V>
__device__ __forceinline__ void warps_sum(float (&sum)[V], float (*partial)[32 * V], int warp, int lane) {
    __syncthreads(); /* the last sums have been read */
#pragma unroll
    for (int k = 0; k < V; k++) partial[warp][k * 32 + lane] = sum[k];
    __syncthreads();
    if (warp) return;
    for (int other = 1; other < BACKWARD_WARPS; other++)
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += partial[other][k * 32 + lane];
}

/* Sample blockIdx.x. sums: of its masked tokens [batch, width], of its channels [batch, channels, width]. */
template <typename T, int V>
__global__ void __launch_bounds__(32 * BACKWARD_WARPS, 1)
    unshuffle_backward(const lam_unshuffle_sizes s, const T *dy, T *dx, bool add, float *mask_sums,
                       float *channel_sums) {
    LAM_SHARED(float, partial, [BACKWARD_WARPS][32 * V]);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int64_t b = blockIdx.x, width = s.width, i = ((int64_t)blockIdx.y * 32 + lane) * V;
    bool inside = i < width;
    const T *from = dy + b * (s.cls + s.tokens) * width + i;
    T *to = dx ? dx + b * (s.kept + 1) * width + i : nullptr;
    float *channel_sum = channel_sums + b * s.channels * width + i, masked[V] = {0};
    if (inside && warp == 0) {
        float first[V] = {0};
        for (int64_t c = 0; c < s.channels; c++) lam_write_floats<V>(channel_sum + c * width, first);
        if (s.cls) lam_read<T, V>(from).unpack(first);
        if (to && (s.cls || !add)) lam_write_or_add<T, V>(to, first, add);
    }
    from += s.cls * width;
    for (int64_t slot = 0; slot < s.tokens / s.per_channel; slot++) {
        float sum[V] = {0};
        if (inside) {
#pragma unroll 4
            for (int64_t n = slot * s.per_channel + warp; n < (slot + 1) * s.per_channel;
                 n += BACKWARD_WARPS) {
                float value[V];
                int64_t rank = s.restore[b * s.tokens + n];
                lam_read<T, V>(from + n * width).unpack(value);
#pragma unroll
                for (int k = 0; k < V; k++) sum[k] += value[k];
                if (rank >= s.kept) {
#pragma unroll
                    for (int k = 0; k < V; k++) masked[k] += value[k];
                } else if (to) {
                    lam_write_or_add<T, V>(to + (1 + rank) * width, value, add);
                }
            }
        }
        warps_sum<V>(sum, partial, warp, lane);
        if (warp || !inside) continue;
        float *at = channel_sum + (s.channel_ids ? s.channel_ids[slot] : slot) * width, before[V];
        lam_read_floats<V>(at, before); /* a channel may come twice */
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] += before[k];
        lam_write_floats<V>(at, sum);
    }
    warps_sum<V>(masked, partial, warp, lane);
    if (warp == 0 && inside) lam_write_floats<V>(mask_sums + b * width + i, masked);
}

template <typename T, int V>
__global__ void __launch_bounds__(COPY_THREADS)
    copy_some(const T *from, int64_t from_stride, T *to, int64_t to_stride, int64_t batch, int64_t width,
              bool add) {
    int64_t i = ((int64_t)blockIdx.x * COPY_THREADS + threadIdx.x) * V;
    if (i >= width) return;
    for (int64_t b = blockIdx.y; b < batch; b += gridDim.y) {
        lam_raw<T, V> raw = lam_read<T, V>(from + b * from_stride + i);
        if (add) {
            float value[V];
            raw.unpack(value);
            lam_write_or_add<T, V>(to + b * to_stride + i, value, true);
        } else {
            raw.write(to + b * to_stride + i);
        }
    }
}

/* ---- on the host ---- */

template <typename T>
void unshuffle_channels(const lam_unshuffle_sizes *sizes, const void *x, const float *mask_token,
                        const float *position, const float *channel_tokens, void *y) {
    unsigned blocks = lam_row_blocks(sizes->batch * (sizes->cls + sizes->tokens));
    lam_with_vectors<T>(lam_fits<T>(sizes->width, x, mask_token, position, channel_tokens, y), [&](auto V) {
        LAM_LAUNCH((unshuffle_rows<T, V>), blocks, LAM_ROW_THREADS, 0, lam_cuda_stream(), *sizes,
                   (const T *)x, mask_token, position, channel_tokens, (T *)y);
    });
}

template <typename T>
void unshuffle_channels_backward(const lam_unshuffle_sizes *sizes, const void *dy, void *dx, bool add,
                                 float *d_mask, float *d_channels, float *partial) {
    int64_t batch = sizes->batch, width = sizes->width, all = sizes->channels * width;
    float *channel_sums = partial + batch * width;
    lam_with_vectors<T>(lam_fits<T>(width, dy, dx, partial, channel_sums), [&](auto V) {
        LAM_LAUNCH((unshuffle_backward<T, V>), dim3((unsigned)batch, (unsigned)lam_blocks(width, 32 * V)),
                   32 * BACKWARD_WARPS, 0, lam_cuda_stream(), *sizes, (const T *)dy, (T *)dx, add, partial,
                   channel_sums);
    });
    if (d_mask) lam_sum_rows(partial, batch, width, width, d_mask);
    if (d_channels) lam_sum_rows(channel_sums, batch, all, all, d_channels);
}

template <typename T>
void copy_rows(const void *from, int64_t from_stride, int64_t from_first, void *to, int64_t to_stride,
               int64_t to_first, int64_t batch, int64_t width, bool add) {
    const int64_t most = 65535; /* blocks in the second dimension */
    const T *x = (const T *)from + from_first;
    T *y = (T *)to + to_first;
    unsigned rows = (unsigned)(batch < most ? batch : most);
    if (rows < 1 || width < 1) return;
    lam_with_vectors<T>(
        lam_fits<T>(width, x, y) && from_stride % lam_vector<T> == 0 && to_stride % lam_vector<T> == 0,
        [&](auto V) {
            LAM_LAUNCH((copy_some<T, V>), dim3((unsigned)lam_blocks(width, COPY_THREADS * V), rows),
                       COPY_THREADS, 0, lam_cuda_stream(), x, from_stride, y, to_stride, batch, width, add);
        });
}

template <typename T> void fill(lam_kernels *table) {
    table->unshuffle_channels = unshuffle_channels<T>;
    table->unshuffle_channels_backward = unshuffle_channels_backward<T>;
    table->copy_rows = copy_rows<T>;
}

} // namespace

void lam_cuda_fill_channels(lam_kernels *f32, lam_kernels *bf16) {
    fill<float>(f32);
    fill<__nv_bfloat16>(bf16);
}
