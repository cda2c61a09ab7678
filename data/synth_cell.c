#include "data/synth_cell.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

const char *const lam_synth_channel_names[LAM_SYNTH_CHANNELS] = {"DNA", "ER", "RNA", "AGP", "Mito"};

#define PI 3.14159265358979
#define CELL_RADIUS 18.0
#define NUCLEUS_RADIUS 7.4
#define CELLS_PER_PIXEL (11.0 / (128.0 * 128.0))
#define CELL_SCATTER 0.28 /* of a cell's parameters around its well's */
#define OUTSIDE 14.0      /* centres lie up to this far outside the image */
enum { HARMONICS = 4, MAXIMUM_NUCLEOLI = 8 };

typedef struct lam_synth_cell {
    double x, y, radius, aspect, angle;
    double even[HARMONICS],
        odd[HARMONICS]; /* outline: radius x (1 + sum even cos(k t) + odd sin(k t)), k = 2.. */
    double nucleus_x, nucleus_y, nucleus_radius, nucleus_ratio, nucleus_angle;
    double cosine, sine, nucleus_cosine, nucleus_sine; /* of the angles */
    int nucleoli;
    double nucleolus_x[MAXIMUM_NUCLEOLI], nucleolus_y[MAXIMUM_NUCLEOLI], nucleolus_radius;
    double z[LAM_SYNTH_PARAMETERS];
    uint32_t texture; /* seed of its noise */
    lam_rng rng;
    int64_t left, top, right, bottom; /* box on the canvas, right and bottom exclusive */
    double area;                      /* pixels owned */
} lam_synth_cell;

static double clamp(double v, double low, double high) { return v < low ? low : v > high ? high : v; }
static double sigmoid(double v) { return 1 / (1 + exp(-v)); }
static double between(lam_rng *rng, double low, double high) {
    return low + (high - low) * lam_rng_uniform(rng);
}

/* Value noise in 0..1: random values on a unit lattice, joined smoothly. */
static float lattice(int32_t x, int32_t y, uint32_t seed) {
    uint32_t h = (uint32_t)x * 0x9E3779B1u ^ (uint32_t)y * 0x85EBCA77u ^ seed;
    h ^= h >> 15;
    h *= 0x2C1B3C6Du;
    h ^= h >> 12;
    h *= 0x297A2D39u;
    h ^= h >> 15;
    return (float)(h >> 8) * (1.0f / 16777216.0f);
}
static float noise(double x, double y, uint32_t seed) {
    double fx = floor(x), fy = floor(y);
    float u = (float)(x - fx), v = (float)(y - fy);
    int32_t ix = (int32_t)fx, iy = (int32_t)fy;
    u = u * u * (3 - 2 * u);
    v = v * v * (3 - 2 * v);
    float a = lattice(ix, iy, seed), b = lattice(ix + 1, iy, seed);
    float c = lattice(ix, iy + 1, seed), d = lattice(ix + 1, iy + 1, seed);
    return (a + (b - a) * u) * (1 - v) + (c + (d - c) * u) * v;
}

