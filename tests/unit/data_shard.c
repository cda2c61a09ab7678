/* Shards: what was written is read back bit for bit, statistics are those of the pixels, damage is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/sealed.h"
#include "data/shard.h"
#include "data/shard_format.h"
#include "data/shard_write.h"

enum { IMAGES = 7, CHANNELS = 3 };
static const char *const names[CHANNELS] = {"DNA", "ER", "Mito"};
static const int64_t heights[IMAGES] = {40, 256, 257, 1, 600, 33, 5},
                     widths[IMAGES] = {40, 256, 300, 1, 513, 1000, 7};

static char *folder_of(const char *name) {
    char *path = NULL;
    assert_int_equal(lam_text_format(&path, "/tmp/lamella_shard_%d_%s", (int)getpid(), name), LAM_OK);
    assert_int_equal(lam_remove_tree(path), LAM_OK);
    return path;
}

static uint16_t pixel(int64_t image, int64_t channel, int64_t y, int64_t x) {
    uint32_t h = (uint32_t)(image * 73 + channel * 19 + y * 31 + x * 7);
    h = h * 2654435761u ^ h >> 13;
    /* Channel 1 is 8-bit, channel 2 of image 5 is noise that does not compress. */
    if (channel == 1) return (uint16_t)((y + x + image) & 255);
    if (channel == 2 && image == 5) return (uint16_t)(h * 2246822519u >> 16);
    return (uint16_t)(((y * 5 + x * 3) & 1023) + (h & 15));
}

static bool is_there(int64_t image, int64_t channel) { return !(image == 4 && channel == 0); }

static lam_table *make_table(void) {
    static const char *const plate[IMAGES] = {"P1", "P2", "P1", "P2", "P2", "P3", "P1"};
    static const char *const well[IMAGES] = {"A1", "A1", "A1", "A2", "A1", "A1", ""};
    static const char *const note[IMAGES] = {"", "", "a, \"b\"\nc", "", "", "", ""};
    lam_table *t = NULL;
    assert_int_equal(lam_table_create(&t, IMAGES), LAM_OK);
    assert_int_equal(lam_table_add(t, "plate", plate), LAM_OK);
    assert_int_equal(lam_table_add(t, "well", well), LAM_OK);
    assert_int_equal(lam_table_add(t, "note", note), LAM_OK);
    return t;
}

static lam_table *shared_table; /* made before any fault is armed */

static lam_status add_image(lam_dataset *d, int64_t i) {
    void *planes[CHANNELS] = {NULL, NULL, NULL};
    lam_pixel_type types[CHANNELS] = {LAM_PIXEL_U16, LAM_PIXEL_U8, LAM_PIXEL_U16};
    lam_encoded_image *encoded = NULL;
    for (int64_t c = 0; c < CHANNELS; c++) {
        if (!is_there(i, c)) continue;
        planes[c] = malloc((size_t)(heights[i] * widths[i]) * 2);
        assert_non_null(planes[c]);
        for (int64_t k = 0; k < heights[i] * widths[i]; k++) {
            uint16_t v = pixel(i, c, k / widths[i], k % widths[i]);
            if (types[c] == LAM_PIXEL_U8)
                ((uint8_t *)planes[c])[k] = (uint8_t)v;
            else
                ((uint16_t *)planes[c])[k] = v;
        }
    }
    lam_status status =
        lam_encode_image(&encoded, (const void *const *)planes, types, CHANNELS, heights[i], widths[i]);
    if (status == LAM_OK) status = lam_dataset_add(d, encoded);
    lam_encoded_free(&encoded);
    for (int c = 0; c < CHANNELS; c++) free(planes[c]);
    return status;
}

static lam_status write_folder(const char *folder, int64_t shard_bytes, bool resume, int64_t upto) {
    uint64_t hashes[IMAGES] = {1, 2, 3, 4, 5, 6, 7};
    lam_dataset_config c = {.folder = folder,
                            .channel_names = names,
                            .channels = CHANNELS,
                            .metadata = shared_table,
                            .row_hashes = hashes,
                            .settings_hash = 99,
                            .shard_bytes = shard_bytes,
                            .resume = resume};
    lam_dataset *d = NULL;
    lam_status status = lam_dataset_create(&d, &c);
    for (int64_t i = status == LAM_OK ? lam_dataset_images(d) : 0; status == LAM_OK && i < upto; i++)
        status = add_image(d, i);
    if (status == LAM_OK && upto == IMAGES)
        status = lam_dataset_finish(&d);
    else
        lam_dataset_abort(&d);
    return status;
}

