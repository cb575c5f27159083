#include "backends/device_limits.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

// The host stands in for a device: what is measured is measured through the same calls.
TEST(DeviceLimits, CountsBytesBothWays) {
  BackendOptions options;
  options.threads = 1;
  const auto backend = make_cpu_backend(options);
  const double copy = measure_copy(*backend, 1 << 20, 0.01);
  EXPECT_GT(copy, 1e8);
  EXPECT_LT(copy, 1e13);
}

}  // namespace
}  // namespace nibble
