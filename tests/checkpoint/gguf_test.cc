// GGUF files: sound ones in both byte orders and in parts, and damaged ones of the kinds that
// readers of them have had advisories for.
#include "checkpoint/container/gguf.h"

#include <algorithm>
#include <functional>

#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf_arch.h"
#include "checkpoint/gguf_tokenizer.h"
#include "formats/block_forms.h"
#include "formats/registry.h"
#include "support/gguf_bytes.h"
#include "support/hex.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using test::GgufBytes;
using test::span_of;
using test::TempDir;

GgufHeader parse(const GgufBytes& bytes) { return parse_gguf(span_of(bytes.bytes()), "test"); }

// Every kind of value and two tensors.
GgufBytes sound(bool big_endian, std::uint32_t version = 3) {
  GgufBytes bytes(big_endian, version);
  bytes.string("general.architecture", "llama");
  bytes.key("a", 0).raw(std::uint8_t{200});
  bytes.key("b", 1).raw(std::int8_t{-3});
  bytes.key("c", 3).raw(std::int16_t{-300});
  bytes.key("d", 7).raw(std::uint8_t{1});
  bytes.key("e", 10).raw(std::uint64_t{1} << 40);
  bytes.key("f", 12).raw(0.25);
  bytes.key("list", 9).raw(std::uint32_t{5});
  bytes.raw(std::uint64_t{2});
  bytes.raw(std::int32_t{-1});
  bytes.raw(std::int32_t{7});
  std::string values(16, '\0');
  bytes.tensor("one", 0, {1, 4}, span_of(values));
  bytes.tensor("two", 8, {2, 32}, span_of(std::string(68, '\1')));
  return bytes;
}

TEST(Gguf, ReadsBothVersionsAndByteOrders) {
  for (const bool big_endian : {false, true}) {
    for (const std::uint32_t version : {2u, 3u}) {
      const GgufHeader header = parse(sound(big_endian, version));
      EXPECT_EQ(header.version, version);
      EXPECT_EQ(header.swapped, big_endian);
      EXPECT_EQ(header.metadata.at("a"), 200);
      EXPECT_EQ(header.metadata.at("b"), -3);
      EXPECT_EQ(header.metadata.at("c"), -300);
      EXPECT_EQ(header.metadata.at("d"), true);
      EXPECT_EQ(header.metadata.at("e"), std::uint64_t{1} << 40);
      EXPECT_EQ(header.metadata.at("f"), 0.25);
      EXPECT_EQ(header.metadata.at("list"), Json({-1, 7}));
      ASSERT_EQ(header.tensors.size(), 2u);
      EXPECT_EQ(header.tensors[1].shape, (Shape{2, 32}));
      EXPECT_EQ(header.tensors[1].type.name(), "q8_0");
      EXPECT_EQ(header.tensors[1].bytes, 68u);
      EXPECT_EQ(header.tensors[1].offset, 32u);
    }
  }
}

TEST(Gguf, TurnsNumbersOfTheOtherByteOrder) {
  TempDir dir;
  GgufBytes bytes(true);
  const std::string floats("\x3f\x80\x00\x00\xc0\x00\x00\x00", 8);
  bytes.tensor("f", 0, {2}, span_of(floats));
  std::string block(34, '\2');
  block[0] = '\x3c';  // 1 as a half, high byte first
  block[1] = '\0';
  bytes.tensor("q", 8, {1, 32}, span_of(block));
  bytes.write(dir / "x.gguf");
  const GgufFile file(dir / "x.gguf");
  const auto& tensors = file.header().tensors;
  EXPECT_EQ(to_float(file.read(tensors[0])).data<float>()[0], 1.0f);
  EXPECT_EQ(to_float(file.read(tensors[0])).data<float>()[1], -2.0f);
  const QuantTensor weight{block_format(BlockType::kQ8_0), 1, 32, {file.read(tensors[1])}};
  float value = 0;
  weight.format->decode(weight, 0, 5, 1, &value);
  EXPECT_EQ(value, 2.0f);
}

