#include "quantize/math/smoothing.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/error.h"
#include "base/half.h"

namespace nibble {
namespace {

constexpr float kFloor = 1e-5f;

float round_to(DType type, float v) {
  if (type == DType::kF16) return to_float(to_f16(v));
  if (type == DType::kBF16) return to_float(to_bf16(v));
  return v;
}

}  // namespace

std::vector<float> smoothing_scales(std::span<const float> activation,
                                    std::span<const float> weight, double alpha) {
  return awq_scales(activation, weight, alpha, true);
}

std::vector<float> awq_scales(std::span<const float> activation, std::span<const float> weight,
                              double alpha, bool with_weight) {
  NIBBLE_CHECK(activation.size() == weight.size() && alpha >= 0 && alpha <= 1);
  std::vector<float> s(activation.size());
  for (std::size_t j = 0; j < s.size(); ++j) {
    const double x = std::max(activation[j], kFloor);
    const double w = with_weight ? std::max(weight[j], kFloor) : 1.0;
    s[j] = std::max(static_cast<float>(std::pow(x, alpha) / std::pow(w, 1 - alpha)), kFloor);
  }
  if (s.empty()) return s;
  const auto [least, largest] = std::ranges::minmax(s);
  const float middle = std::sqrt(least) * std::sqrt(largest);
  for (float& value : s) value /= middle;
  return s;
}

std::vector<float> power_of_two_shifts(std::span<const float> largest, int most) {
  std::vector<float> s(largest.size(), 1.0f);
  if (s.empty()) return s;
  const float top = *std::ranges::max_element(largest);
  for (std::size_t j = 0; j < s.size(); ++j) {
    if (!(largest[j] > 0)) continue;
    const float wanted = std::nearbyint(std::log2(top / largest[j]));
    s[j] = std::ldexp(1.0f, -std::min(most, static_cast<int>(std::min(wanted, 1000.0f))));
  }
  return s;
}

std::vector<float> equalizing_scales(std::span<const float> made, std::span<const float> read) {
  NIBBLE_CHECK(made.size() == read.size());
  std::vector<float> s(made.size(), 1.0f);
  for (std::size_t j = 0; j < s.size(); ++j) {
    const float scale = std::sqrt(made[j]) / std::sqrt(read[j]);
    if (scale > 0 && std::isfinite(scale)) s[j] = scale;
  }
  return s;
}

void add_relative_magnitudes(const float* w, std::int64_t rows, std::int64_t cols,
                             std::int64_t group, std::span<double> sum) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t begin = 0; begin < cols; begin += group) {
      const float* values = w + row * cols + begin;
      float largest = kFloor;
      for (std::int64_t j = 0; j < group; ++j) largest = std::max(largest, std::abs(values[j]));
      for (std::int64_t j = 0; j < group; ++j) {
        sum[static_cast<std::size_t>(begin + j)] +=
            static_cast<double>(std::abs(values[j]) / largest);
      }
    }
  }
}

void tie_by_max(std::span<float> values, std::span<const std::int64_t> rows) {
  NIBBLE_CHECK(values.size() == rows.size());
  std::unordered_map<std::int64_t, float> largest;
  for (std::size_t j = 0; j < values.size(); ++j) {
    const auto [entry, inserted] = largest.emplace(rows[j], values[j]);
    entry->second = std::max(entry->second, values[j]);
  }
  for (std::size_t j = 0; j < values.size(); ++j) values[j] = largest.at(rows[j]);
}

void column_max_abs(const float* w, std::int64_t rows, std::int64_t cols, std::span<float> max_abs,
                    ThreadPool& pool) {
  constexpr std::int64_t kGrain = 64;
  float* result = max_abs.data();
  pool.parallel_for(cols, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t j = begin; j < end; ++j) {
        const float magnitude = std::abs(w[row * cols + j]);
        result[j] = magnitude > result[j] ? magnitude : result[j];
      }
    }
  });
}

std::vector<float> snap_to_stored_norm(std::span<const float> s, std::span<const float> weight,
                                       float offset, DType stored) {
  NIBBLE_CHECK(s.size() == weight.size());
  std::vector<float> snapped(s.begin(), s.end());
  for (std::size_t j = 0; j < s.size(); ++j) {
    const float gain = offset + weight[j];
    const float divided = offset + round_to(stored, gain / s[j] - offset);
    const float exact = gain / divided;
    // A gain of zero, or one that rounds to zero or beyond the type, has no exact partner.
    if (exact > 0 && std::isfinite(exact)) snapped[j] = exact;
  }
  return snapped;
}

}  // namespace nibble
