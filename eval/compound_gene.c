#include "eval/compound_gene.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/threads.h"

#define LEAST_NEGATIVES 20
#define NEGATIVES_PER_ACTIVE 2

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double lam_quantile(double *values, int64_t count, double q) {
    int64_t n = 0;
    for (int64_t k = 0; k < count; k++)
        if (isfinite(values[k])) values[n++] = values[k];
    if (!n) return (double)NAN;
    qsort(values, (size_t)n, sizeof *values, rising);
    double at = q * (double)(n - 1);
    int64_t low = (int64_t)at;
    return low + 1 < n ? values[low] + (at - (double)low) * (values[low + 1] - values[low]) : values[n - 1];
}

/* What one thread works in, for the compound with the most genes and doses. */
typedef struct bench {
    double *cosine; /* [doses + 1, actives + pool] |cosine|, the last row their maximum */
    int64_t *drawn; /* [pool] */
    lam_ranked *items;
} bench;

static void compare(const lam_directions *u, const lam_compound *c, double *cosine) {
    int64_t genes = c->active_count + c->pool_count;
    double *most = cosine + c->doses * genes;
    for (int64_t g = 0; g < genes; g++) {
        int64_t gene = g < c->active_count ? c->active[g] : c->pool[g - c->active_count];
        most[g] = 0;
        for (int64_t d = 0; d < c->doses; d++) {
            double value = fabs(lam_directions_cosine(u, c->rows[d], gene));
            cosine[d * genes + g] = value;
            if (value > most[g]) most[g] = value;
        }
    }
}

static void score_ranking(bench *b, int64_t actives, int64_t negatives, lam_ties ties, double *out) {
    for (int64_t k = 0; k < actives + negatives; k++) b->items[k].positive = k < actives;
    out[0] = lam_average_precision(b->items, actives + negatives, ties);
    out[1] = lam_roc_auc(b->items, actives + negatives);
}

static void score_seed(const lam_compound *c, bench *b, lam_rng *rng, lam_ties ties, int64_t stride,
                       double *out) {
    int64_t genes = c->active_count + c->pool_count, negatives = NEGATIVES_PER_ACTIVE * c->active_count;
    if (negatives < LEAST_NEGATIVES) negatives = LEAST_NEGATIVES;
    if (negatives > c->pool_count) negatives = c->pool_count;
    for (int64_t k = 0; k < c->pool_count; k++) b->drawn[k] = c->active_count + k;
    for (int64_t k = 0; k < negatives; k++) { /* Fisher and Yates, as far as needed */
        int64_t other = k + lam_rng_below(rng, (uint32_t)(c->pool_count - k)), t = b->drawn[k];
        b->drawn[k] = b->drawn[other];
        b->drawn[other] = t;
    }
    double random[2];
    for (int64_t k = 0; k < c->active_count + negatives; k++) b->items[k].score = lam_rng_uniform(rng);
    score_ranking(b, c->active_count, negatives, ties, random);
    for (int64_t d = 0; d <= c->doses; d++) {
        const double *cosine = b->cosine + d * genes;
        for (int64_t k = 0; k < c->active_count; k++) b->items[k].score = cosine[k];
        for (int64_t k = 0; k < negatives; k++) b->items[c->active_count + k].score = cosine[b->drawn[k]];
        score_ranking(b, c->active_count, negatives, ties, out + d * stride + LAM_COMPOUND_AP);
        memcpy(out + d * stride + LAM_COMPOUND_RANDOM_AP, random, sizeof random);
    }
}

lam_status lam_compound_gene(const lam_directions *u, const lam_compound *compounds, int64_t count,
                             int64_t seeds, uint64_t seed, lam_ties ties, double *scores) {
    int64_t threads = lam_threads(), most_genes = 0, most_cosines = 0, *first = NULL, finished = 0;
    int64_t stride = seeds * LAM_COMPOUND_MEASURES;
    double *cosine = NULL;
    int64_t *drawn = NULL;
    lam_ranked *items = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&first, count + 1, sizeof *first));
    for (int64_t k = 0; k < count; k++) {
        const lam_compound *c = &compounds[k];
        LAM_REQUIRE_GOTO(c->active_count && c->pool_count && c->doses, done, LAM_ERROR_INTERNAL,
                         "compound %lld has no genes to rank", (long long)k);
        int64_t genes = c->active_count + c->pool_count;
        first[k + 1] = first[k] + c->doses + 1;
        if (genes > most_genes) most_genes = genes;
        if (genes * (c->doses + 1) > most_cosines) most_cosines = genes * (c->doses + 1);
    }
    LAM_TRY_GOTO(lam_alloc_array((void **)&cosine, threads * most_cosines, sizeof *cosine), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&drawn, threads * most_genes, sizeof *drawn), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&items, threads * most_genes, sizeof *items), done);
    lam_progress *progress = lam_progress_start("compounds", count, "compounds");
#pragma omp parallel for schedule(dynamic, 1) num_threads(lam_threads())
    for (int64_t k = 0; k < count; k++) {
        int64_t thread = omp_get_thread_num();
        bench b = {cosine + thread * most_cosines, drawn + thread * most_genes, items + thread * most_genes};
        compare(u, &compounds[k], b.cosine);
        for (int64_t s = 0; s < seeds; s++) {
            lam_rng rng = lam_rng_stream(seed + (uint64_t)s, LAM_RNG_SAMPLE, (uint64_t)k);
            score_seed(&compounds[k], &b, &rng, ties, stride,
                       scores + first[k] * stride + s * LAM_COMPOUND_MEASURES);
        }
        int64_t now;
#pragma omp atomic capture
        now = ++finished;
        lam_progress_update(progress, now, NULL);
    }
    lam_progress_finish(progress);
done:
    lam_free(first);
    lam_free(cosine);
    lam_free(drawn);
    lam_free(items);
    return status;
}
