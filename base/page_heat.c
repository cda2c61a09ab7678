/* Heat maps: every cell with its number. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/page.h"
#include "base/page_parts.h"

/* ---- heat map ---- */

void lam_page_heat(lam_page *page, const char *title, const char *row_axis, const char *column_axis,
                   int64_t count, const char *const *names, const double *values) {
    lam_page_file *csv = lam_page_csv(page, title);
    lam_page_csv_text(page, csv, row_axis, "");
    double longest = 0;
    for (int64_t c = 0; c < count; c++) {
        longest = fmax(longest, (double)strlen(names[c]));
        lam_page_csv_text(page, csv, "", ",");
        lam_page_csv_text(page, csv, names[c], "");
    }
    lam_page_csv_text(page, csv, "", "\n");
    double left = 150, cell = fmin(44.0, (LAM_PAGE_WIDTH - left - 20) / (double)count), top = 30,
           bottom = top + cell * (double)count;
    int64_t each = (int64_t)ceil(14 / cell); /* every name that there is room for */
    lam_page_open_figure(page, title, LAM_PAGE_WIDTH, bottom + 24 + fmin(110, longest * LAM_PAGE_LETTER),
                         false);
    for (int64_t r = 0; r < count; r++) {
        lam_page_csv_text(page, csv, names[r], "");
        if (r % each == 0)
            lam_page_label_within(page, left - 8, top + cell * ((double)r + 0.5) + 4, left - 10, "end", "",
                                  names[r]);
        for (int64_t c = 0; c < count; c++) {
            double v = values[r * count + c], px = left + cell * (double)c, py = top + cell * (double)r;
            lam_page_csv_text(page, csv, "", ",");
            lam_page_csv_number(page, csv, v, "");
            lam_page_raw(
                page,
                "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"var(--a)\" opacity=\"%.3f\"/>\n",
                px, py, cell - 1, cell - 1, isfinite(v) ? 0.06 + 0.8 * v : 0.0);
            char text[16];
            snprintf(text, sizeof text, "%.2f", v);
            if (cell >= 30 && isfinite(v))
                lam_page_label(page, px + cell / 2, py + cell / 2 + 4, "middle", "", text);
        }
        lam_page_csv_text(page, csv, "", "\n");
    }
    for (int64_t c = 0; c < count; c += each) {
        lam_page_raw(page, "<g transform=\"translate(%.1f %.1f) rotate(-55)\">",
                     left + cell * ((double)c + 0.5), bottom + 14);
        lam_page_label_within(page, 0, 0, 126, "end", "", names[c]);
        lam_page_raw(page, "</g>\n");
    }
    char axes[200];
    snprintf(axes, sizeof axes, "rows: %s, columns: %s", row_axis, column_axis);
    lam_page_label(page, left, 16, "start", "soft", axes);
    lam_page_raw(page, "</svg></figure>\n");
}

/* ---- signed ---- */

static const char *const signs[2] = {"var(--a)", "var(--b)"};

static void signed_cell(lam_page *page, double x, double y, double cell, double value) {
    char text[16];
    bool negative = value < 0;
    lam_page_raw(
        page, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" opacity=\"%.3f\"/>\n",
        x, y, cell - 1, cell - 1, signs[negative], isfinite(value) ? 0.04 + 0.7 * fmin(1, fabs(value)) : 0.0);
    if (!isfinite(value)) return;
    if (negative && value <= -0.005)
        lam_page_raw(page, "<path d=\"M%.1f %.1fh%.1fl%.1f %.1fz\" fill=\"var(--ink)\"/>\n", x, y, cell / 4,
                     -cell / 4, cell / 4);
    snprintf(text, sizeof text, "%.0f", 100 * value);
    lam_page_label(page, x + (cell - 1) / 2, y + cell / 2 + 3, "middle", "tiny",
                   strcmp(text, "-0") != 0 ? text : "0");
}

void lam_page_heat_signed(lam_page *page, const char *title, int64_t count, const char *const *names,
                          const double *values) {
    lam_page_file *csv = lam_page_csv(page, title);
    double longest = 0;
    lam_page_csv_text(page, csv, "name", "");
    for (int64_t c = 0; c < count; c++) {
        lam_page_csv_text(page, csv, "", ",");
        lam_page_csv_text(page, csv, names[c], "");
        longest = fmax(longest, (double)strlen(names[c]));
    }
    lam_page_csv_text(page, csv, "", "\n");
    double left = 96, cell = fmax(18, fmin(34, (LAM_PAGE_WIDTH - left - 12) / (double)count)), top = 44,
           bottom = top + cell * (double)count,
           width = fmax(left + 26.0 * 9 + 150, left + cell * (double)count + 12);
    lam_page_open_figure(page, title, width, bottom + 20 + fmin(84, longest * LAM_PAGE_LETTER), true);
    for (int k = 0; k <= 8; k++) signed_cell(page, left + 26.0 * k, 6, 26, 0.25 * k - 1);
    lam_page_label(page, left + 26.0 * 9 + 10, 23, "start", "soft", "cosine in hundredths");
    for (int64_t r = 0; r < count; r++) {
        lam_page_csv_text(page, csv, names[r], "");
        lam_page_label_within(page, left - 8, top + cell * ((double)r + 0.5) + 4, left - 10, "end", "",
                              names[r]);
        for (int64_t c = 0; c < count; c++) {
            double v = values[r * count + c];
            lam_page_csv_text(page, csv, "", ",");
            lam_page_csv_number(page, csv, v, "");
            signed_cell(page, left + cell * (double)c, top + cell * (double)r, cell, v);
        }
        lam_page_csv_text(page, csv, "", "\n");
    }
    for (int64_t c = 0; c < count; c++) {
        lam_page_raw(page, "<g transform=\"translate(%.1f %.1f) rotate(-70)\">",
                     left + cell * ((double)c + 0.5) + 4, bottom + 8);
        lam_page_label_within(page, 0, 0, 84, "end", "", names[c]);
        lam_page_raw(page, "</g>\n");
    }
    lam_page_raw(page, "</svg></figure>\n");
}
