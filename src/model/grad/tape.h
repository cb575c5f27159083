// Reverse-mode differentiation of one computation: nodes are matrices that were computed, each
// recorded step says how the gradient of its result reaches its inputs. For the blocks of a model
// (block_gradient.h), float32, in the host's memory.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <vector>

namespace nibble {

// value and grad are [rows, cols]; grad is empty until backward() has reached the node.
struct GradNode {
  std::int64_t rows = 0, cols = 0;
  std::vector<float> value;
  std::vector<float> grad;
};

class Tape {
 public:
  // A node of zeros; it lives as long as the tape.
  GradNode& make(std::int64_t rows, std::int64_t cols);
  // Runs after the steps that were recorded later, if a gradient has reached `result`.
  void record(const GradNode& result, std::function<void()> backward);

  // Gradients of sum(grad . result) by every node that it was computed from. Once for a tape.
  void backward(GradNode& result, std::span<const float> grad);

 private:
  struct Step {
    const GradNode* result;
    std::function<void()> backward;
  };
  std::deque<GradNode> nodes_;
  std::vector<Step> steps_;
};

// The gradient to add to; zeros when nothing was added yet.
std::vector<float>& gradient_of(GradNode& node);

}  // namespace nibble