static void test_round_trip(void **state) {
    (void)state;
    char *folder = folder_of("round");
    static uint16_t out[600 * 1000];
    for (int shards = 0; shards < 2; shards++) {
        assert_int_equal(write_folder(folder, shards == 0 ? 0 : 200000, false, IMAGES), LAM_OK);
        lam_shards *s = NULL;
        assert_int_equal(lam_shards_open(&s, folder), LAM_OK);
        assert_int_equal(lam_shards_images(s), IMAGES);
        assert_int_equal(lam_shards_channels(s), CHANNELS);
        assert_string_equal(lam_shards_channel_name(s, 2), "Mito");
        assert_int_equal(lam_shards_pixel_type(s), LAM_PIXEL_U16);
        assert_int_equal(lam_shards_channel_bits(s, 0), 12);
        assert_int_equal(lam_shards_channel_bits(s, 1), 8);
        assert_int_equal(lam_shards_channel_bits(s, 2), 16);
        for (int64_t i = 0; i < IMAGES; i++) {
            int64_t h = 0, w = 0;
            lam_shards_image_size(s, i, &h, &w);
            assert_true(h == heights[i] && w == widths[i]);
            for (int64_t c = 0; c < CHANNELS; c++) {
                assert_int_equal(lam_shards_has_channel(s, i, c), is_there(i, c));
                assert_int_equal(lam_shards_read_window(s, i, c, 0, 0, h, w, out), LAM_OK);
                for (int64_t k = 0; k < h * w; k++)
                    assert_int_equal(out[k], is_there(i, c) ? pixel(i, c, k / w, k % w) : 0);
                int64_t y = h / 3, x = w / 3, hh = h - y - h / 4, ww = w - x - w / 5;
                assert_int_equal(lam_shards_read_window(s, i, c, y, x, hh, ww, out), LAM_OK);
                for (int64_t k = 0; k < hh * ww; k++)
                    assert_int_equal(out[k], is_there(i, c) ? pixel(i, c, y + k / ww, x + k % ww) : 0);
            }
        }
        assert_int_equal(lam_shards_read_window(s, 0, 0, 1, 0, 40, 40, out), LAM_ERROR_INPUT);
        assert_int_equal(lam_shards_read_window(s, 0, 0, INT64_MAX, 0, 40, 40, out), LAM_ERROR_INPUT);
        const lam_table *t = lam_shards_metadata(s);
        assert_string_equal(lam_table_cell(t, 2, lam_table_column(t, "note")), "a, \"b\"\nc");
        int64_t plates = 0, groups = 0;
        const int64_t *plate = lam_shards_plates(s, &plates), *group = lam_shards_groups(s, &groups);
        assert_int_equal(plates, 3);
        assert_int_equal(plate[5], 2);
        assert_int_equal(groups, 5); /* P1 A1, P1 "", P2 A1, P2 A2, P3 A1 */
        assert_int_equal(group[0], group[2]);
        assert_int_equal(group[1], group[4]);
        assert_true(group[0] != group[1] && group[0] != group[6] && group[1] != group[3]);
        lam_shards_close(&s);
    }
    assert_int_equal(lam_remove_tree(folder), LAM_OK);
    lam_free(folder);
}

static double transformed(double x, int t) {
    return t == 0 ? x : t == 1 ? sqrt(x) : log(1 + 1023 * x) / log(1024.0);
}

static void test_statistics(void **state) {
    (void)state;
    char *folder = folder_of("statistics");
    static const int plate_of[IMAGES] = {0, 1, 0, 1, 1, 2, 0};
    assert_int_equal(write_folder(folder, 150000, false, IMAGES), LAM_OK);
    lam_shards *s = NULL;
    assert_int_equal(lam_shards_open(&s, folder), LAM_OK);
    for (int p = -1; p < 3; p++) {
        for (int64_t c = 0; c < CHANNELS; c++) {
            double scale = lam_shards_channel_scale(s, c);
            for (int t = 0; t < 3; t++) {
                double n = 0, sum = 0, square = 0, mean = 0, deviation = 0;
                for (int pass = 0; pass < 2; pass++) {
                    for (int64_t i = 0; i < IMAGES; i++) {
                        if (!is_there(i, c) || (p >= 0 && plate_of[i] != p)) continue;
                        for (int64_t k = 0; k < heights[i] * widths[i]; k++) {
                            double v = transformed(pixel(i, c, k / widths[i], k % widths[i]) * scale, t);
                            if (pass == 0)
                                n++, sum += v;
                            else
                                square += (v - sum / n) * (v - sum / n);
                        }
                    }
                }
                lam_shards_channel_stats(s, p, c, (lam_transform)t, &mean, &deviation);
                assert_true(fabs(mean - sum / n) < 1e-9);
                assert_true(fabs(deviation - sqrt(square / n)) < 1e-8);
            }
        }
    }
    lam_shards_close(&s);
    assert_int_equal(lam_remove_tree(folder), LAM_OK);
    lam_free(folder);
}

