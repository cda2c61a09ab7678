/* Files of torch.save from bytes: refused with one line, or every tensor can be read and written again with the same
 * values. The first byte chooses: 0 the zip as it is; else a pickle whose length the next two bytes give, and behind it
 * the bytes of the storages 0 and 1, of which zips are made. */
#include "base/torch_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "base/memory.h"

#define MAX_BYTES 65536
#define MAX_TENSORS 256

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void require(int condition) {
    if (!condition) abort();
}

/* ---- a zip of stored entries ---- */

static uint8_t zip[8 * MAX_BYTES], directory[1024];
static size_t zip_size, directory_size;
static int entries;

static void put(uint8_t *out, size_t *at, uint64_t number, int bytes) {
    for (int i = 0; i < bytes; i++) out[(*at)++] = (uint8_t)(number >> 8 * i);
}

/* What local header and directory have in common. */
static void put_facts(uint8_t *out, size_t *at, const char *name, const uint8_t *data, size_t size) {
    put(out, at, 20, 2);
    put(out, at, 0, 2);
    put(out, at, 0, 2);
    put(out, at, 0x210000, 4);
    put(out, at, crc32(0, data, (uInt)size), 4);
    put(out, at, size, 4);
    put(out, at, size, 4);
    put(out, at, strlen(name), 2);
    put(out, at, 0, 2);
}

static void add(const char *name, const uint8_t *data, size_t size) {
    size_t begin = zip_size;
    put(zip, &zip_size, 0x04034b50, 4);
    put_facts(zip, &zip_size, name, data, size);
    memcpy(zip + zip_size, name, strlen(name));
    zip_size += strlen(name);
    if (size) memcpy(zip + zip_size, data, size);
    zip_size += size;
    put(directory, &directory_size, 0x02014b50, 4);
    put(directory, &directory_size, 20, 2);
    put_facts(directory, &directory_size, name, data, size);
    put(directory, &directory_size, 0, 6);
    put(directory, &directory_size, 0, 4);
    put(directory, &directory_size, begin, 4);
    memcpy(directory + directory_size, name, strlen(name));
    directory_size += strlen(name);
    entries++;
}

static void finish(void) {
    size_t begin = zip_size;
    memcpy(zip + zip_size, directory, directory_size);
    zip_size += directory_size;
    put(zip, &zip_size, 0x06054b50, 4);
    put(zip, &zip_size, 0, 4);
    put(zip, &zip_size, (uint64_t)entries, 2);
    put(zip, &zip_size, (uint64_t)entries, 2);
    put(zip, &zip_size, directory_size, 4);
    put(zip, &zip_size, begin, 4);
    put(zip, &zip_size, 0, 2);
}

static void build(const uint8_t *bytes, size_t size) {
    size_t length = size > 2 ? (size_t)(bytes[1] | bytes[2] << 8) : 0, rest = size > 3 ? size - 3 : 0;
    if (length > rest) length = rest;
    zip_size = directory_size = 0;
    entries = 0;
    add("a/data.pkl", bytes + (size > 3 ? 3 : 0), length);
    add("a/byteorder", (const uint8_t *)"little", 6);
    add("a/data/0", bytes + size - (rest - length), rest - length);
    add("a/data/1", bytes + size - (rest - length) / 2, (rest - length) / 2);
    finish();
}

/* ---- the promises of the header ---- */

/* Buffers are as small as the counts allow, so that a write past them is seen. Values may be unreadable (a checksum). */
static void touch(lam_torch_file *file, size_t size, bool again) {
    static char path[64] = "";
    lam_torch_tensor tensors[MAX_TENSORS];
    float *values[MAX_TENSORS];
    int64_t count = lam_torch_count(file), kept = 0;
    for (int64_t i = 0; i < count; i++) {
        const lam_torch_entry *entry = lam_torch_at(file, i);
        int64_t elements = 1;
        require(entry->tensor->rank >= 0 && entry->tensor->rank <= LAM_PICKLE_MAX_RANK);
        require(entry->count >= 0 && (uint64_t)entry->count <= size);
        for (int d = 0; d < entry->tensor->rank; d++) {
            require(entry->tensor->shape[d] >= 0);
            if (entry->count) elements *= entry->tensor->shape[d];
        }
        require(entry->count == 0 || elements == entry->count);
        require(lam_torch_find(file, entry->name) == entry);
        if (kept == MAX_TENSORS) continue;
        require(lam_alloc_array((void **)&values[kept], entry->count, sizeof(float)) == LAM_OK);
        lam_status status = lam_torch_read_f32(file, entry, values[kept]);
        require(status == LAM_OK || status == LAM_ERROR_FORMAT);
        bool whole = status == LAM_OK && entry->count > 0;
        if (whole) {
            tensors[kept] =
                (lam_torch_tensor){entry->name, entry->tensor->rank, entry->tensor->shape, values[kept]};
            kept++;
        } else {
            lam_free(values[kept]);
        }
    }
    if (again) {
        lam_torch_file *copy = NULL;
        if (path[0] == '\0') snprintf(path, sizeof path, "/tmp/lamella-fuzz-%ld.pt", (long)getpid());
        require(lam_torch_write(path, tensors, kept, false) == LAM_OK);
        /* A tensor called "model" is no dict, and a name with dots stays one. */
        require(lam_torch_open(&copy, path) == LAM_OK && lam_torch_count(copy) == kept);
        for (int64_t i = 0; i < kept; i++) {
            const lam_torch_entry *entry = lam_torch_at(copy, i);
            float *read = NULL;
            require(strcmp(entry->name, tensors[i].name) == 0);
            require(lam_alloc_array((void **)&read, entry->count, sizeof(float)) == LAM_OK);
            require(lam_torch_read_f32(copy, entry, read) == LAM_OK);
            require(memcmp(read, values[i], (size_t)entry->count * sizeof(float)) == 0);
            lam_free(read);
        }
        lam_torch_close(copy);
        unlink(path);
    }
    for (int64_t i = 0; i < kept; i++) lam_free(values[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static char path[64];
    static int memory = -1, runs = 0;
    if (size < 1 || size > MAX_BYTES) return 0;
    if (memory < 0) {
        memory = memfd_create("fuzz", 0);
        require(memory >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    }
    if (bytes[0] == 0) {
        zip_size = size - 1;
        memcpy(zip, bytes + 1, zip_size);
    } else {
        build(bytes, size);
    }
    require(ftruncate(memory, 0) == 0 && pwrite(memory, zip, zip_size, 0) == (ssize_t)zip_size);
    lam_torch_file *file = NULL;
    lam_status status = lam_torch_open(&file, path);
    if (status != LAM_OK) {
        require((status == LAM_ERROR_FORMAT || status == LAM_ERROR_IO) && file == NULL);
        require(strstr(lam_last_error(), path) != NULL && strchr(lam_last_error(), '\n') == NULL);
        return 0;
    }
    /* Files are slow: every 64th. */
    touch(file, zip_size, runs++ % 64 == 0);
    lam_torch_close(file);
    return 0;
}
