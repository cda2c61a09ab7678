/* Graphs: what a capture has recorded, instantiated as a plan and run in an order that only its edges restrain. */
#include "order.h"
#include <algorithm>
#include <unordered_map>

struct handle {
    CUgraph_st *graph;
    unsigned default_value, flags, value;
    bool has_value, used;
};
static std::vector<handle> &handles(void) {
    static std::vector<handle> all;
    return all;
}
static const cudaGraphConditionalHandle FIRST_HANDLE =
    0x1000; /* so that 0 and other small numbers are none */
static handle *find_handle(cudaGraphConditionalHandle number) {
    size_t index = static_cast<size_t>(number - FIRST_HANDLE);
    return number >= FIRST_HANDLE && index < handles().size() ? &handles()[index] : nullptr;
}
static uint64_t random_state = 11;

CUgraphNode_st *lam_graph_add(CUgraph_st *graph, cudaGraphNodeType type, lam_work *work,
                              const std::vector<CUgraphNode_st *> &dependencies) {
    auto node = std::make_unique<CUgraphNode_st>();
    node->type = type;
    node->graph = graph;
    node->work = work;
    node->dependencies = dependencies;
    graph->nodes.push_back(std::move(node));
    return graph->nodes.back().get();
}

static void destroy(CUgraph_st *graph) {
    for (auto &node : graph->nodes) {
        if (node->work) lam_work_free(node->work);
        for (cudaGraph_t body : node->bodies) destroy(body);
    }
    for (handle &h : handles())
        if (h.graph == graph) h.graph = nullptr;
    delete graph;
}

lam_plan::~lam_plan() {
    for (lam_step &step : steps)
        if (step.work) lam_work_free(step.work);
}

/* Bodies of conditional nodes hold work of the device alone. */
static cudaError_t make_plan(const CUgraph_st *graph, bool is_body, std::shared_ptr<lam_plan> *out) {
    auto plan = std::make_shared<lam_plan>();
    std::unordered_map<const CUgraphNode_st *, int> places;
    for (size_t i = 0; i < graph->nodes.size(); i++) {
        const CUgraphNode_st &node = *graph->nodes[i];
        places[&node] = static_cast<int>(i);
        lam_step step = {};
        step.type = node.type;
        if (is_body && node.type == cudaGraphNodeTypeHost) return cudaErrorNotSupported;
        if (node.work) {
            const lam_work &work = *node.work;
            if (is_body && ((work.from_host && !lam_pinned_find(work.source)) ||
                            (work.to_host && !lam_pinned_find(work.target))))
                return cudaErrorNotSupported;
            step.work = lam_work_copy(node.work);
        }
        for (const CUgraphNode_st *before : node.dependencies) {
            step.dependencies.push_back(places.at(before));
            plan->steps[static_cast<size_t>(places.at(before))].followers.push_back(static_cast<int>(i));
        }
        step.conditional = node.conditional;
        if (node.child) step.bodies.push_back(node.child);
        plan->steps.push_back(std::move(step));
        if (node.type == cudaGraphNodeTypeConditional) {
            plan->handles.push_back(node.conditional.handle);
            for (cudaGraph_t body : node.bodies) {
                std::shared_ptr<lam_plan> inner;
                cudaError_t error = make_plan(body, true, &inner);
                if (error != cudaSuccess) return error;
                plan->handles.insert(plan->handles.end(), inner->handles.begin(), inner->handles.end());
                plan->steps.back().bodies.push_back(std::move(inner));
            }
        }
    }
    plan->before.assign(plan->steps.size(), std::vector<bool>(plan->steps.size()));
    for (size_t i = 0; i < plan->steps.size(); i++)
        for (int before : plan->steps[i].dependencies) {
            size_t b = static_cast<size_t>(before);
            for (size_t k = 0; k < b; k++)
                if (plan->before[b][k]) plan->before[i][k] = true;
            plan->before[i][b] = true;
        }
    *out = std::move(plan);
    return cudaSuccess;
}

void lam_plan_enqueued(lam_plan *plan) {
    for (lam_step &step : plan->steps) {
        if (step.work) lam_work_enqueued(step.work, true);
        if (step.type == cudaGraphNodeTypeGraph) lam_plan_enqueued(step.bodies[0].get());
    }
}

static unsigned condition(const lam_step &step) {
    handle *h = find_handle(step.conditional.handle);
    if (!h || !h->has_value) {
        lam_emulated_report("a conditional node of a graph reads a handle that no kernel has set");
        return 0;
    }
    return h->value;
}

static void run_steps(lam_plan *plan);
static void run_step(lam_step &step) {
    if (step.work) {
        lam_work_run(step.work);
        lam_work_done(step.work);
    }
    if (step.type == cudaGraphNodeTypeGraph) lam_plan_run(step.bodies[0].get());
    if (step.type != cudaGraphNodeTypeConditional) return;
    unsigned value = condition(step), size = step.conditional.size;
    switch (step.conditional.type) {
    case cudaGraphCondTypeIf:
        if (value)
            run_steps(step.bodies[0].get());
        else if (size == 2)
            run_steps(step.bodies[1].get());
        break;
    case cudaGraphCondTypeWhile:
        for (; value && lam_device_error() == cudaSuccess; value = condition(step))
            run_steps(step.bodies[0].get());
        break;
    case cudaGraphCondTypeSwitch:
        if (value < size) run_steps(step.bodies[value].get());
        break;
    }
}

