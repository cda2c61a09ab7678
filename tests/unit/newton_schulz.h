/* Muon's iteration a second time, in float64, and singular values to judge it by. */
#ifndef LAMELLA_TESTS_NEWTON_SCHULZ_H
#define LAMELLA_TESTS_NEWTON_SCHULZ_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* One step, by loops over the shorter side. */
static inline void polynomial(double *x, int64_t rows, int64_t columns) {
    int64_t side = rows < columns ? rows : columns, n = rows * columns;
    double *gram = calloc((size_t)(side * side), sizeof *gram),
           *square = calloc((size_t)(side * side), sizeof *square), *next = calloc((size_t)n, sizeof *next);
    bool tall = rows > columns;
    for (int64_t i = 0; i < side; i++)
        for (int64_t j = 0; j < side; j++)
            for (int64_t k = 0; k < (tall ? rows : columns); k++)
                gram[i * side + j] +=
                    tall ? x[k * columns + i] * x[k * columns + j] : x[i * columns + k] * x[j * columns + k];
    for (int64_t i = 0; i < side; i++)
        for (int64_t j = 0; j < side; j++)
            for (int64_t k = 0; k < side; k++)
                square[i * side + j] += gram[i * side + k] * gram[k * side + j];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            double sum = 3.4445 * x[i * columns + j];
            for (int64_t k = 0; k < side; k++) {
                int64_t at = tall ? k * side + j : i * side + k;
                sum += (-4.7750 * gram[at] + 2.0315 * square[at]) *
                       (tall ? x[i * columns + k] : x[k * columns + j]);
            }
            next[i * columns + j] = sum;
        }
    memcpy(x, next, (size_t)n * sizeof *x);
    free(gram);
    free(square);
    free(next);
}

/* x divided by its norm, then five steps; not of zeros. */
static inline void orthogonalise(double *x, int64_t rows, int64_t columns) {
    double norm = 0;
    for (int64_t i = 0; i < rows * columns; i++) norm += x[i] * x[i];
    for (int64_t i = 0; i < rows * columns; i++) x[i] /= sqrt(norm);
    for (int k = 0; k < 5; k++) polynomial(x, rows, columns);
}

/* By one-sided Jacobi rotations of the shorter side; at most [SIDE, 2 SIDE] or turned. */
enum { SIDE = 48 };
static inline void singular_values(const float *x, int64_t rows, int64_t columns, double *values) {
    int64_t side = rows < columns ? rows : columns, length = rows < columns ? columns : rows;
    double v[SIDE][2 * SIDE];
    for (int64_t i = 0; i < side; i++)
        for (int64_t k = 0; k < length; k++)
            v[i][k] = (double)(rows < columns ? x[i * columns + k] : x[k * columns + i]);
    for (int sweep = 0; sweep < 30; sweep++)
        for (int64_t i = 0; i < side; i++)
            for (int64_t j = i + 1; j < side; j++) {
                double a = 0, b = 0, c = 0;
                for (int64_t k = 0; k < length; k++)
                    a += v[i][k] * v[i][k], b += v[j][k] * v[j][k], c += v[i][k] * v[j][k];
                if (fabs(c) <= 1e-15 * sqrt(a * b)) continue;
                double zeta = (b - a) / (2 * c),
                       t = (zeta < 0 ? -1 : 1) / (fabs(zeta) + sqrt(1 + zeta * zeta)),
                       cosine = 1 / sqrt(1 + t * t), sine = cosine * t;
                for (int64_t k = 0; k < length; k++) {
                    double p = v[i][k], q = v[j][k];
                    v[i][k] = cosine * p - sine * q;
                    v[j][k] = sine * p + cosine * q;
                }
            }
    for (int64_t i = 0; i < side; i++) {
        values[i] = 0;
        for (int64_t k = 0; k < length; k++) values[i] += v[i][k] * v[i][k];
        values[i] = sqrt(values[i]);
    }
}

#endif
