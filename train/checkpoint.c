#include "train/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <xxhash.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/weights_file.h"
#include "train/optimizer_file.h"

lam_status lam_file_hash(const char *path, uint64_t *hash) {
    enum { BLOCK = 1 << 20 };
    lam_reader *reader = NULL;
    char *block = NULL;
    XXH64_state_t *state = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_reader_open(&reader, path), done);
    LAM_TRY_GOTO(lam_alloc((void **)&block, BLOCK), done);
    state = XXH64_createState();
    LAM_REQUIRE_GOTO(state, done, LAM_ERROR_MEMORY, "%s: no memory for its hash", path);
    XXH64_reset(state, 0);
    uint64_t size = lam_reader_size(reader);
    for (uint64_t at = 0; at < size; at += BLOCK) {
        size_t part = size - at < BLOCK ? (size_t)(size - at) : BLOCK;
        LAM_TRY_GOTO(lam_reader_at(reader, at, block, part), done);
        XXH64_update(state, block, part);
    }
    *hash = XXH64_digest(state);
done:
    XXH64_freeState(state);
    lam_free(block);
    lam_reader_close(&reader);
    return status;
}

/* ---- a folder ---- */

#define STEP_NAME "step_%08" PRId64
#define ASIDE ".aside"

static void test_delay(void) {
    /* Tests make a checkpoint last, to send a signal or a kill into it. */
    const char *text = getenv("LAMELLA_CHECKPOINT_DELAY_MS");
    long delay = text ? strtol(text, NULL, 10) : 0;
    if (delay <= 0) return;
    struct timespec left = {delay / 1000, delay % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) continue;
}

/* The weights that inference uses; where the rule averages them they come into the arena of the gradients, which holds
 * nothing between steps. */
static lam_status write_model(const char *path, const lam_network *network, const lam_optimizer_state *o,
                              int64_t step) {
    const lam_parameters *p = network->parameters;
    if (!o->optimizer->averaged) return lam_network_write(network, NULL, path, step);
    o->optimizer->averaged(p, o->arena, network->settings.schedule.beta1, p->gradients);
    return lam_network_write(network, p->gradients, path, step);
}

static lam_status fill_folder(const char *folder, const lam_network *network,
                              const lam_optimizer_state *optimizer, const float *average,
                              const lam_run_state *state, int64_t epoch) {
    char *model = NULL, *arenas = NULL, *ema = NULL, *json = NULL;
    lam_state_hashes hashes = {.has_ema = average != NULL};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_make_folders(folder), done);
    LAM_TRY_GOTO(lam_path_join(&model, folder, "model.safetensors"), done);
    LAM_TRY_GOTO(lam_path_join(&arenas, folder, "optimizer.safetensors"), done);
    LAM_TRY_GOTO(lam_path_join(&ema, folder, "ema.safetensors"), done);
    LAM_TRY_GOTO(lam_path_join(&json, folder, "state.json"), done);
    LAM_TRY_GOTO(write_model(model, network, optimizer, state->step), done);
    test_delay();
    LAM_TRY_GOTO(lam_optimizer_file_write(arenas, network->parameters, optimizer, state->updates), done);
    if (average) {
        LAM_TRY_GOTO(lam_network_write(network, average, ema, state->step), done);
        LAM_TRY_GOTO(lam_file_hash(ema, &hashes.ema), done);
    }
    LAM_TRY_GOTO(lam_file_hash(model, &hashes.model), done);
    LAM_TRY_GOTO(lam_file_hash(arenas, &hashes.optimizer), done);
    LAM_TRY_GOTO(lam_run_state_write(json, state, epoch, &hashes), done);
    lam_sync_folder(folder);
done:
    lam_free(model);
    lam_free(arenas);
    lam_free(ema);
    lam_free(json);
    return status;
}

static lam_status step_path(char **path, const char *folders, int64_t step) {
    return lam_text_format(path, "%s/" STEP_NAME, folders, step);
}

static lam_status write_latest(const char *folders, int64_t step) {
    char name[48], *latest = NULL;
    snprintf(name, sizeof name, STEP_NAME "\n", step);
    LAM_TRY(lam_path_join(&latest, folders, "latest"));
    lam_status status = lam_file_write(latest, name, strlen(name));
    lam_free(latest);
    return status;
}

