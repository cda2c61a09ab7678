/* Masks: the same bits as model/cpu/mask.c and model/ops/channel_mask.c, whatever the batch and the grid.
 *
 * Bound by nothing: a few thousand tokens a sample. What matters is that no launch waits for one thread, so ranking is a
 * bitonic sort (Batcher 1968) of chunks of 2,048 keys (noise, index) in 16 KiB of shared memory, a block a chunk; where a
 * sample has several chunks, a token's rank is its place in its own plus, by binary search, the smaller keys of the others.
 * Blocks of at most 256 threads, registers at most 48.
 *
 * Arithmetic of the C standard alone, in the order of the CPU's: no product is added to anything before it is rounded. */
#include "base/rng.h"
#include "model/cuda/backend.cuh"
#include "model/cuda/sums.cuh"

#define RECTANGLE_DRAWS 0x80000000u /* as model/cpu/mask.c */
#define CHANNEL_DRAWS 0x40000000u
#define STALE_LIMIT 10

enum { THREADS = 256 };
static constexpr int64_t CHUNK = 2048;

/* ---- ranks ---- */

/* Rises with (noise, index). */
static __device__ __forceinline__ uint64_t rising_key(float noise, int64_t index) {
    uint32_t bits = __float_as_uint(noise + 0.0f); /* -0 is 0 */
    bits ^= bits >> 31 ? 0xffffffffu : 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)index;
}

static __device__ __forceinline__ int64_t token_of(uint64_t key, const float *present) {
    uint32_t low = (uint32_t)key;
    return present && (uint32_t)(key >> 32) == 0xffffffffu ? 0xffffffffu - low : low;
}

/* Sorts the keys of each chunk of a row of tokens. present [rows, channels] (NULL: all): tokens of absent channels come last,
 * the last of them first. Block: chunk blockIdx.x % chunks of row blockIdx.x / chunks. */
static __global__ void __launch_bounds__(THREADS)
    mask_sort(const float *noise, const float *present, uint64_t *keys, int64_t tokens, int64_t channels,
              int64_t chunks) {
    LAM_SHARED(uint64_t, key, [CHUNK]);
    int64_t row = blockIdx.x / chunks, first = blockIdx.x % chunks * CHUNK;
    int count = (int)(tokens - first < CHUNK ? tokens - first : CHUNK), size = 1;
    while (size < count) size *= 2;
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        int64_t n = first + i;
        key[i] = ~(uint64_t)0;
        if (i >= count) continue;
        bool there = !present || present[row * channels + n / (tokens / channels)] != 0.0f;
        key[i] = there ? rising_key(noise[row * tokens + n], n) : ~(uint64_t)n;
    }
    for (int length = 2; length <= size; length *= 2)
        for (int apart = length / 2; apart > 0; apart /= 2) {
            __syncthreads();
            for (int i = threadIdx.x; i < size / 2; i += blockDim.x) {
                int low = i / apart * 2 * apart + i % apart, high = low + apart;
                uint64_t a = key[low], b = key[high];
                if ((a > b) == ((low & length) == 0)) {
                    key[low] = b;
                    key[high] = a;
                }
            }
        }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) keys[row * tokens + first + i] = key[i];
}

static void sort(const float *noise, const float *present, uint64_t *keys, int64_t rows, int64_t tokens,
                 int64_t channels) {
    int64_t chunks = lam_blocks(tokens, CHUNK);
    unsigned threads = 32;
    while (threads < THREADS && 2 * threads < tokens) threads *= 2;
    LAM_LAUNCH((mask_sort), (unsigned)(rows * chunks), threads, 0, lam_cuda_stream(), noise, present, keys,
               tokens, channels, chunks);
}

/* Of the key at `place` of the chunks of a row. */
static __device__ int64_t rank_of(const uint64_t *keys, int64_t tokens, int64_t place) {
    uint64_t key = keys[place];
    int64_t own = place / CHUNK, rank = place % CHUNK;
    for (int64_t first = 0; first < tokens; first += CHUNK) {
        if (first == own * CHUNK) continue;
        int64_t low = first, high = first + CHUNK < tokens ? first + CHUNK : tokens;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (keys[middle] < key)
                low = middle + 1;
            else
                high = middle;
        }
        rank += low - first;
    }
    return rank;
}

/* ---- mask_noise ---- */

