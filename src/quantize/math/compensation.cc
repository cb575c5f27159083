#include "quantize/math/compensation.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "formats/low_rank.h"
#include "ops/axpy.h"

namespace nibble {
namespace {

// Square roots of second moments, none of them zero.
std::vector<float> channel_weights(std::span<const float> second_moment, std::int64_t cols) {
  std::vector<float> weights(static_cast<std::size_t>(cols), 1.0f);
  if (second_moment.empty()) return weights;
  const float largest = *std::ranges::max_element(second_moment);
  if (!(largest > 0)) return weights;
  for (std::size_t j = 0; j < weights.size(); ++j) {
    weights[j] = std::sqrt(std::max(second_moment[j], 1e-6f * largest));
  }
  return weights;
}

}  // namespace

void solve_upper(const float* upper, std::int64_t count, std::int64_t stride, float* row) {
  for (std::int64_t j = 0; j < count; ++j) {
    row[j] /= upper[j * stride + j];
    subtract_products(row + j + 1, count - j - 1, row + j, upper + j * stride + j + 1, stride, 1);
  }
}

QuantTensor compensated(const FormatPtr& format, const QuantTensor& base, const float* w,
                        const InverseFactor* factor, std::span<const float> second_moment,
                        const Codec& codec) {
  const std::int64_t rows = base.rows, cols = base.cols;
  const std::int64_t rank = format->descriptor().element.rank;
  std::vector<float> rest(static_cast<std::size_t>(rows * cols));
  decode_all(base, rest.data(), codec);
  const std::vector<float> weights = channel_weights(second_moment, cols);
  codec.for_rows(rows, cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* at = rest.data() + row * cols;
      for (std::int64_t j = 0; j < cols; ++j) at[j] = w[row * cols + j] - at[j];
      if (factor != nullptr) {
        solve_upper(factor->upper.data<float>(), cols, cols, at);
      } else {
        for (std::int64_t j = 0; j < cols; ++j) at[j] *= weights[static_cast<std::size_t>(j)];
      }
    }
  });
  std::vector<float> out(static_cast<std::size_t>(rows * rank));
  std::vector<float> in(static_cast<std::size_t>(rank * cols));
  approximate_by_rank(rest.data(), rows, cols, rank, codec.pool, out.data(), in.data());
  for (std::int64_t k = 0; k < rank; ++k) {
    float* direction = in.data() + k * cols;
    if (factor == nullptr) {
      for (std::int64_t j = 0; j < cols; ++j) direction[j] /= weights[static_cast<std::size_t>(j)];
      continue;
    }
    std::vector<float> negated(static_cast<std::size_t>(cols), 0.0f);  // of direction U
    subtract_products(negated.data(), cols, direction, factor->upper.data<float>(), cols, cols);
    std::ranges::transform(negated, direction, [](float v) { return -v; });
  }
  return low_rank_tensor(format, base, out.data(), in.data());
}

}  // namespace nibble
