#include "backends/cuda/device/weight_element.cuh"
#include "backends/cuda/kernels/decode_weight.h"
#include "backends/cuda/kernels/grid.h"

namespace nibble::cuda {
namespace {

__device__ __forceinline__ void store(float* out, float value) { *out = value; }
__device__ __forceinline__ void store(__half* out, float value) { *out = __float2half_rn(value); }
__device__ __forceinline__ void store(__nv_bfloat16* out, float value) {
  *out = __float2bfloat16_rn(value);
}

template <class T>
__global__ void decode(DecodeWeight args) {
  const std::int64_t cols = args.weight.cols;
  T* const out = static_cast<T*>(args.out);
  for (std::int64_t row = blockIdx.y; row < args.rows; row += gridDim.y) {
    for (std::int64_t col = blockIdx.x * blockDim.x + threadIdx.x; col < cols;
         col += gridDim.x * blockDim.x) {
      store(out + row * cols + col, weight_element(args.weight, args.first_row + row, col));
    }
  }
}

__global__ void embed(EmbedRows args) {
  const std::int64_t cols = args.table.cols;
  for (std::int64_t i = blockIdx.y; i < args.count; i += gridDim.y) {
    const std::int64_t row = args.ids[i];
    for (std::int64_t col = blockIdx.x * blockDim.x + threadIdx.x; col < cols;
         col += gridDim.x * blockDim.x) {
      const float value = weight_element(args.table, row, col) * args.scale;
      float* const out = args.out + i * cols + col;
      *out = args.accumulate ? *out + value : value;
    }
  }
}

}  // namespace

cudaError_t decode_weight(const DecodeWeight& args, cudaStream_t stream) {
  if (args.rows == 0 || args.weight.cols == 0) return cudaSuccess;
  const dim3 grid = row_grid(args.rows, args.weight.cols);
  switch (static_cast<FloatType>(args.type)) {
    case FloatType::kF16:
      decode<__half><<<grid, kRowThreads, 0, stream>>>(args);
      break;
    case FloatType::kBF16:
      decode<__nv_bfloat16><<<grid, kRowThreads, 0, stream>>>(args);
      break;
    case FloatType::kF32:
      decode<float><<<grid, kRowThreads, 0, stream>>>(args);
      break;
  }
  return cudaGetLastError();
}

cudaError_t embed_rows(const EmbedRows& args, cudaStream_t stream) {
  if (args.count == 0 || args.table.cols == 0) return cudaSuccess;
  embed<<<row_grid(args.count, args.table.cols), kRowThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace nibble::cuda
