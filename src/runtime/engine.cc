#include "runtime/engine.h"

#include <algorithm>
#include <condition_variable>
#include <limits>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/memory.h"
#include "model/kv_cache.h"
#include "runtime/answer.h"
#include "runtime/grammar/guide.h"
#include "runtime/scheduler.h"

namespace nibble {
namespace {

// Limits of an engine that follow from its options, the model and the memory.
struct Limits {
  std::int64_t model_len = 0;
  std::int64_t block_rows = 0;
  std::int64_t blocks = 0;
};

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t model_len_of(const ModelSpec& spec, std::int64_t asked) {
  constexpr std::int64_t kUnlimited = 4096;  // for models without a limit of their own
  if (spec.max_positions == 0) return asked > 0 ? asked : kUnlimited;
  return asked > 0 ? std::min(asked, spec.max_positions) : spec.max_positions;
}

std::int64_t cache_bytes_of(const EngineOptions& options, const DeviceMemory& memory) {
  if (options.kv_cache_bytes > 0) return static_cast<std::int64_t>(options.kv_cache_bytes);
  if (memory.is_host()) return available_memory_bytes() / 2;
  return static_cast<std::int64_t>(memory.available() / 2);
}

Limits limits_of(const Session& session, const EngineOptions& options) {
  const ModelSpec& spec = session.model->spec();
  const DeviceMemory& memory = session.model->backend().memory();
  Limits limits;
  limits.model_len = model_len_of(spec, options.max_model_len);
  // Kernels of a device take as many keys at a time, all from one block.
  constexpr std::int64_t kStep = 32;
  limits.block_rows =
      memory.is_host() ? options.block_size : ceil_div(options.block_size, kStep) * kStep;
  const std::int64_t block_bytes = KvPool::block_bytes(spec, limits.block_rows, session.kv_type);
  const std::int64_t cache_bytes = cache_bytes_of(options, memory);
  const std::int64_t wanted = ceil_div(limits.model_len, limits.block_rows) * options.max_num_seqs;
  limits.blocks = std::min(wanted, cache_bytes / block_bytes);
  const std::int64_t room = limits.blocks * limits.block_rows;
  if (room == 0 || (options.max_model_len > 0 && room < limits.model_len)) {
    fail(ErrorKind::kMemory,
         "engine: a cache of {} bytes holds {} tokens of {} bytes, fewer than the {} of one "
         "request; give it more memory, fewer bits, or a smaller model length",
         cache_bytes, room, block_bytes / limits.block_rows, limits.model_len);
  }
  limits.model_len = std::min(limits.model_len, room);
  return limits;
}

void check_options(const ModelSpec& spec, const EngineOptions& options) {
  if (!spec.decoder) {
    fail(ErrorKind::kUsage, "engine: {} is an encoder, it cannot generate text", spec.arch);
  }
  const bool sane = options.max_model_len >= 0 && options.max_num_seqs > 0 &&
                    options.max_num_batched_tokens > 0 && options.block_size > 0 &&
                    options.max_waiting > 0;
  if (!sane) fail(ErrorKind::kUsage, "engine: sizes must be positive");
}

class BatchingEngine : public Engine {
 public:
  BatchingEngine(const Session& session, const EngineOptions& options)
      : session_(session),
        model_(*session.model),
        options_(options),
        limits_(limits_of(session, options)),
        model_stop_ids_(default_stop_ids(session)),
        guides_(session.tokenizer ? std::make_unique<grammar::GuideMaker>(*session.tokenizer)
                                  : nullptr),
        memory_(model_.spec(), limits_.blocks, limits_.block_rows, session.kv_type,
                model_.backend().memory()),
        blocks_(limits_.blocks, limits_.block_rows),
        scheduler_(
            {options.max_num_seqs, options.max_num_batched_tokens, options.enable_prefix_caching},
            blocks_),
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
    Answer answer(std::move(request), std::move(sink), session_.tokenizer.get(), model_stop_ids_,
                  std::move(guide));
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
  using Answers = std::map<RequestId, Answer>;

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
      const std::vector<ScheduledRows> plan = scheduler_.plan();
      try {
        step(plan);
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
    caches_.erase(id);
    scheduler_.remove(id);
    ++finished_;
  }

