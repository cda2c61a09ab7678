/* The kernels of a device against those of the CPU: every entry of the table that the operations call, for both storage types, at
 * sizes that fill vectors, warps and blocks and at sizes that do not, and twice: the second time gives the same bits. Nothing
 * outside the arguments is written. Runs where LAMELLA_TEST_DEVICE names a device. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bf16.h"
#include "base/rng.h"
#include "model/internal.h"
#include "tests/unit/device.h"

enum { ARRAYS = 20, GUARD = 64, GUARD_BYTE = 0x5a };
typedef enum kind { REAL, FLOATS, INTS } kind; /* of the storage type, float32, int32 */
typedef enum role { READ, ADDED, WRITTEN, SCRATCH } role;

typedef struct array {
    kind kind;
    role role;
    int64_t count;
    void *start;  /* before the call, as the guards behind it */
    void *result; /* of the CPU */
    void *at;     /* in the memory of whoever runs */
} array;

typedef struct bench {
    const lam_backend *device;
    bool bf16, on_device;
    const char *name;
    array a[ARRAYS];
    int count;
    int64_t n[8]; /* sizes */
    lam_rng stream;
} bench;

static size_t bytes_of(const bench *b, const array *a) {
    return (size_t)a->count * (a->kind == REAL && b->bf16 ? 2 : 4);
}

static float uniform(bench *b) { return 2 * (float)lam_rng_uniform(&b->stream) - 1; }

/* An argument of random values in [-1, 1); what is only written starts as NaN. */
static array *add_array(bench *b, kind type, role use, int64_t count) {
    array *a = &b->a[b->count++];
    assert_true(b->count <= ARRAYS);
    *a = (array){.kind = type, .role = use, .count = count};
    size_t bytes = bytes_of(b, a);
    a->start = malloc(bytes + GUARD);
    memset(a->start, 0xff, bytes);
    memset((char *)a->start + bytes, GUARD_BYTE, GUARD);
    for (int64_t i = 0; i < count && (use == READ || use == ADDED) && type != INTS; i++) {
        float value = uniform(b);
        if (type == REAL && b->bf16)
            ((uint16_t *)a->start)[i] = lam_bf16_from_float(value);
        else
            ((float *)a->start)[i] = value;
    }
    return a;
}

/* Order of all tokens of each of `batch` samples. */
static void add_restore(bench *b, int64_t batch, int64_t tokens) {
    int32_t *ids = add_array(b, INTS, READ, batch * tokens)->start;
    for (int64_t s = 0; s < batch; s++, ids += tokens)
        for (int64_t i = 0; i < tokens; i++) {
            int64_t j = (int64_t)(lam_rng_uniform(&b->stream) * (double)(i + 1));
            if (j > i) j = i;
            ids[i] = ids[j];
            ids[j] = (int32_t)i;
        }
}

static void add_ids(bench *b, int64_t count, int64_t below) {
    int32_t *ids = add_array(b, INTS, READ, count)->start;
    for (int64_t i = 0; i < count; i++) ids[i] = (int32_t)(lam_rng_uniform(&b->stream) * (double)below);
}

/* Places of the samples that are kept, about 2 of 3. Returns how many. */
static int64_t add_places(bench *b, int64_t samples) {
    int32_t *place = add_array(b, INTS, READ, samples)->start, kept = 0;
    for (int64_t s = 0; s < samples; s++) place[s] = lam_rng_uniform(&b->stream) < 0.67 ? kept++ : -1;
    return kept;
}

static float value_of(const bench *b, const array *a, const void *values, int64_t i) {
    return a->kind == REAL && b->bf16 ? lam_bf16_to_float(((const uint16_t *)values)[i])
                                      : ((const float *)values)[i];
}

