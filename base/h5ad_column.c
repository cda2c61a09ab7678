#include "base/h5ad_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static herr_t keep_innermost(unsigned n, const H5E_error2_t *error, void *text) {
    if (n == 0 && error->desc != NULL) snprintf(text, 200, "%s", error->desc);
    return 0;
}

lam_status lam_h5ad_fail(lam_status code, const char *path, const char *what) {
    char text[200] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, text);
    for (char *at = text; *at != '\0'; at++) {
        if (*at == '\n') *at = ' ';
    }
    LAM_FAIL(code, "%s: %s (HDF5: %s)", path, what, text);
}

void lam_h5ad_free_texts(texts *t) {
    lam_free(t->items);
    lam_free(t->block);
    *t = (texts){0};
}

lam_status lam_texts_pack(char ***out, const char *const *items, int64_t count) {
    size_t bytes = 0, pointers = 0;
    LAM_REQUIRE(!__builtin_mul_overflow((size_t)count, sizeof(char *), &pointers), LAM_ERROR_MEMORY,
                "too many texts");
    for (int64_t i = 0; i < count; i++) bytes += strlen(items[i]) + 1;
    char **block = NULL;
    LAM_TRY(lam_alloc((void **)&block, pointers + bytes));
    char *text = (char *)block + pointers;
    for (int64_t i = 0; i < count; i++) {
        size_t length = strlen(items[i]) + 1;
        block[i] = memcpy(text, items[i], length);
        text += length;
    }
    *out = block;
    return LAM_OK;
}

/* H5Lexists wants every part before the last to be there; a link may also lead nowhere. */
bool lam_h5ad_exists(hid_t parent, const char *name) {
    char prefix[512];
    size_t length = strlen(name);
    if (length == 0 || length >= sizeof prefix || name[0] == '/') return false;
    for (size_t i = 1; i <= length; i++) {
        if (name[i] != '/' && name[i] != '\0') continue;
        memcpy(prefix, name, i);
        prefix[i] = '\0';
        if (H5Lexists(parent, prefix, H5P_DEFAULT) <= 0) return false;
        if (H5Oexists_by_name(parent, prefix, H5P_DEFAULT) <= 0) return false;
    }
    return true;
}

bool lam_h5ad_is_kind(hid_t parent, const char *name, H5I_type_t kind) {
    if (!lam_h5ad_exists(parent, name)) return false;
    hid_t object = H5Oopen(parent, name, H5P_DEFAULT);
    bool same = object >= 0 && H5Iget_type(object) == kind;
    if (object >= 0) H5Oclose(object);
    return same;
}

/* Strings of a dataset, or of an attribute; fixed or variable length. */
static lam_status read_strings(const char *path, hid_t object, bool attribute, const char *label,
                               int64_t count, hid_t type, hid_t space, texts *out) {
    lam_status status = LAM_OK;
    hid_t wanted = H5Tcopy(type);
    char **variable = NULL, **packed = NULL, *fixed = NULL;
    const char **pointers = NULL;
    LAM_TRY_GOTO(lam_alloc_array((void **)&pointers, count, sizeof *pointers), done);
    if (H5Tis_variable_str(type) > 0) {
        LAM_TRY_GOTO(lam_alloc_array((void **)&variable, count, sizeof *variable), done);
        if (count > 0) {
            H5_READ(attribute ? H5Aread(object, wanted, variable)
                              : H5Dread(object, wanted, H5S_ALL, H5S_ALL, H5P_DEFAULT, variable),
                    label);
        }
        for (int64_t i = 0; i < count; i++) pointers[i] = variable[i] != NULL ? variable[i] : "";
    } else {
        size_t size = H5Tget_size(type), bytes = 0;
        LAM_REQUIRE_GOTO(size < SIZE_MAX && !__builtin_mul_overflow((size_t)count, size + 1, &bytes), done,
                         LAM_ERROR_FORMAT, "%s: %s: strings too long", path, label);
        /* One byte more for each, so that texts which fill their field end. */
        LAM_REQUIRE_GOTO(H5Tset_size(wanted, size + 1) >= 0 && H5Tset_strpad(wanted, H5T_STR_NULLTERM) >= 0,
                         done, LAM_ERROR_EXTERNAL, "%s: %s: HDF5 has no such string type", path, label);
        LAM_TRY_GOTO(lam_alloc((void **)&fixed, bytes + 1), done);
        if (count > 0) {
            H5_READ(attribute ? H5Aread(object, wanted, fixed)
                              : H5Dread(object, wanted, H5S_ALL, H5S_ALL, H5P_DEFAULT, fixed),
                    label);
        }
        for (int64_t i = 0; i < count; i++) {
            pointers[i] = fixed + (size_t)i * (size + 1);
            fixed[(size_t)(i + 1) * (size + 1) - 1] = '\0';
        }
    }
    LAM_TRY_GOTO(lam_texts_pack(&packed, pointers, count), done);
    *out = (texts){count, (const char **)packed, NULL};
done:
    if (variable != NULL) H5Dvlen_reclaim(wanted, space, H5P_DEFAULT, variable);
    lam_free(variable);
    lam_free(fixed);
    lam_free(pointers);
    if (wanted >= 0) H5Tclose(wanted);
    return status;
}

