#include "backends/device_limits.h"

#include <chrono>

#include "backends/card_limits.h"
#include "backends/cpu/probe.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

double measure_copy(Backend& backend, std::size_t bytes, double seconds) {
  DeviceMemory& memory = backend.memory();
  const auto count = static_cast<std::int64_t>(bytes);
  Tensor from = memory.allocate(DType::kU8, {count});
  Tensor to = memory.allocate(DType::kU8, {count});
  memory.zero(from.address(), bytes);
  const auto copy = [&](int times) {
    for (int i = 0; i < times; ++i) memory.copy(from.address(), bytes, to.address());
    std::byte last;
    memory.copy_out(to.address(), 1, &last);  // waits
  };
  copy(1);
  constexpr int kBurst = 16;  // copies between two looks at the clock
  const auto start = Clock::now();
  double spent = 0;
  std::int64_t copies = 0;
  do {
    copy(kBurst);
    copies += kBurst;
    spent = std::chrono::duration<double>(Clock::now() - start).count();
  } while (spent < seconds);
  return 2 * static_cast<double>(bytes) * static_cast<double>(copies) / spent;
}

SpeedLimits measure_limits(Backend& backend) {
  if (backend.memory().is_host()) {
    const cpu::MachineLimits limits = cpu::measure_machine(backend.pool(), backend.caps());
    return {limits.read_bandwidth.all_threads,
            [limits](Arithmetic arithmetic) { return limits.peak(arithmetic).all_threads; }};
  }
  const std::unique_ptr<CardTimer> timer = open_card_timer(backend);
  if (timer == nullptr) fail(ErrorKind::kInternal, "measure_limits: no host, and no card");
  CardLimitsOptions options;
  options.seconds = 1;
  const CardLimits limits = measure_card(backend, *timer, options);
  return {limits.copy_bytes_per_second,
          [limits](Arithmetic arithmetic) { return limits.operations_per_second(arithmetic); }};
}

}  // namespace nibble