static void test_sums_do_not_depend_on_order(void **state) {
    (void)state;
    uint16_t pixels[1000];
    lam_sums whole = {0}, parts = {0}, a = {0}, b = {0}, loaded;
    unsigned char stored[2][LAM_SUMS_BYTES];
    uint32_t maximum = 0;
    for (int i = 0; i < 1000; i++) pixels[i] = (uint16_t)(i * 65);
    assert_int_equal(lam_sums_add_plane(&whole, pixels, 1000, LAM_PIXEL_U16, &maximum), LAM_OK);
    assert_int_equal(maximum, 999 * 65);
    assert_int_equal(lam_sums_add_plane(&a, pixels + 300, 700, LAM_PIXEL_U16, &maximum), LAM_OK);
    assert_int_equal(lam_sums_add_plane(&b, pixels, 300, LAM_PIXEL_U16, &maximum), LAM_OK);
    lam_sums_merge(&parts, &a);
    lam_sums_merge(&parts, &b);
    lam_sums_store(&whole, stored[0]);
    lam_sums_load(&loaded, stored[0]);
    lam_sums_store(&parts, stored[1]);
    assert_memory_equal(stored[0], stored[1], LAM_SUMS_BYTES);
    lam_sums_store(&loaded, stored[1]);
    assert_memory_equal(stored[0], stored[1], LAM_SUMS_BYTES);
}

static void read_all(const char *folder, const char *file, char **bytes, size_t *size) {
    char *path = NULL;
    assert_int_equal(lam_path_join(&path, folder, file), LAM_OK);
    assert_int_equal(lam_file_read(path, bytes, size), LAM_OK);
    lam_free(path);
}

static void same_folders(const char *whole, const char *cut) {
    char **files[2];
    int64_t count[2];
    assert_int_equal(lam_list_folder(whole, "", &files[0], &count[0]), LAM_OK);
    assert_int_equal(lam_list_folder(cut, "", &files[1], &count[1]), LAM_OK);
    assert_int_equal(count[0], count[1]);
    assert_true(count[0] > 3);
    for (int64_t i = 0; i < count[0]; i++) {
        char *bytes[2] = {NULL, NULL};
        size_t size[2];
        assert_string_equal(files[0][i], files[1][i]);
        read_all(whole, files[0][i], &bytes[0], &size[0]);
        read_all(cut, files[1][i], &bytes[1], &size[1]);
        assert_int_equal(size[0], size[1]);
        assert_memory_equal(bytes[0], bytes[1], size[0]);
        lam_free(bytes[0]);
        lam_free(bytes[1]);
    }
    lam_free_texts(files[0], count[0]);
    lam_free_texts(files[1], count[1]);
}

static void test_resume_gives_the_same_bytes(void **state) {
    (void)state;
    char *whole = folder_of("whole"), *cut = folder_of("cut");
    assert_int_equal(write_folder(whole, 2000, false, IMAGES), LAM_OK);
    for (int64_t stop = 0; stop < IMAGES; stop++) {
        assert_int_equal(write_folder(cut, 2000, true, stop), LAM_OK);
        lam_shards *s = NULL;
        assert_int_equal(lam_shards_open(&s, cut), LAM_ERROR_INPUT);
        assert_non_null(strstr(lam_last_error(), "--resume"));
    }
    assert_int_equal(write_folder(cut, 2000, true, IMAGES), LAM_OK);
    same_folders(whole, cut);
    /* A kept shard whose frames are damaged is packed again: in a packing that was stopped, and in a finished one. */
    for (int finished = 0; finished < 2; finished++) {
        char *path = NULL, *bytes = NULL;
        size_t size = 0;
        assert_int_equal(lam_path_join(&path, cut, "dataset.json"), LAM_OK);
        if (!finished) assert_int_equal(lam_remove_tree(path), LAM_OK);
        lam_free(path);
        assert_int_equal(lam_path_join(&path, cut, "shard_00001.lam"), LAM_OK);
        assert_int_equal(lam_file_read(path, &bytes, &size), LAM_OK);
        bytes[100] ^= 4;
        assert_int_equal(lam_file_write(path, bytes, size), LAM_OK);
        assert_int_equal(write_folder(cut, 2000, true, IMAGES), LAM_OK);
        same_folders(whole, cut);
        lam_free(bytes);
        lam_free(path);
    }
    assert_int_equal(lam_remove_tree(whole), LAM_OK);
    assert_int_equal(lam_remove_tree(cut), LAM_OK);
    lam_free(whole);
    lam_free(cut);
}
static void write_over(const char *path, const char *bytes, size_t size) {
    assert_int_equal(lam_file_write(path, bytes, size), LAM_OK);
}

