// The way of the sums out of the warps of kernels/small_linear.h.
#pragma once

#include "backends/cuda/device/cluster_store.cuh"
#include "backends/cuda/device/mbarrier.cuh"
#include "backends/cuda/device/silu.cuh"
#include "backends/cuda/device/small_linear_digits.cuh"
#include "backends/cuda/device/small_linear_shape.cuh"

namespace nibble::cuda::small {

// Where the complete sums of one cell go, and what is there already, which is read before the sums
// are complete. Of digits a cell is as join_digits() leaves it; otherwise it is rows g and g + 8,
// tokens 2c and 2c + 1.
template <class S>
class Results {
 public:
  __device__ __forceinline__ Results(const Arguments& args, int task, int cell, int lane) {
    const int c = lane % 4;
    const int tile = S::kDigits ? c / 2 : cell / S::kTokenTiles;
    const int token = S::kDigits ? 0 : cell % S::kTokenTiles * 8 + c * 2;
    // Of a pair the second tile is `up`.
    if (S::kDigits && (c % 2 != 0 || tile >= S::kTilesOfPart)) return;
    count_ = min(args.m - token, 2);
    const Place at = place_of<S>(args, task, tile);
    const Part& part = args.parts[at.part];
    const int row = at.tile * 16 + lane / 4;
    y_ = part.y + token * part.y_stride + row;
    stride_ = part.y_stride;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + half * 8;
      bias_[half] = part.bias != nullptr ? part.bias[r] : 0.0f;
      if (S::kPair && args.parts[1].bias != nullptr) up_bias_[half] = args.parts[1].bias[r];
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        if (args.accumulate && t < count_) before_[half * 2 + t] = y_[t * stride_ + half * 8];
      }
    }
  }

  // up: the sums of the other weight of a pair.
  __device__ __forceinline__ void store(const float (&sums)[4], const float (&up)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i % 2 >= count_) continue;
      float value = sums[i] + bias_[i / 2];
      if (S::kPair) value = silu_times(value, up[i] + up_bias_[i / 2]);
      y_[i % 2 * stride_ + i / 2 * 8] = before_[i] + value;
    }
  }

 private:
  int count_ = 0;  // of tokens
  float* y_ = nullptr;
  std::int64_t stride_ = 0;
  float bias_[2];
  float up_bias_[2] = {};
  float before_[4] = {};
};

// What a warp has of a cell.
template <class S>
__device__ __forceinline__ float4 cell_of(const Sums<S>& sums, int cell, int lane) {
  if constexpr (S::kDigits) {
    return join_digits<S>(sums, lane);
  } else {
    const float(&v)[4] = sums[cell / S::kTokenTiles][cell % S::kTokenTiles];
    return make_float4(v[0], v[1], v[2], v[3]);
  }
}

// A cell of digits holds both weights of a pair: `up` for the lanes that have the first.
__device__ __forceinline__ void other_of_pair(const float (&sums)[4], float (&up)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) up[i] = __shfl_xor_sync(0xffffffffu, sums[i], 2);
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
      store_counted_at(to + i * kCellBytes, owner_, cell_of<S>(sums, i, lane_), full_);
    }
  }

  // This warp has results to complete.
  __device__ __forceinline__ bool waits() const {
    return rank_ == owner_ && split_ < S::kResults && received_ < sent_;
  }

  // Completes them, in the order of k. more: others will be sent.
  __device__ __forceinline__ void receive(const Arguments& args, int task, bool more) {
    Results<S> results(args, task, split_, lane_);
    wait_barrier(full_, received_ & 1);
    ++received_;
    for (int result = split_; result < S::kResults; result += splits_) {
      if (result != split_) results = Results<S>(args, task, result, lane_);
      float sums[4];
      float up[4] = {};
      add_up(result, sums);
      if (S::kPair && !S::kDigits) add_up(result + S::kResults, up);
      if (S::kPair && S::kDigits) other_of_pair(sums, up);
      results.store(sums, up);
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
