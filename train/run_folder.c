#include "train/run_folder.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/provenance.h"
#include "train/bias_layout.h"
#include "train/import.h"

/* Removes what `train` and `report` write, and nothing else that may lie in the folder. */
static lam_status remove_run(const char *run) {
    static const char *const ours[] = {"checkpoints", "reconstructions", "metrics.jsonl",
                                       "config.yaml", "report.html",     "report_data"};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        char *path = NULL;
        LAM_TRY(lam_path_join(&path, run, ours[i]));
        lam_status status = lam_path_exists(path) ? lam_remove_tree(path) : LAM_OK;
        lam_free(path);
        LAM_TRY(status);
    }
    return LAM_OK;
}

/* Before anything in the folder is read or removed: a second training there would take this one's files apart. */
static lam_status take_lock(lam_trainer *t) {
    char *path = NULL;
    LAM_TRY(lam_make_folders(t->settings->out));
    LAM_TRY(lam_path_join(&path, t->settings->out, "lock"));
    lam_status status = lam_lock_take(&t->lock, path);
    lam_free(path);
    return status;
}

static lam_status require_free(const char *run, const lam_start *start, bool *holds_run) {
    char *config = NULL;
    LAM_TRY(lam_path_join(&config, run, "config.yaml"));
    *holds_run = lam_path_exists(config);
    lam_free(config);
    LAM_REQUIRE(
        !*holds_run || start->resume || start->force, LAM_ERROR_USAGE,
        "%s: holds a run already: --resume goes on with it, --force removes it, train.out=FOLDER takes another",
        run);
    return LAM_OK;
}

lam_status lam_run_look(const char *run, const lam_start *start) {
    bool holds_run = false;
    return require_free(run, start, &holds_run);
}

static lam_status begins_anew(const char *run, const lam_start *start) {
    bool holds_run = false;
    LAM_TRY(require_free(run, start, &holds_run));
    return holds_run && !start->resume ? remove_run(run) : LAM_OK;
}

static void add_difference(char *text, size_t size, const char *what) {
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s%s", used ? ", " : "", what);
}

/* Keys that change no weight: where the run and its shards lie (which data they hold, the hash
 * says), what is kept and drawn, and how often. A validation or a picture reads the weights and the graph's arena only. */
