/* `lamella relate`: recall of known relationships. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "eval/commands.h"
#include "eval/recall.h"
#include "eval/relationships.h"

#define MAX_THRESHOLDS 16
#define LOW_QUANTILE 0.025
#define HIGH_QUANTILE 0.975

typedef struct settings {
    lam_tails tails[MAX_THRESHOLDS]; /* the shares that were asked for */
    int thresholds;
    int64_t draws;
    uint64_t seed;
} settings;

typedef struct entity_map {
    lam_embeddings *e;
    const char **entities; /* [rows], borrowed */
} entity_map;

static lam_status read_thresholds(const lam_arguments *arguments, settings *s) {
    const char *text = lam_option_text(arguments, "thresholds");
    for (const char *p = text; *p;) {
        char *end;
        LAM_REQUIRE(s->thresholds < MAX_THRESHOLDS, LAM_ERROR_USAGE,
                    "relate: --thresholds lists more than %d", MAX_THRESHOLDS);
        double left = strtod(p, &end), right = 0;
        bool good = end != p && *end == ':';
        if (good) {
            p = end + 1;
            right = strtod(p, &end);
            good = end != p && (!*end || *end == ',') && left > 0 && left < right && right < 1;
        }
        LAM_REQUIRE(good, LAM_ERROR_USAGE,
                    "relate: --thresholds is '%s', LOW:HIGH[,LOW:HIGH...] with 0 < LOW < HIGH < 1 is needed",
                    text);
        s->tails[s->thresholds++] = (lam_tails){.left = left, .right = right};
        p = end + (*end == ',');
    }
    LAM_REQUIRE(s->thresholds, LAM_ERROR_USAGE, "relate: --thresholds is empty");
    return LAM_OK;
}

static lam_status open_map(const char *path, const lam_arguments *arguments, entity_map *m) {
    LAM_TRY(lam_embeddings_read(&m->e, path, lam_option_text(arguments, "key"),
                                lam_option_text(arguments, "features")));
    LAM_REQUIRE(m->e->rows >= 3, LAM_ERROR_INPUT, "%s: has %lld rows: at least 3 entities are needed", path,
                (long long)m->e->rows);
    LAM_TRY(lam_alloc_array((void **)&m->entities, m->e->rows, sizeof *m->entities));
    const char *entity = lam_option_text(arguments, "entity");
    int column = -1;
    if (entity) LAM_TRY(lam_table_require(m->e->obs, entity, &column));
    for (int64_t i = 0; i < m->e->rows; i++)
        m->entities[i] = entity ? lam_table_cell(m->e->obs, i, column) : m->e->index[i];
    return LAM_OK;
}

static void close_map(entity_map *m) {
    lam_embeddings_free(m->e);
    lam_free(m->entities);
}

typedef struct named_row {
    const char *name;
    int64_t row;
} named_row;

static int by_name(const void *a, const void *b) {
    return strcmp(((const named_row *)a)->name, ((const named_row *)b)->name);
}

static lam_status sorted_names(const entity_map *m, named_row **out) {
    LAM_TRY(lam_alloc_array((void **)out, m->e->rows, sizeof **out));
    for (int64_t i = 0; i < m->e->rows; i++) (*out)[i] = (named_row){m->entities[i], i};
    qsort(*out, (size_t)m->e->rows, sizeof **out, by_name);
    return LAM_OK;
}

static lam_status take_rows(entity_map *m, const named_row *rows, int64_t count) {
    double *values;
    const char **entities;
    LAM_TRY(lam_alloc_array((void **)&values, count * m->e->columns, sizeof *values));
    lam_status status = lam_alloc_array((void **)&entities, count, sizeof *entities);
    if (status != LAM_OK) {
        lam_free(values);
        return status;
    }
    for (int64_t k = 0; k < count; k++) {
        memcpy(values + k * m->e->columns, m->e->values + rows[k].row * m->e->columns,
               (size_t)m->e->columns * sizeof *values);
        entities[k] = m->entities[rows[k].row];
    }
    lam_free(m->e->values);
    lam_free(m->entities);
    m->e->values = values;
    m->entities = entities;
    /* The table and the index keep all rows and own the names; only the matrix is compared from here on. */
    return LAM_OK;
}