static void run_steps(lam_plan *plan) {
    lam_order_enter(plan);
    plan->waits_for.clear();
    plan->ready.clear();
    for (size_t i = 0; i < plan->steps.size(); i++) {
        plan->waits_for.push_back(static_cast<int>(plan->steps[i].dependencies.size()));
        if (plan->steps[i].dependencies.empty()) plan->ready.push_back(static_cast<int>(i));
    }
    while (!plan->ready.empty() && lam_device_error() == cudaSuccess) {
        auto chosen = plan->ready.begin();
        switch (lam_emulated_setting().streams) {
        case LAM_STREAMS_REVERSED: chosen = std::max_element(plan->ready.begin(), plan->ready.end()); break;
        case LAM_STREAMS_SHUFFLED: chosen += lam_emulated_random(&random_state) % plan->ready.size(); break;
        default: chosen = std::min_element(plan->ready.begin(), plan->ready.end()); break;
        }
        int now = *chosen;
        *chosen = plan->ready.back();
        plan->ready.pop_back();
        lam_order_step(now);
        run_step(plan->steps[static_cast<size_t>(now)]);
        for (int next : plan->steps[static_cast<size_t>(now)].followers)
            if (--plan->waits_for[static_cast<size_t>(next)] == 0) plan->ready.push_back(next);
    }
    lam_order_leave();
}

void lam_plan_run(lam_plan *plan) {
    for (cudaGraphConditionalHandle number : plan->handles) {
        handle *h = find_handle(number);
        if (h && h->flags & cudaGraphCondAssignDefault) h->value = h->default_value, h->has_value = true;
    }
    run_steps(plan);
}

extern "C" {

cudaError_t cudaGraphCreate(cudaGraph_t *graph, unsigned) {
    LAM_ENTER;
    *graph = new CUgraph_st();
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    LAM_ENTER;
    if (!graph || graph->parent) return lam_remember(cudaErrorInvalidValue);
    destroy(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    LAM_ENTER;
    if (!graph || !count) return lam_remember(cudaErrorInvalidValue);
    if (nodes)
        for (size_t i = 0; i < *count; i++)
            nodes[i] = i < graph->nodes.size() ? graph->nodes[i].get() : nullptr;
    if (!nodes || *count > graph->nodes.size()) *count = graph->nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType *type) {
    LAM_ENTER;
    *type = node->type;
    return cudaSuccess;
}

cudaError_t cudaGraphConditionalHandleCreate(cudaGraphConditionalHandle *number, cudaGraph_t graph,
                                             unsigned default_value, unsigned flags) {
    LAM_ENTER;
    if (!graph || flags & ~static_cast<unsigned>(cudaGraphCondAssignDefault))
        return lam_remember(cudaErrorInvalidValue);
    *number = FIRST_HANDLE + handles().size();
    handles().push_back({graph, default_value, flags, 0, false, false});
    return cudaSuccess;
}

cudaError_t cudaGraphAddNode(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *dependencies,
                             const cudaGraphEdgeData *, size_t count, cudaGraphNodeParams *parameters) {
    LAM_ENTER;
    if (!graph || !parameters) return lam_remember(cudaErrorInvalidValue);
    if (parameters->type != cudaGraphNodeTypeConditional && parameters->type != cudaGraphNodeTypeEmpty)
        return lam_remember(cudaErrorNotSupported);
    for (size_t i = 0; i < count; i++)
        if (dependencies[i]->graph != graph) return lam_remember(cudaErrorInvalidValue);
    cudaConditionalNodeParams &given = parameters->conditional;
    handle *h = nullptr;
    if (parameters->type == cudaGraphNodeTypeConditional) {
        h = find_handle(given.handle);
        bool known = false;
        for (CUgraph_st *g = graph; g && h; g = g->parent) known |= g == h->graph;
        bool fits = given.type == cudaGraphCondTypeIf      ? given.size == 1 || given.size == 2
                    : given.type == cudaGraphCondTypeWhile ? given.size == 1
                                                           : given.size > 0;
        if (!known || h->used || !fits) return lam_remember(cudaErrorInvalidValue);
        h->used = true;
    }
    CUgraphNode_st *added = lam_graph_add(graph, parameters->type, nullptr,
                                          std::vector<CUgraphNode_st *>(dependencies, dependencies + count));
    if (h) {
        for (unsigned i = 0; i < given.size; i++) {
            CUgraph_st *body = new CUgraph_st();
            body->parent = graph;
            added->bodies.push_back(body);
        }
        given.phGraph_out = added->bodies.data();
        added->conditional = given;
    }
    *node = added;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
    LAM_ENTER;
    *executable = nullptr;
    if (!graph) return lam_remember(cudaErrorInvalidValue);
    std::shared_ptr<lam_plan> plan;
    cudaError_t error = make_plan(graph, false, &plan);
    if (error != cudaSuccess) return lam_remember(error);
    *executable = new CUgraphExec_st{std::move(plan)};
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream) {
    LAM_ENTER;
    if (!executable || !lam_stream_is_valid(stream)) return lam_remember(cudaErrorInvalidValue);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    LAM_ENTER;
    if (!executable || !lam_stream_is_valid(stream)) return lam_remember(cudaErrorInvalidValue);
    return lam_remember(lam_submit_plan(stream, executable->plan));
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    LAM_ENTER;
    if (!executable) return lam_remember(cudaErrorInvalidValue);
    delete executable;
    return cudaSuccess;
}

void cudaGraphSetConditional(cudaGraphConditionalHandle number, unsigned value) {
    handle *h = find_handle(number);
    if (!h)
        lam_emulated_report("cudaGraphSetConditional: %llu is no handle", number);
    else
        h->value = value, h->has_value = true;
}
}
