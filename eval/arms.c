#include "eval/arms.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/table.h"
#include "base/unpack.h"

#define MAX_FIELDS 8
#define MAX_POSITION ((int64_t)1 << 60)

/* One interval as a file gives it; texts lie in the arena. */
typedef struct place {
    const char *chromosome, *name, *arm; /* without "chr"; NULL: not given */
    int64_t start, end;
    bool centromere_band; /* UCSC's gieStain acen */
} place;

typedef struct places {
    lam_arena texts;
    place *list;
    int64_t count;
    bool bands, arms; /* some row says acen; the table has a column arm */
} places;

struct lam_arms {
    places genes; /* sorted by name, one row a gene; chromosome and band are of no more use */
};

static void places_free(places *p) {
    lam_free(p->list);
    lam_arena_free(&p->texts);
}

static lam_status keep_text(places *p, const char *text, size_t length, const char **out) {
    char *copy;
    LAM_TRY(lam_arena_text(&p->texts, &copy, text, length));
    *out = copy;
    return LAM_OK;
}

static const char *plain_chromosome(const char *text) {
    return strncasecmp(text, "chr", 3) == 0 && text[3] ? text + 3 : text;
}

static bool whole_number(const char *text, int64_t *value) {
    char *end;
    if (!isdigit((unsigned char)*text)) return false;
    *value = strtoll(text, &end, 10);
    return !*end;
}

static lam_status check_interval(const char *path, int64_t line, const char *start, const char *end,
                                 place *one) {
    LAM_REQUIRE(whole_number(start, &one->start) && whole_number(end, &one->end) && one->start <= one->end &&
                    one->end < MAX_POSITION,
                LAM_ERROR_INPUT, "%s:%lld: start '%.40s' and end '%.40s' are no interval of whole numbers",
                path, (long long)line, start, end);
    return LAM_OK;
}

/* ---- BED ---- */

/* Fields of a line, split at tabs (else at blanks); the line is cut up. */
static int split(char *line, char *fields[MAX_FIELDS]) {
    const char *separators = strchr(line, '\t') ? "\t" : " ";
    int count = 0;
    for (char *at = line; at && count < MAX_FIELDS;) fields[count++] = strsep(&at, separators);
    return count;
}

/* How many fields stand before the chromosome: 0, 1 (UCSC's bin); -1: the line is no BED. */
static int before_chromosome(char *const *fields, int count) {
    int64_t unused;
    if (count >= 4 && whole_number(fields[0], &unused) && strncasecmp(fields[1], "chr", 3) == 0 &&
        whole_number(fields[2], &unused) && whole_number(fields[3], &unused))
        return 1;
    return count >= 3 && whole_number(fields[1], &unused) && whole_number(fields[2], &unused) ? 0 : -1;
}

static bool is_data(const char *line) {
    return *line && *line != '#' && strncmp(line, "track", 5) != 0 && strncmp(line, "browser", 7) != 0;
}

static lam_status read_bed_line(places *p, char *text, int64_t line, const char *path) {
    char *fields[MAX_FIELDS];
    int count = split(text, fields), from = before_chromosome(fields, count);
    place one = {0};
    LAM_REQUIRE(from >= 0, LAM_ERROR_INPUT, "%s:%lld: chromosome, start and end are needed in a BED file",
                path, (long long)line);
    LAM_TRY(check_interval(path, line, fields[from + 1], fields[from + 2], &one));
    const char *chromosome = plain_chromosome(fields[from]);
    LAM_TRY(keep_text(p, chromosome, strlen(chromosome), &one.chromosome));
    if (count > from + 3) LAM_TRY(keep_text(p, fields[from + 3], strlen(fields[from + 3]), &one.name));
    one.centromere_band = count > from + 4 && !strcmp(fields[from + 4], "acen");
    p->bands |= one.centromere_band;
    p->list[p->count++] = one;
    return LAM_OK;
}

