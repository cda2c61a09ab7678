#include "eval/hierarchy.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"

static int64_t pair_index(int64_t n, int64_t i, int64_t j) {
    return i < j ? i * n - i * (i + 1) / 2 + (j - i - 1) : pair_index(n, j, i);
}

/* ---- the chain ---- */

/* The nearest cluster of x; `previous` (or -1) is taken where none is nearer, else the chain could go round in a ring of ties. */
static int64_t nearest(const double *distance, const int64_t *size, int64_t n, int64_t x, int64_t previous,
                       double *least) {
    int64_t y = previous;
    *least = previous < 0 ? (double)INFINITY : distance[pair_index(n, x, previous)];
    for (int64_t i = 0; i < n; i++) {
        if (!size[i] || i == x) continue;
        double d = distance[pair_index(n, x, i)];
        if (y >= 0 && !(d < *least)) continue;
        *least = d;
        y = i;
    }
    return y;
}

/* Lance and Williams' update; y stands for the new cluster, x is gone. */
static void join(double *distance, int64_t *size, int64_t n, int64_t x, int64_t y) {
    double nx = (double)size[x], ny = (double)size[y];
    size[y] += size[x];
    size[x] = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!size[i] || i == y) continue;
        double *d = &distance[pair_index(n, i, y)];
        *d = (nx * distance[pair_index(n, i, x)] + ny * *d) / (nx + ny);
    }
}

static void chain_merges(double *distance, int64_t n, int64_t *size, int64_t *chain, lam_merge *merges) {
    int64_t length = 0;
    for (int64_t i = 0; i < n; i++) size[i] = 1;
    for (int64_t k = 0; k + 1 < n; k++) {
        if (!length)
            for (int64_t i = 0; i < n && !length; i++)
                if (size[i]) chain[length++] = i;
        int64_t x, y;
        double least;
        for (;;) {
            int64_t previous = length > 1 ? chain[length - 2] : -1;
            x = chain[length - 1];
            y = nearest(distance, size, n, x, previous, &least);
            if (y == previous) break;
            chain[length++] = y;
        }
        length -= 2;
        if (x > y) {
            int64_t swap = x;
            x = y;
            y = swap;
        }
        merges[k] =
            (lam_merge){x, y, k, least}; /* size is the order of making until the merges are numbered */
        join(distance, size, n, x, y);
    }
}

/* ---- numbering ---- */

static int nearer_first(const void *a, const void *b) {
    const lam_merge *x = a, *y = b;
    if (x->distance != y->distance) return x->distance < y->distance ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

static int64_t root_of(int64_t *parent, int64_t i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

lam_status lam_hierarchy_average(double *distance, int64_t n, lam_merge *merges) {
    for (int64_t k = 0; k < n * (n - 1) / 2; k++)
        LAM_REQUIRE(!isnan(distance[k]), LAM_ERROR_NUMERIC,
                    "a distance between rows to be clustered is not a number");
    int64_t *size = NULL, *chain = NULL, *parent = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&size, 2 * n, sizeof *size), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&chain, n, sizeof *chain), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&parent, 2 * n, sizeof *parent), done);
    chain_merges(distance, n, size, chain, merges);
    if (n > 1) qsort(merges, (size_t)n - 1, sizeof *merges, nearer_first);
    for (int64_t i = 0; i < 2 * n; i++) parent[i] = i;
    for (int64_t i = 0; i < 2 * n; i++) size[i] = 1;
    for (int64_t k = 0; k + 1 < n; k++) {
        int64_t a = root_of(parent, merges[k].left), b = root_of(parent, merges[k].right);
        size[n + k] = size[a] + size[b];
        parent[a] = parent[b] = n + k;
        merges[k] = (lam_merge){a < b ? a : b, a < b ? b : a, size[n + k], merges[k].distance};
    }
done:
    lam_free(size);
    lam_free(chain);
    lam_free(parent);
    return status;
}

lam_status lam_hierarchy_leaves(const lam_merge *merges, int64_t n, int64_t *order) {
    int64_t *open, depth = 0, found = 0;
    LAM_TRY(lam_alloc_array((void **)&open, n, sizeof *open));
    open[depth++] = 2 * n - 2; /* the last merge; the row itself where there is one */
    while (depth) {
        int64_t cluster = open[--depth];
        if (cluster < n) {
            order[found++] = cluster;
            continue;
        }
        open[depth++] = merges[cluster - n].right;
        open[depth++] = merges[cluster - n].left;
    }
    lam_free(open);
    return LAM_OK;
}
