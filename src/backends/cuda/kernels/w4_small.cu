// The weights are operand A of mma.m16n8k16 (rows of the result), the activations operand B
// (columns). A cluster of blocks of threads takes a range of tasks (32 rows); its blocks share out
// k. A block's slice of x lies in shared memory as bf16, in the order of B fragments. A warp works
// on its own: it takes a task, walks along the block's slice of k in chunks of 128 and sends its
// sums to the warp of the same place in the block that owns the task, which adds up the slices and
// stores the result. In the loop no barrier stands between warps.
//
// Weights come through a ring of stages in shared memory that is private to each warp and, for the
// codes, to each lane; it is full before the kernel ahead has ended.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <atomic>

#include "backends/cuda/device/async_copy.cuh"
#include "backends/cuda/device/cluster_store.cuh"
#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/mbarrier.cuh"
#include "backends/cuda/device/mma_m16n8k16.cuh"
#include "backends/cuda/device/w4_codes.cuh"
#include "backends/cuda/kernels/w4_small.h"

namespace nibble::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kTiles = 2;        // of 16 rows, in a task: neighbours, or one of each of a pair
constexpr int kTileBytes = 512;  // codes of 16 rows x 64 columns
constexpr int kUnitBytes = 128;  // bf16 of 64 columns of one row of x
constexpr int kCellBytes = 512;  // sums of 16 rows x 8 rows of x

struct Part {
  const unsigned char* codes;
  const unsigned char* scales;
  const unsigned char* zeros;
  const float* bias;
  float* y;
  std::int64_t y_stride;
  int first_task;  // of the launch
};

struct Arguments {
  Part parts[kW4SmallMaxParts];
  int part_count;
  const float* x;
  std::int64_t x_stride;
  int m;
  int units;   // of 64 columns
  int groups;  // along k
  int tasks;
  int slices;
  bool bf16_scales;
  bool accumulate;
};

template <int kTokenTiles_, int kGroups_, bool kPair_, int kStages_>
struct Shape {
  static constexpr int kTokenTiles = kTokenTiles_;  // of 8 rows of x
  static constexpr int kGroups = kGroups_;          // in a chunk
  static constexpr bool kPair = kPair_;
  static constexpr int kStages = kStages_;
  static constexpr int kCodeBytes = kTiles * 2 * kTileBytes;
  static constexpr int kPieces = kTiles * kGroups * 3;  // 16 bytes each of scales and zero points
  static constexpr int kStageBytes = kCodeBytes + kPieces * 16;
  static constexpr int kRingBytes = kWarps * kStages * kStageBytes;
  static constexpr int kCells = kTiles * kTokenTiles;  // of a task
  static_assert(kPieces <= 32);
};

// Sums of all slices for the tasks that a block owns.
__host__ __device__ constexpr int exchange_bytes(int cells, int slices) {
  return slices == 1 ? 0 : (kWarps + slices - 1) / slices * slices * cells * kCellBytes;
}

// A tile of a task: its part, and its number there.
struct Place {
  int part;
  int tile;
};

template <bool kPair>
__device__ __forceinline__ Place place_of(const Arguments& args, int task, int tile) {
  if (kPair) return {tile, task};
  int part = 0;
  while (part + 1 < args.part_count && task >= args.parts[part + 1].first_task) ++part;
  return {part, (task - args.parts[part].first_task) * kTiles + tile};
}

// What a block works on.
struct Range {
  int rank;  // in the cluster
  int first_task, end_task;
  int first_chunk, chunks;
};

__device__ __forceinline__ Range range_of(const Arguments& args) {
  const int slices = args.slices;
  const int rank = static_cast<int>(blockIdx.x) % slices;
  const int index = static_cast<int>(blockIdx.x) / slices;
  const int clusters = static_cast<int>(gridDim.x) / slices;
  const int chunks = (args.units + 1) / 2;
  const auto share = [](int count, int i, int of) {
    return static_cast<int>(static_cast<std::int64_t>(count) * i / of);
  };
  const int first_chunk = share(chunks, rank, slices);
  return {rank, share(args.tasks, index, clusters), share(args.tasks, index + 1, clusters),
          first_chunk, share(chunks, rank + 1, slices) - first_chunk};
}

