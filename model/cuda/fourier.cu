/* The Fourier loss: transforms are cuBLASLt's products with DFT matrices, over as many samples at once as 64 MiB hold.
 *
 * Everything else is bound by bytes: planes out of tokens and back, a transpose of 32 x 32 tiles in 4 KiB of shared memory, and
 * the amplitudes, which read two spectra and write one. Blocks of 256 threads, at most 56 registers, so that 1,024 fit.
 *
 * The steps are those of model/ops/fourier.c, where layouts are explained; spectra are float32, the sum of the errors of an
 * image is in double in a fixed order. */
#include "model/cuda/backend.cuh"
#include "model/cuda/loss.cuh"
#include "model/cuda/sums.cuh"
#include "model/ops/attributes.h"

enum { THREADS = 256, TILE = 32 };
static int64_t pass_bytes = (int64_t)64 << 20;

/* For tests: of what is planned from now on. */
extern "C" void lam_cuda_set_fourier_pass(int64_t bytes) { pass_bytes = bytes; }

/* ---- the two matrices ---- */

/* cos and sin of 2 pi k / n. */
static __device__ void turn_of(int64_t k, int64_t n, float *cosine, float *sine) {
    double s, c;
    sincospi(2.0 * (double)(k % n) / (double)n, &s, &c);
    *cosine = (float)c;
    *sine = (float)s;
}

static __global__ void __launch_bounds__(THREADS)
    fourier_matrices(float *rows, float *columns, lam_fourier_shape s) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, h = s.height, w = s.width, half = s.half;
    float c, n;
    if (i < w * half) {
        int64_t x = i / half, v = i % half;
        turn_of(x * v, w, &c, &n);
        rows[x * 2 * half + v] = c;
        rows[x * 2 * half + half + v] = -n;
    } else if (i < w * half + h * h) {
        int64_t y = (i - w * half) / h, u = (i - w * half) % h;
        float *top = columns + y * 2 * h, *bottom = columns + (h + y) * 2 * h;
        turn_of(y * u, h, &c, &n);
        top[u] = c;
        top[h + u] = -n;
        bottom[u] = n;
        bottom[h + u] = c;
    }
}

/* ---- between tokens and planes ---- */

/* An element of the tokens of a sample: its token and where it lies in the planes. */
struct fourier_place {
    int32_t token, plane;
};

static __device__ fourier_place place_of(const lam_fourier_shape &s, int32_t element) {
    int32_t length = (int32_t)s.length, token = element / length, inside = element - token * length;
    if (s.form == LAM_FOURIER_RECURSION) return {token, element};
    int32_t p = (int32_t)s.patch_size, g = (int32_t)s.grid, channels = (int32_t)s.channels, area = g * g,
            c = s.by_channel ? token / area : inside % channels, n = s.by_channel ? token - c * area : token,
            pixel = s.by_channel ? inside : inside / channels, y = pixel / p, x = pixel - y * p;
    if (s.form == LAM_FOURIER_IMAGE) return {token, ((c * g + n / g) * p + y) * g * p + n % g * p + x};
    return {token, (((s.by_channel ? token : n * channels + c) * p) + y) * p + x};
}

/* mean, rstd [samples, tokens], NULL: 0 and 1; prediction NULL: planes of the target. Element `first` of prediction and target,
 * token `first` / length of the mask, is the first of the samples. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    fourier_planes(const T *prediction, const float *target, const float *mask, const float *mean,
                   const float *rstd, float *planes, lam_fourier_shape s, int64_t count) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, each = s.tokens * s.length;
    if (i >= count) return;
    int64_t sample = i / each;
    fourier_place at = place_of(s, (int32_t)(i - sample * each));
    int64_t token = sample * s.tokens + at.token;
    bool guessed = prediction && (s.form != LAM_FOURIER_IMAGE || mask[token] != 0.0f);
    float value = guessed ? lam_load(prediction + i)
                  : mean  ? (target[i] - mean[token]) * rstd[token]
                          : target[i];
    planes[sample * each + at.plane] = value;
}

/* d (+)= d_loss weight planes; a sample of weight 0 passes nothing, whatever its planes are. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    fourier_tokens(const float *planes, const float *mask, const float *weight, const float *d_loss, T *d,
                   bool add, lam_fourier_shape s, int64_t count) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, each = s.tokens * s.length;
    if (i >= count) return;
    int64_t sample = i / each;
    fourier_place at = place_of(s, (int32_t)(i - sample * each));
    float value = 0;
    if (weight[sample] != 0.0f) {
        bool reached = s.form == LAM_FOURIER_RECURSION || mask[sample * s.tokens + at.token] != 0.0f;
        value = (reached ? *d_loss * weight[sample] : 0.0f) * planes[sample * each + at.plane];
    }
    lam_store(d + i, (add ? lam_load(d + i) : 0.0f) + value);
}

/* Between [image, outer, (re | im), inner] and [image, inner, (re | im), outer]. Block: 32 x 8 threads, a tile of one part. */
static __global__ void __launch_bounds__(THREADS)
    fourier_turn(const float *from, float *to, int64_t outer, int64_t inner) {
    LAM_SHARED(float, tile, [TILE][TILE + 1]);
    int64_t across = (inner + TILE - 1) / TILE, down = (outer + TILE - 1) / TILE, block = blockIdx.x,
            first_inner = block % across * TILE, first_outer = block / across % down * TILE,
            plane = block / (across * down), part = plane % 2, image = plane / 2;
    const float *source = from + image * 2 * outer * inner + part * inner;
    float *sink = to + image * 2 * outer * inner + part * outer;
    for (int k = threadIdx.y; k < TILE; k += THREADS / TILE) {
        int64_t o = first_outer + k, i = first_inner + threadIdx.x;
        if (o < outer && i < inner) tile[k][threadIdx.x] = source[o * 2 * inner + i];
    }
    __syncthreads();
    for (int k = threadIdx.y; k < TILE; k += THREADS / TILE) {
        int64_t i = first_inner + k, o = first_outer + threadIdx.x;
        if (o < outer && i < inner) sink[i * 2 * outer + o] = tile[threadIdx.x][k];
    }
}

