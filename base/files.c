#include "base/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/memory.h"

const char *lam_why(int error) {
    return error == ENOSPC   ? "the disk is full"
           : error == EDQUOT ? "the disk quota is used up"
           : error == EFBIG  ? "it would be larger than files may be here (ulimit -f)"
                             : strerror(error);
}

/* ---- reading ---- */

struct lam_reader {
    int descriptor;
    uint64_t size;
    char *path;
};

lam_status lam_reader_open(lam_reader **out, const char *path) {
    *out = NULL;
    lam_status status = LAM_OK;
    lam_reader *reader = NULL;
    LAM_TRY(lam_alloc((void **)&reader, sizeof *reader));
    reader->descriptor = -1;
    LAM_TRY_GOTO(lam_text_copy(&reader->path, path), fail);
    /* O_NONBLOCK: opening a pipe that nobody writes to would wait for ever; a file takes no notice of it. */
    reader->descriptor =
        lam_fault_hit(LAM_FAULT_READ) ? (errno = EIO, -1) : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    LAM_REQUIRE_GOTO(reader->descriptor >= 0, fail, LAM_ERROR_IO, "%s: cannot be opened: %s", path,
                     lam_why(errno));
    struct stat info;
    LAM_REQUIRE_GOTO(fstat(reader->descriptor, &info) == 0, fail, LAM_ERROR_IO, "%s: %s", path,
                     lam_why(errno));
    LAM_REQUIRE_GOTO(!S_ISDIR(info.st_mode), fail, LAM_ERROR_IO, "%s: is a folder, a file is needed", path);
    LAM_REQUIRE_GOTO(S_ISREG(info.st_mode), fail, LAM_ERROR_IO, "%s: is not a regular file", path);
    reader->size = (uint64_t)info.st_size;
    *out = reader;
    return LAM_OK;
fail:
    lam_reader_close(&reader);
    return status;
}

uint64_t lam_reader_size(const lam_reader *reader) { return reader->size; }

lam_status lam_reader_at(lam_reader *reader, uint64_t offset, void *bytes, size_t size) {
    LAM_REQUIRE(offset <= reader->size && size <= reader->size - offset, LAM_ERROR_FORMAT,
                "%s: is cut off: %zu bytes are due at %llu, the file has %llu", reader->path, size,
                (unsigned long long)offset, (unsigned long long)reader->size);
    char *to = bytes;
    while (size) {
        ssize_t got = lam_fault_hit(LAM_FAULT_READ) ? (errno = EIO, -1)
                                                    : pread(reader->descriptor, to, size, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        LAM_REQUIRE(got >= 0, LAM_ERROR_IO, "%s: cannot be read: %s", reader->path, lam_why(errno));
        LAM_REQUIRE(got > 0, LAM_ERROR_FORMAT, "%s: has become shorter while it was read", reader->path);
        to += got;
        size -= (size_t)got;
        offset += (uint64_t)got;
    }
    return LAM_OK;
}

void lam_reader_close(lam_reader **reader) {
    if (!*reader) return;
    if ((*reader)->descriptor >= 0) close((*reader)->descriptor);
    lam_free((*reader)->path);
    lam_free(*reader);
    *reader = NULL;
}

lam_status lam_file_read(const char *path, char **bytes, size_t *size) {
    *bytes = NULL;
    *size = 0;
    lam_reader *reader;
    LAM_TRY(lam_reader_open(&reader, path));
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc((void **)bytes, (size_t)reader->size + 1), done);
    LAM_TRY_GOTO(lam_reader_at(reader, 0, *bytes, (size_t)reader->size), done);
    *size = (size_t)reader->size;
done:
    lam_reader_close(&reader);
    if (status != LAM_OK) {
        lam_free(*bytes);
        *bytes = NULL;
    }
    return status;
}

/* ---- writing ---- */

static pthread_mutex_t partials_mutex = PTHREAD_MUTEX_INITIALIZER;
static lam_partial *partials;

