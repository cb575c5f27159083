#include "backends/device_limits.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

// The host stands in for a device: what is measured is measured through the same calls.
TEST(DeviceLimits, CountsBytesBothWaysAndTwoOperationsAMultiplyAdd) {
  BackendOptions options;
  options.threads = 1;
  const auto backend = make_cpu_backend(options);
  const DeviceLimits limits =
      measure_device(*backend, {.copy_bytes = 1 << 20, .side = 64, .seconds = 0.01});
  EXPECT_GT(limits.copy_bytes_per_second, 1e8);
  EXPECT_LT(limits.copy_bytes_per_second, 1e13);
  EXPECT_GT(limits.product_operations_per_second, 1e8);
  EXPECT_LT(limits.product_operations_per_second, 1e13);
}

}  // namespace
}  // namespace nibble
