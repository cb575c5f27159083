// Conversions between conventions: which are exact, and that it is said.
#include "checkpoint/convert.h"

#include <algorithm>

#include "checkpoint/exact_form.h"
#include "checkpoint/input_scales.h"
#include "checkpoint/writer.h"
#include "formats/registry.h"
#include "support/golden_checkpoint.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;

constexpr std::int64_t kRows = 32, kCols = 128;

constexpr const char* kModule = "model.layers.0.mlp.up_proj";

std::vector<float> sample() {
  std::vector<float> values(kRows * kCols);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = 0.01f * static_cast<float>(static_cast<int>(i * 7919 % 2003) - 900);
  }
  return values;
}

QuantTensor encoded(const std::string& format) {
  return parse_weight_format(format)->encode(sample().data(), kRows, kCols);
}

// A checkpoint of one quantized module and one plain tensor.
std::filesystem::path write_model(const std::filesystem::path& dir, const QuantTensor& weight,
                                  const WeightEncoding& encoding = nibble_encoding(),
                                  const std::string& activations = "f32") {
  QuantizedModule module{kModule, weight.format, kRows, kCols};
  module.activations = parse_activation_format(activations);
  std::vector<StoredTensor> plan = encoding.plan(module);
  plan.push_back({"model.norm.weight", DType::kF32, {kCols}});
  std::filesystem::create_directories(dir);
  ShardedWriter writer(dir, plan);
  for (const auto& [name, tensor] : encoding.encode(module.module, weight)) {
    writer.write(name, tensor);
  }
  if (module.has_static_input()) {
    const int zero = module.activations->descriptor().symmetric ? 0 : 77;
    const auto given = module.activations->with_scales({{0.125f, zero}});
    for (const auto& [name, tensor] : input_scales(module.module, *given)) {
      writer.write(name, tensor);
    }
  }
  writer.write("model.norm.weight", from_float(sample().data(), DType::kF32, {kCols}));
  writer.finish();
  write_config(dir, {{"model_type", "llama"}, {"torch_dtype", "bfloat16"}},
               encoding.quantization_config({module}, {}));
  return dir;
}

ConvertReport convert(const std::filesystem::path& from, const std::filesystem::path& to,
                      const std::string& target, bool requantize = false,
                      const std::string& format = "") {
  return convert_checkpoint(*open_checkpoint(from), to, {target, requantize, format});
}

std::vector<float> values_of(const std::filesystem::path& path) {
  std::vector<float> values(kRows * kCols);
  decode_all(open_checkpoint(path)->linear(kModule), values.data());
  return values;
}

struct Case {
  const char* format;
  const char* target;
  bool exact;
};

class Conversions : public testing::TestWithParam<Case> {};

TEST_P(Conversions, AreExactWhereTheTableSaysSoAndRefusedElsewhere) {
  const Case& c = GetParam();
  TempDir dir;
  const auto source = write_model(dir / "source", encoded(c.format));
  if (!c.exact) {
    EXPECT_ERROR(convert(source, dir / "out", c.target), ErrorKind::kUnsupported, kModule);
    EXPECT_ERROR(convert(source, dir / "out", c.target), ErrorKind::kUnsupported, "--requantize");
    EXPECT_FALSE(std::filesystem::exists(dir / "out"));
    const ConvertReport report = convert(source, dir / "out", c.target, true);
    EXPECT_FALSE(report.exact());
    EXPECT_EQ(report.requantized, std::vector<std::string>{kModule});
    return;
  }
  EXPECT_TRUE(convert(source, dir / "out", c.target).exact());
  EXPECT_EQ(values_of(dir / "out"), values_of(source));
  EXPECT_TRUE(open_checkpoint(dir / "out")->has("model.norm.weight"));
}

