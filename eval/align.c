#include "eval/align.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "eval/linalg.h"

#define CORAL_RIDGE 0.5
/* Of the largest eigenvalue: below it a direction has no variance among the controls. */
#define RANK_TOLERANCE 1e-10
#define TILE 64 /* columns that one thread takes at a time: results do not depend on the number of threads */

/* What is fitted on: the controls, batch by batch. */
typedef struct fitting {
    const lam_alignment *how;
    lam_transform *t;
    int64_t n, d;   /* of z */
    int64_t *rows;  /* [n] which rows of x */
    int64_t *start; /* [batches + 1] of each batch in rows and z */
    double *z;      /* [n, d] the controls as far as they are aligned; NULL for methods that need no copy */
    double *
        largest; /* [d] largest absolute value in each column of z before anything was taken off: measure of rounding */
    int64_t freedom; /* of the rows that the covariance is of: n, less the means of groups */
} fitting;

static const char *controls_or_rows(const lam_alignment *how) { return how->controls ? "controls" : "rows"; }

static lam_status list_controls(fitting *f, int64_t rows) {
    const lam_alignment *how = f->how;
    int64_t batches = f->t->batches;
    LAM_TRY(lam_alloc_array((void **)&f->start, batches + 2, sizeof *f->start));
    LAM_TRY(lam_alloc_array((void **)&f->rows, rows, sizeof *f->rows));
    for (int64_t i = 0; i < rows; i++)
        if (!how->controls || how->controls[i]) f->start[(how->batch ? how->batch[i] : 0) + 2]++, f->n++;
    for (int64_t b = 0; b < batches; b++) f->start[b + 2] += f->start[b + 1];
    for (int64_t i = 0; i < rows; i++)
        if (!how->controls || how->controls[i]) f->rows[f->start[(how->batch ? how->batch[i] : 0) + 1]++] = i;
    return LAM_OK;
}

/* How many controls (rows, where none are named) of each batch. */
static int needs(const lam_alignment *how) {
    switch (how->method) {
    case LAM_ALIGN_NONE: return 0;
    case LAM_ALIGN_CENTER: return 1;
    case LAM_ALIGN_CENTERSCALE:
    case LAM_ALIGN_PCA_CS: return 2;
    case LAM_ALIGN_TVN: return how->batch && how->batches > 0 ? 2 : 0;
    case LAM_ALIGN_SPHERIZE: return how->batch_center ? 1 : 0;
    }
    return 0;
}

static lam_status require_controls(const fitting *f) {
    const lam_alignment *how = f->how;
    int need = needs(how);
    int64_t poor = 0;
    char list[256] = "";
    LAM_REQUIRE(how->batch || f->n >= need, LAM_ERROR_INPUT,
                "%lld %s: at least %d are needed to align on them", (long long)f->n, controls_or_rows(how),
                need);
    for (int64_t b = 0; b < f->t->batches; b++) {
        int64_t n = f->start[b + 1] - f->start[b];
        size_t used = strlen(list);
        const char *name = how->batch_names ? how->batch_names[b] : "?";
        if (n >= need) continue;
        if (poor == 0)
            snprintf(list, sizeof list, "batch '%.50s' has %lld %s", name, (long long)n,
                     controls_or_rows(how));
        else if (poor < 3)
            snprintf(list + used, sizeof list - used, ", '%.50s' %lld", name, (long long)n);
        poor++;
    }
    size_t used = strlen(list);
    if (poor > 3)
        snprintf(list + used, sizeof list - used, ", and %lld more have too few", (long long)poor - 3);
    LAM_REQUIRE(
        !poor, LAM_ERROR_INPUT,
        "%s: at least %d are needed to align it; leave such batches out with --min-controls %d, or align without --batch",
        list, need, need);
    return LAM_OK;
}

/* Mean and deviation (ddof 0) of rows of x, those listed or (NULL) 0..n-1; returns how many columns do not vary: their scale is 1. As in
 * scikit-learn's StandardScaler, a column whose variance rounding alone could make does not vary; `largest` [d], where given, is what
 * was rounded. scale may be NULL. */
