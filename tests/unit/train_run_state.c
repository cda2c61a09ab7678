/* state.json: what is written is read; a value that cannot be is refused even where the checksum fits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/sealed.h"
#include "train/run_state.h"

static const lam_run_state written = {.step = 40,
                                      .updates = 37,
                                      .skipped = 3,
                                      .skipped_in_row = 1,
                                      .damaged_samples = 2,
                                      .metrics_bytes = 900,
                                      .seed = UINT64_MAX,
                                      .shards_hash = 0x0123456789abcdef,
                                      .world_size = 2,
                                      .threads = 4,
                                      .isa = "avx2",
                                      .mpi = "one process",
                                      .gemm = "oneDNN 2.6.0 (abc)",
                                      .version = "0.1.0"};

static void write_it(void) {
    lam_state_hashes hashes = {.model = 1, .optimizer = 0xffffffffffffffff};
    assert_int_equal(lam_run_state_write("state.json", &written, 5, &hashes), LAM_OK);
}

static void test_round_trip(void **state) {
    (void)state;
    lam_run_state s;
    lam_state_hashes hashes;
    write_it();
    assert_int_equal(lam_run_state_read("state.json", 40, &s, &hashes), LAM_OK);
    assert_memory_equal(&s, &written, sizeof s);
    assert_true(hashes.model == 1 && hashes.optimizer == 0xffffffffffffffff && !hashes.has_ema);
    hashes = (lam_state_hashes){.model = 1, .optimizer = 2, .ema = 3, .has_ema = true};
    assert_int_equal(lam_run_state_write("state.json", &written, 5, &hashes), LAM_OK);
    hashes = (lam_state_hashes){0};
    assert_int_equal(lam_run_state_read("state.json", 40, &s, &hashes), LAM_OK);
    assert_true(hashes.optimizer == 2 && hashes.ema == 3 && hashes.has_ema);
    assert_int_equal(lam_run_state_read("state.json", -1, &s, &hashes), LAM_OK);
    assert_int_equal(lam_run_state_read("state.json", 41, &s, &hashes), LAM_ERROR_FORMAT);
    assert_int_equal(lam_run_state_read("nowhere.json", -1, &s, &hashes), LAM_ERROR_IO);
}

static void refused(const char *key, int64_t value, const char *text, const char *words) {
    lam_json *json = NULL;
    lam_run_state s;
    lam_state_hashes hashes;
    write_it();
    assert_int_equal(lam_sealed_read(&json, "state.json"), LAM_OK);
    if (text)
        lam_json_set_text(json, key, text);
    else
        lam_json_set_int(json, key, value);
    assert_int_equal(lam_sealed_write("state.json", json), LAM_OK);
    lam_json_free(json);
    if (lam_run_state_read("state.json", -1, &s, &hashes) != LAM_ERROR_FORMAT) fail_msg("%s was taken", key);
    if (!strstr(lam_last_error(), words)) fail_msg("%s: %s", key, lam_last_error());
}

static void test_refused(void **state) {
    (void)state;
    refused("updates", 0, NULL, "not the 40 steps");
    refused("updates", 41, NULL, "updates");
    refused("step", 0, NULL, "step");
    refused("step", -1, NULL, "step");
    refused("step", INT64_MAX, NULL, "steps");
    refused("step", 0, "forty", "step");
    refused("epoch", -8, NULL, "epoch");
    refused("skipped", -3, NULL, "skipped");
    refused("skipped_in_row", -9, NULL, "skipped_in_row");
    refused("skipped_in_row", 4, NULL, "skipped_in_row");
    refused("damaged_samples", -1, NULL, "damaged_samples");
    refused("metrics_bytes", 0, NULL, "metrics_bytes");
    refused("ema.safetensors", 0, "no hash", "ema.safetensors");
    refused("world_size", 0, NULL, "world_size");
    refused("threads", (int64_t)1 << 32, NULL, "threads");
    refused("isa", 0, "a name of more than sixteen bytes", "isa");
    refused("mpi", 3, NULL, "mpi");
    refused("gemm", 3, NULL, "gemm");
    refused("shards", 3, NULL, "shards");
    refused("model.safetensors", 0, "0x00000000000001", "model.safetensors");
    refused("optimizer.safetensors", 0, "", "optimizer.safetensors");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refused)};
    char folder[] = "/tmp/lamella_run_state.XXXXXX";
    if (!mkdtemp(folder) || chdir(folder) != 0) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lam_remove_tree(folder);
    return failed;
}
