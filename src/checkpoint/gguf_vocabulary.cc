#include "checkpoint/gguf_vocabulary.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <set>
#include <vector>

#include "base/base64.h"
#include "base/error.h"
#include "base/file.h"
#include "checkpoint/gguf_token_types.h"
#include "checkpoint/gguf_tokenizer.h"
#include "checkpoint/pre_patterns.h"

namespace nibble {
namespace {

const Json kNull;

const Json& member(const Json& json, const char* key) {
  if (!json.is_object()) return kNull;
  const auto found = json.find(key);
  return found == json.end() ? kNull : *found;
}

std::string text_of(const Json& json) { return json.is_string() ? json.get<std::string>() : ""; }

bool flag_of(const Json& json, const char* key, bool fallback) {
  const Json& value = member(json, key);
  return value.is_boolean() ? value.get<bool>() : fallback;
}

[[noreturn]] void damaged(const std::string& what) {
  fail(ErrorKind::kCorrupt, "tokenizer.json: {}", what);
}

// The parts of a normalizer, pre-tokenizer or post-processor, of sequences one after the other.
std::vector<const Json*> parts_of(const Json& json, const char* list, int depth = 0) {
  constexpr int kDeepest = 8;
  if (!json.is_object() || depth > kDeepest) return {};
  const Json& inner = member(json, list);
  if (!inner.is_array()) return {&json};
  std::vector<const Json*> parts;
  for (const Json& part : inner) {
    std::ranges::copy(parts_of(part, list, depth + 1), std::back_inserter(parts));
  }
  return parts;
}

class VocabularyWriter {
 public:
  VocabularyWriter(const std::map<std::string, Json>& documents, const Json& config,
                   std::int64_t size, GgufMetadata& metadata)
      : documents_(documents),
        tokenizer_(document("tokenizer.json")),
        model_(member(tokenizer_, "model")),
        config_(config),
        metadata_(metadata),
        tokens_(static_cast<std::size_t>(size)),
        types_(tokens_.size(), kUnusedToken),
        scores_(tokens_.size(), 0.0f) {}

  void write() {
    const std::string kind = kind_of_model();
    read_tokens();
    read_added_tokens();
    metadata_.add("tokenizer.ggml.model", kind);
    if (kind == "gpt2" || kind == "hybriddna") byte_level_bpe();
    if (kind == "llama") sentencepiece_bpe();
    if (kind == "bert") wordpiece();
    if (kind == "t5") unigram();
    name_the_rest();
    metadata_.add("tokenizer.ggml.tokens", std::span<const std::string>(tokens_));
    metadata_.add("tokenizer.ggml.token_type", std::span<const std::int32_t>(types_));
    if (kind == "llama" || kind == "t5") {
      metadata_.add("tokenizer.ggml.scores", std::span<const float>(scores_));
    }
    special_tokens(kind);
    chat_template();
  }

 private:
  const Json& document(const char* name) const {
    const auto found = documents_.find(name);
    return found == documents_.end() ? kNull : found->second;
  }
  const Json& settings() const { return document("tokenizer_config.json"); }

  std::string kind_of_model() const;
  void put(const Json& id, const std::string& text, float score, std::int32_t type);
  void read_tokens();
  void read_added_tokens();
  void byte_level_bpe();
  void sentencepiece_bpe();
  void wordpiece();
  void unigram();
  void name_the_rest();
  void special_tokens(const std::string& kind);
  std::optional<std::int32_t> id_of(const std::string& text) const;
  std::optional<std::int32_t> role(const char* name, const char* config_key) const;
  std::string edge_text(bool first) const;
  void require_normalizers(std::initializer_list<std::string_view> known) const;
  void ends(const std::optional<std::int32_t>& end);
  void chat_template();

