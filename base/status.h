/* Status codes and the last error message of a thread.
 *
 *     lam_status read_it(const char *path) {
 *         LAM_REQUIRE(path[0], LAM_ERROR_USAGE, "the path is empty: name a shard folder");
 *         LAM_TRY(lam_file_read(path, &bytes, &size));
 *         return LAM_OK;
 *     }
 *
 * Every function that can fail returns lam_status. The message (what, where, what to do: one line) is kept
 * per thread; library code never prints and never exits. Foreign errors (MPI, HDF5, zstd...) are converted
 * where they arise. Threading: every function here is safe on any thread. */
#ifndef LAMELLA_BASE_STATUS_H
#define LAMELLA_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_status {
    LAM_OK = 0,
    LAM_ERROR_USAGE,    /* command line; exit code 2 */
    LAM_ERROR_CONFIG,   /* configuration file; exit code 2 */
    LAM_ERROR_INPUT,    /* input files say something that cannot be: missing column, mixed sizes... */
    LAM_ERROR_FORMAT,   /* a file is damaged or not what its name says */
    LAM_ERROR_IO,       /* the operating system refused: missing file, full disk, permission */
    LAM_ERROR_MEMORY,   /* an allocation failed */
    LAM_ERROR_NUMERIC,  /* non-finite values, no convergence, singular matrix */
    LAM_ERROR_EXTERNAL, /* a library failed: MPI, oneDNN, HDF5 */
    LAM_ERROR_INTERNAL, /* our own mistake */
    LAM_STOPPED         /* stopped on a signal after a checkpoint; exit code 75 */
} lam_status;

/* Sets the calling thread's message (printf format, no newline) and returns `code`. `file` and `line` are
 * those of our source; lam_last_error shows them only where LAMELLA_DEBUG is set in the environment. */
lam_status lam_fail(lam_status code, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "prefix: " (printf format) before the present message; returns `code`. */
lam_status lam_fail_context(lam_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The last message of the calling thread, "" where there was none. Valid until the next failure. */
const char *lam_last_error(void);

/* 0, 1, 2 or 75. */
int lam_exit_code(lam_status status);

#define LAM_FAIL(code, ...) return lam_fail((code), __FILE__, __LINE__, __VA_ARGS__)
#define LAM_TRY(call)                                                                                        \
    do {                                                                                                     \
        lam_status lam_try_status_ = (call);                                                                 \
        if (lam_try_status_ != LAM_OK) return lam_try_status_;                                               \
    } while (0)
#define LAM_REQUIRE(condition, code, ...)                                                                    \
    do {                                                                                                     \
        if (!(condition)) return lam_fail((code), __FILE__, __LINE__, __VA_ARGS__);                          \
    } while (0)
/* The same with a clean-up label; both need a local `lam_status status`. */
#define LAM_TRY_GOTO(call, label)                                                                            \
    do {                                                                                                     \
        status = (call);                                                                                     \
        if (status != LAM_OK) goto label;                                                                    \
    } while (0)
#define LAM_REQUIRE_GOTO(condition, label, code, ...)                                                        \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            status = lam_fail((code), __FILE__, __LINE__, __VA_ARGS__);                                      \
            goto label;                                                                                      \
        }                                                                                                    \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
