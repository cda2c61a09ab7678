#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/h5ad_parts.h"
#include "base/memory.h"

/* True where `text` reads back as `value`, a number of `bytes` bytes. */
static bool reads_back(const char *text, double value, size_t bytes) {
    double read = strtod(text, NULL);
    if (bytes == 8 || isinf(value)) return read == value;
    if (bytes == 4) return (double)(float)read == value;
    /* float16 has 11 bits, and steps of 2^-24 at the least; below a power of two they are half as long. */
    int exponent;
    double half_step = fabs(frexp(value, &exponent)) > 0.5 ? 0.5 : 0.25;
    return fabs(read - value) < ldexp(half_step, exponent < -13 ? -24 : exponent - 11);
}

/* The shortest text that reads back as the same number of the file's type, so that 0.1 is not 0.1000000015;
 * "" for NaN, which stands for a gap. */
static void print_number(char *text, size_t room, double value, size_t bytes) {
    int digits = bytes <= 2 ? 3 : bytes <= 4 ? 6 : 15, enough = bytes <= 2 ? 5 : bytes <= 4 ? 9 : 17;
    if (isnan(value)) {
        text[0] = '\0';
        return;
    }
    for (; digits <= enough; digits++) {
        snprintf(text, room, "%.*g", digits, value);
        if (reads_back(text, value, bytes)) return;
    }
}

enum { NUMBER_BYTES = 32 };

static lam_status read_number_texts(const char *path, hid_t parent, const char *name, hid_t type,
                                    texts *out) {
    bool real = H5Tget_class(type) == H5T_FLOAT, is_signed = !real && H5Tget_sign(type) != H5T_SGN_NONE;
    hid_t wanted = real ? H5T_NATIVE_DOUBLE : is_signed ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64;
    size_t bytes = H5Tget_size(type) > 8 ? 8 : H5Tget_size(type);
    void *numbers = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_h5ad_numbers(path, parent, name, wanted, -1, &out->count, &numbers));
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->items, out->count, sizeof *out->items), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->block, out->count, NUMBER_BYTES), done);
    for (int64_t i = 0; i < out->count; i++) {
        char *text = out->block + i * NUMBER_BYTES;
        if (real) {
            print_number(text, NUMBER_BYTES, ((double *)numbers)[i], bytes);
        } else if (is_signed) {
            snprintf(text, NUMBER_BYTES, "%lld", (long long)((int64_t *)numbers)[i]);
        } else {
            snprintf(text, NUMBER_BYTES, "%llu", (unsigned long long)((uint64_t *)numbers)[i]);
        }
        out->items[i] = text;
    }
done:
    lam_free(numbers);
    return status;
}

static lam_status read_boolean_texts(const char *path, hid_t parent, const char *name, texts *out) {
    int64_t *values = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_h5ad_numbers(path, parent, name, H5T_NATIVE_INT64, -1, &out->count, (void **)&values));
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->items, out->count, sizeof *out->items), done);
    for (int64_t i = 0; i < out->count; i++) out->items[i] = values[i] ? "True" : "False";
done:
    lam_free(values);
    return status;
}

/* codes into the texts of *out (the categories); -1 is a gap. */
static lam_status apply_codes(const char *path, hid_t parent, const char *codes_name, texts *out) {
    int64_t *codes = NULL, count = 0;
    const char **items = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_h5ad_numbers(path, parent, codes_name, H5T_NATIVE_INT64, -1, &count, (void **)&codes));
    LAM_TRY_GOTO(lam_alloc_array((void **)&items, count, sizeof *items), done);
    for (int64_t i = 0; i < count; i++) {
        LAM_REQUIRE_GOTO(codes[i] >= -1 && codes[i] < out->count, done, LAM_ERROR_FORMAT,
                         "%s: '%s' has code %lld of %lld categories", path, codes_name, (long long)codes[i],
                         (long long)out->count);
        items[i] = codes[i] < 0 ? "" : out->items[codes[i]];
    }
    /* Packed texts begin in the block of their pointers, which must live on as the text. */
    if (out->block == NULL) {
        out->block = (char *)out->items;
    } else {
        lam_free(out->items);
    }
    out->items = items;
    out->count = count;
    items = NULL;
