// Memory of this process and of the machine.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

namespace nibble {

// Anonymous resident memory of this process now (heap, stacks; not mapped files), in bytes.
std::int64_t anonymous_bytes();

// Memory that can still be taken without swapping, in bytes.
std::int64_t available_memory_bytes();

// Asks for huge pages, where the system has some to give, for what lies wholly within this memory
// and was never touched.
void prefer_huge_pages(void* data, std::size_t bytes);

// An empty vector with room for so many elements, on huge pages if it is large: faulting in
// gigabytes in small ones takes longer than to fill them.
template <class T>
std::vector<T> with_room(std::size_t count) {
  std::vector<T> result;
  result.reserve(count);
  prefer_huge_pages(result.data(), count * sizeof(T));
  return result;
}

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
