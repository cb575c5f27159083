#include "backends/cuda/rounded_linear.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cuda/blas.h"
#include "backends/cuda/impls.h"
#include "backends/cuda/kernels/round_activations.h"
#include "backends/cuda/kernels/row_ops.h"
#include "backends/cuda/kernels/token_codes.h"
#include "backends/cuda/linear_parts.h"
#include "backends/cuda/status.h"
#include "backends/cuda/weight.h"
#include "base/error.h"

namespace nibble::cuda {
namespace {

// ---- products of bytes

// x of a call as bytes, and what is left of the workspace.
struct ByteRows {
  ProductRows x;
  void* product = nullptr;  // [m, rows] of 4 bytes; of the largest call
  void* blas = nullptr;
};

RowForm form_of(const LinearArgs& args) {
  return bytes_of(*args.w)->type == ByteType::kFp8 ? RowForm::kFp8Codes : RowForm::kInt8Codes;
}

// `given`: x, if it is there as bytes.
ByteRows round_to_bytes(const LinearArgs& args, std::int64_t most_rows, const ProductRows* given,
                        ExecContext& context) {
  const std::int64_t cols = args.w->canonical.cols;
  const RowForm form = form_of(args);
  const std::size_t x_bytes = given == nullptr ? product_bytes(form, args.m, cols) : 0;
  const auto bytes_of_product = static_cast<std::size_t>(args.m * most_rows) * sizeof(float);
  Workspace workspace(*context.queue,
                      aligned(x_bytes) + aligned(bytes_of_product) + kBlasWorkspace);
  ByteRows rows;
  void* const x = workspace.take(x_bytes);
  rows.product = workspace.take(bytes_of_product);
  rows.blas = workspace.take(kBlasWorkspace);
  if (given != nullptr) {
    rows.x = *given;
    return rows;
  }
  rows.x = product_rows_at(x, form, args.m, cols, most_of(form, args));
  form_rows(args, rows.x, *context.queue);
  return rows;
}

// Straight into y, if the library applies the scales itself. It does not cut k then, which costs
// more than scaling apart for few rows (measured on the layers of an 8B model: 64 rows 12 % slower,
// 2,048 rows 40 % faster).
bool multiply_scaled(const LinearArgs& args, BlasProduct product, const ByteRows& rows,
                     DeviceQueue& queue) {
  constexpr std::int64_t kLeastRows = 256;
  if (product.type != BlasType::kFp8 || args.m < kLeastRows) return false;
  product.w_scales = bytes_of(*args.w)->scales.data<float>();
  product.x_scales = rows.x.scales;
  product.y = args.y;
  product.y_stride = args.y_stride;
  product.accumulate = args.accumulate || args.bias != nullptr;
  if (!product.blas->scales(product)) return false;
  if (args.bias != nullptr) put_bias(args, queue);
  queue.launch("linear", product, multiply);
  return true;
}

void multiply_bytes(const LinearArgs& args, const ByteRows& rows, ExecContext& context) {
  const ByteWeight& weight = *bytes_of(*args.w);
  DeviceQueue& queue = *context.queue;
  BlasProduct product;
  product.blas = Blas::get();
  product.type = weight.type == ByteType::kFp8 ? BlasType::kFp8 : BlasType::kInt8;
  product.w = weight.codes.address();
  product.x = rows.x.values;
  product.m = args.m;
  product.rows = args.w->canonical.rows;
  product.cols = args.w->canonical.cols;
  product.workspace = rows.blas;
  product.workspace_bytes = kBlasWorkspace;
  if (multiply_scaled(args, product, rows, queue)) return;
  product.y = rows.product;
  product.y_stride = product.rows;
  queue.launch("linear", product, multiply);
  ScaleProducts scaled;
  scaled.product = rows.product;
  scaled.x_scales = rows.x.scales;
  scaled.w_scales = weight.scales.data<float>();
  scaled.bias = args.bias;
  scaled.y = args.y;
  scaled.y_stride = args.y_stride;
  scaled.rows = args.m;
  scaled.cols = product.rows;
  scaled.type = weight.type;
  scaled.accumulate = args.accumulate;
  queue.launch("scale", scaled, scale_products);
}

// ---- rounded first

// Whether a kernel rounds to it: what asks for the values of other rows, or has a scale for each
// column or one of F16, is rounded on the host.
bool rounds_on_device(const ActivationDescriptor& d) {
  return !d.has_outliers() && !d.half_scales && d.scope != ActivationScope::kChannel &&
         (d.scope != ActivationScope::kTensor || d.is_static);
}

void set_elements(const ActivationFormat& format, DeviceQueue& queue, RoundActivations& args) {
  const ActivationDescriptor& d = format.descriptor();
  if (const std::optional<TableView> table = format.table()) {
    std::vector<float> values;
    for (int rank = 0; rank < table->ranks; ++rank) {
      values.push_back(table->values[table->codes[rank]]);
    }
    args.bounds = queue.put(std::span(table->bounds, static_cast<std::size_t>(table->leaves)));
    args.values = queue.put(std::span<const float>(values));
    args.leaves = table->leaves;
    args.most = format.largest();
    return;
  }
  args.symmetric = d.symmetric ? 1 : 0;
  args.most = d.symmetric ? format.largest() : static_cast<float>((1 << d.element.bits) - 1);
  args.least_of_static = -args.most - 1;
}

void round_on_device(const LinearArgs& args, float* y, DeviceQueue& queue) {
  const ActivationFormat& format = *args.activations;
  const ActivationDescriptor& d = format.descriptor();
  RoundActivations rows;
  rows.x = args.x;
  rows.y = y;
  rows.x_stride = args.x_stride;
  rows.rows = args.m;
  rows.cols = args.w->canonical.cols;
  rows.group = d.scope == ActivationScope::kGroup ? d.group : rows.cols;
  set_elements(format, queue, rows);
  if (const std::span<const AffineParams> fixed = format.fixed(); !fixed.empty()) {
    rows.fixed_scale = fixed.front().scale;
    rows.fixed_zero = static_cast<float>(fixed.front().zero);
  }
  queue.launch("round activations", rows, round_activations);
}

void round_on_host(const LinearArgs& args, float* y, DeviceQueue& queue) {
  queue.on_host([&] {
    const std::int64_t cols = args.w->canonical.cols;
    const auto row_bytes = static_cast<std::size_t>(cols) * sizeof(float);
    std::vector<float> x(static_cast<std::size_t>(args.m * cols));
    check(cudaMemcpy2DAsync(
              x.data(), row_bytes, args.x, static_cast<std::size_t>(args.x_stride) * sizeof(float),
              row_bytes, static_cast<std::size_t>(args.m), cudaMemcpyDeviceToHost, queue.stream()),
          "copy from the card");
    check(cudaStreamSynchronize(queue.stream()), "device");
    args.activations->round(x.data(), cols, args.m, cols, x.data(), cols);
    check(cudaMemcpyAsync(y, x.data(), x.size() * sizeof(float), cudaMemcpyHostToDevice,
                          queue.stream()),
          "copy to the card");
    check(cudaStreamSynchronize(queue.stream()), "device");
  });
}

// The implementation that multiplies x as it is; null when none does.
const Impl<LinearArgs>* plain_impl(LinearArgs args, const DeviceCaps& caps) {
  args.activations = nullptr;
  for (const Impl<LinearArgs>& impl : linear_impls()) {
    if (impl.usable(caps) && impl.supports(args, caps).ok) return &impl;
  }
  return nullptr;
}

}  // namespace

Support bytes_support(ByteType type, const LinearArgs& args, const DeviceCaps& caps) {
  if (args.activations == nullptr) return Support::no("x is not to be rounded");
  if (!caps.device_blas) return Support::no("there is no libcublasLt.so.13");
  const ByteWeight* const weight = bytes_of(*args.w);
  if (weight == nullptr || weight->type != type) {
    return Support::no("the weight is not kept as such bytes");
  }
  if (byte_type(*args.activations) != type) {
    return Support::no("activations are no bytes of the weight's type, one scale a token");
  }
  return Support::yes();
}

namespace {

void run_bytes_on(std::span<const LinearArgs> calls, const ProductRows* x, ExecContext& context) {
  std::int64_t most_rows = 0;
  for (const LinearArgs& call : calls) most_rows = std::max(most_rows, call.w->canonical.rows);
  const ActivationFormat* format = nullptr;
  ByteRows rows;
  for (const LinearArgs& call : calls) {
    if (call.activations != format) rows = round_to_bytes(call, most_rows, x, context);
    format = call.activations;
    multiply_bytes(call, rows, context);
  }
}

}  // namespace

void run_bytes_together(std::span<const LinearArgs> calls, ExecContext& context) {
  if (calls.front().m > 0) run_bytes_on(calls, nullptr, context);
}

void run_bytes_formed(std::span<const LinearArgs> calls, const ProductRows& x,
                      ExecContext& context) {
  run_bytes_on(calls, &x, context);
}

void run_bytes(const LinearArgs& args, ExecContext& context) {
  run_bytes_together({&args, 1}, context);
}

Support rounded_support(const LinearArgs& args, const DeviceCaps& caps) {
  if (args.activations == nullptr) return Support::no("x is not to be rounded");
  if (plain_impl(args, caps) == nullptr) return Support::no("nothing multiplies by this weight");
  return Support::yes();
}

void run_rounded_together(std::span<const LinearArgs> calls, ExecContext& context) {
  if (calls.front().m == 0) return;
  DeviceQueue& queue = *context.queue;
  const ActivationFormat* format = nullptr;
  for (const LinearArgs& call : calls) {
    const std::int64_t cols = call.w->canonical.cols;
    auto* const rounded = static_cast<float*>(queue.own_workspace(
        DeviceQueue::Family::kRounded, static_cast<std::size_t>(call.m * cols) * sizeof(float)));
    if (call.activations != format) {
      if (rounds_on_device(call.activations->descriptor())) {
        round_on_device(call, rounded, queue);
      } else {
        round_on_host(call, rounded, queue);
      }
    }
    format = call.activations;
    LinearArgs plain = call;
    plain.activations = nullptr;
    plain.x = rounded;
    plain.x_stride = cols;
    plain_impl(plain, context.caps)->run(plain, context);
  }
}

void run_rounded(const LinearArgs& args, ExecContext& context) {
  run_rounded_together({&args, 1}, context);
}

}  // namespace nibble::cuda
