#include "formats/fit_levels.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numeric>

namespace nibble {
namespace {

// Bits that are ordered as the floats are.
std::uint32_t sort_key(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

// By value, kDigit bits of the key after the other: several times as fast as comparisons. Keys move
// with their places; what they stand for moves once.
template <int kDigit>
void sort_by_digits(std::vector<WeightedValue>& values) {
  constexpr int kPasses = (32 + kDigit - 1) / kDigit;
  const auto digit = [](std::uint64_t key, int pass) {
    return (key >> (32 + pass * kDigit)) & ((1u << kDigit) - 1);
  };
  std::vector<std::uint64_t> keys(values.size()), other(values.size());
  std::array<std::array<std::uint32_t, 1u << kDigit>, kPasses> places{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    keys[i] = std::uint64_t{sort_key(values[i].value)} << 32 | i;
    for (int pass = 0; pass < kPasses; ++pass) {
      ++places[static_cast<std::size_t>(pass)][digit(keys[i], pass)];
    }
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    auto& next = places[static_cast<std::size_t>(pass)];
    std::exclusive_scan(next.begin(), next.end(), next.begin(), 0u);
    for (const std::uint64_t key : keys) other[next[digit(key, pass)]++] = key;
    keys.swap(other);
  }
  std::vector<WeightedValue> sorted(values.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    sorted[i] = values[static_cast<std::uint32_t>(keys[i])];
  }
  values.swap(sorted);
}

// Going through the counts of long digits takes longer than another pass over few values.
void sort_values(std::vector<WeightedValue>& values) {
  constexpr std::size_t kFew = 2048;
  values.size() < kFew ? sort_by_digits<8>(values) : sort_by_digits<11>(values);
}

// Distinct values in rising order, with the sums that give the mean of any run of them.
class SortedValues {
 public:
  explicit SortedValues(std::vector<WeightedValue> values) {
    if (!std::ranges::is_sorted(values, {}, &WeightedValue::value)) sort_values(values);
    values_.resize(values.size());
    weights_.resize(values.size() + 1);
    moments_.resize(values.size() + 1);
    std::size_t count = 0;
    for (const WeightedValue& v : values) {
      if (count == 0 || v.value != values_[count - 1]) {
        values_[count++] = v.value;
        weights_[count] = weights_[count - 1];
        moments_[count] = moments_[count - 1];
      }
      weights_[count] += v.weight;
      moments_[count] += v.weight * double{v.value};
    }
    values_.resize(count);
  }

  const std::vector<float>& values() const { return values_; }
  std::size_t size() const { return values_.size(); }
  double weight(std::size_t begin, std::size_t end) const { return run(weights_, begin, end); }
  double mean(std::size_t begin, std::size_t end) const {
    return run(moments_, begin, end) / weight(begin, end);
  }
  // The first value above `bound`, looked for from `near` on.
  std::size_t above(double bound, std::size_t near) const {
    while (near > 0 && double{values_[near - 1]} > bound) --near;
    while (near < values_.size() && double{values_[near]} <= bound) ++near;
    return near;
  }

 private:
  static double run(const std::vector<double>& sums, std::size_t begin, std::size_t end) {
    return begin < end ? sums[end] - sums[begin] : 0;
  }

  std::vector<float> values_;
  std::vector<double> weights_;  // sums before each value, and over all
  std::vector<double> moments_;
};

// Where `steps`, a sum that rises over the values, has the share (i + 1/2) / count of all of it.
std::vector<double> at_equal_steps(const SortedValues& sorted, const std::vector<double>& steps,
                                   std::size_t count) {
  std::vector<double> levels;
  std::size_t at = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double wanted =
        steps.back() * (static_cast<double>(i) + 0.5) / static_cast<double>(count);
    while (at + 1 < steps.size() && steps[at] < wanted) ++at;
    levels.push_back(double{sorted.values()[at]});
  }
  return levels;
}

// Of positive numbers, to a few thousandths: a third of the exponent, then a step of Newton's.
double rough_cube_root(double x) {
  constexpr std::uint64_t kTwoThirds = 0x2a9f84fe36d22425u;  // of the bits of 1
  const double root = std::bit_cast<double>(std::bit_cast<std::uint64_t>(x) / 3 + kTwoThirds);
  return (2 * root + x / (root * root)) / 3;
}

// The density around a gap between neighbours is the weight there over its width.
std::vector<double> companded_levels(const SortedValues& sorted, std::size_t count) {
  std::vector<double> steps(sorted.size());
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    const double gap = double{sorted.values()[i]} - double{sorted.values()[i - 1]};
    const double weight = sorted.weight(i - 1, i + 1) / 2;
    steps[i] = steps[i - 1] + rough_cube_root(weight * gap * gap);
  }
  return at_equal_steps(sorted, steps, count);
}

std::vector<float> as_levels(const std::vector<double>& levels) {
  std::vector<float> result(levels.begin(), levels.end());
  std::ranges::sort(result);
  return result;
}

// The values that are nearest to a level.
struct Cell {
  std::size_t begin = 0, end = 0;
};

// Whether all of them serve, the last one for what is left over.
bool are_few(const SortedValues& sorted, std::size_t count, std::vector<float>& levels) {
  if (sorted.size() > count) return false;
  levels = sorted.values();
  levels.resize(count, levels.empty() ? 0 : levels.back());
  return true;
}

}  // namespace

std::vector<float> lloyd_max_levels(std::vector<WeightedValue> values, std::size_t count) {
  // Values without weight still need a level that is near.
  double total = 0;
  for (const WeightedValue& v : values) total += v.weight;
  const double least = total > 0 ? 1e-9 * total / static_cast<double>(values.size()) : 1;
  for (WeightedValue& v : values) v.weight = std::max(v.weight, least);
  const SortedValues sorted(std::move(values));
  std::vector<float> few;
  if (are_few(sorted, count, few)) return few;
  std::vector<double> levels = companded_levels(sorted, count);
  constexpr int kMostSweeps = 300;
  constexpr double kStill = 1e-7;  // of the range: less than what an f16 level resolves
  const double range = double{sorted.values().back()} - double{sorted.values().front()};
  std::vector<Cell> cells(count);  // they move less and less
  for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
    double moved = 0;
    std::size_t begin = 0;
    for (std::size_t i = 0; i < count; ++i) {
      Cell& cell = cells[i];
      const std::size_t end =
          i + 1 < count ? sorted.above((levels[i] + levels[i + 1]) / 2, std::max(begin, cell.end))
                        : sorted.size();
      // The mean of what was there before is the level already.
      if (end > begin && (begin != cell.begin || end != cell.end)) {
        const double mean = sorted.mean(begin, end);
        moved = std::max(moved, std::abs(mean - levels[i]));
        levels[i] = mean;
      }
      cell = {begin, end};
      begin = std::max(begin, end);
    }
    if (moved <= kStill * range) break;
  }
  return as_levels(levels);
}

std::vector<float> quantile_levels(std::vector<WeightedValue> values, std::size_t count) {
  const SortedValues sorted(std::move(values));
  std::vector<float> few;
  if (are_few(sorted, count, few)) return few;
  std::vector<double> steps;
  for (std::size_t i = 0; i < sorted.size(); ++i) steps.push_back(sorted.weight(0, i + 1));
  return as_levels(at_equal_steps(sorted, steps, count));
}

}  // namespace nibble
