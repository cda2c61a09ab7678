/* Operations that a device has functions of its own for, against those of the CPU: the same graph on both, the same inputs. Masks,
 * plans and places are the same bits, the rest is the same to rounding. Runs where LAMELLA_TEST_DEVICE names a device. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "model/graph.h"
#include "model/ops.h"
#include "tests/unit/activation.h"
#include "tests/unit/device.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

enum { MOST = 8 };

/* A graph on one of the two. */
typedef struct side {
    lam_parameters *parameters;
    lam_graph *graph;
    lam_tensor *in[MOST], *out[MOST];
    int ins, outs;
} side;

typedef struct bench {
    const char *name;
    side side[2]; /* CPU, device */
    lam_rng rng;
} bench;

static lam_tensor *input(side *s, lam_dtype type, int rank, const int64_t *shape) {
    char name[16] = {(char)('a' + s->ins), 0};
    assert_true(s->ins < MOST);
    return s->in[s->ins++] = lam_input(s->graph, name, type, rank, shape);
}

static lam_tensor *output(side *s, lam_tensor *t) {
    char name[16] = {(char)('A' + s->outs), 0};
    assert_true(s->outs < MOST);
    return s->out[s->outs++] = lam_keep(s->graph, t, name);
}

typedef void builder(side *s, const void *how);

/* prediction: shape of a parameter, of three dimensions; NULL: there is none. */
static bench open_bench(const char *name, builder *build, const void *how, const int64_t *prediction,
                        bool bf16) {
    bench b = {.name = name, .rng = lam_rng_stream(3, LAM_RNG_TEST, (uint64_t)name[0])};
    for (int k = 0; k < 2; k++) {
        side *s = &b.side[k];
        ok(lam_parameters_create(&s->parameters));
        if (prediction)
            ok(lam_parameters_add(s->parameters, "prediction", 3, prediction, LAM_INIT_ZERO, 0, false));
        ok(lam_parameters_layout(s->parameters, 1));
        ok(lam_graph_create(&s->graph, s->parameters, k ? test_backend() : lam_backend_cpu()));
        if (bf16) lam_graph_set_activation(s->graph, LAM_BF16);
        build(s, how);
        ok(lam_graph_plan(s->graph));
    }
    return b;
}

static void close_bench(bench *b) {
    for (int k = 0; k < 2; k++) {
        lam_graph_free(b->side[k].graph);
        lam_parameters_free(b->side[k].parameters);
    }
}

/* The k-th input of both. */
static void give(bench *b, int k, const void *values, size_t bytes) {
    for (int i = 0; i < 2; i++) memcpy(lam_tensor_data(b->side[i].in[k]), values, bytes);
}

static float uniform(bench *b) { return (float)lam_rng_uniform(&b->rng); }

/* Floats in [low, low + width). */
static void give_floats(bench *b, int k, float low, float width) {
    int64_t n = lam_tensor_count(b->side[0].in[k]);
    float *values = malloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = low + width * uniform(b);
    give(b, k, values, (size_t)n * sizeof *values);
    free(values);
}

/* 1 with the probability `share`, else 0. */
static void give_bits(bench *b, int k, double share) {
    int64_t n = lam_tensor_count(b->side[0].in[k]);
    float *values = malloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = lam_rng_uniform(&b->rng) < share ? 1.0f : 0.0f;
    give(b, k, values, (size_t)n * sizeof *values);
    free(values);
}

static void give_number(bench *b, int k, int64_t value) { give(b, k, &value, sizeof value); }

static void give_ids(bench *b, int k) {
    int64_t n = lam_tensor_count(b->side[0].in[k]), *ids = malloc((size_t)n * sizeof *ids);
    for (int64_t i = 0; i < n; i++) ids[i] = (int64_t)lam_rng_word(&b->rng) << (i % 3 * 15);
    give(b, k, ids, (size_t)n * sizeof *ids);
    free(ids);
}

static void run(bench *b) {
    for (int k = 0; k < 2; k++) ok(lam_graph_forward(b->side[k].graph));
}

