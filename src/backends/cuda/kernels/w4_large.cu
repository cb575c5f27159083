// A warpgroup product takes A from registers, so the weight is A: codes become bfloat16 in the
// registers of the warps that multiply. See device/large_tile.cuh for tiles and clusters.
//
// Two threads of the first warpgroup keep a ring of stages filled, each 64 of k: the box of x
// (swizzled, by a tensor map) and the packed codes, scales and zero points of the block's rows. The
// other warpgroups own 64 rows each; while the products of a stage run they decode the next stage's
// codes.
#include <cuda.h>
#include <cuda_runtime.h>

#include <climits>

#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/large_tile.cuh"
#include "backends/cuda/device/w4_to_bf16.cuh"
#include "backends/cuda/device/wgmma.cuh"
#include "backends/cuda/kernels/large_launch.h"
#include "backends/cuda/kernels/w4_large.h"

namespace nibble::cuda {

static constexpr int kBlockK = 64;       // of k in a stage: 128 bytes of bfloat16, a swizzled row
static constexpr int kCodeBytes = 2048;  // of 64 x 64 codes

// kConsumers: warpgroups that multiply. Two have registers for two sets of fragments; four hide
// each other's decoding instead. kGroups: groups of scales in a stage, 2 for groups of 32,
// otherwise 1.
template <int kConsumers_, int kTokens_, int kGroups_>
struct W4LargeConfig {
  static constexpr int kConsumers = kConsumers_;
  static constexpr int kTokens = kTokens_;
  static constexpr int kGroups = kGroups_;
  static constexpr int kSets = kConsumers == 2 ? 2 : 1;
  static constexpr int kRows = 64 * kConsumers;
  static constexpr int kThreads = 128 * (kConsumers + 1);
  static constexpr int kLoaderRegisters = kConsumers == 2 ? 40 : 32;
  static constexpr int kConsumerRegisters = kConsumers == 2 ? 232 : 112;
  static constexpr int kXBytes = kTokens * 128;
  static constexpr int kCodesAt = kXBytes;
  static constexpr int kScalesAt = kCodesAt + kConsumers * kCodeBytes;
  static constexpr int kZerosAt = kScalesAt + kConsumers * kGroups * 128;
  static constexpr int kUsedBytes = kZerosAt + kConsumers * kGroups * 64;
  static constexpr int kStageBytes = (kUsedBytes + 1023) / 1024 * 1024;
  static constexpr int kStagesAt = kLargeBarrierBytes + kConsumers * kOutBytes;
  static constexpr int kStages = (kLargeSharedBytes - kStagesAt - 1024) / kStageBytes;
  static constexpr int kAllBytes = kStagesAt + kStages * kStageBytes + 1024;
};

namespace {

struct Params {
  LargeGrid grid;
  LargeOut out;
  CUtensorMap x, codes, scales, zeros;
  int blocks_of_group;  // stages that share a scale; 1 below 64, too
  int group_mask;       // k_block & group_mask is 0 where a group begins
  bool has_zeros;
  bool scales_are_bf16;
};

#if __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
using RingOf = Ring<C::kStages, C::kStageBytes>;

__device__ __forceinline__ bool begins_group(const Params& p, const Place& place, int k_block) {
  return k_block == place.k_begin || (k_block & p.group_mask) == 0;
}

// The thread that loads the weight. Scales and zero points come only where a group, or this block's
// part of k, begins. Weights do not depend on the kernel ahead, so there is no waiting for it.
template <class C>
__device__ __forceinline__ void load_weight(const Params& p, RingOf<C> ring, const Place& place,
                                            const Steps& steps) {
  constexpr std::uint32_t kCodes = C::kScalesAt - C::kCodesAt;
  constexpr std::uint32_t kScales = C::kZerosAt - C::kScalesAt;
  const std::uint32_t of_group = kCodes + kScales + (p.has_zeros ? kScales / 2 : 0);
  for (int index = steps.first; index < steps.tiles; index += steps.step) {
    const int block = find_tile<C::kRows, C::kTokens>(p.grid, index, place.share_rank).row / 64;
    for (int k_block = place.k_begin; k_block < place.k_end; ++k_block) {
      const bool begins = begins_group(p, place, k_block);
      wait_barrier(ring.empty(), ring.parity ^ 1);
      arrive_expecting(ring.full(), begins ? of_group : kCodes);
      copy_box(ring.at() + C::kCodesAt, &p.codes, 0, k_block, block, ring.full());
      if (begins) {
        const int group = C::kGroups * (k_block / p.blocks_of_group);
        copy_box(ring.at() + C::kScalesAt, &p.scales, 0, group, block, ring.full());
        if (p.has_zeros) {
          copy_box(ring.at() + C::kZerosAt, &p.zeros, 0, group, block, ring.full());
        }
      }
      ring.next();
    }
  }
}

// The thread that loads x, its part of the box for every block that shares it.
template <class C>
__device__ __forceinline__ void load_x(const Params& p, RingOf<C> ring, const Place& place,
                                       const Steps& steps) {
  const int part = p.grid.share == 1 ? 0 : C::kTokens / 2 * place.share_rank;
  const auto ranks = static_cast<std::uint16_t>(3u << (2 * place.split_rank));
  wait_for_kernel_ahead();
  for (int index = steps.first; index < steps.tiles; index += steps.step) {
    const int token = find_tile<C::kRows, C::kTokens>(p.grid, index, place.share_rank).token + part;
    for (int k_block = place.k_begin; k_block < place.k_end; ++k_block) {
      wait_barrier(ring.empty(), ring.parity ^ 1);
      arrive_expecting(ring.full(), C::kXBytes);
      if (p.grid.share == 1) {
        copy_box(ring.at(), &p.x, k_block * kBlockK, token, 0, ring.full());
      } else {
        copy_box_to(ring.at() + part * 128, &p.x, k_block * kBlockK, token, 0, ring.full(), ranks);
      }
      ring.next();
    }
  }
  let_next_kernel_start();
}

template <class C>
using Scales = W4RowScale[C::kGroups][2];

// Scales and zero points of the lane's first row and the stage's first group lie at these
// addresses.
template <class C>
__device__ __forceinline__ void read_scales(const Params& p, std::uint32_t at, std::uint32_t zeros,
                                            Scales<C>& scales) {
#pragma unroll
  for (int h = 0; h < C::kGroups; ++h) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int element = 64 * h + 8 * i;
      const std::uint32_t zero = p.has_zeros ? load_shared_1(zeros + element) : 8u;
      scales[h][i] = w4_row_scale(load_shared_2(at + 2 * element), p.scales_are_bf16, zero);
    }
  }
}

