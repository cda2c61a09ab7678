#include "eval/relationships.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/table.h"

/* ---- names to rows ---- */

typedef struct names {
    int32_t *slots; /* row + 1, 0: empty */
    uint64_t mask;
    const char *const *entities;
} names;

static uint64_t hash(const char *text) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325ull;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3ull;
    return h ^ h >> 29;
}

static int32_t *slot_of(const names *n, const char *text) {
    for (uint64_t at = hash(text) & n->mask;; at = (at + 1) & n->mask)
        if (!n->slots[at] || !strcmp(n->entities[n->slots[at] - 1], text)) return &n->slots[at];
}

static lam_status make_names(names *n, const char *const *entities, int64_t rows) {
    uint64_t size = 16;
    while (size < (uint64_t)rows * 2) size *= 2;
    n->mask = size - 1;
    n->entities = entities;
    LAM_TRY(lam_alloc_array((void **)&n->slots, (int64_t)size, sizeof *n->slots));
    for (int64_t i = 0; i < rows; i++) {
        int32_t *slot = slot_of(n, entities[i]);
        LAM_REQUIRE(
            !*slot, LAM_ERROR_INPUT,
            "'%s' stands in rows %d and %lld of the map: one row an entity is needed, aggregate first with lamella map --by",
            entities[i], *slot, (long long)i + 1);
        *slot = (int32_t)i + 1;
    }
    return LAM_OK;
}

/* ---- one file ---- */

static int by_pair(const void *a, const void *b) {
    const lam_pair *x = a, *y = b;
    if (x->i != y->i) return x->i < y->i ? -1 : 1;
    return (x->j > y->j) - (x->j < y->j);
}

static lam_status stem(const char *path, char **name) {
    static const char *const endings[] = {".gz", ".zst", ".txt", ".csv", ".tsv"};
    const char *slash = strrchr(path, '/');
    LAM_TRY(lam_text_copy(name, slash ? slash + 1 : path));
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(*name), m = strlen(endings[i]);
        if (n > m && !strcmp(*name + n - m, endings[i])) (*name)[n - m] = 0;
    }
    return LAM_OK;
}

static lam_status read_source(const char *path, const names *n, lam_source *source) {
    lam_table *table;
    LAM_TRY(lam_table_read(&table, path));
    int first, second;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_require(table, "entity1", &first), done);
    LAM_TRY_GOTO(lam_table_require(table, "entity2", &second), done);
    LAM_TRY_GOTO(stem(path, &source->name), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&source->pairs, lam_table_rows(table), sizeof *source->pairs),
                 done);
    int64_t found = 0;
    for (int64_t r = 0; r < lam_table_rows(table); r++) {
        int32_t a = *slot_of(n, lam_table_cell(table, r, first)) - 1,
                b = *slot_of(n, lam_table_cell(table, r, second)) - 1;
        if (a < 0 || b < 0 || a == b) continue;
        source->pairs[found++] = a < b ? (lam_pair){a, b} : (lam_pair){b, a};
    }
    if (found) qsort(source->pairs, (size_t)found, sizeof *source->pairs, by_pair);
    for (int64_t k = 0; k < found; k++)
        if (!k || by_pair(&source->pairs[k], &source->pairs[source->count - 1]))
            source->pairs[source->count++] = source->pairs[k];
done:
    lam_table_free(table);
    return status;
}

/* ---- files and folders ---- */

static bool is_table(const char *name) {
    static const char *const endings[] = {".txt", ".csv", ".tsv", ".txt.gz", ".csv.gz", ".tsv.gz"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(name), m = strlen(endings[i]);
        if (n > m && !strcmp(name + n - m, endings[i])) return true;
    }
    return false;
}

static lam_status add_source(const char *path, const names *n, lam_source **sources, int64_t *count) {
    LAM_TRY(lam_grow((void **)sources, (size_t)*count * sizeof **sources,
                     (size_t)(*count + 1) * sizeof **sources));
    lam_source *source = &(*sources)[(*count)++];
    memset(source, 0, sizeof *source);
    LAM_TRY(read_source(path, n, source));
    if (source->count) return LAM_OK;
    lam_log_info("%s: no pair with both entities in the map; left out", path);
    lam_free(source->name);
    lam_free(source->pairs);
    --*count;
    return LAM_OK;
}

static lam_status add_path(const char *path, const names *n, lam_source **sources, int64_t *count) {
    if (!lam_path_is_folder(path)) return add_source(path, n, sources, count);
    char **files;
    int64_t total, tables = 0;
    LAM_TRY(lam_list_folder(path, "", &files, &total));
    lam_status status = LAM_OK;
    for (int64_t i = 0; i < total && status == LAM_OK; i++) {
        char *inner = NULL;
        /* In the published folder CORUM's clusters, another kind of table, and a README lie beside the pairs. */
        if (!is_table(files[i]) || strstr(files[i], "_clusters") || !strncmp(files[i], "README", 6)) continue;
        tables++;
        status = lam_path_join(&inner, path, files[i]);
        if (status == LAM_OK) status = add_source(inner, n, sources, count);
        lam_free(inner);
    }
    lam_free_texts(files, total);
    LAM_REQUIRE(status != LAM_OK || tables, LAM_ERROR_INPUT,
                "%s: holds no .txt, .csv or .tsv file of relationships", path);
    return status;
}

lam_status lam_relationships_read(const char *const *paths, int path_count, const char *const *entities,
                                  int64_t rows, lam_source **sources, int64_t *count) {
    *sources = NULL;
    *count = 0;
    names n = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(make_names(&n, entities, rows), done);
    for (int i = 0; i < path_count; i++) LAM_TRY_GOTO(add_path(paths[i], &n, sources, count), done);
    LAM_REQUIRE_GOTO(
        *count, done, LAM_ERROR_INPUT,
        "no source has a pair with both entities in the map: do the names agree (symbols, upper case)?");
done:
    lam_free(n.slots);
    if (status != LAM_OK) {
        lam_relationships_free(*sources, *count);
        *sources = NULL;
        *count = 0;
    }
    return status;
}

void lam_relationships_free(lam_source *sources, int64_t count) {
    for (int64_t i = 0; sources && i < count; i++) {
        lam_free(sources[i].name);
        lam_free(sources[i].pairs);
    }
    lam_free(sources);
}
