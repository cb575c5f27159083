// A block: one KV head of one sequence, 8 or 16 (query row, head of the group) pairs, and one part
// of the keys, of which its warps take steps in turn.
#include <algorithm>
#include <climits>

#include "backends/cuda/device/decode_queries.cuh"
#include "backends/cuda/device/decode_results.cuh"
#include "backends/cuda/device/decode_warp.cuh"
#include "backends/cuda/device/kv_dispatch.h"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/attention_decode.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 32 * kDecodeWarps;
constexpr int kMaxDim = 256;
constexpr int kMostParts = 128;

template <KvType kType, int kDim, int kRowTiles>
__global__ void __launch_bounds__(kThreads, DecodeShape<kType, kDim, kRowTiles>::kBlocks)
    attend(const __grid_constant__ DecodeLaunch launch) {
  using Shape = DecodeShape<kType, kDim, kRowTiles>;
  using Warp = DecodeWarp<Shape, kType>;
  extern __shared__ __align__(128) std::uint8_t shared[];
  __shared__ bool last;
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const DeviceSequence sequence = launch.args.sequences[blockIdx.z];
  const BlockWork work = find_work<Shape>(launch, sequence);
  const int part = static_cast<int>(blockIdx.x);
  if (work.rows <= 0 || part >= work.parts) return;

  const int begin = work.keys.begin + part * work.part_keys;
  const int end = min(work.keys.end, begin + work.part_keys);
  const int index = static_cast<int>(threadIdx.x) / 32;
  DecodeKeys keys{
      KvPlaces(launch.args.blocks, static_cast<int>(blockIdx.z)),
      static_cast<const std::uint8_t*>(sequence.k) + work.kv_head * sequence.k_head_stride,
      static_cast<const std::uint8_t*>(sequence.v) + work.kv_head * sequence.v_head_stride,
      sequence.k_row_stride,
      sequence.v_row_stride,
      end,
      launch.args.head_dim,
      false};
  keys.dense =
      keys.head_dim == kDim && keys.k_stride == Shape::kPitch && keys.v_stride == Shape::kPitch &&
      (reinterpret_cast<std::uintptr_t>(keys.k + keys.places.offset(begin, keys.k_stride)) |
       reinterpret_cast<std::uintptr_t>(keys.v + keys.places.offset(begin, keys.v_stride))) %
              16 ==
          0;
  Queries<Warp> queries;
  fetch_queries<kType, Shape>(launch, sequence, work, &queries);
  Warp warp(shared + index * launch.plan.steps * Shape::kStepBytes, keys, launch.args.softcap);
  constexpr int kStride = kDecodeWarps * Shape::kKeys;
  const int start = begin + index * Shape::kKeys;
#pragma unroll 1
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
  int steps;
  int step_bytes;
  int result_floats;
  int blocks_per_sm;
};

template <KvType kType, int kDim, int kRowTiles>
DecodeKernel describe() {
  using Shape = DecodeShape<kType, kDim, kRowTiles>;
  return {attend<kType, kDim, kRowTiles>,
          Shape::kRows,
          Shape::kKeys,
          Shape::kSteps,
          Shape::kStepBytes,
          Shape::kResultFloats,
          Shape::kBlocksPerSm};
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
  // A block may begin up to a step ahead of the first key of a window.
  const std::int64_t most_keys = keys + (args.window > 0 ? kernel.keys - 1 : 0);
  const int part_keys = keys_of_part(static_cast<int>(most_keys), plan.parts, kernel.keys);
  const int steps = (part_keys / kernel.keys + kDecodeWarps - 1) / kDecodeWarps;
  plan.steps = std::min(kernel.steps, steps);
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
  if (args.blocks.block_rows % kMostDecodeKeys != 0) return "blocks of rows that steps do not fill";
  const std::int64_t rows = args.max_q_rows * (args.heads / args.kv_heads);
  if (rows >= 1 << 20) return "2^20 query rows";
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
  const int group = args.heads / args.kv_heads;
  DecodeLaunch decode{args,   plan_of(args, kernel), group, 1 / static_cast<float>(group), nullptr,
                      nullptr};
  decode.counters = static_cast<unsigned*>(args.workspace);
  decode.partial =
      reinterpret_cast<float*>(static_cast<std::uint8_t*>(args.workspace) + kAttentionCounterBytes);
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(decode.plan.parts),
                    static_cast<unsigned>(args.kv_heads * decode.plan.row_blocks),
                    static_cast<unsigned>(args.sequence_count));
  shape.block = dim3(kThreads);
  const int queues = kDecodeWarps * decode.plan.steps * kernel.step_bytes;
  const int results = kDecodeWarps * kernel.result_floats * static_cast<int>(sizeof(float));
  shape.shared_bytes = static_cast<std::size_t>(std::max(queues, results));
  shape.dependent = args.dependent_launch;
  return launch(kernel.run, shape, stream, decode);
}

}  // namespace nibble::cuda
