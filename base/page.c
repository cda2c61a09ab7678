#include "base/page.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/page_parts.h"

/* Bytes that grow. */
typedef struct text_buffer {
    char *text;
    size_t length, size;
} text_buffer;

/* Held until the page is written, so that a page that fails leaves no file. */
struct lam_page_file {
    char *name;
    text_buffer content;
    bool before; /* another one of its name is there already */
    struct lam_page_file *next;
};

struct lam_page {
    char *data_folder;
    text_buffer html;
    lam_page_file *first, *last;
    int files;
    lam_status status;
    char message[1024];
};

static const char style[] =
    ":root{color-scheme:light dark;--ink:#1d2329;--soft:#5b6670;--line:#d5dade;--back:#fdfdfc;--panel:#fff;--a:#1f6fb4;--b:#c4561a;--c:#2b8a57;--d:#8a4fb0;"
    "--e:#9a7b00;--f:#00838f}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#a2adb7;--line:#39424a;--back:#14181b;--panel:#1b2024;--a:#6db3f0;--b:#f0935a;--c:#6fce9b;"
    "--d:#c79be6;--e:#e0c04a;--f:#5fd0da}}"
    "*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,-apple-system,Segoe UI,Roboto,sans-serif}"
    "main{max-width:62rem;margin:0 auto;padding:1.5rem 1rem 4rem}h1{font-size:1.7rem;line-height:1.2;margin:.4em 0}h2{font-size:1.2rem;margin:2.2em 0 .5em;"
    "border-top:1px solid var(--line);padding-top:1em}p{max-width:46rem}.verdict{border-left:4px solid var(--a);padding:.5em 1em;background:var(--panel);"
    "font-size:1.05rem}figure{margin:1.2em 0;background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:.8em;overflow-x:auto}"
    "figcaption{font-weight:600;margin-bottom:.4em}figure svg,figure img{width:100%;height:auto;display:block}figure img{image-rendering:pixelated}"
    "figure svg{max-width:46rem;margin:0 auto}figure.natural svg{max-width:none}"
    "@media screen and (min-width:40.01rem){figure.wide{position:relative;left:50%;transform:translateX(-50%);width:calc(100vw - 3rem);max-width:82rem}}"
    "svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg text.small{fill:var(--soft);font-size:9px}svg text.tiny{font-size:8.5px}svg .soft{fill:var(--soft)}svg .value{paint-order:stroke;stroke:var(--panel);stroke-width:4px;stroke-linejoin:round}svg .grid{stroke:var(--line);stroke-width:1}svg .axis{stroke:var(--soft)}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}th,td{padding:.25em .8em .25em 0;border-bottom:1px solid var(--line);"
    "text-align:left}td.n,th.n{text-align:right;white-space:nowrap}small{color:var(--soft)}"
    "@media screen and (max-width:40rem){main{padding:1rem .7rem 3rem}figure{padding:.6em}figure:not(.natural) svg text{font-size:14px}"
    "figure:not(.natural) svg text.small{font-size:11px}table{font-size:.8rem}th,td{padding-right:.5em}}@media print{body{background:#fff;color:#000}figure{break-inside:avoid}}";

void lam_page_remember(lam_page *page, lam_status status) {
    if (page->status != LAM_OK || status == LAM_OK) return;
    page->status = status;
    snprintf(page->message, sizeof page->message, "%s", lam_last_error());
}

static void append(lam_page *page, text_buffer *to, const char *text, size_t length) {
    if (page->status != LAM_OK) return;
    if (to->length + length + 1 > to->size) {
        size_t grown = (to->length + length + 1) * 2;
        lam_page_remember(page, lam_grow((void **)&to->text, to->size, grown));
        if (page->status != LAM_OK) return;
        to->size = grown;
    }
    memcpy(to->text + to->length, text, length);
    to->length += length;
    to->text[to->length] = 0;
}

static void put(lam_page *page, const char *text, size_t length) { append(page, &page->html, text, length); }