static void same_bits(bench *b) {
    for (int k = 0; k < b->side[0].outs; k++) {
        const lam_tensor *want = b->side[0].out[k], *is = b->side[1].out[k];
        int64_t each = lam_tensor_dtype(want) == LAM_I64 ? 8 : 4, n = lam_tensor_count(want);
        const char *x = lam_tensor_data(want), *y = lam_tensor_data(is);
        for (int64_t i = 0; i < n; i++)
            if (memcmp(x + i * each, y + i * each, (size_t)each) != 0)
                fail_msg("%s: element %lld of output %d differs", b->name, (long long)i, k);
    }
}

static void compare(const char *name, const float *want, const float *is, int64_t n, double bound) {
    double size = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(want[i])) size = fmax(size, fabs((double)want[i]));
    for (int64_t i = 0; i < n; i++)
        if (isfinite(want[i])
                ? !(fabs((double)want[i] - (double)is[i]) <= bound * (0.1 * size + fabs((double)want[i])))
                : isfinite(is[i]))
            fail_msg("%s: element %lld is %.9g, not %.9g", name, (long long)i, (double)is[i],
                     (double)want[i]);
}

static void close_values(bench *b, double bound) {
    for (int k = 0; k < b->side[0].outs; k++)
        compare(b->name, lam_tensor_data(b->side[0].out[k]), lam_tensor_data(b->side[1].out[k]),
                lam_tensor_count(b->side[0].out[k]), bound);
}

/* ---- masks ---- */

enum { BATCH = 3 };

static void build_mask(side *s, const void *how) {
    const lam_mask *mask = how;
    lam_tensor *step = input(s, LAM_I64, 1, (int64_t[]){1}), *ids = input(s, LAM_I64, 1, (int64_t[]){BATCH}),
               *noise = lam_mask_noise(s->graph, step, ids, mask), *out[5];
    int64_t tokens = mask->channels * mask->grid * mask->grid;
    lam_mask_plan(s->graph, noise, mask->keep, &out[0], &out[1], &out[2]);
    output(s, noise);
    for (int k = 0; k < 3; k++) output(s, out[k]);
    if (mask->keep == tokens) return;
    lam_decode_plan(s->graph, out[1], mask->keep, (mask->keep + tokens + 1) / 2, &out[3], &out[4]);
    for (int k = 3; k < 5; k++) output(s, out[k]);
}

static void masks(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const lam_mask modes[] = {{LAM_MASKING_RANDOM, 1, 1, 1, 1},
                                     {LAM_MASKING_RANDOM, 1, 14, 49, 2},
                                     {LAM_MASKING_RANDOM, 5, 7, 245, 3},
                                     {LAM_MASKING_RANDOM, 1, 142, 5041, 4}, /* ten chunks of a sort */
                                     {LAM_MASKING_RANDOM, 2, 32, 512, 4},
                                     {LAM_MASKING_BLOCK, 1, 16, 64, 5},
                                     {LAM_MASKING_BLOCK, 3, 7, 36, 6},
                                     {LAM_MASKING_BLOCK, 1, 2, 1, 7},
                                     {LAM_MASKING_BLOCK, 1, 40, 1, 8},
                                     {LAM_MASKING_BLOCK, 6, 14, 1170, 8},
                                     {LAM_MASKING_PER_CHANNEL, 5, 4, 20, 9},
                                     {LAM_MASKING_PER_CHANNEL, 2, 50, 1250, 10},
                                     {LAM_MASKING_PER_CHANNEL, 6, 16, 384, 11},
                                     {LAM_MASKING_WHOLE_CHANNEL, 6, 3, 18, 12},
                                     {LAM_MASKING_WHOLE_CHANNEL, 71, 2, 80, 13}};
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        bench b = open_bench("masks", build_mask, &modes[m], NULL, false);
        for (int64_t step = 0; step < (modes[m].grid > 20 ? 2 : 12); step++) {
            give_number(&b, 0, step * 40000000000);
            give_ids(&b, 1);
            run(&b);
            same_bits(&b);
        }
        close_bench(&b);
    }
}

