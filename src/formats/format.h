// What stored numbers mean: a format turns rows of float32 weights into named planes and back.
//
// Four things are kept apart: the element (how one code maps to a real number), the scheme (what
// shares a scale, zero points), the memory layout (the canonical planes described here; kernels may
// repack them), and the disk encoding (src/checkpoint/). Everything here is scalar, host-only and
// is the definition that kernels are tested against.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/block_type.h"
#include "formats/codebook.h"
#include "formats/codec.h"
#include "formats/float_bits.h"
#include "tensor/tensor.h"

namespace nibble {

enum class ElementKind {
  kFloat,
  kInt,
  kFloatBits,
  kCodebook,
  kFitted,
  kIntSplit,
  kTrellis,
  kLowRank,
  kBlock,
  kMixed
};

struct WeightDescriptor;

// Groups of `group` columns with codes of `bits` bits: `groups` of them, or so many as hold
// `percent` of all columns, or, with neither, what is left; the last of those may be shorter.
struct ColumnRun {
  int bits = 4;
  std::int64_t group = 0;
  std::int64_t groups = 0;
  int percent = 0;
};
bool operator==(const ColumnRun& a, const ColumnRun& b);

// How the values of kFitted elements are found.
enum class Fit {
  kQuantiles,  // equal shares of the weights (bitsandbytes' quantile map; arXiv 2110.02861)
  kLloydMax,   // the least squared error (Lloyd 1982, Max 1960), weighted by Codec::importance
};

// One stored number. kFloat: a plain float type, `bits` 16 or 32. kInt: an unsigned code of `bits`
// bits. kFloatBits and kCodebook: a code of `bits` bits into a table of values. kFitted: the same
// with a table that is stored with the matrix. kIntSplit: kInt, but for some columns of the matrix
// that stay in 16 bits. kTrellis: `bits` bits of a path through a trellis (trellis.h). kLowRank: an
// element of another format plus one of a product of rank `rank` (low_rank.h). kBlock: codes and
// scales stand together in blocks of a layout of its own (block_type.h); `bits` and the scheme mean
// nothing. kMixed: integers of several widths in one matrix (mixed_format.h); likewise.
struct Element {
  ElementKind kind = ElementKind::kFloat;
  int bits = 32;
  DType float_type = DType::kF32;      // kFloat only
  FloatBits float_bits = {};           // kFloatBits only
  Codebook codebook = Codebook::kNf4;  // kCodebook only
  Fit fit = Fit::kLloydMax;            // kFitted only
  int rank = 0;                        // kLowRank only, as `base`
  std::shared_ptr<const WeightDescriptor> base = nullptr;
  BlockType block = BlockType::kQ8_0;  // kBlock only
  std::vector<ColumnRun> runs = {};    // kMixed only
  bool two_sided = false;              // kTrellis only: as EXL3 has it (trellis.h)
};

// Codes of affine integers, some columns perhaps apart.
inline bool is_integer(const Element& element) {
  return element.kind == ElementKind::kInt || element.kind == ElementKind::kIntSplit;
}

// Channel: one output row. Block: `block_rows` rows of `group` columns, cut at the last row and
// column.
enum class Granularity { kTensor, kChannel, kGroup, kBlock };

// How an encoder comes to the scale of a group with the largest magnitude a, elements reaching to
// m. Decoders need not know.
enum class ScaleRule {
  kAbsmax,  // a / m, nearest
  kFloor,   // a power of two: 2^(floor(log2 a) - floor(log2 m)); the largest values may saturate
  kCeil,    // a power of two: 2^ceil(log2(a / m))
  kLeastError,   // of those two the one with the least squared error, floor on a tie
  kFourOverSix,  // a / 6 or a / 4, whichever has the least squared error, 6 on a tie (m = 6)
  // Of symmetric integers of b bits, for which kAbsmax is 2 a / (2^b - 1), all codes used evenly:
  kStrict,  // a / (2^(b-1) - 1): the lowest code is never used, and a is exact
  kFull,    // a / 2^(b-1): all codes, and a itself saturates where it is positive
  kMean,    // binary and ternary elements: the mean magnitude
};

// What scales are multiples of.
enum class SecondLevel {
  kNone,
  kTensor,   // scale = stored scale * one F32 for the matrix
  kDynamic,  // scale = dynamic_map()[stored code] * F32 of its block of 256 + F32 mean of them all
};

// What shares a scale. Meaningless for plain floats.
struct Scheme {
  Granularity granularity = Granularity::kChannel;
  std::int64_t group = 0;  // elements along the input that share a scale (kGroup, kBlock)
  bool symmetric = true;   // true for all but integers
  // F16, BF16 or F32; of tables also F8_E8M0, F8_E4M3 (second level kTensor) and U8 (kDynamic).
  DType scale_type = DType::kF16;
  ScaleRule rule = ScaleRule::kAbsmax;
  SecondLevel second_level = SecondLevel::kNone;
  std::int64_t block_rows = 1;  // rows that share a scale (kBlock)
  bool own_tables = false;      // kFitted: each scale has a table of its own, else all share one
  std::int64_t outliers = 0;    // kIntSplit: columns that stay in 16 bits
};

struct WeightDescriptor {
  Element element;
  Scheme scheme;
};
bool operator==(const Element& a, const Element& b);
bool operator==(const Scheme& a, const Scheme& b);
bool operator==(const WeightDescriptor& a, const WeightDescriptor& b);

struct PlaneSpec {
  // "weight" for float formats, "blocks" for blocks; "codes", "scales", "zeros" ... for others
  std::string name;
  DType dtype;
  Shape shape;
};

class Format;
using FormatPtr = std::shared_ptr<const Format>;

// A weight matrix [rows, cols] (= [out, in], as in a linear layer) in some format. Planes stand in
// the order of Format::planes() and may view mapped files. Copies share the planes.
struct QuantTensor {
  FormatPtr format;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<Tensor> planes;