  void end_all(std::span<const ScheduledRows> plan, const Error& error) {
    for (const ScheduledRows& rows : plan) end(rows.id, error);
  }

  // What one sequence of a step gives.
  struct Choice {
    RequestId id = 0;
    std::optional<std::int32_t> token;
    std::optional<Error> error;
  };

  void step(std::span<const ScheduledRows> plan) {
    if (plan.empty()) return;
    for (const ScheduledRows& rows : plan) answers_.at(rows.id).begin();
    const bool likeliest = std::ranges::all_of(
        plan, [this](const ScheduledRows& rows) { return takes_likeliest(rows); });
    std::vector<Choice> choices = likeliest ? choose_likeliest(plan) : choose_by_logits(plan);
    for (std::size_t i = 0; i < plan.size(); ++i) finish_step(plan[i], std::move(choices[i]));
  }

  // Whether the backend can choose what follows: then no logits leave it.
  bool takes_likeliest(const ScheduledRows& rows) const {
    const Answer& answer = answers_.at(rows.id);
    return !scores_prompt(rows) && (!rows.samples || answer.takes_likeliest());
  }

  bool scores_prompt(const ScheduledRows& rows) const {
    return answers_.at(rows.id).request().prompt_logprobs && rows.begin < prompt_of(rows.id);
  }

  std::vector<Choice> choose_likeliest(std::span<const ScheduledRows> plan) {
    Batch batch;
    for (const ScheduledRows& rows : plan) append(batch, rows);
    const std::vector<std::int32_t> tokens = model_.likeliest_tokens(batch);
    scheduler_.computed(plan);
    std::vector<Choice> choices;
    for (std::size_t i = 0; i < plan.size(); ++i) {
      choices.push_back(choose(plan[i], [&](Answer& answer) { return answer.accept(tokens[i]); }));
    }
    return choices;
  }

  std::vector<Choice> choose_by_logits(std::span<const ScheduledRows> plan) {
    Tensor logits = forward(plan);
    scheduler_.computed(plan);
    std::vector<Choice> choices(plan.size());
    model_.backend().pool().parallel_for(
        std::ssize(plan), 1, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            const ScheduledRows& rows = plan[static_cast<std::size_t>(i)];
            choices[static_cast<std::size_t>(i)] = choose(rows, [&](Answer& answer) {
              return answer.choose(row_of(logits, i), scheduler_.tokens(rows.id));
            });
          }
        });
    return choices;
  }

  std::span<float> row_of(Tensor& logits, std::int64_t row) const {
    const std::int64_t vocab = model_.spec().vocab;
    return {logits.mutable_data<float>() + row * vocab, static_cast<std::size_t>(vocab)};
  }

  // next: of an answer, the token or none when it has ended.
  template <class Next>
  Choice choose(const ScheduledRows& rows, const Next& next) {
    Choice choice = {.id = rows.id, .token = std::nullopt, .error = std::nullopt};
    try {
      require_finite(rows);
      if (rows.samples) choice.token = next(answers_.at(rows.id));
    } catch (const Error& error) {
      choice.error = error;
    }
    return choice;
  }

  // A value beyond the range of F16 became infinity when it was stored.
  void require_finite(const ScheduledRows& rows) {
    KvCache& cache = caches_.at(rows.id);
    for (std::int64_t layer = 0; layer < model_.spec().layers; ++layer) {
      if (!cache.overflowed(layer, rows.begin)) continue;
      fail(ErrorKind::kUnsupported,
           "keys or values of layer {} are beyond the range of an F16 cache; use a BF16 or F32 one",
           layer);
    }
  }

  void finish_step(const ScheduledRows& rows, Choice choice) {
    if (rows.begin < prompt_of(rows.id)) {
      prompt_tokens_ += std::min(rows.begin + rows.rows, prompt_of(rows.id)) - rows.begin;
    }
    if (choice.error.has_value()) return end(rows.id, std::move(choice.error));
    if (!rows.samples) return;
    generation_tokens_ += choice.token.has_value() ? 1 : 0;
    if (choice.token.has_value()) scheduler_.append(rows.id, *choice.token);
    if (answers_.at(rows.id).send(scheduler_.found(rows.id))) forget(rows.id);
  }

