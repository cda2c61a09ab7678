#include "base/threads.h"

#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

extern void openblas_set_num_threads(int threads);

static int chosen;

static int default_threads(void) {
    const char *text = getenv("OMP_NUM_THREADS");
    int threads = text ? atoi(text) : 0;
    if (threads > 0) return threads;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    return 1;
}

void lam_threads_set(int threads) {
    chosen = threads > 0 ? threads : default_threads();
    openblas_set_num_threads(1); /* its results depend on the count; who calls it parts the work himself */
    omp_set_num_threads(chosen); /* after it: its OpenMP build hands its own count on to OpenMP */
}

void lam_threads_wait_briefly(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    char path[4096]; /* the real name: a process started as /proc/self/exe is called "exe" in every list */
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0 || setenv("GOMP_SPINCOUNT", "4000", 1) != 0) return;
    path[length] = 0;
    execv(path, argv);
}

int lam_threads(void) {
    if (!chosen) chosen = default_threads();
    return chosen;
}
