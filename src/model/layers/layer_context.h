// What the parts of a block share during one call, and the two steps that all of them take.
#pragma once

#include <initializer_list>
#include <string>

#include "backends/rows.h"
#include "model/model.h"

namespace nibble {

struct LayerContext {
  const ModelSpec& spec;
  std::int64_t layer = 0;
  const LayerWeights& weights;
  Backend& backend;
  SiteObserver* observer = nullptr;

  // Shows x [rows, cols] to the observer, if there is one.
  void observe(const std::string& site, const float* x, std::int64_t rows, std::int64_t cols) const;
};

// y = norm(x), both [rows, cols]; y may be x. The rows of x are x_stride apart (0: cols).
void run_norm(const NormSpec& spec, const Norm& norm, const float* x, std::int64_t rows,
              std::int64_t cols, float* y, Backend& backend, std::int64_t x_stride = 0);

// Where a result goes: instead of what `data` holds, or added to it.
struct Output {
  float* data = nullptr;
  bool accumulate = false;
};

// y [rows, out] = x [rows, in] * weight^T + bias
void run_linear(const Linear& linear, const float* x, std::int64_t rows, Output y,
                Backend& backend);

// Several linears of one x, each into its own y.
struct LinearTarget {
  const Linear& linear;
  float* y;
};
void run_linears(std::initializer_list<LinearTarget> targets, const float* x, std::int64_t rows,
                 Backend& backend);

// Two linears of one x, and `activation` of them, whose x and multiplier are where they go.
void run_gated(const LinearTarget& gate, const LinearTarget& up, const float* x, std::int64_t rows,
               const ActivationArgs& activation, Backend& backend);

// What the linear's input [rows, cols] is multiplied by before anything else, in place.
void mix_input(const Linear& linear, float* x, std::int64_t rows, Backend& backend);

void run_add(const float* x, std::int64_t count, float* y, Backend& backend);

}  // namespace nibble
