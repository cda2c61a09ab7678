#include "eval/align.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "eval/linalg.h"

#define CORAL_RIDGE 0.5
#define RANK_TOLERANCE                                                                                       \
    1e-10 /* of the largest eigenvalue: below it a direction has no variance among the controls */

void lam_transform_fit_free(lam_transform_fit *f) {
    double **arrays[] = {&f->mean,       &f->scale,       &f->rotation_mean, &f->rotation,
                         &f->batch_mean, &f->batch_scale, &f->batch_matrix};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        lam_free(*arrays[i]);
        *arrays[i] = NULL;
    }
}

/* The rows that statistics are taken from: the controls (of batch b >= 0), or all rows where none are named. */
static int64_t select_rows(const lam_alignment *how, int64_t rows, int64_t b, int64_t *list) {
    int64_t n = 0;
    for (int64_t i = 0; i < rows; i++)
        if ((!how->controls || how->controls[i]) && (b < 0 || !how->batch || how->batch[i] == b))
            list[n++] = i;
    return n;
}

static void moments(const double *x, int64_t d, const int64_t *list, int64_t n, double *mean, double *scale) {
    for (int64_t j = 0; j < d; j++) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < n; i++) sum += x[list[i] * d + j];
        mean[j] = sum / (double)n;
        for (int64_t i = 0; i < n; i++)
            squares += (x[list[i] * d + j] - mean[j]) * (x[list[i] * d + j] - mean[j]);
        double deviation = sqrt(squares / (double)n);
        /* As scikit-learn's StandardScaler: a column that is constant to rounding keeps its scale. */
        scale[j] = deviation > 10 * 2.220446049250313e-16 * fabs(mean[j]) ? deviation : 1;
        if (deviation <= 0) scale[j] = 1;
    }
}

static void apply(double *x, int64_t d, int64_t rows, const int64_t *batch, int64_t b, const double *mean,
                  const double *scale) {
    for (int64_t i = 0; i < rows; i++) {
        if (b >= 0 && batch && batch[i] != b) continue;
        for (int64_t j = 0; j < d; j++) x[i * d + j] = (x[i * d + j] - mean[j]) / (scale ? scale[j] : 1);
    }
}

static const char *batch_name(const lam_alignment *how, int64_t b) {
    return how->batch_names ? how->batch_names[b] : "?";
}

/* Centre (and scale) each batch on its own statistics. */
static lam_status by_batch(const lam_alignment *how, double *x, int64_t rows, int64_t d, bool scaled,
                           int64_t *list, lam_transform_fit *fit) {
    int64_t batches = how->batch ? how->batches : 1;
    LAM_TRY(lam_alloc_array((void **)&fit->batch_mean, batches * d, sizeof(double)));
    LAM_TRY(lam_alloc_array((void **)&fit->batch_scale, batches * d, sizeof(double)));
    for (int64_t b = 0; b < batches; b++) {
        int64_t n = select_rows(how, rows, b, list);
        double *mean = fit->batch_mean + b * d, *scale = fit->batch_scale + b * d;
        LAM_REQUIRE(
            n >= (scaled ? 2 : 1), LAM_ERROR_INPUT,
            "batch '%s' has %lld %s: at least %d are needed to align it; leave it out with --where or align without --batch",
            how->batch ? batch_name(how, b) : "all", (long long)n, how->controls ? "controls" : "rows",
            scaled ? 2 : 1);
        moments(x, d, list, n, mean, scale);
        for (int64_t j = 0; !scaled && j < d; j++) scale[j] = 1;
        apply(x, d, rows, how->batch, b, mean, scale);
    }
    return LAM_OK;
}

/* |x x^T - S|^2 = |x|^4 - 2 x^T S x + |S|^2, and the sum of x^T S x over the rows is n |S|^2. */
double lam_ledoit_wolf(const double *x, int64_t d, const int64_t *rows, int64_t n, const double *mean,
                       const double *covariance) {
    double fourth = 0, trace = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t j = 0; j < d; j++)
            sum += (x[rows[i] * d + j] - mean[j]) * (x[rows[i] * d + j] - mean[j]);
        fourth += sum * sum;
    }
    for (int64_t j = 0; j < d; j++) trace += covariance[j * d + j];
    for (int64_t j = 0; j < d * d; j++) squares += covariance[j] * covariance[j];
    double count = (double)n, noise = (fourth / count - squares) / count,
           spread = squares - trace * trace / (double)d;
    if (!(noise > 0)) return 0;
    return noise < spread ? noise / spread : 1;
}

/* Principal components of the listed rows of `spread`, most variance first, null directions dropped; x is replaced by its scores.
 * deviation, where given: [*columns] the deviation of each score by the covariance, shrunk as `how` says; a shrunk one has no null
 * directions. */
