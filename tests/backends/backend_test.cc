#include "backends/backend.h"

#include "backends/cpu/cpu_features.h"
#include "backends/cpu/levels.h"
#include "support/test_data.h"

namespace nibble {
namespace {

std::unique_ptr<Backend> backend(const std::string& isa, const std::string& force) {
  BackendOptions options;
  options.threads = 1;
  options.isa = isa;
  options.force = force;
  return make_cpu_backend(options);
}

TEST(CpuBackend, EveryOpEndsWithTheReference) {
  const auto rows = backend("", "")->impl_rows();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const bool last = i + 1 == rows.size() || rows[i + 1].op != rows[i].op;
    EXPECT_EQ(last, rows[i].name == "reference") << rows[i].op << ":" << rows[i].name;
    EXPECT_TRUE(!last || rows[i].usable);
  }
}

TEST(CpuBackend, IsaLowersTheLevel) {
  EXPECT_EQ(backend("generic", "")->caps().isa, CpuIsa::kGeneric);
  EXPECT_EQ(backend("", "")->caps().isa, cpu::detect_caps().isa);
  EXPECT_ERROR(backend("sse9", ""), ErrorKind::kUsage, "'sse9' is unknown");
  for (const CpuIsa level : cpu::kIsas) {
    const std::string name(to_string(level));
    if (level <= cpu::detect_caps().isa) {
      EXPECT_EQ(backend(name, "")->caps().isa, level);
    } else {
      EXPECT_ERROR(backend(name, ""), ErrorKind::kUnsupported, "this machine has no " + name);
    }
  }
}

#if defined(__aarch64__)
// All processors of this family have the level: that only generic kernels ran would go unnoticed.
TEST(CpuBackend, NeonIsTheLevelOfArm) { EXPECT_EQ(backend("", "")->caps().isa, CpuIsa::kNeon); }
#endif

TEST(CpuBackend, ForceIsStrict) {
  EXPECT_ERROR(backend("", "linaer:reference"), ErrorKind::kUsage, "there is no op 'linaer'");
  EXPECT_ERROR(backend("", "linear:sse9"), ErrorKind::kUsage, "no implementation 'sse9'");
  EXPECT_NO_THROW(backend("", "linear:reference,add:reference"));
}

TEST(MakeBackend, KnowsItsDevices) {
  EXPECT_NE(make_backend("cpu", {}), nullptr);
  EXPECT_NE(make_backend("auto", {}), nullptr);
  for (const char* bad : {"gpu", "cuda:", "cuda:x", "cuda:1234", "cpu:0", ""}) {
    EXPECT_ERROR(make_backend(bad, {}), ErrorKind::kUsage, "is unknown");
  }
}

}  // namespace
}  // namespace nibble
