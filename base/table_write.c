#include <string.h>
#include <zlib.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/table.h"

enum { WRITE_BLOCK = 1 << 18 };

/* Text gathered into blocks; through zlib where the name says .gz. */
typedef struct sink {
    lam_writer *writer;
    char *block, *packed;
    size_t used;
    bool gzip;
    z_stream stream;
} sink;

static lam_status sink_flush(sink *s, bool last, const char *path) {
    if (!s->gzip) {
        LAM_TRY(lam_writer_append(s->writer, s->block, s->used));
        s->used = 0;
        return LAM_OK;
    }
    s->stream.next_in = (Bytef *)s->block;
    s->stream.avail_in = (uInt)s->used;
    s->used = 0;
    int code;
    do {
        s->stream.next_out = (Bytef *)s->packed;
        s->stream.avail_out = WRITE_BLOCK;
        code = deflate(&s->stream, last ? Z_FINISH : Z_NO_FLUSH);
        LAM_REQUIRE(code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR, LAM_ERROR_EXTERNAL,
                    "%s: zlib failed (%d)", path, code);
        LAM_TRY(lam_writer_append(s->writer, s->packed, WRITE_BLOCK - s->stream.avail_out));
    } while (s->stream.avail_out == 0);
    return LAM_OK;
}

static lam_status sink_put(sink *s, const char *text, size_t length, const char *path) {
    while (length > 0) {
        size_t part = WRITE_BLOCK - s->used;
        if (part > length) part = length;
        memcpy(s->block + s->used, text, part);
        s->used += part;
        text += part;
        length -= part;
        if (s->used == WRITE_BLOCK) LAM_TRY(sink_flush(s, false, path));
    }
    return LAM_OK;
}

/* `guarded`: quoted even where nothing inside asks for it. */
static lam_status put_cell(sink *s, const char *text, bool guarded, const char *path) {
    if (!guarded && text[strcspn(text, ",\t\"\r\n")] == '\0') return sink_put(s, text, strlen(text), path);
    LAM_TRY(sink_put(s, "\"", 1, path));
    for (;;) {
        size_t run = strcspn(text, "\"");
        LAM_TRY(sink_put(s, text, run, path));
        if (text[run] == '\0') break;
        LAM_TRY(sink_put(s, "\"\"", 2, path));
        text += run + 1;
    }
    return sink_put(s, "\"", 1, path);
}

/* The only cell of a line must not look like a blank line, the first of the file not like a mark of a file's
 * kind (BOM, gzip, Zstandard). */
static bool must_guard(const char *text, bool alone, bool first) {
    return (alone && text[0] == '\0') ||
           (first && text[0] != '\0' && strchr("\xef\x1f\x28", text[0]) != NULL);
}

lam_status lam_table_write(const lam_table *table, const char *path) {
    sink s = {.gzip = lam_text_ends_with(path, ".gz")};
    const char *delimiter =
        lam_text_ends_with(path, ".tsv") || lam_text_ends_with(path, ".tsv.gz") ? "\t" : ",";
    int columns = lam_table_columns(table);
    lam_status status = LAM_OK;
    LAM_REQUIRE(columns > 0, LAM_ERROR_INPUT, "%s: a table without columns cannot be written", path);
    if (s.gzip) {
        LAM_REQUIRE(deflateInit2(&s.stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK,
                    LAM_ERROR_MEMORY, "%s: zlib has no memory", path);
    }
    LAM_TRY_GOTO(lam_alloc((void **)&s.block, WRITE_BLOCK), done);
    LAM_TRY_GOTO(lam_alloc((void **)&s.packed, WRITE_BLOCK), done);
    LAM_TRY_GOTO(lam_writer_open(&s.writer, path), done);
    for (int64_t row = -1; row < lam_table_rows(table); row++) {
        for (int column = 0; column < columns; column++) {
            const char *cell = row < 0 ? lam_table_name(table, column) : lam_table_cell(table, row, column);
            if (column > 0) LAM_TRY_GOTO(sink_put(&s, delimiter, 1, path), done);
            bool guarded = must_guard(cell, columns == 1, row < 0 && column == 0);
            LAM_TRY_GOTO(put_cell(&s, cell, guarded, path), done);
        }
        LAM_TRY_GOTO(sink_put(&s, "\n", 1, path), done);
    }
    LAM_TRY_GOTO(sink_flush(&s, true, path), done);
    LAM_TRY_GOTO(lam_writer_commit(&s.writer), done);
done:
    if (s.gzip) deflateEnd(&s.stream);
    lam_writer_abort(&s.writer);
    lam_free(s.block);
    lam_free(s.packed);
    return status;
}
