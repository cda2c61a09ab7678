/* oneDNN's matmul primitives, kept once they are made: a product of a shape met before allocates nothing. */
#include <cpuid.h>
#include <string.h>

#include <dnnl.h>

#include "base/bf16.h"
#include "base/gemm.h"
#include "base/gemm_parts.h"
#include "base/memory.h"

#define DNNL_TRY(call)                                                                                       \
    do {                                                                                                     \
        dnnl_status_t code_ = (call);                                                                        \
        LAM_REQUIRE(code_ == dnnl_success, LAM_ERROR_EXTERNAL, "oneDNN: %s: status %d", #call, (int)code_);  \
    } while (0)

static dnnl_engine_t engine;
static dnnl_stream_t stream;
static lam_gemm_route route = LAM_GEMM_AUTO;

static lam_status open_engine(void) {
    if (stream) return LAM_OK;
    if (!engine) DNNL_TRY(dnnl_engine_create(&engine, dnnl_cpu, 0));
    DNNL_TRY(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    return LAM_OK;
}

/* ---- which way for bfloat16 ---- */

static bool is_amd(void) {
    unsigned a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && c == signature_AMD_ecx;
}

void lam_gemm_bf16_route(lam_gemm_route chosen) { route = chosen; }

bool lam_gemm_bf16_native(void) {
    if (route != LAM_GEMM_AUTO) return route == LAM_GEMM_NATIVE;
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    return (isa & dnnl_cpu_isa_avx512_core_amx) == dnnl_cpu_isa_avx512_core_amx ||
           ((isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16 && is_amd());
}

/* ---- primitives ---- */

typedef struct key {
    int64_t m, n, k, lda, ldb, ldc;
    dnnl_data_type_t in, out;
    bool transposed_a, packed, bias, accumulate;
} key;

typedef struct product {
    key key;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c, bias;
} product;

enum { KEPT = 4096 }; /* row counts vary from step to step with stochastic depth; about 100 KB each */
static product *kept[KEPT];
static int64_t kept_count;

static void product_free(product *p) {
    if (!p) return;
    dnnl_memory_t memories[] = {p->a, p->b, p->c, p->bias};
    for (int i = 0; i < 4; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    lam_free(p);
}

static void forget_products(void) {
    for (int i = 0; i < KEPT; i++) {
        product_free(kept[i]);
        kept[i] = NULL;
    }
    kept_count = 0;
}

static uint64_t hash(const key *k) {
    const int64_t fields[] = {k->m,
                              k->n,
                              k->k,
                              k->lda,
                              k->ldb,
                              k->ldc,
                              (int64_t)k->in,
                              (int64_t)k->out,
                              k->transposed_a | k->packed << 1 | k->bias << 2 | k->accumulate << 3};
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        h = (h ^ (uint64_t)fields[i]) * 0x100000001b3ull;
    return h ^ h >> 29;
}

/* The format of the packed operand depends on its own sizes: it is asked for with a product of this many rows. */
#define TYPICAL_ROWS 1024

static lam_status describe(const key *k, dnnl_memory_desc_t *a, dnnl_memory_desc_t *b,
                           dnnl_memory_desc_t *c) {
    dnnl_dims_t da = {k->m, k->k}, db = {k->k, k->n}, dc = {k->m, k->n}, row = {k->lda, 1},
                turned = {1, k->lda}, sb = {k->ldb, 1}, sc = {k->ldc, 1};
    DNNL_TRY(dnnl_memory_desc_init_by_strides(a, 2, da, k->in, k->transposed_a ? turned : row));
    if (k->packed)
        DNNL_TRY(dnnl_memory_desc_init_by_tag(b, 2, db, k->in, dnnl_format_tag_any));
    else
        DNNL_TRY(dnnl_memory_desc_init_by_strides(b, 2, db, k->in, sb));
    DNNL_TRY(dnnl_memory_desc_init_by_strides(c, 2, dc, k->out, sc));
    return LAM_OK;
}

static lam_status ask_format(dnnl_data_type_t type, int64_t k, int64_t n, dnnl_memory_desc_t *format) {
    LAM_TRY(open_engine());
    key typical = {TYPICAL_ROWS, n, k, k, 0, n, type, type, false, true, false, false};
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t operation;
    dnnl_primitive_desc_t description = NULL;
    LAM_TRY(describe(&typical, &a, &b, &c));
    DNNL_TRY(dnnl_matmul_desc_init(&operation, &a, &b, NULL, &c));
    DNNL_TRY(dnnl_primitive_desc_create(&description, &operation, NULL, engine, NULL));
    *format = *dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_destroy(description);
    return LAM_OK;
}

/* Asked for at every packing, and answered slowly: kept. */
static lam_status packed_format(dnnl_data_type_t type, int64_t k, int64_t n, dnnl_memory_desc_t *format) {
    enum { FORMATS = 256 };
    static struct {
        dnnl_data_type_t type;
        int64_t k, n;
        dnnl_memory_desc_t format;
    } known[FORMATS];
    static int count;
    for (int i = 0; i < count; i++)
        if (known[i].type == type && known[i].k == k && known[i].n == n) {
            *format = known[i].format;
            return LAM_OK;
        }
    LAM_TRY(ask_format(type, k, n, format));
    if (count == FORMATS) count = 0;
    known[count].type = type;
    known[count].k = k;
    known[count].n = n;
    known[count++].format = *format;
    return LAM_OK;
}

static lam_status make_product(product *p) {
    const key *k = &p->key;
    dnnl_memory_desc_t a, b, c, bias;
    dnnl_matmul_desc_t operation;
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t after = NULL;
    LAM_TRY(describe(k, &a, &b, &c));
    if (k->packed) LAM_TRY(packed_format(k->in, k->k, k->n, &b));
    dnnl_dims_t bias_dims = {1, k->n};
    DNNL_TRY(dnnl_memory_desc_init_by_tag(&bias, 2, bias_dims, dnnl_f32, dnnl_ab));
    DNNL_TRY(dnnl_matmul_desc_init(&operation, &a, &b, k->bias ? &bias : NULL, &c));
    DNNL_TRY(dnnl_primitive_attr_create(&attributes));
    dnnl_status_t code = dnnl_success;
    if (k->accumulate) {
        code = dnnl_post_ops_create(&after);
        if (code == dnnl_success) code = dnnl_post_ops_append_sum(after, 1.0f);
        if (code == dnnl_success) code = dnnl_primitive_attr_set_post_ops(attributes, after);
    }
    if (code == dnnl_success)
        code = dnnl_primitive_desc_create(&description, &operation, attributes, engine, NULL);
    if (after) dnnl_post_ops_destroy(after);
    dnnl_primitive_attr_destroy(attributes);
    LAM_REQUIRE(code == dnnl_success, LAM_ERROR_EXTERNAL,
                "oneDNN refused a product of [%lld, %lld] by [%lld, %lld] with status %d", (long long)k->m,
                (long long)k->k, (long long)k->k, (long long)k->n, (int)code);
    code = dnnl_primitive_create(&p->primitive, description);
    dnnl_primitive_desc_destroy(description);
    DNNL_TRY(code);
    DNNL_TRY(dnnl_memory_create(&p->a, &a, engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&p->b, &b, engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&p->c, &c, engine, DNNL_MEMORY_NONE));
    if (k->bias) DNNL_TRY(dnnl_memory_create(&p->bias, &bias, engine, DNNL_MEMORY_NONE));
    return LAM_OK;
}

static lam_status find_product(const key *wanted, product **found) {
    LAM_TRY(open_engine());
    uint64_t at = hash(wanted) % KEPT;
    while (kept[at] && memcmp(&kept[at]->key, wanted, sizeof *wanted) != 0) at = (at + 1) % KEPT;
    *found = kept[at];
    if (*found) return LAM_OK;
    if (kept_count >= KEPT * 3 / 4) {
        forget_products();
        at = hash(wanted) % KEPT;
    }
    LAM_TRY(lam_alloc((void **)found, sizeof **found));
    (*found)->key = *wanted;
    lam_status status = make_product(*found);
    if (status != LAM_OK) {
        product_free(*found);
        return status;
    }
    kept[at] = *found;
    kept_count++;
    return LAM_OK;
}

static lam_status run_product(const key *wanted, const void *a, const void *b, const float *bias, void *c) {
    product *p;
    LAM_TRY(find_product(wanted, &p));
    /* oneDNN takes handles without const; it does not write to them. */
    DNNL_TRY(dnnl_memory_set_data_handle(p->a, (void *)(uintptr_t)a));
    DNNL_TRY(dnnl_memory_set_data_handle(p->b, (void *)(uintptr_t)b));
    DNNL_TRY(dnnl_memory_set_data_handle(p->c, c));
    if (bias) DNNL_TRY(dnnl_memory_set_data_handle(p->bias, (void *)(uintptr_t)bias));
    dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}, {DNNL_ARG_BIAS, p->bias}};
    DNNL_TRY(dnnl_primitive_execute(p->primitive, stream, bias ? 4 : 3, arguments));
    DNNL_TRY(dnnl_stream_wait(stream));
    return LAM_OK;
}

static key key_of(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc) {
    key made;
    memset(&made, 0, sizeof made); /* padding takes part in comparisons */
    made.m = m;
    made.n = n;
    made.k = k;
    made.lda = lda;
    made.ldb = ldb;
    made.ldc = ldc;
    made.in = made.out = dnnl_f32;
    return made;
}

/* ---- packing ---- */

static dnnl_data_type_t stored_type(lam_gemm_type type) {
    return type == LAM_GEMM_BF16 && lam_gemm_bf16_native() ? dnnl_bf16 : dnnl_f32;
}

size_t lam_gemm_packed_bytes(lam_gemm_type type, int64_t k, int64_t n) {
    dnnl_memory_desc_t format;
    return packed_format(stored_type(type), k, n, &format) == LAM_OK ? dnnl_memory_desc_get_size(&format) : 0;
}

/* sgemm packs on its way through the caches, and is slower where the rows of W lie a multiple of 2 KiB apart: they share sets of
 * the cache. Where it turns operands by copies they cost what packing costs. */
#define PACKED_ROWS 256
#define PACKED_ROWS_ALIGNED 600
#define PACKED_ROWS_BY_SGEMM 1024

bool lam_gemm_packing_pays(lam_gemm_type type, int64_t rows, int64_t in) {
    if (type == LAM_GEMM_BF16) return true;
    if (lam_gemm_turns()) return rows >= PACKED_ROWS;
    return rows >= (in % 512 ? PACKED_ROWS_BY_SGEMM : PACKED_ROWS_ALIGNED);
}

static _Thread_local struct lam_gemm_scratch joined, converted_a, converted_b, converted_c, turned_a,
    packed_b, column_sums;

typedef struct repack {
    int64_t k, n;
    dnnl_data_type_t type;
    bool transposed;
    dnnl_primitive_t primitive;
    dnnl_memory_t from, to;
} repack;

enum { REPACKS = 256 };
static repack repacks[REPACKS];
static int repack_count;

static void repack_free(repack *r) {
    if (r->from) dnnl_memory_destroy(r->from);
    if (r->to) dnnl_memory_destroy(r->to);
    if (r->primitive) dnnl_primitive_destroy(r->primitive);
    memset(r, 0, sizeof *r);
}

static lam_status make_repack(repack *r) {
    dnnl_memory_desc_t from, to;
    dnnl_dims_t dims = {r->k, r->n}, strides = {r->transposed ? 1 : r->n, r->transposed ? r->k : 1};
    dnnl_primitive_desc_t description = NULL;
    LAM_TRY(packed_format(r->type, r->k, r->n, &to));
    DNNL_TRY(dnnl_memory_desc_init_by_strides(&from, 2, dims, dnnl_f32, strides));
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&description, &from, engine, &to, engine, NULL));
    dnnl_status_t code = dnnl_primitive_create(&r->primitive, description);
    dnnl_primitive_desc_destroy(description);
    DNNL_TRY(code);
    DNNL_TRY(dnnl_memory_create(&r->from, &from, engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&r->to, &to, engine, DNNL_MEMORY_NONE));
    return LAM_OK;
}