done:
    lam_free(items);
    lam_free(codes);
    return status;
}

static lam_status read_mask(const char *path, hid_t group, int64_t count, int64_t **mask) {
    return lam_h5ad_numbers(path, group, "mask", H5T_NATIVE_INT64, count, NULL, (void **)mask);
}

static lam_status apply_mask(const char *path, hid_t group, texts *out) {
    int64_t *mask = NULL;
    LAM_TRY(read_mask(path, group, out->count, &mask));
    for (int64_t i = 0; i < out->count; i++) {
        if (mask[i]) out->items[i] = "";
    }
    lam_free(mask);
    return LAM_OK;
}

/* What the column is, in words, where no text can be made of it. */
static void describe_type(hid_t type, int rank, char *unknown) {
    H5T_class_t kind = H5Tget_class(type);
    const char *words = kind == H5T_COMPOUND    ? "compound or complex"
                        : kind == H5T_ENUM      ? "an enumeration"
                        : kind == H5T_OPAQUE    ? "opaque, such as dates of NumPy"
                        : kind == H5T_VLEN      ? "lists"
                        : kind == H5T_REFERENCE ? "references"
                                                : "another type";
    if (rank > 1) {
        snprintf(unknown, LAM_H5AD_WORD_BYTES, "%d dimensions", rank);
    } else {
        snprintf(unknown, LAM_H5AD_WORD_BYTES, "%s", words);
    }
}

static lam_status read_group_column(const char *path, hid_t parent, const char *name, int depth,
                                    char *unknown, texts *out) {
    lam_status status = LAM_OK;
    char encoding[LAM_H5AD_WORD_BYTES];
    hid_t group = -1;
    H5_READ(group = H5Gopen2(parent, name, H5P_DEFAULT), name);
    LAM_TRY_GOTO(lam_h5ad_word(path, group, "encoding-type", encoding), done);
    bool categorical = strcmp(encoding, "categorical") == 0;
    if ((!categorical && strncmp(encoding, "nullable-", 9) != 0) || depth >= 2) {
        snprintf(unknown, LAM_H5AD_WORD_BYTES, "%s", encoding[0] ? encoding : "a group");
        goto done;
    }
    LAM_TRY_GOTO(lam_h5ad_column(path, group, categorical ? "categories" : "values", depth + 1, unknown, out),
                 done);
    if (unknown[0]) goto done;
    LAM_TRY_GOTO(categorical ? apply_codes(path, group, "codes", out) : apply_mask(path, group, out), done);
done:
    if (group >= 0) H5Gclose(group);
    return status;
}

/* anndata 0.7: codes in the column, which refers to its categories elsewhere in the file. */
static lam_status read_referred_categories(const char *path, hid_t column, char *unknown, texts *out) {
    lam_status status = LAM_OK;
    hobj_ref_t reference = 0;
    char name[512] = "";
    hid_t attribute = H5Aopen(column, "categories", H5P_DEFAULT), type = -1, target = -1, file = -1;
    if (attribute >= 0) type = H5Aget_type(attribute);
    LAM_REQUIRE_GOTO(type >= 0 && H5Tequal(type, H5T_STD_REF_OBJ) > 0, done, LAM_ERROR_FORMAT,
                     "%s: the categories of a column are damaged", path);
    H5_READ(H5Aread(attribute, H5T_STD_REF_OBJ, &reference), "categories");
    H5_READ(target = H5Rdereference2(attribute, H5P_DEFAULT, H5R_OBJECT, &reference), "categories");
    ssize_t length = H5Iget_name(target, name, sizeof name);
    LAM_REQUIRE_GOTO(length > 1 && length < (ssize_t)sizeof name && (file = H5Iget_file_id(target)) >= 0,
                     done, LAM_ERROR_FORMAT, "%s: the categories of a column are damaged", path);
    LAM_TRY_GOTO(lam_h5ad_column(path, file, name + 1, 2, unknown, out), done);
done:
    if (file >= 0) H5Fclose(file);
    if (target >= 0) H5Oclose(target);
    if (type >= 0) H5Tclose(type);
    if (attribute >= 0) H5Aclose(attribute);
    return status;
}

