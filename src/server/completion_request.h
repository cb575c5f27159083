// The body of POST /v1/completions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "server/generation_request.h"

namespace nibble::server {

using Prompt = std::variant<std::string, std::vector<std::int32_t>>;

struct CompletionRequest {
  GenerationRequest common;
  std::vector<Prompt> prompts;  // at least one
  bool echo = false;
  std::int64_t best_of = 1;    // >= common.n
  std::int64_t logprobs = -1;  // likeliest tokens for each; negative: none wanted
  bool add_special_tokens = true;
};

// The member `name`: a text, a list of token ids, or a list of either; at least one, at most
// kMostSequences. ApiError 400, naming it, for all else.
std::vector<Prompt> read_prompts(Fields& fields, std::string_view name, std::int64_t vocab);

struct ParsedCompletion {
  CompletionRequest request;
  std::vector<std::string> ignored;  // members that mean nothing here
};

// ApiError 400 (and kCorrupt for what is no JSON) on anything that cannot be meant.
ParsedCompletion parse_completion(std::string_view body, const RequestDefaults& defaults);

}  // namespace nibble::server
