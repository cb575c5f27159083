// What the machine that runs the ops reaches: measured limits that speeds are compared with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "backends/backend.h"

namespace nibble {

// Bytes read and bytes written a second by copies within the backend's memory, for so long.
double measure_copy(Backend& backend, std::size_t bytes, double seconds);

// What every speed is held against, all threads together; zero is not known.
struct SpeedLimits {
  double bytes_per_second = 0;
  std::function<double(Arithmetic)> operations_per_second = [](Arithmetic) { return 0.0; };
};

// By the probes of the CPU (cpu/probe.h), or by measure_card() (card_limits.h).
SpeedLimits measure_limits(Backend& backend);

}  // namespace nibble