// Of a stage: 4 fragments of 16 of k.
using Fragments = std::uint32_t[16];

// The products of one tile over this block's part of k, into d. While those of a stage run, the
// next stage's codes become fragments in the other set of registers and the codes after them are
// read.
template <class C>
struct Multiplier {
  const Params& p;
  const Place& place;
  RingOf<C>& reading;       // the stage whose codes are read next
  std::uint32_t codes_at;   // of this lane in stage 0
  std::uint32_t scales_at;  // of this lane's first row in stage 0
  std::uint32_t zeros_at;   // likewise
  std::uint64_t x;          // descriptor of the box of x in stage 0
  std::uint32_t empty;      // barrier of stage 0, at the block that this lane tells
  bool tells;
  int multiplying;  // stage
  uint4 codes;
  Scales<C> scales;

  __device__ __forceinline__ void read(int k_block) {
    wait_barrier(reading.full(), reading.parity);
    const std::uint32_t offset = reading.stage * C::kStageBytes;
    codes = load_shared_16(codes_at + offset);
    if (begins_group(p, place, k_block)) {
      read_scales<C>(p, scales_at + offset, zeros_at + offset, scales);
    }
    reading.next();
  }

  // The t-th fragment of the codes that were read last.
  __device__ __forceinline__ void decode(int t, Fragments& a) const {
    const std::uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
    w4_fragment(words[t], scales[t * C::kGroups / 4], a + 4 * t);
  }

  __device__ __forceinline__ void release(int stage) const {
    if (tells) arrive_remote(empty + 8 * stage);
  }

