/* Patches straight from pixels: statistics of each crop and channel, then standardised, cut and interleaved.
 *
 * Bound by bytes: pixels are read once from memory and twice from the second-level cache (by crop), patches written once.
 * patches_terms: a block of 512 threads for each crop and channel, sums in double as on the CPU.
 * patches_cut: a block of 256 threads for each row of patches; pixels are read along their rows, turned in 16 KiB of shared memory
 * and written along the patches. Registers: at most 48, so that 1,280 threads fit.
 *
 * The results are those of model/ops/patches.c but for the order of the sums of the statistics, in double (a mean or a
 * deviation that rounds to the neighbouring float), and for log1pf, which differs from the C library's in the last bits. */
#include "model/cuda/backend.cuh"
#include "model/cuda/sums.cuh"
#include "model/ops/attributes.h"

enum { TERM_THREADS = 512, CUT_THREADS = 256, TILE = 4096 };

/* As many pixels as are read at once. */
template <typename P> struct alignas(8 * sizeof(P)) eight { P pixel[8]; };

/* The products are rounded by themselves, as on the CPU, and not fused with what follows. */
static __device__ __forceinline__ float transformed(float pixel, float scale, int64_t transform) {
    float x = __fmul_rn(pixel, scale);
    if (transform == 1) return sqrtf(x);
    if (transform == 2)
        return __fmul_rn(log1pf(__fmul_rn(1023.0f, x)), 1.0f / 6.93147180559945309f); /* ln 1024 */
    return x;
}

/* Of a crop: the sum of t - centre, or of its square. */
template <typename P>
static __device__ double sum_of(const P *pixels, int64_t count, float scale, int64_t transform, double centre,
                                bool squared, double *partial) {
    double sum = 0;
    bool aligned = reinterpret_cast<uintptr_t>(pixels) % sizeof(eight<P>) == 0;
    int64_t wide = aligned ? count / 8 : 0;
    for (int64_t i = threadIdx.x; i < wide; i += TERM_THREADS) {
        eight<P> from = reinterpret_cast<const eight<P> *>(pixels)[i];
#pragma unroll
        for (int k = 0; k < 8; k++) {
            double d = (double)transformed((float)from.pixel[k], scale, transform) - centre;
            sum += squared ? d * d : d;
        }
    }
    for (int64_t i = 8 * wide + threadIdx.x; i < count; i += TERM_THREADS) {
        double d = (double)transformed((float)pixels[i], scale, transform) - centre;
        sum += squared ? d * d : d;
    }
    return lam_block_sum(sum, partial);
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
        double mean = sum_of(crop, count, t.x, from.transform, 0.0, false, partial) / (double)count;
        double squares = sum_of(crop, count, t.x, from.transform, mean, true, partial);
        t.y = (float)mean;
        t.z = (float)(1.0 / sqrt(squares / (double)count + LAM_PATCHES_CROP_EPS));
    }
    if (threadIdx.x == 0) terms[blockIdx.x] = t;
}

static __device__ __forceinline__ float standardised(float pixel, const float4 *terms, int64_t transform) {
    float4 t = *terms;
    return t.w != 0.0f ? (transformed(pixel, t.x, transform) - t.y) * t.z : 0.0f;
}

/* Of a crop of size x size pixels: `together` channels lie in a token, side by side; the others have tokens of their own. */
struct patch_sizes {
    int64_t channels, used, together, size, patch, transform;
    int32_t rows, width; /* of a tile: rows x width pixels of `together` channels */
    bool vectors;        /* four floats of a patch lie together, aligned */
};

/* Block: one row of patches of one group of channels. terms NULL: float32 pixels, taken as they are. */
template <typename P>
static __global__ void __launch_bounds__(CUT_THREADS)
    patches_cut(const P *pixels, const float4 *terms, const int32_t *ids, float *to, patch_sizes s) {
    LAM_SHARED(float4, tile4, [TILE / 4]);
    float *tile = reinterpret_cast<float *>(tile4);
    int64_t grid = s.size / s.patch, patch_row = blockIdx.x % grid, first = blockIdx.x / grid * s.together;
    int32_t together = (int32_t)s.together, patch = (int32_t)s.patch, line = patch * together;
    float *out = to + (blockIdx.x / grid * grid + patch_row) * grid * patch * line;
    for (int32_t y0 = 0; y0 < patch; y0 += s.rows)
        for (int32_t x0 = 0; x0 < (int32_t)s.size; x0 += s.width) {
            int32_t rows = min(s.rows, patch - y0), width = min(s.width, (int32_t)s.size - x0);
            __syncthreads(); /* the tile before has been written out */
            for (int32_t i = threadIdx.x; i < rows * together * width; i += CUT_THREADS) {
                int32_t x = i % width, c = i / width % together, y = i / width / together;
                int64_t at = first + c, b = at / s.used, k = at - b * s.used,
                        plane = b * s.channels + (ids ? ids[k] : k);
                float pixel = (float)pixels[(plane * s.size + patch_row * patch + y0 + y) * s.size + x0 + x];
                tile[(y * width + x) * together + c] =
                    terms ? standardised(pixel, terms + at, s.transform) : pixel;
            }
            __syncthreads();
            int32_t each = s.vectors ? 4 : 1, all = width * together;
            for (int32_t i = threadIdx.x * each; i < rows * all; i += CUT_THREADS * each) {
                int32_t y = i / all, in_row = x0 * together + i - y * all, token = in_row / line;
                float *at = out + (int64_t)token * patch * line + (y0 + y) * line + in_row - token * line;
                if (s.vectors)
                    *reinterpret_cast<float4 *>(at) = tile4[i / 4];
                else
                    *at = tile[i];
            }
        }
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
    int64_t columns = TILE / s.together;
    int64_t width = columns >= s.size ? s.size
                    : columns >= 4    ? columns / 4 * 4
                                      : columns,
            rows = columns / s.size;
    s.width = (int32_t)width;
    s.rows = (int32_t)(rows < 1 ? 1 : rows > s.patch ? s.patch : rows);
    s.vectors = s.patch * s.together % 4 == 0 && s.width * s.together % 4 == 0 &&
                reinterpret_cast<uintptr_t>(y->data) % sizeof(float4) == 0;
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
    LAM_LAUNCH((patches_cut<P>), (unsigned)blocks, CUT_THREADS, 0, lam_cuda_stream(), (const P *)pixels->data,
               terms, ids_of(node), (float *)node->outputs[0]->data, s);
}

static lam_status forward(lam_node *node) {
    patch_sizes s = sizes_of(node);
    float4 *terms = (float4 *)node->forward_workspace; /* [B, used channels] */
    LAM_REQUIRE(s.together <= TILE, LAM_ERROR_CONFIG, "patches: tokens of more than %d channels", (int)TILE);
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
