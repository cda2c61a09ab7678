/* Allocation that can be made to fail, and arenas.
 *
 *     float *x = NULL;
 *     LAM_TRY(lam_alloc((void **)&x, n * sizeof *x));   // zeroed, 64-byte aligned
 *     ...
 *     lam_free(x);
 *
 * All memory of ours comes from lam_alloc, so that tests fail the n-th allocation (base/fault.h).
 * Ownership: the caller frees with lam_free (free() works too). */
#ifndef LAMELLA_BASE_MEMORY_H
#define LAMELLA_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Zeroed memory, aligned to 64 bytes; bytes = 0 gives a valid pointer. LAM_ERROR_MEMORY. */
lam_status lam_alloc(void **out, size_t bytes);
/* count * size with overflow check. */
lam_status lam_alloc_array(void **out, int64_t count, size_t size);
/* Grows *block from old_bytes to new_bytes (new part zeroed); *block stays valid where it fails. */
lam_status lam_grow(void **block, size_t old_bytes, size_t new_bytes);
void lam_free(void *block);
bool lam_text_ends_with(const char *text, const char *end);
/* Where `word` stands, from 0 on, among words such as "a|b|c" with '|' between them; -1: nowhere, as always
 * for an empty word. */
int lam_text_place(const char *words, char between, const char *word);
/* A copy of `text`, or of its first `length` bytes. */
lam_status lam_text_copy(char **out, const char *text);
lam_status lam_text_copy_n(char **out, const char *text, size_t length);
/* printf into a new string. */
lam_status lam_text_format(char **out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* An arena: many small blocks freed at once. {0} is an empty one. */
typedef struct lam_arena {
    struct lam_arena_block *blocks;
} lam_arena;
lam_status lam_arena_alloc(lam_arena *arena, void **out, size_t bytes); /* zeroed, 64-byte aligned */
lam_status lam_arena_text(lam_arena *arena, char **out, const char *text, size_t length);
void lam_arena_free(lam_arena *arena);

#ifdef __cplusplus
}
#endif
#endif
