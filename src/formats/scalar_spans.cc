#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "formats/affine.h"
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

// of(i) for every i < length, added as sixteen sums.
template <class Of>
double sixteen_sums(std::int64_t length, const Of& of) {
  double sums[16] = {};
  for (std::int64_t i = 0; i < length; ++i) sums[i % 16] += of(i);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0];
}

void squared_errors(const float* values, const float* w, std::int64_t groups, std::int64_t length,
                    double* errors) {
  for (std::int64_t g = 0; g < groups; ++g, values += length, w += length) {
    errors[g] = sixteen_sums(length, [&](std::int64_t i) {
      const double d = double{values[i]} - double{w[i]};
      return d * d;
    });
  }
}

void magnitude_sums(const float* w, std::int64_t groups, std::int64_t length, double* sums) {
  for (std::int64_t g = 0; g < groups; ++g, w += length) {
    sums[g] = sixteen_sums(length, [&](std::int64_t i) { return std::abs(double{w[i]}); });
  }
}

void better_codes(const TableView& table, const float* first, const float* second, const float* w,
                  std::int64_t groups, std::int64_t length, std::uint8_t* codes,
                  std::uint8_t* choice) {
  std::vector<std::uint8_t> others(static_cast<std::size_t>(length));
  std::vector<float> values(others.size());
  for (std::int64_t g = 0; g < groups; ++g, w += length, codes += length) {
    double errors[2];
    table_codes(table, second + g, w, 1, length, others.data());
    table_values(table, second + g, others.data(), 1, length, values.data());
    squared_errors(values.data(), w, 1, length, errors + 1);
    table_codes(table, first + g, w, 1, length, codes);
    table_values(table, first + g, codes, 1, length, values.data());
    squared_errors(values.data(), w, 1, length, errors);
    choice[g] = errors[1] < errors[0] ? 1 : 0;
    if (choice[g] != 0) std::ranges::copy(others, codes);
  }
}

void pack(int bits, const std::uint8_t* codes, std::int64_t blocks, unsigned char* bytes) {
  std::uint32_t words[16];
  for (std::int64_t b = 0; b < blocks; ++b, codes += 64, bytes += 8 * bits) {
    pack_codes({codes, 64}, bits, words);
    std::memcpy(bytes, words, static_cast<std::size_t>(8 * bits));
  }
}

void unpack(int bits, const unsigned char* bytes, std::int64_t blocks, std::uint8_t* codes) {
  unpack_codes(reinterpret_cast<const std::byte*>(bytes), bits, 0, 64 * blocks, codes);
}

template <class Half, Half (*Round)(float)>
void to_halves(const float* x, std::int64_t count, std::uint16_t* halves) {
  std::transform(x, x + count, halves, [](float v) { return Round(v).bits; });
}

template <class Half>
void from_halves(const std::uint16_t* halves, std::int64_t count, float* x) {
  std::transform(halves, halves + count, x,
                 [](std::uint16_t bits) { return to_float(Half{bits}); });
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
  static constexpr SpanKernels kSpans = {ranges,
                                         magnitudes,
                                         affine_codes,
                                         affine_values,
                                         table_codes,
                                         table_values,
                                         squared_errors,
                                         magnitude_sums,
                                         better_codes,
                                         pack,
                                         unpack,
                                         to_halves<f16, to_f16>,
                                         to_halves<bf16, to_bf16>,
                                         from_halves<f16>,
                                         from_halves<bf16>,
                                         trellis_step};
  return kSpans;
}

}  // namespace nibble