  // Multiplies k_block, whose fragments are in `now`, and decodes the one after it. (After the last
  // one, what is decoded is never used.)
  __device__ __forceinline__ void step(int k_block, const Fragments& now, Fragments& after,
                                       float (&d)[C::kTokens / 2]) {
    const std::uint64_t box = x + multiplying * (C::kStageBytes / 16);
    const int last = multiplying == 0 ? C::kStages - 1 : multiplying - 1;
    fence_products();
#pragma unroll
    for (int t = 0; t < 4; ++t) multiply_bf16(d, now + 4 * t, box + 2 * t);
    commit_products();
    if (k_block + 1 < place.k_end) read(k_block + 1);
    wait_products<C::kSets - 1>();  // the registers of `after` are free
    if (C::kSets == 1) {
      release(multiplying);
    } else if (k_block > place.k_begin) {
      release(last);
    }
    multiplying = multiplying == C::kStages - 1 ? 0 : multiplying + 1;
#pragma unroll
    for (int t = 0; t < 4; ++t) decode(t, after);
  }

  __device__ __forceinline__ void run(float (&d)[C::kTokens / 2]) {
    constexpr int kOther = C::kSets - 1;
    Fragments a[C::kSets];
#pragma unroll
    for (int i = 0; i < C::kTokens / 2; ++i) d[i] = 0;
    int k_block = place.k_begin;
    read(k_block);
#pragma unroll
    for (int t = 0; t < 4; ++t) decode(t, a[0]);
    for (; k_block + 1 < place.k_end; k_block += 2) {
      step(k_block, a[0], a[kOther], d);
      step(k_block + 1, a[kOther], a[0], d);
    }
    if (k_block < place.k_end) step(k_block, a[0], a[kOther], d);
    wait_products<0>();
    if (C::kSets > 1) release(multiplying == 0 ? C::kStages - 1 : multiplying - 1);
  }
};

template <class C>
__device__ __forceinline__ Multiplier<C> make_multiplier(const Params& p, const Place& place,
                                                         const Lane& me, RingOf<C>& ring) {
  const std::uint32_t row = 16 * me.warp + me.g();
  const std::uint32_t rank = place.split_rank * p.grid.share + me.lane;
  const bool tells = me.lane < p.grid.share;
  return {p,
          place,
          ring,
          ring.stages + C::kCodesAt + me.group * kCodeBytes + me.warp * 512 + me.lane * 16,
          ring.stages + C::kScalesAt + 2 * (me.group * C::kGroups * 64 + row),
          ring.stages + C::kZerosAt + me.group * C::kGroups * 64 + row,
          swizzled_descriptor(ring.stages),
          tells ? address_at(ring.barriers + C::kStages * 8, rank) : 0,
          tells,
          0,
          {},
          {}};
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
__global__ void __launch_bounds__(C::kThreads, 1)
    w4_large_kernel(const __grid_constant__ Params p) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ std::uint8_t shared[];
  // The same in every block of a cluster: all have the same layout of shared memory.
  const std::uint32_t barriers = (shared_address(shared) + 1023) & ~1023u;
  const std::uint32_t stages = barriers + C::kStagesAt;
  RingOf<C> ring{stages, barriers};
  if (threadIdx.x == 0) ring.init(2, 4 * C::kConsumers * p.grid.share);
  meet_cluster();
  const Place place = find_place(p.grid);
  const Steps steps = find_steps(p.grid);
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(C::kLoaderRegisters));
    if (threadIdx.x == 0) load_weight<C>(p, ring, place, steps);
    if (threadIdx.x == 32) load_x<C>(p, ring, place, steps);
    __syncwarp();
    sync_split(p.grid);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(C::kConsumerRegisters));
    const int thread = static_cast<int>(threadIdx.x) - 128;
    const Lane me{thread / 128, thread / 32 % 4, thread % 32};
    Storer<C::kTokens> storer{p.out, me, barriers + kLargeBarrierBytes + me.group * kOutBytes};
    Multiplier<C> multiplier = make_multiplier<C>(p, place, me, ring);
    wait_for_kernel_ahead();
    for (int index = steps.first; index < steps.tiles; index += steps.step) {
      const Tile tile = find_tile<C::kRows, C::kTokens>(p.grid, index, place.share_rank);
      float d[C::kTokens / 2];
      multiplier.run(d);
      if (p.grid.split > 1) {
        add_split<C::kConsumers, C::kTokens>(p.grid, place, stages, thread, d);
      }
      storer.store_tile(p.grid, place, tile, d);
    }
    storer.finish();
  }
  // A block must not leave while a neighbour still copies or arrives here.
  sync_cluster();
#else
  __trap();
#endif
}

