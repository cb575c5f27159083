// What encoders and decoders do with the elements of a row, as functions that a processor's own
// units can replace. All give the same bits as the scalar ones (scalar_spans()), which are the
// definition.
//
// A row is `groups` groups of `length` elements, each under a scale of its own. Codes are a byte
// each here; pack() and unpack() turn them into the stored bit stream and back. Plain data and
// no header but <cstdint>, so that units compiled for newer machines may include it.
#pragma once

#include <cstdint>

namespace nibble {

// How floats whose bias is a whole number round to nearest: on the bits of float32. With
// s = 23 - mantissa, a magnitude x <= top from `smallest_normal` on has the code
// (bits(x) - rebias) >> s, rounded to even; below, the bits of x + magic less those of magic.
struct FloatRounding {
  int mantissa = 0;
  std::uint32_t rebias = 0;   // (127 - bias) << 23
  float top = 0;              // largest finite magnitude
  float smallest_normal = 0;  // 2^(1 - bias)
  float magic = 0;            // its last bit is the smallest value of the type
  std::uint32_t sign = 0;     // bit of a code
  bool signed_zero = true;
};

// A table of values as kernels see it; pointers into a CodeTable, which must outlive it.
struct TableView {
  const float* values = nullptr;  // [1 << bits], by code
  int bits = 0;
  // The finite values in rising order have ranks; x has the rank r when bounds[r - 1] < x <=
  // bounds[r]. `leaves` bounds, a power of two; behind the last one they are infinite.
  const float* bounds = nullptr;
  int leaves = 0;
  int ranks = 0;
  // Of some tables of up to 16 ranks, else null: below[i], i < 32, is how many bounds lie in the
  // slots before i. The slot of x is 16 + x * slots, rounded to nearest and cut at 0 and 31; none
  // has two bounds, and no bound is near the edge of one.
  const std::uint8_t* below = nullptr;
  float slots = 0;
  const std::uint8_t* codes = nullptr;  // by rank
  int zero_rank = 0;
  std::uint8_t negative_zero = 0;  // code of negative values of the rank of zero
  bool rising = false;             // codes are ranks
  // Not 0: the value of a code is the code as a signed number / steps, a power of two; ties to
  // even.
  float steps = 0;
  // Null where rounding by bits does not apply.
  const FloatRounding* rounding = nullptr;
};

struct SpanKernels {
  // lo[g] and hi[g] of each group, widened to hold 0. False when some w is NaN or infinite (then
  // lo and hi mean nothing).
  bool (*ranges)(const float* w, std::int64_t groups, std::int64_t length, float* lo, float* hi);
  // The largest magnitude of each group; likewise.
  bool (*magnitudes)(const float* w, std::int64_t groups, std::int64_t length, float* absmax);

  // codes = round(w / scale) + zero, ties to even, within 0 ... 2^bits - 1. Scales are positive.
  void (*affine_codes)(int bits, const float* scales, const int* zeros, const float* w,
                       std::int64_t groups, std::int64_t length, std::uint8_t* codes);
  // out = scale * (code - zero)
  void (*affine_values)(const float* scales, const int* zeros, const std::uint8_t* codes,
                        std::int64_t groups, std::int64_t length, float* out);

  // codes of the finite values nearest to w / scale; of zero under a scale that is not positive.
  void (*table_codes)(const TableView& table, const float* scales, const float* w,
                      std::int64_t groups, std::int64_t length, std::uint8_t* codes);
  // out = value(code) * scale
  void (*table_values)(const TableView& table, const float* scales, const std::uint8_t* codes,
                       std::int64_t groups, std::int64_t length, float* out);
  // The sum of the squares of `values` less `w`, in double: element i of a group is added to sum
  // i mod 16, and the halves of the sums are added until one is left.
  void (*squared_errors)(const float* values, const float* w, std::int64_t groups,
                         std::int64_t length, double* errors);
  // The sum of the magnitudes, added in the same order.
  void (*magnitude_sums)(const float* w, std::int64_t groups, std::int64_t length, double* sums);
  // Of two scales for each group the one whose codes and values have the least squared error, as
  // the functions above make them: second[g] where that is less, first[g] otherwise. `codes` become
  // those under it, choice[g] is 1 for the second.
  void (*better_codes)(const TableView& table, const float* first, const float* second,
                       const float* w, std::int64_t groups, std::int64_t length,
                       std::uint8_t* codes, std::uint8_t* choice);

  // The bit stream of affine.h: 64 codes a block, 8 * bits bytes. With widths but 4 and 8 up to 8
  // bytes behind the last block are touched, too; they must be there, and become anything.
  void (*pack)(int bits, const std::uint8_t* codes, std::int64_t blocks, unsigned char* bytes);
  void (*unpack)(int bits, const unsigned char* bytes, std::int64_t blocks, std::uint8_t* codes);

  // Bits of f16 and bf16 (base/half.h), rounded to nearest even; NaN becomes some NaN.
  void (*to_f16)(const float* x, std::int64_t count, std::uint16_t* halves);
  void (*to_bf16)(const float* x, std::int64_t count, std::uint16_t* halves);
  void (*from_f16)(const std::uint16_t* halves, std::int64_t count, float* x);
  void (*from_bf16)(const std::uint16_t* halves, std::int64_t count, float* x);

  // One step of the Viterbi search through a trellis (trellis.h), from its end to its start: with
  // span = 65536 >> bits and r < span, x < 65536,
  //   choice[r] = the least n < 2^bits for which after[n * span + r] is least
  //   before[x] = after[choice[x >> bits] * span + (x >> bits)] + weight * (values[x] - w)^2
  void (*trellis_step)(int bits, const float* values, float w, float weight, const float* after,
                       float* before, std::uint8_t* choice);
};

const SpanKernels& scalar_spans();

}  // namespace nibble
