#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace nibble {
namespace {

void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // `yield` does nothing on most cores
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
  constexpr int kLooksAtOnce = 16;  // the clock takes as long as a few looks
  if (!allowed) return;
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < kLooksAtOnce; ++i) {
      if (done()) return;
      pause_processor();
    }
  } while (std::chrono::steady_clock::now() - start < kLongest);
}

void bind_to(const NumaNode& node) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : node.processors) CPU_SET(cpu, &set);
  (void)sched_setaffinity(0, sizeof(set), &set);  // slower without, never wrong
}

int node_of_caller(const std::vector<NumaNode>& nodes) {
  const int cpu = sched_getcpu();
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    if (std::ranges::count(nodes[n].processors, cpu) > 0) return static_cast<int>(n);
  }
  return 0;
}

// What one thread and the others touch; lines of their own, so that a thread which works through
// its share disturbs no other.
struct Slot {
  // Loop number, end and next piece of this thread's share in one word (Ticket): a chunk is taken
  // by a compare-and-swap, which fails once the loop is over. So a thread that the system did not
  // run in time takes nothing, and nobody waits for it. The end must not live in a word of its own:
  // a late thread could then take the end of one loop with the ticket of the loop before.
  alignas(64) std::atomic<std::uint64_t> ticket{0};

  // Twice the pieces that this thread has run in its life, plus 1 while the caller sleeps.
  alignas(64) std::atomic<std::uint64_t> done{0};

  alignas(64) std::mutex mutex;
  std::condition_variable wake;
  std::atomic<bool> asleep{false};
  std::vector<std::size_t> order;  // whose shares to work on: the own one, then those near by
};

struct Pieces {
  std::uint32_t begin;
  std::uint32_t end;
};

// Loop number in the high half, then 16 bits of end and 16 bits of next piece.
struct Ticket {
  std::uint32_t loop;
  Pieces left;

  explicit Ticket(std::uint64_t word)
      : loop(static_cast<std::uint32_t>(word >> 32)),
        left{static_cast<std::uint32_t>(word & kMostPieces),
             static_cast<std::uint32_t>(word >> 16 & kMostPieces)} {}
  Ticket(std::uint32_t number, Pieces pieces) : loop(number), left(pieces) {}

  std::uint64_t word() const {
    return std::uint64_t{loop} << 32 | std::uint64_t{left.end} << 16 | left.begin;
  }

  static constexpr std::uint32_t kMostPieces = 0xffff;
};

// A third of what is left of the share, so that chunks get small only at the end, where threads of
// unequal speed have to meet. Empty when there is none, or another loop is on.
Pieces take(Slot& slot, std::uint32_t loop) {
  std::uint64_t word = slot.ticket.load(std::memory_order_acquire);
  for (;;) {
    const Ticket ticket(word);
    const auto [begin, end] = ticket.left;
    if (ticket.loop != loop || begin >= end) return {0, 0};
    const std::uint32_t middle = begin + (end - begin + 2) / 3;
    if (slot.ticket.compare_exchange_weak(word, Ticket(loop, {middle, end}).word(),
                                          std::memory_order_acq_rel, std::memory_order_acquire)) {
      return {begin, middle};
    }
  }
}

}  // namespace

// The caller deals out shares and works with the others until there is nothing left to take; then
// it waits for the pieces that were taken, not for the threads.
struct ThreadPool::State {
  std::vector<Slot> slots;  // [threads]; the caller's is the first
  std::vector<std::thread> workers;
  int nodes = 1;
  bool may_spin = false;
  std::atomic<bool> stop{false};
  std::atomic<int> sleepers{0};
  std::mutex caller_mutex;
  std::condition_variable finished;

