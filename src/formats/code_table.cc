#include "formats/code_table.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/error.h"

namespace nibble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool tie_goes_up(float low, int low_code, float high, TieRule ties) {
  switch (ties) {
    case TieRule::kEvenCode:
      return low_code % 2 != 0;
    case TieRule::kSmallerMagnitude:
      return std::abs(high) < std::abs(low);
    case TieRule::kSmallerValue:
      return false;
  }
  return false;
}

// The largest float b such that x > b means "nearer to `high`, or a tie that goes there".
float bound_between(float low, float high, bool tie_up) {
  const double middle = (double{low} + double{high}) / 2;
  auto bound = static_cast<float>(middle);
  const bool tie_exists = double{bound} == middle;
  if (double{bound} > middle || (tie_exists && tie_up)) bound = std::nextafter(bound, -kInfinity);
  return bound;
}

}  // namespace

CodeTable::CodeTable(std::vector<float> values, TieRule ties, bool signed_zero)
    : values_(std::move(values)), bits_(static_cast<int>(std::bit_width(values_.size())) - 1) {
  NIBBLE_CHECK(values_.size() <= 256 && std::has_single_bit(values_.size()));
  for (std::size_t code = 0; code < values_.size(); ++code) {
    if (std::isfinite(values_[code])) codes_.push_back(static_cast<std::uint8_t>(code));
  }
  const auto value_of_code = [this](std::uint8_t code) { return values_[code]; };
  std::ranges::stable_sort(codes_, {}, value_of_code);
  const auto is_negative_zero = [&](std::uint8_t code) {
    return values_[code] == 0 && std::signbit(values_[code]);
  };
  const auto negative_zero = std::ranges::find_if(codes_, is_negative_zero);
  const bool has_negative_zero = signed_zero && negative_zero != codes_.end();
  if (has_negative_zero) negative_zero_ = *negative_zero;
  const auto same_value = [this](std::uint8_t a, std::uint8_t b) {
    return values_[a] == values_[b];
  };
  codes_.erase(std::unique(codes_.begin(), codes_.end(), same_value), codes_.end());
  NIBBLE_CHECK(!codes_.empty());

  zero_ = static_cast<std::size_t>(std::ranges::find(codes_, 0.0f, value_of_code) - codes_.begin());
  if (!has_negative_zero && zero_ < codes_.size()) negative_zero_ = codes_[zero_];
  const float lowest = values_[codes_.front()], highest = values_[codes_.back()];
  max_ = lowest < 0 ? std::min(-lowest, highest) : highest;
  // Bounds are filled up to a full binary tree; nothing is above the filling.
  const std::size_t leaves = std::bit_ceil(codes_.size());
  steps_ = leaves / 2;
  bounds_.assign(leaves, kInfinity);
  for (std::size_t i = 0; i + 1 < codes_.size(); ++i) {
    const float low = values_[codes_[i]];
    const float high = values_[codes_[i + 1]];
    bounds_[i] = bound_between(low, high, tie_goes_up(low, codes_[i], high, ties));
  }
}

void CodeTable::encode(const float* w, std::int64_t count, float scale, std::uint8_t* codes) const {
  if (!(scale > 0)) {
    std::fill_n(codes, count, nearest(0.0f));
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) codes[i] = nearest(w[i] / scale);
}

}  // namespace nibble
