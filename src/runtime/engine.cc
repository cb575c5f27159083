#include "runtime/engine.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "model/kv_cache.h"
#include "runtime/answer.h"
#include "runtime/engine_limits.h"
#include "runtime/grammar/guide.h"
#include "runtime/scheduler.h"
#include "runtime/step_line.h"

namespace nibble {
namespace {

void check_options(const ModelSpec& spec, const EngineOptions& options) {
  if (!spec.decoder) {
    fail(ErrorKind::kUsage, "engine: {} is an encoder, it cannot generate text", spec.arch);
  }
  const bool sane = options.max_model_len >= 0 && options.max_num_seqs > 0 &&
                    options.max_num_batched_tokens > 0 && options.block_size > 0 &&
                    options.max_waiting > 0 && options.speculative.tokens >= 0 &&
                    options.speculative.shortest_ngram > 0 &&
                    options.speculative.longest_ngram >= options.speculative.shortest_ngram;
  const bool share = options.memory_utilization > 0 && options.memory_utilization <= 1;
  if (!sane || !share) fail(ErrorKind::kUsage, "engine: sizes must be positive");
}

std::unique_ptr<Drafter> make_drafter(const Session& session, const EngineOptions& options) {
  if (options.speculative.tokens == 0) return nullptr;
  if (options.draft == nullptr) return make_lookup_drafter(options.speculative);
  const std::int64_t vocab = session.model->spec().vocab;
  if (options.draft->model->spec().vocab != vocab) {
    fail(ErrorKind::kUsage,
         "speculation: the draft model has a vocabulary of {} tokens, the model one of {}",
         options.draft->model->spec().vocab, vocab);
  }
  return make_model_drafter(*options.draft);
}

std::int64_t most_tokens_of_step(const EngineOptions& options) {
  return std::min(options.max_num_seqs * (1 + options.speculative.tokens),
                  options.max_num_batched_tokens);
}

// The share of a pool that is held.
double usage(const BlockPool& pool) {
  const auto blocks = static_cast<double>(std::max<std::int64_t>(pool.blocks(), 1));
  return static_cast<double>(pool.blocks() - pool.available()) / blocks;
}

class BatchingEngine : public Engine {
 public:
  BatchingEngine(const Session& session, const EngineOptions& options)
      : session_(session),
        model_(*session.model),
        options_(options),
        limits_(engine_limits(session, options)),
        model_stop_ids_(default_stop_ids(session)),
        guides_(session.tokenizer ? std::make_unique<grammar::GuideMaker>(*session.tokenizer)
                                  : nullptr),
        memory_(model_.spec(), limits_.blocks, limits_.block_rows, session.kv_type,
                model_.backend().memory()),
        kept_memory_(model_.spec(), limits_.kept_blocks, limits_.block_rows, session.kv_type),
        blocks_(limits_.blocks, limits_.block_rows),
        kept_blocks_(limits_.kept_blocks, limits_.block_rows),
        scheduler_(
            {options.max_num_seqs, options.max_num_batched_tokens, options.enable_prefix_caching},
            blocks_, &kept_blocks_),
        runner_(model_, memory_, scheduler_, answers_, most_tokens_of_step(options)),
        line_(model_, runner_, scheduler_, answers_,
              [this](const StepResult& result) { finish_step(result); }),
        drafter_(make_drafter(session, options)),
        governor_(options.speculative.tokens),
        thread_([this] { loop(); }) {}

  ~BatchingEngine() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  RequestId submit(EngineRequest request, UpdateSink sink) override {
    check(request);
    const auto room = limits_.model_len - std::ssize(request.prompt);
    request.max_tokens = std::min(request.max_tokens, room);
    auto guide = request.structure ? guides_->make(*request.structure) : nullptr;
    Answer answer(std::move(request), std::move(sink), outbox_, session_.tokenizer.get(),
                  model_stop_ids_, std::move(guide));
    RequestId id = 0;
    {
      const std::lock_guard lock(mutex_);
      if (stats_.waiting + std::ssize(arrived_) >= options_.max_waiting) {
        fail(ErrorKind::kUnsupported, "engine: {} requests wait already; try again later",
             options_.max_waiting);
      }
      id = ++last_id_;
      arrived_.emplace(id, std::move(answer));
    }
    wake_.notify_one();
    return id;
  }

  void cancel(RequestId id) override {
    {
      const std::lock_guard lock(mutex_);
      cancelled_.push_back(id);
    }
    wake_.notify_one();
  }

