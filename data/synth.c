/* lamella synth: a simulated screen on disk. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "data/commands.h"
#include "data/png_write.h"
#include "data/synth_camera.h"
#include "data/synth_cell.h"
#include "data/synth_screen.h"

#define CONTROL_NAME "non-targeting"

typedef struct names {
    char plate[32], batch[32], well[8], gene[24], guide[48];
} names;

static void gene_name(const lam_synth_screen *screen, int64_t gene, char text[24]) {
    if (gene < 0)
        snprintf(text, 24, CONTROL_NAME);
    else
        snprintf(text, 24, screen->config.genes < 1000 ? "G%03lld" : "G%05lld", (long long)gene + 1);
}

static void name_well(const lam_synth_screen *screen, int64_t index, names *out) {
    const lam_synth_well *well = &screen->wells[index];
    snprintf(out->plate, sizeof out->plate, "plate_%lld", (long long)well->plate + 1);
    snprintf(out->batch, sizeof out->batch, "batch_%lld", (long long)well->batch + 1);
    lam_synth_well_name(screen, well->position, out->well);
    gene_name(screen, well->gene, out->gene);
    snprintf(out->guide, sizeof out->guide, "%s_%lld", well->gene < 0 ? "NT" : out->gene,
             (long long)well->guide + 1);
}

static lam_status image_path(char **out, const lam_synth_screen *screen, const char *folder, int64_t well,
                             int64_t site, lam_synth_channel channel) {
    names n;
    name_well(screen, well, &n);
    return lam_text_format(out, "%s%simages/%s_%s_s%lld_%s.png", folder, folder[0] ? "/" : "", n.plate,
                           n.well, (long long)site + 1, lam_synth_channel_names[channel]);
}

typedef struct worker {
    lam_synth_field field;
    float *scratch;
    uint16_t *pixels;
} worker;

static lam_status render_image(const lam_synth_screen *screen, const char *folder, int64_t image, worker *w) {
    int64_t size = screen->config.image_size, canvas = size + 2 * LAM_SYNTH_MARGIN;
    int64_t well = image / screen->config.sites, site = image % screen->config.sites;
    if (!w->scratch) LAM_TRY(lam_alloc_array((void **)&w->scratch, canvas * canvas, sizeof(float)));
    if (!w->pixels) LAM_TRY(lam_alloc_array((void **)&w->pixels, size * size, sizeof(uint16_t)));
    LAM_TRY(lam_synth_field_draw(&w->field, screen, well, site));
    for (int c = 0; c < LAM_SYNTH_CHANNELS; c++) {
        char *path = NULL;
        lam_synth_photograph(screen, &w->field, well, site, (lam_synth_channel)c, w->scratch, w->pixels);
        LAM_TRY(image_path(&path, screen, folder, well, site, (lam_synth_channel)c));
        lam_status status = lam_png_write_grey16(path, size, size, w->pixels);
        lam_free(path);
        LAM_TRY(status);
    }
    return LAM_OK;
}

static lam_status render_images(const lam_synth_screen *screen, const char *folder) {
    int64_t images = screen->well_count * screen->config.sites, done = 0;
    lam_status first = LAM_OK;
    char message[1024] = "";
    bool stop = false;
    lam_progress *progress = lam_progress_start("synth", images, "images");
#pragma omp parallel num_threads(lam_threads())
    {
        worker w = {0};
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < images; i++) {
            bool skip;
#pragma omp atomic read
            skip = stop;
            if (skip) continue;
            lam_status status = render_image(screen, folder, i, &w);
#pragma omp critical(lam_synth_render)
            {
                /* The message belongs to this thread: it is carried to the caller's. */
                if (status != LAM_OK && first == LAM_OK) {
                    first = status;
                    snprintf(message, sizeof message, "%s", lam_last_error());
#pragma omp atomic write
                    stop = true;
                }
                lam_progress_update(progress, ++done, NULL);
            }
        }
        lam_synth_field_free(&w.field);
        lam_free(w.scratch);
        lam_free(w.pixels);
    }
    lam_progress_finish(progress);
    if (first != LAM_OK) LAM_FAIL(first, "%s", message);
    return LAM_OK;
}

static lam_status write_images_table(const lam_synth_screen *screen, lam_writer *file) {
    for (int c = 0; c < LAM_SYNTH_CHANNELS; c++)
        LAM_TRY(lam_writer_printf(file, "file_%s,", lam_synth_channel_names[c]));
    LAM_TRY(lam_writer_printf(file, "plate,batch,well,site,gene,guide\n"));
    for (int64_t w = 0; w < screen->well_count; w++)
        for (int64_t site = 0; site < screen->config.sites; site++) {
            names n;
            name_well(screen, w, &n);
            for (int c = 0; c < LAM_SYNTH_CHANNELS; c++) {
                char *path = NULL;
                LAM_TRY(image_path(&path, screen, "", w, site, (lam_synth_channel)c));
                lam_status status = lam_writer_printf(file, "%s,", path);
                lam_free(path);
                LAM_TRY(status);
            }
            LAM_TRY(lam_writer_printf(file, "%s,%s,%s,%lld,%s,%s\n", n.plate, n.batch, n.well,
                                      (long long)site + 1, n.gene, n.guide));
        }
    return LAM_OK;
}

