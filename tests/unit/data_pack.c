/* lamella pack: each kind of table, what it refuses, the same bytes for any number of threads, a packing that
 * was killed at a random moment and resumed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/npy.h"
#include "base/threads.h"
#include "data/commands.h"
#include "data/png_write.h"
#include "data/shard.h"

static char folder[64];
static char path_room[8][256];

static const char *in(const char *name) {
    static int turn;
    char *path = path_room[turn++ % 8];
    snprintf(path, sizeof path_room[0], "%s/%s", folder, name);
    return path;
}

static void write_text(const char *name, const char *text) {
    assert_int_equal(lam_file_write(in(name), text, strlen(text)), LAM_OK);
}

static uint16_t value(int seed, int64_t y, int64_t x) {
    return (uint16_t)((y * 37 + x * 11 + seed * 101) & 1023);
}

static void write_image(const char *name, int seed, int64_t height, int64_t width) {
    uint16_t *pixels = malloc((size_t)(height * width) * 2);
    for (int64_t i = 0; i < height * width; i++) pixels[i] = value(seed, i / width, i % width);
    assert_int_equal(lam_png_write_grey16(in(name), height, width, pixels), LAM_OK);
    free(pixels);
}

/* Runs `lamella pack` with words separated by spaces; %s is the folder. */
static int pack(const char *format) {
    const lam_command *const commands[] = {&lam_command_pack, NULL};
    char line[1024], *words[32] = {"lamella", "pack"};
    int count = 2;
    snprintf(line, sizeof line, format, folder, folder, folder);
    for (char *word = strtok(line, " "); word != NULL && count < 31; word = strtok(NULL, " "))
        words[count++] = word;
    words[count++] = "--quiet";
    return lam_cli_main(commands, count, words);
}

static lam_shards *open_packed(const char *name) {
    lam_shards *s = NULL;
    if (lam_shards_open(&s, in(name)) != LAM_OK) fail_msg("%s", lam_last_error());
    return s;
}

static void check_pixels(lam_shards *s, int64_t image, int64_t channel, int seed) {
    int64_t h = 0, w = 0;
    lam_shards_image_size(s, image, &h, &w);
    uint16_t *pixels = malloc((size_t)(h * w) * 2);
    assert_int_equal(lam_shards_read_window(s, image, channel, 0, 0, h, w, pixels), LAM_OK);
    for (int64_t i = 0; i < h * w; i++) assert_int_equal(pixels[i], value(seed, i / w, i % w));
    free(pixels);
}

static const char *cell(lam_shards *s, int64_t row, const char *column) {
    int c = lam_table_column(lam_shards_metadata(s), column);
    if (c < 0) fail_msg("no column %s", column);
    return lam_table_cell(lam_shards_metadata(s), row, c);
}

static void refused(const char *command, int code, const char *words) {
    assert_int_equal(pack(command), code);
    if (strstr(lam_last_error(), words) == NULL) fail_msg("'%s' lacks '%s'", lam_last_error(), words);
    assert_false(lam_path_exists(in("bad")));
}

