#include "checkpoint/gguf_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/base64.h"
#include "base/error.h"
#include "base/file.h"
#include "checkpoint/gguf_token_types.h"

namespace nibble {
namespace {

constexpr const char* kMark = "\u2581";     // stands for a space
constexpr const char* kDnaMark = "\ue000";  // behind the letters of a token of nucleotides

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int> types;
  std::vector<double> scores;

  std::string at(const Json& id) const {
    const bool there = id.is_number_integer() && id >= 0 && id < tokens.size();
    return there ? tokens[id.get<std::size_t>()] : "";
  }
};

class TokenizerReader {
 public:
  TokenizerReader(const Json& metadata, std::string_view what) : metadata_(metadata), what_(what) {}

  std::optional<std::map<std::string, Json>> read() {
    const Json model = value("model");
    if (model.is_null() || model == "none" || model == "no_vocab") return std::nullopt;
    if (!model.is_string()) corrupt("tokenizer.ggml.model is no text");
    read_vocabulary();
    const auto kind = model.get<std::string>();
    Json tokenizer;
    if (kind == "llama") {
      tokenizer = sentencepiece_bpe();
    } else if (is_cut_bpe(kind)) {
      tokenizer = cut_bpe();
    } else if (kind == "whitespace") {
      tokenizer = bpe_without_spaces();
    } else if (kind == "bert") {
      tokenizer = wordpiece();
    } else if (kind == "t5") {
      tokenizer = unigram();
    } else {
      fail(ErrorKind::kUnsupported,
           "{}: tokenizer of kind '{}'; nibble has llama, gpt2, gemma4, hybriddna, "
           "whitespace, bert, t5",
           what_, kind.substr(0, 64));
    }
    tokenizer["version"] = "1.0";
    tokenizer["added_tokens"] = added_tokens();
    return std::map<std::string, Json>{{"tokenizer.json", std::move(tokenizer)},
                                       {"tokenizer_config.json", config(kind)}};
  }

 private:
  template <class... Args>
  [[noreturn]] void corrupt(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::kCorrupt, "{}: {}", what_, fmt::format(format, std::forward<Args>(args)...));
  }

  Json value(const char* key) const {
    return metadata_.value(std::string("tokenizer.ggml.") + key, Json());
  }
  bool flag(const char* key, bool fallback) const {
    const Json found = value(key);
    return found.is_boolean() ? found.get<bool>() : fallback;
  }
  // A list as long as the vocabulary, or none.
  const Json* list(const char* key, bool integers) const {
    const auto found = metadata_.find(std::string("tokenizer.ggml.") + key);
    if (found == metadata_.end()) return nullptr;
    const bool numbers = found->is_array() && std::ranges::all_of(*found, [&](const Json& v) {
                           return integers ? v.is_number_integer() : v.is_number();
                         });
    if (!numbers || found->size() != vocabulary_.tokens.size()) {
      corrupt("tokenizer.ggml.{} is no list of {} numbers", key, vocabulary_.tokens.size());
    }
    return &*found;
  }

  void read_vocabulary() {
    const auto tokens = metadata_.find("tokenizer.ggml.tokens");
    if (tokens == metadata_.end() || !tokens->is_array() || tokens->empty()) {
      corrupt("tokenizer.ggml.tokens is no list of texts");
    }
    for (const Json& token : *tokens) {
      if (!token.is_string()) corrupt("a token is no text");
      const std::string& text = token.get_ref<const std::string&>();
      if (!is_valid_utf8(text)) corrupt("token {} is not valid UTF-8", vocabulary_.tokens.size());
      vocabulary_.tokens.push_back(text);
    }
    const std::size_t count = vocabulary_.tokens.size();
    vocabulary_.types.assign(count, kNormalToken);
    vocabulary_.scores.assign(count, 0);
    if (const Json* types = list("token_type", true)) {
      for (std::size_t i = 0; i < count; ++i) vocabulary_.types[i] = (*types)[i].get<int>();
    }
    if (const Json* scores = list("scores", false)) {
      for (std::size_t i = 0; i < count; ++i) {
        vocabulary_.scores[i] = (*scores)[i].get<double>();
        if (!std::isfinite(vocabulary_.scores[i])) corrupt("the score of token {} is no number", i);
      }
    }
    make_unique();
  }