static lam_status find_repack(const repack *wanted, repack **found) {
    for (int i = 0; i < repack_count; i++)
        if (repacks[i].k == wanted->k && repacks[i].n == wanted->n && repacks[i].type == wanted->type &&
            repacks[i].transposed == wanted->transposed) {
            *found = &repacks[i];
            return LAM_OK;
        }
    if (repack_count == REPACKS)
        while (repack_count) repack_free(&repacks[--repack_count]);
    repack *made = &repacks[repack_count];
    *made = *wanted;
    lam_status status = make_repack(made);
    if (status != LAM_OK) {
        repack_free(made);
        return status;
    }
    repack_count++;
    *found = made;
    return LAM_OK;
}

int64_t lam_gemm_weights_out(const lam_gemm_weights *weights) {
    int64_t out = 0;
    for (int i = 0; i < weights->parts; i++) out += weights->part[i].out;
    return out;
}

/* The parts as one matrix. */
static lam_status join(const lam_gemm_weights *weights, bool rounds, const float **whole) {
    LAM_TRY(lam_gemm_scratch_grow(&joined, lam_gemm_weights_out(weights) * weights->in));
    float *to = joined.floats;
    for (int i = 0; i < weights->parts; i++) {
        const float *from = weights->part[i].data;
        int64_t count = weights->part[i].out * weights->in;
#pragma omp parallel for simd schedule(static)
        for (int64_t e = 0; e < count; e++)
            to[e] = rounds ? lam_bf16_to_float(lam_bf16_from_float(from[e])) : from[e];
        to += count;
    }
    *whole = joined.floats;
    return LAM_OK;
}

