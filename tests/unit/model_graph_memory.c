/* Memory of a graph: poisoned, with results that are computed again, of a forward pass alone, shared by several graphs; nothing is
 * allocated in a step. */
#include <dirent.h>
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "model/optimizer.h"
#include "tests/unit/graph_check.h"

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

/* A residual stream of `branches` maps over [3, 5, 8] with norms before them, whose weights may be frozen; twice: of a norm. */
static lam_graph *make_stream(lam_parameters **out, int branches, bool frozen, bool twice, lam_recompute recompute) {
    lam_parameters *p;
    lam_graph *g;
    lam_tensor *sample_loss;
    const int64_t shape[] = {3, 5, 8};
    const lam_init norms = frozen ? LAM_INIT_FROZEN : LAM_INIT_ONE;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_add(p, "nw", 1, (int64_t[]){8}, norms, 0, false));
    ok(lam_parameters_add(p, "nb", 1, (int64_t[]){8}, norms, 0, false));
    ok(lam_parameters_add(p, "w", 2, (int64_t[]){8, 8}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(p, "b", 1, (int64_t[]){8}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_layout(p, 4));
    for (int64_t i = 0; i < 8; i++)
        p->weights[lam_parameters_find(p, "nw")->offset + i] = p->weights[lam_parameters_find(p, "nb")->offset + i] = 1;
    ok(lam_graph_create(&g, p, test_backend()));
    lam_graph_set_recompute(g, recompute);
    lam_tensor *input = lam_input(g, "x", LAM_F32, 3, shape), *x = input;
    for (int k = 0; k < branches; k++) {
        lam_tensor *h = lam_layernorm(g, x, lam_parameter(g, "nw"), lam_parameter(g, "nb"), 1e-6);
        if (twice) h = lam_layernorm(g, h, lam_parameter(g, "nw"), lam_parameter(g, "nb"), 1e-6);
        x = lam_linear_add(g, h, lam_parameter(g, "w"), lam_parameter(g, "b"), x);
    }
    lam_tensor *target = lam_input(g, "target", LAM_F32, 3, shape), *mask = lam_input(g, "mask", LAM_F32, 2, shape),
               *weight = lam_input(g, "weight", LAM_F32, 1, shape);
    ok(lam_graph_differentiate(g, lam_masked_loss(g, x, target, mask, weight, false, &sample_loss)));
    ok(lam_graph_plan(g));
    for (int i = 0; i < 120; i++) {
        ((float *)lam_tensor_data(input))[i] = (float)sin(3.7 * i);
        ((float *)lam_tensor_data(target))[i] = (float)cos(1.3 * i);
    }
    for (int i = 0; i < 15; i++) ((float *)lam_tensor_data(mask))[i] = 1;
    for (int i = 0; i < 3; i++) ((float *)lam_tensor_data(weight))[i] = 1;
    *out = p;
    return g;
}

/* A norm that has no backward pass is not computed again, because what it needs for that is not kept; nor the norm of one that is. */
static void recompute_of_norms(void **state) {
    (void)state;
    float gradients[2][128];
    for (int run = 0; run < 4; run++) {
        int what = run % 2;
        lam_parameters *p;
        setenv("LAMELLA_POISON", "1", 1);
        lam_graph *g = make_stream(&p, 2, run < 2, run >= 2, what ? LAM_RECOMPUTE_NORM_GELU : LAM_RECOMPUTE_NONE);
        unsetenv("LAMELLA_POISON");
        ok(lam_graph_forward(g));
        ok(lam_graph_backward(g));
        assert_true(p->trainable <= 128 && lam_sum_of_squares(p->gradients, 0, p->trainable) > 1e-6);
        memcpy(gradients[what], p->gradients, (size_t)p->trainable * sizeof(float));
        if (what) assert_memory_equal(gradients[0], gradients[1], (size_t)p->trainable * sizeof(float));
        lam_graph_free(g);
        lam_parameters_free(p);
    }
}

/* One stretch of memory for the gradient of all of it. */
static void gradient_of_a_stream(void **state) {
    (void)state;
    size_t bytes[2];
    for (int more = 0; more < 2; more++) {
        lam_parameters *p;
        lam_graph *g = make_stream(&p, 2 + more, false, false, LAM_RECOMPUTE_NONE);
        lam_memory_report report;
        lam_graph_memory(g, &report);
        bytes[more] = report.activation_gradients;
        lam_graph_free(g);
        lam_parameters_free(p);
    }
    assert_int_equal(bytes[0], bytes[1]);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(poisoned_memory), cmocka_unit_test(recompute), cmocka_unit_test(forward_alone),
        cmocka_unit_test(recompute_of_norms), cmocka_unit_test(gradient_of_a_stream),
        cmocka_unit_test(nothing_new_in_a_step), cmocka_unit_test(planned_together)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
