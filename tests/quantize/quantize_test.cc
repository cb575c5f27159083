#include "quantize/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "quantize/plan.h"
#include "quantize/small_model.h"
#include "quantize/texts.h"
#include "runtime/session.h"
#include "support/exact_backend.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

using test::kSmallSearch;
using test::small_options;

class QuantizeTest : public testing::Test {
 protected:
  QuantizeTest() : backend_(test::exact_backend(2)) {}

  std::filesystem::path model() {
    if (!std::filesystem::exists(dir_ / "model")) test::write_small_model(dir_ / "model", 2);
    return dir_ / "model";
  }
  QuantizeOptions options(const std::string& output, const std::string& recipe) {
    return small_options(model(), dir_ / output, recipe);
  }
  std::string format_of(const std::string& output, const std::string& module) {
    return open_checkpoint(dir_ / output)->linear(module).format->name();
  }

  test::TempDir dir_;
  std::unique_ptr<Backend> backend_;
};

TEST_F(QuantizeTest, WritesCodesOfTheFormatAndKeepsTheRest) {
  const QuantizeReport report = quantize(options("out", "rtn"), *backend_);
  EXPECT_EQ(report.format, "int4_g128_asym_sbf16");
  EXPECT_EQ(report.convention, "compressed-tensors");
  EXPECT_EQ(report.recipe, "rtn");
  EXPECT_EQ(report.layers.size(), 2u);
  EXPECT_EQ(report.layers[1].modules.size(), 7u);
  EXPECT_FALSE(report.verify.has_value());
  EXPECT_GT(report.seconds, 0);
  EXPECT_GT(report.peak_anon_bytes, 0);

  const auto source = open_checkpoint(model());
  const auto result = open_checkpoint(dir_ / "out");
  for (const LayerReport& layer : report.layers) {
    for (const ModuleReport& module : layer.modules) {
      EXPECT_EQ(result->linear(module.module).format->name(), "int4_g128_asym_sbf16");
      // Round to nearest of Gaussian-like weights at 4 bits: near 1 / (15 sqrt(12)) of the range.
      EXPECT_GT(module.weight_error, 0.03);
      EXPECT_LT(module.weight_error, 0.2);
      EXPECT_FALSE(module.output_error.has_value());
    }
  }
  for (const std::string name : {"model.embed_tokens.weight", "model.norm.weight",
                                 "model.layers.1.input_layernorm.weight"}) {
    EXPECT_TRUE(std::ranges::equal(source->tensor(name).bytes(), result->tensor(name).bytes()));
  }
  EXPECT_TRUE(std::filesystem::exists(dir_ / "out/tokenizer.json"));
  EXPECT_EQ(read_text_file(model() / "tokenizer.json"),
            read_text_file(dir_ / "out/tokenizer.json"));
}

TEST_F(QuantizeTest, BitsPerWeightCountWhatIsStored) {
  const QuantizeReport report = quantize(options("out", "rtn"), *backend_);
  // Codes, a BF16 scale and a 4-bit zero point for 128 weights, and two I64 of shape a module.
  EXPECT_NEAR(report.bits_per_weight, 4 + 20.0 / 128, 0.002);
  std::int64_t bytes = 0;
  const auto result = open_checkpoint(dir_ / "out");
  for (const std::string& name : result->names()) {
    bytes += static_cast<std::int64_t>(result->tensor(name).byte_size());
  }
  EXPECT_EQ(report.output_bytes, bytes);
  const QuantizationPlan plan = plan_quantization(options("planned", "rtn"), *backend_);
  EXPECT_EQ(plan.bits_per_weight, report.bits_per_weight);
  EXPECT_EQ(plan.bits_per_weight_total, report.bits_per_weight_total);
  EXPECT_EQ(plan.output_bytes, report.output_bytes);
  EXPECT_GT(plan.peak_anon_bytes, report.peak_anon_bytes / 4);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "planned.partial"));
}

