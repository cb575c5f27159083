#include "backends/cuda/device/code_columns.cuh"
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

// ---- codes, eight neighbours at a time

constexpr int kRows = 4;  // of a thread, so that enough loads are under way
constexpr int kThreads = 128;
constexpr int kResident = 8;  // blocks of a multiprocessor, which registers must allow

// Which eight columns of 16 a thread of two has: neighbours, or of float32 two runs of four, since
// stores of both threads then fill whole sectors of memory.
template <bool kRuns>
struct OwnColumns {
  static constexpr int kLength = kRuns ? 4 : kCodeColumns;
  static __device__ __forceinline__ unsigned first() {
    const auto thread = blockIdx.x * kThreads + threadIdx.x;
    return kRuns ? thread / 2 * 16 + thread % 2 * 4 : thread * kCodeColumns;
  }
};

template <class T, int kLength>
struct alignas(16) Run {
  T values[kLength];
};

// Codes of kRows rows from `first` on, and what scales them. kBits: 4, 8, or 0 for any width.
template <int kBits, bool kRuns>
struct CodedRows {
  CodeWords<kBits> codes[kRows];
  std::int64_t at[kRows];
  unsigned scales[kRows];  // converted when all loads are under way
  unsigned zeros[kRows];

  template <class Values>
  static __device__ __forceinline__ CodedRows load(const DecodeWeight& args, std::int64_t first,
                                                   unsigned col, unsigned group) {
    const WeightPlanes& w = args.weight;
    CodedRows rows;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const std::int64_t row = args.first_row + min(first + i, args.rows - 1);
      rows.at[i] = scale_place(w, row, group);
      const auto* const words = static_cast<const unsigned*>(w.data) + row * w.row_words;
      if constexpr (kRuns) {
        rows.codes[i] = CodeWords<kBits>::load_runs(words, col);
      } else {
        rows.codes[i] = CodeWords<kBits>::load(words, col, w.bits);
      }
      rows.scales[i] = load_scale(w, rows.at[i]);
      rows.zeros[i] = Values::kTable ? 0 : load_zero(w, rows.at[i]);
    }
    return rows;
  }
};

template <class T, class Values, int kBits, bool kRuns>
__global__ void __launch_bounds__(kThreads, kResident) decode_codes(DecodeWeight args) {
  using Table = SharedTable<Values, kBits>;
  using Coded = CodedRows<kBits, kRuns>;
  using Own = OwnColumns<kRuns>;
  __shared__ float shared[Table::kFloats];
  const WeightPlanes& w = args.weight;
  const bool inside = Own::first() < w.cols;
  const unsigned col = inside ? Own::first() : 0;
  const unsigned group = col / static_cast<unsigned>(w.group);
  const std::int64_t step = std::int64_t{gridDim.y} * kRows;
  std::int64_t first = std::int64_t{blockIdx.y} * kRows;
  Coded next = Coded::template load<Values>(args, first, col, group);
  const Table table = Table::load(w, shared);  // while those loads are under way
  if (!inside) return;
  for (; first < args.rows; first += step) {
    const Coded rows = next;
    if (first + step < args.rows) {
      next = Coded::template load<Values>(args, first + step, col, group);
    }
    float scales[kRows];
    scale_values(w, rows.at, rows.scales, scales);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (first + i >= args.rows) break;
      const auto value = table.values(rows.zeros[i]);
      using OwnRun = Run<T, Own::kLength>;
      OwnRun runs[kCodeColumns / Own::kLength];
#pragma unroll
      for (int c = 0; c < kCodeColumns; ++c) {
        store(runs[c / Own::kLength].values + c % Own::kLength,
              scales[i] * value(rows.codes[i].code(c)));
      }
      T* const out = static_cast<T*>(args.out) + (first + i) * w.cols + col;
#pragma unroll
      for (int r = 0; r < kCodeColumns / Own::kLength; ++r) {
        *reinterpret_cast<OwnRun*>(out + r * kCodeColumns) = runs[r];
      }
    }
  }
}

bool takes_columns(const DecodeWeight& args) {
  return has_code_columns(args.weight) && on_16_bytes(args.out);
}

// ----

template <class T, int kBits, bool kRuns>
void launch_codes(const DecodeWeight& args, dim3 grid, cudaStream_t stream) {
  if (args.weight.values != nullptr) {
    decode_codes<T, TableValues, kBits, kRuns><<<grid, kThreads, 0, stream>>>(args);
  } else {
    decode_codes<T, IntegerValues, kBits, kRuns><<<grid, kThreads, 0, stream>>>(args);
  }
}

// Runs of a thread must be in one group.
template <class T, int kBits>
void launch_width(const DecodeWeight& args, dim3 grid, cudaStream_t stream) {
  const WeightPlanes& w = args.weight;
  if (sizeof(T) == 4 && w.cols % 16 == 0 && w.group % 16 == 0) {
    launch_codes<T, kBits, sizeof(T) == 4>(args, grid, stream);
  } else {
    launch_codes<T, kBits, false>(args, grid, stream);
  }
}

template <class T>
cudaError_t start(const DecodeWeight& args, cudaStream_t stream) {
  if (takes_columns(args)) {
    const std::int64_t wide = (args.weight.cols / kCodeColumns + kThreads - 1) / kThreads;
    // As many as the largest cards run at once: those go on to the next rows while they work.
    constexpr std::int64_t kBlocks = 132 * kResident;
    const std::int64_t high =
        std::min((args.rows + kRows - 1) / kRows, (kBlocks + wide - 1) / wide);
    const dim3 grid(static_cast<unsigned>(wide), static_cast<unsigned>(high));
    switch (args.weight.bits) {
      case 4:
        launch_width<T, 4>(args, grid, stream);
        break;
      case 8:
        launch_width<T, 8>(args, grid, stream);
        break;
      default:
        launch_codes<T, 0, false>(args, grid, stream);
    }
  } else {
    const dim3 grid = row_grid(args.rows, args.weight.cols);
    decode<T><<<grid, kRowThreads, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

__global__ void embed(EmbedRows args) {
  const std::int64_t cols = args.table.cols;
  for (std::int64_t i = blockIdx.y; i < args.count; i += gridDim.y) {
    const std::int32_t id = args.ids[i];
    const std::int64_t row = id >= 0 ? id : max(args.chosen[-1 - id], 0);
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
