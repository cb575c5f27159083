// Working memory that a thread keeps between calls, so that large calls do not fault in fresh
// pages.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace nibble::cpu {

// Grows only; uninitialised; aligned to 64 bytes. Not for two uses at once on one thread: each
// purpose has its own thread_local instance.
class Scratch {
 public:
  float* floats(std::int64_t count) {
    if (count > capacity_) {
      data_.reset();
      data_.reset(static_cast<float*>(
          ::operator new (static_cast<std::size_t>(count) * sizeof(float), std::align_val_t{64})));
      capacity_ = count;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<float, Free> data_;
  std::int64_t capacity_ = 0;
};

}  // namespace nibble::cpu
