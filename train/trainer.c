#include "train/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/cli.h"
#include "base/gemm.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/signals.h"
#include "base/threads.h"
#include "model/places.h"
#include "train/batch.h"
#include "train/bias_layout.h"
#include "train/import.h"
#include "train/pictures.h"

/* Masks of validations and pictures: a step that no run of at most 1e9 steps has. */
static const int64_t FIXED_MASK_STEP = INT32_MAX;

enum { PICTURE_CROPS = 8 };

static lam_loader_config loader_config(const lam_trainer *t, bool validation) {
    const lam_settings *s = t->settings;
    int threads = s->loader_threads ? s->loader_threads : lam_threads() / 2;
    return (lam_loader_config){.images = validation ? t->split.validation : t->split.train,
                               .image_count = validation ? t->split.validation_count : t->split.train_count,
                               .global_batch = s->global_batch,
                               .crop_size = s->model.image_size,
                               .crops_per_image = validation ? 1 : s->crops_per_image,
                               .flips = !validation && s->flips,
                               .rotations = !validation && s->rotations,
                               .center = validation,
                               .minimum_foreground = validation ? 0 : s->minimum_foreground,
                               .seed = s->seed,
                               .rank = t->rank,
                               .world_size = t->world_size,
                               .threads = threads > 0 ? threads : 1,
                               .strict = s->strict};
}

static lam_status allocate_pixels(void **out, size_t bytes, void *trainer) {
    return lam_backend_allocate_pinned(((const lam_trainer *)trainer)->backend, out, bytes);
}
static void release_pixels(void *pixels, void *trainer) {
    lam_backend_release_pinned(((const lam_trainer *)trainer)->backend, pixels);
}
static lam_status settle_pixels(void *trainer) {
    return lam_backend_sent(((const lam_trainer *)trainer)->backend);
}

static lam_status open_loaders(lam_trainer *t) {
    LAM_TRY(lam_split_images(t->shards, t->settings, &t->split));
    lam_loader_config config = loader_config(t, false);
    if (t->backend != lam_backend_cpu()) { /* which copies from the ring */
        config.allocate = allocate_pixels;
        config.release = release_pixels;
        config.settle = settle_pixels;
        config.allocator_context = t;
    }
    LAM_TRY(lam_loader_open(&t->loader, t->shards, &config));
    t->steps_per_epoch = lam_loader_steps_per_epoch(t->loader);
    t->steps = t->settings->steps ? t->settings->steps : t->settings->epochs * t->steps_per_epoch;
    t->settings->schedule.steps = t->steps;
    if (t->split.validation_count > 0) {
        config = loader_config(t, true);
        config.threads = 1;
        config.ring = 2;
        LAM_TRY(lam_loader_open(&t->validation, t->shards, &config));
    }
    return LAM_OK;
}

int64_t lam_trainer_optimizer_bytes(const lam_trainer *t) {
    const lam_settings *s = t->settings;
    lam_parameters *p = t->network->parameters;
    if (t->backend != lam_backend_cpu()) {
        lam_device_step_options options = {.backend = t->backend,
                                           .parameters = p,
                                           .optimizer = s->optimizer,
                                           .average = s->ema > 0,
                                           .bf16 = s->bf16};
        return lam_device_step_bytes(&options);
    }
    int64_t average = s->ema > 0 ? p->trainable * (int64_t)sizeof(float) : 0;
    return lam_optimizer_bytes(s->optimizer, p) + average;
}

static lam_status build_graphs(lam_trainer *t) {
    const lam_settings *s = t->settings;
    int64_t share =
        s->global_batch * (t->rank + 1) / t->world_size - s->global_batch * t->rank / t->world_size;
    LAM_REQUIRE(s->global_batch >= t->world_size, LAM_ERROR_CONFIG,
                "train.global_batch: %" PRId64 " leaves some of the %d ranks without a crop", s->global_batch,
                t->world_size);
    t->micro_batch = s->micro_batch > 0 && s->micro_batch < share ? s->micro_batch : share;
    t->model = s->model;
    return lam_graphs_open(&t->graphs, t->network->parameters, t->backend, s, t->micro_batch,
                           lam_trainer_optimizer_bytes(t));
}