lam_status lam_checkpoint_write(const char *run, const lam_network *network,
                                const lam_optimizer_state *optimizer, const float *average,
                                const lam_run_state *state, int64_t epoch) {
    char *folders = NULL, *final = NULL, *partial = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_path_join(&folders, run, "checkpoints"), done);
    LAM_TRY_GOTO(step_path(&final, folders, state->step), done);
    LAM_TRY_GOTO(lam_text_format(&partial, "%s.partial", final), done);
    LAM_TRY_GOTO(lam_remove_tree(partial), done);
    LAM_TRY_GOTO(fill_folder(partial, network, optimizer, average, state, epoch), done);
    LAM_REQUIRE_GOTO(!lam_fault_hit(LAM_FAULT_WRITE) && rename(partial, final) == 0, done, LAM_ERROR_IO,
                     "%s: cannot be renamed to its final name: %s", partial, strerror(errno));
    lam_sync_folder(folders);
    LAM_TRY_GOTO(write_latest(folders, state->step), done);
done:
    lam_free(folders);
    lam_free(final);
    lam_free(partial);
    return status;
}

/* The step in "step_00001000"; -1: another name, which is none of ours. */
static int64_t step_of(const char *name) {
    char ours[48];
    if (strncmp(name, "step_", 5) != 0 || strlen(name) >= sizeof ours) return -1;
    long long step = strtoll(name + 5, NULL, 10);
    snprintf(ours, sizeof ours, STEP_NAME, (int64_t)step);
    return step >= 0 && strcmp(name, ours) == 0 ? step : -1;
}

static int newer_first(const void *a, const void *b) {
    const int64_t *x = a, *y = b;
    return (*x < *y) - (*x > *y);
}

/* The steps that have a folder, the highest first: as numbers, since step_100000000 sorts before step_99999999. */
static lam_status list_steps(const char *folders, int64_t **steps, int64_t *count) {
    char **names = NULL;
    int64_t entries = 0;
    *steps = NULL;
    *count = 0;
    LAM_TRY(lam_list_folder(folders, "", &names, &entries));
    lam_status status = lam_alloc_array((void **)steps, entries, sizeof **steps);
    for (int64_t i = 0; i < entries && status == LAM_OK; i++)
        if (step_of(names[i]) >= 0) (*steps)[(*count)++] = step_of(names[i]);
    if (status == LAM_OK) qsort(*steps, (size_t)*count, sizeof **steps, newer_first);
    lam_free_texts(names, entries);
    return status;
}

static lam_status remove_step(const char *folders, int64_t step) {
    char *path = NULL;
    LAM_TRY(step_path(&path, folders, step));
    lam_status status = lam_remove_tree(path);
    lam_free(path);
    return status;
}

/* What killed writes and earlier resumes left beside the checkpoints. */
static lam_status remove_leftovers(const char *folders) {
    char **names = NULL, *path = NULL;
    int64_t count = 0;
    LAM_TRY(lam_list_folder(folders, "", &names, &count));
    lam_status status = LAM_OK;
    for (int64_t i = 0; i < count; i++) {
        if (strncmp(names[i], "step_", 5) != 0 || !(strstr(names[i], ".partial") || strstr(names[i], ASIDE)))
            continue;
        LAM_TRY_GOTO(lam_path_join(&path, folders, names[i]), done);
        LAM_TRY_GOTO(lam_remove_tree(path), done);
        lam_free(path);
        path = NULL;
    }
done:
    lam_free(path);
    lam_free_texts(names, count);
    return status;
}

lam_status lam_checkpoint_prune(const char *run, int64_t step, int64_t keep_last, int64_t keep_every) {
    char *folders = NULL;
    int64_t *steps = NULL, count = 0, kept = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_path_join(&folders, run, "checkpoints"), done);
    LAM_TRY_GOTO(list_steps(folders, &steps, &count), done);
    for (int64_t i = 0; i < count; i++) {
        if (steps[i] > step || kept++ < keep_last || (keep_every > 0 && steps[i] % keep_every == 0)) continue;
        LAM_TRY_GOTO(remove_step(folders, steps[i]), done);
    }
    status = remove_leftovers(folders);
done:
    lam_free(steps);
    lam_free(folders);
    return status;
}

