// The way of packed weights into the warps of kernels/small_linear.h: a ring of stages in
// shared memory that is private to each warp and, for the codes, to each lane.
#pragma once

#include "backends/cuda/device/async_copy.cuh"
#include "backends/cuda/device/small_linear_shape.cuh"

namespace nibble::cuda::small {

// Fills a warp's ring, chunk after chunk of its tasks.
template <class S>
class Loader {
 public:
  __device__ Loader(const Arguments& args, const Range& range, int warp, int lane,
                    std::uint32_t ring)
      : args_(args), range_(range), lane_(lane), ring_(ring), policy_(evict_first_policy()) {
    first_chunk_ = chunk_ = warp % args.splits;
    task_ = range.first_task + warp / args.splits;
    if (chunk_ >= range.chunks) task_ = range.end_task;
    place();
  }

  // Starts the copies of the next chunk, if there is one, as one group.
  __device__ __forceinline__ void load() {
    if (task_ < range_.end_task) {
      const int chunk = range_.first_chunk + chunk_;
      const std::uint32_t to = ring_ + stage_ * S::kStageBytes + lane_ * 16;
      const bool second = 2 * chunk + 1 < args_.units;
#pragma unroll
      for (int t = 0; t < S::kTiles; ++t) {
        const unsigned char* codes = codes_[t / S::kTilesOfPart] +
                                     t % S::kTilesOfPart * S::kTileBytes +
                                     static_cast<std::int64_t>(chunk) * 8 * S::kTileBytes;
#pragma unroll
        for (int i = 0; i < S::kLoads; ++i) {
          const int from = i * kLoadBytes;
          const std::uint32_t at = to + t * 2 * S::kTileBytes + from;
          copy_async(at, codes + from, true, policy_);
          copy_async(at + S::kTileBytes, codes + 4 * S::kTileBytes + from, second, policy_);
        }
      }
      if (numbers_ != nullptr) {
        const int group = args_.groups == 1 ? 0 : chunk * S::kGroups + group_;
        copy_async<16>(to + S::kCodeBytes, numbers_ + static_cast<std::int64_t>(group) * stride_,
                       group < args_.groups);
      }
      stage_ = stage_ + 1 == S::kStages ? 0 : stage_ + 1;
      chunk_ += args_.splits;
      if (chunk_ >= range_.chunks) {
        chunk_ = first_chunk_;
        task_ += kWarps / args_.splits;
        place();
      }
    }
    end_copy_group();
  }

 private:
  // Addresses of the task's tiles.
  __device__ __forceinline__ void place() {
    if (task_ >= range_.end_task) return;
#pragma unroll
    for (int i = 0; i < S::kParts; ++i) {
      const Place at = place_of<S>(args_, task_, i * S::kTilesOfPart);
      codes_[i] = args_.parts[at.part].codes +
                  (static_cast<std::int64_t>(at.tile >> 2) * args_.units * 4 + (at.tile & 3)) *
                      S::kTileBytes +
                  lane_ * 16;
    }
    // Pieces: two of scales for each tile and group; then one of zero points for each.
    constexpr int kScalePieces = S::kTiles * S::kGroups * 2;
    const bool zeros = lane_ >= kScalePieces;
    const int of = zeros ? lane_ - kScalePieces : lane_ >> 1;
    group_ = of % S::kGroups;
    numbers_ = nullptr;
    if (lane_ >= S::kPieces) return;
    const Place at = place_of<S>(args_, task_, of / S::kGroups);
    const Part& part = args_.parts[at.part];
    if (zeros && part.zeros == nullptr) return;
    const std::int64_t row =
        static_cast<std::int64_t>(at.tile >> 2) * args_.groups * 64 + (at.tile & 3) * 16;
    numbers_ = zeros ? part.zeros + row : part.scales + row * 2 + (lane_ & 1) * 16;
    stride_ = zeros ? 64 : 128;
  }

  const Arguments& args_;
  const Range& range_;
  int lane_;
  std::uint32_t ring_;
  std::uint64_t policy_;
  int task_;
  int first_chunk_, chunk_;
  int stage_ = 0;
  const unsigned char* codes_[S::kParts];   // neighbours lie side by side
  const unsigned char* numbers_ = nullptr;  // the lane's piece
  int stride_ = 0;                          // bytes from group to group
  int group_ = 0;                           // of the piece in the chunk
};

}  // namespace nibble::cuda::small