/* Ties and signs, which draws do not have. */
static void build_plan(side *s, const void *how) {
    const int64_t *tokens = how;
    lam_tensor *out[3];
    lam_mask_plan(s->graph, input(s, LAM_F32, 2, (int64_t[]){BATCH, tokens[0]}), tokens[1], &out[0], &out[1],
                  &out[2]);
    for (int k = 0; k < 3; k++) output(s, out[k]);
}

static void ties(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const int64_t sizes[][2] = {{7, 3}, {2048, 1000}, {2049, 2049}, {6000, 1}};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        bench b = open_bench("ties", build_plan, sizes[k], NULL, false);
        int64_t n = BATCH * sizes[k][0];
        float *noise = malloc((size_t)n * sizeof *noise);
        for (int64_t i = 0; i < n; i++) noise[i] = (float)(lam_rng_below(&b.rng, 9) / 2) - 1.0f;
        for (int64_t i = 0; i < n; i += 5) noise[i] = noise[i] == 0.0f ? -0.0f : noise[i];
        give(&b, 0, noise, (size_t)n * sizeof *noise);
        run(&b);
        same_bits(&b);
        free(noise);
        close_bench(&b);
    }
}

/* ---- channels ---- */

typedef struct channels_case {
    int64_t channels, count, per_channel;
    double mask_ratio, present;
} channels_case;

static void build_channels(side *s, const void *how) {
    const channels_case *c = how;
    lam_graph *g = s->graph;
    lam_tensor *step = input(s, LAM_I64, 1, (int64_t[]){1}),
               *has = input(s, LAM_F32, 2, (int64_t[]){BATCH, c->channels}),
               *noise = input(s, LAM_F32, 2, (int64_t[]){BATCH, c->count * c->per_channel}),
               *ids = lam_draw_channels(g, step, c->channels, c->count, 77),
               *seen = lam_select_channels(g, has, ids), *out[3];
    lam_channel_mask_plan(g, noise, seen, c->mask_ratio, &out[0], &out[1], &out[2]);
    output(s, ids);
    output(s, seen);
    for (int k = 0; k < 3; k++) output(s, out[k]);
    output(s, lam_channel_keys(g, seen, out[0], c->per_channel, true));
    output(s, lam_channel_keys(g, seen, NULL, c->per_channel, false));
}

static void channels(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const channels_case cases[] = {{1, 1, 4, 0.5, 0.5},
                                          {6, 6, 16, 0.75, 0.7},
                                          {70, 9, 25, 0.6, 0.5},
                                          {300, 130, 20, 0.9, 0.8},
                                          {5, 3, 7, 0.1, 0}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        bench b = open_bench("channels", build_channels, &cases[k], NULL, false);
        for (int64_t step = 0; step < 10; step++) {
            give_number(&b, 0, step);
            give_bits(&b, 1, cases[k].present);
            give_floats(&b, 2, 0, 1);
            run(&b);
            same_bits(&b);
        }
        close_bench(&b);
    }
}

/* ---- depth ---- */

typedef struct depth_case {
    int64_t batch, width, branch;
    double rate;
} depth_case;

static void build_depth(side *s, const void *how) {
    const depth_case *c = how;
    lam_tensor *step = input(s, LAM_I64, 1, (int64_t[]){1}),
               *ids = input(s, LAM_I64, 1, (int64_t[]){c->batch}),
               *scale = input(s, LAM_F32, 1, (int64_t[]){1}),
               *x = input(s, LAM_F32, 2, (int64_t[]){c->batch, c->width});
    lam_depth depth = lam_depth_plan(s->graph, step, ids, scale, c->branch, c->rate, 5);
    output(s, depth.place);
    output(s, depth.count);
    output(s, depth.scale);
    s->in[s->ins] = lam_keep(s->graph, lam_depth_gather(s->graph, x, depth), "gathered"); /* compared apart */
}