  const std::map<std::string, Json>& documents_;
  const Json& tokenizer_;
  const Json& model_;
  const Json& config_;
  GgufMetadata& metadata_;
  std::vector<std::string> tokens_;
  std::vector<std::int32_t> types_;
  std::vector<float> scores_;
  std::map<std::string, std::int32_t> ids_;
};

std::string VocabularyWriter::kind_of_model() const {
  const std::string type = text_of(member(model_, "type"));
  if (type == "WordPiece") return "bert";
  if (type == "Unigram") return "t5";
  const bool merges = member(model_, "merges").is_array();
  if ((type == "BPE" || type.empty()) && merges) {
    if (flag_of(model_, "byte_fallback", false)) return "llama";
    const auto is_byte_level = [](const Json* part) {
      return text_of(member(*part, "type")) == "ByteLevel";
    };
    if (std::ranges::any_of(parts_of(member(tokenizer_, "pre_tokenizer"), "pretokenizers"),
                            is_byte_level)) {
      const bool dna = text_of(member(settings(), "tokenizer_class")) == "HybridDNATokenizer";
      return dna ? "hybriddna" : "gpt2";
    }
  }
  fail(ErrorKind::kUnsupported,
       "tokenizer.json: a model of type '{}' that is neither byte-level nor falls back on bytes is "
       "none that llama.cpp has",
       type.substr(0, 64));
}

void VocabularyWriter::put(const Json& id, const std::string& text, float score,
                           std::int32_t type) {
  if (!id.is_number_integer() || id < 0) damaged("the id of a token is no number");
  const auto at = id.get<std::uint64_t>();
  if (at >= tokens_.size()) {
    fail(ErrorKind::kUnsupported,
         "tokenizer.json: token {} of a model whose embedding has {} rows; GGUF needs a row for "
         "each token",
         at, tokens_.size());
  }
  tokens_[at] = text;
  types_[at] = type;
  scores_[at] = score;
  ids_[text] = static_cast<std::int32_t>(at);
}

void VocabularyWriter::read_tokens() {
  const Json& vocab = member(model_, "vocab");
  if (vocab.is_object()) {
    for (const auto& [text, id] : vocab.items()) put(id, text, 0, kNormalToken);
    return;
  }
  if (!vocab.is_array()) damaged("there is no vocabulary");
  for (std::size_t i = 0; i < vocab.size(); ++i) {
    const Json& piece = vocab[i];
    if (!piece.is_array() || piece.size() != 2 || !piece[0].is_string() || !piece[1].is_number()) {
      damaged("a piece is no text with a score");
    }
    put(i, piece[0].get<std::string>(), piece[1].get<float>(), kNormalToken);
  }
}

void VocabularyWriter::read_added_tokens() {
  const Json& added = member(tokenizer_, "added_tokens");
  if (!added.is_array()) return;
  for (const Json& token : added) {
    const bool special = flag_of(token, "special", false);
    put(member(token, "id"), text_of(member(token, "content")), 0,
        special ? kControlToken : kUserDefinedToken);
  }
}

// Ids that no token has: rows that an embedding was padded with.
void VocabularyWriter::name_the_rest() {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (types_[i] == kUnusedToken) tokens_[i] = fmt::format("[PAD{}]", i);
  }
}

// llama.cpp normalizes text as the kind of the model says, whatever stands in the file.
void VocabularyWriter::require_normalizers(std::initializer_list<std::string_view> known) const {
  for (const Json* part : parts_of(member(tokenizer_, "normalizer"), "normalizers")) {
    const std::string type = text_of(member(*part, "type"));
    if (std::ranges::find(known, type) != known.end()) continue;
    fail(ErrorKind::kUnsupported, "tokenizer.json: normalizer '{}', which GGUF cannot say",
         type.substr(0, 64));
  }
}

// A merge as the two tokens that it joins.
std::pair<std::string, std::string> merge_of(const Json& merge) {
  if (merge.is_string()) {
    const auto text = merge.get<std::string>();
    const std::size_t space = text.find(' ', 1);
    if (space != std::string::npos) return {text.substr(0, space), text.substr(space + 1)};
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
             merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  damaged("a merge is not two tokens");
}

void VocabularyWriter::byte_level_bpe() {
  require_normalizers({"NFC"});  // which most text is in
  std::vector<std::string> patterns;
  bool space_first = false;
  for (const Json* part : parts_of(member(tokenizer_, "pre_tokenizer"), "pretokenizers")) {
    add_pre_patterns(*part, patterns);
    space_first = space_first || (text_of(member(*part, "type")) == "ByteLevel" &&
                                  flag_of(*part, "add_prefix_space", false));
  }
  const bool ignores = flag_of(model_, "ignore_merges", false);
  const std::string_view pre = pre_type_of(patterns, ignores);
  if (pre.empty()) {
    fail(ErrorKind::kUnsupported,
         "tokenizer.json: words are cut (or merges ignored) as under no `pre` type of llama.cpp "
         "that nibble knows");
  }
  metadata_.add("tokenizer.ggml.pre", pre);
  if (space_first) metadata_.add("tokenizer.ggml.add_space_prefix", true);
  std::vector<std::string> merges;
  for (const Json& merge : member(model_, "merges")) {
    const auto [left, right] = merge_of(merge);
    merges.push_back(left + " " + right);
  }
  metadata_.add("tokenizer.ggml.merges", std::span<const std::string>(merges));
}

// The score of a token is less the later it is first merged; llama.cpp joins the neighbours whose
// union has the best score.
void VocabularyWriter::sentencepiece_bpe() {
  require_normalizers({"Prepend", "Replace"});
  metadata_.add("tokenizer.ggml.pre", "default");
  std::set<std::string> ranked;
  for (const Json& merge : member(model_, "merges")) {
    const auto [left, right] = merge_of(merge);
    const std::string token = left + right;
    const auto id = id_of(token);
    if (!id) damaged("a merge makes '" + token.substr(0, 64) + "', which is no token");
    if (!ranked.insert(token).second) continue;
    scores_[static_cast<std::size_t>(*id)] = -static_cast<float>(ranked.size());
  }
  const auto last = -static_cast<float>(ranked.size()) - 1;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const bool is_byte = tokens_[i].size() == 6 && tokens_[i].starts_with("<0x");
    if (types_[i] == kNormalToken && is_byte) types_[i] = kByteToken;
    if (types_[i] == kNormalToken && !ranked.contains(tokens_[i])) scores_[i] = last;
  }
  const auto unknown = id_of(text_of(member(model_, "unk_token")));
  if (unknown) types_[static_cast<std::size_t>(*unknown)] = kUnknownToken;
  bool prefix = false;
  for (const Json* part : parts_of(member(tokenizer_, "normalizer"), "normalizers")) {
    prefix = prefix || text_of(member(*part, "type")) == "Prepend";
  }
  for (const Json* part : parts_of(member(tokenizer_, "pre_tokenizer"), "pretokenizers")) {
    if (text_of(member(*part, "type")) != "Metaspace") continue;
    const std::string scheme = text_of(member(*part, "prepend_scheme"));
    prefix =
        prefix || (scheme.empty() ? flag_of(*part, "add_prefix_space", true) : scheme != "never");
  }
  metadata_.add("tokenizer.ggml.add_space_prefix", prefix);
}

// There words begin with the mark; here their other pieces begin with ##.
void VocabularyWriter::wordpiece() {
  require_normalizers({"BertNormalizer"});
  const Json& normalizer = member(tokenizer_, "normalizer");
  if (!flag_of(normalizer, "lowercase", true) || !flag_of(normalizer, "strip_accents", true)) {
    fail(ErrorKind::kUnsupported,
         "tokenizer.json: a BertNormalizer that keeps capitals or accents, which GGUF cannot say");
  }
  constexpr std::string_view kMark = "\u2581", kInner = "##";
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (types_[i] != kNormalToken) continue;
    std::string& token = tokens_[i];
    token = token.starts_with(kInner) ? token.substr(kInner.size()) : std::string(kMark) + token;
  }
}

