#include "model/grad/tape.h"

#include "base/error.h"

namespace nibble {

GradNode& Tape::make(std::int64_t rows, std::int64_t cols) {
  GradNode& node = nodes_.emplace_back();
  node.rows = rows;
  node.cols = cols;
  node.value.resize(static_cast<std::size_t>(rows * cols));
  return node;
}

void Tape::record(const GradNode& result, std::function<void()> backward) {
  steps_.push_back({&result, std::move(backward)});
}

void Tape::backward(GradNode& result, std::span<const float> grad) {
  NIBBLE_CHECK(grad.size() == result.value.size());
  result.grad.assign(grad.begin(), grad.end());
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    if (!step->result->grad.empty()) step->backward();
  }
}

std::vector<float>& gradient_of(GradNode& node) {
  node.grad.resize(node.value.size());
  return node.grad;
}

}  // namespace nibble