/* A copy of the first rows of a batch of middle windows. */
static lam_status load_pictured(lam_trainer *t) {
    lam_loader *loader = NULL;
    const lam_batch *batch = NULL;
    int64_t channels = t->feeder.channels;
    lam_loader_config config = loader_config(t, true);
    if (t->split.validation_count == 0) {
        config.images = t->split.train;
        config.image_count = t->split.train_count;
    }
    int64_t rows = t->micro_batch < PICTURE_CROPS ? t->micro_batch : PICTURE_CROPS;
    if (rows > config.image_count) rows = config.image_count;
    config.global_batch = rows;
    config.rank = 0;
    config.world_size = 1;
    config.threads = 1;
    config.ring = 2;
    size_t pixel_bytes = (size_t)(channels * config.crop_size * config.crop_size) *
                         (t->settings->model.pixel_type == LAM_U8 ? 1 : 2);
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_loader_open(&loader, t->shards, &config), done);
    LAM_TRY_GOTO(lam_loader_seek(loader, 0), done);
    LAM_TRY_GOTO(lam_loader_next(loader, &batch), done);
    LAM_TRY_GOTO(lam_alloc((void **)&t->pictured, sizeof *t->pictured), done);
    lam_batch *copy = t->pictured;
    copy->rows = rows;
    LAM_TRY_GOTO(lam_alloc(&copy->pixels, (size_t)rows * pixel_bytes), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&copy->sample_ids, rows, sizeof(int64_t)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&copy->plates, rows, sizeof(int64_t)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&copy->valid, rows, 1), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&copy->present, rows * channels, 1), done);
    memcpy(copy->pixels, batch->pixels, (size_t)rows * pixel_bytes);
    memcpy(copy->sample_ids, batch->sample_ids, (size_t)rows * sizeof(int64_t));
    memcpy(copy->plates, batch->plates, (size_t)rows * sizeof(int64_t));
    memcpy(copy->valid, batch->valid, (size_t)rows);
    memcpy(copy->present, batch->present, (size_t)(rows * channels));
    t->picture_crops = rows;
done:
    lam_loader_close(&loader);
    return status;
}

static lam_status open_device(lam_trainer *t) {
    const lam_settings *s = t->settings;
    lam_parameters *p = t->network->parameters;
    lam_cuda_range *held = NULL;
    int64_t held_count = 0;
    if (t->backend == lam_backend_cpu()) return LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&held, p->entries, sizeof *held));
    for (int64_t i = 0; i < p->entries && s->bias_layout != LAM_BIAS_ALL; i++) {
        if (!lam_bias_is_layout(&p->entry[i])) continue;
        int64_t begin = p->entry[i].offset + lam_bias_held_first(&p->entry[i], s->model.embed_dim, s->bias_layout);
        held[held_count++] = (lam_cuda_range){begin, begin + 3 * s->model.embed_dim};
    }
    lam_device_step_options options = {.backend = t->backend,
                                       .dist = t->dist,
                                       .parameters = p,
                                       .graphs = t->graphs.graph,
                                       .io = t->graphs.io,
                                       .graph_count = t->graphs.count,
                                       .optimizer = s->optimizer,
                                       .average = t->average != NULL,
                                       .held = held,
                                       .held_count = held_count,
                                       .bf16 = s->bf16,
                                       .autotune = t->autotune};
    lam_status status = lam_device_step_open(&t->device, &options);
    lam_free(held);
    return status;
}

