#include "tensor/buffer_pool.h"

#include <algorithm>

namespace nibble {

Tensor BufferPool::take(std::int64_t count) {
  // One more than twice as large is better kept for a larger use.
  auto best = free_.end();
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    const bool fits = it->elements() >= count && it->elements() / 2 <= count;
    if (fits && (best == free_.end() || it->elements() <= best->elements())) best = it;
  }
  if (best == free_.end()) return allocate_(count);
  Tensor buffer = std::move(*best);
  free_.erase(best);
  return buffer;
}

void BufferPool::give(Tensor buffer) {
  free_.push_back(std::move(buffer));
  while (free_bytes() > max_free_bytes_) free_.erase(free_.begin());
}

std::size_t BufferPool::free_bytes() const {
  std::size_t bytes = 0;
  for (const Tensor& buffer : free_) bytes += buffer.byte_size();
  return bytes;
}

}  // namespace nibble
