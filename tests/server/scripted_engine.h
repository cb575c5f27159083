// An engine that plays answers from a script, one piece an update, all requests in turn.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "model/tokenizer/tokenizer.h"
#include "runtime/engine.h"

namespace nibble::test {

struct Script {
  std::vector<std::string> pieces;
  FinishReason finish = FinishReason::kStop;
  std::optional<Error> error;  // instead of the end
  bool hangs = false;          // after the pieces, until it is cancelled
};

class ScriptedEngine : public Engine {
 public:
  explicit ScriptedEngine(const Tokenizer& tokenizer)
      : tokenizer_(tokenizer), thread_([this] { run(); }) {}
  ~ScriptedEngine() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      for (auto& [id, live] : live_) live.cancelled = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  // Called by submit(); set before the first request.
  std::function<Script(const EngineRequest& request)> script = [](const EngineRequest&) {
    return Script{{"one ", "two ", "three"}, FinishReason::kStop, {}, false};
  };
  std::int64_t model_len = 64;
  std::int64_t max_waiting = 1000;

  RequestId submit(EngineRequest request, UpdateSink sink) override {
    const std::lock_guard lock(mutex_);
    if (static_cast<std::int64_t>(live_.size()) >= max_waiting) {
      fail(ErrorKind::kUnsupported, "the queue is full");
    }
    Live live;
    live.script = script(request);
    live.sink = std::move(sink);
    live.request = request;
    submitted_.push_back(std::move(request));
    live_.emplace(++last_, std::move(live));
    wake_.notify_all();
    return last_;
  }

  void cancel(RequestId id) override {
    const std::lock_guard lock(mutex_);
    const auto at = live_.find(id);
    if (at == live_.end() || at->second.cancelled) return;
    at->second.cancelled = true;
    ++cancelled_;
    wake_.notify_all();
  }

  EngineStats stats() const override {
    const std::lock_guard lock(mutex_);
    EngineStats stats;
    stats.running = static_cast<std::int64_t>(live_.size());
    stats.waiting = 7;
    stats.kv_cache_usage = 0.25;
    stats.generation_tokens = 42;
    return stats;
  }
  std::int64_t max_model_len() const override { return model_len; }

  std::vector<EngineRequest> submitted() const {
    const std::lock_guard lock(mutex_);
    return submitted_;
  }
  EngineRequest last() const { return submitted().back(); }
  int cancelled() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }
  // False when it takes longer than any test should.
  bool wait_until_idle() {
    std::unique_lock lock(mutex_);
    return idle_.wait_for(lock, std::chrono::seconds(20), [&] { return live_.empty(); });
  }

 private:
  struct Live {
    EngineRequest request;
    Script script;
    UpdateSink sink;
    std::size_t next = 0;
    std::int64_t tokens = 0;
    bool cancelled = false;
  };

  EngineToken token(std::int32_t id, std::int64_t likeliest) const {
    EngineToken token{{id, -0.5f}, {}};
    if (likeliest > 0) token.likeliest.push_back({id, -0.5f});
    if (likeliest > 1) token.likeliest.push_back({id + 1, -1.5f});
    return token;
  }

  EngineUpdate advance(Live& live) const {
    EngineUpdate update;
    if (live.cancelled) {
      update.finish = FinishReason::kCancelled;
      return update;
    }
    if (live.next == 0) {
      update.cached_prompt_tokens = 2;
      if (live.request.prompt_logprobs) {
        for (const std::int32_t id : live.request.prompt) {
          update.prompt_tokens.push_back(token(id, live.request.logprobs));
        }
      }
    }
    if (live.next < live.script.pieces.size()) {
      update.text = live.script.pieces[live.next++];
      for (const std::int32_t id : tokenizer_.encode(update.text, {.add_special = false})) {
        update.tokens.push_back(token(id, live.request.logprobs));
      }
      ++live.tokens;
    }
    if (live.next == live.script.pieces.size() && !live.script.hangs) {
      update.finish = live.script.error ? FinishReason::kCancelled : live.script.finish;
      update.error = live.script.error;
    } else if (live.tokens >= live.request.max_tokens) {
      update.finish = FinishReason::kLength;
    }
    return update;
  }

  static bool has_work(const Live& live) {
    return live.cancelled || !live.script.hangs || live.next < live.script.pieces.size();
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      std::vector<std::pair<UpdateSink, EngineUpdate>> round;
      for (auto at = live_.begin(); at != live_.end();) {
        if (!has_work(at->second)) {
          ++at;
          continue;
        }
        EngineUpdate update = advance(at->second);
        const bool ended = update.finish.has_value();
        round.emplace_back(at->second.sink, std::move(update));
        at = ended ? live_.erase(at) : std::next(at);
      }
      if (live_.empty()) idle_.notify_all();
      if (round.empty()) {
        if (stopping_) return;
        wake_.wait(lock);
        continue;
      }
      lock.unlock();
      for (auto& [sink, update] : round) sink(std::move(update));
      round.clear();
      lock.lock();
    }
  }

  const Tokenizer& tokenizer_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::map<RequestId, Live> live_;
  std::vector<EngineRequest> submitted_;
  RequestId last_ = 0;
  int cancelled_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace nibble::test
