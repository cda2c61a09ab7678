/* `lamella report`: any number of results → one self-contained page. Each input is recognised by what it holds. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/page.h"
#include "eval/commands.h"
#include "eval/report_parts.h"

/* ---- what an input is ---- */

/* What a folder holds, the most specific file first: results of several commands share names. */
static const struct {
    const char *file, *what;
    lam_report_kind kind;
} known[] = {{"metrics.jsonl", "train", LAM_REPORT_RUN},
             {"sweep.csv", "sweep", LAM_REPORT_SWEEP},
             {"average_precision.csv", "retrieve --by", LAM_REPORT_RETRIEVE},
             {"matching.csv", "retrieve --match", LAM_REPORT_RETRIEVE},
             {"compound_gene.csv", "retrieve --pairs", LAM_REPORT_RETRIEVE},
             {"consistency.csv", "consistency", LAM_REPORT_CONSISTENCY},
             {"ridge.csv", "probe --ridge", LAM_REPORT_PROBE},
             {"confusion.csv", "probe", LAM_REPORT_PROBE},
             {"against.csv", "relate --against", LAM_REPORT_AGAINST},
             {"scores.csv", "relate", LAM_REPORT_RELATE}};

static lam_status folder_kind(const char *path, lam_report_kind *kind) {
    char list[600];
    size_t length = 0, count = sizeof known / sizeof *known;
    for (size_t i = 0; i < count; i++) {
        char *inner;
        LAM_TRY(lam_path_join(&inner, path, known[i].file));
        bool exists = lam_path_exists(inner);
        lam_free(inner);
        if (exists) {
            *kind = known[i].kind;
            return LAM_OK;
        }
        int written = snprintf(list + length, sizeof list - length, "%s%s (%s)", i ? ", " : "", known[i].file,
                               known[i].what);
        length += written > 0 ? (size_t)written : 0;
    }
    LAM_FAIL(LAM_ERROR_INPUT, "%s: nothing to report: the folder holds none of %s", path, list);
}

bool lam_report_any(const lam_report_input *inputs, int count, lam_report_kind kind) {
    for (int i = 0; i < count; i++)
        if (inputs[i].kind == kind) return true;
    return false;
}

static lam_status kind_of(const char *path, lam_report_kind *kind) {
    LAM_REQUIRE(lam_path_exists(path), LAM_ERROR_IO, "%s: there is no such file or folder", path);
    if (lam_path_is_folder(path)) return folder_kind(path, kind);
    if (lam_text_ends_with(path, ".png")) {
        *kind = LAM_REPORT_PICTURE;
        return LAM_OK;
    }
    if (lam_text_ends_with(path, ".csv")) {
        lam_table *table;
        LAM_TRY(lam_table_read(&table, path));
        bool timings = lam_table_column(table, "stage") >= 0 && lam_table_column(table, "seconds") >= 0;
        lam_table_free(table);
        *kind = timings ? LAM_REPORT_TIMINGS : LAM_REPORT_MAP;
        return LAM_OK;
    }
    *kind = LAM_REPORT_MAP;
    return LAM_OK;
}

static lam_status read_inputs(const lam_arguments *arguments, lam_report_input *inputs, int count) {
    for (int i = 0; i < count; i++) {
        const char *text = lam_positional(arguments, i), *equals = strchr(text, '=');
        bool labelled = equals && !lam_path_exists(text);
        inputs[i].path = labelled ? equals + 1 : text;
        const char *slash = strrchr(inputs[i].path, '/');
        const char *label = labelled ? text : slash && slash[1] ? slash + 1 : inputs[i].path;
        LAM_TRY(lam_text_copy_n(&inputs[i].label, label, labelled ? (size_t)(equals - text) : strlen(label)));
        LAM_TRY(kind_of(inputs[i].path, &inputs[i].kind));
    }
    return LAM_OK;
}

/* ---- the page ---- */

static lam_status picture_section(lam_page *page, const char *path, const char *caption) {
    char *bytes;
    size_t size;
    LAM_TRY(lam_file_read(path, &bytes, &size));
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(size > 8 && !memcmp(bytes, "\x89PNG\r\n\x1a\n", 8), done, LAM_ERROR_FORMAT,
                     "%s: is no PNG picture", path);
    lam_page_png(page, caption, bytes, size);
done:
    lam_free(bytes);
    return status;
}

