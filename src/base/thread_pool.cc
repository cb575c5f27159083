#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace nibble {

// Hyper-threads share one core id.
int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) {
    return std::max(1u, std::thread::hardware_concurrency());
  }
  std::set<std::pair<int, int>> cores;
  int processors = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    ++processors;
    const std::string topology = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    int package = 0;
    int core = cpu;  // without the file every processor counts as a core
    std::ifstream(topology + "physical_package_id") >> package;
    if (std::ifstream file(topology + "core_id"); file) file >> core;
    cores.insert({package, core});
  }
  return std::max(1, std::min<int>(processors, static_cast<int>(cores.size())));
}

namespace {

void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Loops of one op follow each other within microseconds, and waking a sleeping thread costs tens of
// them: so a thread that waits spins first, but never for long, and not at all when there are more
// threads than cores, because then it would hold up the thread that it waits for.
template <class Done>
void spin_until(bool allowed, const Done& done) {
  constexpr auto kLongest = std::chrono::microseconds(50);
  if (!allowed) return;
  const auto start = std::chrono::steady_clock::now();
  while (!done() && std::chrono::steady_clock::now() - start < kLongest) pause_processor();
}

}  // namespace

// A loop is open from its start until the caller has found no chunk left. Workers join an open
// loop; one that wakes up late finds it closed and is not waited for, so that a thread which the
// system does not run cannot hold up the others.
struct ThreadPool::State {
  std::vector<std::thread> workers;
  bool may_spin = false;
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable finished;
  std::atomic<std::uint64_t> generation{0};  // changed under the mutex, as what follows
  std::atomic<int> active{0};                // workers inside the loop
  int sleepers = 0;
  bool open = false;
  bool stop = false;

  // The loop in flight.
  const std::function<void(std::int64_t, std::int64_t)>* body = nullptr;
  std::int64_t count = 0;
  std::int64_t chunk = 1;
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;

  void work() {
    for (;;) {
      const std::int64_t begin = next.fetch_add(chunk);
      if (begin >= count) return;
      try {
        (*body)(begin, std::min(begin + chunk, count));
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
        next.store(count);
      }
    }
  }

  void worker_main() {
    std::uint64_t seen = 0;
    for (;;) {
      spin_until(may_spin, [&] { return generation.load() != seen; });
      {
        std::unique_lock lock(mutex);
        ++sleepers;
        wake.wait(lock, [&] { return stop || generation.load() != seen; });
        --sleepers;
        if (stop) return;
        seen = generation.load();
        if (!open) continue;
        ++active;
      }
      work();
      const std::lock_guard lock(mutex);
      if (--active == 0) finished.notify_one();
    }
  }

  void start(std::int64_t items, std::int64_t step,
             const std::function<void(std::int64_t, std::int64_t)>& loop_body) {
    bool notify = false;
    {
      const std::lock_guard lock(mutex);
      body = &loop_body;
      count = items;
      chunk = step;
      next.store(0);
      error = nullptr;
      open = true;
      ++generation;
      notify = sleepers > 0;
    }
    if (notify) wake.notify_all();
  }

  void finish() {
    {
      const std::lock_guard lock(mutex);
      open = false;
    }
    spin_until(may_spin, [&] { return active.load() == 0; });
    std::unique_lock lock(mutex);
    finished.wait(lock, [&] { return active.load() == 0; });
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  const int cores = available_cores();
  const int total = threads > 0 ? threads : cores;
  state_->may_spin = total <= cores;
  for (int i = 1; i < total; ++i) {
    state_->workers.emplace_back([state = state_.get()] { state->worker_main(); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->wake.notify_all();
  for (auto& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::parallel_for(std::int64_t count, std::int64_t grain,
                              const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (count <= 0) return;
  grain = std::max<std::int64_t>(1, grain);
  // A few chunks a thread even out cores of unequal speed.
  const std::int64_t chunk = std::max(grain, count / (4 * threads()));
  if (threads() == 1 || count <= chunk) {
    body(0, count);
    return;
  }
  State& s = *state_;
  s.start(count, chunk, body);
  s.work();
  s.finish();
  if (s.error) std::rethrow_exception(s.error);
}

}  // namespace nibble
