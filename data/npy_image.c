/* Images in NPY arrays, with the arrays kept while rows of them are asked for. */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/memory.h"
#include "base/npy.h"
#include "data/image.h"

typedef struct kept {
    struct kept *next;
    char *path;
    lam_npy array;
    size_t bytes;
    int64_t users;
} kept;

/* The list is in the order of use, newest first. */
struct lam_stacks {
    pthread_mutex_t mutex;
    kept *first;
    size_t bytes, limit;
};

bool lam_is_npy_name(const char *path) {
    static const char *const endings[] = {".npy", ".npy.zst", ".npy.gz"};
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t ending = strlen(endings[i]);
        if (length > ending && strcmp(path + length - ending, endings[i]) == 0) return true;
    }
    return false;
}

lam_status lam_stacks_create(lam_stacks **out, size_t limit_bytes) {
    LAM_TRY(lam_alloc((void **)out, sizeof **out));
    pthread_mutex_init(&(*out)->mutex, NULL);
    (*out)->limit = limit_bytes;
    return LAM_OK;
}

static void kept_free(kept *k) {
    lam_npy_free(&k->array);
    lam_free(k->path);
    lam_free(k);
}

void lam_stacks_free(lam_stacks **stacks) {
    lam_stacks *s = *stacks;
    *stacks = NULL;
    if (s == NULL) return;
    for (kept *k = s->first, *next = NULL; k != NULL; k = next) {
        next = k->next;
        kept_free(k);
    }
    pthread_mutex_destroy(&s->mutex);
    lam_free(s);
}

/* With the mutex held: arrays that nobody uses go, oldest first, until the rest fits. */
static void evict(lam_stacks *s) {
    while (s->bytes > s->limit) {
        kept **oldest = NULL;
        for (kept **at = &s->first; *at != NULL; at = &(*at)->next)
            if ((*at)->users == 0 && at != &s->first) oldest = at;
        if (oldest == NULL) return;
        kept *gone = *oldest;
        *oldest = gone->next;
        s->bytes -= gone->bytes;
        kept_free(gone);
    }
}

/* With the mutex held, also while reading: others that want the same array wait for it instead of unpacking
 * it too. */
static lam_status find_or_read(lam_stacks *s, const char *path, kept **out) {
    for (kept **at = &s->first; *at != NULL; at = &(*at)->next) {
        if (strcmp((*at)->path, path) != 0) continue;
        kept *found = *at;
        *at = found->next;
        found->next = s->first;
        s->first = found;
        *out = found;
        return LAM_OK;
    }
    kept *fresh = NULL;
    LAM_TRY(lam_alloc((void **)&fresh, sizeof *fresh));
    lam_status status = lam_text_copy(&fresh->path, path);
    if (status == LAM_OK) status = lam_npy_read(&fresh->array, path);
    if (status != LAM_OK) {
        kept_free(fresh);
        return status;
    }
    fresh->bytes = (size_t)fresh->array.count * fresh->array.item_bytes;
    fresh->next = s->first;
    s->first = fresh;
    s->bytes += fresh->bytes;
    evict(s);
    *out = fresh;
    return LAM_OK;
}

