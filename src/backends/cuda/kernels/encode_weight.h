// Rounding of float32 weights to codes and scales on the card: the bits of Format::encode()
// (formats/affine.h, formats/table_format.h) for scales by group or row.
#pragma once

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>

#include "backends/cuda/kernels/weight_planes.h"
#include "formats/span_kernels.h"

namespace nibble::cuda {

inline constexpr int kEncodedColumns = 8;  // of a thread at a time: whole bytes of codes

// How the range of a group becomes a scale.
enum class GroupScale : std::int32_t { kFloat, kE8M0, kE4M3 };

// Codes by comparing with bounds between values, as nearest() of formats/code_table.h does.
struct BoundTable {
  float bounds[256];        // `leaves` of them, at least 2
  std::uint8_t codes[256];  // by rank
  std::int32_t leaves;
  std::int32_t zero_rank;
  std::uint32_t negative_zero;
};

// The same where bounds lie so far apart that no two are in one of 32 equal cells from -top to top:
// a weight is compared with the bound of its cell alone.
struct BoundGrid {
  static constexpr int kCells = 32;
  float to_cells;               // 1 / (2 top)
  float bounds[kCells];         // infinite where there is none
  std::uint32_t codes[kCells];  // up to the bound, and (<< 16) above it

  // 2^23 + the cell of x: never less for a larger x, and the same on the host.
  __host__ __device__ static float place(float x, float to_cells) {
    const float part = fmaf(x, to_cells, 0.5f);
#ifdef __CUDA_ARCH__
    const float inside = __saturatef(part);
#else
    const float inside = fminf(fmaxf(part, 0.0f), 1.0f);
#endif
    return fmaf(inside, kCells - 1, 0x1p23f);
  }
};

enum class ElementCodes : std::int32_t { kInteger, kRounded, kBounds, kGrid };

// Pointers on 16 bytes; cols a multiple of 8 and of group, cols * bits of 32; the group which is a
// power of two from 8 to 256 or all columns.
struct EncodeWeight {
  const float* w = nullptr;  // [rows, cols]
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t group = 0;
  std::uint32_t* codes = nullptr;   // [rows, cols * bits / 32]
  void* scales = nullptr;           // [rows, cols / group]
  std::uint8_t* zeros = nullptr;    // integers: null when symmetric
  float* whole = nullptr;           // kE4M3: the scale of the matrix, [1]
  std::int32_t* refused = nullptr;  // [1]: not 0 when the host has to say what is wrong with w
  ElementCodes elements = ElementCodes::kInteger;
  GroupScale scale = GroupScale::kFloat;
  FloatType float_type = FloatType::kF32;  // of kFloat
  std::int32_t bits = 0;
  double top_inverse = 0;     // integers: 1 / (2^bits - 1)
  std::int32_t top_code = 0;  // integers of rules by magnitude: the code of the largest; or 0
  // Tables: the magnitude that the largest weight of a group becomes; with `choice` that of the
  // second scale to try (kE4M3), of which the better one is taken.
  float top = 0;
  float other_top = 0;
  float largest_scale = 0;        // kE4M3: of the stored ones
  std::int32_t top_exponent = 0;  // kE8M0: floor(log2 top)
  bool floor = false;      // kE8M0: by floor(log2), or by ceil(log2(w / top)); with `choice` both
  bool choice = false;     // group at most 32
  FloatRounding rounding;  // kRounded
  float values[16];        // by code, where there is a choice: bits is 4 then
  BoundTable table;        // kBounds
  BoundGrid grid;          // kGrid
};
cudaError_t encode_weight(const EncodeWeight& args, cudaStream_t stream);

}  // namespace nibble::cuda