static int64_t moments(const double *x, int64_t d, const int64_t *list, int64_t n, const double *largest,
                       double *mean, double *scale) {
    int64_t constant = 0;
#pragma omp parallel for schedule(static) reduction(+ : constant) num_threads(lam_threads())
    for (int64_t from = 0; from < d; from += TILE) {
        int64_t width = d - from < TILE ? d - from : TILE;
        double sum[TILE] = {0}, squares[TILE] = {0};
        for (int64_t i = 0; i < n; i++) {
            const double *row = x + (list ? list[i] : i) * d + from;
            for (int64_t j = 0; j < width; j++) sum[j] += row[j];
        }
        for (int64_t j = 0; j < width; j++) mean[from + j] = sum[j] /= (double)n;
        if (!scale) continue;
        for (int64_t i = 0; i < n; i++) {
            const double *row = x + (list ? list[i] : i) * d + from;
            for (int64_t j = 0; j < width; j++) squares[j] += (row[j] - sum[j]) * (row[j] - sum[j]);
        }
        for (int64_t j = 0; j < width; j++) {
            double variance = squares[j] / (double)n, rounding = 0x1p-52 * (double)n;
            double size = rounding * fmax(fabs(sum[j]), largest ? largest[from + j] : 0);
            bool varies = variance > rounding * variance + size * size;
            scale[from + j] = varies ? sqrt(variance) : 1;
            constant += !varies;
        }
    }
    return constant;
}

static void subtract(double *x, int64_t d, int64_t n, const double *mean, const double *scale) {
#pragma omp parallel for schedule(static) num_threads(lam_threads())
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) x[i * d + j] = (x[i * d + j] - mean[j]) / (scale ? scale[j] : 1);
}

/* Mean and deviation of each batch, of the controls as they are in z, or in x where there is no copy. */
static lam_status by_batch(fitting *f, const double *x, bool scaled) {
    lam_transform *t = f->t;
    int64_t d = f->d, batches = t->batches, constant = 0, with = 0, first = 0;
    LAM_TRY(lam_alloc_array((void **)&t->batch_mean, batches * d, sizeof(double)));
    LAM_TRY(lam_alloc_array((void **)&t->batch_scale, batches * d, sizeof(double)));
    for (int64_t b = 0; b < batches; b++) {
        int64_t n = f->start[b + 1] - f->start[b], found;
        double *mean = t->batch_mean + b * d, *scale = t->batch_scale + b * d;
        found = moments(f->z ? f->z + f->start[b] * d : x, d, f->z ? NULL : f->rows + f->start[b], n,
                        f->largest, mean, scaled ? scale : NULL);
        for (int64_t j = 0; !scaled && j < d; j++) scale[j] = 1;
        if (scaled && found && !with++) first = b;
        if (scaled && found > constant) constant = found;
    }
    if (with && f->how->batch)
        lam_log_info(
            "align: in %lld of %lld batches, '%s' the first, up to %lld of %lld columns do not vary among the %s: centred, not scaled",
            (long long)with, (long long)batches, f->how->batch_names ? f->how->batch_names[first] : "?",
            (long long)constant, (long long)d, controls_or_rows(f->how));
    else if (with)
        lam_log_info("align: %lld of %lld columns do not vary among the %s: centred, not scaled",
                     (long long)constant, (long long)d, controls_or_rows(f->how));
    return LAM_OK;
}

/* covariance [d, d] = z^T z / divisor, of rows that are centred. Tile by tile, so that the bits do not depend on threads. */
static void products(const double *z, int64_t d, int64_t n, double divisor, double *covariance) {
#pragma omp parallel num_threads(lam_threads())
    {
#pragma omp for schedule(dynamic)
        for (int64_t tile = 0; tile < (d + TILE - 1) / TILE; tile++) {
            int64_t from = (d - 1) / TILE * TILE - tile * TILE, width = d - from < TILE ? d - from : TILE;
            lam_gemm_f64(true, false, from + width, width, n, z, d, z + from, d, 0.0, covariance + from, d);
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < d; i++)
            for (int64_t j = i; j < d; j++) covariance[i * d + j] /= divisor;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < d; i++)
            for (int64_t j = 0; j < i; j++) covariance[i * d + j] = covariance[j * d + i];
    }
}