  std::int64_t prompt_of(RequestId id) const {
    return std::ssize(answers_.at(id).request().prompt);
  }

  // Logits after the last planned row of each sequence, [plan, vocab].
  Tensor forward(std::span<const ScheduledRows> plan) {
    Batch batch;
    std::vector<std::int64_t> place;  // in the plan, of each sequence of the batch
    Tensor logits = Tensor::allocate(DType::kF32, {std::ssize(plan), model_.spec().vocab});
    for (std::size_t i = 0; i < plan.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      if (scores_prompt(plan[i])) {
        forward_scored(plan[i], row_of(logits, row));
        continue;
      }
      append(batch, plan[i]);
      place.push_back(row);
    }
    if (place.empty()) return logits;
    const Tensor last = model_.last_logits(batch);
    if (place.size() == plan.size()) return last;
    for (std::size_t i = 0; i < place.size(); ++i) {
      const auto vocab = static_cast<std::size_t>(model_.spec().vocab);
      std::copy_n(last.data<float>() + i * vocab, vocab, row_of(logits, place[i]).data());
    }
    return logits;
  }

  void append(Batch& batch, const ScheduledRows& rows) {
    const auto tokens = scheduler_.tokens(rows.id).subspan(static_cast<std::size_t>(rows.begin),
                                                           static_cast<std::size_t>(rows.rows));
    KvCache& cache = caches_.try_emplace(rows.id, memory_).first->second;
    cache.set_blocks(scheduler_.blocks(rows.id), rows.begin);
    batch.ids.insert(batch.ids.end(), tokens.begin(), tokens.end());
    batch.sequences.push_back({rows.rows, rows.begin, &cache});
  }

  // A part of a prompt all of whose tokens are to be scored; the last row's logits go to `last`.
  void forward_scored(const ScheduledRows& rows, std::span<float> last) {
    constexpr std::int64_t kRows = 64;  // of logits at once
    Batch batch;
    append(batch, rows);
    const Tensor hidden = model_.hidden(batch);
    const std::int64_t vocab = model_.spec().vocab;
    for (std::int64_t at = 0; at < rows.rows; at += kRows) {
      const std::int64_t count = std::min(kRows, rows.rows - at);
      Tensor logits = Tensor::allocate(DType::kF32, {count, vocab});
      model_.head(hidden.data<float>() + at * model_.spec().hidden, count,
                  logits.mutable_data<float>());
      answers_.at(rows.id).score_prompt(
          rows.begin + at, {logits.data<float>(), static_cast<std::size_t>(logits.elements())},
          vocab);
      std::ranges::copy(row_of(logits, count - 1), last.begin());
    }
  }

  void publish_stats() {
    EngineStats stats;
    stats.running = scheduler_.running();
    stats.waiting = scheduler_.waiting();
    stats.kv_cache_usage =
        1 - static_cast<double>(blocks_.available()) / static_cast<double>(blocks_.blocks());
    stats.preemptions = scheduler_.stats().preemptions;
    stats.prompt_tokens = prompt_tokens_ + scheduler_.stats().found_tokens;
    stats.generation_tokens = generation_tokens_;
    stats.prefix_cache_queries = scheduler_.stats().queried_tokens;
    stats.prefix_cache_hits = scheduler_.stats().found_tokens;
    stats.finished = finished_;
    const std::lock_guard lock(mutex_);
    stats_ = stats;
  }

  const Session& session_;
  const Model& model_;
  const EngineOptions options_;
  const Limits limits_;
  const std::vector<std::int32_t> model_stop_ids_;
  const std::unique_ptr<grammar::GuideMaker> guides_;  // null without a tokenizer

  // Of the engine's thread.
  KvPool memory_;
  BlockPool blocks_;
  Scheduler scheduler_;
  Answers answers_;
  std::map<RequestId, KvCache> caches_;
  std::int64_t prompt_tokens_ = 0;  // computed
  std::int64_t generation_tokens_ = 0;
  std::int64_t finished_ = 0;

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
