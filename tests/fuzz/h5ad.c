/* A valid HDF5 file in memory whose contents come from the bytes: encodings, types, shapes, codes, indptr, names, packed
 * chunks. HDF5 itself is not under test (it may fall over damaged files); what is said about a valid one is.
 *
 * Every decision is one byte; 0, also where the bytes are used up, is the common case, so that short inputs make
 * readable files. */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/embeddings.h"
#include "base/h5ad_parts.h"
#include "base/log.h"
#include "base/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { MAX_ELEMENTS = 64, TEXT_BYTES = 24 };

static const uint8_t *at, *end;
static hsize_t rows;
static hid_t with_parents; /* a link whose name is a path makes its groups */

static void require(int condition) {
    if (!condition) abort();
}

static unsigned byte(void) { return at < end ? *at++ : 0; }

static int64_t number(void) {
    static const int64_t special[] = {INT64_MAX, INT64_MIN, INT64_MAX / 8, INT32_MAX, -1, 255, 1 << 20, 0};
    unsigned b = byte();
    return b < 128 ? b % 8 : b < 192 ? special[b % 8] : (int8_t)byte();
}

/* From the list (`usual`: its place where the byte is 0), or bytes of the input. */
static const char *word(char *text, const char *const *list, unsigned count, unsigned usual) {
    unsigned b = byte();
    if (b < 224) return list[(b + usual) % count];
    unsigned length = b % TEXT_BYTES;
    for (unsigned i = 0; i < length; i++) text[i] = (char)byte();
    text[length] = '\0';
    return text;
}

static hid_t text_type(size_t length) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, length);
    return type;
}

static void put_text(hid_t object, const char *name, const char *text) {
    unsigned form = byte() % 16;
    hsize_t one = form == 3 ? 2 : 1;
    const char *texts[2] = {text, "more"};
    hid_t type = form == 1   ? text_type(strlen(text) + 1)
                 : form == 2 ? H5Tcopy(H5T_NATIVE_INT)
                             : text_type(H5T_VARIABLE);
    hid_t space = form == 3 || form == 4 ? H5Screate_simple(1, &one, NULL)
                                         : H5Screate(form == 5 ? H5S_NULL : H5S_SCALAR);
    hid_t attribute = form == 6 ? -1 : H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    static const int some[TEXT_BYTES];
    if (attribute >= 0) {
        H5Awrite(attribute, type, form == 1 ? (const void *)text : form == 2 ? (const void *)some : texts);
        H5Aclose(attribute);
    }
    H5Sclose(space);
    H5Tclose(type);
}

static void put_numbers(hid_t object, const char *name) {
    int64_t values[3];
    unsigned b = byte();
    hsize_t count = b < 200 ? 2 : b % 4;
    /* No shape that asks for much memory: small numbers, or ones that are refused. */
    for (int i = 0; i < 3; i++) values[i] = i == 0 && b < 128 ? (int64_t)rows : number();
    for (int i = 0; i < 3; i++)
        if (values[i] > 8 && values[i] < INT64_MAX / 8) values[i] = 8;
    hid_t space = H5Screate_simple(1, &count, NULL);
    hid_t attribute = H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute >= 0) {
        H5Awrite(attribute, H5T_NATIVE_INT64, values);
        H5Aclose(attribute);
    }
    H5Sclose(space);
}

static hid_t enumeration(unsigned form) {
    hid_t type = H5Tenum_create(form == 1 ? H5T_STD_I32LE : H5T_STD_I8LE);
    int32_t wide = 0;
    signed char no = form == 2 ? 5 : 0, yes = 1;
    H5Tenum_insert(type, form == 3 ? "NO" : "FALSE", form == 1 ? (void *)&wide : &no);
    wide = 1;
    H5Tenum_insert(type, "TRUE", form == 1 ? (void *)&wide : &yes);
    return type;
}

