// Orthogonal matrices that spread what is large in a few channels over all of them, and keep
// vectors of one value as they are where that is asked for (QuaRot: arXiv 2404.00456).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/thread_pool.h"

namespace nibble {

// +1 and -1, [order, order] by rows, with M Mᵀ = order I, of an order that is no multiple of a
// smaller known one times two: Paley's constructions over prime fields (J. Math. Phys. 12, 1933),
// order - 1 a prime that is 3 modulo 4, or order / 2 - 1 a prime that is 1 modulo 4. Order 1 is the
// number 1. Empty when the order is none of these.
std::vector<std::int8_t> hadamard_signs(std::int64_t order);

struct RotationOptions {
  std::int64_t size = 0;
  // Signs of the channels before and after the Hadamard matrix, drawn by `seed`.
  bool random = false;
  std::uint64_t seed = 0;
  // Vectors whose elements are all equal keep their values.
  bool keeps_mean = false;
};

// Q [size, size], orthogonal: signs, a Hadamard matrix over sqrt(n), signs, for n channels at a
// time; n = size where a Hadamard matrix of that size is known (a power of two times an order of
// hadamard_signs()), and else the largest power of two that divides the size. With keeps_mean these
// are followed by the reflection that takes what has become of (1, ..., 1) back to it, which is of
// rank one and so leaves the channels mixed. Immutable and thread-safe.
class Rotation {
 public:
  explicit Rotation(const RotationOptions& options);

  std::int64_t size() const { return options_.size; }
  // Channels that are mixed with one another; 1: the rotation changes nothing.
  std::int64_t block() const { return outer_ * inner_; }

  // x = x Q for a row vector x [size].
  void apply(float* x) const;

 private:
  void mix(float* x) const;

  RotationOptions options_;
  std::int64_t outer_ = 1;  // order of signs_
  std::int64_t inner_ = 1;  // a power of two
  std::vector<std::int8_t> signs_;
  std::vector<float> before_, after_;  // [size] or empty
  std::vector<float> mirror_;          // of length sqrt(2), or empty
};

using RotationPtr = std::shared_ptr<const Rotation>;

// Rows begin .. begin + rotation.size() of w [rows, cols] become Qᵀ times themselves: each column
// is a vector that is rotated.
void rotate_rows(const Rotation& rotation, std::int64_t begin, std::int64_t cols, float* w,
                 ThreadPool& pool);

}  // namespace nibble