/* Every bit that is flipped, and every length the file is cut to, is an error or leaves the pixels as they
 * were. */
static void test_damage_is_found(void **state) {
    (void)state;
    char *folder = folder_of("damage"), *path = NULL, *bytes = NULL;
    size_t size = 0;
    static uint16_t out[600 * 1000];
    int found_in_frames = 0;
    assert_int_equal(write_folder(folder, 0, false, IMAGES), LAM_OK);
    assert_int_equal(lam_path_join(&path, folder, "shard_00000.lam"), LAM_OK);
    assert_int_equal(lam_file_read(path, &bytes, &size), LAM_OK);
    for (size_t at = 0; at < size; at += at < 64 || at > size - 48 ? 1 : size / 97) {
        lam_shards *s = NULL;
        bytes[at] = (char)(bytes[at] ^ 1 << (at % 8));
        write_over(path, bytes, size);
        lam_status status = lam_shards_open(&s, folder);
        if (status == LAM_OK) {
            for (int64_t i = 0; i < IMAGES && status == LAM_OK; i++)
                for (int64_t c = 0; c < CHANNELS && status == LAM_OK; c++)
                    status = lam_shards_read_window(s, i, c, 0, 0, heights[i], widths[i], out);
            assert_non_null(strstr(lam_last_error(), "shard_00000.lam"));
            assert_non_null(strstr(lam_last_error(), "channel"));
            found_in_frames++;
        }
        assert_int_equal(status, LAM_ERROR_FORMAT);
        lam_shards_close(&s);
        bytes[at] = (char)(bytes[at] ^ 1 << (at % 8));
    }
    assert_true(found_in_frames > 50);
    for (size_t cut = 0; cut < size; cut += cut < 130 ? 13 : size / 23) {
        lam_shards *s = NULL;
        write_over(path, bytes, cut);
        assert_int_equal(lam_shards_open(&s, folder), LAM_ERROR_FORMAT);
    }
    lam_free(bytes);
    lam_free(path);
    assert_int_equal(lam_remove_tree(folder), LAM_OK);
    lam_free(folder);
}

/* The object that `key` ends in, as in "channels.0.bits"; its last word in *last. */
static lam_json *field_of(lam_json *root, const char *key, const char **last) {
    static char words[64];
    snprintf(words, sizeof words, "%s", key);
    *last = words;
    for (char *dot; (dot = strchr(*last, '.')) != NULL; *last = dot + 1) {
        *dot = 0;
        bool is_index = lam_json_is_array(root);
        root = is_index ? lam_json_at(root, (size_t)strtol(*last, NULL, 10)) : lam_json_get(root, *last);
    }
    return root;
}

/* A value that the shards contradict is refused even where the checksum of dataset.json was made anew. */
static void refused_json(const char *folder, const char *key, const char *value, const char *words) {
    char *path = NULL;
    const char *last;
    lam_json *json = NULL, *child = NULL, *object;
    lam_shards *s = NULL;
    assert_int_equal(lam_path_join(&path, folder, "dataset.json"), LAM_OK);
    assert_int_equal(write_folder(folder, 2000, true, IMAGES), LAM_OK);
    assert_int_equal(lam_sealed_read(&json, path), LAM_OK);
    assert_int_equal(lam_json_parse(&child, value, strlen(value), "value"), LAM_OK);
    object = field_of(json, key, &last);
    lam_json_set(object, last, child);
    assert_int_equal(lam_sealed_write(path, json), LAM_OK);
    lam_status status = lam_shards_open(&s, folder);
    if (status != LAM_ERROR_FORMAT) fail_msg("%s = %s was taken", key, value);
    if (strstr(lam_last_error(), words) == NULL) fail_msg("%s: %s", key, lam_last_error());
    lam_json_free(json);
    lam_free(path);
}

