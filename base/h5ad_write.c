#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/h5ad.h"
#include "base/memory.h"
#include "base/utf8.h"

typedef struct file {
    const char *path; /* as the user named it */
    hid_t id, text, group_plan, dataset_plan;
    lam_arena converted; /* text that was not UTF-8 */
} file;

/* A file that could not be written cannot be closed either, and HDF5 1.10 ends the process by a fault when it tries again at
 * exit. Every file of ours is closed by us. */
__attribute__((constructor)) static void leave_exit_alone(void) { H5dont_atexit(); }

/* HDF5 describes a write that failed by file, time and address; the reason is what a user can do something about. */
static lam_status write_failed(const char *path, const char *what) {
    lam_status status = lam_h5ad_fail(LAM_ERROR_IO, path, what);
    const char *number = strstr(lam_last_error(), "errno = ");
    if (number == NULL) return status;
    LAM_FAIL(status, "%s: cannot be written: %s", path, lam_why((int)strtol(number + 8, NULL, 10)));
}

/* Every HDF5 call that may write: fault first, then the call. */
#define H5_WRITE(call, what)                                                                                 \
    do {                                                                                                     \
        LAM_REQUIRE_GOTO(!lam_fault_hit(LAM_FAULT_WRITE), done, LAM_ERROR_IO, "%s: cannot write (%s)",       \
                         f->path, what);                                                                     \
        if ((call) < 0) {                                                                                    \
            status = write_failed(f->path, "cannot write " what);                                            \
            goto done;                                                                                       \
        }                                                                                                    \
    } while (0)

static lam_status put_attribute(file *f, hid_t object, const char *name, hid_t type, int64_t count,
                                const void *data) {
    lam_status status = LAM_OK;
    hsize_t length = (hsize_t)count;
    hid_t attribute = -1, space = count < 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &length, NULL);
    H5_WRITE(attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT), "an attribute");
    if (count != 0) H5_WRITE(H5Awrite(attribute, type, data), "an attribute");
done:
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return status;
}

static lam_status put_encoding(file *f, hid_t object, const char *type, const char *version) {
    LAM_TRY(put_attribute(f, object, "encoding-type", f->text, -1, &type));
    return put_attribute(f, object, "encoding-version", f->text, -1, &version);
}

static lam_status put_group(file *f, hid_t parent, const char *name, const char *encoding,
                            const char *version, hid_t *out) {
    lam_status status = LAM_OK;
    hid_t group = -1;
    H5_WRITE(group = H5Gcreate2(parent, name, H5P_DEFAULT, f->group_plan, H5P_DEFAULT), "a group");
    if (encoding != NULL) LAM_TRY_GOTO(put_encoding(f, group, encoding, version), done);
    if (out != NULL) {
        *out = group;
        return LAM_OK;
    }
done:
    if (group >= 0) H5Gclose(group);
    return status;
}

/* A name with slashes is a path in HDF5, which is how h5py and anndata take it too. */
static lam_status put_parents(file *f, hid_t parent, const char *name) {
    char *prefix = NULL;
    lam_status status = LAM_OK;
    if (strchr(name, '/') == NULL) return LAM_OK;
    LAM_TRY(lam_text_copy(&prefix, name));
    for (char *slash = strchr(prefix + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        htri_t present = H5Lexists(parent, prefix, H5P_DEFAULT);
        if (present == 0) LAM_TRY_GOTO(put_group(f, parent, prefix, NULL, NULL, NULL), done);
        *slash = '/';
    }
done:
    lam_free(prefix);
    return status;
}

/* rank 0: a scalar. `data` NULL: the dataset is left for the caller to fill, in *out. */
static lam_status put_dataset(file *f, hid_t parent, const char *name, const char *encoding, int rank,
                              const int64_t *shape, hid_t file_type, hid_t type, const void *data,
                              hid_t *out) {
    hsize_t dims[2] = {0, 0};
    int64_t count = 1;
    lam_status status = LAM_OK;
    hid_t dataset = -1;
    for (int i = 0; i < rank; i++) {
        dims[i] = (hsize_t)shape[i];
        count *= shape[i];
    }
    hid_t space = rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(rank, dims, NULL);
    LAM_TRY_GOTO(put_parents(f, parent, name), done);
    H5_WRITE(dataset = H5Dcreate2(parent, name, file_type, space, H5P_DEFAULT, f->dataset_plan, H5P_DEFAULT),
             "a dataset");
    LAM_TRY_GOTO(put_encoding(f, dataset, encoding, "0.2.0"), done);
    if (data != NULL && count > 0) {
        H5_WRITE(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), "a dataset");
    }
    if (out != NULL) {
        *out = dataset;
        dataset = -1;
    }
done:
    if (dataset >= 0) H5Dclose(dataset);
    if (space >= 0) H5Sclose(space);
    return status;
}

