// Quantizations whose texts run on a device: what the host must not touch stays there.
#include <gtest/gtest.h>

#include "quantize/apart_backend.h"
#include "quantize/small_model.h"
#include "support/exact_backend.h"

namespace nibble {
namespace {

using test::small_options;

class DeviceTest : public testing::Test {
 protected:
  DeviceTest() { test::write_small_model(dir_ / "model", 2); }

  QuantizeReport run(const std::string& output, const std::string& recipe, Backend& runner) {
    QuantizeOptions options = small_options(dir_ / "model", dir_ / output, recipe);
    options.verify.enabled = true;
    options.verify.tokens = 300;
    return quantize(options, *host_, runner);
  }

  test::TempDir dir_;
  std::unique_ptr<Backend> host_ = test::exact_backend(2);
  std::unique_ptr<Backend> device_ = test::apart_backend(test::exact_backend(2));
};

TEST_F(DeviceTest, GivesTheSameBytes) {
  for (const std::string recipe : {"rtn", "clip", test::kSmallSearch}) {
    const QuantizeReport here = run("here", recipe, *host_);
    const QuantizeReport there = run("there", recipe, *device_);
    test::expect_same_directories(dir_ / "here", dir_ / "there");
    EXPECT_EQ(here.verify->mean_kl, there.verify->mean_kl) << recipe;
    EXPECT_EQ(here.search.has_value(), there.search.has_value());
    if (here.search) {
      EXPECT_EQ(here.search->loss, there.search->loss);
    }
    std::filesystem::remove_all(dir_ / "here");
    std::filesystem::remove_all(dir_ / "there");
  }
}

// Sums of Hessians are float32 on a device, so codes at the edge may differ.
TEST_F(DeviceTest, GivesTheSameQualityWithHessians) {
  for (const std::string recipe : {"gptq", "awq", "best"}) {
    const QuantizeReport here = run("here." + recipe, recipe, *host_);
    const QuantizeReport there = run("there." + recipe, recipe, *device_);
    ASSERT_EQ(here.layers.size(), there.layers.size());
    for (std::size_t layer = 0; layer < here.layers.size(); ++layer) {
      for (std::size_t i = 0; i < here.layers[layer].modules.size(); ++i) {
        const ModuleReport& a = here.layers[layer].modules[i];
        const ModuleReport& b = there.layers[layer].modules[i];
        EXPECT_NEAR(a.weight_error, b.weight_error, 0.01 * a.weight_error) << a.module;
        EXPECT_NEAR(*a.output_error, *b.output_error, 0.01 * *a.output_error) << a.module;
      }
    }
    EXPECT_NEAR(here.verify->perplexity, there.verify->perplexity, 0.01 * here.verify->perplexity)
        << recipe;
  }
}

TEST_F(DeviceTest, MeasuresFormatsThere) {
  const auto chosen = [&](const std::string& output, Backend& runner) {
    QuantizeOptions options = small_options(dir_ / "model", dir_ / output, "rtn");
    for (const char* const name : {"w4a16_g128", "w8a16_g128"}) {
      options.mixed.formats.push_back(parse_model_format(name));
    }
    options.mixed.target_bits = 5;
    return quantize(options, *host_, runner).mixed.value();
  };
  const MixedReport here = chosen("here", *host_);
  const MixedReport there = chosen("there", *device_);
  ASSERT_EQ(here.measured.size(), there.measured.size());
  for (std::size_t i = 0; i < here.measured.size(); ++i) {
    EXPECT_EQ(here.measured[i].kl, there.measured[i].kl);
  }
  test::expect_same_directories(dir_ / "here", dir_ / "there");
}

}  // namespace
}  // namespace nibble
