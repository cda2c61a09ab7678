#include "eval/relationships.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/table.h"

/* ---- one file ---- */

static int by_pair(const void *a, const void *b) {
    const lam_pair *x = a, *y = b;
    if (x->i != y->i) return x->i < y->i ? -1 : 1;
    return (x->j > y->j) - (x->j < y->j);
}

lam_status lam_source_name(const char *path, char **name) {
    static const char *const endings[] = {".gz", ".zst", ".txt", ".csv", ".tsv", ".gmt"};
    const char *slash = strrchr(path, '/');
    LAM_TRY(lam_text_copy(name, slash ? slash + 1 : path));
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(*name), m = strlen(endings[i]);
        if (n > m && !strcmp(*name + n - m, endings[i])) (*name)[n - m] = 0;
    }
    return LAM_OK;
}

/* What all files are read with. */
typedef struct reading {
    const lam_names *names;
    const lam_aliases *aliases;
    lam_relationships *out;
} reading;

int64_t lam_entity_find(const lam_names *names, const lam_aliases *aliases, const char *name) {
    int64_t row = lam_names_find(names, name);
    const char *other = row < 0 && aliases ? lam_aliases_find(aliases, name) : NULL;
    return other ? lam_names_find(names, other) : row;
}

/* `pairs` has room for it. */
static void add_pair(const reading *r, lam_source *source, const char *first, const char *second) {
    int64_t a = lam_entity_find(r->names, r->aliases, first),
            b = lam_entity_find(r->names, r->aliases, second);
    if (a >= 0) r->out->named[a] = true;
    if (b >= 0) r->out->named[b] = true;
    source->listed++;
    if (!strcmp(first, second) || (a >= 0 && a == b))
        source->self_pairs++;
    else if (a < 0 || b < 0)
        source->unknown++;
    else
        source->pairs[source->count++] =
            a < b ? (lam_pair){(int32_t)a, (int32_t)b} : (lam_pair){(int32_t)b, (int32_t)a};
}

static void drop_repeated(lam_source *source) {
    int64_t found = source->count;
    source->count = 0;
    if (found) qsort(source->pairs, (size_t)found, sizeof *source->pairs, by_pair);
    for (int64_t k = 0; k < found; k++)
        if (!k || by_pair(&source->pairs[k], &source->pairs[source->count - 1]))
            source->pairs[source->count++] = source->pairs[k];
    source->repeated = found - source->count;
}

static lam_status entity_columns(const lam_table *table, int *first, int *second) {
    *first = lam_table_column(table, "entity1");
    *second = lam_table_column(table, "entity2");
    if (*first >= 0 && *second >= 0) return LAM_OK;
    LAM_REQUIRE(lam_table_columns(table) >= 2, LAM_ERROR_INPUT,
                "%s: has one column: two are needed, one for each entity of a pair", lam_table_path(table));
    *first = 0;
    *second = 1;
    lam_log_info("%s: no columns entity1 and entity2; the pairs are those of '%s' and '%s'",
                 lam_table_path(table), lam_table_name(table, 0), lam_table_name(table, 1));
    return LAM_OK;
}

/* Sets of genes, no pairs. */
static bool is_sets(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = strlen(name);
    return strstr(name, "_clusters") || (n > 4 && !strcmp(name + n - 4, ".gmt")) || strstr(name, ".gmt.");
}

static lam_status read_table(const char *path, const reading *r, lam_source *source) {
    lam_table *table;
    LAM_TRY(lam_table_read(&table, path));
    int first, second;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(entity_columns(table, &first, &second), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&source->pairs, lam_table_rows(table), sizeof *source->pairs),
                 done);
    for (int64_t row = 0; row < lam_table_rows(table); row++)
        add_pair(r, source, lam_table_cell(table, row, first), lam_table_cell(table, row, second));
done:
    lam_table_free(table);
    return status;
}

/* ---- files and folders ---- */

static bool is_listed(const char *name) {
    static const char *const endings[] = {".txt",    ".csv",    ".tsv",    ".gmt",
                                          ".txt.gz", ".csv.gz", ".tsv.gz", ".gmt.gz"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(name), m = strlen(endings[i]);
        if (n > m && !strcmp(name + n - m, endings[i])) return true;
    }
    return false;
}

