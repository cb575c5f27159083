#include "study/block_error.h"

#include <algorithm>
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
  }

  // Sum of the squared errors of values rounded to levels * scale.
  double error(std::span<const float> values, double scale) const {
    const double inverse = 1 / scale;
    double sum = 0;
    for (const float v : values) {
      const double x = static_cast<double>(v) * inverse;
      const auto at = std::lower_bound(borders_.begin(), borders_.end(), x);
      const double d = x - levels_[static_cast<std::size_t>(at - borders_.begin())];
      sum += d * d;
    }
    return sum * scale * scale;
  }

 private:
  std::vector<double> levels_, borders_;
};

}  // namespace

double block_error(const Grid& grid, std::span<const float> values, std::int64_t block,
                   int clip_steps) {
  NIBBLE_CHECK(block > 0 && !values.empty());
  const Rounder rounder(grid);
  double sum = 0;
  for (std::size_t begin = 0; begin < values.size(); begin += static_cast<std::size_t>(block)) {
    const auto part =
        values.subspan(begin, std::min(static_cast<std::size_t>(block), values.size() - begin));
    float largest = 0;
    for (const float v : part) largest = std::max(largest, std::abs(v));
    if (largest == 0) continue;
    double least = rounder.error(part, static_cast<double>(largest));
    for (int k = 0; k < clip_steps; ++k) {
      const double factor = 1.5 - static_cast<double>(k) / clip_steps;
      least = std::min(least, rounder.error(part, factor * static_cast<double>(largest)));
    }
    sum += least;
  }
  return sum / static_cast<double>(values.size());
}

std::vector<BitsRow> study_blocks(const BitsSource& source, std::span<const float> values) {
  constexpr std::size_t kMostValues = std::size_t{1} << 20, kMostClipped = std::size_t{1} << 18;
  constexpr int kClipSteps = 25;
  const auto all = values.first(std::min(values.size(), kMostValues));
  const auto few = values.first(std::min(values.size(), kMostClipped));
  const DistributionPtr of_all = empirical_distribution(all), of_few = empirical_distribution(few);
  std::vector<BitsRow> rows;
  const auto add = [&](const Grid& grid, std::int64_t block, int clip_steps) {
    const bool clipped = clip_steps > 0;
    const double error = block_error(grid, clipped ? few : all, block, clip_steps);
    rows.push_back({source, grid.name, fmt::format("block{}{}", block, clipped ? "+clip" : ""),
                    bits_of_accuracy(clipped ? *of_few : *of_all, error), 0,
                    grid.bits + 16.0 / static_cast<double>(block)});
  };
  for (const Grid& grid : {integer_grid(2), integer_grid(3), integer_grid(4), float_grid(2, 1),
                           float_grid(3, 0), codebook_grid(Codebook::kNf4),
                           codebook_grid(Codebook::kBnb4), integer_grid(8), float_grid(4, 3)}) {
    for (const int block : {16, 32, 64, 128, 256, 1024}) add(grid, block, 0);
    if (grid.bits != 4) continue;
    for (const int block : {32, 128}) add(grid, block, kClipSteps);
  }
  return rows;
}

}  // namespace nibble
