#include "eval/gene_sets.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/memory.h"
#include "base/table.h"
#include "base/unpack.h"

/* ---- lines and cells ---- */

typedef struct lines {
    char *at, *end; /* *end is a zero byte of the block */
    int64_t line;   /* number of the line taken last */
    const char *name;
} lines;

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* The next line that is not blank, cut behind its last letter; NULL at the end. */
static lam_status next_line(lines *l, char **out) {
    *out = NULL;
    while (l->at < l->end) {
        char *start = l->at, *stop = memchr(start, '\n', (size_t)(l->end - start));
        if (stop == NULL) stop = l->end;
        l->at = stop < l->end ? stop + 1 : stop;
        l->line++;
        LAM_REQUIRE(memchr(start, '\0', (size_t)(stop - start)) == NULL, LAM_ERROR_FORMAT,
                    "%s:%lld: a zero byte in the text; are these gene sets (GMT)?", l->name,
                    (long long)l->line);
        while (stop > start && is_blank(stop[-1])) stop--;
        if (stop == start) continue;
        *stop = '\0';
        *out = start;
        return LAM_OK;
    }
    return LAM_OK;
}

/* Cuts the first part off at a byte of `ends`; *rest is behind it, or NULL where nothing follows. */
static char *take(char **rest, const char *ends) {
    char *start = *rest, *stop = start + strcspn(start, ends);
    *rest = *stop != '\0' ? stop + 1 : NULL;
    *stop = '\0';
    while (is_blank(*start)) start++;
    while (stop > start && is_blank(stop[-1])) *--stop = '\0';
    return start;
}

/* ---- each text once ---- */

typedef struct place {
    const char *text;
    int64_t position;
} place;

static int by_text(const void *a, const void *b) {
    const place *x = a, *y = b;
    int order = strcmp(x->text, y->text);
    return order != 0 ? order : (x->position > y->position) - (x->position < y->position);
}

static lam_status sort_places(const char *const *texts, int64_t count, place **out) {
    LAM_TRY(lam_alloc_array((void **)out, count, sizeof **out));
    for (int64_t i = 0; i < count; i++) (*out)[i] = (place){texts[i], i};
    qsort(*out, (size_t)count, sizeof **out, by_text);
    return LAM_OK;
}

/* Keeps the first of equal texts, in order. */
static lam_status keep_first(const char **texts, int64_t *count) {
    place *places = NULL;
    int64_t kept = 0;
    LAM_TRY(sort_places(texts, *count, &places));
    for (int64_t i = 1; i < *count; i++) {
        if (strcmp(places[i].text, places[i - 1].text) == 0) texts[places[i].position] = NULL;
    }
    for (int64_t i = 0; i < *count; i++) {
        if (texts[i] != NULL) texts[kept++] = texts[i];
    }
    *count = kept;
    lam_free(places);
    return LAM_OK;
}

/* ---- sets ---- */

static bool named_gmt(const char *name) {
    static const char *const ends[] = {".gmt", ".gmt.gz", ".gmt.zst"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(name), m = strlen(ends[i]);
        if (n >= m && strcmp(name + n - m, ends[i]) == 0) return true;
    }
    return false;
}

static lam_status read_set(char *line, bool gmt, const lines *l, lam_gene_set *set) {
    const char **genes = NULL;
    lam_status status = LAM_OK;
    char *rest = line;
    const char *name = take(&rest, "\t");
    LAM_REQUIRE(name[0] != '\0', LAM_ERROR_INPUT, "%s:%lld: the set has no name", l->name,
                (long long)l->line);
    LAM_REQUIRE(
        rest != NULL, LAM_ERROR_INPUT,
        "%s:%lld: '%.60s' has no genes; a line of gene sets is NAME, tab, DESCRIPTION, tab, genes with "
        "tabs between (GMT), or NAME, tab, genes with blanks between",
        l->name, (long long)l->line, name);
    if (gmt) take(&rest, "\t");
    int64_t bound = 1, count = 0;
    for (const char *at = rest; at != NULL && *at != '\0'; at++) bound += *at == '\t' || *at == ' ';
    LAM_TRY(lam_alloc_array((void **)&genes, bound, sizeof *genes));
    while (rest != NULL) {
        const char *gene = take(&rest, gmt ? "\t" : " \t");
        if (gene[0] != '\0') genes[count++] = gene;
    }
    LAM_REQUIRE_GOTO(count > 0, done, LAM_ERROR_INPUT, "%s:%lld: '%.60s' has no genes behind its description",
                     l->name, (long long)l->line, name);
    LAM_TRY_GOTO(keep_first(genes, &count), done);
    LAM_TRY_GOTO(lam_text_copy(&set->name, name), done);
    LAM_TRY_GOTO(lam_texts_pack(&set->genes, genes, count), done);
    set->count = count;
done:
    lam_free(genes);
    return status;
}