// Every type that the gguf package decodes, as its decoders read it on a machine of the other order
// (tests/golden/formats/make_blocks.py).
TEST(Gguf, TurnsBlocksOfEveryTypeOfTheOtherByteOrder) {
  const Json golden =
      read_json_file((test::source_dir() / "tests/golden/formats/blocks.json").string());
  TempDir dir;
  GgufBytes bytes(true);
  std::vector<std::vector<std::uint8_t>> expected;
  for (const auto& [name, row] : golden.items()) {
    const bool shared = name == "mxfp4" || name == "nvfp4";  // with a format of the grammar
    const auto type = block_type_named(shared ? name + "_gguf" : name);
    ASSERT_TRUE(type.has_value()) << name;
    const BlockLayout& layout = layout_of(*type);
    const auto big = test::from_hex(row.at("big").get<std::string>());
    bytes.tensor(name, layout.id, {2, layout.elements}, std::as_bytes(std::span(big)));
    expected.push_back(test::from_hex(row.at("hex").get<std::string>()));
  }
  bytes.write(dir / "x.gguf");
  const GgufFile file(dir / "x.gguf");
  ASSERT_EQ(file.header().tensors.size(), golden.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const GgufTensor& tensor = file.header().tensors[i];
    EXPECT_TRUE(
        std::ranges::equal(file.read(tensor).bytes(), std::as_bytes(std::span(expected[i]))))
        << tensor.name;
  }
}

// Those that the package has no decoder for, by ggml's structures.
TEST(Gguf, TurnsBlocksOfOtherTypes) {
  TempDir dir;
  GgufBytes bytes(true);
  std::string q8_k(292, '\0');  // d as float32, 256 codes, 16 sums of 16 bits
  q8_k.replace(0, 4, "\x3f\x00\x00\x00", 4);
  q8_k[4 + 7] = '\3';
  q8_k.replace(260 + 30, 2, "\x01\x02", 2);
  bytes.tensor("q8_k", 15, {1, 256}, span_of(q8_k));
  const std::string q8_1 = std::string("\x3c\x00\x40\x00", 4) + std::string(32, '\2');
  bytes.tensor("q8_1", 9, {1, 32}, span_of(q8_1));
  bytes.tensor("q1_0", 41, {1, 128}, span_of(std::string("\xbc\x00", 2) + std::string(16, '\0')));
  bytes.tensor("q2_0", 42, {1, 64}, span_of(std::string("\x44\x00", 2) + std::string(16, '\2')));
  bytes.write(dir / "x.gguf");
  const GgufFile file(dir / "x.gguf");
  const auto value = [&](std::size_t i, std::int64_t at) {
    const GgufTensor& tensor = file.header().tensors[i];
    const QuantTensor weight{
        block_format(*tensor.type.block), 1, tensor.shape[1], {file.read(tensor)}};
    float v = 0;
    weight.format->decode(weight, 0, at, 1, &v);
    return v;
  };
  EXPECT_EQ(value(0, 7), 1.5f);
  const Tensor sums = file.read(file.header().tensors[0]);
  EXPECT_EQ(sums.data<std::uint8_t>()[290], 2);
  EXPECT_EQ(sums.data<std::uint8_t>()[291], 1);
  EXPECT_EQ(value(1, 31), 2.0f);
  EXPECT_EQ(value(2, 5), 1.0f);
  EXPECT_EQ(value(3, 4), 4.0f);
}

struct Damage {
  const char* name;
  ErrorKind kind;
  const char* says;
  std::function<std::string()> make;
};