  // A token that occurs again can only be met by its id; it gets a spelling of its own.
  void make_unique() {
    ids_.reserve(vocabulary_.tokens.size());
    for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
      std::string& token = vocabulary_.tokens[i];
      if (token.empty() || ids_.contains(token)) token = fmt::format("<|{}: {}|>", i, token);
      ids_.emplace(token, i);
    }
  }

  Json vocab_object() const {
    Json vocab = Json::object();
    for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) vocab[vocabulary_.tokens[i]] = i;
    return vocab;
  }

  // Control and user-defined tokens are met as they are, before anything else.
  Json added_tokens() const {
    Json added = Json::array();
    for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
      const int type = vocabulary_.types[i];
      if (type != kControlToken && type != kUserDefinedToken && type != kUnknownToken) continue;
      added.push_back({{"id", i},
                       {"content", vocabulary_.tokens[i]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", type != kUserDefinedToken}});
    }
    return added;
  }

  // Byte-pair encoding of words that patterns cut. Gemma 4's kind is its own pattern.
  static constexpr const char* kGemma4 = "gemma4";
  static constexpr const char* kHybridDna = "hybriddna";
  static bool is_cut_bpe(const std::string& kind) {
    return kind == "gpt2" || kind == kGemma4 || kind == kHybridDna;
  }

  std::string pre_name() const {
    if (value("model") == kGemma4) return kGemma4;
    const Json pre = value("pre");
    return pre.is_string() ? pre.get<std::string>() : "default";
  }
  const GgufPreType* pre_type() const {  // null: unknown
    const auto& known = gguf_pre_types();
    const auto found = std::ranges::find_if(known, [name = pre_name()](const GgufPreType& type) {
      return std::ranges::find(type.names, name) != type.names.end();
    });
    return found == known.end() ? nullptr : &*found;
  }
  Json sentencepiece_bpe() const;
  Json merges_by_score() const;
  Json stored_merges() const;
  Json character_bpe(Json merges) const;
  Json marked_spaces(bool prefix, Json model) const;
  Json bpe_without_spaces() const;
  Json cut_bpe() const;
  Json byte_level_bpe(const GgufPreType& type, Json& cuts) const;
  Json wordpiece();
  Json unigram() const;
  Json config(const std::string& kind) const;

  const Json& metadata_;
  std::string_view what_;
  Vocabulary vocabulary_;
  std::unordered_map<std::string, std::size_t> ids_;
};

// llama.cpp joins the neighbours whose union has the best score: byte-pair encoding with a merge
// for every way to cut a token into two tokens, best score first.
Json TokenizerReader::merges_by_score() const {
  struct Merge {
    std::size_t token, cut;
  };
  std::vector<Merge> merges;
  for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
    const std::string& token = vocabulary_.tokens[i];
    if (vocabulary_.types[i] != kNormalToken && vocabulary_.types[i] != kUserDefinedToken) continue;
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      if ((token[cut] & 0xc0) == 0x80) continue;  // within a character
      if (ids_.contains(token.substr(0, cut)) && ids_.contains(token.substr(cut))) {
        merges.push_back({i, cut});
      }
    }
  }
  std::ranges::stable_sort(merges, std::ranges::greater{},
                           [&](const Merge& merge) { return vocabulary_.scores[merge.token]; });
  Json::array_t texts;
  for (const auto& [token, cut] : merges) {
    const std::string& text = vocabulary_.tokens[token];
    texts.push_back(Json::array({text.substr(0, cut), text.substr(cut)}));
  }
  return texts;
}

