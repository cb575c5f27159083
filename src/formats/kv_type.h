// Number formats of a key/value cache: how the `head_dim` values of one head of one token are
// stored. Such a row is a run of bytes of its own, so that a token can be appended without touching
// others.
//
//   f32, f16, bf16   the values
//   int8, int4       scale (float32), offset (float32), codes (unsigned; of int4 two a byte, the
//                    first in the low half, an odd last one alone): value = offset + scale * code
//   fp8              the same with codes of e4m3 (fn) and the offset 0
//
// Integer rows are quantized asymmetrically, code = round((value - offset) / scale), ties to even,
// held within [0, L], L = 255 or 15. Those of int8 over their own range: offset = the smallest
// value, scale = (largest - smallest) / L. So the error is at most half a step (scale), and a
// constant row is exact. Rows of int4 of up to 1024 values have the scale and offset of least
// squares for the best of nine ranges, up to 0.8 of a step narrower at either end than the row's
// own (kv_fit.inl.h); longer ones are as those of int8. Scale and offset are float32 because then
// this holds for every finite row, whatever its range (keys of some models leave that of f16), and
// codes stay aligned; they cost 64 bits a row: half a bit a value at head_dim 128.
//   Rows of fp8 have scale = (largest magnitude) / 448, code = e4m3(value / scale), ties to even:
// the error is at most a sixteenth of the value, or 2^-10 scale. The scale keeps what e4m3 alone
// would cut off at 448.
//   Of integer rows, a range so small that 1 / scale is no float32 (below 1e-36) counts as
// constant: scale 0. A row that holds a NaN or an infinity, or whose range is no float32, decodes
// to NaN everywhere: the damage shows in the output instead of becoming a plausible number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace nibble {

enum class KvType { kF32, kF16, kBF16, kInt8, kInt4, kFp8 };
inline constexpr KvType kKvTypes[] = {KvType::kF32,  KvType::kF16,  KvType::kBF16,
                                      KvType::kInt8, KvType::kInt4, KvType::kFp8};

// "f32", "f16", "bf16", "int8", "int4", "fp8".
std::string_view to_string(KvType type);
std::optional<KvType> parse_kv_type(std::string_view name);

// True for the types that have codes, a scale and an offset.
bool is_quantized(KvType type);

// F32, F16 and BF16; kUnsupported for others.
KvType kv_type_of(DType dtype);

// Bytes of one row; any head_dim >= 0.
std::int64_t kv_row_bytes(KvType type, std::int64_t head_dim);

// One row, scalar: the definition that kernels are held against. Rows need no alignment.
void encode_kv_row(KvType type, const float* values, std::int64_t head_dim, std::byte* row);
void decode_kv_row(KvType type, const std::byte* row, std::int64_t head_dim, float* values);

// The two numbers in front of the codes of a row.
struct KvScale {
  float scale = 0;
  float offset = 0;
};
KvScale kv_row_scale(const std::byte* row);

// How a cache holds keys and values: rows of a type, perhaps of heads that were mixed first. With
// `hadamard` each head is multiplied by a Hadamard matrix (HadamardArgs of ops/args.h) before it is
// stored: its large elements are spread over all, so that the range of a row, and with it the step
// of its codes, is smaller. Queries are multiplied by the same matrix, which leaves their products
// with keys as they are, and so is the output, since the matrix is its own inverse.
struct KvFormat {
  KvType type = KvType::kF32;
  bool hadamard = false;  // of types with codes only

  KvFormat() = default;
  // Implicit: a type alone is a format.
  KvFormat(KvType stored, bool mixed = false) : type(stored), hadamard(mixed) {}
  bool operator==(const KvFormat&) const = default;
};

// The name of the type, with "_hadamard" behind it.
std::string to_string(const KvFormat& format);
std::optional<KvFormat> parse_kv_format(std::string_view name);
// The names of all of them.
std::vector<std::string> kv_format_names();

}  // namespace nibble
