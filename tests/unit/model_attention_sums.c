/* The gradients of the biases of linear maps whose output attention alone takes: the sums over all rows of what attention writes
 * as the gradient of that output, read between the two backward rules. On a device in bfloat16 they come from attention's
 * kernels, before rounding; that they do shows in the room that the node asks for. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "model/ops.h"
#include "tests/unit/activation.h"
#include "tests/unit/device.h"

enum { FEATURES = 8 };

/* How q, k and v come about. */
typedef enum kind {
    PARTS,     /* linear_qkv */
    ONE_MAP,   /* linear with one bias for all three */
    CROSS,     /* linear and linear_kv */
    CROSS_MAP, /* linear and linear */
    ADDED,     /* linear_qkv, whose output a second attention takes: gradients are added */
    NORMED,    /* linear_qkv, whose queries and keys attention normalises */
    NO_BIAS
} kind;

/* Biases without a gradient: those of keys; all; those of queries. */
typedef enum frozen { NONE, KEYS, ALL, QUERIES } frozen;

typedef struct sums_case {
    const char *name;
    kind kind;
    int64_t batch, queries, keys, heads, head_dim;
    bool masked;
    frozen frozen;
    int64_t actual; /* samples of a bounded batch; 0: it is not bounded; < 0: only that of queries is */
    int taken;      /* on a device in bfloat16: bit k: of input k */
} sums_case;

static const sums_case cases[] = {
    {"one token", PARTS, 2, 1, 1, 3, 32, false, NONE, 0, 1},
    {"50 tokens, head_dim 5", PARTS, 2, 50, 50, 2, 5, false, NONE, 0, 1},
    {"65 tokens, head_dim 64", PARTS, 2, 65, 65, 2, 64, false, NONE, 0, 1},
    {"257 tokens, head_dim 32", PARTS, 1, 257, 257, 3, 32, false, NONE, 0, 1},
    {"1025 tokens, head_dim 32", PARTS, 1, 1025, 1025, 1, 32, false, NONE, 0, 1},
    {"65 tokens, head_dim 80", ONE_MAP, 1, 65, 65, 1, 80, false, NONE, 0, 1},
    {"51 tokens, head_dim 104", PARTS, 1, 51, 51, 2, 104, false, NONE, 0, 1},
    {"50 tokens, head_dim 128", PARTS, 2, 50, 50, 1, 128, false, NONE, 0, 1},
    {"33 tokens, head_dim 16", ONE_MAP, 2, 33, 33, 2, 16, true, NONE, 0, 1},
    {"33 tokens, head_dim 8", PARTS, 2, 33, 33, 2, 8, false, NONE, 0, 1},
    {"heads share a block", PARTS, 16, 17, 17, 8, 32, true, NONE, 0, 1},
    {"a block a head", PARTS, 6, 65, 65, 8, 64, false, NONE, 0, 1},
    {"cross", CROSS, 2, 33, 130, 2, 32, false, NONE, 0, 3},
    {"cross, few keys", CROSS, 2, 193, 17, 2, 16, false, NONE, 0, 3},
    {"cross, streamed", CROSS, 1, 67, 1025, 1, 64, true, NONE, 0, 3},
    {"cross, wide", CROSS, 1, 40, 70, 1, 80, false, NONE, 0, 3},
    {"cross, odd", CROSS_MAP, 2, 19, 35, 2, 7, true, NONE, 0, 3},
    {"keys frozen", PARTS, 2, 17, 17, 2, 32, false, KEYS, 0, 1},
    {"all frozen", PARTS, 2, 17, 17, 2, 32, false, ALL, 0, 0},
    {"cross, queries frozen", CROSS, 2, 17, 20, 2, 32, false, QUERIES, 0, 2},
    {"bounded", PARTS, 3, 35, 35, 2, 32, false, NONE, 2, 1},
    {"cross, bounded", CROSS, 3, 20, 35, 2, 32, true, NONE, 2, 3},
    {"cross, queries bounded", CROSS, 3, 20, 35, 2, 32, false, NONE, -2, 1},
    {"added", ADDED, 2, 40, 40, 2, 32, false, NONE, 0, 0},
    {"no bias", NO_BIAS, 2, 40, 40, 2, 32, false, NONE, 0, 0},
    {"normed", NORMED, 2, 65, 65, 2, 64, false, NONE, 0, 1},
    {"normed, heads share a block", NORMED, 16, 17, 17, 8, 32, true, NONE, 0, 1},
    {"normed, head_dim 104", NORMED, 1, 51, 51, 2, 104, true, NONE, 0, 1},
    {"normed, bounded", NORMED, 3, 35, 35, 2, 32, false, NONE, 2, 1},
    {"normed apart", NORMED, 2, 33, 33, 2, 5, true, NONE, 0, 0},
    {"normed apart, 1025 tokens", NORMED, 1, 1025, 1025, 1, 64, false, NONE, 0, 0},
};