static void shape_cell(lam_synth_cell *cell, const double *truth) {
    lam_rng *rng = &cell->rng;
    for (int k = 0; k < LAM_SYNTH_PARAMETERS; k++) {
        double z = truth[k] + CELL_SCATTER * lam_rng_normal(rng);
        cell->z[k] = 3 * tanh(z / 3); /* nothing grows without bound */
    }
    const double *z = cell->z;
    cell->radius = CELL_RADIUS * exp(0.16 * z[LAM_SYNTH_CELL_AREA] + 0.06 * lam_rng_normal(rng));
    cell->aspect = 1 + 0.34 * exp(0.80 * z[LAM_SYNTH_CELL_ELONGATION]);
    if (cell->aspect > 3) cell->aspect = 3;
    cell->angle = between(rng, 0, PI);
    double ruffle = 0.075 * exp(0.6 * z[LAM_SYNTH_MEMBRANE_RUFFLING]);
    for (int h = 0; h < HARMONICS; h++) {
        double wave = ruffle * between(rng, 0.3, 1.3) * (h < 2 ? 1.0 : 0.8), phase = between(rng, 0, 2 * PI);
        cell->even[h] = wave * cos(phase);
        cell->odd[h] = -wave * sin(phase);
    }
    cell->nucleus_radius =
        NUCLEUS_RADIUS * exp(0.21 * z[LAM_SYNTH_NUCLEUS_AREA] + 0.04 * lam_rng_normal(rng));
    double widest = 0.62 * cell->radius / sqrt(cell->aspect);
    if (cell->nucleus_radius > widest) cell->nucleus_radius = 0.5 * (cell->nucleus_radius + widest);
    cell->nucleus_ratio = 0.40 + 0.58 * sigmoid(1.1 - 1.3 * z[LAM_SYNTH_NUCLEUS_ECCENTRICITY]);
    cell->nucleus_angle = cell->angle + 0.4 * lam_rng_normal(rng);
    double off = 0.16 * cell->radius * sqrt(lam_rng_uniform(rng)), way = between(rng, 0, 2 * PI);
    cell->cosine = cos(cell->angle);
    cell->sine = sin(cell->angle);
    cell->nucleus_cosine = cos(cell->nucleus_angle);
    cell->nucleus_sine = sin(cell->nucleus_angle);
    cell->nucleus_x = cell->x + off * cos(way);
    cell->nucleus_y = cell->y + off * sin(way);
    cell->nucleoli = (int)clamp(floor(2.6 * exp(0.5 * z[LAM_SYNTH_NUCLEOLI_NUMBER]) + lam_rng_uniform(rng)),
                                0, MAXIMUM_NUCLEOLI);
    cell->nucleolus_radius = 1.15 * exp(0.28 * z[LAM_SYNTH_NUCLEOLI_SIZE]);
    for (int i = 0; i < cell->nucleoli; i++) {
        double r = 0.68 * cell->nucleus_radius * sqrt(lam_rng_uniform(rng)), t = between(rng, 0, 2 * PI);
        double u = r * cos(t) / sqrt(cell->nucleus_ratio), v = r * sin(t) * sqrt(cell->nucleus_ratio);
        cell->nucleolus_x[i] = cell->nucleus_x + u * cell->nucleus_cosine - v * cell->nucleus_sine;
        cell->nucleolus_y[i] = cell->nucleus_y + u * cell->nucleus_sine + v * cell->nucleus_cosine;
    }
    cell->texture = lam_rng_word(rng);
}

/* Distance to the cell's centre as a share of its outline's radius in that direction. */
static double cell_reach(const lam_synth_cell *cell, double x, double y) {
    double c = cell->cosine, s = cell->sine, dx = x - cell->x, dy = y - cell->y;
    double u = (c * dx + s * dy) / sqrt(cell->aspect), v = (c * dy - s * dx) * sqrt(cell->aspect);
    double r = sqrt(u * u + v * v);
    if (r < 0.5 * cell->radius || r > 1.9 * cell->radius) return r / cell->radius;
    /* cos(k t) and sin(k t) by the addition theorem. */
    double cosine = u / r, sine = v / r, ck = cosine, sk = sine, outline = 1;
    for (int h = 0; h < HARMONICS; h++) {
        double next = ck * cosine - sk * sine;
        sk = sk * cosine + ck * sine;
        ck = next;
        outline += cell->even[h] * ck + cell->odd[h] * sk;
    }
    return r / (cell->radius * fmax(outline, 0.55));
}

/* 1 on the nuclear envelope, 0 in the middle. */
static double nucleus_reach(const lam_synth_cell *cell, double x, double y) {
    double c = cell->nucleus_cosine, s = cell->nucleus_sine;
    double dx = x - cell->nucleus_x, dy = y - cell->nucleus_y;
    double q = sqrt(cell->nucleus_ratio), u = (c * dx + s * dy) * q, v = (c * dy - s * dx) / q;
    return sqrt(u * u + v * v) / cell->nucleus_radius;
}

