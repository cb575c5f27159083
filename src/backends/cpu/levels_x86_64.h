// The levels of x86-64.
#pragma once

#include "backends/cpu/impl_of_level.h"

namespace nibble::cpu {

inline constexpr Level kAvx2 = {CpuIsa::kAvx2, avx2_kernels};
inline constexpr Level kAvx512 = {CpuIsa::kAvx512, avx512_kernels};
inline constexpr const Level* kLevels[] = {&kAvx512, &kAvx2, &kGeneric};

inline constexpr Impl<LinearArgs> kLinearImpls[] = {
    int8_of_level<kAvx512, avx512_vnni_kernels, &DeviceCaps::avx512_vnni>("avx512_vnni"),
    of_level<LinearArgs, kAvx512, gemv_fits, run_gemv>("avx512_gemv"),
    of_level<LinearArgs, kAvx512, blocked_fits, run_blocked>("avx512_blocked"),
    int8_of_level<kAvx2, avx2_int8_kernels>("avx2_int8"),
    of_level<LinearArgs, kAvx2, gemv_fits, run_gemv>("avx2_gemv"),
    of_level<LinearArgs, kAvx2, blocked_fits, run_blocked>("avx2_blocked"),
    of_level<LinearArgs, kGeneric, gemv_fits, run_gemv>("generic_gemv"),
    of_level<LinearArgs, kGeneric, blocked_fits, run_blocked>("generic_blocked"),
    kReferenceLinear,
};

}  // namespace nibble::cpu
