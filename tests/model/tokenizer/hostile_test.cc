// Damaged and hostile tokenizer files end in an error of the right kind.
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "model/tokenizer/loaders.h"
#include "model/tokenizer/regex.h"
#include "support/test_data.h"

namespace nibble {
namespace {

Json bpe_json() {
  return Json::parse(R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
                                   "merges": ["a b"]}})");
}

std::unique_ptr<Tokenizer> load(const Json& json) { return tokenizer_from_json(json, {}); }

TEST(HostileJson, TheUnchangedDocumentLoads) {
  EXPECT_THAT(load(bpe_json())->encode("aab"), testing::ElementsAre(0, 2));
}

struct BadDocument {
  const char* name;
  const char* patch;  // JSON merge patch on the good document
  ErrorKind kind;
  const char* message;
};

class HostileJson : public testing::TestWithParam<BadDocument> {};

TEST_P(HostileJson, IsRefused) {
  Json json = bpe_json();
  json.merge_patch(Json::parse(GetParam().patch));
  EXPECT_ERROR(load(json), GetParam().kind, GetParam().message);
}

constexpr ErrorKind kCorrupt = ErrorKind::kCorrupt;
constexpr ErrorKind kUnsupported = ErrorKind::kUnsupported;

INSTANTIATE_TEST_SUITE_P(
    Documents, HostileJson,
    testing::Values(
        BadDocument{"no_model", R"({"model": null})", kCorrupt, "model"},
        BadDocument{"model_is_text", R"({"model": "BPE"})", kCorrupt, "model"},
        BadDocument{"unknown_model", R"({"model": {"type": "Magic"}})", kUnsupported, "Magic"},
        BadDocument{"empty_vocab", R"({"model": {"vocab": {"a": null, "b": null, "ab": null}}})",
                    kCorrupt, "empty"},
        BadDocument{"duplicate_id", R"({"model": {"vocab": {"b": 0}}})", kCorrupt, "share the id"},
        BadDocument{"huge_id", R"({"model": {"vocab": {"b": 2147483647}}})", kCorrupt,
                    "out of range"},
        BadDocument{"huger_id", R"({"model": {"vocab": {"b": 18446744073709551615}}})", kCorrupt,
                    "out of range"},
        BadDocument{"negative_id", R"({"model": {"vocab": {"b": -1}}})", kCorrupt, "out of range"},
        BadDocument{"float_id", R"({"model": {"vocab": {"b": 1.5}}})", kCorrupt, "not an integer"},
        BadDocument{"merge_of_unknown", R"({"model": {"merges": ["a c"]}})", kCorrupt, "a c"},
        BadDocument{"merge_into_unknown", R"({"model": {"merges": ["b a"]}})", kCorrupt, "ba"},
        BadDocument{"merge_of_three", R"({"model": {"merges": ["a b c"]}})", kCorrupt, "no merge"},
        BadDocument{"merge_of_one", R"({"model": {"merges": ["ab"]}})", kCorrupt, "no merge"},
        BadDocument{"merge_of_numbers", R"({"model": {"merges": [[1, 2]]}})", kCorrupt, "no merge"},
        BadDocument{"dropout", R"({"model": {"dropout": 0.1}})", kUnsupported, "dropout"},
        BadDocument{"added_huge_id", R"({"added_tokens": [{"id": 99999999, "content": "x"}]})",
                    kCorrupt, "out of range"},
        BadDocument{"added_conflict",
                    R"({"added_tokens": [{"id": 3, "content": "x"}, {"id": 3, "content": "y"}]})",
                    kCorrupt, "share the id"},
        BadDocument{"added_without_id", R"({"added_tokens": [{"content": "x"}]})", kCorrupt, "id"},
        BadDocument{"added_no_list", R"({"added_tokens": 3})", kCorrupt, "added_tokens"},
        BadDocument{"template_unknown_id",
                    R"({"post_processor": {"type": "TemplateProcessing", "single": [
                        {"SpecialToken": {"id": "s"}}, {"Sequence": {"id": "A"}}],
                        "special_tokens": {"s": {"ids": [77]}}}})",
                    kCorrupt, "77"},
        BadDocument{"template_without_token",
                    R"({"post_processor": {"type": "TemplateProcessing", "single": [
                        {"SpecialToken": {"id": "s"}}, {"Sequence": {"id": "A"}}],
                        "special_tokens": {}}})",
                    kCorrupt, "'s'"},
        BadDocument{"bad_regex",
                    R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"},
                        "behavior": "Isolated"}})",
                    kUnsupported, "regex"},
        BadDocument{"unknown_normalizer", R"({"normalizer": {"type": "Magic"}})", kUnsupported,
                    "Magic"},
        BadDocument{"bad_charsmap",
                    R"({"normalizer": {"type": "Precompiled",
                        "precompiled_charsmap": "BAAAAP////8A"}})",
                    kCorrupt, "character map"},
        BadDocument{"bad_base64",
                    R"({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "B*AA"}})",
                    kCorrupt, "base64"},
        BadDocument{"unknown_decoder", R"({"decoder": {"type": "Magic"}})", kUnsupported, "Magic"},
        BadDocument{"unigram_score",
                    R"({"model": {"type": "Unigram", "merges": null, "vocab": [["a", "b"]]}})",
                    kCorrupt, "[piece, score]"},
        BadDocument{"unigram_twice",
                    R"({"model": {"type": "Unigram", "vocab": [["a", 0], ["a", 0]]}})", kCorrupt,
                    "twice"},
        BadDocument{"unigram_unk",
                    R"({"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 5}})", kCorrupt,
                    "unk_id"}),
    [](const auto& param) { return std::string(param.param.name); });

