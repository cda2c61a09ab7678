#include <stdlib.h>
#include <string.h>

#include "base/h5ad_parts.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/table_store.h"

/* ---- what is left out ---- */

static lam_status leave_out(char **list, const char *name, const char *unknown) {
    char *longer = NULL;
    LAM_TRY(lam_text_format(&longer, "%s%s'%s' (%s)", *list != NULL ? *list : "", *list != NULL ? ", " : "",
                            name, unknown));
    lam_free(*list);
    *list = longer;
    return LAM_OK;
}

static void warn_left_out(const char *path, const char *frame, char *list) {
    if (list == NULL) return;
    for (char *at = list; *at != '\0'; at++) {
        if ((unsigned char)*at < 0x20) *at = ' ';
    }
    lam_log_warning("%s: columns of %s left out, of a kind that is not read: %s", path, frame, list);
}

/* ---- names of rows and columns ---- */

/* Where a frame keeps the names of its rows: "_index", or the name that the index had in pandas. */
static lam_status index_name(const char *path, hid_t frame, char **name) {
    texts key = {0};
    bool found = false;
    LAM_TRY(lam_h5ad_attribute(path, frame, "_index", &found, &key));
    lam_status status = lam_text_copy(name, found && key.count == 1 ? key.items[0] : "_index");
    lam_h5ad_free_texts(&key);
    return status;
}

lam_status lam_h5ad_index(const char *path, hid_t frame, const char *frame_name, texts *out) {
    char *name = NULL, unknown[LAM_H5AD_WORD_BYTES];
    lam_status status = LAM_OK;
    LAM_TRY(index_name(path, frame, &name));
    LAM_REQUIRE_GOTO(lam_h5ad_exists(frame, name), done, LAM_ERROR_FORMAT, "%s: %s has no index '%s'", path,
                     frame_name, name);
    LAM_TRY_GOTO(lam_h5ad_column(path, frame, name, 0, unknown, out), done);
    LAM_REQUIRE_GOTO(!unknown[0], done, LAM_ERROR_FORMAT,
                     "%s: the index '%s' of %s is of a kind that is not read (%s); write it as text", path,
                     name, frame_name, unknown);
done:
    lam_free(name);
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

lam_status lam_h5ad_links(const char *path, hid_t group, texts *out) {
    LAM_REQUIRE(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, add_link, out) >= 0, LAM_ERROR_MEMORY,
                "%s: no memory for the names of a group", path);
    return LAM_OK;
}

void lam_h5ad_free_links(texts *links) {
    for (int64_t i = 0; i < links->count; i++) free((void *)(uintptr_t)links->items[i]);
    lam_h5ad_free_texts(links);
}

/* The columns in the order of the frame; of a frame that does not say, by name. */
static lam_status list_columns(const char *path, hid_t frame, texts *out) {
    bool found = false;
    LAM_TRY(lam_h5ad_attribute(path, frame, "column-order", &found, out));
    if (found || H5Aexists(frame, "column-order") > 0)
        return LAM_OK; /* h5py writes an empty list as floats */
    texts links = {0};
    char **packed = NULL, *index = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_h5ad_links(path, frame, &links), done);
    LAM_TRY_GOTO(index_name(path, frame, &index), done);
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
    lam_h5ad_free_links(&links);
    lam_free(index);
    return status;
}

/* ---- a frame as metadata ---- */

/* An index with a name of its own ("gene") can be asked for by it, as pandas users expect of reset_index. */
static lam_status add_named_index(lam_embeddings *out, const char *path, hid_t frame, const texts *names,
                                  const texts *index) {
    char *name = NULL;
    LAM_TRY(index_name(path, frame, &name));
    bool add = strcmp(name, "_index") != 0 && strcmp(name, "index") != 0 && name[0] != '\0';
    for (int64_t i = 0; add && i < names->count; i++) add = strcmp(names->items[i], name) != 0;
    lam_status status = add ? lam_table_add(out->obs, name, index->items) : LAM_OK;
    lam_free(name);
    return status;
}