static __global__ void __launch_bounds__(THREADS)
    mask_draw(lam_rng_key_t key, const int64_t *step, const int64_t *ids, float *noise, int64_t batch,
              int64_t tokens) {
    int64_t quads = (tokens + 3) / 4, at = (int64_t)blockIdx.x * THREADS + threadIdx.x, b = at / quads,
            quad = at % quads;
    if (b >= batch) return;
    float u[4];
    lam_rng_uniform4(key, (uint32_t)*step, (uint64_t)ids[b], (uint32_t)quad, u);
    for (int k = 0; k < 4; k++)
        if (4 * quad + k < tokens) noise[b * tokens + 4 * quad + k] = u[k];
}

static __device__ __forceinline__ float halved(float noise, bool hidden) {
    return 0.5f * noise + (hidden ? 0.5f : 0.0f);
}

static __device__ __forceinline__ int64_t side_of(double length, int64_t grid) {
    int64_t side = (int64_t)(length + 0.5);
    return side < 1 ? 1 : side > grid ? grid : side;
}

/* The cells [top, bottom) x [left, right). */
struct rectangle {
    int64_t top, bottom, left, right;
};

static __device__ rectangle draw_rectangle(const float u[4], int64_t grid, int64_t smallest,
                                           int64_t left_to_hide) {
    int64_t low = smallest < left_to_hide ? smallest : left_to_hide;
    double area = (double)(low + (int64_t)((double)u[0] * (double)(left_to_hide - low + 1)));
    double turn = 2 * (double)u[1] - 1, ratio = 1 + fabs(turn) * 7 / 3;
    int64_t longer = side_of(sqrt(area * ratio), grid), shorter = side_of(sqrt(area / ratio), grid);
    int64_t height = turn < 0 ? longer : shorter, width = turn < 0 ? shorter : longer;
    int64_t bottom = 1 + (int64_t)((double)u[2] * (double)(grid + height - 1)),
            right = 1 + (int64_t)((double)u[3] * (double)(grid + width - 1));
    rectangle r;
    r.top = bottom > height ? bottom - height : 0;
    r.bottom = bottom < grid ? bottom : grid;
    r.left = right > width ? right - width : 0;
    r.right = right < grid ? right : grid;
    return r;
}

/* One warp hides the cells of a rectangle, row by row, until `wanted` are hidden; returns how many are. */
static __device__ int64_t hide_rectangle(const rectangle &r, uint8_t *hidden, int64_t grid, int64_t count,
                                         int64_t wanted) {
    int lane = threadIdx.x % 32;
    int64_t width = r.right - r.left, cells = (r.bottom - r.top) * width;
    for (int64_t first = 0; first < cells && count < wanted; first += 32) {
        int64_t i = first + lane, at = (r.top + i / width) * grid + r.left + i % width;
        bool fresh = i < cells && !hidden[at];
        unsigned all = __ballot_sync(LAM_WHOLE_WARP, fresh);
        if (fresh && count + __popc(all & ((1u << lane) - 1)) < wanted) hidden[at] = 1;
        count = count + __popc(all) < wanted ? count + __popc(all) : wanted;
        __syncwarp();
    }
    return count;
}

/* One warp hides the place of least noise of those that are not hidden. */
static __device__ void hide_least(const float *noise, uint8_t *hidden, int64_t places) {
    uint64_t least = ~(uint64_t)0;
    for (int64_t i = threadIdx.x % 32; i < places; i += 32) {
        uint64_t key = hidden[i] ? ~(uint64_t)0 : rising_key(noise[i], i);
        if (key < least) least = key;
    }
    for (int offset = 16; offset > 0; offset /= 2) {
        uint64_t other = __shfl_xor_sync(LAM_WHOLE_WARP, least, offset);
        if (other < least) least = other;
    }
    __syncwarp(); /* a shuffle orders no memory */
    if (threadIdx.x % 32 == 0) hidden[(uint32_t)least] = 1;
    __syncwarp();
}

static __device__ void hide_rectangles(lam_rng_key_t key, uint32_t step, uint64_t id, const float *noise,
                                       uint8_t *hidden, int64_t grid, int64_t wanted) {
    int64_t places = grid * grid, count = 0, smallest = places / 12 < 16 ? places / 12 : 16;
    if (smallest < 1) smallest = 1;
    for (int64_t i = threadIdx.x % 32; i < places; i += 32) hidden[i] = 0;
    __syncwarp();
    int stale = 0;
    for (uint32_t r = 0; count < wanted && stale < STALE_LIMIT; r++) {
        float u[4];
        lam_rng_uniform4(key, step, id, RECTANGLE_DRAWS + r, u);
        int64_t before = count;
        count =
            hide_rectangle(draw_rectangle(u, grid, smallest, wanted - count), hidden, grid, count, wanted);
        stale = count > before ? 0 : stale + 1;
    }
    for (; count < wanted; count++) hide_least(noise, hidden, places);
}

