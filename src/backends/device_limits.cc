#include "backends/device_limits.h"

#include <chrono>
#include <functional>
#include <random>

#include "backends/card_limits.h"
#include "backends/cpu/probe.h"
#include "formats/registry.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

// Seconds of one call. `wait` returns when all work issued so far has ended.
double seconds_each(double budget, const std::function<void()>& call,
                    const std::function<void()>& wait) {
  call();
  wait();
  constexpr int kBurst = 16;  // calls between two looks at the clock
  const auto start = Clock::now();
  double spent = 0;
  std::int64_t calls = 0;
  do {
    for (int i = 0; i < kBurst; ++i) call();
    wait();
    calls += kBurst;
    spent = std::chrono::duration<double>(Clock::now() - start).count();
  } while (spent < budget);
  return spent / static_cast<double>(calls);
}

// Random numbers: zeros run faster than what a model holds.
Tensor random_floats(std::int64_t count) {
  Tensor values = Tensor::allocate(DType::kF32, {count});
  std::minstd_rand random(1);
  float* const to = values.mutable_data<float>();
  for (std::int64_t i = 0; i < count; ++i) {
    to[i] = static_cast<float>(random()) / static_cast<float>(std::minstd_rand::max()) - 0.5f;
  }
  return values;
}

}  // namespace

double measure_copy(Backend& backend, std::size_t bytes, double seconds) {
  DeviceMemory& memory = backend.memory();
  const auto count = static_cast<std::int64_t>(bytes);
  Tensor from = memory.allocate(DType::kU8, {count});
  Tensor to = memory.allocate(DType::kU8, {count});
  memory.zero(from.address(), bytes);
  const double copy = seconds_each(
      seconds, [&] { memory.copy(from.address(), bytes, to.address()); },
      [&] {
        std::byte last;
        memory.copy_out(to.address(), 1, &last);
      });
  return 2 * static_cast<double>(bytes) / copy;
}

DeviceLimits measure_device(Backend& backend, const DeviceLimitsOptions& options) {
  DeviceMemory& memory = backend.memory();
  DeviceLimits limits;
  limits.copy_bytes_per_second = measure_copy(backend, options.copy_bytes, options.seconds);
  const std::int64_t side = options.side;
  const Tensor values = random_floats(side * side);
  const LinearWeight weight =
      backend.prepare(parse_weight_format("bf16")->encode(values.data<float>(), side, side));
  const Tensor x = memory.upload(values);
  Tensor y = memory.allocate(DType::kF32, {side, side});
  LinearArgs args;
  args.x = x.data<float>();
  args.x_stride = side;
  args.m = side;
  args.w = &weight;
  args.y = y.mutable_data<float>();
  args.y_stride = side;
  const double product = seconds_each(
      options.seconds, [&] { backend.run(args); },
      [&] {
        float last;
        memory.copy_out(y.address(), sizeof(last), &last);
      });
  limits.product_operations_per_second =
      2 * static_cast<double>(side * side) * static_cast<double>(side) / product;
  return limits;
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
