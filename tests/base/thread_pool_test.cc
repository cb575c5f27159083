#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
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

// A thread that the system stops between two looks at a share must not take from the next loop,
// whose shares have other sizes.
TEST(ThreadPoolTest, LateThreadsTakeNothingOfTheNextLoop) {
  ThreadPool pool(3);
  constexpr std::int64_t kLongest = 64;
  std::vector<std::atomic<int>> hits(kLongest);
  for (std::int64_t i = 0; i < 300'000; ++i) {
    const std::int64_t count = i % 2 == 0 ? kLongest - i % 29 : 2 + i % 7;
    std::atomic<bool> outside{false};
    pool.parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end) {
      if (begin < 0 || begin >= end || end > count) outside = true;
      for (std::int64_t k = begin; k < std::min(end, kLongest); ++k)
        ++hits[static_cast<std::size_t>(k)];
    });
    ASSERT_FALSE(outside);
    for (std::int64_t k = 0; k < count; ++k) {
      ASSERT_EQ(hits[static_cast<std::size_t>(k)].exchange(0, std::memory_order_relaxed), 1);
    }
  }
}

TEST(ThreadPoolTest, ChunksHoldAtLeastTheGrain) {
  ThreadPool pool(3);
  for (const std::int64_t count : {1, 10, 1000, 12'345}) {
    for (const std::int64_t grain : {1, 7, 600}) {
      pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
        EXPECT_TRUE(end - begin >= grain || end == count) << begin << ' ' << end;
      });
    }
  }
}

TEST(ThreadPoolTest, VeryLongRanges) {
  ThreadPool pool(2);
  std::atomic<std::int64_t> sum{0};
  constexpr std::int64_t kCount = std::int64_t{1} << 40;
  pool.parallel_for(kCount, 1, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
  EXPECT_EQ(sum.load(), kCount);
}

// One piece a thread, and none leaves before all have come: so each thread is in its own.
TEST(ThreadPoolTest, ThreadsStartWithTheirOwnShare) {
  constexpr int kThreads = 4;
  ThreadPool pool(kThreads);
  std::vector<std::thread::id> first(kThreads);
  for (int loop = 0; loop < 20; ++loop) {
    std::vector<std::thread::id> seen(kThreads);
    std::atomic<int> arrived{0};
    pool.parallel_for(kThreads, 1, [&](std::int64_t begin, std::int64_t end) {
      ASSERT_EQ(end, begin + 1);
      seen[static_cast<std::size_t>(begin)] = std::this_thread::get_id();
      for (++arrived; arrived.load() < kThreads;) std::this_thread::yield();
    });
    if (loop == 0) first = seen;
  }
  EXPECT_EQ(first[0], std::this_thread::get_id());
  std::ranges::sort(first);
  EXPECT_EQ(std::ranges::unique(first).begin(), first.end());
}

// Nodes that lie about this machine's memory but name its processors.
TEST(ThreadPoolTest, BindsWorkersToTheirNodes) {
  const Topology machine = read_topology();
  const std::vector<int>& processors = machine.nodes[0].processors;
  if (processors.size() < 2) GTEST_SKIP() << "needs two processors on a node";
  const Topology two = {.nodes = {{{processors[0]}, 1}, {{processors[1]}, 1}}, .cores = 2};
  ThreadPool pool(4, two);
  EXPECT_EQ(pool.nodes(), 2);
  std::atomic<int> arrived{0};
  std::mutex mutex;
  std::map<int, int> bound;  // workers by processor
  const auto caller = std::this_thread::get_id();
  pool.parallel_for(4, 1, [&](std::int64_t, std::int64_t) {
    for (++arrived; arrived.load() < 4;) std::this_thread::yield();
    if (std::this_thread::get_id() == caller) return;
    cpu_set_t set;
    ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
    EXPECT_EQ(CPU_COUNT(&set), 1);
    const std::lock_guard lock(mutex);
    for (const int cpu : {processors[0], processors[1]}) bound[cpu] += CPU_ISSET(cpu, &set) ? 1 : 0;
  });
  // The caller counts for one of the two.
  EXPECT_EQ(bound[processors[0]] + bound[processors[1]], 3);
  EXPECT_EQ(std::max(bound[processors[0]], bound[processors[1]]), 2);
  EXPECT_EQ(ThreadPool(3).nodes(), std::min<int>(3, static_cast<int>(machine.nodes.size())));
}

// Seconds for a fixed piece of work in the shape of ten tokens.
double seconds_of_tokens(ThreadPool& pool) {
  const auto start = std::chrono::steady_clock::now();
  for (int loop = 0; loop < 2500; ++loop) {
    pool.parallel_for(256, 1, [](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        volatile float value = 1.0f;
        for (int k = 0; k < 16; ++k) value = value * 0.999f + 0.001f;
      }
    });
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A loop must not wait for a worker that the system does not run. Measured: 2 to 4 times the time
// alone; barriers that spin take hundreds, a time slice in each loop. Best of three, because the
// machine may have other neighbours than ours.
double slowdown(int threads, int neighbours) {
  ThreadPool alone(available_cores());
  ThreadPool pool(threads);
  double fastest_alone = 1e9;
  double fastest = 1e9;
  for (int round = 0; round < 3; ++round) {
    fastest_alone = std::min(fastest_alone, seconds_of_tokens(alone));
    std::atomic<bool> stop{false};
    std::vector<std::thread> busy;
    for (int i = 0; i < neighbours; ++i) {
      busy.emplace_back([&] {
        while (!stop.load()) std::atomic_signal_fence(std::memory_order_seq_cst);
      });
    }
    fastest = std::min(fastest, seconds_of_tokens(pool));
    stop = true;
    for (auto& thread : busy) thread.join();
  }
  return fastest / fastest_alone;
}

TEST(ThreadPoolTest, TwiceAsManyThreadsAsCores) {
  EXPECT_LT(slowdown(2 * available_cores(), 0), 15);
}

TEST(ThreadPoolTest, BusyNeighbourOnEveryCore) {
  EXPECT_LT(slowdown(available_cores(), available_cores()), 15);
}

TEST(ThreadPoolTest, TwiceAsManyThreadsAndBusyNeighbours) {
  EXPECT_LT(slowdown(2 * available_cores(), available_cores()), 25);
}

}  // namespace
}  // namespace nibble
