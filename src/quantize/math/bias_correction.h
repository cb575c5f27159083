// Empirical bias correction (Nagel et al., arXiv 1906.04721, 4.2; AIMET): what rounding shifts the
// mean of a layer's output by is put into its bias.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"

namespace nibble {

// w E[x'] - q E[x] for w and q [rows, cols], E[x'] and E[x] [cols] the means of the input in the
// unquantized and the quantized model: by how much the mean of each output is too small, [rows].
std::vector<float> mean_output_error(const float* w, const float* q, std::int64_t rows,
                                     std::span<const double> wanted_mean,
                                     std::span<const double> mean, ThreadPool& pool);

}  // namespace nibble
