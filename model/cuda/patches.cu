/* Patches straight from pixels: statistics of each crop and channel, then standardised, cut and interleaved.
 *
 * Bound by bytes: pixels are read once from memory and twice from the caches (by crop), patches written once.
 * patches_terms: a block of 512 threads for each crop and channel, 16 bytes a thread and load, sums of 16 bytes' pixels in
 * float32, of those in double, whose conversions alone would take longer than the bytes.
 * patches_cut: a block of 256 threads for each row of patches; pixels are read along their rows, 16 bytes a thread, into 32 KiB
 * of shared memory as they are, and standardised on their way to the patches, where a thread keeps its place in the rows of a patch
 * and so its channels' terms, and a warp writes 512 bytes side by side. Rows and channels of the tile are padded so that they
 * begin in other banks. Registers: at most 64, on Hopper 48, so that 1,280 threads fit.
 *
 * The results are those of model/ops/patches.c but for the order of the sums of the statistics, in double (a mean or a
 * deviation that rounds to the neighbouring float), and for log1pf, which differs from the C library's in the last bits. */
#include "model/cuda/backend.cuh"
#include "model/cuda/sums.cuh"
#include "model/ops/attributes.h"

enum { TERM_THREADS = 512, CUT_THREADS = 256, TILE = 32768 }; /* bytes of a tile */
enum { ROW_PAD = 16, CHANNEL_PAD = 48 };

/* As many pixels as are read at once. */
template <typename P> constexpr int vector = 16 / (int)sizeof(P);
template <typename P> struct alignas(16) several { P pixel[vector<P>]; };

/* The products are rounded by themselves, as on the CPU, and not fused with what follows. */
static __device__ __forceinline__ float transformed(float pixel, float scale, int64_t transform) {
    float x = __fmul_rn(pixel, scale);
    if (transform == 1) return sqrtf(x);
    if (transform == 2)
        return __fmul_rn(log1pf(__fmul_rn(1023.0f, x)), 1.0f / 6.93147180559945309f); /* ln 1024 */
    return x;
}

/* Of a crop: the sum of t - centre and, with SQUARED, of its square. */
template <typename P, bool SQUARED>
static __device__ double2 sums_of(const P *pixels, int64_t count, float scale, int64_t transform,
                                  float centre, double *partial) {
    double sum = 0, squares = 0;
    bool aligned = reinterpret_cast<uintptr_t>(pixels) % sizeof(several<P>) == 0;
    int64_t wide = aligned ? count / vector<P> : 0;
#pragma unroll 2
    for (int64_t i = threadIdx.x; i < wide; i += TERM_THREADS) {
        several<P> from = reinterpret_cast<const several<P> *>(pixels)[i];
        float some = 0, some_squares = 0;
#pragma unroll
        for (int k = 0; k < vector<P>; k++) {
            float d = transformed((float)from.pixel[k], scale, transform) - centre;
            some += d;
            if (SQUARED) some_squares = fmaf(d, d, some_squares);
        }
        sum += (double)some;
        if (SQUARED) squares += (double)some_squares;
    }
    for (int64_t i = vector<P> * wide + threadIdx.x; i < count; i += TERM_THREADS) {
        float d = transformed((float)pixels[i], scale, transform) - centre;
        sum += (double)d;
        if (SQUARED) squares += (double)d * (double)d;
    }
    sum = lam_block_sum(sum, partial);
    return make_double2(sum, SQUARED ? lam_block_sum(squares, partial) : 0);
}

/* What standardises the pixels of a batch: [B, used channels] of scale, mean, reciprocal deviation, present. */
struct pixel_terms {
    const float *scale, *mean, *rstd, *present; /* mean, rstd NULL: of the crop */
    const int64_t *only;
    const int32_t *ids;
    int64_t channels, used, transform;
};

