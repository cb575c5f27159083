// Planes of F16, BF16 or F32 as float32 and back, by kernels. Internal to formats/.
#pragma once

#include <algorithm>

#include "formats/span_kernels.h"
#include "tensor/tensor.h"

namespace nibble {

// Elements [first, first + count), counted over the whole plane.
inline void read_floats(const Tensor& plane, std::int64_t first, std::int64_t count, float* out,
                        const SpanKernels& spans) {
  if (plane.dtype() == DType::kF32) return to_float(plane, first, count, out);
  const auto* halves = reinterpret_cast<const std::uint16_t*>(plane.bytes().data()) + first;
  const bool f16 = plane.dtype() == DType::kF16;
  (f16 ? spans.from_f16 : spans.from_bf16)(halves, count, out);
}

// Rounded to nearest even.
inline void write_floats(const float* values, std::int64_t first, std::int64_t count, Tensor& plane,
                         const SpanKernels& spans) {
  if (plane.dtype() == DType::kF32) {
    std::copy_n(values, count, plane.mutable_data<float>() + first);
    return;
  }
  auto* const halves = plane.mutable_data<std::uint16_t>() + first;
  const bool f16 = plane.dtype() == DType::kF16;
  (f16 ? spans.to_f16 : spans.to_bf16)(values, count, halves);
}

}  // namespace nibble
