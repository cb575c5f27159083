// A block: 128 query rows of one head. Two warpgroups have 64 rows each, a third loads keys and
// values, 128 at a time, into two buffers of each.
// In step j a warpgroup starts the scores of keys j, then the sums of values j - 1, and makes
// weights of the scores while the sums are still being worked on.
#include "backends/cuda/device/attention_products.cuh"
#include "backends/cuda/device/attention_result.cuh"
#include "backends/cuda/device/attention_rows.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/mma_m16n8k16.cuh"
#include "backends/cuda/device/prefill_tiles.cuh"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/attention_prefill_sm90.h"
#include "backends/cuda/kernels/kv_unpack.h"

namespace nibble::cuda {
namespace {

using namespace prefill;

#if __CUDA_ARCH_FEAT_SM90_ALL

// A warpgroup with 64 query rows. A lane has rows lane / 4 and 8 more of its warp's 16, columns 8 i
// + 2 (lane % 4) and the next of scores and sums.
template <int kDim, bool kPlain>
class Group {
 public:
  __device__ Group(const AttentionLaunch& args, const DeviceSequence& sequence, int first_row,
                   int head, std::uint32_t queries)
      : queries_(queries), softcap_(args.softcap) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
    scale_ = args.scale * (args.softcap > 0 ? 1 : kLog2E);
    slope_ = args.alibi_slopes != nullptr ? args.alibi_slopes[head] * kLog2E : 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const KeyRange keys =
          visible_keys(args, sequence, first_row + 16 * warp + 8 * half + lane / 4);
      begin_[half] = keys.begin;
      end_[half] = keys.end;
    }
    all_.begin = visible_keys(args, sequence, first_row + kGroupRows - 1).begin;
    all_.end = visible_keys(args, sequence, first_row).end;
  }

