// Implementations of linear: which kernel takes which weights, and how many rows of x.
#include <algorithm>
#include <utility>

#include "backends/cuda/blas.h"
#include "backends/cuda/impls.h"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/decode_fragments.h"
#include "backends/cuda/kernels/decode_weight.h"
#include "backends/cuda/kernels/dense_linear.h"
#include "backends/cuda/kernels/fp8_rows.h"
#include "backends/cuda/kernels/round_rows.h"
#include "backends/cuda/kernels/row_ops.h"
#include "backends/cuda/kernels/small_linear.h"
#include "backends/cuda/kernels/stream_codes.h"
#include "backends/cuda/kernels/w4_large.h"
#include "backends/cuda/linear_pair.h"
#include "backends/cuda/linear_parts.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/rounded_linear.h"
#include "backends/cuda/weight.h"
#include "ops/linear_input.h"

namespace nibble::cuda {
namespace {

constexpr const char* kSmallW4 = "w4_small";
constexpr const char* kLargeW4 = "w4_large";
constexpr const char* kFp8W4 = "w4_fp8";
// Beyond, tiles of more tokens, which pairs cannot have, save more than an activation of its own
// costs.
constexpr std::int64_t kLargePairRows = 128;
constexpr std::int64_t kFp8PairRows = 64;
constexpr std::int64_t kFp8Rows = 8;  // more

bool is_repacked(const LinearArgs& args, int bits) {
  const FragmentWeight* const w = fragments_of(*args.w);
  return w != nullptr && w->bits == bits;
}

bool is_plain(const LinearArgs& args) {
  return fragments_of(*args.w) == nullptr && args.w->canonical.format->is_float();
}

DType stored_type(const LinearArgs& args) {
  return args.w->canonical.format->descriptor().element.float_type;
}

// x rounded to 16 bits, in the workspace.
void round_x(const LinearArgs& args, bool half, void* to, DeviceQueue& queue) {
  RoundRows rows;
  rows.x = args.x;
  rows.y = to;
  rows.rows = args.m;
  rows.cols = args.w->canonical.cols;
  rows.x_stride = args.x_stride;
  rows.half = half;
  rows.dependent_launch = true;
  queue.launch("round_rows", rows, round_rows);
}

void decode(const LinearArgs& args, FloatType type, void* out, DeviceQueue& queue) {
  if (const FragmentWeight* const fragments = fragments_of(*args.w)) {
    NIBBLE_CHECK(type == FloatType::kBF16);
    queue.launch("decode", DecodeFragments{matrix_of(*fragments), out, true}, decode_fragments);
    return;
  }
  DecodeWeight decode;
  decode.weight = planes_of(args.w->canonical);
  decode.rows = args.w->canonical.rows;
  decode.out = out;
  decode.type = static_cast<std::int64_t>(type);
  queue.launch("decode", decode, decode_weight);
}

DenseLinear dense_linear(const LinearArgs& args) {
  DenseLinear linear;
  linear.x = args.x;
  linear.bias = args.bias;
  linear.y = args.y;
  linear.x_stride = args.x_stride;
  linear.y_stride = args.y_stride;
  linear.m = args.m;
  linear.rows = args.w->canonical.rows;
  linear.cols = args.w->canonical.cols;
  linear.accumulate = args.accumulate;
  if (is_plain(args)) {
    const WeightPlanes planes = planes_of(args.w->canonical);
    linear.w = planes.data;
    linear.type = planes.type;
  }
  return linear;
}

// ---- w4_small, w8_small: few rows of x and repacked weights, up to three weights a launch

constexpr std::int64_t kSmallRowsOnHopper = 16;

template <int kBits>
Support small_supports(const LinearArgs& args, const DeviceCaps& caps) {
  if (const Support input = takes_input(args); !input.ok) return input;
  if (caps.exact_activations) return Support::no("it rounds activations");
  if (!is_repacked(args, kBits)) {
    return Support::no(kBits == 4 ? "weights are not repacked 4-bit ones"
                                  : "weights are not repacked 8-bit ones");
  }
  if (args.m > kSmallLinearMaxRows) return Support::no("for up to 32 rows");
  if (kBits == 4 && caps.compute_capability == 90 && args.m > kSmallRowsOnHopper) {
    return Support::no("w4_large is faster");
  }
  if (args.x_stride % 4 != 0 || !on_16_bytes(args.x)) return Support::no("x is not on 16 bytes");
  return Support::yes();
}

bool alike(const FragmentWeight& a, const FragmentWeight& b) {
  return a.bits == b.bits && a.cols == b.cols && a.groups == b.groups &&
         a.scales.dtype() == b.scales.dtype() && a.zeros.empty() == b.zeros.empty();
}

// The weights and results of calls that one launch can take.
void fill_parts(std::span<const LinearArgs> calls, FragmentPart* parts) {
  for (const LinearArgs& call : calls) {
    *parts++ = {matrix_of(*fragments_of(*call.w)), call.bias, call.y, call.y_stride};
  }
}

// Calls that one launch can take.
void launch_small(std::span<const LinearArgs> calls, bool silu_pair, ExecContext& context) {
  const LinearArgs& first = calls.front();
  SmallLinear linear;
  linear.silu_pair = silu_pair;
  linear.x = first.x;
  linear.x_stride = first.x_stride;
  linear.m = static_cast<int>(first.m);
  linear.accumulate = first.accumulate;
  linear.part_count = static_cast<int>(calls.size());
  fill_parts(calls, linear.parts);
  linear.dependent_launch = true;
  const auto run = [](const SmallLinear& args, cudaStream_t stream) {
    return small_linear(args, choose_small_linear_tile(args), stream);
  };
  context.queue->launch("linear", linear, +run);
}

// Neighbouring calls that one launch can take, up to `most` at a time.
template <class Launch>
void for_each_launch(std::span<const LinearArgs> calls, std::size_t most, const Launch& launch) {
  while (!calls.empty()) {
    const LinearArgs& first = calls.front();
    std::size_t count = 1;
    while (count < std::min(calls.size(), most) && calls[count].accumulate == first.accumulate &&
           alike(*fragments_of(*first.w), *fragments_of(*calls[count].w))) {
      ++count;
    }
    launch(calls.first(count));
    calls = calls.subspan(count);
  }
}

void run_small_together(std::span<const LinearArgs> calls, ExecContext& context) {
  if (calls.front().m == 0) return;
  for_each_launch(calls, kSmallLinearMaxParts,
                  [&](std::span<const LinearArgs> some) { launch_small(some, false, context); });
}

void run_small(const LinearArgs& args, ExecContext& context) {
  run_small_together({&args, 1}, context);
}

// ---- w4_large: many rows of x and 4-bit weights

Support w4_large_supports(const LinearArgs& args, const DeviceCaps& caps) {
  if (const Support input = takes_input(args); !input.ok) return input;
  if (caps.exact_activations) return Support::no("it rounds activations");
  if (caps.compute_capability != 90) return Support::no("it needs compute capability 9.0");
  if (!is_repacked(args, 4)) return Support::no("weights are not repacked 4-bit ones");
  if (args.y_stride % 4 != 0 || !on_16_bytes(args.y)) return Support::no("y is not on 16 bytes");
  return Support::yes();
}

bool is_hopper(const DeviceCaps& caps) { return rounds(caps) && caps.compute_capability == 90; }

struct TiledW4 {
  W4Large args;
  W4LargeTile tile;
};

// What a launch takes, but for x. Calls are alike.
W4Large w4_large_args(std::span<const LinearArgs> calls, bool silu_pair, ExecContext& context) {
  const LinearArgs& first = calls.front();
  W4Large product;
  product.m = first.m;
  product.part_count = static_cast<int>(calls.size());
  fill_parts(calls, product.parts);
  product.accumulate = first.accumulate;
  product.silu_pair = silu_pair;
  product.dependent_launch = true;
  product.workspace = context.queue->own_workspace(
      DeviceQueue::Family::kLinear, w4_large_workspace(context.caps.multiprocessors));
  return product;
}

void launch_w4_large(std::span<const LinearArgs> calls, bool silu_pair, const void* rounded_x,
                     ExecContext& context) {
  TiledW4 product{w4_large_args(calls, silu_pair, context), {}};
  product.args.x = rounded_x;
  product.tile = choose_w4_large_tile(product.args, context.caps.multiprocessors);
  const auto run = [](const TiledW4& tiled, cudaStream_t stream) {
    return w4_large(tiled.args, tiled.tile, stream);
  };
  context.queue->launch("linear", product, +run);
}

void* rounded_to_bf16(const LinearArgs& args, ExecContext& context) {
  const auto bytes = static_cast<std::size_t>(2 * args.m * args.w->canonical.cols);
  void* const x = context.queue->workspace(bytes);
  round_x(args, false, x, *context.queue);
  return x;
}

// x is rounded once for all calls.
void run_w4_large_together(std::span<const LinearArgs> calls, ExecContext& context) {
  if (calls.front().m == 0) return;
  const void* const x = rounded_to_bf16(calls.front(), context);
  for_each_launch(calls, kW4LargeMaxParts, [&](std::span<const LinearArgs> some) {
    launch_w4_large(some, false, x, context);
  });
}

void run_w4_large(const LinearArgs& args, ExecContext& context) {
  run_w4_large_together({&args, 1}, context);
}

// ---- w4_fp8: the same on activations of fp8 by token, groups of 128 or the row

Support w4_fp8_supports(const LinearArgs& args, const DeviceCaps& caps) {
  if (args.activations == nullptr) return Support::no("x is not to be rounded");
  if (byte_type(*args.activations) != ByteType::kFp8) {
    return Support::no("activations are not fp8 (e4m3), one scale a token");
  }
  if (caps.compute_capability != 90) return Support::no("it needs compute capability 9.0");
  // Fewer are rounded to fp8 first, and then multiplied faster by w4_small.
  if (args.m <= kFp8Rows) return Support::no("for more than 8 rows");
  if (!is_repacked(args, 4)) return Support::no("weights are not repacked 4-bit ones");
  const FragmentWeight& w = *fragments_of(*args.w);
  if (w.cols % kFp8SumColumns != 0 || (w.groups != 1 && w.group != kFp8SumColumns)) {
    return Support::no("groups are not of 128 columns, nor the row");
  }
  if (args.x_stride % 4 != 0 || !on_16_bytes(args.x)) return Support::no("x is not on 16 bytes");
  if (args.y_stride % 4 != 0 || !on_16_bytes(args.y)) return Support::no("y is not on 16 bytes");
  return Support::yes();
}

// What products of fp8 read, in the workspace.
Fp8Rows rounded_to_fp8(const LinearArgs& args, ExecContext& context) {
  Fp8Rows rows;
  rows.x = args.x;
  rows.x_stride = args.x_stride;
  rows.rows = args.m;
  rows.cols = args.w->canonical.cols;
  rows.most = args.activations->largest();
  const auto code_bytes = static_cast<std::size_t>(args.m * rows.cols);
  const auto scale_bytes = static_cast<std::size_t>(args.m) * sizeof(float);
  const auto sum_bytes = static_cast<std::size_t>(2 * args.m * fp8_sum_columns(rows.cols));
  Workspace workspace(*context.queue, aligned(code_bytes) + aligned(scale_bytes) + sum_bytes);
  rows.codes = workspace.take(code_bytes);
  rows.scales = static_cast<float*>(workspace.take(scale_bytes));
  rows.sums = workspace.take(sum_bytes);
  context.queue->launch("round activations", rows, fp8_rows);
  return rows;
}

void launch_w4_fp8(std::span<const LinearArgs> calls, bool silu_pair, const Fp8Rows& x,
                   ExecContext& context) {
  TiledW4 product{w4_large_args(calls, silu_pair, context), {}};
  product.args.x = x.codes;
  product.args.x_scales = x.scales;
  product.args.x_sums = x.sums;
  product.tile = choose_w4_fp8_tile(product.args, context.caps.multiprocessors);
  const auto run = [](const TiledW4& tiled, cudaStream_t stream) {
    return w4_fp8(tiled.args, tiled.tile, stream);
  };
  context.queue->launch("linear", product, +run);
}

void run_w4_fp8_together(std::span<const LinearArgs> calls, ExecContext& context) {
  if (calls.front().m == 0) return;
  const Fp8Rows x = rounded_to_fp8(calls.front(), context);
  for_each_launch(calls, kW4LargeMaxParts, [&](std::span<const LinearArgs> some) {
    launch_w4_fp8(some, false, x, context);
  });
}

void run_w4_fp8(const LinearArgs& args, ExecContext& context) {
  run_w4_fp8_together({&args, 1}, context);
}

// ---- stream: few rows of x, plain weights, float32

Support stream_supports(const LinearArgs& args, const DeviceCaps&) {
  if (const Support input = takes_input(args); !input.ok) return input;
  if (!is_plain(args)) return Support::no("weights are not plain floats");
  const char* const why = stream_linear_unsupported(dense_linear(args));
  return why == nullptr ? Support::yes() : Support::no(why);
}

void run_stream(const LinearArgs& args, ExecContext& context) {
  context.queue->launch("linear", dense_linear(args), stream_linear);
}

// ---- stream_codes: few rows of x, weights on planes of codes, float32

CodesLinear codes_linear(const LinearArgs& args) {
  CodesLinear linear;
  linear.w = planes_of(args.w->canonical);
  linear.x = args.x;
  linear.bias = args.bias;
  linear.y = args.y;
  linear.x_stride = args.x_stride;
  linear.y_stride = args.y_stride;
  linear.m = args.m;
  linear.accumulate = args.accumulate;
  return linear;
}

Support codes_supports(const LinearArgs& args, const DeviceCaps&) {
  if (const Support input = takes_input(args); !input.ok) return input;
  if (args.w->canonical.planes.empty()) return Support::no("the weight was repacked");
  if (is_plain(args)) return Support::no("weights are plain floats");
  const char* const why = stream_codes_unsupported(codes_linear(args));
  return why == nullptr ? Support::yes() : Support::no(why);
}

void run_codes(const LinearArgs& args, ExecContext& context) {
  context.queue->launch("linear", codes_linear(args), stream_codes);
}

// ---- blas: the vendor's product of 16-bit numbers

bool is_half(const LinearArgs& args) { return is_plain(args) && stored_type(args) == DType::kF16; }

template <bool kHalf>
Support blas_supports(const LinearArgs& args, const DeviceCaps& caps) {
  if (const Support input = takes_input(args); !input.ok) return input;
  if (bytes_of(*args.w) != nullptr) return Support::no("the weight is kept as bytes");
  if (kHalf != is_half(args)) return Support::no(kHalf ? "weights are not f16" : "weights are f16");
  if (caps.exact_activations) return Support::no("it rounds activations");
  if (!caps.device_blas) return Support::no("there is no libcublasLt.so.13");
  if (!Blas::takes(args.w->canonical.cols)) return Support::no("columns are no multiple of 8");
  return Support::yes();
}

void run_blas(const LinearArgs& args, ExecContext& context) {
  DeviceQueue& queue = *context.queue;
  const QuantTensor& w = args.w->canonical;
  if (args.m == 0 || w.rows == 0) return;
  const bool half = is_half(args);
  const bool as_stored = is_plain(args) && stored_type(args) != DType::kF32;
  const auto x_bytes = static_cast<std::size_t>(2 * args.m * w.cols);
  const auto w_bytes = as_stored ? 0 : static_cast<std::size_t>(2 * w.rows * w.cols);
  Workspace workspace(queue, aligned(x_bytes) + aligned(w_bytes) + kBlasWorkspace);
  BlasProduct product;
  void* const x = workspace.take(x_bytes);
  void* const decoded = workspace.take(w_bytes);
  product.w = as_stored ? w.planes[0].address() : decoded;
  product.x = x;
  product.workspace = workspace.take(kBlasWorkspace);
  product.workspace_bytes = kBlasWorkspace;
  if (!as_stored) decode(args, FloatType::kBF16, decoded, queue);
  round_x(args, half, x, queue);
  if (args.bias != nullptr) {
    put_bias(args, queue);
  }
  product.blas = Blas::get();
  product.y = args.y;
  product.m = args.m;
  product.rows = w.rows;
  product.cols = w.cols;
  product.y_stride = args.y_stride;
  product.type = half ? BlasType::kF16 : BlasType::kBf16;
  product.accumulate = args.accumulate || args.bias != nullptr;
  queue.launch("linear", product, multiply);
}

// ---- bytes of activations and weights

template <ByteType kType>
Support bytes_supports(const LinearArgs& args, const DeviceCaps& caps) {
  return bytes_support(kType, args, caps);
}

// ---- tile: everything that has canonical planes, float32

Support tile_supports(const LinearArgs& args, const DeviceCaps&) {
  if (const Support input = takes_input(args); !input.ok) return input;
  return args.w->canonical.planes.empty() ? Support::no("the weight was repacked") : Support::yes();
}

void run_tile(const LinearArgs& args, ExecContext& context) {
  DenseLinear linear = dense_linear(args);
  if (linear.m == 0 || linear.rows == 0) return;
  if (!is_plain(args)) {
    const auto bytes = static_cast<std::size_t>(4 * linear.rows * linear.cols);
    void* const decoded = context.queue->workspace(bytes);
    decode(args, FloatType::kF32, decoded, *context.queue);
    linear.w = decoded;
  }
  context.queue->launch("linear", linear, tile_linear);
}

}  // namespace

bool is_silu_pair(const LinearArgs& gate, const LinearArgs& up, const ActivationArgs& activation) {
  const FragmentWeight* const first = fragments_of(*gate.w);
  const FragmentWeight* const second = fragments_of(*up.w);
  return first != nullptr && second != nullptr && first->bits == 4 && alike(*first, *second) &&
         first->rows == second->rows && !gate.accumulate && !up.accumulate &&
         up.activations == gate.activations && activation.kind == Activation::kSilu &&
         activation.limit <= 0 && activation.multiplier_offset == 0 && activation.x == gate.y &&
         activation.multiplier == up.y && activation.rows == gate.m &&
         activation.cols == first->rows;
}

PairRun silu_pair_of(std::string_view impl, std::int64_t rows) {
  if (impl == kSmallW4) {
    return [](std::span<const LinearArgs> calls, ExecContext& context) {
      launch_small(calls, true, context);
    };
  }
  if (impl == kLargeW4 && rows <= kLargePairRows) {
    return [](std::span<const LinearArgs> calls, ExecContext& context) {
      launch_w4_large(calls, true, rounded_to_bf16(calls.front(), context), context);
    };
  }
  if (impl == kFp8W4 && rows <= kFp8PairRows) {
    return [](std::span<const LinearArgs> calls, ExecContext& context) {
      launch_w4_fp8(calls, true, rounded_to_fp8(calls.front(), context), context);
    };
  }
  return nullptr;
}

void run_silu_pair(PairRun run, const LinearArgs& gate, const LinearArgs& up,
                   const ActivationArgs& activation, ExecContext& context) {
  if (gate.m == 0) return;
  LinearArgs calls[] = {gate, up};
  calls[0].y = activation.y;
  calls[0].y_stride = activation.y_stride;
  run(std::span<const LinearArgs>(calls), context);
}

ImplList<LinearArgs> linear_impls() {
  static constexpr Impl<LinearArgs> kImpls[] = {
      {kSmallW4, small_supports<4>, run_small, Arithmetic::kBf16Exact, rounds, run_small_together},
      {"w8_small", small_supports<8>, run_small, Arithmetic::kBf16Exact, rounds,
       run_small_together},
      {kLargeW4, w4_large_supports, run_w4_large, Arithmetic::kBf16Scaled, is_hopper,
       run_w4_large_together},
      {kFp8W4, w4_fp8_supports, run_w4_fp8, Arithmetic::kFp8, is_hopper, run_w4_fp8_together},
      {"stream", stream_supports, run_stream},
      {"stream_codes", codes_supports, run_codes},
      {"blas_f16", blas_supports<true>, run_blas, Arithmetic::kF16, rounds},
      {"blas_bf16", blas_supports<false>, run_blas, Arithmetic::kBf16, rounds},
      {"tile", tile_supports, run_tile},
      {"blas_int8", bytes_supports<ByteType::kInt8>, run_bytes, Arithmetic::kInt8, rounds,
       run_bytes_together},
      {"blas_fp8", bytes_supports<ByteType::kFp8>, run_bytes, Arithmetic::kFp8, rounds,
       run_bytes_together},
      {"rounded_first", rounded_support, run_rounded, Arithmetic::kBf16,
       [](const DeviceCaps&) { return true; }, run_rounded_together},
  };
  return kImpls;
}

}  // namespace nibble::cuda
