/* Any bytes as a table: parsed or refused; what is parsed and written is read again as the same. */
#include "base/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void require(int condition) {
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static char path[64] = "";
    static int runs = 0;
    lam_table *table = NULL, *again = NULL;
    if (path[0] == '\0') snprintf(path, sizeof path, "/tmp/lamella-fuzz-table-%ld.tsv", (long)getpid());
    if (lam_table_parse(&table, (const char *)bytes, size, "fuzz") != LAM_OK) return 0;
    int columns = lam_table_columns(table);
    int64_t rows = lam_table_rows(table);
    for (int column = 0; column < columns && column < 8; column++) {
        int64_t *codes = NULL, levels = 0;
        const char **names = NULL;
        require(lam_table_codes(table, column, &codes, &names, &levels) == LAM_OK);
        for (int64_t row = 0; row < rows; row++) {
            require(strcmp(names[codes[row]], lam_table_cell(table, row, column)) == 0);
        }
        lam_free(codes);
        lam_free(names);
        lam_table_is_numeric(table, column);
    }
    /* Files are slow: every 64th. */
    if (runs++ % 64 == 0) {
        require(lam_table_write(table, path) == LAM_OK);
        require(lam_table_read(&again, path) == LAM_OK);
        require(lam_table_rows(again) == rows && lam_table_columns(again) == columns);
        for (int column = 0; column < columns; column++) {
            require(strcmp(lam_table_name(again, column), lam_table_name(table, column)) == 0);
            for (int64_t row = 0; row < rows; row++) {
                require(strcmp(lam_table_cell(again, row, column), lam_table_cell(table, row, column)) == 0);
            }
        }
        lam_table_free(again);
        unlink(path);
    }
    lam_table_free(table);
    return 0;
}
