#include "train/bench_compare.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/threads.h"

/* ---- reading ---- */

/* What differs between the record and the run to come, as "threads 2 (here 1), ". */
typedef struct differences {
    char text[400];
    size_t used;
} differences;

__attribute__((format(printf, 2, 3))) static void add_difference(differences *d, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int written = vsnprintf(d->text + d->used, sizeof d->text - d->used, format, list);
    va_end(list);
    d->used += written > 0 ? (size_t)written : 0;
    if (d->used >= sizeof d->text) d->used = sizeof d->text - 1;
}

static void compare_text(differences *d, const lam_json *record, const char *key, const char *here) {
    const char *there = lam_json_text(lam_json_get(record, key), "unknown");
    if (strcmp(there, here) != 0) add_difference(d, "%s %.60s (here %s), ", key, there, here);
}

static void compare_float(differences *d, const lam_json *record, const char *key, double here) {
    double there = lam_json_float(lam_json_get(record, key), NAN);
    if (isnan(there))
        add_difference(d, "%s unknown (here %g), ", key, here);
    else if (there != here)
        add_difference(d, "%s %g (here %g), ", key, there, here);
}

static lam_status check(const lam_json *record, const char *path, const lam_bench_settings *s) {
    const lam_json *operations = lam_json_get(record, "operations");
    LAM_REQUIRE(!strcmp(lam_json_text(lam_json_get(record, "bench"), ""), "step") &&
                    lam_json_is_text(lam_json_get(record, "model")) &&
                    lam_json_is_text(lam_json_get(record, "precision")) &&
                    lam_json_is_number(lam_json_get(record, "step_ms")) && lam_json_is_array(operations) &&
                    lam_json_size(operations) > 0,
                LAM_ERROR_FORMAT, "%s: no result of bench step; write one with --save", path);
    differences d = {{0}, 0};
    compare_text(&d, record, "model", s->model);
    compare_float(&d, record, "batch", (double)s->batch);
    compare_text(&d, record, "precision", s->bf16 ? "bf16" : "f32");
    compare_text(&d, record, "recompute", s->recompute);
    compare_float(&d, record, "drop_path", s->drop_path);
    compare_text(&d, record, "device", lam_backend_name(s->backend));
    compare_float(&d, record, "threads", lam_threads());
    LAM_REQUIRE(!d.used, LAM_ERROR_USAGE,
                "bench step: --against %s is of %.*s: only the same can be compared", path, (int)(d.used - 2),
                d.text);
    return LAM_OK;
}

lam_status lam_bench_read(const char *path, const lam_bench_settings *settings, lam_json **record) {
    char *bytes = NULL;
    size_t size;
    LAM_TRY(lam_file_read(path, &bytes, &size));
    lam_status status = lam_json_parse(record, bytes, size, path);
    lam_free(bytes);
    LAM_TRY(status);
    status = check(*record, path, settings);
    if (status == LAM_OK) return LAM_OK;
    lam_json_free(*record);
    *record = NULL;
    return status;
}

/* ---- comparing ---- */

static double number(const lam_json *object, const char *key) {
    return lam_json_float(lam_json_get(object, key), NAN);
}

static bool same(const lam_json *a, const lam_json *b, const char *key) {
    const lam_json *x = lam_json_get(a, key), *y = lam_json_get(b, key);
    if (lam_json_is_text(x) && lam_json_is_text(y))
        return !strcmp(lam_json_text(x, ""), lam_json_text(y, ""));
    return lam_json_float(x, -1) == lam_json_float(y, -1) && lam_json_is_text(x) == lam_json_is_text(y);
}

static void set_pair(lam_json *object, double before, double after, double ratio) {
    lam_json_set_float(object, "before", before);
    lam_json_set_float(object, "after", after);
    lam_json_set_float(object, "ratio", ratio);
}

static const lam_json *find_operation(const lam_json *list, const char *op, const char *pass) {
    for (size_t i = 0; i < lam_json_size(list); i++) {
        const lam_json *one = lam_json_at(list, i);
        if (!strcmp(lam_json_text(lam_json_get(one, "op"), ""), op) &&
            !strcmp(lam_json_text(lam_json_get(one, "pass"), ""), pass))
            return one;
    }
    return NULL;
}

