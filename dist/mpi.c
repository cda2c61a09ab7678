#include "dist/internal.h"

#include <mpi.h>
#include <string.h>

/* Counts of MPI are int: long ranges go in parts of fixed size, so that the order of additions is fixed too. */
enum { PART = 1 << 26 };

static lam_status check(int code, const char *call) {
    if (code == MPI_SUCCESS) return LAM_OK;
    char text[MPI_MAX_ERROR_STRING + 1] = {0};
    int length = 0;
    MPI_Error_string(code, text, &length);
    for (int i = 0; i < length; i++) {
        if (text[i] == '\n') text[i] = ' ';
    }
    LAM_FAIL(LAM_ERROR_EXTERNAL, "%s failed: %s", call, text);
}

lam_status lam_mpi_open(int *rank, int *world_size, int *local_rank, const char **library) {
    static char version[MPI_MAX_LIBRARY_VERSION_STRING + 1];
    int initialized = 0, provided = 0, length = 0;
    MPI_Initialized(&initialized);
    if (!initialized)
        LAM_TRY(check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread"));
    LAM_TRY(check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
    LAM_TRY(check(MPI_Comm_rank(MPI_COMM_WORLD, rank), "MPI_Comm_rank"));
    LAM_TRY(check(MPI_Comm_size(MPI_COMM_WORLD, world_size), "MPI_Comm_size"));
    LAM_TRY(check(MPI_Get_library_version(version, &length), "MPI_Get_library_version"));
    MPI_Comm host;
    LAM_TRY(check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host),
                  "MPI_Comm_split_type"));
    LAM_TRY(check(MPI_Comm_rank(host, local_rank), "MPI_Comm_rank"));
    LAM_TRY(check(MPI_Comm_free(&host), "MPI_Comm_free"));
    version[strcspn(version, ",\n")] = 0; /* Open MPI adds who packed it */
    *library = version;
    return LAM_OK;
}

void lam_mpi_close(void) {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized) MPI_Finalize();
}

lam_status lam_mpi_all_reduce(lam_mpi_operation operation, void *values, int64_t count) {
    MPI_Datatype type = operation == LAM_MPI_SUM_F64 ? MPI_DOUBLE : MPI_INT64_T;
    MPI_Op op = operation == LAM_MPI_MAX_I64 ? MPI_MAX : MPI_SUM;
    for (int64_t begin = 0; begin < count; begin += PART) {
        int part = (int)(count - begin < PART ? count - begin : PART);
        LAM_TRY(check(MPI_Allreduce(MPI_IN_PLACE, (char *)values + begin * 8, part, type, op, MPI_COMM_WORLD),
                      "MPI_Allreduce"));
    }
    return LAM_OK;
}

/* Sums under way. MPI moves them on only while it is called: every start is also a push for those before it. */
enum { PENDING = 64 };
static MPI_Request pending[PENDING];
static int pending_count;

lam_status lam_mpi_wait(void) {
    int count = pending_count;
    pending_count = 0;
    return check(MPI_Waitall(count, pending, MPI_STATUSES_IGNORE), "MPI_Waitall");
}

lam_status lam_mpi_start_sum_f32(float *values, int64_t count) {
    for (int64_t begin = 0; begin < count; begin += PART) {
        int part = (int)(count - begin < PART ? count - begin : PART), done = 0;
        if (pending_count == PENDING) LAM_TRY(lam_mpi_wait());
        LAM_TRY(check(MPI_Iallreduce(MPI_IN_PLACE, values + begin, part, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD,
                                     &pending[pending_count]),
                      "MPI_Iallreduce"));
        pending_count++;
        LAM_TRY(check(MPI_Testall(pending_count, pending, &done, MPI_STATUSES_IGNORE), "MPI_Testall"));
        if (done) pending_count = 0;
    }
    return LAM_OK;
}

lam_status lam_mpi_broadcast(void *bytes, size_t size, int root) {
    for (size_t begin = 0; begin < size; begin += PART) {
        int part = (int)(size - begin < PART ? size - begin : PART);
        LAM_TRY(check(MPI_Bcast((char *)bytes + begin, part, MPI_BYTE, root, MPI_COMM_WORLD), "MPI_Bcast"));
    }
    return LAM_OK;
}

lam_status lam_mpi_gather(int rank, int world_size, const void *bytes, const int64_t *sizes, void *all) {
    enum { TAG = 7 };
    char *target = all;
    if (rank == 0) {
        memcpy(target, bytes, (size_t)sizes[0]);
        target += sizes[0];
    }
    for (int source = 1; source < world_size; source++) {
        for (int64_t begin = 0; begin < sizes[source]; begin += PART) {
            int part = (int)(sizes[source] - begin < PART ? sizes[source] - begin : PART);
            if (rank == source) {
                LAM_TRY(check(MPI_Send((const char *)bytes + begin, part, MPI_BYTE, 0, TAG, MPI_COMM_WORLD),
                              "MPI_Send"));
            } else if (rank == 0) {
                LAM_TRY(check(
                    MPI_Recv(target + begin, part, MPI_BYTE, source, TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
                    "MPI_Recv"));
            }
        }
        if (rank == 0) target += sizes[source];
    }
    return LAM_OK;
}

lam_status lam_mpi_barrier(void) { return check(MPI_Barrier(MPI_COMM_WORLD), "MPI_Barrier"); }
