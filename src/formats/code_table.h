// Elements of at most 8 bits as a table of values: decoding is a lookup, encoding the nearest
// value.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace nibble {

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
  // become zero when `signed_zero`.
  CodeTable(std::vector<float> values, TieRule ties, bool signed_zero);

  int bits() const { return bits_; }
  std::span<const float> values() const { return values_; }
  float value(int code) const { return values_[static_cast<std::size_t>(code)]; }
  // The largest finite magnitude, under either sign where there are two.
  float max() const { return max_; }

  // The code of the finite value nearest to x. x is no NaN.
  std::uint8_t nearest(float x) const {
    std::size_t index = 0;
    for (std::size_t step = steps_; step > 0; step >>= 1) {
      index += x > bounds_[index + step - 1] ? step : 0;
    }
    return index == zero_ && std::signbit(x) ? negative_zero_ : codes_[index];
  }

  // codes[i] = nearest(w[i] / scale); a scale that is not positive gives codes of zero.
  void encode(const float* w, std::int64_t count, float scale, std::uint8_t* codes) const;

 private:
  std::vector<float> values_;
  std::vector<std::uint8_t> codes_;  // in the order of their values
  std::vector<float> bounds_;        // x > bounds_[i]: the value is above the i-th
  std::size_t steps_ = 0;
  std::size_t zero_ = 0;
  std::uint8_t negative_zero_ = 0;
  float max_ = 0;
  int bits_ = 0;
};

}  // namespace nibble
