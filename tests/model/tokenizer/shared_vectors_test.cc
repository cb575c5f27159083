// Vectors that come with published vocabularies, and the golden ids of the models' own texts.
#include <fmt/format.h>

#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/container/gguf.h"
#include "checkpoint/gguf_tokenizer.h"
#include "model/tokenizer/tokenizer.h"
#include "support/test_data.h"

namespace nibble {
namespace {

std::vector<std::string> split_cases(const std::string& text) {
  const std::string mark = "\n__ggml_vocab_test__\n";
  std::vector<std::string> cases;
  std::size_t begin = 0;
  for (std::size_t end; (end = text.find(mark, begin)) != std::string::npos;
       begin = end + mark.size()) {
    cases.push_back(text.substr(begin, end - begin));
  }
  return cases;
}

std::vector<std::int32_t> ids_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::int32_t> ids;
  for (std::int32_t id; in >> id;) ids.push_back(id);
  return ids;
}

void expect_vectors(const Tokenizer& tokenizer, const std::filesystem::path& vectors) {
  const auto cases = split_cases(read_text_file(vectors.string() + ".inp"));
  std::istringstream out(read_text_file(vectors.string() + ".out"));
  ASSERT_GT(cases.size(), 20u);
  for (const std::string& text : cases) {
    std::string line;
    ASSERT_TRUE(std::getline(out, line));
    const auto ids = tokenizer.encode(text, {.add_special = false});
    EXPECT_EQ(ids, ids_of(line)) << "[" << text << "]";
    EXPECT_EQ(tokenizer.decode(ids), text);
  }
}

void expect_vectors(const std::filesystem::path& tokenizer_file,
                    const std::filesystem::path& vectors) {
  expect_vectors(*load_tokenizer(tokenizer_file), vectors);
}

void expect_gguf_vectors(const std::filesystem::path& file) {
  const GgufFile gguf(file);
  const auto documents = tokenizer_from_gguf(gguf.header().metadata, file.string());
  ASSERT_TRUE(documents.has_value());
  expect_vectors(*make_tokenizer(*documents), file);
}

TEST(SharedVectors, FromTheVocabulariesOfGguf) {
  NIBBLE_NEEDS_DATA("tokenizers/gpt2/ggml-vocab-gpt-2.gguf");
  for (const char* name : {"gpt2/ggml-vocab-gpt-2.gguf", "llama-spm/ggml-vocab-llama-spm.gguf",
                           "falcon/ggml-vocab-falcon.gguf"}) {
    SCOPED_TRACE(name);
    expect_gguf_vectors(test::data_dir() / "tokenizers" / name);
  }
}

// The vocabulary of GPT-2 under another rule for cutting words.
std::map<std::string, Json> documents_with_pre(const std::string& pre) {
  static const Json kStored =
      GgufFile(test::data_dir() / "tokenizers/gpt2/ggml-vocab-gpt-2.gguf").header().metadata;
  Json metadata = kStored;
  metadata["tokenizer.ggml.pre"] = pre;
  return tokenizer_from_gguf(metadata, pre).value();
}

TEST(PreTypes, CutWordsAsLlamaCppDoes) {
  NIBBLE_NEEDS_DATA("tokenizers/gpt2/ggml-vocab-gpt-2.gguf");
  const Json golden =
      read_json_file((test::source_dir() / "tests/golden/tokenizers/pre_types.json").string());
  for (const auto& [pre, expected] : golden["types"].items()) {
    SCOPED_TRACE(pre);
    const auto documents = documents_with_pre(pre);
    EXPECT_EQ(documents.at("tokenizer_config.json")["add_bos_token"], expected["add_bos"]);
    const auto tokenizer = make_tokenizer(documents);
    for (std::size_t i = 0; i < golden["texts"].size(); ++i) {
      const Json& ids = expected["ids"][i];
      if (ids.is_null()) continue;  // llama.cpp is wrong there
      const auto text = golden["texts"][i].get<std::string>();
      EXPECT_EQ(tokenizer->encode(text, {.add_special = false}),
                ids.get<std::vector<std::int32_t>>())
          << text;
    }
  }
}

TEST(PreTypes, AllKeepTheText) {
  NIBBLE_NEEDS_DATA("tokenizers/gpt2/ggml-vocab-gpt-2.gguf");
  const std::string text = "Some 12345 words, don't\n\n  they? IMGIMGABCZ";
  for (const GgufPreType& type : gguf_pre_types()) {
    if (!type.byte_level) continue;  // GPT-2 has no tokens for it
    SCOPED_TRACE(type.names.front());
    const auto tokenizer = make_tokenizer(documents_with_pre(std::string(type.names.front())));
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, {.add_special = false})), text);
  }
}