// Fills a warp's ring, chunk after chunk of its tasks.
template <class S>
class Loader {
 public:
  __device__ Loader(const Arguments& args, const Range& range, int warp, int lane,
                    std::uint32_t ring)
      : args_(args), range_(range), lane_(lane), ring_(ring), policy_(evict_first_policy()) {
    task_ = range.first_task + warp;
    place();
  }

  // Starts the copies of the next chunk, if there is one, as one group.
  __device__ __forceinline__ void load() {
    if (task_ < range_.end_task) {
      const int chunk = range_.first_chunk + chunk_;
      const std::uint32_t to = ring_ + stage_ * S::kStageBytes + lane_ * 16;
      const bool second = 2 * chunk + 1 < args_.units;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const unsigned char* codes = codes_[t] + static_cast<std::int64_t>(chunk) * 8 * kTileBytes;
        copy_async(to + t * 2 * kTileBytes, codes, true, policy_);
        copy_async(to + (t * 2 + 1) * kTileBytes, codes + 4 * kTileBytes, second, policy_);
      }
      if (numbers_ != nullptr) {
        const int group = args_.groups == 1 ? 0 : chunk * S::kGroups + group_;
        copy_async<16>(to + S::kCodeBytes, numbers_ + static_cast<std::int64_t>(group) * stride_,
                       group < args_.groups);
      }
      stage_ = stage_ + 1 == S::kStages ? 0 : stage_ + 1;
      if (++chunk_ == range_.chunks) {
        chunk_ = 0;
        task_ += kWarps;
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
    for (int t = 0; t < kTiles; ++t) {
      const Place at = place_of<S::kPair>(args_, task_, t);
      codes_[t] =
          args_.parts[at.part].codes +
          (static_cast<std::int64_t>(at.tile >> 2) * args_.units * 4 + (at.tile & 3)) * kTileBytes +
          lane_ * 16;
    }
    // Pieces: two of scales for each tile and group; then one of zero points for each.
    constexpr int kScalePieces = kTiles * S::kGroups * 2;
    const bool zeros = lane_ >= kScalePieces;
    const int of = zeros ? lane_ - kScalePieces : lane_ >> 1;
    group_ = of % S::kGroups;
    numbers_ = nullptr;
    if (lane_ >= S::kPieces) return;
    const Place at = place_of<S::kPair>(args_, task_, of / S::kGroups);
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
  int chunk_ = 0;
  int stage_ = 0;
  const unsigned char* codes_[kTiles];
  const unsigned char* numbers_ = nullptr;  // the lane's piece
  int stride_ = 0;                          // bytes from group to group
  int group_ = 0;                           // of the piece in the chunk
};

// 16 bytes of x in shared memory hold operand B of two tiles of 16 along k for one lane: words
// (k 2c, 2c + 1), (k 2c + 8, + 9) of each. A row of x is 128 bytes a unit, lanes side by side; odd
// rows have their halves exchanged, so that the 8 lanes of a phase meet 32 banks.
__device__ __forceinline__ int pair_offset(int pair, int token) {
  const int tile = pair >> 3;
  const int half = (tile >> 1) ^ (token & 1);
  return half * 64 + (pair & 3) * 16 + (tile & 1) * 8 + (pair >> 2 & 1) * 4;
}

__device__ __forceinline__ void store_quad(unsigned char* shared, int m, int token, int quad,
                                           float4 value) {
  unsigned char* row = shared + (quad / 16 * m + token) * kUnitBytes;
  const int pair = quad % 16 * 2;
  *reinterpret_cast<__nv_bfloat162*>(row + pair_offset(pair, token)) =
      __floats2bfloat162_rn(value.x, value.y);
  *reinterpret_cast<__nv_bfloat162*>(row + pair_offset(pair + 1, token)) =
      __floats2bfloat162_rn(value.z, value.w);
}

// The block's slice of x to bf16: [units of the slice][m] rows of 128 bytes, zeros beyond the last
// column.
__device__ void convert_slice(const Arguments& args, const Range& range, unsigned char* shared) {
  constexpr int kBatch = 8;
  const int quads = range.chunks * 32;  // of one row
  const int valid = min(quads, args.units * 16 - range.first_chunk * 32);
  const float* x = args.x + range.first_chunk * 128;
  int quad = static_cast<int>(threadIdx.x);
  int token = 0;
  const auto settle = [&] {
    while (quad >= quads && token < args.m) {
      quad -= quads;
      ++token;
    }
  };
  settle();
  while (token < args.m) {
    float4 values[kBatch];
    int tokens[kBatch];
    int quad_of[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      tokens[b] = token;
      quad_of[b] = quad;
      values[b] = make_float4(0, 0, 0, 0);
      if (token < args.m && quad < valid) {
        values[b] = *reinterpret_cast<const float4*>(x + token * args.x_stride + quad * 4);
      }
      quad += kThreads;
      settle();
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (tokens[b] < args.m) store_quad(shared, args.m, tokens[b], quad_of[b], values[b]);
    }
  }
}

template <class S>
using Sums = float[kTiles][S::kTokenTiles][4];

// One chunk of a warp: two tiles of 16 rows, 128 columns. x: the chunk's first unit; token_offsets:
// of the lane's rows of x, first half.
template <class S>
__device__ __forceinline__ void multiply_chunk(const Arguments& args, const unsigned char* stage,
                                               const unsigned char* x,
                                               const int (&token_offsets)[S::kTokenTiles], int lane,
                                               Sums<S>& sums) {
  uint4 b[S::kTokenTiles][4];  // each two tiles of 16 along k
#pragma unroll
  for (int t = 0; t < S::kTokenTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int offset = (i / 2) * args.m * kUnitBytes + (token_offsets[t] ^ (i % 2 * 64));
      b[t][i] = *reinterpret_cast<const uint4*>(x + offset);
    }
  }
  constexpr int kTilesOfGroup = 8 / S::kGroups;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(stage + S::kCodeBytes) + (lane >> 2);
  const unsigned char* zeros = stage + S::kCodeBytes + kTiles * S::kGroups * 32 + (lane >> 2);
  const bool symmetric = args.parts[0].zeros == nullptr;
#pragma unroll
  for (int r = 0; r < kTiles; ++r) {
    uint4 codes[2];
    codes[0] = *reinterpret_cast<const uint4*>(stage + r * 2 * kTileBytes + lane * 16);
    codes[1] = *reinterpret_cast<const uint4*>(stage + (r * 2 + 1) * kTileBytes + lane * 16);
#pragma unroll
    for (int group = 0; group < S::kGroups; ++group) {
      const int row = (r * S::kGroups + group) * 16;
      const std::uint32_t upper_zero = zero_pair(symmetric ? 8u : zeros[row]);
      const std::uint32_t lower_zero = zero_pair(symmetric ? 8u : zeros[row + 8]);
      const float upper_scale = scale_of(scales + row, args.bf16_scales);
      const float lower_scale = scale_of(scales + row + 8, args.bf16_scales);
      float part[S::kTokenTiles][4] = {};
#pragma unroll
      for (int i = 0; i < kTilesOfGroup; ++i) {
        const int tile = group * kTilesOfGroup + i;
        const uint4 four = codes[tile / 4];
        const std::uint32_t word = tile % 4 == 0   ? four.x
                                   : tile % 4 == 1 ? four.y
                                   : tile % 4 == 2 ? four.z
                                                   : four.w;
        std::uint32_t a[4];
        expand_codes(word, upper_zero, lower_zero, a);
#pragma unroll
        for (int t = 0; t < S::kTokenTiles; ++t) {
          const uint4& pair = b[t][tile / 2];
          Bf16Pairs::multiply(part[t], a[0], a[1], a[2], a[3], tile % 2 == 0 ? pair.x : pair.z,
                              tile % 2 == 0 ? pair.y : pair.w);
        }
      }
#pragma unroll
      for (int t = 0; t < S::kTokenTiles; ++t) {
        sums[r][t][0] += upper_scale * part[t][0];
        sums[r][t][1] += upper_scale * part[t][1];
        sums[r][t][2] += lower_scale * part[t][2];
        sums[r][t][3] += lower_scale * part[t][3];
      }
    }
  }
}

__device__ __forceinline__ float silu_times(float gate, float up) {
  return gate / (1.0f + __expf(-gate)) * up;
}

// Stores one tile's sums, rows g and g + 8, tokens 2c and 2c + 1 of the token tile.
__device__ __forceinline__ void store_tile(const Arguments& args, const Part& part, int row,
                                           int token, const float (&values)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (token + i % 2 >= args.m) continue;
    float* y = part.y + (token + i % 2) * part.y_stride + row + i / 2 * 8;
    *y = args.accumulate ? *y + values[i] : values[i];
  }
}

