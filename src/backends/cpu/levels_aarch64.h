// The levels of 64-bit ARM.
#pragma once

#include <array>

#include "backends/cpu/impl_of_level.h"

namespace nibble::cpu {

inline constexpr CpuIsa kIsas[] = {CpuIsa::kNeon, CpuIsa::kGeneric};

inline constexpr Level kNeon = {CpuIsa::kNeon, neon_kernels};
inline constexpr const Level* kLevels[] = {&kNeon, &kGeneric};

inline constexpr Unit<Int8Kernels> kNeonDotprod = {CpuIsa::kNeon, Arithmetic::kInt8,
                                                   neon_dotprod_kernels, &DeviceCaps::neon_dotprod};
inline constexpr Unit<Int8Kernels> kNeonI8mm = {CpuIsa::kNeon, Arithmetic::kInt8, neon_i8mm_kernels,
                                                &DeviceCaps::neon_i8mm};

inline constexpr Unit<Int8Kernels> kNeonDotprodBlocks = {
    CpuIsa::kNeon, Arithmetic::kSignedInt8, neon_dotprod_kernels, &DeviceCaps::neon_dotprod};
inline constexpr Unit<Int8Kernels> kNeonI8mmBlocks = {CpuIsa::kNeon, Arithmetic::kSignedInt8,
                                                      neon_i8mm_kernels, &DeviceCaps::neon_i8mm};

inline constexpr Impl<LinearArgs> kLinearImpls[] = {
    of_token_unit<kNeonI8mm>("neon_i8mm_token"),
    of_token_unit<kNeonDotprod>("neon_dotprod_token"),
    of_unit<kNeonI8mmBlocks, block_panels_fit, run_block_panels>("neon_i8mm_blocks"),
    of_unit<kNeonDotprodBlocks, block_panels_fit, run_block_panels>("neon_dotprod_blocks"),
    of_unit<kNeonI8mm, int8_fits, run_int8>("neon_i8mm"),
    of_unit<kNeonDotprod, int8_fits, run_int8>("neon_dotprod"),
    of_level<LinearArgs, kNeon, table_panels_fit, run_table_panels>("neon_tables"),
    of_level<LinearArgs, kNeon, gemv_fits, run_gemv>("neon_gemv"),
    of_level<LinearArgs, kNeon, blocked_fits, run_blocked>("neon_blocked"),
    of_level<LinearArgs, kGeneric, gemv_fits, run_gemv>("generic_gemv"),
    of_level<LinearArgs, kGeneric, blocked_fits, run_blocked>("generic_blocked"),
    kRoundedLinear,
    kReferenceLinear,
};

inline constexpr std::array<Impl<AttentionArgs>, 0> kAttentionUnits = {};

inline constexpr Probed kProbed[] = {
    probed_level<kGeneric>(),
    probed_level<kNeon>(),
    probed_unit<kNeonDotprod>(),
    probed_unit<kNeonI8mm>(),
};

}  // namespace nibble::cpu