static void test_wide(void **state) {
    (void)state;
    write_text(
        "wide.csv",
        "plate,file_DNA,well,file_ER,note\np1,a.png,A1,b.png,\"x, y\"\np1,c.png,A2,,\np2,d.png,A1,e.png,z\n");
    assert_int_equal(pack("%s/wide.csv --out %s/wide"), 0);
    lam_shards *s = open_packed("wide");
    assert_int_equal(lam_shards_images(s), 3);
    assert_int_equal(lam_shards_channels(s), 2);
    assert_string_equal(lam_shards_channel_name(s, 1), "ER");
    check_pixels(s, 0, 0, 1);
    check_pixels(s, 0, 1, 2);
    check_pixels(s, 1, 0, 3);
    check_pixels(s, 2, 1, 5);
    assert_false(lam_shards_has_channel(s, 1, 1));
    assert_int_equal(lam_table_columns(lam_shards_metadata(s)), 3);
    assert_string_equal(cell(s, 0, "note"), "x, y");
    assert_int_equal(lam_shards_channel_bits(s, 0), 10);
    lam_shards_close(&s);
    assert_int_equal(pack("%s/wide.csv --out %s/wide"), 2);
    assert_non_null(strstr(lam_last_error(), "--force"));
    assert_int_equal(pack("%s/wide.csv --out %s/wide --force --channels DNA --group note --bit-depth 12"), 0);
    s = open_packed("wide");
    assert_int_equal(lam_shards_channels(s), 1);
    assert_int_equal(lam_shards_channel_bits(s, 0), 12);
    int64_t groups = 0;
    lam_shards_groups(s, &groups);
    assert_int_equal(groups, 3);
    lam_shards_close(&s);
    assert_int_equal(pack("%s/wide.csv --out %s/wide --force --to-uint8 linear --bit-depth 10"), 0);
    s = open_packed("wide");
    assert_int_equal(lam_shards_pixel_type(s), LAM_PIXEL_U8);
    uint8_t pixels[40];
    assert_int_equal(lam_shards_read_window(s, 0, 0, 3, 0, 1, 40, pixels), LAM_OK);
    for (int x = 0; x < 40; x++) assert_int_equal(pixels[x], (value(1, 3, x) * 510 + 1023) / 2046);
    lam_shards_close(&s);
}

static void test_long(void **state) {
    (void)state;
    write_text("long.tsv",
               "file\tset\twell\tsite\tchannel\tstain\n"
               "a.png\ts1\tA1\t1\tDNA\tHoechst\nc.png\ts1\tA2\t1\tDNA\tHoechst\nb.png\ts1\tA1\t1\tER\tConA\n"
               "d.png\ts1\tA2\t1\tDNA\tmask\n");
    assert_int_equal(pack("%s/long.tsv --out %s/long"), 0);
    lam_shards *s = open_packed("long");
    assert_int_equal(lam_shards_images(s), 3);
    check_pixels(s, 0, 0, 1);
    check_pixels(s, 0, 1, 2);
    check_pixels(s, 1, 0, 3);
    check_pixels(s, 2, 0, 4);
    assert_false(lam_shards_has_channel(s, 1, 1));
    assert_string_equal(cell(s, 0, "stain_ER"), "ConA");
    assert_string_equal(cell(s, 2, "stain_DNA"), "mask");
    assert_string_equal(cell(s, 1, "well"), "A2");
    lam_shards_close(&s);
    write_text("twice.csv", "file,well,channel\na.png,A1,DNA\nb.png,A1,DNA\n");
    refused("%s/twice.csv --out %s/bad", 1, "lines 2 and 3");
    write_text("nokey.csv", "file,channel\na.png,DNA\n");
    refused("%s/nokey.csv --out %s/bad", 1, "site");
}

static void test_load_data(void **state) {
    (void)state;
    float light[40 * 30];
    int64_t shape[2] = {30, 40};
    for (int i = 0; i < 40 * 30; i++) light[i] = 2.0f;
    assert_int_equal(lam_npy_write(in("light.npy"), "f4", 2, shape, light), LAM_OK);
    write_text(
        "load_data.csv",
        "Metadata_Plate,Metadata_Well,FileName_OrigDNA,PathName_OrigDNA,FileName_IllumDNA,PathName_IllumDNA\n"
        "BR1,A01,a.png,/elsewhere/images,light.npy,/elsewhere/images\n");
    assert_int_equal(pack("%s/load_data.csv --out %s/jump --path-prefix /elsewhere/images=%s"), 0);
    lam_shards *s = open_packed("jump");
    check_pixels(s, 0, 0, 1);
    assert_int_equal(lam_table_columns(lam_shards_metadata(s)), 2);
    lam_shards_close(&s);
    assert_int_equal(
        pack("%s/load_data.csv --out %s/jump --force --illumination --path-prefix /elsewhere/images=%s"), 0);
    s = open_packed("jump");
    uint16_t pixels[40];
    assert_int_equal(lam_shards_read_window(s, 0, 0, 5, 0, 1, 40, pixels), LAM_OK);
    for (int x = 0; x < 40; x++) assert_int_equal(pixels[x], (value(1, 5, x) + 1) / 2);
    lam_shards_close(&s);
    refused("%s/load_data.csv --out %s/bad", 1, "/elsewhere/images/a.png");
}

