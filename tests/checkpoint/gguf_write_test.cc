// GGUF files that nibble writes: the container, the mixtures of presets, what is exact.
#include <algorithm>

#include "checkpoint/container/gguf_writer.h"
#include "checkpoint/convert.h"
#include "checkpoint/gguf_preset.h"
#include "checkpoint/imatrix.h"
#include "checkpoint/writer.h"
#include "formats/block_forms.h"
#include "formats/registry.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;

TEST(GgufWriter, WritesWhatTheReaderReads) {
  TempDir dir;
  GgufMetadata metadata;
  metadata.add("text", "a \xc3\xa4");
  metadata.add("flag", true);
  metadata.add_u16("small", 65535);
  metadata.add_u32("count", 4294967295);
  metadata.add_i32("less", -5);
  metadata.add_f32("real", 0.25);
  const std::vector<std::string> texts = {"x", "", "yz"};
  metadata.add("texts", std::span<const std::string>(texts));
  const std::vector<float> reals = {1.5f, -2};
  metadata.add("reals", std::span<const float>(reals));
  EXPECT_ERROR(metadata.add_u32("wide", std::uint64_t{1} << 32), ErrorKind::kUnsupported, "wide");
  const GgufType f32 = gguf_type_of(DType::kF32).value();
  {
    GgufWriter writer(dir / "x.gguf", metadata,
                      {{"one", f32, {3}}, {"two", gguf_type_of(BlockType::kQ8_0), {2, 32}}});
    const std::vector<float> values = {1, 2, 3};
    const std::string blocks(68, '\7');
    const auto bytes = std::as_bytes(std::span(blocks));
    writer.write("two", 34, bytes.subspan(34));
    writer.write("two", 0, bytes.first(34));
    writer.write("one", 0, std::as_bytes(std::span(values)));
    EXPECT_ERROR(writer.write("two", 60, bytes.first(9)), ErrorKind::kInternal, "");
    EXPECT_ERROR(writer.write("three", 0, bytes.first(1)), ErrorKind::kInternal, "");
    writer.sync();
  }
  const GgufFile file(dir / "x.gguf");
  const Json& read = file.header().metadata;
  EXPECT_EQ(read.at("text"), "a \xc3\xa4");
  EXPECT_EQ(read.at("flag"), true);
  EXPECT_EQ(read.at("small"), 65535);
  EXPECT_EQ(read.at("count"), 4294967295);
  EXPECT_EQ(read.at("less"), -5);
  EXPECT_EQ(read.at("real"), 0.25);
  EXPECT_EQ(read.at("texts"), Json(texts));
  EXPECT_EQ(read.at("reals"), Json(reals));
  const auto& tensors = file.header().tensors;
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[1].offset, 32u);
  EXPECT_EQ(tensors[1].shape, (Shape{2, 32}));
  EXPECT_EQ(file.read(tensors[0]).data<float>()[2], 3.0f);
  EXPECT_TRUE(std::ranges::all_of(file.read(tensors[1]).bytes(),
                                  [](std::byte b) { return b == std::byte{7}; }));
}

// The names of types as llama.cpp spells them.
std::string capitals(const GgufType& type) {
  std::string name = type.name();
  if (name == "mxfp4_gguf") return "MXFP4";
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return name;
}

// Against the types that llama.cpp's own quantizer gave (tests/golden/checkpoint/gguf_presets).
TEST(GgufPreset, GivesTheTypesOfLlamaCpp) {
  const Json golden = read_json_file(
      (test::source_dir() / "tests/golden/checkpoint/gguf_presets/expected.json").string());
  std::size_t compared = 0;
  for (const Json& entry : golden) {
    const Json& model = entry.at("model");
    const auto cols = model.at("cols").get<std::int64_t>();
    GgufMixture mixture{nullptr,
                        model.at("layers").get<std::int64_t>(),
                        model.at("heads").get<std::int64_t>(),
                        model.at("kv_heads").get<std::int64_t>(),
                        model.value("experts", std::int64_t{0}),
                        model.at("output").get<bool>(),
                        model.at("arch") == "llama"};
    for (const auto& [preset, roles] : entry.at("presets").items()) {
      mixture.preset = &find_gguf_preset(preset);
      for (const auto& [role, types] : roles.items()) {
        const bool in_layers = role != "token_embd" && role != "output";
        for (std::int64_t layer = 0; layer < (in_layers ? mixture.layers : 1); ++layer) {
          const std::string name =
              (in_layers ? "blk." + std::to_string(layer) + "." : "") + role + ".weight";
          const std::string type =
              gguf_can_quantize(name, 2)
                  ? capitals(gguf_type_in(mixture, name, in_layers ? layer : -1, cols))
                  : "F32";
          EXPECT_EQ(type, types.is_array() ? types[static_cast<std::size_t>(layer)] : types)
              << model.dump() << ' ' << preset << ' ' << name;
          ++compared;
        }
      }
    }
  }
  EXPECT_GT(compared, 10000u);
}

