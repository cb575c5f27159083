// What every checkpoint convention promises: read, write, read is bit-equal.
#include <algorithm>
#include <fstream>
#include <functional>
#include <map>

#include "checkpoint/checkpoint.h"
#include "checkpoint/encoding.h"
#include "checkpoint/writer.h"
#include "formats/registry.h"
#include "support/gguf_bytes.h"
#include "support/golden_checkpoint.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;

// Values of many magnitudes, none of them special.
std::vector<float> sample(std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = 0.01f * static_cast<float>(static_cast<int>(i * 7919 % 2003) - 1001);
  }
  return values;
}

// Before the name of a module's format.
const std::string kLayer = "model.layers.0.";

constexpr std::int64_t kRows = 32, kCols = 128;

// A checkpoint of one module for each registered format that the encoding can say, or for `only`
// one format, and a plain tensor.
void write_sample(const std::filesystem::path& dir, const WeightEncoding* encoding,
                  const std::string& only = "") {
  std::vector<QuantizedModule> modules;
  std::vector<std::string> names = {only};
  if (only.empty()) {
    names.clear();
    for (const FormatAlias& alias : format_aliases()) names.push_back(alias.name);
  }
  for (const std::string& name : names) {
    const FormatPtr format = parse_model_format(name).weights;
    if (encoding == nullptr || format == nullptr || !encoding->why_not(*format).empty()) continue;
    modules.push_back({kLayer + name, format, kRows, kCols});
  }
  std::vector<StoredTensor> plan = {{"lm_head.weight", DType::kBF16, {kRows, kCols}}};
  for (const QuantizedModule& m : modules) {
    const auto tensors = encoding->plan(m);
    plan.insert(plan.end(), tensors.begin(), tensors.end());
  }
  ShardedWriter writer(dir, plan, 4096);
  const std::vector<float> values = sample(kRows * kCols);
  writer.write("lm_head.weight", from_float(values.data(), DType::kBF16, {kRows, kCols}));
  for (const QuantizedModule& m : modules) {
    const QuantTensor weight = m.format->encode(values.data(), kRows, kCols);
    for (const auto& [name, tensor] : encoding->encode(m.module, weight))
      writer.write(name, tensor);
  }
  writer.finish();
  write_config(dir, {{"model_type", "llama"}},
               encoding == nullptr ? Json() : encoding->quantization_config(modules, {"lm_head"}));
}

// A llama2.c file of one layer.
void write_llama2c(const std::filesystem::path& path) {
  const std::int32_t header[] = {8, 12, 1, 2, 1, -5, 3};
  const std::int64_t floats = 2 * 5 * 8 + 2 * 8 + 2 * 64 + 2 * 32 + 3 * 96 + 8 + 12;
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(header), sizeof header);
  const std::vector<float> values = sample(floats);
  file.write(reinterpret_cast<const char*>(values.data()), floats * 4);
}

// A GGUF file of one layer, as plain numbers.
void write_gguf(const std::filesystem::path& path) {
  test::GgufBytes bytes;
  bytes.llama_keys({.layers = 1, .hidden = 8, .heads = 2, .kv_heads = 1, .ffn = 12});
  const auto add = [&](const std::string& name, const Shape& shape) {
    const std::vector<float> values = sample(element_count(shape));
    bytes.tensor(name, 0, shape, std::as_bytes(std::span(values)));
  };
  add("token_embd.weight", {5, 8});
  add("output_norm.weight", {8});
  add("blk.0.attn_norm.weight", {8});
  add("blk.0.attn_q.weight", {8, 8});
  add("blk.0.attn_k.weight", {4, 8});
  add("blk.0.attn_v.weight", {4, 8});
  add("blk.0.attn_output.weight", {8, 8});
  add("blk.0.ffn_norm.weight", {8});
  add("blk.0.ffn_gate.weight", {12, 8});
  add("blk.0.ffn_up.weight", {12, 8});
  add("blk.0.ffn_down.weight", {8, 12});
  bytes.write(path);
}

