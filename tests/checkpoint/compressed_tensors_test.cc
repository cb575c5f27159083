#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <random>

#include "checkpoint/checkpoint.h"
#include "checkpoint/compressed_tensors_config.h"
#include "checkpoint/container/safetensors.h"
#include "checkpoint/encoding.h"
#include "checkpoint/writer.h"
#include "formats/registry.h"
#include "support/golden_checkpoint.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::golden_checkpoint;
using test::TempDir;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

// Our values, rounded as the reference rounds them: it multiplies in the type of the scales.
Tensor decoded(const QuantTensor& weight, DType dtype) {
  std::vector<float> values(static_cast<std::size_t>(weight.rows * weight.cols));
  decode_all(weight, values.data());
  return from_float(values.data(), dtype, {weight.rows, weight.cols});
}

class CompressedTensorsGolden : public testing::TestWithParam<const char*> {};

TEST_P(CompressedTensorsGolden, DecodesToTheValuesOfTheReferencePackage) {
  const auto checkpoint = open_checkpoint(golden_checkpoint(GetParam()));
  EXPECT_EQ(checkpoint->convention(), "compressed-tensors");
  const SafetensorsFile expected(golden_checkpoint(GetParam()) / "expected.safetensors");
  ASSERT_FALSE(expected.entries().empty());
  for (const SafetensorsEntry& entry : expected.entries()) {
    SCOPED_TRACE(entry.name);
    const Tensor values = expected.tensor(entry.name);
    const std::string module = entry.name.substr(0, entry.name.rfind('.'));
    ASSERT_TRUE(checkpoint->has_linear(module));
    const Tensor ours = decoded(checkpoint->linear(module), values.dtype());
    EXPECT_TRUE(std::ranges::equal(ours.bytes(), values.bytes()));
  }
  EXPECT_EQ(checkpoint->linear("lm_head").format->name(), "bf16");
}

INSTANTIATE_TEST_SUITE_P(, CompressedTensorsGolden,
                         testing::Values("pack_quantized", "padded", "int_quantized", "act_order"),
                         [](const auto& test) { return std::string(test.param); });

TEST(CompressedTensors, DenseCodesAreMappedNotCopied) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("pack_quantized"));
  const QuantTensor weight = checkpoint->linear("layers.4.group.asym");
  EXPECT_EQ(weight.planes[0].bytes().data(),
            checkpoint->tensor("layers.4.group.asym.weight_packed").bytes().data());
  EXPECT_EQ(weight.format->name(), "int4_g32_asym_sbf16");
}

// The golden checkpoint with other input activations.
std::unique_ptr<Checkpoint> with_input(const TempDir& dir, const Json& input) {
  std::filesystem::remove_all(dir / "model");
  std::filesystem::copy(golden_checkpoint("pack_quantized"), dir / "model");
  Json config = read_json_file((dir / "model/config.json").string());
  auto& groups = config["quantization_config"]["config_groups"];
  for (auto& group : groups) group["input_activations"] = input;
  std::ofstream(dir / "model/config.json", std::ios::trunc) << config;
  return open_checkpoint(dir / "model");
}

TEST(CompressedTensors, FollowsInputActivationsOrSaysWhichItIgnores) {
  const TempDir dir;
  EXPECT_TRUE(open_checkpoint(golden_checkpoint("pack_quantized"))->notes().empty());
  const auto followed =
      with_input(dir, {{"num_bits", 8}, {"type", "int"}, {"dynamic", true}, {"strategy", "token"}});
  EXPECT_TRUE(followed->notes().empty());
  const ActivationFormatPtr format = followed->activations("layers.4.group.asym");
  ASSERT_NE(format, nullptr);
  EXPECT_EQ(format->name(), "int8_token");
  EXPECT_EQ(followed->activations("lm_head"), nullptr);

  const auto ignored = with_input(dir, {{"num_bits", 8}, {"type", "int"}, {"strategy", "channel"}});
  EXPECT_THAT(ignored->notes(), ElementsAre(testing::HasSubstr("input_activations")));
  EXPECT_EQ(ignored->activations("layers.4.group.asym"), nullptr);
}

