/* Exported files are read again as they were; an export replaces the one before it whole or not at all, and
 * nothing of others. */
#include "train/export.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "foreign_set.h"

static void exported_and_read_again(void **state) {
    (void)state;
    static const char statistics[] =
        "{\"do_normalize\": true, \"image_mean\": [0.25, 0.5, 0.75], \"image_std\": [0.5, 0.25, 0.125]}";
    set *truth = golden("vit_mae_rgb.safetensors");
    must(lam_file_write(in("preprocessor_config.json"), statistics, strlen(statistics)));
    lam_network *network = import(truth), *again = NULL;
    assert_int_equal(network->settings.model.normalize, LAM_NORMALIZE_DATASET);
    must(lam_make_folders(in("exported")));
    must(lam_export_huggingface(network, in("exported")));
    must(lam_import_network(&again, in("exported/model.safetensors"), NULL));
    expect_same(again, truth, true);
    assert_int_equal(again->settings.model.normalize, LAM_NORMALIZE_DATASET);
    for (int c = 0; c < 3; c++) {
        assert_true(again->channel_mean[c] == 0.25 * (c + 1));
        double d = again->channel_deviation[c];
        assert_true(fabs(d * d + 1e-5 - 0.25 / (1 << 2 * c)) < 1e-12); /* what the feeder divides by */
    }
    assert_int_equal(lam_export_openphenom(network, in("exported"), LAM_BIAS_LEGACY), LAM_ERROR_INPUT);
    lam_network_free(&again);
    lam_network_free(&network);
    must(lam_remove_tree(in("preprocessor_config.json")));
    free_set(truth);
}

/* Bytes of the files of an export, one after the other; counts what lies there. */
static char *export_bytes(const char *of, size_t *size, int64_t *files) {
    static const char *const parts[] = {"model.safetensors", "config.json"};
    char *all = NULL, **names = NULL;
    *size = 0;
    must(lam_list_folder(of, "", &names, files));
    lam_free_texts(names, *files);
    for (int i = 0; i < 2; i++) {
        char *path = NULL, *bytes = NULL;
        size_t length = 0;
        must(lam_path_join(&path, of, parts[i]));
        must(lam_file_read(path, &bytes, &length));
        must(lam_grow((void **)&all, *size, *size + length));
        memcpy(all + *size, bytes, length);
        *size += length;
        lam_free(path);
        lam_free(bytes);
    }
    return all;
}

/* A disk that is full at any moment leaves the export that was there as it was. */
static void replaced_whole_or_not_at_all(void **state) {
    (void)state;
    set *vit = golden("vit_mae_rgb.safetensors"), *block = golden("vit_parallel_block.safetensors");
    for (int kind = 0; kind < 2; kind++) {
        write_config(kind ? "{}" : rgb_config);
        lam_network *network = import(kind ? block : vit);
        const char *out = kind ? "full_phenom" : "full_hf";
        size_t size = 0, now = 0;
        int64_t files = 0, left = 0, last_whole = 0, failures = 0;
        must(lam_make_folders(in(out)));
        must(kind ? lam_export_openphenom(network, in(out), LAM_BIAS_LEGACY)
                  : lam_export_huggingface(network, in(out)));
        char *before = export_bytes(in(out), &size, &files);
        network->parameters->weights[0] = 0.5f;
        network->settings.model.mask_ratio = 0.125; /* another config.json, too */
        for (int64_t n = 1;; n++, failures++) {
            lam_fault_arm(LAM_FAULT_WRITE, n);
            lam_status status = kind ? lam_export_openphenom(network, in(out), LAM_BIAS_LEGACY)
                                     : lam_export_huggingface(network, in(out));
            lam_fault_arm(LAM_FAULT_WRITE, 0);
            char *after = export_bytes(in(out), &now, &left);
            bool same = now == size && !memcmp(before, after, size);
            lam_free(after);
            assert_int_equal(left, files); /* nothing temporary */
            if (status == LAM_OK) {
                assert_false(same);
                break;
            }
            assert_int_equal(status, LAM_ERROR_IO);
            if (same) last_whole = n;
        }
        assert_true(failures > 6 && failures - last_whole <= 2); /* those of the renames after the first */
        lam_free(before);
        lam_network_free(&network);
    }
    free_set(vit);
    free_set(block);
}

static void strangers_stay(void **state) {
    (void)state;
    set *truth = golden("vit_parallel_block.safetensors");
    write_config("{}");
    lam_network *network = import(truth);
    char *bytes = NULL;
    size_t size = 0;
    must(lam_make_folders(in("strange")));
    must(lam_file_write(in("strange/pytorch_model.bin"), "theirs", 6));
    assert_int_equal(lam_export_openphenom(network, in("strange"), LAM_BIAS_LEGACY), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "pytorch_model.bin: lamella has not written it"));
    must(lam_file_read(in("strange/pytorch_model.bin"), &bytes, &size));
    assert_true(size == 6 && !memcmp(bytes, "theirs", 6));
    lam_free(bytes);
    must(lam_export_drop_link(in("strange")));
    assert_true(lam_path_exists(in("strange/pytorch_model.bin")));
    must(lam_remove_tree(in("strange/pytorch_model.bin")));
    assert_int_equal(symlink("elsewhere", in("strange/pytorch_model.bin")), 0);
    assert_int_equal(lam_export_openphenom(network, in("strange"), LAM_BIAS_LEGACY), LAM_ERROR_USAGE);
    must(lam_remove_tree(in("strange/pytorch_model.bin")));
    must(lam_file_write(in("strange/preprocessor_config.json"), "{}", 2));
    assert_int_equal(lam_export_openphenom(network, in("strange"), LAM_BIAS_LEGACY), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "preprocessor_config.json: belongs to other weights"));
    must(lam_remove_tree(in("strange/preprocessor_config.json")));
    for (int twice = 0; twice < 2; twice++) /* its own link is replaced */
        must(lam_export_openphenom(network, in("strange"), LAM_BIAS_LEGACY));
    must(lam_export_drop_link(in("strange")));
    assert_false(lam_path_exists(in("strange/pytorch_model.bin")));
    lam_network_free(&network);
    free_set(truth);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exported_and_read_again),
        cmocka_unit_test(replaced_whole_or_not_at_all),
        cmocka_unit_test(strangers_stay),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
