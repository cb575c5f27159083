#include "formats/format.h"

#include "base/error.h"
#include "formats/registry.h"

namespace nibble {

bool operator==(const ColumnRun& a, const ColumnRun& b) {
  return a.bits == b.bits && a.group == b.group && a.groups == b.groups && a.percent == b.percent;
}

bool operator==(const Element& a, const Element& b) {
  if (a.kind != b.kind || a.bits != b.bits) return false;
  switch (a.kind) {
    case ElementKind::kFloat:
      return a.float_type == b.float_type;
    case ElementKind::kInt:
    case ElementKind::kIntSplit:
      return true;
    case ElementKind::kTrellis:
      return a.two_sided == b.two_sided;
    case ElementKind::kFloatBits:
      return a.float_bits == b.float_bits;
    case ElementKind::kCodebook:
      return a.codebook == b.codebook;
    case ElementKind::kFitted:
      return a.fit == b.fit;
    case ElementKind::kLowRank:
      return a.rank == b.rank && *a.base == *b.base;
    case ElementKind::kBlock:
      return a.block == b.block;
    case ElementKind::kMixed:
      return a.runs == b.runs;
  }
  return false;
}

bool operator==(const Scheme& a, const Scheme& b) {
  if (a.granularity != b.granularity || a.symmetric != b.symmetric) return false;
  if (a.scale_type != b.scale_type || a.rule != b.rule) return false;
  if (a.second_level != b.second_level) return false;
  if (a.own_tables != b.own_tables || a.outliers != b.outliers) return false;
  if (a.granularity == Granularity::kBlock && a.block_rows != b.block_rows) return false;
  const bool grouped = a.granularity == Granularity::kGroup || a.granularity == Granularity::kBlock;
  return !grouped || a.group == b.group;
}

bool operator==(const WeightDescriptor& a, const WeightDescriptor& b) {
  if (!(a.element == b.element)) return false;
  const ElementKind kind = a.element.kind;
  const bool no_scheme =
      kind == ElementKind::kFloat || kind == ElementKind::kBlock || kind == ElementKind::kMixed;
  return no_scheme || a.scheme == b.scheme;
}

std::size_t QuantTensor::byte_size() const {
  std::size_t bytes = 0;
  for (const PlaneSpec& plane : format->planes(rows, cols)) {
    bytes += static_cast<std::size_t>(element_count(plane.shape)) * dtype_size(plane.dtype);
  }
  return bytes;
}

void validate(const QuantTensor& tensor) {
  if (tensor.format == nullptr) fail(ErrorKind::kCorrupt, "weight: it has no format");
  const std::string name = tensor.format->name();
  const std::string reason = tensor.format->why_not(tensor.rows, tensor.cols);
  if (!reason.empty()) {
    fail(ErrorKind::kCorrupt, "weight [{}, {}] in {}: {}", tensor.rows, tensor.cols, name, reason);
  }
  const std::vector<PlaneSpec> specs = tensor.format->planes(tensor.rows, tensor.cols);
  if (tensor.planes.size() != specs.size()) {
    fail(ErrorKind::kCorrupt, "weight [{}, {}] in {}: {} planes instead of {}", tensor.rows,
         tensor.cols, name, tensor.planes.size(), specs.size());
  }
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const Tensor& plane = tensor.planes[i];
    if (plane.empty() || plane.dtype() != specs[i].dtype || plane.shape() != specs[i].shape) {
      fail(ErrorKind::kCorrupt, "weight [{}, {}] in {}: plane '{}' is {} {} instead of {} {}",
           tensor.rows, tensor.cols, name, specs[i].name,
           plane.empty() ? "absent" : to_string(plane.dtype()), to_string(plane.shape()),
           to_string(specs[i].dtype), to_string(specs[i].shape));
    }
  }
}

void Format::decode_rows(const QuantTensor& tensor, std::int64_t first, std::int64_t rows,
                         float* out, const SpanKernels& spans) const {
  for (std::int64_t row = 0; row < rows; ++row) {
    decode(tensor, first + row, 0, tensor.cols, out + row * tensor.cols, spans);
  }
}

void decode_rows(const QuantTensor& tensor, std::int64_t first, std::int64_t rows, float* out,
                 const Codec& codec) {
  const std::int64_t block = tensor.format->row_block();
  const std::int64_t first_block = first / block, last_block = (first + rows - 1) / block;
  codec.for_rows(last_block - first_block + 1, block * tensor.cols,
                 [&](std::int64_t begin, std::int64_t end) {
                   const std::int64_t from = std::max(first, (first_block + begin) * block);
                   const std::int64_t to = std::min(first + rows, (first_block + end) * block);
                   tensor.format->decode_rows(tensor, from, to - from,
                                              out + (from - first) * tensor.cols, *codec.spans);
                 });
}

void decode_all(const QuantTensor& tensor, float* out, const Codec& codec) {
  decode_rows(tensor, 0, tensor.rows, out, codec);
}

double bits_per_weight(const Format& format, std::int64_t rows, std::int64_t cols) {
  double bytes = 0;
  for (const PlaneSpec& plane : format.planes(rows, cols)) {
    bytes += static_cast<double>(element_count(plane.shape)) *
             static_cast<double>(dtype_size(plane.dtype));
  }
  return bytes * 8 / (static_cast<double>(rows) * static_cast<double>(cols));
}

QuantTensor dense(Tensor tensor) {
  if (tensor.shape().size() != 2 || !is_float_weight(tensor.dtype())) {
    fail(ErrorKind::kCorrupt, "weight: {} {} is no matrix of F16, BF16 or F32",
         to_string(tensor.dtype()), to_string(tensor.shape()));
  }
  WeightDescriptor descriptor;
  descriptor.element.bits = static_cast<int>(8 * dtype_size(tensor.dtype()));
  descriptor.element.float_type = tensor.dtype();
  QuantTensor result;
  result.format = make_format(descriptor);
  result.rows = tensor.dim(0);
  result.cols = tensor.dim(1);
  result.planes.push_back(std::move(tensor));
  return result;
}

}  // namespace nibble
