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
  template <class Range>
  __device__ __forceinline__ void add_to(Range& range) const {
#pragma unroll
    for (const float v : w) range.add(v);
  }
};

// Codes of an octet, packed: those of weights i and i + 4 are found together, or of i and i + 2
// where codes are bytes, so that whole pairs are moved to their places.
template <int kBits>
struct Packed;
template <>
struct Packed<4> {
  unsigned word = 0;
  static __device__ constexpr int first(int pair) { return pair; }
  static constexpr int kApart = 4;
  __device__ __forceinline__ void add(int pair, unsigned codes, int) { word |= codes << 4 * pair; }
  __device__ __forceinline__ void store(void* at, int) const { *static_cast<unsigned*>(at) = word; }
};
template <>
struct Packed<8> {
  uint2 words = {0, 0};
  static __device__ constexpr int first(int pair) { return pair % 2 + pair / 2 * 4; }
  static constexpr int kApart = 2;
  __device__ __forceinline__ void add(int pair, unsigned codes, int) {
    (pair < 2 ? words.x : words.y) |= codes << 8 * (pair % 2);
  }
  __device__ __forceinline__ void store(void* at, int) const { *static_cast<uint2*>(at) = words; }
};
template <>
struct Packed<0> {
  unsigned long long all = 0;
  static __device__ constexpr int first(int pair) { return pair; }
  static constexpr int kApart = 4;
  __device__ __forceinline__ void add(int pair, unsigned codes, int bits) {
    all |= static_cast<unsigned long long>(codes & 0xffff) << pair * bits;
    all |= static_cast<unsigned long long>(codes >> 16) << (pair + kApart) * bits;
  }
  __device__ __forceinline__ void store(void* at, int bits) const {
    for (int i = 0; i < bits; ++i) {
      static_cast<std::uint8_t*>(at)[i] = static_cast<std::uint8_t>(all >> 8 * i);
    }
  }
};

template <int kBits, class Codes, class Steps>
__device__ __forceinline__ Packed<kBits> codes_of(const Codes& elements, const Octet& octet,
                                                  const Steps& steps, int zero, int bits) {
  using Out = Packed<kBits>;
  Out packed;
#pragma unroll
  for (int pair = 0; pair < kEncodedColumns / 2; ++pair) {
    const int i = Out::first(pair);
    packed.add(pair, elements.pair(steps(octet.w[i], octet.w[i + Out::kApart]), zero), bits);
  }
  return packed;
}

template <class Codes>
__device__ __forceinline__ StoredScale scale_of(const EncodeWeight& args,
                                                const typename Codes::Range& range, bool& refused) {
  refused = refused || !(range.absmax() < INFINITY);
  if constexpr (Codes::kTable) {
    return table_scale(args, range.absmax(), /*second=*/false, refused);
  } else {
    return integer_scale(args, range, refused);
  }
}

// ---- scales by group: a group is some octets of some lanes of a warp, and groups lie end to end

constexpr int kGroupThreads = 256;
constexpr int kAtOnce = 4;  // octets of a thread, so that enough loads are under way

// The octets that a thread has of a group: every `lanes`-th from the first one. Zeros behind w.
template <int kOwn>
struct Share {
  Octet octets[kOwn];

  static __device__ __forceinline__ Share load(const EncodeWeight& args, std::int64_t first,
                                               int lanes) {
    const std::int64_t all = args.rows * args.cols / kEncodedColumns;
    Share share;
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const std::int64_t at = first + k * lanes;
      share.octets[k] = at < all ? Octet::load(args.w + at * kEncodedColumns) : Octet{};
    }
    return share;
  }
};

// ---- the better of two scales

