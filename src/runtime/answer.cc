#include "runtime/answer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/grammar/guide.h"

namespace nibble {

Answer::Answer(EngineRequest request, UpdateSink sink, Outbox& outbox, const Tokenizer* tokenizer,
               const std::vector<std::int32_t>& model_stop_ids,
               std::unique_ptr<grammar::Guide> guide)
    : request_(std::move(request)),
      outbox_(&outbox),
      output_(std::make_shared<AnswerOutput>(AnswerOutput{
          TextOutput(tokenizer, request_.stop), std::move(sink), !request_.stop.empty()})),
      stop_ids_(request_.stop_ids),
      sampler_(request_.sampling),
      guide_(std::move(guide)) {
  if (!request_.ignore_eos) {
    stop_ids_.insert(stop_ids_.end(), model_stop_ids.begin(), model_stop_ids.end());
  }
  if (request_.prompt_logprobs) update_.prompt_tokens.push_back({{request_.prompt.front(), 0}, {}});
}

Answer::~Answer() = default;
Answer::Answer(Answer&&) noexcept = default;

void Answer::begin() {
  if (std::exchange(begun_, true)) return;
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - made_;
  update_.queue_seconds = waited.count();
}

void Answer::score_prompt(std::int64_t first, std::span<const float> logits, std::int64_t vocab) {
  const auto width = static_cast<std::size_t>(vocab);
  for (auto next = static_cast<std::size_t>(first) + 1;
       !logits.empty() && next < request_.prompt.size(); ++next) {
    if (next == scored_) {  // and not again, when a preempted prompt is computed anew
      update_.prompt_tokens.push_back(
          logprobs_of(logits.first(width), request_.prompt[next], request_.logprobs));
      ++scored_;
    }
    logits = logits.subspan(width);
  }
}

void Answer::forbid_stopping(std::span<float> logits) const {
  for (const std::int32_t id : stop_ids_) {
    if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) continue;
    logits[static_cast<std::size_t>(id)] = -std::numeric_limits<float>::infinity();
  }
}

std::optional<std::int32_t> Answer::choose(std::span<float> logits,
                                           std::span<const std::int32_t> tokens) {
  std::vector<float> own;  // the model's distribution, if it is wanted
  if (request_.logprobs >= 0) own.assign(logits.begin(), logits.end());
  if (guide_ != nullptr) {
    guide_->restrict(logits, stop_ids_, !must_go_on());
  } else if (must_go_on()) {
    forbid_stopping(logits);
  }
  const std::int32_t id = sampler_.sample(logits, tokens);
  return append(own.empty() ? EngineToken{{id, 0}, {}} : logprobs_of(own, id, request_.logprobs));
}

bool Answer::needs_only_logits(std::int64_t ahead) const {
  return sampler_.needs_only_logits() && request_.logprobs < 0 && !must_go_on(ahead) &&
         guide_ == nullptr;
}

std::optional<std::int32_t> Answer::accept(std::int32_t chosen) {
  return append({{sampler_.accept(chosen), 0}, {}});
}

std::optional<std::int32_t> Answer::append(EngineToken token) {
  const std::int32_t id = token.chosen.id;
  if (std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end()) {
    stopped_ = true;
    return std::nullopt;
  }
  if (guide_ != nullptr) {
    guide_->accept(id);
    stopped_ = guide_->complete();
  }
  ++generated_;
  update_.tokens.push_back(std::move(token));
  if (output_->text_decides) {
    update_.text += output_->text.push(id, generated_ >= request_.min_tokens);
  }
  return id;
}

bool Answer::send(std::int64_t cached_prompt_tokens) {
  if (stopped_ || stopped_by_text()) {
    update_.finish = FinishReason::kStop;
  } else if (generated_ >= request_.max_tokens) {
    update_.finish = FinishReason::kLength;
  }
  if (update_.finish.has_value() && output_->text_decides) {
    update_.text += output_->text.flush();
    // What was held back may hold a stop string to the end.
    if (output_->text.stopped()) update_.finish = FinishReason::kStop;
  }
  const bool ended = update_.finish.has_value();
  update_.cached_prompt_tokens = cached_prompt_tokens;
  outbox_->post(output_, std::exchange(update_, {}));
  return ended;
}

void Answer::end(std::optional<Error> error) {
  if (output_->text_decides) update_.text += output_->text.flush();
  update_.finish = FinishReason::kCancelled;
  update_.error = std::move(error);
  outbox_->post(output_, std::exchange(update_, {}));
}

}  // namespace nibble