// Characters that are no tokens become bytes.
Json TokenizerReader::character_bpe(Json merges) const {
  Json model = {{"type", "BPE"},
                {"fuse_unk", true},
                {"byte_fallback", true},
                {"vocab", vocab_object()},
                {"merges", std::move(merges)}};
  const Json unknown = value("unknown_token_id");
  const std::string unk = vocabulary_.at(unknown.is_null() ? Json(0) : unknown);
  if (!unk.empty()) model["unk_token"] = unk;
  return model;
}

// Spaces become marks, and marks spaces; `prefix`: a text begins with one.
Json TokenizerReader::marked_spaces(bool prefix, Json model) const {
  Json normalizers = Json::array();
  if (prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", kMark}});
  normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMark}});
  Json decoders =
      Json::array({{{"type", "Replace"}, {"pattern", {{"String", kMark}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}});
  if (prefix) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return {{"normalizer", {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}}},
          {"decoder", {{"type", "Sequence"}, {"decoders", std::move(decoders)}}},
          {"model", std::move(model)}};
}

Json TokenizerReader::sentencepiece_bpe() const {
  return marked_spaces(flag("add_space_prefix", true), character_bpe(merges_by_score()));
}

Json TokenizerReader::stored_merges() const {
  Json merges = Json::array();
  const auto stored = metadata_.find("tokenizer.ggml.merges");
  if (stored == metadata_.end() || !stored->is_array()) corrupt("there are no merges");
  for (const Json& merge : *stored) {
    const std::string text = merge.is_string() ? merge.get<std::string>() : "";
    const std::size_t space = text.find(' ', 1);
    if (space == std::string::npos || !is_valid_utf8(text)) corrupt("a merge is damaged");
    merges.push_back(Json::array({text.substr(0, space), text.substr(space + 1)}));
  }
  return merges;
}

// Spaces only divide words, and are lost.
Json TokenizerReader::bpe_without_spaces() const {
  Json result = {{"pre_tokenizer", {{"type", "WhitespaceSplit"}}},
                 {"decoder", {{"type", "ByteFallback"}}},
                 {"model", character_bpe(stored_merges())}};
  if (flag("normalizer.lowercase", false)) result["normalizer"] = {{"type", "Lowercase"}};
  return result;
}

Json TokenizerReader::cut_bpe() const {
  const GgufPreType* const type = pre_type();
  if (type == nullptr) {
    fail(ErrorKind::kUnsupported, "{}: tokenizer.ggml.pre is '{}', which nibble does not know",
         what_, pre_name().substr(0, 64));
  }
  Json cuts = Json::array();
  for (const std::string_view pattern : type->patterns) {
    cuts.push_back({{"type", "Split"},
                    {"pattern", {{"Regex", pattern}}},
                    {"behavior", "Isolated"},
                    {"invert", false}});
  }
  Json result = type->byte_level ? byte_level_bpe(*type, cuts)
                                 : marked_spaces(flag("add_space_prefix", false),
                                                 character_bpe(stored_merges()));
  result["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", std::move(cuts)}};
  if (value("model") == kHybridDna) {  // the letters of a span are text as they are
    const Json unmark = {{"type", "Replace"}, {"pattern", {{"String", kDnaMark}}}, {"content", ""}};
    result["decoder"] = {{"type", "Sequence"},
                         {"decoders", Json::array({unmark, result.at("decoder")})}};
  }
  return result;
}

// Adds its own step to the cuts.
Json TokenizerReader::byte_level_bpe(const GgufPreType& type, Json& cuts) const {
  cuts.push_back({{"type", "ByteLevel"},
                  {"add_prefix_space", flag("add_space_prefix", false)},
                  {"trim_offsets", true},
                  {"use_regex", false}});
  return {{"decoder",
           {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", type.ignore_merges},
            {"vocab", vocab_object()},
            {"merges", stored_merges()}}}};
}