/* Centres by dart throwing: cells keep a distance that shrinks where the field is full. */
static lam_status place_cells(lam_synth_field *field, const lam_synth_screen *screen, const double *truth,
                              lam_rng *rng, uint64_t stream) {
    double size = (double)screen->config.image_size, span = size + 2 * OUTSIDE;
    double crowd = 3 * tanh(truth[LAM_SYNTH_CELL_COUNT] / 3);
    double expected = CELLS_PER_PIXEL * span * span * exp(0.22 * crowd);
    int64_t count = (int64_t)fmax(1, floor(expected * (1 + 0.10 * lam_rng_normal(rng)) + 0.5));
    if (count > 30000) count = 30000;
    if (count > field->list_capacity) {
        lam_free(field->list);
        field->list = NULL;
        field->list_capacity = 0;
        LAM_TRY(lam_alloc_array((void **)&field->list, count, sizeof *field->list));
        field->list_capacity = count;
    }
    double distance = 31;
    int64_t failures = 0;
    field->cells = 0;
    while (field->cells < count) {
        double x = LAM_SYNTH_MARGIN + between(rng, -OUTSIDE, size + OUTSIDE);
        double y = LAM_SYNTH_MARGIN + between(rng, -OUTSIDE, size + OUTSIDE);
        bool free_place = true;
        for (int64_t i = 0; i < field->cells && free_place; i++)
            free_place = hypot(x - field->list[i].x, y - field->list[i].y) >= distance;
        if (!free_place) {
            if (++failures % 40 == 0) distance *= 0.96;
            continue;
        }
        lam_synth_cell *cell = &field->list[field->cells];
        *cell = (lam_synth_cell){.x = x, .y = y};
        cell->rng = lam_synth_stream(screen->config.seed, LAM_SYNTH_STREAM_CELLS,
                                     (stream << 16) + 1 + (uint64_t)field->cells);
        shape_cell(cell, truth);
        field->cells++;
    }
    return LAM_OK;
}

/* Cells meet at a border where both are as near: each pixel has one owner. */
static void divide_field(lam_synth_field *field) {
    int64_t n = field->canvas;
    for (int64_t i = 0; i < n * n; i++) {
        field->reach[i] = 2;
        field->layer[i] = 2; /* the second nearest */
        field->owners[i] = -1;
    }
    for (int64_t c = 0; c < field->cells; c++) {
        lam_synth_cell *cell = &field->list[c];
        double extent = cell->radius * sqrt(cell->aspect) * 1.45 + 2;
        cell->left = (int64_t)clamp(floor(cell->x - extent), 0, (double)n);
        cell->right = (int64_t)clamp(ceil(cell->x + extent), 0, (double)n);
        cell->top = (int64_t)clamp(floor(cell->y - extent), 0, (double)n);
        cell->bottom = (int64_t)clamp(ceil(cell->y + extent), 0, (double)n);
        for (int64_t y = cell->top; y < cell->bottom; y++)
            for (int64_t x = cell->left; x < cell->right; x++) {
                float reach = (float)cell_reach(cell, (double)x, (double)y);
                int64_t at = y * n + x;
                if (reach < field->reach[at]) {
                    field->layer[at] = field->reach[at];
                    field->reach[at] = reach;
                    if (reach < 1) field->owners[at] = (int16_t)c;
                } else if (reach < field->layer[at]) {
                    field->layer[at] = reach;
                }
            }
    }
    for (int64_t i = 0; i < n * n; i++) {
        field->edge[i] = 0;
        if (field->owners[i] < 0) continue;
        double rim = fmin(1 - (double)field->reach[i], 0.7 * (double)(field->layer[i] - field->reach[i]));
        field->edge[i] = (float)clamp(rim / 0.10, 0, 1);
        field->list[field->owners[i]].area += (double)field->edge[i];
    }
}

/* ---- layers of one cell ---- */

static void clear_layer(lam_synth_field *field, const lam_synth_cell *cell) {
    for (int64_t y = cell->top; y < cell->bottom; y++)
        memset(field->layer + y * field->canvas + cell->left, 0,
               sizeof(float) * (size_t)(cell->right - cell->left));
}

/* Adds the layer, scaled to `amount` in all, to a channel; an empty layer adds nothing. */
static void add_layer(lam_synth_field *field, const lam_synth_cell *cell, lam_synth_channel channel,
                      double amount) {
    double sum = 0;
    float *plane = lam_synth_field_plane(field, channel);
    for (int64_t y = cell->top; y < cell->bottom; y++)
        for (int64_t x = cell->left; x < cell->right; x++) sum += (double)field->layer[y * field->canvas + x];
    if (sum <= 0) return;
    float scale = (float)(amount / sum);
    for (int64_t y = cell->top; y < cell->bottom; y++)
        for (int64_t x = cell->left; x < cell->right; x++)
            plane[y * field->canvas + x] += scale * field->layer[y * field->canvas + x];
}

