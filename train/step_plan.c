#include "train/step_plan.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const char *const recompute_names[] = {"none", "norm_gelu", "block"};

lam_status lam_bytes_parse(const char *text, const char *key, int64_t *bytes) {
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"kB", 1e3},     {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},
                 {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    /* strtod alone would take 0x10, 1e3, inf and nan too. */
    size_t digits = strspn(text, "0123456789."), space = strspn(text + digits, " ");
    char *end = NULL;
    double value = strtod(text, &end);
    bool plain = digits > 0 && end == text + digits;
    for (size_t i = 0; plain && i < sizeof units / sizeof *units; i++) {
        double size = value * units[i].factor;
        if (strcmp(end + space, units[i].unit) != 0 || !(size >= 1 && size < 0x1p62)) continue;
        *bytes = (int64_t)size;
        return LAM_OK;
    }
    LAM_FAIL(
        LAM_ERROR_CONFIG,
        "%s: '%s' is no size above 0 with its unit (kB to TB, KiB to TiB); write for example 8GiB or 500 MiB",
        key, text);
}

void lam_step_plan_start(lam_graph *graph, const lam_settings *s) {
    if (s->bf16) lam_graph_set_activation(graph, LAM_BF16);
    if (s->stochastic_rounding) lam_graph_set_stochastic_rounding(graph, s->seed);
    lam_graph_set_recompute(graph, s->recompute);
}

/* What the step needs beside weights and gradients, whose memory is there already, and with them. */
typedef struct needs {
    lam_memory_report largest; /* of the graph that needs the most */
    double rest, all;
} needs;

static lam_status need(lam_graph *const *graphs, int64_t count, lam_recompute what, int64_t optimizer_bytes,
                       needs *n) {
    *n = (needs){0};
    for (int64_t k = 0; k < count; k++) {
        lam_memory_report m;
        LAM_TRY(lam_graph_measure(graphs[k], what, &m));
        double rest = (double)(m.packed + (size_t)optimizer_bytes + m.total);
        if (rest <= n->rest) continue;
        *n = (needs){m, rest, rest + (double)(m.weights + m.gradients)};
    }
    return LAM_OK;
}

/* Of a batch that does not fit: what takes the memory, and how many crops would. */
static lam_status refuse(const needs *n, double room, int64_t optimizer_bytes, int64_t batch,
                         const lam_backend *backend) {
    double fixed = (double)n->largest.packed + (double)optimizer_bytes,
           fit = floor((room - fixed) / ((double)n->largest.total / (double)batch));
    char advice[96] = "no batch fits";
    if (fit >= 1) snprintf(advice, sizeof advice, "train.micro_batch=%.0f fits", fit);
    LAM_FAIL(LAM_ERROR_MEMORY,
             "%s: a step of %" PRId64 " crops needs %.1f MiB where %.1f MiB are free, with whole blocks recomputed: "
             "packed weights %.1f, optimizer %.1f, activations and workspace %.1f (beside weights %.1f and "
             "gradients %.1f, which are there); %s",
             lam_backend_device(backend), batch, n->rest / 0x1p20, room / 0x1p20,
             (double)n->largest.packed / 0x1p20, (double)optimizer_bytes / 0x1p20,
             (double)n->largest.total / 0x1p20, (double)n->largest.weights / 0x1p20,
             (double)n->largest.gradients / 0x1p20, advice);
}

lam_status lam_step_plan_finish(lam_graph *const *graphs, int64_t count, const lam_settings *s,
                                int64_t optimizer_bytes, const lam_backend *backend, int64_t batch) {
    enum { SPARE = 64 << 20 }; /* for inputs on their way and what libraries take later */
    lam_recompute what = s->recompute;
    size_t free_bytes, total_bytes;
    needs n = {0};
    lam_backend_memory(backend, &free_bytes, &total_bytes);
    double room = free_bytes > 2 * SPARE ? (double)(free_bytes - SPARE) : (double)free_bytes / 2,
           budget = s->memory_budget > 0 ? (double)s->memory_budget : (double)INFINITY;
    for (; s->memory_budget > 0 || total_bytes; what++) {
        LAM_TRY(need(graphs, count, what, optimizer_bytes, &n));
        if (n.all <= budget && (!total_bytes || n.rest <= room)) {
            if (s->memory_budget > 0 || what != s->recompute)
                lam_log_info("recompute %s: %.1f of %.1f MiB", recompute_names[what], n.all / 0x1p20,
                             fmin(budget, room + n.all - n.rest) / 0x1p20);
            break;
        }
        if (what < LAM_RECOMPUTE_BLOCK) continue;
        LAM_REQUIRE(n.all <= budget, LAM_ERROR_CONFIG,
                    "train.memory_budget: %.1f MiB, but the step needs %.1f MiB even where whole blocks are "
                    "recomputed; a %s needs less",
                    budget / 0x1p20, n.all / 0x1p20, batch > 1 ? "smaller train.micro_batch" : "smaller network");
        return refuse(&n, room, optimizer_bytes, batch, backend);
    }
    for (int64_t k = 0; k < count; k++) lam_graph_set_recompute(graphs[k], what);
    return lam_graph_plan_together(graphs, count);
}