  // Of all planes, also when a backend keeps them in another form.
  std::size_t byte_size() const;
};

// Immutable and thread-safe.
class Format {
 public:
  virtual ~Format() = default;

  // The one spelling of the descriptor in the format grammar, e.g. "int4_g128_asym"; round-trips
  // through parse_weight_format().
  virtual std::string name() const = 0;
  virtual const WeightDescriptor& descriptor() const = 0;
  // Plain F16, BF16 or F32.
  bool is_float() const { return descriptor().element.kind == ElementKind::kFloat; }
  // Integers with scales and zero points (affine.h), and nothing else.
  bool is_affine() const { return descriptor().element.kind == ElementKind::kInt; }
  bool is_block() const { return descriptor().element.kind == ElementKind::kBlock; }
  bool is_two_sided() const { return descriptor().element.two_sided; }
  bool is_mixed() const { return descriptor().element.kind == ElementKind::kMixed; }

  // Empty when a [rows, cols] matrix can be stored, or else the reason why not ("group 128 does not
  // divide 160 columns").
  virtual std::string why_not(std::int64_t rows, std::int64_t cols) const = 0;
  virtual std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const = 0;

  // Round to nearest over the full range of each group. w is [rows, cols], row-major. NaN or
  // infinity in the input is kCorrupt.
  virtual QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                             const Codec& codec) const = 0;
  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols) const {
    return encode(w, rows, cols, Codec{});
  }

  // Elements [begin, begin + count) of one row, as float32.
  virtual void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin,
                      std::int64_t count, float* out, const SpanKernels& spans) const = 0;
  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out) const {
    decode(tensor, row, begin, count, out, scalar_spans());
  }
  // Rows [first, first + rows), whole, as float32 [rows, cols].
  virtual void decode_rows(const QuantTensor& tensor, std::int64_t first, std::int64_t rows,
                           float* out, const SpanKernels& spans) const;
  // From a multiple of this on, so many rows are decoded at no more than the cost of one.
  virtual std::int64_t row_block() const { return 1; }
};

// Throws kCorrupt unless the planes have the dtypes and shapes that the format asks for.
void validate(const QuantTensor& tensor);

// Rows [first, first + rows) as float32 [rows, cols].
void decode_rows(const QuantTensor& tensor, std::int64_t first, std::int64_t rows, float* out,
                 const Codec& codec = {});
// The whole matrix as float32 [rows, cols].
void decode_all(const QuantTensor& tensor, float* out, const Codec& codec = {});

// Bytes of all planes * 8 / (rows * cols).
double bits_per_weight(const Format& format, std::int64_t rows, std::int64_t cols);

// A plain float matrix (F16, BF16, F32; rank 2) as a QuantTensor of format f16, bf16 or f32,
// without a copy.
QuantTensor dense(Tensor tensor);

}  // namespace nibble
