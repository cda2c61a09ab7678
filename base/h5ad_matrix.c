#include <string.h>

#include "base/h5ad_parts.h"
#include "base/memory.h"

lam_status lam_h5ad_matrix_new(lam_embeddings *out, const char *path, int64_t rows, int64_t columns) {
    int64_t count = 0;
    LAM_REQUIRE(!__builtin_mul_overflow(rows, columns, &count), LAM_ERROR_FORMAT,
                "%s: the matrix is too large", path);
    LAM_TRY(lam_alloc_array((void **)&out->values, count, sizeof *out->values));
    out->rows = rows;
    out->columns = columns;
    return LAM_OK;
}

static bool is_float32(hid_t type) { return H5Tget_class(type) == H5T_FLOAT && H5Tget_size(type) <= 4; }

static lam_status read_dense(lam_embeddings *out, const char *path, hid_t file, const char *name) {
    dataset d = LAM_NO_DATASET;
    lam_status status = LAM_OK;
    bool boolean = false;
    LAM_TRY(lam_h5ad_open_numbers(path, file, name, &d, &boolean));
    LAM_REQUIRE_GOTO(d.rank == 2, done, LAM_ERROR_FORMAT,
                     "%s: '%s' has %d dimensions; 2 are needed (rows, columns)", path, name, d.rank);
    out->was_float32 = is_float32(d.type);
    LAM_TRY_GOTO(lam_h5ad_matrix_new(out, path, (int64_t)d.dims[0], (int64_t)d.dims[1]), done);
    if (d.count > 0 && (out->was_float32 || boolean)) {
        /* Into the end of the block, then widened from the front: short element i lies behind double i. */
        size_t size = boolean ? 1 : sizeof(float);
        char *end = (char *)(out->values + d.count) - (size_t)d.count * size;
        H5_READ(H5Dread(d.id, boolean ? d.type : H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, end), name);
        for (int64_t i = 0; i < d.count; i++) {
            float value = (float)end[(size_t)i * size];
            if (!boolean) memcpy(&value, end + (size_t)i * size, sizeof value);
            out->values[i] = (double)value;
        }
    } else if (d.count > 0) {
        H5_READ(H5Dread(d.id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, out->values), name);
    }
done:
    lam_h5ad_close(&d);
    return status;
}

static lam_status read_sparse_shape(const char *path, hid_t group, const char *name, int64_t shape[2]) {
    lam_status status = LAM_OK;
    hid_t attribute = -1, space = -1;
    const char *key = H5Aexists(group, "shape") > 0 ? "shape" : "h5sparse_shape";
    LAM_REQUIRE(H5Aexists(group, key) > 0, LAM_ERROR_FORMAT, "%s: '%s' has no shape", path, name);
    H5_READ(attribute = H5Aopen(group, key, H5P_DEFAULT), name);
    H5_READ(space = H5Aget_space(attribute), name);
    LAM_REQUIRE_GOTO(H5Sget_simple_extent_npoints(space) == 2, done, LAM_ERROR_FORMAT,
                     "%s: '%s' has no shape of two", path, name);
    H5_READ(H5Aread(attribute, H5T_NATIVE_INT64, shape), name);
    LAM_REQUIRE_GOTO(shape[0] >= 0 && shape[1] >= 0 && shape[0] < INT64_MAX / 8 && shape[1] < INT64_MAX / 8,
                     done, LAM_ERROR_FORMAT, "%s: the shape of '%s' is damaged", path, name);
done:
    if (space >= 0) H5Sclose(space);
    if (attribute >= 0) H5Aclose(attribute);
    return status;
}