static lam_status timings_section(lam_page *page, const lam_report_input *input) {
    lam_table *table;
    LAM_TRY(lam_table_read(&table, input->path));
    int stage = lam_table_column(table, "stage"), seconds = lam_table_column(table, "seconds");
    int64_t n = lam_table_rows(table);
    const char **cells = NULL;
    lam_status status = lam_alloc_array((void **)&cells, 2 * n, sizeof *cells);
    for (int64_t r = 0; status == LAM_OK && r < n; r++) {
        cells[2 * r] = lam_table_cell(table, r, stage);
        cells[2 * r + 1] = lam_table_cell(table, r, seconds);
    }
    if (status == LAM_OK) {
        lam_page_heading(page, "Time");
        lam_page_table(page, "Time by stage", 2, (const char *[]){"stage", "seconds"}, n, cells);
    }
    lam_free(cells);
    lam_table_free(table);
    return status;
}

static lam_status fill(lam_page *page, const lam_report_input *inputs, int count,
                       const lam_report_maps *maps) {
    static const struct {
        lam_report_kind kind;
        lam_status (*draw)(lam_page *, const lam_report_input *);
    } sections[] = {{LAM_REPORT_CONSISTENCY, lam_report_consistency},
                    {LAM_REPORT_RUN, lam_report_run},
                    {LAM_REPORT_RETRIEVE, lam_report_retrieve},
                    {LAM_REPORT_PROBE, lam_report_probe},
                    {LAM_REPORT_SWEEP, lam_report_sweep},
                    {LAM_REPORT_TIMINGS, timings_section}};
    LAM_TRY(lam_report_recall(page, inputs, count));
    LAM_TRY(lam_report_against(page, inputs, count));
    for (int i = 0; i < count; i++)
        if (inputs[i].kind == LAM_REPORT_MAP) LAM_TRY(lam_report_map(page, &inputs[i], maps));
    if (lam_report_any(inputs, count, LAM_REPORT_PICTURE)) lam_page_heading(page, "Pictures");
    for (int i = 0; i < count; i++)
        if (inputs[i].kind == LAM_REPORT_PICTURE)
            LAM_TRY(picture_section(page, inputs[i].path, inputs[i].label));
    LAM_TRY(lam_report_relate(page, inputs, count));
    for (size_t k = 0; k < sizeof sections / sizeof *sections; k++)
        for (int i = 0; i < count; i++)
            if (inputs[i].kind == sections[k].kind) LAM_TRY(sections[k].draw(page, &inputs[i]));
    return LAM_OK;
}

/* Options of maps; the genes are owned. */
static lam_status read_maps(const lam_arguments *arguments, const lam_report_input *inputs, int count,
                            lam_report_maps *maps) {
    const char *embedding = lam_option_text(arguments, "embedding"),
               *genes = lam_option_text(arguments, "genes"), *file = lam_option_text(arguments, "genes-file");
    *maps = (lam_report_maps){.pathways = lam_option_text(arguments, "pathways"),
                              .colour = lam_option_text(arguments, "colour"),
                              .plane = strcmp(embedding, "tsne") != 0,
                              .tsne = strcmp(embedding, "pca") != 0,
                              .asked = lam_option_given(arguments, "embedding"),
                              .how = lam_tsne_defaults};
    if (lam_option_given(arguments, "perplexity"))
        maps->how.perplexity = lam_option_float(arguments, "perplexity");
    maps->how.random_start = lam_option_given(arguments, "seed");
    if (maps->how.random_start) maps->how.seed = (uint64_t)lam_option_int(arguments, "seed");
    static const char *const needs_map[] = {"embedding",  "perplexity", "seed",  "genes",
                                            "genes-file", "pathways",   "colour"};
    for (size_t k = 0; k < sizeof needs_map / sizeof *needs_map; k++)
        LAM_REQUIRE(!lam_option_given(arguments, needs_map[k]) ||
                        lam_report_any(inputs, count, LAM_REPORT_MAP),
                    LAM_ERROR_USAGE, "report: --%s is for maps, and no map is given: name an embedding file",
                    needs_map[k]);
    LAM_REQUIRE(maps->tsne || !(lam_option_given(arguments, "perplexity") || maps->how.random_start),
                LAM_ERROR_USAGE, "report: --perplexity and --seed are of t-SNE: not with --embedding pca");
    LAM_REQUIRE(!genes || !file, LAM_ERROR_USAGE, "report: --genes and --genes-file: only one of them");
    return lam_report_genes(genes, file, &maps->genes, &maps->gene_count);
}