// What becomes of the complete sums of a task.
template <class S>
__device__ __forceinline__ void finish(const Arguments& args, int task, int lane, Sums<S>& sums) {
  Place at[kTiles];
  int row[kTiles];
#pragma unroll
  for (int r = 0; r < kTiles; ++r) {
    at[r] = place_of<S::kPair>(args, task, r);
    row[r] = at[r].tile * 16 + lane / 4;
    const float* bias = args.parts[at[r].part].bias;
    if (bias == nullptr) continue;
#pragma unroll
    for (int t = 0; t < S::kTokenTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[r][t][i] += bias[row[r] + i / 2 * 8];
    }
  }
#pragma unroll
  for (int t = 0; t < S::kTokenTiles; ++t) {
    const int token = t * 8 + lane % 4 * 2;
    if (S::kPair) {
      float values[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) values[i] = silu_times(sums[0][t][i], sums[1][t][i]);
      store_tile(args, args.parts[0], row[0], token, values);
    } else {
#pragma unroll
      for (int r = 0; r < kTiles; ++r) {
        store_tile(args, args.parts[at[r].part], row[r], token, sums[r][t]);
      }
    }
  }
}

#if __CUDA_ARCH__ >= 900
// How the slices' sums of a warp's tasks come together: all warps of the same place in a cluster's
// blocks work on the same task at about the same time, and one of them, in block warp % slices,
// owns it. Barrier `full` there counts the bytes that arrive, barrier `free` of each warp says that
// the owner is done with the last ones.
template <class S>
class Exchange {
 public:
  __device__ Exchange(unsigned char* shared, std::uint64_t* barriers, int slices, int rank,
                      int warp, int lane)
      : cells_(shared_address(shared) + warp / slices * slices * S::kCells * kCellBytes +
               lane * 16),
        full_(shared_address(barriers + warp)),
        free_(shared_address(barriers + kWarps + warp)),
        slices_(slices),
        rank_(rank),
        owner_(warp % slices),
        lane_(lane) {}

