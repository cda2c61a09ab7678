/* Tails of distributions that the tests of statistics.h need; all in float64, accurate for small p as well.
 *
 *     double p = lam_kolmogorov_upper(500, 0.08);     // scipy.stats.kstwo.sf(0.08, 500)
 */
#ifndef LAMELLA_EVAL_DISTRIBUTIONS_H
#define LAMELLA_EVAL_DISTRIBUTIONS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* C(n, k) p^k q^(n - k), p + q = 1, by Loader's saddle-point expansion (Fast and accurate computation of binomial
 * probabilities, 2000): no cancellation of large logarithms, so relative accuracy about 1e-14 for n of millions. */
double lam_binomial_density(int64_t k, int64_t n, double p, double q);

/* P(D_n >= x) of Kolmogorov's two-sided statistic of one sample of n, by the rules of Simard and L'Ecuyer (J. Stat. Software
 * 39(11), 2011): Durbin's matrix (1968; Marsaglia, Tsang and Wang, 2003) for small x, Pelz and Good (1976) for large n,
 * twice the one-sided tail beyond. One-sided: Birnbaum and Tingey's sum (1951) up to n = 1e6, then Maag and Dicaire's
 * exp(-(6 n x + 1)^2 / 18 n), as scipy does. NaN where n < 1. */
double lam_kolmogorov_upper(int64_t n, double x);

/* P(omega^2 >= x) of the limiting distribution of the Cramer-von Mises statistic: up to x = 1 one minus the series in Bessel
 * functions K_1/4 (Anderson and Darling 1952, eq. 4.35), beyond Smirnov's integral (1936), which is free of the cancellation. */
double lam_cramer_von_mises_upper(double x);

#ifdef __cplusplus
}
#endif
#endif
