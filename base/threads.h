/* The one choice of thread count: --threads, else OMP_NUM_THREADS, else the CPUs this process may use (its
 * affinity mask, so Slurm's --cpus-per-task is respected). Set once at start, before any parallel region. */
#ifndef LAMELLA_BASE_THREADS_H
#define LAMELLA_BASE_THREADS_H

#ifdef __cplusplus
extern "C" {
#endif

void lam_threads_set(int threads); /* 0: the default above; sets OpenMP's and OpenBLAS' count too */
int lam_threads(void);

#ifdef __cplusplus
}
#endif
#endif
