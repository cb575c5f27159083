#include "model/tokenizer/config.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "model/tokenizer/json_fields.h"

namespace nibble {
namespace {

constexpr const char* kRoles[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};

Json read_if_there(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return Json::object();
  Json json = read_json_file(file.string());
  if (!json.is_object()) fail(ErrorKind::kCorrupt, "{}: not an object", file.string());
  return json;
}

// A token is a string or an object with "content".
std::optional<std::string> token_text(const Json& json, std::string_view what) {
  if (json.is_string()) return json.get<std::string>();
  if (json.is_object()) return string_field(json, "content", what);
  return std::nullopt;
}

void read_special_tokens(const Json& json, std::string_view what, TokenizerConfig& config) {
  for (const char* role : kRoles) {
    const auto text = token_text(field(json, role, what), what);
    if (!text) continue;
    config.special_tokens.push_back(*text);
    if (role == std::string_view("bos_token") && !config.bos_token) config.bos_token = text;
    if (role == std::string_view("eos_token") && !config.eos_token) config.eos_token = text;
  }
  for (const char* list : {"additional_special_tokens", "extra_special_tokens"}) {
    const Json& tokens = field(json, list, what);
    if (!tokens.is_array() && !tokens.is_object()) continue;
    for (const Json& token : tokens) {
      if (const auto text = token_text(token, what)) config.special_tokens.push_back(*text);
    }
  }
}

void read_added_tokens(const Json& json, std::string_view what, TokenizerConfig& config) {
  const Json& added = field(json, "added_tokens_decoder", what);
  if (added.is_null()) return;
  if (!added.is_object()) {
    fail(ErrorKind::kCorrupt, "{}: 'added_tokens_decoder' is not an object", what);
  }
  for (const auto& [key, token] : added.items()) {
    std::int64_t id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) {
      fail(ErrorKind::kCorrupt, "{}: '{}' is not a token id", what, key);
    }
    config.added_tokens.push_back(parse_added_token(token, id, what));
  }
}

std::optional<bool> flag(const Json& json, const char* key, std::string_view what) {
  if (field(json, key, what).is_null()) return std::nullopt;
  return bool_field_or(json, key, false, what);
}

// A model may have several ends; the first is the one that encoding could add.
std::optional<std::int64_t> first_id(const Json& json) {
  if (json.is_array()) return json.empty() ? std::nullopt : first_id(json[0]);
  if (!json.is_number_integer()) return std::nullopt;
  return json.get<std::int64_t>();
}

std::optional<std::int32_t> edge_token(const std::optional<std::string>& text,
                                       const std::optional<std::int64_t>& id, const Vocab& vocab) {
  if (text) return vocab.find(*text);
  if (id && *id >= 0 && *id < vocab.size() && vocab.has(static_cast<std::int32_t>(*id))) {
    return static_cast<std::int32_t>(*id);
  }
  return std::nullopt;
}

}  // namespace

bool TokenizerConfig::has_class(std::string_view name) const {
  const auto it = json.find("tokenizer_class");
  if (it == json.end() || !it->is_string()) return false;
  const std::string& found = it->get_ref<const std::string&>();
  return found == name || found == std::string(name) + "Fast";
}

TokenizerConfig read_tokenizer_config(const std::filesystem::path& directory) {
  return make_tokenizer_config(read_if_there(directory / "tokenizer_config.json"),
                               read_if_there(directory / "special_tokens_map.json"),
                               read_if_there(directory / "config.json"), directory.string());
}

TokenizerConfig make_tokenizer_config(const Json& tokenizer_config, const Json& special_tokens_map,
                                      const Json& model_config, const std::string& where) {
  TokenizerConfig config;
  const std::string what = where + "/tokenizer_config.json";
  config.json = tokenizer_config;
  config.add_bos = flag(config.json, "add_bos_token", what);
  config.add_eos = flag(config.json, "add_eos_token", what);
  read_special_tokens(config.json, what, config);
  read_added_tokens(config.json, what, config);
  read_special_tokens(special_tokens_map, where + "/special_tokens_map.json", config);
  config.bos_id = first_id(field(model_config, "bos_token_id", "config.json"));
  config.eos_id = first_id(field(model_config, "eos_token_id", "config.json"));
  return config;
}

EdgeTokens find_edge_tokens(const TokenizerConfig& config, const Vocab& vocab) {
  return {edge_token(config.bos_token, config.bos_id, vocab),
          edge_token(config.eos_token, config.eos_id, vocab)};
}

void apply_edge_tokens(const TokenizerConfig& config, const EdgeTokens& edges,
                       PostProcessor& post_processor) {
  const auto apply = [](const std::optional<bool>& wanted, const std::optional<std::int32_t>& id,
                        std::vector<std::int32_t>& place) {
    if (!wanted || !id) return;
    place.clear();
    if (*wanted) place.push_back(*id);
  };
  apply(config.add_bos, edges.bos, post_processor.before);
  apply(config.add_eos, edges.eos, post_processor.after);
}

void merge_added_tokens(const TokenizerConfig& config, const Vocab& vocab,
                        std::vector<AddedToken>& tokens) {
  StringMap<std::size_t> known;
  for (std::size_t i = 0; i < tokens.size(); ++i) known.emplace(tokens[i].content, i);
  for (const AddedToken& token : config.added_tokens) {
    if (known.emplace(token.content, tokens.size()).second) tokens.push_back(token);
  }
  for (const std::string& text : config.special_tokens) {
    const auto id = vocab.find(text);
    const auto it = known.find(text);
    if (it != known.end()) {
      tokens[it->second].special = true;
    } else if (id) {
      known.emplace(text, tokens.size());
      tokens.push_back({.id = *id, .content = text, .special = true});
    }
  }
}

}  // namespace nibble
