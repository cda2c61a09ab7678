/* Masks of every mode: exact counts, frequencies, no dependence on the batch; partial decoding, and the operations that carry it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "model/graph.h"
#include "model/ops.h"
#include "tests/unit/device.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

typedef struct masks {
    lam_parameters *parameters;
    lam_graph *graph;
    lam_tensor *step, *ids, *noise, *ids_keep, *ids_restore, *mask, *ids_decoded, *loss_mask;
    int64_t batch, tokens, keep, decoded;
} masks;

static masks open_masks(const lam_mask *how, int64_t batch, int64_t decoded) {
    masks m = {.batch = batch,
               .tokens = how->channels * how->grid * how->grid,
               .keep = how->keep,
               .decoded = decoded ? decoded : how->channels * how->grid * how->grid};
    ok(lam_parameters_create(&m.parameters));
    ok(lam_parameters_add(m.parameters, "unused", 1, (int64_t[]){1}, LAM_INIT_ZERO, 0, false));
    ok(lam_parameters_layout(m.parameters, 0));
    ok(lam_graph_create(&m.graph, m.parameters, test_backend()));
    lam_graph *g = m.graph;
    m.step = lam_input(g, "step", LAM_I64, 1, (int64_t[]){1});
    m.ids = lam_input(g, "ids", LAM_I64, 1, (int64_t[]){batch});
    m.noise = lam_keep(g, lam_mask_noise(g, m.step, m.ids, how), "noise");
    lam_mask_plan(g, m.noise, how->keep, &m.ids_keep, &m.ids_restore, &m.mask);
    lam_keep(g, m.ids_keep, "ids_keep");
    lam_keep(g, m.ids_restore, "ids_restore");
    lam_keep(g, m.mask, "mask");
    lam_decode_plan(g, m.ids_restore, m.keep, m.decoded, &m.ids_decoded, &m.loss_mask);
    lam_keep(g, m.ids_decoded, "ids_decoded");
    lam_keep(g, m.loss_mask, "loss_mask");
    ok(lam_graph_plan(g));
    return m;
}

static void close_masks(masks *m) {
    lam_graph_free(m->graph);
    lam_parameters_free(m->parameters);
}

static const float *draw(masks *m, int64_t step, const int64_t *ids) {
    *(int64_t *)lam_tensor_data(m->step) = step;
    memcpy(lam_tensor_data(m->ids), ids, (size_t)m->batch * sizeof *ids);
    ok(lam_graph_forward(m->graph));
    return lam_tensor_data(m->mask);
}

static int64_t count_of(const float *mask, int64_t tokens) {
    int64_t count = 0;
    for (int64_t i = 0; i < tokens; i++) {
        assert_true(mask[i] == 0.0f || mask[i] == 1.0f);
        count += mask[i] != 0.0f;
    }
    return count;
}

/* What every mode must give: of each row the ids are a permutation, the masks agree with them, the counts are exact. */
static void check_rows(const masks *m) {
    const float *mask = lam_tensor_data(m->mask), *loss_mask = lam_tensor_data(m->loss_mask),
                *noise = lam_tensor_data(m->noise);
    const int32_t *keep = lam_tensor_data(m->ids_keep), *restore = lam_tensor_data(m->ids_restore),
                  *decoded = lam_tensor_data(m->ids_decoded);
    for (int64_t b = 0; b < m->batch; b++) {
        int64_t at = b * m->tokens;
        assert_int_equal(count_of(mask + at, m->tokens), m->tokens - m->keep);
        assert_int_equal(count_of(loss_mask + at, m->tokens), m->decoded - m->keep);
        for (int64_t r = 0; r < m->decoded; r++) {
            int32_t n = decoded[b * m->decoded + r];
            assert_in_range(n, 0, m->tokens - 1);
            assert_int_equal(restore[at + n], r);
            if (r < m->keep) assert_int_equal(keep[b * m->keep + r], n);
            assert_true(mask[at + n] == (r < m->keep ? 0.0f : 1.0f));
            assert_true(loss_mask[at + n] == mask[at + n]);
            if (r) assert_true(noise[at + n] >= noise[at + decoded[b * m->decoded + r - 1]]);
        }
        for (int64_t n = 0; n < m->tokens; n++) assert_true(noise[at + n] >= 0.0f && noise[at + n] < 1.0f);
    }
}

