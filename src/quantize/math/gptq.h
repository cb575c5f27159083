// GPTQ (arXiv 2210.17323): columns are rounded one after the other, and the error of each is made
// up for by the columns that are still to come, as far as the inputs are correlated.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "quantize/math/grids.h"
#include "quantize/math/hessian.h"

namespace nibble {

enum class ColumnOrder {
  kStored,      // as they stand
  kActivation,  // by falling E[x_j^2]: what matters most is rounded while all others can make up
  kGroups,      // groups by their largest E[x_j^2], and within each group by E[x_j^2]
};

// The columns in the order in which they are rounded.
std::vector<std::int64_t> column_order(ColumnOrder order, const Hessian& hessian,
                                       std::int64_t group_length);

// The upper triangle U with U^T U = (M + damping I)^-1, M the moments in a given order of columns.
struct InverseFactor {
  // F32 [channels, channels], zeros below the diagonal, in the memory of the backend that made it.
  Tensor upper;
  double damping = 0;  // as a share of the mean of the diagonal
};

// The same factor in the host's memory; `backend` made it.
InverseFactor on_host(const InverseFactor& factor, Backend& backend);

// Begins with the damping given and multiplies it by ten until the matrix is positive definite;
// nothing when even a damping of 1 is not enough. Channels that were never used count as
// uncorrelated ones of the mean size.
std::optional<InverseFactor> inverse_factor(const Hessian& hessian,
                                            std::span<const std::int64_t> order, double damping,
                                            Backend& backend);

// Chooses grids of one group, w [rows, length], that starts at column `begin` of the matrix.
using GroupGrids = std::function<WeightGrids(const float* w, std::int64_t rows, std::int64_t begin,
                                             std::int64_t length)>;

struct GptqSteps {
  const InverseFactor& factor;
  std::span<const std::int64_t> order;
  std::int64_t block = 128;  // columns after which the rest of the matrix is told of their errors
  // Chooses the grids of a group when its first column comes up, from the weights as they stand
  // then (ColumnOrder::kStored only). Called on several threads. Empty: the grids given stay.
  GroupGrids refit;
};

// Rounds the rows of w in place: those of grids[0] come first, and so on. Rows do not depend on
// each other. Columns are rounded by the threads of `backend`, which made the factor, a block at a
// time; the rest of the matrix lies in its memory, where its ops tell it of their errors. Results
// do not depend on the number of threads.
void gptq_rows(const GptqSteps& steps, std::span<WeightGrids> grids, Backend& backend, float* w);

// Shares of what follow_drift() makes up for.
struct DriftStrength {
  double drift = 1;
  double residual = 0;
};

// The weights for which the quantized model's inputs x give what the source's inputs x' give to w,
// as nearly as can be: w + strength.drift * w D (M + damping I)^-1 with D the drift. This is the
// minimum over all real weights of the objective of GPTAQ (arXiv 2504.02692); rounding then
// continues from there. In place; order as `factor` has it.
//
// With strength.residual, also for what is missing from what the result is added to, as far as x
// tells: w + strength.residual * R (M + damping I)^-1 more, R being Hessian::residual, if it is
// there. `backend` made the factor, and multiplies.
void follow_drift(const Hessian& hessian, const InverseFactor& factor,
                  std::span<const std::int64_t> order, const DriftStrength& strength,
                  std::int64_t rows, Backend& backend, float* w);

}  // namespace nibble
