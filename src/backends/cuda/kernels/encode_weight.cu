#include "backends/cuda/device/element_codes.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/encode_weight.h"

namespace nibble::cuda {
namespace {

// Eight neighbouring weights, and what becomes of them.
struct Octet {
  float w[kEncodedColumns];

  static __device__ __forceinline__ Octet load(const float* at) {
    const float4 a = reinterpret_cast<const float4*>(at)[0];
    const float4 b = reinterpret_cast<const float4*>(at)[1];
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
  }
  __device__ __forceinline__ void add_to(GroupRange& range) const {
#pragma unroll
    for (const float v : w) range.add(v);
  }
  template <class Codes>
  __device__ __forceinline__ unsigned long long codes(const Codes& codes, const StoredScale& s,
                                                      int bits) const {
    unsigned long long all = 0;
    const ScaleSteps steps = ScaleSteps::of(s);
#pragma unroll
    for (int i = 0; i < kEncodedColumns; ++i) {
      all |= static_cast<unsigned long long>(codes.code(steps(w[i]), s.zero)) << (i * bits);
    }
    return all;
  }
};

template <int kBits>
__device__ __forceinline__ void store_codes(void* at, unsigned long long codes, int bits) {
  if constexpr (kBits == 4) {
    *static_cast<unsigned*>(at) = static_cast<unsigned>(codes);
  } else if constexpr (kBits == 8) {
    *static_cast<unsigned long long*>(at) = codes;
  } else {
    for (int i = 0; i < bits; ++i) {
      static_cast<std::uint8_t*>(at)[i] = static_cast<std::uint8_t>(codes >> (8 * i));
    }
  }
}

template <class Codes>
__device__ __forceinline__ StoredScale scale_of(const EncodeWeight& args, const GroupRange& range,
                                                bool& refused) {
  refused = refused || !range.finite();
  if constexpr (Codes::kTable) {
    return table_scale(args, range.absmax(), /*second=*/false, refused);
  } else {
    return integer_scale(args, range, refused);
  }
}

// ---- the better of two scales

// The sum of squared errors of a group of 16 or 32 weights, eight in each of `lanes` neighbours, in
// the order of SpanKernels::squared_errors(): 16 sums, then halves of them.
__device__ double squared_error(const float* values, const Octet& octet, unsigned long long codes,
                                const StoredScale& s, int lanes) {
  double sums[kEncodedColumns];
#pragma unroll
  for (int i = 0; i < kEncodedColumns; ++i) {
    const float value = __fmul_rn(values[codes >> (4 * i) & 15], s.value);
    const double d = __dsub_rn(double{value}, double{octet.w[i]});
    sums[i] = __dmul_rn(d, d);
  }
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
#pragma unroll
    for (double& sum : sums) sum = __dadd_rn(sum, __shfl_xor_sync(~0u, sum, distance));
  }
#pragma unroll
  for (int half = kEncodedColumns / 2; half > 0; half /= 2) {
#pragma unroll
    for (int i = 0; i < half; ++i) sums[i] = __dadd_rn(sums[i], sums[i + half]);
  }
  return sums[0];
}

// Scale and codes become those of the second scale where they have less error.
template <class Codes>
__device__ void choose(const EncodeWeight& args, const float* values, const Codes& elements,
                       const GroupRange& range, const Octet& octet, StoredScale& scale,
                       unsigned long long& codes) {
  const int lanes = static_cast<int>(args.group) / kEncodedColumns;
  bool refused = false;
  const StoredScale other = table_scale(args, range.absmax(), /*second=*/true, refused);
  const unsigned long long others = octet.codes(elements, other, 4);
  if (squared_error(values, octet, others, other, lanes) <
      squared_error(values, octet, codes, scale, lanes)) {
    scale = other;
    codes = others;
  }
}

// ---- scales by group: a group is some lanes of a warp, and groups lie end to end

constexpr int kGroupThreads = 256;
constexpr int kAtOnce = 4;  // octets of a thread, so that enough loads are under way

template <class Codes, int kBits, bool kChoice>
__global__ void __launch_bounds__(kGroupThreads)
    encode_groups(const __grid_constant__ EncodeWeight args) {
  __shared__ BoundTable shared;
  __shared__ float values[16];
  const int bits = kBits == 0 ? args.bits : kBits;
  const int lanes = static_cast<int>(args.group) / kEncodedColumns;
  const std::int64_t octets = args.rows * args.cols / kEncodedColumns;
  const std::int64_t first = blockIdx.x * std::int64_t{kGroupThreads * kAtOnce} + threadIdx.x;
  Octet w[kAtOnce];
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) {
    const std::int64_t at = first + i * kGroupThreads;
    w[i] = at < octets ? Octet::load(args.w + at * kEncodedColumns) : Octet{};
  }
  const Codes elements = Codes::load(args, shared);
  if constexpr (kChoice) {
    if (threadIdx.x < 16) values[threadIdx.x] = args.values[threadIdx.x];
    __syncthreads();
  }
  bool refused = false;
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) {
    GroupRange range{};
    w[i].add_to(range);
    range.add_lanes(lanes);
    StoredScale scale = scale_of<Codes>(args, range, refused);
    unsigned long long codes = w[i].codes(elements, scale, bits);
    if constexpr (kChoice) choose(args, values, elements, range, w[i], scale, codes);
    const std::int64_t at = first + i * kGroupThreads;
    if (at >= octets) continue;
    store_codes<kBits>(reinterpret_cast<std::uint8_t*>(args.codes) + at * bits, codes, bits);
    if (at % lanes == 0) store_scale(args, at / lanes, scale);
  }
  if (refused) *args.refused = 1;
}

