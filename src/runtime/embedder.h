// Vectors of many texts at once from an encoder: texts that wait are run together.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "runtime/engine.h"
#include "runtime/pooling.h"
#include "runtime/session.h"

namespace nibble {

struct EmbedderOptions {
  Pooling pooling = Pooling::kMean;
  std::int64_t max_model_len = 0;  // tokens of one text; 0 = the model's own limit
  std::int64_t max_num_seqs = 64;  // texts of one step
  // Rows of one step; a longer text is run alone.
  std::int64_t max_num_batched_tokens = 1024;
  std::int64_t max_waiting = 4096;  // texts that wait; more are refused
};

struct Embedding {
  std::vector<float> values;   // [hidden], as pooled: not normalized
  std::optional<Error> error;  // then there are none
};

// Called on the embedder's thread: must be quick, must not throw, must not call the embedder except
// for cancel().
using EmbeddingSink = std::function<void(Embedding)>;

// Thread-safe. Runs steps on a thread of its own, texts in the order of arrival. The destructor
// drops what waits, with its sinks uncalled.
class Embedder {
 public:
  // The session must outlive it, and nobody else may use its model meanwhile. kUsage for a decoder.
  Embedder(const Session& session, const EmbedderOptions& options);
  ~Embedder();

  // ids: one text, with what the tokenizer puts around it. kUsage when it is empty or too long or
  // has ids outside the vocabulary, kUnsupported when the queue is full (try later).
  RequestId submit(std::vector<std::int32_t> ids, EmbeddingSink sink);
  // Drops a text that waits; one that runs may still be heard of.
  void cancel(RequestId id);
  // Of these, how many texts run, wait and have ended, and the tokens of the latter.
  EngineStats stats() const;
  std::int64_t max_model_len() const { return max_model_len_; }
  std::int64_t dimensions() const { return session_.model->spec().hidden; }

 private:
  struct Job {
    std::vector<std::int32_t> ids;
    EmbeddingSink sink;
  };

  void check(const std::vector<std::int32_t>& ids) const;
  void loop();
  std::vector<Job> take();
  std::vector<Embedding> run(const std::vector<Job>& jobs) const;

  const Session& session_;
  const EmbedderOptions options_;
  const std::int64_t max_model_len_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  RequestId last_id_ = 0;
  std::map<RequestId, Job> waiting_;
  EngineStats stats_;

  std::thread thread_;  // the last: it uses all of the above
};

}  // namespace nibble
