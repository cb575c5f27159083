// The way back: integers and small floats as the blocks that hold the same values.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "formats/affine.h"
#include "formats/block_bytes.h"
#include "formats/block_forms.h"
#include "formats/block_store.h"
#include "formats/registry.h"

namespace nibble {
namespace {

constexpr int kRun = 32;  // elements under one scale of the blocks for integers

// Rows of codes as bytes.
std::vector<std::uint8_t> codes_of(const QuantTensor& weight, std::int64_t row) {
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(weight.cols));
  const Tensor words = weight.planes[0].rows(row, row + 1);
  unpack_codes(words.bytes().data(), weight.format->descriptor().element.bits, 0, weight.cols,
               codes.data());
  return codes;
}

bool is_half(float value) {
  const float half = to_float(to_f16(value));
  return half == value && std::isfinite(half);
}

// Integers with what they share.
class Integers {
 public:
  explicit Integers(const QuantTensor& weight)
      : weight_(weight),
        scheme_(weight.format->descriptor().scheme),
        params_(affine_params_of(weight)),
        groups_(groups_per_row(scheme_, weight.cols)) {}

  // Whether each run of 32 has one scale, which a half holds.
  bool fits() const {
    const bool grouped =
        scheme_.granularity == Granularity::kGroup || scheme_.granularity == Granularity::kBlock;
    if (weight_.cols % kRun != 0 || (grouped && scheme_.group % kRun != 0)) return false;
    return std::ranges::all_of(params_, [](const AffineParams& p) { return is_half(p.scale); });
  }

  const AffineParams& at(std::int64_t row, std::int64_t col) const {
    std::int64_t first = 0, group = 0;
    if (scheme_.granularity == Granularity::kChannel) first = row;
    if (scheme_.granularity == Granularity::kGroup) {
      first = row * groups_;
      group = col / scheme_.group;
    }
    if (scheme_.granularity == Granularity::kBlock) {
      first = row / scheme_.block_rows * groups_;
      group = col / scheme_.group;
    }
    return params_[static_cast<std::size_t>(first + group)];
  }

  // The smallest type that holds all; nothing where there is none.
  std::optional<BlockType> type() const {
    int low = 0, high = 0, most = 0;
    bool half_offsets = true;
    for (std::int64_t row = 0; row < weight_.rows; ++row) {
      const std::vector<std::uint8_t> codes = codes_of(weight_, row);
      for (std::int64_t col = 0; col < weight_.cols; ++col) {
        const AffineParams& params = at(row, col);
        const int code = codes[static_cast<std::size_t>(col)];
        low = std::min(low, code - params.zero);
        high = std::max(high, code - params.zero);
        most = std::max(most, code);
      }
    }
    for (const AffineParams& params : params_) {
      half_offsets = half_offsets && params.scale > 0 &&
                     is_half(-params.scale * static_cast<float>(params.zero));
    }
    if (low >= -8 && high <= 7) return BlockType::kQ4_0;
    if (half_offsets && most <= 15) return BlockType::kQ4_1;
    if (low >= -16 && high <= 15) return BlockType::kQ5_0;
    if (half_offsets && most <= 31) return BlockType::kQ5_1;
    if (low >= -128 && high <= 127) return BlockType::kQ8_0;
    return std::nullopt;
  }

  // One row of blocks.
  void store(BlockType type, std::int64_t row, std::uint8_t* block) const {
    const std::vector<std::uint8_t> codes = codes_of(weight_, row);
    for (std::int64_t col = 0; col < weight_.cols; col += kRun, block += layout_of(type).bytes) {
      store_run(type, at(row, col), codes.data() + col, block);
    }
  }

 private:
  static void store_run(BlockType type, const AffineParams& params, const std::uint8_t* codes,
                        std::uint8_t* block) {
    store_f16(params.scale, block);
    if (type == BlockType::kQ8_0) {
      for (int i = 0; i < kRun; ++i) {
        block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(codes[i] - params.zero));
      }
      return;
    }
    const bool has_offset = type == BlockType::kQ4_1 || type == BlockType::kQ5_1;
    const bool has_fifth = type == BlockType::kQ5_0 || type == BlockType::kQ5_1;
    if (has_offset) store_f16(-params.scale * static_cast<float>(params.zero), block + 2);
    const int shift = has_offset ? 0 : (has_fifth ? 16 : 8) - params.zero;
    std::uint8_t* const high = block + (has_offset ? 4 : 2);
    const std::uint32_t fifth =
        store_nibbles(high + (has_fifth ? 4 : 0), [&](int i) { return codes[i] + shift; });
    if (has_fifth) std::memcpy(high, &fifth, sizeof fifth);
  }