  // By all warps, before the blocks of the cluster meet.
  __device__ __forceinline__ void open() const {
    if (lane_ != 0) return;
    init_barrier(full_, 1);
    init_barrier(free_, 1);
    publish_barriers();
    if (rank_ == owner_) expect();
  }

  __device__ __forceinline__ void send(const Sums<S>& sums) {
    if (sent_ > 0) wait_barrier(free_, (sent_ - 1) & 1);
    ++sent_;
#pragma unroll
    for (int i = 0; i < S::kCells; ++i) {
      const float(&v)[4] = sums[i / S::kTokenTiles][i % S::kTokenTiles];
      store_counted_at(cells_ + (rank_ * S::kCells + i) * kCellBytes, owner_,
                       make_float4(v[0], v[1], v[2], v[3]), full_);
    }
  }

  // For the owner: sums have been sent that have not been received.
  __device__ __forceinline__ bool waits() const { return rank_ == owner_ && received_ < sent_; }

  // The sums of all slices, in their order. more: others will be sent.
  __device__ __forceinline__ void receive(Sums<S>& sums, bool more) {
    wait_barrier(full_, received_ & 1);
    ++received_;
#pragma unroll
    for (int i = 0; i < S::kCells; ++i) {
      float(&sum)[4] = sums[i / S::kTokenTiles][i % S::kTokenTiles];
#pragma unroll
      for (float& v : sum) v = 0;
    }
    for (int s = 0; s < slices_; ++s) {
#pragma unroll
      for (int i = 0; i < S::kCells; ++i) {
        float(&sum)[4] = sums[i / S::kTokenTiles][i % S::kTokenTiles];
        float v[4];
        asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
                     : "r"(cells_ + (s * S::kCells + i) * kCellBytes)
                     : "memory");
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[j] += v[j];
      }
    }
    __syncwarp();
    if (!more) return;
    if (lane_ == 0) expect();
    __syncwarp();
    if (lane_ < slices_) arrive_at(free_, lane_);
  }

 private:
  __device__ __forceinline__ void expect() const {
    arrive_expecting(full_, slices_ * S::kCells * kCellBytes);
  }

  std::uint32_t cells_, full_, free_;
  int slices_, rank_, owner_, lane_;
  int sent_ = 0;
  int received_ = 0;
};

