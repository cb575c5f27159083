// The searches that encoders of blocks share: scales, and scales with an offset, of a few elements
// for the least weighted squared error. Internal to formats/.
//
// Sums run in kLanes partial sums, so that compilers can use vectors without changing a bit. All
// lengths are multiples of kLanes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

namespace nibble {

inline constexpr int kLanes = 8;
inline constexpr int kMostInSearch = 32;  // elements that share a scale

// Of partial sums, in pairs, whose additions do not wait for each other.
inline float sum_of(const float* lanes) {
  static_assert(kLanes == 8);
  float pairs[4];
  for (int l = 0; l < 4; ++l) pairs[l] = lanes[l] + lanes[l + 4];
  return (pairs[0] + pairs[2]) + (pairs[1] + pairs[3]);
}

// Sums over i of a[i] * b[i]; with three factors likewise.
inline float dot(const float* a, const float* b, int n) {
  float lanes[kLanes] = {};
  for (int i = 0; i < n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += a[i + l] * b[i + l];
  }
  return sum_of(lanes);
}
inline float dot(const float* a, const float* b, const float* c, int n) {
  float lanes[kLanes] = {};
  for (int i = 0; i < n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += a[i + l] * b[i + l] * c[i + l];
  }
  return sum_of(lanes);
}

// Codes low ... high as numbers: the nearest to (x - offset) * inverse.
struct IntegerCodes {
  float low = 0, high = 0;

  float operator()(float x, float inverse, float offset) const {
    constexpr float kRound = 0x1.8p23f;  // x + kRound - kRound is x rounded to even, |x| < 2^22
    const float exact = (x - offset) * inverse;
    return (std::min(std::max(exact, low), high) + kRound) - kRound;
  }
  void operator()(const float* x, float inverse, float offset, int n, float* codes) const {
    for (int i = 0; i < n; ++i) codes[i] = (*this)(x[i], inverse, offset);
  }
};

// Values of a table, rising, as codes.
template <int kCount>
struct TableCodes {
  float values[kCount];

  void operator()(const float* x, float inverse, float offset, int n, float* codes) const {
    for (int i = 0; i < n; ++i) codes[i] = values[0];
    for (int k = 1; k < kCount; ++k) {
      const float middle = (values[k - 1] + values[k]) / 2, value = values[k];
      for (int i = 0; i < n; ++i) {
        codes[i] = (x[i] - offset) * inverse > middle ? value : codes[i];
      }
    }
  }
};

// Sums over codes q: of w q, w x q and w q^2.
struct CodeSums {
  float q = 0, xq = 0, qq = 0;
};
inline CodeSums sums_of_codes(const IntegerCodes& codes, const float* x, const float* weights,
                              const float* weighted, float inverse, float offset, int n) {
  float q_lanes[kLanes] = {}, xq_lanes[kLanes] = {}, qq_lanes[kLanes] = {};
  for (int i = 0; i < n; i += kLanes) {
    float q[kLanes];
    for (int l = 0; l < kLanes; ++l) q[l] = codes(x[i + l], inverse, offset);
    for (int l = 0; l < kLanes; ++l) {
      const float wq = weights[i + l] * q[l];
      q_lanes[l] += wq;
      xq_lanes[l] += weighted[i + l] * q[l];
      qq_lanes[l] += wq * q[l];
    }
  }
  return {sum_of(q_lanes), sum_of(xq_lanes), sum_of(qq_lanes)};
}

// 1 / x, and 0 for 0 and what is so small that there is no such float.
inline float inverse_of(float x) { return std::abs(x) < 0x1p-126f ? 0.0f : 1 / x; }

// The scale s under which x ~ s * codes has the least weighted error. `anchors` are the codes that
// the element of the largest magnitude is tried at; the best one is refined by least squares. 0
// when all x are.
template <class Codes>
float search_scale(const Codes& codes, const float* x, const float* weights, int n,
                   std::span<const float> anchors) {
  float top = 0;
  for (int i = 0; i < n; ++i) {
    if (std::abs(x[i]) > std::abs(top)) top = x[i];
  }
  float q[kMostInSearch], weighted[kMostInSearch];
  for (int i = 0; i < n; ++i) weighted[i] = weights[i] * x[i];
  // What a scale explains of sum w x^2; the error is the rest.
  float best_gain = 0, best = 0;
  const auto try_inverse = [&](float inverse) {
    codes(x, inverse, 0, n, q);
    const float xq = dot(weighted, q, n), qq = dot(weights, q, q, n);
    if (!(qq > 0) || !(xq * xq > best_gain * qq)) return false;
    best_gain = xq * xq / qq;
    best = xq / qq;
    return true;
  };
  const float inverse_top = inverse_of(top);
  for (const float anchor : anchors) try_inverse(anchor * inverse_top);
  for (int round = 0; round < 4 && try_inverse(inverse_of(best)); ++round) {
  }
  if (best != 0) return best;
  return anchors.empty() ? 0 : top / anchors.front();  // weights are zero, or x is too small
}

// The smallest and the largest, without branches.
struct Range {
  float low, high;
};
inline Range range_of(const float* x, int n) {
  float low[kLanes], high[kLanes];
  for (int l = 0; l < kLanes; ++l) low[l] = high[l] = x[l];
  for (int i = kLanes; i < n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      low[l] = std::min(low[l], x[i + l]);
      high[l] = std::max(high[l], x[i + l]);
    }
  }
  return {*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes)};
}

struct AffineFit {
  float scale = 0, offset = 0;
};

// The same for x ~ scale * code + offset with codes 0 ... top_code; with `descending` the offset is
// never above 0. `spans` are the codes that the whole range of x is spread over.
inline AffineFit search_affine(const float* x, const float* weights, int n, float top_code,
                               bool descending, std::span<const float> spans) {
  auto [low, high] = range_of(x, n);
  if (descending) low = std::min(low, 0.0f);
  if (!(high > low)) return {0, low};
  float weighted[kMostInSearch], ones[kMostInSearch];
  for (int i = 0; i < n; ++i) weighted[i] = weights[i] * x[i];
  std::fill_n(ones, n, 1.0f);
  const float w = dot(weights, ones, n), wx = dot(weighted, ones, n);
  const IntegerCodes codes{0, top_code};
  AffineFit best{(high - low) / top_code, low};
  // Less sum w x^2, which is the same for all.
  float best_error = INFINITY;
  const auto try_fit = [&](float inverse, float offset) {
    const auto [wq, xq, qq] = sums_of_codes(codes, x, weights, weighted, inverse, offset, n);
    const float determinant = w * qq - wq * wq;
    if (!(determinant > 0)) return false;
    AffineFit fit{(w * xq - wx * wq) / determinant, (qq * wx - wq * xq) / determinant};
    if (descending && fit.offset > 0) fit = {xq / qq, 0};
    const float s = fit.scale, m = fit.offset;
    const float error = s * (s * qq - 2 * xq + 2 * m * wq) + m * (m * w - 2 * wx);
    if (!(error < best_error) || !(s > 0)) return false;
    best_error = error;
    best = fit;
    return true;
  };
  const float inverse_range = inverse_of(high - low);
  for (const float span : spans) {
    try_fit(span * inverse_range, low);
    try_fit(span * inverse_range, high - top_code * (high - low) / span);
  }
  for (int round = 0; round < 4 && try_fit(inverse_of(best.scale), best.offset); ++round) {
  }
  return best;
}

}  // namespace nibble
