// What holds for any text: round trips, streams, time.
#include <chrono>
#include <random>

#include "base/error.h"
#include "base/json.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/unicode.h"
#include "support/test_data.h"

namespace nibble {
namespace {

std::filesystem::path golden_dir() { return test::source_dir() / "tests/golden/tokenizers"; }

// Valid UTF-8 of any characters, biased to the ones that tokenizers treat specially.
std::string random_text(std::mt19937& random, int length) {
  static const std::u32string kFavourites =
      U" \n\r\t'sdt09.,<>|_-\u2581\u00a0\u0301\u200d\ufe0f\ufffd\u4e2d\u3042\u0627\u05d0\U0001f600";
  std::string text;
  for (int i = 0; i < length; ++i) {
    char32_t c = kFavourites[random() % kFavourites.size()];
    if (random() % 4 == 0) c = static_cast<char32_t>(random() % 0x80);
    if (random() % 8 == 0) c = static_cast<char32_t>(random() % 0x110000);
    if (c >= 0xd800 && c <= 0xdfff) c = U'x';
    append_utf8(text, c);
  }
  return text;
}

std::string streamed(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  StreamDecoder stream(tokenizer);
  std::string text;
  const auto append = [&](const std::string& part) {
    EXPECT_EQ(replace_invalid_utf8(part), part) << "a character was split";
    text += part;
  };
  for (const std::int32_t id : ids) append(stream.push(id));
  append(stream.flush());
  return text;
}

TEST(ByteLevelRoundTrip, GivesBackAnyValidText) {
  std::mt19937 random(1);
  for (const auto& model : {test::tiny_novel(), golden_dir() / "byte_bpe"}) {
    const auto tokenizer = load_tokenizer(model);
    for (int i = 0; i < 500; ++i) {
      const std::string text = random_text(random, 1 + static_cast<int>(random() % 80));
      const auto ids = tokenizer->encode(text, {.add_special = false, .parse_special = false});
      ASSERT_EQ(tokenizer->decode(ids, false), text) << i;
    }
  }
}

class Streams : public testing::TestWithParam<const char*> {};

TEST_P(Streams, ConcatenateToTheWholeDecoding) {
  const auto tokenizer = load_tokenizer(golden_dir() / GetParam());
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) {
    std::vector<std::int32_t> ids = tokenizer->encode(random_text(random, 100));
    ASSERT_EQ(streamed(*tokenizer, ids), tokenizer->decode(ids)) << "text " << i;
    // Ids that no text gives: broken characters, specials in the middle.
    for (auto& id : ids) id = static_cast<std::int32_t>(random() % tokenizer->vocab_size());
    ASSERT_EQ(streamed(*tokenizer, ids), tokenizer->decode(ids)) << "ids " << i;
  }
}

TEST_P(Streams, AreReadyAgainAfterFlush) {
  const auto tokenizer = load_tokenizer(golden_dir() / GetParam());
  const auto ids = tokenizer->encode("the old man and the sea");
  StreamDecoder stream(*tokenizer);
  std::string text;
  for (int round = 0; round < 2; ++round) {
    for (const std::int32_t id : ids) text += stream.push(id);
    text += stream.flush();
  }
  EXPECT_EQ(text, tokenizer->decode(ids) + tokenizer->decode(ids));
}

INSTANTIATE_TEST_SUITE_P(Kinds, Streams,
                         testing::Values("byte_bpe", "roberta", "spm_bpe_normalizer",
                                         "spm_bpe_metaspace", "unigram", "unigram_bytes",
                                         "wordpiece", "wordlevel", "suffix_bpe", "prefix_bpe",
                                         "sentencepiece_bpe", "sentencepiece_unigram"),
                         [](const auto& param) { return std::string(param.param); });

TEST(StreamDecoder, GivesWholeCharactersAsSoonAsTheyAreWhole) {
  const auto tokenizer = load_tokenizer(golden_dir() / "byte_bpe");
  const auto ids = tokenizer->encode("\U0001f600x", {.add_special = false});
  ASSERT_GE(ids.size(), 5u);  // four bytes and the letter
  StreamDecoder stream(*tokenizer);
  std::string text;
  for (std::size_t i = 0; i + 2 < ids.size(); ++i) EXPECT_EQ(stream.push(ids[i]), "");
  EXPECT_EQ(stream.push(ids[ids.size() - 2]), "\U0001f600");
  EXPECT_EQ(stream.push(ids.back()), "x");
}

class LongLines : public testing::TestWithParam<const char*> {};

// A quadratic step anywhere would take hours for these; linear ones take seconds even when
// instrumented.
TEST_P(LongLines, TakeLinearTime) {
  const auto tokenizer = load_tokenizer(golden_dir() / GetParam());
  constexpr std::size_t kBytes = std::size_t{10} << 20;
  for (const char* unit : {"a", " ", "\n", "1", "'", "\u0301", "\u4e2d", "ab\u0323\u0301", "<"}) {
    std::string text;
    const std::string_view part = unit;
    const std::size_t bytes = part == "a" ? kBytes : kBytes / 10;
    while (text.size() < bytes) text += part;
    const auto start = std::chrono::steady_clock::now();
    const auto ids = tokenizer->encode(text, {.add_special = false});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_LT(seconds.count(), 120) << unit;
    RecordProperty(std::string("seconds_") + std::to_string(part[0]),
                   std::to_string(seconds.count()));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, LongLines,
                         testing::Values("byte_bpe", "spm_bpe_normalizer", "unigram_bytes",
                                         "wordpiece", "sentencepiece_bpe", "sentencepiece_unigram"),
                         [](const auto& param) { return std::string(param.param); });

TEST(Usage, InvalidTextAndIdsAreUsageErrors) {
  for (const char* name : {"byte_bpe", "wordpiece", "sentencepiece_bpe"}) {
    const auto tokenizer = load_tokenizer(golden_dir() / name);
    for (const char* text : {"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80"}) {
      EXPECT_ERROR(tokenizer->encode(text), ErrorKind::kUsage, "not valid UTF-8");
    }
    const auto size = static_cast<std::int32_t>(tokenizer->vocab_size());
    for (const std::int32_t id : {-1, size, INT32_MAX, INT32_MIN}) {
      EXPECT_ERROR(tokenizer->decode({id}), ErrorKind::kUsage, "outside of the vocabulary");
      EXPECT_ERROR(tokenizer->piece(id), ErrorKind::kUsage, "outside of the vocabulary");
      EXPECT_FALSE(tokenizer->is_special(id));
    }
  }
}

TEST(Vocabulary, PiecesAndIdsAreTwoWays) {
  for (const char* name : {"byte_bpe", "unigram", "wordpiece", "sentencepiece_unigram"}) {
    const auto tokenizer = load_tokenizer(golden_dir() / name);
    ASSERT_GT(tokenizer->vocab_size(), 100);
    for (std::int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
      EXPECT_EQ(tokenizer->piece_id(tokenizer->piece(id)), id);
    }
    EXPECT_EQ(tokenizer->piece_id("no such piece"), std::nullopt);
  }
}

TEST(SpecialTokens, AreTextWhenNotParsed) {
  const auto tokenizer = load_tokenizer(golden_dir() / "byte_bpe");
  const auto id = tokenizer->piece_id("<|im_start|>");
  ASSERT_TRUE(id);
  const std::string text = "<|im_start|>user";
  EXPECT_EQ(tokenizer->encode(text, {.add_special = false}).front(), *id);
  const auto plain = tokenizer->encode(text, {.add_special = false, .parse_special = false});
  EXPECT_THAT(plain, testing::Not(testing::Contains(*id)));
  EXPECT_EQ(tokenizer->decode(plain), text);
  EXPECT_TRUE(tokenizer->is_special(*id));
}

}  // namespace
}  // namespace nibble