#endif

template <class S>
__global__ void __launch_bounds__(kThreads, S::kTokenTiles == 4 ? 1 : 2)
    multiply(const __grid_constant__ Arguments args) {
  extern __shared__ __align__(16) unsigned char shared[];
  let_next_kernel_start();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Range range = range_of(args);
  unsigned char* ring = shared + warp * S::kStages * S::kStageBytes;
  unsigned char* cells = shared + S::kRingBytes;
  unsigned char* x = cells + exchange_bytes(S::kCells, args.slices);
#if __CUDA_ARCH__ >= 900
  __shared__ __align__(8) std::uint64_t barriers[2 * kWarps];
  Exchange<S> exchange(cells, barriers, args.slices, range.rank, warp, lane);
  if (args.slices > 1) {
    exchange.open();
    __syncwarp();
    announce_block();
  }
#endif

  Loader<S> loader(args, range, warp, lane, shared_address(ring));
#pragma unroll
  for (int i = 0; i < S::kStages - 1; ++i) loader.load();
  wait_for_kernel_ahead();
  convert_slice(args, range, x);
#if __CUDA_ARCH__ >= 900
  if (args.slices > 1) wait_for_blocks();
#endif
  __syncthreads();

  int token_offsets[S::kTokenTiles];
#pragma unroll
  for (int t = 0; t < S::kTokenTiles; ++t) {
    // Columns beyond m repeat the last one and are not stored.
    const int token = min(t * 8 + lane / 4, args.m - 1);
    token_offsets[t] = token * kUnitBytes + lane % 4 * 16 + (token & 1) * 64;
  }
  int stage = 0;
  int task = range.first_task + warp;
  for (; task < range.end_task; task += kWarps) {
    Sums<S> sums = {};
    for (int chunk = 0; chunk < range.chunks; ++chunk) {
      wait_for_copies<S::kStages - 2>();
      __syncwarp();
      loader.load();  // where the chunk before this one was
      multiply_chunk<S>(args, ring + stage * S::kStageBytes, x + chunk * 2 * args.m * kUnitBytes,
                        token_offsets, lane, sums);
      stage = stage + 1 == S::kStages ? 0 : stage + 1;
    }
    if (args.slices == 1) {
      finish<S>(args, task, lane, sums);
      continue;
    }
#if __CUDA_ARCH__ >= 900
    if (exchange.waits()) {
      Sums<S> whole;
      exchange.receive(whole, true);
      finish<S>(args, task - kWarps, lane, whole);
    }
    exchange.send(sums);
#endif
  }
#if __CUDA_ARCH__ >= 900
  if (exchange.waits()) {
    Sums<S> whole;
    exchange.receive(whole, false);
    finish<S>(args, task - kWarps, lane, whole);
  }
#endif
}