static void check_structure(const lam_mask *how, const float *mask) {
    int64_t places = how->grid * how->grid;
    for (int64_t c = 0; c < how->channels; c++) {
        int64_t hidden = count_of(mask + c * places, places);
        if (how->masking == LAM_MASKING_WHOLE_CHANNEL) assert_true(hidden == 0 || hidden == places);
        if (how->masking == LAM_MASKING_PER_CHANNEL || how->masking == LAM_MASKING_BLOCK)
            assert_int_equal(hidden, places - how->keep / how->channels);
        if (how->masking == LAM_MASKING_BLOCK)
            assert_memory_equal(mask, mask + c * places, (size_t)places * sizeof(float));
    }
}

static const lam_mask modes[] = {
    {LAM_MASKING_RANDOM, 1, 5, 6, 1},         {LAM_MASKING_RANDOM, 3, 3, 7, 2},
    {LAM_MASKING_BLOCK, 1, 16, 64, 3},        {LAM_MASKING_BLOCK, 3, 7, 3 * 12, 4},
    {LAM_MASKING_BLOCK, 1, 8, 1, 5},          {LAM_MASKING_BLOCK, 1, 2, 1, 6},
    {LAM_MASKING_PER_CHANNEL, 5, 4, 20, 7},   {LAM_MASKING_WHOLE_CHANNEL, 6, 3, 9, 8},
    {LAM_MASKING_WHOLE_CHANNEL, 2, 1, 1, 9},  {LAM_MASKING_BLOCK, 1, 16, 255, 10},
    {LAM_MASKING_WHOLE_CHANNEL, 5, 2, 12, 11}};
enum { MODES = sizeof modes / sizeof *modes };

static void counts_and_rows(void **state) {
    (void)state;
    for (int k = 0; k < MODES; k++) {
        masks m = open_masks(&modes[k], 3, modes[k].keep + 1);
        for (int64_t step = 0; step < 40; step++) {
            const float *mask = draw(&m, step, (int64_t[]){step, 7000000000LL, 3 * step + 1});
            check_rows(&m);
            for (int64_t b = 0; b < 3; b++) check_structure(&modes[k], mask + b * m.tokens);
        }
        close_masks(&m);
    }
}

/* Every token (or channel) is hidden as often as any other, within five deviations; of the hidden tokens each is decoded as often. */
static void frequencies(void **state) {
    (void)state;
    enum { BATCH = 50, STEPS = 100, DRAWS = BATCH * STEPS };
    for (int k = 0; k < MODES; k++) {
        const lam_mask *how = &modes[k];
        int64_t tokens = how->channels * how->grid * how->grid, hidden_count = tokens - how->keep;
        if (hidden_count < 2) continue;
        masks m = open_masks(how, BATCH, how->keep + hidden_count / 2);
        int64_t *hidden = calloc((size_t)tokens, sizeof *hidden),
                *decoded = calloc((size_t)tokens, sizeof *decoded), ids[BATCH];
        for (int64_t step = 0; step < STEPS; step++) {
            for (int64_t b = 0; b < BATCH; b++) ids[b] = 17 * b;
            const float *mask = draw(&m, step, ids), *loss_mask = lam_tensor_data(m.loss_mask);
            for (int64_t i = 0; i < BATCH * tokens; i++) {
                hidden[i % tokens] += mask[i] != 0.0f;
                decoded[i % tokens] += loss_mask[i] != 0.0f;
            }
        }
        double share = (double)hidden_count / (double)tokens,
               half = (double)(hidden_count / 2) / (double)hidden_count;
        for (int64_t t = 0; t < tokens; t++) {
            double times = (double)hidden[t];
            /* Blocks: only about, because the last one is cut to what is left. */
            double bound = 5 * sqrt(DRAWS * share * (1 - share));
            if (how->masking == LAM_MASKING_BLOCK) bound += 0.15 * DRAWS * fmin(share, 1 - share);
            if (!(fabs(times - DRAWS * share) < bound))
                fail_msg("mode %d: token %d is hidden %g times, not %g", k, (int)t, times, DRAWS * share);
            assert_true(fabs((double)decoded[t] - times * half) < 5 * sqrt(times * half * (1 - half)));
        }
        free(hidden);
        free(decoded);
        close_masks(&m);
    }
}

