// Trellis-coded weights: K bits a weight, every value read off 16 bits of a stream (a bitshift
// trellis, QTIP, arXiv 2406.11235), after a Hadamard transform that makes weights look Gaussian.
//
// Planes, for K = element.bits, 2 to 8:
//
//   codes   I32 [ceil(rows / 16), cols / 16 * 8 K]   8 K words for each tile of 16 x 16 weights;
//                                                    the last tiles may hold less rows
//   scales  F16|BF16|F32 [rows, 1]
//
// Weight t = 16 * row + col of a tile has the state of the 16 bits from bit t K of the tile's 256 K
// on, round about; bit n is bit n mod 32, from the lowest, of word n div 32. A state x has the
// value
//
//   value(x) = (sum of the four bytes of x * 0x83DCD12D mod 2^32, less 510) / 128
//
// the sum of four nearly uniform bytes being nearly Gaussian (the code "1MAD" of QTIP, with the
// factor of EXL3's). Columns are cut into blocks of h, the largest power of two of at most 128 that
// divides their number. With v the values of a block of row i times scale_i, the weights are
//
//   w_j = sign_j / sqrt(h) * sum_k (-1)^popcount(j & k) v_k
//
// where with x = (j + 1) * 0x9E3779B1 and y = (x ^ x >> 15) * 0x85EBCA77 (of 32 bits) the lowest
// bit of y ^ y >> 13 says that sign_j is -1.
//
// Two-sided, "trellis<K>_exl3", is what EXL3 can store (doc/exl3.md of ExLlamaV3): rows and columns
// are multiples of 128, scales F16. Weight t of a tile stands at row `out` and column `in` of
// exl3_places()[255 - t] (the stream read backwards is EXL3's), values are those of exl3_value()
// with the same factor, which F16 rounds, and 128 rows are transformed as well: with V the values
// of 128 rows and 128 columns, and H_ij = (-1)^popcount(i & j),
//
//   w_ij = scale_i * sign_j / 128 * (H V H)_ij
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "formats/format.h"

namespace nibble {

inline constexpr std::int64_t kTrellisSide = 16;                           // of a tile
inline constexpr std::int64_t kTrellisTile = kTrellisSide * kTrellisSide;  // weights
inline constexpr std::uint32_t kTrellisStates = 65536;

// What a state stands for, and where: weight t of a tile at 16 * row + column.
struct TrellisCode {
  std::vector<float> values;  // [states]
  std::array<std::uint8_t, kTrellisTile> places;
};

FormatPtr make_trellis_format(const WeightDescriptor& descriptor);

// sign_j of the transform of the columns, 1 or -1.
float trellis_sign(std::int64_t col);

// From weights to what is coded: every row of w [rows, cols] in place, an orthogonal map. T is
// float or double.
template <class T>
void trellis_rotate(T* w, std::int64_t rows, std::int64_t cols);

// A matrix of these scales, its codes to be written. kUnsupported when a scale leaves its type.
QuantTensor trellis_tensor(const FormatPtr& format, std::int64_t rows, std::int64_t cols,
                           std::span<const float> scales);
// The scales as they are stored.
std::vector<float> trellis_scales(const QuantTensor& tensor);
// The same with the scales of least error for Gaussian weights of the mean squares of `rotated`
// [rows, cols], which is brought to what paths are searched for: values of row i times factors[i].
struct TrellisTarget {
  QuantTensor tensor;
  std::vector<float> factors;
};
TrellisTarget trellis_target(const FormatPtr& format, float* rotated, std::int64_t rows,
                             std::int64_t cols);
// The words of one tile.
std::span<std::uint32_t> trellis_words(QuantTensor& tensor, std::int64_t tile_row,
                                       std::int64_t tile_col);

// Up to 16 rotated rows, `stride` apart, with their factors.
struct TrellisRows {
  const float* w = nullptr;
  std::int64_t stride = 0;
  std::int64_t count = 0;
  const float* factors = nullptr;
};

// Finds for a tile the path with the least weighted squared error. One thread at a time.
class TrellisEncoder {
 public:
  TrellisEncoder(const Element& element, const SpanKernels& spans);

  // The tile of 16 columns from `col` on. What an error costs: the factor of its column, or 1
  // everywhere when `column_weights` is empty. `words` gets the stream; `decoded` [rows.count, 16],
  // if not null, the rotated weights that it stands for.
  void encode(const TrellisRows& rows, std::int64_t col, std::span<const float> column_weights,
              std::span<std::uint32_t> words, float* decoded);

 private:
  using Values = std::array<float, kTrellisTile>;
  using Path = std::array<std::uint16_t, kTrellisTile>;

  Path find_path(const Values& w, const Values& weights);
  // Steps back over tile positions end - 1 ... begin, modulo 256; costs_ from those behind to those
  // before.
  void search(const Values& w, const Values& weights, std::int64_t begin, std::int64_t end);
  // The state after `state` at a tile position.
  std::uint32_t next(std::uint32_t state, std::int64_t position) const;

  int bits_;
  const TrellisCode& code_;
  std::uint32_t span_;  // states that differ in their low bits alone
  const SpanKernels& spans_;
  std::vector<float> costs_, other_;   // [states]
  std::vector<std::uint8_t> choices_;  // [256, span]
};

}  // namespace nibble
