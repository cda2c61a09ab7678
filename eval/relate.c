/* `lamella relate`: recall of known relationships. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/records.h"
#include "eval/commands.h"
#include "eval/relate_parts.h"
#include "eval/where.h"

typedef struct entity_map {
    lam_embeddings *e; /* its matrix has `rows` rows; table and index keep those of the file */
    int64_t rows;
    const char **entities; /* [rows], borrowed */
} entity_map;

static lam_status read_thresholds(const lam_arguments *arguments, lam_relate_settings *s) {
    const char *text = lam_option_text(arguments, "thresholds");
    for (const char *p = text; *p;) {
        char *end;
        LAM_REQUIRE(s->thresholds < LAM_RELATE_THRESHOLDS, LAM_ERROR_USAGE,
                    "relate: --thresholds lists more than %d", LAM_RELATE_THRESHOLDS);
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
        for (int t = 0; t < s->thresholds; t++)
            LAM_REQUIRE(s->tails[t].left < left || s->tails[t].left > left || s->tails[t].right < right ||
                            s->tails[t].right > right,
                        LAM_ERROR_USAGE, "relate: --thresholds lists %g:%g twice", left, right);
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
    m->rows = m->e->rows;
    LAM_TRY(lam_alloc_array((void **)&m->entities, m->rows, sizeof *m->entities));
    const char *entity = lam_option_text(arguments, "entity");
    int column = -1;
    if (entity) LAM_TRY(lam_table_require(m->e->obs, entity, &column));
    for (int64_t i = 0; i < m->rows; i++)
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
    LAM_TRY(lam_alloc_array((void **)out, m->rows, sizeof **out));
    for (int64_t i = 0; i < m->rows; i++) (*out)[i] = (named_row){m->entities[i], i};
    qsort(*out, (size_t)m->rows, sizeof **out, by_name);
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
    m->rows = count;
    return LAM_OK;
}

/* Both maps keep the entities that they share, in the same order, so that null and pairs are the same. */
static lam_status intersect(entity_map *a, entity_map *b) {
    named_row *x = NULL, *y = NULL;
    int64_t shared = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(sorted_names(a, &x), done);
    LAM_TRY_GOTO(sorted_names(b, &y), done);
    for (int64_t i = 0, j = 0; i < a->rows && j < b->rows;) {
        int order = strcmp(x[i].name, y[j].name);
        if (!order) {
            x[shared] = x[i++];
            y[shared++] = y[j++];
        } else if (order < 0)
            i++;
        else
            j++;
    }
    LAM_REQUIRE_GOTO(shared >= 3, done, LAM_ERROR_INPUT,
                     "the two maps share %lld entities: at least 3 are needed", (long long)shared);
    LAM_TRY_GOTO(take_rows(a, x, shared), done);
    LAM_TRY_GOTO(take_rows(b, y, shared), done);
done:
    lam_free(x);
    lam_free(y);
    return status;
}

/* ---- the command ---- */

/* The rows that `keep` marks, in their order; the names of the relationships follow. */
static lam_status keep_rows(entity_map *m, const bool *keep) {
    named_row *kept;
    int64_t count = 0;
    LAM_TRY(lam_alloc_array((void **)&kept, m->rows, sizeof *kept));
    for (int64_t i = 0; i < m->rows; i++)
        if (keep[i]) kept[count++] = (named_row){m->entities[i], i};
    lam_status status = count >= 3
                            ? take_rows(m, kept, count)
                            : lam_fail(LAM_ERROR_INPUT, __FILE__, __LINE__,
                                       "%lld genes are in the map: at least 3 are needed", (long long)count);
    lam_free(kept);
    return status;
}

static lam_status only_genes(const char *expression, entity_map *m) {
    bool *keep;
    LAM_TRY(lam_where(m->e->obs, expression, &keep));
    lam_status status = keep_rows(m, keep);
    lam_free(keep);
    if (status == LAM_OK)
        lam_log_info("relate: %lld of %lld rows of the map are genes; the null is of them",
                     (long long)m->rows, (long long)lam_table_rows(m->e->obs));
    return status;
}

/* Pairs of rows become pairs of the kept rows; all rows of pairs are kept. */
static lam_status renumber(lam_relationships *r, const bool *keep, int64_t rows) {
    int32_t *place, count = 0;
    LAM_TRY(lam_alloc_array((void **)&place, rows, sizeof *place));
    for (int64_t i = 0; i < rows; i++) place[i] = keep[i] ? count++ : -1;
    for (int64_t s = 0; s < r->count; s++)
        for (int64_t k = 0; k < r->sources[s].count; k++) {
            lam_pair *pair = &r->sources[s].pairs[k];
            *pair = (lam_pair){place[pair->i], place[pair->j]};
        }
    lam_free(place);
    return LAM_OK;
}

/* The null of the genes alone (trap T8): where nothing else says which rows are genes, those that the relationships name. */
static lam_status only_named(lam_relationships *r, entity_map *map, entity_map *other) {
    int64_t rows = map->rows, genes = 0;
    for (int64_t i = 0; i < rows; i++) genes += r->named[i];
    lam_log_info(
        "relate: %lld of %lld rows of the map are genes, named in the relationships; the null is of them",
        (long long)genes, (long long)rows);
    LAM_TRY(renumber(r, r->named, rows));
    LAM_TRY(keep_rows(map, r->named));
    return other ? keep_rows(other, r->named) : LAM_OK;
}

static void note_unnamed(const lam_relationships *r, int64_t rows) {
    int64_t named = 0;
    for (int64_t i = 0; i < rows; i++) named += r->named[i];
    if (2 * named < rows)
        lam_log_info(
            "relate: the relationships name %lld of %lld rows of the map, the null is of all of them; "
            "where others are compounds or controls, --null genes leaves them out",
            (long long)named, (long long)rows);
}

static lam_status check_queries(const lam_names *names, const char *const *queries, int count) {
    for (int q = 0; q < count; q++)
        LAM_REQUIRE(lam_names_find(names, queries[q]) >= 0, LAM_ERROR_INPUT,
                    "relate: --neighbours %s: no row of the map has that name", queries[q]);
    return LAM_OK;
}

/* Options that another one brings into play: alone they would do nothing. */
static lam_status check_options(const lam_arguments *arguments) {
    static const char *const pairs[][2] = {
        {"centromeres", "arm"}, {"top", "neighbours"}, {"min-genes", "clusters"}, {"max-genes", "clusters"}};
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++)
        LAM_REQUIRE(!lam_option_given(arguments, pairs[k][0]) || lam_option_given(arguments, pairs[k][1]),
                    LAM_ERROR_USAGE, "relate: --%s belongs to --%s, which is missing", pairs[k][0],
                    pairs[k][1]);
    return LAM_OK;
}