  EngineStats stats() const override {
    const std::lock_guard lock(mutex_);
    EngineStats stats = stats_;
    stats.waiting += std::ssize(arrived_);
    return stats;
  }

  std::int64_t max_model_len() const override { return limits_.model_len; }

 private:
  void check(const EngineRequest& request) const {
    const std::int64_t vocab = model_.spec().vocab;
    if (request.prompt.empty()) fail(ErrorKind::kUsage, "the prompt is empty");
    if (std::ssize(request.prompt) >= limits_.model_len) {
      fail(ErrorKind::kUsage, "the prompt has {} tokens, the context only {}, answer included",
           request.prompt.size(), limits_.model_len);
    }
    for (const std::int32_t id : request.prompt) {
      if (id >= 0 && id < vocab) continue;
      fail(ErrorKind::kUsage, "token id {} is outside the vocabulary of {}", id, vocab);
    }
    if (request.max_tokens < 1 || request.min_tokens < 0) {
      fail(ErrorKind::kUsage, "max_tokens must be at least 1 and min_tokens at least 0");
    }
    if (!request.stop.empty() || request.structure) session_.require_tokenizer();
  }

  void loop() {
    while (take_orders()) {
      step_began_ = std::chrono::steady_clock::now();
      std::vector<ScheduledRows> plan;
      try {
        line_.before_plan();
        suggest_guesses();
        plan = scheduler_.plan();
        move_blocks(plan);
        for (const ScheduledRows& rows : plan) answers_.at(rows.id).begin();
        line_.make(plan, drafter_ == nullptr);  // guesses are of what follows known tokens
      } catch (const Error& error) {
        end_all(plan, error);
      } catch (const std::exception& error) {
        end_all(plan, Error(ErrorKind::kInternal, error.what()));
      }
      publish_stats();
    }
    for (auto& [id, answer] : answers_) answer.end(std::nullopt);
    const std::lock_guard lock(mutex_);
    for (auto& [id, answer] : arrived_) answer.end(std::nullopt);
    arrived_.clear();
  }