/* lam_eigen_symmetric by one thread: LAPACK's last bits depend on how many there are. Each vector's largest coefficient is positive. */
static lam_status eigen(double *a, int64_t d, double *values) {
    lam_status status = LAM_OK;
#pragma omp parallel num_threads(lam_threads())
    {
#pragma omp master
        status = lam_eigen_symmetric(a, d, values);
    }
    LAM_TRY(status);
    for (int64_t k = 0; k < d; k++) {
        double *vector = a + k * d, largest = 0;
        for (int64_t j = 0; j < d; j++)
            if (fabs(vector[j]) > fabs(largest)) largest = vector[j];
        for (int64_t j = 0; largest < 0 && j < d; j++) vector[j] = -vector[j];
    }
    return LAM_OK;
}

/* out = V^T diag(factor) V, the eigenvectors V [d, d] one a row; they are scaled. factor >= 0. */
static void recompose(double *vectors, int64_t d, const double *factor, double *out) {
    for (int64_t k = 0; k < d; k++)
        for (int64_t j = 0; j < d; j++) vectors[k * d + j] *= sqrt(factor[k]);
#pragma omp parallel for schedule(static) num_threads(lam_threads())
    for (int64_t from = 0; from < d; from += TILE)
        lam_gemm_f64(true, false, d, d - from < TILE ? d - from : TILE, d, vectors, d, vectors + from, d, 0.0,
                     out + from, d);
}

/* |x x^T - S|^2 = |x|^4 - 2 x^T S x + |S|^2, and the sum of x^T S x over the rows is n |S|^2. */
double lam_ledoit_wolf(const double *x, int64_t d, int64_t n, int64_t freedom, const double *covariance) {
    double fourth = 0, trace = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t j = 0; j < d; j++) sum += x[i * d + j] * x[i * d + j];
        fourth += sum * sum;
    }
    for (int64_t j = 0; j < d; j++) trace += covariance[j * d + j];
    for (int64_t j = 0; j < d * d; j++) squares += covariance[j] * covariance[j];
    double count = (double)n, noise = (fourth / count - squares) / (double)freedom,
           spread = squares - trace * trace / (double)d;
    if (!(noise > 0)) return 0;
    return noise < spread ? noise / spread : 1;
}

static int64_t rank_of(const double *values, int64_t d, int64_t n) {
    int64_t rank = 0;
    while (rank < d && rank < n && values[d - 1 - rank] > RANK_TOLERANCE * values[d - 1]) rank++;
    return rank;
}

/* The fewest components with more than `how->variance` of the variance, as scikit-learn's PCA counts them. */
static int64_t components_kept(const lam_alignment *how, const double *values, int64_t d, int64_t most) {
    if (how->components) return how->components < most ? how->components : most;
    if (!(how->variance > 0)) return most;
    double total = 0, sum = 0;
    int64_t kept = 0;
    for (int64_t k = 0; k < d; k++) total += fmax(values[k], 0);
    while (kept < most && sum <= how->variance * total) sum += fmax(values[d - 1 - kept++], 0);
    lam_log_info("align: %lld components hold %.4g of the variance", (long long)kept, sum / total);
    return kept;
}

/* Largest absolute value of each column of z; from scores it is that of all columns, as rounding is shared by them. */
static void measure_size(fitting *f, bool scores) {
    double all = 0;
    memset(f->largest, 0, (size_t)f->d * sizeof *f->largest);
    for (int64_t i = 0; i < f->n; i++)
        for (int64_t j = 0; j < f->d; j++) f->largest[j] = fmax(f->largest[j], fabs(f->z[i * f->d + j]));
    for (int64_t j = 0; j < f->d; j++) all = fmax(all, f->largest[j]);
    for (int64_t j = 0; scores && j < f->d; j++) f->largest[j] = all;
}

/* Principal components of `spread` [n, d] (z, or its variation among replicates; its mean is taken off), most variance first, null
 * directions dropped; z becomes its scores. deviation, where given: [d] of each score by the covariance, shrunk as `how` says; a
 * shrunk one has no null directions. */
