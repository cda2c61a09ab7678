#include "model/optimizer.h"

#include <math.h>

#include "base/memory.h"
#include "model/cpu/kernels.h"

#define SUM_BLOCK 65536

typedef void (*range_rule)(const void *rule, const lam_parameter_entry *entry, float *w, const float *g,
                           float *a, float *b, int64_t count);

/* Calls `apply` for the part of every trainable parameter that lies in [begin, end). */
static void each(const lam_parameters *p, int64_t begin, int64_t end, range_rule apply, const void *rule,
                 float *a, float *b) {
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *entry = &p->entry[i];
        if (entry->init == LAM_INIT_FROZEN) continue;
        int64_t from = entry->offset > begin ? entry->offset : begin,
                to = entry->offset + entry->count < end ? entry->offset + entry->count : end;
        if (from < to)
            apply(rule, entry, p->weights + from, p->gradients + from, a + from, b ? b + from : NULL,
                  to - from);
    }
}

static void adamw(const void *context, const lam_parameter_entry *entry, float *w, const float *g, float *m,
                  float *v, int64_t count) {
    const lam_adamw *rule = context;
    double lr = rule->lr * entry->lr_scale;
    lam_adamw_terms terms = {
        .decay_factor = entry->decay ? (float)(1.0 - lr * rule->weight_decay) : 1.0f,
        .beta1 = (float)rule->beta1,
        .beta2 = (float)rule->beta2,
        .eps = (float)rule->eps,
        .step_size = (float)(lr / (1.0 - pow(rule->beta1, (double)rule->t))),
        .inverse_root_correction2 = (float)(1.0 / sqrt(1.0 - pow(rule->beta2, (double)rule->t))),
        .gradient_scale = (float)rule->gradient_scale,
    };
    lam_kernels_current(false)->adamw(w, g, m, v, count, &terms);
}

void lam_adamw_step(const lam_adamw *rule, const lam_parameters *p, float *m, float *v, int64_t begin,
                    int64_t end) {
    each(p, begin, end, adamw, rule, m, v);
}

static void lion(const void *context, const lam_parameter_entry *entry, float *w, const float *g, float *m,
                 float *unused, int64_t count) {
    (void)unused;
    const lam_lion *rule = context;
    double lr = rule->lr * entry->lr_scale;
    lam_kernels_current(false)->lion(w, g, m, count,
                                     entry->decay ? (float)(1.0 - lr * rule->weight_decay) : 1.0f, (float)lr,
                                     (float)rule->beta1, (float)rule->beta2, (float)rule->gradient_scale);
}

void lam_lion_step(const lam_lion *rule, const lam_parameters *p, float *m, int64_t begin, int64_t end) {
    each(p, begin, end, lion, rule, m, NULL);
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
