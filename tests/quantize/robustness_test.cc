// What calibration may meet: experts that saw little, channels that are always zero, moments that
// have no inverse, less text than was asked for. Each is said aloud or does no harm.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/checkpoint.h"
#include "formats/registry.h"
#include "model/arch.h"
#include "quantize/algorithm.h"
#include "quantize/small_model.h"
#include "support/exact_backend.h"

namespace nibble {
namespace {

using test::small_options;

// The bundled model's first layer as a mixture of four experts, all alike. One direction of the
// input decides between the first two; the others are never chosen.
void write_mixture(const std::filesystem::path& target) {
  const auto source = open_checkpoint(test::tiny_novel());
  const std::string layer = "model.layers.0.";
  std::map<std::string, Tensor> tensors;
  for (const std::string& name : source->names()) {
    if (name.starts_with("model.layers.") && !name.starts_with(layer)) continue;
    const Tensor tensor = source->tensor(name);
    const bool mlp = name.find(".mlp.") != std::string::npos;
    if (!mlp) tensors[name] = tensor;
    for (const auto& [from, to] :
         {std::pair("gate_proj", "w1"), std::pair("down_proj", "w2"), std::pair("up_proj", "w3")}) {
      if (!mlp || name.find(from) == std::string::npos) continue;
      for (int e = 0; e < 4; ++e) {
        tensors[fmt::format("{}block_sparse_moe.experts.{}.{}.weight", layer, e, to)] = tensor;
      }
    }
  }
  std::vector<float> router(4 * 256, 0.0f);
  for (std::size_t j = 0; j < 256; ++j) {
    router[j] = j % 2 == 0 ? 1.0f : -1.0f;
    router[256 + j] = -router[j];
  }
  tensors[layer + "block_sparse_moe.gate.weight"] =
      from_float(router.data(), DType::kBF16, {4, 256});
  std::vector<StoredTensor> plan;
  for (const auto& [name, tensor] : tensors) plan.push_back({name, tensor.dtype(), tensor.shape()});
  std::filesystem::create_directory(target);
  ShardedWriter writer(target, plan);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
  copy_companions(*source, target);
  Json config = source->config();
  config["num_hidden_layers"] = 1;
  config["architectures"] = {"MixtralForCausalLM"};
  config["model_type"] = "mixtral";
  config["num_local_experts"] = 4;
  config["num_experts_per_tok"] = 1;
  write_config(target, config, nullptr);
}

bool computes_numbers(const std::filesystem::path& path, Backend& backend) {
  const auto source = open_checkpoint(path);
  const Tensor logits = Model(build_spec(source->config()), *source, backend)
                            .logits(Batch::single({3, 14, 15, 9, 2, 6}));
  const float* values = logits.data<float>();
  return std::all_of(values, values + logits.elements(), [](float v) { return std::isfinite(v); });
}

TEST(Robustness, ExpertsThatSawLittleAreNamedWithTheirCount) {
  const auto backend = test::exact_backend(2);
  test::TempDir dir;
  write_mixture(dir / "mixture");
  for (const char* recipe : {"gptq", R"({"steps": [{"algorithm": "sequential_mse"}]})",
                             R"({"steps": [{"algorithm": "autoround", "iterations": 2}]})"}) {
    SCOPED_TRACE(recipe);
    std::filesystem::remove_all(dir / "out");
    const auto report = quantize(small_options(dir / "mixture", dir / "out", recipe), *backend);
    const bool learned = std::string(recipe).find("autoround") != std::string::npos;
    // One of the two that share the 256 tokens got less than a quarter of the 768 channels.
    if (!learned) {
      EXPECT_THAT(report.notes,
                  testing::Contains(testing::ContainsRegex(
                      "experts.[01].w2: [0-9]+ tokens came here, too few for 768 channels")));
    } else {
      EXPECT_THAT(report.notes,
                  testing::Contains(testing::HasSubstr("experts.3.w1: no token came")));
    }
    EXPECT_TRUE(computes_numbers(dir / "out", *backend));
  }
  std::filesystem::remove_all(dir / "out");
  const auto report = quantize(small_options(dir / "mixture", dir / "out", "clip"), *backend);
  EXPECT_THAT(report.notes,
              testing::Contains(testing::HasSubstr("2 experts saw no calibration token")));
}

TEST(Robustness, DeadChannelsDoNoHarm) {
  const auto backend = test::exact_backend(2);
  test::TempDir dir;
  test::write_small_model(dir / "model", 1, [](const std::string& name, std::span<float> v) {
    if (name.ends_with("layernorm.weight")) v[5] = 0;  // an input that is always zero
    if (name.ends_with("up_proj.weight")) std::fill_n(v.begin() + 7 * 256, 256, 0.0f);
    if (name.ends_with("o_proj.weight")) std::fill_n(v.begin(), 256, 0.0f);
  });
  const std::string floats = R"({"format": "w=fp4_e2m1_channel,a=fp4_e2m1_tensor_static", "steps": [
      {"algorithm": "exponent_shift"}, {"algorithm": "llm_fp4", "steps": 6, "rounds": 1}]})";
  for (const std::string& recipe :
       {std::string("rtn"), std::string("clip"), std::string(test::kSmallSearch),
        std::string("gptq"), std::string("best"), std::string("awq"), std::string("seqmse"),
        std::string(R"({"steps": [{"algorithm": "cross_layer_equalization", "pairs": "all"},
                                  {"algorithm": "autoround", "iterations": 3, "batch": 2}]})"),
        floats}) {
    SCOPED_TRACE(recipe);
    std::filesystem::remove_all(dir / "out");
    quantize(small_options(dir / "model", dir / "out", recipe), *backend);
    EXPECT_TRUE(computes_numbers(dir / "out", *backend));
  }
}