static lam_status set_aside(const char *folders, int64_t step) {
    char *from = NULL, *to = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(step_path(&from, folders, step), done);
    LAM_TRY_GOTO(lam_text_format(&to, "%s" ASIDE, from), done);
    LAM_TRY_GOTO(lam_remove_tree(to), done);
    LAM_REQUIRE_GOTO(rename(from, to) == 0, done, LAM_ERROR_IO, "%s: cannot be renamed: %s", from,
                     strerror(errno));
    lam_log_warning("%s is newer than what the run goes on from: set aside, removed at the next checkpoint",
                    from);
done:
    lam_free(from);
    lam_free(to);
    return status;
}

lam_status lam_checkpoint_go_on_from(const char *run, int64_t step) {
    char *folders = NULL;
    int64_t *steps = NULL, count = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_path_join(&folders, run, "checkpoints"), done);
    LAM_TRY_GOTO(write_latest(folders, step), done);
    LAM_TRY_GOTO(list_steps(folders, &steps, &count), done);
    for (int64_t i = 0; i < count && steps[i] > step; i++) LAM_TRY_GOTO(set_aside(folders, steps[i]), done);
done:
    lam_free(steps);
    lam_free(folders);
    return status;
}

static lam_status check_file(const char *folder, const char *name, uint64_t expected) {
    char *path = NULL;
    uint64_t hash = 0;
    LAM_TRY(lam_path_join(&path, folder, name));
    lam_status status = lam_file_hash(path, &hash);
    lam_free(path);
    LAM_TRY(status);
    LAM_REQUIRE(hash == expected, LAM_ERROR_FORMAT, "%s/%s: its hash is not the one in state.json", folder,
                name);
    return LAM_OK;
}

static lam_status check_folder(const char *folder, int64_t step) {
    char *path = NULL;
    lam_run_state state = {0};
    lam_state_hashes hashes;
    LAM_TRY(lam_path_join(&path, folder, "state.json"));
    lam_status status = lam_run_state_read(path, step, &state, &hashes);
    lam_free(state.plans);
    lam_free(path);
    LAM_TRY(status);
    LAM_TRY(check_file(folder, "model.safetensors", hashes.model));
    LAM_TRY(check_file(folder, "optimizer.safetensors", hashes.optimizer));
    return hashes.has_ema ? check_file(folder, "ema.safetensors", hashes.ema) : LAM_OK;
}

static lam_status try_folder(const char *folders, int64_t step, char **folder, char **tried) {
    LAM_TRY(step_path(folder, folders, step));
    lam_status status = check_folder(*folder, step);
    if (status == LAM_OK) return LAM_OK;
    if (!*tried) LAM_TRY(lam_text_copy(tried, lam_last_error()));
    lam_log_warning("checkpoint passed over: %s", lam_last_error());
    lam_free(*folder);
    *folder = NULL;
    return status == LAM_ERROR_MEMORY ? status : LAM_OK;
}

lam_status lam_checkpoint_find(const char *run, char **folder) {
    char *folders = NULL, *latest = NULL, *text = NULL, *tried = NULL;
    size_t size = 0;
    int64_t *steps = NULL, count = 0, named = -1;
    *folder = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_path_join(&folders, run, "checkpoints"), done);
    if (!lam_path_is_folder(folders)) goto done;
    LAM_TRY_GOTO(lam_path_join(&latest, folders, "latest"), done);
    if (lam_path_exists(latest)) {
        LAM_TRY_GOTO(lam_file_read(latest, &text, &size), done);
        text[strcspn(text, "\r\n")] = 0;
        named = step_of(text);
    }
    LAM_TRY_GOTO(list_steps(folders, &steps, &count), done);
    if (named >= 0) LAM_TRY_GOTO(try_folder(folders, named, folder, &tried), done);
    for (int64_t i = 0; i < count && !*folder; i++)
        if (steps[i] != named) LAM_TRY_GOTO(try_folder(folders, steps[i], folder, &tried), done);
    LAM_REQUIRE_GOTO(*folder || !tried, done, LAM_ERROR_FORMAT,
                     "%s: every checkpoint is damaged (%s); --force starts anew", run, tried);
done:
    lam_free(folders);
    lam_free(latest);
    lam_free(text);
    lam_free(tried);
    lam_free(steps);
    return status;
}

