/* The end of metrics.jsonl: last loss, last validation, speed of the last steps; a line that is not finished. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "train/metrics.h"

static lam_metrics_end end_of(const char *text) {
    lam_metrics_end end;
    assert_int_equal(lam_file_write("metrics.jsonl", text, strlen(text)), LAM_OK);
    assert_int_equal(lam_metrics_read_end("metrics.jsonl", &end), LAM_OK);
    return end;
}

static void test_end(void **state) {
    (void)state;
    /* 10 crops in 1 s, 30 in 1 s, then 20 in 3 s: 60 in 5 s, not the mean of the rates. */
    lam_metrics_end end =
        end_of("{\"run\":{\"steps\":4}}\n"
               "{\"step\":1,\"loss\":3.5,\"crops_per_s\":10,\"step_ms\":1000}\n"
               "{\"step\":2,\"loss\":2.5,\"crops_per_s\":30,\"step_ms\":1000}\n"
               "{\"step\":2,\"validation_loss\":2.75}\n"
               "{\"step\":3,\"loss\":2.25,\"crops_per_s\":6.666666666666667,\"step_ms\":3000}\n"
               "{\"op_times\":[]}\n"
               "{\"step\":4,\"loss\":9,\"crops_");
    assert_int_equal(end.step, 3);
    assert_int_equal(end.steps, 3);
    assert_int_equal(end.validation_step, 2);
    assert_true(end.loss == 2.25 && end.validation_loss == 2.75);
    assert_true(fabs(end.crops_per_s - 12) < 1e-9);
    end = end_of("{\"step\":1,\"loss\":null,\"crops_per_s\":10,\"step_ms\":1000}\n");
    assert_true(isnan(end.loss) && end.step == 1 && end.validation_step == 0);
    assert_int_equal(end_of("{\"run\":{}}\n").steps, 0);
    assert_int_equal(end_of("").steps, 0);
    assert_int_equal(lam_metrics_read_end("nowhere.jsonl", &end), LAM_ERROR_IO);
}

/* Longer than what is read, and than the steps that are counted: slow ones at the start do not matter. */
static void test_long(void **state) {
    (void)state;
    enum { LINES = 20000, ROOM = 100 };
    char *text = malloc((size_t)LINES * ROOM);
    size_t used = 0;
    assert_non_null(text);
    for (int i = 1; i <= LINES; i++)
        used += (size_t)snprintf(text + used, ROOM,
                                 "{\"step\":%d,\"loss\":%d.5,\"crops_per_s\":%d,\"step_ms\":250}\n", i, i,
                                 i > LINES - LAM_METRICS_LAST ? 40 : 1);
    assert_true(used > 1 << 20);
    lam_metrics_end end = end_of(text);
    assert_int_equal(end.step, LINES);
    assert_int_equal(end.steps, LAM_METRICS_LAST);
    assert_true(end.loss == LINES + 0.5 && fabs(end.crops_per_s - 40) < 1e-9);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_end), cmocka_unit_test(test_long)};
    char folder[] = "/tmp/lamella_metrics.XXXXXX";
    if (!mkdtemp(folder) || chdir(folder) != 0) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lam_remove_tree(folder);
    return failed;
}
