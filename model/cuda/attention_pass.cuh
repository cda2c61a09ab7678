/* The way over one side of the heads, unit by unit, against the rows of the other (attention.cuh). */
#ifndef LAMELLA_MODEL_CUDA_ATTENTION_PASS_CUH
#define LAMELLA_MODEL_CUDA_ATTENTION_PASS_CUH

#include "model/cuda/attention_rows.cuh"

namespace lam_attention_parts {

/* Rows of keys and values, or of queries and d_out with lse and less unless those are there already, into rows `at`
 * of the memory. */
template <int WIDTH, bool VECTORS, bool KEYS, int AT_ONCE>
__device__ __forceinline__ void bring(const arguments &a, const division &d, unsigned char *memory, int head,
                                      int first, int rows, int at, bool floats) {
    const int count = KEYS ? a.keys : a.queries;
    const int64_t sample = sample_of(a);
#pragma unroll 1
    for (int side = 0; side < 2; side++) {
        const bf16 *from = KEYS ? (side ? a.v : a.k) : side ? a.d_out : a.q;
        const int64_t stride = KEYS ? a.kv_stride : side ? a.out_stride : a.q_stride;
        bring_rows<WIDTH, VECTORS, AT_ONCE>(memory + side * d.side + at * layout<WIDTH>::ROW_BYTES,
                                            from + sample * (count * stride) + head * a.head_dim, stride,
                                            first, rows, count, a.head_dim,
                                            KEYS && a.key_mask ? a.key_mask + sample * a.keys : NULL);
    }
    if (KEYS || !floats) return;
    const int64_t statistics = (sample * a.heads + head) * count;
    bring_floats((float *)(memory + 2 * d.side), d.room, at, a.lse + statistics, a.less + statistics, first,
                 rows, count);
}

/* The block's heads, where their rows are resident. */
template <int WIDTH, bool VECTORS, bool KEYS>
__device__ __forceinline__ void bring_heads(const arguments &a, const division &d, unsigned char *memory,
                                            bool floats) {
    const int count = KEYS ? a.keys : a.queries, rows = (count + 7) / 8 * 8;
#pragma unroll 1
    for (int h = 0; h < d.heads_a_block; h++)
        bring<WIDTH, VECTORS, KEYS, 4>(a, d, memory, blockIdx.y * d.heads_a_block + h, 0, rows, h * rows,
                                       floats);
    lam_copies_close();
}

/* What a warp does at a time. */
struct unit {
    int head, own, row; /* own: the head's number in the block; row: the first */
    bool there;         /* else the warp only comes to the barriers */
};
/* The block's number-th, of ROWS rows. */
template <int ROWS> __device__ __forceinline__ unit unit_of(const division &d, int number) {
    const int first = lam_anew((int)blockIdx.x) * d.units_a_block,
              units = min(d.units - first, d.units_a_block);
    unit r = {};
    while (r.own < d.heads_a_block && number >= units) number -= units, r.own++;
    r.there = r.own < d.heads_a_block;
    if (!r.there) r.own = 0;
    r.head = lam_anew((int)blockIdx.y) * d.heads_a_block + r.own;
    r.row = (first + number) * ROWS;
    return r;
}

/* Goes over the units of a block, of 16 TILES rows, against `count` rows of keys and values (KEYS) or of
 * queries: for each open(unit, end of the rows), then, if that says that there is something to do, step(row in the
 * memory, row of the head, rows, whether the unit has more than 16 rows) for each stage, at last close(unit).
 * Resident rows have been brought by bring_heads; UNDER_WAY groups of copies need not have arrived; `arrived` is called for the
 * others. `own_count`: rows on the units' side. */
template <int WIDTH, bool VECTORS, int TILES, int STAGES, bool KEYS, int UNDER_WAY, typename O, typename S,
          typename C, typename A>
__device__ __forceinline__ void pass(const arguments &a, const division &d, unsigned char *memory,
                                     int own_count, int count, O open, S step, C close, A arrived) {
    const int rows = (count + 7) / 8 * 8;
    const bool resident = A::RESIDENT || d.resident;
    const int stage = resident ? rows : STAGE_ROWS;
    /* The same in all lanes, for the compiler too. */
    for (int number = __shfl_sync(ALL, threadIdx.x >> 5, 0);; number += WARPS) {
        const unit now = unit_of<16 * TILES>(d, number);
        if (!now.there && number >= WARPS) return;
        if (!resident)
#pragma unroll 1
            for (int s = 0; s < STAGES - 1; s++) {
                if (s * STAGE_ROWS < count)
                    bring<WIDTH, VECTORS, KEYS, 1>(a, d, memory, blockIdx.y, s * STAGE_ROWS,
                                                   min(STAGE_ROWS, rows - s * STAGE_ROWS), s * STAGE_ROWS,
                                                   true);
                lam_copies_close();
            }
        const bool works = open(now, now.there ? own_count : 0);
        int at = now.own * rows;
#pragma unroll 1
        for (int first = 0; first < count; first += stage) {
            if (resident) {
                if (number < WARPS) { /* the first time */
                    lam_copies_wait<UNDER_WAY>();
                    __syncthreads();
                    arrived();
                }
            } else {
                const int next = first + (STAGES - 1) * STAGE_ROWS;
                lam_copies_wait<STAGES - 2>();
                __syncthreads();
                if (next < count)
                    bring<WIDTH, VECTORS, KEYS, 1>(a, d, memory, blockIdx.y, next,
                                                   min(STAGE_ROWS, rows - next),
                                                   next / STAGE_ROWS % STAGES * STAGE_ROWS, true);
                lam_copies_close();
                at = first / STAGE_ROWS % STAGES * STAGE_ROWS;
            }
            if (works) step(at, first, min(stage, count - first), now.row + 16 < own_count);
        }
        const unit then = unit_of<16 * TILES>(d, lam_anew(number));
        if (then.there) close(then);
        if (!then.there || !resident) return; /* where rows are streamed, a warp has at most one unit */
    }
}

} // namespace lam_attention_parts

#endif
