/* What page.c, page_charts.c, page_scatter.c and page_heat.c share. */
#ifndef LAMELLA_BASE_PAGE_PARTS_H
#define LAMELLA_BASE_PAGE_PARTS_H

#include <stdbool.h>

#include "base/page.h"

#ifdef __cplusplus
extern "C" {
#endif

void lam_page_raw(lam_page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));
void lam_page_escaped(lam_page *page, const char *text);
/* Begins <data folder>/NN_title.csv, which lam_page_write writes; NULL after a failure. */
typedef struct lam_page_file lam_page_file;
lam_page_file *lam_page_csv(lam_page *page, const char *title);
void lam_page_csv_text(lam_page *page, lam_page_file *csv, const char *text,
                       const char *after); /* quoted where needed */
void lam_page_csv_number(lam_page *page, lam_page_file *csv, double value, const char *after);
void lam_page_remember(lam_page *page, lam_status status);

/* ---- drawing: charts are LAM_PAGE_WIDTH units wide ---- */

#define LAM_PAGE_WIDTH 600.0
#define LAM_PAGE_LEFT 74.0
#define LAM_PAGE_RIGHT 20.0
#define LAM_PAGE_LETTER 9.0 /* about the width of a letter of the charts' text, which is larger on phones */

typedef struct lam_axis {
    double low, high, step;
} lam_axis;
/* Ticks at 1, 2 or 5 times a power of ten. */
lam_axis lam_page_axis(double low, double high, int ticks);
double lam_page_place(lam_axis axis, double value, double from, double to);
void lam_page_axes(lam_page *page, lam_axis x, lam_axis y, double top, double bottom, const char *x_name,
                   const char *y_name);
/* natural: as many pixels wide as units, scrolled where the window is narrower; else fitted to the window. */
void lam_page_open_figure(lam_page *page, const char *title, double width, double height, bool natural);
void lam_page_label(lam_page *page, double x, double y, const char *anchor, const char *css,
                    const char *text);
/* Cut with an ellipsis where it would be longer than `width` (the whole text is its tool tip). */
void lam_page_label_within(lam_page *page, double x, double y, double width, const char *anchor,
                           const char *css, const char *text);
extern const char *const lam_page_colours[6];

#ifdef __cplusplus
}
#endif
#endif
