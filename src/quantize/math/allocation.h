// One option for every group at least cost within a size, or at least size within a cost: the
// multiple-choice knapsack problem.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace nibble {

// Sizes and costs are not negative.
struct AllocationOption {
  std::int64_t size = 0;
  double cost = 0;
};
using AllocationGroup = std::vector<AllocationOption>;  // not empty

struct Allocation {
  std::vector<int> choice;  // of each group, an index into its options
  std::int64_t size = 0;
  double cost = 0;
  // No choice that keeps the limit has a lower cost (size, for allocate_within_cost()) than this.
  // Equal to `cost` (`size`) when sizes are multiples of a unit of which the capacity holds at most
  // `units`: then the choice is the best one.
  double bound = 0;
};

// Sizes are counted in units of their greatest common divisor, or of capacity / kAllocationUnits,
// rounded up, where that is larger. Dynamic programming over groups and units.
inline constexpr std::int64_t kAllocationUnits = std::int64_t{1} << 15;

// The choice of least cost with a total size of at most `capacity`; nothing when there is none.
std::optional<Allocation> allocate(std::span<const AllocationGroup> groups, std::int64_t capacity,
                                   std::int64_t units = kAllocationUnits);

// The choice of least size with a total cost of at most `most`; nothing when there is none.
std::optional<Allocation> allocate_within_cost(std::span<const AllocationGroup> groups, double most,
                                               std::int64_t units = kAllocationUnits);

}  // namespace nibble
