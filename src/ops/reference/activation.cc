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

}  // namespace

void activation(const ActivationArgs& args, ExecContext& context) {
  context.pool.parallel_for(args.rows, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t c = 0; c < args.cols; ++c) {
        double value = activate(args.kind, args.x[r * args.x_stride + c], args.softcap);
        if (args.multiplier != nullptr) value *= args.multiplier[r * args.multiplier_stride + c];
        args.y[r * args.y_stride + c] = static_cast<float>(value);
      }
    }
  });
}

}  // namespace nibble::reference
