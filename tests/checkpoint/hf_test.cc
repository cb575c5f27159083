#include <fstream>

#include "checkpoint/checkpoint.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A .safetensors file with one U8 tensor [1] for each name.
std::string tensors_named(const std::vector<std::string>& names) {
  std::string header = "{";
  for (std::size_t i = 0; i < names.size(); ++i) {
    header += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}})",
                          i > 0 ? "," : "", names[i], i, i + 1);
  }
  header += "}";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size() & 0xff);
  file[1] = static_cast<char>(header.size() >> 8);
  return file + header + std::string(names.size(), '\1');
}

void write_index(const std::filesystem::path& dir, const std::string& weight_map) {
  write(dir / "config.json", "{}");
  write(dir / "model.safetensors.index.json", R"({"weight_map":)" + weight_map + "}");
}

// Touches every byte of every tensor.
void read_everything(const Checkpoint& checkpoint) {
  EXPECT_FALSE(checkpoint.names().empty());
  for (const std::string& name : checkpoint.names()) {
    ASSERT_TRUE(checkpoint.has(name));
    const Tensor tensor = checkpoint.tensor(name);
    unsigned sum = 0;
    for (const std::byte b : tensor.bytes()) sum += std::to_integer<unsigned>(b);
    EXPECT_GT(sum, 0u) << name << " holds zeros only";
  }
}

TEST(HfCheckpoint, OpensTheBundledModel) {
  const auto checkpoint = open_checkpoint(test::tiny_novel());
  EXPECT_EQ(checkpoint->convention(), "hf");
  EXPECT_EQ(checkpoint->config()["model_type"], "llama");
  EXPECT_THAT(checkpoint->companion_files(),
              ElementsAre("generation_config.json", "tokenizer.json", "tokenizer_config.json"));
  read_everything(*checkpoint);
  ASSERT_TRUE(checkpoint->has_linear("model.layers.0.self_attn.k_proj"));
  const QuantTensor k = checkpoint->linear("model.layers.0.self_attn.k_proj");
  EXPECT_EQ(k.format->name(), "bf16");
  EXPECT_EQ(k.rows, 128);
  EXPECT_EQ(k.cols, 256);
  EXPECT_FALSE(checkpoint->has_linear("model.layers.0.self_attn"));
  EXPECT_ERROR(checkpoint->linear("model.norm"), ErrorKind::kCorrupt, "a matrix is needed");
  EXPECT_ERROR(checkpoint->linear("no.such"), ErrorKind::kCorrupt, "no tensor 'no.such.weight'");
}

TEST(HfCheckpoint, OpensEveryOracleAndModel) {
  NIBBLE_NEEDS_DATA("oracles");
  int opened = 0;
  for (const char* folder : {"oracles", "models"}) {
    for (const auto& entry : std::filesystem::directory_iterator(test::data_dir() / folder)) {
      if (!std::filesystem::exists(entry.path() / "config.json")) continue;
      SCOPED_TRACE(entry.path().string());
      const auto checkpoint = open_checkpoint(entry.path());
      EXPECT_EQ(checkpoint->convention(), "hf");
      for (const std::string& name : checkpoint->names()) {
        EXPECT_GT(checkpoint->tensor(name).elements(), 0) << name;
      }
      ++opened;
    }
  }
  EXPECT_GE(opened, 15);
}

TEST(HfCheckpoint, ReadsShards) {
  TempDir dir;
  write_index(dir.path(), R"({"a":"model-1.safetensors","b":"model-2.safetensors"})");
  write(dir / "model-1.safetensors", tensors_named({"a"}));
  write(dir / "model-2.safetensors", tensors_named({"b", "c"}));
  const auto checkpoint = open_checkpoint(dir.path());
  EXPECT_THAT(checkpoint->names(), ElementsAre("a", "b", "c"));
  EXPECT_THAT(checkpoint->companion_files(), IsEmpty());
  read_everything(*checkpoint);
}

TEST(HfCheckpoint, RefusesMissingAndContradictingShards) {
  TempDir dir;
  write_index(dir.path(), R"({"a":"model-1.safetensors","b":"model-2.safetensors"})");
  write(dir / "model-1.safetensors", tensors_named({"a"}));
  EXPECT_ERROR(open_checkpoint(dir.path()), ErrorKind::kCorrupt, "model-2.safetensors is missing");
  write(dir / "model-2.safetensors", tensors_named({"c"}));
  EXPECT_ERROR(open_checkpoint(dir.path()), ErrorKind::kCorrupt,
               "tensor 'b' is not in model-2.safetensors");
  write(dir / "model-2.safetensors", tensors_named({"a", "b"}));
  EXPECT_ERROR(open_checkpoint(dir.path()), ErrorKind::kCorrupt,
               "tensor 'a' stands in model-1.safetensors and in model-2.safetensors");
  write(dir / "model-2.safetensors", tensors_named({"b"}).substr(0, 40));
  EXPECT_ERROR(open_checkpoint(dir.path()), ErrorKind::kCorrupt, "model-2.safetensors");
  write(dir / "model-2.safetensors", tensors_named({"c"}));
  write_index(dir.path(), R"({"a":"model-1.safetensors","c":"model-1.safetensors",)"
                          R"("d":"model-2.safetensors"})");
  EXPECT_ERROR(open_checkpoint(dir.path()), ErrorKind::kCorrupt, "tensor 'c' is not in model-1");
}

