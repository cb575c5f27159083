// The words of AWQ's gemm layout: 8 outputs of 4 bits a word, nibble k holding output
// (0 2 4 6 1 3 5 7)[k]. Source: AutoAWQ, awq/utils/packing_utils.py.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace nibble {

inline constexpr std::int64_t kAwqPerWord = 8;

// I32 [in, out / 8] to the canonical codes I32 [out, in / 8], rounded up, and back.
Tensor awq_gemm_codes(const Tensor& words);
Tensor pack_awq_gemm_codes(const Tensor& codes, std::int64_t cols);

// I32 [groups, out / 8] to U8 [out, groups] and back.
Tensor awq_gemm_zeros(const Tensor& words);
Tensor pack_awq_gemm_zeros(const Tensor& zeros);

}  // namespace nibble
