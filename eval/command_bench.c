/* `lamella bench relate`: from an embedding in memory to the recalls of several sources. */
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/gemm.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/records.h"
#include "base/rng.h"
#include "base/threads.h"
#include "eval/commands.h"
#include "eval/relate_parts.h"

#define LIMIT_SECONDS 0.5 /* that each limit is looked for */
#define LIMIT_SIDE 1536

typedef struct relate_bench {
    int64_t rows, columns, rounds, pairs;
    double *x;
    lam_relationships relationships;
    lam_relate_settings settings;
    double *seconds;               /* [rounds] */
    double limit_gemm, limit_scan; /* seconds */
    double numpy;                  /* seconds; NaN: not measured */
    double peak_mebibytes;
} relate_bench;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int by_pair(const void *a, const void *b) {
    const lam_pair *x = a, *y = b;
    return x->i != y->i ? (x->i > y->i) - (x->i < y->i) : (x->j > y->j) - (x->j < y->j);
}

/* ---- what is scored ---- */

static lam_status make_rows(relate_bench *b, uint64_t seed) {
    LAM_TRY(lam_alloc_array((void **)&b->x, b->rows * b->columns, sizeof *b->x));
#pragma omp parallel for schedule(static) num_threads(lam_threads())
    for (int64_t i = 0; i < b->rows; i++) {
        lam_rng r = lam_rng_stream(seed, LAM_RNG_TEST, (uint64_t)i);
        for (int64_t j = 0; j < b->columns; j++) b->x[i * b->columns + j] = lam_rng_normal(&r);
    }
    return LAM_OK;
}

static lam_status make_sources(relate_bench *b, const lam_arguments *a, uint64_t seed) {
    int count;
    const char *const *sizes = lam_option_list(a, "pairs", &count);
    LAM_TRY(lam_alloc_array((void **)&b->relationships.sources, count, sizeof(lam_source)));
    for (int s = 0; s < count; s++) {
        lam_source *source = &b->relationships.sources[b->relationships.count++];
        char *end;
        source->count = strtoll(sizes[s], &end, 10);
        LAM_REQUIRE(
            end != sizes[s] && !*end && source->count > 0 && source->count <= 1000000000, LAM_ERROR_USAGE,
            "bench relate: --pairs is '%s', numbers of pairs from 1 to 1000000000 are needed", sizes[s]);
        LAM_TRY(lam_text_format(&source->name, "source %d", s + 1));
        LAM_TRY(lam_alloc_array((void **)&source->pairs, source->count, sizeof *source->pairs));
        lam_rng r = lam_rng_stream(seed, LAM_RNG_SAMPLE, (uint64_t)s);
        for (int64_t k = 0; k < source->count; k++) {
            int32_t i = (int32_t)lam_rng_below(&r, (uint32_t)b->rows),
                    j = (int32_t)lam_rng_below(&r, (uint32_t)b->rows - 1);
            j += j >= i;
            source->pairs[k] = i < j ? (lam_pair){i, j} : (lam_pair){j, i};
        }
        qsort(source->pairs, (size_t)source->count, sizeof *source->pairs,
              by_pair); /* as they come from files */
        b->pairs += source->count;
    }
    return LAM_OK;
}

/* ---- limits ---- */

/* Floating-point operations a second of square products on all threads, and of a tile's product on each thread at once. */
static lam_status rate_of_square(double *rate) {
    enum { N = LIMIT_SIDE };
    float *x = NULL, *y = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&x, 2 * N * N, sizeof *x), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&y, N * N, sizeof *y), done);
    for (int64_t i = 0; i < 2 * N * N; i++) x[i] = 0.001f * (float)(i % 997) - 0.5f;
    for (double begin = lam_now(); lam_now() - begin < LIMIT_SECONDS;) {
        double start = lam_now();
        LAM_TRY_GOTO(lam_gemm_f32(false, false, N, N, N, x, N, x + N * N, N, 0, y, N), done);
        *rate = fmax(*rate, 2.0 * N * N * N / (lam_now() - start));
    }
done:
    lam_free(x);
    lam_free(y);
    return status;
}

