// A block of threads takes one block of 64 x 64 codes: a warp expands 16 of its rows as operands of
// a matrix product would be, lays them down in shared memory row by row, and the block writes whole
// rows.
#include <cuda_bf16.h>

#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/fragment_codes.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/decode_fragments.h"

namespace nibble::cuda {
namespace {

constexpr int kBlock = 64;
constexpr int kThreads = 128;
constexpr int kRowStride = kBlock + 8;  // padded: lanes of a warp write to different banks

// Two codes less the zero point (an exact pair of bf16) times the scale.
__device__ __forceinline__ std::uint32_t scale_pair(std::uint32_t pair, float scale) {
  const float low = __uint_as_float(pair << 16) * scale;
  const float high = __uint_as_float(pair & 0xffff0000u) * scale;
  const __nv_bfloat162 rounded = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(rounded);
}

template <int kBits>
__global__ void __launch_bounds__(kThreads) decode(FragmentMatrix w, __nv_bfloat16* out) {
  using Codes = FragmentCodes<kBits>;
  constexpr int kLoads = 4 / Codes::kTiles;
  constexpr std::uint32_t kMiddle = 1u << (kBits - 1);  // the zero point of symmetric weights
  __shared__ __align__(16) __nv_bfloat16 rows[kBlock * kRowStride];
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t row_block = blockIdx.y;
  const std::int64_t col_block = blockIdx.x;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint4* const stored = static_cast<const uint4*>(w.codes) +
                              (row_block * (w.cols / kBlock) + col_block) * kThreads * kLoads +
                              warp * 32 * kLoads + lane;
  uint4 codes[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) codes[i] = stored[i * 32];
  const int row = warp * 16 + lane / 4;
#pragma unroll
  for (int tile = 0; tile < 4; ++tile) {
    const std::int64_t group = (col_block * kBlock + tile * 16) * w.groups / w.cols;
    const std::int64_t at = (row_block * w.groups + group) * kBlock + row;
    const std::uint32_t upper_zero = Codes::zero(w.zeros == nullptr ? kMiddle : w.zeros[at]);
    const std::uint32_t lower_zero = Codes::zero(w.zeros == nullptr ? kMiddle : w.zeros[at + 8]);
    const float upper = scale_of(static_cast<const std::uint16_t*>(w.scales) + at, w.bf16_scales);
    const float lower =
        scale_of(static_cast<const std::uint16_t*>(w.scales) + at + 8, w.bf16_scales);
    std::uint32_t a[4];
    Codes::expand(codes[tile / Codes::kTiles], tile % Codes::kTiles, upper_zero, lower_zero, a);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      __nv_bfloat16* to =
          rows + (row + i % 2 * 8) * kRowStride + tile * 16 + lane % 4 * 2 + i / 2 * 8;
      *reinterpret_cast<std::uint32_t*>(to) = scale_pair(a[i], i % 2 == 0 ? upper : lower);
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int piece = i * kThreads + static_cast<int>(threadIdx.x);  // 16 bytes, 8 to a row
    const uint4 value =
        *reinterpret_cast<const uint4*>(rows + piece / 8 * kRowStride + piece % 8 * 8);
    reinterpret_cast<uint4*>(out + (row_block * kBlock + piece / 8) * w.cols +
                             col_block * kBlock)[piece % 8] = value;
  }
}

}  // namespace

cudaError_t decode_fragments(const DecodeFragments& args, cudaStream_t stream) {
  const FragmentMatrix& w = args.w;
  if (w.rows < kBlock || w.cols < kBlock || w.rows % kBlock != 0 || w.cols % kBlock != 0 ||
      (w.bits != 4 && w.bits != 8)) {
    return cudaErrorInvalidValue;
  }
  const dim3 grid(static_cast<unsigned int>(w.cols / kBlock),
                  static_cast<unsigned int>(w.rows / kBlock));
  return launch(w.bits == 4 ? decode<4> : decode<8>, {grid, kThreads, 0, args.dependent_launch},
                stream, w, static_cast<__nv_bfloat16*>(args.out));
}

}  // namespace nibble::cuda