static lam_status require_names_once(const lam_gene_set *sets, const int64_t *at_line, int64_t count,
                                     const char *file) {
    const char **names = NULL;
    place *places = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&names, count, sizeof *names));
    for (int64_t i = 0; i < count; i++) names[i] = sets[i].name;
    LAM_TRY_GOTO(sort_places(names, count, &places), done);
    for (int64_t i = 1; i < count; i++) {
        LAM_REQUIRE_GOTO(strcmp(places[i].text, places[i - 1].text) != 0, done, LAM_ERROR_INPUT,
                         "%s:%lld: a set '%.60s' is there already, in line %lld; rename one", file,
                         (long long)at_line[places[i].position], places[i].text,
                         (long long)at_line[places[i - 1].position]);
    }
done:
    lam_free(places);
    lam_free(names);
    return status;
}

/* Cuts up `text`, which a zero byte follows. */
static lam_status parse(char *text, size_t size, const char *name, lam_gene_set **out, int64_t *out_count) {
    lam_gene_set *sets = NULL;
    int64_t *at_line = NULL, bound = 1, count = 0;
    char *line = NULL;
    lam_status status = LAM_OK;
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        size -= 3;
    }
    bool gmt = named_gmt(name);
    for (char *at = text, *end = text + size; at < end; bound++) {
        char *stop = memchr(at, '\n', (size_t)(end - at));
        if (stop == NULL) stop = end;
        char *last = stop;
        while (last > at && is_blank(last[-1])) last--;
        char *tab = memchr(at, '\t', (size_t)(last - at));
        if (tab != NULL) gmt = gmt || memchr(tab + 1, '\t', (size_t)(last - tab - 1)) != NULL;
        at = stop + 1;
    }
    LAM_TRY_GOTO(lam_alloc_array((void **)&sets, bound, sizeof *sets), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&at_line, bound, sizeof *at_line), done);
    lines l = {text, text + size, 0, name};
    LAM_TRY_GOTO(next_line(&l, &line), done);
    for (; line != NULL; count++) {
        at_line[count] = l.line;
        LAM_TRY_GOTO(read_set(line, gmt, &l, &sets[count]), done);
        LAM_TRY_GOTO(next_line(&l, &line), done);
    }
    LAM_REQUIRE_GOTO(count > 0, done, LAM_ERROR_INPUT, "%s: no gene sets; the file is empty", name);
    LAM_TRY_GOTO(require_names_once(sets, at_line, count, name), done);
    *out = sets;
    *out_count = count;
    sets = NULL;
done:
    lam_gene_sets_free(sets, bound);
    lam_free(at_line);
    return status;
}

lam_status lam_gene_sets_parse(const char *text, size_t size, const char *name, lam_gene_set **sets,
                               int64_t *count) {
    char *block = NULL;
    size_t block_size = 0;
    LAM_TRY(lam_unpack_copy(&block, &block_size, text, size, name));
    lam_status status = parse(block, block_size, name, sets, count);
    lam_free(block);
    return status;
}

lam_status lam_gene_sets_read(const char *path, lam_gene_set **sets, int64_t *count) {
    char *block = NULL;
    size_t size = 0;
    LAM_TRY(lam_file_read(path, &block, &size));
    lam_status status = lam_unpack(&block, &size, path);
    if (status == LAM_OK) status = parse(block, size, path, sets, count);
    lam_free(block);
    return status;
}

void lam_gene_sets_free(lam_gene_set *sets, int64_t count) {
    for (int64_t i = 0; sets != NULL && i < count; i++) {
        lam_free(sets[i].name);
        lam_free(sets[i].genes);
    }
    lam_free(sets);
}

/* ---- aliases ---- */

typedef struct alias {
    const char *alias, *name; /* of the table */
    int64_t row, seen;        /* seen: the alias from which a way came here last, + 1 */
} alias;

