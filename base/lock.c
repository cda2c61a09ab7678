#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"

struct lam_lock {
    int descriptor;
};

/* Who holds it, as the holder wrote it. */
static void read_holder(int descriptor, char *text, size_t size) {
    ssize_t got = pread(descriptor, text, size - 1, 0);
    text[got > 0 ? got : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    if (!text[0]) snprintf(text, size, "another process");
}

/* For people only: a failure is of no consequence. */
static void write_holder(int descriptor) {
    char host[64] = "", text[128];
    gethostname(host, sizeof host - 1);
    int length = snprintf(text, sizeof text, "process %ld on %s\n", (long)getpid(), host);
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, text, (size_t)length, 0) != length) return;
}

static lam_status take(lam_lock *lock, const char *path) {
    char holder[128];
    /* For writing: NFS gives an exclusive lock on nothing less. */
    lock->descriptor =
        lam_fault_hit(LAM_FAULT_WRITE) ? (errno = EIO, -1) : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    LAM_REQUIRE(lock->descriptor >= 0, LAM_ERROR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    int refused =
        lam_fault_hit(LAM_FAULT_WRITE) ? (errno = ENOLCK, -1) : flock(lock->descriptor, LOCK_EX | LOCK_NB);
    if (refused == 0) {
        write_holder(lock->descriptor);
        return LAM_OK;
    }
    if (errno != EWOULDBLOCK) {
        lam_log_warning("%s: no lock (%s): nothing keeps a second process from this folder", path,
                        strerror(errno));
        return LAM_OK;
    }
    read_holder(lock->descriptor, holder, sizeof holder);
    LAM_FAIL(LAM_ERROR_IO, "%s: held by %s: wait until it ends, or choose another folder", path, holder);
}

lam_status lam_lock_take(lam_lock **out, const char *path) {
    LAM_TRY(lam_alloc((void **)out, sizeof **out));
    (*out)->descriptor = -1;
    lam_status status = take(*out, path);
    if (status != LAM_OK) lam_lock_release(out);
    return status;
}

void lam_lock_release(lam_lock **lock) {
    if (!*lock) return;
    if ((*lock)->descriptor >= 0) close((*lock)->descriptor);
    lam_free(*lock);
    *lock = NULL;
}
