// Formats of activations: what the rows that enter a linear layer are rounded to before they are
// multiplied. Rounding is by value: x becomes exactly scale * q, a float32, so that any format can
// be computed with anywhere; kernels may multiply the q instead.
//
//   int, symmetric    scale = a / m, q = x * (m / a), m = 2^(bits-1) - 1
//   int, asymmetric   scale = (hi - lo) / (2^bits - 1), zero = -lo / scale, q = x * (1 / scale)
//                     with q + zero in 0 ... 2^bits - 1
//   small float,      scale = a / (largest value), q = the value nearest to x / scale
//   codebook
//
// with a the largest magnitude, lo and hi the range widened to hold 0, over what shares a scale: a
// token (one row), a group of columns of a row (the last one may be shorter), or a tensor (all rows
// of the call: the only scope whose result depends on what else is in a call, beside outliers).
// Static scales (and zero points) are given once for a whole layer, from calibration, one for all
// or one for each column; q = x * (1 / scale) then. Ties go to even. Scales are float32. What is so
// small that m / a is no float32 becomes zero; what shares a dynamic scale with a NaN or an
// infinity becomes NaN. With `half_scales` q is found so, and its scale rounded to F16 after that.
//
// Outliers (LLM.int8(), arXiv 2208.07339; bitsandbytes' int8_vectorwise_quant): columns in which a
// value of the call reaches the threshold stay as they are, and values that reach it do not count
// for a. Or they are the same in every call: those that the weight keeps in 16 bits.
//
// What ggml's kernels of blocks round x to depends on the type of the blocks (ggml_input.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/affine.h"
#include "formats/code_table.h"
#include "formats/format.h"

namespace nibble {

// kChannel: a column of x, static only.
enum class ActivationScope { kToken, kTensor, kGroup, kChannel };

struct ActivationDescriptor {
  Element element = {.kind = ElementKind::kInt, .bits = 8};  // no kFloat
  bool symmetric = true;                                     // true for all but integers
  ActivationScope scope = ActivationScope::kToken;
  std::int64_t group = 0;        // kGroup: columns
  bool is_static = false;        // kTensor or kChannel: scales are given
  float outlier_threshold = 0;   // kToken and dynamic only; 0: no outliers
  bool weight_outliers = false;  // symmetric only: the columns that the weight keeps are outliers
  bool half_scales = false;      // symmetric integers by group only: scales are F16
  bool by_ggml = false;          // what ggml_input() gives for the weight; nothing else is set

  bool has_outliers() const { return outlier_threshold > 0 || weight_outliers; }

  bool operator==(const ActivationDescriptor&) const = default;
};

// How values that share a scale are rounded.
struct ActivationScale {
  float scale = 0;    // 0: to zero; NaN: to NaN
  float inverse = 0;  // q = value * inverse, of integers
  int zero = 0;       // of asymmetric integers
};

// What rounding needs to know of all rows of a call.
struct ActivationCall {
  ActivationScale tensor;              // kTensor
  std::vector<std::int32_t> outliers;  // columns, ascending
};

class ActivationFormat;
using ActivationFormatPtr = std::shared_ptr<const ActivationFormat>;

// Immutable and thread-safe. Rows are [rows, cols], `stride` floats apart.
class ActivationFormat {
 public:
  // kUnsupported for descriptors that make no sense (2 to 8 bits, ...).
  explicit ActivationFormat(const ActivationDescriptor& descriptor);

  const ActivationDescriptor& descriptor() const { return descriptor_; }
  // "int8_token", "fp8_e4m3_g128", "int8_asym_tensor_static", "int8_channel_static",
  // "int8_token_o6", "int8_g32_sf16", "ggml": round-trips through parse_activation_format().
  std::string name() const;

  // The same format with the scales (and zero points, of unsigned codes) of a layer: one, or one a
  // column. is_static only; kCorrupt unless scales are positive and finite and zero points codes.
  ActivationFormatPtr with_scales(std::vector<AffineParams> params) const;
  // The same format with the outliers of a weight, ascending. weight_outliers only.
  ActivationFormatPtr with_columns(std::vector<std::int32_t> columns) const;
  // True unless the format is static and its scales have not been given, or its columns have not,
  // or it is none before the weight is known.
  bool is_complete() const {
    return !descriptor_.by_ggml && (!descriptor_.is_static || !fixed_.empty()) &&
           (!descriptor_.weight_outliers || columns_);
  }
  // Of with_scales(); empty otherwise.
  std::span<const AffineParams> fixed() const { return fixed_; }

  // The largest magnitude of q, of symmetric elements.
  float largest() const;
  // Of all but integers; valid as long as the format.
  std::optional<TableView> table() const {
    return table_ ? std::optional(table_->view()) : std::nullopt;
  }

  // What covers [lo, hi], which holds 0.
  ActivationScale scale_over(float lo, float hi) const;

  // Looks at all rows of a call.
  ActivationCall observe(const float* x, std::int64_t stride, std::int64_t rows,
                         std::int64_t cols) const;
  // One row; y may be x.
  void round_row(const ActivationCall& call, const float* x, std::int64_t cols, float* y) const;
  // All rows of a call; y may be x.
  void round(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t cols, float* y,
             std::int64_t y_stride) const;

 private:
  ActivationScale scale_of(const float* x, std::int64_t count) const;
  void round_span(const ActivationScale& by, const float* x, std::int64_t count, float* y) const;

  ActivationDescriptor descriptor_;
  std::optional<CodeTable> table_;  // of all but integers
  std::vector<AffineParams> fixed_;
  std::optional<std::vector<std::int32_t>> columns_;
};

// `element[_sym|_asym][_token|_tensor|_channel|_g<size>][_static][_o<threshold>|_ow|_sf16]`
// (default: token, dynamic, symmetric, scales of F32), a colon being as good as an underscore, or
// `ggml`; f32, f16 and bf16 give null: not rounded. kUsage, with near names, when the text is none.
ActivationFormatPtr parse_activation_format(std::string_view text);

}  // namespace nibble
