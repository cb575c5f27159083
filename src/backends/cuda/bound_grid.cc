#include "backends/cuda/bound_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nibble::cuda {

std::optional<BoundGrid> grid_of(const TableView& table, float top) {
  if (table.negative_zero != table.codes[table.zero_rank]) return std::nullopt;
  BoundGrid grid{};
  grid.to_cells = 0.5f / top;
  std::ranges::fill(grid.bounds, std::numeric_limits<float>::infinity());
  int ranks_below[BoundGrid::kCells + 1] = {};  // of a cell: values under its bound
  for (int rank = 0; rank + 1 < table.ranks; ++rank) {
    const float place = BoundGrid::place(table.bounds[rank], grid.to_cells);
    const int cell = static_cast<int>(place - 0x1p23f);
    if (std::isfinite(grid.bounds[cell])) return std::nullopt;
    grid.bounds[cell] = table.bounds[rank];
    ++ranks_below[cell + 1];
  }
  int below = 0;
  for (int cell = 0; cell < BoundGrid::kCells; ++cell) {
    below += ranks_below[cell];
    const int above = below + ranks_below[cell + 1];
    grid.codes[cell] = table.codes[below] | std::uint32_t{table.codes[above]} << 16;
  }
  return grid;
}

}  // namespace nibble::cuda