/* Block: one sample; its first warp draws. hidden: workspace [batch, places]. */
static __global__ void __launch_bounds__(THREADS)
    mask_rectangles(lam_rng_key_t key, const int64_t *step, const int64_t *ids, float *noise, uint8_t *hidden,
                    int64_t channels, int64_t grid, int64_t wanted) {
    int64_t b = blockIdx.x, places = grid * grid, tokens = channels * places;
    if (threadIdx.x < 32)
        hide_rectangles(key, (uint32_t)*step, (uint64_t)ids[b], noise + b * tokens, hidden + b * places, grid,
                        wanted);
    __syncthreads();
    for (int64_t t = threadIdx.x; t < tokens; t += THREADS)
        noise[b * tokens + t] = halved(noise[b * tokens + t], hidden[b * places + t % places] != 0);
}

/* Rows are those of one channel of one sample, sorted in `keys`. */
static __global__ void __launch_bounds__(THREADS)
    mask_hide_ranks(const uint64_t *keys, float *noise, int64_t rows, int64_t places, int64_t keep) {
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = at / places, place = at % places;
    if (row >= rows) return;
    const uint64_t *own = keys + row * places;
    float *to = noise + row * places + token_of(own[place], NULL);
    *to = halved(*to, rank_of(own, places, place) >= keep);
}

/* Channels are ranked by their draws at (a, b, first + channel / 4). */
struct channel_draws {
    lam_rng_key_t key;
    uint32_t a;
    uint64_t b;
    uint32_t first;
};

/* How many channels of the quads from, from + step, ... rank before this one. */
static __device__ int channels_before(const channel_draws &d, int64_t channel, int64_t channels, int64_t from,
                                      int64_t step) {
    float u[4];
    lam_rng_uniform4(d.key, d.a, d.b, d.first + (uint32_t)(channel / 4), u);
    int k = (int)(channel % 4), before = 0;
    uint64_t own = rising_key(k == 0 ? u[0] : k == 1 ? u[1] : k == 2 ? u[2] : u[3], channel);
    for (int64_t quad = from; 4 * quad < channels; quad += step) {
        lam_rng_uniform4(d.key, d.a, d.b, d.first + (uint32_t)quad, u);
        for (int i = 0; i < 4; i++) before += 4 * quad + i < channels && rising_key(u[i], 4 * quad + i) < own;
    }
    return before;
}

/* Block: one channel of one sample. */
static __global__ void __launch_bounds__(THREADS)
    mask_hide_channels(lam_rng_key_t key, const int64_t *step, const int64_t *ids, float *noise,
                       int64_t channels, int64_t places, int64_t keep) {
    LAM_SHARED(int, partial, [32]);
    int64_t b = blockIdx.x / channels, c = blockIdx.x % channels;
    channel_draws draws = {key, (uint32_t)*step, (uint64_t)ids[b], CHANNEL_DRAWS};
    bool hidden = lam_block_sum(channels_before(draws, c, channels, threadIdx.x, THREADS), partial) >= keep;
    float *row = noise + (int64_t)blockIdx.x * places;
    for (int64_t n = threadIdx.x; n < places; n += THREADS) row[n] = halved(row[n], hidden);
}

static lam_status mask_noise_forward(lam_node *node) {
    const int64_t *a = node->integers; /* lam_mask: masking, channels, grid, keep, seed */
    const lam_tensor *y = node->outputs[0];
    const int64_t *step = (const int64_t *)node->inputs[0]->data,
                  *ids = (const int64_t *)node->inputs[1]->data;
    int64_t batch = y->shape[0], tokens = y->shape[1], channels = a[1], grid = a[2], keep = a[3],
            places = grid * grid;
    float *noise = (float *)y->data;
    cudaStream_t stream = lam_cuda_stream();
    lam_rng_key_t key = lam_rng_key((uint64_t)a[4], LAM_RNG_MASK);
    LAM_LAUNCH((mask_draw), (unsigned)lam_blocks(batch * ((tokens + 3) / 4), THREADS), THREADS, 0, stream,
               key, step, ids, noise, batch, tokens);
    switch ((lam_masking)a[0]) {
    case LAM_MASKING_RANDOM: break;
    case LAM_MASKING_BLOCK:
        LAM_LAUNCH((mask_rectangles), (unsigned)batch, THREADS, 0, stream, key, step, ids, noise,
                   (uint8_t *)node->forward_workspace, channels, grid, places - keep / channels);
        break;
    case LAM_MASKING_PER_CHANNEL:
        sort(noise, NULL, (uint64_t *)node->forward_workspace, batch * channels, places, 1);
        LAM_LAUNCH((mask_hide_ranks), (unsigned)lam_blocks(batch * tokens, THREADS), THREADS, 0, stream,
                   (const uint64_t *)node->forward_workspace, noise, batch * channels, places,
                   keep / channels);
        break;
    case LAM_MASKING_WHOLE_CHANNEL:
        LAM_LAUNCH((mask_hide_channels), (unsigned)(batch * channels), THREADS, 0, stream, key, step, ids,
                   noise, channels, places, keep / places);
        break;
    }
    return LAM_OK;
}

