// Values of rows of a key/value cache (formats/kv_type.h), one at a time, exactly.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "formats/kv_type.h"

namespace nibble::cuda {

inline constexpr int kKvHeaderBytes = 8;  // scale and offset of a row of codes

// What is_quantized() says.
__host__ __device__ constexpr bool has_codes(KvType type) {
  return type == KvType::kInt8 || type == KvType::kInt4 || type == KvType::kFp8;
}

// A code of e4m3 (but NaN) has the bits of an f16 that is 2^8 too small, but for the place of the
// sign.
inline constexpr float kE4m3Unit = 0x1p8f;
__device__ __forceinline__ float e4m3_value(unsigned code) {
  const auto bits = static_cast<std::uint16_t>((code & 0x80u) << 8 | (code & 0x7fu) << 7);
  return kE4m3Unit * __half2float(__ushort_as_half(bits));
}

// Numbers of a row's header: rows of odd head_dim put them on any byte.
__device__ inline float load_number(const std::uint8_t* from) {
  if (reinterpret_cast<std::uintptr_t>(from) % 4 == 0) return *reinterpret_cast<const float*>(from);
  return __uint_as_float(from[0] | from[1] << 8 | from[2] << 16 |
                         static_cast<std::uint32_t>(from[3]) << 24);
}
__device__ inline void store_number(std::uint8_t* to, float x) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<std::uint8_t>(__float_as_uint(x) >> 8 * i);
}

// Reads single values of one row.
template <KvType kType>
class KvRowReader {
 public:
  __device__ explicit KvRowReader(const std::uint8_t* row) : row_(row) {
    if constexpr (has_codes(kType)) {
      scale_ = load_number(row);
      offset_ = load_number(row + 4);
    }
  }

  __device__ float operator[](int d) const {
    if constexpr (kType == KvType::kF32) return reinterpret_cast<const float*>(row_)[d];
    if constexpr (kType == KvType::kF16) {
      return __half2float(reinterpret_cast<const __half*>(row_)[d]);
    }
    if constexpr (kType == KvType::kBF16) {
      return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(row_)[d]);
    }
    if constexpr (kType == KvType::kInt8) {
      return value(static_cast<float>(row_[kKvHeaderBytes + d]));
    }
    if constexpr (kType == KvType::kFp8) return value(e4m3_value(row_[kKvHeaderBytes + d]));
    if constexpr (kType == KvType::kInt4) {
      return value(static_cast<float>(row_[kKvHeaderBytes + d / 2] >> (d % 2 * 4) & 15));
    }
  }

 private:
  // Product and sum rounded one after the other, as on the host.
  __device__ float value(float steps) const { return __fadd_rn(offset_, __fmul_rn(scale_, steps)); }

  const std::uint8_t* row_;
  float scale_ = 0;
  float offset_ = 0;
};

// Bits as base/half.h makes them: the hardware's conversions turn every NaN into one of their own.
__device__ inline std::uint16_t bf16_bits(float x) {
  const std::uint32_t u = __float_as_uint(x);
  if (isnan(x)) return static_cast<std::uint16_t>(u >> 16 | 0x40u);
  return static_cast<std::uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
__device__ inline std::uint16_t f16_bits(float x) {
  if (isnan(x)) return static_cast<std::uint16_t>((__float_as_uint(x) >> 16 & 0x8000u) | 0x7e00u);
  return __half_as_ushort(__float2half_rn(x));
}

}  // namespace nibble::cuda
