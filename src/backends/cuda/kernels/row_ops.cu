#include "backends/cuda/device/block_reduce.cuh"
#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/grid.h"
#include "backends/cuda/kernels/row_ops.h"
#include "ops/activation.h"

namespace nibble::cuda {
namespace {

// ---- norm

constexpr int kNormThreads = 512;

// Rows of up to kVectors times four numbers a thread: they are read once, and the weights before
// the kernel ahead has ended.
template <int kVectors>
__global__ void __launch_bounds__(kNormThreads) norm_in_registers(NormRows args) {
  using Row = Team<kNormThreads, kNormThreads>;
  const std::int64_t row = Row::index();
  const auto vectors = static_cast<int>(args.cols) / 4;
  const auto at = [&](int v) { return v * kNormThreads + Row::lane(); };
  const auto load = [&](const float* from, int v, float other) {
    if (from == nullptr || at(v) >= vectors) return make_float4(other, other, other, other);
    return reinterpret_cast<const float4*>(from)[at(v)];
  };
  float4 weight[kVectors];
  float4 bias[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    weight[v] = load(args.weight, v, 1 - args.weight_offset);
    bias[v] = load(args.centred ? args.bias : nullptr, v, 0);
  }
  let_next_kernel_start();
  wait_for_kernel_ahead();
  float4 x[kVectors];
  float sum = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    x[v] = load(args.x + row * args.x_stride, v, 0);
    sum += x[v].x + x[v].y + x[v].z + x[v].w;
  }
  const auto count = static_cast<float>(args.cols);
  const float mean = args.centred ? Row::sum(sum) / count : 0;
  float square = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (at(v) >= vectors) continue;
    x[v] = make_float4(x[v].x - mean, x[v].y - mean, x[v].z - mean, x[v].w - mean);
    square += x[v].x * x[v].x + x[v].y * x[v].y + x[v].z * x[v].z + x[v].w * x[v].w;
  }
  const float inverse = 1 / sqrtf(Row::sum(square) / count + args.eps);
  const float offset = args.weight_offset;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (at(v) >= vectors) continue;
    const float4& w = weight[v];
    const float4& b = bias[v];
    reinterpret_cast<float4*>(args.y + row * args.y_stride)[at(v)] = make_float4(
        x[v].x * inverse * (offset + w.x) + b.x, x[v].y * inverse * (offset + w.y) + b.y,
        x[v].z * inverse * (offset + w.z) + b.z, x[v].w * inverse * (offset + w.w) + b.w);
  }
}

bool fits_registers(const NormRows& args) {
  constexpr std::int64_t kMostCols = 4 * 4 * kNormThreads;
  return args.cols % 4 == 0 && args.cols <= kMostCols && args.x_stride % 4 == 0 &&
         args.y_stride % 4 == 0 && on_16_bytes(args.x) && on_16_bytes(args.y) &&
         on_16_bytes(args.weight) && on_16_bytes(args.bias);
}

// kLanes share a row: a warp where rows are as short as a head, or else a block.
template <int kLanes>
__global__ void __launch_bounds__(kNormThreads) norm(NormRows args) {
  using Row = Team<kLanes, kNormThreads>;
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t row = Row::index();
  if (row >= args.rows) return;  // a warp, or a block, as a whole
  const float* const x = args.x + row * args.x_stride;
  float* const y = args.y + row * args.y_stride;
  const auto cols = static_cast<int>(args.cols);
  const float count = static_cast<float>(cols);
  float mean = 0;
  if (args.centred) {
    float sum = 0;
    for (int i = Row::lane(); i < cols; i += kLanes) sum += x[i];
    mean = Row::sum(sum) / count;
  }
  float square = 0;
  for (int i = Row::lane(); i < cols; i += kLanes) {
    const float v = x[i] - mean;
    square += v * v;
  }
  const float inverse = 1 / sqrtf(Row::sum(square) / count + args.eps);
  for (int i = Row::lane(); i < cols; i += kLanes) {
    const float w = args.weight == nullptr ? 1.0f : args.weight_offset + args.weight[i];
    const float b = args.centred && args.bias != nullptr ? args.bias[i] : 0.0f;
    y[i] = (x[i] - mean) * inverse * w + b;
  }
}

