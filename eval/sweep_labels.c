/* Names of the rows of a sweep. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/sweep_parts.h"

static const struct {
    const char *command, *start;
} headlines[] = {{"relate", "recall_"},
                 {"probe", "balanced_accuracy"},
                 {"consistency", "consistency.share_p"},
                 {"retrieve", "mean_average_precision"}};

const char *lam_sweep_headline(const char *command) {
    for (size_t k = 0; k < sizeof headlines / sizeof *headlines; k++)
        if (!strcmp(headlines[k].command, command)) return headlines[k].start;
    return NULL;
}

/* A value of several words may be several paths: it stays whole. */
static const char *without_folder(const char *text) {
    const char *slash = strrchr(text, '/');
    return slash && slash[1] && !strchr(text, ' ') ? slash + 1 : text;
}

static int by_file_then_folder(const void *a, const void *b) {
    const char *p = *(const char *const *)a, *q = *(const char *const *)b;
    int order = strcmp(without_folder(p), without_folder(q));
    return order ? order : strcmp(p, q);
}

lam_status lam_sweep_shorten(const char **cells, int64_t rows, int columns, bool *differs) {
    const char **sorted;
    LAM_TRY(lam_alloc_array((void **)&sorted, rows, sizeof *sorted));
    for (int c = 0; c < columns; c++) {
        bool clear = true;
        for (int64_t r = 0; r < rows; r++) sorted[r] = cells[r * columns + c];
        if (rows) qsort(sorted, (size_t)rows, sizeof *sorted, by_file_then_folder);
        differs[c] = false;
        for (int64_t r = 1; r < rows; r++) {
            bool other = strcmp(sorted[r - 1], sorted[r]) != 0;
            differs[c] = differs[c] || other;
            clear = clear && !(other && !strcmp(without_folder(sorted[r - 1]), without_folder(sorted[r])));
        }
        for (int64_t r = 0; r < rows && clear; r++)
            cells[r * columns + c] = without_folder(cells[r * columns + c]);
    }
    lam_free(sorted);
    return LAM_OK;
}

lam_status lam_sweep_label(const char *const *names, const char *const *cells, const bool *differs,
                           int columns, const char *run, char **label) {
    LAM_TRY(lam_text_copy(label, ""));
    for (int c = 0; c < columns; c++) {
        if (!differs[c] || !*cells[c]) continue;
        const char *dot =
            strchr(names[c], '.'); /* the embeddings are no key of a section: the file says it */
        char *longer;
        lam_status status = lam_text_format(&longer, "%s%s%s%s%s", *label, **label ? ", " : "",
                                            dot ? dot + 1 : "", dot ? " " : "", cells[c]);
        lam_free(*label);
        LAM_TRY(status);
        *label = longer;
    }
    if (**label) return LAM_OK;
    lam_free(*label);
    return lam_text_copy(label, run);
}