  // The loop in flight: written by the caller while no piece is out.
  const std::function<void(std::int64_t, std::int64_t)>* body = nullptr;
  std::int64_t count = 0;
  std::int64_t piece = 1;
  std::uint32_t loop = 0;      // goes round
  std::uint64_t expected = 0;  // pieces of all loops so far
  std::atomic<bool> failed{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  explicit State(std::size_t threads) : slots(threads) {}

  void run(std::size_t thread, Pieces pieces) {
    if (!failed.load(std::memory_order_relaxed)) {
      try {
        (*body)(pieces.begin * piece, std::min(pieces.end * piece, count));
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        failed.store(true, std::memory_order_relaxed);
      }
    }
    const std::uint64_t before =
        slots[thread].done.fetch_add(2 * (pieces.end - pieces.begin), std::memory_order_acq_rel);
    if (before % 2 == 1) {
      { const std::lock_guard lock(caller_mutex); }
      finished.notify_one();
    }
  }

  void work(std::size_t thread, std::uint32_t number) {
    for (const std::size_t owner : slots[thread].order) {
      for (;;) {
        const Pieces pieces = take(slots[owner], number);
        if (pieces.begin == pieces.end) break;
        run(thread, pieces);
      }
    }
  }

  void worker_main(std::size_t thread) {
    Slot& slot = slots[thread];
    std::uint32_t seen = 0;
    const auto loop_now = [&] { return Ticket(slot.ticket.load(std::memory_order_acquire)).loop; };
    const auto called = [&] { return loop_now() != seen || stop.load(std::memory_order_relaxed); };
    for (;;) {
      spin_until(may_spin, called);
      if (!called()) sleep(slot, called);
      if (stop.load(std::memory_order_relaxed)) return;
      seen = loop_now();
      work(thread, seen);
    }
  }

  // Both sides change `sleepers`, so one of them comes second and sees what the other did before.
  template <class Called>
  void sleep(Slot& slot, const Called& called) {
    std::unique_lock lock(slot.mutex);
    slot.asleep.store(true, std::memory_order_relaxed);
    sleepers.fetch_add(1, std::memory_order_acq_rel);
    slot.wake.wait(lock, called);
    sleepers.fetch_sub(1, std::memory_order_acq_rel);
    slot.asleep.store(false, std::memory_order_relaxed);
  }

  void wake_workers(std::size_t up_to) {
    if (sleepers.fetch_add(0, std::memory_order_acq_rel) == 0) return;
    for (std::size_t i = 1; i < up_to; ++i) {
      if (!slots[i].asleep.load(std::memory_order_relaxed)) continue;
      { const std::lock_guard lock(slots[i].mutex); }
      slots[i].wake.notify_one();
    }
  }

  void start(std::uint32_t pieces) {
    ++loop;
    expected += pieces;
    failed.store(false, std::memory_order_relaxed);
    error = nullptr;
    const auto shares = static_cast<std::uint32_t>(std::min<std::size_t>(slots.size(), pieces));
    for (std::uint32_t i = shares; i-- > 0;) {  // the caller's own last: the others can begin
      const Ticket share(loop, {pieces * i / shares, pieces * (i + 1) / shares});
      slots[i].ticket.store(share.word(), std::memory_order_release);
    }
    wake_workers(shares);
  }

  bool all_done() const {
    std::uint64_t sum = 0;
    for (const Slot& slot : slots) sum += slot.done.load(std::memory_order_acquire) / 2;
    return sum == expected;
  }

  void finish() {
    const auto done = [this] { return all_done(); };
    spin_until(may_spin, done);
    if (done()) return;
    for (Slot& slot : slots) slot.done.fetch_or(1, std::memory_order_acq_rel);
    {
      std::unique_lock lock(caller_mutex);
      finished.wait(lock, done);
    }
    for (Slot& slot : slots) slot.done.fetch_and(~std::uint64_t{1}, std::memory_order_relaxed);
  }
};

ThreadPool::ThreadPool(int threads, const Topology& topology)
    : state_(std::make_unique<State>(
          static_cast<std::size_t>(threads > 0 ? threads : topology.cores))) {
  State& s = *state_;
  const int total = this->threads();
  s.may_spin = total <= topology.cores;
  const std::vector<int> node_of =
      spread_threads(topology.nodes, total, node_of_caller(topology.nodes));
  s.nodes =
      1 + static_cast<int>(std::ranges::count_if(node_of, [&, last = node_of[0]](int n) mutable {
        return std::exchange(last, n) != n;
      }));
  for (std::size_t i = 0; i < s.slots.size(); ++i) {
    std::vector<std::size_t>& order = s.slots[i].order;
    for (std::size_t k = 0; k < s.slots.size(); ++k) order.push_back((i + k) % s.slots.size());
    std::stable_partition(order.begin(), order.end(),
                          [&](std::size_t k) { return node_of[k] == node_of[i]; });
  }
  for (std::size_t i = 1; i < s.slots.size(); ++i) {
    const NumaNode* home = nullptr;
    if (s.nodes > 1) home = &topology.nodes[static_cast<std::size_t>(node_of[i])];
    s.workers.emplace_back([&s, i, node = home != nullptr ? *home : NumaNode{}] {
      if (!node.processors.empty()) bind_to(node);
      s.worker_main(i);
    });
  }
}

ThreadPool::~ThreadPool() {
  State& s = *state_;
  s.stop.store(true);
  s.wake_workers(s.slots.size());
  for (auto& worker : s.workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->slots.size()); }

int ThreadPool::nodes() const { return state_->nodes; }

void ThreadPool::parallel_for(std::int64_t count, std::int64_t grain,
                              const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (count <= 0) return;
  constexpr std::int64_t kPiecesOfThread = 32;
  State& s = *state_;
  const std::int64_t most =
      std::min<std::int64_t>(kPiecesOfThread * threads(), Ticket::kMostPieces);
  s.piece = std::max({std::int64_t{1}, grain, (count + most - 1) / most});
  const std::int64_t pieces = (count + s.piece - 1) / s.piece;
  if (threads() == 1 || pieces == 1) {
    body(0, count);
    return;
  }
  s.body = &body;
  s.count = count;
  s.start(static_cast<std::uint32_t>(pieces));
  s.work(0, s.loop);
  s.finish();
  if (s.failed.load(std::memory_order_relaxed)) std::rethrow_exception(s.error);
}

}  // namespace nibble
