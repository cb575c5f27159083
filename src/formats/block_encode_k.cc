#include "formats/block_encode_k.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "formats/block_bytes.h"
#include "formats/block_store.h"

namespace nibble {
namespace {

// Least squares for the second level: what it gains is little after the first round.
constexpr int kRounds = 2;

constexpr auto kOnes = [] {
  std::array<float, kMostInSearch> ones{};
  ones.fill(1);
  return ones;
}();

// sum_i weights[i] (x[i] - (step codes[i] - minimum))^2
float error_of(const float* x, const float* weights, float step, float minimum, const float* codes,
               int n) {
  float lanes[kLanes] = {};
  for (int i = 0; i < n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float difference = x[i + l] - (step * codes[i + l] - minimum);
      lanes[l] += weights[i + l] * difference * difference;
    }
  }
  return sum_of(lanes);
}

// kParts runs of elements, each with an integer scale and minimum:
//   w ~ d * scale * code - dmin * minimum, codes 0 ... top_code, integers 0 ... steps.
template <int kParts>
class MinimumBlock {
 public:
  static constexpr int kLength = kSuperBlock / kParts;

  MinimumBlock(const float* w, const float* importance, int top_code, int steps,
               std::span<const float> spans)
      : w_(w), importance_(importance), codes_{0, static_cast<float>(top_code)}, steps_(steps) {
    float largest_scale = 0, largest_minimum = 0;
    for (int j = 0; j < kParts; ++j) {
      fits_[j] = search_affine(w + kLength * j, importance + kLength * j, kLength,
                               static_cast<float>(top_code), true, spans);
      totals_[j] = dot(importance + kLength * j, kOnes.data(), kLength);
      sums_[j] = dot(importance + kLength * j, w + kLength * j, kLength);
      largest_scale = std::max(largest_scale, fits_[j].scale);
      largest_minimum = std::max(largest_minimum, -fits_[j].offset);
    }
    settle(rounded_half(largest_scale / static_cast<float>(steps)),
           rounded_half(largest_minimum / static_cast<float>(steps)));
    for (int round = 0; round < kRounds; ++round) {
      const MinimumBlock before = *this;
      if (!refit() || !(error_ < before.error_)) {
        *this = before;
        break;
      }
    }
  }

  float d = 0, dmin = 0;
  int scales[kParts] = {}, minimums[kParts] = {};
  float q[kSuperBlock] = {};

 private:
  // Integers and codes of all parts under given d and dmin.
  void settle(float new_d, float new_dmin) {
    d = new_d;
    dmin = new_dmin;
    error_ = 0;
    for (int j = 0; j < kParts; ++j) error_ += settle_part(j);
  }

  float settle_part(int j) {
    const float* x = w_ + kLength * j;
    const float* weights = importance_ + kLength * j;
    const int wanted = nearest(fits_[j].scale, d), near_minimum = nearest(-fits_[j].offset, dmin);
    const float total = totals_[j], weighted_sum = sums_[j];
    float best = INFINITY, tried[kLength];
    for (int scale = std::max(wanted - 1, 0); scale <= std::min(wanted + 1, steps_); ++scale) {
      const float step = d * static_cast<float>(scale);
      int minimum = near_minimum;
      codes_(x, inverse_of(step), -dmin * static_cast<float>(minimum), kLength, tried);
      // The minimum that is best for these codes, and the codes that are nearest under it.
      const float rest = step * dot(weights, tried, kLength) - weighted_sum;
      if (total > 0) minimum = nearest(rest / total, dmin);
      codes_(x, inverse_of(step), -dmin * static_cast<float>(minimum), kLength, tried);
      const float error =
          error_of(x, weights, step, dmin * static_cast<float>(minimum), tried, kLength);
      if (!(error < best)) continue;
      best = error;
      scales[j] = scale;
      minimums[j] = minimum;
      std::copy_n(tried, kLength, q + kLength * j);
    }
    return best;
  }

  int nearest(float value, float unit) const {
    if (!(unit > 0)) return 0;
    return static_cast<int>(std::lrint(std::clamp(value / unit, 0.0f, static_cast<float>(steps_))));
  }

  // d and dmin by least squares under the integers and codes that there are, then all again.
  bool refit() {
    double aa = 0, bb = 0, ab = 0, xa = 0, xb = 0;
    for (int j = 0; j < kParts; ++j) {
      const float* x = w_ + kLength * j;
      const float* weights = importance_ + kLength * j;
      const float* codes = q + kLength * j;
      const double a = scales[j], b = -minimums[j];
      const float w1 = totals_[j], wq = dot(weights, codes, kLength), wx = sums_[j];
      aa += a * a * static_cast<double>(dot(weights, codes, codes, kLength));
      ab += a * b * static_cast<double>(wq);
      bb += b * b * static_cast<double>(w1);
      xa += a * static_cast<double>(dot(weights, x, codes, kLength));
      xb += b * static_cast<double>(wx);
    }
    double new_d = aa > 0 ? xa / aa : 0, new_dmin = 0;
    const double determinant = aa * bb - ab * ab;
    if (determinant > 1e-9 * aa * bb) {
      new_d = (xa * bb - xb * ab) / determinant;
      new_dmin = (xb * aa - xa * ab) / determinant;
    }
    if (!(new_d > 0) || new_dmin < 0) return false;
    settle(rounded_half(static_cast<float>(new_d)), rounded_half(static_cast<float>(new_dmin)));
    return true;
  }

