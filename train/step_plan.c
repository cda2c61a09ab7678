#include "train/step_plan.h"

#include <inttypes.h>
#include <math.h>
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

/* Of weights, gradients, the optimiser and the step, with the largest of the graphs. */
static lam_status need(lam_graph *const *graphs, int64_t count, lam_recompute what, int64_t optimizer_bytes,
                       double *bytes) {
    *bytes = 0;
    for (int64_t k = 0; k < count; k++) {
        lam_memory_report m;
        LAM_TRY(lam_graph_measure(graphs[k], what, &m));
        double one = (double)(m.weights + m.packed + m.gradients + (size_t)optimizer_bytes + m.total);
        if (one > *bytes) *bytes = one;
    }
    return LAM_OK;
}

lam_status lam_step_plan_finish(lam_graph *const *graphs, int64_t count, const lam_settings *s,
                                int64_t optimizer_bytes) {
    lam_recompute what = s->recompute;
    for (double bytes = 0; s->memory_budget > 0; what++) {
        LAM_TRY(need(graphs, count, what, optimizer_bytes, &bytes));
        if (bytes <= (double)s->memory_budget) {
            lam_log_info("recompute %s: %.1f of %.1f MiB", recompute_names[what], bytes / 0x1p20,
                         (double)s->memory_budget / 0x1p20);
            break;
        }
        LAM_REQUIRE(what < LAM_RECOMPUTE_BLOCK, LAM_ERROR_CONFIG,
                    "train.memory_budget: %.1f MiB, but the step needs %.1f MiB even where whole blocks are "
                    "recomputed; a smaller train.micro_batch needs less",
                    (double)s->memory_budget / 0x1p20, bytes / 0x1p20);
    }
    for (int64_t k = 0; k < count; k++) lam_graph_set_recompute(graphs[k], what);
    return lam_graph_plan_together(graphs, count);
}