  const QuantTensor& weight_;
  Scheme scheme_;
  std::vector<AffineParams> params_;
  std::int64_t groups_;
};

QuantTensor empty_blocks(const QuantTensor& weight, BlockType type) {
  QuantTensor blocks{block_format(type), weight.rows, weight.cols, {}};
  for (const PlaneSpec& spec : blocks.format->planes(weight.rows, weight.cols)) {
    blocks.planes.push_back(Tensor::allocate(spec.dtype, spec.shape));
  }
  return blocks;
}

std::optional<BlockForm> blocks_of_integers(const QuantTensor& weight) {
  const Integers integers(weight);
  if (!integers.fits()) return std::nullopt;
  const auto type = integers.type();
  if (!type) return std::nullopt;
  QuantTensor blocks = empty_blocks(weight, *type);
  auto* to = blocks.planes[0].mutable_data<std::uint8_t>();
  for (std::int64_t row = 0; row < weight.rows; ++row, to += blocks.planes[0].dim(1)) {
    integers.store(*type, row, to);
  }
  return BlockForm{std::move(blocks), 1};
}

// MXFP4 and NVFP4, whose scales are the same bytes in both forms.
std::optional<BlockForm> blocks_of_fp4(const QuantTensor& weight) {
  const Scheme& scheme = weight.format->descriptor().scheme;
  const bool is_mx = scheme.group == 32 && scheme.scale_type == DType::kF8E8M0 &&
                     scheme.second_level == SecondLevel::kNone;
  const bool is_nv = scheme.group == 16 && scheme.scale_type == DType::kF8E4M3 &&
                     scheme.second_level == SecondLevel::kTensor;
  if (scheme.granularity != Granularity::kGroup || !(is_mx || is_nv)) return std::nullopt;
  const BlockType type = is_mx ? BlockType::kMxfp4 : BlockType::kNvfp4;
  QuantTensor blocks{block_format(type), weight.rows, weight.cols, {}};
  if (!blocks.format->why_not(weight.rows, weight.cols).empty()) return std::nullopt;
  const auto scales = weight.planes[1].bytes();
  const auto no_number = std::byte{static_cast<unsigned char>(is_mx ? 255 : 127)};
  if (std::ranges::any_of(scales, [&](std::byte s) { return s >= no_number; })) return std::nullopt;
  blocks = empty_blocks(weight, type);
  auto* to = blocks.planes[0].mutable_data<std::uint8_t>();
  const auto* scale = reinterpret_cast<const std::uint8_t*>(scales.data());
  const std::int64_t step = layout_of(type).elements;
  for (std::int64_t row = 0; row < weight.rows; ++row) {
    const std::vector<std::uint8_t> codes = codes_of(weight, row);
    for (std::int64_t col = 0; col < weight.cols; col += step, to += layout_of(type).bytes) {
      const std::uint8_t* run = codes.data() + col;
      const std::int64_t count = step / scheme.group;
      std::copy_n(scale, count, to);
      scale += count;
      if (is_mx) store_nibbles(to + 1, [&](int i) { return run[i]; });
      for (std::int64_t k = 0; is_nv && k < step / 2; ++k) {
        const std::uint8_t* half = run + k / 8 * 16 + k % 8;
        to[4 + k] = static_cast<std::uint8_t>(half[0] | half[8] << 4);
      }
    }
  }
  float tensor_scale = 1;
  if (is_nv) std::memcpy(&tensor_scale, weight.planes[2].bytes().data(), sizeof tensor_scale);
  return BlockForm{std::move(blocks), tensor_scale};
}

}  // namespace

std::optional<BlockForm> block_form_of(const QuantTensor& weight) {
  if (weight.format->is_block()) return BlockForm{weight, 1};
  if (weight.format->is_affine()) return blocks_of_integers(weight);
  const Element& element = weight.format->descriptor().element;
  const FormatPtr mx = parse_weight_format("fp4_e2m1_g32_se8m0");
  if (element == mx->descriptor().element) return blocks_of_fp4(weight);
  return std::nullopt;
}

}  // namespace nibble
