/* Sizes in bytes, and the choice of what is recomputed under a budget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "train/step_plan.h"

static void sizes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes;
    } good[] = {
        {"8GiB", 8ll << 30}, {"1.5 MiB", 3 << 19}, {"1.5GB", 1500000000}, {"3kB", 3000}, {"0.5KiB", 512}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t bytes = -1;
        assert_int_equal(lam_bytes_parse(good[i].text, "train.memory_budget", &bytes), LAM_OK);
        assert_int_equal(bytes, good[i].bytes);
    }
    static const char *const bad[] = {
        "GiB",     "8gib",   "-1GiB",  "8GiB!",    "nan",  "1e30",  "8 G iB",
        "",        "0",      "0GiB",   "0.0001kB", "0.5",  "2000",  "2e3",
        "0x10MiB", "1e3MiB", "infGiB", "1.2.3GiB", ".GiB", " 8GiB", "99999999999TiB"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t bytes;
        assert_int_equal(lam_bytes_parse(bad[i], "train.memory_budget", &bytes), LAM_ERROR_CONFIG);
        assert_non_null(strstr(lam_last_error(), "train.memory_budget"));
        assert_non_null(strstr(lam_last_error(), bad[i]));
    }
}

static const lam_mae_config net = {.image_size = 32,
                                   .patch_size = 4,
                                   .in_channels = 2,
                                   .embed_dim = 32,
                                   .depth = 4,
                                   .num_heads = 2,
                                   .decoder_embed_dim = 16,
                                   .decoder_depth = 2,
                                   .decoder_num_heads = 2,
                                   .mask_ratio = 0.75,
                                   .pixel_type = LAM_F32,
                                   .noise_input = true};

/* Arena of the plan under this budget; 0: refused. */
static size_t planned(int64_t budget, lam_recompute at_least) {
    lam_settings settings = {.model = net, .recompute = at_least, .memory_budget = budget};
    lam_parameters *p;
    lam_graph *g;
    lam_mae_io io;
    lam_memory_report report = {0};
    assert_int_equal(lam_parameters_create(&p), LAM_OK);
    assert_int_equal(lam_mae_parameters(p, &net), LAM_OK);
    assert_int_equal(lam_parameters_layout(p, 1), LAM_OK);
    assert_int_equal(lam_graph_create(&g, p, lam_backend_cpu()), LAM_OK);
    lam_step_plan_start(g, &settings);
    assert_int_equal(lam_mae_build(g, &net, 8, &io), LAM_OK);
    assert_int_equal(lam_graph_differentiate(g, io.loss), LAM_OK);
    lam_status status = lam_step_plan_finish(&g, 1, &settings, 2 * p->trainable * (int64_t)sizeof(float),
                                             lam_backend_cpu(), 8);
    if (status == LAM_OK)
        lam_graph_memory(g, &report);
    else
        assert_int_equal(status, LAM_ERROR_CONFIG);
    lam_graph_free(g);
    size_t beside = report.weights + report.packed + 3 * report.gradients;
    lam_parameters_free(p);
    if (budget && status == LAM_OK) assert_true((int64_t)(beside + report.total) <= budget);
    return report.total ? beside + report.total : 0;
}

static void budget(void **state) {
    (void)state;
    size_t none = planned(0, LAM_RECOMPUTE_NONE), less = planned(0, LAM_RECOMPUTE_NORM_GELU),
           least = planned(0, LAM_RECOMPUTE_BLOCK);
    assert_true(least < less && less < none);
    assert_int_equal(planned((int64_t)none, LAM_RECOMPUTE_NONE), none);
    assert_int_equal(planned((int64_t)none - 1, LAM_RECOMPUTE_NONE), less);
    assert_int_equal(planned((int64_t)none, LAM_RECOMPUTE_NORM_GELU), less);
    assert_int_equal(planned((int64_t)less - 1, LAM_RECOMPUTE_NONE), least);
    assert_int_equal(planned((int64_t)least - 1, LAM_RECOMPUTE_NONE), 0);
    assert_non_null(strstr(lam_last_error(), "train.micro_batch"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(budget)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
