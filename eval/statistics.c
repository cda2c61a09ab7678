#include "eval/statistics.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/distributions.h"

#define CVM_EXACT_LIMIT 40

#define CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static lam_status sorted_copy(const double *x, int64_t n, double **out, bool *nan) {
    LAM_TRY(lam_alloc_array((void **)out, n, sizeof **out));
    if (n) memcpy(*out, x, (size_t)n * sizeof **out);
    for (int64_t i = 0; i < n; i++) *nan = *nan || isnan(x[i]);
    if (!*nan) qsort(*out, (size_t)n, sizeof **out, by_value);
    return LAM_OK;
}

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* ---- Kolmogorov-Smirnov ---- */

/* max |i a - j b| after i of x and j of y, the steps a = lcm / nx and b = lcm / ny: D lcm as an integer. */
static int64_t largest_gap(const double *x, int64_t nx, int64_t a, const double *y, int64_t ny, int64_t b) {
    int64_t i = 0, j = 0, largest = 0;
    while (i < nx && j < ny) {
        double value = x[i] < y[j] ? x[i] : y[j];
        while (i < nx && x[i] <= value) i++;
        while (j < ny && y[j] <= value) j++;
        int64_t gap = llabs(i * a - j * b);
        if (gap > largest) largest = gap;
    }
    return largest;
}

/* Equal sizes: P = 2 sum_j (-1)^(j + 1) C(2n, n - j h) / C(2n, n), as 2 A_0 (1 - A_1 (1 - A_2 ...)) without large numbers. */
static double outside_square(int64_t n, int64_t h) {
    double p = 0;
    for (int64_t k = n / h; k >= 0; k--) {
        double ratio = 1;
        for (int64_t i = 0; i < h; i++) ratio *= (double)(n - k * h - i) / (double)(n + k * h + i + 1);
        p = ratio * (1 - p);
    }
    return 2 * p;
}

/* q[x] from the shares one step shorter: of the paths to (x, s - x) a share x / s came from (x - 1, s - x). */
CLONES static void one_step(double *q, const double *index, int64_t low, int64_t high, double s) {
    for (int64_t x = high; x >= low; x--) q[x] = (index[x] * q[x - 1] + (s - index[x]) * q[x]) / s;
}

/* The share of the paths from (0, 0) to (nx, ny) that touch |x a - y b| >= h somewhere. Sums of positive terms: small shares
 * are as accurate as large ones. */
static lam_status outside_band(int64_t nx, int64_t a, int64_t ny, int64_t b, int64_t h, double *p) {
    double *memory = NULL, *index = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&memory, nx + 2, sizeof *memory), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&index, nx + 1, sizeof *index), done);
    double *q = memory + 1; /* q[-1] is read with weight 0 */
    for (int64_t x = 0; x <= nx; x++) q[x] = 1, index[x] = (double)x;
    q[0] = 0;
    for (int64_t s = 1; s <= nx + ny; s++) {
        /* |x (a + b) - s b| < h */
        int64_t below = s * b - h, above = s * b + h, low = below < 0 ? 0 : below / (a + b) + 1,
                high = (above + a + b - 1) / (a + b) - 1;
        if (low < s - ny) low = s - ny;
        if (high > nx) high = nx;
        if (high > s) high = s;
        if (high < low) {
            q[nx] = 1;
            break;
        }
        one_step(q, index, low, high, (double)s);
        if (low > 0) q[low - 1] = 1;
    }
    *p = q[nx];
done:
    lam_free(memory);
    lam_free(index);
    return status;
}

lam_status lam_ks_two_sample(const double *x, int64_t nx, const double *y, int64_t ny, lam_p_method method,
                             lam_test_result *out) {
    double *u = NULL, *v = NULL;
    bool nan = nx < 1 || ny < 1;
    lam_status status = LAM_OK;
    *out = (lam_test_result){(double)NAN, (double)NAN};
    if (nan) return LAM_OK;
    LAM_TRY_GOTO(sorted_copy(x, nx, &u, &nan), done);
    LAM_TRY_GOTO(sorted_copy(y, ny, &v, &nan), done);
    if (nan) goto done;
    int64_t divisor = common_divisor(nx, ny), a = ny / divisor, b = nx / divisor,
            gap = largest_gap(u, nx, a, v, ny, b);
    out->statistic = (double)gap / ((double)nx * (double)a);
    bool small = nx <= LAM_KS_EXACT_MAXIMUM && ny <= LAM_KS_EXACT_MAXIMUM;
    if (method == LAM_P_EXACT || (method == LAM_P_AUTO && small)) {
        if (gap == 0)
            out->p = 1;
        else if (nx == ny)
            out->p = outside_square(nx, gap);
        else
            LAM_TRY_GOTO(outside_band(nx, a, ny, b, gap, &out->p), done);
        out->p = fmin(out->p, 1);
    } else {
        double n = rint((double)nx * (double)ny / ((double)nx + (double)ny));
        out->p = lam_kolmogorov_upper((int64_t)n, out->statistic);
    }
done:
    lam_free(u);
    lam_free(v);
    return status;
}

