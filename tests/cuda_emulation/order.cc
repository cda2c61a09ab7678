#include "order.h"
#include "check.h"
#include <algorithm>

struct entry {
    uint32_t first_block, count;
    int stream, frames; /* where its frames begin, -1 after the item */
    const char *name;
};
/* A step of a graph that is running; a body that runs again has a new number. */
struct frame {
    const lam_plan *plan;
    uint32_t run;
    int step;
};
static std::vector<entry> entries;
static std::vector<std::vector<uint32_t>> first_blocks; /* of each item of each stream */
static std::vector<frame> stack, frames; /* now; of the works of this item, each ended by a run of 0 */
static const lam_clock *clock_now;
static int stream_now;
static uint32_t run_count;

void lam_clock_join(lam_clock *to, const lam_clock &from) {
    if (to->size() < from.size()) to->resize(from.size());
    for (size_t i = 0; i < from.size(); i++) (*to)[i] = std::max((*to)[i], from[i]);
}

void lam_order_begin_item(int stream, lam_clock *clock) {
    size_t s = static_cast<size_t>(stream);
    if (clock->size() <= s) clock->resize(s + 1);
    if (first_blocks.size() <= s) first_blocks.resize(s + 1);
    (*clock)[s]++;
    first_blocks[s].push_back(lam_now.block + 1);
    clock_now = clock;
    stream_now = stream;
    stack.clear();
    frames.clear();
    for (size_t i = entries.size(); i-- > 0 && entries[i].frames >= 0;) entries[i].frames = -1;
}

void lam_order_begin_work(const char *name) {
    lam_now.first_block = lam_now.block + 1;
    if (!clock_now) return;
    entries.push_back({lam_now.first_block, (*clock_now)[static_cast<size_t>(stream_now)], stream_now,
                       static_cast<int>(frames.size()), name});
    frames.insert(frames.end(), stack.begin(), stack.end());
    frames.push_back({nullptr, 0, 0});
    /* Before the first item of any other stream that is not known, and before this item. */
    uint32_t before = first_blocks[static_cast<size_t>(stream_now)].back();
    for (size_t s = 0; s < first_blocks.size(); s++) {
        size_t done = s < clock_now->size() ? (*clock_now)[s] : 0;
        if (done < first_blocks[s].size()) before = std::min(before, first_blocks[s][done]);
    }
    lam_now.ordered_block = before - 1;
}

void lam_order_enter(const lam_plan *plan) { stack.push_back({plan, ++run_count, 0}); }
void lam_order_step(int step) { stack.back().step = step; }
void lam_order_leave(void) { stack.pop_back(); }

static const entry *find(uint32_t block) {
    auto after = std::upper_bound(entries.begin(), entries.end(), block,
                                  [](uint32_t b, const entry &e) { return b < e.first_block; });
    return after == entries.begin() ? nullptr : &*std::prev(after);
}

bool lam_order_known(uint32_t block) {
    const entry *e = find(block);
    if (!e) return true;
    size_t s = static_cast<size_t>(e->stream);
    uint32_t known = s < clock_now->size() ? (*clock_now)[s] : 0;
    if (e->stream != stream_now || e->count != known) return e->count <= known;
    /* Of the same launch of a graph: the first level at which the two differ decides. */
    for (size_t level = 0; level < stack.size(); level++) {
        const frame &mine = stack[level], &other = frames[static_cast<size_t>(e->frames) + level];
        if (other.run != mine.run) return true; /* an earlier turn of the same loop */
        if (other.step != mine.step)
            return mine.plan->before[static_cast<size_t>(mine.step)][static_cast<size_t>(other.step)];
    }
    return true;
}

const char *lam_order_name(uint32_t block) {
    const entry *e = find(block);
    return e ? e->name : "something";
}