/* Both maps keep the entities that they share, in the same order, so that null and pairs are the same. */
static lam_status intersect(entity_map *a, entity_map *b, int64_t *shared) {
    named_row *x = NULL, *y = NULL;
    lam_status status = LAM_OK;
    *shared = 0;
    LAM_TRY_GOTO(sorted_names(a, &x), done);
    LAM_TRY_GOTO(sorted_names(b, &y), done);
    for (int64_t i = 0, j = 0; i < a->e->rows && j < b->e->rows;) {
        int order = strcmp(x[i].name, y[j].name);
        if (!order) {
            x[*shared] = x[i++];
            y[(*shared)++] = y[j++];
        } else if (order < 0)
            i++;
        else
            j++;
    }
    LAM_REQUIRE_GOTO(*shared >= 3, done, LAM_ERROR_INPUT,
                     "the two maps share %lld entities: at least 3 are needed", (long long)*shared);
    LAM_TRY_GOTO(take_rows(a, x, *shared), done);
    LAM_TRY_GOTO(take_rows(b, y, *shared), done);
done:
    lam_free(x);
    lam_free(y);
    return status;
}

/* ---- scores ---- */

/* One map's side: the cuts of its null and the cosines of all known pairs, source after source. */
typedef struct side {
    lam_directions directions;
    lam_tails tails[MAX_THRESHOLDS];
    double *cosine;
    int64_t null_size;
    lam_cosine_histogram null;
} side;

static void close_side(side *m) {
    lam_directions_free(&m->directions);
    lam_free(m->cosine);
}

static double recall_of(const side *m, const lam_source *s, int64_t offset, int threshold, bool *recovered) {
    int64_t hits = 0;
    for (int64_t k = 0; k < s->count; k++) {
        bool hit = lam_recovered(&m->tails[threshold], m->cosine[offset + k]);
        hits += hit;
        if (recovered) recovered[k] = hit;
    }
    return (double)hits / (double)s->count;
}

static lam_status compare_all(const double *x, int64_t rows, int64_t columns, const lam_source *sources,
                              int64_t count, const settings *s, side *m) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++) total += sources[i].count;
    LAM_TRY(lam_directions_make(&m->directions, x, rows, columns));
    LAM_TRY(lam_alloc_array((void **)&m->cosine, total, sizeof *m->cosine));
    memcpy(m->tails, s->tails, sizeof m->tails);
    m->null_size = rows * (rows - 1) / 2;
    LAM_TRY(lam_recall_cuts(&m->directions, m->tails, s->thresholds, &m->null));
    for (int64_t i = 0, at = 0; i < count; at += sources[i++].count)
        lam_recall_cosines(&m->directions, sources[i].pairs, sources[i].count, m->cosine + at);
    return LAM_OK;
}

static lam_status interval_of(const lam_source *source, const bool *recovered, int64_t rows,
                              const settings *s, double *low, double *high) {
    double *share;
    LAM_TRY(lam_alloc_array((void **)&share, s->draws, sizeof *share));
    lam_status status =
        lam_recall_bootstrap(source->pairs, recovered, source->count, rows, s->draws, s->seed, share);
    if (status == LAM_OK) lam_interval(share, s->draws, LOW_QUANTILE, HIGH_QUANTILE, low, high);
    lam_free(share);
    return status;
}

static lam_status write_scores(const char *out, const lam_source *sources, int64_t count, const side *map,
                               int64_t rows, const settings *s, lam_json *result) {
    char *path;
    LAM_TRY(lam_path_join(&path, out, "scores.csv"));
    lam_writer *writer = NULL;
    bool *recovered = NULL;
    lam_status status = lam_writer_open(&writer, path);
    lam_free(path);
    LAM_TRY(status);
    LAM_TRY_GOTO(lam_writer_printf(writer, "source,null_distribution_size,query_distribution_size"), done);
    for (int t = 0; t < s->thresholds; t++)
        LAM_TRY_GOTO(lam_writer_printf(writer, ",recall_%g_%g", s->tails[t].left, s->tails[t].right), done);
    LAM_TRY_GOTO(lam_writer_printf(writer, s->draws ? ",recall_low,recall_high\n" : "\n"), done);
    for (int64_t i = 0, offset = 0; i < count; offset += sources[i++].count) {
        lam_json *record = lam_json_object();
        lam_json_append(result, record);
        lam_json_set_text(record, "source", sources[i].name);
        lam_json_set_int(record, "null_distribution_size", map->null_size);
        lam_json_set_int(record, "query_distribution_size", sources[i].count);
        lam_free(recovered);
        LAM_TRY_GOTO(lam_alloc_array((void **)&recovered, sources[i].count, sizeof *recovered), done);
        LAM_TRY_GOTO(lam_writer_printf(writer, "%s,%lld,%lld", sources[i].name, (long long)map->null_size,
                                       (long long)sources[i].count),
                     done);
        for (int t = s->thresholds - 1; t >= 0; t--)
            recall_of(map, &sources[i], offset, t, recovered); /* ends with the first */
        for (int t = 0; t < s->thresholds; t++) {
            char key[64];
            double recall = recall_of(map, &sources[i], offset, t, NULL);
            snprintf(key, sizeof key, "recall_%g_%g", s->tails[t].left, s->tails[t].right);
            lam_json_set_float(record, key, recall);
            LAM_TRY_GOTO(lam_writer_printf(writer, ",%.17g", recall), done);
            if (!t)
                lam_log_info("relate: %s: recall %.3f of %lld pairs (%g/%g)", sources[i].name, recall,
                             (long long)sources[i].count, s->tails[t].left, s->tails[t].right);
        }
        if (s->draws) {
            double low, high;
            LAM_TRY_GOTO(interval_of(&sources[i], recovered, rows, s, &low, &high), done);
            lam_json_set_float(record, "recall_low", low);
            lam_json_set_float(record, "recall_high", high);
            LAM_TRY_GOTO(lam_writer_printf(writer, ",%.17g,%.17g", low, high), done);
        }
        LAM_TRY_GOTO(lam_writer_printf(writer, "\n"), done);
    }
    status = lam_writer_commit(&writer);
done:
    lam_writer_abort(&writer);
    lam_free(recovered);
    return status;
}