static lam_status read_column_parts(const char *path, hid_t parent, const char *name, int depth,
                                    char *unknown, texts *out) {
    dataset d = LAM_NO_DATASET;
    lam_status status = LAM_OK;
    if (lam_h5ad_is_kind(parent, name, H5I_GROUP))
        return read_group_column(path, parent, name, depth, unknown, out);
    LAM_TRY(lam_h5ad_open(path, parent, name, &d));
    H5T_class_t kind = H5Tget_class(d.type);
    if (d.rank > 1) {
        describe_type(d.type, d.rank, unknown);
    } else if (depth == 0 && H5Aexists(d.id, "categories") > 0) {
        LAM_TRY_GOTO(read_referred_categories(path, d.id, unknown, out), done);
        if (!unknown[0]) LAM_TRY_GOTO(apply_codes(path, parent, name, out), done);
    } else if (kind == H5T_STRING) {
        LAM_TRY_GOTO(lam_h5ad_strings(path, d.id, false, name, d.count, d.type, d.space, out), done);
    } else if (kind == H5T_INTEGER || kind == H5T_FLOAT) {
        LAM_TRY_GOTO(read_number_texts(path, parent, name, d.type, out), done);
    } else if (lam_h5ad_is_boolean(d.type)) {
        LAM_TRY_GOTO(read_boolean_texts(path, parent, name, out), done);
    } else {
        describe_type(d.type, d.rank, unknown);
    }
done:
    lam_h5ad_close(&d);
    return status;
}

lam_status lam_h5ad_column(const char *path, hid_t parent, const char *name, int depth, char *unknown,
                           texts *out) {
    unknown[0] = '\0';
    lam_status status = read_column_parts(path, parent, name, depth, unknown, out);
    if (status != LAM_OK || unknown[0]) lam_h5ad_free_texts(out);
    return status;
}

lam_status lam_h5ad_column_numbers(const char *path, hid_t parent, const char *name, int64_t count,
                                   char *unknown, double **out) {
    lam_status status = LAM_OK;
    char encoding[LAM_H5AD_WORD_BYTES];
    int64_t *mask = NULL;
    double *numbers = NULL;
    dataset d = LAM_NO_DATASET;
    hid_t group = -1;
    const char *values = name;
    unknown[0] = '\0';
    if (lam_h5ad_is_kind(parent, name, H5I_GROUP)) {
        H5_READ(group = H5Gopen2(parent, name, H5P_DEFAULT), name);
        LAM_TRY_GOTO(lam_h5ad_word(path, group, "encoding-type", encoding), done);
        bool nullable = strncmp(encoding, "nullable-", 9) == 0;
        if (!nullable) snprintf(unknown, LAM_H5AD_WORD_BYTES, "%s", encoding[0] ? encoding : "a group");
        if (!nullable) goto done;
        values = "values";
    }
    LAM_TRY_GOTO(lam_h5ad_open(path, group >= 0 ? group : parent, values, &d), done);
    H5T_class_t kind = H5Tget_class(d.type);
    bool legacy = H5Aexists(d.id, "categories") > 0;
    if (legacy || d.rank > 1 || (kind != H5T_INTEGER && kind != H5T_FLOAT && !lam_h5ad_is_boolean(d.type))) {
        if (legacy || kind == H5T_STRING) {
            snprintf(unknown, LAM_H5AD_WORD_BYTES, "%s", legacy ? "categorical" : "text");
        } else {
            describe_type(d.type, d.rank, unknown);
        }
        goto done;
    }
    LAM_TRY_GOTO(lam_h5ad_numbers(path, group >= 0 ? group : parent, values, H5T_NATIVE_DOUBLE, count, NULL,
                                  (void **)&numbers),
                 done);
    if (group >= 0) LAM_TRY_GOTO(read_mask(path, group, count, &mask), done);
    for (int64_t i = 0; mask != NULL && i < count; i++) {
        if (mask[i]) numbers[i] = (double)NAN;
    }
    *out = numbers;
    numbers = NULL;
done:
    lam_free(mask);
    lam_free(numbers);
    lam_h5ad_close(&d);
    if (group >= 0) H5Gclose(group);
    return status;
}
