// Walking the groups of a solver's problem.
#pragma once

#include "quantize/algorithm.h"

namespace nibble {

// Calls body(index, w, count, second_moment) for every group in the order of affine_encode(). The
// second moments are those of the group's columns; empty when unknown. With one scale for the whole
// matrix there is no one column a value belongs to, and they are left empty.
template <class Body>
void for_each_group(const SolverProblem& problem, const Body& body) {
  const Scheme& scheme = problem.descriptor.scheme;
  if (scheme.granularity == Granularity::kTensor) {
    body(std::int64_t{0}, problem.w, problem.rows * problem.cols, std::span<const float>());
    return;
  }
  const std::int64_t groups = groups_per_row(scheme, problem.cols);
  const std::int64_t length = problem.cols / groups;
  for (std::int64_t row = 0; row < problem.rows; ++row) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto columns = problem.second_moment.empty()
                               ? problem.second_moment
                               : problem.second_moment.subspan(static_cast<std::size_t>(g * length),
                                                               static_cast<std::size_t>(length));
      body(row * groups + g, problem.w + row * problem.cols + g * length, length, columns);
    }
  }
}

}  // namespace nibble
