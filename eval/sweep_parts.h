/* What the page of a sweep (sweep_page.c) and the section of a report about one (report_sweep.c) share, and what sweep.c calls. */
#ifndef LAMELLA_EVAL_SWEEP_PARTS_H
#define LAMELLA_EVAL_SWEEP_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What charts show of a command: the first number whose name begins so. NULL: nothing. */
const char *lam_sweep_headline(const char *command);

/* The settings of the rows of one chart, so short that they still tell the rows apart.
 * names: columns of sweep.csv, section.key; cells [rows * columns], "" where a row has no such setting.
 * differs [columns]: whether the rows differ there; what they share names none of them.
 * Paths in cells lose their folders, in place, in columns where the names of the files alone tell as much. */
lam_status lam_sweep_shorten(const char **cells, int64_t rows, int columns, bool *differs);
/* "blocks.h5ad, align tvn" of one row of those; `run` where no column differs. The caller frees. */
lam_status lam_sweep_label(const char *const *names, const char *const *cells, const bool *differs,
                           int columns, const char *run, char **label);

/* report.html and report_data in `out`: for each result of each command a chart, and under it a table of its rows.
 * records: the rows of sweep.csv, settings between `run` and `name`; source: the file that was swept. */
lam_status lam_sweep_page_write(const char *out, const char *source, int runs, const lam_json *records);

#ifdef __cplusplus
}
#endif
#endif
