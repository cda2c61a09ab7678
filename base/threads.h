/* The one choice of thread count: --threads, else OMP_NUM_THREADS, else the CPUs this process may use (its
 * affinity mask, so Slurm's --cpus-per-task is respected). Set once at start, before any parallel region. */
#ifndef LAMELLA_BASE_THREADS_H
#define LAMELLA_BASE_THREADS_H

#ifdef __cplusplus
extern "C" {
#endif

void lam_threads_set(int threads); /* 0: the default above; sets OpenMP's count too, and OpenBLAS' to 1 */
int lam_threads(void);

/* At the start of main: idle OpenMP threads sleep after a short spin (GOMP_SPINCOUNT, unless it or OMP_WAIT_POLICY is
 * set). Spinning for milliseconds, libgomp's default, is as fast on an idle machine and costs a multiple on a shared one.
 * libgomp reads it before main, so the program starts itself once more; returns where that is done or not possible. */
void lam_threads_wait_briefly(char **argv);

#ifdef __cplusplus
}
#endif
#endif
