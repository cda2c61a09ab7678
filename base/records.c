#include "base/records.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/table.h"

static lam_status cell_of(lam_arena *arena, const lam_json *value, const char **cell) {
    char text[64] = "", *copy;
    if (lam_json_is_text(value)) {
        *cell = lam_json_text(value, "");
        return LAM_OK;
    }
    if (lam_json_is_integer(value))
        snprintf(text, sizeof text, "%" PRId64, lam_json_int(value, 0));
    else if (lam_json_is_number(value))
        snprintf(text, sizeof text, "%.17g", lam_json_float(value, 0));
    else if (lam_json_bool(value, true) == lam_json_bool(value, false))
        snprintf(text, sizeof text, "%d", lam_json_bool(value, false));
    LAM_TRY(lam_arena_text(arena, &copy, text, strlen(text)));
    *cell = copy;
    return LAM_OK;
}

lam_status lam_records_write(const lam_json *records, const char *folder, const char *name) {
    int64_t count = (int64_t)lam_json_size(records);
    LAM_REQUIRE(count > 0, LAM_ERROR_INTERNAL, "%s: no record to write", name);
    char *path = NULL;
    const char **cells = NULL;
    lam_table *table = NULL;
    lam_arena arena = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_path_join(&path, folder, name), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&cells, count, sizeof *cells), done);
    LAM_TRY_GOTO(lam_table_create(&table, count), done);
    const lam_json *first = lam_json_at(records, 0);
    for (const char *key = NULL; (key = lam_json_key_after(first, key));) {
        for (int64_t r = 0; r < count; r++)
            LAM_TRY_GOTO(cell_of(&arena, lam_json_get(lam_json_at(records, (size_t)r), key), &cells[r]),
                         done);
        LAM_TRY_GOTO(lam_table_add(table, key, cells), done);
    }
    status = lam_table_write(table, path);
done:
    lam_free(path);
    lam_free(cells);
    lam_table_free(table);
    lam_arena_free(&arena);
    return status;
}

lam_status lam_records_print(const lam_json *records, bool indented) {
    char *text;
    LAM_TRY(lam_json_dump(records, indented, &text));
    printf("%s\n", text);
    lam_free(text);
    return LAM_OK;
}
