#include "model/layers/layer_context.h"

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
  args.y = target.y;
  args.y_stride = linear.weight.canonical.rows;
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

void LayerContext::observe(const std::string& site, const float* x, std::int64_t rows,
                           std::int64_t cols) const {
  if (observer == nullptr) return;
  if (backend.memory().is_host() || observer->on_device()) {
    observer->on_input(site, x, rows, cols);
    return;
  }
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  backend.memory().copy_out(x, values.size() * sizeof(float), values.data());
  observer->on_input(site, values.data(), rows, cols);
}

void run_norm(const NormSpec& spec, const Norm& norm, const float* x, std::int64_t rows,
              std::int64_t cols, float* y, Backend& backend, std::int64_t x_stride) {
  NormArgs args;
  args.kind = spec.kind;
  args.x = x;
  args.x_stride = x_stride > 0 ? x_stride : cols;
  args.rows = rows;
  args.cols = cols;
  args.weight = norm.weight.empty() ? nullptr : norm.weight.data<float>();
  args.bias = norm.bias.empty() ? nullptr : norm.bias.data<float>();
  args.weight_offset = spec.weight_offset;
  args.eps = spec.eps;
  args.y = y;
  args.y_stride = cols;
  backend.run(args);
}

void run_linear(const Linear& linear, const float* x, std::int64_t rows, Output y,
                Backend& backend) {
  LinearArgs args = linear_args({linear, y.data}, x, rows);
  args.accumulate = y.accumulate;
  backend.run(args);
  run_added(linear, x, rows, y.data, backend);
}

void run_linears(std::initializer_list<LinearTarget> targets, const float* x, std::int64_t rows,
                 Backend& backend) {
  std::vector<LinearArgs> calls;
  for (const LinearTarget& target : targets) calls.push_back(linear_args(target, x, rows));
  backend.run_together(calls);
  for (const LinearTarget& target : targets) {
    run_added(target.linear, x, rows, target.y, backend);
  }
}

void run_gated(const LinearTarget& gate, const LinearTarget& up, const float* x, std::int64_t rows,
               const ActivationArgs& activation, Backend& backend) {
  if (gate.linear.added != nullptr || up.linear.added != nullptr) {
    run_linears({gate, up}, x, rows, backend);
    backend.run(activation);
    return;
  }
  backend.run_gated(linear_args(gate, x, rows), linear_args(up, x, rows), activation);
}

void mix_input(const Linear& linear, float* x, std::int64_t rows, Backend& backend) {
  if (linear.input_hadamard == 0) return;
  const std::int64_t blocks = linear.weight.canonical.cols / linear.input_hadamard;
  backend.run(HadamardArgs{x, rows * blocks, linear.input_hadamard});
}

void run_add(const float* x, std::int64_t count, float* y, Backend& backend) {
  AddArgs args;
  args.x = x;
  args.y = y;
  args.count = count;
  backend.run(args);
}

}  // namespace nibble
