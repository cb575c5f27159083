#include "formats/families.h"

#include <cmath>

#include "base/error.h"

namespace nibble {

std::string granularity_suffix(const Scheme& scheme) {
  switch (scheme.granularity) {
    case Granularity::kTensor:
      return "_tensor";
    case Granularity::kChannel:
      return "_channel";
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
  return {rows, cols / group_length(scheme, cols)};
}

std::int64_t group_length(const Scheme& scheme, std::int64_t cols) {
  return scheme.granularity == Granularity::kGroup ? scheme.group : cols;
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
