#include "formats/table_format.h"

#include "base/error.h"
#include "formats/affine.h"
#include "formats/group_layout.h"
#include "formats/stochastic.h"
#include "formats/table_scales.h"

namespace nibble {
namespace {

CodeTable make_table(const Element& element) {
  return element.kind == ElementKind::kCodebook ? table_of(element.codebook)
                                                : table_of(element.float_bits);
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

  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                     const Codec& codec) const override {
    require_fits(*this, rows, cols);
    QuantTensor like{make_table_format(descriptor_), rows, cols, {Tensor{}}};
    ChosenScales chosen = choose_scales(*this, table_, w, rows, cols, codec);
    for (Tensor& plane : chosen.planes) like.planes.push_back(std::move(plane));
    if (chosen.codes.elements() == 0 || codec.rounding != Rounding::kNearest) {
      return encode_under_scales(like, w, codec);
    }
    like.planes[0] = std::move(chosen.codes);
    return like;
  }

  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out, const SpanKernels& spans) const override;

 private:
  WeightDescriptor descriptor_;
  CodeTable table_;
};

void TableFormat::decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin,
                         std::int64_t count, float* out, const SpanKernels& spans) const {
  const int bits = descriptor_.element.bits;
  const GroupLayout layout = layout_of(descriptor_.scheme, tensor.rows, tensor.cols);
  const TableView table = table_.view();
  float scales[kDecodedAtOnce];
  decode_row(
      layout, tensor.planes[0], bits, row, begin, count, spans,
      [&](std::int64_t group, std::int64_t groups, std::int64_t length, const std::uint8_t* codes) {
        scales_at(tensor, layout.first(row) + group, groups, scales, spans);
        spans.table_values(table, scales, codes, groups, length, out);
        out += groups * length;
      });
}

}  // namespace

const CodeTable& table_of(const Format& format) {
  const auto* table_format = dynamic_cast<const TableFormat*>(&format);
  NIBBLE_CHECK(table_format != nullptr);
  return table_format->table();
}

std::vector<float> table_scales_of(const QuantTensor& tensor, const SpanKernels& spans) {
  std::vector<float> scales(static_cast<std::size_t>(tensor.planes[1].elements()));
  scales_at(tensor, 0, tensor.planes[1].elements(), scales.data(), spans);
  return scales;
}

void round_to_table(const TableView& table, const float* scales, const float* w,
                    std::int64_t groups, std::int64_t length, std::int64_t index,
                    const Codec& codec, std::uint8_t* codes) {
  if (codec.rounding == Rounding::kStochastic) {
    return stochastic_table_codes(table, scales, w, groups, length, codec.seed, index, codes);
  }
  codec.spans->table_codes(table, scales, w, groups, length, codes);
}

QuantTensor encode_under_scales(const QuantTensor& like, const float* w, const Codec& codec) {
  const TableView table = table_of(*like.format).view();
  const WeightDescriptor& descriptor = like.format->descriptor();
  const GroupLayout layout = layout_of(descriptor.scheme, like.rows, like.cols);
  const int bits = descriptor.element.bits;
  QuantTensor result = like;
  result.planes[0] = Tensor::allocate(DType::kI32, {like.rows, words_per_row(bits, like.cols)});
  encode_rows(layout, like.rows, bits, result.planes[0].mutable_data<std::uint32_t>(), codec,
              [&](std::int64_t row, std::int64_t group, std::int64_t groups, std::int64_t length,
                  std::int64_t col, std::uint8_t* codes) {
                std::vector<float> scales(static_cast<std::size_t>(groups));  // they stay near
                scales_at(like, layout.first(row) + group, groups, scales.data(), *codec.spans);
                const float* from = w + row * like.cols + col;
                round_to_table(table, scales.data(), from, groups, length, row * like.cols + col,
                               codec, codes);
              });
  return result;
}

FormatPtr make_table_format(const WeightDescriptor& descriptor) {
  return std::make_shared<TableFormat>(descriptor);
}

}  // namespace nibble