lam_status lam_h5ad_attribute(const char *path, hid_t object, const char *name, bool *found, texts *out) {
    lam_status status = LAM_OK;
    hid_t attribute = -1, type = -1, space = -1;
    *found = false;
    if (H5Aexists(object, name) <= 0) return LAM_OK;
    H5_READ(attribute = H5Aopen(object, name, H5P_DEFAULT), name);
    H5_READ(type = H5Aget_type(attribute), name);
    H5_READ(space = H5Aget_space(attribute), name);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    if (H5Tget_class(type) == H5T_STRING && count >= 0) {
        LAM_TRY_GOTO(read_strings(path, attribute, true, name, count, type, space, out), done);
        *found = true;
    }
done:
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (attribute >= 0) H5Aclose(attribute);
    return status;
}

lam_status lam_h5ad_attribute_is(const char *path, hid_t object, const char *name, const char *prefix,
                                 bool *same) {
    texts t = {0};
    bool found = false;
    *same = false;
    LAM_TRY(lam_h5ad_attribute(path, object, name, &found, &t));
    *same = found && t.count == 1 && strncmp(t.items[0], prefix, strlen(prefix)) == 0;
    lam_h5ad_free_texts(&t);
    return LAM_OK;
}

void lam_h5ad_close(dataset *d) {
    if (d->space >= 0) H5Sclose(d->space);
    if (d->type >= 0) H5Tclose(d->type);
    if (d->id >= 0) H5Dclose(d->id);
    *d = LAM_NO_DATASET;
}

lam_status lam_h5ad_open(const char *path, hid_t parent, const char *name, dataset *out) {
    dataset d = LAM_NO_DATASET;
    lam_status status = LAM_OK;
    LAM_REQUIRE(lam_h5ad_is_kind(parent, name, H5I_DATASET), LAM_ERROR_FORMAT,
                "%s: '%s' is missing or no array", path, name);
    H5_READ(d.id = H5Dopen2(parent, name, H5P_DEFAULT), name);
    H5_READ(d.type = H5Dget_type(d.id), name);
    H5_READ(d.space = H5Dget_space(d.id), name);
    d.rank = H5Sget_simple_extent_ndims(d.space);
    LAM_REQUIRE_GOTO(d.rank >= 0 && d.rank <= 2, done, LAM_ERROR_FORMAT, "%s: '%s' has %d dimensions", path,
                     name, d.rank);
    if (d.rank > 0) H5_READ(H5Sget_simple_extent_dims(d.space, d.dims, NULL), name);
    d.count = H5Sget_simple_extent_npoints(d.space);
    LAM_REQUIRE_GOTO(d.count >= 0 && d.dims[0] <= INT64_MAX / 8 && d.dims[1] <= INT64_MAX / 8, done,
                     LAM_ERROR_FORMAT, "%s: '%s' is too large", path, name);
    /* Before memory is taken for it: plain storage cannot be longer than the file. */
    hid_t file = H5Iget_file_id(d.id), plan = H5Dget_create_plist(d.id);
    hsize_t file_bytes = 0, stored = H5Dget_storage_size(d.id);
    bool plain = plan >= 0 && H5Pget_layout(plan) == H5D_CONTIGUOUS;
    bool known = file >= 0 && H5Fget_filesize(file, &file_bytes) >= 0;
    if (plan >= 0) H5Pclose(plan);
    if (file >= 0) H5Fclose(file);
    LAM_REQUIRE_GOTO(!plain || !known || stored <= file_bytes, done, LAM_ERROR_FORMAT,
                     "%s: '%s' is longer than the file; it is damaged or cut short", path, name);
    *out = d;
    return LAM_OK;
done:
    lam_h5ad_close(&d);
    return status;
}

