#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/page.h"
#include "base/page_parts.h"

#define WIDTH 760.0
#define LEFT 70.0
#define RIGHT 20.0
#define MARKS 6
#define LEGEND 40
#define POINTS 1500 /* of one drawn line; the CSV keeps them all */

static const char *const colours[] = {"var(--a)", "var(--b)", "var(--c)", "var(--d)", "var(--e)", "var(--f)"};
static const char *const dashes[] = {"", "7 3", "2 3", "9 3 2 3", "4 2", "12 4"};

/* ---- axes ---- */

typedef struct axis {
    double low, high, step;
} axis;

/* Ticks at 1, 2 or 5 times a power of ten. */
static axis nice(double low, double high, int ticks) {
    if (!(high > low)) {
        double centre = isfinite(low) ? low : 0;
        low = centre - 0.5;
        high = centre + 0.5;
    }
    double raw = (high - low) / ticks, power = pow(10.0, floor(log10(raw))), f = raw / power;
    double step = (f <= 1 ? 1 : f <= 2 ? 2 : f <= 5 ? 5 : 10) * power;
    return (axis){floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step, step};
}

static double place(axis a, double value, double from, double to) {
    return from + (value - a.low) / (a.high - a.low) * (to - from);
}

static void open_figure(lam_page *page, const char *title, double height) {
    lam_page_raw(page, "<figure><figcaption>");
    lam_page_escaped(page, title);
    lam_page_raw(page, "</figcaption><svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"", WIDTH,
                 height);
    lam_page_escaped(page, title);
    lam_page_raw(page, "\">\n");
}

static void label(lam_page *page, double x, double y, const char *anchor, const char *class,
                  const char *text) {
    lam_page_raw(page, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor, class);
    lam_page_escaped(page, text);
    lam_page_raw(page, "</text>\n");
}

static void draw_axes(lam_page *page, axis x, axis y, double top, double bottom, const char *x_name,
                      const char *y_name) {
    char text[32];
    for (double v = y.low; v <= y.high + y.step / 2; v += y.step) {
        double at = place(y, v, bottom, top);
        snprintf(text, sizeof text, "%.4g", fabs(v) < y.step * 1e-6 ? 0 : v);
        lam_page_raw(page, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT,
                     WIDTH - RIGHT, at, at);
        label(page, LEFT - 6, at + 4, "end", "soft", text);
    }
    for (double v = x.low; v <= x.high + x.step / 2; v += x.step) {
        snprintf(text, sizeof text, "%.4g", fabs(v) < x.step * 1e-6 ? 0 : v);
        label(page, place(x, v, LEFT, WIDTH - RIGHT), bottom + 16, "middle", "soft", text);
    }
    label(page, (LEFT + WIDTH - RIGHT) / 2, bottom + 34, "middle", "", x_name);
    lam_page_raw(page, "<text transform=\"translate(14 %.1f) rotate(-90)\" text-anchor=\"middle\">",
                 (top + bottom) / 2);
    lam_page_escaped(page, y_name);
    lam_page_raw(page, "</text>\n");
}

static void mark(lam_page *page, int kind, double x, double y, double r, const char *colour) {
    switch (kind % MARKS) {
    case 0:
        lam_page_raw(page, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"%s\">", x, y, r, colour);
        break;
    case 1:
        lam_page_raw(page, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\">", x - r,
                     y - r, 2 * r, 2 * r, colour);
        break;
    case 2:
        lam_page_raw(page, "<path d=\"M%.1f %.1fl%.1f %.1fh%.1fz\" fill=\"%s\">", x, y - 1.2 * r, 1.2 * r,
                     2.1 * r, -2.4 * r, colour);
        break;
    case 3:
        lam_page_raw(page, "<path d=\"M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz\" fill=\"%s\">", x,
                     y - 1.4 * r, 1.4 * r, 1.4 * r, -1.4 * r, 1.4 * r, -1.4 * r, -1.4 * r, colour);
        break;
    case 4:
        lam_page_raw(
            page,
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"none\" stroke-width=\"2\" stroke=\"%s\">", x,
            y, r, colour);
        break;
    default:
        lam_page_raw(
            page,
            "<path d=\"M%.1f %.1fl%.1f %.1fm0 %.1fl%.1f %.1f\" stroke-width=\"2.2\" stroke=\"%s\" fill=\"none\">",
            x - r, y - r, 2 * r, 2 * r, -2 * r, -2 * r, 2 * r, colour);
        break;
    }
}

static void end_mark(lam_page *page, int kind) {
    kind %= MARKS;
    lam_page_raw(page, kind == 0 || kind == 4 ? "</circle>\n" : kind == 1 ? "</rect>\n" : "</path>\n");
}

/* ---- bars ---- */

