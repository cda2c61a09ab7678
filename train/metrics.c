#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"

struct lam_metrics {
    FILE *file;
    int64_t bytes;
    char *path;
};

static lam_status open_file(lam_metrics *m, const char *path, int64_t keep_bytes) {
    LAM_TRY(lam_text_copy(&m->path, path));
    int descriptor =
        lam_fault_hit(LAM_FAULT_WRITE) ? (errno = EIO, -1) : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    LAM_REQUIRE(descriptor >= 0, LAM_ERROR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    m->file = fdopen(descriptor, "r+");
    if (!m->file) close(descriptor);
    LAM_REQUIRE(m->file, LAM_ERROR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    struct stat info;
    LAM_REQUIRE(fstat(descriptor, &info) == 0, LAM_ERROR_IO, "%s: %s", path, strerror(errno));
    LAM_REQUIRE(info.st_size >= keep_bytes, LAM_ERROR_FORMAT,
                "%s: is shorter (%lld bytes) than the checkpoint says (%" PRId64
                "): put the whole file back, or take --force",
                path, (long long)info.st_size, keep_bytes);
    char end = '\n';
    LAM_REQUIRE(keep_bytes == 0 || (pread(descriptor, &end, 1, keep_bytes - 1) == 1 && end == '\n'),
                LAM_ERROR_FORMAT,
                "%s: no line ends at byte %" PRId64
                ", where the checkpoint says: put the whole file back, or take --force",
                path, keep_bytes);
    LAM_REQUIRE(ftruncate(descriptor, keep_bytes) == 0 && fseek(m->file, 0, SEEK_END) == 0, LAM_ERROR_IO,
                "%s: cannot be cut to %" PRId64 " bytes: %s", path, keep_bytes, strerror(errno));
    m->bytes = keep_bytes;
    return LAM_OK;
}

lam_status lam_metrics_open(lam_metrics **out, const char *path, int64_t keep_bytes) {
    LAM_TRY(lam_alloc((void **)out, sizeof **out));
    lam_status status = open_file(*out, path, keep_bytes);
    if (status != LAM_OK) lam_metrics_close(out);
    return status;
}

lam_status lam_metrics_append(lam_metrics *m, lam_json *object) {
    char *text = NULL;
    lam_status status = lam_json_dump(object, false, &text);
    lam_json_free(object);
    LAM_TRY(status);
    size_t size = strlen(text);
    text[size] = '\n'; /* in place of the end: one write a line */
    bool written = !lam_fault_hit(LAM_FAULT_WRITE) && fwrite(text, 1, size + 1, m->file) == size + 1 &&
                   fflush(m->file) == 0;
    int error = errno;
    lam_free(text);
    LAM_REQUIRE(written, LAM_ERROR_IO, "%s: cannot be written: %s", m->path, strerror(error));
    m->bytes += (int64_t)size + 1;
    return LAM_OK;
}

lam_status lam_metrics_sync(lam_metrics *m, int64_t *bytes) {
    LAM_REQUIRE(fflush(m->file) == 0 && fsync(fileno(m->file)) == 0, LAM_ERROR_IO,
                "%s: cannot be written: %s", m->path, strerror(errno));
    *bytes = m->bytes;
    return LAM_OK;
}

lam_status lam_metrics_close(lam_metrics **metrics) {
    lam_metrics *m = *metrics;
    if (!m) return LAM_OK;
    *metrics = NULL;
    lam_status status = LAM_OK;
    if (m->file && fclose(m->file) != 0)
        status =
            lam_fail(LAM_ERROR_IO, __FILE__, __LINE__, "%s: cannot be written: %s", m->path, strerror(errno));
    lam_free(m->path);
    lam_free(m);
    return status;
}

/* ---- the end of a file ---- */

typedef struct last_steps {
    double crops[LAM_METRICS_LAST], seconds[LAM_METRICS_LAST];
} last_steps;

static void take_line(const lam_json *line, last_steps *last, lam_metrics_end *end) {
    const lam_json *loss = lam_json_get(line, "loss"), *validation = lam_json_get(line, "validation_loss");
    int64_t step = lam_json_int(lam_json_get(line, "step"), 0);
    if (validation) {
        end->validation_step = step;
        end->validation_loss = lam_json_float(validation, NAN);
    }
    if (!loss) return;
    double seconds = lam_json_float(lam_json_get(line, "step_ms"), 0) / 1e3;
    last->seconds[end->steps % LAM_METRICS_LAST] = seconds;
    last->crops[end->steps % LAM_METRICS_LAST] =
        seconds * lam_json_float(lam_json_get(line, "crops_per_s"), 0);
    end->steps++;
    end->step = step;
    end->loss = lam_json_float(loss, NAN);
}

lam_status lam_metrics_read_end(const char *path, lam_metrics_end *end) {
    lam_reader *reader = NULL;
    char *text = NULL;
    last_steps last = {0};
    *end = (lam_metrics_end){.loss = NAN, .validation_loss = NAN};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_reader_open(&reader, path), done);
    uint64_t size = lam_reader_size(reader), part = size < 1 << 20 ? size : 1 << 20;
    LAM_TRY_GOTO(lam_alloc((void **)&text, (size_t)part + 1), done);
    LAM_TRY_GOTO(lam_reader_at(reader, size - part, text, (size_t)part), done);
    for (char *at = text, *stop; (stop = strchr(at, '\n')); at = stop + 1) {
        lam_json *line = NULL;
        if (lam_json_parse(&line, at, (size_t)(stop - at), path) == LAM_OK) take_line(line, &last, end);
        lam_json_free(line);
    }
    double crops = 0, seconds = 0;
    if (end->steps > LAM_METRICS_LAST) end->steps = LAM_METRICS_LAST;
    for (int64_t i = 0; i < end->steps; i++) {
        crops += last.crops[i];
        seconds += last.seconds[i];
    }
    end->crops_per_s = seconds > 0 ? crops / seconds : 0;
done:
    lam_free(text);
    lam_reader_close(&reader);
    return status;
}
