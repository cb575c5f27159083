#include "backends/cuda/device/weight_element.cuh"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/decode_weight.h"
#include "backends/cuda/kernels/grid.h"

namespace nibble::cuda {
namespace {

__device__ __forceinline__ void store(float* out, float value) { *out = value; }
__device__ __forceinline__ void store(__half* out, float value) { *out = __float2half_rn(value); }
__device__ __forceinline__ void store(__nv_bfloat16* out, float value) {
  *out = __float2bfloat16_rn(value);
}

template <class T>
__global__ void decode(DecodeWeight args) {
  const std::int64_t cols = args.weight.cols;
  T* const out = static_cast<T*>(args.out);
  for (std::int64_t row = blockIdx.y; row < args.rows; row += gridDim.y) {
    for (std::int64_t col = blockIdx.x * blockDim.x + threadIdx.x; col < cols;
         col += gridDim.x * blockDim.x) {
      store(out + row * cols + col, weight_element(args.weight, args.first_row + row, col));
    }
  }
}

// ---- integers, eight neighbours at a time

constexpr int kColumns = 8;  // of a thread: whole bytes of codes
constexpr int kRows = 4;     // of a thread, so that enough loads are under way
constexpr int kThreads = 128;

template <class T>
struct alignas(16) Columns {
  T values[kColumns];
};

// Codes one after the other, from the lowest bit.
struct Codes {
  unsigned low, high;
};

__device__ __forceinline__ Codes load_codes(const WeightPlanes& w, std::int64_t row,
                                            unsigned first_bit) {
  const unsigned* words = static_cast<const unsigned*>(w.data) + row * w.row_words + first_bit / 32;
  const unsigned shift = first_bit % 32;
  const unsigned end = shift + kColumns * static_cast<unsigned>(w.bits);
  const unsigned first = words[0];
  const unsigned second = end > 32 ? words[1] : 0;
  const unsigned third = end > 64 ? words[2] : 0;
  return {__funnelshift_r(first, second, shift), __funnelshift_r(second, third, shift)};
}

// A code in the low bits of 0x4b000000 is the float 2^23 + code, so the difference is exact.
template <class T>
__device__ __forceinline__ Columns<T> decode_columns(Codes codes, int bits, float scale,
                                                     unsigned zero) {
  constexpr unsigned kMagic = 0x4b000000u;
  const unsigned mask = (1u << bits) - 1;
  const float biased_zero = __uint_as_float(kMagic | zero);
  Columns<T> columns;
#pragma unroll
  for (T& value : columns.values) {
    const float code = __uint_as_float(kMagic | (codes.low & mask)) - biased_zero;
    store(&value, scale * code);
    codes.low = __funnelshift_r(codes.low, codes.high, bits);
    codes.high >>= bits;
  }
  return columns;
}

template <class T>
__global__ void __launch_bounds__(kThreads) decode_integers(DecodeWeight args) {
  const WeightPlanes& w = args.weight;
  const auto col = static_cast<unsigned>((blockIdx.x * kThreads + threadIdx.x) * kColumns);
  if (col >= w.cols) return;
  const unsigned group = col / static_cast<unsigned>(w.group);
  const unsigned first_bit = col * static_cast<unsigned>(w.bits);
  const std::int64_t last = args.rows - 1;
  for (std::int64_t first = std::int64_t{blockIdx.y} * kRows; first < args.rows;
       first += std::int64_t{gridDim.y} * kRows) {
    Codes codes[kRows];
    unsigned scales[kRows];  // converted when all loads are under way
    unsigned zeros[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const std::int64_t row = args.first_row + min(first + i, last);
      const std::int64_t at = w.per_tensor ? 0 : row * w.groups + group;
      codes[i] = load_codes(w, row, first_bit);
      scales[i] = load_bits(w.type, w.scales, at);
      zeros[i] = w.zeros == nullptr ? 1u << (w.bits - 1) : w.zeros[at];
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (first + i > last) break;
      T* const out = static_cast<T*>(args.out) + (first + i) * w.cols + col;
      const float scale = float_of(w.type, scales[i]);
      *reinterpret_cast<Columns<T>*>(out) = decode_columns<T>(codes[i], w.bits, scale, zeros[i]);
    }
  }
}

// Whether eight columns share a scale and their results can be stored at once.
bool takes_columns(const DecodeWeight& args) {
  const WeightPlanes& w = args.weight;
  constexpr std::int64_t kMostColumns = std::int64_t{1} << 28;  // their bits are counted in 32
  return w.bits > 0 && w.cols % kColumns == 0 && w.group % kColumns == 0 &&
         w.cols <= kMostColumns && on_16_bytes(args.out);
}

// ----

template <class T>
cudaError_t start(const DecodeWeight& args, cudaStream_t stream) {
  if (takes_columns(args)) {
    const std::int64_t wide = (args.weight.cols / kColumns + kThreads - 1) / kThreads;
    const std::int64_t high = std::min<std::int64_t>((args.rows + kRows - 1) / kRows, 65535);
    const dim3 grid(static_cast<unsigned>(wide), static_cast<unsigned>(high));
    decode_integers<T><<<grid, kThreads, 0, stream>>>(args);
  } else {
    const dim3 grid = row_grid(args.rows, args.weight.cols);
    decode<T><<<grid, kRowThreads, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

__global__ void embed(EmbedRows args) {
  const std::int64_t cols = args.table.cols;
  for (std::int64_t i = blockIdx.y; i < args.count; i += gridDim.y) {
    const std::int64_t row = args.ids[i];
    for (std::int64_t col = blockIdx.x * blockDim.x + threadIdx.x; col < cols;
         col += gridDim.x * blockDim.x) {
      const float value = weight_element(args.table, row, col) * args.scale;
      float* const out = args.out + i * cols + col;
      *out = args.accumulate ? *out + value : value;
    }
  }
}

}  // namespace

cudaError_t decode_weight(const DecodeWeight& args, cudaStream_t stream) {
  if (args.rows == 0 || args.weight.cols == 0) return cudaSuccess;
  switch (static_cast<FloatType>(args.type)) {
    case FloatType::kF16:
      return start<__half>(args, stream);
    case FloatType::kBF16:
      return start<__nv_bfloat16>(args, stream);
    case FloatType::kF32:
      return start<float>(args, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t embed_rows(const EmbedRows& args, cudaStream_t stream) {
  if (args.count == 0 || args.table.cols == 0) return cudaSuccess;
  embed<<<row_grid(args.count, args.table.cols), kRowThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace nibble::cuda