// ---- scales by row: a row is a block, which keeps what fits into registers

constexpr int kRowOfThreads = 512;
constexpr int kKept = 4;  // octets of a thread

// The range of all threads, to all.
__device__ GroupRange block_range(GroupRange range) {
  __shared__ GroupRange partial[kRowOfThreads / 32];
  range.add_lanes(32);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = range;
  __syncthreads();
  for (const GroupRange& other : partial) range.add(other);
  return range;
}

template <class Codes, int kBits>
__global__ void __launch_bounds__(kRowOfThreads)
    encode_rows(const __grid_constant__ EncodeWeight args) {
  __shared__ BoundTable shared;
  const int bits = kBits == 0 ? args.bits : kBits;
  const std::int64_t row = blockIdx.x;
  const float* const w = args.w + row * args.cols;
  const std::int64_t octets = args.cols / kEncodedColumns;
  const auto loaded = [&](std::int64_t at) { return Octet::load(w + at * kEncodedColumns); };
  GroupRange range{};
  Octet kept[kKept];
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const std::int64_t at = threadIdx.x + i * kRowOfThreads;
    kept[i] = at < octets ? loaded(at) : Octet{};
  }
  for (std::int64_t at = threadIdx.x + kKept * kRowOfThreads; at < octets; at += kRowOfThreads) {
    loaded(at).add_to(range);
  }
#pragma unroll
  for (const Octet& octet : kept) octet.add_to(range);
  range = block_range(range);
  const Codes elements = Codes::load(args, shared);
  bool refused = false;
  const StoredScale scale = scale_of<Codes>(args, range, refused);
  auto* const out = reinterpret_cast<std::uint8_t*>(args.codes) + row * octets * bits;
  const auto encode = [&](std::int64_t at, const Octet& octet) {
    store_codes<kBits>(out + at * bits, octet.codes(elements, scale, bits), bits);
  };
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const std::int64_t at = threadIdx.x + i * kRowOfThreads;
    if (at < octets) encode(at, kept[i]);
  }
  for (std::int64_t at = threadIdx.x + kKept * kRowOfThreads; at < octets; at += kRowOfThreads) {
    encode(at, loaded(at));
  }
  if (threadIdx.x != 0) return;
  store_scale(args, row, scale);
  if (refused) *args.refused = 1;
}