lam_status lam_h5ad_obs(lam_embeddings *out, const char *path, hid_t file) {
    lam_status status = LAM_OK;
    hid_t frame = -1;
    texts names = {0}, column = {0};
    char *left_out = NULL, unknown[LAM_H5AD_WORD_BYTES];
    LAM_REQUIRE(!lam_h5ad_is_kind(file, "obs", H5I_DATASET), LAM_ERROR_FORMAT,
                "%s: written by anndata before 0.7; convert it: python -c \"import anndata; "
                "anndata.read_h5ad('%s').write_h5ad('new.h5ad')\"",
                path, path);
    LAM_REQUIRE(lam_h5ad_exists(file, "obs"), LAM_ERROR_FORMAT, "%s: no obs (the metadata of the rows)",
                path);
    H5_READ(frame = H5Gopen2(file, "obs", H5P_DEFAULT), "obs");
    LAM_TRY_GOTO(lam_h5ad_index(path, frame, "obs", &column), done);
    LAM_REQUIRE_GOTO(column.count == out->rows, done, LAM_ERROR_FORMAT,
                     "%s: obs has %lld rows, the matrix %lld", path, (long long)column.count,
                     (long long)out->rows);
    LAM_TRY_GOTO(lam_texts_pack(&out->index, column.items, column.count), done);
    LAM_TRY_GOTO(list_columns(path, frame, &names), done);
    LAM_TRY_GOTO(lam_table_create(&out->obs, out->rows), done);
    LAM_TRY_GOTO(lam_table_store_origin(out->obs, path, NULL), done);
    LAM_TRY_GOTO(add_named_index(out, path, frame, &names, &column), done);
    for (int64_t i = 0; i < names.count; i++) {
        if (strcmp(names.items[i], "index") == 0) continue;
        lam_h5ad_free_texts(&column);
        status = lam_h5ad_column(path, frame, names.items[i], 0, unknown, &column);
        if (status != LAM_OK) {
            lam_fail_context(status, "obs column '%s'", names.items[i]);
            goto done;
        }
        if (unknown[0]) {
            LAM_TRY_GOTO(leave_out(&left_out, names.items[i], unknown), done);
            continue;
        }
        LAM_REQUIRE_GOTO(column.count == out->rows, done, LAM_ERROR_FORMAT,
                         "%s: obs column '%s' has %lld rows, the matrix %lld", path, names.items[i],
                         (long long)column.count, (long long)out->rows);
        LAM_TRY_GOTO(lam_table_add(out->obs, names.items[i], column.items), done);
    }
    warn_left_out(path, "obs", left_out);
done:
    lam_h5ad_free_texts(&column);
    lam_h5ad_free_texts(&names);
    lam_free(left_out);
    if (frame >= 0) H5Gclose(frame);
    return status;
}

/* ---- a frame as the matrix ---- */

lam_status lam_h5ad_frame_matrix(lam_embeddings *out, char ***names, const char *path, hid_t file,
                                 const char *name) {
    lam_status status = LAM_OK;
    hid_t frame = -1;
    texts order = {0}, index = {0};
    double *numbers = NULL;
    char *left_out = NULL, unknown[LAM_H5AD_WORD_BYTES];
    H5_READ(frame = H5Gopen2(file, name, H5P_DEFAULT), name);
    LAM_TRY_GOTO(lam_h5ad_index(path, frame, name, &index), done);
    LAM_TRY_GOTO(list_columns(path, frame, &order), done);
    LAM_TRY_GOTO(lam_h5ad_matrix_new(out, path, index.count, order.count), done);
    int64_t rows = out->rows, kept = 0;
    out->was_float32 = false;
    for (int64_t i = 0; i < order.count; i++) {
        lam_free(numbers);
        numbers = NULL;
        status = lam_h5ad_column_numbers(path, frame, order.items[i], rows, unknown, &numbers);
        if (status != LAM_OK) {
            lam_fail_context(status, "column '%s' of %s", order.items[i], name);
            goto done;
        }
        if (unknown[0]) {
            LAM_TRY_GOTO(leave_out(&left_out, order.items[i], unknown), done);
            continue;
        }
        for (int64_t row = 0; row < rows; row++) out->values[row * order.count + kept] = numbers[row];
        order.items[kept++] = order.items[i];
    }
    LAM_REQUIRE_GOTO(kept > 0, done, LAM_ERROR_INPUT, "%s: '%s' has no column of numbers", path, name);
    /* Rows move to the front of the block, each onto room that was read already. */
    for (int64_t row = 0; row < rows; row++)
        memmove(out->values + row * kept, out->values + row * order.count, (size_t)kept * sizeof(double));
    out->columns = kept;
    LAM_TRY_GOTO(lam_texts_pack(names, order.items, kept), done);
    warn_left_out(path, name, left_out);
done:
    lam_h5ad_free_texts(&order);
    lam_h5ad_free_texts(&index);
    lam_free(numbers);
    lam_free(left_out);
    if (frame >= 0) H5Gclose(frame);
    return status;
}