static void mask_noise_sizes(lam_node *node) {
    size_t tokens = (size_t)node->outputs[0]->count, channels = (size_t)node->integers[1];
    node->forward_workspace_bytes = node->integers[0] == LAM_MASKING_BLOCK         ? tokens / channels
                                    : node->integers[0] == LAM_MASKING_PER_CHANNEL ? tokens * sizeof(uint64_t)
                                                                                   : 0;
}

/* ---- mask_plan, channel_mask_plan, decode_plan ---- */

/* What channel_mask_plan keeps and fills in one sample: model/ops/channel_mask.c. */
struct channel_places {
    const float *present; /* NULL: mask_plan */
    int64_t channels;
    double kept_share;
};

static __global__ void __launch_bounds__(THREADS)
    mask_place_ranks(const uint64_t *keys, channel_places how, int32_t *ids_keep, int32_t *ids_restore,
                     float *mask, int64_t batch, int64_t tokens, int64_t places) {
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x, b = at / tokens, place = at % tokens;
    if (b >= batch) return;
    const uint64_t *own = keys + b * tokens;
    int64_t n = token_of(own[place], how.present), k = rank_of(own, tokens, place), rank = k, keep = places,
            there = tokens;
    if (how.present) {
        there = 0;
        for (int64_t c = 0; c < how.channels; c++)
            there += how.present[b * how.channels + c] != 0.0f ? tokens / how.channels : 0;
        keep = (int64_t)((double)there * how.kept_share);
        int64_t fill = places - keep;
        if (k >= keep) rank = k < there ? k + fill : k < there + fill ? keep + k - there : k;
    }
    ids_restore[b * tokens + n] = (int32_t)rank;
    mask[b * tokens + n] = k >= keep && k < there ? 1.0f : 0.0f;
    if (rank < places) ids_keep[b * places + rank] = (int32_t)n;
}

static lam_status plan(lam_node *node, const channel_places &how) {
    const lam_tensor *noise = node->inputs[0];
    int64_t batch = noise->shape[0], tokens = noise->shape[1];
    uint64_t *keys = (uint64_t *)node->forward_workspace;
    sort((const float *)noise->data, how.present, keys, batch, tokens, how.channels);
    LAM_LAUNCH((mask_place_ranks), (unsigned)lam_blocks(batch * tokens, THREADS), THREADS, 0,
               lam_cuda_stream(), (const uint64_t *)keys, how, (int32_t *)node->outputs[0]->data,
               (int32_t *)node->outputs[1]->data, (float *)node->outputs[2]->data, batch, tokens,
               node->outputs[0]->shape[1]);
    return LAM_OK;
}

static lam_status mask_plan_forward(lam_node *node) { return plan(node, {NULL, 1, 0.0}); }

static lam_status channel_mask_plan_forward(lam_node *node) {
    const lam_tensor *present = node->inputs[1];
    return plan(node, {(const float *)present->data, present->shape[1], 1.0 - node->numbers[0]});
}

static void plan_sizes(lam_node *node) {
    node->forward_workspace_bytes = (size_t)node->inputs[0]->count * sizeof(uint64_t);
}

static __global__ void __launch_bounds__(THREADS)
    mask_decode(const int32_t *ids_restore, int32_t *ids, float *mask, int64_t count, int64_t tokens,
                int64_t keep, int64_t decoded) {
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (at >= count) return;
    int32_t rank = ids_restore[at];
    mask[at] = rank >= keep && rank < decoded ? 1.0f : 0.0f;
    if (rank < decoded) ids[at / tokens * decoded + rank] = (int32_t)(at % tokens);
}

