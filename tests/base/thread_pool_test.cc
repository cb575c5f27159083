#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

namespace nibble {
namespace {

TEST(ThreadPoolTest, CoversEveryItemOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const std::int64_t count : {0, 1, 2, 7, 1000, 100'000}) {
      for (const std::int64_t grain : {1, 3, 5000}) {
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(count));
        pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
        });
        for (const auto& hit : hits) ASSERT_EQ(hit.load(), 1);
      }
    }
  }
}

TEST(ThreadPoolTest, RethrowsAndStaysUsable) {
  ThreadPool pool(3);
  EXPECT_THROW(pool.parallel_for(100, 1,
                                 [](std::int64_t begin, std::int64_t) {
                                   if (begin >= 50) throw std::runtime_error("no");
                                 }),
               std::runtime_error);
  std::atomic<std::int64_t> sum{0};
  pool.parallel_for(10, 1, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
  EXPECT_EQ(sum.load(), 10);
}

TEST(ThreadPoolTest, ManyShortLoops) {
  ThreadPool pool(4);
  std::int64_t total = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::atomic<std::int64_t> sum{0};
    pool.parallel_for(8, 1, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
    total += sum.load();
  }
  EXPECT_EQ(total, 160'000);
}

// More threads than cores, and a second pool that keeps them busy: a loop must not wait for a
// worker that the system does not run.
TEST(ThreadPoolTest, OversubscriptionDoesNotStall) {
  const int cores = available_cores();
  ThreadPool pool(2 * cores + 1);
  std::atomic<bool> stop{false};
  std::vector<std::thread> neighbours;
  for (int i = 0; i < cores; ++i) {
    neighbours.emplace_back([&] {
      while (!stop.load()) std::atomic_signal_fence(std::memory_order_seq_cst);
    });
  }
  const auto start = std::chrono::steady_clock::now();
  std::atomic<std::int64_t> sum{0};
  for (int i = 0; i < 2000; ++i) {
    pool.parallel_for(64, 1, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
  }
  const auto elapsed = std::chrono::steady_clock::now() - start;
  stop = true;
  for (auto& thread : neighbours) thread.join();
  EXPECT_EQ(sum.load(), 2000 * 64);
  // Each loop takes microseconds of work; one time slice lost in each would be minutes.
  EXPECT_LT(elapsed, std::chrono::seconds(60));
}

}  // namespace
}  // namespace nibble
