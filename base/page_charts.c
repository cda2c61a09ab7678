#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/page.h"
#include "base/page_parts.h"

#define DOTS 30     /* a line of so few points shows each */
#define LABELS 220  /* width beside bars that labels may take; longer ones stand above their bars */
#define POINTS 1500 /* of one drawn line; the CSV keeps them all */

const char *const lam_page_colours[6] = {"var(--a)", "var(--b)", "var(--c)",
                                         "var(--d)", "var(--e)", "var(--f)"};
static const char *const dashes[] = {"", "7 3", "2 3", "9 3 2 3", "4 2", "12 4"};

/* ---- axes ---- */

lam_axis lam_page_axis(double low, double high, int ticks) {
    if (!(high > low)) {
        double centre = isfinite(low) ? low : 0;
        low = centre - 0.5;
        high = centre + 0.5;
    }
    double raw = (high - low) / ticks, power = pow(10.0, floor(log10(raw))), f = raw / power;
    double step = (f <= 1 ? 1 : f <= 2 ? 2 : f <= 5 ? 5 : 10) * power;
    return (lam_axis){floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step, step};
}

double lam_page_place(lam_axis a, double value, double from, double to) {
    return from + (value - a.low) / (a.high - a.low) * (to - from);
}

void lam_page_open_figure(lam_page *page, const char *title, double width, double height, bool natural) {
    lam_page_raw(page, natural ? "<figure class=\"natural%s\"><figcaption>" : "<figure%s><figcaption>",
                 natural && width > 900 ? " wide" : "");
    lam_page_escaped(page, title);
    lam_page_raw(page, "</figcaption><svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"", width,
                 height);
    lam_page_escaped(page, title);
    if (natural) lam_page_raw(page, "\" style=\"width:%.0fpx", width);
    lam_page_raw(page, "\">\n");
}

void lam_page_label(lam_page *page, double x, double y, const char *anchor, const char *css,
                    const char *text) {
    lam_page_raw(page, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor, css);
    lam_page_escaped(page, text);
    lam_page_raw(page, "</text>\n");
}

void lam_page_label_within(lam_page *page, double x, double y, double width, const char *anchor,
                           const char *css, const char *text) {
    enum { MOST = 128 };
    int64_t room = (int64_t)(width / LAM_PAGE_LETTER), letters = 0;
    size_t cut = 0;
    for (size_t i = 0; text[i]; i++) {
        if (((unsigned char)text[i] & 0xC0u) == 0x80u) continue; /* inside a letter */
        letters++;
        if (letters <= room && i < MOST) cut = i;
    }
    if (letters <= room) {
        lam_page_label(page, x, y, anchor, css, text);
        return;
    }
    lam_page_raw(page, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\"><title>", x, y, anchor,
                 css);
    lam_page_escaped(page, text);
    char head[MOST + 8];
    snprintf(head, sizeof head, "%.*s\xE2\x80\xA6", (int)cut, text);
    lam_page_raw(page, "</title>");
    lam_page_escaped(page, head);
    lam_page_raw(page, "</text>\n");
}

void lam_page_axes(lam_page *page, lam_axis x, lam_axis y, double top, double bottom, const char *x_name,
                   const char *y_name) {
    char text[32];
    for (double v = y.low; v <= y.high + y.step / 2; v += y.step) {
        double at = lam_page_place(y, v, bottom, top);
        snprintf(text, sizeof text, "%.4g", fabs(v) < y.step * 1e-6 ? 0 : v);
        lam_page_raw(page, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
                     LAM_PAGE_LEFT, LAM_PAGE_WIDTH - LAM_PAGE_RIGHT, at, at);
        lam_page_label(page, LAM_PAGE_LEFT - 6, at + 4, "end", "soft", text);
    }
    for (double v = x.low; v <= x.high + x.step / 2; v += x.step) {
        snprintf(text, sizeof text, "%.4g", fabs(v) < x.step * 1e-6 ? 0 : v);
        lam_page_label(page, lam_page_place(x, v, LAM_PAGE_LEFT, LAM_PAGE_WIDTH - LAM_PAGE_RIGHT),
                       bottom + 18, "middle", "soft", text);
    }
    lam_page_label(page, (LAM_PAGE_LEFT + LAM_PAGE_WIDTH - LAM_PAGE_RIGHT) / 2, bottom + 36, "middle", "",
                   x_name);
    lam_page_raw(page, "<text transform=\"translate(14 %.1f) rotate(-90)\" text-anchor=\"middle\">",
                 (top + bottom) / 2);
    lam_page_escaped(page, y_name);
    lam_page_raw(page, "</text>\n");
}

/* Where the middle of a text stands that is to stand at x and be whole. */
static double whole_within(double x, const char *text) {
    double half = LAM_PAGE_LETTER * (double)strlen(text) / 2;
    return fmax(half, fmin(x, LAM_PAGE_WIDTH - half));
}

