#include "server/service.h"

#include <algorithm>
#include <ctime>
#include <random>
#include <string_view>
#include <utility>

#include "base/split_mix.h"
#include "model/tokenizer/chat_template.h"
#include "server/api_error.h"

namespace nibble::server {
namespace {

constexpr std::string_view kBearer = "Bearer ";

// Every byte of `sent` is looked at, whatever the first difference is.
bool same_key(std::string_view sent, const std::string& key) {
  unsigned difference = sent.size() == key.size() ? 0 : 1;
  for (std::size_t i = 0; i < sent.size(); ++i) {
    const char expected = key[i % key.size()];
    difference |= static_cast<unsigned char>(sent[i]) ^ static_cast<unsigned char>(expected);
  }
  return difference == 0;
}

std::string piece_or_empty(const Tokenizer& tokenizer, std::optional<std::int32_t> id) {
  return id ? tokenizer.piece(*id) : "";
}

}  // namespace

Service::Service(const Tokenizer& tokenizer, Engine& engine, ServiceOptions options)
    : Service(tokenizer, &engine, nullptr, std::move(options)) {}

Service::Service(const Tokenizer& tokenizer, Embedder& embedder, ServiceOptions options)
    : Service(tokenizer, nullptr, &embedder, std::move(options)) {}

Service::Service(const Tokenizer& tokenizer, Engine* engine, Embedder* embedder,
                 ServiceOptions options)
    : tokenizer_(tokenizer),
      engine_(engine),
      embedder_(embedder),
      options_(std::move(options)),
      token_text_(tokenizer),
      started_(std::time(nullptr)),
      salt_((std::uint64_t{std::random_device{}()} << 32) | std::random_device{}()) {
  NIBBLE_CHECK(!options_.names.empty());
  for (const std::string& key : options_.api_keys) {
    if (key.empty()) fail(ErrorKind::kUsage, "serve: an API key is empty");
  }
}

Engine& Service::engine() const {
  if (engine_ != nullptr) return *engine_;
  throw ApiError(400, "this model is an encoder and makes no text; it has /v1/embeddings", "model");
}

Embedder& Service::embedder() const {
  if (embedder_ != nullptr) return *embedder_;
  throw ApiError(400, "this model is a decoder and makes no embeddings; serve an encoder", "model");
}

EngineStats Service::stats() const {
  return engine_ != nullptr ? engine_->stats() : embedder_->stats();
}

std::int64_t Service::max_model_len() const {
  return engine_ != nullptr ? engine_->max_model_len() : embedder_->max_model_len();
}

void Service::require_model(const std::string& model) const {
  const auto& names = options_.names;
  if (model.empty() || std::find(names.begin(), names.end(), model) != names.end()) return;
  throw ApiError(404,
                 fmt::format("the model '{}' does not exist; this server has '{}'", model, name()),
                 "model", "model_not_found");
}

bool Service::authorized(const std::string& authorization) const {
  if (options_.api_keys.empty()) return true;
  if (!authorization.starts_with(kBearer)) return false;
  const std::string_view sent = std::string_view(authorization).substr(kBearer.size());
  bool any = false;
  for (const std::string& key : options_.api_keys) any |= same_key(sent, key);
  return any;
}

std::vector<std::int32_t> Service::encode(const Prompt& prompt, bool add_special) const {
  if (const auto* ids = std::get_if<std::vector<std::int32_t>>(&prompt)) return *ids;
  return tokenizer_.encode(std::get<std::string>(prompt), {.add_special = add_special});
}

std::string Service::render(nlohmann::ordered_json conversation) const {
  conversation["bos_token"] = piece_or_empty(tokenizer_, tokenizer_.bos());
  conversation["eos_token"] = piece_or_empty(tokenizer_, tokenizer_.eos());
  const std::string_view text =
      options_.chat_template ? *options_.chat_template : fallback_chat_template();
  try {
    return apply_chat_template(text, conversation);
  } catch (const Error& error) {
    // The same template serves other conversations: what it cannot do with this one is its fault.
    throw ApiError(400, error.what(), "messages");
  }
}

std::vector<EngineRequest> Service::requests(const GenerationRequest& common,
                                             std::vector<std::int32_t> prompt, std::int64_t count,
                                             std::optional<std::int64_t> fallback) {
  const std::int64_t context = engine().max_model_len();
  const std::int64_t left = context - static_cast<std::int64_t>(prompt.size());
  if (prompt.empty()) throw ApiError(400, "the prompt has no tokens", "prompt");
  if (left < 1) {
    throw ApiError(
        400,
        fmt::format("the prompt has {} tokens; this model's context of {} leaves no room "
                    "for an answer",
                    prompt.size(), context),
        "prompt", "context_length_exceeded");
  }
  EngineRequest request = common.engine;
  request.max_tokens = std::min(left, common.max_tokens.value_or(fallback.value_or(left)));
  request.max_tokens = std::max<std::int64_t>(request.max_tokens, 1);
  if (request.min_tokens > request.max_tokens) {
    refuse_member("min_tokens",
                  fmt::format("is {}, more than the {} tokens that the answer may have",
                              request.min_tokens, request.max_tokens));
  }
  if (!common.seeded) request.sampling.seed = options_.default_seed.value_or(next_random());
  request.prompt = std::move(prompt);
  std::vector<EngineRequest> requests(static_cast<std::size_t>(count), request);
  for (std::size_t i = 0; i < requests.size(); ++i) requests[i].sampling.seed += i;
  return requests;
}

// A stream that starts anywhere.
std::uint64_t Service::next_random() { return random_word(salt_, counter_++); }

std::string Service::new_id(const std::string& prefix) {
  return fmt::format("{}-{:016x}{:016x}", prefix, next_random(), next_random());
}

}  // namespace nibble::server