static void compare(const bench *b, int k, const void *got) {
    const array *a = &b->a[k];
    size_t bytes = bytes_of(b, a);
    for (int i = 0; i < GUARD; i++)
        if (((const unsigned char *)got)[bytes + (size_t)i] != GUARD_BYTE)
            fail_msg("%s: argument %d is written behind its end", b->name, k);
    if (a->role == READ && memcmp(got, a->start, bytes) != 0)
        fail_msg("%s: argument %d is written", b->name, k);
    if (a->role == READ || a->role == SCRATCH) return;
    double squares = 0;
    for (int64_t i = 0; i < a->count; i++) {
        float want = value_of(b, a, a->result, i);
        if (isfinite(want)) squares += (double)want * (double)want;
    }
    double size = sqrt(squares / (double)a->count), allowed = a->kind == REAL && b->bf16 ? 1.0 / 128 : 1e-5;
    for (int64_t i = 0; i < a->count; i++) {
        float want = value_of(b, a, a->result, i), is = value_of(b, a, got, i);
        double off = fabs((double)is - (double)want);
        if (isnan(want) ? !isnan(is) : !(off <= allowed * (fabs((double)want) + 0.1 * size)))
            fail_msg("%s, %s: argument %d[%lld] is %g, not %g; sizes %lld %lld %lld %lld %lld", b->name,
                     b->bf16 ? "bf16" : "f32", k, (long long)i, (double)is, (double)want, (long long)b->n[0],
                     (long long)b->n[1], (long long)b->n[2], (long long)b->n[3], (long long)b->n[4]);
    }
}

typedef void run_kernel(bench *b, const lam_kernels *k);

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* Once on the CPU, twice on the device; frees the arrays. */
static void run(bench *b, const char *name, run_kernel *kernel) {
    void *before[ARRAYS] = {NULL};
    b->name = name;
    b->on_device = false;
    for (int k = 0; k < b->count; k++) {
        array *a = &b->a[k];
        size_t bytes = bytes_of(b, a) + GUARD;
        a->result = a->at = aligned_alloc(64, (bytes + 63) / 64 * 64);
        memcpy(a->at, a->start, bytes);
    }
    kernel(b, lam_kernels_current(b->bf16));
    b->on_device = true;
    for (int k = 0; k < b->count; k++) ok(b->device->allocate(&b->a[k].at, bytes_of(b, &b->a[k]) + GUARD));
    for (int again = 0; again < 2; again++) {
        for (int k = 0; k < b->count; k++)
            ok(b->device->write(b->a[k].at, b->a[k].start, bytes_of(b, &b->a[k]) + GUARD));
        kernel(b, b->device->kernels(b->bf16));
        ok(b->device->error());
        for (int k = 0; k < b->count; k++) {
            array *a = &b->a[k];
            size_t bytes = bytes_of(b, a) + GUARD;
            void *got = malloc(bytes);
            ok(b->device->read(got, a->at, bytes));
            compare(b, k, got);
            if (again && a->role != SCRATCH && memcmp(got, before[k], bytes) != 0)
                fail_msg("%s: argument %d differs from run to run", name, k);
            free(before[k]);
            before[k] = got;
        }
    }
    for (int k = 0; k < b->count; k++) {
        b->device->release(b->a[k].at);
        free(before[k]);
        free(b->a[k].start);
        free(b->a[k].result);
    }
    b->count = 0;
}

static bench make_bench(bool bf16) {
    return (bench){.device = test_backend(), .bf16 = bf16, .stream = lam_rng_stream(3, LAM_RNG_TEST, bf16)};
}

#define AT(k) (b->a[k].at)

/* ---- elements ---- */

static void run_gelu(bench *b, const lam_kernels *k) { k->gelu(AT(0), AT(1), b->n[0]); }
static void run_gelu_slope(bench *b, const lam_kernels *k) { k->gelu_slope(AT(0), AT(1), b->n[0]); }
static void run_multiply(bench *b, const lam_kernels *k) { k->multiply(AT(1), AT(0), b->n[0]); }
static void run_accumulate(bench *b, const lam_kernels *k) { k->accumulate(AT(0), AT(1), b->n[0]); }
static void run_add(bench *b, const lam_kernels *k) { k->add(AT(0), AT(1), AT(2), b->n[0]); }
static void run_add_bias(bench *b, const lam_kernels *k) {
    k->add_bias(AT(0), AT(1), b->n[0], b->n[1], b->n[2]);
}

static void spread(bench *b, array *a) { /* to where the tails of a normal distribution are */
    for (int64_t i = 0; i < a->count; i++) {
        float value = 12 * uniform(b);
        if (b->bf16)
            ((uint16_t *)a->start)[i] = lam_bf16_from_float(value);
        else
            ((float *)a->start)[i] = value;
    }
}