/* By oneDNN, where its format is none that lam_gemm_blocks_of knows. */
static lam_status reorder(dnnl_data_type_t type, int64_t k, int64_t n, const float *b, bool transposed,
                          void *packed) {
    repack *r;
    LAM_TRY(find_repack(&(repack){.k = k, .n = n, .type = type, .transposed = transposed}, &r));
    DNNL_TRY(dnnl_memory_set_data_handle(r->from, (void *)(uintptr_t)b));
    DNNL_TRY(dnnl_memory_set_data_handle(r->to, packed));
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, r->from}, {DNNL_ARG_TO, r->to}};
    DNNL_TRY(dnnl_primitive_execute(r->primitive, stream, 2, arguments));
    DNNL_TRY(dnnl_stream_wait(stream));
    return LAM_OK;
}

lam_status lam_gemm_pack(lam_gemm_type type, const lam_gemm_weights *weights, void *forward, void *backward) {
    LAM_TRY(open_engine());
    dnnl_data_type_t stored = stored_type(type);
    int64_t in = weights->in, out = lam_gemm_weights_out(weights);
    bool rounds = type == LAM_GEMM_BF16 && stored == dnnl_f32, known = true;
    lam_gemm_blocks blocks[2];
    dnnl_memory_desc_t format;
    LAM_TRY(packed_format(stored, in, out, &format));
    known = lam_gemm_blocks_of(&format, &blocks[0]);
    LAM_TRY(packed_format(stored, out, in, &format));
    known = lam_gemm_blocks_of(&format, &blocks[1]) && known;
    if (known) {
#pragma omp parallel
        lam_gemm_pack_weights(weights, rounds, &blocks[0], forward, &blocks[1], backward);
        return LAM_OK;
    }
    const float *whole = weights->part[0].data;
    if (weights->parts > 1 || rounds) LAM_TRY(join(weights, rounds, &whole));
    if (forward) LAM_TRY(reorder(stored, in, out, whole, true, forward));
    return backward ? reorder(stored, out, in, whole, false, backward) : LAM_OK;
}