TEST_F(QuantizeTest, WritesTablesByTheConventionThatHasThem) {
  const std::pair<const char*, const char*> cases[] = {{"nf4", "nibble"},
                                                       {"nf4_dq", "nibble"},
                                                       {"mxfp4", "compressed-tensors"},
                                                       {"nvfp4", "compressed-tensors"},
                                                       {"fp8", "compressed-tensors"},
                                                       {"fp8_e5m2_tensor", "nibble"}};
  for (const auto& [name, convention] : cases) {
    SCOPED_TRACE(name);
    QuantizeOptions o = options(name, "rtn");
    o.format = parse_model_format(name);
    const QuantizeReport report = quantize(o, *backend_);
    EXPECT_EQ(report.convention, convention);
    EXPECT_EQ(report.format, o.format.weights->name());
    // What is stored is what the format makes of the source.
    const std::string module = "model.layers.1.mlp.down_proj";
    const QuantTensor source = open_checkpoint(model())->linear(module);
    std::vector<float> w(static_cast<std::size_t>(source.rows * source.cols));
    decode_all(source, w.data());
    const QuantTensor wanted = o.format.weights->encode(w.data(), source.rows, source.cols);
    const QuantTensor stored = open_checkpoint(dir_ / name)->linear(module);
    ASSERT_EQ(stored.planes.size(), wanted.planes.size());
    const bool inverse = name == std::string("nvfp4");  // of the second scale: a rounding more
    for (std::size_t i = 0; i < wanted.planes.size() - (inverse ? 1 : 0); ++i) {
      EXPECT_TRUE(std::ranges::equal(stored.planes[i].bytes(), wanted.planes[i].bytes()));
    }
  }
}

// Formats of ExLlama are written by its conventions, and read as what the solver made of the
// source.
TEST_F(QuantizeTest, WritesWhatExLlamaReads) {
  const std::string module = "model.layers.1.mlp.down_proj";
  for (const auto& [name, recipe, convention] :
       {std::tuple{"mixed_6g32p10_4g64", "rtn", "exl2"}, {"trellis4_exl3", "gptq", "exl3"}}) {
    SCOPED_TRACE(name);
    QuantizeOptions o = options(name, recipe);
    o.format = parse_model_format("bf16");
    o.overrides = {{"layers\\.1\\.mlp\\.down_proj$", parse_weight_format(name)}};
    const QuantizeReport report = quantize(o, *backend_);
    EXPECT_EQ(report.convention, convention);
    const auto result = open_checkpoint(dir_ / name);
    EXPECT_EQ(result->convention(), convention);
    const auto& modules = report.layers[1].modules;
    const auto of_module = std::ranges::find(modules, module, &ModuleReport::module);
    ASSERT_NE(of_module, modules.end());
    const QuantTensor source = open_checkpoint(model())->linear(module);
    std::vector<float> w(static_cast<std::size_t>(source.rows * source.cols)), stored(w.size());
    decode_all(source, w.data());
    decode_all(result->linear(module), stored.data());
    double error = 0, power = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      error += std::pow(double{stored[i]} - double{w[i]}, 2);
      power += double{w[i]} * double{w[i]};
    }
    EXPECT_NEAR(std::sqrt(error / power), of_module->weight_error, 1e-3 * of_module->weight_error);
    EXPECT_LT(of_module->weight_error, 0.2);
  }
}

TEST_F(QuantizeTest, SearchesJudgeTablesByWhatIsStored) {
  const char* recipe = R"({"steps": [{"algorithm": "smoothquant_plus", "step": 0.5},
                                     {"algorithm": "rtn"}]})";
  QuantizeOptions o = options("out", recipe);
  o.format = parse_model_format("nvfp4");
  EXPECT_EQ(quantize(o, *backend_).format, "fp4_e2m1_g16_se4m3_4over6");
}

TEST_F(QuantizeTest, EverySolverStoresTables) {
  for (const std::string recipe : {"clip", "gptq", "gptq_actorder"}) {
    QuantizeOptions o = options(recipe, recipe);
    o.format = parse_model_format("nf4");
    EXPECT_EQ(quantize(o, *backend_).convention, "nibble");
    EXPECT_EQ(format_of(recipe, "model.layers.1.mlp.up_proj"), o.format.weights->name());
  }
}

