#include "data/synth_screen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

const char *const lam_synth_parameter_names[LAM_SYNTH_PARAMETERS] = {"nucleus_area",
                                                                     "nucleus_eccentricity",
                                                                     "chromatin_granularity",
                                                                     "nucleoli_number",
                                                                     "nucleoli_size",
                                                                     "er_extent",
                                                                     "er_reticulation",
                                                                     "rna_granules",
                                                                     "actin_fibres",
                                                                     "actin_order",
                                                                     "golgi_compactness",
                                                                     "mito_fragmentation",
                                                                     "mito_spread",
                                                                     "cell_area",
                                                                     "cell_elongation",
                                                                     "membrane_ruffling",
                                                                     "cell_count",
                                                                     "er_amount",
                                                                     "mito_amount"};

/* How often a pathway moves a parameter: mostly structure; how many cells and how bright is secondary. */
static const double parameter_weights[LAM_SYNTH_PARAMETERS] = {
    1.0, 0.6, 1.0, 0.6, 0.6, 1.0, 1.0, 1.0, 1.0, 0.8, 1.0, 1.0, 1.0, 0.7, 0.6, 0.5, 0.4, 0.25, 0.25};

/* Settled so that the recall of the true parameters at .05/.95 lies between 0.60 and 0.90 at strength 1
 * (tested). */
#define EFFECT_SCALE 3.2 /* length of a direction of magnitude 1 */
#define OWN_SHARE 0.60   /* length of a gene's own part beside its pathway's 1 */
#define OFF_TARGET_DEVIATION 0.18
#define WELL_DEVIATION 0.78
#define NONZERO_PARAMETERS 4  /* of a direction */
#define DIRECTION_COSINE 0.60 /* no two pathways nearer than this, while a draw can be found */
#define DIRECTION_DRAWS 64
#define RELATED_SHARE 0.024 /* of all pairs of genes: between 1 and 3 % */
#define ACTIVE_SHARE 0.85   /* at most, of the genes */

lam_synth_config lam_synth_config_default(void) {
    return (lam_synth_config){.genes = 96,
                              .guides = 2,
                              .replicates = 3,
                              .controls = 16,
                              .plates = 4,
                              .batches = 2,
                              .sites = 1,
                              .image_size = 192,
                              .strength = 1.0,
                              .seed = 0};
}

lam_rng lam_synth_stream(uint64_t seed, lam_synth_stream_kind kind, uint64_t index) {
    return lam_rng_stream(seed, LAM_RNG_SYNTH, ((uint64_t)kind << 48) | index);
}

/* A unit vector with few non-zero parameters, drawn by weight without replacement. */
static void draw_direction(lam_rng *rng, double direction[LAM_SYNTH_PARAMETERS]) {
    memset(direction, 0, sizeof(double) * LAM_SYNTH_PARAMETERS);
    double norm = 0;
    for (int chosen = 0; chosen < NONZERO_PARAMETERS; chosen++) {
        double total = 0;
        for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++)
            if (direction[k] == 0) total += parameter_weights[k];
        double at = lam_rng_uniform(rng) * total;
        int pick = -1;
        for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++) {
            if (direction[k] != 0) continue;
            pick = k;
            at -= parameter_weights[k];
            if (at < 0) break;
        }
        double size = 0.6 + 0.8 * lam_rng_uniform(rng);
        direction[pick] = lam_rng_below(rng, 2) ? size : -size;
        norm += size * size;
    }
    for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++) direction[k] /= sqrt(norm);
}

static double dot(const double *a, const double *b) {
    double sum = 0;
    for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++) sum += a[k] * b[k];
    return sum;
}

/* A direction that is far from those there are: the farthest of the draws where none is far enough. */
static void add_pathway(lam_synth_screen *screen, lam_rng *rng) {
    lam_synth_pathway *pathway = &screen->pathways[screen->pathway_count];
    double best = 2;
    for (int draw = 0; draw < DIRECTION_DRAWS && best > DIRECTION_COSINE; draw++) {
        double direction[LAM_SYNTH_PARAMETERS], nearest = 0;
        draw_direction(rng, direction);
        for (int64_t p = 0; p < screen->pathway_count; p++)
            nearest = fmax(nearest, fabs(dot(direction, screen->pathways[p].direction)));
        if (nearest < best) {
            best = nearest;
            memcpy(pathway->direction, direction, sizeof direction);
        }
    }
    pathway->antagonist = -1;
    pathway->sign = 1;
    screen->pathway_count++;
}

static void add_antagonist(lam_synth_screen *screen) {
    int64_t p = screen->pathway_count - 1;
    for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++)
        screen->pathways[p + 1].direction[k] = -screen->pathways[p].direction[k];
    screen->pathways[p].antagonist = p + 1;
    screen->pathways[p + 1].antagonist = p;
    screen->pathways[p + 1].sign = -1;
    screen->pathway_count++;
}