/* Rows of `columns` values, `stride` apart. */
static lam_status put_matrix(file *f, hid_t group, const char *name, int64_t rows, int64_t columns,
                             const double *values, int64_t stride, bool as_float32) {
    int64_t shape[2] = {rows, columns};
    if (!as_float32) {
        return put_dataset(f, group, name, "array", 2, shape, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, values,
                           NULL);
    }
    lam_status status = LAM_OK;
    hid_t dataset = -1, in_file = -1, in_memory = -1;
    float *block = NULL;
    int64_t block_rows = columns > 0 ? ((int64_t)1 << 20) / columns + 1 : 1;
    if (block_rows > rows) block_rows = rows;
    LAM_TRY_GOTO(
        put_dataset(f, group, name, "array", 2, shape, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, NULL, &dataset),
        done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&block, block_rows * columns, sizeof *block), done);
    in_file = H5Dget_space(dataset);
    for (int64_t row = 0; row < rows && columns > 0; row += block_rows) {
        int64_t taken = rows - row < block_rows ? rows - row : block_rows;
        hsize_t start[2] = {(hsize_t)row, 0}, size[2] = {(hsize_t)taken, (hsize_t)columns};
        for (int64_t r = 0; r < taken; r++)
            for (int64_t i = 0; i < columns; i++)
                block[r * columns + i] = (float)values[(row + r) * stride + i];
        if (in_memory >= 0) H5Sclose(in_memory);
        in_memory = H5Screate_simple(2, size, NULL);
        H5_WRITE(H5Sselect_hyperslab(in_file, H5S_SELECT_SET, start, NULL, size, NULL), "a matrix");
        H5_WRITE(H5Dwrite(dataset, H5T_NATIVE_FLOAT, in_memory, in_file, H5P_DEFAULT, block), "a matrix");
    }
done:
    if (in_memory >= 0) H5Sclose(in_memory);
    if (in_file >= 0) H5Sclose(in_file);
    if (dataset >= 0) H5Dclose(dataset);
    lam_free(block);
    return status;
}

typedef enum column_kind { COLUMN_TEXT, COLUMN_INTEGER, COLUMN_REAL } column_kind;

/* Digits are not yet a number: "01" is a well, "12E03" a plate, 20 digits a barcode. A number is what can be
 * read back without loss of meaning. */
static column_kind kind_of_cell(const char *cell) {
    const char *at = cell + (cell[0] == '-');
    size_t digits = strspn(at, "0123456789");
    if (digits == 0 && at[0] != '.') return COLUMN_TEXT;
    if (digits > 1 && at[0] == '0') return COLUMN_TEXT;
    if (at[digits] == '\0') return digits > 18 ? COLUMN_TEXT : COLUMN_INTEGER;
    const char *exponent = strpbrk(at, "eE");
    if (exponent != NULL && strchr(at, '.') == NULL && exponent[1] != '-' && exponent[1] != '+')
        return COLUMN_TEXT;
    return COLUMN_REAL;
}

static column_kind kind_of_column(const lam_table *obs, int column) {
    bool gaps = false, real = false, long_integer = false;
    if (!lam_table_is_numeric(obs, column)) return COLUMN_TEXT;
    for (int64_t row = 0; row < lam_table_rows(obs); row++) {
        const char *cell = lam_table_cell(obs, row, column);
        if (cell[0] == '\0') {
            gaps = true;
            continue;
        }
        column_kind kind = kind_of_cell(cell);
        if (kind == COLUMN_TEXT) return COLUMN_TEXT;
        if (kind == COLUMN_REAL) real = true;
        if (kind == COLUMN_INTEGER && strlen(cell) > 15) long_integer = true;
    }
    /* Gaps need NaN, so the column must be float64, which holds integers of 15 digits. */
    if (!gaps && !real) return COLUMN_INTEGER;
    return long_integer ? COLUMN_TEXT : COLUMN_REAL;
}

