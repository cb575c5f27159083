// A block: one KV head of one sequence, 8 or 16 (query row, head of the group) pairs, and one part
// of the keys, of which its warps take steps in turn.
#include <algorithm>
#include <climits>

#include "backends/cuda/device/decode_warp.cuh"
#include "backends/cuda/device/kv_dispatch.h"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/warp_reduce.cuh"
#include "backends/cuda/kernels/attention_decode.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 32 * kDecodeWarps;
constexpr int kMaxDim = 256;
constexpr int kMostParts = 128;

// How the launch is cut, the same on host and device.
struct DecodePlan {
  int parts;       // of the keys, at most
  int row_blocks;  // of the query rows of a KV head, at most
  int items;       // sequences x KV heads x row blocks
};

struct DecodeLaunch {
  AttentionLaunch args;
  DecodePlan plan;
  int group;           // query heads of a KV head
  unsigned* counters;  // [items]
  float* partial;      // [items, parts, kRows, kDim + 2]
};

// Where a block works.
struct BlockWork {
  KeyRange keys;  // of all parts
  int part_keys;
  int parts;  // that have keys; 1 when there are none at all
  int first_row;
  int rows;  // (query row, head) pairs of this block
  int kv_head;
  int item;
};

template <class Shape>
__device__ BlockWork find_work(const DecodeLaunch& launch, const DeviceSequence& sequence) {
  BlockWork work;
  const int row_block = static_cast<int>(blockIdx.y) % launch.plan.row_blocks;
  work.kv_head = static_cast<int>(blockIdx.y) / launch.plan.row_blocks;
  work.item = static_cast<int>(blockIdx.z * gridDim.y + blockIdx.y);
  work.first_row = row_block * Shape::kRows;
  const auto all_rows = static_cast<int>(sequence.q_rows) * launch.group;
  work.rows = min(Shape::kRows, all_rows - work.first_row);
  work.keys = visible_keys(launch.args, sequence, work.first_row / launch.group,
                           (work.first_row + work.rows - 1) / launch.group);
  // From an even row on integer rows that lie one after the other begin on 16 bytes.
  if (Shape::Traits::kCodes) work.keys.begin &= ~1;
  const int count = max(0, work.keys.end - work.keys.begin);
  const int least = kDecodeWarps * Shape::kKeys;
  const int share = (count + launch.plan.parts - 1) / launch.plan.parts;
  work.part_keys = max(least, (share + Shape::kKeys - 1) / Shape::kKeys * Shape::kKeys);
  work.parts = max(1, (count + work.part_keys - 1) / work.part_keys);
  return work;
}

// The queries of a lane's fragments: of each row tile and 16 elements the two of its first register
// and the two of its second.
template <class Warp>
struct Queries {
  float values[Warp::kRowTiles][Warp::kDim / 16][4];
};

template <KvType kType, class Shape, class Warp>
__device__ void fetch_queries(const DecodeLaunch& launch, const DeviceSequence& sequence,
                              const BlockWork& work, Queries<Warp>* queries) {
  const AttentionLaunch& args = launch.args;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  constexpr int kProducts = Shape::kKeyElements / 4;
#pragma unroll
  for (int t = 0; t < Warp::kRowTiles; ++t) {
    const int mine = 8 * t + lane / 4;
    const int row = work.first_row + mine;
    const float* q = args.q + (sequence.q_begin + row / launch.group) * args.q_row_stride +
                     (work.kv_head * launch.group + row % launch.group) * args.q_head_stride;
#pragma unroll
    for (int s = 0; s < Warp::kDim / 16; ++s) {
      auto& to = queries->values[t][s];
      const int start = (s / kProducts * 4 + lane % 4) * Shape::kKeyElements +
                        pair_element<kType>(s % kProducts * 2, false);
      const bool exists = mine < work.rows && start < args.head_dim;
      if constexpr (kType == KvType::kInt4) {
        const float2 a = exists ? *reinterpret_cast<const float2*>(q + start) : float2{};
        const float2 b = exists ? *reinterpret_cast<const float2*>(q + start + 4) : float2{};
        to[0] = a.x;
        to[1] = b.x;
        to[2] = a.y;
        to[3] = b.y;
      } else {
        const float4 x = exists ? *reinterpret_cast<const float4*>(q + start) : float4{};
        to[0] = x.x;
        to[1] = x.y;
        to[2] = x.z;
        to[3] = x.w;
      }
    }
  }
}

