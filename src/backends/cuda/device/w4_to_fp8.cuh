// 4-bit codes in fragment order (backends/cuda/fragment_weight.h) to operand A of products of fp8.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace nibble::cuda {

// A byte b up to 15 is b * 2^-9 as e4m3: the subnormal numbers and the first that are not have the
// same steps. A code q becomes the odd integer 2 q - 15, a sign and a magnitude below 16, times
// kFp8CodeUnit; so products hardly ever have one sign, and little is lost where the tensor cores
// add them up with 13 bits.
inline constexpr float kFp8CodeUnit = 1.0f / 512;
inline constexpr float kFp8SumUnit = 0.5f / kFp8CodeUnit;  // of sums, as sums of q - 7.5

// The bytes of nibbles: `magnitude` has bits 0 to 2 of each as bits 1 to 3 of a byte, `top` bit 3
// as bit 0. Where that is 0, all bits of the magnitude and the sign are flipped.
__device__ __forceinline__ std::uint32_t fp8_of_nibbles(std::uint32_t magnitude,
                                                        std::uint32_t top) {
  return (magnitude & 0x0e0e0e0eu) ^ (0x8f8f8f8fu - (top & 0x01010101u) * 0x8eu);
}

// The two registers of a word of 16 of k: rows g and g + 8.
__device__ __forceinline__ void w4_fp8_pair(std::uint32_t word, std::uint32_t* a) {
  a[0] = fp8_of_nibbles(word << 1, word >> 3);
  a[1] = fp8_of_nibbles(word >> 3, word >> 7);
}

}  // namespace nibble::cuda
