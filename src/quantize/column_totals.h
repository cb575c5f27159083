// What is known of the columns of an activation, gathered where a backend's ops find it.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/backend.h"
#include "quantize/math/channel_statistics.h"

namespace nibble {

// Not thread-safe. The backend must outlive it.
class ColumnTotals {
 public:
  ColumnTotals(Backend& backend, std::int64_t columns);

  // Adds rows x [rows, columns], in the backend's memory.
  void add(const float* x, std::int64_t rows);
  std::int64_t rows() const { return rows_; }

  // In the host's memory. Sums are not finite when some x was not.
  ChannelStatistics statistics() const;
  std::vector<double> sum_abs() const;

 private:
  std::vector<double> sums(std::int64_t first) const;

  Backend* backend_;
  std::int64_t columns_;
  std::int64_t rows_ = 0;
  Tensor max_abs_;  // F32 [columns]
  Tensor sums_;     // F64 [2, columns]: squares, magnitudes
};

}  // namespace nibble
