// Floats as integers of the same order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace nibble::cuda {

// Rises with the number; -0 and 0 are one.
__device__ __forceinline__ std::uint32_t rising_key(float x) {
  const auto bits = static_cast<std::int32_t>(__float_as_uint(x + 0.0f));
  return static_cast<std::uint32_t>(bits) ^ (static_cast<std::uint32_t>(bits >> 31) | 0x80000000u);
}

__device__ __forceinline__ float number_of_key(std::uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key);
}

// To find the largest of a row: rises with the number, and among equals with a lower column; 0 for
// -infinity, kBrokenKey, above all others, for NaN and +infinity.
constexpr std::uint64_t kBrokenKey = ~std::uint64_t{0};
__device__ __forceinline__ std::uint64_t first_largest_key(float x, std::int64_t col) {
  if (!(x < INFINITY)) return kBrokenKey;
  if (x == -INFINITY) return 0;
  return std::uint64_t{rising_key(x)} << 32 | (0xffffffffu - static_cast<std::uint32_t>(col));
}
__device__ __forceinline__ std::int32_t column_of_key(std::uint64_t key) {
  return static_cast<std::int32_t>(0xffffffffu - static_cast<std::uint32_t>(key));
}

__device__ __forceinline__ std::uint64_t warp_largest(std::uint64_t key) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    key = max(key, static_cast<std::uint64_t>(__shfl_xor_sync(0xffffffffu, key, lanes)));
  }
  return key;
}

}  // namespace nibble::cuda
