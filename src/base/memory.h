// Memory of this process and of the machine.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace nibble {

// Anonymous resident memory of this process now (heap, stacks; not mapped files), in bytes.
std::int64_t anonymous_bytes();

// Memory that can still be taken without swapping, in bytes.
std::int64_t available_memory_bytes();

// Watches anonymous_bytes() from a thread of its own for as long as it lives.
class PeakMemoryMeter {
 public:
  PeakMemoryMeter();
  ~PeakMemoryMeter();
  PeakMemoryMeter(const PeakMemoryMeter&) = delete;
  PeakMemoryMeter& operator=(const PeakMemoryMeter&) = delete;

  std::int64_t peak_bytes() const;

 private:
  void sample();

  std::atomic<std::int64_t> peak_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace nibble