// Rounds the queries of a row tile to fragments.
template <class Shape, class Warp>
__device__ void round_queries(const float (&values)[Warp::kDim / 16][4], int t, float scale,
                              Warp* warp) {
  constexpr int kSteps = Warp::kDim / 16;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float unit = 1;  // a power of two that brings f16 queries to below 2
  if constexpr (Shape::Traits::kF16) {
    float largest = 0;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(values[s][i]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    unit = __uint_as_float(max(__float_as_uint(largest) & 0x7f800000u, 0x00800000u));
  }
  const float inverse = 1 / unit;
  float sum = 0;
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t pair =
          Shape::Pairs::pack(values[s][2 * i] * inverse, values[s][2 * i + 1] * inverse);
      const float2 rounded = Shape::Pairs::unpack(pair);
      warp->queries[s][t][i] = pair;
      sum += rounded.x + rounded.y;
    }
  }
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int column = lane % 4 * 2 + i;
    warp->columns[t][i].query_sum = __shfl_sync(0xffffffffu, sum, 4 * column);
    warp->columns[t][i].scale = scale * __shfl_sync(0xffffffffu, unit, 4 * column);
  }
}

// What the warp must know of its columns' rows besides their queries.
template <class Warp>
__device__ void describe_columns(const DecodeLaunch& launch, const DeviceSequence& sequence,
                                 const BlockWork& work, Warp* warp) {
  const AttentionLaunch& args = launch.args;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int t = 0; t < Warp::kRowTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int mine = 8 * t + lane % 4 * 2 + i;
      const int row = work.first_row + mine;
      const bool exists = mine < work.rows;
      const KeyRange keys = visible_keys(args, sequence, row / launch.group);
      DecodeColumn& to = warp->columns[t][i];
      to.begin = exists ? keys.begin : 0;
      to.end = exists ? keys.end : 0;
      to.slope = exists && args.alibi_slopes != nullptr
                     ? args.alibi_slopes[work.kv_head * launch.group + row % launch.group] * kLog2E
                     : 0;
    }
  }
}

// A warp's results in shared memory: sums [kRows, kDim], largest [kRows], weight [kRows].
template <class Shape, class Warp>
__device__ void store_warp(const Warp& warp, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int t = 0; t < Warp::kRowTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = 8 * t + lane % 4 * 2 + i;
#pragma unroll
      for (int m = 0; m < Warp::kDim / 16; ++m) {
        *reinterpret_cast<float2*>(to + row * Warp::kDim + warp.element(m)) =
            make_float2(warp.sums[m][t][i], warp.sums[m][t][i + 2]);
      }
      if (lane / 4 == 0) {
        to[Shape::kRows * Warp::kDim + row] = warp.largest[t][i];
        to[Shape::kRows * (Warp::kDim + 1) + row] = warp.weight[t][i];
      }
    }
  }
}

// Results of the warps of this block, and of other blocks: those must not come from the L1 cache.
struct OwnResults {
  template <class T>
  __device__ static T load(const T* from) {
    return *from;
  }
};
struct OthersResults {
  template <class T>
  __device__ static T load(const T* from) {
    return __ldcg(from);
  }
};

// Adds up `count` results of one row (results lie `stride` floats apart) as a warp: this lane's
// columns 4 * lane + 128 * j, the row's largest score and its weight.
template <class Shape, int kDim, class Source, int kBatch>
struct RowSum {
  static constexpr int kVectors = (kDim + 127) / 128;
  float4 sums[kVectors] = {};
  float largest = -INFINITY;
  float weight = 0;

