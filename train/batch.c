#include "train/batch.h"

#include <string.h>

/* used: rows of the batch from `begin` on; zeros behind them. */
static lam_status feed_pixels(lam_tensor *to, const lam_batch *batch, int64_t begin, int64_t used) {
    int64_t rows = lam_tensor_dim(to, 0);
    size_t row_bytes = (size_t)(lam_tensor_count(to) / rows) * (lam_tensor_dtype(to) == LAM_U8 ? 1 : 2);
    const char *from = (const char *)batch->pixels + (size_t)begin * row_bytes;
    if (batch->pinned && used == rows) return lam_tensor_send_from(to, from);
    LAM_TRY(lam_tensor_send_from(to, NULL));
    char *pixels = lam_tensor_data(to);
    memcpy(pixels, from, (size_t)used * row_bytes);
    memset(pixels + (size_t)used * row_bytes, 0, (size_t)(rows - used) * row_bytes);
    return LAM_OK;
}

lam_status lam_batch_feed(const lam_mae_io *io, const lam_feeder *feeder, const lam_batch *batch,
                          int64_t begin, int64_t step, double weight, bool training) {
    const lam_mae_pixels *in = &io->input;
    int64_t rows = lam_tensor_dim(in->pixels, 0), channels = feeder->channels;
    int64_t used = batch->rows - begin < rows ? batch->rows - begin : rows;
    LAM_TRY(feed_pixels(in->pixels, batch, begin, used));
    float *present = lam_tensor_data(in->present), *weights = lam_tensor_data(io->sample_weight);
    float *mean = in->mean ? lam_tensor_data(in->mean) : NULL,
          *rstd = in->rstd ? lam_tensor_data(in->rstd) : NULL;
    int64_t *ids = lam_tensor_data(io->sample_ids);

    memcpy(lam_tensor_data(in->scale), feeder->scale, (size_t)channels * sizeof(float));
    *(int64_t *)lam_tensor_data(io->step) = step;
    if (io->drop_scale) *(float *)lam_tensor_data(io->drop_scale) = training ? 1.0f : 0.0f;
    for (int64_t i = 0; i < rows; i++) {
        bool valid = i < used && batch->valid[begin + i];
        int64_t plate = valid ? batch->plates[begin + i] : 0;
        ids[i] = valid ? batch->sample_ids[begin + i] : 0;
        weights[i] = valid ? (float)weight : 0.0f;
        for (int64_t c = 0; c < channels; c++) {
            present[i * channels + c] = valid && batch->present[(begin + i) * channels + c] ? 1.0f : 0.0f;
            if (mean) mean[i * channels + c] = feeder->mean[plate * channels + c];
            if (rstd) rstd[i * channels + c] = feeder->rstd[plate * channels + c];
        }
    }
    return LAM_OK;
}
