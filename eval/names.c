#include "eval/names.h"

#include <string.h>

#include "base/memory.h"

struct lam_names {
    int32_t *slots; /* row + 1, 0: empty */
    uint64_t mask;
    const char *const *entities;
};

static uint64_t hash(const char *text) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325ull;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3ull;
    return h ^ h >> 29;
}

static int32_t *slot_of(const lam_names *n, const char *text) {
    for (uint64_t at = hash(text) & n->mask;; at = (at + 1) & n->mask)
        if (!n->slots[at] || !strcmp(n->entities[n->slots[at] - 1], text)) return &n->slots[at];
}

lam_status lam_names_create(lam_names **out, const char *const *entities, int64_t rows) {
    *out = NULL;
    LAM_REQUIRE(rows < INT32_MAX, LAM_ERROR_INPUT, "a map of %lld rows is too large", (long long)rows);
    lam_names *n;
    LAM_TRY(lam_alloc((void **)&n, sizeof *n));
    uint64_t size = 16;
    while (size < (uint64_t)rows * 2) size *= 2;
    n->mask = size - 1;
    n->entities = entities;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&n->slots, (int64_t)size, sizeof *n->slots), done);
    for (int64_t i = 0; i < rows; i++) {
        int32_t *slot = slot_of(n, entities[i]);
        LAM_REQUIRE_GOTO(
            !*slot, done, LAM_ERROR_INPUT,
            "'%s' stands in rows %d and %lld of the map: one row an entity is needed, aggregate first with lamella map --by",
            entities[i], *slot, (long long)i + 1);
        *slot = (int32_t)i + 1;
    }
done:
    if (status != LAM_OK)
        lam_names_free(n);
    else
        *out = n;
    return status;
}

void lam_names_free(lam_names *n) {
    if (!n) return;
    lam_free(n->slots);
    lam_free(n);
}

int64_t lam_names_find(const lam_names *n, const char *name) { return *slot_of(n, name) - 1; }