static void depth(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const depth_case cases[] = {
        {1, 1, 0, 0.5}, {7, 20, 1, 0.3}, {257, 3, 6, 0.1}, {600, 4, 3, 0.9}, {3, 9001, 2, 0.4}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        bench b = open_bench("depth", build_depth, &cases[k], NULL, false);
        for (int64_t step = 0; step < 5; step++) {
            float scale = step == 4 ? 0 : step == 3 ? 0.37f : 1;
            give_number(&b, 0, step);
            give_ids(&b, 1);
            give(&b, 2, &scale, sizeof scale);
            give_floats(&b, 3, 1, 1);
            run(&b);
            same_bits(&b);
            int64_t kept = *(const int64_t *)lam_tensor_data(b.side[0].out[1]) * cases[k].width,
                    all = cases[k].batch * cases[k].width;
            const float *want = lam_tensor_data(b.side[0].in[4]), *is = lam_tensor_data(b.side[1].in[4]);
            assert_memory_equal(want, is, (size_t)kept * sizeof *want);
            for (int64_t i = kept; i < all; i++) assert_true(is[i] == 0.0f); /* rows that nobody keeps */
        }
        close_bench(&b);
    }
}

/* ---- patches ---- */

typedef struct patches_case {
    lam_dtype type;
    int64_t channels, size, patch;
    int transform;
    bool by_crop, by_channel, only, ids;
} patches_case;

static void build_patches(side *s, const void *how) {
    const patches_case *c = how;
    lam_tensor *x = input(s, c->type, 4, (int64_t[]){BATCH, c->channels, c->size, c->size});
    lam_standardise st = {.patch_size = c->patch,
                          .by_channel = c->by_channel,
                          .transform = c->transform,
                          .by_crop = c->by_crop};
    st.scale = input(s, LAM_F32, 1, (int64_t[]){c->channels});
    st.present = input(s, LAM_F32, 2, (int64_t[]){BATCH, c->channels});
    st.mean = input(s, LAM_F32, 2, (int64_t[]){BATCH, c->channels});
    st.rstd = input(s, LAM_F32, 2, (int64_t[]){BATCH, c->channels});
    lam_tensor *only = input(s, LAM_I64, 1, (int64_t[]){1}),
               *ids = input(s, LAM_I32, 1, (int64_t[]){(c->channels + 1) / 2});
    if (c->only) st.only_channel = only;
    if (c->ids) st.channel_ids = ids;
    output(s, lam_patches(s->graph, x, &st));
}

static void give_pixels(bench *b, lam_dtype type) {
    int64_t n = lam_tensor_count(b->side[0].in[0]);
    if (type == LAM_F32) {
        give_floats(b, 0, -1, 3);
        return;
    }
    uint16_t *pixels = malloc((size_t)n * sizeof *pixels);
    for (int64_t i = 0; i < n; i++) {
        uint32_t value = lam_rng_below(&b->rng, type == LAM_U8 ? 256 : 65536);
        if (type == LAM_U8)
            ((uint8_t *)pixels)[i] = (uint8_t)value;
        else
            pixels[i] = (uint16_t)value;
    }
    give(b, 0, pixels, (size_t)n * (type == LAM_U8 ? 1 : 2));
    free(pixels);
}

