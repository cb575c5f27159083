#include "backends/cuda/device/block_reduce.cuh"
#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/product_rows.cuh"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/grid.h"
#include "backends/cuda/kernels/row_ops.h"
#include "ops/activation.h"

namespace nibble::cuda {
namespace {

// ---- norm

constexpr int kNormThreads = 512;
constexpr std::int64_t kWarpCols = 512;  // of rows that a warp takes

// Rows of up to kVectors times four numbers a thread: they are read once, and the weights before
// the kernel ahead has ended.
template <int kVectors, RowForm kForm>
__global__ void __launch_bounds__(kNormThreads) norm_in_registers(NormRows args) {
  using Row = Team<kNormThreads, kNormThreads>;
  const std::int64_t row = Row::index();
  const HeldRow<kNormThreads, kVectors> held(row, args.cols);
  const auto load = [&](const float* from, int v, float other) {
    if (from == nullptr || !held.has(v)) return make_float4(other, other, other, other);
    return reinterpret_cast<const float4*>(from)[held.at(v)];
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
    if (!held.has(v)) continue;
    x[v] = make_float4(x[v].x - mean, x[v].y - mean, x[v].z - mean, x[v].w - mean);
    square += x[v].x * x[v].x + x[v].y * x[v].y + x[v].z * x[v].z + x[v].w * x[v].w;
  }
  const float inverse = 1 / sqrtf(Row::sum(square) / count + args.eps);
  const float offset = args.weight_offset;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const float4& w = weight[v];
    const float4& b = bias[v];
    x[v] = make_float4(
        x[v].x * inverse * (offset + w.x) + b.x, x[v].y * inverse * (offset + w.y) + b.y,
        x[v].z * inverse * (offset + w.z) + b.z, x[v].w * inverse * (offset + w.w) + b.w);
  }
  if constexpr (kForm == RowForm::kFloat32) {
    held.store(args.y, args.y_stride, x);
  } else {
    held.template store<kForm>(args.out, x);
  }
}

template <RowForm kForm>
cudaError_t launch_norm(const NormRows& args, cudaStream_t stream) {
  const LaunchShape shape = team_shape<kNormThreads>(args.rows, kNormThreads);
  const std::int64_t vectors = (args.cols / 4 + kNormThreads - 1) / kNormThreads;
  if (vectors == 1) return launch(norm_in_registers<1, kForm>, shape, stream, args);
  if (vectors == 2) return launch(norm_in_registers<2, kForm>, shape, stream, args);
  return launch(norm_in_registers<4, kForm>, shape, stream, args);
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

// f(x) * (multiplier + offset) of kWidth numbers; `multiplier`: null for one.
template <int kWidth>
__device__ __forceinline__ void activate_values(const ActivateRows& args, Numbers<kWidth>& value,
                                                const float* multiplier) {
  for (float& v : value.v) {
    v = v > args.limit ? args.limit : v;
    v = activated(static_cast<Activation>(args.kind), args.softcap, v);
  }
  if (multiplier == nullptr) return;
  const auto by = *reinterpret_cast<const Numbers<kWidth>*>(multiplier);
  for (int i = 0; i < kWidth; ++i) {
    const float m = by.v[i];
    const float held = m > args.limit ? args.limit : (m < -args.limit ? -args.limit : m);
    value.v[i] *= held + args.multiplier_offset;
  }
}

__device__ __forceinline__ const float* multiplier_at(const ActivateRows& args, std::int64_t row,
                                                      std::int64_t col) {
  return args.multiplier == nullptr ? nullptr
                                    : args.multiplier + row * args.multiplier_stride + col;
}

template <int kWidth, RowForm kForm>
__global__ void activate(ActivateRows args) {
  using Vector = Numbers<kWidth>;
  let_next_kernel_start();
  wait_for_kernel_ahead();
  for (std::int64_t r = blockIdx.y; r < args.rows; r += gridDim.y) {
    for (std::int64_t c = (blockIdx.x * blockDim.x + threadIdx.x) * std::int64_t{kWidth};
         c < args.cols; c += gridDim.x * blockDim.x * std::int64_t{kWidth}) {
      Vector value = *reinterpret_cast<const Vector*>(args.x + r * args.x_stride + c);
      activate_values(args, value, multiplier_at(args, r, c));
      if constexpr (kForm == RowForm::kFloat32) {
        *reinterpret_cast<Vector*>(args.y + r * args.y_stride + c) = value;
      } else {
        auto* const y = static_cast<unsigned short*>(args.out.values) + r * args.cols + c;
        *reinterpret_cast<uint2*>(y) = make_uint2(rounded_pair<kForm>(value.v[0], value.v[1]),
                                                  rounded_pair<kForm>(value.v[2], value.v[3]));
      }
    }
  }
}

constexpr int kActivateThreads = 512;
constexpr int kActivateVectors = 8;  // at most

// A block a row, which stays in registers until its scale is known.
template <int kVectors, RowForm kForm>
__global__ void __launch_bounds__(kActivateThreads) activate_in_registers(ActivateRows args) {
  using Row = Team<kActivateThreads, kActivateThreads>;
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t row = Row::index();
  const HeldRow<kActivateThreads, kVectors> held(row, args.cols);
  float4 values[kVectors] = {};
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (!held.has(v)) continue;
    const std::int64_t col = 4 * std::int64_t{held.at(v)};
    auto value = *reinterpret_cast<const Numbers<4>*>(args.x + row * args.x_stride + col);
    activate_values(args, value, multiplier_at(args, row, col));
    values[v] = make_float4(value.v[0], value.v[1], value.v[2], value.v[3]);
  }
  held.template store<kForm>(args.out, values);
}

template <RowForm kForm>
cudaError_t launch_activation(const ActivateRows& args, cudaStream_t stream) {
  const LaunchShape shape = team_shape<kActivateThreads>(args.rows, kActivateThreads);
  return args.cols <= 2 * 4 * kActivateThreads
             ? launch(activate_in_registers<2, kForm>, shape, stream, args)
             : launch(activate_in_registers<kActivateVectors, kForm>, shape, stream, args);
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

bool norm_holds_rows(const NormRows& args) {
  constexpr std::int64_t kMostCols = 4 * 4 * kNormThreads;
  return args.cols > kWarpCols && args.cols <= kMostCols && args.cols % 4 == 0 &&
         args.x_stride % 4 == 0 && args.y_stride % 4 == 0 && on_16_bytes(args.x) &&
         on_16_bytes(args.y) && on_16_bytes(args.weight) && on_16_bytes(args.bias);
}

cudaError_t norm_rows(const NormRows& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  const bool held = norm_holds_rows(args);
  switch (args.out.form) {
    case RowForm::kFloat32:
      break;
    case RowForm::kBf16:
      return held ? launch_norm<RowForm::kBf16>(args, stream) : cudaErrorInvalidValue;
    case RowForm::kF16:
      return held ? launch_norm<RowForm::kF16>(args, stream) : cudaErrorInvalidValue;
    case RowForm::kFp8:
      return held && args.cols % kFp8SumColumns == 0 ? launch_norm<RowForm::kFp8>(args, stream)
                                                     : cudaErrorInvalidValue;
    case RowForm::kInt8Codes:
      return held ? launch_norm<RowForm::kInt8Codes>(args, stream) : cudaErrorInvalidValue;
    case RowForm::kFp8Codes:
      return held ? launch_norm<RowForm::kFp8Codes>(args, stream) : cudaErrorInvalidValue;
  }
  if (held) return launch_norm<RowForm::kFloat32>(args, stream);
  if (args.cols <= kWarpCols) {
    return launch(norm<32>, team_shape<32>(args.rows, kNormThreads), stream, args);
  }
  return launch(norm<kNormThreads>, team_shape<kNormThreads>(args.rows, kNormThreads), stream,
                args);
}

cudaError_t rope_rows(const RopeRows& args, cudaStream_t stream) {
  const std::int64_t pairs = args.heads * (args.rotary_dim / 2);
  if (args.rows == 0 || pairs == 0) return cudaSuccess;
  return launch(rope, {row_grid(args.rows, pairs), dim3(kRowThreads), 0, true}, stream, args);
}

bool activates_into(RowForm form, const ActivateRows& args) {
  const bool vectors = args.cols % 4 == 0 && args.x_stride % 4 == 0 && args.y_stride % 4 == 0 &&
                       args.multiplier_stride % 4 == 0 && on_16_bytes(args.x) &&
                       on_16_bytes(args.y) && on_16_bytes(args.multiplier);
  if (!has_scales(form)) return vectors;
  return vectors && args.cols <= 4 * kActivateVectors * kActivateThreads &&
         (form != RowForm::kFp8 || args.cols % kFp8SumColumns == 0);
}

cudaError_t activate_rows(const ActivateRows& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  const bool fits = activates_into(args.out.form, args);
  const LaunchShape shape{row_grid(args.rows, args.cols / (fits ? 4 : 1)), dim3(kRowThreads), 0,
                          true};
  if (args.out.form == RowForm::kFloat32) {
    return fits ? launch(activate<4, RowForm::kFloat32>, shape, stream, args)
                : launch(activate<1, RowForm::kFloat32>, shape, stream, args);
  }
  if (!fits) return cudaErrorInvalidValue;
  switch (args.out.form) {
    case RowForm::kBf16:
      return launch(activate<4, RowForm::kBf16>, shape, stream, args);
    case RowForm::kF16:
      return launch(activate<4, RowForm::kF16>, shape, stream, args);
    case RowForm::kFp8:
      return launch_activation<RowForm::kFp8>(args, stream);
    case RowForm::kInt8Codes:
      return launch_activation<RowForm::kInt8Codes>(args, stream);
    default:
      return launch_activation<RowForm::kFp8Codes>(args, stream);
  }
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
