#include "data/order.h"

#include "base/memory.h"
#include "base/rng.h"
#include "data/loader.h"

/* The order of an epoch: a keyed permutation that any element of can be asked for at once (Black and Rogaway:
 * Ciphers with arbitrary finite domains, CT-RSA 2002: a Feistel network on the next power of four,
 * cycle-walked into the range). */

enum { ROUNDS = 6 };

uint64_t lam_permute(uint64_t seed, uint64_t stream, uint64_t n, uint64_t i) {
    if (n <= 1) return 0;
    int half = 1; /* bits of a half; 4^half >= n, so that a walk takes fewer than four steps on average */
    while (half < 32 && n > (uint64_t)1 << (2 * half)) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    lam_rng_key_t key = lam_rng_key(seed, LAM_RNG_ORDER);
    /* The walk ends: the network is a bijection of the larger range and i lies in the smaller one. */
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            uint32_t counter[4] = {(uint32_t)right, (uint32_t)stream, (uint32_t)(stream >> 32), round},
                     word[4];
            lam_philox4x32(key, counter, word);
            uint64_t next = (left ^ word[0]) & mask;
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

lam_status lam_order_init(lam_order *order, uint64_t seed, int64_t images, int64_t passes, int64_t batch) {
    lam_status status = LAM_OK;
    *order = (lam_order){.seed = seed, .images = images, .passes = passes, .batch = batch, .epoch = -1};
    if (images < batch || passes == 1) return LAM_OK; /* repeats cannot be avoided, or cannot arise */
    order->most = batch / 2 + 1;
    LAM_TRY_GOTO(lam_alloc_array((void **)&order->counts, passes, sizeof(int64_t)), failed);
    LAM_TRY_GOTO(lam_alloc_array((void **)&order->early, passes, sizeof(int64_t) * (size_t)order->most),
                 failed);
    LAM_TRY_GOTO(lam_alloc_array((void **)&order->late, passes, sizeof(int64_t) * (size_t)order->most),
                 failed);
    LAM_TRY_GOTO(lam_alloc((void **)&order->in_tail, (size_t)images), failed);
    return LAM_OK;
failed:
    lam_order_free(order);
    return status;
}

void lam_order_free(lam_order *order) {
    lam_free(order->counts);
    lam_free(order->early);
    lam_free(order->late);
    lam_free(order->in_tail);
    *order = (lam_order){.epoch = -1};
}

static int64_t plain(const lam_order *order, int64_t epoch, int64_t pass, int64_t position) {
    uint64_t stream = (uint64_t)epoch * (uint64_t)order->passes + (uint64_t)pass;
    return (int64_t)lam_permute(order->seed, stream, (uint64_t)order->images, (uint64_t)position);
}

static int64_t exchanged(const lam_order *order, int64_t epoch, int64_t pass, int64_t position) {
    const int64_t *early = order->early + pass * order->most, *late = order->late + pass * order->most;
    for (int64_t i = 0; i < order->counts[pass]; i++) {
        if (early[i] == position) return plain(order, epoch, pass, late[i]);
        if (late[i] == position) return plain(order, epoch, pass, early[i]);
    }
    return plain(order, epoch, pass, position);
}

/* With n images >= batch = tail + head, the images after the head hold at least as many that are not in the
 * tail as the head holds that are: n - head - (tail - c) >= c. So the search for a partner ends within the
 * pass. */
static void find_exchanges(lam_order *order, int64_t epoch) {
    order->counts[0] = 0;
    for (int64_t pass = 1; pass < order->passes; pass++) {
        int64_t begin = pass * order->images, tail = begin % order->batch, head = order->batch - tail,
                later = head, n = 0;
        order->counts[pass] = 0;
        if (tail == 0) continue;
        for (int64_t i = 0; i < tail; i++)
            order->in_tail[exchanged(order, epoch, pass - 1, order->images - tail + i)] = 1;
        for (int64_t i = 0; i < head; i++) {
            if (!order->in_tail[plain(order, epoch, pass, i)]) continue;
            while (order->in_tail[plain(order, epoch, pass, later)]) later++;
            order->early[pass * order->most + n] = i;
            order->late[pass * order->most + n++] = later++;
        }
        for (int64_t i = 0; i < tail; i++)
            order->in_tail[exchanged(order, epoch, pass - 1, order->images - tail + i)] = 0;
        order->counts[pass] = n;
    }
    order->epoch = epoch;
}

void lam_order_sample(lam_order *order, int64_t epoch, int64_t position, int64_t *pass, int64_t *image) {
    *pass = position / order->images;
    if (order->counts && order->epoch != epoch) find_exchanges(order, epoch);
    *image = order->counts ? exchanged(order, epoch, *pass, position % order->images)
                           : plain(order, epoch, *pass, position % order->images);
}
