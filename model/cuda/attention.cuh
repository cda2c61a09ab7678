/* Attention on tensor cores: what its kernels share. Method: Dao 2023, FlashAttention-2; mma.sync, so for every
 * architecture from sm_80 on. 128 threads a block, registers: at most 255 registers, at most 128, 168 and 255
 * forward of head_dim to 32, 64 and more (4, 3, 2 blocks a multiprocessor), 168 and 255 backward of head_dim to
 * 32 and more (3, 2 blocks). head_dim is filled with zeros up to WIDTH, a multiple of 16.
 *
 * A warp works by itself on units of 32 rows of queries (for the gradients of keys and values: of keys; 16 rows
 * where registers are short), held in registers as left operands; the rows on the other side come through shared
 * memory and are the right operands.
 *
 *     resident   all rows of the other side of a head lie in shared memory, and warps take the head's units in
 *                turn with no barrier after the first; a block may hold several heads, so that short sequences
 *                keep all warps busy. Where both sides fit, one launch does the backward pass and reads each
 *                row from memory once; where they fit together, all rows are on their way from its beginning.
 *     streamed   longer rows pass through a ring of stages of 64 rows, which all warps of a block follow with a
 *                unit each
 *
 * The backward pass goes over the scores twice, once for the gradients of queries and once for those of keys
 * and values: no sum crosses warps, nothing is added to memory, and the same bits come out every time. Where q, k and
 * v come from a linear map with biases, whose gradients are the sums of dq, dk and dv over all rows, each unit adds up
 * its own rows at its end and writes one row of a table, which is folded afterwards: 12 bytes an element of a row in
 * 32 rows, where reading the gradients again takes 192.
 *
 * A norm of q and k is attention_heads.cuh.
 *
 * Counts by score block, 16 x 8 scores of a warp, for head_dim 32 (64), instructions in the machine code for sm_90a.
 * A multiprocessor quarter issues one instruction a clock, an mma takes it 4 clocks on Hopper at best (8 on Ampere),
 * 32 exponentials 8 clocks; shared memory gives 128 bytes a clock to all four:
 *
 *                         mma          its clocks   exponentials   instructions   shared memory, clocks of four
 *     forward             4.5 (8.5)    18 (34)      28 (32)        22 (25)        512 (1,024) bytes, 16 (32)
 *     queries' gradients  6 (12)       24 (48)      32             28 (37)        768 (1,536) bytes, 24 (48)
 *     keys' and values'   8 (16)       32 (64)      32             36 (48)        1,024 (2,048) bytes, 32 (64)
 *
 * so exponentials bound head_dim 32: of 16 the forward pass leaves two to the multipliers (Cody & Waite 1980,
 * and a polynomial, as FlashAttention-4 does). With units of 16 rows shared memory would be read twice as often
 * and be the bound. A head of 257 x 257 scores is 561 blocks of each kind, 12,600 instructions forward. What is
 * not in the loops over scores must stay small beside that: ncu found 15,800 instructions a head there in a version
 * that brought a vector of 16 bytes by 43 instructions, and four fifths of the time of its units' loads spent
 * waiting for one after the other. Hence bring_rows' fixed columns, load_unit's loads without a branch between
 * them, blocks by [part, heads, sample] in place of divisions, and softmax without the largest score.
 *
 * Rows are counted in 16 on the units' side and in 8 on the other: of the products' work is useful at 65, 257,
 * 385, 1,025 and 6,145 tokens 73, 92.0, 94.5, 97.9 and 99.6 % (with tiles of 64: 26, 64, 74, 89, 98; of 128:
 * 26, 45, 56, 79, 96). The query of the class token is thus a unit of 16 rows: 9 blocks at 65 tokens and
 * head_dim 64, about 200 instructions of a warp, where multiplying it out in float takes 850; 65 tokens are
 * bound by memory besides (33 KB a head, 1,800 clocks of a multiprocessor's share at 4.3 TB/s, against 400 of
 * the above). At 257 tokens and head_dim 32 memory takes 5/6 of the time of the above forward and 4/5 backward
 * (more than all of it if the two passes read for themselves), which is why rows are read once. */
#ifndef LAMELLA_MODEL_CUDA_ATTENTION_CUH
#define LAMELLA_MODEL_CUDA_ATTENTION_CUH

#include "model/cpu/attention.h"
#include "model/cuda/launch.cuh"
#include "model/cuda/products.h"
#include "model/cuda/ptx.cuh"

