// A block, or a few, a row of activations; a warp a head of it at a time: queries to rotate, then
// keys, then values. A head stays in registers between its rotation and its encoding.
#include <cuda_fp8.h>

#include <algorithm>
#include <climits>

#include "backends/cuda/device/kv_dispatch.h"
#include "backends/cuda/device/kv_rows.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/warp_reduce.cuh"
#include "backends/cuda/kernels/kv_write.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kManyBlocks = 512;  // fewer rows than this are spread over several blocks each
constexpr int kMaxHeadDim = 1024;
constexpr int kMostSlots = kMaxHeadDim / 32;

struct StoreLaunch {
  KvWriteLaunch kv;
  RopeLaunch rope;
};

// The place of a row in the caches; null when it belongs to no sequence.
struct Place {
  std::uint8_t* k;
  std::uint8_t* v;
  std::int64_t k_head_stride;
  std::int64_t v_head_stride;
};

__device__ Place find_place(const KvWriteLaunch& args, std::int64_t row) {
  for (int first = 0; first < args.sequence_count; first += 32) {
    const int i = first + static_cast<int>(threadIdx.x) % 32;
    bool mine = false;
    if (i < args.sequence_count) {
      const std::int64_t at = row - args.sequences[i].q_begin;
      mine = at >= 0 && at < args.sequences[i].q_rows;
    }
    const unsigned found = __ballot_sync(0xffffffffu, mine);
    if (found == 0) continue;
    const DeviceSequence& s = args.sequences[first + __ffs(static_cast<int>(found)) - 1];
    const std::int64_t token = s.q_offset + row - s.q_begin;
    return {static_cast<std::uint8_t*>(s.k) + token * s.k_row_stride,
            static_cast<std::uint8_t*>(s.v) + token * s.v_row_stride, s.k_head_stride,
            s.v_head_stride};
  }
  return {nullptr, nullptr, 0, 0};
}

// The rotated value of element d of head x. table: cosines, then sines, each rotary_dim / 2.
__device__ float rotated(const RopeLaunch& rope, const float* x, int d, const float* table) {
  if (d >= rope.rotary_dim) return x[d];
  const int half = rope.rotary_dim / 2;
  const bool second = rope.interleaved ? d % 2 != 0 : d >= half;
  const int i = rope.interleaved ? d / 2 : (second ? d - half : d);
  const int other = rope.interleaved ? d ^ 1 : (second ? d - half : d + half);
  const float sine = second ? table[half + i] : -table[half + i];
  return x[d] * table[i] + x[other] * sine;
}

#define KV_FIT_FUNCTION __device__ inline
#include "formats/kv_fit.inl.h"
#undef KV_FIT_FUNCTION
static_assert(kMaxHeadDim <= kFitMost);

// Among zeros of both signs the host's minimum is the first; the hardware's is the negative one.
template <int kSlots>
__device__ float first_zero(const float (&values)[kSlots], int head_dim) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const bool zero = 32 * s + lane < head_dim && values[s] == 0;
    const unsigned zeros = __ballot_sync(0xffffffffu, zero);
    if (zeros != 0) return __shfl_sync(0xffffffffu, values[s], __ffs(static_cast<int>(zeros)) - 1);
  }
  return 0;
}

// Full range of a row (range_of of formats/kv_type.cc).
template <int kSlots>
__device__ FitScale range_of(const float (&values)[kSlots], int head_dim, float top) {
  float low = INFINITY;
  float high = -INFINITY;
  bool finite = true;
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    if (32 * s + static_cast<int>(threadIdx.x) % 32 >= head_dim) continue;
    finite = finite && isfinite(values[s]);
    low = fminf(low, values[s]);
    high = fmaxf(high, values[s]);
  }
  low = -warp_max(-low);
  if (low == 0) low = first_zero(values, head_dim);
  high = warp_max(high);
  const float scale = __fdiv_rn(__fsub_rn(high, low), top);
  if (__any_sync(0xffffffffu, !finite) || isinf(scale)) {
    const float nan = __uint_as_float(0x7fc00000u);
    return {nan, nan, 0};
  }
  const float to_code = __fdiv_rn(1, scale);
  if (isinf(to_code)) return {0, low, 0};
  return {scale, low, to_code};
}

__device__ float row_sum(unsigned x) {
  return static_cast<float>(__reduce_add_sync(0xffffffffu, x));
}