static lam_status put_column(file *f, hid_t group, const char *name, const lam_table *obs, int column) {
    int64_t rows = lam_table_rows(obs);
    lam_status status = LAM_OK;
    column_kind kind = kind_of_column(obs, column);
    hid_t file_type = kind == COLUMN_TEXT ? f->text : kind == COLUMN_INTEGER ? H5T_STD_I64LE : H5T_IEEE_F64LE;
    hid_t type = kind == COLUMN_TEXT      ? f->text
                 : kind == COLUMN_INTEGER ? H5T_NATIVE_INT64
                                          : H5T_NATIVE_DOUBLE;
    union {
        const char *text;
        int64_t integer;
        double real;
    } *cells = NULL;
    _Static_assert(sizeof *cells == 8, "the three kinds of cell share an array");
    LAM_TRY(lam_alloc_array((void **)&cells, rows, sizeof *cells));
    for (int64_t row = 0; row < rows; row++) {
        const char *cell = lam_table_cell(obs, row, column);
        if (kind == COLUMN_TEXT) {
            LAM_TRY_GOTO(lam_utf8_text(&f->converted, cell, &cells[row].text), done);
        } else if (kind == COLUMN_INTEGER) {
            cells[row].integer = strtoll(cell, NULL, 10);
        } else if (!lam_text_is_number(cell, &cells[row].real)) {
            cells[row].real = (double)NAN;
        }
    }
    status = put_dataset(f, group, name, kind == COLUMN_TEXT ? "string-array" : "array", 1, &rows, file_type,
                         type, cells, NULL);
done:
    lam_free(cells);
    return status == LAM_OK ? LAM_OK : lam_fail_context(status, "obs column '%s'", name);
}

/* table NULL: an index alone. */
static lam_status put_frame(file *f, const char *name, const lam_table *table, int64_t rows,
                            const char *const *index) {
    lam_status status = LAM_OK;
    const char **order = NULL, **names = NULL, *index_name = "_index";
    hid_t group = -1;
    int columns = table == NULL ? 0 : lam_table_columns(table), kept = 0;
    LAM_TRY_GOTO(put_group(f, f->id, name, "dataframe", "0.2.0", &group), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&order, columns, sizeof *order), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, rows, sizeof *names), done);
    for (int64_t row = 0; row < rows; row++) {
        LAM_TRY_GOTO(lam_utf8_text(&f->converted, index[row], &names[row]), done);
    }
    for (int column = 0; column < columns; column++) {
        const char *title = lam_table_name(table, column);
        if (strcmp(title, "index") == 0) continue;
        size_t length = strlen(title);
        LAM_REQUIRE_GOTO(length > 0 && strcmp(title, ".") != 0 && strcmp(title, "_index") != 0 &&
                             title[0] != '/' && title[length - 1] != '/' && strstr(title, "//") == NULL,
                         done, LAM_ERROR_INPUT,
                         "%s: a column of the metadata is named '%s', which .h5ad cannot hold; "
                         "rename it",
                         f->path, title);
        LAM_TRY_GOTO(lam_utf8_text(&f->converted, title, &order[kept++]), done);
    }
    LAM_TRY_GOTO(put_attribute(f, group, "_index", f->text, -1, &index_name), done);
    LAM_TRY_GOTO(put_attribute(f, group, "column-order", f->text, kept, order), done);
    LAM_TRY_GOTO(put_dataset(f, group, "_index", "string-array", 1, &rows, f->text, f->text, names, NULL),
                 done);
    kept = 0;
    for (int column = 0; column < columns; column++) {
        if (strcmp(lam_table_name(table, column), "index") == 0) continue;
        LAM_TRY_GOTO(put_column(f, group, order[kept++], table, column), done);
    }
done:
    if (group >= 0) H5Gclose(group);
    lam_free(order);
    lam_free(names);
    return status;
}

/* var: its names, or d0, d1, ... */
static lam_status put_var(file *f, int64_t columns, const char *const *var) {
    if (var != NULL) return put_frame(f, "var", NULL, columns, var);
    enum { NAME_BYTES = 24 };
    char *text = NULL;
    const char **names = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&text, columns, NAME_BYTES), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, columns, sizeof *names), done);
    for (int64_t i = 0; i < columns; i++) {
        snprintf(text + i * NAME_BYTES, NAME_BYTES, "d%lld", (long long)i);
        names[i] = text + i * NAME_BYTES;
    }
    LAM_TRY_GOTO(put_frame(f, "var", NULL, columns, names), done);
done:
    lam_free(names);
    lam_free(text);
    return status;
}

static lam_status put_obsm(file *f, const lam_h5ad_content *c) {
    hid_t group = -1;
    lam_status status = put_group(f, f->id, "obsm", "dict", "0.1.0", &group);
    for (int64_t k = 0; k < c->matrices && status == LAM_OK; k++)
        status = put_matrix(f, group, c->names[k], c->rows, c->columns, c->values + k * c->columns,
                            c->matrices * c->columns, true);
    if (group >= 0) H5Gclose(group);
    return status;
}

