// Another format plus a product of low rank: what is left of the error after rounding, as far as a
// few directions hold it (ZeroQuant-V2, arXiv 2303.08302; EoRA, arXiv 2410.21271).
//
//   w = base + out * in
//
// Planes: those of the base format, then
//
//   low_rank_out  F16|BF16 [rows, rank]
//   low_rank_in   the same [rank, cols]
//
// of the type of the base's scales, or BF16 where that is neither.
#pragma once

#include "formats/format.h"

namespace nibble {

// `descriptor` as with_low_rank() makes them. kUnsupported for a base of plain floats or of low
// rank, and for ranks outside 1 ... 4096.
FormatPtr make_low_rank_format(const WeightDescriptor& descriptor);
FormatPtr with_low_rank(const FormatPtr& base, int rank);

inline bool is_low_rank(const Format& format) {
  return format.descriptor().element.kind == ElementKind::kLowRank;
}

struct LowRankParts {
  QuantTensor base;
  Tensor out, in;
};
// Of a tensor in such a format; planes are shared.
LowRankParts low_rank_parts(const QuantTensor& tensor);
// out [rows, rank] and in [rank, cols] are rounded to the type of their planes.
QuantTensor low_rank_tensor(const FormatPtr& format, const QuantTensor& base, const float* out,
                            const float* in);

// out * in, [rows, rank] and [rank, cols], is the matrix of this rank nearest to w in the sum of
// squares (up to the convergence of subspace iteration). The rank is at most min(rows, cols). Does
// not depend on the number of threads.
void approximate_by_rank(const float* w, std::int64_t rows, std::int64_t cols, std::int64_t rank,
                         ThreadPool* pool, float* out, float* in);

}  // namespace nibble