static lam_status rotate(const lam_alignment *how, double *x, int64_t rows, int64_t *columns,
                         const double *spread, const int64_t *list, int64_t n, double *deviation,
                         lam_transform_fit *fit) {
    int64_t d = *columns;
    double *covariance = NULL, *values = NULL, *scores = NULL, share = 0, mean_variance = 0;
    lam_status status = LAM_OK;
    LAM_REQUIRE(n >= 2, LAM_ERROR_INPUT, "%lld controls: at least 2 are needed for principal components",
                (long long)n);
    LAM_TRY_GOTO(lam_alloc_array((void **)&fit->rotation_mean, d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&covariance, d * d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_covariance(spread, d, list, n, deviation ? 0 : 1, fit->rotation_mean, covariance), done);
    if (deviation && how->shrinkage) {
        share =
            how->share > 0 ? how->share : lam_ledoit_wolf(spread, d, list, n, fit->rotation_mean, covariance);
        for (int64_t j = 0; j < d; j++) mean_variance += covariance[j * d + j] / (double)d;
        lam_log_info("align: %lld controls of %lld dimensions; the covariance is shrunk by %.3f",
                     (long long)n, (long long)d, share);
    }
    LAM_TRY_GOTO(lam_eigen_symmetric(covariance, d, values), done);
    int64_t kept = share > 0 ? d : 0;
    while (kept < d && kept < n && values[d - 1 - kept] > RANK_TOLERANCE * values[d - 1]) kept++;
    LAM_REQUIRE_GOTO(kept > 0 && values[d - 1] > 0, done, LAM_ERROR_NUMERIC,
                     "the controls do not vary: nothing can be aligned on them");
    if (kept < d)
        lam_log_info("align: %lld controls span %lld of %lld dimensions; the others are dropped",
                     (long long)n, (long long)kept, (long long)d);
    if (how->components && how->components < kept) kept = how->components;
    for (int64_t k = 0; deviation && k < kept; k++)
        deviation[k] = sqrt((1 - share) * fmax(values[d - 1 - k], 0) + share * mean_variance);
    LAM_TRY_GOTO(lam_alloc_array((void **)&fit->rotation, kept * d, sizeof(double)), done);
    for (int64_t k = 0; k < kept; k++)
        memcpy(fit->rotation + k * d, covariance + (d - 1 - k) * d, (size_t)d * sizeof(double));
    apply(x, d, rows, NULL, -1, fit->rotation_mean, NULL);
    LAM_TRY_GOTO(lam_alloc_array((void **)&scores, rows * kept, sizeof(double)), done);
    lam_gemm_f64(false, true, rows, kept, d, x, d, fit->rotation, d, 0.0, scores, kept);
    memcpy(x, scores, (size_t)(rows * kept) * sizeof(double));
    *columns = kept;
done:
    lam_free(covariance);
    lam_free(values);
    lam_free(scores);
    return status;
}

/* S^(-1/2) = V diag(1 / sqrt(lambda)) V^T; s is replaced. vectors: workspace of the same size. */
static lam_status inverse_root(double *s, int64_t d, double *values, double *vectors) {
    LAM_TRY(lam_eigen_symmetric(s, d, values));
    for (int64_t k = 0; k < d; k++)
        for (int64_t j = 0; j < d; j++) vectors[k * d + j] = s[k * d + j] / sqrt(sqrt(values[k]));
    lam_gemm_f64(true, false, d, d, d, vectors, d, vectors, d, 0.0, s, d);
    return LAM_OK;
}

static lam_status coral(const lam_alignment *how, double *x, int64_t rows, int64_t d, int64_t *list,
                        lam_transform_fit *fit) {
    double *mean = NULL, *values = NULL, *vectors = NULL, *row = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&fit->batch_matrix, how->batches * d * d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&mean, d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&vectors, d * d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&row, d, sizeof(double)), done);
    for (int64_t b = 0; b < how->batches; b++) {
        double *s = fit->batch_matrix + b * d * d;
        int64_t n = select_rows(how, rows, b, list);
        LAM_REQUIRE_GOTO(
            n >= 2, done, LAM_ERROR_INPUT,
            "batch '%s' has %lld controls: CORAL needs at least 2; leave it out with --where or align without --batch",
            batch_name(how, b), (long long)n);
        LAM_TRY_GOTO(lam_covariance(x, d, list, n, 1, mean, s), done);
        for (int64_t j = 0; j < d; j++) s[j * d + j] += CORAL_RIDGE;
        LAM_TRY_GOTO(inverse_root(s, d, values, vectors), done);
        for (int64_t i = 0; i < rows; i++) {
            if (how->batch[i] != b) continue;
            lam_gemm_f64(false, false, 1, d, d, x + i * d, d, s, d, 0.0, row, d);
            memcpy(x + i * d, row, (size_t)d * sizeof *row);
        }
    }