lam_status lam_h5ad_numbers(const char *path, hid_t parent, const char *name, hid_t type, int64_t count,
                            int64_t *found, void **out) {
    dataset d = LAM_NO_DATASET;
    void *numbers = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_h5ad_open(path, parent, name, &d));
    H5T_class_t kind = H5Tget_class(d.type);
    LAM_REQUIRE_GOTO(kind == H5T_INTEGER || kind == H5T_FLOAT, done, LAM_ERROR_FORMAT,
                     "%s: '%s' holds no numbers", path, name);
    LAM_REQUIRE_GOTO(count < 0 || d.count == count, done, LAM_ERROR_FORMAT,
                     "%s: '%s' has %lld elements, not %lld", path, name, (long long)d.count,
                     (long long)count);
    LAM_TRY_GOTO(lam_alloc_array(&numbers, d.count, 8), done);
    if (d.count > 0) H5_READ(H5Dread(d.id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers), name);
    if (found != NULL) *found = d.count;
    *out = numbers;
    numbers = NULL;
done:
    lam_free(numbers);
    lam_h5ad_close(&d);
    return status;
}

/* h5py keeps booleans as an enumeration of one byte: FALSE 0, TRUE 1. */
static lam_status read_booleans(const char *path, const dataset *d, const char *name, signed char **out) {
    lam_status status = LAM_OK;
    signed char *values = NULL;
    hid_t native = H5Tget_native_type(d->type, H5T_DIR_ASCEND);
    H5T_class_t kind = H5Tget_class(d->type);
    LAM_REQUIRE_GOTO((kind == H5T_ENUM || kind == H5T_INTEGER) && native >= 0 && H5Tget_size(native) == 1,
                     done, LAM_ERROR_FORMAT, "%s: '%s' holds no booleans", path, name);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, d->count, 1), done);
    if (d->count > 0) H5_READ(H5Dread(d->id, native, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), name);
    *out = values;
    values = NULL;
done:
    lam_free(values);
    if (native >= 0) H5Tclose(native);
    return status;
}

/* The shortest of %.15g, %.16g, %.17g that reads back as the same double; "" for NaN, which stands for a gap.
 */
static void print_number(char *text, size_t room, double value) {
    if (isnan(value)) {
        text[0] = '\0';
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, room, "%.*g", digits, value);
        if (strtod(text, NULL) == value) return;
    }
}

enum { NUMBER_BYTES = 32 };

