/* Blocks that skip the samples which drop a branch, against blocks that compute everything; a network of them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "model/nets/mae.h"
#include "model/ops.h"
#include "tests/unit/device.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* ---- blocks that skip against blocks that compute everything ---- */

enum { CROPS = 6, TOKENS = 9, WIDTH = 24, HIDDEN = 40, BRANCHES = 4 };

typedef struct stack {
    lam_parameters *p;
    lam_graph *g;
    lam_tensor *step, *ids, *drop_scale, *target, *result;
    lam_depth depth[BRANCHES];
} stack;

static lam_tensor *named(lam_graph *g, int block, const char *name) {
    char full[32];
    snprintf(full, sizeof full, "%d.%s", block, name);
    return lam_parameter(g, full);
}

static void add_named(lam_parameters *p, int block, const char *name, int64_t out, int64_t in) {
    char full[32];
    snprintf(full, sizeof full, "%d.%s", block, name);
    ok(lam_parameters_add(p, full, in ? 2 : 1, (int64_t[]){out, in}, LAM_INIT_NORMAL, in ? 0.3 : 0.5, true));
}

static void add_parameters(lam_parameters *p, int64_t crops) {
    static const char *const vectors[] = {"w1", "b1", "w2", "b2", "bo", "bq", "bk", "bv", "b4"};
    static const char *const squares[] = {"wq", "wk", "wv", "wo"};
    ok(lam_parameters_add(p, "x", 3, (int64_t[]){crops, TOKENS, WIDTH}, LAM_INIT_NORMAL, 1, true));
    for (int block = 0; block <= BRANCHES / 2; block++) {
        for (int k = 0; k < 9; k++) add_named(p, block, vectors[k], WIDTH, 0);
        for (int k = 0; k < 4; k++) add_named(p, block, squares[k], WIDTH, WIDTH);
        add_named(p, block, "w3", HIDDEN, WIDTH);
        add_named(p, block, "b3", HIDDEN, 0);
        add_named(p, block, "w4", WIDTH, HIDDEN);
    }
    ok(lam_parameters_layout(p, 3));
}

/* Branch k of two blocks of attention and MLP. */
static lam_tensor *branch(lam_graph *g, int k, lam_tensor *h) {
    int block = k / 2;
    if (k % 2) {
        h = lam_linear_gelu(g, h, named(g, block, "w3"), named(g, block, "b3"));
        return lam_linear(g, h, named(g, block, "w4"), named(g, block, "b4"));
    }
    h = lam_linear_qkv(g, h, named(g, block, "wq"), named(g, block, "bq"), named(g, block, "wk"),
                       named(g, block, "bk"), named(g, block, "wv"), named(g, block, "bv"));
    return lam_linear(g, lam_attention(g, h, 2, NULL), named(g, block, "wo"), named(g, block, "bo"));
}

