#include <hdf5.h>
#include <string.h>
#include <zstd.h>

#include "base/h5ad_parts.h"

/* Bytes of a chunk of the dataset that lam_h5ad_filters_check saw last: what a filter must give back, no more
 * and no less, because HDF5 takes the chunk to be whole. */
static size_t chunk_bytes;

/* liblzf's stream. A byte c below 32: c + 1 bytes follow as they are. Otherwise (c >> 5) + 2 bytes (7: the
 * next byte more) are repeated from 256 (c & 31) + next byte + 1 bytes back; they may overlap themselves.
 * True where it fills `out` exactly. */
static bool unpack_lzf(const unsigned char *in, size_t in_size, unsigned char *out, size_t out_size) {
    size_t at = 0, made = 0;
    while (at < in_size) {
        size_t c = in[at++];
        if (c < 32) {
            size_t length = c + 1;
            if (length > in_size - at || length > out_size - made) return false;
            memcpy(out + made, in + at, length);
            at += length;
            made += length;
            continue;
        }
        size_t length = (c >> 5) + 2;
        if (length == 9) {
            if (at >= in_size) return false;
            length += in[at++];
        }
        if (at >= in_size) return false;
        size_t back = ((c & 31) << 8) + in[at++] + 1;
        if (back > made || length > out_size - made) return false;
        for (; length > 0; length--, made++) out[made] = out[made - back];
    }
    return made == out_size;
}

static bool unpack_zstd(const unsigned char *in, size_t in_size, unsigned char *out, size_t out_size) {
    return ZSTD_decompress(out, out_size, in, in_size) == out_size;
}

typedef bool unpacker(const unsigned char *in, size_t in_size, unsigned char *out, size_t out_size);

static size_t run_filter(unpacker *unpack, unsigned flags, size_t size, size_t *room, void **buffer) {
    if ((flags & H5Z_FLAG_REVERSE) == 0) return 0; /* we write no such chunks */
    unsigned char *out = H5allocate_memory(chunk_bytes, false);
    if (out == NULL) return 0;
    if (!unpack(*buffer, size, out, chunk_bytes)) {
        H5free_memory(out);
        return 0;
    }
    H5free_memory(*buffer);
    *buffer = out;
    *room = chunk_bytes;
    return chunk_bytes;
}

static size_t filter_lzf(unsigned flags, size_t count, const unsigned values[], size_t size, size_t *room,
                         void **buffer) {
    (void)count;
    (void)values;
    return run_filter(unpack_lzf, flags, size, room, buffer);
}

static size_t filter_zstd(unsigned flags, size_t count, const unsigned values[], size_t size, size_t *room,
                          void **buffer) {
    (void)count;
    (void)values;
    return run_filter(unpack_zstd, flags, size, room, buffer);
}

enum { FILTER_LZF = 32000, FILTER_ZSTD = 32015 };

lam_status lam_h5ad_filters_register(const char *path) {
    static const H5Z_class2_t classes[] = {
        {H5Z_CLASS_T_VERS, FILTER_LZF, 0, 1, "lzf", NULL, NULL, filter_lzf},
        {H5Z_CLASS_T_VERS, FILTER_ZSTD, 0, 1, "zstd", NULL, NULL, filter_zstd}};
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        if (H5Zregister(&classes[i]) < 0)
            return lam_h5ad_fail(LAM_ERROR_EXTERNAL, path, "HDF5 takes no filter");
    }
    return LAM_OK;
}

/* Bytes of an element in the file: texts of any length are there as length (4), address and number (4). */
static size_t element_bytes(hid_t file, hid_t type) {
    size_t address = 8, length = 8;
    if (H5Tis_variable_str(type) <= 0) return H5Tget_size(type);
    hid_t creation = H5Fget_create_plist(file);
    if (creation >= 0) {
        H5Pget_sizes(creation, &address, &length);
        H5Pclose(creation);
    }
    return 4 + address + 4;
}

lam_status lam_h5ad_filters_check(const char *path, const char *name, hid_t file, hid_t plan, hid_t type) {
    hsize_t chunk[H5S_MAX_RANK];
    int rank = H5Pget_chunk(plan, H5S_MAX_RANK, chunk), filters = H5Pget_nfilters(plan);
    LAM_REQUIRE(rank > 0 && filters >= 0, LAM_ERROR_FORMAT, "%s: '%s' is damaged", path, name);
    size_t bytes = element_bytes(file, type);
    for (int i = 0; i < rank; i++) {
        LAM_REQUIRE(!__builtin_mul_overflow(bytes, chunk[i], &bytes), LAM_ERROR_FORMAT,
                    "%s: the chunks of '%s' are too large", path, name);
    }
    chunk_bytes = bytes;
    bool whole = true; /* before this filter of the writing order a chunk still has its full size */
    for (int i = 0; i < filters; i++) {
        char label[64] = "";
        size_t values = 0;
        unsigned flags = 0;
        H5Z_filter_t id = H5Pget_filter2(plan, (unsigned)i, &flags, &values, NULL, sizeof label, label, NULL);
        bool ours = id == FILTER_LZF || id == FILTER_ZSTD;
        LAM_REQUIRE(
            H5Zfilter_avail(id) > 0 && (!ours || whole), LAM_ERROR_INPUT,
            "%s: '%s' is compressed by a filter that is not known (%d %.32s); write the file with gzip: "
            "python -c \"import hdf5plugin, anndata; "
            "anndata.read_h5ad('%s').write_h5ad('new.h5ad', compression='gzip')\"",
            path, name, (int)id, label, path);
        whole = whole && id == H5Z_FILTER_SHUFFLE;
    }
    return LAM_OK;
}