static lam_status rotate(fitting *f, double *spread, double *deviation) {
    const lam_alignment *how = f->how;
    lam_transform *t = f->t;
    int64_t d = f->d, n = f->n;
    double *covariance = NULL, *values = NULL, *scores = NULL, share = 0, mean_variance = 0, noise = 0;
    lam_status status = LAM_OK;
    for (int64_t j = 0; !t->mean && j < d; j++) noise = fmax(noise, 0x1p-52 * (double)n * f->largest[j]);
    LAM_TRY_GOTO(lam_alloc_array((void **)&t->rotation_mean, d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&covariance, d * d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, d, sizeof(double)), done);
    moments(spread, d, NULL, n, NULL, t->rotation_mean, NULL);
    subtract(f->z, d, n, t->rotation_mean, NULL);
    if (spread != f->z) subtract(spread, d, n, t->rotation_mean, NULL);
    products(spread, d, n, (double)(deviation ? n : n - 1), covariance);
    if (deviation && how->shrinkage) {
        share = how->share > 0 ? how->share : lam_ledoit_wolf(spread, d, n, f->freedom, covariance);
        for (int64_t j = 0; j < d; j++) mean_variance += covariance[j * d + j] / (double)d;
        lam_log_info("align: %lld %s of %lld dimensions; the covariance is shrunk by %.3f", (long long)n,
                     controls_or_rows(how), (long long)d, share);
    }
    LAM_TRY_GOTO(eigen(covariance, d, values), done);
    int64_t kept = share > 0 ? d : rank_of(values, d, n);
    LAM_REQUIRE_GOTO(kept > 0 && values[d - 1] > noise * noise, done, LAM_ERROR_NUMERIC,
                     "the %s do not vary: nothing can be aligned on them", controls_or_rows(how));
    if (kept < d)
        lam_log_info(
            "align: %lld %s span %lld of %lld dimensions; the others are dropped%s", (long long)n,
            controls_or_rows(how), (long long)kept, (long long)d,
            how->controls && how->method == LAM_ALIGN_TVN
                ? "; where so few controls serve badly, --within COLUMN learns from replicates, --shrinkage from less"
                : "");
    kept = components_kept(how, values, d, kept);
    for (int64_t k = 0; deviation && k < kept; k++)
        deviation[k] = sqrt((1 - share) * fmax(values[d - 1 - k], 0) + share * mean_variance);
    LAM_TRY_GOTO(lam_alloc_array((void **)&t->rotation, kept * d, sizeof(double)), done);
    for (int64_t k = 0; k < kept; k++)
        memcpy(t->rotation + k * d, covariance + (d - 1 - k) * d, (size_t)d * sizeof(double));
    LAM_TRY_GOTO(lam_alloc_array((void **)&scores, n * kept, sizeof(double)), done);
#pragma omp parallel for schedule(static) num_threads(lam_threads())
    for (int64_t i = 0; i < n; i += TILE)
        lam_gemm_f64(false, true, n - i < TILE ? n - i : TILE, kept, d, f->z + i * d, d, t->rotation, d, 0.0,
                     scores + i * kept, kept);
    lam_free(f->z);
    f->z = scores;
    scores = NULL;
    f->d = t->components = kept;
done:
    lam_free(covariance);
    lam_free(values);
    return status;
}

/* S_b^(-1/2) of every batch, each by one thread. */
static lam_status coral(fitting *f) {
    lam_transform *t = f->t;
    int64_t d = f->d;
    int threads = lam_threads();
    double *space = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&t->batch_matrix, t->batches * d * d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&space, threads * (d * d + 2 * d), sizeof *space), done);
    lam_status worst = LAM_OK;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t b = 0; b < t->batches; b++) {
        double *s = space + omp_get_thread_num() * (d * d + 2 * d), *mean = s + d * d, *values = mean + d;
        int64_t n = f->start[b + 1] - f->start[b];
        double *z = f->z + f->start[b] * d;
        memset(mean, 0, (size_t)d * sizeof *mean);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < d; j++) mean[j] += z[i * d + j];
        for (int64_t j = 0; j < d; j++) mean[j] /= (double)n;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < d; j++) z[i * d + j] -= mean[j];
        lam_gemm_f64(true, false, d, d, n, z, d, z, d, 0.0, s, d);
        for (int64_t j = 0; j < d * d; j++) s[j] /= (double)(n - 1);
        for (int64_t j = 0; j < d; j++) s[j * d + j] += CORAL_RIDGE;
        lam_status one = lam_eigen_symmetric(s, d, values);
        for (int64_t k = 0; k < d; k++) values[k] = 1 / sqrt(values[k]);
        if (one == LAM_OK) recompose(s, d, values, t->batch_matrix + b * d * d);
        if (one != LAM_OK) {
#pragma omp atomic write
            worst = one;
        }
    }
    /* The thread that failed kept its message to itself. */
    LAM_REQUIRE_GOTO(worst == LAM_OK, done, worst,
                     worst == LAM_ERROR_MEMORY ? "align: no memory for the covariance of a batch"
                                               : "align: the covariance of a batch has no eigenvectors");