TEST(HfCheckpoint, RefusesShardsOutsideTheDirectory) {
  TempDir dir;
  std::filesystem::create_directory(dir / "model");
  write(dir / "x.safetensors", tensors_named({"a"}));
  for (const std::string& name :
       {std::string("../x.safetensors"), (dir / "x.safetensors").string(), std::string(""),
        std::string("sub/x.safetensors"), std::string("..\\\\x.safetensors"),
        std::string("config.json"), std::string("..")}) {
    write_index(dir / "model", R"({"a":")" + name + "\"}");
    EXPECT_ERROR(open_checkpoint(dir / "model"), ErrorKind::kCorrupt, "no plain name");
  }
  for (const char* map : {"1", "[]", R"({"a":1})", "{\"a\":\"x"}) {
    write_index(dir / "model", map);
    EXPECT_ERROR(open_checkpoint(dir / "model"), ErrorKind::kCorrupt, "index.json");
  }
}

TEST(HfCheckpoint, RefusesWhatIsNoCheckpoint) {
  TempDir dir;
  EXPECT_ERROR(open_checkpoint(dir / "none"), ErrorKind::kCorrupt, "no such file");
  EXPECT_ERROR(open_checkpoint(dir.path()), ErrorKind::kCorrupt, "no config.json");
  write(dir / "file.txt", "text");
  EXPECT_ERROR(open_checkpoint(dir / "file.txt"), ErrorKind::kUnsupported, "file.txt");
  write(dir / "config.json", "{}");
  EXPECT_ERROR(open_checkpoint(dir.path()), ErrorKind::kCorrupt, "model.safetensors");
  write(dir / "pytorch_model.bin", "PK\3\4 and more than twenty-eight bytes");
  EXPECT_ERROR(open_checkpoint(dir.path()), ErrorKind::kCorrupt, "no directory at its end");
  EXPECT_ERROR(open_checkpoint(dir / "pytorch_model.bin"), ErrorKind::kCorrupt, "no directory");
}

TEST(HfCheckpoint, RefusesDamagedConfigs) {
  TempDir dir;
  write(dir / "model.safetensors", tensors_named({"a"}));
  const auto with = [&](const std::string& config) {
    write(dir / "config.json", config);
    return open_checkpoint(dir.path());
  };
  EXPECT_EQ(with("{}")->convention(), "hf");
  EXPECT_EQ(with(R"({"quantization_config":null})")->convention(), "hf");
  EXPECT_ERROR(with(""), ErrorKind::kCorrupt, "config.json");
  EXPECT_ERROR(with("[]"), ErrorKind::kCorrupt, "no JSON object");
  EXPECT_ERROR(with(R"({"a":1,"a":2})"), ErrorKind::kCorrupt, "duplicate key");
  EXPECT_ERROR(with(std::string(1000, '[')), ErrorKind::kCorrupt, "nested deeper");
  EXPECT_ERROR(with("{\"a\":\"\xff\"}"), ErrorKind::kCorrupt, "config.json");
  EXPECT_ERROR(with(std::string((16 << 20) + 1, ' ')), ErrorKind::kCorrupt, "limit");
  EXPECT_ERROR(with(R"({"quantization_config":1})"), ErrorKind::kCorrupt, "no object");
  EXPECT_ERROR(with(R"({"quantization_config":{}})"), ErrorKind::kCorrupt, "no quant_method");
  EXPECT_ERROR(with(R"({"quantization_config":{"quant_method":"aqlm"}})"), ErrorKind::kUnsupported,
               "AQLM");
}

TEST(HfCheckpoint, CarriesCompanionsOnly) {
  TempDir dir;
  write(dir / "config.json", "{}");
  write(dir / "model.safetensors", tensors_named({"a"}));
  for (const char* name : {"tokenizer.model", "LICENSE.txt", "README.md", "merges.txt", "x.json"}) {
    write(dir / name, "x");
  }
  EXPECT_THAT(open_checkpoint(dir.path())->companion_files(),
              ElementsAre("LICENSE.txt", "merges.txt", "tokenizer.model"));
}

TEST(HfCheckpoint, NamesConventionsThatItDoesNotRead) {
  TempDir dir;
  write(dir / "model.safetensors", tensors_named({"a"}));
  const auto with_method = [&](const std::string& method) {
    write(dir / "config.json", R"({"quantization_config":{"quant_method":")" + method + "\"}}");
    return dir.path();
  };
  EXPECT_ERROR(open_checkpoint(with_method("aqlm")), ErrorKind::kUnsupported, "AQLM");
  EXPECT_ERROR(open_checkpoint(with_method("paroquant")), ErrorKind::kUnsupported, "ParoQuant");
  EXPECT_ERROR(open_checkpoint(with_method("new")), ErrorKind::kUnsupported, "'new' (unknown)");
  EXPECT_ERROR(open_checkpoint(with_method("bitblas")), ErrorKind::kUnsupported, "take the 16-bit");
  // By the names of tensors where the config says nothing.
  write(dir / "config.json", "{}");
  for (const auto& [tensor, name] :
       std::vector<std::pair<std::string, std::string>>{{"m.W_q", "HQQ"}, {"m.Qidxs", "QuIP#"}}) {
    write(dir / "model.safetensors", tensors_named({tensor}));
    EXPECT_ERROR(open_checkpoint(dir.path()), ErrorKind::kUnsupported, name);
  }
}

TEST(HfCheckpoint, AFileStandsForItsDirectory) {
  TempDir dir;
  write(dir / "model.safetensors", tensors_named({"a"}));
  EXPECT_ERROR(open_checkpoint(dir / "model.safetensors"), ErrorKind::kUnsupported, "config.json");
  write(dir / "config.json", "{}");
  for (const char* name : {"config.json", "model.safetensors"}) {
    EXPECT_THAT(open_checkpoint(dir / name)->names(), ElementsAre("a"));
  }
  write(dir / "weights.pth", "x");
  EXPECT_ERROR(open_checkpoint(dir / "weights.pth"), ErrorKind::kUnsupported, "pytorch_model.bin");
}

}  // namespace
}  // namespace nibble