static void patches(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const patches_case cases[] = {{LAM_U8, 1, 4, 2, 0, true, false, false, false},
                                         {LAM_U16, 6, 32, 8, 0, true, false, false, false},
                                         {LAM_U16, 6, 32, 8, 0, false, false, true, false},
                                         {LAM_U8, 3, 45, 15, 1, true, false, true, false},
                                         {LAM_U16, 5, 21, 7, 2, true, true, false, true},
                                         {LAM_U16, 5, 48, 16, 2, false, true, true, true},
                                         {LAM_F32, 5, 48, 16, 0, false, true, false, false},
                                         {LAM_F32, 3, 9, 3, 0, false, false, false, false},
                                         {LAM_U8, 7, 10, 1, 0, true, true, false, false},
                                         {LAM_U8, 150, 32, 16, 0, true, false, false, false},
                                         {LAM_U16, 150, 80, 16, 0, false, false, false, false},
                                         {LAM_U16, 1, 256, 16, 0, true, false, false, false},
                                         /* Rows of a tile that are just too wide; rows of one patch that are. */
                                         {LAM_U16, 57, 28, 14, 0, true, false, false, false},
                                         {LAM_U8, 410, 16, 16, 1, true, false, false, false},
                                         {LAM_U16, 700, 16, 8, 0, false, false, false, true},
                                         {LAM_F32, 600, 8, 8, 0, false, false, false, false}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const patches_case *c = &cases[k];
        bench b = open_bench("patches", build_patches, c, NULL, false);
        for (int64_t only = -1; only < (c->only ? 2 : 0); only++) {
            give_pixels(&b, c->type);
            give_floats(&b, 1, 1.0f / (c->type == LAM_U8 ? 255.0f : 65535.0f), 0);
            give_bits(&b, 2, 0.8);
            give_floats(&b, 3, 0, 1);
            give_floats(&b, 4, 0.5f, 5);
            give_number(&b, 5, only);
            int32_t ids[350];
            for (int32_t i = 0; i < 350; i++) ids[i] = (int32_t)c->channels - 1 - 2 * i;
            give(&b, 6, ids, (size_t)((c->channels + 1) / 2) * sizeof *ids);
            run(&b);
            /* Of a crop: a mean may round to the neighbouring float. */
            close_values(&b, c->transform == 2 ? 1e-5 : c->by_crop ? 2e-6 : 1e-6);
        }
        close_bench(&b);
    }
}

/* ---- losses ---- */

typedef struct loss_case {
    int64_t shape[3];
    bool bf16, norm_pix, squared;
    lam_fourier_form form; /* NONE: the masked loss */
    int64_t patch_size, channels;
} loss_case;

static void build_loss(side *s, const void *how) {
    const loss_case *c = how;
    lam_graph *g = s->graph;
    lam_tensor *x = cast(g, lam_parameter(g, "prediction")), *target = input(s, LAM_F32, 3, c->shape),
               *mask = input(s, LAM_F32, 2, c->shape), *weight = input(s, LAM_F32, 1, c->shape), *sample;
    lam_fourier fourier = {c->form, c->squared, c->norm_pix, c->patch_size, c->channels};
    lam_tensor *loss = c->form ? lam_fourier_loss(g, x, target, mask, weight, &fourier, &sample)
                               : lam_masked_loss(g, x, target, mask, weight, c->norm_pix, &sample);
    output(s, loss);
    output(s, sample);
    ok(lam_graph_differentiate(g, loss));
}

static void one_loss(const loss_case *c) {
    bench b = open_bench("loss", build_loss, c, c->shape, c->bf16);
    int64_t sample = c->shape[1] * c->shape[2], n = c->shape[0] * sample;
    float *mask = malloc((size_t)(c->shape[0] * c->shape[1]) * sizeof *mask),
          *weight = malloc((size_t)c->shape[0] * sizeof *weight);
    give_floats(&b, 0, -1, 3);
    for (int64_t i = 0; i < c->shape[0] * c->shape[1]; i++)
        mask[i] = lam_rng_uniform(&b.rng) < 0.75 ? 1.0f : 0.0f;
    if (!c->form) /* nothing is masked in the first sample */
        for (int64_t i = 0; i < c->shape[1]; i++) mask[i] = 0;
    for (int64_t i = 0; i < c->shape[0]; i++) weight[i] = i % 3 == 2 ? 0.0f : 0.5f + 0.1f * (float)i;
    give(&b, 1, mask, (size_t)(c->shape[0] * c->shape[1]) * sizeof *mask);
    give(&b, 2, weight, (size_t)c->shape[0] * sizeof *weight);
    for (int64_t i = 0; i < n; i++) {
        /* A sample that does not count may be anything. */
        float value = i / sample % 3 == 2 && i % 7 == 0 ? NAN : 2 * uniform(&b) - 0.5f;
        for (int k = 0; k < 2; k++) b.side[k].parameters->weights[i] = value;
    }
    run(&b);
    for (int k = 0; k < 2; k++) {
        lam_parameters_zero_gradients(b.side[k].parameters);
        ok(lam_graph_backward(b.side[k].graph));
    }
    close_values(&b, 1e-6);
    for (int64_t i = 0; i < n; i++) assert_true(isfinite(b.side[0].parameters->gradients[i]));
    compare("gradient", b.side[0].parameters->gradients, b.side[1].parameters->gradients, n,
            c->bf16   ? 1.0 / 128
            : c->form ? 1e-4
                      : 1e-5);
    free(mask);
    free(weight);
    close_bench(&b);
}

