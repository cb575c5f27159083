// Rows of activations in the form in which a product reads them, which the kernel that computes
// them can write straight away.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cuda/kernels/fp8_rows.h"

namespace nibble::cuda {

enum class RowForm : std::int32_t {
  kFloat32,    // as they are
  kBf16,       // [rows, cols], contiguous, to nearest even (kernels/round_rows.h)
  kF16,        // likewise
  kFp8,        // codes, scales and sums of kernels/fp8_rows.h; cols % 128 == 0
  kInt8Codes,  // codes and scales of kernels/token_codes.h; cols % 4 == 0
  kFp8Codes,   // likewise
};
constexpr bool has_scales(RowForm form) {
  return form == RowForm::kFp8 || form == RowForm::kInt8Codes || form == RowForm::kFp8Codes;
}

// Where they lie, on the device.
struct ProductRows {
  void* values = nullptr;   // codes for kFp8; on 16 bytes
  void* sums = nullptr;     // of kFp8
  float* scales = nullptr;  // [rows], if has_scales()
  float most = 0;           // likewise: the largest magnitude of a code's value
  RowForm form = RowForm::kFloat32;
};

constexpr std::int64_t on_next_16_bytes(std::int64_t bytes) { return (bytes + 15) / 16 * 16; }

// Bytes of what a form has.
constexpr std::int64_t value_bytes(RowForm form, std::int64_t rows, std::int64_t cols) {
  const std::int64_t of_one = form == RowForm::kFloat32 ? 4 : has_scales(form) ? 1 : 2;
  return on_next_16_bytes(of_one * rows * cols);
}
constexpr std::int64_t sum_bytes(RowForm form, std::int64_t rows, std::int64_t cols) {
  return form == RowForm::kFp8 ? 2 * rows * fp8_sum_columns(cols) : 0;
}
constexpr std::size_t product_bytes(RowForm form, std::int64_t rows, std::int64_t cols) {
  const std::int64_t scale_bytes = has_scales(form) ? 4 * rows : 0;
  return static_cast<std::size_t>(value_bytes(form, rows, cols) + sum_bytes(form, rows, cols) +
                                  scale_bytes);
}

// Parts of rows of a form at `begin`, on 16 bytes, where product_bytes() of them fit.
inline ProductRows product_rows_at(void* begin, RowForm form, std::int64_t rows, std::int64_t cols,
                                   float most) {
  ProductRows at;
  at.values = begin;
  at.form = form;
  if (!has_scales(form)) return at;
  auto* const sums = static_cast<std::byte*>(begin) + value_bytes(form, rows, cols);
  if (form == RowForm::kFp8) at.sums = sums;
  at.scales = reinterpret_cast<float*>(sums + sum_bytes(form, rows, cols));
  at.most = most;
  return at;
}

}  // namespace nibble::cuda