// The values of a float do not lie evenly, so that a row may meet them better under a wider range.
TEST_F(QuantizeTest, RangesOfFloatsMayBeWiderThanTheirWeights) {
  const std::string module = "model.layers.0.self_attn.q_proj";
  const auto written = [&](const std::string& name, const std::string& step) {
    QuantizeOptions o = options(name, R"({"steps": [{"algorithm": )" + step + "}]}");
    o.format = parse_model_format("fp8");
    const ModuleReport report = quantize(o, *backend_).layers.at(0).modules.at(0);
    EXPECT_EQ(report.module, module);
    const Tensor scales = to_float(open_checkpoint(dir_ / name)->linear(module).planes[1]);
    return std::pair(report.output_error.value(),
                     std::vector(scales.data<float>(), scales.data<float>() + scales.elements()));
  };
  const auto [covering_error, covering] =
      written("rtn", R"("clip_search", "steps": 1, "max_shrink": 0.01)");
  for (const std::string step : {R"("clip_search", "steps": 10)", R"("gptq", "clip_steps": 10)"}) {
    const auto [error, scales] =
        written(step.substr(1, 4), step + R"(, "max_shrink": 0.1, "max_stretch": 1)");
    ASSERT_EQ(scales.size(), covering.size());
    float widest = 0;
    for (std::size_t row = 0; row < scales.size(); ++row) {
      const float factor = scales[row] / covering[row];
      EXPECT_GE(factor, 0.99f * 0.9f);  // of scales that are stored in 16 bits
      EXPECT_LE(factor, 1.01f * 2);
      widest = std::max(widest, factor);
    }
    EXPECT_GT(widest, 1.2f);
    if (step.starts_with("\"clip")) {
      EXPECT_LT(error, 0.98 * covering_error);
    }
  }
}

// A sum of a quantized weight and a product runs as two linears, and is what its decoder says.
TEST_F(QuantizeTest, StoresTrellisesAndProductsOfLowRank) {
  for (const char* name : {"trellis3", "int3_g64_asym_lr2"}) {
    SCOPED_TRACE(name);
    QuantizeOptions o = options(name, "gptq_actorder");
    const FormatPtr format = parse_weight_format(name);
    o.overrides = {{"layers\\.1\\.self_attn\\.v_proj$", format}};
    EXPECT_EQ(quantize(o, *backend_).convention, "nibble");
    EXPECT_EQ(format_of(name, "model.layers.1.self_attn.v_proj"),
              with_scale_type(format, DType::kBF16)->name());
    const Session stored = open_session(dir_ / name, *backend_);
    const Batch batch = Batch::single({3, 14, 15, 9, 26, 5, 35});
    const Tensor logits = stored.model->logits(batch);
    // The same model with every weight decoded before.
    ModelSpec spec = stored.model->spec();
    const auto source = open_checkpoint(dir_ / name);
    std::vector<float> hidden(static_cast<std::size_t>(batch.rows() * spec.hidden));
    run_embedding(spec, load_embedding(spec, *source, *backend_), batch, *backend_, hidden.data());
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      run_layer(spec, layer, load_layer_f32(spec, layer, *source, *backend_), batch, *backend_,
                hidden.data());
    }
    const Tensor found = stored.model->hidden(batch);
    EXPECT_LT(test::relative_error({found.data<float>(), hidden.size()}, hidden), 1e-5);
    EXPECT_EQ(logits.dim(0), batch.rows());
  }
}

TEST_F(QuantizeTest, OverridesCountFromTheFirst) {
  QuantizeOptions o = options("out", "rtn");
  o.overrides = {{"layers\\.0\\.mlp\\.down_proj$", parse_weight_format("bf16")},
                 {"down_proj", parse_weight_format("int8_channel_sym")},
                 {"o_proj", parse_weight_format("int8_channel_sym_sf32")}};
  quantize(o, *backend_);
  EXPECT_EQ(format_of("out", "model.layers.0.mlp.down_proj"), "bf16");
  EXPECT_EQ(format_of("out", "model.layers.1.mlp.down_proj"), "int8_channel_sym_sbf16");
  EXPECT_EQ(format_of("out", "model.layers.0.self_attn.o_proj"), "int8_channel_sym_sf32");
  EXPECT_EQ(format_of("out", "model.layers.1.mlp.up_proj"), "int4_g128_asym_sbf16");
}