/* A soft spot on the pixels of the cell. */
static void spot(lam_synth_field *field, const lam_synth_cell *cell, double x, double y, double sigma,
                 double weight) {
    enum { WIDEST = 17 };
    float across[WIDEST];
    int64_t n = field->canvas, reach = (int64_t)ceil(2.5 * sigma);
    if (reach > (WIDEST - 1) / 2) reach = (WIDEST - 1) / 2;
    int64_t cx = (int64_t)floor(x + 0.5), cy = (int64_t)floor(y + 0.5), owner = cell - field->list;
    double k = -0.5 / (sigma * sigma);
    for (int64_t i = -reach; i <= reach; i++) {
        double d = (double)(cx + i) - x;
        across[i + reach] = (float)exp(k * d * d);
    }
    for (int64_t j = cy - reach; j <= cy + reach; j++) {
        if (j < cell->top || j >= cell->bottom) continue;
        double d = (double)j - y;
        float down = (float)(weight * exp(k * d * d));
        for (int64_t i = cx - reach; i <= cx + reach; i++) {
            if (i < cell->left || i >= cell->right || field->owners[j * n + i] != owner) continue;
            field->layer[j * n + i] += down * across[i - cx + reach] * field->edge[j * n + i];
        }
    }
}

static bool inside(const lam_synth_field *field, const lam_synth_cell *cell, double x, double y) {
    int64_t ix = (int64_t)floor(x + 0.5), iy = (int64_t)floor(y + 0.5);
    if (ix < cell->left || ix >= cell->right || iy < cell->top || iy >= cell->bottom) return false;
    return field->owners[iy * field->canvas + ix] == cell - field->list;
}

/* A point of the cell at `share` of the way from the nuclear envelope to the outline, in a random direction.
 */
static bool cytoplasm_point(const lam_synth_field *field, const lam_synth_cell *cell, lam_rng *rng,
                            double share, double *x, double *y) {
    double t = between(rng, 0, 2 * PI), c = cos(t), s = sin(t), from = 0, to = 0;
    for (double r = 1; r < 60; r += 1) {
        double px = cell->nucleus_x + r * c, py = cell->nucleus_y + r * s;
        if (nucleus_reach(cell, px, py) < 1.05) from = r;
        if (!inside(field, cell, px, py)) break;
        to = r;
    }
    if (to <= from) return false;
    *x = cell->nucleus_x + (from + share * (to - from)) * c;
    *y = cell->nucleus_y + (from + share * (to - from)) * s;
    return true;
}

static double vary(lam_rng *rng, double deviation) { return exp(deviation * lam_rng_normal(rng)); }

static void draw_dna(lam_synth_field *field, lam_synth_cell *cell) {
    int64_t n = field->canvas;
    const double *z = cell->z;
    double grain = clamp(0.34 * exp(0.6 * z[LAM_SYNTH_CHROMATIN_GRANULARITY]), 0, 1.15);
    double pitch = 2.3 * exp(0.12 * z[LAM_SYNTH_CHROMATIN_GRANULARITY]);
    clear_layer(field, cell);
    for (int64_t y = cell->top; y < cell->bottom; y++)
        for (int64_t x = cell->left; x < cell->right; x++) {
            double reach = nucleus_reach(cell, (double)x, (double)y);
            if (reach > 1.1) continue;
            double soft = clamp((1.08 - reach) / 0.16, 0, 1);
            double texture =
                0.65 * (double)noise((double)x / pitch, (double)y / pitch, cell->texture) +
                0.35 * (double)noise((double)x / (2.3 * pitch), (double)y / (2.3 * pitch), cell->texture + 1);
            double light = fmax(0.08, 1 + grain * 4 * (texture - 0.5)) * (0.92 + 0.15 * reach);
            for (int i = 0; i < cell->nucleoli; i++) {
                double dx = (double)x - cell->nucleolus_x[i], dy = (double)y - cell->nucleolus_y[i];
                double w = cell->nucleolus_radius * 1.1;
                light *= 1 - 0.65 * exp(-0.5 * (dx * dx + dy * dy) / (w * w));
            }
            field->layer[y * n + x] = (float)(soft * light);
        }
    add_layer(field, cell, LAM_SYNTH_DNA,
              330 * PI * cell->nucleus_radius * cell->nucleus_radius * vary(&cell->rng, 0.2));
}