// What the writer stores is what the reference package stores, byte for byte.
TEST(CompressedTensors, EncodesToTheBytesOfTheReferencePackage) {
  const auto checkpoint = open_checkpoint(golden_checkpoint("pack_quantized"));
  int modules = 0;
  for (const std::string& name : checkpoint->names()) {
    if (!name.ends_with(".weight_packed")) continue;
    const std::string module = name.substr(0, name.rfind('.'));
    SCOPED_TRACE(module);
    const QuantTensor weight = checkpoint->linear(module);
    for (const auto& [stored, tensor] : compressed_tensors_encoding().encode(module, weight)) {
      const Tensor original = checkpoint->tensor(stored);
      EXPECT_EQ(tensor.dtype(), original.dtype()) << stored;
      EXPECT_EQ(tensor.shape(), original.shape()) << stored;
      EXPECT_TRUE(std::ranges::equal(tensor.bytes(), original.bytes())) << stored;
    }
    ++modules;
  }
  EXPECT_EQ(modules, 7 * 3 * 2);
}

QuantTensor random_weight(const FormatPtr& format, std::int64_t rows, std::int64_t cols) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.01f, 0.05f);
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  for (float& v : values) v = normal(random);
  return format->encode(values.data(), rows, cols);
}

// Writes a checkpoint of one module for every format, and their decoded values beside it.
void write_every_format(const std::filesystem::path& dir) {
  std::vector<QuantizedModule> modules;
  std::vector<QuantTensor> weights;
  std::vector<StoredTensor> plan, values_plan;
  for (int bits = 2; bits <= 8; ++bits) {
    for (const char* scheme : {"channel", "g32", "g64", "tensor"}) {
      for (const char* sign : {"sym", "asym"}) {
        for (const char* scale : {"sbf16", "sf16", "sf32"}) {
          const std::string name = fmt::format("int{}_{}_{}_{}", bits, scheme, sign, scale);
          const FormatPtr format = parse_weight_format(name);
          weights.push_back(random_weight(format, 40, 128));
          modules.push_back({"layers." + name, format, 40, 128});
          const auto tensors = compressed_tensors_encoding().plan(modules.back());
          plan.insert(plan.end(), tensors.begin(), tensors.end());
          values_plan.push_back({"layers." + name + ".weight", DType::kF32, {40, 128}});
        }
      }
    }
  }
  ShardedWriter writer(dir, plan);
  std::filesystem::create_directory(dir / "values");
  ShardedWriter values(dir / "values", values_plan);
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto tensors = compressed_tensors_encoding().encode(modules[i].module, weights[i]);
    for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
    values.write(modules[i].module + ".weight", decoded(weights[i], DType::kF32));
  }
  writer.finish();
  values.finish();
  write_config(dir, {{"model_type", "llama"}},
               compressed_tensors_encoding().quantization_config(modules, {"lm_head"}));
}

TEST(CompressedTensors, TheReferencePackageReadsWhatWeWrite) {
  const char* python = std::getenv("NIBBLE_ORACLE_PYTHON");
  if (python == nullptr) {
    GTEST_SKIP() << "needs NIBBLE_ORACLE_PYTHON, a Python that has compressed-tensors";
  }
  TempDir dir;
  write_every_format(dir.path());
  const std::string command = fmt::format(
      "'{}' '{}' '{}' '{}'", python, golden_checkpoint("check_compressed_tensors.py").string(),
      dir.path().string(), (dir / "values/model.safetensors").string());
  EXPECT_EQ(std::system(command.c_str()), 0);
}

Json config_of(const std::vector<QuantizedModule>& modules, const std::vector<std::string>& plain) {
  return compressed_tensors_encoding().quantization_config(modules, plain);
}

