#include "study/block_error.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "study/quantization_error.h"

namespace nibble {
namespace {

// The grid as borders between its levels.
class Rounder {
 public:
  explicit Rounder(const Grid& grid) : levels_(grid.levels) {
    for (std::size_t i = 0; i + 1 < levels_.size(); ++i) {
      borders_.push_back((levels_[i] + levels_[i + 1]) / 2);
    }
    for (int cell = 1; cell < kCells; ++cell) {
      const auto at = std::ranges::lower_bound(borders_, 2.0 * (cell - 1) / kCells - 1);
      first_[static_cast<std::size_t>(cell)] = static_cast<std::size_t>(at - borders_.begin());
    }
  }

  // Sum of the squared errors of values rounded to levels * scale.
  double error(std::span<const float> values, double scale) const {
    const double inverse = 1 / scale;
    double sum = 0;
    for (const float v : values) {
      const double x = static_cast<double>(v) * inverse;
      std::size_t at = first_[cell_of(x)];
      while (at < borders_.size() && borders_[at] < x) ++at;
      const double d = x - levels_[at];
      sum += d * d;
    }
    return sum * scale * scale;
  }

 private:
  // Of [-1, 1] in equal parts: borders of levels are looked for from a part earlier on, as rounding
  // may put a value into the part after its own.
  static constexpr int kCells = 1024;
  static std::size_t cell_of(double x) {
    if (!(x > -1)) return 0;
    return static_cast<std::size_t>(std::min((x + 1) * (kCells / 2), kCells - 1.0));
  }

  std::vector<double> levels_, borders_;
  std::array<std::size_t, kCells> first_{};  // border that is not below the part before
};

// Sum of the squared errors of values under a step and a zero point.
double zero_point_error(std::span<const float> values, double step, double zero, double top) {
  double sum = 0;
  for (const float v : values) {
    const double x = static_cast<double>(v) / step + zero;
    const double d = x - std::clamp(std::nearbyint(x), 0.0, top);
    sum += d * d;
  }
  return sum * step * step;
}

// Mean over all values of `least_error(part)`, the sum of squared errors of each block.
template <class F>
double mean_over_blocks(std::span<const float> values, std::int64_t block, const F& least_error) {
  NIBBLE_CHECK(block > 0 && !values.empty());
  const auto length = static_cast<std::size_t>(block);
  double sum = 0;
  for (std::size_t begin = 0; begin < values.size(); begin += length) {
    sum += least_error(values.subspan(begin, std::min(length, values.size() - begin)));
  }
  return sum / static_cast<double>(values.size());
}

// The least of error(1) and error(1.5 - k / steps), k = 0 ... steps - 1.
template <class F>
double least_over_factors(int steps, const F& error) {
  double least = error(1.0);
  for (int k = 0; k < steps; ++k) {
    least = std::min(least, error(1.5 - static_cast<double>(k) / steps));
  }
  return least;
}

}  // namespace

double block_error(const Grid& grid, std::span<const float> values, std::int64_t block,
                   int clip_steps) {
  const Rounder rounder(grid);
  return mean_over_blocks(values, block, [&](std::span<const float> part) {
    float largest = 0;
    for (const float v : part) largest = std::max(largest, std::abs(v));
    if (largest == 0) return 0.0;
    return least_over_factors(clip_steps, [&](double factor) {
      return rounder.error(part, factor * static_cast<double>(largest));
    });
  });
}

double zero_point_block_error(int bits, std::span<const float> values, std::int64_t block,
                              int clip_steps) {
  const double top = (1 << bits) - 1;
  return mean_over_blocks(values, block, [&](std::span<const float> part) {
    const auto [least, greatest] = std::ranges::minmax(part);
    const double low = std::min(0.0, static_cast<double>(least));
    const double step = (std::max(0.0, static_cast<double>(greatest)) - low) / top;
    if (step == 0) return 0.0;
    const double zero = std::nearbyint(-low / step);
    return least_over_factors(clip_steps, [&](double factor) {
      return zero_point_error(part, factor * step, zero, top);
    });
  });
}

std::vector<BitsRow> study_blocks(const BitsSource& source, std::span<const float> values) {
  constexpr std::size_t kMostValues = std::size_t{1} << 20, kMostClipped = std::size_t{1} << 18;
  constexpr int kClipSteps = 25;
  const auto all = values.first(std::min(values.size(), kMostValues));
  const auto few = values.first(std::min(values.size(), kMostClipped));
  const DistributionPtr of_all = empirical_distribution(all), of_few = empirical_distribution(few);
  std::vector<BitsRow> rows;
  // error(values, block, clip_steps)
  const auto add = [&](const Grid& grid, double bits_a_scale, const auto& error) {
    const auto row = [&](std::int64_t block, bool clipped) {
      const double mean = error(clipped ? few : all, block, clipped ? kClipSteps : 0);
      rows.push_back({source, grid.name, fmt::format("block{}{}", block, clipped ? "+clip" : ""),
                      bits_of_accuracy(clipped ? *of_few : *of_all, mean), 0,
                      grid.bits + bits_a_scale / static_cast<double>(block)});
    };
    for (const int block : {16, 32, 64, 128, 256, 1024}) row(block, false);
    if (grid.bits != 4) return;
    for (const int block : {32, 128}) row(block, true);
  };
  for (const Grid& grid : {integer_grid(2), integer_grid(3), integer_grid(4), float_grid(2, 1),
                           float_grid(3, 0), codebook_grid(Codebook::kNf4),
                           codebook_grid(Codebook::kBnb4), integer_grid(8), float_grid(4, 3)}) {
    add(grid, 16, [&](std::span<const float> part, std::int64_t block, int clip_steps) {
      return block_error(grid, part, block, clip_steps);
    });
  }
  for (const int bits : {2, 3, 4, 8}) {
    add(integer_grid_around(bits, 0), 16 + bits,
        [&](std::span<const float> part, std::int64_t block, int clip_steps) {
          return zero_point_block_error(bits, part, block, clip_steps);
        });
  }
  return rows;
}

}  // namespace nibble
