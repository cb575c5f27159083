#include "formats/families.h"

#include <cmath>

#include "base/error.h"
#include "formats/group_layout.h"

namespace nibble {

std::string element_name(const Element& element) {
  if (element.kind == ElementKind::kInt) return fmt::format("int{}", element.bits);
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

void require_finite(const std::string& format, const float* w, std::int64_t rows,
                    std::int64_t cols) {
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    if (!std::isfinite(w[i])) {
      fail(ErrorKind::kCorrupt, "{}: row {} column {} holds {}", format, i / cols, i % cols, w[i]);
    }
  }
}

}  // namespace nibble