  const float* w_;
  const float* importance_;
  IntegerCodes codes_;
  int steps_;
  AffineFit fits_[kParts] = {};
  float totals_[kParts] = {}, sums_[kParts] = {};  // of weights, and of weighted elements
  float error_ = 0;
};

// kParts runs of elements, each with a signed integer scale:
//   w ~ d * scale * code, scales low ... -low - 1.
template <int kParts, class Codes>
class ScaledBlock {
 public:
  static constexpr int kLength = kSuperBlock / kParts;

  ScaledBlock(const float* w, const float* importance, const Codes& codes, int low,
              std::span<const float> anchors)
      : w_(w), importance_(importance), codes_(codes), low_(low) {
    float top = 0;
    for (int j = 0; j < kParts; ++j) {
      fits_[j] = search_scale(codes_, w + kLength * j, importance + kLength * j, kLength, anchors);
      if (std::abs(fits_[j]) > std::abs(top)) top = fits_[j];
    }
    settle(rounded_half(top / static_cast<float>(low)));
    for (int round = 0; round < kRounds; ++round) {
      const ScaledBlock before = *this;
      if (!refit() || !(error_ < before.error_)) {
        *this = before;
        break;
      }
    }
  }

  float d = 0;
  int scales[kParts] = {};
  float q[kSuperBlock] = {};

 private:
  void settle(float new_d) {
    d = new_d;
    error_ = 0;
    for (int j = 0; j < kParts; ++j) error_ += settle_part(j);
  }

  float settle_part(int j) {
    const float* x = w_ + kLength * j;
    const float* weights = importance_ + kLength * j;
    const auto low = static_cast<float>(low_);
    const int wanted =
        static_cast<int>(std::lrint(std::clamp(fits_[j] * inverse_of(d), low, -low - 1)));
    float best = INFINITY, tried[kLength];
    for (int scale = std::max(wanted - 1, low_); scale <= std::min(wanted + 1, -low_ - 1);
         ++scale) {
      const float step = d * static_cast<float>(scale);
      codes_(x, inverse_of(step), 0, kLength, tried);
      const float error = error_of(x, weights, step, 0, tried, kLength);
      if (!(error < best)) continue;
      best = error;
      scales[j] = scale;
      std::copy_n(tried, kLength, q + kLength * j);
    }
    return best;
  }

  bool refit() {
    double aa = 0, xa = 0;
    for (int j = 0; j < kParts; ++j) {
      const float* weights = importance_ + kLength * j;
      const float* codes = q + kLength * j;
      const double a = scales[j];
      aa += a * a * static_cast<double>(dot(weights, codes, codes, kLength));
      xa += a * static_cast<double>(dot(weights, w_ + kLength * j, codes, kLength));
    }
    if (!(aa > 0)) return false;
    settle(rounded_half(static_cast<float>(xa / aa)));
    return true;
  }

  const float* w_;
  const float* importance_;
  Codes codes_;
  int low_;
  float fits_[kParts] = {};
  float error_ = 0;
};

// `count` numbers from `first` on, `step` apart.
template <int kCount>
struct Steps {
  Steps(float first, float step) {
    for (int i = 0; i < kCount; ++i) values[i] = first + step * static_cast<float>(i);
  }
  float values[kCount];
};

// Scales and minimums of Q4_K and Q5_K, 6 bits each.
void store_scales_k4(const int* scales, const int* minimums, std::uint8_t* bytes) {
  for (int j = 0; j < 4; ++j) {
    bytes[j] = static_cast<std::uint8_t>(scales[j] | (scales[j + 4] >> 4) << 6);
    bytes[j + 4] = static_cast<std::uint8_t>(minimums[j] | (minimums[j + 4] >> 4) << 6);
    bytes[j + 8] = static_cast<std::uint8_t>((scales[j + 4] & 15) | (minimums[j + 4] & 15) << 4);
  }
}

// Low nibbles of Q4_K and Q5_K; fifth bits go to `high`, if there is one.
void store_k45(const float* q, std::uint8_t* codes, std::uint8_t* high) {
  std::fill_n(codes, 128, std::uint8_t{0});
  if (high != nullptr) std::fill_n(high, 32, std::uint8_t{0});
  for (int i = 0; i < kSuperBlock; ++i) {
    const int code = static_cast<int>(q[i]), part = i / 32;
    std::uint8_t& byte = codes[part / 2 * 32 + i % 32];
    byte = static_cast<std::uint8_t>(byte | (code & 15) << 4 * (part % 2));
    if (high == nullptr) continue;
    high[i % 32] = static_cast<std::uint8_t>(high[i % 32] | (code >> 4) << part);
  }
}

}  // namespace