static void draw_er(lam_synth_field *field, lam_synth_cell *cell) {
    int64_t n = field->canvas, owner = cell - field->list;
    double length = 4.6 * exp(0.5 * cell->z[LAM_SYNTH_ER_EXTENT]);
    double net = sigmoid(-0.2 + 1.3 * cell->z[LAM_SYNTH_ER_RETICULATION]);
    clear_layer(field, cell);
    for (int64_t y = cell->top; y < cell->bottom; y++)
        for (int64_t x = cell->left; x < cell->right; x++) {
            if (field->owners[y * n + x] != owner) continue;
            double reach = nucleus_reach(cell, (double)x, (double)y),
                   away = (reach - 1) * cell->nucleus_radius;
            double light = away < 0 ? 0.28 + 0.5 * exp(away / 1.2) : exp(-away / length) + 0.10;
            double wx = (double)x + 2.5 * (double)noise((double)x / 6, (double)y / 6, cell->texture + 2);
            double wy = (double)y + 2.5 * (double)noise((double)x / 6, (double)y / 6, cell->texture + 3);
            double ridge = 1 - fabs(2 * (double)noise(wx / 4.6, wy / 4.6, cell->texture + 4) - 1);
            double smooth = 0.8 + 0.4 * (double)noise((double)x / 7, (double)y / 7, cell->texture + 5);
            light *= (1 - net) * smooth + net * 2.1 * ridge * ridge * ridge * ridge;
            field->layer[y * n + x] = (float)light * field->edge[y * n + x];
        }
    add_layer(field, cell, LAM_SYNTH_ER,
              150 * cell->area * exp(0.16 * cell->z[LAM_SYNTH_ER_AMOUNT]) * vary(&cell->rng, 0.15));
}

static void draw_rna(lam_synth_field *field, lam_synth_cell *cell) {
    int64_t n = field->canvas, owner = cell - field->list;
    lam_rng *rng = &cell->rng;
    double amount = 140 * cell->area * vary(rng, 0.15),
           granule_share = 0.10 * exp(0.6 * cell->z[LAM_SYNTH_RNA_GRANULES]);
    granule_share = fmin(granule_share, 0.4);
    clear_layer(field, cell);
    for (int64_t y = cell->top; y < cell->bottom; y++)
        for (int64_t x = cell->left; x < cell->right; x++) {
            if (field->owners[y * n + x] != owner) continue;
            double reach = nucleus_reach(cell, (double)x, (double)y),
                   away = (reach - 1) * cell->nucleus_radius;
            double light = away < 0 ? 0.55 : exp(-away / 9) + 0.15;
            light *= 0.65 + 0.7 * (double)noise((double)x / 3.2, (double)y / 3.2, cell->texture + 6);
            field->layer[y * n + x] = (float)light * field->edge[y * n + x];
        }
    add_layer(field, cell, LAM_SYNTH_RNA, amount * (1 - granule_share));
    clear_layer(field, cell);
    for (int i = 0; i < cell->nucleoli; i++)
        spot(field, cell, cell->nucleolus_x[i], cell->nucleolus_y[i], cell->nucleolus_radius, 1);
    /* Their light follows their size: concentration is kept. */
    add_layer(field, cell, LAM_SYNTH_RNA,
              330 * 2 * PI * cell->nucleolus_radius * cell->nucleolus_radius * (double)cell->nucleoli);
    clear_layer(field, cell);
    int64_t granules = (int64_t)clamp(7 * exp(0.7 * cell->z[LAM_SYNTH_RNA_GRANULES]) + 0.5, 1, 40);
    for (int64_t i = 0; i < granules; i++) {
        double x, y;
        if (!cytoplasm_point(field, cell, rng, between(rng, 0.05, 0.9), &x, &y)) continue;
        spot(field, cell, x, y, 0.95, between(rng, 0.5, 1.5));
    }
    add_layer(field, cell, LAM_SYNTH_RNA, amount * granule_share);
}