static lam_status output_path(const lam_arguments *arguments, const lam_report_input *inputs, int count,
                              char **out) {
    const char *given = lam_option_text(arguments, "out");
    if (given) return lam_text_copy(out, given);
    LAM_REQUIRE(count == 1 && inputs[0].kind == LAM_REPORT_RUN, LAM_ERROR_USAGE,
                "report: --out is missing: only a single run folder has a default place");
    return lam_path_join(out, inputs[0].path, "report.html");
}

static lam_status run(const lam_arguments *arguments) {
    int count = lam_positional_count(arguments);
    lam_report_input *inputs = NULL;
    char *out = NULL, *data = NULL;
    lam_page *page = NULL;
    lam_report_maps maps = {0};
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&inputs, count, sizeof *inputs));
    LAM_TRY_GOTO(read_inputs(arguments, inputs, count), done);
    LAM_TRY_GOTO(output_path(arguments, inputs, count, &out), done);
    LAM_TRY_GOTO(read_maps(arguments, inputs, count, &maps), done);
    for (int i = 0; i < count; i++)
        LAM_REQUIRE_GOTO(!lam_path_same(out, inputs[i].path), done, LAM_ERROR_USAGE,
                         "report: --out %s is one of the results that are read: choose another name", out);
    LAM_TRY_GOTO(lam_require_new_file(out, lam_option_force(arguments)), done);
    LAM_TRY_GOTO(lam_text_format(&data, "%.*s_data",
                                 (int)(lam_text_ends_with(out, ".html") ? strlen(out) - 5 : strlen(out)),
                                 out),
                 done);
    const char *title = lam_option_text(arguments, "title");
    LAM_TRY_GOTO(lam_page_create(&page, title ? title : "lamella: results", data), done);
    LAM_TRY_GOTO(fill(page, inputs, count, &maps), done);
    LAM_TRY_GOTO(lam_page_write(&page, out), done);
    lam_log_info("report: %s, numbers in %s/", out, data);
    if (lam_option_json(arguments)) {
        lam_json *json = lam_json_object();
        char *text = NULL;
        lam_json_set_text(json, "report", out);
        lam_json_set_text(json, "data", data);
        status = lam_json_dump(json, false, &text);
        if (status == LAM_OK) printf("%s\n", text);
        lam_free(text);
        lam_json_free(json);
    }
done:
    lam_page_free(&page);
    for (int i = 0; i < count; i++) lam_free(inputs[i].label);
    lam_free(inputs);
    lam_free_texts(maps.genes, maps.gene_count);
    lam_free(out);
    lam_free(data);
    return status;
}

static const lam_option options[] = {
    {"out", LAM_OPTION_TEXT, "FILE.html", NULL,
     "the page; its numbers go to FILE_data/ (default: RUN/report.html for one run folder)", 0, 0, false},
    {"title", LAM_OPTION_TEXT, "TEXT", NULL, "title of the page", 0, 0, false},
    {"pathways", LAM_OPTION_TEXT, "TABLE", NULL,
     "table whose first column is an entity of the map and whose column `pathway` marks it", 0, 0, false},
    {"colour", LAM_OPTION_TEXT, "COLUMN", NULL, "column of the map that marks its rows", 0, 0, false},
    {"embedding", LAM_OPTION_CHOICE, "pca|tsne|both", "both",
     "two-dimensional pictures of a map; unless asked for, t-SNE is drawn of maps up to 5000 rows", 0, 0,
     false},
    {"perplexity", LAM_OPTION_FLOAT, "P", NULL,
     "effective number of neighbours in t-SNE (default: 30, or a third of the rows where they are few)", 1,
     1e6, false},
    {"seed", LAM_OPTION_INT, "N", NULL,
     "start t-SNE from random positions of this seed (default: from the principal components)", 0, 9e15,
     false},
    {"genes", LAM_OPTION_TEXT, "A,B,...", NULL,
     "rows of the heat map of cosines (default: the largest pathways of --pathways, up to 60 rows)", 0, 0,
     false},
    {"genes-file", LAM_OPTION_TEXT, "FILE", NULL, "the same from a file, one name a line", 0, 0, false},
    {0}};

const lam_command lam_command_report = {
    "report",
    "one self-contained page of runs, maps, pictures and the results of every evaluation",
    "[LABEL=]RUN_OR_RESULT ...",
    1,
    -1,
    options,
    "lamella report runs/demo/run\n"
    "lamella report trained=results/trained untrained=results/untrained map.h5ad --out report.html\n"
    "lamella report runs/demo/map.h5ad --embedding tsne --genes G001,G002,G003 --out map.html",
    run};