template <typename P>
static __global__ void __launch_bounds__(TERM_THREADS)
    patches_terms(const P *pixels, pixel_terms from, float4 *terms, int64_t count) {
    LAM_SHARED(double, partial, [32]);
    int64_t b = blockIdx.x / from.used, k = blockIdx.x % from.used, c = from.ids ? from.ids[k] : k,
            at = b * from.channels + c;
    const P *crop = pixels + at * count;
    float4 t = make_float4(from.scale[c], 0.0f, 0.0f, from.present[at]);
    if (from.only && *from.only >= 0 && *from.only != c) t.w = 0.0f;
    if (from.mean) {
        t.y = from.mean[at];
        t.z = from.rstd[at];
    } else if (t.w != 0.0f) {
        double all = (double)count;
        float about = (float)(sums_of<P, false>(crop, count, t.x, from.transform, 0.0f, partial).x / all);
        double2 sums = sums_of<P, true>(crop, count, t.x, from.transform, about, partial);
        double beside = sums.x / all; /* of the mean, which float32 sums have not found to the last bit */
        t.y = (float)((double)about + beside);
        t.z = (float)(1.0 / sqrt(sums.y / all - beside * beside + LAM_PATCHES_CROP_EPS));
    }
    if (threadIdx.x == 0) terms[blockIdx.x] = t;
}

/* Of a crop of size x size pixels: `together` channels lie in a token, side by side; the others have tokens of their own. */
struct patch_sizes {
    int64_t channels, used, together, size, patch, transform;
    int32_t rows,
        width; /* of a tile: rows x width pixels of `together` channels, whole patches wide; 0: no row fits */
    int32_t row_bytes, channel_bytes; /* from one to the next in the tile */
    bool whole;                       /* pixels are read by 16 bytes */
};

/* Rows y0, ... of patches from column x0 on: pixels as they are, rows of a channel together. */
template <typename P>
static __device__ __forceinline__ void fill_tile(const P *pixels, const int32_t *ids, unsigned char *tile,
                                                 const patch_sizes &s, int64_t group, int64_t y0, int32_t x0,
                                                 int32_t rows, int32_t width) {
    int64_t crop = group * s.together / s.used, channel = group * s.together - crop * s.used;
    int32_t each = s.whole ? vector<P> : 1, across = width / each,
            count = (int32_t)s.together * rows * across;
#pragma unroll 2
    for (int32_t i = threadIdx.x; i < count; i += CUT_THREADS) {
        int32_t row = i / across, x = (i - row * across) * each, c = row / rows, y = row - c * rows;
        int64_t plane = crop * s.channels + (ids ? ids[channel + c] : channel + c);
        const P *from = pixels + (plane * s.size + y0 + y) * s.size + x0 + x;
        unsigned char *to = tile + c * s.channel_bytes + y * s.row_bytes + x * (int32_t)sizeof(P);
        if (s.whole)
            *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
        else
            *reinterpret_cast<P *>(to) = *from;
    }
}

/* Block: one row of patches of one group of channels. A thread has V floats, one beside the other, of lines of patches. terms
 * NULL: float32 pixels, taken as they are. */