done:
    lam_free(mean);
    lam_free(values);
    lam_free(vectors);
    lam_free(row);
    return status;
}

/* `spread` [rows, d]: the listed rows of x minus the mean of their group, times a factor that makes up for the degrees of freedom
 * that the means take: its mean squares are the unbiased variances among replicates. */
static lam_status among_replicates(const lam_alignment *how, const double *x, int64_t rows, int64_t d,
                                   const int64_t *list, int64_t n, double *spread) {
    double *mean = NULL;
    int64_t *count = NULL, groups = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&mean, how->groups * d, sizeof *mean), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&count, how->groups, sizeof *count), done);
    for (int64_t i = 0; i < n; i++) {
        int64_t g = how->group[list[i]];
        groups += count[g]++ == 0;
        for (int64_t j = 0; j < d; j++) mean[g * d + j] += x[list[i] * d + j];
    }
    LAM_REQUIRE_GOTO(n - groups >= 2, done, LAM_ERROR_INPUT,
                     "%lld rows in %lld groups: no replicates to learn the variation among them from",
                     (long long)n, (long long)groups);
    double factor = sqrt((double)n / (double)(n - groups));
    memset(spread, 0, (size_t)(rows * d) * sizeof *spread);
    for (int64_t i = 0; i < n; i++) {
        int64_t g = how->group[list[i]];
        for (int64_t j = 0; j < d; j++)
            spread[list[i] * d + j] = factor * (x[list[i] * d + j] - mean[g * d + j] / (double)count[g]);
    }
done:
    lam_free(mean);
    lam_free(count);
    return status;
}

static lam_status whiten(const lam_alignment *how, double *x, int64_t rows, int64_t *columns, int64_t *list,
                         lam_transform_fit *fit) {
    int64_t d = *columns, n = select_rows(how, rows, -1, list);
    LAM_TRY(lam_alloc_array((void **)&fit->mean, d, sizeof(double)));
    LAM_TRY(lam_alloc_array((void **)&fit->scale, d, sizeof(double)));
    double *mean = NULL, *scale = NULL, *spread = NULL;
    bool by_covariance = how->shrinkage || how->group;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&mean, d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&scale, d, sizeof(double)), done);
    moments(x, d, list, n, fit->mean, fit->scale);
    if (how->group) {
        LAM_TRY_GOTO(lam_alloc_array((void **)&spread, rows * d, sizeof(double)), done);
        LAM_TRY_GOTO(among_replicates(how, x, rows, d, list, n, spread), done);
        moments(spread, d, list, n, mean, fit->scale);
        apply(spread, d, rows, NULL, -1, mean, fit->scale);
        memset(mean, 0, (size_t)d * sizeof *mean);
    }
    apply(x, d, rows, NULL, -1, fit->mean, fit->scale);
    LAM_TRY_GOTO(
        rotate(how, x, rows, columns, spread ? spread : x, list, n, by_covariance ? scale : NULL, fit), done);
    /* The second centre-scale is folded into the rotation's rows, so that the fit stays an affine map. */
    if (!by_covariance) moments(x, *columns, list, n, mean, scale);
    apply(x, *columns, rows, NULL, -1, mean, scale);
    for (int64_t k = 0; k < *columns; k++)
        for (int64_t j = 0; j < d; j++) fit->rotation[k * d + j] /= scale[k];
done:
    lam_free(mean);
    lam_free(scale);
    lam_free(spread);
    LAM_TRY(status);
    return how->batch ? coral(how, x, rows, *columns, list, fit) : LAM_OK;
}

lam_status lam_align(const lam_alignment *how, double *x, int64_t rows, int64_t *columns,
                     lam_transform_fit *out) {
    lam_transform_fit fit = {.columns = *columns, .batches = how->batch ? how->batches : 1};
    int64_t *list = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&list, rows, sizeof *list), done);
    switch (how->method) {
    case LAM_ALIGN_NONE: break;
    case LAM_ALIGN_CENTER: LAM_TRY_GOTO(by_batch(how, x, rows, *columns, false, list, &fit), done); break;
    case LAM_ALIGN_CENTERSCALE: LAM_TRY_GOTO(by_batch(how, x, rows, *columns, true, list, &fit), done); break;
    case LAM_ALIGN_PCA_CS:
        LAM_TRY_GOTO(rotate(how, x, rows, columns, x, list, select_rows(how, rows, -1, list), NULL, &fit),
                     done);
        LAM_TRY_GOTO(by_batch(how, x, rows, *columns, true, list, &fit), done);
        break;
    case LAM_ALIGN_TVN: LAM_TRY_GOTO(whiten(how, x, rows, columns, list, &fit), done); break;
    }
    fit.components = *columns;
done:
    lam_free(list);
    if (status == LAM_OK && out)
        *out = fit;
    else
        lam_transform_fit_free(&fit);
    return status;
}
