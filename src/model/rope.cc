#include "model/rope.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace nibble {
namespace {

float round_pow(double base, double exponent) {
  return static_cast<float>(std::pow(base, exponent));
}

// base^(2i / dim) for each pair.
std::vector<float> wavelengths(float base, std::int64_t dim) {
  std::vector<float> result;
  for (std::int64_t i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    result.push_back(round_pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  return result;
}

std::vector<float> inverse(std::vector<float> values) {
  for (float& value : values) value = 1.0f / value;
  return values;
}

float dynamic_base(const RopeSpec& spec, std::int64_t length) {
  const auto base = static_cast<float>(spec.theta);
  if (length <= spec.max_positions) return base;
  const auto dim = static_cast<double>(spec.rotary_dim);
  const float stretched = static_cast<float>(spec.factor) * static_cast<float>(length) /
                          static_cast<float>(spec.max_positions);
  const float growth = stretched - static_cast<float>(spec.factor - 1);
  return base * round_pow(static_cast<double>(growth), dim / (dim - 2));
}

std::vector<float> llama3(const RopeSpec& spec) {
  std::vector<float> freq = inverse(wavelengths(static_cast<float>(spec.theta), spec.rotary_dim));
  const auto original = static_cast<double>(spec.original_max_positions);
  const auto factor = static_cast<float>(spec.factor);
  const auto low = static_cast<float>(spec.low_freq_factor);
  const auto low_wavelength = static_cast<float>(original / spec.low_freq_factor);
  const auto high_wavelength = static_cast<float>(original / spec.high_freq_factor);
  for (float& f : freq) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / f;
    if (wavelength > low_wavelength) {
      f = f / factor;
    } else if (!(wavelength < high_wavelength)) {
      const float smooth = (static_cast<float>(original) / wavelength - low) /
                           static_cast<float>(spec.high_freq_factor - spec.low_freq_factor);
      f = (1 - smooth) * f / factor + smooth * f;
    }
  }
  return freq;
}

// The (fractional) index of the pair that turns `rotations` times over the original length.
double correction_index(const RopeSpec& spec, double rotations) {
  const auto original = static_cast<double>(spec.original_max_positions);
  return static_cast<double>(spec.rotary_dim) *
         std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(spec.theta));
}

std::vector<float> yarn(const RopeSpec& spec) {
  double low = correction_index(spec, spec.beta_fast);
  double high = correction_index(spec, spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(spec.rotary_dim - 1));
  if (low == high) high += 0.001;  // no step of zero width

  std::vector<float> freq = wavelengths(static_cast<float>(spec.theta), spec.rotary_dim);
  for (std::size_t i = 0; i < freq.size(); ++i) {
    const float ramp =
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float extrapolated_share = 1 - std::clamp(ramp, 0.0f, 1.0f);
    const float extrapolated = 1.0f / freq[i];
    const float interpolated = 1.0f / (static_cast<float>(spec.factor) * freq[i]);
    freq[i] = interpolated * (1 - extrapolated_share) + extrapolated * extrapolated_share;
  }
  return freq;
}

double yarn_scale(const RopeSpec& spec) {
  if (spec.attention_factor) return *spec.attention_factor;
  const auto scale = [&](double mscale) {
    return spec.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(spec.factor) + 1.0;
  };
  const double mscale = spec.mscale.value_or(0);
  const double all_dim = spec.mscale_all_dim.value_or(0);
  return mscale != 0 && all_dim != 0 ? scale(mscale) / scale(all_dim) : scale(1);
}

std::vector<float> longrope(const RopeSpec& spec, std::int64_t length) {
  const std::vector<double>& factors =
      length > spec.original_max_positions ? spec.long_factor : spec.short_factor;
  std::vector<float> freq = wavelengths(static_cast<float>(spec.theta), spec.rotary_dim);
  for (std::size_t i = 0; i < freq.size(); ++i) {
    freq[i] = 1.0f / (static_cast<float>(factors[i]) * freq[i]);
  }
  return freq;
}

double longrope_scale(const RopeSpec& spec) {
  if (spec.attention_factor) return *spec.attention_factor;
  if (spec.factor <= 1) return 1;
  return std::sqrt(1 + std::log(spec.factor) /
                           std::log(static_cast<double>(spec.original_max_positions)));
}

}  // namespace

bool depends_on_length(const RopeSpec& spec) {
  return spec.kind == RopeKind::kDynamic || spec.kind == RopeKind::kLongRope;
}

RopeTable rope_table(const RopeSpec& spec, std::int64_t length) {
  const auto base = static_cast<float>(spec.theta);
  switch (spec.kind) {
    case RopeKind::kDefault:
      return {inverse(wavelengths(base, spec.rotary_dim)), 1};
    case RopeKind::kLinear: {
      std::vector<float> freq = inverse(wavelengths(base, spec.rotary_dim));
      for (float& f : freq) f /= static_cast<float>(spec.factor);
      return {std::move(freq), 1};
    }
    case RopeKind::kDynamic:
      return {inverse(wavelengths(dynamic_base(spec, length), spec.rotary_dim)), 1};
    case RopeKind::kLlama3:
      return {llama3(spec), 1};
    case RopeKind::kYarn:
      return {yarn(spec), static_cast<float>(yarn_scale(spec))};
    case RopeKind::kLongRope:
      return {longrope(spec, length), static_cast<float>(longrope_scale(spec))};
  }
  return {};
}

const RopeTable& fixed_rope_table(const RopeSpec& spec) {
  struct Entry {
    RopeSpec spec;
    RopeTable table;
  };
  // A model has one rope, or one for its windows besides.
  constexpr std::size_t kEntries = 2;
  thread_local std::vector<Entry> entries;
  for (const Entry& entry : entries) {
    if (entry.spec == spec) return entry.table;
  }
  if (entries.size() == kEntries) entries.erase(entries.begin());
  entries.reserve(kEntries);
  entries.push_back({spec, rope_table(spec, 0)});
  return entries.back().table;
}

std::vector<float> alibi_slopes(std::int64_t heads) {
  const auto closest = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(heads)));
  const auto base = [](std::int64_t power_of_two) {
    return static_cast<double>(
        round_pow(2, -std::exp2(-(std::log2(static_cast<double>(power_of_two)) - 3))));
  };
  std::vector<float> slopes;
  for (std::int64_t i = 1; i <= closest; ++i) {
    slopes.push_back(round_pow(base(closest), static_cast<double>(i)));
  }
  // The rest takes every second slope of the next power of two.
  for (std::int64_t i = 1; static_cast<std::int64_t>(slopes.size()) < heads; i += 2) {
    slopes.push_back(round_pow(base(2 * closest), static_cast<double>(i)));
  }
  return slopes;
}

}  // namespace nibble
