#include "data/statistics.h"

#include <math.h>
#include <pthread.h>

#include "base/memory.h"

enum { VALUES = 65536 };

static const int depths[LAM_SUMS_DEPTHS] = {8, 10, 12, 14, 16};
static uint64_t root_table[VALUES];
static uint32_t log_table[LAM_SUMS_DEPTHS][VALUES];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void) {
    for (int v = 0; v < VALUES; v++) {
        root_table[v] = (uint64_t)llround(ldexp(sqrt((double)v), 40));
        for (int d = 0; d < LAM_SUMS_DEPTHS; d++) {
            double x = (double)v / (double)((1 << depths[d]) - 1);
            log_table[d][v] = (uint32_t)llround(ldexp(log1p(1023.0 * (x > 1.0 ? 1.0 : x)) / log(1024.0), 30));
        }
    }
}

int lam_bits_for(uint32_t maximum) {
    for (int d = 0; d < LAM_SUMS_DEPTHS; d++)
        if (maximum < 1u << depths[d]) return depths[d];
    return 16;
}

lam_status lam_sums_add_plane(lam_sums *sums, const void *pixels, int64_t count, lam_pixel_type type,
                              uint32_t *maximum) {
    uint32_t *histogram = NULL, largest = 0;
    const uint8_t *narrow = pixels;
    const uint16_t *wide = pixels;
    pthread_once(&tables_once, make_tables);
    for (int64_t i = 0; i < count; i++) {
        uint32_t v = type == LAM_PIXEL_U8 ? narrow[i] : wide[i];
        if (v > largest) largest = v;
    }
    LAM_TRY(lam_alloc_array((void **)&histogram, (int64_t)largest + 1, sizeof *histogram));
    for (int64_t i = 0; i < count; i++) histogram[type == LAM_PIXEL_U8 ? narrow[i] : wide[i]]++;
    for (uint32_t v = 0; v <= largest; v++) {
        uint64_t n = histogram[v];
        if (n == 0) continue;
        sums->sum += (lam_wide)n * v;
        sums->square += (lam_wide)n * ((uint64_t)v * v);
        sums->root += (lam_wide)n * root_table[v];
        for (int d = 0; d < LAM_SUMS_DEPTHS; d++) {
            uint64_t l = log_table[d][v];
            sums->log[d] += (lam_wide)n * l;
            sums->log_square[d] += (lam_wide)n * (l * l);
        }
    }
    sums->count += (uint64_t)count;
    if (largest > *maximum) *maximum = largest;
    lam_free(histogram);
    return LAM_OK;
}

void lam_sums_merge(lam_sums *sums, const lam_sums *other) {
    sums->count += other->count;
    sums->sum += other->sum;
    sums->square += other->square;
    sums->root += other->root;
    for (int d = 0; d < LAM_SUMS_DEPTHS; d++) {
        sums->log[d] += other->log[d];
        sums->log_square[d] += other->log_square[d];
    }
}

void lam_sums_finish(const lam_sums *sums, int bits, lam_transform transform, double *mean,
                     double *deviation) {
    *mean = 0.0;
    *deviation = 1.0;
    if (sums->count == 0) return;
    long double n = (long double)sums->count, scale = 1.0L / (long double)((1 << bits) - 1), first, second;
    if (transform == LAM_TRANSFORM_LOG) {
        int d = 0;
        while (d < LAM_SUMS_DEPTHS - 1 && depths[d] != bits) d++;
        first = ldexpl((long double)sums->log[d], -30) / n;
        second = ldexpl((long double)sums->log_square[d], -60) / n;
    } else if (transform == LAM_TRANSFORM_SQRT) {
        first = ldexpl((long double)sums->root, -40) / n * sqrtl(scale);
        second = (long double)sums->sum / n * scale;
    } else {
        first = (long double)sums->sum / n * scale;
        second = (long double)sums->square / n * scale * scale;
    }
    long double variance = second - first * first;
    *mean = (double)first;
    *deviation = variance > 0.0L ? (double)sqrtl(variance) : 0.0;
}

static unsigned char *store_wide(unsigned char *at, lam_wide value) {
    for (int i = 0; i < 16; i++) at[i] = (unsigned char)(value >> (8 * i));
    return at + 16;
}

static const unsigned char *load_wide(const unsigned char *at, lam_wide *value) {
    *value = 0;
    for (int i = 15; i >= 0; i--) *value = *value << 8 | at[i];
    return at + 16;
}

void lam_sums_store(const lam_sums *sums, unsigned char bytes[LAM_SUMS_BYTES]) {
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(sums->count >> (8 * i));
    unsigned char *at = store_wide(store_wide(store_wide(bytes + 8, sums->sum), sums->square), sums->root);
    for (int d = 0; d < LAM_SUMS_DEPTHS; d++) at = store_wide(at, sums->log[d]);
    for (int d = 0; d < LAM_SUMS_DEPTHS; d++) at = store_wide(at, sums->log_square[d]);
}

void lam_sums_load(lam_sums *sums, const unsigned char bytes[LAM_SUMS_BYTES]) {
    sums->count = 0;
    for (int i = 7; i >= 0; i--) sums->count = sums->count << 8 | bytes[i];
    const unsigned char *at =
        load_wide(load_wide(load_wide(bytes + 8, &sums->sum), &sums->square), &sums->root);
    for (int d = 0; d < LAM_SUMS_DEPTHS; d++) at = load_wide(at, &sums->log[d]);
    for (int d = 0; d < LAM_SUMS_DEPTHS; d++) at = load_wide(at, &sums->log_square[d]);
}
