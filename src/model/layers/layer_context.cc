#include "model/layers/layer_context.h"

namespace nibble {
void LayerContext::observe(OpChain& chain, const std::string& site, const float* x,
                           std::int64_t rows, std::int64_t cols) const {
  if (observer == nullptr) return;
  chain.run();
  if (backend.memory().is_host() || observer->on_device()) {
    observer->on_input(site, x, rows, cols);
    return;
  }
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  backend.memory().copy_out(x, values.size() * sizeof(float), values.data());
  observer->on_input(site, values.data(), rows, cols);
}

void run_norm(const NormSpec& spec, const Norm& norm, const float* x, std::int64_t rows,
              std::int64_t cols, float* y, Backend& backend) {
  backend.run(norm_args(spec, norm, x, rows, cols, y));
}

void run_linear(const Linear& linear, const float* x, std::int64_t rows, Output y,
                Backend& backend) {
  OpChain chain(backend);
  chain.add({{linear, y}}, x, rows);
  chain.run();
}

void mix_input(OpChain& chain, const Linear& linear, float* x, std::int64_t rows,
               Backend& backend) {
  if (linear.input_hadamard == 0) return;
  chain.run();
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
