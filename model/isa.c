#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/gemm.h"
#include "model/cpu/kernels.h"
#include "model/graph.h"

static bool has_baseline(void) { return true; }

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512cd");
}

/* Intel's vdpbf16ps does no more products a cycle than float32's: chosen there only when asked for. */
static bool is_intel(void) {
    unsigned a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && c == signature_INTEL_ecx;
}

static bool has_avx512_bf16(void) {
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1u);
}

/* The tiles are large state: the kernel must know them (XCR0) and grant them to the process before their first use. */
static bool has_amx(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d, low, high;
    if (!has_avx512_bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if (!(d >> 22 & 1u) || !(d >> 24 & 1u)) return false; /* amx_bf16, amx_tile */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low >> 17 & 3u) == 3u && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* The best first. */
static const struct level {
    const char *name;
    const lam_kernels *kernels;
    bool (*has)(void);
} levels[] = {{"amx", lam_kernels_amx, has_amx},
              {"avx512_bf16", lam_kernels_avx512_bf16, has_avx512_bf16},
              {"avx512", lam_kernels_avx512, has_avx512},
              {"avx2", lam_kernels_avx2, has_avx2},
              {"baseline", lam_kernels_baseline, has_baseline}};

static const struct level *current;

lam_status lam_isa_select(void) {
    const char *forced = getenv("LAMELLA_ISA");
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        bool asked = forced && *forced;
        if (asked ? strcmp(forced, levels[i].name) != 0 : !levels[i].has()) continue;
        if (!asked && levels[i].has == has_avx512_bf16 && is_intel()) continue;
        LAM_REQUIRE(levels[i].has(), LAM_ERROR_USAGE, "LAMELLA_ISA=%s: this CPU does not have it", forced);
        current = &levels[i];
        lam_gemm_limit_isa(current->name);
        return LAM_OK;
    }
    LAM_FAIL(LAM_ERROR_USAGE, "LAMELLA_ISA=%s: allowed are baseline, avx2, avx512, avx512_bf16, amx", forced);
}

static const struct level *selected(void) {
    if (!current && lam_isa_select() != LAM_OK) current = &levels[sizeof levels / sizeof *levels - 1];
    return current;
}

const lam_kernels *lam_kernels_current(bool bf16) { return selected()->kernels + bf16; }

const char *lam_isa_name(void) { return selected()->name; }