/* ---- amplitudes ---- */

/* cells [samples, cells of a sample]: the weight of each. Block: one sample. */
static __global__ void __launch_bounds__(THREADS)
    fourier_cells(const float *mask, float *cells, lam_fourier_shape s) {
    LAM_SHARED(int, counts, [32]);
    int64_t b = blockIdx.x;
    if (s.form == LAM_FOURIER_IMAGE) {
        if (threadIdx.x == 0) cells[b] = 1.0f / (float)s.cell;
        return;
    }
    int count = 0;
    for (int64_t t = threadIdx.x; t < s.tokens; t += THREADS) count += mask[b * s.tokens + t] != 0.0f;
    count = lam_block_sum(count, counts);
    for (int64_t t = threadIdx.x; t < s.tokens; t += THREADS)
        cells[b * s.tokens + t] =
            mask[b * s.tokens + t] != 0.0f ? 1.0f / ((float)s.length * (float)count) : 0.0f;
}

/* Of the coefficient (u, v) of an image and of its mirror image (-u, -v), which has the same amplitude. */
static __device__ float weight_of(const float *cells, const lam_fourier_shape &s, int64_t image, int64_t u,
                                  int64_t v, bool uniform) {
    int64_t h = s.height, w = s.width, first = image * h * w;
    bool mirrored = v > 0 && 2 * v != w;
    if (uniform) {
        float weight = cells[first / s.cell];
        return mirrored ? weight + weight : weight;
    }
    float weight = cells[(first + u * w + v) / s.cell];
    if (mirrored) weight += cells[(first + (h - u) % h * w + w - v) / s.cell];
    return weight;
}

/* The error of each image, and in place of its spectrum the gradient of the loss of its sample. Block: one image. */
static __global__ void __launch_bounds__(THREADS)
    fourier_errors(float *spectrum, const float *wanted, const float *cells, double *errors,
                   lam_fourier_shape s, bool squared, bool uniform) {
    LAM_SHARED(double, partial, [32]);
    int64_t image = blockIdx.x % s.images, sample = blockIdx.x / s.images;
    int32_t h = (int32_t)s.height, count = (int32_t)(s.half * s.height);
    const float *own_cells = cells + sample * (s.form == LAM_FOURIER_IMAGE ? 1 : s.tokens);
    float *own = spectrum + blockIdx.x * 2 * (int64_t)count;
    const float *other = wanted + blockIdx.x * 2 * (int64_t)count;
    double sum = 0;
    for (int32_t i = threadIdx.x; i < count; i += THREADS) {
        int32_t v = i / h, u = i - v * h;
        float *re = own + v * 2 * h + u, *im = re + h;
        const float *other_re = other + v * 2 * h + u, *other_im = other_re + h;
        float amplitude = sqrtf(*re * *re + *im * *im),
              goal = sqrtf(*other_re * *other_re + *other_im * *other_im),
              weight = weight_of(own_cells, s, image, u, v, uniform), e = amplitude - goal;
        sum += (double)(weight * (squared ? e * e : fabsf(e)));
        float slope = weight * (squared ? 2.0f * e : e > 0.0f ? 1.0f : e < 0.0f ? -1.0f : 0.0f);
        slope = amplitude > 0.0f ? slope / amplitude : 0.0f; /* the sub-gradient 0 at 0 */
        *re *= slope;
        *im *= slope;
    }
    sum = lam_block_sum(sum, partial);
    if (threadIdx.x == 0) errors[blockIdx.x] = sum;
}

