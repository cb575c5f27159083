#include "model/layers/op_chain.h"

#include <algorithm>

#include "backends/rows.h"

namespace nibble {
namespace {

LinearArgs linear_args(const LinearTarget& target, const float* x, std::int64_t rows) {
  const Linear& linear = target.linear;
  LinearArgs args;
  args.x = x;
  args.x_stride = linear.weight.canonical.cols;
  args.m = rows;
  args.w = &linear.weight;
  args.bias = linear.bias.empty() ? nullptr : linear.bias.data<float>();
  args.activations = linear.activations.get();
  args.y = target.y.data;
  args.y_stride = linear.weight.canonical.rows;
  args.accumulate = target.y.accumulate;
  return args;
}

// What the product of low rank adds to the results of a linear.
void run_added(const Linear& linear, const float* x, std::int64_t rows, float* y,
               Backend& backend) {
  if (linear.added == nullptr) return;
  const std::int64_t rank = linear.added->in.canonical.rows;
  Rows narrow(backend, rows, rank);
  LinearArgs args;
  args.x = x;
  args.x_stride = linear.weight.canonical.cols;
  args.m = rows;
  args.w = &linear.added->in;
  args.activations = linear.activations.get();
  args.y = narrow.data();
  args.y_stride = rank;
  backend.run(args);
  args.x = narrow.data();
  args.x_stride = rank;
  args.w = &linear.added->out;
  args.activations = nullptr;
  args.y = y;
  args.y_stride = linear.weight.canonical.rows;
  args.accumulate = true;
  backend.run(args);
}

}  // namespace

NormArgs norm_args(const NormSpec& spec, const Norm& norm, const float* x, std::int64_t rows,
                   std::int64_t cols, float* y) {
  NormArgs args;
  args.kind = spec.kind;
  args.x = x;
  args.x_stride = cols;
  args.rows = rows;
  args.cols = cols;
  args.weight = norm.weight.empty() ? nullptr : norm.weight.data<float>();
  args.bias = norm.bias.empty() ? nullptr : norm.bias.data<float>();
  args.weight_offset = spec.weight_offset;
  args.eps = spec.eps;
  args.y = y;
  args.y_stride = cols;
  return args;
}

void OpChain::add(std::initializer_list<LinearTarget> targets, const float* x, std::int64_t rows) {
  const bool alone = std::ranges::any_of(
      targets, [](const LinearTarget& target) { return target.linear.added != nullptr; });
  if (alone) run();  // x is read again
  const std::size_t first = call_count_;
  for (const LinearTarget& target : targets) calls_[call_count_++] = linear_args(target, x, rows);
  links_[link_count_++] = std::span<const LinearArgs>(calls_).subspan(first, targets.size());
  if (!alone) return;
  run();
  for (const LinearTarget& target : targets) {
    run_added(target.linear, x, rows, target.y.data, backend_);
  }
}

void OpChain::run() {
  if (link_count_ > 0) backend_.run_chain(std::span<const ChainLink>(links_).first(link_count_));
  link_count_ = call_count_ = 0;
}

}  // namespace nibble
