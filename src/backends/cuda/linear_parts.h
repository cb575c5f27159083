// What implementations of linear share: parts of one op's workspace, and biases.
#pragma once

#include <cstddef>
#include <utility>

#include "backends/cuda/kernels/row_ops.h"
#include "backends/cuda/queue.h"
#include "ops/args.h"

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

// y = bias, or y += bias where the call accumulates: for products that are added to it.
inline void put_bias(const LinearArgs& args, DeviceQueue& queue) {
  queue.launch("bias",
               BiasRows{args.bias, args.y, args.y_stride, args.m, args.w->canonical.rows,
                        args.accumulate ? 1 : 0},
               bias_rows);
}

}  // namespace nibble::cuda
