// The members that every request for text shares: OpenAI's, and vLLM's additions under its names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine.h"
#include "server/fields.h"

namespace nibble::server {

// Bounds of one request; beyond them it is refused with 400.
constexpr std::int64_t kMostChoices = 128;     // n and best_of
constexpr std::int64_t kMostSequences = 1024;  // prompts times best_of
constexpr std::size_t kMostStops = 64;         // stop strings
constexpr std::size_t kLongestStop = 1024;     // bytes of one
constexpr std::size_t kMostStopIds = 1024;     // stop_token_ids
constexpr std::size_t kMostBiases = 1024;      // logit_bias
constexpr std::int64_t kMostLogprobs = 20;     // logprobs and top_logprobs

// What a request is read against.
struct RequestDefaults {
  SamplingOptions sampling;  // of the model's generation_config.json
  std::int64_t vocab = 0;
  // How calls of tools that are asked for are written (see ToolCallParser): in tags, or as the
  // whole answer.
  bool tagged_calls = false;
};

struct GenerationRequest {
  EngineRequest engine;                    // without prompt, max_tokens and logprobs
  std::optional<std::int64_t> max_tokens;  // what max_tokens or max_completion_tokens said
  std::string model;                       // empty: not given
  std::int64_t n = 1;
  bool seeded = false;
  bool stream = false;
  bool include_usage = false;
  bool tokens_as_ids = false;  // tokens in log-probabilities as "token_id:123"
};

GenerationRequest read_generation(Fields& fields, const RequestDefaults& defaults);

// Defaults of sampling for requests that say nothing: what generation_config.json says, or else
// temperature 1 and no filter, as OpenAI's API has it. kCorrupt when it says what cannot be.
SamplingOptions default_sampling(const Json& generation_config);

}  // namespace nibble::server