constexpr Case kCases[] = {
    {"int4_g32_asym_sf16", "gptq", true},
    {"int4_g32_asym_sf16", "gptq_v2", true},
    {"int4_g32_asym_sf16", "awq", true},
    {"int4_g32_sym_sf16", "awq", true},  // with zero points written out
    {"int4_g32_sym_strict_sf16", "awq", true},
    {"int4_g32_asym_sf16", "compressed-tensors", true},
    {"int4_g32_asym_sbf16", "awq", true},  // F16 holds these scales of 8 digits
    {"int4_g32_asym_sf32", "awq", false},
    {"int4_b16x32_asym_sf16", "compressed-tensors", false},
    {"int3_channel_sym_sbf16", "gptq", true},
    {"int8_tensor_sym_sf16", "gptq", true},  // the scale once a row
    {"int5_g32_sym_sf16", "gptq", false},
    {"fp8_e4m3_channel_sf32", "compressed-tensors", true},
    {"fp8_e4m3_b16x32_sf32", "compressed-tensors", true},
    {"fp8_e4m3_b16x32_sf32", "fp8", true},
    {"fp8_e4m3_tensor_sbf16", "fp8", true},
    {"fp8_e4m3_channel_sf32", "fp8", false},
    {"mxfp4", "compressed-tensors", true},
    {"fp8_e4m3_g32_se8m0", "compressed-tensors", true},
    {"nvfp4", "modelopt", true},
    {"mxfp4", "modelopt", false},
    {"fp8_e4m3_b16x32_sf32", "modelopt", false},
    {"fp8_e4m3_b16x32_sf32", "nibble", true},
    {"int8_channel_sym_sbf16", "bnb", true},
    {"int8_g32_sym_sf32", "bnb", false},
    {"nf4_g64_sf32", "bnb", true},
    {"nf4_g64_sf16", "bnb", true},  // scales in the wider type
    {"nf4_g64_sdq8", "bnb", true},
    {"bnb4_g64_sf32", "bnb", true},
    {"int4_g32_asym_sf16", "bnb", false},
    {"nf4_g64_sf32", "compressed-tensors", false},
    {"mixed_6g32x1_4g64", "exl2", true},
    {"mixed_8g32p30_3g64", "nibble", true},
    {"mixed_4g128", "hf", true},
    {"mixed_4g128", "gptq", false},
    {"int4_g32_sym_sf16", "exl2", false},
    {"nf4_g64_sf32", "hf", true},
    {"int4_g32_asym_sf16", "hf", true},
};
INSTANTIATE_TEST_SUITE_P(, Conversions, testing::ValuesIn(kCases), [](const auto& test) {
  std::string name = std::string(test.param.format) + "_to_" + test.param.target;
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST(ExactForm, TakesNarrowerScalesOnlyWhenTheyHoldTheValues) {
  const auto to_awq = [](const char* format) {
    const QuantTensor weight = encoded(format);
    return exact_form(weight, {kModule, weight.format, kRows, kCols}, awq_encoding());
  };
  EXPECT_EQ(to_awq("int4_g32_sym_sbf16").weight->format->name(), "int4_g32_asym");
  EXPECT_FALSE(to_awq("int4_g32_asym_sf32").weight.has_value());
  EXPECT_EQ(to_awq("int4_g32_asym_sf32").refusal, "AWQ has scales in F16");
}

// Of the golden checkpoint, whose head is filled up: every tensor gets its bytes back but what
// fills it up.
TEST(Convert, Exl2IsWrittenAsItWasRead) {
  TempDir dir;
  const auto source = test::golden_checkpoint("exl2");
  EXPECT_TRUE(convert(source, dir / "out", "exl2").exact());
  const auto before = open_checkpoint(source), after = open_checkpoint(dir / "out");
  EXPECT_EQ(after->names(), before->names());
  for (const std::string& name : before->names()) {
    const Tensor a = before->tensor(name), b = after->tensor(name);
    EXPECT_EQ(a.shape(), b.shape()) << name;
    if (name.starts_with("lm_head.q_weight") || name.starts_with("lm_head.q_scale")) continue;
    EXPECT_TRUE(std::ranges::equal(a.bytes(), b.bytes())) << name;
  }
}

TEST(Convert, RoundsToTheFormatThatIsAskedFor) {
  TempDir dir;
  const auto source = write_model(dir / "source", encoded("nf4_g64_sf32"));
  convert(source, dir / "out", "gptq", true, "w8a16_g128");
  const QuantTensor weight = open_checkpoint(dir / "out")->linear(kModule);
  EXPECT_EQ(weight.format->name(), "int8_g128_asym_sbf16");  // the type of the model
  const std::vector<float> values = values_of(source);
  const QuantTensor expected = weight.format->encode(values.data(), kRows, kCols);
  EXPECT_EQ(difference(weight, expected), "");
  EXPECT_ERROR(convert(source, dir / "other", "gptq", true, "nf4_dq"), ErrorKind::kUsage,
               "--format");
}

TEST(Convert, PlainWeightsNameATypeThatHoldsThem) {
  TempDir dir;
  convert(write_model(dir / "source", encoded("nf4_g64_sf32")), dir / "out", "hf");
  const auto plain = open_checkpoint(dir / "out");
  EXPECT_EQ(plain->convention(), "hf");
  EXPECT_EQ(plain->linear(kModule).format->name(), "f32");
  EXPECT_EQ(plain->config().at("torch_dtype"), "float32");
}

TEST(Convert, KeepsWhatInputsAreRoundedToOrRefuses) {
  TempDir dir;
  const QuantTensor w8a8 = encoded("int8_channel_sym_sbf16");
  for (const std::string activations :
       {"int8_token", "int8_tensor_static", "int8_asym_tensor_static"}) {
    const auto source = write_model(dir / activations, w8a8, nibble_encoding(), activations);
    const auto out = dir / (activations + "_ct");
    EXPECT_TRUE(convert(source, out, "compressed-tensors").exact());
    const auto converted = open_checkpoint(out);
    EXPECT_EQ(converted->config()["quantization_config"]["format"], "int-quantized");
    ASSERT_NE(converted->activations(kModule), nullptr);
    EXPECT_EQ(converted->activations(kModule)->name(), activations);
  }
  const auto source = dir / "int8_token";
  for (const char* target : {"gptq", "hf"}) {
    EXPECT_ERROR(convert(source, dir / target, target), ErrorKind::kUnsupported, "activations");
    const ConvertReport report = convert(source, dir / target, target, true);
    EXPECT_FALSE(report.exact());
    EXPECT_TRUE(report.requantized.empty());
    EXPECT_EQ(report.dropped_activations, std::vector<std::string>{kModule});
    EXPECT_EQ(values_of(dir / target), values_of(source));
  }
}

// FP8 of Model Optimizer is of weights and inputs.
TEST(Convert, WritesFp8OfModelOptWithWhatInputsAreRoundedTo) {
  TempDir dir;
  const std::pair<const char*, const char*> pairs[] = {
      {"fp8_e4m3_tensor_sf32", "fp8_e4m3_tensor_static"},
      {"fp8_e4m3_channel_sf32", "fp8_e4m3_token"}};
  for (const auto& [weights, activations] : pairs) {
    const QuantTensor weight = encoded(weights);
    const auto source = write_model(dir / activations, weight, nibble_encoding(), activations);
    const auto out = dir / (std::string(activations) + "_out");
    EXPECT_TRUE(convert(source, out, "modelopt").exact());
    const auto converted = open_checkpoint(out);
    EXPECT_EQ(converted->convention(), "modelopt");
    EXPECT_EQ(converted->activations(kModule)->name(), activations);
    EXPECT_EQ(values_of(out), values_of(source));
    EXPECT_TRUE(converted->notes().empty());
    EXPECT_TRUE(
        convert(out, dir / (std::string(activations) + "_ct"), "compressed-tensors").exact());
  }
  const auto plain = write_model(dir / "plain", encoded("fp8_e4m3_tensor_sf32"));
  EXPECT_ERROR(convert(plain, dir / "no", "modelopt"), ErrorKind::kUnsupported,
               "rounds inputs too");
  const auto other = write_model(dir / "other", encoded("fp8_e4m3_tensor_sf32"), nibble_encoding(),
                                 "fp8_e4m3_token");
  EXPECT_ERROR(convert(other, dir / "no", "modelopt"), ErrorKind::kUnsupported,
               "not to fp8_e4m3_token");
}

// No float32 divided by 127 gives this scale.
TEST(Convert, RefusesWhatTheFileRoundsEvenWhenItsFormatCanSayIt) {
  TempDir dir;
  QuantTensor weight = encoded("int8_channel_sym_sf32");
  weight.planes[1] =
      from_float(std::vector<float>(kRows, 1.2692794799804688f).data(), DType::kF32, {kRows, 1});
  const auto source = write_model(dir / "source", weight);
  EXPECT_ERROR(convert(source, dir / "out", "bnb"), ErrorKind::kUnsupported, "values differ");
  EXPECT_FALSE(std::filesystem::exists(dir / "out"));
  EXPECT_EQ(convert(source, dir / "out", "bnb", true).requantized.size(), 1u);
}

TEST(Convert, RefusesColumnsInAnotherOrderOfWhichPlainWeightsHoldTheValues) {
  TempDir dir;
  const auto source = test::golden_checkpoint("act_order");
  EXPECT_ERROR(convert(source, dir / "gptq", "gptq"), ErrorKind::kUnsupported, "module 'asym'");
  EXPECT_TRUE(convert(source, dir / "hf", "hf").exact());
  const auto a = open_checkpoint(source), b = open_checkpoint(dir / "hf");
  EXPECT_EQ(difference(a->linear("asym"), b->linear("asym")), "");
}

TEST(Convert, SaysHowValuesDiffer) {
  const std::vector<float> values = sample();
  const QuantTensor a = parse_weight_format("f32")->encode(values.data(), kRows, kCols);
  std::vector<float> changed = values;
  changed[7] += 0.5f;
  changed[kCols] = -changed[kCols];
  const QuantTensor b = parse_weight_format("f32")->encode(changed.data(), kRows, kCols);
  EXPECT_EQ(difference(a, a), "");
  EXPECT_THAT(difference(a, b), testing::StartsWith("2 of 4096 values differ, by "));
  const QuantTensor fewer = parse_weight_format("f32")->encode(values.data(), kRows, kCols / 2);
  EXPECT_EQ(difference(a, fewer), "[32, 128] instead of [32, 64]");
}

TEST(Convert, GoesRoundThroughEveryConventionOfIntegers) {
  TempDir dir;
  const auto source =
      write_model(dir / "0", encoded("int4_g32_asym_sf16"), compressed_tensors_encoding());
  std::filesystem::path last = source;
  for (const char* target : {"gptq", "awq", "gptq_v2", "nibble", "compressed-tensors"}) {
    EXPECT_TRUE(convert(last, dir / target, target).exact());
    last = dir / target;
  }
  const auto a = open_checkpoint(source), b = open_checkpoint(last);
  EXPECT_EQ(a->names(), b->names());
  for (const std::string& name : a->names()) {
    EXPECT_TRUE(std::ranges::equal(a->tensor(name).bytes(), b->tensor(name).bytes())) << name;
  }
}

TEST(Convert, SaysWhatItCannotDo) {
  TempDir dir;
  const auto source = write_model(dir / "source", encoded("int4_g32_asym_sf16"), gptq_encoding());
  EXPECT_ERROR(convert(source, dir / "out", "aqlm"), ErrorKind::kUsage, "gptq_v2");
  EXPECT_ERROR(convert(source, source, "awq"), ErrorKind::kUsage, "exists");
  EXPECT_ERROR(convert(test::tiny_novel(), dir / "out", "awq"), ErrorKind::kUsage,
               "nibble quantize");
}

TEST(Convert, MakesSafetensorsOfWhatTorchSaved) {
  TempDir dir;
  EXPECT_ERROR(convert(test::golden_checkpoint("torch_bin"), dir / "gptq", "gptq"),
               ErrorKind::kUsage, "no quantized weights");
  EXPECT_TRUE(convert(test::golden_checkpoint("torch_bin"), dir / "out", "hf").exact());
  EXPECT_TRUE(std::filesystem::exists(dir / "out/model.safetensors"));
  EXPECT_EQ(open_checkpoint(dir / "out")->names(),
            open_checkpoint(test::golden_checkpoint("torch_bin"))->names());
}

}  // namespace
}  // namespace nibble