struct lam_aliases {
    lam_table *table;
    alias *items; /* sorted by alias */
    int64_t count;
};

static int by_alias(const void *a, const void *b) {
    const alias *x = a, *y = b;
    int order = strcmp(x->alias, y->alias);
    return order != 0 ? order : (x->row > y->row) - (x->row < y->row);
}

static alias *find(const lam_aliases *aliases, const char *name) {
    int64_t low = 0, high = aliases->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(aliases->items[middle].alias, name);
        if (order == 0) return &aliases->items[middle];
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static lam_status read_rows(lam_aliases *aliases) {
    const lam_table *table = aliases->table;
    const char *path = lam_table_path(table);
    LAM_REQUIRE(lam_table_columns(table) >= 2, LAM_ERROR_INPUT,
                "%s: one column; aliases need two, the alias and the name in use", path);
    LAM_TRY(lam_alloc_array((void **)&aliases->items, lam_table_rows(table), sizeof *aliases->items));
    for (int64_t row = 0; row < lam_table_rows(table); row++) {
        const char *from = lam_table_cell(table, row, 0), *to = lam_table_cell(table, row, 1);
        if (from[0] == '\0') continue;
        LAM_REQUIRE(to[0] != '\0', LAM_ERROR_INPUT, "%s:%lld: the alias '%.60s' stands for no name", path,
                    (long long)lam_table_line(table, row), from);
        aliases->items[aliases->count++] = (alias){from, to, row, 0};
    }
    if (aliases->count > 0) qsort(aliases->items, (size_t)aliases->count, sizeof *aliases->items, by_alias);
    int64_t kept = 0;
    for (int64_t i = 0; i < aliases->count; i++) {
        const alias *a = &aliases->items[i], *before = kept > 0 ? &aliases->items[kept - 1] : NULL;
        if (before == NULL || strcmp(before->alias, a->alias) != 0) {
            aliases->items[kept++] = *a;
            continue;
        }
        LAM_REQUIRE(strcmp(before->name, a->name) == 0, LAM_ERROR_INPUT,
                    "%s:%lld: the alias '%.60s' stands for '%.60s' here and for '%.60s' in line %lld", path,
                    (long long)lam_table_line(table, a->row), a->alias, a->name, before->name,
                    (long long)lam_table_line(table, before->row));
    }
    aliases->count = kept;
    kept = 0;
    for (int64_t i = 0; i < aliases->count; i++) {
        aliases->items[kept] = aliases->items[i];
        kept += strcmp(aliases->items[i].alias, aliases->items[i].name) != 0;
    }
    aliases->count = kept;
    return LAM_OK;
}

/* Every alias then names the end of its way; ways are shortened as they are gone. */
static lam_status follow(lam_aliases *aliases) {
    for (int64_t i = 0; i < aliases->count; i++) {
        const char *end = aliases->items[i].name;
        aliases->items[i].seen = i + 1;
        for (alias *next = find(aliases, end); next != NULL; next = find(aliases, end)) {
            LAM_REQUIRE(next->seen != i + 1, LAM_ERROR_INPUT,
                        "%s:%lld: the alias '%.60s' leads back to itself through '%.60s'",
                        lam_table_path(aliases->table), (long long)lam_table_line(aliases->table, next->row),
                        next->alias, next->name);
            next->seen = i + 1;
            end = next->name;
        }
        for (alias *at = &aliases->items[i]; at != NULL;) {
            const char *after = at->name;
            at->name = end;
            at = find(aliases, after);
        }
    }
    return LAM_OK;
}

lam_status lam_aliases_read(const char *path, lam_aliases **out) {
    lam_aliases *aliases = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc((void **)&aliases, sizeof *aliases));
    LAM_TRY_GOTO(lam_table_read(&aliases->table, path), done);
    LAM_TRY_GOTO(read_rows(aliases), done);
    LAM_TRY_GOTO(follow(aliases), done);
    *out = aliases;
    aliases = NULL;
done:
    lam_aliases_free(aliases);
    return status;
}

void lam_aliases_free(lam_aliases *aliases) {
    if (aliases == NULL) return;
    lam_table_free(aliases->table);
    lam_free(aliases->items);
    lam_free(aliases);
}

const char *lam_aliases_find(const lam_aliases *aliases, const char *name) {
    const alias *found = find(aliases, name);
    return found != NULL ? found->name : NULL;
}
