// Rotations: the matrices by themselves, whole models before and after, and what is written.
#include "quantize/math/rotation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "checkpoint/input_transforms.h"
#include "model/arch.h"
#include "model/oracles.h"
#include "quantize/quantize.h"
#include "quantize/recipe.h"
#include "quantize/small_model.h"
#include "support/exact_backend.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST(HadamardSigns, AreOrthogonal) {
  for (const std::int64_t n : {1, 4, 8, 12, 20, 24, 28, 36, 60, 76, 104, 180}) {
    const std::vector<std::int8_t> signs = hadamard_signs(n);
    ASSERT_EQ(static_cast<std::int64_t>(signs.size()), n * n) << n;
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        const auto row = signs.begin() + i * n;
        ASSERT_EQ(std::inner_product(row, row + n, signs.begin() + j * n, 0), i == j ? n : 0) << n;
        ASSERT_EQ(std::abs(row[j]), 1);
      }
    }
  }
  for (const std::int64_t n : {2, 3, 6, 16, 40, 92, 116}) EXPECT_THAT(hadamard_signs(n), IsEmpty());
}

// Q by rows, in float64.
std::vector<double> matrix(const Rotation& rotation) {
  const std::int64_t n = rotation.size();
  std::vector<double> q;
  for (std::int64_t i = 0; i < n; ++i) {
    std::vector<float> unit(static_cast<std::size_t>(n), 0.0f);
    unit[static_cast<std::size_t>(i)] = 1;
    rotation.apply(unit.data());
    q.insert(q.end(), unit.begin(), unit.end());
  }
  return q;
}

struct RotationCase {
  std::int64_t size, block;
};

class RotationTest : public testing::TestWithParam<RotationCase> {};