std::vector<Damage> damages() {
  const auto with = [](const std::function<void(GgufBytes&)>& change) {
    return [change] {
      GgufBytes bytes = sound(false);
      change(bytes);
      return bytes.bytes();
    };
  };
  const auto described = [with](std::uint32_t type, std::vector<std::uint64_t> dims,
                                std::uint64_t offset) {
    return with([=](GgufBytes& b) { b.describe("bad", type, dims, offset); });
  };
  const auto listed = [with](std::uint32_t type, std::uint64_t count) {
    return with([=](GgufBytes& b) {
      b.key("bad", 9).raw(type);
      b.raw(count);
    });
  };
  constexpr std::uint64_t kHuge = ~std::uint64_t{0};
  constexpr auto kCorrupt = ErrorKind::kCorrupt;
  return {
      {"count_of_keys", kCorrupt, "keys in", with([](GgufBytes& b) { b.more_keys = kHuge - 20; })},
      {"count_of_tensors", kCorrupt, "tensors in",
       with([](GgufBytes& b) { b.more_tensors = kHuge - 20; })},
      {"count_of_tensors_wraps", kCorrupt, "tensors in",
       with([](GgufBytes& b) { b.more_tensors = kHuge / 40; })},
      {"key_past_the_end", kCorrupt, "a key", with([](GgufBytes& b) {
         b.raw(kHuge);
         b.more_keys = 1;
       })},
      {"string_past_the_end", kCorrupt, "a text",
       with([](GgufBytes& b) { b.key("bad", 8).raw(kHuge); })},
      {"string_that_wraps", kCorrupt, "a text",
       with([](GgufBytes& b) { b.key("bad", 8).raw(kHuge - 3); })},
      {"array_past_the_end", kCorrupt, "values", listed(4, std::uint64_t{1} << 62)},
      {"array_that_wraps", kCorrupt, "values", listed(8, std::uint64_t{1} << 61)},
      {"array_of_arrays", kCorrupt, "array of arrays", with([](GgufBytes& b) {
         b.key("bad", 9).raw(std::uint32_t{9});
         b.raw(std::uint64_t{1});
       })},
      {"unknown_kind_of_value", kCorrupt, "type 13", with([](GgufBytes& b) { b.key("bad", 13); })},
      {"key_twice", kCorrupt, "twice", with([](GgufBytes& b) { b.u32("a", 1); })},
      {"alignment_0", kCorrupt, "alignment",
       with([](GgufBytes& b) { b.u32("general.alignment", 0); })},
      {"alignment_48", kCorrupt, "alignment",
       with([](GgufBytes& b) { b.u32("general.alignment", 48); })},
      {"no_dimensions", kCorrupt, "0 dimensions", described(0, {}, 0)},
      {"five_dimensions", kCorrupt, "5 dimensions", described(0, {1, 1, 1, 1, 1}, 0)},
      {"dimension_0", kCorrupt, "dimension of 0", described(0, {4, 0}, 0)},
      {"dimensions_past_2_64", kCorrupt, "dimension",
       described(0, {std::uint64_t{1} << 33, std::uint64_t{1} << 33}, 0)},
      {"dimensions_that_wrap", kCorrupt, "dimension",
       described(0, {std::uint64_t{1} << 32, std::uint64_t{1} << 32, 4}, 0)},
      {"bytes_that_wrap", kCorrupt, "blocks", described(28, {std::uint64_t{1} << 61}, 0)},
      {"unknown_type", ErrorKind::kUnsupported, "type 97", described(97, {32}, 128)},
      {"type_given_up", ErrorKind::kUnsupported, "type 4", described(4, {32}, 128)},
      {"type_of_no_meaning", ErrorKind::kUnsupported, "type 4294967295",
       described(0xffffffff, {32}, 128)},
      {"half_a_block", kCorrupt, "do not divide", described(12, {128}, 128)},
      {"offset_past_the_end", kCorrupt, "ends at", described(0, {4}, std::uint64_t{1} << 40)},
      {"offset_that_wraps", kCorrupt, "ends at", described(0, {4}, kHuge - 31)},
      {"offset_not_aligned", kCorrupt, "not aligned", described(0, {4}, 5)},
      {"overlap", kCorrupt, "overlaps", described(0, {4}, 32)},
      {"tensor_twice", kCorrupt, "twice",
       with([](GgufBytes& b) { b.describe("one", 0, {4}, 128); })},
      {"version_1", ErrorKind::kUnsupported, "version 1", [] { return sound(false, 1).bytes(); }},
      {"no_magic", kCorrupt, "GGUF", [] { return std::string("GGML") + std::string(60, '\0'); }},
      {"empty", kCorrupt, "magic", [] { return std::string(); }},
  };
}