/* ---- bars ---- */

void lam_page_bars(lam_page *page, const lam_bars *b) {
    lam_page_file *csv = lam_page_csv(page, b->title);
    lam_page_csv_text(page, csv, "label", ",");
    lam_page_csv_text(page, csv, b->axis, b->low ? ",low,high\n" : "\n");
    double least = 0, most = 0, longest = 0;
    for (int64_t i = 0; i < b->count; i++) {
        longest = fmax(longest, (double)strlen(b->labels[i]));
        double low = b->low && isfinite(b->low[i]) ? b->low[i] : b->values[i],
               high = b->high && isfinite(b->high[i]) ? b->high[i] : b->values[i];
        if (isfinite(b->values[i])) {
            least = fmin(least, fmin(low, b->values[i]));
            most = fmax(most, fmax(high, b->values[i]));
        }
        lam_page_csv_text(page, csv, b->labels[i], ",");
        lam_page_csv_number(page, csv, b->values[i], b->low ? "," : "\n");
        if (b->low) {
            lam_page_csv_number(page, csv, b->low[i], ",");
            lam_page_csv_number(page, csv, b->high[i], "\n");
        }
    }
    if (isfinite(b->reference)) most = fmax(most, b->reference), least = fmin(least, b->reference);
    lam_axis x = lam_page_axis(least, most, 6);
    bool above = longest * LAM_PAGE_LETTER + 16 > LABELS; /* each on a line of its own over its bar */
    double left = above ? 10 : fmax(60, longest * LAM_PAGE_LETTER + 16), line = above ? 18 : 0,
           row = 34 + line, top = 24, bottom = top + row * (double)b->count,
           zero = lam_page_place(x, 0, left, LAM_PAGE_WIDTH - 70);
    lam_page_open_figure(page, b->title, LAM_PAGE_WIDTH, bottom + 44, false);
    char text[64];
    for (double v = x.low; v <= x.high + x.step / 2; v += x.step) {
        double at = lam_page_place(x, v, left, LAM_PAGE_WIDTH - 70);
        snprintf(text, sizeof text, "%.4g", fabs(v) < x.step * 1e-6 ? 0 : v);
        lam_page_raw(page, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", at, at,
                     top, bottom);
        lam_page_label(page, at, bottom + 18, "middle", "soft", text);
    }
    for (int64_t i = 0; i < b->count; i++) {
        double y = top + line + row * (double)i + 6, h = row - line - 12;
        if (above)
            lam_page_label_within(page, left, y - 5, LAM_PAGE_WIDTH - left, "start", "value", b->labels[i]);
        else
            lam_page_label_within(page, left - 8, y + h / 2 + 4, left - 10, "end", "", b->labels[i]);
        if (!isfinite(b->values[i])) {
            lam_page_label(page, zero + 6, y + h / 2 + 4, "start", "soft", "no value");
            continue;
        }
        double at = lam_page_place(x, b->values[i], left, LAM_PAGE_WIDTH - 70);
        lam_page_raw(
            page,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" opacity=\".85\"/>\n",
            fmin(zero, at), y, fmax(fabs(at - zero), 0.5), h, lam_page_colours[0]);
        if (b->low && isfinite(b->low[i]) && isfinite(b->high[i])) {
            double from = lam_page_place(x, b->low[i], left, LAM_PAGE_WIDTH - 70),
                   to = lam_page_place(x, b->high[i], left, LAM_PAGE_WIDTH - 70);
            lam_page_raw(
                page,
                "<path d=\"M%.1f %.1fH%.1fM%.1f %.1fv10M%.1f %.1fv10\" stroke=\"var(--ink)\" stroke-width=\"1.5\" fill=\"none\"/>\n",
                from, y + h / 2, to, from, y + h / 2 - 5, to, y + h / 2 - 5);
        }
    }
    if (isfinite(b->reference)) {
        double at = lam_page_place(x, b->reference, left, LAM_PAGE_WIDTH - 70);
        lam_page_raw(
            page,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"var(--ink)\" stroke-dasharray=\"5 4\"/>\n",
            at, at, top - 6, bottom);
        lam_page_label(page, whole_within(at, b->reference_label), top - 10, "middle", "soft",
                       b->reference_label);
    }
    for (int64_t i = 0; i < b->count; i++) { /* numbers lie on top, with room around them */
        if (!isfinite(b->values[i])) continue;
        double end = b->values[i];
        if (b->low && isfinite(b->low[i]) && isfinite(b->high[i])) end = fmax(end, b->high[i]);
        snprintf(text, sizeof text, "%.3f", b->values[i]);
        lam_page_label(page, lam_page_place(x, end, left, LAM_PAGE_WIDTH - 70) + 6,
                       top + line + row * (double)i + (row - line) / 2 + 4, "start", "value", text);
    }
    lam_page_label(page, (left + LAM_PAGE_WIDTH - 70) / 2, bottom + 36, "middle", "", b->axis);
    lam_page_raw(page, "</svg></figure>\n");
}

