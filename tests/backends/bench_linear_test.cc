#include "backends/bench_linear.h"

#include "support/test_data.h"

namespace nibble {
namespace {

TEST(BenchLinear, OneRowForEachImplementationThatCanRun) {
  const auto make = [](const std::string& force) {
    BackendOptions options;
    options.threads = 1;
    options.force = force;
    return make_cpu_backend(options);
  };
  const SpeedLimits limits = {1e10, [](Arithmetic) { return 1e11; }};
  LinearBench bench;
  bench.shapes = {{32, 64}};
  bench.ms = {1, 40};
  bench.formats = {"f32"};
  bench.seconds = 0;
  int reference = 0;
  int blocked = 0;
  for (const BenchRow& row : bench_linear(make, limits, bench)) {
    EXPECT_EQ(row.op, "linear");
    EXPECT_GT(row.seconds, 0);
    const double flops = 2.0 * static_cast<double>(row.m) * 32 * 64 / row.seconds;
    const double bytes =
        (4.0 * 32 * 64 + 4.0 * static_cast<double>(row.m) * (32 + 64)) / row.seconds;
    EXPECT_NEAR(row.gflops, flops * 1e-9, 1e-9 * flops * 1e-6);
    EXPECT_NEAR(row.flops_fraction, flops / 1e11, 1e-6 * flops / 1e11);
    EXPECT_NEAR(row.bandwidth_fraction, bytes / 1e10, 1e-6 * bytes / 1e10);
    reference += row.impl == "reference" ? 1 : 0;
    blocked += row.impl == "generic_blocked" ? 1 : 0;
  }
  EXPECT_EQ(reference, 1);  // not at m = 40
  EXPECT_EQ(blocked, 2);
}

}  // namespace
}  // namespace nibble