static bool changes_no_weight(const char *key) {
    static const char *const keys[] = {"train.out",
                                       "train.checkpoint_every",
                                       "train.keep_last",
                                       "train.keep_every",
                                       "train.validate_every",
                                       "train.pictures_every",
                                       "data.path",
                                       "data.threads"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (!strcmp(key, keys[i])) return true;
    return false;
}

/* Lines of the resolved configuration that differ; both texts have one line a key, in the same order. */
static void config_differences(const char *before, const char *now, char *text, size_t size) {
    char section[64] = "", key[128], what[512];
    while (*before && *now) {
        size_t a = strcspn(before, "\n"), b = strcspn(now, "\n");
        if (now[0] != ' ') snprintf(section, sizeof section, "%.*s", (int)strcspn(now, ":\n"), now);
        if (a != b || memcmp(before, now, a) != 0) {
            size_t indent = strspn(now, " "), name = strcspn(now, ":\n"),
                   colon = name + strspn(now + name, ": ");
            snprintf(key, sizeof key, "%s.%.*s", section, (int)(name - indent), now + indent);
            snprintf(what, sizeof what, "%s: was %.*s, now %.*s", key, (int)(a - colon), before + colon,
                     (int)(b - colon), now + colon);
            if (!changes_no_weight(key)) add_difference(text, size, what);
        }
        before += a + (before[a] == '\n');
        now += b + (now[b] == '\n');
    }
}

/* *config: as the run was configured before; NULL where its config.yaml lacks. Caller frees. */
static lam_status read_config(const char *run, lam_config **config) {
    char *path = NULL, *stored = NULL;
    size_t bytes = 0;
    lam_status status = LAM_OK;
    *config = NULL;
    LAM_TRY_GOTO(lam_path_join(&path, run, "config.yaml"), done);
    if (!lam_path_exists(path)) goto done;
    LAM_TRY_GOTO(lam_file_read(path, &stored, &bytes), done);
    LAM_TRY_GOTO(lam_config_parse(config, lam_train_keys, stored, bytes, path), done);
done:
    lam_free(stored);
    lam_free(path);
    return status;
}

/* What the run began with stays in its files, since nothing is read from another train.init any more. */
static lam_status keep_init(lam_trainer *t, const lam_config *before) {
    lam_config *config = t->network->config;
    const char *was = lam_config_text(before, "train.init"), *now = lam_config_text(config, "train.init");
    char *assignment = NULL;
    if (!strcmp(was, now)) return LAM_OK;
    if (now[0])
        lam_log_warning("train.init: %s has no effect: the run goes on from its checkpoint, it began with %s",
                        now, was[0] ? was : "weights drawn at random");
    LAM_TRY(lam_text_format(&assignment, "train.init=%s", was));
    lam_status status = lam_config_set(config, assignment);
    lam_free(assignment);
    t->settings->init = lam_config_text(config, "train.init");
    return status;
}

static lam_status compare_config(lam_trainer *t, char *text, size_t size) {
    char *before = NULL, *now = NULL;
    lam_config *config = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(read_config(t->settings->out, &config), done);
    if (!config) goto done;
    LAM_TRY_GOTO(keep_init(t, config), done);
    LAM_TRY_GOTO(lam_config_write(config, &before), done);
    LAM_TRY_GOTO(lam_config_write(t->network->config, &now), done);
    config_differences(before, now, text, size);
done:
    lam_config_free(config);
    lam_free(before);
    lam_free(now);
    return status;
}

static void compare_state(const lam_run_state *before, const lam_run_state *now, char *text, size_t size) {
    char what[320];
    if (before->world_size != now->world_size) {
        snprintf(what, sizeof what, "ranks: was %d, now %d", before->world_size, now->world_size);
        add_difference(text, size, what);
    }
    if (before->threads != now->threads) {
        snprintf(what, sizeof what, "threads: was %d, now %d", before->threads, now->threads);
        add_difference(text, size, what);
    }
    const struct {
        const char *name, *before, *now;
    } texts[] = {{"instruction set", before->isa, now->isa},
                 {"MPI", before->mpi, now->mpi},
                 {"matrix products", before->gemm, now->gemm},
                 {"lamella", before->version, now->version}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(texts[i].before, texts[i].now) == 0) continue;
        snprintf(what, sizeof what, "%s: was %s, now %s", texts[i].name, texts[i].before, texts[i].now);
        add_difference(text, size, what);
    }
    if (before->shards_hash != now->shards_hash) add_difference(text, size, "the shards hold other data");
    if (before->seed != now->seed && !strstr(text, "train.seed:"))
        add_difference(text, size, "another train.seed");
}

/* What a run has learnt under another model.bias_layout would stay, and move on by its momentum. */
static lam_status check_biases(const lam_trainer *t, const char *folder) {
    const lam_settings *s = t->settings;
    const lam_parameters *parameters = t->network->parameters;
    int64_t element = 0;
    const lam_parameter_entry *p = lam_bias_stray(parameters, s->model.embed_dim, s->bias_layout, &element);
    LAM_REQUIRE(!p, LAM_ERROR_CONFIG,
                "%s: model.bias_layout is %s, but %s has %g at element %" PRId64
                ", where that layout has zeros: resume with the layout that the run began with",
                folder, lam_config_text(t->network->config, "model.bias_layout"), p->name,
                (double)parameters->weights[p->offset + element], element);
    return LAM_OK;
}

