/* What the graph promises beside the operations: bounded rows, final gradients, poisoned memory, reports,
 * errors. */
#include <dirent.h>
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/gemm.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/graph.h"
#include "model/nets/mae.h"
#include "model/ops.h"
#include "model/optimizer.h"
#include "tests/unit/device.h"

enum { ROWS = 6, WIDTH = 9, HIDDEN = 13 };

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* ---- bounded rows: layernorm, linear, gelu, add over [ROWS, 1, WIDTH] ---- */

typedef struct small {
    lam_parameters *p;
    lam_graph *g;
    lam_tensor *x, *count, *y, *weight, *loss;
} small;

static small make_small(bool bounded) {
    small s = {0};
    ok(lam_parameters_create(&s.p));
    ok(lam_parameters_add(s.p, "norm.w", 1, (int64_t[]){WIDTH}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_add(s.p, "norm.b", 1, (int64_t[]){WIDTH}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_add(s.p, "fc1.w", 2, (int64_t[]){HIDDEN, WIDTH}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(s.p, "fc1.b", 1, (int64_t[]){HIDDEN}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_add(s.p, "fc2.w", 2, (int64_t[]){WIDTH, HIDDEN}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(s.p, "fc2.b", 1, (int64_t[]){WIDTH}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_layout(s.p, 4));
    ok(lam_graph_create(&s.g, s.p, test_backend()));
    s.x = lam_input(s.g, "x", LAM_F32, 3, (int64_t[]){ROWS, 1, WIDTH});
    s.count = lam_input(s.g, "count", LAM_I64, 1, (int64_t[]){1});
    if (bounded) lam_graph_bound_rows(s.g, s.x, s.count);
    lam_tensor *w = lam_parameter(s.g, "norm.w"), *b = lam_parameter(s.g, "norm.b"), *sum, *sample_loss;
    lam_tensor *h = lam_layernorm(s.g, s.x, w, b, 1e-6);
    h = lam_linear_gelu(s.g, h, lam_parameter(s.g, "fc1.w"), lam_parameter(s.g, "fc1.b"));
    sum = lam_linear_add(s.g, h, lam_parameter(s.g, "fc2.w"), lam_parameter(s.g, "fc2.b"), s.x);
    h = lam_layernorm(s.g, sum, w, b, 1e-6);
    s.y = lam_keep(s.g, lam_add(s.g, h, sum), "y");
    lam_tensor *target = lam_input(s.g, "target", LAM_F32, 3, (int64_t[]){ROWS, 1, WIDTH});
    lam_tensor *mask = lam_input(s.g, "mask", LAM_F32, 2, (int64_t[]){ROWS, 1});
    s.weight = lam_input(s.g, "weight", LAM_F32, 1, (int64_t[]){ROWS});
    s.loss = lam_masked_loss(s.g, s.y, target, mask, s.weight, false, &sample_loss);
    ok(lam_graph_differentiate(s.g, s.loss));
    ok(lam_graph_plan(s.g));
    for (int i = 0; i < ROWS * WIDTH; i++) {
        ((float *)lam_tensor_data(s.x))[i] = (float)sin(3.7 * i);
        ((float *)lam_tensor_data(target))[i] = (float)cos(1.3 * i);
    }
    for (int i = 0; i < ROWS; i++) ((float *)lam_tensor_data(mask))[i] = 1;
    return s;
}

static void drop_small(small *s) {
    lam_graph_free(s->g);
    lam_parameters_free(s->p);
}

static void run_small(small *s, int64_t rows) {
    *(int64_t *)lam_tensor_data(s->count) = rows;
    for (int64_t i = 0; i < ROWS; i++) ((float *)lam_tensor_data(s->weight))[i] = i < rows ? 0.5f : 0.0f;
    lam_parameters_zero_gradients(s->p);
    ok(lam_graph_forward(s->g));
    ok(lam_graph_backward(s->g));
}

static void bounded_rows(void **state) {
    (void)state;
    if (on_cuda()) skip(); /* rows beyond the count are computed there, and are zero: model_depth.c */
    setenv("LAMELLA_POISON", "1", 1);
    small all = make_small(false), some = make_small(true);
    unsetenv("LAMELLA_POISON");
    for (int64_t rows = 0; rows <= ROWS; rows++) {
        run_small(&all, rows);
        /* Rows beyond the count are never read: they may hold anything. */
        for (int64_t i = rows * WIDTH; i < ROWS * WIDTH; i++) ((float *)lam_tensor_data(some.x))[i] = NAN;
        run_small(&some, rows);
        const float *a = lam_tensor_data(all.y), *b = lam_tensor_data(some.y);
        for (int64_t i = 0; i < ROWS * WIDTH; i++)
            if (i < rows * WIDTH ? !(fabsf(a[i] - b[i]) <= 1e-5f) : !isnan(b[i]))
                fail_msg("%lld rows: element %lld", (long long)rows, (long long)i);
        for (int64_t i = 0; i < all.p->trainable; i++)
            if (!(fabsf(all.p->gradients[i] - some.p->gradients[i]) <= 2e-5f))
                fail_msg("%lld rows: gradient %lld", (long long)rows, (long long)i);
        for (int64_t i = 0; i < ROWS * WIDTH; i++)
            ((float *)lam_tensor_data(some.x))[i] = ((float *)lam_tensor_data(all.x))[i];
    }
    drop_small(&all);
    drop_small(&some);
}

/* ---- a small network ---- */

static const lam_mae_config config = {.image_size = 16,
                                      .patch_size = 4,
                                      .in_channels = 2,
                                      .embed_dim = 20,
                                      .depth = 3,
                                      .num_heads = 2,
                                      .decoder_embed_dim = 12,
                                      .decoder_depth = 2,
                                      .decoder_num_heads = 3,
                                      .mask_ratio = 0.6,
                                      .pixel_type = LAM_F32,
                                      .noise_input = true};

typedef struct net {
    lam_parameters *p;
    lam_graph *g;
    lam_mae_io io;
} net;

static net make_net_as(bool backward, lam_dtype activation, lam_recompute recompute) {
    net n = {0};
    ok(lam_parameters_create(&n.p));
    ok(lam_mae_parameters(n.p, &config));
    ok(lam_parameters_layout(n.p, 8));
    lam_mae_fill_positions(n.p, &config);
    ok(lam_graph_create(&n.g, n.p, test_backend()));
    lam_graph_set_activation(n.g, activation);
    lam_graph_set_recompute(n.g, recompute);
    ok(lam_mae_build(n.g, &config, 3, &n.io));
    if (backward) ok(lam_graph_differentiate(n.g, n.io.loss));
    ok(lam_graph_plan(n.g));
    for (int64_t i = 0; i < lam_tensor_count(n.io.input.pixels); i++)
        ((float *)lam_tensor_data(n.io.input.pixels))[i] = (float)sin(0.77 * (double)i);
    for (int64_t i = 0; i < lam_tensor_count(n.io.noise); i++)
        ((float *)lam_tensor_data(n.io.noise))[i] = (float)fabs(sin(5.3 * (double)i));
    for (int64_t i = 0; i < 3; i++) ((float *)lam_tensor_data(n.io.sample_weight))[i] = 1.0f / 3.0f;
    return n;
}

static net make_net(bool backward) { return make_net_as(backward, LAM_F32, LAM_RECOMPUTE_NONE); }

static void drop_net(net *n) {
    lam_graph_free(n->g);
    lam_parameters_free(n->p);
}

typedef struct seen {
    lam_parameters *p;
    float *copy;
    int64_t end, calls, bucket;
} seen;

static void on_final(void *context, int64_t begin, int64_t end) {
    seen *s = context;
    assert_int_equal(begin, s->end);
    assert_true(end > begin && end <= s->p->trainable);
    if (end < s->p->trainable) assert_true(end - begin >= s->bucket);
    ok(lam_parameters_pull_gradients(s->p));
    memcpy(s->copy + begin, s->p->gradients + begin, (size_t)(end - begin) * sizeof(float));
    s->end = end;
    s->calls++;
}

static void final_gradients(void **state) {
    (void)state;
    net n = make_net(true);
    ok(lam_graph_forward(n.g));
    static const int64_t buckets[] = {1, 1000, 1 << 30};
    for (int i = 0; i < 3; i++) {
        seen s = {.p = n.p, .bucket = buckets[i]};
        ok(lam_alloc_array((void **)&s.copy, n.p->trainable, sizeof(float)));
        lam_graph_set_gradient_hook(n.g, on_final, &s, buckets[i]);
        lam_parameters_zero_gradients(n.p);
        ok(lam_graph_forward(n.g));
        ok(lam_graph_backward(n.g));
        assert_int_equal(s.end, n.p->trainable);
        assert_true(i == 0 ? s.calls > 30 : i == 1 ? s.calls > 3 : s.calls == 1);
        /* What was handed over did not change afterwards. */
        assert_memory_equal(s.copy, n.p->gradients, (size_t)n.p->trainable * sizeof(float));
        lam_free(s.copy);
    }
    drop_net(&n);
}

/* Memory that is used before it is written would show: the plan shares one arena between tensors. */
static void poisoned_memory(void **state) {
    (void)state;
    net clean = make_net(true);
    setenv("LAMELLA_POISON", "1", 1);
    net dirty = make_net(true);
    unsetenv("LAMELLA_POISON");
    for (int step = 0; step < 2; step++) {
        ok(lam_graph_forward(clean.g));
        ok(lam_graph_forward(dirty.g));
        assert_memory_equal(lam_tensor_data(clean.io.logits), lam_tensor_data(dirty.io.logits),
                            (size_t)lam_tensor_count(clean.io.logits) * sizeof(float));
        ok(lam_graph_backward(clean.g));
        ok(lam_graph_backward(dirty.g));
        assert_memory_equal(clean.p->gradients, dirty.p->gradients,
                            (size_t)clean.p->trainable * sizeof(float));
    }
    drop_net(&clean);
    drop_net(&dirty);
}

static double norm_of_difference(const float *a, const float *b, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

/* The same bits; but where cuBLASLt has computed a GELU that our kernel computes again (`other_gelu`), gradients of the weights
 * that the GELU is multiplied by are close: within 2^-9 of their norm. */
static void check_gradients(const lam_parameters *kept, const lam_parameters *again, bool other_gelu) {
    for (int64_t e = 0; e < kept->entries; e++) {
        const lam_parameter_entry *entry = &kept->entry[e];
        if (entry->offset >= kept->trainable) continue;
        const float *a = kept->gradients + entry->offset, *b = again->gradients + entry->offset;
        bool of_gelu = strstr(entry->name, "output.dense.weight") && !strstr(entry->name, "attention");
        if (other_gelu && of_gelu) {
            double norm = sqrt(lam_sum_of_squares(a, 0, entry->count)),
                   off = norm_of_difference(a, b, entry->count);
            if (!(off <= 0x1p-9 * norm)) fail_msg("%s: off by %g of %g", entry->name, off, norm);
        } else if (memcmp(a, b, (size_t)entry->count * sizeof(float)) != 0) {
            fail_msg("%s: other bits, off by %g of %g", entry->name, norm_of_difference(a, b, entry->count),
                     sqrt(lam_sum_of_squares(a, 0, entry->count)));
        }
    }
}

/* What is recomputed has the same bits, in less memory; poison shows what would be read where the plan lets it die. */
static void recompute(void **state) {
    (void)state;
    static const lam_dtype types[] = {LAM_F32, LAM_BF16};
    for (int t = 0; t < 2; t++) {
        net plain = make_net_as(true, types[t], LAM_RECOMPUTE_NONE);
        size_t last = 0;
        for (int what = LAM_RECOMPUTE_NONE; what <= LAM_RECOMPUTE_BLOCK; what++) {
            setenv("LAMELLA_POISON", "1", 1);
            net again = make_net_as(true, types[t], (lam_recompute)what);
            unsetenv("LAMELLA_POISON");
            for (int step = 0; step < 2; step++) {
                lam_parameters_zero_gradients(plain.p);
                lam_parameters_zero_gradients(again.p);
                ok(lam_graph_forward(plain.g));
                ok(lam_graph_backward(plain.g));
                ok(lam_graph_forward(again.g));
                ok(lam_graph_backward(again.g));
                check_gradients(plain.p, again.p,
                                on_cuda() && !is_emulated(test_backend()) && types[t] == LAM_BF16 &&
                                    what == LAM_RECOMPUTE_NORM_GELU);
                assert_true(lam_sum_of_squares(plain.p->gradients, 0, plain.p->trainable) > 1e-6);
            }
            lam_memory_report report;
            lam_graph_memory(again.g, &report);
            if (what > 0 && report.total >= last)
                fail_msg("plan %d takes %zu bytes, the one before %zu", what, report.total, last);
            last = report.total;
            lam_graph *measured;
            lam_mae_io io;
            ok(lam_graph_create(&measured, again.p, test_backend()));
            lam_graph_set_activation(measured, types[t]);
            ok(lam_mae_build(measured, &config, 3, &io));
            ok(lam_graph_differentiate(measured, io.loss));
            for (int other = LAM_RECOMPUTE_BLOCK; other >= what; other--) {
                lam_memory_report expected;
                ok(lam_graph_measure(measured, (lam_recompute)other, &expected));
                if (other == what) assert_memory_equal(&expected, &report, sizeof report);
            }
            lam_graph_free(measured);
            drop_net(&again);
        }
        drop_net(&plain);
    }
}

/* Held weights are not prepared again; let go, they are. */
static void held_weights(void **state) {
    (void)state;
    net n = make_net_as(true, LAM_BF16, LAM_RECOMPUTE_NONE);
    ok(lam_graph_forward(n.g));
    float loss = *(float *)lam_tensor_data(n.io.loss);
    for (int64_t i = 0; i < n.p->trainable; i++) n.p->weights[i] *= 1.25f;
    lam_graph_hold_weights(n.g, true);
    ok(lam_graph_forward(n.g));
    float held = *(float *)lam_tensor_data(n.io.loss);
    lam_graph_hold_weights(n.g, false);
    ok(lam_graph_forward(n.g));
    float fresh = *(float *)lam_tensor_data(n.io.loss);
    net other = make_net_as(true, LAM_BF16, LAM_RECOMPUTE_NONE);
    for (int64_t i = 0; i < n.p->trainable; i++) other.p->weights[i] *= 1.25f;
    ok(lam_graph_forward(other.g));
    assert_true(fresh == *(float *)lam_tensor_data(other.io.loss));
    assert_true(held != fresh && fresh != loss);
    drop_net(&n);
    drop_net(&other);
}

static int threads_of_this_process(void) {
    DIR *folder = opendir("/proc/self/task");
    int count = 0;
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

/* After the first step nothing is allocated, by us or by the library, and no thread is started. */
static void nothing_new_in_a_step(void **state) {
    (void)state;
    if (on_cuda()) skip(); /* what a recording may not do, the device refuses */
    for (int what = 0; what < 2; what++) {
        net n = make_net_as(true, what ? LAM_BF16 : LAM_F32, LAM_RECOMPUTE_BLOCK);
        for (int step = 0; step < 3; step++) {
            size_t heap = mallinfo2().uordblks + mallinfo2().hblkhd;
            int threads = threads_of_this_process();
            if (step) lam_fault_arm(LAM_FAULT_ALLOC, 1);
            lam_parameters_zero_gradients(n.p);
            for (int micro_batch = 0; micro_batch < 2; micro_batch++) { /* one writes gradients, one adds */
                ok(lam_graph_forward(n.g));
                ok(lam_graph_backward(n.g));
            }
            lam_fault_arm(LAM_FAULT_ALLOC, 0);
            if (step == 0) continue;
            assert_int_equal(mallinfo2().uordblks + mallinfo2().hblkhd, heap);
            assert_int_equal(threads_of_this_process(), threads);
        }
        drop_net(&n);
    }
}

/* Two maps by the same weights pack them once. */
static void packed_once(void **state) {
    (void)state;
    if (on_cuda()) skip(); /* the forms of the CPU's products */
    lam_parameters *p;
    lam_graph *g;
    lam_memory_report report;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_add(p, "w", 2, (int64_t[]){16, 16}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_layout(p, 3));
    ok(lam_graph_create(&g, p, test_backend()));
    lam_tensor *x = lam_input(g, "x", LAM_F32, 2, (int64_t[]){1100, 16}),
               *y = lam_input(g, "y", LAM_F32, 2, (int64_t[]){1060, 16}), *w = lam_parameter(g, "w");
    lam_tensor *xw = lam_keep(g, lam_linear(g, x, w, NULL), "xw"),
               *yw = lam_keep(g, lam_linear(g, y, w, NULL), "yw");
    ok(lam_graph_plan(g));
    lam_graph_memory(g, &report);
    assert_true(report.packed > 0 && report.packed == lam_gemm_packed_bytes(LAM_GEMM_F32, 16, 16));
    for (int i = 0; i < 1060 * 16; i++)
        ((float *)lam_tensor_data(x))[i] = ((float *)lam_tensor_data(y))[i] = (float)(i % 7) - 3;
    for (int step = 0; step < 2; step++) {
        p->weights[5] += 1;
        ok(lam_graph_forward(g));
        const float *a = lam_tensor_data(xw), *b = lam_tensor_data(yw);
        for (int i = 0; i < 1060 * 16; i++) assert_true(fabsf(a[i] - b[i]) <= 1e-5f * (1 + fabsf(a[i])));
    }
    lam_graph_free(g);
    lam_parameters_free(p);
}

/* Rows of a parameter as two linears are the whole as one. */
static void parameter_rows(void **state) {
    (void)state;
    lam_parameters *p;
    lam_graph *g;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_add(p, "w", 2, (int64_t[]){5, 3}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(p, "b", 1, (int64_t[]){5}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_layout(p, 3));
    ok(lam_graph_create(&g, p, test_backend()));
    lam_tensor *x = lam_input(g, "x", LAM_F32, 3, (int64_t[]){1, 2, 3});
    lam_tensor *low = lam_linear(g, x, lam_parameter_rows(g, "w", 0, 2), lam_parameter_rows(g, "b", 0, 2)),
               *high = lam_linear(g, x, lam_parameter_rows(g, "w", 2, 3), lam_parameter_rows(g, "b", 2, 3)),
               *whole = lam_linear(g, x, lam_parameter(g, "w"), lam_parameter(g, "b"));
    lam_keep(g, low, "low");
    lam_keep(g, high, "high");
    lam_keep(g, whole, "whole");
    ok(lam_graph_plan(g));
    for (int i = 0; i < 6; i++) ((float *)lam_tensor_data(x))[i] = (float)(i * i) - 3;
    ok(lam_graph_forward(g));
    const float *a = lam_tensor_data(low), *b = lam_tensor_data(high), *c = lam_tensor_data(whole);
    for (int r = 0; r < 2; r++)
        for (int i = 0; i < 5; i++)
            assert_true(fabsf((i < 2 ? a[r * 2 + i] : b[r * 3 + i - 2]) - c[r * 5 + i]) < 1e-5f);
    lam_graph_free(g);
    ok(lam_graph_create(&g, p, test_backend()));
    lam_parameter_rows(g, "w", 3, 3);
    assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "rows 3 to 6"));
    lam_graph_free(g);
    lam_parameters_free(p);
}

/* The same results where nothing is kept for a backward pass, in less memory. */
static void forward_alone(void **state) {
    (void)state;
    net with = make_net(true), without = make_net(false);
    ok(lam_graph_forward(with.g));
    ok(lam_graph_forward(without.g));
    assert_memory_equal(lam_tensor_data(with.io.logits), lam_tensor_data(without.io.logits),
                        (size_t)lam_tensor_count(with.io.logits) * sizeof(float));
    lam_memory_report a, b;
    lam_graph_memory(with.g, &a);
    lam_graph_memory(without.g, &b);
    assert_true(b.total < a.total && b.gradients == 0 && b.activation_gradients == 0);
    assert_int_equal(a.weights, (size_t)with.p->count * sizeof(float));
    assert_int_equal(a.gradients, (size_t)with.p->trainable * sizeof(float));
    assert_true(a.total <
                a.activations + a.activation_gradients + a.workspace + a.inputs); /* memory is shared */
    assert_int_equal(lam_graph_backward(without.g), LAM_ERROR_INTERNAL);
    drop_net(&with);
    drop_net(&without);
}

static void times(void **state) {
    (void)state;
    net n = make_net(true);
    lam_op_time t[64];
    ok(lam_graph_forward(n.g));
    assert_int_equal(lam_graph_op_times(n.g, t, 64), 0);
    lam_graph_profile(n.g, true);
    ok(lam_graph_forward(n.g));
    ok(lam_graph_backward(n.g));
    int64_t count = lam_graph_op_times(n.g, t, 64);
    double flops = 0;
    bool attention = false;
    for (int64_t i = 0; i < count; i++) {
        assert_true(t[i].seconds >= 0 && t[i].calls > 0);
        flops += t[i].flops;
        attention |=
            !strcmp(t[i].op, "attention") && t[i].backward &&
            t[i].calls == config.depth + config.decoder_depth - 1; /* the last one is cross_attention */
    }
    assert_true(attention);
    /* Products of the nodes against the formula of the network, which counts 3 x forward as well. */
    double formula = 3 * lam_mae_step_flops(&config) * lam_mae_kept_share(&config, 3);
    assert_true(fabs(flops - formula) < 1e-9 * formula);
    drop_net(&n);
}

/* ---- graphs that share an arena ---- */

static void fill_io(const lam_mae_io *io) {
    for (int64_t i = 0; i < lam_tensor_count(io->input.pixels); i++)
        ((float *)lam_tensor_data(io->input.pixels))[i] = (float)sin(1.7 * (double)i);
    for (int64_t i = 0; i < lam_tensor_count(io->noise); i++)
        ((float *)lam_tensor_data(io->noise))[i] = (float)(i * 37 % 101) / 101.0f;
    for (int i = 0; i < 3; i++) ((float *)lam_tensor_data(io->sample_weight))[i] = 1.0f / 3;
}

/* Run in turn they give the bits of graphs with their own arenas; products are those of the formula with each. */
static void planned_together(void **state) {
    (void)state;
    enum { GRAPHS = 3 };
    static const double ratio[GRAPHS] = {0.75, 0.3, 0.6}, decoded[GRAPHS] = {1, 0.5, 0.5};
    net base = make_net(true);
    lam_graph *shared[GRAPHS];
    lam_mae_io io[GRAPHS];
    lam_mae_config configs[GRAPHS];
    size_t largest = 0, sum = 0;
    for (int k = 0; k < GRAPHS; k++) {
        configs[k] = config;
        configs[k].mask_ratio = ratio[k];
        configs[k].decode_ratio = decoded[k];
        ok(lam_graph_create(&shared[k], base.p, test_backend()));
        ok(lam_mae_build(shared[k], &configs[k], 3, &io[k]));
        ok(lam_graph_differentiate(shared[k], io[k].loss));
    }
    ok(lam_graph_plan_together(shared, GRAPHS));
    float *first = malloc((size_t)base.p->trainable * sizeof(float));
    for (int k = 0; k < 2 * GRAPHS; k++) {
        lam_graph *g;
        lam_mae_io alone;
        lam_memory_report report;
        lam_op_time t[64];
        double flops = 0, formula = 3 * lam_mae_step_flops(&configs[k % GRAPHS]) *
                                    lam_mae_kept_share(&configs[k % GRAPHS], 3);
        ok(lam_graph_create(&g, base.p, test_backend()));
        ok(lam_mae_build(g, &configs[k % GRAPHS], 3, &alone));
        ok(lam_graph_differentiate(g, alone.loss));
        ok(lam_graph_plan(g));
        lam_graph_profile(g, true);
        fill_io(&alone);
        lam_parameters_zero_gradients(base.p);
        ok(lam_graph_forward(g));
        ok(lam_graph_backward(g));
        for (int64_t i = lam_graph_op_times(g, t, 64) - 1; i >= 0; i--) flops += t[i].flops;
        assert_true(fabs(flops - formula) < 1e-9 * formula);
        memcpy(first, base.p->gradients, (size_t)base.p->trainable * sizeof(float));
        lam_graph_memory(g, &report);
        if (report.total > largest) largest = report.total;
        sum += report.total;

        fill_io(&io[k % GRAPHS]);
        lam_parameters_zero_gradients(base.p);
        ok(lam_graph_forward(g));
        ok(lam_graph_forward(shared[k % GRAPHS]));
        assert_memory_equal(lam_tensor_data(alone.logits), lam_tensor_data(io[k % GRAPHS].logits),
                            (size_t)lam_tensor_count(alone.logits) * sizeof(float));
        ok(lam_graph_backward(shared[k % GRAPHS]));
        assert_memory_equal(first, base.p->gradients, (size_t)base.p->trainable * sizeof(float));
        lam_graph_free(g);
    }
    for (int k = 0; k < GRAPHS; k++) {
        lam_memory_report report;
        lam_graph_memory(shared[k], &report);
        assert_true(report.total == largest && largest < sum);
    }
    for (int k = GRAPHS - 1; k >= 0; k--) lam_graph_free(shared[k]);
    free(first);

    /* One that cannot be built says so. */
    ok(lam_graph_create(&shared[0], base.p, test_backend()));
    ok(lam_mae_build(shared[0], &config, 3, &io[0]));
    ok(lam_graph_create(&shared[1], base.p, test_backend()));
    assert_null(lam_parameter(shared[1], "absent"));
    assert_int_equal(lam_graph_plan_together(shared, 2), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "absent"));
    lam_graph_free(shared[0]);
    lam_graph_free(shared[1]);
    drop_net(&base);
}

/* ---- errors ---- */

static void errors(void **state) {
    (void)state;
    lam_parameters *p;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_add(p, "w", 2, (int64_t[]){4, 5}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(p, "b", 1, (int64_t[]){4}, LAM_INIT_ZERO, 0, false));
    assert_int_equal(lam_parameters_add(p, "b", 1, (int64_t[]){4}, LAM_INIT_ZERO, 0, false),
                     LAM_ERROR_INTERNAL);
    ok(lam_parameters_layout(p, 1));
    lam_graph *g;
    ok(lam_graph_create(&g, p, test_backend()));
    lam_tensor *x = lam_input(g, "x", LAM_F32, 2, (int64_t[]){3, 6}); /* 6 features where w takes 5 */
    lam_tensor *y = lam_linear(g, x, lam_parameter(g, "w"), lam_parameter(g, "b"));
    assert_null(y);
    assert_null(lam_keep(g, lam_add(g, y, y), "z"));
    assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "x has 6 features, w takes 5"));
    assert_int_equal(lam_graph_forward(g), LAM_ERROR_INTERNAL);
    lam_graph_free(g);
    ok(lam_graph_create(&g, p, test_backend()));
    assert_null(lam_parameter(g, "absent"));
    assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "absent"));
    lam_graph_free(g);
    lam_parameters_free(p);
}

/* Weights depend on (seed, name, element) alone; the padding is zero; frozen parameters lie at the end. */
static void layout(void **state) {
    (void)state;
    lam_parameters *a, *b;
    ok(lam_parameters_create(&a));
    ok(lam_parameters_create(&b));
    ok(lam_parameters_add(a, "first", 2, (int64_t[]){3, 7}, LAM_INIT_XAVIER_UNIFORM, 0, true));
    ok(lam_parameters_add(a, "table", 1, (int64_t[]){5}, LAM_INIT_FROZEN, 0, false));
    ok(lam_parameters_add(a, "last", 1, (int64_t[]){17}, LAM_INIT_NORMAL, 0.02, true));
    ok(lam_parameters_add(b, "other", 1, (int64_t[]){40}, LAM_INIT_ONE, 0, true));
    ok(lam_parameters_add(b, "first", 2, (int64_t[]){3, 7}, LAM_INIT_XAVIER_UNIFORM, 0, true));
    ok(lam_parameters_layout(a, 77));
    ok(lam_parameters_layout(b, 77));
    const lam_parameter_entry *first = lam_parameters_find(a, "first"),
                              *last = lam_parameters_find(a, "last"),
                              *table = lam_parameters_find(a, "table");
    assert_int_equal(last->offset, 0);
    assert_int_equal(first->offset, 32);
    assert_int_equal(table->offset, 64);
    assert_int_equal(a->trainable, 64);
    assert_int_equal(a->count, 80);
    for (int i = 17; i < 32; i++) assert_true(a->weights[i] == 0);
    assert_memory_equal(a->weights + first->offset, b->weights + lam_parameters_find(b, "first")->offset,
                        21 * sizeof(float));
    float limit = sqrtf(6.0f / 10.0f), largest = 0;
    for (int i = 0; i < 21; i++) largest = fmaxf(largest, fabsf(a->weights[first->offset + i]));
    assert_true(largest <= limit && largest > 0.5f * limit);
    lam_parameters_free(a);
    lam_parameters_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounded_rows),     cmocka_unit_test(final_gradients),
        cmocka_unit_test(poisoned_memory),  cmocka_unit_test(recompute),
        cmocka_unit_test(held_weights),     cmocka_unit_test(nothing_new_in_a_step),
        cmocka_unit_test(packed_once),      cmocka_unit_test(parameter_rows),
        cmocka_unit_test(forward_alone),    cmocka_unit_test(times),
        cmocka_unit_test(errors),           cmocka_unit_test(layout),
        cmocka_unit_test(planned_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
