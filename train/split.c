#include "train/split.h"

#include <inttypes.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"

static lam_status mark_by_column(const lam_shards *shards, const lam_settings *s, uint8_t *validation) {
    const lam_table *metadata = lam_shards_metadata(shards);
    int column = 0;
    LAM_TRY(lam_table_require(metadata, s->validation_column, &column));
    for (int64_t i = 0; i < lam_shards_images(shards); i++)
        validation[i] = !strcmp(lam_table_cell(metadata, i, column), s->validation_group);
    return LAM_OK;
}

static void mark_by_hash(const int64_t *groups, int64_t images, double fraction, uint8_t *validation) {
    lam_rng_key_t key = lam_rng_key(0, LAM_RNG_SPLIT);
    for (int64_t i = 0; i < images; i++) {
        float u[4];
        lam_rng_uniform4(key, 0, (uint64_t)groups[i], 0, u);
        validation[i] = (double)u[0] < fraction;
    }
}

static lam_status check_groups(const int64_t *groups, int64_t group_count, int64_t images,
                               const uint8_t *validation) {
    uint8_t *sides = NULL; /* a group: bit 0 seen in training, bit 1 in validation */
    LAM_TRY(lam_alloc_array((void **)&sides, group_count, 1));
    int64_t cut = -1;
    for (int64_t i = 0; i < images && cut < 0; i++) {
        sides[groups[i]] |= validation[i] ? 2 : 1;
        if (sides[groups[i]] == 3) cut = i;
    }
    lam_free(sides);
    LAM_REQUIRE(cut < 0, LAM_ERROR_CONFIG,
                "data.validation_column: image %" PRId64
                " is on another side than its group (pack --group, else plate and "
                "well); take a column that is constant in a group",
                cut);
    return LAM_OK;
}

lam_status lam_split_images(const lam_shards *shards, const lam_settings *settings, lam_split *split) {
    int64_t images = lam_shards_images(shards), group_count = 0;
    const int64_t *groups = lam_shards_groups(shards, &group_count);
    uint8_t *validation = NULL;
    memset(split, 0, sizeof *split);
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&validation, images, 1), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&split->train, images, sizeof(int64_t)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&split->validation, images, sizeof(int64_t)), done);
    bool by_column = settings->validation_column[0] != 0;
    if (by_column) LAM_TRY_GOTO(mark_by_column(shards, settings, validation), done);
    if (!by_column && settings->validation_fraction > 0)
        mark_by_hash(groups, images, settings->validation_fraction, validation);
    LAM_TRY_GOTO(check_groups(groups, group_count, images, validation), done);
    for (int64_t i = 0; i < images; i++) {
        if (validation[i])
            split->validation[split->validation_count++] = i;
        else
            split->train[split->train_count++] = i;
    }
    bool wanted = by_column || settings->validation_fraction > 0;
    LAM_REQUIRE_GOTO(split->train_count > 0, done, LAM_ERROR_CONFIG,
                     "every image is for validation: nothing is left to train on");
    LAM_REQUIRE_GOTO(!wanted || split->validation_count > 0, done, LAM_ERROR_CONFIG,
                     "no image is for validation: %s",
                     by_column ? "no cell of data.validation_column equals data.validation_group"
                               : "data.validation_fraction is too small for so few groups");
done:
    lam_free(validation);
    if (status != LAM_OK) lam_split_free(split);
    return status;
}

void lam_split_free(lam_split *split) {
    lam_free(split->train);
    lam_free(split->validation);
    memset(split, 0, sizeof *split);
}