TEST(CompressedTensors, OneFormatTargetsLinear) {
  const FormatPtr int4 = parse_weight_format("int4_g128_asym");
  const Json config = config_of(
      {{"model.layers.0.mlp.up_proj", int4, 8, 128}, {"model.layers.1.mlp.up_proj", int4, 8, 128}},
      {"lm_head"});
  EXPECT_EQ(config["quant_method"], "compressed-tensors");
  EXPECT_EQ(config["format"], "pack-quantized");
  EXPECT_EQ(config["quantization_status"], "compressed");
  EXPECT_EQ(config["ignore"], Json({"lm_head"}));
  ASSERT_EQ(config["config_groups"].size(), 1u);
  const Json& group = config["config_groups"]["group_0"];
  EXPECT_EQ(group["targets"], Json({"Linear"}));
  EXPECT_EQ(group["weights"]["num_bits"], 4);
  EXPECT_EQ(group["weights"]["group_size"], 128);
  EXPECT_EQ(group["weights"]["symmetric"], false);
}

TEST(CompressedTensors, SeveralFormatsTargetNames) {
  const FormatPtr int4 = parse_weight_format("int4_g32_asym");
  const FormatPtr int8 = parse_weight_format("int8_channel_sym");
  std::vector<QuantizedModule> modules;
  for (const char* layer : {"0", "1"}) {
    const std::string prefix = std::string("model.layers.") + layer + ".";
    modules.push_back({prefix + "mlp.up_proj", int4, 8, 128});
    modules.push_back({prefix + "mlp.down_proj", layer[0] == '0' ? int4 : int8, 8, 128});
  }
  const Json config = config_of(modules, {"lm_head"});
  EXPECT_THAT(
      config["config_groups"]["group_0"]["targets"],
      ElementsAre("model.layers.0.mlp.down_proj", R"(re:^model\.layers\.\d+\.mlp\.up_proj$)"));
  EXPECT_THAT(config["config_groups"]["group_1"]["targets"],
              ElementsAre("model.layers.1.mlp.down_proj"));
  // Our reader finds the same schemes again.
  const CompressedConfig read(config, "config.json");
  for (const QuantizedModule& m : modules) {
    EXPECT_EQ(read.args(m.module).bits, m.format->descriptor().element.bits) << m.module;
  }
  EXPECT_ERROR(read.args("lm_head"), ErrorKind::kCorrupt, "ignore list");
  EXPECT_ERROR(read.args("model.layers.0.mlp.gate"), ErrorKind::kCorrupt, "no config group");
}

TEST(CompressedTensors, EmbeddingsAreNamedBecauseTheyAreNoLinear) {
  const FormatPtr int8 = parse_weight_format("int8_channel_sym");
  const Json config = config_of({{"model.embed_tokens", int8, 8, 8, false},
                                 {"model.layers.0.fc", int8, 8, 8},
                                 {"model.layers.1.fc", int8, 8, 8}},
                                {});
  EXPECT_THAT(config["config_groups"]["group_0"]["targets"],
              ElementsAre("model.embed_tokens", R"(re:^model\.layers\.\d+\.fc$)"));
}

// A config with one group, changed by a merge patch.
Json config_with(const Json& patch) {
  Json config = config_of({{"a", parse_weight_format("int4_g32_asym"), 8, 128}}, {});
  config.merge_patch(patch);
  return config;
}

Json weights_with(const Json& patch) {
  return config_with({{"config_groups", {{"group_0", {{"weights", patch}}}}}});
}

TEST(CompressedTensors, ReadsConfigsOfOtherWriters) {
  EXPECT_EQ(CompressedConfig(config_with({{"ignore", nullptr}}), "c").args("x").bits, 4);
  const CompressedConfig inferred(
      weights_with({{"strategy", nullptr}, {"group_size", -1}, {"symmetric", nullptr}}), "c");
  EXPECT_EQ(inferred.args("x").granularity, Granularity::kChannel);
  EXPECT_TRUE(inferred.args("x").symmetric);
  EXPECT_EQ(CompressedConfig(config_with({{"version", "0.9.1"}}), "c").preferred_packing(),
            Packing::kPadded);
  EXPECT_EQ(
      CompressedConfig(config_with({{"version", "0.17.1.a20260101"}}), "c").preferred_packing(),
      Packing::kDense);
}

TEST(CompressedTensors, PatternsMatchFromTheBeginningOnly) {
  const Json targets = Json::array({"re:layers\\.\\d+"});
  const CompressedConfig config(
      config_with({{"config_groups", {{"group_0", {{"targets", targets}}}}}}), "c");
  EXPECT_EQ(config.args("layers.12.up_proj").bits, 4);
  EXPECT_ERROR(config.args("model.layers.12.up_proj"), ErrorKind::kCorrupt, "no config group");
}

