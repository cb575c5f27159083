// Checkpoints with rounded activations: written, read, and computed as their config asks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/json.h"
#include "formats/split_format.h"
#include "model/arch.h"
#include "quantize/calibrators/calibrators.h"
#include "quantize/small_model.h"
#include "support/exact_backend.h"
#include "support/tolerance.h"

namespace nibble::test {
namespace {

constexpr const char* kModule = "model.layers.1.mlp.down_proj";

class QuantizedActivations : public ::testing::Test {
 protected:
  QuantizedActivations() : backend_(exact_backend(2)) { write_small_model(dir_ / "model", 2); }

  // Quantizes to a format of the grammar; the checkpoint that was written.
  std::unique_ptr<Checkpoint> written(const std::string& format,
                                      const CalibrationOptions& calibration = {0, 0, 0}) {
    std::filesystem::remove_all(dir_ / "out");
    QuantizeOptions options = small_options(dir_ / "model", dir_ / "out", "rtn");
    options.format = parse_model_format(format);
    options.calibration.range = calibration.range;
    options.calibration.percentile = calibration.percentile;
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
  const auto outliers = written("llm.int8");
  EXPECT_EQ(outliers->convention(), "nibble");
  EXPECT_EQ(outliers->activations(kModule)->name(), "int8_token_o6");
}

// The largest magnitude at the layer's input reaches the largest code.
TEST_F(QuantizedActivations, StaticScalesComeFromCalibration) {
  for (const char* format :
       {"w=int8_channel_sym,a=int8_tensor_static", "w=nf4_g64,a=int8_tensor_static"}) {
    const auto result = written(format);
    const ActivationFormatPtr activations = result->activations(kModule);
    ASSERT_NE(activations, nullptr);
    EXPECT_EQ(activations->name(), "int8_tensor_static");
    const Tensor stored = result->tensor(std::string(kModule) + ".input_scale");
    EXPECT_EQ(activations->fixed()[0].scale, stored.data<float>()[0]);
    EXPECT_GT(activations->fixed()[0].scale, 1e-4f);
    EXPECT_LT(activations->fixed()[0].scale, 10.0f);
    EXPECT_NE(result->activations("model.layers.0.mlp.down_proj")->fixed()[0].scale,
              activations->fixed()[0].scale);
  }
  const auto source = open_checkpoint(dir_ / "model");
  EXPECT_ERROR(logits(*source, source->config(), parse_model_format("w=int8,a=int8_tensor_static")),
               ErrorKind::kUsage, "calibration");
}

// The input of the first layer is the same whatever was quantized before it: there the histogram
// must agree with the statistics.
TEST_F(QuantizedActivations, StaticScalesByEveryCalibrator) {
  constexpr const char* kFirst = "model.layers.0.self_attn.q_proj";
  const std::string format = "w=int8_channel_sym,a=int8_tensor_static";
  const auto scale = [&](const char* calibrator, double percentile = 0) {
    const auto result = written(format, {0, 0, 0, calibrator, percentile});
    return static_cast<double>(result->activations(kFirst)->fixed()[0].scale);
  };
  const double most = scale("minmax");
  EXPECT_NEAR(scale("percentile", 100), most, most / 2048 * 1.001);
  for (const Calibrator& calibrator : calibrators()) {
    const double found = scale(calibrator.name.c_str());
    EXPECT_GT(found, 0.05 * most) << calibrator.name;
    EXPECT_LT(found, 1.011 * most) << calibrator.name;
  }
  EXPECT_LT(scale("percentile", 50), 0.5 * scale("percentile", 99.9));
  EXPECT_ERROR(written("w=fp8_e4m3_channel,a=fp8_e4m3_tensor_static", {0, 0, 0, "entropy"}),
               ErrorKind::kUnsupported, "take minmax");
  EXPECT_NO_THROW(written("w=fp8_e4m3_channel,a=fp8_e4m3_tensor_static", {0, 0, 0, "percentile"}));
  EXPECT_ERROR(written(format, {0, 0, 0, "entropi"}), ErrorKind::kUsage, "did you mean entropy");
}

// LLM-FP4 chooses for each layer what a reader finds in the config, and what is stored computes
// what it says.
TEST_F(QuantizedActivations, SolversChooseSplitsAndRangesOfBothSides) {
  QuantizeOptions options = small_options(dir_ / "model", dir_ / "out", R"({"steps": [
      {"algorithm": "exponent_shift"},
      {"algorithm": "llm_fp4", "rounds": 2, "steps": 10, "shortlist": 2}]})");
  options.format =
      parse_model_format("w=fp4_e3m0_channel,e=fp4_e3m0_channel,a=fp4_e3m0_tensor_static");
  const QuantizeReport report = quantize(options, *backend_);
  const auto result = open_checkpoint(dir_ / "out");
  std::set<std::string> inputs;
  bool changed = false;
  for (const LayerReport& layer : report.layers) {
    for (const ModuleReport& module : layer.modules) {
      EXPECT_EQ(result->linear(module.module).format->name(), module.format) << module.module;
      const ActivationFormatPtr activations = result->activations(module.module);
      ASSERT_NE(activations, nullptr);
      EXPECT_EQ(activations->name(), module.activations);
      EXPECT_TRUE(activations->is_complete());
      changed |= module.format != "fp4_e3m0_channel";
      inputs.insert(module.activations);
    }
  }
  EXPECT_TRUE(changed);  // powers of two alone are a poor grid
  EXPECT_NE(inputs, std::set<std::string>{"fp4_e3m0_tensor_static"});
  EXPECT_NE(result->linear("model.embed_tokens").format->name(), "fp4_e3m0_channel");

