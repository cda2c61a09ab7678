/* Two-sample tests, the tail of the hypergeometric distribution, false discovery rates.
 *
 *     lam_test_result ks;
 *     LAM_TRY(lam_ks_two_sample(within, n_within, between, n_between, LAM_P_AUTO, &ks));
 *     double p = lam_hypergeometric_upper(hits, genes, members, drawn);
 *     LAM_TRY(lam_benjamini_hochberg(p_values, count, q_values));
 *
 * Samples may hold ties and infinities and stand in any order. A NaN in a sample makes statistic and p NaN, as does an empty
 * sample (Cramer-von Mises: one of fewer than two values): no test, and no error. Threading: functions of their arguments. */
#ifndef LAMELLA_EVAL_STATISTICS_H
#define LAMELLA_EVAL_STATISTICS_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_test_result {
    double statistic, p;
} lam_test_result;

typedef enum lam_p_method {
    LAM_P_AUTO, /* exact up to the sizes below, else asymptotic; the same sizes as scipy's */
    LAM_P_EXACT,
    LAM_P_ASYMPTOTIC
} lam_p_method;

#define LAM_KS_EXACT_MAXIMUM 10000 /* of the larger sample, for LAM_P_AUTO */
#define LAM_CVM_EXACT_MAXIMUM 20

/* Kolmogorov-Smirnov, two-sided: D = max |F_x - F_y|; p = P(D >= observed) under exchangeability (scipy.stats.ks_2samp).
 * Exact: the share of lattice paths that leave the band (Hodges 1958; two equal sizes: his closed form), nx ny steps at most.
 * It holds shares, not numbers of paths, and integers of 64 bits, so it neither overflows nor falls back on the asymptotic form.
 * Asymptotic: Kolmogorov's distribution of one sample of round(nx ny / (nx + ny)) (NaN where that is 0: one value against one). */
lam_status lam_ks_two_sample(const double *x, int64_t nx, const double *y, int64_t ny, lam_p_method method,
                             lam_test_result *out);

/* Cramer-von Mises: T of Anderson (1962, eq. 9 and 10) with midranks for ties (scipy.stats.cramervonmises_2samp).
 * Exact: all C(nx + ny, nx) orders, counted by value (Xiao, Gordon and Yakovlev, J. Stat. Software 17(8), 2006); larger samples than
 * 40 are LAM_ERROR_USAGE there. Asymptotic: the limiting distribution at T standardised (Anderson's eq. 15), with its tail
 * where scipy's one minus a rounded sum ends at about 1e-8. */
lam_status lam_cvm_two_sample(const double *x, int64_t nx, const double *y, int64_t ny, lam_p_method method,
                              lam_test_result *out);

/* P(X >= hits), X the marked ones among `draws` of `population`, of which `successes` are marked: hypergeom.sf(hits - 1, population,
 * successes, draws). Relative accuracy about 1e-12 down to 1e-300. NaN where successes or draws lie outside 0..population. */
double lam_hypergeometric_upper(int64_t hits, int64_t population, int64_t successes, int64_t draws);

/* q [count] of Benjamini and Hochberg (1995): min over larger p of p m / rank, at most 1. NaN stays NaN and counts in no m.
 * p and q may be the same array. */
lam_status lam_benjamini_hochberg(const double *p, int64_t count, double *q);

#ifdef __cplusplus
}
#endif
#endif
