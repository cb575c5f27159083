#include "server/generation_request.h"

#include <charconv>
#include <limits>
#include <string_view>
#include <utility>

#include "server/api_error.h"

namespace nibble::server {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 31;

// Members that would change the answer in ways this server does not know. Leaving them unread would
// give an answer that is silently another than asked for.
constexpr std::pair<std::string_view, std::string_view> kNotBuilt[] = {
    {"use_beam_search", "beam search is not supported"},
    {"bad_words", "bad_words is not supported; logit_bias forbids single tokens"},
    {"allowed_token_ids", "allowed_token_ids is not supported; logit_bias favours tokens"},
    {"mirostat", "mirostat is not supported"},
    {"functions", "functions is not supported; use tools"},
    {"function_call", "function_call is not supported; use tool_choice"},
};

// false, 0, an empty list and the like ask for nothing.
bool asks_for_something(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  return !value.empty();
}

void refuse_not_built(Fields& fields) {
  for (const auto& [name, why] : kNotBuilt) {
    const Json* value = fields.find(name);
    if (value != nullptr && asks_for_something(*value)) {
      refuse_member(std::string(name), std::string(why));
    }
  }
}

void read_bias(Fields& fields, std::int64_t vocab, SamplingOptions& sampling) {
  const Json* bias = fields.find("logit_bias");
  if (bias == nullptr) return;
  if (!bias->is_object() || bias->size() > kMostBiases) {
    refuse_member("logit_bias",
                  fmt::format("must be an object of at most {} tokens and numbers", kMostBiases));
  }
  for (const auto& [key, value] : bias->items()) {
    std::int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= vocab) {
      refuse_member("logit_bias",
                    fmt::format("'{}' is not a token of this model's {}", key, vocab));
    }
    for (const auto& earlier : sampling.logit_bias) {
      if (earlier.first == id) refuse_member("logit_bias", "names token " + key + " twice");
    }
    const double number = value.is_number() ? value.get<double>() : 1000;
    if (!(number >= -100 && number <= 100)) {
      refuse_member("logit_bias", "values must be numbers of -100 to 100");
    }
    sampling.logit_bias.emplace_back(id, static_cast<float>(number));
  }
}

void read_sampling(Fields& fields, std::int64_t vocab, SamplingOptions& sampling) {
  const auto set = [&](float& target, const char* name, double least, double most) {
    if (const auto value = fields.number(name, least, most)) target = static_cast<float>(*value);
  };
  constexpr double kTiny = std::numeric_limits<float>::min();
  set(sampling.temperature, "temperature", 0, 100);
  set(sampling.top_p, "top_p", kTiny, 1);
  set(sampling.min_p, "min_p", 0, 1);
  set(sampling.typical_p, "typical_p", kTiny, 1);
  set(sampling.repetition_penalty, "repetition_penalty", 1e-3, 1e3);
  set(sampling.frequency_penalty, "frequency_penalty", -2, 2);
  set(sampling.presence_penalty, "presence_penalty", -2, 2);
  // -1 and 0 both mean "all" to clients of vLLM.
  if (const auto k = fields.integer("top_k", -1, kMostTokens)) sampling.top_k = *k < 0 ? 0 : *k;
  read_bias(fields, vocab, sampling);
}

void read_stream(Fields& fields, GenerationRequest& request) {
  request.stream = fields.boolean("stream").value_or(false);
  const Json* options = fields.find("stream_options");
  if (options == nullptr) return;
  if (!request.stream) refuse_member("stream_options", "needs \"stream\": true");
  if (!options->is_object()) refuse_member("stream_options", "must be an object");
  Fields inside(*options);
  request.include_usage = inside.boolean("include_usage").value_or(false);
}

// Members that say nothing about the answer's text, and so are taken and left.
void skip_bookkeeping(Fields& fields) {
  for (const char* name :
       {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention", "verbosity", "prediction", "cache_prompt", "request_id"}) {
    fields.find(name);
  }
}

}  // namespace

GenerationRequest read_generation(Fields& fields, const RequestDefaults& defaults) {
  GenerationRequest request;
  refuse_not_built(fields);
  request.model = fields.text("model").value_or("");
  request.n = fields.integer("n", 1, kMostChoices).value_or(1);
  request.max_tokens = fields.integer("max_tokens", 0, kMostTokens);
  request.tokens_as_ids = fields.boolean("return_tokens_as_token_ids").value_or(false);
  read_stream(fields, request);

  EngineRequest& engine = request.engine;
  engine.sampling = defaults.sampling;
  read_sampling(fields, defaults.vocab, engine.sampling);
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  if (const auto seed = fields.integer("seed", kLeast, kMost)) {
    engine.sampling.seed = static_cast<std::uint64_t>(*seed);
    request.seeded = true;
  }
  engine.min_tokens = fields.integer("min_tokens", 0, kMostTokens).value_or(0);
  engine.stop = fields.texts("stop", kMostStops, kLongestStop);
  engine.stop_ids = fields.ids("stop_token_ids", kMostStopIds, defaults.vocab);
  engine.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  engine.priority =
      static_cast<std::int32_t>(fields.integer("priority", INT32_MIN, INT32_MAX).value_or(0));
  skip_bookkeeping(fields);
  return request;
}

SamplingOptions default_sampling(const Json& generation_config) {
  SamplingOptions sampling;
  sampling.temperature = 1;
  const auto set = [&](auto& target, const char* name) {
    const auto at = generation_config.find(name);
    if (at == generation_config.end() || at->is_null()) return;
    if (!at->is_number()) {
      fail(ErrorKind::kCorrupt, "generation_config.json: '{}' is not a number", name);
    }
    target = at->get<std::remove_reference_t<decltype(target)>>();
  };
  set(sampling.temperature, "temperature");
  set(sampling.top_k, "top_k");
  set(sampling.top_p, "top_p");
  set(sampling.min_p, "min_p");
  set(sampling.typical_p, "typical_p");
  set(sampling.repetition_penalty, "repetition_penalty");
  validate(sampling);
  return sampling;
}

}  // namespace nibble::server
