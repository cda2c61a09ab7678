/* Collectives alone and, where this program itself is started by a launcher with several ranks, between them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dist/dist.h"

static lam_dist *dist;

static void sums_and_maximum(void **state) {
    (void)state;
    int rank = lam_dist_rank(dist), world = lam_dist_world_size(dist);
    /* More sums under way than the implementation keeps, another collective between them. */
    enum { COUNT = 1000, SUMS = 100 };
    static float values[SUMS][COUNT];
    double sum = rank + 1;
    for (int s = 0; s < SUMS; s++) {
        for (int i = 0; i < COUNT; i++) values[s][i] = (float)((i + s) * (rank + 1));
        assert_int_equal(lam_dist_start_sum_f32(dist, values[s], COUNT - s), LAM_OK);
        if (s == SUMS / 2) assert_int_equal(lam_dist_sum_f64(dist, &sum, 1), LAM_OK);
    }
    assert_int_equal(lam_dist_wait(dist), LAM_OK);
    assert_int_equal(lam_dist_wait(dist), LAM_OK);
    float factor = (float)(world * (world + 1) / 2);
    for (int s = 0; s < SUMS; s++) {
        for (int i = 0; i < COUNT; i++)
            assert_true(values[s][i] == (float)(i + s) * (i < COUNT - s ? factor : (float)(rank + 1)));
    }
    assert_true(sum == (double)factor);
    int64_t maximum[2] = {rank, -rank};
    assert_int_equal(lam_dist_max_i64(dist, maximum, 2), LAM_OK);
    assert_int_equal(maximum[0], world - 1);
    assert_int_equal(maximum[1], 0);
}

static void broadcast_and_gather(void **state) {
    (void)state;
    int rank = lam_dist_rank(dist), world = lam_dist_world_size(dist);
    char word[8] = "";
    if (rank == world - 1) strcpy(word, "lamella");
    assert_int_equal(lam_dist_broadcast(dist, word, sizeof word, world - 1), LAM_OK);
    assert_string_equal(word, "lamella");
    int64_t sizes[64], total = 0;
    assert_true(world <= 64);
    for (int r = 0; r < world; r++) total += sizes[r] = r == 1 ? 0 : r + 3; /* an empty part too */
    char part[80], all[8192];
    memset(part, 'a' + rank, sizeof part);
    assert_true(total <= (int64_t)sizeof all);
    assert_int_equal(lam_dist_gather(dist, part, sizes, rank == 0 ? all : NULL), LAM_OK);
    if (rank == 0) {
        const char *at = all;
        for (int r = 0; r < world; r++) {
            for (int64_t i = 0; i < sizes[r]; i++) assert_int_equal(*at++, 'a' + r);
        }
    }
    assert_int_equal(lam_dist_barrier(dist), LAM_OK);
}

/* The last two ranks fail in different ways: every rank has the status and the message of the lower one. */
static void everyone_hears_of_a_failure(void **state) {
    (void)state;
    int rank = lam_dist_rank(dist), world = lam_dist_world_size(dist);
    assert_int_equal(lam_dist_agree(dist, LAM_OK), LAM_OK);
    int first = world > 1 ? world - 2 : 0;
    lam_status mine = LAM_OK;
    if (rank == first) mine = lam_fail(LAM_ERROR_IO, __FILE__, __LINE__, "the disk of rank %d is full", rank);
    if (rank == first + 1) mine = lam_fail(LAM_ERROR_NUMERIC, __FILE__, __LINE__, "another matter");
    assert_int_equal(lam_dist_agree(dist, mine), LAM_ERROR_IO);
    char expected[64];
    snprintf(expected, sizeof expected, "the disk of rank %d is full", first);
    assert_string_equal(lam_last_error(), expected);
    assert_int_equal(lam_dist_agree(dist, rank == 0 ? LAM_STOPPED : LAM_OK), LAM_STOPPED);
}

static int open_dist(void **state) {
    (void)state;
    return lam_dist_open(&dist) == LAM_OK ? 0 : -1;
}

static int close_dist(void **state) {
    (void)state;
    lam_dist_close(&dist);
    return dist == NULL ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_and_maximum),
                                       cmocka_unit_test(broadcast_and_gather),
                                       cmocka_unit_test(everyone_hears_of_a_failure)};
    return cmocka_run_group_tests_name("dist_collectives", tests, open_dist, close_dist);
}
