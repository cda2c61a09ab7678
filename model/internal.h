/* What the graph and the operations share; no other directory includes it.
 *
 * An operation is a table entry: what it is called, which of its tensors its backward rule reads (that
 * decides lifetimes), and its two kernels. Forward step i runs at time i, its backward rule at 2n - 1 - i. */
#ifndef LAMELLA_MODEL_INTERNAL_H
#define LAMELLA_MODEL_INTERNAL_H

#include "model/backend.h"
#include "model/cpu/kernels.h"
#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_MAX_INPUTS 8
#define LAM_MAX_OUTPUTS 3

typedef struct lam_node lam_node;

struct lam_tensor {
    char name[96];
    lam_dtype dtype;
    int rank;
    int64_t shape[LAM_MAX_RANK];
    int64_t count;
    void *data;
    void *gradient; /* the tensor's type, F32 for parameters; NULL where none is needed */
    const lam_parameter_entry *parameter; /* NULL: an activation or input */
    lam_parameters *parameters;           /* that it belongs to */
    lam_node *producer;                   /* NULL: input or parameter */
    lam_tensor *bound;                    /* [1] I64: actual rows of dimension 0 */
    bool requires_gradient, kept, kept_forward, is_input, gradient_written;
    bool gradient_summed; /* who wrote the gradient last has added up its columns for the biases before it */
    bool
        gradient_in_place; /* the gradient overwrites the data, whose last reader is the gradient's first writer */
    lam_tensor *gradient_of; /* whose gradient this one's adds to, in the same memory; NULL: it has its own */
    int64_t gradient_end;    /* time of the last reader of that memory */
    lam_node *first_reader, *last_reader; /* of the nodes that pass gradients: the last and the first to write the gradient */
    bool is_part;          /* rows of a parameter */
    /* Of a row count: what is expected of it, for the choice of buckets; the one that is being recorded, 0: the maximum. */
    double likely, spread;
    int64_t bucket;
    const lam_backend *backend; /* whose memory `data` and `gradient` are in */
    /* Not on the host: what callers of lam_tensor_data write (inputs, in the staging memory of the graph) or get to read. */
    void *host;
    const void *sent_from; /* of an input: what goes instead of `host`; NULL: that */
    int64_t last_forward_use, last_backward_use, first_gradient_use; /* times; -1: never */
    int64_t consumers; /* nodes that take it, counted as often as they do */
    /* Recomputed tensors live twice, at two addresses: from birth to the last forward use, and from the recomputation to the
     * last backward use. */
    void *places[2];
    int64_t first_backward_use; /* -1: never */
    bool recomputed;
};

/* Weights rounded to bfloat16 at random: up with the probability of the part that is cut off. */
typedef struct lam_rounding {
    bool on;
    uint64_t seed;
    uint32_t step;
    const float *weights; /* the arena: elements are counted from here */
} lam_rounding;

/* to[i] = values[i] rounded so, by the draw that belongs to weights[i]; values that are not finite stay what they are. values
 * are the weights themselves or what is made of them; to may be values. */
void lam_round_at_random(const lam_rounding *rounding, const float *weights, const float *values,
                         int64_t count, float *to);

typedef struct lam_op {
    const char *name;
    uint32_t backward_reads_inputs,
        backward_reads_outputs; /* bit i: the backward rule reads input or output i */
    uint32_t
        gradients_in_place; /* bit i: what backward needs of input i it has read where it writes the gradient of input i */
    uint32_t gradients_pass; /* bit i: the gradient of input i is that of output 0, which backward has read by then, and
                              * what other nodes add */
    lam_status (*forward)(lam_node *node);
    lam_status (*backward)(lam_node *node); /* NULL: no gradient passes */
    double (*flops)(const lam_node *node);  /* of forward; NULL: 0 */
    /* Recomputes the outputs of again_outputs (bits) from what backward keeps anyway, the same bits as forward (but for GELU
     * on CUDA, lam_graph_set_recompute); NULL: the op offers no such thing. */
    void (*again)(lam_node *node);
    uint32_t again_outputs;
    uint32_t again_inputs; /* bits: those that it reads */
    /* Fills node->packed from the weights; before the forward pass, unless the graph holds its weights. NULL: nothing. */
    lam_status (*prepare)(lam_node *node);
    uint32_t picked_inputs; /* bit i: of input i forward reads as much as it writes (counts of bytes) */
} lam_op;

