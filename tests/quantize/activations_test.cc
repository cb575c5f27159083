// Checkpoints with rounded activations: written, read, and computed as their config asks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/json.h"
#include "model/arch.h"
#include "quantize/small_model.h"
#include "support/exact_backend.h"

namespace nibble::test {
namespace {

constexpr const char* kModule = "model.layers.1.mlp.down_proj";

class QuantizedActivations : public ::testing::Test {
 protected:
  QuantizedActivations() : backend_(exact_backend(2)) { write_small_model(dir_ / "model", 2); }

  // Quantizes to a format of the grammar; the checkpoint that was written.
  std::unique_ptr<Checkpoint> written(const std::string& format) {
    QuantizeOptions options = small_options(dir_ / "model", dir_ / "out", "rtn");
    options.format = parse_model_format(format);
    quantize(options, *backend_);
    return open_checkpoint(dir_ / "out");
  }

  Tensor logits(const WeightSource& source, const Json& config, const ModelFormat& rounding = {}) {
    std::vector<std::int32_t> ids(40);
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(7 * i + 3);
    return Model(build_spec(config), source, *backend_, rounding).logits(Batch::single(ids));
  }

  TempDir dir_;
  std::unique_ptr<Backend> backend_;
};

const Json& only_group(const Checkpoint& checkpoint) {
  return checkpoint.config().at("quantization_config").at("config_groups").at("group_0");
}

TEST_F(QuantizedActivations, Int8IsWrittenAsEnginesLoadIt) {
  const auto result = written("w8a8_int8");
  EXPECT_EQ(result->convention(), "compressed-tensors");
  EXPECT_EQ(result->config().at("quantization_config").at("format"), "int-quantized");
  const Json& group = only_group(*result);
  EXPECT_EQ(group.at("targets"), Json::array({"Linear"}));
  EXPECT_EQ(group.at("weights").at("strategy"), "channel");
  const Json& input = group.at("input_activations");
  EXPECT_EQ(input.at("num_bits"), 8);
  EXPECT_EQ(input.at("type"), "int");
  EXPECT_EQ(input.at("strategy"), "token");
  EXPECT_EQ(input.at("dynamic"), true);
  EXPECT_EQ(result->tensor(std::string(kModule) + ".weight").dtype(), DType::kI8);
  EXPECT_TRUE(result->notes().empty());
  EXPECT_EQ(result->activations(kModule)->name(), "int8_token");
  EXPECT_EQ(result->activations("lm_head"), nullptr);
}

// Reading back is the same as rounding the model at load.
TEST_F(QuantizedActivations, WhatIsWrittenIsWhatRoundingGives) {
  for (const char* format :
       {"w8a8_int8", "w8a8_fp8", "w4a8_int8", "llm.int8", "w=fp4_e2m1_g32_sf16,a=fp4_e2m1_g32"}) {
    std::filesystem::remove_all(dir_ / "out");
    const auto result = written(format);
    const auto source = open_checkpoint(dir_ / "model");
    const Tensor read = logits(*result, result->config());
    const Tensor rounded = logits(*source, source->config(),
                                  with_half_scales(parse_model_format(format), DType::kBF16));
    const Tensor plain = logits(*source, source->config());
    double apart = 0, moved = 0;
    for (std::int64_t i = 0; i < read.elements(); ++i) {
      const double value = static_cast<double>(read.data<float>()[i]);
      apart = std::max(apart, std::abs(value - static_cast<double>(rounded.data<float>()[i])));
      moved = std::max(moved, std::abs(value - static_cast<double>(plain.data<float>()[i])));
    }
    EXPECT_EQ(apart, 0) << format;
    EXPECT_GT(moved, 1e-3) << format;
  }
}

TEST_F(QuantizedActivations, Fp8AndWhatTheConventionCannotSay) {
  const auto fp8 = written("w8a8_fp8");
  EXPECT_EQ(fp8->config().at("quantization_config").at("format"), "float-quantized");
  EXPECT_EQ(fp8->tensor(std::string(kModule) + ".weight").dtype(), DType::kF8E4M3);
  EXPECT_EQ(fp8->linear(kModule).format->name(), "fp8_e4m3_channel");
  EXPECT_EQ(fp8->activations(kModule)->name(), "fp8_e4m3_token");
  std::filesystem::remove_all(dir_ / "out");
  const auto outliers = written("llm.int8");
  EXPECT_EQ(outliers->convention(), "nibble");
  EXPECT_EQ(outliers->activations(kModule)->name(), "int8_token_o6");
}

// The largest magnitude at the layer's input reaches the largest code.
TEST_F(QuantizedActivations, StaticScalesComeFromCalibration) {
  for (const char* format :
       {"w=int8_channel_sym,a=int8_tensor_static", "w=nf4_g64,a=int8_tensor_static"}) {
    std::filesystem::remove_all(dir_ / "out");
    const auto result = written(format);
    const ActivationFormatPtr activations = result->activations(kModule);
    ASSERT_NE(activations, nullptr);
    EXPECT_EQ(activations->name(), "int8_tensor_static");
    const Tensor stored = result->tensor(std::string(kModule) + ".input_scale");
    EXPECT_EQ(activations->fixed()->scale, stored.data<float>()[0]);
    EXPECT_GT(activations->fixed()->scale, 1e-4f);
    EXPECT_LT(activations->fixed()->scale, 10.0f);
    EXPECT_NE(result->activations("model.layers.0.mlp.down_proj")->fixed()->scale,
              activations->fixed()->scale);
  }
  const auto source = open_checkpoint(dir_ / "model");
  EXPECT_ERROR(logits(*source, source->config(), parse_model_format("w=int8,a=int8_tensor_static")),
               ErrorKind::kUsage, "calibration");
}

}  // namespace
}  // namespace nibble::test
