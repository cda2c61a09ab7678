/* What is known to be done when a piece of work runs: for the check of races between streams. */
#ifndef LAMELLA_CUDA_EMULATION_ORDER_H
#define LAMELLA_CUDA_EMULATION_ORDER_H

#include "runtime.h"

/* By stream number: how many of its items are done for whoever holds the clock. */
typedef std::vector<uint32_t> lam_clock;
void lam_clock_join(lam_clock *to, const lam_clock &from);

/* The next item of a stream begins, whose clock counts it. */
void lam_order_begin_item(int stream, lam_clock *clock);
/* A kernel, copy or library call of the item begins. */
void lam_order_begin_work(const char *name);
/* Steps of a graph, which nest. */
void lam_order_enter(const lam_plan *plan);
void lam_order_step(int step);
void lam_order_leave(void);

/* Whether what the block (lam_emulated_state) did is done for the running work; the name of its work. */
bool lam_order_known(uint32_t block);
const char *lam_order_name(uint32_t block);

#endif
