// One block a query row and head. Keys are taken kThreads at a time: a warp a key for the scores,
// then a thread a column for the sums.
#include <climits>

#include "backends/cuda/device/attention_rows.cuh"
#include "backends/cuda/device/kv_blocks.cuh"
#include "backends/cuda/device/kv_dispatch.h"
#include "backends/cuda/device/kv_rows.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/warp_reduce.cuh"
#include "backends/cuda/kernels/attention_exact.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxHeadDim = 4096;  // a query and its sums in shared memory

template <KvType kType>
__device__ float score(const AttentionLaunch& args, const float* q, const std::uint8_t* row,
                       int head, int key) {
  const KvRowReader<kType> k(row);
  float sum = 0;
  for (int d = static_cast<int>(threadIdx.x) % 32; d < args.head_dim; d += 32) sum += q[d] * k[d];
  sum = warp_sum(sum) * args.scale;
  if (args.softcap > 0) sum = args.softcap * tanhf(sum / args.softcap);
  if (args.alibi_slopes != nullptr) sum += args.alibi_slopes[head] * static_cast<float>(key);
  return sum;
}

// Running softmax of one query row.
struct Softmax {
  float largest = -INFINITY;
  float sum = 0;
};

// Turns scores[0, count) into weights relative to the largest score so far; returns the factor of
// what was summed before.
__device__ float take_scores(float* scores, int count, Softmax* softmax) {
  float largest = softmax->largest;
  for (int i = 0; i < count; ++i) largest = fmaxf(largest, scores[i]);
  const float base = largest == -INFINITY ? 0 : largest;
  const float factor = expf(softmax->largest - base);
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < count) {
    scores[threadIdx.x] = expf(scores[threadIdx.x] - base);
  }
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < count; ++i) sum += scores[i];
  *softmax = {largest, softmax->sum * factor + sum};
  return factor;
}

template <KvType kType>
__global__ void __launch_bounds__(kThreads) attend(const AttentionLaunch args) {
  extern __shared__ float shared[];
  __shared__ float scores[kThreads];
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const DeviceSequence& sequence = args.sequences[blockIdx.z];
  const std::int64_t t = blockIdx.x;
  if (t >= sequence.q_rows) return;
  const int head = static_cast<int>(blockIdx.y);
  const int kv_head = head / (args.heads / args.kv_heads);
  const int thread = static_cast<int>(threadIdx.x);
  float* q = shared;
  float* sums = shared + args.head_dim;
  const std::int64_t row = sequence.q_begin + t;
  for (int d = thread; d < args.head_dim; d += kThreads) {
    q[d] = args.q[row * args.q_row_stride + head * args.q_head_stride + d];
    sums[d] = 0;
  }
  __syncthreads();
  const auto* k = static_cast<const std::uint8_t*>(sequence.k) + kv_head * sequence.k_head_stride;
  const auto* v = static_cast<const std::uint8_t*>(sequence.v) + kv_head * sequence.v_head_stride;
  const KeyRange keys = visible_keys(args, sequence, static_cast<int>(t));
  const KvPlaces places(args.blocks, static_cast<int>(blockIdx.z));
  Softmax softmax;
  if (args.sinks != nullptr) softmax = {args.sinks[head], 1};
  for (int first = keys.begin; first < keys.end; first += kThreads) {
    const int count = min(kThreads, keys.end - first);
    for (int i = thread / 32; i < count; i += kWarps) {
      const std::uint8_t* const key = k + places.offset(first + i, sequence.k_row_stride);
      const float s = score<kType>(args, q, key, head, first + i);
      if (thread % 32 == 0) scores[i] = s;
    }
    __syncthreads();
    const float factor = take_scores(scores, count, &softmax);
    for (int d = thread; d < args.head_dim; d += kThreads) {
      float sum = sums[d] * factor;
      for (int i = 0; i < count; ++i) {
        const KvRowReader<kType> value(v + places.offset(first + i, sequence.v_row_stride));
        sum += scores[i] * value[d];
      }
      sums[d] = sum;
    }
    __syncthreads();
  }
  float* out = args.out + row * args.out_stride + static_cast<std::int64_t>(head) * args.head_dim;
  for (int d = thread; d < args.head_dim; d += kThreads) {
    out[d] = keys.begin < keys.end ? sums[d] / softmax.sum : 0;
  }
}

}  // namespace

const char* attention_exact_unsupported(const AttentionLaunch& args) {
  if (args.head_dim < 1 || args.head_dim > kMaxHeadDim) return "head_dim above 4096";
  if (args.kv_heads < 1 || args.heads % args.kv_heads != 0) return "heads that kv_heads divide not";
  if (args.heads > 65535 || args.sequence_count > 65535)
    return "more than 65535 heads or sequences";
  if (args.max_q_rows > INT_MAX || args.max_kv_rows > INT_MAX - kThreads) return "2^31 rows";
  return nullptr;
}

cudaError_t attention_exact(const AttentionLaunch& args, cudaStream_t stream) {
  if (attention_exact_unsupported(args) != nullptr) return cudaErrorInvalidValue;
  if (args.sequence_count == 0 || args.max_q_rows == 0) return cudaSuccess;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(args.max_q_rows), static_cast<unsigned>(args.heads),
                    static_cast<unsigned>(args.sequence_count));
  shape.block = dim3(kThreads);
  shape.shared_bytes = 2 * sizeof(float) * static_cast<std::size_t>(args.head_dim);
  shape.dependent = args.dependent_launch;
  return with_kv_type(args.kv_type, [&](auto type) {
    return launch(attend<decltype(type)::value>, shape, stream, args);
  });
}

}  // namespace nibble::cuda
