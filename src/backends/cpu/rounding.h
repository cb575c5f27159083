// Sizes in whole steps.
#pragma once

#include <cstdint>

namespace nibble::cpu {

constexpr std::int64_t ceil_div(std::int64_t n, std::int64_t d) { return (n + d - 1) / d; }
constexpr std::int64_t round_up(std::int64_t n, std::int64_t step) {
  return ceil_div(n, step) * step;
}

}  // namespace nibble::cpu