static bool is_cross(const sums_case *c) { return c->kind == CROSS || c->kind == CROSS_MAP; }
static bool is_frozen(const sums_case *c, char part) {
    return c->frozen == ALL || (c->frozen == KEYS && part == 'k') || (c->frozen == QUERIES && part == 'q');
}

/* ---- what lies between attention's backward rule and that of the maps ---- */

enum { MOST_SUMS = 3 * 8 * 128 };

/* Of the gradients of attention's inputs: of each column the sum, the sum of squares, that of absolute values. */
static struct {
    lam_tensor *of[2];
    int64_t rows[2];
    double sum[2][MOST_SUMS], squares[2][MOST_SUMS], size[2][MOST_SUMS];
} seen;

static lam_status look(lam_node *node) {
    for (int k = 0; k < 2 && seen.of[k]; k++) {
        int64_t width = lam_tensor_width(seen.of[k]);
        float *values = malloc((size_t)seen.of[k]->count * sizeof *values);
        assert_true(width <= MOST_SUMS);
        lam_tensor_read_gradient(seen.of[k], values);
        for (int64_t i = 0; i < width; i++) {
            seen.sum[k][i] = seen.squares[k][i] = seen.size[k][i] = 0;
            for (int64_t r = 0; r < seen.rows[k]; r++) {
                double x = (double)values[r * width + i];
                seen.sum[k][i] += x;
                seen.squares[k][i] += x * x;
                seen.size[k][i] += fabs(x);
            }
        }
        free(values);
    }
    return cast_backward(node);
}
static const lam_op look_op = {.name = "look", .forward = cast_forward, .backward = look};

/* ---- the graph ---- */

static lam_parameters *parameters;
static lam_graph *graph;

static void add_parameter(const sums_case *c, const char *name, int rank, const int64_t *shape) {
    bool fixed = name[0] == 'b' && is_frozen(c, name[1]);
    assert_int_equal(
        lam_parameters_add(parameters, name, rank, shape, fixed ? LAM_INIT_FROZEN : LAM_INIT_ZERO, 0, true),
        LAM_OK);
}

/* "wX" [rows, FEATURES], "bX" [rows] */
static void add_map(const sums_case *c, char name, int64_t rows) {
    add_parameter(c, (char[]){'w', name, 0}, 2, (int64_t[]){rows, FEATURES});
    add_parameter(c, (char[]){'b', name, 0}, 1, (int64_t[]){rows});
}

static void make_parameters(const sums_case *c) {
    const int64_t width = c->heads * c->head_dim;
    assert_int_equal(lam_parameters_create(&parameters), LAM_OK);
    add_parameter(c, "x", 3, (int64_t[]){c->batch, c->queries, FEATURES});
    add_parameter(c, "y", 3, (int64_t[]){c->batch, c->keys, FEATURES});
    add_parameter(c, "z", 3, (int64_t[]){c->batch, c->queries, width});
    static const char *const of_norm[] = {"qw", "qb", "kw", "kb"};
    for (int k = 0; k < 4; k++) add_parameter(c, of_norm[k], 1, (int64_t[]){c->head_dim});
    for (const char *part = "qkv"; *part; part++) add_map(c, *part, width);
    add_map(c, 'm', (is_cross(c) ? 2 : 3) * width);
    assert_int_equal(lam_parameters_layout(parameters, 1), LAM_OK);
    lam_rng r = lam_rng_stream(7, LAM_RNG_TEST, (uint64_t)c->queries);
    for (int64_t i = 0; i < parameters->entries; i++) {
        const lam_parameter_entry *e = &parameters->entry[i];
        for (int64_t k = 0; k < e->count; k++)
            parameters->weights[e->offset + k] = (float)(lam_rng_uniform(&r) - 0.4);
    }
}

