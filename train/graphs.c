#include "train/graphs.h"

#include <string.h>

#include "train/step_plan.h"

int64_t lam_mask_level(int64_t step, int64_t steps) {
    double at = (double)step * LAM_MASK_LEVELS / (double)steps;
    return at < LAM_MASK_LEVELS - 1 ? (int64_t)at : LAM_MASK_LEVELS - 1;
}

double lam_mask_level_ratio(double first, double last, int64_t level) {
    return first + (last - first) * (double)level / (LAM_MASK_LEVELS - 1);
}

/* Index of the graph that keeps as many patches as the network of this ratio; a new one where none does. */
static lam_status add(lam_graphs *graphs, lam_parameters *parameters, const lam_backend *backend,
                      const lam_settings *settings, const lam_mae_config *model, int64_t batch, int64_t *index) {
    int64_t k = graphs->count;
    LAM_TRY(lam_graph_create(&graphs->graph[k], parameters, backend));
    graphs->count++;
    graphs->model[k] = *model;
    lam_step_plan_start(graphs->graph[k], settings);
    LAM_TRY(lam_mae_build(graphs->graph[k], model, batch, &graphs->io[k]));
    LAM_TRY(lam_graph_differentiate(graphs->graph[k], graphs->io[k].loss));
    for (int64_t other = 0; other < k && graphs->io[k].latent; other++) {
        if (lam_tensor_dim(graphs->io[other].latent, 1) != lam_tensor_dim(graphs->io[k].latent, 1)) continue;
        lam_graph_free(graphs->graph[k]);
        graphs->graph[k] = NULL;
        graphs->count--;
        k = other;
    }
    *index = k;
    return LAM_OK;
}

static lam_status open_all(lam_graphs *graphs, lam_parameters *parameters, const lam_backend *backend,
                           const lam_settings *s, int64_t batch, int64_t optimizer_bytes) {
    double last = s->mask_ratio_end > 0 ? s->mask_ratio_end : s->model.mask_ratio;
    for (int64_t level = 0; level < LAM_MASK_LEVELS; level++) {
        lam_mae_config model = s->model;
        model.mask_ratio = lam_mask_level_ratio(s->model.mask_ratio, last, level);
        if (level > 0 && model.mask_ratio == graphs->model[graphs->count - 1].mask_ratio)
            graphs->of_level[level] = graphs->of_level[level - 1];
        else
            LAM_TRY(add(graphs, parameters, backend, s, &model, batch, &graphs->of_level[level]));
    }
    LAM_TRY(lam_step_plan_finish(graphs->graph, graphs->count, s, optimizer_bytes, backend, batch));
    for (int64_t k = 0; k < graphs->count; k++) lam_graph_profile(graphs->graph[k], true);
    return LAM_OK;
}

lam_status lam_graphs_open(lam_graphs *graphs, lam_parameters *parameters, const lam_backend *backend,
                           const lam_settings *settings, int64_t batch, int64_t optimizer_bytes) {
    memset(graphs, 0, sizeof *graphs);
    lam_status status = open_all(graphs, parameters, backend, settings, batch, optimizer_bytes);
    if (status != LAM_OK) lam_graphs_close(graphs);
    return status;
}

void lam_graphs_close(lam_graphs *graphs) {
    for (int64_t k = 0; k < graphs->count; k++) lam_graph_free(graphs->graph[k]);
    memset(graphs, 0, sizeof *graphs);
}

int64_t lam_graphs_op_times(const lam_graphs *graphs, lam_op_time *times, int64_t maximum) {
    int64_t count = 0;
    for (int64_t k = 0; k < graphs->count; k++) {
        lam_op_time one[128];
        int64_t found = lam_graph_op_times(graphs->graph[k], one, 128);
        for (int64_t i = 0; i < found; i++) {
            int64_t at = 0;
            while (at < count && (strcmp(times[at].op, one[i].op) != 0 ||
                                  times[at].backward != one[i].backward || times[at].again != one[i].again))
                at++;
            if (at == maximum) continue;
            if (at == count)
                times[count++] =
                    (lam_op_time){.op = one[i].op, .backward = one[i].backward, .again = one[i].again};
            times[at].calls += one[i].calls;
            times[at].seconds += one[i].seconds;
            times[at].flops += one[i].flops;
            times[at].bytes += one[i].bytes;
        }
    }
    return count;
}
