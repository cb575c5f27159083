#include "quantize/math/trellis.h"

#include <algorithm>

#include "base/error.h"
#include "formats/trellis.h"
#include "ops/axpy.h"
#include "quantize/math/compensation.h"

namespace nibble {
namespace {

constexpr std::int64_t kSide = kTrellisSide;

// [n, n] in place.
void transpose(std::vector<double>& m, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < i; ++j) {
      std::swap(m[static_cast<std::size_t>(i * n + j)], m[static_cast<std::size_t>(j * n + i)]);
    }
  }
}

// R M R^T for the rotation x -> R x.
std::vector<double> rotated(std::vector<double> m, std::int64_t n) {
  for (int side = 0; side < 2 && !m.empty(); ++side) {
    trellis_rotate(m.data(), n, n);
    transpose(m, n);
  }
  return m;
}

// The inverse of the block of the factor at the diagonal, upper [16, 16].
std::vector<double> inverse_block(const InverseFactor& factor, std::int64_t cols,
                                  std::int64_t begin) {
  std::vector<double> inverse(static_cast<std::size_t>(kSide * kSide), 0.0);
  const float* u = factor.upper.data<float>() + begin * cols + begin;
  for (std::int64_t j = kSide; j-- > 0;) {
    const double diagonal = double{u[j * cols + j]};
    double* row = inverse.data() + j * kSide;
    row[j] = 1 / diagonal;
    for (std::int64_t k = j + 1; k < kSide; ++k) {
      double sum = 0;
      for (std::int64_t i = j + 1; i <= k; ++i) {
        sum += double{u[j * cols + i]} * inverse[static_cast<std::size_t>(i * kSide + k)];
      }
      row[k] = -sum / diagonal;
    }
  }
  return inverse;
}

// What an error of each column of a block costs when all later columns make up for it as well as
// they can: the diagonal of ((U^T U)_bb)^-1, relative to the largest.
std::vector<float> column_weights(const InverseFactor& factor, std::int64_t cols,
                                  std::int64_t begin) {
  const std::vector<double> inverse = inverse_block(factor, cols, begin);
  std::vector<double> costs(static_cast<std::size_t>(kSide), 0.0);
  for (std::size_t i = 0; i < inverse.size(); ++i) {
    costs[i / static_cast<std::size_t>(kSide)] += inverse[i] * inverse[i];
  }
  const double largest = *std::ranges::max_element(costs);
  std::vector<float> weights;
  for (const double cost : costs) weights.push_back(static_cast<float>(cost / largest));
  return weights;
}

}  // namespace

Hessian rotated_hessian(const Hessian& hessian) {
  Hessian result = hessian;
  result.moments = rotated(std::move(result.moments), hessian.channels);
  result.drift = rotated(std::move(result.drift), hessian.channels);
  result.sum_abs.clear();
  if (!result.residual.empty()) {
    const auto outputs = static_cast<std::int64_t>(result.residual.size()) / hessian.channels;
    trellis_rotate(result.residual.data(), outputs, hessian.channels);
  }
  return result;
}

QuantTensor encode_trellis(const FormatPtr& format, const InverseFactor& factor,
                           std::vector<float> w, std::int64_t rows, const Codec& codec) {
  const std::int64_t cols = static_cast<std::int64_t>(w.size()) / rows;
  TrellisTarget target = trellis_target(format, w.data(), rows, cols);
  std::vector<std::vector<float>> weights;
  for (std::int64_t col = 0; col < cols; col += kSide) {
    weights.push_back(column_weights(factor, cols, col));
  }
  const auto encode_tile_row = [&](std::int64_t tile, TrellisEncoder& encoder) {
    const std::int64_t first = tile * kSide, count = std::min(kSide, rows - first);
    std::vector<float> work(w.begin() + first * cols, w.begin() + (first + count) * cols);
    std::vector<float> decoded(static_cast<std::size_t>(kSide * kSide));
    std::vector<float> errors(static_cast<std::size_t>(kSide));
    const TrellisRows part{work.data(), cols, count, target.factors.data() + first};
    for (std::int64_t col = 0; col < cols; col += kSide) {
      encoder.encode(part, col, weights[static_cast<std::size_t>(col / kSide)],
                     trellis_words(target.tensor, tile, col / kSide), decoded.data());
      for (std::int64_t row = 0; row < count; ++row) {
        float* at = work.data() + row * cols + col;
        for (std::int64_t j = 0; j < kSide; ++j) {
          errors[static_cast<std::size_t>(j)] =
              at[j] - decoded[static_cast<std::size_t>(row * kSide + j)];
        }
        solve_upper(factor.upper.data<float>() + col * cols + col, kSide, cols, errors.data());
        subtract_products(at + kSide, cols - col - kSide, errors.data(),
                          factor.upper.data<float>() + col * cols + col + kSide, cols, kSide);
      }
    }
  };
  codec.for_rows(target.tensor.planes[0].dim(0), kSide * cols,
                 [&](std::int64_t begin, std::int64_t end) {
                   TrellisEncoder encoder(format->descriptor().element, *codec.spans);
                   for (std::int64_t tile = begin; tile < end; ++tile) {
                     encode_tile_row(tile, encoder);
                   }
                 });
  return std::move(target.tensor);
}

}  // namespace nibble
