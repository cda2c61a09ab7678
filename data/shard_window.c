#include "data/shard_parts.h"

#include <string.h>
#include <zstd.h>

#include "base/memory.h"

/* What one decoding needs; kept in a list and used again. */
typedef struct scratch {
    struct scratch *next;
    ZSTD_DCtx *context;
    unsigned char stored[LAM_SHARD_MAX_FRAME], pixels[LAM_SHARD_MAX_FRAME];
} scratch;

static lam_status scratch_take(lam_shards *s, scratch **out) {
    pthread_mutex_lock(&s->mutex);
    scratch *a = s->free_scratch;
    if (a != NULL) s->free_scratch = a->next;
    pthread_mutex_unlock(&s->mutex);
    if (a == NULL) {
        LAM_TRY(lam_alloc((void **)&a, sizeof *a));
        a->context = ZSTD_createDCtx();
        if (a->context == NULL) {
            lam_free(a);
            LAM_FAIL(LAM_ERROR_MEMORY, "out of memory for a Zstandard decoder");
        }
    }
    *out = a;
    return LAM_OK;
}

static void scratch_give(lam_shards *s, scratch *a) {
    pthread_mutex_lock(&s->mutex);
    a->next = s->free_scratch;
    s->free_scratch = a;
    pthread_mutex_unlock(&s->mutex);
}

void lam_shards_free_scratch(lam_shards *s) {
    for (scratch *a = s->free_scratch, *next = NULL; a != NULL; a = next) {
        next = a->next;
        ZSTD_freeDCtx(a->context);
        lam_free(a);
    }
}

typedef struct window {
    int64_t y, x, height, width;
} window;

/* Copies what the tile (its origin and size) shares with the window, widened where the folder is of 16 bits.
 */
static void copy_overlap(const lam_shards *s, const window *w, const window *tile, const void *pixels,
                         int pixel_bytes, void *out) {
    int64_t top = tile->y > w->y ? tile->y : w->y, left = tile->x > w->x ? tile->x : w->x;
    int64_t bottom = tile->y + tile->height < w->y + w->height ? tile->y + tile->height : w->y + w->height;
    int64_t right = tile->x + tile->width < w->x + w->width ? tile->x + tile->width : w->x + w->width;
    for (int64_t y = top; y < bottom; y++) {
        const unsigned char *from =
            (const unsigned char *)pixels + ((y - tile->y) * tile->width + left - tile->x) * pixel_bytes;
        unsigned char *to = (unsigned char *)out + ((y - w->y) * w->width + left - w->x) * (int)s->type;
        if (pixel_bytes == (int)s->type) {
            memcpy(to, from, (size_t)((right - left) * pixel_bytes));
        } else {
            for (int64_t x = 0; x < right - left; x++) ((uint16_t *)to)[x] = from[x];
        }
    }
}

lam_status lam_shards_read_window(lam_shards *s, int64_t image, int64_t channel, int64_t y, int64_t x,
                                  int64_t height, int64_t width, void *out) {
    LAM_REQUIRE(image >= 0 && image < s->images && channel >= 0 && channel < s->channels, LAM_ERROR_INPUT,
                "%s: image %lld, channel %lld: there are %lld images of %lld channels", s->path,
                (long long)image, (long long)channel, (long long)s->images, (long long)s->channels);
    shard_file *shard = &s->shard[s->shard_of[image]];
    const lam_shard_index *index = &shard->index;
    int64_t local = image - shard->first, full_height = index->heights[local],
            full_width = index->widths[local];
    LAM_REQUIRE(y >= 0 && x >= 0 && height >= 1 && width >= 1 && height <= full_height &&
                    width <= full_width && y <= full_height - height && x <= full_width - width,
                LAM_ERROR_INPUT, "%s: image %lld is %lld x %lld: no window of %lld x %lld at %lld, %lld",
                s->path, (long long)image, (long long)full_height, (long long)full_width, (long long)height,
                (long long)width, (long long)y, (long long)x);
    if (index->present[local * s->channels + channel] == 0) {
        memset(out, 0, (size_t)(height * width) * (size_t)s->type);
        return LAM_OK;
    }
    const lam_shard_frame *frames = lam_shard_frames_of(index, local, channel);
    int64_t across = lam_shard_tiles(full_width);
    window wanted = {y, x, height, width};
    scratch *a = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(scratch_take(s, &a));
    for (int64_t row = y / LAM_SHARD_TILE; row <= (y + height - 1) / LAM_SHARD_TILE; row++) {
        for (int64_t column = x / LAM_SHARD_TILE; column <= (x + width - 1) / LAM_SHARD_TILE; column++) {
            const lam_shard_frame *frame = &frames[row * across + column];
            window tile = {row * LAM_SHARD_TILE, column * LAM_SHARD_TILE, LAM_SHARD_TILE, LAM_SHARD_TILE};
            if (tile.height > full_height - tile.y) tile.height = full_height - tile.y;
            if (tile.width > full_width - tile.x) tile.width = full_width - tile.x;
            LAM_TRY_GOTO(lam_reader_at(shard->reader, frame->offset, a->stored, frame->bytes), done);
            LAM_TRY_GOTO(lam_frame_decode(frame, a->stored, tile.height, tile.width, a->pixels, a->context,
                                          shard->name),
                         done);
            copy_overlap(s, &wanted, &tile, a->pixels, frame->pixel_bytes, out);
        }
    }
done:
    scratch_give(s, a);
    if (status == LAM_ERROR_FORMAT)
        return lam_fail_context(status, "%s: image %lld, channel %s", s->path, (long long)image,
                                index->channel_names[channel]);
    return status;
}
