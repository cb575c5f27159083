#include "backends/cpu/probe.h"

#include "backends/backend.h"
#include "backends/cpu/cpu_features.h"
#include "support/test_data.h"

namespace nibble::cpu {
namespace {

TEST(Probe, RatesAreThoseOfAMachine) {
  ThreadPool pool(2);
  const MachineLimits limits = measure_machine(pool, detect_caps());
  // Wide margins: the probe must survive a busy neighbour, but not a dropped loop or a lost factor.
  EXPECT_GT(limits.read_bandwidth.one_thread, 1e8);
  EXPECT_LT(limits.read_bandwidth.all_threads, 1e13);
  EXPECT_GE(limits.read_bandwidth.all_threads, 0.25 * limits.read_bandwidth.one_thread);
  for (const ArithmeticPeak& peak : limits.peaks) {
    EXPECT_GT(peak.rate.one_thread, 1e8) << to_string(peak.isa);
    EXPECT_LT(peak.rate.one_thread, 1e13) << to_string(peak.isa);
    EXPECT_GE(peak.rate.all_threads, 0.25 * peak.rate.one_thread) << to_string(peak.isa);
  }
  EXPECT_EQ(limits.peaks.back().isa, detect_caps().isa);
  // Wider vectors do more.
  const double generic = limits.peaks.front().rate.one_thread;
  EXPECT_GT(limits.peak(Arithmetic::kFloat32).one_thread, 0.9 * generic);
}

TEST(Probe, ThePeakIsTheFastestOfItsKind) {
  MachineLimits limits;
  limits.peaks = {{CpuIsa::kGeneric, Arithmetic::kFloat32, {1, 2}},
                  {CpuIsa::kAvx512, Arithmetic::kFloat32, {5, 9}},
                  {CpuIsa::kAvx2, Arithmetic::kFloat32, {3, 6}}};
  EXPECT_EQ(limits.peak(Arithmetic::kFloat32).all_threads, 9);
  EXPECT_EQ(limits.peak(Arithmetic::kFloat32).one_thread, 5);
  EXPECT_EQ(limits.peak(Arithmetic::kInt8).all_threads, 0);
}

TEST(Probe, LowerLevelsMeasureOnlyWhatTheyMayUse) {
  ThreadPool pool(1);
  const MachineLimits limits = measure_machine(pool, {.isa = CpuIsa::kGeneric});
  ASSERT_EQ(limits.peaks.size(), 1u);
  EXPECT_EQ(limits.peaks[0].arithmetic, Arithmetic::kFloat32);
  EXPECT_EQ(limits.peak(Arithmetic::kInt8).one_thread, 0);
}

TEST(MachineInfo, NamesWhatIsThere) {
  const MachineInfo info = machine_info();
  EXPECT_GE(info.cores, 1);
  EXPECT_GE(info.processors, info.cores);
  EXPECT_GE(info.numa_nodes, 1);
  EXPECT_GT(info.available_bytes, 0);
  EXPECT_GE(info.memory_bytes, info.available_bytes);
}

}  // namespace
}  // namespace nibble::cpu
