/* Stand-in of the CUDA toolkit's header for the emulator: the part of the language and of the runtime that model/cuda
 * uses, with the toolkit's names, enum values and layouts (compared by toolkit_check.cc where a toolkit is installed).
 * Declared in runtime/, by what it is for; the runtime is in runtime.cc, barriers and exchanges in fibers.cc. */
#ifndef LAMELLA_CUDA_EMULATION_RUNTIME_H
#define LAMELLA_CUDA_EMULATION_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CUDART_VERSION 13000

#include "runtime/arithmetic.h"
#include "runtime/atomics.h"
#include "runtime/devices.h"
#include "runtime/errors.h"
#include "runtime/graphs.h"
#include "runtime/language.h"
#include "runtime/memory.h"
#include "runtime/streams.h"
#include "runtime/threads.h"

#endif