/* ---- products ---- */

/* Whether copies of both operands of A^T B earn themselves: always in bfloat16, where the library's own way through a transposed
 * operand is slower; in float32 from so many rows on, and where A is wide, which sgemm turns with one cache line a row, all in
 * the same few sets of the cache. A narrow A it turns as fast as we do. */
#define COPIED_ROWS 256

static bool copies_pay(const lam_gemm_gradients *o, bool bf16) {
    if (bf16) return o->k > 0;
    return o->k >= COPIED_ROWS && (o->parts > 1 || o->part[0].m > o->n || lam_gemm_turns());
}

static lam_status convert(struct lam_gemm_scratch *s, const uint16_t *from, int64_t rows, int64_t width,
                          int64_t stride) {
    LAM_TRY(lam_gemm_scratch_grow(s, rows * width));
    float *to = s->floats;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
#pragma omp simd
        for (int64_t i = 0; i < width; i++) to[r * width + i] = lam_bf16_to_float(from[r * stride + i]);
    return LAM_OK;
}

static lam_status packed_converted(const lam_gemm_operands *o) {
    LAM_TRY(convert(&converted_a, o->a, o->m, o->k, o->lda));
    if (o->accumulate)
        LAM_TRY(convert(&converted_c, o->c, o->m, o->n, o->ldc));
    else
        LAM_TRY(lam_gemm_scratch_grow(&converted_c, o->m * o->n));
    lam_gemm_operands inner = *o;
    inner.a = converted_a.floats;
    inner.lda = o->k;
    inner.c = converted_c.floats;
    inner.ldc = o->n;
    LAM_TRY(lam_gemm_packed(LAM_GEMM_F32, &inner));
    uint16_t *to = o->c;
    const float *from = converted_c.floats;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < o->m; r++)