/* Genes are dealt to modules (a pathway, or a pathway and its antagonist) until the share of related pairs or
 * of active genes is spent; the others have no effect. */
static void make_pathways(lam_synth_screen *screen) {
    static const int64_t modules[][2] = {{4, 0}, {3, 0}, {3, 2}, {3, 0}};
    int64_t genes = screen->config.genes, used = 0, related = 0,
            active = (int64_t)(ACTIVE_SHARE * (double)genes);
    /* Among more genes a pathway must be larger for the same share of pairs. */
    int64_t scale = (genes + 48) / 144 > 1 ? (genes + 48) / 144 : 1;
    double most = RELATED_SHARE * (double)(genes * (genes - 1) / 2);
    lam_rng rng = lam_synth_stream(screen->config.seed, LAM_SYNTH_STREAM_PATHWAYS, 0);
    for (int64_t g = 0; g < genes; g++) screen->genes[g].pathway = -1;
    for (int64_t m = 0;; m = (m + 1) % 4) {
        int64_t a = scale * modules[m][0], b = scale * modules[m][1], pairs = (a + b) * (a + b - 1) / 2;
        /* The first module comes in any case: the smallest screen has a relationship too. */
        if (used > 0 && (used + a + b > active || (double)(related + pairs) > most)) break;
        for (int64_t i = 0; i < a; i++) screen->genes[used + i].pathway = screen->pathway_count;
        add_pathway(screen, &rng);
        if (b > 0) {
            for (int64_t i = 0; i < b; i++) screen->genes[used + a + i].pathway = screen->pathway_count;
            add_antagonist(screen);
        }
        used += a + b;
        related += pairs;
    }
    /* Names say nothing about pathways: genes are shuffled. */
    for (int64_t g = genes - 1; g > 0; g--) {
        int64_t other = lam_rng_below(&rng, (uint32_t)(g + 1)), pathway = screen->genes[g].pathway;
        screen->genes[g].pathway = screen->genes[other].pathway;
        screen->genes[other].pathway = pathway;
    }
}

static void make_genes(lam_synth_screen *screen) {
    for (int64_t g = 0; g < screen->config.genes; g++) {
        lam_synth_gene *gene = &screen->genes[g];
        if (gene->pathway < 0) continue;
        lam_rng rng = lam_synth_stream(screen->config.seed, LAM_SYNTH_STREAM_GENE, (uint64_t)g);
        /* From weak to strong: the recall falls off gene by gene, not for all at once. */
        gene->magnitude = 0.25 + 1.0 * lam_rng_uniform(&rng);
        double own[LAM_SYNTH_PARAMETERS], norm = 0;
        for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++) {
            own[k] = lam_rng_normal(&rng) * parameter_weights[k];
            norm += own[k] * own[k];
        }
        double scale = screen->config.strength * EFFECT_SCALE * gene->magnitude;
        for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++)
            gene->effect[k] =
                scale * (screen->pathways[gene->pathway].direction[k] + OWN_SHARE * own[k] / sqrt(norm));
    }
}

static int by_place(const void *a, const void *b) {
    const lam_synth_well *x = a, *y = b;
    if (x->plate != y->plate) return x->plate < y->plate ? -1 : 1;
    return (x->position > y->position) - (x->position < y->position);
}

/* Replicates of a guide go to different plates (a guide starts on a random one); positions are drawn. */
static lam_status make_layout(lam_synth_screen *screen) {
    const lam_synth_config *c = &screen->config;
    int64_t *filled = NULL, *places = NULL, w = 0, largest = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&filled, c->plates, sizeof *filled), done);
    for (int64_t item = 0; item < c->genes * c->guides; item++)
        for (int64_t r = 0; r < c->replicates; r++, w++)
            screen->wells[w] = (lam_synth_well){
                .plate = (item + r) % c->plates, .gene = item / c->guides, .guide = item % c->guides};
    for (int64_t plate = 0; plate < c->plates; plate++)
        for (int64_t r = 0; r < c->controls; r++, w++)
            screen->wells[w] = (lam_synth_well){.plate = plate, .gene = -1, .guide = r % (2 * c->guides)};
    for (int64_t i = 0; i < w; i++) {
        lam_synth_well *well = &screen->wells[i];
        well->batch = well->plate % c->batches;
        well->position = filled[well->plate]++;
        if (filled[well->plate] > largest) largest = filled[well->plate];
    }
    static const int64_t formats[][2] = {{8, 12}, {16, 24}, {32, 48}};
    int format = largest <= 96 ? 0 : largest <= 384 ? 1 : 2;
    int64_t capacity = formats[format][0] * formats[format][1];
    LAM_REQUIRE_GOTO(
        largest <= capacity, done, LAM_ERROR_USAGE,
        "%lld wells a plate do not fit 1536: more --plates, or fewer --genes, --replicates or --controls",
        (long long)largest);
    screen->plate_rows = formats[format][0];
    screen->plate_columns = formats[format][1];
    LAM_TRY_GOTO(lam_alloc_array((void **)&places, capacity, sizeof *places), done);
    for (int64_t plate = 0; plate < c->plates; plate++) {
        lam_rng rng = lam_synth_stream(c->seed, LAM_SYNTH_STREAM_LAYOUT, (uint64_t)plate);
        for (int64_t i = 0; i < capacity; i++) places[i] = i;
        for (int64_t i = capacity - 1; i > 0; i--) {
            int64_t other = lam_rng_below(&rng, (uint32_t)(i + 1)), place = places[i];
            places[i] = places[other];
            places[other] = place;
        }
        for (int64_t i = 0; i < w; i++)
            if (screen->wells[i].plate == plate)
                screen->wells[i].position = places[screen->wells[i].position];
    }
    qsort(screen->wells, (size_t)w, sizeof *screen->wells, by_place);
