/* Copies of operands in the forms that oneDNN multiplies fast. Its own reorders move a few bytes a cycle where these run at the
 * speed of memory; all copies work on squares of 16 words of 32 bits (a float, or two values of bfloat16 that follow each other
 * along k), turned in registers. */
#include <immintrin.h>
#include <string.h>

#include "base/bf16.h"
#include "base/gemm_parts.h"

#define SIDE 16                  /* of a square, in words */
#define BLOCK_COLUMNS (4 * SIDE) /* of a packed block */
#define CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#define INLINE static inline __attribute__((always_inline))

typedef uint32_t word;
typedef word words __attribute__((vector_size(SIDE * sizeof(word))));

/* Exchanges the two off-diagonal parts, `s` words wide, of every square of 2 s words. */
#define LOWER(s, l) ((l) & (s) ? SIDE + (l) - (s) : (l))
#define UPPER(s, l) ((l) & (s) ? SIDE + (l) : (l) + (s))
#define LANES(f, s)                                                                                          \
    f(s, 0), f(s, 1), f(s, 2), f(s, 3), f(s, 4), f(s, 5), f(s, 6), f(s, 7), f(s, 8), f(s, 9), f(s, 10),      \
        f(s, 11), f(s, 12), f(s, 13), f(s, 14), f(s, 15)
#define EXCHANGE(v, s)                                                                                       \
    for (int i = 0; i < SIDE; i++) {                                                                         \
        if (i & (s)) continue;                                                                               \
        words a = (v)[i], b = (v)[i + (s)];                                                                  \
        (v)[i] = __builtin_shufflevector(a, b, LANES(LOWER, s));                                             \
        (v)[i + (s)] = __builtin_shufflevector(a, b, LANES(UPPER, s));                                       \
    }

INLINE void turn_square(words *v) {
    EXCHANGE(v, 8)
    EXCHANGE(v, 4)
    EXCHANGE(v, 2)
    EXCHANGE(v, 1)
}

/* ---- packed blocks ---- */

bool lam_gemm_blocks_of(const dnnl_memory_desc_t *format, lam_gemm_blocks *blocks) {
    const dnnl_blocking_desc_t *f = &format->format_desc.blocking;
    if (format->format_kind != dnnl_blocked || format->ndims != 2 || format->offset0 || format->extra.flags ||
        f->inner_nblks < 2 || f->inner_nblks > 3 || f->inner_idxs[0] != 0 || f->inner_blks[0] != SIDE ||
        f->inner_idxs[1] != 1 || f->inner_blks[1] != BLOCK_COLUMNS)
        return false;
    bool pairs = format->data_type == dnnl_bf16;
    if (pairs != (f->inner_nblks == 3) || (pairs && (f->inner_idxs[2] != 0 || f->inner_blks[2] != 2)))
        return false;
    *blocks = (lam_gemm_blocks){f->strides[0], f->strides[1], pairs};
    return true;
}

/* What lies in a block, as the source stores it: `rows` rows of `row_bytes`. */
typedef struct tile {
    const char *first;
    size_t stride; /* bytes */
} tile;

/* A block over the edge of the matrix: its part inside, and zeros. */
static tile padded(tile t, int64_t rows, int64_t row_bytes, size_t room_stride, int64_t room_rows,
                   char *room) {
    memset(room, 0, room_stride * (size_t)room_rows);
    for (int64_t r = 0; r < rows; r++)
        memcpy(room + (size_t)r * room_stride, t.first + (size_t)r * t.stride, (size_t)row_bytes);
    return (tile){room, room_stride};
}

INLINE int64_t part(int64_t left, int64_t whole) { return left < 0 ? 0 : left < whole ? left : whole; }

INLINE const void *row_of(tile t, int64_t r) { return t.first + (size_t)r * t.stride; }

INLINE void round_row(const float *from, uint16_t *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = lam_bf16_from_float(from[i]);
}

/* Words of two rows of bfloat16 that follow each other along k. */
INLINE void pair_rows(const uint16_t *low, const uint16_t *high, word *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = (word)low[i] | (word)high[i] << 16;
}

static int64_t rows_of_block(const lam_gemm_blocks *blocks) { return blocks->pairs ? 2 * SIDE : SIDE; }

static int64_t blocks_over(int64_t size, int64_t block) { return (size + block - 1) / block; }

static word *block_at(const lam_gemm_blocks *blocks, void *packed, int64_t kb, int64_t nb) {
    size_t element = blocks->pairs ? sizeof(uint16_t) : sizeof(float);
    return (word *)(void *)((char *)packed +
                            (size_t)(kb * blocks->k_stride + nb * blocks->n_stride) * element);
}

