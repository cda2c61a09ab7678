#include "eval/distributions.h"

#include <math.h>
#include <string.h>

#define SMALL 16            /* below: ln n! as it is; from here on its Stirling series has 15 digits */
#define DURBIN_MAXIMUM 128  /* rows of Durbin's matrix: 115 at n = 1e5, the largest that the rules ask for */
#define SUM_MAXIMUM 1000000 /* terms of the one-sided sum */
#define EXPONENT_STEP 128   /* powers are kept below 2^128 */

/* ---- binomial ---- */

/* ln n! - ln(sqrt(2 pi n) (n / e)^n) */
static double stirling_error(double n) {
    if (n < SMALL) return lgamma(n + 1) - (n + 0.5) * log(n) + n - 0.5 * log(2 * M_PI);
    double s = 1 / (n * n);
    return (1.0 / 12 - (1.0 / 360 - (1.0 / 1260 - (1.0 / 1680 - s / 1188) * s) * s) * s) / n;
}

/* k ln(k / m) + m - k, without cancellation where k is near m. */
static double deviance(double k, double m) {
    double difference = k - m;
    if (fabs(difference) > 0.1 * (k + m)) return k * log(k / m) - difference;
    double v = difference / (k + m), sum = difference * v, term = 2 * k * v;
    for (int j = 1; j < 100; j++) {
        term *= v * v;
        double next = sum + term / (2 * j + 1);
        if (!(next > sum) && !(next < sum)) break;
        sum = next;
    }
    return sum;
}

double lam_binomial_density(int64_t k, int64_t n, double p, double q) {
    if (k < 0 || k > n) return 0;
    if (k == 0) return p < q ? exp((double)n * log1p(-p)) : pow(q, (double)n);
    if (k == n) return q < p ? exp((double)n * log1p(-q)) : pow(p, (double)n);
    if (p <= 0 || q <= 0) return 0;
    double a = (double)k, b = (double)(n - k), m = (double)n;
    return exp(stirling_error(m) - stirling_error(a) - stirling_error(b) - deviance(a, m * p) -
               deviance(b, m * q)) *
           sqrt(m / (2 * M_PI * a * b));
}

/* ---- Kolmogorov ---- */

/* P(D_n^+ >= x) = x sum_j C(n, j) (x + j / n)^(j - 1) (1 - x - j / n)^(n - j), j to n (1 - x): all terms positive. */
static double one_sided(int64_t n, double x) {
    double m = (double)n;
    if (n > SUM_MAXIMUM) {
        double t = 6 * m * x + 1;
        return exp(-t * t / (18 * m));
    }
    double sum = 0;
    int64_t last = (int64_t)floor(m * (1 - x));
    for (int64_t j = 0; j <= last && j < n; j++) {
        double p = x + (double)j / m, q = ((double)(n - j) - m * x) / m;
        sum += lam_binomial_density(j, n, p, q > 0 ? q : 0) * (x / p);
    }
    return sum;
}

/* c = a b, m x m. */
static void multiply(const double *a, const double *b, double *c, int m) {
    memset(c, 0, (size_t)(m * m) * sizeof *c);
    for (int i = 0; i < m; i++)
        for (int k = 0; k < m; k++)
            for (int j = 0; j < m; j++) c[i * m + j] += a[i * m + k] * b[k * m + j];
}

/* P(D_n < x) = n! / n^n (H^n)[k, k], H as in Marsaglia, Tsang and Wang; every entry is positive or zero. */
static double durbin(int64_t n, double x) {
    static _Thread_local double memory[3][DURBIN_MAXIMUM * DURBIN_MAXIMUM];
    double *power = memory[0], *square = memory[1], *product = memory[2];
    double t = (double)n * x, whole = ceil(t), h = whole - t;
    int k = (int)whole, m = 2 * k - 1, exponent = 0, square_exponent = 0;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++) {
            double value = i - j + 1 >= 0;
            if (j == 0) value -= pow(h, i + 1);
            if (i == m - 1) value -= pow(h, m - j);
            if (i == m - 1 && j == 0 && 2 * h > 1) value += pow(2 * h - 1, m);
            for (int f = 2; f <= i - j + 1; f++) value /= f;
            square[i * m + j] = value;
            power[i * m + j] = i == j;
        }
    for (int64_t left = n; left; left /= 2) {
        if (left % 2) {
            multiply(power, square, product, m);
            double *swap = power;
            power = product, product = swap;
            exponent += square_exponent;
        }
        multiply(square, square, product, m);
        double *swap = square;
        square = product, product = swap;
        square_exponent *= 2;
        int high = ilogb(square[(k - 1) * m + k - 1]);
        if (high > EXPONENT_STEP) {
            for (int i = 0; i < m * m; i++) square[i] = ldexp(square[i], -high);
            square_exponent += high;
        }
    }
    double p = power[(k - 1) * m + k - 1];
    for (int64_t i = 1; i <= n; i++) {
        p *= (double)i / (double)n;
        if (p < 0x1p-128 && p > 0) p *= 0x1p128, exponent -= EXPONENT_STEP;
    }
    return ldexp(p, exponent);
}