void lam_partial_add(lam_partial *partial) {
    pthread_mutex_lock(&partials_mutex);
    partial->next = partials;
    partials = partial;
    pthread_mutex_unlock(&partials_mutex);
}

void lam_partial_drop(lam_partial *partial) {
    pthread_mutex_lock(&partials_mutex);
    for (lam_partial **at = &partials; *at; at = &(*at)->next)
        if (*at == partial) {
            *at = partial->next;
            break;
        }
    pthread_mutex_unlock(&partials_mutex);
}

void lam_partials_remove(void) {
    pthread_mutex_lock(&partials_mutex); /* for good: the process ends */
    for (const lam_partial *at = partials; at; at = at->next) unlink(at->path);
}

struct lam_writer {
    FILE *file;
    char *path, *partial;
    lam_partial entry;
    uint64_t position;
};

/* True when a test makes this write fail: as a full disk would, with errno set. */
static bool write_fault(void) {
    if (!lam_fault_hit(LAM_FAULT_WRITE)) return false;
    errno = EIO;
    return true;
}

lam_status lam_writer_open(lam_writer **out, const char *path) {
    *out = NULL;
    lam_status status = LAM_OK;
    lam_writer *writer = NULL;
    LAM_TRY(lam_alloc((void **)&writer, sizeof *writer));
    LAM_TRY_GOTO(lam_text_copy(&writer->path, path), fail);
    LAM_TRY_GOTO(lam_text_format(&writer->partial, "%s.partial-%ld", path, (long)getpid()), fail);
    writer->entry.path = writer->partial;
    lam_partial_add(&writer->entry);
    writer->file = write_fault() ? NULL : fopen(writer->partial, "wbe");
    LAM_REQUIRE_GOTO(writer->file, fail, LAM_ERROR_IO, "%s: cannot be written: %s", path, lam_why(errno));
    *out = writer;
    return LAM_OK;
fail:
    lam_writer_abort(&writer);
    return status;
}

lam_status lam_writer_append(lam_writer *writer, const void *bytes, size_t size) {
    if (!size) return LAM_OK;
    size_t put = write_fault() ? (size_t)0 : fwrite(bytes, 1, size, writer->file);
    LAM_REQUIRE(put == size, LAM_ERROR_IO, "%s: cannot be written: %s", writer->path, lam_why(errno));
    writer->position += size;
    return LAM_OK;
}

lam_status lam_writer_printf(lam_writer *writer, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int put = write_fault() ? -1 : vfprintf(writer->file, format, arguments);
    va_end(arguments);
    LAM_REQUIRE(put >= 0, LAM_ERROR_IO, "%s: cannot be written: %s", writer->path, lam_why(errno));
    writer->position += (uint64_t)put;
    return LAM_OK;
}

uint64_t lam_writer_position(const lam_writer *writer) { return writer->position; }

lam_status lam_writer_patch(lam_writer *writer, uint64_t offset, const void *bytes, size_t size) {
    LAM_REQUIRE(offset <= writer->position && size <= writer->position - offset, LAM_ERROR_INTERNAL,
                "%s: a patch reaches past the end", writer->path);
    bool good = !write_fault() && fseeko(writer->file, (off_t)offset, SEEK_SET) == 0 &&
                fwrite(bytes, 1, size, writer->file) == size && fseeko(writer->file, 0, SEEK_END) == 0;
    LAM_REQUIRE(good, LAM_ERROR_IO, "%s: cannot be written: %s", writer->path, lam_why(errno));
    return LAM_OK;
}

