/* Safetensors from bytes: refused with one line, or every tensor can be read and written again as it was. The
 * first byte chooses: 0 the file as it is, else a header up to the first zero byte; its length is added. */
#include "base/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"

#define MAX_BYTES 65536

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void require(int condition) {
    if (!condition) abort();
}

static size_t item_bytes(const char *dtype) {
    static const char *const of_size[][5] = {
        {"I8", "U8", "BOOL"}, {"F16", "BF16", "I16", "U16"}, {"F32", "I32"}, {"F64", "I64"}};
    for (size_t i = 0; i < 4; i++)
        for (int k = 0; of_size[i][k] != NULL; k++)
            if (strcmp(of_size[i][k], dtype) == 0) return (size_t)1 << i;
    abort();
}

static void *read_raw(lam_safetensors *file, const lam_safetensors_entry *entry) {
    void *raw = NULL;
    require(lam_alloc(&raw, (size_t)(entry->end - entry->begin)) == LAM_OK);
    require(lam_safetensors_read_raw(file, entry, raw) == LAM_OK);
    return raw;
}

/* The promises of the header: tensors lie one behind the other, have unique names and as many bytes as their
 * shape says. The buffers are as small as that allows, so that a read past them is seen. */
static void touch(lam_safetensors *file, size_t size) {
    uint64_t at = 0;
    for (int64_t i = 0; i < lam_safetensors_count(file); i++) {
        const lam_safetensors_entry *entry = lam_safetensors_at(file, i);
        int64_t count = 1;
        require(entry->rank >= 0 && entry->rank <= LAM_SAFETENSORS_MAX_RANK);
        for (int d = 0; d < entry->rank; d++) count *= entry->shape[d];
        require(count == entry->count && count >= 0);
        require(entry->begin == at && entry->end <= size);
        require(entry->end - entry->begin == (uint64_t)count * item_bytes(entry->dtype));
        require(lam_safetensors_find(file, entry->name) == entry);
        at = entry->end;
        float *singles = NULL;
        double *doubles = NULL;
        require(lam_alloc_array((void **)&singles, count, sizeof *singles) == LAM_OK);
        require(lam_alloc_array((void **)&doubles, count, sizeof *doubles) == LAM_OK);
        require(lam_safetensors_read_f32(file, entry, singles) == LAM_OK);
        require(lam_safetensors_read_f64(file, entry, doubles) == LAM_OK);
        lam_free(singles);
        lam_free(doubles);
        lam_free(read_raw(file, entry));
    }
    lam_safetensors_metadata(file, "format");
}

static void write_again(lam_safetensors *file) {
    static char path[64] = "";
    if (path[0] == '\0') snprintf(path, sizeof path, "/tmp/lamella-fuzz-%ld.safetensors", (long)getpid());
    lam_safetensors_writer *writer = NULL;
    lam_safetensors *again = NULL;
    require(lam_safetensors_writer_open(&writer, path) == LAM_OK);
    for (int64_t i = 0; i < lam_safetensors_count(file); i++) {
        const lam_safetensors_entry *e = lam_safetensors_at(file, i);
        require(lam_safetensors_writer_declare(writer, e->name, e->dtype, e->rank, e->shape) == LAM_OK);
    }
    for (int64_t i = 0; i < lam_safetensors_count(file); i++) {
        const lam_safetensors_entry *e = lam_safetensors_at(file, i);
        void *raw = read_raw(file, e);
        require(lam_safetensors_writer_data(writer, raw, (size_t)(e->end - e->begin)) == LAM_OK);
        lam_free(raw);
    }
    require(lam_safetensors_writer_commit(&writer) == LAM_OK);
    require(lam_safetensors_open(&again, path) == LAM_OK);
    require(lam_safetensors_count(again) == lam_safetensors_count(file));
    for (int64_t i = 0; i < lam_safetensors_count(file); i++) {
        const lam_safetensors_entry *e = lam_safetensors_at(file, i);
        const lam_safetensors_entry *copy = lam_safetensors_find(again, e->name);
        require(copy != NULL && strcmp(copy->dtype, e->dtype) == 0 && copy->rank == e->rank);
        require(memcmp(copy->shape, e->shape, (size_t)e->rank * sizeof *e->shape) == 0);
        void *before = read_raw(file, e), *after = read_raw(again, copy);
        require(memcmp(before, after, (size_t)(e->end - e->begin)) == 0);
        lam_free(before);
        lam_free(after);
    }
    lam_safetensors_close(again);
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static char content[8 + MAX_BYTES], path[64];
    static int memory = -1, runs = 0;
    if (size < 1 || size > MAX_BYTES) return 0;
    if (memory < 0) {
        memory = memfd_create("fuzz", 0);
        require(memory >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    }
    size_t total = size - 1;
    if (bytes[0] == 0) {
        memcpy(content, bytes + 1, total);
    } else {
        const uint8_t *zero = memchr(bytes + 1, 0, total);
        uint64_t header = zero ? (uint64_t)(zero - bytes - 1) : total;
        for (int i = 0; i < 8; i++) content[i] = (char)(header >> 8 * i);
        memcpy(content + 8, bytes + 1, header);
        size_t data = zero ? total - header - 1 : 0;
        memcpy(content + 8 + header, bytes + 1 + header + (zero != NULL), data);
        total = 8 + header + data;
    }
    require(ftruncate(memory, 0) == 0 && pwrite(memory, content, total, 0) == (ssize_t)total);
    lam_safetensors *file = NULL;
    lam_status status = lam_safetensors_open(&file, path);
    if (status != LAM_OK) {
        require(status == LAM_ERROR_FORMAT && file == NULL);
        require(strstr(lam_last_error(), path) != NULL && strchr(lam_last_error(), '\n') == NULL);
        return 0;
    }
    touch(file, total);
    /* Files are slow: every 64th. */
    if (runs++ % 64 == 0) write_again(file);
    lam_safetensors_close(file);
    return 0;
}