static lam_status copy_image(const lam_npy *a, int64_t row, lam_image *out, const char *path) {
    int skip = row >= 0 ? 1 : 0;
    LAM_REQUIRE(strcmp(a->type, "u1") == 0 || strcmp(a->type, "u2") == 0, LAM_ERROR_FORMAT,
                "%s: an array of %s; pixels are uint8 or uint16: save it with array.astype('u2')", path,
                a->type);
    LAM_REQUIRE(row >= 0 || a->rank == 2 || a->rank == 3, LAM_ERROR_FORMAT,
                "%s: an array of %d dimensions; an image is H x W or C x H x W, and a stack N x C x H x W "
                "needs a column "
                "'row' in the table",
                path, a->rank);
    LAM_REQUIRE(row < 0 || a->rank == 3 || a->rank == 4, LAM_ERROR_FORMAT,
                "%s: an array of %d dimensions; a stack with rows is N x C x H x W or N x H x W", path,
                a->rank);
    LAM_REQUIRE(row < 0 || row < a->shape[0], LAM_ERROR_INPUT,
                "%s: row %lld of a stack of %lld (rows count from 0)", path, (long long)row,
                (long long)a->shape[0]);
    out->channels = a->rank - skip == 3 ? a->shape[skip] : 1;
    out->height = a->shape[a->rank - 2];
    out->width = a->shape[a->rank - 1];
    out->type = a->item_bytes == 1 ? LAM_PIXEL_U8 : LAM_PIXEL_U16;
    LAM_TRY(lam_image_reserve(out, (size_t)a->count * a->item_bytes, 1, path));
    size_t bytes = (size_t)(out->channels * out->height * out->width) * a->item_bytes;
    memcpy(out->pixels, (const char *)a->data + (row >= 0 ? (size_t)row * bytes : 0), bytes);
    return LAM_OK;
}

static lam_status borrow(lam_stacks *stacks, const char *path, kept **out) {
    pthread_mutex_lock(&stacks->mutex);
    lam_status status = find_or_read(stacks, path, out);
    if (status == LAM_OK) (*out)->users++;
    pthread_mutex_unlock(&stacks->mutex);
    return status;
}

static void give_back(lam_stacks *stacks, kept *k) {
    pthread_mutex_lock(&stacks->mutex);
    k->users--;
    evict(stacks);
    pthread_mutex_unlock(&stacks->mutex);
}

lam_status lam_stacks_read(lam_stacks *stacks, const char *path, int64_t row, lam_image *out) {
    kept *k = NULL;
    *out = (lam_image){0};
    LAM_TRY(borrow(stacks, path, &k));
    lam_status status = copy_image(&k->array, row, out, path);
    give_back(stacks, k);
    return status;
}

static lam_status divide(const lam_npy *a, lam_image *image, int64_t channel, const char *path) {
    int64_t plane = image->height * image->width;
    LAM_REQUIRE((strcmp(a->type, "f4") == 0 || strcmp(a->type, "f8") == 0) && a->rank >= 2 && a->rank <= 3 &&
                    a->count == plane && a->shape[a->rank - 2] == image->height &&
                    a->shape[a->rank - 1] == image->width,
                LAM_ERROR_INPUT,
                "%s: an illumination function is a float array of the image's size, %lld x %lld", path,
                (long long)image->height, (long long)image->width);
    double most = image->type == LAM_PIXEL_U8 ? 255.0 : 65535.0;
    for (int64_t i = 0; i < plane; i++) {
        double light =
            a->item_bytes == 4 ? (double)((const float *)a->data)[i] : ((const double *)a->data)[i];
        LAM_REQUIRE(isfinite(light) && light > 0.0, LAM_ERROR_INPUT,
                    "%s: an illumination function of %g at pixel %lld; all values are above 0", path, light,
                    (long long)i);
        int64_t at = channel * plane + i;
        double v =
            image->type == LAM_PIXEL_U8 ? ((uint8_t *)image->pixels)[at] : ((uint16_t *)image->pixels)[at];
        v = floor(v / light + 0.5);
        if (v > most) v = most;
        if (image->type == LAM_PIXEL_U8)
            ((uint8_t *)image->pixels)[at] = (uint8_t)v;
        else
            ((uint16_t *)image->pixels)[at] = (uint16_t)v;
    }
    return LAM_OK;
}

lam_status lam_stacks_illuminate(lam_stacks *stacks, const char *path, lam_image *image, int64_t channel) {
    kept *k = NULL;
    LAM_TRY(borrow(stacks, path, &k));
    lam_status status = divide(&k->array, image, channel, path);
    give_back(stacks, k);
    return status;
}