void encode_q2_k(const float* w, const float* importance, std::uint8_t* block) {
  const Steps<16> spans(2.5f, 0.1f);
  const MinimumBlock<16> fit(w, importance, 3, 15, spans.values);
  for (int j = 0; j < 16; ++j) {
    block[j] = static_cast<std::uint8_t>(fit.scales[j] | fit.minimums[j] << 4);
  }
  store_pairs(block + 16, [&](int i) { return static_cast<int>(fit.q[i]); });
  store_f16(fit.d, block + 80);
  store_f16(fit.dmin, block + 82);
}

void encode_q3_k(const float* w, const float* importance, std::uint8_t* block) {
  const Steps<14> anchors(-4.9f, 0.15f);
  const ScaledBlock<16, IntegerCodes> fit(w, importance, {-4, 3}, -32, anchors.values);
  std::fill_n(block, 32, std::uint8_t{0});
  for (int i = 0; i < kSuperBlock; ++i) {
    const int high = fit.q[i] >= 0 ? 1 : 0;
    block[i % 32] = static_cast<std::uint8_t>(block[i % 32] | high << (i / 32));
  }
  store_pairs(block + 32, [&](int i) { return static_cast<int>(fit.q[i]) + 4; });
  std::uint8_t* scales = block + 96;
  std::fill_n(scales, 12, std::uint8_t{0});
  for (int j = 0; j < 16; ++j) {
    const int scale = fit.scales[j] + 32;
    std::uint8_t& low = scales[j % 8];
    low = static_cast<std::uint8_t>(low | (scale & 15) << 4 * (j / 8));
    std::uint8_t& high = scales[8 + j % 4];
    high = static_cast<std::uint8_t>(high | (scale >> 4) << 2 * (j / 4));
  }
  store_f16(fit.d, block + 108);
}

void encode_q4_k(const float* w, const float* importance, std::uint8_t* block) {
  const Steps<5> spans(13.9f, 0.4f);
  const MinimumBlock<8> fit(w, importance, 15, 63, spans.values);
  store_f16(fit.d, block);
  store_f16(fit.dmin, block + 2);
  store_scales_k4(fit.scales, fit.minimums, block + 4);
  store_k45(fit.q, block + 16, nullptr);
}

void encode_q5_k(const float* w, const float* importance, std::uint8_t* block) {
  const Steps<5> spans(30.2f, 0.4f);
  const MinimumBlock<8> fit(w, importance, 31, 63, spans.values);
  store_f16(fit.d, block);
  store_f16(fit.dmin, block + 2);
  store_scales_k4(fit.scales, fit.minimums, block + 4);
  store_k45(fit.q, block + 48, block + 16);
}

void encode_q6_k(const float* w, const float* importance, std::uint8_t* block) {
  const Steps<14> anchors(-32.9f, 0.15f);
  const ScaledBlock<16, IntegerCodes> fit(w, importance, {-32, 31}, -128, anchors.values);
  std::fill_n(block, 192, std::uint8_t{0});
  for (int i = 0; i < kSuperBlock; ++i) {
    const int code = static_cast<int>(fit.q[i]) + 32, part = i / 128, run = i / 32 % 4, at = i % 32;
    std::uint8_t& low = block[64 * part + at + 32 * (run % 2)];
    low = static_cast<std::uint8_t>(low | (code & 15) << 4 * (run / 2));
    std::uint8_t& high = block[128 + 32 * part + at];
    high = static_cast<std::uint8_t>(high | (code >> 4) << 2 * run);
  }
  for (int j = 0; j < 16; ++j) {
    block[192 + j] = static_cast<std::uint8_t>(static_cast<std::int8_t>(fit.scales[j]));
  }
  store_f16(fit.d, block + 208);
}

void encode_iq4_xs(const float* w, const float* importance, std::uint8_t* block) {
  constexpr float kAnchors[] = {-127, -118, -136, -109, 113, 104, 122};
  const ScaledBlock<8, TableCodes<16>> fit(w, importance, kIq4Grid, -32, kAnchors);
  store_f16(fit.d, block);
  std::uint16_t high = 0;
  std::fill_n(block + 4, 4, std::uint8_t{0});
  for (int j = 0; j < 8; ++j) {
    const int scale = fit.scales[j] + 32;
    high = static_cast<std::uint16_t>(high | (scale >> 4) << 2 * j);
    block[4 + j / 2] = static_cast<std::uint8_t>(block[4 + j / 2] | (scale & 15) << 4 * (j % 2));
  }
  store_u16(high, block + 2);
  for (int j = 0; j < 8; ++j) {
    store_nibbles(block + 8 + 16 * j, [&](int i) { return iq4_code(fit.q[32 * j + i]); });
  }
}

}  // namespace nibble