static lam_status write_truth(const lam_synth_screen *screen, lam_writer *file) {
    LAM_TRY(lam_writer_printf(file, "plate,batch,well,gene,guide"));
    for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++) LAM_TRY(lam_writer_printf(file, ",d%d", k));
    LAM_TRY(lam_writer_printf(file, "\n"));
    for (int64_t w = 0; w < screen->well_count; w++) {
        names n;
        name_well(screen, w, &n);
        LAM_TRY(lam_writer_printf(file, "%s,%s,%s,%s,%s", n.plate, n.batch, n.well, n.gene, n.guide));
        for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++)
            LAM_TRY(lam_writer_printf(file, ",%.9g", screen->wells[w].truth[k]));
        LAM_TRY(lam_writer_printf(file, "\n"));
    }
    return LAM_OK;
}

static lam_status write_relationships(const lam_synth_screen *screen, lam_writer *file) {
    LAM_TRY(lam_writer_printf(file, "entity1,entity2\n"));
    for (int64_t a = 0; a < screen->config.genes; a++)
        for (int64_t b = a + 1; b < screen->config.genes; b++) {
            char first[24], second[24];
            if (!lam_synth_related(screen, a, b)) continue;
            gene_name(screen, a, first);
            gene_name(screen, b, second);
            LAM_TRY(lam_writer_printf(file, "%s,%s\n", first, second));
        }
    return LAM_OK;
}

/* Pathway and antagonist share an axis and differ in direction; no pathway: empty cells. */
static lam_status write_pathways(const lam_synth_screen *screen, lam_writer *file) {
    LAM_TRY(lam_writer_printf(file, "gene,pathway,direction,antagonist,magnitude\n"));
    for (int64_t g = 0; g < screen->config.genes; g++) {
        const lam_synth_gene *gene = &screen->genes[g];
        char name[24];
        gene_name(screen, g, name);
        if (gene->pathway < 0) {
            LAM_TRY(lam_writer_printf(file, "%s,,,,0\n", name));
            continue;
        }
        const lam_synth_pathway *pathway = &screen->pathways[gene->pathway];
        LAM_TRY(lam_writer_printf(file, "%s,pathway_%02lld,%d,", name, (long long)gene->pathway + 1,
                                  pathway->sign));
        if (pathway->antagonist >= 0)
            LAM_TRY(lam_writer_printf(file, "pathway_%02lld", (long long)pathway->antagonist + 1));
        LAM_TRY(lam_writer_printf(file, ",%.9g\n", gene->magnitude));
    }
    return LAM_OK;
}

static lam_status write_parameters(const lam_synth_screen *screen, lam_writer *file) {
    (void)screen;
    LAM_TRY(lam_writer_printf(file, "feature,parameter\n"));
    for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++)
        LAM_TRY(lam_writer_printf(file, "d%d,%s\n", k, lam_synth_parameter_names[k]));
    return LAM_OK;
}

static lam_status write_table(const lam_synth_screen *screen, const char *folder, const char *name,
                              lam_status (*write)(const lam_synth_screen *, lam_writer *)) {
    char *path = NULL;
    lam_writer *file = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_path_join(&path, folder, name), done);
    LAM_TRY_GOTO(lam_writer_open(&file, path), done);
    LAM_TRY_GOTO(write(screen, file), done);
    status = lam_writer_commit(&file);
done:
    lam_writer_abort(&file);
    lam_free(path);
    return status;
}

/* What a screen is made of; parameters.csv, which says that the folder is one, goes last. */
static lam_status remove_screen(const char *folder) {
    static const char *const ours[] = {"images.csv",    "truth.csv", "pathways.csv",
                                       "relationships", "images",    "parameters.csv"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        char *path = NULL;
        LAM_TRY(lam_path_join(&path, folder, ours[i]));
        lam_status status = lam_remove_tree(path);
        lam_free(path);
        LAM_TRY(status);
    }
    return LAM_OK;
}

/* With --force an older screen is removed first, but nothing else is: parameters.csv says that the folder is
 * one. */
static lam_status prepare_folder(const char *folder, bool force) {
    char *path = NULL, **entries = NULL;
    int64_t count = 0;
    lam_status status = LAM_OK;
    LAM_TRY(lam_require_absent(folder, force));
    if (lam_path_exists(folder)) {
        LAM_REQUIRE(lam_path_is_folder(folder), LAM_ERROR_USAGE, "%s is a file: name a folder for the screen",
                    folder);
        LAM_TRY_GOTO(lam_list_folder(folder, "", &entries, &count), done);
        LAM_TRY_GOTO(lam_path_join(&path, folder, "parameters.csv"), done);
        LAM_REQUIRE_GOTO(count == 0 || lam_path_exists(path), done, LAM_ERROR_USAGE,
                         "%s holds other things than a simulated screen: name another folder", folder);
        if (count > 0) LAM_TRY_GOTO(remove_screen(folder), done);
    }
    for (int i = 0; i < 2; i++) {
        lam_free(path);
        path = NULL;
        LAM_TRY_GOTO(lam_path_join(&path, folder, i ? "relationships" : "images"), done);
        LAM_TRY_GOTO(lam_make_folders(path), done);
    }
done:
    lam_free_texts(entries, count);
    lam_free(path);
    return status;
}

