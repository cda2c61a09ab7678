#include "train/crops.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"

static int64_t spread(int64_t index, int64_t count, int64_t room) {
    return count == 1 ? room / 2 : index * room / (count - 1);
}

static int64_t place(const lam_shards *shards, int64_t image, int64_t size, int64_t per_image,
                     lam_rng_key_t key, lam_crop *crops) {
    int64_t height = 0, width = 0, count = 0;
    lam_shards_image_size(shards, image, &height, &width);
    if (per_image > 0) {
        for (int64_t i = 0; i < per_image; i++) {
            uint32_t w[4];
            lam_rng_words4(key, 0, (uint64_t)image, (uint32_t)i, w);
            crops[count++] = (lam_crop){image, lam_word_below(w[0], (uint32_t)(height - size + 1)),
                                        lam_word_below(w[1], (uint32_t)(width - size + 1))};
        }
        return count;
    }
    int64_t down = height / size, across = width / size;
    for (int64_t r = 0; r < down; r++) {
        for (int64_t c = 0; c < across; c++)
            crops[count++] =
                (lam_crop){image, spread(r, down, height - size), spread(c, across, width - size)};
    }
    return count;
}

lam_status lam_crops_list(const lam_shards *shards, int64_t size, int64_t per_image, uint64_t seed,
                          lam_crop **crops, int64_t *count) {
    int64_t images = lam_shards_images(shards), total = 0;
    *crops = NULL;
    *count = 0;
    for (int64_t i = 0; i < images; i++) {
        int64_t height = 0, width = 0;
        lam_shards_image_size(shards, i, &height, &width);
        LAM_REQUIRE(height >= size && width >= size, LAM_ERROR_INPUT,
                    "%s: image %" PRId64 " has %" PRId64 " x %" PRId64 " pixels, the crops need %" PRId64
                    " x %" PRId64,
                    lam_shards_path(shards), i, height, width, size, size);
        total += per_image > 0 ? per_image : (height / size) * (width / size);
    }
    LAM_TRY(lam_alloc_array((void **)crops, total, sizeof **crops));
    lam_rng_key_t key = lam_rng_key(seed, LAM_RNG_EMBED);
    for (int64_t i = 0; i < images; i++) *count += place(shards, i, size, per_image, key, *crops + *count);
    return LAM_OK;
}

lam_status lam_crops_read(lam_shards *shards, const lam_crop *crops, int64_t count, int64_t size,
                          const int64_t *channel_map, int64_t channels, void *pixels, uint8_t *present,
                          uint8_t *damaged) {
    size_t plane = (size_t)(size * size) * (size_t)lam_shards_pixel_type(shards);
    lam_status worst = LAM_OK;
    char message[1024] = "";
    int64_t first = count, reported = -1;
    if (damaged) memset(damaged, 0, (size_t)count);
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < count; i++) {
        for (int64_t c = 0; c < channels; c++) {
            char *out = (char *)pixels + (size_t)(i * channels + c) * plane;
            bool there =
                channel_map[c] >= 0 && lam_shards_has_channel(shards, crops[i].image, channel_map[c]);
            present[i * channels + c] = there;
            memset(out, 0, plane);
            if (!there) continue;
            lam_status status = lam_shards_read_window(shards, crops[i].image, channel_map[c], crops[i].y,
                                                       crops[i].x, size, size, out);
            if (status == LAM_OK) continue;
#pragma omp critical(lam_crops_read_failed)
            if (damaged && status == LAM_ERROR_FORMAT) {
                damaged[i] = 1;
                if (crops[i].image != reported)
                    lam_log_warning_here("%s: the image is left out", lam_last_error());
                reported = crops[i].image;
            } else if (i <
                       first) { /* messages are kept by thread: carry that of the first failing crop over */
                first = i;
                worst = status;
                strncpy(message, lam_last_error(), sizeof message - 1);
            }
        }
    }
    LAM_REQUIRE(worst == LAM_OK, worst, "%s", message);
    return LAM_OK;
}
