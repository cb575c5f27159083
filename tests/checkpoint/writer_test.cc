#include "checkpoint/writer.h"

#include <algorithm>
#include <fstream>
#include <numeric>

#include "checkpoint/container/safetensors.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;
using ::testing::ElementsAre;

// A tensor whose bytes differ from those of other seeds.
Tensor filled(const StoredTensor& spec, int seed) {
  Tensor tensor = Tensor::allocate(DType::kU8, {static_cast<std::int64_t>(spec.byte_size())});
  auto* out = tensor.mutable_data<std::uint8_t>();
  for (std::int64_t i = 0; i < tensor.elements(); ++i) {
    out[i] = static_cast<std::uint8_t>(seed * 37 + i);
  }
  return Tensor::view(spec.dtype, spec.shape, tensor.bytes(), std::make_shared<Tensor>(tensor));
}

const std::vector<StoredTensor> kPlan = {
    {"a.codes", DType::kU8, {5}},   {"a.scale", DType::kBF16, {3}},
    {"a.shape", DType::kI64, {2}},  {"b \"quoted\" \u00e9", DType::kF32, {2, 3}},
    {"empty", DType::kF16, {0, 4}}, {"scalar", DType::kF32, {}},
    {"last", DType::kU8, {7}},
};

void write_all(const std::filesystem::path& dir, std::uint64_t max_bytes,
               const std::vector<std::size_t>& order) {
  ShardedWriter writer(dir, kPlan, max_bytes);
  for (const std::size_t i : order)
    writer.write(kPlan[i].name, filled(kPlan[i], static_cast<int>(i)));
  writer.finish();
}

std::string contents(const std::filesystem::path& path) { return read_text_file(path); }

void expect_all(const Checkpoint& checkpoint) {
  EXPECT_EQ(checkpoint.names().size(), kPlan.size());
  for (std::size_t i = 0; i < kPlan.size(); ++i) {
    const Tensor tensor = checkpoint.tensor(kPlan[i].name);
    EXPECT_EQ(tensor.dtype(), kPlan[i].dtype);
    EXPECT_EQ(tensor.shape(), kPlan[i].shape);
    EXPECT_TRUE(std::ranges::equal(tensor.bytes(), filled(kPlan[i], static_cast<int>(i)).bytes()));
    const auto address = reinterpret_cast<std::uintptr_t>(tensor.bytes().data());
    if (tensor.byte_size() > 0) {
      EXPECT_EQ(address % dtype_size(tensor.dtype()), 0u) << kPlan[i].name;
    }
  }
}

TEST(ShardedWriter, OneFileReadsBack) {
  TempDir dir;
  write_all(dir.path(), kDefaultShardBytes, {0, 1, 2, 3, 4, 5, 6});
  write_config(dir.path(), Json::object(), nullptr);
  EXPECT_FALSE(std::filesystem::exists(dir / "model.safetensors.index.json"));
  expect_all(*open_checkpoint(dir.path()));
  EXPECT_EQ(SafetensorsFile(dir / "model.safetensors").metadata().at("format"), "pt");
}

TEST(ShardedWriter, SplitsIntoShardsInTheOrderOfThePlan) {
  TempDir dir;
  write_all(dir.path(), 27, {0, 1, 2, 3, 4, 5, 6});
  write_config(dir.path(), Json::object(), nullptr);
  expect_all(*open_checkpoint(dir.path()));
  const Json index = read_json_file(dir / "model.safetensors.index.json");
  EXPECT_EQ(index["metadata"]["total_size"], 5 + 6 + 16 + 24 + 0 + 4 + 7);
  EXPECT_EQ(index["weight_map"]["a.shape"], "model-00001-of-00003.safetensors");
  EXPECT_EQ(index["weight_map"]["empty"], "model-00002-of-00003.safetensors");
  EXPECT_EQ(index["weight_map"]["last"], "model-00003-of-00003.safetensors");
}

TEST(ShardedWriter, BytesDoNotDependOnTheOrderOfWriting) {
  TempDir one, two;
  write_all(one.path(), 27, {0, 1, 2, 3, 4, 5, 6});
  write_all(two.path(), 27, {6, 2, 0, 5, 4, 3, 1});
  for (const auto& entry : std::filesystem::directory_iterator(one.path())) {
    EXPECT_EQ(contents(entry.path()), contents(two.path() / entry.path().filename()));
  }
}

TEST(ShardedWriter, ReopeningKeepsWhatWasWritten) {
  TempDir whole, resumed;
  write_all(whole.path(), 27, {0, 1, 2, 3, 4, 5, 6});
  {
    ShardedWriter first(resumed.path(), kPlan, 27);
    for (const std::size_t i : {0u, 3u, 4u}) {
      first.write(kPlan[i].name, filled(kPlan[i], static_cast<int>(i)));
    }
    first.sync();
  }
  write_all(resumed.path(), 27, {1, 2, 5, 6});
  for (const auto& entry : std::filesystem::directory_iterator(whole.path())) {
    EXPECT_EQ(contents(entry.path()), contents(resumed.path() / entry.path().filename()));
  }
}

TEST(ShardedWriter, WritesPartsOfATensor) {
  TempDir dir;
  ShardedWriter writer(dir.path(), {{"t", DType::kU8, {4}}});
  const std::byte bytes[] = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  writer.write("t", 2, std::span(bytes).subspan(2));
  writer.write("t", 0, std::span(bytes).first(2));
  writer.finish();
  EXPECT_THAT(SafetensorsFile(dir / "model.safetensors").tensor("t").bytes(),
              ElementsAre(bytes[0], bytes[1], bytes[2], bytes[3]));
  EXPECT_ERROR(writer.write("t", 3, std::span(bytes).first(2)), ErrorKind::kInternal, "check");
  EXPECT_ERROR(writer.write("x", 0, std::span(bytes)), ErrorKind::kInternal, "check");
  EXPECT_ERROR(writer.write("t", Tensor::allocate(DType::kU8, {2, 2})), ErrorKind::kInternal,
               "check");
}

TEST(ShardedWriter, FullAndMissingDisksAreDiskErrors) {
  TempDir dir;
  EXPECT_ERROR(ShardedWriter(dir / "missing", kPlan), ErrorKind::kDisk, "model.safetensors");
  const std::vector<StoredTensor> huge = {{"t", DType::kF32, {std::int64_t{1} << 50}}};
  EXPECT_ERROR(ShardedWriter(dir.path(), huge), ErrorKind::kDisk, "cannot reserve");
}

TEST(WriteConfig, ChangesQuantizationConfigOnly) {
  TempDir dir;
  const Json config = {{"z", 1.5}, {"a", {1, 2}}, {"quantization_config", {{"old", true}}}};
  write_config(dir.path(), config, {{"quant_method", "nibble"}});
  Json expected = config;
  expected["quantization_config"] = {{"quant_method", "nibble"}};
  EXPECT_EQ(read_json_file(dir / "config.json"), expected);
  write_config(dir.path(), config, nullptr);
  expected.erase("quantization_config");
  EXPECT_EQ(read_json_file(dir / "config.json"), expected);
}

TEST(CopyCompanions, CopiesEveryFile) {
  TempDir dir;
  const auto source = open_checkpoint(test::tiny_novel());
  copy_companions(*source, dir.path());
  for (const std::string& name : source->companion_files()) {
    EXPECT_EQ(contents(dir / name), contents(test::tiny_novel() / name));
  }
  EXPECT_TRUE(std::filesystem::exists(dir / "tokenizer.json"));
}

}  // namespace
}  // namespace nibble