/* ---- the host ---- */

/* Bytes that follow each other in a workspace, each part aligned. */
struct layout {
    char *memory;
    size_t bytes;
};
template <typename V> static V *part(layout *l, int64_t count) {
    V *here = (V *)(l->memory + l->bytes);
    l->bytes += ((size_t)count * sizeof(V) + 255) / 256 * 256;
    return here;
}

/* Floats of a sample, and how many samples a pass takes. */
struct fourier_sizes {
    lam_fourier_shape shape;
    int64_t batch, plane, spectrum, pass;
};

static fourier_sizes sizes_of(const lam_node *node) {
    fourier_sizes z = {};
    z.shape = lam_fourier_shape_of(node);
    z.batch = node->inputs[0]->shape[0];
    z.plane = z.shape.images * z.shape.height * z.shape.width;
    z.spectrum = z.shape.images * z.shape.half * 2 * z.shape.height;
    int64_t fit = pass_bytes / ((z.plane + 2 * z.spectrum) * (int64_t)sizeof(float));
    z.pass = fit < 1 ? 1 : fit < z.batch ? fit : z.batch;
    return z;
}

struct fourier_saved {
    float *rows, *columns, *spectra;
    size_t bytes;
};
static fourier_saved saved_of(void *memory, const fourier_sizes &z) {
    layout l = {(char *)memory, 0};
    fourier_saved s;
    s.rows = part<float>(&l, z.shape.width * 2 * z.shape.half);
    s.columns = part<float>(&l, 4 * z.shape.height * z.shape.height);
    s.spectra = part<float>(&l, z.batch * z.spectrum);
    s.bytes = l.bytes;
    return s;
}

/* Of a pass, but errors and weighted of the batch. `rows` takes the spectrum of the target once its rows have been turned. */
struct fourier_room {
    double *errors, *weighted;
    float *planes, *rows, *turned, *mean, *rstd, *cells;
    size_t bytes;
};
static fourier_room room_of(void *memory, const fourier_sizes &z, bool norm_pix) {
    layout l = {(char *)memory, 0};
    fourier_room r;
    r.errors = part<double>(&l, z.batch * z.shape.images);
    r.weighted = part<double>(&l, z.batch);
    r.planes = part<float>(&l, z.pass * z.plane);
    r.rows = part<float>(&l, z.pass * z.spectrum);
    r.turned = part<float>(&l, z.pass * z.spectrum);
    r.mean = norm_pix ? part<float>(&l, z.pass * z.shape.tokens) : NULL;
    r.rstd = norm_pix ? part<float>(&l, z.pass * z.shape.tokens) : NULL;
    r.cells = part<float>(&l, z.pass * z.shape.tokens);
    r.bytes = l.bytes;
    return r;
}

static void turn(const float *from, float *to, int64_t images, int64_t outer, int64_t inner) {
    int64_t tiles = lam_blocks(outer, TILE) * lam_blocks(inner, TILE);
    LAM_LAUNCH((fourier_turn), (unsigned)(2 * images * tiles), dim3(TILE, THREADS / TILE), 0,
               lam_cuda_stream(), from, to, outer, inner);
}

/* planes -> spectrum, of `samples` samples; rows, turned: scratch; spectrum may be rows. */
static lam_status transform(const lam_fourier_shape &s, const fourier_saved &saved, const fourier_room &room,
                            int64_t samples, float *spectrum) {
    int64_t images = samples * s.images, h = s.height, w = s.width, half = s.half;
    LAM_TRY(lam_cuda_product_f32(false, false, images * h, 2 * half, w, room.planes, w, saved.rows, 2 * half,
                                 0, room.rows, 2 * half));
    turn(room.rows, room.turned, images, h, half);
    return lam_cuda_product_f32(false, false, images * half, 2 * h, 2 * h, room.turned, 2 * h, saved.columns,
                                2 * h, 0, spectrum, 2 * h);
}

