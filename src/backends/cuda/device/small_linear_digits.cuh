// One or two rows of x in the warps of kernels/small_linear.h: integers, so that the codes of the
// weights enter the products as they are stored.
//
// A number of a chunk (128 columns of a row, rounded to bf16) is an integer of 23 bits times a
// power of two that the chunk shares: exact down to 2^-14 of the chunk's largest magnitude, off by
// at most 2^-22 of it below. Its three digits of base 256, -128 ... 127, are columns of operand B
// of mma.m16n8k32: column 2 d + t is digit d of row t. Sums of a group are exact; the share of the
// zero point is that many times the sum of the digits. A lane of results, with c = lane % 4, has
// digit c of both rows.
#pragma once

#include <cuda_bf16.h>

#include "backends/cuda/device/fragment_codes.cuh"
#include "backends/cuda/device/mma_m16n8k32.cuh"
#include "backends/cuda/device/small_linear_shape.cuh"

namespace nibble::cuda::small {

// Numbers of one row of a chunk in shared memory: digits [3][2 halves of 64 columns][4 lanes c][4
// tiles of 16 columns][columns 2c, 2c + 8, 2c + 1, 2c + 9], sums of digits [groups][4 c], values of
// the digits [4 c].
struct Digits {
  static constexpr int kCount = 3;
  static constexpr int kDigitBytes = 128;
  static constexpr int kSumsAt = kCount * kDigitBytes;
  static constexpr int kGroupBytes = 16;
};

// The integer as a float32 in [2^23, 2^24): adding it rounds to whole numbers, and keeps them.
inline constexpr float kWhole = 12582912.0f;  // 2^23 + 2^22
inline constexpr std::uint32_t kWholeBits = 0x4b400000u;

// The exponent's field of a bound of the warp's numbers, whose magnitudes are at most `most` as
// bits. Where all are small, numbers below 2^-121 become 0.
__device__ __forceinline__ std::uint32_t bound_field(std::uint32_t most) {
  return max(most >> 23, 27u);
}

// The number in units of its bound over 2^22, its digits in the bytes from the lowest up.
__device__ __forceinline__ std::uint32_t digits_of(float x, std::uint32_t field) {
  constexpr std::uint32_t kCarry = 0x8080u;
  const float to_whole = __uint_as_float((275u - field) << 23);
  return (__float_as_uint(fmaf(x, to_whole, kWhole)) - kWholeBits + kCarry) ^ kCarry;
}

// Lanes hold columns 4 lane ... 4 lane + 3, and get columns 2c, 2c + 8, 2c + 1 and 2c + 9 of the
// same tile, with c = column_pair(lane). Lanes 4 t and 4 t + 2 (4 t + 1 and + 3) have those of two
// c: each takes one of them.
__device__ __forceinline__ int column_pair(int lane) { return lane % 2 * 2 + lane / 2 % 2; }
__device__ __forceinline__ void exchange_columns(std::uint32_t (&x)[4], int lane) {
  const bool second = (lane & 2) != 0;
  const std::uint32_t even = __shfl_xor_sync(0xffffffffu, second ? x[0] : x[2], 2);
  const std::uint32_t odd = __shfl_xor_sync(0xffffffffu, second ? x[1] : x[3], 2);
  const std::uint32_t at[4] = {second ? even : x[0], second ? x[2] : even, second ? odd : x[1],
                               second ? x[3] : odd};
#pragma unroll
  for (int i = 0; i < 4; ++i) x[i] = at[i];
}

// Over the lanes of a group.
template <int kGroups>
__device__ __forceinline__ int group_sum(int x) {
  if constexpr (kGroups == 1) {
    return __reduce_add_sync(0xffffffffu, x);
  } else {
#pragma unroll
    for (int distance = 16 / kGroups; distance > 0; distance /= 2) {
      x += __shfl_xor_sync(0xffffffffu, x, distance);
    }
    return x;
  }
}

// A row of a chunk, of which a lane has columns 4 lane ... 4 lane + 3.
template <int kGroups>
__device__ __forceinline__ void store_digits(unsigned char* row, float4 value, int lane) {
  const auto rounded = [](float v) { return __bfloat162float(__float2bfloat16_rn(v)); };
  const float x[4] = {rounded(value.x), rounded(value.y), rounded(value.z), rounded(value.w)};
  std::uint32_t most = 0;
#pragma unroll
  for (const float v : x) most = max(most, __float_as_uint(v) & 0x7fffffffu);
  most = __reduce_max_sync(0xffffffffu, most);
  const std::uint32_t field = bound_field(most);
  std::uint32_t digits[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) digits[i] = digits_of(x[i], field);
  exchange_columns(digits, lane);
  unsigned char* const to = row + lane / 16 * 64 + column_pair(lane) * 16 + lane / 4 % 4 * 4;
  int sums[Digits::kCount];
#pragma unroll
  for (int d = 0; d < Digits::kCount; ++d) {
    const std::uint32_t pick = 0x40u + 0x11u * static_cast<std::uint32_t>(d);
    const std::uint32_t word = __byte_perm(__byte_perm(digits[0], digits[1], pick),
                                           __byte_perm(digits[2], digits[3], pick), 0x5410u);
    *reinterpret_cast<std::uint32_t*>(to + d * Digits::kDigitBytes) = word;
    sums[d] = group_sum<kGroups>(__dp4a(static_cast<int>(word), 0x01010101, 0));
  }
  constexpr int kLanes = 32 / kGroups;
  auto* const numbers = reinterpret_cast<float*>(row + Digits::kSumsAt);
  const int place = lane % kLanes;
  if (place < 4) {
    const int sum = place == 0 ? sums[0] : place == 1 ? sums[1] : place == 2 ? sums[2] : 0;
    numbers[lane / kLanes * 4 + place] = static_cast<float>(sum);
  }
  if (lane < 4) {
    const bool finite = most < 0x7f800000u;
    const float unit = __uint_as_float((field - 21u + 8u * static_cast<std::uint32_t>(lane)) << 23);
    numbers[kGroups * 4 + lane] = lane == 3 ? 0.0f : finite ? unit : __uint_as_float(0x7fc00000u);
  }
}

// The block's slice of x, [chunks of the slice][m] rows of kDigitRowBytes, zeros beyond the last
// column. Warps take rows of chunks in turn.
template <class S>
__device__ inline void convert_digits(const Arguments& args, const Range& range,
                                      unsigned char* shared) {
  constexpr int kBatch = 8;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int rows = range.chunks * args.m;
  for (int first = static_cast<int>(threadIdx.x) / 32; first < rows; first += kBatch * kWarps) {
    float4 values[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int row = first + b * kWarps;
      const int chunk = args.m == 1 ? row : row / 2;
      const int token = row - chunk * args.m;
      const int column = (range.first_chunk + chunk) * 128 + lane * 4;
      values[b] = row < rows && column < args.units * 64
                      ? *reinterpret_cast<const float4*>(args.x + token * args.x_stride + column)
                      : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int row = first + b * kWarps;
      if (row < rows) store_digits<S::kGroups>(shared + row * S::kDigitRowBytes, values[b], lane);
    }
  }
}

// One chunk of a warp: kTiles of 16 rows, 128 columns. x: of the chunk.
template <class S>
__device__ __forceinline__ void multiply_digits(const Arguments& args, const unsigned char* stage,
                                                const unsigned char* x, int lane, Sums<S>& sums) {
  const int column = lane / 4;  // of operand B; those beyond the digits are not looked at
  const int c = lane % 4;
  const int second = args.m == 1 ? 0 : S::kDigitRowBytes;  // the other row
  const unsigned char* from = x + (column & 1) * second +
                              min(column / 2, Digits::kCount - 1) * Digits::kDigitBytes + c * 16;
  const uint4 b[2] = {*reinterpret_cast<const uint4*>(from),
                      *reinterpret_cast<const uint4*>(from + 64)};
  const auto number_of = [&](int row, int number) {
    return *reinterpret_cast<const float*>(x + row * second + Digits::kSumsAt +
                                           number * Digits::kGroupBytes + c * 4);
  };
  const float value[2] = {number_of(0, S::kGroups), number_of(1, S::kGroups)};
  using Codes = ByteCodes<S::kBits>;
  constexpr int kStepsOfGroup = 4 / S::kGroups;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(stage + S::kCodeBytes) + (lane >> 2);
  const unsigned char* zeros = stage + S::kCodeBytes + S::kTiles * S::kGroups * 32 + (lane >> 2);
  const bool symmetric = args.parts[0].zeros == nullptr;
  constexpr std::uint32_t kMiddle = 1u << (S::kBits - 1);
  const auto zero_at = [&](int row) {
    return __uint_as_float(0x4b000000u | (symmetric ? kMiddle : zeros[row])) - 8388608.0f;
  };
#pragma unroll
  for (int group = 0; group < S::kGroups; ++group) {
    const float digits[2] = {number_of(0, group), number_of(1, group)};
#pragma unroll
    for (int r = 0; r < S::kTiles; ++r) {
      std::uint32_t part[4] = {kWholeBits, kWholeBits, kWholeBits, kWholeBits};
#pragma unroll
      for (int step = group * kStepsOfGroup; step < (group + 1) * kStepsOfGroup; ++step) {
        std::uint32_t a[4];
        const unsigned char* codes = stage + r * 2 * S::kTileBytes + lane * 16;
        Codes::expand(*reinterpret_cast<const uint4*>(codes + step / Codes::kPairs * kLoadBytes),
                      step % Codes::kPairs, a);
        const uint4& half = b[step / 2];
        multiply_bytes(part, a, step % 2 == 0 ? half.x : half.z, step % 2 == 0 ? half.y : half.w);
      }
      const int row = (r * S::kGroups + group) * 16;
      const float zero[2] = {zero_at(row), zero_at(row + 8) * Codes::kLower};
      const float scale[2] = {scale_of(scales + row, args.bf16_scales),
                              scale_of(scales + row + 8, args.bf16_scales) / Codes::kLower};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float whole = __uint_as_float(part[i]) - fmaf(zero[i / 2], digits[i % 2], kWhole);
        sums[r][0][i] += scale[i / 2] * value[i % 2] * whole;
      }
    }
  }
}

// Adds up what the lanes of a row of results have of its digits. Lanes with c = 0 and 1 return the
// first tile, the others the second: (row g; rows of x 0, 1), (row g + 8; 0, 1).
template <class S>
__device__ __forceinline__ float4 join_digits(const Sums<S>& sums, int lane) {
  static_assert(S::kTiles == 2);
  const bool upper = (lane & 2) != 0;
  float joined[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float first = sums[0][0][i];
    const float second = sums[1][0][i];
    joined[i] = (upper ? second : first) + __shfl_xor_sync(0xffffffffu, upper ? first : second, 2);
    joined[i] += __shfl_xor_sync(0xffffffffu, joined[i], 1);
  }
  return make_float4(joined[0], joined[1], joined[2], joined[3]);
}

}  // namespace nibble::cuda::small