void lam_page_bars(lam_page *page, const lam_bars *b) {
    lam_writer *csv = lam_page_csv(page, b->title);
    lam_page_csv_text(page, csv, "label", ",");
    lam_page_csv_text(page, csv, b->axis, b->low ? ",low,high\n" : "\n");
    double least = 0, most = 0;
    for (int64_t i = 0; i < b->count; i++) {
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
    lam_page_csv_end(page, csv);
    if (isfinite(b->reference)) most = fmax(most, b->reference), least = fmin(least, b->reference);
    axis x = nice(least, most, 6);
    double left = 190, row = 34, top = 24, bottom = top + row * (double)b->count,
           zero = place(x, 0, left, WIDTH - 70);
    open_figure(page, b->title, bottom + 44);
    char text[64];
    for (double v = x.low; v <= x.high + x.step / 2; v += x.step) {
        double at = place(x, v, left, WIDTH - 70);
        snprintf(text, sizeof text, "%.4g", fabs(v) < x.step * 1e-6 ? 0 : v);
        lam_page_raw(page, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", at, at,
                     top, bottom);
        label(page, at, bottom + 16, "middle", "soft", text);
    }
    for (int64_t i = 0; i < b->count; i++) {
        double y = top + row * (double)i + 6, h = row - 12;
        label(page, left - 8, y + h / 2 + 4, "end", "", b->labels[i]);
        if (!isfinite(b->values[i])) {
            label(page, zero + 6, y + h / 2 + 4, "start", "soft", "no value");
            continue;
        }
        double at = place(x, b->values[i], left, WIDTH - 70), end = at;
        lam_page_raw(
            page,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" opacity=\".85\"/>\n",
            fmin(zero, at), y, fmax(fabs(at - zero), 0.5), h, colours[0]);
        if (b->low && isfinite(b->low[i]) && isfinite(b->high[i])) {
            double from = place(x, b->low[i], left, WIDTH - 70), to = place(x, b->high[i], left, WIDTH - 70);
            end = fmax(end, to);
            lam_page_raw(
                page,
                "<path d=\"M%.1f %.1fH%.1fM%.1f %.1fv10M%.1f %.1fv10\" stroke=\"var(--ink)\" stroke-width=\"1.5\" fill=\"none\"/>\n",
                from, y + h / 2, to, from, y + h / 2 - 5, to, y + h / 2 - 5);
        }
        snprintf(text, sizeof text, "%.3f", b->values[i]);
        label(page, end + 6, y + h / 2 + 4, "start", "", text);
    }
    if (isfinite(b->reference)) {
        double at = place(x, b->reference, left, WIDTH - 70);
        lam_page_raw(
            page,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"var(--ink)\" stroke-dasharray=\"5 4\"/>\n",
            at, at, top - 6, bottom);
        label(page, at, top - 10, "middle", "soft", b->reference_label);
    }
    label(page, (left + WIDTH - 70) / 2, bottom + 34, "middle", "", b->axis);
    lam_page_raw(page, "</svg></figure>\n");
}

/* ---- lines ---- */

void lam_page_lines(lam_page *page, const char *title, const char *x_axis, const char *y_axis, int count,
                    const lam_series *series) {
    lam_writer *csv = lam_page_csv(page, title);
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
    lam_page_csv_end(page, csv);
    axis x = nice(x0, x1, 6), y = nice(y0, y1, 5);
    double top = 30, bottom = 260;
    open_figure(page, title, bottom + 44);
    draw_axes(page, x, y, top, bottom, x_axis, y_axis);
    for (int s = 0; s < count; s++) {
        lam_page_raw(
            page,
            "<polyline fill=\"none\" stroke-width=\"1.8\" stroke=\"%s\" stroke-dasharray=\"%s\" points=\"",
            colours[s % 6], dashes[s % 6]);
        int64_t stride = series[s].count / POINTS + 1;
        for (int64_t i = 0; i < series[s].count; i += stride)
            if (isfinite(series[s].x[i]) && isfinite(series[s].y[i]))
                lam_page_raw(page, "%.1f,%.1f ", place(x, series[s].x[i], LEFT, WIDTH - RIGHT),
                             place(y, series[s].y[i], bottom, top));
        lam_page_raw(page, "\"/>\n");
        if (count == 1) break; /* the title names it */
        double at = LEFT + 150.0 * s;
        lam_page_raw(
            page,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"12\" y2=\"12\" stroke-width=\"2\" stroke=\"%s\" stroke-dasharray=\"%s\"/>\n",
            at, at + 26, colours[s % 6], dashes[s % 6]);
        label(page, at + 32, 16, "start", "", series[s].name);
    }
    lam_page_raw(page, "</svg></figure>\n");
}

/* ---- scatter ---- */

void lam_page_scatter(lam_page *page, const lam_scatter *s) {
    lam_writer *csv = lam_page_csv(page, s->title);
    static const char *const heads[] = {"label", "category", "x", "y"};
    for (int i = 0; i < 4; i++) lam_page_csv_text(page, csv, heads[i], i < 3 ? "," : "\n");
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    for (int64_t i = 0; i < s->count; i++) {
        lam_page_csv_text(page, csv, s->labels[i], ",");
        lam_page_csv_text(page, csv, s->categories ? s->categories[i] : "", ",");
        lam_page_csv_number(page, csv, s->x[i], ",");
        lam_page_csv_number(page, csv, s->y[i], "\n");
        if (!isfinite(s->x[i]) || !isfinite(s->y[i])) continue;
        x0 = fmin(x0, s->x[i]), x1 = fmax(x1, s->x[i]);
        y0 = fmin(y0, s->y[i]), y1 = fmax(y1, s->y[i]);
    }
    lam_page_csv_end(page, csv);
    axis x = nice(x0, x1, 6), y = nice(y0, y1, 6);
    const char **names = NULL; /* of the categories, by first appearance */
    int *ranks = NULL, categories = 0;
    lam_page_remember(page, lam_alloc_array((void **)&names, s->count, sizeof *names));
    lam_page_remember(page, lam_alloc_array((void **)&ranks, s->count, sizeof *ranks));
    for (int64_t i = 0; names && ranks && i < s->count; i++) {
        ranks[i] = -1;
        if (!s->categories || !*s->categories[i]) continue;
        for (ranks[i] = 0; ranks[i] < categories && strcmp(names[ranks[i]], s->categories[i]) != 0;)
            ranks[i]++;
        if (ranks[i] == categories) names[categories++] = s->categories[i];
    }
    int shown = categories < LEGEND ? categories : LEGEND, lines = (shown + 3) / 4;
    double top = 14 + 20.0 * lines, bottom = top + 450;
    open_figure(page, s->title, bottom + 44);
    draw_axes(page, x, y, top, bottom, s->x_axis, s->y_axis);
    for (int c = 0; c < shown; c++) {
        double at = LEFT + 6 + 168.0 * (c % 4), line = 10 + 20.0 * (c / 4);
        mark(page, c / 6 + c, at, line, 4.4, colours[c % 6]);
        end_mark(page, c / 6 + c);
        label(page, at + 10, line + 4, "start", "", names[c]);
    }
    for (int64_t i = 0; names && ranks && i < s->count; i++) {
        if (!isfinite(s->x[i]) || !isfinite(s->y[i])) continue; /* the CSV has it */
        double px = place(x, s->x[i], LEFT, WIDTH - RIGHT), py = place(y, s->y[i], bottom, top);
        bool plain = ranks[i] < 0;
        int kind = plain ? 0 : ranks[i] / 6 + ranks[i];
        mark(page, kind, px, py, plain ? 2.2 : 4.4, plain ? "var(--soft)" : colours[ranks[i] % 6]);
        lam_page_raw(page, "<title>");
        lam_page_escaped(page, s->labels[i]);
        if (!plain) {
            lam_page_raw(page, " (");
            lam_page_escaped(page, s->categories[i]);
            lam_page_raw(page, ")");
        }
        lam_page_raw(page, "</title>");
        end_mark(page, kind);
        bool room = !plain && s->count <= 120; /* a name over another tells nothing */
        for (int64_t j = 0; j < s->count && room; j++)
            room = j == i || (j > i && ranks[j] < 0) || fabs(place(y, s->y[j], bottom, top) - py) > 9 ||
                   fabs(place(x, s->x[j], LEFT, WIDTH - RIGHT) - px) > 44;
        if (room) label(page, px + 6, py + 3, "start", "small", s->labels[i]);
    }
    lam_free(names);
    lam_free(ranks);
    lam_page_raw(page, "</svg></figure>\n");
}

/* ---- heat map ---- */

void lam_page_heat(lam_page *page, const char *title, const char *row_axis, const char *column_axis,
                   int64_t count, const char *const *names, const double *values) {
    lam_writer *csv = lam_page_csv(page, title);
    lam_page_csv_text(page, csv, row_axis, "");
    for (int64_t c = 0; c < count; c++) {
        lam_page_csv_text(page, csv, "", ",");
        lam_page_csv_text(page, csv, names[c], "");
    }
    lam_page_csv_text(page, csv, "", "\n");
    double left = 190, cell = fmin(44.0, (WIDTH - left - 20) / (double)count), top = 30,
           bottom = top + cell * (double)count;
    open_figure(page, title, bottom + 150);
    for (int64_t r = 0; r < count; r++) {
        lam_page_csv_text(page, csv, names[r], "");
        label(page, left - 8, top + cell * ((double)r + 0.6), "end", "", names[r]);
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
            if (cell >= 30 && isfinite(v)) label(page, px + cell / 2, py + cell / 2 + 4, "middle", "", text);
        }
        lam_page_csv_text(page, csv, "", "\n");
    }
    lam_page_csv_end(page, csv);
    for (int64_t c = 0; c < count; c++) {
        double px = left + cell * ((double)c + 0.5);
        lam_page_raw(page, "<text transform=\"translate(%.1f %.1f) rotate(-55)\" text-anchor=\"end\">", px,
                     bottom + 14);
        lam_page_escaped(page, names[c]);
        lam_page_raw(page, "</text>\n");
    }
    label(page, left, 16, "start", "soft", row_axis);
    label(page, WIDTH - 20, 16, "end", "soft", column_axis);
    lam_page_raw(page, "</svg></figure>\n");
}