static lam_status compare(const char *path, const entity_map *m, const lam_relationships *r,
                          const lam_relate_settings *s, lam_scored_map *out) {
    lam_status status = lam_scored_map_make(m->e->values, m->rows, m->e->columns, r, s, out);
    return status == LAM_OK ? LAM_OK : lam_fail_context(status, "%s", path);
}

static lam_status score(const lam_arguments *arguments, entity_map *map, entity_map *other,
                        lam_relate_settings *s) {
    int path_count, query_count, set_count;
    const char *const *paths = lam_option_list(arguments, "relationships", &path_count),
                      *const *queries = lam_option_list(arguments, "neighbours", &query_count),
                      *const *sets = lam_option_list(arguments, "clusters", &set_count);
    const char *out = lam_option_text(arguments, "out"), *alias_path = lam_option_text(arguments, "aliases");
    /* Where --force writes over another result, what this one does not have must not stay beside it. */
    static const char *const tables[] = {"against.csv", "arms.csv", "clusters.csv", "enrichment.csv",
                                         "neighbours.csv"};
    lam_aliases *aliases = NULL;
    lam_clusters clusters = {0};
    lam_arms *arms = NULL;
    lam_names *names = NULL;
    lam_relationships relationships = {0};
    lam_scored_map mine = {0}, others = {0};
    lam_json *records = NULL;
    bool genes = !strcmp(lam_option_text(arguments, "null"), "genes"), made = false;
    lam_status status = LAM_OK;
    if (other) LAM_TRY_GOTO(intersect(map, other), done);
    LAM_TRY_GOTO(lam_names_create(&names, map->entities, map->rows), done);
    if (lam_option_given(arguments, "arm"))
        LAM_TRY_GOTO(lam_arms_read(&arms, lam_option_text(arguments, "arm"),
                                   lam_option_text(arguments, "centromeres")),
                     done);
    if (alias_path) LAM_TRY_GOTO(lam_aliases_read(alias_path, &aliases), done);
    LAM_TRY_GOTO(lam_relationships_read(paths, path_count, names, aliases, map->rows, &relationships), done);
    if (genes && !lam_option_given(arguments, "genes")) {
        LAM_TRY_GOTO(only_named(&relationships, map, other), done);
        lam_names_free(names); /* of rows that have gone */
        LAM_TRY_GOTO(lam_names_create(&names, map->entities, map->rows), done);
    } else if (!genes) {
        note_unnamed(&relationships, map->rows);
    }
    LAM_TRY_GOTO(check_queries(names, queries, query_count), done);
    if (set_count)
        LAM_TRY_GOTO(lam_clusters_read(sets, set_count, names, aliases, map->rows,
                                       lam_option_int(arguments, "min-genes"),
                                       lam_option_int(arguments, "max-genes"), &clusters),
                     done);
    if (!genes) s->labelled = relationships.named;
    LAM_TRY_GOTO(compare(lam_positional(arguments, 0), map, &relationships, s, &mine), done);
    if (other)
        LAM_TRY_GOTO(compare(lam_option_text(arguments, "against"), other, &relationships, s, &others), done);
    made = !lam_path_exists(out);
    LAM_TRY_GOTO(lam_make_folders(out), done);
    LAM_TRY_GOTO(lam_remove_files(out, tables, sizeof tables / sizeof *tables), done);
    LAM_TRY_GOTO(lam_relate_scores(out, &relationships, &mine, s, &records), done);
    LAM_TRY_GOTO(lam_relate_histogram(out, &relationships, &mine), done);
    if (query_count)
        LAM_TRY_GOTO(lam_relate_neighbours(out, &mine, map->entities, names, queries, query_count,
                                           lam_option_int(arguments, "top"), set_count ? &clusters : NULL),
                     done);
    if (set_count) LAM_TRY_GOTO(lam_relate_clusters(out, &mine, &clusters), done);
    if (arms) LAM_TRY_GOTO(lam_relate_arms(out, &relationships, &mine, map->entities, arms), done);
    if (other) LAM_TRY_GOTO(lam_relate_against(out, &relationships, &mine, &others, s), done);
    if (lam_option_json(arguments)) status = lam_records_print(records, false);
done:
    if (status != LAM_OK && made) (void)lam_remove_tree(out); /* half of the tables are no result */
    lam_json_free(records);
    lam_scored_map_free(&mine);
    lam_scored_map_free(&others);
    lam_relationships_free(&relationships);
    lam_arms_free(arms);
    lam_clusters_free(&clusters);
    lam_aliases_free(aliases);
    lam_names_free(names);
    return status;
}