/* Stress fibres: slightly bent lines through the cell, along one axis where they are ordered. */
static void draw_fibres(lam_synth_field *field, lam_synth_cell *cell, double amount) {
    lam_rng *rng = &cell->rng;
    double spread = clamp(0.55 * exp(-1.1 * cell->z[LAM_SYNTH_ACTIN_ORDER]), 0.04, 2.5);
    double axis = cell->angle + 0.15 * lam_rng_normal(rng);
    int64_t fibres = (int64_t)clamp(11 * exp(0.35 * cell->z[LAM_SYNTH_ACTIN_FIBRES]) + 0.5, 3, 30);
    clear_layer(field, cell);
    for (int64_t f = 0; f < fibres; f++) {
        double r = 0.8 * cell->radius * sqrt(lam_rng_uniform(rng)), t = between(rng, 0, 2 * PI);
        double a = axis + spread * lam_rng_normal(rng), bend = 0.012 * lam_rng_normal(rng);
        double half = cell->radius * between(rng, 0.5, 1.0), weight = between(rng, 0.5, 1.4);
        double x0 = cell->x + r * cos(t) * sqrt(cell->aspect), y0 = cell->y + r * sin(t) / sqrt(cell->aspect);
        double c = cell->cosine, s = cell->sine, dx = x0 - cell->x, dy = y0 - cell->y;
        x0 = cell->x + c * dx - s * dy;
        y0 = cell->y + s * dx + c * dy;
        for (int way = -1; way <= 1; way += 2) {
            double x = x0, y = y0;
            for (double l = 0; l < half; l += 0.8) {
                if (!inside(field, cell, x, y)) break;
                spot(field, cell, x, y, 0.62, weight);
                x += way * 0.8 * cos(a + way * bend * l);
                y += way * 0.8 * sin(a + way * bend * l);
            }
        }
    }
    add_layer(field, cell, LAM_SYNTH_AGP, amount);
}

static void draw_golgi(lam_synth_field *field, lam_synth_cell *cell, double amount) {
    lam_rng *rng = &cell->rng;
    double arc = clamp(0.62 * exp(-0.8 * cell->z[LAM_SYNTH_GOLGI_COMPACTNESS]), 0.10, 2.6);
    double depth = clamp(1.5 * exp(-0.5 * cell->z[LAM_SYNTH_GOLGI_COMPACTNESS]), 0.4, 5),
           axis = between(rng, 0, 2 * PI);
    clear_layer(field, cell);
    for (int i = 0; i < 12; i++) {
        double t = axis + arc * lam_rng_normal(rng), x = cell->nucleus_x, y = cell->nucleus_y, r = 1;
        while (r < 40 && nucleus_reach(cell, x + r * cos(t), y + r * sin(t)) < 1) r += 0.5;
        r += 2.0 + depth * fabs(lam_rng_normal(rng));
        x += r * cos(t);
        y += r * sin(t);
        if (inside(field, cell, x, y))
            spot(field, cell, x, y, between(rng, 0.8, 1.3), between(rng, 0.5, 1.5));
    }
    add_layer(field, cell, LAM_SYNTH_AGP, amount);
}

static void draw_agp(lam_synth_field *field, lam_synth_cell *cell) {
    int64_t n = field->canvas, owner = cell - field->list;
    double amount = 120 * cell->area * vary(&cell->rng, 0.15);
    double fibres = 0.62 * sigmoid(-0.1 + 1.1 * cell->z[LAM_SYNTH_ACTIN_FIBRES]);
    clear_layer(field, cell);
    for (int64_t y = cell->top; y < cell->bottom; y++)
        for (int64_t x = cell->left; x < cell->right; x++) {
            if (field->owners[y * n + x] != owner) continue;
            double rim = exp(-pow(((double)field->reach[y * n + x] - 0.90) / 0.07, 2));
            rim += exp(-pow(((double)field->edge[y * n + x] - 0.6) / 0.3, 2));
            double ruffled = (double)noise((double)x / 4, (double)y / 4, cell->texture + 7);
            double light = 0.4 + 0.25 * ruffled + (0.35 + 0.9 * ruffled) * rim;
            field->layer[y * n + x] = (float)light * field->edge[y * n + x];
        }
    add_layer(field, cell, LAM_SYNTH_AGP, amount * (0.84 - fibres));
    draw_fibres(field, cell, amount * fibres);
    draw_golgi(field, cell, amount * 0.16);
}

