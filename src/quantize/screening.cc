#include "quantize/screening.h"

#include <algorithm>

namespace nibble {
namespace {

constexpr std::int64_t kShare = 8;  // the first windows are one in so many

}  // namespace

Screening::Screening(const CalibrationWindows& windows)
    : rows(static_cast<std::int64_t>(windows.search.size())) {
  if (rows == 0) return;
  first_rows = std::max<std::int64_t>(1, rows / windows.context / kShare) * windows.context;
}

std::int64_t Screening::tokens(std::size_t candidates) const {
  const auto count = static_cast<std::int64_t>(candidates);
  if (!applies(candidates)) return count * rows;
  return count * first_rows + static_cast<std::int64_t>(kFinalists) * rows;
}

std::int64_t Screening::tokens_at_once(std::size_t candidates) const {
  const auto count = static_cast<std::int64_t>(candidates);
  if (!applies(candidates)) return count * rows;
  return std::max(count * first_rows, static_cast<std::int64_t>(kFinalists) * rows);
}

}  // namespace nibble
