#include "backends/cuda/device/block_reduce.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/row_scale.cuh"
#include "backends/cuda/kernels/grid.h"
#include "backends/cuda/kernels/token_codes.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;

// A block a row.
template <class Codes>
__global__ void __launch_bounds__(kThreads) round_to_codes(TokenCodes args) {
  using Row = Team<kThreads, kThreads>;
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t row = Row::index();
  const float* const x = args.x + row * args.x_stride;
  const auto cols = static_cast<int>(args.cols);
  float largest = 0;
  for (int i = Row::lane(); i < cols; i += kThreads) {
    largest = larger_magnitude(largest, x[i]);
  }
  const RowScale by = row_scale(Row::largest(largest), args.most);
  const Codes pairs(by);
  auto* const codes = static_cast<unsigned*>(args.codes) + row * (cols / 4);
  for (int i = Row::lane(); i < cols / 4; i += kThreads) {
    const float* const four = x + 4 * i;
    codes[i] = by.zero ? 0 : pairs.pair(four[0], four[1]) | pairs.pair(four[2], four[3]) << 16;
  }
  if (Row::lane() == 0) args.scales[row] = by.stored;
}

template <class T>
__global__ void __launch_bounds__(kRowThreads) scale(ScaleProducts args) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  for (std::int64_t r = blockIdx.y; r < args.rows; r += gridDim.y) {
    const float of_row = args.x_scales[r];
    for (std::int64_t c = blockIdx.x * blockDim.x + threadIdx.x; c < args.cols;
         c += gridDim.x * blockDim.x) {
      const auto product =
          static_cast<float>(static_cast<const T*>(args.product)[r * args.cols + c]);
      float value = of_row * (args.w_scales[c] * product);
      if (args.bias != nullptr) value += args.bias[c];
      float* const y = args.y + r * args.y_stride + c;
      *y = args.accumulate ? *y + value : value;
    }
  }
}

}  // namespace

cudaError_t token_codes(const TokenCodes& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  const LaunchShape shape = team_shape<kThreads>(args.rows, kThreads);
  return args.type == ByteType::kFp8 ? launch(round_to_codes<E4m3Codes>, shape, stream, args)
                                     : launch(round_to_codes<Int8Codes>, shape, stream, args);
}

cudaError_t scale_products(const ScaleProducts& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  const LaunchShape shape{row_grid(args.rows, args.cols), dim3(kRowThreads), 0, true};
  return args.type == ByteType::kFp8 ? launch(scale<float>, shape, stream, args)
                                     : launch(scale<std::int32_t>, shape, stream, args);
}

}  // namespace nibble::cuda