static lam_status run(const lam_arguments *arguments) {
    lam_relate_settings s = {.draws = lam_option_int(arguments, "bootstrap"),
                             .permutations = lam_option_int(arguments, "permutations"),
                             .seed = (uint64_t)lam_option_int(arguments, "seed")};
    const char *against = lam_option_text(arguments, "against");
    LAM_TRY(read_thresholds(arguments, &s));
    LAM_TRY(check_options(arguments));
    LAM_REQUIRE(!lam_option_given(arguments, "genes") || !strcmp(lam_option_text(arguments, "null"), "genes"),
                LAM_ERROR_USAGE,
                "relate: --genes says which rows are genes for --null genes, which is missing");
    if (against && !s.draws) s.draws = 1000; /* a difference without its interval says nothing */
    LAM_TRY(lam_require_new_folder(lam_option_text(arguments, "out"), lam_option_force(arguments)));
    entity_map map = {0}, other = {0};
    lam_status status = open_map(lam_positional(arguments, 0), arguments, &map);
    if (status == LAM_OK && lam_option_given(arguments, "genes"))
        status = only_genes(lam_option_text(arguments, "genes"), &map);
    if (status == LAM_OK && against) status = open_map(against, arguments, &other);
    if (status == LAM_OK) status = score(arguments, &map, against ? &other : NULL, &s);
    close_map(&map);
    close_map(&other);
    return status;
}