// The sum of squared errors of a group in the order of SpanKernels::squared_errors(): 16 sums, then
// halves of them.
template <int kOwn>
__device__ __noinline__ double squared_error(const EncodeWeight& args, const Share<kOwn>& share,
                                             const Packed<4> (&codes)[kOwn], float scale,
                                             int lanes) {
  double sums[kEncodedColumns];
  for (int i = 0; i < kEncodedColumns; ++i) {
    double own[kOwn];
    for (int k = 0; k < kOwn; ++k) {
      const float value = __fmul_rn(args.values[codes[k].word >> (4 * i) & 15], scale);
      const double d = __dsub_rn(double{value}, double{share.octets[k].w[i]});
      own[k] = __dmul_rn(d, d);
    }
    for (int half = kOwn / 2; half > 0; half /= 2) {
      for (int k = 0; k < half; ++k) own[k] = __dadd_rn(own[k], own[k + half]);
    }
    sums[i] = own[0];
  }
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    for (double& sum : sums) sum = __dadd_rn(sum, __shfl_xor_sync(~0u, sum, distance));
  }
  for (int half = kEncodedColumns / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) sums[i] = __dadd_rn(sums[i], sums[i + half]);
  }
  return sums[0];
}

// Whether the second scale has less error, to the last bit. All lanes of a warp call it. It loads
// the weights again, so that those of its caller stay in registers.
template <class Codes, int kOwn>
__device__ __noinline__ bool second_is_better(const EncodeWeight& args, Codes elements,
                                              std::int64_t first_octet, int lanes, float first,
                                              float second) {
  const auto share = Share<kOwn>::load(args, first_octet, lanes);
  const auto error = [&](float scale) {
    Packed<4> codes[kOwn];
    with_steps(scale, [&](const auto& steps) {
      for (int k = 0; k < kOwn; ++k) {
        codes[k] = codes_of<4>(elements, share.octets[k], steps, /*zero=*/0, /*bits=*/4);
      }
    });
    return squared_error(args, share, codes, scale, lanes);
  };
  return error(second) < error(first);
}

template <class Codes, int kOwn>
__device__ __forceinline__ float rough_error(const Codes& elements, const Share<kOwn>& share,
                                             float scale, int lanes) {
  const float inverse = __fdividef(1.0f, scale);
  float sum = 0;
#pragma unroll
  for (const Octet& octet : share.octets) {
#pragma unroll
    for (const float w : octet.w) {
      const float d = elements.rough_error(w, scale, inverse);
      sum = __fmaf_rn(d, d, sum);
    }
  }
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, distance));
  }
  return sum;
}

// The scale becomes the second one where that has less error. Sums in float32 of errors that are
// right to 2^-22 of the weights say which that is, unless the sums are near each other, or small
// beside the weights.
template <class Codes, int kOwn>
__device__ __forceinline__ void choose(const EncodeWeight& args, const Codes& elements,
                                       float absmax, const Share<kOwn>& share,
                                       std::int64_t first_octet, int lanes, StoredScale& scale) {
  bool refused = false;
  const StoredScale other = table_scale(args, absmax, /*second=*/true, refused);
  bool better = false;
  bool near = true;
  if constexpr (Codes::kRough) {
    const float a = rough_error(elements, share, scale.value, lanes);
    const float b = rough_error(elements, share, other.value, lanes);
    better = b < a;
    near = !(fabsf(a - b) > 0x1p-14f * (a + b) && a + b > 0x1p-12f * absmax * absmax);
  }
  if (__any_sync(~0u, near)) {
    const bool exact =
        second_is_better<Codes, kOwn>(args, elements, first_octet, lanes, scale.value, other.value);
    if (near) better = exact;
  }
  if (better) scale = other;
}

// Where a thread is among the groups of its block.
struct GroupPlace {
  int lanes;           // of a group
  int lane;            // of them
  std::int64_t first;  // octet of the first share

  template <int kOwn>
  static __device__ __forceinline__ GroupPlace of(const EncodeWeight& args, int octets) {
    const int lanes = static_cast<int>(args.group) / (kEncodedColumns * kOwn);
    const int lane = static_cast<int>(threadIdx.x) & (lanes - 1);
    return {lanes, lane,
            blockIdx.x * std::int64_t{kGroupThreads} * octets +
                (static_cast<int>(threadIdx.x) - lane) * kOwn + lane};
  }
};