TEST_F(QuantizeTest, OverridesThatCannotBeMeantAreRefused) {
  QuantizeOptions o = options("out", "rtn");
  o.overrides = {{"no_such_module", parse_weight_format("int8")}};
  EXPECT_ERROR(quantize(o, *backend_), ErrorKind::kUsage, "matches no module");
  o.overrides = {{"(", parse_weight_format("int8")}};
  EXPECT_ERROR(quantize(o, *backend_), ErrorKind::kUsage, "override '('");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out.partial"));
}

TEST_F(QuantizeTest, GroupsThatDoNotDivideAreMadeSmallerAloud) {
  QuantizeOptions o = options("out", "rtn");
  o.format = parse_model_format("int4_g512");  // 256 and 768 columns
  const QuantizeReport report = quantize(o, *backend_);
  EXPECT_EQ(format_of("out", "model.layers.0.self_attn.q_proj"), "int4_g256_asym_sbf16");
  EXPECT_THAT(report.notes, testing::Contains(testing::HasSubstr("int4_g256_asym_sbf16 instead")));
}

TEST_F(QuantizeTest, GroupsThatNeverDivideLeaveTheModulePlain) {
  QuantizeOptions o = options("out", "rtn");
  o.format = parse_model_format("int4_g96");  // 768 = 8 * 96, 256 has no such divisor
  const QuantizeReport report = quantize(o, *backend_);
  EXPECT_EQ(format_of("out", "model.layers.0.mlp.down_proj"), "int4_g96_asym_sbf16");
  EXPECT_EQ(format_of("out", "model.layers.0.self_attn.q_proj"), "bf16");
  EXPECT_THAT(report.notes, testing::Contains(testing::HasSubstr("left as bf16")));
}

TEST_F(QuantizeTest, EmbeddingsAreQuantizedWhenAsked) {
  QuantizeOptions o = options("out", "rtn");
  o.format = parse_model_format("w=int4_g128,e=int8_channel_sym");
  quantize(o, *backend_);
  EXPECT_EQ(format_of("out", "model.embed_tokens"), "int8_channel_sym_sbf16");
  const Session session = open_session(dir_ / "out", *backend_);
  const Tensor logits = session.model->logits(Batch::single({1, 5, 343}));
  for (std::int64_t i = 0; i < logits.elements(); ++i) {
    ASSERT_TRUE(std::isfinite(logits.data<float>()[i]));
  }
}

TEST_F(QuantizeTest, FloatFormatsKeepTheFunctionExactly) {
  QuantizeOptions o = options("out", "rtn");
  o.format = parse_model_format("w=f32");
  quantize(o, *backend_);
  const std::vector<std::int32_t> ids = {1, 5, 343, 275, 305, 28};
  const Tensor before = open_session(model(), *backend_).model->logits(Batch::single(ids));
  const Tensor after = open_session(dir_ / "out", *backend_).model->logits(Batch::single(ids));
  EXPECT_LE(
      test::max_abs_error({after.data<float>(), static_cast<std::size_t>(after.elements())},
                          {before.data<float>(), static_cast<std::size_t>(before.elements())}),
      1e-5);
}

TEST_F(QuantizeTest, ReportsTheSearch) {
  const QuantizeReport report = quantize(options("out", kSmallSearch), *backend_);
  ASSERT_TRUE(report.search.has_value());
  EXPECT_LE(report.search->loss, report.search->identity_loss);
  EXPECT_GT(report.search->candidates, 5);
  std::vector<std::string> coordinates;
  for (const auto& [coordinate, option] : report.search->chosen) coordinates.push_back(coordinate);
  EXPECT_THAT(coordinates, testing::ElementsAre("attn_in", "attn_out", "mlp_in", "mlp_down"));
  EXPECT_EQ(report.calibration_tokens, 384);
  EXPECT_TRUE(report.layers[0].modules[0].output_error.has_value());
}