static void elements(bench *b) {
    static const int64_t counts[] = {1, 7, 8, 511, 2048, 5003};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        int64_t n = b->n[0] = counts[i];
        spread(b, add_array(b, REAL, READ, n));
        add_array(b, REAL, WRITTEN, n);
        run(b, "gelu", run_gelu);
        spread(b, add_array(b, REAL, ADDED, n));
        add_array(b, REAL, WRITTEN, n);
        run(b, "gelu_slope", run_gelu_slope);
        for (int which = 0; which < 2; which++) {
            add_array(b, REAL, ADDED, n);
            add_array(b, REAL, READ, n);
            run(b, which ? "multiply" : "accumulate", which ? run_multiply : run_accumulate);
        }
        add_array(b, REAL, READ, n);
        add_array(b, REAL, READ, n);
        add_array(b, REAL, WRITTEN, n);
        run(b, "add", run_add);
    }
    static const int64_t biased[][3] = {{1, 1, 1}, {9, 20, 40}, {17, 384, 384}, {3, 37, 41}};
    for (size_t i = 0; i < sizeof biased / sizeof *biased; i++) {
        memcpy(b->n, biased[i], sizeof biased[i]);
        add_array(b, REAL, ADDED, b->n[0] * b->n[2]);
        add_array(b, FLOATS, READ, b->n[1]);
        run(b, "add_bias", run_add_bias);
    }
}

/* ---- LayerNorm and stochastic depth ---- */

enum { ROWS, WIDTH, TOKENS, R_KEPT, Y_KEPT, FLAGS };
enum { WITH_R = 1, WITH_PLACES = 2, WITH_SUM = 4, ADDS = 8 };

/* Behind the placed rows are 3 that are zero. */
enum { BEHIND = 3 };

static lam_sample_places placed(const bench *b, int r, int y, int scale) {
    return (lam_sample_places){.tokens = b->n[TOKENS],
                               .r = AT(r),
                               .y = y < 0 ? NULL : AT(y),
                               .r_scale = AT(scale),
                               .r_rows = b->on_device ? b->n[R_KEPT] * b->n[TOKENS] + BEHIND : 0,
                               .y_rows = b->on_device && y >= 0 ? b->n[Y_KEPT] * b->n[TOKENS] + BEHIND : 0};
}

/* What the device is asked for and the CPU is not. */
static void zero_behind(const bench *b, int k, int64_t kept) {
    if (b->on_device) return;
    size_t element = b->bf16 ? 2 : 4, at = (size_t)(kept * b->n[TOKENS] * b->n[WIDTH]) * element;
    memset((char *)AT(k) + at, 0, (size_t)(BEHIND * b->n[WIDTH]) * element);
}

static void run_layernorm(bench *b, const lam_kernels *k) {
    int64_t flags = b->n[FLAGS];
    lam_sample_places places = {0};
    if (flags & WITH_PLACES) places = placed(b, 8, 9, 10);
    k->layernorm(AT(0), flags & WITH_R ? AT(1) : NULL, AT(2), AT(3), flags & WITH_R ? AT(4) : NULL, AT(5),
                 AT(6), AT(7), b->n[ROWS], b->n[WIDTH], 1e-6f, flags & WITH_PLACES ? &places : NULL);
    if (flags & WITH_PLACES) zero_behind(b, 5, b->n[Y_KEPT]);
}

static void run_layernorm_again(bench *b, const lam_kernels *k) {
    lam_sample_places places = {0};
    if (b->n[FLAGS] & WITH_PLACES) places = placed(b, 6, 7, 8);
    k->layernorm_again(AT(0), AT(1), AT(2), AT(3), AT(4), AT(5), b->n[ROWS], b->n[WIDTH],
                       b->n[FLAGS] & WITH_PLACES ? &places : NULL);
    if (b->n[FLAGS] & WITH_PLACES) zero_behind(b, 3, b->n[Y_KEPT]);
}