/* `is_bed` false: the first line of data is none of a BED file, and nothing was read. */
static lam_status read_bed(places *p, const char *path, bool *is_bed) {
    char *text = NULL, *fields[MAX_FIELDS];
    size_t size;
    int64_t lines = 1, line = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_file_read(path, &text, &size), done);
    LAM_TRY_GOTO(lam_unpack(&text, &size, path), done);
    for (size_t i = 0; i < size; i++) lines += text[i] == '\n';
    LAM_TRY_GOTO(lam_alloc_array((void **)&p->list, lines, sizeof *p->list), done);
    *is_bed = true;
    for (char *at = text; at;) {
        char *one = strsep(&at, "\n"), *copy;
        one[strcspn(one, "\r")] = 0;
        line++;
        if (!is_data(one)) continue;
        if (!p->count) {
            LAM_TRY_GOTO(lam_text_copy(&copy, one), done);
            *is_bed = before_chromosome(fields, split(copy, fields)) >= 0;
            lam_free(copy);
            if (!*is_bed) break;
        }
        LAM_TRY_GOTO(read_bed_line(p, one, line, path), done);
    }
    LAM_REQUIRE_GOTO(p->count || !*is_bed, done, LAM_ERROR_INPUT, "%s: has no rows", path);
done:
    lam_free(text);
    if (status == LAM_OK && !*is_bed) {
        lam_free(p->list);
        p->list = NULL;
    }
    return status;
}

/* ---- tables ---- */

static int find_column(const lam_table *table, const char *const names[3]) {
    for (int i = 0; i < 3; i++) {
        int column = names[i] ? lam_table_column(table, names[i]) : -1;
        if (column >= 0) return column;
    }
    return -1;
}

static lam_status read_table(places *p, const char *path) {
    static const char *const names[][3] = {
        {"chromosome", "chrom", "chr"}, {"start", "chromStart", NULL}, {"end", "chromEnd", NULL},
        {"gene", "symbol", "name"},     {"arm", NULL, NULL},           {"gieStain", "stain", NULL}};
    enum { CHROMOSOME, START, END, NAME, ARM, STAIN, COLUMNS };
    lam_table *table = NULL;
    int column[COLUMNS];
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_read(&table, path), done);
    int64_t rows = lam_table_rows(table);
    LAM_REQUIRE_GOTO(rows > 0, done, LAM_ERROR_INPUT, "%s: has no rows", path);
    for (int i = 0; i < COLUMNS; i++) column[i] = find_column(table, names[i]);
    p->arms = column[ARM] >= 0;
    for (int i = 0; i < NAME && !p->arms; i++)
        if (column[i] < 0) LAM_TRY_GOTO(lam_table_require(table, names[i][0], &column[i]), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&p->list, rows, sizeof *p->list), done);
    for (int64_t i = 0; i < rows; i++) {
        place one = {0};
        const char *texts[COLUMNS];
        for (int k = 0; k < COLUMNS; k++)
            texts[k] = column[k] < 0 ? NULL : lam_table_cell(table, i, column[k]);
        if (texts[CHROMOSOME]) texts[CHROMOSOME] = plain_chromosome(texts[CHROMOSOME]);
        if (!p->arms)
            LAM_TRY_GOTO(check_interval(path, lam_table_line(table, i), texts[START], texts[END], &one),
                         done);
        const char **kept[] = {&one.chromosome, NULL, NULL, &one.name, &one.arm};
        for (int k = 0; k <= ARM; k++)
            if (texts[k] && kept[k]) LAM_TRY_GOTO(keep_text(p, texts[k], strlen(texts[k]), kept[k]), done);
        one.centromere_band = texts[STAIN] && !strcmp(texts[STAIN], "acen");
        p->bands |= one.centromere_band;
        p->list[p->count++] = one;
    }
done:
    lam_table_free(table);
    return status;
}

static lam_status read_places(places *p, const char *path) {
    bool is_bed;
    LAM_TRY(read_bed(p, path, &is_bed));
    return is_bed ? LAM_OK : read_table(p, path);
}

/* ---- arms ---- */

static int by_chromosome(const void *a, const void *b) {
    return strcmp(((const place *)a)->chromosome, ((const place *)b)->chromosome);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const place *)a)->name, ((const place *)b)->name);
}

/* One row a chromosome: from the smallest start to the largest end. */
static void join_centromeres(places *p) {
    int64_t count = 0;
    for (int64_t i = 0; i < p->count; i++)
        if (!p->bands || p->list[i].centromere_band) p->list[count++] = p->list[i];
    p->count = count;
    qsort(p->list, (size_t)p->count, sizeof *p->list, by_chromosome);
    count = 0;
    for (int64_t i = 0; i < p->count; i++) {
        place *last = count ? &p->list[count - 1] : NULL;
        if (!last || strcmp(last->chromosome, p->list[i].chromosome) != 0) {
            p->list[count++] = p->list[i];
            continue;
        }
        if (p->list[i].start < last->start) last->start = p->list[i].start;
        if (p->list[i].end > last->end) last->end = p->list[i].end;
    }
    p->count = count;
}

