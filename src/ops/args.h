// Argument structs of all ops. Activations are float32. Unless said otherwise matrices are
// row-major and contiguous, sizes are in elements, and outputs must not alias inputs. Ops do not
// allocate results. Pointers point into the memory of the backend that runs the op; spans, and what
// is said to lie in the host's memory, are read while run() lasts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "formats/activation_format.h"
#include "formats/format.h"
#include "formats/kv_type.h"
#include "ops/activation.h"

namespace nibble {

// A weight as an op receives it: the canonical planes, and what a backend made of them at load.
struct PackedWeight {  // derived by the backend that makes it
  virtual ~PackedWeight() = default;
};
struct LinearWeight {
  QuantTensor canonical;
  std::shared_ptr<const PackedWeight> packed;
};

// y[m, n] = sum_k x[m, k] * w[n, k] + bias[n]   (added to what y holds when `accumulate`)
struct LinearArgs {
  const float* x = nullptr;  // [m, w->cols], rows x_stride apart
  std::int64_t x_stride = 0;
  std::int64_t m = 0;
  const LinearWeight* w = nullptr;
  const float* bias = nullptr;  // [w->rows] or null
  float* y = nullptr;           // [m, w->rows], rows y_stride apart
  std::int64_t y_stride = 0;
  bool accumulate = false;
  // What x is rounded to before it is multiplied (a complete format). Null: x as it is.
  // Implementations of float32 or integer arithmetic round to nothing else, and a row's result has
  // the same bits for every m, unless its rounding depends on other rows.
  const ActivationFormat* activations = nullptr;
};

// out[i] = table[ids[i]] * scale, decoded to float32
struct EmbedArgs {
  const QuantTensor* table = nullptr;
  std::span<const std::int32_t> ids;
  // An id of -1 - k stands for chosen[k], and what is below 0 there (see ArgmaxArgs) for row 0.
  const std::int32_t* chosen = nullptr;
  float scale = 1;
  float* out = nullptr;  // [ids, table->cols]
  bool accumulate = false;
};

enum class NormKind { kRms, kLayer };

// kRms:   y = x / sqrt(mean(x^2) + eps) * (weight_offset + weight)
// kLayer: y = (x - mean) / sqrt(var + eps) * (weight_offset + weight) + bias
// Rows of `cols`, `stride` apart in x and in y. y may alias x. Null weight means 1, null bias 0.
struct NormArgs {
  NormKind kind = NormKind::kRms;
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float weight_offset = 0;
  float eps = 0;
  float* y = nullptr;
  std::int64_t y_stride = 0;
};

// Per-head data inside a wider matrix: element (row t, head h, d) is data[t*row_stride +
// h*head_stride + d].
template <class T>
struct HeadView {
  T* data = nullptr;
  std::int64_t row_stride = 0;
  std::int64_t head_stride = 0;
};

// Rotates the first `rotary_dim` elements of each head in place by the angle positions[t] *
// inv_freq[i]. Pairs are (i, i + rotary_dim/2), or (2i, 2i + 1) when interleaved; the result is
// multiplied by `scale` (the attention factor of yarn and longrope).
struct RopeArgs {
  HeadView<float> x;
  std::int64_t rows = 0;
  std::int64_t heads = 0;
  std::int64_t rotary_dim = 0;
  bool interleaved = false;
  std::span<const float> inv_freq;          // [rotary_dim / 2]
  std::span<const std::int32_t> positions;  // [rows]
  float scale = 1;
};

// x[r] = x[r] H in place, [rows, cols] without gaps. H is the Hadamard matrix of Sylvester's order,
// of the largest power of two n that divides cols, over sqrt(n); it is applied to n columns at a
// time, and is its own inverse: H[i, j] = (-1)^popcount(i & j) / sqrt(n).
struct HadamardArgs {
  float* x = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;  // >= 1
};
inline std::int64_t hadamard_size(std::int64_t cols) { return cols & -cols; }

// The view from a row on; strides in bytes.
inline HeadView<void> from_row(const HeadView<void>& view, std::int64_t row) {
  return {static_cast<std::byte*>(view.data) + row * view.row_stride, view.row_stride,
          view.head_stride};
}

// Where new keys and values of one sequence go. Strides in bytes; the views point at the rows of
// the sequence's first new token. No two sequences share rows.
struct KvWriteSequence {
  std::int64_t begin = 0;  // first row of the sequence in k and v
  std::int64_t rows = 0;
  HeadView<void> k;
  HeadView<void> v;
};

// Stores keys and values into caches, each head of a token as a row of `type` (formats/kv_type.h).
struct KvWriteArgs {
  HeadView<float> k;
  HeadView<const float> v;
  std::span<const KvWriteSequence> sequences;
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  KvType type = KvType::kF32;
  // If given: queries that are rotated by the way, and the keys with them before they are stored.
  // Its rows are those of k and v; what k holds afterwards is not defined.
  const RopeArgs* rope = nullptr;
};

// The rotation of the keys that goes with that of the queries.
inline RopeArgs rope_of_keys(const KvWriteArgs& args) {
  RopeArgs rope = *args.rope;
  rope.x = args.k;
  rope.heads = args.heads;
  return rope;
}

// One sequence of an attention call.
struct AttentionSequence {
  std::int64_t q_begin = 0;  // first row of the sequence in q and out
  std::int64_t q_rows = 0;
  std::int64_t kv_rows = 0;  // keys and values that exist, the rows of this call included
  std::int64_t q_offset =
      0;  // position of row q_begin among the keys: row t sees keys up to q_offset + t
  HeadView<const void> k;  // strides in bytes, at least kv_row_bytes(kv_type, head_dim)
  HeadView<const void> v;
  // Keys and values in blocks of block_rows (> 0) rows: block i begins blocks[i] bytes behind
  // k.data, and as many behind v.data. Empty: all rows lie where k and v say, one after the other.
  std::span<const std::int64_t> blocks;
  std::int64_t block_rows = 0;
};

// Where row `row` of head 0 of a sequence's keys (values) lies, in bytes behind view.data.
inline std::int64_t row_offset(const AttentionSequence& sequence, const HeadView<const void>& view,
                               std::int64_t row) {
  if (sequence.blocks.empty()) return row * view.row_stride;
  const std::int64_t block = row / sequence.block_rows;
  return sequence.blocks[static_cast<std::size_t>(block)] +
         row % sequence.block_rows * view.row_stride;
}

// out[t, h] = sum_j softmax_j(score(t, j)) v[j, h / (heads / kv_heads)], over the keys that row t
// may see: j <= q_offset + t when causal, all when not; and j > q_offset + t - window when window >
// 0. score = cap(scale * q.k) + alibi_slope[h] * j, cap(s) = softcap * tanh(s / softcap) when
// softcap > 0. A sink is one score more, of no key: it takes its share of the softmax and adds
// nothing to the sum (GPT-OSS; Xiao et al., arXiv:2309.17453).
struct AttentionArgs {
  HeadView<const float> q;
  std::span<const AttentionSequence> sequences;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  KvType kv_type = KvType::kF32;
  bool causal = true;
  std::int64_t window = 0;
  float scale = 1;
  float softcap = 0;
  std::span<const float> alibi_slopes;  // [heads] or empty
  std::span<const float> sinks;         // [heads] or empty
  float* out = nullptr;                 // [rows, heads * head_dim], rows out_stride apart
  std::int64_t out_stride = 0;
};

// y[r, c] = f(x[r, c]) * (multiplier[r, c] + multiplier_offset)   (multiplier null: 1)
// kTanh with softcap > 0 is softcap * tanh(x / softcap). With limit > 0, x is taken for limit where
// it is more, and the multiplier held within +-limit, before anything else (GPT-OSS). y may alias x
// or multiplier.
struct ActivationArgs {
  Activation kind = Activation::kIdentity;
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  const float* multiplier = nullptr;
  std::int64_t multiplier_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  float softcap = 0;
  float limit = 0;
  float multiplier_offset = 0;
  float* y = nullptr;
  std::int64_t y_stride = 0;
};

// y += scale * x over `count` elements; the product is rounded before it is added
struct AddArgs {
  const float* x = nullptr;
  float* y = nullptr;
  std::int64_t count = 0;
  float scale = 1;
};

// y [cols, rows] = x [rows, cols]^T
struct TransposeArgs {
  const float* x = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  float* y = nullptr;
};

// What is known of each column of x [rows, cols], row after row added to what is there:
// max_abs[j] = max(max_abs[j], |x[r, j]|), sum_squares[j] += x[r, j]^2, sum_abs[j] += |x[r, j]|,
// the sums in float64. A NaN or infinity leaves sums that are not finite.
struct ColumnSumsArgs {
  const float* x = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  float* max_abs = nullptr;       // [cols]
  double* sum_squares = nullptr;  // [cols]
  double* sum_abs = nullptr;      // [cols]
};

// y[i, j] = x[i, j] * factors[j] / divisors[i]: a product rounded to float32, then a quotient.
// Every implementation gives the same bits. y may be x, else they do not overlap.
struct ScaleArgs {
  const float* x = nullptr;  // [rows, cols]
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const float* factors = nullptr;   // [cols], or null: all 1
  const float* divisors = nullptr;  // [rows], or null: all 1
  float* y = nullptr;               // [rows, cols]
};

// The planes of out = out->format->encode(w): w [out->rows, out->cols] rounded to nearest. Every
// implementation gives the same bits, and throws what Format::encode() throws.
struct EncodeArgs {
  const float* w = nullptr;
  QuantTensor* out = nullptr;  // planes as out->format->planes() says; they are written
};

// out [rows, weight->cols] = rows [first_row, first_row + rows) of a weight, as float32.
struct DecodeArgs {
  const QuantTensor* weight = nullptr;  // as Backend::prepare_table() made it
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  float* out = nullptr;
};

// c -= a b in float32; how sums over k are taken does not depend on m. c may not overlap a or b.
struct SubtractProductArgs {
  const float* a = nullptr;  // [m, k], rows a_stride apart
  std::int64_t a_stride = 0;
  const float* b = nullptr;  // [k, n], rows b_stride apart
  std::int64_t b_stride = 0;
  float* c = nullptr;  // [m, n], rows c_stride apart
  std::int64_t c_stride = 0;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
};

// upper = U with U^T U = h^-1 for a symmetric positive definite h, computed in float64: the factor
// by which GPTQ (arXiv 2210.17323, 3.3) makes up for rounding errors, column after column.
struct InverseFactorArgs {
  // [n, n]; what lies below the diagonal is not read. What it holds afterwards is not defined.
  double* h = nullptr;
  std::int64_t n = 0;
  float* upper = nullptr;  // [n, n], zeros below the diagonal
  // In the host's memory: false, with `upper` in no particular state, when a pivot is not positive
  // or not finite, so that h is not positive definite as far as float64 can tell.
  bool* definite = nullptr;
};

// Scores of router logits [rows, experts] (softmax over a row, or the sigmoid of each), then the
// top_k of each row (ties: the lower index); their scores, divided by their sum when `renormalize`,
// times `scale`, are the weights. `choice_bias` is added to scores where experts are compared, not
// where they are weights. With groups > 1 only experts of the top_groups best groups are compared;
// a group is as good as the sum of its two best experts (DeepSeek-V3, arXiv:2412.19437, 2.1.2).
enum class RouteScore { kSoftmax, kSigmoid };
struct MoeRouteArgs {
  const float* logits = nullptr;
  std::int64_t rows = 0;
  std::int64_t experts = 0;
  std::int64_t top_k = 0;
  RouteScore score = RouteScore::kSoftmax;
  bool renormalize = true;
  float scale = 1;
  std::span<const float> choice_bias;  // [experts] or empty, in the host's memory
  std::int64_t groups = 1;             // of equal size, one after the other
  std::int64_t top_groups = 1;
  std::int32_t* chosen = nullptr;  // [rows, top_k], in the host's memory
  float* weights = nullptr;        // [rows, top_k], in the host's memory
};

// out[i] = x[index[i]], rows of `cols`
struct GatherRowsArgs {
  const float* x = nullptr;
  std::span<const std::int32_t> index;
  std::int64_t cols = 0;
  float* out = nullptr;
};

// y[index[i]] += weights[i] * x[i], rows of `cols`; an index may not occur twice
struct ScatterAddRowsArgs {
  const float* x = nullptr;
  std::span<const std::int32_t> index;
  std::span<const float> weights;
  std::int64_t cols = 0;
  float* y = nullptr;
};

// chosen[r] = the column of the largest number in row r of x [rows, cols], the lowest among equals;
// -1 where a row holds a NaN or +infinity, or nothing but -infinity.
struct ArgmaxArgs {
  const float* x = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int32_t* chosen = nullptr;  // [rows]
};

// How one token follows from a row of logits.
struct TokenChoice {
  float temperature =
      0;            // 0: the largest, the lowest column among equals; what follows is not read
  float top_p = 1;  // (0, 1]; 1 = off
  float min_p = 0;  // [0, 1]; 0 = off
  std::int32_t top_k = 0;  // 0 = off
  double u = 0;            // in [0, 1)
};

// chosen[r] = the column that choices[r] draws from row r of x [rows, cols]: divided by the
// temperature, what top_k, top_p and min_p leave, one after the other (sampling.h), then the first
// column at which the cumulative softmax in the order of columns passes u. -1 as for ArgmaxArgs.
// Sums may be rounded to 2^-40 of the largest probability, so that another implementation draws
// another column only where u, or a filter, is that near a border.
struct SampleArgs {
  const float* x = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::span<const TokenChoice> choices;  // the host's
  std::int32_t* chosen = nullptr;        // [rows]
};

}  // namespace nibble
