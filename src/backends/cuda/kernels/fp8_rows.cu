// A block a row, 16 columns a thread at a time; eight threads make a sum of 128.
#include <cuda_bf16.h>

#include "backends/cuda/device/block_reduce.cuh"
#include "backends/cuda/device/product_rows.cuh"
#include "backends/cuda/device/row_scale.cuh"
#include "backends/cuda/kernels/fp8_rows.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kOfThread = 16;
constexpr int kOfSum = kFp8SumColumns / kOfThread;

__device__ __forceinline__ void load(const float* x, float (&values)[kOfThread]) {
#pragma unroll
  for (int i = 0; i < kOfThread / 4; ++i) {
    const float4 v = reinterpret_cast<const float4*>(x)[i];
    values[4 * i] = v.x;
    values[4 * i + 1] = v.y;
    values[4 * i + 2] = v.z;
    values[4 * i + 3] = v.w;
  }
}

// The codes of 16 columns in their order, and the sum of what they stand for.
__device__ __forceinline__ uint4 codes_of(const float (&values)[kOfThread], const E4m3Codes& codes,
                                          float* sum) {
  unsigned words[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const float* const v = values + 2 * c;
    const unsigned low = codes.pair(v[0], v[8]);
    const unsigned high = codes.pair(v[1], v[9]);
    words[c] = low | high << 16;
    *sum += sum_of_codes(low) + sum_of_codes(high);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// kHeld: pieces of a thread, which stay in registers between looking for the largest and rounding;
// 0: any number, read again.
template <int kHeld>
__global__ void __launch_bounds__(kThreads) round_to_fp8(Fp8Rows args) {
  using Row = Team<kThreads, kThreads>;
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t row = Row::index();
  const float* const x = args.x + row * args.x_stride;
  const auto pieces = static_cast<int>(args.cols / kOfThread);
  const int rounds = kHeld > 0 ? kHeld : (pieces + kThreads - 1) / kThreads;
  float values[kHeld > 0 ? kHeld : 1][kOfThread];
  float largest = 0;
#pragma unroll
  for (int p = 0; p < rounds; ++p) {
    const int i = p * kThreads + Row::lane();
    if (i >= pieces) break;
    float(&of_piece)[kOfThread] = values[kHeld > 0 ? p : 0];
    load(x + std::int64_t{kOfThread} * i, of_piece);
#pragma unroll
    for (const float v : of_piece) largest = larger_magnitude(largest, v);
  }
  const RowScale by = row_scale(Row::largest(largest), args.most);
  const E4m3Codes to(by);
  const auto groups = static_cast<int>(args.cols / kFp8SumColumns);
  const int boxes = (groups + kFp8SumGroups - 1) / kFp8SumGroups;
  auto* const codes = static_cast<uint4*>(args.codes) + row * pieces;
  auto* const sums = static_cast<__nv_bfloat16*>(args.sums) + row * boxes * kFp8SumBox;
#pragma unroll
  for (int p = 0; p < rounds; ++p) {
    const int i = p * kThreads + Row::lane();
    float(&of_piece)[kOfThread] = values[kHeld > 0 ? p : 0];
    float sum = 0;
    if (i < pieces) {
      if (kHeld == 0) load(x + std::int64_t{kOfThread} * i, of_piece);
      codes[i] = by.zero ? make_uint4(0, 0, 0, 0) : codes_of(of_piece, to, &sum);
    }
#pragma unroll
    for (int step = 1; step < kOfSum; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (i < pieces && i % kOfSum == 0) store_code_sum(sums, i / kOfSum, sum);
  }
  const int beyond = groups + Row::lane();
  if (beyond < boxes * kFp8SumGroups) store_code_sum(sums, beyond, 0);
  if (Row::lane() == 0) args.scales[row] = by.stored;
}

}  // namespace

cudaError_t fp8_rows(const Fp8Rows& args, cudaStream_t stream) {
  if (args.cols % kFp8SumColumns != 0 || args.x_stride % 4 != 0) return cudaErrorInvalidValue;
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  const LaunchShape shape = team_shape<kThreads>(args.rows, kThreads);
  const std::int64_t of_block = kThreads * kOfThread;
  if (args.cols <= of_block) return launch(round_to_fp8<1>, shape, stream, args);
  if (args.cols <= 4 * of_block) return launch(round_to_fp8<4>, shape, stream, args);
  return launch(round_to_fp8<0>, shape, stream, args);
}

}  // namespace nibble::cuda