/* Where a checkpoint does not fit: what the run was configured with, if that is why. */
static lam_status explain(lam_trainer *t, lam_status unread) {
    char reason[1024], differences[2048] = "";
    snprintf(reason, sizeof reason, "%s", lam_last_error());
    if (unread != LAM_ERROR_INPUT) return unread;
    if (compare_config(t, differences, sizeof differences) != LAM_OK) differences[0] = 0;
    LAM_REQUIRE(!strstr(differences, "model."), LAM_ERROR_CONFIG,
                "%s; what differs from the run that wrote it: %s; resume with the model that it began with",
                reason, differences);
    return lam_fail(unread, __FILE__, __LINE__, "%s", reason);
}

/* Rank 0. */
static lam_status read_checkpoint(lam_trainer *t, const lam_start *start, int64_t *found) {
    const char *run = t->settings->out;
    char *folder = NULL, differences[2048] = "";
    lam_run_state before = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_checkpoint_find(run, &folder), done);
    if (!folder) {
        lam_log_info("%s: no checkpoint yet, starting from step 0", run);
        LAM_TRY_GOTO(remove_run(run), done);
        goto done;
    }
    status = lam_checkpoint_read(folder, t->network, &t->optimizer, t->average, &before);
    if (status != LAM_OK) {
        status = explain(t, status);
        goto done;
    }
    LAM_TRY_GOTO(check_biases(t, folder), done);
    LAM_TRY_GOTO(compare_config(t, differences, sizeof differences), done);
    compare_state(&before, &t->state, differences, sizeof differences);
    LAM_REQUIRE_GOTO(
        !differences[0] || !start->strict, done, LAM_ERROR_CONFIG,
        "%s: differs from the run that wrote it (%s); without --strict-resume it goes on, not bit-exact",
        folder, differences);
    if (differences[0] && before.step < t->steps)
        lam_log_warning("resume is not bit-exact, these differ: %s", differences);
    t->state.step = before.step;
    t->state.updates = before.updates;
    t->state.skipped = before.skipped;
    t->state.skipped_in_row = before.skipped_in_row;
    t->state.damaged_samples = before.damaged_samples;
    t->state.metrics_bytes = before.metrics_bytes;
    t->state.plans = before.plans;
    before.plans = NULL;
    lam_log_info("resumed from %s", folder);
    *found = 1;
done:
    lam_free(folder);
    lam_free(before.plans);
    return status;
}

/* All ranks take the algorithms of products that rank 0 found in the checkpoint. */
static lam_status share_plans(lam_trainer *t) {
    int64_t size = t->rank == 0 && t->device && t->state.plans ? (int64_t)strlen(t->state.plans) + 1 : 0;
    LAM_TRY(lam_dist_broadcast(t->dist, &size, sizeof size, 0));
    if (size == 0) return LAM_OK;
    lam_status status = t->rank == 0 ? LAM_OK : lam_alloc((void **)&t->state.plans, (size_t)size);
    LAM_TRY(lam_dist_agree(t->dist, status));
    LAM_TRY(lam_dist_broadcast(t->dist, t->state.plans, (size_t)size, 0));
    return t->device ? lam_device_step_use_plans(t->device, t->state.plans) : LAM_OK;
}

static lam_status share_checkpoint(lam_trainer *t) {
    const lam_parameters *p = t->network->parameters;
    size_t arena_bytes = (size_t)p->trainable * sizeof(float);
    LAM_TRY(lam_dist_broadcast(t->dist, &t->state.step, sizeof t->state.step, 0));
    LAM_TRY(lam_dist_broadcast(t->dist, &t->state.updates, sizeof t->state.updates, 0));
    LAM_TRY(lam_dist_broadcast(t->dist, &t->state.skipped, sizeof t->state.skipped, 0));
    LAM_TRY(lam_dist_broadcast(t->dist, &t->state.skipped_in_row, sizeof t->state.skipped_in_row, 0));
    LAM_TRY(lam_dist_broadcast(t->dist, p->weights, (size_t)p->count * sizeof(float), 0));
    for (int k = 0; k < t->optimizer.optimizer->arenas; k++)
        LAM_TRY(lam_dist_broadcast(t->dist, t->optimizer.arena[k], arena_bytes, 0));
    if (t->average) LAM_TRY(lam_dist_broadcast(t->dist, t->average, arena_bytes, 0));
    return lam_dist_agree(t->dist, share_plans(t));
}

