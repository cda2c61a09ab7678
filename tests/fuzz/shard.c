/* A shard from bytes. The first byte chooses how: the whole file (header, footer and packed index as they
 * are), the unpacked index (behind the checksums), or one frame. Whatever is accepted must be safe to use. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "data/shard_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads everything that a parsed index points to. */
static void touch(const lam_shard_index *x, uint64_t file_bytes) {
    volatile uint64_t sum = 0;
    for (int64_t i = 0; i < x->images; i++) {
        int64_t tiles = lam_shard_tiles(x->heights[i]) * lam_shard_tiles(x->widths[i]);
        for (int64_t c = 0; c < x->channels; c++) {
            if (x->present[i * x->channels + c] == 0) continue;
            const lam_shard_frame *frame = lam_shard_frames_of(x, i, c);
            for (int64_t t = 0; t < tiles; t++) {
                if (frame[t].offset + frame[t].bytes > file_bytes || frame[t].bytes > LAM_SHARD_MAX_FRAME)
                    abort();
                sum += frame[t].hash;
            }
        }
    }
    for (int64_t c = 0; c < x->channels; c++) sum += strlen(x->channel_names[c]);
    for (int64_t c = 0; c < x->columns; c++) sum += strlen(x->column_names[c]);
    for (int64_t p = 0; p < x->plates; p++) sum += strlen(x->plate_names[p]);
    for (int64_t k = 0; k < x->columns * x->images; k++) sum += strlen(x->cells[k]);
    for (int64_t k = 0; k < x->plates * x->channels; k++) {
        double mean = 0.0, deviation = 0.0;
        lam_sums_finish(&x->sums[k], 12, LAM_TRANSFORM_LOG, &mean, &deviation);
    }
}

static void whole_file(const uint8_t *data, size_t size) {
    lam_shard_index x = {0};
    uint64_t offset = 0, bytes = 0;
    if (size < LAM_SHARD_HEADER_BYTES + LAM_SHARD_FOOTER_BYTES) return;
    const uint8_t *footer = data + size - LAM_SHARD_FOOTER_BYTES;
    if (lam_shard_footer_parse(data, footer, size, "fuzz", &offset, &bytes) != LAM_OK) return;
    if (lam_shard_index_parse(&x, data, footer, data + offset, bytes, size, "fuzz") == LAM_OK)
        touch(&x, size);
    lam_shard_index_free(&x);
}

static void one_frame(const uint8_t *data, size_t size) {
    static uint8_t pixels[LAM_SHARD_MAX_FRAME];
    if (size < 4 || size > LAM_SHARD_MAX_FRAME) return;
    lam_shard_frame frame = {.bytes = (uint32_t)(size - 4), .pixel_bytes = (data[1] & 1) + 1};
    frame.codec = data[0] & 1 ? frame.pixel_bytes : LAM_CODEC_RAW;
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (context == NULL) return;
    lam_frame_decode_unchecked(&frame, data + 4, data[2] + 1, data[3] + 1, pixels, context, "fuzz");
    ZSTD_freeDCtx(context);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    if (data[0] == 'L') {
        whole_file(data, size);
    } else if (data[0] & 1) {
        one_frame(data + 1, size - 1);
    } else {
        lam_shard_index x = {0};
        if (lam_shard_index_parse_plain(&x, data + 1, size - 1, 1 << 20, "fuzz") == LAM_OK)
            touch(&x, 1 << 20);
        lam_shard_index_free(&x);
    }
    return 0;
}
