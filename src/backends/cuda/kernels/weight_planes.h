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
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t row_words = 0;        // of codes
  std::int64_t group = 0;            // columns that share a scale
  std::int64_t groups = 0;           // of a row
  FloatType type = FloatType::kF32;  // of the elements, or of the scales
  std::int32_t bits = 0;             // of a code; 0 = plain floats
  std::int32_t per_tensor = 0;       // one scale for everything
  std::int32_t reserved = 0;         // no byte is left open: launches are told apart by their bytes
};

}  // namespace nibble::cuda