  // All loads of a batch are under way before the first is needed: the results of other blocks come
  // from the L2 cache.
  __device__ void add_up(const float* results, int count, std::int64_t stride, int row) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const float* tops = results + Shape::kRows * kDim + row;
    const float* from = results + row * kDim + 4 * lane;
    for (int first = 0; first < count; first += kBatch) {
      const int mine = first + lane % kBatch;
      const bool exists = lane < kBatch && mine < count;
      const float top = exists ? Source::load(tops + mine * stride) : -INFINITY;
      const float part = exists ? Source::load(tops + mine * stride + Shape::kRows) : 0;
      float4 x[kBatch][kVectors];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
#pragma unroll
        for (int j = 0; j < kVectors; ++j) {
          const bool inside = first + i < count && 128 * j + 4 * lane < kDim;
          const float* at = from + (first + i) * stride + 128 * j;
          x[i][j] = inside ? Source::load(reinterpret_cast<const float4*>(at)) : float4{};
        }
      }
      const float most = fmaxf(largest, warp_max(top));
      const float base = most == -INFINITY ? 0 : most;
      const float before = power_of_2(largest - base);
      const float factor = power_of_2(top - base);
      largest = most;
      weight = fmaf(weight, before, warp_sum(factor * part));
#pragma unroll
      for (int j = 0; j < kVectors; ++j) {
        float4 sum = sums[j];
        sum = {sum.x * before, sum.y * before, sum.z * before, sum.w * before};
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const float f = __shfl_sync(0xffffffffu, factor, i);
          sum.x = fmaf(f, x[i][j].x, sum.x);
          sum.y = fmaf(f, x[i][j].y, sum.y);
          sum.z = fmaf(f, x[i][j].z, sum.z);
          sum.w = fmaf(f, x[i][j].w, sum.w);
        }
        sums[j] = sum;
      }
    }
  }
};

// Adds up results row by row, a warp a row, and writes them as rows of `out`.
template <class Shape, int kDim, class Source, int kBatch>
__device__ void write_rows(const DecodeLaunch& launch, const DeviceSequence& sequence,
                           const BlockWork& work, const float* results, int count,
                           std::int64_t stride) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int row = static_cast<int>(threadIdx.x) / 32; row < work.rows; row += kDecodeWarps) {
    RowSum<Shape, kDim, Source, kBatch> sum;
    sum.add_up(results, count, stride, row);
    const int r = work.first_row + row;
    const std::int64_t head = work.kv_head * launch.group + r % launch.group;
    float* out = launch.args.out + (sequence.q_begin + r / launch.group) * launch.args.out_stride +
                 head * launch.args.head_dim;
    const float inverse = sum.largest == -INFINITY ? 0 : 1 / sum.weight;
#pragma unroll
    for (int j = 0; j < sum.kVectors; ++j) {
      const int d = 128 * j + 4 * lane;
      if (d >= launch.args.head_dim) continue;
      const float4 x = sum.sums[j];
      out[d] = x.x * inverse;
      out[d + 1] = x.y * inverse;
      out[d + 2] = x.z * inverse;
      out[d + 3] = x.w * inverse;
    }
  }
}

// The same, to this block's place among the partial results.
template <class Shape, int kDim>
__device__ void write_partial(const BlockWork& work, const float* results, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int row = static_cast<int>(threadIdx.x) / 32; row < work.rows; row += kDecodeWarps) {
    RowSum<Shape, kDim, OwnResults, kDecodeWarps> sum;
    sum.add_up(results, kDecodeWarps, Shape::kResultFloats, row);
#pragma unroll
    for (int j = 0; j < sum.kVectors; ++j) {
      const int d = 128 * j + 4 * lane;
      if (d < kDim) __stcg(reinterpret_cast<float4*>(to + row * kDim + d), sum.sums[j]);
    }
    if (lane == 0) {
      __stcg(to + Shape::kRows * kDim + row, sum.largest);
      __stcg(to + Shape::kRows * (kDim + 1) + row, sum.weight);
    }
  }
}