// Sums over the codes that a range gives the positions of values, those behind head_dim zero.
template <int kSlots>
__device__ void add_codes(const float (&positions)[kSlots], const FitRange& range, FitSums* sums) {
  unsigned codes = 0, squares = 0, products = 0;
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const float steps = __fmul_rn(__fsub_rn(positions[s], range.below), range.to_code);
    const auto code = static_cast<unsigned>(fminf(kFitTop, fmaxf(0, rintf(steps))));
    codes += code;
    squares += code * code;
    products += code * static_cast<unsigned>(positions[s]);
  }
  sums->codes = row_sum(codes);
  sums->squares = row_sum(squares);
  sums->products = row_sum(products);
}

// The scale and offset of an int4 row (formats/kv_fit.inl.h).
template <int kSlots>
__device__ FitScale fitted(const float (&values)[kSlots], int head_dim, const FitScale& full) {
  if (full.to_code == 0) return full;
  float positions[kSlots];
  unsigned sum = 0;
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const bool mine = 32 * s + static_cast<int>(threadIdx.x) % 32 < head_dim;
    const float steps = __fmul_rn(__fsub_rn(values[s], full.offset), full.to_code);
    positions[s] = mine ? fminf(kFitTop * kFitUnits, rintf(__fmul_rn(steps, kFitUnits))) : 0.0f;
    sum += static_cast<unsigned>(positions[s]);
  }
  FitSums tried = {static_cast<float>(head_dim), row_sum(sum), 0, 0, 0};
  FitSums best = tried;
  float most = 0;
#pragma unroll 3
  for (int r = 0; r < kFitRanges; ++r) {
    add_codes(positions, fit_range(r), &tried);
    const float explained = fit_explained(tried);
    if (explained <= most) continue;
    most = explained;
    best = tried;
  }
  return fit_scale(best, full);
}

template <KvType kType, int kSlots>
__device__ void encode_codes(const float (&values)[kSlots], int head_dim, std::uint8_t* row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  constexpr float kTop = kType == KvType::kInt8 ? 255.0f : 15.0f;
  FitScale range = range_of(values, head_dim, kTop);
  if constexpr (kType == KvType::kInt4) range = fitted(values, head_dim, range);
  if (lane == 0) {
    store_number(row, range.scale);
    store_number(row + 4, range.offset);
  }
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const int d = 32 * s + lane;
    unsigned code = 0;
    if (range.to_code != 0 && d < head_dim) {
      const float steps = __fmul_rn(__fsub_rn(values[s], range.offset), range.to_code);
      code = static_cast<unsigned>(fminf(kTop, fmaxf(0, rintf(steps))));
    }
    if constexpr (kType == KvType::kInt8) {
      if (d < head_dim) row[kKvHeaderBytes + d] = static_cast<std::uint8_t>(code);
    } else {
      const unsigned next = __shfl_down_sync(0xffffffffu, code, 1);
      if (lane % 2 == 0 && d < head_dim) {
        row[kKvHeaderBytes + d / 2] = static_cast<std::uint8_t>(code | next << 4);
      }
    }
  }
}

template <int kSlots>
__device__ void encode_e4m3(const float (&values)[kSlots], int head_dim, std::uint8_t* row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float largest = 0;
  bool finite = true;
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    if (32 * s + lane >= head_dim) continue;
    finite = finite && isfinite(values[s]);
    largest = fmaxf(largest, fabsf(values[s]));
  }
  finite = !__any_sync(0xffffffffu, !finite);
  const float nan = __uint_as_float(0x7fc00000u);
  const float scale = finite ? __fdiv_rn(warp_max(largest), 448.0f) : nan;
  if (lane == 0) {
    store_number(row, scale);
    store_number(row + 4, finite ? 0 : nan);
  }
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const int d = 32 * s + lane;
    if (d >= head_dim) continue;
    row[kKvHeaderBytes + d] =
        scale > 0 ? __nv_cvt_float_to_fp8(__fdiv_rn(values[s], scale), __NV_SATFINITE, __NV_E4M3)
                  : 0;
  }
}

template <KvType kType, int kSlots>
__device__ void encode(const float (&values)[kSlots], int head_dim, std::uint8_t* row) {
  if constexpr (kType == KvType::kFp8) {
    encode_e4m3(values, head_dim, row);
  } else if constexpr (has_codes(kType)) {
    encode_codes<kType>(values, head_dim, row);
  } else {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int d = 32 * s + static_cast<int>(threadIdx.x) % 32;
      if (d >= head_dim) continue;
      if constexpr (kType == KvType::kF32) reinterpret_cast<float*>(row)[d] = values[s];
      if constexpr (kType == KvType::kF16) {
        reinterpret_cast<std::uint16_t*>(row)[d] = f16_bits(values[s]);
      }
      if constexpr (kType == KvType::kBF16) {
        reinterpret_cast<std::uint16_t*>(row)[d] = bf16_bits(values[s]);
      }
    }
  }
}

