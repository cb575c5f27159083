// Blocks of ggml as a Format: one plane of bytes, so that the tensors of a GGUF file are mapped as
// they are.
#include <algorithm>
#include <vector>

#include "base/error.h"
#include "formats/block_decode.h"
#include "formats/block_encode.h"
#include "formats/families.h"
#include "formats/registry.h"

namespace nibble {
namespace {

class BlockFormat final : public Format {
 public:
  explicit BlockFormat(BlockType type)
      : layout_(layout_of(type)), decode_block_(block_decoder(type)) {
    descriptor_.element = {.kind = ElementKind::kBlock, .bits = 8, .block = type};
  }

  std::string name() const override { return std::string(layout_.name); }
  const WeightDescriptor& descriptor() const override { return descriptor_; }

  std::string why_not(std::int64_t rows, std::int64_t cols) const override {
    if (rows < 1 || cols < 1) return "the matrix is empty";
    if (cols % layout_.elements == 0) return "";
    return fmt::format("blocks of {} do not divide {} columns", layout_.elements, cols);
  }

  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override {
    return {{"blocks", DType::kU8, {rows, cols / layout_.elements * layout_.bytes}}};
  }

  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                     const Codec& codec) const override;

  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out, const SpanKernels& /*spans*/) const override;

 private:
  BlockLayout layout_;
  BlockDecoder decode_block_;
  WeightDescriptor descriptor_;
};

QuantTensor BlockFormat::encode(const float* w, std::int64_t rows, std::int64_t cols,
                                const Codec& codec) const {
  const BlockEncoder encode_block = block_encoder(layout_.type);
  if (encode_block == nullptr) {
    fail(ErrorKind::kUnsupported, "{}: it can be read, but not quantized to", name());
  }
  if (codec.rounding != Rounding::kNearest) {
    fail(ErrorKind::kUnsupported, "{}: blocks are rounded to nearest only", name());
  }
  require_fits(*this, rows, cols);
  require_finite(name(), w, rows, cols);
  QuantTensor result{block_format(layout_.type), rows, cols, {}};
  result.planes.push_back(Tensor::allocate(DType::kU8, planes(rows, cols)[0].shape));
  auto* const blocks = result.planes[0].mutable_data<std::uint8_t>();
  const std::vector<float> ones(static_cast<std::size_t>(layout_.elements), 1.0f);
  codec.for_rows(rows, cols, [&](std::int64_t row_begin, std::int64_t row_end) {
    for (std::int64_t row = row_begin; row < row_end; ++row) {
      std::uint8_t* block = blocks + row * result.planes[0].dim(1);
      for (std::int64_t col = 0; col < cols; col += layout_.elements, block += layout_.bytes) {
        encode_block(w + row * cols + col,
                     codec.importance.empty() ? ones.data() : codec.importance.data() + col, block);
      }
    }
  });
  return result;
}

void BlockFormat::decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin,
                         std::int64_t count, float* out, const SpanKernels& /*spans*/) const {
  constexpr int kMostElements = 256;
  const auto* const stored =
      reinterpret_cast<const std::uint8_t*>(tensor.planes[0].bytes().data()) +
      row * tensor.planes[0].dim(1);
  float values[kMostElements];
  const std::int64_t end = begin + count;
  while (begin < end) {
    const std::int64_t index = begin / layout_.elements, skipped = begin % layout_.elements;
    const std::int64_t taken = std::min(layout_.elements - skipped, end - begin);
    const std::uint8_t* block = stored + index * layout_.bytes;
    if (taken == layout_.elements) {
      decode_block_(block, out);
    } else {
      decode_block_(block, values);
      std::copy_n(values + skipped, taken, out);
    }
    begin += taken;
    out += taken;
  }
}

}  // namespace

FormatPtr block_format(BlockType type) { return std::make_shared<BlockFormat>(type); }

}  // namespace nibble
