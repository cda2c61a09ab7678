/* Copies of weights in bfloat16 that the update writes (model/cuda/update.h): recorded steps with them have the bits of steps that
 * make the copies anew before each forward pass; which maps they are made for; what `push` does after a pass that was not
 * recorded. Runs where LAMELLA_TEST_DEVICE names a device. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/cuda/update.h"
#include "model/graph.h"
#include "model/internal.h"
#include "model/ops.h"
#include "tests/unit/device.h"

enum { BATCH = 3, PLACES = 9, STEPS = 3 };

typedef struct trainer {
    lam_parameters *p;
    lam_graph *g;
    lam_tensor *loss;
    lam_optimizer_state state;
    const lam_cuda_updates *f;
    lam_cuda_update *update;
    lam_recording *step;
} trainer;

typedef struct sort {
    const char *rule;
    int64_t width;
    bool at_random, again; /* the weights of the first map in another map of two parts */
} sort;

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static void add(lam_parameters *p, const char *name, int64_t out, int64_t in) {
    ok(lam_parameters_add(p, name, in ? 2 : 1, (int64_t[]){out, in}, LAM_INIT_NORMAL, 0.3, in > 0));
}

/* A map of one part, one of three, GELU, and two branches with scale, on patches of 16 pixels. */
static void build(trainer *t, const sort *s) {
    static const char *const square[] = {"q.weight", "k.weight", "v.weight",
                                         "m.weight", "a.weight", "b.weight"},
                             *const row[] = {"b0", "bq", "bk", "bv", "bm", "ba", "bb", "gamma"};
    lam_tensor *sample_loss, *w[6], *b[8];
    ok(lam_parameters_create(&t->p));
    add(t->p, "patch_embed.weight", s->width, 16);
    for (int k = 0; k < 6; k++) add(t->p, square[k], s->width, s->width);
    for (int k = 0; k < 8; k++) add(t->p, row[k], s->width, 0);
    add(t->p, "last.weight", 16, s->width);
    add(t->p, "b1", 16, 0);
    ok(lam_parameters_layout(t->p, 3));
    ok(lam_graph_create(&t->g, t->p, test_backend()));
    lam_graph *g = t->g;
    lam_graph_set_activation(g, LAM_BF16);
    if (s->at_random) lam_graph_set_stochastic_rounding(g, 5);
    lam_tensor *pixels = lam_input(g, "pixels", LAM_F32, 4, (int64_t[]){BATCH, 1, 12, 12}),
               *mask = lam_input(g, "mask", LAM_F32, 2, (int64_t[]){BATCH, PLACES}),
               *weight = lam_input(g, "weight", LAM_F32, 1, (int64_t[]){BATCH});
    for (int k = 0; k < 6; k++) w[k] = lam_parameter(g, square[k]);
    for (int k = 0; k < 8; k++) b[k] = lam_parameter(g, row[k]);
    lam_standardise how = {.patch_size = 4};
    lam_tensor *target = lam_patches(g, pixels, &how), *x = lam_gather_patches(g, target, NULL, 1);
    x = lam_linear(g, x, lam_parameter(g, "patch_embed.weight"), b[0]);
    lam_tensor *qkv = lam_linear_qkv(g, x, w[0], b[1], w[1], b[2], w[2], b[3]);
    if (s->again) lam_linear(g, x, w[1], NULL);
    lam_tensor *a = lam_attention(g, qkv, 1, 0), *m = lam_linear_gelu(g, x, w[3], b[4]);
    x = lam_parallel_projection(g, a, w[4], b[5], m, w[5], b[6], b[7], NULL);
    x = lam_linear(g, x, lam_parameter(g, "last.weight"), lam_parameter(g, "b1"));
    t->loss = lam_masked_loss(g, x, target, mask, weight, false, &sample_loss);
    ok(lam_graph_differentiate(g, t->loss));
    ok(lam_graph_plan(g));
    for (int64_t i = 0; i < lam_tensor_count(pixels); i++)
        ((float *)lam_tensor_data(pixels))[i] = (float)sin(0.77 * (double)i + 0.001 * (double)(i * i));
    for (int i = 0; i < BATCH * PLACES; i++) ((float *)lam_tensor_data(mask))[i] = (float)(i % 3 != 1);
    for (int i = 0; i < BATCH; i++) ((float *)lam_tensor_data(weight))[i] = 1;
}

/* Maps whose copies the update writes. */
static int marked(const trainer *t, const char *op) {
    int64_t count;
    int found = 0;
    lam_node *const *nodes = lam_graph_nodes(t->g, &count);
    for (int64_t i = 0; i < count; i++)
        found += nodes[i]->packed_by_update && !strcmp(nodes[i]->op->name, op);
    return found;
}

static void record(trainer *t) {
    ok(lam_backend_record(test_backend()));
    lam_graph_set_recording(t->g, true);
    lam_parameters_zero_gradients(t->p);
    ok(lam_graph_forward(t->g));
    t->f->add_loss(t->update, lam_tensor_device(t->loss));
    ok(lam_graph_backward(t->g));
    ok(t->f->enqueue(t->update));
    lam_graph_set_recording(t->g, false);
    ok(lam_backend_recorded(test_backend(), &t->step));
}