static lam_tensor *given(const char *name) { return lam_parameter(graph, name); }

/* Returns what attention's node gives, with its inputs in seen.of. */
static lam_tensor *build_attention(const sums_case *c, lam_tensor *count, lam_tensor *mask) {
    lam_tensor *x = cast(graph, given("x")), *y = is_cross(c) ? cast(graph, given("y")) : NULL, *q,
               *kv = NULL;
    lam_graph_bound_rows(graph, x, count);
    if (y && c->actual > 0) lam_graph_bound_rows(graph, y, count);
    if (is_cross(c)) {
        q = lam_linear(graph, x, given("wq"), given("bq"));
        kv = c->kind == CROSS ? lam_linear_kv(graph, y, given("wk"), given("bk"), given("wv"), given("bv"))
                              : lam_linear(graph, y, given("wm"), given("bm"));
    } else if (c->kind == ONE_MAP || c->kind == NO_BIAS) {
        q = lam_linear(graph, x, given("wm"), c->kind == NO_BIAS ? NULL : given("bm"));
    } else {
        q = lam_linear_qkv(graph, x, given("wq"), given("bq"), given("wk"), given("bk"), given("wv"),
                           given("bv"));
    }
    seen.of[0] = q, seen.of[1] = kv;
    lam_tensor *z = given("z");
    lam_node *between = lam_node_add(graph, &look_op, 1, &z);
    z = lam_node_output(graph, between, lam_graph_activation(graph), 3, z->shape);
    lam_graph_bound_rows(graph, z, count);
    const lam_qk_norm norm = {given("qw"), given("qb"), given("kw"), given("kb"), 1e-6};
    lam_tensor *out = kv                  ? lam_cross_attention(graph, q, kv, c->heads, mask)
                      : c->kind == NORMED ? lam_normed_attention(graph, q, c->heads, mask, &norm)
                                          : lam_attention(graph, q, c->heads, mask);
    if (c->kind == ADDED) z = lam_add(graph, z, lam_attention(graph, q, c->heads, mask));
    return lam_add(graph, out, z);
}

static void fill(lam_tensor *t, double low, double width, uint64_t stream) {
    lam_rng r = lam_rng_stream(8, LAM_RNG_TEST, stream);
    float *values = lam_tensor_data(t);
    for (int64_t i = 0; i < t->count; i++) values[i] = (float)(low + width * lam_rng_uniform(&r));
}

static void make_graph(const sums_case *c, bool bf16) {
    const int64_t width = c->heads * c->head_dim, actual = c->actual < 0 ? -c->actual : c->actual;
    memset(&seen, 0, sizeof seen);
    setenv("LAMELLA_POISON", "1", 1);
    assert_int_equal(lam_graph_create(&graph, parameters, test_backend()), LAM_OK);
    unsetenv("LAMELLA_POISON");
    if (bf16) lam_graph_set_activation(graph, LAM_BF16);
    lam_tensor *count = c->actual ? lam_input(graph, "count", LAM_I64, 1, (int64_t[]){1}) : NULL,
               *mask =
                   c->masked ? lam_input(graph, "mask", LAM_F32, 2, (int64_t[]){c->batch, c->keys}) : NULL,
               *target = lam_input(graph, "target", LAM_F32, 3, (int64_t[]){c->batch, c->queries, width}),
               *removed = lam_input(graph, "removed", LAM_F32, 2, (int64_t[]){c->batch, c->queries}),
               *weight = lam_input(graph, "weight", LAM_F32, 1, (int64_t[]){c->batch}), *sample_loss;
    lam_tensor *y = build_attention(c, count, mask),
               *loss = lam_masked_loss(graph, y, target, removed, weight, false, &sample_loss);
    assert_int_equal(lam_graph_differentiate(graph, loss), LAM_OK);
    if (lam_graph_plan(graph) != LAM_OK) fail_msg("%s: %s", c->name, lam_last_error());
    if (count) *(int64_t *)lam_tensor_data(count) = actual;
    fill(target, -3, 6, 0);
    fill(removed, 1, 0, 0);
    fill(weight, 1, 0, 0);
    for (int64_t b = actual; actual && b < c->batch; b++) ((float *)lam_tensor_data(weight))[b] = 0;
    if (mask) fill(mask, 0, 1, 1);
    for (int64_t i = 0; mask && i < mask->count; i++) {
        float *at = (float *)lam_tensor_data(mask) + i;
        *at = i >= c->keys && *at < 0.6f ? 1 : 0; /* none in the first sample */
    }
    int64_t samples = actual ? actual : c->batch;
    seen.rows[0] = samples * c->queries, seen.rows[1] = samples * c->keys;
}

