/* JSON files that lie beside weights and say what tensors cannot: config.json, preprocessor_config.json. They are other people's:
 * a value of another type than its key has, or that cannot be, is an error and never a default.
 *
 *     lam_beside config = {0};
 *     int64_t heads = 0;
 *     LAM_TRY(lam_beside_open(&config, "vit-mae-base/model.safetensors", "config.json"));
 *     LAM_TRY(lam_beside_whole(&config, "num_attention_heads", 1, 1024, &heads));
 *     lam_beside_close(&config);
 *
 * A key that is absent or null, as all are where the file is absent, leaves *value as it is. A key "pretrained_cfg.mean" stands
 * in the object "pretrained_cfg". Errors are LAM_ERROR_INPUT (LAM_ERROR_FORMAT where the file holds no JSON object) and name the
 * file, the key, the value and what is due. */
#ifndef LAMELLA_TRAIN_BESIDE_H
#define LAMELLA_TRAIN_BESIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_beside {
    lam_json *json; /* NULL: there is no such file */
    char *path;
} lam_beside;

/* The file `name` in the folder of `weights`. */
lam_status lam_beside_open(lam_beside *beside, const char *weights, const char *name);
void lam_beside_close(lam_beside *beside);

lam_status lam_beside_whole(const lam_beside *beside, const char *key, int64_t low, int64_t high,
                            int64_t *value);
lam_status lam_beside_number(const lam_beside *beside, const char *key, double low, double high,
                             double *value);
lam_status lam_beside_truth(const lam_beside *beside, const char *key, bool *value);
/* One of "a|b|c"; *choice: its place among them, from 0 on. */
lam_status lam_beside_choice(const lam_beside *beside, const char *key, const char *choices, int *choice);
/* A list of `count` numbers; *given: it is there. */
lam_status lam_beside_numbers(const lam_beside *beside, const char *key, int64_t count, double low,
                              double high, double *values, bool *given);

#ifdef __cplusplus
}
#endif
#endif
