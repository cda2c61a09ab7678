#include "eval/logistic.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include <lbfgs.h>

#include "base/memory.h"
#include "eval/linalg.h"

#define MAX_ITERATIONS 5000
#define GRADIENT_TOLERANCE 1e-7 /* |g| / max(1, |x|) */

typedef struct problem {
    const double *x, *weight;
    const int64_t *label;
    int64_t n, d, classes;
    double c;
    double *scores; /* [n, classes] */
} problem;

/* scores[i] -> weighted residuals (probability minus target); returns the weighted loss. */
static double residuals(problem *p) {
    double loss = 0;
    for (int64_t i = 0; i < p->n; i++) {
        double *s = p->scores + i * p->classes, largest = s[0], sum = 0;
        for (int64_t k = 1; k < p->classes; k++) largest = fmax(largest, s[k]);
        double own = s[p->label[i]] - largest;
        for (int64_t k = 0; k < p->classes; k++) sum += s[k] = exp(s[k] - largest);
        loss += p->weight[i] * (log(sum) - own);
        for (int64_t k = 0; k < p->classes; k++) s[k] = p->weight[i] * (s[k] / sum - (k == p->label[i]));
    }
    return loss;
}

static void score(const double *x, int64_t n, int64_t d, const double *w, int64_t classes, double *scores) {
    lam_gemm_f64(false, true, n, classes, d, x, d, w, d + 1, 0.0, scores, classes);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < classes; k++) scores[i * classes + k] += w[k * (d + 1) + d];
}

static lbfgsfloatval_t evaluate(void *instance, const lbfgsfloatval_t *w, lbfgsfloatval_t *g, const int size,
                                const lbfgsfloatval_t step) {
    (void)step;
    problem *p = instance;
    score(p->x, p->n, p->d, w, p->classes, p->scores);
    double value = p->c * residuals(p);
    memset(g, 0, (size_t)size * sizeof *g);
    lam_gemm_f64(true, false, p->classes, p->d, p->n, p->scores, p->classes, p->x, p->d, 0.0, g, p->d + 1);
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t k = 0; k < p->classes; k++) g[k * (p->d + 1) + p->d] += p->scores[i * p->classes + k];
    for (int64_t k = 0; k < p->classes; k++)
        for (int64_t j = 0; j <= p->d; j++) {
            int64_t at = k * (p->d + 1) + j;
            g[at] *= p->c;
            if (j == p->d) continue;
            value += 0.5 * w[at] * w[at];
            g[at] += w[at];
        }
    return value;
}

lam_status lam_logistic_fit(const double *x, int64_t n, int64_t d, const int64_t *label, const double *weight,
                            int64_t classes, double c, double *coefficients) {
    problem p = {x, weight, label, n, d, classes, c, NULL};
    LAM_TRY(lam_alloc_array((void **)&p.scores, n * classes, sizeof(double)));
    int size = (int)(classes * (d + 1));
    lbfgsfloatval_t *w = lbfgs_malloc(size);
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(w, done, LAM_ERROR_MEMORY, "out of memory: a probe of %d coefficients", size);
    memset(w, 0, (size_t)size * sizeof *w);
    lbfgs_parameter_t parameters;
    lbfgs_parameter_init(&parameters);
    parameters.m = 10;
    parameters.epsilon = GRADIENT_TOLERANCE;
    parameters.max_iterations = MAX_ITERATIONS;
    parameters.linesearch = LBFGS_LINESEARCH_BACKTRACKING_STRONG_WOLFE;
    int code = lbfgs(size, w, NULL, evaluate, NULL, &p, &parameters);
    /* The line search may end at the limit of rounding just before the tolerance; the point is as good as it gets. */
    bool good = code == LBFGS_SUCCESS || code == LBFGS_ALREADY_MINIMIZED || code == LBFGSERR_ROUNDING_ERROR ||
                code == LBFGSERR_MAXIMUMLINESEARCH || code == LBFGSERR_MINIMUMSTEP ||
                code == LBFGSERR_MAXIMUMITERATION;
    LAM_REQUIRE_GOTO(good, done, LAM_ERROR_NUMERIC, "the probe did not converge (liblbfgs: %d)", code);
    memcpy(coefficients, w, (size_t)size * sizeof *w);
done:
    lbfgs_free(w);
    lam_free(p.scores);
    return status;
}

void lam_logistic_predict(const double *x, int64_t n, int64_t d, const double *coefficients, int64_t classes,
                          int64_t *predicted) {
    for (int64_t i = 0; i < n; i++) {
        double best = -INFINITY;
        predicted[i] = 0;
        for (int64_t k = 0; k < classes; k++) {
            const double *w = coefficients + k * (d + 1);
            double value = w[d];
            for (int64_t j = 0; j < d; j++) value += w[j] * x[i * d + j];
            if (value > best) best = value, predicted[i] = k;
        }
    }
}
