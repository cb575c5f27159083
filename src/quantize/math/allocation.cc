#include "quantize/math/allocation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace nibble {
namespace {

std::int64_t least_size(const AllocationGroup& group) {
  return std::ranges::min_element(group, {}, &AllocationOption::size)->size;
}
std::int64_t largest_size(const AllocationGroup& group) {
  return std::ranges::max_element(group, {}, &AllocationOption::size)->size;
}

// What is left of the problem when every group has taken its least size: the sizes above it, in
// whole units.
struct Excess {
  std::int64_t least = 0;  // sum of the least sizes
  std::int64_t unit = 1;
  std::int64_t units = 0;  // of the capacity
  bool exact = true;       // all sizes are multiples of the unit

  Excess(std::span<const AllocationGroup> groups, std::int64_t capacity, std::int64_t most_units) {
    std::int64_t divisor = 0, most = 0;
    for (const AllocationGroup& group : groups) {
      const std::int64_t base = least_size(group);
      least += base;
      most += largest_size(group) - base;
      for (const AllocationOption& option : group) divisor = std::gcd(divisor, option.size - base);
    }
    const std::int64_t room = std::min(capacity - least, most);
    unit = std::max<std::int64_t>(divisor, 1);
    if (room / unit > most_units) {
      unit = (room + most_units - 1) / most_units;
      exact = false;
    }
    units = room >= 0 ? room / unit : -1;
  }
  std::int64_t of(const AllocationOption& option, std::int64_t base) const {
    return (option.size - base + unit - 1) / unit;
  }
};

// least[g][u]: the least cost of the first g groups with at most u units of excess.
class Table {
 public:
  Table(std::span<const AllocationGroup> groups, const Excess& excess)
      : groups_(groups), excess_(excess), width_(static_cast<std::size_t>(excess.units + 1)) {
    std::vector<double> before(width_, 0.0), after(width_);
    choice_.resize(groups.size() * width_);
    for (std::size_t g = 0; g < groups.size(); ++g) {
      add(g, before, after);
      std::swap(before, after);
    }
    least_ = std::move(before);
  }

  // Of all groups, by units; never rises.
  const std::vector<double>& least() const { return least_; }

  Allocation at(std::int64_t units) const {
    Allocation result;
    result.choice.resize(groups_.size());
    for (std::size_t g = groups_.size(); g-- > 0;) {
      const int option = choice_[g * width_ + static_cast<std::size_t>(units)];
      const AllocationOption& taken = groups_[g][static_cast<std::size_t>(option)];
      result.choice[g] = option;
      result.size += taken.size;
      result.cost += taken.cost;
      units -= excess_.of(taken, least_size(groups_[g]));
    }
    return result;
  }

 private:
  void add(std::size_t g, const std::vector<double>& before, std::vector<double>& after) {
    NIBBLE_CHECK(groups_[g].size() <= std::numeric_limits<std::uint8_t>::max());
    std::ranges::fill(after, std::numeric_limits<double>::infinity());
    std::uint8_t* choice = choice_.data() + g * width_;
    const std::int64_t base = least_size(groups_[g]);
    for (std::size_t o = 0; o < groups_[g].size(); ++o) {
      const auto taken = static_cast<std::size_t>(excess_.of(groups_[g][o], base));
      const double cost = groups_[g][o].cost;
      for (std::size_t u = taken; u < width_; ++u) {
        if (!(before[u - taken] + cost < after[u])) continue;
        after[u] = before[u - taken] + cost;
        choice[u] = static_cast<std::uint8_t>(o);
      }
    }
  }

  std::span<const AllocationGroup> groups_;
  const Excess& excess_;
  std::size_t width_;
  std::vector<std::uint8_t> choice_;  // [groups, units + 1]
  std::vector<double> least_;
};

// The Lagrangian dual: max over price >= 0 of sum_g min_o (value_o + price * weight_o) - price *
// limit, a lower bound of every choice that keeps the limit. Concave in the price, whose slope is
// the excess of the weight over the limit.
template <class Value, class Weight>
double dual_bound(std::span<const AllocationGroup> groups, const Value& value, const Weight& weight,
                  double limit) {
  const auto evaluate = [&](double price, double& slope) {
    double sum = -price * limit;
    slope = -limit;
    for (const AllocationGroup& group : groups) {
      const AllocationOption& best = *std::ranges::min_element(
          group, {},
          [&](const AllocationOption& option) { return value(option) + price * weight(option); });
      sum += value(best) + price * weight(best);
      slope += weight(best);
    }
    return sum;
  };
  double low = 0, high = 1e-30, slope = 0;
  double bound = evaluate(0, slope);
  if (slope <= 0) return bound;
  for (; high < 1e30; high *= 4) {
    bound = std::max(bound, evaluate(high, slope));
    if (slope <= 0) break;
    low = high;
  }
  for (int i = 0; i < 100; ++i) {
    const double middle = low > 0 ? std::sqrt(low * high) : high / 2;
    bound = std::max(bound, evaluate(middle, slope));
    (slope > 0 ? low : high) = middle;
  }
  return bound;
}

double size_of(const AllocationOption& option) { return static_cast<double>(option.size); }
double cost_of(const AllocationOption& option) { return option.cost; }

}  // namespace

std::optional<Allocation> allocate(std::span<const AllocationGroup> groups, std::int64_t capacity,
                                   std::int64_t units) {
  const Excess excess(groups, capacity, units);
  if (excess.units < 0) return std::nullopt;
  Allocation result = Table(groups, excess).at(excess.units);
  result.bound = excess.exact ? result.cost
                              : dual_bound(groups, cost_of, size_of, static_cast<double>(capacity));
  return result;
}

std::optional<Allocation> allocate_within_cost(std::span<const AllocationGroup> groups, double most,
                                               std::int64_t units) {
  const Excess excess(groups, std::numeric_limits<std::int64_t>::max(), units);
  const Table table(groups, excess);
  const auto& least = table.least();  // falls
  const auto found = std::ranges::find_if(least, [&](double cost) { return cost <= most; });
  if (found == least.end()) return std::nullopt;
  Allocation result = table.at(found - least.begin());
  result.bound =
      excess.exact ? static_cast<double>(result.size) : dual_bound(groups, size_of, cost_of, most);
  return result;
}

}  // namespace nibble
