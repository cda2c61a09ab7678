/* Nearest-neighbour matching: is the nearest profile of another compound (NSC, not same compound), or of another
 * compound and another batch (NSCB), of the same mechanism? NSC: Ljosa et al., "Comparison of methods for image-based
 * profiling of cellular morphological responses to small-molecule treatment", J. Biomol. Screen. 18, 2013; NSCB: Ando,
 * McLean, Berndl, "Improving phenotypic measurements in high-content imaging screens", bioRxiv 161422, 2017.
 *
 *     lam_rule rule = {.rows = rows, .different = {compound, batch}, .differences = 2, .queries = labelled,
 *                           .candidates = labelled};
 *     LAM_TRY(lam_match_nearest(&u, &rule, label, nearest));
 *
 * A pair counts where the rows differ in every column of the rule: rows of the same compound or of the same batch are
 * left out. Distance is the cosine in float64. Among equal cosines a neighbour with another label is taken (then the
 * first row), so that embeddings which are all the same match nothing. */
#ifndef LAMELLA_EVAL_MATCHING_H
#define LAMELLA_EVAL_MATCHING_H

#include <stdint.h>

#include "base/status.h"
#include "eval/cosine.h"
#include "eval/rules.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_neighbour {
    int64_t row; /* -1: the row asks for none, or none is left */
    double cosine;
} lam_neighbour;

/* label [rows]; nearest [rows], by the caller. Results do not depend on the number of threads. */
lam_status lam_match_nearest(const lam_directions *u, const lam_rule *rule, const int64_t *label,
                             lam_neighbour *nearest);

#ifdef __cplusplus
}
#endif
#endif