TEST(Gguf, RefusesDamagedFiles) {
  for (const Damage& damage : damages()) {
    SCOPED_TRACE(damage.name);
    EXPECT_ERROR(parse_gguf(span_of(damage.make()), "test"), damage.kind, damage.says);
  }
}

// A file that ends anywhere is damaged, never read past its end.
TEST(Gguf, RefusesTruncatedFiles) {
  const std::string whole = sound(false).bytes();
  for (std::size_t size = 0; size + 60 < whole.size(); ++size) {
    const std::string part = whole.substr(0, size);
    EXPECT_THROW(parse_gguf(span_of(part), "test"), Error) << size;
  }
}

GgufBytes part_of_llama(int number, int count) {
  GgufBytes bytes;
  if (number == 0)
    bytes.llama_keys({.layers = 1, .hidden = 4, .heads = 1, .kv_heads = 1, .ffn = 4});
  bytes.key("split.no", 2).raw(static_cast<std::uint16_t>(number));
  bytes.key("split.count", 2).raw(static_cast<std::uint16_t>(count));
  const std::string data(80, '\1');
  if (number == 0) bytes.tensor("token_embd.weight", 0, {5, 4}, span_of(data));
  if (number == 1) bytes.tensor("output_norm.weight", 0, {4}, span_of(data.substr(0, 16)));
  return bytes;
}

TEST(Gguf, ReadsSplitsFromAnyOfTheirFiles) {
  TempDir dir;
  part_of_llama(0, 2).write(dir / "m-00001-of-00002.gguf");
  part_of_llama(1, 2).write(dir / "m-00002-of-00002.gguf");
  for (const char* name : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf", ""}) {
    const auto checkpoint = open_checkpoint(dir / name);
    EXPECT_TRUE(checkpoint->has("model.embed_tokens.weight")) << name;
    EXPECT_TRUE(checkpoint->has("model.norm.weight")) << name;
  }
}

TEST(Gguf, RefusesSplitsThatDoNotFit) {
  {  // every file says that it is the first
    TempDir dir;
    part_of_llama(0, 2).write(dir / "m-00001-of-00002.gguf");
    part_of_llama(0, 2).write(dir / "m-00002-of-00002.gguf");
    EXPECT_ERROR(open_checkpoint(dir / "m-00001-of-00002.gguf"), ErrorKind::kCorrupt, "part 0");
  }
  {  // one is missing
    TempDir dir;
    part_of_llama(0, 2).write(dir / "m-00001-of-00002.gguf");
    EXPECT_ERROR(open_checkpoint(dir / "m-00001-of-00002.gguf"), ErrorKind::kCorrupt, "00002-of");
  }
  {  // more are said to be there than the name says
    TempDir dir;
    part_of_llama(0, 3).write(dir / "m-00001-of-00002.gguf");
    EXPECT_ERROR(open_checkpoint(dir / "m-00001-of-00002.gguf"), ErrorKind::kCorrupt, "split");
  }
}

TEST(Gguf, NamesWhatItCannotRead) {
  TempDir dir;
  GgufBytes bytes;
  bytes.string("general.architecture", "mamba");
  bytes.write(dir / "m.gguf");
  EXPECT_ERROR(open_checkpoint(dir / "m.gguf"), ErrorKind::kUnsupported, "'mamba'");
}

