// Many requests on one model at once: continuous batching, chunked prefill, a shared cache of keys
// and values. Text and tokens come back as they are made.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "runtime/draft.h"
#include "runtime/generate.h"
#include "runtime/grammar/spec.h"
#include "runtime/logprobs.h"

namespace nibble {

struct EngineOptions {
  std::int64_t max_model_len =
      0;  // tokens of prompt and answer together; 0 = the model's own limit
  // Of keys and values; 0: on the host half of the memory that is free, on a card by the next two.
  std::size_t kv_cache_bytes = 0;
  double memory_utilization = 0.9;  // share of a card's memory for weights, cache and steps; (0, 1]
  std::size_t device_bytes = 0;  // what was free there before the model came; 0: what is free now
  // Of the host's memory, for keys and values of requests that are put back; 0: those are computed
  // again.
  std::size_t swap_bytes = 0;
  std::int64_t max_num_seqs = 64;  // requests that run at once; others wait
  // Rows of one step: tokens of prompts and one token of each running answer together.
  std::int64_t max_num_batched_tokens = 1024;
  std::int64_t block_size = 64;  // tokens that share a block of the cache
  bool enable_prefix_caching = true;
  std::int64_t max_waiting = 4096;  // requests that wait; more are refused
  SpeculativeOptions speculative;
  const Session* draft = nullptr;  // guesses for it; null: what the text itself holds
};

struct EngineRequest {
  std::vector<std::int32_t> prompt;  // not empty
  std::int64_t max_tokens = 16;      // > 0; cut to what max_model_len leaves
  std::int64_t min_tokens = 0;       // no stop id, EOS or stop string ends the answer before
  SamplingOptions sampling;
  std::vector<std::string> stop;       // texts that end the answer, not part of it
  std::vector<std::int32_t> stop_ids;  // tokens that end it, beside the model's own
  bool ignore_eos = false;             // the model's own stop ids do not end it
  // What the answer must fit, if it is not cut off. It ends where nothing can follow, whatever
  // min_tokens says.
  std::optional<grammar::Spec> structure;
  // Log-probabilities of each token of the answer, and of so many of the likeliest instead; of the
  // model's own distribution, before penalties and filters. Negative: none.
  std::int64_t logprobs = -1;
  bool prompt_logprobs = false;  // of the prompt's tokens as well (as many as `logprobs` says)
  std::int32_t priority = 0;     // lower runs first; equal ones in the order of arrival
};

// A token of the answer or of the prompt. The likeliest tokens are there when they were asked for,
// and so is the log-probability.
using EngineToken = TokenLogprobs;

struct EngineUpdate {
  std::string text;                 // what became certain: whole characters, no part of a stop text
  std::vector<EngineToken> tokens;  // of this update; a token may be here before its text is
  std::vector<EngineToken> prompt_tokens;  // once, with the first update; the first has logprob 0
  std::int64_t cached_prompt_tokens = 0;   // of the prompt that the prefix cache had
  double queue_seconds = 0;  // with the first update: from submit() to the request's first step
  // Set in the last update of a request; no other follows.
  std::optional<FinishReason> finish;
  std::optional<Error> error;  // of the request alone; then `finish` is kCancelled
};

// As they were after the last step.
struct EngineStats {
  std::int64_t running = 0;
  std::int64_t waiting = 0;
  double kv_cache_usage = 0;  // [0, 1]: blocks that requests hold
  double swap_usage = 0;      // [0, 1]: blocks of swap_bytes that hold something
  std::int64_t preemptions = 0;
  std::int64_t swapped_tokens = 0;  // of preempted requests, copied out in all
  std::int64_t prompt_tokens = 0;   // computed or taken from the prefix cache, in all
  std::int64_t generation_tokens = 0;
  std::int64_t prefix_cache_queries = 0;  // tokens looked up, and found
  std::int64_t prefix_cache_hits = 0;
  std::int64_t finished = 0;
  std::int64_t guessed_tokens = 0;  // by speculation, and of them the right ones
  std::int64_t right_guesses = 0;
};

// Called on a thread of the engine's, for all requests one after the other, while the next step
// runs: must be quick, must not throw, must not call the engine except for cancel().
using UpdateSink = std::function<void(EngineUpdate)>;
using RequestId = std::uint64_t;

// Thread-safe. The destructor cancels what is left; every request gets its last update.
class Engine {
 public:
  virtual ~Engine() = default;

  // kUsage when the request can never run (empty or too long prompt, ids outside the vocabulary,
  // sampling options out of range, ...), kUnsupported when the queue is full (try later).
  virtual RequestId submit(EngineRequest request, UpdateSink sink) = 0;
  // Ends a request early; its last update says kCancelled. Unknown and finished ones: nothing.
  virtual void cancel(RequestId id) = 0;
  virtual EngineStats stats() const = 0;
  virtual std::int64_t max_model_len() const = 0;
};

// Runs steps on a thread of its own. The session (and that of a draft, which may share its backend)
// must outlive it, and nobody else may use its model meanwhile. kUsage for an encoder or options
// that make no sense, kMemory when the cache cannot hold one block for a request.
std::unique_ptr<Engine> make_engine(const Session& session, const EngineOptions& options);

}  // namespace nibble