TEST(GgufPreset, IsFoundInAnyCaseAndListedOtherwise) {
  EXPECT_EQ(find_gguf_preset("q4_k_m").file_type, 15u);
  EXPECT_ERROR(find_gguf_preset("Q9_K"), ErrorKind::kUsage, "IQ4_XS");
}

constexpr std::int64_t kHidden = 128, kFfn = 256;

Json config() {
  return {{"model_type", "llama"},     {"hidden_size", kHidden},
          {"intermediate_size", kFfn}, {"num_hidden_layers", 1},
          {"num_attention_heads", 4},  {"num_key_value_heads", 2},
          {"vocab_size", 8},           {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},      {"tie_word_embeddings", true},
          {"torch_dtype", "bfloat16"}};
}

std::vector<float> sample(std::int64_t count, int seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto mixed = static_cast<int>((i + static_cast<std::size_t>(seed) * 977) * 7919 % 2003);
    values[i] = static_cast<float>(mixed - 1001) / 1024;  // 11 digits: what F16 holds
  }
  return values;
}

struct Matrix {
  const char* module;
  std::int64_t rows, cols;
};
constexpr Matrix kMatrices[] = {
    {"self_attn.q_proj", 128, kHidden}, {"self_attn.k_proj", 64, kHidden},
    {"self_attn.v_proj", 64, kHidden},  {"self_attn.o_proj", 128, 128},
    {"mlp.gate_proj", kFfn, kHidden},   {"mlp.up_proj", kFfn, kHidden},
    {"mlp.down_proj", kHidden, kFfn}};

// A model of one layer whose linears are in `format`, or plain F16 without.
std::filesystem::path write_model(const std::filesystem::path& dir, const std::string& format) {
  const std::string base = "model.layers.0.";
  std::map<std::string, Tensor> tensors;
  std::vector<QuantizedModule> modules;
  std::vector<StoredTensor> plan;
  const auto add_plain = [&](const std::string& name, Shape shape, DType type) {
    const std::int64_t count = element_count(shape);
    tensors[name] = from_float(sample(count, static_cast<int>(tensors.size())).data(), type, shape);
    plan.push_back({name, type, shape});
  };
  add_plain("model.embed_tokens.weight", {8, kHidden}, DType::kF16);
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
    add_plain(base + norm + ".weight", {kHidden}, DType::kF16);
  }
  add_plain("model.norm.weight", {kHidden}, DType::kF16);
  for (const Matrix& m : kMatrices) {
    if (format.empty()) {
      add_plain(base + m.module + ".weight", {m.rows, m.cols}, DType::kF16);
      continue;
    }
    const auto values = sample(m.rows * m.cols, static_cast<int>(tensors.size()));
    const QuantTensor weight = parse_weight_format(format)->encode(values.data(), m.rows, m.cols);
    modules.push_back({base + m.module, weight.format, m.rows, m.cols});
    for (const StoredTensor& t : nibble_encoding().plan(modules.back())) plan.push_back(t);
    for (auto& [name, tensor] : nibble_encoding().encode(base + m.module, weight)) {
      tensors[name] = tensor;
    }
  }
  std::filesystem::create_directories(dir);
  ShardedWriter writer(dir, plan);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
  write_config(dir, config(),
               modules.empty() ? Json() : nibble_encoding().quantization_config(modules, {}));
  return dir;
}

struct Wish {
  bool requantize = false;
  std::string format = {}, preset = {};
};

ConvertReport to_gguf(const std::filesystem::path& from, const std::filesystem::path& to,
                      const Wish& wish = {}) {
  ConvertOptions options;
  options.target = "gguf";
  options.requantize = wish.requantize;
  options.format = wish.format;
  options.preset = wish.preset;
  return convert_checkpoint(*open_checkpoint(from), to, options);
}

// Values of a module of both, which must be the same.
void expect_same_values(const Checkpoint& a, const Checkpoint& b) {
  for (const Matrix& m : kMatrices) {
    const std::string module = std::string("model.layers.0.") + m.module;
    std::vector<float> x(static_cast<std::size_t>(m.rows * m.cols)), y(x.size());
    decode_all(a.linear(module), x.data());
    decode_all(b.linear(module), y.data());
    EXPECT_EQ(x, y) << module;
  }
}

