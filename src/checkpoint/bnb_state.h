// What bitsandbytes keeps about a matrix of 4-bit codes, and its bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "formats/codebook.h"
#include "tensor/tensor.h"

namespace nibble {

inline constexpr std::int64_t kBnbMapSize = 16;
inline constexpr std::int64_t kBnbNestedMapSize = 256;
inline constexpr std::int64_t kBnbNestedBlock = 256;
inline constexpr float kBnbInt8Top = 127.0f;  // what the largest magnitude of a row becomes

struct BnbState {
  Codebook map = Codebook::kNf4;  // or kBnb4
  std::int64_t rows = 0, cols = 0;
  std::int64_t block = 64;     // values that share a scale
  DType dtype = DType::kBF16;  // of the weights before
  bool nested = false;         // absmax is quantized again
  float nested_offset = 0;
};

// The JSON of quant_state; kCorrupt or kUnsupported, naming `what`.
BnbState parse_bnb_state(std::string_view json, const std::string& what);
// The same text padded with spaces, so that its length does not depend on its numbers.
inline constexpr std::size_t kBnbStateBytes = 320;
std::string format_bnb_state(const BnbState& state);

// The same bytes with their nibbles exchanged, as another type and shape.
Tensor swap_nibbles(const Tensor& bytes, DType type, Shape shape);

}  // namespace nibble