TEST_F(QuantizeTest, NanWeightsNameTheTensor) {
  test::write_small_model(dir_ / "broken", 2, [](const std::string& name, std::span<float> v) {
    if (name == "model.layers.1.mlp.up_proj.weight") v[77] = NAN;
  });
  for (const char* recipe : {"rtn", "clip", kSmallSearch}) {
    const QuantizeOptions o = small_options(dir_ / "broken", dir_ / "out", recipe);
    EXPECT_ERROR(quantize(o, *backend_), ErrorKind::kCorrupt, "1");
    EXPECT_FALSE(std::filesystem::exists(dir_ / "out"));
    EXPECT_FALSE(std::filesystem::exists(dir_ / "out.partial"));
  }
  const QuantizeOptions o = small_options(dir_ / "broken", dir_ / "out", "rtn");
  EXPECT_ERROR(quantize(o, *backend_), ErrorKind::kCorrupt, "model.layers.1.mlp.up_proj.weight");
}

TEST_F(QuantizeTest, InfiniteActivationsNameTheLayer) {
  test::write_small_model(dir_ / "broken", 2, [](const std::string& name, std::span<float> v) {
    if (name != "model.layers.1.mlp.gate_proj.weight" &&
        name != "model.layers.1.mlp.up_proj.weight")
      return;
    for (float& value : v) value *= 1e30f;
  });
  const QuantizeOptions o = small_options(dir_ / "broken", dir_ / "out", "clip");
  EXPECT_ERROR(quantize(o, *backend_), ErrorKind::kCorrupt, "layer 1");
}

TEST_F(QuantizeTest, RefusesTargetsThatExistAndSourcesThatAreQuantized) {
  quantize(options("out", "rtn"), *backend_);
  EXPECT_ERROR(quantize(options("out", "rtn"), *backend_), ErrorKind::kUsage, "exists");
  EXPECT_ERROR(quantize(small_options(dir_ / "out", dir_ / "twice", "rtn"), *backend_),
               ErrorKind::kUnsupported, "already");
  EXPECT_ERROR(quantize(small_options(dir_ / "none", dir_ / "twice", "rtn"), *backend_),
               ErrorKind::kCorrupt, "none");
}

TEST_F(QuantizeTest, CalibrationTextMustBeThereAndUtf8) {
  QuantizeOptions o = options("out", "clip");
  write_file_atomic(dir_ / "bad", "abc\xff");
  o.calibration_files = {dir_ / "bad"};
  EXPECT_ERROR(quantize(o, *backend_), ErrorKind::kUsage, "UTF-8");
  write_file_atomic(dir_ / "empty", "");
  o.calibration_files = {dir_ / "empty"};
  EXPECT_ERROR(quantize(o, *backend_), ErrorKind::kUsage, "too few");
  o.calibration_files = {dir_ / "missing"};
  EXPECT_ERROR(quantize(o, *backend_), ErrorKind::kCorrupt, "missing");
}

TEST_F(QuantizeTest, AMissedBarIsSaidOnceTheOutputIsComplete) {
  QuantizeOptions o = options("out", "rtn");
  o.verify.enabled = true;
  o.verify.tokens = 256;
  o.verify.context = 128;
  o.verify.fail_above_kl = 1e-6;
  QuantizeReport report;
  EXPECT_ERROR(quantize(o, *backend_, &report), ErrorKind::kQuality, "KL");
  EXPECT_TRUE(std::filesystem::exists(dir_ / "out/config.json"));
  ASSERT_TRUE(report.verify.has_value());
  EXPECT_GT(report.verify->mean_kl, 1e-6);
  EXPECT_EQ(report.verify->nan, 0);

  o.output = dir_ / "good";
  o.verify.fail_above_kl = 10;
  EXPECT_EQ(quantize(o, *backend_).verify->mean_kl, report.verify->mean_kl);
}

