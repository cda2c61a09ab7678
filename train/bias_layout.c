#include "train/bias_layout.h"

#include <string.h>

#include "base/memory.h"

bool lam_bias_is_layout(const lam_parameter_entry *entry) {
    return lam_text_ends_with(entry->name, ".in_proj.bias");
}

int64_t lam_bias_held_first(const lam_parameter_entry *entry, int64_t embed_dim, lam_bias_layout layout) {
    return layout == LAM_BIAS_LEGACY ? 0 : entry->count - 3 * embed_dim;
}

void lam_bias_hold(lam_parameters *p, int64_t embed_dim, lam_bias_layout layout) {
    for (int64_t i = 0; i < p->entries && layout != LAM_BIAS_ALL; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (!lam_bias_is_layout(e)) continue;
        float *held = p->gradients + e->offset + lam_bias_held_first(e, embed_dim, layout);
        memset(held, 0, (size_t)(3 * embed_dim) * sizeof *held);
    }
}

const lam_parameter_entry *lam_bias_stray(const lam_parameters *p, int64_t embed_dim, lam_bias_layout layout,
                                          int64_t *element) {
    for (int64_t i = 0; i < p->entries && layout != LAM_BIAS_ALL; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (!lam_bias_is_layout(e)) continue;
        int64_t first = lam_bias_held_first(e, embed_dim, layout);
        for (*element = first; *element < first + 3 * embed_dim; ++*element)
            if (p->weights[e->offset + *element] != 0.0f) return e;
    }
    return NULL;
}