/* Compressed rows or columns: the elements of line i are indptr[i] .. indptr[i + 1]. */
static lam_status read_sparse(lam_embeddings *out, const char *path, hid_t file, const char *name) {
    lam_status status = LAM_OK;
    char encoding[LAM_H5AD_WORD_BYTES], legacy[LAM_H5AD_WORD_BYTES];
    int64_t shape[2] = {0, 0}, *starts = NULL, *indices = NULL, count = 0;
    double *data = NULL;
    dataset d = LAM_NO_DATASET;
    hid_t group = -1;
    H5_READ(group = H5Gopen2(file, name, H5P_DEFAULT), name);
    LAM_TRY_GOTO(lam_h5ad_word(path, group, "encoding-type", encoding), done);
    LAM_TRY_GOTO(lam_h5ad_word(path, group, "h5sparse_format", legacy), done);
    bool by_rows = strcmp(encoding, "csr_matrix") == 0 || strcmp(legacy, "csr") == 0;
    bool by_columns = strcmp(encoding, "csc_matrix") == 0 || strcmp(legacy, "csc") == 0;
    LAM_REQUIRE_GOTO(by_rows || by_columns, done, LAM_ERROR_FORMAT,
                     "%s: '%s' is no matrix, dense or sparse (CSR, CSC), but %s", path, name,
                     encoding[0] ? encoding : "a group");
    LAM_TRY_GOTO(read_sparse_shape(path, group, name, shape), done);
    int64_t lines = by_rows ? shape[0] : shape[1], others = by_rows ? shape[1] : shape[0];
    LAM_TRY_GOTO(lam_h5ad_numbers(path, group, "indptr", H5T_NATIVE_INT64, lines + 1, NULL, (void **)&starts),
                 done);
    LAM_TRY_GOTO(lam_h5ad_numbers(path, group, "indices", H5T_NATIVE_INT64, -1, &count, (void **)&indices),
                 done);
    LAM_TRY_GOTO(lam_h5ad_numbers(path, group, "data", H5T_NATIVE_DOUBLE, count, NULL, (void **)&data), done);
    LAM_REQUIRE_GOTO(starts[0] == 0 && starts[lines] == count, done, LAM_ERROR_FORMAT,
                     "%s: the sparse matrix '%s' is damaged: indptr does not span the data", path, name);
    for (int64_t line = 0; line < lines; line++) {
        LAM_REQUIRE_GOTO(starts[line] <= starts[line + 1], done, LAM_ERROR_FORMAT,
                         "%s: the sparse matrix '%s' is damaged: indptr falls", path, name);
    }
    LAM_TRY_GOTO(lam_h5ad_open(path, group, "data", &d), done);
    out->was_float32 = is_float32(d.type);
    LAM_TRY_GOTO(lam_h5ad_matrix_new(out, path, shape[0], shape[1]), done);
    for (int64_t line = 0; line < lines; line++) {
        for (int64_t i = starts[line]; i < starts[line + 1]; i++) {
            LAM_REQUIRE_GOTO(indices[i] >= 0 && indices[i] < others, done, LAM_ERROR_FORMAT,
                             "%s: the sparse matrix '%s' is damaged: an index is outside the shape", path,
                             name);
            int64_t row = by_rows ? line : indices[i], column = by_rows ? indices[i] : line;
            out->values[row * shape[1] + column] += data[i]; /* SciPy adds what is named twice */
        }
    }
done:
    lam_h5ad_close(&d);
    lam_free(starts);
    lam_free(indices);
    lam_free(data);
    if (group >= 0) H5Gclose(group);
    return status;
}

lam_status lam_h5ad_matrix(lam_embeddings *out, char ***names, const char *path, hid_t file,
                           const char *name) {
    char encoding[LAM_H5AD_WORD_BYTES];
    if (!lam_h5ad_is_kind(file, name, H5I_GROUP)) return read_dense(out, path, file, name);
    hid_t group = H5Gopen2(file, name, H5P_DEFAULT);
    LAM_REQUIRE(group >= 0, LAM_ERROR_FORMAT, "%s: '%s' is damaged", path, name);
    lam_status status = lam_h5ad_word(path, group, "encoding-type", encoding);
    H5Gclose(group);
    if (status != LAM_OK) return status;
    return strcmp(encoding, "dataframe") == 0 ? lam_h5ad_frame_matrix(out, names, path, file, name)
                                              : read_sparse(out, path, file, name);
}
