// Clipping: a group's range [lo, hi] may be narrowed so that most weights get a finer step while
// the few at the ends saturate.
#pragma once

#include <cstdint>
#include <span>

#include "quantize/math/grids.h"
#include "quantize/math/hessian.h"

namespace nibble {

// Factors tried: 1 - k * max_shrink / steps, k = 0 ... steps. `independent` refines the common
// factor of both ends by one more pass over each end alone (asymmetric formats).
struct ClipGrid {
  int steps = 20;
  double max_shrink = 0.3;
  bool independent = false;
  // Also factors above 1, in steps as wide as those below it: the values of a float do not lie
  // evenly, so that a wider range may meet the weights better.
  double max_stretch = 0;
  // Under a Hessian: so many factors of each group, the best ones if its columns were uncorrelated,
  // are compared by it. 0: all of them.
  int shortlist = 0;
};

// What an error d_j = w_j - w'_j within a group costs: sum_j weight_j d_j^2, an empty `weight`
// meaning 1; or, with a Hessian, sum_ij d_i M_ij d_j over the columns of the group, which is what
// the group alone does to the output, plus 2 sum_j pull_j d_j (drift_pull() in hessian.h).
struct ErrorMeasure {
  std::span<const float> weight;     // [cols] or empty
  const Hessian* hessian = nullptr;  // of cols channels, or null
  std::span<const float> pull = {};  // [rows, cols] or empty; with a Hessian only
};

// The same for rows [begin, end) of the matrix.
ErrorMeasure measure_rows(const ErrorMeasure& measure, std::int64_t begin, std::int64_t end);

// The cost of q instead of w for `count` weights from column `begin` on, the pull left out.
double group_error(const ErrorMeasure& measure, std::int64_t begin, const float* w, const float* q,
                   std::int64_t count);

// The grids of the tried range with the least cost in every group of w [rows, cols]. The full range
// is tried first and kept on a tie, so the cost is never above that of WeightGrids(format, w, ...).
WeightGrids clipped_grids(const FormatPtr& format, const float* w, std::int64_t rows,
                          std::int64_t cols, const ErrorMeasure& measure, const ClipGrid& grid);

// w [rows, cols] under those grids. The pull is that of all rows.
QuantTensor encode_clipped(const FormatPtr& format, const float* w, std::int64_t rows,
                           std::int64_t cols, const ErrorMeasure& measure, const ClipGrid& grid,
                           ThreadPool& pool);

}  // namespace nibble
