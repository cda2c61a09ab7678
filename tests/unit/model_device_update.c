/* The update on a device (model/cuda/update.h) against the one on the host: every rule, with and without an average, recorded
 * once and replayed over steps that count and steps that do not; what a skipped step leaves, what is said of it; state that
 * goes to the host and comes back. Runs where LAMELLA_TEST_DEVICE names a device. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/rng.h"
#include "model/cuda/update.h"
#include "model/internal.h"
#include "tests/unit/device.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* One trainer on the host, one on the device. */
typedef struct bench {
    const lam_backend *device;
    const lam_cuda_updates *f;
    lam_parameters *host, *away;
    lam_optimizer_state state;
    float *average, *arena[2], *away_average; /* the latter: read back */
    lam_cuda_update *update;
    lam_recording *step;
    float *loss; /* on the device */
    lam_cuda_update_outcome *outcome;
    int64_t updates, skipped, skipped_in_row;
    bool bf16;
} bench;

typedef struct variant {
    const char *rule;
    bool bf16;
} variant;

static lam_parameters *make_parameters(void) {
    lam_parameters *p;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_add(p, "vit.position", 1, (int64_t[]){77}, LAM_INIT_FROZEN, 0, true));
    ok(lam_parameters_add(p, "vit.patch_embed.weight", 2, (int64_t[]){30, 301}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(p, "vit.layer.0.bias", 1, (int64_t[]){33}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_add(p, "vit.layer.0.wide.weight", 2, (int64_t[]){17, 41}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(p, "vit.layer.0.tall.weight", 2, (int64_t[]){64, 24}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(p, "vit.layer.0.in_proj.weight", 2, (int64_t[]){35, 9}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(p, "vit.layer.0.in_proj.bias", 1, (int64_t[]){35}, LAM_INIT_ZERO, 0, false));
    ok(lam_parameters_add(p, "vit.norm.weight", 1, (int64_t[]){1}, LAM_INIT_ONE, 0, false));
    ok(lam_parameters_layout(p, 5));
    for (int64_t i = 0; i < p->entries; i++) p->entry[i].lr_scale = i % 2 ? 0.5 : 1;
    return p;
}

static lam_cuda_range held_range(const lam_parameters *p) {
    int64_t first = lam_parameters_find(p, "vit.layer.0.in_proj.bias")->offset;
    return (lam_cuda_range){first + 8, first + 35};
}

static void record_step(bench *b) {
    ok(lam_backend_record(b->device));
    b->f->add_loss(b->update, b->loss);
    b->f->add_loss(b->update, b->loss + 1);
    ok(b->f->enqueue(b->update));
    ok(lam_backend_recorded(b->device, &b->step));
}

static bench open_bench(variant v, bool average) {
    bench b = {
        .host = make_parameters(), .away = make_parameters(), .device = test_backend(), .bf16 = v.bf16};
    lam_cuda_updates_function *get =
        (lam_cuda_updates_function *)lam_backend_function(b.device, "lam_cuda_updates_get");
    assert_non_null(get);
    b.f = get();
    ok(lam_parameters_place(b.away, b.device));
    lam_cuda_range held = held_range(b.away);
    lam_cuda_update_options options = {.parameters = b.away,
                                       .optimizer = lam_optimizer_find(v.rule),
                                       .average = average,
                                       .held = &held,
                                       .held_count = 1,
                                       .bf16 = v.bf16};
    assert_true(b.f->bytes(&options) >= lam_optimizer_bytes(options.optimizer, b.away) / 2);
    ok(b.f->open(&b.update, &options));
    ok(lam_optimizer_open(&b.state, options.optimizer, b.host));
    int64_t n = b.host->trainable;
    for (int k = 0; k < 2; k++) ok(lam_alloc_array((void **)&b.arena[k], n, sizeof(float)));
    ok(lam_alloc_array((void **)&b.away_average, n, sizeof(float)));
    if (average) ok(lam_alloc_array((void **)&b.average, n, sizeof(float)));
    ok(b.device->allocate((void **)&b.loss, 2 * sizeof(float)));
    ok(b.device->allocate_pinned((void **)&b.outcome, sizeof *b.outcome));
    record_step(&b);
    return b;
}

static void close_bench(bench *b) {
    lam_backend_forget(b->device, b->step);
    b->f->close(&b->update);
    assert_null(b->update);
    b->f->close(&b->update);
    b->device->release(b->loss);
    b->device->release_pinned(b->outcome);
    lam_optimizer_close(&b->state);
    for (int k = 0; k < 2; k++) lam_free(b->arena[k]);
    lam_free(b->average);
    lam_free(b->away_average);
    lam_parameters_free(b->host);
    lam_parameters_free(b->away);
}

typedef struct step {
    float loss[2];
    double size, clip_norm; /* of the gradients */
    int64_t rows;
    const char *bad[2]; /* parameters with a gradient that is not finite; NULL: none */
} step;

static lam_cuda_update_input input_of(const step *s, int64_t number) {
    return (lam_cuda_update_input){.lr = 1e-2 / (double)(number + 1),
                                   .beta1 = 0.9,
                                   .beta2 = 0.95,
                                   .eps = 1e-8,
                                   .weight_decay = 0.05,
                                   .momentum = 0.95,
                                   .warmup = 4.5,
                                   .clip_norm = s->clip_norm,
                                   .ema = 0.9,
                                   .rows = s->rows};
}

static void draw_gradients(bench *b, const step *s, int64_t number) {
    lam_parameters *p = b->host;
    lam_rng rng = lam_rng_stream(11, LAM_RNG_TEST, (uint64_t)number);
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        for (int64_t k = 0; k < e->count && e->init != LAM_INIT_FROZEN; k++)
            p->gradients[e->offset + k] = (float)(s->size * (2 * lam_rng_uniform(&rng) - 1));
    }
    for (int k = 0; k < 2; k++)
        if (s->bad[k]) {
            const lam_parameter_entry *e = lam_parameters_find(p, s->bad[k]);
            p->gradients[e->offset + e->count - 1] = k ? NAN : INFINITY;
        }
    ok(b->device->write(b->away->device_gradients, p->gradients, (size_t)p->trainable * sizeof(float)));
}

/* What train/trainer.c does. Returns what the device should say. */
static lam_cuda_update_outcome step_of_host(bench *b, const step *s, int64_t number) {
    lam_parameters *p = b->host;
    lam_cuda_update_input in = input_of(s, number);
    lam_cuda_update_outcome o = {.loss = (double)s->loss[0] + (double)s->loss[1],
                                 .rate = in.lr,
                                 .first_non_finite = LAM_CUDA_NO_ENTRY};
    lam_cuda_range held = held_range(p);
    for (int64_t i = held.begin; i < held.end; i++) p->gradients[i] = 0;
    o.gradient_norm = sqrt(lam_sum_of_squares(p->gradients, 0, p->trainable));
    o.skipped_now = s->rows == 0 || !isfinite(o.loss) || !isfinite(o.gradient_norm);
    if (o.skipped_now) {
        const char *name = lam_first_non_finite(p, p->gradients);
        if (name) o.first_non_finite = (int32_t)(lam_parameters_find(p, name) - p->entry);
        b->skipped++;
        b->skipped_in_row++;
    } else {
        lam_update u = {in.lr,       in.beta1,  in.beta2, in.eps,      in.weight_decay,
                        in.momentum, in.warmup, 1,        ++b->updates};
        if (in.clip_norm > 0 && o.gradient_norm > in.clip_norm)
            u.gradient_scale = in.clip_norm / o.gradient_norm;
        o.rate = lam_optimizer_rate(b->state.optimizer, &u);
        b->skipped_in_row = 0;
        ok(lam_optimizer_step(&b->state, p, &u, 0, p->trainable));
        if (b->average) lam_average_step(b->average, p, in.ema, u.t, 0, p->trainable);
    }
    o.updates = b->updates;
    o.skipped = b->skipped;
    o.skipped_in_row = b->skipped_in_row;
    return o;
}

static void step_of_device(bench *b, const step *s, int64_t number) {
    lam_cuda_update_input in = input_of(s, number);
    ok(b->device->write(b->loss, s->loss, sizeof s->loss));
    b->f->set(b->update, &in);
    memset(&in, 0xff, sizeof in);
    ok(lam_backend_replay(b->device, b->step));
    b->f->outcome(b->update, b->outcome);
    ok(b->device->synchronise());
    ok(b->device->error());
}

static bool same_number(double a, double b, double bound) {
    return isfinite(a) ? fabs(a - b) <= bound * fabs(a) : !isfinite(b);
}

static void compare_outcome(const lam_cuda_update_outcome *want, const lam_cuda_update_outcome *is,
                            int64_t number) {
    if (!same_number(want->loss, is->loss, 1e-12) ||
        !same_number(want->gradient_norm, is->gradient_norm, 1e-12) ||
        !same_number(want->rate, is->rate, 1e-12) || want->skipped_now != is->skipped_now ||
        want->updates != is->updates || want->skipped != is->skipped ||
        want->skipped_in_row != is->skipped_in_row || want->first_non_finite != is->first_non_finite)
        fail_msg("step %lld: loss %g norm %.15g rate %g skipped %d entry %d, not %g %.15g %g %d %d",
                 (long long)number, is->loss, is->gradient_norm, is->rate, is->skipped_now,
                 is->first_non_finite, want->loss, want->gradient_norm, want->rate, want->skipped_now,
                 want->first_non_finite);
}

static void compare(const char *rule, const char *what, int64_t number, const lam_parameters *p,
                    const float *want, const float *is, double bound) {
    for (int64_t i = 0; i < p->trainable; i++)
        if (!(fabs((double)is[i] - (double)want[i]) <= bound * fmax(1, fabs((double)want[i]))))
            fail_msg("%s, step %lld: %s[%lld] is %.9g, not %.9g", rule, (long long)number, what, (long long)i,
                     (double)is[i], (double)want[i]);
}

static void compare_state(bench *b, int64_t number) {
    const lam_optimizer *rule = b->state.optimizer;
    double bound = strcmp(rule->name, "muon") ? 1e-6 : 2e-5;
    /* In bfloat16 an element of a direction is off by at most 40 x 2^-8 of their root mean square, which the rule makes 0.2 lr: 0.03 lr
     * an update, where all rates together are 0.02. */
    double bound_of_weights = b->bf16 ? 1e-3 : bound;
    ok(lam_parameters_pull(b->away));
    ok(b->f->pull(b->update, b->arena, b->away_average));
    compare(rule->name, "weight", number, b->host, b->host->weights, b->away->weights, bound_of_weights);
    for (int k = 0; k < rule->arenas; k++)
        compare(rule->name, rule->arena_names[k], number, b->host, b->state.arena[k], b->arena[k], bound);
    if (b->average)
        compare(rule->name, "average", number, b->host, b->average, b->away_average, bound_of_weights);
    assert_memory_equal(b->host->weights + b->host->trainable, b->away->weights + b->host->trainable,
                        (size_t)(b->host->count - b->host->trainable) * sizeof(float));
}

/* A step that is skipped writes nothing: the bits before are kept here. */
static float *all_bits(bench *b) {
    int64_t n = b->host->trainable;
    float *bits;
    ok(lam_alloc_array((void **)&bits, 4 * n, sizeof *bits));
    ok(lam_parameters_pull(b->away));
    ok(b->f->pull(b->update, b->arena, b->away_average));
    memcpy(bits, b->away->weights, (size_t)n * sizeof *bits);
    for (int k = 0; k < b->state.optimizer->arenas; k++)
        memcpy(bits + (k + 1) * n, b->arena[k], (size_t)n * sizeof *bits);
    if (b->average) memcpy(bits + 3 * n, b->away_average, (size_t)n * sizeof *bits);
    return bits;
}

static const step steps[] = {
    {{0.5f, 0.25f}, 0.1, 0, 32, {NULL}},
    {{0.5f, 0.5f}, 0.1, 1.0, 32, {NULL}}, /* clipped */
    {{0.5f, 0.5f},
     0.1,
     1.0,
     32,
     {"vit.layer.0.tall.weight", "vit.norm.weight"}}, /* the earlier one is named */
    {{0.5f, 0.5f}, 0.1, 1.0, 32, {NULL, "vit.norm.weight"}},
    {{0.5f, 0.5f}, 0.1, 1.0, 0, {NULL}},
    {{0.5f, INFINITY}, 0.1, 1.0, 32, {NULL}},
    {{0.1f, 0.2f}, 1e-4, 1.0, 8, {NULL}}, /* below the bound of clipping */
    {{NAN, 0.2f}, 1e-4, 1.0, 8, {NULL}},
    {{0.1f, 0.2f}, 3, 1e3, 8, {NULL}},
    {{0.1f, 0.2f}, 0, 1.0, 8, {NULL}},                      /* no gradient at all */
    {{0.1f, 0.2f}, 0.3, 0, 8, {"vit.layer.0.in_proj.bias"}} /* where it is held: it does not count */
};
enum { STEPS = sizeof steps / sizeof *steps };

static void one_rule(variant v, bool average) {
    bench b = open_bench(v, average);
    for (int64_t i = 0; i < STEPS; i++) {
        float *before = all_bits(&b);
        draw_gradients(&b, &steps[i], i);
        lam_cuda_update_outcome want = step_of_host(&b, &steps[i], i);
        step_of_device(&b, &steps[i], i);
        compare_outcome(&want, b.outcome, i);
        compare_state(&b, i);
        float *after = all_bits(&b);
        if (want.skipped_now)
            assert_memory_equal(before, after, (size_t)(4 * b.host->trainable) * sizeof(float));
        lam_free(before);
        lam_free(after);
    }
    assert_int_equal(b.outcome->skipped, 5);
    close_bench(&b);
}

static const variant rules[] = {{"adamw", false}, {"lion", false}, {"lamb", false},
                                {"muon", false},  {"muon", true},  {"schedulefree", false}};
enum { RULES = sizeof rules / sizeof *rules };

static void as_on_the_host(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    for (int k = 0; k < RULES; k++)
        for (int average = 0; average < 2; average++) one_rule(rules[k], average);
}

/* Another update that takes over the state goes on with the same bits. */
static void state_moves(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    for (int k = 0; k < RULES; k++) {
        bench one = open_bench(rules[k], true), other = open_bench(rules[k], true);
        for (int64_t i = 0; i < 2; i++) {
            draw_gradients(&one, &steps[i], i);
            step_of_device(&one, &steps[i], i);
        }
        ok(lam_parameters_pull(one.away));
        ok(one.f->pull(one.update, one.arena, one.away_average));
        memcpy(other.away->weights, one.away->weights, (size_t)one.away->count * sizeof(float));
        ok(lam_parameters_push(other.away));
        ok(other.f->push(other.update, one.arena, one.away_average, one.outcome->updates, 7, 3));
        for (int64_t i = 2; i < 7; i += 4) { /* skipped, then done */
            draw_gradients(&one, &steps[i], i);
            step_of_device(&one, &steps[i], i);
            draw_gradients(&other, &steps[i], i);
            step_of_device(&other, &steps[i], i);
        }
        float *a = all_bits(&one), *b = all_bits(&other);
        assert_memory_equal(a, b, (size_t)(4 * one.host->trainable) * sizeof(float));
        assert_int_equal(other.outcome->updates, 3);
        assert_int_equal(other.outcome->skipped, 8);
        assert_int_equal(other.outcome->skipped_in_row, 0);
        lam_free(a);
        lam_free(b);
        close_bench(&one);
        close_bench(&other);
    }
}

/* A step is given before the one before it is done; each says when its outcome is there. */
static void steps_under_way(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    bench b = open_bench((variant){"adamw", false}, false);
    lam_cuda_update_outcome *both, wanted[4];
    ok(b.device->allocate_pinned((void **)&both, 2 * sizeof *both));
    memset(both, 0xff, 2 * sizeof *both);
    draw_gradients(&b, &steps[0], 0);
    ok(b.device->write(b.loss, steps[0].loss, sizeof steps[0].loss));
    for (int i = 0; i < 4; i++) {
        bool reached = false;
        wanted[i] = step_of_host(&b, &steps[0], i);
        lam_cuda_update_input in = input_of(&steps[0], i);
        if (i >= 2) {
            while (!reached) ok(lam_backend_reached(b.device, i % 2, &reached));
            compare_outcome(&wanted[i - 2], &both[i % 2], i - 2);
        }
        b.f->set(b.update, &in);
        ok(lam_backend_replay(b.device, b.step));
        b.f->outcome(b.update, &both[i % 2]);
        ok(lam_backend_mark(b.device, i % 2));
    }
    for (int i = 2; i < 4; i++) {
        ok(lam_backend_await(b.device, i % 2));
        compare_outcome(&wanted[i], &both[i % 2], i);
    }
    b.device->release_pinned(both);
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_on_the_host), cmocka_unit_test(state_moves),
                                       cmocka_unit_test(steps_under_way)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
