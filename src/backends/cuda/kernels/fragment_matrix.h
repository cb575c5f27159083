// A packed weight (backends/cuda/fragment_weight.h) in device memory, as the kernels are told
// of it.
#pragma once

#include <cstdint>

namespace nibble::cuda {

struct FragmentMatrix {
  const void* codes = nullptr;          // [rows / 64, cols / 64, 512 * bits] bytes, on 16 bytes
  const void* scales = nullptr;         // f16 or bf16 [rows / 64, groups, 64], on 16 bytes
  const std::uint8_t* zeros = nullptr;  // [rows / 64, groups, 64], on 16 bytes; null: 2^(bits - 1)
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t groups = 1;  // cols / 32, / 64, / 128 or 1
  bool bf16_scales = false;
  int bits = 4;  // of a code: 4 or 8
};

// Whether one launch can take both.
inline bool alike(const FragmentMatrix& a, const FragmentMatrix& b) {
  return a.bits == b.bits && a.cols == b.cols && a.groups == b.groups &&
         a.bf16_scales == b.bf16_scales && (a.zeros == nullptr) == (b.zeros == nullptr);
}

// One weight of a launch and its result.
struct FragmentPart {
  FragmentMatrix w;
  const float* bias = nullptr;  // [w.rows] or null
  float* y = nullptr;           // [m, w.rows], rows y_stride floats apart
  std::int64_t y_stride = 0;
};

}  // namespace nibble::cuda
