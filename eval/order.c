#include "eval/order.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "base/threads.h"

#define BINS 1024
#define CHUNK 8000   /* candidates allocated at once */
#define AHEAD 8      /* pairs of the sample whose rows are fetched together */
#define FINE 512     /* bins of the sample in one of the histogram */
#define MARKS 8      /* searches that one byte can mark, and bytes that are looked at together */
#define FARTHEST 2.0 /* no cosine lies beyond */

lam_order_options lam_order_defaults(int64_t pairs) {
    int64_t sample = pairs >> 8, kept = pairs >> 10;
    sample = sample < 1 << 20 ? 1 << 20 : sample > 1 << 26 ? 1 << 26 : sample;
    kept = kept < 1 << 22 ? 1 << 22 : kept > 1 << 24 ? 1 << 24 : kept;
    return (lam_order_options){sample, 3.5, kept};
}

/* ---- float64 as integers in the same order ---- */

static uint64_t key_of(double value) {
    uint64_t bits;
    value += 0.0; /* -0 and 0 are one value */
    memcpy(&bits, &value, sizeof bits);
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}

static double value_of(uint64_t key) {
    uint64_t bits = key >> 63 ? key & ~(1ull << 63) : ~key;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Hoare's selection: values[k] becomes the k-th smallest of [from, to), smaller ones stand before it. */
static void select_kth(double *values, int64_t from, int64_t to, int64_t k) {
    while (to - from > 1) {
        double pivot = values[from + (to - from) / 2];
        int64_t i = from, j = to - 1;
        while (i <= j) {
            while (values[i] < pivot) i++;
            while (values[j] > pivot) j--;
            if (i <= j) {
                double t = values[i];
                values[i++] = values[j];
                values[j--] = t;
            }
        }
        if (k <= j)
            to = j + 1;
        else if (k >= i)
            from = i;
        else
            return;
    }
}

/* ---- the sample ---- */

static int bin_of(double cosine, int bins) {
    int bin = (int)floor((cosine + 1.0) * 0.5 * bins);
    return bin < 0 ? 0 : bin >= bins ? bins - 1 : bin;
}

int lam_histogram_bin(double cosine) { return bin_of(cosine, LAM_HISTOGRAM_BINS); }

static void sample_all(const lam_directions *u, double *values) {
#pragma omp parallel for schedule(dynamic, 16) num_threads(lam_threads())
    for (int64_t i = 0; i < u->rows; i++) {
        double *to = values + i * (2 * u->rows - i - 1) / 2;
        for (int64_t j = i + 1; j < u->rows; j++) to[j - i - 1] = lam_directions_cosine(u, i, j);
    }
}

/* Pair k of the sample. */
static void sampled_pair(const lam_directions *u, lam_rng_key_t key, int64_t k, int64_t *i, int64_t *j) {
    uint32_t words[4];
    lam_rng_words4(key, 0, (uint64_t)k, 0, words);
    *i = lam_word_below(words[0], (uint32_t)u->rows);
    *j = lam_word_below(words[1], (uint32_t)(u->rows - 1));
    *j += *j >= *i;
}

/* Counts of bins FINE times as narrow as the histogram's. The rows lie anywhere: those of the pairs AHEAD are asked for early. */
static void sample_some(const lam_directions *u, int64_t count, int32_t *fine) {
    lam_rng_key_t key = lam_rng_key(0, LAM_RNG_SAMPLE);
    int64_t line = 64 / (int64_t)sizeof(float), near = u->columns < 32 * line ? u->columns : 32 * line;
#pragma omp parallel for schedule(static) num_threads(lam_threads())
    for (int64_t block = 0; block < (count + AHEAD - 1) / AHEAD; block++) {
        int64_t i[AHEAD], j[AHEAD], n = count - block * AHEAD < AHEAD ? count - block * AHEAD : AHEAD;
        for (int64_t k = 0; k < n; k++) {
            sampled_pair(u, key, block * AHEAD + k, &i[k], &j[k]);
            for (int64_t at = 0; at < near; at += line) {
                __builtin_prefetch(u->rounded + i[k] * u->columns + at);
                __builtin_prefetch(u->rounded + j[k] * u->columns + at);
            }
        }
        for (int64_t k = 0; k < n; k++) {
            int bin = bin_of((double)lam_directions_near(u, i[k], j[k]), FINE * LAM_HISTOGRAM_BINS);
#pragma omp atomic
            fine[bin]++;
        }
    }
}

/* ---- one pass ---- */

typedef struct search {
    int64_t rank;
    uint64_t from, to; /* keys that the value lies between, both included */
    bool found, by_bins;
    double value;
} search;

/* A pair too near to the bracket for float32 to tell its side. */
typedef struct candidate {
    float near;
    int32_t i, j;
} candidate;

typedef struct chunk {
    struct chunk *next;
    int64_t count;
    candidate items[CHUNK];
} chunk;

/* What one thread has seen of one search. */
typedef struct tally {
    int64_t below, inside, kept;
    int64_t bins
        [BINS]; /* of those inside: of their float32, or, where the pass decides at once, of their float64 */
    chunk *chunks;
} tally;

typedef struct pass {
    const lam_directions *directions;
    int count, shift[LAM_ORDER_MAXIMUM];
    uint64_t from[LAM_ORDER_MAXIMUM], to[LAM_ORDER_MAXIMUM];
    float low[LAM_ORDER_MAXIMUM],
        high[LAM_ORDER_MAXIMUM];    /* float32 below low is surely below, above high above */
    float scale[LAM_ORDER_MAXIMUM]; /* bins a unit of cosine, from low on */
    int64_t
        most; /* candidates that a thread keeps of a search; 0: it decides each in float64 at once and counts bins */
    tally *tallies; /* [threads, count] */
} pass;

/* Of at most MARKS searches: values below low[s] are counted; those that are for float64 to decide get bit s of their mark. */
__attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"))) static void
scan_row(const float *values, int64_t n, const float *low, const float *high, int count, int64_t *below,
         uint8_t *marked) {
    for (int s = 0; s < count; s++) {
        float from = low[s], to = high[s];
        int32_t less = 0;
        for (int64_t j = 0; j < n; j++) {
            less += values[j] < from;
            marked[j] |= (uint8_t)(((values[j] >= from) & (values[j] <= to)) << s);
        }
        below[s] += less;
    }
}

static int near_bin(const pass *p, int s, float near) {
    int bin = (int)((near - p->low[s]) * p->scale[s]);
    return bin < BINS ? bin : BINS - 1;
}

static lam_status keep(const pass *p, int s, tally *t, candidate one) {
    t->inside++;
    t->bins[near_bin(p, s, one.near)]++;
    if (t->kept == p->most) return LAM_OK;
    if (!t->chunks || t->chunks->count == CHUNK) {
        chunk *next;
        LAM_TRY(lam_alloc((void **)&next, sizeof *next));
        next->next = t->chunks;
        t->chunks = next;
    }
    t->chunks->items[t->chunks->count++] = one;
    t->kept++;
    return LAM_OK;
}

static void decide(const pass *p, int s, tally *t, candidate one) {
    uint64_t key = key_of(lam_directions_cosine(p->directions, one.i, one.j));
    t->below += key < p->from[s];
    if (key < p->from[s] || key > p->to[s]) return;
    t->inside++;
    t->bins[(key - p->from[s]) >> p->shift[s]]++;
}

/* The pairs of row i of the map that are marked for searches from `first` on. */
static lam_status take_marked(const pass *p, int first, tally *mine, const lam_tile *tile, int64_t i,
                              const uint8_t *marked) {
    const float *values = tile->values + (i - tile->row) * LAM_TILE_COLUMNS;
    for (int64_t c = 0; c < LAM_TILE_COLUMNS; c += MARKS) {
        uint64_t marks;
        memcpy(&marks, marked + c, sizeof marks);
        while (marks) {
            int byte = __builtin_ctzll(marks) / 8, s = first + __builtin_ctzll(marks) % 8;
            candidate one = {values[c + byte], (int32_t)i, (int32_t)(tile->column + c + byte)};
            marks &= marks - 1;
            if (p->most)
                LAM_TRY(keep(p, s, &mine[s], one));
            else
                decide(p, s, &mine[s], one);
        }
    }
    return LAM_OK;
}

static lam_status visit(void *context, int thread, const lam_tile *tile) {
    const pass *p = context;
    tally *mine = p->tallies + (int64_t)thread * p->count;
    int64_t below[LAM_ORDER_MAXIMUM] = {0};
    for (int64_t r = 0; r < tile->rows; r++) {
        int64_t i = tile->row + r, first = i + 1 > tile->column ? i + 1 - tile->column : 0;
        if (first >= tile->columns) continue;
        const float *values = tile->values + r * LAM_TILE_COLUMNS;
        for (int s = 0; s < p->count; s += MARKS) {
            _Alignas(64) uint8_t marked[LAM_TILE_COLUMNS] = {0};
            int searches = p->count - s < MARKS ? p->count - s : MARKS;
            scan_row(values + first, tile->columns - first, p->low + s, p->high + s, searches, below + s,
                     marked + first);
            LAM_TRY(take_marked(p, s, mine, tile, i, marked));
        }
    }
    for (int s = 0; s < p->count; s++) mine[s].below += below[s];
    return LAM_OK;
}

static void begin_search(pass *p, const search *s) {
    double slack = 1.01 * p->directions->bound;
    int at = p->count++;
    p->from[at] = s->from;
    p->to[at] = s->to;
    for (p->shift[at] = 0; (s->to - s->from) >> p->shift[at] >= BINS; p->shift[at]++) {}
    p->low[at] = nextafterf((float)(value_of(s->from) - slack), -INFINITY);
    p->high[at] = nextafterf((float)(value_of(s->to) + slack), INFINITY);
    p->scale[at] = (float)BINS / (p->high[at] - p->low[at]);
}

/* The bin that holds the element of rank *wanted, which becomes its rank within the bin. */
static int bin_of_rank(const pass *p, int at, int threads, int64_t *wanted) {
    for (int bin = 0;; bin++) {
        int64_t here = 0;
        for (int t = 0; t < threads; t++) here += p->tallies[t * p->count + at].bins[bin];
        if (*wanted < here) return bin;
        *wanted -= here;
    }
}

/* The candidates of all threads hold the value: float32 says in which bin, up to the bound on either side, and float64 which it is.
 * wanted: its rank among them. *missed: it may lie outside of the bracket. */
static lam_status end_kept(const pass *p, int at, int threads, int64_t wanted, search *s, bool *missed) {
    int64_t within = wanted, n = 0, surely_below = 0;
    int bin = bin_of_rank(p, at, threads, &within);
    float least = INFINITY, most = -INFINITY; /* of the bin */
    for (int t = 0; t < threads; t++)
        for (const chunk *c = p->tallies[t * p->count + at].chunks; c; c = c->next)
            for (int64_t k = 0; k < c->count; k++) {
                if (near_bin(p, at, c->items[k].near) != bin) continue;
                least = fminf(least, c->items[k].near);
                most = fmaxf(most, c->items[k].near);
            }
    double slack = 2.02 * p->directions->bound, low = (double)least - slack, high = (double)most + slack,
           *values;
    *missed = (low < (double)p->low[at] && s->from > key_of(-FARTHEST)) ||
              (high > (double)p->high[at] && s->to < key_of(FARTHEST));
    if (*missed) return LAM_OK;
    for (int fill = 0; fill < 2; fill++) {
        if (fill) LAM_TRY(lam_alloc_array((void **)&values, n, sizeof *values));
        n = surely_below = 0;
        for (int t = 0; t < threads; t++)
            for (const chunk *c = p->tallies[t * p->count + at].chunks; c; c = c->next)
                for (int64_t k = 0; k < c->count; k++) {
                    candidate one = c->items[k];
                    surely_below += (double)one.near < low;
                    if ((double)one.near < low || (double)one.near > high) continue;
                    if (fill) values[n] = lam_directions_cosine(p->directions, one.i, one.j);
                    n++;
                }
    }
    select_kth(values, 0, n, wanted - surely_below);
    s->value = values[wanted - surely_below];
    s->found = true;
    lam_free(values);
    return LAM_OK;
}

/* Too many to keep: the float32 ones say in which bin the value lies, up to the bound and a bin on either side. Where that narrows
 * the bracket little, float64 goes on in bins. */
static void narrow(const pass *p, int at, int threads, int64_t wanted, search *s) {
    int bin = bin_of_rank(p, at, threads, &wanted);
    double low = (double)p->low[at] + (bin - 1) / (double)p->scale[at] - 2 * p->directions->bound,
           high = (double)p->low[at] + (bin + 2) / (double)p->scale[at] + 2 * p->directions->bound,
           before = value_of(s->to) - value_of(s->from);
    s->by_bins = high - low > 0.25 * before;
    if (s->by_bins) return;
    if (key_of(low) > s->from) s->from = key_of(low);
    if (key_of(high) < s->to) s->to = key_of(high);
}

/* The tallies of all threads give the value or narrow the bracket. */
static lam_status end_search(const pass *p, int at, int threads, search *s, bool *missed) {
    int64_t below = 0, inside = 0, kept = 0;
    for (int t = 0; t < threads; t++) {
        const tally *one = &p->tallies[t * p->count + at];
        below += one->below;
        inside += one->inside;
        kept += one->kept;
    }
    int64_t wanted = s->rank - below;
    *missed = wanted < 0 || wanted >= inside;
    if (*missed) return LAM_OK;
    if (p->most && kept == inside) return end_kept(p, at, threads, wanted, s, missed);
    if (p->most) {
        narrow(p, at, threads, wanted, s);
        return LAM_OK;
    }
    int bin = bin_of_rank(p, at, threads, &wanted);
    uint64_t width = 1ull << p->shift[at];
    s->from += (uint64_t)bin * width;
    if (s->from + (width - 1) < s->to) s->to = s->from + (width - 1);
    if (s->from == s->to) {
        s->found = true;
        s->value = value_of(s->from);
    }
    return LAM_OK;
}

/* From the edges of the sample's bins. */
static void bracket(search *s, const int32_t *fine, int64_t sampled, int64_t size, double sigmas) {
    double share = ((double)s->rank + 0.5) / (double)size;
    double margin = sigmas * sqrt(share * (1 - share) * (double)sampled) + (sigmas > 0 ? 2 : 0);
    double low = share * (double)sampled - margin, high = share * (double)sampled + margin;
    int bins = FINE * LAM_HISTOGRAM_BINS, first = 0, last = 0;
    int64_t below = 0;
    for (; first < bins - 1 && (double)(below + fine[first]) <= low; first++) below += fine[first];
    for (last = first; last < bins - 1 && (double)(below + fine[last]) < high; last++) below += fine[last];
    s->from = key_of(first && low > 0 ? 2.0 * first / bins - 1 : -FARTHEST);
    s->to = key_of(last < bins - 1 && high < (double)sampled ? 2.0 * (last + 1) / bins - 1 : FARTHEST);
}

static lam_status run_pass(const lam_directions *u, search *searches, int count, bool by_bins, int64_t most,
                           bool *missed) {
    int threads = lam_threads(), open[LAM_ORDER_MAXIMUM];
    pass p = {.directions = u};
    for (int s = 0; s < count; s++) {
        if (searches[s].found || searches[s].by_bins != by_bins) continue;
        open[p.count] = s;
        begin_search(&p, &searches[s]);
    }
    if (!p.count) return LAM_OK;
    if (!by_bins) p.most = most / threads / p.count > 0 ? most / threads / p.count : 1;
    LAM_TRY(lam_alloc_array((void **)&p.tallies, (int64_t)threads * p.count, sizeof *p.tallies));
    lam_status status = lam_directions_tiles(u, visit, &p);
    bool memory = true;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(&& : memory)
    for (int at = 0; at < p.count; at++)
        if (status == LAM_OK)
            memory = end_search(&p, at, threads, &searches[open[at]], &missed[open[at]]) == LAM_OK && memory;
    if (status == LAM_OK && !memory)
        status = lam_fail(LAM_ERROR_MEMORY, __FILE__, __LINE__,
                          "out of memory among the cosines of %lld rows", (long long)u->rows);
    for (int t = 0; t < threads * p.count; t++)
        for (chunk *c = p.tallies[t].chunks, *next; c; c = next) {
            next = c->next;
            lam_free(c);
        }
    lam_free(p.tallies);
    return status;
}

static lam_status search_all(const lam_directions *u, search *searches, int count, const int32_t *fine,
                             const lam_order_options *options) {
    int64_t size = u->rows * (u->rows - 1) / 2;
    double sigmas[LAM_ORDER_MAXIMUM];
    for (int s = 0; s < count; s++)
        bracket(&searches[s], fine, options->sample, size, sigmas[s] = options->sigmas);
    for (bool open = true; open;) {
        bool missed[LAM_ORDER_MAXIMUM] = {false};
        LAM_TRY(run_pass(u, searches, count, false, options->kept, missed));
        LAM_TRY(run_pass(u, searches, count, true, 0, missed));
        open = false;
        for (int s = 0; s < count; s++) {
            if (missed[s]) bracket(&searches[s], fine, options->sample, size, sigmas[s] = 4 * sigmas[s] + 4);
            open = open || !searches[s].found;
        }
    }
    return LAM_OK;
}

static void sort_all(const lam_directions *u, search *searches, int count, double *values, int64_t size,
                     lam_cosine_histogram *histogram) {
    sample_all(u, values);
    for (int64_t k = 0; k < size; k++) histogram->count[lam_histogram_bin(values[k])]++;
    for (int s = 0; s < count; s++) {
        select_kth(values, 0, size, searches[s].rank);
        searches[s].value = values[searches[s].rank];
    }
}

lam_status lam_order_statistics(const lam_directions *u, const int64_t *ranks, int count,
                                const lam_order_options *options, double *values,
                                lam_cosine_histogram *histogram) {
    int64_t size = u->rows * (u->rows - 1) / 2;
    LAM_REQUIRE(count <= LAM_ORDER_MAXIMUM, LAM_ERROR_INTERNAL, "%d order statistics at once", count);
    search searches[LAM_ORDER_MAXIMUM] = {0};
    for (int s = 0; s < count; s++) searches[s].rank = ranks[s];
    lam_cosine_histogram seen = {.pairs = size <= options->sample ? size : options->sample};
    double *all = NULL;
    int32_t *fine = NULL;
    lam_status status = LAM_OK;
    if (size <= options->sample) {
        LAM_TRY(lam_alloc_array((void **)&all, size, sizeof *all));
        sort_all(u, searches, count, all, size, &seen);
    } else {
        LAM_TRY(lam_alloc_array((void **)&fine, FINE * LAM_HISTOGRAM_BINS, sizeof *fine));
        sample_some(u, options->sample, fine);
        for (int b = 0; b < FINE * LAM_HISTOGRAM_BINS; b++) seen.count[b / FINE] += fine[b];
        LAM_TRY_GOTO(search_all(u, searches, count, fine, options), done);
    }
    for (int s = 0; s < count; s++) values[s] = searches[s].value;
    if (histogram) *histogram = seen;
done:
    lam_free(all);
    lam_free(fine);
    return status;
}