// --- host ---

constexpr int kMaxSlices = 8;                     // a cluster of any Hopper device
constexpr std::size_t kSharedBytes = 226 * 1024;  // of a block; 1 KiB more of a multiprocessor is
constexpr std::size_t kHalfSharedBytes = 113 * 1024 - 256;  // taken by each block on it

struct Launch {
  Arguments args;
  W4SmallTile tile;
  bool dependent;
  cudaStream_t stream;
};

template <class S>
std::size_t shared_bytes_of(const Arguments& args, int slices) {
  const int chunks = ((args.units + 1) / 2 + slices - 1) / slices;
  return static_cast<std::size_t>(S::kRingBytes + exchange_bytes(S::kCells, slices) +
                                  chunks * 2 * args.m * kUnitBytes);
}

// Clusters that the device runs at a time.
template <class S>
cudaError_t clusters_of(const cudaLaunchConfig_t& config, const W4SmallTile& tile, int& clusters) {
  static std::atomic<int> known[kMaxSlices + 1][3];
  std::atomic<int>& entry = known[tile.slices][tile.blocks];
  clusters = entry.load(std::memory_order_relaxed);
  if (clusters > 0) return cudaSuccess;
  cudaLaunchConfig_t full = config;
  full.dynamicSmemBytes = tile.blocks == 2 ? kHalfSharedBytes : kSharedBytes;
  full.gridDim = tile.slices;
  const cudaError_t error = cudaOccupancyMaxActiveClusters(&clusters, multiply<S>, &full);
  if (error == cudaSuccess) entry.store(clusters, std::memory_order_relaxed);
  return error;
}

template <class S>
cudaError_t start(const Launch& launch) {
  W4SmallTile tile = launch.tile;
  const std::size_t bytes = shared_bytes_of<S>(launch.args, tile.slices);
  if (bytes > kSharedBytes) return cudaErrorInvalidValue;
  if (bytes > kHalfSharedBytes || S::kTokenTiles == 4) tile.blocks = 1;
  cudaError_t error = cudaFuncSetAttribute(multiply<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(kSharedBytes));
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2] = {dependent_launch_attribute(launch.dependent), {}};
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned int>(tile.slices), 1, 1};
  cudaLaunchConfig_t config{};
  config.blockDim = kThreads;
  config.dynamicSmemBytes = bytes;
  config.stream = launch.stream;
  config.attrs = attributes + 1;
  config.numAttrs = 1;
  int clusters = 0;
  error = clusters_of<S>(config, tile, clusters);
  if (error != cudaSuccess) return error;
  config.gridDim = std::min(clusters, launch.args.tasks) * tile.slices;
  config.attrs = attributes;
  config.numAttrs = 2;
  return cudaLaunchKernelEx(&config, multiply<S>, launch.args);
}

template <int kTokenTiles, bool kPair>
cudaError_t start_groups(const Launch& launch, int groups_of_chunk) {
  constexpr int kStages = 4;
  if (groups_of_chunk == 4) return start<Shape<kTokenTiles, 4, kPair, kStages>>(launch);
  if (groups_of_chunk == 2) return start<Shape<kTokenTiles, 2, kPair, kStages>>(launch);
  return start<Shape<kTokenTiles, 1, kPair, kStages>>(launch);
}

