#include "emulator.h"
#include <stdio.h>
#include <stdlib.h>

/* The place of the variable's value in `names`, the first where it is not set. */
static int choice(const char *variable, const char *const *names) {
    const char *value = getenv(variable);
    if (!value || !*value) return 0;
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], value) == 0) return i;
    fprintf(stderr, "cuda emulation: %s=%s is none of", variable, value);
    for (int i = 0; names[i]; i++) fprintf(stderr, " %s", names[i]);
    fputc('\n', stderr);
    abort();
}

static uint64_t number(const char *variable, uint64_t otherwise) {
    const char *value = getenv(variable);
    return value && *value ? strtoull(value, nullptr, 10) : otherwise;
}

const lam_emulated_settings &lam_emulated_setting(void) {
    static const char *const orders[] = {"forward", "reversed", "shuffled", nullptr};
    static const char *const streams[] = {"reversed", "eager", "lazy", "shuffled", nullptr};
    static const lam_emulated_stream_order stream_orders[] = {LAM_STREAMS_REVERSED, LAM_STREAMS_EAGER,
                                                              LAM_STREAMS_LAZY, LAM_STREAMS_SHUFFLED};
    static const char *const sums[] = {"forward", "reversed", "truncating", nullptr};
    static const char *const lacks[] = {"nothing", "device", "driver", "any_driver", "kernels", nullptr};
    static const lam_emulated_settings settings = {
        static_cast<lam_emulated_order>(choice("LAMELLA_EMULATION_ORDER", orders)),
        stream_orders[choice("LAMELLA_EMULATION_STREAMS", streams)],
        choice("LAMELLA_EMULATION_SUMS", sums),
        number("LAMELLA_EMULATION_SEED", 1),
        number("LAMELLA_EMULATION_MEMORY", static_cast<uint64_t>(2) << 30),
        number("LAMELLA_EMULATION_PINNED", SIZE_MAX),
        number("LAMELLA_EMULATION_KEEP_GOING", 0) != 0,
        number("LAMELLA_EMULATION_UNINITIALISED", 0) != 0,
        static_cast<lam_emulated_lack>(choice("LAMELLA_EMULATION_LACKS", lacks)),
    };
    return settings;
}

uint32_t lam_emulated_random(uint64_t *state) { /* splitmix64 */
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>((x ^ x >> 31) >> 32);
}

int lam_emulated_sum_order(void) { return lam_emulated_setting().sums; }
