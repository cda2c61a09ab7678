/* What a training step should take on a GPU that is not here (`bench step --device cuda --estimate`), as one JSON object.
 *
 * Keys: "bench" ("estimate"), "model", "batch", "precision", "recompute", "drop_path", "gpu" (whose limits), "step_ms",
 * "bound_ms" (every operation at its limit), "crops_per_s", "gflops_per_crop", "kept_share", "gflops_per_s",
 * "limit_gflops_per_s", "share_of_limit"; "products_ms", "attention_ms", "other_ms"; "memory_MiB" by owner, "together" and
 * "of" (what the GPU has);
 * "operations" [{"op", "pass", "calls", "ms", "bound_ms", "gflop", "gigaexponentials", "gb"}], the longest first. */
#ifndef LAMELLA_TRAIN_BENCH_ESTIMATE_H
#define LAMELLA_TRAIN_BENCH_ESTIMATE_H

#include "base/cli.h"
#include "train/bench_record.h"

#ifdef __cplusplus
extern "C" {
#endif

/* clang-format off */
#define LAM_ESTIMATE_OPTIONS \
    {"estimate", LAM_OPTION_FLAG, NULL, NULL, "what it should take on a GPU, on paper: needs none, measures nothing", .required = false}, \
    {"gpu", LAM_OPTION_CHOICE, "H100|H200", "H200", "whose limits an estimate takes (boards with SXM sockets)", .required = false}
/* clang-format on */

/* LAM_ERROR_USAGE where an option of an estimate stands beside one that it does not go with. */
lam_status lam_bench_estimate_options(const lam_arguments *arguments);
/* The caller frees the record. */
lam_status lam_bench_estimate(const lam_bench_settings *settings, lam_json **record);
void lam_bench_print_estimate(const lam_json *record);

#ifdef __cplusplus
}
#endif
#endif