/* The type of a dataset; *raw false where its elements are not bytes of the input. */
static hid_t any_type(unsigned kind, bool *raw) {
    hid_t type;
    *raw = true;
    switch (kind % 20) {
    case 0: *raw = false; return text_type(H5T_VARIABLE);
    case 1: return H5Tcopy(H5T_STD_I8LE);
    case 2: return H5Tcopy(H5T_IEEE_F64LE);
    case 3: return H5Tcopy(H5T_IEEE_F32LE);
    case 4: return H5Tcopy(H5T_STD_I64LE);
    case 5: return H5Tcopy(H5T_STD_U64BE);
    case 6: return H5Tcopy(H5T_STD_U16LE);
    case 7: return H5Tcopy(H5T_STD_I32BE);
    case 8: return enumeration(0);
    case 9: return text_type(1 + byte() % 8);
    case 10: /* float16 */
        type = H5Tcopy(H5T_IEEE_F32LE);
        H5Tset_fields(type, 15, 10, 5, 0, 10);
        H5Tset_size(type, 2);
        H5Tset_ebias(type, 15);
        return type;
    case 11: return H5Tcopy(H5T_NATIVE_LDOUBLE);
    case 12: return enumeration(1);
    case 13: return enumeration(2);
    case 14: return enumeration(3);
    case 15: return H5Tcreate(H5T_OPAQUE, 8);
    case 16: *raw = false; return H5Tvlen_create(H5T_STD_I32LE);
    case 17: *raw = false; return H5Tcopy(H5T_STD_REF_OBJ);
    case 18:
        type = H5Tcreate(H5T_COMPOUND, 16);
        H5Tinsert(type, "r", 0, H5T_IEEE_F64LE);
        H5Tinsert(type, "i", 8, H5T_IEEE_F64LE);
        return type;
    default: return H5Tcopy(H5T_STD_B8LE);
    }
}

static void fill(hid_t dataset, hid_t type, bool raw, hsize_t count, bool small) {
    static const char *const words[] = {"", "a", "b", "True", "0.5", "nan", "x/y", "\n"};
    unsigned char block[MAX_ELEMENTS * 16] = {0};
    size_t size = H5Tget_size(type);
    if (!raw && H5Tis_variable_str(type) > 0) {
        char text[MAX_ELEMENTS][TEXT_BYTES];
        const char *texts[MAX_ELEMENTS];
        for (hsize_t i = 0; i < count; i++)
            texts[i] = byte() == 255 ? NULL : word(text[i], words, 8, (unsigned)i);
        H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts);
    } else if (raw && small && size <= 8 && H5Tget_class(type) == H5T_INTEGER) {
        int64_t numbers[MAX_ELEMENTS];
        for (hsize_t i = 0; i < count; i++) numbers[i] = number();
        H5Dwrite(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers);
    } else if (raw) {
        for (size_t i = 0; i < size * (size_t)count; i++) block[i] = (unsigned char)byte();
        H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, block);
    }
}

