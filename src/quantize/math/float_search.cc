#include "quantize/math/float_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"
#include "formats/registry.h"
#include "ops/axpy.h"

namespace nibble {
namespace {

constexpr std::int64_t kSummedRows = 256;  // of a float32 sum

// The ways to split the bits of a float, beginning with its own.
std::vector<Element> element_splits(const Element& element) {
  std::vector<Element> result = {element};
  if (element.kind != ElementKind::kFloatBits || !element.float_bits.has_sign) return result;
  const FloatBits& own = element.float_bits;
  for (int exponent = element.bits - 1; exponent >= 1; --exponent) {
    if (exponent == own.exponent) continue;
    FloatBits bits{exponent, element.bits - 1 - exponent, 0, FloatKind::kAllFinite, true};
    bits.bias = default_bias(exponent, bits.kind);
    if (!why_not(bits).empty()) continue;
    result.push_back(element);
    result.back().float_bits = bits;
  }
  return result;
}

// columns of x [rows, channels] as rows, negated
std::vector<float> negative_columns(std::span<const float> x, std::int64_t rows,
                                    std::int64_t channels) {
  std::vector<float> result(x.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < channels; ++col) {
      result[static_cast<std::size_t>(col * rows + row)] = -x[row * channels + col];
    }
  }
  return result;
}

// sum[i, j] += sum over rows of a_i b_j
void add_products(std::span<const float> a, std::span<const float> b, std::int64_t channels,
                  std::span<double> sum, ThreadPool& pool) {
  const auto total = static_cast<std::int64_t>(a.size()) / channels;
  for (std::int64_t begin = 0; begin < total; begin += kSummedRows) {
    const std::int64_t rows = std::min(kSummedRows, total - begin);
    const auto part = [&](std::span<const float> x) {
      return x.subspan(static_cast<std::size_t>(begin * channels),
                       static_cast<std::size_t>(rows * channels));
    };
    const std::vector<float> left = negative_columns(part(a), rows, channels);
    pool.parallel_for(channels, 8, [&](std::int64_t first, std::int64_t last) {
      std::vector<float> product(static_cast<std::size_t>(channels));
      for (std::int64_t i = first; i < last; ++i) {
        std::ranges::fill(product, 0.0f);
        subtract_products(product.data(), channels, left.data() + i * rows, part(b).data(),
                          channels, rows);
        for (std::int64_t j = 0; j < channels; ++j) {
          sum[static_cast<std::size_t>(i * channels + j)] +=
              static_cast<double>(product[static_cast<std::size_t>(j)]);
        }
      }
    });
  }
}

std::vector<float> rounding_errors(const ActivationFormat& format, std::span<const float> x,
                                   std::int64_t channels) {
  const auto rows = static_cast<std::int64_t>(x.size()) / channels;
  std::vector<float> d(x.size());
  format.round(x.data(), channels, rows, channels, d.data(), channels);
  for (std::size_t i = 0; i < d.size(); ++i) d[i] = x[i] - d[i];
  return d;
}

// What pulled_error() is when M is diagonal.
double uncorrelated_error(const Hessian& hessian, std::span<const float> d,
                          std::span<const float> pull) {
  const auto channels = static_cast<std::size_t>(hessian.channels);
  double sum = 0;
  for (std::size_t i = 0; i < d.size(); ++i) {
    const double value = static_cast<double>(d[i]);
    sum += value * (value * hessian.moments[i % channels * (channels + 1)] +
                    2 * static_cast<double>(pull[i]));
  }
  return sum;
}

// Under each scale, if the format is a static one.
std::vector<ActivationFormatPtr> under_scales(const ActivationFormatPtr& format, float largest,
                                              const RangeFactors& factors) {
  if (!format->descriptor().is_static) return {format};
  if (!(largest > 0)) return {format->with_scales({{1, 0}})};
  std::vector<ActivationFormatPtr> result;
  const auto last = static_cast<int>(std::floor(factors.steps * (1 + factors.max_stretch)));
  for (int k = factors.steps; k >= 1; --k) {
    const float range = largest * static_cast<float>(k) / static_cast<float>(factors.steps);
    result.push_back(format->with_scales({{range / format->largest(), 0}}));
  }
  for (int k = factors.steps + 1; k <= last; ++k) {
    const float range = largest * static_cast<float>(k) / static_cast<float>(factors.steps);
    result.push_back(format->with_scales({{range / format->largest(), 0}}));
  }
  return result;
}

// Those with the least errors, in that order.
std::vector<ActivationFormatPtr> shortlisted(const std::vector<ActivationFormatPtr>& candidates,
                                             std::span<const float> x, const Hessian& weights,
                                             std::span<const float> pull, int count,
                                             ThreadPool& pool) {
  std::vector<std::pair<double, std::size_t>> ranked(candidates.size());
  pool.parallel_for(static_cast<std::int64_t>(ranked.size()), 1,
                    [&](std::int64_t begin, std::int64_t end) {
                      for (auto i = static_cast<std::size_t>(begin); std::cmp_less(i, end); ++i) {
                        const auto d = rounding_errors(*candidates[i], x, weights.channels);
                        ranked[i] = {uncorrelated_error(weights, d, pull), i};
                      }
                    });
  std::ranges::sort(ranked);
  ranked.resize(std::min(ranked.size(), static_cast<std::size_t>(count)));
  std::vector<ActivationFormatPtr> result;
  for (const auto& [error, index] : ranked) result.push_back(candidates[index]);
  return result;
}

}  // namespace