// How a sample of each convention is made in a folder; returns the path to open. A convention that
// is added to the registry needs a line here.
using MakeSample = std::function<std::filesystem::path(const std::filesystem::path&)>;
const std::map<std::string, MakeSample>& samples() {
  const auto encoded = [](const WeightEncoding* encoding,
                          const std::string& only = "") -> MakeSample {
    return [encoding, only](const std::filesystem::path& dir) {
      write_sample(dir, encoding, only);
      return dir;
    };
  };
  const auto golden = [](const char* name) -> MakeSample {
    return [name](const std::filesystem::path&) { return test::golden_checkpoint(name); };
  };
  static const std::map<std::string, MakeSample> all = {
      {"hf", encoded(nullptr)},
      {"compressed-tensors", encoded(&compressed_tensors_encoding())},
      {"nibble", encoded(&nibble_encoding())},
      {"gptq", encoded(&gptq_encoding())},
      {"marlin", golden("marlin")},
      {"awq", encoded(&awq_encoding(), "w4a16_g32")},  // one format a model
      {"bnb", encoded(&bnb_encoding(), "nf4_dq")},
      {"exl2", encoded(&exl2_encoding(), "mixed_6g32x1_4g64")},
      {"exl3", golden("exl3")},
      {"fp8", golden("fp8")},
      {"modelopt", golden("modelopt")},
      {"mxfp4",
       [](const std::filesystem::path&) {
         return test::source_dir() / "tests/golden/archs/gpt_oss_mxfp4";
       }},
      {"gguf",
       [](const std::filesystem::path& dir) {
         write_gguf(dir / "model.gguf");
         return dir / "model.gguf";
       }},
      {"llama2c",
       [](const std::filesystem::path& dir) {
         write_llama2c(dir / "model.bin");
         return dir / "model.bin";
       }},
  };
  return all;
}

// Modules that have a matrix, by the names of the tensors: "<module>.weight", or
// "<module>.weight.<plane>", or other tensors of their own.
std::vector<std::string> modules_of(const Checkpoint& checkpoint) {
  std::vector<std::string> modules;
  for (const std::string& name : checkpoint.names()) {
    const auto at = std::min(name.find(".weight."), name.rfind('.'));
    const std::string module = name.substr(0, at);
    const bool vector = checkpoint.has(module + ".weight") &&
                        checkpoint.tensor(module + ".weight").shape().size() != 2;
    if (vector || !checkpoint.has_linear(module)) continue;
    if (modules.empty() || modules.back() != module) modules.push_back(module);
  }
  return modules;
}

// By what rule scales were chosen is the encoder's: only the nibble convention says it.
void expect_equal(const QuantTensor& a, const QuantTensor& b, bool with_rule = true) {
  WeightDescriptor wanted = b.format->descriptor();
  if (!with_rule) wanted.scheme.rule = a.format->descriptor().scheme.rule;
  EXPECT_TRUE(a.format->descriptor() == wanted) << a.format->name() << ", " << b.format->name();
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_EQ(a.cols, b.cols);
  ASSERT_EQ(a.planes.size(), b.planes.size());
  for (std::size_t i = 0; i < a.planes.size(); ++i) {
    EXPECT_EQ(a.planes[i].shape(), b.planes[i].shape());
    EXPECT_TRUE(std::ranges::equal(a.planes[i].bytes(), b.planes[i].bytes()));
  }
}

const WeightEncoding* encoding_of(const Checkpoint& checkpoint) {
  for (const WeightEncoding* encoding : weight_encodings()) {
    if (encoding->convention() == checkpoint.convention()) return encoding;
  }
  return nullptr;
}

