// Models and tokenizers out of GGUF files, and into them.
#include "checkpoint/container/gguf_writer.h"
#include "checkpoint/convert.h"
#include "checkpoint/gguf_tokenizer.h"
#include "checkpoint/gguf_vocabulary.h"
#include "model/oracles.h"
#include "model/tokenizer/tokenizer.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

TEST(GgufModel, GivesTheLogitsOfLlamaCppsConventions) {
  const auto folder = test::source_dir() / "tests/golden/checkpoint/gguf";
  const Json golden = read_json_file((folder / "expected.json").string());
  const auto checkpoint = open_checkpoint(folder / "model.gguf");
  const auto backend = test::exact_backend();
  const Model model(build_spec(checkpoint->config()), *checkpoint, *backend);
  const auto ids = golden.at("ids").get<std::vector<std::int32_t>>();
  const Tensor computed = to_float(model.logits(Batch::single(ids)));
  const std::vector<float> logits(computed.data<float>(),
                                  computed.data<float>() + computed.elements());
  std::size_t i = 0;
  double largest = 0;
  for (const Json& row : golden.at("logits")) {
    for (const Json& value : row) {
      largest = std::max(largest, std::abs(value.get<double>()));
      EXPECT_NEAR(static_cast<double>(logits.at(i)), value.get<double>(), 2e-5) << i;
      ++i;
    }
  }
  EXPECT_EQ(i, logits.size());
  EXPECT_GT(largest, 0.5);
}

// Q6_K is among the types of Q4_K_M, for one the tied head's; Q8_0 has blocks of 32.
TEST(GgufModel, RoundsInputsOfBlocksAndHeadAsGgmlDoes) {
  const auto backend = test::exact_backend();
  const ModelFormat rounding = parse_model_format("a=ggml");
  for (const auto& [preset, input] :
       {std::pair("Q4_K_M", "int8_g256"), std::pair("Q8_0", "int8_g32_sf16")}) {
    test::TempDir dir;
    ConvertOptions options;
    options.target = "gguf";
    options.preset = preset;
    options.requantize = true;
    convert_checkpoint(*open_checkpoint(test::tiny_novel()), dir / "model.gguf", options);
    const auto checkpoint = open_checkpoint(dir / "model.gguf");
    const Model model(build_spec(checkpoint->config()), *checkpoint, *backend, rounding);
    for (const Linear* linear : {&model.layers()[0].v, &model.head_weights().head}) {
      ASSERT_NE(linear->activations, nullptr);
      EXPECT_EQ(linear->activations->name(), input);
    }
  }
  const auto plain = open_checkpoint(test::tiny_novel());
  const Model model(build_spec(plain->config()), *plain, *backend, rounding);
  EXPECT_EQ(model.layers()[0].v.activations, nullptr);
}

TEST(GgufModel, BringsItsTokenizer) {
  const auto folder = test::source_dir() / "tests/golden/checkpoint/gguf";
  const auto checkpoint = open_checkpoint(folder / "model.gguf");
  const auto tokenizer = make_tokenizer(checkpoint->documents());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 24);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  // A space comes first; "bc" is better than "▁ab", which is better than nothing.
  EXPECT_EQ(tokenizer->encode("abc"), (std::vector<std::int32_t>{1, 11}));
  EXPECT_EQ(tokenizer->encode("ab"), (std::vector<std::int32_t>{1, 9}));
  EXPECT_EQ(tokenizer->encode("A", {.add_special = false}), (std::vector<std::int32_t>{3, 12}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("abc ab A")), "abc ab A");
}

// Every model that nibble has a GGUF form of, written as one and read back, against what
// transformers computes.
TEST(GgufModel, GivesTheLogitsOfTransformersAfterConversion) {
  int converted = 0;
  for (const auto& path : test::oracle_directories()) {
    SCOPED_TRACE(path.string());
    test::TempDir dir;
    const test::Oracle oracle(path);
    ConvertOptions options;
    options.target = "gguf";
    try {
      EXPECT_TRUE(convert_checkpoint(*oracle.checkpoint, dir / "x.gguf", options).exact());
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUnsupported) << error.what();
      continue;
    }
    ++converted;
    const auto checkpoint = open_checkpoint(dir / "x.gguf");
    const Model model(build_spec(checkpoint->config()), *checkpoint, *oracle.backend);
    const Tensor logits = model.logits(Batch::windows(oracle.all_ids(), oracle.length()));
    EXPECT_LE(test::max_abs_error(test::floats(logits), test::floats(oracle.expected)), 5e-5);
  }
  EXPECT_GE(converted, 12);
}

// The documents of a tokenizer after a GGUF file held them.
std::unique_ptr<Tokenizer> through_gguf(const std::map<std::string, Json>& documents,
                                        std::int64_t size) {
  test::TempDir dir;
  GgufMetadata metadata;
  add_vocabulary(documents, Json::object(), size, metadata);
  GgufWriter(dir / "x.gguf", metadata, {}).sync();
  const GgufFile file(dir / "x.gguf");
  return make_tokenizer(*tokenizer_from_gguf(file.header().metadata, "test"));
}

std::map<std::string, Json> documents_in(const std::filesystem::path& folder) {
  std::map<std::string, Json> documents;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    if (!std::filesystem::exists(folder / name)) continue;
    documents[name] = read_json_file((folder / name).string());
  }
  return documents;
}

TEST(GgufVocabulary, CutsTextAsBefore) {
  const auto folder = test::source_dir() / "tests/golden/tokenizers";
  const std::string text =
      "Hello, world! It's 2024: 1234567 words\n\n  and\ttabs, \xc3\xa4\xc3\xb6\xc3\xbc, "
      "\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80 don't  stop ";
  for (const auto& path : {test::tiny_novel(), folder / "byte_bpe", folder / "spm_bpe_normalizer",
                           folder / "spm_bpe_metaspace", folder / "wordpiece"}) {
    SCOPED_TRACE(path.string());
    const auto documents = documents_in(path);
    const auto before = make_tokenizer(documents);
    const auto after = through_gguf(documents, before->vocab_size() + 3);
    EXPECT_EQ(after->encode(text), before->encode(text));
    EXPECT_EQ(after->decode(after->encode(text)), before->decode(before->encode(text)));
    if (before->bos()) {
      EXPECT_EQ(after->bos(), before->bos());
    }
    if (before->eos()) {
      EXPECT_EQ(after->eos(), before->eos());
    }
    EXPECT_EQ(after->vocab_size(), before->vocab_size() + 3);
    EXPECT_ERROR(through_gguf(documents, before->vocab_size() - 1), ErrorKind::kUnsupported,
                 "a row for each token");
  }
}

TEST(GgufVocabulary, RefusesWhatLlamaCppHasNoKindFor) {
  const auto folder = test::source_dir() / "tests/golden/tokenizers";
  EXPECT_ERROR(through_gguf(documents_in(folder / "suffix_bpe"), 100000), ErrorKind::kUnsupported,
               "tokenizer.json");
  EXPECT_ERROR(through_gguf(documents_in(folder / "wordlevel"), 100000), ErrorKind::kUnsupported,
               "tokenizer.json");
  EXPECT_ERROR(through_gguf(documents_in(folder / "unigram"), 100000), ErrorKind::kUnsupported,
               "'Nmt'");
}

}  // namespace
}  // namespace nibble
