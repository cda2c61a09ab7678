#include "train/commands.h"
#include "train/device.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/records.h"
#include "base/signals.h"
#include "base/threads.h"
#include "train/limit.h"
#include "train/run_folder.h"

static double mebibytes(size_t bytes) { return (double)bytes / 1048576; }

/* The owners of report.html and of train.memory_budget. Activations, their gradients, workspace and inputs live at different
 * times in one arena: it is named as a whole. */
static void print_memory(const lam_trainer *t) {
    lam_memory_report m;
    lam_graph_memory(t->graphs.graph[0], &m);
    size_t moments = (size_t)lam_trainer_optimizer_bytes(t);
    lam_log_info(
        "memory, MiB: weights %.1f, packed for products %.1f, gradients %.1f, optimizer %.1f, activations and workspace %.1f; "
        "together %.1f",
        mebibytes(m.weights), mebibytes(m.packed), mebibytes(m.gradients), mebibytes(moments),
        mebibytes(m.total), mebibytes(m.weights + m.packed + m.gradients + moments + m.total));
}

/* Of a crop in the last step, without what is dropped. */
static double done_flops(const lam_trainer *t) {
    return lam_mae_step_flops(&t->model) * lam_mae_kept_share(&t->model, t->micro_batch);
}

static lam_status write_step(lam_metrics *metrics, const lam_trainer *t, const lam_step_result *r) {
    double crops_per_s = (double)r->rows / r->seconds;
    lam_json *line = lam_json_object();
    lam_json_set_int(line, "step", t->state.step);
    lam_json_set_float(line, "loss", r->loss);
    lam_json_set_float(line, "grad_norm", r->gradient_norm);
    lam_json_set_float(line, "lr", r->lr);
    lam_json_set_int(line, "skipped", t->state.skipped);
    lam_json_set_int(line, "epoch", (t->state.step - 1) / t->steps_per_epoch);
    lam_json_set_float(line, "crops_per_s", crops_per_s);
    lam_json_set_float(line, "gflops_per_s", crops_per_s * done_flops(t) / 1e9);
    lam_json_set_float(line, "step_ms", r->seconds * 1e3);
    lam_json_set_float(line, "data_wait_ms", r->data_wait_ms);
    return lam_metrics_append(metrics, line);
}

static lam_status write_validation(lam_metrics *metrics, int64_t step, double loss) {
    lam_json *line = lam_json_object();
    lam_json_set_int(line, "step", step);
    lam_json_set_float(line, "validation_loss", loss);
    return lam_metrics_append(metrics, line);
}

/* Since the first step of this process: crops over the whole time, validations and checkpoints with it, is the speed that
 * says when the run ends; arithmetic is compared with the machine's limit over the time within steps. */
typedef struct totals {
    double begin, step_seconds, wait_ms, limit, flops;
    int64_t rows;
} totals;

static lam_status write_totals(lam_metrics *metrics, const lam_trainer *t, const totals *sum) {
    enum { MAXIMUM = 128 };
    lam_op_time times[MAXIMUM];
    int64_t count = lam_graphs_op_times(&t->graphs, times, MAXIMUM);
    lam_json *line = lam_json_object(), *list = lam_json_array();
    for (int64_t i = 0; i < count; i++) {
        lam_json *op = lam_json_object();
        lam_json_set_text(op, "op", times[i].op);
        lam_json_set_bool(op, "backward", times[i].backward);
        if (times[i].again) lam_json_set_bool(op, "again", true);
        lam_json_set_int(op, "calls", times[i].calls);
        lam_json_set_float(op, "seconds", times[i].seconds);
        lam_json_set_float(op, "flops", times[i].flops);
        lam_json_set_float(op, "bytes", times[i].bytes);
        lam_json_append(list, op);
    }
    lam_json_set(line, "op_times", list);
    lam_json_set_int(line, "crops", sum->rows);
    lam_json_set_float(line, "seconds", lam_now() - sum->begin);
    lam_json_set_float(line, "step_seconds", sum->step_seconds);
    return lam_metrics_append(metrics, line);
}

static lam_status draw(lam_trainer *t) {
    lam_status status = LAM_OK;
    if (t->rank == 0) {
        char *folder = NULL, *path = NULL;
        LAM_TRY_GOTO(lam_path_join(&folder, t->settings->out, "reconstructions"), done);
        LAM_TRY_GOTO(lam_make_folders(folder), done);
        LAM_TRY_GOTO(lam_text_format(&path, "%s/step_%08" PRId64 ".png", folder, t->state.step), done);
        LAM_TRY_GOTO(lam_trainer_draw(t, path), done);
    done:
        lam_free(folder);
        lam_free(path);
    }
    return lam_dist_agree(t->dist, status);
}

