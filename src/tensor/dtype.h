// Storage types of tensors, named as safetensors names them.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace nibble {

enum class DType {
  kBool,
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kU64,
  kI64,
  kF16,
  kBF16,
  kF32,
  kF64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
};

// Bytes of one element.
std::size_t dtype_size(DType dtype);

// "F32", "BF16", "I32", ... (the spelling of safetensors headers).
std::string_view to_string(DType dtype);
std::optional<DType> parse_dtype(std::string_view name);

// True for F16, BF16 and F32: the types that weights and activations may have.
bool is_float_weight(DType dtype);

}  // namespace nibble
