#include "study/grid.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble {
namespace {

// Both signs of the magnitudes, 0 once, scaled to a largest level of 1.
Grid mirrored(std::string name, int bits, std::vector<double> magnitudes) {
  const double largest = *std::max_element(magnitudes.begin(), magnitudes.end());
  Grid grid{std::move(name), bits, {}};
  for (const double m : magnitudes) {
    grid.levels.push_back(m / largest);
    if (m != 0) grid.levels.push_back(-m / largest);
  }
  std::sort(grid.levels.begin(), grid.levels.end());
  return grid;
}

// The x with P(X < x) = p of a standard normal, by bisection: used for 15 values only.
double normal_quantile(double p) {
  double lo = -10, hi = 10;
  for (int i = 0; i < 100; ++i) {
    const double middle = (lo + hi) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? lo : hi) = middle;
  }
  return (lo + hi) / 2;
}

const char* suffix(FloatKind kind) {
  switch (kind) {
    case FloatKind::kAllFinite:
      return "";
    case FloatKind::kFn:
      return "fn";
    case FloatKind::kFnuz:
      return "fnuz";
    case FloatKind::kIeee:
      return "ieee";
  }
  return "";
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

Grid float_grid(int exponent, int mantissa, FloatKind kind) {
  NIBBLE_CHECK(exponent >= 1 && mantissa >= 0 && exponent + mantissa <= 7);
  const int fields = 1 << exponent, steps = 1 << mantissa;
  const int used_fields = kind == FloatKind::kIeee ? fields - 1 : fields;
  std::vector<double> magnitudes;
  for (int e = 0; e < used_fields; ++e) {
    for (int m = 0; m < steps; ++m) {
      const bool nan = kind == FloatKind::kFn && e == fields - 1 && m == steps - 1;
      if (nan) continue;
      magnitudes.push_back(e == 0 ? std::ldexp(m, 1) : std::ldexp(steps + m, e));
    }
  }
  return mirrored(fmt::format("e{}m{}{}", exponent, mantissa, suffix(kind)),
                  1 + exponent + mantissa, magnitudes);
}

Grid nf4_grid() {
  const double offset = ((1 - 1.0 / 30) + (1 - 1.0 / 32)) / 2;
  Grid grid{"nf4", 4, {0}};
  for (int i = 0; i < 8; ++i) {
    grid.levels.push_back(normal_quantile(offset + (0.5 - offset) * i / 8));
  }
  for (int i = 0; i < 7; ++i) {
    grid.levels.push_back(-normal_quantile(offset + (0.5 - offset) * i / 7));
  }
  std::sort(grid.levels.begin(), grid.levels.end());
  const double largest = grid.levels.back();
  for (double& level : grid.levels) level /= largest;
  return grid;
}

Grid bnb_fp4_grid() { return mirrored("bnb_fp4", 4, {0, 0.0625, 2, 3, 4, 6, 8, 12}); }

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
      return {integer_grid(4),  integer_grid(4, true), float_grid(1, 2),
              float_grid(2, 1), float_grid(3, 0),      nf4_grid(),
              bnb_fp4_grid()};
    default:
      fail(ErrorKind::kUsage, "study: elements of 8, 6 or 4 bits are compared, not {}", bits);
  }
}

}  // namespace nibble
