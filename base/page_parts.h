/* What page.c and page_charts.c share. */
#ifndef LAMELLA_BASE_PAGE_PARTS_H
#define LAMELLA_BASE_PAGE_PARTS_H

#include "base/files.h"
#include "base/page.h"

#ifdef __cplusplus
extern "C" {
#endif

void lam_page_raw(lam_page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));
void lam_page_escaped(lam_page *page, const char *text);
/* Opens <data folder>/NN_title.csv; NULL after a failure. */
lam_writer *lam_page_csv(lam_page *page, const char *title);
void lam_page_csv_text(lam_page *page, lam_writer *csv, const char *text,
                       const char *after); /* quoted where needed */
void lam_page_csv_number(lam_page *page, lam_writer *csv, double value, const char *after);
void lam_page_csv_end(lam_page *page, lam_writer *csv);
void lam_page_remember(lam_page *page, lam_status status);

#ifdef __cplusplus
}
#endif
#endif