/* `rank` and `length` are what a right file has; `kind` its type. */
static hid_t put_dataset(hid_t parent, const char *name, unsigned rank, hsize_t length, unsigned kind) {
    static const H5Z_filter_t filters[] = {32000, 32015, H5Z_FILTER_DEFLATE, H5Z_FILTER_SHUFFLE, 32001};
    hsize_t dims[3] = {length, rank == 2 ? 2 : 1, 1}, count = 1;
    unsigned form = byte(), layout = byte();
    bool raw = true, exact = false;
    if (form >= 160) kind = byte();
    if (form >= 192) dims[0] = byte() % 5;
    if (form >= 208) dims[1] = byte() % 4;
    if (form >= 224) rank = byte() % 4;
    hid_t type = any_type(kind, &raw), plan = H5Pcreate(H5P_DATASET_CREATE), dataset = -1;
    hid_t space = form == 255 ? H5Screate(H5S_NULL)
                  : rank == 0 ? H5Screate(H5S_SCALAR)
                              : H5Screate_simple((int)rank, dims, NULL);
    for (unsigned i = 0; i < rank; i++) count *= dims[i];
    if (layout >= 128 && rank > 0 && count > 0) {
        H5Pset_chunk(plan, (int)rank, dims);
        unsigned used = layout % 4;
        bool whole = true;
        for (unsigned i = 0; i < used; i++) {
            H5Z_filter_t filter = filters[byte() % 5];
            exact = exact || (whole && (filter == 32000 || filter == 32015));
            whole = whole && filter == H5Z_FILTER_SHUFFLE;
            unsigned level = 1;
            /* Optional, so that HDF5 writes what it has no filter for. */
            H5Pset_filter(plan, filter, H5Z_FLAG_OPTIONAL, filter == H5Z_FILTER_DEFLATE, &level);
        }
    } else if (layout >= 100) {
        H5Pset_layout(plan, H5D_COMPACT);
    }
    if (name[0] != '\0') dataset = H5Dcreate2(parent, name, type, space, with_parents, plan, H5P_DEFAULT);
    if (dataset >= 0 && form != 255) {
        unsigned char packed[64];
        /* A chunk as it stands in the file; HDF5 1.10 reads beyond one that its own filters leave too short. */
        if (layout >= 192 && exact) {
            hsize_t start[3] = {0, 0, 0};
            size_t length_bytes = byte() % sizeof packed;
            for (size_t i = 0; i < length_bytes; i++) packed[i] = (unsigned char)byte();
            H5Dwrite_chunk(dataset, H5P_DEFAULT, 0, start, length_bytes, packed);
        } else if (count <= MAX_ELEMENTS) {
            fill(dataset, type, raw, count, form % 2 == 0);
        }
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Pclose(plan);
    return dataset;
}

static void put_column(hid_t file, hid_t parent, const char *name, int depth) {
    static const char *const encodings[] = {"categorical",   "nullable-integer", "nullable-string-array",
                                            "awkward-array", "csr_matrix",       "dataframe"};
    char text[TEXT_BYTES];
    unsigned form = byte() % 8;
    if (form < 4 || depth > 3) {
        hid_t dataset = put_dataset(parent, name, 1, rows, form);
        if (dataset >= 0) H5Dclose(dataset);
    } else if (form == 4) { /* anndata 0.7 */
        hobj_ref_t reference;
        hid_t space = H5Screate(H5S_SCALAR), dataset = put_dataset(parent, name, 1, rows, 1), attribute = -1;
        hid_t categories = put_dataset(file, "categories_of_old", 1, 3, 0);
        if (dataset >= 0 &&
            H5Rcreate(&reference, file, byte() < 224 ? "categories_of_old" : "obs", H5R_OBJECT, -1) >= 0)
            attribute = H5Acreate2(dataset, "categories", H5T_STD_REF_OBJ, space, H5P_DEFAULT, H5P_DEFAULT);
        if (attribute >= 0) {
            if (byte() < 250) H5Awrite(attribute, H5T_STD_REF_OBJ, &reference);
            H5Aclose(attribute);
        }
        if (categories >= 0) H5Dclose(categories);
        if (dataset >= 0) H5Dclose(dataset);
        H5Sclose(space);
    } else {
        hid_t group = name[0] != '\0' ? H5Gcreate2(parent, name, with_parents, H5P_DEFAULT, H5P_DEFAULT) : -1;
        if (group < 0) return;
        const char *encoding = word(text, encodings, 6, 0);
        bool categorical = strcmp(encoding, "categorical") == 0;
        put_text(group, "encoding-type", encoding);
        if (form == 7) {
            put_column(file, group, categorical ? "categories" : "values", depth + 1);
        } else {
            hid_t inner = put_dataset(group, categorical ? "categories" : "values", 1, categorical ? 3 : rows,
                                      form - 5);
            if (inner >= 0) H5Dclose(inner);
        }
        hid_t second = put_dataset(group, categorical ? "codes" : "mask", 1, rows, categorical ? 1 : 8);
        if (second >= 0) H5Dclose(second);
        H5Gclose(group);
    }
}

static void put_frame(hid_t file, const char *name, hsize_t length) {
    static const char *const names[] = {"_index", "cell", "a", "b", "c", "x/y", "index", "__categories"};
    char text[TEXT_BYTES], texts[8][TEXT_BYTES];
    const char *order[8];
    unsigned form = byte();
    hsize_t count = form % 8, kept = rows;
    hid_t frame = form < 250 ? H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT) : -1;
    if (frame < 0) return;
    rows = length;
    const char *index = word(text, names, 2, 0);
    put_text(frame, "encoding-type", "dataframe");
    put_text(frame, "_index", index);
    hid_t dataset = put_dataset(frame, index, 1, rows, 0);
    if (dataset >= 0) H5Dclose(dataset);
    for (hsize_t i = 0; i < count; i++) {
        order[i] = word(texts[i], names, 8, (unsigned)i + 1);
        put_column(file, frame, order[i], 0);
    }
    if (form < 192) {
        hid_t type = text_type(H5T_VARIABLE), space = H5Screate_simple(1, &count, NULL);
        hid_t attribute = H5Acreate2(frame, "column-order", type, space, H5P_DEFAULT, H5P_DEFAULT);
        if (count > 0) H5Awrite(attribute, type, order);
        H5Aclose(attribute);
        H5Sclose(space);
        H5Tclose(type);
    }
    H5Gclose(frame);
    rows = kept;
}

