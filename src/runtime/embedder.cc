#include "runtime/embedder.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace nibble {
namespace {

std::int64_t text_limit(const ModelSpec& spec, std::int64_t asked) {
  if (spec.decoder) {
    fail(ErrorKind::kUsage, "embedder: {} is a decoder; vectors are made by encoders", spec.arch);
  }
  if (asked < 0) fail(ErrorKind::kUsage, "embedder: sizes must be positive");
  return asked > 0 ? std::min(asked, spec.max_positions) : spec.max_positions;
}

}  // namespace

Embedder::Embedder(const Session& session, const EmbedderOptions& options)
    : session_(session),
      options_(options),
      max_model_len_(text_limit(session.model->spec(), options.max_model_len)) {
  const bool sane =
      options.max_num_seqs > 0 && options.max_num_batched_tokens > 0 && options.max_waiting > 0;
  if (!sane) fail(ErrorKind::kUsage, "embedder: sizes must be positive");
  thread_ = std::thread([this] { loop(); });
}

Embedder::~Embedder() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Embedder::check(const std::vector<std::int32_t>& ids) const {
  if (ids.empty()) fail(ErrorKind::kUsage, "the text has no tokens");
  if (std::ssize(ids) > max_model_len_) {
    fail(ErrorKind::kUsage, "the text has {} tokens, the model takes {}", ids.size(),
         max_model_len_);
  }
  const std::int64_t vocab = session_.model->spec().vocab;
  for (const std::int32_t id : ids) {
    if (id >= 0 && id < vocab) continue;
    fail(ErrorKind::kUsage, "token id {} is outside the vocabulary of {}", id, vocab);
  }
}

RequestId Embedder::submit(std::vector<std::int32_t> ids, EmbeddingSink sink) {
  check(ids);
  RequestId id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (std::ssize(waiting_) >= options_.max_waiting) {
      fail(ErrorKind::kUnsupported, "embedder: {} texts wait already; try again later",
           options_.max_waiting);
    }
    id = ++last_id_;
    waiting_.emplace(id, Job{std::move(ids), std::move(sink)});
  }
  wake_.notify_one();
  return id;
}

void Embedder::cancel(RequestId id) {
  decltype(waiting_)::node_type dropped;  // its sink may hold much: it ends outside of the lock
  const std::lock_guard lock(mutex_);
  dropped = waiting_.extract(id);
}

EngineStats Embedder::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.waiting = std::ssize(waiting_);
  return stats;
}

// The next step's texts, in the order of arrival; none when the embedder is to end.
std::vector<Embedder::Job> Embedder::take() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
  std::vector<Job> jobs;
  std::int64_t rows = 0;
  while (!stop_ && !waiting_.empty() && std::ssize(jobs) < options_.max_num_seqs) {
    const auto next = waiting_.begin();
    rows += std::ssize(next->second.ids);
    if (!jobs.empty() && rows > options_.max_num_batched_tokens) break;
    jobs.push_back(std::move(next->second));
    waiting_.erase(next);
  }
  stats_.running = std::ssize(jobs);
  return jobs;
}

std::vector<Embedding> Embedder::run(const std::vector<Job>& jobs) const {
  std::vector<Embedding> results(jobs.size());
  try {
    Batch batch;
    for (const Job& job : jobs) {
      batch.ids.insert(batch.ids.end(), job.ids.begin(), job.ids.end());
      batch.sequences.push_back({.rows = std::ssize(job.ids)});
    }
    const Tensor hidden = session_.model->hidden(batch);
    const std::int64_t cols = dimensions();
    const float* row = hidden.data<float>();
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      std::vector<float>& values = results[i].values;
      values.resize(static_cast<std::size_t>(cols));
      pool_rows(options_.pooling, row, std::ssize(jobs[i].ids), cols, values.data());
      row += std::ssize(jobs[i].ids) * cols;
      if (std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) continue;
      results[i].error = Error(ErrorKind::kInternal, "the model gave numbers that are none");
    }
  } catch (const Error& error) {
    for (Embedding& result : results) result.error = error;
  } catch (const std::exception& error) {
    for (Embedding& result : results) result.error = Error(ErrorKind::kInternal, error.what());
  }
  return results;
}

void Embedder::loop() {
  for (;;) {
    std::vector<Job> jobs = take();  // and their sinks end with the turn, not when others come
    if (jobs.empty()) return;
    std::vector<Embedding> results = run(jobs);
    {
      const std::lock_guard lock(mutex_);
      stats_.finished += std::ssize(jobs);
      for (const Job& job : jobs) stats_.prompt_tokens += std::ssize(job.ids);
      stats_.running = 0;
    }
    for (std::size_t i = 0; i < jobs.size(); ++i) jobs[i].sink(std::move(results[i]));
  }
}

}  // namespace nibble