TensorBox planes_box(const void* data, int element_bytes, std::int64_t inner, std::int64_t middle,
                     std::int64_t outer, int middle_box, int outer_box) {
  const std::int64_t bytes = inner * element_bytes;
  return {data,
          element_bytes,
          {inner, middle, outer},
          {bytes, middle * bytes},
          {static_cast<int>(inner), middle_box, outer_box},
          false};
}

template <class C>
cudaError_t make_maps(const W4Large& args, const W4LargeTile& tile, Params* p) {
  const FragmentMatrix& w = args.weight;
  const std::int64_t blocks = w.rows / 64;
  const TensorBox x{args.x,
                    2,
                    {w.cols, args.m, 1},
                    {w.cols * 2, args.m * w.cols * 2},
                    {kBlockK, C::kTokens / tile.share, 1},
                    true};
  const TensorBox codes =
      planes_box(w.codes, 8, kCodeBytes / 8, w.cols / kBlockK, blocks, 1, C::kConsumers);
  const TensorBox scales = planes_box(w.scales, 2, 64, w.groups, blocks, C::kGroups, C::kConsumers);
  const TensorBox zeros = planes_box(w.zeros, 1, 64, w.groups, blocks, C::kGroups, C::kConsumers);
  if (const cudaError_t error = make_tensor_map(x, &p->x)) return error;
  if (const cudaError_t error = make_tensor_map(codes, &p->codes)) return error;
  if (const cudaError_t error = make_tensor_map(scales, &p->scales)) return error;
  if (const cudaError_t error =
          make_out_map(args.y, args.m, w.rows, args.y_stride, C::kTokens, &p->out.y)) {
    return error;
  }
  return w.zeros == nullptr ? cudaSuccess : make_tensor_map(zeros, &p->zeros);
}

template <class C>
cudaError_t launch(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream) {
  const FragmentMatrix& w = args.weight;
  const std::int64_t group = w.cols / w.groups;
  Params p{};
  if (const cudaError_t error = make_maps<C>(args, tile, &p)) return error;
  p.grid = make_large_grid(args.m, w.rows, w.cols / kBlockK,
                           {C::kRows, C::kTokens, tile.share, tile.split});
  p.out.bias = args.bias;
  p.out.accumulate = args.accumulate;
  p.blocks_of_group = group < kBlockK ? 1 : static_cast<int>(group / kBlockK);
  p.group_mask = w.groups == 1 ? INT_MAX : p.blocks_of_group - 1;
  p.has_zeros = w.zeros != nullptr;
  p.scales_are_bf16 = w.bf16_scales;
  return launch_large(w4_large_kernel<C>, {C::kThreads, C::kAllBytes, args.dependent_launch}, p,
                      stream);
}

template <int kGroups>
cudaError_t launch_tile(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream) {
  switch (tile.rows * 1000 + tile.tokens) {
    case 128256:
      return launch<W4LargeConfig<2, 256, kGroups>>(args, tile, stream);
    case 128128:
      return launch<W4LargeConfig<2, 128, kGroups>>(args, tile, stream);
    case 128064:
      return launch<W4LargeConfig<2, 64, kGroups>>(args, tile, stream);
    case 256064:
      return launch<W4LargeConfig<4, 64, kGroups>>(args, tile, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

bool valid(const W4Large& args, const W4LargeTile& tile) {
  constexpr std::int64_t kMost = 1 << 24;
  const FragmentMatrix& w = args.weight;
  if (w.bits != 4 || args.m <= 0 || args.m > kMost || w.rows <= 0 || w.rows > kMost ||
      w.rows % 64 != 0 || w.cols <= 0 || w.cols > kMost || w.cols % 64 != 0 || w.groups <= 0 ||
      w.cols % w.groups != 0 || args.y_stride < w.rows || args.y_stride % 4 != 0) {
    return false;
  }
  const std::int64_t group = w.cols / w.groups;
  const bool split = tile.split == 1 || tile.split == 2 || (tile.split == 4 && tile.tokens == 64);
  const bool cut = (tile.share == 1 || tile.share == 2) && split && w.cols / kBlockK >= tile.split;
  return cut && (group == 32 || group == 64 || group == 128 || w.groups == 1);
}

}  // namespace

cudaError_t w4_large(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream) {
  if (!valid(args, tile)) return cudaErrorInvalidValue;
  const bool small_groups = args.weight.cols / args.weight.groups < kBlockK;
  return small_groups ? launch_tile<2>(args, tile, stream) : launch_tile<1>(args, tile, stream);
}

}  // namespace nibble::cuda