static void run_layernorm_backward(bench *b, const lam_kernels *k) {
    int64_t flags = b->n[FLAGS];
    lam_sample_places places = {0};
    if (flags & WITH_PLACES) places = placed(b, 11, 12, 13);
    k->layernorm_backward(AT(0), AT(1), AT(2), AT(3), AT(4), flags & WITH_SUM ? AT(5) : NULL, AT(6),
                          flags & ADDS, flags & WITH_R ? AT(7) : NULL, flags & ADDS, AT(8), AT(9), AT(10),
                          b->n[ROWS], b->n[WIDTH], flags & WITH_PLACES ? &places : NULL);
    if (flags & WITH_PLACES && flags & WITH_R && !(flags & ADDS)) zero_behind(b, 7, b->n[R_KEPT]);
}

static void run_depth_add(bench *b, const lam_kernels *k) {
    lam_sample_places places = placed(b, 3, -1, 4);
    k->depth_add(AT(0), AT(1), AT(2), b->n[ROWS], b->n[WIDTH], &places);
}

static void run_depth_add_backward(bench *b, const lam_kernels *k) {
    lam_sample_places places = placed(b, 2, -1, 3);
    k->depth_add_backward(AT(0), AT(1), b->n[FLAGS] & ADDS, b->n[ROWS], b->n[WIDTH], &places);
    if (!(b->n[FLAGS] & ADDS)) zero_behind(b, 1, b->n[R_KEPT]);
}

/* The scales and places of r and of y, and how many rows of either there are. */
static void add_depth(bench *b, bool y, int64_t *r_rows, int64_t *y_rows) {
    int64_t samples = b->n[ROWS] / b->n[TOKENS];
    b->n[R_KEPT] = add_places(b, samples);
    *r_rows = b->n[R_KEPT] * b->n[TOKENS] + BEHIND;
    if (y) {
        b->n[Y_KEPT] = add_places(b, samples);
        *y_rows = b->n[Y_KEPT] * b->n[TOKENS] + BEHIND;
    }
    *(float *)add_array(b, FLOATS, READ, 1)->start = 1.25f;
}

static void resize(const bench *b, int k, int64_t rows) { /* down, behind the guards of the larger one */
    array *a = (array *)&b->a[k];
    a->count = rows * b->n[WIDTH];
    memset((char *)a->start + bytes_of(b, a), GUARD_BYTE, GUARD);
}

static void norms(bench *b, int64_t rows, int64_t width, int64_t tokens, int64_t flags) {
    int64_t r_rows = rows, y_rows = rows, most = rows + BEHIND;
    bool depth = flags & WITH_PLACES;
    b->n[ROWS] = rows;
    b->n[WIDTH] = width;
    b->n[TOKENS] = tokens;
    b->n[FLAGS] = flags;

    add_array(b, REAL, READ, rows * width);
    add_array(b, REAL, READ, most * width);
    add_array(b, FLOATS, READ, width);
    add_array(b, FLOATS, READ, width);
    add_array(b, REAL, WRITTEN, rows * width);
    add_array(b, REAL, WRITTEN, most * width);
    add_array(b, FLOATS, WRITTEN, rows);
    add_array(b, FLOATS, WRITTEN, rows);
    if (depth) add_depth(b, true, &r_rows, &y_rows);
    resize(b, 1, r_rows);
    resize(b, 5, y_rows);
    run(b, "layernorm", run_layernorm);

    add_array(b, REAL, READ, rows * width);
    add_array(b, FLOATS, READ, width);
    add_array(b, FLOATS, READ, width);
    add_array(b, REAL, WRITTEN, most * width);
    add_array(b, FLOATS, READ, rows);
    add_array(b, FLOATS, READ, rows);
    if (depth) add_depth(b, true, &r_rows, &y_rows);
    resize(b, 3, y_rows);
    run(b, "layernorm_again", run_layernorm_again);

    role added = flags & ADDS ? ADDED : WRITTEN;
    add_array(b, REAL, READ, rows * width);
    add_array(b, FLOATS, READ, width);
    add_array(b, FLOATS, READ, rows);
    add_array(b, FLOATS, READ, rows);
    add_array(b, REAL, READ, most * width);
    add_array(b, REAL, READ, rows * width);
    add_array(b, REAL, added, rows * width);
    add_array(b, REAL, added, most * width);
    add_array(b, FLOATS, ADDED, width);
    add_array(b, FLOATS, ADDED, width);
    add_array(b, FLOATS, SCRATCH, 2 * lam_column_partials(rows) * width);
    if (depth) add_depth(b, true, &r_rows, &y_rows);
    resize(b, 4, y_rows);
    resize(b, 7, r_rows);
    run(b, "layernorm_backward", run_layernorm_backward);
    if (!depth) return;

    add_array(b, REAL, READ, rows * width);
    add_array(b, REAL, READ, most * width);
    add_array(b, REAL, WRITTEN, rows * width);
    add_depth(b, false, &r_rows, NULL);
    resize(b, 1, r_rows);
    run(b, "depth_add", run_depth_add);

    add_array(b, REAL, READ, rows * width);
    add_array(b, REAL, added, most * width);
    add_depth(b, false, &r_rows, NULL);
    resize(b, 1, r_rows);
    run(b, "depth_add_backward", run_depth_add_backward);
}

