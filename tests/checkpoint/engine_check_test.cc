// What engines refuse of checkpoints.
#include "checkpoint/engine_check.h"

#include <algorithm>

#include "checkpoint/writer.h"
#include "formats/registry.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;

struct Module {
  std::string name, format;
  std::int64_t rows = 128, cols = 128;
};

std::filesystem::path write_model(const std::filesystem::path& dir,
                                  const std::vector<Module>& modules,
                                  const WeightEncoding& encoding,
                                  const Json& change = Json::object()) {
  std::vector<QuantizedModule> quantized;
  std::vector<StoredTensor> plan;
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const Module& m : modules) {
    std::vector<float> values(static_cast<std::size_t>(m.rows * m.cols));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 17) - 8;
    const QuantTensor weight = parse_weight_format(m.format)->encode(values.data(), m.rows, m.cols);
    if (weight.format->is_float()) {
      tensors.emplace_back(m.name + ".weight", weight.planes[0]);
      plan.push_back({m.name + ".weight", weight.planes[0].dtype(), {m.rows, m.cols}});
      continue;
    }
    quantized.push_back({m.name, weight.format, m.rows, m.cols});
    for (const StoredTensor& t : encoding.plan(quantized.back())) plan.push_back(t);
    std::ranges::move(encoding.encode(m.name, weight), std::back_inserter(tensors));
  }
  std::filesystem::create_directories(dir);
  ShardedWriter writer(dir, plan);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
  Json quantization = encoding.quantization_config(quantized, {});
  quantization.update(change);
  write_config(dir, {{"model_type", "llama"}}, quantization);
  return dir;
}

// "refused MODULE: WHAT" of each finding.
std::vector<std::string> findings(const std::filesystem::path& model, const std::string& engine,
                                  std::int64_t parallel = 1) {
  std::vector<std::string> lines;
  for (const auto& f : check_for_engine(*open_checkpoint(model), engine, parallel)) {
    lines.push_back((f.refused ? "refused " : "note ") + f.module + ": " + f.what);
  }
  return lines;
}

const std::string kLayer = "model.layers.0.";
constexpr const char* kInt4 = "int4_g32_sym_sf16";

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(EngineCheck, AcceptsWhatVllmTakes) {
  TempDir dir;
  const auto model = write_model(dir / "m",
                                 {{kLayer + "self_attn.q_proj", kInt4},
                                  {kLayer + "self_attn.k_proj", kInt4},
                                  {kLayer + "mlp.down_proj", kInt4}},
                                 compressed_tensors_encoding());
  EXPECT_THAT(findings(model, "vllm"), IsEmpty());
  EXPECT_THAT(findings(model, "sglang"), IsEmpty());
}

TEST(EngineCheck, NamesMembersOfFusedGroupsThatDiffer) {
  TempDir dir;
  const auto model = write_model(dir / "m",
                                 {{kLayer + "self_attn.q_proj", kInt4},
                                  {kLayer + "self_attn.v_proj", "int8_g32_sym_sf16"},
                                  {kLayer + "mlp.gate_proj", kInt4},
                                  {kLayer + "mlp.up_proj", "bf16"}},
                                 compressed_tensors_encoding());
  EXPECT_THAT(findings(model, "vllm"),
              ElementsAre(HasSubstr("refused " + kLayer + "mlp.up_proj: 16 bits beside"),
                          HasSubstr("refused " + kLayer + "self_attn.v_proj: int8")));
}

TEST(EngineCheck, NamesShapesThatDevicesCannotShare) {
  TempDir dir;
  const auto model = write_model(dir / "m",
                                 {{kLayer + "mlp.down_proj", "int4_g128_sym_sf16", 128, 256},
                                  {kLayer + "mlp.up_proj", "int4_g128_sym_sf16", 256, 128}},
                                 compressed_tensors_encoding());
  EXPECT_THAT(findings(model, "vllm", 2), IsEmpty());
  EXPECT_THAT(findings(model, "vllm", 4),
              ElementsAre(HasSubstr("down_proj: 64 columns of each device break groups of 128")));
  EXPECT_THAT(findings(model, "vllm", 8),
              ElementsAre(HasSubstr("break groups"), HasSubstr("note " + kLayer + "mlp.up_proj")));
  EXPECT_THAT(findings(model, "vllm", 3),
              ElementsAre(HasSubstr("refused"), HasSubstr("3 devices")));
}

TEST(EngineCheck, NamesPlainLinearsThatTheConfigClaims) {
  TempDir dir;
  const std::vector<Module> modules = {{kLayer + "mlp.down_proj", kInt4}, {"lm_head", "bf16"}};
  const auto targets = [](const Json& ignore) {
    return Json{{"ignore", ignore},
                {"config_groups",
                 {{"group_0",
                   {{"targets", {"Linear"}},
                    {"format", "pack-quantized"},
                    {"weights",
                     {{"num_bits", 4},
                      {"type", "int"},
                      {"symmetric", true},
                      {"strategy", "group"},
                      {"group_size", 32}}}}}}}};
  };
  const auto& encoding = compressed_tensors_encoding();
  EXPECT_THAT(findings(write_model(dir / "a", modules, encoding, targets(Json::array())), "vllm"),
              ElementsAre(HasSubstr("refused lm_head: plain weights")));
  EXPECT_THAT(findings(write_model(dir / "b", modules, encoding, targets({"re:.*head"})), "vllm"),
              IsEmpty());
}

TEST(EngineCheck, NamesConventionsThatAreNotRead) {
  TempDir dir;
  const auto model = write_model(dir / "m", {{kLayer + "mlp.down_proj", kInt4}}, nibble_encoding());
  EXPECT_THAT(findings(model, "vllm"), ElementsAre(HasSubstr("nibble alone")));
  const auto golden = test::source_dir() / "tests/golden/checkpoint";
  EXPECT_THAT(findings(golden / "exl2", "vllm"), ElementsAre(HasSubstr("ExLlama alone")));
  EXPECT_THAT(findings(golden / "exl3", "sglang"), ElementsAre(HasSubstr("ExLlama alone")));
  const auto gguf = golden / "gguf/model.gguf";
  EXPECT_THAT(findings(gguf, "vllm"), ElementsAre(HasSubstr("plugin")));
  EXPECT_THAT(findings(gguf, "sglang"), IsEmpty());
  EXPECT_THAT(findings(gguf, "llama.cpp"), IsEmpty());
  EXPECT_THAT(findings(test::tiny_novel(), "vllm"), IsEmpty());
  EXPECT_THAT(findings(test::tiny_novel(), "llama.cpp"),
              ElementsAre(HasSubstr("convert --to gguf")));
  const auto other = test::source_dir() / "tests/golden/archs/opt_plain_norm_no_bias";
  EXPECT_THAT(findings(other, "llama.cpp"), ElementsAre(HasSubstr("GGUF"), HasSubstr("'opt'")));
  EXPECT_ERROR(findings(model, "ollama"), ErrorKind::kUsage, "llama.cpp");
}

}  // namespace
}  // namespace nibble
