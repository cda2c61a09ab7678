#include "train/limit.h"

#include "base/gemm.h"
#include "base/log.h"
#include "base/memory.h"

#define FEWEST_RUNS 3 /* one run may meet another program */

typedef struct shape {
    int64_t rows, in, out, count; /* y[rows, out] = x[rows, in] w[out, in]^T, count times in a step */
} shape;

static int block_shapes(shape *shapes, int64_t rows, int64_t width, int64_t hidden, int64_t depth) {
    shapes[0] = (shape){rows, width, 3 * width, depth};
    shapes[1] = (shape){rows, width, width, depth};
    shapes[2] = (shape){rows, width, hidden, depth};
    shapes[3] = (shape){rows, hidden, width, depth};
    return 4;
}

/* One product of each of the three kinds. */
static lam_status run_once(const shape *s, const float *x, const float *w, float *y, float *gx, float *gw) {
    LAM_TRY(lam_gemm_f32(false, true, s->rows, s->out, s->in, x, s->in, w, s->in, 0, y, s->out));
    LAM_TRY(lam_gemm_f32(false, false, s->rows, s->in, s->out, y, s->out, w, s->in, 0, gx, s->in));
    return lam_gemm_f32(true, false, s->out, s->in, s->rows, y, s->out, x, s->in, 0, gw, s->in);
}

static lam_status time_shape(const shape *s, double seconds, double *seconds_once) {
    float *x = NULL, *w = NULL, *y = NULL, *gx = NULL, *gw = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&x, s->rows * s->in, sizeof(float)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&w, s->out * s->in, sizeof(float)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&y, s->rows * s->out, sizeof(float)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&gx, s->rows * s->in, sizeof(float)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&gw, s->out * s->in, sizeof(float)), done);
    for (int64_t i = 0; i < s->rows * s->in; i++) x[i] = 0.001f * (float)(i % 997) - 0.5f;
    for (int64_t i = 0; i < s->out * s->in; i++) w[i] = 0.001f * (float)(i % 991) - 0.5f;
    LAM_TRY_GOTO(run_once(s, x, w, y, gx, gw), done); /* caches and code are warm after it */
    /* The fastest of the runs: what the machine can do, not what it happened to do. */
    double begin = lam_now(), best = 1e30;
    int runs = 0;
    do {
        double start = lam_now();
        LAM_TRY_GOTO(run_once(s, x, w, y, gx, gw), done);
        double took = lam_now() - start;
        if (took < best) best = took;
    } while (++runs < FEWEST_RUNS || lam_now() - begin < seconds);
    *seconds_once = best;
done:
    lam_free(x);
    lam_free(w);
    lam_free(y);
    lam_free(gx);
    lam_free(gw);
    return status;
}

lam_status lam_gemm_limit(const lam_mae_config *m, int64_t batch, double seconds, double *flops_per_s) {
    int64_t side = m->image_size / m->patch_size, tokens = side * side;
    if (m->kind == LAM_MAE_CHANNEL_AGNOSTIC) tokens *= m->in_channels;
    int64_t kept = (int64_t)((double)tokens * (1 - m->mask_ratio));
    int64_t hidden = m->mlp_dim ? m->mlp_dim : 4 * m->embed_dim;
    int64_t decoder_hidden = m->decoder_mlp_dim ? m->decoder_mlp_dim : 4 * m->decoder_embed_dim;
    shape shapes[8];
    int count = block_shapes(shapes, batch * (kept + 1), m->embed_dim, hidden, m->depth);
    count += block_shapes(shapes + count, batch * (tokens + 1), m->decoder_embed_dim, decoder_hidden,
                          m->decoder_depth);
    double flops = 0, time = 0;
    for (int i = 0; i < count; i++) {
        double once = 0;
        LAM_TRY(time_shape(&shapes[i], seconds / count, &once));
        flops += 6.0 * (double)shapes[i].rows * (double)shapes[i].in * (double)shapes[i].out *
                 (double)shapes[i].count;
        time += once * (double)shapes[i].count;
    }
    *flops_per_s = flops / time;
    return LAM_OK;
}