done:
    lam_free(space);
    return status;
}

/* `spread` [n, d]: z minus the mean of each row's group, times a factor that makes up for the degrees of freedom that the means take: its
 * mean squares are the unbiased variances among replicates. */
static lam_status among_replicates(fitting *f, double *spread) {
    const int64_t *group = f->how->group;
    int64_t d = f->d, n = f->n, *count = NULL, groups = 0;
    double *mean = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&mean, f->how->groups * d, sizeof *mean), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&count, f->how->groups, sizeof *count), done);
    for (int64_t i = 0; i < n; i++) {
        int64_t g = group[f->rows[i]];
        groups += count[g]++ == 0;
        for (int64_t j = 0; j < d; j++) mean[g * d + j] += f->z[i * d + j];
    }
    LAM_REQUIRE_GOTO(n - groups >= 2, done, LAM_ERROR_INPUT,
                     "%lld rows in %lld groups: no replicates to learn the variation among them from",
                     (long long)n, (long long)groups);
    f->freedom = n - groups;
    double factor = sqrt((double)n / (double)f->freedom);
    for (int64_t i = 0; i < n; i++) {
        int64_t g = group[f->rows[i]];
        for (int64_t j = 0; j < d; j++)
            spread[i * d + j] = factor * (f->z[i * d + j] - mean[g * d + j] / (double)count[g]);
    }
done:
    lam_free(mean);
    lam_free(count);
    return status;
}

/* Centre and scale on the controls; `spread`, where given, becomes the variation among replicates and gives the scale. */
static lam_status standardise(fitting *f, double *spread) {
    lam_transform *t = f->t;
    LAM_TRY(lam_alloc_array((void **)&t->mean, f->d, sizeof(double)));
    LAM_TRY(lam_alloc_array((void **)&t->scale, f->d, sizeof(double)));
    int64_t constant = moments(f->z, f->d, NULL, f->n, f->largest, t->mean, t->scale);
    if (spread) {
        double *mean;
        LAM_TRY(among_replicates(f, spread));
        LAM_TRY(lam_alloc_array((void **)&mean, f->d, sizeof *mean));
        constant = moments(spread, f->d, NULL, f->n, f->largest, mean, t->scale);
        subtract(spread, f->d, f->n, mean, t->scale);
        lam_free(mean);
    }
    if (constant)
        lam_log_info("align: %lld of %lld columns do not vary among the %s: centred, not scaled",
                     (long long)constant, (long long)f->d, spread ? "replicates" : controls_or_rows(f->how));
    LAM_REQUIRE(constant < f->d, LAM_ERROR_NUMERIC, "the %s do not vary: nothing can be aligned on them",
                controls_or_rows(f->how));
    subtract(f->z, f->d, f->n, t->mean, t->scale);
    return LAM_OK;
}

static lam_status whiten(fitting *f) {
    int64_t d = f->d;
    double *mean = NULL, *scale = NULL, *spread = NULL;
    bool by_covariance = f->how->shrinkage || f->how->group;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&mean, d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&scale, d, sizeof(double)), done);
    if (f->how->group) LAM_TRY_GOTO(lam_alloc_array((void **)&spread, f->n * d, sizeof(double)), done);
    LAM_TRY_GOTO(standardise(f, spread), done);
    LAM_TRY_GOTO(rotate(f, spread ? spread : f->z, by_covariance ? scale : NULL), done);
    /* The second centre-scale is folded into the rotation; the mean of the scores is zero to rounding already. */
    if (!by_covariance) moments(f->z, f->d, NULL, f->n, NULL, mean, scale);
    memset(mean, 0, (size_t)d * sizeof *mean);
    subtract(f->z, f->d, f->n, mean, scale);
    for (int64_t k = 0; k < f->d; k++)
        for (int64_t j = 0; j < d; j++) f->t->rotation[k * d + j] /= scale[k];
    if (f->how->batch) status = coral(f);