/* ---- Cramer-von Mises ---- */

/* Sum over the sorted sample x of (2 rank_i - 2 i)^2, rank the midrank in both samples together: four times the sum of Anderson's
 * eq. 10. Sums of integers, exact to 2^64 in long double. */
static long double rank_sum(const double *x, int64_t nx, const double *y, int64_t ny) {
    long double sum = 0;
    int64_t below = 0, equal_to = 0; /* values of y below x[i], and up to it */
    for (int64_t i = 0; i < nx;) {
        int64_t end = i;
        while (end < nx && x[end] <= x[i]) end++;
        while (below < ny && y[below] < x[i]) below++;
        if (equal_to < below) equal_to = below;
        while (equal_to < ny && y[equal_to] <= x[i]) equal_to++;
        int64_t twice = (i + below + 1) + (end + equal_to); /* first and last rank of the ties */
        for (int64_t k = i; k < end; k++) {
            long double d = (long double)(twice - 2 * (k + 1));
            sum += d * d;
        }
        i = end;
    }
    return sum;
}

/* How many orders have which value of zeta, values rising. */
typedef struct frequencies {
    int64_t count;
    int64_t *value;
    double *orders;
} frequencies;

static void release(frequencies *f) {
    lam_free(f->value);
    lam_free(f->orders);
    *f = (frequencies){0};
}

/* *a becomes the union of both, `step` added to every value. */
static lam_status join(frequencies *a, const frequencies *b, int64_t step) {
    frequencies sum = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&sum.value, a->count + b->count, sizeof *sum.value), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&sum.orders, a->count + b->count, sizeof *sum.orders), done);
    for (int64_t i = 0, j = 0; i < a->count || j < b->count; sum.count++) {
        bool left = j == b->count || (i < a->count && a->value[i] <= b->value[j]);
        bool right = i == a->count || (j < b->count && b->value[j] <= a->value[i]);
        sum.value[sum.count] = step + (left ? a->value[i] : b->value[j]);
        if (left) sum.orders[sum.count] += a->orders[i++];
        if (right) sum.orders[sum.count] += b->orders[j++];
    }
    release(a);
    *a = sum;
    return LAM_OK;
done:
    release(&sum);
    return status;
}

/* The share of orders with zeta >= `zeta`, zeta = sum over the path of (a v - b u)^2 at v of x and u of y (Xiao, Gordon and Yakovlev's
 * eq. 11 to 13): the tables of one u at a time. */
static lam_status share_above(int64_t nx, int64_t ny, int64_t a, int64_t b, int64_t zeta, double *p) {
    frequencies table[CVM_EXACT_LIMIT + 1] = {{0}}, none = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&table[0].value, 1, sizeof *none.value), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&table[0].orders, 1, sizeof *none.orders), done);
    table[0].count = 1;
    table[0].orders[0] = 1;
    for (int64_t u = 0; u <= ny; u++)
        for (int64_t v = 0; v <= nx; v++) {
            int64_t step = a * v - b * u;
            LAM_TRY_GOTO(join(&table[v], v ? &table[v - 1] : &none, step * step), done);
        }
    double above = 0, all = 0;
    for (int64_t i = 0; i < table[nx].count; i++) {
        all += table[nx].orders[i];
        if (table[nx].value[i] >= zeta) above += table[nx].orders[i];
    }
    *p = above / all;
done:
    for (int64_t v = 0; v <= nx; v++) release(&table[v]);
    return status;
}

