/* RUN/metrics.jsonl: one JSON object a line, appended; a resume cuts it at the checkpoint and goes on.
 *
 * Lines: {"run": {...}} first; {"step", "loss", "grad_norm", "lr", "skipped", "epoch", then timings} a step;
 * {"step", "validation_loss"}; {"op_times": [...]} at the end. Non-finite numbers are null. */
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

#ifdef __cplusplus
}
#endif
#endif