/* Those of `first`, beside the same of `second`; with `missing` those alone that `second` lacks. */
static void compare_operations(lam_json *list, const lam_json *first, const lam_json *second, bool missing) {
    for (size_t i = 0; i < lam_json_size(first); i++) {
        const lam_json *one = lam_json_at(first, i);
        const char *op = lam_json_text(lam_json_get(one, "op"), ""),
                   *pass = lam_json_text(lam_json_get(one, "pass"), "");
        const lam_json *other = find_operation(second, op, pass);
        if (missing && other) continue;
        double here = number(one, "ms"), there = number(other, "ms"), before = missing ? here : there,
               after = missing ? there : here;
        lam_json *row = lam_json_object();
        lam_json_set_text(row, "op", op);
        lam_json_set_text(row, "pass", pass);
        set_pair(row, before, after, before / after);
        lam_json_append(list, row);
    }
}

static void compare_number(lam_json *comparison, const char *name, const lam_json *before,
                           const lam_json *after, const char *key, bool less_is_faster) {
    double x = number(before, key), y = number(after, key);
    lam_json *pair = lam_json_object();
    set_pair(pair, x, y, less_is_faster ? x / y : y / x);
    lam_json_set(comparison, name, pair);
}

lam_json *lam_bench_compare(const char *before_name, const lam_json *before, const lam_json *after) {
    static const char *const circumstances[] = {"gpu", "cpu", "isa", "library", "version"};
    lam_json *comparison = lam_json_object(), *differs = lam_json_array(), *list = lam_json_array();
    lam_json_set_text(comparison, "before", before_name);
    for (size_t i = 0; i < sizeof circumstances / sizeof *circumstances; i++)
        if (!same(before, after, circumstances[i])) lam_json_append_text(differs, circumstances[i]);
    lam_json_set(comparison, "differs", differs);
    compare_number(comparison, "step", before, after, "step_ms", true);
    compare_number(comparison, "limit", before, after, "limit_gflops_per_s", false);
    compare_number(comparison, "memory", before, after, "memory_gb_per_s", false);
    const lam_json *old = lam_json_get(before, "operations"), *new = lam_json_get(after, "operations");
    compare_operations(list, new, old, false);
    compare_operations(list, old, new, true);
    lam_json_set(comparison, "operations", list);
    return comparison;
}

/* ---- printing ---- */

static void print_row(const char *name, const char *pass, const lam_json *pair) {
    const char *const keys[] = {"before", "after", "ratio"};
    char cells[3][24];
    for (int i = 0; i < 3; i++) {
        double value = number(pair, keys[i]);
        snprintf(cells[i], sizeof cells[i], isfinite(value) ? "%.2f" : "-", value);
    }
    printf("%-28s %-9s %12s %12s %8s\n", name, pass, cells[0], cells[1], cells[2]);
}

void lam_bench_print_comparison(const lam_json *comparison) {
    const lam_json *differs = lam_json_get(comparison, "differs"),
                   *operations = lam_json_get(comparison, "operations");
    printf("\n%-28s %-9s %12s %12s %8s   (before: %s)\n", "compared", "", "before", "after", "faster",
           lam_json_text(lam_json_get(comparison, "before"), ""));
    print_row("step, ms", "", lam_json_get(comparison, "step"));
    print_row("limit of products, GFLOP/s", "", lam_json_get(comparison, "limit"));
    print_row("limit of memory, GB/s", "", lam_json_get(comparison, "memory"));
    for (size_t i = 0; i < lam_json_size(operations); i++) {
        const lam_json *row = lam_json_at(operations, i);
        print_row(lam_json_text(lam_json_get(row, "op"), ""), lam_json_text(lam_json_get(row, "pass"), ""),
                  row);
    }
    for (size_t i = 0; i < lam_json_size(differs); i++)
        printf("%s%s%s", i ? ", " : "differs: ", lam_json_text(lam_json_at(differs, i), ""),
               i + 1 == lam_json_size(differs) ? "\n" : "");
}