static lam_status write_histogram(const char *out, const lam_source *sources, int64_t count,
                                  const side *map) {
    char *path;
    LAM_TRY(lam_path_join(&path, out, "histogram.csv"));
    lam_writer *writer = NULL;
    lam_status status = lam_writer_open(&writer, path);
    lam_free(path);
    LAM_TRY(status);
    LAM_TRY_GOTO(lam_writer_printf(writer, "source,bin_low,bin_high,null_count,query_count\n"), done);
    for (int64_t i = 0, offset = 0; i < count; offset += sources[i++].count) {
        int64_t query[LAM_HISTOGRAM_BINS] = {0};
        for (int64_t k = 0; k < sources[i].count; k++) {
            query[lam_histogram_bin(map->cosine[offset + k])]++;
        }
        for (int b = 0; b < LAM_HISTOGRAM_BINS; b++)
            LAM_TRY_GOTO(lam_writer_printf(writer, "%s,%.2f,%.2f,%lld,%lld\n", sources[i].name,
                                           2.0 * b / LAM_HISTOGRAM_BINS - 1,
                                           2.0 * (b + 1) / LAM_HISTOGRAM_BINS - 1,
                                           (long long)map->null.count[b], (long long)query[b]),
                         done);
    }
    status = lam_writer_commit(&writer);
done:
    lam_writer_abort(&writer);
    return status;
}

static lam_status write_against(const char *out, const lam_source *sources, int64_t count, const side *a,
                                const side *b, int64_t rows, const settings *s) {
    char *path;
    LAM_TRY(lam_path_join(&path, out, "against.csv"));
    lam_writer *writer = NULL;
    bool *hit_a = NULL, *hit_b = NULL;
    double *share_a = NULL, *share_b = NULL;
    lam_status status = lam_writer_open(&writer, path);
    lam_free(path);
    LAM_TRY(status);
    LAM_TRY_GOTO(lam_alloc_array((void **)&share_a, s->draws, sizeof *share_a), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&share_b, s->draws, sizeof *share_b), done);
    LAM_TRY_GOTO(lam_writer_printf(writer, "source,recall,recall_other,difference,low,high\n"), done);
    for (int64_t i = 0, offset = 0; i < count; offset += sources[i++].count) {
        const lam_source *source = &sources[i];
        lam_free(hit_a);
        lam_free(hit_b);
        hit_a = hit_b = NULL;
        LAM_TRY_GOTO(lam_alloc_array((void **)&hit_a, source->count, sizeof *hit_a), done);
        LAM_TRY_GOTO(lam_alloc_array((void **)&hit_b, source->count, sizeof *hit_b), done);
        double recall = recall_of(a, source, offset, 0, hit_a),
               other = recall_of(b, source, offset, 0, hit_b), low, high;
        /* The same seed: the same genes are drawn for both maps. */
        LAM_TRY_GOTO(
            lam_recall_bootstrap(source->pairs, hit_a, source->count, rows, s->draws, s->seed, share_a),
            done);
        LAM_TRY_GOTO(
            lam_recall_bootstrap(source->pairs, hit_b, source->count, rows, s->draws, s->seed, share_b),
            done);
        for (int64_t d = 0; d < s->draws; d++) share_a[d] -= share_b[d];
        lam_interval(share_a, s->draws, LOW_QUANTILE, HIGH_QUANTILE, &low, &high);
        LAM_TRY_GOTO(lam_writer_printf(writer, "%s,%.17g,%.17g,%.17g,%.17g,%.17g\n", source->name, recall,
                                       other, recall - other, low, high),
                     done);
        lam_log_info("relate: %s: recall %.3f against %.3f, difference %+.3f (95 %% %+.3f to %+.3f)",
                     source->name, recall, other, recall - other, low, high);
    }
    status = lam_writer_commit(&writer);