// All lanes of a warp call it.
template <int kBits, bool kChoice, class Codes, int kOwn>
__device__ __forceinline__ void encode_share(const EncodeWeight& args, const Codes& elements,
                                             const GroupPlace& place, const Share<kOwn>& share,
                                             std::int64_t begin, bool& refused) {
  typename Codes::Range range{};
#pragma unroll
  for (const Octet& octet : share.octets) octet.add_to(range);
  join_lanes(range, place.lanes);
  StoredScale scale = scale_of<Codes>(args, range, refused);
  if constexpr (kChoice) choose(args, elements, range.absmax(), share, begin, place.lanes, scale);
  if (begin >= args.rows * args.cols / kEncodedColumns) return;
  const int bits = kBits == 0 ? args.bits : kBits;
  with_steps(scale.value, [&](const auto& steps) {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      codes_of<kBits>(elements, share.octets[k], steps, scale.zero, bits)
          .store(reinterpret_cast<std::uint8_t*>(args.codes) + (begin + k * place.lanes) * bits,
                 bits);
    }
  });
  if (place.lane == 0) store_scale(args, begin / (place.lanes * kOwn), scale);
}

template <class Codes, int kBits, int kOwn>
__global__ void __launch_bounds__(kGroupThreads, 4)
    encode_groups(const __grid_constant__ EncodeWeight args) {
  constexpr int kShares = kAtOnce / kOwn;
  __shared__ typename Codes::Shared shared;
  const auto place = GroupPlace::of<kOwn>(args, kAtOnce);
  Share<kOwn> shares[kShares];
#pragma unroll
  for (int i = 0; i < kShares; ++i) {
    shares[i] = Share<kOwn>::load(args, place.first + i * (kGroupThreads * kOwn), place.lanes);
  }
  const Codes elements = Codes::load(args, shared);
  bool refused = false;
#pragma unroll
  for (int i = 0; i < kShares; ++i) {
    encode_share<kBits, /*kChoice=*/false>(args, elements, place, shares[i],
                                           place.first + i * (kGroupThreads * kOwn), refused);
  }
  if (refused) *args.refused = 1;
}

constexpr int kChosenShares = 8;  // of a thread, one after the other

// The same where the better of two scales is taken: a share is loaded while the one before it is
// encoded, which takes longer than a load.
template <class Codes, int kBits, int kOwn>
__global__ void __launch_bounds__(kGroupThreads, 3)
    encode_chosen(const __grid_constant__ EncodeWeight args) {
  __shared__ typename Codes::Shared shared;
  const auto place = GroupPlace::of<kOwn>(args, kChosenShares * kOwn);
  auto next = Share<kOwn>::load(args, place.first, place.lanes);
  const Codes elements = Codes::load(args, shared);
  bool refused = false;
#pragma unroll 1
  for (int i = 0; i < kChosenShares; ++i) {
    const Share<kOwn> share = next;
    const std::int64_t begin = place.first + i * (kGroupThreads * kOwn);
    if (i + 1 < kChosenShares) {
      next = Share<kOwn>::load(args, begin + kGroupThreads * kOwn, place.lanes);
    }
    encode_share<kBits, /*kChoice=*/true>(args, elements, place, share, begin, refused);
  }
  if (refused) *args.refused = 1;
}

// ---- scales by row: a row is a block, which keeps what fits into registers

constexpr int kRowOfThreads = 512;
constexpr int kKept = 4;  // octets of a thread

// The range of all threads, to all.
template <class Range>
__device__ Range block_range(Range range) {
  __shared__ Range partial[kRowOfThreads / 32];
  join_lanes(range, 32);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = range;
  __syncthreads();
  for (const Range& other : partial) range.add(other);
  return range;
}