/* Mitochondria: threads of one total length, in long pieces (a network) or in short ones (fragments). */
static void draw_mitochondria(lam_synth_field *field, lam_synth_cell *cell) {
    lam_rng *rng = &cell->rng;
    const double *z = cell->z;
    double piece = clamp(11 * exp(-0.95 * z[LAM_SYNTH_MITO_FRAGMENTATION]), 1.0, 60),
           power = exp(-0.7 * z[LAM_SYNTH_MITO_SPREAD]);
    double whole = 0.17 * cell->area, drawn = 0,
           sigma = 0.80 + 0.12 * clamp(z[LAM_SYNTH_MITO_FRAGMENTATION], -1, 2);
    clear_layer(field, cell);
    for (int tries = 0; drawn < whole && tries < 400; tries++) {
        double x, y, share = 0.9 * pow(lam_rng_uniform(rng), 1.35 * power);
        if (!cytoplasm_point(field, cell, rng, share, &x, &y)) continue;
        double length = piece * between(rng, 0.6, 1.4),
               around = atan2(y - cell->nucleus_y, x - cell->nucleus_x);
        double heading = around + (lam_rng_below(rng, 2) ? 0.5 : -0.5) * PI + 0.7 * lam_rng_normal(rng),
               turn = 0;
        for (double l = 0; l < length; l += 0.9) {
            if (!inside(field, cell, x, y) || nucleus_reach(cell, x, y) < 0.95) break;
            spot(field, cell, x, y, sigma, 1);
            turn = 0.8 * turn + 0.11 * lam_rng_normal(rng);
            heading += turn;
            x += 0.9 * cos(heading);
            y += 0.9 * sin(heading);
            drawn += 0.9;
        }
    }
    double amount = 130 * cell->area * exp(0.16 * z[LAM_SYNTH_MITO_AMOUNT]) * vary(rng, 0.15);
    add_layer(field, cell, LAM_SYNTH_MITO, 0.85 * amount);
    clear_layer(field, cell);
    int64_t n = field->canvas, owner = cell - field->list;
    for (int64_t py = cell->top; py < cell->bottom; py++)
        for (int64_t px = cell->left; px < cell->right; px++)
            if (field->owners[py * n + px] == owner) field->layer[py * n + px] = field->edge[py * n + px];
    add_layer(field, cell, LAM_SYNTH_MITO, 0.15 * amount);
}

lam_status lam_synth_field_draw(lam_synth_field *field, const lam_synth_screen *screen, int64_t well,
                                int64_t site) {
    int64_t canvas = screen->config.image_size + 2 * LAM_SYNTH_MARGIN, pixels = canvas * canvas;
    if (field->canvas != canvas) {
        lam_synth_field_free(field);
        LAM_TRY(lam_alloc_array((void **)&field->planes, pixels * LAM_SYNTH_CHANNELS, sizeof(float)));
        LAM_TRY(lam_alloc_array((void **)&field->layer, pixels, sizeof(float)));
        LAM_TRY(lam_alloc_array((void **)&field->edge, pixels, sizeof(float)));
        LAM_TRY(lam_alloc_array((void **)&field->reach, pixels, sizeof(float)));
        LAM_TRY(lam_alloc_array((void **)&field->owners, pixels, sizeof(int16_t)));
        field->canvas = canvas;
    }
    memset(field->planes, 0, sizeof(float) * (size_t)(pixels * LAM_SYNTH_CHANNELS));
    uint64_t stream = (uint64_t)(well * screen->config.sites + site);
    lam_rng rng = lam_synth_stream(screen->config.seed, LAM_SYNTH_STREAM_CELLS, stream << 16);
    LAM_TRY(place_cells(field, screen, screen->wells[well].truth, &rng, stream));
    divide_field(field);
    for (int64_t c = 0; c < field->cells; c++) {
        lam_synth_cell *cell = &field->list[c];
        draw_dna(field, cell);
        draw_er(field, cell);
        draw_rna(field, cell);
        draw_agp(field, cell);
        draw_mitochondria(field, cell);
    }
    return LAM_OK;
}

float *lam_synth_field_plane(const lam_synth_field *field, lam_synth_channel channel) {
    return field->planes + (int64_t)channel * field->canvas * field->canvas;
}

void lam_synth_field_free(lam_synth_field *field) {
    lam_free(field->planes);
    lam_free(field->layer);
    lam_free(field->edge);
    lam_free(field->reach);
    lam_free(field->owners);
    lam_free(field->list);
    *field = (lam_synth_field){0};
}
