/* Results of bench step: the network of a name, what a record holds, and two records side by side. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/files.h"
#include "base/threads.h"
#include "train/bench_compare.h"
#include "train/bench_network.h"
#include "train/limit.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static double number(const lam_json *object, const char *key) {
    return lam_json_float(lam_json_get(object, key), NAN);
}

static void models(void **state) {
    (void)state;
    lam_mae_config m;
    ok(lam_bench_model("b16", &m));
    assert_true(m.kind == LAM_MAE_VIT && m.embed_dim == 768 && m.depth == 12 && m.num_heads == 12 &&
                m.patch_size == 16 && m.image_size == 256);
    ok(lam_bench_model("h14", &m));
    assert_true(m.embed_dim == 1280 && m.depth == 32 && m.patch_size == 14 && m.image_size == 252);
    ok(lam_bench_model("p-s16", &m));
    assert_true(m.kind == LAM_MAE_VIT_PARALLEL && m.embed_dim == 384);
    ok(lam_bench_model("ca-s16", &m));
    assert_true(m.kind == LAM_MAE_CHANNEL_AGNOSTIC && m.decoder == LAM_DECODER_SHARED);
    ok(lam_bench_model("g8", &m));
    assert_true(m.embed_dim == 1664 && m.depth == 48 && m.mlp_dim == 8192);
    static const char *const sizes[] = {"t", "s", "b", "l", "h", "g"}, *const patches[] = {"8", "14", "16",
                                                                                           "32"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t k = 0; k < sizeof patches / sizeof *patches; k++) {
            char name[8];
            snprintf(name, sizeof name, "%s%s", sizes[i], patches[k]);
            ok(lam_bench_model(name, &m));
            ok(lam_mae_check(&m));
        }
    static const char *const bad[] = {"",     "s",     "16",   "s12", "x16",
                                      "s16 ", "q-s16", "s016", "ca-", "p-ca-s16"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(lam_bench_model(bad[i], &m), LAM_ERROR_USAGE);
        assert_non_null(strstr(lam_last_error(), bad[i]));
    }
}

/* ---- limits ---- */

/* The products that are measured are those that the formula of the network counts, but for the gradient of the pixels, which
 * nobody computes, and the attention, which is no linear map. */
static void check_products(const char *name, lam_dtype type, double tokens, double kept, double length) {
    lam_bench_network n;
    lam_gemm_limit limit;
    ok(lam_bench_network_open(&n, lam_backend_cpu(), false, name, 1, type, LAM_RECOMPUTE_NONE, 0));
    ok(lam_gemm_limit_measure(n.graph, 1, 0.001, &limit));
    double width = 192, decoder = 512;
    double queries = 7 * (tokens + 1) + tokens - kept; /* of the last block the hidden tokens alone */
    double attention = 4 * (12 * (kept + 1) * (kept + 1) * width + queries * (tokens + 1) * decoder);
    double expected = lam_mae_step_flops(&n.model) * lam_mae_kept_share(&n.model, 1) - 3 * attention -
                      2 * kept * length * width;
    if (!(fabs(limit.flops / expected - 1) < 1e-12))
        fail_msg("%s: %.0f operations in products, not %.0f", name, limit.flops, expected);
    double share = 0, seconds = 0;
    for (int l = 0; l < LAM_LIMIT_LIBRARIES; l++) share += limit.share[l];
    for (int64_t i = 0; i < limit.count; i++)
        seconds += (double)limit.products[i].count * limit.products[i].seconds;
    assert_true(fabs(share - 1) < 1e-9 && fabs(seconds / limit.seconds - 1) < 1e-9);
    assert_true(fabs(limit.flops_per_s * limit.seconds / limit.flops - 1) < 1e-9);
    lam_gemm_limit_free(&limit);
    ok(lam_gemm_limit_measure(n.graph, 0.5, 0.001, &limit)); /* half of the rows */
    for (int64_t i = 0; i < limit.count; i++)
        if (!strcmp(limit.products[i].kind, "forward")) assert_true(limit.products[i].m <= (tokens + 1) / 2);
    lam_gemm_limit_free(&limit);
    lam_bench_network_close(&n);
}

static void products(void **state) {
    lam_dtype type = *(lam_dtype *)*state;
    check_products("t32", type, 64, 16, 32 * 32 * 6);
    check_products("p-t32", type, 64, 16, 32 * 32 * 6);
    check_products("ca-t32", type, 6 * 64, 6 * 16, 32 * 32);
}

static void memory(void **state) {
    (void)state;
    double rate = 0;
    ok(lam_memory_limit((size_t)3 << 20, 0.001, &rate));
    assert_true(rate > 1e7 && rate < 1e14);
}

/* ---- bytes ---- */

