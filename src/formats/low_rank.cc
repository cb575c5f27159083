#include "formats/low_rank.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "formats/families.h"
#include "formats/registry.h"

namespace nibble {
namespace {

constexpr int kMaxRank = 4096;

class LowRankFormat final : public Format {
 public:
  explicit LowRankFormat(const WeightDescriptor& descriptor)
      : descriptor_(descriptor), base_(make_format(*descriptor.element.base)) {
    // Whoever asks what shares a scale means the base.
    descriptor_.scheme = base_->descriptor().scheme;
  }

  std::string name() const override {
    return fmt::format("{}_lr{}", base_->name(), descriptor_.element.rank);
  }
  const WeightDescriptor& descriptor() const override { return descriptor_; }
  const FormatPtr& base() const { return base_; }

  std::string why_not(std::int64_t rows, std::int64_t cols) const override {
    if (descriptor_.element.rank > std::min(rows, cols)) {
      return fmt::format("rank {} is more than that of a {}x{} matrix", descriptor_.element.rank,
                         rows, cols);
    }
    return base_->why_not(rows, cols);
  }

  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override {
    std::vector<PlaneSpec> planes = base_->planes(rows, cols);
    const DType scales = descriptor_.scheme.scale_type;
    const DType type = scales == DType::kF16 ? DType::kF16 : DType::kBF16;
    planes.push_back({"low_rank_out", type, {rows, descriptor_.element.rank}});
    planes.push_back({"low_rank_in", type, {descriptor_.element.rank, cols}});
    return planes;
  }

  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                     const Codec& codec) const override {
    require_fits(*this, rows, cols);
    const QuantTensor base = base_->encode(w, rows, cols, codec);
    std::vector<float> rest(static_cast<std::size_t>(rows * cols));
    decode_all(base, rest.data(), codec);
    for (std::size_t i = 0; i < rest.size(); ++i) rest[i] = w[i] - rest[i];
    const std::int64_t rank = descriptor_.element.rank;
    std::vector<float> out(static_cast<std::size_t>(rows * rank));
    std::vector<float> in(static_cast<std::size_t>(rank * cols));
    approximate_by_rank(rest.data(), rows, cols, rank, codec.pool, out.data(), in.data());
    return low_rank_tensor(make_format(descriptor_), base, out.data(), in.data());
  }

  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out, const SpanKernels& spans) const override {
    const LowRankParts parts = low_rank_parts(tensor);
    base_->decode(parts.base, row, begin, count, out, spans);
    const std::int64_t rank = descriptor_.element.rank;
    std::vector<float> factors(static_cast<std::size_t>(rank));
    std::vector<float> direction(static_cast<std::size_t>(count));
    to_float(parts.out, row * rank, rank, factors.data());
    for (std::int64_t k = 0; k < rank; ++k) {
      to_float(parts.in, k * tensor.cols + begin, count, direction.data());
      for (std::int64_t j = 0; j < count; ++j) {
        out[j] += factors[static_cast<std::size_t>(k)] * direction[static_cast<std::size_t>(j)];
      }
    }
  }

 private:
  WeightDescriptor descriptor_;
  FormatPtr base_;
};

// result [rows, rank] = w [rows, cols] * v [cols, rank]
void multiply(const float* w, std::int64_t rows, std::int64_t cols, std::span<const float> v,
              std::int64_t rank, ThreadPool* pool, std::span<float> result) {
  Codec{.pool = pool}.for_rows(rows, cols * rank, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* __restrict to = result.data() + i * rank;
      std::fill_n(to, rank, 0.0f);
      for (std::int64_t j = 0; j < cols; ++j) {
        const float value = w[i * cols + j];
        const float* __restrict from = v.data() + j * rank;
        for (std::int64_t k = 0; k < rank; ++k) to[k] += value * from[k];
      }
    }
  });
}

// Gram-Schmidt over the columns of q [rows, rank], twice; columns that vanish become zeros.
void orthonormalize(std::span<float> q, std::int64_t rank) {
  const std::int64_t rows = static_cast<std::int64_t>(q.size()) / rank;
  const auto dot = [&](std::int64_t a, std::int64_t b) {
    double sum = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      const float* row = q.data() + i * rank;
      sum += double{row[a]} * double{row[b]};
    }
    return sum;
  };
  for (std::int64_t k = 0; k < rank; ++k) {
    const double before = dot(k, k);
    for (int time = 0; time < 2; ++time) {
      for (std::int64_t other = 0; other < k; ++other) {
        const auto share = static_cast<float>(dot(k, other));
        for (std::int64_t i = 0; i < rows; ++i)
          q[static_cast<std::size_t>(i * rank + k)] -=
              share * q[static_cast<std::size_t>(i * rank + other)];
      }
    }
    const double norm = dot(k, k);
    const auto factor = norm > 1e-10 * before ? static_cast<float>(1 / std::sqrt(norm)) : 0.0f;
    for (std::int64_t i = 0; i < rows; ++i) q[static_cast<std::size_t>(i * rank + k)] *= factor;
  }
}

