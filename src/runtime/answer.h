// One request of an engine on its way: from logits to the next token and to updates.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "runtime/engine.h"
#include "runtime/outbox.h"

namespace nibble {

namespace grammar {
class Guide;
}

// Not thread-safe; different answers may be used by different threads.
class Answer {
 public:
  // model_stop_ids: tokens that end an answer unless the request ignores them. guide: of the
  // request's structure, or null. Errors of options: kUsage.
  // The outbox must outlive it.
  Answer(EngineRequest request, UpdateSink sink, Outbox& outbox, const Tokenizer* tokenizer,
         const std::vector<std::int32_t>& model_stop_ids, std::unique_ptr<grammar::Guide> guide);
  ~Answer();
  Answer(Answer&&) noexcept;

  const EngineRequest& request() const { return request_; }

  // The request's first step begins.
  void begin();
  // Log-probabilities of prompt tokens: row i of logits [rows, vocab] predicts token first + i + 1
  // of the prompt, as far as there is one.
  void score_prompt(std::int64_t first, std::span<const float> logits, std::int64_t vocab);

  // Whether accept() can take the place of choose() for the token that follows `ahead` others, and
  // for those behind it.
  bool needs_only_logits(std::int64_t ahead = 0) const;
  // How Model::choose_tokens() chooses the token that follows `ahead` others.
  TokenChoice choice(std::size_t ahead) { return sampler_.choice(ahead); }
  // Goes on with its choice; as choose() otherwise.
  std::optional<std::int32_t> accept(std::int32_t chosen);
  // The token that follows `tokens` (prompt and answer so far); `logits` are changed. None when it
  // is a stop token: then the answer has ended. kCorrupt when the logits are broken. Nothing is
  // sent.
  std::optional<std::int32_t> choose(std::span<float> logits, std::span<const std::int32_t> tokens);
  // Tokens that it may still have; whether none will follow; whether there are some.
  std::int64_t tokens_left() const { return request_.max_tokens - generated_; }
  bool over() const { return stopped_ || stopped_by_text() || tokens_left() <= 0; }
  bool begun_to_speak() const { return generated_ > 0; }
  // Sends what there is to send. The answer has ended when this returns true: no more calls then.
  bool send(std::int64_t cached_prompt_tokens);
  // Sends the last update of an answer that ends early.
  void end(std::optional<Error> error);

 private:
  bool stopped_by_text() const { return output_->text_decides && output_->text.stopped(); }
  bool must_go_on(std::int64_t ahead = 0) const { return generated_ + ahead < request_.min_tokens; }
  void forbid_stopping(std::span<float> logits) const;
  // None when it ends the answer.
  std::optional<std::int32_t> append(EngineToken token);

  EngineRequest request_;
  Outbox* outbox_;
  std::shared_ptr<AnswerOutput> output_;
  std::vector<std::int32_t> stop_ids_;
  Sampler sampler_;
  std::unique_ptr<grammar::Guide> guide_;
  EngineUpdate update_;  // the next one
  std::chrono::steady_clock::time_point made_ = std::chrono::steady_clock::now();
  bool begun_ = false;
  std::size_t scored_ = 1;  // tokens of the prompt; nothing predicts the first
  std::int64_t generated_ = 0;
  bool stopped_ = false;  // by a stop token, or because nothing can follow
};

}  // namespace nibble