std::vector<FormatPtr> float_splits(const FormatPtr& format) {
  WeightDescriptor descriptor = format->descriptor();
  const Scheme& scheme = descriptor.scheme;
  const bool plain = scheme.rule == ScaleRule::kAbsmax &&
                     scheme.second_level == SecondLevel::kNone &&
                     scheme.scale_type != DType::kF8E8M0;
  std::vector<FormatPtr> result = {format};
  if (!plain) return result;
  const std::vector<Element> elements = element_splits(descriptor.element);
  for (auto element = elements.begin() + 1; element != elements.end(); ++element) {
    descriptor.element = *element;
    result.push_back(make_format(descriptor));
  }
  return result;
}

std::vector<ActivationFormatPtr> float_splits(const ActivationFormatPtr& format) {
  ActivationDescriptor descriptor = format->descriptor();
  std::vector<ActivationFormatPtr> result = {format};
  const std::vector<Element> elements = element_splits(descriptor.element);
  for (auto element = elements.begin() + 1; element != elements.end(); ++element) {
    descriptor.element = *element;
    result.push_back(std::make_shared<ActivationFormat>(descriptor));
  }
  return result;
}

Hessian rounding_moments(std::span<const float> rounded, std::span<const float> exact,
                         std::int64_t channels, ThreadPool& pool) {
  NIBBLE_CHECK(rounded.size() == exact.size());
  Hessian result;
  result.channels = channels;
  result.rows = static_cast<std::int64_t>(rounded.size()) / channels;
  result.moments.resize(static_cast<std::size_t>(channels * channels));
  result.drift.resize(result.moments.size());
  std::vector<float> missing(exact.begin(), exact.end());
  for (std::size_t i = 0; i < missing.size(); ++i) missing[i] -= rounded[i];
  add_products(rounded, rounded, channels, result.moments, pool);
  add_products(missing, rounded, channels, result.drift, pool);
  return result;
}

ActivationFormatPtr best_rounding(std::span<const ActivationFormatPtr> formats,
                                  std::span<const float> x, const Hessian& weights,
                                  const RangeFactors& factors, ThreadPool& pool) {
  const auto rows = static_cast<std::int64_t>(x.size()) / weights.channels;
  const std::vector<float> pull = drift_pull(weights, x.data(), rows, pool);
  float largest = 0;
  for (const float value : x) largest = std::max(largest, std::abs(value));
  ActivationFormatPtr best;
  double least = std::numeric_limits<double>::infinity();
  for (const ActivationFormatPtr& format : formats) {
    std::vector<ActivationFormatPtr> candidates = under_scales(format, largest, factors);
    if (factors.shortlist > 0 && std::cmp_greater(candidates.size(), factors.shortlist)) {
      candidates = shortlisted(candidates, x, weights, pull, factors.shortlist, pool);
    }
    for (const ActivationFormatPtr& candidate : candidates) {
      const auto d = rounding_errors(*candidate, x, weights.channels);
      const double error = pulled_error(weights, d, pull, pool);
      if (best != nullptr && !(error < least)) continue;
      best = candidate;
      least = error;
    }
  }
  return best;
}

}  // namespace nibble
