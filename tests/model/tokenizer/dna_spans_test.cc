// Vocabularies of kind `hybriddna`, against ids of llama.cpp (as in llama-cpp-python 0.3.36) for a
// file that holds this vocabulary.
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/container/gguf_writer.h"
#include "checkpoint/gguf_tokenizer.h"
#include "checkpoint/gguf_vocabulary.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/tokenizer.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using TokenIds = std::vector<std::int32_t>;

constexpr int kDna = 261;  // the id of <dna>; </dna> and <oov> follow

Json vocabulary() {
  Json tokens = Json::array();
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(bytes_to_characters(std::string(1, static_cast<char>(byte))));
  }
  for (const char* token : {"CC", "CCCC", "AC", "th", "the", "<dna>", "</dna>", "<oov>"}) {
    tokens.push_back(token);
  }
  for (const char* letters :
       {"AAAAAA", "CCCCCC", "ACGTAC", "GGGGGG", "ACAAAA", "TTTTTA", "CAAAAA"}) {
    tokens.push_back(std::string(letters) + "\ue000");
  }
  return {{"tokenizer.ggml.model", "hybriddna"},
          {"tokenizer.ggml.pre", "gpt-2"},
          {"tokenizer.ggml.token_type", Json(tokens.size(), 1)},
          {"tokenizer.ggml.merges", {"C C", "CC CC", "A C", "th e", "t h"}},
          {"tokenizer.ggml.tokens", std::move(tokens)}};
}

struct Vector {
  const char* text;
  TokenIds ids;
  const char* decoded;
};

void expect_vectors(const Tokenizer& tokenizer) {
  const Vector kVectors[] = {
      {"the <dna>acgtacCCCCCCgggggg</dna> CCCCCC",
       {260, 32, 261, 266, 265, 267, 262, 32, 257, 256},
       "the <dna>ACGTACCCCCCCGGGGGG</dna> CCCCCC"},
      {"<dna>", {261}, "<dna>"},
      {"<dna></dna>x<dna>AC", {261, 262, 120, 261, 268}, "<dna></dna>x<dna>ACAAAA"},
      {"<dna>CCCCCCACGTNN</dna>", {261, 265, 263, 262}, "<dna>CCCCCC<oov></dna>"},
      {"CCCCCC<dna>TTTTT</dna></dna><dna>C",
       {257, 256, 261, 269, 262, 60, 47, 100, 110, 97, 62, 261, 270},
       "CCCCCC<dna>TTTTTA</dna></dna><dna>CAAAAA"},
      {"<dna>ACéé</dna>the", {261, 263, 262, 260}, "<dna><oov></dna>the"},
      {"<dna>AC <dna>C</dna>", {261, 263, 263, 262}, "<dna><oov><oov></dna>"},
      {"<oov> ACAAAA", {60, 111, 111, 118, 62, 32, 258, 65, 65, 65, 65}, "<oov> ACAAAA"},
      {"<DNA>ACGTAC</DNA>",
       {60, 68, 78, 65, 62, 258, 71, 84, 258, 60, 47, 68, 78, 65, 62},
       "<DNA>ACGTAC</DNA>"},
  };
  for (const auto& [text, ids, decoded] : kVectors) {
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false}), ids) << text;
    EXPECT_EQ(tokenizer.decode(ids), decoded) << text;
  }
}

TEST(DnaSpans, OfAGgufFileAreThoseOfLlamaCpp) {
  expect_vectors(*make_tokenizer(tokenizer_from_gguf(vocabulary(), "test").value()));
}

TEST(DnaSpans, StayWhenTheVocabularyIsWrittenAgain) {
  const auto documents = tokenizer_from_gguf(vocabulary(), "test").value();
  test::TempDir dir;
  GgufMetadata metadata;
  add_vocabulary(documents, Json::object(), kDna + 10, metadata);
  GgufWriter(dir / "x.gguf", metadata, {}).sync();
  const GgufFile file(dir / "x.gguf");
  EXPECT_EQ(file.header().metadata.at("tokenizer.ggml.model"), "hybriddna");
  expect_vectors(*make_tokenizer(*tokenizer_from_gguf(file.header().metadata, "test")));
}

// Tokens that are cut out of a text before anything else leave no spans in it.
TEST(DnaSpans, TagsThatAreUserDefinedOpenNone) {
  Json metadata = vocabulary();
  for (int id = kDna; id < kDna + 3; ++id) metadata["tokenizer.ggml.token_type"][id] = 4;
  const auto tokenizer = make_tokenizer(tokenizer_from_gguf(metadata, "test").value());
  EXPECT_EQ(tokenizer->encode("<dna></dna>x<dna>AC", {.add_special = false}),
            (TokenIds{261, 262, 120, 261, 258}));
}

TEST(DnaSpans, NeedTheirTokens) {
  Json metadata = vocabulary();
  metadata["tokenizer.ggml.tokens"][kDna + 2] = "<other>";
  const auto tokenizer = make_tokenizer(tokenizer_from_gguf(metadata, "test").value());
  EXPECT_EQ(tokenizer->encode("<dna>AC", {.add_special = false}),
            (TokenIds{60, 100, 110, 97, 62, 258}));
}

}  // namespace
}  // namespace nibble
