#include "formats/table_format.h"

#include <algorithm>

#include "base/error.h"
#include "formats/affine.h"
#include "formats/families.h"
#include "formats/table_scales.h"

namespace nibble {
namespace {

CodeTable make_table(const Element& element) {
  return element.kind == ElementKind::kCodebook ? table_of(element.codebook)
                                                : table_of(element.float_bits);
}

std::string element_name(const Element& element) {
  if (element.kind == ElementKind::kCodebook) return std::string(to_string(element.codebook));
  return fmt::format("fp{}_{}", element.bits, name_of(element.float_bits));
}

std::string scale_suffix(const Scheme& scheme) {
  std::string text;
  if (scheme.scale_type == DType::kF16) text = "_sf16";
  if (scheme.scale_type == DType::kBF16) text = "_sbf16";
  if (scheme.scale_type == DType::kF8E8M0) text = "_se8m0";
  if (scheme.scale_type == DType::kF8E4M3) text = "_se4m3";
  if (scheme.scale_type == DType::kU8) text = "_sdq8";
  if (scheme.rule == ScaleRule::kCeil) text += "_ceil";
  if (scheme.rule == ScaleRule::kLeastError) text += "_best";
  if (scheme.rule == ScaleRule::kFourOverSix) text += "_4over6";
  return text;
}

class TableFormat : public Format {
 public:
  explicit TableFormat(const WeightDescriptor& descriptor)
      : descriptor_(descriptor), table_(make_table(descriptor.element)) {
    const std::string reason = why_no_scales(table_, descriptor.scheme);
    if (!reason.empty()) fail(ErrorKind::kUnsupported, "format {}: {}", name(), reason);
  }

  std::string name() const override {
    return element_name(descriptor_.element) + granularity_suffix(descriptor_.scheme) +
           scale_suffix(descriptor_.scheme);
  }
  const WeightDescriptor& descriptor() const override { return descriptor_; }
  const CodeTable& table() const { return table_; }

  std::string why_not(std::int64_t rows, std::int64_t cols) const override {
    return why_no_groups(descriptor_.scheme, rows, cols);
  }

  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override {
    std::vector<PlaneSpec> specs = scale_planes(descriptor_.scheme, rows, cols);
    const std::int64_t words = words_per_row(descriptor_.element.bits, cols);
    specs.insert(specs.begin(), {"codes", DType::kI32, {rows, words}});
    return specs;
  }

  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols) const override {
    const std::string reason = why_not(rows, cols);
    if (!reason.empty()) fail(ErrorKind::kUsage, "{}: {}", name(), reason);
    require_finite(name(), w, rows, cols);
    QuantTensor like{make_table_format(descriptor_), rows, cols, {Tensor{}}};
    for (Tensor& plane : choose_scales(table_, descriptor_.scheme, w, rows, cols)) {
      like.planes.push_back(std::move(plane));
    }
    return encode_under_scales(like, w);
  }

  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out) const override;

 private:
  WeightDescriptor descriptor_;
  CodeTable table_;
};

// Calls body(first, last, scale) for each run of columns in [begin, end) of a row under one scale.
template <class Body>
void for_each_run(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t end,
                  const Body& body) {
  const Scheme& scheme = tensor.format->descriptor().scheme;
  const bool whole = scheme.granularity == Granularity::kTensor;
  const std::int64_t length = group_length(scheme, tensor.cols);
  const std::int64_t first = whole ? 0 : row * (tensor.cols / length);
  while (begin < end) {
    const std::int64_t group = begin / length;
    const std::int64_t last = std::min(end, (group + 1) * length);
    body(begin, last, scale_at(tensor, first + group));
    begin = last;
  }
}

void TableFormat::decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin,
                         std::int64_t count, float* out) const {
  constexpr std::int64_t kChunk = 256;
  std::uint8_t buffer[kChunk];
  const int bits = descriptor_.element.bits;
  const std::byte* codes = tensor.planes[0].bytes().data() + row * tensor.planes[0].dim(1) * 4;
  const float* values = table_.values().data();
  for_each_run(tensor, row, begin, begin + count,
               [&](std::int64_t first, std::int64_t last, float scale) {
                 for (; first < last; first += kChunk) {
                   const std::int64_t n = std::min(kChunk, last - first);
                   unpack_codes(codes, bits, first, n, buffer);
                   for (std::int64_t i = 0; i < n; ++i) *out++ = values[buffer[i]] * scale;
                 }
               });
}

}  // namespace

const CodeTable& table_of(const Format& format) {
  const auto* table_format = dynamic_cast<const TableFormat*>(&format);
  NIBBLE_CHECK(table_format != nullptr);
  return table_format->table();
}

std::vector<float> table_scales_of(const QuantTensor& tensor) {
  std::vector<float> scales(static_cast<std::size_t>(tensor.planes[1].elements()));
  for (std::size_t i = 0; i < scales.size(); ++i) {
    scales[i] = scale_at(tensor, static_cast<std::int64_t>(i));
  }
  return scales;
}

QuantTensor encode_under_scales(const QuantTensor& like, const float* w) {
  const CodeTable& table = table_of(*like.format);
  const int bits = like.format->descriptor().element.bits;
  const std::int64_t words = words_per_row(bits, like.cols);
  QuantTensor result = like;
  result.planes[0] = Tensor::allocate(DType::kI32, {like.rows, words});
  auto* packed = result.planes[0].mutable_data<std::uint32_t>();
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(like.cols));
  for (std::int64_t row = 0; row < like.rows; ++row) {
    for_each_run(like, row, 0, like.cols, [&](std::int64_t first, std::int64_t last, float scale) {
      table.encode(w + row * like.cols + first, last - first, scale, codes.data() + first);
    });
    pack_codes(codes, bits, packed + row * words);
  }
  return result;
}

FormatPtr make_table_format(const WeightDescriptor& descriptor) {
  return std::make_shared<TableFormat>(descriptor);
}

}  // namespace nibble
