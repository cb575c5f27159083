// What a parallel loop costs: an empty one, one in which all threads meet, one after a pause that
// lets the workers fall asleep, and a fixed piece of arithmetic cut into loops as a token is; alone
// or beside busy neighbours, and beside OpenMP where the compiler has it.
//
//   bench_thread_pool [threads [neighbours]]
#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "base/thread_pool.h"

namespace {

using Body = std::function<void(std::int64_t, std::int64_t)>;
// Runs a body over [0, count) on some number of threads.
using Loop = std::function<void(std::int64_t count, const Body& body)>;

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median_seconds(int rounds, const std::function<void()>& work) {
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) times.push_back(seconds_of(work));
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return times[static_cast<std::size_t>(rounds / 2)];
}

// About 15 ns an item.
void multiply(std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    volatile float value = 1.0f;
    for (int k = 0; k < 16; ++k) value = value * 0.999f + 0.001f;
  }
}

double empty_loop(int threads, const Loop& loop) {
  constexpr int kLoops = 2000;
  const Body nothing = [](std::int64_t, std::int64_t) {};
  return median_seconds(15,
                        [&] {
                          for (int i = 0; i < kLoops; ++i) loop(threads, nothing);
                        }) /
         kLoops;
}

// No thread leaves its item before every thread has one: there and back for all of them.
double meeting(int threads, const Loop& loop) {
  constexpr int kLoops = 500;
  std::atomic<int> arrived{0};
  int expected = 0;
  const Body meet = [&](std::int64_t begin, std::int64_t end) {
    arrived += static_cast<int>(end - begin);
    while (arrived.load() < expected) std::atomic_signal_fence(std::memory_order_seq_cst);
  };
  return median_seconds(15,
                        [&] {
                          for (int i = 0; i < kLoops; ++i) {
                            expected += threads;
                            loop(threads, meet);
                          }
                        }) /
         kLoops;
}

double loop_after_sleep(int threads, const Loop& loop) {
  constexpr int kLoops = 200;
  double seconds = 0;
  for (int i = 0; i < kLoops; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    seconds += seconds_of([&] { loop(threads, [](std::int64_t, std::int64_t) {}); });
  }
  return seconds / kLoops;
}

void report(const char* name, int threads, bool alone, const Loop& loop) {
  // 264 loops of 512 items: the shape of a token of a small model.
  constexpr int kTokens = 50;
  constexpr int kLoopsOfToken = 264;
  const double empty = empty_loop(threads, loop);
  // Threads that meet while others hold the cores measure the scheduler of the system.
  const double meet = alone && threads <= nibble::available_cores() ? meeting(threads, loop) : 0;
  const double asleep = loop_after_sleep(threads, loop);
  const double token = seconds_of([&] {
    for (int i = 0; i < kTokens * kLoopsOfToken; ++i) loop(512, multiply);
  });
  const double single = seconds_of([&] {
    for (int i = 0; i < kTokens * kLoopsOfToken; ++i) multiply(0, 512);
  });
  std::printf(
      "%-6s %2d threads: empty loop %.0f ns, all meet %.0f ns, after 1 ms %.0f ns; "
      "token %.2f ms, on one thread %.2f ms\n",
      name, threads, empty * 1e9, meet * 1e9, asleep * 1e9, token / kTokens * 1e3,
      single / kTokens * 1e3);
}

#ifdef _OPENMP
void openmp_loop(int threads, std::int64_t count, const Body& body) {
#pragma omp parallel num_threads(threads)
  {
    const std::int64_t i = omp_get_thread_num();
    const std::int64_t n = omp_get_num_threads();
    body(count * i / n, count * (i + 1) / n);
  }
}
#endif

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : nibble::available_cores();
  const int neighbours = argc > 2 ? std::atoi(argv[2]) : 0;
  std::atomic<bool> stop{false};
  std::vector<std::thread> busy;
  for (int i = 0; i < neighbours; ++i) {
    busy.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) multiply(0, 100);
    });
  }
  {
    nibble::ThreadPool pool(threads);
    report("nibble", threads, neighbours == 0,
           [&](std::int64_t count, const Body& body) { pool.parallel_for(count, 1, body); });
  }
#ifdef _OPENMP
  report("openmp", threads, neighbours == 0,
         [&](std::int64_t count, const Body& body) { openmp_loop(threads, count, body); });
#endif
  stop = true;
  for (std::thread& thread : busy) thread.join();
}