TEST_F(QuantizeTest, VerifyingOnTheCalibrationTextIsRefused) {
  QuantizeOptions o = options("out", "clip");
  write_file_atomic(dir_ / "text", bundled_calibration_text().substr(0, 20000));
  o.verify.enabled = true;
  o.verify.text = dir_ / "text";
  EXPECT_ERROR(quantize(o, *backend_), ErrorKind::kUsage, "calibration text");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out.partial"));
}

// Random-weight checkpoints of every architecture: float formats write back exactly what was read
// (fused experts, transposed linears, shared heads), integer ones load and compute.
TEST(QuantizeArchitectures, WriteBackWhatTheyRead) {
  NIBBLE_NEEDS_DATA("oracles");
  const auto backend = test::exact_backend(2);
  test::TempDir dir;
  for (const auto& entry : std::filesystem::directory_iterator(test::data_dir() / "oracles")) {
    const std::string name = entry.path().filename().string();
    SCOPED_TRACE(name);
    const std::vector<std::int32_t> ids = {3, 14, 15, 9, 2, 6};
    const Tensor before = open_session(entry.path(), *backend).model->logits(Batch::single(ids));
    for (const std::string format : {"w=f32", "w=int8_channel_sym"}) {
      QuantizeOptions o = small_options(entry.path(), dir / (name + format), "rtn");
      o.format = parse_model_format(format);
      quantize(o, *backend);
      const Tensor after = open_session(o.output, *backend).model->logits(Batch::single(ids));
      const double error =
          test::relative_error({after.data<float>(), static_cast<std::size_t>(after.elements())},
                               {before.data<float>(), static_cast<std::size_t>(before.elements())});
      EXPECT_LE(error, format == "w=f32" ? 1e-6 : 0.1) << format;
    }
  }
}

// A few steps of learning give back a good part of what rounding to nearest took.
TEST_F(QuantizeTest, LearnedRoundingLowersTheDivergence) {
  const auto divergence = [&](const char* recipe) {
    QuantizeOptions o = options(recipe[0] == '{' ? "learned" : "nearest", recipe);
    o.format = parse_model_format("w3a16_g128");
    o.calibration = {4096, 128, 128};
    o.verify.enabled = true;
    o.verify.tokens = 2048;
    o.verify.context = 256;
    return quantize(o, *backend_).verify->mean_kl;
  };
  const double learned =
      divergence(R"({"steps": [{"algorithm": "autoround", "iterations": 16, "batch": 8}]})");
  EXPECT_LT(learned, 0.7 * divergence("rtn"));
}

TEST_F(QuantizeTest, LearnedRoundingRefusesWhatHasNoSteps) {
  QuantizeOptions o = options("out", R"({"steps": [{"algorithm": "autoround"}]})");
  o.format = parse_model_format("nf4");
  EXPECT_ERROR(quantize(o, *backend_), ErrorKind::kUnsupported, "take 'gptq'");
}

// The bars of docs/recipes.md, on a short text so that the test takes seconds: every method must
// recover the share of round-to-nearest's loss that it does on the whole text, with some margin.
TEST(QuantizeQuality, RecipesRecoverWhatRoundToNearestLoses) {
  const auto backend = test::exact_backend();
  test::TempDir dir;
  const auto measure = [&](const std::string& recipe) {
    QuantizeOptions o;
    o.source = test::tiny_novel();
    o.output = dir / recipe;
    o.recipe = load_recipe(recipe);
    o.calibration = {4096, 1024, 512};
    o.verify.tokens = 6144;
    const QuantizeReport report = quantize(o, *backend);
    EXPECT_EQ(report.verify->nan, 0);
    return *report.verify;
  };
  const VerifyResult rtn = measure("rtn");
  const VerifyResult clip = measure("clip");
  const VerifyResult smooth = measure("smoothquant+");
  EXPECT_LT(rtn.perplexity / rtn.perplexity_reference, 1.16);
  EXPECT_LT(clip.mean_kl, 0.90 * rtn.mean_kl);
  EXPECT_LT(smooth.mean_kl, 0.95 * rtn.mean_kl);
}

}  // namespace
}  // namespace nibble
