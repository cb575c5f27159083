#include "quantize/math/bias_correction.h"

#include "base/error.h"

namespace nibble {

std::vector<float> mean_output_error(const float* w, const float* q, std::int64_t rows,
                                     std::span<const double> wanted_mean,
                                     std::span<const double> mean, ThreadPool& pool) {
  NIBBLE_CHECK(wanted_mean.size() == mean.size());
  const auto cols = static_cast<std::int64_t>(mean.size());
  std::vector<float> result(static_cast<std::size_t>(rows));
  pool.parallel_for(rows, 32, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      double sum = 0;
      for (std::int64_t c = 0; c < cols; ++c) {
        const auto at = static_cast<std::size_t>(c);
        sum += static_cast<double>(w[row * cols + c]) * wanted_mean[at] -
               static_cast<double>(q[row * cols + c]) * mean[at];
      }
      result[static_cast<std::size_t>(row)] = static_cast<float>(sum);
    }
  });
  return result;
}

}  // namespace nibble