// ---- rope

__global__ void rope(RopeRows args) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t half = args.rotary_dim / 2;
  const std::int64_t pairs = args.heads * half;
  for (std::int64_t t = blockIdx.y; t < args.rows; t += gridDim.y) {
    for (std::int64_t p = blockIdx.x * blockDim.x + threadIdx.x; p < pairs;
         p += gridDim.x * blockDim.x) {
      const std::int64_t i = p % half;
      float* const head = args.data + t * args.row_stride + p / half * args.head_stride;
      float* const a = head + (args.interleaved ? 2 * i : i);
      float* const b = head + (args.interleaved ? 2 * i + 1 : i + half);
      float sine;
      float cosine;
      sincosf(static_cast<float>(args.positions[t]) * args.inv_freq[i], &sine, &cosine);
      sine *= args.scale;
      cosine *= args.scale;
      const float x = *a;
      const float y = *b;
      *a = x * cosine - y * sine;
      *b = y * cosine + x * sine;
    }
  }
}

// ---- activation

__device__ __forceinline__ float activated(Activation kind, float softcap, float x) {
  switch (kind) {
    case Activation::kIdentity:
      return x;
    case Activation::kRelu:
      return x > 0 ? x : (x != x ? x : 0);
    case Activation::kSilu:
      return x / (1 + expf(-x));
    case Activation::kGelu:
      return 0.5f * x * (1 + erff(x * 0.70710678f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case Activation::kGeluQuick:
      return x / (1 + expf(-1.702f * x));
    case Activation::kTanh:
      return softcap > 0 ? softcap * tanhf(x / softcap) : tanhf(x);
  }
  return x;
}

// kWidth numbers at a time: 4 where rows allow.
template <int kWidth>
struct alignas(4 * kWidth) Numbers {
  float v[kWidth];
};

template <int kWidth>
__global__ void activate(ActivateRows args) {
  using Vector = Numbers<kWidth>;
  let_next_kernel_start();
  wait_for_kernel_ahead();
  for (std::int64_t r = blockIdx.y; r < args.rows; r += gridDim.y) {
    for (std::int64_t c = (blockIdx.x * blockDim.x + threadIdx.x) * std::int64_t{kWidth};
         c < args.cols; c += gridDim.x * blockDim.x * std::int64_t{kWidth}) {
      const auto at = [c](const float* row) { return *reinterpret_cast<const Vector*>(row + c); };
      Vector value = at(args.x + r * args.x_stride);
      for (float& v : value.v) {
        v = v > args.limit ? args.limit : v;
        v = activated(static_cast<Activation>(args.kind), args.softcap, v);
      }
      if (args.multiplier != nullptr) {
        const Vector multiplier = at(args.multiplier + r * args.multiplier_stride);
        for (int i = 0; i < kWidth; ++i) {
          const float m = multiplier.v[i];
          const float held = m > args.limit ? args.limit : (m < -args.limit ? -args.limit : m);
          value.v[i] *= held + args.multiplier_offset;
        }
      }
      *reinterpret_cast<Vector*>(args.y + r * args.y_stride + c) = value;
    }
  }
}

// ---- sums and rows by index

__global__ void add(AddValues args) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const auto scale = static_cast<float>(args.scale);
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < args.count;
       i += gridDim.x * std::int64_t{blockDim.x}) {
    args.y[i] = __fadd_rn(args.y[i], __fmul_rn(scale, args.x[i]));
  }
}

__global__ void bias(BiasRows args) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  for (std::int64_t r = blockIdx.y; r < args.rows; r += gridDim.y) {
    for (std::int64_t c = blockIdx.x * blockDim.x + threadIdx.x; c < args.cols;
         c += gridDim.x * blockDim.x) {
      float* const y = args.y + r * args.y_stride + c;
      *y = args.accumulate ? *y + args.bias[c] : args.bias[c];
    }
  }
}