/* What a node runs: those functions that the backend has for an operation of that name, the operation's own where it has NULL. */
typedef struct lam_op_functions {
    const char *name;
    /* Sets the bytes that the node needs on this backend; called before the plan. NULL: those of the operation. */
    void (*sizes)(lam_node *node);
    lam_status (*forward)(lam_node *node);
    lam_status (*backward)(lam_node *node);
    void (*again)(lam_node *node);
    lam_status (*prepare)(lam_node *node);
} lam_op_functions;

/* Memory and work of a device. Work is done in the order in which it is given; only `read` and `synchronise` wait for it. */
struct lam_backend {
    const char *name;
    bool on_host; /* device memory is host memory */
    size_t alignment; /* of what the plan places */
    const lam_kernels *(*kernels)(bool bf16);
    const lam_op_functions *(*find)(const char *op); /* NULL, or returns NULL: the operation's own */
    lam_status (*allocate)(void **out, size_t bytes); /* LAM_ERROR_MEMORY */
    void (*release)(void *memory);
    lam_status (*allocate_pinned)(void **out, size_t bytes); /* host memory that the device copies from by itself */
    void (*release_pinned)(void *memory);
    lam_status (*read)(void *host, const void *device, size_t bytes);
    lam_status (*write)(void *device, const void *host, size_t bytes); /* the host's bytes as they are now */
    lam_status (*synchronise)(void);
    lam_status (*error)(void); /* the first that has occurred since the last call */
    /* Sends a graph's inputs behind what is running: they arrive before what is given next. The pinned bytes must not change
     * until sent() returns. */
    lam_status (*send)(void *device, const void *pinned, size_t bytes);
    lam_status (*taken)(void); /* what has been sent was copied from where it arrives */
    lam_status (*sent)(void);
    /* What is given from here on is recorded instead of done, and done at each replay. */
    lam_status (*record)(void);
    lam_status (*recorded)(lam_recording **out);
    lam_status (*replay)(lam_recording *recording);
    void (*forget)(lam_recording *recording); /* NULL allowed */
    /* In a recording: of `count` alternatives, each begun by choice(k), the replay does the first whose limits[k] is at least
     * value[0] in device memory; chosen() ends the last. */
    lam_status (*choose)(const int64_t *value, const int64_t *limits, int count);
    lam_status (*choice)(int k);
    lam_status (*chosen)(void);
    lam_status (*mark)(int slot); /* as in model/backend.h */
    lam_status (*reached)(int slot, bool *yes);
    lam_status (*await)(int slot);
    void *(*stream)(void);
    void (*set_step)(int64_t step); /* for stochastic rounding: read by kernels from device memory */
    /* Before a forward pass, `prepare` of the nodes that have one and are not packed before, nor, in a recorded pass, by the update,
     * in few launches; NULL: of each node before it runs. */
    lam_status (*prepare)(struct lam_node *const *nodes, int64_t count, bool recording);
    const char *(*device)(void);
    void (*memory)(size_t *free, size_t *total);
};
typedef lam_status lam_cuda_open_function(const lam_backend **out, int device);

/* What is timed apart: an operation forward, backward, and forward once more for the backward pass. */
typedef enum lam_pass { LAM_PASS_FORWARD, LAM_PASS_BACKWARD, LAM_PASS_AGAIN, LAM_PASSES } lam_pass;