lam_status lam_trainer_push(lam_trainer *t) {
    if (!t->device) return LAM_OK;
    LAM_TRY(lam_parameters_push(t->network->parameters));
    return lam_device_step_push(t->device, t->optimizer.arena, t->average, t->state.updates, t->state.skipped,
                                t->state.skipped_in_row);
}

lam_status lam_trainer_pull(lam_trainer *t) {
    if (!t->device) return LAM_OK;
    LAM_TRY(lam_parameters_pull(t->network->parameters));
    return lam_device_step_pull(t->device, t->optimizer.arena, t->average);
}

static lam_status open_all(lam_trainer *t) {
    int64_t *channel_map = NULL;
    LAM_TRY(open_loaders(t));
    LAM_TRY(build_graphs(t));
    LAM_TRY(lam_alloc_array((void **)&channel_map, t->network->channels, sizeof(int64_t)));
    for (int64_t c = 0; c < t->network->channels; c++) channel_map[c] = c;
    lam_status status = lam_feeder_create(&t->feeder, t->network, t->shards, channel_map);
    lam_free(channel_map);
    LAM_TRY(status);
    lam_parameters *p = t->network->parameters;
    lam_layer_decay(p, t->settings->model.depth, t->settings->layer_decay);
    LAM_TRY(lam_optimizer_open(&t->optimizer, t->settings->optimizer, p));
    if (t->settings->ema > 0) LAM_TRY(lam_alloc_array((void **)&t->average, p->trainable, sizeof(float)));
    if (t->rank == 0) LAM_TRY(load_pictured(t));
    LAM_TRY(open_device(t));
    lam_run_state *s = &t->state;
    s->seed = t->settings->seed;
    s->shards_hash = lam_shards_hash(t->shards);
    s->world_size = t->world_size;
    s->threads = lam_threads();
    strncpy(s->isa, lam_isa_name(), sizeof s->isa - 1);
    strncpy(s->mpi, lam_dist_library(t->dist), sizeof s->mpi - 1);
    if (t->device)
        strncpy(s->gemm, lam_backend_device(t->backend), sizeof s->gemm - 1);
    else
        lam_gemm_library(s->gemm, sizeof s->gemm);
    strncpy(s->version, lam_version, sizeof s->version - 1);
    return LAM_OK;
}

lam_status lam_trainer_open(lam_trainer *t, lam_dist *dist, const lam_device *device, lam_config *config,
                            bool fresh) {
    memset(t, 0, sizeof *t);
    t->dist = dist;
    t->backend = device->backend;
    t->autotune = device->autotune;
    t->rank = lam_dist_rank(dist);
    t->world_size = lam_dist_world_size(dist);
    lam_status status = lam_isa_select();
    if (status == LAM_OK) status = lam_shards_open(&t->shards, lam_config_text(config, "data.path"));
    if (status != LAM_OK) {
        lam_config_free(config);
    } else {
        status = lam_network_create(&t->network, config, t->shards,
                                    (uint64_t)lam_config_int(config, "train.seed"));
        if (status == LAM_OK) {
            t->settings = &t->network->settings;
            if (fresh && t->settings->init[0])
                status = lam_import_weights_check(t->network, t->settings->init);
            if (status == LAM_OK) status = open_all(t);
        }
    }
    status = lam_dist_agree(dist, status);
    if (status != LAM_OK) lam_trainer_close(t);
    return status;
}

void lam_trainer_close(lam_trainer *t) {
    lam_loader_close(&t->loader);
    lam_loader_close(&t->validation);
    lam_device_step_close(&t->device);
    lam_free(t->state.plans);
    lam_graphs_close(&t->graphs);
    lam_feeder_free(&t->feeder);
    lam_split_free(&t->split);
    if (t->pictured) {
        lam_free(t->pictured->pixels);
        lam_free(t->pictured->sample_ids);
        lam_free(t->pictured->plates);
        lam_free(t->pictured->valid);
        lam_free(t->pictured->present);
        lam_free(t->pictured);
    }
    lam_optimizer_close(&t->optimizer);
    lam_free(t->average);
    lam_network_free(&t->network);
    lam_shards_close(&t->shards);
    lam_lock_release(&t->lock);
    memset(t, 0, sizeof *t);
}