template <typename P, int V>
static __global__ void __launch_bounds__(CUT_THREADS)
    patches_cut(const P *pixels, const float4 *terms, const int32_t *ids, float *to, patch_sizes s) {
    LAM_SHARED(uint4, memory, [TILE / 16]);
    unsigned char *tile = reinterpret_cast<unsigned char *>(memory);
    int32_t grid = (int32_t)(s.size / s.patch), patch = (int32_t)s.patch, together = (int32_t)s.together,
            line = patch * together, vectors = line / V, across = min(vectors, (int32_t)CUT_THREADS),
            down = CUT_THREADS / across;
    int64_t group = blockIdx.x / grid, y_of_patches = (int64_t)(blockIdx.x % grid) * patch;
    float *out = to + (int64_t)blockIdx.x * grid * patch * line;
    for (int32_t y0 = 0; y0 < patch; y0 += s.rows)
        for (int32_t x0 = 0; x0 < (int32_t)s.size; x0 += s.width) {
            int32_t rows = min(s.rows, patch - y0), width = min(s.width, (int32_t)s.size - x0),
                    lines = width / patch * rows;
            __syncthreads(); /* the tile before has been written out */
            fill_tile(pixels, ids, tile, s, group, y_of_patches + y0, x0, rows, width);
            __syncthreads();
            int32_t begin = (int32_t)threadIdx.x / across, down_tokens = down / rows, down_rows = down % rows;
            if (begin >= down) continue;
            for (int32_t v = (int32_t)threadIdx.x % across; v < vectors; v += across) {
                const unsigned char *from[V];
                float scale[V], mean[V], rstd[V];
#pragma unroll
                for (int k = 0; k < V; k++) {
                    int32_t x = (v * V + k) / together, c = v * V + k - x * together;
                    from[k] = tile + c * s.channel_bytes + x * (int32_t)sizeof(P);
                    if (!terms) continue;
                    float4 t = terms[group * together + c];
                    scale[k] = t.x;
                    mean[k] = t.w != 0.0f ? t.y : 0.0f;
                    rstd[k] = t.w != 0.0f ? t.z : 0.0f;
                }
                int32_t token = begin / rows, y = begin - token * rows;
                for (int32_t n = begin; n < lines; n += down) {
                    float value[V];
                    int32_t at = y * s.row_bytes + token * patch * (int32_t)sizeof(P);
#pragma unroll
                    for (int k = 0; k < V; k++) {
                        value[k] = (float)*reinterpret_cast<const P *>(from[k] + at);
                        if (terms)
                            value[k] = (transformed(value[k], scale[k], s.transform) - mean[k]) * rstd[k];
                    }
                    float *there = out + ((int64_t)(x0 / patch + token) * patch + y0 + y) * line + v * V;
                    if constexpr (V == 4)
                        *reinterpret_cast<float4 *>(there) =
                            make_float4(value[0], value[1], value[2], value[3]);
                    else
                        *there = value[0];
                    token += down_tokens;
                    y += down_rows;
                    if (y >= rows) y -= rows, token++;
                }
            }
        }
}

/* The same without a tile, a float at a time, where a row of a patch of all channels of a token is too wide for one. */
template <typename P>
static __global__ void __launch_bounds__(CUT_THREADS)
    patches_gather(const P *pixels, const float4 *terms, const int32_t *ids, float *to, patch_sizes s,
                   int64_t count) {
    int64_t i = (int64_t)blockIdx.x * CUT_THREADS + threadIdx.x;
    if (i >= count) return;
    const int64_t grid = s.size / s.patch, line = s.patch * s.together;
    int64_t at = i % line, y = i / line % s.patch, token = i / line / s.patch, x = at / s.together,
            c = at % s.together, group = token / (grid * grid), place = token % (grid * grid);
    int64_t crop = group * s.together / s.used, channel = group * s.together - crop * s.used + c;
    int64_t plane = crop * s.channels + (ids ? ids[channel] : channel);
    float value =
        (float)pixels[(plane * s.size + place / grid * s.patch + y) * s.size + place % grid * s.patch + x];
    if (terms) {
        float4 t = terms[group * s.together + c];
        value =
            (transformed(value, t.x, s.transform) - (t.w != 0.0f ? t.y : 0.0f)) * (t.w != 0.0f ? t.z : 0.0f);
    }
    to[i] = value;
}

static patch_sizes sizes_of(const lam_node *node) {
    const lam_tensor *pixels = node->inputs[0], *y = node->outputs[0];
    int64_t at_ids = node->integers[LAM_PATCHES_AT_IDS];
    patch_sizes s = {};
    s.channels = pixels->shape[1];
    s.size = pixels->shape[2];
    s.patch = node->integers[LAM_PATCHES_SIZE];
    s.transform = node->integers[LAM_PATCHES_TRANSFORM];
    s.used = at_ids ? node->inputs[at_ids]->count : s.channels;
    s.together = y->shape[2] == s.patch * s.patch ? 1 : s.used;
    /* Of a channel, in whole vectors, so that a row fits that has been rounded up to them. */
    int64_t pixel = (int64_t)lam_dtype_bytes(pixels->dtype),
            room = (TILE / s.together - CHANNEL_PAD) / 16 * 16,
            width = (room - ROW_PAD) / pixel / s.patch * s.patch;
    width = width < s.size ? width : s.size;
    s.width = width > 0 ? (int32_t)width : 0;
    s.row_bytes = (int32_t)(lam_blocks(s.width * pixel, 16) * 16 + ROW_PAD);
    int64_t rows = s.width ? room / s.row_bytes : 0;
    s.rows = (int32_t)(rows < s.patch ? rows : s.patch);
    s.channel_bytes = s.rows * s.row_bytes + CHANNEL_PAD;
    s.whole = s.size * pixel % 16 == 0 && s.width * pixel % 16 == 0 &&
              reinterpret_cast<uintptr_t>(pixels->data) % 16 == 0;
    return s;
}