// A vocabulary of characters: bytes, a few letters, the mark of spaces and lines.
TEST(PreTypes, OfCharactersMarkSpacesAndFallBackToBytes) {
  Json tokens = Json::array();
  Json types = Json::array();
  const auto add = [&](const std::string& token, int type) {
    tokens.push_back(token);
    types.push_back(type);
    return static_cast<std::int32_t>(tokens.size()) - 1;
  };
  constexpr int kNormal = 1;
  constexpr int kByte = 6;
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), kByte);
  const std::int32_t mark_a = add("▁a", kNormal);
  const std::int32_t lines = add("\n\n", kNormal);
  for (const char* token : {"▁", "a", "b", "\n", "b\n"}) add(token, kNormal);
  Json metadata = {{"tokenizer.ggml.model", "gpt2"},
                   {"tokenizer.ggml.tokens", tokens},
                   {"tokenizer.ggml.token_type", types},
                   {"tokenizer.ggml.merges", {"▁ a", "\n \n", "b \n"}}};
  for (const char* pre : {"gemma4", "sarvam-moe"}) {
    metadata["tokenizer.ggml.pre"] = pre;
    const auto tokenizer = make_tokenizer(tokenizer_from_gguf(metadata, pre).value());
    // b and a line do not merge: lines are cut off first. é falls back to its two bytes.
    const std::vector<std::int32_t> ids = {258 + 1, mark_a, 258 + 2, lines, 0xc3, 0xa9};
    EXPECT_EQ(tokenizer->encode("a ab\n\né", {.add_special = false}), ids);
    EXPECT_EQ(tokenizer->decode(ids), "a ab\n\né");
  }
}

// Ids of llama.cpp (as in llama-cpp-python 0.3.36) for this vocabulary.
TEST(PreTypes, WithoutSpacesWordsStandAlone) {
  Json tokens = Json::array();
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(fmt::format("<0x{:02X}>", byte));
  Json types(256, 6);
  for (const char letter : std::string_view("abcdefghijklmnopqrstuvwxyz.,ABH")) {
    tokens.push_back(std::string(1, letter));
  }
  for (const char* token : {"th", "the", "he", "llo", "ca", "cat"}) tokens.push_back(token);
  while (types.size() < tokens.size()) types.push_back(1);
  Json metadata = {{"tokenizer.ggml.model", "whitespace"},
                   {"tokenizer.ggml.pre", "whitespace"},
                   {"tokenizer.ggml.tokens", tokens},
                   {"tokenizer.ggml.token_type", types},
                   {"tokenizer.ggml.merges", {"t h", "th e", "h e", "c a", "ca t"}}};
  const auto ids = [&](const char* text) {
    return make_tokenizer(tokenizer_from_gguf(metadata, "test").value())
        ->encode(text, {.add_special = false});
  };
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(ids("The  cat\tthe\n the."), (Ids{84, 289, 292, 288, 288, 282}));
  EXPECT_EQ(ids("  Hello, the hé cat "),
            (Ids{286, 260, 267, 267, 270, 283, 288, 263, 195, 169, 292}));
  EXPECT_EQ(ids("  "), Ids{});
  metadata["tokenizer.ggml.normalizer.lowercase"] = true;
  EXPECT_EQ(ids("The"), Ids{288});
}

