#include "base/h5ad.h"

#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/h5ad_parts.h"
#include "base/memory.h"
#include "base/table_store.h"

static lam_status allocate_matrix(lam_embeddings *out, const char *path, int64_t rows, int64_t columns) {
    int64_t count = 0;
    LAM_REQUIRE(!__builtin_mul_overflow(rows, columns, &count), LAM_ERROR_FORMAT,
                "%s: the matrix is too large", path);
    LAM_TRY(lam_alloc_array((void **)&out->values, count, sizeof *out->values));
    out->rows = rows;
    out->columns = columns;
    return LAM_OK;
}

static lam_status read_dense(lam_embeddings *out, const char *path, hid_t file, const char *name) {
    dataset d = LAM_NO_DATASET;
    lam_status status = LAM_OK;
    LAM_TRY(lam_h5ad_open(path, file, name, &d));
    H5T_class_t kind = H5Tget_class(d.type);
    LAM_REQUIRE_GOTO(kind == H5T_INTEGER || kind == H5T_FLOAT, done, LAM_ERROR_FORMAT,
                     "%s: '%s' holds no numbers", path, name);
    LAM_REQUIRE_GOTO(d.rank == 2, done, LAM_ERROR_FORMAT,
                     "%s: '%s' has %d dimensions; 2 are needed (rows, columns)", path, name, d.rank);
    out->was_float32 = kind == H5T_FLOAT && H5Tget_size(d.type) == 4;
    LAM_TRY_GOTO(allocate_matrix(out, path, (int64_t)d.dims[0], (int64_t)d.dims[1]), done);
    if (d.count > 0 && out->was_float32) {
        /* Into the second half of the block, then widened from the front: float i lies behind double i. */
        char *half = (char *)(out->values + d.count) - (size_t)d.count * sizeof(float);
        H5_READ(H5Dread(d.id, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, half), name);
        for (int64_t i = 0; i < d.count; i++) {
            float value;
            memcpy(&value, half + (size_t)i * sizeof value, sizeof value);
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
    bool by_rows = false, by_columns = false, legacy_rows = false, legacy_columns = false;
    int64_t shape[2] = {0, 0}, *starts = NULL, *indices = NULL, count = 0;
    double *data = NULL;
    dataset d = LAM_NO_DATASET;
    hid_t group = -1;
    H5_READ(group = H5Gopen2(file, name, H5P_DEFAULT), name);
    LAM_TRY_GOTO(lam_h5ad_attribute_is(path, group, "encoding-type", "csr_matrix", &by_rows), done);
    LAM_TRY_GOTO(lam_h5ad_attribute_is(path, group, "encoding-type", "csc_matrix", &by_columns), done);
    LAM_TRY_GOTO(lam_h5ad_attribute_is(path, group, "h5sparse_format", "csr", &legacy_rows), done);
    LAM_TRY_GOTO(lam_h5ad_attribute_is(path, group, "h5sparse_format", "csc", &legacy_columns), done);
    by_rows = by_rows || legacy_rows;
    LAM_REQUIRE_GOTO(by_rows || by_columns || legacy_columns, done, LAM_ERROR_FORMAT,
                     "%s: '%s' is no matrix, dense or sparse (CSR, CSC)", path, name);
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
    out->was_float32 = H5Tget_class(d.type) == H5T_FLOAT && H5Tget_size(d.type) == 4;
    LAM_TRY_GOTO(allocate_matrix(out, path, shape[0], shape[1]), done);
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

typedef struct name_list {
    char text[400];
    size_t used;
    const char *group;
} name_list;

static herr_t list_name(hid_t group, const char *name, const H5L_info_t *information, void *data) {
    name_list *list = data;
    (void)group;
    (void)information;
    size_t length = strlen(list->group) + strlen(name) + 4;
    if (list->used + length >= sizeof list->text) return 0;
    list->used += (size_t)snprintf(list->text + list->used, sizeof list->text - list->used, "%s%s/%s",
                                   list->used > 0 ? ", " : "", list->group, name);
    return 0;
}

/* Where the matrix is: X, layers/KEY or obsm/KEY. */
static lam_status find_matrix(const char *path, hid_t file, const char *key, char **name) {
    static const char *const groups[] = {"layers", "obsm"};
    bool is_x = key == NULL || strcmp(key, "X") == 0;
    if (is_x && lam_h5ad_exists(file, "X")) return lam_text_copy(name, "X");
    name_list list = {{0}, 0, NULL};
    for (size_t i = 0; i < 2; i++) {
        if (!lam_h5ad_is_kind(file, groups[i], H5I_GROUP)) continue;
        size_t prefix = strlen(groups[i]);
        if (!is_x) {
            bool named = strncmp(key, groups[i], prefix) == 0 && key[prefix] == '/';
            char *candidate = NULL;
            LAM_TRY(lam_text_format(&candidate, "%s/%s", groups[i], named ? key + prefix + 1 : key));
            if (lam_h5ad_exists(file, candidate)) {
                *name = candidate;
                return LAM_OK;
            }
            lam_free(candidate);
        }
        list.group = groups[i];
        hid_t group = H5Gopen2(file, groups[i], H5P_DEFAULT);
        if (group < 0) continue;
        H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, list_name, &list);
        H5Gclose(group);
    }
    LAM_FAIL(LAM_ERROR_INPUT, "%s: no matrix '%s' in the file%s%s", path, is_x ? "X" : key,
             list.used > 0                ? "; it has: "
             : lam_h5ad_exists(file, "X") ? "; it has: X"
                                          : ", nor another one; is it of "
                                            "AnnData?",
             list.text);
}

static lam_status read_index(const char *path, hid_t frame, const char *name, texts *out) {
    texts key = {0};
    bool found = false;
    LAM_TRY(lam_h5ad_attribute(path, frame, "_index", &found, &key));
    const char *column = found && key.count == 1 ? key.items[0] : "_index";
    lam_status status =
        lam_h5ad_exists(frame, column)
            ? lam_h5ad_column(path, frame, column, 0, out)
            : lam_fail(LAM_ERROR_FORMAT, __FILE__, __LINE__, "%s: %s has no index '%s'", path, name, column);
    lam_h5ad_free_texts(&key);
    return status;
}

static herr_t add_link(hid_t group, const char *name, const H5L_info_t *information, void *data) {
    (void)group;
    (void)information;
    texts *list = data;
    size_t count = (size_t)list->count;
    if (lam_grow((void **)&list->items, count * sizeof *list->items, (count + 1) * sizeof *list->items) !=
        LAM_OK) {
        return -1;
    }
    char *copy = NULL;
    if (lam_text_copy(&copy, name) != LAM_OK) return -1;
    list->items[list->count++] = copy;
    return 0;
}

/* The columns in the order of the frame; of a frame that does not say, by name. */
static lam_status list_columns(const char *path, hid_t frame, texts *out) {
    bool found = false;
    LAM_TRY(lam_h5ad_attribute(path, frame, "column-order", &found, out));
    if (found || H5Aexists(frame, "column-order") > 0)
        return LAM_OK; /* h5py writes an empty list as floats */
    texts links = {0}, key = {0};
    char **packed = NULL;
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(H5Literate(frame, H5_INDEX_NAME, H5_ITER_INC, NULL, add_link, &links) >= 0, done,
                     LAM_ERROR_MEMORY, "%s: no memory for the names of the columns", path);
    LAM_TRY_GOTO(lam_h5ad_attribute(path, frame, "_index", &found, &key), done);
    const char *index = found && key.count == 1 ? key.items[0] : "_index";
    int64_t kept = 0;
    for (int64_t i = 0; i < links.count; i++) {
        bool column = strcmp(links.items[i], index) != 0 && strcmp(links.items[i], "__categories") != 0;
        const char *name = links.items[i];
        links.items[i] = links.items[kept];
        links.items[kept] = name;
        kept += column;
    }
    LAM_TRY_GOTO(lam_texts_pack(&packed, links.items, kept), done);
    *out = (texts){kept, (const char **)packed, NULL};
done:
    for (int64_t i = 0; i < links.count; i++) free((void *)(uintptr_t)links.items[i]);
    lam_h5ad_free_texts(&links);
    lam_h5ad_free_texts(&key);
    return status;
}

static lam_status read_obs(lam_embeddings *out, const char *path, hid_t file) {
    lam_status status = LAM_OK;
    hid_t frame = -1;
    texts names = {0}, column = {0};
    LAM_REQUIRE(!lam_h5ad_is_kind(file, "obs", H5I_DATASET), LAM_ERROR_FORMAT,
                "%s: written by anndata before 0.7; convert it: python -c \"import anndata; "
                "anndata.read_h5ad('%s').write_h5ad('new.h5ad')\"",
                path, path);
    LAM_REQUIRE(lam_h5ad_exists(file, "obs"), LAM_ERROR_FORMAT, "%s: no obs (the metadata of the rows)",
                path);
    H5_READ(frame = H5Gopen2(file, "obs", H5P_DEFAULT), "obs");
    LAM_TRY_GOTO(read_index(path, frame, "obs", &column), done);
    LAM_REQUIRE_GOTO(column.count == out->rows, done, LAM_ERROR_FORMAT,
                     "%s: obs has %lld rows, the matrix %lld", path, (long long)column.count,
                     (long long)out->rows);
    LAM_TRY_GOTO(lam_texts_pack(&out->index, column.items, column.count), done);
    LAM_TRY_GOTO(list_columns(path, frame, &names), done);
    LAM_TRY_GOTO(lam_table_create(&out->obs, out->rows), done);
    LAM_TRY_GOTO(lam_table_store_origin(out->obs, path, NULL), done);
    for (int64_t i = 0; i < names.count; i++) {
        if (strcmp(names.items[i], "index") == 0) continue;
        lam_h5ad_free_texts(&column);
        LAM_TRY_GOTO(lam_h5ad_column(path, frame, names.items[i], 0, &column), done);
        LAM_REQUIRE_GOTO(column.count == out->rows, done, LAM_ERROR_FORMAT,
                         "%s: obs column '%s' has %lld rows, the matrix %lld", path, names.items[i],
                         (long long)column.count, (long long)out->rows);
        LAM_TRY_GOTO(lam_table_add(out->obs, names.items[i], column.items), done);
    }
done:
    lam_h5ad_free_texts(&column);
    lam_h5ad_free_texts(&names);
    if (frame >= 0) H5Gclose(frame);
    return status;
}

static lam_status read_var_names(const char *path, hid_t file, int64_t columns, char ***names) {
    lam_status status = LAM_OK;
    texts index = {0};
    hid_t frame = -1;
    if (!lam_h5ad_is_kind(file, "var", H5I_GROUP)) return LAM_OK;
    H5_READ(frame = H5Gopen2(file, "var", H5P_DEFAULT), "var");
    LAM_TRY_GOTO(read_index(path, frame, "var", &index), done);
    LAM_REQUIRE_GOTO(index.count == columns, done, LAM_ERROR_FORMAT,
                     "%s: var has %lld rows, the matrix %lld columns", path, (long long)index.count,
                     (long long)columns);
    LAM_TRY_GOTO(lam_texts_pack(names, index.items, index.count), done);
done:
    lam_h5ad_free_texts(&index);
    if (frame >= 0) H5Gclose(frame);
    return status;
}

/* A text of one element, as `embed` and `map` write it; something else under that name is not ours. */
static lam_status read_provenance(lam_embeddings *out, const char *path, hid_t file) {
    texts t = {0};
    dataset d = LAM_NO_DATASET;
    if (!lam_h5ad_is_kind(file, "uns/lamella", H5I_DATASET)) return LAM_OK;
    LAM_TRY(lam_h5ad_open(path, file, "uns/lamella", &d));
    bool ours = d.count == 1 && H5Tget_class(d.type) == H5T_STRING;
    lam_h5ad_close(&d);
    if (!ours) return LAM_OK;
    LAM_TRY(lam_h5ad_column(path, file, "uns/lamella", 1, &t));
    lam_status status = lam_text_copy(&out->provenance, t.items[0]);
    lam_h5ad_free_texts(&t);
    return status;
}

static lam_status open_file(const char *path, hid_t *out) {
    lam_reader *probe = NULL;
    lam_status status = LAM_OK;
    hid_t access = -1, file = -1;
    /* A missing file or permission is told in the words of base/files, not of HDF5. */
    LAM_TRY(lam_reader_open(&probe, path));
    lam_reader_close(&probe);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    LAM_REQUIRE(H5Fis_hdf5(path) > 0, LAM_ERROR_FORMAT, "%s: not an HDF5 file, so no .h5ad; is it whole?",
                path);
    access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    H5Pset_file_locking(access, false, true); /* network folders often refuse locks */
    H5_READ(file = H5Fopen(path, H5F_ACC_RDONLY, access), "the file");
    *out = file;
done:
    H5Pclose(access);
    return status;
}

lam_status lam_h5ad_matrices(const char *path, char ***names, int64_t *count) {
    texts links = {0};
    lam_status status = LAM_OK;
    hid_t file = -1, group = -1;
    *names = NULL;
    *count = 0;
    LAM_TRY(open_file(path, &file));
    if (lam_h5ad_is_kind(file, "obsm", H5I_GROUP)) {
        H5_READ(group = H5Gopen2(file, "obsm", H5P_DEFAULT), "obsm");
        LAM_REQUIRE_GOTO(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, add_link, &links) >= 0, done,
                         LAM_ERROR_MEMORY, "%s: no memory for the names of the matrices", path);
    }
    LAM_TRY_GOTO(lam_texts_pack(names, links.items, links.count), done);
    *count = links.count;
done:
    for (int64_t i = 0; i < links.count; i++) free((void *)(uintptr_t)links.items[i]);
    lam_h5ad_free_texts(&links);
    if (group >= 0) H5Gclose(group);
    H5Fclose(file);
    return status;
}

lam_status lam_h5ad_read(lam_embeddings *out, char ***names, const char *path, const char *key) {
    lam_status status = LAM_OK;
    char *matrix = NULL;
    hid_t file = -1;
    *names = NULL;
    LAM_TRY(open_file(path, &file));
    LAM_TRY_GOTO(find_matrix(path, file, key, &matrix), done);
    if (lam_h5ad_is_kind(file, matrix, H5I_GROUP)) {
        LAM_TRY_GOTO(read_sparse(out, path, file, matrix), done);
    } else {
        LAM_TRY_GOTO(read_dense(out, path, file, matrix), done);
    }
    LAM_TRY_GOTO(read_obs(out, path, file), done);
    LAM_TRY_GOTO(read_provenance(out, path, file), done);
    if (strncmp(matrix, "obsm/", 5) != 0) LAM_TRY_GOTO(read_var_names(path, file, out->columns, names), done);
done:
    lam_free(matrix);
    H5Fclose(file);
    return status;
}
