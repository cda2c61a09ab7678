/* Sequences of tokens: positions, masks, ranks, partial decoding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/kernel_check.h"

enum { BATCH, KEPT, ALL, PLACES, WIDE, FIRST, ADD, SKIPPED };

static void add_ids(bench *b, int64_t count, int64_t below) {
    int32_t *ids = add_array(b, INTS, READ, count)->start;
    for (int64_t i = 0; i < count; i++) ids[i] = (int32_t)(lam_rng_uniform(&b->stream) * (double)below);
}

static lam_ranks ranks_at(const bench *b, int ids) {
    return (lam_ranks){.ids_restore = AT(ids),
                       .tokens = b->n[ALL],
                       .first = b->n[FIRST],
                       .count = b->n[KEPT],
                       .skipped = b->n[SKIPPED]};
}

static void run_embed(bench *b, const lam_kernels *k) {
    k->embed_tokens(AT(0), AT(1), AT(2), b->n[ADD] ? AT(3) : NULL, AT(4), b->n[BATCH], b->n[KEPT],
                    b->n[PLACES], b->n[WIDE]);
}
static void run_batch_sums(bench *b, const lam_kernels *k) {
    k->batch_sums(AT(0), b->n[BATCH], b->n[ALL] * b->n[WIDE], b->n[WIDE], AT(1));
}
static void run_merge(bench *b, const lam_kernels *k) {
    lam_ranks ranks = ranks_at(b, 2);
    k->merge_tokens(AT(0), AT(1), &ranks, AT(3), b->n[BATCH], b->n[WIDE]);
}
static void run_merge_backward(bench *b, const lam_kernels *k) {
    lam_ranks ranks = ranks_at(b, 1);
    k->merge_tokens_backward(AT(0), &ranks, AT(2), b->n[ADD], AT(3), b->n[ADD], b->n[BATCH], b->n[WIDE]);
}
static void run_masked(bench *b, const lam_kernels *k) {
    k->masked_tokens(AT(0), AT(1), AT(2), b->n[ALL], b->n[WIDE]);
}
static void run_masked_backward(bench *b, const lam_kernels *k) {
    k->masked_tokens_backward(AT(0), AT(1), AT(2), b->n[ALL], b->n[WIDE]);
}
static void run_gather(bench *b, const lam_kernels *k) {
    k->gather_patches(AT(0), b->n[ADD] ? AT(1) : NULL, AT(2), b->n[BATCH], b->n[ALL], b->n[KEPT],
                      b->n[WIDE] * 3, 3);
}
static void run_append(bench *b, const lam_kernels *k) {
    k->append_masked(AT(0), AT(1), AT(2), AT(3), AT(4), b->n[BATCH], b->n[KEPT], b->n[ALL], b->n[PLACES],
                     b->n[WIDE]);
}
static void run_append_backward(bench *b, const lam_kernels *k) {
    k->append_masked_backward(AT(0), AT(1), b->n[ADD], AT(2), AT(3), b->n[BATCH], b->n[KEPT], b->n[ALL],
                              b->n[WIDE]);
}
static void run_place(bench *b, const lam_kernels *k) {
    lam_ranks ranks = ranks_at(b, 1);
    k->place_ranks(AT(0), &ranks, AT(2), b->n[ADD], b->n[BATCH], b->n[WIDE]);
}
static void run_take(bench *b, const lam_kernels *k) {
    lam_ranks ranks = ranks_at(b, 1);
    k->take_ranks(AT(0), &ranks, AT(2), b->n[ADD], b->n[BATCH], b->n[WIDE]);
}
static void run_position_gradient(bench *b, const lam_kernels *k) {
    k->position_gradient(AT(0), b->n[ADD] ? AT(1) : NULL, AT(2), b->n[BATCH], b->n[ALL], b->n[PLACES],
                         b->n[WIDE]);
}
static void run_copy(bench *b, const lam_kernels *k) {
    k->copy_rows(AT(0), b->n[KEPT], b->n[FIRST], AT(1), b->n[ALL], b->n[SKIPPED], b->n[BATCH], b->n[WIDE],
                 b->n[ADD]);
}

static void tokens(bench *b) {
    static const int64_t sizes[][5] = {/* batch, kept, tokens, places, width */
                                       {1, 1, 1, 1, 1},   {3, 5, 17, 17, 33}, {5, 16, 64, 32, 40},
                                       {2, 9, 24, 8, 96}, {19, 3, 13, 13, 8}, {2, 30, 300, 100, 264}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int add = 0; add < 2; add++) {
            int64_t batch = sizes[i][0], kept = sizes[i][1], all = sizes[i][2], places = sizes[i][3],
                    width = sizes[i][4];
            role written = add ? ADDED : WRITTEN;
            memcpy(b->n, sizes[i], sizeof sizes[i]);
            b->n[ADD] = add;
            b->n[FIRST] = b->n[SKIPPED] = 0;

            add_array(b, REAL, READ, batch * kept * width);
            add_array(b, FLOATS, READ, width);
            add_array(b, FLOATS, READ, (1 + places) * width);
            add_ids(b, batch * kept, all);
            add_array(b, REAL, WRITTEN, batch * (kept + 1) * width);
            run(b, "embed_tokens", run_embed);

            add_array(b, REAL, READ, batch * all * width);
            add_array(b, FLOATS, ADDED, width);
            run(b, "batch_sums", run_batch_sums);

            add_array(b, REAL, READ, batch * (kept + 1) * width);
            add_array(b, REAL, READ, all * width);
            add_restore(b, batch, all);
            add_array(b, REAL, WRITTEN, batch * (all + 1) * width);
            run(b, "merge_tokens", run_merge);

            add_array(b, REAL, READ, batch * (all + 1) * width);
            add_restore(b, batch, all);
            add_array(b, REAL, written, batch * (kept + 1) * width);
            add_array(b, REAL, written, all * width);
            run(b, "merge_tokens_backward", run_merge_backward);

            add_array(b, FLOATS, READ, width);
            add_array(b, FLOATS, READ, (1 + all) * width);
            add_array(b, REAL, WRITTEN, all * width);
            run(b, "masked_tokens", run_masked);

            add_array(b, REAL, READ, all * width);
            add_array(b, FLOATS, ADDED, width);
            add_array(b, FLOATS, ADDED, (1 + all) * width);
            run(b, "masked_tokens_backward", run_masked_backward);

            add_array(b, FLOATS, READ, batch * all * width * 3);
            add_ids(b, batch * kept, all);
            add_array(b, REAL, WRITTEN, batch * kept * width * 3);
            run(b, "gather_patches", run_gather);

            add_array(b, REAL, READ, batch * (kept + 1) * width);
            add_array(b, FLOATS, READ, width);
            add_array(b, FLOATS, READ, (1 + places) * width);
            add_ids(b, batch * all, all);
            add_array(b, REAL, WRITTEN, batch * (all + 1) * width);
            run(b, "append_masked", run_append);

            add_array(b, REAL, READ, batch * (all + 1) * width);
            add_array(b, REAL, written, batch * (kept + 1) * width);
            add_array(b, FLOATS, ADDED, width);
            add_array(b, FLOATS, SCRATCH, batch * width);
            run(b, "append_masked_backward", run_append_backward);

            add_array(b, REAL, READ, batch * (all + 1) * width);
            add_ids(b, batch * all, all);
            add_array(b, FLOATS, ADDED, (1 + places) * width);
            run(b, "position_gradient", run_position_gradient);

            for (int64_t first = 0; first + kept <= all && first < 4; first += 3) {
                b->n[FIRST] = first;
                b->n[SKIPPED] = first ? 2 : 0;
                add_array(b, REAL, READ, batch * kept * width);
                add_restore(b, batch, all);
                add_array(b, REAL, written, batch * (b->n[SKIPPED] + all) * width);
                run(b, "place_ranks", run_place);
                add_array(b, REAL, READ, batch * (b->n[SKIPPED] + all) * width);
                add_restore(b, batch, all);
                add_array(b, REAL, written, batch * kept * width);
                run(b, "take_ranks", run_take);
            }

            b->n[KEPT] = width + 8; /* strides and starts */
            b->n[ALL] = width + 16;
            b->n[FIRST] = 8;
            b->n[SKIPPED] = add ? 16 : 3;
            add_array(b, REAL, READ, batch * (width + 8));
            add_array(b, REAL, ADDED, batch * (width + 16));
            run(b, "copy_rows", run_copy);
        }
}

static void of_tokens(void **state) { (void)state, both_types(tokens); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