/* rate 0: nothing is dropped, and no operation of stochastic depth is used. */
static stack make_stack(int64_t crops, double rate, lam_recompute recompute) {
    stack s = {0};
    ok(lam_parameters_create(&s.p));
    add_parameters(s.p, crops);
    ok(lam_graph_create(&s.g, s.p, test_backend()));
    lam_graph *g = s.g;
    s.step = lam_input(g, "step", LAM_I64, 1, (int64_t[]){1});
    s.ids = lam_input(g, "ids", LAM_I64, 1, &crops);
    s.drop_scale = lam_input(g, "drop_scale", LAM_F32, 1, (int64_t[]){1});
    lam_tensor *x = lam_parameter(g, "x"), *r = x, *sample_loss; /* x + x opens the stream */
    lam_depth of_r = {0};
    lam_graph_set_recompute(g, recompute);
    for (int k = 0; k <= BRANCHES; k++) { /* the last one: the norm that ends the stack */
        lam_tensor *w = named(g, k / 2, k % 2 ? "w2" : "w1"), *b = named(g, k / 2, k % 2 ? "b2" : "b1");
        lam_depth next = {0};
        if (k < BRANCHES && k % 2 == 0) lam_graph_block_begin(g);
        if (k < BRANCHES && rate > 0) {
            next = s.depth[k] = lam_depth_plan(g, s.step, s.ids, s.drop_scale, k, rate, 8);
            lam_keep(g, next.place, "place");
            lam_keep(g, next.scale, "scale");
        }
        lam_tensor *h;
        if (rate > 0)
            h = lam_depth_layernorm(g, x, r, of_r, next, w, b, 1e-6, &x);
        else
            h = lam_layernorm(g, x = lam_add(g, x, r), w, b, 1e-6);
        of_r = next;
        r = k < BRANCHES ? branch(g, k, h) : h;
        if (k % 2) lam_graph_block_end(g);
    }
    s.result = lam_keep(g, r, "result");
    s.target = lam_input(g, "target", LAM_F32, 3, (int64_t[]){crops, TOKENS, WIDTH});
    lam_tensor *mask = lam_input(g, "mask", LAM_F32, 2, (int64_t[]){crops, TOKENS}),
               *weight = lam_input(g, "weight", LAM_F32, 1, &crops);
    ok(lam_graph_differentiate(g, lam_masked_loss(g, s.result, s.target, mask, weight, false, &sample_loss)));
    ok(lam_graph_plan(g));
    for (int64_t i = 0; i < crops * TOKENS; i++) ((float *)lam_tensor_data(mask))[i] = 1;
    for (int64_t i = 0; i < crops; i++) ((float *)lam_tensor_data(weight))[i] = 1.0f / CROPS;
    for (int64_t i = 0; i < crops; i++) ((int64_t *)lam_tensor_data(s.ids))[i] = 31 * i;
    for (int64_t i = 0; i < crops * TOKENS * WIDTH; i++)
        ((float *)lam_tensor_data(s.target))[i] = (float)sin(0.7 * (double)i);
    *(float *)lam_tensor_data(s.drop_scale) = 1;
    return s;
}

static void free_stack(stack *s) {
    lam_graph_free(s->g);
    lam_parameters_free(s->p);
}

static void run_stack(stack *s) {
    lam_parameters_zero_gradients(s->p);
    ok(lam_graph_forward(s->g));
    ok(lam_graph_backward(s->g));
}

static double difference(const float *a, const double *b, int64_t count) {
    double off = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(off / (norm + 1e-12));
}

/* What branch k of the sample is multiplied by: 0 where it is dropped. */
static float factor(const stack *s, int k, int sample) {
    return ((const int32_t *)lam_tensor_data(s->depth[k].place))[sample] < 0
               ? 0.0f
               : *(const float *)lam_tensor_data(s->depth[k].scale);
}

/* That factor of a parameter: the last linear map of the branch carries it, any other parameter has 1. */
static float factor_of(const stack *s, const char *name, int sample) {
    int block = name[0] - '0';
    if (block >= BRANCHES / 2) return 1;
    if (!strcmp(name + 1, ".wo") || !strcmp(name + 1, ".bo")) return factor(s, 2 * block, sample);
    if (!strcmp(name + 1, ".w4") || !strcmp(name + 1, ".b4")) return factor(s, 2 * block + 1, sample);
    return 1;
}

/* Everything computed for one sample, its branches multiplied by their factors; adds to the gradients. */
static void run_dense(stack *one, const stack *all, int sample, double *result, double *gradients) {
    const lam_parameter_entry *x = lam_parameters_find(all->p, "x");
    enum { CROP = TOKENS * WIDTH };
    for (int64_t i = 0; i < one->p->entries; i++) {
        const lam_parameter_entry *e = &one->p->entry[i];
        int64_t from = strcmp(e->name, "x") ? e->offset : x->offset + sample * CROP;
        float f = factor_of(all, e->name, sample);
        for (int64_t k = 0; k < e->count; k++) one->p->weights[e->offset + k] = f * all->p->weights[from + k];
    }
    memcpy(lam_tensor_data(one->target), (const float *)lam_tensor_data(all->target) + sample * CROP,
           CROP * sizeof(float));
    run_stack(one);
    for (int64_t i = 0; i < one->p->entries; i++) {
        const lam_parameter_entry *e = &one->p->entry[i];
        int64_t to = strcmp(e->name, "x") ? e->offset : x->offset + sample * CROP;
        float f = factor_of(all, e->name, sample);
        for (int64_t k = 0; k < e->count; k++)
            gradients[to + k] += (double)(f * one->p->gradients[e->offset + k]);
    }
    for (int64_t i = 0; i < CROP; i++)
        result[sample * CROP + i] = (double)((float *)lam_tensor_data(one->result))[i];
}