struct Case {
  const char* format;
  const char* type;  // there; null: refused
};

class GgufForms : public testing::TestWithParam<Case> {};

TEST_P(GgufForms, AreExactWhereTheTableSaysSoAndRefusedElsewhere) {
  const auto& [format, type] = GetParam();
  TempDir dir;
  const auto source = write_model(dir / "source", format);
  if (type == nullptr) {
    EXPECT_ERROR(to_gguf(source, dir / "out.gguf"), ErrorKind::kUnsupported, "--requantize");
    EXPECT_FALSE(std::filesystem::exists(dir / "out.gguf"));
    EXPECT_FALSE(std::filesystem::exists(dir / "out.gguf.partial"));
    const ConvertReport report = to_gguf(source, dir / "out.gguf", {.requantize = true});
    EXPECT_EQ(report.requantized.size(), std::size(kMatrices));
    return;
  }
  const ConvertReport report = to_gguf(source, dir / "out.gguf");
  EXPECT_TRUE(report.exact());
  EXPECT_EQ(report.modules, static_cast<std::int64_t>(std::size(kMatrices)));
  const auto written = open_checkpoint(dir / "out.gguf");
  const GgufFile file(dir / "out.gguf");
  for (const GgufTensor& tensor : file.header().tensors) {
    if (tensor.name != "blk.0.ffn_down.weight") continue;
    EXPECT_EQ(tensor.type.name(), type);
  }
  expect_same_values(*open_checkpoint(source), *written);
}

constexpr Case kCases[] = {
    {"int4_g128_sym_full_sf16", "q4_0"},
    {"int4_g32_sym_full_sf16", "q4_0"},
    {"int4_channel_sym_full_sf16", "q4_0"},
    {"int3_g32_sym_full_sf16", "q4_0"},     // fewer values than it has
    {"int2_b16x32_sym_full_sf16", "q4_0"},  // blocks of rows too
    {"int4_g32_asym_sf16", "q5_0"},         // the distance to a zero point takes a bit more
    {"int5_g32_sym_full_sf16", "q5_0"},
    {"int8_g64_sym_strict_sf16", "q8_0"},
    {"int8_g64_asym_sf16", nullptr},      // nine bits
    {"int4_g16_sym_full_sf16", nullptr},  // two scales in a block
    {"int4_g32_sym_sf32", nullptr},       // scales that no half holds
    {"fp4_e2m1_g32_se8m0", "mxfp4_gguf"},
    {"fp4_e2m1_g16_se4m3", "nvfp4_gguf"},  // under a scale of its own
    {"fp4_e2m1_g32_sf16", nullptr},
    {"nf4_g64_sf16", nullptr},
    {"q5_1", "q5_1"},
};
INSTANTIATE_TEST_SUITE_P(, GgufForms, testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.format); });

TEST(GgufConvert, KeepsPlainWeightsAsTheyAre) {
  TempDir dir;
  const auto source = write_model(dir / "source", "");
  EXPECT_TRUE(to_gguf(source, dir / "out.gguf").exact());
  const auto written = open_checkpoint(dir / "out.gguf");
  expect_same_values(*open_checkpoint(source), *written);
  EXPECT_EQ(written->linear("model.layers.0.mlp.up_proj").format->name(), "f16");
  EXPECT_EQ(written->tensor("model.norm.weight").dtype(), DType::kF32);
  EXPECT_EQ(written->config().at("num_key_value_heads"), 2);
  EXPECT_ERROR(to_gguf(source, dir / "out.gguf"), ErrorKind::kUsage, "exists already");
}