// There words begin with the mark; here their other pieces begin with ##.
Json TokenizerReader::wordpiece() {
  for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
    std::string& token = vocabulary_.tokens[i];
    if (vocabulary_.types[i] != kNormalToken) continue;
    const bool begins = token.starts_with(kMark);
    token = begins ? token.substr(std::string_view(kMark).size()) : "##" + token;
  }
  ids_.clear();
  make_unique();
  const std::string unk = vocabulary_.at(value("unknown_token_id"));
  return {{"normalizer",
           {{"type", "BertNormalizer"},
            {"clean_text", true},
            {"handle_chinese_chars", true},
            {"strip_accents", nullptr},
            {"lowercase", true}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", unk.empty() ? "[UNK]" : unk},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", vocab_object()}}}};
}

// Numbers that are no bytes are cut to them.
std::string text_of_bytes(const Json& numbers) {
  std::vector<std::uint8_t> bytes;
  for (const Json& number : numbers) {
    bytes.push_back(number.is_number_integer() ? static_cast<std::uint8_t>(number.get<int>()) : 0);
  }
  return encode_base64(bytes);
}

Json TokenizerReader::unigram() const {
  Json pieces = Json::array();
  for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
    pieces.push_back(Json::array({vocabulary_.tokens[i], vocabulary_.scores[i]}));
  }
  Json normalizers = Json::array();
  const Json map = value("precompiled_charsmap");
  if (map.is_array() && !map.empty()) {
    normalizers.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", text_of_bytes(map)}});
  }
  if (flag("remove_extra_whitespaces", false)) {
    normalizers.push_back({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}});
    normalizers.push_back(
        {{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}});
  }
  const Json metaspace = {{"type", "Metaspace"},
                          {"replacement", kMark},
                          {"prepend_scheme", flag("add_space_prefix", true) ? "always" : "never"},
                          {"split", true}};
  const Json unknown = value("unknown_token_id");
  return {{"normalizer", {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}}},
          {"pre_tokenizer", metaspace},
          {"decoder", metaspace},
          {"model",
           {{"type", "Unigram"},
            {"unk_id", unknown.is_null() ? Json(2) : unknown},
            {"vocab", std::move(pieces)}}}};
}

Json TokenizerReader::config(const std::string& kind) const {
  constexpr std::pair<const char*, const char*> kRoles[] = {
      {"bos_token_id", "bos_token"},       {"eos_token_id", "eos_token"},
      {"unknown_token_id", "unk_token"},   {"padding_token_id", "pad_token"},
      {"seperator_token_id", "sep_token"}, {"mask_token_id", "mask_token"},
      {"cls_token_id", "cls_token"}};
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false}};
  for (const auto& [key, role] : kRoles) {
    if (const std::string token = vocabulary_.at(value(key)); !token.empty()) config[role] = token;
  }
  if (kind == kHybridDna) config["tokenizer_class"] = "HybridDNATokenizer";
  if (kind == "llama") {
    if (!config.contains("bos_token")) config["bos_token"] = vocabulary_.at(1);
    if (!config.contains("eos_token")) config["eos_token"] = vocabulary_.at(2);
  }
  const GgufPreType* const pre = is_cut_bpe(kind) ? pre_type() : nullptr;
  if (kind == "bert") {  // [CLS] text [SEP]
    if (!config.contains("bos_token") && config.contains("cls_token")) {
      config["bos_token"] = config["cls_token"];
    }
    if (config.contains("sep_token")) config["eos_token"] = config["sep_token"];
    config["add_bos_token"] = config["add_eos_token"] = true;
  } else {
    config["add_bos_token"] =
        flag("add_bos_token", kind == "llama" || (pre != nullptr && pre->add_bos));
    config["add_eos_token"] = flag("add_eos_token", kind == "t5");
  }
  const Json chat = metadata_.value("tokenizer.chat_template", Json());
  if (chat.is_string() && is_valid_utf8(chat.get<std::string>())) config["chat_template"] = chat;
  return config;
}

}  // namespace

std::optional<std::map<std::string, Json>> tokenizer_from_gguf(const Json& metadata,
                                                               std::string_view what) {
  return TokenizerReader(metadata, what).read();
}

}  // namespace nibble
