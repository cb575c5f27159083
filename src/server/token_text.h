// How single tokens read inside a text, for log-probabilities.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/tokenizer/tokenizer.h"
#include "runtime/engine.h"
#include "server/generation_request.h"

namespace nibble::server {

// Immutable and thread-safe. Keeps a reference to the tokenizer.
class TokenText {
 public:
  explicit TokenText(const Tokenizer& tokenizer);
  // With the space before it that a decoder would drop at the start of a text. Bytes that are no
  // character are U+FFFD; ids that only the model has are "".
  std::string operator()(std::int32_t id) const;

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::int32_t> anchor_;  // tokens that something can follow
  std::string anchor_text_;
};

// The "logprobs" of a completion, grown token by token:
// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}.
class CompletionLogprobs {
 public:
  CompletionLogprobs(const TokenText& text, bool as_ids) : text_(text), as_ids_(as_ids) {}
  // `known` is false for the first token of a prompt, which nothing predicts.
  void add(const EngineToken& token, bool known = true);
  // What was added since the last call.
  Json take();

 private:
  const TokenText& text_;
  bool as_ids_;
  std::int64_t offset_ = 0;  // in characters of the tokens' texts, one after another
  Json pending_ = empty();

  static Json empty();
};

// One entry of "logprobs"."content" of a chat's choice.
Json chat_logprob(const EngineToken& token, const TokenText& text, bool as_ids);

}  // namespace nibble::server
