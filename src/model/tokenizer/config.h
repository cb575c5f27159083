// What stands beside a tokenizer file: tokenizer_config.json, special_tokens_map.json and, for the
// ids of BOS and EOS, config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/post_processor.h"
#include "model/tokenizer/vocab.h"

namespace nibble {

struct TokenizerConfig {
  std::optional<bool> add_bos;  // absent: as the tokenizer file says
  std::optional<bool> add_eos;
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  std::optional<std::int64_t> bos_id;  // of config.json, where no file names the token
  std::optional<std::int64_t> eos_id;
  std::vector<std::string> special_tokens;  // of every role
  std::vector<AddedToken> added_tokens;     // "added_tokens_decoder"
  Json json = Json::object();               // tokenizer_config.json itself

  // Whether the file names this class of the transformers library, "Fast" or not.
  bool has_class(std::string_view name) const;
};

TokenizerConfig make_tokenizer_config(const Json& tokenizer_config, const Json& special_tokens_map,
                                      const Json& model_config, const std::string& where);
// The same of the files in a directory. Missing files are no error, damaged ones are kCorrupt.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& directory);

struct EdgeTokens {
  std::optional<std::int32_t> bos;
  std::optional<std::int32_t> eos;
};
EdgeTokens find_edge_tokens(const TokenizerConfig& config, const Vocab& vocab);

// Puts BOS and EOS where "add_bos_token" and "add_eos_token" say so, or takes them away.
void apply_edge_tokens(const TokenizerConfig& config, const EdgeTokens& edges,
                       PostProcessor& post_processor);

// Adds to `tokens` what the config knows beyond them; the names of special tokens count only when
// the vocabulary has them.
void merge_added_tokens(const TokenizerConfig& config, const Vocab& vocab,
                        std::vector<AddedToken>& tokens);

}  // namespace nibble
