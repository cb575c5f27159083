#include "study/grid.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble {
namespace {

// The distinct finite values of a table, over the largest.
Grid table_grid(std::string name, const CodeTable& table) {
  Grid grid{std::move(name), table.bits(), {}};
  for (const float v : table.values()) {
    const double level = static_cast<double>(v) / static_cast<double>(table.max());
    if (std::isfinite(level)) grid.levels.push_back(level);
  }
  std::sort(grid.levels.begin(), grid.levels.end());
  grid.levels.erase(std::unique(grid.levels.begin(), grid.levels.end()), grid.levels.end());
  return grid;
}

}  // namespace

Grid integer_grid(int bits, bool full) {
  NIBBLE_CHECK(bits >= 2 && bits <= 8);
  const int top = (1 << (bits - 1)) - 1;
  Grid grid{fmt::format("int{}{}", bits, full ? "_full" : ""), bits, {}};
  for (int q = full ? -top - 1 : -top; q <= top; ++q) {
    grid.levels.push_back(static_cast<double>(q) / top);
  }
  return grid;
}

Grid integer_grid_around(int bits, int zero) {
  NIBBLE_CHECK(bits >= 2 && bits <= 8);
  const int top = (1 << bits) - 1;
  NIBBLE_CHECK(zero >= 0 && zero <= top);
  Grid grid{fmt::format("int{}_asym", bits), bits, {}};
  for (int k = 0; k <= top; ++k) {
    grid.levels.push_back(static_cast<double>(k - zero) / std::max(zero, top - zero));
  }
  return grid;
}

Grid float_grid(int exponent, int mantissa, FloatKind kind) {
  const FloatBits type{exponent, mantissa, default_bias(exponent, kind), kind, true};
  NIBBLE_CHECK(why_not(type).empty());
  return table_grid(fmt::format("e{}m{}{}", exponent, mantissa,
                                kind == FloatKind::kAllFinite ? "" : to_string(kind)),
                    table_of(type));
}

Grid codebook_grid(Codebook codebook) {
  return table_grid(std::string(to_string(codebook)), table_of(codebook));
}

std::vector<Grid> grids_of_width(int bits) {
  switch (bits) {
    case 8:
      return {integer_grid(8),  integer_grid(8, true),
              float_grid(2, 5), float_grid(3, 4),
              float_grid(4, 3), float_grid(4, 3, FloatKind::kFn),
              float_grid(5, 2), float_grid(5, 2, FloatKind::kIeee)};
    case 6:
      return {integer_grid(6), integer_grid(6, true), float_grid(2, 3), float_grid(3, 2),
              float_grid(4, 1)};
    case 4:
      return {integer_grid(4),
              integer_grid(4, true),
              float_grid(1, 2),
              float_grid(2, 1),
              float_grid(3, 0),
              codebook_grid(Codebook::kNf4),
              codebook_grid(Codebook::kBnb4)};
    default:
      fail(ErrorKind::kUsage, "study: elements of 8, 6 or 4 bits are compared, not {}", bits);
  }
}

}  // namespace nibble
