// Element access to a key/value cache of type F32, F16 or BF16.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "base/half.h"
#include "tensor/dtype.h"

namespace nibble::reference {

inline float load_kv(const void* data, DType dtype, std::int64_t index) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(data)[index];
    case DType::kF16:
      return to_float(static_cast<const f16*>(data)[index]);
    case DType::kBF16:
      return to_float(static_cast<const bf16*>(data)[index]);
    default:
      fail(ErrorKind::kInternal, "a cache of {} cannot be read", to_string(dtype));
  }
}

inline void store_kv(void* data, DType dtype, std::int64_t index, float value) {
  switch (dtype) {
    case DType::kF32:
      static_cast<float*>(data)[index] = value;
      return;
    case DType::kF16:
      static_cast<f16*>(data)[index] = to_f16(value);
      return;
    case DType::kBF16:
      static_cast<bf16*>(data)[index] = to_bf16(value);
      return;
    default:
      fail(ErrorKind::kInternal, "a cache of {} cannot be written", to_string(dtype));
  }
}

}  // namespace nibble::reference
