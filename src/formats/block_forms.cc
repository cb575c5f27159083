#include "formats/block_forms.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "formats/affine.h"
#include "formats/block_bytes.h"
#include "formats/registry.h"

namespace nibble {
namespace {

// How a type lies in its blocks: `group` elements under one scale.
struct PlainBlock {
  BlockType type;
  const char* plain;  // name of the format of the grammar
  int bits;
  int group;
  int scale_bytes;
};
constexpr PlainBlock kForms[] = {{BlockType::kQ4_0, "int4_g32_sym_full", 4, 32, 2},
                                 {BlockType::kQ5_0, "int5_g32_sym_full", 5, 32, 2},
                                 {BlockType::kQ8_0, "int8_g32_sym_strict", 8, 32, 2},
                                 {BlockType::kMxfp4, "fp4_e2m1_g32_se8m0", 4, 32, 1},
                                 {BlockType::kNvfp4, "fp4_e2m1_g16_se4m3", 4, 16, 1}};

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

void put_code(BlockType type, int code, int i, std::uint8_t* block) {
  const auto put = [&](std::uint8_t& byte, int bits) {
    byte = static_cast<std::uint8_t>(byte | bits);
  };
  switch (type) {
    case BlockType::kQ4_0:
      return put(block[2 + i % 16], code << 4 * (i / 16));
    case BlockType::kQ5_0:
      put(block[2 + i / 8], code >> 4 << (i % 8));
      return put(block[6 + i % 16], (code & 15) << 4 * (i / 16));
    case BlockType::kQ8_0:
      return put(block[2 + i], code ^ 0x80);
    case BlockType::kMxfp4:
      return put(block[1 + i % 16], code << 4 * (i / 16));
    default:
      return put(block[4 + i / 16 * 8 + i % 8], code << 4 * (i / 8 % 2));
  }
}

// Whether a byte of a scale means the same in both.
bool plain_scale(BlockType type, std::uint8_t byte) {
  if (type == BlockType::kMxfp4) return byte != 255;
  return type != BlockType::kNvfp4 || byte < 127;
}

bool finite_half(const std::uint8_t* scale) { return (load_u16(scale) & 0x7c00) != 0x7c00; }

// One row; false when a scale means something else in the other form.
bool row_of_blocks(const PlainBlock& form, const std::uint8_t* stored, std::int64_t cols,
                   std::uint32_t* codes, std::uint8_t* scales) {
  const BlockLayout& layout = layout_of(form.type);
  std::vector<std::uint8_t> unpacked(static_cast<std::size_t>(cols));
  for (std::int64_t col = 0; col < cols; col += layout.elements, stored += layout.bytes) {
    for (int i = 0; i < layout.elements; ++i) {
      unpacked[static_cast<std::size_t>(col + i)] = code_of(form.type, stored, i);
    }
    const int count = layout.elements / form.group * form.scale_bytes;
    for (int i = 0; i < count; i += form.scale_bytes) {
      const bool same =
          form.scale_bytes == 2 ? finite_half(stored + i) : plain_scale(form.type, stored[i]);
      if (!same) return false;
    }
    std::memcpy(scales, stored, static_cast<std::size_t>(count));
    scales += count;
  }
  pack_codes(unpacked, form.bits, codes);
  return true;
}

// The scale of column `col`, as stored, and whether the blocks can hold it.
const std::uint8_t* scale_at(const QuantTensor& plain, std::int64_t row, std::int64_t col) {
  const Scheme& scheme = plain.format->descriptor().scheme;
  const Tensor& scales = plain.planes[1];
  std::int64_t at = 0;
  if (scheme.granularity == Granularity::kChannel) at = row;
  if (scheme.granularity == Granularity::kGroup) at = row * scales.dim(1) + col / scheme.group;
  return reinterpret_cast<const std::uint8_t*>(scales.bytes().data()) +
         at * static_cast<std::int64_t>(dtype_size(scales.dtype()));
}

// The form that holds a format; null when none does.
const PlainBlock* form_for(const QuantTensor& plain) {
  const WeightDescriptor& d = plain.format->descriptor();
  for (const PlainBlock& form : kForms) {
    const WeightDescriptor& target = parse_weight_format(form.plain)->descriptor();
    if (!(d.element == target.element) || !d.scheme.symmetric) continue;
    if (d.scheme.scale_type != target.scheme.scale_type ||
        d.scheme.second_level != target.scheme.second_level) {
      continue;
    }
    if (d.scheme.granularity == Granularity::kBlock) continue;
    const bool grouped = d.scheme.granularity == Granularity::kGroup;
    if (grouped && d.scheme.group % form.group != 0) continue;
    if (plain.cols % layout_of(form.type).elements != 0) continue;
    return &form;
  }
  return nullptr;
}

}  // namespace

std::optional<QuantTensor> plain_form_of_blocks(const QuantTensor& blocks, float tensor_scale) {
  if (!blocks.format->is_block()) return std::nullopt;
  const auto form =
      std::ranges::find(kForms, blocks.format->descriptor().element.block, &PlainBlock::type);
  if (form == std::end(kForms)) return std::nullopt;
  QuantTensor plain{parse_weight_format(form->plain), blocks.rows, blocks.cols, {}};
  if (!plain.format->why_not(plain.rows, plain.cols).empty()) return std::nullopt;
  for (const PlaneSpec& spec : plain.format->planes(plain.rows, plain.cols)) {
    plain.planes.push_back(Tensor::allocate(spec.dtype, spec.shape));
  }
  const auto* stored = reinterpret_cast<const std::uint8_t*>(blocks.planes[0].bytes().data());
  auto* codes = plain.planes[0].mutable_data<std::uint32_t>();
  auto* scales = static_cast<std::uint8_t*>(plain.planes[1].address());
  for (std::int64_t row = 0; row < plain.rows; ++row) {
    if (!row_of_blocks(*form, stored + row * blocks.planes[0].dim(1), plain.cols,
                       codes + row * plain.planes[0].dim(1),
                       scales + row * plain.planes[1].dim(1) * form->scale_bytes)) {
      return std::nullopt;
    }
  }
  if (plain.planes.size() > 2) plain.planes[2].mutable_data<float>()[0] = tensor_scale;
  return plain;
}

std::optional<QuantTensor> blocks_of_plain_form(const QuantTensor& plain) {
  const PlainBlock* form = form_for(plain);
  if (form == nullptr) return std::nullopt;
  const BlockLayout& layout = layout_of(form->type);
  QuantTensor blocks{block_format(form->type), plain.rows, plain.cols, {}};
  blocks.planes.push_back(
      Tensor::allocate(DType::kU8, blocks.format->planes(plain.rows, plain.cols)[0].shape));
  auto* block = blocks.planes[0].mutable_data<std::uint8_t>();
  std::fill_n(block, blocks.planes[0].elements(), std::uint8_t{0});
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(plain.cols));
  for (std::int64_t row = 0; row < plain.rows; ++row) {
    unpack_codes(plain.planes[0].bytes().data() + row * plain.planes[0].dim(1) * 4, form->bits, 0,
                 plain.cols, codes.data());
    for (std::int64_t col = 0; col < plain.cols; col += layout.elements, block += layout.bytes) {
      for (int i = 0; i < layout.elements; i += form->group) {
        const std::uint8_t* scale = scale_at(plain, row, col + i);
        if (form->scale_bytes == 1 && !plain_scale(form->type, *scale)) return std::nullopt;
        std::memcpy(block + i / form->group * form->scale_bytes, scale,
                    static_cast<std::size_t>(form->scale_bytes));
      }
      for (int i = 0; i < layout.elements; ++i) {
        put_code(form->type, codes[static_cast<std::size_t>(col + i)], i, block);
      }
    }
  }
  return blocks;
}

}  // namespace nibble