static lam_status write_first_line(const lam_trainer *t, const lam_start *start, double limit,
                                   lam_metrics *metrics) {
    char hash[24];
    lam_memory_report memory;
    lam_graph_memory(t->graphs.graph[0], &memory);
    snprintf(hash, sizeof hash, "%016" PRIx64, t->state.shards_hash);
    lam_json *line = lam_json_object(), *run = lam_provenance(start->command_line),
             *bytes = lam_json_object(), *shared = lam_json_object();
    lam_json_set_text(run, "device", lam_backend_name(t->backend));
    if (t->device) lam_json_set_text(run, "gpu", lam_backend_device(t->backend));
    lam_json_set_text(run, "isa", t->state.isa);
    lam_json_set_int(run, "threads", t->state.threads);
    lam_json_set_int(run, "world_size", t->world_size);
    lam_json_set_text(run, "mpi", t->state.mpi);
    lam_json_set_text(run, "gemm", t->state.gemm);
    lam_json_set_text(run, "shards", lam_shards_path(t->shards));
    lam_json_set_text(run, "shards_hash", hash);
    lam_json_set_int(run, "parameters", lam_network_elements(t->network));
    lam_json_set_int(run, "steps", t->steps);
    lam_json_set_int(run, "steps_per_epoch", t->steps_per_epoch);
    lam_json_set_int(run, "train_images", t->split.train_count);
    lam_json_set_int(run, "validation_images", t->split.validation_count);
    lam_json_set_float(run, "flops_per_crop", lam_mae_step_flops(&t->settings->model));
    lam_json_set_float(run, "kept_share", lam_mae_kept_share(&t->settings->model, t->micro_batch));
    lam_json_set_float(run, "limit_gflops_per_s", limit / 1e9);
    lam_json_set_int(bytes, "weights", (int64_t)memory.weights);
    lam_json_set_int(bytes, "packed_weights", (int64_t)memory.packed);
    lam_json_set_int(bytes, "gradients", (int64_t)memory.gradients);
    lam_json_set_int(bytes, "optimizer", lam_trainer_optimizer_bytes(t));
    /* One block of memory: its parts live at different times, and are more together than it is. */
    lam_json_set_int(bytes, "activations_and_workspace", (int64_t)memory.total);
    lam_json_set(run, "memory", bytes);
    lam_json_set_int(shared, "activations", (int64_t)memory.activations);
    lam_json_set_int(shared, "activation_gradients", (int64_t)memory.activation_gradients);
    lam_json_set_int(shared, "workspace", (int64_t)memory.workspace);
    lam_json_set_int(shared, "inputs", (int64_t)memory.inputs);
    lam_json_set(run, "memory_parts", shared);
    lam_json_set(line, "run", run);
    return lam_metrics_append(metrics, line);
}

/* What a killed process left half written of `name` in a folder. */
static lam_status remove_partial(const char *folder, const char *name) {
    char **names = NULL, *path = NULL;
    int64_t count = 0;
    size_t length = strlen(name);
    LAM_TRY(lam_list_folder(folder, "", &names, &count));
    lam_status status = LAM_OK;
    for (int64_t i = 0; i < count && status == LAM_OK; i++) {
        if (strncmp(names[i], name, length) != 0 || strncmp(names[i] + length, ".partial-", 9) != 0) continue;
        status = lam_path_join(&path, folder, names[i]);
        if (status == LAM_OK) status = lam_remove_tree(path);
        lam_free(path);
        path = NULL;
    }
    lam_free_texts(names, count);
    return status;
}