// One head: rotated when there is a table, in place for queries, else into a row of the cache.
template <KvType kType, int kSlots>
__device__ void take_head(const StoreLaunch& launch, int job, std::int64_t row, const Place& place,
                          const float* table) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const KvWriteLaunch& kv = launch.kv;
  const RopeLaunch& rope = launch.rope;
  const int head = job < rope.heads ? job : (job - rope.heads) % kv.kv_heads;
  const bool query = job < rope.heads;
  const bool key = !query && job < rope.heads + kv.kv_heads;
  if (!query && place.k == nullptr) return;
  const float* x = query ? rope.q + row * rope.q_row_stride + head * rope.q_head_stride
                   : key ? kv.k + row * kv.k_row_stride + head * kv.k_head_stride
                         : kv.v + row * kv.v_row_stride + head * kv.v_head_stride;
  float values[kSlots];
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const int d = 32 * s + lane;
    if (d >= kv.head_dim) continue;
    values[s] = table != nullptr && (query || key) ? rotated(rope, x, d, table) : x[d];
  }
  if (query) {
    __syncwarp();  // all have read before any writes
    float* to = rope.q + row * rope.q_row_stride + head * rope.q_head_stride;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      if (32 * s + lane < rope.rotary_dim) to[32 * s + lane] = values[s];
    }
    return;
  }
  encode<kType>(values, kv.head_dim,
                key ? place.k + head * place.k_head_stride : place.v + head * place.v_head_stride);
}

template <KvType kType, int kSlots>
__global__ void __launch_bounds__(kThreads) store(const __grid_constant__ StoreLaunch launch) {
  __shared__ float table[kMaxHeadDim];
  // Positions and places come from the host: no kernel ahead writes them.
  const std::int64_t row = blockIdx.x;
  const RopeLaunch& rope = launch.rope;
  const bool rotate = rope.positions != nullptr;
  if (rotate) {
    const int half = rope.rotary_dim / 2;
    const auto position = static_cast<float>(rope.positions[row]);
    for (int i = static_cast<int>(threadIdx.x); i < half; i += kThreads) {
      float sine;
      float cosine;
      sincosf(__fmul_rn(position, rope.inv_freq[i]), &sine, &cosine);
      table[i] = cosine * rope.scale;
      table[half + i] = sine * rope.scale;
    }
    __syncthreads();
  }
  const Place place = find_place(launch.kv, row);
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const int jobs = rope.heads + 2 * launch.kv.kv_heads;
  const auto warp = static_cast<int>(blockIdx.y * kWarps + threadIdx.x / 32);
  for (int job = warp; job < jobs; job += static_cast<int>(gridDim.y) * kWarps) {
    take_head<kType, kSlots>(launch, job, row, place, rotate ? table : nullptr);
  }
}

cudaError_t start(const StoreLaunch& args, cudaStream_t stream) {
  if (kv_write_unsupported(args.kv) != nullptr || args.rope.rotary_dim > args.kv.head_dim ||
      args.rope.rotary_dim % 2 != 0) {
    return cudaErrorInvalidValue;
  }
  if (args.kv.rows == 0) return cudaSuccess;
  LaunchShape shape;
  const std::int64_t jobs = args.rope.heads + 2 * args.kv.kv_heads;
  const std::int64_t blocks_of_row =
      std::clamp<std::int64_t>(kManyBlocks / args.kv.rows, 1, (jobs + kWarps - 1) / kWarps);
  shape.grid = dim3(static_cast<unsigned>(args.kv.rows), static_cast<unsigned>(blocks_of_row));
  shape.block = dim3(kThreads);
  shape.dependent = args.kv.dependent_launch;
  return with_kv_type(args.kv.kv_type, [&](auto type) {
    constexpr KvType kType = decltype(type)::value;
    if (args.kv.head_dim > 256) return launch(store<kType, kMostSlots>, shape, stream, args);
    if (args.kv.head_dim > 128) return launch(store<kType, 8>, shape, stream, args);
    return launch(store<kType, 4>, shape, stream, args);
  });
}

}  // namespace

const char* kv_write_unsupported(const KvWriteLaunch& args) {
  if (args.head_dim < 1 || args.head_dim > kMaxHeadDim) return "head_dim above 1024";
  if (args.kv_heads < 1) return "no heads";
  if (args.rows > INT_MAX) return "2^31 rows";
  return nullptr;
}

cudaError_t kv_write(const KvWriteLaunch& args, cudaStream_t stream) {
  return start({args, RopeLaunch{}}, stream);
}

cudaError_t rope_and_store(const KvWriteLaunch& args, const RopeLaunch& rope, cudaStream_t stream) {
  return start({args, rope}, stream);
}

}  // namespace nibble::cuda