static const int32_t *ids_of(const lam_node *node) {
    int64_t at = node->integers[LAM_PATCHES_AT_IDS];
    return at ? (const int32_t *)node->inputs[at]->data : NULL;
}

template <typename P> static void launch_terms(const lam_node *node, const patch_sizes &s, float4 *terms) {
    const lam_tensor *pixels = node->inputs[0];
    const int64_t *a = node->integers;
    pixel_terms from = {};
    from.scale = (const float *)node->inputs[a[LAM_PATCHES_AT_SCALE]]->data;
    from.present = (const float *)node->inputs[a[LAM_PATCHES_AT_PRESENT]]->data;
    if (!a[LAM_PATCHES_BY_CROP]) {
        from.mean = (const float *)node->inputs[a[LAM_PATCHES_AT_MEAN]]->data;
        from.rstd = (const float *)node->inputs[a[LAM_PATCHES_AT_MEAN] + 1]->data;
    }
    if (a[LAM_PATCHES_AT_ONLY]) from.only = (const int64_t *)node->inputs[a[LAM_PATCHES_AT_ONLY]]->data;
    from.ids = ids_of(node);
    from.channels = s.channels;
    from.used = s.used;
    from.transform = s.transform;
    LAM_LAUNCH((patches_terms<P>), (unsigned)(pixels->shape[0] * s.used), TERM_THREADS, 0, lam_cuda_stream(),
               (const P *)pixels->data, from, terms, s.size * s.size);
}

template <typename P>
static void launch_cut(const lam_node *node, const patch_sizes &s, const float4 *terms) {
    const lam_tensor *pixels = node->inputs[0];
    int64_t blocks = pixels->shape[0] * s.used / s.together * (s.size / s.patch);
    float *to = (float *)node->outputs[0]->data;
    const int64_t count = pixels->shape[0] * s.used * s.size * s.size;
    if (!s.rows)
        LAM_LAUNCH((patches_gather<P>), (unsigned)lam_blocks(count, CUT_THREADS), CUT_THREADS, 0,
                   lam_cuda_stream(), (const P *)pixels->data, terms, ids_of(node), to, s, count);
    else if (s.patch * s.together % 4 == 0 && reinterpret_cast<uintptr_t>(to) % 16 == 0)
        LAM_LAUNCH((patches_cut<P, 4>), (unsigned)blocks, CUT_THREADS, 0, lam_cuda_stream(),
                   (const P *)pixels->data, terms, ids_of(node), to, s);
    else
        LAM_LAUNCH((patches_cut<P, 1>), (unsigned)blocks, CUT_THREADS, 0, lam_cuda_stream(),
                   (const P *)pixels->data, terms, ids_of(node), to, s);
}

static lam_status forward(lam_node *node) {
    patch_sizes s = sizes_of(node);
    float4 *terms = (float4 *)node->forward_workspace; /* [B, used channels] */
    switch (node->inputs[0]->dtype) {
    case LAM_U8:
        launch_terms<uint8_t>(node, s, terms);
        launch_cut<uint8_t>(node, s, terms);
        break;
    case LAM_U16:
        launch_terms<uint16_t>(node, s, terms);
        launch_cut<uint16_t>(node, s, terms);
        break;
    default: launch_cut<float>(node, s, NULL);
    }
    return LAM_OK;
}

static void sizes(lam_node *node) {
    int64_t planes = node->inputs[0]->shape[0] * sizes_of(node).used;
    node->forward_workspace_bytes = node->inputs[0]->dtype == LAM_F32 ? 0 : (size_t)planes * sizeof(float4);
}

extern const lam_op_functions lam_cuda_patches_ops[] = {{"patches", sizes, forward, NULL, NULL, NULL},
                                                        {NULL, NULL, NULL, NULL, NULL, NULL}};
