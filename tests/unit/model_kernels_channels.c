/* Tokens of each channel by themselves: their order and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/kernel_check.h"

enum { U_BATCH, U_KEPT, U_CHANNELS, U_PER, U_WIDTH, U_CLS, U_IDS, U_ADD };

static lam_unshuffle_sizes unshuffle_at(const bench *b, int restore, int ids) {
    int64_t used = b->n[U_IDS] ? 2 : b->n[U_CHANNELS];
    return (lam_unshuffle_sizes){.batch = b->n[U_BATCH],
                                 .kept = b->n[U_KEPT],
                                 .tokens = used * b->n[U_PER],
                                 .per_channel = b->n[U_PER],
                                 .channels = b->n[U_CHANNELS],
                                 .width = b->n[U_WIDTH],
                                 .cls = b->n[U_CLS],
                                 .restore = AT(restore),
                                 .channel_ids = b->n[U_IDS] ? AT(ids) : NULL};
}
static void run_unshuffle(bench *b, const lam_kernels *k) {
    lam_unshuffle_sizes sizes = unshuffle_at(b, 4, 5);
    k->unshuffle_channels(&sizes, AT(0), AT(1), AT(2), AT(3), AT(6));
}
static void run_unshuffle_backward(bench *b, const lam_kernels *k) {
    lam_unshuffle_sizes sizes = unshuffle_at(b, 1, 2);
    k->unshuffle_channels_backward(&sizes, AT(0), AT(3), b->n[U_ADD], AT(4), AT(5), AT(6));
}

static void channels(bench *b) {
    static const int64_t sizes[][5] = {
        {1, 1, 2, 1, 1}, {3, 7, 4, 9, 33}, {2, 20, 3, 25, 48}, {2, 5, 6, 16, 264}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int64_t how = 0; how < 8; how++) {
            memcpy(b->n, sizes[i], sizeof sizes[i]);
            int64_t batch = b->n[U_BATCH], kept = b->n[U_KEPT], width = b->n[U_WIDTH];
            b->n[U_CLS] = how & 1;
            b->n[U_IDS] = how & 2;
            b->n[U_ADD] = how & 4;
            int64_t all = (b->n[U_IDS] ? 2 : b->n[U_CHANNELS]) * b->n[U_PER];
            int32_t *ids;

            add_array(b, REAL, READ, batch * (kept + 1) * width);
            add_array(b, FLOATS, READ, width);
            add_array(b, FLOATS, READ, (1 + b->n[U_PER]) * width);
            add_array(b, FLOATS, READ, b->n[U_CHANNELS] * width);
            add_restore(b, batch, all);
            ids = add_array(b, INTS, READ, 2)->start;
            ids[0] = (int32_t)b->n[U_CHANNELS] - 1;
            ids[1] = 0;
            add_array(b, REAL, WRITTEN, batch * (b->n[U_CLS] + all) * width);
            run(b, "unshuffle_channels", run_unshuffle);

            add_array(b, REAL, READ, batch * (b->n[U_CLS] + all) * width);
            add_restore(b, batch, all);
            ids = add_array(b, INTS, READ, 2)->start;
            ids[0] = (int32_t)b->n[U_CHANNELS] - 1;
            ids[1] = i == 1 ? ids[0] : 0; /* the same channel twice */
            add_array(b, REAL, b->n[U_ADD] ? ADDED : WRITTEN, batch * (kept + 1) * width);
            add_array(b, FLOATS, ADDED, width);
            add_array(b, FLOATS, ADDED, b->n[U_CHANNELS] * width);
            add_array(b, FLOATS, SCRATCH, batch * (1 + b->n[U_CHANNELS]) * width);
            run(b, "unshuffle_channels_backward", run_unshuffle_backward);
        }
}

static void of_channels(void **state) { (void)state, both_types(channels); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_channels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