static lam_status decode_plan_forward(lam_node *node) {
    const lam_tensor *restore = node->inputs[0];
    LAM_LAUNCH((mask_decode), (unsigned)lam_blocks(restore->count, THREADS), THREADS, 0, lam_cuda_stream(),
               (const int32_t *)restore->data, (int32_t *)node->outputs[0]->data,
               (float *)node->outputs[1]->data, restore->count, restore->shape[1], node->integers[0],
               node->outputs[0]->shape[1]);
    return LAM_OK;
}

/* ---- channels ---- */

/* One block. chosen: workspace [channels], 1 where the channel is among the `count` of least draw. */
static __global__ void __launch_bounds__(THREADS)
    mask_draw_channels(lam_rng_key_t key, const int64_t *step, int32_t *chosen, int32_t *ids,
                       int64_t channels, int64_t count) {
    channel_draws draws = {key, (uint32_t)*step, 0, 0};
    for (int64_t c = threadIdx.x; c < channels; c += THREADS)
        chosen[c] = channels_before(draws, c, channels, 0, 1) < count;
    __syncthreads();
    for (int64_t c = threadIdx.x; c < channels; c += THREADS) {
        if (!chosen[c]) continue;
        int64_t place = 0;
        for (int64_t before = 0; before < c; before++) place += chosen[before];
        ids[place] = (int32_t)c;
    }
}

static lam_status draw_channels_forward(lam_node *node) {
    const lam_tensor *ids = node->outputs[0];
    LAM_LAUNCH((mask_draw_channels), 1, THREADS, 0, lam_cuda_stream(),
               lam_rng_key((uint64_t)node->integers[0], LAM_RNG_CHANNELS),
               (const int64_t *)node->inputs[0]->data, (int32_t *)node->forward_workspace,
               (int32_t *)ids->data, node->integers[1], ids->count);
    return LAM_OK;
}

static void draw_channels_sizes(lam_node *node) {
    node->forward_workspace_bytes = (size_t)node->integers[1] * sizeof(int32_t);
}

static __global__ void __launch_bounds__(THREADS)
    mask_select_channels(const float *x, const int32_t *ids, float *y, int64_t batch, int64_t channels,
                         int64_t count) {
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (at < batch * count) y[at] = x[at / count * channels + ids[at % count]];
}

static lam_status select_channels_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0], *ids = node->inputs[1];
    LAM_LAUNCH((mask_select_channels), (unsigned)lam_blocks(x->shape[0] * ids->count, THREADS), THREADS, 0,
               lam_cuda_stream(), (const float *)x->data, (const int32_t *)ids->data,
               (float *)node->outputs[0]->data, x->shape[0], x->shape[1], ids->count);
    return LAM_OK;
}

/* tokens: of a row of y, of which the first `first` (1 or 0) belong to no channel. */
static __global__ void __launch_bounds__(THREADS)
    mask_channel_keys(const float *present, const int32_t *ids, float *y, int64_t count, int64_t tokens,
                      int64_t channels, int64_t per_channel, int64_t first) {
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (at >= count) return;
    int64_t b = at / tokens, k = at % tokens - first, n = k < 0 ? 0 : ids ? ids[b * (tokens - first) + k] : k;
    y[at] = k < 0 || present[b * channels + n / per_channel] != 0.0f ? 1.0f : 0.0f;
}

static lam_status channel_keys_forward(lam_node *node) {
    const lam_tensor *present = node->inputs[0], *y = node->outputs[0];
    LAM_LAUNCH((mask_channel_keys), (unsigned)lam_blocks(y->count, THREADS), THREADS, 0, lam_cuda_stream(),
               (const float *)present->data,
               node->input_count > 1 ? (const int32_t *)node->inputs[1]->data : NULL, (float *)y->data,
               y->count, y->shape[1], present->shape[1], node->integers[0], node->integers[1]);
    return LAM_OK;
}

extern const lam_op_functions lam_cuda_mask_ops[] = {
    {"mask_noise", mask_noise_sizes, mask_noise_forward, NULL, NULL, NULL},
    {"mask_plan", plan_sizes, mask_plan_forward, NULL, NULL, NULL},
    {"channel_mask_plan", plan_sizes, channel_mask_plan_forward, NULL, NULL, NULL},
    {"decode_plan", NULL, decode_plan_forward, NULL, NULL, NULL},
    {"draw_channels", draw_channels_sizes, draw_channels_forward, NULL, NULL, NULL},
    {"select_channels", NULL, select_channels_forward, NULL, NULL, NULL},
    {"channel_keys", NULL, channel_keys_forward, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL, NULL}};
