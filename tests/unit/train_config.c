/* What the choices of a training configuration become. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "train/config.h"

static lam_settings settings_with(const char *assignment) {
    static const char text[] = "data: {path: shards}";
    lam_config *config;
    lam_settings settings;
    assert_int_equal(lam_config_parse(&config, lam_train_keys, text, strlen(text), "run.yaml"), LAM_OK);
    assert_int_equal(lam_config_set(config, assignment), LAM_OK);
    if (lam_settings_from(config, &settings) != LAM_OK) fail_msg("%s: %s", assignment, lam_last_error());
    lam_config_free(config); /* its texts are not looked at */
    return settings;
}

/* Each choice of a key, in order, gives these values of a member of the settings. */
#define CHECK(key, member, ...)                                                                              \
    do {                                                                                                     \
        static const struct {                                                                                \
            const char *choice;                                                                              \
            int value;                                                                                       \
        } wanted[] = {__VA_ARGS__};                                                                          \
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {                                        \
            char assignment[80];                                                                             \
            snprintf(assignment, sizeof assignment, "%s=%s", key, wanted[i].choice);                         \
            assert_int_equal(settings_with(assignment).member, wanted[i].value);                             \
        }                                                                                                    \
    } while (0)

static void model_choices(void **state) {
    (void)state;
    CHECK("model.name", model.kind, {"mae_vit", LAM_MAE_VIT}, {"mae_vit_parallel", LAM_MAE_VIT_PARALLEL},
          {"mae_channel_agnostic", LAM_MAE_CHANNEL_AGNOSTIC});
    CHECK("model.masking", model.masking, {"random", LAM_MASKING_RANDOM}, {"block", LAM_MASKING_BLOCK},
          {"per_channel", LAM_MASKING_PER_CHANNEL}, {"whole_channel", LAM_MASKING_WHOLE_CHANNEL});
    CHECK("model.positions", model.learned_positions, {"sincos", false}, {"learned", true});
    CHECK("model.decoder", model.decoder, {"cross", LAM_DECODER_CROSS}, {"shared", LAM_DECODER_SHARED});
    CHECK("model.fourier", model.fourier, {"none", LAM_FOURIER_NONE}, {"image", LAM_FOURIER_IMAGE},
          {"patch", LAM_FOURIER_PATCH}, {"recursion_compat", LAM_FOURIER_RECURSION});
    CHECK("model.fourier_norm", model.fourier_squared, {"l1", false}, {"l2", true});
}

static void data_choices(void **state) {
    (void)state;
    CHECK("data.normalize", model.normalize, {"crop", LAM_NORMALIZE_CROP}, {"plate", LAM_NORMALIZE_PLATE},
          {"dataset", LAM_NORMALIZE_DATASET});
    CHECK("data.transform", model.transform, {"none", LAM_TRANSFORM_NONE}, {"sqrt", LAM_TRANSFORM_SQRT},
          {"log", LAM_TRANSFORM_LOG});
}

static void run_choices(void **state) {
    (void)state;
    CHECK("train.precision", bf16, {"f32", false}, {"bf16", true});
    CHECK("train.recompute", recompute, {"none", LAM_RECOMPUTE_NONE}, {"norm_gelu", LAM_RECOMPUTE_NORM_GELU},
          {"block", LAM_RECOMPUTE_BLOCK});
    CHECK("optim.schedule", schedule.kind, {"cosine", LAM_SCHEDULE_COSINE},
          {"onecycle", LAM_SCHEDULE_ONECYCLE}, {"constant", LAM_SCHEDULE_CONSTANT});
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(model_choices), cmocka_unit_test(data_choices),
                                       cmocka_unit_test(run_choices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