#pragma omp simd
        for (int64_t i = 0; i < o->n; i++) to[r * o->ldc + i] = lam_bf16_from_float(from[r * o->n + i]);
    return LAM_OK;
}

lam_status lam_gemm_packed(lam_gemm_type type, const lam_gemm_operands *o) {
    if (o->m <= 0 || o->n <= 0) return LAM_OK;
    if (type == LAM_GEMM_BF16 && !lam_gemm_bf16_native()) return packed_converted(o);
    key wanted = key_of(o->m, o->n, o->k, o->lda, 0, o->ldc);
    wanted.in = wanted.out = type == LAM_GEMM_BF16 ? dnnl_bf16 : dnnl_f32;
    wanted.packed = true;
    wanted.bias = o->bias != NULL;
    wanted.accumulate = o->accumulate;
    return run_product(&wanted, o->a, o->packed, o->bias, o->c);
}

static lam_status gradient_converted(const lam_gemm_gradients *o, int64_t m) {
    LAM_TRY(convert(&converted_a, o->a, o->k, m, o->lda));
    LAM_TRY(convert(&converted_b, o->b, o->k, o->n, o->ldb));
    lam_gemm_gradients inner = *o;
    inner.a = converted_a.floats;
    inner.lda = m;
    inner.b = converted_b.floats;
    inner.ldb = o->n;
    return lam_gemm_gradient(LAM_GEMM_F32, &inner);
}

/* Of copies, A is turned and B packed. oneDNN multiplies fast only where the rows of A touch, so k grows to the stride of the
 * turned A, by zeros. */
