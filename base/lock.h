/* One process at a time: flock(2) on a file, which the kernel gives back when the process ends, however it ends.
 *
 *     lam_lock *lock = NULL;
 *     LAM_TRY(lam_lock_take(&lock, "run/lock"));   // LAM_ERROR_IO where another process holds it, with its name
 *     ...
 *     lam_lock_release(&lock);
 *
 * The file stays: it says who took the lock last, and is no sign that the lock is held. Network file systems: NFS (Linux since
 * 2.6.12) turns flock into a lock of the server, which holds between machines unless the mount says local_lock; after a
 * machine has died, its server keeps the lock for the lease, about 90 seconds. Lustre holds between machines with the mount
 * option flock. Where a file system has no locks the caller gets LAM_OK and no lock, with one warning. */
#ifndef LAMELLA_BASE_LOCK_H
#define LAMELLA_BASE_LOCK_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_lock lam_lock;

/* Makes the file where it lacks. Does not wait. */
lam_status lam_lock_take(lam_lock **out, const char *path);
void lam_lock_release(lam_lock **lock); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
