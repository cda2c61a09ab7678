/* The memory and time tables of a run, from the records without a step in metrics.jsonl. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "eval/report_parts.h"

static lam_status memory_table(lam_page *page, const lam_json *memory) {
    int64_t rows = (int64_t)lam_json_size(memory);
    char(*text)[32] = NULL;
    const char **cells = NULL;
    double total = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&text, rows + 1, sizeof *text), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&cells, 2 * (rows + 1), sizeof *cells), done);
    const char *owner = NULL;
    for (int64_t r = 0; r <= rows; r++) {
        owner = lam_json_key_after(memory, owner);
        double bytes = owner ? lam_json_float(lam_json_get(memory, owner), 0) : total;
        total += bytes;
        snprintf(text[r], sizeof text[r], "%.1f", bytes / 1048576);
        cells[2 * r] = owner ? owner : "total";
        cells[2 * r + 1] = text[r];
    }
    lam_page_table(page, "Memory by owner", 2, (const char *[]){"owner", "MiB"}, rows + 1, cells);
done:
    lam_free(text);
    lam_free(cells);
    return status;
}

typedef struct op_row {
    const char *op;
    const char *pass;
    char calls[24], seconds[24], share[24], rate[24];
    double time;
} op_row;

static int slowest_first(const void *a, const void *b) {
    double x = ((const op_row *)a)->time, y = ((const op_row *)b)->time;
    return x < y ? 1 : x > y ? -1 : 0;
}

static lam_status time_table(lam_page *page, const lam_json *list, const char *title) {
    enum { COLUMNS = 6 };
    int64_t rows = (int64_t)lam_json_size(list);
    op_row *ops = NULL;
    const char **cells = NULL;
    double total = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&ops, rows, sizeof *ops), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&cells, COLUMNS * rows, sizeof *cells), done);
    for (int64_t r = 0; r < rows; r++)
        total += lam_json_float(lam_json_get(lam_json_at(list, (size_t)r), "seconds"), 0);
    for (int64_t r = 0; r < rows; r++) {
        const lam_json *op = lam_json_at(list, (size_t)r);
        double seconds = lam_json_float(lam_json_get(op, "seconds"), 0),
               flops = lam_json_float(lam_json_get(op, "flops"), 0);
        ops[r].op = lam_json_text(lam_json_get(op, "op"), "");
        ops[r].pass = lam_json_bool(lam_json_get(op, "again"), false)      ? "again"
                      : lam_json_bool(lam_json_get(op, "backward"), false) ? "backward"
                                                                           : "forward";
        ops[r].time = seconds;
        snprintf(ops[r].calls, sizeof ops[r].calls, "%lld",
                 (long long)lam_json_int(lam_json_get(op, "calls"), 0));
        snprintf(ops[r].seconds, sizeof ops[r].seconds, "%.2f", seconds);
        snprintf(ops[r].share, sizeof ops[r].share, "%.1f", total > 0 ? 100 * seconds / total : 0.0);
        if (flops > 0 && seconds > 0)
            snprintf(ops[r].rate, sizeof ops[r].rate, "%.1f", flops / seconds / 1e9);
    }
    qsort(ops, (size_t)rows, sizeof *ops, slowest_first);
    for (int64_t r = 0; r < rows; r++) {
        const char *row[COLUMNS] = {ops[r].op,      ops[r].pass,  ops[r].calls,
                                    ops[r].seconds, ops[r].share, ops[r].rate};
        for (int c = 0; c < COLUMNS; c++) cells[COLUMNS * r + c] = row[c];
    }
    lam_page_table(page, title, COLUMNS,
                   (const char *[]){"operation", "pass", "calls", "seconds", "% of all", "GFLOP/s"}, rows,
                   cells);
done:
    lam_free(ops);
    lam_free(cells);
    return status;
}

lam_status lam_report_record(lam_page *page, const char *text, const char *path, int64_t first,
                             int64_t last) {
    lam_json *record;
    char title[96] = "Time by operation";
    LAM_TRY(lam_json_parse(&record, text, strlen(text), path));
    const lam_json *memory = lam_json_get(lam_json_get(record, "run"), "memory"),
                   *times = lam_json_get(record, "op_times");
    lam_status status = LAM_OK;
    if (lam_json_is_object(memory)) status = memory_table(page, memory);
    if (last > 0)
        snprintf(title, sizeof title, "Time by operation, steps %" PRId64 " to %" PRId64, first, last);
    if (status == LAM_OK && lam_json_is_array(times)) status = time_table(page, times, title);
    lam_json_free(record);
    return status;
}
