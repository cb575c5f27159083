// A fixed set of worker threads and a blocking parallel loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/topology.h"

namespace nibble {

// parallel_for may be called from one thread at a time. The caller works too, so threads() == 1
// starts no thread at all. An exception thrown by `body` is rethrown in the caller after the loop
// has stopped.
//
// On a machine with several memory nodes each worker is bound to the processors of one node, so
// that memory which it is the first to write lies near it; elsewhere the system places threads. The
// calling thread belongs to the caller and is never bound: it counts for the node on which it made
// the pool.
class ThreadPool {
 public:
  // 0 = one thread a physical core that this process may use. topology: for tests.
  explicit ThreadPool(int threads = 0, const Topology& topology = read_topology());
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  // Memory nodes that the threads are spread over.
  int nodes() const;

  // Calls body(begin, end) over disjoint chunks that cover [0, count); chunks hold at least `grain`
  // items (but for the last). Thread i starts with the i-th part of the range and helps the others
  // when it is through; so loops over the same rows find each row on the same thread as long as all
  // threads keep pace, but results must not depend on it.
  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t begin, std::int64_t end)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