TEST(GgufConvert, RoundsPlainWeightsToWhatIsAskedForAndSaysSo) {
  TempDir dir;
  const auto source = write_model(dir / "source", "");
  const ConvertReport report = to_gguf(source, dir / "q8.gguf", {.preset = "q8_0"});
  EXPECT_FALSE(report.exact());
  EXPECT_EQ(report.requantized.size(), std::size(kMatrices) + 1);  // the embedding
  const QuantTensor up = open_checkpoint(dir / "q8.gguf")->linear("model.layers.0.mlp.up_proj");
  std::vector<float> values(static_cast<std::size_t>(kFfn * kHidden));
  decode_all(open_checkpoint(source)->linear("model.layers.0.mlp.up_proj"), values.data());
  EXPECT_TRUE(std::ranges::equal(
      up.planes[0].bytes(), up.format->encode(values.data(), kFfn, kHidden).planes[0].bytes()));
  // F16 of F16 changes nothing, BF16 of F16 does.
  EXPECT_TRUE(to_gguf(source, dir / "f16.gguf", {.format = "f16"}).exact());
  EXPECT_FALSE(to_gguf(source, dir / "bf16.gguf", {.preset = "BF16"}).exact());
  EXPECT_ERROR(to_gguf(source, dir / "x.gguf", {.format = "int4_g128_sym"}), ErrorKind::kUsage,
               "q4_k");
  EXPECT_ERROR(to_gguf(source, dir / "x.gguf", {.format = "q4_k"}), ErrorKind::kUsage,
               "do not divide");
  EXPECT_ERROR(to_gguf(source, dir / "x.gguf", {.format = "q4_0", .preset = "Q4_0"}),
               ErrorKind::kUsage, "choose one");
}

TEST(GgufConvert, TakesAPresetForQuantizedWeightsOnlyWhenTheyMayChange) {
  TempDir dir;
  const auto source = write_model(dir / "source", "int4_g32_sym_full_sf16");
  // The embedding is plain; the linears keep their values.
  EXPECT_EQ(to_gguf(source, dir / "a.gguf", {.preset = "Q5_1"}).requantized,
            std::vector<std::string>{"model.embed_tokens"});
  expect_same_values(*open_checkpoint(source), *open_checkpoint(dir / "a.gguf"));
  to_gguf(source, dir / "b.gguf", {.requantize = true, .preset = "Q5_1"});
  EXPECT_EQ(open_checkpoint(dir / "b.gguf")->linear("model.layers.0.mlp.up_proj").format->name(),
            "q5_1");
}

// What is decoded to floats is exact in a type that holds them.
TEST(GgufConvert, HoldsEveryValueInF32) {
  TempDir dir;
  const auto source = write_model(dir / "source", "nf4_g64_sf16");
  EXPECT_TRUE(to_gguf(source, dir / "out.gguf", {.format = "f32"}).exact());
  expect_same_values(*open_checkpoint(source), *open_checkpoint(dir / "out.gguf"));
  EXPECT_ERROR(to_gguf(source, dir / "x.gguf", {.format = "bf16"}), ErrorKind::kUnsupported,
               "--requantize");
}

TEST(GgufConvert, KeepsItsOwnFiles) {
  TempDir dir;
  const auto first = test::source_dir() / "tests/golden/checkpoint/gguf/model.gguf";
  EXPECT_TRUE(to_gguf(first, dir / "again.gguf").exact());
  const GgufFile a(first), b(dir / "again.gguf");
  for (const GgufTensor& tensor : a.header().tensors) {
    const auto& others = b.header().tensors;
    const auto other = std::ranges::find(others, tensor.name, &GgufTensor::name);
    ASSERT_NE(other, others.end()) << tensor.name;
    EXPECT_EQ(other->type.id, tensor.type.id) << tensor.name;
    EXPECT_TRUE(std::ranges::equal(a.read(tensor).bytes(), b.read(*other).bytes())) << tensor.name;
  }
  for (const char* key :
       {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id", "llama.attention.head_count", "tokenizer.chat_template"}) {
    EXPECT_EQ(b.header().metadata.value(key, Json()), a.header().metadata.value(key, Json()))
        << key;
  }
}

TEST(GgufConvert, NamesWhatHasNoPlace) {
  TempDir dir;
  const auto source = write_model(dir / "source", "");
  Json other = config();
  other["model_type"] = "mamba";
  write_config(source, other, nullptr);
  EXPECT_ERROR(to_gguf(source, dir / "x.gguf"), ErrorKind::kUnsupported, "'mamba'");
  other["model_type"] = "gpt_neox";
  other["layer_norm_eps"] = 1e-5;
  write_config(source, other, nullptr);
  EXPECT_ERROR(to_gguf(source, dir / "x.gguf"), ErrorKind::kUnsupported, "has no place");
  other = config();
  other["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2.0}};
  write_config(source, other, nullptr);
  EXPECT_ERROR(to_gguf(source, dir / "x.gguf"), ErrorKind::kUnsupported, "dynamic");
  other = config();
  other["hidden_act"] = "gelu";
  write_config(source, other, nullptr);
  EXPECT_ERROR(to_gguf(source, dir / "x.gguf"), ErrorKind::kUnsupported, "hidden_act");
}

}  // namespace
}  // namespace nibble
