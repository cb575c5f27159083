#include "checkpoint/synth.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/synth_tokenizer.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;

void synth(const std::filesystem::path& dir, std::uint64_t seed, int threads = 1,
           std::uint64_t shard = 2'000'000'000) {
  ThreadPool pool(threads);
  synthesize(dir, "tiny-llama", seed, pool, {}, shard);
}

std::vector<float> values(const Checkpoint& checkpoint, const std::string& name) {
  const Tensor tensor = checkpoint.tensor(name);
  std::vector<float> v(static_cast<std::size_t>(tensor.elements()));
  to_float(tensor, v.data());
  return v;
}

double deviation(const std::vector<float>& v) {
  double sum = 0, squares = 0;
  for (const float x : v) sum += x;
  const double mean = sum / static_cast<double>(v.size());
  for (const float x : v) squares += (x - mean) * (x - mean);
  return std::sqrt(squares / static_cast<double>(v.size()));
}

TEST(Synth, WritesACheckpointThatOpens) {
  TempDir dir;
  synth(dir / "m", 1);
  const auto m = open_checkpoint(dir / "m");
  EXPECT_EQ(m->convention(), "hf");
  EXPECT_EQ(m->config()["model_type"], "llama");
  EXPECT_EQ(m->linear("model.layers.1.mlp.down_proj").cols, 176);
  EXPECT_EQ(m->linear("model.layers.0.self_attn.k_proj").rows, 32);
  EXPECT_EQ(m->names().size(), 3u + 2 * 9);
  EXPECT_THAT(m->companion_files(), testing::ElementsAre("generation_config.json", "tokenizer.json",
                                                         "tokenizer_config.json"));
}

TEST(Synth, WeightsFollowTheStatedDistributions) {
  TempDir dir;
  synth(dir / "m", 1);
  const auto m = open_checkpoint(dir / "m");
  std::vector<float> w = values(*m, "lm_head.weight");
  // Column by column: one outlier channel, all others of deviation 0.02. The standard error of the
  // deviation of 512 values is 3 %.
  int outliers = 0;
  for (std::size_t c = 0; c < 64; ++c) {
    std::vector<float> column;
    for (std::size_t r = 0; r < 512; ++r) column.push_back(w[r * 64 + c]);
    const double d = deviation(column);
    if (d > 0.1) {
      EXPECT_NEAR(d, 0.16, 0.16 * 0.15);
      ++outliers;
    } else {
      EXPECT_NEAR(d, 0.02, 0.02 * 0.15);
    }
  }
  EXPECT_EQ(outliers, 1);
  const std::vector<float> norm = values(*m, "model.norm.weight");
  for (const float x : norm) EXPECT_NEAR(x, 1, 0.3);
  EXPECT_NE(values(*m, "model.layers.0.mlp.up_proj.weight"),
            values(*m, "model.layers.1.mlp.up_proj.weight"));
}

TEST(Synth, BytesDependOnTheSeedAlone) {
  TempDir dir;
  synth(dir / "a", 1, 1);
  synth(dir / "b", 1, 3);
  synth(dir / "c", 2, 1);
  for (const auto& entry : std::filesystem::directory_iterator(dir / "a")) {
    EXPECT_EQ(read_text_file(entry.path()), read_text_file(dir / "b" / entry.path().filename()));
  }
  EXPECT_NE(read_text_file(dir / "a/model.safetensors"),
            read_text_file(dir / "c/model.safetensors"));
}

TEST(Synth, Shards) {
  TempDir dir;
  synth(dir / "one", 1);
  synth(dir / "many", 1, 1, 100'000);
  EXPECT_TRUE(std::filesystem::exists(dir / "many/model.safetensors.index.json"));
  const auto one = open_checkpoint(dir / "one"), many = open_checkpoint(dir / "many");
  EXPECT_EQ(one->names(), many->names());
  for (const std::string& name : one->names()) {
    EXPECT_TRUE(std::ranges::equal(one->tensor(name).bytes(), many->tensor(name).bytes())) << name;
  }
}

TEST(Synth, RefusesUnknownShapesAndExistingTargets) {
  TempDir dir;
  ThreadPool pool(1);
  EXPECT_ERROR(synthesize(dir / "m", "tinyllama", 1, pool), ErrorKind::kUsage, "tiny-llama");
  EXPECT_ERROR(synthesize(dir.path(), "tiny-llama", 1, pool), ErrorKind::kUsage, "exists already");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(SynthTokenizer, FillsTheVocabularyOfEveryShape) {
  for (const SynthShape& shape : synth_shapes()) {
    SCOPED_TRACE(shape.name);
    const Json tokenizer = synth_tokenizer(shape.vocab);
    const Json& vocab = tokenizer["model"]["vocab"];
    ASSERT_EQ(static_cast<std::int64_t>(vocab.size()), shape.vocab);
    std::set<std::int64_t> ids;
    for (const auto& [piece, id] : vocab.items()) ids.insert(id.get<std::int64_t>());
    EXPECT_EQ(static_cast<std::int64_t>(ids.size()), shape.vocab);
    EXPECT_EQ(*ids.rbegin(), shape.vocab - 1);
    for (const Json& merge : tokenizer["model"]["merges"]) {
      const auto& text = merge.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      const std::string left = text.substr(0, space), right = text.substr(space + 1);
      ASSERT_TRUE(vocab.contains(left) && vocab.contains(right) && vocab.contains(left + right))
          << text;
    }
  }
}

}  // namespace
}  // namespace nibble
