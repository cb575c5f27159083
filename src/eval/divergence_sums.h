// What two models say about the same positions, summed up.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "eval/nll_sum.h"
#include "eval/perplexity.h"

namespace nibble {

// Not thread-safe. Keeps 8 bytes a position for the exact quantile.
class DivergenceSums {
 public:
  // Rows of logits [targets, vocab] of consecutive positions; row r is followed by targets[r].
  // Rows that hold a NaN or infinity count as such and have no divergence.
  void add(const float* model, const float* reference, std::span<const std::int32_t> targets,
           std::int64_t vocab, ThreadPool& pool);

  // tokens: of the text. The sums are spent afterwards.
  DivergenceResult result(std::int64_t tokens);

 private:
  NllSum model_, reference_;
  std::vector<double> kl_;
  std::int64_t agreed_ = 0;
};

}  // namespace nibble