void VocabularyWriter::unigram() {
  require_normalizers({"Precompiled", "Strip", "Replace"});
  metadata_.add("tokenizer.ggml.pre", "default");
  bool strips = false;
  for (const Json* part : parts_of(member(tokenizer_, "normalizer"), "normalizers")) {
    const std::string type = text_of(member(*part, "type"));
    strips = strips || type == "Strip";
    if (type != "Precompiled") continue;
    const std::string map =
        decode_base64(text_of(member(*part, "precompiled_charsmap")), "tokenizer.json");
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(map.data());
    metadata_.add("tokenizer.ggml.precompiled_charsmap", std::span(bytes, map.size()));
  }
  bool prefix = true;
  for (const Json* part : parts_of(member(tokenizer_, "pre_tokenizer"), "pretokenizers")) {
    if (text_of(member(*part, "prepend_scheme")) == "never") prefix = false;
  }
  metadata_.add("tokenizer.ggml.add_space_prefix", prefix);
  metadata_.add("tokenizer.ggml.remove_extra_whitespaces", strips);
  const Json& unknown = member(model_, "unk_id");
  if (unknown.is_number_integer() && unknown >= 0 && unknown < types_.size()) {
    types_[unknown.get<std::size_t>()] = kUnknownToken;
  }
}

std::optional<std::int32_t> VocabularyWriter::id_of(const std::string& text) const {
  const auto found = ids_.find(text);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

// A token is a text or an object with "content"; config.json may have its id.
std::optional<std::int32_t> VocabularyWriter::role(const char* name, const char* config_key) const {
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const Json& token = member(document(file), name);
    const auto id = id_of(text_of(token.is_object() ? member(token, "content") : token));
    if (id) return id;
  }
  const Json& id = member(config_, config_key);
  const Json& first = id.is_array() && !id.empty() ? id.front() : id;
  if (!first.is_number_integer() || first < 0 || first >= tokens_.size()) return std::nullopt;
  return first.get<std::int32_t>();
}

