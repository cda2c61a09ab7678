#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
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