static void losses(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const loss_case cases[] = {{.shape = {2, 1, 4}},
                                      {.shape = {5, 49, 75}, .norm_pix = true},
                                      {.shape = {4, 65, 96}},
                                      {.shape = {3, 300, 768}, .norm_pix = true},
                                      {.shape = {3, 17, 33}, .bf16 = true, .norm_pix = true},
                                      {.shape = {3, 10, 256}, .bf16 = true}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) one_loss(&cases[k]);
}

static void fourier_losses(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const loss_case cases[] = {
        {.shape = {4, 16, 32}, .form = LAM_FOURIER_IMAGE, .patch_size = 4, .channels = 2},
        {.shape = {4, 75, 9},
         .form = LAM_FOURIER_IMAGE,
         .patch_size = 3,
         .channels = 3,
         .norm_pix = true,
         .squared = true},
        {.shape = {4, 27, 16}, .form = LAM_FOURIER_PATCH, .patch_size = 4, .channels = 3, .norm_pix = true},
        {.shape = {4, 9, 50},
         .form = LAM_FOURIER_PATCH,
         .patch_size = 5,
         .channels = 2,
         .bf16 = true,
         .squared = true},
        {.shape = {4, 9, 18}, .form = LAM_FOURIER_RECURSION, .patch_size = 3, .channels = 2, .squared = true},
        {.shape = {4, 49, 16},
         .form = LAM_FOURIER_RECURSION,
         .patch_size = 4,
         .channels = 1,
         .squared = true},
        {.shape = {3, 16, 256},
         .form = LAM_FOURIER_IMAGE,
         .patch_size = 16,
         .channels = 1,
         .bf16 = true,
         .squared = true}};
    void (*set_pass)(int64_t) =
        (void (*)(int64_t))lam_backend_function(test_backend(), "lam_cuda_set_fourier_pass");
    assert_non_null(set_pass);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        one_loss(&cases[k]);
        const int64_t *shape = cases[k].shape;
        set_pass(shape[1] * shape[2] * 40); /* three samples a pass, then the last */
        one_loss(&cases[k]);
        set_pass(1); /* one */
        one_loss(&cases[k]);
        set_pass((int64_t)64 << 20);
    }
}

static void build_mix(side *s, const void *how) {
    (void)how;
    lam_tensor *x = lam_parameter(s->graph, "prediction"), *y = input(s, LAM_F32, 3, (int64_t[]){1, 1, 1});
    lam_tensor *loss = lam_mix(s->graph, lam_mix(s->graph, x, 0.3, y, 0.7), 1.5, x, -0.25);
    output(s, loss);
    ok(lam_graph_differentiate(s->graph, loss));
}

static void mixes(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    bench b = open_bench("mix", build_mix, NULL, (int64_t[]){1, 1, 1}, false);
    give_floats(&b, 0, 2, 1);
    for (int k = 0; k < 2; k++) b.side[k].parameters->weights[0] = 1.25f;
    run(&b);
    for (int k = 0; k < 2; k++) {
        lam_parameters_zero_gradients(b.side[k].parameters);
        ok(lam_graph_backward(b.side[k].graph));
    }
    close_values(&b, 1e-6);
    compare("gradient", b.side[0].parameters->gradients, b.side[1].parameters->gradients, 1, 1e-6);
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(masks),          cmocka_unit_test(ties),
                                       cmocka_unit_test(channels),       cmocka_unit_test(depth),
                                       cmocka_unit_test(patches),        cmocka_unit_test(losses),
                                       cmocka_unit_test(fourier_losses), cmocka_unit_test(mixes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
