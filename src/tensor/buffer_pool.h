// Float buffers that are used again, so that the next call need not fault in fresh pages.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace nibble {

// Not thread-safe.
class BufferPool {
 public:
  using Allocate = std::function<Tensor(std::int64_t count)>;  // F32 [count]

  BufferPool(Allocate allocate, std::size_t max_free_bytes)
      : allocate_(std::move(allocate)), max_free_bytes_(max_free_bytes) {}

  // F32 [elements >= count], not initialised. kMemory when it cannot be had.
  Tensor take(std::int64_t count);
  // For a later take(). Beyond max_free_bytes those that lay unused longest are freed.
  void give(Tensor buffer);

  std::size_t free_bytes() const;

 private:
  Allocate allocate_;
  std::size_t max_free_bytes_;
  std::vector<Tensor> free_;  // the last one was given last
};

}  // namespace nibble
