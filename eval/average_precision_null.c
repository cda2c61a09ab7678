/* The mean average precision of groups and its null: rankings at random. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/threads.h"
#include "eval/average_precision.h"

#define NULL_VALUES (1 << 22) /* of all sizes that are held at once: 32 MiB */
#define ROUNDING 1e-12        /* means of the same average precisions, summed in another order */

/* Rows of one group with the same number of positives and of negatives. */
typedef struct member {
    int64_t group, positives, negatives, size, rows;
} member;

typedef struct null {
    member *sizes; /* each pair of numbers once */
    member *members;
    int64_t size_count, member_count, most; /* most: items of one ranking */
} null;

static int by_size(const void *a, const void *b) {
    const member *x = a, *y = b;
    if (x->positives != y->positives) return x->positives < y->positives ? -1 : 1;
    return (x->negatives > y->negatives) - (x->negatives < y->negatives);
}

static int by_group(const void *a, const void *b) {
    const member *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

static lam_status find_sizes(null *n, const lam_row_score *scores, const int64_t *group, int64_t rows) {
    member *m;
    LAM_TRY(lam_alloc_array((void **)&n->members, rows, sizeof *n->members));
    m = n->members;
    int64_t count = 0, kept = 0;
    for (int64_t i = 0; i < rows; i++)
        if (group[i] >= 0 && !isnan(scores[i].average_precision))
            m[count++] = (member){group[i], scores[i].positives, scores[i].negatives, 0, 1};
    LAM_TRY(lam_alloc_array((void **)&n->sizes, count, sizeof *n->sizes));
    qsort(m, (size_t)count, sizeof *m, by_size);
    for (int64_t k = 0; k < count; k++) {
        if (!k || by_size(&m[k], &m[k - 1])) n->sizes[n->size_count++] = m[k];
        m[k].size = n->size_count - 1;
        if (m[k].positives + m[k].negatives > n->most) n->most = m[k].positives + m[k].negatives;
    }
    qsort(m, (size_t)count, sizeof *m, by_group);
    for (int64_t k = 0; k < count; k++) {
        if (kept && !by_group(&m[k], &m[kept - 1]))
            m[kept - 1].rows++;
        else
            m[kept++] = m[k];
    }
    n->member_count = kept;
    return LAM_OK;
}

/* The AP of one random ranking: the places of the positives are a random subset (Floyd's algorithm: Bentley, Floyd,
 * Comm. ACM 30, 1987), kept as bits so that they come out in order. `places` is all zero before and after. */
static double random_average_precision(lam_rng *rng, int64_t positives, int64_t total, uint64_t *places) {
    for (int64_t j = total - positives; j < total; j++) {
        int64_t k = lam_rng_below(rng, (uint32_t)(j + 1));
        if (places[k / 64] >> (k % 64) & 1) k = j;
        places[k / 64] |= 1ull << (k % 64);
    }
    double sum = 0;
    int64_t found = 0;
    for (int64_t w = 0; found < positives; w++) {
        for (uint64_t bits = places[w]; bits; bits &= bits - 1)
            sum += (double)++found / (double)(w * 64 + __builtin_ctzll(bits) + 1);
        places[w] = 0;
    }
    return sum / (double)positives;
}

static void draw(const null *n, int64_t size, int64_t from, int64_t count, uint64_t seed, uint64_t *places,
                 double *values) {
    const member *s = &n->sizes[size];
    uint64_t key = lam_mix64(seed ^ lam_mix64(lam_mix64((uint64_t)s->positives) + (uint64_t)s->negatives));
    for (int64_t k = 0; k < count; k++) {
        lam_rng rng = lam_rng_stream(key, LAM_RNG_SAMPLE, (uint64_t)(from + k));
        values[k] = random_average_precision(&rng, s->positives, s->positives + s->negatives, places);
    }
}

/* What draws from..from + count say about the group whose members begin at `m`. */
static void judge(const member *m, const double *values, int64_t stride, int64_t count, lam_group_score *out,
                  int64_t *reached, double *sums) {
    memset(sums, 0, (size_t)count * sizeof *sums);
    for (int64_t left = out->rows; left; left -= m++->rows)
        for (int64_t k = 0; k < count; k++) sums[k] += (double)m->rows * values[m->size * stride + k];
    for (int64_t k = 0; k < count; k++) {
        double mean = sums[k] / (double)out->rows;
        *reached += mean >= out->mean - ROUNDING;
        out->chance += mean;
    }
}

static lam_status permute(const null *n, int64_t groups, const int64_t *first, int64_t permutations,
                          uint64_t seed, lam_group_score *out) {
    int64_t threads = lam_threads(), at_once = NULL_VALUES / (n->size_count + threads),
            words = n->most / 64 + 1;
    if (at_once < 1) at_once = 1;
    if (at_once > permutations) at_once = permutations;
    double *values = NULL, *sums = NULL;
    uint64_t *places = NULL;
    int64_t *reached = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, n->size_count * at_once, sizeof *values), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&sums, threads * at_once, sizeof *sums), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&places, threads * words, sizeof *places), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&reached, groups, sizeof *reached), done);
    lam_progress *progress = lam_progress_start("null", permutations, "rankings");
    for (int64_t from = 0; from < permutations; from += at_once) {
        int64_t count = permutations - from < at_once ? permutations - from : at_once;
#pragma omp parallel num_threads(lam_threads())
        {
            int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
            for (int64_t s = 0; s < n->size_count; s++)
                draw(n, s, from, count, seed, places + thread * words, values + s * at_once);
#pragma omp for schedule(dynamic, 16)
            for (int64_t g = 0; g < groups; g++)
                if (out[g].rows)
                    judge(n->members + first[g], values, at_once, count, &out[g], &reached[g],
                          sums + thread * at_once);
        }
        lam_progress_update(progress, from + count, NULL);
    }
    lam_progress_finish(progress);
    for (int64_t g = 0; g < groups; g++) {
        out[g].p = out[g].rows ? (double)(1 + reached[g]) / (double)(1 + permutations) : (double)NAN;
        out[g].chance = out[g].rows ? out[g].chance / (double)permutations : (double)NAN;
    }
done:
    lam_free(values);
    lam_free(sums);
    lam_free(places);
    lam_free(reached);
    return status;
}

lam_status lam_average_precision_groups(const lam_row_score *scores, const int64_t *group, int64_t rows,
                                        int64_t groups, int64_t permutations, uint64_t seed,
                                        lam_group_score *out) {
    null n = {0};
    int64_t *first = NULL;
    lam_status status = LAM_OK;
    for (int64_t g = 0; g < groups; g++) out[g] = (lam_group_score){0};
    for (int64_t i = 0; i < rows; i++) {
        if (group[i] < 0 || isnan(scores[i].average_precision)) continue;
        out[group[i]].rows++;
        out[group[i]].mean += scores[i].average_precision;
    }
    for (int64_t g = 0; g < groups; g++)
        out[g].mean = out[g].rows ? out[g].mean / (double)out[g].rows : (double)NAN;
    LAM_TRY_GOTO(find_sizes(&n, scores, group, rows), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&first, groups, sizeof *first), done);
    for (int64_t k = n.member_count - 1; k >= 0; k--) first[n.members[k].group] = k;
    status = permute(&n, groups, first, permutations, seed, out);
done:
    lam_free(n.sizes);
    lam_free(n.members);
    lam_free(first);
    return status;
}