TEST_P(RotationTest, IsOrthogonalMixesABlockAndKeepsTheMean) {
  const auto [n, block] = GetParam();
  const double rounding = static_cast<double>(n + 16) * test::unit_roundoff(DType::kF32);
  for (const bool random : {false, true}) {
    for (const bool keeps_mean : {false, true}) {
      const Rotation rotation({n, random, 7, keeps_mean});
      ASSERT_EQ(rotation.block(), block);
      const std::vector<double> q = matrix(rotation);
      double largest = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          const auto row = q.begin() + i * n;
          const double dot = std::inner_product(row, row + n, q.begin() + j * n, 0.0);
          ASSERT_NEAR(dot, i == j ? 1 : 0, rounding);
          largest = std::max(largest, std::abs(row[j]));
        }
      }
      // Of a Hadamard matrix all elements are equally large.
      const double one = 1 / std::sqrt(static_cast<double>(block));
      EXPECT_NEAR(largest, one, keeps_mean ? 1 : 1e-6);
      if (!keeps_mean || block == 1) continue;
      std::vector<float> ones(static_cast<std::size_t>(n), 1.0f);
      rotation.apply(ones.data());
      for (const float value : ones) ASSERT_NEAR(value, 1, rounding);
      if (random && block >= 32) {
        EXPECT_LT(largest, 4 * one);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, RotationTest,
                         testing::Values(RotationCase{1, 1}, RotationCase{2, 2}, RotationCase{6, 2},
                                         RotationCase{7, 1}, RotationCase{24, 24},
                                         RotationCase{64, 64}, RotationCase{80, 80},
                                         RotationCase{92, 4}, RotationCase{180, 180},
                                         RotationCase{360, 360}));

TEST(Rotation, RowsAreRotatedAsVectors) {
  ThreadPool pool(2);
  const std::int64_t n = 12, cols = 37, begin = 3;
  const Rotation rotation({n, true, 3, false});
  std::vector<float> w(static_cast<std::size_t>((n + 2 * begin) * cols));
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = std::sin(static_cast<float>(i));
  std::vector<float> expected = w;
  const std::vector<double> q = matrix(rotation);
  for (std::int64_t c = 0; c < cols; ++c) {
    for (std::int64_t r = 0; r < n; ++r) {
      double sum = 0;
      for (std::int64_t k = 0; k < n; ++k) {
        sum += static_cast<double>(w[static_cast<std::size_t>((begin + k) * cols + c)]) *
               q[static_cast<std::size_t>(k * n + r)];
      }
      expected[static_cast<std::size_t>((begin + r) * cols + c)] = static_cast<float>(sum);
    }
  }
  rotate_rows(rotation, begin, cols, w.data(), pool);
  EXPECT_LE(test::max_abs_error(w, expected), 1e-5);
}

Recipe recipe(const std::string& step) {
  return parse_recipe(R"({"format": "w=bf16", "steps": [{"algorithm": "rotate", )" + step +
                          R"(}, {"algorithm": "rtn"}]})",
                      "test");
}

// Everything at once.
constexpr const char* kAll = R"("value_output": "folded", "down": "online")";

// The unit roundoff of the narrowest type that weights are stored in.
double stored_roundoff(const Checkpoint& checkpoint) {
  double roundoff = 0;
  for (const std::string& name : checkpoint.names()) {
    const DType type = checkpoint.tensor(name).dtype();
    if (is_float_weight(type)) roundoff = std::max(roundoff, test::unit_roundoff(type));
  }
  return roundoff;
}

class RotatedModel : public testing::TestWithParam<std::filesystem::path> {
 protected:
  // The relative error of the logits against those of the model's own tool, in units of what the
  // stored types round away.
  double error(const std::string& step) {
    test::Oracle oracle(GetParam());
    notes.clear();
    const double roundoff = stored_roundoff(*oracle.checkpoint);
    const Batch batch = Batch::windows(oracle.all_ids(), oracle.length());
    const Tensor before = Model(oracle.spec, *oracle.checkpoint, *oracle.backend).logits(batch);
    const auto source =
        rewritten(recipe(step), std::move(oracle.checkpoint), *oracle.backend, notes);
    const Model model(build_spec(source->config()), *source, *oracle.backend);
    const Tensor after = model.logits(batch);
    return test::relative_error(test::floats(after), test::floats(before)) / roundoff;
  }
  std::vector<std::string> notes;
};

// Weights, biases and norms are rounded once more; random models of two layers amplify that.
TEST_P(RotatedModel, ComputesTheSame) {
  const test::Oracle oracle(GetParam());
  LayerWeights layer = load_layer(oracle.spec, 0, *oracle.checkpoint, *oracle.backend);
  const bool plain = std::ranges::all_of(layer.linears(), [](const Linear* linear) {
    return linear->weight.canonical.format->is_float();
  });
  if (!plain) {
    EXPECT_ERROR(error(kAll), ErrorKind::kUnsupported, "16-bit checkpoint");
    return;
  }
  for (const char* step :
       {R"("value_output": "none")", kAll, R"("kind": "hadamard", "value_output": "online")"}) {
    EXPECT_LT(error(step), 50) << step;
    const bool rotates = std::ranges::none_of(
        notes, [](const std::string& n) { return n.find("residual stream of") != n.npos; });
    const ResidualForm form = oracle.spec.residual;
    EXPECT_EQ(rotates, (form == ResidualForm::kPre || form == ResidualForm::kParallel) &&
                           !oracle.spec.embed_norm);
  }
}

INSTANTIATE_TEST_SUITE_P(All, RotatedModel, testing::ValuesIn(test::oracle_directories()),
                         [](const auto& test) { return test::oracle_name(test.param); });

// What LayerNorm would subtract is no longer written: it would only widen the ranges of weights.
TEST(RotatedLayerNorms, MeanIsTakenOutOfWhatWritesIntoTheStream) {
  test::Oracle oracle(test::source_dir() / "tests/golden/archs/gpt2_unscaled_untied");
  std::vector<std::string> notes;
  const auto source = rewritten(recipe(R"("value_output": "none")"), std::move(oracle.checkpoint),
                                *oracle.backend, notes);
  const LayerWeights layer = load_layer(oracle.spec, 1, *source, *oracle.backend);
  const EmbeddingWeights embedding = load_embedding(oracle.spec, *source, *oracle.backend);
  // Sums over the first dimension, and over the second.
  const auto largest_sum = [](const Tensor& stored, bool of_rows) {
    const Tensor values = to_float(stored);
    const std::int64_t rows = stored.dim(0);
    const std::int64_t cols = stored.elements() / rows;
    std::vector<double> sums(static_cast<std::size_t>(of_rows ? cols : rows), 0.0);
    for (std::int64_t i = 0; i < values.elements(); ++i) {
      sums[static_cast<std::size_t>(of_rows ? i % cols : i / cols)] +=
          static_cast<double>(values.data<float>()[i]);
    }
    return std::abs(*std::ranges::max_element(sums, {}, [](double v) { return std::abs(v); }));
  };
  for (const Linear* writer : {&layer.o, &layer.mlp.down}) {
    EXPECT_LT(largest_sum(writer->weight.canonical.planes[0], true), 0.01);
    ASSERT_FALSE(writer->bias.empty());
    EXPECT_LT(largest_sum(writer->bias.reshaped({1, writer->bias.elements()}), false), 0.01);
  }
  EXPECT_LT(largest_sum(embedding.table.planes[0], false), 0.01);
  EXPECT_GT(largest_sum(layer.mlp.up.weight.canonical.planes[0], true), 0.1);
}

class RotatedOutput : public testing::Test {
 protected:
  RotatedOutput() : backend_(test::exact_backend(2)) { test::write_small_model(dir_ / "model", 2); }

  QuantizeReport write(const std::string& name, const Recipe& recipe) {
    QuantizeOptions options;
    options.source = dir_ / "model";
    options.output = dir_ / name;
    options.recipe = recipe;
    options.verify.enabled = false;
    return quantize(options, *backend_);
  }

  std::vector<float> logits(const Checkpoint& checkpoint) {
    std::vector<std::int32_t> ids(48);
    std::iota(ids.begin(), ids.end(), 100);
    const Model model(build_spec(checkpoint.config()), checkpoint, *backend_);
    const Tensor logits = model.logits(Batch::single(ids));
    return {test::floats(logits).begin(), test::floats(logits).end()};
  }
  double error(const std::string& name) {
    return test::relative_error(logits(*open_checkpoint(dir_ / name)),
                                logits(*open_checkpoint(dir_ / "model")));
  }

  test::TempDir dir_;
  std::unique_ptr<Backend> backend_;
};

TEST_F(RotatedOutput, FoldedIsAPlainCheckpointWithAHeadOfItsOwn) {
  const QuantizeReport report = write("out", recipe(R"("value_output": "folded")"));
  EXPECT_EQ(report.convention, "hf");
  EXPECT_THAT(report.notes, Contains(HasSubstr("untied")));
  const auto source = open_checkpoint(dir_ / "model");
  const auto result = open_checkpoint(dir_ / "out");
  EXPECT_FALSE(result->config().contains("quantization_config"));
  EXPECT_EQ(result->config().at("tie_word_embeddings"), false);
  std::vector<std::string> names = source->names();
  names.push_back("lm_head.weight");
  EXPECT_THAT(result->names(), testing::UnorderedElementsAreArray(names));
  for (const std::string& name : source->names()) {
    EXPECT_EQ(result->tensor(name).dtype(), source->tensor(name).dtype());
    EXPECT_EQ(result->tensor(name).shape(), source->tensor(name).shape());
  }
  const Tensor gains = to_float(result->tensor("model.norm.weight"));
  for (const float gain : test::floats(gains)) EXPECT_EQ(gain, 1);
  EXPECT_LT(error("out"), 20 * test::unit_roundoff(DType::kBF16));
  EXPECT_EQ(report.output_bytes,
            static_cast<std::int64_t>(source->byte_size() +
                                      source->tensor("model.embed_tokens.weight").byte_size()));
}

TEST_F(RotatedOutput, SaysWhatInputsAreMultipliedBy) {
  const std::int64_t block = std::min<std::int64_t>(
      1024, hadamard_size(build_spec(open_checkpoint(dir_ / "model")->config()).mlp.intermediate));
  Recipe quantized = recipe(kAll);
  quantized.format = "w8a8_int8";
  Recipe table = recipe(kAll);
  table.format = "nf4";
  const std::tuple<const char*, Recipe, const char*, double> cases[] = {
      {"plain", recipe(kAll), "nibble", 0.02},
      {"int8", quantized, "compressed-tensors", 0.05},
      {"nf4", table, "nibble", 0.3}};
  for (const auto& [name, steps, convention, tolerance] : cases) {
    SCOPED_TRACE(name);
    write(name, steps);
    const auto result = open_checkpoint(dir_ / name);
    EXPECT_EQ(result->convention(), convention);
    EXPECT_EQ(result->input_hadamard("model.layers.1.mlp.down_proj"), block);
    EXPECT_EQ(result->input_hadamard("model.layers.1.mlp.up_proj"), 0);
    EXPECT_EQ(result->input_hadamard("model.layers.1.self_attn.o_proj"), 0);
    EXPECT_LT(error(name), tolerance);
  }
}

TEST_F(RotatedOutput, DependsOnTheSeedAlone) {
  write("a", recipe(R"("seed": 1)"));
  write("b", recipe(R"("seed": 1)"));
  write("c", recipe(R"("seed": 2)"));
  test::expect_same_directories(dir_ / "a", dir_ / "b");
  const auto bytes = [&](const char* name) {
    const Tensor tensor = open_checkpoint(dir_ / name)->tensor("model.embed_tokens.weight");
    return std::vector<std::byte>(tensor.bytes().begin(), tensor.bytes().end());
  };
  EXPECT_NE(bytes("a"), bytes("c"));
}

// Each step of the recipe takes its share: the rotations of what rounded inputs cost, the solver of
// what weights do, seen by 4 bits of them, as a short text tells little about 8.
TEST_F(RotatedOutput, IsSolvedByTheInputsThatTheRotationLeaves) {
  const auto divergence = [&](const std::string& name, const std::string& format) {
    const auto output = dir_ / (name + format);
    QuantizeOptions options = test::small_options(dir_ / "model", output, name);
    options.format = parse_model_format(format);
    options.calibration = {4096, 128, 512};
    options.verify.enabled = true;
    options.verify.tokens = 4096;
    options.verify.context = 512;
    return quantize(options, *backend_).verify->mean_kl;
  };
  EXPECT_LT(divergence("rotate_online", "w8a8_int8"), 0.4 * divergence("rtn", "w8a8_int8"));
  const std::string few_bits = "w=int4_channel_sym,a=int8_token";
  EXPECT_LT(divergence("rotate_online+best_8bit", few_bits),
            0.92 * divergence("rotate_online", few_bits));
}

Json transforms(const Json& scheme) {
  return {{"transform_config", {{"config_groups", {{"R4", scheme}}}}}};
}

TEST(InputTransforms, ReadsWhatCompressedTensorsWrites) {
  const Json scheme = {
      {"type", "hadamard"},
      {"apply",
       {{{"targets", {"re:.*down_proj$"}},
         {"location", "input"},
         {"ignore", {"re:.*layers\\.0\\..*"}}},
        {{"targets", {"re:.*down_proj$"}}, {"location", "weight_input"}, {"inverse", true}},
        {{"targets", "re:.*attn$"}, {"location", "q_attn"}}}},
      {"head_dim", 64}};
  const InputTransforms read(transforms(scheme), "config");
  EXPECT_EQ(read.block("model.layers.1.mlp.down_proj"), 64);
  EXPECT_EQ(read.block("model.layers.0.mlp.down_proj"), 0);
  EXPECT_EQ(read.block("model.layers.1.mlp.up_proj"), 0);
  Json whole = scheme;
  whole.erase("head_dim");
  EXPECT_EQ(InputTransforms(transforms(whole), "config").block("model.layers.1.mlp.down_proj"),
            WeightSource::kWholeInput);
  EXPECT_EQ(InputTransforms(Json(), "config").block("a"), 0);
}

TEST(InputTransforms, RefusesWhatItCannotCompute) {
  const auto with = [](const char* key, const Json& value) {
    Json scheme = {{"type", "hadamard"}, {"apply", {{{"targets", {"a"}}, {"location", "input"}}}}};
    scheme[key] = value;
    return transforms(scheme);
  };
  const auto read = [](const Json& json) { return InputTransforms(json, "config"); };
  constexpr ErrorKind kUnsupported = ErrorKind::kUnsupported, kCorrupt = ErrorKind::kCorrupt;
  EXPECT_ERROR(read(with("type", "random-matrix")), kUnsupported, "'random-matrix'");
  EXPECT_ERROR(read(with("randomize", true)), kUnsupported, "random order");
  EXPECT_ERROR(read(with("apply", {{{"targets", {"a"}}, {"location", "output"}}})), kUnsupported,
               "'output'");
  EXPECT_ERROR(read(with("apply", 1)), kCorrupt, "no list 'apply'");
  EXPECT_ERROR(read(with("apply", {1})), kCorrupt, "no object");
  EXPECT_ERROR(read(with("apply", {{{"targets", {1}}, {"location", "input"}}})), kCorrupt,
               "no string");
  EXPECT_ERROR(read(with("head_dim", 0)), kCorrupt, "head_dim 0");
  EXPECT_ERROR(read(with("head_dim", "x")), kCorrupt, "no integer");
  EXPECT_ERROR(read({{"transform_config", {{"a", 1}}}}), kCorrupt, "config_groups");
  EXPECT_ERROR(read({{"transform_config", 3}}), kCorrupt, "config_groups");
}

TEST(RotateRecipe, RewritesComeFirst) {
  EXPECT_ERROR(parse_recipe(R"({"steps": [{"algorithm": "smoothquant_plus"},
                                          {"algorithm": "rotate"}, {"algorithm": "rtn"}]})",
                            "test"),
               ErrorKind::kUsage, "must come before 'smoothquant_plus'");
}

}  // namespace
}  // namespace nibble