static void show(lam_progress *progress, const lam_trainer *t, const lam_step_result *r, totals *sum) {
    sum->step_seconds += r->seconds;
    sum->wait_ms += r->data_wait_ms;
    sum->rows += r->rows;
    sum->flops += (double)r->rows * done_flops(t);
    double crops = (double)sum->rows / (lam_now() - sum->begin), flops = sum->flops / sum->step_seconds;
    char detail[160];
    int used = snprintf(detail, sizeof detail, "loss %.4f, %.1f crops/s; in steps %.1f GFLOP/s", r->loss,
                        crops, flops / 1e9);
    if (sum->limit > 0)
        used +=
            snprintf(detail + used, sizeof detail - (size_t)used, " (%.0f %% of %.0f measured at the start)",
                     100 * flops / (sum->limit * t->world_size), sum->limit * t->world_size / 1e9);
    snprintf(detail + used, sizeof detail - (size_t)used, ", data wait %.1f %%",
             sum->wait_ms / 10 / sum->step_seconds);
    lam_progress_update(progress, t->state.step, detail);
}

/* What follows a step, in a fixed order: line, validation, picture, checkpoint. */
static lam_status after_step(lam_trainer *t, lam_metrics *metrics, const lam_step_result *r) {
    const lam_settings *s = t->settings;
    bool last = t->state.step == t->steps;
    LAM_TRY(lam_dist_agree(t->dist, t->rank == 0 ? write_step(metrics, t, r) : LAM_OK));
    if (t->validation && (last || lam_is_due(t->state.step, s->validate_every))) {
        double loss = NAN;
        LAM_TRY(lam_trainer_validate(t, &loss));
        LAM_TRY(
            lam_dist_agree(t->dist, t->rank == 0 ? write_validation(metrics, t->state.step, loss) : LAM_OK));
        lam_log_info("step %" PRId64 ": validation loss %.5f", t->state.step, loss);
    }
    if (last || lam_is_due(t->state.step, s->pictures_every)) LAM_TRY(draw(t));
    if (last || lam_is_due(t->state.step, s->checkpoint_every)) LAM_TRY(lam_run_checkpoint(t, metrics));
    return LAM_OK;
}

/* A step that was given up leaves the state of the one before it. */
static lam_status stop(lam_trainer *t, lam_metrics *metrics, bool within) {
    if (t->state.step != t->saved) LAM_TRY(lam_run_checkpoint(t, metrics));
    LAM_FAIL(LAM_STOPPED, "stopped after step %" PRId64 " of %" PRId64 "%s: run again with --resume",
             t->state.step, t->steps, within ? ", within the next one, which is done anew" : "");
}

static lam_status loop(lam_trainer *t, lam_metrics *metrics, totals *sum) {
    lam_progress *progress = lam_progress_start("train", t->steps, "steps");
    lam_progress_begin_at(progress, t->state.step);
    sum->begin = lam_now();
    lam_status status = LAM_OK;
    while (status == LAM_OK && t->state.step < t->steps) {
        lam_step_result result;
        status = lam_trainer_step(t, &result);
        if (status == LAM_OK && result.stop) status = stop(t, metrics, result.within);
        if (status != LAM_OK) break;
        show(progress, t, &result, sum);
        status = after_step(t, metrics, &result);
    }
    lam_progress_finish(progress);
    return status;
}

/* Collective. What came while the program loaded: nothing is written yet, and no step is worth its checkpoint. */
static lam_status stopped_before_the_first_step(const lam_trainer *t) {
    double stops = lam_stop_requested();
    LAM_TRY(lam_dist_sum_f64(t->dist, &stops, 1));
    LAM_REQUIRE(stops == 0, LAM_STOPPED, "stopped before the first step, %s is as it was: run it again",
                t->settings->out);
    return LAM_OK;
}

static lam_status print_result(const lam_trainer *t) {
    lam_json *result = lam_json_object();
    lam_json_set_text(result, "run", t->settings->out);
    lam_json_set_int(result, "step", t->state.step);
    lam_json_set_int(result, "skipped", t->state.skipped);
    lam_status status = lam_records_print(result, false);
    lam_json_free(result);
    return status;
}

/* A run whose every step was skipped has the weights that it began with: whoever waits for it must hear of it. */
static lam_status require_an_update(const lam_trainer *t) {
    LAM_REQUIRE(
        t->state.updates > 0 || t->state.step == 0, LAM_ERROR_NUMERIC,
        "%s: none of its %" PRId64
        " steps had a finite loss and gradient: the weights are those that it began with; look at the "
        "warnings above, train.init and optim.lr",
        t->settings->out, t->state.step);
    return LAM_OK;
}