lam_status lam_writer_commit(lam_writer **out) {
    lam_writer *writer = *out;
    lam_status status = LAM_OK;
    bool good = !write_fault() && fflush(writer->file) == 0 && fsync(fileno(writer->file)) == 0;
    LAM_REQUIRE_GOTO(good, fail, LAM_ERROR_IO, "%s: cannot be written: %s", writer->path, lam_why(errno));
    int closed = fclose(writer->file);
    writer->file = NULL;
    LAM_REQUIRE_GOTO(closed == 0, fail, LAM_ERROR_IO, "%s: cannot be written: %s", writer->path,
                     lam_why(errno));
    LAM_REQUIRE_GOTO(rename(writer->partial, writer->path) == 0, fail, LAM_ERROR_IO,
                     "%s: cannot be put in place: %s", writer->path, lam_why(errno));
    lam_sync_folder(dirname(writer->path)); /* cuts its argument */
    lam_partial_drop(&writer->entry);
    lam_free(writer->partial);
    writer->partial = NULL;
fail:
    lam_writer_abort(out);
    return status;
}

void lam_writer_abort(lam_writer **out) {
    lam_writer *writer = *out;
    if (!writer) return;
    if (writer->file) fclose(writer->file);
    lam_partial_drop(&writer->entry);
    if (writer->partial) unlink(writer->partial);
    lam_free(writer->partial);
    lam_free(writer->path);
    lam_free(writer);
    *out = NULL;
}

lam_status lam_file_write(const char *path, const void *bytes, size_t size) {
    lam_writer *writer;
    LAM_TRY(lam_writer_open(&writer, path));
    lam_status status = lam_writer_append(writer, bytes, size);
    if (status == LAM_OK) return lam_writer_commit(&writer);
    lam_writer_abort(&writer);
    return status;
}

/* ---- paths ---- */

bool lam_path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool lam_path_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

lam_status lam_make_folders(const char *path) {
    char *copy;
    LAM_TRY(lam_text_copy(&copy, path));
    lam_status status = LAM_OK;
    for (char *p = copy + (copy[0] == '/'); status == LAM_OK; p++) {
        if (*p && *p != '/') continue;
        char kept = *p;
        *p = 0;
        if (copy[0] && mkdir(copy, 0777) != 0 && !(errno == EEXIST && lam_path_is_folder(copy)))
            status = lam_fail(LAM_ERROR_IO, __FILE__, __LINE__, "%s: the folder cannot be made: %s", copy,
                              lam_why(errno));
        *p = kept;
        if (!kept) break;
    }
    lam_free(copy);
    return status;
}

void lam_sync_folder(const char *folder) {
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    fsync(descriptor);
    close(descriptor);
}

lam_status lam_remove_tree(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0) {
        LAM_REQUIRE(errno == ENOENT, LAM_ERROR_IO, "%s: cannot be removed: %s", path, lam_why(errno));
        return LAM_OK;
    }
    if (!S_ISDIR(info.st_mode)) {
        LAM_REQUIRE(unlink(path) == 0, LAM_ERROR_IO, "%s: cannot be removed: %s", path, lam_why(errno));
        return LAM_OK;
    }
    char **names;
    int64_t count;
    LAM_TRY(lam_list_folder(path, "", &names, &count));
    lam_status status = LAM_OK;
    for (int64_t i = 0; i < count && status == LAM_OK; i++) {
        char *inner;
        LAM_TRY_GOTO(lam_path_join(&inner, path, names[i]), done);
        status = lam_remove_tree(inner);
        lam_free(inner);
    }
    if (status == LAM_OK && rmdir(path) != 0)
        status =
            lam_fail(LAM_ERROR_IO, __FILE__, __LINE__, "%s: cannot be removed: %s", path, lam_why(errno));
done:
    lam_free_texts(names, count);
    return status;
}

lam_status lam_path_join(char **out, const char *folder, const char *name) {
    if (name[0] == '/' || !folder[0]) return lam_text_copy(out, name);
    size_t length = strlen(folder);
    return lam_text_format(out, folder[length - 1] == '/' ? "%s%s" : "%s/%s", folder, name);
}

