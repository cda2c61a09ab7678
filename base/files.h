/* Whole files and safe replacement. Every read and write of ours goes through here or calls lam_fault_hit
 * itself, so that tests can fail the n-th. Messages name the path and what the system said. */
#ifndef LAMELLA_BASE_FILES_H
#define LAMELLA_BASE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* strerror, with the full disk and the quota in plain words. */
const char *lam_why(int error);

lam_status lam_file_read(const char *path, char **bytes,
                         size_t *size); /* one zero byte follows; caller frees */
/* Writes beside (path.partial-PID), fsyncs, renames: the old file stays whole until the new one is. */
lam_status lam_file_write(const char *path, const void *bytes, size_t size);

/* A file being written: everything goes to path.partial-PID until commit. */
typedef struct lam_writer lam_writer;
lam_status lam_writer_open(lam_writer **out, const char *path);
lam_status lam_writer_append(lam_writer *writer, const void *bytes, size_t size);
lam_status lam_writer_printf(lam_writer *writer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
uint64_t lam_writer_position(const lam_writer *writer);
/* Overwrites earlier bytes (headers). */
lam_status lam_writer_patch(lam_writer *writer, uint64_t offset, const void *bytes, size_t size);
lam_status lam_writer_commit(lam_writer **writer); /* flush, fsync, rename; frees in every case */
void lam_writer_abort(lam_writer **writer);        /* removes the partial file; NULL is fine */

/* A file being written that is of no use before it is whole; lam_writer keeps its own. Between add and drop
 * lam_partials_remove unlinks it: called by the thread that ends the process on a signal; no file is begun after it. */
typedef struct lam_partial {
    const char *path; /* borrowed */
    struct lam_partial *next;
} lam_partial;
void lam_partial_add(lam_partial *partial);
void lam_partial_drop(lam_partial *partial); /* one that was not added is fine */
void lam_partials_remove(void);

/* Random-access reading: lam_reader_at is thread-safe (pread). */
typedef struct lam_reader lam_reader;
lam_status lam_reader_open(lam_reader **out, const char *path);
uint64_t lam_reader_size(const lam_reader *reader);
lam_status lam_reader_at(lam_reader *reader, uint64_t offset, void *bytes, size_t size);
void lam_reader_close(lam_reader **reader);

bool lam_path_exists(const char *path);
bool lam_path_is_folder(const char *path);
lam_status lam_make_folders(const char *path); /* mkdir -p */
/* The names in the folder, such as one that a rename has just put there, outlive a crash. No error where the
 * file system refuses it: what was renamed is in place all the same. */
void lam_sync_folder(const char *folder);
lam_status lam_remove_tree(const char *path);
/* Those of the names that are in the folder. */
lam_status lam_remove_files(const char *folder, const char *const *names, size_t count);
/* Both exist and are one file, by whatever names. */
bool lam_path_same(const char *a, const char *b);
lam_status lam_path_join(char **out, const char *folder,
                         const char *name); /* name absolute: a copy of name */
/* Sorted names of the entries of a folder that end with `suffix` ("" = all). Free each and the array. */
lam_status lam_list_folder(const char *folder, const char *suffix, char ***names, int64_t *count);
void lam_free_texts(char **texts, int64_t count);
/* LAM_ERROR_USAGE that names the path and --force where `path` exists and force is false, or is a device or a pipe. */
lam_status lam_require_absent(const char *path, bool force);
/* The same for a file that a long computation will write: its folder must be there and writable too (LAM_ERROR_IO). */
lam_status lam_require_new_file(const char *path, bool force);
/* The same where folders above the file may still have to be made. */
lam_status lam_require_new_in_folder(const char *path, bool force);
/* The same for a folder of results that a long computation will make or, with force, write into. */
lam_status lam_require_new_folder(const char *path, bool force);

#ifdef __cplusplus
}
#endif
#endif
