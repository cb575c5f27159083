// A weight [rows, cols] on its canonical planes (formats/format.h), as kernels that take any format
// see it.
#pragma once

#include <cstdint>

namespace nibble::cuda {

enum class FloatType : std::int32_t { kF16, kBF16, kF32 };

struct WeightPlanes {
  const void* data = nullptr;  // elements of `type`, or words of codes
  const void* scales = nullptr;
  const std::uint8_t* zeros = nullptr;  // null: 2^(bits - 1)
  const float* values = nullptr;        // by code; null: codes are integers less their zero points
  // Null: scales are floats of `type`. Else they are bytes b, and scale i is
  // scale_values[b] * scale_factors[i >> factor_shift] + scale_mean[0], as far as those are given.
  const float* scale_values = nullptr;
  const float* scale_factors = nullptr;
  const float* scale_mean = nullptr;
  std::int64_t factor_shift = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t row_words = 0;        // of codes
  std::int64_t group = 0;            // columns that share a scale; the last of a row may be fewer
  std::int64_t groups = 0;           // of a row
  std::int64_t scale_rows = 1;       // rows that share their scales
  FloatType type = FloatType::kF32;  // of the elements, or of the scales
  std::int32_t bits = 0;             // of a code; 0 = plain floats
};

}  // namespace nibble::cuda
