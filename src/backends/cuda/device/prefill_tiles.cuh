// Tiles of keys and values of the prefill kernel for Hopper: where they lie in shared memory, and
// the warpgroup that loads them.
//
// Tiles of queries, keys and values are [columns / 64][128 rows][128 bytes] in the 128-byte
// swizzle: chunk i (16 bytes) of row r lies at i ^ (r % 8).
#pragma once

#include "backends/cuda/device/async_copy.cuh"
#include "backends/cuda/device/attention_rows.cuh"
#include "backends/cuda/device/mbarrier.cuh"
#include "backends/cuda/device/prefill_keys.cuh"

namespace nibble::cuda::prefill {

constexpr int kGroupThreads = 128;
constexpr int kThreads = 3 * kGroupThreads;
constexpr int kRows = 128;  // of queries in a block
constexpr int kBuffers = 2;
constexpr int kHalfBytes = 128 * 128;  // 64 columns of a tile

// Shared memory: queries, then kBuffers of keys and of values, then the barriers.
template <int kDim>
struct Layout {
  static constexpr int kTileBytes = kDim / 64 * kHalfBytes;
  static constexpr int kKeysAt = kTileBytes;
  static constexpr int kValuesAt = kKeysAt + kBuffers * kTileBytes;
  static constexpr int kBarriersAt = kValuesAt + kBuffers * kTileBytes;
  static constexpr int kBarriers = 4 * kBuffers;
  static constexpr int kBytes = kBarriersAt + 8 * kBarriers;
  static constexpr int kSharedBytes = kBytes + 1024;  // to begin on 1024 bytes
};

#if __CUDA_ARCH_FEAT_SM90_ALL

constexpr int kGroupRows = 64;  // of queries of one warpgroup
constexpr int kKeys = 128;      // of a tile
constexpr int kConsumerWarps = 8;

// Barriers of a buffer: full once every loading thread has written, empty once every warp has read.
struct Buffers {
  std::uint32_t tiles;
  std::uint32_t full;
  std::uint32_t empty;
  int tile_bytes;

  __device__ std::uint32_t tile(int j) const { return tiles + j % kBuffers * tile_bytes; }
  __device__ std::uint32_t full_at(int j) const { return full + j % kBuffers * 8; }
  __device__ std::uint32_t empty_at(int j) const { return empty + j % kBuffers * 8; }
  __device__ static std::uint32_t phase(int j) { return j / kBuffers & 1; }
};

// Registers of the three warpgroups: 128 * (40 + 2 * 232) is what a block is given.
__device__ __forceinline__ void take_few_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
}
__device__ __forceinline__ void take_many_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
}

// Ordinary writes to shared memory of this thread, before products read them.
__device__ __forceinline__ void publish_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void meet_group(int group) {
  asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(kGroupThreads) : "memory");
}

// The loading warpgroup: this thread's chunks of each tile.
template <int kDim>
class Loader {
  static constexpr int kChunks = kDim / 8;  // of a row
  static constexpr int kRowsAtOnce = kGroupThreads / kChunks;

 public:
  __device__ Loader(const Bf16Rows& rows, const KeyRange& keys) : rows_(rows), keys_(keys) {
    const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
    const int chunk = thread % kChunks;
    row_ = thread / kChunks;
    from_ = chunk * 16;
    to_ = chunk / 8 * kHalfBytes + row_ * 128 + (chunk % 8 ^ row_ % 8) * 16;
    exists_ = chunk * 8 < rows.columns;
  }

  // Loads all tiles. A tile is published once the next one has been asked for.
  __device__ void run(const Buffers& k, const Buffers& v, int tiles) const {
    for (int j = 0; j < tiles; ++j) {
      if (j >= kBuffers) wait_barrier(k.empty_at(j), Buffers::phase(j) ^ 1);
      request(k.tile(j), rows_.k, rows_.k_stride, j);
      if (j > 0) publish<1>(v.full_at(j - 1));
      if (j >= kBuffers) wait_barrier(v.empty_at(j), Buffers::phase(j) ^ 1);
      request(v.tile(j), rows_.v, rows_.v_stride, j);
      publish<1>(k.full_at(j));
    }
    publish<0>(v.full_at(tiles - 1));
  }

 private:
  // Rows beyond the last key are replaced by it; their scores are masked.
  __device__ void request(std::uint32_t to, const std::uint8_t* from, std::int64_t stride,
                          int j) const {
    const int first = keys_.begin + j * kKeys + row_;
#pragma unroll
    for (int i = 0; i < kKeys / kRowsAtOnce; ++i) {
      const std::int64_t key = min(first + i * kRowsAtOnce, keys_.end - 1);
      copy_async<16>(to + to_ + i * kRowsAtOnce * 128, from + key * stride + from_, exists_);
    }
    end_copy_group();
  }

  template <int kPending>
  __device__ static void publish(std::uint32_t barrier) {
    wait_for_copies<kPending>();
    publish_to_products();
    arrive(barrier);
  }

  Bf16Rows rows_;
  KeyRange keys_;
  int row_;
  int from_;
  int to_;
  bool exists_;
};

#endif

}  // namespace nibble::cuda::prefill
