// Grids of kernels that walk the elements of [rows, cols] by strides of the grid.
#pragma once

#include <vector_types.h>

#include <algorithm>
#include <cstdint>

namespace nibble::cuda {

inline constexpr int kRowThreads = 256;

// Blocks of kRowThreads: x covers the columns, y the rows.
inline dim3 row_grid(std::int64_t rows, std::int64_t cols) {
  constexpr std::int64_t kMostY = 65535;
  const std::int64_t x = std::min<std::int64_t>((cols + kRowThreads - 1) / kRowThreads, 1024);
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(std::min(rows, kMostY)));
}

}  // namespace nibble::cuda
