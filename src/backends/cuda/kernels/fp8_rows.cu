// A block a row, 16 columns a thread at a time; eight threads make a sum of 128.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "backends/cuda/device/block_reduce.cuh"
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

__device__ __forceinline__ float value_of(unsigned code) {
  const __half_raw half = __nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(code), __NV_E4M3);
  return __half2float(__half(half));
}

// The codes of 16 columns in their order, and the sum of what they stand for.
__device__ __forceinline__ uint4 codes_of(const float (&values)[kOfThread], float scale,
                                          float* sum) {
  unsigned words[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    words[c] = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float value = values[2 * c + j / 2 + j % 2 * 8];
      const unsigned code = e4m3_code(value, scale);
      words[c] |= code << 8 * j;
      *sum += value_of(code);
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// The group-th sum of a row.
__device__ __forceinline__ void store_sum(__nv_bfloat16* sums, int group, float sum) {
  const int half = kFp8SumGroups / 2;
  __nv_bfloat16* const at =
      sums + group / kFp8SumGroups * kFp8SumBox + group % kFp8SumGroups / half * kFp8SumGroups;
  const __nv_bfloat16 high = __float2bfloat16_rn(sum);
  at[group % half] = high;
  at[group % half + half] = __float2bfloat16_rn(sum - __bfloat162float(high));
}

__global__ void __launch_bounds__(kThreads) round_to_fp8(Fp8Rows args) {
  using Row = Team<kThreads, kThreads>;
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t row = Row::index();
  const float* const x = args.x + row * args.x_stride;
  const auto pieces = static_cast<int>(args.cols / kOfThread);
  float values[kOfThread];
  float largest = 0;
  for (int i = Row::lane(); i < pieces; i += kThreads) {
    load(x + std::int64_t{kOfThread} * i, values);
#pragma unroll
    for (const float v : values) largest = larger_magnitude(largest, v);
  }
  const RowScale by = row_scale(Row::largest(largest), args.most);
  auto* const codes = static_cast<uint4*>(args.codes) + row * pieces;
  const auto groups = static_cast<int>(args.cols / kFp8SumColumns);
  const int boxes = (groups + kFp8SumGroups - 1) / kFp8SumGroups;
  auto* const sums = static_cast<__nv_bfloat16*>(args.sums) + row * boxes * kFp8SumBox;
  for (int first = 0; first < pieces; first += kThreads) {
    const int i = first + Row::lane();
    float sum = 0;
    if (i < pieces) {
      load(x + std::int64_t{kOfThread} * i, values);
      codes[i] = by.zero ? make_uint4(0, 0, 0, 0) : codes_of(values, by.scale, &sum);
    }
#pragma unroll
    for (int step = 1; step < kOfSum; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (i < pieces && i % kOfSum == 0) store_sum(sums, i / kOfSum, sum);
  }
  const int beyond = groups + Row::lane();
  if (beyond < boxes * kFp8SumGroups) store_sum(sums, beyond, 0);
  if (Row::lane() == 0) args.scales[row] = by.stored;
}

}  // namespace

cudaError_t fp8_rows(const Fp8Rows& args, cudaStream_t stream) {
  if (args.cols % kFp8SumColumns != 0 || args.x_stride % 4 != 0) return cudaErrorInvalidValue;
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  return launch(round_to_fp8, team_shape<kThreads>(args.rows, kThreads), stream, args);
}

}  // namespace nibble::cuda