static void skipping_is_dropping(void **state) {
    (void)state;
    enum { COUNT = CROPS * TOKENS * WIDTH };
    bool none = false, all = false;
    stack one = make_stack(1, 0, LAM_RECOMPUTE_NONE);
    for (int rate = 5; rate < 9; rate += 3) {
        setenv("LAMELLA_POISON", "1", 1);
        stack skipping = make_stack(CROPS, 0.1 * rate, LAM_RECOMPUTE_NONE);
        unsetenv("LAMELLA_POISON");
        double *result = calloc(COUNT, sizeof *result),
               *gradients = calloc((size_t)skipping.p->trainable, sizeof *gradients);
        for (int t = 0; t < 12; t++) {
            *(int64_t *)lam_tensor_data(skipping.step) = t;
            run_stack(&skipping);
            for (int64_t i = 0; i < skipping.p->trainable; i++) gradients[i] = 0;
            for (int i = 0; i < CROPS; i++) run_dense(&one, &skipping, i, result, gradients);
            double off = difference(lam_tensor_data(skipping.result), result, COUNT);
            if (!(off < 1e-6)) fail_msg("rate 0.%d, step %d: result is off by %g", rate, t, off);
            off = difference(skipping.p->gradients, gradients, skipping.p->trainable);
            if (!(off < 2e-6)) fail_msg("rate 0.%d, step %d: gradients are off by %g", rate, t, off);
            for (int k = 0; k < BRANCHES; k++) {
                int kept = 0;
                for (int i = 0; i < CROPS; i++) kept += factor(&skipping, k, i) > 0;
                none |= kept == 0;
                all |= kept == CROPS;
            }
        }
        free(result);
        free(gradients);
        free_stack(&skipping);
    }
    free_stack(&one);
    assert_true(none && all); /* both ends were met */
}

/* What is recomputed has the same rows and bits, in less memory, at any counts. */
static void recomputed(void **state) {
    (void)state;
    static const lam_recompute ways[] = {LAM_RECOMPUTE_NORM_GELU, LAM_RECOMPUTE_BLOCK};
    stack kept = make_stack(CROPS, 0.5, LAM_RECOMPUTE_NONE);
    for (int i = 0; i < 2; i++) {
        setenv("LAMELLA_POISON", "1", 1);
        stack again = make_stack(CROPS, 0.5, ways[i]);
        unsetenv("LAMELLA_POISON");
        for (int t = 0; t < 6; t++) {
            *(int64_t *)lam_tensor_data(kept.step) = *(int64_t *)lam_tensor_data(again.step) = t;
            run_stack(&kept);
            run_stack(&again);
            assert_memory_equal(kept.p->gradients, again.p->gradients,
                                (size_t)kept.p->trainable * sizeof(float));
        }
        lam_memory_report a, b;
        lam_graph_memory(kept.g, &a);
        lam_graph_memory(again.g, &b);
        assert_true(b.total < a.total);
        free_stack(&again);
    }
    free_stack(&kept);
}

/* ---- a network ---- */

typedef struct net {
    lam_parameters *p;
    lam_graph *g;
    lam_mae_io io;
    int64_t batch;
} net;

static lam_mae_config network(double drop_path) {
    return (lam_mae_config){.image_size = 16,
                            .patch_size = 4,
                            .in_channels = 2,
                            .embed_dim = 20,
                            .depth = 4,
                            .num_heads = 2,
                            .decoder_embed_dim = 12,
                            .decoder_depth = 1,
                            .decoder_num_heads = 3,
                            .mask_ratio = 0.6,
                            .drop_path = drop_path,
                            .pixel_type = LAM_F32,
                            .seed = 2};
}

