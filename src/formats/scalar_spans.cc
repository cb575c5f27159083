#include <algorithm>
#include <cmath>

#include "formats/code_table.h"

namespace nibble {
namespace {

bool ranges(const float* w, std::int64_t groups, std::int64_t length, float* lo, float* hi) {
  bool finite = true;
  for (std::int64_t g = 0; g < groups; ++g) {
    lo[g] = 0;
    hi[g] = 0;
    for (std::int64_t i = 0; i < length; ++i, ++w) {
      finite = finite && std::isfinite(*w);
      lo[g] = std::min(lo[g], *w);
      hi[g] = std::max(hi[g], *w);
    }
  }
  return finite;
}

bool magnitudes(const float* w, std::int64_t groups, std::int64_t length, float* absmax) {
  bool finite = true;
  for (std::int64_t g = 0; g < groups; ++g) {
    absmax[g] = 0;
    for (std::int64_t i = 0; i < length; ++i, ++w) {
      finite = finite && std::isfinite(*w);
      absmax[g] = std::max(absmax[g], std::abs(*w));
    }
  }
  return finite;
}

void affine_codes(int bits, const float* scales, const int* zeros, const float* w,
                  std::int64_t groups, std::int64_t length, std::uint8_t* codes) {
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto low = static_cast<float>(-zeros[g]);
    const auto high = static_cast<float>((1 << bits) - 1 - zeros[g]);
    for (std::int64_t i = 0; i < length; ++i) {
      const float steps = std::nearbyint(std::clamp(*w++ / scales[g], low, high));
      *codes++ = static_cast<std::uint8_t>(static_cast<int>(steps) + zeros[g]);
    }
  }
}

void affine_values(const float* scales, const int* zeros, const std::uint8_t* codes,
                   std::int64_t groups, std::int64_t length, float* out) {
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t i = 0; i < length; ++i) {
      *out++ = scales[g] * static_cast<float>(*codes++ - zeros[g]);
    }
  }
}

void table_codes(const TableView& table, const float* scales, const float* w, std::int64_t groups,
                 std::int64_t length, std::uint8_t* codes) {
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t i = 0; i < length; ++i, ++w) {
      *codes++ = nearest(table, scales[g] > 0 ? *w / scales[g] : 0.0f);
    }
  }
}

void table_values(const TableView& table, const float* scales, const std::uint8_t* codes,
                  std::int64_t groups, std::int64_t length, float* out) {
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t i = 0; i < length; ++i) *out++ = table.values[*codes++] * scales[g];
  }
}

void squared_errors(const float* values, const float* w, std::int64_t groups, std::int64_t length,
                    double* errors) {
  for (std::int64_t g = 0; g < groups; ++g) {
    double sums[16] = {};
    for (std::int64_t i = 0; i < length; ++i) {
      const double d = double{*values++} - double{*w++};
      sums[i % 16] += d * d;
    }
    for (int half = 8; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
    }
    errors[g] = sums[0];
  }
}

void trellis_step(int bits, const float* values, float w, float weight, const float* after,
                  float* before, std::uint8_t* choice) {
  const int span = 65536 >> bits;
  for (int r = 0; r < span; ++r) {
    int best = 0;
    for (int n = 1; n < 1 << bits; ++n) {
      if (after[n * span + r] < after[best * span + r]) best = n;
    }
    choice[r] = static_cast<std::uint8_t>(best);
    for (int x = r << bits; x < (r + 1) << bits; ++x) {
      const float d = values[x] - w;
      before[x] = after[best * span + r] + weight * (d * d);
    }
  }
}

}  // namespace

const SpanKernels& scalar_spans() {
  static constexpr SpanKernels kSpans = {ranges,      magnitudes,   affine_codes,   affine_values,
                                         table_codes, table_values, squared_errors, trellis_step};
  return kSpans;
}

}  // namespace nibble