struct lam_node {
    const lam_op *op;
    lam_op_functions run;
    const lam_backend *backend;
    const lam_kernels *kernels;
    const lam_rounding *rounding; /* of the graph */
    lam_tensor *inputs[LAM_MAX_INPUTS], *outputs[LAM_MAX_OUTPUTS];
    int input_count, output_count;
    int64_t integers[8]; /* attributes of the operation */
    double numbers[4];
    size_t saved_bytes, forward_workspace_bytes, backward_workspace_bytes;
    void *saved;                                  /* kept from forward to backward */
    void *saved_places[2];                        /* as lam_tensor's */
    int64_t block;                                /* it belongs to, from 1 on; 0: none */
    bool recomputed;                              /* its forward runs again in the backward pass */
    void *forward_workspace, *backward_workspace; /* scratch of one step */
    void *workspace_places[2];                    /* of the forward workspace, as lam_tensor's */
    size_t packed_bytes[2]; /* of weights prepared for the forward and the backward pass */
    bool packed_before;     /* by an earlier node of the graph, from the same weights into the same room */
    bool packed_by_update;  /* recorded passes leave it to the update, which writes `packed` with the weights */
    void *packed[2];
    lam_product products[2]; /* of linear maps, count 1; count 0: none */
    struct {
        double seconds, flops, bytes;
        int64_t calls;
    } done[LAM_PASSES];
};

/* For operations. lam_node_add returns NULL after a failure. */
lam_node *lam_node_add(lam_graph *graph, const lam_op *op, int inputs, lam_tensor *const *input);
lam_tensor *lam_node_output(lam_graph *graph, lam_node *node, lam_dtype dtype, int rank,
                            const int64_t *shape);
/* Ends building with a message; every later call returns NULL. A fault of ours; what the configuration asks for and the backend
 * does not have. */
void lam_graph_fail(lam_graph *graph, const char *format, ...) __attribute__((format(printf, 2, 3)));
void lam_graph_refuse(lam_graph *graph, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Of linear maps: what the result is added to, the last input where the operation passes that one's gradient on; NULL: nothing. */
static inline lam_tensor *lam_node_residual(const lam_node *node) {
    return node->op->gradients_pass ? node->inputs[node->input_count - 1] : NULL;
}
/* Rows of the tensor seen as [rows, last dimension], by its bound where it has one. */
int64_t lam_tensor_rows(const lam_tensor *tensor);
int64_t lam_tensor_width(const lam_tensor *tensor); /* last dimension */
/* The gradient buffer of an input, and whether the kernel must add to it (true) or write it (false).
 * Parameters are always added to. NULL: not needed. */
void *lam_gradient_target(lam_tensor *tensor, bool *add);
/* The same for a parameter that the first writer of a step may write: large ones, of which zeros would take long. */
float *lam_weight_gradient_target(lam_tensor *tensor, bool *add);
/* Passes the first `count` elements of an activation's gradient on to the gradient of `to`, where that is wanted. */
void lam_gradient_pass(const lam_node *node, lam_tensor *to, const void *gradient, int64_t count);
/* Mean and reciprocal deviation that each row of a target is standardised with: unbiased variance + 1e-6. */
void lam_target_scales(const float *target, int64_t rows, int64_t length, float *mean, float *rstd);
int64_t lam_masked_count(const float *mask, int64_t tokens);
/* Of a node of attention, normed_attention or cross_attention; the second for its backward pass, whose gradients count as written
 * then. */
lam_attention_shape lam_attention_shape_of(const lam_node *node);
lam_attention_tensors lam_attention_tensors_of(lam_node *node);
/* Of a node of fourier_loss. */
lam_fourier_shape lam_fourier_shape_of(const lam_node *node);
lam_node *const *lam_graph_nodes(const lam_graph *graph,
                                 int64_t *count); /* in the order of the forward pass */
/* Arithmetic of the matrix products of one run, and bytes that it reads and writes, each once. */
void lam_node_work(const lam_node *node, lam_pass pass, double *flops, double *bytes);
/* Adds a run of an operation that took `seconds` to what it has done (model/profile.c). */
void lam_profile_add(lam_node *node, lam_pass pass, double seconds);
/* The graph's activation type. */
static inline bool lam_is_real(lam_dtype dtype) { return dtype == LAM_F32 || dtype == LAM_BF16; }
size_t lam_dtype_bytes(lam_dtype dtype);

#ifdef __cplusplus
}
#endif
#endif