done:
    lam_writer_abort(&writer);
    lam_free(hit_a);
    lam_free(hit_b);
    lam_free(share_a);
    lam_free(share_b);
    return status;
}

/* ---- the command ---- */

static lam_status score(const lam_arguments *arguments, entity_map *map, entity_map *other,
                        const settings *s) {
    int path_count;
    const char *const *paths = lam_option_list(arguments, "relationships", &path_count),
                      *out = lam_option_text(arguments, "out");
    lam_source *sources = NULL;
    int64_t count = 0, rows = map->e->rows;
    side mine = {0}, others = {0};
    lam_json *result = lam_json_array();
    lam_status status = LAM_OK;
    if (other) LAM_TRY_GOTO(intersect(map, other, &rows), done);
    LAM_TRY_GOTO(lam_relationships_read(paths, path_count, map->entities, rows, &sources, &count), done);
    LAM_TRY_GOTO(compare_all(map->e->values, rows, map->e->columns, sources, count, s, &mine), done);
    if (other)
        LAM_TRY_GOTO(compare_all(other->e->values, rows, other->e->columns, sources, count, s, &others),
                     done);
    LAM_TRY_GOTO(lam_make_folders(out), done);
    LAM_TRY_GOTO(write_scores(out, sources, count, &mine, rows, s, result), done);
    LAM_TRY_GOTO(write_histogram(out, sources, count, &mine), done);
    if (other) LAM_TRY_GOTO(write_against(out, sources, count, &mine, &others, rows, s), done);
    if (lam_option_json(arguments)) {
        char *text;
        LAM_TRY_GOTO(lam_json_dump(result, false, &text), done);
        printf("%s\n", text);
        lam_free(text);
    }
done:
    lam_json_free(result);
    close_side(&mine);
    close_side(&others);
    lam_relationships_free(sources, count);
    return status;
}

static lam_status run(const lam_arguments *arguments) {
    settings s = {.draws = lam_option_int(arguments, "bootstrap"),
                  .seed = (uint64_t)lam_option_int(arguments, "seed")};
    const char *against = lam_option_text(arguments, "against");
    LAM_TRY(read_thresholds(arguments, &s));
    if (against && !s.draws) s.draws = 1000; /* a difference without its interval says nothing */
    LAM_TRY(lam_require_absent(lam_option_text(arguments, "out"), lam_option_force(arguments)));
    entity_map map = {0}, other = {0};
    lam_status status = open_map(lam_positional(arguments, 0), arguments, &map);
    if (status == LAM_OK && against) status = open_map(against, arguments, &other);
    if (status == LAM_OK) status = score(arguments, &map, against ? &other : NULL, &s);
    close_map(&map);
    close_map(&other);
    return status;
}

static const lam_option options[] = {
    {"relationships", LAM_OPTION_LIST, "DIR_OR_FILE", NULL, "tables with columns entity1 and entity2", 0, 0,
     true},
    {"out", LAM_OPTION_TEXT, "DIR", NULL, "folder for scores.csv, histogram.csv (and against.csv)", 0, 0,
     true},
    {"entity", LAM_OPTION_TEXT, "COLUMN", NULL,
     "column that names the entity of a row (default: the index, which map --by fills)", 0, 0, false},
    {"thresholds", LAM_OPTION_TEXT, "LOW:HIGH[,...]", "0.05:0.95,0.1:0.9",
     "tails of the null that count as recovered", 0, 0, false},
    {"bootstrap", LAM_OPTION_INT, "B", "0", "draws of genes for 95 % intervals of the first threshold pair",
     0, 1000000, false},
    {"against", LAM_OPTION_TEXT, "OTHER_MAP", NULL,
     "another map: differences on the shared entities, paired intervals", 0, 0, false},
    {"seed", LAM_OPTION_INT, "N", "0", "of the bootstrap", 0, 9e15, false},
    {"key", LAM_OPTION_TEXT, "NAME", NULL, "matrix of the .h5ad: X (default), a layer or an obsm", 0, 0,
     false},
    {"features", LAM_OPTION_TEXT, "GLOB", NULL,
     "columns of a table that are features (default: d0, d1, ..., else every numeric one)", 0, 0, false},
    {0}};

const lam_command lam_command_relate = {
    "relate",
    "recall of known relationships",
    "MAP",
    1,
    1,
    options,
    "lamella relate map.h5ad --relationships relationships/ --out results --bootstrap 1000",
    run};