/* linear y = x w^T + b and what its passes read and write: F32 or BF16 activations, F32 weights. */
static void bytes(void **state) {
    (void)state;
    lam_bench_network n;
    lam_op_time times[64];
    ok(lam_bench_network_open(&n, lam_backend_cpu(), false, "t32", 2, LAM_F32, LAM_RECOMPUTE_NORM_GELU, 0));
    lam_graph_profile(n.graph, true);
    double seconds;
    ok(lam_bench_network_steps(&n, 1, &seconds));
    int64_t count = lam_graph_op_times(n.graph, times, 64);
    double rows = 2 * 65, width = 512, length = 32 * 32 * 6, encoder_rows = 2 * 17, encoder = 192;
    /* Six blocks of all tokens, the first of visible and of masked ones; the last has linear_kv. */
    double qkv_rows = 6 * rows + 2 * 17 + 64;
    bool again = false, restored = false;
    for (int64_t i = 0; i < count; i++) {
        again |= times[i].again;
        if (!strcmp(times[i].op, "restore_tokens") && !times[i].backward) { /* 48 of 64, and the ranks */
            restored = true;
            assert_true(times[i].bytes == 4 * (2 * 48 * length + 2 * 64 * length + 2 * 64));
        }
        if (!strcmp(times[i].op, "gather_patches")) /* as much as it takes, and the 2 x 16 indices */
            assert_true(times[i].bytes == 4 * (2 * (2 * 16 * length) + 2 * 16));
        if (!strcmp(times[i].op, "linear_qkv") && !times[i].backward)
            assert_true(times[i].bytes ==
                        4 * (qkv_rows * width * 4 + 8 * 3 * width * (width + 1) +
                             12 * (encoder_rows * encoder * 4 + 3 * encoder * (encoder + 1))));
        if (!strcmp(times[i].op, "linear_qkv") && times[i].backward) /* x, w, dy; dx; dw and db twice */
            assert_true(
                times[i].bytes ==
                4 * (qkv_rows * width * 5 + 8 * (3 * width * width * 3 + 3 * width * 2) +
                     12 * (encoder_rows * encoder * 5 + 3 * encoder * encoder * 3 + 3 * encoder * 2)));
        if (!strcmp(times[i].op, "linear_gelu") && times[i].again)
            assert_true(times[i].bytes ==
                            4 * 2 * ((7 * rows + 2 * 48) * 4 * width + 12 * encoder_rows * 4 * encoder) &&
                        times[i].flops == 0);
    }
    assert_true(again && restored);
    lam_bench_network_close(&n);
}

/* ---- records ---- */

static const char before[] =
    "{\"bench\": \"step\", \"model\": \"s16\", \"batch\": 8, \"device\": \"cpu\", \"precision\": \"f32\", \"recompute\": \"none\", \"drop_path\": 0, "
    "\"cpu\": \"one\", \"isa\": \"avx2\", \"threads\": 2, \"library\": \"a\", \"version\": \"1\", \"step_ms\": 200, "
    "\"limit_gflops_per_s\": 100, \"memory_gb_per_s\": 10, \"operations\": ["
    "{\"op\": \"linear\", \"pass\": \"forward\", \"ms\": 60}, {\"op\": \"linear\", \"pass\": \"backward\", \"ms\": 120}, "
    "{\"op\": \"gone\", \"pass\": \"forward\", \"ms\": 5}]}";
static const char after[] =
    "{\"bench\": \"step\", \"model\": \"s16\", \"batch\": 8, \"device\": \"cpu\", \"precision\": \"f32\", \"recompute\": \"none\", \"drop_path\": 0, "
    "\"cpu\": \"one\", \"isa\": \"avx512\", \"threads\": 2, \"library\": \"b\", \"version\": \"1\", \"step_ms\": 100, "
    "\"limit_gflops_per_s\": 150, \"memory_gb_per_s\": 5, \"operations\": ["
    "{\"op\": \"linear\", \"pass\": \"backward\", \"ms\": 40}, {\"op\": \"linear\", \"pass\": \"forward\", \"ms\": 80}, "
    "{\"op\": \"new\", \"pass\": \"again\", \"ms\": 1}]}";

static void check_pair(const lam_json *pair, double old, double new, double ratio) {
    assert_true(number(pair, "before") == old && number(pair, "after") == new);
    assert_true(fabs(number(pair, "ratio") / ratio - 1) < 1e-12);
}

