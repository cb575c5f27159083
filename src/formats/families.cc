#include "formats/families.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "formats/group_layout.h"

namespace nibble {

std::string element_name(const Element& element) {
  if (is_integer(element)) return fmt::format("int{}", element.bits);
  if (element.kind == ElementKind::kFitted) {
    return fmt::format("{}{}", element.fit == Fit::kLloydMax ? "lloyd" : "quantile", element.bits);
  }
  if (element.kind == ElementKind::kTrellis) {
    return fmt::format("trellis{}{}", element.bits, element.two_sided ? "_exl3" : "");
  }
  if (element.kind == ElementKind::kCodebook) return std::string(to_string(element.codebook));
  return fmt::format("fp{}_{}", element.bits, name_of(element.float_bits));
}

std::string granularity_suffix(const Scheme& scheme) {
  switch (scheme.granularity) {
    case Granularity::kTensor:
      return "_tensor";
    case Granularity::kChannel:
      return "_channel";
    case Granularity::kBlock:
      return fmt::format("_b{}x{}", scheme.block_rows, scheme.group);
    case Granularity::kGroup:
      break;
  }
  return fmt::format("_g{}", scheme.group);
}

std::string scale_suffix(const Scheme& scheme) {
  std::string text;
  if (scheme.scale_type == DType::kF16) text = "_sf16";
  if (scheme.scale_type == DType::kBF16) text = "_sbf16";
  if (scheme.scale_type == DType::kF8E8M0) text = "_se8m0";
  if (scheme.scale_type == DType::kF8E4M3) text = "_se4m3";
  if (scheme.scale_type == DType::kU8) text = "_sdq8";
  if (scheme.rule == ScaleRule::kCeil) text += "_ceil";
  if (scheme.rule == ScaleRule::kLeastError) text += "_best";
  if (scheme.rule == ScaleRule::kFourOverSix) text += "_4over6";
  if (scheme.rule == ScaleRule::kMean) text += "_mean";
  return text;
}

std::string why_no_groups(const Scheme& scheme, std::int64_t rows, std::int64_t cols) {
  if (rows < 1 || cols < 1) return "the matrix is empty";
  if (scheme.granularity == Granularity::kGroup && cols % scheme.group != 0) {
    return fmt::format("group {} does not divide {} columns", scheme.group, cols);
  }
  return "";
}

Shape group_shape(const Scheme& scheme, std::int64_t rows, std::int64_t cols) {
  if (scheme.granularity == Granularity::kTensor) return {1, 1};
  const GroupLayout layout = layout_of(scheme, rows, cols);
  return {(rows + layout.rows_per - 1) / layout.rows_per, layout.per_row};
}

std::int64_t group_length(const Scheme& scheme, std::int64_t cols) {
  const bool grouped =
      scheme.granularity == Granularity::kGroup || scheme.granularity == Granularity::kBlock;
  return grouped ? scheme.group : cols;
}

GroupLayout layout_of(const Scheme& scheme, std::int64_t rows, std::int64_t cols) {
  const std::int64_t length = group_length(scheme, cols);
  std::int64_t rows_per = 1;
  if (scheme.granularity == Granularity::kTensor) rows_per = rows;
  if (scheme.granularity == Granularity::kBlock) rows_per = scheme.block_rows;
  return {(cols + length - 1) / length, length, rows_per, cols};
}

std::int64_t words_per_row(int bits, std::int64_t cols) { return (cols * bits + 31) / 32; }

std::vector<std::int32_t> columns_by_weight(const float* w, std::int64_t rows, std::int64_t cols,
                                            std::span<const float> importance) {
  std::vector<double> weights(importance.begin(), importance.end());
  if (importance.empty()) {
    weights.resize(static_cast<std::size_t>(cols));
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      weights[static_cast<std::size_t>(i % cols)] += double{w[i]} * double{w[i]};
    }
  }
  NIBBLE_CHECK(static_cast<std::int64_t>(weights.size()) == cols);
  std::vector<std::int32_t> columns(weights.size());
  std::iota(columns.begin(), columns.end(), 0);
  std::ranges::stable_sort(columns, std::greater{}, [&](std::int32_t column) {
    return weights[static_cast<std::size_t>(column)];
  });
  return columns;
}

void require_fits(const Format& format, std::int64_t rows, std::int64_t cols) {
  const std::string reason = format.why_not(rows, cols);
  if (!reason.empty()) fail(ErrorKind::kUsage, "{}: {}", format.name(), reason);
}

void require_finite(const std::string& format, const float* w, std::int64_t rows,
                    std::int64_t cols) {
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    if (!std::isfinite(w[i])) {
      fail(ErrorKind::kCorrupt, "{}: row {} column {} holds {}", format, i / cols, i % cols, w[i]);
    }
  }
}

}  // namespace nibble
