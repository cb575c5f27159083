// The weights are operand A of mma.m16n8k16 (rows of the result), the activations operand B
// (columns); one or two rows of x are integers, for mma.m16n8k32 (device/small_linear_digits.cuh).
// A cluster of blocks of threads takes a range of tasks (tiles of 16 rows); its blocks share out k,
// and within a block so do `splits` warps. A block's slice of x lies in shared memory, in the order
// of B fragments. A warp works on its own: it walks along its chunks of k, 128 wide, and sends the
// sums of its task to the block that owns the task, where warps add up what comes from all sides
// and store the result. In the loop no barrier stands between warps.
//
// Weights come through a ring of stages in shared memory that is private to each warp and, for the
// codes, to each lane; it is full before the kernel ahead has ended.
#include <algorithm>
#include <atomic>

#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/fragment_codes.cuh"
#include "backends/cuda/device/mma_m16n8k16.cuh"
#include "backends/cuda/device/small_linear_cut.cuh"
#include "backends/cuda/device/small_linear_ring.cuh"
#include "backends/cuda/device/small_linear_sums.cuh"
#include "backends/cuda/device/small_linear_x.cuh"
#include "backends/cuda/kernels/small_linear.h"

namespace nibble::cuda {
namespace small {
namespace {

// One chunk of a warp: kTiles of 16 rows, 128 columns. x: the chunk's first unit; token_offsets:
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
  using Codes = FragmentCodes<S::kBits>;
  constexpr std::uint32_t kMiddle = 1u << (S::kBits - 1);  // the zero point of symmetric weights
  constexpr int kTilesOfGroup = 8 / S::kGroups;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(stage + S::kCodeBytes) + (lane >> 2);
  const unsigned char* zeros = stage + S::kCodeBytes + S::kTiles * S::kGroups * 32 + (lane >> 2);
  const bool symmetric = args.parts[0].zeros == nullptr;
#pragma unroll
  for (int r = 0; r < S::kTiles; ++r) {
    uint4 codes[2 * S::kLoads];
#pragma unroll
    for (int i = 0; i < 2 * S::kLoads; ++i) {
      codes[i] = *reinterpret_cast<const uint4*>(stage + r * 2 * S::kTileBytes + i * kLoadBytes +
                                                 lane * 16);
    }
#pragma unroll
    for (int group = 0; group < S::kGroups; ++group) {
      const int row = (r * S::kGroups + group) * 16;
      const std::uint32_t upper_zero = Codes::zero(symmetric ? kMiddle : zeros[row]);
      const std::uint32_t lower_zero = Codes::zero(symmetric ? kMiddle : zeros[row + 8]);
      const float upper_scale = scale_of(scales + row, args.bf16_scales);
      const float lower_scale = scale_of(scales + row + 8, args.bf16_scales);
      float part[S::kTokenTiles][4] = {};
#pragma unroll
      for (int i = 0; i < kTilesOfGroup; ++i) {
        const int tile = group * kTilesOfGroup + i;
        std::uint32_t a[4];
        Codes::expand(codes[tile / Codes::kTiles], tile % Codes::kTiles, upper_zero, lower_zero, a);
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

template <class S>
__device__ __forceinline__ void finish_alone(const Arguments& args, int task, int lane,
                                             const Sums<S>& sums) {
#pragma unroll
  for (int i = 0; i < S::kResults; ++i) {
    if constexpr (S::kDigits) {
      const float4 v = join_digits<S>(sums, lane);
      const float joined[4] = {v.x, v.y, v.z, v.w};
      float up[4];
      other_of_pair(joined, up);
      Results<S>(args, task, i, lane).store(joined, up);
    } else {
      const int up = S::kPair ? i + S::kResults : i;
      Results<S>(args, task, i, lane)
          .store(sums[i / S::kTokenTiles][i % S::kTokenTiles],
                 sums[up / S::kTokenTiles][up % S::kTokenTiles]);
    }
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads, S::kTokenTiles == 4 ? 1 : 2)
    multiply(const __grid_constant__ Arguments args) {
  extern __shared__ __align__(16) unsigned char shared[];
  let_next_kernel_start();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Range range = range_of(args);
  const bool alone = args.slices * args.splits == 1;
  unsigned char* ring = shared + warp * args.stages * S::kStageBytes;
  unsigned char* cells = shared + kWarps * args.stages * S::kStageBytes;
  unsigned char* x = cells + exchange_bytes(S::kCells, args.slices, args.splits);
#if __CUDA_ARCH__ >= 900
  __shared__ __align__(8) std::uint64_t barriers[2 * kWarps];
  Exchange<S> exchange(cells, barriers, args, range.rank, warp, lane);
  if (!alone) {
    exchange.open();
    __syncwarp();
    announce_block();
  }
#endif

  Loader<S> loader(args, range, warp, lane, shared_address(ring));
#pragma unroll
  for (int i = 0; i < S::kStages; ++i) loader.load();
  wait_for_kernel_ahead();
  if constexpr (S::kDigits) {
    convert_digits<S>(args, range, x);
  } else {
    convert_slice(args, range, x);
  }
#if __CUDA_ARCH__ >= 900
  if (!alone) wait_for_blocks();
#endif
  __syncthreads();

  int token_offsets[S::kTokenTiles];
#pragma unroll
  for (int t = 0; t < S::kTokenTiles; ++t) {
    // Columns beyond m repeat the last one and are not stored.
    const int token = min(t * 8 + lane / 4, args.m - 1);
    token_offsets[t] = token * kUnitBytes + lane % 4 * 16 + (token & 1) * 64;
  }
  const int places = kWarps / args.splits;
  int stage = 0;
  int task = range.first_task + warp / args.splits;
  for (; task < range.end_task; task += places) {
    Sums<S> sums = {};
    for (int chunk = warp % args.splits; chunk < range.chunks; chunk += args.splits) {
      wait_for_copies<S::kStages - 1>();
      __syncwarp();
      const unsigned char* filled = ring + stage * S::kStageBytes;
      if constexpr (S::kDigits) {
        multiply_digits<S>(args, filled, x + chunk * args.m * S::kDigitRowBytes, lane, sums);
      } else {
        multiply_chunk<S>(args, filled, x + chunk * 2 * args.m * kUnitBytes, token_offsets, lane,
                          sums);
      }
      __syncwarp();
      loader.load();  // where this chunk was
      stage = stage + 1 == S::kStages ? 0 : stage + 1;
    }
    if (alone) {
      finish_alone<S>(args, task, lane, sums);
      continue;
    }
#if __CUDA_ARCH__ >= 900
    if (exchange.waits()) exchange.receive(args, task - places, true);
    exchange.send(sums);
#endif
  }
#if __CUDA_ARCH__ >= 900
  if (exchange.waits()) exchange.receive(args, task - places, false);
#endif
}

struct Launch {
  Arguments args;
  SmallLinearTile tile;
  Device device;
  int bytes;
  bool deep_ring;
  bool dependent;
  cudaStream_t stream;
};

// Clusters that the device runs at a time with as much shared memory as leaves room for
// tile.blocks. Asked for once.
template <class S>
cudaError_t clusters_of(const cudaLaunchConfig_t& config, const Launch& launch, int& clusters) {
  static std::atomic<int> known[kMaxSlices + 1][3];
  std::atomic<int>& entry = known[launch.tile.slices][launch.tile.blocks];
  clusters = entry.load(std::memory_order_relaxed);
  if (clusters > 0) return cudaSuccess;
  cudaLaunchConfig_t full = config;
  full.dynamicSmemBytes = static_cast<std::size_t>(
      launch.tile.blocks == 2 ? launch.device.multiprocessor_bytes / 2 : launch.device.block_bytes);
  full.gridDim = static_cast<unsigned int>(launch.tile.slices);
  const cudaError_t error = cudaOccupancyMaxActiveClusters(&clusters, multiply<S>, &full);
  if (error == cudaSuccess) entry.store(clusters, std::memory_order_relaxed);
  return error;
}

// At most.
int chunks_of_warp(const Arguments& args, int clusters) {
  const auto share = [](int count, int of) { return (count + of - 1) / of; };
  const int chunks = share((args.units + 1) / 2, args.slices);
  return share(share(args.tasks, clusters), kWarps / args.splits) * share(chunks, args.splits);
}

template <class S>
cudaError_t start(Launch launch) {
  const SmallLinearTile& tile = launch.tile;
  launch.args.tasks /= S::kTiles;
  for (Part& part : launch.args.parts) part.first_task /= S::kTiles;
  cudaError_t error = cudaFuncSetAttribute(multiply<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           launch.device.block_bytes);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2] = {{}, dependent_launch_attribute(launch.dependent)};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned int>(tile.slices), 1, 1};
  cudaLaunchConfig_t config{};
  config.blockDim = kThreads;
  config.stream = launch.stream;
  config.attrs = attributes;
  int clusters = launch.device.multiprocessors * tile.blocks;
  if (launch.device.major >= 9) {
    config.numAttrs = 1;
    error = clusters_of<S>(config, launch, clusters);
    if (error != cudaSuccess) return error;
    config.numAttrs = 2;
  }
  clusters = std::min(clusters, launch.args.tasks);
  config.gridDim = static_cast<unsigned int>(clusters * tile.slices);
  launch.args.stages = std::min(S::kStages, chunks_of_warp(launch.args, clusters));
  const int unused = kWarps * (S::kStages - launch.args.stages) * S::kStageBytes;
  config.dynamicSmemBytes = static_cast<std::size_t>(launch.bytes - unused);
  return cudaLaunchKernelEx(&config, multiply<S>, launch.args);
}

template <int kBits, int kTokenTiles, int kGroups, bool kPair>
cudaError_t start_tiles(const Launch& launch) {
  if constexpr (kTokenTiles == 0) {
    return launch.deep_ring
               ? start<Shape<kBits, 2, 0, kGroups, kPair, digit_stages(kBits, true)>>(launch)
               : start<Shape<kBits, 2, 0, kGroups, kPair, digit_stages(kBits, false)>>(launch);
  } else {
    constexpr int kMost = tiles_of(4, kBits, kTokenTiles, kGroups);
    constexpr int kMostStages = stages_of(kMost, kBits, kTokenTiles, kGroups);
    if (launch.tile.tiles >= kMost) {
      return start<Shape<kBits, kMost, kTokenTiles, kGroups, kPair, kMostStages>>(launch);
    }
    constexpr int kStages = stages_of(2, kBits, kTokenTiles, kGroups);
    return start<Shape<kBits, 2, kTokenTiles, kGroups, kPair, kStages>>(launch);
  }
}

template <int kBits, int kTokenTiles, bool kPair>
cudaError_t start_groups(const Launch& launch, int groups) {
  if (groups == 4) return start_tiles<kBits, kTokenTiles, 4, kPair>(launch);
  if (groups == 2) return start_tiles<kBits, kTokenTiles, 2, kPair>(launch);
  return start_tiles<kBits, kTokenTiles, 1, kPair>(launch);
}

template <int kBits, bool kPair>
cudaError_t start_tokens(const Launch& launch, int groups) {
  const int token_tiles = token_tiles_of(launch.args.m);
  if (token_tiles == 0) return start_groups<kBits, 0, kPair>(launch, groups);
  if (token_tiles == 1) return start_groups<kBits, 1, kPair>(launch, groups);
  if (token_tiles == 2) return start_groups<kBits, 2, kPair>(launch, groups);
  return start_groups<kBits, 4, kPair>(launch, groups);
}

cudaError_t start_codes(const Launch& launch, const SmallLinear& args) {
  const FragmentMatrix& w = args.parts[0].w;
  const int groups = groups_of_chunk(w);
  if (w.bits == 8) return start_tokens<8, false>(launch, groups);
  return args.silu_pair ? start_tokens<4, true>(launch, groups)
                        : start_tokens<4, false>(launch, groups);
}

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

bool valid_part(const SmallLinear& args, const FragmentMatrix& w) {
  const FragmentMatrix& first = args.parts[0].w;
  return alike(w, first) && w.rows > 0 && w.rows % 64 == 0 && aligned(w.codes) &&
         aligned(w.scales) && aligned(w.zeros) && (!args.silu_pair || w.rows == first.rows);
}

bool valid(const SmallLinear& args) {
  if (args.m < 1 || args.m > kSmallLinearMaxRows) return false;
  if (args.part_count < 1 || args.part_count > kSmallLinearMaxParts) return false;
  const FragmentMatrix& w = args.parts[0].w;
  if (w.bits != 4 && w.bits != 8) return false;
  if (args.silu_pair && (args.part_count != 2 || w.bits != 4)) return false;
  if (w.cols < 64 || w.cols % 64 != 0 || w.groups < 1 || w.cols % w.groups != 0) return false;
  const std::int64_t group = w.cols / w.groups;
  if (w.groups != 1 && group != 32 && group != 64 && group != 128) return false;
  if (!aligned(args.x) || args.x_stride % 4 != 0) return false;
  return std::all_of(args.parts, args.parts + args.part_count,
                     [&](const FragmentPart& part) { return valid_part(args, part.w); });
}

Arguments arguments_of(const SmallLinear& args, const SmallLinearTile& tile) {
  const FragmentMatrix& w = args.parts[0].w;
  Arguments a{};
  int tiles = 0;
  for (int p = 0; p < args.part_count; ++p) {
    const FragmentPart& part = args.parts[p];
    a.parts[p] = {static_cast<const unsigned char*>(part.w.codes),
                  static_cast<const unsigned char*>(part.w.scales),
                  part.w.zeros,
                  part.bias,
                  part.y,
                  part.y_stride,
                  tiles};
    tiles += static_cast<int>(part.w.rows / 16);
  }
  a.part_count = args.part_count;
  a.x = args.x;
  a.x_stride = args.x_stride;
  a.m = args.m;
  a.units = static_cast<int>(w.cols / 64);
  a.groups = static_cast<int>(w.groups);
  a.tasks = tiles;  // start() makes tasks of them
  a.slices = tile.slices;
  a.splits = tile.splits;
  a.bf16_scales = w.bf16_scales;
  a.accumulate = args.accumulate;
  return a;
}

}  // namespace
}  // namespace small

cudaError_t small_linear(const SmallLinear& args, const SmallLinearTile& tile,
                         cudaStream_t stream) {
  using namespace small;
  Device device;
  if (const cudaError_t error = current_device(device); error != cudaSuccess) return error;
  const FragmentMatrix& w = args.parts[0].w;
  if (!valid(args) || !valid(tile, w.cols, device.major)) return cudaErrorInvalidValue;
  const int bytes = shared_bytes(device, w, args.m, tile);
  if (bytes > device.block_bytes) {
    if (args.m == 1) return cudaErrorInvalidValue;
    // Half of the rows at a time.
    SmallLinear half = args;
    half.m = args.m / 2;
    const cudaError_t error = small_linear(half, tile, stream);
    if (error != cudaSuccess) return error;
    half.x += half.m * args.x_stride;
    for (FragmentPart& part : half.parts) part.y += half.m * part.y_stride;
    half.m = args.m - half.m;
    return small_linear(half, tile, stream);
  }
  const bool dependent = args.dependent_launch && device.major >= 9;
  Launch launch{arguments_of(args, tile),
                tile,
                device,
                bytes,
                has_deep_ring(device, w, args.m, tile),
                dependent,
                stream};
  launch.tile.blocks = blocks_of(device, bytes, args.m, tile);
  return start_codes(launch, args);
}

}  // namespace nibble::cuda
