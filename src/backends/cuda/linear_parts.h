// What implementations of linear share: parts of one op's workspace, biases, and x in the form that
// products read.
#pragma once

#include <cstddef>
#include <utility>

#include "backends/cuda/kernels/product_rows.h"
#include "backends/cuda/kernels/round_rows.h"
#include "backends/cuda/kernels/row_ops.h"
#include "backends/cuda/kernels/token_codes.h"
#include "backends/cuda/queue.h"
#include "ops/args.h"

namespace nibble::cuda {

inline constexpr std::size_t kBlasWorkspace = std::size_t{32} << 20;

inline std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

class Workspace {
 public:
  Workspace(DeviceQueue& queue, std::size_t bytes)
      : next_(static_cast<std::byte*>(queue.workspace(bytes))) {}
  void* take(std::size_t bytes) { return std::exchange(next_, next_ + aligned(bytes)); }

 private:
  std::byte* next_;
};

// y = bias, or y += bias where the call accumulates: for products that are added to it.
inline void put_bias(const LinearArgs& args, DeviceQueue& queue) {
  queue.launch("bias",
               BiasRows{args.bias, args.y, args.y_stride, args.m, args.w->canonical.rows,
                        args.accumulate ? 1 : 0},
               bias_rows);
}

// The largest magnitude of a code's value, of the call's activations in this form.
inline float most_of(RowForm form, const LinearArgs& args) {
  return has_scales(form) ? args.activations->largest() : 0;
}

// x of the call in a form other than kFloat32.
inline void form_rows(const LinearArgs& args, const ProductRows& to, DeviceQueue& queue) {
  const std::int64_t cols = args.w->canonical.cols;
  if (to.form == RowForm::kFp8) {
    const Fp8Rows rows{args.x, to.values, to.scales, to.sums, args.x_stride, args.m, cols, to.most};
    return queue.launch("round activations", rows, fp8_rows);
  }
  if (has_scales(to.form)) {
    TokenCodes rows;
    rows.x = args.x;
    rows.codes = to.values;
    rows.scales = to.scales;
    rows.x_stride = args.x_stride;
    rows.rows = args.m;
    rows.cols = cols;
    rows.type = to.form == RowForm::kFp8Codes ? ByteType::kFp8 : ByteType::kInt8;
    rows.most = to.most;
    return queue.launch("round activations", rows, token_codes);
  }
  RoundRows rows;
  rows.x = args.x;
  rows.y = to.values;
  rows.rows = args.m;
  rows.cols = cols;
  rows.x_stride = args.x_stride;
  rows.half = to.form == RowForm::kF16;
  rows.dependent_launch = true;
  queue.launch("round_rows", rows, round_rows);
}

// The same, in the workspace and nothing else there.
inline ProductRows formed_in_workspace(const LinearArgs& args, RowForm form, DeviceQueue& queue) {
  const std::int64_t cols = args.w->canonical.cols;
  const ProductRows rows = product_rows_at(queue.workspace(product_bytes(form, args.m, cols)), form,
                                           args.m, cols, most_of(form, args));
  form_rows(args, rows, queue);
  return rows;
}

}  // namespace nibble::cuda