  // Waits for something to do, and takes in what came; false when the engine is to end.
  bool take_orders() {
    Answers arrived;
    std::vector<RequestId> cancelled;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] {
        return stop_ || !arrived_.empty() || !cancelled_.empty() || !answers_.empty();
      });
      if (stop_) return false;
      arrived = std::exchange(arrived_, {});
      cancelled = std::exchange(cancelled_, {});
    }
    for (auto& [id, answer] : arrived) {
      const EngineRequest& request = answer.request();
      scheduler_.add(id, request.priority, request.prompt, !request.prompt_logprobs);
      answers_.emplace(id, std::move(answer));
    }
    for (const RequestId id : cancelled) end(id, std::nullopt);
    return true;
  }

  void end(RequestId id, std::optional<Error> error) {
    const auto at = answers_.find(id);
    if (at == answers_.end()) return;  // it has ended by itself
    at->second.end(std::move(error));
    forget(id);
  }

  void forget(RequestId id) {
    answers_.erase(id);
    runner_.forget(id);
    scheduler_.remove(id);
    if (drafter_ != nullptr) drafter_->forget(id);
    ++finished_;
  }

  void end_all(std::span<const ScheduledRows> plan, const Error& error) {
    for (const ScheduledRows& rows : plan) end(rows.id, error);
  }

  // Lets the drafter say how the running answers may go on.
  void suggest_guesses() {
    const std::int64_t most = drafter_ != nullptr ? governor_.tokens() : 0;
    if (most == 0) return;
    std::vector<DraftRequest> requests;
    for (const auto& [id, answer] : answers_) {
      if (!answer.begun_to_speak() || !scheduler_.is_answering(id)) continue;
      const std::int64_t wanted = std::min(most, answer.tokens_left() - 1);
      if (wanted > 0) requests.push_back({id, scheduler_.tokens(id), wanted});
    }
    std::vector<std::vector<std::int32_t>> guesses;
    try {
      guesses = drafter_->guess(requests);
    } catch (const Error&) {  // no memory for its caches, say: answers go on without
      drafter_.reset();
      return;
    }
    for (std::size_t i = 0; i < requests.size(); ++i) {
      scheduler_.suggest(requests[i].id, std::move(guesses[i]));
    }
  }

  // When it fails nobody's keys can be trusted: then everybody is in the plan, to be ended.
  void move_blocks(std::vector<ScheduledRows>& plan) {
    try {
      for (const BlockMove& move : scheduler_.moves()) {
        if (move.out) {
          KvPool::copy_block(memory_, move.block, kept_memory_, move.kept);
        } else {
          KvPool::copy_block(kept_memory_, move.kept, memory_, move.block);
        }
      }
    } catch (...) {
      plan.clear();
      for (const auto& [id, answer] : answers_) plan.push_back({.id = id});
      throw;
    }
  }

  // Tells the governor of a step that made answers alone.
  void measure(const StepResult& step) {
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - step_began_;
    std::int64_t guessed = 0;
    std::int64_t right = 0;
    std::int64_t tokens = 0;
    bool answers_alone = true;
    for (std::size_t i = 0; i < step.plan.size(); ++i) {
      guessed += step.plan[i].guessed;
      right += step.choices[i].right;
      tokens += std::ssize(step.choices[i].tokens);
      answers_alone = answers_alone && step.plan[i].rows == step.plan[i].guessed + 1;
    }
    guessed_tokens_ += guessed;
    right_tokens_ += right;
    if (answers_alone) {
      governor_.record(taken.count(), std::ssize(step.plan), tokens, guessed, right);
    }
  }

  void finish_step(const StepResult& step) {
    if (drafter_ != nullptr) measure(step);
    for (std::size_t i = 0; i < step.plan.size(); ++i) {
      if (answers_.contains(step.plan[i].id)) finish_rows(step.plan[i], step.choices[i]);
    }
  }

  void finish_rows(const ScheduledRows& rows, const StepChoice& choice) {
    if (rows.begin < prompt_of(rows.id)) {
      prompt_tokens_ += std::min(rows.begin + rows.rows, prompt_of(rows.id)) - rows.begin;
    }
    if (choice.error.has_value()) return end(rows.id, choice.error);
    if (!rows.samples) return;
    generation_tokens_ += std::ssize(choice.tokens);
    for (std::int64_t i = 0; i < std::ssize(choice.tokens); ++i) {
      scheduler_.append(rows.id, choice.tokens[static_cast<std::size_t>(i)], i < choice.right);
    }
    if (answers_.at(rows.id).send(scheduler_.found(rows.id))) forget(rows.id);
  }

  std::int64_t prompt_of(RequestId id) const {
    return std::ssize(answers_.at(id).request().prompt);
  }

  void publish_stats() {
    EngineStats stats;
    stats.running = scheduler_.running();
    stats.waiting = scheduler_.waiting();
    stats.kv_cache_usage = usage(blocks_);
    stats.swap_usage = usage(kept_blocks_);
    stats.preemptions = scheduler_.stats().preemptions;
    stats.swapped_tokens = scheduler_.stats().kept_tokens;
    stats.prompt_tokens = prompt_tokens_ + scheduler_.stats().found_tokens;
    stats.generation_tokens = generation_tokens_;
    stats.prefix_cache_queries = scheduler_.stats().queried_tokens;
    stats.prefix_cache_hits = scheduler_.stats().found_tokens;
    stats.finished = finished_;
    stats.guessed_tokens = guessed_tokens_;
    stats.right_guesses = right_tokens_;
    const std::lock_guard lock(mutex_);
    stats_ = stats;
  }

  const Session& session_;
  const Model& model_;
  const EngineOptions options_;
  const EngineLimits limits_;
  const std::vector<std::int32_t> model_stop_ids_;
  const std::unique_ptr<grammar::GuideMaker> guides_;  // null without a tokenizer
  Outbox outbox_;

  // Of the engine's thread.
  KvPool memory_;
  KvPool kept_memory_;  // the host's
  BlockPool blocks_;
  BlockPool kept_blocks_;
  Scheduler scheduler_;
  Answers answers_;
  StepRunner runner_;
  StepLine line_;
  std::chrono::steady_clock::time_point step_began_;
  std::int64_t prompt_tokens_ = 0;  // computed
  std::int64_t generation_tokens_ = 0;
  std::int64_t finished_ = 0;
  std::unique_ptr<Drafter> drafter_;  // null without speculation
  SpeculationGovernor governor_;
  std::int64_t guessed_tokens_ = 0;
  std::int64_t right_tokens_ = 0;

  // Of all threads.
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  RequestId last_id_ = 0;
  Answers arrived_;
  std::vector<RequestId> cancelled_;
  EngineStats stats_;

  std::thread thread_;  // the last: it uses all of the above
};

}  // namespace

std::unique_ptr<Engine> make_engine(const Session& session, const EngineOptions& options) {
  check_options(session.model->spec(), options);
  return std::make_unique<BatchingEngine>(session, options);
}

}  // namespace nibble