// ---- the scale of the matrix

// The largest magnitude, as bits, joined to what `whole` holds.
__global__ void __launch_bounds__(kGroupThreads)
    find_largest(const __grid_constant__ EncodeWeight args) {
  const std::int64_t octets = args.rows * args.cols / kEncodedColumns;
  GroupRange range{};
  for (std::int64_t at = blockIdx.x * std::int64_t{kGroupThreads} + threadIdx.x; at < octets;
       at += gridDim.x * std::int64_t{kGroupThreads}) {
    Octet::load(args.w + at * kEncodedColumns).add_to(range);
  }
  range.add_lanes(32);
  if (threadIdx.x % 32 == 0) atomicMax(reinterpret_cast<unsigned*>(args.whole), range.magnitude);
}

__global__ void find_whole(const __grid_constant__ EncodeWeight args) {
  const float all = *args.whole;
  const float whole = __fdiv_rn(all, __fmul_rn(args.largest_scale, args.top));
  *args.whole = whole != 0 ? whole : all == 0 ? 1.0f : __uint_as_float(1);
}

cudaError_t start_whole(const EncodeWeight& args, cudaStream_t stream) {
  constexpr unsigned kBlocks = 1056;  // eight for each multiprocessor of the largest cards
  const cudaError_t error = cudaMemsetAsync(args.whole, 0, sizeof(float), stream);
  if (error != cudaSuccess) return error;
  find_largest<<<kBlocks, kGroupThreads, 0, stream>>>(args);
  find_whole<<<1, 1, 0, stream>>>(args);
  return cudaGetLastError();
}

// ----

template <class Codes, int kBits>
cudaError_t start(const EncodeWeight& args, cudaStream_t stream) {
  if (args.group == args.cols && !args.choice) {
    encode_rows<Codes, kBits><<<static_cast<unsigned>(args.rows), kRowOfThreads, 0, stream>>>(args);
    return cudaGetLastError();
  }
  const std::int64_t octets = args.rows * args.cols / kEncodedColumns;
  constexpr std::int64_t kOfBlock = kGroupThreads * kAtOnce;
  const auto blocks = static_cast<unsigned>((octets + kOfBlock - 1) / kOfBlock);
  if (!args.choice) {
    encode_groups<Codes, kBits, false><<<blocks, kGroupThreads, 0, stream>>>(args);
  } else if constexpr (Codes::kTable && kBits == 4) {
    encode_groups<Codes, kBits, true><<<blocks, kGroupThreads, 0, stream>>>(args);
  } else {
    return cudaErrorInvalidValue;
  }
  return cudaGetLastError();
}

template <class Codes>
cudaError_t start_bits(const EncodeWeight& args, cudaStream_t stream) {
  switch (args.bits) {
    case 4:
      return start<Codes, 4>(args, stream);
    case 8:
      return start<Codes, 8>(args, stream);
    default:
      return start<Codes, 0>(args, stream);
  }
}

}  // namespace

cudaError_t encode_weight(const EncodeWeight& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  cudaError_t error = cudaMemsetAsync(args.refused, 0, sizeof(std::int32_t), stream);
  if (error == cudaSuccess && args.scale == GroupScale::kE4M3) error = start_whole(args, stream);
  if (error != cudaSuccess) return error;
  switch (args.elements) {
    case ElementCodes::kInteger:
      return start_bits<IntegerCodes>(args, stream);
    case ElementCodes::kRounded:
      return start_bits<RoundedCodes>(args, stream);
    case ElementCodes::kBounds:
      return args.bits == 4 && args.table.leaves == 16 ? start<BoundCodes<4>, 4>(args, stream)
                                                       : start_bits<BoundCodes<0>>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace nibble::cuda