/* ---- what must hold ---- */

static void check_sums(const sums_case *c, bool bf16, int times, const char *name, int of, int64_t first) {
    const lam_parameter_entry *e = lam_parameters_find(parameters, name);
    if (e->init == LAM_INIT_FROZEN) return;
    const float *gradient = parameters->gradients + e->offset;
    for (int64_t i = 0; i < e->count; i++) {
        /* Eight standard deviations of what rounding to bfloat16 adds. */
        double want = times * seen.sum[of][first + i],
               bound = times * (2e-6 * seen.size[of][first + i] +
                                (bf16 ? ldexp(sqrt(seen.squares[of][first + i]), -7) : 0));
        if (!(fabs((double)gradient[i] - want) <= bound))
            fail_msg("%s, %s: %s[%lld] is %g, not %g to within %g, after %d", c->name, bf16 ? "bf16" : "f32",
                     name, (long long)i, (double)gradient[i], want, bound, times);
    }
}

static void check_gradients(const sums_case *c, bool bf16, int times) {
    const int64_t width = c->heads * c->head_dim;
    if (c->kind == NO_BIAS) return;
    if (c->kind == ONE_MAP) {
        check_sums(c, bf16, times, "bm", 0, 0);
        return;
    }
    check_sums(c, bf16, times, "bq", 0, 0);
    if (c->kind == CROSS_MAP) {
        check_sums(c, bf16, times, "bm", 1, 0);
    } else {
        check_sums(c, bf16, times, "bk", is_cross(c), is_cross(c) ? 0 : width);
        check_sums(c, bf16, times, "bv", is_cross(c), is_cross(c) ? width : 2 * width);
    }
}

/* The room that attention asks for, beside that of the kernels: for units of 16 rows. */
static void check_room(const sums_case *c, bool bf16) {
    int64_t nodes, width = c->heads * c->head_dim;
    lam_node *const *node = lam_graph_nodes(graph, &nodes);
    int taken = bf16 && on_cuda() ? c->taken : 0;
    int64_t rows_q = (c->queries + 15) / 16, rows_k = (c->keys + 15) / 16,
            floats =
                is_cross(c) ? (taken & 1) * rows_q + (taken / 2) * 2 * rows_k : taken * (rows_q + 2 * rows_k);
    for (int64_t i = 0; i < nodes; i++) {
        if (!strstr(node[i]->op->name, "attention")) continue;
        lam_attention_shape s = lam_attention_shape_of(node[i]);
        s.batch = c->batch;
        assert_int_equal(node[i]->backward_workspace_bytes,
                         node[i]->kernels->attention_workspace(&s, true) +
                             (size_t)(c->batch * floats * width) * sizeof(float));
    }
}

static void check(const sums_case *c, bool bf16) {
    if (!is_chosen_case(c->name)) return;
    if (c->actual < 0 && !on_cuda()) return; /* the CPU leaves gradients of keys without queries unwritten */
    make_parameters(c);
    make_graph(c, bf16);
    check_room(c, bf16);
    lam_parameters_zero_gradients(parameters);
    for (int times = 1; times <= 2; times++) {
        assert_int_equal(lam_graph_forward(graph), LAM_OK);
        if (lam_graph_backward(graph) != LAM_OK) fail_msg("%s: %s", c->name, lam_last_error());
        check_gradients(c, bf16, times);
    }
    lam_graph_free(graph);
    lam_parameters_free(parameters);
}

static void test_f32(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(&cases[i], false);
}
static void test_bf16(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(&cases[i], true);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_f32), cmocka_unit_test(test_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
