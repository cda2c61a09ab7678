/* What the tests of import and export share: a folder of their own, and the tensors of a golden file under names
 * of their choice, written as other programs write them. Include after cmocka.h; set_up and tear_down are of the
 * group. */
#ifndef LAMELLA_TESTS_FOREIGN_SET_H
#define LAMELLA_TESTS_FOREIGN_SET_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/torch_file.h"
#include "base/weights_file.h"
#include "train/import.h"

static char folder[64];

static inline const char *in(const char *name) {
    static char path[4][160];
    static int next = 0;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
    return path[next];
}

static inline void must(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static inline void write_config(const char *text) {
    must(lam_file_write(in("config.json"), text, strlen(text)));
}

static const char rgb_config[] =
    "{\"num_attention_heads\": 3, \"decoder_num_attention_heads\": 4, \"norm_pix_loss\": true, "
    "\"layer_norm_eps\": 1e-6, \"hidden_act\": \"gelu\"}";

/* The config.json of the golden vit_mae_rgb lies there. */
static inline int set_up(void **state) {
    (void)state;
    lam_log_set_silent(true);
    snprintf(folder, sizeof folder, "/tmp/lamella-foreign-%ld", (long)getpid());
    must(lam_make_folders(folder));
    write_config(rgb_config);
    return 0;
}

static inline int tear_down(void **state) {
    (void)state;
    return lam_remove_tree(folder) == LAM_OK ? 0 : 1;
}

/* ---- the tensors of a golden file, under names of our choice ---- */

typedef struct set {
    lam_torch_tensor tensor[256];
    char name[256][160];
    int64_t shape[256][4];
    float *values[256];
    int count;
} set;

static inline void add(set *s, const char *name, int rank, const int64_t *shape, const float *values) {
    int i = s->count++;
    int64_t count = 1;
    for (int a = 0; a < rank; a++) count *= s->shape[i][a] = shape[a];
    snprintf(s->name[i], sizeof s->name[i], "%s", name);
    must(lam_alloc_array((void **)&s->values[i], count, sizeof(float)));
    memcpy(s->values[i], values, (size_t)count * sizeof(float));
    s->tensor[i] = (lam_torch_tensor){s->name[i], rank, s->shape[i], s->values[i]};
}

static inline set *golden(const char *file) {
    set *s = NULL;
    lam_weights *weights = NULL;
    char path[256];
    snprintf(path, sizeof path, LAM_TEST_GOLDEN "/%s", file);
    must(lam_alloc((void **)&s, sizeof *s));
    must(lam_weights_open(&weights, path));
    for (int64_t i = 0; i < lam_weights_count(weights); i++) {
        const lam_weights_entry *e = lam_weights_at(weights, i);
        float *values = NULL;
        if (strncmp(e->name, "param.", 6) != 0) continue;
        must(lam_alloc_array((void **)&values, e->count, sizeof *values));
        must(lam_weights_read_f32(weights, e, values));
        add(s, e->name + 6, e->rank, e->shape, values);
        lam_free(values);
    }
    lam_weights_close(weights);
    return s;
}

static inline void free_set(set *s) {
    for (int i = 0; i < s->count; i++) lam_free(s->values[i]);
    lam_free(s);
}

static inline void drop(set *s, int i) {
    lam_free(s->values[i]);
    for (int k = i; k + 1 < s->count; k++) {
        memcpy(s->name[k], s->name[k + 1], sizeof s->name[k]);
        memcpy(s->shape[k], s->shape[k + 1], sizeof s->shape[k]);
        s->values[k] = s->values[k + 1];
        s->tensor[k] = (lam_torch_tensor){s->name[k], s->tensor[k + 1].rank, s->shape[k], s->values[k]};
    }
    s->count--;
}

/* Each `from` inside a name becomes `to`. */
static inline void rename_all(set *s, const char *from, const char *to) {
    for (int i = 0; i < s->count; i++) {
        char *at = strstr(s->name[i], from), rest[160];
        if (!at) continue;
        snprintf(rest, sizeof rest, "%s", at + strlen(from));
        snprintf(at, sizeof s->name[i] - (size_t)(at - s->name[i]), "%s%s", to, rest);
    }
}

static inline int find(const set *s, const char *name) {
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->name[i], name)) return i;
    return -1;
}

static inline void drop_named(set *s, const char *part) {
    for (int i = s->count - 1; i >= 0; i--)
        if (strstr(s->name[i], part)) drop(s, i);
}

static inline lam_network *import(const set *s) {
    lam_network *network = NULL;
    must(lam_torch_write(in("model.pth"), s->tensor, s->count, false));
    must(lam_import_network(&network, in("model.pth"), NULL));
    return network;
}

static inline void expect_same(const lam_network *network, const set *s, bool decoder) {
    const lam_parameters *p = network->parameters;
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (!decoder && !strncmp(e->name, "decoder.", 8)) continue;
        int k = find(s, e->name);
        if (k < 0) fail_msg("%s: not in the golden file", e->name);
        if (memcmp(p->weights + e->offset, s->values[k], (size_t)e->count * sizeof(float)) != 0)
            fail_msg("%s: other values", e->name);
    }
    for (int k = 0; k < s->count; k++)
        if (decoder && !lam_parameters_find(p, s->name[k])) fail_msg("%s: left out", s->name[k]);
}

#endif