static int64_t valid_rows(const lam_batch *batch) {
    int64_t count = 0;
    for (int64_t i = 0; i < batch->rows; i++) count += batch->valid[i] != 0;
    return count;
}

/* Whether any rank failed, how many rows count, whether any rank was told to stop: one small sum. */
static lam_status count_rows(lam_trainer *t, lam_status status, const lam_batch *batch,
                             lam_step_result *result) {
    double counts[3] = {status != LAM_OK, status == LAM_OK ? (double)valid_rows(batch) : 0,
                        lam_stop_requested()};
    LAM_TRY(lam_dist_sum_f64(t->dist, counts, 3));
    if (counts[0] > 0) return lam_dist_agree(t->dist, status);
    result->rows = (int64_t)counts[1];
    result->stop = counts[2] > 0;
    return LAM_OK;
}

static void start_sums(void *trainer, int64_t begin, int64_t end) {
    (void)begin;
    lam_trainer *t = trainer;
    const lam_parameters *p = t->network->parameters;
    for (int64_t next; (next = lam_sum_bucket_end(p, t->sent, end)); t->sent = next) {
        lam_status status = lam_dist_start_sum_f32(t->dist, p->gradients + t->sent, next - t->sent);
        if (t->sent_status == LAM_OK) t->sent_status = status;
    }
}

/* Of a step that takes long: a line now and then, so that a run on a small machine is seen to go on. */
static void say_within(const lam_trainer *t, int64_t done, int64_t rows, double *said) {
    const double interval = 10;
    double now = lam_now();
    if (now - *said < interval) return;
    *said = now;
    lam_log_info("step %" PRId64 " of %" PRId64 ": %" PRId64 " of %" PRId64 " crops%s", t->state.step + 1,
                 t->steps, done, rows, t->world_size > 1 ? " of rank 0" : "");
}

/* *left: told to stop, the rest of the micro-batches is not done. The caller starts the sums that are not started. */
static lam_status compute_gradients(lam_trainer *t, const lam_batch *batch, double weight, double *loss,
                                    bool *left) {
    int64_t at = t->graphs.of_level[lam_mask_level(t->state.step, t->steps)];
    lam_graph *graph = t->graphs.graph[at];
    const lam_mae_io *io = &t->graphs.io[at];
    t->model = t->graphs.model[at];
    lam_parameters_zero_gradients(t->network->parameters);
    double said = lam_now();
    *loss = 0;
    t->sent = 0;
    t->sent_status = LAM_OK;
    for (int64_t begin = 0; begin < batch->rows; begin += t->micro_batch) {
        *left = begin > 0 && lam_stop_requested();
        if (*left) return LAM_OK;
        LAM_TRY(lam_batch_feed(io, &t->feeder, batch, begin, t->state.step, weight, true));
        lam_graph_hold_weights(graph, begin > 0);
        lam_graph_set_step(graph, t->state.step);
        LAM_TRY(lam_graph_forward(graph));
        *loss += (double)*(const float *)lam_tensor_data(io->loss);
        bool last = begin + t->micro_batch >= batch->rows;
        lam_graph_set_gradient_hook(graph, last ? start_sums : NULL, t, LAM_SUM_BUCKET);
        LAM_TRY(lam_graph_backward(graph));
        lam_graph_hold_weights(graph, false);
        if (!last) say_within(t, begin + t->micro_batch, batch->rows, &said);
    }
    return LAM_OK;
}

