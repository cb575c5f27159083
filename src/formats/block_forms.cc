#include "formats/block_forms.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "formats/affine.h"
#include "formats/block_bytes.h"
#include "formats/registry.h"

namespace nibble {
namespace {

struct PlainForm {
  BlockType type;
  const char* plain;  // name of the format of the grammar
};
constexpr PlainForm kForms[] = {{BlockType::kQ4_0, "int4_g32_sym_full"},
                                {BlockType::kQ5_0, "int5_g32_sym_full"},
                                {BlockType::kQ8_0, "int8_g32_sym_strict"},
                                {BlockType::kMxfp4, "fp4_e2m1_g32_se8m0"},
                                {BlockType::kNvfp4, "fp4_e2m1_g16_se4m3"}};

// Where the bits of element i of a block are: its nibble, and for Q5_0 its fifth bit.
std::uint8_t code_of(BlockType type, const std::uint8_t* block, int i) {
  const auto nibble = [&](const std::uint8_t* codes) { return codes[i % 16] >> 4 * (i / 16) & 15; };
  switch (type) {
    case BlockType::kQ4_0:
      return static_cast<std::uint8_t>(nibble(block + 2));
    case BlockType::kQ5_0:
      return static_cast<std::uint8_t>(nibble(block + 6) | (block[2 + i / 8] >> (i % 8) & 1) << 4);
    case BlockType::kQ8_0:
      return block[2 + i] ^ 0x80;
    case BlockType::kMxfp4:
      return static_cast<std::uint8_t>(nibble(block + 1));
    default:
      return static_cast<std::uint8_t>(block[4 + i / 16 * 8 + i % 8] >> 4 * (i / 8 % 2) & 15);
  }
}

// Whether a stored scale means the same in both.
bool is_same_scale(BlockType type, const std::uint8_t* scale) {
  if (type == BlockType::kMxfp4) return *scale != 255;
  if (type == BlockType::kNvfp4) return *scale < 127;
  return (load_u16(scale) & 0x7c00) != 0x7c00;  // a finite half
}

// One row; false when a scale means something else in the other form.
bool row_of_blocks(const BlockLayout& layout, const WeightDescriptor& plain,
                   const std::uint8_t* stored, std::int64_t cols, std::uint32_t* codes,
                   std::uint8_t* scales) {
  const auto scale_bytes = static_cast<std::int64_t>(dtype_size(plain.scheme.scale_type));
  const std::int64_t bytes = layout.elements / plain.scheme.group * scale_bytes;
  std::vector<std::uint8_t> unpacked(static_cast<std::size_t>(cols));
  for (std::int64_t col = 0; col < cols; col += layout.elements, stored += layout.bytes) {
    for (int i = 0; i < layout.elements; ++i) {
      unpacked[static_cast<std::size_t>(col + i)] = code_of(layout.type, stored, i);
    }
    for (std::int64_t i = 0; i < bytes; i += scale_bytes) {
      if (!is_same_scale(layout.type, stored + i)) return false;
    }
    std::memcpy(scales, stored, static_cast<std::size_t>(bytes));
    scales += bytes;
  }
  pack_codes(unpacked, plain.element.bits, codes);
  return true;
}

}  // namespace

FormatPtr plain_format_of_blocks(const Format& blocks) {
  if (!blocks.is_block()) return nullptr;
  const auto form = std::ranges::find(kForms, blocks.descriptor().element.block, &PlainForm::type);
  return form == std::end(kForms) ? nullptr : parse_weight_format(form->plain);
}

std::optional<QuantTensor> plain_form_of_blocks(const QuantTensor& blocks, float tensor_scale,
                                                const Codec& codec) {
  const FormatPtr format = plain_format_of_blocks(*blocks.format);
  if (format == nullptr || !format->why_not(blocks.rows, blocks.cols).empty()) return std::nullopt;
  QuantTensor plain{format, blocks.rows, blocks.cols, {}};
  for (const PlaneSpec& spec : format->planes(plain.rows, plain.cols)) {
    plain.planes.push_back(Tensor::allocate(spec.dtype, spec.shape));
  }
  const BlockLayout& layout = layout_of(blocks.format->descriptor().element.block);
  const auto* stored = reinterpret_cast<const std::uint8_t*>(blocks.planes[0].bytes().data());
  auto* codes = plain.planes[0].mutable_data<std::uint32_t>();
  auto* scales = static_cast<std::uint8_t*>(plain.planes[1].address());
  const std::int64_t row_bytes =
      plain.planes[1].dim(1) * static_cast<std::int64_t>(dtype_size(plain.planes[1].dtype()));
  std::atomic<bool> same = true;
  codec.for_rows(plain.rows, plain.cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      if (!row_of_blocks(layout, format->descriptor(), stored + row * blocks.planes[0].dim(1),
                         plain.cols, codes + row * plain.planes[0].dim(1),
                         scales + row * row_bytes)) {
        same = false;
      }
    }
  });
  if (!same) return std::nullopt;
  if (plain.planes.size() > 2) plain.planes[2].mutable_data<float>()[0] = tensor_scale;
  return plain;
}

}  // namespace nibble
