/* The graphs of a schedule of mask ratios: which stretch a step is in, how many there are, that they share their memory. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "train/graphs.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static void levels(void **state) {
    (void)state;
    assert_int_equal(lam_mask_level(0, 10), 0);
    assert_int_equal(lam_mask_level(1, 10), 0);
    assert_int_equal(lam_mask_level(2, 10), 1);
    assert_int_equal(lam_mask_level(9, 10), 4);
    assert_int_equal(lam_mask_level(10, 10), 4); /* behind the end */
    assert_int_equal(lam_mask_level(0, 1), 0);
    assert_int_equal(lam_mask_level(999999999, 1000000000), 4);
    for (int64_t steps = 1; steps < 40; steps++)
        for (int64_t step = 1; step < steps; step++)
            assert_true(lam_mask_level(step, steps) >= lam_mask_level(step - 1, steps));
    assert_true(lam_mask_level_ratio(0.9, 0.5, 0) == 0.9);
    assert_true(fabs(lam_mask_level_ratio(0.9, 0.5, 2) - 0.7) < 1e-15);
    assert_true(fabs(lam_mask_level_ratio(0.9, 0.5, 4) - 0.5) < 1e-15);
}

static void graphs_of_a_schedule(void **state) {
    (void)state;
    static const struct {
        double first, last;
        int64_t count, kept[LAM_MASK_LEVELS]; /* of 16 patches */
    } cases[] = {{0.75, 0, 1, {4, 4, 4, 4, 4}},
                 {0.75, 0.75, 1, {4, 4, 4, 4, 4}},
                 {0.75, 0.25, 5, {4, 6, 8, 10, 12}},
                 {0.5, 0.6, 3, {8, 7, 7, 6, 6}}}; /* 8, 7.6, 7.2, 6.8, 6.4 */
    ok(lam_isa_select());
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        lam_settings s = {.mask_ratio_end = cases[k].last,
                          .model = {.image_size = 16,
                                    .patch_size = 4,
                                    .in_channels = 2,
                                    .embed_dim = 16,
                                    .depth = 1,
                                    .num_heads = 2,
                                    .decoder_embed_dim = 16,
                                    .decoder_depth = 1,
                                    .decoder_num_heads = 2,
                                    .mask_ratio = cases[k].first,
                                    .pixel_type = LAM_U8}};
        lam_parameters *p;
        lam_graphs graphs;
        ok(lam_parameters_create(&p));
        ok(lam_mae_parameters(p, &s.model));
        ok(lam_parameters_layout(p, 1));
        ok(lam_graphs_open(&graphs, p, lam_backend_cpu(), &s, 2, 0));
        for (int64_t level = 0; level < LAM_MASK_LEVELS; level++) {
            int64_t at = graphs.of_level[level];
            assert_in_range(at, 0, graphs.count - 1);
            assert_int_equal(lam_tensor_dim(graphs.io[at].latent, 1), 1 + cases[k].kept[level]);
        }
        assert_int_equal(graphs.of_level[0], 0);
        assert_int_equal(graphs.count, cases[k].count);
        lam_memory_report first, other;
        lam_graph_memory(graphs.graph[0], &first);
        lam_op_time times[64];
        for (int64_t g = 0; g < graphs.count; g++) {
            lam_graph_memory(graphs.graph[g], &other);
            assert_true(other.total == first.total);
            memset(lam_tensor_data(graphs.io[g].input.pixels), 0,
                   (size_t)lam_tensor_count(graphs.io[g].input.pixels));
            ok(lam_graph_forward(graphs.graph[g]));
        }
        int64_t count = lam_graphs_op_times(&graphs, times, 64), losses = 0;
        for (int64_t i = 0; i < count; i++)
            if (!strcmp(times[i].op, "masked_loss")) losses += times[i].calls;
        assert_int_equal(losses, graphs.count);
        lam_graphs_close(&graphs);
        lam_parameters_free(p);
    }
}

/* A ratio on the way that keeps nothing is an error, and leaves nothing open. */
static void refusals(void **state) {
    (void)state;
    lam_settings s = {.mask_ratio_end = 0.95,
                      .model = {.image_size = 16,
                                .patch_size = 4,
                                .in_channels = 2,
                                .embed_dim = 16,
                                .depth = 1,
                                .num_heads = 2,
                                .decoder_embed_dim = 16,
                                .decoder_depth = 1,
                                .decoder_num_heads = 2,
                                .mask_ratio = 0.75,
                                .pixel_type = LAM_U8}};
    lam_parameters *p;
    lam_graphs graphs;
    ok(lam_parameters_create(&p));
    ok(lam_mae_parameters(p, &s.model));
    ok(lam_parameters_layout(p, 1));
    assert_int_equal(lam_graphs_open(&graphs, p, lam_backend_cpu(), &s, 2, 0), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.mask_ratio"));
    assert_int_equal(graphs.count, 0);
    lam_parameters_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(levels), cmocka_unit_test(graphs_of_a_schedule),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