/* *lr: of the schedule, then what the rule made of it. */
static lam_status update(lam_trainer *t, double *lr, double beta1, double gradient_scale) {
    const lam_settings *s = t->settings;
    const lam_parameters *p = t->network->parameters;
    lam_update u = {.lr = *lr,
                    .beta1 = beta1,
                    .beta2 = s->beta2,
                    .eps = s->eps,
                    .weight_decay = s->weight_decay,
                    .momentum = s->momentum,
                    .warmup = s->own_warmup * (double)t->steps,
                    .gradient_scale = gradient_scale,
                    .t = ++t->state.updates};
    *lr = lam_optimizer_rate(s->optimizer, &u);
    LAM_TRY(lam_optimizer_step(&t->optimizer, p, &u, 0, p->trainable));
    if (t->average) lam_average_step(t->average, p, s->ema, u.t, 0, p->trainable);
    return LAM_OK;
}

/* The step was skipped, state counts it: says so, and ends the run after too many in a row. `name`: of the first parameter whose
 * gradient is not finite; NULL: none. */
static lam_status skip(lam_trainer *t, const lam_step_result *r, const char *name) {
    if (r->rows == 0) {
        lam_log_warning("step %" PRId64 ": every image of the batch is damaged; no update",
                        t->state.step + 1);
    } else {
        lam_log_warning("step %" PRId64
                        ": loss %g, gradient norm %g, first non-finite gradient: %s; no update",
                        t->state.step + 1, r->loss, r->gradient_norm, name ? name : "none");
    }
    LAM_REQUIRE(t->state.skipped_in_row < t->settings->max_skipped_steps, LAM_ERROR_NUMERIC,
                "step %" PRId64 ": %" PRId64
                " steps in a row without a finite update (loss %g, gradient norm %g, tensor %s); "
                "lower optim.lr or set optim.clip_norm, and resume from the last checkpoint",
                t->state.step + 1, t->state.skipped_in_row, r->loss, r->gradient_norm, name ? name : "none");
    return LAM_OK;
}

/* ---- a step on a device ---- */

/* Nothing is due after `step` steps that needs the weights of that moment. */
static bool may_go_on(const lam_trainer *t, int64_t step) {
    const lam_settings *s = t->settings;
    return step < t->steps && !t->stop_next && !lam_is_due(step, s->checkpoint_every) &&
           !lam_is_due(step, s->pictures_every) && !(t->validation && lam_is_due(step, s->validate_every));
}

/* *stop: a rank was told to; the step is not given. */
static lam_status give(lam_trainer *t, int64_t step, bool *stop) {
    const lam_settings *s = t->settings;
    const lam_batch *batch = NULL;
    lam_step_result counted = {0};
    double start = lam_now(), waited = lam_loader_waited_ms(t->loader);
    lam_status status = lam_loader_next(t->loader, &batch);
    LAM_TRY(count_rows(t, status, batch, &counted));
    *stop = counted.stop;
    if (*stop) return LAM_OK;
    int64_t at = t->graphs.of_level[lam_mask_level(step, t->steps)];
    lam_cuda_update_input terms = {.beta2 = s->beta2,
                                   .eps = s->eps,
                                   .weight_decay = s->weight_decay,
                                   .momentum = s->momentum,
                                   .warmup = s->own_warmup * (double)t->steps,
                                   .clip_norm = s->clip_norm,
                                   .ema = s->ema,
                                   .rows = counted.rows};
    lam_schedule_at(&s->schedule, step, &terms.lr, &terms.beta1);
    t->model = t->graphs.model[at];
    double weight = counted.rows ? 1.0 / (double)counted.rows : 0;
    for (int64_t begin = 0; begin < batch->rows && status == LAM_OK; begin += t->micro_batch) {
        status = lam_batch_feed(&t->graphs.io[at], &t->feeder, batch, begin, step, weight, true);
        if (status != LAM_OK) break;
        lam_graph_set_step(t->graphs.graph[at], step);
        status = lam_device_step_give(t->device, at, begin == 0, begin + t->micro_batch >= batch->rows, &terms);
    }
    LAM_TRY(lam_dist_agree(t->dist, status));
    t->given[t->given_count++] = (struct lam_given_step){
        .rows = counted.rows, .data_wait_ms = lam_loader_waited_ms(t->loader) - waited, .start = start};
    return LAM_OK;
}

