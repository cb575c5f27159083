// Rounding that is learned: every weight has an offset v in [-1/2, 1/2] steps, every group a factor
// for either end of its range (AutoRound: SignSGD, arXiv 2309.05516),
//
//   lo' = a min(w, 0), hi' = b max(w, 0) of the group;  scale s, zero point z of [lo', hi']
//   w'  = s (clamp(round(w / s + v) + z, 0, 2^bits - 1) - z)
//
// The gradient takes round() for the identity.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "formats/affine.h"
#include "formats/format.h"

namespace nibble {

class LearnedRounding {
 public:
  // Begins as round to nearest: v = 0, a = b = 1. w [rows, cols] must outlive it. `format` is
  // affine, its scales not shared by rows.
  LearnedRounding(FormatPtr format, const float* w, std::int64_t rows, std::int64_t cols);

  // The parameters, for tests and to keep the best ones: v [rows, cols], then a and b in turns
  // [rows, groups, 2].
  struct Parameters {
    std::vector<float> offsets;
    std::vector<float> ends;
  };
  const Parameters& parameters() const { return parameters_; }
  void set_parameters(Parameters parameters) { parameters_ = std::move(parameters); }

  // w' [rows, cols].
  void rounded(float* out, ThreadPool& pool) const;
  // Gradients by the parameters from that by w' [rows, cols].
  Parameters gradients(std::span<const float> by_weights, ThreadPool& pool) const;
  // parameters -= rate * sign(gradients), held within their bounds: |v| <= 1/2, a and b in
  // [least_end, 1].
  void step(const Parameters& gradients, float rate);
  // w' as it is stored.
  QuantTensor encode(ThreadPool& pool) const;

  static constexpr float kLeastEnd = 0.05f;

 private:
  struct Range {
    float lo = 0, hi = 0;  // of the weights and 0
  };
  AffineParams params_of(std::size_t group) const;
  // w + s v of one group.
  void shifted(std::size_t group, const AffineParams& params, float* out) const;
  template <class Body>
  void for_groups(ThreadPool& pool, const Body& body) const;

  FormatPtr format_;
  const float* w_;
  std::int64_t rows_, cols_, length_;
  std::vector<Range> ranges_;  // [rows, groups]
  Parameters parameters_;
};

}  // namespace nibble