TEST(CompressedTensors, RefusesConfigsItCannotFollow) {
  const auto read = [](const Json& config) { CompressedConfig(config, "config.json"); };
  const ErrorKind corrupt = ErrorKind::kCorrupt, unsupported = ErrorKind::kUnsupported;
  EXPECT_ERROR(read(Json::object()), corrupt, "config_groups");
  EXPECT_ERROR(read(config_with({{"format", "marlin-24"}})), unsupported, "'marlin-24'");
  EXPECT_ERROR(read(config_with({{"format", 1}})), corrupt, "'format' is no string");
  EXPECT_ERROR(read(config_with({{"ignore", "x"}})), corrupt, "'ignore'");
  EXPECT_ERROR(read(weights_with({{"type", "float"}, {"num_bits", 6}})), unsupported,
               "type 'float'");
  EXPECT_ERROR(read(weights_with({{"num_bits", 1}})), unsupported, "1-bit");
  EXPECT_ERROR(read(weights_with({{"num_bits", "4"}})), corrupt, "'num_bits' is no integer");
  EXPECT_ERROR(read(weights_with({{"strategy", "block"}})), unsupported, "'block'");
  for (const Json& block : {Json(), Json(128), Json({128}), Json({0, 128}), Json({-1, 1.5})}) {
    const Json weights = {
        {"type", "float"}, {"num_bits", 8}, {"strategy", "block"}, {"block_structure", block}};
    EXPECT_ERROR(read(weights_with(weights)), corrupt, "block_structure [rows, cols]");
  }
  EXPECT_ERROR(read(weights_with({{"group_size", 0}})), corrupt, "group_size 0");
  EXPECT_ERROR(read(weights_with({{"symmetric", 1}})), corrupt, "'symmetric' is no boolean");
  const auto targets = [](const Json& list) {
    return config_with({{"config_groups", {{"group_0", {{"targets", list}}}}}});
  };
  EXPECT_ERROR(read(targets(nullptr)), corrupt, "'targets'");
  EXPECT_ERROR(read(targets({"re:("})), corrupt, "pattern 're:('");
  EXPECT_ERROR(read(targets({"a", "a"})), corrupt, "twice");
  const CompressedConfig costly(targets({"re:(a+)+(a+)+(a+)+(a+)+$"}), "config.json");
  EXPECT_ERROR(costly.args(std::string(200, 'a') + "b"), unsupported, "too costly");
}

// One module "a" of int4_g32_asym, whose tensors a test may change before they are written.
struct Damaged {
  std::vector<std::pair<std::string, Tensor>> tensors;
  Json config = config_with(Json::object());

  Damaged() {
    const QuantTensor weight = random_weight(parse_weight_format("int4_g32_asym_sf32"), 8, 64);
    tensors = compressed_tensors_encoding().encode("a", weight);
  }
  Tensor& operator[](const std::string& name) {
    return std::ranges::find(tensors, name, [](const auto& t) { return t.first; })->second;
  }
  QuantTensor read() const {
    TempDir dir;
    std::vector<StoredTensor> plan;
    for (const auto& [name, tensor] : tensors)
      plan.push_back({name, tensor.dtype(), tensor.shape()});
    ShardedWriter writer(dir.path(), plan);
    for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
    writer.finish();
    write_config(dir.path(), Json::object(), config);
    return open_checkpoint(dir.path())->linear("a");
  }
};

Tensor integers(DType dtype, const std::vector<std::int64_t>& values) {
  Tensor t = Tensor::allocate(dtype, {static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kI64) {
      t.mutable_data<std::int64_t>()[i] = values[i];
    } else {
      t.mutable_data<std::int32_t>()[i] = static_cast<std::int32_t>(values[i]);
    }
  }
  return t;
}