/* The oldest given step: waits for it and counts it. */
static lam_status finish(lam_trainer *t, lam_step_result *r) {
    lam_cuda_update_outcome outcome;
    LAM_TRY(lam_device_step_outcome(t->device, &outcome));
    r->rows = t->given[0].rows;
    r->data_wait_ms = t->given[0].data_wait_ms;
    r->seconds = lam_now() - t->given[0].start;
    t->given[0] = t->given[1];
    t->given_count--;
    if (t->given_count) t->given[0].start = lam_now(); /* from here on the device works for it alone */
    r->loss = outcome.loss;
    r->gradient_norm = outcome.gradient_norm;
    r->lr = outcome.rate;
    r->skipped = outcome.skipped_now != 0;
    t->state.updates = outcome.updates;
    t->state.skipped = outcome.skipped;
    t->state.skipped_in_row = outcome.skipped_in_row;
    const lam_parameters *p = t->network->parameters;
    bool named = r->skipped && outcome.first_non_finite != LAM_CUDA_NO_ENTRY;
    if (r->skipped) LAM_TRY(skip(t, r, named ? p->entry[outcome.first_non_finite].name : NULL));
    t->state.step++;
    t->damaged = lam_loader_damaged_samples(t->loader);
    return LAM_OK;
}

static lam_status step_on_device(lam_trainer *t, lam_step_result *r) {
    memset(r, 0, sizeof *r);
    r->stop = t->stop_next;
    if (!t->given_count && !r->stop) LAM_TRY(give(t, t->state.step, &r->stop));
    if (r->stop) return LAM_OK;
    if (t->given_count == 1 && may_go_on(t, t->state.step + 1))
        LAM_TRY(give(t, t->state.step + 1, &t->stop_next));
    return finish(t, r);
}

lam_status lam_trainer_step(lam_trainer *t, lam_step_result *r) {
    if (t->device) return step_on_device(t, r);
    const lam_settings *s = t->settings;
    lam_parameters *p = t->network->parameters;
    const lam_batch *batch = NULL;
    memset(r, 0, sizeof *r);
    double start = lam_now(), waited = lam_loader_waited_ms(t->loader), beta1 = 0;
    bool left = false;
    lam_status status = lam_loader_next(t->loader, &batch);
    LAM_TRY(count_rows(t, status, batch, r));
    if (r->stop) return LAM_OK;
    r->data_wait_ms = lam_loader_waited_ms(t->loader) - waited;
    lam_schedule_at(&s->schedule, t->state.step, &r->lr, &beta1);
    status = compute_gradients(t, batch, r->rows ? 1.0 / (double)r->rows : 0, &r->loss, &left);
    lam_parameters_settle_gradients(p, 0, p->trainable); /* of a rank without crops */
    start_sums(t, 0, p->trainable);
    LAM_TRY(lam_dist_wait(t->dist));
    LAM_TRY(lam_dist_agree(t->dist, status == LAM_OK ? t->sent_status : status));
    double sums[2] = {r->loss, left};
    LAM_TRY(lam_dist_sum_f64(t->dist, sums, 2));
    r->loss = sums[0];
    r->stop = r->within = sums[1] > 0;
    if (r->stop) return LAM_OK;
    lam_bias_hold(p, s->model.embed_dim, s->bias_layout);
    r->gradient_norm = sqrt(lam_sum_of_squares(p->gradients, 0, p->trainable));
    r->skipped = r->rows == 0 || !isfinite(r->loss) || !isfinite(r->gradient_norm);
    if (r->skipped) {
        t->state.skipped++;
        t->state.skipped_in_row++;
        LAM_TRY(skip(t, r, lam_first_non_finite(p, p->gradients)));
    } else {
        double scale =
            s->clip_norm > 0 && r->gradient_norm > s->clip_norm ? s->clip_norm / r->gradient_norm : 1;
        t->state.skipped_in_row = 0;
        LAM_TRY(lam_dist_agree(t->dist, update(t, &r->lr, beta1, scale)));
    }
    t->state.step++;
    t->damaged = lam_loader_damaged_samples(t->loader);
    r->seconds = lam_now() - start;
    return LAM_OK;
}