lam_status lam_checkpoint_read(const char *folder, lam_network *network, const lam_optimizer_state *optimizer,
                               float *average, lam_run_state *s) {
    const lam_parameters *p = network->parameters;
    char *path = NULL, *model = NULL, *arenas = NULL, *ema = NULL;
    lam_state_hashes hashes;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_path_join(&path, folder, "state.json"), done);
    LAM_TRY_GOTO(lam_path_join(&model, folder, "model.safetensors"), done);
    LAM_TRY_GOTO(lam_path_join(&arenas, folder, "optimizer.safetensors"), done);
    LAM_TRY_GOTO(lam_run_state_read(path, -1, s, &hashes), done);
    if (average && hashes.has_ema) {
        LAM_TRY_GOTO(lam_path_join(&ema, folder, "ema.safetensors"), done);
        LAM_TRY_GOTO(lam_network_read_weights(network, ema), done);
        memcpy(average, p->weights, (size_t)p->trainable * sizeof(float));
    }
    LAM_TRY_GOTO(lam_network_read_weights(network, model), done);
    if (average && !hashes.has_ema) {
        lam_log_warning("%s: holds no average of weights: optim.ema begins with the present ones", folder);
        memcpy(average, p->weights, (size_t)p->trainable * sizeof(float));
    }
    LAM_TRY_GOTO(lam_optimizer_file_read(arenas, network->parameters, optimizer), done);
    network->step = s->step;
done:
    lam_free(path);
    lam_free(model);
    lam_free(arenas);
    lam_free(ema);
    return status;
}

/* RUN/checkpoints/latest: the weights of the step folder beside it that it names. */
static lam_status weights_of_latest(const char *path, const char *name, char **file) {
    char *text = NULL;
    size_t size = 0;
    LAM_TRY(lam_file_read(path, &text, &size));
    text[strcspn(text, "\r\n")] = 0;
    const char *slash = strrchr(path, '/');
    lam_status status =
        step_of(text) >= 0
            ? lam_text_format(file, "%.*s%s/%s", slash ? (int)(slash + 1 - path) : 0, path, text, name)
            : lam_fail(LAM_ERROR_FORMAT, __FILE__, __LINE__,
                       "%s: names no step folder; name the run folder instead", path);
    lam_free(text);
    return status;
}

static lam_status weights_of_run(const char *path, const char *name, char **file) {
    char *folder = NULL;
    LAM_TRY(lam_checkpoint_find(path, &folder));
    LAM_REQUIRE(folder, LAM_ERROR_INPUT,
                "%s: holds no checkpoint; name a run folder, a step folder or a model.safetensors", path);
    lam_status status = lam_path_join(file, folder, name);
    lam_free(folder);
    return status;
}

static lam_status weights_of_folder(const char *path, const char *name, bool average, char **file) {
    char *model = NULL;
    LAM_TRY(lam_path_join(&model, path, "model.safetensors"));
    bool step = lam_path_exists(model);
    lam_free(model);
    if (!step && !average) LAM_TRY(lam_weights_file(path, file)); /* another program's */
    if (*file) return LAM_OK;
    return step ? lam_path_join(file, path, name) : weights_of_run(path, name, file);
}

lam_status lam_checkpoint_weights(const char *path, bool average, char **file) {
    const char *slash = strrchr(path, '/'), *name = average ? "ema.safetensors" : "model.safetensors";
    bool latest = !strcmp(slash ? slash + 1 : path, "latest"), folder = lam_path_is_folder(path);
    *file = NULL;
    LAM_REQUIRE(lam_path_exists(path), LAM_ERROR_IO,
                "%s: no such file or folder; name a run, checkpoint or weights file", path);
    LAM_REQUIRE(
        !average || folder || latest, LAM_ERROR_USAGE,
        "%s: a file is taken as it is; for its average name the run, the step folder or ema.safetensors",
        path);
    LAM_TRY(folder   ? weights_of_folder(path, name, average, file)
            : latest ? weights_of_latest(path, name, file)
                     : lam_text_copy(file, path));
    if (!average || lam_path_exists(*file)) return LAM_OK;
    lam_free(*file);
    *file = NULL;
    LAM_FAIL(LAM_ERROR_INPUT, "%s: holds no average of weights: train with optim.ema", path);
}