/* ---- lines ---- */

/* Names of the series side by side, in as many lines as they need; returns where the last line is. page NULL: measured only. */
static double legend(lam_page *page, int count, const lam_series *series) {
    double x = LAM_PAGE_LEFT, y = 12;
    for (int s = 0; count > 1 && s < count; s++) {
        double width = 50 + LAM_PAGE_LETTER * (double)strlen(series[s].name);
        if (x > LAM_PAGE_LEFT && x + width > LAM_PAGE_WIDTH - LAM_PAGE_RIGHT) {
            x = LAM_PAGE_LEFT;
            y += 18;
        }
        if (page) {
            lam_page_raw(
                page,
                "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke-width=\"2\" stroke=\"%s\" stroke-dasharray=\"%s\"/>\n",
                x, x + 26, y, y, lam_page_colours[s % 6], dashes[s % 6]);
            lam_page_label(page, x + 32, y + 4, "start", "", series[s].name);
        }
        x += width;
    }
    return y;
}

void lam_page_lines(lam_page *page, const char *title, const char *x_axis, const char *y_axis, int count,
                    const lam_series *series) {
    lam_page_lines_guided(page, title, x_axis, y_axis, count, series, 0, NULL);
}

void lam_page_lines_guided(lam_page *page, const char *title, const char *x_axis, const char *y_axis,
                           int count, const lam_series *series, int guides, const lam_guide *guide) {
    lam_page_file *csv = lam_page_csv(page, title);
    lam_page_csv_text(page, csv, "series", ",");
    lam_page_csv_text(page, csv, x_axis, ",");
    lam_page_csv_text(page, csv, y_axis, "\n");
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    for (int s = 0; s < count; s++)
        for (int64_t i = 0; i < series[s].count; i++) {
            lam_page_csv_text(page, csv, series[s].name, ",");
            lam_page_csv_number(page, csv, series[s].x[i], ",");
            lam_page_csv_number(page, csv, series[s].y[i], "\n");
            if (!isfinite(series[s].x[i]) || !isfinite(series[s].y[i])) continue;
            x0 = fmin(x0, series[s].x[i]), x1 = fmax(x1, series[s].x[i]);
            y0 = fmin(y0, series[s].y[i]), y1 = fmax(y1, series[s].y[i]);
        }
    lam_axis x = lam_page_axis(x0, x1, 6), y = lam_page_axis(y0, y1, 5);
    double top = legend(NULL, count, series) + (guides ? 32 : 18), bottom = top + 230;
    lam_page_open_figure(page, title, LAM_PAGE_WIDTH, bottom + 44, false);
    lam_page_axes(page, x, y, top, bottom, x_axis, y_axis);
    for (int s = 0; s < count; s++) {
        lam_page_raw(
            page,
            "<polyline fill=\"none\" stroke-width=\"1.8\" stroke=\"%s\" stroke-dasharray=\"%s\" points=\"",
            lam_page_colours[s % 6], dashes[s % 6]);
        int64_t stride = series[s].count / POINTS + 1;
        for (int64_t i = 0; i < series[s].count; i += stride)
            if (isfinite(series[s].x[i]) && isfinite(series[s].y[i]))
                lam_page_raw(
                    page, "%.1f,%.1f ",
                    lam_page_place(x, series[s].x[i], LAM_PAGE_LEFT, LAM_PAGE_WIDTH - LAM_PAGE_RIGHT),
                    lam_page_place(y, series[s].y[i], bottom, top));
        lam_page_raw(page, "\"/>\n");
        for (int64_t i = 0; series[s].count <= DOTS && i < series[s].count;
             i++) /* a line of one point is none */
            if (isfinite(series[s].x[i]) && isfinite(series[s].y[i]))
                lam_page_raw(
                    page, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\" fill=\"%s\"/>\n",
                    lam_page_place(x, series[s].x[i], LAM_PAGE_LEFT, LAM_PAGE_WIDTH - LAM_PAGE_RIGHT),
                    lam_page_place(y, series[s].y[i], bottom, top), lam_page_colours[s % 6]);
    }
    for (int g = 0; g < guides; g++) {
        if (!(guide[g].value >= x.low && guide[g].value <= x.high)) continue;
        double at = lam_page_place(x, guide[g].value, LAM_PAGE_LEFT, LAM_PAGE_WIDTH - LAM_PAGE_RIGHT);
        lam_page_raw(
            page,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"var(--ink)\" stroke-dasharray=\"5 4\"/>\n",
            at, at, top - 4, bottom);
        lam_page_label(page, whole_within(at, guide[g].label), top - 8, "middle", "soft", guide[g].label);
    }
    legend(page, count, series);
    lam_page_raw(page, "</svg></figure>\n");
}
