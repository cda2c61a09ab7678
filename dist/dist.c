#include "dist/dist.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "dist/internal.h"

struct lam_dist {
    int rank, world_size, local_rank;
    const char *library;
    bool mpi;
};

static bool launcher_seen(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (getenv(names[i])) return true;
    }
    return false;
}

lam_status lam_dist_open(lam_dist **out) {
    lam_dist *dist = NULL;
    *out = NULL;
    LAM_TRY(lam_alloc((void **)&dist, sizeof *dist));
    dist->world_size = 1;
    dist->library = "self";
    lam_status status = LAM_OK;
    if (launcher_seen()) {
        LAM_TRY_GOTO(lam_mpi_open(&dist->rank, &dist->world_size, &dist->local_rank,
                                  &dist->library), done);
        dist->mpi = true;
        if (dist->world_size > 1) LAM_TRY_GOTO(lam_watchdog_start(dist->rank), done);
    } else {
        /* Tasks of srun without PMIx would each write the same files. */
        const char *tasks = getenv("SLURM_STEP_NUM_TASKS");
        LAM_REQUIRE_GOTO(!tasks || atoi(tasks) <= 1, done, LAM_ERROR_USAGE,
                         "srun started %s tasks that cannot see each other: add --mpi=pmix to srun", tasks);
    }
    *out = dist;
    return LAM_OK;
done:
    if (dist->mpi) lam_mpi_close();
    lam_free(dist);
    return status;
}

void lam_dist_close(lam_dist **dist) {
    if (!*dist) return;
    if ((*dist)->mpi) {
        lam_watchdog_enter("MPI_Finalize");
        lam_mpi_close();
        lam_watchdog_leave();
        lam_watchdog_stop();
    }
    lam_free(*dist);
    *dist = NULL;
}

int lam_dist_rank(const lam_dist *dist) { return dist->rank; }
int lam_dist_world_size(const lam_dist *dist) { return dist->world_size; }
int lam_dist_local_rank(const lam_dist *dist) { return dist->local_rank; }
const char *lam_dist_library(const lam_dist *dist) { return dist->library; }

void lam_dist_begin_wait(lam_dist *dist, const char *what) {
    if (dist->world_size > 1) lam_watchdog_enter(what);
}
void lam_dist_end_wait(lam_dist *dist) {
    if (dist->world_size > 1) lam_watchdog_leave();
}

static lam_status all_reduce(lam_dist *dist, lam_mpi_operation operation, void *values, int64_t count,
                             const char *name) {
    if (dist->world_size == 1) return LAM_OK;
    lam_watchdog_enter(name);
    lam_status status = lam_mpi_all_reduce(operation, values, count);
    lam_watchdog_leave();
    return status;
}

lam_status lam_dist_start_sum_f32(lam_dist *dist, float *values, int64_t count) {
    if (dist->world_size == 1) return LAM_OK;
    lam_watchdog_enter("a sum of float32");
    lam_status status = lam_mpi_start_sum_f32(values, count);
    lam_watchdog_leave();
    return status;
}

lam_status lam_dist_wait(lam_dist *dist) {
    if (dist->world_size == 1) return LAM_OK;
    lam_watchdog_enter("the sum of float32");
    lam_status status = lam_mpi_wait();
    lam_watchdog_leave();
    return status;
}

lam_status lam_dist_sum_f64(lam_dist *dist, double *values, int64_t count) {
    return all_reduce(dist, LAM_MPI_SUM_F64, values, count, "the sum of float64");
}

lam_status lam_dist_max_i64(lam_dist *dist, int64_t *values, int64_t count) {
    return all_reduce(dist, LAM_MPI_MAX_I64, values, count, "the maximum of int64");
}

lam_status lam_dist_broadcast(lam_dist *dist, void *bytes, size_t size, int root) {
    if (dist->world_size == 1) return LAM_OK;
    lam_watchdog_enter("the broadcast");
    lam_status status = lam_mpi_broadcast(bytes, size, root);
    lam_watchdog_leave();
    return status;
}

lam_status lam_dist_gather(lam_dist *dist, const void *bytes, const int64_t *sizes, void *all) {
    if (dist->world_size == 1) {
        memcpy(all, bytes, (size_t)sizes[0]);
        return LAM_OK;
    }
    lam_watchdog_enter("the gather");
    lam_status status = lam_mpi_gather(dist->rank, dist->world_size, bytes, sizes, all);
    lam_watchdog_leave();
    return status;
}

lam_status lam_dist_barrier(lam_dist *dist) {
    if (dist->world_size == 1) return LAM_OK;
    lam_watchdog_enter("the barrier");
    lam_status status = lam_mpi_barrier();
    lam_watchdog_leave();
    return status;
}

lam_status lam_dist_agree(lam_dist *dist, lam_status status) {
    if (dist->world_size == 1) return status;
    int64_t first =
        status == LAM_OK ? 0 : dist->world_size - dist->rank; /* the lowest failing rank has the largest */
    LAM_TRY(lam_dist_max_i64(dist, &first, 1));
    if (first == 0) return LAM_OK;
    struct {
        int64_t status;
        char message[1016];
    } verdict;
    memset(&verdict, 0, sizeof verdict);
    int root = dist->world_size - (int)first;
    if (dist->rank == root) {
        verdict.status = status;
        strncpy(verdict.message, lam_last_error(), sizeof verdict.message - 1);
    }
    LAM_TRY(lam_dist_broadcast(dist, &verdict, sizeof verdict, root));
    if (dist->rank == root) return status;
    if (verdict.status == LAM_STOPPED) return LAM_STOPPED;
    LAM_FAIL((lam_status)verdict.status, "%s", verdict.message);
}
