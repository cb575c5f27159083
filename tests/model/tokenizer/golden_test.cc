// Ids and texts that the reference packages gave (tests/golden/tokenizers/make.py).
#include "base/error.h"
#include "base/json.h"
#include "model/tokenizer/tokenizer.h"
#include "support/test_data.h"

namespace nibble {
namespace {

std::filesystem::path golden_dir() { return test::source_dir() / "tests/golden/tokenizers"; }

void expect_cases(const Tokenizer& tokenizer, const std::filesystem::path& file) {
  const Json cases = read_json_file(file);
  ASSERT_GT(cases.size(), 30u);
  for (const Json& row : cases) {
    const auto text = row.at("text").get<std::string>();
    const auto ids = row.at("ids").get<std::vector<std::int32_t>>();
    EXPECT_EQ(tokenizer.encode(text), ids) << file << " [" << text << "]";
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false}),
              row.at("plain").get<std::vector<std::int32_t>>())
        << file << " [" << text << "]";
    EXPECT_EQ(tokenizer.decode(ids), row.at("decoded").get<std::string>()) << file;
    if (!row.at("decoded_all").is_null()) {
      EXPECT_EQ(tokenizer.decode(ids, false), row.at("decoded_all").get<std::string>()) << file;
    }
  }
}

class GoldenTokenizer : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizer, EncodesAndDecodesAsTheReference) {
  const auto folder = golden_dir() / GetParam();
  expect_cases(*load_tokenizer(folder), folder / "cases.json");
}

INSTANTIATE_TEST_SUITE_P(Trained, GoldenTokenizer,
                         testing::Values("byte_bpe", "ignore_merges", "roberta",
                                         "spm_bpe_normalizer", "spm_bpe_metaspace", "unigram",
                                         "unigram_bytes", "wordpiece", "wordlevel", "suffix_bpe",
                                         "prefix_bpe", "sentencepiece_bpe",
                                         "sentencepiece_unigram"),
                         [](const auto& param) { return std::string(param.param); });

struct PublishedVocabulary {
  const char* cases;
  const char* file;
};

class GoldenVocabulary : public testing::TestWithParam<PublishedVocabulary> {};

TEST_P(GoldenVocabulary, EncodesAndDecodesAsTheReference) {
  NIBBLE_NEEDS_DATA(GetParam().file);
  const auto tokenizer = load_tokenizer(test::data_dir() / GetParam().file);
  expect_cases(*tokenizer, golden_dir() / "shared" / (std::string(GetParam().cases) + ".json"));
}

INSTANTIATE_TEST_SUITE_P(
    Published, GoldenVocabulary,
    testing::Values(PublishedVocabulary{"gpt_neox",
                                        "tokenizers/gpt-neox/gpt-neox-20B.tokenizer.json"},
                    PublishedVocabulary{"falcon", "tokenizers/falcon/falcon.tokenizer.json"},
                    PublishedVocabulary{"mistral_v1", "tokenizers/mistral/tokenizer.model.v1"},
                    PublishedVocabulary{"novel_28m", "models/novel-28m/tokenizer.json"}),
    [](const auto& param) { return std::string(param.param.cases); });

TEST(GoldenBundled, TinyNovelEncodesAndDecodesAsTheReference) {
  expect_cases(*load_tokenizer(test::tiny_novel()), golden_dir() / "shared/tiny_novel.json");
}

}  // namespace
}  // namespace nibble