static lam_status name_arm(places *genes, place *gene, const places *centromeres) {
    char text[256];
    if (gene->arm) {
        bool letter = !strcmp(gene->arm, "p") || !strcmp(gene->arm, "q");
        if (!letter || !gene->chromosome) return LAM_OK;
        snprintf(text, sizeof text, "%.200s%s", gene->chromosome, gene->arm);
        return keep_text(genes, text, strlen(text), &gene->arm);
    }
    gene->arm = "";
    const place *centromere =
        bsearch(gene, centromeres->list, (size_t)centromeres->count, sizeof *gene, by_chromosome);
    if (!centromere) return LAM_OK;
    bool q = 2 * gene->end > centromere->start + centromere->end;
    snprintf(text, sizeof text, "%.200s%c", gene->chromosome, q ? 'q' : 'p');
    return keep_text(genes, text, strlen(text), &gene->arm);
}

static int by_name_and_arm(const void *a, const void *b) {
    int order = by_name(a, b);
    return order ? order : strcmp(((const place *)a)->arm, ((const place *)b)->arm);
}

/* Rows without an arm (scaffolds) do not count against the others of a gene; two arms do. */
static void one_row_a_gene(places *p) {
    int64_t count = 0;
    qsort(p->list, (size_t)p->count, sizeof *p->list, by_name_and_arm);
    for (int64_t from = 0, to = 0; from < p->count; from = to) {
        while (to < p->count && !strcmp(p->list[to].name, p->list[from].name)) to++;
        while (from + 1 < to && !*p->list[from].arm) from++; /* the empty ones stand first */
        place one = p->list[from];
        if (strcmp(one.arm, p->list[to - 1].arm) != 0) one.arm = "";
        p->list[count++] = one;
    }
    p->count = count;
}

lam_status lam_arms_read(lam_arms **out, const char *path, const char *centromeres_path) {
    lam_arms *arms;
    places centromeres = {0};
    *out = NULL;
    LAM_TRY(lam_alloc((void **)&arms, sizeof *arms));
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(read_places(&arms->genes, path), done);
    LAM_REQUIRE_GOTO(arms->genes.list[0].name, done, LAM_ERROR_INPUT,
                     "%s: has no genes: a fourth column (BED) or a column gene is needed", path);
    LAM_REQUIRE_GOTO(!arms->genes.arms || !centromeres_path, done, LAM_ERROR_USAGE,
                     "%s has a column arm: leave out --centromeres", path);
    LAM_REQUIRE_GOTO(arms->genes.arms || centromeres_path, done, LAM_ERROR_USAGE,
                     "%s has no column arm: name the centromeres (BED) with --centromeres", path);
    if (centromeres_path) {
        LAM_TRY_GOTO(read_places(&centromeres, centromeres_path), done);
        LAM_REQUIRE_GOTO(!centromeres.arms, done, LAM_ERROR_INPUT,
                         "%s: chromosome, start and end of the centromeres are needed", centromeres_path);
        join_centromeres(&centromeres);
    }
    for (int64_t i = 0; i < arms->genes.count; i++) {
        if (!arms->genes.list[i].name) arms->genes.list[i].name = "";
        LAM_TRY_GOTO(name_arm(&arms->genes, &arms->genes.list[i], &centromeres), done);
    }
    one_row_a_gene(&arms->genes);
done:
    places_free(&centromeres);
    if (status == LAM_OK)
        *out = arms;
    else
        lam_arms_free(arms);
    return status;
}

void lam_arms_free(lam_arms *arms) {
    if (!arms) return;
    places_free(&arms->genes);
    lam_free(arms);
}

const char *lam_arms_of(const lam_arms *arms, const char *gene) {
    place key = {.name = gene};
    const place *found = bsearch(&key, arms->genes.list, (size_t)arms->genes.count, sizeof key, by_name);
    return found ? found->arm : "";
}

/* ---- correction ---- */

/* Mean cosine of pairs on one arm and on two: the pairs of a set of directions u sum to (|sum u|^2 - n) / 2. Rows that are zero have no
 * direction. code -1: no arm. sum: [columns] twice. */
