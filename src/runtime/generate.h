// Text generation: prefill, then one token at a time through the KV cache, streamed as text.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/sampler.h"
#include "runtime/session.h"

namespace nibble {

struct GenerateOptions {
  std::int64_t max_new_tokens = 128;  // >= 0
  SamplingOptions sampling;
  std::vector<std::string> stop;       // texts that end the answer; they are not part of it
  std::vector<std::int32_t> stop_ids;  // tokens that end it; see default_stop_ids()
  // Most tokens of prompt and answer together; 0 = the model's max_positions.
  std::int64_t context = 0;
  std::int64_t prefill_chunk = 2048;  // rows of one prefill call; bounds the memory of long prompts
};

enum class FinishReason {
  kStop,       // a stop token or a stop string
  kLength,     // max_new_tokens, or the context is full
  kCancelled,  // the callback said so
};
const char* to_string(FinishReason reason);  // "stop", "length", "cancelled"

struct GenerateResult {
  std::string text;               // the answer, special tokens left out
  std::vector<std::int32_t> ids;  // the answer's tokens, the stop token left out
  std::int64_t prompt_tokens = 0;
  FinishReason finish_reason = FinishReason::kLength;
  double prefill_seconds = 0;
  double decode_seconds = 0;  // of the tokens after the first
  // Decode calls per second of decode_seconds; 0 when there was none.
  double tokens_per_second = 0;
};

// Gets the text as it becomes certain: whole UTF-8 characters, never a part of a stop string.
// Returns false to end the generation.
using TextSink = std::function<bool(std::string_view piece)>;

// What ends an answer by default: eos_token_id (a number or a list) of generation_config.json, or
// else of config.json, or else the tokenizer's EOS.
std::vector<std::int32_t> default_stop_ids(const Session& session);

// kUsage for an empty or too long prompt, ids outside the vocabulary, an encoder, or stop strings
// without a tokenizer; kCorrupt when the model gives NaN. Without a tokenizer `text` stays empty.
GenerateResult generate(const Session& session, const std::vector<std::int32_t>& prompt,
                        const GenerateOptions& options, const TextSink& sink = {});

}  // namespace nibble