namespace lam_attention_parts {

typedef __nv_bfloat16 bf16;

const int WARPS = 4, THREADS = 32 * WARPS;
const int STAGE_ROWS = 64;
const float LOG2_E = 1.44269504088896341f;
const unsigned ALL = 0xffffffffu;

/* Of a pass over one side of the heads. Blocks: [parts, groups of heads, samples]. */
struct division {
    int units, units_a_block; /* of a head */
    int heads_a_block;        /* 1 where rows are streamed */
    int parts, groups;        /* blocks that share a head, groups of heads of a block */
    int room, side;           /* rows and bytes of each of the two sides in shared memory */
    bool resident;
};

struct arguments {
    int queries, keys, heads, head_dim;
    int64_t q_stride, kv_stride, out_stride;
    const float *key_mask;
    int64_t first_sample;  /* of the launch */
    bool vectors;          /* rows of heads are 16-byte aligned and whole vectors */
    float scale, exponent; /* 1 / sqrt(head_dim), that times log2(e) */
    const bf16 *q, *k, *v, *out, *d_out;
    float *lse, *less; /* [batch, heads, queries]; less: minus d_out . out */
    bf16 *result, *dq, *dk, *dv;
    bool add_q, add_kv;
    /* NULL, or for each unit the sums over its rows: [batch, units of a head, heads, head_dim] of dq, [batch, units, 2, heads,
     * head_dim] of dk and dv. */
    float *sums_q, *sums_kv;
    lam_attention_norm norm;
    /* Sums of units for the gradients of the norm's weights: by sample, sums_norm_sample apart, those of q and of k, each [w and b,
     * units of a head, heads, head_dim]. */
    float *sums_norm;
    int64_t sums_norm_sample;
    int apart,
        floats; /* in shared memory: where the second pass's rows begin, 0 or behind those of the first; and
                          from there its lse and less */
    division by_queries, by_keys;
};

/* Entries; model/cpu/kernels.h. */
void forward(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out,
             float *lse, void *workspace);
void backward(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace);
/* With the sums over all rows of dq and of dk and dv, where `columns` of the one or the other is not 0; `sums` and `first` say
 * where they go. Gradients are written then, not added. */
void backward_with_sums(const lam_attention_shape *shape, const lam_attention_tensors *tensors,
                        void *workspace, lam_cuda_partials *q, lam_cuda_partials *kv);
/* What the workspace has before the sums of units. */
size_t less_bytes(const lam_attention_shape *shape);
void forward_float(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out,
                   float *lse, void *workspace);
void backward_float(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace);

/* With a norm that they do not take, in kernels before and behind the same without one; `element`: its bytes. */
template <typename T>
void forward_apart(const lam_attention_shape *shape, const void *q, const void *v, void *out, float *lse,
                   void *workspace);
template <typename T>
void backward_apart(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace);
size_t apart_bytes(const lam_attention_shape *shape, bool backward, size_t element);
/* Whether the kernels for bfloat16 take the norm: of the shape alone, but for its batch and the mask. */
bool forward_takes_norm(const lam_attention_shape *shape);
bool backward_takes_norm(const lam_attention_shape *shape);
/* Of the workspace, behind less_bytes. */
size_t sums_norm_bytes(const lam_attention_shape *shape);

/* ---- host ---- */

static inline int round_up(int64_t count, int unit) { return (int)((count + unit - 1) / unit * unit); }

/* The narrowest width of kernels that holds a head: call(width_of<WIDTH, VECTORS>()). Without whole vectors there is
 * the widest only. */
template <int width, bool vectors> struct width_of {
    static const int WIDTH = width;
    static const bool VECTORS = vectors;
};
template <typename F> void with_width(const arguments &a, F call) {
    if (!a.vectors)
        call(width_of<128, false>());
    else if (a.head_dim <= 16)
        call(width_of<16, true>());
    else if (a.head_dim <= 32)
        call(width_of<32, true>());
    else if (a.head_dim <= 64)
        call(width_of<64, true>());
    else if (a.head_dim <= 80)
        call(width_of<80, true>());
    else if (a.head_dim <= 112)
        call(width_of<112, true>());
    else
        call(width_of<128, true>());
}

/* The same with a norm, of whole vectors. */
const int NORM_WIDTH = 112;
template <typename F> void with_norm_width(int64_t head_dim, F call) {
    if (head_dim <= 64)
        call(width_of<64, true>());
    else
        call(width_of<NORM_WIDTH, true>());
}
static inline bool is_for_norm(const lam_attention_shape *s) {
    return s->head_dim % 8 == 0 && s->head_dim <= NORM_WIDTH && s->q_stride % 8 == 0 &&
           s->out_stride % 8 == 0;
}

static inline bool is_aligned(const void *tensor, int64_t stride) {
    return (uintptr_t)tensor % 16 == 0 && stride % 8 == 0;
}

arguments arguments_of(const lam_attention_shape *shape, const void *q, const void *k, const void *v);
/* What a pass needs to be shared out. */
struct need {
    int count, rows;    /* on the units' side, in a unit */
    int others, stages; /* rows on the other side; stages of the ring */
    int row_bytes,
        extra; /* shared memory of a row of each of the two on the other side, of both of them besides */
    size_t block_bytes; /* of a block besides */
    int blocks;         /* that registers leave on a multiprocessor */
};
/* Bytes of shared memory that a block may have so that as many fit as registers leave. */
size_t room_of_block(const need &n);
division divide(const arguments &a, int64_t batch, const need &n);
size_t shared_bytes(const division &d, const need &n);
/* Samples that one launch takes at most. */
int64_t most_samples(void);
/* The launches of a pass: launch(grid, the arguments of it). */
template <typename F> void for_samples(arguments a, const division &d, int64_t batch, F launch) {
    for (; a.first_sample < batch; a.first_sample += most_samples())
        launch(dim3((unsigned)d.parts, (unsigned)d.groups,
                    (unsigned)min(batch - a.first_sample, most_samples())),
               a);
}
/* Lets a kernel have as much dynamic shared memory as there is. */
bool allow_shared(const void *kernel);

} // namespace lam_attention_parts

#endif
