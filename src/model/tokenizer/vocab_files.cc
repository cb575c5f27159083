// The older plain files: vocab.json with merges.txt (GPT-2, OPT, RoBERTa, Qwen2) and vocab.txt
// (BERT). Around their vocabulary stand the parts that each class of tokenizers has by definition.
#include "base/error.h"
#include "base/file.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/loaders.h"

namespace nibble {
namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
  }
  return lines;
}

std::string read_utf8(const std::filesystem::path& path) {
  std::string text = read_text_file(path);
  if (!is_valid_utf8(text)) fail(ErrorKind::kCorrupt, "{}: not valid UTF-8", path.string());
  return text;
}

BpeMerges read_merges(const std::filesystem::path& path) {
  const std::string text = read_utf8(path);
  BpeMerges merges;
  for (const std::string_view line : lines_of(text)) {
    if (line.empty() || (merges.empty() && line.starts_with("#version"))) continue;
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      fail(ErrorKind::kCorrupt, "{}: '{}' is no merge of two pieces", path.string(),
           line.substr(0, 64));
    }
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return merges;
}

std::shared_ptr<Vocab> read_vocab(const std::filesystem::path& path, std::size_t extra) {
  const Json json = read_json_file(path.string());
  if (!json.is_object() || json.empty()) {
    fail(ErrorKind::kCorrupt, "{}: not an object of pieces and ids", path.string());
  }
  auto vocab =
      std::make_shared<Vocab>(static_cast<std::int64_t>(json.size() + extra), path.string());
  for (const auto& [piece, id] : json.items()) vocab->add(piece, int_field(json, piece, "vocab"));
  return vocab;
}

constexpr const char* kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"use_regex", use_regex}};
}

Json byte_level_parts(const TokenizerConfig& config) {
  Json parts = {{"decoder", {{"type", "ByteLevel"}}}};
  if (config.has_class("Qwen2Tokenizer")) {
    const Json split = {
        {"type", "Split"}, {"pattern", {{"Regex", kQwen2Regex}}}, {"behavior", "Isolated"}};
    parts["normalizer"] = {{"type", "NFC"}};
    parts["pre_tokenizer"] = {{"type", "Sequence"},
                              {"pretokenizers", Json::array({split, byte_level(false, false)})}};
  } else {
    const bool space =
        bool_field_or(config.json, "add_prefix_space", false, "tokenizer_config.json");
    parts["pre_tokenizer"] = byte_level(space, true);
  }
  return parts;
}

// [CLS] A [SEP], as far as the vocabulary has them.
Json wrapped_in(const Vocab& vocab, const std::string& before, const std::string& after) {
  const auto first = vocab.find(before);
  const auto last = vocab.find(after);
  if (!first || !last) return nullptr;
  return {{"type", "BertProcessing"}, {"cls", {before, *first}}, {"sep", {after, *last}}};
}

// GPT-2 itself came without a configuration; its one special token is known.
void assume_gpt2_specials(const Vocab& vocab, TokenizerConfig& config) {
  constexpr const char* kEndOfText = "<|endoftext|>";
  if (!config.special_tokens.empty() || !vocab.find(kEndOfText)) return;
  config.special_tokens = {kEndOfText};
  config.bos_token = config.eos_token = kEndOfText;
}

}  // namespace

std::unique_ptr<Tokenizer> load_byte_level_bpe(const std::filesystem::path& file_path) {
  const std::filesystem::path directory = file_path.parent_path();
  TokenizerConfig config = read_tokenizer_config(directory);
  auto vocab = read_vocab(file_path, config.added_tokens.size());
  assume_gpt2_specials(*vocab, config);
  BpeOptions options;
  auto model = make_bpe(vocab, read_merges(directory / "merges.txt"), options);
  Json parts = byte_level_parts(config);
  if (config.has_class("RobertaTokenizer") || config.has_class("BartTokenizer")) {
    parts["post_processor"] = wrapped_in(*vocab, "<s>", "</s>");
  }
  return tokenizer_around_model(parts, config, std::move(vocab), std::move(model));
}

std::unique_ptr<Tokenizer> load_bert_vocab(const std::filesystem::path& file_path) {
  constexpr const char* kWhat = "tokenizer_config.json";
  TokenizerConfig config = read_tokenizer_config(file_path.parent_path());
  const std::string text = read_utf8(file_path);
  const auto lines = lines_of(text);
  if (lines.empty()) fail(ErrorKind::kCorrupt, "{}: empty", file_path.string());
  auto vocab = std::make_shared<Vocab>(
      static_cast<std::int64_t>(lines.size() + config.added_tokens.size()), file_path.string());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    vocab->add(lines[i], static_cast<std::int64_t>(i));
  }
  for (const char* name : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}) {
    config.special_tokens.push_back(name);
  }
  const bool lower = bool_field_or(config.json, "do_lower_case", true, kWhat);
  const Json parts = {
      {"normalizer",
       {{"type", "BertNormalizer"},
        {"lowercase", lower},
        {"handle_chinese_chars", bool_field_or(config.json, "tokenize_chinese_chars", true, kWhat)},
        {"strip_accents", bool_field_or(config.json, "strip_accents", lower, kWhat)}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"post_processor", wrapped_in(*vocab, "[CLS]", "[SEP]")},
      {"decoder", {{"type", "WordPiece"}}},
  };
  auto model = make_wordpiece(vocab, {});
  return tokenizer_around_model(parts, config, std::move(vocab), std::move(model));
}

}  // namespace nibble