static lam_status read_number_texts(const char *path, hid_t parent, const char *name, hid_t type,
                                    texts *out) {
    bool real = H5Tget_class(type) == H5T_FLOAT, is_signed = !real && H5Tget_sign(type) != H5T_SGN_NONE;
    hid_t wanted = real ? H5T_NATIVE_DOUBLE : is_signed ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64;
    void *numbers = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_h5ad_numbers(path, parent, name, wanted, -1, &out->count, &numbers));
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->items, out->count, sizeof *out->items), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->block, out->count, NUMBER_BYTES), done);
    for (int64_t i = 0; i < out->count; i++) {
        char *text = out->block + i * NUMBER_BYTES;
        if (real) {
            print_number(text, NUMBER_BYTES, ((double *)numbers)[i]);
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

static lam_status apply_mask(const char *path, hid_t group, texts *out) {
    dataset d = LAM_NO_DATASET;
    signed char *mask = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_h5ad_open(path, group, "mask", &d));
    LAM_REQUIRE_GOTO(d.count == out->count, done, LAM_ERROR_FORMAT, "%s: mask and values differ in length",
                     path);
    LAM_TRY_GOTO(read_booleans(path, &d, "mask", &mask), done);
    for (int64_t i = 0; i < out->count; i++) {
        if (mask[i]) out->items[i] = "";
    }
done:
    lam_free(mask);
    lam_h5ad_close(&d);
    return status;
}

static lam_status read_group_column(const char *path, hid_t parent, const char *name, int depth, texts *out) {
    lam_status status = LAM_OK;
    bool categorical = false, nullable = false;
    hid_t group = -1;
    H5_READ(group = H5Gopen2(parent, name, H5P_DEFAULT), name);
    LAM_TRY_GOTO(lam_h5ad_attribute_is(path, group, "encoding-type", "categorical", &categorical), done);
    LAM_TRY_GOTO(lam_h5ad_attribute_is(path, group, "encoding-type", "nullable-", &nullable), done);
    LAM_REQUIRE_GOTO((categorical || nullable) && depth < 2, done, LAM_ERROR_FORMAT,
                     "%s: column '%s' has an encoding that is not known; write it as text", path, name);
    LAM_TRY_GOTO(lam_h5ad_column(path, group, categorical ? "categories" : "values", depth + 1, out), done);
    LAM_TRY_GOTO(categorical ? apply_codes(path, group, "codes", out) : apply_mask(path, group, out), done);
done:
    if (group >= 0) H5Gclose(group);
    return status;
}

/* anndata 0.7: codes in the column, which refers to its categories elsewhere in the file. */
static lam_status read_referred_categories(const char *path, hid_t column, texts *out) {
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
    LAM_TRY_GOTO(lam_h5ad_column(path, file, name + 1, 2, out), done);
done:
    if (file >= 0) H5Fclose(file);
    if (target >= 0) H5Oclose(target);
    if (type >= 0) H5Tclose(type);
    if (attribute >= 0) H5Aclose(attribute);
    return status;
}

static lam_status read_column_parts(const char *path, hid_t parent, const char *name, int depth, texts *out) {
    dataset d = LAM_NO_DATASET;
    signed char *booleans = NULL;
    lam_status status = LAM_OK;
    if (lam_h5ad_is_kind(parent, name, H5I_GROUP)) return read_group_column(path, parent, name, depth, out);
    LAM_TRY(lam_h5ad_open(path, parent, name, &d));
    H5T_class_t kind = H5Tget_class(d.type);
    LAM_REQUIRE_GOTO(d.rank <= 1, done, LAM_ERROR_FORMAT, "%s: column '%s' is no list", path, name);
    if (depth == 0 && H5Aexists(d.id, "categories") > 0) {
        LAM_TRY_GOTO(read_referred_categories(path, d.id, out), done);
        LAM_TRY_GOTO(apply_codes(path, parent, name, out), done);
    } else if (kind == H5T_STRING) {
        LAM_TRY_GOTO(read_strings(path, d.id, false, name, d.count, d.type, d.space, out), done);
    } else if (kind == H5T_INTEGER || kind == H5T_FLOAT) {
        LAM_TRY_GOTO(read_number_texts(path, parent, name, d.type, out), done);
    } else if (kind == H5T_ENUM) {
        LAM_TRY_GOTO(read_booleans(path, &d, name, &booleans), done);
        LAM_TRY_GOTO(lam_alloc_array((void **)&out->items, d.count, sizeof *out->items), done);
        out->count = d.count;
        for (int64_t i = 0; i < d.count; i++) out->items[i] = booleans[i] ? "True" : "False";
    } else {
        status = lam_fail(LAM_ERROR_FORMAT, __FILE__, __LINE__,
                          "%s: column '%s' has a type that is not known; write "
                          "it as text",
                          path, name);
    }
done:
    lam_free(booleans);
    lam_h5ad_close(&d);
    return status;
}

lam_status lam_h5ad_column(const char *path, hid_t parent, const char *name, int depth, texts *out) {
    lam_status status = read_column_parts(path, parent, name, depth, out);
    if (status != LAM_OK) lam_h5ad_free_texts(out);
    return status;
}
