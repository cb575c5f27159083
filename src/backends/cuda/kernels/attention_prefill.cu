// A block: 128 query rows of one head, 16 a warp. Tiles of keys and values pass through two buffers
// in shared memory; rows there are 16-byte chunks, chunk i of row r at i ^ (r % 8), so that the
// eight rows of a matrix lie in different banks.
#include "backends/cuda/device/async_copy.cuh"
#include "backends/cuda/device/attention_result.cuh"
#include "backends/cuda/device/attention_rows.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/ldmatrix.cuh"
#include "backends/cuda/device/mma_m16n8k16.cuh"
#include "backends/cuda/device/prefill_keys.cuh"
#include "backends/cuda/kernels/attention_prefill.h"
#include "backends/cuda/kernels/kv_unpack.h"

namespace nibble::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kBlockRows = 16 * kWarps;

// kDim: head_dim rounded up; kKeys: keys of a tile.
template <int kDim, int kKeys>
struct Tile {
  static constexpr int kRowBytes = 2 * kDim;
  static constexpr int kBytes = kKeys * kRowBytes;
  static constexpr int kSharedBytes = 4 * kBytes;  // two buffers of keys and of values

  __device__ static std::uint32_t chunk(int row, int index) {
    return static_cast<std::uint32_t>(row * kRowBytes + (index ^ row % 8) * 16);
  }

  // Starts the copy of rows [first, first + kKeys) of keys and values. Rows at or beyond `end` are
  // replaced by the last one; their scores are masked.
  __device__ static void request(std::uint32_t to, const Bf16Rows& rows, int first, int end) {
    constexpr int kChunks = kRowBytes / 16;
    const int index = static_cast<int>(threadIdx.x) % kChunks;
    const bool valid = index * 8 < rows.columns;
#pragma unroll
    for (int r = 0; r < kKeys; r += kThreads / kChunks) {
      const int row = r + static_cast<int>(threadIdx.x) / kChunks;
      const std::int64_t key = min(first + row, end - 1);
      copy_async<16>(to + chunk(row, index), rows.k + key * rows.k_stride + index * 16, valid);
      copy_async<16>(to + kBytes + chunk(row, index), rows.v + key * rows.v_stride + index * 16,
                     valid);
    }
  }
};

// Queries, running softmax and sums of a warp's 16 rows; a lane has rows lane / 4 and 8 more.
template <int kDim, int kKeys>
class PrefillWarp {
  using T = Tile<kDim, kKeys>;

 public:
  __device__ PrefillWarp(const AttentionLaunch& args, const DeviceSequence& sequence, int first_row,
                         int head)
      : softcap_(args.softcap), scale_(args.scale * (args.softcap > 0 ? 1 : kLog2E)) {
    slope_ = args.alibi_slopes != nullptr ? args.alibi_slopes[head] * kLog2E : 0;
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = first_row + 8 * half + lane / 4;
      const bool exists = t < sequence.q_rows;
      const KeyRange keys = visible_keys(args, sequence, t);
      begin_[half] = exists ? keys.begin : 0;
      end_[half] = exists ? keys.end : 0;
      const float* q =
          args.q + (sequence.q_begin + t) * args.q_row_stride + head * args.q_head_stride;
#pragma unroll
      for (int s = 0; s < kDim / 16; ++s) {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const int d = 16 * s + 8 * part + lane % 4 * 2;
          const bool inside = exists && d < args.head_dim;
          queries_[s][half + 2 * part] = inside ? Bf16Pairs::pack(q[d], q[d + 1]) : 0;
        }
      }
    }
  }

  // Takes keys [first, first + kKeys), in shared memory at `tile`. `whole`: every row sees them
  // all.
  __device__ void take(std::uint32_t tile, int first, bool whole) {
    float scores[kKeys / 8][4] = {};
    multiply_keys(tile, scores);
    adjust(scores, first, whole);
    weigh(scores);
    multiply_values(tile + T::kBytes, scores);
  }

  __device__ void write(const AttentionLaunch& args, const DeviceSequence& sequence, int first_row,
                        int head) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float weight = weight_[half];
      weight += __shfl_xor_sync(0xffffffffu, weight, 1);
      weight += __shfl_xor_sync(0xffffffffu, weight, 2);
      const float inverse = largest_[half] == -INFINITY ? 0 : 1 / weight;
      const std::int64_t t = first_row + 8 * half + lane / 4;
      if (t >= sequence.q_rows) continue;
      const ResultRow out(args, sequence.q_begin + t, head);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        const int d = 8 * n + lane % 4 * 2;
        if (d >= args.head_dim) continue;
        out.store(d, sums_[n][2 * half] * inverse, sums_[n][2 * half + 1] * inverse);
      }
    }
  }

 private:
  __device__ void multiply_keys(std::uint32_t tile, float (&scores)[kKeys / 8][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int s = 0; s < kDim / 16; ++s) {
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        std::uint32_t b[4];
        load_matrices(tile + T::chunk(16 * n + lane / 16 * 8 + lane % 8, 2 * s + lane / 8 % 2), b);
        const auto& q = queries_[s];
        Bf16Pairs::multiply(scores[2 * n], q[0], q[1], q[2], q[3], b[0], b[1]);
        Bf16Pairs::multiply(scores[2 * n + 1], q[0], q[1], q[2], q[3], b[2], b[3]);
      }
    }
  }

  // Products to scores in units of log 2, -infinity where the row does not see the key.
  __device__ void adjust(float (&scores)[kKeys / 8][4], int first, bool whole) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first + 8 * n + lane % 4 * 2 + i % 2;
        float x = scores[n][i] * scale_;
        if (softcap_ > 0) x = capped(x, softcap_, 1 / softcap_) * kLog2E;
        x = fmaf(slope_, static_cast<float>(key), x);
        const bool seen = whole || (key >= begin_[i / 2] && key < end_[i / 2]);
        scores[n][i] = seen ? x : -INFINITY;
      }
    }
  }

  __device__ void weigh(float (&scores)[kKeys / 8][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = largest_[half];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        most = fmaxf(most, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
      }
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float base = most == -INFINITY ? 0 : most;
      const float factor = power_of_2(largest_[half] - base);
      largest_[half] = most;
      float weight = weight_[half] * factor;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[n][i] = power_of_2(scores[n][i] - base);
          weight += scores[n][i];
        }
      }
      weight_[half] = weight;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        sums_[n][2 * half] *= factor;
        sums_[n][2 * half + 1] *= factor;
      }
    }
  }

  __device__ void multiply_values(std::uint32_t tile, const float (&weights)[kKeys / 8][4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int s = 0; s < kKeys / 16; ++s) {
      const auto& left = weights[2 * s];
      const auto& right = weights[2 * s + 1];
      const std::uint32_t a0 = Bf16Pairs::pack(left[0], left[1]);
      const std::uint32_t a1 = Bf16Pairs::pack(left[2], left[3]);
      const std::uint32_t a2 = Bf16Pairs::pack(right[0], right[1]);
      const std::uint32_t a3 = Bf16Pairs::pack(right[2], right[3]);
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n) {
        std::uint32_t b[4];
        load_transposed(tile + T::chunk(16 * s + lane / 8 % 2 * 8 + lane % 8, 2 * n + lane / 16),
                        b);
        Bf16Pairs::multiply(sums_[2 * n], a0, a1, a2, a3, b[0], b[1]);
        Bf16Pairs::multiply(sums_[2 * n + 1], a0, a1, a2, a3, b[2], b[3]);
      }
    }
  }

  float softcap_;
  float scale_;
  float slope_;
  int begin_[2];
  int end_[2];
  float largest_[2] = {-INFINITY, -INFINITY};
  float weight_[2] = {};
  std::uint32_t queries_[kDim / 16][4];
  float sums_[kDim / 8][4] = {};
};

