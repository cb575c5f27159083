// The model that a server serves, and what its endpoints share.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/tokenizer/tokenizer.h"
#include "runtime/embedder.h"
#include "runtime/engine.h"
#include "server/completion_request.h"
#include "server/generation_request.h"
#include "server/metrics.h"
#include "server/token_text.h"

namespace nibble::server {

struct ServiceOptions {
  std::vector<std::string> names;            // of the model; answers carry the first
  std::optional<std::string> chat_template;  // none: fallback_chat_template()
  RequestDefaults defaults;
  std::vector<std::string> api_keys;          // none: everybody may
  std::optional<std::uint64_t> default_seed;  // of requests without one; none: another each time
  bool normalize_embeddings = true;           // unless a request says otherwise
};

// Thread-safe. Keeps references to the tokenizer and to what runs the model: an engine for a
// decoder, an embedder for an encoder.
class Service {
 public:
  Service(const Tokenizer& tokenizer, Engine& engine, ServiceOptions options);
  Service(const Tokenizer& tokenizer, Embedder& embedder, ServiceOptions options);

  const Tokenizer& tokenizer() const { return tokenizer_; }
  // ApiError 400 when the model is of the other kind.
  Engine& engine() const;
  Embedder& embedder() const;
  EngineStats stats() const;
  std::int64_t max_model_len() const;
  const ServiceOptions& options() const { return options_; }
  const std::string& name() const { return options_.names.front(); }
  const TokenText& token_text() const { return token_text_; }
  Metrics& metrics() { return metrics_; }
  std::int64_t started() const { return started_; }  // seconds since 1970

  // ApiError 404 unless `model` is one of our names or empty.
  void require_model(const std::string& model) const;
  // Whether an Authorization header carries one of the keys; takes the same time for every header
  // of one length.
  bool authorized(const std::string& authorization) const;

  std::vector<std::int32_t> encode(const Prompt& prompt, bool add_special) const;
  // A conversation (read_conversation()) as the prompt that the chat template makes of it.
  std::string render(nlohmann::ordered_json conversation) const;

  // The requests of `count` answers to one prompt: its length is checked, seeds are spread.
  // max_tokens is `wanted`, or else what the context leaves, or `fallback` if that is less.
  std::vector<EngineRequest> requests(const GenerationRequest& common,
                                      std::vector<std::int32_t> prompt, std::int64_t count,
                                      std::optional<std::int64_t> fallback);

  // "cmpl-" and a number nobody else has.
  std::string new_id(const std::string& prefix);

 private:
  Service(const Tokenizer& tokenizer, Engine* engine, Embedder* embedder, ServiceOptions options);
  std::uint64_t next_random();

  const Tokenizer& tokenizer_;
  Engine* const engine_;  // this or the next is null
  Embedder* const embedder_;
  ServiceOptions options_;
  TokenText token_text_;
  Metrics metrics_;
  std::int64_t started_;
  std::uint64_t salt_;
  std::atomic<std::uint64_t> counter_ = 0;
};

}  // namespace nibble::server
