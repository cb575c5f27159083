// Both operands come by the bulk copy engine, swizzled; see device/large_tile.cuh for tiles and
// clusters. A warpgroup multiplies 64 rows of W by 128 tokens of a stage of 128 of k into one set
// of registers and adds that, scaled, to its sums, while the tensor cores work for the other
// warpgroup.
#include <cuda.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/large_tile.cuh"
#include "backends/cuda/device/wgmma.cuh"
#include "backends/cuda/kernels/fp8_large.h"
#include "backends/cuda/kernels/large_launch.h"

namespace nibble::cuda {

static constexpr int kFp8BlockK = 128;  // of k in a stage: a swizzled row

template <int kTokens_>
struct Fp8LargeConfig {
  static constexpr int kConsumers = 2;
  static constexpr int kTokens = kTokens_;
  static constexpr int kHalves = kTokens / 128;
  static constexpr int kRows = 64 * kConsumers;
  static constexpr int kThreads = 128 * (kConsumers + 1);
  static constexpr int kXBytes = kTokens * kFp8BlockK;
  static constexpr int kWBytes = kRows * kFp8BlockK;
  static constexpr int kStageBytes = kXBytes + kWBytes;
  static constexpr int kStagesAt = kLargeBarrierBytes + kConsumers * kOutBytes;
  static constexpr int kStages = (kLargeSharedBytes - kStagesAt - 1024) / kStageBytes;
  static constexpr int kAllBytes = kStagesAt + kStages * kStageBytes + 1024;
};

namespace {

struct Params {
  LargeGrid grid;
  LargeOut out;
  CUtensorMap x, w;
  const void* scales;
  const float* x_scales;
  ScaleType scale_type;
  int groups;
  int m;
};

#if __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
using RingOf = Ring<C::kStages, C::kStageBytes>;

template <class C>
__device__ __forceinline__ void load_weight(const Params& p, RingOf<C> ring, const Place& place,
                                            const Steps& steps) {
  for (int index = steps.first; index < steps.tiles; index += steps.step) {
    const int row = find_tile<C::kRows, C::kTokens>(p.grid, index, place.share_rank).row;
    for (int k_block = place.k_begin; k_block < place.k_end; ++k_block) {
      wait_barrier(ring.empty(), ring.parity ^ 1);
      arrive_expecting(ring.full(), C::kWBytes);
      copy_box(ring.at() + C::kXBytes, &p.w, k_block * kFp8BlockK, row, 0, ring.full());
      ring.next();
    }
  }
}

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
        copy_box(ring.at(), &p.x, k_block * kFp8BlockK, token, 0, ring.full());
      } else {
        copy_box_to(ring.at() + part * kFp8BlockK, &p.x, k_block * kFp8BlockK, token, 0,
                    ring.full(), ranks);
      }
      ring.next();
    }
  }
  let_next_kernel_start();
}

__device__ __forceinline__ float load_scale(const Params& p, std::int64_t at) {
  if (p.scale_type == ScaleType::kF32) return __ldg(static_cast<const float*>(p.scales) + at);
  const std::uint16_t bits = __ldg(static_cast<const std::uint16_t*>(p.scales) + at);
  return p.scale_type == ScaleType::kBf16 ? __uint_as_float(std::uint32_t{bits} << 16)
                                          : __half2float(__ushort_as_half(bits));
}

// The sums of one tile over this block's part of k, into d.
template <class C>
struct Multiplier {
  const Params& p;
  const Place& place;
  const Lane& me;
  RingOf<C>& ring;
  std::uint64_t x, w;   // descriptors in stage 0, w of the warpgroup's rows
  std::uint32_t empty;  // barrier of stage 0, at the block that this lane tells
  bool tells;

  // Of the thread's rows g and g + 8, for the group of k_block.
  __device__ __forceinline__ void load_scales(int row, int k_block, float (&scale)[2]) const {
    if (row >= p.grid.n) return;  // nothing of these rows is stored
    const int group = p.groups == 1 ? 0 : k_block;
    const std::int64_t at = (std::int64_t{row / 64} * p.groups + group) * 64 + row % 64;
    scale[0] = load_scale(p, at);
    scale[1] = load_scale(p, at + 8);
  }

  __device__ __forceinline__ void multiply(std::uint64_t a, std::uint64_t b,
                                           float (&products)[64]) const {
    fence_products();
    multiply_fp8<false>(products, a, b);
    multiply_fp8<true>(products, a + 2, b + 2);
    multiply_fp8<true>(products, a + 4, b + 4);
    multiply_fp8<true>(products, a + 6, b + 6);
    commit_products();
    wait_products<0>();
  }

  __device__ __forceinline__ void run(int tile_row, float (&d)[C::kTokens / 2]) {
    const int row = tile_row + 64 * me.group + 16 * me.warp + me.g();
    float products[64];
    float next[2] = {};
#pragma unroll
    for (int i = 0; i < C::kTokens / 2; ++i) d[i] = 0;
    load_scales(row, place.k_begin, next);
    for (int k_block = place.k_begin; k_block < place.k_end; ++k_block) {
      const float scale[2] = {next[0], next[1]};
      if (k_block + 1 < place.k_end) load_scales(row, k_block + 1, next);
      const std::uint64_t stage = static_cast<std::uint64_t>(ring.stage) * (C::kStageBytes / 16);
      wait_barrier(ring.full(), ring.parity);
#pragma unroll
      for (int half = 0; half < C::kHalves; ++half) {
        multiply(w + stage, x + stage + half * (128 * kFp8BlockK / 16), products);
        if (half == C::kHalves - 1 && tells) arrive_remote(empty + 8 * ring.stage);
#pragma unroll
        for (int i = 0; i < 64; ++i) {
          d[64 * half + i] = fmaf(products[i], scale[i % 4 / 2], d[64 * half + i]);
        }
      }
      ring.next();
    }
  }
};