  options.output = dir_ / "fixed";
  options.recipe = parse_recipe(R"({"steps": [{"algorithm": "rtn"}]})", "test");
  quantize(options, *backend_);
  const auto source = open_checkpoint(dir_ / "model");
  const auto fixed = open_checkpoint(dir_ / "fixed");
  const Tensor before = logits(*source, source->config());
  const auto distance = [&](const Checkpoint& checkpoint) {
    const Tensor after = logits(checkpoint, checkpoint.config());
    const auto count = static_cast<std::size_t>(after.elements());
    return relative_error({after.data<float>(), count}, {before.data<float>(), count});
  };
  EXPECT_LT(distance(*result), 0.8 * distance(*fixed));
}

// The scale that is stored is that of the range which the solver chose.
TEST_F(QuantizedActivations, ChosenRangesAreStored) {
  const auto ranges = [&](const std::string& step) {
    std::filesystem::remove_all(dir_ / "out");
    QuantizeOptions options =
        small_options(dir_ / "model", dir_ / "out", R"({"steps": [)" + step + "]}");
    options.format = parse_model_format("w=fp4_e2m1_channel,a=fp4_e2m1_tensor_static");
    quantize(options, *backend_);
    const auto result = open_checkpoint(dir_ / "out");
    std::vector<double> found;
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
      const auto format = result->activations(std::string("model.layers.0.self_attn.") + name);
      found.push_back(static_cast<double>(format->fixed()[0].scale) *
                      static_cast<double>(format->largest()));
    }
    return found;
  };
  const std::vector<double> covering = ranges(R"({"algorithm": "rtn"})");
  const std::vector<double> chosen = ranges(
      R"({"algorithm": "llm_fp4", "rounds": 1, "steps": 10, "max_stretch": 0, "shortlist": 0})");
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const double tenths = 10 * chosen[i] / covering[i];
    EXPECT_NEAR(tenths, std::round(tenths), 1e-4);
    EXPECT_LT(tenths, 10.5);
    EXPECT_GT(tenths, 0.5);
  }
}

TEST_F(QuantizedActivations, ShiftsAreFoldedIntoNormsAsPowersOfTwo) {
  QuantizeOptions options = small_options(dir_ / "model", dir_ / "out", R"({"steps": [
      {"algorithm": "exponent_shift"}, {"algorithm": "rtn"}]})");
  options.format = parse_model_format("w=fp4_e2m1_channel,a=fp4_e2m1_tensor_static");
  quantize(options, *backend_);
  const std::string name = "model.layers.0.input_layernorm.weight";
  const Tensor before = to_float(open_checkpoint(dir_ / "model")->tensor(name));
  const Tensor after = to_float(open_checkpoint(dir_ / "out")->tensor(name));
  std::set<float> factors;
  for (std::int64_t j = 0; j < before.elements(); ++j) {
    factors.insert(after.data<float>()[j] / before.data<float>()[j]);
  }
  EXPECT_THAT(factors, ::testing::IsSubsetOf({1.0f, 2.0f, 4.0f, 8.0f}));  // E2: three steps
  EXPECT_GT(factors.size(), 1u);
}

