// Engines of the bundled model, and who takes their answers.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "model/kv_cache.h"
#include "quantize/apart_backend.h"
#include "runtime/engine.h"
#include "support/exact_backend.h"
#include "support/test_data.h"

namespace nibble::test {

using Ids = std::vector<std::int32_t>;

// Collects the updates of one request.
class Inbox {
 public:
  UpdateSink sink() {
    return [this](EngineUpdate update) {
      const std::lock_guard lock(mutex_);
      EXPECT_FALSE(finish_.has_value()) << "an update after the last";
      text_ += update.text;
      for (EngineToken& token : update.tokens) tokens_.push_back(std::move(token));
      for (EngineToken& token : update.prompt_tokens) prompt_.push_back(std::move(token));
      cached_ = std::max(cached_, update.cached_prompt_tokens);
      finish_ = update.finish;
      error_ = update.error;
      changed_.notify_all();
    };
  }
  void wait() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(
        changed_.wait_for(lock, std::chrono::minutes(2), [this] { return finish_.has_value(); }));
  }
  void wait_for_tokens(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return tokens_.size() >= count || finish_.has_value(); });
  }
  Ids ids() const {
    Ids ids;
    for (const EngineToken& token : tokens_) ids.push_back(token.chosen.id);
    return ids;
  }

  std::string text_;
  std::vector<EngineToken> tokens_;
  std::vector<EngineToken> prompt_;
  std::int64_t cached_ = 0;
  std::optional<FinishReason> finish_;
  std::optional<Error> error_;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

class EngineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    backend_ = exact_backend();
    session_ = open_session(tiny_novel(), *backend_);
    apart_backend_ = apart_backend(exact_backend(), &reads_);
    apart_ = open_session(tiny_novel(), *apart_backend_);
  }
  static void TearDownTestSuite() {
    apart_ = Session();
    session_ = Session();
    apart_backend_.reset();
    backend_.reset();
  }
  void SetUp() override { reads_.most = 0; }

  static Ids encode(const std::string& text) { return session_.tokenizer->encode(text); }
  static EngineRequest request(const std::string& text, std::int64_t max_tokens = 12) {
    EngineRequest request;
    request.prompt = encode(text);
    request.max_tokens = max_tokens;
    return request;
  }
  static GenerateResult alone(const std::string& text, std::int64_t max_tokens,
                              const SamplingOptions& sampling = {}) {
    GenerateOptions options;
    options.max_new_tokens = max_tokens;
    options.stop_ids = default_stop_ids(session_);
    options.sampling = sampling;
    return generate(session_, encode(text), options);
  }
  // Runs one request to its end.
  static void run(Engine& engine, EngineRequest request, Inbox& inbox) {
    engine.submit(std::move(request), inbox.sink());
    inbox.wait();
  }
  // A cache of so many blocks of 16 tokens.
  static EngineOptions small(std::int64_t blocks) {
    EngineOptions options;
    options.block_size = 16;
    options.max_num_batched_tokens = 40;
    options.kv_cache_bytes = static_cast<std::size_t>(blocks) * block_bytes();
    return options;
  }
  static std::size_t block_bytes() {
    return static_cast<std::size_t>(
        KvPool::block_bytes(session_.model->spec(), 16, session_.kv_type));
  }

  static inline std::unique_ptr<Backend> backend_;
  static inline Session session_;
  // The same model on what works beside the host, as far as an engine can see.
  static inline Reads reads_;
  static inline std::unique_ptr<Backend> apart_backend_;
  static inline Session apart_;
};

inline const char* const kTexts[] = {
    "It was a bright morning",
    "The old man looked at the sea and said that",
    "She",
    "There is nothing in the world so irresistibly contagious as laughter and good humour. "
    "He did not reply at once, but went on walking up and down the room with his hands",
    "\"Where are you going?\"",
    "On the following day, when the carriage had been brought to the door,",
};

}  // namespace nibble::test