static void compare(void **state) {
    (void)state;
    lam_json *a, *b;
    ok(lam_json_parse(&a, before, strlen(before), "before"));
    ok(lam_json_parse(&b, after, strlen(after), "after"));
    lam_json *c = lam_bench_compare("old.json", a, b);
    check_pair(lam_json_get(c, "step"), 200, 100, 2);
    check_pair(lam_json_get(c, "limit"), 100, 150, 1.5);
    check_pair(lam_json_get(c, "memory"), 10, 5, 0.5);
    const lam_json *differs = lam_json_get(c, "differs"), *list = lam_json_get(c, "operations");
    assert_int_equal(lam_json_size(differs), 2);
    assert_string_equal(lam_json_text(lam_json_at(differs, 0), ""), "isa");
    assert_string_equal(lam_json_text(lam_json_at(differs, 1), ""), "library");
    assert_int_equal(lam_json_size(list), 4);
    check_pair(lam_json_at(list, 0), 120, 40, 3);
    check_pair(lam_json_at(list, 1), 60, 80, 0.75);
    assert_string_equal(lam_json_text(lam_json_get(lam_json_at(list, 2), "op"), ""), "new");
    assert_true(lam_json_is_null(lam_json_get(lam_json_at(list, 2), "before")));
    assert_true(lam_json_is_null(lam_json_get(lam_json_at(list, 2), "ratio")));
    assert_string_equal(lam_json_text(lam_json_get(lam_json_at(list, 3), "op"), ""), "gone");
    assert_true(number(lam_json_at(list, 3), "before") == 5);
    assert_true(lam_json_is_null(lam_json_get(lam_json_at(list, 3), "after")));
    lam_json_free(c);
    lam_json_free(a);
    lam_json_free(b);
}

static void refuse(void **state) {
    (void)state;
    char path[] = "/tmp/lamella_bench_XXXXXX";
    close(mkstemp(path));
    lam_json *record = NULL;
    lam_bench_settings good = {.backend = lam_backend_cpu(), .model = "s16", .batch = 8, .recompute = "none"}, model = good, batch = good,
                       precision = good, recompute = good, drop = good;
    model.model = "b16";
    batch.batch = 4;
    precision.bf16 = true;
    recompute.recompute = "block";
    drop.drop_path = 0.5;
    lam_threads_set(2);
    ok(lam_file_write(path, before, strlen(before)));
    ok(lam_bench_read(path, &good, &record));
    lam_json_free(record);
    const lam_bench_settings others[] = {model, batch, precision, recompute, drop};
    static const char *const said[] = {
        "model s16 (here b16):", "batch 8 (here 4):", "precision f32 (here bf16):",
        "recompute none (here block):", "drop_path 0 (here 0.5):"};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(lam_bench_read(path, &others[i], &record), LAM_ERROR_USAGE);
        assert_non_null(strstr(lam_last_error(), said[i]));
    }
    lam_threads_set(1);
    assert_int_equal(lam_bench_read(path, &good, &record), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "is of threads 2 (here 1):"));
    lam_threads_set(2);
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"bench\": \"loader\"}",
        "{\"bench\": \"step\", \"model\": \"s16\", \"precision\": \"f32\"}",
        "{\"bench\": \"step\", \"model\": \"s16\", \"precision\": \"f32\", \"step_ms\": 1, \"operations\": []}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ok(lam_file_write(path, bad[i], strlen(bad[i])));
        assert_int_equal(lam_bench_read(path, &good, &record), LAM_ERROR_FORMAT);
        assert_non_null(strstr(lam_last_error(), path));
    }
    unlink(path);
    assert_int_equal(lam_bench_read(path, &good, &record), LAM_ERROR_IO);
}

/* Operations account for the step, and shares are what they say. */
static void measured(void **state) {
    (void)state;
    lam_bench_settings s = {
        .backend = lam_backend_cpu(),
        .model = "t32", .batch = 1, .steps = 3, .bf16 = true, .recompute = "block", .limit_seconds = 0.001};
    lam_json *r;
    ok(lam_bench_measure(&s, &r));
    assert_string_equal(lam_json_text(lam_json_get(r, "precision"), ""), "bf16");
    assert_int_equal(lam_json_int(lam_json_get(r, "tokens"), 0), 64);
    assert_true(fabs(number(r, "crops_per_s") * number(r, "step_ms") / 1e3 - 1) < 1e-9);
    assert_true(
        fabs(number(r, "share_of_limit") * number(r, "limit_gflops_per_s") / number(r, "gflops_per_s") - 1) <
        1e-9);
    const lam_json *list = lam_json_get(r, "operations");
    double last = INFINITY;
    bool again = false, update = false;
    for (size_t i = 0; i < lam_json_size(list); i++) {
        const lam_json *o = lam_json_at(list, i);
        const char *pass = lam_json_text(lam_json_get(o, "pass"), "");
        assert_true(number(o, "ms") <= last && number(o, "share_of_limit") > 0);
        last = number(o, "ms");
        again |= !strcmp(pass, "again");
        update |= !strcmp(pass, "update");
    }
    assert_true(again && update);
    lam_json_free(r);
    s.model = "t33";
    assert_int_equal(lam_bench_measure(&s, &r), LAM_ERROR_USAGE);
}

int main(void) {
    static lam_dtype f32 = LAM_F32, bf16 = LAM_BF16;
    const struct CMUnitTest tests[] = {cmocka_unit_test(models),
                                       {"products f32", products, NULL, NULL, &f32},
                                       {"products bf16", products, NULL, NULL, &bf16},
                                       cmocka_unit_test(memory),
                                       cmocka_unit_test(bytes),
                                       cmocka_unit_test(compare),
                                       cmocka_unit_test(refuse),
                                       cmocka_unit_test(measured)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