TEST(CompressedTensors, RefusesContradictingTensors) {
  EXPECT_EQ(Damaged().read().format->name(), "int4_g32_asym_sf32");
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{8, 65}, {7, 64}, {-8, 64}, {8, INT64_MAX}, {8}, {0, 0}}) {
    Damaged d;
    d["a.weight_shape"] = integers(DType::kI64, shape);
    EXPECT_ERROR(d.read(), ErrorKind::kCorrupt, "a.weight");
  }
  for (const char* name : {"a.weight_scale", "a.weight_shape", "a.weight_zero_point"}) {
    Damaged d;
    std::erase_if(d.tensors, [&](const auto& t) { return t.first == name; });
    EXPECT_ERROR(d.read(), ErrorKind::kCorrupt, name);
  }
  for (const char* name : {"a.weight_packed", "a.weight_zero_point"}) {
    Damaged d;
    d[name] = Tensor::allocate(DType::kI32, {8, 3});
    EXPECT_ERROR(d.read(), ErrorKind::kCorrupt, name);
  }
  Damaged d;
  d["a.weight_scale"] = Tensor::allocate(DType::kF32, {8, 1});
  EXPECT_ERROR(d.read(), ErrorKind::kCorrupt, "[8, 1] where [8, 2] is needed");
  Damaged types;
  types["a.weight_scale"] = Tensor::allocate(DType::kI8, {8, 2});
  EXPECT_ERROR(types.read(), ErrorKind::kUnsupported, "scales of I8");
  Damaged floats;
  floats["a.weight_packed"] = Tensor::allocate(DType::kF32, {8, 8});
  EXPECT_ERROR(floats.read(), ErrorKind::kCorrupt, "F32 where I32 is needed");
  Damaged undivided;
  undivided.config = weights_with({{"group_size", 48}});
  EXPECT_ERROR(undivided.read(), ErrorKind::kUnsupported, "groups of 48 do not divide 64 columns");
  Damaged symmetric;
  symmetric.config = weights_with({{"symmetric", true}});
  EXPECT_ERROR(symmetric.read(), ErrorKind::kCorrupt, "zero points of symmetric weights");
}

TEST(CompressedTensors, KeepsTheFormatOfColumnsInOrderAlone) {
  std::vector<std::int64_t> index(64);
  for (std::size_t i = 0; i < index.size(); ++i) index[i] = static_cast<std::int64_t>(i / 32);
  const auto read_with = [](const std::vector<std::int64_t>& g_idx) {
    Damaged d;
    d.tensors.emplace_back("a.weight_g_idx", integers(DType::kI32, g_idx));
    return d.read();
  };
  EXPECT_EQ(read_with(index).format->name(), "int4_g32_asym_sf32");
  EXPECT_EQ(read_with(std::vector<std::int64_t>(64, -1)).format->name(), "int4_g32_asym_sf32");
  std::swap(index[0], index[40]);
  EXPECT_EQ(read_with(index).format->name(), "f32");
  EXPECT_ERROR(read_with(std::vector<std::int64_t>(64, 2)), ErrorKind::kCorrupt, "g_idx");
  EXPECT_ERROR(read_with({0, 0}), ErrorKind::kCorrupt, "g_idx");

  const auto notes = open_checkpoint(golden_checkpoint("act_order"))->notes();
  EXPECT_THAT(notes, ElementsAre(testing::HasSubstr("2 modules group their columns")));
  EXPECT_TRUE(open_checkpoint(golden_checkpoint("pack_quantized"))->notes().empty());
}

TEST(CompressedTensors, RefusesIntegersOutOfRange) {
  Damaged d;
  d.config = weights_with({{"symmetric", true}});
  d.tensors.clear();
  Tensor values = Tensor::allocate(DType::kI8, {1, 32});
  std::ranges::fill_n(values.mutable_data<std::int8_t>(), 32, std::int8_t{-8});
  values.mutable_data<std::int8_t>()[31] = 8;
  d.tensors.emplace_back("a.weight", values);
  d.tensors.emplace_back("a.weight_scale", Tensor::allocate(DType::kF32, {1, 1}));
  EXPECT_ERROR(d.read(), ErrorKind::kCorrupt, "8 is out of the range of 4 bits");
  d.tensors[0].second = Tensor::allocate(DType::kF32, {1, 32});
  EXPECT_ERROR(d.read(), ErrorKind::kUnsupported, "no quantized weight");
}

}  // namespace
}  // namespace nibble