/* Sides between a hidden and a visible place: few where places are hidden in rectangles. */
static double border(const float *mask, int64_t grid) {
    double sides = 0;
    for (int64_t y = 0; y < grid; y++)
        for (int64_t x = 0; x < grid; x++) {
            if (x) sides += mask[y * grid + x] != mask[y * grid + x - 1];
            if (y) sides += mask[y * grid + x] != mask[(y - 1) * grid + x];
        }
    return sides;
}

static void blocks_are_blocks(void **state) {
    (void)state;
    double sides[2] = {0};
    for (int k = 0; k < 2; k++) {
        lam_mask how = {k ? LAM_MASKING_BLOCK : LAM_MASKING_RANDOM, 1, 16, 128, 3};
        masks m = open_masks(&how, 1, 0);
        for (int64_t step = 0; step < 200; step++)
            sides[k] += border(draw(&m, step, (int64_t[]){5}), 16) / 200;
        close_masks(&m);
    }
    assert_true(sides[0] > 200); /* 480 pairs of neighbours, half of them differ */
    assert_true(sides[1] < 0.4 * sides[0]);
    /* One rectangle of 3 x 3 or 2 x 5... that fills what is wanted: a single piece. */
    lam_mask how = {LAM_MASKING_BLOCK, 1, 4, 15, 3};
    masks m = open_masks(&how, 1, 0);
    assert_int_equal(count_of(draw(&m, 0, (int64_t[]){0}), 16), 1);
    close_masks(&m);
}

/* A mask depends on (seed, step, sample id) alone: not on the row, the batch or its other samples. */
static void independence(void **state) {
    (void)state;
    for (int k = 0; k < MODES; k++) {
        lam_mask how = modes[k];
        masks alone = open_masks(&how, 1, 0), many = open_masks(&how, 4, 0);
        size_t row = (size_t)alone.tokens * sizeof(float);
        float *before = malloc(row);
        bool differs = false, by_step = false, by_seed = false;
        how.seed += 100;
        masks other = open_masks(&how, 1, 0);
        for (int64_t step = 0; step < 30; step++) {
            const float *all = draw(&many, step, (int64_t[]){9, 41, 9, 10});
            const float *noise = lam_tensor_data(many.noise);
            draw(&alone, step, (int64_t[]){9});
            const float *one = lam_tensor_data(alone.mask);
            for (int b = 0; b < 3; b += 2) {
                assert_memory_equal(one, all + b * alone.tokens, row);
                assert_memory_equal(lam_tensor_data(alone.noise), noise + b * alone.tokens, row);
            }
            differs |= memcmp(all, all + alone.tokens, row) != 0;
            by_seed |= memcmp(one, draw(&other, step, (int64_t[]){9}), row) != 0;
            memcpy(before, all, row);
            by_step |= memcmp(before, draw(&many, step + 1, (int64_t[]){9, 41, 9, 10}), row) != 0;
        }
        assert_true(differs && by_step && by_seed);
        free(before);
        close_masks(&alone);
        close_masks(&many);
        close_masks(&other);
    }
}

static void refusals(void **state) {
    (void)state;
    const lam_mask bad[] = {{LAM_MASKING_RANDOM, 1, 4, 17, 0},
                            {LAM_MASKING_RANDOM, 1, 4, 0, 0},
                            {LAM_MASKING_PER_CHANNEL, 3, 2, 4, 0},
                            {LAM_MASKING_WHOLE_CHANNEL, 3, 2, 6, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        lam_parameters *p;
        lam_graph *g;
        ok(lam_parameters_create(&p));
        ok(lam_parameters_layout(p, 0));
        ok(lam_graph_create(&g, p, test_backend()));
        assert_null(lam_mask_noise(g, lam_input(g, "step", LAM_I64, 1, (int64_t[]){1}),
                                   lam_input(g, "ids", LAM_I64, 1, (int64_t[]){1}), &bad[i]));
        assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
        assert_non_null(strstr(lam_last_error(), "cannot be kept"));
        lam_graph_free(g);
        lam_parameters_free(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts_and_rows), cmocka_unit_test(frequencies),
                                       cmocka_unit_test(blocks_are_blocks), cmocka_unit_test(independence),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
