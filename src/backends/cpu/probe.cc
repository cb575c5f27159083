#include "backends/cpu/probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>

#include "backends/cpu/levels.h"
#include "tensor/tensor.h"

namespace nibble::cpu {
namespace {

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// What keeps the compiler from dropping a probe.
std::atomic<double> g_sink{0};

// The best rate of several bursts of `work`, each of which does `amount` on every thread that calls
// it. All threads: one call a thread, started together; the slowest ends the burst.
double best_rate(ThreadPool& pool, int threads, double amount,
                 const std::function<void(std::int64_t thread)>& work) {
  constexpr int kBursts = 12;
  double best = 0;
  for (int burst = 0; burst < kBursts; ++burst) {
    const double seconds = seconds_of([&] {
      if (threads == 1) return work(0);
      pool.parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) work(i);
      });
    });
    best = std::max(best, amount * threads / seconds);
  }
  return best;
}

Rate rate(ThreadPool& pool, double amount, const std::function<void(std::int64_t thread)>& work) {
  return {best_rate(pool, 1, amount, work), best_rate(pool, pool.threads(), amount, work)};
}

Rate measure_bandwidth(ThreadPool& pool, const KernelTable& kernels) {
  constexpr std::int64_t kBytes = std::int64_t{256} << 20;
  Tensor block = Tensor::allocate(DType::kF32, {kBytes / 4});
  float* data = block.mutable_data<float>();
  pool.parallel_for(kBytes / 4, 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    std::fill(data + begin, data + end, 1.0f);  // a page that was never written is no memory
  });
  // Every thread reads a share of its own, as it would the rows of a weight.
  const std::int64_t share = kBytes / 4 / pool.threads();
  return rate(pool, static_cast<double>(share * 4), [&](std::int64_t thread) {
    g_sink = static_cast<double>(kernels.probe_read(data + thread * share, share));
  });
}

Rate measure_peak(ThreadPool& pool, const ArithmeticProbe& probe) {
  constexpr double kOperations = 1e9;  // of a burst: a millisecond or more
  const auto rounds = static_cast<std::int64_t>(kOperations / probe.operations);
  return rate(pool, probe.operations * static_cast<double>(rounds),
              [&](std::int64_t) { g_sink = static_cast<double>(probe.run(rounds)); });
}

const KernelTable& widest_kernels(const DeviceCaps& caps) {
  for (const Level* level : kLevels) {
    if (level->usable(caps)) return level->kernels();
  }
  return generic_kernels();
}

}  // namespace

MachineLimits measure_machine(ThreadPool& pool, const DeviceCaps& caps) {
  MachineLimits limits;
  for (const Probed& probed : kProbed) {
    if (!probed.usable(caps)) continue;
    limits.peaks.push_back({probed.isa, probed.arithmetic, measure_peak(pool, probed.probe())});
  }
  limits.read_bandwidth = measure_bandwidth(pool, widest_kernels(caps));
  return limits;
}

Rate MachineLimits::peak(Arithmetic arithmetic) const {
  if (arithmetic == Arithmetic::kSignedInt8) arithmetic = Arithmetic::kInt8;
  Rate best;
  for (const ArithmeticPeak& peak : peaks) {
    if (peak.arithmetic == arithmetic && peak.rate.all_threads > best.all_threads) best = peak.rate;
  }
  return best;
}

}  // namespace nibble::cpu
