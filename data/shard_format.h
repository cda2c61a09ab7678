/* One shard file: its index, parsed and checked, and its frames. The format is in data/shard.h.
 *
 *     LAM_TRY(lam_shard_index_parse(&index, header, footer, packed, packed_bytes, file_bytes,
 * "shard_00000.lam")); const lam_shard_frame *f = lam_shard_frames_of(&index, image, channel);   // tiles row
 * by row LAM_TRY(lam_frame_decode(f, stored, height, width, tile, context, "shard_00000.lam"));
 *     lam_shard_index_free(&index);
 *
 * Nothing here trusts the bytes: whatever they are, the answer is an index that is safe to use or
 * LAM_ERROR_FORMAT. */
#ifndef LAMELLA_DATA_SHARD_FORMAT_H
#define LAMELLA_DATA_SHARD_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "data/shard.h"
#include "data/statistics.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    LAM_SHARD_HEADER_BYTES = 64,
    LAM_SHARD_FOOTER_BYTES = 48,
    LAM_SHARD_INDEX_FIXED_BYTES = 56,
    LAM_SHARD_FRAME_BYTES = 24,
    LAM_SHARD_VERSION = 1,
    LAM_SHARD_TILE = 256,
    LAM_SHARD_MAX_FRAME =
        LAM_SHARD_TILE * LAM_SHARD_TILE * 2, /* stored bytes: raw where Zstandard would be larger */
    LAM_SHARD_MAX_CHANNELS = 1024,
    LAM_SHARD_MAX_COLUMNS = 4096,
    LAM_SHARD_MAX_SIDE = 1000000
};
#define LAM_SHARD_MAX_INDEX ((uint64_t)2 << 30)
extern const char lam_shard_magic[9];

typedef enum lam_codec { LAM_CODEC_RAW = 0, LAM_CODEC_DELTA8 = 1, LAM_CODEC_DELTA16 = 2 } lam_codec;

typedef struct lam_shard_frame {
    uint64_t offset, hash;
    uint32_t bytes;
    uint8_t codec, pixel_bytes;
} lam_shard_frame;

typedef struct lam_shard_index {
    int64_t channels, columns, images, frames, plates, first_row;
    uint64_t settings_hash, slice_hash;
    uint64_t hash;             /* of the header and the footer's first 32 bytes: names the content */
    uint32_t *channel_maximum; /* [channels] */
    uint8_t *present;          /* [images, channels] bytes of a pixel, 0: absent */
    uint32_t *heights, *widths;
    int64_t *first_frame;   /* [images] */
    lam_shard_frame *frame; /* [frames] */
    lam_sums *sums;         /* [plates, channels] */
    char *texts;
    const char **channel_names, **column_names, **plate_names;
    const char **cells; /* [columns, images] */
} lam_shard_index;

/* `header` and `footer` are the first 64 and last 48 bytes of a file of `file_bytes`. lam_shard_index_free,
 * also after an error. */
lam_status lam_shard_index_parse(lam_shard_index *out, const unsigned char *header,
                                 const unsigned char *footer, const unsigned char *packed,
                                 size_t packed_bytes, uint64_t file_bytes, const char *name);
/* Offset and size of the stored index, checked against the file. */
lam_status lam_shard_footer_parse(const unsigned char *header, const unsigned char *footer,
                                  uint64_t file_bytes, const char *name, uint64_t *index_offset,
                                  uint64_t *index_bytes);
/* The unpacked index; frames must end before `frames_end`. */
lam_status lam_shard_index_parse_plain(lam_shard_index *out, const unsigned char *plain, size_t size,
                                       uint64_t frames_end, const char *name);
/* Opens `path`, reads and checks its index. */
lam_status lam_shard_index_read(lam_shard_index *out, const char *path);
void lam_shard_index_free(lam_shard_index *index);
/* Reads every frame of the file and compares its checksum; LAM_ERROR_FORMAT. */
lam_status lam_shard_frames_check(const lam_shard_index *index, const char *path);

/* First frame of a channel that is present. */
const lam_shard_frame *lam_shard_frames_of(const lam_shard_index *index, int64_t image, int64_t channel);
static inline int64_t lam_shard_tiles(int64_t side) { return (side + LAM_SHARD_TILE - 1) / LAM_SHARD_TILE; }

/* Decodes a tile to pixels [height, width] of frame->pixel_bytes. `context` is a ZSTD_DCtx. The checksum is
 * checked first; LAM_ERROR_FORMAT with the name. */
lam_status lam_frame_decode(const lam_shard_frame *frame, const void *stored, int64_t height, int64_t width,
                            void *pixels, void *context, const char *name);
/* The same without the checksum (fuzzing reaches the decoder). */
lam_status lam_frame_decode_unchecked(const lam_shard_frame *frame, const void *stored, int64_t height,
                                      int64_t width, void *pixels, void *context, const char *name);

/* lam_shards_open with what dataset.json says (or will say). */
lam_status lam_shards_open_listed(lam_shards **out, const char *folder, const lam_json *dataset);

/* The column that names the plate: plate, else Metadata_Plate, else batch; -1: none. */
int lam_plate_column(const lam_table *table);
/* The columns that form the default group: plate (as above) and well or Metadata_Well; false where one lacks.
 */
bool lam_group_columns(const lam_table *table, int columns[2]);

static inline uint64_t lam_get_le(const unsigned char *at, int bytes) {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | at[i];
    return value;
}
static inline void lam_put_le(unsigned char *at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) at[i] = (unsigned char)(value >> (8 * i));
}

#ifdef __cplusplus
}
#endif
#endif
