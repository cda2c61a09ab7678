#include "model/places.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* The first component of a name that is a number; -1: none. */
static int64_t block_of(const char *name) {
    for (const char *part = name; part; part = strchr(part, '.')) {
        part += *part == '.';
        size_t digits = strspn(part, "0123456789");
        if (digits > 0 && (part[digits] == '.' || part[digits] == 0)) return strtoll(part, NULL, 10);
    }
    return -1;
}

int64_t lam_parameter_layer(const char *name, int64_t depth) {
    if (strstr(name, "decoder") || strstr(name, "mask_token")) return depth + 1;
    int64_t block = block_of(name);
    if (block >= 0) return block < depth ? block + 1 : depth + 1;
    return strstr(name, "embed") || strstr(name, "_token") ? 0 : depth + 1;
}

void lam_layer_decay(lam_parameters *p, int64_t depth, double decay) {
    for (int64_t i = 0; i < p->entries; i++)
        p->entry[i].lr_scale = pow(decay, (double)(depth + 1 - lam_parameter_layer(p->entry[i].name, depth)));
}

int lam_parameter_matrices(const lam_parameter_entry *e, int64_t rows[LAM_MATRIX_PARTS], int64_t *columns) {
    if (e->rank < 2 || e->init == LAM_INIT_FROZEN || !lam_text_ends_with(e->name, ".weight") ||
        strstr(e->name, "patch_embed") || lam_text_ends_with(e->name, "_pred.weight"))
        return 0;
    int64_t all = e->shape[0];
    *columns = e->count / all;
    if (all < 2 || *columns < 2) return 0;
    bool fused = lam_text_ends_with(e->name, "in_proj.weight") || lam_text_ends_with(e->name, "qkv.weight");
    int64_t first = fused ? all - 3 * *columns : -1;
    int parts = 0;
    if (first != 0) rows[parts++] = first > 0 ? first : all;
    for (int k = 0; k < 3 && first >= 0; k++) rows[parts++] = *columns;
    return parts;
}