template <class Codes, int kBits>
__global__ void __launch_bounds__(kRowOfThreads, 2)
    encode_rows(const __grid_constant__ EncodeWeight args) {
  __shared__ typename Codes::Shared shared;
  const int bits = kBits == 0 ? args.bits : kBits;
  const std::int64_t row = blockIdx.x;
  const float* const w = args.w + row * args.cols;
  const std::int64_t octets = args.cols / kEncodedColumns;
  const auto loaded = [&](std::int64_t at) { return Octet::load(w + at * kEncodedColumns); };
  typename Codes::Range range{};
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
  with_steps(scale.value, [&](const auto& steps) {
    const auto encode = [&](std::int64_t at, const Octet& octet) {
      codes_of<kBits>(elements, octet, steps, scale.zero, bits).store(out + at * bits, bits);
    };
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const std::int64_t at = threadIdx.x + i * kRowOfThreads;
      if (at < octets) encode(at, kept[i]);
    }
    for (std::int64_t at = threadIdx.x + kKept * kRowOfThreads; at < octets; at += kRowOfThreads) {
      encode(at, loaded(at));
    }
  });
  if (threadIdx.x != 0) return;
  store_scale(args, row, scale);
  if (refused) *args.refused = 1;
}

// ---- the scale of the matrix

// The largest magnitude, as bits, joined to what `whole` holds.
__global__ void __launch_bounds__(kGroupThreads)
    find_largest(const __grid_constant__ EncodeWeight args) {
  const std::int64_t octets = args.rows * args.cols / kEncodedColumns;
  Magnitude range{};
  for (std::int64_t at = blockIdx.x * std::int64_t{kGroupThreads} + threadIdx.x; at < octets;
       at += gridDim.x * std::int64_t{kGroupThreads}) {
    Octet::load(args.w + at * kEncodedColumns).add_to(range);
  }
  join_lanes(range, 32);
  if (threadIdx.x % 32 == 0) {
    atomicMax(reinterpret_cast<unsigned*>(args.whole), __float_as_uint(range.most));
  }
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

unsigned group_blocks(const EncodeWeight& args, int octets) {
  const std::int64_t of_block = std::int64_t{kGroupThreads} * octets;
  return static_cast<unsigned>((args.rows * args.cols / kEncodedColumns + of_block - 1) / of_block);
}

// Threads take two octets of a group, which has one only where groups are as small as octets.
template <class Codes, int kBits>
cudaError_t start_groups(const EncodeWeight& args, cudaStream_t stream) {
  const unsigned blocks = group_blocks(args, kAtOnce);
  if (args.group >= 2 * kEncodedColumns) {
    encode_groups<Codes, kBits, 2><<<blocks, kGroupThreads, 0, stream>>>(args);
  } else {
    encode_groups<Codes, kBits, 1><<<blocks, kGroupThreads, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

template <class Codes>
cudaError_t start_chosen(const EncodeWeight& args, cudaStream_t stream) {
  if (args.group < 2 * kEncodedColumns) return cudaErrorInvalidValue;
  const unsigned blocks = group_blocks(args, 2 * kChosenShares);
  encode_chosen<Codes, 4, 2><<<blocks, kGroupThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

template <class Codes, int kBits>
cudaError_t start(const EncodeWeight& args, cudaStream_t stream) {
  if (args.choice) {
    if constexpr (Codes::kChoice && kBits == 4) return start_chosen<Codes>(args, stream);
    return cudaErrorInvalidValue;
  }
  if (args.group < args.cols) return start_groups<Codes, kBits>(args, stream);
  encode_rows<Codes, kBits><<<static_cast<unsigned>(args.rows), kRowOfThreads, 0, stream>>>(args);
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
      return start_bits<BoundCodes>(args, stream);
    case ElementCodes::kGrid:
      return start<GridCodes, 4>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace nibble::cuda
