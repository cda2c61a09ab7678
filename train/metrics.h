/* RUN/metrics.jsonl: one JSON object a line, appended; a resume cuts it at the checkpoint and goes on.
 *
 * Lines: {"run": {...}} first; {"step", "loss", "grad_norm", "lr", "skipped", "epoch", then timings} a step;
 * {"step", "validation_loss"}; {"op_times": [...], "crops", "seconds", "step_seconds"} at the end, of the process that reached
 * it: crops / seconds is the speed with validations and checkpoints, crops / step_seconds without. "memory"
 * of the run adds up. Non-finite numbers are null. */
#ifndef LAMELLA_TRAIN_METRICS_H
#define LAMELLA_TRAIN_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_metrics lam_metrics;

/* The file's first `keep_bytes` stay, the rest is cut off. */
lam_status lam_metrics_open(lam_metrics **out, const char *path, int64_t keep_bytes);
lam_status lam_metrics_append(lam_metrics *metrics, lam_json *object); /* takes over the object */
/* On disk; *bytes is the file's length. */
lam_status lam_metrics_sync(lam_metrics *metrics, int64_t *bytes);
lam_status lam_metrics_close(lam_metrics **metrics);

/* What the end of the file says; steps 0: it has no line of a step. */
typedef struct lam_metrics_end {
    int64_t step, validation_step,
        steps; /* last one, last one that was validated (0: none), how many crops_per_s is of */
    double loss, validation_loss; /* of those steps; NaN where the file has null */
    double crops_per_s;           /* crops of the last LAM_METRICS_LAST steps over their time */
} lam_metrics_end;
enum { LAM_METRICS_LAST = 100 };
/* Reads the last MiB at most; a line that a running training has not finished is passed over. */
lam_status lam_metrics_read_end(const char *path, lam_metrics_end *end);

#ifdef __cplusplus
}
#endif
#endif