static void all_norms(bench *b) {
    static const int64_t sizes[][3] = {{1, 1, 1},     {6, 20, 2},   {35, 37, 5},  {18, 384, 3}, {9, 512, 3},
                                       {10, 1024, 5}, {4, 1280, 2}, {6, 2048, 2}, {4, 2049, 1}, {3, 1025, 1},
                                       {2, 4104, 1},  {2, 9000, 1}, {4200, 8, 5}, {2, 515, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int64_t flags = 0; flags < 16; flags++) {
            bool rare = flags & WITH_PLACES && !(flags & WITH_R); /* nobody calls it so */
            if (rare || (i > 3 && flags != 0 && flags != 7 && flags != 15)) continue;
            norms(b, sizes[i][0], sizes[i][1], sizes[i][2], flags);
        }
}

/* ---- tokens ---- */

enum { BATCH, KEPT, ALL, PLACES, WIDE, FIRST, ADD, SKIPPED };

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

/* ---- channels ---- */

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

/* ---- the parallel block ---- */

static void run_scale_rows(bench *b, const lam_kernels *k) {
    k->scale_rows(AT(0), AT(1), AT(2), b->n[0], b->n[1]);
}
static void run_scale_rows_backward(bench *b, const lam_kernels *k) {
    k->scale_rows_backward(AT(0), AT(1), AT(2), AT(3), AT(4), b->n[0], b->n[1]);
}

static void parallel(bench *b) {
    static const int64_t scaled[][2] = {{1, 1}, {9, 33}, {20, 128}, {70, 1}, {3, 1000}};
    for (size_t i = 0; i < sizeof scaled / sizeof *scaled; i++) {
        int64_t rows = b->n[0] = scaled[i][0], width = b->n[1] = scaled[i][1];
        add_array(b, FLOATS, READ, rows * width);
        add_array(b, FLOATS, READ, rows);
        add_array(b, FLOATS, WRITTEN, rows * width);
        run(b, "scale_rows", run_scale_rows);
        add_array(b, FLOATS, READ, rows * width);
        add_array(b, FLOATS, READ, rows);
        add_array(b, FLOATS, READ, rows * width);
        add_array(b, FLOATS, ADDED, rows * width);
        add_array(b, FLOATS, ADDED, rows);
        run(b, "scale_rows_backward", run_scale_rows_backward);
    }
}

static void both_types(void (*family)(bench *)) {
    if (!on_cuda()) skip(); /* the CPU against itself */
    for (int bf16 = 0; bf16 < 2; bf16++) {
        bench b = make_bench(bf16);
        family(&b);
    }
}

static void of_elements(void **state) { (void)state, both_types(elements); }
static void of_norms(void **state) { (void)state, both_types(all_norms); }
static void of_tokens(void **state) { (void)state, both_types(tokens); }
static void of_channels(void **state) { (void)state, both_types(channels); }
static void of_parallel(void **state) { (void)state, both_types(parallel); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_elements), cmocka_unit_test(of_norms),
                                       cmocka_unit_test(of_tokens), cmocka_unit_test(of_channels),
                                       cmocka_unit_test(of_parallel)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
