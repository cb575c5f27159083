// What the build has for its processor family: kIsas, the instruction-set levels, and kLevels,
// those with a table of kernels, the best first; kProbed, what is measured, rising; kLinearImpls,
// the implementations of linear, which differ most from family to family; and kAttentionUnits,
// those of attention beside the levels'. The one place that asks which family it is; the units of
// isa/ are chosen by CMake.
#pragma once

#if defined(__x86_64__)
#include "backends/cpu/levels_x86_64.h"
#elif defined(__aarch64__)
#include "backends/cpu/levels_aarch64.h"
#else
#error "a new processor family needs its levels, at least the generic one"
#endif