TEST(Robustness, LessTextThanAskedForIsSaidWithTheNumber) {
  const auto backend = test::exact_backend(2);
  test::TempDir dir;
  test::write_small_model(dir / "model", 1);
  QuantizeOptions options = small_options(dir / "model", dir / "out", "clip");
  options.calibration.tokens = 10'000'000;
  const QuantizeReport report = quantize(options, *backend);
  EXPECT_THAT(report.notes,
              testing::Contains(testing::ContainsRegex("[0-9]+ tokens of the 10000000 asked for")));
}

// Of one matrix with these moments.
Solution solve(const FormatPtr& format, const std::vector<float>& w, const Hessian& hessian,
               double damping, Backend& backend) {
  const Algorithm& gptq = *find_algorithm("gptq");
  Parameters parameters;
  for (const ParameterSpec& spec : gptq.parameters) parameters[spec.name] = spec.value;
  parameters["damping"] = damping;
  const auto cols = hessian.channels;
  const auto rows = static_cast<std::int64_t>(w.size()) / cols;
  return gptq.solve({format, w.data(), rows, cols, {}, &hessian, backend.pool(), backend},
                    parameters);
}

TEST(Robustness, MomentsWithoutAnInverseAreDampedOrLeftAloneAndSaid) {
  const auto backend = test::exact_backend(1);
  const FormatPtr format = parse_weight_format("int4_g16_asym");
  std::vector<float> w(4 * 16);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = std::sin(static_cast<float>(i));
  Hessian hessian;
  hessian.channels = 16;
  hessian.rows = 100;
  hessian.moments.assign(16 * 16, 1.0);  // of one token again and again: rank 1
  EXPECT_THAT(solve(format, w, hessian, 0, *backend).note,
              testing::HasSubstr("needed a damping of"));
  EXPECT_EQ(solve(format, w, hessian, 0.01, *backend).note, "");
  for (std::size_t i = 0; i < 16; ++i) hessian.moments[i * 17] = -1;
  const Solution nearest = solve(format, w, hessian, 0.01, *backend);
  EXPECT_THAT(nearest.note, testing::HasSubstr("not positive definite"));
  std::vector<float> found(w.size()), expected(w.size());
  decode_all(nearest.stored, found.data());
  decode_all(format->encode(w.data(), 4, 16), expected.data());
  EXPECT_EQ(found, expected);
}

// In the last of many parts of a matrix, and in a norm.
TEST(Robustness, NumbersThatAreNoneAreNamed) {
  struct Case {
    std::string tensor;
    std::string said;
  };
  const std::string layer = "model.layers.0.";
  for (const Case& damaged : {Case{layer + "mlp.down_proj.weight", "element 196607 is nan"},
                              Case{layer + "input_layernorm.weight", "element 255 is nan"}}) {
    test::TempDir dir;
    test::write_small_model(dir / "model", 1, [&](const std::string& name, std::span<float> all) {
      if (name == damaged.tensor) all.back() = std::nanf("");
    });
    const auto backend = test::exact_backend(2);
    const QuantizeOptions options = small_options(dir / "model", dir / "out", "rtn");
    EXPECT_ERROR(quantize(options, *backend), ErrorKind::kCorrupt,
                 "tensor '" + damaged.tensor + "': " + damaged.said);
  }
}

}  // namespace
}  // namespace nibble
