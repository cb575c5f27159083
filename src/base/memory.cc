#include "base/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>

namespace nibble {
namespace {

// The value in kB of a "Name:   123 kB" line of a /proc file, in bytes; 0 when it is not there.
std::int64_t proc_field_bytes(const char* path, const std::string& name) {
  std::ifstream file(path);
  std::string key;
  while (file >> key) {
    if (key == name) {
      std::int64_t kilobytes = 0;
      file >> kilobytes;
      return kilobytes * 1024;
    }
    std::getline(file, key);
  }
  return 0;
}

}  // namespace

std::int64_t anonymous_bytes() { return proc_field_bytes("/proc/self/status", "RssAnon:"); }

std::int64_t available_memory_bytes() { return proc_field_bytes("/proc/meminfo", "MemAvailable:"); }

void prefer_huge_pages(void* data, std::size_t bytes) {
  constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;
  const auto at = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t begin = (at + kHugePage - 1) / kHugePage * kHugePage;
  const std::uintptr_t end = (at + bytes) / kHugePage * kHugePage;
  if (begin >= end) return;
  (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice only
}

PeakMemoryMeter::PeakMemoryMeter() {
  sample();
  thread_ = std::thread([this] {
    while (!stop_.load()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      sample();
    }
  });
}

PeakMemoryMeter::~PeakMemoryMeter() {
  stop_.store(true);
  thread_.join();
}

void PeakMemoryMeter::sample() {
  const std::int64_t now = anonymous_bytes();
  std::int64_t seen = peak_.load();
  while (now > seen && !peak_.compare_exchange_weak(seen, now)) {
  }
}

std::int64_t PeakMemoryMeter::peak_bytes() const {
  return std::max(peak_.load(), anonymous_bytes());
}

}  // namespace nibble