static void mean_cosines(const double *x, int64_t rows, int64_t columns, const int64_t *code, int64_t arms,
                         double *sum, double *within, double *between) {
    double one = 0, all = 0, one_pairs = 0, n_all = 0;
    double *of_all = sum + columns;
    memset(of_all, 0, (size_t)columns * sizeof *sum);
    for (int64_t a = 0; a < arms; a++) {
        double n = 0, square = 0;
        memset(sum, 0, (size_t)columns * sizeof *sum);
        for (int64_t i = 0; i < rows; i++) {
            if (code[i] != a) continue;
            double length = 0;
            for (int64_t j = 0; j < columns; j++) length += x[i * columns + j] * x[i * columns + j];
            if (!(length > 0)) continue;
            for (int64_t j = 0; j < columns; j++) sum[j] += x[i * columns + j] / sqrt(length);
            n++;
        }
        for (int64_t j = 0; j < columns; j++) square += sum[j] * sum[j], of_all[j] += sum[j];
        one += (square - n) / 2;
        one_pairs += n * (n - 1) / 2;
        n_all += n;
    }
    for (int64_t j = 0; j < columns; j++) all += of_all[j] * of_all[j];
    double two_pairs = n_all * (n_all - 1) / 2 - one_pairs;
    *within = one_pairs > 0 ? one / one_pairs : (double)NAN;
    *between = two_pairs > 0 ? ((all - n_all) / 2 - one) / two_pairs : (double)NAN;
}

static void take_off_mean(double *x, int64_t rows, int64_t columns, const int64_t *code, int64_t arm,
                          const bool *unexpressed, double *mean, lam_arms_result *result, int64_t minimum) {
    int64_t n = 0;
    memset(mean, 0, (size_t)columns * sizeof *mean);
    for (int64_t i = 0; i < rows; i++) {
        if (code[i] != arm || !unexpressed[i]) continue;
        for (int64_t j = 0; j < columns; j++) mean[j] += x[i * columns + j];
        n++;
    }
    if (n <= minimum) return;
    result->corrected++;
    for (int64_t i = 0; i < rows; i++) {
        if (code[i] != arm) continue;
        for (int64_t j = 0; j < columns; j++) x[i * columns + j] -= mean[j] / (double)n;
        result->rows++;
    }
}

/* code [rows]: dense numbers of the arms, -1 where none. */
static lam_status number_arms(const lam_arms *arms, const char *const *genes, int64_t rows, int64_t *code,
                              lam_arms_result *result) {
    place *list;
    LAM_TRY(lam_alloc_array((void **)&list, rows, sizeof *list));
    for (int64_t i = 0; i < rows; i++) {
        const char *arm = lam_arms_of(arms, genes[i]);
        code[i] = -1;
        if (*arm) list[result->genes++] = (place){.name = arm, .start = i};
    }
    qsort(list, (size_t)result->genes, sizeof *list, by_name);
    for (int64_t k = 0; k < result->genes; k++) {
        result->arms += k == 0 || strcmp(list[k].name, list[k - 1].name) != 0;
        code[list[k].start] = result->arms - 1;
    }
    lam_free(list);
    return LAM_OK;
}

lam_status lam_arms_correct(const lam_arms *arms, double *x, int64_t rows, int64_t columns,
                            const char *const *genes, const bool *unexpressed, int64_t minimum,
                            lam_arms_result *result) {
    int64_t *code = NULL;
    double *sum = NULL;
    lam_status status = LAM_OK;
    memset(result, 0, sizeof *result);
    LAM_TRY_GOTO(lam_alloc_array((void **)&code, rows, sizeof *code), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&sum, 2 * columns, sizeof *sum), done);
    LAM_TRY_GOTO(number_arms(arms, genes, rows, code, result), done);
    LAM_REQUIRE_GOTO(result->genes > 0, done, LAM_ERROR_INPUT,
                     "no gene of the map has a chromosome arm: are the genes named alike in both?");
    mean_cosines(x, rows, columns, code, result->arms, sum, &result->within[0], &result->between[0]);
    for (int64_t a = 0; a < result->arms; a++)
        take_off_mean(x, rows, columns, code, a, unexpressed, sum, result, minimum);
    mean_cosines(x, rows, columns, code, result->arms, sum, &result->within[1], &result->between[1]);
done:
    lam_free(code);
    lam_free(sum);
    return status;
}
