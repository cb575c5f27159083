#include "backends/cuda/fragment_linear.h"

#include <algorithm>

#include "backends/cuda/byte_weight.h"
#include "backends/cuda/impls.h"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/small_linear.h"
#include "backends/cuda/kernels/w4_large.h"
#include "backends/cuda/linear_parts.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/weight.h"
#include "ops/linear_input.h"

namespace nibble::cuda {
namespace {

constexpr std::int64_t kFp8Rows = 8;  // more

// ---- w4_small, w8_small: up to three weights a launch

constexpr std::int64_t kSmallRowsOnHopper = 16;

Support small_supports(int bits, const LinearArgs& args, const DeviceCaps& caps) {
  if (const Support input = takes_input(args); !input.ok) return input;
  if (caps.exact_activations) return Support::no("it rounds activations");
  if (!is_repacked(args, bits)) {
    return Support::no(bits == 4 ? "weights are not repacked 4-bit ones"
                                 : "weights are not repacked 8-bit ones");
  }
  if (args.m > kSmallLinearMaxRows) return Support::no("for up to 32 rows");
  if (bits == 4 && caps.compute_capability == 90 && args.m > kSmallRowsOnHopper) {
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

// ---- w4_large, w4_fp8

struct TiledW4 {
  W4Large args;
  W4LargeTile tile;
};

// Whether the calls of a launch are a pair, and where its y goes if rounded.
struct Pair {
  bool is = false;
  void* rounded_y = nullptr;
};

// What a launch takes, but for x. Calls are alike.
W4Large w4_large_args(std::span<const LinearArgs> calls, Pair pair, ExecContext& context) {
  const LinearArgs& first = calls.front();
  W4Large product;
  product.m = first.m;
  product.part_count = static_cast<int>(calls.size());
  fill_parts(calls, product.parts);
  product.accumulate = first.accumulate;
  product.silu_pair = pair.is;
  product.rounded_y = pair.rounded_y;
  product.dependent_launch = true;
  product.workspace = context.queue->own_workspace(
      DeviceQueue::Family::kLinear, w4_large_workspace(context.caps.multiprocessors));
  return product;
}

void launch_w4_large(std::span<const LinearArgs> calls, Pair pair, const ProductRows& x,
                     ExecContext& context) {
  TiledW4 product{w4_large_args(calls, pair, context), {}};
  product.args.x = x.values;
  product.tile = choose_w4_large_tile(product.args, context.caps.multiprocessors);
  const auto run = [](const TiledW4& tiled, cudaStream_t stream) {
    return w4_large(tiled.args, tiled.tile, stream);
  };
  context.queue->launch("linear", product, +run);
}

void launch_w4_fp8(std::span<const LinearArgs> calls, Pair pair, const ProductRows& x,
                   ExecContext& context) {
  TiledW4 product{w4_large_args(calls, pair, context), {}};
  product.args.x = x.values;
  product.args.x_scales = x.scales;
  product.args.x_sums = x.sums;
  product.tile = choose_w4_fp8_tile(product.args, context.caps.multiprocessors);
  const auto run = [](const TiledW4& tiled, cudaStream_t stream) {
    return w4_fp8(tiled.args, tiled.tile, stream);
  };
  context.queue->launch("linear", product, +run);
}

}  // namespace

bool is_repacked(const LinearArgs& args, int bits) {
  const FragmentWeight* const w = fragments_of(*args.w);
  return w != nullptr && w->bits == bits;
}

// ---- w4_small, w8_small

Support w4_small_supports(const LinearArgs& args, const DeviceCaps& caps) {
  return small_supports(4, args, caps);
}

Support w8_small_supports(const LinearArgs& args, const DeviceCaps& caps) {
  return small_supports(8, args, caps);
}

void run_small_together(std::span<const LinearArgs> calls, ExecContext& context) {
  if (calls.front().m == 0) return;
  for_each_launch(calls, kSmallLinearMaxParts,
                  [&](std::span<const LinearArgs> some) { launch_small(some, false, context); });
}

void run_small(const LinearArgs& args, ExecContext& context) {
  run_small_together({&args, 1}, context);
}

void run_small_pair(std::span<const LinearArgs> calls, const ProductRows& x, void* rounded_y,
                    ExecContext& context) {
  NIBBLE_CHECK(x.form == RowForm::kFloat32 && rounded_y == nullptr);
  launch_small(calls, true, context);
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

void run_w4_large_formed(std::span<const LinearArgs> calls, const ProductRows& x,
                         ExecContext& context) {
  for_each_launch(calls, kW4LargeMaxParts,
                  [&](std::span<const LinearArgs> some) { launch_w4_large(some, {}, x, context); });
}

void run_w4_large_together(std::span<const LinearArgs> calls, ExecContext& context) {
  if (calls.front().m == 0) return;
  const ProductRows x = formed_in_workspace(calls.front(), RowForm::kBf16, *context.queue);
  run_w4_large_formed(calls, x, context);
}

void run_w4_large(const LinearArgs& args, ExecContext& context) {
  run_w4_large_together({&args, 1}, context);
}

void run_w4_large_pair(std::span<const LinearArgs> calls, const ProductRows& x, void* rounded_y,
                       ExecContext& context) {
  launch_w4_large(calls, {true, rounded_y},
                  x.form == RowForm::kBf16
                      ? x
                      : formed_in_workspace(calls.front(), RowForm::kBf16, *context.queue),
                  context);
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

void run_w4_fp8_formed(std::span<const LinearArgs> calls, const ProductRows& x,
                       ExecContext& context) {
  for_each_launch(calls, kW4LargeMaxParts,
                  [&](std::span<const LinearArgs> some) { launch_w4_fp8(some, {}, x, context); });
}

void run_w4_fp8_together(std::span<const LinearArgs> calls, ExecContext& context) {
  if (calls.front().m == 0) return;
  const ProductRows x = formed_in_workspace(calls.front(), RowForm::kFp8, *context.queue);
  run_w4_fp8_formed(calls, x, context);
}

void run_w4_fp8(const LinearArgs& args, ExecContext& context) {
  run_w4_fp8_together({&args, 1}, context);
}

void run_w4_fp8_pair(std::span<const LinearArgs> calls, const ProductRows& x, void* rounded_y,
                     ExecContext& context) {
  launch_w4_fp8(calls, {true, rounded_y},
                x.form == RowForm::kFp8
                    ? x
                    : formed_in_workspace(calls.front(), RowForm::kFp8, *context.queue),
                context);
}

bool is_silu_pair(std::span<const LinearArgs> calls, const ActivationArgs& activation) {
  if (calls.size() != 2) return false;
  const LinearArgs& gate = calls[0];
  const LinearArgs& up = calls[1];
  const FragmentWeight* const first = fragments_of(*gate.w);
  const FragmentWeight* const second = fragments_of(*up.w);
  return first != nullptr && second != nullptr && first->bits == 4 && alike(*first, *second) &&
         first->rows == second->rows && !gate.accumulate && !up.accumulate &&
         up.activations == gate.activations && activation.kind == Activation::kSilu &&
         activation.limit <= 0 && activation.multiplier_offset == 0 && activation.x == gate.y &&
         activation.multiplier == up.y && activation.rows == gate.m &&
         activation.cols == first->rows;
}

}  // namespace nibble::cuda