template <bool kPair>
cudaError_t start_tokens(const Launch& launch, int groups_of_chunk) {
  if (launch.args.m <= 8) return start_groups<1, kPair>(launch, groups_of_chunk);
  if (launch.args.m <= 16) return start_groups<2, kPair>(launch, groups_of_chunk);
  return start_groups<4, kPair>(launch, groups_of_chunk);
}

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

bool valid_part(const W4SmallLinear& args, const W4Matrix& w) {
  const W4Matrix& first = args.parts[0].w;
  return w.cols == first.cols && w.groups == first.groups && w.bf16_scales == first.bf16_scales &&
         (w.zeros == nullptr) == (first.zeros == nullptr) && w.rows > 0 && w.rows % 64 == 0 &&
         aligned(w.codes) && aligned(w.scales) && aligned(w.zeros) &&
         (!args.silu_pair || w.rows == first.rows);
}

bool valid(const W4SmallLinear& args) {
  if (args.m < 1 || args.m > kW4SmallMaxRows) return false;
  if (args.part_count < 1 || args.part_count > kW4SmallMaxParts) return false;
  if (args.silu_pair && args.part_count != 2) return false;
  const W4Matrix& w = args.parts[0].w;
  if (w.cols < 64 || w.cols % 64 != 0 || w.groups < 1 || w.cols % w.groups != 0) return false;
  const std::int64_t group = w.cols / w.groups;
  if (w.groups != 1 && group != 32 && group != 64 && group != 128) return false;
  if (!aligned(args.x) || args.x_stride % 4 != 0) return false;
  return std::all_of(args.parts, args.parts + args.part_count,
                     [&](const W4SmallPart& part) { return valid_part(args, part.w); });
}

Arguments arguments_of(const W4SmallLinear& args) {
  const W4Matrix& w = args.parts[0].w;
  Arguments a{};
  int tasks = 0;
  for (int p = 0; p < args.part_count; ++p) {
    const W4SmallPart& part = args.parts[p];
    a.parts[p] = {static_cast<const unsigned char*>(part.w.codes),
                  static_cast<const unsigned char*>(part.w.scales),
                  part.w.zeros,
                  part.bias,
                  part.y,
                  part.y_stride,
                  tasks};
    tasks += static_cast<int>(part.w.rows / (16 * kTiles));
  }
  a.part_count = args.part_count;
  a.x = args.x;
  a.x_stride = args.x_stride;
  a.m = args.m;
  a.units = static_cast<int>(w.cols / 64);
  a.groups = static_cast<int>(w.groups);
  a.tasks = tasks;  // of a pair: as many, of half the rows each
  a.bf16_scales = w.bf16_scales;
  a.accumulate = args.accumulate;
  return a;
}

}  // namespace

W4SmallTile choose_w4_small_tile(const W4SmallLinear& args) {
  const std::int64_t chunks = (args.parts[0].w.cols / 64 + 1) / 2;
  return {static_cast<int>(std::min<std::int64_t>(args.m <= 4 ? 4 : 8, chunks)), 2};
}

cudaError_t w4_small_linear(const W4SmallLinear& args, const W4SmallTile& tile,
                            cudaStream_t stream) {
  if (!valid(args)) return cudaErrorInvalidValue;
  const W4Matrix& w = args.parts[0].w;
  Launch launch{arguments_of(args), tile, args.dependent_launch, stream};
  launch.args.slices = tile.slices;
  if (tile.slices < 1 || tile.slices > kMaxSlices || tile.blocks < 1 || tile.blocks > 2)
    return cudaErrorInvalidValue;
  if (tile.slices > (launch.args.units + 1) / 2) return cudaErrorInvalidValue;
  const int groups_of_chunk = w.groups == 1 ? 1 : static_cast<int>(128 * w.groups / w.cols);
  return args.silu_pair ? start_tokens<true>(launch, groups_of_chunk)
                        : start_tokens<false>(launch, groups_of_chunk);
}

}  // namespace nibble::cuda