static void test_mixed_depth(void **state) {
    (void)state;
    uint8_t narrow[4][5];
    int64_t shape[2] = {4, 5};
    for (int i = 0; i < 20; i++) narrow[i / 5][i % 5] = (uint8_t)(i * 12);
    assert_int_equal(lam_npy_write(in("narrow.npy"), "u1", 2, shape, narrow), LAM_OK);
    write_text("mixed.csv", "file\nnarrow.npy\na.png\n");
    assert_int_equal(pack("%s/mixed.csv --out %s/mixed"), 0);
    lam_shards *s = open_packed("mixed");
    uint16_t pixels[20];
    assert_int_equal(lam_shards_pixel_type(s), LAM_PIXEL_U16);
    assert_int_equal(lam_shards_read_window(s, 0, 0, 0, 0, 4, 5, pixels), LAM_OK);
    for (int i = 0; i < 20; i++) assert_int_equal(pixels[i], i * 12);
    check_pixels(s, 1, 0, 1);
    lam_shards_close(&s);
}

static void test_refused(void **state) {
    (void)state;
    write_text("rows.csv", "file,plate\na.png,p\nb.png,p\na.png,p\n");
    refused("%s/rows.csv --out %s/bad", 1, "lines 2 and 4");
    write_image("large.png", 9, 31, 40);
    write_text("sizes.csv", "file_A,file_B\na.png,large.png\n");
    refused("%s/sizes.csv --out %s/bad", 1, "large.png");
    write_text("gone.csv", "file_A,plate\na.png,p\ngone.png,p\n");
    refused("%s/gone.csv --out %s/bad", 1, "gone.csv:3: channel A");
    write_text("both.csv", "file,file_A\na.png,b.png\n");
    refused("%s/both.csv --out %s/bad", 1, "not both");
    write_text("none.csv", "plate,well\np,A1\n");
    refused("%s/none.csv --out %s/bad", 1, "file_<channel>");
    write_text("empty.csv", "file_A,file_B,plate\n,,p\n");
    refused("%s/empty.csv --out %s/bad", 1, "empty.csv:2");
    write_text("header.csv", "file,plate\n");
    refused("%s/header.csv --out %s/bad", 1, "no rows");
    write_text("row.csv", "file,row\na.png,0\n");
    refused("%s/row.csv --out %s/bad", 1, "stack");
    write_text("badrow.csv", "file,row\nstack.npy,-1\n");
    refused("%s/badrow.csv --out %s/bad", 1, "whole number");
    refused("%s/wide.csv --out %s/bad --channels DNA,Mito", 1, "there are: DNA, ER");
    refused("%s/wide.csv --out %s/bad --channels DNA,,ER", 2, "empty name");
    refused("%s/wide.csv --out %s/bad --bit-depth 8", 1, "over the 8 bits");
    refused("%s/wide.csv --out %s/bad --group plat", 1, "plate");
    refused("%s/wide.csv --out %s/bad --path-prefix x", 2, "OLD=NEW");
}

