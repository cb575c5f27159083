// AIMET's JSON of encodings: what it says about a code is what the format decodes.
#include "checkpoint/aimet_encodings.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "formats/affine.h"
#include "formats/registry.h"
#include "support/test_data.h"

namespace nibble {
namespace {

// Modules in memory.
class Modules : public WeightSource {
 public:
  void add(const std::string& module, const char* format, ActivationFormatPtr input = nullptr) {
    std::vector<float> w(4 * 32);
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i] = std::sin(static_cast<float>(i * i)) * static_cast<float>(1 + i / 32);
    }
    weights_[module] = parse_weight_format(format)->encode(w.data(), 4, 32);
    inputs_[module] = std::move(input);
  }
  bool has(const std::string&) const override { return false; }
  Tensor tensor(const std::string&) const override { return {}; }
  std::vector<std::string> names() const override { return {}; }
  bool has_linear(const std::string& module) const override { return weights_.contains(module); }
  QuantTensor linear(const std::string& module) const override { return weights_.at(module); }
  ActivationFormatPtr activations(const std::string& module) const override {
    return inputs_.at(module);
  }

 private:
  std::map<std::string, QuantTensor> weights_;
  std::map<std::string, ActivationFormatPtr> inputs_;
};

Json encodings(const Modules& source, const std::string& module, EncodingsSchema schema) {
  return parse_json(aimet_encodings(source, {module}, schema).json, "encodings");
}

// scale * (code + offset) of every element, from the JSON alone, is what the format decodes.
void expect_values(const QuantTensor& weight, const std::function<double(std::int64_t)>& scale,
                   const std::function<double(std::int64_t)>& offset, std::int64_t groups) {
  const int bits = weight.format->descriptor().element.bits;
  std::vector<float> decoded(4 * 32);
  decode_all(weight, decoded.data());
  for (std::int64_t row = 0; row < 4; ++row) {
    std::vector<std::uint8_t> codes(32);
    const std::size_t width = weight.planes[0].byte_size() / 4;
    unpack_codes(weight.planes[0].bytes().data() + static_cast<std::size_t>(row) * width, bits, 0,
                 32, codes.data());
    for (std::int64_t col = 0; col < 32; ++col) {
      const std::int64_t at = groups == 0 ? 0 : row * groups + col / (32 / groups);
      const double value = scale(at) * (codes[static_cast<std::size_t>(col)] + offset(at));
      const auto expected = static_cast<double>(decoded[static_cast<std::size_t>(row * 32 + col)]);
      EXPECT_NEAR(value, expected, std::abs(expected) * 1e-6);
    }
  }
}

