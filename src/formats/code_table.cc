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

// See TableView::steps.
float steps_of(const std::vector<float>& values, TieRule ties, bool signed_zero) {
  if (values[0] != 0 || !(values[1] > 0) || ties != TieRule::kEvenCode || signed_zero) return 0;
  const float steps = 1 / values[1];
  int exponent = 0;
  if (std::frexp(steps, &exponent) != 0.5f || std::abs(exponent) > 64) return 0;
  const auto codes = static_cast<int>(values.size());
  for (int code = 0; code < codes; ++code) {
    const auto whole = static_cast<float>(code < codes / 2 ? code : code - codes);
    if (values[static_cast<std::size_t>(code)] * steps != whole) return 0;
  }
  return steps;
}

// TableView::below, when so many slots a unit part the bounds.
std::optional<std::array<std::uint8_t, 32>> below_slots(std::span<const float> bounds,
                                                        float slots) {
  std::array<std::uint8_t, 32> below{};
  int last = -1;
  for (const float bound : bounds) {
    const float at = bound * slots;
    const float whole = std::nearbyint(at);
    const int slot = static_cast<int>(whole) + 16;
    // Kernels need bounds that are no tiny numbers, too.
    if (std::abs(bound) < 1e-9f || std::abs(at - whole) > 0.49f || slot <= last) return {};
    for (int i = slot + 1; i < 32; ++i) ++below[static_cast<std::size_t>(i)];
    last = slot;
  }
  return below;
}

}  // namespace

CodeTable::CodeTable(std::vector<float> values, TieRule ties, bool signed_zero,
                     std::optional<FloatRounding> rounding)
    : values_(std::move(values)),
      bits_(static_cast<int>(std::bit_width(values_.size())) - 1),
      steps_(steps_of(values_, ties, signed_zero)),
      rounding_(rounding) {
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

  rising_ = !has_negative_zero;
  for (std::size_t rank = 0; rank < codes_.size(); ++rank) {
    rising_ = rising_ && codes_[rank] == rank;
  }
  const float lowest = values_[codes_.front()], highest = values_[codes_.back()];
  max_ = lowest < 0 ? std::min(-lowest, highest) : highest;
  // Bounds are filled up to a full binary tree; nothing is above the filling.
  const std::size_t leaves = std::bit_ceil(codes_.size());
  bounds_.assign(leaves, kInfinity);
  for (std::size_t i = 0; i + 1 < codes_.size(); ++i) {
    const float low = values_[codes_[i]];
    const float high = values_[codes_[i + 1]];
    bounds_[i] = bound_between(low, high, tie_goes_up(low, codes_[i], high, ties));
  }
  // Where 0 is no value, its nearest one stands for it.
  while (zero_ + 1 < static_cast<int>(codes_.size()) &&
         0 > bounds_[static_cast<std::size_t>(zero_)]) {
    ++zero_;
  }
  if (!has_negative_zero) negative_zero_ = codes_[static_cast<std::size_t>(zero_)];
  if (codes_.size() > 8 && codes_.size() <= 16) find_slots();
}

void CodeTable::find_slots() {
  const std::span<const float> bounds(bounds_.data(), codes_.size() - 1);
  const float most = std::max(std::abs(bounds.front()), std::abs(bounds.back()));
  constexpr int kTries = 256;
  for (int t = 0; t < kTries; ++t) {
    const float slots = 15.4f / most * (1 - 0.5f * static_cast<float>(t) / kTries);
    const std::optional<std::array<std::uint8_t, 32>> below = below_slots(bounds, slots);
    if (!below) continue;
    below_ = *below;
    slots_ = slots;
    return;
  }
}

}  // namespace nibble