static void same_folders(const char *a, const char *b) {
    char **files[2];
    int64_t count[2];
    assert_int_equal(lam_list_folder(in(a), "", &files[0], &count[0]), LAM_OK);
    assert_int_equal(lam_list_folder(in(b), "", &files[1], &count[1]), LAM_OK);
    assert_int_equal(count[0], count[1]);
    for (int64_t i = 0; i < count[0]; i++) {
        char *path[2] = {NULL, NULL}, *bytes[2] = {NULL, NULL};
        size_t size[2];
        assert_string_equal(files[0][i], files[1][i]);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(lam_path_join(&path[k], in(k == 0 ? a : b), files[k][i]), LAM_OK);
            assert_int_equal(lam_file_read(path[k], &bytes[k], &size[k]), LAM_OK);
        }
        assert_int_equal(size[0], size[1]);
        assert_memory_equal(bytes[0], bytes[1], size[0]);
        for (int k = 0; k < 2; k++) {
            lam_free(path[k]);
            lam_free(bytes[k]);
        }
    }
    lam_free_texts(files[0], count[0]);
    lam_free_texts(files[1], count[1]);
}

/* A stack of noise: 240 images, about 6 MB of shards of 1 MiB. */
static void write_stack(void) {
    enum { N = 240, SIDE = 112 };
    int64_t shape[4] = {N, 1, SIDE, SIDE};
    uint16_t *noise = malloc((size_t)N * SIDE * SIDE * 2);
    uint32_t h = 1;
    for (int i = 0; i < N * SIDE * SIDE; i++) {
        h = h * 1664525u + 1013904223u;
        noise[i] = (uint16_t)(h >> 20);
    }
    assert_int_equal(lam_npy_write(in("stack.npy"), "u2", 4, shape, noise), LAM_OK);
    free(noise);
    lam_writer *w = NULL;
    assert_int_equal(lam_writer_open(&w, in("stack.csv")), LAM_OK);
    assert_int_equal(lam_writer_printf(w, "file,row,plate\n"), LAM_OK);
    for (int i = 0; i < N; i++)
        assert_int_equal(lam_writer_printf(w, "stack.npy,%d,p%d\n", (i * 7) % N, i % 3), LAM_OK);
    assert_int_equal(lam_writer_commit(&w), LAM_OK);
}

static void test_threads_do_not_change_bytes(void **state) {
    (void)state;
    write_stack();
    assert_int_equal(pack("%s/stack.csv --out %s/one --shard-size 1 --threads 1"), 0);
    assert_int_equal(pack("%s/stack.csv --out %s/two --shard-size 1 --threads 2"), 0);
    same_folders("one", "two");
    assert_int_equal(pack("%s/stack.csv --out %s/two --shard-size 1 --threads 5 --force"), 0);
    same_folders("one", "two");
    assert_true(lam_path_exists(in("one/shard_00003.lam")));
}

static void test_killed_and_resumed(void **state) {
    (void)state;
    int kept = 0;
    for (int turn = 0; turn < 6; turn++) {
        assert_int_equal(lam_remove_tree(in("killed")), LAM_OK);
        for (int again = 0; again < 2; again++) {
            pid_t child = fork();
            if (child == 0) {
                /* A program of its own: threads of this one are not there after fork. */
                char table[256], out[256];
                snprintf(table, sizeof table, "%s/stack.csv", folder);
                snprintf(out, sizeof out, "%s/killed", folder);
                execl("/proc/self/exe", "test_data_pack", "pack", table, "--out", out, "--shard-size", "1",
                      "--quiet", "--resume", (char *)NULL);
                _exit(127);
            }
            assert_true(child > 0);
            usleep((useconds_t)(20000 + 30000 * turn));
            /* Once surely after the first whole shard, however slow the machine. */
            for (int wait = 0; turn == 5 && wait < 2000 && !lam_path_exists(in("killed/shard_00000.lam"));
                 wait++)
                usleep(10000);
            kill(child, SIGKILL);
            assert_true(waitpid(child, NULL, 0) == child);
            lam_shards *s = NULL;
            if (!lam_path_exists(in("killed/dataset.json")))
                assert_int_not_equal(lam_shards_open(&s, in("killed")), LAM_OK);
            lam_shards_close(&s);
        }
        kept += lam_path_exists(in("killed/shard_00000.lam"));
        assert_int_equal(pack("%s/stack.csv --out %s/killed --shard-size 1 --resume"), 0);
        same_folders("one", "killed");
    }
    assert_true(kept > 0);
}