static lam_status rate_of_tiles(int64_t columns, double *rate) {
    enum { REPEATS = 16 };
    int threads = lam_threads();
    int64_t each = columns * (LAM_TILE_ROWS + LAM_TILE_COLUMNS) + LAM_TILE_ROWS * LAM_TILE_COLUMNS;
    float *memory;
    bool failed = false;
    LAM_TRY(lam_alloc_array((void **)&memory, threads * each, sizeof *memory));
    for (int64_t i = 0; i < threads * each; i++) memory[i] = 0.001f * (float)(i % 997) - 0.5f;
    for (double begin = lam_now(); !failed && lam_now() - begin < LIMIT_SECONDS;) {
        double start = lam_now();
#pragma omp parallel num_threads(threads) reduction(|| : failed)
        {
            float *a = memory + omp_get_thread_num() * each, *b = a + columns * LAM_TILE_ROWS,
                  *c = b + columns * LAM_TILE_COLUMNS;
            for (int k = 0; k < REPEATS; k++)
                failed = lam_gemm_f32(false, false, LAM_TILE_ROWS, LAM_TILE_COLUMNS, columns, a, columns, b,
                                      LAM_TILE_COLUMNS, 0, c, LAM_TILE_COLUMNS) != LAM_OK ||
                         failed;
        }
        double flops = 2.0 * LAM_TILE_ROWS * LAM_TILE_COLUMNS * (double)columns * REPEATS * threads;
        *rate = fmax(*rate, flops / (lam_now() - start));
    }
    lam_free(memory);
    LAM_REQUIRE(!failed, LAM_ERROR_EXTERNAL, "the product of a tile failed");
    return LAM_OK;
}

/* Seconds of the products of all pairs at the better rate. */
static lam_status gemm_limit(relate_bench *b) {
    double rate = 0;
    LAM_TRY(rate_of_square(&rate));
    LAM_TRY(rate_of_tiles(b->columns, &rate));
    b->limit_gemm = (double)b->rows * (double)(b->rows - 1) * (double)b->columns / rate;
    return LAM_OK;
}

/* Values of a tile below a number: the least that a scan has to do with each. */
__attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"))) static int64_t
count_below(const float *values, int64_t n, float cut) {
    int64_t below = 0;
    for (int64_t at = 0; at < n; at += LAM_TILE_COLUMNS) {
        int32_t less = 0;
        for (int64_t j = at; j < at + LAM_TILE_COLUMNS; j++) less += values[j] < cut;
        below += less;
    }
    return below;
}

/* Seconds of reading every cosine once out of a tile that lies in the cache of its core. */
static lam_status scan_limit(relate_bench *b) {
    enum { TILE = LAM_TILE_ROWS * LAM_TILE_COLUMNS, REPEATS = 64 };
    float *tiles;
    int threads = lam_threads();
    double best = INFINITY;
    int64_t below = 0;
    LAM_TRY(lam_alloc_array((void **)&tiles, (int64_t)threads * TILE, sizeof *tiles));
    for (double begin = lam_now(); lam_now() - begin < LIMIT_SECONDS;) {
        double start = lam_now();
#pragma omp parallel num_threads(threads) reduction(+ : below)
        for (int k = 0; k < REPEATS; k++)
            below += count_below(tiles + (int64_t)omp_get_thread_num() * TILE, TILE, (float)k);
        best = fmin(best, lam_now() - start);
    }
    lam_free(tiles);
    LAM_REQUIRE(below > 0, LAM_ERROR_INTERNAL, "the scan saw nothing");
    double rate = (double)threads * TILE * REPEATS / best;
    b->limit_scan = 0.5 * (double)b->rows * (double)(b->rows - 1) / rate;
    return LAM_OK;
}

/* The same steps in numpy: every cosine in a matrix, its upper triangle copied, sorted anew for each source. */
static void time_numpy(relate_bench *b) {
    char command[2048];
    snprintf(command, sizeof command,
             "python3 -c '\n"
             "import time, numpy as np\n"
             "n, d, sizes = %" PRId64 ", %" PRId64 ", [%" PRId64 "] * %" PRId64 "\n"
             "r = np.random.default_rng(0)\n"
             "x = r.standard_normal((n, d))\n"
             "pairs = [np.sort(r.integers(0, n, (k, 2)), axis=1) for k in sizes]\n"
             "t = time.perf_counter()\n"
             "u = x / np.linalg.norm(x, axis=1, keepdims=True)\n"
             "c = u @ u.T\n"
             "null = c[np.triu_indices(n, 1)]\n"
             "for p in pairs:\n"
             "    s, q = np.sort(null), c[p[:, 0], p[:, 1]]\n"
             "    left = np.searchsorted(s, q, \"left\") / s.size\n"
             "    right = np.searchsorted(s, q, \"right\") / s.size\n"
             "    recall = [np.mean((right <= l) | (left >= h)) for l, h in ((.05, .95), (.1, .9))]\n"
             "print(time.perf_counter() - t)\n"
             "' 2>/dev/null",
             b->rows, b->columns, b->pairs / b->relationships.count, b->relationships.count);
    FILE *pipe = popen(command, "r");
    if (pipe && fscanf(pipe, "%lf", &b->numpy) != 1) b->numpy = NAN;
    if (pipe) pclose(pipe);
}

/* ---- the run ---- */

