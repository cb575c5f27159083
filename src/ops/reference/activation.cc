// Reference activations, in double. Sources: GELU, Hendrycks and Gimpel 2016 (erf, tanh and sigmoid
// forms); SiLU, Elfwing et al. 2017.
#include <cmath>
#include <numbers>

#include "ops/reference/reference.h"

namespace nibble::reference {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double activate(Activation kind, double x, double softcap) {
  switch (kind) {
    case Activation::kIdentity:
      return x;
    case Activation::kRelu:
      return x > 0 || std::isnan(x) ? x : 0;
    case Activation::kSilu:
      return x * sigmoid(x);
    case Activation::kGelu:
      return 0.5 * x * (1 + std::erf(x / std::numbers::sqrt2));
    case Activation::kGeluTanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluQuick:
      return x * sigmoid(1.702 * x);
    case Activation::kTanh:
      return softcap > 0 ? softcap * std::tanh(x / softcap) : std::tanh(x);
  }
  fail(ErrorKind::kInternal, "activation {} is unknown", static_cast<int>(kind));
}

// How much x, and the multiplier, may be.
double limited(double x, double limit) { return limit > 0 && x > limit ? limit : x; }

double factor(const ActivationArgs& args, std::int64_t row, std::int64_t col) {
  const auto limit = static_cast<double>(args.limit);
  const double m = limited(args.multiplier[row * args.multiplier_stride + col], limit);
  return (limit > 0 && m < -limit ? -limit : m) + static_cast<double>(args.multiplier_offset);
}

}  // namespace

void activation(const ActivationArgs& args, ExecContext& context) {
  context.pool.parallel_for(args.rows, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t c = 0; c < args.cols; ++c) {
        const double x = limited(args.x[r * args.x_stride + c], args.limit);
        double value = activate(args.kind, x, args.softcap);
        if (args.multiplier != nullptr) value *= factor(args, r, c);
        args.y[r * args.y_stride + c] = static_cast<float>(value);
      }
    }
  });
}

}  // namespace nibble::reference
