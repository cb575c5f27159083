// The levels of x86-64.
#pragma once

#include <array>

#include "backends/cpu/impl_of_level.h"

namespace nibble::cpu {

inline constexpr CpuIsa kIsas[] = {CpuIsa::kAmx, CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kGeneric};

inline constexpr Level kAvx2 = {CpuIsa::kAvx2, avx2_kernels};
inline constexpr Level kAvx512 = {CpuIsa::kAvx512, avx512_kernels};
inline constexpr const Level* kLevels[] = {&kAvx512, &kAvx2, &kGeneric};

inline constexpr Unit<Int8Kernels> kAvx2Int8 = {CpuIsa::kAvx2, Arithmetic::kInt8,
                                                avx2_int8_kernels};
inline constexpr Unit<Int8Kernels> kAvx512Vnni = {CpuIsa::kAvx512, Arithmetic::kInt8,
                                                  avx512_vnni_kernels, &DeviceCaps::avx512_vnni};
inline constexpr Unit<Bf16Kernels> kAvx512Bf16 = {
    CpuIsa::kAvx512, Arithmetic::kBf16, avx512_bf16_kernels, &DeviceCaps::fast_avx512_bf16};
inline constexpr Unit<Bf16Kernels> kAvx512Bf16Blocks = {
    CpuIsa::kAvx512, Arithmetic::kBf16Exact, avx512_bf16_kernels, &DeviceCaps::fast_avx512_bf16};
inline constexpr Unit<Bf16Kernels> kAmx = {CpuIsa::kAmx, Arithmetic::kBf16, amx_kernels};

inline constexpr Unit<Int8Kernels> kAvx2Blocks = {CpuIsa::kAvx2, Arithmetic::kSignedInt8,
                                                  avx2_int8_kernels};
inline constexpr Unit<Int8Kernels> kAvx512Blocks = {CpuIsa::kAvx512, Arithmetic::kSignedInt8,
                                                    avx512_vnni_kernels, &DeviceCaps::avx512_vnni};
inline constexpr Unit<TokenKernels> kAmxInt8 = {CpuIsa::kAmx, Arithmetic::kInt8, amx_int8_kernels};

inline constexpr Impl<LinearArgs> kLinearImpls[] = {
    of_token_unit<kAmxInt8>("amx_int8_token"),
    of_token_unit<kAvx512Vnni>("avx512_vnni_token"),
    of_token_unit<kAvx2Int8>("avx2_int8_token"),
    of_unit<kAmx, bf16_fits, run_bf16>("amx_bf16"),
    of_unit<kAvx512Blocks, block_panels_fit, run_block_panels>("avx512_vnni_blocks"),
    of_unit<kAvx512Vnni, int8_fits, run_int8>("avx512_vnni"),
    of_unit<kAvx512Bf16, bf16_fits, run_bf16>("avx512_bf16"),
    of_unit<kAvx512Bf16Blocks, bf16_blocks_fit, run_bf16_blocks>("avx512_bf16_blocks"),
    of_level<LinearArgs, kAvx512, table_panels_fit, run_table_panels>("avx512_tables"),
    of_level<LinearArgs, kAvx512, gemv_fits, run_gemv>("avx512_gemv"),
    of_level<LinearArgs, kAvx512, blocked_fits, run_blocked>("avx512_blocked"),
    of_unit<kAvx2Int8, int8_fits, run_int8>("avx2_int8"),
    of_unit<kAvx2Blocks, block_panels_fit, run_block_panels>("avx2_int8_blocks"),
    of_level<LinearArgs, kAvx2, table_panels_fit, run_table_panels>("avx2_tables"),
    of_level<LinearArgs, kAvx2, gemv_fits, run_gemv>("avx2_gemv"),
    of_level<LinearArgs, kAvx2, blocked_fits, run_blocked>("avx2_blocked"),
    of_level<LinearArgs, kGeneric, gemv_fits, run_gemv>("generic_gemv"),
    of_level<LinearArgs, kGeneric, blocked_fits, run_blocked>("generic_blocked"),
    kRoundedLinear,
    kReferenceLinear,
};

inline constexpr std::array kAttentionUnits = {
    attention_of_units<kAvx512Bf16, kAvx512Vnni, kAvx512>("avx512_bf16"),
    attention_of_bytes<kAvx512Vnni, kAvx512>("avx512_vnni"),
};

inline constexpr Probed kProbed[] = {
    probed_level<kGeneric>(), probed_level<kAvx2>(),      probed_unit<kAvx2Int8>(),
    probed_level<kAvx512>(),  probed_unit<kAvx512Bf16>(), probed_unit<kAvx512Vnni>(),
    probed_unit<kAmx>(),      probed_unit<kAmxInt8>(),
};

}  // namespace nibble::cpu