template <typename T> static lam_status forward(lam_node *node) {
    fourier_sizes z = sizes_of(node);
    const lam_fourier_shape &s = z.shape;
    bool norm_pix = node->integers[LAM_FOURIER_AT_NORM_PIX] != 0,
         squared = node->integers[LAM_FOURIER_AT_SQUARED] != 0, uniform = s.cell % (s.height * s.width) == 0;
    fourier_saved saved = saved_of(node->saved, z);
    fourier_room room = room_of(node->forward_workspace, z, norm_pix);
    const T *prediction = (const T *)node->inputs[0]->data, *none = NULL;
    const float *target = (const float *)node->inputs[1]->data, *mask = (const float *)node->inputs[2]->data;
    cudaStream_t stream = lam_cuda_stream();
    LAM_LAUNCH((fourier_matrices), (unsigned)lam_blocks(s.width * s.half + s.height * s.height, THREADS),
               THREADS, 0, stream, saved.rows, saved.columns, s);
    for (int64_t first = 0; first < z.batch; first += z.pass) {
        int64_t samples = z.batch - first < z.pass ? z.batch - first : z.pass, count = samples * z.plane;
        unsigned blocks = (unsigned)lam_blocks(count, THREADS);
        const float *truth = target + first * z.plane, *hidden = mask + first * s.tokens;
        float *guess = saved.spectra + first * z.spectrum;
        if (norm_pix) lam_cuda_target_scales(truth, samples * s.tokens, s.length, room.mean, room.rstd);
        LAM_LAUNCH((fourier_cells), (unsigned)samples, THREADS, 0, stream, hidden, room.cells, s);
        LAM_LAUNCH((fourier_planes<T>), blocks, THREADS, 0, stream, prediction + first * z.plane, truth,
                   hidden, (const float *)room.mean, (const float *)room.rstd, room.planes, s, count);
        LAM_TRY(transform(s, saved, room, samples, guess));
        LAM_LAUNCH((fourier_planes<T>), blocks, THREADS, 0, stream, none, truth, hidden,
                   (const float *)room.mean, (const float *)room.rstd, room.planes, s, count);
        LAM_TRY(transform(s, saved, room, samples, room.rows));
        LAM_LAUNCH((fourier_errors), (unsigned)(samples * s.images), THREADS, 0, stream, guess,
                   (const float *)room.rows, (const float *)room.cells, room.errors + first * s.images, s,
                   squared, uniform);
    }
    lam_cuda_sum_losses(room.errors, NULL, (const float *)node->inputs[3]->data, room.weighted,
                        (float *)node->outputs[1]->data, (float *)node->outputs[0]->data, z.batch, s.images);
    return LAM_OK;
}

template <typename T> static lam_status backward(lam_node *node, T *d, bool add) {
    fourier_sizes z = sizes_of(node);
    const lam_fourier_shape &s = z.shape;
    int64_t h = s.height, w = s.width, half = s.half;
    fourier_saved saved = saved_of(node->saved, z);
    layout l = {(char *)node->backward_workspace, 0};
    float *turned = part<float>(&l, z.pass * z.spectrum), *rows = part<float>(&l, z.pass * z.spectrum),
          *planes = part<float>(&l, z.pass * z.plane);
    const float *mask = (const float *)node->inputs[2]->data, *weight = (const float *)node->inputs[3]->data;
    for (int64_t first = 0; first < z.batch; first += z.pass) {
        int64_t samples = z.batch - first < z.pass ? z.batch - first : z.pass, images = samples * s.images,
                count = samples * z.plane;
        LAM_TRY(lam_cuda_product_f32(false, true, images * half, 2 * h, 2 * h,
                                     saved.spectra + first * z.spectrum, 2 * h, saved.columns, 2 * h, 0,
                                     turned, 2 * h));
        turn(turned, rows, images, half, h);
        LAM_TRY(lam_cuda_product_f32(false, true, images * h, w, 2 * half, rows, 2 * half, saved.rows,
                                     2 * half, 0, planes, w));
        LAM_LAUNCH((fourier_tokens<T>), (unsigned)lam_blocks(count, THREADS), THREADS, 0, lam_cuda_stream(),
                   (const float *)planes, mask + first * s.tokens, weight + first,
                   (const float *)node->outputs[0]->gradient, d + first * z.plane, add, s, count);
    }
    return LAM_OK;
}

static lam_status fourier_forward(lam_node *node) {
    return node->inputs[0]->dtype == LAM_BF16 ? forward<__nv_bfloat16>(node) : forward<float>(node);
}

static lam_status fourier_backward(lam_node *node) {
    bool add;
    void *d = lam_gradient_target(node->inputs[0], &add);
    if (!d) return LAM_OK;
    return node->inputs[0]->dtype == LAM_BF16 ? backward(node, (__nv_bfloat16 *)d, add)
                                              : backward(node, (float *)d, add);
}

static void fourier_node_sizes(lam_node *node) {
    fourier_sizes z = sizes_of(node);
    layout l = {NULL, 0};
    part<float>(&l, z.pass * z.spectrum);
    part<float>(&l, z.pass * z.spectrum);
    part<float>(&l, z.pass * z.plane);
    node->backward_workspace_bytes = l.bytes;
    node->forward_workspace_bytes = room_of(NULL, z, node->integers[LAM_FOURIER_AT_NORM_PIX] != 0).bytes;
    node->saved_bytes = saved_of(NULL, z).bytes;
}

extern const lam_op_functions lam_cuda_fourier_ops[] = {
    {"fourier_loss", fourier_node_sizes, fourier_forward, fourier_backward, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL, NULL}};
