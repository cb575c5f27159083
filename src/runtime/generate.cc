#include "runtime/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "runtime/chosen_tokens.h"
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

// The tokens of one sequence, each chosen by a call over the one before. Where the backend chooses
// them and works beside the host, the next call is issued before its token has come to the host.
class Decoder {
 public:
  Decoder(const Session& session, const SamplingOptions& sampling, std::int64_t prompt,
          std::int64_t limit)
      : model_(*session.model),
        sampler_(sampling),
        on_backend_(sampler_.needs_only_logits()),
        // Keys and values of F16 are looked at after every call.
        ahead_(on_backend_ && model_.runs_beside_host() && session.kv_type.type != KvType::kF16),
        chosen_(model_, 1),
        cache_(model_, session.kv_type, prompt, limit) {}

  void prefill(const std::vector<std::int32_t>& prompt, std::int64_t chunk) {
    for (std::size_t at = 0; at < prompt.size();) {
      if (at > 0) end_call();
      const std::size_t end = std::min(prompt.size(), at + static_cast<std::size_t>(chunk));
      begin_call({prompt.begin() + at, prompt.begin() + end});
      at = end;
    }
    context_ = prompt;
  }

  // The token that follows. `more`: the one after it may be asked for.
  std::int32_t next(bool more) {
    if (!running_) begin_call({context_.back()});
    const bool goes_on = more && ahead_;
    if (goes_on) begin_call({-1});
    const std::int32_t chosen = end_call();
    running_ = goes_on;
    const auto vocab = static_cast<std::size_t>(logits_.elements());
    context_.push_back(on_backend_ ? sampler_.accept(chosen)
                                   : sampler_.sample({logits_.data<float>(), vocab}, context_));
    return context_.back();
  }

 private:
  void begin_call(std::vector<std::int32_t> ids) {
    KvCache& kv = cache_.reserve(std::ssize(ids));
    begin_ = kv.size();
    Batch batch = Batch::single(std::move(ids), &kv);
    running_ = true;
    if (on_backend_) {
      const TokenChoice choice = sampler_.choice(static_cast<std::size_t>(chosen_.under_way()));
      chosen_.issue(batch, {&choice, 1});
    } else {
      logits_ = model_.last_logits(batch);
    }
  }

  // What the oldest call chose; -1 when that is done by its logits.
  std::int32_t end_call() {
    const std::int32_t chosen = on_backend_ ? chosen_.receive().front() : -1;
    cache_.require_finite(begin_);
    return chosen;
  }

  const Model& model_;
  Sampler sampler_;
  const bool on_backend_;  // without its logits on the host
  const bool ahead_;
  ChosenTokens chosen_;
  GrowingCache cache_;
  std::vector<std::int32_t> context_;
  Tensor logits_;
  std::int64_t begin_ = 0;  // of the call that was issued last
  bool running_ = false;    // whether the call is issued that gives the next token
};

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
  const auto prompt_size = static_cast<std::int64_t>(prompt.size());
  const std::int64_t limit = context_limit(session.model->spec(), options, prompt_size);
  ShownText output(session.tokenizer.get(), options.stop, sink);
  GenerateResult result;
  result.prompt_tokens = prompt_size;
  const std::int64_t most = std::min(options.max_new_tokens, limit - prompt_size);
  validate(options.sampling);
  if (most == 0) return result;

  Decoder decoder(session, options.sampling, prompt_size, limit);
  auto start = Clock::now();
  decoder.prefill(prompt, options.prefill_chunk);
  std::int32_t id = decoder.next(most > 1);
  result.prefill_seconds = seconds_since(start);

  std::int64_t decoded = 0;
  start = Clock::now();
  while (true) {
    if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) {
      result.finish_reason = FinishReason::kStop;
      break;
    }
    result.ids.push_back(id);
    const std::int64_t got = std::ssize(result.ids);
    if (!output.push(id) || got == most) break;
    id = decoder.next(got + 1 < most);
    ++decoded;
  }
  result.decode_seconds = seconds_since(start);

  output.flush();
  if (output.stopped()) result.finish_reason = FinishReason::kStop;
  if (output.cancelled()) result.finish_reason = FinishReason::kCancelled;
  result.text = output.take_text();
  if (decoded > 0) result.tokens_per_second = static_cast<double>(decoded) / result.decode_seconds;
  return result;
}

}  // namespace nibble