TEST(SharedVectors, Gpt2FromVocabAndMerges) {
  NIBBLE_NEEDS_DATA("tokenizers/gpt2/vocab.json");
  const auto folder = test::data_dir() / "tokenizers/gpt2";
  expect_vectors(folder, folder / "ggml-vocab-gpt-2.gguf");
}

TEST(SharedVectors, FalconFromTokenizerJson) {
  NIBBLE_NEEDS_DATA("tokenizers/falcon/falcon.tokenizer.json");
  const auto folder = test::data_dir() / "tokenizers/falcon";
  expect_vectors(folder / "falcon.tokenizer.json", folder / "ggml-vocab-falcon.gguf");
}

TEST(SharedVectors, LlamaFromSentencePiece) {
  NIBBLE_NEEDS_DATA("tokenizers/llama-spm/tokenizer.model");
  const auto folder = test::data_dir() / "tokenizers/llama-spm";
  expect_vectors(folder, folder / "ggml-vocab-llama-spm.gguf");
}

TEST(ModelTexts, HeldOutNovelsBeginWithTheReferenceIds) {
  NIBBLE_NEEDS_DATA("text/eval/novels_heldout.txt");
  const std::string text = read_text_file(test::data_dir() / "text/eval/novels_heldout.txt");
  std::vector<std::filesystem::path> models = {test::tiny_novel()};
  const auto larger = test::data_dir() / "models/novel-28m";
  if (std::filesystem::exists(larger)) models.push_back(larger);
  for (const auto& model : models) {
    const Json reference = read_json_file(model / "reference.json");
    const Json& golden = reference.at("novels_heldout.txt_ctx1024");
    const auto tokenizer = load_tokenizer(model);
    const auto ids = tokenizer->encode(text);
    EXPECT_EQ(static_cast<std::int64_t>(ids.size()), golden.at("tokens").get<std::int64_t>());
    const auto first = golden.at("first_ids").get<std::vector<std::int32_t>>();
    ASSERT_GE(ids.size(), first.size());
    EXPECT_EQ(std::vector(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(first.size())),
              first);
    EXPECT_EQ(tokenizer->decode(ids), text);
    EXPECT_EQ(tokenizer->bos(), 1);
    EXPECT_EQ(tokenizer->eos(), 2);
  }
}

TEST(ModelTexts, Llama2cStoryHasTheGoldenIds) {
  NIBBLE_NEEDS_DATA("models/stories260k/stories260K.bin");
  NIBBLE_NEEDS_DATA("text/calib/tinystories_sample.utf8");
  std::string text = read_text_file(test::data_dir() / "text/calib/tinystories_sample.utf8");
  text = text.substr(0, text.find("<|endoftext|>"));
  const std::string spaces = " \n\t\r";
  text.erase(text.find_last_not_of(spaces) + 1);
  text.erase(0, text.find_first_not_of(spaces));
  const std::vector<std::int32_t> golden = {1,   385, 328, 432, 261, 376, 298, 315,
                                            421, 395, 317, 272, 277, 264, 261, 404,
                                            266, 305, 322, 311, 352, 414, 287, 426};
  for (const char* file : {"stories260K.bin", "tok512.bin"}) {
    const auto tokenizer = load_tokenizer(test::data_dir() / "models/stories260k" / file);
    EXPECT_EQ(tokenizer->vocab_size(), 512);
    const auto ids = tokenizer->encode(text);
    ASSERT_GE(ids.size(), golden.size());
    EXPECT_EQ(std::vector(ids.begin(), ids.begin() + 24), golden);
    EXPECT_EQ(tokenizer->decode(ids), text);
  }
}

}  // namespace
}  // namespace nibble
