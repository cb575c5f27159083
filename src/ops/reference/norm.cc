// Reference norm: mean and variance in double, the variance in two passes.
#include <cmath>

#include "ops/reference/reference.h"

namespace nibble::reference {
namespace {

void norm_row(const NormArgs& args, const float* x, float* y) {
  const auto n = static_cast<double>(args.cols);
  double mean = 0;
  if (args.kind == NormKind::kLayer) {
    for (std::int64_t c = 0; c < args.cols; ++c) mean += x[c];
    mean /= n;
  }
  double squares = 0;
  for (std::int64_t c = 0; c < args.cols; ++c) squares += (x[c] - mean) * (x[c] - mean);
  const double inverse = 1 / std::sqrt(squares / n + static_cast<double>(args.eps));
  for (std::int64_t c = 0; c < args.cols; ++c) {
    const double weight = args.weight == nullptr ? 1.0
                                                 : static_cast<double>(args.weight_offset) +
                                                       static_cast<double>(args.weight[c]);
    const double bias = args.bias == nullptr || args.kind == NormKind::kRms
                            ? 0.0
                            : static_cast<double>(args.bias[c]);
    y[c] = static_cast<float>((x[c] - mean) * inverse * weight + bias);
  }
}

}  // namespace

void norm(const NormArgs& args, ExecContext& context) {
  context.pool.parallel_for(args.rows, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      norm_row(args, args.x + r * args.x_stride, args.y + r * args.y_stride);
    }
  });
}

}  // namespace nibble::reference
