/* Streams, events, capture.
 *
 * Work waits in the queue of its stream until somebody waits for it; what then runs first is only bound by the order in
 * each stream and by events (LAMELLA_EMULATION_STREAMS):
 *
 *     reversed    first whatever other streams can do, latest stream first: shows work that should have waited for the
 *                 stream that is waited for
 *     lazy        only what the stream that is waited for needs: shows work that should have waited for other streams
 *     shuffled    any of it
 *     eager       everything at once, in the order of the calls: shows nothing */
#include "check.h"
#include "order.h"
#include <algorithm>
#include <thread>
#include <time.h>

struct record {
    CUstream_st *stream;
    uint64_t position; /* done when the stream has executed so many items */
    double seconds;
    bool done;
    lam_clock clock;
};
struct item {
    lam_work *work;
    std::shared_ptr<lam_plan> plan;
    std::shared_ptr<record> mark;
    bool waits; /* for the mark, else it sets it */
    std::shared_ptr<const lam_clock>
        host; /* what was done for the host at the call; NULL where nothing is checked */
};
struct capture {
    CUgraph_st *graph;
    CUstream_st *origin;
    std::thread::id thread;
    cudaStreamCaptureMode mode;
    unsigned long long id;
    bool invalid, to_given_graph;
};
struct CUstream_st {
    int number;
    unsigned flags;
    std::deque<item> queue;
    uint64_t enqueued, executed;
    std::shared_ptr<capture> session;
    std::vector<cudaGraphNode_t> dependencies;
    lam_clock clock;
};
struct CUevent_st {
    unsigned flags;
    std::shared_ptr<record> last;
    std::shared_ptr<capture> session; /* where the last record was captured */
    std::vector<cudaGraphNode_t> dependencies;
};

enum { QUEUE_MOST = 1024 };
static std::vector<CUstream_st *> &streams(void) {
    static CUstream_st legacy = {};
    static std::vector<CUstream_st *> all = {&legacy};
    return all;
}
static int stream_count;
static unsigned long long capture_count;
static uint64_t random_state = 7;
static thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

static CUstream_st *object(cudaStream_t stream) {
    if (stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) return streams()[0];
    return stream;
}
static bool is_legacy(const CUstream_st *s) { return s == streams()[0]; }
static bool is_blocking(const CUstream_st *s) { return !is_legacy(s) && !(s->flags & cudaStreamNonBlocking); }
bool lam_stream_is_valid(cudaStream_t stream) {
    return std::find(streams().begin(), streams().end(), object(stream)) != streams().end();
}
bool lam_is_captured(cudaStream_t stream) { return object(stream)->session != nullptr; }

/* What the host knows to be done. */
static std::shared_ptr<lam_clock> host_clock;
static void host_learns(const lam_clock &clock) {
    if (!lam_emulated_is_checked()) return;
    auto learned = std::make_shared<lam_clock>(clock); /* a new one: items hold the old */
    if (host_clock) lam_clock_join(learned.get(), *host_clock);
    host_clock = std::move(learned);
}

