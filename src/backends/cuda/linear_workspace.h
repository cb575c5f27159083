// Parts of one op's workspace.
#pragma once

#include <cstddef>
#include <utility>

#include "backends/cuda/queue.h"

namespace nibble::cuda {

inline constexpr std::size_t kBlasWorkspace = std::size_t{32} << 20;

inline std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

class Workspace {
 public:
  Workspace(DeviceQueue& queue, std::size_t bytes)
      : next_(static_cast<std::byte*>(queue.workspace(bytes))) {}
  void* take(std::size_t bytes) { return std::exchange(next_, next_ + aligned(bytes)); }

 private:
  std::byte* next_;
};

}  // namespace nibble::cuda