/* The source's rows run along n. */
CLONES static void pack_straight(tile t, bool pairs, bool from_bf16, word *to) {
    for (int64_t r = 0; r < SIDE; r++, to += BLOCK_COLUMNS) {
        if (!pairs) {
            memcpy(to, row_of(t, r), BLOCK_COLUMNS * sizeof *to);
            continue;
        }
        uint16_t rounded[2][BLOCK_COLUMNS];
        const uint16_t *low = row_of(t, 2 * r), *high = row_of(t, 2 * r + 1);
        if (!from_bf16) {
            round_row(row_of(t, 2 * r), rounded[0], BLOCK_COLUMNS);
            round_row(row_of(t, 2 * r + 1), rounded[1], BLOCK_COLUMNS);
            low = rounded[0];
            high = rounded[1];
        }
        pair_rows(low, high, to, BLOCK_COLUMNS);
    }
}

/* The source's rows run along k; float32. */
CLONES static void pack_turned(tile t, bool pairs, word *to) {
    for (int64_t first = 0; first < BLOCK_COLUMNS; first += SIDE) {
        words v[SIDE];
        for (int64_t r = 0; r < SIDE; r++)
            if (pairs) {
                uint16_t rounded[2 * SIDE];
                round_row(row_of(t, first + r), rounded, 2 * SIDE);
                memcpy(&v[r], rounded, sizeof v[r]);
            } else
                memcpy(&v[r], row_of(t, first + r), sizeof v[r]);
        turn_square(v);
        for (int64_t r = 0; r < SIDE; r++) memcpy(to + r * BLOCK_COLUMNS + first, &v[r], sizeof v[r]);
    }
}

void lam_gemm_pack_blocks(const lam_gemm_blocks *blocks, const lam_gemm_source *from, int64_t k,
                          int64_t padded_k, int64_t n, void *packed) {
    int64_t k_block = rows_of_block(blocks), n_blocks = blocks_over(n, BLOCK_COLUMNS);
    size_t stored = from->bf16 ? sizeof(uint16_t) : sizeof(float);
#pragma omp for schedule(static) nowait
    for (int64_t kb = 0; kb < blocks_over(padded_k, k_block); kb++)
        for (int64_t nb = 0; nb < n_blocks; nb++) {
            char room[2 * SIDE * BLOCK_COLUMNS * sizeof(float)];
            int64_t rows = part(k - kb * k_block, k_block),
                    columns = part(n - nb * BLOCK_COLUMNS, BLOCK_COLUMNS);
            tile t = {(const char *)from->data +
                          (size_t)(kb * k_block * from->stride + nb * BLOCK_COLUMNS) * stored,
                      (size_t)from->stride * stored};
            if (rows < k_block || columns < BLOCK_COLUMNS)
                t = padded(t, rows, columns * (int64_t)stored, BLOCK_COLUMNS * stored, k_block, room);
            pack_straight(t, blocks->pairs, from->bf16, block_at(blocks, packed, kb, nb));
        }
}

/* ---- weights ---- */

/* Past the caches: nobody reads it before the backward pass. */
static void stream(const word *from, word *to) {
    for (int64_t i = 0; i < SIDE * BLOCK_COLUMNS; i += 4)
        _mm_stream_si128((__m128i *)(void *)(to + i),
                         _mm_load_si128((const __m128i *)(const void *)(from + i)));
}

/* Rows of W from `row` on, as one tile of BLOCK_COLUMNS rows and columns: in place where it lies within a part. */
static tile tile_of(const lam_gemm_weights *w, bool rounded, int64_t row, int64_t column, float *room) {
    int64_t columns = part(w->in - column, BLOCK_COLUMNS), filled = 0, first = 0;
    for (int i = 0; i < w->parts; first += w->part[i++].out) {
        if (row >= first + w->part[i].out) continue;
        int64_t rows = part(first + w->part[i].out - row, BLOCK_COLUMNS - filled);
        const float *from = w->part[i].data + (row - first) * w->in + column;
        if (rows == BLOCK_COLUMNS && columns == BLOCK_COLUMNS && !rounded)
            return (tile){(const char *)from, (size_t)w->in * sizeof(float)};
        if (!filled) memset(room, 0, BLOCK_COLUMNS * BLOCK_COLUMNS * sizeof(float));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < columns; c++) {
                float value = from[r * w->in + c];
                room[(filled + r) * BLOCK_COLUMNS + c] =
                    rounded ? lam_bf16_to_float(lam_bf16_from_float(value)) : value;
            }
        filled += rows;
        row += rows;
        if (filled == BLOCK_COLUMNS) break;
    }
    return (tile){(const char *)room, BLOCK_COLUMNS * sizeof(float)};
}