static net make_net(double drop_path, int64_t batch, lam_dtype activation) {
    net n = {.batch = batch};
    lam_mae_config config = network(drop_path);
    ok(lam_parameters_create(&n.p));
    ok(lam_mae_parameters(n.p, &config));
    ok(lam_parameters_layout(n.p, 8));
    lam_mae_fill_positions(n.p, &config);
    ok(lam_graph_create(&n.g, n.p, test_backend()));
    lam_graph_set_activation(n.g, activation);
    ok(lam_mae_build(n.g, &config, batch, &n.io));
    ok(lam_graph_differentiate(n.g, n.io.loss));
    ok(lam_graph_plan(n.g));
    for (int64_t i = 0; i < batch; i++)
        ((float *)lam_tensor_data(n.io.sample_weight))[i] = 1.0f / (float)batch;
    return n;
}

static void free_net(net *n) {
    lam_graph_free(n->g);
    lam_parameters_free(n->p);
}

/* Pixels are a function of the sample. */
static void forward_net(net *n, int64_t step, int64_t first_id, float drop_scale) {
    int64_t pixels = lam_tensor_count(n->io.input.pixels) / n->batch;
    for (int64_t b = 0; b < n->batch; b++) {
        ((int64_t *)lam_tensor_data(n->io.sample_ids))[b] = first_id + b;
        for (int64_t i = 0; i < pixels; i++)
            ((float *)lam_tensor_data(n->io.input.pixels))[b * pixels + i] =
                (float)sin(0.77 * (double)((first_id + b) * pixels + i));
    }
    *(int64_t *)lam_tensor_data(n->io.step) = step;
    if (n->io.drop_scale) *(float *)lam_tensor_data(n->io.drop_scale) = drop_scale;
    lam_parameters_zero_gradients(n->p);
    ok(lam_graph_forward(n->g));
}

static void run_net(net *n, int64_t step, int64_t first_id, float drop_scale) {
    forward_net(n, step, first_id, drop_scale);
    ok(lam_graph_backward(n->g));
}

/* Where nothing can drop, the stream is added by the product that ends a branch, else with the next norm: sums run in another
 * order. */
static double apart(const float *a, const float *b, int64_t count) {
    double *other = calloc((size_t)count, sizeof *other);
    for (int64_t i = 0; i < count; i++) other[i] = b[i];
    double off = difference(a, other, count);
    free(other);
    return off;
}

static void nothing_dropped_where_told(void **state) {
    (void)state;
    net plain = make_net(0, 3, LAM_F32), dropping = make_net(0.6, 3, LAM_F32);
    assert_null(plain.io.drop_scale);
    forward_net(&plain, 1, 0, 1);
    forward_net(&dropping, 1, 0, 0);
    assert_true(apart(lam_tensor_data(plain.io.logits), lam_tensor_data(dropping.io.logits),
                      lam_tensor_count(dropping.io.logits)) < 1e-6);
    ok(lam_graph_backward(plain.g));
    ok(lam_graph_backward(dropping.g));
    assert_true(apart(plain.p->gradients, dropping.p->gradients, dropping.p->trainable) < 1e-6);
    run_net(&dropping, 1, 0, 1);
    assert_true(apart(plain.p->gradients, dropping.p->gradients, dropping.p->trainable) > 1e-2);
    free_net(&plain);
    free_net(&dropping);
}

/* The loss of a sample is the same in any batch, to rounding of the products. */
static void batches_do_not_matter(void **state) {
    (void)state;
    net whole = make_net(0.8, 4, LAM_F32), half = make_net(0.8, 2, LAM_F32);
    for (int64_t step = 0; step < 5; step++) {
        run_net(&whole, step, 10, 1);
        for (int rank = 0; rank < 2; rank++) {
            run_net(&half, step, 10 + 2 * rank, 1);
            for (int i = 0; i < 2; i++) {
                double a = (double)((float *)lam_tensor_data(whole.io.sample_loss))[2 * rank + i],
                       b = (double)((float *)lam_tensor_data(half.io.sample_loss))[i];
                assert_true(fabs(a - b) < 1e-5 * b);
            }
        }
    }
    free_net(&whole);
    free_net(&half);
}