static int compare_texts(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

lam_status lam_list_folder(const char *folder, const char *suffix, char ***names, int64_t *count) {
    *names = NULL;
    *count = 0;
    DIR *stream = lam_fault_hit(LAM_FAULT_READ) ? (errno = EIO, NULL) : opendir(folder);
    LAM_REQUIRE(stream, LAM_ERROR_IO, "%s: cannot be listed: %s", folder, lam_why(errno));
    lam_status status = LAM_OK;
    int64_t capacity = 0;
    size_t suffix_length = strlen(suffix);
    for (struct dirent *entry; errno = 0, (entry = readdir(stream));) {
        size_t length = strlen(entry->d_name);
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || length < suffix_length ||
            strcmp(entry->d_name + length - suffix_length, suffix) != 0)
            continue;
        if (*count == capacity) {
            int64_t grown = capacity ? capacity * 2 : 16;
            LAM_TRY_GOTO(
                lam_grow((void **)names, (size_t)capacity * sizeof **names, (size_t)grown * sizeof **names),
                done);
            capacity = grown;
        }
        LAM_TRY_GOTO(lam_text_copy(&(*names)[*count], entry->d_name), done);
        ++*count;
    }
    LAM_REQUIRE_GOTO(errno == 0, done, LAM_ERROR_IO, "%s: cannot be listed: %s", folder, lam_why(errno));
    if (*count) qsort(*names, (size_t)*count, sizeof **names, compare_texts);
done:
    closedir(stream);
    if (status != LAM_OK) {
        lam_free_texts(*names, *count);
        *names = NULL;
        *count = 0;
    }
    return status;
}

void lam_free_texts(char **texts, int64_t count) {
    for (int64_t i = 0; texts && i < count; i++) lam_free(texts[i]);
    lam_free(texts);
}

lam_status lam_require_absent(const char *path, bool force) {
    struct stat info;
    LAM_REQUIRE(stat(path, &info) != 0 || S_ISREG(info.st_mode) || S_ISDIR(info.st_mode), LAM_ERROR_USAGE,
                "'%s' is neither a file nor a folder: choose another name", path);
    LAM_REQUIRE(force || !lam_path_exists(path), LAM_ERROR_USAGE,
                "'%s' exists already: choose another name or give --force", path);
    return LAM_OK;
}

lam_status lam_require_new_file(const char *path, bool force) {
    LAM_TRY(lam_require_absent(path, force));
    LAM_REQUIRE(!lam_path_is_folder(path), LAM_ERROR_USAGE, "'%s' is a folder: name a file", path);
    char *copy;
    LAM_TRY(lam_text_copy(&copy, path));
    const char *folder = dirname(copy);
    int refused = lam_path_exists(folder) && !lam_path_is_folder(folder) ? ENOTDIR
                  : access(folder, W_OK | X_OK) != 0                     ? errno
                                                                         : 0;
    lam_free(copy);
    LAM_REQUIRE(!refused, LAM_ERROR_IO, "%s: cannot be written: %s", path, strerror(refused));
    return LAM_OK;
}

lam_status lam_require_new_in_folder(const char *path, bool force) {
    char *nearest = NULL, *above = NULL;
    LAM_TRY(lam_text_copy(&nearest, path));
    for (;;) {
        lam_status status = lam_text_copy(&above, nearest);
        if (status != LAM_OK) {
            lam_free(nearest);
            return status;
        }
        const char *parent = dirname(above); /* cuts its argument */
        if (lam_path_exists(parent)) break;
        memmove(nearest, parent, strlen(parent) + 1);
        lam_free(above);
    }
    lam_free(above);
    lam_status status = lam_require_new_file(nearest, force);
    lam_free(nearest);
    return status;
}

lam_status lam_require_new_folder(const char *path, bool force) {
    char *inside = NULL;
    LAM_TRY(lam_require_absent(path, force));
    LAM_TRY(lam_path_join(&inside, path, "file"));
    lam_status status = lam_require_new_in_folder(inside, true);
    lam_free(inside);
    return status;
}

lam_status lam_remove_files(const char *folder, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char *path;
        LAM_TRY(lam_path_join(&path, folder, names[i]));
        lam_status status = lam_remove_tree(path);
        lam_free(path);
        LAM_TRY(status);
    }
    return LAM_OK;
}

bool lam_path_same(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
