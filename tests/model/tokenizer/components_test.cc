// Normalizers, pre-tokenizers and decoders one by one against the `tokenizers` package
// (tests/golden/tokenizers/make_components.py).
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "model/tokenizer/decoder.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/precompiled.h"
#include "support/test_data.h"

namespace nibble {
namespace {

const Json& golden() {
  static const Json json =
      read_json_file((test::source_dir() / "tests/golden/tokenizers/components.json").string());
  return json;
}

// The precompiled character map inside of a model: field 2 of the message in field 3.
PrecompiledMap precompiled_map() {
  const std::string model = read_text_file(
      test::source_dir() / "tests/golden/tokenizers/sentencepiece_unigram/tokenizer.model");
  const std::string name = "nmt_nfkc\x12";
  const std::size_t at = model.rfind(name) + name.size();
  std::size_t i = at;
  std::size_t length = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(model.at(i++));
    length |= static_cast<std::size_t>(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return PrecompiledMap(std::string_view(model).substr(i, length), "model");
}

Normalizer normalizer_of(const Json& part) {
  if (part.at("type") != "Precompiled") return make_normalizer(part);
  return [map = precompiled_map()](std::string& text) { text = map.normalize(text); };
}

std::string run(const Normalizer& normalizer, std::string text) {
  normalizer(text);
  return text;
}

Json run(const PreTokenizer& pre_tokenizer, const std::string& text) {
  std::vector<Word> words;
  if (!text.empty()) words.push_back({text, true});
  pre_tokenizer(words);
  Json out = Json::array();
  for (const Word& word : words) out.push_back(word.text);
  return out;
}

TEST(Components, NormalizersMatchTheReference) {
  int parts = 0;
  for (const Json& row : golden().at("rows")) {
    if (row.at("kind") != "normalizer") continue;
    ++parts;
    const Normalizer normalizer = normalizer_of(row.at("part"));
    for (std::size_t i = 0; i < row.at("outputs").size(); ++i) {
      const auto text = golden().at("texts")[i].get<std::string>();
      EXPECT_EQ(run(normalizer, text), row.at("outputs")[i].get<std::string>())
          << row.at("part") << " [" << text << "]";
    }
  }
  EXPECT_GT(parts, 15);
}

TEST(Components, PreTokenizersMatchTheReference) {
  int parts = 0;
  for (const Json& row : golden().at("rows")) {
    if (row.at("kind") != "pre_tokenizer") continue;
    ++parts;
    const PreTokenizer pre_tokenizer = make_pre_tokenizer(row.at("part"));
    for (std::size_t i = 0; i < row.at("outputs").size(); ++i) {
      const auto text = golden().at("texts")[i].get<std::string>();
      EXPECT_EQ(run(pre_tokenizer, text), row.at("outputs")[i])
          << row.at("part") << " [" << text << "]";
    }
  }
  EXPECT_GT(parts, 40);
}

TEST(Components, DecodersMatchTheReference) {
  int parts = 0;
  for (const Json& row : golden().at("rows")) {
    if (row.at("kind") != "decoder") continue;
    ++parts;
    const Decoder decoder = make_decoder(row.at("part"));
    for (std::size_t i = 0; i < row.at("outputs").size(); ++i) {
      auto pieces = golden().at("pieces")[i].get<std::vector<std::string>>();
      decoder(pieces);
      std::string text;
      for (const std::string& piece : pieces) text += piece;
      EXPECT_EQ(text, row.at("outputs")[i].get<std::string>())
          << row.at("part") << " " << golden().at("pieces")[i];
    }
  }
  EXPECT_GT(parts, 10);
}

}  // namespace
}  // namespace nibble