void lam_gemm_pack_weights(const lam_gemm_weights *w, bool rounded, const lam_gemm_blocks *forward,
                           void *packed_forward, const lam_gemm_blocks *backward, void *packed_backward) {
    int64_t out = lam_gemm_weights_out(w), k_block = rows_of_block(packed_forward ? forward : backward);
#pragma omp for collapse(2) schedule(static) nowait
    for (int64_t row = 0; row < out; row += BLOCK_COLUMNS)
        for (int64_t column = 0; column < w->in; column += BLOCK_COLUMNS) {
            float room[BLOCK_COLUMNS * BLOCK_COLUMNS];
            _Alignas(64) word block[SIDE * BLOCK_COLUMNS];
            tile whole = tile_of(w, rounded, row, column, room);
            for (int64_t i = 0; i < BLOCK_COLUMNS; i += k_block) {
                if (packed_forward && column + i < w->in) {
                    tile t = {whole.first + (size_t)i * sizeof(float), whole.stride};
                    pack_turned(
                        t, forward->pairs,
                        block_at(forward, packed_forward, (column + i) / k_block, row / BLOCK_COLUMNS));
                }
                if (packed_backward && row + i < out) {
                    tile t = {row_of(whole, i), whole.stride};
                    pack_straight(t, backward->pairs, false, block);
                    stream(block,
                           block_at(backward, packed_backward, (row + i) / k_block, column / BLOCK_COLUMNS));
                }
            }
        }
    _mm_sfence();
}

/* ---- turned matrices ---- */

/* Adds the sums of the columns: one number a row of the turned square. */
INLINE void add_rows(const words *v, bool bf16, float *sums) {
    float high[SIDE] = {0}, low[SIDE] = {0};
    for (int64_t r = 0; r < SIDE; r++)
        for (int64_t c = 0; c < SIDE; c++) {
            word h = bf16 ? v[r][c] & 0xffff0000u : v[r][c], l = v[r][c] << 16;
            float x, y;
            memcpy(&x, &h, sizeof x);
            memcpy(&y, &l, sizeof y);
            high[c] += x;
            if (bf16) low[c] += y;
        }
    for (int64_t c = 0; c < SIDE; c++) sums[c] += high[c] + low[c];
}

CLONES static void turn_tile(tile t, bool bf16, char *to, size_t to_stride, int64_t columns, float *sums) {
    words v[SIDE];
    for (int64_t r = 0; r < SIDE; r++)
        if (bf16)
            pair_rows(row_of(t, 2 * r), row_of(t, 2 * r + 1), (word *)&v[r], SIDE);
        else
            memcpy(&v[r], row_of(t, r), sizeof v[r]);
    if (sums) add_rows(v, bf16, sums);
    if (!to) return;
    turn_square(v);
    for (int64_t c = 0; c < columns; c++) memcpy(to + (size_t)c * to_stride, &v[c], sizeof v[c]);
}

int64_t lam_gemm_turned_stride(bool bf16, int64_t rows) {
    int64_t height = bf16 ? 2 * SIDE : SIDE, stride = (rows + height - 1) / height * height,
            page = 4096 / (bf16 ? 2 : 4);
    return stride % page ? stride : stride + height; /* rows a page apart share the sets of a cache */
}

void lam_gemm_turn(const void *from, bool bf16, int64_t rows, int64_t columns, int64_t stride, void *to,
                   float *sums) {
    size_t element = bf16 ? sizeof(uint16_t) : sizeof(float),
           to_stride = (size_t)lam_gemm_turned_stride(bf16, rows) * element;
    int64_t height = bf16 ? 2 * SIDE : SIDE;
#pragma omp for schedule(static) nowait
    for (int64_t c = 0; c < columns; c += SIDE) {
        float of_columns[SIDE] = {0};
        int64_t width = part(columns - c, SIDE);
        for (int64_t r = 0; r < lam_gemm_turned_stride(bf16, rows); r += height) {
            char room[2 * SIDE * SIDE * sizeof(float)];
            int64_t inside = part(rows - r, height);
            tile t = {(const char *)from + (size_t)(r * stride + c) * element, (size_t)stride * element};
            if (inside < height || width < SIDE)
                t = padded(t, inside, width * (int64_t)element, SIDE * element, height, room);
            turn_tile(t, bf16, to ? (char *)to + (size_t)c * to_stride + (size_t)r * element : NULL,
                      to_stride, width, sums ? of_columns : NULL);
        }
        for (int64_t i = 0; i < width && sums; i++) sums[c + i] = of_columns[i];
    }
}