lam_status lam_gemm_gradient(lam_gemm_type type, const lam_gemm_gradients *o) {
    bool bf16 = type == LAM_GEMM_BF16;
    int64_t m = 0, padded_k = lam_gemm_turned_stride(bf16, o->k),
            element = bf16 ? sizeof(uint16_t) : sizeof(float);
    for (int i = 0; i < o->parts; i++) m += o->part[i].m;
    if (m <= 0 || o->n <= 0) return LAM_OK;
    if (o->k > 0 && bf16 && !lam_gemm_bf16_native()) return gradient_converted(o, m);
    dnnl_memory_desc_t format;
    lam_gemm_blocks blocks;
    bool copies = copies_pay(o, bf16);
    if (copies) LAM_TRY(packed_format(stored_type(type), padded_k, o->n, &format));
    if (copies) copies = lam_gemm_blocks_of(&format, &blocks);
    bool summed = false;
    for (int i = 0; i < o->parts; i++) summed = summed || o->part[i].sums;
    if (summed) LAM_TRY(lam_gemm_scratch_grow(&column_sums, m));
    if (copies) {
        LAM_TRY(lam_gemm_scratch_grow(&turned_a, m * padded_k * element / (int64_t)sizeof(float)));
        LAM_TRY(
            lam_gemm_scratch_grow(&packed_b, (int64_t)(dnnl_memory_desc_get_size(&format) / sizeof(float))));
    }
    lam_gemm_source b = {.data = o->b, .stride = o->ldb, .bf16 = bf16};
    float *sums = summed ? column_sums.floats : NULL, *turned = copies ? turned_a.floats : NULL,
          *packed = packed_b.floats; /* of this thread, for all */
    if (copies || summed)
#pragma omp parallel
    {
        lam_gemm_turn(o->a, bf16, o->k, m, o->lda, turned, sums);
        if (copies) lam_gemm_pack_blocks(&blocks, &b, o->k, padded_k, o->n, packed);
    }
    for (int64_t i = 0, at = 0; i < o->parts; at += o->part[i].m, i++) {
        int64_t rows = o->part[i].m;
        float *c = o->part[i].c;
        for (int64_t r = 0; r < rows && o->part[i].sums; r++) o->part[i].sums[r] += sums[at + r];
        if (!c || rows <= 0) continue;
        const char *a = copies ? (const char *)turned + (size_t)(at * padded_k * element)
                               : (const char *)o->a + (size_t)(at * element);
        if (!copies && (!bf16 || o->k <= 0)) {
            LAM_TRY(lam_gemm_f32(true, false, rows, o->n, o->k, (const float *)(const void *)a, o->lda, o->b,
                                 o->ldb, o->part[i].accumulate ? 1.0f : 0.0f, c, o->n));
            continue;
        }
        key wanted = copies ? key_of(rows, o->n, padded_k, padded_k, 0, o->n)
                            : key_of(rows, o->n, o->k, o->lda, o->ldb, o->n);
        if (bf16) wanted.in = dnnl_bf16;
        wanted.packed = copies;
        wanted.transposed_a = !copies;
        wanted.accumulate = o->part[i].accumulate;
        LAM_TRY(run_product(&wanted, a, copies ? packed : o->b, NULL, c));
    }
    return LAM_OK;
}

void lam_gemm_packed_release(void) {
    forget_products();
    while (repack_count) repack_free(&repacks[--repack_count]);
    struct lam_gemm_scratch *all[] = {&joined,   &converted_a, &converted_b, &converted_c,
                                      &turned_a, &packed_b,    &column_sums};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        lam_free(all[i]->floats);
        *all[i] = (struct lam_gemm_scratch){0};
    }
    if (stream) dnnl_stream_destroy(stream);
    if (engine) dnnl_engine_destroy(engine);
    stream = NULL;
    engine = NULL;
}