/* Each set's genes that are in the map, paired; the pairs of the others are counted. */
static lam_status read_sets(const char *path, const reading *r, lam_source *source) {
    lam_gene_set *sets = NULL;
    int64_t count = 0, room = 0;
    LAM_TRY(lam_gene_sets_read(path, &sets, &count));
    lam_status status = LAM_OK;
    for (int64_t s = 0; s < count; s++) {
        int64_t known = 0, all = sets[s].count;
        for (int64_t g = 0; g < all; g++)
            known += lam_entity_find(r->names, r->aliases, sets[s].genes[g]) >= 0;
        int64_t need = source->count + known * (known - 1) / 2;
        if (need > room) {
            int64_t larger = need > 2 * room ? need : 2 * room;
            LAM_TRY_GOTO(lam_grow((void **)&source->pairs, (size_t)room * sizeof *source->pairs,
                                  (size_t)larger * sizeof *source->pairs),
                         done);
            room = larger;
        }
        for (int64_t a = 0; a < all; a++)
            for (int64_t b = a + 1; b < all; b++) add_pair(r, source, sets[s].genes[a], sets[s].genes[b]);
    }
done:
    lam_gene_sets_free(sets, count);
    return status;
}

static void free_source(lam_source *source) {
    lam_free(source->name);
    lam_free(source->pairs);
}

static lam_status add_source(const char *path, const reading *r) {
    lam_relationships *all = r->out;
    LAM_TRY(lam_grow((void **)&all->sources, (size_t)all->count * sizeof *all->sources,
                     (size_t)(all->count + 1) * sizeof *all->sources));
    lam_source *source = &all->sources[all->count++];
    memset(source, 0, sizeof *source);
    LAM_TRY(lam_source_name(path, &source->name));
    for (int64_t k = 0; k + 1 < all->count; k++)
        LAM_REQUIRE(
            strcmp(all->sources[k].name, source->name) != 0, LAM_ERROR_INPUT,
            "%s: a source named '%s' was read before; results are told apart by that name, so rename one of the files",
            path, source->name);
    LAM_TRY(is_sets(path) ? read_sets(path, r, source) : read_table(path, r, source));
    drop_repeated(source);
    lam_log_info(
        "%s: %lld of %lld pairs are used; dropped: %lld with an entity that is not in the map, %lld that stand there "
        "before, %lld of an entity with itself%s",
        path, (long long)source->count, (long long)source->listed, (long long)source->unknown,
        (long long)source->repeated, (long long)source->self_pairs,
        source->count ? "" : "; the source is left out");
    if (source->count) return LAM_OK;
    free_source(source);
    all->count--;
    return LAM_OK;
}

static lam_status add_path(const char *path, const reading *r) {
    if (!lam_path_is_folder(path)) return add_source(path, r);
    char **files;
    int64_t total, tables = 0;
    LAM_TRY(lam_list_folder(path, "", &files, &total));
    lam_status status = LAM_OK;
    for (int64_t i = 0; i < total && status == LAM_OK; i++) {
        char *inner = NULL;
        /* In the published folder CORUM's clusters, another kind of table, and a README lie beside the pairs. */
        if (!is_listed(files[i]) || strstr(files[i], "_clusters") || !strncmp(files[i], "README", 6))
            continue;
        tables++;
        status = lam_path_join(&inner, path, files[i]);
        if (status == LAM_OK) status = add_source(inner, r);
        lam_free(inner);
    }
    lam_free_texts(files, total);
    LAM_REQUIRE(status != LAM_OK || tables, LAM_ERROR_INPUT,
                "%s: holds no .txt, .csv, .tsv or .gmt file of relationships", path);
    return status;
}

lam_status lam_relationships_read(const char *const *paths, int path_count, const lam_names *names,
                                  const lam_aliases *aliases, int64_t rows, lam_relationships *out) {
    *out = (lam_relationships){0};
    reading r = {names, aliases, out};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->named, rows, sizeof *out->named), done);
    for (int i = 0; i < path_count; i++) LAM_TRY_GOTO(add_path(paths[i], &r), done);
    LAM_REQUIRE_GOTO(
        out->count, done, LAM_ERROR_INPUT,
        "no source has a pair with both entities in the map: do the names agree (symbols, upper case)?");
done:
    if (status != LAM_OK) lam_relationships_free(out);
    return status;
}

void lam_relationships_free(lam_relationships *r) {
    for (int64_t i = 0; i < r->count; i++) free_source(&r->sources[i]);
    lam_free(r->sources);
    lam_free(r->named);
    *r = (lam_relationships){0};
}
