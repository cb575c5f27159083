#include "runtime/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <utility>

#include "base/error.h"
#include "runtime/text_output.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Smallest cache of a generation: growing copies everything, so very small steps would not pay.
constexpr std::int64_t kMinCapacity = 256;

// The cache of one sequence: grown by doubling up to the context, and checked for overflow.
class GrowingCache {
 public:
  GrowingCache(const Model& model, KvFormat format, std::int64_t first, std::int64_t limit)
      : spec_(model.spec()),
        limit_(limit),
        cache_(spec_, std::min(limit, round_up(first)), format, model.backend().memory()) {}

  // Room for `rows` more.
  KvCache& reserve(std::int64_t rows) {
    const std::int64_t needed = cache_.size() + rows;
    if (needed > cache_.capacity()) {
      cache_.grow(std::min(limit_, std::max(round_up(needed), 2 * cache_.capacity())));
    }
    return cache_;
  }

  // Rows from `begin` on. A value beyond the range of F16 became infinity when it was stored; it
  // would distort the attention without a trace.
  void require_finite(std::int64_t begin) {
    for (std::int64_t layer = 0; layer < spec_.layers; ++layer) {
      if (cache_.overflowed(layer, begin)) {
        fail(ErrorKind::kUnsupported,
             "generate: keys or values of layer {} are beyond the range of an F16 KV cache; use a "
             "BF16 or F32 one",
             layer);
      }
    }
  }

 private:
  static std::int64_t round_up(std::int64_t rows) { return std::max(rows, kMinCapacity); }

  const ModelSpec& spec_;
  std::int64_t limit_;
  KvCache cache_;
};

// What one call over some tokens gives: logits of the last one, or only the token that follows.
struct NextToken {
  std::int32_t chosen = -1;
  Tensor logits;
};

// Without a choice: the logits.
NextToken forward(const Model& model, GrowingCache& cache, std::vector<std::int32_t> ids,
                  const std::optional<TokenChoice>& choice) {
  KvCache& kv = cache.reserve(static_cast<std::int64_t>(ids.size()));
  const std::int64_t begin = kv.size();
  const Batch batch = Batch::single(std::move(ids), &kv);
  NextToken next;
  if (choice) {
    next.chosen = model.choose_tokens(batch, std::span(&*choice, 1)).front();
  } else {
    next.logits = model.last_logits(batch);
  }
  cache.require_finite(begin);
  return next;
}

NextToken prefill(const Model& model, GrowingCache& cache, const std::vector<std::int32_t>& prompt,
                  std::int64_t chunk, const std::optional<TokenChoice>& choice) {
  NextToken next;
  for (std::size_t at = 0; at < prompt.size();) {
    const std::size_t end = std::min(prompt.size(), at + static_cast<std::size_t>(chunk));
    next = forward(model, cache, {prompt.begin() + at, prompt.begin() + end}, choice);
    at = end;
  }
  return next;
}

// What the backend is to choose by; none when it takes more than the logits.
std::optional<TokenChoice> backend_choice(Sampler& sampler) {
  if (!sampler.needs_only_logits()) return std::nullopt;
  return sampler.choice();
}

std::int32_t choose(Sampler& sampler, const NextToken& next,
                    const std::vector<std::int32_t>& context) {
  if (sampler.needs_only_logits()) return sampler.accept(next.chosen);
  const auto vocab = static_cast<std::size_t>(next.logits.elements());
  return sampler.sample({next.logits.data<float>(), vocab}, context);
}

// Shows the text of an answer, and remembers it.
class ShownText {
 public:
  ShownText(const Tokenizer* tokenizer, const std::vector<std::string>& stop, const TextSink& sink)
      : output_(tokenizer, stop), sink_(sink) {}

  // False when the generation should end.
  bool push(std::int32_t id) {
    emit(output_.push(id));
    return !cancelled_ && !output_.stopped();
  }

  void flush() {
    if (!cancelled_) emit(output_.flush());
  }

  bool stopped() const { return output_.stopped(); }
  bool cancelled() const { return cancelled_; }
  std::string take_text() { return std::move(text_); }

 private:
  void emit(const std::string& piece) {
    text_ += piece;
    if (!piece.empty() && sink_ && !sink_(piece)) cancelled_ = true;
  }

  TextOutput output_;
  const TextSink& sink_;
  std::string text_;
  bool cancelled_ = false;
};

