/* Recorded steps with rows of a varying count (model/buckets.c): each alternative gives the gradients of a step that is not
 * recorded, also where a linear map and the LayerNorm that adds up the columns for its bias are in alternatives of their own.
 * Runs where LAMELLA_TEST_DEVICE names a device. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/graph.h"
#include "model/internal.h"
#include "model/ops.h"
#include "tests/unit/device.h"

enum { BATCH = 4, PLACES = 9, WIDTH = 16 };

typedef struct net {
    lam_parameters *p;
    lam_graph *g;
    lam_tensor *pixels, *mask, *weight, *count;
} net;

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* The norm of a linear map of as many patches as count says. apart: with a node of all rows between the two. */
static net make_net(bool apart) {
    net n = {0};
    ok(lam_parameters_create(&n.p));
    static const char *const names[] = {"w0", "b0", "w1", "b1", "w2", "b2", "nw", "nb"};
    for (int k = 0; k < 8; k++)
        ok(lam_parameters_add(n.p, names[k], k < 6 && k % 2 == 0 ? 2 : 1, (int64_t[]){WIDTH, WIDTH}, LAM_INIT_NORMAL,
                              0.3, false));
    ok(lam_parameters_layout(n.p, 3));
    ok(lam_graph_create(&n.g, n.p, test_backend()));
    lam_graph *g = n.g;
    lam_tensor *sample_loss;
    n.pixels = lam_input(g, "pixels", LAM_F32, 4, (int64_t[]){BATCH, 1, 12, 12});
    n.mask = lam_input(g, "mask", LAM_F32, 2, (int64_t[]){BATCH, PLACES});
    n.weight = lam_input(g, "weight", LAM_F32, 1, (int64_t[]){BATCH});
    n.count = lam_input(g, "count", LAM_I64, 1, (int64_t[]){1});
    n.count->likely = 2;
    n.count->spread = 0.9;
    lam_standardise how = {.patch_size = 4};
    lam_tensor *target = lam_patches(g, n.pixels, &how), *x = lam_gather_patches(g, target, NULL, 1),
               *all = lam_gather_patches(g, target, NULL, 1);
    lam_graph_bound_rows(g, x, n.count);
    x = lam_linear(g, x, lam_parameter(g, "w0"), lam_parameter(g, "b0"));
    if (apart) lam_linear(g, all, lam_parameter(g, "w1"), lam_parameter(g, "b1"));
    x = lam_layernorm(g, x, lam_parameter(g, "nw"), lam_parameter(g, "nb"), 1e-6);
    x = lam_linear(g, x, lam_parameter(g, "w2"), lam_parameter(g, "b2"));
    ok(lam_graph_differentiate(g, lam_masked_loss(g, x, target, n.mask, n.weight, false, &sample_loss)));
    ok(lam_graph_plan(g));
    for (int64_t i = 0; i < lam_tensor_count(n.pixels); i++)
        ((float *)lam_tensor_data(n.pixels))[i] = (float)sin(0.77 * (double)i + 0.001 * (double)(i * i));
    for (int i = 0; i < BATCH * PLACES; i++) ((float *)lam_tensor_data(n.mask))[i] = (float)(i % 3 != 1);
    return n;
}

static void set_count(net *n, int64_t count) {
    *(int64_t *)lam_tensor_data(n->count) = count;
    for (int i = 0; i < BATCH; i++) ((float *)lam_tensor_data(n->weight))[i] = i < count;
}

static void drop_net(net *n) {
    lam_graph_free(n->g);
    lam_parameters_free(n->p);
}

static void each_alternative(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    for (int apart = 0; apart < 2; apart++) {
        net direct = make_net(apart), recorded = make_net(apart);
        lam_recording *step;
        ok(lam_parameters_push(recorded.p));
        ok(lam_graph_send(recorded.g));
        lam_graph_set_recording(recorded.g, true);
        ok(lam_backend_record(test_backend()));
        ok(lam_graph_forward(recorded.g));
        ok(lam_graph_backward(recorded.g));
        ok(lam_backend_recorded(test_backend(), &step));
        for (int64_t count = 1; count <= BATCH; count++) {
            set_count(&direct, count);
            lam_parameters_zero_gradients(direct.p);
            ok(lam_graph_forward(direct.g));
            ok(lam_graph_backward(direct.g));
            set_count(&recorded, count);
            ok(lam_graph_send(recorded.g));
            ok(lam_backend_replay(test_backend(), step));
            ok(lam_parameters_pull_gradients(recorded.p));
            for (int64_t e = 0; e < direct.p->entries; e++) {
                const lam_parameter_entry *entry = &direct.p->entry[e];
                const float *a = direct.p->gradients + entry->offset, *b = recorded.p->gradients + entry->offset;
                double off = 0, norm = 0;
                for (int64_t i = 0; i < entry->count; i++) {
                    off += pow((double)a[i] - (double)b[i], 2);
                    norm += pow((double)a[i], 2);
                }
                if (!(sqrt(off) <= 1e-5 * sqrt(norm)))
                    fail_msg("%d samples, %s: %s is off by %g of %g", (int)count, apart ? "apart" : "together",
                             entry->name, sqrt(off), sqrt(norm));
            }
        }
        lam_backend_forget(test_backend(), step);
        drop_net(&direct);
        drop_net(&recorded);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_alternative)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