template <KvType kType, int kDim, int kRowTiles>
__global__ void __launch_bounds__(kThreads, DecodeShape<kType, kDim, kRowTiles>::kBlocks)
    attend(const __grid_constant__ DecodeLaunch launch) {
  using Shape = DecodeShape<kType, kDim, kRowTiles>;
  using Warp = DecodeWarp<Shape, kType>;
  extern __shared__ __align__(128) std::uint8_t shared[];
  __shared__ bool last;
  wait_for_kernel_ahead();
  let_next_kernel_start();
  const DeviceSequence sequence = launch.args.sequences[blockIdx.z];
  const BlockWork work = find_work<Shape>(launch, sequence);
  const int part = static_cast<int>(blockIdx.x);
  if (work.rows <= 0 || part >= work.parts) return;

  const int begin = work.keys.begin + part * work.part_keys;
  const int end = min(work.keys.end, begin + work.part_keys);
  const int index = static_cast<int>(threadIdx.x) / 32;
  DecodeKeys keys{
      static_cast<const std::uint8_t*>(sequence.k) + work.kv_head * sequence.k_head_stride,
      static_cast<const std::uint8_t*>(sequence.v) + work.kv_head * sequence.v_head_stride,
      sequence.k_row_stride,
      sequence.v_row_stride,
      end,
      launch.args.head_dim,
      false};
  keys.dense = keys.head_dim == kDim && keys.k_stride == Shape::kPitch &&
               keys.v_stride == Shape::kPitch &&
               (reinterpret_cast<std::uintptr_t>(keys.k + begin * keys.k_stride) |
                reinterpret_cast<std::uintptr_t>(keys.v + begin * keys.v_stride)) %
                       16 ==
                   0;
  Queries<Warp> queries;
  fetch_queries<kType, Shape>(launch, sequence, work, &queries);
  Warp warp(shared + index * Shape::kSteps * Shape::kStepBytes, keys, launch.args.softcap);
  constexpr int kStride = kDecodeWarps * Shape::kKeys;
  const int start = begin + index * Shape::kKeys;
#pragma unroll
  for (int s = 0; s < Shape::kSteps - 1; ++s) {
    if (start + s * kStride < end) warp.request(s, start + s * kStride);
    end_copy_group();
  }
  const float scale = launch.args.scale * (launch.args.softcap > 0 ? 1 : kLog2E);
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
    round_queries<Shape>(queries.values[t], t, scale, &warp);
  }
  describe_columns(launch, sequence, work, &warp);
  int step = 0;
  for (int key = start; key < end; key += kStride) {
    wait_for_copies<Shape::kSteps - 2>();
    __syncwarp();
    const int next = key + (Shape::kSteps - 1) * kStride;
    if (next < end) warp.request(step == 0 ? Shape::kSteps - 1 : step - 1, next);
    end_copy_group();
    warp.take(step, key);
    step = step + 1 == Shape::kSteps ? 0 : step + 1;
  }
  warp.finish();

  wait_for_copies<0>();
  __syncthreads();
  auto* results = reinterpret_cast<float*>(shared);
  store_warp<Shape>(warp, results + index * Shape::kResultFloats);
  __syncthreads();
  if (work.parts == 1) {
    write_rows<Shape, kDim, OwnResults, kDecodeWarps>(launch, sequence, work, results, kDecodeWarps,
                                                      Shape::kResultFloats);
    return;
  }
  float* parts = launch.partial +
                 static_cast<std::int64_t>(work.item) * launch.plan.parts * Shape::kResultFloats;
  write_partial<Shape, kDim>(work, results, parts + part * Shape::kResultFloats);
  __syncthreads();
  if (threadIdx.x == 0) {
    // Releases the results of all threads, as the barrier came first, and acquires those of others.
    const auto others = static_cast<unsigned>(work.parts - 1);
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(launch.counters + work.item), "r"(others)
                 : "memory");
    last = before == others;
  }
  __syncthreads();
  if (!last) return;
  write_rows<Shape, kDim, OthersResults, kDim <= 128 && Shape::kBlocks <= 2 ? 32 : 16>(
      launch, sequence, work, parts, work.parts, Shape::kResultFloats);
}

// The instantiation for a call, and its sizes.
struct DecodeKernel {
  void (*run)(DecodeLaunch);
  int rows;
  int keys;
  int shared_bytes;
  int result_floats;
  int blocks_per_sm;
};

template <KvType kType, int kDim, int kRowTiles>
DecodeKernel describe() {
  using Shape = DecodeShape<kType, kDim, kRowTiles>;
  return {attend<kType, kDim, kRowTiles>, Shape::kRows,       Shape::kKeys, Shape::kSharedBytes,
          Shape::kResultFloats,           Shape::kBlocksPerSm};
}

template <KvType kType>
DecodeKernel choose(int head_dim, std::int64_t rows) {
  if (head_dim > 128) return describe<kType, 256, 1>();
  if (head_dim > 64) return rows > 8 ? describe<kType, 128, 2>() : describe<kType, 128, 1>();
  return rows > 8 ? describe<kType, 64, 2>() : describe<kType, 64, 1>();
}

DecodeKernel choose(const AttentionLaunch& args) {
  const std::int64_t rows = args.max_q_rows * (args.heads / args.kv_heads);
  return with_kv_type(
      args.kv_type, [&](auto type) { return choose<decltype(type)::value>(args.head_dim, rows); });
}

