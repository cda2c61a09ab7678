#include "base/memory.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fault.h"

#define ALIGNMENT ((size_t)64)
#define HUGE_PAGE ((size_t)1 << 21)
#define HUGE_BLOCK                                                                                           \
    (2 * HUGE_PAGE) /* blocks from here on ask for huge pages: a fault each 2 MiB, not each 4 KiB */
#define ASKED_BLOCK ((size_t)1 << 30) /* blocks from here on are asked of the system first */
#define ARENA_BLOCK_BYTES ((size_t)1 << 16)

static size_t round_up(size_t bytes) { return (bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1); }

/* Large blocks lie in pages of their own, which go back to the system with them; glibc would otherwise take them from the heap once
 * a few were freed, and keep its holes. Smaller ones that are freed stay with the heap: oneDNN's sgemm takes room for its panels
 * (5 MB for those of ViT-B) at every call, which the system would clear anew each time. */
#define MAPPED_BYTES (8 << 20)
#define KEPT_BYTES (64 << 20)

__attribute__((constructor)) static void set_heap(void) {
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
}

/* What the system can still give, swap counted; SIZE_MAX where it does not say. */
static size_t available_bytes(void) {
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file) return SIZE_MAX;
    char line[128];
    size_t memory = 0, swap = 0;
    while (fgets(line, sizeof line, file)) {
        (void)sscanf(line, "MemAvailable: %zu", &memory);
        (void)sscanf(line, "SwapFree: %zu", &swap);
    }
    (void)fclose(file);
    return memory ? (memory + swap) * 1024 : SIZE_MAX;
}

lam_status lam_alloc(void **out, size_t bytes) {
    *out = NULL;
    LAM_REQUIRE(bytes <= SIZE_MAX - ALIGNMENT, LAM_ERROR_MEMORY, "out of memory: %zu bytes asked for", bytes);
    size_t rounded = bytes ? round_up(bytes) : ALIGNMENT;
    bool huge = rounded >= HUGE_BLOCK && rounded <= SIZE_MAX - HUGE_PAGE;
    if (rounded >= ASKED_BLOCK) { /* Linux promises more than it has, and kills who takes it at his word */
        size_t available = available_bytes();
        LAM_REQUIRE(rounded <= available, LAM_ERROR_MEMORY,
                    "out of memory: %.1f GiB asked for, %.1f are free", (double)bytes / 0x1p30,
                    (double)available / 0x1p30);
    }
    size_t whole = huge ? (rounded + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE : rounded;
    void *block = lam_fault_hit(LAM_FAULT_ALLOC) ? NULL : aligned_alloc(huge ? HUGE_PAGE : ALIGNMENT, whole);
    LAM_REQUIRE(block, LAM_ERROR_MEMORY, "out of memory: %zu bytes asked for", bytes);
    if (huge)
        (void)madvise(block, rounded / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* a wish: as well without */
    memset(block, 0, rounded);
    *out = block;
    return LAM_OK;
}

lam_status lam_alloc_array(void **out, int64_t count, size_t size) {
    *out = NULL;
    size_t bytes;
    LAM_REQUIRE(count >= 0 && !__builtin_mul_overflow((size_t)count, size, &bytes), LAM_ERROR_MEMORY,
                "out of memory: %lld elements of %zu bytes asked for", (long long)count, size);
    return lam_alloc(out, bytes);
}

lam_status lam_grow(void **block, size_t old_bytes, size_t new_bytes) {
    if (new_bytes <= old_bytes && *block) return LAM_OK;
    void *grown;
    LAM_TRY(lam_alloc(&grown, new_bytes));
    if (*block && old_bytes) memcpy(grown, *block, old_bytes);
    free(*block);
    *block = grown;
    return LAM_OK;
}

void lam_free(void *block) { free(block); }

lam_status lam_text_copy_n(char **out, const char *text, size_t length) {
    LAM_TRY(lam_alloc((void **)out, length + 1));
    memcpy(*out, text, length);
    return LAM_OK;
}

bool lam_text_ends_with(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

int lam_text_place(const char *words, char between, const char *word) {
    size_t length = strlen(word);
    for (int place = 0; length && words; place++) {
        const char *end = strchr(words, between);
        size_t n = end ? (size_t)(end - words) : strlen(words);
        if (n == length && !memcmp(words, word, n)) return place;
        words = end ? end + 1 : NULL;
    }
    return -1;
}

lam_status lam_text_copy(char **out, const char *text) { return lam_text_copy_n(out, text, strlen(text)); }

lam_status lam_text_format(char **out, const char *format, ...) {
    *out = NULL;
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(length >= 0, done, LAM_ERROR_INTERNAL, "a text could not be formatted");
    LAM_TRY_GOTO(lam_alloc((void **)out, (size_t)length + 1), done);
    vsnprintf(*out, (size_t)length + 1, format, again);
done:
    va_end(again);
    return status;
}

struct lam_arena_block {
    struct lam_arena_block *next;
    size_t used, size;
    _Alignas(64) unsigned char bytes[];
};

lam_status lam_arena_alloc(lam_arena *arena, void **out, size_t bytes) {
    *out = NULL;
    LAM_REQUIRE(bytes < SIZE_MAX / 2, LAM_ERROR_MEMORY, "out of memory: %zu bytes asked for", bytes);
    size_t rounded = bytes ? round_up(bytes) : ALIGNMENT;
    struct lam_arena_block *block = arena->blocks;
    if (!block || block->size - block->used < rounded) {
        size_t size = rounded > ARENA_BLOCK_BYTES ? rounded : ARENA_BLOCK_BYTES;
        void *memory;
        LAM_TRY(lam_alloc(&memory, sizeof *block + size));
        block = memory;
        block->size = size;
        block->next = arena->blocks;
        arena->blocks = block;
    }
    *out = block->bytes + block->used;
    block->used += rounded;
    return LAM_OK;
}

lam_status lam_arena_text(lam_arena *arena, char **out, const char *text, size_t length) {
    void *memory;
    LAM_TRY(lam_arena_alloc(arena, &memory, length + 1));
    memcpy(memory, text, length);
    *out = memory;
    return LAM_OK;
}

void lam_arena_free(lam_arena *arena) {
    while (arena->blocks) {
        struct lam_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
}