static void test_dataset_json(void **state) {
    (void)state;
    char *folder = folder_of("json"), *path = NULL, *text = NULL;
    size_t size = 0;
    lam_shards *s = NULL;
    /* In brackets: jansson parses no bare number or text. */
    const char *const cases[][3] = {{"format", "[]", "format"},
                                    {"version", "[]", "version is no number"},
                                    {"images", "[]", "images is -1"},
                                    {"pixel_type", "[]", "pixel_type"},
                                    {"group", "[]", "group"},
                                    {"channels", "{}", "channels"},
                                    {"channels.0.name", "[]", "name"},
                                    {"channels.0.bits", "[]", "bits is 0"},
                                    {"channels.0.maximum", "[]", "maximum"},
                                    {"shards", "[]", "no shards"},
                                    {"shards.0.file", "[]", "no file name"},
                                    {"shards.0.hash", "[]", "hash"},
                                    {"shards.0.bytes", "[]", "bytes"},
                                    {"shards.1.images", "[]", "images"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refused_json(folder, cases[i][0], cases[i][1], cases[i][2]);
    assert_int_equal(write_folder(folder, 2000, true, IMAGES), LAM_OK);
    assert_int_equal(lam_path_join(&path, folder, "dataset.json"), LAM_OK);
    assert_int_equal(lam_file_read(path, &text, &size), LAM_OK);
    const char *const edits[][3] = {{"\"version\": 1", "\"version\": 2", "version 2"},
                                    {"lamella shards", "another shards", "format"},
                                    {"\"uint16\"", "\"uint8\" ", "pixel_type"},
                                    {"\"group\": null", "\"group\": \"no\"", "group column 'no'"},
                                    {"\"name\": \"", "\"name\": \"X", "name"},
                                    {"\"bits\": 1", "\"bits\": 8, \"a\": 1", "bits is 8"},
                                    {"\"maximum\": ", "\"maximum\": 1", "maximum"},
                                    {"\"images\": ", "\"images\": -", "images is -"}};
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
        char *at = strstr(text, edits[i][0]), *edited = NULL;
        lam_json *json = NULL;
        if (at == NULL) fail_msg("no %s in dataset.json", edits[i][0]);
        assert_int_equal(lam_text_format(&edited, "%.*s%s%s", (int)(at - text), text, edits[i][1],
                                         at + strlen(edits[i][0])),
                         LAM_OK);
        assert_int_equal(lam_file_write(path, edited, strlen(edited)), LAM_OK);
        assert_int_equal(lam_shards_open(&s, folder), LAM_ERROR_FORMAT);
        assert_non_null(strstr(lam_last_error(), "checksum"));
        assert_int_equal(lam_json_parse(&json, edited, strlen(edited), "edited"), LAM_OK);
        assert_int_equal(lam_sealed_write(path, json), LAM_OK);
        lam_status status = lam_shards_open(&s, folder);
        if (status != LAM_ERROR_FORMAT || strstr(lam_last_error(), edits[i][2]) == NULL)
            fail_msg("%s: status %d, %s", edits[i][1], (int)status, lam_last_error());
        lam_json_free(json);
        lam_free(edited);
    }
    lam_free(text);
    lam_free(path);
    assert_int_equal(lam_remove_tree(folder), LAM_OK);
    lam_free(folder);
}

static void test_faults(void **state) {
    (void)state;
    char *folder = folder_of("faults");
    bool complete = false;
    for (int kind = 0; kind < LAM_FAULT_KINDS; kind++) {
        for (int64_t n = 1; n < 4000; n += n < 40 ? 1 : n / 7) {
            lam_fault_arm((lam_fault_kind)kind, n);
            lam_status status = write_folder(folder, 150000, false, IMAGES);
            lam_shards *s = NULL;
            if (status == LAM_OK) status = lam_shards_open(&s, folder);
            lam_shards_close(&s);
            lam_fault_arm((lam_fault_kind)kind, 0);
            char message[1024];
            snprintf(message, sizeof message, "%s", lam_last_error());
            /* Whatever failed: the dataset that was there, or the new one, is whole. */
            complete = complete || status == LAM_OK;
            if (complete) {
                lam_status opened = lam_shards_open(&s, folder);
                if (opened != LAM_OK) fail_msg("fault %d at %d: %s", kind, (int)n, lam_last_error());
                lam_shards_close(&s);
            }
            if (status != LAM_OK) {
                assert_true(strlen(message) > 10);
                assert_null(strchr(message, '\n'));
            }
        }
    }
    assert_int_equal(write_folder(folder, 150000, false, IMAGES), LAM_OK);
    assert_int_equal(lam_remove_tree(folder), LAM_OK);
    lam_free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_sums_do_not_depend_on_order),
        cmocka_unit_test(test_resume_gives_the_same_bytes),
        cmocka_unit_test(test_damage_is_found),
        cmocka_unit_test(test_dataset_json),
        cmocka_unit_test(test_faults),
    };
    lam_log_set_quiet(true);
    shared_table = make_table();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lam_table_free(shared_table);
    return failed;
}