done:
    lam_free(mean);
    lam_free(scale);
    lam_free(spread);
    return status;
}

static lam_status spherize(fitting *f) {
    lam_transform *t = f->t;
    int64_t d = f->d, n = f->n;
    double *products_of = NULL, *values = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(standardise(f, NULL), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&t->rotation_mean, d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&t->rotation, d * d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&products_of, d * d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, d, sizeof(double)), done);
    products(f->z, d, n, 1, products_of);
    LAM_TRY_GOTO(eigen(products_of, d, values), done);
    int64_t rank = rank_of(values, d, n);
    if (rank < d)
        lam_log_info(
            "align: %lld %s span %lld of %lld dimensions; the others are scaled like the weakest of these",
            (long long)n, controls_or_rows(f->how), (long long)rank, (long long)d);
    for (int64_t k = 0; k < d - rank; k++) values[k] = values[d - rank];
    for (int64_t k = 0; k < d; k++)
        values[k] = sqrt((double)(n - 1)) / (sqrt(values[k]) + f->how->regularization);
    recompose(products_of, d, values, t->rotation);
done:
    lam_free(products_of);
    lam_free(values);
    return status;
}

lam_status lam_align_fit(const lam_alignment *how, const double *x, int64_t rows, int64_t columns,
                         lam_transform *out) {
    memset(out, 0, sizeof *out);
    out->columns = out->components = columns;
    out->batches = how->batch ? how->batches : 1;
    if (how->method == LAM_ALIGN_NONE) return LAM_OK;
    fitting f = {.how = how, .t = out, .d = columns};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(list_controls(&f, rows), done);
    f.freedom = f.n;
    LAM_TRY_GOTO(require_controls(&f), done);
    if (how->method == LAM_ALIGN_CENTER || how->method == LAM_ALIGN_CENTERSCALE) {
        LAM_TRY_GOTO(by_batch(&f, x, how->method == LAM_ALIGN_CENTERSCALE), done);
        goto done;
    }
    LAM_REQUIRE_GOTO(f.n >= 2, done, LAM_ERROR_INPUT, "%lld %s: at least 2 are needed to align on them",
                     (long long)f.n, controls_or_rows(how));
    LAM_TRY_GOTO(lam_alloc_array((void **)&f.z, f.n * columns, sizeof *f.z), done);
    for (int64_t i = 0; i < f.n; i++)
        memcpy(f.z + i * columns, x + f.rows[i] * columns, (size_t)columns * sizeof *f.z);
    LAM_TRY_GOTO(lam_alloc_array((void **)&f.largest, columns, sizeof *f.largest), done);
    measure_size(&f, false);
    if (how->batch_center) {
        LAM_TRY_GOTO(lam_alloc_array((void **)&out->center, out->batches * columns, sizeof(double)), done);
        for (int64_t b = 0; b < out->batches; b++) {
            double *center = out->center + b * columns, *z = f.z + f.start[b] * columns;
            int64_t n = f.start[b + 1] - f.start[b];
            moments(z, columns, NULL, n, NULL, center, NULL);
            subtract(z, columns, n, center, NULL);
        }
    }
    if (how->method == LAM_ALIGN_TVN) LAM_TRY_GOTO(whiten(&f), done);
    if (how->method == LAM_ALIGN_SPHERIZE) LAM_TRY_GOTO(spherize(&f), done);
    if (how->method == LAM_ALIGN_PCA_CS) {
        LAM_TRY_GOTO(rotate(&f, f.z, NULL), done);
        measure_size(&f, true);
        LAM_TRY_GOTO(by_batch(&f, NULL, true), done);
    }
done:
    lam_free(f.rows);
    lam_free(f.start);
    lam_free(f.z);
    lam_free(f.largest);
    if (status != LAM_OK) lam_transform_free(out);
    return status;
}

lam_status lam_align(const lam_alignment *how, double *x, int64_t rows, int64_t *columns,
                     lam_transform *out) {
    lam_transform t;
    LAM_TRY(lam_align_fit(how, x, rows, *columns, &t));
    lam_status status = lam_transform_apply(&t, x, rows, how->batch);
    if (status == LAM_OK) *columns = t.components;
    if (status == LAM_OK && out)
        *out = t;
    else
        lam_transform_free(&t);
    return status;
}
