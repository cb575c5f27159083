// The engine's requests behind one exchange, from submit to the last update of the last of them.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "server/api_error.h"
#include "server/http.h"
#include "server/service.h"

namespace nibble::server {

struct GenerationEvents {
  // What request `index` did, in its order.
  std::function<void(std::size_t index, EngineUpdate& update)> update;
  std::function<void()> done;                         // all have ended well
  std::function<void(const ApiError& error)> failed;  // one has not; nothing else follows
};

struct GenerationUsage {
  std::int64_t prompt_tokens = 0;  // of each prompt once
  std::int64_t completion_tokens = 0;
  std::int64_t cached_tokens = 0;

  Json to_json() const;
};

// Raises `known` to `now`, which an engine may repeat or leave out; gives by how much.
inline std::int64_t grown(std::int64_t& known, std::int64_t now) {
  return now > known ? now - std::exchange(known, now) : 0;
}

// All of it runs on the exchange's sequence of work.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  // Submits all; ApiError when the engine refuses one, and then none runs. The events are called
  // later. When the client goes away, all are cancelled.
  static void start(Service& service, std::shared_ptr<Exchange> exchange,
                    std::vector<EngineRequest> requests, GenerationEvents events);

 private:
  struct One {
    RequestId id = 0;
    std::int64_t prompt_tokens = 0;
    std::int64_t tokens = 0;
    std::chrono::steady_clock::time_point last{};
    bool ended = false;
  };

  Generation(Service& service, std::shared_ptr<Exchange> exchange, GenerationEvents events);
  void submit(std::vector<EngineRequest> requests);
  void receive(std::size_t index, EngineUpdate update);
  void measure(One& one, const EngineUpdate& update);
  void end(One& one, const EngineUpdate& update);
  void fail_all(const ApiError& error);
  void cancel();

  Service& service_;
  std::shared_ptr<Exchange> exchange_;
  GenerationEvents events_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::vector<One> all_;
  std::size_t running_ = 0;
  bool over_ = false;  // no more events
};

}  // namespace nibble::server
