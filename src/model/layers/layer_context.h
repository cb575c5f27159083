// What the parts of a block share during one call, and the two steps that all of them take.
#pragma once

#include <string>

#include "backends/rows.h"
#include "model/layers/op_chain.h"
#include "model/model.h"

namespace nibble {

struct LayerContext {
  const ModelSpec& spec;
  std::int64_t layer = 0;
  const LayerWeights& weights;
  Backend& backend;
  SiteObserver* observer = nullptr;

  // Shows x [rows, cols] to the observer, if there is one; then what makes x runs first.
  void observe(OpChain& chain, const std::string& site, const float* x, std::int64_t rows,
               std::int64_t cols) const;
};

// y = norm(x), both [rows, cols]; y may be x.
void run_norm(const NormSpec& spec, const Norm& norm, const float* x, std::int64_t rows,
              std::int64_t cols, float* y, Backend& backend);

// y [rows, out] = x [rows, in] * weight^T + bias
void run_linear(const Linear& linear, const float* x, std::int64_t rows, Output y,
                Backend& backend);

// What the linear's input [rows, cols] is multiplied by before anything else, in place. If there is
// anything, what makes x runs first.
void mix_input(OpChain& chain, const Linear& linear, float* x, std::int64_t rows, Backend& backend);

void run_add(const float* x, std::int64_t count, float* y, Backend& backend);

}  // namespace nibble
