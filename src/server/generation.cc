#include "server/generation.h"

#include <utility>

namespace nibble::server {
namespace {

double seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

Json GenerationUsage::to_json() const {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", cached_tokens}}}};
}

Generation::Generation(Service& service, std::shared_ptr<Exchange> exchange,
                       GenerationEvents events)
    : service_(service), exchange_(std::move(exchange)), events_(std::move(events)) {}

void Generation::start(Service& service, std::shared_ptr<Exchange> exchange,
                       std::vector<EngineRequest> requests, GenerationEvents events) {
  const std::shared_ptr<Generation> generation(
      new Generation(service, std::move(exchange), std::move(events)));
  generation->submit(std::move(requests));
}

void Generation::submit(std::vector<EngineRequest> requests) {
  all_.resize(requests.size());
  running_ = requests.size();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    all_[i].prompt_tokens = static_cast<std::int64_t>(requests[i].prompt.size());
    try {
      // The engine's thread hands over and goes on.
      all_[i].id = service_.engine().submit(
          std::move(requests[i]), [self = shared_from_this(), i](EngineUpdate update) {
            self->exchange_->post([self, i, update = std::move(update)]() mutable {
              self->receive(i, std::move(update));
            });
          });
    } catch (const Error& error) {
      over_ = true;
      for (std::size_t later = i; later < all_.size(); ++later) all_[later].ended = true;
      cancel();
      if (error.kind() != ErrorKind::kUnsupported) throw to_api_error(error);
      throw ApiError(429, error.what(), "", "queue_full");
    }
  }
  exchange_->on_gone([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->over_ = true;  // the events stay: one of them may be running just now
    self->cancel();
  });
}

void Generation::cancel() {
  for (const One& one : all_) {
    if (!one.ended) service_.engine().cancel(one.id);
  }
}

void Generation::measure(One& one, const EngineUpdate& update) {
  Metrics& metrics = service_.metrics();
  const auto now = std::chrono::steady_clock::now();
  if (one.tokens == 0 && !update.tokens.empty()) {
    metrics.time_to_first_token.observe(seconds(now - start_));
    metrics.queue.observe(update.queue_seconds);
  } else if (!update.tokens.empty()) {
    // Tokens that come together share the time since the last ones.
    const double each = seconds(now - one.last) / static_cast<double>(update.tokens.size());
    for (std::size_t i = 0; i < update.tokens.size(); ++i) metrics.inter_token.observe(each);
  }
  if (!update.tokens.empty()) one.last = now;
  one.tokens += static_cast<std::int64_t>(update.tokens.size());
}

void Generation::end(One& one, const EngineUpdate& update) {
  one.ended = true;
  --running_;
  Metrics& metrics = service_.metrics();
  const bool aborted = update.finish == FinishReason::kCancelled;
  metrics.count_finished(update.error ? "error" : aborted ? "abort" : to_string(*update.finish));
  if (aborted) return;
  metrics.end_to_end.observe(seconds(std::chrono::steady_clock::now() - start_));
  metrics.prompt_tokens.observe(static_cast<double>(one.prompt_tokens));
  metrics.generation_tokens.observe(static_cast<double>(one.tokens));
}

void Generation::receive(std::size_t index, EngineUpdate update) {
  One& one = all_[index];
  measure(one, update);
  if (update.finish) end(one, update);
  if (over_) return;
  if (update.error) {  // a grammar may turn out to be too ambiguous on the way
    return fail_all(update.error->kind() == ErrorKind::kUsage
                        ? to_api_error(*update.error)
                        : ApiError(500, update.error->what()));
  }
  if (update.finish == FinishReason::kCancelled) {
    return fail_all(ApiError(503, "the server is shutting down"));
  }
  try {
    events_.update(index, update);
  } catch (const std::exception& error) {  // out of memory, say: others go on
    return fail_all(ApiError(500, error.what()));
  }
  if (running_ > 0 || over_) return;
  over_ = true;
  const GenerationEvents events = std::exchange(events_, {});
  events.done();
}

void Generation::fail_all(const ApiError& error) {
  over_ = true;
  const GenerationEvents events = std::exchange(events_, {});
  cancel();
  events.failed(error);
}

}  // namespace nibble::server
