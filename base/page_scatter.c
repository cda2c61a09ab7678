/* Scatter plots: categories differ by mark and colour, names stand where there is room. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/memory.h"
#include "base/page.h"
#include "base/page_parts.h"

#define MARKS 12
#define LEGEND 40

/* ---- marks ---- */

/* Twelve marks that differ without colour; closed ones are filled or hollow. */
static void mark(lam_page *page, int kind, double x, double y, double r, const char *colour) {
    static const struct {
        char shape; /* circle, square, triangle, diamond, x, plus, v: triangle upside down */
        bool hollow;
    } kinds[MARKS] = {{'c', false}, {'s', false}, {'t', false}, {'d', false}, {'c', true},  {'x', true},
                      {'s', true},  {'t', true},  {'d', true},  {'p', true},  {'v', false}, {'v', true}};
    bool hollow = kinds[kind % MARKS].hollow;
    double up = kinds[kind % MARKS].shape == 'v' ? -1 : 1;
    lam_page_raw(page, "<path d=\"");
    switch (kinds[kind % MARKS].shape) {
    case 'c':
        lam_page_raw(page, "M%.1f %.1fa%.1f %.1f 0 1 0 %.1f 0a%.1f %.1f 0 1 0 %.1f 0z", x - r, y, r, r, 2 * r,
                     r, r, -2 * r);
        break;
    case 's': lam_page_raw(page, "M%.1f %.1fh%.1fv%.1fh%.1fz", x - r, y - r, 2 * r, 2 * r, -2 * r); break;
    case 'd':
        lam_page_raw(page, "M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz", x, y - 1.4 * r, 1.4 * r, 1.4 * r,
                     -1.4 * r, 1.4 * r, -1.4 * r, -1.4 * r);
        break;
    case 'x':
        lam_page_raw(page, "M%.1f %.1fl%.1f %.1fm0 %.1fl%.1f %.1f", x - r, y - r, 2 * r, 2 * r, -2 * r,
                     -2 * r, 2 * r);
        break;
    case 'p':
        lam_page_raw(page, "M%.1f %.1fh%.1fm%.1f %.1fv%.1f", x - 1.2 * r, y, 2.4 * r, -1.2 * r, -1.2 * r,
                     2.4 * r);
        break;
    default:
        lam_page_raw(page, "M%.1f %.1fl%.1f %.1fh%.1fz", x, y - 1.2 * r * up, 1.2 * r, 2.1 * r * up,
                     -2.4 * r);
        break;
    }
    if (hollow)
        lam_page_raw(page, "\" fill=\"none\" stroke-width=\"1.8\" stroke=\"%s\">", colour);
    else
        lam_page_raw(page, "\" fill=\"%s\">", colour);
}

static void end_mark(lam_page *page) { lam_page_raw(page, "</path>\n"); }

/* Of the category that appeared as number `rank`: marks first, then the same marks in other colours. */
static const char *colour_of(int rank) { return lam_page_colours[(rank + rank / MARKS) % 6]; }

/* ---- names ---- */

#define NAMES 80 /* more tell nothing */

typedef struct box {
    double left, top, right, bottom;
} box;

/* A name and how it is set against its place. */
typedef struct sign {
    box box;
    double x;
    const char *anchor;
} sign;

static bool overlap(box a, box b) {
    return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

/* A place beside the mark at (x, y) that covers no name and no mark with a category; false where there is none. */
static bool find_room(double x, double y, double width, box frame, const box *taken, int64_t count,
                      sign *out) {
    const sign places[] = {{{x + 6, y - 6, x + 6 + width, y + 5}, x + 6, "start"},
                           {{x - 6 - width, y - 6, x - 6, y + 5}, x - 6, "end"},
                           {{x - width / 2, y - 18, x + width / 2, y - 7}, x, "middle"},
                           {{x - width / 2, y + 7, x + width / 2, y + 18}, x, "middle"}};
    for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
        box b = places[k].box;
        bool room =
            b.left >= frame.left && b.right <= frame.right && b.top >= frame.top && b.bottom <= frame.bottom;
        for (int64_t i = 0; i < count && room; i++) room = !overlap(b, taken[i]);
        if (!room) continue;
        *out = places[k];
        return true;
    }
    return false;
}

/* at: the marks' places, NaN where none is drawn. */
static void write_names(lam_page *page, const lam_scatter *s, const int *ranks, const double *at, box frame) {
    box *taken;
    int64_t count = 0, names = 0;
    lam_status status = lam_alloc_array((void **)&taken, s->count + NAMES, sizeof *taken);
    lam_page_remember(page, status);
    if (status != LAM_OK) return;
    for (int64_t i = 0; i < s->count; i++)
        if (ranks[i] >= 0 && !isnan(at[2 * i]))
            taken[count++] = (box){at[2 * i] - 4, at[2 * i + 1] - 4, at[2 * i] + 4, at[2 * i + 1] + 4};
    for (int64_t i = 0; i < s->count && names < NAMES; i++) {
        if (ranks[i] < 0 || isnan(at[2 * i])) continue;
        double width = 6.4 * (double)strlen(s->labels[i]);
        sign name;
        if (!find_room(at[2 * i], at[2 * i + 1], width, frame, taken, count, &name)) continue;
        lam_page_label(page, name.x, name.box.bottom - 2, name.anchor, "small", s->labels[i]);
        taken[count] = name.box;
        count++;
        names++;
    }
    lam_free(taken);
}

