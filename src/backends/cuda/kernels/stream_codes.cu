// A warp streams some rows of the weight, eight codes a lane at a time, and multiplies their values
// with x in float32: the sum of eight products, times the scale that they share. The sums of a row
// of x do not depend on how many rows x has. Bound by looking values up, so codes of 4 and 8 bits
// have loops of their own.
#include "backends/cuda/device/code_columns.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/warp_reduce.cuh"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/stream_codes.h"

namespace nibble::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRows = 2;   // of the weight, a warp: they share what is read of x
constexpr int kAhead = 4;  // steps of a warp whose loads are under way together
constexpr unsigned kStep = 32 * kCodeColumns;

template <class Values, int kBits, int kM>
__global__ void __launch_bounds__(kThreads) walk_codes(CodesLinear args) {
  using Table = SharedTable<Values, kBits>;
  __shared__ float shared[Table::kFloats];
  const WeightPlanes& w = args.w;
  const Table table = Table::load(w, shared);
  const std::int64_t first = (blockIdx.x * std::int64_t{kWarps} + threadIdx.x / 32) * kRows;
  const int lane = threadIdx.x % 32;
  // The last warp reads its last row twice rather than one that is not there.
  const unsigned* words[kRows];
  std::int64_t scales[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t row = min(first + r, w.rows - 1);
    words[r] = static_cast<const unsigned*>(w.data) + row * w.row_words;
    scales[r] = scale_place(w, row, 0);
  }
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const auto cols = static_cast<unsigned>(w.cols);
  const auto group = static_cast<unsigned>(w.group);
  float sums[kRows][kM] = {};
  for (unsigned begin = lane * kCodeColumns; begin < cols; begin += kAhead * kStep) {
    CodeWords<kBits> codes[kAhead][kRows];
    std::int64_t at[kAhead][kRows];
    unsigned stored[kAhead][kRows];
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const unsigned k = min(begin + ahead * kStep, cols - kCodeColumns);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        at[ahead][r] = scales[r] + k / group;
        codes[ahead][r] = CodeWords<kBits>::load(words[r], k, w.bits);
        stored[ahead][r] = load_scale(w, at[ahead][r]);
      }
    }
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const unsigned k = begin + ahead * kStep;
      if (k >= cols) break;
      float weights[kRows][kCodeColumns];
      float scale[kRows];
      scale_values(w, at[ahead], stored[ahead], scale);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const auto value = table.values(Values::kTable ? 0 : load_zero(w, at[ahead][r]));
#pragma unroll
        for (int i = 0; i < kCodeColumns; ++i) weights[r][i] = value(codes[ahead][r].code(i));
      }
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        const float4* const x = reinterpret_cast<const float4*>(args.x + m * args.x_stride + k);
        const float4 a = x[0];
        const float4 b = x[1];
        const float values[kCodeColumns] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          float sum = 0;
#pragma unroll
          for (int i = 0; i < kCodeColumns; ++i) sum += weights[r][i] * values[i];
          sums[r][m] += scale[r] * sum;
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      float sum = warp_sum(sums[r][m]);
      if (lane != 0 || first + r >= w.rows) continue;
      float* const y = args.y + m * args.y_stride + first + r;
      if (args.bias != nullptr) sum += args.bias[first + r];
      *y = args.accumulate ? *y + sum : sum;
    }
  }
}

template <class Values, int kM>
cudaError_t run_rows(const CodesLinear& args, cudaStream_t stream) {
  constexpr std::int64_t kBlockRows = kWarps * kRows;
  const LaunchShape shape{dim3(static_cast<unsigned>((args.w.rows + kBlockRows - 1) / kBlockRows)),
                          dim3(kThreads), 0, true};
  switch (args.w.bits) {
    case 4:
      return launch(walk_codes<Values, 4, kM>, shape, stream, args);
    case 8:
      return launch(walk_codes<Values, 8, kM>, shape, stream, args);
    default:
      return launch(walk_codes<Values, 0, kM>, shape, stream, args);
  }
}

// kM rows of x at a time.
template <class Values, int kM>
cudaError_t run(CodesLinear args, cudaStream_t stream) {
  for (; args.m >= kM; args.m -= kM) {
    if (const cudaError_t error = run_rows<Values, kM>(args, stream); error != cudaSuccess) {
      return error;
    }
    args.x += kM * args.x_stride;
    args.y += kM * args.y_stride;
  }
  if constexpr (kM > 1) return run<Values, kM / 2>(args, stream);
  return cudaSuccess;
}

}  // namespace

const char* stream_codes_unsupported(const CodesLinear& args) {
  if (args.m > kMostCodesRows) return "for up to 4 rows";
  if (!has_code_columns(args.w)) return "eight columns do not share a scale";
  if (args.x_stride % 4 != 0 || !on_16_bytes(args.x)) return "x is not on 16 bytes";
  return nullptr;
}

cudaError_t stream_codes(const CodesLinear& args, cudaStream_t stream) {
  if (args.m == 0 || args.w.rows == 0) return cudaSuccess;
  constexpr int kMost = static_cast<int>(kMostCodesRows);
  return args.w.values != nullptr ? run<TableValues, kMost>(args, stream)
                                  : run<IntegerValues, kMost>(args, stream);
}

}  // namespace nibble::cuda
