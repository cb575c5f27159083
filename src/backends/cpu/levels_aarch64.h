// The levels of 64-bit ARM.
#pragma once

#include "backends/cpu/impl_of_level.h"

namespace nibble::cpu {

inline constexpr Level kNeon = {CpuIsa::kNeon, neon_kernels};
inline constexpr const Level* kLevels[] = {&kNeon, &kGeneric};

inline constexpr Impl<LinearArgs> kLinearImpls[] = {
    int8_of_level<kNeon, neon_i8mm_kernels, &DeviceCaps::neon_i8mm>("neon_i8mm"),
    int8_of_level<kNeon, neon_dotprod_kernels, &DeviceCaps::neon_dotprod>("neon_dotprod"),
    of_level<LinearArgs, kNeon, gemv_fits, run_gemv>("neon_gemv"),
    of_level<LinearArgs, kNeon, blocked_fits, run_blocked>("neon_blocked"),
    of_level<LinearArgs, kGeneric, gemv_fits, run_gemv>("generic_gemv"),
    of_level<LinearArgs, kGeneric, blocked_fits, run_blocked>("generic_blocked"),
    kReferenceLinear,
};

}  // namespace nibble::cpu