  // All tiles, the first of which begins with key `first`.
  __device__ void run(const Buffers& k, const Buffers& v, int first, int tiles) {
    float scores[kKeys / 2];
    wait_barrier(k.full_at(0), 0);
    start_scores(k.tile(0), scores);
    wait_products<0>();
    pin(scores);
    release(k.empty_at(0));
    float factor[2];
    weigh(scores, first, factor);
    std::uint32_t weights[kKeys / 4];
    pack(scores, weights);
    for (int j = 1; j < tiles; ++j) {
      wait_barrier(k.full_at(j), Buffers::phase(j));
      start_scores(k.tile(j), scores);
      wait_barrier(v.full_at(j - 1), Buffers::phase(j - 1));
      start_sums(v.tile(j - 1), weights);
      wait_products<1>();
      pin(scores);
      release(k.empty_at(j));
      weigh(scores, first + j * kKeys, factor);
      wait_products<0>();
      pin(sums_);
      release(v.empty_at(j - 1));
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) sums_[i] *= factor[i / 2 % 2];
      pack(scores, weights);
    }
    wait_barrier(v.full_at(tiles - 1), Buffers::phase(tiles - 1));
    start_sums(v.tile(tiles - 1), weights);
    wait_products<0>();
    pin(sums_);
  }

  __device__ void write(const AttentionLaunch& args, const DeviceSequence& sequence, int first_row,
                        int head) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float weight = weight_[half];
      weight += __shfl_xor_sync(0xffffffffu, weight, 1);
      weight += __shfl_xor_sync(0xffffffffu, weight, 2);
      const float inverse = largest_[half] == -INFINITY ? 0 : 1 / weight;
      const std::int64_t t = first_row + 16 * warp + 8 * half + lane / 4;
      if (t >= sequence.q_rows) continue;
      const ResultRow out(args, sequence.q_begin + t, head);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        const int d = 8 * n + lane % 4 * 2;
        if (d >= args.head_dim) continue;
        out.store(d, sums_[4 * n + 2 * half] * inverse, sums_[4 * n + 2 * half + 1] * inverse);
      }
    }
  }

 private:
  __device__ void start_scores(std::uint32_t keys, float (&scores)[kKeys / 2]) const {
    pin(scores);
    fence_products();
#pragma unroll
    for (int s = 0; s < kDim / 16; ++s) {
      const std::uint32_t at = s / 4 * kHalfBytes + s % 4 * 32;
      multiply_scores(scores, swizzled_descriptor(queries_ + at), swizzled_descriptor(keys + at),
                      s > 0);
    }
    commit_products();
  }

  __device__ void start_sums(std::uint32_t values, const std::uint32_t (&weights)[kKeys / 4]) {
    pin(sums_);
    fence_products();
#pragma unroll
    for (int s = 0; s < kKeys / 16; ++s) {
      multiply_bf16<kRowsAreK>(sums_, weights + 4 * s,
                               values_descriptor(values + s * 2048, kHalfBytes));
    }
    commit_products();
  }

  // Once for each warp that has read the buffer.
  __device__ static void release(std::uint32_t barrier) {
    if (threadIdx.x % 32 == 0) arrive(barrier);
  }

  // Scores to weights relative to the largest so far; `factor` is for what was summed before.
  __device__ void weigh(float (&scores)[kKeys / 2], int first, float (&factor)[2]) {
    if constexpr (!kPlain) bias(scores, first);
    if (first < all_.begin || first + kKeys > all_.end) mask(scores, first);
    const float unit = kPlain ? scale_ : 1;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = largest_[half];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        most = fmaxf(most, fmaxf(scores[4 * n + 2 * half], scores[4 * n + 2 * half + 1]));
      }
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float base = most == -INFINITY ? 0 : most * unit;
      factor[half] = power_of_2(largest_[half] * unit - base);
      largest_[half] = most;
      float weight = weight_[half] * factor[half];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 4 * n + 2 * half; i < 4 * n + 2 * half + 2; ++i) {
          scores[i] = power_of_2(fmaf(scores[i], unit, -base));
          weight += scores[i];
        }
      }
      weight_[half] = weight;
    }
  }

  // Products to scores in units of log 2.
  __device__ void bias(float (&scores)[kKeys / 2], int first) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) {
      float x = scores[i] * scale_;
      if (softcap_ > 0) x = capped(x, softcap_, 1 / softcap_) * kLog2E;
      const int key = first + i / 4 * 8 + lane % 4 * 2 + i % 2;
      scores[i] = fmaf(slope_, static_cast<float>(key), x);
    }
  }

  __device__ void mask(float (&scores)[kKeys / 2], int first) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) {
      const int key = first + i / 4 * 8 + lane % 4 * 2 + i % 2;
      const int half = i / 2 % 2;
      if (key < begin_[half] || key >= end_[half]) scores[i] = -INFINITY;
    }
  }

  // Weights as fragments of A: 16 keys are four registers.
  __device__ static void pack(const float (&scores)[kKeys / 2],
                              std::uint32_t (&weights)[kKeys / 4]) {
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) {
      weights[i] = Bf16Pairs::pack(scores[2 * i], scores[2 * i + 1]);
    }
  }

  std::uint32_t queries_;  // of the group's rows
  float softcap_;
  float scale_;
  float slope_;
  KeyRange all_;  // keys that every row sees
  int begin_[2];
  int end_[2];
  float largest_[2] = {-INFINITY, -INFINITY};
  float weight_[2] = {};
  float sums_[kDim / 2] = {};
};

// Rounds the queries of a warpgroup's rows to bf16 in shared memory.
template <int kDim>
__device__ void store_queries(const AttentionLaunch& args, const DeviceSequence& sequence,
                              int first_row, int head, std::uint8_t* to) {
  constexpr int kVectors = kDim / 4;  // of a row: a thread's loads of four floats
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int d = thread % kVectors * 4;
#pragma unroll 8
  for (int r = thread / kVectors; r < kGroupRows; r += kGroupThreads / kVectors) {
    const std::int64_t t = first_row + r;
    float4 x{};
    if (t < sequence.q_rows && d < args.head_dim) {
      x = *reinterpret_cast<const float4*>(args.q + (sequence.q_begin + t) * args.q_row_stride +
                                           head * args.q_head_stride + d);
    }
    const int chunk = d / 8 % 8 ^ r % 8;
    *reinterpret_cast<uint2*>(to + d / 64 * kHalfBytes + r * 128 + chunk * 16 + d % 8 * 2) =
        make_uint2(Bf16Pairs::pack(x.x, x.y), Bf16Pairs::pack(x.z, x.w));
  }
}

