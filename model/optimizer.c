#include "model/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "model/cpu/kernels.h"
#include "model/optimizers/rules.h"

#define SUM_BLOCK 65536

static const lam_optimizer *const optimizers[] = {&lam_optimizer_adamw, &lam_optimizer_lion,
                                                  &lam_optimizer_lamb, &lam_optimizer_muon,
                                                  &lam_optimizer_schedule_free};

const lam_optimizer *lam_optimizer_find(const char *name) {
    for (size_t i = 0; i < sizeof optimizers / sizeof optimizers[0]; i++)
        if (!strcmp(name, optimizers[i]->name)) return optimizers[i];
    return NULL;
}

lam_status lam_optimizer_open(lam_optimizer_state *s, const lam_optimizer *optimizer,
                              const lam_parameters *p) {
    *s = (lam_optimizer_state){.optimizer = optimizer};
    for (int k = 0; k < optimizer->arenas; k++)
        LAM_TRY(lam_alloc_array((void **)&s->arena[k], p->trainable, sizeof(float)));
    if (optimizer->workspace)
        LAM_TRY(lam_alloc_array((void **)&s->workspace, optimizer->workspace(p), sizeof(float)));
    if (optimizer->start) optimizer->start(p, s->arena);
    return LAM_OK;
}

void lam_optimizer_close(lam_optimizer_state *s) {
    for (int k = 0; k < LAM_OPTIMIZER_ARENAS; k++) lam_free(s->arena[k]);
    lam_free(s->workspace);
    *s = (lam_optimizer_state){0};
}

int64_t lam_optimizer_bytes(const lam_optimizer *optimizer, const lam_parameters *p) {
    int64_t floats = optimizer->arenas * p->trainable;
    if (optimizer->workspace) floats += optimizer->workspace(p);
    return floats * (int64_t)sizeof(float);
}

double lam_optimizer_rate(const lam_optimizer *optimizer, const lam_update *u) {
    return optimizer->rate ? optimizer->rate(u) : u->lr;
}

lam_status lam_optimizer_step(const lam_optimizer_state *s, const lam_parameters *p, const lam_update *u,
                              int64_t begin, int64_t end) {
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *entry = &p->entry[i];
        if (entry->init == LAM_INIT_FROZEN) continue;
        int64_t from = entry->offset > begin ? entry->offset : begin,
                to = entry->offset + entry->count < end ? entry->offset + entry->count : end;
        if (from >= to) continue;
        LAM_REQUIRE(!s->optimizer->whole || to - from == entry->count, LAM_ERROR_INTERNAL,
                    "%s: the range of an update cuts %s", s->optimizer->name, entry->name);
        lam_update_range range = {.entry = entry,
                                  .weights = p->weights + from,
                                  .gradients = p->gradients + from,
                                  .count = to - from,
                                  .workspace = s->workspace};
        for (int k = 0; k < s->optimizer->arenas; k++) range.arena[k] = s->arena[k] + from;
        LAM_TRY(s->optimizer->step(u, &range));
    }
    return LAM_OK;
}

void lam_average_step(float *average, const lam_parameters *p, double decay, int64_t t, int64_t begin,
                      int64_t end) {
    double share = (1 - decay) / (1 - pow(decay, (double)t));
    lam_kernels_current(false)->optimizer->average(average + begin, p->weights + begin, end - begin,
                                                   (float)share);
}

static double block_sum(const float *values, int64_t count) {
    double lanes[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int k = 0; k < 8; k++) lanes[k] += (double)values[i + k] * (double)values[i + k];
    for (int k = 0; k < 8; k++) sum += lanes[k];
    for (; i < count; i++) sum += (double)values[i] * (double)values[i];
    return sum;
}

double lam_sum_of_squares(const float *values, int64_t begin, int64_t end) {
    enum { GROUP = 64 };
    double total = 0, sums[GROUP];
    for (int64_t start = begin; start < end; start += (int64_t)GROUP * SUM_BLOCK) {
        int64_t blocks = (end - start + SUM_BLOCK - 1) / SUM_BLOCK;
        if (blocks > GROUP) blocks = GROUP;
#pragma omp parallel for schedule(static)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t from = start + b * SUM_BLOCK, count = end - from < SUM_BLOCK ? end - from : SUM_BLOCK;
            sums[b] = block_sum(values + from, count);
        }
        for (int64_t b = 0; b < blocks; b++) total += sums[b];
    }
    return total;
}

const char *lam_first_non_finite(const lam_parameters *p, const float *values) {
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *entry = &p->entry[i];
        if (entry->init == LAM_INIT_FROZEN) continue;
        for (int64_t k = 0; k < entry->count; k++)
            if (!isfinite(values[entry->offset + k])) return entry->name;
    }
    return NULL;
}
