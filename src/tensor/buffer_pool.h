// Float buffers that are used again, so that the next call need not fault in fresh pages.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace nibble {

// Not thread-safe.
class BufferPool {
 public:
  // F32 [elements >= count], not initialised. kMemory when it cannot be had.
  Tensor take(std::int64_t count);
  // For a later take(). Beyond kMaxFreeBytes those that lay unused longest are freed.
  void give(Tensor buffer);

  std::size_t free_bytes() const;

  static constexpr std::size_t kMaxFreeBytes = std::size_t{256} << 20;

 private:
  std::vector<Tensor> free_;  // the last one was given last
};

}  // namespace nibble