#endif

template <int kDim, bool kPlain>
__global__ void __launch_bounds__(kThreads, 1)
    attend_sm90(const __grid_constant__ AttentionLaunch args) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  using L = Layout<kDim>;
  extern __shared__ std::uint8_t unaligned[];
  wait_for_kernel_ahead();
  let_next_kernel_start();
  const DeviceSequence sequence = args.sequences[blockIdx.z];
  const int head = static_cast<int>(blockIdx.x);
  // Blocks of the last rows first: with a causal mask they have the most keys.
  const int first_row = static_cast<int>(gridDim.y - 1 - blockIdx.y) * kRows;
  if (first_row >= sequence.q_rows) return;
  const int last_row = min(first_row + kRows, static_cast<int>(sequence.q_rows)) - 1;
  const KeyRange keys = visible_keys(args, sequence, first_row, last_row);
  const int tiles = max(0, keys.end - keys.begin + kKeys - 1) / kKeys;

  std::uint8_t* shared = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
  const std::uint32_t base = shared_address(shared);
  const std::uint32_t barriers = base + L::kBarriersAt;
  const Buffers k{base + L::kKeysAt, barriers, barriers + 8 * kBuffers, L::kTileBytes};
  const Buffers v{base + L::kValuesAt, barriers + 16 * kBuffers, barriers + 24 * kBuffers,
                  L::kTileBytes};
  if (threadIdx.x == 0) {
    for (int j = 0; j < kBuffers; ++j) {
      init_barrier(k.full_at(j), kGroupThreads);
      init_barrier(v.full_at(j), kGroupThreads);
      init_barrier(k.empty_at(j), kConsumerWarps);
      init_barrier(v.empty_at(j), kConsumerWarps);
    }
    publish_barriers();
  }
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads - 1;
  if (group < 0) {
    take_few_registers();
    const int kv_head = head / (args.heads / args.kv_heads);
    const Bf16Rows rows = find_rows(args, static_cast<int>(blockIdx.z), kv_head, kDim);
    if (tiles > 0) Loader<kDim>(rows, keys).run(k, v, tiles);
  } else {
    take_many_registers();
    const int row = first_row + group * kGroupRows;
    store_queries<kDim>(args, sequence, row, head, shared + group * kGroupRows * 128);
    publish_to_products();
    meet_group(group);
    Group<kDim, kPlain> rows(args, sequence, row, head, base + group * kGroupRows * 128);
    if (tiles > 0) rows.run(k, v, keys.begin, tiles);
    rows.write(args, sequence, row, head);
  }
#else
  __trap();
#endif
}

template <int kDim>
cudaError_t start(const AttentionLaunch& args, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(args.heads),
                    static_cast<unsigned>((args.max_q_rows + kRows - 1) / kRows),
                    static_cast<unsigned>(args.sequence_count));
  shape.block = dim3(kThreads);
  shape.shared_bytes = Layout<kDim>::kSharedBytes;
  shape.dependent = args.dependent_launch;
  const bool plain = args.softcap <= 0 && args.alibi_slopes == nullptr && args.scale > 0;
  return plain ? launch(attend_sm90<kDim, true>, shape, stream, args)
               : launch(attend_sm90<kDim, false>, shape, stream, args);
}

}  // namespace

const char* attention_prefill_sm90_unsupported(const AttentionLaunch& args) {
  if (args.q_row_stride % 4 != 0 || args.q_head_stride % 4 != 0 || !on_16_bytes(args.q)) {
    return "queries that do not lie on 16 bytes";
  }
  return prefill_sizes_unsupported(args, 128, kRows);
}

std::size_t attention_prefill_sm90_workspace(const AttentionLaunch& args) {
  return kv_unpack_bytes(args);
}

cudaError_t attention_prefill_sm90(const AttentionLaunch& args, cudaStream_t stream) {
  if (attention_prefill_sm90_unsupported(args) != nullptr) return cudaErrorInvalidValue;
  if (args.sequence_count == 0 || args.max_q_rows == 0) return cudaSuccess;
  if (const cudaError_t error = kv_unpack(args, stream)) return error;
  return args.head_dim > 64 ? start<128>(args, stream) : start<64>(args, stream);
}

}  // namespace nibble::cuda