// Each token's scale, on the sums that this thread has of it.
template <class C>
__device__ __forceinline__ void scale_tokens(const Params& p, const Lane& me, int first_token,
                                             float (&d)[C::kTokens / 2]) {
#pragma unroll
  for (int j = 0; j < C::kTokens / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = first_token + 8 * j + 2 * me.c() + i;
      const float scale = token < p.m ? __ldg(p.x_scales + token) : 0.0f;
      d[4 * j + i] *= scale;
      d[4 * j + i + 2] *= scale;
    }
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
__global__ void __launch_bounds__(C::kThreads, 1)
    fp8_large_kernel(const __grid_constant__ Params p) {
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
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 0) load_weight<C>(p, ring, place, steps);
    if (threadIdx.x == 32) load_x<C>(p, ring, place, steps);
    __syncwarp();
    sync_split(p.grid);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int thread = static_cast<int>(threadIdx.x) - 128;
    const Lane me{thread / 128, thread / 32 % 4, thread % 32};
    Storer<C::kTokens> storer{p.out, me, barriers + kLargeBarrierBytes + me.group * kOutBytes};
    const bool tells = me.lane < p.grid.share;
    const std::uint32_t told = place.split_rank * p.grid.share + me.lane;
    Multiplier<C> multiplier{p,
                             place,
                             me,
                             ring,
                             swizzled_descriptor(stages),
                             swizzled_descriptor(stages + C::kXBytes + me.group * 64 * kFp8BlockK),
                             tells ? address_at(barriers + C::kStages * 8, told) : 0,
                             tells};
    wait_for_kernel_ahead();
    for (int index = steps.first; index < steps.tiles; index += steps.step) {
      const Tile tile = find_tile<C::kRows, C::kTokens>(p.grid, index, place.share_rank);
      float d[C::kTokens / 2];
      multiplier.run(tile.row, d);
      if (p.grid.split > 1) {
        add_split<C::kConsumers, C::kTokens>(p.grid, place, stages, thread, d);
      }
      scale_tokens<C>(p, me, tile.token, d);
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

template <class C>
cudaError_t launch(const Fp8Large& args, const Fp8LargeTile& tile, cudaStream_t stream) {
  const Fp8Matrix& w = args.weight;
  Params p{};
  const auto box = [&](const void* data, std::int64_t rows, int box_rows) {
    return TensorBox{data, 1, {w.cols, rows, 1}, {w.cols, rows * w.cols}, {kFp8BlockK, box_rows, 1},
                     true};
  };
  if (const cudaError_t error =
          make_tensor_map(box(args.x, args.m, C::kTokens / tile.share), &p.x)) {
    return error;
  }
  if (const cudaError_t error = make_tensor_map(box(w.codes, w.rows, C::kRows), &p.w)) {
    return error;
  }
  if (const cudaError_t error = make_out_map(args.y, args.m, w.rows, args.y_stride, &p.out.y)) {
    return error;
  }
  p.grid = make_large_grid(args.m, w.rows, w.cols / kFp8BlockK,
                           {C::kRows, C::kTokens, tile.share, tile.split});
  p.out.bias = args.bias;
  p.out.accumulate = args.accumulate;
  p.scales = w.scales;
  p.x_scales = args.x_scales;
  p.scale_type = w.scale_type;
  p.groups = static_cast<int>(w.groups);
  p.m = static_cast<int>(args.m);
  return launch_large(fp8_large_kernel<C>, {C::kThreads, C::kAllBytes, args.dependent_launch}, p,
                      stream);
}

bool valid(const Fp8Large& args, const Fp8LargeTile& tile) {
  constexpr std::int64_t kMost = 1 << 24;
  const Fp8Matrix& w = args.weight;
  const bool sizes = args.m > 0 && args.m <= kMost && w.rows > 0 && w.rows <= kMost &&
                     w.rows % 64 == 0 && w.cols > 0 && w.cols <= kMost &&
                     w.cols % kFp8BlockK == 0 && (w.groups == 1 || w.groups == w.cols / kFp8BlockK);
  const bool cut = (tile.share == 1 || tile.share == 2) && (tile.split == 1 || tile.split == 2) &&
                   w.cols / kFp8BlockK >= tile.split;
  return sizes && cut && args.y_stride >= w.rows && args.y_stride % 4 == 0;
}

}  // namespace

cudaError_t fp8_large(const Fp8Large& args, const Fp8LargeTile& tile, cudaStream_t stream) {
  if (!valid(args, tile)) return cudaErrorInvalidValue;
  switch (tile.tokens) {
    case 128:
      return launch<Fp8LargeConfig<128>>(args, tile, stream);
    case 256:
      return launch<Fp8LargeConfig<256>>(args, tile, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace nibble::cuda
