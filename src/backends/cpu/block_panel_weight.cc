#include "backends/cpu/block_panel_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "backends/cpu/rounding.h"
#include "formats/block_bytes.h"
#include "formats/block_decode.h"

namespace nibble::cpu {
namespace {

// What a super-block says of its elements.
struct SuperBlockParts {
  std::array<std::uint8_t, kSuperBlock> codes;
  std::array<std::uint8_t, kSuperBlock / 16> scales = {};  // by run, bits of signed bytes
  std::array<std::uint8_t, kSuperBlock / 32> minimums = {};
  const std::uint8_t* d = nullptr;  // f16
  const std::uint8_t* dmin = nullptr;
};

// Codes of Q4_K and Q5_K: of each 64 elements, 32 bytes hold two runs of 32.
void take_k45(const std::uint8_t* block, bool fifth_bits, SuperBlockParts& parts) {
  const std::uint8_t* const high = block + 16;
  const std::uint8_t* const codes = block + (fifth_bits ? 48 : 16);
  parts.d = block;
  parts.dmin = block + 2;
  for (int j = 0; j < 8; ++j) {
    const auto run = static_cast<std::size_t>(j);
    parts.scales[run] = static_cast<std::uint8_t>(scale_of_k4(block + 4, j));
    parts.minimums[run] = static_cast<std::uint8_t>(minimum_of_k4(block + 4, j));
    for (int i = 0; i < 32; ++i) {
      const int fifth = fifth_bits ? (high[i] >> j & 1) << 4 : 0;
      parts.codes[static_cast<std::size_t>(32 * j + i)] =
          static_cast<std::uint8_t>((codes[j / 2 * 32 + i] >> 4 * (j % 2) & 15) | fifth);
    }
  }
}

void take_q6(const std::uint8_t* block, SuperBlockParts& parts) {
  parts.d = block + 208;
  std::copy_n(block + 192, 16, parts.scales.begin());
  for (int i = 0; i < 256; ++i) {
    const int part = i / 128, run = i / 32 % 4, at = i % 32;
    const int low = block[64 * part + at + 32 * (run % 2)] >> 4 * (run / 2) & 15;
    const int high = block[128 + 32 * part + at] >> 2 * run & 3;
    parts.codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(low | high << 4);
  }
}

void take_iq4_xs(const std::uint8_t* block, SuperBlockParts& parts) {
  parts.d = block;
  for (int j = 0; j < 8; ++j) {
    parts.scales[static_cast<std::size_t>(j)] =
        static_cast<std::uint8_t>(scale_of_iq4_xs(load_u16(block + 2), block + 4, j));
    for (int i = 0; i < 32; ++i) {
      parts.codes[static_cast<std::size_t>(32 * j + i)] =
          block[8 + 16 * j + i % 16] >> (i < 16 ? 0 : 4) & 15;
    }
  }
}

void take(BlockStorage type, const std::uint8_t* block, SuperBlockParts& parts) {
  switch (type) {
    case BlockStorage::kQ6_K:
      return take_q6(block, parts);
    case BlockStorage::kIq4Xs:
      return take_iq4_xs(block, parts);
    default:
      return take_k45(block, type == BlockStorage::kQ5_K, parts);
  }
}

// Row r of the panel whose super-block begins at `to`; what is there is zero.
void place(const BlockPanelType& type, const SuperBlockParts& parts, std::int64_t r,
           unsigned char* to) {
  const BlockPanelLayout layout(type);
  std::memcpy(to + 2 * r, parts.d, 2);
  if (type.minimums) std::memcpy(to + 2 * (kPanelRows + r), parts.dmin, 2);
  const int runs = 32 / type.run, halves = type.high > 0 ? 8 / type.high : 1;
  unsigned char* columns = to + layout.header;
  for (std::size_t c = 0; c < kSuperBlock / 32; ++c, columns += layout.columns32) {
    for (int run = 0; run < runs; ++run) {
      columns[run * kPanelRows + r] =
          parts.scales[c * static_cast<std::size_t>(runs) + static_cast<std::size_t>(run)];
    }
    if (type.minimums) columns[layout.minimums + r] = parts.minimums[c];
    for (int k = 0; k < 32; ++k) {
      const int code = parts.codes[32 * c + static_cast<std::size_t>(k)];
      const int half = k / 4;  // the even ones are low nibbles
      const std::int64_t byte = 4 * r + k % 4;
      columns[layout.nibbles + half / 2 * kUnitBytes + byte] |=
          static_cast<unsigned char>((code & 15) << (half % 2 * 4));
      if (type.high == 0) continue;
      columns[layout.high + half / halves * kUnitBytes + byte] |=
          static_cast<unsigned char>(code >> 4 << type.high * (half % halves));
    }
  }
}

void pack_panel(const QuantTensor& weight, const BlockPanelType& type, std::int64_t panel,
                unsigned char* to) {
  const std::int64_t super_block = BlockPanelLayout(type).super_block;
  const std::int64_t blocks = weight.cols / kSuperBlock;
  std::fill_n(to, blocks * super_block, static_cast<unsigned char>(0));
  const std::int64_t row_bytes = weight.planes[0].dim(1);
  SuperBlockParts parts;
  for (std::int64_t r = 0; r < std::min(kPanelRows, weight.rows - panel * kPanelRows); ++r) {
    const auto* row = reinterpret_cast<const std::uint8_t*>(weight.planes[0].bytes().data()) +
                      (panel * kPanelRows + r) * row_bytes;
    for (std::int64_t b = 0; b < blocks; ++b, row += row_bytes / blocks) {
      take(type.type, row, parts);
      place(type, parts, r, to + b * super_block);
    }
  }
}

// Null when there is none that the machine's kernels take.
const BlockPanelType* panel_type_of(const QuantTensor& weight, const DeviceCaps& caps) {
  const Element& element = weight.format->descriptor().element;
  if (element.kind != ElementKind::kBlock) return nullptr;
  for (const BlockPanelType& type : kBlockPanelTypes) {
    if (static_cast<int>(type.type) != static_cast<int>(element.block)) continue;
    const bool whole = caps.avx512_vnni || caps.neon_i8mm;
    return type.type != BlockStorage::kIq4Xs || whole ? &type : nullptr;
  }
  return nullptr;
}

}  // namespace

std::shared_ptr<const BlockPanelWeight> BlockPanelWeight::pack(const QuantTensor& weight,
                                                               const DeviceCaps& caps,
                                                               ThreadPool& pool,
                                                               const PackedSlot& slot) {
  const BlockPanelType* const type = panel_type_of(weight, caps);
  if (type == nullptr) return nullptr;
  std::shared_ptr<BlockPanelWeight> result(new BlockPanelWeight);
  BlockPanelView& view = result->view_;
  view.type = type->type;
  view.rows = weight.rows;
  view.cols = weight.cols;
  view.panel_bytes = weight.cols / kSuperBlock * BlockPanelLayout(*type).super_block;
  const std::int64_t panels = ceil_div(weight.rows, kPanelRows);
  const PackedPlane planes[] = {
      {"panels", DType::kU8, {panels, view.panel_bytes}, &result->bytes_}};
  const std::string layout = fmt::format("block_panels{}.1:{}", kPanelRows, weight.format->name());
  if (!load_planes(slot, layout, planes)) {
    result->bytes_ = Tensor::allocate_huge(DType::kU8, planes[0].shape);
    auto* const bytes = result->bytes_.mutable_data<unsigned char>();
    pool.parallel_for(panels, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t panel = begin; panel < end; ++panel) {
        pack_panel(weight, *type, panel, bytes + panel * view.panel_bytes);
      }
    });
    save_planes(slot, layout, planes);
  }
  view.data = reinterpret_cast<const unsigned char*>(result->bytes_.bytes().data());
  return result;
}

const BlockPanelWeight* block_panels_of(const LinearArgs& args) {
  return dynamic_cast<const BlockPanelWeight*>(args.w->packed.get());
}

}  // namespace nibble::cpu