// Blocks are mapped as they are; rows of rotated heads are put into order, whole rows of blocks.
TEST(GgufCheckpoint, KeepsBlocksAndOrdersRows) {
  const auto path = test::source_dir() / "tests/golden/checkpoint/gguf/model.gguf";
  const auto checkpoint = open_checkpoint(path);
  EXPECT_EQ(checkpoint->convention(), "gguf");
  const GgufFile file(path);
  const auto stored = [&](const char* name) {
    for (const GgufTensor& tensor : file.header().tensors) {
      if (tensor.name == name) return file.read(tensor);
    }
    throw std::runtime_error(name);
  };
  const QuantTensor down = checkpoint->linear("model.layers.0.mlp.down_proj");
  EXPECT_EQ(down.format->name(), "q4_k");
  EXPECT_TRUE(std::ranges::equal(down.planes[0].bytes(), stored("blk.0.ffn_down.weight").bytes()));
  const QuantTensor q = checkpoint->linear("model.layers.0.self_attn.q_proj");
  const Tensor raw = stored("blk.0.attn_q.weight");
  EXPECT_EQ(q.format->name(), "q8_0");
  for (std::int64_t row = 0; row < 32; ++row) {
    const std::int64_t head = row / 16, i = row % 16;
    const std::int64_t from = 16 * head + (i < 8 ? 2 * i : 2 * (i - 8) + 1);
    EXPECT_TRUE(std::ranges::equal(q.planes[0].rows(row, row + 1).bytes(),
                                   raw.rows(from, from + 1).bytes()))
        << row;
  }
  EXPECT_EQ(checkpoint->config().at("rms_norm_eps"), 1e-5);
  EXPECT_EQ(checkpoint->config().at("tie_word_embeddings"), false);
  EXPECT_EQ(checkpoint->documents().at("tokenizer_config.json").at("chat_template"),
            "{{ messages[0].content }}");
}

// Where the grammar has a format of the same values, it has the same values, and the way back gives
// the same bytes.
TEST(BlockForms, KeepEveryValueBothWays) {
  std::vector<float> w(4 * 128);
  for (std::size_t i = 0; i < w.size(); ++i) {
    w[i] = 0.01f * static_cast<float>(static_cast<int>(i * 7919 % 2003) - 1001);
  }
  for (const char* name : {"q4_0", "q5_0", "q8_0", "mxfp4_gguf", "nvfp4_gguf"}) {
    const QuantTensor blocks = parse_weight_format(name)->encode(w.data(), 4, 128);
    const auto plain = plain_form_of_blocks(blocks);
    ASSERT_TRUE(plain.has_value()) << name;
    validate(*plain);
    std::vector<float> a(w.size()), b(w.size());
    decode_all(blocks, a.data());
    decode_all(*plain, b.data());
    EXPECT_EQ(a, b) << name;
  }
  EXPECT_FALSE(plain_form_of_blocks(parse_weight_format("q4_1")->encode(w.data(), 4, 128)));
}

// Where no key says whether text begins with BOS, the kind of words does.
TEST(GgufTokenizer, BeginsWithBosWhereLlamaCppDoes) {
  for (const auto& [pre, begins] :
       {std::pair{"llama-bpe", true}, {"tekken", true}, {"gpt-2", false}, {"qwen2", false}}) {
    const Json metadata = {{"tokenizer.ggml.model", "gpt2"},
                           {"tokenizer.ggml.pre", pre},
                           {"tokenizer.ggml.tokens", {"a", "b", "ab"}},
                           {"tokenizer.ggml.token_type", {1, 1, 1}},
                           {"tokenizer.ggml.merges", {"a b"}}};
    const auto documents = tokenizer_from_gguf(metadata, "test");
    ASSERT_TRUE(documents.has_value());
    EXPECT_EQ(documents->at("tokenizer_config.json").at("add_bos_token"), begins) << pre;
  }
}

}  // namespace
}  // namespace nibble