// What the post-processor puts in front of a text, or behind it; empty: nothing.
std::string VocabularyWriter::edge_text(bool first) const {
  for (const Json* part : parts_of(member(tokenizer_, "post_processor"), "processors")) {
    const Json& pair = member(*part, first ? "cls" : "sep");  // of BERT and RoBERTa
    if (pair.is_array() && !pair.empty()) return text_of(pair.front());
    const Json& single = member(*part, "single");
    if (!single.is_array() || single.empty()) continue;
    return text_of(member(member(first ? single.front() : single.back(), "SpecialToken"), "id"));
  }
  return "";
}

void VocabularyWriter::special_tokens(const std::string& kind) {
  constexpr std::array<std::array<const char*, 3>, 6> kRoles = {{
      {"tokenizer.ggml.bos_token_id", "bos_token", "bos_token_id"},
      {"tokenizer.ggml.unknown_token_id", "unk_token", "unk_token_id"},
      {"tokenizer.ggml.padding_token_id", "pad_token", "pad_token_id"},
      {"tokenizer.ggml.seperator_token_id", "sep_token", "sep_token_id"},
      {"tokenizer.ggml.mask_token_id", "mask_token", "mask_token_id"},
      {"tokenizer.ggml.cls_token_id", "cls_token", "cls_token_id"},
  }};
  // Where nobody names the tokens that the post-processor adds, they are these.
  const std::string front = edge_text(true), back = edge_text(false);
  const std::string_view front_role = kind == "bert" ? "cls_token" : "bos_token";
  for (const auto& [key, name, config_key] : kRoles) {
    auto id = role(name, config_key);
    if (!id && name == front_role) id = id_of(front);
    if (!id && kind == "bert" && name == std::string_view("sep_token")) id = id_of(back);
    if (!id && name == std::string_view("unk_token")) id = id_of(text_of(member(model_, name)));
    if (id) metadata_.add_u32(key, static_cast<std::uint64_t>(*id));
  }
  const auto end = role("eos_token", "eos_token_id");
  ends(end ? end : id_of(back));
  if (kind == "bert") return;  // always [CLS] text [SEP]
  metadata_.add("tokenizer.ggml.add_bos_token",
                flag_of(settings(), "add_bos_token", !front.empty()));
  metadata_.add("tokenizer.ggml.add_eos_token",
                flag_of(settings(), "add_eos_token", !back.empty()));
}

// Generation ends with any of these; GGUF has three names for them.
void VocabularyWriter::ends(const std::optional<std::int32_t>& end) {
  std::vector<std::int32_t> ids;
  const auto add = [&](const Json& id) {
    if (!id.is_number_integer() || id < 0 || id >= tokens_.size()) return;
    const auto value = id.get<std::int32_t>();
    if (std::ranges::find(ids, value) == ids.end()) ids.push_back(value);
  };
  if (end) add(*end);
  for (const Json* json : {&config_, &document("generation_config.json")}) {
    const Json& more = member(*json, "eos_token_id");
    add(more);
    if (!more.is_array()) continue;
    for (const Json& id : more) add(id);
  }
  constexpr const char* kNames[] = {"eos", "eot", "eom"};
  for (std::size_t i = 0; i < std::min(ids.size(), std::size(kNames)); ++i) {
    metadata_.add_u32(fmt::format("tokenizer.ggml.{}_token_id", kNames[i]),
                      static_cast<std::uint64_t>(ids[i]));
  }
}

void VocabularyWriter::chat_template() {
  Json found = document("chat_template.jinja");
  if (!found.is_string()) found = member(document("chat_template.json"), "chat_template");
  if (!found.is_string()) found = member(settings(), "chat_template");
  if (found.is_array()) {  // several by name
    for (const Json& named : Json(found)) {
      if (text_of(member(named, "name")) == "default") found = member(named, "template");
    }
  }
  if (found.is_string()) metadata_.add("tokenizer.chat_template", found.get<std::string>());
}

}  // namespace

std::map<std::string, Json> tokenizer_documents(const Checkpoint& source) {
  constexpr std::string_view kJson[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "chat_template.json",
                                        "generation_config.json"};
  std::map<std::string, Json> documents = source.documents();
  for (const std::string& name : source.companion_files()) {
    const std::filesystem::path file = source.path() / name;
    if (name == "chat_template.jinja") documents[name] = read_text_file(file);
    if (std::ranges::find(kJson, name) != std::end(kJson)) {
      documents[name] = read_json_file(file.string());
    }
  }
  return documents;
}

void add_vocabulary(const std::map<std::string, Json>& documents, const Json& config,
                    std::int64_t size, GgufMetadata& metadata) {
  if (!documents.contains("tokenizer.json")) {
    metadata.add("tokenizer.ggml.model", "none");
    return;
  }
  VocabularyWriter(documents, config, size, metadata).write();
}

}  // namespace nibble