__global__ void gather(GatherRows args) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  for (std::int64_t i = blockIdx.y; i < args.count; i += gridDim.y) {
    const float* const x = args.x + args.index[i] * args.cols;
    for (std::int64_t c = blockIdx.x * blockDim.x + threadIdx.x; c < args.cols;
         c += gridDim.x * blockDim.x) {
      args.out[i * args.cols + c] = x[c];
    }
  }
}

__global__ void scatter_add(ScatterAddRows args) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  for (std::int64_t i = blockIdx.y; i < args.count; i += gridDim.y) {
    float* const y = args.y + args.index[i] * args.cols;
    for (std::int64_t c = blockIdx.x * blockDim.x + threadIdx.x; c < args.cols;
         c += gridDim.x * blockDim.x) {
      y[c] += args.weights[i] * args.x[i * args.cols + c];
    }
  }
}

}  // namespace

cudaError_t norm_rows(const NormRows& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  constexpr std::int64_t kWarpCols = 512;
  if (args.cols <= kWarpCols) {
    return launch(norm<32>, team_shape<32>(args.rows, kNormThreads), stream, args);
  }
  const LaunchShape shape = team_shape<kNormThreads>(args.rows, kNormThreads);
  if (fits_registers(args)) {
    const std::int64_t vectors = (args.cols / 4 + kNormThreads - 1) / kNormThreads;
    if (vectors == 1) return launch(norm_in_registers<1>, shape, stream, args);
    if (vectors == 2) return launch(norm_in_registers<2>, shape, stream, args);
    return launch(norm_in_registers<4>, shape, stream, args);
  }
  return launch(norm<kNormThreads>, shape, stream, args);
}

cudaError_t rope_rows(const RopeRows& args, cudaStream_t stream) {
  const std::int64_t pairs = args.heads * (args.rotary_dim / 2);
  if (args.rows == 0 || pairs == 0) return cudaSuccess;
  return launch(rope, {row_grid(args.rows, pairs), dim3(kRowThreads), 0, true}, stream, args);
}

cudaError_t activate_rows(const ActivateRows& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  const bool vectors = args.cols % 4 == 0 && args.x_stride % 4 == 0 && args.y_stride % 4 == 0 &&
                       args.multiplier_stride % 4 == 0 && on_16_bytes(args.x) &&
                       on_16_bytes(args.y) && on_16_bytes(args.multiplier);
  const std::int64_t width = vectors ? 4 : 1;
  const LaunchShape shape{row_grid(args.rows, args.cols / width), dim3(kRowThreads), 0, true};
  return vectors ? launch(activate<4>, shape, stream, args)
                 : launch(activate<1>, shape, stream, args);
}

cudaError_t add_values(const AddValues& args, cudaStream_t stream) {
  if (args.count == 0) return cudaSuccess;
  constexpr std::int64_t kMostBlocks = 4096;
  const std::int64_t blocks = std::min((args.count + kRowThreads - 1) / kRowThreads, kMostBlocks);
  return launch(add, {dim3(static_cast<unsigned>(blocks)), dim3(kRowThreads), 0, true}, stream,
                args);
}

cudaError_t bias_rows(const BiasRows& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  return launch(bias, {row_grid(args.rows, args.cols), dim3(kRowThreads), 0, true}, stream, args);
}

cudaError_t gather_rows(const GatherRows& args, cudaStream_t stream) {
  if (args.count == 0 || args.cols == 0) return cudaSuccess;
  return launch(gather, {row_grid(args.count, args.cols), dim3(kRowThreads), 0, true}, stream,
                args);
}

cudaError_t scatter_add_rows(const ScatterAddRows& args, cudaStream_t stream) {
  if (args.count == 0 || args.cols == 0) return cudaSuccess;
  return launch(scatter_add, {row_grid(args.count, args.cols), dim3(kRowThreads), 0, true}, stream,
                args);
}

}  // namespace nibble::cuda