// Zero points are stored as compressed-tensors stores them, less 128, and the range holds all that
// the symmetric one of the same text holds.
TEST_F(QuantizedActivations, StaticZeroPointsComeFromCalibration) {
  // What comes here is the same whatever was quantized before it.
  const std::string first = "model.layers.0.self_attn.q_proj";
  const auto symmetric = written("w=int8_channel_sym,a=int8_tensor_static");
  const double most = 127 * static_cast<double>(symmetric->activations(first)->fixed()[0].scale);
  for (const char* weights : {"int8_channel_sym", "nf4_g64"}) {
    const auto result = written(fmt::format("w={},a=int8_asym_tensor_static", weights));
    const std::string convention = result->convention();
    EXPECT_EQ(convention, weights[0] == 'i' ? "compressed-tensors" : "nibble");
    const ActivationFormatPtr format = result->activations(first);
    EXPECT_EQ(format->name(), "int8_asym_tensor_static");
    const auto [scale, zero] = format->fixed()[0];
    const Tensor stored = result->tensor(first + ".input_zero_point");
    ASSERT_EQ(stored.dtype(), DType::kI8);
    EXPECT_EQ(std::to_integer<std::int8_t>(stored.bytes()[0]), zero - 128);
    const double lo = -static_cast<double>(scale) * zero;
    const double hi = static_cast<double>(scale) * (255 - zero);
    EXPECT_NEAR(std::max(-lo, hi), most, 1.5 * static_cast<double>(scale));
    EXPECT_LT(hi - lo, 1.999 * most);
    const Tensor exact = logits(*open_checkpoint(dir_ / "model"), symmetric->config());
    const Tensor read = logits(*result, result->config());
    EXPECT_NE(read.data<float>()[0], exact.data<float>()[0]);
  }
  const auto said = written("w=int8_channel_sym,a=int8_asym_tensor_static");
  const Json& input = only_group(*said).at("input_activations");
  EXPECT_EQ(input.at("symmetric"), false);
  EXPECT_EQ(input.at("strategy"), "tensor");
  EXPECT_EQ(input.at("dynamic"), false);
}

TEST_F(QuantizedActivations, StaticZeroPointsByEveryCalibrator) {
  const std::string format = "w=int8_channel_sym,a=int4_asym_tensor_static";
  const auto most = static_cast<double>(written(format)->activations(kModule)->fixed()[0].scale);
  for (const Calibrator& calibrator : calibrators()) {
    const CalibrationOptions options = {0, 0, 0, calibrator.name};
    if (calibrator.calibrate_range == nullptr) {
      EXPECT_ERROR(written(format, options), ErrorKind::kUnsupported, "around 0");
      continue;
    }
    const auto found =
        static_cast<double>(written(format, options)->activations(kModule)->fixed()[0].scale);
    EXPECT_GT(found, 0.05 * most) << calibrator.name;
    EXPECT_LT(found, 1.08 * most) << calibrator.name;
  }
}

