/* The design of a simulated Cell-Painting-like screen: genes in pathways, guides, wells, and the true
 * morphological parameters of every well. No pixels here: data/synth_cell.h draws cells, data/synth_camera.h
 * photographs them.
 *
 *     lam_synth_config config = lam_synth_config_default();
 *     lam_synth_screen *screen = NULL;
 *     LAM_TRY(lam_synth_screen_create(&screen, &config));
 *     const double *z = screen->wells[0].truth;   // LAM_SYNTH_PARAMETERS numbers, 0 = an untreated cell
 *     lam_synth_screen_free(screen);
 *
 * Model, for gene g of pathway p, guide u, well w (all in units in which +-1 is plainly visible by eye):
 *     effect(g)  = strength x magnitude(g) x (direction(p) + own(g))
 *     truth(w)   = effect(g) x efficiency(u) + off-target(u) + well scatter
 * A pathway is a unit direction with few non-zero parameters; an antagonist pathway is the opposite
 * direction. Two genes are related where they share a pathway or sit in antagonist pathways; a gene without
 * effect is related to none. Everything is a function of the configuration (Philox streams), on any number of
 * threads. */
#ifndef LAMELLA_DATA_SYNTH_SCREEN_H
#define LAMELLA_DATA_SYNTH_SCREEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_synth_parameter {
    LAM_SYNTH_NUCLEUS_AREA,
    LAM_SYNTH_NUCLEUS_ECCENTRICITY,
    LAM_SYNTH_CHROMATIN_GRANULARITY,
    LAM_SYNTH_NUCLEOLI_NUMBER,
    LAM_SYNTH_NUCLEOLI_SIZE,
    LAM_SYNTH_ER_EXTENT,
    LAM_SYNTH_ER_RETICULATION,
    LAM_SYNTH_RNA_GRANULES,
    LAM_SYNTH_ACTIN_FIBRES,
    LAM_SYNTH_ACTIN_ORDER,
    LAM_SYNTH_GOLGI_COMPACTNESS,
    LAM_SYNTH_MITO_FRAGMENTATION,
    LAM_SYNTH_MITO_SPREAD,
    LAM_SYNTH_CELL_AREA,
    LAM_SYNTH_CELL_ELONGATION,
    LAM_SYNTH_MEMBRANE_RUFFLING,
    LAM_SYNTH_CELL_COUNT,
    LAM_SYNTH_ER_AMOUNT,
    LAM_SYNTH_MITO_AMOUNT,
    LAM_SYNTH_PARAMETERS
} lam_synth_parameter;

extern const char *const lam_synth_parameter_names[LAM_SYNTH_PARAMETERS];

typedef struct lam_synth_config {
    int64_t genes;      /* >= 4 */
    int64_t guides;     /* a gene */
    int64_t replicates; /* wells a guide; each on another plate while there are as many */
    int64_t controls;   /* non-targeting wells a plate */
    int64_t plates;
    int64_t batches;    /* plates are dealt to batches in turn; at most `plates` */
    int64_t sites;      /* images a well */
    int64_t image_size; /* pixels, square; a cell is about 35 pixels wide */
    double strength;    /* of gene effects; 1 = normal */
    uint64_t seed;
} lam_synth_config;

lam_synth_config lam_synth_config_default(void);

typedef struct lam_synth_pathway {
    int64_t antagonist; /* pathway of the opposite direction; -1: none */
    int sign;           /* -1: the direction is that of its antagonist, reversed */
    double direction[LAM_SYNTH_PARAMETERS];
} lam_synth_pathway;

typedef struct lam_synth_gene {
    int64_t pathway; /* -1: no effect */
    double magnitude;
    double effect[LAM_SYNTH_PARAMETERS];
} lam_synth_gene;

typedef struct lam_synth_well {
    int64_t plate, batch;
    int64_t position; /* on the plate, row by row */
    int64_t gene;     /* -1: non-targeting control */
    int64_t guide;    /* of the gene, or of the controls, from 0 */
    double truth[LAM_SYNTH_PARAMETERS];
} lam_synth_well;

typedef struct lam_synth_screen {
    lam_synth_config config;
    int64_t pathway_count, well_count;
    int64_t plate_columns, plate_rows;
    lam_synth_pathway *pathways;
    lam_synth_gene *genes; /* [config.genes] */
    lam_synth_well *wells; /* plate by plate, by position */
} lam_synth_screen;

/* LAM_ERROR_USAGE where the configuration cannot be (more wells than a 1536-well plate holds, more batches
 * than plates). */
lam_status lam_synth_screen_create(lam_synth_screen **out, const lam_synth_config *config);
void lam_synth_screen_free(lam_synth_screen *screen);

bool lam_synth_related(const lam_synth_screen *screen, int64_t gene_a, int64_t gene_b);
/* "B07"; "AF48" at most. `text` holds 8 bytes. */
void lam_synth_well_name(const lam_synth_screen *screen, int64_t position, char text[8]);

/* A stream of its own for each (kind, index): what is drawn for one image does not move another. */
typedef enum lam_synth_stream_kind {
    LAM_SYNTH_STREAM_PATHWAYS,
    LAM_SYNTH_STREAM_GENE,
    LAM_SYNTH_STREAM_GUIDE,
    LAM_SYNTH_STREAM_LAYOUT,
    LAM_SYNTH_STREAM_WELL,
    LAM_SYNTH_STREAM_CELLS,
    LAM_SYNTH_STREAM_BATCH_CAMERA,
    LAM_SYNTH_STREAM_PLATE_CAMERA,
    LAM_SYNTH_STREAM_WELL_CAMERA,
    LAM_SYNTH_STREAM_NOISE
} lam_synth_stream_kind;
lam_rng lam_synth_stream(uint64_t seed, lam_synth_stream_kind kind, uint64_t index);

#ifdef __cplusplus
}
#endif
#endif