static double seconds(void) {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/* ---- what runs when ---- */

static bool is_blocked(const CUstream_st *s) {
    return s->queue.front().waits && !s->queue.front().mark->done;
}

static void run_head(CUstream_st *s) {
    item head = std::move(s->queue.front());
    s->queue.pop_front();
    if (head.host) lam_clock_join(&s->clock, *head.host);
    if (head.waits) lam_clock_join(&s->clock, head.mark->clock);
    if (lam_emulated_is_checked() && (head.work || head.plan)) lam_order_begin_item(s->number, &s->clock);
    if (lam_device_error() == cudaSuccess) {
        if (head.work) lam_work_run(head.work);
        if (head.plan) lam_plan_run(head.plan.get());
    }
    if (head.work) {
        lam_work_done(head.work);
        lam_work_free(head.work);
    }
    s->executed++;
    if (head.mark && !head.waits) {
        head.mark->done = true;
        head.mark->clock = s->clock;
        head.mark->seconds = seconds();
    }
}

static void run_needed(CUstream_st *s, uint64_t position) {
    while (s->executed < position) {
        if (is_blocked(s)) {
            std::shared_ptr<record> mark = s->queue.front().mark;
            run_needed(mark->stream, mark->position);
        }
        run_head(s);
    }
}

static void run_others_first(CUstream_st *wanted, uint64_t position) {
    do {
        for (bool progress = true; progress;) {
            progress = false;
            for (size_t i = streams().size(); i-- > 0;) {
                CUstream_st *s = streams()[i];
                while (s != wanted && !s->queue.empty() && !is_blocked(s)) {
                    run_head(s);
                    progress = true;
                }
            }
        }
        if (wanted->executed < position) run_head(wanted);
    } while (wanted->executed < position);
}

static void run_shuffled(CUstream_st *wanted, uint64_t position) {
    std::vector<CUstream_st *> ready;
    while (wanted->executed < position) {
        ready.clear();
        for (CUstream_st *s : streams())
            if (!s->queue.empty() && !is_blocked(s)) ready.push_back(s);
        run_head(ready[lam_emulated_random(&random_state) % ready.size()]);
    }
}

static void run_to(CUstream_st *s, uint64_t position) {
    if (s->executed >= position) return;
    lam_device_open();
    switch (lam_emulated_setting().streams) {
    case LAM_STREAMS_REVERSED: run_others_first(s, position); break;
    case LAM_STREAMS_SHUFFLED: run_shuffled(s, position); break;
    default: run_needed(s, position); break;
    }
    lam_device_close();
}

void lam_run_stream(cudaStream_t stream) {
    CUstream_st *s = object(stream);
    run_to(s, s->enqueued);
    host_learns(s->clock);
}
void lam_run_everything(void) {
    for (size_t i = streams().size(); i-- > 0;) lam_run_stream(streams()[i]);
}

static void push(CUstream_st *s, item &&one) {
    s->queue.push_back(std::move(one));
    s->queue.back().host = host_clock;
    s->enqueued++;
}

static std::shared_ptr<record> push_record(CUstream_st *s) {
    auto mark = std::make_shared<record>(record{s, s->enqueued + 1, 0.0, false, {}});
    push(s, {nullptr, nullptr, mark, false, nullptr});
    return mark;
}

/* The legacy stream waits for every blocking stream, and these for it. */
static void order_with_legacy(CUstream_st *s) {
    if (is_legacy(s)) {
        for (CUstream_st *other : streams())
            if (is_blocking(other) && !other->queue.empty() && !other->session)
                push(s, {nullptr, nullptr, push_record(other), true, nullptr});
    } else if (is_blocking(s) && !streams()[0]->queue.empty()) {
        push(s, {nullptr, nullptr, push_record(streams()[0]), true, nullptr});
    }
}

static void enqueue(CUstream_st *s, item &&one) {
    order_with_legacy(s);
    push(s, std::move(one));
    if (lam_emulated_setting().streams == LAM_STREAMS_EAGER)
        run_to(s, s->enqueued);
    else if (s->queue.size() > QUEUE_MOST)
        run_to(s, s->executed + QUEUE_MOST / 2);
}

/* ---- capture ---- */

static void invalidate(const std::shared_ptr<capture> &session) { session->invalid = true; }

static std::vector<std::shared_ptr<capture>> sessions(void) {
    std::vector<std::shared_ptr<capture>> all;
    for (CUstream_st *s : streams())
        if (s->session && s->session->origin == s) all.push_back(s->session);
    return all;
}

cudaError_t lam_unsafe_call(void) {
    if (thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
    cudaError_t error = cudaSuccess;
    for (const auto &session : sessions()) {
        bool own = session->thread == std::this_thread::get_id();
        bool forbids =
            own ? session->mode != cudaStreamCaptureModeRelaxed
                : session->mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal;
        if (!forbids) continue;
        invalidate(session);
        error = cudaErrorStreamCaptureUnsupported;
    }
    return error;
}

/* The legacy stream cannot be used while a blocking stream is captured, since it would have to wait for it. */
static cudaError_t implicit_wait(void) {
    for (CUstream_st *s : streams())
        if (s->session && is_blocking(s) && s->session->mode != cudaStreamCaptureModeRelaxed) {
            invalidate(s->session);
            return cudaErrorStreamCaptureImplicit;
        }
    return cudaSuccess;
}

cudaError_t lam_waiting_call(cudaStream_t stream) {
    CUstream_st *s = object(stream);
    if (is_legacy(s)) {
        cudaError_t error = implicit_wait();
        return error != cudaSuccess ? error : lam_unsafe_call();
    }
    if (!s->session) return cudaSuccess;
    invalidate(s->session);
    return cudaErrorStreamCaptureUnsupported;
}

static cudaError_t add_captured(CUstream_st *s, cudaGraphNodeType type, lam_work *work,
                                const std::shared_ptr<lam_plan> &plan) {
    if (s->session->invalid) {
        if (work) lam_work_free(work);
        return cudaErrorStreamCaptureInvalidated;
    }
    CUgraphNode_st *node = lam_graph_add(s->session->graph, type, work, s->dependencies);
    node->child = plan;
    s->dependencies = {node};
    return cudaSuccess;
}

static cudaGraphNodeType type_of(lam_work_kind kind) {
    switch (kind) {
    case LAM_HOST: return cudaGraphNodeTypeHost;
    case LAM_COPY: return cudaGraphNodeTypeMemcpy;
    case LAM_FILL: return cudaGraphNodeTypeMemset;
    default: return cudaGraphNodeTypeKernel;
    }
}

cudaError_t lam_submit(cudaStream_t stream, lam_work *work) {
    CUstream_st *s = object(stream);
    if (s->session) return add_captured(s, type_of(work->kind), work, nullptr);
    if (is_legacy(s)) {
        cudaError_t error = implicit_wait();
        if (error != cudaSuccess) return lam_work_free(work), error;
    }
    lam_work_enqueued(work, false);
    enqueue(s, {work, nullptr, nullptr, false, nullptr});
    return lam_device_error();
}

cudaError_t lam_submit_plan(cudaStream_t stream, const std::shared_ptr<lam_plan> &plan) {
    CUstream_st *s = object(stream);
    if (s->session) return add_captured(s, cudaGraphNodeTypeGraph, nullptr, plan);
    lam_plan_enqueued(plan.get());
    enqueue(s, {nullptr, plan, nullptr, false, nullptr});
    return lam_device_error();
}

static bool is_before(const CUgraphNode_st *node, const std::vector<cudaGraphNode_t> &ends) {
    std::vector<const CUgraphNode_st *> seen, todo(ends.begin(), ends.end());
    while (!todo.empty()) {
        const CUgraphNode_st *one = todo.back();
        todo.pop_back();
        if (one == node) return true;
        if (std::find(seen.begin(), seen.end(), one) != seen.end()) continue;
        seen.push_back(one);
        todo.insert(todo.end(), one->dependencies.begin(), one->dependencies.end());
    }
    return false;
}

static void add_dependencies(std::vector<cudaGraphNode_t> &to, const std::vector<cudaGraphNode_t> &from) {
    for (cudaGraphNode_t node : from)
        if (std::find(to.begin(), to.end(), node) == to.end()) to.push_back(node);
}

static cudaError_t begin_capture(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t *dependencies,
                                 size_t count, cudaStreamCaptureMode mode) {
    CUstream_st *s = object(stream);
    if (is_legacy(s)) return lam_remember(cudaErrorStreamCaptureUnsupported);
    if (s->session) return lam_remember(cudaErrorIllegalState);
    auto session = std::make_shared<capture>();
    session->to_given_graph = graph != nullptr;
    if (!graph) cudaGraphCreate(&graph, 0);
    session->graph = graph;
    session->origin = s;
    session->thread = std::this_thread::get_id();
    session->mode = mode;
    session->id = ++capture_count;
    s->session = session;
    s->dependencies.assign(dependencies, dependencies + count);
    return cudaSuccess;
}

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    LAM_ENTER;
    return begin_capture(stream, nullptr, nullptr, 0, mode);
}

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph,
                                          const cudaGraphNode_t *dependencies, const cudaGraphEdgeData *,
                                          size_t count, cudaStreamCaptureMode mode) {
    LAM_ENTER;
    if (!graph) return lam_remember(cudaErrorInvalidValue);
    return begin_capture(stream, graph, dependencies, count, mode);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    LAM_ENTER;
    CUstream_st *s = object(stream);
    *graph = nullptr;
    if (!s->session) return lam_remember(cudaErrorIllegalState);
    std::shared_ptr<capture> session = s->session;
    if (session->origin != s) {
        invalidate(session);
        return lam_remember(cudaErrorStreamCaptureUnmatched);
    }
    if (session->mode != cudaStreamCaptureModeRelaxed && session->thread != std::this_thread::get_id())
        return lam_remember(cudaErrorStreamCaptureWrongThread);
    cudaError_t error = session->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
    for (CUstream_st *other : streams()) {
        if (other->session != session) continue;
        if (other != s && error == cudaSuccess)
            for (cudaGraphNode_t node : other->dependencies)
                if (!is_before(node, s->dependencies)) error = cudaErrorStreamCaptureUnjoined;
        other->session = nullptr;
    }
    if (error == cudaSuccess)
        *graph = session->graph;
    else if (!session->to_given_graph)
        cudaGraphDestroy(session->graph);
    return lam_remember(error);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
    return cudaStreamGetCaptureInfo(stream, status);
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **dependencies, const cudaGraphEdgeData **edges,
                                     size_t *count) {
    LAM_ENTER;
    CUstream_st *s = object(stream);
    if (is_legacy(s)) {
        cudaError_t error = implicit_wait();
        if (error != cudaSuccess) return lam_remember(error);
    }
    *status = !s->session           ? cudaStreamCaptureStatusNone
              : s->session->invalid ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
    if (edges) *edges = nullptr;
    if (!s->session) return cudaSuccess;
    if (id) *id = s->session->id;
    if (graph) *graph = s->session->graph;
    if (dependencies) *dependencies = s->dependencies.data();
    if (count) *count = s->dependencies.size();
    return cudaSuccess;
}

cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t stream, cudaGraphNode_t *dependencies,
                                                const cudaGraphEdgeData *, size_t count, unsigned flags) {
    LAM_ENTER;
    CUstream_st *s = object(stream);
    if (!s->session) return lam_remember(cudaErrorIllegalState);
    std::vector<cudaGraphNode_t> given(dependencies, dependencies + count);
    for (cudaGraphNode_t node : given)
        if (node->graph != s->session->graph) return lam_remember(cudaErrorInvalidValue);
    if (flags == cudaStreamSetCaptureDependencies) s->dependencies.clear();
    add_dependencies(s->dependencies, given);
    return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
    std::swap(*mode, thread_mode);
    return cudaSuccess;
}

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int) {
    LAM_ENTER;
    if (flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) return lam_remember(cudaErrorInvalidValue);
    CUstream_st *s = new CUstream_st();
    streams();
    s->number = ++stream_count;
    s->flags = flags;
    streams().push_back(s);
    *stream = s;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    LAM_ENTER;
    if (!stream || !lam_stream_is_valid(stream) || is_legacy(object(stream)))
        return lam_remember(cudaErrorInvalidResourceHandle);
    if (stream->session) {
        invalidate(stream->session);
        return lam_remember(cudaErrorStreamCaptureUnmatched);
    }
    lam_run_stream(stream);
    streams().erase(std::find(streams().begin(), streams().end(), stream));
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    LAM_ENTER;
    if (!lam_stream_is_valid(stream)) return lam_remember(cudaErrorInvalidResourceHandle);
    cudaError_t error = lam_waiting_call(stream);
    if (error != cudaSuccess) return lam_remember(error);
    order_with_legacy(object(stream));
    lam_run_stream(stream);
    return lam_remember(lam_device_error());
}

