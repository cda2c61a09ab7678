/* One self-contained HTML page: text, tables, pictures and SVG charts; no network, no script.
 *
 *     lam_page *page;
 *     LAM_TRY(lam_page_create(&page, "lamella: results", "report_data"));
 *     lam_page_heading(page, "Recall");
 *     lam_page_paragraph(page, "%d pairs", pairs);
 *     lam_page_bars(page, &bars);
 *     LAM_TRY(lam_page_write(&page, "report.html"));
 *
 * Everything that is given as text is escaped. Each chart and table also becomes a CSV file in the data folder (01_title.csv), held in
 * memory until lam_page_write: a page that fails leaves no new file and no new folder.
 * Readable without colour: series differ by dash, categories by twelve marks, bars carry their numbers. Calls return nothing: the first
 * failure is remembered and returned by lam_page_write. Ownership: strings and numbers are copied into the page at once. */
#ifndef LAMELLA_BASE_PAGE_H
#define LAMELLA_BASE_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_page lam_page;

lam_status lam_page_create(lam_page **out, const char *title, const char *data_folder);
void lam_page_free(lam_page **page);
lam_status lam_page_write(lam_page **page, const char *path); /* and frees it in every case */

void lam_page_heading(lam_page *page, const char *text);
void lam_page_paragraph(lam_page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line that stands out: the main result. */
void lam_page_verdict(lam_page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* cells: rows x columns texts, row-major; numbers are set flush right, long ones to four digits (the CSV has them whole). */
void lam_page_table(lam_page *page, const char *title, int columns, const char *const *names, int64_t rows,
                    const char *const *cells);
void lam_page_png(lam_page *page, const char *caption, const void *bytes, size_t size);

typedef struct lam_bars {
    const char *title, *axis; /* axis with its unit */
    int64_t count;
    const char *const *labels;
    const double *values, *low, *high; /* interval; NULL: none; NaN where one is missing */
    double reference;                  /* a dashed line; NaN: none */
    const char *reference_label;
} lam_bars;
void lam_page_bars(lam_page *page, const lam_bars *bars);

typedef struct lam_series {
    const char *name;
    int64_t count;
    const double *x, *y;
} lam_series;
void lam_page_lines(lam_page *page, const char *title, const char *x_axis, const char *y_axis, int count,
                    const lam_series *series);

/* A dashed line at a value, with its name. */
typedef struct lam_guide {
    double value;
    const char *label;
} lam_guide;
/* The same with vertical guides. */
void lam_page_lines_guided(lam_page *page, const char *title, const char *x_axis, const char *y_axis,
                           int count, const lam_series *series, int guides, const lam_guide *guide);

typedef struct lam_scatter {
    const char *title, *x_axis, *y_axis;
    int64_t count;
    const double *x, *y;
    const char *const *labels;     /* of points */
    const char *const *categories; /* of points; "" is drawn small and grey; NULL: none */
    bool named; /* write the labels of points with a category, the first first, where there is room */
    int guides; /* horizontal */
    const lam_guide *guide;
} lam_scatter;
void lam_page_scatter(lam_page *page, const lam_scatter *scatter);

/* rows x columns shares 0..1, darker is more, each cell with its number. */
void lam_page_heat(lam_page *page, const char *title, const char *row_axis, const char *column_axis,
                   int64_t count, const char *const *names, const double *values);
/* count x count values -1..1 in hundredths: darker is further from 0, negative cells have a black corner and a minus sign. */
void lam_page_heat_signed(lam_page *page, const char *title, int64_t count, const char *const *names,
                          const double *values);

#ifdef __cplusplus
}
#endif
#endif
