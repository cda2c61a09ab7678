#include "train/schedule.h"

#include <math.h>

static double half_cosine(double from, double to, double share) {
    return to + (from - to) / 2 * (1 + cos(acos(-1.0) * share));
}

static void one_cycle(const lam_schedule *s, double step, double *lr, double *beta1) {
    const double start = s->lr / 25, end = start / 1e4, high = 0.95, low = 0.85;
    double peak = s->warmup * (double)s->steps - 1, last = (double)s->steps - 1;
    if (step <= peak || last <= peak) {
        double share = peak > 0 ? fmin(step / peak, 1) : 1;
        *lr = half_cosine(start, s->lr, share);
        *beta1 = half_cosine(high, low, share);
    } else {
        /* Where the warm-up is shorter than a step, the cycle starts at its peak. */
        if (peak < 0) peak = 0;
        double share = last > peak ? fmin((step - peak) / (last - peak), 1) : 1;
        *lr = half_cosine(s->lr, end, share);
        *beta1 = half_cosine(low, high, share);
    }
}

void lam_schedule_at(const lam_schedule *s, int64_t step, double *lr, double *beta1) {
    *beta1 = s->beta1;
    if (s->kind == LAM_SCHEDULE_ONECYCLE) {
        one_cycle(s, (double)step, lr, beta1);
        return;
    }
    double warm = s->warmup * (double)s->steps, at = (double)step;
    if (at < warm)
        *lr = s->lr * at / warm;
    else if (s->kind == LAM_SCHEDULE_CONSTANT)
        *lr = s->lr;
    else
        *lr = half_cosine(s->lr, s->min_lr,
                          ((double)s->steps > warm) ? fmin((at - warm) / ((double)s->steps - warm), 1) : 1);
}
