/* Products of bfloat16 pairs in AMX tiles: a tile is 16 rows of 16 words, tdpbf16ps adds the product of two to a third. */
#ifndef LAMELLA_MODEL_CPU_ATTENTION_AMX
#define LAMELLA_MODEL_CPU_ATTENTION_AMX

#define TILE_SIDE 16 /* rows, and words of a row */

/* Around the work of a thread: the shape of the tiles, all of them full; released, the state is not saved any more when the
 * thread is switched out. */
static inline void tiles_begin(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape __attribute__((aligned(64))) = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        shape.row_bytes[t] = TILE_SIDE * sizeof(float);
        shape.rows[t] = TILE_SIDE;
    }
    _tile_loadconfig(&shape);
}

static inline void tiles_end(void) { _tile_release(); }

/* C [high tiles, wide tiles] (+)= A B over `k` tiles. Tiles 0-3 hold C, 4 and 5 A, 6 and 7 B. */
static inline __attribute__((always_inline)) void tile_product(bool high, bool wide, const float *a,
                                                               int64_t lda, int64_t k, const float *b,
                                                               int64_t ldb, float *c, int64_t ldc, bool add) {
    const size_t a_bytes = (size_t)lda * sizeof(float), b_bytes = (size_t)ldb * sizeof(float),
                 c_bytes = (size_t)ldc * sizeof(float);
    const float *a1 = a + TILE_SIDE * lda, *b1 = b + TILE_SIDE;
    float *c1 = c + TILE_SIDE * ldc;
    if (add) {
        _tile_loadd(0, c, c_bytes);
        if (wide) _tile_loadd(1, c + TILE_SIDE, c_bytes);
        if (high) _tile_loadd(2, c1, c_bytes);
        if (high && wide) _tile_loadd(3, c1 + TILE_SIDE, c_bytes);
    } else {
        _tile_zero(0);
        if (wide) _tile_zero(1);
        if (high) _tile_zero(2);
        if (high && wide) _tile_zero(3);
    }
    for (int64_t i = 0; i < k; i++) {
        _tile_loadd(4, a + i * TILE_SIDE, a_bytes);
        _tile_loadd(6, b + i * TILE_SIDE * ldb, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        if (wide) {
            _tile_loadd(7, b1 + i * TILE_SIDE * ldb, b_bytes);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (high) {
            _tile_loadd(5, a1 + i * TILE_SIDE, a_bytes);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (high && wide) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_bytes);
    if (wide) _tile_stored(1, c + TILE_SIDE, c_bytes);
    if (high) _tile_stored(2, c1, c_bytes);
    if (high && wide) _tile_stored(3, c1 + TILE_SIDE, c_bytes);
}

/* C [m, n] (+)= A [m, k] B [k, n], k in words; m, k and n are rounded up to whole tiles, which the operands must hold: what A
 * and B have beyond k must be finite, and 0 in one of them. */
static void multiply_rows_amx(const float *a, int64_t lda, int64_t m, int64_t k, const float *b, int64_t ldb,
                              int64_t n, float *c, int64_t ldc, bool add, upcoming *later) {
    __asm__ volatile("" ::: "memory"); /* the intrinsics do not say that they read memory */
    int64_t deep = (k + TILE_SIDE - 1) / TILE_SIDE;
    for (int64_t j = 0; j < n; j += 2 * TILE_SIDE)
        for (int64_t i = 0; i < m; i += 2 * TILE_SIDE) {
            const float *rows = a + i * lda;
            float *to = c + i * ldc + j;
            ask_for(later, 4);
            bool high = m - i > TILE_SIDE, wide = n - j > TILE_SIDE;
            if (high && wide)
                tile_product(true, true, rows, lda, deep, b + j, ldb, to, ldc, add);
            else if (high)
                tile_product(true, false, rows, lda, deep, b + j, ldb, to, ldc, add);
            else if (wide)
                tile_product(false, true, rows, lda, deep, b + j, ldb, to, ldc, add);
            else
                tile_product(false, false, rows, lda, deep, b + j, ldb, to, ldc, add);
        }
}

#endif