/* ---- scatter ---- */

/* place [2]: where it is drawn; NaN where it is not (the CSV has it). */
static void draw_point(lam_page *page, const lam_scatter *s, int64_t i, int rank, lam_axis x, lam_axis y,
                       double top, double bottom, double *place) {
    place[0] = (double)NAN;
    if (!isfinite(s->x[i]) || !isfinite(s->y[i])) return;
    place[0] = lam_page_place(x, s->x[i], LAM_PAGE_LEFT, LAM_PAGE_WIDTH - LAM_PAGE_RIGHT);
    place[1] = lam_page_place(y, s->y[i], bottom, top);
    bool plain = rank < 0;
    mark(page, plain ? 0 : rank, place[0], place[1], plain ? 1.8 : 4.2,
         plain ? "var(--soft)" : colour_of(rank));
    lam_page_raw(page, "<title>");
    lam_page_escaped(page, s->labels[i]);
    if (!plain) {
        lam_page_raw(page, " (");
        lam_page_escaped(page, s->categories[i]);
        lam_page_raw(page, ")");
    }
    lam_page_raw(page, "</title>");
    end_mark(page);
}

void lam_page_scatter(lam_page *page, const lam_scatter *s) {
    lam_page_file *csv = lam_page_csv(page, s->title);
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
    lam_axis x = lam_page_axis(x0, x1, 6), y = lam_page_axis(y0, y1, 6);
    const char **names = NULL; /* of the categories, by first appearance */
    int *ranks = NULL, categories = 0;
    double *at = NULL; /* [count, 2] where the marks are drawn */
    lam_page_remember(page, lam_alloc_array((void **)&at, 2 * s->count, sizeof *at));
    lam_page_remember(page, lam_alloc_array((void **)&names, s->count, sizeof *names));
    lam_page_remember(page, lam_alloc_array((void **)&ranks, s->count, sizeof *ranks));
    for (int64_t i = 0; names && ranks && i < s->count; i++) {
        ranks[i] = -1;
        if (!s->categories || !*s->categories[i]) continue;
        for (ranks[i] = 0; ranks[i] < categories && strcmp(names[ranks[i]], s->categories[i]) != 0;)
            ranks[i]++;
        if (ranks[i] == categories) names[categories++] = s->categories[i];
    }
    int shown = categories < LEGEND ? categories : LEGEND, across = shown > 12 ? 3 : 2,
        lines = (shown + across - 1) / across;
    double top = 14 + 20.0 * lines, bottom = top + 450;
    lam_page_open_figure(page, s->title, LAM_PAGE_WIDTH, bottom + 44, false);
    lam_page_axes(page, x, y, top, bottom, s->x_axis, s->y_axis);
    for (int c = 0; c < shown; c++) {
        double left = LAM_PAGE_LEFT + 6 + 176.0 * 3 / across * (c % across), line = 10 + 20.0 * (c / across);
        mark(page, c, left, line, 4.4, colour_of(c));
        end_mark(page);
        lam_page_label_within(page, left + 10, line + 4, 176.0 * 3 / across - 28, "start", "", names[c]);
    }
    for (int marked = 0; marked < 2; marked++) /* the grey ones lie below */
        for (int64_t i = 0; names && ranks && at && i < s->count; i++)
            if ((ranks[i] >= 0) == marked) draw_point(page, s, i, ranks[i], x, y, top, bottom, at + 2 * i);
    box frame = {LAM_PAGE_LEFT, top, LAM_PAGE_WIDTH - 2, bottom};
    if (names && ranks && at && (s->named || s->count <= 120)) write_names(page, s, ranks, at, frame);
    for (int g = 0; g < s->guides; g++) {
        if (!(s->guide[g].value >= y.low && s->guide[g].value <= y.high)) continue;
        double line = lam_page_place(y, s->guide[g].value, bottom, top);
        lam_page_raw(
            page,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"var(--ink)\" stroke-dasharray=\"5 4\"/>\n",
            LAM_PAGE_LEFT, LAM_PAGE_WIDTH - LAM_PAGE_RIGHT, line, line);
        lam_page_label(page, LAM_PAGE_WIDTH - LAM_PAGE_RIGHT, line - 5, "end", "soft", s->guide[g].label);
    }
    lam_free(at);
    lam_free(names);
    lam_free(ranks);
    lam_page_raw(page, "</svg></figure>\n");
}
