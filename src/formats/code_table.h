// Elements of at most 8 bits as a table of values: decoding is a lookup, encoding the nearest
// value.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "formats/span_kernels.h"

namespace nibble {

// The code of the finite value nearest to x. x is no NaN.
inline std::uint8_t nearest(const TableView& table, float x) {
  int rank = 0;
  for (int step = table.leaves / 2; step > 0; step /= 2) {
    rank += x > table.bounds[rank + step - 1] ? step : 0;
  }
  return rank == table.zero_rank && std::signbit(x) ? table.negative_zero : table.codes[rank];
}

// Where x lies exactly between two neighbouring values.
enum class TieRule {
  kEvenCode,
  kSmallerMagnitude,
  kSmallerValue,
};

// Immutable and thread-safe.
class CodeTable {
 public:
  // values[code], 2^bits of them, NaN and infinity included; at least one is finite. Of codes with
  // equal values the lowest is used for encoding; that of -0 is used for negative values that
  // become zero when `signed_zero`. `rounding` finds the same codes, where there is one.
  CodeTable(std::vector<float> values, TieRule ties, bool signed_zero,
            std::optional<FloatRounding> rounding = std::nullopt);

  int bits() const { return bits_; }
  std::span<const float> values() const { return values_; }
  float value(int code) const { return values_[static_cast<std::size_t>(code)]; }
  // The largest finite magnitude, under either sign where there are two.
  float max() const { return max_; }

  // The code of the finite value nearest to x. x is no NaN.
  std::uint8_t nearest(float x) const { return nibble::nearest(view(), x); }

  // Valid as long as the table stays where it is.
  TableView view() const {
    TableView view;
    view.values = values_.data();
    view.bits = bits_;
    view.bounds = bounds_.data();
    view.leaves = static_cast<int>(bounds_.size());
    view.ranks = static_cast<int>(codes_.size());
    view.below = slots_ > 0 ? below_.data() : nullptr;
    view.slots = slots_;
    view.codes = codes_.data();
    view.zero_rank = zero_;
    view.negative_zero = negative_zero_;
    view.rising = rising_;
    view.steps = steps_;
    view.rounding = rounding_ ? &*rounding_ : nullptr;
    return view;
  }

 private:
  void find_slots();

  std::vector<float> values_;
  std::vector<std::uint8_t> codes_;  // in the order of their values
  std::vector<float> bounds_;        // x > bounds_[i]: the value is above the i-th
  // TableView::below; slots_ is 0 where there is none.
  std::array<std::uint8_t, 32> below_{};
  float slots_ = 0;
  int zero_ = 0;
  std::uint8_t negative_zero_ = 0;
  bool rising_ = false;
  float max_ = 0;
  int bits_ = 0;
  float steps_ = 0;
  std::optional<FloatRounding> rounding_;
};

}  // namespace nibble
