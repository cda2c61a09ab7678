/* Any bytes as a configuration (first byte even) or as an override (odd): refused with one line that names
 * the place, or every value is one that the schema allows and the resolved text reads back as the same. */
#include "base/config.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_lists.h"
#include "base/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const lam_config_key keys[] = {
    {"model.depth", LAM_CONFIG_INT, "12", "blocks", 1, 1000, NULL},
    {"model.seed", LAM_CONFIG_INT, "0", "any integer", 0, 0, NULL},
    {"model.name", LAM_CONFIG_TEXT, "", "any text", 0, 0, NULL},
    {"model.tokens", LAM_CONFIG_NAMES, "", "names", 0, 0, NULL},
    {"optim.rate", LAM_CONFIG_FLOAT, "1e-3", "step size", 0, 1, NULL},
    {"optim.bias", LAM_CONFIG_FLOAT, "0", "any number", 0, 0, NULL},
    {"optim.rule", LAM_CONFIG_CHOICE, "adamw", "update rule", 0, 0, "adamw|lion"},
    {"optim.clip", LAM_CONFIG_BOOL, "true", "clip gradients", 0, 0, NULL},
    {NULL, 0, NULL, NULL, 0, 0, NULL}};

static void require(int condition) {
    if (!condition) abort();
}

static void allowed(const lam_config *config) {
    int64_t depth = lam_config_int(config, "model.depth");
    double rate = lam_config_float(config, "optim.rate");
    const char *rule = lam_config_text(config, "optim.rule");
    require(depth >= 1 && depth <= 1000);
    require(rate >= 0 && rate <= 1);
    require(isfinite(lam_config_float(config, "optim.bias")));
    require(strcmp(rule, "adamw") == 0 || strcmp(rule, "lion") == 0);
    lam_config_bool(config, "optim.clip");
    lam_config_int(config, "model.seed");
    require(lam_config_check(config) == LAM_OK);
}

static void round_trip(const lam_config *config) {
    char *text = NULL, *second = NULL;
    lam_config *again = NULL;
    require(lam_config_write(config, &text) == LAM_OK);
    require(lam_config_parse(&again, keys, text, strlen(text), "resolved") == LAM_OK);
    for (int i = 0; keys[i].path != NULL; i++) {
        require(lam_config_given(again, keys[i].path));
        require(strcmp(lam_config_text(again, keys[i].path), lam_config_text(config, keys[i].path)) == 0);
    }
    require(lam_config_write(again, &second) == LAM_OK);
    require(strcmp(text, second) == 0);
    lam_free(text);
    lam_free(second);
    lam_config_free(again);
}

static void refused(lam_status status, const char *where) {
    require(status == LAM_ERROR_CONFIG);
    require(strncmp(lam_last_error(), where, strlen(where)) == 0 && strchr(lam_last_error(), '\n') == NULL);
}

/* The same bytes as the lists of a sweep. */
static void lists_of(const char *text, size_t size) {
    lam_config_lists *lists = NULL;
    lam_status status = lam_config_lists_parse(&lists, text, size, "fuzz");
    if (status != LAM_OK) {
        require(lists == NULL);
        refused(status, "fuzz:");
        return;
    }
    for (int k = 0; k < lists->count; k++) {
        const lam_config_list *one = &lists->items[k];
        require(one->count > 0 && strlen(one->section) + strlen(one->key) <= size);
        for (int v = 0; v < one->count; v++) {
            require(one->values[v].count > 0);
            for (int t = 0; t < one->values[v].count; t++)
                require(strlen(one->values[v].texts[t]) <= 4 * size);
        }
    }
    lam_config_lists_free(lists);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (size == 0) return 0;
    lam_config *config = NULL;
    if (bytes[0] & 1) {
        char *assignment = NULL;
        require(lam_config_parse(&config, keys, "model: {}", 9, "empty") == LAM_OK);
        require(lam_text_copy_n(&assignment, (const char *)bytes + 1, size - 1) == LAM_OK);
        lam_status status = lam_config_set(config, assignment);
        if (status != LAM_OK) refused(status, "command line: ");
        lam_free(assignment);
    } else {
        lists_of((const char *)bytes + 1, size - 1);
        lam_status status = lam_config_parse(&config, keys, (const char *)bytes + 1, size - 1, "fuzz");
        if (status != LAM_OK) {
            require(config == NULL);
            refused(status, "fuzz:");
            return 0;
        }
    }
    allowed(config);
    round_trip(config);
    lam_config_free(config);
    return 0;
}
