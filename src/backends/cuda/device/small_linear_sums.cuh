// The way of the sums out of the warps of kernels/small_linear.h.
#pragma once

#include "backends/cuda/device/cluster_store.cuh"
#include "backends/cuda/device/mbarrier.cuh"
#include "backends/cuda/device/silu.cuh"
#include "backends/cuda/device/small_linear_shape.cuh"

namespace nibble::cuda::small {

// What becomes of the complete sums of one cell, rows g and g + 8, tokens 2c and 2c + 1; `up` are
// those of the other weight of a pair.
template <class S>
__device__ __forceinline__ void finish(const Arguments& args, int task, int cell, int lane,
                                       const float (&sums)[4], const float (&up)[4]) {
  const int tile = cell / S::kTokenTiles;
  const int token = cell % S::kTokenTiles * 8 + lane % 4 * 2;
  const Place at = place_of<S>(args, task, tile);
  const Part& part = args.parts[at.part];
  const int row = at.tile * 16 + lane / 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (token + i % 2 >= args.m) continue;
    const int r = row + i / 2 * 8;
    float value = sums[i] + (part.bias != nullptr ? part.bias[r] : 0.0f);
    if (S::kPair) {
      const float* bias = args.parts[1].bias;
      value = silu_times(value, up[i] + (bias != nullptr ? bias[r] : 0.0f));
    }
    float* y = part.y + (token + i % 2) * part.y_stride + r;
    *y = args.accumulate ? *y + value : value;
  }
}

#if __CUDA_ARCH__ >= 900
// How the sums of a task come together. Warps of the same place (warp / splits) in a cluster's
// blocks work on the same task at about the same time; block place % slices owns it, where the
// place's warps take the results in turn. Barrier `full` there counts the bytes that arrive;
// barrier `free` in every block says that the owner is done with the last ones.
template <class S>
class Exchange {
 public:
  __device__ Exchange(unsigned char* shared, std::uint64_t* barriers, const Arguments& args,
                      int rank, int warp, int lane)
      : slices_(args.slices),
        splits_(args.splits),
        rank_(rank),
        split_(warp % splits_),
        lane_(lane) {
    const int place = warp / splits_;
    owner_ = place % slices_;
    cells_ =
        shared_address(shared) + place / slices_ * slices_ * splits_ * kSenderBytes + lane * 16;
    full_ = shared_address(barriers + place);
    free_ = shared_address(barriers + kWarps + place);
  }

  // By all warps, before the blocks of the cluster meet.
  __device__ __forceinline__ void open() const {
    if (lane_ != 0 || split_ != 0) return;
    init_barrier(full_, 1);
    init_barrier(free_, min(splits_, S::kResults));
    publish_barriers();
    if (rank_ == owner_) expect();
  }

  __device__ __forceinline__ void send(const Sums<S>& sums) {
    if (sent_ > 0) wait_barrier(free_, (sent_ - 1) & 1);
    ++sent_;
    const std::uint32_t to = cells_ + (rank_ * splits_ + split_) * kSenderBytes;
#pragma unroll
    for (int i = 0; i < S::kCells; ++i) {
      const float(&v)[4] = sums[i / S::kTokenTiles][i % S::kTokenTiles];
      store_counted_at(to + i * kCellBytes, owner_, make_float4(v[0], v[1], v[2], v[3]), full_);
    }
  }

  // This warp has results to complete.
  __device__ __forceinline__ bool waits() const {
    return rank_ == owner_ && split_ < S::kResults && received_ < sent_;
  }

  // Completes them, in the order of k. more: others will be sent.
  __device__ __forceinline__ void receive(const Arguments& args, int task, bool more) {
    wait_barrier(full_, received_ & 1);
    ++received_;
    for (int result = split_; result < S::kResults; result += splits_) {
      float sums[4];
      float up[4] = {};
      add_up(result, sums);
      if (S::kPair) add_up(result + S::kResults, up);
      finish<S>(args, task, result, lane_, sums, up);
    }
    __syncwarp();
    if (!more) return;
    if (lane_ == 0 && split_ == 0) expect();
    __syncwarp();
    if (lane_ < slices_) arrive_at(free_, lane_);
  }

 private:
  static constexpr int kSenderBytes = S::kCells * kCellBytes;

  __device__ __forceinline__ void expect() const {
    arrive_expecting(full_, slices_ * splits_ * kSenderBytes);
  }

  __device__ __forceinline__ void add_up(int cell, float (&sums)[4]) const {
    for (float& sum : sums) sum = 0;
    for (int sender = 0; sender < slices_ * splits_; ++sender) {
      float v[4];
      asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                   : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
                   : "r"(cells_ + sender * kSenderBytes + cell * kCellBytes)
                   : "memory");
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[i] += v[i];
    }
  }

  int slices_, splits_, rank_, split_, lane_, owner_;
  std::uint32_t cells_, full_, free_;
  int sent_ = 0;
  int received_ = 0;
};
#endif

}  // namespace nibble::cuda::small