TEST(AimetEncodings, SayWhatTheFormatDecodes) {
  Modules source;
  const std::map<std::string, std::pair<const char*, std::int64_t>> formats = {
      {"tensor", {"int8_tensor_sym_sf32", 0}},
      {"channel", {"int4_channel_asym_sbf16", 1}},
      {"group", {"int4_g16_asym", 2}},
      {"group_sym", {"int3_g16_sym", 2}}};
  for (const auto& [module, format] : formats) {
    SCOPED_TRACE(module);
    source.add(module, format.first);
    const QuantTensor weight = source.linear(module);
    const std::int64_t groups = format.second;
    const Json listed = encodings(source, module, EncodingsSchema::k100);
    EXPECT_EQ(listed.at("version"), "1.0.0");
    EXPECT_TRUE(listed.at("activation_encodings").empty());
    const Json& entry = listed.at("param_encodings").at(0);
    EXPECT_EQ(entry.at("name"), module + ".weight");
    EXPECT_EQ(entry.at("dtype"), "INT");
    EXPECT_EQ(entry.at("bw"), weight.format->descriptor().element.bits);
    EXPECT_EQ(entry.at("is_sym"), weight.format->descriptor().scheme.symmetric);
    EXPECT_EQ(entry.at("enc_type"), groups == 0   ? "PER_TENSOR"
                                    : groups == 1 ? "PER_CHANNEL"
                                                  : "PER_BLOCK");
    EXPECT_EQ(entry.contains("block_size"), groups == 2);
    const auto number = [](const Json& list, std::int64_t at) {
      return list.at(static_cast<std::size_t>(at)).get<double>();
    };
    expect_values(
        weight, [&](std::int64_t at) { return number(entry.at("scale"), at); },
        [&](std::int64_t at) { return number(entry.at("offset"), at); }, groups);

    const Json onnx = encodings(source, module, EncodingsSchema::k200).at("encodings").at(0);
    const int half = 1 << (weight.format->descriptor().element.bits - 1);
    const bool symmetric = !onnx.contains("y_zero_point");
    EXPECT_EQ(symmetric, weight.format->descriptor().scheme.symmetric);
    const auto nested = [&](const char* key, std::int64_t at) {
      const Json& values = onnx.at(key);
      if (groups == 0) return values.get<double>();
      const Json& row = values.at(static_cast<std::size_t>(at / groups));
      return groups == 1 ? row.get<double>() : number(row, at % groups);
    };
    expect_values(
        weight, [&](std::int64_t at) { return nested("y_scale", at); },
        [&](std::int64_t at) { return symmetric ? -half : -nested("y_zero_point", at); }, groups);
    if (groups == 2) continue;
    const Json map = encodings(source, module, EncodingsSchema::k061);
    const Json& list = map.at("param_encodings").at(module + ".weight");
    expect_values(
        weight,
        [&](std::int64_t at) {
          return list.at(static_cast<std::size_t>(at)).at("scale").get<double>();
        },
        [&](std::int64_t at) {
          return list.at(static_cast<std::size_t>(at)).at("offset").get<double>();
        },
        groups);
    for (const Json& one : list) {
      const auto step = one.at("scale").get<double>();
      EXPECT_NEAR(one.at("max").get<double>() - one.at("min").get<double>(), step * (2 * half - 1),
                  step * 1e-4);
    }
  }
}

TEST(AimetEncodings, InputsHaveThoseOfTheirScale) {
  Modules source;
  const auto input = parse_activation_format("int8_tensor_static")->with_scales({{0.25f, 0}});
  source.add("m", "int8_channel_sym", input);
  const Json listed =
      encodings(source, "m", EncodingsSchema::k100).at("activation_encodings").at(0);
  EXPECT_EQ(listed.at("name"), "m.input.0");
  EXPECT_EQ(listed.at("scale"), Json::array({0.25}));
  EXPECT_EQ(listed.at("offset"), Json::array({-128}));
  const Json map = encodings(source, "m", EncodingsSchema::k061);
  EXPECT_EQ(map.at("activation_encodings").at("m").at("input").at("0").at("min"), -32.0);
  const Json all = encodings(source, "m", EncodingsSchema::k200).at("encodings");
  EXPECT_EQ(all.size(), 2u);
  EXPECT_EQ(all.at(0).at("output_dtype"), "int8");
  EXPECT_EQ(all.at(0).at("y_scale"), 0.25);
}

TEST(AimetEncodings, WhatTheyCannotSay) {
  Modules source;
  source.add("table", "nf4_g32");
  source.add("group", "int4_g16_asym");
  source.add("plain", "bf16");
  source.add("dynamic", "int8_channel_sym", parse_activation_format("int8_token"));
  EXPECT_ERROR(aimet_encodings(source, {"table"}, EncodingsSchema::k100), ErrorKind::kUnsupported,
               "table");
  EXPECT_ERROR(aimet_encodings(source, {"group"}, EncodingsSchema::k061), ErrorKind::kUnsupported,
               "take 1.0.0");
  source.add("columns", "int8_channel_sym",
             parse_activation_format("int8_channel_static")->with_scales({{0.5f, 0}, {0.25f, 0}}));
  EXPECT_ERROR(aimet_encodings(source, {"columns"}, EncodingsSchema::k100), ErrorKind::kUnsupported,
               "one static scale");
  EXPECT_ERROR(parse_encodings_schema("3"), ErrorKind::kUsage, "1.0.0");
  const EncodingsFile file = aimet_encodings(source, {"plain", "dynamic"}, EncodingsSchema::k200);
  EXPECT_EQ(file.plain, std::vector<std::string>{"plain"});
  EXPECT_EQ(file.dynamic, std::vector<std::string>{"dynamic"});
}

}  // namespace
}  // namespace nibble