static lam_status put_all(file *f, const lam_h5ad_content *c) {
    static const char *const empty[] = {"layers", "obsp", "varm", "varp"};
    lam_status status = LAM_OK;
    hid_t uns = -1;
    int64_t stride = c->matrices ? c->matrices * c->columns : c->columns;
    LAM_TRY_GOTO(put_encoding(f, f->id, "anndata", "0.1.0"), done);
    LAM_TRY_GOTO(put_matrix(f, f->id, "X", c->rows, c->columns, c->values + stride - c->columns, stride,
                            c->as_float32),
                 done);
    LAM_TRY_GOTO(put_frame(f, "obs", c->obs, c->rows, c->index), done);
    LAM_TRY_GOTO(put_var(f, c->columns, c->var), done);
    LAM_TRY_GOTO(put_obsm(f, c), done);
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        LAM_TRY_GOTO(put_group(f, f->id, empty[i], "dict", "0.1.0", NULL), done);
    }
    LAM_TRY_GOTO(put_group(f, f->id, "uns", "dict", "0.1.0", &uns), done);
    if (c->provenance != NULL) {
        LAM_TRY_GOTO(
            put_dataset(f, uns, "lamella", "string", 0, NULL, f->text, f->text, &c->provenance, NULL), done);
    }
    H5_WRITE(H5Fflush(f->id, H5F_SCOPE_GLOBAL), "the file");
done:
    if (uns >= 0) H5Gclose(uns);
    return status;
}

static lam_status sync_file(const char *path) {
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    LAM_REQUIRE(descriptor >= 0, LAM_ERROR_IO, "%s: %s", path, strerror(errno));
    int code = fsync(descriptor), reason = errno;
    close(descriptor);
    LAM_REQUIRE(code == 0, LAM_ERROR_IO, "%s: %s", path, strerror(reason));
    return LAM_OK;
}

/* The partial file becomes `path`. */
static lam_status replace_file(const char *partial, const char *path) {
    LAM_REQUIRE(!lam_fault_hit(LAM_FAULT_WRITE), LAM_ERROR_IO, "%s: cannot write (sync)", path);
    LAM_TRY(sync_file(partial));
    char *copy = NULL;
    LAM_TRY(lam_text_copy(&copy, path));
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(rename(partial, path) == 0, done, LAM_ERROR_IO, "%s: %s", path, strerror(errno));
    lam_sync_folder(dirname(copy)); /* cuts its argument */
done:
    lam_free(copy);
    return status;
}

static herr_t close_file(file *f) {
    hid_t id = f->id;
    f->id = -1;
    return H5Fclose(id);
}

lam_status lam_h5ad_write(const char *path, const lam_h5ad_content *content) {
    file opened = {path, -1, -1, -1, -1, {NULL}}, *f = &opened;
    lam_status status = LAM_OK;
    lam_writer *probe = NULL;
    char *partial = NULL;
    lam_partial entry = {NULL, NULL};
    hid_t creation = -1, access = -1;
    /* A missing folder or permission is told in the words of base/files, not of HDF5. */
    LAM_TRY(lam_writer_open(&probe, path));
    lam_writer_abort(&probe);
    LAM_TRY(lam_text_format(&partial, "%s.partial-%ld", path, (long)getpid()));
    entry.path = partial;
    lam_partial_add(&entry);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    f->text = H5Tcopy(H5T_C_S1);
    f->group_plan = H5Pcreate(H5P_GROUP_CREATE);
    f->dataset_plan = H5Pcreate(H5P_DATASET_CREATE);
    creation = H5Pcreate(H5P_FILE_CREATE);
    access = H5Pcreate(H5P_FILE_ACCESS);
    /* Times would make equal runs differ; the newer format holds long lists of columns in an attribute. */
    bool ready = H5Tset_size(f->text, H5T_VARIABLE) >= 0 && H5Tset_cset(f->text, H5T_CSET_UTF8) >= 0 &&
                 H5Pset_obj_track_times(f->group_plan, false) >= 0 &&
                 H5Pset_obj_track_times(f->dataset_plan, false) >= 0 &&
                 H5Pset_obj_track_times(creation, false) >= 0 &&
                 H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V110) >= 0 &&
                 H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0;
    if (!ready) {
        status = lam_h5ad_fail(LAM_ERROR_EXTERNAL, path, "HDF5 cannot be set up");
        goto done;
    }
    H5_WRITE(f->id = H5Fcreate(partial, H5F_ACC_TRUNC, creation, access), "the file");
    LAM_TRY_GOTO(put_all(f, content), done);
    H5_WRITE(close_file(f), "the file");
    LAM_TRY_GOTO(replace_file(partial, path), done);
done:
    if (f->id >= 0) H5Fclose(f->id);
    if (f->text >= 0) H5Tclose(f->text);
    if (f->group_plan >= 0) H5Pclose(f->group_plan);
    if (f->dataset_plan >= 0) H5Pclose(f->dataset_plan);
    if (creation >= 0) H5Pclose(creation);
    if (access >= 0) H5Pclose(access);
    lam_arena_free(&f->converted);
    if (status != LAM_OK) unlink(partial);
    lam_partial_drop(&entry);
    lam_free(partial);
    return status;
}