std::int64_t context_limit(const ModelSpec& spec, const GenerateOptions& options,
                           std::int64_t prompt) {
  if (options.context > 0) return options.context;
  if (spec.max_positions > 0) return spec.max_positions;
  return prompt + options.max_new_tokens;
}

void require_usable(const Session& session, const std::vector<std::int32_t>& prompt,
                    const GenerateOptions& options) {
  const ModelSpec& spec = session.model->spec();
  if (!spec.decoder) {
    fail(ErrorKind::kUsage, "generate: {} is an encoder, it cannot generate text", spec.arch);
  }
  if (prompt.empty()) {
    fail(ErrorKind::kUsage, "generate: the prompt is empty and the tokenizer adds no BOS token");
  }
  if (options.max_new_tokens < 0 || options.context < 0 || options.prefill_chunk < 1) {
    fail(ErrorKind::kUsage, "generate: token counts may not be negative");
  }
  if (!options.stop.empty()) session.require_tokenizer();
  const auto size = static_cast<std::int64_t>(prompt.size());
  const std::int64_t limit = context_limit(spec, options, size);
  if (size > limit) {
    fail(ErrorKind::kUsage, "generate: the prompt has {} tokens, the context only {}", size, limit);
  }
  for (const std::int32_t id : prompt) {
    if (id < 0 || id >= spec.vocab) {
      fail(ErrorKind::kUsage, "generate: token id {} is outside the vocabulary of {}", id,
           spec.vocab);
    }
  }
}

void append_ids(const Json& value, std::int64_t vocab, std::vector<std::int32_t>& ids) {
  if (value.is_array()) {
    for (const Json& element : value) append_ids(element, vocab, ids);
  } else if (value.is_number_integer()) {
    const auto id = value.get<std::int64_t>();
    if (id >= 0 && id < vocab) ids.push_back(static_cast<std::int32_t>(id));
  }
}

}  // namespace

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  fail(ErrorKind::kInternal, "unknown finish reason {}", static_cast<int>(reason));
}

std::vector<std::int32_t> default_stop_ids(const Session& session) {
  std::vector<std::int32_t> ids;
  for (const Json* config : {&session.generation_config, &session.config}) {
    const auto at = config->find("eos_token_id");
    if (at != config->end()) append_ids(*at, session.model->spec().vocab, ids);
    if (!ids.empty()) return ids;
  }
  if (session.tokenizer != nullptr && session.tokenizer->eos().has_value()) {
    ids.push_back(*session.tokenizer->eos());
  }
  return ids;
}

GenerateResult generate(const Session& session, const std::vector<std::int32_t>& prompt,
                        const GenerateOptions& options, const TextSink& sink) {
  require_usable(session, prompt, options);
  const Model& model = *session.model;
  const auto prompt_size = static_cast<std::int64_t>(prompt.size());
  const std::int64_t limit = context_limit(model.spec(), options, prompt_size);
  Sampler sampler(options.sampling);
  ShownText output(session.tokenizer.get(), options.stop, sink);
  GenerateResult result;
  result.prompt_tokens = prompt_size;
  const std::int64_t most = std::min(options.max_new_tokens, limit - prompt_size);
  if (most == 0) return result;

  GrowingCache cache(model, session.kv_type, prompt_size, limit);
  auto start = Clock::now();
  NextToken next = prefill(model, cache, prompt, options.prefill_chunk, backend_choice(sampler));
  result.prefill_seconds = seconds_since(start);

  std::vector<std::int32_t> context = prompt;
  std::int64_t decoded = 0;
  start = Clock::now();
  while (true) {
    const std::int32_t id = choose(sampler, next, context);
    if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) {
      result.finish_reason = FinishReason::kStop;
      break;
    }
    context.push_back(id);
    if (!output.push(id)) break;
    if (static_cast<std::int64_t>(context.size()) - prompt_size == most) break;
    next = forward(model, cache, {id}, backend_choice(sampler));
    ++decoded;
  }
  result.decode_seconds = seconds_since(start);

  output.flush();
  if (output.stopped()) result.finish_reason = FinishReason::kStop;
  if (output.cancelled()) result.finish_reason = FinishReason::kCancelled;
  result.text = output.take_text();
  result.ids.assign(context.begin() + prompt_size, context.end());
  if (decoded > 0) result.tokens_per_second = static_cast<double>(decoded) / result.decode_seconds;
  return result;
}

}  // namespace nibble