lam_status lam_cvm_two_sample(const double *x, int64_t nx, const double *y, int64_t ny, lam_p_method method,
                              lam_test_result *out) {
    double *u = NULL, *v = NULL;
    bool nan = nx < 2 || ny < 2;
    lam_status status = LAM_OK;
    *out = (lam_test_result){(double)NAN, (double)NAN};
    if (nan) return LAM_OK;
    bool small = nx <= LAM_CVM_EXACT_MAXIMUM && ny <= LAM_CVM_EXACT_MAXIMUM;
    bool exact = method == LAM_P_EXACT || (method == LAM_P_AUTO && small);
    LAM_REQUIRE(
        !exact || (nx <= CVM_EXACT_LIMIT && ny <= CVM_EXACT_LIMIT), LAM_ERROR_USAGE,
        "the exact Cramer-von Mises test takes samples of at most %d values, these have %lld and %lld",
        CVM_EXACT_LIMIT, (long long)nx, (long long)ny);
    LAM_TRY_GOTO(sorted_copy(x, nx, &u, &nan), done);
    LAM_TRY_GOTO(sorted_copy(y, ny, &v, &nan), done);
    if (nan) goto done;
    long double k = (long double)nx * (long double)ny, all = (long double)(nx + ny);
    /* Four times Anderson's U. */
    long double four_u = (long double)nx * rank_sum(u, nx, v, ny) + (long double)ny * rank_sum(v, ny, u, nx);
    double t = (double)(four_u / (4 * k * all) - (4 * k - 1) / (6 * all));
    out->statistic = t;
    if (exact) {
        int64_t divisor = common_divisor(nx, ny), lcm = nx / divisor * ny;
        long double scaled = (long double)(lcm * lcm) * all * (6 * four_u - 4 * k * (4 * k - 1));
        int64_t zeta = (int64_t)floorl(scaled / (24 * k * k)); /* whole but for ties */
        LAM_TRY_GOTO(share_above(nx, ny, lcm / nx, lcm / ny, zeta, &out->p), done);
    } else {
        double n = (double)all, kk = (double)k;
        double mean = (1 + 1 / n) / 6;
        double variance = (n + 1) *
                          (4 * kk * n - 3 * ((double)nx * (double)nx + (double)ny * (double)ny) - 2 * kk) /
                          (45 * n * n * 4 * kk);
        out->p = lam_cramer_von_mises_upper(1.0 / 6 + (t - mean) / sqrt(45 * variance));
    }
done:
    lam_free(u);
    lam_free(v);
    return status;
}

/* ---- hypergeometric ---- */

static double hypergeometric_density(int64_t k, int64_t population, int64_t successes, int64_t draws) {
    double p = (double)draws / (double)population, q = (double)(population - draws) / (double)population;
    double a = lam_binomial_density(k, successes, p, q),
           b = lam_binomial_density(draws - k, population - successes, p, q);
    return a * (b / lam_binomial_density(draws, population, p, q));
}

double lam_hypergeometric_upper(int64_t hits, int64_t population, int64_t successes, int64_t draws) {
    if (population < 0 || successes < 0 || successes > population || draws < 0 || draws > population)
        return (double)NAN;
    int64_t lowest = successes + draws - population, highest = successes < draws ? successes : draws;
    if (lowest < 0) lowest = 0;
    if (hits <= lowest) return 1;
    if (hits > highest) return 0;
    double failures = (double)(population - successes), n = (double)draws, m = (double)successes;
    bool upper =
        (double)hits * (double)population > n * m; /* beyond the mean: the upper tail is the small one */
    int64_t k = upper ? hits : hits - 1;
    double first = hypergeometric_density(k, population, successes, draws), sum = 1, term = 1;
    if (upper)
        for (; k < highest && term > 1e-18 * sum; k++)
            sum += term *=
                (m - (double)k) * (n - (double)k) / (((double)k + 1) * (failures - n + (double)k + 1));
    else
        for (; k > lowest && term > 1e-18 * sum; k--)
            sum += term *=
                (double)k * (failures - n + (double)k) / ((m - (double)k + 1) * (n - (double)k + 1));
    double tail = fmin(first * sum, 1);
    return upper ? tail : 1 - tail;
}

/* ---- false discovery rate ---- */

typedef struct ranked {
    double p;
    int64_t index;
} ranked;

static int by_p(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->p < y->p || x->p > y->p) return x->p < y->p ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

lam_status lam_benjamini_hochberg(const double *p, int64_t count, double *q) {
    ranked *order;
    int64_t m = 0;
    LAM_TRY(lam_alloc_array((void **)&order, count, sizeof *order));
    for (int64_t i = 0; i < count; i++)
        if (!isnan(p[i])) order[m++] = (ranked){p[i], i};
    qsort(order, (size_t)m, sizeof *order, by_p);
    for (int64_t i = 0; i < count; i++) q[i] = (double)NAN;
    double smallest = 1;
    for (int64_t k = m - 1; k >= 0; k--) {
        smallest = fmin(smallest, order[k].p * ((double)m / (double)(k + 1)));
        q[order[k].index] = smallest;
    }
    lam_free(order);
    return LAM_OK;
}
