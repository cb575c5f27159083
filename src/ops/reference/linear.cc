// Reference linear: any format through Format::decode, one weight row at a time, sums in double.
#include <vector>

#include "ops/reference/reference.h"

namespace nibble::reference {
namespace {

void linear_of_rounded(const LinearArgs& args, ExecContext& context) {
  const std::int64_t cols = args.w->canonical.cols;
  std::vector<float> rounded(static_cast<std::size_t>(args.m * cols));
  args.activations->round(args.x, args.x_stride, args.m, cols, rounded.data(), cols);
  LinearArgs call = args;
  call.x = rounded.data();
  call.x_stride = cols;
  call.activations = nullptr;
  linear(call, context);
}

}  // namespace

void linear(const LinearArgs& args, ExecContext& context) {
  const QuantTensor& w = args.w->canonical;
  if (args.m == 0) return;
  if (args.activations != nullptr) return linear_of_rounded(args, context);
  context.pool.parallel_for(w.rows, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(w.cols));
    for (std::int64_t n = begin; n < end; ++n) {
      w.format->decode(w, n, 0, w.cols, row.data());
      for (std::int64_t m = 0; m < args.m; ++m) {
        const float* x = args.x + m * args.x_stride;
        float& y = args.y[m * args.y_stride + n];
        double sum = args.accumulate ? y : 0.0;
        for (std::int64_t k = 0; k < w.cols; ++k) {
          sum += static_cast<double>(x[k]) * row[static_cast<std::size_t>(k)];
        }
        if (args.bias != nullptr) sum += args.bias[n];
        y = static_cast<float>(sum);
      }
    }
  });
}

}  // namespace nibble::reference