static void put_matrix(hid_t file, const char *name) {
    static const char *const encodings[] = {"csr_matrix",    "csc_matrix", "dataframe",
                                            "awkward-array", "csr",        "csc"};
    char text[TEXT_BYTES];
    unsigned form = byte();
    if (form < 96) {
        hid_t dataset = put_dataset(file, name, 2, rows, 2 + form % 2);
        if (dataset >= 0) H5Dclose(dataset);
        return;
    }
    if (form < 128) {
        put_frame(file, name, rows);
        return;
    }
    hid_t group = H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    put_text(group, form % 4 == 3 ? "h5sparse_format" : "encoding-type", word(text, encodings, 6, 0));
    put_numbers(group, form % 4 == 2 ? "h5sparse_shape" : "shape");
    hsize_t count = byte() % 5;
    hid_t parts[3] = {put_dataset(group, "indptr", 1, form % 2 ? 3 : rows + 1, 1),
                      put_dataset(group, "indices", 1, count, 1), put_dataset(group, "data", 1, count, 2)};
    for (int i = 0; i < 3; i++)
        if (parts[i] >= 0) H5Dclose(parts[i]);
    H5Gclose(group);
}

static void check(const lam_embeddings *e, char **names) {
    size_t length = 0;
    double sum = 0;
    require(e->rows >= 0 && e->columns >= 0 && e->obs != NULL && lam_table_rows(e->obs) == e->rows);
    for (int64_t i = 0; i < e->rows * e->columns; i++) sum += e->values[i];
    for (int64_t i = 0; i < e->rows; i++) {
        length += strlen(e->index[i]);
        for (int k = 0; k < lam_table_columns(e->obs); k++) length += strlen(lam_table_cell(e->obs, i, k));
    }
    for (int k = 0; k < lam_table_columns(e->obs); k++)
        require(strcmp(lam_table_name(e->obs, k), "index") != 0);
    for (int64_t i = 0; names != NULL && i < e->columns; i++) length += strlen(names[i]);
    if (e->provenance != NULL) length += strlen(e->provenance);
    volatile double kept = sum + (double)length;
    (void)kept;
}

/* To make a file takes longer than to read it: each of the two formats has one, which many runs share, a group a run. */
static hid_t new_group(unsigned newer) {
    static hid_t files[2] = {-1, -1};
    static unsigned runs[2];
    if (runs[newer]++ % 256 == 0) {
        if (files[newer] >= 0) H5Fclose(files[newer]);
        hid_t access = H5Pcreate(H5P_FILE_ACCESS);
        H5Pset_fapl_core(access, 1 << 16, false);
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
        if (newer) H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
        files[newer] = H5Fcreate(newer ? "newer.h5ad" : "fuzz.h5ad", H5F_ACC_TRUNC, H5P_DEFAULT, access);
        H5Pclose(access);
    }
    H5Ldelete(files[newer], "run", H5P_DEFAULT);
    hid_t group = H5Gcreate2(files[newer], "run", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    require(group >= 0);
    return group;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static const char *const keys[] = {"X", "L", "layers/L", "obsm/M", "M", "none"};
    static const char *const places[] = {"X", "layers/L", "layers/L", "obsm/M", "obsm/M", "layers/other"};
    at = bytes;
    end = bytes + size;
    lam_log_set_silent(true);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0);
    /* A file is made without our filters, which only read: HDF5 would ask them to write. */
    H5Zunregister(32000);
    H5Zunregister(32015);
    unsigned plan = byte(); /* bits: newer format, a plain matrix, no var, provenance */
    with_parents = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(with_parents, 1);
    hid_t file = new_group(plan % 2);
    unsigned b = byte(), key = b >= 250 ? 5 : b % 5;
    rows = 3 - byte() % 4;
    H5Gclose(H5Gcreate2(file, "layers", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Gclose(H5Gcreate2(file, "obsm", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    if (plan & 2) {
        const uint8_t *kept = at;
        at = end;
        put_matrix(file, places[key]);
        at = kept;
    } else {
        put_matrix(file, places[key]);
    }
    if (plan & 8) { /* provenance before the bytes are used up */
        H5Gclose(H5Gcreate2(file, "uns", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        put_column(file, file, "uns/lamella", 0);
    }
    put_frame(file, "obs", rows);
    if ((plan & 4) == 0) put_frame(file, "var", 2);
    require(lam_h5ad_filters_register("fuzz.h5ad") == LAM_OK);
    lam_embeddings *e = NULL;
    char **names = NULL;
    require(lam_alloc((void **)&e, sizeof *e) == LAM_OK);
    lam_status status = lam_h5ad_read_open(e, &names, "fuzz.h5ad", file, keys[key]);
    if (status == LAM_OK) {
        check(e, names);
    } else {
        require(names == NULL && strstr(lam_last_error(), "fuzz.h5ad") != NULL);
        require(status == LAM_ERROR_FORMAT || status == LAM_ERROR_INPUT || status == LAM_ERROR_MEMORY);
    }
    lam_free(names);
    lam_embeddings_free(e);
    H5Gclose(file);
    H5Pclose(with_parents);
    return 0;
}