/* The expansion of P(D_n < x) in powers of 1 / sqrt(n), K0 to K3, as sums that converge for small z = x sqrt(n). */
static double pelz_good(int64_t n, double x) {
    double root = sqrt((double)n), z = x * root, z2 = z * z, z4 = z2 * z2, z6 = z4 * z2, z8 = z4 * z4;
    double k0 = 0, k1 = 0, k2 = 0, k3 = 0, k2_whole = 0, k3_whole = 0;
    for (int k = 40; k >= 0; k--) { /* the smallest terms first */
        double a = M_PI * M_PI * (k + 0.5) * (k + 0.5), e = exp(-a / (2 * z2));
        double w = M_PI * M_PI * (double)k * (double)k, f = exp(-w / (2 * z2));
        k0 += e;
        k1 += (a - z2) * e;
        k2 += (6 * z6 + 2 * z4 + a * (2 * z4 - 5 * z2) + a * a * (1 - 2 * z2)) * e;
        k3 += (a * a * a * (5 - 30 * z2) + a * a * (212 * z4 - 60 * z2) + a * (135 * z4 - 96 * z6) - 30 * z6 -
               90 * z8) *
              e;
        k2_whole += w * f;
        k3_whole += w * (3 * z2 - w) * f;
    }
    double c = sqrt(2 * M_PI); /* sqrt(pi / 2), k and -k - 1 alike */
    k0 *= c / z;
    k1 *= c / (6 * z4);
    k2 = c * (k2 / (72 * z6 * z) - k2_whole / (36 * z2 * z));
    k3 = c * (k3 / (6480 * z8 * z2) + k3_whole / (216 * z6));
    return k0 + (k1 + (k2 + k3 / root) / root) / root;
}

static double unit(double p) { return p < 0 ? 0 : p > 1 ? 1 : p; }

double lam_kolmogorov_upper(int64_t n, double x) {
    double m = (double)n, t = m * x, z2 = t * x;
    if (n < 1 || isnan(x)) return (double)NAN;
    if (x >= 1) return 0;
    if (t <= 0.5) return 1;
    if (t <= 1) {
        double p = 1;
        for (int64_t i = n; i >= 1 && p > 0; i--) p *= (double)i / m * (2 * t - 1);
        return unit(1 - p);
    }
    if (t >= m - 1) return unit(2 * exp(m * log1p(-x)));
    if (x >= 0.5 || z2 > (n <= 140 ? 4 : 2.2)) {
        if (n > 140 && z2 >= 370) return 0; /* below the range of a double */
        return unit(2 * one_sided(n, x));
    }
    if (n <= 140 || (n <= 100000 && t * sqrt(x) <= 1.4)) return unit(1 - durbin(n, x));
    return unit(1 - pelz_good(n, x));
}

/* ---- Cramer-von Mises ---- */

/* exp(-q) K_1/4(q) = integral over t > 0 of exp(-q (cosh t + 1)) cosh(t / 4): the trapezoid rule is exact to rounding. */
static double scaled_bessel(double q) {
    const double step = 0.125;
    double sum = 0.5 * exp(-2 * q);
    for (int i = 1; i < 400; i++) {
        double t = i * step, term = exp(-q * (cosh(t) + 1)) * cosh(0.25 * t);
        sum += term;
        if (term < 1e-18 * sum || sum <= 0) break;
    }
    return step * sum;
}

static double cramer_von_mises_lower(double x) {
    double sum = 0;
    for (int k = 0; k < 100; k++) {
        double y = 4 * k + 1, term = exp(lgamma(k + 0.5) - lgamma(k + 1.0)) / (M_PI * sqrt(M_PI * x)) *
                                     sqrt(y) * scaled_bessel(y * y / (16 * x));
        sum += term;
        if (term < 1e-17 * sum || sum <= 0) break;
    }
    return sum;
}

double lam_cramer_von_mises_upper(double x) {
    enum { NODES = 512 };
    if (x <= 0) return 1;
    if (x <= 1) return unit(1 - cramer_von_mises_lower(x));
    /* 2 / pi sum_k (-1)^(k + 1) integral from (2k - 1) pi to 2 k pi of exp(-x s^2 / 2) / sqrt(-s sin s) ds. With
     * s = (2k - 1) pi + phi, phi = pi / 2 (1 - cos theta), the integrand is smooth and periodic in theta. The second
     * interval is 1e-17 of the first at x = 1 and less beyond. */
    double sum = 0;
    for (int i = 0; i < NODES; i++) {
        double theta = (i + 0.5) * M_PI / NODES, half = sin(0.5 * theta), phi = M_PI * half * half;
        sum += exp(-x * phi * (M_PI + 0.5 * phi)) * sin(theta) / sqrt((M_PI + phi) * sin(phi));
    }
    return unit(sum * M_PI / NODES * exp(-0.5 * x * M_PI * M_PI));
}