TEST(HostileJsonText, BadBytesNeverGetFar) {
  const test::TempDir dir;
  const auto file = dir / "tokenizer.json";
  const std::string deep(100000, '[');
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("{\"model\": \"\xff\"}"), deep,
        std::string(R"({"model": {}, "model": {}})"), std::string("[]")}) {
    std::ofstream(file, std::ios::binary) << text;
    try {
      load_tokenizer(dir.path());
      ADD_FAILURE() << text.substr(0, 40);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << error.what();
    }
  }
}

TEST(HostileText, UnknownWithoutUnknownTokenIsCorrupt) {
  Json json = bpe_json();
  json["model"]["unk_token"] = "<unk>";
  EXPECT_ERROR(load(json)->encode("c"), ErrorKind::kCorrupt, "<unk>");
}

TEST(HostileRegex, RunawayBacktrackingEndsInAnError) {
  const Regex regex("(a|a|aa)+$", "test");
  EXPECT_ERROR(regex.each_match(std::string(5000, 'a') + "b", [](std::size_t, std::size_t) {}),
               ErrorKind::kUnsupported, "gave up");
  EXPECT_ERROR(Regex("[a&&b]", "test"), ErrorKind::kUnsupported, "intersects");
  EXPECT_ERROR(Regex("[a", "test"), ErrorKind::kUnsupported, "unclosed");
  EXPECT_ERROR(Regex("a\\", "test"), ErrorKind::kUnsupported, "backslash");
  EXPECT_ERROR(Regex(std::string(100, '['), "test"), ErrorKind::kUnsupported, "deep");
}

TEST(HostileDirectory, WithoutTokenizerIsCorrupt) {
  const test::TempDir dir;
  EXPECT_ERROR(load_tokenizer(dir.path()), ErrorKind::kCorrupt, "no tokenizer");
  EXPECT_ERROR(load_tokenizer(dir / "nothing"), ErrorKind::kCorrupt, "no such");
  std::ofstream(dir / "vocab.json") << R"({"a": 0})";
  EXPECT_ERROR(load_tokenizer(dir.path()), ErrorKind::kCorrupt, "merges.txt");
  std::ofstream(dir / "merges.txt") << "#version: 0.2\na\n";
  EXPECT_ERROR(load_tokenizer(dir.path()), ErrorKind::kCorrupt, "no merge");
}

TEST(HostileSentencePiece, EveryCutAndFlipIsAnErrorOrLoads) {
  const std::string good = read_text_file(
      test::source_dir() / "tests/golden/tokenizers/sentencepiece_bpe/tokenizer.model");
  const test::TempDir dir;
  const auto file = dir / "tokenizer.model";
  const auto attempt = [&](const std::string& bytes) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
    try {
      const auto tokenizer = load_tokenizer(file);
      tokenizer->decode(tokenizer->encode("any text"));
      return true;
    } catch (const Error& error) {
      EXPECT_NE(error.kind(), ErrorKind::kInternal) << error.what();
      return false;
    }
  };
  EXPECT_TRUE(attempt(good));
  EXPECT_FALSE(attempt(""));
  EXPECT_FALSE(attempt("\x0a\xff\xff\xff\xff\x0f"));
  int refused = 0;
  for (std::size_t i = 1; i < good.size(); i += 97) {
    refused += attempt(good.substr(0, i)) ? 0 : 1;
    std::string flipped = good;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x41);
    refused += attempt(flipped) ? 0 : 1;
  }
  EXPECT_GT(refused, 50);
}

TEST(HostileLlama2c, TruncatedAndLyingFilesAreCorrupt) {
  const test::TempDir dir;
  const auto file = dir / "tokenizer.bin";
  for (const std::string& bytes :
       {std::string(), std::string("abc"), std::string(40, '\0'), std::string(40, '\xff')}) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
    EXPECT_ERROR(load_tokenizer(file), ErrorKind::kCorrupt, "no tokenizer");
  }
}

// A checkpoint converted from llama2.c carries its tokenizer under the name it had.
TEST(FindTokenizer, TakesTheOnlyTokBinOfADirectory) {
  const test::TempDir dir;
  EXPECT_EQ(find_tokenizer(dir.path()), std::nullopt);
  std::ofstream(dir / "tok512.bin") << "x";
  EXPECT_EQ(find_tokenizer(dir.path()), dir / "tok512.bin");
  std::ofstream(dir / "tok4096.bin") << "x";
  EXPECT_EQ(find_tokenizer(dir.path()), std::nullopt);
  std::ofstream(dir / "tokenizer.json") << "x";
  EXPECT_EQ(find_tokenizer(dir.path()), dir / "tokenizer.json");
}

}  // namespace
}  // namespace nibble
