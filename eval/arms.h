/* Chromosome arms of genes, and the correction of proximity bias: a cut by CRISPR-Cas9 can cost the cell the rest of the arm, so that
 * knockouts of genes on one arm look alike whatever the genes do (Lazar et al., Nat. Genet. 56, 2024).
 *
 *     LAM_TRY(lam_arms_read(&arms, "genes.bed", "centromeres.bed"));
 *     LAM_TRY(lam_arms_correct(arms, x, rows, columns, genes, unexpressed, 20, &result));
 *     lam_arms_free(arms);
 *
 * Positions: a BED file (no header: chromosome, start, end, gene; UCSC's tables with a leading bin too), or a table with the columns
 * chromosome (chrom, chr), start (chromStart), end (chromEnd), gene (symbol, name); or gene and `arm` (17q; p or q where there is a
 * column chromosome), which needs no more. "chr17" and "17" are one chromosome.
 * Centromeres: BED or table of intervals, several a chromosome allowed; where a file has UCSC's bands (cytoBand), its rows `acen`.
 * Arm of a gene (EFAAR): q where its end > (smallest start + largest end of the chromosome's centromere) / 2, else p. A gene whose
 * chromosome has no centromere has no arm, nor has a gene that lies on two arms.
 * Correction (EFAAR): from every gene on an arm with more than `minimum` unexpressed genes the mean over these is taken off.
 * Rows are taken one after another: the result does not depend on the number of threads. */
#ifndef LAMELLA_EVAL_ARMS_H
#define LAMELLA_EVAL_ARMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_arms lam_arms;

/* centromeres: NULL where the positions' table has a column `arm`; else LAM_ERROR_INPUT. */
lam_status lam_arms_read(lam_arms **out, const char *positions, const char *centromeres);
void lam_arms_free(lam_arms *arms);
/* "17q"; "" where unknown. Lives as long as `arms`. */
const char *lam_arms_of(const lam_arms *arms, const char *gene);

typedef struct lam_arms_result {
    int64_t genes;     /* rows with an arm */
    int64_t arms;      /* that they lie on */
    int64_t corrected; /* arms that were */
    int64_t rows;      /* on these */
    double within[2],
        between
            [2]; /* mean cosine of pairs of genes on one arm and on two, before and after; NaN: no such pair */
} lam_arms_result;

/* x [rows, columns] in place; genes [rows] all different, unexpressed [rows]. LAM_ERROR_INPUT: no gene with an arm. */
lam_status lam_arms_correct(const lam_arms *arms, double *x, int64_t rows, int64_t columns,
                            const char *const *genes, const bool *unexpressed, int64_t minimum,
                            lam_arms_result *result);

#ifdef __cplusplus
}
#endif
#endif