cudaError_t cudaDeviceSynchronize(void) {
    LAM_ENTER;
    for (const auto &session : sessions())
        if (session->mode != cudaStreamCaptureModeRelaxed) {
            invalidate(session);
            return lam_remember(cudaErrorStreamCaptureUnsupported);
        }
    lam_run_everything();
    return lam_remember(lam_device_error());
}

/* Asking moves the work on by one item, so that a loop of questions ends. */
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    LAM_ENTER;
    CUstream_st *s = object(stream);
    cudaError_t error = lam_waiting_call(stream);
    if (error != cudaSuccess) return lam_remember(error);
    if (s->queue.empty()) return host_learns(s->clock), cudaSuccess;
    run_to(s, s->executed + 1);
    return lam_device_error() != cudaSuccess ? lam_remember(lam_device_error()) : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    LAM_ENTER;
    if (!event || !lam_stream_is_valid(stream)) return lam_remember(cudaErrorInvalidResourceHandle);
    CUstream_st *s = object(stream);
    if (event->session) {
        std::shared_ptr<capture> session = event->session;
        if (session->origin->session != session) return lam_remember(cudaErrorCapturedEvent); /* over */
        if (is_legacy(s)) return invalidate(session), lam_remember(cudaErrorStreamCaptureImplicit);
        if (s->session && s->session != session) {
            invalidate(session);
            invalidate(s->session);
            return lam_remember(cudaErrorStreamCaptureMerge);
        }
        if (!s->session) {
            s->session = session;
            s->dependencies.clear();
        }
        add_dependencies(s->dependencies, event->dependencies);
        return cudaSuccess;
    }
    if (s->session) { /* what lies outside the graph cannot be waited for in it */
        invalidate(s->session);
        return lam_remember(cudaErrorStreamCaptureIsolation);
    }
    if (event->last && (!event->last->done || lam_emulated_is_checked()))
        enqueue(s, {nullptr, nullptr, event->last, true, nullptr});
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *argument) {
    LAM_ENTER;
    lam_work *work = lam_work_new(LAM_HOST, "host function");
    work->host = function;
    work->host_argument = argument;
    return lam_remember(lam_submit(stream, work));
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    LAM_ENTER;
    *event = new CUevent_st();
    (*event)->flags = flags;
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    LAM_ENTER;
    if (!event) return lam_remember(cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    LAM_ENTER;
    if (!event || !lam_stream_is_valid(stream)) return lam_remember(cudaErrorInvalidResourceHandle);
    CUstream_st *s = object(stream);
    event->session = s->session;
    event->dependencies = s->session ? s->dependencies : std::vector<cudaGraphNode_t>();
    if (s->session)
        return lam_remember(s->session->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess);
    order_with_legacy(s);
    event->last = push_record(s);
    if (lam_emulated_setting().streams == LAM_STREAMS_EAGER) run_to(s, s->enqueued);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    LAM_ENTER;
    if (!event) return lam_remember(cudaErrorInvalidResourceHandle);
    if (event->session) return lam_remember(cudaErrorCapturedEvent);
    if (!event->last) return cudaSuccess;
    if (event->last->done) return host_learns(event->last->clock), cudaSuccess;
    cudaError_t error = lam_unsafe_call();
    if (error != cudaSuccess) return lam_remember(error);
    CUstream_st *s = event->last->stream;
    run_to(s, s->executed + 1);
    return lam_device_error() != cudaSuccess ? lam_remember(lam_device_error()) : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    LAM_ENTER;
    if (!event) return lam_remember(cudaErrorInvalidResourceHandle);
    if (event->session) return invalidate(event->session), lam_remember(cudaErrorCapturedEvent);
    cudaError_t error = lam_unsafe_call();
    if (error != cudaSuccess) return lam_remember(error);
    if (event->last && !event->last->done) run_to(event->last->stream, event->last->position);
    if (event->last) host_learns(event->last->clock);
    return lam_remember(lam_device_error());
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    LAM_ENTER;
    if (!start || !end || !start->last || !end->last || (start->flags | end->flags) & cudaEventDisableTiming)
        return lam_remember(cudaErrorInvalidResourceHandle);
    if (!start->last->done || !end->last->done) return lam_remember(cudaErrorNotReady);
    *milliseconds = static_cast<float>(1e3 * (end->last->seconds - start->last->seconds));
    return cudaSuccess;
}
}
