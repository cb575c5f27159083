#include "quantize/math/learned_rounding.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quantize/math/grids.h"

namespace nibble {

LearnedRounding::LearnedRounding(FormatPtr format, const float* w, std::int64_t rows,
                                 std::int64_t cols)
    : format_(std::move(format)),
      w_(w),
      rows_(rows),
      cols_(cols),
      length_(cols / groups_per_row(format_->descriptor().scheme, cols)) {
  NIBBLE_CHECK(format_->is_affine() && groups_are_independent(format_->descriptor().scheme));
  const auto count = static_cast<std::size_t>(rows * cols);
  for (const float* group = w; group < w + count; group += length_) {
    const auto [lo, hi] = std::minmax_element(group, group + length_);
    ranges_.push_back({std::min(*lo, 0.0f), std::max(*hi, 0.0f)});
  }
  parameters_.offsets.assign(count, 0.0f);
  parameters_.ends.assign(2 * ranges_.size(), 1.0f);
}

AffineParams LearnedRounding::params_of(std::size_t group) const {
  return affine_params(format_->descriptor(), ranges_[group].lo * parameters_.ends[2 * group],
                       ranges_[group].hi * parameters_.ends[2 * group + 1]);
}

void LearnedRounding::shifted(std::size_t group, const AffineParams& params, float* out) const {
  const float* w = w_ + static_cast<std::int64_t>(group) * length_;
  const float* v = parameters_.offsets.data() + static_cast<std::int64_t>(group) * length_;
  for (std::int64_t j = 0; j < length_; ++j) out[j] = w[j] + params.scale * v[j];
}

template <class Body>
void LearnedRounding::for_groups(ThreadPool& pool, const Body& body) const {
  pool.parallel_for(static_cast<std::int64_t>(ranges_.size()), 32,
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t g = begin; g < end; ++g) {
                        body(static_cast<std::size_t>(g), g * length_);
                      }
                    });
}

void LearnedRounding::rounded(float* out, ThreadPool& pool) const {
  for_groups(pool, [&](std::size_t group, std::int64_t offset) {
    const AffineParams params = params_of(group);
    shifted(group, params, out + offset);
    affine_round_trip(format_->descriptor(), params, out + offset, length_, out + offset);
  });
}

LearnedRounding::Parameters LearnedRounding::gradients(std::span<const float> by_weights,
                                                       ThreadPool& pool) const {
  const WeightDescriptor& descriptor = format_->descriptor();
  const bool symmetric = descriptor.scheme.symmetric;
  const auto last = static_cast<float>((1 << descriptor.element.bits) - 1);
  Parameters result;
  result.offsets.resize(parameters_.offsets.size());
  result.ends.resize(parameters_.ends.size());
  for_groups(pool, [&](std::size_t group, std::int64_t offset) {
    const AffineParams params = params_of(group);
    const auto zero = static_cast<float>(params.zero);
    const float lo = ranges_[group].lo * parameters_.ends[2 * group];
    double by_scale = 0, outside = 0;
    for (std::int64_t i = offset; i < offset + length_; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const float d = by_weights[at];
      const float code = w_[i] / params.scale + parameters_.offsets[at] + zero;
      const float clamped = std::clamp(std::nearbyint(code), 0.0f, last);
      if (code > -0.5f && code < last + 0.5f) {
        result.offsets[at] = d * params.scale;
        by_scale += static_cast<double>(d * (clamped - zero - w_[i] / params.scale));
      } else {
        by_scale += static_cast<double>(d * (clamped - zero));
        outside += static_cast<double>(d);
      }
    }
    // s = (hi' - lo') / last; a saturated weight is s (code - z) with z = -lo' / s, so that it
    // moves with lo' and by s dz/ds = lo' / s.
    float* ends = result.ends.data() + 2 * group;
    if (symmetric) {
      // Only the end of the larger magnitude says what the scale is.
      const float hi = ranges_[group].hi * parameters_.ends[2 * group + 1];
      const bool low = -lo > hi;
      const float range = low ? ranges_[group].lo : ranges_[group].hi;
      ends[low ? 0 : 1] = static_cast<float>(by_scale) * std::abs(range) * 2 / last;
      return;
    }
    by_scale -= outside * static_cast<double>(lo / params.scale);
    ends[0] =
        ranges_[group].lo * static_cast<float>(outside - by_scale / static_cast<double>(last));
    ends[1] = ranges_[group].hi * static_cast<float>(by_scale / static_cast<double>(last));
  });
  return result;
}

void LearnedRounding::step(const Parameters& gradients, float rate) {
  const auto move = [rate](std::vector<float>& values, const std::vector<float>& by, float least,
                           float most) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float sign = by[i] > 0 ? 1.0f : by[i] < 0 ? -1.0f : 0.0f;
      values[i] = std::clamp(values[i] - rate * sign, least, most);
    }
  };
  move(parameters_.offsets, gradients.offsets, -0.5f, 0.5f);
  move(parameters_.ends, gradients.ends, kLeastEnd, 1.0f);
}

QuantTensor LearnedRounding::encode(ThreadPool& pool) const {
  std::vector<float> values(parameters_.offsets.size());
  std::vector<AffineParams> params(ranges_.size());
  for_groups(pool, [&](std::size_t group, std::int64_t offset) {
    params[group] = params_of(group);
    shifted(group, params[group], values.data() + offset);
  });
  return affine_encode(format_, values.data(), rows_, cols_, params);
}

}  // namespace nibble
