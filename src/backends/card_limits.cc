#include "backends/card_limits.h"

#include <chrono>
#include <limits>
#include <optional>

#include "backends/device_limits.h"
#include "base/error.h"

namespace nibble {
namespace {

double sustained(Backend& backend, CardTimer& timer, Arithmetic type,
                 const CardLimitsOptions& options) {
  const std::int64_t side = options.side;
  const auto products = timer.vendor_products(type, side, side, side, 1);
  if (products == nullptr || products->algorithms(side) == 0) return 0;
  const VendorChoice choice = fastest_algorithm(timer, backend, *products, side);
  const auto step = [&] { products->issue(side, choice.algorithm); };
  // The last figure counts: by then clocks have settled.
  constexpr int kPlays = 64;
  const auto start = std::chrono::steady_clock::now();
  double seconds = 0;
  do {
    seconds = timer.time(backend, step, kPlays, false).card;
  } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() <
           options.seconds);
  const double operations =
      2 * static_cast<double>(side) * static_cast<double>(side) * static_cast<double>(side);
  return operations / seconds;
}

}  // namespace

double CardLimits::operations_per_second(Arithmetic arithmetic) const {
  switch (arithmetic) {
    case Arithmetic::kFloat32:
      return 0;
    case Arithmetic::kF16:
      return f16_per_second;
    case Arithmetic::kBf16:
    case Arithmetic::kBf16Exact:
    case Arithmetic::kBf16Scaled:
      return bf16_per_second;
    case Arithmetic::kInt8:
    case Arithmetic::kSignedInt8:
    case Arithmetic::kFp8:
      break;
  }
  return fp8_per_second;
}

const char* limit_name(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kFloat32:
      return "";
    case Arithmetic::kF16:
      return "f16";
    case Arithmetic::kBf16:
    case Arithmetic::kBf16Exact:
    case Arithmetic::kBf16Scaled:
      return "bf16";
    case Arithmetic::kInt8:
    case Arithmetic::kSignedInt8:
    case Arithmetic::kFp8:
      break;
  }
  return "fp8";
}

VendorChoice fastest_algorithm(CardTimer& timer, Backend& backend, VendorProducts& products,
                               std::int64_t m) {
  constexpr int kPlays = 2;
  VendorChoice best{0, std::numeric_limits<double>::infinity()};
  std::optional<Error> failure;
  for (int algorithm = 0; algorithm < products.algorithms(m); ++algorithm) {
    try {
      const auto step = [&] { products.issue(m, algorithm); };
      const double seconds = timer.time(backend, step, kPlays, true).card;
      if (seconds < best.seconds) best = {algorithm, seconds};
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kDevice) throw;
      failure = error;
    }
  }
  if (failure && best.seconds == std::numeric_limits<double>::infinity()) throw *failure;
  best.seconds /= static_cast<double>(products.copies());
  return best;
}

CardLimits measure_card(Backend& backend, CardTimer& timer, const CardLimitsOptions& options) {
  CardLimits limits;
  limits.copy_bytes_per_second = measure_copy(backend, options.copy_bytes, options.copy_seconds);
  limits.f16_per_second = sustained(backend, timer, Arithmetic::kF16, options);
  limits.fp8_per_second = sustained(backend, timer, Arithmetic::kFp8, options);
  limits.bf16_per_second = sustained(backend, timer, Arithmetic::kBf16, options);
  limits.state = timer.state();
  return limits;
}

}  // namespace nibble
