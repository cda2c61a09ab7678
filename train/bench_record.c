#include "train/bench_record.h"

#include <cpuid.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cli.h"
#include "base/gemm.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "model/estimate.h"
#include "train/bench_network.h"
#include "train/limit.h"

enum {
    MOST_OPERATIONS = 128,
    MOST_PROFILED = 5 /* on a device, where these steps come behind those that are timed as a whole */
};

/* Memory for the triad: as much as the step walks through, within these bounds. */
#define LEAST_TRIAD ((size_t)48 << 20)
#define MOST_TRIAD ((size_t)1 << 30)

typedef struct measurement {
    const lam_bench_settings *settings;
    lam_bench_network network;
    lam_gemm_limit limit;
    double memory_limit, peak; /* bytes a second; MiB */
    double first_step;         /* seconds since the start */
    double *seconds;           /* [steps] */
    int64_t profiled;          /* steps of which each operation is timed */
    double *by_operation;      /* [MOST_OPERATIONS, profiled] seconds */
    lam_op_time operations[MOST_OPERATIONS];
    int64_t operation_count;
} measurement;

double lam_peak_mebibytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static void cpu_name(char name[49]) {
    unsigned words[12] = {0};
    for (unsigned i = 0; i < 3; i++)
        __get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]);
    memcpy(name, words, 48);
    name[48] = 0;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int64_t count) {
    qsort(values, (size_t)count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* ---- measuring ---- */

lam_recompute lam_bench_recompute(const char *name) {
    return !strcmp(name, "block")       ? LAM_RECOMPUTE_BLOCK
           : !strcmp(name, "norm_gelu") ? LAM_RECOMPUTE_NORM_GELU
                                        : LAM_RECOMPUTE_NONE;
}

/* Beside the graph's: AdamW reads weights, gradients and two moments and writes three. */
static int64_t add_update(const lam_bench_network *n, lam_op_time *times, int64_t count) {
    double bytes = (double)n->parameters->trainable * sizeof(float);
    times[count] =
        (lam_op_time){.op = "optimizer", .calls = 1, .seconds = n->update_seconds, .bytes = 7 * bytes};
    return count + 1;
}

static lam_status time_steps(measurement *m) {
    if (m->network.device) LAM_TRY(lam_bench_network_steps(&m->network, m->settings->steps, m->seconds));
    for (int64_t i = 0; i < m->profiled; i++) {
        lam_graph_profile(m->network.graph, true); /* each step by itself */
        if (m->network.device)
            LAM_TRY(lam_bench_network_profile(&m->network));
        else
            LAM_TRY(lam_bench_network_steps(&m->network, 1, m->seconds + i));
        m->operation_count =
            add_update(&m->network, m->operations,
                       lam_graph_op_times(m->network.graph, m->operations, MOST_OPERATIONS - 1));
        for (int64_t k = 0; k < m->operation_count; k++)
            m->by_operation[k * m->profiled + i] = m->operations[k].seconds;
    }
    for (int64_t k = 0; k < m->operation_count; k++)
        m->operations[k].seconds = median(m->by_operation + k * m->profiled, m->profiled);
    return LAM_OK;
}

static lam_status measure(measurement *m) {
    const lam_bench_settings *s = m->settings;
    bool on_host = s->backend == lam_backend_cpu();
    m->profiled = on_host || s->steps < MOST_PROFILED ? s->steps : MOST_PROFILED;
    LAM_TRY(lam_alloc_array((void **)&m->seconds, s->steps, sizeof *m->seconds));
    LAM_TRY(
        lam_alloc_array((void **)&m->by_operation, MOST_OPERATIONS * m->profiled, sizeof *m->by_operation));
    LAM_TRY(lam_bench_network_open(&m->network, s->backend, s->autotune, s->model, s->batch, s->bf16 ? LAM_BF16 : LAM_F32,
                                   lam_bench_recompute(s->recompute), s->drop_path));
    LAM_TRY(lam_bench_network_steps(&m->network, 1, m->seconds)); /* caches and code are warm after it */
    m->first_step = lam_now() - s->start;
    for (int64_t i = 1; i < s->warmup; i++) LAM_TRY(lam_bench_network_steps(&m->network, 1, m->seconds));
    m->peak = lam_peak_mebibytes();
    if (m->network.device) {
        const lam_device_limits *known = lam_device_limits_find(lam_backend_device(s->backend));
        m->limit.flops_per_s = known ? (s->bf16 ? known->bf16_flops_per_s : known->f32_flops_per_s) : 0;
        m->memory_limit = known ? known->bytes_per_s : 0;
        return time_steps(m);
    }
    LAM_TRY(lam_gemm_limit_measure(m->network.graph, 1, s->limit_seconds, &m->limit));
    lam_memory_report memory;
    lam_graph_memory(m->network.graph, &memory);
    size_t walked = memory.total < LEAST_TRIAD ? LEAST_TRIAD : memory.total;
    LAM_TRY(
        lam_memory_limit(walked > MOST_TRIAD ? MOST_TRIAD : walked, s->limit_seconds / 4, &m->memory_limit));
    return time_steps(m);
}

static void close_measurement(measurement *m) {
    lam_bench_network_close(&m->network);
    lam_gemm_limit_free(&m->limit);
    lam_free(m->seconds);
    lam_free(m->by_operation);
}

/* ---- the record ---- */

/* Of the products; on a device the end of the second line of its plans (model/cuda/products.h). */
static void set_library(lam_json *record, const measurement *m) {
    char library[96], *plans = NULL;
    lam_gemm_library(library, sizeof library);
    if (m->network.device && lam_device_step_plans(m->network.device, &plans) == LAM_OK) {
        const char *name = strstr(plans, "cuBLASLt ");
        name = name ? strstr(name + 1, "cuBLASLt ") : NULL;
        if (name) snprintf(library, sizeof library, "%.*s", (int)strcspn(name, "\n"), name);
    }
    lam_free(plans);
    lam_json_set_text(record, "library", library);
}

static void set_what(lam_json *record, const measurement *m) {
    const lam_bench_settings *s = m->settings;
    char cpu[49];
    cpu_name(cpu);
    lam_json_set_text(record, "bench", "step");
    lam_json_set_text(record, "version", lam_version);
    lam_json_set_text(record, "model", s->model);
    lam_json_set_int(record, "batch", s->batch);
    lam_json_set_text(record, "precision", s->bf16 ? "bf16" : "f32");
    lam_json_set_text(record, "recompute", s->recompute);
    lam_json_set_float(record, "drop_path", s->drop_path);
    lam_json_set_text(record, "device", lam_backend_name(s->backend));
    if (m->network.device) lam_json_set_text(record, "gpu", lam_backend_device(s->backend));
    lam_json_set_text(record, "cpu", cpu);
    lam_json_set_text(record, "isa", lam_isa_name());
    lam_json_set_int(record, "threads", lam_threads());
    set_library(record, m);
    lam_json_set_int(record, "steps", s->steps);
    lam_json_set_int(record, "tokens", lam_tensor_dim(m->network.io.ids_restore, 1));
}

static void set_speed(lam_json *record, measurement *m) {
    double flops = lam_mae_step_flops(&m->network.model),
           kept = lam_mae_kept_share(&m->network.model, m->network.batch), crops = (double)m->network.batch,
           middle = median(m->seconds, m->settings->steps), rate = crops / middle;
    lam_json *spread = lam_json_array(), *libraries = lam_json_array();
    lam_json_append_float(spread, crops / m->seconds[m->settings->steps - 1]);
    lam_json_append_float(spread, crops / m->seconds[0]);
    for (int l = 0; l < LAM_LIMIT_LIBRARIES; l++) {
        if (!(m->limit.share[l] > 0)) continue;
        lam_json *library = lam_json_object();
        lam_json_set_text(library, "name", m->limit.library[l]);
        lam_json_set_float(library, "share", m->limit.share[l]);
        lam_json_append(libraries, library);
    }
    lam_json_set_float(record, "first_step_s", m->first_step);
    lam_json_set_float(record, "step_ms", middle * 1e3);
    lam_json_set_float(record, "crops_per_s", rate);
    lam_json_set(record, "spread", spread);
    lam_json_set_float(record, "gflops_per_crop", flops / 1e9);
    lam_json_set_float(record, "kept_share", kept);
    lam_json_set_float(record, "gflops_per_s", rate * flops * kept / 1e9);
    lam_json_set(record, "limit_libraries", libraries);
    if (!(m->limit.flops_per_s > 0)) return;
    lam_json_set_float(record, "limit_gflops_per_s", m->limit.flops_per_s / 1e9);
    lam_json_set_float(record, "share_of_limit", rate * flops * kept / m->limit.flops_per_s);
    lam_json_set_float(record, "memory_gb_per_s", m->memory_limit / 1e9);
}

static void set_memory(lam_json *record, const measurement *m) {
    lam_memory_report r;
    lam_graph_memory(m->network.graph, &r);
    const struct {
        const char *name;
        size_t bytes;
    } owners[] = {
        {"weights", r.weights},
        {"packed", r.packed},
        {"gradients", r.gradients},
        {"optimizer", (size_t)m->network.update_bytes},
        {"activations", r.activations},
        {"activation_gradients", r.activation_gradients},
        {"workspace", r.workspace},
        {"inputs", r.inputs},
        {"arena", r.total}};
    lam_json *memory = lam_json_object();
    for (size_t i = 0; i < sizeof owners / sizeof *owners; i++)
        lam_json_set_float(memory, owners[i].name, (double)owners[i].bytes / 0x1p20);
    lam_json_set_float(record, "peak_MiB", m->peak);
    lam_json_set_float(record, "activations_MiB", (double)r.activations / 0x1p20);
    lam_json_set(record, "memory_MiB", memory);
}

static int slowest_first(const void *a, const void *b) {
    double x = ((const lam_op_time *)a)->seconds, y = ((const lam_op_time *)b)->seconds;
    return (x < y) - (x > y);
}

static const char *pass_of(const lam_op_time *t) {
    if (!strcmp(t->op, "optimizer")) return "update";
    return t->again ? "again" : t->backward ? "backward" : "forward";
}

static void set_operations(lam_json *record, measurement *m) {
    double step = lam_json_float(lam_json_get(record, "step_ms"), 0) / 1e3;
    lam_json *list = lam_json_array();
    qsort(m->operations, (size_t)m->operation_count, sizeof *m->operations, slowest_first);
    for (int64_t i = 0; i < m->operation_count; i++) {
        const lam_op_time *t = &m->operations[i];
        double flops = t->flops / t->seconds, bytes = t->bytes / t->seconds;
        lam_json *operation = lam_json_object();
        lam_json_set_text(operation, "op", t->op);
        lam_json_set_text(operation, "pass", pass_of(t));
        lam_json_set_int(operation, "calls", t->calls);
        lam_json_set_float(operation, "ms", t->seconds * 1e3);
        lam_json_set_float(operation, "share_of_step", t->seconds / step);
        lam_json_set_float(operation, "gflops_per_s", flops / 1e9);
        lam_json_set_float(operation, "gb_per_s", bytes / 1e9);
        if (m->limit.flops_per_s > 0)
            lam_json_set_float(operation, "share_of_limit",
                               t->flops > 0 ? flops / m->limit.flops_per_s : bytes / m->memory_limit);
        lam_json_append(list, operation);
    }
    lam_json_set(record, "operations", list);
}

static void set_products(lam_json *record, const lam_gemm_limit *limit) {
    lam_json *list = lam_json_array();
    for (int64_t i = 0; i < limit->count; i++) {
        const lam_limit_product *p = &limit->products[i];
        lam_json *product = lam_json_object();
        lam_json_set_text(product, "kind", p->kind);
        lam_json_set_int(product, "m", p->m);
        lam_json_set_int(product, "n", p->n);
        lam_json_set_int(product, "k", p->k);
        lam_json_set_int(product, "count", p->count);
        lam_json_set_float(product, "gflops_per_s",
                           2 * (double)p->m * (double)p->n * (double)p->k / p->seconds / 1e9);
        lam_json_set_text(product, "library", limit->library[p->library]);
        lam_json_append(list, product);
    }
    lam_json_set(record, "products", list);
}

lam_status lam_bench_measure(const lam_bench_settings *settings, lam_json **record) {
    measurement m = {.settings = settings};
    lam_status status = measure(&m);
    if (status == LAM_OK) {
        *record = lam_json_object();
        set_what(*record, &m);
        set_speed(*record, &m);
        set_memory(*record, &m);
        set_operations(*record, &m);
        set_products(*record, &m.limit);
    }
    close_measurement(&m);
    return status;
}