static lam_status open_files(lam_trainer *t, const lam_start *start, bool resumed, double limit,
                             lam_metrics **metrics) {
    const char *run = t->settings->out;
    char *config = NULL, *path = NULL, *text = NULL, *checkpoints = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_path_join(&checkpoints, run, "checkpoints"), done);
    LAM_TRY_GOTO(lam_make_folders(checkpoints), done);
    LAM_TRY_GOTO(remove_partial(run, "config.yaml"), done);
    LAM_TRY_GOTO(remove_partial(checkpoints, "latest"), done);
    LAM_TRY_GOTO(lam_path_join(&config, run, "config.yaml"), done);
    LAM_TRY_GOTO(lam_path_join(&path, run, "metrics.jsonl"), done);
    LAM_TRY_GOTO(lam_config_write(t->network->config, &text), done);
    if (!resumed || t->state.step < t->steps) /* a complete run keeps what it was trained with */
        LAM_TRY_GOTO(lam_file_write(config, text, strlen(text)), done);
    LAM_TRY_GOTO(lam_metrics_open(metrics, path, t->state.metrics_bytes), done);
    if (!resumed) LAM_TRY_GOTO(write_first_line(t, start, limit, *metrics), done);
    if (resumed) LAM_TRY_GOTO(lam_checkpoint_go_on_from(run, t->state.step), done);
done:
    lam_free(checkpoints);
    lam_free(config);
    lam_free(path);
    lam_free(text);
    return status;
}

static lam_status begin_with_weights(lam_trainer *t) {
    if (!t->settings->init[0]) return LAM_OK;
    LAM_TRY(lam_dist_agree(t->dist, lam_import_weights(t->network, t->settings->init)));
    const lam_optimizer *optimizer = t->optimizer.optimizer; /* whose state may begin with the weights */
    if (optimizer->start) optimizer->start(t->network->parameters, t->optimizer.arena);
    return LAM_OK;
}

lam_status lam_run_begin(lam_trainer *t, const lam_start *start, double limit, lam_metrics **metrics) {
    int64_t found = 0;
    lam_status status = LAM_OK;
    /* Before --force removes a run, which may be the one that train.init names. */
    if (!start->resume) LAM_TRY(begin_with_weights(t));
    if (t->rank == 0) {
        status = take_lock(t);
        if (status == LAM_OK) status = begins_anew(t->settings->out, start);
        if (status == LAM_OK && start->resume) status = read_checkpoint(t, start, &found);
    }
    LAM_TRY(lam_dist_agree(t->dist, status));
    LAM_TRY(lam_dist_broadcast(t->dist, &found, sizeof found, 0));
    if (found) LAM_TRY(share_checkpoint(t));
    if (!found && start->resume) LAM_TRY(begin_with_weights(t));
    t->saved = t->state.step;
    if (t->rank == 0) status = open_files(t, start, found != 0, limit, metrics);
    LAM_TRY(lam_dist_agree(t->dist, status));
    LAM_TRY(lam_dist_agree(t->dist, lam_trainer_push(t)));
    return lam_dist_agree(t->dist, lam_loader_seek(t->loader, t->state.step));
}

lam_status lam_run_checkpoint(lam_trainer *t, lam_metrics *metrics) {
    double damaged = (double)t->damaged;
    LAM_TRY(lam_dist_sum_f64(t->dist, &damaged, 1));
    lam_status status = LAM_OK;
    if (t->rank == 0) {
        lam_run_state state = t->state;
        state.damaged_samples += (int64_t)damaged;
        const char *run = t->settings->out;
        status = lam_metrics_sync(metrics, &state.metrics_bytes);
        if (status == LAM_OK) status = lam_trainer_pull(t);
        state.plans = NULL;
        if (status == LAM_OK && t->device) status = lam_device_step_plans(t->device, &state.plans);
        if (status == LAM_OK)
            status = lam_checkpoint_write(run, t->network, &t->optimizer, t->average, &state,
                                          state.step / t->steps_per_epoch);
        if (status == LAM_OK)
            status = lam_checkpoint_prune(run, state.step, t->settings->keep_last, t->settings->keep_every);
        lam_free(state.plans);
    }
    t->saved = t->state.step;
    return lam_dist_agree(t->dist, status);
}