static void test_resume_sees_changes(void **state) {
    (void)state;
    /* Other settings: a finished dataset is not touched without --force; then nothing of the old shards stays. */
    assert_int_equal(pack("%s/stack.csv --out %s/killed --shard-size 2 --resume"), 2);
    assert_non_null(strstr(lam_last_error(), "--force"));
    assert_int_equal(pack("%s/stack.csv --out %s/killed --shard-size 1 --group plate --resume"), 2);
    same_folders("one", "killed");
    assert_int_equal(pack("%s/stack.csv --out %s/killed --shard-size 2 --resume --force"), 0);
    assert_int_equal(pack("%s/stack.csv --out %s/two --shard-size 2 --force"), 0);
    same_folders("two", "killed");
    /* Another table from some row on. */
    char *text = NULL;
    size_t size = 0;
    assert_int_equal(lam_file_read(in("stack.csv"), &text, &size), LAM_OK);
    char *last = strstr(text, "p2\n");
    for (char *at = last; at != NULL; at = strstr(at + 1, "p2\n")) last = at;
    last[1] = '7';
    write_text("stack.csv", text);
    assert_int_equal(pack("%s/stack.csv --out %s/killed --shard-size 2 --resume"), 2);
    same_folders("two", "killed");
    assert_int_equal(pack("%s/stack.csv --out %s/killed --shard-size 2 --resume --force"), 0);
    assert_int_equal(pack("%s/stack.csv --out %s/two --shard-size 2 --force"), 0);
    same_folders("two", "killed");
    lam_shards *s = open_packed("killed");
    int64_t plates = 0;
    lam_shards_plates(s, &plates);
    assert_int_equal(plates, 4);
    lam_shards_close(&s);
    /* Rows that were added are packed behind the others. */
    char *end = strrchr(text, 's');
    *end = 0;
    write_text("stack.csv", text);
    assert_int_equal(pack("%s/stack.csv --out %s/killed --shard-size 2 --force"), 0);
    *end = 's';
    write_text("stack.csv", text);
    lam_free(text);
    assert_int_equal(pack("%s/stack.csv --out %s/killed --shard-size 2 --resume"), 0);
    s = open_packed("killed");
    assert_int_equal(lam_shards_images(s), 240);
    lam_shards_close(&s);
}

/* What is there stays whole until the new dataset is: images that cannot be read, a kill, a resume after it. */
static void test_replaced_when_complete(void **state) {
    (void)state;
    write_stack();
    assert_int_equal(pack("%s/stack.csv --out %s/old --shard-size 1"), 0);
    same_folders("one", "old");
    write_text("lies.csv", "file,plate\na.png,p\nlies.png,p\n");
    write_text("lies.png", "no picture");
    assert_int_equal(pack("%s/lies.csv --out %s/old --force"), 1);
    same_folders("one", "old");
    assert_int_equal(pack("%s/lies.csv --out %s/old --resume"), 2);
    same_folders("one", "old");
    /* Another packing of the same folder, killed after its first whole shard and gone on with. */
    pid_t child = fork();
    if (child == 0) {
        char table[256], out[256];
        snprintf(table, sizeof table, "%s/stack.csv", folder);
        snprintf(out, sizeof out, "%s/old", folder);
        execl("/proc/self/exe", "test_data_pack", "pack", table, "--out", out, "--shard-size", "2", "--quiet",
              "--force", (char *)NULL);
        _exit(127);
    }
    assert_true(child > 0);
    for (int wait = 0; wait < 20000 && !lam_path_exists(in("old/shard_00000b.lam")); wait++) usleep(500);
    kill(child, SIGKILL);
    assert_true(waitpid(child, NULL, 0) == child);
    lam_shards *s = open_packed("old");
    lam_shards_close(&s);
    assert_int_equal(pack("%s/stack.csv --out %s/old --shard-size 2 --resume --force"), 0);
    assert_int_equal(pack("%s/stack.csv --out %s/new --shard-size 2"), 0);
    same_folders("new", "old");
}

