/* Two records of `bench step` (train/bench_record.h) side by side.
 *
 * Keys of a comparison: "before" (the file), "differs" [keys of the circumstances that differ: cpu, isa,
 * library, version], "step", "limit" (of products), "memory": {"before", "after", "ratio"} in ms, GFLOP/s and
 * GB/s; "operations" [{"op", "pass", "before", "after", "ratio"}] in ms, null where one has none. A ratio
 * above 1 is faster. */
#ifndef LAMELLA_TRAIN_BENCH_COMPARE_H
#define LAMELLA_TRAIN_BENCH_COMPARE_H

#include "train/bench_record.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads a saved record. LAM_ERROR_FORMAT where it is none; LAM_ERROR_USAGE that says what differs where its model,
 * batch, precision, recompute, drop_path or threads (lam_threads) are not those of the run to come: before
 * the time of a measurement is spent. The caller frees. */
lam_status lam_bench_read(const char *path, const lam_bench_settings *settings, lam_json **record);
/* The caller frees. */
lam_json *lam_bench_compare(const char *before_name, const lam_json *before, const lam_json *after);
/* As text, to standard output. */
void lam_bench_print_comparison(const lam_json *comparison);

#ifdef __cplusplus
}
#endif
#endif
