// A fixed set of worker threads and a blocking parallel loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace nibble {

// Physical cores among the processors that this process may run on.
int available_cores();

// parallel_for may be called from one thread at a time. The caller works too, so threads() == 1
// starts no thread at all. An exception thrown by `body` is rethrown in the caller after the loop
// has stopped.
class ThreadPool {
 public:
  // 0 = one thread a physical core that this process may use.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Calls body(begin, end) over disjoint chunks that cover [0, count); chunks hold at least `grain`
  // items (but for the last). Which thread gets which chunk is not determined; results must not
  // depend on it.
  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t begin, std::int64_t end)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
