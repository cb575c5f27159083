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

// Where a recipe only smooths, candidates are scaled in buffers, or on the device; with a step that
// finds nothing to shift, since no input is rounded, each is a layer of its own that is changed.
TEST_F(DeviceTest, FindsTheSameWhereverCandidatesAreScaled) {
  const auto found = [&](const std::string& first, const std::string& format, Backend& runner) {
    std::filesystem::remove_all(dir_ / "out");
    const std::string recipe = R"({"steps": [)" + first +
                               R"({"algorithm": "smoothquant_plus", "step": 0.5},
                                  {"algorithm": "rtn"}]})";
    QuantizeOptions options = small_options(dir_ / "model", dir_ / "out", recipe);
    options.format = parse_model_format(format);
    return *quantize(options, *host_, runner).search;
  };
  const std::string shift = R"({"algorithm": "exponent_shift"}, )";
  const SearchReport changed = found(shift, "int3_g64_asym", *host_);
  const SearchReport scaled = found("", "int3_g64_asym", *host_);
  const SearchReport on_device = found("", "int3_g64_asym", *device_);
  for (const SearchReport* const report : {&scaled, &on_device}) {
    EXPECT_EQ(report->chosen, changed.chosen);
    EXPECT_EQ(report->loss, changed.loss);
    EXPECT_EQ(report->identity_loss, changed.identity_loss);
  }
  EXPECT_NE(changed.loss, changed.identity_loss);
  const SearchReport rounded = found("", "w8a8_int8", *host_);
  const SearchReport rounded_on_device = found("", "w8a8_int8", *device_);
  EXPECT_EQ(rounded.identity_loss, rounded_on_device.identity_loss);
  EXPECT_EQ(rounded.loss, rounded_on_device.loss);
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

// Hidden states go to the disk and come back.
TEST_F(DeviceTest, GoesOnWhereItWasInterrupted) {
  for (const std::string recipe : {test::kSmallSearch, "gptq"}) {
    std::filesystem::remove_all(dir_ / "whole");
    std::filesystem::remove_all(dir_ / "resumed");
    QuantizeOptions options = small_options(dir_ / "model", dir_ / "whole", recipe);
    std::size_t steps = 0;
    options.on_saved = [&](const std::string&) { ++steps; };
    quantize(options, *host_, *device_);
    options.output = dir_ / "resumed";
    const std::filesystem::path partial = dir_ / "resumed.partial", kept = dir_ / "kept";
    for (const std::size_t last : {std::size_t{2}, steps / 2, steps - 1}) {
      std::size_t saved = 0;
      options.on_saved = [&](const std::string&) {
        if (++saved != last) return;
        std::filesystem::copy(partial, kept, std::filesystem::copy_options::recursive);
        fail(ErrorKind::kDisk, "full");  // removes all, which death does not
      };
      EXPECT_THROW(quantize(options, *host_, *device_), Error);
      std::filesystem::rename(kept, partial);
      options.resume = true;
      std::size_t rest = 0;
      options.on_saved = [&](const std::string&) { ++rest; };
      quantize(options, *host_, *device_);
      test::expect_same_directories(dir_ / "whole", dir_ / "resumed");
      EXPECT_LE(rest, steps - last + 1);
      std::filesystem::remove_all(dir_ / "resumed");
      options.resume = false;
    }
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
