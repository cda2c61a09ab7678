#include "base/h5ad.h"

#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/h5ad_parts.h"
#include "base/memory.h"

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

static lam_status read_var_names(const char *path, hid_t file, int64_t columns, char ***names) {
    lam_status status = LAM_OK;
    texts index = {0};
    hid_t frame = -1;
    if (!lam_h5ad_is_kind(file, "var", H5I_GROUP)) return LAM_OK;
    H5_READ(frame = H5Gopen2(file, "var", H5P_DEFAULT), "var");
    LAM_TRY_GOTO(lam_h5ad_index(path, frame, "var", &index), done);
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
    bool ours = d.rank <= 1 && d.count == 1 && H5Tget_class(d.type) == H5T_STRING;
    lam_h5ad_close(&d);
    if (!ours) return LAM_OK;
    char unknown[LAM_H5AD_WORD_BYTES];
    LAM_TRY(lam_h5ad_column(path, file, "uns/lamella", 1, unknown, &t));
    lam_status status = lam_text_copy(&out->provenance, t.items[0]);
    lam_h5ad_free_texts(&t);
    return status;
}

lam_status lam_h5ad_read_open(lam_embeddings *out, char ***names, const char *path, hid_t file,
                              const char *key) {
    char *matrix = NULL;
    lam_status status = LAM_OK;
    *names = NULL;
    LAM_TRY_GOTO(find_matrix(path, file, key, &matrix), done);
    LAM_TRY_GOTO(lam_h5ad_matrix(out, names, path, file, matrix), done);
    LAM_TRY_GOTO(lam_h5ad_obs(out, path, file), done);
    LAM_TRY_GOTO(read_provenance(out, path, file), done);
    /* A frame has names of its own. */
    if (*names == NULL && strncmp(matrix, "obsm/", 5) != 0)
        LAM_TRY_GOTO(read_var_names(path, file, out->columns, names), done);
done:
    lam_free(matrix);
    if (status != LAM_OK) {
        lam_free(*names);
        *names = NULL;
    }
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
    LAM_TRY(lam_h5ad_filters_register(path));
    access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    H5Pset_file_locking(access, false, true); /* network folders often refuse locks */
    H5_READ(file = H5Fopen(path, H5F_ACC_RDONLY, access), "the file");
    *out = file;
done:
    H5Pclose(access);
    return status;
}

lam_status lam_h5ad_names(const char *path, const char *where, char ***names, int64_t *count) {
    texts links = {0};
    lam_status status = LAM_OK;
    hid_t file = -1, group = -1;
    *names = NULL;
    *count = 0;
    LAM_TRY(open_file(path, &file));
    if (lam_h5ad_is_kind(file, where, H5I_GROUP)) {
        H5_READ(group = H5Gopen2(file, where, H5P_DEFAULT), where);
        LAM_TRY_GOTO(lam_h5ad_links(path, group, &links), done);
    }
    LAM_TRY_GOTO(lam_texts_pack(names, links.items, links.count), done);
    *count = links.count;
done:
    lam_h5ad_free_links(&links);
    if (group >= 0) H5Gclose(group);
    H5Fclose(file);
    return status;
}

lam_status lam_h5ad_read(lam_embeddings *out, char ***names, const char *path, const char *key) {
    hid_t file = -1;
    *names = NULL;
    LAM_TRY(open_file(path, &file));
    lam_status status = lam_h5ad_read_open(out, names, path, file, key);
    H5Fclose(file);
    return status;
}
