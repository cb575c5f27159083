#include <cstring>
#include <fstream>

#include "checkpoint/checkpoint.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::TempDir;
using ::testing::ElementsAre;
using ::testing::FloatEq;

constexpr int kDim = 8, kHidden = 12, kLayers = 2, kHeads = 2, kKvHeads = 1, kVocab = 5, kSeq = 3;

// A file of version 0 whose float i is i, so that a tensor's values say where it was read.
std::string make_file(std::vector<std::int32_t> header, std::int64_t floats) {
  std::string bytes(reinterpret_cast<const char*>(header.data()), header.size() * 4);
  for (std::int64_t i = 0; i < floats; ++i) {
    const auto value = static_cast<float>(i);
    bytes.append(reinterpret_cast<const char*>(&value), 4);
  }
  return bytes;
}

constexpr std::int64_t kEmbed = kVocab * kDim;
constexpr std::int64_t kKvDim = kDim / kHeads * kKvHeads;
constexpr std::int64_t kShared =
    kEmbed + kLayers * (2 * kDim + 2 * kDim * kDim + 2 * kKvDim * kDim + 3 * kDim * kHidden) +
    kDim + kSeq * (kDim / kHeads);

std::unique_ptr<Checkpoint> open_bytes(const TempDir& dir, const std::string& bytes) {
  std::ofstream(dir / "m.bin", std::ios::binary) << bytes;
  return open_checkpoint(dir / "m.bin");
}

float first(const Checkpoint& checkpoint, const std::string& name) {
  float value = 0;
  to_float(checkpoint.tensor(name), 0, 1, &value);
  return value;
}

TEST(Llama2c, LaysTensorsOutInTheOrderOfTheFile) {
  TempDir dir;
  const auto m = open_bytes(
      dir, make_file({kDim, kHidden, kLayers, kHeads, kKvHeads, -kVocab, kSeq}, kShared + kEmbed));
  EXPECT_EQ(m->convention(), "llama2c");
  EXPECT_EQ(m->config()["tie_word_embeddings"], false);
  std::int64_t at = 0;
  const auto expect_at = [&](const std::string& name, const Shape& shape) {
    EXPECT_EQ(first(*m, name), static_cast<float>(at)) << name;
    EXPECT_EQ(m->tensor(name).shape(), shape) << name;
    at += element_count(shape);
  };
  const auto expect_layers = [&](const std::string& module, const Shape& shape) {
    expect_at("model.layers.0." + module + ".weight", shape);
    expect_at("model.layers.1." + module + ".weight", shape);
  };
  expect_at("model.embed_tokens.weight", {kVocab, kDim});
  expect_layers("input_layernorm", {kDim});
  expect_layers("self_attn.q_proj", {kDim, kDim});
  expect_layers("self_attn.k_proj", {kKvDim, kDim});
  expect_layers("self_attn.v_proj", {kKvDim, kDim});
  expect_layers("self_attn.o_proj", {kDim, kDim});
  expect_layers("post_attention_layernorm", {kDim});
  expect_layers("mlp.gate_proj", {kHidden, kDim});
  expect_layers("mlp.down_proj", {kDim, kHidden});
  expect_layers("mlp.up_proj", {kHidden, kDim});
  expect_at("model.norm.weight", {kDim});
  at += kSeq * (kDim / kHeads);
  expect_at("lm_head.weight", {kVocab, kDim});
  EXPECT_EQ(m->names().size(), 3u + kLayers * 9u);
}

TEST(Llama2c, PermutesRowsOfAdjacentPairsToHalves) {
  TempDir dir;
  const auto m =
      open_bytes(dir, make_file({kDim, kHidden, kLayers, kHeads, kKvHeads, kVocab, kSeq}, kShared));
  const Tensor q = m->tensor("model.layers.0.self_attn.q_proj.weight");
  const std::int64_t start = kEmbed + kLayers * kDim;
  std::vector<std::int64_t> stored_rows;
  for (std::int64_t r = 0; r < kDim; ++r) {
    float value = 0;
    to_float(q, r * kDim, 1, &value);
    stored_rows.push_back((static_cast<std::int64_t>(value) - start) / kDim);
  }
  // Heads of four rows: the even members of each pair, then the odd ones.
  EXPECT_THAT(stored_rows, ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
}

TEST(Llama2c, OpensStories260k) {
  NIBBLE_NEEDS_DATA("models/stories260k/stories260K.bin");
  const auto m = open_checkpoint(test::data_dir() / "models/stories260k/stories260K.bin");
  EXPECT_EQ(m->config()["hidden_size"], 64);
  EXPECT_EQ(m->config()["intermediate_size"], 172);
  EXPECT_EQ(m->config()["num_key_value_heads"], 4);
  EXPECT_EQ(m->config()["tie_word_embeddings"], true);
  EXPECT_THAT(m->companion_files(), ElementsAre("tok512.bin"));
  EXPECT_FALSE(m->has_linear("lm_head"));
  EXPECT_EQ(m->linear("model.layers.4.mlp.down_proj").cols, 172);
}

TEST(Llama2c, RefusesLyingHeaders) {
  TempDir dir;
  const std::vector<std::int32_t> good = {kDim, kHidden, kLayers, kHeads, kKvHeads, kVocab, kSeq};
  EXPECT_ERROR(open_bytes(dir, make_file(good, kShared - 1)), ErrorKind::kCorrupt, "truncated");
  EXPECT_ERROR(open_bytes(dir, make_file(good, kShared + 1)), ErrorKind::kCorrupt, "asks for");
  EXPECT_ERROR(open_bytes(dir, make_file({kDim, kHidden}, 0)), ErrorKind::kCorrupt, "too short");
  EXPECT_ERROR(open_bytes(dir, ""), ErrorKind::kCorrupt, "too short");
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const std::int32_t bad : {0, -3, 7, 1 << 24, INT32_MAX, INT32_MIN}) {
      std::vector<std::int32_t> header = good;
      header[i] = bad;
      EXPECT_ERROR(open_bytes(dir, make_file(header, kShared)), ErrorKind::kCorrupt, "m.bin");
    }
  }
  EXPECT_ERROR(open_bytes(dir, "24ka" + std::string(252, '\0')), ErrorKind::kUnsupported,
               "versioned");
}

}  // namespace
}  // namespace nibble
