#include "checkpoint/synth_tokenizer.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::array<const char*, kSynthSpecials> kSpecials = {"<unk>", "<s>", "</s>"};

std::string utf8(unsigned code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

// Byte-level BPE spells printable Latin-1 bytes as themselves and the others, in order, as the
// characters from U+0100 on.
std::array<std::string, 256> byte_spellings() {
  std::array<std::string, 256> spellings;
  unsigned next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    spellings[b] = utf8(printable ? b : next++);
  }
  return spellings;
}

// Spellings of all bytes, the commonest of English text first.
std::vector<std::string> bytes_by_frequency() {
  constexpr std::string_view kCommon = " etaoinshrdlucmfwygpbvk,.\nTIAS'\"-xjqz0123456789";
  const std::array<std::string, 256> spellings = byte_spellings();
  std::vector<std::string> ordered;
  for (const char c : kCommon) ordered.push_back(spellings[static_cast<unsigned char>(c)]);
  for (unsigned b = 0; b < 256; ++b) {
    if (kCommon.find(static_cast<char>(b)) == std::string_view::npos) {
      ordered.push_back(spellings[b]);
    }
  }
  return ordered;
}

struct Merge {
  std::string left, right;
};

// Pairs of bytes by the sum of their ranks, then those pairs with a third byte. A piece splits in
// one way only into all but its last byte and that byte, so no piece comes twice.
std::vector<Merge> make_merges(const std::vector<std::string>& bytes, std::size_t count) {
  std::vector<Merge> merges;
  const std::size_t n = bytes.size();
  for (std::size_t sum = 0; sum <= 2 * (n - 1); ++sum) {
    for (std::size_t i = sum < n ? 0 : sum - n + 1; i <= std::min(sum, n - 1); ++i) {
      if (merges.size() == count) return merges;
      merges.push_back({bytes[i], bytes[sum - i]});
    }
  }
  const std::size_t pairs = merges.size();
  for (std::size_t p = 0; p < pairs; ++p) {
    for (const std::string& byte : bytes) {
      if (merges.size() == count) return merges;
      merges.push_back({merges[p].left + merges[p].right, byte});
    }
  }
  NIBBLE_CHECK(merges.size() == count);
  return merges;
}

Json template_processing() {
  const Json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const auto sequence = [](const char* id, int type) {
    return Json{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  return {
      {"type", "TemplateProcessing"},
      {"single", Json::array({bos, sequence("A", 0)})},
      {"pair", Json::array({bos, sequence("A", 0), sequence("B", 1)})},
      {"special_tokens",
       {{"<s>", {{"id", "<s>"}, {"ids", Json::array({1})}, {"tokens", Json::array({"<s>"})}}}}}};
}

}  // namespace

Json synth_tokenizer(std::int64_t vocab_size) {
  NIBBLE_CHECK(vocab_size >= kMinSynthVocab);
  const std::vector<std::string> bytes = bytes_by_frequency();
  Json vocab = Json::object(), merges = Json::array(), added = Json::array();
  for (const char* special : kSpecials) {
    added.push_back({{"id", vocab.size()},
                     {"content", special},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocab[special] = vocab.size();
  }
  for (const std::string& byte : bytes) vocab[byte] = vocab.size();
  for (const Merge& m : make_merges(bytes, static_cast<std::size_t>(vocab_size - kMinSynthVocab))) {
    vocab[m.left + m.right] = vocab.size();
    merges.push_back(m.left + " " + m.right);
  }
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", template_processing()},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", std::move(vocab)},
            {"merges", std::move(merges)}}}};
}

Json synth_tokenizer_config(std::int64_t max_length) {
  return {{"tokenizer_class", "PreTrainedTokenizerFast"},
          {"bos_token", "<s>"},
          {"eos_token", "</s>"},
          {"unk_token", "<unk>"},
          {"clean_up_tokenization_spaces", false},
          {"model_max_length", max_length}};
}

}  // namespace nibble