static lam_status run_synth(const lam_arguments *arguments) {
    const char *folder = lam_positional(arguments, 0);
    lam_synth_config config = {.genes = lam_option_int(arguments, "genes"),
                               .guides = lam_option_int(arguments, "guides"),
                               .replicates = lam_option_int(arguments, "replicates"),
                               .controls = lam_option_int(arguments, "controls"),
                               .plates = lam_option_int(arguments, "plates"),
                               .batches = lam_option_int(arguments, "batches"),
                               .sites = lam_option_int(arguments, "sites"),
                               .image_size = lam_option_int(arguments, "image-size"),
                               .strength = lam_option_float(arguments, "strength"),
                               .seed = (uint64_t)lam_option_int(arguments, "seed")};
    if (!lam_option_given(arguments, "batches") && config.batches > config.plates)
        config.batches = config.plates;
    lam_synth_screen *screen = NULL;
    lam_status status = LAM_OK;
    bool was_there = lam_path_exists(folder), begun = false;
    LAM_TRY(lam_synth_screen_create(&screen, &config));
    int64_t related = 0, pairs = config.genes * (config.genes - 1) / 2;
    for (int64_t a = 0; a < config.genes; a++)
        for (int64_t b = a + 1; b < config.genes; b++) related += lam_synth_related(screen, a, b);
    double started = lam_now();
    LAM_TRY_GOTO(prepare_folder(folder, lam_option_force(arguments)), done);
    begun = true;
    LAM_TRY_GOTO(write_table(screen, folder, "parameters.csv", write_parameters), done);
    LAM_TRY_GOTO(render_images(screen, folder), done);
    LAM_TRY_GOTO(write_table(screen, folder, "truth.csv", write_truth), done);
    LAM_TRY_GOTO(write_table(screen, folder, "pathways.csv", write_pathways), done);
    LAM_TRY_GOTO(write_table(screen, folder, "relationships/pathways.csv", write_relationships), done);
    /* Last: a screen that was interrupted has no table of images and cannot be packed. */
    LAM_TRY_GOTO(write_table(screen, folder, "images.csv", write_images_table), done);
    long long images = (long long)(screen->well_count * config.sites);
    const char *form =
        lam_option_json(arguments)
            ? "{\"wells\": %lld, \"images\": %lld, \"genes\": %lld, \"pathways\": %lld, \"related_pairs\": "
              "%lld, "
              "\"pairs\": %lld, \"seconds\": %.2f}\n"
            : "%lld wells, %lld images of %lld genes in %lld pathways; %lld related pairs of %lld; %.1f s\n";
    int printed =
        printf(form, (long long)screen->well_count, images, (long long)config.genes,
               (long long)screen->pathway_count, (long long)related, (long long)pairs, lam_now() - started);
    LAM_REQUIRE_GOTO(printed >= 0 && fflush(stdout) == 0, done, LAM_ERROR_IO,
                     "standard output cannot be written");
done:
    if (status != LAM_OK && begun) {
        remove_screen(folder); /* half a screen, on a full disk mostly */
        if (!was_there) rmdir(folder);
    }
    lam_synth_screen_free(screen);
    return status;
}

static const lam_option options[] = {
    {"genes", LAM_OPTION_INT, "N", "96", "genes that are knocked out", .minimum = 4, .maximum = 20000},
    {"guides", LAM_OPTION_INT, "N", "2", "guides a gene", .minimum = 1, .maximum = 16},
    {"replicates", LAM_OPTION_INT, "N", "3", "wells a guide, dealt over the plates", .minimum = 1,
     .maximum = 64},
    {"controls", LAM_OPTION_INT, "N", "16", "non-targeting wells a plate", .minimum = 1, .maximum = 384},
    {"plates", LAM_OPTION_INT, "N", "4", "plates", .minimum = 1, .maximum = 1000},
    {"batches", LAM_OPTION_INT, "N", "2", "batches that the plates are dealt to, no more than plates",
     .minimum = 1, .maximum = 1000},
    {"sites", LAM_OPTION_INT, "N", "1", "images a well", .minimum = 1, .maximum = 64},
    {"image-size", LAM_OPTION_INT, "PIXELS", "192", "width and height of an image", .minimum = 32,
     .maximum = 2160},
    {"strength", LAM_OPTION_FLOAT, "X", "1", "of gene effects; 0: none", .minimum = 0, .maximum = 10},
    {"seed", LAM_OPTION_INT, "N", "0", "another seed is another screen", .minimum = 0,
     .maximum = 9007199254740992.0},
    {0}};

const lam_command lam_command_synth = {"synth",
                                       "make a simulated Cell-Painting-like screen with known truth",
                                       "OUT",
                                       1,
                                       1,
                                       options,
                                       "lamella synth screen --seed 1\n"
                                       "lamella pack screen/images.csv --out shards",
                                       run_synth};