static lam_status validate_rows(lam_trainer *t, double sums[2]) {
    int64_t batches = lam_loader_steps_per_epoch(t->validation);
    const lam_mae_io *io = &t->graphs.io[0];
    LAM_TRY(lam_loader_seek(t->validation, 0));
    for (int64_t k = 0; k < batches; k++) {
        const lam_batch *batch = NULL;
        LAM_TRY(lam_loader_next(t->validation, &batch));
        for (int64_t begin = 0; begin < batch->rows; begin += t->micro_batch) {
            LAM_TRY(lam_batch_feed(io, &t->feeder, batch, begin, FIXED_MASK_STEP, 1, false));
            LAM_TRY(lam_graph_forward(t->graphs.graph[0]));
            lam_graph_hold_weights(t->graphs.graph[0], true);
            const float *losses = lam_tensor_data(io->sample_loss),
                        *weights = lam_tensor_data(io->sample_weight);
            for (int64_t i = 0; i < t->micro_batch; i++) {
                if (weights[i] == 0.0f) continue;
                sums[0] += (double)losses[i];
                sums[1] += 1;
            }
        }
    }
    return LAM_OK;
}

/* Inference with the weights that are made for it; in between the arena of the gradients, which holds nothing between
 * steps, keeps those that training goes on with. */
static void use_averaged(lam_trainer *t) {
    const lam_optimizer *optimizer = t->optimizer.optimizer;
    lam_parameters *p = t->network->parameters;
    if (!optimizer->averaged) return;
    optimizer->averaged(p, t->optimizer.arena, t->settings->schedule.beta1, p->gradients);
    for (int64_t i = 0; i < p->trainable; i++) {
        float trained = p->weights[i];
        p->weights[i] = p->gradients[i];
        p->gradients[i] = trained;
    }
}

static void use_trained(lam_trainer *t) {
    lam_parameters *p = t->network->parameters;
    if (t->optimizer.optimizer->averaged)
        memcpy(p->weights, p->gradients, (size_t)p->trainable * sizeof(float));
}

lam_status lam_trainer_validate(lam_trainer *t, double *loss) {
    double sums[2] = {0, 0};
    LAM_TRY(lam_dist_agree(t->dist, lam_trainer_pull(t)));
    use_averaged(t);
    lam_status status = validate_rows(t, sums);
    lam_graph_hold_weights(t->graphs.graph[0], false);
    use_trained(t);
    if (status == LAM_OK) status = lam_trainer_push(t);
    LAM_TRY(lam_dist_agree(t->dist, status));
    LAM_TRY(lam_dist_sum_f64(t->dist, sums, 2));
    *loss = sums[0] / sums[1];
    return LAM_OK;
}

lam_status lam_trainer_draw(lam_trainer *t, const char *path) {
    LAM_TRY(lam_trainer_pull(t));
    LAM_TRY(lam_batch_feed(&t->graphs.io[0], &t->feeder, t->pictured, 0, FIXED_MASK_STEP, 1, false));
    use_averaged(t);
    lam_status status = lam_graph_forward(t->graphs.graph[0]);
    use_trained(t);
    LAM_TRY(status);
    LAM_TRY(lam_trainer_push(t));
    return lam_draw_reconstructions(&t->settings->model, &t->graphs.io[0], t->picture_crops, path);
}
