#include "train/run_state.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/sealed.h"

static void set_hash(lam_json *json, const char *key, uint64_t hash) {
    char text[24];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    lam_json_set_text(json, key, text);
}

lam_status lam_run_state_write(const char *path, const lam_run_state *s, int64_t epoch,
                               const lam_state_hashes *hashes) {
    lam_json *json = lam_json_object();
    lam_json_set_int(json, "step", s->step);
    lam_json_set_int(json, "epoch", epoch);
    lam_json_set_int(json, "updates", s->updates);
    lam_json_set_int(json, "skipped", s->skipped);
    lam_json_set_int(json, "skipped_in_row", s->skipped_in_row);
    lam_json_set_int(json, "damaged_samples", s->damaged_samples);
    lam_json_set_int(json, "seed", (int64_t)s->seed);
    lam_json_set_int(json, "world_size", s->world_size);
    lam_json_set_int(json, "threads", s->threads);
    lam_json_set_text(json, "isa", s->isa);
    lam_json_set_text(json, "mpi", s->mpi);
    lam_json_set_text(json, "gemm", s->gemm);
    if (s->plans) lam_json_set_text(json, "product_plans", s->plans);
    lam_json_set_text(json, "version", s->version);
    set_hash(json, "shards", s->shards_hash);
    lam_json_set_int(json, "metrics_bytes", s->metrics_bytes);
    set_hash(json, "model.safetensors", hashes->model);
    set_hash(json, "optimizer.safetensors", hashes->optimizer);
    if (hashes->has_ema) set_hash(json, "ema.safetensors", hashes->ema);
    lam_status status = lam_sealed_write(path, json);
    lam_json_free(json);
    return status;
}

static lam_status get_int(const lam_json *json, const char *path, const char *key, int64_t low, int64_t high,
                          int64_t *value) {
    const lam_json *field = lam_json_get(json, key);
    *value = lam_json_int(field, 0);
    LAM_REQUIRE(lam_json_is_integer(field) && *value >= low && *value <= high, LAM_ERROR_FORMAT,
                "%s: damaged: %s is no number from %" PRId64 " to %" PRId64, path, key, low, high);
    return LAM_OK;
}

static lam_status get_hash(const lam_json *json, const char *path, const char *key, uint64_t *hash) {
    const char *text = lam_json_text(lam_json_get(json, key), "");
    LAM_REQUIRE(strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16 &&
                    sscanf(text, "%16" SCNx64, hash) == 1,
                LAM_ERROR_FORMAT, "%s: damaged: %s is no hash", path, key);
    return LAM_OK;
}

static lam_status get_text(const lam_json *json, const char *path, const char *key, char *text, size_t size) {
    const char *value = lam_json_text(lam_json_get(json, key), NULL);
    LAM_REQUIRE(value && strlen(value) < size, LAM_ERROR_FORMAT,
                "%s: damaged: %s is no text of less than %zu bytes", path, key, size);
    memcpy(text, value, strlen(value) + 1);
    return LAM_OK;
}

static lam_status get_all(const lam_json *json, const char *path, lam_run_state *s,
                          lam_state_hashes *hashes) {
    int64_t epoch, seed, world_size, threads;
    LAM_TRY(get_int(json, path, "step", 1, INT64_MAX, &s->step));
    LAM_TRY(get_int(json, path, "epoch", 0, s->step, &epoch));
    LAM_TRY(get_int(json, path, "updates", 0, s->step, &s->updates));
    LAM_TRY(get_int(json, path, "skipped", 0, s->step, &s->skipped));
    LAM_TRY(get_int(json, path, "skipped_in_row", 0, s->skipped, &s->skipped_in_row));
    LAM_TRY(get_int(json, path, "damaged_samples", 0, INT64_MAX, &s->damaged_samples));
    LAM_TRY(get_int(json, path, "metrics_bytes", 1, INT64_MAX, &s->metrics_bytes));
    LAM_TRY(get_int(json, path, "seed", INT64_MIN, INT64_MAX, &seed));
    LAM_TRY(get_int(json, path, "world_size", 1, INT_MAX, &world_size));
    LAM_TRY(get_int(json, path, "threads", 1, INT_MAX, &threads));
    LAM_TRY(get_text(json, path, "isa", s->isa, sizeof s->isa));
    LAM_TRY(get_text(json, path, "mpi", s->mpi, sizeof s->mpi));
    LAM_TRY(get_text(json, path, "gemm", s->gemm, sizeof s->gemm));
    LAM_TRY(get_text(json, path, "version", s->version, sizeof s->version));
    LAM_TRY(get_hash(json, path, "shards", &s->shards_hash));
    LAM_TRY(get_hash(json, path, "model.safetensors", &hashes->model));
    LAM_TRY(get_hash(json, path, "optimizer.safetensors", &hashes->optimizer));
    hashes->has_ema = lam_json_get(json, "ema.safetensors") != NULL;
    hashes->ema = 0;
    if (hashes->has_ema) LAM_TRY(get_hash(json, path, "ema.safetensors", &hashes->ema));
    const char *plans = lam_json_text(lam_json_get(json, "product_plans"), NULL);
    if (plans) LAM_TRY(lam_text_copy(&s->plans, plans));
    s->seed = (uint64_t)seed;
    s->world_size = (int)world_size;
    s->threads = (int)threads;
    LAM_REQUIRE(s->updates == s->step - s->skipped, LAM_ERROR_FORMAT,
                "%s: damaged: %" PRId64 " updates and %" PRId64 " skipped are not the %" PRId64 " steps",
                path, s->updates, s->skipped, s->step);
    return LAM_OK;
}

lam_status lam_run_state_read(const char *path, int64_t step, lam_run_state *s, lam_state_hashes *hashes) {
    lam_json *json = NULL;
    memset(s, 0, sizeof *s);
    LAM_TRY(lam_sealed_read(&json, path));
    lam_status status = get_all(json, path, s, hashes);
    lam_json_free(json);
    if (status == LAM_OK && step >= 0 && s->step != step)
        status = lam_fail(LAM_ERROR_FORMAT, __FILE__, __LINE__,
                          "%s: says step %" PRId64 ", its folder is that of step %" PRId64, path, s->step, step);
    if (status != LAM_OK) {
        lam_free(s->plans);
        s->plans = NULL;
    }
    return status;
}