void lam_page_raw(lam_page *page, const char *format, ...) {
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    put(page, text, length < 0 ? 0 : (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
}

void lam_page_escaped(lam_page *page, const char *text) {
    for (; *text; text++) {
        const char *entity = *text == '<'    ? "&lt;"
                             : *text == '>'  ? "&gt;"
                             : *text == '&'  ? "&amp;"
                             : *text == '"'  ? "&quot;"
                             : *text == '\'' ? "&#39;"
                                             : NULL;
        if (entity)
            put(page, entity, strlen(entity));
        else
            put(page, text, 1);
    }
}

lam_status lam_page_create(lam_page **out, const char *title, const char *data_folder) {
    *out = NULL;
    lam_page *page;
    LAM_TRY(lam_alloc((void **)&page, sizeof *page));
    lam_page_remember(page, lam_text_copy(&page->data_folder, data_folder));
    lam_page_raw(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>");
    lam_page_escaped(page, title);
    lam_page_raw(page, "</title><style>");
    put(page, style, sizeof style - 1);
    lam_page_raw(page, "</style></head><body><main>\n<h1>");
    lam_page_escaped(page, title);
    lam_page_raw(page, "</h1>\n");
    *out = page;
    return LAM_OK;
}

void lam_page_free(lam_page **page) {
    if (!*page) return;
    for (lam_page_file *file = (*page)->first, *next; file; file = next) {
        next = file->next;
        lam_free(file->name);
        lam_free(file->content.text);
        lam_free(file);
    }
    lam_free((*page)->html.text);
    lam_free((*page)->data_folder);
    lam_free(*page);
    *page = NULL;
}

/* The CSV files first: a page is there only with its numbers. `made`: the folder is new. */
static lam_status write_files(lam_page *page, const char *path, bool made) {
    if (page->first) LAM_TRY(lam_make_folders(page->data_folder));
    lam_status status = LAM_OK;
    lam_page_file *file = page->first;
    for (; file && status == LAM_OK; file = file->next) {
        char *name;
        LAM_TRY_GOTO(lam_path_join(&name, page->data_folder, file->name), done);
        file->before = lam_path_exists(name);
        status = lam_file_write(name, file->content.text ? file->content.text : "", file->content.length);
        lam_free(name);
    }
    if (status == LAM_OK) status = lam_file_write(path, page->html.text, page->html.length);
done:
    for (lam_page_file *written = page->first; status != LAM_OK && written != file; written = written->next) {
        char name[4096];
        int length = snprintf(name, sizeof name, "%s/%s", page->data_folder, written->name);
        if (!written->before && length > 0 && (size_t)length < sizeof name) unlink(name);
    }
    if (status != LAM_OK && made) rmdir(page->data_folder);
    return status;
}

lam_status lam_page_write(lam_page **out, const char *path) {
    lam_page *page = *out;
    lam_page_raw(page, "</main></body></html>\n");
    lam_status status = page->status;
    if (status != LAM_OK)
        lam_fail(status, __FILE__, __LINE__, "%s", page->message);
    else
        status = write_files(page, path, !lam_path_exists(page->data_folder));
    lam_page_free(out);
    return status;
}

void lam_page_heading(lam_page *page, const char *text) {
    lam_page_raw(page, "<h2>");
    lam_page_escaped(page, text);
    lam_page_raw(page, "</h2>\n");
}

static void paragraph(lam_page *page, const char *open, const char *format, va_list arguments) {
    char text[4096];
    vsnprintf(text, sizeof text, format, arguments);
    lam_page_raw(page, "%s", open);
    lam_page_escaped(page, text);
    lam_page_raw(page, "</p>\n");
}

void lam_page_paragraph(lam_page *page, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    paragraph(page, "<p>", format, arguments);
    va_end(arguments);
}

void lam_page_verdict(lam_page *page, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    paragraph(page, "<p class=\"verdict\">", format, arguments);
    va_end(arguments);
}

/* ---- the same numbers in CSV ---- */

lam_page_file *lam_page_csv(lam_page *page, const char *title) {
    if (page->status != LAM_OK) return NULL;
    char name[96];
    size_t n = 0;
    for (const char *p = title; *p && n < sizeof name - 1; p++)
        name[n++] = isalnum((unsigned char)*p) ? (char)tolower((unsigned char)*p) : '_';
    name[n] = 0;
    lam_page_file *file;
    lam_page_remember(page, lam_alloc((void **)&file, sizeof *file));
    if (page->status != LAM_OK) return NULL;
    *(page->last ? &page->last->next : &page->first) = file;
    page->last = file;
    lam_page_remember(page, lam_text_format(&file->name, "%02d_%s.csv", ++page->files, name));
    return page->status == LAM_OK ? file : NULL;
}

void lam_page_csv_text(lam_page *page, lam_page_file *csv, const char *text, const char *after) {
    if (!csv) return;
    bool quote = strpbrk(text, ",\"\n\r") != NULL;
    if (quote) append(page, &csv->content, "\"", 1);
    for (; quote && *text; text++)
        append(page, &csv->content, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
    append(page, &csv->content, quote ? "\"" : text, quote ? 1 : strlen(text));
    append(page, &csv->content, after, strlen(after));
}

void lam_page_csv_number(lam_page *page, lam_page_file *csv, double value, const char *after) {
    char text[40] = "";
    if (!isnan(value)) snprintf(text, sizeof text, "%.17g", value);
    lam_page_csv_text(page, csv, text, after);
}

static bool is_number(const char *text) {
    char *end;
    if (!*text) return false;
    strtod(text, &end);
    return !*end || !strcmp(end, " %") || !strcmp(end, " s");
}

/* %.17g is for programs. */
static const char *shortened(const char *cell, char text[32]) {
    char *end;
    double value = strtod(cell, &end);
    if (strlen(cell) <= 8 || *end || !isfinite(value) || !strpbrk(cell, ".e")) return cell;
    snprintf(text, 32, "%.4g", value);
    return text;
}

void lam_page_table(lam_page *page, const char *title, int columns, const char *const *names, int64_t rows,
                    const char *const *cells) {
    lam_page_file *csv = lam_page_csv(page, title);
    lam_page_raw(page, "<figure><figcaption>");
    lam_page_escaped(page, title);
    lam_page_raw(page, "</figcaption><table><thead><tr>");
    for (int c = 0; c < columns; c++) {
        lam_page_raw(page, rows && is_number(cells[c]) ? "<th class=\"n\">" : "<th>");
        lam_page_escaped(page, names[c]);
        lam_page_raw(page, "</th>");
        lam_page_csv_text(page, csv, names[c], c + 1 < columns ? "," : "\n");
    }
    lam_page_raw(page, "</tr></thead><tbody>\n");
    for (int64_t r = 0; r < rows; r++) {
        lam_page_raw(page, "<tr>");
        for (int c = 0; c < columns; c++) {
            const char *cell = cells[r * columns + c];
            char text[32];
            lam_page_raw(page, is_number(cell) ? "<td class=\"n\">" : "<td>");
            lam_page_escaped(page, shortened(cell, text));
            lam_page_raw(page, "</td>");
            lam_page_csv_text(page, csv, cell, c + 1 < columns ? "," : "\n");
        }
        lam_page_raw(page, "</tr>\n");
    }
    lam_page_raw(page, "</tbody></table></figure>\n");
}

void lam_page_png(lam_page *page, const char *caption, const void *bytes, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = bytes;
    lam_page_raw(page, "<figure><figcaption>");
    lam_page_escaped(page, caption);
    lam_page_raw(page, "</figcaption><img alt=\"");
    lam_page_escaped(page, caption);
    lam_page_raw(page, "\" src=\"data:image/png;base64,");
    for (size_t i = 0; i < size; i += 3) {
        uint32_t word = (uint32_t)p[i] << 16 | (uint32_t)(i + 1 < size ? p[i + 1] : 0) << 8 |
                        (uint32_t)(i + 2 < size ? p[i + 2] : 0);
        char four[4] = {digits[word >> 18 & 63u], digits[word >> 12 & 63u],
                        i + 1 < size ? digits[word >> 6 & 63u] : '=',
                        i + 2 < size ? digits[word & 63u] : '='};
        put(page, four, 4);
    }
    lam_page_raw(page, "\"></figure>\n");
}