template <int kDim, int kKeys>
__global__ void __launch_bounds__(kThreads, 1)
    attend(const __grid_constant__ AttentionLaunch args) {
  using T = Tile<kDim, kKeys>;
  extern __shared__ __align__(128) std::uint8_t shared[];
  wait_for_kernel_ahead();
  let_next_kernel_start();
  const DeviceSequence sequence = args.sequences[blockIdx.z];
  const int head = static_cast<int>(blockIdx.x);
  // Blocks of the last rows first: with a causal mask they have the most keys.
  const int first_row = static_cast<int>(gridDim.y - 1 - blockIdx.y) * kBlockRows;
  if (first_row >= sequence.q_rows) return;
  const int last_row = min(first_row + kBlockRows, static_cast<int>(sequence.q_rows)) - 1;
  const KeyRange some = visible_keys(args, sequence, first_row, last_row);
  const KeyRange all{visible_keys(args, sequence, last_row).begin,
                     visible_keys(args, sequence, first_row).end};
  const Bf16Rows rows =
      find_rows(args, static_cast<int>(blockIdx.z), head / (args.heads / args.kv_heads), kDim);
  const std::uint32_t buffers = shared_address(shared);
  if (some.begin < some.end) T::request(buffers, rows, some.begin, some.end);
  end_copy_group();
  const int warp_row = first_row + static_cast<int>(threadIdx.x) / 32 * 16;
  PrefillWarp<kDim, kKeys> warp(args, sequence, warp_row, head);
  std::uint32_t at = 0;
  for (int key = some.begin; key < some.end; key += kKeys) {
    wait_for_copies<0>();
    __syncthreads();
    const int next = key + kKeys;
    if (next < some.end) T::request(buffers + (at ^ 2 * T::kBytes), rows, next, some.end);
    end_copy_group();
    warp.take(buffers + at, key, key >= all.begin && next <= all.end);
    at ^= 2 * T::kBytes;
  }
  warp.write(args, sequence, warp_row, head);
}

template <int kDim, int kKeys>
cudaError_t start(const AttentionLaunch& args, cudaStream_t stream) {
  LaunchShape shape;
  const std::int64_t row_blocks = (args.max_q_rows + kBlockRows - 1) / kBlockRows;
  shape.grid = dim3(static_cast<unsigned>(args.heads), static_cast<unsigned>(row_blocks),
                    static_cast<unsigned>(args.sequence_count));
  shape.block = dim3(kThreads);
  shape.shared_bytes = Tile<kDim, kKeys>::kSharedBytes;
  shape.dependent = args.dependent_launch;
  return launch(attend<kDim, kKeys>, shape, stream, args);
}

}  // namespace

const char* attention_prefill_unsupported(const AttentionLaunch& args) {
  return prefill_sizes_unsupported(args, 256, kBlockRows);
}

std::size_t attention_prefill_workspace(const AttentionLaunch& args) {
  return kv_unpack_bytes(args);
}

cudaError_t attention_prefill(const AttentionLaunch& args, cudaStream_t stream) {
  if (attention_prefill_unsupported(args) != nullptr) return cudaErrorInvalidValue;
  if (args.sequence_count == 0 || args.max_q_rows == 0) return cudaSuccess;
  if (const cudaError_t error = kv_unpack(args, stream)) return error;
  if (args.head_dim > 128) return start<256, 32>(args, stream);
  if (args.head_dim > 64) return start<128, 64>(args, stream);
  return start<64, 64>(args, stream);
}

}  // namespace nibble::cuda