/* anew: the copies are made before each forward pass. */
static trainer open_trainer(const sort *s, bool anew) {
    trainer t = {0};
    build(&t, s);
    t.f = ((lam_cuda_updates_function *)lam_backend_function(test_backend(), "lam_cuda_updates_get"))();
    ok(lam_optimizer_open(&t.state, lam_optimizer_find(s->rule), t.p));
    lam_cuda_update_options options = {
        .parameters = t.p, .optimizer = t.state.optimizer, .graphs = &t.g, .graph_count = 1};
    ok(t.f->open(&t.update, &options));
    int64_t count;
    lam_node *const *nodes = lam_graph_nodes(t.g, &count);
    for (int64_t i = 0; i < count && anew; i++) nodes[i]->packed_by_update = false;
    record(&t);
    return t;
}

static void close_trainer(trainer *t) {
    lam_backend_forget(test_backend(), t->step);
    t->f->close(&t->update);
    lam_optimizer_close(&t->state);
    lam_graph_free(t->g);
    lam_parameters_free(t->p);
}

static void replay(trainer *t, int64_t step) {
    lam_cuda_update_input in = {.lr = 0.05 / (double)(step + 1),
                                .beta1 = 0.9,
                                .beta2 = 0.95,
                                .eps = 1e-8,
                                .weight_decay = 0.05,
                                .momentum = 0.95,
                                .warmup = 1,
                                .rows = step == 1 ? 0 : BATCH}; /* the second is skipped */
    lam_graph_set_step(t->g, step);
    ok(lam_graph_send(t->g));
    t->f->set(t->update, &in);
    ok(lam_backend_replay(test_backend(), t->step));
    ok(test_backend()->synchronise());
    ok(test_backend()->error());
}

static void same_weights(trainer *a, trainer *b, const sort *s) {
    ok(lam_parameters_pull(a->p));
    ok(lam_parameters_pull(b->p));
    for (int64_t i = 0; i < a->p->entries; i++) {
        const lam_parameter_entry *e = &a->p->entry[i];
        if (memcmp(a->p->weights + e->offset, b->p->weights + e->offset, (size_t)e->count * sizeof(float)) !=
            0)
            fail_msg("%s, width %d: %s differs", s->rule, (int)s->width, e->name);
    }
}

/* Steps with and without. */
static void compare(const sort *s) {
    trainer with = open_trainer(s, false), anew = open_trainer(s, true);
    ok(lam_parameters_pull(with.p));
    float first = with.p->weights[lam_parameters_find(with.p, "last.weight")->offset];
    for (int64_t step = 0; step < STEPS; step++) {
        replay(&with, step);
        replay(&anew, step);
        same_weights(&with, &anew, s);
    }
    assert_true(with.p->weights[lam_parameters_find(with.p, "last.weight")->offset] != first);
    close_trainer(&with);
    close_trainer(&anew);
}

static void the_same_bits(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const char *const rules[] = {"adamw", "lion", "lamb", "muon", "schedulefree"};
    for (int k = 0; k < 5; k++)
        for (int64_t width = 6; width <= 72;
             width += 33) /* odd sizes; parts that end within four; longer than an item */
            for (int again = 0; again < 2; again++) compare(&(sort){rules[k], width, false, again});
    compare(&(sort){"adamw", 72, true, false});
}

static void where_the_rule_can(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const struct {
        sort s;
        int linear, qkv, gelu;
    } cases[] = {{{"adamw", 72, false, false}, 2, 1, 1}, {{"lamb", 72, false, false}, 2, 1, 1},
                 {{"muon", 72, false, false}, 1, 0, 0},  {{"adamw", 72, true, false}, 0, 0, 0},
                 {{"adamw", 72, false, true}, 2, 1, 1}, /* the same weights in another place: by hand there */
                 {{"adamw", 39, false, false}, 2, 0, 1}}; /* 39 x 39 weights of k begin within four */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        trainer t = open_trainer(&cases[i].s, false);
        assert_int_equal(marked(&t, "linear"), cases[i].linear);
        assert_int_equal(marked(&t, "linear_qkv"), cases[i].qkv);
        assert_int_equal(marked(&t, "linear_gelu"), cases[i].gelu);
        assert_int_equal(marked(&t, "parallel_projection"), 0);
        close_trainer(&t);
    }
}

/* A pass that is not recorded makes copies of other weights (validation at averaged ones); push goes back to those of the training. */
static void pushed_after_other_weights(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    sort s = {"adamw", 72, false, false};
    trainer a = open_trainer(&s, false), b = open_trainer(&s, true);
    replay(&a, 0);
    replay(&b, 0);
    ok(lam_parameters_pull(a.p));
    ok(a.f->pull(a.update, a.state.arena, NULL));
    float *kept = malloc((size_t)a.p->count * sizeof *kept);
    memcpy(kept, a.p->weights, (size_t)a.p->count * sizeof *kept);
    for (int64_t i = 0; i < a.p->trainable; i++) a.p->weights[i] *= -1.5f;
    ok(lam_graph_forward(a.g));
    memcpy(a.p->weights, kept, (size_t)a.p->count * sizeof *kept);
    ok(lam_parameters_push(a.p));
    ok(a.f->push(a.update, a.state.arena, NULL, 1, 0, 0));
    for (int64_t step = 1; step < STEPS; step++) {
        replay(&a, step);
        replay(&b, step);
        same_weights(&a, &b, &s);
    }
    free(kept);
    close_trainer(&a);
    close_trainer(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_same_bits), cmocka_unit_test(where_the_rule_can),
                                       cmocka_unit_test(pushed_after_other_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
