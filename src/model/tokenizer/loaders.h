// Loaders of the kinds of tokenizer files in loaders.def. Each takes the file itself and reads
// tokenizer_config.json and the like beside it. kCorrupt or kUnsupported on failure.
#pragma once

#include <filesystem>
#include <memory>

#include "base/json.h"
#include "model/tokenizer/config.h"
#include "model/tokenizer/subword.h"
#include "model/tokenizer/tokenizer.h"

namespace nibble {

using TokenizerLoader = std::unique_ptr<Tokenizer> (*)(const std::filesystem::path& file);

#define NIBBLE_TOKENIZER(function, file, suffix) \
  std::unique_ptr<Tokenizer> function(const std::filesystem::path& file_path);
#include "model/tokenizer/loaders.def"
#undef NIBBLE_TOKENIZER

// A tokenizer.json document, as bytes and as a value: what its loader and the fuzzer share.
std::unique_ptr<Tokenizer> tokenizer_from_json(const Json& json, const TokenizerConfig& config);

// The parts around a subword model that is already there, from a document without "model".
std::unique_ptr<Tokenizer> tokenizer_around_model(const Json& json, const TokenizerConfig& config,
                                                  std::shared_ptr<Vocab> vocab,
                                                  std::unique_ptr<SubwordModel> model);

}  // namespace nibble