static lam_status train(lam_trainer *t, const lam_start *start, bool json) {
    lam_metrics *metrics = NULL;
    lam_gemm_limit products = {0};
    double limit = 0;
    char device[160], speed[48] = "";
    totals sum = {0};
    lam_status status = LAM_OK;
    const lam_settings *s = t->settings;
    /* Small enough to be quick, large enough to be a product like the step's. */
    double part = t->micro_batch < 4 ? 1 : 4 / (double)t->micro_batch;
    if (!t->device) /* the limit of a GPU is not measured here */
        LAM_TRY_GOTO(lam_dist_agree(t->dist, lam_gemm_limit_measure(t->graphs.graph[0], part, 0.3, &products)),
                     done);
    limit = products.flops_per_s;
    lam_device_describe(t->backend, device, sizeof device);
    if (limit > 0) snprintf(speed, sizeof speed, ", products at %.1f GFLOP/s", limit / 1e9);
    lam_log_info("%s: %" PRId64 " parameters, %" PRId64 " steps of %" PRId64 " crops (%" PRId64
                 " an epoch), %" PRId64 " images to train, %" PRId64
                 " to validate; %s, %d ranks (%s)%s",
                 s->out, lam_network_elements(t->network), t->steps, s->global_batch, t->steps_per_epoch,
                 t->split.train_count, t->split.validation_count, device, t->world_size, t->state.mpi, speed);
    print_memory(t);
    LAM_TRY_GOTO(stopped_before_the_first_step(t), done);
    LAM_TRY_GOTO(lam_run_begin(t, start, limit, &metrics), done);
    if (t->state.step >= t->steps) {
        lam_log_info("%s: the run is complete at step %" PRId64, s->out, t->state.step);
        status = require_an_update(t);
        goto done;
    }
    sum.limit = limit;
    LAM_TRY_GOTO(loop(t, metrics, &sum), done);
    if (t->rank == 0) {
        LAM_TRY_GOTO(write_totals(metrics, t, &sum), done);
        if (json) LAM_TRY_GOTO(print_result(t), done);
    }
    status = require_an_update(t);
done:
    lam_gemm_limit_free(&products);
    lam_status closed = lam_metrics_close(&metrics);
    return status == LAM_OK ? closed : status;
}

static lam_status read_config(const lam_arguments *a, lam_config **config) {
    LAM_TRY(lam_config_read(config, lam_train_keys, lam_positional(a, 0)));
    lam_status status = LAM_OK;
    for (int i = 1; i < lam_positional_count(a) && status == LAM_OK; i++)
        status = lam_config_set(*config, lam_positional(a, i));
    if (status == LAM_OK) status = lam_config_check(*config);
    if (status == LAM_OK) {
        lam_config_warn_unused(*config);
        return LAM_OK;
    }
    lam_config_free(*config);
    *config = NULL;
    return status;
}

static lam_status run(const lam_arguments *a) {
    if (lam_option_flag(a, "help-config")) {
        char *text = NULL;
        LAM_TRY(lam_config_help(lam_train_keys, &text));
        fputs(text, stdout);
        lam_free(text);
        return LAM_OK;
    }
    LAM_REQUIRE(lam_positional_count(a) > 0, LAM_ERROR_USAGE,
                "train needs a configuration file: lamella train CONFIG.yaml");
    lam_dist *dist = NULL;
    lam_config *config = NULL;
    lam_trainer trainer;
    lam_start start = {lam_option_flag(a, "resume") || lam_option_flag(a, "strict-resume"),
                       lam_option_flag(a, "strict-resume"), lam_option_force(a), lam_command_line(a)};
    LAM_TRY(lam_dist_open(&dist));
    if (lam_dist_rank(dist) != 0) lam_log_set_silent(true);
    lam_status status = read_config(a, &config);
    if (status == LAM_OK && lam_dist_rank(dist) == 0)
        status = lam_run_look(lam_config_text(config, "train.out"), &start);
    status = lam_dist_agree(dist, status);
    lam_device device = {0};
    if (status == LAM_OK) status = lam_dist_agree(dist, lam_device_open_to_train(a, lam_dist_local_rank(dist), &device));
    if (status == LAM_OK) {
        status = lam_trainer_open(&trainer, dist, &device, config, !start.resume);
        if (status == LAM_OK) {
            status = train(&trainer, &start, lam_option_json(a));
            lam_trainer_close(&trainer);
        }
    } else {
        lam_config_free(config);
    }
    lam_dist_close(&dist);
    return status;
}

static const lam_option options[] = {
    {.name = "resume",
     .kind = LAM_OPTION_FLAG,
     .help = "go on from the newest checkpoint; start where there is none"},
    {.name = "strict-resume",
     .kind = LAM_OPTION_FLAG,
     .help = "as --resume, but refuse where the resume would not be bit-exact"},
    LAM_DEVICE_OPTION,
    LAM_AUTOTUNE_OPTION,
    {.name = "help-config", .kind = LAM_OPTION_FLAG, .help = "print every key of the configuration and end"},
    {.name = NULL}};

const lam_command lam_command_train = {
    "train",
    "train a masked autoencoder on shards",
    "CONFIG.yaml [key.path=value ...]",
    0,
    -1,
    options,
    "lamella train configs/demo.yaml data.path=shards train.out=runs/first train.steps=100\n"
    "lamella train configs/demo.yaml data.path=shards train.out=runs/half train.steps=100 train.precision=bf16\n"
    "lamella train configs/demo.yaml data.path=shards train.out=runs/second train.init=runs/first\n"
    "mpirun -n 2 lamella train configs/vit_s16.yaml data.path=shards train.out=runs/s16 --resume",
    run};
