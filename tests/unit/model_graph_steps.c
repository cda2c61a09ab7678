/* Steps of a graph: gradients that are handed over when they are final, weights that are held, times and arithmetic by operation. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "tests/unit/graph_check.h"

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

/* Logits, and behind them the loss, of the last forward pass. */
static void read_results(const net *n, float *results) {
    lam_tensor_read(n->io.logits, results);
    lam_tensor_read(n->io.loss, results + lam_tensor_count(n->io.logits));
}

/* Inputs from pinned memory of others, each with and without the others, while the pass before may still run. */
static void sent_from_elsewhere(void **state) {
    (void)state;
    enum { INPUTS = 3, SETS = 2 };
    net n = make_net(false);
    const lam_backend *on = test_backend();
    lam_tensor *input[INPUTS] = {n.io.input.pixels, n.io.noise, n.io.sample_weight};
    float *values[SETS][INPUTS], *pinned[SETS][INPUTS], *wanted[SETS], *got;
    int64_t results = lam_tensor_count(n.io.logits) + 1;
    assert_int_equal(lam_tensor_send_from(n.io.logits, NULL), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "is no input"));
    ok(lam_tensor_send_from(input[0], NULL));
    if (!on_cuda()) {
        assert_int_equal(lam_tensor_send_from(input[0], &results), LAM_ERROR_INTERNAL);
        assert_non_null(strstr(lam_last_error(), "pixels is not sent"));
        drop_net(&n);
        return;
    }
    ok(lam_alloc_array((void **)&got, results, sizeof *got));
    for (int s = 0; s < SETS; s++) {
        for (int k = 0; k < INPUTS; k++) {
            int64_t count = lam_tensor_count(input[k]);
            float *host = lam_tensor_data(input[k]);
            for (int64_t i = 0; i < count && s; i++)
                host[i] = 1 - host[i]; /* other pixels, masks and weights */
            ok(lam_backend_allocate_pinned(on, (void **)&pinned[s][k], (size_t)count * sizeof(float)));
            ok(lam_alloc_array((void **)&values[s][k], count, sizeof(float)));
            memcpy(values[s][k], host, (size_t)count * sizeof(float));
        }
        ok(lam_alloc_array((void **)&wanted[s], results, sizeof(float)));
        ok(lam_graph_forward(n.g));
        read_results(&n, wanted[s]);
    }
    assert_true(wanted[0][results - 1] != wanted[1][results - 1]);
    lam_graph_hold_weights(n.g, true); /* so that nothing waits between two passes */
    for (int chosen = 0; chosen < 1 << INPUTS; chosen++)
        for (int last = 0; last < SETS; last++) {
            for (int pass = 0; pass < 2; pass++) {
                int s = pass ? last : !last;
                for (int k = 0; k < INPUTS; k++) {
                    bool elsewhere = chosen >> k & 1;
                    size_t bytes = (size_t)lam_tensor_count(input[k]) * sizeof(float);
                    memcpy(pinned[s][k], values[s][k], bytes);
                    memcpy(lam_tensor_data(input[k]), values[elsewhere ? !s : s][k], bytes);
                    ok(lam_tensor_send_from(input[k], elsewhere ? pinned[s][k] : NULL));
                }
                ok(lam_graph_forward(n.g));
            }
            ok(lam_backend_sent(on)); /* from here on all may change */
            for (int k = 0; k < INPUTS; k++)
                memset(pinned[last][k], 0xff, (size_t)lam_tensor_count(input[k]) * sizeof(float));
            read_results(&n, got);
            assert_memory_equal(got, wanted[last], (size_t)results * sizeof *got);
        }
    for (int s = 0; s < SETS; s++) {
        for (int k = 0; k < INPUTS; k++) {
            lam_backend_release_pinned(on, pinned[s][k]);
            lam_free(values[s][k]);
        }
        lam_free(wanted[s]);
    }
    lam_free(got);
    drop_net(&n);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(final_gradients), cmocka_unit_test(held_weights),
                                       cmocka_unit_test(times), cmocka_unit_test(sent_from_elsewhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
