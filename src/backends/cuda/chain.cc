#include "backends/cuda/chain.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "backends/cuda/formed_linear.h"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/linear_parts.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/rounded_attention.h"
#include "backends/cuda/row_launches.h"

namespace nibble::cuda {
namespace {

using Calls = std::span<const LinearArgs>;

// Rows of float32 that an op of the chain writes.
struct Result {
  float* data;
  std::int64_t stride;
  std::int64_t rows;
  std::int64_t cols;
};
Result result_of(const NormArgs& args) { return {args.y, args.y_stride, args.rows, args.cols}; }
Result result_of(const ActivationArgs& args) {
  return {args.y, args.y_stride, args.rows, args.cols};
}
Result result_of(const AttentionArgs& args) {
  std::int64_t rows = 0;
  for (const AttentionSequence& s : args.sequences) rows = std::max(rows, s.q_begin + s.q_rows);
  return {args.out, args.out_stride, rows, args.heads * args.head_dim};
}

// Whether [rows, cols] at `data` lie apart from the result.
bool lie_apart(const float* data, std::int64_t stride, const Result& result) {
  if (data == nullptr || result.rows == 0) return true;
  const std::less_equal<const float*> before;
  return before(data + (result.rows - 1) * stride + result.cols, result.data) ||
         before(result.data + result.rows * result.cols, data);
}

class Chain {
 public:
  Chain(std::span<const ChainLink> links, OpTable& ops, ExecContext& context,
        const LogSink& verbose)
      : links_(links), ops_(ops), context_(context), verbose_(verbose) {}

  void run() {
    while (at_ < links_.size()) {
      const ChainLink& link = links_[at_++];
      std::visit([this](const auto& args) { step(args); }, link);
    }
  }

 private:
  // How the calls of a link want a result that is their x: in a form, where the float32 rows would
  // lie. kFloat32 if there is no such link, or they read different forms.
  ProductRows wanted_by(std::size_t link, const Result& result) {
    if (link >= links_.size() || result.rows == 0) return {};
    const auto* const calls = std::get_if<Calls>(&links_[link]);
    if (calls == nullptr || calls->empty()) return {};
    const FormedLinear* formed = nullptr;
    for (const LinearArgs& call : *calls) {
      if (call.x != result.data || call.x_stride != result.cols || call.m != result.rows ||
          call.w->canonical.cols != result.cols) {
        return {};
      }
      const FormedLinear* const own = formed_of(call);
      if (own == nullptr || own->run == nullptr || (formed != nullptr && formed != own)) return {};
      formed = own;
    }
    const RowForm form = formed->form;
    const bool fits = result.stride == result.cols && on_16_bytes(result.data) &&
                      product_bytes(form, result.rows, result.cols) <=
                          product_bytes(RowForm::kFloat32, result.rows, result.cols);
    if (!fits) return {};
    return product_rows_at(result.data, form, result.rows, result.cols,
                           most_of(form, calls->front()));
  }

  const FormedLinear* formed_of(const LinearArgs& call) {
    return formed_linear_of(ops_.linear.choose(call, context_.caps, verbose_).name);
  }

  void step(const NormArgs& args) {
    const Result result = result_of(args);
    NormRows rows = rows_of(args);
    rows.out = wanted_by(at_, result);
    if (rows.out.form == RowForm::kFloat32 || !norm_holds_rows(rows) ||
        !lie_apart(args.x, args.x_stride, result)) {
      return ops_.norm.run(args, context_, verbose_);
    }
    x_ = rows.out;
    context_.queue->launch("norm", rows, norm_rows);
  }

  void step(const ActivationArgs& args) {
    const Result result = result_of(args);
    ActivateRows rows = rows_of(args);
    rows.out = wanted_by(at_, result);
    if (rows.out.form == RowForm::kFloat32 || !activates_into(rows.out.form, rows) ||
        !lie_apart(args.x, args.x_stride, result) ||
        !lie_apart(args.multiplier, args.multiplier_stride, result)) {
      return ops_.activation.run(args, context_, verbose_);
    }
    x_ = rows.out;
    context_.queue->launch("activation", rows, activate_rows);
  }

  void step(const AttentionArgs& args) {
    const ProductRows wanted = wanted_by(at_, result_of(args));
    const AttentionRun rounded =
        wanted.form != RowForm::kBf16
            ? nullptr
            : rounded_attention_of(ops_.attention.choose(args, context_.caps, verbose_).name);
    if (rounded == nullptr) return ops_.attention.run(args, context_, verbose_);
    x_ = wanted;
    rounded(args, wanted.values, context_);
  }

  void step(const Calls& calls) {
    if (calls.empty()) return;
    const ProductRows x = std::exchange(x_, {});
    if (run_pair(calls, x)) return;
    if (x.form == RowForm::kFloat32) return ops_.linear.run_together(calls, context_, verbose_);
    formed_of(calls.front())->run(calls, x, context_);
  }

  // With the activation behind them, if a kernel takes all three.
  bool run_pair(const Calls& calls, const ProductRows& x) {
    if (at_ >= links_.size() || calls.front().m == 0) return false;
    const auto* const activation = std::get_if<ActivationArgs>(&links_[at_]);
    if (activation == nullptr || !is_silu_pair(calls, *activation)) return false;
    const Result result = result_of(*activation);
    const FormedLinear* const formed = formed_of(calls.front());
    if (formed == nullptr || formed->pair == nullptr) return false;
    if (result.rows > formed->pair_rows) return false;
    if (!on_16_bytes(result.data) || result.stride % 4 != 0) return false;
    ProductRows rounded = wanted_by(at_ + 1, result);
    if (rounded.form != RowForm::kBf16 || formed->form == RowForm::kFloat32) rounded = {};
    LinearArgs pair[] = {calls[0], calls[1]};
    pair[0].y = activation->y;
    pair[0].y_stride = activation->y_stride;
    formed->pair(std::span<const LinearArgs>(pair), x, rounded.values, context_);
    x_ = rounded;
    ++at_;
    return true;
  }

  std::span<const ChainLink> links_;
  OpTable& ops_;
  ExecContext& context_;
  const LogSink& verbose_;
  std::size_t at_ = 0;  // of the next link
  ProductRows x_;       // what the last op left for the calls behind it, if in a form
};

}  // namespace

void run_chain(std::span<const ChainLink> links, OpTable& ops, ExecContext& context,
               const LogSink& verbose) {
  Chain(links, ops, context, verbose).run();
}

}  // namespace nibble::cuda
