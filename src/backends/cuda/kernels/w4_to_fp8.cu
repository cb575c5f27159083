// A warp takes 16 rows by 128 columns, two words of each tile of 16 columns a lane, and turns them
// into rows through shared memory.
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "backends/cuda/kernels/w4_to_fp8.h"

namespace nibble::cuda {
namespace {

constexpr int kWarps = 4;   // 64 rows
constexpr int kCols = 128;  // of a block of threads
constexpr int kPitch = kCols + 16;

struct Expand {
  const uint4* codes;
  const std::uint8_t* zeros;
  std::uint8_t* y;
  std::int64_t cols;
  std::int64_t groups;
};

// Codes of nibbles i and i + 4, neighbours in k, as E4M3.
__device__ __forceinline__ std::uint16_t expand_pair(std::uint32_t word, int i, float zero) {
  const auto low = static_cast<float>(word >> (4 * i) & 15);
  const auto high = static_cast<float>(word >> (4 * i + 16) & 15);
  return __nv_cvt_float2_to_fp8x2(make_float2(low - zero, high - zero), __NV_SATFINITE, __NV_E4M3);
}

__global__ void __launch_bounds__(32 * kWarps) expand_codes(const __grid_constant__ Expand p) {
  __shared__ alignas(16) std::uint8_t tile[kWarps][16 * kPitch];
  const std::int64_t row_block = blockIdx.y;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;
  const int c = lane % 4;
  const std::int64_t group_size = p.cols / p.groups;
  std::uint8_t* mine = tile[warp];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t block = 2 * std::int64_t{blockIdx.x} + half;
    const uint4 four = p.codes[((row_block * (p.cols / 64) + block) * 4 + warp) * 32 + lane];
    const std::uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const std::int64_t group = (64 * block + 16 * t) / group_size;
      const std::int64_t zero = (row_block * p.groups + group) * 64 + 16 * warp + g;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float z = p.zeros != nullptr ? p.zeros[zero + 8 * (i % 2)] : 8.0f;
        const int at = (g + 8 * (i % 2)) * kPitch + 64 * half + 16 * t + 2 * c + 8 * (i / 2);
        *reinterpret_cast<std::uint16_t*>(mine + at) = expand_pair(words[t], i, z);
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = 4 * i + lane / 8;
    const int col = lane % 8 * 16;
    std::uint8_t* to =
        p.y + (row_block * 64 + 16 * warp + row) * p.cols + std::int64_t{kCols} * blockIdx.x + col;
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(mine + row * kPitch + col);
  }
}

}  // namespace

cudaError_t w4_to_fp8(const W4Matrix& weight, void* y, cudaStream_t stream) {
  if (weight.rows <= 0 || weight.rows % 64 != 0 || weight.rows / 64 > 65535 || weight.cols <= 0 ||
      weight.cols % kCols != 0 || weight.groups <= 0 || weight.cols % weight.groups != 0) {
    return cudaErrorInvalidValue;
  }
  const Expand params{static_cast<const uint4*>(weight.codes), weight.zeros,
                      static_cast<std::uint8_t*>(y), weight.cols, weight.groups};
  const dim3 grid(static_cast<unsigned>(weight.cols / kCols),
                  static_cast<unsigned>(weight.rows / 64));
  expand_codes<<<grid, 32 * kWarps, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace nibble::cuda