static void check_unwritten(lam_dtype activation) {
    net clean = make_net(0.9, 3, activation);
    setenv("LAMELLA_POISON", "1", 1);
    net dirty = make_net(0.9, 3, activation);
    unsetenv("LAMELLA_POISON");
    for (int64_t step = 0; step < 10; step++) {
        forward_net(&clean, step, 0, 1);
        forward_net(&dirty, step, 0, 1);
        assert_true(isfinite(*(float *)lam_tensor_data(clean.io.loss)));
        assert_memory_equal(lam_tensor_data(clean.io.logits), lam_tensor_data(dirty.io.logits),
                            (size_t)lam_tensor_count(clean.io.logits) * (activation == LAM_F32 ? 4 : 2));
        ok(lam_graph_backward(clean.g));
        ok(lam_graph_backward(dirty.g));
        assert_memory_equal(clean.p->gradients, dirty.p->gradients,
                            (size_t)clean.p->trainable * sizeof(float));
    }
    free_net(&clean);
    free_net(&dirty);
}

static void nothing_unwritten_is_read(void **state) {
    (void)state;
    check_unwritten(LAM_F32);
    check_unwritten(LAM_BF16);
}

/* bfloat16 drops the same branches, and differs by its rounding. */
static void check_bf16(const char *isa) {
    net f32 = make_net(0.6, 4, LAM_F32), bf16 = make_net(0.6, 4, LAM_BF16);
    double *expected = malloc((size_t)f32.p->trainable * sizeof *expected);
    for (int64_t step = 0; step < 5; step++) {
        run_net(&f32, step, 0, 1);
        run_net(&bf16, step, 0, 1);
        for (int64_t i = 0; i < f32.p->trainable; i++) expected[i] = (double)f32.p->gradients[i];
        double off = difference(bf16.p->gradients, expected, f32.p->trainable),
               loss = (double)*(float *)lam_tensor_data(f32.io.loss);
        if (!(off < 0.02)) fail_msg("%s, step %d: gradients are off by %g", isa, (int)step, off);
        assert_true(fabs((double)*(float *)lam_tensor_data(bf16.io.loss) - loss) < 2e-3 * loss);
    }
    free(expected);
    free_net(&f32);
    free_net(&bf16);
}

static void the_same_in_bf16(void **state) {
    (void)state;
    static const char *const names[] = {"avx512", "avx2", "baseline"};
    for (int i = 0; i < 3; i++) {
        setenv("LAMELLA_ISA", names[i], 1);
        if (lam_isa_select() == LAM_OK) check_bf16(names[i]);
    }
    unsetenv("LAMELLA_ISA");
    ok(lam_isa_select());
}

/* What is not computed is not counted, and the expected share is that of many steps. */
static void work_falls(void **state) {
    (void)state;
    if (on_cuda()) skip(); /* it falls in recordings, where nothing is counted: tests/train/cuda.sh */
    enum { BATCH = 16, RUNS = 100 };
    lam_mae_config config = network(0.6), plain = network(0), shallow = network(0.6);
    plain.predict_visible = shallow.predict_visible = true;
    assert_true(lam_mae_kept_share(&plain, 1) == 1);
    shallow.depth = 1;
    assert_true(lam_mae_kept_share(&shallow, 1) == 1); /* the first block drops nothing */
    net n = make_net(0.6, BATCH, LAM_F32);
    lam_graph_profile(n.g, true);
    for (int64_t step = 0; step < RUNS; step++) run_net(&n, step, 0, 1);
    lam_op_time times[64];
    int64_t count = lam_graph_op_times(n.g, times, 64);
    double flops = 0, full = lam_mae_step_flops(&config) * BATCH * RUNS;
    for (int64_t i = 0; i < count; i++) flops += times[i].flops;
    /* 1600 draws of each branch: the share's deviation is below 0.003. */
    assert_true(fabs(flops / full - lam_mae_kept_share(&config, BATCH)) < 0.01);
    assert_true(lam_mae_kept_share(&config, BATCH) < 0.85);
    free_net(&n);
}

static void errors(void **state) {
    (void)state;
    lam_mae_config config = network(0.95);
    assert_int_equal(lam_mae_check(&config), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.drop_path"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(skipping_is_dropping),
        cmocka_unit_test(recomputed),
        cmocka_unit_test(nothing_dropped_where_told),
        cmocka_unit_test(batches_do_not_matter),
        cmocka_unit_test(nothing_unwritten_is_read),
        cmocka_unit_test(the_same_in_bf16),
        cmocka_unit_test(work_falls),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
