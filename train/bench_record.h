/* One measurement of a training step, as the JSON object that `bench step` prints, saves and compares.
 *
 * Keys: "bench" ("step"), "version", "model", "batch", "precision", "recompute", "drop_path", "device", "gpu" (on one), "cpu", "isa", "threads", "library",
 * "steps"; "tokens" (patches of a crop), "first_step_s" (from the start of the command to its end), "step_ms" (the median of the steps), "crops_per_s", "spread" (of crops_per_s),
 * "gflops_per_crop" (of the whole network), "kept_share" (of them, that is done), "gflops_per_s" (done); "limit_gflops_per_s"
 * (lam_gemm_limit_measure; of a GPU what its kind is known to reach, model/estimate.h; absent where that is not known), "limit_libraries" [{"name", "share"}], "share_of_limit", "memory_gb_per_s"
 * (lam_memory_limit); "peak_MiB" of the process after a step, before anything else was measured,
 * "activations_MiB", "memory_MiB" by owner;
 * "operations" [{"op", "pass", "calls", "ms", "share_of_step", "gflops_per_s", "gb_per_s", "share_of_limit"}],
 * the slowest first, ms the median over the steps, pass "forward", "backward", "again" (computed once more for
 * the backward pass) or "update"; share_of_limit is that of the products where an operation has some, else that
 * of memory;
 * "products" [{"kind", "m", "n", "k", "count", "gflops_per_s", "library"}]. */
#ifndef LAMELLA_TRAIN_BENCH_RECORD_H
#define LAMELLA_TRAIN_BENCH_RECORD_H

#include "base/json.h"
#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_bench_settings {
    const lam_backend *backend;
    bool autotune;
    const char *model;            /* lam_bench_model */
    const char *gpu;              /* of an estimate: "H100", "H200" */
    double start;                 /* lam_now() at the start of the command */
    int64_t batch, steps, warmup; /* warmup: steps before those that are timed, at least 1 */
    bool bf16;
    const char *recompute; /* "none", "norm_gelu", "block" */
    double drop_path;      /* stochastic depth of the encoder */
    double limit_seconds;  /* spent on each limit, at least */
} lam_bench_settings;

/* "none", "norm_gelu", "block". */
lam_recompute lam_bench_recompute(const char *name);
/* The caller frees the record. */
lam_status lam_bench_measure(const lam_bench_settings *settings, lam_json **record);

double lam_peak_mebibytes(void); /* resident memory of the process so far, the most */

#ifdef __cplusplus
}
#endif
#endif
