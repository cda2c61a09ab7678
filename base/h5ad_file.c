#include <stdlib.h>
#include <string.h>

#include "base/h5ad_parts.h"
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

lam_status lam_h5ad_strings(const char *path, hid_t object, bool attribute, const char *label, int64_t count,
                            hid_t type, hid_t space, texts *out) {
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
        LAM_TRY_GOTO(lam_h5ad_strings(path, attribute, true, name, count, type, space, out), done);
        *found = true;
    }
done:
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (attribute >= 0) H5Aclose(attribute);
    return status;
}

lam_status lam_h5ad_word(const char *path, hid_t object, const char *name, char *word) {
    texts t = {0};
    bool found = false;
    LAM_TRY(lam_h5ad_attribute(path, object, name, &found, &t));
    snprintf(word, LAM_H5AD_WORD_BYTES, "%s", found && t.count == 1 ? t.items[0] : "");
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
    hid_t file = -1, plan = -1;
    LAM_REQUIRE(lam_h5ad_exists(parent, name), LAM_ERROR_FORMAT, "%s: '%s' is missing", path, name);
    LAM_REQUIRE(!lam_h5ad_is_kind(parent, name, H5I_GROUP), LAM_ERROR_FORMAT, "%s: '%s' is no array", path,
                name);
    LAM_REQUIRE_GOTO(!lam_fault_hit(LAM_FAULT_READ), done, LAM_ERROR_IO, "%s: cannot read %s", path, name);
    d.id = H5Dopen2(parent, name, H5P_DEFAULT);
    if (d.id < 0) {
        char message[160];
        snprintf(message, sizeof message,
                 "cannot open '%.60s'; it is damaged, or written for a newer HDF5 (libver='latest')", name);
        status = lam_h5ad_fail(LAM_ERROR_FORMAT, path, message);
        goto done;
    }
    H5_READ(d.type = H5Dget_type(d.id), name);
    H5_READ(d.space = H5Dget_space(d.id), name);
    d.rank = H5Sget_simple_extent_ndims(d.space);
    d.count = H5Sget_simple_extent_npoints(d.space);
    LAM_REQUIRE_GOTO(d.rank >= 0 && d.count >= 0, done, LAM_ERROR_FORMAT, "%s: '%s' is damaged", path, name);
    if (d.rank == 1 || d.rank == 2) H5_READ(H5Sget_simple_extent_dims(d.space, d.dims, NULL), name);
    LAM_REQUIRE_GOTO(d.dims[0] <= INT64_MAX / 8 && d.dims[1] <= INT64_MAX / 8, done, LAM_ERROR_FORMAT,
                     "%s: '%s' is too large", path, name);
    H5_READ(plan = H5Dget_create_plist(d.id), name);
    H5_READ(file = H5Iget_file_id(d.id), name);
    H5D_layout_t layout = H5Pget_layout(plan);
    if (layout == H5D_CHUNKED) {
        LAM_TRY_GOTO(lam_h5ad_filters_check(path, name, file, plan, d.type), done);
    } else if (layout == H5D_CONTIGUOUS) {
        /* Before memory is taken for it: plain storage cannot be longer than the file. */
        hsize_t file_bytes = 0;
        H5_READ(H5Fget_filesize(file, &file_bytes), name);
        LAM_REQUIRE_GOTO(H5Dget_storage_size(d.id) <= file_bytes, done, LAM_ERROR_FORMAT,
                         "%s: '%s' is longer than the file; it is damaged or cut short", path, name);
    }
    *out = d;
    d = LAM_NO_DATASET;
done:
    lam_h5ad_close(&d);
    if (plan >= 0) H5Pclose(plan);
    if (file >= 0) H5Fclose(file);
    return status;
}

/* h5py keeps booleans as an enumeration of one byte: FALSE 0, TRUE 1. */
bool lam_h5ad_is_boolean(hid_t type) {
    static const char *const names[] = {"FALSE", "TRUE"};
    bool same = H5Tget_class(type) == H5T_ENUM && H5Tget_size(type) == 1 && H5Tget_nmembers(type) == 2;
    for (unsigned i = 0; same && i < 2; i++) {
        char *name = H5Tget_member_name(type, i);
        signed char value = -1;
        same = name != NULL && strcmp(name, names[i]) == 0 && H5Tget_member_value(type, i, &value) >= 0 &&
               value == (signed char)i;
        H5free_memory(name);
    }
    return same;
}

lam_status lam_h5ad_open_numbers(const char *path, hid_t parent, const char *name, dataset *out,
                                 bool *boolean) {
    LAM_TRY(lam_h5ad_open(path, parent, name, out));
    H5T_class_t kind = H5Tget_class(out->type);
    *boolean = lam_h5ad_is_boolean(out->type);
    if (kind == H5T_INTEGER || kind == H5T_FLOAT || *boolean) return LAM_OK;
    lam_h5ad_close(out);
    LAM_FAIL(LAM_ERROR_FORMAT, "%s: '%s' holds no numbers", path, name);
}

/* Of one byte; the eight bytes of an element are then written from the back. */
static void widen_booleans(void *numbers, int64_t count, bool real) {
    const signed char *bytes = numbers;
    for (int64_t i = count - 1; i >= 0; i--) {
        int64_t value = bytes[i] != 0;
        double real_value = (double)value;
        memcpy((char *)numbers + i * 8, real ? (const void *)&real_value : &value, 8);
    }
}

lam_status lam_h5ad_numbers(const char *path, hid_t parent, const char *name, hid_t type, int64_t count,
                            int64_t *found, void **out) {
    dataset d = LAM_NO_DATASET;
    void *numbers = NULL;
    lam_status status = LAM_OK;
    bool boolean = false;
    LAM_TRY(lam_h5ad_open_numbers(path, parent, name, &d, &boolean));
    LAM_REQUIRE_GOTO(count < 0 || d.count == count, done, LAM_ERROR_FORMAT,
                     "%s: '%s' has %lld elements, not %lld", path, name, (long long)d.count,
                     (long long)count);
    LAM_TRY_GOTO(lam_alloc_array(&numbers, d.count, 8), done);
    if (d.count > 0)
        H5_READ(H5Dread(d.id, boolean ? d.type : type, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers), name);
    if (boolean) widen_booleans(numbers, d.count, H5Tget_class(type) == H5T_FLOAT);
    if (found != NULL) *found = d.count;
    *out = numbers;
    numbers = NULL;
done:
    lam_free(numbers);
    lam_h5ad_close(&d);
    return status;
}