/* ---- real images, where they are ---- */

static const char *shared(const char *name) {
    static char path[512];
    const char *root = getenv("LAMELLA_SHARED");
    snprintf(path, sizeof path, "%s/data/%s", root != NULL ? root : LAM_TEST_GOLDEN "/../../../shared", name);
    return path;
}

static void test_real_cells(void **state) {
    (void)state;
    if (!lam_path_exists(shared("bbbc021_cells/labels.tsv"))) skip();
    char command[600];
    snprintf(command, sizeof command, "%s --out %%s/cells", shared("bbbc021_cells/labels.tsv"));
    assert_int_equal(pack(command), 0);
    lam_shards *s = open_packed("cells");
    assert_int_equal(lam_shards_images(s), 4248);
    assert_int_equal(lam_shards_channels(s), 3);
    assert_int_equal(lam_shards_channel_bits(s, 0), 12);
    lam_npy stack;
    static uint16_t pixels[68 * 68];
    assert_int_equal(lam_npy_read(&stack, shared("bbbc021_cells/moa13_u16.npy.zst")), LAM_OK);
    /* The table's first 1000 rows are this stack's. */
    for (int64_t i = 0; i < 1000; i++) {
        int64_t row = strtoll(cell(s, i, "row"), NULL, 10);
        for (int64_t c = 0; c < 3; c++) {
            assert_int_equal(lam_shards_read_window(s, i, c, 0, 0, 68, 68, pixels), LAM_OK);
            assert_memory_equal(pixels, (uint16_t *)stack.data + (row * 3 + c) * 68 * 68, sizeof pixels);
        }
    }
    lam_npy_free(&stack);
    lam_shards_close(&s);
}

static void test_real_fields(void **state) {
    (void)state;
    if (!lam_path_exists(shared("cellpainting_fovs/index.tsv"))) skip();
    char command[600];
    snprintf(command, sizeof command, "%s --out %%s/fields", shared("cellpainting_fovs/index.tsv"));
    assert_int_equal(pack(command), 0);
    lam_shards *s = open_packed("fields");
    int64_t height = 0, width = 0, present = 0;
    assert_int_equal(lam_shards_images(s), 17); /* 7 fields, 5 of them with masks in two images */
    assert_int_equal(lam_shards_channels(s), 9);
    for (int64_t i = 0; i < 17; i++)
        for (int64_t c = 0; c < 9; c++) present += lam_shards_has_channel(s, i, c);
    assert_int_equal(present, 39);
    lam_shards_image_size(s, 2, &height, &width);
    assert_true(height == 904 && width == 1224);
    lam_shards_close(&s);
}

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/lamella_pack_%d", (int)getpid());
    if (lam_remove_tree(folder) != LAM_OK || lam_make_folders(folder) != LAM_OK) return -1;
    static const char *const names[] = {"a.png", "b.png", "c.png", "d.png", "e.png"};
    for (int i = 0; i < 5; i++) write_image(names[i], i + 1, 30, 40);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    return lam_remove_tree(folder) == LAM_OK ? 0 : -1;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "pack") == 0) {
        const lam_command *const commands[] = {&lam_command_pack, NULL};
        return lam_cli_main(commands, argc, argv);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wide),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_load_data),
        cmocka_unit_test(test_mixed_depth),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_threads_do_not_change_bytes),
        cmocka_unit_test(test_killed_and_resumed),
        cmocka_unit_test(test_resume_sees_changes),
        cmocka_unit_test(test_replaced_when_complete),
        cmocka_unit_test(test_real_cells),
        cmocka_unit_test(test_real_fields),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