static const lam_option options[] = {
    {"relationships", LAM_OPTION_LIST, "DIR_OR_FILE", NULL,
     "tables of pairs (columns entity1 and entity2, else the first two) or sets of genes (.gmt: all pairs of a set), or folders of them",
     0, 0, true},
    {"out", LAM_OPTION_TEXT, "DIR", NULL, "folder for scores.csv, histogram.csv (and against.csv)", 0, 0,
     true},
    {"entity", LAM_OPTION_TEXT, "COLUMN", NULL,
     "column that names the entity of a row (default: the index, which map --by fills)", 0, 0, false},
    {"thresholds", LAM_OPTION_TEXT, "LOW:HIGH[,...]", "0.05:0.95,0.1:0.9",
     "tails of the null that count as recovered", 0, 0, false},
    {"null", LAM_OPTION_CHOICE, "all|genes", "all",
     "pairs that make the null: of all rows, or of the genes alone (those that --genes says, else those that the relationships name)",
     0, 0, false},
    {"genes", LAM_OPTION_TEXT, "EXPR", NULL, "for --null genes: rows that are genes, e.g. 'type == gene'", 0,
     0, false},
    {"bootstrap", LAM_OPTION_INT, "B", "0", "draws of genes for 95 % intervals", 0, 1000000, false},
    {"permutations", LAM_OPTION_INT, "P", "0", "shuffles of the genes' names for p values", 0, 1000000,
     false},
    {"aliases", LAM_OPTION_TEXT, "TABLE", NULL,
     "two columns, another name and the name in the map, for genes of the files above that the map lacks", 0,
     0, false},
    {"clusters", LAM_OPTION_LIST, "FILE", NULL,
     "sets of genes (.gmt, or name TAB genes): clusters.csv, cosines within against those to the rest (KS, Cramer-von Mises)",
     0, 0, false},
    {"min-genes", LAM_OPTION_INT, "N", "10", "genes in the map that a cluster needs", 2, 1000000, false},
    {"max-genes", LAM_OPTION_INT, "N", "1000", "genes in the map that a cluster may have", 2, 1000000, false},
    {"neighbours", LAM_OPTION_LIST, "NAME", NULL, "entities whose nearest rows go to neighbours.csv", 0, 0,
     false},
    {"top", LAM_OPTION_INT, "N", "10", "rows listed for each of --neighbours", 1, 1000000, false},
    {"arm", LAM_OPTION_TEXT, "TABLE", NULL,
     "arms.csv, recall of pairs on one chromosome arm and on two; positions as of lamella map --arm", 0, 0,
     false},
    {"centromeres", LAM_OPTION_TEXT, "TABLE", NULL, "BED or table of centromeres, or UCSC's cytoBand", 0, 0,
     false},
    {"against", LAM_OPTION_TEXT, "OTHER_MAP", NULL,
     "another map: differences on the shared entities, paired intervals", 0, 0, false},
    {"seed", LAM_OPTION_INT, "N", "0", "of the bootstrap and the permutations", 0, 9e15, false},
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