std::vector<float> transposed(const float* w, std::int64_t rows, std::int64_t cols) {
  std::vector<float> result(static_cast<std::size_t>(rows * cols));
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      result[static_cast<std::size_t>(j * rows + i)] = w[i * cols + j];
    }
  }
  return result;
}

// Both factors of a direction get the same length, so that neither leaves its 16-bit type.
void balance(std::int64_t rows, std::int64_t cols, std::int64_t rank, float* out, float* in) {
  for (std::int64_t k = 0; k < rank; ++k) {
    double norm_out = 0, norm_in = 0;
    for (std::int64_t i = 0; i < rows; ++i)
      norm_out += double{out[i * rank + k]} * double{out[i * rank + k]};
    for (std::int64_t j = 0; j < cols; ++j)
      norm_in += double{in[k * cols + j]} * double{in[k * cols + j]};
    if (!(norm_out > 0 && norm_in > 0)) continue;
    const auto factor = static_cast<float>(std::pow(norm_in / norm_out, 0.25));
    for (std::int64_t i = 0; i < rows; ++i) out[i * rank + k] *= factor;
    for (std::int64_t j = 0; j < cols; ++j) in[k * cols + j] /= factor;
  }
}

}  // namespace

FormatPtr make_low_rank_format(const WeightDescriptor& descriptor) {
  const Element& element = descriptor.element;
  NIBBLE_CHECK(element.base != nullptr);
  const ElementKind base = element.base->element.kind;
  if (base == ElementKind::kFloat || base == ElementKind::kLowRank) {
    fail(ErrorKind::kUnsupported, "a product of low rank is added to quantized weights alone");
  }
  if (element.base->element.two_sided) {
    fail(ErrorKind::kUnsupported, "EXL3 has no place for a product of low rank");
  }
  if (element.rank < 1 || element.rank > kMaxRank) {
    fail(ErrorKind::kUnsupported, "rank {}: 1 to {} are supported", element.rank, kMaxRank);
  }
  return std::make_shared<LowRankFormat>(descriptor);
}

FormatPtr with_low_rank(const FormatPtr& base, int rank) {
  WeightDescriptor descriptor;
  descriptor.element.kind = ElementKind::kLowRank;
  descriptor.element.bits = base->descriptor().element.bits;
  descriptor.element.rank = rank;
  descriptor.element.base = std::make_shared<const WeightDescriptor>(base->descriptor());
  return make_low_rank_format(descriptor);
}

LowRankParts low_rank_parts(const QuantTensor& tensor) {
  const auto* format = dynamic_cast<const LowRankFormat*>(tensor.format.get());
  NIBBLE_CHECK(format != nullptr && tensor.planes.size() > 2);
  LowRankParts parts{{format->base(), tensor.rows, tensor.cols, tensor.planes}, {}, {}};
  parts.in = std::move(parts.base.planes.back());
  parts.base.planes.pop_back();
  parts.out = std::move(parts.base.planes.back());
  parts.base.planes.pop_back();
  return parts;
}

QuantTensor low_rank_tensor(const FormatPtr& format, const QuantTensor& base, const float* out,
                            const float* in) {
  QuantTensor result{format, base.rows, base.cols, base.planes};
  const std::vector<PlaneSpec> planes = format->planes(base.rows, base.cols);
  const std::size_t first = base.planes.size();
  result.planes.push_back(from_float(out, planes[first].dtype, planes[first].shape));
  result.planes.push_back(from_float(in, planes[first + 1].dtype, planes[first + 1].shape));
  return result;
}

void approximate_by_rank(const float* w, std::int64_t rows, std::int64_t cols, std::int64_t rank,
                         ThreadPool* pool, float* out, float* in) {
  constexpr int kIterations = 16;
  const std::vector<float> turned = transposed(w, rows, cols);
  std::vector<float> left(static_cast<std::size_t>(rows * rank));
  std::vector<float> right(static_cast<std::size_t>(cols * rank));
  std::uint32_t random = 1;
  for (float& value : right) {  // any start that is not orthogonal to what is sought
    random = random * 1664525u + 1013904223u;
    value = static_cast<float>(random >> 8) / static_cast<float>(1 << 23) - 1.0f;
  }
  for (int i = 0; i < kIterations; ++i) {
    multiply(w, rows, cols, right, rank, pool, left);
    orthonormalize(left, rank);
    multiply(turned.data(), cols, rows, left, rank, pool, right);
    if (i + 1 < kIterations) orthonormalize(right, rank);
  }
  std::ranges::copy(left, out);
  const std::vector<float> directions = transposed(right.data(), cols, rank);
  std::ranges::copy(directions, in);
  balance(rows, cols, rank, out, in);
}

}  // namespace nibble
