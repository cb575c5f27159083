// The way of updates to those who asked: on a thread of its own, so that the next step runs while
// the answers of the last one are made text and handed over.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/engine.h"
#include "runtime/text_output.h"

namespace nibble {

// Where the updates of one request go.
struct AnswerOutput {
  TextOutput text;
  UpdateSink sink;
  // Whether stop strings may end the answer. Then its tokens become text before the next step, and
  // only what is left of it here; else `text` belongs to the outbox.
  bool text_decides = false;
  bool over = false;  // of the outbox: the last update has gone
};

// Thread-safe. Updates go in the order in which they are posted. The destructor sends what is left.
class Outbox {
 public:
  Outbox();
  ~Outbox();
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  // Waits while very much is on its way: a step must not outrun its answers for long.
  void post(std::shared_ptr<AnswerOutput> to, EngineUpdate update);

 private:
  struct Letter {
    std::shared_ptr<AnswerOutput> to;
    EngineUpdate update;
  };

  void run();

  std::mutex mutex_;
  std::condition_variable come_, gone_;
  std::vector<Letter> letters_;
  bool closing_ = false;
  std::thread thread_;  // the last: it uses all of the above
};

}  // namespace nibble
