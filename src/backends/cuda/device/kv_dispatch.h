// From a KvType known at run time to one known to the compiler.
#pragma once

#include <type_traits>

#include "formats/kv_type.h"

namespace nibble::cuda {

// Calls f(std::integral_constant<KvType, type>) and returns what it returns.
template <class F>
auto with_kv_type(KvType type, F&& f) {
  switch (type) {
    case KvType::kF16:
      return f(std::integral_constant<KvType, KvType::kF16>());
    case KvType::kBF16:
      return f(std::integral_constant<KvType, KvType::kBF16>());
    case KvType::kInt8:
      return f(std::integral_constant<KvType, KvType::kInt8>());
    case KvType::kInt4:
      return f(std::integral_constant<KvType, KvType::kInt4>());
    case KvType::kFp8:
      return f(std::integral_constant<KvType, KvType::kFp8>());
    case KvType::kF32:
      break;
  }
  return f(std::integral_constant<KvType, KvType::kF32>());
}

}  // namespace nibble::cuda