done:
    lam_free(filled);
    lam_free(places);
    return status;
}

static void make_truth(lam_synth_screen *screen) {
    const lam_synth_config *c = &screen->config;
    for (int64_t w = 0; w < screen->well_count; w++) {
        lam_synth_well *well = &screen->wells[w];
        uint64_t guide = well->gene < 0 ? ((uint64_t)1 << 40) + (uint64_t)well->guide
                                        : (uint64_t)(well->gene * c->guides + well->guide);
        lam_rng guide_rng = lam_synth_stream(c->seed, LAM_SYNTH_STREAM_GUIDE, guide);
        lam_rng well_rng = lam_synth_stream(c->seed, LAM_SYNTH_STREAM_WELL, (uint64_t)w);
        double efficiency = 0.75 + 0.5 * lam_rng_uniform(&guide_rng);
        for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++)
            well->truth[k] = (well->gene < 0 ? 0 : efficiency * screen->genes[well->gene].effect[k]) +
                             OFF_TARGET_DEVIATION * lam_rng_normal(&guide_rng) +
                             WELL_DEVIATION * lam_rng_normal(&well_rng);
    }
}

lam_status lam_synth_screen_create(lam_synth_screen **out, const lam_synth_config *config) {
    *out = NULL;
    LAM_REQUIRE(config->genes >= 4, LAM_ERROR_USAGE, "--genes is %lld: at least 4", (long long)config->genes);
    LAM_REQUIRE(config->batches <= config->plates, LAM_ERROR_USAGE,
                "--batches %lld is more than --plates %lld: a batch holds at least one plate",
                (long long)config->batches, (long long)config->plates);
    lam_synth_screen *screen = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc((void **)&screen, sizeof *screen));
    screen->config = *config;
    screen->well_count =
        config->genes * config->guides * config->replicates + config->plates * config->controls;
    LAM_TRY_GOTO(lam_alloc_array((void **)&screen->pathways, config->genes, sizeof *screen->pathways),
                 failed);
    LAM_TRY_GOTO(lam_alloc_array((void **)&screen->genes, config->genes, sizeof *screen->genes), failed);
    LAM_TRY_GOTO(lam_alloc_array((void **)&screen->wells, screen->well_count, sizeof *screen->wells), failed);
    make_pathways(screen);
    make_genes(screen);
    LAM_TRY_GOTO(make_layout(screen), failed);
    make_truth(screen);
    *out = screen;
    return LAM_OK;
failed:
    lam_synth_screen_free(screen);
    return status;
}

void lam_synth_screen_free(lam_synth_screen *screen) {
    if (!screen) return;
    lam_free(screen->pathways);
    lam_free(screen->genes);
    lam_free(screen->wells);
    lam_free(screen);
}

bool lam_synth_related(const lam_synth_screen *screen, int64_t gene_a, int64_t gene_b) {
    int64_t p = screen->genes[gene_a].pathway, q = screen->genes[gene_b].pathway;
    if (gene_a == gene_b || p < 0 || q < 0) return false;
    return p == q || screen->pathways[p].antagonist == q;
}

void lam_synth_well_name(const lam_synth_screen *screen, int64_t position, char text[8]) {
    unsigned row = (unsigned)(position / screen->plate_columns) % 52,
             column = (unsigned)(position % screen->plate_columns) + 1;
    char *at = text;
    if (row >= 26) *at++ = 'A';
    *at++ = (char)('A' + row % 26);
    *at++ = (char)('0' + column / 10 % 10);
    *at++ = (char)('0' + column % 10);
    *at = 0;
}