static lam_status measure(relate_bench *b) {
    for (int64_t round = -1; round < b->rounds; round++) { /* the first warms caches and code */
        lam_scored_map map;
        double start = lam_now();
        LAM_TRY(lam_scored_map_make(b->x, b->rows, b->columns, &b->relationships, &b->settings, &map));
        if (round >= 0) b->seconds[round] = lam_now() - start;
        lam_scored_map_free(&map);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    b->peak_mebibytes = (double)usage.ru_maxrss / 1024;
    qsort(b->seconds, (size_t)b->rounds, sizeof *b->seconds, by_value);
    return LAM_OK;
}

static lam_status print(const relate_bench *b, const lam_arguments *a) {
    double seconds = b->seconds[b->rounds / 2], limit = b->limit_gemm + b->limit_scan;
    if (lam_option_json(a)) {
        lam_json *record = lam_json_object(), *spread = lam_json_array();
        lam_json_set_text(record, "bench", "relate");
        lam_json_set_int(record, "rows", b->rows);
        lam_json_set_int(record, "columns", b->columns);
        lam_json_set_int(record, "sources", b->relationships.count);
        lam_json_set_int(record, "pairs", b->pairs);
        lam_json_set_text(record, "device", "cpu");
        lam_json_set_int(record, "threads", lam_threads());
        lam_json_set_float(record, "seconds", seconds);
        lam_json_append_float(spread, b->seconds[0]);
        lam_json_append_float(spread, b->seconds[b->rounds - 1]);
        lam_json_set(record, "spread", spread);
        lam_json_set_float(record, "limit_gemm_seconds", b->limit_gemm);
        lam_json_set_float(record, "limit_scan_seconds", b->limit_scan);
        lam_json_set_float(record, "share_of_limit", limit / seconds);
        lam_json_set_float(record, "peak_MiB", b->peak_mebibytes);
        lam_json_set_float(record, "numpy_seconds", b->numpy);
        lam_status status = lam_records_print(record, false);
        lam_json_free(record);
        return status;
    }
    printf("relate: %" PRId64 " x %" PRId64 ", %" PRId64 " sources, %" PRId64
           " pairs, %d threads: %.3f s (%.3f to %.3f), peak of the process %.0f MiB\n",
           b->rows, b->columns, b->relationships.count, b->pairs, lam_threads(), seconds, b->seconds[0],
           b->seconds[b->rounds - 1], b->peak_mebibytes);
    printf("limit: %.3f s for the products, %.3f s to read every cosine once; %.0f %% of it reached\n",
           b->limit_gemm, b->limit_scan, 100 * limit / seconds);
    if (isfinite(b->numpy))
        printf("numpy, the same steps: %.1f s, %.0f times as long\n", b->numpy, b->numpy / seconds);
    return LAM_OK;
}

static lam_status run(const lam_arguments *a) {
    relate_bench b = {
        .rows = lam_option_int(a, "rows"),
        .columns = lam_option_int(a, "columns"),
        .rounds = lam_option_int(a, "rounds"),
        .numpy = NAN,
        .settings = {.tails = {{.left = 0.05, .right = 0.95}, {.left = 0.1, .right = 0.9}}, .thresholds = 2}};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&b.seconds, b.rounds, sizeof *b.seconds), done);
    LAM_TRY_GOTO(make_sources(&b, a, 1), done);
    LAM_TRY_GOTO(make_rows(&b, 1), done);
    LAM_TRY_GOTO(measure(&b), done);
    LAM_TRY_GOTO(gemm_limit(&b), done);
    LAM_TRY_GOTO(scan_limit(&b), done);
    if (lam_option_flag(a, "numpy")) {
        time_numpy(&b);
        if (isnan(b.numpy))
            lam_log_info("bench relate: python3 with numpy is not there, or its memory did not suffice");
    }
    status = print(&b, a);
done:
    lam_relationships_free(&b.relationships);
    lam_free(b.x);
    lam_free(b.seconds);
    return status;
}

static const lam_option options[] = {
    {"rows", LAM_OPTION_INT, "N", "17000", "of the map", 3, 2000000, false},
    {"columns", LAM_OPTION_INT, "D", "128", "of the map", 1, 100000, false},
    {"pairs", LAM_OPTION_LIST, "K", "37649,58538,18565,11617,58059",
     "known pairs of each source (default: the unique pairs of CORUM, HuMAP, Reactome, SIGNOR, StringDB)", 0,
     0, false},
    {"rounds", LAM_OPTION_INT, "N", "5", "that are timed; the median counts", 1, 10000, false},
    {"numpy", LAM_OPTION_FLAG, NULL, NULL,
     "time the same steps in numpy too (python3; about 32 bytes a pair of rows: 4.6 GB for 17,000)", 0, 0,
     false},
    {0}};

const lam_command lam_command_bench_relate = {
    "bench relate",
    "time from an embedding in memory to recalls, the limit of this machine, and their ratio",
    "",
    0,
    0,
    options,
    "lamella bench relate --rows 17000 --columns 128",
    run};