// Writes everything that was read into a fresh directory, weights through the encoding.
void rewrite(const Checkpoint& source, const std::filesystem::path& dir) {
  const WeightEncoding* encoding = encoding_of(source);
  std::vector<StoredTensor> plan;
  std::vector<std::pair<std::string, Tensor>> tensors;
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    plan.push_back({name, tensor.dtype(), tensor.shape()});
    tensors.emplace_back(name, tensor);
  };
  std::vector<std::string> quantized;
  for (const std::string& module : modules_of(source)) {
    const QuantTensor weight = source.linear(module);
    if (encoding == nullptr || weight.format->is_float()) continue;  // copied as it is
    quantized.push_back(module);
    for (const auto& [name, tensor] : encoding->encode(module, weight)) add(name, tensor);
  }
  for (const std::string& name : source.names()) {
    const auto owns = [&](const std::string& m) { return name.starts_with(m + "."); };
    if (std::ranges::none_of(quantized, owns)) add(name, source.tensor(name));
  }
  ShardedWriter writer(dir, plan, 4096);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
  const Json config = source.config();
  write_config(dir, config, config.value("quantization_config", Json()));
  copy_companions(source, dir);
}

class CheckpointContract : public testing::TestWithParam<std::string> {};

TEST_P(CheckpointContract, ReadWriteReadIsBitEqual) {
  ASSERT_TRUE(samples().contains(GetParam())) << "add a sample of this convention above";
  TempDir dir, copy;
  const auto first = open_checkpoint(samples().at(GetParam())(dir.path()));
  EXPECT_EQ(first->convention(), GetParam());
  rewrite(*first, copy.path());
  const auto second = open_checkpoint(copy.path());
  EXPECT_EQ(second->config(), first->config());
  EXPECT_EQ(second->companion_files(), first->companion_files());
  EXPECT_EQ(second->names(), first->names());
  for (const std::string& name : first->names()) {
    EXPECT_EQ(second->tensor(name).dtype(), first->tensor(name).dtype()) << name;
    EXPECT_EQ(second->tensor(name).shape(), first->tensor(name).shape()) << name;
    EXPECT_TRUE(std::ranges::equal(second->tensor(name).bytes(), first->tensor(name).bytes()))
        << name;
  }
  EXPECT_FALSE(modules_of(*first).empty());
  for (const std::string& module : modules_of(*first)) {
    SCOPED_TRACE(module);
    EXPECT_TRUE(first->has_linear(module));
    expect_equal(second->linear(module), first->linear(module));
  }
}

TEST_P(CheckpointContract, EncodedPlanesReadBack) {
  TempDir dir;
  const auto checkpoint = open_checkpoint(samples().at(GetParam())(dir.path()));
  if (encoding_of(*checkpoint) == nullptr) GTEST_SKIP() << "stores plain weights only";
  const std::vector<std::string> modules = modules_of(*checkpoint);
  if (std::ranges::all_of(modules, [&](const std::string& module) {
        return checkpoint->linear(module).format->is_float();
      })) {
    GTEST_SKIP() << "decodes weights when they are loaded";
  }
  const std::vector<float> values = sample(kRows * kCols);
  int formats = 0;
  for (const std::string& module : modules) {
    if (!module.starts_with(kLayer)) continue;
    const FormatPtr format = parse_model_format(module.substr(kLayer.size())).weights;
    SCOPED_TRACE(module);
    expect_equal(checkpoint->linear(module), format->encode(values.data(), kRows, kCols),
                 checkpoint->convention() == "nibble");
    ++formats;
  }
  EXPECT_GT(formats, 0);
}

TEST_P(CheckpointContract, SaysThatWhatIsNotThereIsNotThere) {
  TempDir dir;
  const auto checkpoint = open_checkpoint(samples().at(GetParam())(dir.path()));
  EXPECT_FALSE(checkpoint->has("no.such.weight"));
  EXPECT_FALSE(checkpoint->has_linear("no.such"));
  EXPECT_ERROR(checkpoint->tensor("no.such.weight"), ErrorKind::kCorrupt, "no.such.weight");
  EXPECT_ERROR(checkpoint->linear("no.such"), ErrorKind::kCorrupt, "no.such.weight");
  EXPECT_TRUE(std::ranges::is_sorted(checkpoint->names()));
}

std::vector<std::string> registered() {
  std::vector<std::string> names;
  for (const CheckpointConvention& c : checkpoint_conventions()) names.emplace_back(c.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Registry, CheckpointContract, testing::ValuesIn(registered()),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace nibble