// One scale a column: the largest of them is that of the whole, and less is lost than under it.
TEST_F(QuantizedActivations, StaticScalesByChannelComeFromCalibration) {
  const auto whole = written("w=int8_channel_sym,a=int4_tensor_static");
  const float one = whole->activations(kModule)->fixed()[0].scale;
  const auto source = open_checkpoint(dir_ / "model");
  const Tensor exact = logits(*source, source->config());
  const auto distance = [&](const Checkpoint& checkpoint) {
    const Tensor read = logits(checkpoint, checkpoint.config());
    double sum = 0;
    for (std::int64_t i = 0; i < read.elements(); ++i) {
      sum += std::pow(double{read.data<float>()[i]} - double{exact.data<float>()[i]}, 2);
    }
    return sum;
  };
  const double of_whole = distance(*whole);
  for (const char* calibrator : {"minmax", "mse"}) {
    const auto result = written("w=int8_channel_sym,a=int4_channel_static", {0, 0, 0, calibrator});
    EXPECT_EQ(result->convention(), "nibble");
    const auto given = result->activations(kModule)->fixed();
    EXPECT_EQ(static_cast<std::int64_t>(given.size()), result->linear(kModule).cols);
    if (calibrator == std::string("minmax")) {
      EXPECT_EQ(std::ranges::max(given, {}, &AffineParams::scale).scale, one);
    }
    EXPECT_LT(distance(*result), of_whole) << calibrator;
  }
  EXPECT_NO_THROW(written("w=nf4_g64,a=int8_asym_channel_static", {0, 0, 0, "sqnr"}));
}

// LLM-FP4 searches one range around 0; other static ranges are those of the calibrator.
TEST_F(QuantizedActivations, SolversLeaveOtherStaticRangesToTheCalibrator) {
  for (const char* inputs : {"int8_asym_tensor_static", "fp4_e2m1_channel_static"}) {
    std::vector<std::vector<AffineParams>> found;
    for (const char* steps :
         {R"({"algorithm": "rtn"})",
          R"({"algorithm": "llm_fp4", "rounds": 1, "steps": 4, "shortlist": 1})"}) {
      std::filesystem::remove_all(dir_ / "out");
      QuantizeOptions options =
          small_options(dir_ / "model", dir_ / "out", fmt::format(R"({{"steps": [{}]}})", steps));
      options.format = parse_model_format(fmt::format("w=fp4_e2m1_channel,a={}", inputs));
      quantize(options, *backend_);
      const auto result = open_checkpoint(dir_ / "out");
      const auto given = result->activations("model.layers.0.self_attn.q_proj")->fixed();
      found.emplace_back(given.begin(), given.end());
    }
    EXPECT_EQ(found[0], found[1]) << inputs;
  }
}

// Columns of large inputs stay in 16 bits in the weight, and the same ones at run time.
TEST_F(QuantizedActivations, StaticOutlierColumnsComeFromCalibration) {
  const auto result = written("llm.int8_static");
  EXPECT_EQ(result->convention(), "nibble");
  EXPECT_EQ(result->activations(kModule)->name(), "int8_token_ow");
  const QuantTensor weight = result->linear(kModule);
  EXPECT_EQ(weight.format->name(), "int8_channel_sym_sbf16_x16");
  const std::vector<std::int32_t> columns = outlier_columns(weight);
  const auto source = open_checkpoint(dir_ / "model");
  const QuantTensor plain = source->linear(kModule);
  std::vector<float> a(static_cast<std::size_t>(weight.rows * weight.cols)), b(a.size());
  decode_all(weight, a.data());
  decode_all(plain, b.data());
  for (std::int64_t row = 0; row < weight.rows; ++row) {
    for (const std::int32_t column : columns) {
      const auto at = static_cast<std::size_t>(row * weight.cols + column);
      ASSERT_EQ(a[at], b[at]);  // the checkpoint is bf16
    }
  }
  // By what the layer is fed, not by its weights.
  const QuantTensor by_weights = weight.format->encode(b.data(), weight.rows, weight.cols);
  EXPECT_NE(outlier_columns(by_weights), columns);
  const Tensor read = logits(*result, result->config());
  const Tensor exact = logits(*source, source->config());
  const Tensor dynamic = logits(*source, source->config(),
                                with_half_scales(parse_model_format("w8a8_int8"), DType::kBF16));
  const auto distance = [&](const Tensor& x) {
    double sum = 0;
    for (std::int64_t i = 0; i < x.elements(); ++i) {
      const double d = double{x.data<float>()[i]} - double{exact.data<float>()[i]};
      sum += d * d;
    }
    return sum;
  };
  EXPECT_LT(distance(read), distance(dynamic));
  EXPECT_ERROR(logits(*source, source->config(), parse_model_format("w=int8,a=int8_token_ow")),
               ErrorKind::kUsage, "outlier columns");
}

}  // namespace
}  // namespace nibble::test