// Parts of the keys that end the launch soonest: waves of blocks times what a block takes, counted
// in keys, with kFixed for its start and end.
DecodePlan plan_of(const AttentionLaunch& args, const DecodeKernel& kernel) {
  constexpr std::int64_t kFixed = 192;
  const std::int64_t rows = args.max_q_rows * (args.heads / args.kv_heads);
  DecodePlan plan;
  plan.row_blocks = static_cast<int>((rows + kernel.rows - 1) / kernel.rows);
  plan.items = args.sequence_count * args.kv_heads * plan.row_blocks;
  const std::int64_t slots = static_cast<std::int64_t>(args.sm_count) * kernel.blocks_per_sm;
  std::int64_t keys = args.max_kv_rows;
  if (args.window > 0) keys = std::min(keys, args.window + args.max_q_rows);
  const std::int64_t most =
      std::clamp<std::int64_t>(keys / (kDecodeWarps * kernel.keys), 1, kMostParts);
  std::int64_t best = LLONG_MAX;
  for (std::int64_t parts = 1; parts <= most; ++parts) {
    const std::int64_t waves = (plan.items * parts + slots - 1) / slots;
    const std::int64_t cost = waves * ((keys + parts - 1) / parts + kFixed);
    if (cost < best) {
      best = cost;
      plan.parts = static_cast<int>(parts);
    }
  }
  return plan;
}

}  // namespace

const char* attention_decode_unsupported(const AttentionLaunch& args) {
  if (args.head_dim < 16 || args.head_dim > kMaxDim || args.head_dim % 16 != 0) {
    return "head_dim is no multiple of 16 up to 256";
  }
  if (args.kv_type == KvType::kF32 && args.head_dim > 128) return "float32 rows of more than 128";
  if (args.kv_heads < 1 || args.heads % args.kv_heads != 0) return "heads that kv_heads divide not";
  if (args.q_row_stride % 4 != 0 || args.q_head_stride % 4 != 0 ||
      reinterpret_cast<std::uintptr_t>(args.q) % 16 != 0) {
    return "queries that do not lie on 16 bytes";
  }
  if (args.sm_count < 1) return "no sm_count";
  const std::int64_t rows = args.max_q_rows * (args.heads / args.kv_heads);
  const std::int64_t most_items = args.sequence_count * args.kv_heads * ((rows + 7) / 8);
  if (most_items > static_cast<std::int64_t>(kAttentionCounterBytes / sizeof(unsigned)) ||
      args.kv_heads * ((rows + 7) / 8) > 65535 || args.sequence_count > 65535) {
    return "more than 65535 blocks of query rows";
  }
  if (args.max_kv_rows > INT_MAX / 2) return "2^30 keys";
  return nullptr;
}

std::size_t attention_decode_workspace(const AttentionLaunch& args) {
  const DecodeKernel kernel = choose(args);
  const DecodePlan plan = plan_of(args, kernel);
  return kAttentionCounterBytes + sizeof(float) * static_cast<std::size_t>(plan.items) *
                                      static_cast<std::size_t>(plan.parts) *
                                      static_cast<std::size_t>(kernel.result_floats);
}

cudaError_t attention_decode(const AttentionLaunch& args, cudaStream_t stream) {
  if (attention_decode_unsupported(args) != nullptr) return cudaErrorInvalidValue;
  if (args.sequence_count == 0 || args.max_q_rows == 0) return cudaSuccess;
  const DecodeKernel kernel = choose(args);
  DecodeLaunch decode{args, plan_of(args, kernel), args.heads / args.kv_heads, nullptr, nullptr};
  decode.counters = static_cast<unsigned*>(args.workspace);
  decode.partial =
      reinterpret_cast<float*>(static_cast<std::uint8_t*>(args.workspace) + kAttentionCounterBytes);
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(decode.plan.parts),
                    static_cast<unsigned>(args.kv_heads * decode.plan.row_blocks),
                    static_cast<unsigned>(args.sequence_count));
  shape.block = dim3(kThreads);
  shape.shared_bytes = static_cast<std::size_t>(kernel.shared_bytes);
  shape.dependent = args.dependent_launch;
  return launch(kernel.run, shape, stream, decode);
}

}  // namespace nibble::cuda
